//! Maps of the lesion, smoothed inside it, and their gradients.

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

/// The gradient per mm of a map at a voxel, by central differences, one-sided where a neighbour has no value; `None` if along
/// some axis of more than one voxel neither neighbour has one.
pub(super) fn gradient(lesion: &Lesion, values: &[f64], voxel: usize) -> Option<[f64; 3]> {
    let grid = lesion.grid;
    let here = values[voxel];
    if !here.is_finite() {
        return None;
    }
    let at = |step: [isize; 3]| {
        let other = grid.neighbour(lesion.voxels[voxel], step)?;
        let value = values[lesion.number[other]? as usize];
        value.is_finite().then_some(value)
    };
    let mut gradient = [0.0; 3];
    for axis in 0..3 {
        let mut step = [0; 3];
        step[axis] = 1;
        let above = at(step);
        step[axis] = -1;
        let below = at(step);
        gradient[axis] = match (below, above) {
            (Some(below), Some(above)) => (above - below) / (2.0 * grid.size_mm[axis]),
            (None, Some(above)) => (above - here) / grid.size_mm[axis],
            (Some(below), None) => (here - below) / grid.size_mm[axis],
            // One slice: nothing can be said of that axis, and nothing is claimed.
            (None, None) if grid.shape[axis] == 1 => 0.0,
            (None, None) => return None,
        };
    }
    Some(gradient)
}

/// The cosine of the angle between two gradients; `None` if one has no length.
pub(super) fn cosine(a: [f64; 3], b: [f64; 3]) -> Option<f64> {
    let dot = |a: [f64; 3], b: [f64; 3]| a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    (lengths > 0.0).then(|| (dot(a, b) / lengths).clamp(-1.0, 1.0))
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
    fn gradients_equal_closed_forms() {
        let lesion = block();
        // Linear: exact everywhere. Quadratic: exact inside, where differences are central.
        let linear: Vec<f64> = (0..lesion.count())
            .map(|n| {
                let [x, y, z] = lesion.position_mm(n);
                2.0 * x - 3.0 * y + 0.5 * z
            })
            .collect();
        let quadratic: Vec<f64> = (0..lesion.count()).map(|n| lesion.position_mm(n)[1].powi(2)).collect();
        for n in 0..lesion.count() {
            let g = gradient(&lesion, &linear, n).unwrap();
            assert!((g[0] - 2.0).abs() < 1e-9 && (g[1] + 3.0).abs() < 1e-9 && (g[2] - 0.5).abs() < 1e-9, "{g:?}");
            if !lesion.rim[n] {
                let g = gradient(&lesion, &quadratic, n).unwrap();
                assert!((g[1] - 2.0 * lesion.position_mm(n)[1]).abs() < 1e-9);
            }
        }
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
