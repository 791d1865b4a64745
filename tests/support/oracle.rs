//! A second opinion on the semi-quantitative maps: scalar f64, one obvious loop per sentence of the definitions, and other
//! algorithms than the kernel's (a grid and a bisection for the break point, literal walks, polygons for areas).
//!
//! Written from the definitions' text alone, before its author had read the kernel. It is slow, and nothing here is shared
//! with the library. Where the text is silent it now makes the kernel's choice; these are all:
//!
//! - A voxel that doesn't enhance has no value in maps that rest on the peak's time (wash-in and wash-out slope, ratio of
//!   enhancements, recovery) either, and its status says that the global onset serves; bit 15 only concerns voxels with
//!   timing maps.
//! - The mean curve has an onset only if it enhances by the rule for voxels, with the SD of its own baseline frames (one
//!   frame: its successive differences) as noise.
//! - The onset's standard error counts the baseline as a parameter and begins with the first baseline frame.
//! - No mean residence time from an area that isn't positive, no ratio to an enhancement of 0.
//! - The automatic baseline finds constant and half-rise frame in turn until they agree.

use std::collections::{BTreeMap, BTreeSet};

use ndarray::{Array3, Array4, ShapeBuilder};
use perfuse::kernels::descriptors::{Baseline, LateSlopeFrom, Noise, Onset, OnsetScope, PeakReading, Polarity};
use perfuse::{Descriptors, Mask, Scaling, Series, SignalKind, TimeAxis, VoxelMap};

/// A small generator of pseudo-random numbers (xorshift64*), so that every run sees the same curves.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..8 {
            random.next();
        }
        random
    }
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    /// Evenly in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }
    pub fn below(&mut self, n: usize) -> usize {
        (self.unit() * n as f64) as usize
    }
    /// Standard normal (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }
}

/// How samples are stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Storage {
    I16,
    F32,
    F64,
}

/// Curves as stored, with everything that goes with them.
#[derive(Debug, Clone)]
pub struct Curves {
    pub stored: Vec<Vec<f64>>,
    pub storage: Storage,
    pub slope: f64,
    pub intercept: f64,
    pub times: Vec<f64>,
    /// Which voxels are inside the mask.
    pub inside: Vec<bool>,
}

impl Curves {
    /// Rounds the curves to what their storage holds.
    pub fn new(curves: &[Vec<f64>], storage: Storage, slope: f64, intercept: f64, times: Vec<f64>) -> Self {
        let round = |value: &f64| {
            let stored = (value - intercept) / slope;
            match storage {
                Storage::I16 => stored.round().clamp(-32768.0, 32767.0),
                Storage::F32 => f64::from(stored as f32),
                Storage::F64 => stored,
            }
        };
        let stored: Vec<Vec<f64>> = curves.iter().map(|curve| curve.iter().map(round).collect()).collect();
        let inside = vec![true; stored.len()];
        Self { stored, storage, slope, intercept, times, inside }
    }

    pub fn series(&self) -> Series {
        let (voxels, frames) = (self.stored.len(), self.times.len());
        let shape = (voxels, 1, 1, frames);
        let times = TimeAxis::from_seconds(self.times.clone()).unwrap();
        let at = |(v, _, _, t): (usize, usize, usize, usize)| self.stored[v][t];
        let series = match self.storage {
            Storage::I16 => Series::from_array(Array4::from_shape_fn(shape, |i| at(i) as i16).view(), times),
            Storage::F32 => Series::from_array(Array4::from_shape_fn(shape, |i| at(i) as f32).view(), times),
            Storage::F64 => Series::from_array(Array4::from_shape_fn(shape, at).view(), times),
        };
        series.unwrap().with_scaling(Scaling { slope: self.slope, intercept: self.intercept }).unwrap()
    }

    pub fn mask(&self) -> Mask {
        let labels = Array3::from_shape_fn((self.stored.len(), 1, 1).f(), |(v, _, _)| u32::from(self.inside[v]));
        Mask::from_labels(labels.view())
    }

    /// The mean scaled curve of the voxels inside whose samples are all finite.
    fn mean(&self) -> Option<Vec<f64>> {
        let mut sum = vec![0.0; self.times.len()];
        let mut count = 0.0;
        for (curve, inside) in self.stored.iter().zip(&self.inside) {
            if *inside && curve.iter().all(|s| s.is_finite()) {
                for (sum, sample) in sum.iter_mut().zip(curve) {
                    *sum += sample;
                }
                count += 1.0;
            }
        }
        (count > 0.0).then(|| sum.iter().map(|s| self.slope * (s / count) + self.intercept).collect())
    }
}

#[derive(Debug, Clone)]
pub enum NoiseFrom {
    Baseline,
    Value(f64),
    Map(Vec<f32>),
}

/// The settings, as this file understands them.
#[derive(Debug, Clone)]
pub struct Settings {
    pub kind: SignalKind,
    pub fall: bool,
    /// `None`: automatic.
    pub baseline: Option<(usize, usize)>,
    pub onset: Onset,
    pub global: bool,
    pub noise: NoiseFrom,
    pub subframe: bool,
    pub threshold: f64,
    pub window: usize,
    pub late_from: Option<f64>,
    pub iauc: Vec<f64>,
    pub ratio: (f64, f64),
    pub recovery: Option<(f64, f64)>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            kind: SignalKind::Signal,
            fall: false,
            baseline: None,
            onset: Onset::PiecewiseLinear,
            global: false,
            noise: NoiseFrom::Baseline,
            subframe: false,
            threshold: 5.0,
            window: 3,
            late_from: None,
            iauc: vec![60.0, 90.0, 120.0],
            ratio: (90.0, 360.0),
            recovery: None,
        }
    }
}

impl Settings {
    pub fn kernel(&self) -> Descriptors {
        let mut kernel = Descriptors::new()
            .kind(self.kind)
            .polarity(if self.fall { Polarity::Fall } else { Polarity::Rise })
            .baseline(self.baseline.map_or(Baseline::Automatic, |(from, to)| Baseline::Frames(from..to)))
            .onset(self.onset)
            .onset_scope(if self.global { OnsetScope::Global } else { OnsetScope::Voxel })
            .peak_reading(if self.subframe { PeakReading::Subframe } else { PeakReading::Sample })
            .enhancement_threshold(self.threshold)
            .slope_window(self.window)
            .late_slope_from(self.late_from.map_or(LateSlopeFrom::Peak, LateSlopeFrom::SecondsAfterOnset))
            .iauc_seconds(self.iauc.clone())
            .ratio_times_s(self.ratio.0, self.ratio.1);
        if let Some((from, to)) = self.recovery {
            kernel = kernel.recovery_window_s(from, to);
        }
        match &self.noise {
            NoiseFrom::Baseline => kernel,
            NoiseFrom::Value(value) => kernel.noise(Noise::Value(*value)),
            NoiseFrom::Map(values) => {
                let values = Array3::from_shape_fn((values.len(), 1, 1), |(v, _, _)| values[v]);
                kernel.noise(Noise::Map(VoxelMap::from_array(values.view())))
            }
        }
    }
}

/// What one voxel's maps should be.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub values: BTreeMap<String, f64>,
    pub status: u32,
    /// Maps for which another candidate is as good within rounding.
    pub close: BTreeSet<String>,
    /// Maps that rest on the noise, whose mask median is kept in 32 bits.
    pub noisy: BTreeSet<String>,
}

pub const NON_FINITE: u32 = 1 << 1;
pub const BASELINE_NOT_POSITIVE: u32 = 1 << 2;
pub const NOT_ENHANCING: u32 = 1 << 3;
pub const GLOBAL_ONSET: u32 = 1 << 4;
pub const NO_ONSET: u32 = 1 << 5;
pub const PEAK_LAST: u32 = 1 << 6;
pub const WINDOW_PAST_END: u32 = 1 << 7;
pub const NOISE_ELSEWHERE: u32 = 1 << 8;
pub const CENSORED: u32 = 1 << 14;
pub const NOT_IDENTIFIABLE: u32 = 1 << 13;
pub const ONSET_NOT_BEFORE_PEAK: u32 = 1 << 15;
pub const NO_DIVISOR: u32 = 1 << 16;

/// One enhancement curve with what all definitions speak of.
#[derive(Debug, Clone)]
pub struct Enhancement {
    /// Seconds after the first frame.
    pub t: Vec<f64>,
    pub e: Vec<f64>,
    /// The last baseline frame.
    pub last_baseline: usize,
    pub peak: usize,
    pub sigma: f64,
    pub slope_window: usize,
}

impl Enhancement {
    fn new(t: Vec<f64>, e: Vec<f64>, last_baseline: usize, sigma: f64, slope_window: usize) -> Self {
        let mut peak = last_baseline + 1;
        for i in last_baseline + 1..e.len() {
            if e[i] > e[peak] {
                peak = i;
            }
        }
        Self { t, e, last_baseline, peak, sigma, slope_window }
    }

    fn height(&self) -> f64 {
        self.e[self.peak]
    }

    /// First of two consecutive samples after the baseline at half the peak or above.
    fn half_rise(&self) -> usize {
        let half = self.height() / 2.0;
        for i in self.last_baseline + 1..self.e.len() - 1 {
            if self.e[i] >= half && self.e[i + 1] >= half {
                return i;
            }
        }
        self.peak
    }

    fn enhances(&self, threshold: f64) -> bool {
        let mut pair = false;
        for i in self.last_baseline + 1..self.e.len() - 1 {
            if self.e[i] > 3.0 * self.sigma && self.e[i + 1] > 3.0 * self.sigma {
                pair = true;
            }
        }
        self.height() >= threshold * self.sigma && pair
    }

    /// e at any time, linear between samples.
    fn at(&self, time: f64) -> f64 {
        for i in 1..self.t.len() {
            if time <= self.t[i] {
                let share = (time - self.t[i - 1]) / (self.t[i] - self.t[i - 1]);
                return self.e[i - 1] * (1.0 - share) + self.e[i] * share;
            }
        }
        self.e[self.e.len() - 1]
    }

    /// The corners of the curve between two times.
    fn polygon(&self, from: f64, to: f64) -> Vec<(f64, f64)> {
        let mut corners = vec![(from, self.at(from))];
        for (t, e) in self.t.iter().zip(&self.e) {
            if *t > from && *t < to {
                corners.push((*t, *e));
            }
        }
        corners.push((to, self.at(to)));
        corners
    }

    /// The area below the curve between two times.
    pub fn area(&self, from: f64, to: f64) -> f64 {
        self.polygon(from, to).windows(2).map(|c| (c[1].0 - c[0].0) * (c[0].1 + c[1].1) / 2.0).sum()
    }

    /// The integral of (t - from) e: a product of two lines on each piece, for which Simpson's rule is exact.
    pub fn moment(&self, from: f64, to: f64) -> f64 {
        let simpson = |c: &[(f64, f64)]| {
            let [(t0, e0), (t1, e1)] = [c[0], c[1]];
            let (middle_t, middle_e) = ((t0 + t1) / 2.0, (e0 + e1) / 2.0);
            (t1 - t0) / 6.0 * ((t0 - from) * e0 + 4.0 * (middle_t - from) * middle_e + (t1 - from) * e1)
        };
        self.polygon(from, to).windows(2).map(simpson).sum()
    }

    /// The weights of the samples in a linear functional, by feeding it unit vectors.
    fn weights(&self, functional: impl Fn(&Enhancement) -> f64) -> Vec<f64> {
        let mut unit = self.clone();
        (0..self.e.len())
            .map(|i| {
                unit.e = vec![0.0; self.e.len()];
                unit.e[i] = 1.0;
                functional(&unit)
            })
            .collect()
    }

    /// The steepest rise: (slope, mean time, mean height, whether another window is as steep within rounding).
    fn steepest(&self) -> (f64, f64, f64, bool) {
        let (first, last) = (self.last_baseline, self.peak);
        let w = self.slope_window.min(last - first + 1);
        let mut lines = Vec::new();
        for start in first..=last + 1 - w {
            lines.push(line(&self.t[start..start + w], &self.e[start..start + w]));
        }
        let mut best = lines[0];
        for candidate in &lines {
            if candidate.0 > best.0 {
                best = *candidate;
            }
        }
        let scale = self.e.iter().fold(0.0f64, |m, e| m.max(e.abs())) / (self.t[last] - self.t[first]);
        let close = lines.iter().filter(|l| (l.0 - best.0).abs() <= 1e-9 * scale).count() > 1;
        (best.0, best.1, best.2, close)
    }

    /// Where e last rises through a level before the peak, literally walking back.
    fn rise_through(&self, level: f64) -> Option<f64> {
        let mut i = self.peak;
        while i > 0 {
            i -= 1;
            if self.e[i] <= level {
                return Some(self.crossing(i, level));
            }
        }
        None
    }

    /// Where the segment from sample i to i + 1 meets a level.
    fn crossing(&self, i: usize, level: f64) -> f64 {
        self.t[i] + (self.t[i + 1] - self.t[i]) * (level - self.e[i]) / (self.e[i + 1] - self.e[i])
    }

    /// Sum of squared residuals of "zero, then a line from `t_b`" over samples up to `end`, and the line's slope.
    pub fn broken_line(&self, t_b: f64, end: usize) -> (f64, f64) {
        let (mut p, mut q) = (0.0, 0.0);
        for i in 0..=end {
            if self.t[i] > t_b {
                p += self.e[i] * (self.t[i] - t_b);
                q += (self.t[i] - t_b).powi(2);
            }
        }
        let slope = p / q;
        let mut sse = 0.0;
        for i in 0..=end {
            let model = if self.t[i] > t_b { slope * (self.t[i] - t_b) } else { 0.0 };
            sse += (self.e[i] - model).powi(2);
        }
        (sse, slope)
    }

    /// The break point by a grid over the allowed range and a bisection of the normal equation beside the best of it.
    fn piecewise_linear(&self) -> Option<(f64, bool)> {
        let end = self.half_rise();
        let total: f64 = self.e[..=end].iter().map(|e| e * e).sum();
        let mut best: Option<(f64, f64)> = None;
        let mut minima: Vec<(f64, f64)> = Vec::new();
        for piece in self.last_baseline..end {
            let (low, high) = (self.t[piece], self.t[piece + 1]);
            // Within a piece the samples on the line stay the same: d SSE / d t_b vanishes where
            // sum(e) sum(x^2) = sum(e x) sum(x), x = t - t_b.
            let normal = |t_b: f64| {
                let (mut e, mut x, mut xx, mut ex) = (0.0, 0.0, 0.0, 0.0);
                for i in piece + 1..=end {
                    let d = self.t[i] - t_b;
                    e += self.e[i];
                    x += d;
                    xx += d * d;
                    ex += self.e[i] * d;
                }
                e * xx - ex * x
            };
            let mut candidates = vec![low];
            if piece + 1 < end {
                const STEPS: usize = 64;
                for k in 0..STEPS {
                    let at = |k: usize| low + (high - low) * k as f64 / STEPS as f64;
                    let (mut a, mut b) = (at(k), at(k + 1));
                    if normal(a) == 0.0 {
                        candidates.push(a);
                    }
                    if normal(a) * normal(b) < 0.0 {
                        for _ in 0..100 {
                            let middle = (a + b) / 2.0;
                            if normal(a) * normal(middle) <= 0.0 { b = middle } else { a = middle }
                        }
                        candidates.push((a + b) / 2.0);
                    }
                }
            }
            for t_b in candidates {
                let (sse, slope) = self.broken_line(t_b, end);
                if slope > 0.0 {
                    minima.push((sse, t_b));
                    if best.is_none_or(|(least, _)| sse < least) {
                        best = Some((sse, t_b));
                    }
                }
            }
        }
        let (least, t_b) = best?;
        let apart = 1e-6 * (self.t[end] - self.t[0]);
        let close = minima.iter().any(|(sse, t)| (t - t_b).abs() > apart && (sse - least).abs() <= 1e-12 * total);
        Some((t_b, close))
    }

    /// Least sum of squares of "zero, then a saturating rise from `t_b`", over time constants from far below a frame to
    /// far above the series.
    pub fn saturating_sse(&self, t_b: f64) -> f64 {
        let sse = |log_tau: f64| {
            let tau = log_tau.exp();
            let (mut p, mut q, mut before, mut total) = (0.0, 0.0, 0.0, 0.0);
            for i in 0..=self.peak {
                if self.t[i] > t_b {
                    let g = -(-(self.t[i] - t_b) / tau).exp_m1();
                    p += self.e[i] * g;
                    q += g * g;
                    total += self.e[i] * self.e[i];
                } else {
                    before += self.e[i] * self.e[i];
                }
            }
            before + total - if p > 0.0 && q > 0.0 { p * p / q } else { 0.0 }
        };
        let span = self.t[self.t.len() - 1];
        let (low, high) = ((1e-3 * span / self.t.len() as f64).ln(), (100.0 * span).ln());
        let steps = 60;
        let at = |k: usize| low + (high - low) * k as f64 / steps as f64;
        let best = (0..=steps).min_by(|a, b| sse(at(*a)).total_cmp(&sse(at(*b)))).unwrap();
        let (mut a, mut b) = (at(best.saturating_sub(1)), at((best + 1).min(steps)));
        for _ in 0..50 {
            let (c, d) = (a + 0.381966 * (b - a), a + 0.618034 * (b - a));
            if sse(c) < sse(d) { b = d } else { a = c }
        }
        sse((a + b) / 2.0).min(sse(at(best)))
    }

    /// Break point of the best saturating rise by a grid of times, then ever finer grids beside the best.
    pub fn saturating(&self) -> (f64, f64) {
        let (low, high) = (self.t[self.last_baseline], self.t[self.peak]);
        let steps = 20 * (self.peak - self.last_baseline);
        let mut best = (low, self.saturating_sse(low));
        let mut width = (high - low) / steps as f64;
        for k in 0..steps {
            let t_b = low + width * k as f64;
            let sse = self.saturating_sse(t_b);
            if sse < best.1 {
                best = (t_b, sse);
            }
        }
        for _ in 0..8 {
            let centre = best.0;
            for k in -5i32..=5 {
                let t_b = centre + width * f64::from(k) / 5.0;
                if t_b >= low && t_b < high {
                    let sse = self.saturating_sse(t_b);
                    if sse < best.1 {
                        best = (t_b, sse);
                    }
                }
            }
            width /= 5.0;
        }
        best
    }

    /// First of two consecutive frames above k sigma.
    fn sd_threshold(&self, k: f64) -> Option<f64> {
        let level = k * self.sigma;
        for i in self.last_baseline + 1..self.e.len() - 1 {
            if self.e[i] > level && self.e[i + 1] > level {
                return (self.e[i - 1] <= level).then(|| self.crossing(i - 1, level));
            }
        }
        None
    }

    /// Back from the largest central difference to where it has fallen to a fraction, linear between frames.
    fn derivative(&self, fraction: f64) -> Option<(f64, bool)> {
        let n = self.e.len();
        let central = |i: usize| (self.e[i + 1] - self.e[i - 1]) / (self.t[i + 1] - self.t[i - 1]);
        let (from, to) = (self.last_baseline.max(1), self.peak.min(n - 2));
        if from > to {
            return None;
        }
        let mut steepest = from;
        for i in from..=to {
            if central(i) > central(steepest) {
                steepest = i;
            }
        }
        let top = central(steepest);
        let close = (from..=to).any(|i| i != steepest && (central(i) - top).abs() <= 1e-9 * top.abs());
        let level = fraction * top;
        let mut i = steepest;
        while i > from {
            i -= 1;
            let (a, b) = (central(i), central(i + 1));
            if a <= level {
                return Some((self.t[i] + (self.t[i + 1] - self.t[i]) * (level - a) / (b - a), close));
            }
        }
        None
    }

    /// The onset by a method, if there is one between the last baseline frame and the peak; and whether another is as
    /// good within rounding.
    pub fn onset(&self, method: Onset) -> Option<(f64, bool)> {
        let found = match method {
            Onset::PiecewiseLinear => self.piecewise_linear()?,
            Onset::Saturating => (self.saturating().0, false),
            Onset::Intersection => {
                let (slope, time, height, close) = self.steepest();
                if slope <= 0.0 {
                    return None;
                }
                (time - height / slope, close)
            }
            Onset::Threshold { fraction } => (self.rise_through(fraction * self.height())?, false),
            Onset::SdThreshold { deviations } => (self.sd_threshold(deviations)?, false),
            Onset::Derivative { fraction } => self.derivative(fraction)?,
            _ => panic!("not a method of a curve"),
        };
        (found.0 >= self.t[self.last_baseline] && found.0 < self.t[self.peak]).then_some(found)
    }
}

/// Least-squares line by the normal equations: slope, mean time, mean height.
fn line(t: &[f64], e: &[f64]) -> (f64, f64, f64) {
    let n = t.len() as f64;
    let (mean_t, mean_e) = (t.iter().sum::<f64>() / n, e.iter().sum::<f64>() / n);
    let (mut xy, mut xx) = (0.0, 0.0);
    for (t, e) in t.iter().zip(e) {
        xy += (t - mean_t) * (e - mean_e);
        xx += (t - mean_t) * (t - mean_t);
    }
    (xy / xx, mean_t, mean_e)
}

/// Noise from the median of successive differences.
fn from_differences(values: &[f64]) -> f64 {
    let steps = values.windows(2).map(|w| (w[1] - w[0]).abs()).collect();
    // The third quartile of the normal distribution.
    median(steps).unwrap() / (2f64.sqrt() * 0.674_489_750_196_081_7)
}

fn mean_and_sd(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let square: f64 = values.iter().map(|v| (v - mean) * (v - mean)).sum();
    (mean, if values.len() > 1 { (square / (n - 1.0)).sqrt() } else { f64::NAN })
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    if n == 0 { None } else { Some((values[(n - 1) / 2] + values[n / 2]) / 2.0) }
}

/// Median of sqrt(chi^2 / degrees) by integrating the density of sqrt(chi^2) with small steps until half is below.
pub fn median_of_chi(degrees: usize) -> f64 {
    let k = degrees as f64;
    let density =
        |x: f64| if x == 0.0 && degrees > 1 { 0.0 } else { ((k - 1.0) * x.max(1e-300).ln() - x * x / 2.0).exp() };
    let end = k.sqrt() + 12.0;
    let steps = 200_000;
    let h = end / steps as f64;
    let simpson = |i: usize| {
        let a = i as f64 * h;
        h / 6.0 * (density(a) + 4.0 * density(a + h / 2.0) + density(a + h))
    };
    let total: f64 = (0..steps).map(simpson).sum();
    let mut below = 0.0;
    for i in 0..steps {
        let piece = simpson(i);
        if below + piece >= total / 2.0 {
            // Within so short a piece the density is a line.
            let x = i as f64 * h + h * (total / 2.0 - below) / piece;
            return x / k.sqrt();
        }
        below += piece;
    }
    unreachable!()
}

/// Frames of the automatic baseline of a mean curve (rising).
pub fn automatic_baseline(t: &[f64], rising: &[f64]) -> usize {
    let n = rising.len();
    // No baseline is known yet: the first two frames stand for it in finding peak and half rise.
    let mut frames = 2;
    for _ in 0..10 {
        let found = automatic_step(t, rising, frames);
        if found == frames {
            break;
        }
        frames = found;
    }
    frames.min(n - 1)
}

fn automatic_step(t: &[f64], rising: &[f64], baseline: usize) -> usize {
    let start = mean_and_sd(&rising[..baseline]).0;
    let e: Vec<f64> = rising.iter().map(|f| f - start).collect();
    let rough = Enhancement::new(t.to_vec(), e, 1, 0.0, 2);
    let end = rough.half_rise();
    let mut best = (f64::INFINITY, 0.0);
    let mut squares = |t_b: f64| {
        // constant + slope * max(0, t - t_b), by the normal equations.
        let x: Vec<f64> = t[..=end].iter().map(|t| (t - t_b).max(0.0)).collect();
        let (slope, mean_x, mean_f) = line(&x, &rising[..=end]);
        let sse: f64 = x.iter().zip(rising).map(|(x, f)| (f - mean_f - slope * (x - mean_x)).powi(2)).sum();
        if slope > 0.0 && sse < best.0 * (1.0 - 1e-12) {
            best = (sse, t_b);
        }
        best.1
    };
    // A grid with all frames on it, then finer ones beside the best.
    let mut centre = 0.0;
    for i in 0..end {
        for k in 0..20 {
            centre = squares(t[i] + (t[i + 1] - t[i]) * f64::from(k) / 20.0);
        }
    }
    let mut width = (0..end).map(|i| t[i + 1] - t[i]).fold(0.0, f64::max) / 20.0;
    for _ in 0..12 {
        let from = centre;
        for k in -10..=10 {
            let t_b = from + width * f64::from(k) / 10.0;
            if t_b >= t[0] && t_b < t[end] {
                centre = squares(t_b);
            }
        }
        width /= 8.0;
    }
    let before = t.iter().filter(|t| **t < best.1).count();
    before.saturating_sub(1).max(2)
}

/// Everything about one voxel.
pub fn answer(curves: &Curves, settings: &Settings, voxel: usize) -> Answer {
    let mut shared = Shared::new(curves, settings);
    shared.answer(voxel)
}

/// What is decided once for all voxels.
pub struct Shared<'a> {
    curves: &'a Curves,
    settings: &'a Settings,
    t: Vec<f64>,
    pub baseline: (usize, usize),
    pub global: Option<f64>,
    global_close: bool,
    floor: f64,
    floor_from_mask: f64,
}

impl<'a> Shared<'a> {
    pub fn new(curves: &'a Curves, settings: &'a Settings) -> Self {
        let t: Vec<f64> = curves.times.iter().map(|t| t - curves.times[0]).collect();
        let sign = if settings.fall { -1.0 } else { 1.0 };
        let mean: Option<Vec<f64>> = curves.mean().map(|mean| mean.iter().map(|f| sign * (f - mean[0])).collect());
        let baseline = settings.baseline.unwrap_or_else(|| (0, automatic_baseline(&t, mean.as_ref().unwrap())));
        Self::with_baseline(curves, settings, baseline)
    }

    /// With the automatic baseline decided elsewhere.
    pub fn with_baseline(curves: &'a Curves, settings: &'a Settings, baseline: (usize, usize)) -> Self {
        let t: Vec<f64> = curves.times.iter().map(|t| t - curves.times[0]).collect();
        let sign = if settings.fall { -1.0 } else { 1.0 };
        let mean: Option<Vec<f64>> = curves.mean().map(|mean| mean.iter().map(|f| sign * (f - mean[0])).collect());
        let n = baseline.1 - baseline.0;
        let quantum = if curves.storage == Storage::I16 { curves.slope.abs() / 12f64.sqrt() } else { 0.0 };
        let mut deviations = Vec::new();
        for (curve, inside) in curves.stored.iter().zip(&curves.inside) {
            let frames = &curve[baseline.0..baseline.1];
            if *inside && frames.iter().all(|s| s.is_finite()) && n > 1 {
                deviations.push(curves.slope.abs() * mean_and_sd(frames).1);
            }
        }
        let from_mask = median(deviations).map_or(0.0, |median| median / median_of_chi(n - 1));
        let mut shared = Self {
            curves,
            settings,
            t,
            baseline,
            global: None,
            global_close: false,
            floor: quantum.max(from_mask),
            floor_from_mask: from_mask,
        };
        if let Onset::Seconds(seconds) = settings.onset {
            shared.global = Some(seconds);
        } else if let Some(mean) = mean {
            let (level, sd) = mean_and_sd(&mean[baseline.0..baseline.1]);
            let e: Vec<f64> = mean.iter().map(|f| f - level).collect();
            let sigma = if sd.is_nan() { from_differences(&e) } else { sd };
            let curve = Enhancement::new(shared.t.clone(), e, baseline.1 - 1, sigma, settings.window);
            if curve.enhances(settings.threshold)
                && let Some((onset, close)) = curve.onset(settings.onset)
            {
                (shared.global, shared.global_close) = (Some(onset), close);
            }
        }
        shared
    }

    /// A voxel's enhancement curve.
    pub fn enhancement(&self, voxel: usize) -> Enhancement {
        let curve = &self.curves.stored[voxel];
        let (from, to) = self.baseline;
        let d: Vec<f64> = curve.iter().map(|s| self.curves.slope * (s - curve[0])).collect();
        let (mean, sd) = mean_and_sd(&d[from..to]);
        let sign = if self.settings.fall { -1.0 } else { 1.0 };
        let e = d.iter().map(|d| sign * (d - mean)).collect();
        let sigma = match &self.settings.noise {
            NoiseFrom::Value(value) => *value,
            NoiseFrom::Map(values) => f64::from(values[voxel]),
            NoiseFrom::Baseline if to - from > 1 => sd.max(self.floor),
            NoiseFrom::Baseline => from_differences(&d).max(self.floor),
        };
        Enhancement::new(self.t.clone(), e, to - 1, sigma, self.settings.window)
    }

    /// A voxel's maps from these frames only; what is decided for all voxels stays.
    pub fn answer_of_frames(&self, voxel: usize, frames: &[usize]) -> Answer {
        let mut curves = self.curves.clone();
        let pick = |values: &[f64]| -> Vec<f64> { frames.iter().map(|t| values[*t]).collect() };
        curves.stored = vec![pick(&self.curves.stored[voxel])];
        curves.inside = vec![true];
        let before = |end: usize| frames.iter().filter(|t| **t < end).count();
        let mut part = Shared {
            curves: &curves,
            settings: self.settings,
            // Still seconds after the first frame of the series.
            t: pick(&self.t),
            baseline: (before(self.baseline.0), before(self.baseline.1)),
            ..*self
        };
        part.answer(0)
    }

    pub fn answer(&mut self, voxel: usize) -> Answer {
        let settings = self.settings;
        let mut answer = Answer::default();
        let curve = &self.curves.stored[voxel];
        if curve.iter().any(|s| !s.is_finite()) {
            answer.status = NON_FINITE;
            return answer;
        }
        let (from, to) = self.baseline;
        let n = to - from;
        let f: Vec<f64> = curve.iter().map(|s| self.curves.slope * s + self.curves.intercept).collect();
        let first = f[0];
        let d: Vec<f64> = curve.iter().map(|s| self.curves.slope * (s - curve[0])).collect();
        let (mean_d, sd) = mean_and_sd(&d[from..to]);
        let level = first + mean_d;
        let c = self.enhancement(voxel);
        let (t, e, sigma) = (&c.t, &c.e, c.sigma);
        let last = e.len() - 1;
        let end = t[last];
        let t0 = self.curves.times[0];
        let mut set = |id: &str, value: f64| {
            answer.values.insert(id.to_string(), value);
        };
        let mut status = 0;
        let mut close: BTreeSet<String> = BTreeSet::new();

        // Noise.
        if n == 1 || !matches!(settings.noise, NoiseFrom::Baseline) {
            status |= NOISE_ELSEWHERE;
        }
        set("baseline", level);
        set("baseline_sd", sd);
        set("baseline_se", sigma / (n as f64).sqrt());

        // Peak, perhaps the vertex of a parabola.
        let (mut t_max, mut e_max) = (t[c.peak], e[c.peak]);
        if settings.subframe && c.peak < last {
            let p = c.peak;
            if let Some((time, height)) = vertex([t[p - 1], t[p], t[p + 1]], [e[p - 1], e[p], e[p + 1]]) {
                (t_max, e_max) = (time, height);
            }
        }
        if c.peak == last {
            status |= PEAK_LAST;
        }
        set("peak_enhancement", e_max);
        let signal = settings.kind == SignalKind::Signal;
        if signal {
            set("relative_enhancement", if level > 0.0 { 100.0 * e_max / level } else { f64::NAN });
            if level <= 0.0 {
                status |= BASELINE_NOT_POSITIVE;
            }
        }

        // Enhancing or not.
        let enhancing = c.enhances(settings.threshold);
        if !enhancing {
            status |= NOT_ENHANCING;
        }
        let timing = |value: f64| if enhancing { value } else { f64::NAN };

        // Onset.
        let mut own = None;
        if !settings.global && !matches!(settings.onset, Onset::Seconds(_)) {
            if enhancing {
                own = c.onset(settings.onset);
            }
            if own.is_none() && self.global.is_some() {
                status |= GLOBAL_ONSET;
            }
        }
        let mut onset_close = false;
        let onset = match own {
            Some((onset, ambiguous)) => {
                onset_close = ambiguous;
                Some(onset)
            }
            None => {
                onset_close |= self.global_close;
                self.global
            }
        };
        if onset.is_none() {
            status |= NO_ONSET;
        }
        let t_on = onset.unwrap_or(f64::NAN);
        let late = onset.is_some() && t_on >= t_max;
        if late && enhancing {
            status |= ONSET_NOT_BEFORE_PEAK;
        }

        set("peak_time", timing(t0 + t_max));
        set("onset", timing(t_on));
        if settings.onset == Onset::PiecewiseLinear && !settings.global {
            let error = if own.is_some() { timing(onset_error(&c, t_on, from)) } else { f64::NAN };
            set("onset_se", error);
            if own.is_some() && enhancing && error.is_nan() {
                status |= NOT_IDENTIFIABLE;
            }
        }
        let to_peak = if late { f64::NAN } else { t_max - t_on };
        set("time_to_peak", timing(to_peak));
        for (id, fraction) in [("10", 0.10), ("25", 0.25), ("50", 0.50), ("75", 0.75), ("90", 0.90)] {
            let crossing = c.rise_through(fraction * c.height()).unwrap_or(f64::NAN);
            set(&format!("time_to_fraction_{id}"), timing(crossing - t_on));
        }
        set("wash_in_slope", timing(e_max / to_peak));

        // Slopes.
        let (slope, slope_time, _, slope_close) = c.steepest();
        set("max_slope", slope);
        set("max_slope_time", timing(t0 + slope_time));
        if slope_close {
            close.insert("max_slope_time".into());
        }
        set("wash_out_slope", if c.peak == last { f64::NAN } else { timing((e_max - e[last]) / (t_max - end)) });
        let late_start = match settings.late_from {
            None => t[c.peak],
            Some(seconds) => t_on + seconds,
        };
        let tail: Vec<usize> = (0..=last).filter(|i| t[*i] >= late_start).collect();
        if tail.len() >= 2 {
            let on_tail = |c: &Enhancement| line(&c.t[tail[0]..], &c.e[tail[0]..]).0;
            set("late_slope", on_tail(&c));
            set("late_slope_se", standard_error(&c.weights(on_tail), sigma, n));
        } else {
            set("late_slope", f64::NAN);
            set("late_slope_se", f64::NAN);
            if settings.late_from.is_some() && onset.is_some() {
                status |= WINDOW_PAST_END;
            }
        }

        // Areas.
        let reaches = onset.is_some() && t_on <= end;
        if reaches {
            set("auc", c.area(t_on, end));
            set("auc_se", standard_error(&c.weights(|c| c.area(t_on, end)), sigma, n));
            set("aumc", c.moment(t_on, end));
            set("aumc_se", standard_error(&c.weights(|c| c.moment(t_on, end)), sigma, n));
            let area = c.area(t_on, end);
            set("mean_residence_time", timing(if area > 0.0 { c.moment(t_on, end) / area } else { f64::NAN }));
            if enhancing && area <= 0.0 {
                status |= NO_DIVISOR;
            }
        } else {
            for id in ["auc", "auc_se", "aumc", "aumc_se", "mean_residence_time"] {
                set(id, f64::NAN);
            }
        }
        for window in &settings.iauc {
            let id = format!("iauc_{}", format!("{window}").replace('.', "p"));
            if onset.is_some() && t_on + window <= end {
                set(&id, c.area(t_on, t_on + window));
                let weights = c.weights(|c| c.area(t_on, t_on + window));
                set(&format!("{id}_se"), standard_error(&weights, sigma, n));
            } else {
                set(&id, f64::NAN);
                set(&format!("{id}_se"), f64::NAN);
                if onset.is_some() {
                    status |= WINDOW_PAST_END;
                }
            }
        }

        // First pass.
        let half = 0.5 * c.height();
        let up = c.rise_through(half);
        let mut down = None;
        for i in c.peak..last {
            if e[i + 1] <= half {
                down = Some(c.crossing(i, half));
                break;
            }
        }
        if enhancing && down.is_none() {
            status |= CENSORED;
        }
        set("fwhm", timing(up.zip(down).map_or(f64::NAN, |(up, down)| down - up)));

        set("final_enhancement", e[last]);
        set("final_enhancement_se", sigma * (1.0 + 1.0 / n as f64).sqrt());

        let (t_1, t_2) = (t_on + settings.ratio.0, t_on + settings.ratio.1);
        if onset.is_some() && t_1 <= end && t_2 <= end {
            let ratio = if c.at(t_2) == 0.0 { f64::NAN } else { c.at(t_1) / c.at(t_2) };
            set("signal_enhancement_ratio", timing(ratio));
            if enhancing && c.at(t_2) == 0.0 {
                status |= NO_DIVISOR;
            }
        } else {
            set("signal_enhancement_ratio", f64::NAN);
            if onset.is_some() && enhancing {
                status |= WINDOW_PAST_END;
            }
        }

        // The type of the curve.
        let mut label = 0.0;
        if enhancing && onset.is_some() {
            let centre = t_on + 120.0;
            if centre > end {
                status |= WINDOW_PAST_END;
            } else {
                let mut early: Vec<usize> = (0..=last).filter(|i| (t[*i] - centre).abs() <= 15.0).collect();
                if early.is_empty() {
                    let nearest = (0..=last).min_by(|a, b| (t[*a] - centre).abs().total_cmp(&(t[*b] - centre).abs()));
                    early.push(nearest.unwrap());
                }
                let late: Vec<usize> = (0..=last).filter(|i| t[*i] >= end - 30.0).collect();
                let y = if signal { &f } else { e };
                let mean = |frames: &[usize]| frames.iter().map(|i| y[*i]).sum::<f64>() / frames.len() as f64;
                let (before, after) = (mean(&early), mean(&late));
                if before > 0.0 {
                    let change = 100.0 * (after - before) / before;
                    let mut weights = vec![0.0; last + 1];
                    for i in &late {
                        weights[*i] += 100.0 / before / late.len() as f64;
                    }
                    for i in &early {
                        weights[*i] -= 100.0 * after / (before * before) / early.len() as f64;
                    }
                    let squares: f64 = weights.iter().map(|w| w * w).sum();
                    let sum: f64 = weights.iter().sum();
                    let error = sigma * (squares + if signal { 0.0 } else { sum * sum / n as f64 }).sqrt();
                    let undetermined = [-10.0, 10.0].iter().any(|b: &f64| (change - b).abs() < 1.96 * error);
                    label = match change {
                        _ if undetermined => 4.0,
                        c if c > 10.0 => 1.0,
                        c if c < -10.0 => 3.0,
                        _ => 2.0,
                    };
                    let near = [-10.0f64, 10.0]
                        .iter()
                        .any(|b| ((change - b).abs() - 1.96 * error).abs() < 1e-5 * (1.0 + error));
                    if near {
                        close.insert("curve_type".into());
                    }
                }
            }
        }
        if enhancing && onset.is_some() && t_on + 120.0 <= end && label == 0.0 {
            status |= NO_DIVISOR;
        }
        set("curve_type", label);

        if signal && settings.fall {
            set("peak_height", e_max);
            let (from, to) = settings.recovery.map_or((end - 30.0, end), |(from, to)| (from - t0, to - t0));
            let late: Vec<usize> = (0..=last).filter(|i| t[*i] >= from && t[*i] <= to).collect();
            let mean = late.iter().map(|i| e[*i]).sum::<f64>() / late.len() as f64;
            set("percent_signal_recovery", timing(100.0 * (1.0 - mean / e_max)));
        }
        set("contrast_to_noise", if sigma > 0.0 { e_max / sigma } else { f64::NAN });
        if sigma <= 0.0 {
            status |= NO_DIVISOR;
        }
        if sigma < 1e-12 * f.iter().fold(0.0f64, |m, f| m.max(f.abs())) {
            // Constant but for rounding.
            close.insert("contrast_to_noise".into());
        }
        if t.iter().any(|t| (t - t_on).abs() < 1e-9 * end) {
            // Whether the sample at the break point lies on the line is a matter of rounding.
            close.insert("onset_se".into());
        }

        if onset_close {
            let needs_onset = |id: &str| {
                id.starts_with("onset")
                    || id.starts_with("time_to")
                    || id.starts_with("au")
                    || id.starts_with("iauc")
                    || ["wash_in_slope", "mean_residence_time", "signal_enhancement_ratio", "curve_type"].contains(&id)
                    || (settings.late_from.is_some() && id.starts_with("late_slope"))
            };
            close.extend(answer.values.keys().filter(|id| needs_onset(id)).cloned());
        }
        answer.status = status;
        answer.close = close;
        let noise_in_32_bits =
            sigma == self.floor_from_mask || (n == 1 && matches!(settings.noise, NoiseFrom::Baseline));
        if noise_in_32_bits {
            let by_noise = matches!(settings.onset, Onset::SdThreshold { .. });
            let rests = |id: &str| by_noise || (id.ends_with("_se") && id != "onset_se") || id == "contrast_to_noise";
            answer.noisy.extend(answer.values.keys().filter(|id| rests(id)).cloned());
        }
        answer
    }
}

/// Vertex of the parabola through three points by Newton's divided differences, if it opens downwards.
fn vertex(t: [f64; 3], e: [f64; 3]) -> Option<(f64, f64)> {
    let first = (e[1] - e[0]) / (t[1] - t[0]);
    let second = (e[2] - e[1]) / (t[2] - t[1]);
    let bend = (second - first) / (t[2] - t[0]);
    if bend >= 0.0 || e[1] < e[0] || e[1] < e[2] {
        return None;
    }
    let time = (t[0] + t[1]) / 2.0 - first / (2.0 * bend);
    Some((time, e[0] + first * (time - t[0]) + bend * (time - t[0]) * (time - t[1])))
}

fn standard_error(weights: &[f64], sigma: f64, n: usize) -> f64 {
    let squares: f64 = weights.iter().map(|w| w * w).sum();
    let sum: f64 = weights.iter().sum();
    (sigma * sigma * (squares + sum * sum / n as f64)).sqrt()
}

/// Standard error of the break point from (J'J)^-1 SSE / dof, the Jacobian by its definition.
fn onset_error(c: &Enhancement, t_b: f64, first: usize) -> f64 {
    let n = c.last_baseline + 1 - first;
    let end = c.half_rise();
    let (sse, slope) = c.broken_line(t_b, end);
    let sse = sse - c.e[..first].iter().map(|e| e * e).sum::<f64>();
    let (mut aa, mut ab, mut bb) = (0.0, 0.0, 0.0);
    for i in 0..=end {
        if c.t[i] > t_b {
            let (by_time, by_slope) = (-slope, c.t[i] - t_b);
            aa += by_time * by_time;
            ab += by_time * by_slope;
            bb += by_slope * by_slope;
        }
    }
    let determinant = aa * bb - ab * ab;
    let on_line = (0..=end).filter(|i| c.t[*i] > t_b).count();
    let dof = (end + 1 - first) as f64 - 3.0;
    if on_line < 2 || dof < 1.0 {
        return f64::NAN;
    }
    // An error of the baseline's mean moves the line up or down, and its crossing by that over the slope.
    ((bb / determinant + 1.0 / (n as f64 * slope * slope)) * sse / dof).sqrt()
}
