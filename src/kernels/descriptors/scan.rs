//! One pass over 16-bit samples that finds what the text finds in differences from the first sample: the same numbers, to
//! the bit, because all of them are whole and exact.

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
    pub(in super::super) const COUNT: usize = 6;
}

/// Segments whose heights' sum is exact in 32-bit floats: two heights below 2^15 each.
const MOST_SEGMENTS: usize = 256;

/// Whether a pass finds the same as the text: frames are even, windows are differences of two samples, sums are exact.
pub(super) fn applies(t: &Tables) -> bool {
    t.even && t.slope_window <= 3 && t.n <= MOST_SEGMENTS
}

#[inline(always)]
pub(super) fn scan<L: ShortLanes>(t: &Tables, l: L, curve: ShortCurve<'_>, out: &mut [L::F]) {
    match (t.needs_slope, t.slope_window) {
        (false, _) => scan_windows::<L, 0, false>(t, l, curve, out),
        (true, 3) if !t.needs_slope_window => scan_windows::<L, 2, false>(t, l, curve, out),
        (true, 3) => scan_windows::<L, 2, true>(t, l, curve, out),
        (true, _) => scan_windows::<L, 1, true>(t, l, curve, out),
    }
}

/// `STEP` frames lie from a window's first to its last sample; 0 without windows, whose number is kept if `NUMBER`.
#[inline(always)]
fn scan_windows<L: ShortLanes, const STEP: usize, const NUMBER: bool>(
    t: &Tables,
    l: L,
    curve: ShortCurve<'_>,
    out: &mut [L::F],
) {
    let falls = t.sign < 0.0;
    let zero = l.short_splat(0);
    let first = height(l, curve, falls, 0);
    let mut sum = l.long(zero);
    for i in t.first_segment..=t.b {
        sum = l.long_add(sum, l.long(height(l, curve, falls, i) - first));
    }
    let mut frame = l.short_splat(t.b as i16);
    let mut highest = height(l, curve, falls, t.b);
    let lowest = l.short_splat(i16::MIN);
    let (mut pair, mut previous) = (lowest, highest);
    // The steepest window so far, and the one up to the highest sample so far; the first counts whatever the peak.
    let last_baseline = height(l, curve, falls, t.b - 1);
    let mut before_previous = last_baseline;
    let mut steepest =
        if STEP > 0 && t.b - 1 + STEP < t.n { height(l, curve, falls, t.b - 1 + STEP) - last_baseline } else { lowest };
    let mut window = zero;
    let (mut slope, mut best) = (steepest, window);
    // As many heights as 16 bits hold the sum of, each counted from the first sample; what overflows before that is taken
    // off comes back.
    let run = if u32::from(curve.range) * (RUN as u32) < 1 << 15 { RUN } else { 1 };
    let firsts = times(l, first, run);
    let mut start = t.b + 1;
    while start < t.n {
        let end = t.n.min(start + run);
        let mut part = zero;
        for (i, row) in (start..end).zip(curve.frame(start).chunks(curve.stride)) {
            let here = upright(l, row, falls);
            let higher = l.short_greater(here, highest);
            highest = l.short_max(here, highest);
            frame = l.short_select(higher, l.short_splat(i as i16), frame);
            pair = l.short_max(pair, l.short_min(previous, here));
            part = part + here;
            if STEP > 0 {
                let this = here - if STEP == 1 { previous } else { before_previous };
                if NUMBER {
                    let better = l.short_greater(this, steepest);
                    window = l.short_select(better, l.short_splat((i - (t.b - 1) - STEP) as i16), window);
                    best = l.short_select(higher, window, best);
                }
                steepest = l.short_max(this, steepest);
                slope = l.short_select(higher, steepest, slope);
                before_previous = previous;
            }
            previous = here;
        }
        let firsts = if end - start == run { firsts } else { times(l, first, end - start) };
        sum = l.long_add(sum, l.long(part - firsts));
        start = end;
    }
    let origin = float(l, first);
    out[found::FRAME] = float(l, frame);
    out[found::HIGHEST] = float(l, highest) - origin;
    out[found::PAIR] = float(l, pair) - origin;
    out[found::SLOPE] = float(l, slope);
    out[found::WINDOW] = float(l, best);
    // Every sample belongs to two segments, the first and the last to one.
    let ends = float(l, height(l, curve, falls, t.first_segment)) + float(l, previous);
    let all = l.number(sum);
    out[found::PAIR_SUM] = all + all - (ends - (origin + origin));
}

/// Heights that are summed up in 16 bits where samples differ little enough.
const RUN: usize = 8;

/// So many times a number, of which only the lower 16 bits count.
#[inline(always)]
fn times<L: ShortLanes>(l: L, x: L::Short, count: usize) -> L::Short {
    let mut sum = l.short_splat(0);
    for _ in 0..count {
        sum = sum + x;
    }
    sum
}

/// The sample of a frame, upright.
#[inline(always)]
fn height<L: ShortLanes>(l: L, curve: ShortCurve<'_>, falls: bool, frame: usize) -> L::Short {
    upright(l, curve.frame(frame), falls)
}

/// A sample, upright: turned over bit by bit, samples fall where they rose, by as much.
#[inline(always)]
fn upright<L: ShortLanes>(l: L, stored: &[i16], falls: bool) -> L::Short {
    let sample = l.short(stored);
    if falls { l.short_splat(-1) - sample } else { sample }
}

#[inline(always)]
fn float<L: ShortLanes>(l: L, x: L::Short) -> L::F {
    l.number(l.long(x))
}
