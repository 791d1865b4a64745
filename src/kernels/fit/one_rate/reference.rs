//! The definition in code, over [`Lanes`]; `shaders/fit/one_rate.wgsl` has the same names, order and guards.
//!
//! At a given rate k (and delay d) the curve is a X + b B. The best a and b within the bounds are in closed form
//! (`bounded_linear.rs`), so the sum of squares is a function of k alone, whose slope needs no derivative of a and b except
//! where a moving bound holds them. The dictionary says in which valleys of it to look; there, steps by the slope (first
//! those of Gauss and Newton, then secants) go to the floor, between rates of falling and rising slope. All slopes are sums over residuals
//! and derivatives that were made orthogonal to B and X first: sums of squares that are subtracted from each other would
//! leave nothing of them in 32 bits.

use super::super::convolution::{WEIGHTS, convolve, step_weights};
use super::super::delay::{PLACE, forget};
use super::super::outputs::slot;
use super::bounded_linear::{Normal, Solution, solve};
use super::search::RateSearch;
use super::tables::{Companion, Dictionary, Tables};
use super::valleys::{Valley, choose, floor, valleys};
use crate::kernel::Curve;
use crate::kernel::lanes::{Lanes, Masks, Numbers};
use crate::kernels::fit::Model;

/// Most exact evaluations in each valley.
pub(super) const ITERATIONS: usize = 40;
/// The slowest rate that shapes a curve, per duration, and the fastest one, per shortest interval.
pub(super) const SHAPING: (f64, f64) = (0.1, 2.0);
/// A step that lowers the sum of squares by less than this share of it, or than this many roundings squared of sum C^2, is
/// the last one …
pub(super) const NEGLIGIBLE: (f64, f64) = (1e-8, 4.0);
/// … and by more than this, the fit has not converged.
const UNFINISHED: (f64, f64) = (1e-5, 1e-9);

/// Working memory for one block of voxels.
pub(super) struct Work<'a, F> {
    /// The samples: mM.
    pub(super) c: &'a mut [F],
    /// What the companion alone leaves of them.
    pub(super) rest: &'a mut [F],
    /// B, then without X.
    pub(super) b: &'a mut [F],
    /// The derivative of B by the rate, then without X.
    pub(super) by_rate: &'a mut [F],
    /// X and the derivative of the curve by the delay, where the delay is a voxel's own.
    pub(super) x: &'a mut [F],
    pub(super) by_delay: &'a mut [F],
    /// What the valleys are found in, by rate.
    pub(super) values: &'a mut [F],
    weights: &'a mut [F],
    knots: &'a mut [F],
    knots_by_rate: &'a mut [F],
    /// Where the frames lie between the knots.
    places: &'a mut [F],
}

/// Numbers of working memory.
pub(super) fn scratch(t: &Tables) -> usize {
    let knots = if t.delay.own { t.delay.knot_times.len() } else { 0 };
    let places = if t.delay.own { PLACE * t.n } else { 0 };
    6 * t.n + t.rates.len() + 2 * knots + places + WEIGHTS * t.most_lengths
}

impl<'a, F> Work<'a, F> {
    #[inline(always)]
    pub(super) fn new<L: Lanes<F = F>>(lanes: L, t: &Tables, memory: &'a mut [F]) -> Self
    where
        F: Numbers,
    {
        let (knots, places) = if t.delay.own { (t.delay.knot_times.len(), PLACE * t.n) } else { (0, 0) };
        let (c, memory) = memory.split_at_mut(t.n);
        let (rest, memory) = memory.split_at_mut(t.n);
        let (b, memory) = memory.split_at_mut(t.n);
        let (by_rate, memory) = memory.split_at_mut(t.n);
        let (x, memory) = memory.split_at_mut(t.n);
        let (by_delay, memory) = memory.split_at_mut(t.n);
        let (values, memory) = memory.split_at_mut(t.rates.len());
        let (knot_values, memory) = memory.split_at_mut(knots);
        let (knots_by_rate, memory) = memory.split_at_mut(knots);
        let (places, weights) = memory.split_at_mut(places);
        forget(lanes, places);
        Self { c, rest, b, by_rate, x, by_delay, values, weights, knots: knot_values, knots_by_rate, places }
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
pub(super) fn read<L: Lanes>(lanes: L, t: &Tables, curve: &Curve<'_, L>, work: &mut Work<'_, L::F>) -> Samples<L::F> {
    let zero = lanes.splat(0.0);
    let slope = lanes.splat(t.slope);
    let first = slope * curve.first + lanes.splat(t.intercept);
    if !t.needs_sums {
        for i in 0..t.n {
            work.c[i] = first + slope * curve.difference(i);
        }
        return Samples { squares: zero, squares_about_mean: zero };
    }
    let (mut squares, mut differences) = (zero, zero);
    for i in 0..t.n {
        let difference = slope * curve.difference(i);
        let c = first + difference;
        work.c[i] = c;
        work.rest[i] = c;
        squares = c.mul_add(c, squares);
        differences = differences + difference;
    }
    let mut squares_about_mean = zero;
    if t.plan.row(slot::R_SQUARED).is_some() {
        let mean = differences / lanes.count(t.n);
        for i in 0..t.n {
            let off = slope * curve.difference(i) - mean;
            squares_about_mean = off.mul_add(off, squares_about_mean);
        }
    }
    Samples { squares, squares_about_mean }
}

/// The fit at one rate and delay.
#[derive(Clone, Copy)]
pub(super) struct Point<F, M> {
    pub(super) solution: Solution<F, M>,
    /// What is left of the samples is c - alone X - b B' - surplus X.
    pub(super) alone: F,
    pub(super) surplus: F,
    /// Sum of squared residuals.
    pub(super) sse: F,
    /// The derivative of half of it by the rate, and a measure of its second one.
    pub(super) slope: F,
    pub(super) curvature: F,
    /// The same by the delay, the rate following.
    pub(super) delay_slope: F,
    pub(super) delay_curvature: F,
    /// How the rate follows the delay.
    pub(super) rate_by_delay: F,
    /// The upper triangle of the curve's derivatives by a, b, rate and delay.
    pub(super) triangle: [[F; 4]; 4],
}

impl<F: Numbers<Mask = M>, M> Point<F, M> {
    /// To be overwritten.
    #[inline(always)]
    fn blank<L: Lanes<F = F, M = M>>(lanes: L) -> Self {
        let zero = lanes.splat(0.0);
        let (a_free, b_free) = (lanes.mask(false), lanes.mask(false));
        let solution = Solution { a: zero, b: zero, excess: zero, a_free, b_free, a_moves: zero, b_moves: zero };
        Self {
            solution,
            alone: zero,
            surplus: zero,
            sse: zero,
            slope: zero,
            curvature: zero,
            delay_slope: zero,
            delay_curvature: zero,
            rate_by_delay: zero,
            triangle: [[zero; 4]; 4],
        }
    }
}

/// X at a frame.
#[inline(always)]
pub(super) fn companion<L: Lanes, const OWN: bool>(
    lanes: L,
    dictionary: &Dictionary,
    work: &Work<'_, L::F>,
    i: usize,
) -> L::F {
    if OWN { work.x[i] } else { dictionary.companion.at(lanes, i) }
}

/// X, B and their derivatives at the frames.
#[inline(always)]
fn basis<L: Lanes, const OWN: bool>(
    lanes: L,
    t: &Tables,
    dictionary: &Dictionary,
    rate: L::F,
    delay: L::F,
    side: L::F,
    work: &mut Work<'_, L::F>,
) {
    let zero = lanes.splat(0.0);
    if !OWN {
        if t.model == Model::Patlak {
            for i in 0..t.n {
                work.b[i] = dictionary.integral.at(lanes, i);
                work.by_rate[i] = zero;
            }
        } else {
            convolve(lanes, &dictionary.steps, rate, work.weights, work.b, work.by_rate);
        }
        return;
    }
    let d = &t.delay;
    if t.model != Model::Patlak {
        convolve(lanes, &t.steps, rate, work.weights, work.knots, work.knots_by_rate);
    }
    let half = lanes.splat(0.5);
    let needs_integral = t.model == Model::Patlak || t.companion == Companion::Integral;
    for i in 0..t.n {
        let place = &mut work.places[PLACE * i..][..PLACE];
        let (since, arrived) = d.place(lanes, &t.frame_times, (i, needs_integral), delay, side, place);
        let (low, begin, slope) = (place[0], place[5], place[6]);
        let length = since.max(zero);
        let end = begin + slope * since;
        let integral = place[7] + half * since * (begin + end);
        let (b, by_rate, b_by_time) = if t.model == Model::Patlak {
            (integral, zero, end)
        } else {
            let w = step_weights(lanes, rate, length);
            let before = lanes.gather(work.knots, low);
            let before_by_rate = lanes.gather(work.knots_by_rate, low);
            let b = w.decay * before + (w.begin * begin + w.end * end);
            let by_rate =
                w.decay * before_by_rate + w.decay_by_rate * before + (w.begin_by_rate * begin + w.end_by_rate * end);
            (b, by_rate, end - rate * b)
        };
        work.b[i] = lanes.select(arrived, b, zero);
        work.by_rate[i] = lanes.select(arrived, by_rate, zero);
        let (x, x_by_time) = match t.companion {
            Companion::None => (zero, zero),
            Companion::Input => (end, slope),
            Companion::Integral => (integral, end),
        };
        work.x[i] = lanes.select(arrived, x, zero);
        // Two derivatives wait for their coefficients: that of X here, that of B below.
        work.by_delay[i] = lanes.select(arrived, x_by_time, zero);
        work.rest[i] = lanes.select(arrived, b_by_time, zero);
    }
}

/// The fit at one rate and delay: solution (or given coefficients), residual's sum of squares, slopes. The delay is a voxel's own, or
/// the dictionary's: then nothing is said of its slope.
#[expect(clippy::too_many_arguments, reason = "a point, what is known of it, and memory")]
#[inline(never)]
pub(super) fn evaluate_point<L: Lanes, const OWN: bool>(
    lanes: L,
    t: &Tables,
    dictionary: &Dictionary,
    rate: L::F,
    delay: L::F,
    side: L::F,
    alone: L::F,
    given: Option<(L::F, L::F)>,
    work: &mut Work<'_, L::F>,
) -> Point<L::F, L::M> {
    lanes.within(
        #[inline(always)]
        || point_at::<L, OWN>(lanes, t, dictionary, rate, delay, side, alone, given, work),
    )
}

#[expect(clippy::too_many_arguments, reason = "as above")]
#[inline(always)]
fn point_at<L: Lanes, const OWN: bool>(
    lanes: L,
    t: &Tables,
    dictionary: &Dictionary,
    rate: L::F,
    delay: L::F,
    side: L::F,
    alone: L::F,
    given: Option<(L::F, L::F)>,
    work: &mut Work<'_, L::F>,
) -> Point<L::F, L::M> {
    let zero = lanes.splat(0.0);
    let one = lanes.splat(1.0);
    let tiny = lanes.splat(1e-30);
    basis::<L, OWN>(lanes, t, dictionary, rate, delay, side, work);
    let beside = t.companion != Companion::None;
    // X out of everything.
    let (mut alone, mut overlap, mut overlap_by_rate) = (alone, zero, zero);
    let (mut xx, mut inverse_xx) = (lanes.splat(dictionary.companion_squares), lanes.splat(dictionary.inverse_squares));
    if beside {
        let (mut xb, mut xd, mut xc, mut squares) = (zero, zero, zero, zero);
        for i in 0..t.n {
            let x = companion::<L, OWN>(lanes, dictionary, work, i);
            xb = x.mul_add(work.b[i], xb);
            xd = x.mul_add(work.by_rate[i], xd);
            if OWN {
                xc = x.mul_add(work.c[i], xc);
                squares = x.mul_add(x, squares);
            }
        }
        if OWN {
            xx = squares;
            inverse_xx = lanes.select(squares.gt(tiny), one / squares.max(tiny), zero);
            alone = xc * inverse_xx;
        }
        overlap = xb * inverse_xx;
        overlap_by_rate = xd * inverse_xx;
    }
    let (mut cb, mut bb, mut bd) = (zero, zero, zero);
    for i in 0..t.n {
        let x = companion::<L, OWN>(lanes, dictionary, work, i);
        let rest = if OWN { work.c[i] - alone * x } else { work.rest[i] };
        let b = work.b[i] - overlap * x;
        let by_rate = work.by_rate[i] - overlap_by_rate * x;
        work.b[i] = b;
        work.by_rate[i] = by_rate;
        cb = rest.mul_add(b, cb);
        bb = b.mul_add(b, bb);
        bd = b.mul_add(by_rate, bd);
    }
    let inverse_bb = lanes.select(bb.gt(tiny), one / bb.max(tiny), zero);
    let normal = Normal { rate, alone, best: cb * inverse_bb, overlap, squares: bb, companion_squares: xx };
    let solution = match given {
        None => solve(lanes, t, &normal, false),
        Some((a, b)) => {
            let held = lanes.mask(false);
            Solution { a, b, excess: zero, a_free: held, b_free: held, a_moves: zero, b_moves: zero }
        }
    };
    let (a, b) = (solution.a, solution.b);
    // Where a is held by a bound, X is no direction to project out.
    let kept = lanes.select(solution.a_free, zero, overlap);
    let kept_by_rate = lanes.select(solution.a_free, zero, overlap_by_rate);
    let surplus = lanes.select(solution.a_free, zero, a - (alone - overlap * b));
    let whole_bb = bb + kept * overlap * xx;
    let whole_bd = bd + kept * overlap_by_rate * xx;
    let ratio = whole_bd / whole_bb.max(tiny);
    let ratio = lanes.select(solution.b_free & whole_bb.gt(tiny), ratio, zero);
    let free_ratio = bd * inverse_bb;
    let (mut sse, mut rd, mut rb, mut rx, mut dd, mut free_dd) = (zero, zero, zero, zero, zero, zero);
    let (mut xe, mut be, mut de, mut ee, mut re) = (zero, zero, zero, zero, zero);
    for i in 0..t.n {
        let x = companion::<L, OWN>(lanes, dictionary, work, i);
        let (b_i, d_i) = (work.b[i], work.by_rate[i]);
        let rest = if OWN { work.c[i] - alone * x } else { work.rest[i] };
        let residual = rest - b * b_i - surplus * x;
        let convolution = b_i + kept * x;
        let direction = (d_i + kept_by_rate * x) - ratio * convolution;
        let free_direction = d_i - free_ratio * b_i;
        sse = residual.mul_add(residual, sse);
        rd = residual.mul_add(direction, rd);
        dd = direction.mul_add(direction, dd);
        free_dd = free_direction.mul_add(free_direction, free_dd);
        rb = residual.mul_add(convolution, rb);
        if beside {
            rx = residual.mul_add(x, rx);
        }
        if OWN {
            // The derivative by the delay is minus that by time.
            let e = -(a * work.by_delay[i] + b * work.rest[i]);
            work.by_delay[i] = e;
            xe = x.mul_add(e, xe);
            be = b_i.mul_add(e, be);
            de = free_direction.mul_add(e, de);
            ee = e.mul_add(e, ee);
            re = residual.mul_add(e, re);
        }
    }
    // At the rate where both upper bounds meet the slope jumps: 0 between its two values is a minimum.
    let held = solution.a_moves * rx + solution.b_moves * rb;
    let right = -(b * rd + held);
    let corner = rate.ge(lanes.splat(t.corner)) & rate.le(lanes.splat(t.corner)) & b.ge(lanes.splat(t.bounds.flow.1));
    let left = right - lanes.splat(t.bounds.volume.1) * rb;
    let between = lanes.select(left.gt(zero), left, lanes.select(right.lt(zero), right, zero));
    let slope = if t.companion == Companion::Integral { right } else { lanes.select(corner, between, right) };
    let (am, bm) = (solution.a_moves, solution.b_moves);
    let two = lanes.splat(2.0);
    let moved = bm * (two * b * whole_bd + bm * whole_bb) + am * xx * (two * (b * overlap_by_rate + bm * overlap) + am);
    let curvature = b * b * dd + moved.max(zero);
    let length_x = xx.sqrt();
    let length_b = bb.sqrt();
    let length_d = free_dd.sqrt();
    let inverse_b = lanes.select(bb.gt(tiny), one / length_b.max(tiny), zero);
    let mut triangle = [[zero; 4]; 4];
    triangle[0][0] = length_x;
    triangle[0][1] = overlap * length_x;
    triangle[0][2] = b * overlap_by_rate * length_x;
    triangle[1][1] = length_b;
    triangle[1][2] = b * bd * inverse_b;
    triangle[2][2] = b.abs() * length_d;
    let (mut delay_slope, mut delay_curvature, mut rate_by_delay) = (zero, zero, zero);
    if OWN {
        // The delay's direction without X, B and the rate's, as far as these are free.
        let inverse_x = lanes.select(xx.gt(tiny), one / length_x.max(tiny), zero);
        let has_d = free_dd.gt(tiny);
        let inverse_d = lanes.select(has_d, one / length_d.max(tiny), zero);
        triangle[0][3] = xe * inverse_x;
        triangle[1][3] = be * inverse_b;
        let sign = lanes.select(b.lt(zero), -one, one);
        triangle[2][3] = sign * de * inverse_d;
        let mut left = ee - triangle[0][3] * triangle[0][3];
        let along_b = be * inverse_b;
        left = left - along_b * along_b;
        let along_d = de * inverse_d;
        let without_rate = left;
        left = left - along_d * along_d;
        triangle[3][3] = left.max(zero).sqrt();
        // r is orthogonal to X and B where they are free; the rate follows the delay.
        let follows = solution.a_free & solution.b_free & has_d & b.abs().gt(tiny);
        rate_by_delay = lanes.select(follows, -(de / (lanes.select(follows, b, one) * free_dd.max(tiny))), zero);
        let coupled = lanes.select(follows, rd * de / free_dd.max(tiny), zero);
        delay_slope = coupled - re;
        delay_curvature = lanes.select(follows, left, without_rate).max(lanes.splat(1e-3) * ee);
    }
    Point { solution, alone, surplus, sse, slope, curvature, delay_slope, delay_curvature, rate_by_delay, triangle }
}

/// What a voxel's fit comes to.
pub(super) struct Fit<F, M> {
    pub(super) rate: F,
    pub(super) delay: F,
    /// Whether the delay is fitted.
    pub(super) delay_free: M,
    pub(super) point: Point<F, M>,
    pub(super) iterations: F,
    pub(super) not_converged: M,
}

impl<F: Numbers<Mask = M>, M: Masks> Fit<F, M> {
    /// From the place that was found and what lies there.
    #[inline(always)]
    pub(super) fn at<L: Lanes<F = F, M = M>>(
        lanes: L,
        t: &Tables,
        place: &Valley<F>,
        delay_free: M,
        point: Point<F, M>,
        iterations: F,
        squares: F,
    ) -> Self {
        let (lowest, highest) = (t.rates.at(lanes, 0), t.rates.at(lanes, t.rates.len() - 1));
        let limit = lanes.splat(UNFINISHED.0) * point.sse + lanes.splat(UNFINISHED.1) * squares;
        let outwards = (place.rate.le(lowest) & point.slope.gt(lanes.splat(0.0)))
            | (place.rate.ge(highest) & point.slope.lt(lanes.splat(0.0)));
        let not_converged = drop(lanes, &point).gt(limit) & !outwards;
        Self { rate: place.rate, delay: place.delay, delay_free, point, iterations, not_converged }
    }
}

/// By how much a step of the rate would lower the sum of squares.
#[inline(always)]
pub(super) fn drop<L: Lanes>(lanes: L, p: &Point<L::F, L::M>) -> L::F {
    p.slope * p.slope / lanes.select(p.curvature.gt(lanes.splat(0.0)), p.curvature, lanes.splat(1.0))
}

/// To be overwritten: a valley as high as can be.
#[inline(always)]
pub(super) fn no_valley<L: Lanes>(lanes: L, t: &Tables) -> Valley<L::F> {
    let zero = lanes.splat(0.0);
    let value = lanes.splat(f64::from(f32::MAX) / 4.0);
    Valley { value, depth: zero, rate: t.rates.at(lanes, 0), delay: zero, place: zero }
}

/// How much of the companion alone the samples hold; what that leaves of them goes into `rest`, where [`read`] has put them.
#[inline(always)]
pub(super) fn without_companion<L: Lanes>(
    lanes: L,
    t: &Tables,
    dictionary: &Dictionary,
    work: &mut Work<'_, L::F>,
) -> L::F {
    let mut along = lanes.splat(0.0);
    if t.companion == Companion::None {
        return along;
    }
    for i in 0..t.n {
        along = dictionary.companion.at(lanes, i).mul_add(work.c[i], along);
    }
    let alone = along * lanes.splat(dictionary.inverse_squares);
    for i in 0..t.n {
        work.rest[i] = work.c[i] - alone * dictionary.companion.at(lanes, i);
    }
    alone
}

/// The nonlinear fit with a delay that all voxels share: the two deepest valleys, if the second may be the deeper one.
#[inline(always)]
pub(super) fn fit<L: Lanes>(
    lanes: L,
    t: &Tables,
    samples: &Samples<L::F>,
    work: &mut Work<'_, L::F>,
) -> Fit<L::F, L::M> {
    let zero = lanes.splat(0.0);
    let one = lanes.splat(1.0);
    let mut best = [no_valley(lanes, t); 2];
    let dictionary = &t.dictionaries[0];
    let alone = without_companion(lanes, t, dictionary, work);
    valleys(lanes, t, 0, alone, work.rest, work.values, &mut best);
    for valley in &mut best {
        *valley = floor(lanes, t, work.values, valley);
    }
    let swapped = best[1].value.lt(best[0].value);
    best = [choose(lanes, swapped, &best[1], &best[0]), choose(lanes, swapped, &best[0], &best[1])];
    let noise = lanes.splat(1e-6) * best[0].value.abs();
    let close = (best[1].value - best[1].depth - noise).lt(best[0].value);
    let rival = best[1].value.lt(no_valley(lanes, t).value) & close;
    let starts = [best[0], choose(lanes, rival, &best[1], &best[0])];

    let mut chosen = starts[0];
    let mut iterations = zero;
    let mut least = lanes.splat(f64::from(f32::MAX));
    let mut point = Point::blank(lanes);
    // Where a second valley was gone down, what was best once more.
    for (round, start) in [Some(starts[0]), Some(starts[1]), None].into_iter().enumerate() {
        if round > 0 && !rival.any() {
            break;
        }
        let again = start.is_none();
        let turns = match t.model {
            _ if again => 1,
            Model::Patlak => 1,
            _ => ITERATIONS,
        };
        let mut rate = start.unwrap_or(chosen).rate;
        let mut rates = RateSearch::new(lanes, t);
        let mut settled = lanes.mask(false);
        let mut count = zero;
        for turn in 0..turns {
            point = evaluate_point::<L, false>(lanes, t, dictionary, rate, zero, zero, alone, None, work);
            count = lanes.select(settled, count, count + one);
            if turn + 1 == turns {
                break;
            }
            let step = rates.next(lanes, t, samples.squares, rate, &point);
            settled = settled | step.small | step.stuck;
            // Voxels that have settled stay where they are, however long their neighbours take.
            if !(!settled).any() {
                break;
            }
            rate = lanes.select(settled, rate, step.rate);
        }
        if !again {
            let better = point.sse.lt(least);
            let here = Valley { value: point.sse, depth: zero, rate, delay: zero, place: zero };
            chosen = choose(lanes, better, &here, &chosen);
            least = lanes.select(better, point.sse, least);
            let counts = if round == 0 { lanes.mask(true) } else { rival };
            iterations = iterations + lanes.select(counts, count, zero);
        }
    }
    Fit::at(lanes, t, &chosen, lanes.mask(false), point, iterations, samples.squares)
}
