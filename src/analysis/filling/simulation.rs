//! What the fits would find if the lesion filled everywhere at once: its mean curve, scaled to each voxel's height and noise.
//!
//! Two things depend on height and noise without any front. The arrival's error is not symmetrical, so its mean moves a
//! little as contrast to noise falls. And a low curve crosses a common level later than a high one that begins with it.

use rayon::prelude::*;

use crate::engine::{Engine, RunOptions};
use crate::error::Result;
use crate::kernels::filling_time::FillingTime;
use crate::phantom::Random;
use crate::quantity::Quantity;
use crate::series::Series;
use crate::status;

use super::settings::FillingPattern;
use super::somers::Time;
use super::statistics::quantile;
use super::times::FillingTimes;

/// Voxels that are simulated, at most, and how often each.
const MOST_VOXELS: usize = 2000;
const REPEATS: usize = 12;

/// Filling times of simulated curves, one per voxel: NaN where none is simulated or found.
#[derive(Debug)]
pub(super) struct EqualFilling {
    pub(super) arrival_s: Vec<f64>,
    /// `None` where none is simulated.
    pub(super) crossing: Vec<Option<Time>>,
}

/// Simulates these voxels' curves several times over. The noise is independent between voxels, since only means over it are
/// wanted.
pub(super) fn equal_filling(
    settings: &FillingPattern,
    engine: &Engine,
    curves: &Series,
    times: &FillingTimes,
    voxels: &[usize],
    options: &RunOptions<'_>,
) -> Result<Vec<EqualFilling>> {
    if voxels.is_empty() {
        return Ok(Vec::new());
    }
    let (frames, count) = (curves.frames(), curves.voxel_count());
    let direction = settings.direction();
    let scaling = curves.scaling();
    let curve = |i: usize| -> Vec<f64> {
        (0..frames)
            .map(|t| {
                let sample = scaling.slope * curves.resident().get_f64(i + t * count) + scaling.intercept;
                direction * (sample - times.baseline[i])
            })
            .collect()
    };
    let shape: Vec<f64> = voxels
        .par_iter()
        .map(|i| curve(*i))
        .reduce(|| vec![0.0; frames], |a, b| a.iter().zip(&b).map(|(a, b)| a + b).collect());
    // Heights are compared as long after each voxel's own arrival: one that fills later isn't lower for that.
    let seconds = curves.times()?.seconds();
    let arrivals: Vec<f64> = voxels.iter().map(|i| times.arrival_s[*i]).collect();
    let (Some(middle), Some(late)) = (quantile(&arrivals, 0.5), quantile(&arrivals, 0.9)) else {
        return Ok(Vec::new());
    };
    let end = seconds[times.frames - 1];
    let window = (end - late).max(0.25 * (end - middle));
    let at = seconds.partition_point(|t| *t < middle + window).min(times.frames - 1);
    let unit = shape[at];
    if unit <= 0.0 {
        return Ok(Vec::new());
    }
    let step = voxels.len().div_ceil(MOST_VOXELS);
    let chosen: Vec<usize> = (0..voxels.len()).step_by(step).collect();
    let n = chosen.len();
    let heights: Vec<f64> = chosen
        .iter()
        .map(|c| voxels[*c])
        .map(|i| times.plateau[i] * -(-window / times.tau_s[i]).exp_m1() / unit)
        .collect();
    let mut samples = vec![0.0f32; n * REPEATS * frames];
    samples.par_chunks_mut(n * REPEATS).enumerate().for_each(|(t, samples)| {
        let mut random = Random::new(settings.seed.wrapping_add(3_000_017), t as u64);
        for (k, sample) in samples.iter_mut().enumerate() {
            let (height, noise) = (heights[k % n], times.noise_sd[voxels[chosen[k % n]]]);
            *sample = (direction * (height * shape[t] + noise * random.normal())) as f32;
        }
    });
    let series = Series::from_voxels(samples, [n, REPEATS, 1, frames], curves.times()?.clone())?;
    let kernel = FillingTime::new()
        .kind(settings.kind)
        .polarity(settings.polarity)
        .enhancement_threshold(settings.enhancement_threshold)
        .frames(times.frames)
        .crossing_half_window(times.half_window)
        .level(times.level);
    let run = RunOptions { cancel: options.cancel.clone(), ..RunOptions::new() };
    let maps = engine.run_with(&kernel, &series, &run)?;
    let (arrivals, crossings) = (maps.get(Quantity::FRONT_ARRIVAL)?, maps.get(Quantity::LEVEL_CROSSING)?);
    let words = maps.status();
    Ok((0..REPEATS)
        .map(|repeat| {
            let mut filling =
                EqualFilling { arrival_s: vec![f64::NAN; voxels.len()], crossing: vec![None; voxels.len()] };
            for (k, c) in chosen.iter().enumerate() {
                let at = [k, repeat, 0];
                filling.arrival_s[*c] = f64::from(arrivals[at]);
                filling.crossing[*c] = match f64::from(crossings[at]) {
                    time if time.is_finite() => Some(Time::Known(time)),
                    _ if words[at] & (status::CENSORED | status::NOT_ENHANCING) != 0 => Some(Time::Censored),
                    _ => None,
                };
            }
            filling
        })
        .collect())
}
