//! The fit of blocks of voxels: the best starts, refined, then from the intervals beside the best place, and what lies beside it.
//!
//! Voxels take different numbers of turns. So a lane doesn't wait for the others: from one descent it goes on to the next, and
//! from its voxel of one block to that of the next.

use super::super::queue::{MOST_LANES, Place, given_or_free};
use super::super::refinement::{DAMPING, Descent, Problem, Refined, lower, merge, refine};
use super::reference::{Brix, Samples, Work, read};
use super::search::{CELLS, no_start, search, start_of};
use super::tables::Tables;
use crate::kernel::Block;
use crate::kernel::lanes::{Lanes, Masks as _, Numbers as _};

/// Turns of each descent.
pub(super) const TURNS: usize = 8;
/// Descents from the best intervals, then with the onset in the interval before the best place's and in the one after.
pub(super) const STARTS: usize = CELLS + 2;
/// How often the search goes on from the best place, each time by as many turns: after the starts, and after the restarts.
pub(super) const CONTINUATIONS: [usize; 2] = [8, 24];
/// Restarts beside the best place: equal rates, the largest amplitude, no elimination, and the onset held where it is, then at
/// the nearest frame.
pub(super) const RESTARTS: usize = 5;
/// The first of those that hold the onset, and how many turns they take.
pub(super) const FIRST_HELD: usize = 3;
pub(super) const HELD_TURNS: usize = 24;
/// Where k_ep is more than so many times k_el, equal rates are far away; less than so often per duration, the curve is a line
/// that tells the product A k_ep only.
pub(super) const FAR_APART: f64 = 30.0;
pub(super) const HARDLY_BENT: f64 = 3.0;
/// Where the smaller rate is less than this per duration, there may be none: steps creep towards it.
pub(super) const HARDLY_FALLING: f64 = 1.0;
/// The least ratio of rates that count as equal when their mean is taken.
pub(super) const LEAST_RATIO: f64 = 0.1;
/// Where less than this share of sum y^2 is left, restarts have nothing to win.
pub(super) const NOTHING_LEFT: f64 = 1e-5;

/// A block of voxels in hand.
pub(super) struct Fit<'a, L: Lanes> {
    /// S / S_BL - 1.
    pub(super) y: &'a mut [L::F],
    pub(super) samples: Samples<L::F, L::M>,
    /// Whether the onset is fitted.
    pub(super) free: L::M,
    wanted: L::M,
    /// Where to begin, best first: how much it explains, and the parameters.
    starts: [(L::F, [L::F; 4]); CELLS],
    /// What it comes to.
    pub(super) fitted: Refined<L::F, L::M, 4>,
}

impl<'a, L: Lanes> Fit<'a, L> {
    /// Reads a block and looks for starts; `y` is its own memory.
    #[inline(always)]
    pub(super) fn begin(
        lanes: L,
        t: &Tables,
        block: &Block<'_, L>,
        work: &mut Work<'_, L::F>,
        y: &'a mut [L::F],
    ) -> Self {
        let samples = read(lanes, t, &block.curve, work.y);
        y.copy_from_slice(work.y);
        let (mut given, mut free) = (lanes.splat(t.onset.unwrap_or(0.0)), lanes.mask(t.onset.is_none()));
        if t.layer {
            (given, free) = given_or_free(lanes, &block.curve);
        }
        let mut list = [no_start(lanes, given); CELLS];
        let last = t.dictionaries.len() - 1;
        for which in 0..=last {
            let begun = lanes.mask(which == 0) | t.starts.at(lanes, which).le(given);
            let open = free | (begun & (lanes.mask(which == last) | given.lt(t.ends.at(lanes, which))));
            search(lanes, t, which, (open, free), work, &mut list);
        }
        let starts = list.map(|start| (start.gain, start_of(lanes, t, &start, given, free)));
        let fitted = Descent::new(lanes, starts[0].1, lanes.splat(DAMPING), [1.0; 4]).best;
        Self { y, samples, free, wanted: block.wanted & samples.positive, starts, fitted }
    }
}

/// What a descent begins from.
#[derive(Clone, Copy)]
enum Kind {
    Start(usize),
    /// The best place so far, its onset in the interval before or after.
    Neighbour {
        earlier: bool,
    },
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
fn kind_of(descent: usize) -> Kind {
    let after_starts = descent.wrapping_sub(STARTS);
    let after_continuations = after_starts.wrapping_sub(CONTINUATIONS[0]);
    if descent < CELLS {
        Kind::Start(descent)
    } else if descent < STARTS {
        Kind::Neighbour { earlier: descent == CELLS }
    } else if after_starts < CONTINUATIONS[0] {
        Kind::Continuation { last: STARTS + CONTINUATIONS[0] - 1 }
    } else if after_continuations < RESTARTS {
        Kind::Restart(after_continuations)
    } else if after_continuations < RESTARTS + CONTINUATIONS[1] {
        Kind::Continuation { last: STARTS + CONTINUATIONS[0] + RESTARTS + CONTINUATIONS[1] - 1 }
    } else {
        Kind::End
    }
}

/// What a lane's next descent begins from, its damping, how many turns it may take, and whether it holds the onset.
struct Next<F> {
    start: [F; 4],
    damping: F,
    turns: usize,
    holds: bool,
}

/// The lanes on their way through the voxels of blocks.
struct Queue<'a, 'b, L: Lanes> {
    t: &'a Tables,
    fits: &'a mut [Fit<'b, L>],
    places: [Place; MOST_LANES],
    /// Lanes that have a voxel.
    active: L::M,
    /// Lanes whose descents go on from the best place.
    continuing: L::M,
    descent: Descent<L, 4>,
    /// How many turns it may take.
    turns: L::F,
    held: [L::M; 4],
    /// The best of each lane's voxel so far, if it has been at the end of a descent.
    chosen: Refined<L::F, L::M, 4>,
    begun: L::M,
    squares: L::F,
    free: L::M,
}

/// Takes all blocks from their starts to the lowest places found.
#[inline(never)]
pub(super) fn descend<L: Lanes>(lanes: L, t: &Tables, fits: &mut [Fit<'_, L>], work: &mut Work<'_, L::F>) {
    lanes.within(
        #[inline(always)]
        || descend_within(lanes, t, fits, work),
    );
}

#[inline(always)]
fn descend_within<L: Lanes>(lanes: L, t: &Tables, fits: &mut [Fit<'_, L>], work: &mut Work<'_, L::F>) {
    let zero = lanes.splat(0.0);
    let never = lanes.mask(false);
    let mut problem = Brix { t, work, keep: false };
    let scales = Problem::<L, 4>::scales(&problem);
    let descent = Descent::new(lanes, [zero; 4], lanes.splat(DAMPING), scales);
    let mut queue = Queue {
        t,
        fits,
        places: [Place::default(); MOST_LANES],
        active: never,
        continuing: never,
        chosen: descent.best,
        descent,
        turns: zero,
        held: [never; 4],
        begun: never,
        squares: zero,
        free: never,
    };
    problem.work.y.fill(zero);
    queue.begin(lanes, lanes.bitmask(lanes.mask(true)), problem.work.y);
    while queue.active.any() {
        let settled = queue.descent.turn(lanes, &mut problem, &queue.held, queue.squares, queue.active);
        let ended = settled | (queue.descent.best.turns.ge(queue.turns) & queue.active);
        if ended.any() {
            queue.compare(lanes, ended);
            queue.begin(lanes, lanes.bitmask(ended), problem.work.y);
        }
    }
}

impl<L: Lanes> Queue<'_, '_, L> {
    /// The lower of what descents have come to and what they had before.
    #[inline(always)]
    fn compare(&mut self, lanes: L, ended: L::M) {
        self.chosen = lower(lanes, ended, &self.descent.best, &self.chosen, self.begun, self.continuing);
        self.begun = self.begun | ended;
    }

    /// Takes these lanes to their next descents: all of them begin at once, each from its own place.
    #[inline(always)]
    fn begin(&mut self, lanes: L, which: u32, y: &mut [L::F]) {
        let mut begun = lanes.mask(false);
        let (mut start, mut damping) = (self.chosen.parameters, self.chosen.damping);
        for lane in 0..L::WIDTH {
            if which >> lane & 1 == 0 {
                continue;
            }
            let here = lanes.mask_of(1 << lane);
            let next = if (self.active & here).any() { self.go_on(lanes, lane, y) } else { self.enter(lanes, lane, y) };
            let Some(next) = next else { continue };
            begun = begun | here;
            damping = lanes.select(here, next.damping, damping);
            for (start, next) in start.iter_mut().zip(next.start) {
                *start = lanes.select(here, next, *start);
            }
            self.turns = lanes.select(here, lanes.count(next.turns), self.turns);
            self.held[3] = (self.held[3] & !here) | (here & (lanes.mask(next.holds) | !self.free));
        }
        self.descent.begin(lanes, begun, &start, damping);
    }

    /// A lane's next descent, or its next voxel's first one.
    #[inline(always)]
    fn go_on(&mut self, lanes: L, lane: usize, y: &mut [L::F]) -> Option<Next<L::F>> {
        let t = self.t;
        let here = lanes.mask_of(1 << lane);
        let something_left = self.chosen.sse.gt(lanes.splat(NOTHING_LEFT) * self.squares) & here;
        let converged = (self.chosen.converged & here).any();
        let free = self.free & here;
        let place = self.chosen.parameters;
        self.continuing = self.continuing & !here;
        let fit = &mut self.fits[self.places[lane].block];
        loop {
            let at = &mut self.places[lane];
            at.descent += 1;
            let damping = lanes.splat(DAMPING);
            let mut next = Next { start: place, damping, turns: TURNS, holds: false };
            let wanted = match kind_of(at.descent) {
                Kind::Start(number) => {
                    let (gain, start) = fit.starts[number];
                    next.start = start;
                    something_left & gain.gt(lanes.splat(0.0))
                }
                Kind::Neighbour { earlier } => {
                    next.start[3] = beside(lanes, t, place[3], earlier);
                    free
                }
                Kind::Continuation { last } if converged => {
                    at.descent = last;
                    continue;
                }
                Kind::Continuation { .. } => {
                    next.damping = self.chosen.damping;
                    self.continuing = self.continuing | here;
                    return Some(next);
                }
                Kind::Restart(number) => {
                    let (start, wanted, holds) = restart(lanes, t, number, &place, free);
                    next.start = start;
                    next.holds = holds;
                    if holds {
                        next.turns = t.held_turns;
                    }
                    wanted & something_left
                }
                Kind::End => break,
            };
            if wanted.any() {
                return Some(next);
            }
        }
        fit.fitted = merge(lanes, here, &self.chosen, &fit.fitted);
        self.places[lane].block += 1;
        self.enter(lanes, lane, y)
    }

    /// Takes a lane to its next voxel that is wanted, this one if it is; without one, it is done.
    #[inline(always)]
    fn enter(&mut self, lanes: L, lane: usize, y: &mut [L::F]) -> Option<Next<L::F>> {
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
        for (to, from) in y.iter_mut().zip(fit.y.iter()) {
            *to = lanes.select(here, *from, *to);
        }
        self.squares = lanes.select(here, fit.samples.squares, self.squares);
        self.free = (self.free & !here) | (fit.free & here);
        self.begun = self.begun & !here;
        self.continuing = self.continuing & !here;
        self.active = self.active | here;
        Some(Next { start: fit.starts[0].1, damping: lanes.splat(DAMPING), turns: TURNS, holds: false })
    }
}

/// The larger rate is k_ep: the curve is the same. The block's samples are in working memory afterwards.
#[inline(always)]
pub(super) fn finish<L: Lanes>(
    lanes: L,
    t: &Tables,
    fit: &Fit<'_, L>,
    work: &mut Work<'_, L::F>,
) -> Refined<L::F, L::M, 4> {
    work.y.copy_from_slice(fit.y);
    let never = lanes.mask(false);
    let held = [never, never, never, !fit.free];
    let mut fitted = fit.fitted;
    let [amplitude, kep, kel, _] = fitted.parameters;
    let swap = kep.lt(kel);
    let safe = lanes.select(swap, kel, lanes.splat(1.0));
    fitted.parameters[0] = lanes.select(swap, amplitude * kep / safe, amplitude);
    fitted.parameters[1] = kep.max(kel);
    fitted.parameters[2] = kep.min(kel);
    if !swap.any() {
        return fitted;
    }
    let mut problem = Brix { t, work, keep: false };
    let damping = lanes.splat(DAMPING);
    let swapped = refine(lanes, &mut problem, fitted.parameters, &held, fit.samples.squares, damping, swap, 2);
    merge(lanes, swap, &swapped, &fitted)
}

/// The middle of the interval before an onset, or after it; the onset itself where there is none.
#[inline(always)]
fn beside<L: Lanes>(lanes: L, t: &Tables, onset: L::F, earlier: bool) -> L::F {
    let mut place = onset;
    for i in 0..t.dictionaries.len() {
        // The last one before, the first one after.
        let which = if earlier { i } else { t.dictionaries.len() - 1 - i };
        let (start, end) = (t.starts.at(lanes, which), t.ends.at(lanes, which));
        let there = if earlier { end.le(onset) } else { start.ge(onset) };
        place = lanes.select(there, lanes.splat(0.5) * (start + end), place);
    }
    place
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
        2 => {
            (next[0], next[1], next[2]) = (scale / fast.max(tiny), fast, lanes.splat(t.bounds[2].0));
            (slow * lanes.splat(t.times[t.n - 1])).lt(lanes.splat(HARDLY_FALLING))
        }
        3 => free,
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
    for (value, bounds) in next.iter_mut().zip(&t.bounds[..3]) {
        *value = value.max(lanes.splat(bounds.0)).min(lanes.splat(bounds.1));
    }
    (next, wanted, number >= FIRST_HELD)
}
