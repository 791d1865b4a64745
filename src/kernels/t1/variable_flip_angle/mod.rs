//! T1 from spoiled gradient echoes with several flip angles: settings, tables and the shader's settings.

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
use crate::series::VoxelMap;
use crate::units::{FlipAngle, Seconds, check_flip_angles, check_repetition_time};

use super::search::{self, GRID};
use super::{
    DEFAULT_T1_BOUNDS, NoiseFrom, NoiseSd, check_bounds, check_samples, layer, map_name, noise_from, numbers,
    record_common, results, status_bit,
};

/// How T1 is found from several flip angles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum VfaMethod {
    /// Least squares of the signal itself: the global minimum within the bounds.
    #[default]
    Nonlinear,
    /// The least-squares line through S / sin(a) over S / tan(a) (Gupta 1977): noise in small signals is amplified, and T1
    /// is biased where there is much of it (Deoni 2003). Outside the bounds there is no value. Standard errors say how the
    /// noise of the samples moves the line.
    Linear,
}

impl VfaMethod {
    /// The word for it on a command line and in records.
    pub fn as_str(self) -> &'static str {
        match self {
            VfaMethod::Nonlinear => "nonlinear",
            VfaMethod::Linear => "linear",
        }
    }
}

impl FromStr for VfaMethod {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "nonlinear" => Ok(VfaMethod::Nonlinear),
            "linear" => Ok(VfaMethod::Linear),
            other => Err(Error::setting("method", other, "use nonlinear or linear")),
        }
    }
}

/// T1 from spoiled gradient echoes with two or more flip angles (CAPLEX P.NR2.002, M.SM2.002).
///
/// The signal after a pulse of angle a, repeated every TR, is in the steady state
///
/// ```text
/// S = M0 sin(a) (1 - E) / (1 - E cos(a)),   E = exp(-TR / T1)
/// ```
///
/// | parameter | unit | map |
/// |---|---|---|
/// | T1, R1 = 1 / T1 | s, 1/s | `t1`, `r1` |
/// | M0, with receiver gain and T2* decay | as the signal | `m0` |
///
/// Sources: R. K. Gupta, J Magn Reson 25:231 (1977) for the linear form; H. Z. Wang et al., Magn Reson Med 5:399 (1987); S.
/// C. L. Deoni et al., Magn Reson Med 49:515 (2003). CAPLEX's printed equation lacks a minus sign in the exponent.
///
/// Limits: the echo is taken as perfectly spoiled and the steady state as reached. T1 follows the square of the angle's
/// error, so at 3 T a B1 map matters: the angle of a voxel is `b1` times the nominal one. Two angles determine T1 and leave
/// nothing to judge the fit by. Angles on one side of the Ernst angle hardly determine T1: look at `t1_se`. Below T1 = TR / 20
/// the signal no longer depends on T1, and the search ends there if the bounds do not end it before.
///
/// ```
/// use perfuse::kernels::t1::VariableFlipAngle;
/// use perfuse::{Engine, FlipAngle, Quantity, SampleAxis, Seconds, Series};
///
/// // M0 = 1000, T1 = 1.2 s, TR = 5 ms, at 2, 10 and 20 degrees.
/// let e = (-0.005f64 / 1.2).exp();
/// let signal = |a: f64| 1000.0 * a.sin() * (1.0 - e) / (1.0 - e * a.cos());
/// let samples = [2.0f64, 10.0, 20.0].map(|a| signal(a.to_radians()) as f32).to_vec();
/// let series = Series::from_voxels(samples, [1, 1, 1, 3], SampleAxis::Index)?;
///
/// let angles = [2.0, 10.0, 20.0].map(FlipAngle::from_degrees);
/// let maps = Engine::cpu().run(&VariableFlipAngle::new(Seconds::from_milliseconds(5.0), angles), &series)?;
/// assert!((maps.get(Quantity::T1)?[[0, 0, 0]] - 1.2).abs() < 1e-4);
/// # Ok::<(), perfuse::Error>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct VariableFlipAngle {
    repetition_time: Seconds,
    flip_angles: Vec<FlipAngle>,
    method: VfaMethod,
    b1: Option<VoxelMap>,
    t1_bounds: (Seconds, Seconds),
    noise: NoiseSd,
}

impl VariableFlipAngle {
    /// Nonlinear, without a B1 map, T1 from 10 ms to 20 s. The angles are in the order of the images.
    pub fn new(repetition_time: Seconds, flip_angles: impl Into<Vec<FlipAngle>>) -> Self {
        Self {
            repetition_time,
            flip_angles: flip_angles.into(),
            method: VfaMethod::default(),
            b1: None,
            t1_bounds: DEFAULT_T1_BOUNDS,
            noise: NoiseSd::default(),
        }
    }

    /// How T1 is found.
    #[must_use]
    pub fn method(mut self, method: VfaMethod) -> Self {
        self.method = method;
        self
    }

    /// The ratio of actual to nominal flip angle, voxel by voxel.
    #[must_use]
    pub fn b1(mut self, b1: VoxelMap) -> Self {
        self.b1 = Some(b1);
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

impl VoxelKernel for VariableFlipAngle {
    fn name(&self) -> &'static str {
        "t1_vfa"
    }

    fn kind(&self) -> SignalKind {
        SignalKind::Signal
    }

    fn prepare(&self, input: &Input<'_>) -> Result<Box<dyn Runnable>> {
        check_samples(input, self.flip_angles.len(), "flip angles", 2)?;
        let tr = check_repetition_time(self.repetition_time)?;
        let angles = check_flip_angles("flip angles", &self.flip_angles)?;
        let distinct = angles.iter().any(|angle| (angle - angles[0]).abs() > 1e-6);
        if !distinct {
            return Err(Error::setting("flip angles", self.flip_angles[0], "they are all equal; T1 needs two or more"));
        }
        let bounds = check_bounds(self.t1_bounds)?;
        let mut layers = Vec::new();
        if let Some(b1) = &self.b1 {
            layers.push(layer(b1, input)?);
        }
        let noise = noise_from(&self.noise, input, &mut layers)?;
        let scaling = input.series.scaling();
        let largest = angles.iter().fold(0.0, |largest: f64, angle| largest.max(*angle));
        let mut tables = Tables {
            n: 0,
            tr,
            method: self.method,
            has_b1: self.b1.is_some(),
            largest_b1: std::f64::consts::PI / largest,
            noise,
            offset: scaling.intercept / scaling.slope,
            sign: scaling.slope.signum(),
            scale: scaling.slope.abs(),
            q: search::grid_t1(bounds.0.max(tr / 20.0), bounds.1.max(tr / 19.0)).map(|t1| (tr / t1).exp_m1()).collect(),
            half_angle: Table::default(),
            sine: Table::default(),
            versine: Table::default(),
            angles: Vec::new(),
        };
        tables.set_angles(angles);
        let mut record = vec![
            ("method".to_string(), SettingValue::Text(self.method.as_str().into())),
            ("repetition_time_s".into(), SettingValue::Number(tr)),
            ("flip_angles_deg".into(), numbers(self.flip_angles.iter().map(|angle| angle.degrees()))),
            ("b1".into(), self.b1.as_ref().map_or(SettingValue::Text("none".into()), map_name)),
        ];
        record_common(bounds, &self.noise, &mut record);
        Ok(Box::new(PreparedVariableFlipAngle { tables, outputs: results::outputs(), layers, record }))
    }
}

/// What all voxels share.
#[derive(Debug, Clone)]
pub(super) struct Tables {
    pub(super) n: usize,
    pub(super) tr: f64,
    pub(super) method: VfaMethod,
    pub(super) has_b1: bool,
    /// From here on the largest angle is 180 degrees or more.
    pub(super) largest_b1: f64,
    pub(super) noise: NoiseFrom,
    /// Intercept over slope: stored samples plus this are proportional to the signal.
    pub(super) offset: f64,
    pub(super) sign: f64,
    pub(super) scale: f64,
    /// exp(TR / T1) - 1 on the grid, rising.
    pub(super) q: Table,
    pub(super) half_angle: Table,
    pub(super) sine: Table,
    pub(super) versine: Table,
    angles: Vec<f64>,
}

impl Tables {
    fn set_angles(&mut self, angles: Vec<f64>) {
        self.n = angles.len();
        self.half_angle = angles.iter().map(|angle| angle / 2.0).collect();
        self.sine = angles.iter().map(|angle| angle.sin()).collect();
        self.versine = angles.iter().map(|angle| 2.0 * (angle / 2.0).sin().powi(2)).collect();
        self.angles = angles;
    }
}

/// [`VariableFlipAngle`] with its tables.
#[derive(Debug, Clone)]
pub struct PreparedVariableFlipAngle {
    tables: Tables,
    outputs: Vec<Output>,
    layers: Vec<Vec<f32>>,
    record: Vec<(String, SettingValue)>,
}

impl PreparedKernel for PreparedVariableFlipAngle {
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
        3 * self.tables.n
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
        let mut values: Vec<f32> = t.q.iter().map(|q| *q as f32).collect();
        for table in [&t.half_angle, &t.sine, &t.versine] {
            values.extend(table.iter().map(|x| *x as f32));
        }
        let (noise_from, noise_value, noise_layer) = t.noise.code();
        let settings = ShaderSettings {
            method: match t.method {
                VfaMethod::Nonlinear => 0,
                VfaMethod::Linear => 1,
            },
            has_b1: u32::from(t.has_b1),
            noise_from,
            noise_layer,
            grid: GRID as u32,
            steps: search::STEPS as u32,
            noise_value,
            tr: t.tr as f32,
            inv_tr: (1.0 / t.tr) as f32,
            largest_b1: t.largest_b1 as f32,
            offset: t.offset as f32,
            sign: t.sign as f32,
            scale: t.scale as f32,
            per_sample: (1.0 / t.n as f64) as f32,
            inv_freedom: (1.0 / (t.n - 2).max(1) as f64) as f32,
            has_freedom: u32::from(t.n > 2),
        };
        Program { tables: Cow::Owned(values), state_words: 3 * t.n, ..Program::new("t1_vfa", SOURCES, &settings) }
    }

    fn with_frames(&self, frames: &[usize]) -> Option<Self> {
        let angles: Vec<f64> = frames.iter().map(|frame| self.tables.angles[*frame]).collect();
        let distinct = angles.iter().any(|angle| (angle - angles[0]).abs() > 1e-6);
        if !distinct {
            return None;
        }
        let mut kernel = self.clone();
        kernel.tables.set_angles(angles);
        Some(kernel)
    }
}

const SOURCES: &[&str] = &[
    include_str!("../../../../shaders/arithmetic.wgsl"),
    include_str!("../../../../shaders/t1/search.wgsl"),
    include_str!("../../../../shaders/t1/results.wgsl"),
    include_str!("../../../../shaders/t1/variable_flip_angle.wgsl"),
];

/// The kernel's part of the uniform buffer, as `struct Settings` in the shader.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct ShaderSettings {
    method: u32,
    has_b1: u32,
    noise_from: u32,
    noise_layer: u32,
    grid: u32,
    steps: u32,
    noise_value: f32,
    tr: f32,
    inv_tr: f32,
    largest_b1: f32,
    offset: f32,
    sign: f32,
    scale: f32,
    per_sample: f32,
    inv_freedom: f32,
    has_freedom: u32,
}

#[cfg(all(test, feature = "gpu"))]
mod tests {
    use super::*;
    use crate::engine::gpu::text;
    use crate::status;

    #[test]
    fn both_texts_have_the_same_settings_and_constants() {
        let module = text::kernel(SOURCES);
        text::assert_same_layout!(
            &module, "Settings", ShaderSettings:
            method has_b1 noise_from noise_layer grid steps noise_value tr inv_tr largest_b1 offset sign scale per_sample
            inv_freedom has_freedom
        );
        assert_eq!(text::entry_points(&module), [("t1_vfa", [64, 1, 1])]);
        let constants = text::constants(&module);
        for (name, value) in [
            ("NON_FINITE_SAMPLE", status::NON_FINITE_SAMPLE),
            ("AT_LOWER_BOUND", status::AT_LOWER_BOUND),
            ("AT_UPPER_BOUND", status::AT_UPPER_BOUND),
            ("NOT_CONVERGED", status::NOT_CONVERGED),
            ("NOT_IDENTIFIABLE", status::NOT_IDENTIFIABLE),
            ("NO_DEGREES_OF_FREEDOM", status_bit::NO_DEGREES_OF_FREEDOM),
            ("NO_SIGNAL", status_bit::NO_SIGNAL),
            ("NO_VARIATION", status_bit::NO_VARIATION),
            ("MAP_NOT_USABLE", status_bit::MAP_NOT_USABLE),
        ] {
            assert_eq!(constants.get(name), Some(&value), "{name}");
        }
    }
}
