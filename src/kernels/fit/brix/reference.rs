//! The fit of one block of voxels: the dictionary's best cell, refined, then from the intervals beside it.

#![expect(clippy::needless_range_loop, reason = "formulas of matrices and frames are read by their indices")]

use super::super::refinement::{DAMPING, Equations, Problem, Refined, Variables, refine};
use super::tables::{RATES, Tables};
use crate::kernel::Curve;
use crate::kernel::lanes::{Lanes, Masks as _, Numbers};

/// Turns from each start.
pub(super) const TURNS: usize = 8;
/// The best cells of so many onsets, and the curve that the first one leads to with its onset in the interval before and in the
/// one after.
pub(super) const CELLS: usize = 4;
pub(super) const STARTS: usize = CELLS + 2;
/// How often the search goes on from the best place, each time by as many turns: after the starts, and after the restarts.
pub(super) const CONTINUATIONS: [usize; 2] = [8, 24];
/// Restarts beside the best place: equal rates, the largest amplitude, and the onset held where it is, then at the nearest frame.
pub(super) const RESTARTS: usize = 4;
/// Where k_ep is more than so many times k_el, equal rates are far away; less than so often per duration, the curve is a line
/// that tells the product A k_ep only.
pub(super) const FAR_APART: f64 = 30.0;
pub(super) const HARDLY_BENT: f64 = 3.0;
/// The least ratio of rates that count as equal when their mean is taken.
pub(super) const LEAST_RATIO: f64 = 0.1;
/// Where less than this share of sum y^2 is left, restarts have nothing to win.
pub(super) const NOTHING_LEFT: f64 = 1e-5;
/// Scales of A, k_ep, k_el (1/s) and onset (s).
const SCALES: [f64; 4] = [0.5, 0.05, 0.002, 1.0];

/// Working memory for one block of voxels.
pub(super) struct Work<'a, F> {
    /// S / S_BL - 1.
    pub(super) y: &'a mut [F],
    pub(super) fitted: &'a mut [F],
    projections: &'a mut [F],
}

/// Numbers of working memory.
pub(super) fn scratch(t: &Tables) -> usize {
    2 * t.n + RATES
}

impl<'a, F> Work<'a, F> {
    #[inline(always)]
    pub(super) fn new(t: &Tables, memory: &'a mut [F]) -> Self {
        let (y, memory) = memory.split_at_mut(t.n);
        let (fitted, projections) = memory.split_at_mut(t.n);
        Self { y, fitted, projections }
    }
}

/// What is known of a voxel's samples.
#[derive(Clone, Copy)]
pub(super) struct Samples<F, M> {
    pub(super) baseline: F,
    /// Whether the baseline is positive.
    pub(super) positive: M,
    pub(super) squares: F,
    pub(super) squares_about_mean: F,
}

/// Reads the samples as S / S_BL - 1; 0 where the baseline isn't positive.
#[inline(always)]
pub(super) fn read<L: Lanes>(lanes: L, t: &Tables, curve: &Curve<'_, L>, y: &mut [L::F]) -> Samples<L::F, L::M> {
    let zero = lanes.splat(0.0);
    let one = lanes.splat(1.0);
    let mut sum = zero;
    for i in t.baseline.clone() {
        sum = sum + curve.difference(i);
    }
    let mean = sum * lanes.splat(1.0 / t.baseline.len() as f64);
    let slope = lanes.splat(t.slope);
    let baseline = slope * (curve.first + mean) + lanes.splat(t.intercept);
    let positive = baseline.gt(zero) & curve.finite;
    let scale = lanes.select(positive, slope / lanes.select(positive, baseline, one), zero);
    let (mut squares, mut whole) = (zero, zero);
    for i in 0..t.n {
        y[i] = scale * (curve.difference(i) - mean);
        squares = squares + y[i] * y[i];
        whole = whole + y[i];
    }
    let middle = whole / lanes.count(t.n);
    let mut squares_about_mean = zero;
    for i in 0..t.n {
        let off = y[i] - middle;
        squares_about_mean = squares_about_mean + off * off;
    }
    Samples { baseline, positive, squares, squares_about_mean }
}

/// The integrals of exp(-x v), v exp(-x v) and v^2 exp(-x v) over v from 0 to 1, x not below 0; the last isn't needed.
#[inline(always)]
fn moments<L: Lanes>(lanes: L, x: L::F) -> (L::F, L::F) {
    let one = lanes.splat(1.0);
    let small = x.lt(one);
    let near = x.min(one);
    // m_1 = 1/2 - x/3 + x^2/8 - ... = sum (-x)^k / (k! (k + 2)); m_0 = x m_1 + exp(-x).
    let mut sum = lanes.splat(1.0 / 18.0);
    for k in (1..=15).rev() {
        sum = lanes.splat(1.0 / (k + 1) as f64) - near * lanes.splat(1.0 / k as f64) * sum;
    }
    let decay = (-x.min(lanes.splat(80.0))).exp();
    let near_0 = near * sum + decay;
    let far = x.max(one);
    let inverse = one / far;
    let far_0 = (one - decay) * inverse;
    let far_1 = (far_0 - decay) * inverse;
    (lanes.select(small, near_0, far_0), lanes.select(small, sum, far_1))
}

/// Brix's curve.
pub(super) struct Brix<'a, 'b, F> {
    pub(super) t: &'a Tables,
    pub(super) work: &'a mut Work<'b, F>,
    /// Whether the fitted curve is to be kept.
    pub(super) keep: bool,
}

impl<F> Brix<'_, '_, F> {
    #[inline(always)]
    fn pass<L: Lanes<F = F>>(&mut self, lanes: L, parameters: &[F; 4], r: &[[F; 4]; 4]) -> Equations<F, 4>
    where
        F: Numbers<Mask = L::M>,
    {
        let zero = lanes.splat(0.0);
        let [amplitude, kep, kel, onset] = *parameters;
        let (fast, slow) = (kep.max(kel), kep.min(kel));
        let apart = fast - slow;
        let swapped = kep.lt(kel);
        let scale = amplitude * kep;
        let mut e = Equations::new(zero);
        for i in 0..self.t.n {
            let since = self.t.times.at(lanes, i) - onset;
            let begun = since.gt(zero);
            let u = lanes.select(begun, since, zero);
            let (m0, m1) = moments(lanes, apart * u);
            let decay = (-(slow * u).min(lanes.splat(80.0))).exp();
            // s = (exp(-slow u) - exp(-fast u)) / (fast - slow), the same with the rates exchanged.
            let s = u * decay * m0;
            let square = u * u * decay;
            let by_fast = -(square * m1);
            let by_slow = -(square * (m0 - m1));
            let by_kep = lanes.select(swapped, by_slow, by_fast);
            let by_kel = lanes.select(swapped, by_fast, by_slow);
            let fitted = scale * s;
            let kel_decay = (-(kel * u).min(lanes.splat(80.0))).exp();
            let by_onset = lanes.select(begun, -(scale * (kel_decay - kep * s)), zero);
            let j = [kep * s, amplitude * (s + kep * by_kep), scale * by_kel, by_onset];
            let residual = self.work.y[i] - fitted;
            if self.keep {
                self.work.fitted[i] = fitted;
            }
            let mut q = [zero; 4];
            for a in 0..4 {
                let mut value = j[a];
                for b in 0..a {
                    value = value - q[b] * r[b][a];
                }
                q[a] = value / r[a][a];
            }
            e.sse = e.sse + residual * residual;
            for a in 0..4 {
                e.rhs[a] = e.rhs[a] + q[a] * residual;
                for b in a..4 {
                    e.gram[a][b] = e.gram[a][b] + q[a] * q[b];
                }
            }
        }
        e
    }
}

impl<L: Lanes> Problem<L, 4> for Brix<'_, '_, L::F> {
    const BENT: bool = false;

    #[inline(never)]
    fn equations(&mut self, lanes: L, parameters: &[L::F; 4], r: &[[L::F; 4]; 4]) -> Equations<L::F, 4> {
        lanes.within(
            #[inline(always)]
            || self.pass(lanes, parameters, r),
        )
    }

    #[inline(always)]
    fn variables(&self, lanes: L, parameters: &[L::F; 4]) -> Variables<L::F, 4> {
        let b = &self.t.bounds;
        let low = std::array::from_fn(|j| lanes.splat(b[j].0));
        let high = std::array::from_fn(|j| lanes.splat(b[j].1));
        Variables { at: *parameters, low, high }
    }

    #[inline(always)]
    fn moved(&self, lanes: L, parameters: &[L::F; 4], step: &[L::F; 4]) -> [L::F; 4] {
        let b = &self.t.bounds;
        let mut next = *parameters;
        for j in 0..4 {
            let (low, high) = (lanes.splat(b[j].0), lanes.splat(b[j].1));
            let tried = parameters[j] + step[j];
            let moved = tried.max(low).min(high);
            // A held onset stays where it is, also beyond the bounds of a fitted one.
            next[j] = lanes.select(step[j].abs().gt(lanes.splat(0.0)), moved, parameters[j]);
            if j < 2 {
                let far = parameters[j] * lanes.splat(10.0) + lanes.splat(0.01 * SCALES[j]);
                next[j] = next[j].max(parameters[j] * lanes.splat(0.1)).min(far);
            }
        }
        next
    }

    #[inline(always)]
    fn scales(&self) -> [f64; 4] {
        SCALES
    }
}

/// The best cell of an onset.
#[derive(Clone, Copy)]
struct Start<F> {
    gain: F,
    cell: F,
    scale: F,
    onset: F,
}

#[inline(never)]
fn search<L: Lanes>(
    lanes: L,
    t: &Tables,
    which: usize,
    open: L::M,
    work: &mut Work<'_, L::F>,
    list: &mut [Start<L::F>; CELLS],
) {
    lanes.within(
        #[inline(always)]
        || search_within(lanes, t, which, open, work, list),
    );
}

#[inline(always)]
fn search_within<L: Lanes>(
    lanes: L,
    t: &Tables,
    which: usize,
    open: L::M,
    work: &mut Work<'_, L::F>,
    list: &mut [Start<L::F>; CELLS],
) {
    let zero = lanes.splat(0.0);
    let dictionary = &t.dictionaries[which];
    let mut best = Start { gain: zero, cell: zero, scale: zero, onset: t.nodes.at(lanes, which) };
    for k in 0..RATES {
        let mut sum = zero;
        for i in 0..t.n {
            sum = sum + work.y[i] * dictionary.curves.at(lanes, k * t.n + i);
        }
        work.projections[k] = sum;
    }
    for cell in 0..t.cells.fast.len() {
        let projection = work.projections[t.cells.slow[cell]] - work.projections[t.cells.fast[cell]];
        let scale = (projection * dictionary.inverse_squares.at(lanes, cell)).min(t.cells.most.at(lanes, cell));
        let gain = scale * (projection + projection - scale * dictionary.squares.at(lanes, cell));
        let more = gain.gt(best.gain) & scale.gt(zero) & open;
        best.gain = lanes.select(more, gain, best.gain);
        best.cell = lanes.select(more, lanes.count(cell), best.cell);
        best.scale = lanes.select(more, scale, best.scale);
    }
    // The list is in the order of gains.
    for place in list {
        let more = best.gain.gt(place.gain);
        let displaced = choose(lanes, more, place, &best);
        *place = choose(lanes, more, &best, place);
        best = displaced;
    }
}

#[inline(always)]
fn choose<L: Lanes>(lanes: L, mask: L::M, a: &Start<L::F>, b: &Start<L::F>) -> Start<L::F> {
    Start {
        gain: lanes.select(mask, a.gain, b.gain),
        cell: lanes.select(mask, a.cell, b.cell),
        scale: lanes.select(mask, a.scale, b.scale),
        onset: lanes.select(mask, a.onset, b.onset),
    }
}

/// The fit; `given` where the onset isn't free.
#[inline(always)]
pub(super) fn fit<L: Lanes>(
    lanes: L,
    t: &Tables,
    given: L::F,
    free: L::M,
    squares: L::F,
    work: &mut Work<'_, L::F>,
) -> Refined<L::F, L::M, 4> {
    let zero = lanes.splat(0.0);
    let mut list = [Start { gain: zero, cell: zero, scale: zero, onset: given }; CELLS];
    for which in 0..t.dictionaries.len() {
        let node = t.nodes.at(lanes, which);
        let open = free | (node - given).abs().le(lanes.splat(t.reach));
        search(lanes, t, which, open, work, &mut list);
    }
    let held = [lanes.mask(false), lanes.mask(false), lanes.mask(false), !free];
    let damping = lanes.splat(DAMPING);
    let mut problem = Brix { t, work, keep: false };
    let first = start_of(lanes, t, &list[0], given, free);
    let mut chosen = refine(lanes, &mut problem, first, &held, squares, damping, lanes.mask(true), TURNS);
    for round in 1..STARTS {
        let mut wanted = free;
        let next = if round < 3 {
            let to = if round == 1 { -t.spacing } else { t.spacing };
            let mut next = chosen.parameters;
            let (low, high) = (lanes.splat(t.bounds[3].0), lanes.splat(t.bounds[3].1));
            next[3] = lanes.select(free, (next[3] + lanes.splat(to)).max(low).min(high), given);
            next
        } else {
            let start = &list[round - 2];
            wanted = free & start.gain.gt(zero) & chosen.sse.gt(lanes.splat(NOTHING_LEFT) * squares);
            start_of(lanes, t, start, given, free)
        };
        chosen = begin_anew(lanes, &mut problem, chosen, next, &held, squares, wanted);
    }
    chosen = go_on(lanes, &mut problem, chosen, &held, squares, CONTINUATIONS[0]);
    for number in 0..RESTARTS {
        let left = chosen.sse.gt(lanes.splat(NOTHING_LEFT) * squares);
        let (next, wanted, hold) = restart(lanes, t, number, &chosen.parameters, free);
        let held = if hold { [held[0], held[1], held[2], lanes.mask(true)] } else { held };
        chosen = begin_anew(lanes, &mut problem, chosen, next, &held, squares, wanted & left);
    }
    chosen = go_on(lanes, &mut problem, chosen, &held, squares, CONTINUATIONS[1]);
    // The larger rate is k_ep: the curve is the same.
    let [amplitude, kep, kel, _] = chosen.parameters;
    let swap = kep.lt(kel);
    let safe = lanes.select(swap, kel, lanes.splat(1.0));
    chosen.parameters[0] = lanes.select(swap, amplitude * kep / safe, amplitude);
    chosen.parameters[1] = kep.max(kel);
    chosen.parameters[2] = kep.min(kel);
    let swapped = refine(lanes, &mut problem, chosen.parameters, &held, squares, damping, swap, 2);
    merge(lanes, swap, &swapped, &chosen)
}

/// The parameters of a cell.
#[inline(always)]
fn start_of<L: Lanes>(lanes: L, t: &Tables, start: &Start<L::F>, given: L::F, free: L::M) -> [L::F; 4] {
    let amplitude = start.scale * lanes.lookup(&t.cells.amplitude, start.cell);
    [
        amplitude.max(lanes.splat(1e-6 * SCALES[0])),
        lanes.lookup(&t.cells.kep, start.cell).min(lanes.splat(t.bounds[1].1)),
        lanes.lookup(&t.cells.kel, start.cell).min(lanes.splat(t.bounds[2].1)),
        lanes.select(free, start.onset, given),
    ]
}

/// The lower of the best place and what a descent from elsewhere comes to.
#[inline(always)]
fn begin_anew<L: Lanes>(
    lanes: L,
    problem: &mut Brix<'_, '_, L::F>,
    chosen: Refined<L::F, L::M, 4>,
    start: [L::F; 4],
    held: &[L::M; 4],
    squares: L::F,
    wanted: L::M,
) -> Refined<L::F, L::M, 4> {
    if !wanted.any() {
        return chosen;
    }
    let refined = refine(lanes, problem, start, held, squares, lanes.splat(DAMPING), wanted, TURNS);
    let lower = merge(lanes, wanted & refined.sse.lt(chosen.sse), &refined, &chosen);
    Refined { turns: chosen.turns + lanes.select(wanted, refined.turns, lanes.splat(0.0)), ..lower }
}

/// On from the best place, where the descent there has not come to its end.
#[inline(always)]
fn go_on<L: Lanes>(
    lanes: L,
    problem: &mut Brix<'_, '_, L::F>,
    mut chosen: Refined<L::F, L::M, 4>,
    held: &[L::M; 4],
    squares: L::F,
    times: usize,
) -> Refined<L::F, L::M, 4> {
    for _ in 0..times {
        let wanted = !chosen.converged;
        if !wanted.any() {
            break;
        }
        let refined = refine(lanes, problem, chosen.parameters, held, squares, chosen.damping, wanted, TURNS);
        let turns = chosen.turns + lanes.select(wanted, refined.turns, lanes.splat(0.0));
        chosen = merge(lanes, wanted, &refined, &chosen);
        chosen.turns = turns;
    }
    chosen
}

/// A restart beside a place, for which voxels it is worth a descent, and whether that holds the onset. Where the rates are equal
/// the curve doesn't change with their difference at first, so that steps of Gauss and Newton creep towards it; where the onset is
/// a frame, the sum of squares has a kink, across which no step leads down.
#[inline(always)]
fn restart<L: Lanes>(lanes: L, t: &Tables, number: usize, place: &[L::F; 4], free: L::M) -> ([L::F; 4], L::M, bool) {
    let tiny = lanes.splat(1e-12);
    let [amplitude, kep, kel, onset] = *place;
    let (fast, slow) = (kep.max(kel), kep.min(kel));
    let scale = amplitude * kep;
    let mut next = *place;
    let wanted = match number {
        0 => {
            let rate = (fast * slow.max(lanes.splat(LEAST_RATIO) * fast)).sqrt().min(lanes.splat(t.bounds[2].1));
            (next[0], next[1], next[2]) = (scale / rate.max(tiny), rate, rate);
            fast.lt(lanes.splat(FAR_APART) * slow) | (fast * lanes.splat(t.times[t.n - 1])).lt(lanes.splat(HARDLY_BENT))
        }
        1 => {
            next[0] = lanes.splat(t.bounds[0].1);
            next[1] = scale / next[0];
            (fast * lanes.splat(t.times[t.n - 1])).lt(lanes.splat(HARDLY_BENT))
        }
        2 => free,
        _ => {
            let mut nearest = t.times.at(lanes, 0);
            for i in 1..t.n {
                let time = t.times.at(lanes, i);
                nearest = lanes.select((time - onset).abs().lt((nearest - onset).abs()), time, nearest);
            }
            next[3] = lanes.select(free, nearest, onset);
            free
        }
    };
    for j in 0..3 {
        next[j] = next[j].max(lanes.splat(t.bounds[j].0)).min(lanes.splat(t.bounds[j].1));
    }
    (next, wanted, number >= 2)
}

#[inline(always)]
fn merge<L: Lanes>(
    lanes: L,
    mask: L::M,
    a: &Refined<L::F, L::M, 4>,
    b: &Refined<L::F, L::M, 4>,
) -> Refined<L::F, L::M, 4> {
    let mut result = *b;
    for i in 0..4 {
        result.parameters[i] = lanes.select(mask, a.parameters[i], b.parameters[i]);
        for j in i..4 {
            result.r[i][j] = lanes.select(mask, a.r[i][j], b.r[i][j]);
        }
    }
    result.sse = lanes.select(mask, a.sse, b.sse);
    result.turns = lanes.select(mask, a.turns, b.turns);
    result.damping = lanes.select(mask, a.damping, b.damping);
    result.converged = (mask & a.converged) | (!mask & b.converged);
    result
}
