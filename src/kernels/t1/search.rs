//! The search for one rate whose other parameters are linear: a grid, then Newton's method within a bracket.
//! `shaders/t1/search.wgsl` has the same names, order and guards.

use crate::kernel::lanes::{Lanes, Masks, Numbers, Table};

/// Points of the grid, logarithmic between the bounds: neighbours differ by 13 % between 10 ms and 20 s, much less than the
/// width of an extremum.
pub(super) const GRID: usize = 64;
/// Steps: Newton's are quadratic from within one step of the grid, so the fifth no longer matters in f64; the others are for
/// flat minima, where the bracket has to be halved first.
pub(super) const STEPS: usize = 10;
/// A step that misses the bracket by less than this share of the rate is one that rounding turned: it ends at the bracket's
/// end and doesn't halve it.
const MARGIN: f64 = 1e-4;
/// A last step beyond this share of the rate means that the search has not converged.
pub(super) const CONVERGED: f64 = 1e-3;

/// Where less than this share of the derivative's square is left when the other parameters have imitated it, 32 bits can't
/// tell T1.
pub(super) const LEAST_OWN_SHARE: f64 = 1e-6;

/// The T1 of the grid, from the longest to the shortest, so that rates rise.
pub(super) fn grid_t1(shortest_s: f64, longest_s: f64) -> impl Iterator<Item = f64> {
    let step = (shortest_s / longest_s).ln() / (GRID - 1) as f64;
    (0..GRID).map(move |k| match k {
        0 => longest_s,
        k if k == GRID - 1 => shortest_s,
        k => longest_s * (step * k as f64).exp(),
    })
}

/// A peak on a grid: its place, its second index (a polarity switch) and its height, 0 for none.
pub(super) struct Peak<L: Lanes> {
    pub(super) at: L::F,
    pub(super) branch: L::F,
    pub(super) height: L::F,
}

/// The highest peaks seen on a grid, the highest first.
pub(super) struct Peaks<L: Lanes, const N: usize>(pub(super) [Peak<L>; N]);

impl<L: Lanes, const N: usize> Peaks<L, N> {
    #[inline(always)]
    pub(super) fn none(l: L) -> Self {
        let zero = l.splat(0.0);
        Self(std::array::from_fn(|_| Peak { at: zero, branch: zero, height: zero }))
    }

    /// Takes in the grid point `at` with its neighbours' heights: a peak counts by the vertex of the parabola through the
    /// three; at an end of the grid, or beside a point that is not allowed (height 0), by itself.
    #[inline(always)]
    pub(super) fn offer(&mut self, l: L, at: usize, branch: usize, [before, height, after]: [L::F; 3]) {
        let at_end = at == 0 || at == GRID - 1;
        let zero = l.splat(0.0);
        let is_peak = height.gt(zero) & height.ge(before) & height.ge(after);
        if !is_peak.any() {
            return;
        }
        let bend = (height - before) + (height - after);
        let tilt = after - before;
        let curved = is_peak & l.mask(!at_end) & bend.gt(zero) & before.gt(zero) & after.gt(zero);
        let rise = tilt * tilt / (l.splat(8.0) * l.select(curved, bend, l.splat(1.0)));
        let mut at = l.count(at);
        let mut branch = l.count(branch);
        let mut height = l.select(is_peak, height + l.select(curved, rise, zero), zero);
        for kept in &mut self.0 {
            let better = height.gt(kept.height);
            (kept.at, at) = (l.select(better, at, kept.at), l.select(better, kept.at, at));
            (kept.branch, branch) = (l.select(better, branch, kept.branch), l.select(better, kept.branch, branch));
            (kept.height, height) = (l.select(better, height, kept.height), l.select(better, kept.height, height));
        }
    }
}

/// Where a rate is looked for, and how far the last step went, relative.
pub(super) struct Bracket<L: Lanes> {
    pub(super) x: L::F,
    low: L::F,
    high: L::F,
    step: L::F,
    at_first: L::M,
    at_last: L::M,
}

impl<L: Lanes> Bracket<L> {
    /// Between the neighbours of a grid point.
    #[inline(always)]
    pub(super) fn around(l: L, rates: &Table, at: L::F) -> Self {
        let (one, last) = (l.splat(1.0), l.count(GRID - 1));
        Self {
            x: l.lookup(rates, at),
            low: l.lookup(rates, (at - one).max(l.splat(0.0))),
            high: l.lookup(rates, (at + one).min(last)),
            step: l.splat(0.0),
            at_first: at.lt(l.splat(0.5)),
            at_last: at.gt(l.splat(GRID as f64 - 1.5)),
        }
    }

    /// One step: Newton's (relative to x: `slope / curvature`) if it stays within the bracket, else to its middle.
    #[inline(always)]
    pub(super) fn narrow(&mut self, l: L, slope: L::F, curvature: L::F) {
        let rising = slope.gt(l.splat(0.0));
        self.low = l.select(rising, self.x, self.low);
        self.high = l.select(rising, self.high, self.x);
        let convex = curvature.gt(l.splat(0.0));
        let newton = self.x + self.x * (slope / l.select(convex, curvature, l.splat(1.0)));
        let margin = self.x * l.splat(MARGIN);
        let near = convex & newton.ge(self.low - margin) & newton.le(self.high + margin);
        let next = l.select(near, newton.max(self.low).min(self.high), l.splat(0.5) * (self.low + self.high));
        self.step = (next - self.x) / self.x;
        self.x = l.uncertain(next, l.select(near, l.splat(0.0), self.high - self.low));
    }

    /// Whether the search ended at the lowest and at the highest rate of the grid.
    #[inline(always)]
    pub(super) fn at_bounds(&self) -> (L::M, L::M) {
        (self.at_first & self.high.le(self.low), self.at_last & self.low.ge(self.high))
    }

    #[inline(always)]
    pub(super) fn converged(&self, l: L) -> L::M {
        self.step.abs().le(l.splat(CONVERGED))
    }
}
