//! One pass over 16-bit samples that finds what the text finds in differences from the first sample: the same numbers, to
//! the bit, because all of them are whole and exact.

use std::ops::Range;

use crate::kernel::lanes::Numbers as _;
use crate::kernel::short::{ShortCurve, ShortLanes};

use super::tables::Tables;

/// The places of what is found.
pub(super) mod found {
    /// Frame of the peak.
    pub(in super::super) const FRAME: usize = 0;
    /// Height of the peak.
    pub(in super::super) const HIGHEST: usize = 1;
    /// The largest lower one of two consecutive heights.
    pub(in super::super) const PAIR: usize = 2;
    /// The steepest window's slope, in the unit of the slope weights.
    pub(in super::super) const SLOPE: usize = 3;
    /// Its number.
    pub(in super::super) const WINDOW: usize = 4;
    /// The sum over all segments, from the first that an integral can touch, of both their heights.
    pub(in super::super) const PAIR_SUM: usize = 5;
    /// The same over those of them that lie before the global onset's.
    pub(in super::super) const PAIRS_BEFORE: usize = 6;
    /// The sum of the baseline's differences from the first sample.
    pub(in super::super) const BASELINE: usize = 7;
    pub(in super::super) const COUNT: usize = 8;
}

/// Segments whose heights' sum is exact in 32-bit floats: two heights below 2^15 each.
const MOST_SEGMENTS: usize = 256;

/// Whether a pass finds the same as the text: frames are even, windows are differences of two samples, sums are exact.
pub(super) fn applies(t: &Tables) -> bool {
    t.even && t.slope_window <= 3 && t.n <= MOST_SEGMENTS
}

/// Segments before the one that the global onset lies in, where that is certain.
fn segments_before(t: &Tables) -> usize {
    t.global_segment.unwrap_or(t.first_segment) - t.first_segment
}

/// How far the samples of a voxel may lie apart so that what is left of sums modulo 2^16 says what the sums are.
pub(super) fn limit(t: &Tables) -> i16 {
    let signed = i16::MAX as usize / (t.b - t.a).max(2 * segments_before(t));
    signed.min(usize::from(u16::MAX) / (t.n - t.first_segment)) as i16
}

/// Goes through a curve. Returns whether nothing overflowed: the samples of no voxel differ by 2^15 or more.
#[inline(always)]
pub(super) fn scan<L: ShortLanes>(t: &Tables, l: L, curve: ShortCurve<'_>, out: &mut [L::F]) -> bool {
    if t.sign < 0.0 { scan_upright::<L, true>(t, l, curve, out) } else { scan_upright::<L, false>(t, l, curve, out) }
}

/// The same of samples that fall where `FALLS`.
#[inline(always)]
fn scan_upright<L: ShortLanes, const FALLS: bool>(t: &Tables, l: L, curve: ShortCurve<'_>, out: &mut [L::F]) -> bool {
    match (step(t), t.needs_slope_window) {
        (0, _) => scan_of::<L, FALLS, 0, false>(t, l, curve, out),
        (2, false) => scan_of::<L, FALLS, 2, false>(t, l, curve, out),
        (2, true) => scan_of::<L, FALLS, 2, true>(t, l, curve, out),
        _ => scan_of::<L, FALLS, 1, true>(t, l, curve, out),
    }
}

/// Frames from a window's first to its last sample; 0 without windows.
fn step(t: &Tables) -> usize {
    match (t.needs_slope, t.slope_window) {
        (false, _) => 0,
        (true, 3) => 2,
        (true, _) => 1,
    }
}

/// The same with windows of `STEP` more frames than one, whose number is found if `NUMBER`.
#[inline(always)]
fn scan_of<L: ShortLanes, const FALLS: bool, const STEP: usize, const NUMBER: bool>(
    t: &Tables,
    l: L,
    curve: ShortCurve<'_>,
    out: &mut [L::F],
) -> bool {
    let zero = l.short_splat(0);
    let origin = height(l, curve, FALLS, 0);
    let (mut lowest, mut highest_before) = (origin, origin);
    // Sums are modulo 2^16.
    let (mut baseline, mut sum) = (zero, zero);
    for i in 0..t.b {
        let here = height(l, curve, FALLS, i);
        lowest = l.short_min(lowest, here);
        highest_before = l.short_max(highest_before, here);
        if i >= t.a {
            baseline = baseline + here;
        }
        if i >= t.first_segment {
            sum = sum + here;
        }
    }
    let mut before_previous = height(l, curve, FALLS, t.b - 1);
    let mut previous = height(l, curve, FALLS, t.b);
    lowest = l.short_min(lowest, previous);
    sum = sum + previous;
    let (mut frame, mut highest, mut pair) = (l.short_splat(t.b as i16), previous, l.short_splat(i16::MIN));
    // The first window counts whatever the peak.
    let mut steepest = pair;
    if STEP > 0 && t.b - 1 + STEP < t.n {
        steepest = height(l, curve, FALLS, t.b - 1 + STEP) - before_previous;
    }
    let (mut slope, mut window, mut best) = (steepest, zero, zero);
    // Counted in lanes: a number for all of them takes longer.
    let (one, mut number, mut window_number) = (l.short_splat(1), frame, l.short_splat(1 - STEP as i16));
    for i in t.b + 1..t.n {
        let here = height(l, curve, FALLS, i);
        number = number + one;
        lowest = l.short_min(lowest, here);
        sum = sum + here;
        let higher = l.short_greater(here, highest);
        highest = l.short_max(here, highest);
        frame = l.short_select(higher, number, frame);
        pair = l.short_max(pair, l.short_min(previous, here));
        if STEP > 0 {
            let this = here - if STEP == 1 { previous } else { before_previous };
            if NUMBER {
                let better = l.short_greater(this, steepest);
                window_number = window_number + one;
                window = l.short_select(better, window_number, window);
                best = l.short_select(higher, window, best);
            }
            steepest = l.short_max(this, steepest);
            slope = l.short_select(higher, steepest, slope);
            before_previous = previous;
        }
        previous = here;
    }
    let range = l.short_max(highest, highest_before) - lowest;
    let first = float(l, origin);
    out[found::FRAME] = float(l, frame);
    out[found::HIGHEST] = float(l, highest) - first;
    out[found::PAIR] = float(l, pair) - first;
    out[found::SLOPE] = float(l, slope);
    out[found::WINDOW] = float(l, best);
    let frames = t.b - t.a;
    let segments = segments_before(t);
    let samples = t.n - t.first_segment;
    let (of_baseline, before, all);
    if l.short_any_greater(range, l.short_splat(t.scan_limit)) {
        let begin = t.first_segment;
        of_baseline = exact_sum(l, curve, FALLS, t.a..t.b) - l.count(frames) * first;
        before = exact_sum(l, curve, FALLS, begin..begin + segments)
            + exact_sum(l, curve, FALLS, begin + 1..begin + 1 + segments)
            - l.count(2 * segments) * first;
        all = exact_sum(l, curve, FALLS, begin..t.n) - l.count(samples) * first;
    } else {
        let mut pairs = zero;
        for i in t.first_segment..t.first_segment + segments {
            pairs = pairs + height(l, curve, FALLS, i) + height(l, curve, FALLS, i + 1);
        }
        of_baseline = float(l, baseline - l.short_times(origin, frames as i16));
        before = float(l, pairs - l.short_times(origin, 2 * segments as i16));
        // Above the lowest height, from 0 to 2^16 - 1; less by 2^15, it is a number with a sign.
        let above = float(l, sum - l.short_times(lowest, samples as i16) - l.short_splat(i16::MIN));
        all = above + l.splat(f64::from(1 << 15)) + l.count(samples) * (float(l, lowest) - first);
    }
    out[found::BASELINE] = if FALLS { -of_baseline } else { of_baseline };
    out[found::PAIRS_BEFORE] = before;
    // Every sample belongs to two segments, the first and the last to one.
    let ends = float(l, height(l, curve, FALLS, t.first_segment)) + float(l, previous);
    out[found::PAIR_SUM] = all + all - (ends - (first + first));
    !l.short_any_greater(zero, range)
}

/// How many frames there are to the one after the half-rise frame of voxels that enhance, or a few more.
#[inline(always)]
pub(super) fn frames_to_half_rise<L: ShortLanes>(
    t: &Tables,
    l: L,
    curve: ShortCurve<'_>,
    found: &[L::F],
    voxels: L::M,
) -> usize {
    let falls = t.sign < 0.0;
    let level = found[found::BASELINE] * l.splat(t.inv_baseline * t.sign);
    let half = (level + found[found::HIGHEST]) * l.splat(0.5) + float(l, height(l, curve, falls, 0));
    // Not less than half, however it is rounded, and not more than there is.
    let enough = (half + l.splat(2.0)).min(l.splat(f64::from(i16::MAX)));
    let enough = l.short_of(l.select(voxels, enough, l.splat(f64::from(i16::MIN))));
    let mut previous = height(l, curve, falls, t.b);
    let mut highest = l.short_splat(i16::MIN);
    for i in t.b + 1..t.n {
        let here = height(l, curve, falls, i);
        highest = l.short_max(highest, l.short_min(previous, here));
        if !l.short_any_greater(enough, highest) {
            return i + 1;
        }
        previous = here;
    }
    t.n
}

/// The sum of some heights.
#[inline(always)]
fn exact_sum<L: ShortLanes>(l: L, curve: ShortCurve<'_>, falls: bool, frames: Range<usize>) -> L::F {
    let mut sum = l.long(l.short_splat(0));
    for i in frames {
        sum = l.long_add(sum, l.long(height(l, curve, falls, i)));
    }
    l.number(sum)
}

/// The sample of a frame, upright.
#[inline(always)]
fn height<L: ShortLanes>(l: L, curve: ShortCurve<'_>, falls: bool, frame: usize) -> L::Short {
    let sample = l.short(&curve.frame(frame)[..L::WIDTH]);
    // Turned over bit by bit, samples fall where they rose, by as much.
    if falls { l.short_splat(-1) - sample } else { sample }
}

#[inline(always)]
fn float<L: ShortLanes>(l: L, x: L::Short) -> L::F {
    l.number(l.long(x))
}
