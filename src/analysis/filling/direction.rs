//! The direction of filling: a rank measure with an interval that knows how neighbouring voxels resemble each other.
//!
//! The measure is Somers' D of filling times against a distance. What makes it differ from 0 although a lesion fills
//! everywhere at once:
//!
//! 1. **noise**, which is alike in neighbouring voxels: D is computed for draws of the noise alone ([`super::noise`]);
//! 2. **the tissue**, whose filling times may vary from place to place without a direction: the residuals of a trend along
//!    the distance give a correlogram, and that the variance of the (linearised) measure ([`super::correlogram`]);
//! 3. **the estimator**, whose error isn't symmetrical and grows as contrast to noise falls, say towards the rim: the
//!    lesion's mean curve, scaled to each voxel's height and noise, is fitted anew, and the D of that is a bias.
//!
//! The interval is D ± (t SE + |bias|), SE the larger one of 1 and 2, t of Student's distribution with as many degrees of
//! freedom as there are frames beyond the fit's four parameters.

use rayon::prelude::*;

use super::correlogram::variance_of_sum;
use super::report::Index;
use super::simulation::EqualFilling;
use super::somers::{Time, somers_d};
use super::statistics::{student_critical, student_two_sided};

/// Fewest voxels with a known time that a direction is measured on.
pub(super) const FEWEST_VOXELS: usize = 20;

/// What the uncertainty of an index is taken from: voxels with a known arrival.
#[derive(Debug)]
pub(super) struct Uncertainty<'a> {
    /// Centres in mm.
    pub(super) positions: &'a [[f64; 3]],
    /// Arrivals in seconds, and their standard errors.
    pub(super) arrival_s: &'a [f64],
    pub(super) error_s: &'a [f64],
    /// Draws of the noise at these voxels, of unit variance.
    pub(super) fields: &'a [Vec<f32>],
    pub(super) degrees_of_freedom: f64,
    /// Fits to the lesion's mean curve with each voxel's height and noise, several times over.
    pub(super) simulated: &'a [EqualFilling],
    pub(super) confidence: f64,
    pub(super) bin_mm: f64,
}

impl Uncertainty<'_> {
    /// The index of value `d` along distances (one per voxel of the uncertainty), with its interval.
    pub(super) fn index(&self, d: f64, distances: &[f64], voxels: usize) -> Index {
        let noise_se = self.noise_error(distances);
        let tissue_se = self.tissue_error(distances);
        let bias = self.bias(distances);
        let standard_error = noise_se.max(tissue_se);
        let degrees = self.degrees_of_freedom;
        let half = student_critical(1.0 - self.confidence, degrees) * standard_error + bias.abs();
        let p = student_two_sided((d.abs() - bias.abs()).max(0.0) / standard_error, degrees);
        Index {
            value: d,
            low: (d - half).max(-1.0),
            high: (d + half).min(1.0),
            p,
            standard_error,
            noise_standard_error: noise_se,
            tissue_standard_error: tissue_se,
            bias,
            voxels,
        }
    }

    /// The spread of D over draws of noise on equal times.
    fn noise_error(&self, distances: &[f64]) -> f64 {
        let squares: f64 = self
            .fields
            .par_iter()
            .map(|field| {
                let times: Vec<Time> =
                    field.iter().zip(self.error_s).map(|(z, se)| Time::Known(f64::from(*z) * se)).collect();
                somers_d(distances, &times).unwrap_or(0.0).powi(2)
            })
            .sum();
        (squares / self.fields.len() as f64).sqrt()
    }

    /// The spread of D from the correlogram of what a trend along the distance leaves.
    fn tissue_error(&self, distances: &[f64]) -> f64 {
        let n = distances.len() as f64;
        let centred =
            |values: &[f64]| -> Vec<f64> { mid_ranks(values).into_iter().map(|r| (2.0 * r + 1.0) / n - 1.0).collect() };
        let along = centred(distances);
        let mut residuals = centred(self.arrival_s);
        take_out_trend(&along, &mut residuals);
        // Kendall's measure is 2/n^2 sum over voxels of the products of centred ranks, to first order.
        let weights: Vec<f64> = along.iter().map(|u| 2.0 * u / n).collect();
        variance_of_sum(self.positions, &weights, &residuals, self.bin_mm).max(0.0).sqrt()
    }

    /// The mean D of arrivals fitted to curves that all begin at once.
    fn bias(&self, distances: &[f64]) -> f64 {
        self.simulated_mean(distances, |filling, i| {
            Some(filling.arrival_s[i]).filter(|t| t.is_finite()).map(Time::Known)
        })
    }

    /// The mean D of the level crossings of curves that all begin at once, each as high as its voxel.
    pub(super) fn level_of_equal_filling(&self, distances: &[f64]) -> f64 {
        self.simulated_mean(distances, |filling, i| filling.crossing[i])
    }

    fn simulated_mean(&self, distances: &[f64], time: impl Fn(&EqualFilling, usize) -> Option<Time> + Sync) -> f64 {
        let values: Vec<f64> = self
            .simulated
            .par_iter()
            .filter_map(|filling| {
                let known = (0..distances.len()).filter_map(|i| Some((distances[i], time(filling, i)?)));
                let (along, times): (Vec<f64>, Vec<Time>) = known.unzip();
                somers_d(&along, &times)
            })
            .collect();
        values.iter().sum::<f64>() / values.len().max(1) as f64
    }
}

/// Ranks from 0, ties sharing the mean of theirs.
fn mid_ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut from = 0;
    for group in order.chunk_by(|a, b| values[*a] == values[*b]) {
        let rank = from as f64 + (group.len() - 1) as f64 / 2.0;
        group.iter().for_each(|i| ranks[*i] = rank);
        from += group.len();
    }
    ranks
}

/// Subtracts a cubic in x, least squares.
fn take_out_trend(x: &[f64], y: &mut [f64]) {
    // Orthogonal to each other on these very points: one after the other (Gram and Schmidt).
    let mut columns: Vec<Vec<f64>> = Vec::new();
    for power in 0..4 {
        let mut column: Vec<f64> = x.iter().map(|x| x.powi(power)).collect();
        for other in &columns {
            let share: f64 = column.iter().zip(other).map(|(a, b)| a * b).sum();
            column.iter_mut().zip(other).for_each(|(a, b)| *a -= share * b);
        }
        let norm = column.iter().map(|a| a * a).sum::<f64>().sqrt();
        if norm > 1e-9 {
            column.iter_mut().for_each(|a| *a /= norm);
            columns.push(column);
        }
    }
    for column in &columns {
        let share: f64 = y.iter().zip(column).map(|(a, b)| a * b).sum();
        y.iter_mut().zip(column).for_each(|(a, b)| *a -= share * b);
    }
}
