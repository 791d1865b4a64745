//! What is decided once for all voxels, in f64 on the host.

use std::borrow::Cow;
use std::ops::Range;

use super::super::prepared::PreparedFit;
use super::descents::HELD_TURNS;
use super::program::LOOP_TURNS;
use super::{BrixFit, BrixOnset, FitCurves};
use crate::error::{Error, Result};
use crate::kernel::lanes::Table;
use crate::kernel::{Input, Output, OutputKind};
use crate::kernels::descriptors::{Baseline, MapSelection, automatic_baseline};
use crate::kernels::fit::outputs::standard_error_of;
use crate::maps::SettingValue;
use crate::quantity::{Quantity, Unit};

/// Rates of the dictionary, evenly in their logarithm.
pub(super) const RATES: usize = 16;
/// The slowest rate, per duration.
const SLOWEST_SHARE: f64 = 0.03;
/// The fastest rate, per shortest interval.
const FASTEST_SHARE: f64 = 2.0;
/// Curves whose determinant is a smaller share of their squares' product are one.
const LEAST_DETERMINANT: f64 = 1e-9;
/// The square of the exponential of this is a number in 32 bits.
const LARGEST_EXPONENT: f64 = 40.0;

/// The place of every map among the slots; the shader has the same list.
pub(super) mod slot {
    /// A, k_ep, k_el, onset.
    pub(in super::super) const PARAMETER: usize = 0;
    pub(in super::super) const STANDARD_ERROR: usize = 4;
    pub(in super::super) const BASELINE: usize = 8;
    pub(in super::super) const SSE: usize = 9;
    pub(in super::super) const R_SQUARED: usize = 10;
    pub(in super::super) const AIC: usize = 11;
    pub(in super::super) const ITERATIONS: usize = 12;
    pub(in super::super) const FITTED_CURVE: usize = 13;
    pub(in super::super) const RESIDUAL: usize = 14;
    pub(in super::super) const COUNT: usize = 16;
}

/// Two rates of the dictionary: a curve but for its scale.
#[derive(Debug, Clone, Default)]
pub(super) struct Cells {
    pub(super) fast: Vec<usize>,
    pub(super) slow: Vec<usize>,
    /// The largest scale within the bounds.
    pub(super) most: Table,
    /// A per scale.
    pub(super) amplitude: Table,
    pub(super) kep: Table,
    pub(super) kel: Table,
}

/// The numbers of a cell in [`Dictionary::cells`].
pub(super) const CELL_NUMBERS: usize = 7;

/// Exponentials from the beginning of an interval between frames on. There a cell's curve is a E_slow - b E_fast; with the onset
/// between both ends of the interval, b / a is from 1 to exp((fast - slow) length).
#[derive(Debug, Clone, Default)]
pub(super) struct Dictionary {
    pub(super) curves: Table,
    /// Sum of squares of each rate's curve.
    pub(super) squares: Table,
    /// Of each cell: the product of both curves, the reciprocal of the determinant (0 where there is none), the largest ratio b / a;
    /// the sum of squares of E_slow - E_fast and its reciprocal (0 where there is no curve), the same at the largest ratio.
    pub(super) cells: Table,
}

/// The tables of the kernel. Times are in seconds after the first frame, rates in 1/s.
#[derive(Debug, Clone)]
pub(super) struct Tables {
    pub(super) n: usize,
    pub(super) row_of_frame: Vec<usize>,
    pub(super) slope: f64,
    pub(super) intercept: f64,
    /// Frames of the series that are its baseline, and which of those that are left.
    pub(super) baseline_frames: Range<usize>,
    pub(super) baseline: Range<usize>,
    /// Bounds of A, k_ep, k_el and onset.
    pub(super) bounds: [(f64, f64); 4],
    pub(super) onset: Option<f64>,
    pub(super) layer: bool,
    /// Where each interval begins that the onset is looked for in, and where it ends; the same where it is known.
    pub(super) starts: Table,
    pub(super) ends: Table,
    /// Turns of a descent that holds the onset.
    pub(super) held_turns: usize,
    pub(super) cells: Cells,
    pub(super) dictionaries: Vec<Dictionary>,
    pub(super) times: Table,
    pub(super) outputs: Vec<Output>,
    pub(super) rows: usize,
    pub(super) slots: [i32; slot::COUNT],
}

impl Tables {
    #[inline(always)]
    pub(super) fn row(&self, slot: usize) -> Option<usize> {
        usize::try_from(self.slots[slot]).ok()
    }
}

/// Decides everything that is shared by all voxels.
pub(super) fn prepare(settings: &BrixFit, input: &Input<'_>) -> Result<PreparedFit<Tables>> {
    let series = input.series;
    settings.check(series)?;
    let times = series.times()?.seconds();
    let since: Vec<f64> = times.iter().map(|t| t - times[0]).collect();
    let baseline = match &settings.baseline {
        Baseline::Frames(frames) => frames.clone(),
        Baseline::Automatic => match input.reductions.mean_curve() {
            Some(mean) => 0..automatic_baseline(&since, mean),
            None => 0..2,
        },
    };
    let scaling = series.scaling();
    let frames: Vec<usize> = (0..series.frames()).collect();
    let tables = build(settings, times, &frames, baseline.clone(), (scaling.slope, scaling.intercept))?;
    let [a, kep, kel] = settings.bounds();
    let record = vec![
        ("model".into(), SettingValue::Text("brix".into())),
        ("baseline".into(), SettingValue::Text(settings.baseline.to_text())),
        ("baseline_frames".into(), SettingValue::Text(format!("{}:{}", baseline.start, baseline.end))),
        ("onset".into(), SettingValue::Text(settings.onset_text())),
        ("upper_bound_brix_a".into(), SettingValue::Number(a)),
        ("upper_bound_kep_per_min".into(), SettingValue::Number(kep * 60.0)),
        ("upper_bound_kel_per_min".into(), SettingValue::Number(kel * 60.0)),
    ];
    let extra = match &settings.onset {
        BrixOnset::PerVoxel(map) => vec![map.flat().to_vec()],
        _ => Vec::new(),
    };
    Ok(PreparedFit { tables, record, extra, settings: settings.clone(), times: times.to_vec() })
}

/// The tables for a curve of which these frames are left.
pub(super) fn build(
    settings: &BrixFit,
    times: &[f64],
    frames: &[usize],
    baseline_frames: Range<usize>,
    (slope, intercept): (f64, f64),
) -> Result<Tables> {
    let t: Vec<f64> = frames.iter().map(|i| times[*i] - times[0]).collect();
    let n = t.len();
    let left: Vec<usize> = (0..n).filter(|i| baseline_frames.contains(&frames[*i])).collect();
    let baseline = left[0]..left[left.len() - 1] + 1;
    let [a, kep, kel] = settings.bounds();
    let bounds = [(0.0, a), (0.0, kep), (0.0, kel), (t[0], t[n - 3])];
    let onset = match settings.onset {
        BrixOnset::Fixed(seconds) => Some(seconds),
        _ => None,
    };
    // Where the onset passes a frame the sum of squares has a kink.
    let intervals: Vec<(f64, f64)> = match onset {
        Some(seconds) => vec![(seconds, seconds)],
        None => t[..n - 2].windows(2).map(|w| (w[0], w[1])).collect(),
    };
    let duration = t[n - 1];
    let shortest = t.windows(2).map(|w| w[1] - w[0]).fold(f64::INFINITY, f64::min);
    let (slowest, fastest) = (SLOWEST_SHARE / duration, FASTEST_SHARE / shortest);
    let rates: Vec<f64> =
        (0..RATES).map(|k| slowest * (fastest / slowest).powf(k as f64 / (RATES - 1) as f64)).collect();
    let mut cells = Cells::default();
    let (mut most, mut amplitude, mut keps, mut kels) = (vec![], vec![], vec![], vec![]);
    for slow in 0..RATES {
        for fast in slow + 1..RATES {
            cells.fast.push(fast);
            cells.slow.push(slow);
            let per_scale = (rates[fast] - rates[slow]) / rates[fast];
            most.push(a / per_scale);
            amplitude.push(per_scale);
            keps.push(rates[fast]);
            kels.push(rates[slow]);
        }
    }
    let table = |numbers: Vec<f64>| numbers.into_iter().collect::<Table>();
    let cells = Cells { most: table(most), amplitude: table(amplitude), kep: table(keps), kel: table(kels), ..cells };
    let dictionaries = intervals.iter().map(|interval| dictionary(&t, *interval, &rates, &cells)).collect();
    let plan = plan(settings, times.len())?;
    Ok(Tables {
        n,
        row_of_frame: frames.to_vec(),
        slope,
        intercept,
        baseline_frames,
        baseline,
        bounds,
        onset,
        layer: matches!(settings.onset, BrixOnset::PerVoxel(_)),
        starts: intervals.iter().map(|interval| interval.0).collect(),
        ends: intervals.iter().map(|interval| interval.1).collect(),
        held_turns: HELD_TURNS.min(LOOP_TURNS / n),
        cells,
        dictionaries,
        times: table(t),
        outputs: plan.0,
        rows: plan.1,
        slots: plan.2,
    })
}

fn dictionary(t: &[f64], (start, end): (f64, f64), rates: &[f64], cells: &Cells) -> Dictionary {
    let curve = |rate: &f64| -> Vec<f64> {
        t.iter().map(|t| if *t > start { (-rate * (t - start)).exp() } else { 0.0 }).collect()
    };
    let curves: Vec<Vec<f64>> = rates.iter().map(curve).collect();
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let reciprocal = |x: f64, least: f64| if x > least { 1.0 / x } else { 0.0 };
    let of_cell = |(slow, fast): (&usize, &usize)| -> [f64; CELL_NUMBERS] {
        let (a, b) = (&curves[*slow], &curves[*fast]);
        let (squares, cross) = (product(a, a) * product(b, b), product(a, b));
        let inverse = reciprocal(squares - cross * cross, LEAST_DETERMINANT * squares);
        let largest = ((rates[*fast] - rates[*slow]) * (end - start)).min(LARGEST_EXPONENT).exp();
        let at = |ratio: f64| a.iter().zip(b).map(|(a, b)| (a - ratio * b) * (a - ratio * b)).sum::<f64>();
        let (first, last) = (at(1.0), at(largest));
        [cross, inverse, largest, first, reciprocal(first, 0.0), last, reciprocal(last, 0.0)]
    };
    let squares = curves.iter().map(|curve| product(curve, curve)).collect();
    let cells = cells.slow.iter().zip(&cells.fast).flat_map(of_cell).collect();
    Dictionary { curves: curves.into_iter().flatten().collect(), squares, cells }
}

/// The parameters' maps, in their order.
fn quantities() -> [Quantity; 4] {
    let per_minute = || Unit::Other(Cow::Borrowed("1/min"));
    let brix = |id: &'static str, symbol: &'static str, unit: Unit, definition: &'static str| {
        Quantity::new(id, None, symbol, unit, definition)
    };
    [
        brix(
            "brix_a",
            "A",
            Unit::Dimensionless,
            "amplitude A of S / S_BL = 1 + A kep / (kep - kel) (exp(-kel u) - exp(-kep u)), u the time since the onset",
        ),
        brix("kep", "kep", per_minute(), "the larger rate of Brix's model, exchange from tissue to plasma, per minute"),
        brix("kel", "kel", per_minute(), "the smaller rate of Brix's model, elimination from plasma, per minute"),
        brix("onset", "t_on", Unit::Seconds, "when the signal begins to rise in Brix's model, after the first frame"),
    ]
}

type Plan = (Vec<Output>, usize, [i32; slot::COUNT]);

fn plan(settings: &BrixFit, frames: usize) -> Result<Plan> {
    let mut entries: Vec<(usize, Quantity, OutputKind)> = Vec::new();
    let parameters = quantities();
    for (j, quantity) in parameters.iter().enumerate() {
        entries.push((slot::PARAMETER + j, quantity.clone(), OutputKind::Float));
    }
    for (j, quantity) in parameters.iter().enumerate() {
        if j < 3 || !matches!(settings.onset, BrixOnset::Fixed(_)) {
            entries.push((slot::STANDARD_ERROR + j, standard_error_of(quantity), OutputKind::Float));
        }
    }
    let plain = |id: &'static str, symbol: &'static str, definition: &'static str| {
        Quantity::new(id, None, symbol, Unit::Dimensionless, definition)
    };
    entries.push((slot::BASELINE, Quantity::BASELINE, OutputKind::Float));
    let sse = plain("sse", "SSE", "sum of the squared residuals of S / S_BL over all frames");
    entries.push((slot::SSE, sse, OutputKind::Float));
    let r_squared = plain("r_squared", "R^2", "1 - SSE / sum (y - mean y)^2, y = S / S_BL; NaN for a constant curve");
    entries.push((slot::R_SQUARED, r_squared, OutputKind::Float));
    entries.push((slot::AIC, Quantity::AIC, OutputKind::Float));
    entries.push((slot::ITERATIONS, Quantity::ITERATIONS, OutputKind::Float));
    let scalars = entries.len();
    let fitted = plain("fitted_curve", "fit", "the fitted S / S_BL at every frame");
    entries.push((slot::FITTED_CURVE, fitted, OutputKind::Curve(frames)));
    let residual = plain("residual", "r", "S / S_BL minus the fitted curve at every frame");
    entries.push((slot::RESIDUAL, residual, OutputKind::Curve(frames)));

    let mut chosen: Vec<usize> = Vec::new();
    match &settings.maps {
        MapSelection::All => chosen.extend(0..scalars),
        MapSelection::Ids(ids) => {
            for id in ids.iter().filter(|id| *id != "status") {
                let place = entries.iter().position(|(_, quantity, _)| quantity.id == id.as_str());
                let known = || entries.iter().map(|(_, q, _)| q.id.to_string()).collect::<Vec<_>>().join(", ");
                let place = place.ok_or_else(|| Error::UnknownMap { id: id.clone(), known: known() })?;
                if !chosen.contains(&place) {
                    chosen.push(place);
                }
            }
        }
    }
    let curves: &[usize] = match settings.curves {
        FitCurves::None => &[],
        FitCurves::Fitted => &[scalars],
        FitCurves::Residual => &[scalars + 1],
        FitCurves::Both => &[scalars, scalars + 1],
    };
    for place in curves {
        if !chosen.contains(place) {
            chosen.push(*place);
        }
    }
    let mut slots = [-1; slot::COUNT];
    let (mut outputs, mut rows) = (Vec::new(), 0);
    for place in chosen {
        let (slot, quantity, kind) = entries[place].clone();
        slots[slot] = rows as i32;
        rows += kind.rows();
        outputs.push(Output { quantity, kind });
    }
    Ok((outputs, rows, slots))
}
