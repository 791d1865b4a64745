//! Published curves with known parameters: the OSIPI code collection's tables and the QIBA digital reference object.
//!
//! The files lie in `$PERFUSE_TEST_DATA`; without that variable the tests are reported as ignored. Tolerances are those that
//! the OSIPI collection states for each quantity, |x - truth| <= a + r |truth|.

use std::path::{Path, PathBuf};

use libtest_mimic::{Arguments, Failed, Trial};
use ndarray::Array4;
use perfuse::input_function::Fluid;
use perfuse::kernels::fit::{Delay, Model};
use perfuse::{Engine, InputFunction, Maps, PharmacokineticFit, Series, TimeAxis};

fn main() {
    let arguments = Arguments::from_args();
    let name = "published fits (set PERFUSE_TEST_DATA to run)";
    let trials = match std::env::var_os("PERFUSE_TEST_DATA") {
        Some(folder) => trials(&PathBuf::from(folder)),
        None => vec![Trial::test(name, || Ok(())).with_ignored_flag(true)],
    };
    libtest_mimic::run(&arguments, trials).exit();
}

fn engines() -> Vec<Engine> {
    let mut engines = vec![Engine::reference(), Engine::cpu()];
    if let Ok(device) = std::env::var("PERFUSE_TEST_DEVICE") {
        engines.push(Engine::named(&device).expect("the device that PERFUSE_TEST_DEVICE names"));
    }
    engines
}

/// Set, model, whether its delay is fitted, by how many samples the tissue is shifted in the test.
const SETS: [(&str, Model, bool, usize); 8] = [
    ("tofts", Model::Tofts, false, 0),
    ("tofts", Model::Tofts, true, 10),
    ("ext_tofts", Model::ExtendedTofts, false, 0),
    ("ext_tofts", Model::ExtendedTofts, true, 5),
    ("patlak_delay0", Model::Patlak, false, 0),
    ("patlak_delay5", Model::Patlak, true, 0),
    ("2cum_delay0", Model::TwoCompartmentUptake, false, 0),
    ("2cum_delay5", Model::TwoCompartmentUptake, true, 0),
];

fn trials(data: &Path) -> Vec<Trial> {
    let mut trials = Vec::new();
    for (set, model, delay, shift) in SETS {
        let folder = data.join("osipi_dce_models");
        let name = format!("osipi {set}{}", if shift > 0 { " delayed" } else { "" });
        trials.push(Trial::test(name, move || osipi(&folder, set, model, delay, shift)));
    }
    let folder = data.join("qiba_v6_tofts");
    trials.push(Trial::test("qiba v6 concordance", move || qiba(&folder)));
    trials
}

/// A table: its header and its rows of numbers (texts are NaN).
fn table(path: &Path) -> Result<(Vec<String>, Vec<Vec<f64>>), Failed> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let header = lines.next().ok_or("an empty table")?.split(',').map(|name| name.trim().to_string()).collect();
    let rows =
        lines.map(|line| line.split(',').map(|cell| cell.trim().parse().unwrap_or(f64::NAN)).collect()).collect();
    Ok((header, rows))
}

fn column(rows: &[Vec<f64>], index: usize) -> Vec<f64> {
    rows.iter().map(|row| row[index]).collect()
}

/// The tolerance of a quantity in the unit of our map, and the factor from the table's unit to it.
fn tolerance(name: &str) -> Option<(&'static str, f64, f64, f64)> {
    match name {
        "Ktrans" => Some(("ktrans", 0.005, 0.1, 1.0)),
        "PS" => Some(("ps", 0.5, 0.1, 100.0)),
        "ve" => Some(("ve", 0.05, 0.0, 1.0)),
        "vp" => Some(("vp", 0.025, 0.0, 1.0)),
        "Fp" => Some(("fp", 5.0, 0.1, 1.0)),
        "delay_s" => Some(("delay", 1.0, 0.0, 1.0)),
        _ => None,
    }
}

fn osipi(folder: &Path, set: &str, model: Model, delay: bool, shift: usize) -> Result<(), Failed> {
    let (_, aif) = table(&folder.join(format!("{set}_aif.csv")))?;
    let (_, curves) = table(&folder.join(format!("{set}_curves.csv")))?;
    let (names, truth) = table(&folder.join(format!("{set}_truth.csv")))?;
    let times = column(&curves, 0);
    let interval = times[1] - times[0];
    let mut worst = (0.0, String::new());
    for (case, truth) in truth.iter().enumerate() {
        let inputs = aif[0].len() - 1;
        let plasma = column(&aif, 1 + if inputs > 1 { case } else { 0 });
        let mut curve = column(&curves, 1 + case);
        curve.rotate_right(shift);
        curve[..shift].fill(0.0);
        let input = InputFunction::new(column(&aif, 0), plasma, Fluid::Plasma)?;
        let samples = Array4::from_shape_fn((1, 1, 1, curve.len()), |(_, _, _, t)| curve[t]);
        let series = Series::from_array(samples.view(), TimeAxis::from_seconds(times.clone())?)?;
        let fit = PharmacokineticFit::new(model, input).delay(if delay { Delay::Free } else { Delay::None });
        for engine in engines() {
            let maps = engine.run(&fit, &series)?;
            for (i, name) in names.iter().enumerate() {
                let Some((id, a, r, factor)) = tolerance(name) else { continue };
                if id == "delay" && !delay {
                    continue;
                }
                let expected = truth[i] * factor + if id == "delay" { shift as f64 * interval } else { 0.0 };
                let found = value(&maps, id)?;
                let share = (found - expected).abs() / (a + r * expected.abs());
                if share.is_nan() || share > worst.0 {
                    worst = (share, format!("{id} of case {case} on {}: {found} for {expected}", engine.name()));
                }
            }
        }
    }
    println!("{set}, shift {shift}: at most {:.2} of the tolerance, {}", worst.0, worst.1);
    if worst.0 <= 1.0 { Ok(()) } else { Err(format!("{:.2} of the tolerance: {}", worst.0, worst.1).into()) }
}

fn value(maps: &Maps, id: &str) -> Result<f64, Failed> {
    Ok(f64::from(maps.get(id)?[[0, 0, 0]]))
}

/// Lin's concordance correlation.
fn concordance(x: &[f64], y: &[f64]) -> f64 {
    let n = x.len() as f64;
    let mean = |v: &[f64]| v.iter().sum::<f64>() / n;
    let (mx, my) = (mean(x), mean(y));
    let moment =
        |u: &[f64], mu: f64, v: &[f64], mv: f64| u.iter().zip(v).map(|(a, b)| (a - mu) * (b - mv)).sum::<f64>() / n;
    2.0 * moment(x, mx, y, my) / (moment(x, mx, x, mx) + moment(y, my, y, my) + (mx - my).powi(2))
}

/// Signal to concentration by the published constants, in f64, then Tofts.
fn qiba(folder: &Path) -> Result<(), Failed> {
    let series = Series::open(folder.join("dce.nii.gz"))?;
    let truth = |name: &str| -> Result<_, Failed> { Ok(perfuse::VoxelMap::open(folder.join(name))?) };
    let (ktrans, ve) = (truth("truth_ktrans_per_min.nii.gz")?, truth("truth_ve.nii.gz")?);
    let (_, aif) = table(&folder.join("aif_plasma.csv"))?;
    let (tr, angle, relaxivity, r10) = (0.005, 30f64.to_radians(), 4.5, 1.0);
    let baseline = 4;
    let [nx, ny, _, frames] = series.shape();
    let rows = 10..70.min(nx);
    let spoiled = |r1: f64| angle.sin() * (1.0 - (-tr * r1).exp()) / (1.0 - angle.cos() * (-tr * r1).exp());
    let mut concentration = Vec::new();
    let (mut true_ktrans, mut true_ve) = (Vec::new(), Vec::new());
    for x in rows.clone() {
        for y in 0..ny {
            let curve = series.curve([x, y, 0])?;
            let mean = curve[..baseline].iter().sum::<f64>() / baseline as f64;
            let scale = spoiled(r10) / mean;
            for s in &curve {
                // S = sin(a) (1 - E) / (1 - cos(a) E), so E = (sin(a) - S) / (sin(a) - S cos(a)).
                let s = s * scale;
                let e = (angle.sin() - s) / (angle.sin() - s * angle.cos());
                concentration.push((-e.ln() / tr - r10) / relaxivity);
            }
            true_ktrans.push(f64::from(ktrans.values()[[x, y, 0]]));
            true_ve.push(f64::from(ve.values()[[x, y, 0]]));
        }
    }
    let voxels = rows.len() * ny;
    let samples = Array4::from_shape_fn((voxels, 1, 1, frames), |(v, _, _, t)| concentration[v * frames + t]);
    let times = column(&aif, 0);
    let axis = TimeAxis::from_seconds(series.times().seconds().to_vec())?;
    let input = InputFunction::new(times, column(&aif, aif[0].len() - 1), Fluid::Plasma)?;
    let fit = PharmacokineticFit::new(Model::Tofts, input);
    let tissue = Series::from_array(samples.view(), axis)?;
    for engine in engines().into_iter().skip(1) {
        let maps = engine.run(&fit, &tissue)?;
        let of = |id: &str| -> Result<Vec<f64>, Failed> { Ok(maps.get(id)?.iter().map(|x| f64::from(*x)).collect()) };
        let (k, v) = (concordance(&of("ktrans")?, &true_ktrans), concordance(&of("ve")?, &true_ve));
        println!("qiba v6 on {}: concordance {k:.6} of ktrans, {v:.6} of ve", engine.name());
        if !(k >= 0.9999 && v >= 0.9999) {
            return Err(format!("concordance {k} and {v} on {}", engine.name()).into());
        }
    }
    Ok(())
}
