//! The automatic baseline: frames before the break point of the mask's mean curve.

use std::ops::Range;

use super::Baseline;
use crate::error::{Error, Result};
use crate::kernel::Input;

/// Fewest baseline frames.
const FEWEST: usize = 2;

impl Baseline {
    /// The baseline frames of a series that contrast agent raises, checked.
    pub(in crate::kernels) fn of_rising(&self, input: &Input<'_>) -> Result<Range<usize>> {
        check(self, input.series.frames())?;
        frames(self, input, 1.0)
    }
}

/// Refuses frames that the series hasn't got, and a baseline that nothing follows.
pub(super) fn check(baseline: &Baseline, frames: usize) -> Result<()> {
    if let Baseline::Frames(range) = baseline {
        let text = baseline.to_text();
        if range.is_empty() {
            return Err(Error::setting("baseline", text, "give at least one frame (A:B counts from 0, B excluded)"));
        }
        if range.end >= frames {
            let mend = format!("the series has {frames} frames, and at least one must follow the baseline");
            return Err(Error::setting("baseline", text, mend));
        }
    }
    Ok(())
}

/// The frames that a policy comes to. `direction` is -1 where contrast agent lowers the samples.
pub(super) fn frames(baseline: &Baseline, input: &Input<'_>, direction: f64) -> Result<Range<usize>> {
    match baseline {
        Baseline::Frames(frames) => Ok(frames.clone()),
        Baseline::Automatic => {
            let times = input.series.times()?.seconds();
            let times: Vec<f64> = times.iter().map(|t| t - times[0]).collect();
            match input.reductions.mean_curve() {
                Some(mean) => {
                    let rising: Vec<f64> = mean.iter().map(|y| y * direction).collect();
                    Ok(0..automatic(&times, &rising))
                }
                None => Ok(0..FEWEST.min(times.len() - 1)),
            }
        }
    }
}

/// Number of baseline frames of a mean curve that rises with contrast agent (turn a falling one over before).
///
/// A constant, then a line from a continuous break point, least squares over the samples up to the half-rise frame; the
/// frames before the break point, minus one for safety, at least 2. The half-rise frame needs the constant, so both are
/// found in turn until they agree.
pub(crate) fn automatic(times: &[f64], curve: &[f64]) -> usize {
    let mut constant = (curve[0] + curve[1]) / 2.0;
    let mut frames = FEWEST;
    for _ in 0..10 {
        let half_rise = half_rise(curve, constant);
        let found = match break_point(&times[..=half_rise], &curve[..=half_rise]) {
            Some(time) => times.iter().filter(|t| **t < time).count().saturating_sub(1).max(FEWEST),
            None => FEWEST,
        };
        constant = curve[..found].iter().sum::<f64>() / found as f64;
        if found == frames {
            break;
        }
        frames = found;
    }
    frames.min(times.len() - 1)
}

/// The first of two consecutive samples at least half way from the constant to the peak; the peak if there are none.
fn half_rise(curve: &[f64], constant: f64) -> usize {
    let first = FEWEST.min(curve.len() - 1);
    let peak = (first..curve.len()).fold(first, |peak, i| if curve[i] > curve[peak] { i } else { peak });
    let half = constant + (curve[peak] - constant) / 2.0;
    (FEWEST..curve.len() - 1).find(|i| curve[*i] >= half && curve[*i + 1] >= half).unwrap_or(peak)
}

/// The break point of a constant that goes over into a rising line, least squares; the earliest of equals.
fn break_point(times: &[f64], curve: &[f64]) -> Option<f64> {
    let n = times.len();
    let mut best: Option<(f64, f64)> = None;
    let mut offer = |squares: f64, time: f64| {
        if best.is_none_or(|(least, _)| squares < least) {
            best = Some((squares, time));
        }
    };
    for k in 0..n.saturating_sub(1) {
        // The break point at frame k: least squares with the regressors 1 and (t - t_k)+.
        let x: Vec<f64> = times.iter().map(|t| (t - times[k]).max(0.0)).collect();
        if let Some((_, slope, squares)) = line(&x, curve)
            && slope > 0.0
        {
            offer(squares, times[k]);
        }
        // The break point between frames k and k + 1: the constant through the one side, the line through the other.
        if k + 2 < n {
            let mean = curve[..=k].iter().sum::<f64>() / (k + 1) as f64;
            let flat: f64 = curve[..=k].iter().map(|y| (y - mean).powi(2)).sum();
            if let Some((intercept, slope, squares)) = line(&times[k + 1..], &curve[k + 1..])
                && slope > 0.0
            {
                let time = (mean - intercept) / slope;
                if time > times[k] && time <= times[k + 1] {
                    offer(flat + squares, time);
                }
            }
        }
    }
    best.map(|(_, time)| time)
}

/// Least-squares line: intercept, slope, sum of squared residuals.
fn line(x: &[f64], y: &[f64]) -> Option<(f64, f64, f64)> {
    let n = x.len() as f64;
    let (mean_x, mean_y) = (x.iter().sum::<f64>() / n, y.iter().sum::<f64>() / n);
    let sxx: f64 = x.iter().map(|x| (x - mean_x).powi(2)).sum();
    if sxx <= 0.0 {
        return None;
    }
    let sxy: f64 = x.iter().zip(y).map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let slope = sxy / sxx;
    let intercept = mean_y - slope * mean_x;
    let squares = x.iter().zip(y).map(|(x, y)| (y - intercept - slope * x).powi(2)).sum();
    Some((intercept, slope, squares))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_breaks_where_it_begins() {
        let times: Vec<f64> = (0..40).map(f64::from).collect();
        let curve: Vec<f64> = times.iter().map(|t| 5.0 + 3.0 * (t - 10.4f64).max(0.0)).collect();
        // Frames 0 to 10 lie before the break point; one is left out for safety.
        assert_eq!(automatic(&times, &curve), 10);
        let time = break_point(&times, &curve).unwrap();
        assert!((time - 10.4).abs() < 1e-9, "{time}");
    }

    #[test]
    fn a_flat_curve_still_has_a_baseline() {
        let times: Vec<f64> = (0..10).map(f64::from).collect();
        assert_eq!(automatic(&times, &[7.0; 10]), 2);
        assert_eq!(automatic(&times[..2], &[7.0; 2]), 1);
    }
}
