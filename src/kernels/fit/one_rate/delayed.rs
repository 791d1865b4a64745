//! The fit where each voxel has a delay of its own: the valleys between the dictionary's delays, gone down from both sides.
//!
//! Voxels take different numbers of turns, by more than a factor of ten. So a lane doesn't wait for the others: from one
//! descent it goes on to the next, and from its voxel of one block to that of the next.

use super::super::queue::{MOST_LANES, Place, given_or_free};
use super::reference::{Fit, NEGLIGIBLE, Samples, Work, drop, evaluate_point, no_valley, without_companion};
use super::search::{DelaySearch, RateSearch, RateStep};
use super::tables::{Companion, Tables};
use super::valleys::{Valley, choose, valleys};
use crate::kernel::Block;
use crate::kernel::lanes::{Lanes, Masks as _, Numbers as _};
use crate::kernels::fit::Model;

/// Most exact evaluations in each descent.
pub(super) const DELAYED_ITERATIONS: usize = 160;
/// The rate has followed the delay when its step would gain less than this share of what the delay's would.
const FOLLOWED: f64 = 0.01;
/// Evaluations per delay of the dictionary.
pub(super) const NODE_TURNS: usize = 4;
/// Where less than this share of sum C^2 is left, another rate has nothing to win.
const NOTHING_LEFT: f64 = 1e-5;
/// Where the best place is at a bound, or its rate shapes no curve, companion and delay may have taken the convolution's place:
/// the rates, per duration, to begin anew with, from both sides of the best delay.
pub(super) const RESTARTS: [f64; 3] = [0.01, 5.0, 20.0];
/// The descents from which on those are tried, and the branches; and the place after the last one.
pub(super) const FIRST_RESTART: usize = 8;
pub(super) const FIRST_BRANCH: usize = FIRST_RESTART + 2 * RESTARTS.len();
pub(super) const LAST_ROUND: usize = FIRST_BRANCH + 2 * BRANCHES;
/// Parts of the range of rates. Where the input function itself is the companion, either of it and the convolution with a fast rate
/// may stand for the other, at another delay; the deepest valley of a delay hides the one beside it. So the deepest one of each part,
/// over all delays, is gone down too.
pub(super) const BRANCHES: usize = 4;

/// Whether there are such branches.
pub(super) fn branched(t: &Tables) -> bool {
    t.companion == Companion::Input && t.model != Model::Patlak
}

/// How many descents a voxel may take.
pub(super) fn rounds(t: &Tables) -> usize {
    if branched(t) { LAST_ROUND } else { FIRST_BRANCH }
}

/// A block of voxels in hand.
pub(super) struct Pending<'a, L: Lanes> {
    /// The samples: mM.
    c: &'a mut [L::F],
    pub(super) samples: Samples<L::F>,
    delay_free: L::M,
    wanted: L::M,
    /// The deepest valley, another one if there is a rival, and those of the branches.
    starts: [Valley<L::F>; 2 + BRANCHES],
    rival: L::M,
    /// At the delays of both: the rate of another valley, 0 if there is none.
    others: [L::F; 2],
    /// What it comes to.
    place: Valley<L::F>,
    iterations: L::F,
}

impl<'a, L: Lanes> Pending<'a, L> {
    /// Looks for starts for the samples in working memory; `given` is the delay that isn't free. `c` is the block's own memory.
    #[inline(always)]
    pub(super) fn begin(
        lanes: L,
        t: &Tables,
        block: &Block<'_, L>,
        samples: Samples<L::F>,
        work: &mut Work<'_, L::F>,
        c: &'a mut [L::F],
    ) -> Self {
        let zero = lanes.splat(0.0);
        c.copy_from_slice(work.c);
        let (mut given, mut delay_free) = (zero, lanes.mask(true));
        if t.delay.layer {
            (given, delay_free) = given_or_free(lanes, &block.curve);
        }
        let (mut starts, others) = deepest(lanes, t, given, delay_free, samples.squares, work);
        for valley in &mut starts {
            valley.delay = lanes.select(delay_free, valley.delay, given);
        }
        let rival = starts[1].value.lt(no_valley(lanes, t).value);
        Self {
            c,
            samples,
            delay_free,
            wanted: block.wanted & block.curve.finite,
            starts,
            rival,
            others,
            place: starts[0],
            iterations: zero,
        }
    }

    /// The fit at the place that was found, whose samples and curve are in working memory afterwards.
    #[inline(always)]
    pub(super) fn fit(&self, lanes: L, t: &Tables, work: &mut Work<'_, L::F>) -> Fit<L::F, L::M> {
        work.c.copy_from_slice(self.c);
        let Valley { rate, delay, .. } = self.place;
        let side = DelaySearch::<L>::new(lanes, t, delay, lanes.mask(false)).side;
        let zero = lanes.splat(0.0);
        let point = evaluate_point::<L, true>(lanes, t, &t.dictionaries[0], rate, delay, side, zero, None, work);
        Fit::at(lanes, t, &self.place, self.delay_free, point, self.iterations, self.samples.squares)
    }
}

/// The two deepest valleys over the dictionary's delays, the deeper one first, then those of the branches; and at the first two, the
/// rate of another valley, 0 if there is none. Where the delay is given, what lies near it.
#[inline(always)]
fn deepest<L: Lanes>(
    lanes: L,
    t: &Tables,
    given: L::F,
    delay_free: L::M,
    squares: L::F,
    work: &mut Work<'_, L::F>,
) -> ([Valley<L::F>; 2 + BRANCHES], [L::F; 2]) {
    let zero = lanes.splat(0.0);
    let blank = no_valley(lanes, t);
    let far = blank.value;
    let (mut best, mut others) = ([blank; 2 + BRANCHES], [zero; 2]);
    let branch_from = |k: usize| t.rates.at(lanes, k * t.rates.len() / BRANCHES);
    // Between delays, the deepest valley of each is what counts; neighbours in delay are one valley.
    let (mut before, mut before_that, mut other_before) = (blank, blank, zero);
    for j in 0..=t.dictionaries.len() {
        let (mut here, mut other) = (blank, zero);
        if let Some(dictionary) = t.dictionaries.get(j) {
            let alone = without_companion(lanes, t, dictionary, work);
            let mut at_delay = [blank; 2];
            valleys(lanes, t, j, alone, work.c, work.values, &mut at_delay);
            other = lanes.select(at_delay[1].value.lt(far), at_delay[1].rate, zero);
            // Delays may differ by less than neighbouring rates do: some steps of the rate tell.
            for valley in &mut at_delay[..if branched(t) { 2 } else { 1 }] {
                let there = valley.value.lt(far);
                if !there.any() {
                    continue;
                }
                let mut rates = RateSearch::new(lanes, t);
                let mut rate = valley.rate;
                valley.value = far;
                for _ in 0..NODE_TURNS {
                    let p = evaluate_point::<L, false>(lanes, t, dictionary, rate, zero, zero, alone, None, work);
                    let better = p.sse.lt(valley.value) & there;
                    valley.value = lanes.select(better, p.sse, valley.value);
                    valley.rate = lanes.select(better, rate, valley.rate);
                    rate = rates.next(lanes, t, squares, rate, &p).rate;
                }
            }
            here = at_delay[0];
            let near = (here.delay - given).abs().le(lanes.splat(t.delay.reach));
            for valley in at_delay.iter().filter(|_| branched(t)) {
                for (k, branch) in best[2..].iter_mut().enumerate() {
                    let mut inside = valley.rate.ge(branch_from(k)) | lanes.mask(k == 0);
                    if k + 1 < BRANCHES {
                        inside = inside & valley.rate.lt(branch_from(k + 1));
                    }
                    let better = inside & valley.value.lt(branch.value) & (delay_free | near);
                    *branch = choose(lanes, better, valley, branch);
                }
            }
        }
        let node = lanes.splat(t.delay.nodes.get(j.max(1) - 1).copied().unwrap_or(0.0));
        let near = (node - given).abs().le(lanes.splat(t.delay.reach)) & lanes.mask(j > 0);
        let valley =
            (delay_free & before.value.le(here.value) & before.value.lt(before_that.value)) | (!delay_free & near);
        let first = valley & before.value.lt(best[0].value);
        let second = valley & !first & before.value.lt(best[1].value);
        best[1] = choose(lanes, first, &best[0], &choose(lanes, second, &before, &best[1]));
        best[0] = choose(lanes, first, &before, &best[0]);
        others[1] = lanes.select(first, others[0], lanes.select(second, other_before, others[1]));
        others[0] = lanes.select(first, other_before, others[0]);
        (before_that, before, other_before) = (before, here, other);
    }
    (best, others)
}

/// What a descent begins from: the number of the valley, or the best place so far; to which side of the delay it looks, and how
/// far from there it begins. The sum of squares has kinks between two delays of the dictionary, and may have a valley there that
/// is not seen from the deeper one of them.
struct Round {
    valley: Option<usize>,
    left: bool,
    aside: f64,
}

impl Round {
    #[inline(always)]
    fn number(t: &Tables, number: usize) -> Self {
        let (valley, left, aside) = match number {
            0 | 1 => (Some(0), number == 0, 0.0),
            2 => (Some(0), false, -t.delay.reach),
            3 => (Some(0), true, t.delay.reach),
            4 | 5 => (Some(1), number == 4, 0.0),
            6 | 7 => (None, number == 6, 0.0),
            FIRST_BRANCH.. => (Some(2 + (number - FIRST_BRANCH) / 2), number.is_multiple_of(2), 0.0),
            _ if number.is_multiple_of(2) => (None, false, -t.delay.reach),
            _ => (None, true, t.delay.reach),
        };
        Self { valley, left, aside }
    }
}

/// A descent's place, and where it has been.
struct Descent<L: Lanes> {
    rate: L::F,
    delay: L::F,
    rates: RateSearch<L>,
    delays: DelaySearch<L>,
    /// Where the sum of squares has a kink at its floor, the last step may lead away from it.
    lowest: Valley<L::F>,
    /// Whether that is at a bound, or of a rate that shapes no curve.
    degenerate: L::M,
    turns: L::F,
}

/// The lanes on their way through the voxels of blocks.
struct Queue<'a, 'b, L: Lanes> {
    t: &'a Tables,
    pending: &'a mut [Pending<'b, L>],
    places: [Place; MOST_LANES],
    /// Lanes that have a voxel.
    active: L::M,
    descent: Descent<L>,
    /// Of each lane's voxel.
    delay_free: L::M,
    squares: L::F,
    /// The best of it so far, and whether that is degenerate.
    chosen: Valley<L::F>,
    least: L::F,
    degenerate: L::M,
    /// At the best delay, the rate of another valley; 0 if there is none.
    other_rate: L::F,
    iterations: L::F,
}

/// Takes all blocks from their starts to the lowest places found.
#[inline(never)]
pub(super) fn descend<L: Lanes>(lanes: L, t: &Tables, pending: &mut [Pending<'_, L>], work: &mut Work<'_, L::F>) {
    lanes.within(
        #[inline(always)]
        || descend_within(lanes, t, pending, work),
    );
}

#[inline(always)]
fn descend_within<L: Lanes>(lanes: L, t: &Tables, pending: &mut [Pending<'_, L>], work: &mut Work<'_, L::F>) {
    let zero = lanes.splat(0.0);
    let never = lanes.mask(false);
    let blank = no_valley(lanes, t);
    let descent = Descent {
        rate: blank.rate,
        delay: zero,
        rates: RateSearch::new(lanes, t),
        delays: DelaySearch::new(lanes, t, zero, never),
        lowest: blank,
        degenerate: never,
        turns: zero,
    };
    let mut queue = Queue {
        t,
        pending,
        places: [Place::default(); MOST_LANES],
        active: never,
        descent,
        delay_free: never,
        squares: zero,
        chosen: blank,
        least: zero,
        degenerate: never,
        other_rate: zero,
        iterations: zero,
    };
    work.c.fill(zero);
    queue.begin(lanes, lanes.bitmask(lanes.mask(true)), work.c);
    while queue.active.any() {
        let ended = queue.turn(lanes, work);
        if ended.any() {
            queue.compare(lanes, ended);
            queue.begin(lanes, lanes.bitmask(ended), work.c);
        }
    }
}

impl<L: Lanes> Queue<'_, '_, L> {
    /// One exact evaluation and the step after it. Returns the lanes whose descents have ended.
    #[inline(always)]
    fn turn(&mut self, lanes: L, work: &mut Work<'_, L::F>) -> L::M {
        let t = self.t;
        let zero = lanes.splat(0.0);
        let one = lanes.splat(1.0);
        let tiny = lanes.splat(1e-30);
        let (lowest, highest) = (t.rates.at(lanes, 0), t.rates.at(lanes, t.rates.len() - 1));
        let negligible = lanes.splat(NEGLIGIBLE.1 * L::EPSILON * L::EPSILON) * self.squares;
        let d = &mut self.descent;
        let (rate, delay) = (d.rate, d.delay);
        let p = evaluate_point::<L, true>(lanes, t, &t.dictionaries[0], rate, delay, d.delays.side, zero, None, work);
        let lower = p.sse.lt(d.lowest.value);
        d.lowest = choose(lanes, lower, &Valley { value: p.sse, rate, delay, ..d.lowest }, &d.lowest);
        let free = p.solution.a_free & p.solution.b_free;
        let shapes = rate.gt(lanes.splat(t.shaping.0)) & rate.lt(lanes.splat(t.shaping.1));
        d.degenerate = (lower & !(free & shapes)) | (!lower & d.degenerate);
        d.turns = d.turns + one;

        let RateStep { rate: mut next_rate, small, stuck } = d.rates.next(lanes, t, self.squares, rate, &p);
        // The delay's slope tells only where the rate has followed: until then the rate moves alone.
        let level = p.delay_slope * p.delay_slope / p.delay_curvature.max(tiny);
        let flat = level.le(lanes.splat(NEGLIGIBLE.0) * p.sse + negligible);
        let follows = p.rate_by_delay.abs().gt(zero) & drop(lanes, &p).le(lanes.splat(FOLLOWED) * level);
        let followed = small | stuck | follows;
        let next_delay = d.delays.next(lanes, rate, delay, self.active & self.delay_free & followed, &p);
        let moves = (next_delay - delay).abs().gt(zero);
        let relative = d.delays.rate_by_delay * (next_delay - delay) / rate.max(tiny);
        let factor = one / (one - relative.max(lanes.splat(-1.0)).min(lanes.splat(0.5)));
        next_rate = lanes.select(moves, next_rate * factor, next_rate).max(lowest).min(highest);
        // Another delay has other slopes.
        d.rates.forget(lanes, t, moves, next_rate);
        d.rate = next_rate;
        d.delay = next_delay;
        let settled = (small | stuck) & (!self.delay_free | flat | d.delays.stuck);
        self.active & (settled | d.turns.ge(lanes.count(DELAYED_ITERATIONS)))
    }

    /// The lower of what descents have come to and what they had before.
    #[inline(always)]
    fn compare(&mut self, lanes: L, ended: L::M) {
        let Descent { lowest, degenerate, turns, .. } = &self.descent;
        let better = ended & lowest.value.lt(self.least);
        self.chosen = choose(lanes, better, lowest, &self.chosen);
        self.least = lanes.select(better, lowest.value, self.least);
        self.degenerate = (better & *degenerate) | (!better & self.degenerate);
        self.iterations = self.iterations + lanes.select(ended, *turns, lanes.splat(0.0));
        // The other valley's other rate, where that valley is the lower one.
        let mask = lanes.bitmask(better);
        for lane in 0..L::WIDTH {
            let Place { block, descent } = self.places[lane];
            if mask >> lane & 1 == 1 && Round::number(self.t, descent).valley == Some(1) {
                let here = lanes.mask_of(1 << lane);
                self.other_rate = lanes.select(here, self.pending[block].others[1], self.other_rate);
            }
        }
    }

    /// Takes these lanes to their next descents: all of them begin at once, each from its own place.
    #[inline(always)]
    fn begin(&mut self, lanes: L, which: u32, c: &mut [L::F]) {
        let mut begun = lanes.mask(false);
        let mut left = begun;
        let (mut rate, mut delay) = (self.descent.rate, self.descent.delay);
        for lane in 0..L::WIDTH {
            if which >> lane & 1 == 0 {
                continue;
            }
            let here = lanes.mask_of(1 << lane);
            let round =
                if (self.active & here).any() { self.go_on(lanes, lane, c) } else { self.enter(lanes, lane, c) };
            let Some(round) = round else { continue };
            begun = begun | here;
            let from = match round.valley {
                Some(number) => self.pending[self.places[lane].block].starts[number],
                None => Valley { rate: self.other_rate, ..self.chosen },
            };
            let (lower, upper) = (lanes.splat(self.t.delay.bounds.0), lanes.splat(self.t.delay.bounds.1));
            let moved = (from.delay + lanes.splat(round.aside)).max(lower).min(upper);
            let aside = self.delay_free & lanes.mask(round.aside != 0.0);
            rate = lanes.select(here, from.rate, rate);
            delay = lanes.select(here, lanes.select(aside, moved, from.delay), delay);
            left = left | (here & lanes.mask(round.left));
        }
        let d = &mut self.descent;
        (d.rate, d.delay) = (rate, delay);
        d.rates.begin(lanes, self.t, begun);
        d.delays.begin(lanes, self.t, begun, delay, left);
        d.lowest = choose(lanes, begun, &no_valley(lanes, self.t), &d.lowest);
        d.degenerate = d.degenerate & !begun;
        d.turns = lanes.select(begun, lanes.splat(0.0), d.turns);
    }

    /// A lane's next descent, or its next voxel's first one.
    #[inline(always)]
    fn go_on(&mut self, lanes: L, lane: usize, c: &mut [L::F]) -> Option<Round> {
        let zero = lanes.splat(0.0);
        let here = lanes.mask_of(1 << lane);
        let block = self.places[lane].block;
        let (free, rival) = (self.delay_free & here, self.pending[block].rival & here);
        let left_over = here & self.least.gt(lanes.splat(NOTHING_LEFT) * self.squares);
        loop {
            self.places[lane].descent += 1;
            let round = self.places[lane].descent;
            if round == rounds(self.t) {
                break;
            }
            if (FIRST_RESTART..FIRST_BRANCH).contains(&round) {
                let rate = lanes.splat(self.t.restarts[(round - FIRST_RESTART) / 2]);
                let rate = lanes.select(self.degenerate & free, rate, zero);
                self.other_rate = lanes.select(here, rate, self.other_rate);
            }
            let has_other = self.other_rate.gt(zero) & left_over;
            let needed = match round {
                1..=3 => free,
                4 => rival,
                5 => rival & free,
                6 => has_other,
                FIRST_BRANCH.. => {
                    let branch = &self.pending[block].starts[2 + (round - FIRST_BRANCH) / 2];
                    let there = branch.value.lt(no_valley(lanes, self.t).value) & left_over;
                    if round.is_multiple_of(2) { there } else { there & free }
                }
                _ => has_other & free,
            };
            if needed.any() {
                return Some(Round::number(self.t, round));
            }
        }
        let voxel = &mut self.pending[block];
        voxel.place = choose(lanes, here, &self.chosen, &voxel.place);
        voxel.iterations = lanes.select(here, self.iterations, voxel.iterations);
        self.places[lane].block += 1;
        self.enter(lanes, lane, c)
    }

    /// Takes a lane to its next voxel that is wanted, this one if it is; without one, it is done.
    #[inline(always)]
    fn enter(&mut self, lanes: L, lane: usize, c: &mut [L::F]) -> Option<Round> {
        let here = lanes.mask_of(1 << lane);
        let pending = &*self.pending;
        let next = self.places[lane].enter(
            pending.len(),
            #[inline(always)]
            |block| (pending[block].wanted & here).any(),
        );
        let Some(block) = next else {
            self.active = self.active & !here;
            return None;
        };
        let voxel = &pending[block];
        for (to, from) in c.iter_mut().zip(voxel.c.iter()) {
            *to = lanes.select(here, *from, *to);
        }
        self.squares = lanes.select(here, voxel.samples.squares, self.squares);
        self.delay_free = (self.delay_free & !here) | (voxel.delay_free & here);
        self.chosen = choose(lanes, here, &voxel.starts[0], &self.chosen);
        self.least = lanes.select(here, lanes.splat(f64::from(f32::MAX)), self.least);
        self.degenerate = self.degenerate & !here;
        self.other_rate = lanes.select(here, voxel.others[0], self.other_rate);
        self.iterations = lanes.select(here, lanes.splat(0.0), self.iterations);
        self.active = self.active | here;
        Some(Round::number(self.t, 0))
    }
}
