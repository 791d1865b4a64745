//! A model's curve for given parameters: for simulations and figures.

use super::convolution::step_weights;
use super::{Model, Parameter};
use crate::error::{Error, Result};
use crate::input_function::{Fluid, InputFunction};
use crate::kernel::lanes::Double;
use crate::time::TimeAxis;

impl Model {
    /// The tissue's concentration in mM at every time, exactly for a piecewise-linear input function in plasma that reaches
    /// the tissue `delay_s` seconds later. Parameters are in their maps' units; the models' own pages list which are needed.
    ///
    /// ```
    /// use perfuse::input_function::{Arrival, Fluid, Haematocrit, Population};
    /// use perfuse::kernels::fit::{Model, Parameter};
    /// use perfuse::TimeAxis;
    /// let times = TimeAxis::uniform(2.0, 100)?;
    /// let blood = Population::Parker.input_function(&times, &Arrival::at(20.0)?)?;
    /// let plasma = blood.in_plasma(Haematocrit::new(0.42)?)?;
    /// let parameters = [(Parameter::Ktrans, 0.2), (Parameter::ExtravascularVolume, 0.3)];
    /// let curve = Model::Tofts.concentration(&parameters, &plasma, 0.0, &times)?;
    /// assert!(curve[5] == 0.0 && curve[60] > 0.2);
    /// # Ok::<(), perfuse::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Setting`] for a parameter that is missing, negative or not finite, a volume of 0 that would be divided by, or an
    /// input function in blood; [`Error::Time`] if the input function ends before the last time.
    pub fn concentration(
        self,
        parameters: &[(Parameter, f64)],
        input: &InputFunction,
        delay_s: f64,
        times: &TimeAxis,
    ) -> Result<Vec<f64>> {
        if input.fluid() != Fluid::Plasma {
            let mend = "models of exchange take plasma: convert with in_plasma(haematocrit)";
            return Err(Error::setting("input function", "a concentration in blood", mend));
        }
        let input = input.shifted(delay_s)?;
        input.check_covers(times)?;
        let of = |parameter: Parameter| -> Result<f64> {
            let id = parameter.quantity().id;
            match parameters.iter().find(|(known, _)| *known == parameter) {
                Some((_, value)) if value.is_finite() && *value >= 0.0 => Ok(value * parameter.internal_per_unit()),
                Some((_, value)) => Err(Error::setting(id, value, "give a finite number, 0 or more")),
                None => Err(Error::setting(id, "missing", format!("{self} needs it"))),
            }
        };
        let over = |flow: f64, volume: f64, name: &str| -> Result<f64> {
            if volume > 0.0 { Ok(flow / volume) } else { Err(Error::setting(name, volume, "give a volume above 0")) }
        };
        use Parameter::{ExchangeFlow, ExtravascularVolume, Ktrans, PlasmaFlow, PlasmaVolume, Volume};
        // Weight of the input itself, then weight and rate of each exponential.
        let (direct, exponentials) = match self {
            Model::Tofts | Model::ExtendedTofts => {
                let ktrans = of(Ktrans)?;
                let plasma = if self == Model::Tofts { 0.0 } else { of(PlasmaVolume)? };
                (plasma, vec![(ktrans, over(ktrans, of(ExtravascularVolume)?, "ve")?)])
            }
            Model::Patlak => (of(PlasmaVolume)?, vec![(of(ExchangeFlow)?, 0.0)]),
            Model::OneCompartment => {
                let flow = of(PlasmaFlow)?;
                (0.0, vec![(flow, over(flow, of(Volume)?, "v")?)])
            }
            Model::TwoCompartmentUptake => {
                let (flow, exchange) = (of(PlasmaFlow)?, of(ExchangeFlow)?);
                let extracted = if exchange > 0.0 { flow * exchange / (flow + exchange) } else { 0.0 };
                let rate = over(flow + exchange, of(PlasmaVolume)?, "vp")?;
                (0.0, vec![(flow - extracted, rate), (extracted, 0.0)])
            }
            Model::TwoCompartmentExchange => {
                let (flow, exchange) = (of(PlasmaFlow)?, of(ExchangeFlow)?);
                let (plasma, outside) = (of(PlasmaVolume)?, of(ExtravascularVolume)?);
                let sum = over(flow + exchange, plasma, "vp")?;
                let back = over(exchange, outside, "ve")?;
                // The rates are the eigenvalues of the two compartments' exchange.
                let product = flow / plasma * back;
                let root = ((sum + back).powi(2) - 4.0 * product).max(0.0).sqrt();
                let fast = (sum + back + root) / 2.0;
                let slow = if fast > 0.0 { product / fast } else { 0.0 };
                let share = if root > 0.0 { (fast - back - exchange / plasma) / root } else { 1.0 };
                (0.0, vec![(flow * share, fast), (flow * (1.0 - share), slow)])
            }
        };
        let mut curve: Vec<f64> = times.seconds().iter().map(|t| direct * at(&input, *t)).collect();
        for (weight, rate) in exponentials {
            for (sample, convolved) in curve.iter_mut().zip(convolved(&input, rate, times.seconds())) {
                *sample += weight * convolved;
            }
        }
        Ok(curve)
    }
}

/// The input at a time; that at its end for times within rounding of it.
fn at(input: &InputFunction, time: f64) -> f64 {
    let values = input.concentration_mm();
    input.at(time).unwrap_or(values[values.len() - 1])
}

/// The input's convolution with exp(-rate t) at these times.
fn convolved(input: &InputFunction, rate: f64, times: &[f64]) -> Vec<f64> {
    let mut sum = 0.0;
    let (mut time, mut value) = (input.times_s()[0], input.concentration_mm()[0]);
    let mut step = |to: f64, end: f64, sum: &mut f64| {
        let w = step_weights(Double, rate, to - time);
        *sum = w.decay * *sum + w.begin * value + w.end * end;
        (time, value) = (to, end);
    };
    let mut knots = input.times_s().iter().zip(input.concentration_mm()).skip(1).peekable();
    times
        .iter()
        .map(|to| {
            if *to <= input.times_s()[0] {
                return 0.0;
            }
            while let Some((knot, end)) = knots.next_if(|(knot, _)| **knot < *to) {
                step(*knot, *end, &mut sum);
            }
            step(*to, at(input, *to), &mut sum);
            sum
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A constant input of 1 mM from 10 s on: what exponentials make of it is known in closed form.
    #[test]
    fn a_step_gives_the_closed_forms() {
        let times = TimeAxis::from_seconds(vec![0.0, 7.0, 13.0, 21.0, 22.5, 60.0, 200.0]).unwrap();
        let input = InputFunction::new(vec![10.0, 30.0, 300.0], vec![1.0; 3], Fluid::Plasma).unwrap();
        let after = |delay: f64| times.seconds().iter().map(move |t| (t - 10.0 - delay).max(0.0));
        let check = |model: Model, parameters: &[(Parameter, f64)], expected: &dyn Fn(f64) -> f64| {
            for delay in [0.0, 2.5] {
                let found = model.concentration(parameters, &input, delay, &times).unwrap();
                for (found, u) in found.into_iter().zip(after(delay)) {
                    let expected = if u > 0.0 { expected(u) } else { 0.0 };
                    assert!((found - expected).abs() < 1e-12, "{model} after {u} s: {found}, {expected} expected");
                }
            }
        };
        use Parameter::*;
        let filled = |flow: f64, volume: f64| move |u: f64| volume * -(-u * flow / volume).exp_m1();
        let (ktrans, flow, ps) = (0.3 / 60.0, 60.0 / 6000.0, 12.0 / 6000.0);
        check(Model::Tofts, &[(Ktrans, 0.3), (ExtravascularVolume, 0.2)], &filled(ktrans, 0.2));
        let parameters = [(Ktrans, 0.3), (ExtravascularVolume, 0.2), (PlasmaVolume, 0.05)];
        check(Model::ExtendedTofts, &parameters, &|u| 0.05 + filled(ktrans, 0.2)(u));
        check(Model::Patlak, &[(PlasmaVolume, 0.05), (ExchangeFlow, 12.0)], &|u| 0.05 + ps * u);
        check(Model::OneCompartment, &[(PlasmaFlow, 60.0), (Volume, 0.15)], &filled(flow, 0.15));
        let parameters = [(PlasmaFlow, 60.0), (ExchangeFlow, 12.0), (PlasmaVolume, 0.05)];
        let (extraction, rate) = (ps / (flow + ps), (flow + ps) / 0.05);
        check(Model::TwoCompartmentUptake, &parameters, &|u| {
            flow * ((1.0 - extraction) * -(-rate * u).exp_m1() / rate + extraction * u)
        });
    }

    /// In the long run a step fills both compartments; without exchange there is one.
    #[test]
    fn two_compartments_meet_their_limits() {
        let times = TimeAxis::from_seconds(vec![0.0, 20.0, 40.0, 80.0, 5000.0]).unwrap();
        let input = InputFunction::new(vec![10.0, 6000.0], vec![1.0; 2], Fluid::Plasma).unwrap();
        use Parameter::*;
        let of = |ps: f64| [(PlasmaFlow, 40.0), (ExchangeFlow, ps), (PlasmaVolume, 0.08), (ExtravascularVolume, 0.2)];
        let both = Model::TwoCompartmentExchange.concentration(&of(10.0), &input, 0.0, &times).unwrap();
        assert!((both[4] - 0.28).abs() < 1e-9, "{}", both[4]);
        let one =
            Model::OneCompartment.concentration(&[(PlasmaFlow, 40.0), (Volume, 0.08)], &input, 0.0, &times).unwrap();
        let alone = Model::TwoCompartmentExchange.concentration(&of(0.0), &input, 0.0, &times).unwrap();
        assert!(one.iter().zip(&alone).all(|(a, b)| (a - b).abs() < 1e-12), "{one:?} {alone:?}");
    }

    #[test]
    fn what_is_missing_is_named() {
        let times = TimeAxis::uniform(2.0, 10).unwrap();
        let input = InputFunction::new(vec![0.0, 30.0], vec![1.0; 2], Fluid::Plasma).unwrap();
        let error = Model::Tofts.concentration(&[(Parameter::Ktrans, 0.1)], &input, 0.0, &times).unwrap_err();
        assert!(error.to_string().contains("ve"), "{error}");
        let none = [(Parameter::Ktrans, 0.1), (Parameter::ExtravascularVolume, 0.0)];
        assert!(Model::Tofts.concentration(&none, &input, 0.0, &times).is_err());
    }
}
