//! Where to begin once more when the descents from all starts are done: beside the best place so far, where descents from
//! the dictionary's pairs seldom come to.

use super::tables::Tables;
use crate::kernel::lanes::{Lanes, Numbers as _};

/// Other delays, in steps of those searched: every knot of the input function that a frame passes makes a valley of its own.
pub(super) const SHIFTS: [f64; 8] = [-1.0, -2.0, -3.0, -4.0, 1.0, 2.0, 4.0, 6.0];
/// A curve of about one exponential, whose second one has come to nothing, split anew: PS per plasma flow, and v_p's share of the
/// volume; and the delays that this is tried at.
pub(super) const SPLITS: [[f64; 2]; 4] = [[3.0, 0.1], [0.1, 0.9], [7.0, 0.05], [2.0, 0.95]];
pub(super) const SPLIT_SHIFTS: [f64; 3] = [0.0, 1.0, -1.0];
/// Plasma that passes at once, from which exchange fills the volume as the flow did: curves of one exponential as well, with
/// a later delay; and how much later.
pub(super) const EXCHANGED_SHIFTS: [f64; 4] = [0.0, 1.0, 2.0, 3.0];
/// The plasma flow then, as a share of its upper bound, and v_p's share of the volume.
pub(super) const EXCHANGED: [f64; 2] = [0.75, 0.02];

/// PS per plasma flow below and above which, and volumes below and above which, and v_e per v_p below which there is about one
/// exponential.
pub(super) const FLOWS: [f64; 2] = [0.01, 20.0];
pub(super) const VOLUMES: [f64; 2] = [1e-3, 0.99];
pub(super) const SMALLEST_SPACE: f64 = 0.01;
/// PS per plasma flow below which v_e has no part in the curve's volume.
pub(super) const SEPARATE: f64 = 0.02;

/// The first ones are shifts, where delays are the voxels' own; then come splits,
const fn first_split(own_delay: bool) -> usize {
    if own_delay { SHIFTS.len() } else { 0 }
}

/// and then, where delays are the voxels' own, exchange in the flow's place.
const fn first_exchanged(own_delay: bool) -> usize {
    first_split(own_delay) + SPLITS.len() * if own_delay { SPLIT_SHIFTS.len() } else { 1 }
}

/// All of them.
pub(super) const fn restarts(own_delay: bool) -> usize {
    first_exchanged(own_delay) + if own_delay { EXCHANGED_SHIFTS.len() } else { 0 }
}

/// One of them beside a place, and for which voxels it is worth a descent; those whose delay isn't free keep it, and are only
/// split.
#[inline(always)]
pub(super) fn restart<L: Lanes, const P: usize>(
    lanes: L,
    t: &Tables,
    number: usize,
    place: &[L::F; P],
    delay_free: L::M,
) -> ([L::F; P], L::M) {
    let [flow, exchange, plasma, space] = [place[0], place[1], place[2], place[3]];
    let mut start = *place;
    let mut wanted = delay_free;
    let alone = exchange.lt(lanes.splat(SEPARATE) * flow);
    let volume = lanes.select(alone, plasma, plasma + space);
    let (splits, exchanged) = (first_split(P == 5), first_exchanged(P == 5));
    let shift = if number < splits {
        SHIFTS[number]
    } else if number < exchanged {
        let number = number - splits;
        let [per_flow, share] = SPLITS[number % SPLITS.len()];
        start[1] = flow * lanes.splat(per_flow);
        start[2] = volume * lanes.splat(share);
        start[3] = volume * lanes.splat(1.0 - share);
        wanted = about_one_exponential(lanes, [flow, exchange, plasma, space])
            & (wanted | lanes.mask(number < SPLITS.len()));
        SPLIT_SHIFTS[number / SPLITS.len()]
    } else {
        start[0] = lanes.splat(EXCHANGED[0] * t.bounds[0].1);
        start[1] = flow;
        start[2] = volume * lanes.splat(EXCHANGED[1]);
        start[3] = volume;
        EXCHANGED_SHIFTS[number - exchanged]
    };
    for (value, (low, high)) in start.iter_mut().zip(t.bounds) {
        *value = value.max(lanes.splat(low)).min(lanes.splat(high));
    }
    if P == 5 {
        let (low, high) = t.delay.bounds;
        let delay = place[P - 1] + lanes.splat(shift * t.delay.reach);
        start[P - 1] = lanes.select(delay_free, delay.max(lanes.splat(low)).min(lanes.splat(high)), place[P - 1]);
    }
    (start, wanted)
}

/// Whether the second exponential has come to nothing, or nearly so.
#[inline(always)]
fn about_one_exponential<L: Lanes>(lanes: L, [flow, exchange, plasma, space]: [L::F; 4]) -> L::M {
    let [small, large] = VOLUMES.map(|volume| lanes.splat(volume));
    exchange.lt(lanes.splat(FLOWS[0]) * flow)
        | exchange.gt(lanes.splat(FLOWS[1]) * flow)
        | space.gt(large)
        | space.lt(small)
        | plasma.lt(small)
        | space.lt(lanes.splat(SMALLEST_SPACE) * plasma)
}
