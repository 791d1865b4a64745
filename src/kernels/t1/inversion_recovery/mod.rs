//! T1 from images at several times after an inversion: settings, tables and the shader's settings.

mod reference;

use std::borrow::Cow;
use std::str::FromStr;

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};
use crate::kernel::bounded::{Bounded, BoundedWord};
use crate::kernel::lanes::{Lanes, Table};
use crate::kernel::{Curve, Input, Output, PreparedKernel, Program, Rows, Runnable, VoxelKernel};
use crate::maps::SettingValue;
use crate::quantity::SignalKind;
use crate::units::{Seconds, check_inversion_times};

use super::search::{self, GRID};
use super::{
    DEFAULT_T1_BOUNDS, NoiseFrom, NoiseSd, check_bounds, check_samples, noise_from, numbers, record_common, results,
    status_bit,
};

/// Fewest and most inversion times.
const FEWEST: usize = 3;
/// More would come near the number of loop turns that software Vulkan allows.
const MOST: usize = 100;

/// How the recovering magnetisation is read out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Readout {
    /// One image after each inversion: the recovery is undisturbed, its time constant is T1.
    #[default]
    Single,
    /// Many small pulses after one inversion (Look and Locker), which shorten the recovery to the apparent T1* and lower
    /// its end: T1 = T1* (B / A - 1), M0 = B - A, for a perfect inversion of fully relaxed magnetisation.
    LookLocker,
}

/// What the samples of a recovery are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum RecoverySignal {
    /// Magnitudes: the samples before the curve's zero have lost their sign.
    #[default]
    Magnitude,
    /// Samples with their sign: phase-sensitive or corrected beforehand.
    Signed,
}

impl FromStr for RecoverySignal {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "magnitude" => Ok(RecoverySignal::Magnitude),
            "signed" => Ok(RecoverySignal::Signed),
            other => Err(Error::setting("recovery signal", other, "use magnitude or signed")),
        }
    }
}

/// T1 from images at three or more times after an inversion (CAPLEX P.NR2.004).
///
/// ```text
/// S = | A - B exp(-TI / T1) |                          one image after each inversion
/// S = | A - B exp(-TI / T1*) |, T1 = T1* (B / A - 1)   Look-Locker
/// ```
///
/// | parameter | unit | map |
/// |---|---|---|
/// | T1, R1 = 1 / T1 | s, 1/s | `t1`, `r1` |
/// | M0 = A, with Look-Locker B - A | as the signal | `m0` |
///
/// Three parameters, so neither a perfect inversion nor full relaxation between inversions is assumed; the T1 of
/// Look-Locker assumes both. A and B are positive. Where the magnitude's zero lies is not known, so every place between
/// samples is tried, for every T1 of the grid: the result is the least sum of squares over all of them.
///
/// Sources: R. J. Ordidge et al., Magn Reson Med 16:238 (1990); D. C. Look and D. R. Locker, Rev Sci Instrum 41:250 (1970);
/// R. Deichmann and A. Haase, J Magn Reson 96:608 (1992); J. K. Barral et al., Magn Reson Med 64:1057 (2010) for searching
/// T1 on a grid with the other parameters in closed form.
///
/// Limits: magnitudes near the zero have a noise floor that the model doesn't know. Times that reach less than about 1.5 T1
/// leave A open: look at `t1_se`. The bounds hold for T1 and for T1*; where T1* (B / A - 1) lies outside there is no value.
///
/// ```
/// use perfuse::kernels::t1::InversionRecovery;
/// use perfuse::{Engine, Quantity, SampleAxis, Seconds, Series};
///
/// let times = [0.05, 0.3, 0.8, 1.5, 3.0, 6.0];
/// let samples = times.map(|ti: f64| (500.0 - 960.0 * (-ti / 1.1).exp()).abs() as f32).to_vec();
/// let series = Series::from_voxels(samples, [1, 1, 1, 6], SampleAxis::Index)?;
/// let maps = Engine::cpu().run(&InversionRecovery::new(times.map(Seconds::from_seconds)), &series)?;
/// assert!((maps.get(Quantity::T1)?[[0, 0, 0]] - 1.1).abs() < 1e-3);
/// # Ok::<(), perfuse::Error>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct InversionRecovery {
    inversion_times: Vec<Seconds>,
    readout: Readout,
    signal: RecoverySignal,
    t1_bounds: (Seconds, Seconds),
    noise: NoiseSd,
}

impl InversionRecovery {
    /// Magnitudes, one image after each inversion, T1 from 10 ms to 20 s. The times are in the order of the images, which
    /// need not be increasing.
    pub fn new(inversion_times: impl Into<Vec<Seconds>>) -> Self {
        Self {
            inversion_times: inversion_times.into(),
            readout: Readout::default(),
            signal: RecoverySignal::default(),
            t1_bounds: DEFAULT_T1_BOUNDS,
            noise: NoiseSd::default(),
        }
    }

    /// How the magnetisation is read out.
    #[must_use]
    pub fn readout(mut self, readout: Readout) -> Self {
        self.readout = readout;
        self
    }

    /// What the samples are.
    #[must_use]
    pub fn signal(mut self, signal: RecoverySignal) -> Self {
        self.signal = signal;
        self
    }

    /// The shortest and the longest T1 looked for: within 10 ms and 60 s.
    #[must_use]
    pub fn t1_bounds(mut self, shortest: Seconds, longest: Seconds) -> Self {
        self.t1_bounds = (shortest, longest);
        self
    }

    /// Where the noise of the standard errors comes from.
    #[must_use]
    pub fn noise(mut self, noise: NoiseSd) -> Self {
        self.noise = noise;
        self
    }
}

impl VoxelKernel for InversionRecovery {
    fn name(&self) -> &'static str {
        "t1_recovery"
    }

    fn kind(&self) -> SignalKind {
        SignalKind::Signal
    }

    fn prepare(&self, input: &Input<'_>) -> Result<Box<dyn Runnable>> {
        check_samples(input, self.inversion_times.len(), "inversion times", FEWEST)?;
        if self.inversion_times.len() > MOST {
            let mend = format!("use {MOST} at most");
            return Err(Error::setting("inversion times", format!("a list of {}", self.inversion_times.len()), mend));
        }
        let times = check_inversion_times(&self.inversion_times)?;
        if distinct(&times) < FEWEST {
            let mend = "three parameters need three different times";
            return Err(Error::setting("inversion times", format!("{times:?} s"), mend));
        }
        let bounds = check_bounds(self.t1_bounds)?;
        let mut layers = Vec::new();
        let noise = noise_from(&self.noise, input, &mut layers)?;
        let scaling = input.series.scaling();
        let mut tables = Tables {
            n: 0,
            order: Vec::new(),
            places: 0,
            readout: self.readout,
            signal: self.signal,
            noise,
            offset: scaling.intercept / scaling.slope,
            sign: scaling.slope.signum(),
            scale: scaling.slope.abs(),
            shortest_t1: bounds.0,
            longest_t1: bounds.1,
            rates: search::grid_t1(bounds.0, bounds.1).map(|t1| 1.0 / t1).collect(),
            times: Table::default(),
            deviation: Table::default(),
            mean_e: Table::default(),
            inv_spread: Table::default(),
        };
        tables.set_times(&times);
        let text = |value: &str| SettingValue::Text(value.into());
        let mut record = vec![
            ("inversion_times_s".to_string(), numbers(times.iter().copied())),
            (
                "readout".into(),
                text(match self.readout {
                    Readout::Single => "single",
                    Readout::LookLocker => "look-locker",
                }),
            ),
            (
                "recovery_signal".into(),
                text(match self.signal {
                    RecoverySignal::Magnitude => "magnitude",
                    RecoverySignal::Signed => "signed",
                }),
            ),
        ];
        record_common(bounds, &self.noise, &mut record);
        let outputs = results::outputs();
        Ok(Box::new(PreparedRecovery { tables, by_frame: times, outputs, layers, record }))
    }
}

fn distinct(times: &[f64]) -> usize {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.dedup();
    sorted.len()
}

/// What all voxels share.
#[derive(Debug, Clone)]
pub(super) struct Tables {
    pub(super) n: usize,
    /// Samples by increasing time.
    pub(super) order: Vec<usize>,
    /// Places of the curve's zero: before the first sample, and after each.
    pub(super) places: usize,
    pub(super) readout: Readout,
    signal: RecoverySignal,
    pub(super) noise: NoiseFrom,
    /// Intercept over slope: stored samples plus this are proportional to the signal.
    pub(super) offset: f64,
    pub(super) sign: f64,
    pub(super) scale: f64,
    pub(super) shortest_t1: f64,
    pub(super) longest_t1: f64,
    /// 1 / T1 on the grid, rising.
    pub(super) rates: Table,
    pub(super) times: Table,
    /// exp(-R TI) less its mean, rate by rate; that mean; and 1 over the sum of its squares.
    pub(super) deviation: Table,
    pub(super) mean_e: Table,
    pub(super) inv_spread: Table,
}

impl Tables {
    fn set_times(&mut self, times: &[f64]) {
        self.n = times.len();
        self.order = (0..times.len()).collect();
        self.order.sort_by(|a, b| times[*a].total_cmp(&times[*b]));
        self.places = match self.signal {
            RecoverySignal::Magnitude => self.n + 1,
            RecoverySignal::Signed => 1,
        };
        self.times = self.order.iter().map(|i| times[*i]).collect();
        let curves: Vec<Vec<f64>> =
            self.rates.iter().map(|rate| self.times.iter().map(|time| (-rate * time).exp()).collect()).collect();
        let means: Vec<f64> = curves.iter().map(|e| e.iter().sum::<f64>() / e.len() as f64).collect();
        self.deviation = curves.iter().zip(&means).flat_map(|(e, mean)| e.iter().map(move |e| e - mean)).collect();
        self.inv_spread =
            self.deviation.chunks(self.n).map(|own| 1.0 / own.iter().map(|e| e * e).sum::<f64>()).collect();
        self.mean_e = means.into_iter().collect();
    }
}

/// [`InversionRecovery`] with its tables.
#[derive(Debug, Clone)]
pub struct PreparedRecovery {
    tables: Tables,
    by_frame: Vec<f64>,
    outputs: Vec<Output>,
    layers: Vec<Vec<f32>>,
    record: Vec<(String, SettingValue)>,
}

impl PreparedKernel for PreparedRecovery {
    fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    fn settings(&self) -> Vec<(String, SettingValue)> {
        self.record.clone()
    }

    fn status_meanings(&self) -> &'static [(u32, &'static str)] {
        status_bit::MEANINGS
    }

    fn extra(&self) -> &[Vec<f32>] {
        &self.layers
    }

    fn scratch(&self) -> usize {
        3 * self.tables.n + 2 * self.tables.places
    }

    fn evaluate<L: Lanes>(&self, lanes: L, curve: Curve<'_, L>, scratch: &mut [L::F], rows: &mut Rows<'_, L>) {
        reference::evaluate(&self.tables, lanes, &curve, scratch, rows);
    }

    fn evaluate_bounded<'a>(&self, lanes: Bounded<'a>, curve: Curve<'_, Bounded<'a>>, words: &mut [BoundedWord]) {
        let mut scratch = vec![lanes.splat(0.0); self.scratch()];
        self.evaluate(lanes, curve, &mut scratch, &mut Rows::new(lanes, words, 1));
        results::widen_vague(words);
    }

    fn program(&self) -> Program {
        let t = &self.tables;
        let mut values: Vec<f32> = t.rates.iter().map(|rate| *rate as f32).collect();
        for table in [&t.mean_e, &t.inv_spread, &t.deviation, &t.times] {
            values.extend(table.iter().map(|x| *x as f32));
        }
        values.extend(t.order.iter().map(|frame| *frame as f32));
        let (noise_from, noise_value, noise_layer) = t.noise.code();
        let settings = ShaderSettings {
            look_locker: u32::from(t.readout == Readout::LookLocker),
            places: t.places as u32,
            noise_from,
            noise_layer,
            grid: GRID as u32,
            steps: search::STEPS as u32,
            noise_value,
            offset: t.offset as f32,
            sign: t.sign as f32,
            scale: t.scale as f32,
            shortest_t1: t.shortest_t1 as f32,
            longest_t1: t.longest_t1 as f32,
            per_sample: (1.0 / t.n as f64) as f32,
            inv_freedom: (1.0 / (t.n - FEWEST).max(1) as f64) as f32,
            has_freedom: u32::from(t.n > FEWEST),
            padding: 0,
        };
        let state_words = 3 * t.n + 2 * t.places;
        Program { tables: Cow::Owned(values), state_words, ..Program::new("t1_recovery", SOURCES, &settings) }
    }

    fn with_frames(&self, frames: &[usize]) -> Option<Self> {
        let times: Vec<f64> = frames.iter().map(|frame| self.by_frame[*frame]).collect();
        if distinct(&times) < FEWEST {
            return None;
        }
        let mut kernel = self.clone();
        kernel.tables.set_times(&times);
        kernel.by_frame = times;
        Some(kernel)
    }
}

const SOURCES: &[&str] = &[
    include_str!("../../../../shaders/t1/search.wgsl"),
    include_str!("../../../../shaders/t1/results.wgsl"),
    include_str!("../../../../shaders/t1/inversion_recovery.wgsl"),
];

/// The kernel's part of the uniform buffer, as `struct Settings` in the shader.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct ShaderSettings {
    look_locker: u32,
    places: u32,
    noise_from: u32,
    noise_layer: u32,
    grid: u32,
    steps: u32,
    noise_value: f32,
    offset: f32,
    sign: f32,
    scale: f32,
    shortest_t1: f32,
    longest_t1: f32,
    per_sample: f32,
    inv_freedom: f32,
    has_freedom: u32,
    padding: u32,
}

#[cfg(all(test, feature = "gpu"))]
mod tests {
    use super::*;
    use crate::engine::gpu::text;

    #[test]
    fn both_texts_have_the_same_settings() {
        let module = text::kernel(SOURCES);
        text::assert_same_layout!(
            &module, "Settings", ShaderSettings:
            look_locker places noise_from noise_layer grid steps noise_value offset sign scale shortest_t1 longest_t1
            per_sample inv_freedom has_freedom padding
        );
        assert_eq!(text::entry_points(&module), [("t1_recovery", [64, 1, 1])]);
    }

    #[test]
    fn the_longest_search_stays_below_the_loop_turns_of_software_vulkan() {
        let peaks = 4 * (GRID / 2) * (MOST + 1);
        let turns = (GRID + 1) * (MOST + MOST + 2) + peaks + 4 * (3 * (search::STEPS + 1) + 1) * MOST + 4 * MOST;
        assert!(turns < 65_535, "{turns}");
    }
}
