//! Published NIfTI files, good and bad: what we read is what nibabel reads, and what can't be read is refused in words.
//!
//! The files lie in `$PERFUSE_TEST_DATA/nifti_edge`; without that variable the tests are reported as ignored.

use std::path::{Path, PathBuf};

use libtest_mimic::{Arguments, Failed, Trial};
use perfuse::io::ReadOptions;
use perfuse::{Error, Mask, Series, VoxelMap};

fn main() {
    let arguments = Arguments::from_args();
    let trials = match std::env::var_os("PERFUSE_TEST_DATA") {
        Some(folder) => trials(&PathBuf::from(folder)),
        None => {
            vec![Trial::test("published NIfTI files (set PERFUSE_TEST_DATA to run)", || Ok(())).with_ignored_flag(true)]
        }
    };
    libtest_mimic::run(&arguments, trials).exit();
}

fn trials(data: &Path) -> Vec<Trial> {
    let folder = data.join("nifti_edge");
    let table = std::fs::read_to_string(folder.join("expected_nibabel.csv")).expect("the table of expected values");
    let mut trials: Vec<Trial> = table
        .lines()
        .skip(1)
        .map(|line| {
            let row = Row::parse(line);
            let folder = folder.clone();
            Trial::test(row.file.clone(), move || row.check(&folder))
        })
        .collect();
    let edge = folder.clone();
    trials.push(Trial::test("a pulse's TR in pixdim[4] is no frame spacing", move || pulse_tr(&edge)));
    let edge = folder.clone();
    trials.push(Trial::test("milliseconds are understood", move || milliseconds(&edge)));
    let data = data.to_path_buf();
    trials.push(Trial::test("every published series opens with its own times", move || every_series(&data)));
    trials
}

/// A row of `expected_nibabel.csv`.
#[derive(Clone, Debug)]
struct Row {
    file: String,
    outcome: String,
    shape: Vec<usize>,
    dtype: String,
    zooms: Vec<f64>,
    statistics: [f64; 3],
    samples: Vec<(Vec<usize>, f64)>,
}

impl Row {
    fn parse(line: &str) -> Self {
        let fields = csv_fields(line);
        let numbers = |text: &str| text.split(';').filter_map(|n| n.parse().ok()).collect::<Vec<f64>>();
        let number = |text: &str| text.parse().unwrap_or(f64::NAN);
        Row {
            file: fields[0].clone(),
            outcome: fields[3].clone(),
            shape: fields[4].split('x').filter_map(|n| n.parse().ok()).collect(),
            dtype: fields[5].clone(),
            zooms: numbers(&fields[7]),
            statistics: [number(&fields[8]), number(&fields[9]), number(&fields[10])],
            samples: fields[11].split(';').filter_map(sample).collect(),
        }
    }

    /// What nibabel refuses or what isn't a scalar NIfTI image. Gzip by its bytes is the one thing we read and it doesn't.
    fn refused(&self) -> bool {
        let gzip_by_bytes = self.file.ends_with("gzip_named_nii.nii");
        (self.outcome.starts_with("nibabel refuses") && !gzip_by_bytes)
            || self.outcome.contains("Analyze")
            || self.dtype.contains('R')
    }

    fn check(&self, folder: &Path) -> Result<(), Failed> {
        let path = folder.join(&self.file);
        if self.refused() {
            let text = match Series::open_with(&path, &ReadOptions::new().frame_spacing_s(1.0)) {
                Ok(series) => return Err(format!("was read: {:?}", series.shape()).into()),
                Err(e) => e.to_string(),
            };
            let name = path.file_stem().and_then(|n| n.to_str()).ok_or("a name")?;
            return ensure(text.contains(name) && text.len() > 40, || format!("unclear: {text}"));
        }
        if self.file.ends_with("gzip_named_nii.nii") {
            let series = Series::open(&path)?;
            return ensure(series.shape() == [17, 21, 3, 20], || format!("{:?}", series.shape()));
        }
        if self.shape.len() == 4 && self.shape[3] > 1 { self.check_series(&path) } else { self.check_map(&path) }
    }

    fn check_series(&self, path: &Path) -> Result<(), Failed> {
        let series = Series::open_with(path, &ReadOptions::new().frame_spacing_s(1.0))?;
        ensure(series.shape()[..] == self.shape[..], || format!("shape {:?}", series.shape()))?;
        ensure(rust_name(&self.dtype) == series.sample_type().name(), || series.sample_type().name().into())?;
        let voxels = series.voxels()?;
        let scaled = |i| series.scaling().slope * voxels.get_f64(i) + series.scaling().intercept;
        self.check_values(&(0..voxels.len()).map(scaled).collect::<Vec<f64>>(), 1e-12)?;
        self.check_zooms(series.geometry().voxel_size)
    }

    fn check_map(&self, path: &Path) -> Result<(), Failed> {
        let map = VoxelMap::open(path)?;
        let (x, y, z) = map.values().dim();
        ensure([x, y, z][..] == self.shape[..3], || format!("shape {:?}", map.values().dim()))?;
        self.check_values(&map.values().reversed_axes().iter().map(|v| f64::from(*v)).collect::<Vec<f64>>(), 1e-6)?;
        let text = match Series::open(path) {
            Ok(_) => return Err("one frame was read as a series".into()),
            Err(e) => e.to_string(),
        };
        ensure(text.contains("one frame"), || text)
    }

    fn check_values(&self, values: &[f64], tolerance: f64) -> Result<(), Failed> {
        let near = |a: f64, b: f64| (a - b).abs() <= tolerance * (1.0 + b.abs());
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let found = [least, most, mean];
        // nibabel's mean of a float32 image is summed in float32.
        ensure(near(least, self.statistics[0]) && near(most, self.statistics[1]), || format!("{found:?}"))?;
        ensure((mean - self.statistics[2]).abs() <= 1e-5 * (1.0 + mean.abs()), || format!("{found:?}"))?;
        for (voxel, value) in &self.samples {
            let index = voxel.iter().zip(&self.shape).rev().fold(0, |index, (i, n)| index * n + i);
            ensure(near(values[index], *value), || format!("{voxel:?}: {} for {value}", values[index]))?;
        }
        Ok(())
    }

    fn check_zooms(&self, found: [f64; 3]) -> Result<(), Failed> {
        let near = found.iter().zip(&self.zooms).all(|(a, b)| (a - b).abs() <= 1e-3);
        ensure(near, || format!("zooms {found:?} for {:?}", self.zooms))
    }
}

fn pulse_tr(folder: &Path) -> Result<(), Failed> {
    match Series::open(folder.join("rocketship/vfa_256x256x1x3_int16_pixdim4_is_TR.nii")) {
        Err(e @ Error::Time { .. }) => {
            let text = e.to_string();
            ensure(["pixdim[4]", "0.008012", "--dt", "sidecar"].iter().all(|word| text.contains(word)), || text)
        }
        other => Err(format!("{other:?}").into()),
    }
}

fn milliseconds(folder: &Path) -> Result<(), Failed> {
    let series = Series::open(folder.join("malformed/derived/xyzt_units_msec_pixdim4_2000.nii"))?;
    ensure(series.times().unwrap().seconds()[..3] == [0.0, 2.0, 4.0], || format!("{:?}", series.times().unwrap()))
}

/// All 4D images of the data folder with a frame spacing, and masks that go with them.
fn every_series(data: &Path) -> Result<(), Failed> {
    let index = std::fs::read_to_string(data.join("INDEX_nifti.csv"))?;
    let mut opened = 0;
    for line in index.lines().skip(1) {
        let fields = csv_fields(line);
        let shape: Vec<usize> = fields[2].split('x').filter_map(|n| n.parse().ok()).collect();
        let zooms: Vec<f64> = fields[4].split(';').filter_map(|n| n.parse().ok()).collect();
        let path = data.join(&fields[0]);
        if shape.len() == 4 && zooms.get(3).is_some_and(|spacing| (0.05..120.0).contains(spacing)) {
            let series = Series::open(&path)?;
            ensure(series.shape()[..] == shape[..], || format!("{path:?}: {:?}", series.shape()))?;
            let spacing = series.times().unwrap().median_spacing_s();
            ensure((spacing - zooms[3]).abs() <= 1e-4 * zooms[3], || format!("{path:?}: {spacing} s"))?;
            opened += 1;
        } else if fields[0].contains("mask") || fields[0].contains("labels") {
            ensure(Mask::open(&path)?.voxel_count() > 0, || format!("{path:?} is empty"))?;
        }
    }
    ensure(opened >= 20, || format!("only {opened} series"))
}

fn ensure(condition: bool, otherwise: impl FnOnce() -> String) -> Result<(), Failed> {
    if condition { Ok(()) } else { Err(otherwise().into()) }
}

/// `(31, 31, 4)=31.0` or `[0..]=0.0`, the first sample.
fn sample(text: &str) -> Option<(Vec<usize>, f64)> {
    let (place, value) = text.split_once('=')?;
    let value = value.parse().ok()?;
    if place == "[0..]" {
        return Some((vec![0], value));
    }
    Some((place.trim_matches(['(', ')']).split(", ").filter_map(|n| n.parse().ok()).collect(), value))
}

fn rust_name(dtype: &str) -> &'static str {
    match dtype {
        "uint8" => "u8",
        "int16" | ">i2" => "i16",
        "float32" | ">f4" => "f32",
        other => panic!("add {other} to the test"),
    }
}

fn csv_fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            other => fields.last_mut().expect("one field at least").push(other),
        }
    }
    fields
}
