//! Whether an engine's fit of one voxel agrees with the definition's.
//!
//! A search has no bound by rounding: where the sum of squares is flat, parameters far apart fit alike. So a parameter
//! agrees within 1e-3 of the definition's or a twentieth of its standard error; and all do if the engine's parameters,
//! evaluated in f64, fit as well as the definition's: (1 + 1e-5) of its sum of squares and 1e-10 of the samples'.

use super::super::outputs::slot;
use super::super::{Method, Model, Parameter};
use super::reference::{Work, evaluate_point, read, scratch};
use super::tables::{Companion, Tables};
use crate::kernel::Curve;
use crate::kernel::lanes::Double;
use crate::status;

/// What a parameter may differ by, of its value and of its standard error.
const PARAMETER: (f64, f64) = (1e-3, 0.05);
/// What a standard error may differ by, of its value.
const STANDARD_ERROR: f64 = 0.05;
/// What the sum of squares may be larger by, of itself and of the samples' one.
const SUM: (f64, f64) = (1e-5, 1e-10);
/// What sums and curves may differ by through rounding, of the samples' sum of squares and of the largest sample.
const ROUNDING: (f64, f64) = (1e-9, 1e-4);
/// What decides these bits may lie within rounding of its threshold.
const BORDERLINE: u32 = status::AT_LOWER_BOUND
    | status::AT_UPPER_BOUND
    | status::NOT_CONVERGED
    | status::NOT_IDENTIFIABLE
    | status::NOT_ENHANCING
    | !0 << 15;

/// Row by row, the status last: whether the engine's value agrees.
pub(super) fn judge(t: &Tables, curve: &Curve<'_, Double>, engine: &[f64], definition: &[f64]) -> Vec<bool> {
    let mut memory = vec![0.0; scratch(t)];
    let mut work = Work::new(t, &mut memory);
    let samples = read(Double, t, curve, &mut work);
    let peak = work.c.iter().fold(0.0f64, |peak, c| peak.max(c.abs()));
    let finite = curve.finite;
    let best = sum_of(t, definition, &mut work);
    let found = sum_of(t, engine, &mut work);
    let as_good = match (found, best) {
        (Some(found), Some(best)) if t.method == Method::Nonlinear => {
            found <= (1.0 + SUM.0) * best + SUM.1 * samples.squares
        }
        // The linear method has no least sum of squares, but where its equations hardly tell, the curves must agree.
        (Some(found), Some(best)) if found.is_finite() => {
            (found - best).abs() <= PARAMETER.0 * best + ROUNDING.0 * samples.squares
        }
        // Nor does it have an answer where the rate comes out negative, or hardly differs from nothing.
        _ => t.method == Method::Linear && definition[definition.len() - 1] as u32 & status::NOT_IDENTIFIABLE != 0,
    };
    // Where nothing but rounding is left, so is its logarithm, and so are standard errors.
    let nothing = best.is_some_and(|best| best <= 100.0 * ROUNDING.0 * samples.squares);
    let mut agrees = vec![true; definition.len()];
    let near = |row: usize, allowed: f64| {
        let (e, d) = (engine[row], definition[row]);
        if e.is_nan() || d.is_nan() { e.is_nan() == d.is_nan() } else { (e - d).abs() <= allowed }
    };
    for parameter in Parameter::ALL {
        let error_row = t.plan.row(slot::STANDARD_ERROR + parameter.index());
        if let Some(row) = t.plan.row(slot::PARAMETER + parameter.index()) {
            let error = error_row.map_or(0.0, |row| definition[row]);
            let error = if error.is_nan() { 0.0 } else { error };
            let absolute = if parameter == Parameter::Delay { PARAMETER.0 } else { 0.0 };
            agrees[row] = near(row, PARAMETER.0 * definition[row].abs() + PARAMETER.1 * error + absolute) || as_good;
        }
        if let Some(row) = error_row {
            agrees[row] = near(row, STANDARD_ERROR * definition[row].abs()) || as_good || nothing;
        }
    }
    let spare = ROUNDING.0 * samples.squares;
    if let Some(row) = t.plan.row(slot::SSE) {
        agrees[row] = near(row, PARAMETER.0 * definition[row] + spare);
    }
    if let Some(row) = t.plan.row(slot::R_SQUARED) {
        let rest = 1.0 - definition[row];
        let about_mean = samples.squares_about_mean.max(f64::MIN_POSITIVE);
        agrees[row] = near(row, PARAMETER.0 * rest + spare / about_mean + 1e-6);
    }
    if let Some(row) = t.plan.row(slot::AIC) {
        agrees[row] = near(row, 2.0 * PARAMETER.0 * t.n as f64) || nothing;
    }
    for slot in [slot::FITTED_CURVE, slot::RESIDUAL] {
        if let Some(first) = t.plan.row(slot) {
            for row in t.row_of_frame.iter().map(|frame| first + frame) {
                agrees[row] = near(row, ROUNDING.1 * peak) || as_good;
            }
        }
    }
    let status_row = definition.len() - 1;
    let different = engine[status_row] as u32 ^ definition[status_row] as u32;
    let parameters_agree = Parameter::ALL
        .iter()
        .filter_map(|parameter| t.plan.row(slot::PARAMETER + parameter.index()))
        .all(|row| agrees[row]);
    agrees[status_row] = different == 0 || (finite && parameters_agree && different & !BORDERLINE == 0);
    agrees
}

/// The sum of squares of these rows' parameters in f64; `None` if they are not all there.
fn sum_of(t: &Tables, rows: &[f64], work: &mut Work<'_, f64>) -> Option<f64> {
    let of = |parameter: Parameter| {
        let row = t.plan.row(slot::PARAMETER + parameter.index())?;
        Some(rows[row] * parameter.internal_per_unit())
    };
    let highest = t.rates[t.rates.len() - 1];
    // What has no value has no part in the curve.
    let quotient = |flow: f64, volume: f64| if volume > 0.0 { (flow / volume).min(highest) } else { highest };
    let (a, b, rate) = match t.model {
        Model::Tofts | Model::ExtendedTofts => {
            let a = if t.companion == Companion::None { 0.0 } else { of(Parameter::PlasmaVolume)? };
            let b = of(Parameter::Ktrans)?;
            (a, b, quotient(b, of(Parameter::ExtravascularVolume)?))
        }
        Model::OneCompartment => {
            let b = of(Parameter::PlasmaFlow)?;
            (0.0, b, quotient(b, of(Parameter::Volume)?))
        }
        Model::Patlak => (of(Parameter::PlasmaVolume)?, of(Parameter::ExchangeFlow)?, 0.0),
        Model::TwoCompartmentUptake | Model::TwoCompartmentExchange => {
            let (flow, exchange) = (of(Parameter::PlasmaFlow)?, of(Parameter::ExchangeFlow)?);
            if exchange.is_nan() {
                (0.0, flow, highest)
            } else {
                let whole = flow + exchange;
                let share = if whole > 0.0 { exchange / whole } else { 0.0 };
                (share * flow, (1.0 - share) * flow, quotient(whole, of(Parameter::PlasmaVolume)?))
            }
        }
    };
    if !(a.is_finite() && b.is_finite() && rate >= 0.0) {
        return None;
    }
    if t.delay.own {
        let delay = of(Parameter::Delay)?;
        return Some(evaluate_point::<Double, true>(Double, t, rate, delay, 0.0, 0.0, Some((a, b)), work).sse);
    }
    let dictionary = &t.dictionaries[0];
    let mut alone = 0.0;
    for (x, c) in dictionary.companion.iter().zip(work.c.iter()) {
        alone += x * c;
    }
    alone *= dictionary.inverse_squares;
    for (i, x) in dictionary.companion.iter().enumerate() {
        work.rest[i] = work.c[i] - alone * x;
    }
    Some(evaluate_point::<Double, false>(Double, t, rate, 0.0, 0.0, alone, Some((a, b)), work).sse)
}
