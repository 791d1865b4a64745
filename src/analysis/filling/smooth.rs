//! Maps of the lesion, smoothed inside it by a weighted mean: quick enough for many draws of the noise.

use super::lesion::Lesion;

/// Gaussian smoothing inside the lesion with weights: voxels without a value count for nothing, and nothing comes from outside.
#[derive(Debug)]
pub(super) struct Smoother {
    sigma_mm: f64,
    /// Per voxel: its weight, 0 where there is no value.
    weights: Vec<f64>,
    /// The smoothed weights, on the box.
    norm: Vec<f32>,
}

impl Smoother {
    /// Voxels with these weights, smoothed with this standard deviation.
    pub(super) fn new(lesion: &Lesion, weights: Vec<f64>, sigma_mm: f64) -> Self {
        let mut norm = vec![0.0f32; lesion.grid.count()];
        for (i, weight) in lesion.voxels.iter().zip(&weights) {
            norm[*i] = *weight as f32;
        }
        convolve(lesion, &mut norm, sigma_mm);
        Self { sigma_mm, weights, norm }
    }

    /// Smoothed values of the voxels; NaN where no value is near.
    pub(super) fn smooth(&self, lesion: &Lesion, values: impl Fn(usize) -> f64) -> Vec<f64> {
        let mut field = vec![0.0f32; lesion.grid.count()];
        for (n, i) in lesion.voxels.iter().enumerate() {
            if self.weights[n] > 0.0 {
                field[*i] = (self.weights[n] * values(n)) as f32;
            }
        }
        convolve(lesion, &mut field, self.sigma_mm);
        lesion
            .voxels
            .iter()
            .map(|i| if self.norm[*i] > 0.0 { f64::from(field[*i]) / f64::from(self.norm[*i]) } else { f64::NAN })
            .collect()
    }
}

/// A separable Gaussian over the box, cut at two and a half standard deviations.
fn convolve(lesion: &Lesion, field: &mut [f32], sigma_mm: f64) {
    let grid = lesion.grid;
    let mut stride = 1;
    for axis in 0..3 {
        let n = grid.shape[axis];
        let sigma = sigma_mm / grid.size_mm[axis];
        let reach = (2.5 * sigma).floor() as usize;
        if reach > 0 {
            let weights: Vec<f32> = (0..=reach).map(|d| (-0.5 * (d as f64 / sigma).powi(2)).exp() as f32).collect();
            let mut line = vec![0.0f32; n];
            for block in (0..field.len()).step_by(stride * n) {
                for offset in 0..stride {
                    let start = block + offset;
                    for (i, value) in line.iter_mut().enumerate() {
                        *value = field[start + i * stride];
                    }
                    for i in 0..n {
                        let mut sum = weights[0] * line[i];
                        for (d, weight) in weights.iter().enumerate().skip(1) {
                            let below = if i >= d { line[i - d] } else { 0.0 };
                            let above = if i + d < n { line[i + d] } else { 0.0 };
                            sum += weight * (below + above);
                        }
                        field[start + i * stride] = sum;
                    }
                }
            }
        }
        stride *= n;
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array3;

    use super::*;
    use crate::Geometry;
    use crate::series::{Mask, Series};
    use crate::time::TimeAxis;

    fn block() -> Lesion {
        let shape = [9, 8, 5, 2];
        let times = TimeAxis::uniform(1.0, 2).expect("even times");
        let series = Series::from_voxels(vec![0.0f32; 9 * 8 * 5 * 2], shape, times)
            .expect("fits")
            .with_geometry(Geometry::from_voxel_size_mm([1.0, 0.8, 2.5]));
        Lesion::new(&Mask::from_labels(Array3::ones((9, 8, 5)).view()), &series)
    }

    #[test]
    fn smoothing_keeps_a_constant_and_halves_nothing_at_the_edge() {
        let lesion = block();
        let mut weights = vec![1.0; lesion.count()];
        weights[7] = 0.0;
        let smoother = Smoother::new(&lesion, weights, 1.2);
        let smooth = smoother.smooth(&lesion, |n| if n == 7 { f64::NAN } else { 4.0 });
        assert!(smooth.iter().all(|v| (v - 4.0).abs() < 1e-5), "{smooth:?}");
    }
}
