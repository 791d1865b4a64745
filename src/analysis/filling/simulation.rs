//! What the fits would find if the lesion filled everywhere at once: its mean curve, scaled to each voxel's height and noise.

use rayon::prelude::*;

use crate::engine::{Engine, RunOptions};
use crate::error::Result;
use crate::kernels::filling_time::FillingTime;
use crate::phantom::Random;
use crate::quantity::Quantity;
use crate::series::Series;

use super::settings::FillingPattern;
use super::times::FillingTimes;

/// Voxels that are simulated, at most, and how often each.
const MOST_VOXELS: usize = 2000;
const REPEATS: usize = 12;

/// Arrivals of simulated curves: per repeat one for each of the voxels, NaN where none is simulated or found.
///
/// The noise is independent between voxels, since only the mean of the index over it is wanted.
pub(super) fn equal_arrivals(
    settings: &FillingPattern,
    engine: &Engine,
    curves: &Series,
    times: &FillingTimes,
    voxels: &[usize],
    options: &RunOptions<'_>,
) -> Result<Vec<Vec<f64>>> {
    if voxels.is_empty() {
        return Ok(Vec::new());
    }
    let (frames, count) = (curves.frames(), curves.voxel_count());
    let direction = settings.direction();
    let scaling = curves.scaling();
    let curve = |i: usize| -> Vec<f64> {
        (0..frames)
            .map(|t| {
                let sample = scaling.slope * curves.voxels().get_f64(i + t * count) + scaling.intercept;
                direction * (sample - times.baseline[i])
            })
            .collect()
    };
    let shape: Vec<f64> = voxels
        .par_iter()
        .map(|i| curve(*i))
        .reduce(|| vec![0.0; frames], |a, b| a.iter().zip(&b).map(|(a, b)| a + b).collect());
    let mean = shape.iter().sum::<f64>() / frames as f64;
    let centred: Vec<f64> = shape.iter().map(|y| y - mean).collect();
    let squares: f64 = centred.iter().map(|y| y * y).sum();
    if squares <= 0.0 {
        return Ok(Vec::new());
    }
    let step = voxels.len().div_ceil(MOST_VOXELS);
    let chosen: Vec<usize> = (0..voxels.len()).step_by(step).collect();
    let n = chosen.len();
    // How high each voxel goes, and how noisy it is.
    let heights: Vec<f64> = chosen
        .par_iter()
        .map(|c| curve(voxels[*c]).iter().zip(&centred).map(|(y, g)| y * g).sum::<f64>() / squares)
        .collect();
    let mut samples = vec![0.0f32; n * REPEATS * frames];
    samples.par_chunks_mut(n * REPEATS).enumerate().for_each(|(t, samples)| {
        let mut random = Random::new(settings.seed.wrapping_add(3_000_017), t as u64);
        for (k, sample) in samples.iter_mut().enumerate() {
            let (height, noise) = (heights[k % n], times.noise_sd[voxels[chosen[k % n]]]);
            *sample = (direction * (height * shape[t] + noise * random.normal())) as f32;
        }
    });
    let series = Series::from_voxels(samples, [n, REPEATS, 1, frames], curves.times().clone())?;
    let kernel = FillingTime::new()
        .kind(settings.kind)
        .polarity(settings.polarity)
        .enhancement_threshold(settings.enhancement_threshold)
        .frames(times.frames);
    let run = RunOptions { cancel: options.cancel.clone(), ..RunOptions::new() };
    let maps = engine.run_with(&kernel, &series, &run)?;
    let arrivals = maps.get(Quantity::FRONT_ARRIVAL)?;
    Ok((0..REPEATS)
        .map(|repeat| {
            let mut all = vec![f64::NAN; voxels.len()];
            for (k, c) in chosen.iter().enumerate() {
                all[*c] = f64::from(arrivals[[k, repeat, 0]]);
            }
            all
        })
        .collect())
}
