//! The steps of a fit: of the rate at one delay, and of the delay.

use super::reference::{NEGLIGIBLE, Point, drop};
use super::tables::{Companion, Tables};
use crate::kernel::lanes::{Lanes, Numbers as _};
use crate::kernels::fit::Model;

/// Between rates that shape a curve in proportion to the rate, and in proportion to its inverse: s.
const TYPICAL_TIME: f64 = 10.0;

/// The search for the rate at one delay: steps of Gauss and Newton, then of secants, between rates of falling and rising
/// slope.
pub(super) struct RateSearch<L: Lanes> {
    /// Rates at which the slope was seen to fall and to rise, none yet; and the slopes there.
    low: L::F,
    high: L::F,
    slope_at_low: L::F,
    slope_at_high: L::F,
    previous_rate: L::F,
    previous_slope: L::F,
    /// Lengths of the last two steps, the later one first.
    lengths: [L::F; 2],
    /// Whether no step has been made yet, and whether an even number has.
    fresh: L::M,
    even: L::M,
}

/// A step of the rate.
pub(super) struct RateStep<F, M> {
    pub(super) rate: F,
    /// Whether next to nothing is left to gain.
    pub(super) small: M,
    /// Whether the step is none.
    pub(super) stuck: M,
}

impl<L: Lanes> RateSearch<L> {
    #[inline(always)]
    pub(super) fn new(lanes: L, t: &Tables) -> Self {
        let zero = lanes.splat(0.0);
        let (lowest, highest) = Self::ends(lanes, t);
        Self {
            low: lanes.splat(0.5) * lowest,
            high: highest + highest,
            slope_at_low: zero,
            slope_at_high: zero,
            previous_rate: zero,
            previous_slope: zero,
            lengths: [lanes.splat(f64::from(f32::MAX)); 2],
            fresh: lanes.mask(true),
            even: lanes.mask(true),
        }
    }

    /// Begins anew where the mask holds.
    #[inline(always)]
    pub(super) fn begin(&mut self, lanes: L, t: &Tables, here: L::M) {
        self.forget(lanes, t, here, lanes.splat(0.0));
        self.previous_slope = lanes.select(here, lanes.splat(0.0), self.previous_slope);
        self.fresh = self.fresh | here;
        self.even = self.even | here;
    }

    #[inline(always)]
    fn ends(lanes: L, t: &Tables) -> (L::F, L::F) {
        (t.rates.at(lanes, 0), t.rates.at(lanes, t.rates.len() - 1))
    }

    /// Another delay has other slopes.
    #[inline(always)]
    pub(super) fn forget(&mut self, lanes: L, t: &Tables, where_moved: L::M, rate: L::F) {
        let new = Self::new(lanes, t);
        self.low = lanes.select(where_moved, new.low, self.low);
        self.high = lanes.select(where_moved, new.high, self.high);
        self.previous_rate = lanes.select(where_moved, rate, self.previous_rate);
        for (length, new) in self.lengths.iter_mut().zip(new.lengths) {
            *length = lanes.select(where_moved, new, *length);
        }
    }

    #[inline(always)]
    pub(super) fn next(
        &mut self,
        lanes: L,
        t: &Tables,
        squares: L::F,
        rate: L::F,
        p: &Point<L::F, L::M>,
    ) -> RateStep<L::F, L::M> {
        let zero = lanes.splat(0.0);
        let one = lanes.splat(1.0);
        let (lowest, highest) = Self::ends(lanes, t);
        let negligible = lanes.splat(NEGLIGIBLE.1 * L::EPSILON * L::EPSILON) * squares;
        let small = drop(lanes, p).le(lanes.splat(NEGLIGIBLE.0) * p.sse + negligible);
        if t.model == Model::Patlak {
            return RateStep { rate, small, stuck: lanes.mask(true) };
        }
        let falling = p.slope.lt(zero);
        let (rises, falls) = (!falling & rate.lt(self.high), falling & rate.gt(self.low));
        self.low = lanes.select(falls, rate, self.low);
        self.slope_at_low = lanes.select(falls, p.slope, self.slope_at_low);
        self.high = lanes.select(rises, rate, self.high);
        self.slope_at_high = lanes.select(rises, p.slope, self.slope_at_high);
        // The second derivative from two slopes, if it makes sense beside that of Gauss and Newton.
        let apart = rate - self.previous_rate;
        let moved = apart.abs().gt(zero) & !self.fresh;
        let secant = (p.slope - self.previous_slope) / lanes.select(moved, apart, one);
        let large_residual = p.sse.gt(lanes.splat(1e-4) * squares);
        // On a curved bound the coefficients may move along with the rate, which the curvature doesn't know.
        let curved = lanes.mask(t.companion == Companion::Integral) & !p.solution.b_free;
        let least = lanes.select(curved, lanes.splat(1e-3), lanes.splat(0.05));
        let sensible = moved
            & (large_residual | curved)
            & secant.gt(least * p.curvature)
            & secant.lt(lanes.splat(20.0) * p.curvature);
        let second = lanes.select(sensible, secant, p.curvature);
        let relative = -(p.slope / (lanes.select(second.gt(zero), second, one) * rate.max(lanes.splat(1e-30))));
        let relative = lanes.select(second.gt(zero), relative, zero);
        // Slow rates shape a curve in proportion to the rate, fast ones to its inverse.
        let product = rate * lanes.splat(TYPICAL_TIME);
        let share = product / (one + product);
        let below = one - share * relative;
        let above = one + (one - share) * relative;
        let fair = below.gt(lanes.splat(0.2)) & above.gt(lanes.splat(0.2));
        let factor = above / lanes.select(fair, below, one);
        let limit = lanes.select(relative.gt(zero), lanes.splat(5.0), lanes.splat(0.2));
        let factor = lanes.select(fair, factor, limit).max(lanes.splat(0.2)).min(lanes.splat(5.0));
        let tried = (rate * factor).max(lowest).min(highest);
        let corner = lanes.splat(t.corner);
        let crosses = (rate.lt(corner) & corner.lt(tried)) | (tried.lt(corner) & corner.lt(rate));
        let tried = lanes.select(crosses & !p.solution.b_free, corner, tried);
        let between = self.low.ge(lowest) & self.high.le(highest);
        let narrow = between & (self.high - self.low).le(lanes.splat(4.0 * L::EPSILON) * rate);
        let stuck = (tried.le(rate) & tried.ge(rate)) | narrow;
        // A last step is a short one: where the sum of squares is flat, a long one leads nowhere.
        let tried = lanes.select(small & relative.abs().gt(lanes.splat(0.1)), rate, tried);
        // A slope with a kink sends steps to and fro: each is at most half of the one before the last.
        let slow = between & (tried - rate).abs().gt(lanes.splat(0.5) * self.lengths[1]);
        let out = tried.le(self.low) | tried.ge(self.high) | slow;
        let middle = (self.low * self.high).sqrt().max(lowest).min(highest);
        // Every other time where a straight line between both slopes has its zero.
        let share = self.slope_at_high / (self.slope_at_high - self.slope_at_low).max(lanes.splat(1e-30));
        let share = share.max(lanes.splat(0.01)).min(lanes.splat(0.99));
        let crossing = self.high + share * (self.low - self.high);
        let middle = lanes.select(between & self.even, crossing, middle);
        // The last step doesn't leave its valley, and one too small for a number is none.
        let next = lanes.select(out, lanes.select(stuck | small, rate, middle), tried);
        (self.previous_rate, self.previous_slope) = (rate, p.slope);
        self.lengths = [(next - rate).abs(), self.lengths[0]];
        (self.fresh, self.even) = (lanes.mask(false), !self.even);
        RateStep { rate: next, small, stuck }
    }
}

/// The search for a delay to one side of an entry of the dictionary, where the sum of squares may have a kink.
pub(super) struct DelaySearch<L: Lanes> {
    /// The stretch that is searched.
    first: L::F,
    last: L::F,
    /// Delays at which the slope was seen to fall and to rise; none yet.
    low: L::F,
    high: L::F,
    /// To which side of a knot the input function is looked up: a later time is an earlier delay.
    pub(super) side: L::F,
    previous_delay: L::F,
    previous_slope: L::F,
    previous_rate: L::F,
    /// Lengths of the last two steps, the later one first.
    lengths: [L::F; 2],
    /// How the rate follows the delay.
    pub(super) rate_by_delay: L::F,
    /// Whether the step is none.
    pub(super) stuck: L::M,
}

impl<L: Lanes> DelaySearch<L> {
    #[inline(always)]
    pub(super) fn new(lanes: L, t: &Tables, delay: L::F, left: L::M) -> Self {
        let zero = lanes.splat(0.0);
        let one = lanes.splat(1.0);
        let (lower, upper) = (lanes.splat(t.delay.bounds.0), lanes.splat(t.delay.bounds.1));
        let reach = lanes.splat(2.0 * t.delay.reach);
        let first = lanes.select(left, (delay - reach).max(lower), delay);
        let last = lanes.select(left, delay, (delay + reach).min(upper));
        let aside = lanes.splat(4.0 * L::EPSILON * t.delay.near);
        Self {
            first,
            last,
            low: first - one,
            high: last + one,
            side: lanes.select(left, aside, -aside),
            previous_delay: delay,
            previous_slope: zero,
            previous_rate: zero,
            lengths: [lanes.splat(f64::from(f32::MAX)); 2],
            rate_by_delay: zero,
            stuck: lanes.mask(false),
        }
    }

    /// Begins anew where the mask holds.
    #[inline(always)]
    pub(super) fn begin(&mut self, lanes: L, t: &Tables, here: L::M, delay: L::F, left: L::M) {
        let new = Self::new(lanes, t, delay, left);
        let choose = |new, old| lanes.select(here, new, old);
        *self = Self {
            first: choose(new.first, self.first),
            last: choose(new.last, self.last),
            low: choose(new.low, self.low),
            high: choose(new.high, self.high),
            side: choose(new.side, self.side),
            previous_delay: choose(new.previous_delay, self.previous_delay),
            previous_slope: choose(new.previous_slope, self.previous_slope),
            previous_rate: choose(new.previous_rate, self.previous_rate),
            lengths: [choose(new.lengths[0], self.lengths[0]), choose(new.lengths[1], self.lengths[1])],
            rate_by_delay: choose(new.rate_by_delay, self.rate_by_delay),
            stuck: self.stuck & !here,
        };
    }

    /// The next delay, from the slope at this one.
    #[inline(always)]
    pub(super) fn next(&mut self, lanes: L, rate: L::F, delay: L::F, active: L::M, p: &Point<L::F, L::M>) -> L::F {
        let zero = lanes.splat(0.0);
        let one = lanes.splat(1.0);
        let slope = p.delay_slope;
        let falling = slope.lt(zero);
        self.low = lanes.select(active & falling, self.low.max(delay), self.low);
        self.high = lanes.select(active & !falling, self.high.min(delay), self.high);
        let apart = delay - self.previous_delay;
        let moved = apart.abs().gt(zero);
        let secant = (slope - self.previous_slope) / lanes.select(moved, apart, one);
        // On a bound the curvature is that at a rate that stays: far more than that of a rate that follows.
        let follows = p.rate_by_delay.abs().gt(zero);
        let least = lanes.select(follows, lanes.splat(0.2), lanes.splat(1e-4));
        let sensible = moved & secant.gt(least * p.delay_curvature) & secant.lt(lanes.splat(20.0) * p.delay_curvature);
        let followed = lanes.select(moved, (rate - self.previous_rate) / lanes.select(moved, apart, one), zero);
        self.rate_by_delay = lanes.select(follows, p.rate_by_delay, followed);
        let second = lanes.select(sensible, secant, p.delay_curvature);
        let step = -(slope / lanes.select(second.gt(zero), second, one));
        // Where the slope gets steeper on the way, the next step is twice the last one.
        let steeper = moved & secant.le(zero) & (slope * apart).lt(zero);
        let longer = apart + apart;
        let step = lanes.select(steeper & longer.abs().gt(step.abs()), longer, step);
        let tried = (delay + lanes.select(second.gt(zero), step, zero)).max(self.first).min(self.last);
        self.stuck = active & tried.le(delay) & tried.ge(delay);
        let between = self.low.ge(self.first) & self.high.le(self.last);
        let slow = between & (tried - delay).abs().gt(lanes.splat(0.5) * self.lengths[1]);
        let out = (tried.le(self.low) | tried.ge(self.high) | slow) & !self.stuck;
        let middle = (lanes.splat(0.5) * (self.low + self.high)).max(self.first).min(self.last);
        self.previous_delay = lanes.select(active, delay, self.previous_delay);
        self.previous_slope = lanes.select(active, slope, self.previous_slope);
        self.previous_rate = lanes.select(active, rate, self.previous_rate);
        let next = lanes.select(active, lanes.select(out, middle, tried), delay);
        let length = (next - delay).abs();
        self.lengths =
            [lanes.select(active, length, self.lengths[0]), lanes.select(active, self.lengths[0], self.lengths[1])];
        next
    }
}
