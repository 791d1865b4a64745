//! The linear part of a fit, at a given rate, within the bounds on the physical parameters: in closed form.

use super::tables::{Companion, Tables};
use crate::kernel::lanes::{Lanes, Masks as _, Numbers as _};
use crate::kernels::fit::Model;

/// Halvings that find the best point of a curved bound.
const HALVINGS: usize = 44;
/// The same while the dictionary is searched.
const COARSE_HALVINGS: usize = 12;

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

/// The uptake model's bounds: a = E F and b = (1 - E) F with E from 0 to 1 and F up to the lowest of the highest flow, PS_max
/// (1 - E) / E and v_max (1 - E) rate. That region is convex, so its best point is the minimum itself, or lies on the side
/// E = 0, or where the slope along the outer bound changes its sign.
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
    let flow = lanes.splat(t.bounds.flow.1);
    let exchange = lanes.splat(t.bounds.companion.1);
    let reach = lanes.splat(t.bounds.volume.1) * n.rate;
    let tiny = lanes.splat(1e-30);
    let best_a = n.alone - n.overlap * n.best;
    let total = best_a + n.best;
    let inside = best_a.gt(zero)
        & n.best.gt(zero)
        & total.lt(flow)
        & (best_a * total).lt(exchange * n.best)
        & (total * total).lt(reach * n.best);
    // On the side a = 0: the slope by a must not point inwards.
    let whole = n.squares + n.companion_squares * n.overlap * n.overlap;
    let along = n.best + best_a * n.overlap * n.companion_squares / lanes.select(whole.gt(zero), whole, one);
    let top = flow.min(reach);
    let side_b = along.max(zero).min(top);
    let side_slope = n.companion_squares * (n.overlap * side_b - n.alone);
    let on_side = !inside & side_slope.ge(zero) & (side_b.lt(top) | top.le(zero));
    let mut a = lanes.select(inside, best_a, zero);
    let mut b = lanes.select(inside, n.best, side_b);
    let mut a_moves = zero;
    let mut b_moves = zero;
    let outside = !inside & !on_side;
    if outside.any() {
        let (mut low, mut high) = (zero, one);
        for _ in 0..if coarse { COARSE_HALVINGS } else { HALVINGS } {
            let e = lanes.splat(0.5) * (low + high);
            let rest = one - e;
            let by_exchange = exchange * rest / e;
            let by_volume = reach * rest;
            let f = flow.min(by_exchange).min(by_volume);
            // The derivative of F by E along the bound that is lowest.
            let f_moves =
                lanes.select(f.ge(flow), zero, lanes.select(by_exchange.lt(by_volume), -(exchange / (e * e)), -reach));
            let (a, b) = (e * f, rest * f);
            let (da, db) = (f + e * f_moves, rest * f_moves - f);
            let off = a - (n.alone - n.overlap * b);
            let by_a = n.companion_squares * off;
            let by_b = n.squares * (b - n.best) + n.overlap * by_a;
            let rising = (by_a * da + by_b * db).gt(zero);
            high = lanes.select(rising, e, high);
            low = lanes.select(rising, low, e);
        }
        let e = lanes.splat(0.5) * (low + high);
        let rest = one - e;
        let by_exchange = exchange * rest / e.max(tiny);
        let by_volume = reach * rest;
        let f = flow.min(by_exchange).min(by_volume);
        a = lanes.select(outside, e * f, a);
        b = lanes.select(outside, rest * f, b);
        // Only the bound on v_p moves with the rate. Where another one holds as well, their meeting point moves.
        let near = lanes.splat(1e-5);
        let volume_holds = by_volume.le((one + near) * flow.min(by_exchange));
        let flow_holds = flow.le((one + near) * by_volume) & flow.le(by_exchange);
        let exchange_holds = by_exchange.le((one + near) * by_volume) & by_exchange.lt(flow);
        let slower = one / n.rate.max(tiny);
        let moving_a = lanes.select(flow_holds, b, lanes.select(exchange_holds, reach * e * e, a)) * slower;
        let moving_b = lanes.select(flow_holds, -b, lanes.select(exchange_holds, reach * rest * (one + e), b)) * slower;
        a_moves = lanes.select(outside & volume_holds, moving_a, zero);
        b_moves = lanes.select(outside & volume_holds, moving_b, zero);
    }
    // The side's own end, where v_p or F_p holds b and a is 0, is found by the search along the outer bound as E = 0.
    Solution { a, b, excess: rise::<L>(n, a, b), a_free: inside, b_free: inside | on_side, a_moves, b_moves }
}
