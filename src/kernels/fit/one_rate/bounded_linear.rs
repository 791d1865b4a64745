//! The linear part of a fit, at a given rate, within the bounds on the physical parameters: in closed form.

use super::tables::{Companion, Tables};
use crate::kernel::lanes::{Lanes, Masks as _, Numbers as _};
use crate::kernels::fit::Model;

/// Halvings that find the best point of a curved bound.
const HALVINGS: usize = 44;
/// The same while the dictionary is searched.
const COARSE_HALVINGS: usize = 16;

/// What the linear part depends on: C = a X + b B, X the companion, B the convolution, B' = B - h X orthogonal to X.
#[derive(Debug, Clone, Copy)]
pub(super) struct Normal<F> {
    /// The rate.
    pub(super) rate: F,
    /// Coefficient of X alone.
    pub(super) alone: F,
    /// Best coefficient of B without bounds.
    pub(super) best: F,
    /// h.
    pub(super) overlap: F,
    /// Sum of B'^2.
    pub(super) squares: F,
    /// Sum of X^2.
    pub(super) companion_squares: F,
}

/// The best coefficients within the bounds, and how the bounds that hold them move with the rate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Solution<F, M> {
    pub(super) a: F,
    pub(super) b: F,
    /// Sum of squares above that of the best coefficients without bounds.
    pub(super) excess: F,
    /// Whether a and b are free of bounds.
    pub(super) a_free: M,
    pub(super) b_free: M,
    /// Derivatives by the rate, of bounds that move with it.
    pub(super) a_moves: F,
    pub(super) b_moves: F,
}

/// Lowest and highest coefficient of the convolution that the bounds allow at this rate, and whether the latter moves
/// with the rate.
#[inline(always)]
pub(super) fn limits<L: Lanes>(lanes: L, t: &Tables, rate: L::F) -> (L::F, L::F, L::M, L::M) {
    let (flow, volume) = (t.bounds.flow, t.bounds.volume);
    if t.model == Model::Patlak {
        let never = lanes.mask(false);
        return (lanes.splat(flow.0), lanes.splat(flow.1), never, never);
    }
    let by_volume = (lanes.splat(volume.0) * rate, lanes.splat(volume.1) * rate);
    let lowest = lanes.splat(flow.0).max(by_volume.0);
    let highest = lanes.splat(flow.1).min(by_volume.1);
    (lowest, highest, by_volume.0.gt(lanes.splat(flow.0)), by_volume.1.lt(lanes.splat(flow.1)))
}

/// The best coefficients within the bounds.
#[inline(always)]
pub(super) fn solve<L: Lanes>(lanes: L, t: &Tables, n: &Normal<L::F>, coarse: bool) -> Solution<L::F, L::M> {
    if t.companion == Companion::Integral { uptake(lanes, t, n, coarse) } else { boxed(lanes, t, n) }
}

/// How much the sum of squares rises from the best coefficients to these.
#[inline(always)]
fn rise<L: Lanes>(n: &Normal<L::F>, a: L::F, b: L::F) -> L::F {
    let off = b - n.best;
    let along = a - (n.alone - n.overlap * b);
    n.squares * off * off + n.companion_squares * along * along
}

/// Bounds on either coefficient. A convex function has its minimum over a rectangle at its own minimum, or on a side that
/// the latter lies beyond, there at the best point of that side.
#[inline(always)]
fn boxed<L: Lanes>(lanes: L, t: &Tables, n: &Normal<L::F>) -> Solution<L::F, L::M> {
    let zero = lanes.splat(0.0);
    let one = lanes.splat(1.0);
    let (low, high, low_moves, high_moves) = limits(lanes, t, n.rate);
    let (mut a, mut b) = (zero, n.best.max(low).min(high));
    if t.companion != Companion::None {
        let (a_low, a_high) = (lanes.splat(t.bounds.companion.0), lanes.splat(t.bounds.companion.1));
        a = (n.alone - n.overlap * b).max(a_low).min(a_high);
        let first = rise::<L>(n, a, b);
        let best_a = n.alone - n.overlap * n.best;
        let other_a = best_a.max(a_low).min(a_high);
        let whole = n.squares + n.companion_squares * n.overlap * n.overlap;
        let shift = (best_a - other_a) * n.overlap * n.companion_squares / lanes.select(whole.gt(zero), whole, one);
        let other_b = (n.best + shift).max(low).min(high);
        let better = rise::<L>(n, other_a, other_b).lt(first);
        a = lanes.select(better, other_a, a);
        b = lanes.select(better, other_b, b);
        let a_free = a.gt(a_low) & a.lt(a_high);
        let at_low = b.le(low);
        let at_high = b.ge(high);
        return Solution {
            a,
            b,
            excess: rise::<L>(n, a, b),
            a_free,
            b_free: !(at_low | at_high),
            a_moves: zero,
            b_moves: moves(lanes, t, at_low & low_moves, at_high & high_moves),
        };
    }
    let (at_low, at_high) = (b.le(low), b.ge(high));
    let off = b - n.best;
    Solution {
        a,
        b,
        excess: n.squares * off * off,
        a_free: lanes.mask(true),
        b_free: !(at_low | at_high),
        a_moves: zero,
        b_moves: moves(lanes, t, at_low & low_moves, at_high & high_moves),
    }
}

/// The derivative by the rate of the bound that holds b.
#[inline(always)]
fn moves<L: Lanes>(lanes: L, t: &Tables, low: L::M, high: L::M) -> L::F {
    let zero = lanes.splat(0.0);
    lanes.select(high, lanes.splat(t.bounds.volume.1), lanes.select(low, lanes.splat(t.bounds.volume.0), zero))
}

/// The uptake model's bounds, on F_p = a + b, PS = a (a + b) / b and v_p = (a + b)^2 / (b rate). For a given a they leave b
/// an interval, and the least sum of squares in it is a convex function of a (partial minimisation over a convex set), so
/// halving finds its floor, by the sign of its slope. Along the bounds themselves there may be two floors.
#[inline(never)]
fn uptake<L: Lanes>(lanes: L, t: &Tables, n: &Normal<L::F>, coarse: bool) -> Solution<L::F, L::M> {
    lanes.within(
        #[inline(always)]
        || uptake_within(lanes, t, n, coarse),
    )
}

#[inline(always)]
fn uptake_within<L: Lanes>(lanes: L, t: &Tables, n: &Normal<L::F>, coarse: bool) -> Solution<L::F, L::M> {
    let zero = lanes.splat(0.0);
    let one = lanes.splat(1.0);
    let half = lanes.splat(0.5);
    let flow = lanes.splat(t.bounds.flow.1);
    let exchange = lanes.splat(t.bounds.companion.1);
    let volume = lanes.splat(t.bounds.volume.1);
    let reach = volume * n.rate;
    let tiny = lanes.splat(1e-30);
    let best_a = n.alone - n.overlap * n.best;
    let total = best_a + n.best;
    let inside = best_a.gt(zero)
        & n.best.gt(zero)
        & total.lt(flow)
        & (best_a * total).lt(exchange * n.best)
        & (total * total).lt(reach * n.best);
    // The side a = 0 is it where the slope by a doesn't fall inwards.
    let side = interval(lanes, n, zero, flow, exchange, reach);
    let on_side = !inside & side.slope.ge(zero);
    let mut a = lanes.select(inside, best_a, zero);
    let mut b = lanes.select(inside, n.best, side.b);
    let mut b_free = inside | (on_side & side.free);
    let mut a_moves = zero;
    let mut b_moves = lanes.select(on_side & side.by_volume, volume, zero);
    let outside = !inside & !on_side;
    if outside.any() {
        // a = scale z^4: it may be very small beside its bound.
        let scale = flow.min(exchange).min(lanes.splat(0.25) * reach);
        let (mut low, mut high) = (zero, one);
        for _ in 0..if coarse { COARSE_HALVINGS } else { HALVINGS } {
            let z = half * (low + high);
            let here = interval(lanes, n, scale * (z * z) * (z * z), flow, exchange, reach);
            let rising = here.empty | here.slope.gt(zero);
            high = lanes.select(rising, z, high);
            low = lanes.select(rising, low, z);
        }
        // The lower end: there the interval is never empty.
        let found_a = scale * (low * low) * (low * low);
        let here = interval(lanes, n, found_a, flow, exchange, reach);
        a = lanes.select(outside, found_a, a);
        b = lanes.select(outside, here.b, b);
        b_free = b_free | (outside & here.free);
        // Only the bound on v_p moves with the rate; where another one meets it, their meeting point moves.
        let near = lanes.splat((16.0 * L::EPSILON).max(1e-11));
        let f = here.b + found_a;
        let volume_holds = (f * f).ge((one - near) * reach * here.b);
        let flow_holds = f.ge((one - near) * flow);
        let exchange_holds = (found_a * f).ge((one - near) * exchange * here.b);
        let slower = one / n.rate.max(tiny);
        let bend = lanes.splat(2.0) * f - reach;
        let bend = lanes.select(bend.abs().gt(near * reach), bend, near * reach);
        let share = exchange / reach.max(tiny);
        let meeting_a = lanes.select(exchange_holds, exchange * share * slower, zero);
        let meeting_b = lanes.select(exchange_holds, volume * (one - share * share), volume * here.b / bend);
        let moving_a = lanes.select(flow_holds, here.b * slower, meeting_a);
        let moving_b = lanes.select(flow_holds, -(here.b * slower), meeting_b);
        a_moves = lanes.select(outside & volume_holds, moving_a, a_moves);
        b_moves = lanes.select(outside & volume_holds, moving_b, b_moves);
    }
    Solution { a, b, excess: rise::<L>(n, a, b), a_free: inside, b_free, a_moves, b_moves }
}

/// The best b for an a of the uptake model.
struct Interval<F, M> {
    b: F,
    /// Whether no b is allowed.
    empty: M,
    /// Whether no bound holds b; whether that on v_p does, from above.
    free: M,
    by_volume: M,
    /// Half the derivative of the least sum of squares by a.
    slope: F,
}

#[inline(always)]
fn interval<L: Lanes>(
    lanes: L,
    n: &Normal<L::F>,
    a: L::F,
    flow: L::F,
    exchange: L::F,
    reach: L::F,
) -> Interval<L::F, L::M> {
    let zero = lanes.splat(0.0);
    let one = lanes.splat(1.0);
    let two = lanes.splat(2.0);
    let half = lanes.splat(0.5);
    let tiny = lanes.splat(1e-30);
    // (a + b)^2 = reach b has two roots, whose product is a^2.
    let root = (reach * (reach - lanes.splat(4.0) * a)).max(zero).sqrt();
    let upper_root = half * ((reach - two * a) + root);
    let lower_root = a * a / upper_root.max(tiny);
    let rest = (exchange - a).max(tiny);
    let by_exchange = a * a / rest;
    let low = by_exchange.max(lower_root);
    let high = upper_root.min(flow - a);
    let whole = n.squares + n.companion_squares * n.overlap * n.overlap;
    let best_a = n.alone - n.overlap * n.best;
    let pull = (best_a - a) * n.overlap * n.companion_squares / lanes.select(whole.gt(zero), whole, one);
    let b = (n.best + pull).max(low).min(high);
    let (at_low, at_high) = (b.le(low), b.ge(high));
    let turn = reach - two * (a + b);
    let turn = lanes.select(turn.abs().gt(tiny), turn, tiny);
    let by_root = two * (a + b) / turn;
    let volume_from_below = lower_root.gt(by_exchange);
    let volume_from_above = upper_root.lt(flow - a);
    let low_moves = lanes.select(volume_from_below, by_root, a * (two * exchange - a) / (rest * rest));
    let high_moves = lanes.select(volume_from_above, by_root, -one);
    let moves = lanes.select(at_high, high_moves, lanes.select(at_low, low_moves, zero));
    let by_a = n.companion_squares * (a - (n.alone - n.overlap * b));
    let by_b = n.squares * (b - n.best) + n.overlap * by_a;
    Interval {
        b,
        empty: low.gt(high),
        free: !(at_low | at_high),
        by_volume: at_high & volume_from_above,
        slope: by_a + moves * by_b,
    }
}
