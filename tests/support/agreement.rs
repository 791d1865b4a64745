//! Agreement with published data: every case beside the tolerance that the field allows, as rows of a table.

use std::collections::BTreeMap;
use std::path::Path;

use perfuse::input_function::{Average, CsvOptions, Fluid, Haematocrit, Population};
use perfuse::io::ReadOptions;
use perfuse::kernels::concentration::Concentration;
use perfuse::kernels::fit::{Delay, Model, PharmacokineticFit};
use perfuse::kernels::t1::VariableFlipAngle;
use perfuse::{
    Engine, FlipAngle, InputFunction, Maps, Mask, Result, RunOptions, SampleAxis, Seconds, Series, TimeAxis, VoxelMap,
};

/// One quantity of one published set.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// The set, and what was fitted to it.
    pub(crate) set: String,
    /// What is compared.
    pub(crate) quantity: &'static str,
    /// How many values.
    pub(crate) cases: usize,
    /// What is allowed.
    pub(crate) allowed: String,
    /// What was found, in words.
    pub(crate) found: String,
    /// The largest deviation over what is allowed there: at most 1 where all is well.
    pub(crate) worst_share: f64,
}

impl Row {
    pub(crate) fn holds(&self) -> bool {
        self.worst_share <= 1.0
    }
}

/// `|found - expected| <= absolute + relative |expected|`.
#[derive(Debug, Clone, Copy)]
struct Tolerance {
    absolute: f64,
    relative: f64,
    unit: &'static str,
}

impl Tolerance {
    const fn new(absolute: f64, relative: f64, unit: &'static str) -> Self {
        Self { absolute, relative, unit }
    }

    fn share(self, found: f64, expected: f64) -> f64 {
        let share = (found - expected).abs() / (self.absolute + self.relative * expected.abs());
        if share.is_nan() { f64::INFINITY } else { share }
    }

    fn text(self) -> String {
        let unit = if self.unit.is_empty() { String::new() } else { format!(" {}", self.unit) };
        match (self.absolute > 0.0, self.relative > 0.0) {
            (true, true) => format!("{}{unit} + {} %", self.absolute, percent(self.relative)),
            (true, false) => format!("{}{unit}", self.absolute),
            _ => format!("{} %", percent(self.relative)),
        }
    }
}

fn percent(share: f64) -> f64 {
    (share * 1e8).round() / 1e6
}

/// Found and expected values of one quantity.
struct Compared {
    set: String,
    quantity: &'static str,
    tolerance: Tolerance,
    values: Vec<(f64, f64)>,
}

impl Compared {
    fn row(self) -> Row {
        let shares = self.values.iter().map(|(found, expected)| self.tolerance.share(*found, *expected));
        let (at, worst) =
            shares.enumerate().fold((0, -1.0), |best, (i, share)| if share > best.1 { (i, share) } else { best });
        let found = match self.values.get(at) {
            Some((found, expected)) => format!("worst {} for {}", short(*found), short(*expected)),
            None => "no case".into(),
        };
        Row {
            set: self.set,
            quantity: self.quantity,
            cases: self.values.len(),
            allowed: self.tolerance.text(),
            found,
            worst_share: if self.values.is_empty() { f64::INFINITY } else { worst },
        }
    }
}

fn short(value: f64) -> String {
    if value == 0.0 || !value.is_finite() || (1e-3..1e4).contains(&value.abs()) {
        let text = format!("{value:.4}");
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text }
    } else {
        format!("{value:.1e}")
    }
}

/// OSIPI's tolerances; PS there in 1/min.
fn osipi_tolerance(id: &str) -> Tolerance {
    match id {
        "ktrans" | "ps" => Tolerance::new(0.005, 0.1, "1/min"),
        "ve" => Tolerance::new(0.05, 0.0, ""),
        "vp" => Tolerance::new(0.025, 0.0, ""),
        "fp" => Tolerance::new(5.0, 0.1, "mL/min/100 mL"),
        "delay" => Tolerance::new(1.0, 0.0, "s"),
        other => unreachable!("no tolerance for {other}"),
    }
}

/// The lines of a CSV by their head's names.
fn table(path: &Path) -> Vec<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut lines = text.lines().map(|line| line.split(',').map(str::trim));
    let head: Vec<&str> = lines.next().expect("a head").collect();
    lines.map(|fields| head.iter().map(|name| (*name).to_string()).zip(fields.map(String::from)).collect()).collect()
}

fn number(row: &BTreeMap<String, String>, name: &str) -> f64 {
    row[name].parse().unwrap_or_else(|_| panic!("{name} is {}", row[name]))
}

/// Everything, on one engine.
pub(crate) fn all(engine: &Engine, data: &Path) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    rows.extend(osipi_models(engine, data)?);
    rows.extend(osipi_t1(engine, data)?);
    rows.extend(osipi_concentration(engine, data)?);
    rows.extend(osipi_population(data)?);
    rows.extend(qiba(engine, data)?);
    rows.extend(pkmodeling(engine, data)?);
    rows.extend(buckley(engine, data)?);
    rows.extend(abdomen(engine, data)?);
    rows.extend(prostate(engine, data)?);
    Ok(rows)
}

/// OSIPI's tissue curves, one case a voxel, some with an input function each.
fn osipi_models(engine: &Engine, data: &Path) -> Result<Vec<Row>> {
    use Model::{ExtendedTofts, Patlak, Tofts, TwoCompartmentExchange, TwoCompartmentUptake};
    let mut rows = Vec::new();
    for (set, model, shifted_frames, free) in [
        ("tofts", Tofts, 0, false),
        ("tofts", Tofts, 10, true),
        ("ext_tofts", ExtendedTofts, 0, false),
        ("ext_tofts", ExtendedTofts, 5, true),
        ("patlak_delay0", Patlak, 0, false),
        ("patlak_delay0", Patlak, 0, true),
        ("patlak_delay5", Patlak, 0, true),
        ("2cum_delay0", TwoCompartmentUptake, 0, false),
        ("2cum_delay0", TwoCompartmentUptake, 0, true),
        ("2cum_delay5", TwoCompartmentUptake, 0, true),
        ("2cxm_delay0", TwoCompartmentExchange, 0, false),
        ("2cxm_delay0", TwoCompartmentExchange, 0, true),
        ("2cxm_delay5", TwoCompartmentExchange, 0, true),
    ] {
        let folder = data.join("osipi_dce_models");
        let truth = table(&folder.join(format!("{set}_truth.csv")));
        let aif = folder.join(format!("{set}_aif.csv"));
        let columns = std::fs::read_to_string(&aif).expect("an input function").lines().next().map(str::to_string);
        let columns: Vec<String> = columns.unwrap_or_default().split(',').map(|name| name.trim().to_string()).collect();
        let curves =
            Series::open_with(folder.join(format!("{set}_conc.nii.gz")), &ReadOptions::new().frame_spacing_s(1.0))?;
        let mut compared: BTreeMap<&'static str, Vec<(f64, f64)>> = BTreeMap::new();
        for (case, row) in truth.iter().enumerate() {
            let column = columns.iter().find(|name| **name == format!("aif_mM_{}", row["label"]));
            let options = CsvOptions::new().column(column.map_or("aif_mM", String::as_str)).fluid(Fluid::Plasma);
            let input = InputFunction::open(&aif, &options)?;
            let times = input.times_s().to_vec();
            let mut samples = curves.curve([case, 0, 0])?;
            let spacing = times[1] - times[0];
            // OSIPI's delayed variants: the curve some frames later, zeros before it.
            samples.rotate_right(shifted_frames);
            samples[..shifted_frames].fill(0.0);
            let frames = samples.len();
            let series = Series::from_voxels(samples, [1, 1, 1, frames], TimeAxis::from_seconds(times)?)?;
            let fit = PharmacokineticFit::new(model, input).delay(if free { Delay::Free } else { Delay::None });
            let maps = engine.run(&fit, &series)?;
            let value = |id: &str| maps.get(id).map(|map| f64::from(map[[0, 0, 0]]));
            for (id, name, per_unit) in
                [("ktrans", "Ktrans", 1.0), ("ve", "ve", 1.0), ("vp", "vp", 1.0), ("fp", "Fp", 1.0), ("ps", "PS", 0.01)]
            {
                if row.contains_key(name) {
                    compared.entry(id).or_default().push((value(id)? * per_unit, number(row, name)));
                }
            }
            if free {
                let delay = number(row, "delay_s") + shifted_frames as f64 * spacing;
                compared.entry("delay").or_default().push((value("delay")?, delay));
            }
        }
        let how = match (shifted_frames, free) {
            (0, true) => "free delay",
            (_, true) => "shifted, free delay",
            _ => "no delay",
        };
        for (quantity, values) in compared {
            let set = format!("OSIPI {set}, {how}");
            rows.push(Compared { set, quantity, tolerance: osipi_tolerance(quantity), values }.row());
        }
    }
    Ok(rows)
}

fn osipi_t1(engine: &Engine, data: &Path) -> Result<Vec<Row>> {
    let folder = data.join("osipi_t1_vfa");
    let mut rows = Vec::new();
    for name in ["brain", "prostate", "qiba"] {
        let truth = table(&folder.join(format!("t1_{name}_truth.csv")));
        let signals = table(&folder.join(format!("t1_{name}_signals.csv")));
        let tr = number(&signals[0], "tr_s");
        let of = |label: &str, what: &str| -> Vec<f64> {
            signals.iter().filter(|row| row["label"] == label).map(|row| number(row, what)).collect()
        };
        let angles = of(&truth[0]["label"], "flip_deg");
        let curves: Vec<Vec<f64>> = truth.iter().map(|row| of(&row["label"], "signal")).collect();
        let samples = (0..angles.len()).flat_map(|i| curves.iter().map(move |curve| curve[i])).collect::<Vec<f64>>();
        let series = Series::from_voxels(samples, [truth.len(), 1, 1, angles.len()], SampleAxis::Index)?;
        let angles: Vec<FlipAngle> = angles.into_iter().map(FlipAngle::from_degrees).collect();
        let maps = engine.run(&VariableFlipAngle::new(Seconds::from_seconds(tr), angles), &series)?;
        let found = maps.get("r1")?;
        let values =
            truth.iter().enumerate().map(|(i, row)| (f64::from(found[[i, 0, 0]]), number(row, "R1_per_s"))).collect();
        let set = format!("OSIPI t1_{name}, flip angles, nonlinear");
        rows.push(Compared { set, quantity: "r1", tolerance: Tolerance::new(0.05, 0.05, "1/s"), values }.row());
    }
    Ok(rows)
}

fn osipi_concentration(engine: &Engine, data: &Path) -> Result<Vec<Row>> {
    let folder = data.join("osipi_signal_to_conc");
    let signals = table(&folder.join("signal.csv"));
    let expected = table(&folder.join("expected_conc_mM.csv"));
    let mut values = Vec::new();
    for row in table(&folder.join("params.csv")) {
        let name = &row["label"];
        let samples: Vec<f32> = signals.iter().map(|frame| number(frame, name) as f32).collect();
        let frames = samples.len();
        let series = Series::from_voxels(samples, [1, 1, 1, frames], TimeAxis::uniform(1.0, frames)?)?;
        let angle = FlipAngle::from_degrees(number(&row, "flip_deg"));
        let kernel =
            Concentration::new(Seconds::from_seconds(number(&row, "tr_s")), angle, number(&row, "r1_per_mM_s"))
                .t10(Seconds::from_seconds(number(&row, "t10_s")))
                .baseline_frames(1..number(&row, "n_baseline_value_in_file") as usize);
        let maps = engine.run(&kernel, &series)?;
        let found = maps.curves("concentration")?;
        values.extend((1..frames).map(|i| (f64::from(found[[0, 0, 0, i]]), number(&expected[i], name))));
    }
    let tolerance = Tolerance::new(1e-5, 1e-5, "mM");
    let set = "OSIPI signal_to_conc, spoiled gradient echo".into();
    Ok(vec![Compared { set, quantity: "concentration", tolerance, values }.row()])
}

fn osipi_population(data: &Path) -> Result<Vec<Row>> {
    let folder = data.join("osipi_population_aif");
    let mut rows = Vec::new();
    for (population, file) in [(Population::Parker, "parker_ref.csv"), (Population::Georgiou, "georgiou_ref.csv")] {
        let values = table(&folder.join(file))
            .iter()
            .map(|row| (population.concentration_mm(60.0 * number(row, "time_min")), number(row, "cb_mM")))
            .collect();
        let set = format!("OSIPI population input function, {population}");
        let tolerance = Tolerance::new(1e-4, 0.01, "mM");
        rows.push(Compared { set, quantity: "concentration", tolerance, values }.row());
    }
    Ok(rows)
}

/// Lin's concordance correlation coefficient.
fn concordance(values: &[(f64, f64)]) -> f64 {
    let n = values.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| values.iter().map(of).sum::<f64>() / n;
    let (a, b) = (mean(|v| v.0), mean(|v| v.1));
    let moment = |of: &dyn Fn(&(f64, f64)) -> f64| values.iter().map(of).sum::<f64>() / n;
    let (saa, sbb) = (moment(&|v| (v.0 - a).powi(2)), moment(&|v| (v.1 - b).powi(2)));
    let sab = moment(&|v| (v.0 - a) * (v.1 - b));
    2.0 * sab / (saa + sbb + (a - b).powi(2))
}

/// A row for a coefficient that must reach a value.
fn at_least(set: &str, quantity: &'static str, cases: usize, what: &str, found: f64, wanted: f64) -> Row {
    Row {
        set: set.into(),
        quantity,
        cases,
        allowed: format!("{what} >= {wanted}"),
        found: format!("{what} {found:.6}"),
        // One minus the coefficient, over what is allowed of it.
        worst_share: if found.is_nan() { f64::INFINITY } else { (1.0 - found) / (1.0 - wanted) },
    }
}

/// Found and expected values inside a mask.
fn inside(maps: &Maps, id: &str, expected: &VoxelMap, mask: &Mask) -> Result<Vec<(f64, f64)>> {
    let found = maps.get(id)?;
    let labelled = mask.labels().indexed_iter().filter(|(_, label)| **label != 0).map(|(at, _)| at).collect::<Vec<_>>();
    Ok(labelled.into_iter().map(|at| (f64::from(found[at]), f64::from(expected.values()[at]))).collect())
}

/// The QIBA phantom for Tofts, from its signals.
fn qiba(engine: &Engine, data: &Path) -> Result<Vec<Row>> {
    let folder = data.join("qiba_v6_tofts");
    let input = InputFunction::open(folder.join("aif_plasma.csv"), &CsvOptions::new().fluid(Fluid::Plasma))?;
    let mut rows = Vec::new();
    for (image, truth, mask, noisy) in [
        ("dce.nii.gz", "truth", Some("mask_tissue.nii.gz"), false),
        ("dce_noisy.nii.gz", "dce_noisy_truth", None, true),
    ] {
        let series = Series::open_with(folder.join(image), &ReadOptions::new().frame_spacing_s(0.5))?;
        let mask = match mask {
            Some(mask) => Mask::open(folder.join(mask))?,
            None => Mask::from_labels(ndarray::Array3::ones(series.spatial_shape()).view()),
        };
        let options = RunOptions::new().mask(&mask);
        let conversion = Concentration::new(Seconds::from_milliseconds(5.0), FlipAngle::from_degrees(30.0), 4.5)
            .t10(Seconds::from_seconds(1.0))
            .baseline_frames(0..4);
        let converted = engine.run_with(&conversion, &series, &options)?;
        let series = Series::from_curves(&converted, "concentration")?;
        let maps = engine.run_with(&PharmacokineticFit::new(Model::Tofts, input.clone()), &series, &options)?;
        for (id, name, least) in [("ktrans", "ktrans_per_min", 0.8), ("ve", "ve", 0.8)] {
            let values = inside(&maps, id, &VoxelMap::open(folder.join(format!("{truth}_{name}.nii.gz")))?, &mask)?;
            if noisy {
                // Of the voxels that have a value; DCEMRI.jl reaches 0.84 and 0.86.
                let valid: Vec<_> = values.iter().copied().filter(|(found, _)| found.is_finite()).collect();
                let set = format!("QIBA v6 Tofts, noisy (DCEMRI.jl: Ktrans 0.84, ve 0.86), of {} voxels", values.len());
                rows.push(at_least(&set, id, valid.len(), "concordance", concordance(&valid), least));
            } else {
                let set = "QIBA v6 Tofts, noise-free";
                rows.push(at_least(set, id, values.len(), "concordance", concordance(&values), 0.9999));
                let tolerance = Tolerance::new(0.0, 0.005, "");
                rows.push(Compared { set: set.into(), quantity: id, tolerance, values }.row());
            }
        }
    }
    Ok(rows)
}

/// PkModeling's phantoms with offsets of the bolus; their generator's T1 and relaxivity don't exactly match those stated.
fn pkmodeling(engine: &Engine, data: &Path) -> Result<Vec<Row>> {
    let folder = data.join("pkmodeling_dro");
    let mut rows = Vec::new();
    for (name, spacing) in [("DRO5min1sec", 1.0), ("DRO3min3sec", 3.0)] {
        let options = ReadOptions::new().frame_spacing_s(spacing);
        let series = Series::open_with(folder.join(format!("{name}_signal.nii.gz")), &options)?;
        let convert = |t10: f64| -> Result<Series> {
            let kernel = Concentration::new(Seconds::from_milliseconds(5.0), FlipAngle::from_degrees(15.0), 3.7)
                .t10(Seconds::from_seconds(t10))
                .baseline_frames(0..(36.0 / spacing) as usize);
            Series::from_curves(&engine.run(&kernel, &series)?, "concentration")
        };
        let artery = Mask::open(folder.join(format!("{name}_aif_mask.nii.gz")))?;
        let input = InputFunction::from_mask(&convert(1.6)?, &artery, Average::Mean, Fluid::Blood)?
            .function
            .in_plasma(Haematocrit::new(0.45)?)?
            .refined(0.5)?;
        let region = Mask::open(folder.join(format!("{name}_roi_mask.nii.gz")))?;
        // The input function ends with the series: the tissue may only come later.
        let fit = PharmacokineticFit::new(Model::ExtendedTofts, input).delay(Delay::Free).bounds(
            perfuse::kernels::fit::Parameter::Delay,
            0.0,
            10.0,
        );
        let maps = engine.run_with(&fit, &convert(1.434)?, &RunOptions::new().mask(&region))?;
        for (id, file, tolerance) in [
            ("ktrans", "truth_ktrans_per_min", Tolerance::new(0.0, 0.06, "")),
            ("ve", "truth_ve", Tolerance::new(0.0, 0.06, "")),
            ("vp", "truth_vp", Tolerance::new(0.004, 0.0, "")),
        ] {
            let truth = VoxelMap::open(folder.join(format!("{file}.nii.gz")))?;
            let values = inside(&maps, id, &truth, &region)?;
            let values = values.into_iter().filter(|(_, expected)| expected.is_finite()).collect();
            let set = format!("PkModeling {name}, extended Tofts, free delay");
            rows.push(Compared { set, quantity: id, tolerance, values }.row());
        }
    }
    Ok(rows)
}

/// Buckley's curves, which no compartment model fits: beside another extended Tofts fit of the same curves.
fn buckley(engine: &Engine, data: &Path) -> Result<Vec<Row>> {
    let folder = data.join("dce_buckley");
    let series = Series::open_with(folder.join("breast_conc.nii.gz"), &ReadOptions::new().frame_spacing_s(1.0))?;
    let input = InputFunction::open(folder.join("breast_aif_plasma.csv"), &CsvOptions::new().fluid(Fluid::Plasma))?;
    let maps = engine.run(&PharmacokineticFit::new(Model::ExtendedTofts, input), &series)?;
    let expected = table(&folder.join("breast_exttofts_fit_by_us.csv"));
    let mut rows = Vec::new();
    for (id, name) in [("ktrans", "Ktrans"), ("ve", "ve"), ("vp", "vp")] {
        let found = maps.get(id)?;
        let values =
            expected.iter().enumerate().map(|(i, row)| (f64::from(found[[i, 0, 0]]), number(row, name))).collect();
        // A v_p of 0 has no relative error.
        let tolerance = Tolerance::new(if id == "vp" { 1e-4 } else { 0.0 }, 0.02, "");
        let set = "Buckley breast curves, extended Tofts beside another fit".into();
        rows.push(Compared { set, quantity: id, tolerance, values }.row());
    }
    Ok(rows)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.retain(|value| value.is_finite());
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The tumour of a real abdomen, from flip angles to extended Tofts, beside SEPAL's medians.
fn abdomen(engine: &Engine, data: &Path) -> Result<Vec<Row>> {
    let folder = data.join("dce_real_abdomen_madym");
    let info = std::fs::read_to_string(folder.join("info.json")).expect("what the set's page says");
    let info: serde_json::Value = serde_json::from_str(&info).expect("JSON");
    let times = info["frame_times_s"].as_array().expect("times").iter().map(|t| t.as_f64().expect("a number"));
    let series = Series::open(folder.join("dce.nii.gz"))?.with_times(TimeAxis::from_seconds(times.collect())?)?;
    let mask = Mask::open(folder.join("roi_tumour.nii.gz"))?;
    let options = RunOptions::new().mask(&mask);
    let images = Series::open_stack([2, 10, 20].map(|angle| folder.join(format!("vfa_{angle}deg.nii.gz"))))?;
    let tr = Seconds::from_milliseconds(4.0);
    let angles = [2.0, 10.0, 20.0].map(FlipAngle::from_degrees);
    let t1 = engine.run(&VariableFlipAngle::new(tr, angles), &images)?;
    let t10 = VoxelMap::from_array(t1.get("t1")?);
    let conversion = Concentration::new(tr, FlipAngle::from_degrees(20.0), 3.4).t10_map(t10).baseline_frames(0..7);
    let concentration = Series::from_curves(&engine.run_with(&conversion, &series, &options)?, "concentration")?;
    // The table begins at the injection, on the series' clock.
    let input =
        InputFunction::open(folder.join("aif_parker_population_plasma.csv"), &CsvOptions::new().fluid(Fluid::Plasma))?;
    let maps = engine.run_with(&PharmacokineticFit::new(Model::ExtendedTofts, input), &concentration, &options)?;
    let of = |maps: &Maps, id: &str| -> Result<f64> {
        let values = maps.get(id)?;
        Ok(median(
            mask.labels().indexed_iter().filter(|(_, l)| **l != 0).map(|(at, _)| f64::from(values[at])).collect(),
        ))
    };
    let set = "Abdominal tumour, median of 294 voxels beside SEPAL's";
    let row = |quantity, found: f64, peer: f64, tolerance: Tolerance| {
        Compared { set: set.into(), quantity, tolerance, values: vec![(found, peer)] }.row()
    };
    Ok(vec![
        row("t1", of(&t1, "t1")?, 0.91, Tolerance::new(0.0, 0.05, "")),
        row("ktrans", of(&maps, "ktrans")?, 0.24, Tolerance::new(0.005, 0.1, "1/min")),
        row("ve", of(&maps, "ve")?, 0.58, Tolerance::new(0.05, 0.0, "")),
        row("vp", of(&maps, "vp")?, 0.039, Tolerance::new(0.025, 0.0, "")),
    ])
}

/// The prostate beside PkModeling's Tofts maps, which come from another baseline and arrival: they agree in pattern.
fn prostate(engine: &Engine, data: &Path) -> Result<Vec<Row>> {
    let folder = data.join("dce_real_qin_prostate");
    let series =
        Series::open_with(folder.join("QINProstate001_signal.nii.gz"), &ReadOptions::new().frame_spacing_s(4.27))?;
    let convert = |t10: f64| -> Result<Series> {
        let kernel = Concentration::new(Seconds::from_milliseconds(3.776), FlipAngle::from_degrees(15.0), 3.9)
            .t10(Seconds::from_seconds(t10))
            .baseline_frames(0..4);
        Series::from_curves(&engine.run(&kernel, &series)?, "concentration")
    };
    let artery = Mask::open(folder.join("QINProstate001_aif_mask.nii.gz"))?;
    let input = InputFunction::from_mask(&convert(1.6)?, &artery, Average::Mean, Fluid::Blood)?
        .function
        .in_plasma(Haematocrit::new(0.4)?)?;
    let region = Mask::open(folder.join("QINProstate001_roi_mask.nii.gz"))?;
    let fit = PharmacokineticFit::new(Model::Tofts, input);
    let maps = engine.run_with(&fit, &convert(1.597)?, &RunOptions::new().mask(&region))?;
    let peer = VoxelMap::open(folder.join("QINProstate001_ref_tofts_ktrans.nii.gz"))?;
    let values: Vec<(f64, f64)> =
        inside(&maps, "ktrans", &peer, &region)?.into_iter().filter(|v| v.0.is_finite() && v.1.is_finite()).collect();
    let n = values.len() as f64;
    let (a, b) = (values.iter().map(|v| v.0).sum::<f64>() / n, values.iter().map(|v| v.1).sum::<f64>() / n);
    let sum = |of: &dyn Fn(&(f64, f64)) -> f64| values.iter().map(of).sum::<f64>();
    let correlation =
        sum(&|v| (v.0 - a) * (v.1 - b)) / (sum(&|v| (v.0 - a).powi(2)) * sum(&|v| (v.1 - b).powi(2))).sqrt();
    let set = "Prostate, Tofts beside PkModeling's map";
    Ok(vec![at_least(set, "ktrans", values.len(), "correlation", correlation, 0.95)])
}

/// The kidney's curves through a model: value of every parameter and the share of the variance explained, per kidney.
#[allow(dead_code, reason = "the program prints the tables only")]
pub(crate) fn kidney(engine: &Engine, data: &Path, model: Model) -> Result<Vec<(String, BTreeMap<String, f64>)>> {
    let folder = data.join("dce_real_kidney_minipig_renal_fibrosis");
    let text = std::fs::read_to_string(folder.join("rois.csv")).expect("the curves");
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').map(str::trim).collect()).collect();
    let (names, samples) = (&lines[2], &lines[3..]);
    let frames = samples.len();
    let times = TimeAxis::uniform(2.2, frames)?;
    let column = |i: usize| -> Vec<f64> { samples.iter().map(|row| row[i].parse().expect("a number")).collect() };
    let convert = |signal: Vec<f64>, t10: f64| -> Result<Series> {
        let series = Series::from_voxels(signal, [1, 1, 1, frames], times.clone())?;
        let kernel = Concentration::new(Seconds::from_milliseconds(3.48), FlipAngle::from_degrees(12.0), 4.5)
            .t10(Seconds::from_seconds(t10))
            .baseline_frames(0..10);
        Series::from_curves(&engine.run(&kernel, &series)?, "concentration")
    };
    let everywhere = Mask::from_labels(ndarray::Array3::ones((1, 1, 1)).view());
    let aorta = InputFunction::from_mask(&convert(column(0), 1.6)?, &everywhere, Average::Mean, Fluid::Blood)?;
    let input = aorta.function.in_plasma(Haematocrit::new(0.36)?)?;
    let fit = PharmacokineticFit::new(model, input)
        .delay(Delay::Free)
        .bounds(perfuse::kernels::fit::Parameter::Delay, 0.0, 10.0)
        .bounds(perfuse::kernels::fit::Parameter::PlasmaFlow, 0.0, 1000.0);
    let mut kidneys = Vec::new();
    for (i, name) in names.iter().enumerate().skip(1) {
        let maps = engine.run(&fit, &convert(column(i), 1.2)?)?;
        let values = maps
            .iter()
            .filter_map(|map| Some((map.quantity.id.to_string(), f64::from(maps.get(&map.quantity).ok()?[[0, 0, 0]]))))
            .collect();
        kidneys.push(((*name).to_string(), values));
    }
    Ok(kidneys)
}
