//! What is decided once for all voxels, in f64 on the host: the axis, the dictionary of rates, the cells that are searched.

use super::super::axis::{Knots, Steps};
use super::super::convolution::{WEIGHTS, convolve};
use super::super::delay::{DelayTables, delay_tables};
use super::super::outputs::{Plan, plan};
use super::super::prepared::Axis;
use super::super::{Method, Parameter, PharmacokineticFit};
use crate::error::{Error, Result};
use crate::kernel::lanes::{Double, Table};

/// Rates of the dictionary, evenly in their logarithm.
const RATES: usize = 20;
/// The slowest rate, per duration; a slower one shapes no curve.
const SLOWEST_SHARE: f64 = 0.05;
/// The fastest rate, per shortest interval, but this fast at least (1/s): a faster one shapes no curve.
const FASTEST_SHARE: f64 = 3.0;
const FASTEST_AT_LEAST: f64 = 1.0;
/// Shares of the two exponentials: powers of ten from the geometric middle between equal amplitudes and equal volumes.
const SHARES: [f64; 8] = [-2.0, -1.25, -0.75, -0.25, 0.25, 0.75, 1.25, 2.0];
/// A flow of 0 has no reciprocal: this one (1/s) is as good as 0.
const SMALLEST_FLOW: f64 = 1e-9;
/// Kinds of cells; the best of each is a start.
pub(super) const KINDS: usize = 6;

/// The parameters, in this order in all arrays.
pub(super) const PARAMETERS: [Parameter; 4] =
    [Parameter::PlasmaFlow, Parameter::ExchangeFlow, Parameter::PlasmaVolume, Parameter::ExtravascularVolume];

/// Two rates of the dictionary and a share of the faster one: a curve but for its scale, the plasma flow.
#[derive(Debug, Clone, Default)]
pub(super) struct Cells {
    pub(super) fast: Vec<usize>,
    pub(super) slow: Vec<usize>,
    pub(super) kind: Vec<usize>,
    pub(super) share: Table,
    /// The largest flow within the bounds of all parameters: 1/s.
    pub(super) most: Table,
    /// PS, v_p and v_e per plasma flow.
    pub(super) exchange: Table,
    pub(super) plasma: Table,
    pub(super) space: Table,
}

/// Convolutions at the dictionary's rates for one delay.
#[derive(Debug, Clone, Default)]
pub(super) struct Dictionary {
    /// One curve per rate, frame by frame.
    pub(super) curves: Table,
    /// Sum of squares of each cell's curve, and its reciprocal (0 where there is no curve).
    pub(super) squares: Table,
    pub(super) inverse_squares: Table,
}

/// The tables of the two-rate kernel. Times are in seconds after the first frame.
#[derive(Debug, Clone)]
pub(in super::super) struct Tables {
    pub(super) n: usize,
    /// Row of each frame in a curve: not all frames are left where samples are skipped.
    pub(super) row_of_frame: Vec<usize>,
    pub(super) slope: f64,
    pub(super) intercept: f64,
    /// Bounds of [`PARAMETERS`] in the fit's units.
    pub(super) bounds: [(f64, f64); 4],
    pub(super) fixed_delay: f64,
    pub(super) rates: usize,
    pub(super) cells: Cells,
    /// One per delay that is searched; the first is that of a delay that isn't.
    pub(super) dictionaries: Vec<Dictionary>,
    /// From the first knot to the last frame; from knot to knot where the delay is a voxel's own.
    pub(super) steps: Steps,
    pub(super) frame_times: Table,
    pub(super) delay: DelayTables,
    pub(super) plan: Plan,
}

/// The tables for a curve of which these frames are left.
pub(super) fn build(settings: &PharmacokineticFit, axis: &Axis<'_>) -> Result<Tables> {
    if settings.method == Method::Linear {
        let mend = "this model is fitted by the nonlinear method only";
        return Err(Error::setting("method", settings.method.as_str(), mend));
    }
    let (t, knots) = (&axis.t[..], axis.knots());
    let mut bounds = PARAMETERS.map(|parameter| settings.internal_bounds(parameter));
    bounds[0].0 = bounds[0].0.max(SMALLEST_FLOW);
    let rates = rates(t);
    let cells = cells(&rates, &bounds);
    let delay = delay_tables(settings, t, knots, axis.own);
    Ok(Tables {
        n: t.len(),
        row_of_frame: axis.row_of_frame.to_vec(),
        slope: axis.slope,
        intercept: axis.intercept,
        bounds,
        fixed_delay: axis.fixed_delay,
        rates: rates.len(),
        dictionaries: axis.dictionaries(&delay, |delay| dictionary(t, knots, delay, &rates, &cells)),
        cells,
        steps: axis.steps(),
        frame_times: t.iter().copied().collect(),
        delay,
        plan: plan(settings, axis.frames)?,
    })
}

/// From a rate that a curve of this length can't tell from 0 to one that its frames can't tell from infinity.
fn rates(t: &[f64]) -> Vec<f64> {
    let duration = t[t.len() - 1] - t[0];
    let shortest = t.windows(2).map(|w| w[1] - w[0]).fold(f64::INFINITY, f64::min);
    let slow = SLOWEST_SHARE / duration;
    let fast = (FASTEST_SHARE / shortest).max(FASTEST_AT_LEAST);
    (0..RATES).map(|k| slow * (fast / slow).powf(k as f64 / (RATES - 1) as f64)).collect()
}

fn cells(rates: &[f64], bounds: &[(f64, f64); 4]) -> Cells {
    let mut cells = Cells::default();
    let (mut share, mut most, mut exchange, mut plasma, mut space) = (vec![], vec![], vec![], vec![], vec![]);
    for slow in 0..rates.len() {
        for fast in slow + 1..rates.len() {
            for (place, power) in SHARES.iter().enumerate() {
                let (l1, l2) = (rates[fast], rates[slow]);
                let ratio = (l1 / l2).sqrt() * 10f64.powf(*power);
                let w = ratio / (1.0 + ratio);
                // Per unit of plasma flow, from H(0), H'(0) and the product of the rates.
                let vp = 1.0 / (w * l1 + (1.0 - w) * l2);
                let ve = (w / l1 + (1.0 - w) / l2 - vp).max(0.0);
                let ps = l1 * l2 * vp * ve;
                let highest = bounds[0].1.min(bounds[1].1 / ps).min(bounds[2].1 / vp).min(bounds[3].1 / ve);
                let resolved = 3 * fast < 2 * rates.len();
                cells.fast.push(fast);
                cells.slow.push(slow);
                cells.kind.push(match (place, resolved) {
                    (0 | 1, false) => 0,
                    (0 | 1, true) => 1,
                    (6 | 7, true) => 2,
                    (6 | 7, false) => 3,
                    (_, false) => 4,
                    (_, true) => 5,
                });
                share.push(w);
                most.push(highest);
                exchange.push(ps);
                plasma.push(vp);
                space.push(ve);
            }
        }
    }
    let table = |numbers: Vec<f64>| numbers.into_iter().collect::<Table>();
    Cells {
        share: table(share),
        most: table(most),
        exchange: table(exchange),
        plasma: table(plasma),
        space: table(space),
        ..cells
    }
}

fn dictionary(t: &[f64], knots: Knots<'_>, delay: f64, rates: &[f64], cells: &Cells) -> Dictionary {
    let arrives = knots.times[0] + delay < t[t.len() - 1];
    let mut curves: Vec<f64> = Vec::with_capacity(rates.len() * t.len());
    if arrives {
        let steps = Steps::new(t, knots, delay);
        let mut memory = vec![0.0; WEIGHTS * steps.lengths.len()];
        let (mut values, mut by_rate) = (vec![0.0; t.len()], vec![0.0; t.len()]);
        for rate in rates {
            convolve(Double, &steps, *rate, &mut memory, &mut values, &mut by_rate);
            curves.extend_from_slice(&values);
        }
    } else {
        curves.resize(rates.len() * t.len(), 0.0);
    }
    let n = t.len();
    let product = |a: usize, b: usize| -> f64 { (0..n).map(|i| curves[a * n + i] * curves[b * n + i]).sum() };
    let mut products = vec![0.0; rates.len() * rates.len()];
    for a in 0..rates.len() {
        for b in 0..=a {
            products[a * rates.len() + b] = product(a, b);
        }
    }
    let squares: Table = (0..cells.fast.len())
        .map(|c| {
            let (fast, slow, w) = (cells.fast[c], cells.slow[c], cells.share[c]);
            let rest = 1.0 - w;
            let at = |a: usize, b: usize| products[a * rates.len() + b];
            w * w * at(fast, fast) + 2.0 * w * rest * at(fast, slow) + rest * rest * at(slow, slow)
        })
        .collect();
    let inverse_squares = squares.iter().map(|s| if *s > 0.0 { 1.0 / s } else { 0.0 }).collect();
    Dictionary { curves: curves.into_iter().collect(), squares, inverse_squares }
}
