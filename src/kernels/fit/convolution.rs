//! The convolution of a piecewise-linear input function with an exponential, exactly and in one pass (Flouri, Lesnic and
//! Mayrovitch 2016, appendix: the recursion), on any time axis, with its derivative by the rate.
//!
//! Over a step of length d on which the input goes linearly from c_0 to c_1, B = c (*) exp(-k t) becomes
//!
//! ```text
//! B_1 = exp(-x) B_0 + d (phi_1 - phi_2) c_0 + d phi_2 c_1,   x = k d
//! phi_1 = (1 - exp(-x)) / x,   phi_2 = (1 - phi_1) / x,   phi_3 = (1/2 - phi_2) / x
//! ```
//!
//! and, since d phi_1/dx = phi_2 - phi_1 and d phi_2/dx = 2 phi_3 - phi_2, its derivative follows in the same pass. At
//! small x these quotients lose everything: there phi_3 comes from its series, and the others from it upwards.

use super::axis::Steps;
use crate::kernel::lanes::{Lanes, Numbers as _};

/// Below this x the series serves.
const SERIES_BELOW: f64 = 1.0;
/// Terms of the series after the first: the next one is below 2^-53 at [`SERIES_BELOW`].
const SERIES_TERMS: usize = 15;
/// exp(-x) is 0 beyond this, to single precision and far below any other term.
const LARGEST_EXPONENT: f64 = 80.0;

/// Numbers per length of step in [`prepare`]'s memory.
pub(in super::super) const WEIGHTS: usize = 6;

/// What a step does to the convolution and to its derivative by the rate.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct StepWeights<F> {
    /// Of the convolution so far: exp(-x).
    pub(in super::super) decay: F,
    /// Of the input at the step's beginning.
    pub(in super::super) begin: F,
    /// Of the input at its end.
    pub(in super::super) end: F,
    /// The derivatives of these three by the rate.
    pub(in super::super) decay_by_rate: F,
    pub(in super::super) begin_by_rate: F,
    pub(in super::super) end_by_rate: F,
}

/// The weights of a step of this length at these rates; both 0 or more.
#[inline(always)]
pub(in super::super) fn step_weights<L: Lanes>(lanes: L, rate: L::F, length: L::F) -> StepWeights<L::F> {
    let one = lanes.splat(1.0);
    let half = lanes.splat(0.5);
    let x = rate * length;
    let small = x.lt(lanes.splat(SERIES_BELOW));
    // phi_3 = 1/6 (1 - x/4 (1 - x/5 (1 - ...))).
    let near = x.min(one);
    let mut sum = one;
    for term in (1..=SERIES_TERMS).rev() {
        sum = one - near * lanes.splat(1.0 / (term + 3) as f64) * sum;
    }
    let near_3 = sum * lanes.splat(1.0 / 6.0);
    let near_2 = half - near * near_3;
    let near_1 = one - near * near_2;
    let far = x.max(one);
    let inverse = one / far;
    let far_decay = (-far.min(lanes.splat(LARGEST_EXPONENT))).exp();
    let far_1 = (one - far_decay) * inverse;
    let far_2 = (one - far_1) * inverse;
    let far_3 = (half - far_2) * inverse;
    let decay = lanes.select(small, one - near * near_1, far_decay);
    let phi_1 = lanes.select(small, near_1, far_1);
    let phi_2 = lanes.select(small, near_2, far_2);
    let phi_3 = lanes.select(small, near_3, far_3);
    let two = lanes.splat(2.0);
    let square = length * length;
    StepWeights {
        decay,
        begin: length * (phi_1 - phi_2),
        end: length * phi_2,
        decay_by_rate: -(length * decay),
        begin_by_rate: -(square * (phi_1 - two * (phi_2 - phi_3))),
        end_by_rate: -(square * (phi_2 - two * phi_3)),
    }
}

/// The weights of every length of step, one after the other, into working memory: [`WEIGHTS`] numbers each.
#[inline(always)]
pub(in super::super) fn prepare<L: Lanes>(lanes: L, steps: &Steps, rate: L::F, memory: &mut [L::F]) {
    for (length, memory) in memory.chunks_exact_mut(WEIGHTS).take(steps.lengths.len()).enumerate() {
        let w = step_weights(lanes, rate, steps.lengths.at(lanes, length));
        memory.copy_from_slice(&[w.decay, w.begin, w.end, w.decay_by_rate, w.begin_by_rate, w.end_by_rate]);
    }
}

/// c (*) exp(-rate t) at the frames, and its derivative by the rate.
#[inline(always)]
pub(in super::super) fn convolve<L: Lanes>(
    lanes: L,
    steps: &Steps,
    rate: L::F,
    memory: &mut [L::F],
    values: &mut [L::F],
    by_rate: &mut [L::F],
) {
    prepare(lanes, steps, rate, memory);
    let mut value = lanes.splat(0.0);
    let mut derivative = lanes.splat(0.0);
    for frame in 0..steps.before {
        values[frame] = value;
        by_rate[frame] = derivative;
    }
    let mut begin = steps.input.at(lanes, 0);
    for (i, step) in steps.steps.iter().enumerate() {
        let w = &memory[step.length * WEIGHTS..][..WEIGHTS];
        let end = steps.input.at(lanes, i + 1);
        derivative = w[0].mul_add(derivative, w[3].mul_add(value, w[4].mul_add(begin, w[5] * end)));
        value = w[0].mul_add(value, w[1].mul_add(begin, w[2] * end));
        begin = end;
        if let Some(frame) = step.frame {
            values[frame] = value;
            by_rate[frame] = derivative;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::axis::Knots;
    use super::*;
    use crate::kernel::lanes::Double;

    /// The convolution and its derivative on double precision.
    fn at(frames: &[f64], knots: Knots<'_>, delay: f64, rate: f64) -> (Vec<f64>, Vec<f64>) {
        let steps = Steps::new(frames, knots, delay);
        let mut memory = vec![0.0; WEIGHTS * steps.lengths.len()];
        let (mut values, mut by_rate) = (vec![0.0; frames.len()], vec![0.0; frames.len()]);
        convolve(Double, &steps, rate, &mut memory, &mut values, &mut by_rate);
        (values, by_rate)
    }

    #[test]
    fn a_ramp_has_its_closed_form_at_every_rate() {
        // c = t from 0: B = t / k - (1 - exp(-k t)) / k^2.
        let frames = [0.0, 1.0, 2.5, 7.0, 30.0];
        let knots = Knots { times: &[0.0, 100.0], values: &[0.0, 100.0] };
        for rate in [1e-9f64, 1e-3, 0.03, 0.4, 1.0, 20.0, 1e4] {
            let (values, by_rate) = at(&frames, knots, 0.0, rate);
            for (i, t) in frames.iter().enumerate() {
                let x = rate * t;
                // The same through a long series where the closed form cancels.
                let exact = if x < 0.5 {
                    let (mut term, mut sum) = (t * t / 2.0, 0.0);
                    for k in 0..40 {
                        sum += term;
                        term *= -x / f64::from(k + 3);
                    }
                    sum
                } else {
                    t / rate + (-x).exp_m1() / (rate * rate)
                };
                assert!((values[i] - exact).abs() <= 1e-13 * exact, "rate {rate} t {t}: {} {exact}", values[i]);
                let h = 1e-4 * rate;
                let (above, below) = (at(&frames, knots, 0.0, rate + h).0[i], at(&frames, knots, 0.0, rate - h).0[i]);
                let slope = (above - below) / (2.0 * h);
                let allowed = 1e-6 * slope.abs() + 1e-15 * exact / h * 4.0;
                assert!((by_rate[i] - slope).abs() <= allowed, "rate {rate} t {t}: {} {slope}", by_rate[i]);
            }
        }
    }

    #[test]
    fn more_knots_on_the_same_lines_change_nothing() {
        let frames = [3.0, 4.0, 9.0, 15.0];
        let few = at(&frames, Knots { times: &[0.0, 6.0, 20.0], values: &[1.0, 7.0, 0.0] }, 1.3, 0.2);
        let times = [0.0, 0.7, 2.0, 6.0, 13.0, 20.0];
        let values = [1.0, 1.7, 3.0, 7.0, 3.5, 0.0];
        let many = at(&frames, Knots { times: &times, values: &values }, 1.3, 0.2);
        for i in 0..frames.len() {
            assert!((few.0[i] - many.0[i]).abs() < 1e-13 && (few.1[i] - many.1[i]).abs() < 1e-12);
        }
    }

    #[test]
    fn rate_zero_gives_the_integral() {
        let knots = Knots { times: &[0.0, 6.0, 20.0], values: &[1.0, 7.0, 0.0] };
        let frames = [0.0, 2.0, 6.0, 7.5, 20.0];
        let values = at(&frames, knots, 0.0, 0.0).0;
        for (value, integral) in values.iter().zip(knots.integral(&frames)) {
            assert!((value - integral).abs() < 1e-12);
        }
    }
}
