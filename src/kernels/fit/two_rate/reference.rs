//! The fit of one block of voxels: the dictionary's best cells, refined.

#![expect(clippy::needless_range_loop, reason = "formulas of matrices and frames are read by their indices")]

use super::super::convolution::{WEIGHTS, convolve, prepare, step_weights};
use super::super::refinement::{DAMPING, Equations, Problem, Refined, Variables, refine};
use super::exchange::{TwoRates, two_rates};
use super::tables::{Tables, pair_of};
use crate::kernel::Curve;
use crate::kernel::lanes::{Lanes, Masks, Numbers};

/// Valleys that the fit goes down: the best of those that the pairs of rates show.
pub(super) const STARTS: usize = 3;
/// Second exponentials that are tried beside the best single one.
pub(super) const PARTNERS: usize = 3;
/// As the pairs' farthest ratio, for these.
const FARTHEST_PARTNER: f64 = 1e5;
/// Turns from each start.
pub(super) const TURNS: usize = 8;
/// How often the search goes on from the best place, each time by as many turns.
pub(super) const CONTINUATIONS: usize = 6;
/// A sum of squares below this share of sum C^2, in 32 bits and in 64, leaves nothing to look for elsewhere.
const PERFECT: (f64, f64) = (1e-11, 1e-20);
/// Parameters per turn shrink to this share of their distance from the lower bound at least, and grow by its reciprocal:
/// on a bound of PS, v_p or v_e others lose their meaning, and a fit would stay there.
const SMALLEST_SHARE: f64 = 0.02;
/// Below this share of its scale a parameter may go to its bound.
const NEARLY_NOTHING: f64 = 1e-6;
/// What the second derivatives are taken over, as a share of a variable.
const SHIFT: f64 = 1e-3;
/// Where the variable is next to nothing, as a share of its scale.
const SMALLEST_SHIFT: f64 = 1e-8;
/// Scales of y = 1 / F_p (s), Ktrans (1/s), v_p, v_e and delay (s).
const SCALES: [f64; 5] = [100.0, 0.002, 0.05, 0.2, 1.0];

/// Working memory for one block of voxels.
pub(super) struct Work<'a, F> {
    /// The samples: mM.
    pub(super) c: &'a mut [F],
    /// The fitted curve, once it is asked for.
    pub(super) fitted: &'a mut [F],
    /// A single exponential's curve and its derivative by the rate, made orthonormal.
    single: &'a mut [F],
    single_by_rate: &'a mut [F],
    projections: &'a mut [F],
    /// The best of every pair: how much of the sum of squares it explains, its flow, the faster exponential's share, and the
    /// delay.
    pairs: [&'a mut [F]; 4],
    /// The same of every single rate: how much it explains, and its delay's place.
    singles: [&'a mut [F]; 2],
    /// What every rate would add to the best single one, and its amplitude then.
    partners: [&'a mut [F]; 2],
    weights: [&'a mut [F]; 2],
    knots: [&'a mut [F]; 2],
    knots_by_rate: [&'a mut [F]; 2],
    knots_bend: [&'a mut [F]; 2],
}

fn knots(t: &Tables) -> usize {
    if t.delay.own { t.delay.knot_times.len() } else { 0 }
}

/// Numbers of working memory.
pub(super) fn scratch(t: &Tables) -> usize {
    4 * t.n + 5 * t.rates.len() + 4 * t.pairs.count() + 6 * knots(t) + 2 * WEIGHTS * t.steps.lengths.len()
}

impl<'a, F> Work<'a, F> {
    #[inline(always)]
    pub(super) fn new(t: &Tables, memory: &'a mut [F]) -> Self {
        let (c, memory) = memory.split_at_mut(t.n);
        let (fitted, memory) = memory.split_at_mut(t.n);
        let (single, memory) = memory.split_at_mut(t.n);
        let (single_by_rate, memory) = memory.split_at_mut(t.n);
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
        let (weights_fast, weights_slow) = memory.split_at_mut(WEIGHTS * t.steps.lengths.len());
        Self {
            c,
            fitted,
            single,
            single_by_rate,
            projections,
            pairs: [gains, flows, shares, delays],
            singles: [single_gains, single_delays],
            partners: [partner_gains, partner_flows],
            weights: [weights_fast, weights_slow],
            knots: [fast, slow],
            knots_by_rate: [fast_by_rate, slow_by_rate],
            knots_bend: [fast_bend, slow_bend],
        }
    }
}

impl<F> Work<'_, F> {
    /// The convolution with one exponential and its derivative by the rate, at the frames.
    #[inline(always)]
    fn single_curve<L: Lanes<F = F>>(&mut self, lanes: L, t: &Tables, rate: F, delay: F)
    where
        F: Numbers<Mask = L::M>,
    {
        if !t.delay.own {
            convolve(lanes, &t.steps, rate, self.weights[0], self.single, self.single_by_rate);
            return;
        }
        convolve(lanes, &t.steps, rate, self.weights[0], self.knots[0], self.knots_by_rate[0]);
        for i in 0..t.n {
            let place = Place::of(lanes, t, i, delay);
            let knots = [&*self.knots[0], &*self.knots_by_rate[0], &*self.knots_by_rate[0]];
            let here = place.advance(lanes, rate, knots);
            self.single[i] = here[0];
            self.single_by_rate[i] = here[1];
        }
    }
}

/// Where a frame lies between the knots of the input function, for a delay of the voxel's own.
struct Place<F, M> {
    /// The last knot at or before the frame, and the time since.
    knot: F,
    length: F,
    /// Whether the first knot has come.
    arrived: M,
    /// The input at that knot, and at the frame.
    begin: F,
    end: F,
}

impl<F: Numbers<Mask = M>, M: Masks> Place<F, M> {
    #[inline(always)]
    fn of<L: Lanes<F = F, M = M>>(lanes: L, t: &Tables, frame: usize, delay: F) -> Self {
        let zero = lanes.splat(0.0);
        let half = lanes.splat(0.5);
        let d = &t.delay;
        let time = t.frame_times.at(lanes, frame) - delay;
        let (mut low, mut high) = (zero, lanes.count(d.knot_times.len()));
        for _ in 0..d.halvings {
            let middle = (half * (low + high)).floor();
            let reached = lanes.lookup(&d.knot_times, middle).le(time) & middle.gt(low);
            let below = !reached & middle.lt(high) & middle.gt(low);
            high = lanes.select(below, middle, high);
            low = lanes.select(reached, middle, low);
        }
        // The difference of two times that lie close is exact in 32 bits; that of a time and a delay isn't.
        let mut since = (t.frame_times.at(lanes, frame) - lanes.lookup(&d.knot_times, low)) - delay;
        if L::WIDTH > 1 {
            // What 32 bits lack of both times.
            since = since + (d.frame_rest.at(lanes, frame) - lanes.lookup(&d.knot_rest, low));
        }
        let length = since.max(zero);
        let begin = lanes.lookup(&d.knot_values, low);
        let end = begin + lanes.lookup(&d.knot_slopes, low) * length;
        Self { knot: low, length, arrived: since.ge(zero), begin, end }
    }

    /// A convolution, its derivative by the rate and half the second one at the frame, from those at the knots.
    #[inline(always)]
    fn advance<L: Lanes<F = F, M = M>>(&self, lanes: L, rate: F, [values, by_rate, bend]: [&[F]; 3]) -> [F; 3] {
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
        squares = squares + c[i] * c[i];
        differences = differences + difference;
    }
    let mean = differences / lanes.count(t.n);
    let mut squares_about_mean = zero;
    for i in 0..t.n {
        let off = slope * curve.difference(i) - mean;
        squares_about_mean = squares_about_mean + off * off;
    }
    Samples { squares, squares_about_mean }
}

/// The exchange model's curve, for P = 4 with a delay that all voxels share, for P = 5 with one of their own.
pub(super) struct Exchange<'a, 'b, F, const P: usize> {
    pub(super) t: &'a Tables,
    pub(super) work: &'a mut Work<'b, F>,
    /// Whether the fitted curve is to be kept.
    pub(super) keep: bool,
}

/// What the passes add up per frame.
struct Sums<F, const P: usize> {
    equations: Equations<F, P>,
    a: F,
    b: F,
    /// Columns J R^-1 over I_1, I_2, their derivatives by the rates, and c_p.
    columns: [[F; P]; 5],
    /// Products of the residual with I_1, I_2, their derivatives by the rates, and half their second derivatives.
    products: [F; 6],
}

impl<F: Numbers, const P: usize> Sums<F, P> {
    /// Takes a frame in, and gives its fitted sample.
    #[inline(always)]
    fn add(&mut self, sample: F, basis: [F; 5], bends: [F; 2]) -> F {
        let fitted = self.a * basis[0] + self.b * basis[1];
        let residual = sample - fitted;
        let e = &mut self.equations;
        e.sse = e.sse + residual * residual;
        for k in 0..4 {
            self.products[k] = self.products[k] + residual * basis[k];
        }
        for k in 0..2 {
            self.products[4 + k] = self.products[4 + k] + residual * bends[k];
        }
        let mut q = [residual; P];
        for (j, q) in q.iter_mut().enumerate() {
            *q = (self.columns[0][j] * basis[0] + self.columns[1][j] * basis[1])
                + (self.columns[2][j] * basis[2] + self.columns[3][j] * basis[3]);
            if P == 5 {
                *q = *q + self.columns[4][j] * basis[4];
            }
        }
        for i in 0..P {
            e.rhs[i] = e.rhs[i] + q[i] * residual;
            for j in i..P {
                e.gram[i][j] = e.gram[i][j] + q[i] * q[j];
            }
        }
        fitted
    }
}

/// Whether 1 / PS is the second variable, instead of Ktrans: where exchange is fast, the curve is close to linear in it.
#[inline(always)]
pub(super) fn is_fast<L: Lanes>(lanes: L, t: &Tables, flow: L::F, exchange: L::F) -> L::M {
    exchange.ge(flow) | exchange.ge(lanes.splat(t.bounds[1].1))
}

impl<const P: usize, F> Exchange<'_, '_, F, P> {
    /// The derivatives by the first four variables over I_1, I_2 and their derivatives by the rates: from those by the
    /// parameters.
    #[inline(always)]
    fn by_variable<L: Lanes<F = F>>(lanes: L, flows: [F; 2], fast: L::M, two: &TwoRates<F>) -> [[F; 4]; 4]
    where
        F: Numbers<Mask = L::M>,
    {
        let one = lanes.splat(1.0);
        let [flow, exchange] = flows;
        let flow_squared = flow * flow;
        let square = exchange * exchange;
        let exchange_squared = lanes.select(fast, lanes.splat(0.0), square);
        let ratio = one + exchange / flow;
        let by_second = lanes.select(fast, -square, ratio * ratio);
        let [by_fp, by_ps, by_vp, by_ve] = two.by_parameter;
        let (mut first, mut second) = (by_fp, by_ps);
        for k in 0..4 {
            first[k] = exchange_squared * by_ps[k] - flow_squared * by_fp[k];
            second[k] = by_second * by_ps[k];
        }
        [first, second, by_vp, by_ve]
    }

    /// The second variable: Ktrans, or 1 / PS where exchange is fast.
    #[inline(always)]
    fn second<L: Lanes<F = F>>(lanes: L, [flow, exchange]: [F; 2], fast: L::M) -> F
    where
        F: Numbers<Mask = L::M>,
    {
        let one = lanes.splat(1.0);
        let top = lanes.select(fast, one, exchange);
        top / lanes.select(fast, exchange.max(lanes.splat(1e-30)), one + exchange / flow)
    }

    /// PS, given the flow and the second variable.
    #[inline(always)]
    fn exchange<L: Lanes<F = F>>(lanes: L, flow: F, second: F, fast: L::M) -> F
    where
        F: Numbers<Mask = L::M>,
    {
        let one = lanes.splat(1.0);
        let top = lanes.select(fast, one, second);
        let rest = (one - second / flow).max(lanes.splat(1e-6));
        top / lanes.select(fast, second.max(lanes.splat(1e-30)), rest)
    }

    /// J R^-1 over the basis.
    #[inline(always)]
    fn columns<L: Lanes<F = F>>(
        lanes: L,
        flow: F,
        two: &TwoRates<F>,
        by_variable: &[[F; 4]; 4],
        r: &[[F; P]; P],
    ) -> [[F; P]; 5]
    where
        F: Numbers<Mask = L::M>,
    {
        let zero = lanes.splat(0.0);
        let mut inverse = [zero; P];
        for i in 0..P {
            inverse[i] = lanes.splat(1.0) / r[i][i];
        }
        let mut columns = [[zero; P]; 5];
        for (k, row) in columns.iter_mut().enumerate() {
            let mut j = [zero; P];
            if k < 4 {
                for i in 0..4 {
                    j[i] = by_variable[i][k];
                }
            }
            if P == 5 {
                // C' = F_p c_p - a l_1 I_1 - b l_2 I_2; by the delay, minus that.
                j[4] = match k {
                    0 => two.a * two.rates[0],
                    1 => two.b * two.rates[1],
                    4 => -flow,
                    _ => zero,
                };
            }
            for i in 0..P {
                let mut value = j[i];
                for m in 0..i {
                    value = value - row[m] * r[m][i];
                }
                row[i] = value * inverse[i];
            }
        }
        columns
    }

    /// The products of the residual with the second derivatives by the first four variables; what changes with them of the
    /// coefficients and the rates is taken from differences.
    #[inline(always)]
    fn bend<L: Lanes<F = F>>(
        lanes: L,
        parameters: &[F; P],
        fast: L::M,
        two: &TwoRates<F>,
        by_variable: &[[F; 4]; 4],
        products: &[F; 6],
    ) -> [[F; P]; P]
    where
        F: Numbers<Mask = L::M>,
    {
        let zero = lanes.splat(0.0);
        let one = lanes.splat(1.0);
        let mut bend = [[zero; P]; P];
        let (flow, exchange) = (parameters[0], parameters[1]);
        let reciprocal = one / flow;
        let second = Self::second(lanes, [flow, exchange], fast);
        for i in 0..4 {
            let at = match i {
                0 => reciprocal,
                1 => second,
                _ => parameters[i],
            };
            let shift = at * lanes.splat(SHIFT) + lanes.splat(SMALLEST_SHIFT * SCALES[i]);
            let mut p = [flow, exchange, parameters[2], parameters[3]];
            match i {
                0 => {
                    p[0] = one / (reciprocal + shift);
                    p[1] = Self::exchange(lanes, p[0], second, fast);
                }
                1 => p[1] = Self::exchange(lanes, flow, second + shift, fast),
                _ => p[i] = p[i] + shift,
            }
            let moved = two_rates(lanes, p);
            let moved_by_variable = Self::by_variable(lanes, [p[0], p[1]], fast, &moved);
            let inverse = one / shift;
            let rates = [(moved.rates[0] - two.rates[0]) * inverse, (moved.rates[1] - two.rates[1]) * inverse];
            for j in 0..4 {
                let mut sum = zero;
                for k in 0..4 {
                    sum = sum + (moved_by_variable[j][k] - by_variable[j][k]) * inverse * products[k];
                }
                for k in 0..2 {
                    let second = products[4 + k] + products[4 + k];
                    sum = sum + rates[k] * (by_variable[j][k] * products[2 + k] + by_variable[j][2 + k] * second);
                }
                // Half from either side.
                let half = lanes.splat(0.5) * sum;
                let (low, high) = (i.min(j), i.max(j));
                bend[low][high] = bend[low][high] + half;
                if i == j {
                    bend[i][i] = bend[i][i] + half;
                }
            }
        }
        bend
    }
}

impl<const P: usize, F> Exchange<'_, '_, F, P> {
    #[inline(always)]
    fn pass<L: Lanes<F = F>>(&mut self, lanes: L, parameters: &[F; P], r: &[[F; P]; P]) -> Equations<F, P>
    where
        F: Numbers<Mask = L::M>,
    {
        let zero = lanes.splat(0.0);
        let two = two_rates(lanes, [parameters[0], parameters[1], parameters[2], parameters[3]]);
        let fast = is_fast(lanes, self.t, parameters[0], parameters[1]);
        let by_variable = Self::by_variable(lanes, [parameters[0], parameters[1]], fast, &two);
        let columns = Self::columns(lanes, parameters[0], &two, &by_variable, r);
        let products = [zero; 6];
        let mut sums = Sums { equations: Equations::new(zero), a: two.a, b: two.b, columns, products };
        if P == 5 {
            self.own_delay(lanes, &two, parameters[P - 1], &mut sums);
        } else {
            self.same_delay(lanes, &two, &mut sums);
        }
        sums.equations.bend = Self::bend(lanes, parameters, fast, &two, &by_variable, &sums.products);
        sums.equations
    }

    /// The pass for a delay that all voxels share.
    #[inline(always)]
    fn same_delay<L: Lanes<F = F>>(&mut self, lanes: L, two: &TwoRates<F>, sums: &mut Sums<F, P>)
    where
        F: Numbers<Mask = L::M>,
    {
        let zero = lanes.splat(0.0);
        let t = self.t;
        let steps = &t.steps;
        for (rate, memory) in two.rates.iter().zip(&mut self.work.weights) {
            prepare(lanes, steps, *rate, memory);
        }
        let Work { c, fitted, weights: [fast, slow], .. } = &mut *self.work;
        let mut basis = [zero; 5];
        let mut bends = [zero; 2];
        for i in 0..steps.before {
            let value = sums.add(c[i], basis, bends);
            if self.keep {
                fitted[i] = value;
            }
        }
        let mut begin = steps.input.at(lanes, 0);
        for (i, step) in steps.steps.iter().enumerate() {
            let end = steps.input.at(lanes, i + 1);
            for (k, weights) in [&*fast, &*slow].into_iter().enumerate() {
                let w = &weights[step.length * WEIGHTS..][..WEIGHTS];
                let by_rate = w[0] * basis[2 + k] + w[3] * basis[k] + (w[4] * begin + w[5] * end);
                // Half the second derivative is minus the convolution of the first one, here of the line through its ends.
                bends[k] = w[0] * bends[k] - (w[1] * basis[2 + k] + w[2] * by_rate);
                basis[2 + k] = by_rate;
                basis[k] = w[0] * basis[k] + (w[1] * begin + w[2] * end);
            }
            begin = end;
            if let Some(frame) = step.frame {
                let value = sums.add(c[frame], basis, bends);
                if self.keep {
                    fitted[frame] = value;
                }
            }
        }
    }
}

impl<L: Lanes, const P: usize> Problem<L, P> for Exchange<'_, '_, L::F, P> {
    const BENT: bool = true;

    #[inline(never)]
    fn equations(&mut self, lanes: L, parameters: &[L::F; P], r: &[[L::F; P]; P]) -> Equations<L::F, P> {
        lanes.within(
            #[inline(always)]
            || self.pass(lanes, parameters, r),
        )
    }

    #[inline(always)]
    fn variables(&self, lanes: L, parameters: &[L::F; P]) -> Variables<L::F, P> {
        let one = lanes.splat(1.0);
        let b = &self.t.bounds;
        let (flow, exchange) = (parameters[0], parameters[1]);
        let mut v = Variables { at: *parameters, low: *parameters, high: *parameters };
        v.at[0] = one / flow;
        v.low[0] = lanes.splat(1.0 / b[0].1);
        v.high[0] = lanes.splat(1.0 / b[0].0);
        let fast = is_fast(lanes, self.t, flow, exchange);
        v.at[1] = Self::second(lanes, [flow, exchange], fast);
        let (lowest, highest) = (lanes.splat(b[1].0), lanes.splat(b[1].1));
        let none = lanes.splat(1e-30);
        v.low[1] = lanes.select(fast, one / highest.max(none), lowest / (one + lowest * v.at[0]));
        v.high[1] = lanes.select(fast, one / lowest.max(none), v.at[1] + highest);
        for j in 2..4 {
            v.low[j] = lanes.splat(b[j].0);
            v.high[j] = lanes.splat(b[j].1);
        }
        if P == 5 {
            v.low[P - 1] = lanes.splat(self.t.delay.bounds.0);
            v.high[P - 1] = lanes.splat(self.t.delay.bounds.1);
        }
        v
    }

    #[inline(always)]
    fn moved(&self, lanes: L, parameters: &[L::F; P], step: &[L::F; P]) -> [L::F; P] {
        let one = lanes.splat(1.0);
        let b = &self.t.bounds;
        let v = Problem::<L, P>::variables(self, lanes, parameters);
        let mut next = *parameters;
        let reciprocal = (v.at[0] + step[0]).max(v.low[0]).min(v.high[0]);
        next[0] = one / reciprocal;
        let fast = is_fast(lanes, self.t, parameters[0], parameters[1]);
        next[1] = Self::exchange(lanes, next[0], (v.at[1] + step[1]).max(v.low[1]), fast);
        next[2] = parameters[2] + step[2];
        next[3] = parameters[3] + step[3];
        let flows = [0.01, 0.002];
        for j in 0..4 {
            let scale = if j < 2 { flows[j] } else { SCALES[j] };
            let (low, high) = (lanes.splat(b[j].0), lanes.splat(b[j].1));
            let above = parameters[j] - low;
            let near = above.lt(lanes.splat(scale * NEARLY_NOTHING));
            let lowest = lanes.select(near, low, low + above * lanes.splat(SMALLEST_SHARE));
            next[j] = next[j].max(lowest);
            if j < 2 {
                let highest = parameters[j] * lanes.splat(1.0 / SMALLEST_SHARE) + lanes.splat(0.01 * scale);
                next[j] = next[j].min(highest);
            }
            next[j] = next[j].max(low).min(high);
        }
        if P == 5 {
            let delay = parameters[P - 1] + step[P - 1];
            next[P - 1] = lanes.select(
                step[P - 1].abs().gt(lanes.splat(0.0)),
                delay.max(v.low[P - 1]).min(v.high[P - 1]),
                parameters[P - 1],
            );
        }
        next
    }

    #[inline(always)]
    fn scales(&self) -> [f64; P] {
        std::array::from_fn(|j| SCALES[j])
    }
}

impl<const P: usize, F> Exchange<'_, '_, F, P> {
    /// The pass for a delay of the voxel's own: convolutions at the knots, and from there to each frame.
    #[inline(always)]
    fn own_delay<L: Lanes<F = F>>(&mut self, lanes: L, two: &TwoRates<F>, delay: F, sums: &mut Sums<F, P>)
    where
        F: Numbers<Mask = L::M>,
    {
        let zero = lanes.splat(0.0);
        let t = self.t;
        let work = &mut *self.work;
        for k in 0..2 {
            convolve(lanes, &t.steps, two.rates[k], work.weights[k], work.knots[k], work.knots_by_rate[k]);
            bend_at_knots(lanes, t, work.weights[k], work.knots_by_rate[k], work.knots_bend[k]);
        }
        for i in 0..t.n {
            let place = Place::of(lanes, t, i, delay);
            let mut basis = [zero; 5];
            let mut bends = [zero; 2];
            for k in 0..2 {
                [basis[k], basis[2 + k], bends[k]] = place.advance(
                    lanes,
                    two.rates[k],
                    [&*work.knots[k], &*work.knots_by_rate[k], &*work.knots_bend[k]],
                );
            }
            basis[4] = lanes.select(place.arrived, place.end, zero);
            let value = sums.add(work.c[i], basis, bends);
            if self.keep {
                work.fitted[i] = value;
            }
        }
    }
}

/// Half the second derivatives by the rate at the knots, from the first ones there.
#[inline(always)]
fn bend_at_knots<L: Lanes>(lanes: L, t: &Tables, weights: &[L::F], by_rate: &[L::F], bend: &mut [L::F]) {
    let zero = lanes.splat(0.0);
    let mut before = [zero; 2];
    for (knot, step) in t.steps.steps.iter().enumerate() {
        let w = &weights[step.length * WEIGHTS..][..WEIGHTS];
        let here = by_rate[knot + 1];
        bend[knot] = before[1];
        before = [here, w[0] * before[1] - (w[1] * before[0] + w[2] * here)];
    }
    bend[t.steps.steps.len()] = before[1];
}

/// Fits every pair of rates for one delay; `open` says for which voxels that delay is to be looked at.
#[inline(never)]
fn search<L: Lanes>(lanes: L, t: &Tables, which: usize, open: L::M, work: &mut Work<'_, L::F>) {
    lanes.within(
        #[inline(always)]
        || search_within(lanes, t, which, open, work),
    );
}

#[inline(always)]
fn search_within<L: Lanes>(lanes: L, t: &Tables, which: usize, open: L::M, work: &mut Work<'_, L::F>) {
    let zero = lanes.splat(0.0);
    let one = lanes.splat(1.0);
    let d = &t.dictionaries[which];
    let delay = lanes.splat(t.delay.nodes.get(which).copied().unwrap_or(0.0));
    for k in 0..t.rates.len() {
        let (mut even, mut odd) = (zero, zero);
        for i in 0..t.n / 2 {
            even = even + work.c[2 * i] * t.curves.at(lanes, (which * t.rates.len() + k) * t.n + 2 * i);
            odd = odd + work.c[2 * i + 1] * t.curves.at(lanes, (which * t.rates.len() + k) * t.n + 2 * i + 1);
        }
        if t.n % 2 == 1 {
            even = even + work.c[t.n - 1] * t.curves.at(lanes, (which * t.rates.len() + k) * t.n + t.n - 1);
        }
        let along = even + odd;
        work.projections[k] = along;
        let gain = along.max(zero) * along * d.inverse_squares.at(lanes, k);
        let [gains, delays] = &mut work.singles;
        let better = gain.gt(gains[k]) & open;
        gains[k] = lanes.select(better, gain, gains[k]);
        delays[k] = lanes.select(better, lanes.count(which), delays[k]);
    }
    let [per_flow, per_exchange, per_plasma, per_space] = t.bounds.map(|bounds| lanes.splat(1.0 / bounds.1));
    let [gains, flows, shares, delays] = &mut work.pairs;
    let mut pair = 0;
    for slow in 0..t.rates.len() {
        let along_slow = work.projections[slow];
        let (squares_slow, inverse_slow) = (d.squares.at(lanes, slow), d.inverse_squares.at(lanes, slow));
        for fast in slow + 1..t.rates.len() {
            let along_fast = work.projections[fast];
            // Least squares by both, and what the bounds leave of it.
            let overlap = d.overlap.at(lanes, pair);
            let a = (along_fast - overlap * along_slow) * d.inverse_beside.at(lanes, pair);
            let b = along_slow * inverse_slow - overlap * a;
            let (some_fast, some_slow) = (a.gt(zero), b.gt(zero));
            let share = lanes.select(some_slow, a / (a + b.max(lanes.splat(1e-30))), one);
            let share = lanes.select(some_fast, share, zero);
            let share = share.max(t.pairs.low_share.at(lanes, pair)).min(t.pairs.high_share.at(lanes, pair));
            let along = along_slow + share * (along_fast - along_slow);
            let squares = squares_slow + share * (d.linear.at(lanes, pair) + share * d.square.at(lanes, pair));
            let (exchange, plasma, space) =
                per_flow_of(lanes, t.pairs.fast.at(lanes, pair), t.pairs.slow.at(lanes, pair), share);
            let least = per_flow.max(exchange * per_exchange).max(plasma * per_plasma).max(space * per_space);
            let flow = (along / squares.max(lanes.splat(1e-30))).min(one / least);
            let gain = flow * (along + along - flow * squares);
            let better = gain.gt(gains[pair]) & flow.gt(zero) & open;
            gains[pair] = lanes.select(better, gain, gains[pair]);
            flows[pair] = lanes.select(better, flow, flows[pair]);
            shares[pair] = lanes.select(better, share, shares[pair]);
            delays[pair] = lanes.select(better, delay, delays[pair]);
            pair += 1;
        }
    }
}

/// PS, v_p and v_e per plasma flow, from H(0), H'(0) and the product of the rates; `share` is the faster exponential's.
#[inline(always)]
fn per_flow_of<L: Lanes>(lanes: L, fast: L::F, slow: L::F, share: L::F) -> (L::F, L::F, L::F) {
    let rest = lanes.splat(1.0) - share;
    let plasma = lanes.splat(1.0) / (share * fast + rest * slow);
    let product = fast * slow;
    let space = ((share * slow + rest * fast) / product - plasma).max(lanes.splat(0.0));
    (product * plasma * space, plasma, space)
}

/// The highest places among the pairs, best first: their gains and numbers.
#[inline(never)]
fn summits<L: Lanes>(lanes: L, t: &Tables, work: &Work<'_, L::F>) -> [[L::F; 2]; STARTS] {
    lanes.within(
        #[inline(always)]
        || summits_within(lanes, t, work),
    )
}

#[inline(always)]
fn summits_within<L: Lanes>(lanes: L, t: &Tables, work: &Work<'_, L::F>) -> [[L::F; 2]; STARTS] {
    let zero = lanes.splat(0.0);
    let gains = &work.pairs[0];
    let mut best = [[zero; 2]; STARTS];
    let mut pair = 0;
    for slow in 0..t.rates.len() {
        for fast in slow + 1..t.rates.len() {
            let gain = gains[pair];
            let mut summit = gain.gt(zero);
            // Of neighbours that are as high the first one counts.
            for near_slow in slow.saturating_sub(1)..=slow + 1 {
                for near_fast in (fast - 1).max(near_slow + 1)..(fast + 2).min(t.rates.len()) {
                    let near = pair_of(t.rates.len(), near_slow, near_fast);
                    if near < pair {
                        summit = summit & gain.gt(gains[near]);
                    } else if near > pair {
                        summit = summit & gain.ge(gains[near]);
                    }
                }
            }
            if summit.any() {
                let mut next = [lanes.select(summit, gain, zero), lanes.count(pair)];
                for place in &mut best {
                    let higher = next[0].gt(place[0]);
                    for k in 0..2 {
                        let before = place[k];
                        place[k] = lanes.select(higher, next[k], before);
                        next[k] = lanes.select(higher, before, next[k]);
                    }
                }
            }
            pair += 1;
        }
    }
    best
}

/// Two exponentials to start from.
#[derive(Clone, Copy)]
struct Start<F> {
    /// 0 where there is nothing to start from.
    gain: F,
    flow: F,
    fast: F,
    slow: F,
    /// The faster exponential's share of the flow.
    share: F,
    delay: F,
}

/// Second exponentials beside the best single one, best first: curves of nearly one exponential have valleys that run along
/// it, narrower than the pairs are apart.
#[inline(never)]
fn partners<L: Lanes, const P: usize>(
    lanes: L,
    t: &Tables,
    given_delay: L::F,
    delay_free: L::M,
    work: &mut Work<'_, L::F>,
) -> [Start<L::F>; PARTNERS] {
    lanes.within(
        #[inline(always)]
        || partners_within::<L, P>(lanes, t, given_delay, delay_free, work),
    )
}

#[inline(always)]
fn partners_within<L: Lanes, const P: usize>(
    lanes: L,
    t: &Tables,
    given_delay: L::F,
    delay_free: L::M,
    work: &mut Work<'_, L::F>,
) -> [Start<L::F>; PARTNERS] {
    let zero = lanes.splat(0.0);
    let one = lanes.splat(1.0);
    let tiny = lanes.splat(1e-30);
    let rates = t.rates.len();
    // The top of the parabola through the best single rate and its neighbours.
    let [gains, delays] = &work.singles;
    let (mut top, mut at) = (gains[0], zero);
    for k in 1..rates {
        let higher = gains[k].gt(top);
        top = lanes.select(higher, gains[k], top);
        at = lanes.select(higher, lanes.count(k), at);
    }
    let inside = at.gt(zero) & at.lt(lanes.count(rates - 2));
    let middle = lanes.select(inside, at, one);
    let below = lanes.gather(gains, middle - one);
    let above = lanes.gather(gains, middle + one);
    let fall = (top - below) + (top - above);
    let shift = lanes.splat(0.5) * (above - below) / fall.max(tiny);
    let shift = lanes.select(inside & fall.gt(zero), shift.max(lanes.splat(-0.5)).min(lanes.splat(0.5)), zero);
    let x = shift * lanes.splat(t.log_step);
    let sixth = lanes.splat(1.0 / 6.0);
    let factor = one + x * (one + x * (lanes.splat(0.5) + x * (sixth + x * lanes.splat(1.0 / 24.0))));
    let rate = lanes.lookup(&t.rates, at) * factor;
    let delay_place = lanes.gather(delays, at);
    let mut delay = zero;
    if P == 5 {
        delay = lanes.lookup(&t.delay.nodes, delay_place);
    }

    // Its curve and the derivative by the rate, orthonormal, and what they leave of the samples.
    work.single_curve(lanes, t, rate, delay);
    let (mut squares, mut mixed) = (zero, zero);
    for i in 0..t.n {
        squares = squares + work.single[i] * work.single[i];
        mixed = mixed + work.single[i] * work.single_by_rate[i];
    }
    let length = squares.sqrt().max(tiny);
    let (inverse, coefficient) = (one / length, mixed / squares.max(tiny));
    let (mut beside, mut flow) = (zero, zero);
    for i in 0..t.n {
        let off = work.single_by_rate[i] - coefficient * work.single[i];
        beside = beside + off * off;
        work.single_by_rate[i] = off;
        work.single[i] = work.single[i] * inverse;
        flow = flow + work.single[i] * work.c[i];
    }
    let inverse_beside = one / beside.sqrt().max(tiny);
    let mut bent = zero;
    for i in 0..t.n {
        work.single_by_rate[i] = work.single_by_rate[i] * inverse_beside;
        bent = bent + work.single_by_rate[i] * work.c[i];
    }
    for i in 0..t.n {
        work.fitted[i] = work.c[i] - (flow * work.single[i] + bent * work.single_by_rate[i]);
    }
    let alone = flow * inverse;

    for k in 0..rates {
        let (mut along, mut first, mut second) = (zero, zero, zero);
        let (curve_squares, at);
        if P == 5 {
            at = (delay_place * lanes.count(rates) + lanes.count(k)) * lanes.count(t.n);
            curve_squares = lanes.lookup(&t.curve_squares, delay_place * lanes.count(rates) + lanes.count(k));
        } else {
            at = zero;
            curve_squares = t.curve_squares.at(lanes, k);
        }
        for i in 0..t.n {
            let curve =
                if P == 5 { lanes.lookup(&t.curves, at + lanes.count(i)) } else { t.curves.at(lanes, k * t.n + i) };
            along = along + work.fitted[i] * curve;
            first = first + work.single[i] * curve;
            second = second + work.single_by_rate[i] * curve;
        }
        let left = curve_squares - (first * first + second * second);
        let apart = left.gt(curve_squares * lanes.splat(1e-6)) & along.gt(zero);
        let amplitude = lanes.select(apart, along / left.max(tiny), zero);
        work.partners[0][k] = amplitude * along;
        work.partners[1][k] = amplitude;
        // What the single one then has.
        work.projections[k] = (alone - amplitude * first * inverse).max(zero);
    }
    let mut best = [Start { gain: zero, flow: zero, fast: one, slow: one, share: zero, delay: zero }; PARTNERS];
    for k in 0..rates {
        let [gains, amplitudes] = &work.partners;
        let mut next = Start { gain: gains[k], ..best[0] };
        let mut summit = next.gain.gt(zero);
        if k > 0 {
            summit = summit & next.gain.gt(gains[k - 1]);
        }
        if k + 1 < rates {
            summit = summit & next.gain.ge(gains[k + 1]);
        }
        if !summit.any() {
            continue;
        }
        let other = t.rates.at(lanes, k);
        let faster = other.gt(rate);
        let (amplitude, rest) = (amplitudes[k], work.projections[k]);
        next.gain = lanes.select(summit, next.gain, zero);
        next.flow = amplitude + rest;
        next.fast = other.max(rate);
        next.slow = other.min(rate);
        let ratio = (next.fast / next.slow).sqrt();
        let share = lanes.select(faster, amplitude, rest) / next.flow.max(tiny);
        let (least, most) = (ratio * lanes.splat(1.0 / FARTHEST_PARTNER), ratio * lanes.splat(FARTHEST_PARTNER));
        next.share = share.max(least / (one + least)).min(most / (one + most));
        next.delay = delay;
        if P == 5 {
            next.delay = lanes.select(delay_free, delay, given_delay);
        }
        for place in &mut best {
            let higher = next.gain.gt(place.gain);
            let before = *place;
            *place = choose(lanes, higher, &next, &before);
            next = choose(lanes, higher, &before, &next);
        }
    }
    best
}

#[inline(always)]
fn choose<L: Lanes>(lanes: L, mask: L::M, a: &Start<L::F>, b: &Start<L::F>) -> Start<L::F> {
    Start {
        gain: lanes.select(mask, a.gain, b.gain),
        flow: lanes.select(mask, a.flow, b.flow),
        fast: lanes.select(mask, a.fast, b.fast),
        slow: lanes.select(mask, a.slow, b.slow),
        share: lanes.select(mask, a.share, b.share),
        delay: lanes.select(mask, a.delay, b.delay),
    }
}

/// The nonlinear fit; `given_delay` where it isn't free.
#[inline(always)]
pub(super) fn fit<L: Lanes, const P: usize>(
    lanes: L,
    t: &Tables,
    given_delay: L::F,
    delay_free: L::M,
    squares: L::F,
    work: &mut Work<'_, L::F>,
) -> Refined<L::F, L::M, P> {
    let zero = lanes.splat(0.0);
    let perfect = squares * lanes.splat(if L::WIDTH == 1 { PERFECT.1 } else { PERFECT.0 });
    for numbers in work.pairs.iter_mut().chain(&mut work.singles) {
        numbers.fill(zero);
    }
    for which in 0..t.dictionaries.len() {
        let mut open = lanes.mask(true);
        if P == 5 {
            let node = lanes.splat(t.delay.nodes[which]);
            open = delay_free | (node - given_delay).abs().le(lanes.splat(t.delay.reach));
        }
        search(lanes, t, which, open, work);
    }
    let mut held = [lanes.mask(false); P];
    if P == 5 {
        held[P - 1] = !delay_free;
    }
    let damping = lanes.splat(DAMPING);
    let mut starts =
        [Start { gain: zero, flow: zero, fast: zero, slow: zero, share: zero, delay: zero }; STARTS + PARTNERS];
    for (start, [gain, pair]) in starts.iter_mut().zip(summits(lanes, t, work)) {
        let [_, flows, shares, delays] = &work.pairs;
        *start = Start {
            gain,
            flow: lanes.gather(flows, pair),
            fast: lanes.lookup(&t.pairs.fast, pair),
            slow: lanes.lookup(&t.pairs.slow, pair),
            share: lanes.gather(shares, pair),
            delay: lanes.gather(delays, pair),
        };
        if P == 5 {
            start.delay = lanes.select(delay_free, start.delay, given_delay);
        }
    }
    starts[STARTS..].copy_from_slice(&partners::<L, P>(lanes, t, given_delay, delay_free, work));
    let mut problem = Exchange::<_, P> { t, work, keep: false };
    let mut chosen: Option<Refined<L::F, L::M, P>> = None;
    for from in starts {
        let wanted = match &chosen {
            None => lanes.mask(true),
            Some(before) => from.gain.gt(zero) & before.sse.gt(perfect),
        };
        if !wanted.any() {
            continue;
        }
        let (exchange, plasma, space) = per_flow_of(lanes, from.fast, from.slow, from.share);
        let mut start = [zero; P];
        start[..4].copy_from_slice(&[from.flow, from.flow * exchange, from.flow * plasma, from.flow * space]);
        for j in 0..4 {
            start[j] = start[j].max(lanes.splat(t.bounds[j].0)).min(lanes.splat(t.bounds[j].1));
        }
        if P == 5 {
            start[P - 1] = from.delay;
        }
        let refined = refine(lanes, &mut problem, start, &held, squares, damping, wanted, TURNS);
        chosen = Some(match chosen {
            None => refined,
            Some(before) => lower(lanes, wanted, &refined, &before),
        });
    }
    let Some(mut chosen) = chosen else { unreachable!("the first round is always wanted") };
    for _ in 0..CONTINUATIONS {
        let wanted = !chosen.converged;
        if !wanted.any() {
            break;
        }
        let refined = refine(lanes, &mut problem, chosen.parameters, &held, squares, chosen.damping, wanted, TURNS);
        let turns = chosen.turns + lanes.select(wanted, refined.turns, zero);
        chosen = merge(lanes, wanted, &refined, &chosen);
        chosen.turns = turns;
    }
    chosen
}

/// The one with the lower sum of squares, where the second one was looked at; turns add up.
#[inline(always)]
fn lower<L: Lanes, const P: usize>(
    lanes: L,
    wanted: L::M,
    new: &Refined<L::F, L::M, P>,
    old: &Refined<L::F, L::M, P>,
) -> Refined<L::F, L::M, P> {
    let mut result = merge(lanes, wanted & new.sse.lt(old.sse), new, old);
    result.turns = old.turns + lanes.select(wanted, new.turns, lanes.splat(0.0));
    result
}

#[inline(always)]
fn merge<L: Lanes, const P: usize>(
    lanes: L,
    mask: L::M,
    a: &Refined<L::F, L::M, P>,
    b: &Refined<L::F, L::M, P>,
) -> Refined<L::F, L::M, P> {
    let mut result = *b;
    for i in 0..P {
        result.parameters[i] = lanes.select(mask, a.parameters[i], b.parameters[i]);
        for j in i..P {
            result.r[i][j] = lanes.select(mask, a.r[i][j], b.r[i][j]);
        }
    }
    result.sse = lanes.select(mask, a.sse, b.sse);
    result.turns = lanes.select(mask, a.turns, b.turns);
    result.damping = lanes.select(mask, a.damping, b.damping);
    result.converged = (mask & a.converged) | (!mask & b.converged);
    result
}
