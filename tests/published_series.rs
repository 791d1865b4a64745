//! Every published series: the main job on the CPU and on the GPU, both against the definition in f64.
//!
//! The files lie in `$PERFUSE_TEST_DATA`; without that variable the tests are reported as ignored, and so are those on the
//! GPU where there is no device (unless `PERFUSE_REQUIRE_GPU=1`: then they fail).

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use libtest_mimic::{Arguments, Failed, Trial};
use ndarray::Array4;
use perfuse::io::ReadOptions;
use perfuse::kernels::descriptors::Polarity;
use perfuse::{Descriptors, Engine, Error, RunOptions, Series, SignalKind, TimeAxis};

type Read = Arc<dyn Fn() -> Result<Series, Failed> + Send + Sync>;
type ReadFrom = fn(&Path) -> Result<Series, Failed>;

/// Voxels compared per series: the reference takes its time.
const VOXELS: usize = 300;

fn main() {
    let arguments = Arguments::from_args();
    let trials = match std::env::var_os("PERFUSE_TEST_DATA") {
        Some(folder) => trials(&PathBuf::from(folder)),
        None => vec![Trial::test("published series (set PERFUSE_TEST_DATA to run)", || Ok(())).with_ignored_flag(true)],
    };
    libtest_mimic::run(&arguments, trials).exit();
}

fn gpu() -> Option<&'static Engine> {
    static GPU: OnceLock<Option<Engine>> = OnceLock::new();
    let device = std::env::var("PERFUSE_TEST_DEVICE").unwrap_or_else(|_| "gpu".into());
    GPU.get_or_init(|| Engine::named(&device).ok()).as_ref()
}

fn trials(data: &Path) -> Vec<Trial> {
    let required = std::env::var_os("PERFUSE_REQUIRE_GPU").is_some_and(|value| value == "1");
    let mut cases: Vec<(String, Read)> = Vec::new();
    for file in four_dimensional(data) {
        let name = file.strip_prefix(data).unwrap_or(&file).display().to_string();
        cases.push((name, Arc::new(move || open(&file))));
    }
    let csv: [(&str, ReadFrom); 3] = [("kidney curves", kidney), ("dog curves", dogs), ("body CT curves", body_ct)];
    for (name, read) in csv {
        let data = data.to_path_buf();
        cases.push((name.into(), Arc::new(move || read(&data))));
    }
    let mut trials = Vec::new();
    for (name, read) in cases {
        let read_again = read.clone();
        let kernel = kernel(&name);
        let same_kernel = kernel.clone();
        trials.push(Trial::test(format!("cpu {name}"), move || check(&Engine::cpu(), &kernel, &read()?)));
        let on_gpu = Trial::test(format!("gpu {name}"), move || match gpu() {
            Some(engine) => check(engine, &same_kernel, &read_again()?),
            None => Err("no device".into()),
        });
        trials.push(on_gpu.with_ignored_flag(gpu().is_none() && !required));
    }
    trials
}

/// What the samples of a file are, as its folder says.
fn kernel(name: &str) -> Descriptors {
    let kernel = Descriptors::new();
    if name.starts_with("dsc_dro") || name.starts_with("dog") {
        kernel.polarity(Polarity::Fall)
    } else if name.starts_with("ctp_") || name.starts_with("body CT") {
        kernel.kind(SignalKind::Attenuation)
    } else if name.contains("_conc") || name.contains("conc.nii") {
        kernel.kind(SignalKind::Concentration)
    } else {
        kernel
    }
}

/// The main job: all maps, finite where there is an answer; and verified.
fn check(engine: &Engine, kernel: &Descriptors, series: &Series) -> Result<(), Failed> {
    let maps = engine.run(kernel, series)?;
    let everything = maps.record().voxels;
    if everything != series.voxel_count() {
        return Err(format!("{everything} voxels of {}", series.voxel_count()).into());
    }
    let verification = engine.verify_voxels(kernel, series, &RunOptions::new(), VOXELS)?;
    if verification.passed() { Ok(()) } else { Err(verification.to_string().into()) }
}

/// The paths of the 4D images that nibabel's table or the index list.
fn four_dimensional(data: &Path) -> Vec<PathBuf> {
    let index = std::fs::read_to_string(data.join("INDEX_nifti.csv")).expect("the index of images");
    let edge =
        ["nibabel/functional.nii", "nibabel/example4d.nii.gz", "rocketship/vfa_256x256x1x3_int16_pixdim4_is_TR.nii"];
    let mut files: Vec<PathBuf> = index
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split(',');
            let (file, shape) = (fields.next()?, fields.nth(1)?);
            (shape.split('x').count() == 4).then(|| data.join(file))
        })
        .collect();
    files.extend(edge.iter().map(|file| data.join("nifti_edge").join(file)));
    files
}

fn open(file: &Path) -> Result<Series, Failed> {
    match Series::open(file) {
        // A header without usable times: a person would name the spacing, as the error says.
        Err(Error::Time { .. }) => Ok(Series::open_with(file, &ReadOptions::new().frame_spacing_s(5.0))?),
        other => Ok(other?),
    }
}

/// One voxel per curve.
fn series_of(curves: &[Vec<f64>], times: TimeAxis) -> Result<Series, Failed> {
    let frames = times.len();
    let samples = Array4::from_shape_fn((curves.len(), 1, 1, frames), |(x, _, _, t)| curves[x][t]);
    Ok(Series::from_array(samples.view(), times)?)
}

/// Columns of numbers: those lines of a CSV all of whose fields are numbers.
fn number_rows(file: &Path) -> Vec<Vec<f64>> {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let row = |line: &str| line.split(',').map(|field| field.trim().parse().ok()).collect::<Option<Vec<f64>>>();
    text.lines().filter_map(row).collect()
}

fn column(rows: &[Vec<f64>], index: usize) -> Vec<f64> {
    rows.iter().map(|row| row[index]).collect()
}

/// Aorta and kidneys; the spacing isn't in the table of curves, and none of the checks here depends on it.
fn kidney(data: &Path) -> Result<Series, Failed> {
    let rows = number_rows(&data.join("dce_real_kidney_minipig_renal_fibrosis/rois.csv"));
    let curves: Vec<Vec<f64>> = (0..rows[0].len()).map(|index| column(&rows, index)).collect();
    series_of(&curves, TimeAxis::uniform(1.25, rows.len())?)
}

/// Curves of 40 frames, 1.6 s apart, one after the other in a long table.
fn dogs(data: &Path) -> Result<Series, Failed> {
    let file = data.join("dsc_real_dogs/signals_long.csv");
    let text = std::fs::read_to_string(&file)?;
    let mut curves: Vec<Vec<f64>> = Vec::new();
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let (frame, signal): (usize, f64) = (fields[1].parse()?, fields[4].parse()?);
        if frame == 0 {
            curves.push(Vec::new());
        }
        curves.last_mut().ok_or("the table begins within a curve")?.push(signal);
    }
    curves.retain(|curve| curve.len() == 40);
    series_of(&curves, TimeAxis::uniform(1.6, 40)?)
}

/// 99 uneven times, probably in tenths of a second.
fn body_ct(data: &Path) -> Result<Series, Failed> {
    let rows = number_rows(&data.join("ctp_real_body_remiscan/EX_DCEMRI_t0.csv"));
    let times = TimeAxis::from_seconds(column(&rows, 0).iter().map(|t| t * 0.1).collect())?;
    let curves: Vec<Vec<f64>> = (1..5).map(|index| column(&rows, index)).collect();
    series_of(&curves, times)
}
