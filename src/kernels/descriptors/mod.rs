//! Semi-quantitative maps: baseline, enhancement, onset, times, slopes, areas and their standard errors, in one pass.
//!
//! The definitions are those of [`Quantity`]; this file holds the settings, `tables.rs` what is decided once for all voxels,
//! `reference.rs` the definition in code, `onset.rs` the onset methods, `areas.rs` the integrals, `scan.rs` a shortcut for
//! 16-bit samples, `shaders/descriptors.wgsl` the same for GPUs.
//!
//! Beside the common status bits ([`crate::status`]) these maps have their own: [`status_bit`].

mod areas;
mod baseline;
mod global_onset;
mod onset;
mod outputs;
mod reference;
mod scan;
mod tables;

use std::ops::Range;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::kernel::lanes::Lanes;
use crate::kernel::short::{ScanState, ShortCurve, ShortLanes};
use crate::kernel::{Curve, Input, Leave, Output, PreparedKernel, Program, Rows, Runnable, VoxelKernel};
use crate::maps::SettingValue;
use crate::quantity::{Quantity, SignalKind};
use crate::series::VoxelMap;

pub(crate) use baseline::automatic as automatic_baseline;
pub use outputs::MapSelection;
pub use tables::Tables;

/// The kernel's own status bits.
pub mod status_bit {
    /// Bit 15: the onset in use doesn't lie before the peak, so nothing that divides by the time between them has a value.
    pub const ONSET_NOT_BEFORE_PEAK: u32 = 1 << 15;
    /// Bit 16: the divisor of a ratio is 0, or not positive where it must be (contrast to noise, mean residence time, signal
    /// enhancement ratio, curve type).
    pub const NO_DIVISOR: u32 = 1 << 16;
    /// Each with its meaning.
    pub const MEANINGS: &[(u32, &str)] = &[
        (ONSET_NOT_BEFORE_PEAK, "the onset in use does not lie before the peak"),
        (NO_DIVISOR, "the divisor of a ratio is 0, or not positive where it must be"),
    ];
}

/// Which way contrast agent moves the samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Polarity {
    /// Up: T1-weighted signal, attenuation, concentrations.
    #[default]
    Rise,
    /// Down: T2*-weighted signal.
    Fall,
}

impl Polarity {
    /// The word for it on a command line and in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Polarity::Rise => "rise",
            Polarity::Fall => "fall",
        }
    }
}

impl FromStr for Polarity {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "rise" => Ok(Polarity::Rise),
            "fall" => Ok(Polarity::Fall),
            other => Err(Error::setting("polarity", other, "use rise or fall")),
        }
    }
}

/// Which frames are the baseline.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Baseline {
    /// The frames before the break point of the mask's mean curve (a constant, then a line up to the half-rise frame;
    /// least squares, continuous break point), minus one for safety, at least 2 (CAPLEX P.BL2.003).
    #[default]
    Automatic,
    /// These frames, counted from 0, the end excluded.
    Frames(Range<usize>),
}

impl Baseline {
    /// The first `frames` frames.
    pub fn first(frames: usize) -> Self {
        Baseline::Frames(0..frames)
    }

    /// The word for it on a command line and in records.
    pub fn to_text(&self) -> String {
        match self {
            Baseline::Automatic => "auto".into(),
            Baseline::Frames(frames) => format!("{}:{}", frames.start, frames.end),
        }
    }
}

impl FromStr for Baseline {
    type Err = Error;

    /// `auto`, `N` (the first N frames) or `A:B` (frames A to B - 1, counted from 0).
    fn from_str(text: &str) -> Result<Self> {
        let refuse =
            || Error::setting("baseline", text, "use auto, a number of frames N, or frames A:B (from 0, B excluded)");
        if text == "auto" {
            return Ok(Baseline::Automatic);
        }
        let number = |text: &str| text.trim().parse::<usize>().map_err(|_| refuse());
        match text.split_once(':') {
            None => Ok(Baseline::first(number(text)?)),
            Some((start, end)) => Ok(Baseline::Frames(number(start)?..number(end)?)),
        }
    }
}

/// How the onset (bolus arrival) of a curve is found.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub enum Onset {
    /// Zero, then a line from a continuous break point at or after the last baseline frame; least squares over the samples
    /// up to the half-rise frame, slope positive; the earliest of equal break points (CAPLEX P.BA2.005).
    #[default]
    PiecewiseLinear,
    /// Zero, then `a (1 - exp(-(t - t_b) / tau))`; least squares over the samples up to the peak (CAPLEX P.BA2.005).
    Saturating,
    /// Where the line of steepest rise meets the baseline (CAPLEX P.BA2.004).
    Intersection,
    /// Walking back from the peak, where the curve crosses this fraction of it (CAPLEX P.BA2.002).
    Threshold {
        /// Fraction of the peak.
        fraction: f64,
    },
    /// Where the first of two consecutive frames above this many noise SDs crosses that level (CAPLEX P.BA2.002).
    SdThreshold {
        /// Noise standard deviations.
        deviations: f64,
    },
    /// Walking back from the steepest rise, where the central difference falls to this fraction of its maximum
    /// (CAPLEX P.BA2.003).
    Derivative {
        /// Fraction of the largest central difference.
        fraction: f64,
    },
    /// A given number of seconds after the first frame, for every voxel (CAPLEX P.BA2.001).
    Seconds(f64),
}

impl Onset {
    /// The words for it on a command line and in records.
    pub fn to_text(self) -> String {
        match self {
            Onset::PiecewiseLinear => "piecewise-linear".into(),
            Onset::Saturating => "saturating".into(),
            Onset::Intersection => "intersection".into(),
            Onset::Threshold { fraction } => format!("threshold:{fraction}"),
            Onset::SdThreshold { deviations } => format!("sd-threshold:{deviations}"),
            Onset::Derivative { fraction } => format!("derivative:{fraction}"),
            Onset::Seconds(seconds) => format!("{seconds}"),
        }
    }

    /// The method's CAPLEX code.
    pub fn caplex(self) -> &'static str {
        match self {
            Onset::Seconds(_) => "P.BA2.001",
            Onset::Threshold { .. } | Onset::SdThreshold { .. } => "P.BA2.002",
            Onset::Derivative { .. } => "P.BA2.003",
            Onset::Intersection => "P.BA2.004",
            Onset::PiecewiseLinear | Onset::Saturating => "P.BA2.005",
        }
    }
}

impl FromStr for Onset {
    type Err = Error;

    /// A method's name, with its parameter after a colon if it has one (`threshold`, `threshold:0.2`), or a number of
    /// seconds after the first frame.
    fn from_str(text: &str) -> Result<Self> {
        let refuse = || {
            Error::setting(
                "onset",
                text,
                "use piecewise-linear, saturating, intersection, threshold[:FRACTION], sd-threshold[:SDS], derivative[:FRACTION] or a number of seconds after the first frame",
            )
        };
        let (name, parameter) = match text.split_once(':') {
            Some((name, parameter)) => (name, Some(parameter.parse::<f64>().map_err(|_| refuse())?)),
            None => (text, None),
        };
        match (name, parameter) {
            ("piecewise-linear", None) => Ok(Onset::PiecewiseLinear),
            ("saturating", None) => Ok(Onset::Saturating),
            ("intersection", None) => Ok(Onset::Intersection),
            ("threshold", fraction) => Ok(Onset::Threshold { fraction: fraction.unwrap_or(0.1) }),
            ("sd-threshold", deviations) => Ok(Onset::SdThreshold { deviations: deviations.unwrap_or(3.0) }),
            ("derivative", fraction) => Ok(Onset::Derivative { fraction: fraction.unwrap_or(0.1) }),
            (number, None) => number.parse().map(Onset::Seconds).map_err(|_| refuse()),
            _ => Err(refuse()),
        }
    }
}

/// Whose onset a voxel's maps are measured from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnsetScope {
    /// Its own; the global one where its own can't be found.
    #[default]
    Voxel,
    /// The mask's mean curve's, for every voxel.
    Global,
}

impl OnsetScope {
    /// The word for it on a command line and in records.
    pub fn as_str(self) -> &'static str {
        match self {
            OnsetScope::Voxel => "voxel",
            OnsetScope::Global => "global",
        }
    }
}

impl FromStr for OnsetScope {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "voxel" => Ok(OnsetScope::Voxel),
            "global" => Ok(OnsetScope::Global),
            other => Err(Error::setting("onset scope", other, "use voxel or global")),
        }
    }
}

/// Where the noise standard deviation comes from.
#[expect(clippy::large_enum_variant, reason = "there is one per run")]
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Noise {
    /// The largest of: the voxel's baseline SD; the mask's median of it, divided by the median of
    /// sqrt(chi^2_(n-1) / (n - 1)); the quantisation step / sqrt(12). With one baseline frame: the median of successive
    /// differences of the voxel.
    #[default]
    Baseline,
    /// This value everywhere, in the unit of the samples.
    Value(f64),
    /// A value per voxel, in the unit of the samples.
    Map(VoxelMap),
}

/// How the peak's time and height are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum PeakReading {
    /// At the largest sample.
    #[default]
    Sample,
    /// At the vertex of the parabola through the largest sample and its neighbours; a peak at the last frame stays as it
    /// is. Decisions (half-rise frame, fractions, whether a voxel enhances) still use the largest sample.
    Subframe,
}

/// Where the late slope begins.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub enum LateSlopeFrom {
    /// At the peak.
    #[default]
    Peak,
    /// This many seconds after the onset.
    SecondsAfterOnset(f64),
}

/// The semi-quantitative maps, with everything that can be chosen about them.
///
/// ```
/// use ndarray::Array4;
/// use perfuse::{Descriptors, Engine, Quantity, Series, TimeAxis};
/// // One voxel: 5 frames of baseline, then a ramp of 2 per second.
/// let curve = |t: usize| if t < 5 { 100.0 } else { 100.0 + 2.0 * (t - 4) as f32 };
/// let samples = Array4::from_shape_fn((1, 1, 1, 20), |(_, _, _, t)| curve(t));
/// let series = Series::from_array(samples.view(), TimeAxis::uniform(1.0, 20)?)?;
/// let maps = Engine::cpu().run(&Descriptors::new().baseline_frames(0..4), &series)?;
/// assert!((maps.get(Quantity::ONSET)?[[0, 0, 0]] - 4.0).abs() < 1e-5);
/// assert!((maps.get(Quantity::MAX_SLOPE)?[[0, 0, 0]] - 2.0).abs() < 1e-5);
/// # Ok::<(), perfuse::Error>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Descriptors {
    pub(crate) kind: SignalKind,
    pub(crate) polarity: Polarity,
    pub(crate) baseline: Baseline,
    pub(crate) onset: Onset,
    pub(crate) onset_scope: OnsetScope,
    pub(crate) noise: Noise,
    pub(crate) peak_reading: PeakReading,
    pub(crate) enhancement_threshold: f64,
    pub(crate) slope_window: usize,
    pub(crate) late_slope_from: LateSlopeFrom,
    pub(crate) iauc_seconds: Vec<f64>,
    pub(crate) ratio_times_s: (f64, f64),
    pub(crate) recovery_window_s: Option<(f64, f64)>,
    pub(crate) maps: MapSelection,
}

impl Default for Descriptors {
    fn default() -> Self {
        Self {
            kind: SignalKind::default(),
            polarity: Polarity::default(),
            baseline: Baseline::default(),
            onset: Onset::default(),
            onset_scope: OnsetScope::default(),
            noise: Noise::default(),
            peak_reading: PeakReading::default(),
            enhancement_threshold: 5.0,
            slope_window: 3,
            late_slope_from: LateSlopeFrom::default(),
            iauc_seconds: vec![60.0, 90.0, 120.0],
            ratio_times_s: (90.0, 360.0),
            recovery_window_s: None,
            maps: MapSelection::All,
        }
    }
}

impl Descriptors {
    /// The default settings: rising signal, automatic baseline, piecewise-linear onset per voxel, all maps.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the samples are.
    #[must_use]
    pub fn kind(mut self, kind: SignalKind) -> Self {
        self.kind = kind;
        self
    }

    /// Which way contrast agent moves the samples.
    #[must_use]
    pub fn polarity(mut self, polarity: Polarity) -> Self {
        self.polarity = polarity;
        self
    }

    /// Which frames are the baseline.
    #[must_use]
    pub fn baseline(mut self, baseline: Baseline) -> Self {
        self.baseline = baseline;
        self
    }

    /// These frames are the baseline, counted from 0, the end excluded.
    #[must_use]
    pub fn baseline_frames(self, frames: Range<usize>) -> Self {
        self.baseline(Baseline::Frames(frames))
    }

    /// How the onset is found.
    #[must_use]
    pub fn onset(mut self, onset: Onset) -> Self {
        self.onset = onset;
        self
    }

    /// Whose onset a voxel's maps are measured from.
    #[must_use]
    pub fn onset_scope(mut self, scope: OnsetScope) -> Self {
        self.onset_scope = scope;
        self
    }

    /// Where the noise standard deviation comes from.
    #[must_use]
    pub fn noise(mut self, noise: Noise) -> Self {
        self.noise = noise;
        self
    }

    /// How the peak's time and height are read.
    #[must_use]
    pub fn peak_reading(mut self, reading: PeakReading) -> Self {
        self.peak_reading = reading;
        self
    }

    /// A voxel enhances when its peak is at least this many noise SDs (5 unless told) and two consecutive frames exceed 3.
    #[must_use]
    pub fn enhancement_threshold(mut self, deviations: f64) -> Self {
        self.enhancement_threshold = deviations;
        self
    }

    /// Samples in the window of the steepest rise: 3 unless told, at least 2; 2 is the plain difference.
    #[must_use]
    pub fn slope_window(mut self, samples: usize) -> Self {
        self.slope_window = samples;
        self
    }

    /// Where the late slope begins.
    #[must_use]
    pub fn late_slope_from(mut self, start: LateSlopeFrom) -> Self {
        self.late_slope_from = start;
        self
    }

    /// Windows of the initial area under the curve, in seconds after the onset: 60, 90 and 120 unless told.
    #[must_use]
    pub fn iauc_seconds(mut self, windows: impl Into<Vec<f64>>) -> Self {
        self.iauc_seconds = windows.into();
        self
    }

    /// Times after the onset, in seconds, of the signal enhancement ratio: 90 and 360 unless told.
    #[must_use]
    pub fn ratio_times_s(mut self, first: f64, second: f64) -> Self {
        self.ratio_times_s = (first, second);
        self
    }

    /// Window of the late samples of the percent signal recovery, from and to in seconds on the series' own clock: the
    /// last 30 s unless told.
    #[must_use]
    pub fn recovery_window_s(mut self, from: f64, to: f64) -> Self {
        self.recovery_window_s = Some((from, to));
        self
    }

    /// Which maps to compute; the cost falls with their number.
    #[must_use]
    pub fn maps(mut self, maps: MapSelection) -> Self {
        self.maps = maps;
        self
    }

    /// What a run with these settings gives, in its order: for lists, and to find a wrong identifier before a series is
    /// read.
    ///
    /// ```
    /// use perfuse::Descriptors;
    /// use perfuse::kernels::descriptors::MapSelection;
    /// let asked = Descriptors::new().maps(MapSelection::only(["auc", "iauc_45"]));
    /// assert_eq!(asked.quantities()?[1].definition, perfuse::Quantity::iauc(45.0).definition);
    /// assert!(Descriptors::new().maps(MapSelection::only(["ktrans"])).quantities().is_err());
    /// # Ok::<(), perfuse::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownMap`] or [`Error::Setting`] if a map doesn't exist or has no meaning for the settings.
    pub fn quantities(&self) -> Result<Vec<Quantity>> {
        Ok(outputs::plan(self)?.outputs.into_iter().map(|output| output.quantity).collect())
    }
}

impl VoxelKernel for Descriptors {
    fn name(&self) -> &'static str {
        "descriptors"
    }

    fn kind(&self) -> SignalKind {
        self.kind
    }

    fn prepare(&self, input: &Input<'_>) -> Result<Box<dyn Runnable>> {
        Ok(Box::new(tables::prepare(self, input)?))
    }
}

/// The semi-quantitative maps with their tables, ready to run.
#[derive(Debug, Clone)]
pub struct PreparedDescriptors {
    tables: Tables,
    outputs: Vec<Output>,
    settings: Vec<(String, SettingValue)>,
    extra: Vec<Vec<f32>>,
}

impl PreparedKernel for PreparedDescriptors {
    fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    fn settings(&self) -> Vec<(String, SettingValue)> {
        self.settings.clone()
    }

    fn extra(&self) -> &[Vec<f32>] {
        &self.extra
    }

    fn status_meanings(&self) -> &'static [(u32, &'static str)] {
        status_bit::MEANINGS
    }

    fn scratch(&self) -> usize {
        // The enhancement, and the two primitives of its integrals.
        3 * self.tables.frames()
    }

    fn scan_keeps(&self) -> usize {
        if scan::applies(&self.tables) { scan::KEPT } else { 0 }
    }

    fn scan_start(&self) -> usize {
        scan::start(&self.tables)
    }

    #[inline(always)]
    fn scan_begin<L: ShortLanes>(&self, lanes: L, curve: ShortCurve<'_>, state: ScanState<'_>) {
        scan::begin(&self.tables, lanes, curve, state);
    }

    #[inline(always)]
    fn scan_frames<L: ShortLanes, const N: usize>(
        &self,
        lanes: L,
        frame: usize,
        samples: [L::Short; N],
        first: L::Short,
        state: ScanState<'_>,
    ) {
        scan::frames(&self.tables, lanes, frame, samples, first, state);
    }

    fn scanned(&self) -> usize {
        scan::found::COUNT
    }

    #[inline(always)]
    fn scan_end<L: ShortLanes>(&self, lanes: L, curve: ShortCurve<'_>, state: ScanState<'_>, found: &mut [L::F]) {
        scan::end(&self.tables, lanes, curve, state, found);
    }

    #[inline(always)]
    fn evaluate<L: Lanes>(&self, lanes: L, curve: Curve<'_, L>, scratch: &mut [L::F], rows: &mut Rows<'_, L>) {
        reference::evaluate(&self.tables, self.outputs.len(), lanes, &curve, scratch, rows, Leave::Nothing);
    }

    #[inline(always)]
    fn evaluate_or_leave<L: Lanes>(
        &self,
        lanes: L,
        curve: Curve<'_, L>,
        scratch: &mut [L::F],
        rows: &mut Rows<'_, L>,
        leave: Leave,
    ) -> L::M {
        reference::evaluate(&self.tables, self.outputs.len(), lanes, &curve, scratch, rows, leave)
    }

    fn program(&self) -> Program {
        tables::program(&self.tables)
    }

    fn with_frames(&self, frames: &[usize]) -> Option<Self> {
        Some(Self { tables: self.tables.with_frames(frames)?, ..self.clone() })
    }
}
