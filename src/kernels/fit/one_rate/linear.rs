//! The linear method: the model's differential equation, integrated once (or twice), is linear in its parameters (Tofts and
//! extended Tofts: Murase 2004, equations 4 and 6; uptake: Flouri, Lesnic and Mayrovitch 2016):
//!
//! ```text
//! Tofts            C = Ktrans I - kep S                              I = integral of c_p, S = integral of C
//! extended Tofts   C = (Ktrans + kep v_p) I - kep S + v_p c_p
//! uptake           C = F_p I - S / T_p + (E F_p / T_p) (integral of I)
//! ```
//!
//! S is the integral of the piecewise-linear samples; the other integrals are exact. What the shared columns explain is
//! projected out of C and S, through an orthonormal basis made on the host, before the one coefficient that is a voxel's own
//! is taken: 32-bit normal equations of such columns would have no digits left.

use super::reference::Work;
use super::tables::Tables;
use crate::kernel::lanes::{Lanes, Numbers as _};
use crate::kernels::fit::Model;

/// What the linear method finds: coefficients as in the nonlinear fit.
pub(super) struct LinearFit<F, M> {
    pub(super) a: F,
    pub(super) b: F,
    pub(super) rate: F,
    /// Whether the curve has an integral that the input function doesn't explain, so that there is a rate.
    pub(super) has_rate: M,
}

/// The linear fit of the samples in `work.c`.
#[inline(always)]
pub(super) fn fit<L: Lanes>(lanes: L, t: &Tables, work: &Work<'_, L::F>) -> LinearFit<L::F, L::M> {
    let zero = lanes.splat(0.0);
    let one = lanes.splat(1.0);
    let tiny = lanes.splat(1e-30);
    let shared = &t.linear.shared;
    let two_columns = shared.second_length > 0.0;
    let n = t.n;
    let samples = &work.c[..n];
    let half_steps = lanes.entries(&t.linear.half_steps, 0..n - 1);
    let firsts = lanes.entries(&shared.first, 0..n);
    let seconds = lanes.entries(&shared.second, 0..if two_columns { n } else { 0 });
    let (mut first_c, mut second_c, mut first_s, mut second_s) = (zero, zero, zero, zero);
    let (mut integral, mut before) = (zero, samples[0]);
    for i in 0..n {
        let c = samples[i];
        if i > 0 {
            integral = lanes.spread(half_steps[i - 1]).mul_add(before + c, integral);
        }
        before = c;
        let first = lanes.spread(firsts[i]);
        first_c = first.mul_add(c, first_c);
        first_s = first.mul_add(integral, first_s);
        if two_columns {
            let second = lanes.spread(seconds[i]);
            second_c = second.mul_add(c, second_c);
            second_s = second.mul_add(integral, second_s);
        }
    }
    let (mut coefficient, mut has_rate) = (zero, lanes.mask(true));
    if t.model != Model::Patlak {
        let (mut cs, mut ss) = (zero, zero);
        // The integral once more: to keep it would take longer.
        (integral, before) = (zero, samples[0]);
        for i in 0..n {
            let mut c = samples[i];
            if i > 0 {
                integral = lanes.spread(half_steps[i - 1]).mul_add(before + c, integral);
            }
            before = c;
            let first = lanes.spread(firsts[i]);
            c = c.minus_product(first_c, first);
            let mut s = integral.minus_product(first_s, first);
            if two_columns {
                let second = lanes.spread(seconds[i]);
                c = c.minus_product(second_c, second);
                s = s.minus_product(second_s, second);
            }
            cs = c.mul_add(s, cs);
            ss = s.mul_add(s, ss);
        }
        // What the shared columns explain of the integral, and what they don't.
        let whole = first_s * first_s + second_s * second_s + ss;
        has_rate = ss.gt(lanes.splat(1e-12) * whole) & ss.gt(tiny);
        coefficient = lanes.select(has_rate, cs / ss.max(tiny), zero);
    }
    let products = [first_c - coefficient * first_s, second_c - coefficient * second_s];
    let [first, second] = shared.coefficients(lanes, products);
    let rate = -coefficient;
    match t.model {
        Model::ExtendedTofts => LinearFit { a: second, b: first - rate * second, rate, has_rate },
        Model::TwoCompartmentUptake | Model::TwoCompartmentExchange => {
            let has_rate = has_rate & rate.abs().gt(tiny);
            let a = second / lanes.select(has_rate, rate, one);
            LinearFit { a, b: first - a, rate, has_rate }
        }
        Model::Patlak => LinearFit { a: second, b: first, rate: zero, has_rate },
        Model::Tofts | Model::OneCompartment => LinearFit { a: zero, b: first, rate, has_rate },
    }
}
