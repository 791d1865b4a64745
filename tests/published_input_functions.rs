//! Input functions against published tables, and the automatic artery on published images.
//!
//! The files lie in `$PERFUSE_TEST_DATA`; without that variable the tests are reported as ignored.

use std::path::{Path, PathBuf};

use libtest_mimic::{Arguments, Failed, Trial};
use perfuse::input_function::{Arrival, ArteryFinder, Average, CsvOptions, Fluid, Population};
use perfuse::io::ReadOptions;
use perfuse::{Engine, InputFunction, Mask, RunOptions, Series, SignalKind, TimeAxis};

type Test = fn(&Path) -> Result<(), Failed>;

fn main() {
    let tests: [(&str, Test); 9] = [
        ("Parker and Georgiou, OSIPI's tables", population),
        ("Parker with delays, OSIPI's table", delays),
        ("sampled functions, OSIPI's tables", sampled),
        ("tables of input functions", tables),
        ("tables that don't say what they hold", refused_tables),
        ("artery of the PkModeling phantoms", pkmodeling),
        ("artery of the prostate", prostate),
        ("artery of the abdomen", abdomen),
        ("artery of the Gothenburg patch", gothenburg),
    ];
    let arguments = Arguments::from_args();
    let trials = match std::env::var_os("PERFUSE_TEST_DATA").map(PathBuf::from) {
        Some(folder) => tests
            .into_iter()
            .map(|(name, test)| {
                let folder = folder.clone();
                Trial::test(name, move || test(&folder))
            })
            .collect(),
        None => vec![Trial::test("set PERFUSE_TEST_DATA to run", || Ok(())).with_ignored_flag(true)],
    };
    libtest_mimic::run(&arguments, trials).exit();
}

fn require(condition: bool, otherwise: impl FnOnce() -> String) -> Result<(), Failed> {
    if condition { Ok(()) } else { Err(otherwise().into()) }
}

/// Case, time in minutes, whole-blood concentration in mM, delay in seconds (0 where there is none).
fn rows(file: &Path) -> Result<Vec<(String, f64, f64, f64)>, Failed> {
    let text = std::fs::read_to_string(file)?;
    let row = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        let delay = fields.get(3).map_or(Ok(0.0), |delay| delay.parse())?;
        Ok((fields[0].to_string(), fields[1].parse()?, fields[2].parse()?, delay))
    };
    text.lines().skip(1).map(row).collect()
}

fn references(data: &Path) -> [(Population, PathBuf); 2] {
    let folder = data.join("osipi_population_aif");
    [(Population::Parker, folder.join("parker_ref.csv")), (Population::Georgiou, folder.join("georgiou_ref.csv"))]
}

fn population(data: &Path) -> Result<(), Failed> {
    for (population, file) in references(data) {
        let mut worst = 0.0f64;
        let rows = rows(&file)?;
        for (case, minutes, expected, _) in &rows {
            let found = population.concentration_mm(60.0 * minutes);
            let share = (found - expected).abs() / (1e-4 + 0.01 * expected.abs());
            worst = worst.max(share);
            require(share <= 1.0, || format!("{population} {case} at {minutes} min: {found}, {expected} expected"))?;
        }
        println!("{population}: {} values, worst at {worst:.4} of the tolerance", rows.len());
        // Constants to the digits of the papers leave less than a hundredth of what the field allows.
        require(worst < 0.01, || format!("{population}: {worst} of the tolerance"))?;
    }
    Ok(())
}

fn delays(data: &Path) -> Result<(), Failed> {
    for (case, minutes, expected, delay) in rows(&data.join("osipi_population_aif/parker_delay_ref.csv"))? {
        let found = Population::Parker.concentration_mm(60.0 * minutes - delay);
        let tolerance = 0.1 + 0.1 * expected.abs();
        require((found - expected).abs() <= tolerance, || {
            format!("{case} at {minutes}: {found}, {expected} expected")
        })?;
    }
    Ok(())
}

/// What fits use is the sampled function: within the tolerance, too.
fn sampled(data: &Path) -> Result<(), Failed> {
    for (population, file) in references(data) {
        let rows = rows(&file)?;
        let last = rows.iter().fold(0.0, |last, row| f64::max(last, 60.0 * row.1));
        let times = TimeAxis::from_seconds(vec![0.0, last])?;
        let function = population.input_function(&times, &Arrival::at(0.0)?)?;
        for (case, minutes, expected, _) in rows {
            let found = function.at(60.0 * minutes).ok_or("no value")?;
            let good = (found - expected).abs() <= 1e-4 + 0.01 * expected.abs();
            require(good, || format!("{population} {case} at {minutes} min: {found}, {expected} expected"))?;
        }
    }
    Ok(())
}

fn tables(data: &Path) -> Result<(), Failed> {
    for (file, column, fluid, last) in [
        ("qiba_v6_tofts/aif_plasma.csv", None, None, 660.0),
        ("dce_buckley/breast_aif_plasma.csv", None, None, 300.0),
        ("dce_real_abdomen_madym/aif_parker_population_plasma.csv", None, None, 368.0),
        ("osipi_dce_models/2cxm_delay0_aif.csv", None, Some(Fluid::Plasma), 299.75),
        ("osipi_dce_models/tofts_aif.csv", Some("aif_mM_test_vox_T3_30"), Some(Fluid::Plasma), 660.0),
    ] {
        let mut options = CsvOptions::new();
        if let Some(column) = column {
            options = options.column(column);
        }
        if let Some(fluid) = fluid {
            options = options.fluid(fluid);
        }
        let function = InputFunction::open(data.join(file), &options)?;
        require(function.fluid() == Fluid::Plasma, || file.into())?;
        let end = function.times_s().last().copied().unwrap_or_default();
        require((end - last).abs() < 1.0, || format!("{file} ends at {end} s"))?;
    }
    Ok(())
}

fn refused_tables(data: &Path) -> Result<(), Failed> {
    let blood = CsvOptions::new().fluid(Fluid::Blood);
    for (file, options, part) in [
        ("osipi_dce_models/2cxm_delay0_aif.csv", CsvOptions::new(), "blood or plasma is unsaid"),
        ("osipi_dce_models/tofts_aif.csv", CsvOptions::new(), "15 columns in mM"),
        ("qiba_v6_tofts/aif_plasma.csv", blood.clone(), "is in plasma, but blood"),
        ("osipi_dsc/dsc_aif.csv", blood.clone(), "without a column in mM"),
        ("ctp_digital_phantom/aif.csv", blood.clone(), "without a column in mM"),
        ("dsc_dro_bezier/aif.csv", blood, "without a column in mM"),
    ] {
        let text = match InputFunction::open(data.join(file), &options) {
            Ok(_) => return Err(format!("{file} was read").into()),
            Err(error) => error.to_string(),
        };
        require(text.contains(part) && text.contains("aif"), || text.clone())?;
    }
    Ok(())
}

fn find(series: &Series, kind: SignalKind) -> Result<perfuse::input_function::Artery, Failed> {
    Ok(ArteryFinder::new().kind(kind).find(&Engine::cpu(), series, &RunOptions::new())?)
}

fn open(file: PathBuf, spacing_s: f64) -> Result<Series, Failed> {
    Ok(Series::open_with(file, &ReadOptions::new().frame_spacing_s(spacing_s))?)
}

/// The row and the column of arterial voxels, whose first one the mask names; in the program's own concentrations only
/// that one has a curve.
fn pkmodeling(data: &Path) -> Result<(), Failed> {
    for (name, spacing) in [("DRO3min3sec", 3.0), ("DRO5min1sec", 1.0)] {
        let folder = data.join("pkmodeling_dro");
        let mask = Mask::open(folder.join(format!("{name}_aif_mask.nii.gz")))?;
        let signal = open(folder.join(format!("{name}_signal.nii.gz")), spacing)?;
        let artery = find(&signal, SignalKind::Signal)?;
        let strip = artery.voxels().iter().all(|voxel| voxel.position[0] == 0 || voxel.position[1] == 0);
        require(strip && artery.voxels().len() == 28, || format!("{name}: {:?}", artery.voxels()))?;
        let concentration = open(folder.join(format!("{name}_ref_pkmodeling_conc.nii.gz")), spacing)?;
        let artery = find(&concentration, SignalKind::Concentration)?;
        require(artery.mask().labels() == mask.labels(), || format!("{name}: {:?}", artery.voxels()))?;
    }
    Ok(())
}

/// Sampled voxels of a real prostate: those beside the vessel that the mask names, with nearly its curve; and the vessel itself in
/// the program's own concentrations.
fn prostate(data: &Path) -> Result<(), Failed> {
    let file = |name: &str| data.join(format!("dce_real_qin_prostate/QINProstate001_{name}.nii.gz"));
    let mask = Mask::open(file("aif_mask"))?;
    let signal = open(file("signal"), 4.27)?;
    let artery = find(&signal, SignalKind::Signal)?;
    let found = InputFunction::from_mask(&signal, artery.mask(), Average::Mean, Fluid::Blood)?.function;
    let named = InputFunction::from_mask(&signal, &mask, Average::Mean, Fluid::Blood)?.function;
    let correlation = correlation(found.concentration_mm(), named.concentration_mm());
    println!("{} voxels, correlation with the named one {correlation:.3}", artery.voxels().len());
    require(correlation > 0.93, || format!("correlation {correlation}: {:?}", artery.voxels()))?;
    let concentration = open(file("ref_tofts_conc"), 4.27)?;
    let artery = find(&concentration, SignalKind::Concentration)?;
    require(artery.mask().labels() == mask.labels(), || format!("{:?}", artery.voxels()))
}

/// A real abdomen: a first pass in one frame or two, seen at image 7 or soon after, several voxels together, in the aorta
/// (before the spine, through several slices).
fn abdomen(data: &Path) -> Result<(), Failed> {
    let series = open(data.join("dce_real_abdomen_madym/dce.nii.gz"), 4.975)?;
    let artery = find(&series, SignalKind::Signal)?;
    let found = InputFunction::from_mask(&series, artery.mask(), Average::Mean, Fluid::Blood)?.function;
    let curve = found.concentration_mm();
    let peak = (0..curve.len()).max_by(|a, b| curve[*a].total_cmp(&curve[*b])).unwrap_or(0);
    println!("{:?}, peak at frame {peak}", artery.voxels());
    require((7..=10).contains(&peak), || format!("peak at frame {peak}"))?;
    let slices: std::collections::BTreeSet<usize> = artery.voxels().iter().map(|voxel| voxel.position[2]).collect();
    let near = artery.voxels().iter().all(|voxel| {
        let [x, y, _] = voxel.position;
        x.abs_diff(50) <= 6 && y.abs_diff(34) <= 5
    });
    require(artery.voxels().len() >= 10 && slices.len() >= 2 && near, || format!("{:?}", artery.voxels()))
}

/// Copies of a bolus, shifted and scaled: the early ones, not the later half.
fn gothenburg(data: &Path) -> Result<(), Failed> {
    let series = open(data.join("dsc_conc_patch_gothenburg/conc.nii.gz"), 1.5)?;
    let artery = find(&series, SignalKind::Concentration)?;
    for voxel in artery.voxels() {
        let curve = series.curve(voxel.position)?;
        let peak = (0..curve.len()).max_by(|a, b| curve[*a].total_cmp(&curve[*b])).unwrap_or(0);
        require(peak <= 21 && curve[peak] > 0.6, || format!("{voxel:?}: {} at frame {peak}", curve[peak]))?;
    }
    Ok(())
}

fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let n = a.len() as f64;
    let (mean_a, mean_b) = (a.iter().sum::<f64>() / n, b.iter().sum::<f64>() / n);
    let sum = |f: &dyn Fn(f64, f64) -> f64| a.iter().zip(b).map(|(x, y)| f(x - mean_a, y - mean_b)).sum::<f64>();
    sum(&|x, y| x * y) / (sum(&|x, _| x * x) * sum(&|_, y| y * y)).sqrt()
}
