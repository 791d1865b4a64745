//! One pass over 16-bit samples that finds what the text finds in differences from the first sample: the same numbers, to
//! the bit, because all of them are whole and exact.

use std::ops::Range;

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

/// Goes through a curve. Returns whether nothing overflowed: the samples of no voxel differ by 2^15 or more.
#[inline(always)]
pub(super) fn scan<L: ShortLanes>(t: &Tables, l: L, curve: ShortCurve<'_>, out: &mut [L::F]) -> bool {
    match (step(t), t.needs_slope_window) {
        (0, _) => scan_of::<L, 0, false>(t, l, curve, out),
        (2, false) => scan_of::<L, 2, false>(t, l, curve, out),
        (2, true) => scan_of::<L, 2, true>(t, l, curve, out),
        _ => scan_of::<L, 1, true>(t, l, curve, out),
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
fn scan_of<L: ShortLanes, const STEP: usize, const NUMBER: bool>(
    t: &Tables,
    l: L,
    curve: ShortCurve<'_>,
    out: &mut [L::F],
) -> bool {
    let falls = t.sign < 0.0;
    let zero = l.short_splat(0);
    let origin = height(l, curve, falls, 0);
    let (mut lowest, mut highest_before) = (origin, origin);
    for i in 1..t.b {
        let here = height(l, curve, falls, i);
        lowest = l.short_min(lowest, here);
        highest_before = l.short_max(highest_before, here);
    }
    // Modulo 2^16.
    let mut sum = zero;
    for i in t.first_segment..t.b {
        sum = sum + height(l, curve, falls, i);
    }
    let mut before_previous = height(l, curve, falls, t.b - 1);
    let mut previous = height(l, curve, falls, t.b);
    lowest = l.short_min(lowest, previous);
    sum = sum + previous;
    let (mut frame, mut highest, mut pair) = (l.short_splat(t.b as i16), previous, l.short_splat(i16::MIN));
    // The first window counts whatever the peak.
    let mut steepest = pair;
    if STEP > 0 && t.b - 1 + STEP < t.n {
        steepest = height(l, curve, falls, t.b - 1 + STEP) - before_previous;
    }
    let (mut slope, mut window, mut best) = (steepest, zero, zero);
    // Counted in lanes: a number for all of them takes longer.
    let (one, mut number, mut window_number) = (l.short_splat(1), frame, l.short_splat(1 - STEP as i16));
    for i in t.b + 1..t.n {
        let here = height(l, curve, falls, i);
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
    let baseline = sum_of(l, curve, falls, range, t.a..t.b);
    out[found::BASELINE] = if falls { -baseline } else { baseline };
    if let Some(segment) = t.global_segment {
        let before = sum_of(l, curve, falls, range, t.first_segment..segment + 1);
        let ends = float(l, height(l, curve, falls, t.first_segment)) + float(l, height(l, curve, falls, segment));
        out[found::PAIRS_BEFORE] = before + before - (ends - (first + first));
    }
    out[found::FRAME] = float(l, frame);
    out[found::HIGHEST] = float(l, highest) - first;
    out[found::PAIR] = float(l, pair) - first;
    out[found::SLOPE] = float(l, slope);
    out[found::WINDOW] = float(l, best);
    // Every sample belongs to two segments, the first and the last to one.
    let all = whole_sum(t, l, curve, sum, lowest, range) - l.count(t.n - t.first_segment) * first;
    let ends = float(l, height(l, curve, falls, t.first_segment)) + float(l, previous);
    out[found::PAIR_SUM] = all + all - (ends - (first + first));
    !l.short_any_greater(zero, range)
}

/// The sum of some heights less the first one's.
#[inline(always)]
fn sum_of<L: ShortLanes>(l: L, curve: ShortCurve<'_>, falls: bool, range: L::Short, frames: Range<usize>) -> L::F {
    let origin = height(l, curve, falls, 0);
    if l.short_any_greater(range, l.short_splat((i16::MAX as usize / frames.len()) as i16)) {
        let mut sum = l.long(l.short_splat(0));
        for i in frames {
            sum = l.long_add(sum, l.long(height(l, curve, falls, i) - origin));
        }
        return l.number(sum);
    }
    let mut sum = l.short_splat(0);
    for i in frames {
        sum = sum + (height(l, curve, falls, i) - origin);
    }
    float(l, sum)
}

/// The sum of the heights from the first segment on, which is known modulo 2^16: the lowest height and the range often say
/// which of the numbers that come into question it is.
#[inline(always)]
fn whole_sum<L: ShortLanes>(
    t: &Tables,
    l: L,
    curve: ShortCurve<'_>,
    sum: L::Short,
    lowest: L::Short,
    range: L::Short,
) -> L::F {
    let falls = t.sign < 0.0;
    let count = t.n - t.first_segment;
    let limit = (usize::from(u16::MAX) / count).min(i16::MAX as usize);
    if l.short_any_greater(range, l.short_splat(limit as i16)) {
        let mut sum = l.long(l.short_splat(0));
        for i in t.first_segment..t.n {
            sum = l.long_add(sum, l.long(height(l, curve, falls, i)));
        }
        return l.number(sum);
    }
    // From 0 to 2^16 - 1; less by 2^15, it is a number with a sign.
    let above = float(l, sum - l.short_times(lowest, count as i16) - l.short_splat(i16::MIN));
    above + l.splat(f64::from(1 << 15)) + l.count(count) * float(l, lowest)
}

/// The sample of a frame, upright.
#[inline(always)]
fn height<L: ShortLanes>(l: L, curve: ShortCurve<'_>, falls: bool, frame: usize) -> L::Short {
    upright(l, l.short(curve.frame(frame)), falls)
}

/// A sample, upright: turned over bit by bit, samples fall where they rose, by as much.
#[inline(always)]
fn upright<L: ShortLanes>(l: L, sample: L::Short, falls: bool) -> L::Short {
    if falls { l.short_splat(-1) - sample } else { sample }
}

#[inline(always)]
fn float<L: ShortLanes>(l: L, x: L::Short) -> L::F {
    l.number(l.long(x))
}
