//! The variables that the exchange model's steps are taken in: those that its curve is close to linear in.
//!
//! In general 1 / F_p, Ktrans, v_p and v_e, with reciprocals where exchange is fast or a volume fills slowly. Where exchange is
//! fast and no bound is near, the curve tells the coefficients of
//!
//! ```text
//! H(s) = (V + p s) / (1 + q s + r s^2),   V = v_p + v_e,   p = v_p v_e / PS,   q = v_e / PS + V / F_p,   r = p / F_p
//! ```
//!
//! one after the other, and the compartments' parameters lie along bent lines of them: there the variables are 1 / F_p, p, V and
//! v_e / PS.

#![expect(clippy::needless_range_loop, reason = "formulas of matrices are read by their indices")]

use super::exchange::TwoRates;
use super::tables::Tables;
use crate::kernel::lanes::{Lanes, Masks, Numbers as _};

/// A volume that its inflow fills less than so often fills slowly, if it isn't next to nothing.
const FILLINGS: f64 = 2.0;
/// Below this a volume is next to nothing.
const SOMETHING: f64 = 1e-4;
/// A parameter above this share of its upper bound is near it.
const NEAR_UPPER: f64 = 0.99;

/// Which variables steps are taken in.
#[derive(Clone, Copy)]
pub(super) struct Terms<M> {
    /// 1 / PS instead of Ktrans: where exchange is fast.
    pub(super) fast: M,
    /// 1 / v_p and 1 / v_e instead of these: where they fill slowly.
    pub(super) slow: [M; 2],
    /// 1 / F_p, v_p v_e / PS, v_p + v_e and v_e / PS instead of all.
    pub(super) together: M,
}

impl<M: Masks> Terms<M> {
    #[inline(always)]
    pub(super) fn of<L: Lanes<M = M>>(lanes: L, t: &Tables, parameters: [L::F; 4]) -> Self {
        let [flow, exchange, plasma, space] = parameters;
        let duration = lanes.splat(t.frame_times[t.n - 1] / FILLINGS);
        let something = lanes.splat(SOMETHING);
        let fast = exchange.ge(flow);
        let slow = [(flow * duration).lt(plasma), (exchange * duration).lt(space)];
        let mut together = plasma.gt(something) & space.gt(something) & (fast | (space * flow).lt(plasma * exchange));
        for j in 0..4 {
            let (low, high) = t.bounds[j];
            let least = lanes.splat(if j < 2 { low } else { low + SOMETHING });
            together = together & parameters[j].gt(least) & parameters[j].lt(lanes.splat(NEAR_UPPER * high));
        }
        Self {
            fast: fast | exchange.ge(lanes.splat(t.bounds[1].1)),
            slow: [slow[0] & plasma.gt(something) & !together, slow[1] & space.gt(something) & !together],
            together,
        }
    }

    /// The variables at these parameters.
    #[inline(always)]
    pub(super) fn at<L: Lanes<M = M>>(&self, lanes: L, [flow, exchange, plasma, space]: [L::F; 4]) -> [L::F; 4] {
        let one = lanes.splat(1.0);
        let top = lanes.select(self.fast, one, exchange);
        let second = top / lanes.select(self.fast, exchange.max(lanes.splat(1e-30)), one + exchange / flow);
        let held = space / exchange.max(lanes.splat(1e-30));
        [
            one / flow,
            lanes.select(self.together, plasma * held, second),
            lanes.select(self.together, plasma + space, volume(lanes, plasma, self.slow[0])),
            lanes.select(self.together, held, volume(lanes, space, self.slow[1])),
        ]
    }

    /// The parameters at these variables.
    #[inline(always)]
    pub(super) fn parameters<L: Lanes<M = M>>(&self, lanes: L, [first, second, third, fourth]: [L::F; 4]) -> [L::F; 4] {
        let one = lanes.splat(1.0);
        let tiny = lanes.splat(1e-30);
        let flow = one / first;
        let top = lanes.select(self.fast, one, second);
        let rest = (one - second * first).max(lanes.splat(1e-6));
        let exchange = top / lanes.select(self.fast, second.max(tiny), rest);
        let inverse = one / fourth.max(tiny);
        let plasma = second * inverse;
        let space = third - plasma;
        [
            flow,
            lanes.select(self.together, space * inverse, exchange),
            lanes.select(self.together, plasma, volume(lanes, third, self.slow[0])),
            lanes.select(self.together, space, volume(lanes, fourth, self.slow[1])),
        ]
    }

    /// The gradients of the parameters by the variables.
    #[inline(always)]
    pub(super) fn gradients<L: Lanes<M = M>>(
        &self,
        lanes: L,
        [flow, exchange, plasma, space]: [L::F; 4],
    ) -> [[L::F; 4]; 4] {
        let zero = lanes.splat(0.0);
        let one = lanes.splat(1.0);
        let square = exchange * exchange;
        let ratio = one + exchange / flow;
        let mut gradients = [[zero; 4]; 4];
        gradients[0][0] = -(flow * flow);
        gradients[1][0] = lanes.select(self.fast, zero, square);
        gradients[1][1] = lanes.select(self.fast, -square, ratio * ratio);
        gradients[2][2] = lanes.select(self.slow[0], -(plasma * plasma), one);
        gradients[3][3] = lanes.select(self.slow[1], -(space * space), one);
        let rate = exchange / space.max(lanes.splat(1e-30));
        let others = [
            [zero, -(rate * rate), rate, (plasma - space) * rate * rate],
            [zero, rate, zero, -(plasma * rate)],
            [zero, -rate, one, plasma * rate],
        ];
        for i in 1..4 {
            for j in 0..4 {
                gradients[i][j] = lanes.select(self.together, others[i - 1][j], gradients[i][j]);
            }
        }
        gradients
    }

    /// The curve's derivatives by the variables over I_1, I_2 and their derivatives by the rates.
    #[inline(always)]
    pub(super) fn derivatives<L: Lanes<M = M>>(&self, lanes: L, p: [L::F; 4], two: &TwoRates<L::F>) -> [[L::F; 4]; 4] {
        let zero = lanes.splat(0.0);
        let one = lanes.splat(1.0);
        let [flow, exchange, plasma, space] = p;
        let flow_squared = flow * flow;
        let square = exchange * exchange;
        let exchange_squared = lanes.select(self.fast, zero, square);
        let ratio = one + exchange / flow;
        let by_second = lanes.select(self.fast, -square, ratio * ratio);
        let by_plasma = lanes.select(self.slow[0], -(plasma * plasma), one);
        let by_space = lanes.select(self.slow[1], -(space * space), one);
        let [by_fp, by_ps, mut by_vp, mut by_ve] = two.by_parameter;
        let (mut first, mut second) = (by_fp, by_ps);
        for k in 0..4 {
            first[k] = exchange_squared * by_ps[k] - flow_squared * by_fp[k];
            second[k] = by_second * by_ps[k];
            by_vp[k] = by_plasma * by_vp[k];
            by_ve[k] = by_space * by_ve[k];
        }
        let mut all = [first, second, by_vp, by_ve];
        if self.together.any() {
            let others = together(lanes, flow, two);
            for i in 0..3 {
                for k in 0..4 {
                    all[i + 1][k] = lanes.select(self.together, others[i][k], all[i + 1][k]);
                }
            }
        }
        all
    }
}

/// The derivatives by v_p v_e / PS, v_p + v_e and v_e / PS: of the transfer function by its coefficients, in partial fractions.
#[inline(always)]
fn together<L: Lanes>(lanes: L, flow: L::F, two: &TwoRates<L::F>) -> [[L::F; 4]; 3] {
    let one = lanes.splat(1.0);
    let [fast, slow] = two.rates;
    let (a, b) = (two.a, two.b);
    let apart = one / (fast - slow).max(lanes.splat(1e-20));
    let single = fast * slow * apart;
    let double = single * apart;
    let (fast_part, slow_part) = (single * fast * a, single * slow * b);
    let reciprocal = one / flow;
    let (by_fast, by_slow) = (fast_part * reciprocal, slow_part * reciprocal);
    let product = double * fast * slow * (a - b) * reciprocal;
    let volume = double * (b * slow - a * fast) * reciprocal;
    let time = double * (b * fast - a * slow);
    [
        [product, -product, -(by_fast * fast), by_slow * slow],
        [volume, -volume, by_fast, -by_slow],
        [time, -time, fast_part, -slow_part],
    ]
}

/// A volume from its variable, and the variable from the volume: either is the other's reciprocal where it fills slowly.
#[inline(always)]
pub(super) fn volume<L: Lanes>(lanes: L, value: L::F, slow: L::M) -> L::F {
    lanes.select(slow, lanes.splat(1.0) / value.max(lanes.splat(1e-30)), value)
}

#[cfg(test)]
mod tests {
    use super::super::exchange::two_rates;
    use super::*;
    use crate::kernel::lanes::Double;

    const ALL: [Terms<bool>; 4] = [
        Terms { fast: false, slow: [false; 2], together: false },
        Terms { fast: true, slow: [false; 2], together: false },
        Terms { fast: false, slow: [true; 2], together: false },
        Terms { fast: true, slow: [false; 2], together: true },
    ];
    const CASES: [[f64; 4]; 3] = [[0.01, 0.012, 0.05, 0.2], [0.002, 0.8, 0.3, 0.1], [0.01, 0.011, 0.001, 0.4]];

    #[test]
    fn parameters_and_variables_are_each_others_inverse() {
        for terms in ALL {
            for p in CASES {
                let back = terms.parameters(Double, terms.at(Double, p));
                for (x, y) in p.into_iter().zip(back) {
                    assert!((y / x - 1.0).abs() < 1e-10, "{p:?} {back:?}");
                }
            }
        }
    }

    #[test]
    fn gradients_and_derivatives_are_those_of_differences() {
        let curve = |p: [f64; 4], s: f64| {
            let two = two_rates(Double, p);
            two.a / (s + two.rates[0]) + two.b / (s + two.rates[1])
        };
        for terms in ALL {
            for p in CASES {
                let y = terms.at(Double, p);
                let gradients = terms.gradients(Double, p);
                let two = two_rates(Double, p);
                let derivatives = terms.derivatives(Double, p, &two);
                for j in 0..4 {
                    let h = 1e-6 * y[j];
                    let moved = |by: f64| {
                        let mut y = y;
                        y[j] += by;
                        terms.parameters(Double, y)
                    };
                    let (above, below) = (moved(h), moved(-h));
                    for i in 0..4 {
                        let difference = (above[i] - below[i]) / (2.0 * h);
                        let allowed = 1e-6 * difference.abs() + 1e-9 * p[i] / y[j];
                        assert!(
                            (gradients[i][j] - difference).abs() < allowed,
                            "{p:?} {i} {j}: {} {difference}",
                            gradients[i][j]
                        );
                    }
                    for s in [1e-3, 0.02, 0.5] {
                        let terms = [
                            1.0 / (s + two.rates[0]),
                            1.0 / (s + two.rates[1]),
                            -1.0 / (s + two.rates[0]).powi(2),
                            -1.0 / (s + two.rates[1]).powi(2),
                        ];
                        let derivative: f64 = (0..4).map(|k| derivatives[j][k] * terms[k]).sum();
                        let difference = (curve(above, s) - curve(below, s)) / (2.0 * h);
                        let allowed = 1e-6 * difference.abs() + 1e-8 * curve(p, s) / y[j];
                        assert!(
                            (derivative - difference).abs() < allowed,
                            "{p:?} {j} at {s}: {derivative} {difference}"
                        );
                    }
                }
            }
        }
    }
}
