//! The onset of a voxel's curve, by each of the methods. Times are seconds after the first frame.

#![expect(clippy::needless_range_loop, reason = "indices keep the text comparable with the shader's")]

use crate::kernel::lanes::{Lanes, Masks, Numbers};

use super::Onset;
use super::reference::{HalfRise, Peak, SteepestRise, clamp, last_upward_crossings};
use super::tables::Tables;

/// The onset and whether it was found, at or after the last baseline frame.
#[expect(clippy::too_many_arguments, reason = "the state of a voxel, passed on")]
#[inline(always)]
pub(super) fn find<L: Lanes>(
    t: &Tables,
    l: L,
    e: &[L::F],
    peak: &Peak<L>,
    half_rise: &HalfRise<L>,
    steepest: &SteepestRise<L>,
    sigma: L::F,
    enhancing: L::M,
) -> (L::F, L::M) {
    if !enhancing.any() {
        return (l.splat(0.0), l.mask(false));
    }
    let last_baseline = t.u.at(l, t.b - 1);
    let (onset, found) = match t.onset {
        // Fits have their break point at or after the last baseline frame; rounding may not move it before.
        Onset::PiecewiseLinear => {
            let (onset, found) = piecewise_linear(t, l, e, half_rise, enhancing);
            return (onset.max(last_baseline), found);
        }
        Onset::Saturating => {
            let (onset, found) = saturating(t, l, e, peak, enhancing);
            return (onset.max(last_baseline), found);
        }
        Onset::Intersection => intersection(l, steepest),
        Onset::Threshold { fraction } => {
            let [crossing] = last_upward_crossings(t, l, e, peak, [peak.e * l.splat(fraction)], enhancing);
            crossing
        }
        Onset::SdThreshold { deviations } => deviation_threshold(t, l, e, sigma * l.splat(deviations)),
        Onset::Derivative { fraction } => derivative(t, l, e, peak, fraction),
        Onset::Seconds(_) => return (l.splat(0.0), l.mask(false)),
    };
    (onset, found & onset.ge(last_baseline))
}

/// Guards a division whose result doesn't matter.
const TINY: f64 = 1e-30;

/// Zero, then a line from a continuous break point, least squares.
///
/// Minimising the sum of squares is maximising the gain, what the line explains of the samples after the break point.
/// Within an interval between frames the gain is largest where the unconstrained line through the samples after it
/// crosses zero, if it does so there, else at one of the interval's ends. Times x count back from the half-rise frame.
#[inline(always)]
fn piecewise_linear<L: Lanes>(t: &Tables, l: L, e: &[L::F], half_rise: &HalfRise<L>, enhancing: L::M) -> (L::F, L::M) {
    let zero = l.splat(0.0);
    let one = l.splat(1.0);
    let (mut sx, mut sxx, mut sy, mut sxy) = (zero, zero, zero, zero);
    // The best break point so far, as the zero crossing of intercept + slope * x.
    let (mut best_gain, mut best_intercept, mut best_slope) = (zero, zero, -one);
    for k in (t.b - 1..l.largest(half_rise.frame, enhancing)).rev() {
        let inside = enhancing & half_rise.frame.ge(t.index.at(l, k + 1));
        let x = half_rise.time - t.u.at(l, k + 1);
        let y = l.select(inside, e[k + 1], zero);
        let x_in = l.select(inside, x, zero);
        let count = half_rise.frame - t.index.at(l, k);
        sx = sx + x_in;
        sxx = sxx + x_in * x_in;
        sy = sy + y;
        sxy = sxy + x_in * y;
        let x_break = half_rise.time - t.u.at(l, k);
        // The line that starts at frame k.
        let product = x_break * sy - sxy;
        let square = x_break * (x_break * count - sx - sx) + sxx;
        // The unconstrained line, times its determinant.
        let determinant = count * sxx - sx * sx;
        let slope = count * sxy - sx * sy;
        let intercept = sxx * sy - sx * sxy;
        // Zero at or after frame k and above zero at the next: so it rises, and goes through two samples or more.
        let crosses = (intercept + slope * x_break).le(zero) & (intercept + slope * x).gt(zero);
        let knot = product * product.max(zero);
        let numerator = l.select(crosses, intercept * sy + slope * sxy, knot);
        let denominator = l.select(crosses, determinant, square);
        // Where nothing is inside yet, the sums and with them the gain are 0, which any other gain beats.
        let gain = numerator / denominator.max(l.splat(TINY));
        // From late to early: of equals, the earliest.
        let better = gain.ge(best_gain);
        best_gain = l.select(better, gain, best_gain);
        best_intercept = l.select(better, l.select(crosses, intercept, x_break), best_intercept);
        best_slope = l.select(better, l.select(crosses, slope, -one), best_slope);
    }
    (half_rise.time + best_intercept / best_slope, best_gain.gt(zero))
}

/// The standard error of the break point: the root of its element of (J'J)^-1 SSE/dof, for the line's slope and the break
/// point, over the samples from the first baseline frame to the half-rise frame. The baseline's mean counts as a third
/// parameter, and its variance adds to the break point's: a line is moved down by an error of the baseline.
#[inline(always)]
pub(super) fn piecewise_linear_error<L: Lanes>(
    t: &Tables,
    l: L,
    e: &[L::F],
    half_rise: &HalfRise<L>,
    onset: L::F,
    usable: L::M,
) -> (L::F, L::M) {
    let zero = l.splat(0.0);
    let one = l.splat(1.0);
    let (mut count, mut sx, mut sxx, mut sxy) = (zero, zero, zero, zero);
    if !usable.any() {
        return (zero, usable);
    }
    let end = l.largest(half_rise.frame, usable) + 1;
    for i in t.b..end {
        let inside = half_rise.frame.ge(t.index.at(l, i));
        let x = t.u.at(l, i) - onset;
        let after = inside & x.gt(zero);
        count = count + l.select(after, one, zero);
        sx = sx + l.select(after, x, zero);
        sxx = sxx + l.select(after, x * x, zero);
        sxy = sxy + l.select(after, x * e[i], zero);
    }
    let usable = sxx.gt(zero) & sxy.gt(zero);
    let slope = sxy / l.select(usable, sxx, one);
    let mut squares = zero;
    for i in t.a..end {
        let inside = half_rise.frame.ge(t.index.at(l, i));
        let line = (slope * (t.u.at(l, i) - onset)).max(zero);
        let residual = e[i] - l.select(l.mask(i >= t.b), line, zero);
        squares = squares + l.select(inside, residual * residual, zero);
    }
    let dof = half_rise.frame - l.count(t.a + 2);
    let determinant = count * sxx - sx * sx;
    let known = usable & count.ge(l.splat(2.0)) & dof.ge(one) & determinant.gt(zero);
    let factor = sxx / l.select(known, determinant, one) + l.splat(t.inv_baseline);
    let variance = squares * factor / l.select(known, dof * slope * slope, one);
    (variance.max(zero).sqrt(), known)
}

/// Zero, then a (1 - exp(-(t - t_b) / tau)), least squares up to the peak: for each of a logarithmic grid of tau the search
/// of [`piecewise_linear`] over saturating instead of straight lines; then tau at the vertex of the parabola through the
/// sums of squares of the best and its neighbours on the grid. A vertex moves smoothly with the samples, so that every engine finds
/// the same, where a search by comparisons would wander on a flat optimum.
#[inline(always)]
fn saturating<L: Lanes>(t: &Tables, l: L, e: &[L::F], peak: &Peak<L>, enhancing: L::M) -> (L::F, L::M) {
    let zero = l.splat(0.0);
    let one = l.splat(1.0);
    let (mut best, mut best_gain) = (zero, zero);
    let (mut onset_before, mut onset_at, mut onset_after) = (zero, zero, zero);
    let mut previous_onset = zero;
    let mut previous_was_best = l.mask(false);
    for (j, tau) in t.taus.iter().enumerate() {
        let (gain, onset, _) = saturating_break(t, l, e, peak, enhancing, l.splat(*tau));
        onset_after = l.select(previous_was_best, onset, onset_after);
        let better = gain.gt(best_gain);
        onset_before = l.select(better, previous_onset, onset_before);
        onset_at = l.select(better, onset, onset_at);
        best_gain = l.select(better, gain, best_gain);
        best = l.select(better, l.count(j), best);
        previous_onset = onset;
        previous_was_best = better;
    }
    let before = saturating_squares(t, l, e, peak, log_tau(t, l, best - one).exp(), onset_before);
    let at = saturating_squares(t, l, e, peak, log_tau(t, l, best).exp(), onset_at);
    let after = saturating_squares(t, l, e, peak, log_tau(t, l, best + one).exp(), onset_after);
    let curvature = (before - at) + (after - at);
    let inner = best.gt(zero) & best.lt(l.count(t.taus.len() - 1)) & curvature.gt(zero);
    let vertex = (before - after) * l.splat(0.5) / l.select(inner, curvature, one);
    // The best of the three lies within half a step of the vertex; by its gain, the grid's best may be the one beside it.
    let shift = l.select(inner, clamp::<L>(vertex, -one, one), zero);
    let (_, onset, found) = saturating_break(t, l, e, peak, enhancing, log_tau(t, l, best + shift).exp());
    (onset, found)
}

/// The logarithm of the time constant at a place of the grid, also between its points.
#[inline(always)]
fn log_tau<L: Lanes>(t: &Tables, l: L, index: L::F) -> L::F {
    l.splat(t.log_tau_first) + index * l.splat(t.log_tau_step)
}

/// How far a saturating rise of height 1 has come at a frame.
#[inline(always)]
fn saturating_rise<L: Lanes>(t: &Tables, l: L, frame: usize, onset: L::F, inv_tau: L::F) -> L::F {
    one_minus_exp(l, (t.u.at(l, frame) - onset).max(l.splat(0.0)) * inv_tau)
}

/// The sum of squares that a saturating rise leaves from the baseline to the peak: of the residuals themselves, which
/// keeps the small differences between time constants that a difference of large sums would lose.
#[inline(always)]
fn saturating_squares<L: Lanes>(t: &Tables, l: L, e: &[L::F], peak: &Peak<L>, tau: L::F, onset: L::F) -> L::F {
    let zero = l.splat(0.0);
    let one = l.splat(1.0);
    let inv_tau = one / tau;
    let (mut sw, mut sy) = (zero, zero);
    for i in t.b..t.n {
        let inside = peak.frame.ge(t.index.at(l, i));
        let w = saturating_rise(t, l, i, onset, inv_tau);
        sw = sw + l.select(inside, w * w, zero);
        sy = sy + l.select(inside, w * e[i], zero);
    }
    let amplitude = sy / l.select(sw.gt(zero), sw, one);
    let mut squares = zero;
    for i in t.b..t.n {
        let inside = peak.frame.ge(t.index.at(l, i));
        let residual = e[i] - amplitude * saturating_rise(t, l, i, onset, inv_tau);
        squares = squares + l.select(inside, residual * residual, zero);
    }
    squares
}

/// The best break point for one time constant: what it explains, where it lies, whether there is one.
///
/// The regressor is w = 1 - exp(-(t - t_k) / tau), seen from frame k; going back a frame turns w into w + rho (1 - w)
/// with rho = 1 - exp(-dt / tau), and with it its mean and its sums about the mean. So nothing cancels, neither where tau
/// is so long that w hardly leaves 0 nor where it is so short that w is 1 but for rounding.
#[inline(always)]
fn saturating_break<L: Lanes>(
    t: &Tables,
    l: L,
    e: &[L::F],
    peak: &Peak<L>,
    enhancing: L::M,
    tau: L::F,
) -> (L::F, L::F, L::M) {
    let zero = l.splat(0.0);
    let one = l.splat(1.0);
    let inv_tau = one / tau;
    let (mut count, mut mean_w, mut mean_y, mut ww, mut wy) = (zero, zero, zero, zero, zero);
    let (mut best_gain, mut best_frame_time, mut best_w) = (zero, zero, zero);
    let mut found = l.mask(false);
    for k in (t.b - 1..t.n - 1).rev() {
        let inside = enhancing & peak.frame.ge(t.index.at(l, k + 1));
        if !inside.any() {
            continue;
        }
        let rho = one_minus_exp(l, t.dt.at(l, k) * inv_tau);
        let kept = one - rho;
        // Sample k + 1 joins, at w = rho: its distances from the means so far.
        let below = kept * mean_w;
        let above = e[k + 1] - mean_y;
        let more = count + one;
        let share = l.select(inside, one / more, zero);
        let kept_share = count * share;
        ww = kept * kept * ww + below * below * kept_share;
        wy = kept * wy - below * above * kept_share;
        mean_w = rho + below * (one - share);
        mean_y = mean_y + above * share;
        count = l.select(inside, more, count);
        let slope = wy;
        let intercept = mean_y * ww - mean_w * wy;
        let crosses = count.ge(l.splat(2.0))
            & slope.gt(zero)
            & (intercept + slope).gt(zero)
            & intercept.le(zero)
            & (intercept + slope * rho).gt(zero);
        let swy = wy + count * mean_w * mean_y;
        let sww = ww + count * mean_w * mean_w;
        let numerator = l.select(crosses, wy * wy, swy * swy);
        let denominator = l.select(crosses, ww, sww);
        let usable = inside & (crosses | swy.gt(zero)) & denominator.gt(zero);
        let of_mean = l.select(crosses, count * mean_y * mean_y, zero);
        let gain = of_mean + numerator / l.select(usable, denominator, one);
        let better = usable & (!found | gain.ge(best_gain));
        let w = l.select(crosses, -intercept / l.select(crosses, slope, one), zero);
        best_gain = l.select(better, gain, best_gain);
        best_frame_time = l.select(better, t.u.at(l, k), best_frame_time);
        best_w = l.select(better, w, best_w);
        found = found | better;
    }
    (best_gain, best_frame_time - tau * ln_one_minus(l, best_w), found)
}

/// 1 - exp(-x) for x >= 0, without cancellation at small x.
#[inline(always)]
fn one_minus_exp<L: Lanes>(l: L, x: L::F) -> L::F {
    let one = l.splat(1.0);
    let series = x
        * (one
            - x * l.splat(0.5) * (one - x * l.splat(1.0 / 3.0) * (one - x * l.splat(0.25) * (one - x * l.splat(0.2)))));
    l.select(x.lt(l.splat(0.05)), series, one - (-x).exp())
}

/// ln(1 - w) for 0 <= w < 1, without cancellation at small w.
#[inline(always)]
fn ln_one_minus<L: Lanes>(l: L, w: L::F) -> L::F {
    let mut sum = l.splat(1.0 / 7.0);
    for term in [6.0, 5.0, 4.0, 3.0, 2.0, 1.0] {
        sum = sum * w + l.splat(1.0 / term);
    }
    let small = w.lt(l.splat(0.05));
    let rest = l.select(small, l.splat(0.5), l.splat(1.0) - w);
    l.select(small, -(sum * w), rest.max(l.splat(1e-30)).ln())
}

/// Where the line of steepest rise meets the baseline.
#[inline(always)]
fn intersection<L: Lanes>(l: L, steepest: &SteepestRise<L>) -> (L::F, L::M) {
    let rising = steepest.slope.gt(l.splat(0.0));
    (steepest.time - steepest.e / l.select(rising, steepest.slope, l.splat(1.0)), rising)
}

/// Where the first of two consecutive frames above a level crosses it.
#[inline(always)]
fn deviation_threshold<L: Lanes>(t: &Tables, l: L, e: &[L::F], level: L::F) -> (L::F, L::M) {
    let zero = l.splat(0.0);
    let one = l.splat(1.0);
    let (mut below, mut above, mut time, mut step) = (zero, one, zero, zero);
    let mut found = l.mask(false);
    for i in t.b..t.n - 1 {
        let first = e[i].gt(level) & e[i + 1].gt(level) & !found;
        below = l.select(first, e[i - 1], below);
        above = l.select(first, e[i], above);
        time = l.select(first, t.u.at(l, i - 1), time);
        step = l.select(first, t.dt.at(l, i - 1), step);
        found = found | first;
    }
    // A last baseline frame above the level means an onset before it.
    let crosses = found & below.le(level);
    let rise = l.select(crosses, above - below, one);
    (time + step * (level - below) / rise, crosses & rise.gt(zero))
}

#[inline(always)]
fn central_difference<L: Lanes>(t: &Tables, l: L, e: &[L::F], frame: usize) -> L::F {
    (e[frame + 1] - e[frame - 1]) * t.inv_span.at(l, frame)
}

/// Walking back from the largest central difference to where it falls to a fraction of it, linear between frames.
#[inline(always)]
fn derivative<L: Lanes>(t: &Tables, l: L, e: &[L::F], peak: &Peak<L>, fraction: f64) -> (L::F, L::M) {
    let zero = l.splat(0.0);
    let one = l.splat(1.0);
    let mut largest = zero;
    let mut frame = zero;
    let mut rising = l.mask(false);
    for i in t.b.saturating_sub(1).max(1)..t.n - 1 {
        let difference = central_difference(t, l, e, i);
        let better = peak.frame.ge(t.index.at(l, i)) & difference.gt(largest);
        largest = l.select(better, difference, largest);
        frame = l.select(better, t.index.at(l, i), frame);
        rising = rising | better;
    }
    let level = largest * l.splat(fraction);
    let (mut below, mut above, mut time, mut step) = (zero, one, zero, zero);
    let mut found = l.mask(false);
    for i in 1..t.n - 2 {
        let hit = central_difference(t, l, e, i).le(level) & frame.gt(t.index.at(l, i)) & rising;
        below = l.select(hit, central_difference(t, l, e, i), below);
        above = l.select(hit, central_difference(t, l, e, i + 1), above);
        time = l.select(hit, t.u.at(l, i), time);
        step = l.select(hit, t.dt.at(l, i), step);
        found = found | hit;
    }
    let rise = above - below;
    let crosses = found & rise.gt(zero);
    (time + step * (level - below) / l.select(crosses, rise, one), crosses)
}
