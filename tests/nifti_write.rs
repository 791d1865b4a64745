//! What is written: read back by ourselves and by an independent reader, whole or not at all, never over older results.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ndarray::{Array3, Array4};
use nifti::{NiftiHeader, NiftiObject, NiftiVolume, RandomAccessNiftiVolume, ReaderOptions};
use perfuse::io::{Compression, Overwrite, SaveOptions};
use perfuse::{
    Error, Geometry, Map, MapData, Maps, Mask, Quantity, RunRecord, Scaling, Series, SettingValue, SignalKind,
    StageTime, TimeAxis, Unit, VoxelMap, Voxels,
};
use serde_json::Value;

fn geometry() -> Geometry {
    let mut geometry = Geometry::from_voxel_size_mm([1.5, 2.25, 4.0]);
    geometry.qfac = -1.0;
    geometry.qform_code = 1;
    geometry.quaternion = [0.5, -0.25, 0.125];
    geometry.offset = [-90.5, 126.25, -72.0];
    geometry.sform_code = 4;
    geometry.srow = [[-1.5, 0.25, 0.5, 90.0], [0.125, 2.25, -0.75, -126.0], [0.0, 1.0, 4.0, -72.5]];
    geometry
}

fn record() -> RunRecord {
    RunRecord {
        kernel: "descriptors".into(),
        engine: "cpu".into(),
        device: "a processor".into(),
        reason: "asked for".into(),
        kind: SignalKind::Signal,
        settings: vec![
            ("onset".into(), SettingValue::Text("lines".into())),
            ("sigma".into(), SettingValue::Number(f64::NAN)),
            ("frames".into(), SettingValue::List(vec![SettingValue::Number(0.0), SettingValue::Number(4.5)])),
        ],
        further_sources: Vec::new(),
        source: Some("/home/someone/dce.v2.nii.gz".into()),
        shape: [3, 2, 2, 4],
        times_s: vec![1.0, 3.0, 5.0, 7.0],
        times_origin: "given".into(),
        times_reference: "unknown".into(),
        stages: vec![StageTime { stage: "kernel".into(), seconds: 0.5, bytes: 48 }],
        voxels: 12,
        status_counts: vec![(8, "not enhancing".into(), 3)],
        status_meanings: vec![(8, "not enhancing".into()), (1 << 16, "the kernel's own".into())],
        warnings: vec!["a doubt".into()],
    }
}

fn map(quantity: Quantity, data: MapData) -> Map {
    let unit = quantity.unit.text(SignalKind::Signal);
    Map { quantity, unit, data }
}

fn values() -> Array3<f32> {
    let mut values = Array3::from_shape_fn((3, 2, 2), |(x, y, z)| (x + 10 * y + 100 * z) as f32);
    values[[2, 1, 0]] = f32::NAN;
    values
}

fn maps_with(further: Vec<Map>) -> Maps {
    let labels = Array3::from_shape_fn((3, 2, 2), |(x, y, _)| (x * y) as u32);
    let curves = Array4::from_shape_fn((3, 2, 2, 4), |(x, y, z, t)| (x + 10 * y + 100 * z + 1000 * t) as f32);
    let curve = Quantity::new("fitted_curve", None, "f", Unit::Series, "the fitted curve");
    let mut maps = vec![
        map(Quantity::TIME_TO_PEAK, MapData::Float(values())),
        map(Quantity::CURVE_TYPE, MapData::Label(labels)),
        map(curve, MapData::Curve(curves)),
    ];
    maps.extend(further);
    let status = Array3::from_shape_fn((3, 2, 2), |(x, _, _)| 1 << x);
    Maps::new(maps, status, geometry(), record()).expect("maps of one shape")
}

fn maps() -> Maps {
    maps_with(Vec::new())
}

fn listing(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn json(path: PathBuf) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).expect("a file")).expect("JSON")
}

const FILES: [&str; 9] = [
    "curve_type.json",
    "curve_type.nii.gz",
    "fitted_curve.json",
    "fitted_curve.nii.gz",
    "run.json",
    "status.json",
    "status.nii.gz",
    "time_to_peak.json",
    "time_to_peak.nii.gz",
];

/// The file as the `nifti` crate sees it: header, and values x fastest.
fn independent(path: &Path) -> (NiftiHeader, Vec<usize>, Vec<f64>) {
    let object = ReaderOptions::new().read_file(path).expect("an independent reader reads it");
    let header = object.header().clone();
    let volume = object.into_volume();
    let shape = volume.dim().to_vec();
    let count: usize = shape.iter().map(|n| usize::from(*n)).product();
    let value = |mut index: usize| {
        let place: Vec<u16> = shape
            .iter()
            .map(|n| {
                let along = index % usize::from(*n);
                index /= usize::from(*n);
                along as u16
            })
            .collect();
        volume.get_f64(&place).expect("a value")
    };
    let values = (0..count).map(value).collect();
    (header, shape.iter().map(|n| usize::from(*n)).collect(), values)
}

#[test]
fn an_independent_reader_sees_the_maps_on_the_series_grid() {
    let folder = tempfile::tempdir().expect("a folder");
    // Folders are made, however deep.
    let folder = folder.path().join("new/maps.v1");
    let report = maps().save(&folder).expect("saved");
    assert_eq!(listing(&folder), FILES);
    assert_eq!(report.files.len(), FILES.len());
    assert_eq!(report.files.last(), Some(&folder.join("run.json")));

    let (header, shape, found) = independent(&folder.join("time_to_peak.nii.gz"));
    assert_eq!(shape, [3, 2, 2]);
    let same = |a: f64, b: f32| a == f64::from(b) || (a.is_nan() && b.is_nan());
    assert!(found.iter().zip(values().t().iter()).all(|(a, b)| same(*a, *b)), "{found:?}");
    let wanted = geometry();
    assert_eq!((header.datatype, header.bitpix, header.vox_offset, header.sizeof_hdr), (16, 32, 352.0, 348));
    assert_eq!(header.pixdim[..4], [-1.0, 1.5, 2.25, 4.0]);
    assert_eq!((header.qform_code, header.sform_code), (1, 4));
    assert_eq!([header.quatern_b, header.quatern_c, header.quatern_d].map(f64::from), wanted.quaternion);
    assert_eq!([header.quatern_x, header.quatern_y, header.quatern_z].map(f64::from), wanted.offset);
    assert_eq!([header.srow_x, header.srow_y, header.srow_z].map(|row| row.map(f64::from)), wanted.srow);
    assert_eq!(header.xyzt_units, 2);
    assert_eq!((header.scl_slope, header.scl_inter), (1.0, 0.0));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_string();
    assert_eq!(text(&header.descrip), format!("time_to_peak, s, perfuse {}", env!("CARGO_PKG_VERSION")));
    assert_eq!(text(&header.intent_name), "time_to_peak");
    // Eleven finite values: the 2nd and the 98th percentile are the first and the last.
    assert_eq!((header.cal_min, header.cal_max), (0.0, 112.0));

    let (header, _, found) = independent(&folder.join("curve_type.nii.gz"));
    assert_eq!((header.datatype, header.cal_max), (2, 2.0));
    assert_eq!(found, [0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0]);
    let (header, _, found) = independent(&folder.join("status.nii.gz"));
    assert_eq!(header.datatype, 8);
    assert_eq!(found[..3], [1.0, 2.0, 4.0]);
    let (header, shape, found) = independent(&folder.join("fitted_curve.nii.gz"));
    assert_eq!(shape, [3, 2, 2, 4]);
    assert_eq!((header.pixdim[4], header.toffset, header.xyzt_units), (2.0, 1.0, 10));
    assert_eq!(found[3 * 12 + 4], 3011.0);
}

#[test]
fn our_reader_gets_every_field_of_the_geometry_back() {
    let folder = tempfile::tempdir().expect("a folder");
    maps().save_with(folder.path(), &SaveOptions::new().compression(Compression::None)).expect("saved");
    let map = VoxelMap::open(folder.path().join("time_to_peak.nii")).expect("read back");
    assert_eq!(map.geometry(), Some(&geometry()));
}

#[test]
fn the_json_says_what_the_maps_are() {
    let folder = tempfile::tempdir().expect("a folder");
    maps().save(folder.path()).expect("saved");
    let map = json(folder.path().join("time_to_peak.json"));
    for (key, wanted) in [
        ("id", "time_to_peak"),
        ("caplex", "Q.CD1.010"),
        ("unit", "s"),
        ("file", "time_to_peak.nii.gz"),
        ("source", "dce.v2.nii.gz"),
        ("device", "a processor"),
    ] {
        assert_eq!(map[key], wanted);
    }
    assert_eq!(map["definition"], Quantity::TIME_TO_PEAK.definition.as_ref());
    assert_eq!(map["settings"], serde_json::json!({"onset": "lines", "sigma": null, "frames": [0, 4.5]}));
    assert_eq!(map["software"]["version"], env!("CARGO_PKG_VERSION"));
    let status = json(folder.path().join("status.json"));
    assert_eq!(status["bits"][0], serde_json::json!({"bit": 3, "value": 8, "meaning": "not enhancing"}));
    assert_eq!(status["bits"][1]["bit"], 16, "the kernel's own bits too");
    let run = json(folder.path().join("run.json"));
    assert_eq!(run["status"][0], serde_json::json!({"bit": 3, "value": 8, "meaning": "not enhancing", "voxels": 3}));
    assert_eq!(run["stages"][0], serde_json::json!({"stage": "kernel", "seconds": 0.5, "bytes": 48}));
    assert_eq!(run["stages"][1]["stage"], "write");
    assert_eq!((run["voxels"].as_u64(), run["reason"].as_str()), (Some(12), Some("asked for")));
    assert_eq!(run["times_s"], serde_json::json!([1, 3, 5, 7]));
    assert_eq!(run["warnings"][0], "a doubt");
    let files: Vec<&str> = run["files"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    assert!(FILES.iter().filter(|file| **file != "run.json").all(|file| files.contains(file)), "{files:?}");
    assert!(!run.to_string().contains("someone"), "folders stay private");
}

#[test]
fn older_results_are_kept_unless_told_otherwise() {
    for existing in ["status.json", "time_to_peak.nii", "run.json"] {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join(existing), "older").expect("a file");
        match maps().save(folder.path()) {
            Err(Error::Exists { path }) => assert!(path.ends_with(existing)),
            other => panic!("{other:?}"),
        }
        assert_eq!(listing(folder.path()), [existing], "nothing is written");
        let replace = SaveOptions::new().overwrite(Overwrite::Replace);
        maps().save_with(folder.path(), &replace).expect("replaced");
        assert_eq!(listing(folder.path()), FILES, "what went by the other name is gone");
        maps().save_with(folder.path(), &replace).expect("replaced again");
    }
}

#[test]
fn replacing_a_run_takes_all_of_it_away_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let further = vec![map(Quantity::AUC, MapData::Float(values()))];
    maps_with(further).save(folder.path()).expect("saved");
    std::fs::write(folder.path().join("notes.txt"), "mine").expect("a file");
    assert!(folder.path().join("auc.nii.gz").exists());
    maps().save_with(folder.path(), &SaveOptions::new().overwrite(Overwrite::Replace)).expect("replaced");
    let expected: Vec<String> = {
        let mut names: Vec<String> = FILES.iter().map(ToString::to_string).chain(["notes.txt".into()]).collect();
        names.sort();
        names
    };
    assert_eq!(listing(folder.path()), expected);
}

#[test]
fn a_run_that_fails_leaves_nothing_that_looks_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    // A folder where a map should go: renaming fails.
    std::fs::create_dir(folder.path().join("time_to_peak.nii.gz")).expect("a folder");
    std::fs::write(folder.path().join("run.json"), "older").expect("a file");
    let error = maps().save_with(folder.path(), &SaveOptions::new().overwrite(Overwrite::Replace));
    assert!(matches!(error, Err(Error::Io { .. })), "{error:?}");
    let left = listing(folder.path());
    assert!(!left.iter().any(|name| name == "run.json" || name.ends_with(".tmp")), "{left:?}");

    let folder = tempfile::tempdir().expect("a folder");
    let cancelled = SaveOptions::new().cancel(Arc::new(AtomicBool::new(true)));
    assert!(matches!(maps().save_with(folder.path(), &cancelled), Err(Error::Cancelled)));
    assert!(listing(folder.path()).is_empty());
}

#[test]
fn ids_that_are_no_file_names_are_refused() {
    for id in ["../outside", "", ".hidden", "a b", "status", "time_to_peak"] {
        let quantity = Quantity::new(id, None, "x", Unit::Seconds, "an id from outside");
        let folder = tempfile::tempdir().expect("a folder");
        let maps = maps_with(vec![map(quantity, MapData::Float(values()))]);
        assert!(matches!(maps.save(folder.path()), Err(Error::Setting { .. })), "{id}");
        assert!(listing(folder.path()).is_empty());
    }
}

#[test]
fn regions_are_what_they_are_by_hand() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut labels = Array3::<u32>::zeros((3, 2, 2));
    // Region 1 holds 0, 1, 2 and 10; region 7 NaN and 112.
    for voxel in [[0, 0, 0], [1, 0, 0], [2, 0, 0], [0, 1, 0]] {
        labels[voxel] = 1;
    }
    labels[[2, 1, 0]] = 7;
    labels[[2, 1, 1]] = 7;
    let mask = Mask::from_labels(labels.view()).with_geometry(geometry());
    maps().save_with(folder.path(), &SaveOptions::new().mask(&mask)).expect("saved");
    let table = std::fs::read_to_string(folder.path().join("regions.csv")).expect("a table");
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[0], "map,unit,region,voxels,valid,missing,mean,sd,median,q25,q75");
    let sd = (62.75f64 / 3.0).sqrt();
    assert_eq!(lines[1], format!("time_to_peak,s,1,4,4,0,3.25,{sd},1.5,0.75,4"));
    assert_eq!(lines[2], "time_to_peak,s,7,2,1,1,112,,112,112,112");
    assert_eq!(lines[3], "curve_type,label,1,4,0,4,,,,,");
    assert_eq!(lines[4], "curve_type,label,7,2,2,0,,,,,");
    assert_eq!(lines.len(), 5);

    let other = Mask::from_labels(labels.view()).with_geometry(Geometry::default());
    let replace = SaveOptions::new().overwrite(Overwrite::Replace);
    let error = maps().save_with(folder.path(), &replace.clone().mask(&other));
    assert!(matches!(error, Err(Error::Mismatch { .. })), "{error:?}");
    maps().save_with(folder.path(), &replace).expect("saved");
    assert!(!folder.path().join("regions.csv").exists(), "regions of another run don't stay");
}

#[test]
fn a_series_comes_back_as_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let shape = [3, 2, 2, 3];
    let samples: Vec<i16> = (0..36).map(|i| i * 7 - 100).collect();
    for (name, times) in [("sub.cbf.nii", vec![0.0, 0.1, 0.2]), ("sub.v2.nii.gz", vec![-3.5, 1.0, 9.25])] {
        let times = TimeAxis::from_seconds(times).expect("times");
        let series = Series::from_voxels(samples.clone(), shape, times.clone())
            .and_then(|series| series.with_scaling(Scaling { slope: 0.5, intercept: 3.0 }))
            .expect("a series")
            .with_geometry(geometry());
        let path = folder.path().join(name);
        series.save(&path, Overwrite::Refuse).expect("saved");
        let back = Series::open(&path).expect("read back");
        assert_eq!(back.times().unwrap().seconds(), times.seconds());
        assert_eq!((back.shape(), back.scaling()), (shape, series.scaling()));
        assert_eq!(back.geometry(), &geometry());
        assert!(matches!(back.voxels(), Ok(Voxels::I16(found)) if *found == samples));
        assert!(back.warnings().is_empty(), "{:?}", back.warnings());
        assert!(matches!(series.save(&path, Overwrite::Refuse), Err(Error::Exists { .. })));
        series.save(&path, Overwrite::Replace).expect("replaced");
        let (header, _, _) = independent(&path);
        assert_eq!((header.datatype, header.xyzt_units), (4, 10));
    }
    assert_eq!(listing(folder.path()), ["sub.cbf.json", "sub.cbf.nii", "sub.v2.json", "sub.v2.nii.gz"]);
    // Without its sidecar the header's own times serve.
    std::fs::remove_file(folder.path().join("sub.cbf.json")).expect("removed");
    let back = Series::open(folder.path().join("sub.cbf.nii")).expect("read back");
    assert_eq!(back.times().unwrap().seconds(), [0.0, 0.1, 0.2]);
}

#[test]
fn masks_and_maps_come_back_as_they_were() {
    let folder = tempfile::tempdir().expect("a folder");
    for largest in [200u32, 60_000, 3_000_000_000] {
        let labels = Array3::from_shape_fn((3, 2, 2), |(x, y, z)| if x == 2 { largest } else { (y + z) as u32 });
        let path = folder.path().join(format!("mask.{largest}.nii.gz"));
        let mask = Mask::from_labels(labels.view()).with_geometry(geometry());
        mask.save(&path, Overwrite::Refuse).expect("saved");
        assert_eq!(Mask::open(&path).expect("read back").labels(), labels);
    }
    let path = folder.path().join("map.nii");
    VoxelMap::from_array(values().view()).save(&path, Overwrite::Refuse).expect("saved");
    let back = VoxelMap::open(&path).expect("read back");
    assert!(back.values().iter().zip(&values()).all(|(a, b)| a.to_bits() == b.to_bits()));
    let error = VoxelMap::from_array(values().view()).save(folder.path().join("map.img"), Overwrite::Refuse);
    assert!(matches!(error, Err(Error::Setting { .. })), "{error:?}");
}

#[test]
fn sizes_beyond_nifti1_are_written_as_nifti2() {
    let folder = tempfile::tempdir().expect("a folder");
    let labels = Array3::from_shape_fn((40_000, 1, 2), |(x, _, z)| (x % 200 + z) as u32);
    let path = folder.path().join("long.nii.gz");
    Mask::from_labels(labels.view()).with_geometry(geometry()).save(&path, Overwrite::Refuse).expect("saved");
    let back = Mask::open(&path).expect("read back");
    assert_eq!(back.labels(), labels);
    assert_eq!(back.geometry(), Some(&geometry()));
}
