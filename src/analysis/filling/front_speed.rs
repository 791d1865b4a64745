//! The apparent speed of the front: slowness along a distance, averaged before it is inverted.
//!
//! 1 / |grad T| voxel by voxel is biased low, since noise makes every gradient longer. Here a parabola T(d) is fitted to the
//! filling times of many voxels; its slope is the slowness, with a sign; its curvature tells whether the front slows down. What
//! the same fit gives for a lesion that fills everywhere at once is taken off ([`super::simulation`]).

use rayon::prelude::*;

use super::correlogram::variance_of_sum;
use super::report::{FrontSpeed, Path, SpeedAt, SpeedTrend};
use super::simulation::EqualFilling;
use super::statistics::{median, quantile, student_critical};

/// Rounds of weighting down what lies far off the parabola.
const ROUNDS: usize = 4;

/// The voxels that a speed is measured on.
#[derive(Debug)]
pub(super) struct Sample<'a> {
    pub(super) distance_mm: &'a [f64],
    pub(super) arrival_s: &'a [f64],
    pub(super) error_s: &'a [f64],
    /// Fits to curves that all begin at once: what they give as slowness is a bias.
    pub(super) simulated: &'a [EqualFilling],
    pub(super) positions: &'a [[f64; 3]],
    /// Draws of the noise at these voxels, of unit variance.
    pub(super) fields: &'a [Vec<f32>],
    pub(super) degrees_of_freedom: f64,
    pub(super) confidence: f64,
    pub(super) bin_mm: f64,
}

/// A weighted parabola: coefficients as sums over the voxels' times.
#[derive(Debug)]
pub(super) struct Parabola {
    middle: f64,
    coefficients: Vec<f64>,
    /// For each coefficient, the weight of every voxel's time.
    rows: Vec<Vec<f64>>,
    /// What it leaves.
    pub(super) residuals: Vec<f64>,
    pub(super) explained: f64,
}

impl Sample<'_> {
    /// Fits a polynomial of this degree (1 or 2) in the distance to these voxels.
    fn fit(&self, arrival_s: &[f64], voxels: &[usize], degree: usize) -> Option<Parabola> {
        let n = voxels.len();
        if n < 5 * (degree + 1) {
            return None;
        }
        let along: Vec<f64> = voxels.iter().map(|i| self.distance_mm[*i]).collect();
        let times: Vec<f64> = voxels.iter().map(|i| arrival_s[*i]).collect();
        let middle = median(&along)?;
        let basis: Vec<Vec<f64>> =
            (0..=degree).map(|power| along.iter().map(|d| (d - middle).powi(power as i32)).collect()).collect();
        let typical = median(&voxels.iter().map(|i| self.error_s[*i]).collect::<Vec<_>>())?.max(1e-9);
        // The voxels' own scatter joins their standard errors, so that a few precise ones don't decide alone.
        let mut weights: Vec<f64> =
            voxels.iter().map(|i| 1.0 / (self.error_s[*i].powi(2) + typical * typical)).collect();
        let mut fit = None;
        for _ in 0..ROUNDS {
            let (coefficients, rows) = least_squares(&basis, &weights, &times)?;
            let residuals: Vec<f64> = (0..n)
                .map(|i| times[i] - coefficients.iter().zip(&basis).map(|(c, b)| c * b[i]).sum::<f64>())
                .collect();
            let spread = 1.4826 * median(&residuals.iter().map(|r| r.abs()).collect::<Vec<_>>())?;
            for (i, weight) in weights.iter_mut().enumerate() {
                let own = (self.error_s[voxels[i]].powi(2) + spread * spread).max(1e-18);
                let off = residuals[i].abs() / own.sqrt();
                // Huber's weight.
                *weight = (2.0 / off.max(2.0)) / own;
            }
            fit = Some((coefficients, rows, residuals));
        }
        let (coefficients, rows, residuals) = fit?;
        let total: f64 = weights.iter().sum();
        let mean = weights.iter().zip(&times).map(|(w, t)| w * t).sum::<f64>() / total;
        let left: f64 = weights.iter().zip(&residuals).map(|(w, r)| w * r * r).sum();
        let all: f64 = weights.iter().zip(&times).map(|(w, t)| w * (t - mean).powi(2)).sum();
        let explained = if all > 0.0 { 1.0 - left / all } else { 0.0 };
        Some(Parabola { middle, coefficients, rows, residuals, explained })
    }

    /// The standard error of a weighted sum of these voxels' times.
    fn error(&self, voxels: &[usize], weights: &[f64], residuals: &[f64]) -> f64 {
        let squares: f64 = self
            .fields
            .par_iter()
            .map(|field| {
                let sum: f64 =
                    voxels.iter().zip(weights).map(|(i, w)| w * f64::from(field[*i]) * self.error_s[*i]).sum();
                sum * sum
            })
            .sum();
        let positions: Vec<[f64; 3]> = voxels.iter().map(|i| self.positions[*i]).collect();
        let tissue = variance_of_sum(&positions, weights, residuals, self.bin_mm);
        (squares / self.fields.len() as f64).max(if tissue.is_finite() { tissue } else { 0.0 }).sqrt()
    }

    /// What fits to curves that all begin at once give: slope and half of the curvature at a distance, on average.
    fn bias(&self, voxels: &[usize], degree: usize, at_mm: f64) -> (f64, f64) {
        let fits: Vec<(f64, f64)> = self
            .simulated
            .par_iter()
            .filter_map(|filling| {
                let known: Vec<usize> = voxels.iter().copied().filter(|i| filling.arrival_s[*i].is_finite()).collect();
                let fit = self.fit(&filling.arrival_s, &known, degree)?;
                let half_curvature = fit.coefficients.get(2).copied().unwrap_or(0.0);
                Some((fit.coefficients[1] + 2.0 * (at_mm - fit.middle) * half_curvature, half_curvature))
            })
            .collect();
        let n = fits.len().max(1) as f64;
        (fits.iter().map(|f| f.0).sum::<f64>() / n, fits.iter().map(|f| f.1).sum::<f64>() / n)
    }

    /// Slowness over these voxels with its standard error, in s/mm, by a straight line.
    pub(super) fn slowness(&self, voxels: &[usize]) -> Option<(f64, f64)> {
        let line = self.fit(self.arrival_s, voxels, 1)?;
        let (bias, _) = self.bias(voxels, 1, line.middle);
        Some((line.coefficients[1] - bias, self.error(voxels, &line.rows[1], &line.residuals)))
    }

    /// The speed along this distance; `at_mm`: where it is listed.
    pub(super) fn speed(&self, voxels: &[usize], path: Path, at_mm: &[f64]) -> Option<FrontSpeed> {
        let parabola = self.fit(self.arrival_s, voxels, 2)?;
        let (slope_bias, half_curvature_bias) = self.bias(voxels, 2, parabola.middle);
        let critical = student_critical(1.0 - self.confidence, self.degrees_of_freedom);
        let slope_at = |distance: f64| {
            let x = 2.0 * (distance - parabola.middle);
            let value = parabola.coefficients[1] - slope_bias + x * (parabola.coefficients[2] - half_curvature_bias);
            let weights: Vec<f64> =
                parabola.rows[1].iter().zip(&parabola.rows[2]).map(|(one, two)| one + x * two).collect();
            (value, self.error(voxels, &weights, &parabola.residuals))
        };
        let (slowness, error) = slope_at(parabola.middle);
        let curvature = 2.0 * (parabola.coefficients[2] - half_curvature_bias);
        let curvature_error = 2.0 * self.error(voxels, &parabola.rows[2], &parabola.residuals);
        let half = critical * curvature_error;
        let change = [curvature - half, curvature + half];
        let determined = slowness.abs() > critical * error;
        let trend = match change {
            [low, _] if determined && low > 0.0 => SpeedTrend::Decelerating,
            [_, high] if determined && high < 0.0 => SpeedTrend::Accelerating,
            _ => SpeedTrend::Undetermined,
        };
        let by_distance = at_mm
            .iter()
            .map(|distance| {
                let (slowness, error) = slope_at(*distance);
                SpeedAt {
                    distance_mm: *distance,
                    slowness_s_per_mm: slowness,
                    speed_mm_per_s: 1.0 / slowness.abs(),
                    interval_mm_per_s: speed_interval(slowness, critical * error),
                }
            })
            .collect();
        Some(FrontSpeed {
            path,
            explained: parabola.explained,
            slowness_s_per_mm: slowness,
            slowness_se_s_per_mm: error,
            slowness_bias_s_per_mm: slope_bias,
            median_mm_per_s: determined.then(|| 1.0 / slowness.abs()),
            interval_mm_per_s: speed_interval(slowness, critical * error),
            slowness_change_s_per_mm2: curvature,
            slowness_change_interval: change,
            trend,
            by_distance,
        })
    }
}

/// The interval of 1 / |s| for s within ± half: infinite above where s may be 0.
fn speed_interval(slowness: f64, half: f64) -> [f64; 2] {
    let magnitude = slowness.abs();
    let high = if magnitude > half { 1.0 / (magnitude - half) } else { f64::INFINITY };
    [1.0 / (magnitude + half), high]
}

/// Bounds of groups of equally many, by value: one number more than there are groups. Where values tie there are fewer groups
/// than asked for, since none is empty or of no width.
pub(super) fn equal_groups(values: &[f64], groups: usize) -> Vec<f64> {
    let up_to = |bound: f64| values.iter().filter(|value| **value <= bound).count();
    let mut bounds: Vec<f64> = quantile(values, 0.0).into_iter().collect();
    let mut members = 0;
    for bound in (1..=groups).filter_map(|g| quantile(values, g as f64 / groups as f64)) {
        let count = up_to(bound);
        if count > members && bounds.last().is_some_and(|last| bound > *last) {
            bounds.push(bound);
            members = count;
        }
    }
    // All values are the same.
    if bounds.len() == 1 {
        bounds.push(bounds[0]);
    }
    bounds
}

/// Weighted least squares: the coefficients, and each as a sum over the data. `None` if the columns depend on each other.
pub(super) fn least_squares(basis: &[Vec<f64>], weights: &[f64], data: &[f64]) -> Option<(Vec<f64>, Vec<Vec<f64>>)> {
    let k = basis.len();
    // [normal matrix | identity], Gauss and Jordan, with the columns scaled to unit length.
    let length: Vec<f64> =
        basis.iter().map(|b| b.iter().zip(weights).map(|(x, w)| w * x * x).sum::<f64>().sqrt()).collect();
    if length.iter().any(|l| !(l.is_finite() && *l > 0.0)) {
        return None;
    }
    let mut matrix: Vec<Vec<f64>> = (0..k)
        .map(|a| {
            let entry = |b: usize| {
                let sum: f64 = basis[a].iter().zip(&basis[b]).zip(weights).map(|((x, y), w)| w * x * y).sum();
                sum / (length[a] * length[b])
            };
            (0..k).map(entry).chain((0..k).map(|b| f64::from(u8::from(a == b)))).collect()
        })
        .collect();
    for column in 0..k {
        let pivot = (column..k).max_by(|a, b| matrix[*a][column].abs().total_cmp(&matrix[*b][column].abs()))?;
        matrix.swap(column, pivot);
        let value = matrix[column][column];
        if value.abs() < 1e-9 {
            return None;
        }
        matrix[column].iter_mut().for_each(|x| *x /= value);
        let row = matrix[column].clone();
        for (_, other) in matrix.iter_mut().enumerate().filter(|(r, _)| *r != column) {
            let factor = other[column];
            other.iter_mut().zip(&row).for_each(|(x, y)| *x -= factor * y);
        }
    }
    let rows: Vec<Vec<f64>> = (0..k)
        .map(|a| {
            (0..data.len())
                .map(|i| {
                    let sum: f64 = (0..k).map(|b| matrix[a][k + b] * basis[b][i] / length[b]).sum();
                    weights[i] * sum / length[a]
                })
                .collect()
        })
        .collect();
    let coefficients = rows.iter().map(|row| row.iter().zip(data).map(|(r, y)| r * y).sum()).collect();
    Some((coefficients, rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_of_the_speed_are_inverted_and_open_at_zero() {
        let [low, high] = speed_interval(-4.0, 1.0);
        assert!((low - 0.2).abs() < 1e-12 && (high - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(speed_interval(0.5, 1.0)[1], f64::INFINITY);
    }

    #[test]
    fn no_group_is_empty_where_values_tie() {
        assert_eq!(equal_groups(&[0.0, 1.0, 2.0, 3.0, 4.0], 2), [0.0, 2.0, 4.0]);
        let mut ties = vec![1.0; 10];
        ties.extend([2.0, 3.0]);
        assert_eq!(equal_groups(&ties, 3), [1.0, 3.0]);
        assert_eq!(equal_groups(&[0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 2.0, 2.0], 4), [0.0, 0.5, 2.0]);
        assert_eq!(equal_groups(&[5.0; 4], 6), [5.0, 5.0]);
        assert!(equal_groups(&[], 6).is_empty());
    }

    #[test]
    fn a_parabola_is_found_exactly_and_its_rows_give_its_coefficients() {
        let x: Vec<f64> = (0..30).map(|i| f64::from(i) * 0.3).collect();
        let basis: Vec<Vec<f64>> = (0..3).map(|p| x.iter().map(|x| x.powi(p)).collect()).collect();
        let y: Vec<f64> = x.iter().map(|x| 4.0 - 2.0 * x + 0.7 * x * x).collect();
        let weights: Vec<f64> = (0..30).map(|i| 1.0 + f64::from(i % 4)).collect();
        let (found, _) = least_squares(&basis, &weights, &y).unwrap();
        for (found, exact) in found.iter().zip([4.0, -2.0, 0.7]) {
            assert!((found - exact).abs() < 1e-9, "{found} {exact}");
        }
        assert!(least_squares(&[basis[0].clone(), basis[0].clone()], &weights, &y).is_none());
    }
}
