//! The fit of blocks of voxels: the best starts, refined.
//!
//! Voxels take different numbers of turns, by more than a factor of three. So a lane doesn't wait for the others: from one
//! start it goes on to the next, and from its voxel of one block to that of the next block.

#![expect(clippy::needless_range_loop, reason = "formulas of matrices and frames are read by their indices")]

use super::super::queue::{MOST_LANES, Place, given_or_free};
use super::super::refinement::{DAMPING, Descent, Problem, Refined, by_precision, lower, merge};
use super::memory::{Samples, Work, read};
use super::pass::Exchange;
use super::restarts::{restart, restarts};
use super::search::{PARTNERS, STARTS, Start, insert, partners, per_flow_of, search, starts, summits};
use super::tables::Tables;
use crate::kernel::Block;
use crate::kernel::lanes::{Lanes, Masks as _, Numbers as _};

/// Turns from each start.
pub(super) const TURNS: usize = 8;
/// How often the search goes on from the best place, each time by as many turns: with a delay that all voxels share, and with
/// one of their own, for which valleys have a kink at every knot.
pub(super) const CONTINUATIONS: usize = 6;
pub(super) const CONTINUATIONS_WITH_DELAY: usize = 24;

/// How often the search goes on.
pub(super) fn continuations(t: &Tables) -> usize {
    if t.delay.own { CONTINUATIONS_WITH_DELAY } else { CONTINUATIONS }
}

/// How many descents a voxel may take.
pub(super) fn descents(t: &Tables) -> usize {
    starts(t.delay.own) + restarts(t.delay.own) + 2 * continuations(t)
}

/// A sum of squares below this share of sum C^2, in 32 bits and in 64, leaves nothing to look for elsewhere.
pub(super) const PERFECT: (f64, f64) = (1e-11, 1e-20);
/// Where the best place so far leaves less than this share of sum C^2, every descent goes to its end: what is above nothing, or
/// close to it, says nothing.
pub(super) const NOTHING_LEFT: f64 = 1e-5;
/// After two, and after three or more turns a sum of squares so many times that of the best place so far won't become the
/// lowest,
pub(super) const FAR_ABOVE: [f64; 2] = [100.0, 20.0];
/// nor, where that place is the floor of its valley and voxels share their delay, so many times after four or more turns,
pub(super) const FAR_ABOVE_FLOOR: f64 = 5.0;
/// nor one that so many times what a step promises doesn't bring below that floor.
pub(super) const PROMISES: f64 = 4.0;
/// A step that promises less than this share of the sum of squares tells where the descent arrives, and how low that is,
pub(super) const NEAR: f64 = 1e-2;
/// and if no lower than this share below the best place so far,
pub(super) const NO_LOWER: f64 = 1e-6;
/// it is the best place to within this share of the parameters, or of these small values (F_p and PS in 1/s, v_p, v_e).
pub(super) const SAME: f64 = 1e-2;
pub(super) const SMALL: [f64; 4] = [1e-4, 1e-4, 1e-3, 1e-3];

/// A block of voxels in hand.
pub(super) struct Fit<'a, L: Lanes, const P: usize> {
    /// The samples: mM.
    pub(super) c: &'a mut [L::F],
    /// Where to begin, best first of its kind: how much it explains, 0 where there is nothing, and the parameters.
    starts: &'a mut [L::F],
    pub(super) samples: Samples<L::F>,
    pub(super) delay_free: L::M,
    wanted: L::M,
    /// What it comes to.
    pub(super) fitted: Refined<L::F, L::M, P>,
    /// Whether F_p, PS, v_p, v_e and E have values, and whether there is a curve of the model for them.
    pub(super) has: [L::M; 5],
    pub(super) has_curve: L::M,
}

impl<'a, L: Lanes, const P: usize> Fit<'a, L, P> {
    /// Reads a block and, unless the method is linear, looks for starts; `memory` is its own.
    #[inline(always)]
    pub(super) fn begin(
        lanes: L,
        t: &Tables,
        block: &Block<'_, L>,
        work: &mut Work<'_, L::F>,
        memory: &'a mut [L::F],
    ) -> Self {
        let zero = lanes.splat(0.0);
        let (c, starts) = memory.split_at_mut(t.n);
        let samples = read(lanes, t, &block.curve, work.c);
        c.copy_from_slice(work.c);
        let (mut given, mut delay_free) = (lanes.splat(t.fixed_delay), lanes.mask(false));
        if P == 5 {
            delay_free = lanes.mask(true);
            if t.delay.layer {
                (given, delay_free) = given_or_free(lanes, &block.curve);
            }
        }
        if t.linear.is_none() {
            find_starts::<L, P>(lanes, t, given, delay_free, work, starts);
        }
        let damping = lanes.splat(DAMPING);
        let fitted = Descent::new(lanes, [zero; P], damping, [1.0; P]).best;
        let always = lanes.mask(true);
        let wanted = block.wanted & block.curve.finite;
        Self { c, starts, samples, delay_free, wanted, fitted, has: [always; 5], has_curve: always }
    }
}

impl<L: Lanes, const P: usize> Fit<'_, L, P> {
    /// A start: how much it explains, and its parameters.
    #[inline(always)]
    fn start(&self, number: usize) -> (L::F, [L::F; P]) {
        let numbers = &self.starts[number * (P + 1)..][..P + 1];
        let mut parameters = [numbers[0]; P];
        parameters.copy_from_slice(&numbers[1..]);
        (numbers[0], parameters)
    }
}

/// Looks for starts; `given_delay` where it isn't free.
#[inline(always)]
fn find_starts<L: Lanes, const P: usize>(
    lanes: L,
    t: &Tables,
    given_delay: L::F,
    delay_free: L::M,
    work: &mut Work<'_, L::F>,
    found: &mut [L::F],
) {
    let zero = lanes.splat(0.0);
    for numbers in work.pairs.iter_mut().chain(&mut work.singles) {
        numbers.fill(zero);
    }
    let mut list = [Start::none(lanes); starts(true)];
    let list = &mut list[..starts(P == 5)];
    for which in 0..t.dictionaries.len() {
        let mut open = lanes.mask(true);
        if P == 5 {
            let node = lanes.splat(t.delay.nodes[which]);
            open = delay_free | (node - given_delay).abs().le(lanes.splat(t.delay.reach));
        }
        let mut top = search(lanes, t, which, open, work);
        if P == 5 {
            top.delay = lanes.select(delay_free, top.delay, given_delay);
            insert(lanes, &mut list[STARTS + PARTNERS..], top);
        }
    }
    for (start, [gain, pair]) in list.iter_mut().zip(summits(lanes, work)) {
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
    list[STARTS..STARTS + PARTNERS].copy_from_slice(&partners::<L, P>(lanes, t, given_delay, delay_free, work));
    for (from, to) in list.iter().zip(found.chunks_exact_mut(P + 1)) {
        let (exchange, plasma, space) = per_flow_of(lanes, from.fast, from.slow, from.share);
        let start = [from.flow, from.flow * exchange, from.flow * plasma, from.flow * space];
        to[0] = from.gain;
        for j in 0..4 {
            to[1 + j] = start[j].max(lanes.splat(t.bounds[j].0)).min(lanes.splat(t.bounds[j].1));
        }
        if P == 5 {
            to[P] = from.delay;
        }
    }
}

/// What a descent begins from.
#[derive(Clone, Copy)]
enum Kind {
    Start(usize),
    /// The best place so far, because the descent there has not come to its end; and the last descent of those that do the same.
    Continuation {
        last: usize,
    },
    /// Beside it.
    Restart(usize),
    /// There are no more.
    End,
}

/// A voxel's descents in their order.
#[inline(always)]
fn kind_of(descent: usize, t: &Tables) -> Kind {
    let (starts, continuations, restarts) = (starts(t.delay.own), continuations(t), restarts(t.delay.own));
    let after_starts = descent.wrapping_sub(starts);
    let after_continuations = after_starts.wrapping_sub(continuations);
    if descent < starts {
        Kind::Start(descent)
    } else if after_starts < continuations {
        Kind::Continuation { last: starts + continuations - 1 }
    } else if after_continuations < restarts {
        Kind::Restart(after_continuations)
    } else if after_continuations < restarts + continuations {
        Kind::Continuation { last: descents(t) - 1 }
    } else {
        Kind::End
    }
}

/// The lanes on their way through the voxels of blocks.
struct Queue<'a, 'b, L: Lanes, const P: usize> {
    t: &'a Tables,
    fits: &'a mut [Fit<'b, L, P>],
    places: [Place; MOST_LANES],
    /// Lanes that have a voxel.
    active: L::M,
    /// Lanes whose descents go on from the best place.
    continuing: L::M,
    descent: Descent<L, P>,
    /// The best of each lane's voxel so far, if it has been at the end of a descent.
    chosen: Refined<L::F, L::M, P>,
    begun: L::M,
    squares: L::F,
    held: [L::M; P],
}

/// Takes all blocks from their starts to the lowest places found.
#[inline(never)]
pub(super) fn descend<L: Lanes, const P: usize>(
    lanes: L,
    t: &Tables,
    fits: &mut [Fit<'_, L, P>],
    work: &mut Work<'_, L::F>,
) {
    lanes.within(
        #[inline(always)]
        || descend_within(lanes, t, fits, work),
    );
}

#[inline(always)]
fn descend_within<L: Lanes, const P: usize>(
    lanes: L,
    t: &Tables,
    fits: &mut [Fit<'_, L, P>],
    work: &mut Work<'_, L::F>,
) {
    let zero = lanes.splat(0.0);
    let mut problem = Exchange::<_, P> { t, work, keep: false };
    let scales = Problem::<L, P>::scales(&problem);
    let descent = Descent::new(lanes, [zero; P], lanes.splat(DAMPING), scales);
    let mut queue = Queue {
        t,
        fits,
        places: [Place::default(); MOST_LANES],
        active: lanes.mask(false),
        continuing: lanes.mask(false),
        chosen: descent.best,
        descent,
        begun: lanes.mask(false),
        squares: zero,
        held: [lanes.mask(false); P],
    };
    problem.work.c.fill(zero);
    queue.begin(lanes, lanes.bitmask(lanes.mask(true)), problem.work.c);
    while queue.active.any() {
        let settled = queue.descent.turn(lanes, &mut problem, &queue.held, queue.squares, queue.active);
        let ended =
            settled | (queue.descent.best.turns.ge(lanes.count(TURNS)) & queue.active) | queue.leads_nowhere(lanes);
        if ended.any() {
            queue.compare(lanes, ended);
            queue.begin(lanes, lanes.bitmask(ended), problem.work.c);
        }
    }
}

impl<L: Lanes, const P: usize> Queue<'_, '_, L, P> {
    /// Descents that need not go on: those far above the best place so far, and those whose next step leads to it.
    #[inline(always)]
    fn leads_nowhere(&self, lanes: L) -> L::M {
        let Descent { best, trial, promised, .. } = &self.descent;
        let chosen = &self.chosen;
        // With a delay of the voxel's own there may be two valleys close to each other.
        let settled = lanes.mask(P == 4) & chosen.converged;
        let mut far = lanes.mask(false);
        for (i, above) in FAR_ABOVE.into_iter().enumerate() {
            far = far | (best.turns.ge(lanes.count(2 + i)) & best.sse.gt(lanes.splat(above) * chosen.sse));
        }
        let above_floor = best.sse.gt(lanes.splat(FAR_ABOVE_FLOOR) * chosen.sse);
        far = far | (settled & best.turns.ge(lanes.count(4)) & above_floor);
        let promised = promised.abs();
        let floor = lanes.splat(1.0 - NO_LOWER) * chosen.sse;
        let steady = best.turns.ge(lanes.count(2)) & best.damping.le(lanes.splat(DAMPING));
        let beyond = (best.sse - lanes.splat(PROMISES) * promised).ge(floor);
        far = far | (settled & steady & best.turns.ge(lanes.count(3)) & beyond);
        let no_lower = (best.sse - promised).ge(floor);
        let mut arrives = lanes.mask(P == 4) & steady & no_lower & promised.le(lanes.splat(NEAR) * best.sse);
        for j in 0..4 {
            let off = (trial[j] - chosen.parameters[j]).abs();
            arrives = arrives & off.le(lanes.splat(SAME) * (chosen.parameters[j].abs() + lanes.splat(SMALL[j])));
        }
        let something_left = chosen.sse.gt(lanes.splat(NOTHING_LEFT) * self.squares);
        something_left & (far | arrives) & self.begun & self.active & !self.continuing
    }

    /// The lower of what descents have come to and what they had before.
    #[inline(always)]
    fn compare(&mut self, lanes: L, ended: L::M) {
        self.chosen = lower(lanes, ended, &self.descent.best, &self.chosen, self.begun, self.continuing);
        self.begun = self.begun | ended;
    }

    /// Takes these lanes to their next descents: all of them begin at once, each from its own place.
    #[inline(always)]
    fn begin(&mut self, lanes: L, which: u32, c: &mut [L::F]) {
        let mut begun = lanes.mask(false);
        let mut from = Next { start: self.chosen.parameters, damping: self.chosen.damping };
        for lane in 0..L::WIDTH {
            if which >> lane & 1 == 0 {
                continue;
            }
            let here = lanes.mask_of(1 << lane);
            let next = if (self.active & here).any() { self.go_on(lanes, lane, c) } else { self.enter(lanes, lane, c) };
            if let Some(next) = next {
                begun = begun | here;
                from.damping = lanes.select(here, next.damping, from.damping);
                for j in 0..P {
                    from.start[j] = lanes.select(here, next.start[j], from.start[j]);
                }
            }
        }
        self.descent.begin(lanes, begun, &from.start, from.damping);
    }

    /// A lane's next descent, or its next voxel's first one.
    #[inline(always)]
    fn go_on(&mut self, lanes: L, lane: usize, c: &mut [L::F]) -> Option<Next<L::F, P>> {
        let here = lanes.mask_of(1 << lane);
        let perfect = self.squares * by_precision(lanes, PERFECT);
        let unclear = self.chosen.sse.gt(perfect) & here;
        let converged = (self.chosen.converged & here).any();
        let fit = &mut self.fits[self.places[lane].block];
        self.continuing = self.continuing & !here;
        loop {
            let place = &mut self.places[lane];
            place.descent += 1;
            let kind = kind_of(place.descent, self.t);
            let (start, damping, wanted) = match kind {
                Kind::Start(number) => {
                    let (gain, start) = fit.start(number);
                    (start, lanes.splat(DAMPING), gain.gt(lanes.splat(0.0)) & unclear)
                }
                Kind::Continuation { last } if converged => {
                    place.descent = last;
                    continue;
                }
                Kind::Continuation { .. } => (self.chosen.parameters, self.chosen.damping, here),
                Kind::Restart(number) => {
                    let (start, wanted) = restart(lanes, self.t, number, &self.chosen.parameters, fit.delay_free);
                    (start, lanes.splat(DAMPING), wanted & unclear)
                }
                Kind::End => break,
            };
            if wanted.any() {
                if matches!(kind, Kind::Continuation { .. }) {
                    self.continuing = self.continuing | here;
                }
                return Some(Next { start, damping });
            }
        }
        fit.fitted = merge(lanes, here, &self.chosen, &fit.fitted);
        self.places[lane].block += 1;
        self.enter(lanes, lane, c)
    }

    /// Takes a lane to its next voxel that is wanted, this one if it is; without one, it is done.
    #[inline(always)]
    fn enter(&mut self, lanes: L, lane: usize, c: &mut [L::F]) -> Option<Next<L::F, P>> {
        let here = lanes.mask_of(1 << lane);
        let fits = &*self.fits;
        let next = self.places[lane].enter(
            fits.len(),
            #[inline(always)]
            |block| (fits[block].wanted & here).any(),
        );
        let Some(block) = next else {
            self.active = self.active & !here;
            return None;
        };
        let fit = &fits[block];
        for i in 0..self.t.n {
            c[i] = lanes.select(here, fit.c[i], c[i]);
        }
        self.squares = lanes.select(here, fit.samples.squares, self.squares);
        if P == 5 {
            self.held[P - 1] = (self.held[P - 1] & !here) | (!fit.delay_free & here);
        }
        self.begun = self.begun & !here;
        self.continuing = self.continuing & !here;
        self.active = self.active | here;
        let (_, start) = fit.start(0);
        Some(Next { start, damping: lanes.splat(DAMPING) })
    }
}

/// What a lane's next descent begins from, and its damping.
struct Next<F, const P: usize> {
    start: [F; P],
    damping: F,
}
