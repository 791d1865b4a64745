//! What is decided once for all voxels, in f64 on the host: the tables of the reference text and of the shader.

use std::borrow::Cow;
use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};
use crate::kernel::lanes::Table;
use crate::kernel::{Input, Program};
use crate::maps::SettingValue;
use crate::quantity::SignalKind;

use super::outputs::{MAX_WINDOWS, Slots, plan, slot};
use super::{Descriptors, LateSlopeFrom, Noise, Onset, OnsetScope, PeakReading, Polarity, PreparedDescriptors};
use super::{baseline, global_onset, scan};

/// Time constants on the grid of the saturating onset.
const TAUS: usize = 32;

/// The label `curve_type` looks at samples this many seconds after the onset …
const EARLY_AFTER_ONSET_S: f64 = 120.0;
/// … and this far to either side.
const EARLY_HALF_WIDTH_S: f64 = 15.0;
/// Late samples lie within this many seconds of the last frame.
const LATE_WINDOW_S: f64 = 30.0;

/// Where the noise comes from, in stored units.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum NoiseFrom {
    /// The voxel's baseline SD, but at least this.
    Baseline { floor: f64 },
    /// This value.
    Value(f64),
    /// The first extra layer, in the unit of the samples.
    Layer,
}

/// The tables of the descriptors kernel.
///
/// Times are in seconds after the first frame, amplitudes in stored units.
#[derive(Debug, Clone)]
pub struct Tables {
    pub(super) kind: SignalKind,
    pub(super) n: usize,
    /// Baseline frames a .. b.
    pub(super) a: usize,
    pub(super) b: usize,
    pub(super) t0: f64,
    pub(super) u: Table,
    /// The numbers of the frames.
    pub(super) index: Table,
    pub(super) dt: Table,
    pub(super) inv_dt: Table,
    /// Half the durations of the segments before the first frame (0), before the second, …, after the last (0).
    pub(super) half_steps: Table,
    /// Seconds from each frame to the last.
    pub(super) to_end: Table,
    /// 1 / (u[i + 1] - u[i - 1]); 0 at the ends.
    pub(super) inv_span: Table,
    pub(super) inv_baseline: f64,
    /// 1 / (n - 1); 0 for one frame.
    pub(super) inv_baseline_dof: f64,
    pub(super) slope: f64,
    pub(super) intercept: f64,
    /// |slope|.
    pub(super) scale: f64,
    pub(super) inv_scale: f64,
    /// +1 where samples rise with contrast agent, -1 where they fall.
    pub(super) direction: f64,
    /// The same for stored samples, which a negative slope turns over.
    pub(super) sign: f64,
    pub(super) noise: NoiseFrom,
    pub(super) noise_elsewhere: bool,
    pub(super) enhancement_threshold: f64,
    pub(super) subframe: bool,
    pub(super) slope_window: usize,
    /// Frames lie equally far apart, but for the rounding of their times.
    pub(super) even: bool,
    /// The mean distance of frames.
    pub(super) spacing: f64,
    /// Weights of the slope of each window from the last baseline frame on, `slope_window` each: whole numbers, to be
    /// multiplied by the unit, for even frames.
    pub(super) slope_weights: Table,
    pub(super) slope_unit: f64,
    pub(super) slope_times: Table,
    /// The same for the first m = 2 .. slope_window samples.
    pub(super) early_weights: Table,
    pub(super) early_times: Table,
    pub(super) onset: Onset,
    pub(super) global_onset: Option<f64>,
    /// The frames that come into question as the last one at or before it, however times are rounded.
    pub(super) global_onset_span: Range<usize>,
    /// The segment that it lies in, if that is certain however times are rounded and integrals can touch it.
    pub(super) global_segment: Option<usize>,
    /// The same of the end of each window from it.
    pub(super) window_segments: Vec<Option<usize>>,
    pub(super) late_from: Option<f64>,
    pub(super) windows: Vec<f64>,
    pub(super) ratio_times: (f64, f64),
    pub(super) early_after_onset: f64,
    pub(super) early_half_width: f64,
    /// First frame of the last 30 s.
    pub(super) late_first: usize,
    pub(super) recovery_window: Option<(f64, f64)>,
    pub(super) recovery: Range<usize>,
    /// What both heights of a segment are weighted with in the integral over it; 1 for even frames.
    pub(super) pair_weights: Table,
    pub(super) area_unit: f64,
    /// Weights of the two heights of a segment in the integral of time times height.
    pub(super) moment_weights: Table,
    /// Over the samples from each on, with their weights in the integral over all segments, w, and in that of time times
    /// height, m: sums of w^2, w m, m^2; up to one sample past the last.
    pub(super) weight_sums: Table,
    pub(super) taus: Table,
    pub(super) log_tau_first: f64,
    pub(super) log_tau_step: f64,
    /// First segment that an integral from the onset can touch.
    pub(super) first_segment: usize,
    pub(super) slots: Slots,
    pub(super) needs_onset: bool,
    pub(super) needs_own_onset: bool,
    pub(super) needs_half_rise: bool,
    pub(super) needs_slope: bool,
    /// A map needs the enhancement of all frames.
    pub(super) needs_samples: bool,
    /// The steepest window itself is asked for, not only its slope.
    pub(super) needs_slope_window: bool,
    /// The mean enhancement of the steepest window is asked for.
    pub(super) needs_slope_mean: bool,
    pub(super) needs_weights: bool,
    pub(super) needs_crossings: bool,
    pub(super) needs_moment: bool,
    pub(super) needs_area: bool,
    pub(super) needs_positive_baseline: bool,
    /// What [`scan::limit`] says.
    pub(super) scan_limit: i16,
    /// Voxels that enhance take much longer than others.
    pub(super) takes_long: bool,
    /// Beside what a scan finds, only frames up to the half-rise frame and around the onset are looked at.
    pub(super) few_frames: bool,
}

impl Tables {
    /// Number of frames.
    pub fn frames(&self) -> usize {
        self.n
    }

    /// The row of a map, if it is computed.
    #[inline(always)]
    pub(super) fn row(&self, slot: usize) -> Option<usize> {
        usize::try_from(self.slots[slot]).ok()
    }

    /// Everything that follows from the times and the baseline.
    fn set_axis(&mut self, u: Vec<f64>, frames: Range<usize>) {
        self.n = u.len();
        (self.a, self.b) = (frames.start, frames.end);
        self.index = (0..self.n).map(|i| i as f64).collect();
        let dt: Vec<f64> = u.windows(2).map(|w| w[1] - w[0]).collect();
        self.inv_dt = dt.iter().map(|dt| 1.0 / dt).collect();
        self.half_steps = [0.0].into_iter().chain(dt.iter().map(|dt| dt / 2.0)).chain([0.0]).collect();
        self.dt = dt.into_iter().collect();
        self.to_end = u.iter().map(|t| u[self.n - 1] - t).collect();
        self.inv_span =
            (0..self.n).map(|i| if i > 0 && i + 1 < self.n { 1.0 / (u[i + 1] - u[i - 1]) } else { 0.0 }).collect();
        let baseline = frames.len() as f64;
        self.inv_baseline = 1.0 / baseline;
        self.inv_baseline_dof = if frames.len() > 1 { 1.0 / (baseline - 1.0) } else { 0.0 };
        let last = u[self.n - 1];
        let spacing = (last - u[0]) / (self.n - 1) as f64;
        self.even = u.iter().enumerate().all(|(i, t)| (t - u[0] - i as f64 * spacing).abs() <= 1e-13 * last);
        self.spacing = spacing;
        self.set_integrals(&u, spacing);
        let (w, start) = (self.slope_window, self.b - 1);
        let (even_weights, even_unit) = even_slope_weights(w, spacing);
        self.slope_unit = if self.even { even_unit } else { 1.0 };
        let (mut window_weights, mut window_times) = (Vec::new(), Vec::new());
        for i in start..(self.n + 1).saturating_sub(w).max(start) {
            let (weights, time) = slope_weights(&u[i..i + w]);
            window_weights.extend(if self.even { &even_weights } else { &weights });
            window_times.push(time);
        }
        (self.slope_weights, self.slope_times) =
            (window_weights.into_iter().collect(), window_times.into_iter().collect());
        let (mut early_weights, mut early_times) = (Vec::new(), Vec::new());
        for m in 2..w.min(self.n - start + 1) {
            let (mut weights, time) = slope_weights(&u[start..start + m]);
            weights.resize(w, 0.0);
            early_weights.extend(weights);
            early_times.push(time);
        }
        (self.early_weights, self.early_times) =
            (early_weights.into_iter().collect(), early_times.into_iter().collect());
        self.late_first = u.iter().position(|t| *t >= last - LATE_WINDOW_S).unwrap_or(self.n - 1);
        self.recovery = match self.recovery_window {
            None => self.late_first..self.n,
            Some((from, to)) => {
                let first = u.iter().position(|t| *t + self.t0 >= from).unwrap_or(self.n - 1);
                let end = u.iter().rposition(|t| *t + self.t0 <= to).map_or(first + 1, |i| i + 1);
                first..end.max(first + 1)
            }
        };
        let fixed = matches!(self.onset, Onset::Seconds(_));
        self.first_segment = if fixed { 0 } else { self.b - 1 };
        let shortest = self.dt.iter().copied().fold(f64::INFINITY, f64::min);
        let (first, longest) = ((0.5 * shortest).ln(), (4.0 * (last - u[0])).ln());
        self.log_tau_first = first;
        self.log_tau_step = (longest - first) / (TAUS - 1) as f64;
        self.taus = (0..TAUS).map(|j| (first + j as f64 * self.log_tau_step).exp()).collect();
        self.u = u.into_iter().collect();
    }

    /// The onset of voxels without one of their own, and where it lies.
    fn set_global_onset(&mut self, onset: Option<f64>) {
        self.global_onset = onset;
        self.global_segment = None;
        self.window_segments.clear();
        if let Some(onset) = onset {
            let slack = 1e-6 * self.u[self.n - 1];
            let place = |time: f64| self.u.partition_point(|u| *u <= time);
            let span = |time: f64| place(time - slack).saturating_sub(1)..place(time + slack).max(1);
            let segment = |time: f64| {
                let (span, segments) = (span(time), self.first_segment..self.n - 1);
                (time > slack && span.len() == 1 && segments.contains(&span.start)).then_some(span.start)
            };
            let (onset_span, onset_segment) = (span(onset), segment(onset));
            let window_segments = self.windows.iter().map(|seconds| segment(onset + seconds)).collect();
            self.global_onset_span = onset_span;
            self.global_segment = onset_segment;
            self.window_segments = window_segments;
        }
    }

    /// Weights of the samples in the integrals over whole segments.
    fn set_integrals(&mut self, u: &[f64], spacing: f64) {
        let segments = || u.windows(2).map(|w| (w[0], w[1] - w[0]));
        self.area_unit = if self.even { spacing / 2.0 } else { 1.0 };
        self.pair_weights = segments().map(|(_, dt)| if self.even { 1.0 } else { dt / 2.0 }).collect();
        let moments: Vec<[f64; 2]> =
            segments().map(|(u, dt)| [dt * (u / 2.0 + dt / 6.0), dt * (u / 2.0 + dt / 3.0)]).collect();
        let mut sums = vec![[0.0; 3]; self.n + 1];
        for i in (0..self.n).rev() {
            let before = i.checked_sub(1);
            let after = (i + 1 < self.n).then_some(i);
            let area: f64 = [before, after].into_iter().flatten().map(|j| (u[j + 1] - u[j]) / 2.0).sum();
            let moment = before.map_or(0.0, |j| moments[j][1]) + after.map_or(0.0, |j| moments[j][0]);
            let [squares, products, moment_squares] = sums[i + 1];
            sums[i] = [squares + area * area, products + area * moment, moment_squares + moment * moment];
        }
        self.moment_weights = moments.into_iter().flatten().collect();
        self.weight_sums = sums.into_iter().flatten().collect();
    }

    /// The tables for a curve of which only these frames are left.
    pub(super) fn with_frames(&self, frames: &[usize]) -> Option<Self> {
        let a = frames.iter().filter(|i| **i < self.a).count();
        let b = frames.iter().filter(|i| **i < self.b).count();
        let fewest = if self.noise_elsewhere { 1 } else { 2 };
        if b < a + fewest || frames.len() <= b {
            return None;
        }
        let mut tables = self.clone();
        tables.set_axis(frames.iter().map(|i| self.u[*i]).collect(), a..b);
        tables.set_global_onset(self.global_onset);
        tables.scan_limit = scan::limit(&tables);
        Some(tables)
    }
}

/// Weights of the samples in the least-squares slope over these times, and the mean time.
fn slope_weights(times: &[f64]) -> (Vec<f64>, f64) {
    let mean = times.iter().sum::<f64>() / times.len() as f64;
    let squares: f64 = times.iter().map(|t| (t - mean).powi(2)).sum();
    (times.iter().map(|t| (t - mean) / squares).collect(), mean)
}

/// The same for even spacing: the smallest whole numbers that are in proportion, and what to multiply their sum with.
fn even_slope_weights(samples: usize, spacing: f64) -> (Vec<f64>, f64) {
    let middle = (samples as f64 - 1.0) / 2.0;
    let finer = if samples.is_multiple_of(2) { 2.0 } else { 1.0 };
    let weights: Vec<f64> = (0..samples).map(|j| finer * (j as f64 - middle)).collect();
    let squares: f64 = weights.iter().map(|w| w * w).sum();
    (weights, finer / (spacing * squares))
}

/// Median of sqrt(chi^2_k / k): what the median of the standard deviation of normal samples is, in units of the true one.
fn median_deviation(k: usize) -> f64 {
    // Bisection on the regularised lower incomplete gamma function P(k/2, x/2) by its power series.
    let shape = k as f64 / 2.0;
    let probability = |x: f64| {
        let x = x / 2.0;
        let mut term = 1.0 / shape;
        let mut sum = term;
        for i in 1..10_000 {
            term *= x / (shape + f64::from(i));
            sum += term;
            if term < sum * 1e-16 {
                break;
            }
        }
        (shape * x.ln() - x - ln_gamma_half(k)).exp() * sum
    };
    let (mut low, mut high) = (0.0, k as f64 + 1.0);
    for _ in 0..200 {
        let middle = (low + high) / 2.0;
        if probability(middle) < 0.5 { low = middle } else { high = middle }
    }
    ((low + high) / 2.0 / k as f64).sqrt()
}

/// ln Gamma(k / 2), by its recurrence from Gamma(1/2) or Gamma(1).
fn ln_gamma_half(k: usize) -> f64 {
    let (mut x, mut sum) = if k.is_multiple_of(2) { (1.0, 0.0) } else { (0.5, std::f64::consts::PI.ln() / 2.0) };
    while x + 0.5 < k as f64 / 2.0 {
        sum += f64::ln(x);
        x += 1.0;
    }
    sum
}

/// Decides everything that is shared by all voxels.
pub(super) fn prepare(settings: &Descriptors, input: &Input<'_>) -> Result<PreparedDescriptors> {
    let series = input.series;
    let axis = series.times()?;
    check(settings, series.frames(), axis.duration_s())?;
    let plan = plan(settings)?;
    let direction = match settings.polarity {
        Polarity::Rise => 1.0,
        Polarity::Fall => -1.0,
    };
    let scaling = series.scaling();
    let times = axis.seconds();
    let u: Vec<f64> = times.iter().map(|t| t - times[0]).collect();
    let frames = baseline::frames(&settings.baseline, input, direction)?;
    let asks = |slots: &[usize]| slots.iter().any(|slot| plan.slots[*slot] >= 0);
    let needs_area = asks(&[slot::AUC, slot::AUC_SE, slot::AUMC, slot::AUMC_SE, slot::MEAN_RESIDENCE_TIME]);
    let late_from = match settings.late_slope_from {
        LateSlopeFrom::Peak => None,
        LateSlopeFrom::SecondsAfterOnset(seconds) => Some(seconds),
    };
    let fractions = slot::TIME_TO_FRACTION..slot::TIME_TO_FRACTION + 5;
    let needs_onset = needs_area
        || !plan.windows.is_empty()
        || asks(&[
            slot::ONSET,
            slot::ONSET_SE,
            slot::TIME_TO_PEAK,
            slot::WASH_IN_SLOPE,
            slot::SIGNAL_ENHANCEMENT_RATIO,
            slot::CURVE_TYPE,
        ])
        || fractions.clone().any(|slot| plan.slots[slot] >= 0)
        || (late_from.is_some() && asks(&[slot::LATE_SLOPE, slot::LATE_SLOPE_SE]));
    let needs_crossings = fractions.clone().any(|slot| plan.slots[slot] >= 0) || asks(&[slot::FWHM]);
    let fixed = matches!(settings.onset, Onset::Seconds(_));
    let needs_own_onset = needs_onset && settings.onset_scope == OnsetScope::Voxel && !fixed;
    let mut tables = Tables {
        kind: settings.kind,
        n: 0,
        a: 0,
        b: 0,
        t0: times[0],
        u: Table::default(),
        index: Table::default(),
        dt: Table::default(),
        inv_dt: Table::default(),
        half_steps: Table::default(),
        to_end: Table::default(),
        inv_span: Table::default(),
        inv_baseline: 0.0,
        inv_baseline_dof: 0.0,
        slope: scaling.slope,
        intercept: scaling.intercept,
        scale: scaling.slope.abs(),
        inv_scale: 1.0 / scaling.slope.abs(),
        direction,
        sign: direction * scaling.slope.signum(),
        noise: NoiseFrom::Baseline { floor: 0.0 },
        noise_elsewhere: false,
        enhancement_threshold: settings.enhancement_threshold,
        subframe: settings.peak_reading == PeakReading::Subframe,
        slope_window: settings.slope_window,
        even: false,
        spacing: 0.0,
        slope_weights: Table::default(),
        slope_unit: 0.0,
        slope_times: Table::default(),
        early_weights: Table::default(),
        early_times: Table::default(),
        onset: settings.onset,
        global_onset: None,
        global_onset_span: 0..0,
        global_segment: None,
        window_segments: Vec::new(),
        late_from,
        windows: plan.windows.clone(),
        ratio_times: settings.ratio_times_s,
        early_after_onset: EARLY_AFTER_ONSET_S,
        early_half_width: EARLY_HALF_WIDTH_S,
        late_first: 0,
        recovery_window: settings.recovery_window_s,
        recovery: 0..0,
        pair_weights: Table::default(),
        area_unit: 0.0,
        moment_weights: Table::default(),
        weight_sums: Table::default(),
        taus: Table::default(),
        log_tau_first: 0.0,
        log_tau_step: 0.0,
        first_segment: 0,
        slots: plan.slots,
        needs_onset,
        needs_own_onset,
        needs_half_rise: needs_own_onset && settings.onset == Onset::PiecewiseLinear,
        needs_slope: asks(&[slot::MAX_SLOPE, slot::MAX_SLOPE_TIME])
            || (needs_own_onset && settings.onset == Onset::Intersection),
        needs_slope_window: asks(&[slot::MAX_SLOPE_TIME]) || (needs_own_onset && settings.onset == Onset::Intersection),
        needs_samples: settings.peak_reading == PeakReading::Subframe
            || (needs_own_onset && settings.onset != Onset::PiecewiseLinear)
            || fractions.clone().any(|slot| plan.slots[slot] >= 0)
            || asks(&[
                slot::ONSET_SE,
                slot::FWHM,
                slot::LATE_SLOPE,
                slot::LATE_SLOPE_SE,
                slot::PERCENT_SIGNAL_RECOVERY,
                slot::SIGNAL_ENHANCEMENT_RATIO,
                slot::CURVE_TYPE,
            ]),
        needs_slope_mean: needs_own_onset && settings.onset == Onset::Intersection,
        needs_crossings,
        needs_weights: asks(&[slot::AUC_SE, slot::AUMC_SE])
            || (slot::IAUC_SE..slot::IAUC_SE + MAX_WINDOWS).any(|slot| plan.slots[slot] >= 0),
        needs_moment: asks(&[slot::AUMC, slot::AUMC_SE, slot::MEAN_RESIDENCE_TIME]),
        needs_area,
        needs_positive_baseline: asks(&[slot::RELATIVE_ENHANCEMENT])
            || (asks(&[slot::CURVE_TYPE]) && settings.kind == SignalKind::Signal),
        takes_long: needs_own_onset || needs_crossings || asks(&[slot::CURVE_TYPE, slot::SIGNAL_ENHANCEMENT_RATIO]),
        few_frames: false,
        scan_limit: 0,
    };
    tables.few_frames = tables.needs_half_rise
        && !(tables.needs_samples || tables.needs_moment || tables.needs_slope_mean)
        && tables.windows.is_empty()
        && !asks(&[slot::WASH_OUT_SLOPE, slot::FINAL_ENHANCEMENT]);
    tables.set_axis(u, frames.clone());

    if let Some((from, to)) = settings.recovery_window_s
        && plan.slots[slot::PERCENT_SIGNAL_RECOVERY] >= 0
        && !times.iter().any(|t| (from..=to).contains(t))
    {
        let mend = format!("no frame lies in it: the series runs from {} to {} s", times[0], times[times.len() - 1]);
        return Err(Error::setting("recovery window", format!("{from} to {to} s"), mend));
    }
    let mut extra = Vec::new();
    let mut record = record(settings, &tables, &plan.windows);
    let needs_mean = needs_onset && !fixed;
    if needs_mean && matches!(settings.noise, Noise::Baseline) {
        let deciding = |rough: &[f64]| global_onset::deciding_frames(&tables, rough);
        input.reductions.mean_curve_and_baseline_noise(frames, deciding);
    }
    set_noise(settings, input, &mut tables, &mut extra, &mut record)?;
    if needs_onset {
        tables.set_global_onset(match settings.onset {
            Onset::Seconds(seconds) => Some(seconds),
            _ => input.reductions.mean_curve().and_then(|mean| global_onset::find(&tables, mean)),
        });
        let value = tables.global_onset.map_or(SettingValue::Text("none".into()), SettingValue::Number);
        record.push(("global_onset_s".into(), value));
    }
    tables.scan_limit = scan::limit(&tables);
    Ok(PreparedDescriptors { tables, outputs: plan.outputs, settings: record, extra })
}

/// Settings that can't be used, whatever the samples are.
fn check(settings: &Descriptors, frames: usize, duration_s: f64) -> Result<()> {
    baseline::check(&settings.baseline, frames)?;
    let positive = |name: &str, value: f64| {
        if value.is_finite() && value > 0.0 {
            Ok(())
        } else {
            Err(Error::setting(name, value, "give a positive number"))
        }
    };
    match settings.onset {
        Onset::Threshold { fraction } | Onset::Derivative { fraction } if !(fraction > 0.0 && fraction < 1.0) => {
            return Err(Error::setting("onset", settings.onset.to_text(), "give a fraction between 0 and 1"));
        }
        Onset::SdThreshold { deviations } => positive("onset", deviations)?,
        Onset::Seconds(seconds) if !(0.0..=duration_s).contains(&seconds) => {
            let mend = format!("give seconds after the first frame, at most the {duration_s} s that the series lasts");
            return Err(Error::setting("onset", seconds, mend));
        }
        _ => {}
    }
    positive("enhancement threshold", settings.enhancement_threshold)?;
    if settings.slope_window < 2 {
        return Err(Error::setting("slope window", settings.slope_window, "use 2 samples or more"));
    }
    if let LateSlopeFrom::SecondsAfterOnset(seconds) = settings.late_slope_from
        && !(seconds.is_finite() && seconds >= 0.0)
    {
        return Err(Error::setting("late slope", seconds, "give seconds after the onset, 0 or more"));
    }
    for time in [settings.ratio_times_s.0, settings.ratio_times_s.1] {
        positive("signal enhancement ratio time", time)?;
    }
    if let Some((from, to)) = settings.recovery_window_s
        && !(from.is_finite() && to.is_finite() && from <= to)
    {
        let mend = "give a window from an earlier to a later time in seconds";
        return Err(Error::setting("recovery window", format!("{from} to {to} s"), mend));
    }
    Ok(())
}

/// Decides where the noise comes from and how large it is at least.
fn set_noise(
    settings: &Descriptors,
    input: &Input<'_>,
    tables: &mut Tables,
    extra: &mut Vec<Vec<f32>>,
    record: &mut Vec<(String, SettingValue)>,
) -> Result<()> {
    let baseline_frames = tables.b - tables.a;
    match &settings.noise {
        Noise::Value(value) => {
            if !(value.is_finite() && *value >= 0.0) {
                return Err(Error::setting(
                    "noise",
                    value,
                    "give a standard deviation in the unit of the samples, 0 or more",
                ));
            }
            tables.noise = NoiseFrom::Value(value * tables.inv_scale);
            tables.noise_elsewhere = true;
            record.push(("noise".into(), SettingValue::Text("given".into())));
            record.push(("noise_sd".into(), SettingValue::Number(*value)));
        }
        Noise::Map(map) => {
            map.check_matches(input.series)?;
            let inside = input.mask.map(|mask| mask.flat());
            let bad = |i: &usize| {
                let value = map.flat()[*i];
                inside.is_none_or(|inside| inside[*i] != 0) && !(value.is_finite() && value >= 0.0)
            };
            if let Some(i) = (0..map.flat().len()).find(bad) {
                let [x, y, _] = input.series.spatial_shape();
                let voxel = [i % x, i / x % y, i / x / y];
                let mend = "a noise map holds a finite standard deviation, 0 or more, in every voxel of the mask";
                return Err(Error::setting("noise map", format!("{} at voxel {voxel:?}", map.flat()[i]), mend));
            }
            extra.push(map.flat().to_vec());
            tables.noise = NoiseFrom::Layer;
            tables.noise_elsewhere = true;
            record.push(("noise".into(), SettingValue::Text("given map".into())));
        }
        Noise::Baseline if baseline_frames < 2 => {
            let mut noise = input.reductions.successive_difference_sd();
            if input.series.sample_type().is_integer() {
                let quantisation = (tables.scale / 12f64.sqrt()) as f32;
                noise.iter_mut().for_each(|sd| *sd = sd.max(quantisation));
            }
            extra.push(noise);
            tables.noise = NoiseFrom::Layer;
            tables.noise_elsewhere = true;
            record.push(("noise".into(), SettingValue::Text("median of successive differences per voxel".into())));
        }
        Noise::Baseline => {
            let median = input.reductions.baseline_sd_median(tables.a..tables.b).unwrap_or(0.0);
            let pooled = median / median_deviation(baseline_frames - 1);
            let quantisation = if input.series.sample_type().is_integer() { tables.scale / 12f64.sqrt() } else { 0.0 };
            let floor = pooled.max(quantisation);
            tables.noise = NoiseFrom::Baseline { floor: floor * tables.inv_scale };
            record.push(("noise".into(), SettingValue::Text("baseline".into())));
            record.push(("noise_sd_pooled".into(), SettingValue::Number(pooled)));
            record.push(("noise_sd_quantisation".into(), SettingValue::Number(quantisation)));
        }
    }
    Ok(())
}

/// All settings, for the record.
fn record(settings: &Descriptors, tables: &Tables, windows: &[f64]) -> Vec<(String, SettingValue)> {
    use SettingValue::{List, Number, Text};
    let text = |value: &str| Text(value.to_string());
    let mut record = vec![
        ("kind".to_string(), text(settings.kind.as_str())),
        ("polarity".into(), text(settings.polarity.as_str())),
        ("baseline".into(), Text(settings.baseline.to_text())),
        ("baseline_frames".into(), List(vec![Number(tables.a as f64), Number(tables.b as f64)])),
        ("onset".into(), Text(settings.onset.to_text())),
        ("onset_caplex".into(), text(settings.onset.caplex())),
        ("onset_scope".into(), text(settings.onset_scope.as_str())),
        (
            "peak".into(),
            text(match settings.peak_reading {
                PeakReading::Sample => "sample",
                PeakReading::Subframe => "subframe",
            }),
        ),
        ("enhancement_threshold_sd".into(), Number(settings.enhancement_threshold)),
        ("slope_window_samples".into(), Number(settings.slope_window as f64)),
        (
            "late_slope_from".into(),
            match settings.late_slope_from {
                LateSlopeFrom::Peak => text("peak"),
                LateSlopeFrom::SecondsAfterOnset(seconds) => Number(seconds),
            },
        ),
        ("iauc_windows_s".into(), List(windows.iter().copied().map(Number).collect())),
        (
            "signal_enhancement_ratio_times_s".into(),
            List(vec![Number(settings.ratio_times_s.0), Number(settings.ratio_times_s.1)]),
        ),
    ];
    if let Some((from, to)) = settings.recovery_window_s {
        record.push(("recovery_window_s".into(), List(vec![Number(from), Number(to)])));
    }
    record
}

/// The kernel's part of the uniform buffer, as `struct Settings` in the shader.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct ShaderSettings {
    baseline_start: u32,
    baseline_end: u32,
    first_segment: u32,
    noise_elsewhere: u32,
    global_onset_known: u32,
    kind_is_signal: u32,
    late_first: u32,
    recovery_start: u32,
    recovery_end: u32,
    tau_count: u32,
    dt_at: u32,
    inv_dt_at: u32,
    inv_span_at: u32,
    slope_weights_at: u32,
    slope_times_at: u32,
    early_weights_at: u32,
    early_times_at: u32,
    taus_at: u32,
    to_end_at: u32,
    t0: f32,
    inv_baseline: f32,
    inv_baseline_dof: f32,
    sqrt_inv_baseline: f32,
    final_error_factor: f32,
    slope: f32,
    intercept: f32,
    scale: f32,
    inv_scale: f32,
    direction: f32,
    sign: f32,
    noise_value: f32,
    enhancement_threshold: f32,
    onset_parameter: f32,
    global_onset: f32,
    late_from: f32,
    ratio_time_1: f32,
    ratio_time_2: f32,
    early_after_onset: f32,
    early_half_width: f32,
    log_tau_first: f32,
    log_tau_step: f32,
    inv_recovery: f32,
    inv_late: f32,
    inv_slope_window: f32,
    slope_unit: f32,
    area_unit: f32,
    moment_weights_at: u32,
    weight_sums_at: u32,
    windows: [f32; MAX_WINDOWS],
    pub(super) slots: Slots,
}

/// Bits of the shader's constant `NEEDS`.
mod needs {
    pub(super) const ONSET: u32 = 1;
    pub(super) const OWN_ONSET: u32 = 2;
    pub(super) const HALF_RISE: u32 = 4;
    pub(super) const SLOPE: u32 = 8;
    pub(super) const MOMENT: u32 = 32;
    pub(super) const AREA: u32 = 64;
    pub(super) const POSITIVE_BASELINE: u32 = 128;
}

/// The shader with its settings and tables.
pub(super) fn program(t: &Tables) -> Program {
    let mut values: Vec<f32> = Vec::new();
    let mut append = |table: &[f64]| {
        let at = values.len() as u32;
        values.extend(table.iter().map(|x| *x as f32));
        at
    };
    append(&t.u);
    let dt_at = append(&t.dt);
    let inv_dt_at = append(&t.inv_dt);
    let inv_span_at = append(&t.inv_span);
    let slope_weights_at = append(&t.slope_weights);
    let slope_times_at = append(&t.slope_times);
    let early_weights_at = append(&t.early_weights);
    let early_times_at = append(&t.early_times);
    let taus_at = append(&t.taus);
    let to_end_at = append(&t.to_end);
    let moment_weights_at = append(&t.moment_weights);
    let weight_sums_at = append(&t.weight_sums);
    let (noise_from, noise_value) = match t.noise {
        NoiseFrom::Baseline { floor } => (0, floor),
        NoiseFrom::Value(value) => (1, value),
        NoiseFrom::Layer => (2, 0.0),
    };
    let (onset_method, onset_parameter) = match t.onset {
        Onset::PiecewiseLinear => (0, 0.0),
        Onset::Saturating => (1, 0.0),
        Onset::Intersection => (2, 0.0),
        Onset::Threshold { fraction } => (3, fraction),
        Onset::SdThreshold { deviations } => (4, deviations),
        Onset::Derivative { fraction } => (5, fraction),
        Onset::Seconds(_) => (6, 0.0),
    };
    let bits = [
        (t.needs_onset, needs::ONSET),
        (t.needs_own_onset, needs::OWN_ONSET),
        (t.needs_half_rise, needs::HALF_RISE),
        (t.needs_slope, needs::SLOPE),
        (t.needs_moment, needs::MOMENT),
        (t.needs_area, needs::AREA),
        (t.needs_positive_baseline, needs::POSITIVE_BASELINE),
    ];
    let mut windows = [0.0; MAX_WINDOWS];
    for (to, window) in windows.iter_mut().zip(&t.windows) {
        *to = *window as f32;
    }
    let settings = ShaderSettings {
        baseline_start: t.a as u32,
        baseline_end: t.b as u32,
        first_segment: t.first_segment as u32,
        noise_elsewhere: u32::from(t.noise_elsewhere),
        global_onset_known: u32::from(t.global_onset.is_some()),
        kind_is_signal: u32::from(t.kind == SignalKind::Signal),
        late_first: t.late_first as u32,
        recovery_start: t.recovery.start as u32,
        recovery_end: t.recovery.end as u32,
        tau_count: t.taus.len() as u32,
        dt_at,
        inv_dt_at,
        inv_span_at,
        slope_weights_at,
        slope_times_at,
        early_weights_at,
        early_times_at,
        taus_at,
        to_end_at,
        t0: t.t0 as f32,
        inv_baseline: t.inv_baseline as f32,
        inv_baseline_dof: t.inv_baseline_dof as f32,
        sqrt_inv_baseline: t.inv_baseline.sqrt() as f32,
        final_error_factor: (1.0 + t.inv_baseline).sqrt() as f32,
        slope: t.slope as f32,
        intercept: t.intercept as f32,
        scale: t.scale as f32,
        inv_scale: t.inv_scale as f32,
        direction: t.direction as f32,
        sign: t.sign as f32,
        noise_value: noise_value as f32,
        enhancement_threshold: t.enhancement_threshold as f32,
        onset_parameter: onset_parameter as f32,
        global_onset: t.global_onset.unwrap_or(0.0) as f32,
        late_from: t.late_from.unwrap_or(0.0) as f32,
        ratio_time_1: t.ratio_times.0 as f32,
        ratio_time_2: t.ratio_times.1 as f32,
        early_after_onset: t.early_after_onset as f32,
        early_half_width: t.early_half_width as f32,
        log_tau_first: t.log_tau_first as f32,
        log_tau_step: t.log_tau_step as f32,
        inv_recovery: (1.0 / t.recovery.len() as f64) as f32,
        inv_late: (1.0 / (t.n - t.late_first) as f64) as f32,
        inv_slope_window: (1.0 / t.slope_window as f64) as f32,
        slope_unit: t.slope_unit as f32,
        area_unit: t.area_unit as f32,
        moment_weights_at,
        weight_sums_at,
        windows,
        slots: t.slots,
    };
    let needs = bits.iter().filter(|(asked, _)| *asked).fold(0, |word, (_, bit)| word | bit);
    let asked = (0..slot::COUNT).filter(|slot| t.slots[*slot] >= 0).fold(0u64, |word, slot| word | 1 << slot);
    let mut program = Program {
        tables: Cow::Owned(values),
        constants: vec![
            ("NEEDS", f64::from(needs)),
            ("ASKED_LOW", f64::from(asked as u32)),
            ("ASKED_HIGH", f64::from((asked >> 32) as u32)),
            ("NOISE_FROM", f64::from(noise_from)),
            ("ONSET_METHOD", f64::from(onset_method)),
            ("SLOPE_WINDOW", t.slope_window as f64),
            ("WINDOW_COUNT", t.windows.len() as f64),
            ("SUBFRAME", f64::from(t.subframe)),
            ("LATE_FROM_ONSET", f64::from(t.late_from.is_some())),
            ("EVEN", f64::from(t.even)),
        ],
        voxels_per_thread: 2,
        ..Program::new("descriptors", &[include_str!("../../../shaders/descriptors.wgsl")], &settings)
    };
    if t.needs_own_onset && t.onset == Onset::Saturating {
        program.entry_points = Cow::Borrowed(&["saturating_onset", "descriptors"]);
        program.state_words = 2;
    }
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_deviation_agrees_with_tables_of_the_chi_square_distribution() {
        // Medians of chi^2_k: 0.454936, 1.386294 (2 ln 2), 8.342833 for k = 1, 2, 9 (Abramowitz and Stegun, table 26.8).
        for (k, median) in [(1usize, 0.454_936), (2, 2.0 * 2f64.ln()), (9, 8.342_833)] {
            let expected = (median / k as f64).sqrt();
            assert!((median_deviation(k) - expected).abs() < 1e-6, "{k}: {}", median_deviation(k));
        }
    }

    #[cfg(feature = "gpu")]
    mod shader {
        use super::super::super::status_bit;
        use super::super::*;
        use crate::engine::gpu::text;
        use crate::status;

        fn module() -> naga::Module {
            text::kernel(&[include_str!("../../../shaders/descriptors.wgsl")])
        }

        #[test]
        fn settings_are_the_same_in_both_texts() {
            text::assert_same_layout!(
                &module(), "Settings", ShaderSettings:
                baseline_start baseline_end first_segment noise_elsewhere
                global_onset_known kind_is_signal late_first recovery_start recovery_end
                tau_count dt_at inv_dt_at inv_span_at slope_weights_at slope_times_at early_weights_at
                early_times_at taus_at to_end_at t0 inv_baseline inv_baseline_dof sqrt_inv_baseline final_error_factor slope
                intercept scale inv_scale direction sign noise_value enhancement_threshold onset_parameter global_onset
                late_from ratio_time_1 ratio_time_2 early_after_onset early_half_width log_tau_first log_tau_step
                inv_recovery inv_late inv_slope_window slope_unit area_unit moment_weights_at weight_sums_at
                windows slots
            );
        }

        #[test]
        fn constants_are_the_same_in_both_texts() {
            let module = module();
            let constants = text::constants(&module);
            let expected = [
                ("SLOT_BASELINE", slot::BASELINE as u32),
                ("SLOT_BASELINE_SD", slot::BASELINE_SD as u32),
                ("SLOT_PEAK_ENHANCEMENT", slot::PEAK_ENHANCEMENT as u32),
                ("SLOT_RELATIVE_ENHANCEMENT", slot::RELATIVE_ENHANCEMENT as u32),
                ("SLOT_PEAK_TIME", slot::PEAK_TIME as u32),
                ("SLOT_ONSET", slot::ONSET as u32),
                ("SLOT_TIME_TO_PEAK", slot::TIME_TO_PEAK as u32),
                ("SLOT_TIME_TO_FRACTION", slot::TIME_TO_FRACTION as u32),
                ("SLOT_WASH_IN_SLOPE", slot::WASH_IN_SLOPE as u32),
                ("SLOT_MAX_SLOPE", slot::MAX_SLOPE as u32),
                ("SLOT_MAX_SLOPE_TIME", slot::MAX_SLOPE_TIME as u32),
                ("SLOT_WASH_OUT_SLOPE", slot::WASH_OUT_SLOPE as u32),
                ("SLOT_LATE_SLOPE", slot::LATE_SLOPE as u32),
                ("SLOT_AUC", slot::AUC as u32),
                ("SLOT_AUMC", slot::AUMC as u32),
                ("SLOT_MEAN_RESIDENCE_TIME", slot::MEAN_RESIDENCE_TIME as u32),
                ("SLOT_FWHM", slot::FWHM as u32),
                ("SLOT_FINAL_ENHANCEMENT", slot::FINAL_ENHANCEMENT as u32),
                ("SLOT_SIGNAL_ENHANCEMENT_RATIO", slot::SIGNAL_ENHANCEMENT_RATIO as u32),
                ("SLOT_CURVE_TYPE", slot::CURVE_TYPE as u32),
                ("SLOT_PEAK_HEIGHT", slot::PEAK_HEIGHT as u32),
                ("SLOT_PERCENT_SIGNAL_RECOVERY", slot::PERCENT_SIGNAL_RECOVERY as u32),
                ("SLOT_CONTRAST_TO_NOISE", slot::CONTRAST_TO_NOISE as u32),
                ("SLOT_BASELINE_SE", slot::BASELINE_SE as u32),
                ("SLOT_ONSET_SE", slot::ONSET_SE as u32),
                ("SLOT_LATE_SLOPE_SE", slot::LATE_SLOPE_SE as u32),
                ("SLOT_AUC_SE", slot::AUC_SE as u32),
                ("SLOT_AUMC_SE", slot::AUMC_SE as u32),
                ("SLOT_FINAL_ENHANCEMENT_SE", slot::FINAL_ENHANCEMENT_SE as u32),
                ("SLOT_IAUC", slot::IAUC as u32),
                ("SLOT_IAUC_SE", slot::IAUC_SE as u32),
                ("NEEDS_ONSET", needs::ONSET),
                ("NEEDS_OWN_ONSET", needs::OWN_ONSET),
                ("NEEDS_HALF_RISE", needs::HALF_RISE),
                ("NEEDS_SLOPE", needs::SLOPE),
                ("NEEDS_MOMENT", needs::MOMENT),
                ("NEEDS_AREA", needs::AREA),
                ("NEEDS_POSITIVE_BASELINE", needs::POSITIVE_BASELINE),
                ("NON_FINITE_SAMPLE", status::NON_FINITE_SAMPLE),
                ("BASELINE_NOT_POSITIVE", status::BASELINE_NOT_POSITIVE),
                ("NOT_ENHANCING", status::NOT_ENHANCING),
                ("GLOBAL_ONSET_USED", status::GLOBAL_ONSET_USED),
                ("NO_ONSET", status::NO_ONSET),
                ("PEAK_AT_LAST_FRAME", status::PEAK_AT_LAST_FRAME),
                ("WINDOW_PAST_END", status::WINDOW_PAST_END),
                ("NOISE_NOT_FROM_BASELINE", status::NOISE_NOT_FROM_BASELINE),
                ("CENSORED", status::CENSORED),
                ("NOT_IDENTIFIABLE", status::NOT_IDENTIFIABLE),
                ("ONSET_NOT_BEFORE_PEAK", status_bit::ONSET_NOT_BEFORE_PEAK),
                ("NO_DIVISOR", status_bit::NO_DIVISOR),
                // The shader's own: windows of the default size are looked at on the way to the peak.
                ("SCANNED_WINDOW", 3),
            ];
            for (name, value) in expected {
                assert_eq!(constants.get(name), Some(&value), "{name}");
            }
            let methods = constants.keys().filter(|name| name.starts_with("ONSET_") || name.starts_with("NOISE_FROM"));
            assert_eq!(
                constants.len(),
                expected.len() + methods.filter(|name| *name != "ONSET_NOT_BEFORE_PEAK").count()
            );
        }

        #[test]
        fn entry_points_have_the_workgroup_size_that_the_program_says() {
            let module = module();
            assert_eq!(text::entry_points(&module), [("saturating_onset", [64, 1, 1]), ("descriptors", [64, 1, 1])]);
        }
    }
}
