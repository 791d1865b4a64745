//! The fit of one block of voxels: the dictionary's best cells, refined.

#![expect(clippy::needless_range_loop, reason = "formulas of matrices and frames are read by their indices")]

use super::super::convolution::{WEIGHTS, convolve, prepare, step_weights};
use super::super::refinement::{DAMPING, Equations, Problem, Refined, Variables, refine};
use super::exchange::{TwoRates, two_rates};
use super::tables::{KINDS, Tables};
use crate::kernel::Curve;
use crate::kernel::lanes::{Lanes, Masks as _, Numbers as _};

/// Turns from each start.
const TURNS: usize = 8;
/// Other starts, made from the best place found so far.
pub(super) const VARIATIONS: usize = 5;
/// How often the search goes on from the best place, each time by as many turns.
pub(super) const CONTINUATIONS: usize = 6;
/// A sum of squares below this share of sum C^2, in 32 bits and in 64, leaves nothing to look for elsewhere.
const PERFECT: (f64, f64) = (1e-11, 1e-20);
/// Parameters per turn shrink to this share of their distance from the lower bound at least, and grow by its reciprocal:
/// on a bound of PS, v_p or v_e others lose their meaning, and a fit would stay there.
const SMALLEST_SHARE: f64 = 0.1;
/// Below this share of its scale a parameter may go to its bound.
const NEARLY_NOTHING: f64 = 1e-6;
/// Scales of y = 1 / F_p (s), Ktrans (1/s), v_p, v_e and delay (s).
const SCALES: [f64; 5] = [100.0, 0.002, 0.05, 0.2, 1.0];

/// Working memory for one block of voxels.
pub(super) struct Work<'a, F> {
    /// The samples: mM.
    pub(super) c: &'a mut [F],
    /// The fitted curve, once it is asked for.
    pub(super) fitted: &'a mut [F],
    projections: &'a mut [F],
    weights: [&'a mut [F]; 2],
    knots: [&'a mut [F]; 2],
    knots_by_rate: [&'a mut [F]; 2],
}

fn knots(t: &Tables) -> usize {
    if t.delay.own { t.delay.knot_times.len() } else { 0 }
}

/// Numbers of working memory.
pub(super) fn scratch(t: &Tables) -> usize {
    2 * t.n + t.rates + 4 * knots(t) + 2 * WEIGHTS * t.steps.lengths.len()
}

impl<'a, F> Work<'a, F> {
    #[inline(always)]
    pub(super) fn new(t: &Tables, memory: &'a mut [F]) -> Self {
        let (c, memory) = memory.split_at_mut(t.n);
        let (fitted, memory) = memory.split_at_mut(t.n);
        let (projections, memory) = memory.split_at_mut(t.rates);
        let (fast, memory) = memory.split_at_mut(knots(t));
        let (slow, memory) = memory.split_at_mut(knots(t));
        let (fast_by_rate, memory) = memory.split_at_mut(knots(t));
        let (slow_by_rate, memory) = memory.split_at_mut(knots(t));
        let (weights_fast, weights_slow) = memory.split_at_mut(WEIGHTS * t.steps.lengths.len());
        Self {
            c,
            fitted,
            projections,
            weights: [weights_fast, weights_slow],
            knots: [fast, slow],
            knots_by_rate: [fast_by_rate, slow_by_rate],
        }
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
}

impl<F: crate::kernel::lanes::Numbers, const P: usize> Sums<F, P> {
    /// Takes a frame in, and gives its fitted sample.
    #[inline(always)]
    fn add(&mut self, sample: F, basis: [F; 5]) -> F {
        let fitted = self.a * basis[0] + self.b * basis[1];
        let residual = sample - fitted;
        let e = &mut self.equations;
        e.sse = e.sse + residual * residual;
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

/// Whether PS itself is the second variable, because it is at its upper bound, instead of Ktrans.
#[inline(always)]
fn exchange_held<L: Lanes>(lanes: L, t: &Tables, exchange: L::F) -> L::M {
    exchange.ge(lanes.splat(t.bounds[1].1))
}

impl<const P: usize, F> Exchange<'_, '_, F, P> {
    /// J R^-1 over the basis: J by the variables, from the derivatives by the parameters.
    #[inline(always)]
    fn columns<L: Lanes<F = F>>(&self, lanes: L, parameters: &[F; P], two: &TwoRates<F>, r: &[[F; P]; P]) -> [[F; P]; 5]
    where
        F: crate::kernel::lanes::Numbers<Mask = L::M>,
    {
        let zero = lanes.splat(0.0);
        let one = lanes.splat(1.0);
        let (flow, exchange) = (parameters[0], parameters[1]);
        let held = exchange_held(lanes, self.t, exchange);
        let flow_squared = flow * flow;
        let exchange_squared = lanes.select(held, zero, exchange * exchange);
        let ratio = one + exchange / flow;
        let by_transfer = lanes.select(held, one, ratio * ratio);
        let mut columns = [[zero; P]; 5];
        for (k, row) in columns.iter_mut().enumerate() {
            let mut j = [zero; P];
            if k < 4 {
                let d = two.by_parameter;
                j[0] = exchange_squared * d[1][k] - flow_squared * d[0][k];
                j[1] = by_transfer * d[1][k];
                j[2] = d[2][k];
                j[3] = d[3][k];
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
                row[i] = value / r[i][i];
            }
        }
        columns
    }
}

impl<const P: usize, F> Exchange<'_, '_, F, P> {
    #[inline(always)]
    fn pass<L: Lanes<F = F>>(&mut self, lanes: L, parameters: &[F; P], r: &[[F; P]; P]) -> Equations<F, P>
    where
        F: crate::kernel::lanes::Numbers<Mask = L::M>,
    {
        let zero = lanes.splat(0.0);
        let two = two_rates(lanes, [parameters[0], parameters[1], parameters[2], parameters[3]]);
        let columns = self.columns(lanes, parameters, &two, r);
        let mut sums = Sums { equations: Equations::new(zero), a: two.a, b: two.b, columns };
        let t = self.t;
        if P == 5 {
            self.own_delay(lanes, &two, parameters[P - 1], &mut sums);
            return sums.equations;
        }
        let steps = &t.steps;
        for (rate, memory) in two.rates.iter().zip(&mut self.work.weights) {
            prepare(lanes, steps, *rate, memory);
        }
        let Work { c, fitted, weights: [fast, slow], .. } = &mut *self.work;
        let mut basis = [zero; 5];
        for i in 0..steps.before {
            let value = sums.add(c[i], basis);
            if self.keep {
                fitted[i] = value;
            }
        }
        let mut begin = steps.input.at(lanes, 0);
        for (i, step) in steps.steps.iter().enumerate() {
            let end = steps.input.at(lanes, i + 1);
            let w = &fast[step.length * WEIGHTS..][..WEIGHTS];
            basis[2] = w[0] * basis[2] + w[3] * basis[0] + (w[4] * begin + w[5] * end);
            basis[0] = w[0] * basis[0] + (w[1] * begin + w[2] * end);
            let w = &slow[step.length * WEIGHTS..][..WEIGHTS];
            basis[3] = w[0] * basis[3] + w[3] * basis[1] + (w[4] * begin + w[5] * end);
            basis[1] = w[0] * basis[1] + (w[1] * begin + w[2] * end);
            begin = end;
            if let Some(frame) = step.frame {
                let value = sums.add(c[frame], basis);
                if self.keep {
                    fitted[frame] = value;
                }
            }
        }
        sums.equations
    }
}

impl<L: Lanes, const P: usize> Problem<L, P> for Exchange<'_, '_, L::F, P> {
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
        let held = exchange_held(lanes, self.t, exchange);
        let lowest = lanes.splat(b[1].0);
        v.at[1] = lanes.select(held, exchange, exchange / (one + exchange * v.at[0]));
        v.low[1] = lanes.select(held, lowest, lowest / (one + lowest * v.at[0]));
        v.high[1] = lanes.select(held, exchange, v.at[1] + lanes.splat(b[1].1));
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
        let second = v.at[1] + step[1];
        let rest = one - second * reciprocal;
        let floor = lanes.splat(1e-6);
        let exchange = lanes.select(rest.gt(floor), second / rest.max(floor), lanes.splat(b[1].1));
        next[1] = lanes.select(exchange_held(lanes, self.t, parameters[1]), second, exchange);
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
        F: crate::kernel::lanes::Numbers<Mask = L::M>,
    {
        let zero = lanes.splat(0.0);
        let half = lanes.splat(0.5);
        let t = self.t;
        let d = &t.delay;
        let work = &mut *self.work;
        for k in 0..2 {
            convolve(lanes, &t.steps, two.rates[k], work.weights[k], work.knots[k], work.knots_by_rate[k]);
        }
        for i in 0..t.n {
            let time = t.frame_times.at(lanes, i) - delay;
            // The last knot at or before this time.
            let (mut low, mut high) = (zero, lanes.count(d.knot_times.len()));
            for _ in 0..d.halvings {
                let middle = (half * (low + high)).floor();
                let reached = lanes.lookup(&d.knot_times, middle).le(time) & middle.gt(low);
                let below = !reached & middle.lt(high) & middle.gt(low);
                high = lanes.select(below, middle, high);
                low = lanes.select(reached, middle, low);
            }
            // The difference of two times that lie close is exact in 32 bits; that of a time and a delay isn't.
            let mut since = (t.frame_times.at(lanes, i) - lanes.lookup(&d.knot_times, low)) - delay;
            if L::WIDTH > 1 {
                // What 32 bits lack of both times.
                since = since + (d.frame_rest.at(lanes, i) - lanes.lookup(&d.knot_rest, low));
            }
            let arrived = since.ge(zero);
            let length = since.max(zero);
            let begin = lanes.lookup(&d.knot_values, low);
            let end = begin + lanes.lookup(&d.knot_slopes, low) * length;
            let mut basis = [zero; 5];
            for k in 0..2 {
                let w = step_weights(lanes, two.rates[k], length);
                let value = lanes.gather(work.knots[k], low);
                let by_rate = lanes.gather(work.knots_by_rate[k], low);
                let here = w.decay * value + (w.begin * begin + w.end * end);
                let here_by_rate =
                    w.decay * by_rate + w.decay_by_rate * value + (w.begin_by_rate * begin + w.end_by_rate * end);
                basis[k] = lanes.select(arrived, here, zero);
                basis[2 + k] = lanes.select(arrived, here_by_rate, zero);
            }
            basis[4] = lanes.select(arrived, end, zero);
            let value = sums.add(work.c[i], basis);
            if self.keep {
                work.fitted[i] = value;
            }
        }
    }
}

/// The best cell of a kind.
#[derive(Clone, Copy)]
struct Start<F> {
    /// How much of the sum of squares it explains.
    gain: F,
    cell: F,
    flow: F,
    delay: F,
}

/// Looks through the cells for one delay; `open` says for which voxels that delay is to be looked at.
#[inline(never)]
fn search<L: Lanes>(
    lanes: L,
    t: &Tables,
    which: usize,
    open: L::M,
    work: &mut Work<'_, L::F>,
    best: &mut [Start<L::F>; KINDS],
) {
    lanes.within(
        #[inline(always)]
        || search_within(lanes, t, which, open, work, best),
    );
}

#[inline(always)]
fn search_within<L: Lanes>(
    lanes: L,
    t: &Tables,
    which: usize,
    open: L::M,
    work: &mut Work<'_, L::F>,
    best: &mut [Start<L::F>; KINDS],
) {
    let zero = lanes.splat(0.0);
    let dictionary = &t.dictionaries[which];
    let delay = lanes.splat(t.delay.nodes.get(which).copied().unwrap_or(0.0));
    for k in 0..t.rates {
        let (mut even, mut odd) = (zero, zero);
        for i in 0..t.n / 2 {
            even = even + work.c[2 * i] * dictionary.curves.at(lanes, k * t.n + 2 * i);
            odd = odd + work.c[2 * i + 1] * dictionary.curves.at(lanes, k * t.n + 2 * i + 1);
        }
        if t.n % 2 == 1 {
            even = even + work.c[t.n - 1] * dictionary.curves.at(lanes, k * t.n + t.n - 1);
        }
        work.projections[k] = even + odd;
    }
    let cells = &t.cells;
    for cell in 0..cells.fast.len() {
        let slow = work.projections[cells.slow[cell]];
        let fast = work.projections[cells.fast[cell]];
        let projection = slow + cells.share.at(lanes, cell) * (fast - slow);
        let squares = dictionary.squares.at(lanes, cell);
        let flow = (projection * dictionary.inverse_squares.at(lanes, cell)).min(cells.most.at(lanes, cell));
        let gain = flow * (projection + projection - flow * squares);
        let best = &mut best[cells.kind[cell]];
        let more = gain.gt(best.gain) & flow.gt(zero) & open;
        best.gain = lanes.select(more, gain, best.gain);
        best.cell = lanes.select(more, lanes.count(cell), best.cell);
        best.flow = lanes.select(more, flow, best.flow);
        best.delay = lanes.select(more, delay, best.delay);
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
    let mut best = [Start { gain: zero, cell: zero, flow: zero, delay: zero }; KINDS];
    for which in 0..t.dictionaries.len() {
        let mut open = lanes.mask(true);
        if P == 5 {
            let node = lanes.splat(t.delay.nodes[which]);
            open = delay_free | (node - given_delay).abs().le(lanes.splat(t.delay.reach));
        }
        search(lanes, t, which, open, work, &mut best);
    }
    let mut held = [lanes.mask(false); P];
    if P == 5 {
        held[P - 1] = !delay_free;
    }
    let damping = lanes.splat(DAMPING);
    let mut problem = Exchange::<_, P> { t, work, keep: false };
    let mut chosen: Option<Refined<L::F, L::M, P>> = None;
    for _ in 0..KINDS {
        // The best of those that are left.
        let mut top = best[0];
        for other in &best[1..] {
            let more = other.gain.gt(top.gain);
            top = Start {
                gain: lanes.select(more, other.gain, top.gain),
                cell: lanes.select(more, other.cell, top.cell),
                flow: lanes.select(more, other.flow, top.flow),
                delay: lanes.select(more, other.delay, top.delay),
            };
        }
        for other in &mut best {
            let taken = other.gain.ge(top.gain);
            other.gain = lanes.select(taken, lanes.splat(-1.0), other.gain);
        }
        let wanted = match &chosen {
            None => lanes.mask(true),
            Some(before) => top.gain.gt(zero) & before.sse.gt(perfect),
        };
        if !wanted.any() {
            break;
        }
        let mut start = [zero; P];
        start[0] = top.flow;
        start[1] = top.flow * lanes.lookup(&t.cells.exchange, top.cell);
        start[2] = top.flow * lanes.lookup(&t.cells.plasma, top.cell);
        start[3] = top.flow * lanes.lookup(&t.cells.space, top.cell);
        for j in 0..4 {
            start[j] = start[j].max(lanes.splat(t.bounds[j].0)).min(lanes.splat(t.bounds[j].1));
        }
        if P == 5 {
            start[P - 1] = lanes.select(delay_free, top.delay, given_delay);
        }
        let refined = refine(lanes, &mut problem, start, &held, squares, damping, wanted, TURNS);
        chosen = Some(match chosen {
            None => refined,
            Some(before) => lower(lanes, wanted, &refined, &before),
        });
    }
    let Some(mut chosen) = chosen else { unreachable!("the first round is always wanted") };
    for which in 0..VARIATIONS {
        let wanted = chosen.sse.gt(perfect);
        if !wanted.any() {
            break;
        }
        let start = variation(lanes, t, which, &chosen.parameters);
        let refined = refine(lanes, &mut problem, start, &held, squares, damping, wanted, TURNS);
        chosen = lower(lanes, wanted, &refined, &chosen);
    }
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

/// Another start from where a search ended: curves that are alike have valleys that are far apart. 0: the same transfer by
/// the highest flow through hardly any plasma; 1: by a flow that is extracted almost entirely; 2: a small space beside one
/// compartment; 3: a slow uptake beside it; 4: that compartment alone.
#[inline(always)]
fn variation<L: Lanes, const P: usize>(lanes: L, t: &Tables, which: usize, parameters: &[L::F; P]) -> [L::F; P] {
    let [flow, exchange, plasma, space] = [parameters[0], parameters[1], parameters[2], parameters[3]];
    let transfer = flow * exchange / (flow + exchange);
    // Plasma with almost no exchange is one compartment: its flow is what is transferred.
    let duration = lanes.splat(t.frame_times[t.n - 1]);
    let alone = exchange.lt(lanes.splat(0.02) * flow) & plasma.gt(lanes.splat(0.03) * transfer * duration);
    let volume = plasma + space;
    let mut next = *parameters;
    match which {
        0 => {
            next[0] = lanes.splat(t.bounds[0].1);
            next[1] = next[0] * transfer / (next[0] - transfer).max(lanes.splat(1e-3) * next[0]);
            next[2] = (plasma * lanes.splat(0.03)).max(lanes.splat(1e-4));
            next[3] = volume;
        }
        1 => {
            let size = lanes.select(alone, plasma, volume);
            next[0] = lanes.select(alone, flow, transfer * lanes.splat(1.1));
            next[1] = next[0] * lanes.splat(4.0);
            next[2] = size * lanes.splat(0.6);
            next[3] = size * lanes.splat(0.4);
        }
        2 => {
            next[1] = flow * lanes.splat(0.01);
            next[3] = plasma * lanes.splat(0.02);
        }
        3 => {
            next[1] = flow * lanes.splat(1e-4);
            next[3] = lanes.splat(t.bounds[3].1);
        }
        _ => {
            next[0] = lanes.select(alone, flow, transfer);
            next[1] = lanes.splat(0.0);
            next[2] = lanes.select(alone, plasma, volume);
        }
    }
    for j in 0..4 {
        next[j] = next[j].max(lanes.splat(t.bounds[j].0)).min(lanes.splat(t.bounds[j].1));
    }
    next
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
