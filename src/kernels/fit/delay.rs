//! What fits with a delay of each voxel's own need, decided once for all voxels in f64.

use super::axis::Knots;
use super::{Delay, Parameter, PharmacokineticFit};
use crate::kernel::lanes::{Lanes, Masks as _, Numbers as _, Table};

/// Delays of the dictionary are a frame or a whole part of one apart, within these: s.
const FINEST_DELAY: f64 = 0.25;
const COARSEST_DELAY: f64 = 0.5;

/// Numbers that are kept of where a frame lies between the knots, as long as no delay takes it past one: the last knot that has
/// come; the times from it and from the next one to the frame, without the delay, each followed by what 32 bits lack of it; the
/// input at that knot, its slope from there on, and its integral up to there.
pub(super) const PLACE: usize = 8;

/// Places that aren't known: the next knot has come whatever the delay.
#[inline(always)]
pub(super) fn forget<L: Lanes>(lanes: L, places: &mut [L::F]) {
    places.fill(lanes.splat(FAR));
}

/// Later than all times: s.
const FAR: f64 = 1e30;

/// What a voxel's own delay needs; shaders walk along the knots in any case.
#[derive(Debug, Clone, Default)]
pub(super) struct DelayTables {
    /// Whether voxels have their own delay.
    pub(super) own: bool,
    /// Whether it comes from the first extra layer, where that isn't NaN.
    pub(super) layer: bool,
    /// Whether it is fitted in some voxels.
    pub(super) fitted: bool,
    /// Its bounds in s.
    pub(super) bounds: (f64, f64),
    /// Searched, ascending, in s; and the largest distance between two of them.
    pub(super) nodes: Table,
    pub(super) reach: f64,
    pub(super) knot_times: Table,
    /// What 32 bits lack of the knots' and the frames' times: s.
    pub(super) knot_rest: Table,
    pub(super) frame_rest: Table,
    pub(super) knot_values: Table,
    /// Slope after each knot; 0 after the last.
    pub(super) knot_slopes: Table,
    /// Integral up to each knot.
    pub(super) knot_integrals: Table,
    /// Halvings that find a knot.
    pub(super) halvings: usize,
    /// The longest time there is: its rounding is what a time less a delay may be off by.
    pub(super) span: f64,
    /// The longest time between two knots, and the largest delay: their rounding is what the time since a knot may be off by.
    pub(super) near: f64,
}

impl DelayTables {
    /// The last knot at or before a time; the first one before all.
    #[inline(always)]
    fn knot_at<L: Lanes>(&self, lanes: L, time: L::F) -> L::F {
        let half = lanes.splat(0.5);
        let (mut low, mut high) = (lanes.splat(0.0), lanes.count(self.knot_times.len()));
        for _ in 0..self.halvings {
            let middle = (half * (low + high)).floor();
            let reached = lanes.lookup(&self.knot_times, middle).le(time) & middle.gt(low);
            let below = !reached & middle.lt(high) & middle.gt(low);
            high = lanes.select(below, middle, high);
            low = lanes.select(reached, middle, low);
        }
        low
    }

    /// The last knot that has come at a frame and so much later; the first one before all. Its place comes from rounded times, and
    /// whether the next one has come, too, from the time since that one.
    #[inline(always)]
    fn last_knot<L: Lanes>(&self, lanes: L, frame_times: &Table, frame: usize, delay: L::F, later: L::F) -> L::F {
        let surely = frame_times.at(lanes, frame) - delay - lanes.splat(4.0 * L::EPSILON * self.span);
        let knot = self.knot_at(lanes, surely);
        let next = (knot + lanes.splat(1.0)).min(lanes.count(self.knot_times.len() - 1));
        let come = (self.since(lanes, frame_times, frame, next, delay) + later).ge(lanes.splat(0.0));
        lanes.select(come, next, knot)
    }

    /// Where a frame lies, so much later: the time since the last knot that has come, and whether there is one. What else is known
    /// of the place is kept, and looked up only where a knot has been passed; the integral if it is needed.
    #[inline(always)]
    pub(super) fn place<L: Lanes>(
        &self,
        lanes: L,
        frame_times: &Table,
        (frame, needs_integral): (usize, bool),
        delay: L::F,
        later: L::F,
        kept: &mut [L::F],
    ) -> (L::F, L::M) {
        let (zero, one) = (lanes.splat(0.0), lanes.splat(1.0));
        let last = lanes.count(self.knot_times.len() - 1);
        let since = |from: L::F, rest: L::F| if L::WIDTH == 1 { from - delay } else { (from - delay) + rest };
        // Most often the next knot, or the one before, is the one.
        for again in [false, true] {
            let (here, next) = (since(kept[1], kept[2]), since(kept[3], kept[4]));
            let (come, arrived) = ((next + later).ge(zero), (here + later).ge(zero));
            let gone = !arrived & kept[0].gt(zero);
            if !(come | gone).any() {
                return (here, arrived);
            }
            let step = lanes.select(come, one, lanes.select(gone, -one, zero));
            let knot = if again {
                self.last_knot(lanes, frame_times, frame, delay, later)
            } else {
                (kept[0] + step).max(zero).min(last)
            };
            let next = (knot + one).min(last);
            let (time, rest) = (frame_times.at(lanes, frame), self.frame_rest.at(lanes, frame));
            kept[0] = knot;
            kept[1] = time - lanes.lookup(&self.knot_times, knot);
            kept[2] = rest - lanes.lookup(&self.knot_rest, knot);
            kept[3] = lanes.select(knot.ge(last), lanes.splat(-FAR), time - lanes.lookup(&self.knot_times, next));
            kept[4] = rest - lanes.lookup(&self.knot_rest, next);
            kept[5] = lanes.lookup(&self.knot_values, knot);
            kept[6] = lanes.lookup(&self.knot_slopes, knot);
            if needs_integral {
                kept[7] = lanes.lookup(&self.knot_integrals, knot);
            }
        }
        let here = since(kept[1], kept[2]);
        (here, (here + later).ge(zero))
    }

    /// The time from a knot to a frame, less a delay: s.
    #[inline(always)]
    fn since<L: Lanes>(&self, lanes: L, frame_times: &Table, frame: usize, knot: L::F, delay: L::F) -> L::F {
        // The difference of two times that lie close is exact in 32 bits; that of a time and a delay isn't.
        let since = (frame_times.at(lanes, frame) - lanes.lookup(&self.knot_times, knot)) - delay;
        if L::WIDTH == 1 {
            return since;
        }
        // What 32 bits lack of both times.
        since + (self.frame_rest.at(lanes, frame) - lanes.lookup(&self.knot_rest, knot))
    }
}

/// Tables for delays of the voxels' own.
pub(super) fn delay_tables(settings: &PharmacokineticFit, t: &[f64], knots: Knots<'_>, own: bool) -> DelayTables {
    let fitted = settings.delay.is_fitted();
    let (lower, upper) = settings.internal_bounds(Parameter::Delay);
    let shortest = |times: &[f64]| times.windows(2).map(|w| w[1] - w[0]).fold(f64::INFINITY, f64::min);
    let spacing = shortest(t).max(shortest(knots.times));
    let finest = if spacing < FINEST_DELAY { spacing * (FINEST_DELAY / spacing).ceil() } else { spacing };
    let step = finest / (finest / COARSEST_DELAY).ceil().max(1.0);
    // Multiples of the step, for there the kinks of an even axis are; and the bounds.
    let (mut first, mut last) = if fitted { (lower, upper) } else { (f64::INFINITY, f64::NEG_INFINITY) };
    if let Delay::PerVoxel(map) = &settings.delay {
        for seconds in map.flat().iter().filter(|seconds| seconds.is_finite()) {
            (first, last) = (first.min(f64::from(*seconds)), last.max(f64::from(*seconds)));
        }
    }
    if first > last {
        (first, last) = (0.0, 0.0);
    }
    let mut nodes = if own { vec![first] } else { Vec::new() };
    let mut multiple = (first / step).floor() + 1.0;
    while own && multiple * step < last {
        if multiple * step > first + 1e-6 * step {
            nodes.push(multiple * step);
        }
        multiple += 1.0;
    }
    if own && last > first {
        nodes.push(last);
    }
    let count = knots.times.len();
    let longest = knots.times.windows(2).map(|w| w[1] - w[0]).fold(0.0, f64::max);
    let slopes = (0..count).map(|i| {
        if i + 1 < count {
            (knots.values[i + 1] - knots.values[i]) / (knots.times[i + 1] - knots.times[i])
        } else {
            0.0
        }
    });
    DelayTables {
        own,
        layer: matches!(settings.delay, Delay::PerVoxel(_)),
        fitted,
        bounds: (lower, upper),
        reach: nodes.windows(2).map(|w| w[1] - w[0]).fold(1e-3, f64::max),
        nodes: nodes.into_iter().collect(),
        knot_slopes: slopes.collect(),
        knot_integrals: knots.integral(knots.times).into_iter().collect(),
        knot_values: knots.values.iter().copied().collect(),
        halvings: count.next_power_of_two().trailing_zeros() as usize + 1,
        span: knots.times[count - 1].abs().max(knots.times[0].abs()).max(t[t.len() - 1]) + lower.abs().max(upper.abs()),
        near: longest + [first, last, lower, upper].map(f64::abs).into_iter().fold(0.0, f64::max),
        knot_times: knots.times.iter().copied().collect(),
        knot_rest: rest(knots.times),
        frame_rest: rest(t),
    }
}

/// What 32 bits lack of these.
fn rest(times: &[f64]) -> Table {
    times.iter().map(|t| t - f64::from(*t as f32)).collect()
}
