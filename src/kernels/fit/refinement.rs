//! Damped steps of Gauss and Newton within a box, from a start to the floor of its valley (Levenberg 1944, Marquardt 1963),
//! in a form that keeps its digits in 32 bits.
//!
//! Normal equations J'J have the condition of J squared: in 32 bits nothing is left of a direction that noise of 1e-4 hides.
//! So they are formed in columns that are already nearly orthonormal, J R^-1, R being the triangle of the turn before
//! (Cholesky's factor of the Gram matrix updates it), and the damped step solves a least-squares problem in R by
//! orthogonalisation. Steps go in variables in which the curve is closer to linear than in the parameters; parameters that
//! a bound holds leave the step, and those that a step would take beyond one are put on it and the others solved again.
//!
//! A problem may add the curve's bend, the residual's products with its second derivatives: then the steps are Newton's where
//! they lead down, and flat bent valleys, along which those of Gauss and Newton creep, take a few turns.

#![expect(clippy::needless_range_loop, reason = "formulas of matrices and frames are read by their indices")]

use crate::kernel::lanes::{Lanes, Masks as _, Numbers};

/// Normal equations of the residual at some parameters, in the columns J R^-1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Equations<F, const P: usize> {
    /// Sum of squared residuals.
    pub(super) sse: F,
    /// The upper triangle of the columns' products.
    pub(super) gram: [[F; P]; P],
    /// Their products with the residual.
    pub(super) rhs: [F; P],
    /// The sum of the residuals times the curve's second derivatives by the variables: the upper triangle. It stays zero
    /// where a problem leaves the curve's bend out.
    pub(super) bend: [[F; P]; P],
}

impl<F: Copy, const P: usize> Equations<F, P> {
    #[inline(always)]
    pub(super) fn new(zero: F) -> Self {
        Self { sse: zero, gram: [[zero; P]; P], rhs: [zero; P], bend: [[zero; P]; P] }
    }
}

/// The variables that steps are taken in, at some parameters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Variables<F, const P: usize> {
    pub(super) at: [F; P],
    pub(super) low: [F; P],
    pub(super) high: [F; P],
}

/// A curve that depends on P parameters.
pub(super) trait Problem<L: Lanes, const P: usize> {
    /// Whether the equations hold the curve's bend.
    const BENT: bool;
    /// One pass over the samples; `r` is upper triangular, without zeros on its diagonal.
    fn equations(&mut self, lanes: L, parameters: &[L::F; P], r: &[[L::F; P]; P]) -> Equations<L::F, P>;
    /// The variables at these parameters.
    fn variables(&self, lanes: L, parameters: &[L::F; P]) -> Variables<L::F, P>;
    /// The parameters after a step in the variables, within their bounds.
    fn moved(&self, lanes: L, parameters: &[L::F; P], step: &[L::F; P]) -> [L::F; P];
    /// Lengths of variables that change the curve noticeably: scales, nothing more.
    fn scales(&self) -> [f64; P];
}

/// Where a refinement ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refined<F, M, const P: usize> {
    pub(super) parameters: [F; P],
    pub(super) sse: F,
    /// The triangle of J by the variables.
    pub(super) r: [[F; P]; P],
    pub(super) turns: F,
    pub(super) converged: M,
    /// The damping that it came to, to go on with.
    pub(super) damping: F,
}

/// The one where the mask holds, the other elsewhere.
#[inline(always)]
pub(super) fn merge<L: Lanes, const P: usize>(
    lanes: L,
    mask: L::M,
    a: &Refined<L::F, L::M, P>,
    b: &Refined<L::F, L::M, P>,
) -> Refined<L::F, L::M, P> {
    let mut result = *b;
    for i in 0..P {
        result.parameters[i] = lanes.select(mask, a.parameters[i], b.parameters[i]);
        for j in i..P {
            result.r[i][j] = lanes.select(mask, a.r[i][j], b.r[i][j]);
        }
    }
    result.sse = lanes.select(mask, a.sse, b.sse);
    result.turns = lanes.select(mask, a.turns, b.turns);
    result.damping = lanes.select(mask, a.damping, b.damping);
    result.converged = (mask & a.converged) | (!mask & b.converged);
    result
}

/// The best place after descents have ended where `ended` holds: what they came to where that is lower, or where it takes the
/// former place's stead because there was none (`begun` doesn't hold) or they went on from it. Turns add up.
#[inline(always)]
pub(super) fn lower<L: Lanes, const P: usize>(
    lanes: L,
    ended: L::M,
    best: &Refined<L::F, L::M, P>,
    chosen: &Refined<L::F, L::M, P>,
    begun: L::M,
    continuing: L::M,
) -> Refined<L::F, L::M, P> {
    let lower = ended & (best.sse.lt(chosen.sse) | !begun | continuing);
    let before = lanes.select(begun, chosen.turns, lanes.splat(0.0));
    let turns = lanes.select(ended, before + best.turns, chosen.turns);
    Refined { turns, ..merge(lanes, lower, best, chosen) }
}

/// What holds for numbers of 32 bits, or of 64.
#[inline(always)]
pub(super) fn by_precision<L: Lanes>(lanes: L, (single, double): (f64, f64)) -> L::F {
    lanes.splat(if L::WIDTH == 1 { double } else { single })
}

/// A step that promises to lower the sum of squares by less than this share of it isn't taken.
const NEGLIGIBLE: f64 = 1e-9;
/// Nor one that promises less than this share of sum C^2, in 32 bits and in 64.
const NEGLIGIBLE_OF_ALL: (f64, f64) = (1.4e-15, 1e-28);
/// Where an undamped step, or one as good, promised less than this share, in 32 bits and in 64, and the sum of squares went up,
/// only roundings tell the two places apart: the one before is the floor.
const UNSEEN: (f64, f64) = (2e-8, 1e-9);
/// A column's part of its own is not taken for less than this, in its variable's scale: something must be divided by.
const SMALLEST_DIAGONAL: f64 = 1e-12;

/// The least curvature that the bend may leave, as a share of that of least squares with damping.
const FIRM: f64 = 0.05;

/// First damping, as a share of each variable's own curvature, and its factors after good and bad turns.
pub(super) const DAMPING: f64 = 1e-3;
const RELAX: f64 = 0.1;
const TIGHTEN: f64 = 8.0;

/// From the start to the floor of its valley; at most so many turns. Voxels outside `wanted` stay where they are.
#[expect(clippy::too_many_arguments, reason = "a problem, a start and how to go on from it")]
#[inline(never)]
pub(super) fn refine<L: Lanes, Q: Problem<L, P>, const P: usize>(
    lanes: L,
    problem: &mut Q,
    start: [L::F; P],
    held: &[L::M; P],
    squares: L::F,
    damping: L::F,
    wanted: L::M,
    turns: usize,
) -> Refined<L::F, L::M, P> {
    lanes.within(
        #[inline(always)]
        || refine_within(lanes, problem, start, held, squares, damping, wanted, turns),
    )
}

#[expect(clippy::too_many_arguments, reason = "as above")]
#[inline(always)]
fn refine_within<L: Lanes, Q: Problem<L, P>, const P: usize>(
    lanes: L,
    problem: &mut Q,
    start: [L::F; P],
    held: &[L::M; P],
    squares: L::F,
    damping: L::F,
    wanted: L::M,
    turns: usize,
) -> Refined<L::F, L::M, P> {
    let mut descent = Descent::new(lanes, start, damping, problem.scales());
    let mut active = wanted;
    for _ in 0..turns {
        active = active & !descent.turn(lanes, problem, held, squares, active);
        if !active.any() {
            break;
        }
    }
    descent.best
}

/// A refinement under way: a turn at a time, and each voxel may begin anew at any time.
pub(super) struct Descent<L: Lanes, const P: usize> {
    pub(super) best: Refined<L::F, L::M, P>,
    rhs: [L::F; P],
    bend: [[L::F; P]; P],
    /// Where it looks next.
    pub(super) trial: [L::F; P],
    /// By how much the step there is to lower the sum of squares.
    pub(super) promised: L::F,
    /// Voxels that have not been looked at since they began.
    fresh: L::M,
    /// The lowest sum of squares so far: roundings may raise it, but not step after step.
    lowest: L::F,
    scales: [f64; P],
}

impl<L: Lanes, const P: usize> Descent<L, P> {
    #[inline(always)]
    pub(super) fn new(lanes: L, start: [L::F; P], damping: L::F, scales: [f64; P]) -> Self {
        let zero = lanes.splat(0.0);
        let highest = Self::highest(lanes);
        let best = Refined {
            parameters: start,
            sse: highest,
            r: Self::scaled(lanes, &scales),
            turns: zero,
            converged: lanes.mask(false),
            damping,
        };
        let bend = [[zero; P]; P];
        Self {
            best,
            rhs: [zero; P],
            bend,
            trial: start,
            promised: zero,
            fresh: lanes.mask(true),
            lowest: highest,
            scales,
        }
    }

    #[inline(always)]
    fn highest(lanes: L) -> L::F {
        lanes.splat(f64::from(f32::MAX) / 8.0)
    }

    /// The triangle of a curve that changes evenly with all variables.
    #[inline(always)]
    fn scaled(lanes: L, scales: &[f64; P]) -> [[L::F; P]; P] {
        let mut r = [[lanes.splat(0.0); P]; P];
        for i in 0..P {
            r[i][i] = lanes.splat(1.0 / scales[i]);
        }
        r
    }

    /// Begins anew where the mask holds.
    #[inline(always)]
    pub(super) fn begin(&mut self, lanes: L, here: L::M, start: &[L::F; P], damping: L::F) {
        let zero = lanes.splat(0.0);
        let scaled = Self::scaled(lanes, &self.scales);
        let best = &mut self.best;
        for i in 0..P {
            best.parameters[i] = lanes.select(here, start[i], best.parameters[i]);
            self.trial[i] = lanes.select(here, start[i], self.trial[i]);
            for j in i..P {
                best.r[i][j] = lanes.select(here, scaled[i][j], best.r[i][j]);
            }
        }
        best.sse = lanes.select(here, Self::highest(lanes), best.sse);
        best.turns = lanes.select(here, zero, best.turns);
        best.converged = best.converged & !here;
        best.damping = lanes.select(here, damping, best.damping);
        self.lowest = lanes.select(here, best.sse, self.lowest);
        self.fresh = self.fresh | here;
    }

    /// One pass over the samples and the step after it. Returns the active voxels that have settled: those are at the floor of
    /// their valley.
    #[inline(always)]
    pub(super) fn turn<Q: Problem<L, P>>(
        &mut self,
        lanes: L,
        problem: &mut Q,
        held: &[L::M; P],
        squares: L::F,
        active: L::M,
    ) -> L::M {
        let zero = lanes.splat(0.0);
        let one = lanes.splat(1.0);
        let unit = L::EPSILON;
        let negligible = squares * by_precision(lanes, NEGLIGIBLE_OF_ALL);
        let share = lanes.splat(NEGLIGIBLE);
        let best = &mut self.best;
        let equations = problem.equations(lanes, &self.trial, &best.r);
        let tolerance = self.lowest * lanes.splat(1.0 + 4.0 * unit) + squares * lanes.splat(0.25 * unit * unit);
        let better = (equations.sse.le(tolerance) | self.fresh) & active;
        let unseen = active
            & !better
            & best.damping.le(lanes.splat(DAMPING))
            & self.promised.abs().le(best.sse * by_precision(lanes, UNSEEN) + negligible);
        let (factor, reduced) = factor(lanes, &equations);
        for i in 0..P {
            best.parameters[i] = lanes.select(better, self.trial[i], best.parameters[i]);
            self.rhs[i] = lanes.select(better, reduced[i], self.rhs[i]);
        }
        // In place: row i needs rows i and below.
        for i in 0..P {
            for j in i..P {
                let mut sum = zero;
                for k in i..=j {
                    sum = factor[i][k].mul_add(best.r[k][j], sum);
                }
                if i == j {
                    sum = sum.max(lanes.splat(SMALLEST_DIAGONAL / self.scales[i]));
                }
                best.r[i][j] = lanes.select(better, sum, best.r[i][j]);
                self.bend[i][j] = lanes.select(better, equations.bend[i][j], self.bend[i][j]);
            }
        }
        best.sse = lanes.select(better, equations.sse, best.sse);
        self.lowest = self.lowest.min(best.sse);
        best.turns = lanes.select(active, best.turns + one, best.turns);
        let relaxed = (best.damping * lanes.splat(RELAX)).max(lanes.splat(unit * unit));
        let tightened = (best.damping * lanes.splat(TIGHTEN)).min(lanes.splat(1e4));
        let damping = lanes.select(better, relaxed, lanes.select(active, tightened, best.damping));
        best.damping = lanes.select(self.fresh, best.damping, damping);
        self.fresh = self.fresh & !active;

        let step = step(lanes, problem, best, &self.rhs, &self.bend, held);
        // What the model promises.
        let mut promised = zero;
        for i in 0..P {
            let mut sum = zero;
            for j in i..P {
                sum = best.r[i][j].mul_add(step[j], sum);
            }
            promised = promised + sum * (self.rhs[i] + self.rhs[i] - sum);
        }
        if Q::BENT {
            promised = promised + quadratic(&self.bend, &step);
        }
        self.promised = promised;
        let settled = (better & promised.abs().le(best.sse * share + negligible)) | unseen;
        best.converged = best.converged | settled;
        let next = problem.moved(lanes, &best.parameters, &step);
        let moves = active & !settled;
        for i in 0..P {
            self.trial[i] = lanes.select(moves, next[i], best.parameters[i]);
        }
        settled
    }
}

/// Cholesky's factor of the Gram matrix, transposed, and the right-hand side by its inverse.
#[inline(always)]
fn factor<L: Lanes, const P: usize>(lanes: L, e: &Equations<L::F, P>) -> ([[L::F; P]; P], [L::F; P]) {
    let zero = lanes.splat(0.0);
    let one = lanes.splat(1.0);
    let floor = lanes.splat(16.0 * L::EPSILON);
    let mut u = [[zero; P]; P];
    let mut reduced = [zero; P];
    for i in 0..P {
        let mut square = e.gram[i][i];
        let mut value = e.rhs[i];
        for k in 0..i {
            square = square.minus_product(u[k][i], u[k][i]);
            value = value.minus_product(u[k][i], reduced[k]);
        }
        // A column without a part of its own keeps a trace: the next turn sees it better.
        let square = square.max(e.gram[i][i] * floor).max(lanes.splat(1e-30));
        u[i][i] = square.sqrt();
        let inverse = one / u[i][i];
        for j in i + 1..P {
            let mut sum = e.gram[i][j];
            for k in 0..i {
                sum = sum.minus_product(u[k][i], u[k][j]);
            }
            u[i][j] = sum * inverse;
        }
        reduced[i] = value * inverse;
    }
    (u, reduced)
}

/// The product of a symmetric matrix, given by its upper triangle, with a vector from both sides.
#[inline(always)]
fn quadratic<F: Numbers, const P: usize>(matrix: &[[F; P]; P], x: &[F; P]) -> F {
    let mut all = matrix[0][0] * x[0] * x[0];
    for j in 1..P {
        let mut above = matrix[0][j] * x[0];
        for i in 1..j {
            above = matrix[i][j].mul_add(x[i], above);
        }
        all = all + x[j] * (above + above + matrix[j][j] * x[j]);
    }
    all
}

/// The damped step within the box.
#[inline(always)]
fn step<L: Lanes, Q: Problem<L, P>, const P: usize>(
    lanes: L,
    problem: &Q,
    best: &Refined<L::F, L::M, P>,
    rhs: &[L::F; P],
    bend: &[[L::F; P]; P],
    held: &[L::M; P],
) -> [L::F; P] {
    let zero = lanes.splat(0.0);
    let v = problem.variables(lanes, &best.parameters);
    let mut free = *held;
    let mut lengths = [zero; P];
    for j in 0..P {
        let (mut slope, mut length) = (zero, zero);
        for i in 0..=j {
            slope = best.r[i][j].mul_add(rhs[i], slope);
            length = best.r[i][j].mul_add(best.r[i][j], length);
        }
        lengths[j] = length;
        let outwards = (v.at[j].le(v.low[j]) & slope.le(zero)) | (v.at[j].ge(v.high[j]) & slope.ge(zero));
        free[j] = !(held[j] | outwards);
    }
    let mut put = [zero; P];
    let model = Model { r: &best.r, lengths: &lengths, bend, damping: best.damping };
    let mut step = damped::<L, Q, P>(lanes, &model, rhs, &free, &put);
    let mut beyond = lanes.mask(false);
    for j in 0..P {
        let to = v.at[j] + step[j];
        let (under, over) = (to.lt(v.low[j]), to.gt(v.high[j]));
        let out = (under | over) & free[j];
        beyond = beyond | out;
        put[j] = lanes.select(out, lanes.select(under, v.low[j], v.high[j]) - v.at[j], zero);
        free[j] = free[j] & !out;
    }
    if beyond.any() {
        let others = damped::<L, Q, P>(lanes, &model, rhs, &free, &put);
        for j in 0..P {
            step[j] = lanes.select(beyond, lanes.select(free[j], others[j], put[j]), step[j]);
        }
    }
    step
}

/// The sum of squares near the best place: |r d - rhs|^2 - d' bend d, and how much of it is damped.
struct Model<'a, F, const P: usize> {
    r: &'a [[F; P]; P],
    /// Squares of the columns' lengths.
    lengths: &'a [F; P],
    bend: &'a [[F; P]; P],
    damping: F,
}

/// The lowest place of |r d - rhs|^2 - d' bend d + damping |D d|^2 over the free variables, the others being put where they
/// are, by Gram and Schmidt's modified process. Row P + j, the damping of column j, is the only one below row P that column
/// j begins with. Where the bend leaves no lowest place it is left out.
#[inline(never)]
fn damped<L: Lanes, Q: Problem<L, P>, const P: usize>(
    lanes: L,
    model: &Model<'_, L::F, P>,
    rhs: &[L::F; P],
    free: &[L::M; P],
    put: &[L::F; P],
) -> [L::F; P] {
    lanes.within(
        #[inline(always)]
        || damped_within::<L, Q, P>(lanes, model, rhs, free, put),
    )
}

#[inline(always)]
fn damped_within<L: Lanes, Q: Problem<L, P>, const P: usize>(
    lanes: L,
    model: &Model<'_, L::F, P>,
    rhs: &[L::F; P],
    free: &[L::M; P],
    put: &[L::F; P],
) -> [L::F; P] {
    let zero = lanes.splat(0.0);
    let one = lanes.splat(1.0);
    let mut upper = [[zero; P]; P];
    let mut lower = [[zero; P]; P];
    let mut up = *rhs;
    for j in 0..P {
        for i in 0..=j {
            upper[j][i] = lanes.select(free[j], model.r[i][j], zero);
            up[i] = up[i].minus_product(model.r[i][j], put[j]);
        }
        lower[j][j] = lanes.select(free[j], (model.lengths[j] * model.damping).sqrt(), one).max(lanes.splat(1e-18));
    }
    let mut low = [zero; P];
    let mut triangle = [[zero; P]; P];
    let mut inverses = [zero; P];
    let mut values = [zero; P];
    for j in 0..P {
        let mut square = zero;
        for i in 0..=j {
            square = upper[j][i].mul_add(upper[j][i], square);
            square = lower[j][i].mul_add(lower[j][i], square);
        }
        let length = square.sqrt();
        triangle[j][j] = length;
        let inverse = one / length;
        inverses[j] = inverse;
        for i in 0..=j {
            upper[j][i] = upper[j][i] * inverse;
            lower[j][i] = lower[j][i] * inverse;
        }
        for k in j + 1..P {
            let mut along = zero;
            for i in 0..=j {
                along = upper[j][i].mul_add(upper[k][i], along);
                along = lower[j][i].mul_add(lower[k][i], along);
            }
            triangle[j][k] = along;
            for i in 0..=j {
                upper[k][i] = upper[k][i].minus_product(along, upper[j][i]);
                lower[k][i] = lower[k][i].minus_product(along, lower[j][i]);
            }
        }
        let mut along = zero;
        for i in 0..=j {
            along = upper[j][i].mul_add(up[i], along);
            along = lower[j][i].mul_add(low[i], along);
        }
        values[j] = along;
        for i in 0..=j {
            up[i] = up[i].minus_product(along, upper[j][i]);
            low[i] = low[i].minus_product(along, lower[j][i]);
        }
    }
    if Q::BENT {
        values = bent(lanes, &triangle, &inverses, &values, model.bend, free, put);
    }
    let mut step = [zero; P];
    for j in (0..P).rev() {
        let mut sum = values[j];
        for k in j + 1..P {
            sum = sum.minus_product(triangle[j][k], step[k]);
        }
        step[j] = lanes.select(free[j], sum * inverses[j], zero);
    }
    step
}

/// Least squares have brought the model to |T d - values|^2: what `values` become with the bend, whose part in the
/// coordinates T d is K = T^-T bend T^-1; solves (I - K) y = values + T^-T bend put by Cholesky's way.
#[inline(always)]
fn bent<L: Lanes, const P: usize>(
    lanes: L,
    triangle: &[[L::F; P]; P],
    inverses: &[L::F; P],
    values: &[L::F; P],
    bend: &[[L::F; P]; P],
    free: &[L::M; P],
    put: &[L::F; P],
) -> [L::F; P] {
    let zero = lanes.splat(0.0);
    let one = lanes.splat(1.0);
    let mut w = [[zero; P]; P];
    let mut pull = [zero; P];
    for i in 0..P {
        for j in 0..P {
            let element = if i <= j { bend[i][j] } else { bend[j][i] };
            let element = lanes.select(free[i], element, zero);
            pull[i] = element.mul_add(put[j], pull[i]);
            w[i][j] = lanes.select(free[j], element, zero);
        }
    }
    // Rows by T^-1 from the right, then columns by its transpose from the left.
    for i in 0..P {
        for j in 0..P {
            let mut sum = w[i][j];
            for k in 0..j {
                sum = sum.minus_product(w[i][k], triangle[k][j]);
            }
            w[i][j] = sum * inverses[j];
        }
    }
    for i in 0..P {
        let mut sum = pull[i];
        for k in 0..i {
            sum = sum.minus_product(triangle[k][i], pull[k]);
        }
        pull[i] = sum * inverses[i];
        for j in 0..P {
            let mut sum = w[i][j];
            for k in 0..i {
                sum = sum.minus_product(triangle[k][i], w[k][j]);
            }
            w[i][j] = sum * inverses[i];
        }
    }
    // L D L' of I - K.
    let mut l = [[zero; P]; P];
    let mut pivots = [one; P];
    let mut solved = [zero; P];
    let mut firm = lanes.mask(true);
    for j in 0..P {
        let mut pivot = one - w[j][j];
        for k in 0..j {
            pivot = pivot - l[j][k] * l[j][k] * pivots[k];
        }
        firm = firm & pivot.gt(lanes.splat(FIRM));
        let pivot = pivot.max(lanes.splat(FIRM));
        let inverse = one / pivot;
        for i in j + 1..P {
            let mut sum = -w[i][j];
            for k in 0..j {
                sum = sum - l[i][k] * l[j][k] * pivots[k];
            }
            l[i][j] = sum * inverse;
        }
        let mut value = values[j] + pull[j];
        for k in 0..j {
            value = value.minus_product(l[j][k], solved[k]);
        }
        solved[j] = value;
        pivots[j] = pivot;
    }
    for j in (0..P).rev() {
        let mut value = solved[j] / pivots[j];
        for k in j + 1..P {
            value = value.minus_product(l[k][j], solved[k]);
        }
        solved[j] = value;
    }
    for j in 0..P {
        solved[j] = lanes.select(firm, solved[j], values[j]);
    }
    solved
}

#[cfg(all(test, feature = "gpu"))]
mod tests {
    use super::*;
    use crate::engine::gpu::text;

    #[test]
    fn both_texts_have_the_same_constants() {
        let shader = include_str!("../../../shaders/fit/refinement.wgsl");
        for (name, value) in [
            ("NEGLIGIBLE", NEGLIGIBLE),
            ("NEGLIGIBLE_OF_ALL", NEGLIGIBLE_OF_ALL.0),
            ("UNSEEN", UNSEEN.0),
            ("DAMPING", DAMPING),
            ("RELAX", RELAX),
            ("TIGHTEN", TIGHTEN),
            ("SMALLEST_DIAGONAL", SMALLEST_DIAGONAL),
            ("FIRM", FIRM),
        ] {
            assert_eq!(text::numbers(shader, name), [value], "{name}");
        }
    }
}
