//! Where to begin: the best pair of the dictionary's rates for an onset in each interval between frames.

use super::reference::{SCALES, Work};
use super::tables::{CELL_NUMBERS, RATES, Tables};
use crate::kernel::lanes::{Lanes, Masks as _, Numbers as _};

/// Intervals, the best ones, whose best cell is a start.
pub(super) const CELLS: usize = 6;

/// The best cell of an interval.
#[derive(Clone, Copy)]
pub(super) struct Start<F> {
    /// How much of the sum of squares it explains, 0 where there is none.
    pub(super) gain: F,
    cell: F,
    scale: F,
    pub(super) onset: F,
}

/// Fits every cell with an onset in one interval; `open` says for which voxels it is to be looked at. What is best joins the list;
/// where the onset isn't free, the best cells of slower rates that have no better neighbours.
#[inline(never)]
pub(super) fn search<L: Lanes>(
    lanes: L,
    t: &Tables,
    which: usize,
    (open, free): (L::M, L::M),
    work: &mut Work<'_, L::F>,
    list: &mut [Start<L::F>; CELLS],
) {
    lanes.within(
        #[inline(always)]
        || search_within(lanes, t, which, (open, free), work, list),
    );
}

#[inline(always)]
fn search_within<L: Lanes>(
    lanes: L,
    t: &Tables,
    which: usize,
    (open, free): (L::M, L::M),
    work: &mut Work<'_, L::F>,
    list: &mut [Start<L::F>; CELLS],
) {
    let zero = lanes.splat(0.0);
    let one = lanes.splat(1.0);
    let dictionary = &t.dictionaries[which];
    for k in 0..RATES {
        let mut sum = zero;
        for i in 0..t.n {
            sum = work.y[i].mul_add(dictionary.curves.at(lanes, k * t.n + i), sum);
        }
        work.projections[k] = sum;
    }
    // The ratio b / a stands in the onset's place as long as it is not needed.
    let blank = Start { onset: one, ..no_start(lanes, zero) };
    let (mut best, mut before, mut before_that) = (blank, blank, blank);
    let mut cell = 0;
    for slow in 0..RATES {
        let mut row = blank;
        for fast in slow + 1..RATES {
            let (gain, scale, ratio) = fit_cell(lanes, t, which, (slow, fast, cell), work);
            let more = gain.gt(row.gain) & scale.gt(zero) & open;
            row.gain = lanes.select(more, gain, row.gain);
            row.cell = lanes.select(more, lanes.count(cell), row.cell);
            row.scale = lanes.select(more, scale, row.scale);
            row.onset = lanes.select(more, ratio, row.onset);
            cell += 1;
        }
        best = choose(lanes, row.gain.gt(best.gain), &row, &best);
        let summit = before.gain.gt(before_that.gain) & before.gain.ge(row.gain) & !free;
        if summit.any() {
            insert(lanes, t, which, &choose(lanes, summit, &before, &blank), list);
        }
        (before_that, before) = (before, row);
    }
    insert(lanes, t, which, &choose(lanes, free, &best, &blank), list);
}

/// How much of the sum of squares a cell explains with an onset in an interval, its scale, and the ratio b / a.
#[inline(always)]
fn fit_cell<L: Lanes>(
    lanes: L,
    t: &Tables,
    which: usize,
    (slow, fast, cell): (usize, usize, usize),
    work: &Work<'_, L::F>,
) -> (L::F, L::F, L::F) {
    let zero = lanes.splat(0.0);
    let one = lanes.splat(1.0);
    let dictionary = &t.dictionaries[which];
    let (along_slow, along_fast) = (work.projections[slow], work.projections[fast]);
    let (squares_slow, squares_fast) = (dictionary.squares.at(lanes, slow), dictionary.squares.at(lanes, fast));
    let number = |k: usize| dictionary.cells.at(lanes, CELL_NUMBERS * cell + k);
    let (cross, inverse, largest) = (number(0), number(1), number(2));
    let most = t.cells.most.at(lanes, cell);
    // With the onset at either end of the interval,
    let along = along_slow - along_fast;
    let mut scale = (along * number(4)).max(zero).min(most);
    let mut gain = scale * (along + along - scale * number(3));
    let mut ratio = one;
    let along = along_slow - largest * along_fast;
    let at_end = (along * number(6)).max(zero).min(most);
    let gain_at_end = at_end * (along + along - at_end * number(5));
    let later = gain_at_end.gt(gain);
    gain = lanes.select(later, gain_at_end, gain);
    scale = lanes.select(later, at_end, scale);
    ratio = lanes.select(later, largest, ratio);
    // or between them.
    let a = (along_slow * squares_fast - along_fast * cross) * inverse;
    let b = (along_slow * cross - along_fast * squares_slow) * inverse;
    let between = a.gt(zero) & b.gt(a) & b.lt(largest * a);
    let inside = b / lanes.select(between, a, one);
    let a = a.min(most);
    let along = along_slow - inside * along_fast;
    let squares = squares_slow - inside * (cross + cross - inside * squares_fast);
    let gain_inside = a * (along + along - a * squares);
    let better = between & gain_inside.gt(gain);
    (lanes.select(better, gain_inside, gain), lanes.select(better, a, scale), lanes.select(better, inside, ratio))
}

/// Puts the best of an interval among the others, best first; the last one leaves.
#[inline(always)]
fn insert<L: Lanes>(lanes: L, t: &Tables, which: usize, best: &Start<L::F>, list: &mut [Start<L::F>; CELLS]) {
    // From the ratio to the onset, and to what the scale is there.
    let (kep, kel) = (lanes.lookup(&t.cells.kep, best.cell), lanes.lookup(&t.cells.kel, best.cell));
    let since = best.onset.ln() / (kep - kel);
    let onset = (t.starts.at(lanes, which) + since).min(t.ends.at(lanes, which));
    let mut next = Start { onset, scale: best.scale * (kel * since).exp(), ..*best };
    for place in list {
        let more = next.gain.gt(place.gain);
        let displaced = choose(lanes, more, place, &next);
        *place = choose(lanes, more, &next, place);
        next = displaced;
    }
}

/// No start.
#[inline(always)]
pub(super) fn no_start<L: Lanes>(lanes: L, onset: L::F) -> Start<L::F> {
    let zero = lanes.splat(0.0);
    Start { gain: zero, cell: zero, scale: zero, onset }
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

/// The parameters of a cell.
#[inline(always)]
pub(super) fn start_of<L: Lanes>(lanes: L, t: &Tables, start: &Start<L::F>, given: L::F, free: L::M) -> [L::F; 4] {
    let amplitude = start.scale * lanes.lookup(&t.cells.amplitude, start.cell);
    [
        amplitude.max(lanes.splat(1e-6 * SCALES[0])),
        lanes.lookup(&t.cells.kep, start.cell).min(lanes.splat(t.bounds[1].1)),
        lanes.lookup(&t.cells.kel, start.cell).min(lanes.splat(t.bounds[2].1)),
        lanes.select(free, start.onset, given),
    ]
}
