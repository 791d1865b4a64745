//! The definition in code. `shaders/descriptors.wgsl` has the same names, order and guards.
//!
//! Everything is computed in stored units, as differences from the voxel's first sample, and times from the first frame:
//! constants stay constant, and differences of integers are exact. Results are scaled when they are written.

#![expect(clippy::needless_range_loop, reason = "indices keep the text comparable with the shader's")]

use crate::kernel::lanes::{Lanes, Masks, Numbers};
use crate::kernel::{Curve, Rows};
use crate::quantity::SignalKind;
use crate::status;

use super::outputs::{FRACTIONS, HALF, MAX_WINDOWS, slot};
use super::tables::{NoiseFrom, Tables};
use super::{onset, status_bit};

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
            bits = bits | l.bits(usable & !known, status::NOT_IDENTIFIABLE);
        }
    }
    if t.needs_onset {
        bits = bits | l.bits(valid & !onset_known, status::NO_ONSET);
    }
    let timed = enhancing & onset_known;
    let time_to_peak = peak_time - onset_time;
    let rising = timed & time_to_peak.gt(zero);
    if t.needs_onset {
        bits = bits | l.bits(timed & !rising, status_bit::ONSET_NOT_BEFORE_PEAK);
    }

    let mut without_divisor = l.mask(false);

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
    let crossings = if t.needs_crossings {
        let levels = FRACTIONS.map(|fraction| peak.e * l.splat(fraction));
        last_upward_crossings(t, l, e, &peak, levels, enhancing)
    } else {
        [(zero, l.mask(false)); FRACTIONS.len()]
    };
    for (i, (crossing, found)) in crossings.iter().enumerate() {
        if let Some(row) = t.row(slot::TIME_TO_FRACTION + i) {
            rows.set(row, *crossing - onset_time, timed & *found);
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
        without_divisor = without_divisor | (valid & !known);
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
        let (rise, risen) = crossings[HALF];
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
    let started = onset_known & onset_time.ge(t.u.at(l, 0)) & onset_time.le(u_last);
    past_end = past_end | (onset_known & !started & l.mask(t.needs_area));
    if t.needs_area || !t.windows.is_empty() {
        let (area, beyond) = if t.needs_weights {
            areas::<L, true>(t, l, e, onset_time, started, sigma, rows)
        } else {
            areas::<L, false>(t, l, e, onset_time, started, sigma, rows)
        };
        past_end = past_end | (onset_known & beyond);
        if let Some(row) = t.row(slot::AUC) {
            rows.set(row, area.value * scale, started);
        }
        if let Some(row) = t.row(slot::AUC_SE) {
            rows.set(row, standard_error(t, l, &area, sigma) * scale, started);
        }
        if t.needs_moment {
            let moment = moment(t, l, e, onset_time);
            if let Some(row) = t.row(slot::AUMC) {
                rows.set(row, moment.value * scale, started);
            }
            if let Some(row) = t.row(slot::AUMC_SE) {
                rows.set(row, standard_error(t, l, &moment, sigma) * scale, started);
            }
            if let Some(row) = t.row(slot::MEAN_RESIDENCE_TIME) {
                let known = started & enhancing & area.value.gt(zero);
                rows.set(row, moment.value / l.select(known, area.value, one), known);
                without_divisor = without_divisor | (started & enhancing & !known);
            }
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
        without_divisor = without_divisor | (timed & inside & !divisible);
    }
    if let Some(row) = t.row(slot::CURVE_TYPE) {
        let target = onset_time + l.splat(t.early_after_onset);
        past_end = past_end | (timed & target.gt(u_last));
        let known = timed & target.le(u_last);
        let (label, labelled) = curve_type(t, l, e, target, known, baseline, sigma * scale);
        rows.set_bits(row, label);
        without_divisor = without_divisor | (known & !labelled);
    }
    bits = bits | l.bits(past_end, status::WINDOW_PAST_END) | l.bits(without_divisor, status_bit::NO_DIVISOR);
    rows.set_bits(status_row, bits);
}

/// Fills in the signed enhancement and finds its peak. Samples are compared as differences from the first one, which are
/// exact for integers.
#[inline(always)]
fn find_peak<L: Lanes>(t: &Tables, l: L, curve: &Curve<'_, L>, mean: L::F, sigma: L::F, e: &mut [L::F]) -> Peak<L> {
    let sign = l.splat(t.sign);
    let level = mean * sign;
    for i in 0..t.b {
        e[i] = curve.difference(i) * sign - level;
    }
    let mut frame = t.index.at(l, t.b);
    let mut highest = curve.difference(t.b) * sign;
    e[t.b] = highest - level;
    // The largest lower one of two consecutive samples: both exceed a level if it does.
    let mut previous = e[t.b];
    let mut pair = l.splat(-f64::from(f32::MAX));
    for i in t.b + 1..t.n {
        let height = curve.difference(i) * sign;
        let e_here = height - level;
        e[i] = e_here;
        let higher = height.gt(highest);
        highest = l.select(higher, height, highest);
        frame = l.select(higher, t.index.at(l, i), frame);
        pair = pair.max(previous.min(e_here));
        previous = e_here;
    }
    let e_max = highest - level;
    let twice = pair.gt(sigma * l.splat(3.0));
    let enhancing = e_max.ge(sigma * l.splat(t.enhancement_threshold)) & twice;
    Peak { frame, e: e_max, time: l.lookup(&t.u, frame), enhancing }
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
    let mut open = l.mask(true);
    for i in t.b..t.n - 1 {
        let first = open & e[i].min(e[i + 1]).ge(half);
        frame = l.select(first, t.index.at(l, i), frame);
        open = open & !first;
        if !open.any() {
            break;
        }
    }
    HalfRise { frame, time: l.lookup(&t.u, frame) }
}

/// Among all windows from the last baseline frame to the peak, the least-squares line with the largest slope; all samples
/// where fewer than a window lie there.
#[inline(always)]
fn find_steepest_rise<L: Lanes>(t: &Tables, l: L, e: &[L::F], peak: &Peak<L>) -> SteepestRise<L> {
    let zero = l.splat(0.0);
    let start = t.b - 1;
    let w = t.slope_window;
    let (mut slope, window) = match w {
        3 => steepest_window::<L, 3>(t, l, e, peak),
        _ => steepest_window::<L, 0>(t, l, e, peak),
    };
    let mut time = if t.slope_times.is_empty() { zero } else { l.lookup(&t.slope_times, window) };
    let mut mean = zero;
    if t.needs_slope_mean {
        for i in 0..t.slope_times.len() {
            let mut sum = zero;
            for j in 0..w {
                sum = sum + e[start + i + j];
            }
            mean = l.select(same(window, t.index.at(l, i)), sum * l.splat(1.0 / w as f64), mean);
        }
    }
    // An early peak leaves m < w samples.
    for m in 2..w.min(t.n - start + 1) {
        let here = same(peak.frame, l.count(start + m - 1));
        if !here.any() {
            continue;
        }
        let mut early_slope = zero;
        let mut sum = zero;
        for j in 0..m {
            early_slope = early_slope + e[start + j] * t.early_weights.at(l, (m - 2) * w + j);
            sum = sum + e[start + j];
        }
        slope = l.select(here, early_slope, slope);
        time = l.select(here, t.early_times.at(l, m - 2), time);
        mean = l.select(here, sum * l.splat(1.0 / m as f64), mean);
    }
    SteepestRise { slope, time, e: mean }
}

/// The least-squares slope of one window; `WIDTH` samples wide, or as wide as the settings say if that is 0.
#[inline(always)]
fn window_slope<L: Lanes, const WIDTH: usize>(t: &Tables, l: L, e: &[L::F], window: usize) -> L::F {
    let w = if WIDTH == 0 { t.slope_window } else { WIDTH };
    let samples = &e[t.b - 1 + window..][..w];
    let mut slope = samples[0] * t.slope_weights.at(l, window * w);
    for j in 1..w {
        slope = slope + samples[j] * t.slope_weights.at(l, window * w + j);
    }
    slope
}

/// The slope of the steepest full window and its number, counted from the last baseline frame.
#[inline(always)]
fn steepest_window<L: Lanes, const WIDTH: usize>(t: &Tables, l: L, e: &[L::F], peak: &Peak<L>) -> (L::F, L::F) {
    let zero = l.splat(0.0);
    let (start, w) = (t.b - 1, t.slope_window);
    let windows = t.slope_times.len();
    if windows == 0 {
        return (zero, zero);
    }
    let mut steepest = window_slope::<L, WIDTH>(t, l, e, 0);
    let mut best = zero;
    for window in 1..windows {
        let within = peak.frame.ge(t.index.at(l, start + window + w - 1));
        if !within.any() {
            break;
        }
        let slope = window_slope::<L, WIDTH>(t, l, e, window);
        let better = within & slope.gt(steepest);
        steepest = l.select(better, slope, steepest);
        best = l.select(better, t.index.at(l, window), best);
    }
    (steepest, best)
}

/// Walking back from the peak: where the curve last crosses each level upward, linear between samples. Only for voxels
/// that are wanted.
#[inline(always)]
pub(super) fn last_upward_crossings<L: Lanes, const N: usize>(
    t: &Tables,
    l: L,
    e: &[L::F],
    peak: &Peak<L>,
    levels: [L::F; N],
    wanted: L::M,
) -> [(L::F, L::M); N] {
    let zero = l.splat(0.0);
    let none = l.splat(-1.0);
    let mut frames = [none; N];
    if wanted.any() {
        // The last sample at or below a level, of those before the peak.
        for i in 0..t.n - 1 {
            let index = t.index.at(l, i);
            let before_peak = peak.frame.gt(index);
            if !before_peak.any() {
                break;
            }
            let height = l.select(before_peak, e[i], l.splat(f64::from(f32::MAX)));
            for (frame, level) in frames.iter_mut().zip(levels) {
                *frame = l.select(height.le(level), index, *frame);
            }
        }
    }
    let mut crossings = [(zero, wanted); N];
    for ((crossing, frame), level) in crossings.iter_mut().zip(frames).zip(levels) {
        let found = wanted & frame.ge(zero);
        let index = frame.max(zero);
        let below = l.gather(e, index);
        let rise = l.gather(&e[1..], index) - below;
        let upward = found & rise.gt(zero);
        let part = (level - below) / l.select(upward, rise, l.splat(1.0));
        *crossing = (l.lookup(&t.u, index) + l.lookup(&t.dt, index) * part, upward);
    }
    crossings
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
        if !reached.any() {
            break;
        }
        if time.lt(t.u.at(l, i + 1)).any() || i + 2 == t.n {
            let along = e[i] + (e[i + 1] - e[i]) * ((time - t.u.at(l, i)) * t.inv_dt.at(l, i));
            value = l.select(reached, along, value);
        }
    }
    (value, time.le(t.u.at(l, t.n - 1)))
}

/// An integral in the making: its value, the sums of the weights of its samples and of their squares, and what the last
/// segment gave to the sample that the next one begins with.
#[derive(Clone, Copy)]
struct Running<L: Lanes> {
    value: L::F,
    weights: L::F,
    squared_weights: L::F,
    pending: L::F,
}

impl<L: Lanes> Running<L> {
    #[inline(always)]
    fn new(l: L) -> Self {
        let zero = l.splat(0.0);
        Self { value: zero, weights: zero, squared_weights: zero, pending: zero }
    }

    /// Goes on by a segment whose samples have these weights.
    #[inline(always)]
    fn add<const WEIGHTS: bool>(self, left: L::F, right: L::F, e: L::F, e_next: L::F) -> Self {
        let value = self.value + left * e + right * e_next;
        if !WEIGHTS {
            return Self { value, ..self };
        }
        let weight = self.pending + left;
        Self {
            value,
            weights: self.weights + weight,
            squared_weights: self.squared_weights + weight * weight,
            pending: right,
        }
    }

    #[inline(always)]
    fn finish(self) -> Integral<L> {
        Integral {
            value: self.value,
            weights: self.weights + self.pending,
            squared_weights: self.squared_weights + self.pending * self.pending,
        }
    }
}

/// Weights of the two samples of a segment in the integral over its part from a to b, in units of the segment.
#[inline(always)]
fn segment_weights<L: Lanes>(l: L, dt: L::F, a: L::F, b: L::F) -> (L::F, L::F) {
    let length = b - a;
    let right = dt * ((b + a) * length * l.splat(0.5));
    (dt * length - right, right)
}

/// Exact integrals of the piecewise-linear enhancement from the onset on: to the last frame, which is returned, and to the
/// end of each window, which are written. Also says where a window reaches past the last frame.
#[inline(always)]
fn areas<L: Lanes, const WEIGHTS: bool>(
    t: &Tables,
    l: L,
    e: &[L::F],
    onset_time: L::F,
    started: L::M,
    sigma: L::F,
    rows: &mut Rows<'_, L>,
) -> (Integral<L>, L::M) {
    let zero = l.splat(0.0);
    let one = l.splat(1.0);
    let scale = l.splat(t.scale);
    let u_last = t.u.at(l, t.n - 1);
    let mut all = Running::new(l);
    let mut windows = [Running::new(l); MAX_WINDOWS];
    for i in t.first_segment..t.n - 1 {
        let (u, dt, inv_dt) = (t.u.at(l, i), t.dt.at(l, i), t.inv_dt.at(l, i));
        let u_next = t.u.at(l, i + 1);
        let begun = u_next.gt(onset_time);
        if !begun.any() {
            continue;
        }
        // In most segments no voxel's onset lies, and each is counted as a whole or not at all.
        let cut = begun & onset_time.gt(u);
        let a = if cut.any() {
            l.select(begun, clamp::<L>((onset_time - u) * inv_dt, zero, one), one)
        } else {
            l.select(begun, zero, one)
        };
        // A window that ends in this segment is all that came before and a part of it.
        for (window, seconds) in windows.iter_mut().zip(&t.windows) {
            let end = onset_time + l.splat(*seconds);
            let ends = end.gt(u) & end.le(u_next);
            if ends.any() {
                let b = clamp::<L>((end - u) * inv_dt, zero, one);
                let (left, right) = segment_weights(l, dt, a, b);
                let part = all.add::<WEIGHTS>(left, right, e[i], e[i + 1]);
                window.value = l.select(ends, part.value, window.value);
                if WEIGHTS {
                    window.weights = l.select(ends, part.weights, window.weights);
                    window.squared_weights = l.select(ends, part.squared_weights, window.squared_weights);
                    window.pending = l.select(ends, part.pending, window.pending);
                }
            }
        }
        let (left, right) = if cut.any() {
            segment_weights(l, dt, a, one)
        } else {
            let weight = l.select(begun, dt * l.splat(0.5), zero);
            (weight, weight)
        };
        all = all.add::<WEIGHTS>(left, right, e[i], e[i + 1]);
    }
    let mut beyond = l.mask(false);
    for (i, seconds) in t.windows.iter().enumerate() {
        let inside = started & (onset_time + l.splat(*seconds)).le(u_last);
        beyond = beyond | !inside;
        let area = windows[i].finish();
        if let Some(row) = t.row(slot::IAUC + i) {
            rows.set(row, area.value * scale, inside);
        }
        if let Some(row) = t.row(slot::IAUC_SE + i) {
            rows.set(row, standard_error(t, l, &area, sigma) * scale, inside);
        }
    }
    (all.finish(), beyond)
}

/// The exact integral of the time since the onset times the piecewise-linear enhancement, from the onset to the last
/// frame.
#[inline(always)]
fn moment<L: Lanes>(t: &Tables, l: L, e: &[L::F], onset_time: L::F) -> Integral<L> {
    let zero = l.splat(0.0);
    let one = l.splat(1.0);
    let (half, third) = (l.splat(0.5), l.splat(1.0 / 3.0));
    let mut all = Running::new(l);
    for i in t.first_segment..t.n - 1 {
        let (u, dt) = (t.u.at(l, i), t.dt.at(l, i));
        let begun = t.u.at(l, i + 1).gt(onset_time);
        if !begun.any() {
            continue;
        }
        let cut = begun & onset_time.gt(u);
        let (length, first_moment, second_moment) = if cut.any() {
            let a = l.select(begun, clamp::<L>((onset_time - u) * t.inv_dt.at(l, i), zero, one), one);
            let length = one - a;
            (length, (one + a) * length * half, (one + a + a * a) * length * third)
        } else {
            (l.select(begun, one, zero), l.select(begun, half, zero), l.select(begun, third, zero))
        };
        let since = u - onset_time;
        let right = dt * (since * first_moment + dt * second_moment);
        let left = dt * (since * length + dt * first_moment) - right;
        all = all.add::<true>(left, right, e[i], e[i + 1]);
    }
    all.finish()
}

/// sqrt(sigma^2 (sum w^2 + (sum w)^2 / n)), in stored units.
#[inline(always)]
fn standard_error<L: Lanes>(t: &Tables, l: L, integral: &Integral<L>, sigma: L::F) -> L::F {
    let baseline_part = integral.weights * integral.weights * l.splat(t.inv_baseline);
    sigma * (integral.squared_weights + baseline_part).sqrt()
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

/// The label of the late course, and where there is one.
#[inline(always)]
fn curve_type<L: Lanes>(
    t: &Tables,
    l: L,
    e: &[L::F],
    target: L::F,
    known: L::M,
    baseline: L::F,
    sigma: L::F,
) -> (L::U, L::M) {
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
    let label = l.bits(known & !undetermined & persistent, 1)
        | l.bits(known & !undetermined & !persistent & !wash_out, 2)
        | l.bits(known & !undetermined & wash_out, 3)
        | l.bits(known & undetermined, 4);
    (label, known)
}
