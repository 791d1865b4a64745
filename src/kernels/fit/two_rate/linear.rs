//! The linear method: the model's differential equation, integrated twice, is linear in four combinations of its parameters
//! (Flouri, Lesnic and Mayrovitch 2016):
//!
//! ```text
//! C = F_p I + w J - y S_1 - x S_2        I, J = single and double integral of c_p; S_1, S_2 = those of C
//! x = F_p PS / (v_p v_e),   y = (F_p + PS) / v_p + PS / v_e,   w = F_p PS (1 / v_p + 1 / v_e)
//! ```
//!
//! from which v_p = F_p^2 / (y F_p - w), v_p + v_e = w / x, PS = x v_p v_e / F_p. The samples count as piecewise linear. All
//! integrals are exact.
//!
//! What I and J explain is projected out of C, S_1 and S_2. In 32 bits next to nothing would be left of the latter two, which
//! are smooth. But integration is linear: with C = p q_1 + r q_2 + C', q_1 and q_2 being the orthonormal basis of I and J, the
//! integrals of q_1 and q_2 without what lies along both come from the host, and only those of C', which are small, are
//! integrated here.

use super::super::refinement::{DAMPING, Descent, Problem};
use super::super::shared_columns::{SharedColumns, dot};
use super::memory::Work;
use super::pass::Exchange;
use super::reference::Fit;
use super::tables::Tables;
use crate::kernel::lanes::{Lanes, Numbers as _, Table};

/// A column's part of its own below this share of its square is rounding.
const DEPENDENT: f64 = 1e-12;
/// Below this a number is 0: something must be divided by.
const TINY: f64 = 1e-30;
/// Parameters at which a voxel without a curve of the model has its sums taken, which nobody reads: F_p and PS in 1/s, v_p, v_e.
const ANYWHERE: [f64; 4] = [0.01, 0.002, 0.05, 0.2];

/// What all voxels share.
#[derive(Debug, Clone)]
pub(super) struct LinearTables {
    /// Intervals between frames: s.
    pub(super) intervals: Table,
    /// I and J.
    pub(super) shared: SharedColumns,
    /// The integrals of the first unit vector and of the second one, then their double integrals: what lies beside both, a
    /// column after the other.
    pub(super) beside: Table,
    /// What lies along the first unit vector and along the second one, of the same four.
    pub(super) along: [[f64; 2]; 4],
}

impl LinearTables {
    /// From frames at `t`, and the integrals of c_p there.
    pub(super) fn new(t: &[f64], integral: Vec<f64>, double_integral: &[f64]) -> Self {
        let shared = SharedColumns::new(integral, double_integral);
        let columns: Vec<Vec<f64>> = {
            let ((first, first_twice), (second, second_twice)) =
                (integrals(t, &shared.first), integrals(t, &shared.second));
            vec![first, second, first_twice, second_twice]
        };
        let mut along = [[0.0; 2]; 4];
        for (along, column) in along.iter_mut().zip(&columns) {
            *along = [dot(column, &shared.first), dot(column, &shared.second)];
        }
        Self {
            intervals: t.windows(2).map(|w| w[1] - w[0]).collect(),
            beside: columns.iter().flat_map(|column| shared.beside(column)).collect(),
            along,
            shared,
        }
    }
}

/// The single and the double integral of what is linear between these times.
fn integrals(t: &[f64], values: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let (mut once, mut twice) = (vec![0.0], vec![0.0]);
    for i in 1..t.len() {
        let interval = t[i] - t[i - 1];
        let (before, after) = (values[i - 1], values[i]);
        twice.push(twice[i - 1] + interval * (once[i - 1] + interval * (before + before + after) / 6.0));
        once.push(once[i - 1] + 0.5 * interval * (before + after));
    }
    (once, twice)
}

/// The four coefficients, and whether the curve has integrals that the other columns don't explain: without, there are no two
/// rates.
struct Coefficients<F, M> {
    flow: F,
    w: F,
    x: F,
    y: F,
    determined: M,
}

/// Fits a block's samples.
#[inline(always)]
pub(super) fn fit<L: Lanes>(
    lanes: L,
    t: &Tables,
    l: &LinearTables,
    fit: &mut Fit<'_, L, 4>,
    work: &mut Work<'_, L::F>,
) {
    let zero = lanes.splat(0.0);
    let one = lanes.splat(1.0);
    let tiny = lanes.splat(TINY);
    work.c.copy_from_slice(fit.c);
    let Coefficients { flow, w, x, y, determined } = coefficients(lanes, t, l, work);
    let rest = y * flow - w;
    let flows = flow.abs().gt(tiny);
    let has_plasma = determined & rest.abs().gt(tiny);
    let has_space = has_plasma & x.abs().gt(tiny);
    let has_exchange = has_space & flows;
    let plasma = flow * flow / lanes.select(has_plasma, rest, one);
    let space = w / lanes.select(has_space, x, one) - plasma;
    let exchange = x * plasma * space / lanes.select(flows, flow, one);
    let sum = flow + exchange;
    fit.has = [lanes.mask(true), has_exchange, has_plasma, has_space, has_exchange & sum.abs().gt(tiny)];
    let curve = has_exchange & flow.gt(zero) & exchange.gt(zero) & plasma.gt(zero) & space.gt(zero);
    fit.has_curve = curve;
    let parameters = [flow, exchange, plasma, space];
    if t.needs_curves {
        let mut at = ANYWHERE.map(|value| lanes.splat(value));
        for i in 0..4 {
            at[i] = lanes.select(curve, parameters[i], at[i]);
        }
        // All held: no step is taken. The first turn brings the triangle, the second one sees it without loss.
        let mut problem = Exchange::<_, 4> { t, work, keep: false };
        let scales = Problem::<L, 4>::scales(&problem);
        let mut descent = Descent::new(lanes, at, lanes.splat(DAMPING), scales);
        for _ in 0..2 {
            descent.turn(lanes, &mut problem, &[lanes.mask(true); 4], fit.samples.squares, lanes.mask(true));
        }
        fit.fitted = descent.best;
    }
    fit.fitted.parameters = parameters;
    fit.fitted.turns = one;
    fit.fitted.converged = lanes.mask(true);
}

#[inline(always)]
fn coefficients<L: Lanes>(
    lanes: L,
    t: &Tables,
    l: &LinearTables,
    work: &mut Work<'_, L::F>,
) -> Coefficients<L::F, L::M> {
    let zero = lanes.splat(0.0);
    let half = lanes.splat(0.5);
    let sixth = lanes.splat(1.0 / 6.0);
    let n = t.n;
    let Work { c, fitted: rest, single: once, single_by_rate: twice, .. } = work;
    let intervals = lanes.entries(&l.intervals, 0..n - 1);
    let (firsts, seconds) = (lanes.entries(&l.shared.first, 0..n), lanes.entries(&l.shared.second, 0..n));
    let beside = lanes.entries(&l.beside, 0..4 * n);
    let mut of_c = [zero; 2];
    for i in 0..n {
        of_c[0] = lanes.spread(firsts[i]).mul_add(c[i], of_c[0]);
        of_c[1] = lanes.spread(seconds[i]).mul_add(c[i], of_c[1]);
    }
    // C' and its integrals.
    let (mut of_once, mut of_twice) = ([zero; 2], [zero; 2]);
    let (mut single, mut double, mut before) = (zero, zero, zero);
    for i in 0..n {
        let (first, second) = (lanes.spread(firsts[i]), lanes.spread(seconds[i]));
        let value = c[i].minus_product(of_c[0], first).minus_product(of_c[1], second);
        if i > 0 {
            let interval = lanes.spread(intervals[i - 1]);
            let both = before + value;
            double = interval.mul_add(single + interval * (sixth * (before + both)), double);
            single = interval.mul_add(half * both, single);
        }
        before = value;
        rest[i] = value;
        once[i] = single;
        twice[i] = double;
        of_once[0] = first.mul_add(single, of_once[0]);
        of_once[1] = second.mul_add(single, of_once[1]);
        of_twice[0] = first.mul_add(double, of_twice[0]);
        of_twice[1] = second.mul_add(double, of_twice[1]);
    }
    // The curve's integrals without what lies along I and J.
    let (mut squares, mut mixed, mut along, mut twice_squares) = (zero, zero, zero, zero);
    for i in 0..n {
        let (first, second) = (lanes.spread(firsts[i]), lanes.spread(seconds[i]));
        let column = |k: usize| lanes.spread(beside[k * n + i]);
        let own = once[i].minus_product(of_once[0], first).minus_product(of_once[1], second);
        let s = of_c[0].mul_add(column(0), of_c[1].mul_add(column(1), own));
        let own = twice[i].minus_product(of_twice[0], first).minus_product(of_twice[1], second);
        let u = of_c[0].mul_add(column(2), of_c[1].mul_add(column(3), own));
        once[i] = s;
        twice[i] = u;
        squares = s.mul_add(s, squares);
        mixed = s.mul_add(u, mixed);
        along = s.mul_add(rest[i], along);
        twice_squares = u.mul_add(u, twice_squares);
    }
    for k in 0..2 {
        let shares = [l.along[0][k], l.along[1][k], l.along[2][k], l.along[3][k]].map(|share| lanes.splat(share));
        of_once[k] = of_once[k] + (of_c[0] * shares[0] + of_c[1] * shares[1]);
        of_twice[k] = of_twice[k] + (of_c[0] * shares[2] + of_c[1] * shares[3]);
    }
    let tiny = lanes.splat(TINY);
    let dependent = lanes.splat(DEPENDENT);
    let whole = of_once[0] * of_once[0] + of_once[1] * of_once[1] + squares;
    let has_first = squares.gt(dependent * whole) & squares.gt(tiny);
    let inverse = lanes.select(has_first, lanes.splat(1.0) / squares.max(tiny), zero);
    let (overlap, share) = (mixed * inverse, along * inverse);
    let (mut twice_own, mut twice_along) = (zero, zero);
    for i in 0..n {
        let u = twice[i].minus_product(overlap, once[i]);
        let left = rest[i].minus_product(share, once[i]);
        twice_own = u.mul_add(u, twice_own);
        twice_along = u.mul_add(left, twice_along);
    }
    let whole = of_twice[0] * of_twice[0] + of_twice[1] * of_twice[1] + twice_squares;
    let determined = has_first & twice_own.gt(dependent * whole) & twice_own.gt(tiny);
    let x = lanes.select(determined, -(twice_along / twice_own.max(tiny)), zero);
    let y = -(share + x * overlap);
    let mut products = of_c;
    for k in 0..2 {
        products[k] = of_c[k] + (x * of_twice[k] + y * of_once[k]);
    }
    let [flow, w] = l.shared.coefficients(lanes, products);
    Coefficients { flow, w, x, y, determined }
}
