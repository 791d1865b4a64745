//! The fit of one block of voxels: the best starts, refined.

#![expect(clippy::needless_range_loop, reason = "formulas of matrices and frames are read by their indices")]

use super::super::refinement::{DAMPING, Refined, refine};
use super::memory::Work;
use super::pass::Exchange;
use super::search::{DELAYS, PARTNERS, STARTS, Start, insert, partners, per_flow_of, search, summits};
use super::tables::Tables;
use crate::kernel::lanes::{Lanes, Masks as _, Numbers as _};

/// Turns from each start.
pub(super) const TURNS: usize = 8;
/// How often the search goes on from the best place, each time by as many turns: with a delay that all voxels share, and with
/// one of their own, for which valleys have a kink at every knot.
const CONTINUATIONS: usize = 6;
const CONTINUATIONS_WITH_DELAY: usize = 24;

/// How often the search goes on.
pub(super) fn continuations(t: &Tables) -> usize {
    if t.delay.own { CONTINUATIONS_WITH_DELAY } else { CONTINUATIONS }
}
/// A sum of squares below this share of sum C^2, in 32 bits and in 64, leaves nothing to look for elsewhere.
const PERFECT: (f64, f64) = (1e-11, 1e-20);

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
    let mut starts = [Start::none(lanes); STARTS + PARTNERS + DELAYS];
    for which in 0..t.dictionaries.len() {
        let mut open = lanes.mask(true);
        if P == 5 {
            let node = lanes.splat(t.delay.nodes[which]);
            open = delay_free | (node - given_delay).abs().le(lanes.splat(t.delay.reach));
        }
        let mut top = search(lanes, t, which, open, work);
        if P == 5 {
            top.delay = lanes.select(delay_free, top.delay, given_delay);
            insert(lanes, &mut starts[STARTS + PARTNERS..], top);
        }
    }
    let mut held = [lanes.mask(false); P];
    if P == 5 {
        held[P - 1] = !delay_free;
    }
    let damping = lanes.splat(DAMPING);
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
    starts[STARTS..STARTS + PARTNERS].copy_from_slice(&partners::<L, P>(lanes, t, given_delay, delay_free, work));
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
    for _ in 0..continuations(t) {
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
