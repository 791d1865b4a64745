//! Arithmetic that keeps its relative accuracy near 0, over lanes. `shaders/arithmetic.wgsl` has the same names, order and
//! guards.

use crate::kernel::lanes::{Lanes, Numbers};

/// Below this magnitude the series are used: their last terms are below the rounding of f64.
const SERIES_BELOW: f64 = 0.25;

/// `ln(1 + x)`, also for small x, where a device's logarithm near 1 is only good to 2^-21 absolute: twice the area tangent
/// of `x / (2 + x)`. For `x > -1`.
#[inline(always)]
pub(super) fn ln_1p<L: Lanes>(l: L, x: L::F) -> L::F {
    let small = x.abs().lt(l.splat(SERIES_BELOW));
    let z = l.select(small, x, l.splat(0.0)) / (l.splat(2.0) + l.select(small, x, l.splat(0.0)));
    let square = z * z;
    let mut sum = l.splat(1.0 / 19.0);
    for odd in [17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
        sum = sum * square + l.splat(1.0 / odd);
    }
    let series = (z + z) * sum;
    let one_plus = l.select(small, l.splat(1.0), l.splat(1.0) + x);
    l.select(small, series, one_plus.ln())
}

/// `exp(x) - 1` for x from 0 to 80.
#[inline(always)]
pub(super) fn exp_m1<L: Lanes>(l: L, x: L::F) -> L::F {
    let small = x.lt(l.splat(SERIES_BELOW));
    let near = l.select(small, x, l.splat(0.0));
    let mut sum = l.splat(1.0);
    for n in (2..=13).rev() {
        sum = l.splat(1.0) + near * l.splat(1.0 / f64::from(n)) * sum;
    }
    l.select(small, near * sum, x.exp() - l.splat(1.0))
}

/// Sine and versine (1 - cosine) of twice the angle `half`, which lies between 0 and a right angle: `2 sin cos` and
/// `2 sin^2` of the half angle, by their series, since a device's sine may be off by 2^-11.
#[inline(always)]
pub(super) fn sine_and_versine<L: Lanes>(l: L, half: L::F) -> (L::F, L::F) {
    let square = half * half;
    let (mut sine, mut cosine) = (l.splat(1.0), l.splat(1.0));
    for n in (1..=10).rev() {
        let even = f64::from(2 * n);
        sine = l.splat(1.0) - square * l.splat(1.0 / (even * (even + 1.0))) * sine;
        cosine = l.splat(1.0) - square * l.splat(1.0 / (even * (even - 1.0))) * cosine;
    }
    let sine = half * sine;
    let twice = sine + sine;
    (twice * cosine, twice * sine)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::lanes::Double;

    #[test]
    fn series_agree_with_the_standard_library() {
        let close = |value: f64, wanted: f64| (value - wanted).abs() <= 1e-14 * wanted.abs();
        for i in -900..4000 {
            let x = f64::from(i) * 1.1e-3;
            let small = f64::from(i) * 1e-9;
            for x in [x, small] {
                if x > -0.99 {
                    assert!(close(ln_1p(Double, x), x.ln_1p()), "ln_1p {x}");
                }
                if x >= 0.0 {
                    assert!(close(exp_m1(Double, x), x.exp_m1()), "exp_m1 {x}");
                }
            }
        }
        for degrees in 1..180 {
            let angle = f64::from(degrees).to_radians();
            let (sine, versine) = sine_and_versine(Double, angle / 2.0);
            assert!((sine - angle.sin()).abs() < 1e-15, "{degrees}");
            assert!(close(versine, 2.0 * (angle / 2.0).sin().powi(2)), "{degrees}");
        }
    }
}
