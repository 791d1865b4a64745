//! What is decided once for all voxels, in f64 on the host: the axis, the dictionary of rates, the bounds.

use super::super::axis::{Knots, Steps};
use super::super::convolution::{WEIGHTS, convolve};
use super::super::delay::{DelayTables, delay_tables};
use super::super::outputs::{Plan, plan, slot};
use super::super::prepared::{Axis, no_own_delay};
use super::super::shared_columns::SharedColumns;
use super::super::{Method, Model, Parameter, PharmacokineticFit};
use super::delayed::RESTARTS;
use super::reference::SHAPING;
use crate::error::{Error, Result};
use crate::kernel::lanes::{Double, Table};

/// Neighbouring rates of the dictionary, as a ratio: between them the sum of squares is close to a parabola.
const RATIO: f64 = 1.45;
/// The same beyond the rates that shape a curve, where only the bounds still change anything.
const OUTER_RATIO: f64 = 5.0;
/// Rates below this share of 1 / duration shape no curve any more.
const SLOWEST_SHARE: f64 = 0.02;
/// Rates above this many per shortest interval shape no curve any more.
const FASTEST_SHARE: f64 = 30.0;
/// The rates that are searched: 1/s.
const LOWEST_RATE: f64 = 1e-7;
const HIGHEST_RATE: f64 = 1e5;

/// What a model has beside c_p (*) exp(-rate t).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Companion {
    /// Nothing.
    None,
    /// c_p.
    Input,
    /// The integral of c_p.
    Integral,
}

/// Bounds in the fit's units: on the coefficient of the companion, on that of the convolution, and on the latter divided
/// by the rate. For the uptake model: on PS, F_p and v_p.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bounds {
    pub(super) companion: (f64, f64),
    pub(super) flow: (f64, f64),
    pub(super) volume: (f64, f64),
}

/// Unit vectors of the convolutions at the dictionary's rates, orthogonal to the companion, for one delay.
#[derive(Debug, Clone, Default)]
pub(super) struct Dictionary {
    /// One vector per rate, frame by frame.
    pub(super) vectors: Table,
    /// Length of the convolution after the companion is projected out.
    pub(super) length: Table,
    /// Its coefficient on the companion: what was projected out.
    pub(super) overlap: Table,
    /// The companion at the frames, its sum of squares and the inverse of that.
    pub(super) companion: Table,
    pub(super) companion_squares: f64,
    pub(super) inverse_squares: f64,
    /// From the first knot to the last frame.
    pub(super) steps: Steps,
    /// For Patlak: the integral of c_p at the frames.
    pub(super) integral: Table,
}

/// The tables of the one-rate kernel. Times are in seconds after the first frame.
#[derive(Debug, Clone)]
pub(in super::super) struct Tables {
    pub(super) model: Model,
    pub(super) method: Method,
    pub(super) companion: Companion,
    pub(super) n: usize,
    /// Row of each frame in a curve: not all frames are left where samples are skipped.
    pub(super) row_of_frame: Vec<usize>,
    pub(super) slope: f64,
    pub(super) intercept: f64,
    pub(super) bounds: Bounds,
    /// In the fit's units, by the parameters' places.
    pub(super) parameter_bounds: [(f64, f64); Parameter::ALL.len()],
    pub(super) fixed_delay: f64,
    /// The rate at which both upper bounds meet.
    pub(super) corner: f64,
    pub(super) rates: Table,
    /// Logarithms of the ratios of neighbouring rates.
    pub(super) log_steps: Vec<f64>,
    /// The logarithm of the ratio inside the dictionary, and 1 for the rates that have two neighbours so far apart to both
    /// sides.
    pub(super) even_step: f64,
    pub(super) even_steps: Table,
    /// One per delay that is searched; the first is that of a delay that isn't.
    pub(super) dictionaries: Vec<Dictionary>,
    /// From knot to knot, where the delay is a voxel's own; dictionaries have those of other delays.
    pub(super) steps: Steps,
    /// The most lengths that any steps have.
    pub(super) most_lengths: usize,
    pub(super) frame_times: Table,
    pub(super) linear: LinearTables,
    pub(super) delay: DelayTables,
    /// The rates of restarts, and those between which a rate shapes a curve.
    pub(super) restarts: [f64; RESTARTS.len()],
    pub(super) shaping: (f64, f64),
    /// Whether sums over the samples are needed: not by the linear method's parameters alone.
    pub(super) needs_sums: bool,
    pub(super) plan: Plan,
}

/// What the linear method needs.
#[derive(Debug, Clone, Default)]
pub(super) struct LinearTables {
    /// Half of each interval between frames: s.
    pub(super) half_steps: Table,
    /// The integral of c_p, and c_p itself or the integral's integral.
    pub(super) shared: SharedColumns,
}

/// The tables for a curve of which these frames are left.
pub(super) fn build(settings: &PharmacokineticFit, axis: &Axis<'_>) -> Result<Tables> {
    let model = settings.model;
    if settings.method == Method::Linear {
        no_own_delay(settings, axis.own)?;
    }
    let (t, knots, fixed) = (&axis.t[..], axis.knots(), axis.fixed_delay);
    let companion = match model {
        Model::Tofts | Model::OneCompartment => Companion::None,
        Model::ExtendedTofts | Model::Patlak => Companion::Input,
        Model::TwoCompartmentUptake | Model::TwoCompartmentExchange => Companion::Integral,
    };
    let bounds = bounds(settings)?;
    let rates = rates(model, t, &bounds);
    let log_steps: Vec<f64> = rates.windows(2).map(|w| (w[1] / w[0]).ln()).collect();
    let delay = delay_tables(settings, t, knots, axis.own);
    let dictionaries = axis.dictionaries(&delay, |delay| dictionary(t, knots, delay, companion, &rates, model));
    let shifted: Vec<f64> = t.iter().map(|t| t - fixed).collect();
    let plan = plan(settings, axis.frames)?;
    let linear = linear_tables(settings, t, &shifted, knots);
    let steps = if axis.own { axis.steps() } else { Steps::default() };
    Ok(Tables {
        linear,
        parameter_bounds: Parameter::ALL.map(|parameter| settings.internal_bounds(parameter)),
        fixed_delay: fixed,
        model,
        method: settings.method,
        companion,
        n: t.len(),
        row_of_frame: axis.row_of_frame.to_vec(),
        slope: axis.slope,
        intercept: axis.intercept,
        corner: if model == Model::Patlak { -1.0 } else { bounds.flow.1 / bounds.volume.1 },
        bounds,
        even_step: RATIO.ln(),
        even_steps: even_steps(&log_steps),
        log_steps,
        rates: rates.into_iter().collect(),
        most_lengths: dictionaries.iter().map(|d| &d.steps).chain([&steps]).map(|s| s.lengths.len()).max().unwrap_or(0),
        dictionaries,
        steps,
        frame_times: t.iter().copied().collect(),
        restarts: RESTARTS.map(|rate| rate / duration(t)),
        shaping: (SHAPING.0 / duration(t), SHAPING.1 / shortest(t)),
        delay,
        needs_sums: settings.method == Method::Nonlinear || plan.asks(slot::STANDARD_ERROR..slot::COUNT),
        plan,
    })
}

/// Which bound is on what.
fn bounds(settings: &PharmacokineticFit) -> Result<Bounds> {
    let of = |parameter| settings.internal_bounds(parameter);
    let bounds = match settings.model {
        Model::Tofts => {
            Bounds { companion: (0.0, 0.0), flow: of(Parameter::Ktrans), volume: of(Parameter::ExtravascularVolume) }
        }
        Model::ExtendedTofts => Bounds {
            companion: of(Parameter::PlasmaVolume),
            flow: of(Parameter::Ktrans),
            volume: of(Parameter::ExtravascularVolume),
        },
        Model::OneCompartment => {
            Bounds { companion: (0.0, 0.0), flow: of(Parameter::PlasmaFlow), volume: of(Parameter::Volume) }
        }
        // Patlak has no rate: no volume beside the plasma's.
        Model::Patlak => {
            Bounds { companion: of(Parameter::PlasmaVolume), flow: of(Parameter::ExchangeFlow), volume: (0.0, 1.0) }
        }
        Model::TwoCompartmentUptake | Model::TwoCompartmentExchange => Bounds {
            companion: of(Parameter::ExchangeFlow),
            flow: of(Parameter::PlasmaFlow),
            volume: of(Parameter::PlasmaVolume),
        },
    };
    if settings.model == Model::TwoCompartmentUptake {
        for parameter in settings.model.parameters() {
            let lower = settings.bounds[parameter.index()].0;
            if lower != 0.0 {
                let mend = "this model's lower bounds must be 0: raise none, judge its maps instead";
                return Err(Error::setting(format!("lower bound of {}", parameter.quantity().id), lower, mend));
            }
        }
    }
    Ok(bounds)
}

fn duration(t: &[f64]) -> f64 {
    t[t.len() - 1] - t[0]
}

/// The shortest interval between frames.
fn shortest(t: &[f64]) -> f64 {
    t.windows(2).map(|w| w[1] - w[0]).fold(f64::INFINITY, f64::min)
}

/// The rates of the dictionary: dense where they shape curves, wider apart outside; within what the bounds allow.
fn rates(model: Model, t: &[f64], bounds: &Bounds) -> Vec<f64> {
    if model == Model::Patlak {
        return vec![0.0];
    }
    let (slow, fast) = (SLOWEST_SHARE / duration(t), FASTEST_SHARE / shortest(t));
    let lowest = LOWEST_RATE.max(bounds.flow.0 / bounds.volume.1);
    let highest = if bounds.volume.0 > 0.0 { HIGHEST_RATE.min(bounds.flow.1 / bounds.volume.0) } else { HIGHEST_RATE };
    let corner = bounds.flow.1 / bounds.volume.1;
    let mut rates = vec![lowest];
    let mut rate: f64 = lowest;
    while rate < highest {
        let ratio = if rate >= 0.9 * slow && rate < fast { RATIO } else { OUTER_RATIO };
        let mut next = rate * ratio;
        if rate < slow && next > slow {
            next = slow;
        }
        // Where the bounds meet, the sum of squares has a kink: a rate of its own.
        if rate < corner * (1.0 - 1e-9) && next > corner * 0.8 {
            next = corner;
        }
        rate = next.min(highest);
        rates.push(rate);
    }
    rates
}

/// 1 for the rates with two neighbours to both sides that are as far apart as inside the dictionary.
fn even_steps(log_steps: &[f64]) -> Table {
    let even = |k: usize| {
        k >= 2 && k + 2 <= log_steps.len() && log_steps[k - 2..k + 2].iter().all(|s| (s - RATIO.ln()).abs() < 1e-9)
    };
    (0..=log_steps.len()).map(|k| if even(k) { 1.0 } else { 0.0 }).collect()
}

/// The companion at the frames, and the dictionary's unit vectors.
fn dictionary(
    t: &[f64],
    knots: Knots<'_>,
    delay: f64,
    companion: Companion,
    rates: &[f64],
    model: Model,
) -> Dictionary {
    let shifted: Vec<f64> = t.iter().map(|t| t - delay).collect();
    let integral = knots.integral(&shifted);
    let beside: Vec<f64> = match companion {
        Companion::None => vec![0.0; t.len()],
        Companion::Input => shifted.iter().map(|t| knots.at(*t)).collect(),
        Companion::Integral => integral.clone(),
    };
    let squares: f64 = beside.iter().map(|x| x * x).sum();
    let inverse_squares = if squares > 0.0 { 1.0 / squares } else { 0.0 };
    let (mut vectors, mut lengths, mut overlaps) = (Vec::new(), Vec::new(), Vec::new());
    let arrives = knots.times[0] + delay < t[t.len() - 1];
    let nothing = || Steps { before: t.len(), input: [0.0].into_iter().collect(), ..Steps::default() };
    let steps = if arrives { Steps::new(t, knots, delay) } else { nothing() };
    let mut memory = vec![0.0; WEIGHTS * steps.lengths.len()];
    let mut by_rate = vec![0.0; t.len()];
    for rate in rates {
        let mut values = vec![0.0; t.len()];
        if model == Model::Patlak {
            values.clone_from(&integral);
        } else if arrives {
            convolve(Double, &steps, *rate, &mut memory, &mut values, &mut by_rate);
        }
        // Twice, so that what is left is orthogonal to the last digit.
        let mut overlap = 0.0;
        for _ in 0..2 {
            let share = values.iter().zip(&beside).map(|(b, x)| b * x).sum::<f64>() * inverse_squares;
            values.iter_mut().zip(&beside).for_each(|(b, x)| *b -= share * x);
            overlap += share;
        }
        let length = values.iter().map(|b| b * b).sum::<f64>().sqrt();
        let inverse = if length > 0.0 { 1.0 / length } else { 0.0 };
        vectors.extend(values.iter().map(|b| b * inverse));
        lengths.push(length);
        overlaps.push(overlap);
    }
    Dictionary {
        vectors: vectors.into_iter().collect(),
        length: lengths.into_iter().collect(),
        overlap: overlaps.into_iter().collect(),
        companion: beside.into_iter().collect(),
        companion_squares: squares,
        inverse_squares,
        steps,
        integral: integral.into_iter().collect(),
    }
}

fn linear_tables(settings: &PharmacokineticFit, t: &[f64], shifted: &[f64], knots: Knots<'_>) -> LinearTables {
    if settings.method != Method::Linear {
        return LinearTables::default();
    }
    let first = knots.integral(shifted);
    let second: Vec<f64> = match settings.model {
        Model::Tofts | Model::OneCompartment => vec![0.0; t.len()],
        Model::ExtendedTofts | Model::Patlak => shifted.iter().map(|t| knots.at(*t)).collect(),
        Model::TwoCompartmentUptake | Model::TwoCompartmentExchange => knots.double_integral(shifted),
    };
    LinearTables {
        half_steps: t.windows(2).map(|w| 0.5 * (w[1] - w[0])).collect(),
        shared: SharedColumns::new(first, &second),
    }
}
