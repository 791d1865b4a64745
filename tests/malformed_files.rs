//! Odd but legal files are read; damaged ones are refused in words that name the file, the field and the value.

mod nifti_bytes;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nifti_bytes::{big_endian, gzip, nifti1, nifti2, put};
use perfuse::io::ReadOptions;
use perfuse::{Error, FrameReference, Mask, Series, TimeAxis, VoxelMap};

fn open(name: &str, bytes: &[u8]) -> Result<Series, Error> {
    let folder = tempfile::tempdir().expect("a folder");
    Series::open(file(folder.path(), name, bytes))
}

fn file(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).expect("a file");
    path
}

/// The samples of the example file, as they should be read.
fn check(series: &Series) {
    assert_eq!(series.shape(), [2, 2, 1, 3]);
    assert_eq!(
        (0..12).map(|i| series.voxels().expect("in memory").get_f64(i)).collect::<Vec<_>>(),
        (0..12).map(f64::from).collect::<Vec<_>>()
    );
    assert_eq!(series.times().unwrap().seconds(), [0.0, 2.0, 4.0]);
    assert_eq!(series.sample_type().name(), "i16");
    assert_eq!(series.geometry().voxel_size, [1.5, 2.0, 3.0]);
}

fn refused(name: &str, bytes: &[u8], words: &[&str]) {
    let text = open(name, bytes).map(|series| series.shape()).expect_err(name).to_string();
    for word in words.iter().chain([&name]) {
        assert!(text.contains(word), "{word:?} is missing in: {text}");
    }
}

fn changed<const N: usize>(at: usize, bytes: [u8; N]) -> Vec<u8> {
    let mut file = nifti1();
    put(&mut file, at, bytes);
    file
}

#[test]
fn both_versions_both_orders_both_ways_of_storing() {
    for file in [nifti1(), nifti2(), big_endian(&nifti1()), big_endian(&nifti2())] {
        check(&open("plain.nii", &file).expect("plain"));
        check(&open("named_plain.nii", &gzip(&file)).expect("gzip named .nii"));
        check(&open("named_gzip.nii.gz", &file).expect("plain named .nii.gz"));
        let (a, b) = file.split_at(100);
        let members = [gzip(a), gzip(b), gzip(&[])].concat();
        check(&open("members.nii.gz", &members).expect("several members"));
        check(&open("padded.nii.gz", &[members, vec![0; 600]].concat()).expect("padded with zeros"));
    }
}

#[test]
fn every_sample_type_in_both_orders() {
    macro_rules! types {
        ($($type:ty, $code:literal;)*) => {$(
            let values = [<$type>::MIN, <$type>::MAX, 1 as $type, 7 as $type];
            for big in [false, true] {
                let mut bytes = nifti1();
                bytes.truncate(352);
                for (i, n) in [4i16, 2, 1, 1, 2].iter().enumerate() {
                    put(&mut bytes, 40 + 2 * i, n.to_le_bytes());
                }
                put(&mut bytes, 70, i16::to_le_bytes($code));
                put(&mut bytes, 72, (8 * size_of::<$type>() as i16).to_le_bytes());
                if big {
                    bytes = big_endian(&bytes);
                }
                bytes.extend(values.iter().flat_map(|v| if big { v.to_be_bytes() } else { v.to_le_bytes() }));
                let series = open("type.nii", &bytes).expect(stringify!($type));
                assert_eq!(series.sample_type().name(), stringify!($type));
                for (i, v) in values.iter().enumerate() {
                    assert_eq!(series.voxels().expect("in memory").get_f64(i), *v as f64);
                }
            }
        )*};
    }
    types! {
        u8, 2; i8, 256; u16, 512; i16, 4; u32, 768; i32, 8; u64, 1280; i64, 1024; f32, 16; f64, 64;
    }
}

#[test]
fn samples_start_where_the_header_says() {
    // Padding without an extension, and an extension.
    for extended in [0, 1] {
        let mut bytes = changed(108, 368f32.to_le_bytes());
        bytes[348] = extended;
        let extension = [&16i32.to_le_bytes()[..], &6i32.to_le_bytes(), b"a remark"].concat();
        bytes.splice(352..352, extension);
        check(&open("offset.nii", &bytes).expect("offset 368"));
        check(&open("offset.nii.gz", &gzip(&bytes)).expect("offset 368"));
    }
    refused("low.nii", &changed(108, 351f32.to_le_bytes()), &["vox_offset", "351", "352"]);
    refused("part.nii", &changed(108, 352.5f32.to_le_bytes()), &["vox_offset", "352.5"]);
    refused("nan.nii", &changed(108, f32::NAN.to_le_bytes()), &["vox_offset", "NaN"]);
    refused("far.nii", &changed(108, 1e12f32.to_le_bytes()), &["vox_offset", "376 bytes long"]);
    refused("far.nii.gz", &gzip(&changed(108, 1e12f32.to_le_bytes())), &["vox_offset", "gzip"]);
    let mut two = nifti2();
    put(&mut two, 168, (-1i64).to_le_bytes());
    refused("negative.nii", &two, &["vox_offset", "-1"]);
}

#[test]
fn pairs_are_found_from_either_member() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut header = nifti1();
    let samples = header.split_off(352);
    put(&mut header, 344, *b"ni1\0");
    put(&mut header, 108, 0f32.to_le_bytes());
    for (header_name, samples_name) in [("a.b.hdr", "a.b.img"), ("c.hdr", "c.img.gz"), ("d.hdr.gz", "d.img")] {
        let packed = |name: &str, bytes: &[u8]| if name.ends_with("gz") { gzip(bytes) } else { bytes.to_vec() };
        let a = file(folder.path(), header_name, &packed(header_name, &header));
        let b = file(folder.path(), samples_name, &packed(samples_name, &samples));
        check(&Series::open(a).expect(header_name));
        check(&Series::open(b).expect(samples_name));
    }
    let alone = file(folder.path(), "alone.hdr", &header);
    let text = Series::open(alone).expect_err("no samples").to_string();
    assert!(text.contains("alone.img") && text.contains("isn't there"), "{text}");
    let alone = file(folder.path(), "lonely.img", &vec![9; 1000]);
    let text = Series::open(alone).expect_err("no header").to_string();
    assert!(text.contains("lonely.hdr"), "{text}");
}

#[test]
fn scaling_by_nibabels_rule() {
    for (slope, intercept, wanted) in [
        (2.0, 5.0, (2.0, 5.0)),
        (0.0, 5.0, (1.0, 0.0)),
        (f32::NAN, 5.0, (1.0, 0.0)),
        (f32::INFINITY, 5.0, (1.0, 0.0)),
        (3.0, f32::NAN, (3.0, 0.0)),
        (3.0, f32::NEG_INFINITY, (3.0, 0.0)),
    ] {
        let mut bytes = changed(112, slope.to_le_bytes());
        put(&mut bytes, 116, intercept.to_le_bytes());
        let scaling = open("scaled.nii", &bytes).expect("scaled").scaling();
        assert_eq!((scaling.slope, scaling.intercept), wanted);
    }
}

#[test]
fn axes_of_size_one_are_no_axes() {
    let mut bytes = changed(40, 7i16.to_le_bytes());
    check(&open("seven.nii", &bytes).expect("seven axes"));
    // Time along the fifth axis.
    put(&mut bytes, 40, 5i16.to_le_bytes());
    put(&mut bytes, 48, 1i16.to_le_bytes());
    put(&mut bytes, 50, 3i16.to_le_bytes());
    let series = open("fifth.nii", &bytes).expect("fifth axis");
    check(&series);
    assert!(series.warnings().iter().any(|w| w.contains("fifth axis")), "{:?}", series.warnings());
    put(&mut bytes, 48, 2i16.to_le_bytes());
    bytes.extend(vec![0; 24]);
    refused("both.nii", &bytes, &["dim", "[2, 2, 1, 2, 3]", "split"]);
}

#[test]
fn one_frame_is_no_series() {
    refused("three.nii", &changed(40, 3i16.to_le_bytes()), &["one frame", "[2, 2, 1]"]);
    refused("one.nii", &changed(48, 1i16.to_le_bytes()), &["one frame"]);
}

#[test]
fn damaged_headers_are_named() {
    refused("bits.nii", &changed(72, 8i16.to_le_bytes()), &["bitpix is 8", "16 bits"]);
    refused("complex.nii", &changed(70, 32i16.to_le_bytes()), &["datatype", "complex64"]);
    refused("rgb.nii", &changed(70, 128i16.to_le_bytes()), &["datatype", "RGB"]);
    refused("quad.nii", &changed(70, 1536i16.to_le_bytes()), &["datatype", "float128"]);
    refused("type.nii", &changed(70, 9999i16.to_le_bytes()), &["datatype", "9999"]);
    refused("rank.nii", &changed(40, 8i16.to_le_bytes()), &["dim[0] is 8"]);
    refused("zero.nii", &changed(48, 0i16.to_le_bytes()), &["dim[4] is 0"]);
    refused("minus.nii", &changed(42, (-5i16).to_le_bytes()), &["dim[1] is -5"]);
    refused("huge.nii", &changed(42, [0xff, 0x7f, 0xff, 0x7f, 0xff, 0x7f]), &["dim", "32767", "truncated"]);
    refused("huge.nii.gz", &gzip(&changed(42, [0xff, 0x7f, 0xff, 0x7f, 0xff, 0x7f])), &["dim", "32767", "gzip"]);
    let mut two = nifti2();
    put(&mut two, 24, i64::MAX.to_le_bytes());
    refused("absurd.nii", &two, &["dim", "don't fit any memory"]);
    put(&mut two, 8, *b"\n\x1a\n\0");
    refused("text.nii", &two, &["magic", "as text"]);
    refused("analyze.hdr", &changed(344, [0; 4]), &["magic", "ANALYZE 7.5", "convert"]);
    refused("words.nii", &[b'x'; 500], &["magic", "not a NIfTI image"]);
    let mut dicom = vec![0; 500];
    put(&mut dicom, 128, *b"DICM");
    refused("image.dcm", &dicom, &["DICOM", "dcm2niix"]);
}

#[test]
fn a_wrong_header_size_is_forgiven_with_a_warning() {
    for file in [nifti1(), big_endian(&nifti1())] {
        let mut file = file;
        put(&mut file, 0, 349i32.to_le_bytes());
        let series = open("size.nii", &file).expect("nibabel reads it, too");
        check(&series);
        assert!(series.warnings()[0].contains("sizeof_hdr"), "{:?}", series.warnings());
    }
}

#[test]
fn truncated_and_damaged_files_are_named() {
    let whole = nifti1();
    refused("empty.nii", &[], &["empty"]);
    refused("header.nii", &whole[..200], &["header", "200 bytes"]);
    refused("header2.nii", &nifti2()[..400], &["header", "400 bytes", "540"]);
    refused("samples.nii", &whole[..370], &["376 bytes", "370 bytes long", "truncated"]);
    let packed = gzip(&whole);
    refused("cut.nii.gz", &packed[..packed.len() / 2], &["gzip stream", "truncated"]);
    refused("tail.nii.gz", &packed[..packed.len() - 3], &["gzip stream", "truncated"]);
    refused("short.nii.gz", &gzip(&whole[..370]), &["the samples", "18 bytes", "24 bytes"]);
    let mut wrong = packed.clone();
    let last = wrong.len() - 6;
    wrong[last] ^= 1;
    refused("sum.nii.gz", &wrong, &["gzip stream", "damaged"]);
    refused("garbage.nii.gz", &[packed, b"garbage".to_vec()].concat(), &["gzip stream", "damaged"]);
}

#[test]
fn bytes_behind_the_samples_are_ignored_with_a_warning() {
    let long = [nifti1(), vec![1; 70_000]].concat();
    for bytes in [long.clone(), gzip(&long)] {
        let series = open("long.nii", &bytes).expect("long");
        check(&series);
        assert!(series.warnings()[0].contains("70000 bytes"), "{:?}", series.warnings());
    }
}

#[test]
fn what_is_no_file_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = Series::open(folder.path()).expect_err("a folder").to_string();
    assert!(text.contains("a folder") && text.contains("dcm2niix"), "{text}");
    let text = Series::open(folder.path().join("none.nii")).expect_err("nothing").to_string();
    assert!(text.contains("none.nii"), "{text}");
}

#[test]
fn masks_hold_whole_numbers_from_zero() {
    let folder = tempfile::tempdir().expect("a folder");
    let mask = |name: &str, values: [f32; 4]| {
        let mut bytes = nifti1();
        bytes.truncate(352);
        put(&mut bytes, 40, 3i16.to_le_bytes());
        put(&mut bytes, 70, 16i16.to_le_bytes());
        put(&mut bytes, 72, 32i16.to_le_bytes());
        bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        Mask::open(file(folder.path(), name, &bytes))
    };
    let good = mask("good.nii", [0.0, 1.0, 2.00001, 70_000.0]).expect("labels");
    assert_eq!(good.regions(), [1, 2, 70_000]);
    assert_eq!(good.labels()[[1, 1, 0]], 70_000);
    for (name, value) in [("half.nii", 0.5), ("minus.nii", -1.0), ("nan.nii", f32::NAN), ("big.nii", 1e10)] {
        let text = mask(name, [0.0, 0.0, value, 0.0]).expect_err(name).to_string();
        assert!(text.contains(name) && text.contains("voxel [0, 1, 0]"), "{text}");
    }
    let text = Mask::open(file(folder.path(), "series.nii", &nifti1())).expect_err("three volumes").to_string();
    assert!(text.contains("one volume"), "{text}");
    let mut scaled = changed(112, 0.5f32.to_le_bytes());
    put(&mut scaled, 48, 1i16.to_le_bytes());
    let map = VoxelMap::open(file(folder.path(), "map.nii", &scaled)).expect("a map");
    assert_eq!(map.values()[[1, 1, 0]], 1.5);
}

/// The times of the example file with this sidecar and this header.
fn timed(sidecar: Option<&str>, header: &[u8]) -> Result<Series, Error> {
    let folder = tempfile::tempdir().expect("a folder");
    if let Some(json) = sidecar {
        file(folder.path(), "dce.v1.json", json.as_bytes());
    }
    Series::open(file(folder.path(), "dce.v1.nii.gz", header))
}

#[test]
fn times_come_from_the_sidecar_first() {
    let series = timed(Some(r#"{"VolumeTiming": [1, 2.5, 7], "RepetitionTime": 9}"#), &nifti1()).expect("listed");
    assert_eq!(series.times().unwrap().seconds(), [1.0, 2.5, 7.0]);
    assert_eq!(series.times().unwrap().reference(), FrameReference::Start);
    assert_eq!(series.times().unwrap().origin(), "VolumeTiming of dce.v1.json");
    let series = timed(Some(r#"{"FrameTimesStart": [0, 30, 90], "FrameDuration": [30, 60, 60]}"#), &nifti1());
    assert_eq!(series.expect("listed").times().unwrap().seconds(), [0.0, 30.0, 90.0]);
    let series = timed(Some(r#"{"RepetitionTime": 1.5}"#), &nifti1()).expect("repeated");
    assert_eq!(series.times().unwrap().seconds(), [0.0, 1.5, 3.0]);
    assert!(series.warnings()[0].contains("pixdim[4] is 2 s"), "{:?}", series.warnings());
    // A pulse's repetition time is no frame spacing.
    let series = timed(Some(r#"{"RepetitionTime": 0.0047}"#), &nifti1()).expect("from the header");
    check(&series);
    assert!(series.warnings()[0].contains("0.0047"), "{:?}", series.warnings());
    let series = timed(Some("no JSON"), &nifti1()).expect("from the header");
    assert!(series.warnings()[0].contains("dce.v1.json"), "{:?}", series.warnings());
    for (json, word) in [
        (r#"{"VolumeTiming": [1, 2]}"#, "2 times for 3 frames"),
        (r#"{"VolumeTiming": [1, 3, 2]}"#, "time 2 is 2 s after time 1"),
        (r#"{"VolumeTiming": [1, null, 2]}"#, "null"),
        (r#"{"VolumeTiming": 4}"#, "VolumeTiming is 4"),
        (r#"{"VolumeTiming": [0, 2000, 4000]}"#, "2000 s apart"),
    ] {
        let text = timed(Some(json), &nifti1()).expect_err(json).to_string();
        assert!(text.contains(word) && text.contains("dce.v1.json"), "{text}");
    }
}

#[test]
fn times_come_from_the_header_with_its_unit() {
    let header = |spacing: f32, units: u8, offset: f32| {
        let mut bytes = changed(92, spacing.to_le_bytes());
        put(&mut bytes, 136, offset.to_le_bytes());
        bytes[123] = units;
        bytes
    };
    for (spacing, unit, offset, wanted) in [
        (4.97656, 8, 0.0, [0.0, 4.97656, 9.95312]),
        (2000.0, 16, 500.0, [0.5, 2.5, 4.5]),
        (2e6, 24, 0.0, [0.0, 2.0, 4.0]),
        (3.0, 0, 1.0, [1.0, 4.0, 7.0]),
    ] {
        let series = timed(None, &header(spacing, unit, offset)).expect("header");
        for (found, wanted) in series.times().unwrap().seconds().iter().zip(wanted) {
            assert!((found - wanted).abs() < 1e-12, "{:?}", series.times().unwrap());
        }
        assert_eq!(series.times().unwrap().reference(), FrameReference::Unknown);
        assert_eq!(series.warnings().iter().any(|w| w.contains("unknown unit")), unit == 0, "{:?}", series.warnings());
    }
    for (spacing, unit) in [(0.0, 8), (0.008, 8), (121.0, 8), (2.0, 16), (2.0, 32), (f32::NAN, 8), (-2.0, 8)] {
        let text =
            timed(Some(r#"{"RepetitionTime": 0.004}"#), &header(spacing, unit, 0.0)).expect_err("no time").to_string();
        for word in
            ["dce.v1.nii.gz", "pixdim[4]", &spacing.to_string(), "RepetitionTime = 0.004", "--dt", "frame_spacing_s"]
        {
            assert!(text.contains(word), "{word} is missing in: {text}");
        }
    }
}

#[test]
fn given_times_are_believed() {
    let folder = tempfile::tempdir().expect("a folder");
    let image = file(folder.path(), "dce.nii", &nifti1());
    file(folder.path(), "dce.json", br#"{"VolumeTiming": [0, 1]}"#);
    let with = |options: ReadOptions| Series::open_with(&image, &options);
    let series = with(ReadOptions::new().frame_spacing_s(0.01)).expect("a spacing");
    assert_eq!(series.times().unwrap().seconds(), [0.0, 0.01, 0.02]);
    let list = file(folder.path(), "times.txt", "# seconds\n-1.5\n\n 0.5 # contrast\r\n9e2\n".as_bytes());
    let series = with(ReadOptions::new().times_file(&list)).expect("a list");
    assert_eq!(series.times().unwrap().seconds(), [-1.5, 0.5, 900.0]);
    let axis = TimeAxis::from_seconds(vec![3.0, 4.0, 9.0]).expect("an axis");
    assert_eq!(with(ReadOptions::new().times(axis.clone())).expect("an axis").times().unwrap(), &axis);
    for (text, words) in [
        ("1\n2\n", &["2 times for 3 frames", "bad.txt", "dce.nii"][..]),
        ("1\ntwo\n3\n", &["bad.txt", "line 2", "two"]),
        ("1\n2\nNaN\n", &["bad.txt", "line 3", "NaN"]),
        ("1\n3\n2\n", &["bad.txt", "time 2"]),
    ] {
        let list = file(folder.path(), "bad.txt", text.as_bytes());
        let error = with(ReadOptions::new().times_file(list)).expect_err(text).to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
    let error = with(ReadOptions::new().frame_spacing_s(-1.0)).expect_err("negative").to_string();
    assert!(error.contains("frame_spacing_s is -1"), "{error}");
}

#[test]
fn reading_reports_and_can_be_cancelled() {
    let folder = tempfile::tempdir().expect("a folder");
    let packed = gzip(&nifti1());
    let image = file(folder.path(), "dce.nii.gz", &packed);
    let seen = Arc::new(AtomicU64::new(0));
    let told = Arc::clone(&seen);
    let options = ReadOptions::new().progress(Arc::new(move |done, total| {
        assert_eq!(total, 24);
        told.fetch_max(done, Ordering::Relaxed);
    }));
    let (series, report) = Series::open_with_report(&image, &options).expect("a series");
    check(&series);
    assert_eq!(seen.load(Ordering::Relaxed), 24);
    assert_eq!((report.file_bytes, report.data_bytes, report.compressed), (packed.len() as u64, 24, true));
    let options = ReadOptions::new().cancel(Arc::new(AtomicBool::new(true)));
    assert!(matches!(Series::open_with(&image, &options), Err(Error::Cancelled)));
}
