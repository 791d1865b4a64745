//! The definition in code. `shaders/filling_time.wgsl` has the same names, order and guards.
//!
//! Everything is computed in stored units, as differences from the voxel's first sample, and times from the first frame.

#![expect(clippy::needless_range_loop, reason = "indices keep the text comparable with the shader's")]

use crate::kernel::lanes::{Lanes, Numbers};
use crate::kernel::{Curve, Rows};
use crate::status;

use super::tables::{FEWEST_AFTER, LOG_TAU_SD, TAUS, Tables};

/// Guards a division whose result doesn't matter.
const TINY: f64 = 1e-30;

/// The rows of the output.
pub(super) mod row {
    pub(in super::super) const ARRIVAL: usize = 0;
    pub(in super::super) const ARRIVAL_SE: usize = 1;
    pub(in super::super) const BASELINE: usize = 2;
    pub(in super::super) const PLATEAU: usize = 3;
    pub(in super::super) const TAU: usize = 4;
    pub(in super::super) const NOISE: usize = 5;
    pub(in super::super) const CROSSING: usize = 6;
    pub(in super::super) const CROSSING_SE: usize = 7;
}

/// The best fit for one time constant.
#[derive(Clone, Copy)]
struct Break<L: Lanes> {
    /// What the rise explains of the sum of squares about the mean.
    gain: L::F,
    /// Seconds after the first frame.
    arrival: L::F,
    found: L::M,
}

/// The front's curve at a given arrival and time constant: linear least squares.
struct Front<L: Lanes> {
    constant: L::F,
    plateau: L::F,
    /// Of the sum of squares about the mean, what the rise explains, and what is left.
    explained: L::F,
    squares: L::F,
}

/// The samples after a break point: the regressor is w = 1 - exp(-(t - t_k) / tau), seen from frame k.
#[derive(Clone, Copy)]
struct After<L: Lanes> {
    count: L::F,
    mean_w: L::F,
    mean_y: L::F,
    ww: L::F,
    wy: L::F,
}

#[inline(always)]
pub(super) fn evaluate<L: Lanes>(t: &Tables, l: L, curve: &Curve<'_, L>, scratch: &mut [L::F], rows: &mut Rows<'_, L>) {
    let zero = l.splat(0.0);
    let one = l.splat(1.0);
    let scale = l.splat(t.scale);
    let valid = curve.finite;
    let mut bits = l.bits(!valid, status::NON_FINITE_SAMPLE);
    let (y, rise) = scratch.split_at_mut(t.n);
    let sign = l.splat(t.sign);
    for i in 0..t.n {
        y[i] = curve.difference(i) * sign;
    }
    let y = &*y;
    let mut total = zero;
    for i in 0..t.m {
        total = total + y[i];
    }

    // The front: a grid of time constants first.
    let (mut best, mut best_gain) = (zero, zero);
    let (mut arrival_before, mut arrival_at, mut arrival_after) = (zero, zero, zero);
    let mut previous = zero;
    let mut previous_was_best = l.mask(false);
    for j in 0..TAUS {
        for k in 0..t.m - 1 {
            rise[k] = t.rho.at(l, j * (t.n - 1) + k);
        }
        let there = best_break(t, l, y, total, rise, t.taus.at(l, j));
        arrival_after = l.select(previous_was_best, there.arrival, arrival_after);
        let better = there.found & there.gain.gt(best_gain);
        arrival_before = l.select(better, previous, arrival_before);
        arrival_at = l.select(better, there.arrival, arrival_at);
        best_gain = l.select(better, there.gain, best_gain);
        best = l.select(better, l.count(j), best);
        previous = there.arrival;
        previous_was_best = better;
    }
    // Then the vertex of the parabola through the sums of squares of the best and its neighbours.
    let lowest = best.le(zero);
    let highest = best.ge(l.count(TAUS - 1));
    let arrivals = [arrival_before, arrival_at, arrival_after];
    let mut squares = [zero; 3];
    let (mut tau, mut arrival, mut found) = (one, zero, l.mask(false));
    let mut front = Front { constant: zero, plateau: zero, explained: zero, squares: zero };
    for round in 0..4 {
        let mut place = best + l.count(round) - one;
        if round < 3 {
            tau = log_tau(t, l, place).exp();
            arrival = arrivals[round];
        } else {
            let curvature = (squares[0] - squares[1]) + (squares[2] - squares[1]);
            let inner = !lowest & !highest & curvature.gt(zero);
            let vertex = (squares[0] - squares[2]) * l.splat(0.5) / l.select(inner, curvature, one);
            place = best + l.select(inner, vertex.max(-one).min(one), zero);
            tau = log_tau(t, l, place).exp();
            for k in 0..t.m - 1 {
                rise[k] = one_minus_exp(l, t.dt.at(l, k) / tau);
            }
            let there = best_break(t, l, y, total, rise, tau);
            arrival = there.arrival;
            found = there.found & valid;
        }
        for i in 0..t.m {
            rise[i] = one_minus_exp(l, (t.u.at(l, i) - arrival).max(zero) / tau);
        }
        front = fit_front(t, l, y, rise);
        if round < 3 {
            squares[round] = front.squares;
        }
    }
    let rise = &*rise;
    let dof = l.count(t.m - 4);
    let noise = (front.squares / dof).sqrt();

    // Does it enhance?
    let mut highest_e = l.splat(-f64::from(f32::MAX));
    let mut pair = highest_e;
    let mut previous_e = y[0] - front.constant;
    for i in 1..t.n {
        let e = y[i] - front.constant;
        highest_e = highest_e.max(e);
        pair = pair.max(previous_e.min(e));
        previous_e = e;
    }
    let least = noise * l.splat(t.enhancement_threshold);
    let enhancing = found
        & front.plateau.gt(zero)
        & highest_e.gt(zero)
        & highest_e.ge(least)
        & front.explained.ge(least * least)
        & pair.gt(noise * l.splat(3.0));
    bits = bits | l.bits(valid & !enhancing, status::NOT_ENHANCING);
    bits =
        bits | l.bits(enhancing & lowest, status::AT_LOWER_BOUND) | l.bits(enhancing & highest, status::AT_UPPER_BOUND);

    let (error, known) = arrival_error(t, l, rise, arrival, tau, &front, noise);
    bits = bits | l.bits(enhancing & !known, status::NOT_IDENTIFIABLE);
    rows.set(row::ARRIVAL, arrival + l.splat(t.t0), enhancing);
    rows.set(row::ARRIVAL_SE, error, enhancing & known);
    let baseline =
        l.splat(t.slope) * curve.first + l.splat(t.intercept) + l.splat(t.direction) * scale * front.constant;
    rows.set(row::BASELINE, baseline, valid);
    rows.set(row::PLATEAU, front.plateau * scale, enhancing);
    rows.set(row::TAU, tau, enhancing);
    rows.set(row::NOISE, noise * scale, valid);

    let mut status_row = row::CROSSING;
    if let Some(level) = t.level {
        status_row = row::CROSSING_SE + 1;
        let threshold = front.constant + l.splat(level);
        bits = bits | cross_level(t, l, y, threshold, noise, valid, enhancing, rows);
    }
    rows.set_bits(status_row, bits);
}

/// The logarithm of the time constant at a place of the grid, also between its points.
#[inline(always)]
fn log_tau<L: Lanes>(t: &Tables, l: L, index: L::F) -> L::F {
    l.splat(t.log_tau_first) + index * l.splat(t.log_tau_step)
}

#[inline(always)]
fn nothing_after<L: Lanes>(l: L) -> After<L> {
    let zero = l.splat(0.0);
    After { count: zero, mean_w: zero, mean_y: zero, ww: zero, wy: zero }
}

/// Goes back a frame: w becomes w + rho (1 - w), and the sample of the frame after, at w = rho, joins.
#[inline(always)]
fn join<L: Lanes>(l: L, a: After<L>, rho: L::F, y: L::F) -> After<L> {
    let one = l.splat(1.0);
    let kept = one - rho;
    let below = kept * a.mean_w;
    let above = y - a.mean_y;
    let share = one / (a.count + one);
    let kept_share = a.count * share;
    After {
        count: a.count + one,
        mean_w: rho + below * (one - share),
        mean_y: a.mean_y + above * share,
        ww: kept * kept * a.ww + below * below * kept_share,
        wy: kept * a.wy - below * above * kept_share,
    }
}

/// The best break point between frame k and the next: what it explains, and w there.
///
/// Before it a constant, after it a line in w that meets the constant at the break point. If the line's own crossing lies
/// between the frames, both sides are free; else the break point is frame k.
#[inline(always)]
fn candidate<L: Lanes>(t: &Tables, l: L, sum_before: L::F, a: After<L>, rho: L::F, k: usize) -> (L::F, L::F, L::M) {
    let zero = l.splat(0.0);
    let one = l.splat(1.0);
    let before = l.count(k + 1);
    let constant = sum_before / before;
    // before * after / all.
    let weight = before * a.count * l.splat(1.0 / t.m as f64);
    let rise = a.mean_y - constant;
    let of_means = weight * rise * rise;
    // The line reaches the constant at w = mean_w - rise * ww / wy.
    let reach = a.mean_w * a.wy - rise * a.ww;
    let crosses = a.wy.gt(zero) & a.ww.gt(zero) & reach.ge(zero) & reach.lt(rho * a.wy);
    let sww = a.ww + weight * a.mean_w * a.mean_w;
    let swy = a.wy + weight * a.mean_w * rise;
    let usable = crosses | (swy.gt(zero) & sww.gt(zero));
    let numerator = l.select(crosses, a.wy * a.wy, swy * swy);
    let denominator = l.select(crosses, a.ww, l.select(usable, sww, one));
    let gain = l.select(crosses, of_means, zero) + numerator / denominator.max(l.splat(TINY));
    let w = l.select(crosses, reach / l.select(crosses, a.wy, one), zero);
    (gain, w, usable)
}

/// The best break point for one time constant; `rho` holds 1 - exp(-dt / tau) of every step.
#[inline(always)]
fn best_break<L: Lanes>(t: &Tables, l: L, y: &[L::F], total: L::F, rho: &[L::F], tau: L::F) -> Break<L> {
    let zero = l.splat(0.0);
    let mut before = total;
    let mut a = nothing_after(l);
    let (mut gain, mut time, mut w) = (zero, zero, zero);
    let mut found = l.mask(false);
    for k in (1..t.m - 1).rev() {
        a = join(l, a, rho[k], y[k + 1]);
        before = before - y[k + 1];
        if k + 1 + FEWEST_AFTER > t.m {
            continue;
        }
        let (gain_here, w_here, usable) = candidate(t, l, before, a, rho[k], k);
        // From late to early: of equals, the earliest.
        let better = usable & gain_here.ge(gain);
        gain = l.select(better, gain_here, gain);
        time = l.select(better, t.u.at(l, k), time);
        w = l.select(better, w_here, w);
        found = found | better;
    }
    Break { gain, arrival: time - tau * ln_one_minus(l, w), found }
}

/// Constant, plateau and sum of squared residuals for a given rise w.
#[inline(always)]
fn fit_front<L: Lanes>(t: &Tables, l: L, y: &[L::F], rise: &[L::F]) -> Front<L> {
    let zero = l.splat(0.0);
    let one = l.splat(1.0);
    let inv_m = l.splat(1.0 / t.m as f64);
    let (mut mean_w, mut mean_y) = (zero, zero);
    for i in 0..t.m {
        mean_w = mean_w + rise[i];
        mean_y = mean_y + y[i];
    }
    mean_w = mean_w * inv_m;
    mean_y = mean_y * inv_m;
    let (mut ww, mut wy) = (zero, zero);
    for i in 0..t.m {
        let w = rise[i] - mean_w;
        ww = ww + w * w;
        wy = wy + w * (y[i] - mean_y);
    }
    let plateau = wy / l.select(ww.gt(zero), ww, one);
    let constant = mean_y - plateau * mean_w;
    let mut squares = zero;
    for i in 0..t.m {
        let residual = (y[i] - constant) - plateau * rise[i];
        squares = squares + residual * residual;
    }
    Front { constant, plateau, explained: plateau * wy, squares }
}

/// The standard error of the arrival from (J'J)^-1 SSE/dof over constant, plateau, arrival and time constant.
///
/// The derivatives are 1, w, -(a/tau) h and -(a/tau) h (t - T)/tau with h = exp(-(t - T)/tau) after the arrival.
#[inline(always)]
fn arrival_error<L: Lanes>(
    t: &Tables,
    l: L,
    rise: &[L::F],
    arrival: L::F,
    tau: L::F,
    front: &Front<L>,
    noise: L::F,
) -> (L::F, L::M) {
    let zero = l.splat(0.0);
    let one = l.splat(1.0);
    let inv_tau = one / tau;
    let inv_m = l.splat(1.0 / t.m as f64);
    let (mut mean_w, mut mean_h, mut mean_g) = (zero, zero, zero);
    for i in 0..t.m {
        let (w, h, g) = derivatives(t, l, rise, i, arrival, inv_tau);
        mean_w = mean_w + w;
        mean_h = mean_h + h;
        mean_g = mean_g + g;
    }
    mean_w = mean_w * inv_m;
    mean_h = mean_h * inv_m;
    mean_g = mean_g * inv_m;
    let (mut ww, mut wh, mut wg, mut hh, mut hg, mut gg) = (zero, zero, zero, zero, zero, zero);
    for i in 0..t.m {
        let (w, h, g) = derivatives(t, l, rise, i, arrival, inv_tau);
        let (w, h, g) = (w - mean_w, h - mean_h, g - mean_g);
        ww = ww + w * w;
        wh = wh + w * h;
        wg = wg + w * g;
        hh = hh + h * h;
        hg = hg + h * g;
        gg = gg + g * g;
    }
    let rises = front.plateau.gt(zero) & ww.gt(zero);
    let plateau = l.select(rises, front.plateau, one);
    let relative = noise / plateau;
    gg = gg + relative * relative * l.splat(1.0 / (LOG_TAU_SD * LOG_TAU_SD));
    let inv_ww = one / l.select(rises, ww, one);
    let hh = hh - wh * wh * inv_ww;
    let hg = hg - wh * wg * inv_ww;
    let gg = gg - wg * wg * inv_ww;
    let independent = gg.gt(zero);
    let information = hh - l.select(independent, hg * hg / l.select(independent, gg, one), zero);
    let known = rises & information.gt(zero);
    (tau * relative / l.select(known, information, one).sqrt(), known)
}

/// w, h and h (t - T)/tau at a frame; 0 before the arrival.
#[inline(always)]
fn derivatives<L: Lanes>(
    t: &Tables,
    l: L,
    rise: &[L::F],
    frame: usize,
    arrival: L::F,
    inv_tau: L::F,
) -> (L::F, L::F, L::F) {
    let zero = l.splat(0.0);
    let since = (t.u.at(l, frame) - arrival) * inv_tau;
    let w = rise[frame];
    let h = l.select(since.gt(zero), l.splat(1.0) - w, zero);
    (w, h, h * since)
}

/// Where the isotonic regression of the samples crosses a threshold; returns status bits.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "a fit, a level, memory and where the result goes")]
fn cross_level<L: Lanes>(
    t: &Tables,
    l: L,
    y: &[L::F],
    threshold: L::F,
    noise: L::F,
    valid: L::M,
    enhancing: L::M,
    rows: &mut Rows<'_, L>,
) -> L::U {
    let zero = l.splat(0.0);
    let one = l.splat(1.0);
    let half = l.count(t.half_window);
    // The first frame above: where the sums of (sample - threshold) up to it are least.
    let (mut sum, mut least, mut first) = (zero, zero, zero);
    for i in 0..t.m {
        sum = sum + (y[i] - threshold);
        let lower = sum.lt(least);
        least = l.select(lower, sum, least);
        first = l.select(lower, t.index.at(l, i + 1), first);
    }
    let from_start = first.le(zero);
    let never = first.ge(l.count(t.m));
    let crosses = enhancing & !from_start & !never;
    // The line through the samples around it; times from the frame itself.
    let last = l.count(t.m - 1);
    let at = l.select(never, last, first);
    let time_at = l.lookup(&t.u, at);
    let (mut count, mut sx, mut sy) = (zero, zero, zero);
    for j in 0..2 * t.half_window {
        let frame = at - half + l.count(j);
        let inside = frame.ge(zero) & frame.le(last);
        let frame = frame.max(zero).min(last);
        let x = l.lookup(&t.u, frame) - time_at;
        count = count + l.select(inside, one, zero);
        sx = sx + l.select(inside, x, zero);
        sy = sy + l.select(inside, l.gather(y, frame) - threshold, zero);
    }
    let (mean_x, mean_y) = (sx / count, sy / count);
    let (mut sxx, mut sxy) = (zero, zero);
    let (mut earliest, mut latest) = (zero, zero);
    for j in 0..2 * t.half_window {
        let frame = at - half + l.count(j);
        let inside = frame.ge(zero) & frame.le(last);
        let frame = frame.max(zero).min(last);
        let from_at = l.lookup(&t.u, frame) - time_at;
        let x = from_at - mean_x;
        sxx = sxx + l.select(inside, x * x, zero);
        sxy = sxy + l.select(inside, x * ((l.gather(y, frame) - threshold) - mean_y), zero);
        earliest = earliest.min(l.select(inside, from_at, zero));
        latest = latest.max(l.select(inside, from_at, zero));
    }
    let rising = crosses & sxy.gt(zero) & sxx.gt(zero);
    let inv_slope = sxx / l.select(rising, sxy, one);
    let on_line = mean_x - mean_y * inv_slope;
    // Where no line rises: half a step before the frame.
    let half_step = (l.lookup(&t.u, (at - one).max(zero)) - time_at) * l.splat(0.5);
    let from_at = l.select(rising, on_line.max(earliest).min(latest), half_step);
    let lever = from_at - mean_x;
    let error = noise * inv_slope.abs() * (one / count + lever * lever / l.select(rising, sxx, one)).sqrt();
    rows.set(row::CROSSING, time_at + from_at + l.splat(t.t0), crosses);
    rows.set(row::CROSSING_SE, error, rising);
    l.bits(valid & never, status::CENSORED)
        | l.bits(valid & from_start, status::AT_LOWER_BOUND)
        | l.bits(crosses & !rising, status::NOT_IDENTIFIABLE)
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
