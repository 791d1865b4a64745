//! A fit with its tables, as engines see it: the same for all; and how the families of models with an input function prepare.

use std::fmt::Debug;

use super::axis::{Knots, Steps};
use super::delay::DelayTables;
use super::{Delay, PharmacokineticFit};
use crate::error::{Error, Result};
use crate::kernel::bounded::{Bounded, BoundedWord};
use crate::kernel::lanes::{Double, Lanes};
use crate::kernel::{Block, Curve, Input, Output, PreparedKernel, Program, Rows};
use crate::maps::SettingValue;

/// The times of a fit, in seconds after the series' first frame, and how the samples become concentrations.
#[derive(Debug)]
pub(super) struct Axis<'a> {
    /// Those of the frames that are left.
    pub(super) t: Vec<f64>,
    /// Their rows in a curve.
    pub(super) row_of_frame: &'a [usize],
    /// How many the series has.
    pub(super) frames: usize,
    pub(super) knot_times: Vec<f64>,
    pub(super) knot_values: &'a [f64],
    /// Whether voxels have their own delay.
    pub(super) own: bool,
    /// The delay of all voxels; 0 if they have their own.
    pub(super) fixed_delay: f64,
    pub(super) slope: f64,
    pub(super) intercept: f64,
}

impl<'a> Axis<'a> {
    fn new(
        settings: &'a PharmacokineticFit,
        times: &[f64],
        frames: &'a [usize],
        (slope, intercept): (f64, f64),
    ) -> Result<Self> {
        let origin = times[0];
        let t: Vec<f64> = frames.iter().map(|i| times[*i] - origin).collect();
        let knot_times: Vec<f64> = settings.input.times_s().iter().map(|t| t - origin).collect();
        let own = matches!(settings.delay, Delay::Free | Delay::PerVoxel(_));
        let fixed_delay = match settings.delay {
            Delay::Fixed(seconds) => seconds,
            _ => 0.0,
        };
        if !own && knot_times[0] + fixed_delay >= t[t.len() - 1] {
            let mend = "it begins after the last frame: check its times, and the delay";
            return Err(Error::setting("input function", format!("from {} s on", settings.input.times_s()[0]), mend));
        }
        let knot_values = settings.input.concentration_mm();
        let frames_in_all = times.len();
        Ok(Self {
            t,
            row_of_frame: frames,
            frames: frames_in_all,
            knot_times,
            knot_values,
            own,
            fixed_delay,
            slope,
            intercept,
        })
    }

    pub(super) fn knots(&self) -> Knots<'_> {
        Knots { times: &self.knot_times, values: self.knot_values }
    }

    /// From the first knot to the last frame; from knot to knot where the delay is a voxel's own.
    pub(super) fn steps(&self) -> Steps {
        let knots = self.knots();
        if self.own { Steps::new(knots.times, knots, 0.0) } else { Steps::new(&self.t, knots, self.fixed_delay) }
    }

    /// One dictionary per delay that is searched; the first is that of a delay that isn't.
    pub(super) fn dictionaries<D>(&self, delay: &DelayTables, dictionary: impl Fn(f64) -> D) -> Vec<D> {
        if self.own {
            delay.nodes.iter().map(|delay| dictionary(*delay)).collect()
        } else {
            vec![dictionary(self.fixed_delay)]
        }
    }
}

/// The tables of a fit, and what is done with them.
pub(super) trait FitTables: Clone + Debug + Send + Sync {
    /// The user's settings.
    type Settings: Clone + Debug + Send + Sync;
    /// Meanings of the status bits.
    const STATUS: &'static [(u32, &'static str)];
    /// [`PreparedKernel::TWO_VECTORS`].
    const TWO_VECTORS: bool = true;
    /// [`PreparedKernel::TOGETHER`].
    const TOGETHER: usize = 1;
    fn outputs(&self) -> &[Output];
    /// Rows of the outputs.
    fn rows(&self) -> usize;
    fn scratch(&self) -> usize;
    /// Computes every row of blocks of voxels, [`TOGETHER`](Self::TOGETHER) at most.
    fn evaluate<L: Lanes>(&self, lanes: L, blocks: &[Block<'_, L>], scratch: &mut [L::F], rows: &mut Rows<'_, L>);
    fn judge(&self, curve: &Curve<'_, Double>, engine: &[f64], definition: &[f64]) -> Vec<bool>;
    fn program(&self) -> Program;
    /// The same for a curve of which these frames of all are left; `None` if they don't suffice.
    fn with_frames(&self, settings: &Self::Settings, times: &[f64], frames: &[usize]) -> Option<Self>;
}

/// A fit with its tables, ready to run.
#[derive(Debug, Clone)]
pub(super) struct PreparedFit<T: FitTables> {
    pub(super) tables: T,
    pub(super) record: Vec<(String, SettingValue)>,
    pub(super) extra: Vec<Vec<f32>>,
    pub(super) settings: T::Settings,
    /// Of all frames: s.
    pub(super) times: Vec<f64>,
}

impl<T: FitTables> PreparedKernel for PreparedFit<T> {
    const TWO_VECTORS: bool = T::TWO_VECTORS;
    const TOGETHER: usize = T::TOGETHER;

    fn outputs(&self) -> &[Output] {
        self.tables.outputs()
    }

    fn rows(&self) -> usize {
        self.tables.rows()
    }

    fn settings(&self) -> Vec<(String, SettingValue)> {
        self.record.clone()
    }

    fn status_meanings(&self) -> &'static [(u32, &'static str)] {
        T::STATUS
    }

    fn extra(&self) -> &[Vec<f32>] {
        &self.extra
    }

    fn scratch(&self) -> usize {
        self.tables.scratch()
    }

    #[inline(always)]
    fn evaluate<L: Lanes>(&self, lanes: L, curve: Curve<'_, L>, scratch: &mut [L::F], rows: &mut Rows<'_, L>) {
        self.tables.evaluate(lanes, &[Block::alone(lanes, curve)], scratch, rows);
    }

    #[inline(always)]
    fn evaluate_together<L: Lanes>(
        &self,
        lanes: L,
        blocks: &[Block<'_, L>],
        scratch: &mut [L::F],
        rows: &mut Rows<'_, L>,
    ) {
        self.tables.evaluate(lanes, blocks, scratch, rows);
    }

    fn evaluate_bounded<'a>(&self, _: Bounded<'a>, _: Curve<'_, Bounded<'a>>, words: &mut [BoundedWord]) {
        // A search has no bound by rounding: `judge` compares it.
        words.fill(BoundedWord { value: f64::NAN, error: f64::INFINITY });
    }

    fn judge(&self, curve: &Curve<'_, Double>, engine: &[f64], definition: &[f64]) -> Option<Vec<bool>> {
        Some(self.tables.judge(curve, engine, definition))
    }

    fn program(&self) -> Program {
        self.tables.program()
    }

    fn with_frames(&self, frames: &[usize]) -> Option<Self> {
        let tables = self.tables.with_frames(&self.settings, &self.times, frames)?;
        Some(Self { tables, ..self.clone() })
    }
}

/// The linear method's columns are shared by all voxels.
pub(super) fn no_own_delay(settings: &PharmacokineticFit, own: bool) -> Result<()> {
    if own {
        let mend = "the linear method takes no delay or the same one for all voxels; fit delays with the nonlinear one";
        return Err(Error::setting("delay", settings.delay.to_text(), mend));
    }
    Ok(())
}

/// The tables of a family of models with an input function.
pub(super) trait FamilyTables: FitTables<Settings = PharmacokineticFit> {
    /// The tables for a curve of which the axis' frames are left.
    fn build(settings: &PharmacokineticFit, axis: &Axis<'_>) -> Result<Self>;
    fn delay(&self) -> &DelayTables;
    fn rates_searched(&self) -> usize;
}

/// Decides everything that is shared by all voxels.
pub(super) fn prepare<T: FamilyTables>(settings: &PharmacokineticFit, input: &Input<'_>) -> Result<PreparedFit<T>> {
    let series = input.series;
    settings.check(series)?;
    let scaling = (series.scaling().slope, series.scaling().intercept);
    let times = series.times()?.seconds().to_vec();
    let frames: Vec<usize> = (0..series.frames()).collect();
    let tables = T::build(settings, &Axis::new(settings, &times, &frames, scaling)?)?;
    let mut record = settings.record();
    if tables.delay().fitted {
        record.push(("delays_searched".into(), SettingValue::Number(tables.delay().nodes.len() as f64)));
    }
    record.push(("rates_searched".into(), SettingValue::Number(tables.rates_searched() as f64)));
    let extra = match &settings.delay {
        Delay::PerVoxel(map) => vec![map.flat().to_vec()],
        _ => Vec::new(),
    };
    Ok(PreparedFit { tables, record, extra, settings: settings.clone(), times })
}

/// The tables of a family for a curve of which these frames are left.
pub(super) fn with_frames<T: FamilyTables>(
    tables: &T,
    scaling: (f64, f64),
    settings: &PharmacokineticFit,
    times: &[f64],
    frames: &[usize],
) -> Option<T> {
    let free = settings.model.parameters().len() + usize::from(tables.delay().fitted);
    if frames.len() <= free {
        return None;
    }
    T::build(settings, &Axis::new(settings, times, frames, scaling).ok()?).ok()
}
