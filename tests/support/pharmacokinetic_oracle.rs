//! A second opinion on pharmacokinetic fits: the compartments' own differential equations, an independent optimiser, and
//! the Cramér-Rao bound. Nothing here is shared with the library, and the algorithms are others:
//!
//! - Forward models solve dQ/dt = A Q + b c_p(t), C = d Q + e c_p, from knot to knot of the piecewise-linear input function
//!   by the matrix functions φ0, φ1, φ2 of A Δt (Taylor series after halving, then doubling; all entries of exp(A t) of
//!   compartments are non-negative, so nothing cancels). There are no rates, no exponentials and no case distinctions for
//!   equal rates, and v_p = 0 or v_e = 0 are limits taken in the equations.
//! - The least sum of squares under box bounds is the best of many starts of `rmpfit` (MINPACK's Levenberg and Marquardt),
//!   with derivatives by differences.
//! - The Cramér-Rao bound rests on five-point differences and an orthogonal factorisation.
//!
//! Units: times s; C mM; Ktrans, kep, kel 1/min; F_p, PS mL/min/100 mL; volumes as fractions. The delay (s) is the last
//! parameter of every model; the tissue sees c_p(t - delay). c_p is 0 before its first knot and keeps its last value after
//! the last one.

use rmpfit::{MPConfig, MPFitter, MPPar, MPResult};

use super::oracle::Random;

/// The models, by the names on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Model {
    Tofts,
    ExtendedTofts,
    Patlak,
    TwoCompartmentUptake,
    TwoCompartmentExchange,
    OneCompartment,
    /// S / S_BL; needs no input function, its delay is the onset on the clock of the samples.
    Brix,
}

pub const MODELS: [Model; 7] = [
    Model::Tofts,
    Model::ExtendedTofts,
    Model::Patlak,
    Model::TwoCompartmentUptake,
    Model::TwoCompartmentExchange,
    Model::OneCompartment,
    Model::Brix,
];

impl Model {
    pub fn name(self) -> &'static str {
        match self {
            Model::Tofts => "tofts",
            Model::ExtendedTofts => "extended_tofts",
            Model::Patlak => "patlak",
            Model::TwoCompartmentUptake => "two_compartment_uptake",
            Model::TwoCompartmentExchange => "two_compartment_exchange",
            Model::OneCompartment => "one_compartment",
            Model::Brix => "brix",
        }
    }

    /// The parameters in their order, as the maps are named.
    pub fn parameter_names(self) -> &'static [&'static str] {
        match self {
            Model::Tofts => &["ktrans", "ve", "delay"],
            Model::ExtendedTofts => &["ktrans", "ve", "vp", "delay"],
            Model::Patlak => &["ps", "vp", "delay"],
            Model::TwoCompartmentUptake => &["fp", "ps", "vp", "delay"],
            Model::TwoCompartmentExchange => &["fp", "ps", "vp", "ve", "delay"],
            Model::OneCompartment => &["fp", "v", "delay"],
            Model::Brix => &["brix_a", "kep", "kel", "delay"],
        }
    }

    /// Physiological ranges to draw from, without the delay; rates and flows evenly in their logarithm.
    fn draw(self, random: &mut Random) -> Vec<f64> {
        let mut log = |low: f64, high: f64| (low.ln() + (high / low).ln() * random.unit()).exp();
        match self {
            Model::Tofts => vec![log(0.01, 1.0), log(0.05, 0.6)],
            Model::ExtendedTofts => vec![log(0.01, 1.0), log(0.05, 0.6), log(0.005, 0.2)],
            Model::Patlak => vec![log(0.2, 20.0), log(0.005, 0.2)],
            Model::TwoCompartmentUptake => vec![log(5.0, 150.0), log(0.3, 30.0), log(0.01, 0.2)],
            Model::TwoCompartmentExchange => vec![log(5.0, 150.0), log(0.5, 50.0), log(0.01, 0.2), log(0.05, 0.6)],
            Model::OneCompartment => vec![log(2.0, 150.0), log(0.02, 0.7)],
            Model::Brix => vec![log(0.2, 3.0), log(0.8, 12.0), log(0.01, 0.5)],
        }
    }
}

/// A concentration in plasma, linear between knots.
#[derive(Debug, Clone, PartialEq)]
pub struct Knots {
    pub times_s: Vec<f64>,
    pub values: Vec<f64>,
}

/// 2 x 2, by rows.
type Matrix = [[f64; 2]; 2];

fn product(a: Matrix, b: Matrix) -> Matrix {
    std::array::from_fn(|i| std::array::from_fn(|j| a[i][0] * b[0][j] + a[i][1] * b[1][j]))
}

fn combined(a: Matrix, x: f64, b: Matrix, y: f64) -> Matrix {
    std::array::from_fn(|i| std::array::from_fn(|j| x * a[i][j] + y * b[i][j]))
}

fn applied(a: Matrix, x: [f64; 2]) -> [f64; 2] {
    [a[0][0] * x[0] + a[0][1] * x[1], a[1][0] * x[0] + a[1][1] * x[1]]
}

/// φ0 = exp, φ1 = (exp - 1) / z, φ2 = (φ1 - 1) / z at a matrix z: Taylor after halving, then doubling.
fn phi_functions(z: Matrix) -> [Matrix; 3] {
    let norm = z.iter().flatten().fold(0.0f64, |norm, x| norm.max(x.abs()));
    let halvings = if norm > 0.25 { (norm * 4.0).log2().ceil() as i32 } else { 0 };
    let small = combined(z, 0.5f64.powi(halvings), z, 0.0);
    let one = [[1.0, 0.0], [0.0, 1.0]];
    // φ2 = sum z^k / (k + 2)!, by Horner's rule; then φ1 = 1 + z φ2 and φ0 = 1 + z φ1.
    let mut phi2 = one;
    for k in (1..=14).rev() {
        phi2 = combined(one, 1.0, product(small, phi2), 1.0 / f64::from(k + 2));
    }
    phi2 = combined(phi2, 0.5, one, 0.0);
    let mut phi1 = combined(one, 1.0, product(small, phi2), 1.0);
    let mut phi0 = combined(one, 1.0, product(small, phi1), 1.0);
    for _ in 0..halvings {
        phi2 = combined(product(phi1, phi1), 0.25, phi2, 0.5);
        phi1 = combined(product(phi0, phi1), 0.5, phi1, 0.5);
        phi0 = product(phi0, phi0);
    }
    [phi0, phi1, phi2]
}

/// dQ/dt = A Q + b c_p, C = d Q + e c_p, per second.
#[derive(Debug, Clone, Copy)]
struct Compartments {
    a: Matrix,
    b: [f64; 2],
    d: [f64; 2],
    e: f64,
    /// At the time of the delay, before which Q = 0.
    start: [f64; 2],
}

/// mL/min/100 mL in 1/s.
pub const FLOW: f64 = 1.0 / 6000.0;

fn compartments(model: Model, p: &[f64]) -> Compartments {
    let one = |inflow: f64, outflow: f64, e: f64| Compartments {
        a: [[-outflow, 0.0], [0.0, 0.0]],
        b: [inflow, 0.0],
        d: [1.0, 0.0],
        e,
        start: [0.0; 2],
    };
    // A compartment without volume has nothing in it: what flows in flows out.
    let filled = |inflow: f64, volume: f64, e: f64| {
        if volume > 0.0 { one(inflow, inflow / volume, e) } else { one(0.0, 0.0, e) }
    };
    match model {
        Model::Tofts => filled(p[0] / 60.0, p[1], 0.0),
        Model::ExtendedTofts => filled(p[0] / 60.0, p[1], p[2]),
        Model::Patlak => one(p[0] * FLOW, 0.0, p[1]),
        Model::OneCompartment => filled(p[0] * FLOW, p[1], 0.0),
        Model::TwoCompartmentUptake => {
            let (fp, ps, vp) = (p[0] * FLOW, p[1] * FLOW, p[2]);
            if vp <= 0.0 {
                let uptake = if fp + ps > 0.0 { fp * ps / (fp + ps) } else { 0.0 };
                return one(uptake, 0.0, 0.0);
            }
            let mut both = one(fp, (fp + ps) / vp, 0.0);
            both.a[1][0] = ps / vp;
            both.d[1] = 1.0;
            both
        }
        Model::TwoCompartmentExchange => {
            let (fp, ps, vp, ve) = (p[0] * FLOW, p[1] * FLOW, p[2], p[3]);
            if vp <= 0.0 {
                let transfer = if fp + ps > 0.0 { fp * ps / (fp + ps) } else { 0.0 };
                return filled(transfer, ve, 0.0);
            }
            if ve <= 0.0 {
                return one(fp, fp / vp, 0.0);
            }
            Compartments {
                a: [[-(fp + ps) / vp, ps / ve], [ps / vp, -ps / ve]],
                b: [fp, 0.0],
                d: [1.0, 1.0],
                e: 0.0,
                start: [0.0; 2],
            }
        }
        // dX/dt = -k_el X, X = 1 at the onset; dY/dt = k_ep (X - Y): Y = k_ep (exp(-k_el t) - exp(-k_ep t)) / (k_ep - k_el).
        Model::Brix => {
            let (kep, kel) = (p[1] / 60.0, p[2] / 60.0);
            Compartments { a: [[-kel, 0.0], [kep, -kep]], b: [0.0; 2], d: [0.0, p[0]], e: 0.0, start: [1.0, 0.0] }
        }
    }
}

/// The model's curve at the sample times; parameters in their order, the delay last.
///
/// A tiny volume that is exchanged a million times a second would cost the slow rate its digits. Curves depend smoothly on
/// it, so from there down to 0 they are taken as linear in it.
pub fn forward(model: Model, parameters: &[f64], aif: &Knots, times_s: &[f64], curve: &mut [f64]) {
    let tiny = match model {
        Model::TwoCompartmentExchange => vec![(3, parameters[1]), (2, parameters[0] + parameters[1])],
        Model::TwoCompartmentUptake => vec![(2, parameters[0] + parameters[1])],
        _ => Vec::new(),
    };
    for (index, flow) in tiny {
        let (volume, smallest) = (parameters[index], flow * FLOW * 1e-6);
        if volume > 0.0 && volume < smallest * 0.999 {
            let mut moved = parameters.to_vec();
            moved[index] = smallest;
            let mut above = vec![0.0; curve.len()];
            forward(model, &moved, aif, times_s, &mut above);
            moved[index] = 0.0;
            forward(model, &moved, aif, times_s, curve);
            for (below, above) in curve.iter_mut().zip(above) {
                *below += volume / smallest * (above - *below);
            }
            return;
        }
    }
    solve(model, parameters, aif, times_s, curve);
}

fn solve(model: Model, parameters: &[f64], aif: &Knots, times_s: &[f64], curve: &mut [f64]) {
    let delay = parameters[parameters.len() - 1];
    let system = compartments(model, parameters);
    if model == Model::Brix {
        let mut stepper = Stepper::new(system);
        let (mut state, mut now) = (system.start, 0.0);
        for (value, time) in curve.iter_mut().zip(times_s) {
            let since = time - delay;
            if since > now {
                state = stepper.step(state, since - now, 0.0, 0.0);
                now = since;
            }
            *value = 1.0 + if since > 0.0 { system.d[1] * state[1] } else { 0.0 };
        }
        return;
    }
    let mut stepper = Stepper::new(system);
    let (knots, values) = (&aif.times_s, &aif.values);
    let (mut state, mut now, mut c_now, mut next) = (system.start, knots[0], values[0], 1);
    for (value, time) in curve.iter_mut().zip(times_s) {
        let target = time - delay;
        if target < knots[0] {
            *value = 0.0;
            continue;
        }
        while next < knots.len() && knots[next] <= target {
            state = stepper.step(state, knots[next] - now, c_now, values[next]);
            (now, c_now) = (knots[next], values[next]);
            next += 1;
        }
        if target > now {
            let c_target = if next < knots.len() {
                c_now + (values[next] - c_now) * (target - now) / (knots[next] - now)
            } else {
                c_now
            };
            state = stepper.step(state, target - now, c_now, c_target);
            (now, c_now) = (target, c_target);
        }
        *value = system.d[0] * state[0] + system.d[1] * state[1] + system.e * c_now;
    }
}

/// Steps of the compartments; the last few lengths' matrices are kept.
struct Stepper {
    system: Compartments,
    known: Vec<(f64, [Matrix; 3])>,
    oldest: usize,
}

impl Stepper {
    fn new(system: Compartments) -> Self {
        Self { system, known: Vec::with_capacity(4), oldest: 0 }
    }

    fn step(&mut self, state: [f64; 2], dt: f64, c_before: f64, c_after: f64) -> [f64; 2] {
        let phi = match self.known.iter().find(|(length, _)| *length == dt) {
            Some((_, phi)) => *phi,
            None => {
                let phi = phi_functions(combined(self.system.a, dt, self.system.a, 0.0));
                if self.known.len() < 4 {
                    self.known.push((dt, phi));
                } else {
                    self.known[self.oldest] = (dt, phi);
                    self.oldest = (self.oldest + 1) % 4;
                }
                phi
            }
        };
        let homogeneous = applied(phi[0], state);
        let constant = applied(phi[1], self.system.b);
        let ramp = applied(phi[2], self.system.b);
        std::array::from_fn(|i| homogeneous[i] + dt * (constant[i] * c_before + ramp[i] * (c_after - c_before)))
    }
}

/// A curve with known truth, and all it was made from.
#[derive(Debug, Clone)]
pub struct Case {
    pub model: Model,
    /// In the order of [`Model::parameter_names`].
    pub parameters: Vec<f64>,
    pub times_s: Vec<f64>,
    pub aif: Knots,
    /// Without noise.
    pub curve: Vec<f64>,
}

/// How the curves of a group are sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampling {
    Even,
    /// Frames of very different lengths.
    Uneven,
    /// Even frames; the input function on a grid of its own, about four times finer.
    FinerInput,
}

pub const SAMPLINGS: [Sampling; 3] = [Sampling::Even, Sampling::Uneven, Sampling::FinerInput];

/// What the cases of one series have in common.
#[derive(Debug, Clone)]
pub struct Design {
    pub times_s: Vec<f64>,
    pub aif: Knots,
}

impl Design {
    /// Sample times and an input function: 50 to 80 frames over 4 to 8 minutes.
    pub fn random(random: &mut Random, sampling: Sampling) -> Self {
        let frames = 50 + random.below(31);
        let length = random.between(240.0, 480.0);
        let spacing = (length / frames as f64 * 4.0).round() / 4.0;
        let mut times_s = Vec::with_capacity(frames);
        let mut now = 0.0;
        for i in 0..frames {
            times_s.push(now);
            now += match sampling {
                Sampling::Uneven if i < frames / 3 => spacing * random.between(0.2, 0.6),
                Sampling::Uneven => spacing * random.between(0.7, 2.2),
                _ => spacing,
            };
        }
        let last = times_s[frames - 1];
        let knots = match sampling {
            Sampling::FinerInput => {
                let step = spacing / random.between(3.0, 5.0);
                (0..).map(|i| f64::from(i) * step - 3.0).take_while(|t| *t < last + 12.0 + step).collect()
            }
            _ => times_s.clone(),
        };
        let shape = InputShape::random(random, spacing);
        let values = knots.iter().map(|t| shape.at(*t)).collect();
        Self { times_s, aif: Knots { times_s: knots, values } }
    }

    /// A physiological draw; the delay is 0 unless a range is given.
    pub fn case(&self, model: Model, delay: Option<(f64, f64)>, random: &mut Random) -> Case {
        let mut parameters = model.draw(random);
        let delay = delay.map_or(0.0, |(low, high)| random.between(low, high));
        parameters.push(if model == Model::Brix { 20.0 + delay } else { delay });
        self.case_of(model, parameters)
    }

    /// The case with these parameters.
    pub fn case_of(&self, model: Model, parameters: Vec<f64>) -> Case {
        let mut curve = vec![0.0; self.times_s.len()];
        forward(model, &parameters, &self.aif, &self.times_s, &mut curve);
        Case { model, parameters, times_s: self.times_s.clone(), aif: self.aif.clone(), curve }
    }
}

/// Concentration in plasma: nothing until the arrival, a first pass, a second one and a slow decay. The first pass may be
/// shorter than a frame.
#[derive(Debug, Clone, Copy)]
struct InputShape {
    arrival: f64,
    width: f64,
    peak: f64,
    recirculation: f64,
    tail: f64,
    decay: f64,
}

impl InputShape {
    fn random(random: &mut Random, spacing: f64) -> Self {
        Self {
            arrival: spacing * random.between(2.0, 6.0),
            width: random.between(2.5, 12.0),
            peak: random.between(3.0, 12.0),
            recirculation: random.between(0.0, 1.5),
            tail: random.between(0.6, 1.8),
            decay: random.between(0.02, 0.25) / 60.0,
        }
    }

    fn at(&self, time: f64) -> f64 {
        let t = time - self.arrival;
        if t <= 0.0 {
            return 0.0;
        }
        // A gamma variate of third order with its maximum at the width.
        let gamma = |t: f64, width: f64| if t > 0.0 { ((t / width) * (1.0 - t / width).exp()).powi(3) } else { 0.0 };
        let second = self.recirculation * gamma(t - 1.5 * self.width, 1.4 * self.width);
        let rise = 1.0 - (-t / (1.5 * self.width)).exp();
        self.peak * gamma(t, self.width) + second + self.tail * rise * (-self.decay * t).exp()
    }
}

/// Sum of squared differences between a curve and the model.
pub fn sum_of_squares(model: Model, parameters: &[f64], aif: &Knots, times_s: &[f64], samples: &[f64]) -> f64 {
    let mut curve = vec![0.0; samples.len()];
    forward(model, parameters, aif, times_s, &mut curve);
    curve.iter().zip(samples).map(|(c, y)| (y - c) * (y - c)).sum()
}

/// Standard deviations that no unbiased estimate of the free parameters can have less than, at a noise of this SD per
/// sample; NaN for fixed ones, infinite if the curve doesn't depend on a free one.
pub fn cramer_rao_bound(case: &Case, free: &[bool], noise: f64) -> Vec<f64> {
    let n = case.curve.len();
    let which: Vec<usize> = (0..free.len()).filter(|i| free[*i]).collect();
    let mut columns: Vec<Vec<f64>> = which.iter().map(|i| derivative(case, *i)).collect();
    let scales: Vec<f64> = columns.iter().map(|c| c.iter().map(|x| x * x).sum::<f64>().sqrt()).collect();
    let mut bounds = vec![f64::NAN; free.len()];
    // Orthogonal factorisation of the scaled columns, each against the others twice: the part of a column that the other
    // columns can't explain is what is known about its parameter.
    for (column, scale) in columns.iter_mut().zip(&scales) {
        let inverse = if *scale > 0.0 { 1.0 / scale } else { 0.0 };
        column.iter_mut().for_each(|x| *x *= inverse);
    }
    for (k, i) in which.iter().enumerate() {
        let mut basis: Vec<Vec<f64>> = Vec::new();
        let others = (0..which.len()).filter(|j| *j != k).chain([k]);
        let mut rest = 0.0;
        for j in others {
            let mut column = columns[j].clone();
            for _ in 0..2 {
                for direction in &basis {
                    let along: f64 = (0..n).map(|t| column[t] * direction[t]).sum();
                    (0..n).for_each(|t| column[t] -= along * direction[t]);
                }
            }
            rest = column.iter().map(|x| x * x).sum::<f64>().sqrt();
            if rest > 1e-12 {
                column.iter_mut().for_each(|x| *x /= rest);
                basis.push(column);
            }
        }
        bounds[*i] = if scales[k] > 0.0 && rest > 1e-11 { noise / (rest * scales[k]) } else { f64::INFINITY };
    }
    bounds
}

/// Derivative of the curve with respect to a parameter, by five points.
fn derivative(case: &Case, index: usize) -> Vec<f64> {
    let name = case.model.parameter_names()[index];
    let typical = match name {
        "delay" => 0.3,
        "fp" | "ps" => 0.1,
        _ => 1e-3,
    };
    let step = if name == "delay" { 1e-4 } else { 1e-3 * case.parameters[index].abs().max(typical) };
    let at = |factor: f64| {
        let mut parameters = case.parameters.clone();
        parameters[index] += factor * step;
        let mut curve = vec![0.0; case.curve.len()];
        forward(case.model, &parameters, &case.aif, &case.times_s, &mut curve);
        curve
    };
    let [a, b, c, d] = [-2.0, -1.0, 1.0, 2.0].map(at);
    (0..a.len()).map(|t| (a[t] - 8.0 * b[t] + 8.0 * c[t] - d[t]) / (12.0 * step)).collect()
}

/// The best fit that the independent optimiser found.
#[derive(Debug, Clone)]
pub struct Optimum {
    pub sum_of_squares: f64,
    pub parameters: Vec<f64>,
}

struct Problem<'a> {
    model: Model,
    aif: &'a Knots,
    times_s: &'a [f64],
    samples: &'a [f64],
    parameters: Vec<MPPar>,
    config: MPConfig,
}

impl MPFitter for Problem<'_> {
    fn eval(&mut self, parameters: &[f64], deviates: &mut [f64]) -> MPResult<()> {
        forward(self.model, parameters, self.aif, self.times_s, deviates);
        for (deviate, sample) in deviates.iter_mut().zip(self.samples) {
            *deviate = sample - *deviate;
        }
        Ok(())
    }
    fn number_of_points(&self) -> usize {
        self.samples.len()
    }
    fn config(&self) -> &MPConfig {
        &self.config
    }
    fn parameters(&self) -> &[MPPar] {
        &self.parameters
    }
}

#[expect(clippy::too_many_arguments, reason = "a problem and how to search it")]
/// The least sum of squares under box bounds, as the best of so many starts in the box (of wide ranges evenly in the
/// logarithm) and of the starts given. A parameter whose bounds are equal is fixed.
pub fn best_fit(
    model: Model,
    aif: &Knots,
    times_s: &[f64],
    samples: &[f64],
    bounds: &[(f64, f64)],
    starts: usize,
    given: &[&[f64]],
    random: &mut Random,
) -> Optimum {
    let limits = |(low, high): &(f64, f64)| MPPar {
        fixed: low == high,
        limited_low: true,
        limited_up: true,
        limit_low: *low,
        limit_up: *high,
        rel_step: 1e-7,
        ..MPPar::new()
    };
    let config = MPConfig { ftol: 1e-14, xtol: 1e-14, gtol: 1e-14, max_iter: 400, ..MPConfig::new() };
    let mut problem = Problem { model, aif, times_s, samples, parameters: bounds.iter().map(limits).collect(), config };
    let mut best = Optimum { sum_of_squares: f64::INFINITY, parameters: Vec::new() };
    for start in 0..starts + given.len() {
        let mut parameters: Vec<f64> = match start.checked_sub(starts) {
            Some(i) => given[i].iter().zip(bounds).map(|(p, (low, high))| p.clamp(*low, *high)).collect(),
            None => bounds.iter().map(|(low, high)| start_in(*low, *high, random)).collect(),
        };
        // A start from which it fails is a start lost.
        if problem.mpfit(&mut parameters).is_err() {
            continue;
        }
        let sum = sum_of_squares(model, &parameters, aif, times_s, samples);
        if sum < best.sum_of_squares {
            best = Optimum { sum_of_squares: sum, parameters };
        }
    }
    best
}

fn start_in(low: f64, high: f64, random: &mut Random) -> f64 {
    if low == high {
        return low;
    }
    if low < 0.0 {
        return random.between(low, high);
    }
    let from = low.max(high * 1e-3);
    (from.ln() + (high / from).ln() * random.unit()).exp()
}
