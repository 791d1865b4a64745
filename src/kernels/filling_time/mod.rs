//! When a voxel fills: the fitted arrival of the front, and the crossing of one level common to a lesion.
//!
//! In slow, progressive enhancement the peak is the last frame, so the time to peak says nothing; a time measured from the
//! voxel's own onset removes the very front that is looked for; and the crossing of a fraction of the voxel's own maximum
//! drifts with its contrast to noise. Both times here are on the series' own clock, and neither starts from a maximum:
//!
//! - **front arrival** T of `c + a (1 - exp(-(t - T)/τ))`, all four free, least squares over a window of frames that is the
//!   same for all voxels. The constant is fitted, so no baseline frames are needed, and an early front isn't mistaken for
//!   baseline. Scaling a curve doesn't move its best T, so the estimate doesn't drift with the height of enhancement;
//! - **level crossing**: of an isotonic regression of the curve with the level `c + L`, L given. The frame at which an
//!   isotonic regression crosses a level is where the sums of (sample - level) from the first frame on are least (Barlow,
//!   Bartholomew, Bremner and Brunk, "Statistical Inference under Order Restrictions", 1972, section 1.2): one pass. Between
//!   frames, the least-squares line through the samples around that frame.

mod reference;
mod tables;

use crate::error::Result;
use crate::kernel::lanes::Lanes;
use crate::kernel::{Curve, Input, Output, OutputKind, PreparedKernel, Program, Rows, Runnable, VoxelKernel};
use crate::kernels::descriptors::Polarity;
use crate::maps::SettingValue;
use crate::quantity::{Quantity, SignalKind};
use tables::Tables;

/// Times at which voxels fill, with their standard errors.
///
/// ```
/// use ndarray::Array4;
/// use perfuse::kernels::filling_time::FillingTime;
/// use perfuse::{Engine, Quantity, Series, TimeAxis};
/// let curve = |t: f64| 100.0 + if t > 31.5 { 50.0 * (1.0 - (-(t - 31.5) / 20.0).exp()) } else { 0.0 };
/// let samples = Array4::from_shape_fn((1, 1, 1, 40), |(_, _, _, i)| curve(3.0 * i as f64) as f32);
/// let series = Series::from_array(samples.view(), TimeAxis::uniform(3.0, 40)?)?;
/// let maps = Engine::cpu().run(&FillingTime::new().level(25.0), &series)?;
/// assert!((maps.get(Quantity::FRONT_ARRIVAL)?[[0, 0, 0]] - 31.5).abs() < 0.1);
/// // Half of the plateau is reached 20 ln 2 seconds later.
/// assert!((maps.get(Quantity::LEVEL_CROSSING)?[[0, 0, 0]] - 45.36).abs() < 0.3);
/// # Ok::<(), perfuse::Error>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FillingTime {
    pub(crate) kind: SignalKind,
    pub(crate) polarity: Polarity,
    pub(crate) enhancement_threshold: f64,
    pub(crate) frames: Option<usize>,
    pub(crate) level: Option<f64>,
    pub(crate) crossing_half_window: usize,
}

impl Default for FillingTime {
    fn default() -> Self {
        Self {
            kind: SignalKind::default(),
            polarity: Polarity::default(),
            enhancement_threshold: 5.0,
            frames: None,
            level: None,
            crossing_half_window: 2,
        }
    }
}

impl FillingTime {
    /// Rising signal, all frames, front arrival only.
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

    /// A voxel enhances when its highest sample lies at least this many noise SDs above the fitted constant (k = 5 unless
    /// told), two consecutive frames exceed 3, and the fit explains at least k² noise variances of the sum of squares about
    /// the mean: a constant before an early arrival rests on few frames.
    #[must_use]
    pub fn enhancement_threshold(mut self, deviations: f64) -> Self {
        self.enhancement_threshold = deviations;
        self
    }

    /// Uses the first so many frames only: up to where the whole region begins to wash out.
    #[must_use]
    pub fn frames(mut self, frames: usize) -> Self {
        self.frames = Some(frames);
        self
    }

    /// The level above the constant, in the unit of the samples, whose crossing is wanted, too.
    #[must_use]
    pub fn level(mut self, level: f64) -> Self {
        self.level = Some(level);
        self
    }

    /// Frames on either side of the crossing that the line goes through: 2 unless told, at least 1.
    #[must_use]
    pub fn crossing_half_window(mut self, frames: usize) -> Self {
        self.crossing_half_window = frames;
        self
    }
}

impl VoxelKernel for FillingTime {
    fn name(&self) -> &'static str {
        "filling_time"
    }

    fn kind(&self) -> SignalKind {
        self.kind
    }

    fn prepare(&self, input: &Input<'_>) -> Result<Box<dyn Runnable>> {
        let tables = tables::prepare(self, input)?;
        let number = |quantity: Quantity| Output { quantity, kind: OutputKind::Float };
        let mut outputs = vec![
            number(Quantity::FRONT_ARRIVAL),
            number(Quantity::FRONT_ARRIVAL_SE),
            number(Quantity::FITTED_BASELINE),
            number(Quantity::FITTED_PLATEAU),
            number(Quantity::RISE_TIME_CONSTANT),
            number(Quantity::FIT_NOISE_SD),
        ];
        if self.level.is_some() {
            outputs.push(number(Quantity::LEVEL_CROSSING));
            outputs.push(number(Quantity::LEVEL_CROSSING_SE));
        }
        Ok(Box::new(PreparedFillingTime { settings: tables::record(self, &tables), tables, outputs }))
    }
}

/// The filling times with their tables, ready to run.
#[derive(Debug, Clone)]
pub struct PreparedFillingTime {
    tables: Tables,
    outputs: Vec<Output>,
    settings: Vec<(String, SettingValue)>,
}

impl PreparedKernel for PreparedFillingTime {
    fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    fn settings(&self) -> Vec<(String, SettingValue)> {
        self.settings.clone()
    }

    fn scratch(&self) -> usize {
        2 * self.tables.n
    }

    #[inline(always)]
    fn evaluate<L: Lanes>(&self, lanes: L, curve: Curve<'_, L>, scratch: &mut [L::F], rows: &mut Rows<'_, L>) {
        reference::evaluate(&self.tables, lanes, &curve, scratch, rows);
    }

    fn program(&self) -> Program {
        tables::program(&self.tables)
    }

    fn with_frames(&self, frames: &[usize]) -> Option<Self> {
        Some(Self { tables: self.tables.with_frames(frames)?, ..self.clone() })
    }
}
