//! The onset of the mask's mean curve: that of voxels without one of their own.

use crate::kernel::lanes::Double;
use crate::kernel::{Curve, Leave, Rows};
use crate::status;

use super::outputs::slot;
use super::tables::{NoiseFrom, Tables};
use super::{Onset, reference};

/// The frames of the mean curve that decide its onset, by what the curve is about: those up to the half-rise frame and two
/// more, and the highest, which say how high half is. Methods that fit more of the curve need all of it.
pub(super) fn deciding_frames(tables: &Tables, rough: &[f64]) -> Vec<usize> {
    let (n, b) = (tables.n, tables.b);
    if tables.onset != Onset::PiecewiseLinear {
        return (0..n).collect();
    }
    let height = |i: usize| tables.direction * rough[i];
    let level = (tables.a..b).map(height).sum::<f64>() / (b - tables.a) as f64;
    let mut highest: Vec<usize> = (b..n).collect();
    highest.sort_by(|i, j| height(*j).total_cmp(&height(*i)));
    let half = (height(highest[0]) + level) / 2.0;
    let half_rise = (b..n - 1).find(|i| height(*i) >= half && height(i + 1) >= half).unwrap_or(n - 1);
    let early = 0..n.min(half_rise + 4);
    let highest = highest.into_iter().take(3).filter(|i| !early.contains(i));
    early.clone().chain(highest).collect()
}

/// The onset of the mask's mean curve, by the same text.
pub(super) fn find(tables: &Tables, mean: &[f64]) -> Option<f64> {
    let mut slots = [-1; slot::COUNT];
    slots[slot::ONSET] = 0;
    let mut own = Tables {
        slope: 1.0,
        intercept: 0.0,
        scale: 1.0,
        inv_scale: 1.0,
        sign: tables.direction,
        noise: NoiseFrom::Baseline { floor: 0.0 },
        global_onset: None,
        windows: Vec::new(),
        slots,
        needs_onset: true,
        needs_own_onset: true,
        needs_half_rise: tables.onset == Onset::PiecewiseLinear,
        needs_slope: tables.onset == Onset::Intersection,
        needs_slope_mean: tables.onset == Onset::Intersection,
        needs_area: false,
        needs_moment: false,
        needs_positive_baseline: false,
        ..tables.clone()
    };
    if tables.b - tables.a < 2 {
        let mut steps: Vec<f64> = mean.windows(2).map(|w| (w[1] - w[0]).abs()).collect();
        steps.sort_by(f64::total_cmp);
        let median = (steps[(steps.len() - 1) / 2] + steps[steps.len() / 2]) / 2.0;
        own.noise = NoiseFrom::Value(median / (std::f64::consts::SQRT_2 * 0.674_489_750_196_081_7));
    }
    let differences: Vec<f64> = mean.iter().map(|y| y - mean[0]).collect();
    let mut scratch = vec![0.0; 3 * own.n];
    let mut words = [0.0; 2];
    let curve = Curve::new(Double, &differences, 1, mean[0], true, &[]);
    let rows = &mut Rows::new(Double, &mut words, 1);
    reference::evaluate(&own, 1, Double, &curve, &mut scratch, rows, Leave::Nothing);
    (words[1] as u32 & status::NO_ONSET == 0 && words[0].is_finite()).then_some(words[0])
}
