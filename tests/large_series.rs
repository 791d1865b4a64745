//! A series that is larger than its memory limit stays in a file, and gives the same results to the bit.

mod nifti_bytes;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ndarray::Array3;
use nifti_bytes::{big_endian, gzip, nifti1, put};
use perfuse::io::{Overwrite, ReadOptions, Storage};
use perfuse::kernels::descriptors::MapSelection;
use perfuse::{Cancel, Descriptors, Engine, Error, Mask, NonFinite, RunOptions, Series, TimeAxis};

/// More voxels than a window holds, twice; no multiple of anything.
const SHAPE: [usize; 4] = [41, 37, 29, 14];

fn samples() -> Vec<f32> {
    let count = SHAPE[0] * SHAPE[1] * SHAPE[2];
    let mut state = 0x5eed_u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    (0..count * SHAPE[3])
        .map(|i| {
            let (voxel, frame) = (i % count, i / count);
            let rise = (frame as f32 - 4.0).clamp(0.0, 5.0) * (voxel % 23) as f32;
            200.0 + rise + 4.0 * noise()
        })
        .collect()
}

fn times() -> TimeAxis {
    TimeAxis::uniform(3.0, SHAPE[3]).expect("even times")
}

/// The same series three ways, and in memory.
fn stored(folder: &Path, series: &Series) -> Vec<(PathBuf, Storage)> {
    let (plain, packed) = (folder.join("a.nii"), folder.join("b.nii.gz"));
    series.save(&plain, Overwrite::Refuse).expect("written");
    series.save(&packed, Overwrite::Refuse).expect("written");
    // In the other byte order: the header by hand, every sample turned around.
    let bytes = std::fs::read(&plain).expect("written");
    let size = series.sample_type().bytes();
    let mut turned = big_endian(&bytes[..352]);
    turned.extend(bytes[352..].chunks(size).flat_map(|sample| sample.iter().rev().copied()));
    let other = folder.join("c.nii");
    std::fs::write(&other, turned).expect("written");
    vec![(plain, Storage::File), (packed, Storage::Scratch), (other, Storage::File)]
}

/// Maps and status as words, so that NaN equals NaN.
fn words(maps: &perfuse::Maps) -> Vec<Vec<u32>> {
    let mut words: Vec<Vec<u32>> = maps
        .iter()
        .map(|map| match &map.data {
            perfuse::MapData::Float(values) => values.iter().map(|value| value.to_bits()).collect(),
            perfuse::MapData::Label(labels) => labels.iter().copied().collect(),
            perfuse::MapData::Curve(curves) => curves.iter().map(|value| value.to_bits()).collect(),
            other => panic!("{other:?}"),
        })
        .collect();
    words.push(maps.status().iter().copied().collect());
    words
}

fn small() -> ReadOptions {
    ReadOptions::new().times(times()).memory_limit_bytes(1)
}

fn check_all_ways(whole: &Series, options: &RunOptions<'_>, kernel: &Descriptors, engines: &[Engine]) {
    let folder = tempfile::tempdir().expect("a folder");
    for (path, storage) in stored(folder.path(), whole) {
        let (series, report) = Series::open_with_report(&path, &small()).expect("opened");
        assert_eq!(report.storage, storage);
        assert!(series.is_in_file() && series.voxels().is_err());
        assert_eq!(series.curve([40, 36, 28]).expect("inside"), whole.curve([40, 36, 28]).expect("inside"));
        for engine in engines {
            let expected = engine.run_with(kernel, whole, options).expect("a run");
            let found = engine.run_with(kernel, &series, options).expect("a run");
            assert!(words(&found) == words(&expected), "{} of {path:?}", engine.name());
            assert_eq!(found.record().settings, expected.record().settings);
        }
    }
}

fn engines() -> Vec<Engine> {
    let mut engines = vec![Engine::cpu(), Engine::cpu().with_threads(3).expect("threads")];
    if let Ok(gpu) = Engine::gpu(None) {
        engines.push(gpu);
    }
    engines
}

#[test]
fn integers_give_the_same_maps() {
    let whole: Vec<i16> = samples().iter().map(|value| *value as i16).collect();
    let whole = Series::from_voxels(whole, SHAPE, times()).expect("fits");
    // The automatic baseline asks for the mean curve, and the noise for the baseline's deviations.
    check_all_ways(&whole, &RunOptions::new(), &Descriptors::new(), &engines());
}

#[test]
fn a_mask_and_missing_samples_give_the_same_maps() {
    let mut samples = samples();
    for i in (0..samples.len()).step_by(7919) {
        samples[i] = f32::NAN;
    }
    let whole = Series::from_voxels(samples, SHAPE, times()).expect("fits");
    // Nothing in the middle: that window isn't even read.
    let labels = Array3::from_shape_fn((41, 37, 29), |(x, _, z)| u32::from(x > 3 && !(9..25).contains(&z)));
    let mask = Mask::from_labels(labels.view());
    let kernel = Descriptors::new().maps(MapSelection::only(["peak_time", "auc", "onset"]));
    check_all_ways(&whole, &RunOptions::new().mask(&mask), &kernel, &engines());
    check_all_ways(&whole, &RunOptions::new().mask(&mask).non_finite(NonFinite::Skip), &kernel, &engines()[..1]);
}

#[test]
fn the_definition_and_verifying_read_from_the_file_too() {
    let whole = Series::from_voxels(samples(), SHAPE, times()).expect("fits");
    let kernel = Descriptors::new().maps(MapSelection::only(["peak_time", "auc"]));
    check_all_ways(&whole, &RunOptions::new(), &kernel, &[Engine::reference()]);
    let folder = tempfile::tempdir().expect("a folder");
    let (path, _) = &stored(folder.path(), &whole)[1];
    let series = Series::open_with(path, &small()).expect("opened");
    let verification = Engine::cpu().verify_voxels(&kernel, &series, &RunOptions::new(), 500).expect("verified");
    assert!(verification.passed() && verification.voxels > 400, "{verification}");
    let values = |series: &Series| {
        let values = Engine::reference_values(&kernel, series, [7, 8, 28], &RunOptions::new()).expect("values");
        values.into_iter().map(|(id, value)| (id, value.to_bits())).collect::<Vec<_>>()
    };
    assert_eq!(values(&series), values(&whole));
    assert_eq!(series.mean_of_frames(&[0, 13]).expect("frames"), whole.mean_of_frames(&[0, 13]).expect("frames"));
    // Into memory after all, and into a file again.
    let again = series.in_memory().expect("it fits");
    assert!(!again.is_in_file());
    assert_eq!(again.voxels().expect("in memory").as_bytes(), whole.voxels().expect("in memory").as_bytes());
    let copy = folder.path().join("copy.nii.gz");
    series.save(&copy, Overwrite::Refuse).expect("written");
    let copy = Series::open(&copy).expect("read");
    assert_eq!(copy.voxels().expect("in memory").as_bytes(), whole.voxels().expect("in memory").as_bytes());
}

/// A series left in a file that the system holds in its memory. Other programs may make that seem slow once, or twice.
fn left_in_file(path: &Path) -> Series {
    let options = ReadOptions::new().times(times()).leave_in_file();
    let mut tries = (0..1000).map(|_| Series::open_with(path, &options).expect("opened"));
    tries.find(Series::is_in_file).expect("just written, so the system still has it in memory")
}

#[test]
fn a_series_that_is_left_in_its_file_gives_the_same_maps() {
    // Enough voxels for a foretold mean curve, and a last stretch that is shorter.
    let (planes, shape) = (7, [41, 37, 29 * 7, 14]);
    let samples = samples();
    let plane = samples.len() / SHAPE[3];
    let many = samples.chunks(plane).flat_map(|frame| std::iter::repeat_n(frame, planes).flatten());
    let many: Vec<i16> = many.map(|value| *value as i16).collect();
    let mut holes = samples.clone();
    holes.iter_mut().step_by(7919).for_each(|sample| *sample = f32::NAN);
    let labels = |z: usize| Array3::from_shape_fn((41, 37, z), |(x, _, z)| u32::from(x > 3 && !(9..25).contains(&z)));
    let cases = [
        (Series::from_voxels(many, shape, times()).expect("fits"), Mask::from_labels(labels(shape[2]).view())),
        (Series::from_voxels(holes, SHAPE, times()).expect("fits"), Mask::from_labels(labels(SHAPE[2]).view())),
    ];
    let folder = tempfile::tempdir().expect("a folder");
    for (index, (whole, mask)) in cases.iter().enumerate() {
        let path = folder.path().join(format!("{index}.nii"));
        whole.save(&path, Overwrite::Refuse).expect("written");
        let series = left_in_file(&path);
        for kernel in [Descriptors::new(), Descriptors::new().baseline_frames(0..4)] {
            for options in [RunOptions::new(), RunOptions::new().mask(mask)] {
                for engine in engines() {
                    let expected = engine.run_with(&kernel, whole, &options).expect("a run");
                    let found = engine.run_with(&kernel, &series, &options).expect("a run");
                    assert!(words(&found) == words(&expected), "{} of {index}", engine.name());
                    assert_eq!(found.record().settings, expected.record().settings);
                }
            }
        }
        let engine = Engine::cpu();
        let cancelled = Cancel::new();
        cancelled.cancel();
        let stopped = engine.run_with(&Descriptors::new(), &series, &RunOptions::new().cancel(cancelled));
        assert!(matches!(stopped, Err(Error::Cancelled)));
        let file = std::fs::OpenOptions::new().write(true).open(&path).expect("writable");
        file.set_len(path.metadata().expect("a file").len() + 100).expect("longer");
        let text = engine.run(&Descriptors::new(), &series).expect_err("it changed").to_string();
        assert!(text.contains(".nii") && text.contains("changed"), "{text}");
    }
}

#[test]
fn a_file_that_changes_while_it_is_in_use_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = Series::from_voxels(samples(), SHAPE, times()).expect("fits");
    let (path, _) = &stored(folder.path(), &whole)[0];
    let series = Series::open_with(path, &small()).expect("opened");
    let length = path.metadata().expect("a file").len();
    let file = std::fs::OpenOptions::new().write(true).open(path).expect("writable");
    file.set_len(length + 100).expect("longer");
    let kernel = Descriptors::new();
    for outcome in [Engine::cpu().run(&kernel, &series).err(), series.curve([0, 0, 0]).err()] {
        let text = outcome.expect("it changed").to_string();
        assert!(text.contains("a.nii") && text.contains("changed"), "{text}");
    }
    file.set_len(length / 2).expect("shorter");
    assert!(Engine::cpu().run(&kernel, &series).is_err());
    assert!(Engine::cpu().run(&kernel.baseline_frames(0..4), &series).is_err());
}

#[test]
fn runs_over_files_can_be_cancelled_and_tell() {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = Series::from_voxels(samples(), SHAPE, times()).expect("fits");
    let (path, _) = &stored(folder.path(), &whole)[0];
    let series = Series::open_with(path, &small()).expect("opened");
    let cancel = Cancel::new();
    let (stop, told) = (cancel.clone(), Arc::new(AtomicBool::new(false)));
    let seen = Arc::clone(&told);
    let options = RunOptions::new().cancel(cancel).progress(move |done, all| {
        assert!(done <= all && all == 41 * 37 * 29);
        seen.store(true, Ordering::Relaxed);
        stop.cancel();
    });
    assert!(matches!(Engine::cpu().run_with(&Descriptors::new(), &series, &options), Err(Error::Cancelled)));
    assert!(told.load(Ordering::Relaxed));
}

#[test]
fn small_and_odd_files_stay_in_their_file_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = ReadOptions::new().memory_limit_bytes(0);
    let check = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        let series = Series::open_with(&path, &options).expect(name);
        assert!(series.is_in_file());
        assert_eq!(series.curve([1, 1, 0]).expect("inside"), [3.0, 7.0, 11.0], "{name}");
        series.warnings().len()
    };
    for file in [nifti1(), big_endian(&nifti1())] {
        assert_eq!(check("plain.nii", &file), 0);
        assert_eq!(check("packed.nii.gz", &gzip(&file)), 0);
        assert_eq!(check("longer.nii", &[file.clone(), vec![9; 7]].concat()), 1);
        assert_eq!(check("longer.nii.gz", &gzip(&[file, vec![9; 7]].concat())), 1);
    }
    let mut header = nifti1();
    let samples = header.split_off(352);
    put(&mut header, 344, *b"ni1\0");
    put(&mut header, 108, 0f32.to_le_bytes());
    std::fs::write(folder.path().join("pair.img"), samples).expect("written");
    assert_eq!(check("pair.hdr", &header), 0);
    let error = Series::open_with(folder.path().join("plain.nii"), &options).expect("opened").voxels().err();
    let text = error.expect("not in memory").to_string();
    assert!(text.contains("plain.nii") && text.contains("24 bytes") && text.contains("memory_limit_bytes"), "{text}");
    let lost = options.clone().scratch_folder(folder.path().join("nowhere"));
    let text = Series::open_with(folder.path().join("packed.nii.gz"), &lost).expect_err("no folder").to_string();
    assert!(text.contains("nowhere"), "{text}");
}
