//! The definition of the conversions in code. `shaders/concentration.wgsl` has the same names, order and guards.
//!
//! With q = exp(TR / T1) - 1, q0 the same before contrast agent, v = 1 - cos(a) and the relative enhancement e = S / S0 - 1,
//! the spoiled gradient echo gives (1 + q) / (1 + q0) = 1 + e q0 (q0 + v) / ((1 + q0) (v - e q0)): no difference of almost
//! equal numbers, so that small enhancements keep their digits.

use crate::kernel::lanes::{Lanes, Numbers};
use crate::kernel::{Curve, Rows};
use crate::kernels::arithmetic::{exp_m1, ln_1p, sine_and_versine};
use crate::status;

use super::{Law, Tables, status_bit};

/// A baseline up to this, in stored units, has no inverse in 32 bits.
const SMALLEST_BASELINE: f64 = 1e-30;

#[inline(always)]
pub(super) fn evaluate<L: Lanes>(t: &Tables, l: L, curve: &Curve<'_, L>, rows: &mut Rows<'_, L>) {
    let (zero, one) = (l.splat(0.0), l.splat(1.0));
    let finite = curve.finite;

    // The baseline's mean, as a difference from the first sample.
    let mut base = zero;
    for frame in t.baseline.iter() {
        base = base + curve.difference(*frame);
    }
    let base = base * l.splat(1.0 / t.baseline.len() as f64);
    let s0 = l.splat(t.sign) * (curve.first + base + l.splat(t.offset));

    // What the voxel's maps say.
    let mut usable = l.mask(true);
    let t10 = match t.t10_layer {
        Some(layer) => {
            let t10 = curve.extra[layer];
            usable = usable & t10.ge(l.splat(t.shortest_t10));
            l.select(usable, t10, one)
        }
        None => l.splat(t.t10),
    };
    let versine = match t.b1_layer {
        Some(layer) => {
            let b1 = curve.extra[layer];
            let b1_usable = b1.gt(zero) & b1.lt(l.splat(t.largest_b1));
            usable = usable & b1_usable;
            sine_and_versine(l, l.select(b1_usable, b1, one) * l.splat(t.half_angle)).1
        }
        None => l.splat(t.versine),
    };
    let relative = t.law != Law::Absolute;
    let positive = if relative { s0.gt(l.splat(SMALLEST_BASELINE)) } else { l.mask(true) };
    let readable = finite & usable;
    let valid = readable & positive;
    let inv_s0 = if relative { one / l.select(positive, s0, one) } else { one };

    let q0 = match t.law {
        Law::SpoiledGradientEcho => exp_m1(l, l.splat(t.tr) / t10),
        Law::Relative | Law::Absolute => zero,
    };
    let gain = q0 * (q0 + versine) / (one + q0);
    let linear = match t.law {
        Law::SpoiledGradientEcho => one,
        Law::Relative => l.splat(t.factor) / t10,
        Law::Absolute => l.splat(t.factor),
    };
    let mut failed = l.mask(false);
    for frame in 0..t.n {
        let e = l.splat(t.sign) * (curve.difference(frame) - base) * inv_s0;
        let (concentration, invertible) = match t.law {
            Law::SpoiledGradientEcho => {
                let rest = versine - e * q0;
                let reached = rest.gt(zero);
                let growth = gain * e / l.select(reached, rest, one);
                let invertible = reached & growth.gt(l.splat(-1.0));
                (l.splat(t.factor) * ln_1p(l, l.select(invertible, growth, zero)), invertible)
            }
            Law::Relative | Law::Absolute => (linear * e, l.mask(true)),
        };
        failed = failed | !invertible;
        rows.set(t.rows[frame], concentration, valid & invertible);
    }
    for row in &t.rows_without_sample {
        rows.set(*row, zero, l.mask(false));
    }
    let bits = l.bits(!finite, status::NON_FINITE_SAMPLE)
        | l.bits(readable & !positive, status::BASELINE_NOT_POSITIVE)
        | l.bits(valid & failed, status::NOT_INVERTIBLE)
        | l.bits(finite & !usable, status_bit::MAP_NOT_USABLE);
    rows.set_bits(t.rows.len() + t.rows_without_sample.len(), bits);
}
