//! The definition in code. `shaders/descriptors.wgsl` has the same names, order and guards.
//!
//! Everything is computed in stored units, as differences from the voxel's first sample, and times from the first frame:
//! constants stay constant, and differences of integers are exact. Results are scaled when they are written.

#![expect(clippy::needless_range_loop, reason = "indices keep the text comparable with the shader's")]

use crate::kernel::lanes::{Lanes, Masks, Numbers};
use crate::kernel::{Curve, Leave, Rows};
use crate::quantity::SignalKind;
use crate::status;

use super::areas::{Start, areas, standard_error};
use super::outputs::{FRACTIONS, HALF, slot};
use super::scan::found;
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

/// A voxel's curve with what every step needs of it.
pub(super) struct Voxel<'a, L: Lanes> {
    pub(super) curve: &'a Curve<'a, L>,
    /// The baseline, as a height.
    pub(super) level: L::F,
}

impl<L: Lanes> Voxel<'_, L> {
    /// A sample as signed difference from the first one: exact for integers.
    #[inline(always)]
    pub(super) fn height(&self, t: &Tables, l: L, frame: usize) -> L::F {
        self.curve.difference(frame) * l.splat(t.sign)
    }

    /// The signed enhancement of a frame.
    #[inline(always)]
    fn enhancement(&self, t: &Tables, l: L, frame: usize) -> L::F {
        self.height(t, l, frame) - self.level
    }
}

/// Voxels that enhance take long: of a block, they may be left for later, and are returned.
#[inline(always)]
pub(super) fn evaluate<L: Lanes>(
    t: &Tables,
    status_row: usize,
    l: L,
    curve: &Curve<'_, L>,
    scratch: &mut [L::F],
    rows: &mut Rows<'_, L>,
    leave: Leave,
) -> L::M {
    let zero = l.splat(0.0);
    let one = l.splat(1.0);
    let scale = l.splat(t.scale);
    let (e, primitives) = scratch.split_at_mut(t.n);
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

    // Peak; signed enhancement, of all frames only if a map needs it.
    let voxel = Voxel { curve, level: mean * l.splat(t.sign) };
    let (peak, left) = find_peak(t, l, &voxel, sigma, valid, leave);
    if t.needs_samples {
        for i in 0..t.n {
            e[i] = voxel.enhancement(t, l, i);
        }
    }
    let e_last = voxel.enhancement(t, l, last);
    let enhancing = peak.enhancing;
    let at_last = same(peak.frame, l.count(last)) & valid;
    bits = bits | l.bits(valid & !enhancing, status::NOT_ENHANCING) | l.bits(at_last, status::PEAK_AT_LAST_FRAME);
    let (e_max, peak_time) = if t.subframe { vertex(t, l, e, &peak) } else { (peak.e, peak.time) };

    // Half-rise frame, steepest rise, onset.
    let half_rise = if t.needs_half_rise {
        find_half_rise(t, l, &voxel, e, &peak, enhancing)
    } else {
        HalfRise { frame: peak.frame, time: peak.time }
    };
    let e = &*e;
    let steepest = if t.needs_slope {
        find_steepest_rise(t, l, &voxel, &peak, enhancing)
    } else {
        SteepestRise { slope: zero, time: zero, e: zero }
    };
    let mut onset_time = l.splat(t.global_onset.unwrap_or(0.0));
    let mut onset_known = l.mask(t.global_onset.is_some()) & valid;
    let mut own_onset = l.mask(false);
    if t.needs_own_onset {
        let (own, found) = onset::find(t, l, e, &peak, &half_rise, &steepest, sigma, enhancing);
        let usable = found & enhancing & own.lt(peak.time);
        onset_time = l.select(usable, own, onset_time);
        bits = bits | l.bits(valid & !usable & onset_known, status::GLOBAL_ONSET_USED);
        onset_known = onset_known | usable;
        own_onset = usable;
        if let Some(row) = t.row(slot::ONSET_SE) {
            let (error, known) = onset::piecewise_linear_error(t, l, e, &half_rise, own, usable);
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
        rows.set(row, (e_max - e_last) * scale / span, known);
    }
    if let Some(row) = t.row(slot::CONTRAST_TO_NOISE) {
        let known = valid & sigma.gt(zero);
        rows.set(row, e_max / l.select(known, sigma, one), known);
        without_divisor = without_divisor | (valid & !known);
    }
    if let Some(row) = t.row(slot::FINAL_ENHANCEMENT) {
        rows.set(row, e_last * scale, valid);
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
        let span = match (own_onset.any(), started.any()) {
            (true, _) => l.span(&t.u, onset_time, started),
            (false, true) => t.global_onset_span.clone(),
            (false, false) => 0..0,
        };
        let from = Start { time: onset_time, known: started, span };
        let (area, moment, beyond) = areas(t, l, &voxel, primitives, &from, sigma, rows);
        past_end = past_end | (onset_known & beyond);
        if let Some(row) = t.row(slot::AUC) {
            rows.set(row, area.value * scale, started);
        }
        if let Some(row) = t.row(slot::AUC_SE) {
            rows.set(row, standard_error(t, l, &area, sigma) * scale, started);
        }
        if t.needs_moment {
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
        let (early, early_inside) = value_at(t, l, e, onset_time + l.splat(t.ratio_times.0), timed);
        let (late, late_inside) = value_at(t, l, e, onset_time + l.splat(t.ratio_times.1), timed);
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
    left
}

/// Finds the peak. Samples are compared as differences from the first one, which are exact for integers. Voxels that are
/// left for later count as not enhancing.
#[inline(always)]
fn find_peak<L: Lanes>(
    t: &Tables,
    l: L,
    voxel: &Voxel<'_, L>,
    sigma: L::F,
    valid: L::M,
    leave: Leave,
) -> (Peak<L>, L::M) {
    let (frame, highest, pair) = match voxel.curve.scanned {
        Some(found) => (found[found::FRAME], found[found::HIGHEST], found[found::PAIR]),
        None => highest_sample(t, l, voxel),
    };
    let e = highest - voxel.level;
    let twice = (pair - voxel.level).gt(sigma * l.splat(3.0));
    let enhancing = e.ge(sigma * l.splat(t.enhancement_threshold)) & twice & valid;
    let may = leave == Leave::Few && t.takes_long;
    let few = may && 2 * l.bitmask(enhancing).count_ones() as usize <= L::WIDTH;
    let left = enhancing & l.mask(few);
    let enhancing = enhancing & !left;
    // Times are asked for where a voxel enhances, and looking them up takes long.
    let time = if enhancing.any() { l.lookup(&t.u, frame) } else { l.splat(0.0) };
    (Peak { frame, e, time, enhancing }, left)
}

/// Frame and height of the highest sample after the baseline, and the largest lower one of two consecutive heights: both
/// exceed a level if it does.
#[inline(always)]
fn highest_sample<L: Lanes>(t: &Tables, l: L, voxel: &Voxel<'_, L>) -> (L::F, L::F, L::F) {
    let mut frame = t.index.at(l, t.b);
    let mut highest = voxel.height(t, l, t.b);
    let mut previous = highest;
    let mut pair = l.splat(-f64::from(f32::MAX));
    for i in t.b + 1..t.n {
        let height = voxel.height(t, l, i);
        let higher = height.gt(highest);
        highest = l.select(higher, height, highest);
        frame = l.select(higher, t.index.at(l, i), frame);
        pair = pair.max(previous.min(height));
        previous = height;
    }
    (frame, highest, pair)
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

/// The half-rise frame of voxels that enhance; fills in the enhancement as far as any of theirs.
#[inline(always)]
fn find_half_rise<L: Lanes>(
    t: &Tables,
    l: L,
    voxel: &Voxel<'_, L>,
    e: &mut [L::F],
    peak: &Peak<L>,
    enhancing: L::M,
) -> HalfRise<L> {
    let mut frame = peak.frame;
    let mut open = enhancing;
    if !open.any() {
        return HalfRise { frame, time: peak.time };
    }
    let half = peak.e * l.splat(0.5);
    e[t.b] = voxel.enhancement(t, l, t.b);
    for i in t.b..t.n - 1 {
        e[i + 1] = voxel.enhancement(t, l, i + 1);
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
/// where fewer than a window lie there. The time is right where a voxel enhances and it is asked for.
#[inline(always)]
fn find_steepest_rise<L: Lanes>(
    t: &Tables,
    l: L,
    voxel: &Voxel<'_, L>,
    peak: &Peak<L>,
    enhancing: L::M,
) -> SteepestRise<L> {
    let zero = l.splat(0.0);
    let start = t.b - 1;
    let w = t.slope_window;
    let (slope, window) = match voxel.curve.scanned {
        _ if t.slope_times.is_empty() => (zero, zero),
        Some(found) => (found[found::SLOPE], found[found::WINDOW]),
        None => match w {
            3 => steepest_window::<L, 3>(t, l, voxel, peak),
            _ => steepest_window::<L, 0>(t, l, voxel, peak),
        },
    };
    let mut slope = slope * l.splat(t.slope_unit);
    let timed = t.needs_slope_window && !t.slope_times.is_empty() && enhancing.any();
    let mut time = if timed { l.lookup(&t.slope_times, window) } else { zero };
    let mut mean = zero;
    if t.needs_slope_mean {
        for i in 0..t.slope_times.len() {
            let mut sum = zero;
            for j in 0..w {
                sum = sum + voxel.enhancement(t, l, start + i + j);
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
            early_slope = early_slope + voxel.height(t, l, start + j) * t.early_weights.at(l, (m - 2) * w + j);
            sum = sum + voxel.enhancement(t, l, start + j);
        }
        slope = l.select(here, early_slope, slope);
        time = l.select(here, t.early_times.at(l, m - 2), time);
        mean = l.select(here, sum * l.splat(1.0 / m as f64), mean);
    }
    SteepestRise { slope, time, e: mean }
}

/// The least-squares slope of one window, in the unit of its weights; `WIDTH` samples wide, or as wide as the settings say
/// if that is 0.
#[inline(always)]
fn window_slope<L: Lanes, const WIDTH: usize>(t: &Tables, l: L, voxel: &Voxel<'_, L>, window: usize) -> L::F {
    let w = if WIDTH == 0 { t.slope_window } else { WIDTH };
    let first = t.b - 1 + window;
    let mut slope = voxel.height(t, l, first) * t.slope_weights.at(l, window * w);
    for j in 1..w {
        slope = slope + voxel.height(t, l, first + j) * t.slope_weights.at(l, window * w + j);
    }
    slope
}

/// The slope of the steepest full window and its number, counted from the last baseline frame.
#[inline(always)]
fn steepest_window<L: Lanes, const WIDTH: usize>(
    t: &Tables,
    l: L,
    voxel: &Voxel<'_, L>,
    peak: &Peak<L>,
) -> (L::F, L::F) {
    let (start, w) = (t.b - 1, t.slope_window);
    let mut steepest = window_slope::<L, WIDTH>(t, l, voxel, 0);
    let mut best = l.splat(0.0);
    for window in 1..t.slope_times.len() {
        let within = peak.frame.ge(t.index.at(l, start + window + w - 1));
        if !within.any() {
            break;
        }
        let slope = window_slope::<L, WIDTH>(t, l, voxel, window);
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
    if !wanted.any() {
        return [(zero, wanted); N];
    }
    // The last sample at or below a level, of those before the peak.
    for i in 0..l.largest(peak.frame, wanted) {
        let index = t.index.at(l, i);
        let height = l.select(peak.frame.gt(index), e[i], l.splat(f64::from(f32::MAX)));
        for (frame, level) in frames.iter_mut().zip(levels) {
            *frame = l.select(height.le(level), index, *frame);
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
        // Looking times up takes long; where frames are even, they follow from the index.
        let time = if t.even {
            (index + part) * l.splat(t.spacing)
        } else {
            l.lookup(&t.u, index) + l.lookup(&t.dt, index) * part
        };
        *crossing = (time, upward);
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

/// The enhancement at a time, linear between samples, of voxels that are wanted; not inside after the last frame.
#[inline(always)]
fn value_at<L: Lanes>(t: &Tables, l: L, e: &[L::F], time: L::F, wanted: L::M) -> (L::F, L::M) {
    let mut value = e[0];
    let span = l.span(&t.u, time, wanted);
    for i in span.start.min(t.n - 2)..span.end.min(t.n - 1) {
        let along = e[i] + (e[i + 1] - e[i]) * ((time - t.u.at(l, i)) * t.inv_dt.at(l, i));
        value = l.select(time.ge(t.u.at(l, i)), along, value);
    }
    (value, time.le(t.u.at(l, t.n - 1)))
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
    let from_peak = t.even && t.late_from.is_none();
    for i in t.b..t.n {
        let inside = match t.late_from {
            Some(_) => start.le(t.u.at(l, i)),
            None => peak.frame.le(t.index.at(l, i)),
        };
        let x = t.to_end.at(l, i);
        let y = l.select(inside, e[i] - e[last], zero);
        sy = sy + y;
        sxy = sxy + x * y;
        if !from_peak {
            count = count + l.select(inside, one, zero);
            sx = sx + l.select(inside, x, zero);
            sxx = sxx + l.select(inside, x * x, zero);
        }
    }
    if from_peak {
        // Sums of the first whole numbers and of their squares.
        count = l.count(t.n) - peak.frame;
        let pairs = count * (count - one);
        sx = pairs * l.splat(t.spacing / 2.0);
        sxx = pairs * (count + count - one) * l.splat(t.spacing * t.spacing / 6.0);
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
    if !known.any() {
        return (l.bits(known, 0), known);
    }
    let (mut count, mut sum, mut shared) = (zero, zero, zero);
    // From the last frame before the early samples to the first one after them.
    let start = l.span(&t.u, target - half_width, known).start;
    let end = (l.span(&t.u, target + half_width, known).end + 1).min(t.n);
    let mut nearest = e[start];
    let mut distance = (target - t.u.at(l, start)).abs();
    let mut nearest_is_late = l.mask(start >= t.late_first);
    for i in start..end {
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
