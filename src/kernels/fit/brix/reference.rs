//! The curve and its derivatives, over [`Lanes`]; `shaders/fit/brix.wgsl` has the same names, order and guards.

#![expect(clippy::needless_range_loop, reason = "formulas of matrices and frames are read by their indices")]

use super::super::refinement::{Equations, Problem, Variables};
use super::tables::{RATES, Tables};
use crate::kernel::Curve;
use crate::kernel::lanes::{Lanes, Numbers};

/// Scales of A, k_ep, k_el (1/s) and onset (s).
pub(super) const SCALES: [f64; 4] = [0.5, 0.05, 0.002, 1.0];

/// Working memory for one block of voxels.
pub(super) struct Work<'a, F> {
    /// S / S_BL - 1.
    pub(super) y: &'a mut [F],
    pub(super) fitted: &'a mut [F],
    pub(super) projections: &'a mut [F],
}

/// Numbers of working memory.
pub(super) fn scratch(t: &Tables) -> usize {
    2 * t.n + RATES
}

impl<'a, F> Work<'a, F> {
    #[inline(always)]
    pub(super) fn new(t: &Tables, memory: &'a mut [F]) -> Self {
        let (y, memory) = memory.split_at_mut(t.n);
        let (fitted, projections) = memory.split_at_mut(t.n);
        Self { y, fitted, projections }
    }
}

/// What is known of a voxel's samples.
#[derive(Clone, Copy)]
pub(super) struct Samples<F, M> {
    pub(super) baseline: F,
    /// Whether the baseline is positive.
    pub(super) positive: M,
    pub(super) squares: F,
    pub(super) squares_about_mean: F,
}

/// Reads the samples as S / S_BL - 1; 0 where the baseline isn't positive.
#[inline(always)]
pub(super) fn read<L: Lanes>(lanes: L, t: &Tables, curve: &Curve<'_, L>, y: &mut [L::F]) -> Samples<L::F, L::M> {
    let zero = lanes.splat(0.0);
    let one = lanes.splat(1.0);
    let mut sum = zero;
    for i in t.baseline.clone() {
        sum = sum + curve.difference(i);
    }
    let mean = sum * lanes.splat(1.0 / t.baseline.len() as f64);
    let slope = lanes.splat(t.slope);
    let baseline = slope * (curve.first + mean) + lanes.splat(t.intercept);
    let positive = baseline.gt(zero) & curve.finite;
    let scale = lanes.select(positive, slope / lanes.select(positive, baseline, one), zero);
    let (mut squares, mut whole) = (zero, zero);
    for i in 0..t.n {
        y[i] = scale * (curve.difference(i) - mean);
        squares = squares + y[i] * y[i];
        whole = whole + y[i];
    }
    let middle = whole / lanes.count(t.n);
    let mut squares_about_mean = zero;
    for i in 0..t.n {
        let off = y[i] - middle;
        squares_about_mean = squares_about_mean + off * off;
    }
    Samples { baseline, positive, squares, squares_about_mean }
}

/// The integrals of exp(-x v), v exp(-x v) and v^2 exp(-x v) over v from 0 to 1, x not below 0; the last isn't needed.
#[inline(always)]
fn moments<L: Lanes>(lanes: L, x: L::F) -> (L::F, L::F) {
    let one = lanes.splat(1.0);
    let small = x.lt(one);
    let near = x.min(one);
    // m_1 = 1/2 - x/3 + x^2/8 - ... = sum (-x)^k / (k! (k + 2)); m_0 = x m_1 + exp(-x).
    let mut sum = lanes.splat(1.0 / 18.0);
    for k in (1..=15).rev() {
        sum = lanes.splat(1.0 / (k + 1) as f64) - near * lanes.splat(1.0 / k as f64) * sum;
    }
    let decay = (-x.min(lanes.splat(80.0))).exp();
    let near_0 = near * sum + decay;
    let far = x.max(one);
    let inverse = one / far;
    let far_0 = (one - decay) * inverse;
    let far_1 = (far_0 - decay) * inverse;
    (lanes.select(small, near_0, far_0), lanes.select(small, sum, far_1))
}

/// Brix's curve.
pub(super) struct Brix<'a, 'b, F> {
    pub(super) t: &'a Tables,
    pub(super) work: &'a mut Work<'b, F>,
    /// Whether the fitted curve is to be kept.
    pub(super) keep: bool,
}

impl<F> Brix<'_, '_, F> {
    #[inline(always)]
    fn pass<L: Lanes<F = F>>(&mut self, lanes: L, parameters: &[F; 4], r: &[[F; 4]; 4]) -> Equations<F, 4>
    where
        F: Numbers<Mask = L::M>,
    {
        let zero = lanes.splat(0.0);
        let [amplitude, kep, kel, onset] = *parameters;
        let (fast, slow) = (kep.max(kel), kep.min(kel));
        let apart = fast - slow;
        let swapped = kep.lt(kel);
        let scale = amplitude * kep;
        let mut e = Equations::new(zero);
        for i in 0..self.t.n {
            let since = self.t.times.at(lanes, i) - onset;
            let begun = since.gt(zero);
            let u = lanes.select(begun, since, zero);
            let (m0, m1) = moments(lanes, apart * u);
            let decay = (-(slow * u).min(lanes.splat(80.0))).exp();
            // s = (exp(-slow u) - exp(-fast u)) / (fast - slow), the same with the rates exchanged.
            let s = u * decay * m0;
            let square = u * u * decay;
            let by_fast = -(square * m1);
            let by_slow = -(square * (m0 - m1));
            let by_kep = lanes.select(swapped, by_slow, by_fast);
            let by_kel = lanes.select(swapped, by_fast, by_slow);
            let fitted = scale * s;
            let kel_decay = (-(kel * u).min(lanes.splat(80.0))).exp();
            let by_onset = lanes.select(begun, -(scale * (kel_decay - kep * s)), zero);
            let j = [kep * s, amplitude * (s + kep * by_kep), scale * by_kel, by_onset];
            let residual = self.work.y[i] - fitted;
            if self.keep {
                self.work.fitted[i] = fitted;
            }
            let mut q = [zero; 4];
            for a in 0..4 {
                let mut value = j[a];
                for b in 0..a {
                    value = value - q[b] * r[b][a];
                }
                q[a] = value / r[a][a];
            }
            e.sse = e.sse + residual * residual;
            for a in 0..4 {
                e.rhs[a] = e.rhs[a] + q[a] * residual;
                for b in a..4 {
                    e.gram[a][b] = e.gram[a][b] + q[a] * q[b];
                }
            }
        }
        e
    }
}

impl<L: Lanes> Problem<L, 4> for Brix<'_, '_, L::F> {
    const BENT: bool = false;

    #[inline(never)]
    fn equations(&mut self, lanes: L, parameters: &[L::F; 4], r: &[[L::F; 4]; 4]) -> Equations<L::F, 4> {
        lanes.within(
            #[inline(always)]
            || self.pass(lanes, parameters, r),
        )
    }

    #[inline(always)]
    fn variables(&self, lanes: L, parameters: &[L::F; 4]) -> Variables<L::F, 4> {
        let b = &self.t.bounds;
        let low = std::array::from_fn(|j| lanes.splat(b[j].0));
        let high = std::array::from_fn(|j| lanes.splat(b[j].1));
        Variables { at: *parameters, low, high }
    }

    #[inline(always)]
    fn moved(&self, lanes: L, parameters: &[L::F; 4], step: &[L::F; 4]) -> [L::F; 4] {
        let b = &self.t.bounds;
        let mut next = *parameters;
        for j in 0..4 {
            let (low, high) = (lanes.splat(b[j].0), lanes.splat(b[j].1));
            let tried = parameters[j] + step[j];
            let moved = tried.max(low).min(high);
            // A held onset stays where it is, also beyond the bounds of a fitted one.
            next[j] = lanes.select(step[j].abs().gt(lanes.splat(0.0)), moved, parameters[j]);
            if j < 2 {
                let far = parameters[j] * lanes.splat(10.0) + lanes.splat(0.01 * SCALES[j]);
                next[j] = next[j].max(parameters[j] * lanes.splat(0.1)).min(far);
            }
        }
        next
    }

    #[inline(always)]
    fn scales(&self) -> [f64; 4] {
        SCALES
    }
}
