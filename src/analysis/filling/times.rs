//! Filling times of the lesion's voxels, two ways: the fitted arrival of the front, and the crossing of one common level.

use rayon::prelude::*;

use crate::engine::{Engine, RunOptions};
use crate::error::Result;
use crate::kernels::filling_time::FillingTime;
use crate::maps::Maps;
use crate::quantity::Quantity;
use crate::series::Series;
use crate::status;

use super::settings::FillingPattern;
use super::somers::Time;
use super::statistics::quantile;

/// The window ends where the lesion's mean curve peaks if it falls by more than this share of its rise afterwards.
const WASH_OUT: f64 = 0.1;

/// Filling times and what the fits found, per voxel of the lesion; NaN where there is none.
#[derive(Debug)]
pub(super) struct FillingTimes {
    pub(super) arrival_s: Vec<f64>,
    pub(super) arrival_se_s: Vec<f64>,
    pub(super) crossing_s: Vec<f64>,
    pub(super) crossing_se_s: Vec<f64>,
    pub(super) baseline: Vec<f64>,
    pub(super) plateau: Vec<f64>,
    pub(super) tau_s: Vec<f64>,
    pub(super) noise_sd: Vec<f64>,
    pub(super) status: Vec<u32>,
    /// Frames that the fits use.
    pub(super) frames: usize,
    /// The time of the last of them.
    pub(super) end_s: f64,
    /// Median over the enhancing voxels of the fitted enhancement at the end of those frames, in the unit of the samples.
    pub(super) reference_plateau: f64,
    /// The common level above each voxel's constant, in the unit of the samples.
    pub(super) level: f64,
    /// Frames on either side of a crossing that its line goes through.
    pub(super) half_window: usize,
    /// The run whose record tells how the times came about.
    pub(super) run: Maps,
}

impl FillingTimes {
    /// Whether a voxel enhances.
    pub(super) fn enhances(&self, voxel: usize) -> bool {
        self.status[voxel] & (status::NOT_ENHANCING | status::NON_FINITE_SAMPLE) == 0
    }

    /// Whether a voxel reaches the common level.
    pub(super) fn reaches_level(&self, voxel: usize) -> bool {
        self.crossing_s[voxel].is_finite()
    }

    /// The weight of every voxel's arrival in smoothing: 1/SE², at most four times the median, since one voxel that happens
    /// to fit very well must not speak for all around it; 0 where there is no arrival.
    pub(super) fn weights(&self) -> Vec<f64> {
        let weight = |n: usize| self.arrival(n).map_or(0.0, |(_, error)| 1.0 / (error * error).max(1e-12));
        let weights: Vec<f64> = (0..self.status.len()).map(weight).collect();
        let some: Vec<f64> = weights.iter().copied().filter(|w| *w > 0.0).collect();
        let most = 4.0 * quantile(&some, 0.5).unwrap_or(1.0);
        weights.into_iter().map(|w| w.min(most)).collect()
    }

    /// When the fitted curve reaches half of the height that it has at the end of the frames used; NaN without a fit.
    pub(super) fn half_rise_s(&self, voxel: usize) -> f64 {
        let (arrival, tau) = (self.arrival_s[voxel], self.tau_s[voxel]);
        // 1 - exp(-x/tau) is half of what it is at the end.
        arrival - tau * (0.5 * (-(self.end_s - arrival) / tau).exp_m1()).ln_1p()
    }

    /// The arrival if it is known with its error.
    pub(super) fn arrival(&self, voxel: usize) -> Option<(f64, f64)> {
        let (time, error) = (self.arrival_s[voxel], self.arrival_se_s[voxel]);
        (time.is_finite() && error.is_finite()).then_some((time, error))
    }

    /// The crossing of the common level; censored where it isn't reached, `None` where that can't be told.
    pub(super) fn crossing(&self, voxel: usize) -> Option<Time> {
        match self.crossing_s[voxel] {
            time if time.is_finite() => Some(Time::Known(time)),
            // What doesn't enhance never reaches the level, whatever its noise does.
            _ if self.status[voxel] & (status::CENSORED | status::NOT_ENHANCING) != 0 => Some(Time::Censored),
            _ => None,
        }
    }
}

/// Runs the fits over the lesion's curves, chooses the common level, and finds its crossings.
pub(super) fn measure(
    settings: &FillingPattern,
    engine: &Engine,
    curves: &Series,
    options: &RunOptions<'_>,
) -> Result<FillingTimes> {
    let direction = settings.direction();
    let mean = mean_curve(curves, direction);
    let frames = settings.frames.unwrap_or_else(|| frames_before_wash_out(&mean));
    let kernel = FillingTime::new()
        .kind(settings.kind)
        .polarity(settings.polarity)
        .enhancement_threshold(settings.enhancement_threshold)
        .frames(frames);
    let first = engine.run_with(&kernel, curves, options)?;
    let column = |maps: &Maps, quantity: Quantity| -> Result<Vec<f64>> {
        Ok(maps.get(quantity)?.iter().map(|v| f64::from(*v)).collect())
    };
    let times = curves.times()?.seconds();
    let end = times[frames - 1];
    let [arrival_s, plateau, tau_s] = [Quantity::FRONT_ARRIVAL, Quantity::FITTED_PLATEAU, Quantity::RISE_TIME_CONSTANT]
        .map(|quantity| column(&first, quantity));
    let (arrival_s, plateau, tau_s) = (arrival_s?, plateau?, tau_s?);
    let reached: Vec<f64> = (0..arrival_s.len())
        .map(|i| plateau[i] * -(-(end - arrival_s[i]) / tau_s[i]).exp_m1())
        .filter(|height| height.is_finite() && *height > 0.0)
        .collect();
    let reference_plateau = quantile(&reached, 0.5).unwrap_or(f64::NAN);
    let level = settings.level.unwrap_or(0.5 * reference_plateau);
    let half_window = half_window(&mean, times, frames);
    // Without an enhancing voxel there is no level to cross.
    let (run, crossing_s, crossing_se_s) = if level.is_finite() && level > 0.0 {
        let kernel = kernel.level(level).crossing_half_window(half_window);
        let run = engine.run_with(&kernel, curves, options)?;
        let crossing = column(&run, Quantity::LEVEL_CROSSING)?;
        let error = column(&run, Quantity::LEVEL_CROSSING_SE)?;
        (run, crossing, error)
    } else {
        let nowhere = vec![f64::NAN; arrival_s.len()];
        (first, nowhere.clone(), nowhere)
    };
    Ok(FillingTimes {
        arrival_se_s: column(&run, Quantity::FRONT_ARRIVAL_SE)?,
        baseline: column(&run, Quantity::FITTED_BASELINE)?,
        noise_sd: column(&run, Quantity::FIT_NOISE_SD)?,
        status: run.status().iter().copied().collect(),
        arrival_s,
        crossing_s,
        crossing_se_s,
        plateau,
        tau_s,
        frames,
        end_s: end,
        reference_plateau,
        level,
        half_window,
        run,
    })
}

/// The residuals of the fits, voxel by voxel, over the frames that they use; 0 where there is no fit.
pub(super) fn residuals(times: &FillingTimes, curves: &Series, direction: f64) -> Result<Vec<f32>> {
    let seconds = &curves.times()?.seconds()[..times.frames];
    let count = times.status.len();
    let scaling = curves.scaling();
    let mut residuals = vec![0.0f32; count * times.frames];
    residuals.par_chunks_mut(times.frames).enumerate().for_each(|(i, residuals)| {
        let (arrival, tau, plateau, baseline) =
            (times.arrival_s[i], times.tau_s[i], times.plateau[i], times.baseline[i]);
        if !(arrival.is_finite() && tau.is_finite()) {
            return;
        }
        for (t, residual) in residuals.iter_mut().enumerate() {
            let sample = scaling.slope * curves.resident().get_f64(i + t * count) + scaling.intercept;
            let risen = -(-(seconds[t] - arrival).max(0.0) / tau).exp_m1();
            *residual = ((sample - baseline) - direction * plateau * risen) as f32;
        }
    });
    Ok(residuals)
}

/// The mean curve, rising with contrast agent; voxels with a sample that isn't finite are left out.
pub(super) fn mean_curve(curves: &Series, direction: f64) -> Vec<f64> {
    let (count, frames) = (curves.voxel_count(), curves.frames());
    let scaling = curves.scaling();
    let value = |i: usize| scaling.slope * curves.resident().get_f64(i) + scaling.intercept;
    let usable: Vec<bool> = (0..count)
        .into_par_iter()
        .map(|i| (0..frames).all(|t| curves.resident().get_f64(i + t * count).is_finite()))
        .collect();
    let n = usable.iter().filter(|u| **u).count().max(1) as f64;
    (0..frames)
        .into_par_iter()
        .map(|t| {
            let sum: f64 = (0..count).filter(|i| usable[*i]).map(|i| value(i + t * count)).sum();
            direction * sum / n
        })
        .collect()
}

/// All frames; if the mean curve washes out, those up to its peak.
fn frames_before_wash_out(mean: &[f64]) -> usize {
    let n = mean.len();
    // A running mean over five frames, so that noise doesn't choose the peak.
    let smooth: Vec<f64> = (0..n)
        .map(|i| {
            let (from, to) = (i.saturating_sub(2), (i + 3).min(n));
            mean[from..to].iter().sum::<f64>() / (to - from) as f64
        })
        .collect();
    let peak = (0..n).fold(0, |best, i| if smooth[i] > smooth[best] { i } else { best });
    let lowest = smooth[..=peak].iter().copied().fold(f64::INFINITY, f64::min);
    let fall = smooth[peak] - smooth[n - 1];
    if fall > WASH_OUT * (smooth[peak] - lowest) { (peak + 1).clamp(n.min(8), n) } else { n }
}

/// Frames on either side of a crossing that the line goes through: half of the time in which the mean curve rises from a
/// quarter to three quarters of its height, at most 5 frames, at least 2.
fn half_window(mean: &[f64], times: &[f64], frames: usize) -> usize {
    let lowest = mean[..frames].iter().copied().fold(f64::INFINITY, f64::min);
    let highest = mean[..frames].iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let first_above = |share: f64| {
        let level = lowest + share * (highest - lowest);
        times[(0..frames).find(|i| mean[*i] >= level).unwrap_or(0)]
    };
    let spacing = (times[frames - 1] - times[0]) / (frames - 1) as f64;
    let rise = first_above(0.75) - first_above(0.25);
    ((0.25 * rise / spacing).round() as usize).clamp(2, 5)
}
