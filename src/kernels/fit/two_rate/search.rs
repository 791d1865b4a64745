//! Where to begin: the best pairs of the dictionary's rates, and what the best single rate lacks.

use super::memory::Work;
use super::tables::{ALL_RATES, Tables};
use crate::kernel::lanes::{Lanes, Masks as _, Numbers as _};

/// Valleys that the fit goes down: the best of those that the pairs of rates show.
pub(super) const STARTS: usize = 3;
/// Second exponentials that are tried beside the best single one.
pub(super) const PARTNERS: usize = 3;
/// Delays, the best ones, whose best pair is tried as well where the delay is a voxel's own: what the pairs explain has one
/// broad summit over the delay, and the valleys lie close within it.
pub(super) const DELAYS: usize = 16;

/// All of them.
pub(super) const fn starts(own_delay: bool) -> usize {
    STARTS + PARTNERS + if own_delay { DELAYS } else { 0 }
}

/// As the pairs' farthest ratio, for the partners.
const FARTHEST_PARTNER: f64 = 1e5;

/// Fits every pair of rates for one delay; `open` says for which voxels that delay is to be looked at. Gives the best pair of
/// this delay where the delay is a voxel's own.
#[inline(never)]
pub(super) fn search<L: Lanes>(
    lanes: L,
    t: &Tables,
    which: usize,
    open: L::M,
    work: &mut Work<'_, L::F>,
) -> Start<L::F> {
    lanes.within(
        #[inline(always)]
        || search_within(lanes, t, which, open, work),
    )
}

#[inline(always)]
fn search_within<L: Lanes>(lanes: L, t: &Tables, which: usize, open: L::M, work: &mut Work<'_, L::F>) -> Start<L::F> {
    let zero = lanes.splat(0.0);
    let one = lanes.splat(1.0);
    let mut top = Start::none(lanes);
    let d = &t.dictionaries[which];
    let delay = lanes.splat(t.delay.nodes.get(which).copied().unwrap_or(0.0));
    for k in 0..t.rates.len() {
        let (mut even, mut odd) = (zero, zero);
        let at = (which * t.rates.len() + k) * t.n;
        for i in 0..t.n / 2 {
            even = work.c[2 * i].mul_add(t.curves.at(lanes, at + 2 * i), even);
            odd = work.c[2 * i + 1].mul_add(t.curves.at(lanes, at + 2 * i + 1), odd);
        }
        if t.n % 2 == 1 {
            even = work.c[t.n - 1].mul_add(t.curves.at(lanes, at + t.n - 1), even);
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
            let squares = squares.max(lanes.splat(1e-30));
            let (exchange, plasma, space) =
                per_flow_of(lanes, t.pairs.fast.at(lanes, pair), t.pairs.slow.at(lanes, pair), share);
            let least = per_flow.max(exchange * per_exchange).max(plasma * per_plasma).max(space * per_space);
            // The best flow, or the largest one.
            let within = (along * least).lt(squares);
            let flow = lanes.select(within, along, one) / lanes.select(within, squares, least);
            let gain = flow * (along + along - flow * squares);
            let better = gain.gt(gains[pair]) & flow.gt(zero) & open;
            gains[pair] = lanes.select(better, gain, gains[pair]);
            flows[pair] = lanes.select(better, flow, flows[pair]);
            shares[pair] = lanes.select(better, share, shares[pair]);
            delays[pair] = lanes.select(better, delay, delays[pair]);
            if t.delay.own {
                let (fast, slow) = (t.pairs.fast.at(lanes, pair), t.pairs.slow.at(lanes, pair));
                let next = Start { gain, flow, fast, slow, share, delay };
                top = choose(lanes, gain.gt(top.gain) & flow.gt(zero) & open, &next, &top);
            }
            pair += 1;
        }
    }
    top
}

/// PS, v_p and v_e per plasma flow, from H(0), H'(0) and the product of the rates; `share` is the faster exponential's.
#[inline(always)]
pub(super) fn per_flow_of<L: Lanes>(lanes: L, fast: L::F, slow: L::F, share: L::F) -> (L::F, L::F, L::F) {
    let rest = lanes.splat(1.0) - share;
    let product = fast * slow;
    let start = share * fast + rest * slow;
    let inverse = lanes.splat(1.0) / (start * product);
    let plasma = product * inverse;
    let space = ((share * slow + rest * fast) * start * inverse - plasma).max(lanes.splat(0.0));
    (product * plasma * space, plasma, space)
}

/// The highest places among the pairs, best first: their gains and numbers.
#[inline(never)]
pub(super) fn summits<L: Lanes>(lanes: L, work: &Work<'_, L::F>) -> [[L::F; 2]; STARTS] {
    lanes.within(
        #[inline(always)]
        || summits_within(lanes, work),
    )
}

#[inline(always)]
fn summits_within<L: Lanes>(lanes: L, work: &Work<'_, L::F>) -> [[L::F; 2]; STARTS] {
    let zero = lanes.splat(0.0);
    let gains = &*work.pairs[0];
    let mut best = [[zero; 2]; STARTS];
    // Of the row before, of this one, and of the one after it.
    let (mut before, mut here, mut after) = ([zero; ALL_RATES], [zero; ALL_RATES], [zero; ALL_RATES]);
    highest_of_three(lanes, &gains[..ALL_RATES - 1], &mut here);
    let mut pair = 0;
    for slow in 0..ALL_RATES {
        let (row, rest) = gains[pair..].split_at(ALL_RATES - 1 - slow);
        highest_of_three(lanes, &rest[..row.len().saturating_sub(1)], &mut after);
        for i in 0..row.len() {
            let gain = row[i];
            let (mut earlier, mut later) = (before[slow + 1 + i], after[slow + 1 + i]);
            if i > 0 {
                earlier = earlier.max(row[i - 1]);
            }
            if i + 1 < row.len() {
                later = later.max(row[i + 1]);
            }
            // Of neighbours that are as high the first one counts.
            let summit = gain.gt(earlier) & gain.ge(later) & gain.gt(zero);
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
        (before, here) = (here, after);
    }
    best
}

/// Of a row of the pairs' gains, which ends with the fastest rate, the largest one of three neighbours, by the middle one's rate;
/// 0 stands where there is no pair.
#[inline(always)]
fn highest_of_three<L: Lanes>(lanes: L, row: &[L::F], highest: &mut [L::F; ALL_RATES]) {
    let mut padded = [lanes.splat(0.0); ALL_RATES + 2];
    padded[ALL_RATES + 1 - row.len()..=ALL_RATES].copy_from_slice(row);
    for fast in 0..ALL_RATES {
        highest[fast] = padded[fast].max(padded[fast + 1]).max(padded[fast + 2]);
    }
}

/// Two exponentials to start from.
#[derive(Clone, Copy)]
pub(super) struct Start<F> {
    /// 0 where there is nothing to start from.
    pub(super) gain: F,
    pub(super) flow: F,
    pub(super) fast: F,
    pub(super) slow: F,
    /// The faster exponential's share of the flow.
    pub(super) share: F,
    pub(super) delay: F,
}

impl<F: Copy> Start<F> {
    #[inline(always)]
    pub(super) fn none<L: Lanes<F = F>>(lanes: L) -> Self {
        let (zero, one) = (lanes.splat(0.0), lanes.splat(1.0));
        Self { gain: zero, flow: zero, fast: one, slow: one, share: zero, delay: zero }
    }
}

/// Second exponentials beside the best single one, best first: curves of nearly one exponential have valleys that run along
/// it, narrower than the pairs are apart.
#[inline(never)]
pub(super) fn partners<L: Lanes, const P: usize>(
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
        squares = work.single[i].mul_add(work.single[i], squares);
        mixed = work.single[i].mul_add(work.single_by_rate[i], mixed);
    }
    let length = squares.sqrt().max(tiny);
    let (inverse, coefficient) = (one / length, mixed / squares.max(tiny));
    let (mut beside, mut flow) = (zero, zero);
    for i in 0..t.n {
        let off = work.single_by_rate[i] - coefficient * work.single[i];
        beside = off.mul_add(off, beside);
        work.single_by_rate[i] = off;
        work.single[i] = work.single[i] * inverse;
        flow = work.single[i].mul_add(work.c[i], flow);
    }
    let inverse_beside = one / beside.sqrt().max(tiny);
    let mut bent = zero;
    for i in 0..t.n {
        work.single_by_rate[i] = work.single_by_rate[i] * inverse_beside;
        bent = work.single_by_rate[i].mul_add(work.c[i], bent);
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
            along = work.fitted[i].mul_add(curve, along);
            first = work.single[i].mul_add(curve, first);
            second = work.single_by_rate[i].mul_add(curve, second);
        }
        let left = curve_squares - (first * first + second * second);
        let apart = left.gt(curve_squares * lanes.splat(1e-6)) & along.gt(zero);
        let amplitude = lanes.select(apart, along / left.max(tiny), zero);
        work.partners[0][k] = amplitude * along;
        work.partners[1][k] = amplitude;
        // What the single one then has.
        work.projections[k] = (alone - amplitude * first * inverse).max(zero);
    }
    let mut best = [Start::none(lanes); PARTNERS];
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
        insert(lanes, &mut best, next);
    }
    best
}

/// Puts a start among the others, best first; the last one leaves.
#[inline(always)]
pub(super) fn insert<L: Lanes>(lanes: L, list: &mut [Start<L::F>], mut next: Start<L::F>) {
    for place in list {
        let higher = next.gain.gt(place.gain);
        let before = *place;
        *place = choose(lanes, higher, &next, &before);
        next = choose(lanes, higher, &before, &next);
    }
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
