//! How good a fit is: sum of squares, coefficient of determination, information criterion, covariance.
//!
//! A voxel does not enhance (status bit `NOT_ENHANCING`) when the zero curve is the better model by the information
//! criterion: N ln(sum C^2 / N) <= AICc of the fit; or when its curve is 0 throughout.

use crate::kernel::lanes::{Lanes, Numbers};

/// What a fit leaves, of one voxel's curve.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Goodness<F, M> {
    /// Sum of squared residuals: mM^2.
    pub(in super::super) sse: F,
    /// 1 - SSE / sum (C - mean C)^2.
    pub(in super::super) r_squared: F,
    /// Whether the curve isn't constant, so that `r_squared` has a value.
    pub(in super::super) varies: M,
    /// N ln(SSE / N) + 2 k + 2 k (k + 1) / (N - k - 1).
    pub(in super::super) aic: F,
    /// Whether `aic` has a value: residuals are left, and N > k + 1.
    pub(in super::super) has_aic: M,
    /// Whether the zero curve is the better model.
    pub(in super::super) not_enhancing: M,
    /// SSE / (N - k); 0 where N = k.
    pub(in super::super) variance: F,
}

/// Smallest sum of squares that is not 0: mM^2. Below it, 32-bit arithmetic flushes.
const SMALLEST_SUM: f64 = 1e-30;

/// Goodness from sums over the N frames: residuals squared, samples squared, samples squared about their mean; with `free`
/// parameters per voxel, a whole number.
#[inline(always)]
pub(in super::super) fn goodness<L: Lanes>(
    lanes: L,
    frames: usize,
    free: L::F,
    sse: L::F,
    sum_of_squares: L::F,
    squares_about_mean: L::F,
) -> Goodness<L::F, L::M> {
    let n = lanes.count(frames);
    let one = lanes.splat(1.0);
    let zero = lanes.splat(0.0);
    let smallest = lanes.splat(SMALLEST_SUM);
    let varies = squares_about_mean.gt(smallest);
    let r_squared = one - sse / lanes.select(varies, squares_about_mean, one);
    let spare = n - free - one;
    let left = sse.gt(smallest);
    let has_aic = left & spare.gt(zero);
    let two = lanes.splat(2.0);
    let spare = lanes.select(spare.gt(zero), spare, one);
    let penalty = two * free + two * free * (free + one) / spare;
    let aic = n * (lanes.select(left, sse, one) / n).ln() + penalty;
    let something = sum_of_squares.gt(smallest);
    // N ln(sum C^2 / SSE) <= penalty, without the difference of two logarithms.
    let ratio = lanes.select(something, sum_of_squares, one) / lanes.select(left, sse, one);
    let no_better = (n * lanes.select(left, ratio, one).ln()).le(penalty);
    let not_enhancing = !something | (left & no_better);
    let degrees = n - free;
    let variance = lanes.select(degrees.gt(zero), sse / lanes.select(degrees.gt(zero), degrees, one), zero);
    Goodness { sse, r_squared, varies, aic, has_aic, not_enhancing, variance }
}

/// The inverse of an upper triangular matrix R, in rows. J = Q R gives (J'J)^-1 = R^-1 R^-T, so the variance of a
/// parameter with gradient g is |g R^-1|^2: without forming J'J, whose condition is that of J squared.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct InverseTriangle<F, M, const P: usize> {
    rows: [[F; P]; P],
    /// Whether R has an inverse.
    pub(in super::super) regular: M,
}

/// A diagonal element of R below this share of its column's length is 0: the column depends on the others.
const DEPENDENT: f64 = 1e-5;

#[inline(always)]
pub(in super::super) fn invert<L: Lanes, const P: usize>(
    lanes: L,
    r: &[[L::F; P]; P],
) -> InverseTriangle<L::F, L::M, P> {
    let zero = lanes.splat(0.0);
    let one = lanes.splat(1.0);
    let mut rows = [[zero; P]; P];
    let mut regular = lanes.mask(true);
    for j in 0..P {
        let mut length = zero;
        for row in r.iter().take(j + 1) {
            length = length + row[j] * row[j];
        }
        let limit = lanes.splat(DEPENDENT) * length.sqrt();
        let independent = r[j][j].gt(limit) & r[j][j].gt(lanes.splat(1e-18));
        regular = regular & independent;
        let diagonal = one / lanes.select(independent, r[j][j], one);
        rows[j][j] = diagonal;
        for i in (0..j).rev() {
            let mut sum = zero;
            for k in i..j {
                sum = sum + rows[i][k] * r[k][j];
            }
            rows[i][j] = -(sum * diagonal);
        }
    }
    InverseTriangle { rows, regular }
}

impl<F: Numbers<Mask = M>, M, const P: usize> InverseTriangle<F, M, P> {
    /// The standard error of a parameter with this gradient by the columns' coefficients.
    #[inline(always)]
    pub(in super::super) fn standard_error<L: Lanes<F = F>>(&self, lanes: L, gradient: [F; P], variance: F) -> F {
        let mut sum = lanes.splat(0.0);
        for j in 0..P {
            let mut element = lanes.splat(0.0);
            for (i, gradient) in gradient.iter().enumerate().take(j + 1) {
                element = element + *gradient * self.rows[i][j];
            }
            sum = sum + element * element;
        }
        (variance * sum).sqrt()
    }
}

/// Whether a standard error exceeds half of its parameter's value.
#[inline(always)]
pub(in super::super) fn is_not_identifiable<L: Lanes>(lanes: L, value: L::F, standard_error: L::F) -> L::M {
    standard_error.gt(lanes.splat(0.5) * value.abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::lanes::Double;

    #[test]
    fn a_straight_line_has_its_textbook_standard_errors() {
        // Columns 1 and t over t = 0 .. 4: Var(slope) = s^2 / sum (t - 2)^2, Var(intercept) = s^2 (1/5 + 4 / 10).
        let r = [[5f64.sqrt(), 10.0 / 5f64.sqrt()], [0.0, 10f64.sqrt()]];
        let inverse = invert(Double, &r);
        assert!(inverse.regular);
        assert!((inverse.standard_error(Double, [0.0, 1.0], 4.0) - (4f64 / 10.0).sqrt()).abs() < 1e-14);
        assert!((inverse.standard_error(Double, [1.0, 0.0], 4.0) - (4.0 * (0.2 + 0.4f64)).sqrt()).abs() < 1e-14);
    }

    #[test]
    fn dependent_columns_have_no_inverse() {
        assert!(!invert(Double, &[[1.0, 2.0], [0.0, 1e-9]]).regular);
    }

    #[test]
    fn criterion_and_determination() {
        let g = goodness(Double, 20, 3.0, 0.5, 30.0, 10.0);
        assert!((g.r_squared - 0.95).abs() < 1e-15);
        assert!((g.aic - (20.0 * (0.5f64 / 20.0).ln() + 6.0 + 24.0 / 16.0)).abs() < 1e-12);
        assert!(!g.not_enhancing);
        assert!((g.variance - 0.5 / 17.0).abs() < 1e-16);
        assert!(goodness(Double, 20, 3.0, 29.0, 30.0, 10.0).not_enhancing);
        assert!(goodness(Double, 20, 3.0, 0.0, 0.0, 0.0).not_enhancing);
        assert!(!goodness(Double, 4, 3.0, 0.5, 30.0, 10.0).has_aic);
    }
}
