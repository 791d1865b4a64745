//! One pass over 16-bit samples that finds what the text finds in differences from the first sample: the same numbers, to
//! the bit, because all of them are whole and exact.

use crate::kernel::short::{ScanState, ShortCurve, ShortLanes};

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

/// Frames before [`start`].
#[inline(always)]
pub(super) fn begin<L: ShortLanes>(t: &Tables, l: L, curve: ShortCurve<'_>, state: ScanState<'_>) {
    let falls = t.sign < 0.0;
    let first = height(l, curve, falls, 0);
    let mut sum = l.long(l.short_splat(0));
    for i in t.first_segment..=t.b {
        sum = l.long_add(sum, l.long(height(l, curve, falls, i) - first));
    }
    l.long_store(sum, state.sum);
    let highest = height(l, curve, falls, t.b);
    let last_baseline = height(l, curve, falls, t.b - 1);
    // The first window counts whatever the peak.
    let step = step(t);
    let lowest = l.short_splat(i16::MIN);
    let steepest =
        if step > 0 && t.b - 1 + step < t.n { height(l, curve, falls, t.b - 1 + step) - last_baseline } else { lowest };
    let kept = Kept::<L> {
        frame: l.short_splat(t.b as i16),
        highest,
        pair: lowest,
        previous: highest,
        before_previous: last_baseline,
        steepest,
        slope: steepest,
        window: l.short_splat(0),
        best: l.short_splat(0),
    };
    kept.store::<2, true>(l, state.short);
    for i in t.b + 1..start(t) {
        let state = ScanState { short: &mut *state.short, sum: &mut *state.sum };
        frames(t, l, i, [l.short(curve.frame(i))], l.short(curve.frame(0)), state);
    }
}

/// The frame that follows those of the baseline and of the first window.
pub(super) fn start(t: &Tables) -> usize {
    t.n.min(t.b + step(t).max(1))
}

/// Frames from `frame` on.
#[inline(always)]
pub(super) fn frames<L: ShortLanes, const N: usize>(
    t: &Tables,
    l: L,
    frame: usize,
    samples: [L::Short; N],
    first: L::Short,
    state: ScanState<'_>,
) {
    match (step(t), t.needs_slope_window) {
        (0, _) => frames_of::<L, N, 0, false>(t, l, frame, samples, first, state),
        (2, false) => frames_of::<L, N, 2, false>(t, l, frame, samples, first, state),
        (2, true) => frames_of::<L, N, 2, true>(t, l, frame, samples, first, state),
        _ => frames_of::<L, N, 1, true>(t, l, frame, samples, first, state),
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

/// The same with windows of `STEP` more frames than one, whose number is kept if `NUMBER`.
#[inline(always)]
fn frames_of<L: ShortLanes, const N: usize, const STEP: usize, const NUMBER: bool>(
    t: &Tables,
    l: L,
    frame: usize,
    samples: [L::Short; N],
    first: L::Short,
    state: ScanState<'_>,
) {
    let falls = t.sign < 0.0;
    // Of a length that is known when compiling: nothing within is checked again.
    let (kept, sums) = (&mut state.short[..KEPT * L::WIDTH], &mut state.sum[..L::WIDTH]);
    let mut k = Kept::<L>::load::<STEP, NUMBER>(l, kept);
    // Each height counts from the first sample; what overflows before that is taken off comes back.
    let first = upright(l, first, falls);
    let mut part = l.short_splat(0);
    for _ in 0..N {
        part = part - first;
    }
    for (j, sample) in samples.into_iter().enumerate() {
        let i = frame + j;
        let here = upright(l, sample, falls);
        let higher = l.short_greater(here, k.highest);
        k.highest = l.short_max(here, k.highest);
        k.frame = l.short_select(higher, l.short_splat(i as i16), k.frame);
        k.pair = l.short_max(k.pair, l.short_min(k.previous, here));
        part = part + here;
        if STEP > 0 {
            let this = here - if STEP == 1 { k.previous } else { k.before_previous };
            if NUMBER {
                let better = l.short_greater(this, k.steepest);
                k.window = l.short_select(better, l.short_splat((i - (t.b - 1) - STEP) as i16), k.window);
                k.best = l.short_select(higher, k.window, k.best);
            }
            k.steepest = l.short_max(this, k.steepest);
            k.slope = l.short_select(higher, k.steepest, k.slope);
            k.before_previous = k.previous;
        }
        k.previous = here;
    }
    k.store::<STEP, NUMBER>(l, kept);
    l.long_store(l.long_add(l.long_load(sums), l.long(part)), sums);
}

/// What was found in all frames.
#[inline(always)]
pub(super) fn end<L: ShortLanes>(t: &Tables, l: L, curve: ShortCurve<'_>, state: ScanState<'_>, out: &mut [L::F]) {
    let falls = t.sign < 0.0;
    let k = Kept::<L>::load::<2, true>(l, state.short);
    let origin = float(l, height(l, curve, falls, 0));
    out[found::FRAME] = float(l, k.frame);
    out[found::HIGHEST] = float(l, k.highest) - origin;
    out[found::PAIR] = float(l, k.pair) - origin;
    out[found::SLOPE] = float(l, k.slope);
    out[found::WINDOW] = float(l, k.best);
    // Every sample belongs to two segments, the first and the last to one.
    let ends = float(l, height(l, curve, falls, t.first_segment)) + float(l, k.previous);
    let all = l.number(l.long_load(state.sum));
    out[found::PAIR_SUM] = all + all - (ends - (origin + origin));
}

/// Numbers that are kept.
pub(super) const KEPT: usize = 9;

/// What is kept of some voxels from frame to frame, as heights.
struct Kept<L: ShortLanes> {
    /// The highest sample and its frame.
    frame: L::Short,
    highest: L::Short,
    /// The largest lower one of two consecutive heights.
    pair: L::Short,
    /// The last two heights.
    previous: L::Short,
    before_previous: L::Short,
    /// The steepest window so far, and the one up to the highest sample so far; their numbers.
    steepest: L::Short,
    slope: L::Short,
    window: L::Short,
    best: L::Short,
}

impl<L: ShortLanes> Kept<L> {
    /// What frames are looked at with: windows only where there are some, their numbers only where they are asked for.
    #[inline(always)]
    fn load<const STEP: usize, const NUMBER: bool>(l: L, memory: &[i16]) -> Self {
        let zero = l.short_splat(0);
        let at = |place: usize| l.short(&memory[place * L::WIDTH..]);
        let of_windows = |place: usize| if STEP > 0 { at(place) } else { zero };
        let of_numbers = |place: usize| if NUMBER { at(place) } else { zero };
        Self {
            frame: at(0),
            highest: at(1),
            pair: at(2),
            previous: at(3),
            before_previous: of_windows(4),
            steepest: of_windows(5),
            slope: of_windows(6),
            window: of_numbers(7),
            best: of_numbers(8),
        }
    }

    #[inline(always)]
    fn store<const STEP: usize, const NUMBER: bool>(self, l: L, memory: &mut [i16]) {
        let mut put = |place: usize, x: L::Short| l.short_store(x, &mut memory[place * L::WIDTH..]);
        put(0, self.frame);
        put(1, self.highest);
        put(2, self.pair);
        put(3, self.previous);
        if STEP > 0 {
            put(4, self.before_previous);
            put(5, self.steepest);
            put(6, self.slope);
        }
        if NUMBER {
            put(7, self.window);
            put(8, self.best);
        }
    }
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
