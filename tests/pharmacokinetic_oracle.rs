//! What the oracle of pharmacokinetic fits is held against itself: small steps through the textbook's equations, closed forms,
//! limits, and its own optimiser on curves of known truth.

mod support;

use support::oracle::Random;
use support::pharmacokinetic_oracle::*;

/// Runge and Kutta's fourth order with many small steps, on the textbook's equations.
fn by_small_steps(model: Model, p: &[f64], aif: &Knots, times_s: &[f64]) -> Vec<f64> {
    let delay = p[p.len() - 1];
    let cp = |t: f64| {
        let next = aif.times_s.partition_point(|k| *k <= t);
        match next {
            0 => 0.0,
            n if n == aif.times_s.len() => aif.values[n - 1],
            n => {
                let share = (t - aif.times_s[n - 1]) / (aif.times_s[n] - aif.times_s[n - 1]);
                aif.values[n - 1] + share * (aif.values[n] - aif.values[n - 1])
            }
        }
    };
    let rates = |t: f64, q: [f64; 2]| -> [f64; 2] {
        let c = cp(t);
        match model {
            Model::Tofts | Model::ExtendedTofts => [p[0] / 60.0 * (c - q[0] / p[1]), 0.0],
            Model::Patlak => [p[0] * FLOW * c, 0.0],
            Model::OneCompartment => [p[0] * FLOW * (c - q[0] / p[1]), 0.0],
            Model::TwoCompartmentUptake => {
                let plasma = q[0] / p[2];
                [FLOW * (p[0] * (c - plasma) - p[1] * plasma), FLOW * p[1] * plasma]
            }
            Model::TwoCompartmentExchange => {
                let (plasma, space) = (q[0] / p[2], q[1] / p[3]);
                [FLOW * (p[0] * (c - plasma) + p[1] * (space - plasma)), FLOW * p[1] * (plasma - space)]
            }
            Model::Brix => unreachable!("has a closed form"),
        }
    };
    let (mut q, mut now) = ([0.0; 2], aif.times_s[0]);
    let mut curve = Vec::new();
    for time in times_s {
        let target = time - delay;
        if target > now {
            let steps = ((target - now) / 0.01).ceil();
            let h = (target - now) / steps;
            for _ in 0..steps as usize {
                let add = |q: [f64; 2], k: [f64; 2], h: f64| [q[0] + h * k[0], q[1] + h * k[1]];
                let k1 = rates(now, q);
                let k2 = rates(now + h / 2.0, add(q, k1, h / 2.0));
                let k3 = rates(now + h / 2.0, add(q, k2, h / 2.0));
                let k4 = rates(now + h, add(q, k3, h));
                for i in 0..2 {
                    q[i] += h / 6.0 * (k1[i] + 2.0 * k2[i] + 2.0 * k3[i] + k4[i]);
                }
                now += h;
            }
            now = target;
        }
        let plasma = match model {
            Model::ExtendedTofts => p[2] * cp(target),
            Model::Patlak => p[1] * cp(target),
            _ => 0.0,
        };
        curve.push(q[0] + q[1] + plasma);
    }
    curve
}

#[test]
fn the_matrix_functions_agree_with_small_steps() {
    let mut random = Random::new(11);
    for sampling in SAMPLINGS {
        for model in MODELS.into_iter().filter(|model| *model != Model::Brix) {
            let case = Design::random(&mut random, sampling).case(model, Some((-2.0, 6.0)), &mut random);
            let steps = by_small_steps(model, &case.parameters, &case.aif, &case.times_s);
            let peak = case.curve.iter().fold(0.0f64, |peak, c| peak.max(c.abs()));
            for (a, b) in case.curve.iter().zip(&steps) {
                // A step over a knot of the input function costs the small steps their order.
                assert!((a - b).abs() < 1e-5 * peak, "{}: {a} {b}", model.name());
            }
        }
    }
}

#[test]
fn brix_agrees_with_its_closed_form_and_its_limit() {
    let mut random = Random::new(12);
    let design = Design::random(&mut random, Sampling::Uneven);
    let case = design.case(Model::Brix, None, &mut random);
    let [a, kep, kel, onset] = case.parameters[..] else { panic!("four parameters") };
    let equal = design.case_of(Model::Brix, vec![a, kep, kep, onset]);
    for (i, t) in case.times_s.iter().enumerate() {
        let t = ((t - onset) / 60.0).max(0.0);
        let closed = 1.0 + a * kep / (kep - kel) * ((-kel * t).exp() - (-kep * t).exp());
        assert!((case.curve[i] - closed).abs() < 1e-12);
        assert!((equal.curve[i] - (1.0 + a * kep * t * (-kep * t).exp())).abs() < 1e-12);
    }
}

#[test]
fn limits_join_without_a_step() {
    let mut random = Random::new(13);
    let design = Design::random(&mut random, Sampling::Even);
    for (at, near) in [
        ([60.0, 20.0, 0.0, 0.3, 0.0], [60.0, 20.0, 1e-9, 0.3, 0.0]),
        ([60.0, 20.0, 0.1, 0.0, 0.0], [60.0, 20.0, 0.1, 1e-9, 0.0]),
        ([60.0, 0.0, 0.1, 0.3, 0.0], [60.0, 1e-7, 0.1, 0.3, 0.0]),
    ] {
        let a = design.case_of(Model::TwoCompartmentExchange, at.to_vec());
        let b = design.case_of(Model::TwoCompartmentExchange, near.to_vec());
        for (a, b) in a.curve.iter().zip(&b.curve) {
            assert!((a - b).abs() < 1e-7, "{at:?}: {a} {b}");
        }
    }
}

#[test]
fn the_optimiser_finds_the_truth_and_the_bound_says_how_well() {
    let mut random = Random::new(14);
    for model in MODELS {
        let case = Design::random(&mut random, Sampling::Even).case(model, None, &mut random);
        let mut bounds: Vec<(f64, f64)> = case.parameters.iter().map(|p| (0.0, 10.0 * p)).collect();
        let last = bounds.len() - 1;
        bounds[last] = (case.parameters[last], case.parameters[last]);
        let optimum = best_fit(model, &case.aif, &case.times_s, &case.curve, &bounds, 20, &[], &mut random);
        let squares: f64 = case.curve.iter().map(|c| c * c).sum();
        assert!(optimum.sum_of_squares < 1e-16 * squares, "{}: {}", model.name(), optimum.sum_of_squares);
        let mut free = vec![true; last + 1];
        free[last] = false;
        let bound = cramer_rao_bound(&case, &free, 1e-6);
        assert!(bound[..last].iter().all(|b| b.is_finite() && *b > 0.0), "{}: {bound:?}", model.name());
        assert!(bound[last].is_nan());
    }
}
