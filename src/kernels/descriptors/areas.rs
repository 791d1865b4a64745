//! Exact integrals of the piecewise-linear enhancement between two times, and their standard errors.
//!
//! Whole segments are summed up from the one that the onset lies in, in heights (signed differences from the first sample):
//! exact for integers at even times. The parts of the first and the last segment that lie outside are then taken off, and
//! the baseline's part is.

use std::ops::Range;

use crate::kernel::Rows;
use crate::kernel::lanes::{Lanes, Numbers};

use super::outputs::slot;
use super::reference::{Voxel, clamp};
use super::scan::found;
use super::tables::Tables;

/// An integral as a weighted sum of samples.
pub(super) struct Integral<L: Lanes> {
    pub(super) value: L::F,
    weights: L::F,
    squared_weights: L::F,
}

/// The onset, as the time that integrals start at.
pub(super) struct Start<L: Lanes> {
    pub(super) time: L::F,
    /// Of which voxels it is known, and within the series.
    pub(super) known: L::M,
    /// The frames that come into question as the last one at or before it, of these voxels.
    pub(super) span: Range<usize>,
}

/// Where in the curve a time lies.
struct Place<L: Lanes> {
    /// Number of the segment.
    segment: L::F,
    /// Time, duration and heights of the segment's ends.
    start: L::F,
    step: L::F,
    left: L::F,
    right: L::F,
    /// How far along the segment, from 0 to 1.
    along: L::F,
    /// The sum over the whole segments before.
    whole: L::F,
    /// Half the durations of the segments before and after.
    half_before: L::F,
    half_after: L::F,
    /// Sums over the samples from the segment's start on and from the one after the next on: of the squared weights of whole
    /// segments; for the latter also of the products with the weights in the moment, and of those squared.
    squares: L::F,
    squares_after: [L::F; 3],
}

/// Sums over whole segments, from the one that the onset lies in to each frame: of both heights, weighted for even times
/// by 1, and of the integral of time times height.
struct Sums<'a, L: Lanes> {
    areas: &'a mut [L::F],
    moments: &'a mut [L::F],
    /// Frames that are done.
    done: usize,
    /// What the segments before the onset's would have added to the areas.
    left_out: L::F,
}

impl<'a, L: Lanes> Sums<'a, L> {
    /// In working memory of two numbers per frame: over the segments in which the onset of a voxel can lie.
    #[inline(always)]
    fn new(t: &Tables, l: L, voxel: &Voxel<'_, L>, memory: &'a mut [L::F], start: &Start<L>) -> Self {
        let zero = l.splat(0.0);
        let (areas, moments) = memory.split_at_mut(t.n);
        let end = start.span.end.clamp(t.first_segment + 1, t.n - 1);
        (areas[t.first_segment], moments[t.first_segment]) = (zero, zero);
        let mut sums = Self { areas, moments, done: end, left_out: zero };
        let mut left = voxel.height(t, l, t.first_segment);
        for i in t.first_segment..end {
            let right = voxel.height(t, l, i + 1);
            let (area, moment) = segment(t, l, i, left, right);
            let counts = start.time.lt(t.u.at(l, i + 1)) | l.mask(i + 2 == t.n);
            sums.areas[i + 1] = sums.areas[i] + l.select(counts, area, zero);
            sums.left_out = sums.left_out + l.select(counts, zero, area);
            if t.needs_moment {
                sums.moments[i + 1] = sums.moments[i] + l.select(counts, moment, zero);
            }
            left = right;
        }
        sums
    }

    /// Goes on to a frame.
    #[inline(always)]
    fn extend(&mut self, t: &Tables, l: L, voxel: &Voxel<'_, L>, to: usize) {
        if self.done >= to {
            return;
        }
        let mut left = voxel.height(t, l, self.done);
        for i in self.done..to {
            let right = voxel.height(t, l, i + 1);
            let (area, moment) = segment(t, l, i, left, right);
            self.areas[i + 1] = self.areas[i] + area;
            if t.needs_moment {
                self.moments[i + 1] = self.moments[i] + moment;
            }
            left = right;
        }
        self.done = to;
    }

    /// The sum to the last frame.
    #[inline(always)]
    fn all(&mut self, t: &Tables, l: L, voxel: &Voxel<'_, L>) -> L::F {
        match voxel.curve.scanned {
            Some(found) if !t.needs_moment => found[found::PAIR_SUM] - self.left_out,
            _ => {
                self.extend(t, l, voxel, t.n - 1);
                self.areas[t.n - 1]
            }
        }
    }

    /// Where times lie, for voxels of which the span holds.
    #[inline(always)]
    fn place(
        &mut self,
        t: &Tables,
        l: L,
        voxel: &Voxel<'_, L>,
        time: L::F,
        span: Range<usize>,
        errors: bool,
    ) -> Place<L> {
        let zero = l.splat(0.0);
        let mut place = Place {
            segment: zero,
            start: zero,
            step: zero,
            left: zero,
            right: zero,
            along: zero,
            whole: zero,
            half_before: zero,
            half_after: zero,
            squares: zero,
            squares_after: [zero; 3],
        };
        let mut inv_step = zero;
        if span.is_empty() {
            return place;
        }
        let end = span.end.clamp(t.first_segment + 1, t.n - 1);
        self.extend(t, l, voxel, end - 1);
        for i in span.start.clamp(t.first_segment, t.n - 2)..end {
            let start = t.u.at(l, i);
            let reached = time.ge(start);
            place.start = l.select(reached, start, place.start);
            place.step = l.select(reached, t.dt.at(l, i), place.step);
            inv_step = l.select(reached, t.inv_dt.at(l, i), inv_step);
            place.left = l.select(reached, voxel.height(t, l, i), place.left);
            place.right = l.select(reached, voxel.height(t, l, i + 1), place.right);
            place.whole = l.select(reached, self.areas[i], place.whole);
            if errors {
                let (half_before, half_after) = (t.half_steps.at(l, i), t.half_steps.at(l, i + 2));
                place.segment = l.select(reached, t.index.at(l, i), place.segment);
                place.half_before = l.select(reached, half_before, place.half_before);
                place.half_after = l.select(reached, half_after, place.half_after);
                place.squares = l.select(reached, t.weight_sums.at(l, 3 * i), place.squares);
                for (j, sum) in place.squares_after.iter_mut().enumerate() {
                    *sum = l.select(reached, t.weight_sums.at(l, 3 * (i + 2) + j), *sum);
                }
            }
        }
        place.along = clamp::<L>((time - place.start) * inv_step, zero, l.splat(1.0));
        place
    }
}

/// What a whole segment adds to the two sums.
#[inline(always)]
fn segment<L: Lanes>(t: &Tables, l: L, i: usize, left: L::F, right: L::F) -> (L::F, L::F) {
    let pair = left + right;
    let area = if t.even { pair } else { pair * t.pair_weights.at(l, i) };
    if !t.needs_moment {
        return (area, area);
    }
    (area, left * t.moment_weights.at(l, 2 * i) + right * t.moment_weights.at(l, 2 * i + 1))
}

impl<L: Lanes> Place<L> {
    /// The integral of the height from the segment's start.
    #[inline(always)]
    fn part(&self, l: L) -> L::F {
        let rise = (self.right - self.left) * self.along;
        self.step * self.along * (self.left + rise * l.splat(0.5))
    }

    /// The integral of time times height from the segment's start, times counted from the first frame.
    #[inline(always)]
    fn moment_part(&self, l: L) -> L::F {
        let rise = (self.right - self.left) * self.along;
        let x = self.step * self.along;
        self.start * self.part(l) + x * x * (self.left * l.splat(0.5) + rise * l.splat(1.0 / 3.0))
    }

    /// Weights of the segment's two samples in the integral over its part from a to b.
    #[inline(always)]
    fn weights(&self, l: L, a: L::F, b: L::F) -> (L::F, L::F) {
        let length = b - a;
        let right = self.step * ((b + a) * length * l.splat(0.5));
        (self.step * length - right, right)
    }
}

/// Exact integrals from the onset on: to the last frame, which is returned, and to the end of each window, which are
/// written. Also says where a window reaches past the last frame. And the first moment, if it is asked for.
#[inline(always)]
pub(super) fn areas<L: Lanes>(
    t: &Tables,
    l: L,
    voxel: &Voxel<'_, L>,
    memory: &mut [L::F],
    start: &Start<L>,
    sigma: L::F,
    rows: &mut Rows<'_, L>,
) -> (Integral<L>, Integral<L>, L::M) {
    let zero = l.splat(0.0);
    let u_last = t.u.at(l, t.n - 1);
    let unit = l.splat(t.area_unit);
    let (onset_time, started) = (start.time, start.known);
    let mut sums = Sums::new(t, l, voxel, memory, start);
    let from = sums.place(t, l, voxel, onset_time, start.span.clone(), t.needs_weights || t.needs_moment);
    let before = from.part(l);
    let mut beyond = l.mask(false);
    for (i, seconds) in t.windows.iter().enumerate() {
        let end = onset_time + l.splat(*seconds);
        let inside = started & end.le(u_last);
        beyond = beyond | !inside;
        let errors = t.row(slot::IAUC_SE + i);
        let to = sums.place(t, l, voxel, end, l.span(&t.u, end, inside), errors.is_some());
        if let Some(row) = t.row(slot::IAUC + i) {
            let value = unit * to.whole + (to.part(l) - before) - voxel.level * (end - onset_time);
            rows.set(row, value * l.splat(t.scale), inside);
        }
        if let Some(row) = errors {
            let area =
                Integral { value: zero, weights: end - onset_time, squared_weights: squares_between(l, &from, &to) };
            rows.set(row, standard_error(t, l, &area, sigma) * l.splat(t.scale), inside);
        }
    }
    let (mut area, mut moment) = (Integral::nothing(l), Integral::nothing(l));
    if t.needs_area {
        let length = u_last - onset_time;
        let heights = unit * sums.all(t, l, voxel) - before;
        let squares = if t.needs_weights { squares_to_end(l, &from) } else { zero };
        area = Integral { value: heights - voxel.level * length, weights: length, squared_weights: squares };
        if t.needs_moment {
            let half_square = length * length * l.splat(0.5);
            let of_time = sums.moments[t.n - 1] - from.moment_part(l);
            let value = (of_time - onset_time * heights) - voxel.level * half_square;
            let squares = moment_squares_to_end(l, &from, onset_time);
            moment = Integral { value, weights: half_square, squared_weights: squares };
        }
    }
    (area, moment, beyond)
}

impl<L: Lanes> Integral<L> {
    fn nothing(l: L) -> Self {
        let zero = l.splat(0.0);
        Self { value: zero, weights: zero, squared_weights: zero }
    }
}

/// The sum of the squared weights of the samples in an integral between two times.
#[inline(always)]
fn squares_between<L: Lanes>(l: L, from: &Place<L>, to: &Place<L>) -> L::F {
    let (zero, one) = (l.splat(0.0), l.splat(1.0));
    let (within_left, within_right) = from.weights(l, from.along, to.along);
    let within = within_left * within_left + within_right * within_right;
    let (first, second) = from.weights(l, from.along, one);
    let (last_but_one, last) = to.weights(l, zero, to.along);
    let ends = first * first + last * last;
    let shared = second + last_but_one;
    let (second, last_but_one) = (second + from.half_after, last_but_one + to.half_before);
    let whole = (from.squares_after[0] - to.squares).max(zero);
    let apart = second * second + whole + last_but_one * last_but_one;
    let segments = to.segment - from.segment;
    let several = ends + l.select(segments.gt(one), apart, shared * shared);
    l.select(segments.gt(zero), several, within)
}

/// The same to the last frame.
#[inline(always)]
fn squares_to_end<L: Lanes>(l: L, from: &Place<L>) -> L::F {
    let (first, second) = from.weights(l, from.along, l.splat(1.0));
    let second = second + from.half_after;
    first * first + second * second + from.squares_after[0]
}

/// The same of the first moment about the onset.
#[inline(always)]
fn moment_squares_to_end<L: Lanes>(l: L, from: &Place<L>, onset_time: L::F) -> L::F {
    let (one, half, third) = (l.splat(1.0), l.splat(0.5), l.splat(1.0 / 3.0));
    let a = from.along;
    let length = one - a;
    let (first_moment, second_moment) = ((one + a) * length * half, (one + a + a * a) * length * third);
    let since = from.start - onset_time;
    let right = from.step * (since * first_moment + from.step * second_moment);
    let left = from.step * (since * length + from.step * first_moment) - right;
    let step_after = from.half_after + from.half_after;
    let second = right + step_after * ((since + from.step) * half + step_after * l.splat(1.0 / 6.0));
    let [squares, products, moments] = from.squares_after;
    let rest = (moments - onset_time * (products + products)) + onset_time * onset_time * squares;
    left * left + second * second + rest.max(l.splat(0.0))
}

/// sqrt(sigma^2 (sum w^2 + (sum w)^2 / n)), in stored units.
#[inline(always)]
pub(super) fn standard_error<L: Lanes>(t: &Tables, l: L, integral: &Integral<L>, sigma: L::F) -> L::F {
    let baseline_part = integral.weights * integral.weights * l.splat(t.inv_baseline);
    sigma * (integral.squared_weights + baseline_part).sqrt()
}
