//! What is decided once for all voxels, in f64 on the host: the axis, the dictionary of rates, the cells that are searched.

use super::super::axis::{Knots, Steps};
use super::super::convolution::{WEIGHTS, convolve};
use super::super::delay::{DelayTables, delay_tables};
use super::super::outputs::{Plan, plan, slot};
use super::super::prepared::{Axis, no_own_delay};
use super::super::{Method, Parameter, PharmacokineticFit};
use super::linear::LinearTables;
use crate::error::Result;
use crate::kernel::lanes::{Double, Table};

/// Rates of the dictionary, evenly in their logarithm, and one that no frame can tell from infinity (1/s).
const RATES: usize = 20;
const INSTANT: f64 = 100.0;
pub(super) const ALL_RATES: usize = RATES + 1;
/// The slowest rate, per duration; a slower one shapes no curve.
const SLOWEST_SHARE: f64 = 0.05;
/// The fastest rate, per shortest interval, but this fast at least (1/s): a faster one shapes no curve.
const FASTEST_SHARE: f64 = 3.0;
const FASTEST_AT_LEAST: f64 = 1.0;
/// The faster exponential's share of the flow stays within this factor to both sides of the geometric middle between equal
/// amplitudes and equal volumes: beyond, there is but one exponential.
const FARTHEST_RATIO: f64 = 100.0;
/// A curve's square beside another one's direction below this share of all is rounding.
const DEPENDENT: f64 = 1e-12;
/// A flow of 0 has no reciprocal: this one (1/s) is as good as 0.
const SMALLEST_FLOW: f64 = 1e-9;
/// The parameters, in this order in all arrays.
pub(super) const PARAMETERS: [Parameter; 4] =
    [Parameter::PlasmaFlow, Parameter::ExchangeFlow, Parameter::PlasmaVolume, Parameter::ExtravascularVolume];

/// Pairs of rates, the slower ones first, then the faster ones: a row for each slower one, which ends with the fastest.
#[derive(Debug, Clone, Default)]
pub(super) struct Pairs {
    pub(super) fast: Table,
    pub(super) slow: Table,
    /// The least and the largest share of the faster exponential in the flow.
    pub(super) low_share: Table,
    pub(super) high_share: Table,
}

impl Pairs {
    pub(super) fn count(&self) -> usize {
        self.fast.len()
    }
}

/// Convolutions at the dictionary's rates for one delay, and the products of each pair that a fit by both needs.
#[derive(Debug, Clone, Default)]
pub(super) struct Dictionary {
    /// The sums of squares of the curves, and the reciprocals of these.
    pub(super) squares: Table,
    pub(super) inverse_squares: Table,
    /// The faster curve's coefficient on the slower one.
    pub(super) overlap: Table,
    /// The reciprocal sum of squares of what the faster one has beside that.
    pub(super) inverse_beside: Table,
    /// The sum of squares at a share w of the faster one, beside the slower one's: w (linear + w square).
    pub(super) linear: Table,
    pub(super) square: Table,
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
    /// What the linear method needs, if it is asked for.
    pub(super) linear: Option<LinearTables>,
    /// The dictionary's rates, ascending, and the logarithm of the ratio of neighbours.
    pub(super) rates: Table,
    pub(super) log_step: f64,
    pub(super) pairs: Pairs,
    /// One per delay that is searched; the first is that of a delay that isn't.
    pub(super) dictionaries: Vec<Dictionary>,
    /// The curves of all dictionaries and their sums of squares, one after the other.
    pub(super) curves: Table,
    pub(super) curve_squares: Table,
    /// From the first knot to the last frame; from knot to knot where the delay is a voxel's own.
    pub(super) steps: Steps,
    pub(super) frame_times: Table,
    pub(super) delay: DelayTables,
    /// Whether the model's curves are needed: not by the linear method's parameters alone.
    pub(super) needs_curves: bool,
    pub(super) plan: Plan,
}

/// The tables for a curve of which these frames are left.
pub(super) fn build(settings: &PharmacokineticFit, axis: &Axis<'_>) -> Result<Tables> {
    let (t, knots) = (&axis.t[..], axis.knots());
    let linear = match settings.method {
        Method::Nonlinear => None,
        Method::Linear => {
            no_own_delay(settings, axis.own)?;
            let shifted: Vec<f64> = t.iter().map(|t| t - axis.fixed_delay).collect();
            Some(LinearTables::new(t, knots.integral(&shifted), &knots.double_integral(&shifted)))
        }
    };
    let mut bounds = PARAMETERS.map(|parameter| settings.internal_bounds(parameter));
    bounds[0].0 = bounds[0].0.max(SMALLEST_FLOW);
    let rates = rates(t);
    let delay = delay_tables(settings, t, knots, axis.own);
    let (dictionaries, curves): (Vec<_>, Vec<_>) =
        axis.dictionaries(&delay, |delay| dictionary(t, knots, delay, &rates)).into_iter().unzip();
    let plan = plan(settings, axis.frames)?;
    Ok(Tables {
        n: t.len(),
        row_of_frame: axis.row_of_frame.to_vec(),
        slope: axis.slope,
        intercept: axis.intercept,
        bounds,
        fixed_delay: axis.fixed_delay,
        linear,
        log_step: (rates[1] / rates[0]).ln(),
        curve_squares: dictionaries.iter().flat_map(|d| d.squares.iter().copied()).collect(),
        dictionaries,
        curves: curves.into_iter().flatten().collect(),
        pairs: pairs(&rates),
        rates: rates.into_iter().collect(),
        steps: axis.steps(),
        frame_times: t.iter().copied().collect(),
        delay,
        needs_curves: settings.method == Method::Nonlinear || plan.asks(slot::STANDARD_ERROR..slot::COUNT),
        plan,
    })
}

/// From a rate that a curve of this length can't tell from 0 on.
fn rates(t: &[f64]) -> Vec<f64> {
    let duration = t[t.len() - 1] - t[0];
    let shortest = t.windows(2).map(|w| w[1] - w[0]).fold(f64::INFINITY, f64::min);
    let slow = SLOWEST_SHARE / duration;
    let fast = (FASTEST_SHARE / shortest).max(FASTEST_AT_LEAST);
    let even = (0..RATES).map(|k| slow * (fast / slow).powf(k as f64 / (RATES - 1) as f64));
    even.chain([INSTANT.max(10.0 * fast)]).collect()
}

fn pairs(rates: &[f64]) -> Pairs {
    let mut both = Vec::new();
    for slow in 0..rates.len() {
        for fast in slow + 1..rates.len() {
            both.push((rates[fast], rates[slow]));
        }
    }
    let share = |(fast, slow): &(f64, f64), factor: f64| {
        let ratio = (fast / slow).sqrt() * factor;
        ratio / (1.0 + ratio)
    };
    Pairs {
        fast: both.iter().map(|pair| pair.0).collect(),
        slow: both.iter().map(|pair| pair.1).collect(),
        low_share: both.iter().map(|pair| share(pair, 1.0 / FARTHEST_RATIO)).collect(),
        high_share: both.iter().map(|pair| share(pair, FARTHEST_RATIO)).collect(),
    }
}

fn dictionary(t: &[f64], knots: Knots<'_>, delay: f64, rates: &[f64]) -> (Dictionary, Vec<f64>) {
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
    let reciprocal = |x: f64| if x > 0.0 { 1.0 / x } else { 0.0 };
    let squares: Vec<f64> = (0..rates.len()).map(|k| product(k, k)).collect();
    let mut pairs: [Vec<f64>; 4] = Default::default();
    for slow in 0..rates.len() {
        for fast in slow + 1..rates.len() {
            let mixed = product(fast, slow);
            let overlap = mixed * reciprocal(squares[slow]);
            let beside = squares[fast] - overlap * mixed;
            let inverse = if beside > DEPENDENT * squares[fast] { 1.0 / beside } else { 0.0 };
            let square = squares[fast] - 2.0 * mixed + squares[slow];
            let numbers = [overlap, inverse, 2.0 * (mixed - squares[slow]), square];
            for (list, number) in pairs.iter_mut().zip(numbers) {
                list.push(number);
            }
        }
    }
    let [overlap, inverse_beside, linear, square] = pairs.map(|list| list.into_iter().collect());
    let dictionary = Dictionary {
        inverse_squares: squares.iter().map(|x| reciprocal(*x)).collect(),
        squares: squares.into_iter().collect(),
        overlap,
        inverse_beside,
        linear,
        square,
    };
    (dictionary, curves)
}
