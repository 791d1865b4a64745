//! The definition in code. `shaders/descriptors.wgsl` has the same names, order and guards.
//!
//! Everything is computed in stored units, as differences from the voxel's first sample, and times from the first frame:
//! constants stay constant, and differences of integers are exact. Results are scaled when they are written.

use crate::kernel::lanes::{Lanes, Masks, Numbers};
use crate::kernel::{Curve, Rows};
use crate::quantity::SignalKind;
use crate::status;

use super::onset;
use super::outputs::{FRACTIONS, slot};
use super::tables::{NoiseFrom, Tables};

/// 97.5 % of a normal distribution lie below this many standard deviations.
const NORMAL_975: f64 = 1.959_963_984_540_054;

/// `low` where `x < low`, `high` where `x > high`.
#[inline(always)]
pub(super) fn clamp<L: Lanes>(x: L::F, low: L::F, high: L::F) -> L::F {
    x.max(low).min(high)
}

/// Whether two whole numbers are equal.
#[inline(always)]
pub(super) fn same<F: Numbers>(a: F, b: F) -> F::Mask {
    a.le(b) & a.ge(b)
}

/// The peak of a voxel.
pub(super) struct Peak<L: Lanes> {
    /// Frame.
    pub(super) frame: L::F,
    /// Enhancement of that frame.
    pub(super) e: L::F,
    /// Seconds after the first frame.
    pub(super) time: L::F,
    /// Whether the voxel enhances.
    pub(super) enhancing: L::M,
}

/// The half-rise frame of a voxel.
pub(super) struct HalfRise<L: Lanes> {
    /// Frame.
    pub(super) frame: L::F,
    /// Seconds after the first frame.
    pub(super) time: L::F,
}

/// The steepest rise of a voxel.
pub(super) struct SteepestRise<L: Lanes> {
    /// Enhancement per second.
    pub(super) slope: L::F,
    /// Mean time of the window, in seconds after the first frame.
    pub(super) time: L::F,
    /// Mean enhancement of the window.
    pub(super) e: L::F,
}

/// An integral as a weighted sum of samples.
struct Integral<L: Lanes> {
    value: L::F,
    weights: L::F,
    squared_weights: L::F,
}

#[inline(always)]
pub(super) fn evaluate<L: Lanes>(
    t: &Tables,
    status_row: usize,
    l: L,
    curve: &Curve<'_, L>,
    e: &mut [L::F],
    rows: &mut Rows<'_, L>,
) {
    let zero = l.splat(0.0);
    let one = l.splat(1.0);
    let scale = l.splat(t.scale);
    let valid = curve.finite;
    let last = t.n - 1;
    let u_last = t.u.at(l, last);
    let mut bits = l.bits(!valid, status::NON_FINITE_SAMPLE);

    // Baseline.
    let mut sum = zero;
    for i in t.a..t.b {
        sum = sum + curve.difference(i);
    }
    let mean = sum * l.splat(t.inv_baseline);
    let mut squares = zero;
    for i in t.a..t.b {
        let deviation = curve.difference(i) - mean;
        squares = squares + deviation * deviation;
    }
    let baseline_sd = (squares * l.splat(t.inv_baseline_dof)).sqrt();
    let baseline_sd_known = l.mask(t.b - t.a >= 2);
    let baseline = l.splat(t.slope) * (curve.first + mean) + l.splat(t.intercept);

    // Noise.
    let sigma = match t.noise {
        NoiseFrom::Baseline { floor } => l.select(baseline_sd_known, baseline_sd.max(l.splat(floor)), l.splat(floor)),
        NoiseFrom::Value(value) => l.splat(value),
        NoiseFrom::Layer => curve.extra[0] * l.splat(t.inv_scale),
    };
    if t.noise_elsewhere {
        bits = bits | l.bits(valid, status::NOISE_NOT_FROM_BASELINE);
    }

    // Signed enhancement, and its peak.
    let e = &mut e[..t.n];
    let peak = find_peak(t, l, curve, mean, sigma, e);
    let e = &*e;
    let enhancing = peak.enhancing & valid;
    let at_last = same(peak.frame, l.count(last)) & valid;
    bits = bits | l.bits(valid & !enhancing, status::NOT_ENHANCING) | l.bits(at_last, status::PEAK_AT_LAST_FRAME);
    let (e_max, peak_time) = if t.subframe { vertex(t, l, e, &peak) } else { (peak.e, peak.time) };

    // Half-rise frame, steepest rise, onset.
    let half_rise = if t.needs_half_rise {
        find_half_rise(t, l, e, &peak)
    } else {
        HalfRise { frame: peak.frame, time: peak.time }
    };
    let steepest = if t.needs_slope {
        find_steepest_rise(t, l, e, &peak)
    } else {
        SteepestRise { slope: zero, time: zero, e: zero }
    };
    let mut onset_time = l.splat(t.global_onset.unwrap_or(0.0));
    let mut onset_known = l.mask(t.global_onset.is_some()) & valid;
    if t.needs_own_onset {
        let (own, found) = onset::find(t, l, e, &peak, &half_rise, &steepest, sigma, enhancing);
        let usable = found & enhancing & own.lt(peak.time);
        onset_time = l.select(usable, own, onset_time);
        bits = bits | l.bits(valid & !usable & onset_known, status::GLOBAL_ONSET_USED);
        onset_known = onset_known | usable;
        if let Some(row) = t.row(slot::ONSET_SE) {
            let (error, known) = onset::piecewise_linear_error(t, l, e, &half_rise, own);
            rows.set(row, error, known & usable);
        }
    }
    if t.needs_onset {
        bits = bits | l.bits(valid & !onset_known, status::NO_ONSET);
    }
    let timed = enhancing & onset_known;
    let time_to_peak = peak_time - onset_time;
    let rising = timed & time_to_peak.gt(zero);
    if t.needs_onset {
        bits = bits | l.bits(timed & !rising, super::tables::ONSET_NOT_BEFORE_PEAK);
    }

    // Amplitudes and times.
    if let Some(row) = t.row(slot::BASELINE) {
        rows.set(row, baseline, valid);
    }
    if let Some(row) = t.row(slot::BASELINE_SE) {
        rows.set(row, sigma * scale * l.splat(t.inv_baseline.sqrt()), valid);
    }
    if let Some(row) = t.row(slot::BASELINE_SD) {
        rows.set(row, baseline_sd * scale, valid & baseline_sd_known);
    }
    if let Some(row) = t.row(slot::PEAK_ENHANCEMENT) {
        rows.set(row, e_max * scale, valid);
    }
    if let Some(row) = t.row(slot::PEAK_HEIGHT) {
        rows.set(row, e_max * scale, valid);
    }
    let positive = baseline.gt(zero);
    if let Some(row) = t.row(slot::RELATIVE_ENHANCEMENT) {
        let ratio = l.splat(100.0) * (e_max * scale) / l.select(positive, baseline, one);
        rows.set(row, ratio, valid & positive);
    }
    if t.needs_positive_baseline {
        bits = bits | l.bits(valid & !positive, status::BASELINE_NOT_POSITIVE);
    }
    if let Some(row) = t.row(slot::PEAK_TIME) {
        rows.set(row, peak_time + l.splat(t.t0), enhancing);
    }
    if let Some(row) = t.row(slot::ONSET) {
        rows.set(row, onset_time, timed);
    }
    if let Some(row) = t.row(slot::TIME_TO_PEAK) {
        rows.set(row, time_to_peak, rising);
    }
    for (i, fraction) in FRACTIONS.iter().enumerate() {
        if let Some(row) = t.row(slot::TIME_TO_FRACTION + i) {
            let (crossing, found) = last_upward_crossing(t, l, e, &peak, peak.e * l.splat(*fraction), timed);
            rows.set(row, crossing - onset_time, found);
        }
    }
    if let Some(row) = t.row(slot::WASH_IN_SLOPE) {
        let slope = e_max * scale / l.select(rising, time_to_peak, one);
        rows.set(row, slope, rising);
    }
    if let Some(row) = t.row(slot::MAX_SLOPE) {
        rows.set(row, steepest.slope * scale, valid);
    }
    if let Some(row) = t.row(slot::MAX_SLOPE_TIME) {
        rows.set(row, steepest.time + l.splat(t.t0), enhancing);
    }
    if let Some(row) = t.row(slot::WASH_OUT_SLOPE) {
        let known = enhancing & !at_last;
        let span = l.select(known, peak_time - u_last, one);
        rows.set(row, (e_max - e[last]) * scale / span, known);
    }
    if let Some(row) = t.row(slot::CONTRAST_TO_NOISE) {
        let known = valid & sigma.gt(zero);
        rows.set(row, e_max / l.select(known, sigma, one), known);
    }
    if let Some(row) = t.row(slot::FINAL_ENHANCEMENT) {
        rows.set(row, e[last] * scale, valid);
    }
    if let Some(row) = t.row(slot::FINAL_ENHANCEMENT_SE) {
        rows.set(row, sigma * scale * l.splat((1.0 + t.inv_baseline).sqrt()), valid);
    }
    let mut past_end = l.mask(false);
    if t.row(slot::LATE_SLOPE).is_some() || t.row(slot::LATE_SLOPE_SE).is_some() {
        let known = late_slope(t, l, e, &peak, onset_time, onset_known, sigma, valid, rows);
        past_end = l.mask(t.late_from.is_some()) & onset_known & !known;
    }
    if let Some(row) = t.row(slot::FWHM) {
        let half = peak.e * l.splat(0.5);
        let (rise, risen) = last_upward_crossing(t, l, e, &peak, half, enhancing);
        let (descent, descended) = first_downward_crossing(t, l, e, &peak, half, enhancing);
        rows.set(row, descent - rise, risen & descended);
        bits = bits | l.bits(enhancing & !descended, status::CENSORED);
    }
    if let Some(row) = t.row(slot::PERCENT_SIGNAL_RECOVERY) {
        let mut late = zero;
        for i in t.recovery.clone() {
            late = late + e[i];
        }
        let late = late * l.splat(1.0 / t.recovery.len() as f64);
        let ratio = late / l.select(enhancing, e_max, one);
        rows.set(row, l.splat(100.0) * (one - ratio), enhancing);
    }

    // Areas.
    let started = onset_known & onset_time.le(u_last);
    if t.row(slot::AUC).is_some() || t.row(slot::AUC_SE).is_some() || t.row(slot::MEAN_RESIDENCE_TIME).is_some() {
        let area = integral::<L, false>(t, l, e, onset_time, u_last);
        if let Some(row) = t.row(slot::AUC) {
            rows.set(row, area.value * scale, started);
        }
        if let Some(row) = t.row(slot::AUC_SE) {
            rows.set(row, standard_error(t, l, &area, sigma) * scale, started);
        }
        if t.needs_moment {
            let moment = integral::<L, true>(t, l, e, onset_time, u_last);
            write_moment(t, l, &moment, sigma, scale, started, rows);
            if let Some(row) = t.row(slot::MEAN_RESIDENCE_TIME) {
                let known = started & enhancing & area.value.gt(zero);
                rows.set(row, moment.value / l.select(known, area.value, one), known);
            }
        }
    } else if t.needs_moment {
        let moment = integral::<L, true>(t, l, e, onset_time, u_last);
        write_moment(t, l, &moment, sigma, scale, started, rows);
    }
    past_end = past_end | (onset_known & !started & l.mask(t.needs_area));
    for (i, window) in t.windows.iter().enumerate() {
        let end = onset_time + l.splat(*window);
        let inside = onset_known & end.le(u_last);
        past_end = past_end | (onset_known & !inside);
        let area = integral::<L, false>(t, l, e, onset_time, end);
        if let Some(row) = t.row(slot::IAUC + i) {
            rows.set(row, area.value * scale, inside);
        }
        if let Some(row) = t.row(slot::IAUC_SE + i) {
            rows.set(row, standard_error(t, l, &area, sigma) * scale, inside);
        }
    }

    // Ratios of early and late samples.
    if let Some(row) = t.row(slot::SIGNAL_ENHANCEMENT_RATIO) {
        let (early, early_inside) = value_at(t, l, e, onset_time + l.splat(t.ratio_times.0));
        let (late, late_inside) = value_at(t, l, e, onset_time + l.splat(t.ratio_times.1));
        let divisible = late.abs().gt(zero);
        let inside = early_inside & late_inside;
        past_end = past_end | (timed & !inside);
        rows.set(row, early / l.select(divisible, late, one), timed & inside & divisible);
    }
    if let Some(row) = t.row(slot::CURVE_TYPE) {
        let target = onset_time + l.splat(t.early_after_onset);
        past_end = past_end | (timed & target.gt(u_last));
        let known = timed & target.le(u_last);
        let label = curve_type(t, l, e, target, known, baseline, sigma * scale);
        rows.set_bits(row, label);
    }
    bits = bits | l.bits(past_end, status::WINDOW_PAST_END);
    rows.set_bits(status_row, bits);
}

/// Fills in the signed enhancement and finds its peak. Samples are compared as differences from the first one, which are
/// exact for integers.
#[inline(always)]
fn find_peak<L: Lanes>(t: &Tables, l: L, curve: &Curve<'_, L>, mean: L::F, sigma: L::F, e: &mut [L::F]) -> Peak<L> {
    let sign = l.splat(t.sign);
    for i in 0..t.b {
        e[i] = (curve.difference(i) - mean) * sign;
    }
    let three_sigma = sigma * l.splat(3.0);
    let mut frame = t.index.at(l, t.b);
    let mut time = t.u.at(l, t.b);
    let mut highest = curve.difference(t.b) * sign;
    let mut e_max = (curve.difference(t.b) - mean) * sign;
    let mut above = e_max.gt(three_sigma);
    let mut twice = l.mask(false);
    e[t.b] = e_max;
    for i in t.b + 1..t.n {
        let difference = curve.difference(i);
        let height = difference * sign;
        let e_here = (difference - mean) * sign;
        e[i] = e_here;
        let higher = height.gt(highest);
        highest = l.select(higher, height, highest);
        e_max = l.select(higher, e_here, e_max);
        frame = l.select(higher, t.index.at(l, i), frame);
        time = l.select(higher, t.u.at(l, i), time);
        let now = e_here.gt(three_sigma);
        twice = twice | (above & now);
        above = now;
    }
    let enhancing = e_max.ge(sigma * l.splat(t.enhancement_threshold)) & twice;
    Peak { frame, e: e_max, time, enhancing }
}

/// The vertex of the parabola through the peak and its neighbours, with their real spacing: height and time. A peak at
/// an edge stays as it is, also one beside a higher last baseline frame: the parabola's vertex would lie far away.
#[inline(always)]
fn vertex<L: Lanes>(t: &Tables, l: L, e: &[L::F], peak: &Peak<L>) -> (L::F, L::F) {
    let zero = l.splat(0.0);
    let mut slope = zero;
    let mut curvature = zero;
    let mut risen = l.mask(false);
    for i in t.b..t.n - 1 {
        let here = same(peak.frame, t.index.at(l, i));
        risen = risen | (here & e[i - 1].le(e[i]));
        let before = (e[i] - e[i - 1]) * t.inv_dt.at(l, i - 1);
        let after = (e[i + 1] - e[i]) * t.inv_dt.at(l, i);
        let inv_span = l.splat(1.0 / (t.dt[i - 1] + t.dt[i]));
        slope = l.select(here, (before * t.dt.at(l, i) + after * t.dt.at(l, i - 1)) * inv_span, slope);
        curvature = l.select(here, (after - before) * inv_span, curvature);
    }
    let bent = risen & curvature.lt(zero);
    let shift = l.select(bent, slope / (l.splat(-2.0) * l.select(bent, curvature, l.splat(-1.0))), zero);
    (peak.e + slope * shift * l.splat(0.5), peak.time + shift)
}

#[inline(always)]
fn find_half_rise<L: Lanes>(t: &Tables, l: L, e: &[L::F], peak: &Peak<L>) -> HalfRise<L> {
    let half = peak.e * l.splat(0.5);
    let mut frame = peak.frame;
    let mut time = peak.time;
    let mut found = l.mask(false);
    let mut reached = e[t.b].ge(half);
    for i in t.b..t.n - 1 {
        let next = e[i + 1].ge(half);
        let first = reached & next & !found;
        frame = l.select(first, t.index.at(l, i), frame);
        time = l.select(first, t.u.at(l, i), time);
        found = found | first;
        reached = next;
        if !(!found).any() {
            break;
        }
    }
    HalfRise { frame, time }
}

/// Among all windows from the last baseline frame to the peak, the least-squares line with the largest slope; all samples
/// where fewer than a window lie there.
#[inline(always)]
fn find_steepest_rise<L: Lanes>(t: &Tables, l: L, e: &[L::F], peak: &Peak<L>) -> SteepestRise<L> {
    let zero = l.splat(0.0);
    let start = t.b - 1;
    let w = t.slope_window;
    let mut steepest = match w {
        3 => steepest_window::<L, 3>(t, l, e, peak),
        _ => steepest_window::<L, 0>(t, l, e, peak),
    };
    // An early peak leaves m < w samples.
    for m in 2..w.min(t.n - start + 1) {
        let mut slope = zero;
        let mut sum = zero;
        for j in 0..m {
            slope = slope + e[start + j] * t.early_weights.at(l, (m - 2) * w + j);
            sum = sum + e[start + j];
        }
        let here = same(peak.frame, l.count(start + m - 1));
        steepest.slope = l.select(here, slope, steepest.slope);
        steepest.time = l.select(here, t.early_times.at(l, m - 2), steepest.time);
        steepest.e = l.select(here, sum * l.splat(1.0 / m as f64), steepest.e);
    }
    steepest
}

/// The steepest full window; `WIDTH` samples wide, or as wide as the settings say if that is 0.
#[inline(always)]
fn steepest_window<L: Lanes, const WIDTH: usize>(t: &Tables, l: L, e: &[L::F], peak: &Peak<L>) -> SteepestRise<L> {
    let zero = l.splat(0.0);
    let start = t.b - 1;
    let w = if WIDTH == 0 { t.slope_window } else { WIDTH };
    let inv_w = l.splat(1.0 / w as f64);
    let mut steepest = SteepestRise { slope: zero, time: zero, e: zero };
    let mut found = l.mask(false);
    for i in start..(t.n + 1).saturating_sub(w).max(start) {
        let within = peak.frame.ge(t.index.at(l, i + w - 1));
        if !within.any() {
            break;
        }
        let mut slope = zero;
        let mut sum = zero;
        for j in 0..w {
            slope = slope + e[i + j] * t.slope_weights.at(l, (i - start) * w + j);
            sum = sum + e[i + j];
        }
        let better = within & (!found | slope.gt(steepest.slope));
        steepest.slope = l.select(better, slope, steepest.slope);
        steepest.time = l.select(better, t.slope_times.at(l, i - start), steepest.time);
        steepest.e = l.select(better, sum * inv_w, steepest.e);
        found = found | better;
    }
    steepest
}

/// Walking back from the peak: where the curve last crosses a level upward, linear between samples. Only for voxels that
/// are wanted.
#[inline(always)]
pub(super) fn last_upward_crossing<L: Lanes>(
    t: &Tables,
    l: L,
    e: &[L::F],
    peak: &Peak<L>,
    level: L::F,
    wanted: L::M,
) -> (L::F, L::M) {
    let zero = l.splat(0.0);
    let (mut below, mut above, mut time, mut step) = (zero, l.splat(1.0), zero, zero);
    let mut open = wanted;
    for i in (0..t.n - 1).rev() {
        if !open.any() {
            break;
        }
        let hit = open & e[i].le(level) & peak.frame.gt(t.index.at(l, i));
        below = l.select(hit, e[i], below);
        above = l.select(hit, e[i + 1], above);
        time = l.select(hit, t.u.at(l, i), time);
        step = l.select(hit, t.dt.at(l, i), step);
        open = open & !hit;
    }
    let rise = above - below;
    let upward = wanted & !open & rise.gt(zero);
    (time + step * (level - below) / l.select(upward, rise, l.splat(1.0)), upward)
}

/// Going on from the peak: where the curve first comes down to a level, linear between samples. Only for voxels that are
/// wanted.
#[inline(always)]
fn first_downward_crossing<L: Lanes>(
    t: &Tables,
    l: L,
    e: &[L::F],
    peak: &Peak<L>,
    level: L::F,
    wanted: L::M,
) -> (L::F, L::M) {
    let zero = l.splat(0.0);
    let (mut above, mut below, mut time, mut step) = (l.splat(1.0), zero, zero, zero);
    let mut open = wanted;
    for i in t.b..t.n - 1 {
        if !open.any() {
            break;
        }
        let hit = open & e[i + 1].le(level) & peak.frame.le(t.index.at(l, i));
        above = l.select(hit, e[i], above);
        below = l.select(hit, e[i + 1], below);
        time = l.select(hit, t.u.at(l, i), time);
        step = l.select(hit, t.dt.at(l, i), step);
        open = open & !hit;
    }
    let fall = above - below;
    let downward = wanted & !open & fall.gt(zero);
    (time + step * (above - level) / l.select(downward, fall, l.splat(1.0)), downward)
}

/// The enhancement at a time, linear between samples; not inside after the last frame.
#[inline(always)]
fn value_at<L: Lanes>(t: &Tables, l: L, e: &[L::F], time: L::F) -> (L::F, L::M) {
    let mut value = e[0];
    for i in 0..t.n - 1 {
        let reached = time.ge(t.u.at(l, i));
        let along = e[i] + (e[i + 1] - e[i]) * ((time - t.u.at(l, i)) * t.inv_dt.at(l, i));
        value = l.select(reached, along, value);
    }
    (value, time.le(t.u.at(l, t.n - 1)))
}

/// The exact integral of the piecewise-linear enhancement between two times (with `MOMENT`: of the enhancement times the
/// time since the first of them), as a weighted sum of the samples. The weights' sums only where standard errors are asked for.
#[inline(always)]
fn integral<L: Lanes, const MOMENT: bool>(t: &Tables, l: L, e: &[L::F], from: L::F, to: L::F) -> Integral<L> {
    if t.needs_weights {
        weighted_integral::<L, MOMENT, true>(t, l, e, from, to)
    } else {
        weighted_integral::<L, MOMENT, false>(t, l, e, from, to)
    }
}

#[inline(always)]
fn weighted_integral<L: Lanes, const MOMENT: bool, const WEIGHTS: bool>(
    t: &Tables,
    l: L,
    e: &[L::F],
    from: L::F,
    to: L::F,
) -> Integral<L> {
    let zero = l.splat(0.0);
    let one = l.splat(1.0);
    let half = l.splat(0.5);
    let mut value = zero;
    let mut weights = zero;
    let mut squared_weights = zero;
    let mut pending = zero;
    for i in t.first_segment..t.n - 1 {
        let u = t.u.at(l, i);
        if !to.gt(u).any() {
            break;
        }
        let dt = t.dt.at(l, i);
        let inv_dt = t.inv_dt.at(l, i);
        // The part of the segment inside the window, from a to b in units of the segment.
        let a = clamp::<L>((from - u) * inv_dt, zero, one);
        let b = clamp::<L>((to - u) * inv_dt, zero, one);
        let length = b - a;
        let first_moment = (b + a) * length * half;
        let (left, right) = if MOMENT {
            let second_moment = (b * b + a * b + a * a) * length * l.splat(1.0 / 3.0);
            let since = u - from;
            let right = dt * (since * first_moment + dt * second_moment);
            (dt * (since * length + dt * first_moment) - right, right)
        } else {
            let right = dt * first_moment;
            (dt * length - right, right)
        };
        value = value + left * e[i] + right * e[i + 1];
        if WEIGHTS {
            let weight = pending + left;
            weights = weights + weight;
            squared_weights = squared_weights + weight * weight;
            pending = right;
        }
    }
    weights = weights + pending;
    squared_weights = squared_weights + pending * pending;
    Integral { value, weights, squared_weights }
}

/// sqrt(sigma^2 (sum w^2 + (sum w)^2 / n)), in stored units.
#[inline(always)]
fn standard_error<L: Lanes>(t: &Tables, l: L, integral: &Integral<L>, sigma: L::F) -> L::F {
    let baseline_part = integral.weights * integral.weights * l.splat(t.inv_baseline);
    sigma * (integral.squared_weights + baseline_part).sqrt()
}

#[inline(always)]
fn write_moment<L: Lanes>(
    t: &Tables,
    l: L,
    moment: &Integral<L>,
    sigma: L::F,
    scale: L::F,
    known: L::M,
    rows: &mut Rows<'_, L>,
) {
    if let Some(row) = t.row(slot::AUMC) {
        rows.set(row, moment.value * scale, known);
    }
    if let Some(row) = t.row(slot::AUMC_SE) {
        rows.set(row, standard_error(t, l, moment, sigma) * scale, known);
    }
}

/// Least-squares slope from the peak (or a time after the onset) to the last frame. Times count back from the last frame
/// and values from its enhancement, so that nothing large cancels. Returns where there are enough samples.
#[expect(clippy::too_many_arguments, reason = "the state of a voxel, passed on")]
#[inline(always)]
fn late_slope<L: Lanes>(
    t: &Tables,
    l: L,
    e: &[L::F],
    peak: &Peak<L>,
    onset_time: L::F,
    onset_known: L::M,
    sigma: L::F,
    valid: L::M,
    rows: &mut Rows<'_, L>,
) -> L::M {
    let zero = l.splat(0.0);
    let one = l.splat(1.0);
    let last = t.n - 1;
    let (mut count, mut sx, mut sxx, mut sy, mut sxy) = (zero, zero, zero, zero, zero);
    let start = match t.late_from {
        Some(after) => onset_time + l.splat(after),
        None => zero,
    };
    for i in t.b..t.n {
        let inside = match t.late_from {
            Some(_) => start.le(t.u.at(l, i)),
            None => peak.frame.le(t.index.at(l, i)),
        };
        let x = t.to_end.at(l, i);
        let y = e[i] - e[last];
        count = count + l.select(inside, one, zero);
        sx = sx + l.select(inside, x, zero);
        sxx = sxx + l.select(inside, x * x, zero);
        sy = sy + l.select(inside, y, zero);
        sxy = sxy + l.select(inside, x * y, zero);
    }
    let known = match t.late_from {
        Some(_) => onset_known,
        None => valid,
    } & count.ge(l.splat(2.0));
    let determinant = l.select(known, count * sxx - sx * sx, one);
    if let Some(row) = t.row(slot::LATE_SLOPE) {
        rows.set(row, (sx * sy - count * sxy) / determinant * l.splat(t.scale), known);
    }
    if let Some(row) = t.row(slot::LATE_SLOPE_SE) {
        let variance = l.select(known, count, one) / determinant;
        rows.set(row, sigma * l.splat(t.scale) * variance.max(zero).sqrt(), known);
    }
    known
}

/// The label of the late course; 0 where it isn't known.
#[inline(always)]
fn curve_type<L: Lanes>(t: &Tables, l: L, e: &[L::F], target: L::F, known: L::M, baseline: L::F, sigma: L::F) -> L::U {
    let zero = l.splat(0.0);
    let one = l.splat(1.0);
    let half_width = l.splat(t.early_half_width);
    let (mut count, mut sum, mut shared) = (zero, zero, zero);
    let mut nearest = e[0];
    let mut distance = (target - t.u.at(l, 0)).abs();
    let mut nearest_is_late = l.mask(t.late_first == 0);
    for i in 0..t.n {
        let away = (target - t.u.at(l, i)).abs();
        let inside = away.le(half_width);
        count = count + l.select(inside, one, zero);
        sum = sum + l.select(inside, e[i], zero);
        let late = l.mask(i >= t.late_first);
        shared = shared + l.select(inside & late, one, zero);
        let nearer = away.lt(distance);
        nearest = l.select(nearer, e[i], nearest);
        nearest_is_late = (nearer & late) | (!nearer & nearest_is_late);
        distance = l.select(nearer, away, distance);
    }
    let none = count.lt(one);
    sum = l.select(none, nearest, sum);
    shared = l.select(none, l.select(nearest_is_late, one, zero), shared);
    count = l.select(none, one, count);
    let mut late_sum = zero;
    for i in t.late_first..t.n {
        late_sum = late_sum + e[i];
    }
    let inv_late = l.splat(1.0 / (t.n - t.late_first) as f64);
    let scale = l.splat(t.scale);
    let mut early = sum / count * scale;
    let mut late = late_sum * inv_late * scale;
    if t.kind == SignalKind::Signal {
        let direction = l.splat(t.direction);
        early = baseline + early * direction;
        late = baseline + late * direction;
    }
    let known = known & early.gt(zero);
    let early = l.select(known, early, one);
    let ratio = late / early;
    let change = l.splat(100.0) * (ratio - one);
    let mut variance = inv_late + ratio * ratio / count - l.splat(2.0) * ratio * shared * inv_late / count;
    if t.kind != SignalKind::Signal {
        // The baseline's noise is common to both means and remains in their ratio.
        variance = variance + (one - ratio) * (one - ratio) * l.splat(t.inv_baseline);
    }
    let error = l.splat(100.0 * NORMAL_975) * sigma / early * variance.max(zero).sqrt();
    let ten = l.splat(10.0);
    let undetermined = (change - ten).abs().le(error) | (change + ten).abs().le(error);
    let persistent = change.gt(ten);
    let wash_out = change.lt(-ten);
    l.bits(known & !undetermined & persistent, 1)
        | l.bits(known & !undetermined & !persistent & !wash_out, 2)
        | l.bits(known & !undetermined & wash_out, 3)
        | l.bits(known & undetermined, 4)
}
