//! The definition of the variable flip angle fits in code. `shaders/t1/variable_flip_angle.wgsl` has the same names, order and guards.
//!
//! With q = exp(TR / T1) - 1 and v = 1 - cos(a), the spoiled gradient echo's signal is M0 sin(a) q / (q + v): no difference
//! of almost equal numbers for short TR, and one scale for the amplitude at all q.

#![expect(clippy::needless_range_loop, reason = "indices keep the text comparable with the shader's")]

use crate::kernel::lanes::{Lanes, Numbers};
use crate::kernel::{Curve, Rows};
use crate::kernels::arithmetic::{ln_1p, sine_and_versine};

use super::super::results::{self, Estimate};
use super::super::search::{Bracket, GRID, LEAST_OWN_SHARE, Peak, Peaks, STEPS};
use super::{Tables, VfaMethod};

/// A voxel's samples, and the sines and versines of the angles that it had.
struct Voxel<'a, F> {
    y: &'a [F],
    sine: &'a [F],
    versine: &'a [F],
}

/// The fit for one q: the amplitude and what Newton's step and the covariance need, q's derivatives relative to q.
struct Fit<F> {
    m0: F,
    slope: F,
    curvature: F,
    sse: F,
    /// Squares of the model, of its derivative less what the model explains of it, and how much that is.
    model: F,
    derivative: F,
    share: F,
    /// Squares of the whole derivative.
    whole: F,
}

#[inline(always)]
fn fit_at<L: Lanes>(l: L, voxel: &Voxel<'_, L::F>, q: L::F) -> Fit<L::F> {
    let (zero, one) = (l.splat(0.0), l.splat(1.0));
    let (mut yf, mut ff, mut fg, mut whole) = (zero, zero, zero, zero);
    for i in 0..voxel.y.len() {
        let inverse = one / (q + voxel.versine[i]);
        let f = voxel.sine[i] * q * inverse;
        let g = f * voxel.versine[i] * inverse;
        yf = yf + voxel.y[i] * f;
        ff = ff + f * f;
        fg = fg + f * g;
        whole = whole + g * g;
    }
    let (m0, share) = (yf / ff, fg / ff);
    let (mut slope, mut derivative, mut bend, mut sse) = (zero, zero, zero, zero);
    for i in 0..voxel.y.len() {
        let inverse = one / (q + voxel.versine[i]);
        let f = voxel.sine[i] * q * inverse;
        let g = f * voxel.versine[i] * inverse;
        let r = voxel.y[i] - m0 * f;
        let own = g - share * f;
        slope = slope + r * own;
        derivative = derivative + own * own;
        bend = bend + r * g * q * inverse;
        sse = sse + r * r;
    }
    Fit { m0, slope, curvature: m0 * derivative + bend + bend, sse, model: ff, derivative, share, whole }
}

/// The highest peak of what the model explains of the samples, over the grid.
#[inline(always)]
fn best_of_grid<L: Lanes>(t: &Tables, l: L, voxel: &Voxel<'_, L::F>) -> Peak<L> {
    let zero = l.splat(0.0);
    let mut peaks = Peaks::<L, 1>::none(l);
    let (mut before, mut height) = (zero, zero);
    for k in 0..=GRID {
        let mut after = zero;
        if k < GRID {
            let q = t.q.at(l, k);
            let (mut yf, mut ff) = (zero, zero);
            for i in 0..voxel.y.len() {
                let f = voxel.sine[i] * (q / (q + voxel.versine[i]));
                yf = yf + voxel.y[i] * f;
                ff = ff + f * f;
            }
            let positive = yf.gt(zero);
            after = l.select(positive, yf, zero) * l.select(positive, yf, zero) / ff;
        }
        if k > 0 {
            peaks.offer(l, k - 1, 0, [before, height, after]);
        }
        before = height;
        height = after;
    }
    let [peak] = peaks.0;
    peak
}

/// What a method found: q, with masks and the standard error of ln q, for a noise SD of 1.
struct Found<L: Lanes> {
    q: L::F,
    m0: L::F,
    found: L::M,
    at_shortest: L::M,
    at_longest: L::M,
    converged: L::M,
    informative: L::M,
    q_per_sigma: L::F,
    m0_per_sigma: L::F,
    sse: L::F,
}

#[inline(always)]
fn nonlinear<L: Lanes>(t: &Tables, l: L, voxel: &Voxel<'_, L::F>) -> Found<L> {
    let (zero, one) = (l.splat(0.0), l.splat(1.0));
    let peak = best_of_grid(t, l, voxel);
    let mut bracket = Bracket::around(l, &t.q, peak.at);
    for _ in 0..STEPS {
        bracket.x = l.settled(bracket.x);
        let fit = fit_at(l, voxel, bracket.x);
        bracket.narrow(l, fit.slope, fit.curvature);
    }
    let fit = fit_at(l, voxel, bracket.x);
    let (at_longest, at_shortest) = bracket.at_bounds();
    let found = peak.height.gt(zero);
    let informative = fit.derivative.gt(l.splat(LEAST_OWN_SHARE) * fit.whole) & fit.m0.gt(zero);
    let derivative = l.select(informative, fit.derivative, one);
    Found {
        q: bracket.x,
        m0: fit.m0,
        found,
        at_shortest: at_shortest & found,
        at_longest: at_longest & found,
        converged: bracket.converged(l),
        informative,
        q_per_sigma: one / (l.select(informative, fit.m0, one) * derivative.sqrt()),
        m0_per_sigma: (one / fit.model + fit.share * fit.share / derivative).sqrt(),
        sse: fit.sse,
    }
}

/// The line through S / sin(a) over S / tan(a), whose slope is E; written as S tan(a / 2) over S / tan(a), whose slope is
/// E - 1, so that a short TR loses no digits.
#[inline(always)]
fn linear<L: Lanes>(t: &Tables, l: L, voxel: &Voxel<'_, L::F>) -> Found<L> {
    let (zero, one) = (l.splat(0.0), l.splat(1.0));
    let per_sample = l.splat(1.0 / t.n as f64);
    let (mut mean_x, mut mean_w) = (zero, zero);
    for i in 0..t.n {
        let u = (one - voxel.versine[i]) / voxel.sine[i];
        let w = voxel.versine[i] / voxel.sine[i];
        mean_x = mean_x + voxel.y[i] * u * per_sample;
        mean_w = mean_w + voxel.y[i] * w * per_sample;
    }
    let (mut xx, mut xw) = (zero, zero);
    for i in 0..t.n {
        let x = voxel.y[i] * ((one - voxel.versine[i]) / voxel.sine[i]) - mean_x;
        let w = voxel.y[i] * (voxel.versine[i] / voxel.sine[i]) - mean_w;
        xx = xx + x * x;
        xw = xw + x * w;
    }
    let spread = xx.gt(zero);
    let xx = l.select(spread, xx, one);
    // p = 1 - E, so q = p / (1 - p).
    let p = -xw / xx;
    let below_one = p.lt(one);
    let e = l.select(below_one, one - p, one);
    let q = p / e;
    let at_shortest = spread & (!below_one | q.gt(t.q.at(l, GRID - 1)));
    let at_longest = spread & below_one & q.lt(t.q.at(l, 0));
    let inside = spread & !at_shortest & !at_longest;
    let p = l.select(inside, p, l.splat(0.5));
    let q = l.select(inside, q, one);
    let e = l.select(inside, e, l.splat(0.5));
    let m0 = mean_w / p + mean_x;

    let (mut sse, mut p_squares, mut m0_squares) = (zero, zero, zero);
    for i in 0..t.n {
        let u = (one - voxel.versine[i]) / voxel.sine[i];
        let w = voxel.versine[i] / voxel.sine[i];
        let r = voxel.y[i] - m0 * (voxel.sine[i] * (q / (q + voxel.versine[i])));
        sse = sse + r * r;
        // How p and M0 move with this sample.
        let (dx, dw) = (voxel.y[i] * u - mean_x, voxel.y[i] * w - mean_w);
        let dp = -(u * dw + w * dx + (p + p) * u * dx) / xx;
        let dm0 = w * per_sample / p - mean_w / (p * p) * dp + u * per_sample;
        p_squares = p_squares + dp * dp;
        m0_squares = m0_squares + dm0 * dm0;
    }
    Found {
        q,
        m0,
        found: inside & m0.gt(zero),
        at_shortest,
        at_longest,
        converged: l.mask(true),
        informative: p_squares.gt(zero),
        q_per_sigma: p_squares.sqrt() / (p * e),
        m0_per_sigma: m0_squares.sqrt(),
        sse,
    }
}

#[inline(always)]
pub(super) fn evaluate<L: Lanes>(t: &Tables, l: L, curve: &Curve<'_, L>, scratch: &mut [L::F], rows: &mut Rows<'_, L>) {
    let (zero, one) = (l.splat(0.0), l.splat(1.0));
    let (y, angles) = scratch.split_at_mut(t.n);
    let (sine, versine) = angles.split_at_mut(t.n);

    // Samples, divided by the largest magnitude.
    let origin = curve.first + l.splat(t.offset);
    let mut top = zero;
    for i in 0..t.n {
        y[i] = origin + curve.difference(i);
        top = top.max(y[i].abs());
    }
    let signal = results::is_signal(l, top * l.splat(t.scale));
    let top = l.select(signal, top, one);
    let per_sample = l.splat(1.0 / t.n as f64);
    let mut mean = zero;
    for i in 0..t.n {
        y[i] = l.splat(t.sign) * (y[i] / top);
        mean = mean + y[i] * per_sample;
    }
    let mut total = zero;
    for i in 0..t.n {
        total = total + (y[i] - mean) * (y[i] - mean);
    }

    // The angles that this voxel had.
    let mut usable = l.mask(true);
    if t.has_b1 {
        let b1 = curve.extra[0];
        usable = b1.gt(zero) & b1.lt(l.splat(t.largest_b1));
        let b1 = l.select(usable, b1, one);
        for i in 0..t.n {
            (sine[i], versine[i]) = sine_and_versine(l, b1 * t.half_angle.at(l, i));
        }
    } else {
        for i in 0..t.n {
            sine[i] = t.sine.at(l, i);
            versine[i] = t.versine.at(l, i);
        }
    }

    let voxel = Voxel { y: &y[..t.n], sine: &sine[..t.n], versine: &versine[..t.n] };
    let found = match t.method {
        VfaMethod::Nonlinear => nonlinear(t, l, &voxel),
        VfaMethod::Linear => linear(t, l, &voxel),
    };
    // T1 = TR / ln(1 + q).
    let q = l.select(found.found, found.q, one);
    let t1 = l.splat(t.tr) / ln_1p(l, q);
    let t1_per_sigma = t1 * t1 * l.splat(1.0 / t.tr) * (q / (one + q)) * found.q_per_sigma;
    let estimate = Estimate {
        unit: top * l.splat(t.scale),
        signal,
        usable,
        found: found.found,
        at_shortest: found.at_shortest,
        at_longest: found.at_longest,
        converged: found.converged,
        informative: found.informative,
        t1,
        t1_per_sigma,
        m0: found.m0,
        m0_per_sigma: found.m0_per_sigma,
        sse: found.sse,
        total,
    };
    results::write(l, t.n - 2, t.noise, curve, &estimate, rows);
}
