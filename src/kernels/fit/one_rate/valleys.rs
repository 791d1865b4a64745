//! Where the fit begins: the valleys of the sum of squares among the dictionary's rates.

use super::bounded_linear::{Normal, solve};
use super::tables::Tables;
use crate::kernel::lanes::{Lanes, Numbers as _, Table};

/// Logarithm of the ratio of the dictionary's rates.
const RATIO_LOGARITHM: f64 = 0.38;
/// Of a valley's depth below the dictionary's entry, what the polynomial may be off by.
const LEFT_OF_DEPTH: f64 = 0.05;

/// A valley of the dictionary.
#[derive(Clone, Copy)]
pub(super) struct Valley<F> {
    /// Minus the sum of squares that its best entry explains; between delays, the sum of squares expected at its floor.
    pub(super) value: F,
    /// How much deeper the floor may lie than the entry.
    pub(super) depth: F,
    pub(super) rate: F,
    pub(super) delay: F,
    /// Its place among the dictionary's rates.
    pub(super) place: F,
}

/// The two deepest valleys among the dictionary's rates, for one delay.
#[inline(never)]
pub(super) fn valleys<L: Lanes>(
    lanes: L,
    t: &Tables,
    which: usize,
    alone: L::F,
    samples: &[L::F],
    values: &mut [L::F],
    best: &mut [Valley<L::F>; 2],
) {
    lanes.within(
        #[inline(always)]
        || valleys_of(lanes, t, which, alone, samples, values, best),
    );
}

#[inline(always)]
fn valleys_of<L: Lanes>(
    lanes: L,
    t: &Tables,
    which: usize,
    alone: L::F,
    samples: &[L::F],
    values: &mut [L::F],
    best: &mut [Valley<L::F>; 2],
) {
    let zero = lanes.splat(0.0);
    let one = lanes.splat(1.0);
    let dictionary = &t.dictionaries[which];
    let delay = lanes.splat(t.delay.nodes.get(which).copied().unwrap_or(0.0));
    let far = lanes.splat(f64::from(f32::MAX) / 8.0);
    let xx = lanes.splat(dictionary.companion_squares);
    // The entry before, and the one before that.
    let (mut before, mut before_that) = (far, far);
    let (mut rate_before, mut share_before) = (zero, zero);
    let (mut along_before, mut along_before_that) = (zero, zero);
    let mut projections = [zero; 2];
    for k in 0..=t.rates.len() {
        let (mut value, mut rate, mut share, mut along) = (far, zero, zero, zero);
        if k < t.rates.len() {
            if k % 2 == 0 {
                // Two at once: the samples are loaded once for both.
                if k + 1 < t.rates.len() {
                    projections = project(lanes, t, &dictionary.vectors, k, samples);
                } else {
                    [projections[0]] = project(lanes, t, &dictionary.vectors, k, samples);
                }
            }
            let projection = projections[k % 2];
            let length = dictionary.length[k];
            rate = t.rates.at(lanes, k);
            let inverse = if length > 0.0 { 1.0 / length } else { 0.0 };
            let normal = Normal {
                rate,
                alone,
                best: projection * lanes.splat(inverse),
                overlap: dictionary.overlap.at(lanes, k),
                squares: lanes.splat(length * length),
                companion_squares: xx,
            };
            value = solve(lanes, t, &normal, true).excess - projection * projection;
            if let Some(kept) = values.get_mut(k) {
                *kept = value;
            }
            share = one;
            along = projection;
        }
        // Where all three entries are below a bound of 0, a narrow valley may lie between them.
        if k > 1 && k < t.rates.len() && t.bounds.flow.0 == 0.0 {
            let (below, above) = (t.log_steps[k - 2], t.log_steps[k - 1]);
            let (to_below, to_above) = (
                lanes.splat(1.0 / below) * (along_before_that - along_before),
                lanes.splat(1.0 / above) * (along - along_before),
            );
            let bend = -(to_below + to_above);
            let slope = lanes.splat(below) * to_above - lanes.splat(above) * to_below;
            let sum = lanes.splat(below + above);
            let peaks = along_before.lt(zero) & along.lt(along_before) & along_before_that.lt(along_before);
            // Parabola p + s x - c x^2 with s = slope / sum, c = bend / sum.
            let safe = lanes.select(peaks & bend.gt(zero), bend, one);
            let top = along_before + lanes.splat(0.25) * slope * slope / (safe * sum);
            let hidden = peaks & top.gt(zero);
            let shift = lanes.splat(0.5) * slope / safe;
            rate_before =
                lanes.select(hidden, rate_before * (one + shift * (one + lanes.splat(0.5) * shift)), rate_before);
            before = lanes.select(hidden, before - top * top, before);
        }
        // The entry before is a valley if neither neighbour lies lower.
        let valley = before.le(value) & before.lt(before_that) & share_before.gt(zero);
        let quarter = lanes.splat(0.25);
        let rise = lanes.select(value.lt(far), value - before, zero);
        let fall = lanes.select(before_that.lt(far), before_that - before, zero);
        let depth = quarter * (rise + fall);
        // The vertex of the parabola through the three, in the logarithm of the rate; none where the sum has a kink.
        if k > 1 && k < t.rates.len() && t.corner != t.rates[k - 1] {
            let (below, above) = (t.log_steps[k - 2], t.log_steps[k - 1]);
            let (to_below, to_above) = (lanes.splat(1.0 / below) * fall, lanes.splat(1.0 / above) * rise);
            let bend = to_below + to_above;
            let slope = lanes.splat(below) * to_above - lanes.splat(above) * to_below;
            let curved = bend.gt(zero) & valley;
            let shift = -(lanes.splat(0.5) * slope / lanes.select(curved, bend, one));
            let factor = one + shift * (one + lanes.splat(0.5) * shift);
            let near = curved & shift.abs().lt(lanes.splat(RATIO_LOGARITHM));
            rate_before = lanes.select(near, factor * rate_before, rate_before);
        }
        let first = valley & before.lt(best[0].value);
        let second = valley & !first & before.lt(best[1].value);
        let displaced = best[0];
        let place = lanes.count(k.max(1) - 1);
        best[1] = Valley {
            value: lanes.select(first, displaced.value, lanes.select(second, before, best[1].value)),
            depth: lanes.select(first, displaced.depth, lanes.select(second, depth, best[1].depth)),
            rate: lanes.select(first, displaced.rate, lanes.select(second, rate_before, best[1].rate)),
            delay: lanes.select(first, displaced.delay, lanes.select(second, delay, best[1].delay)),
            place: lanes.select(first, displaced.place, lanes.select(second, place, best[1].place)),
        };
        best[0] = Valley {
            value: lanes.select(first, before, best[0].value),
            depth: lanes.select(first, depth, best[0].depth),
            rate: lanes.select(first, rate_before, best[0].rate),
            delay: lanes.select(first, delay, best[0].delay),
            place: lanes.select(first, place, best[0].place),
        };
        (before_that, before) = (before, value);
        (rate_before, share_before) = (rate, share);
        (along_before_that, along_before) = (along_before, along);
    }
}

/// The samples along the vectors of neighbouring rates, from rate `k` on.
#[inline(always)]
fn project<L: Lanes, const N: usize>(lanes: L, t: &Tables, vectors: &Table, k: usize, samples: &[L::F]) -> [L::F; N] {
    let n = t.n;
    let samples = &samples[..n];
    let mut rows = [lanes.entries(vectors, 0..0); N];
    for (j, row) in rows.iter_mut().enumerate() {
        *row = lanes.entries(vectors, (k + j) * n..(k + j + 1) * n);
    }
    let (mut even, mut odd) = ([lanes.splat(0.0); N], [lanes.splat(0.0); N]);
    let mut i = 0;
    while i + 1 < n {
        for j in 0..N {
            even[j] = samples[i].mul_add(lanes.spread(rows[j][i]), even[j]);
            odd[j] = samples[i + 1].mul_add(lanes.spread(rows[j][i + 1]), odd[j]);
        }
        i += 2;
    }
    for j in 0..N {
        if i < n {
            even[j] = samples[i].mul_add(lanes.spread(rows[j][i]), even[j]);
        }
        even[j] = even[j] + odd[j];
    }
    even
}

/// The floor of a valley by the polynomial through five values, in the logarithm of the rate; where the bounds bend the
/// sum of squares, or rates are apart unevenly, the valley stays as it is.
#[inline(always)]
pub(super) fn floor<L: Lanes>(lanes: L, t: &Tables, values: &[L::F], valley: &Valley<L::F>) -> Valley<L::F> {
    let zero = lanes.splat(0.0);
    let one = lanes.splat(1.0);
    let last = lanes.count(t.rates.len() - 1);
    let inside = lanes.lookup(&t.even_steps, valley.place).gt(zero);
    let mut value = [zero; 5];
    for (off, value) in [-2.0, -1.0, 0.0, 1.0, 2.0].into_iter().zip(&mut value) {
        *value = lanes.gather(values, (valley.place + lanes.splat(off)).max(zero).min(last));
    }
    let [outer_before, before, v0, after, outer_after] = value;
    let near = (after - before, (after - v0) + (before - v0));
    let far = (outer_after - outer_before, (outer_after - v0) + (outer_before - v0));
    let c1 = lanes.splat(1.0 / 12.0) * (lanes.splat(8.0) * near.0 - far.0);
    let c2 = lanes.splat(1.0 / 24.0) * (lanes.splat(16.0) * near.1 - far.1);
    let c3 = lanes.splat(1.0 / 12.0) * (far.0 - near.0 - near.0);
    let c4 = lanes.splat(1.0 / 24.0) * (far.1 - lanes.splat(4.0) * near.1);
    let (two, three, four) = (lanes.splat(2.0), lanes.splat(3.0), lanes.splat(4.0));
    let curved = inside & c2.gt(zero) & v0.le(before) & v0.le(after) & v0.le(valley.value);
    let safe = lanes.select(curved, c2, one);
    let mut s = -(c1 / (safe + safe));
    for _ in 0..3 {
        let slope = c1 + s * (two * c2 + s * (three * c3 + s * (four * c4)));
        let bend = two * c2 + s * (two * three * c3 + s * (three * four * c4));
        s = s - slope / lanes.select(bend.gt(c2), bend, safe + safe);
    }
    let found = curved & s.abs().lt(lanes.splat(0.6));
    let x = s * lanes.splat(t.even_step);
    let half = lanes.splat(0.5);
    let growth = one + x * (one + half * x * (one + x * lanes.splat(1.0 / 3.0) * (one + lanes.splat(0.25) * x)));
    let deepest = v0 + s * (c1 + s * (c2 + s * (c3 + s * c4)));
    Valley {
        value: lanes.select(found, deepest, valley.value),
        depth: lanes.select(found, lanes.splat(LEFT_OF_DEPTH) * valley.depth, valley.depth),
        rate: lanes.select(found, growth * lanes.lookup(&t.rates, valley.place), valley.rate),
        ..*valley
    }
}

#[inline(always)]
pub(super) fn choose<L: Lanes>(lanes: L, mask: L::M, a: &Valley<L::F>, b: &Valley<L::F>) -> Valley<L::F> {
    Valley {
        value: lanes.select(mask, a.value, b.value),
        depth: lanes.select(mask, a.depth, b.depth),
        rate: lanes.select(mask, a.rate, b.rate),
        delay: lanes.select(mask, a.delay, b.delay),
        place: lanes.select(mask, a.place, b.place),
    }
}
