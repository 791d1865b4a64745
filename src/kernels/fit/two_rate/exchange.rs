//! The exchange model as two exponentials, and its derivatives.
//!
//! With alpha = F_p / v_p, beta = PS / v_p, gamma = PS / v_e (1/s) the transfer function from arterial plasma to tissue is
//!
//! ```text
//! H(s) = F_p (s + z) / ((s + l_1)(s + l_2)),   z = beta + gamma,   l_1 + l_2 = alpha + beta + gamma,   l_1 l_2 = alpha gamma
//! ```
//!
//! (Sourbron and Buckley 2012, equations 21 to 23, where PS / v_e stands, unlike in the printed CAPLEX). The derivatives are
//! squares: with u = alpha / ((s + l_1)(s + l_2)),
//!
//! ```text
//! dH/dv_p = (s + gamma)^2 u^2   dH/dv_e = gamma^2 u^2   dH/dPS = s u^2   dH/dF_p = s (s + z)^2 u^2 / alpha^2
//! ```
//!
//! so partial fractions give each of them as a sum over the convolutions with both exponentials and their derivatives by the
//! rates, without a difference of large numbers, for any volume, v_p = 0 and v_e = 0 too.

use crate::kernel::lanes::{Lanes, Numbers as _};

/// A volume below this counts as this where it divides: all smaller ones exchange in no time.
const SMALLEST_VOLUME: f64 = 1e-7;
/// Where rates are closer than this share of their sum, derivatives are taken as if they were not: the difference of two
/// convolutions would have no digits.
const CLOSEST: f64 = 1e-3;

/// C = a I_1 + b I_2, I the convolutions with exp(-l_1 t) and exp(-l_2 t).
#[derive(Debug, Clone, Copy)]
pub(super) struct TwoRates<F> {
    pub(super) rates: [F; 2],
    pub(super) a: F,
    pub(super) b: F,
    /// Derivatives by F_p, PS, v_p, v_e: coefficients of I_1, I_2 and their derivatives by l_1, l_2.
    pub(super) by_parameter: [[F; 4]; 4],
}

/// From F_p and PS in 1/s and the volumes.
#[inline(always)]
pub(super) fn two_rates<L: Lanes>(lanes: L, parameters: [L::F; 4]) -> TwoRates<L::F> {
    let one = lanes.splat(1.0);
    let half = lanes.splat(0.5);
    let two = lanes.splat(2.0);
    let tiny = lanes.splat(1e-20);
    let [fp, ps, vp, ve] = parameters;
    let smallest = lanes.splat(SMALLEST_VOLUME);
    let inverse_vp = one / vp.max(smallest);
    let alpha = fp * inverse_vp;
    let beta = ps * inverse_vp;
    let gamma = ps / ve.max(smallest);
    let sum = alpha + beta + gamma;
    // (l_1 - l_2) / 2, a root of squares.
    let n = half * (alpha + beta - gamma);
    let root = (n * n + beta * gamma).sqrt();
    let apart = root.max(sum * lanes.splat(0.5 * CLOSEST)).max(tiny);
    let fast = (half * sum + apart).max(tiny);
    let slow = alpha * gamma / fast;
    let z = beta + gamma;
    // l_1 - z and z - l_2 have the product alpha beta, l_1 - gamma and gamma - l_2 the product beta gamma: the larger one of
    // each pair is a sum, the other a quotient.
    let m = half * (alpha - beta - gamma);
    let (fast_z, z_slow) = pair(lanes, m, apart, alpha * beta);
    let (fast_gamma, gamma_slow) = pair(lanes, n, apart, beta * gamma);
    let inverse = half / apart;
    let (w_fast, w_slow) = (fast_z * inverse, z_slow * inverse);
    let ratio = alpha * inverse;
    let square = ratio * ratio;
    let cube = square * inverse;
    let mixed = z * sum - lanes.splat(3.0) * alpha * gamma;
    let squared_inverse = inverse * inverse;
    let by_fp = [
        w_fast * ((mixed + fast * fast) * squared_inverse),
        w_slow * ((mixed + slow * slow) * squared_inverse),
        w_fast * w_fast * fast,
        w_slow * w_slow * slow,
    ];
    let by_ps = [-(cube * sum), cube * sum, square * fast, square * slow];
    let exchange = two * cube * beta * gamma;
    let by_vp = [-exchange, exchange, -(square * fast_gamma * fast_gamma), -(square * gamma_slow * gamma_slow)];
    let back = two * cube * gamma * gamma;
    let held = -(square * gamma * gamma);
    let by_ve = [back, -back, held, held];
    TwoRates { rates: [fast, slow], a: fp * w_fast, b: fp * w_slow, by_parameter: [by_fp, by_ps, by_vp, by_ve] }
}

/// apart + middle and apart - middle, whose product is known.
#[inline(always)]
fn pair<L: Lanes>(lanes: L, middle: L::F, apart: L::F, product: L::F) -> (L::F, L::F) {
    let upwards = middle.ge(lanes.splat(0.0));
    let larger = middle.abs() + apart;
    let smaller = product / larger;
    (lanes.select(upwards, larger, smaller), lanes.select(upwards, smaller, larger))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::lanes::Double;

    /// H(s) from the compartments' equations.
    fn transfer([fp, ps, vp, ve]: [f64; 4], s: f64) -> f64 {
        let into_space = if ps > 0.0 { ps * s / (s + ps / ve) } else { 0.0 };
        fp / s * (1.0 - fp / (fp + vp * s + into_space))
    }

    #[test]
    fn two_exponentials_have_the_compartments_transfer_function_and_its_derivatives() {
        for p in [
            [0.01, 0.002, 0.05, 0.2],
            [0.01, 0.002, 1e-5, 0.2],
            [0.01, 0.002, 0.05, 1e-4],
            [0.0005, 0.05, 0.05, 0.2],
            [0.03, 1e-6, 0.3, 0.9],
        ] {
            let t = two_rates(Double, p);
            for s in [1e-3, 0.02, 0.5] {
                let terms = [
                    1.0 / (s + t.rates[0]),
                    1.0 / (s + t.rates[1]),
                    -1.0 / (s + t.rates[0]).powi(2),
                    -1.0 / (s + t.rates[1]).powi(2),
                ];
                let value = t.a * terms[0] + t.b * terms[1];
                let exact = transfer(p, s);
                assert!((value / exact - 1.0).abs() < 1e-11, "{p:?} at {s}: {value} {exact}");
                for i in 0..4 {
                    let derivative: f64 = (0..4).map(|k| t.by_parameter[i][k] * terms[k]).sum();
                    let h = 1e-4 * p[i];
                    let moved = |by: f64| {
                        let mut q = p;
                        q[i] += by;
                        transfer(q, s)
                    };
                    let difference = (moved(h) - moved(-h)) / (2.0 * h);
                    let allowed = 1e-6 * difference.abs() + 1e-9 * exact / p[i];
                    assert!((derivative - difference).abs() < allowed, "{p:?} {i} at {s}: {derivative} {difference}");
                }
            }
        }
    }
}
