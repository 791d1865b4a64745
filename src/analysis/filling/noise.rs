//! What filling times would be if only noise differed between voxels: errors with the spatial pattern that the noise has.
//!
//! The residuals of each frame are one draw of the noise, over the whole lesion at once. A sum of all frames' residuals
//! with independent normal weights is another draw with the same spatial covariance, whatever that is: its range, its
//! direction, its change from middle to rim (the wild bootstrap with whole frames as clusters; Wu, Annals of Statistics 14,
//! 1986; Cameron, Gelbach and Miller, Review of Economics and Statistics 90, 2008). Nothing has to be guessed from the one
//! map of filling times, which within one correlation length tells nothing about the correlation. Scaled by each voxel's
//! standard error it is an error of the map.

use rayon::prelude::*;

use crate::phantom::Random;

/// Residuals of the fits, each voxel's scaled to unit sum of squares.
#[derive(Debug)]
pub(super) struct NoiseFields {
    /// Voxel by voxel, all frames.
    residuals: Vec<f32>,
    frames: usize,
}

impl NoiseFields {
    /// Takes the residuals of voxels, `frames` each, voxel by voxel. A voxel without residuals gets no noise.
    pub(super) fn new(mut residuals: Vec<f32>, frames: usize) -> Self {
        residuals.par_chunks_mut(frames).for_each(|voxel| {
            let squares: f64 = voxel.iter().map(|r| f64::from(*r).powi(2)).sum();
            let factor = if squares > 0.0 { (1.0 / squares.sqrt()) as f32 } else { 0.0 };
            voxel.iter_mut().for_each(|r| *r *= factor);
        });
        Self { residuals, frames }
    }

    /// Independent draws, at most: the frames less the four parameters of the fits.
    pub(super) fn degrees_of_freedom(&self) -> f64 {
        self.frames.saturating_sub(4).max(1) as f64
    }

    /// One draw of the noise at every voxel, of unit variance.
    pub(super) fn draw(&self, seed: u64) -> Vec<f32> {
        let mut random = Random::new(seed, 0);
        let weights: Vec<f32> = (0..self.frames).map(|_| random.normal() as f32).collect();
        self.residuals
            .par_chunks(self.frames)
            .with_min_len(256)
            .map(|voxel| voxel.iter().zip(&weights).map(|(r, w)| r * w).sum())
            .collect()
    }

    /// The same for some voxels only.
    pub(super) fn at(&self, voxels: &[usize]) -> Self {
        let residuals = voxels.iter().flat_map(|v| &self.residuals[v * self.frames..(v + 1) * self.frames]);
        Self { residuals: residuals.copied().collect(), frames: self.frames }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_have_the_covariance_of_the_residuals() {
        // Three voxels over 60 frames: the second like the first, the third on its own.
        let mut random = Random::new(5, 0);
        let frames = 60;
        let own: Vec<f32> = (0..2 * frames).map(|_| random.normal() as f32).collect();
        let first = &own[..frames];
        let residuals: Vec<f32> = first.iter().chain(first).chain(&own[frames..]).copied().collect();
        let fields = NoiseFields::new(residuals, frames);
        let (mut squares, mut with_second, mut with_third) = (0.0, 0.0, 0.0);
        for seed in 0..4000 {
            let draw = fields.draw(seed);
            squares += draw[0] * draw[0];
            with_second += draw[0] * draw[1];
            with_third += draw[0] * draw[2];
        }
        assert!((squares / 4000.0 - 1.0).abs() < 0.07, "{}", squares / 4000.0);
        assert!((with_second / squares - 1.0).abs() < 1e-4);
        assert!((with_third / squares).abs() < 0.3, "{}", with_third / squares);
    }
}
