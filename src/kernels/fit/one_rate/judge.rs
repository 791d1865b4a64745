//! What an engine's fit of one voxel and the definition's are compared by.

use super::super::agreement::{Fits, Rows, agreement};
use super::super::outputs::slot;
use super::super::{Method, Model, Parameter};
use super::reference::{Work, evaluate_point, read, scratch};
use super::tables::{Companion, Tables};
use crate::kernel::Curve;
use crate::kernel::lanes::Double;

/// Row by row, the status last: whether the engine's value agrees.
pub(super) fn judge(t: &Tables, curve: &Curve<'_, Double>, engine: &[f64], definition: &[f64]) -> Vec<bool> {
    let mut memory = vec![0.0; scratch(t)];
    let mut work = Work::new(Double, t, &mut memory);
    let samples = read(Double, t, curve, &mut work);
    let peak = work.c.iter().fold(0.0f64, |peak, c| peak.max(c.abs()));
    let best = sum_of(t, definition, &mut work);
    let found = sum_of(t, engine, &mut work);
    let fits = Fits {
        rows: Rows::of(&t.plan, &t.row_of_frame),
        found,
        best,
        squares: samples.squares,
        squares_about_mean: samples.squares_about_mean,
        peak,
        samples: t.n,
        valid: curve.finite,
        linear: t.method == Method::Linear,
    };
    agreement(&fits, engine, definition)
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
        return Some(
            evaluate_point::<Double, true>(Double, t, &t.dictionaries[0], rate, delay, 0.0, 0.0, Some((a, b)), work)
                .sse,
        );
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
    Some(evaluate_point::<Double, false>(Double, t, dictionary, rate, 0.0, 0.0, alone, Some((a, b)), work).sse)
}
