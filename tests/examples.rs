//! The example programs as their users meet them: files, exit codes, messages.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use perfuse::input_function::{Arrival, Haematocrit, Population};
use perfuse::kernels::fit::{Model, Parameter};
use perfuse::phantom::{Noise, Phantom};
use perfuse::{Mask, Series, TimeAxis, VoxelMap};
use tempfile::TempDir;

/// The program, which `cargo test` builds along with the tests.
fn program(name: &str) -> Command {
    let test = std::env::current_exe().expect("this test");
    let target = test.parent().and_then(Path::parent).expect("target/PROFILE/deps/TEST");
    let path = target.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(path.exists(), "{} is missing: run `cargo build --examples`, or all tests", path.display());
    Command::new(path)
}

fn run(name: &str, arguments: &[&str]) -> Output {
    program(name).args(arguments).output().expect("the program starts")
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What the program says on stderr; system libraries of GPU drivers may say more.
fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn succeed(name: &str, arguments: &[&str]) -> String {
    let output = run(name, arguments);
    assert!(output.status.success(), "{name} {arguments:?}: {}{}", out(&output), error(&output));
    out(&output)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// Every file under a folder with its content.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let content = std::fs::read(&path).expect("readable");
            found.insert(path, content);
        }
    }
    found
}

/// A small phantom as files: the series, its lesion and its tissues.
fn phantom_files(shape: [usize; 3]) -> (TempDir, PathBuf, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let phantom = Phantom::brain_with_lesion().shape(shape).frames(40, 6.0).noise(Noise::Rician(3.0));
    let phantom = phantom.build().expect("a phantom");
    let [series, lesion, labels] = ["series", "lesion", "labels"].map(|n| folder.path().join(format!("{n}.nii.gz")));
    phantom.series.save(&series, Default::default()).expect("saved");
    phantom.lesion.save(&lesion, Default::default()).expect("saved");
    phantom.labels.save(&labels, Default::default()).expect("saved");
    (folder, series, lesion, labels)
}

#[test]
fn demo_writes_maps_and_pictures_and_never_over_them_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let demo = folder.path().join("demo");
    let said = succeed("perfusion_maps", &["--demo", "--out", text(&demo), "--device", "cpu"]);
    for topic in ["device", "times", "baseline", "onset", "voxels", "status", "seconds", "written"] {
        assert!(said.lines().any(|line| line.starts_with(topic)), "no {topic} in:\n{said}");
    }
    let before = files(&demo);
    for id in ["time_to_peak", "onset", "iauc_60", "time_to_fraction_50", "curve_type"] {
        for name in [format!("{id}.nii.gz"), format!("{id}.json"), format!("pictures/{id}.png")] {
            assert!(before.contains_key(&demo.join(&name)), "no {name}");
        }
    }
    assert!(before[&demo.join("pictures/mean_curve.png")].starts_with(b"\x89PNG"));
    assert!(before.contains_key(&demo.join("regions.csv")) && before.contains_key(&demo.join("run.json")));

    let again = run("perfusion_maps", &["--demo", "--out", text(&demo), "--device", "cpu"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(error(&again).contains("run.json exists already") && error(&again).contains("--force"));
    assert!(before == files(&demo), "a refused run changed files");
}

#[test]
fn bad_usage_is_2_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("maps");
    let refused: [&[&str]; 9] = [
        &["--no-such-flag"],
        &[],
        &["--demo", "--dt", "x"],
        &["--demo", "--maps", "ktrans"],
        &["--demo", "--onset", "guess"],
        &["--demo", "--baseline", "3:200", "--maps", "auc"],
        &["--demo", "--polarity", "up"],
        &["--demo", "--device", "no such device"],
        &["--demo", "series.nii"],
    ];
    for arguments in refused {
        let all = [arguments, &["--out", text(&target), "--quiet"]].concat();
        let output = run("perfusion_maps", &all);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", error(&output));
        assert!(out(&output).is_empty() && error(&output).contains("error: "), "{arguments:?}");
        assert!(!target.exists(), "{arguments:?} left a folder");
    }
}

#[test]
fn a_missing_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("maps");
    for arguments in [["nowhere.nii.gz", "--device", "cpu"], ["--demo", "--mask", "nowhere.nii.gz"]] {
        let all = [&arguments[..], &["--out", text(&target)]].concat();
        let output = run("perfusion_maps", &all);
        assert_eq!(output.status.code(), Some(1));
        assert!(error(&output).contains("error: cannot read nowhere.nii.gz"), "{}", error(&output));
        assert!(!target.exists());
    }
}

#[test]
fn a_phantom_comes_back_from_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let (phantom, maps) = (folder.path().join("phantom"), folder.path().join("maps"));
    let small = ["--shape", "40,40,4", "--frames", "60", "--dt", "4", "--noise", "3", "--seed", "5"];
    succeed("phantom", &[&small[..], &["--out", text(&phantom)]].concat());
    let series = Series::open(phantom.join("series.nii.gz")).unwrap();
    assert_eq!((series.shape(), series.times().unwrap().median_spacing_s()), ([40, 40, 4, 60], 4.0));
    let again = run("phantom", &[&small[..], &["--out", text(&phantom)]].concat());
    assert_eq!(again.status.code(), Some(1));

    let (file, lesion) = (phantom.join("series.nii.gz"), phantom.join("lesion.nii.gz"));
    let arguments = [text(&file), "--mask", text(&lesion), "--maps", "onset,time_to_peak", "--out", text(&maps)];
    succeed("perfusion_maps", &[&arguments[..], &["--device", "cpu", "--pictures", "none", "--uncompressed"]].concat());
    let written: Vec<String> =
        files(&maps).keys().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
    let expected = ["onset.json", "onset.nii", "regions.csv", "run.json", "status.json", "status.nii"];
    assert_eq!(written, [&expected[..], &["time_to_peak.json", "time_to_peak.nii"]].concat());
    let regions = std::fs::read_to_string(maps.join("regions.csv")).unwrap();
    assert!(regions.lines().any(|line| line.starts_with("onset,s,1,")), "{regions}");

    let found = VoxelMap::open(maps.join("onset.nii")).unwrap();
    let truth = VoxelMap::open(phantom.join("truth/onset.nii.gz")).unwrap();
    let inside = Mask::open(&lesion).unwrap();
    let voxels = found.values().into_iter().zip(truth.values()).zip(inside.labels());
    let mut errors: Vec<f32> = voxels
        .filter(|((f, t), label)| **label != 0 && f.is_finite() && t.is_finite())
        .map(|((f, t), _)| (f - t).abs())
        .collect();
    errors.sort_by(f32::total_cmp);
    assert!(errors.len() > 20 && errors[errors.len() / 2] < 4.0, "{} voxels: {errors:?}", errors.len());

    // Again with other maps: what doesn't belong to the new run under its old name is gone.
    succeed("perfusion_maps", &[&arguments[..], &["--device", "cpu", "--pictures", "none", "--force"]].concat());
    assert!(maps.join("onset.nii.gz").exists() && !maps.join("onset.nii").exists());
}

#[test]
fn t1_maps_from_files() {
    let folder = tempfile::tempdir().unwrap();
    let (t1, tr, angles) = (1.2f64, 0.005, [2.0f64, 10.0, 20.0]);
    let files = angles.map(|degrees| {
        let (sine, cosine) = degrees.to_radians().sin_cos();
        let e = (-tr / t1).exp();
        let signal = (1e5 * sine * (1.0 - e) / (1.0 - e * cosine)) as f32;
        let image = Series::from_voxels(vec![signal; 48], [4, 4, 3, 1], perfuse::SampleAxis::Index).unwrap();
        let path = folder.path().join(format!("vfa_{degrees}.nii.gz"));
        image.save(&path, Default::default()).unwrap();
        path
    });
    let images: Vec<&str> = files.iter().map(|file| text(file)).collect();
    let target = folder.path().join("t1");
    let all = |more: &[&'static str]| {
        let end: &[&str] = &["--out", text(&target), "--device", "cpu"];
        [&images[..], more, end].concat()
    };
    let refused: [(&[&'static str], &str); 6] = [
        (&["--flip-angles", "2,10,20", "--tr", "5"], "milliseconds given as seconds"),
        (&["--flip-angles", "2,10", "--tr", "0.005"], "3 samples per voxel"),
        (&["--flip-angles", "2,10,20"], "--tr SECONDS"),
        (&["--tr", "0.005"], "--flip-angles"),
        (&["--flip-angles", "2,10,20", "--tr", "0.005", "--inversion-times", "1,2,3"], "inversion times is given"),
        (&["--method", "look-locker", "--inversion-times", "50,500,2000"], "milliseconds given as seconds"),
    ];
    for (arguments, hint) in refused {
        let output = run("t1_map", &all(arguments));
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", error(&output));
        assert!(error(&output).contains(hint) && !target.exists(), "{arguments:?}: {}", error(&output));
    }
    let said = succeed("t1_map", &all(&["--flip-angles", "2,10,20", "--tr", "0.005"]));
    for topic in ["device", "images", "method", "T1", "seconds", "written"] {
        assert!(said.lines().any(|line| line.starts_with(topic)), "no {topic} in:\n{said}");
    }
    let found = VoxelMap::open(target.join("t1.nii.gz")).unwrap();
    assert!(found.values().iter().all(|t| (t - 1.2).abs() < 1e-3));
    for name in ["t1_se.nii.gz", "r1.json", "m0.nii.gz", "status.nii.gz", "pictures/t1.png"] {
        assert!(target.join(name).exists(), "no {name}");
    }
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(target.join("run.json")).unwrap()).unwrap();
    assert_eq!(record["settings"]["flip_angles_deg"], serde_json::json!([2, 10, 20]));
    assert_eq!(record["further_sources"], serde_json::json!(["vfa_10.nii.gz", "vfa_20.nii.gz"]));
    assert_eq!(record["times_s"], serde_json::json!([]));
    // The files in another order are other images for these angles; the same folder only with --force.
    let again = run("t1_map", &all(&["--flip-angles", "2,10,20", "--tr", "0.005"]));
    assert_eq!(again.status.code(), Some(1));
    succeed("t1_map", &all(&["--flip-angles", "2,10,20", "--tr", "0.005", "--method", "vfa-linear", "--force"]));
    assert!(succeed("t1_map", &["--help"]).contains("Examples:"));
}

#[test]
fn curves_of_a_voxel_and_of_a_mask() {
    let (folder, series, lesion, _) = phantom_files([40, 40, 4]);
    let picture = folder.path().join("curve.png");
    let said = succeed("curve", &[text(&series), "--mask", text(&lesion), "--out", text(&picture)]);
    assert!(said.contains("onset") && said.contains("baseline frames"), "{said}");
    assert!(std::fs::read(&picture).unwrap().starts_with(b"\x89PNG"));
    let again = run("curve", &[text(&series), "--voxel", "1,2,3", "--out", text(&picture)]);
    assert_eq!(again.status.code(), Some(1));
    succeed("curve", &[text(&series), "--voxel", "20,20,2", "--out", text(&picture), "--force", "--quiet"]);
    let outside = run("curve", &[text(&series), "--voxel", "40,0,0", "--out", text(&picture), "--force"]);
    assert_eq!(outside.status.code(), Some(2), "{}", error(&outside));
    let which = run("curve", &[text(&series), "--out", text(&picture), "--force"]);
    assert_eq!(which.status.code(), Some(2), "{}", error(&which));
}

#[test]
fn verification_passes_on_the_cpu_engine() {
    let (_folder, series, lesion, labels) = phantom_files([40, 40, 4]);
    let said = succeed("verify_gpu", &[text(&series), "--device", "cpu", "--mask", text(&lesion), "--all-voxels"]);
    let voxels = Mask::open(lesion).unwrap().voxel_count();
    assert!(said.contains(&format!("{voxels} voxels")) && said.trim_end().ends_with("PASSED"), "{said}");
    let few = ["--device", "cpu", "--mask", text(&labels), "--maps", "auc", "--onset", "threshold:0.2"];
    assert!(succeed("verify_gpu", &[&[text(&series)], &few[..]].concat()).contains("auc"));
}

#[test]
fn the_benchmark_writes_its_table_as_json_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("result.json");
    // As on a machine without cargo and without the sources.
    let mut command = program("benchmark");
    command.current_dir(folder.path()).env_clear().args([
        "--size",
        "32,32,4,20",
        "--runs",
        "2",
        "--json",
        "result.json",
    ]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", error(&output));
    assert!(out(&output).contains("all maps") && out(&output).contains("whole job"));
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(json["series"]["shape"], serde_json::json!([32, 32, 4, 20]));
    assert_eq!(json["devices"][0]["engine"], "cpu");
    assert!(json["devices"][0]["runs"][2]["warm_seconds"].as_f64().unwrap() > 0.0);
}

#[test]
fn help_teaches_every_flag() {
    let with_example = ["mask", "dt", "times", "baseline", "onset", "onset-scope", "noise", "polarity", "kind", "maps"];
    let everywhere = [&with_example[..], &["slope-window", "peak", "non-finite", "enhancement-threshold"]].concat();
    let flags: [(&str, &[&str]); 3] = [
        ("perfusion_maps", &["demo", "device", "out", "pictures", "force", "quiet", "iauc", "threads", "memory-limit"]),
        ("curve", &["demo", "voxel", "out", "force", "quiet"]),
        ("verify_gpu", &["demo", "device", "all-voxels", "quiet"]),
    ];
    for (name, own) in flags {
        let help = succeed(name, &["--help"]);
        for flag in everywhere.iter().chain(own) {
            assert!(help.contains(&format!("--{flag}")), "{name} --help lacks --{flag}");
        }
        // Lines may be broken anywhere between words.
        let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for flag in with_example {
            assert!(words.contains(&format!("e.g. --{flag} ")), "{name} --help has no example of --{flag}");
        }
        assert!(help.contains("Examples:"));
    }
    for name in ["phantom", "devices", "benchmark", "filling_pattern"] {
        if cfg!(feature = "gpu") || name != "devices" {
            assert!(succeed(name, &["--help"]).contains("Examples:"));
        }
    }
}

#[test]
fn a_killed_run_leaves_no_file_that_looks_whole() {
    let (folder, series, ..) = phantom_files([96, 96, 8]);
    let target = folder.path().join("maps");
    for wait_ms in [0, 40, 150] {
        let mut command = program("perfusion_maps");
        command.args([text(&series), "--out", text(&target), "--device", "cpu", "--force"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // The folder appears when the first map is about to be written.
        while !target.exists() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(wait_ms));
        child.kill().unwrap();
        child.wait().unwrap();
        for path in files(&target).keys() {
            let name = path.file_name().unwrap().to_string_lossy();
            if !name.starts_with('.') && name.ends_with(".nii.gz") {
                VoxelMap::open(path).unwrap_or_else(|error| panic!("{error}"));
            }
        }
        if let Ok(record) = std::fs::read(target.join("run.json")) {
            let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
            for file in record["files"].as_array().unwrap() {
                assert!(target.join(file.as_str().unwrap()).exists(), "{file} is promised and missing");
            }
        }
        std::fs::remove_dir_all(&target).unwrap();
    }
}

/// Concentrations: tissue, and an artery of 3 × 3 voxels through both slices.
fn concentrations(folder: &Path) -> PathBuf {
    let parker = perfuse::input_function::population::parker;
    let samples = ndarray::Array4::from_shape_fn((16, 12, 2, 60), |(x, y, z, t)| {
        let time = 4.0 * t as f64;
        let wiggle = 0.01 * ((13 * t + 7 * x + 5 * y + 3 * z) as f64).sin();
        let artery = (4..7).contains(&x) && (5..8).contains(&y);
        let tissue = 0.5 * (1.0 - (-(time - 26.0f64).max(0.0) / 50.0).exp());
        (wiggle + if artery { parker(time - 22.0) } else { tissue }) as f32
    });
    let series = Series::from_array(samples.view(), perfuse::TimeAxis::uniform(4.0, 60).unwrap()).unwrap();
    let path = folder.join("conc.nii.gz");
    series.save(&path, Default::default()).expect("saved");
    path
}

#[test]
fn input_function_is_found_drawn_and_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let series = concentrations(folder.path());
    let at = |name: &str| folder.path().join(name);
    let run_to = |name: &str, flags: &[&str]| {
        let out = at(name);
        let all = [&[text(&series), "--kind", "concentration", "--device", "cpu", "--out", text(&out)], flags].concat();
        (succeed("input_function", &all), files(&out), out)
    };
    let (said, found, auto) = run_to("auto", &["--aif", "auto", "--haematocrit", "0.42"]);
    assert!(said.contains("18 voxels") && said.contains("haematocrit 0.42"), "{said}");
    for name in ["input_function.png", "artery.png"] {
        assert!(found[&auto.join(name)].starts_with(b"\x89PNG"));
    }
    let record: serde_json::Value = serde_json::from_slice(&found[&auto.join("input_function.json")]).unwrap();
    assert_eq!(record["voxels"].as_array().unwrap().len(), 18);
    assert_eq!((&record["fluid"], &record["fluid_of_origin"]), (&"plasma".into(), &"blood".into()));
    assert_eq!(record["haematocrit_applied"], 0.42);
    assert!(Mask::open(auto.join("artery.nii.gz")).unwrap().voxel_count() == 18);

    // The mask that was found gives the same function, and so does the table, to which nothing is applied again.
    let csv = |folder: &Path| std::fs::read_to_string(folder.join("input_function.csv")).unwrap();
    let numbers =
        |folder: &Path| csv(folder).lines().skip_while(|line| !line.starts_with("time_s")).collect::<String>();
    let mask = format!("mask:{}", text(&auto.join("artery.nii.gz")));
    let (_, _, by_mask) = run_to("mask", &["--aif", &mask, "--haematocrit", "0.42"]);
    assert_eq!(numbers(&by_mask), numbers(&auto));
    let (_, _, by_table) = run_to("table", &["--aif", text(&auto.join("input_function.csv")), "--haematocrit", "0.42"]);
    assert_eq!(numbers(&by_table), numbers(&auto));

    // A population function arrives where the artery's curve begins, or where it is told.
    let (said, _, detected) = run_to("parker", &["--aif", "parker"]);
    assert!(said.contains("artery found automatically") && said.contains("whole blood"), "{said}");
    let record = |folder: &Path| -> serde_json::Value {
        serde_json::from_str(&std::fs::read_to_string(folder.join("input_function.json")).unwrap()).unwrap()
    };
    assert!((record(&detected)["arrival_s"].as_f64().unwrap() - 24.0).abs() < 3.0);
    let (_, _, told) = run_to("told", &["--aif", "georgiou", "--arrival", "31.5", "--dose", "0.05"]);
    assert_eq!(record(&told)["arrival_s"], 31.5);
    assert_eq!(record(&told)["arrival_from"], "given");

    let target = at("refused");
    for flags in [
        &["--aif", "parkr"][..],
        &["--aif", "parker", "--haematocrit", "42"],
        &["--aif", "parker", "--aif-in", "plasma"],
        &["--aif", "parker", "--arrival", "soon"],
        &["--aif", "parker", "--dose", "100"],
        &["--tr", "0.004", "--flip-angle", "20"],
    ] {
        let fixed = [text(&series), "--kind", "concentration", "--out", text(&target)];
        let output = run("input_function", &[&fixed, flags].concat());
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {}", error(&output));
        assert!(!target.exists(), "{flags:?} left a folder");
    }
    let again = run("input_function", &[text(&series), "--aif", "parker", "--out", text(&auto)]);
    assert_eq!(again.status.code(), Some(1));
    assert!(error(&again).contains("--force"), "{}", error(&again));
}

#[test]
fn the_filling_demo_writes_everything_and_says_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let demo = folder.path().join("demo");
    let quick = ["--demo", "--out", text(&demo), "--device", "cpu", "--draws", "50", "--width", "480"];
    let said = succeed("filling_pattern", &quick);
    for topic in ["device", "origin", "direction", "speed", "extent", "note", "seconds", "written"] {
        assert!(said.lines().any(|line| line.starts_with(topic)), "no {topic} in:\n{said}");
    }
    assert!(said.contains("not a diagnosis"), "{said}");
    let before = files(&demo);
    for name in ["run.json", "status.nii.gz", "front_arrival.nii.gz", "outward_cosine.json", "shells.csv"] {
        assert!(before.contains_key(&demo.join(name)), "no {name}");
    }
    assert!(before[&demo.join("cine.gif")].starts_with(b"GIF89a"));
    let html = String::from_utf8(before[&demo.join("report.html")].clone()).unwrap();
    assert!(html.starts_with("<!DOCTYPE html>") && !html.contains(text(folder.path())));
    let json: serde_json::Value = serde_json::from_slice(&before[&demo.join("filling.json")]).unwrap();
    for field in ["index", "low", "high", "p"] {
        assert!(json["centrifugality"][field].is_f64(), "{field}: {}", json["centrifugality"]);
    }
    assert!(json["centrifugality"]["low"].as_f64().unwrap() > 0.0);
    for field in ["volume_ml", "depth_mm"] {
        assert!(json["origin"][field].as_f64().unwrap() > 0.0);
    }
    assert_eq!(json["origin"]["world_mm"].as_array().unwrap().len(), 3);
    assert_eq!(json["origin"]["voxel"].as_array().unwrap().len(), 3);
    assert_eq!(json["origin"]["place"], "core");
    for field in ["median", "low", "high"] {
        assert!(json["front_speed_mm_per_s"][field].as_f64().unwrap() > 0.0);
    }
    assert_eq!(json["speed_trend"], "decelerating");
    assert!((json["enhancing_fraction"].as_f64().unwrap() - 0.72).abs() < 0.03);
    assert!(json["description"].as_str().unwrap().contains("centrifugal") && json["settings"].is_object());

    let again = run("filling_pattern", &quick);
    assert_eq!(again.status.code(), Some(1));
    assert!(error(&again).contains("exists already"), "{}", error(&again));
    assert!(before == files(&demo), "a refused run changed files");
    let without = ["--force", "--quiet", "--cine", "none", "--pictures", "none"];
    assert!(succeed("filling_pattern", &[&quick[..], &without].concat()).is_empty());
    assert!(!demo.join("cine.gif").exists() && demo.join("report.html").exists());
    let html = std::fs::read_to_string(demo.join("report.html")).unwrap();
    assert!(!html.contains("<img"));
}

#[test]
fn a_lesion_that_tells_nothing_is_a_result_and_one_that_fits_not_is_an_error() {
    let (folder, series, lesion, _) = phantom_files([32, 32, 4]);
    let target = folder.path().join("filling");
    let of = |labels: ndarray::Array3<u32>, name: &str| {
        let path = folder.path().join(name);
        let geometry = Series::open(&series).unwrap().geometry().clone();
        Mask::from_labels(labels.view()).with_geometry(geometry).save(&path, Default::default()).unwrap();
        path
    };
    let analysed = |lesion: &Path, more: &[&str]| {
        let all = [text(&series), "--lesion", text(lesion), "--out", text(&target), "--device", "cpu", "--quiet"];
        run("filling_pattern", &[&all[..], &["--draws", "50", "--width", "480"], more].concat())
    };
    // Errors write nothing.
    let empty = of(ndarray::Array3::zeros((32, 32, 4)), "empty.nii.gz");
    let foreign = of(ndarray::Array3::from_elem((8, 8, 4), 1), "foreign.nii.gz");
    for (mask, says) in [(&empty, "no voxel"), (&foreign, "resample")] {
        let output = analysed(mask, &[]);
        assert_eq!(output.status.code(), Some(1), "{}", error(&output));
        assert!(error(&output).contains(says) && error(&output).contains(text(mask)), "{}", error(&output));
        assert!(!target.exists());
    }
    let missing = run("filling_pattern", &[text(&series), "--lesion", "nowhere.nii.gz", "--out", text(&target)]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(error(&missing).contains("cannot read nowhere.nii.gz"), "{}", error(&missing));
    let refused: [&[&str]; 9] = [
        &["--fps", "0"],
        &["--width", "10"],
        &["--planes", "oblique"],
        &["--window", "9"],
        &["--window", "9:3"],
        &["--shells", "1"],
        &["--baseline", "5:3"],
        &["--cine", "avi"],
        &["--view", "-3"],
    ];
    for more in refused {
        let output = analysed(&lesion, more);
        assert_eq!(output.status.code(), Some(2), "{more:?}: {}", error(&output));
        assert!(!target.exists(), "{more:?} left a folder");
    }
    assert_eq!(run("filling_pattern", &["--out", text(&target)]).status.code(), Some(2));
    assert_eq!(run("filling_pattern", &[text(&series), "--out", text(&target)]).status.code(), Some(2));

    // Three voxels; tissue that doesn't enhance: results that say so.
    let mut three = ndarray::Array3::zeros((32, 32, 4));
    (0..3).for_each(|z| three[[16, 16, z]] = 1);
    let air = ndarray::Array3::from_shape_fn((32, 32, 4), |(x, y, _)| u32::from(x < 3 && y < 3));
    for (labels, name) in [(three, "three.nii.gz"), (air, "air.nii.gz")] {
        let mask = of(labels, name);
        let output = analysed(&mask, &["--force", "--planes", "axial,coronal", "--cine", "frames"]);
        assert!(output.status.success(), "{name}: {}", error(&output));
        let json: serde_json::Value =
            serde_json::from_slice(&std::fs::read(target.join("filling.json")).unwrap()).unwrap();
        assert!(json["origin"].is_null() && json["front_speed_mm_per_s"]["median"].is_null(), "{name}: {json}");
        assert_eq!(json["speed_trend"], "undetermined");
        assert!(json["description"].as_str().unwrap().contains("undetermined"));
        assert_eq!(files(&target.join("cine")).len(), 40);
    }
}

/// Curves of extended Tofts as a series of concentrations, every voxel with parameters of its own, and the plasma's curve.
fn tissue(folder: &Path) -> (PathBuf, PathBuf, impl Fn(usize, usize) -> [f64; 3]) {
    let times = TimeAxis::uniform(4.0, 60).unwrap();
    let blood = Population::Parker.input_function(&times, &Arrival::at(20.0).unwrap()).unwrap();
    let plasma = blood.in_plasma(Haematocrit::new(0.42).unwrap()).unwrap();
    let truth = |x: usize, y: usize| [0.05 + 0.05 * x as f64, 0.2 + 0.05 * y as f64, 0.01 + 0.01 * (x + y) as f64];
    let mut samples = ndarray::Array4::zeros((4, 4, 2, 60));
    for x in 0..4 {
        for y in 0..4 {
            let [ktrans, ve, vp] = truth(x, y);
            let parameters =
                [(Parameter::Ktrans, ktrans), (Parameter::ExtravascularVolume, ve), (Parameter::PlasmaVolume, vp)];
            let curve = Model::ExtendedTofts.concentration(&parameters, &plasma, 0.0, &times).unwrap();
            for (t, c) in curve.iter().enumerate() {
                samples[[x, y, 0, t]] = *c as f32;
                samples[[x, y, 1, t]] = *c as f32;
            }
        }
    }
    let series = Series::from_array(samples.view(), times).unwrap();
    let (image, table) = (folder.join("conc.nii.gz"), folder.join("plasma.csv"));
    series.save(&image, Default::default()).expect("saved");
    let mut csv = String::from("time_s,concentration_mM\n");
    for (t, c) in plasma.times_s().iter().zip(plasma.concentration_mm()) {
        csv += &format!("{t},{c}\n");
    }
    std::fs::write(&table, csv).unwrap();
    (image, table, truth)
}

#[test]
fn fits_give_the_parameters_of_curves_in_files() {
    let folder = tempfile::tempdir().unwrap();
    let (image, table, truth) = tissue(folder.path());
    let at = |name: &str| folder.path().join(name);
    let arguments = |out: &Path, flags: &[&str]| -> Vec<String> {
        let fixed =
            [text(&image), "--kind", "concentration", "--device", "cpu", "--aif", text(&table), "--out", text(out)];
        fixed.iter().chain(flags).map(|word| word.to_string()).collect()
    };
    let fit = |name: &str, flags: &[&str]| {
        let words = arguments(&at(name), flags);
        succeed("dce_fit", &words.iter().map(String::as_str).collect::<Vec<_>>());
        at(name)
    };
    let json = |path: PathBuf| -> serde_json::Value {
        serde_json::from_str(&std::fs::read_to_string(&path).unwrap_or_else(|_| panic!("{path:?}"))).unwrap()
    };
    let plasma = ["--aif-in", "plasma"];
    for (name, flags) in [
        ("nonlinear", &["--model", "extended_tofts"][..]),
        ("delayed", &["--model", "extended_tofts", "--delay", "free", "--pictures", "none"]),
        ("linear", &["--model", "extended_tofts", "--method", "linear", "--pictures", "none"]),
    ] {
        let out = fit(name, &[flags, &plasma].concat());
        // The linear form integrates the tissue's curve by trapezia.
        let within = if name == "linear" { 0.1 } else { 1e-3 };
        for (k, id) in ["ktrans", "ve", "vp"].into_iter().enumerate() {
            let map = VoxelMap::open(out.join(format!("{id}.nii.gz"))).unwrap();
            let found = map.values();
            for x in 0..4 {
                for y in 0..4 {
                    let (found, truth) = (f64::from(found[[x, y, 1]]), truth(x, y)[k]);
                    assert!((found - truth).abs() <= within * truth + 1e-4, "{name} {id} {x},{y}: {found} for {truth}");
                }
            }
            assert!(out.join(format!("{id}_se.nii.gz")).exists(), "{name}: no {id}_se");
        }
        for file in
            ["kep.nii.gz", "sse.nii.gz", "r_squared.nii.gz", "aic.nii.gz", "status.nii.gz", "input_function.csv"]
        {
            assert!(out.join(file).exists(), "{name}: no {file}");
        }
        assert_eq!(out.join("delay.nii.gz").exists(), name == "delayed");
        assert_eq!(out.join("pictures/ktrans.png").exists(), name == "nonlinear");
        assert_eq!(json(out.join("run.json"))["settings"]["model"], "extended_tofts");
    }

    // Every other model runs, and the selection takes the model that the curves were made by.
    for model in ["tofts", "patlak", "one_compartment", "two_compartment_uptake", "two_compartment_exchange"] {
        let out = fit(model, &["--model", model, "--pictures", "none", "--aif-in", "plasma"]);
        assert!(out.join("r_squared.nii.gz").exists(), "{model}");
    }
    let signal = Series::open(&image).unwrap();
    let samples = ndarray::Array4::from_shape_fn((4, 4, 2, 60), |(x, y, z, t)| {
        100.0 + 100.0 * signal.voxels().expect("in memory").get_f64(x + 4 * y + 16 * z + 32 * t) as f32
    });
    let signal = Series::from_array(samples.view(), signal.times().unwrap().clone()).unwrap();
    signal.save(at("signal.nii.gz"), Default::default()).unwrap();
    let (out, signal) = (at("brix"), at("signal.nii.gz"));
    let flags = ["--model", "brix", "--baseline", "5", "--device", "cpu", "--pictures", "none", "--out", text(&out)];
    succeed("dce_fit", &[&[text(&signal)], &flags[..]].concat());
    for id in ["brix_a", "kep", "kel"] {
        assert!(out.join(format!("{id}.nii.gz")).exists(), "no {id}");
    }
    let selected = ["--model", "tofts,extended_tofts,patlak", "--pictures", "none", "--aif-in", "plasma"];
    let out = fit("selected", &selected);
    let labels = VoxelMap::open(out.join("model.nii.gz")).unwrap();
    assert!(labels.values().iter().all(|label| *label == 2.0), "{:?}", labels.values());

    let again = arguments(&at("linear"), &["--model", "tofts", "--aif-in", "plasma"]);
    let again = run("dce_fit", &again.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(again.status.code(), Some(1));
    assert!(error(&again).contains("--force"), "{}", error(&again));
    // A table that doesn't say what it holds is a file that can't be used.
    let words = arguments(&at("refused"), &["--model", "tofts"]);
    let output = run("dce_fit", &words.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(1), "{}", error(&output));
    assert!(error(&output).contains("--aif-in") && !at("refused").exists(), "{}", error(&output));
    for (flags, hint) in [
        (&["--model", "toft"][..], "toft"),
        (&["--model", "tofts", "--aif-in", "plasma", "--delay", "soon"], "soon"),
        (&["--model", "tofts", "--aif-in", "blood", "--haematocrit", "42"], "haematocrit"),
        (&["--model", "tofts", "--aif-in", "plasma", "--delay", "free", "--method", "linear"], "linear"),
        (&["--model", "tofts", "--aif-in", "plasma", "--bounds", "ve=2:1"], "ve"),
    ] {
        let words = arguments(&at("refused"), flags);
        let output = run("dce_fit", &words.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {}", error(&output));
        assert!(error(&output).contains(hint), "{flags:?}: {}", error(&output));
        assert!(!at("refused").exists(), "{flags:?} left a folder");
    }
}
