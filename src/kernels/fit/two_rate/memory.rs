//! Working memory for one block of voxels: the samples, and single convolutions at their frames.

#![expect(clippy::needless_range_loop, reason = "formulas of matrices and frames are read by their indices")]

use super::super::convolution::{WEIGHTS, convolve, step_weights};
use super::super::delay::{PLACE, forget};
use super::pass::kept;
use super::search::starts;
use super::tables::Tables;
use crate::kernel::Curve;
use crate::kernel::lanes::{Lanes, Masks, Numbers};

/// Working memory for one block of voxels.
pub(super) struct Work<'a, F> {
    /// The samples: mM.
    pub(super) c: &'a mut [F],
    /// The fitted curve, once it is asked for.
    pub(super) fitted: &'a mut [F],
    /// A single exponential's curve and its derivative by the rate, made orthonormal.
    pub(super) single: &'a mut [F],
    pub(super) single_by_rate: &'a mut [F],
    pub(super) projections: &'a mut [F],
    /// The best of every pair: how much of the sum of squares it explains, its flow, the faster exponential's share, and the
    /// delay.
    pub(super) pairs: [&'a mut [F]; 4],
    /// The same of every single rate: how much it explains, and its delay's place.
    pub(super) singles: [&'a mut [F]; 2],
    /// What every rate would add to the best single one, and its amplitude then.
    pub(super) partners: [&'a mut [F]; 2],
    /// What a walk along the frames leaves for the equations.
    pub(super) kept: &'a mut [F],
    pub(super) weights: [&'a mut [F]; 2],
    pub(super) knots: [&'a mut [F]; 2],
    pub(super) knots_by_rate: [&'a mut [F]; 2],
    pub(super) knots_bend: [&'a mut [F]; 2],
    /// Where the frames lie between the knots.
    pub(super) places: &'a mut [F],
}

fn knots(t: &Tables) -> usize {
    if t.delay.own { t.delay.knot_times.len() } else { 0 }
}

/// Numbers of the frames' places between the knots.
fn places(t: &Tables) -> usize {
    if t.delay.own { PLACE * t.n } else { 0 }
}

/// Numbers of memory that a block keeps while others are in hand: its samples and starts.
pub(super) fn of_block(t: &Tables) -> usize {
    t.n + starts(t.delay.own) * if t.delay.own { 6 } else { 5 }
}

/// Numbers of working memory.
pub(super) fn scratch(t: &Tables) -> usize {
    (4 + kept(t.delay.own)) * t.n
        + 5 * t.rates.len()
        + 4 * t.pairs.count()
        + 6 * knots(t)
        + places(t)
        + 2 * WEIGHTS * t.steps.lengths.len()
}

impl<'a, F> Work<'a, F> {
    #[inline(always)]
    pub(super) fn new<L: Lanes<F = F>>(lanes: L, t: &Tables, memory: &'a mut [F]) -> Self
    where
        F: Numbers,
    {
        let (c, memory) = memory.split_at_mut(t.n);
        let (fitted, memory) = memory.split_at_mut(t.n);
        let (single, memory) = memory.split_at_mut(t.n);
        let (single_by_rate, memory) = memory.split_at_mut(t.n);
        let (kept, memory) = memory.split_at_mut(kept(t.delay.own) * t.n);
        let (projections, memory) = memory.split_at_mut(t.rates.len());
        let (gains, memory) = memory.split_at_mut(t.pairs.count());
        let (flows, memory) = memory.split_at_mut(t.pairs.count());
        let (shares, memory) = memory.split_at_mut(t.pairs.count());
        let (delays, memory) = memory.split_at_mut(t.pairs.count());
        let (single_gains, memory) = memory.split_at_mut(t.rates.len());
        let (single_delays, memory) = memory.split_at_mut(t.rates.len());
        let (partner_gains, memory) = memory.split_at_mut(t.rates.len());
        let (partner_flows, memory) = memory.split_at_mut(t.rates.len());
        let (fast, memory) = memory.split_at_mut(knots(t));
        let (slow, memory) = memory.split_at_mut(knots(t));
        let (fast_by_rate, memory) = memory.split_at_mut(knots(t));
        let (slow_by_rate, memory) = memory.split_at_mut(knots(t));
        let (fast_bend, memory) = memory.split_at_mut(knots(t));
        let (slow_bend, memory) = memory.split_at_mut(knots(t));
        let (places, memory) = memory.split_at_mut(places(t));
        forget(lanes, places);
        let (weights_fast, weights_slow) = memory.split_at_mut(WEIGHTS * t.steps.lengths.len());
        Self {
            c,
            fitted,
            single,
            single_by_rate,
            kept,
            projections,
            pairs: [gains, flows, shares, delays],
            singles: [single_gains, single_delays],
            partners: [partner_gains, partner_flows],
            weights: [weights_fast, weights_slow],
            knots: [fast, slow],
            knots_by_rate: [fast_by_rate, slow_by_rate],
            knots_bend: [fast_bend, slow_bend],
            places,
        }
    }
}

impl<F> Work<'_, F> {
    /// The convolution with one exponential and its derivative by the rate, at the frames.
    #[inline(always)]
    pub(super) fn single_curve<L: Lanes<F = F>>(&mut self, lanes: L, t: &Tables, rate: F, delay: F)
    where
        F: Numbers<Mask = L::M>,
    {
        if !t.delay.own {
            convolve(lanes, &t.steps, rate, self.weights[0], self.single, self.single_by_rate);
            return;
        }
        convolve(lanes, &t.steps, rate, self.weights[0], self.knots[0], self.knots_by_rate[0]);
        for i in 0..t.n {
            let place = Place::of(lanes, t, i, delay, &mut self.places[PLACE * i..][..PLACE]);
            let knots = [&*self.knots[0], &*self.knots_by_rate[0], &*self.knots_by_rate[0]];
            let here = place.advance(lanes, rate, knots);
            self.single[i] = here[0];
            self.single_by_rate[i] = here[1];
        }
    }
}

/// Where a frame lies between the knots of the input function, for a delay of the voxel's own.
pub(super) struct Place<F, M> {
    /// The last knot at or before the frame, and the time since.
    pub(super) knot: F,
    pub(super) length: F,
    /// Whether the first knot has come.
    pub(super) arrived: M,
    /// The input at that knot, and at the frame.
    pub(super) begin: F,
    pub(super) end: F,
    /// Its slope from that knot on.
    pub(super) slope: F,
}

impl<F: Numbers<Mask = M>, M: Masks> Place<F, M> {
    #[inline(always)]
    pub(super) fn of<L: Lanes<F = F, M = M>>(lanes: L, t: &Tables, frame: usize, delay: F, kept: &mut [F]) -> Self {
        let zero = lanes.splat(0.0);
        let (since, arrived) = t.delay.place(lanes, &t.frame_times, (frame, false), delay, zero, kept);
        let (knot, length, begin, slope) = (kept[0], since.max(zero), kept[5], kept[6]);
        Self { knot, length, arrived, begin, end: begin + slope * length, slope }
    }

    /// A convolution, its derivative by the rate and half the second one at the frame, from those at the knots.
    #[inline(always)]
    pub(super) fn advance<L: Lanes<F = F, M = M>>(
        &self,
        lanes: L,
        rate: F,
        [values, by_rate, bend]: [&[F]; 3],
    ) -> [F; 3] {
        let zero = lanes.splat(0.0);
        let w = step_weights(lanes, rate, self.length);
        let value = lanes.gather(values, self.knot);
        let derivative = lanes.gather(by_rate, self.knot);
        let here = w.decay * value + (w.begin * self.begin + w.end * self.end);
        let here_by_rate =
            w.decay * derivative + w.decay_by_rate * value + (w.begin_by_rate * self.begin + w.end_by_rate * self.end);
        let here_bend = w.decay * lanes.gather(bend, self.knot) - (w.begin * derivative + w.end * here_by_rate);
        [
            lanes.select(self.arrived, here, zero),
            lanes.select(self.arrived, here_by_rate, zero),
            lanes.select(self.arrived, here_bend, zero),
        ]
    }
}

/// Sums over a voxel's samples.
#[derive(Clone, Copy)]
pub(super) struct Samples<F> {
    pub(super) squares: F,
    pub(super) squares_about_mean: F,
}

/// Reads the samples as concentrations.
#[inline(always)]
pub(super) fn read<L: Lanes>(lanes: L, t: &Tables, curve: &Curve<'_, L>, c: &mut [L::F]) -> Samples<L::F> {
    let zero = lanes.splat(0.0);
    let slope = lanes.splat(t.slope);
    let first = slope * curve.first + lanes.splat(t.intercept);
    let (mut squares, mut differences) = (zero, zero);
    for i in 0..t.n {
        let difference = slope * curve.difference(i);
        c[i] = first + difference;
        squares = c[i].mul_add(c[i], squares);
        differences = differences + difference;
    }
    let mean = differences / lanes.count(t.n);
    let mut squares_about_mean = zero;
    for i in 0..t.n {
        let off = slope * curve.difference(i) - mean;
        squares_about_mean = off.mul_add(off, squares_about_mean);
    }
    Samples { squares, squares_about_mean }
}
