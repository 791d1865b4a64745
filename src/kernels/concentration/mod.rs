//! Signal to concentration of contrast agent.
//!
//! [`Concentration`] is the kernel; its curves become a series of their own with
//! [`Series::from_curves`](crate::Series::from_curves), for [`Descriptors`](crate::Descriptors) or a fit to run on.
//!
//! Beside the common status bits ([`crate::status`]) it has its own: [`status_bit`].

mod reference;

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};
use crate::kernel::lanes::Lanes;
use crate::kernel::{Curve, Input, Output, OutputKind, PreparedKernel, Program, Rows, Runnable, VoxelKernel};
use crate::kernels::descriptors::Baseline;
use crate::kernels::t1::{layer, map_name};
use crate::maps::SettingValue;
use crate::quantity::{Quantity, SignalKind};
use crate::series::VoxelMap;
use crate::units::{FlipAngle, Seconds, check_flip_angles, check_repetition_time, check_t1, check_t1_map};

/// The kernel's own status bits.
pub mod status_bit {
    /// Bit 18: a map that goes with the series (T10, B1) has no usable number here, so the voxel has no curve.
    pub const MAP_NOT_USABLE: u32 = 1 << 18;
    /// Each with its meaning.
    pub const MEANINGS: &[(u32, &str)] =
        &[(MAP_NOT_USABLE, "a map that goes with the series has no usable number here")];
}

/// Relaxivities that contrast agents have, in 1/s/mM.
const PLAUSIBLE_RELAXIVITY: std::ops::RangeInclusive<f64> = 0.1..=200.0;

/// Signal to concentration of contrast agent, in mM (CAPLEX Q.IC1.001).
///
/// Three laws, by constructor. S0 is the mean of the baseline frames:
///
/// ```text
/// new                   S = M0 sin(a) (1 - E) / (1 - E cos(a)),  E = exp(-TR R1),  R1 = 1/T10 + r1 C   (inverted exactly)
/// relative_enhancement  C = (S / S0 - 1) / (r1 T10)
/// absolute_enhancement  C = (S - S0) / k
/// ```
///
/// | parameter | unit | comes from |
/// |---|---|---|
/// | TR, a | s, degrees | the sequence; a times `b1` where there is a B1 map |
/// | T10 | s | [`t10`](Self::t10) or [`t10_map`](Self::t10_map), measured ([`crate::kernels::t1`]) or assumed |
/// | r1 | 1/s/mM | agent, field strength, plasma or water: the manufacturer's or published value |
/// | k | signal units per mM | a calibration |
///
/// Sources: the spoiled gradient echo (CAPLEX M.SM2.002) and the linear relaxivity as by P. Tofts, Quantitative MRI of the
/// Brain (2003); the linear laws as the absolute and relative signal enhancement models of M. Ingrisch and S. Sourbron, J
/// Pharmacokinet Pharmacodyn 40:281 (2013), signed here.
///
/// Nothing is clamped: noise below the baseline gives negative concentrations. The echo's signal has an upper limit, M0
/// sin(a); samples at or above it can't be inverted: such a *sample* is NaN, the others of the curve stay, and the voxel has
/// the status bit "can't be inverted". A baseline that is not positive, or a map without a usable number, takes the whole
/// curve.
///
/// Limits: T2* decay is neglected, which underestimates concentrations where they are high (arteries at the bolus's peak); so
/// does inflow of unsaturated blood. The relative law is linear only while TR R1 and the angle are such that the signal is.
///
/// ```
/// use perfuse::kernels::concentration::Concentration;
/// use perfuse::{Engine, FlipAngle, Seconds, Series, TimeAxis};
/// let signal = Series::from_voxels(vec![100.0f32, 101.0, 130.0, 120.0], [1, 1, 1, 4], TimeAxis::uniform(2.0, 4)?)?;
/// let kernel = Concentration::new(Seconds::from_milliseconds(4.0), FlipAngle::from_degrees(15.0), 4.5)
///     .t10(Seconds::from_seconds(1.2))
///     .baseline_frames(0..2);
/// let maps = Engine::cpu().run(&kernel, &signal)?;
/// let curve = maps.curves("concentration")?;
/// assert!((curve[[0, 0, 0, 0]] + curve[[0, 0, 0, 1]]).abs() < 1e-4 && curve[[0, 0, 0, 2]] > 0.05);
/// # Ok::<(), perfuse::Error>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Concentration {
    conversion: Conversion,
    t10: Option<NativeT1>,
    b1: Option<VoxelMap>,
    baseline: Baseline,
}

#[derive(Debug, Clone, Copy)]
enum Conversion {
    SpoiledGradientEcho { repetition_time: Seconds, flip_angle: FlipAngle, relaxivity: f64 },
    Relative { relaxivity: f64 },
    Absolute { signal_per_millimolar: f64 },
}

#[expect(clippy::large_enum_variant, reason = "there is one per run")]
#[derive(Debug, Clone)]
enum NativeT1 {
    Value(Seconds),
    Map(VoxelMap),
}

impl Concentration {
    /// The exact inversion of a spoiled gradient echo, for an agent of this longitudinal relaxivity in 1/s/mM. T10 has to
    /// be given, too.
    pub fn new(repetition_time: Seconds, flip_angle: FlipAngle, relaxivity: f64) -> Self {
        Self::by(Conversion::SpoiledGradientEcho { repetition_time, flip_angle, relaxivity })
    }

    /// The relative enhancement taken as proportional to the concentration: `(S / S0 - 1) / (r1 T10)`. T10 has to be given,
    /// too.
    pub fn relative_enhancement(relaxivity: f64) -> Self {
        Self::by(Conversion::Relative { relaxivity })
    }

    /// The enhancement taken as proportional to the concentration, with so many units of signal per mM.
    pub fn absolute_enhancement(signal_per_millimolar: f64) -> Self {
        Self::by(Conversion::Absolute { signal_per_millimolar })
    }

    fn by(conversion: Conversion) -> Self {
        Self { conversion, t10: None, b1: None, baseline: Baseline::default() }
    }

    /// T1 before contrast agent, the same everywhere. Replaces a map.
    #[must_use]
    pub fn t10(mut self, t10: Seconds) -> Self {
        self.t10 = Some(NativeT1::Value(t10));
        self
    }

    /// T1 before contrast agent in seconds, voxel by voxel. Replaces a value.
    #[must_use]
    pub fn t10_map(mut self, t10: VoxelMap) -> Self {
        self.t10 = Some(NativeT1::Map(t10));
        self
    }

    /// The ratio of actual to nominal flip angle, voxel by voxel; the linear laws know no angle and refuse it.
    #[must_use]
    pub fn b1(mut self, b1: VoxelMap) -> Self {
        self.b1 = Some(b1);
        self
    }

    /// Which frames' mean is S0, as for [`Descriptors`](crate::Descriptors).
    #[must_use]
    pub fn baseline(mut self, baseline: Baseline) -> Self {
        self.baseline = baseline;
        self
    }

    /// These frames' mean is S0, counted from 0, the end excluded: `1..5` leaves out a first frame before the steady state.
    #[must_use]
    pub fn baseline_frames(self, frames: Range<usize>) -> Self {
        self.baseline(Baseline::Frames(frames))
    }
}

fn check_relaxivity(relaxivity: f64) -> Result<()> {
    if PLAUSIBLE_RELAXIVITY.contains(&relaxivity) {
        return Ok(());
    }
    let mend =
        "give 1/s/mM, 3 to 15 for common agents: were 1/s/M or 1/ms/mM given? (4500 1/s/M and 0.0045 1/ms/mM are 4.5)";
    Err(Error::setting("relaxivity", relaxivity, mend))
}

impl VoxelKernel for Concentration {
    fn name(&self) -> &'static str {
        "concentration"
    }

    fn kind(&self) -> SignalKind {
        SignalKind::Signal
    }

    fn prepare(&self, input: &Input<'_>) -> Result<Box<dyn Runnable>> {
        let scaling = input.series.scaling();
        let n = input.series.frames();
        let mut layers = Vec::new();
        let mut record = Vec::new();
        let mut setting = |name: &str, value: SettingValue| record.push((name.to_string(), value));
        let text = |value: &str| SettingValue::Text(value.into());
        let mut t = Tables {
            law: Law::Absolute,
            n,
            rows: (0..n).collect(),
            rows_without_sample: Vec::new(),
            baseline: Vec::new(),
            offset: scaling.intercept / scaling.slope,
            sign: scaling.slope.signum(),
            tr: 1.0,
            t10: 1.0,
            shortest_t10: 0.0,
            t10_layer: None,
            b1_layer: None,
            largest_b1: 0.0,
            half_angle: 0.0,
            versine: 0.0,
            factor: 1.0,
        };
        match self.conversion {
            Conversion::SpoiledGradientEcho { repetition_time, flip_angle, relaxivity } => {
                check_relaxivity(relaxivity)?;
                let angle = check_flip_angles("flip angle", &[flip_angle])?[0];
                t.law = Law::SpoiledGradientEcho;
                t.tr = check_repetition_time(repetition_time)?;
                // Beyond this the signal no longer depends on T1.
                t.shortest_t10 = t.tr / 20.0;
                t.half_angle = angle / 2.0;
                t.versine = 2.0 * t.half_angle.sin().powi(2);
                t.largest_b1 = std::f64::consts::PI / angle;
                t.factor = 1.0 / (t.tr * relaxivity);
                setting("conversion", text("spoiled gradient echo"));
                setting("repetition_time_s", SettingValue::Number(t.tr));
                setting("flip_angle_deg", SettingValue::Number(flip_angle.degrees()));
                setting("relaxivity_per_s_per_mM", SettingValue::Number(relaxivity));
            }
            Conversion::Relative { relaxivity } => {
                check_relaxivity(relaxivity)?;
                t.law = Law::Relative;
                t.factor = 1.0 / relaxivity;
                setting("conversion", text("relative enhancement"));
                setting("relaxivity_per_s_per_mM", SettingValue::Number(relaxivity));
            }
            Conversion::Absolute { signal_per_millimolar } => {
                if !(signal_per_millimolar.is_finite() && signal_per_millimolar > 0.0) {
                    let mend = "give a positive number of signal units per mM";
                    return Err(Error::setting("signal per mM", signal_per_millimolar, mend));
                }
                // Differences are of stored samples.
                t.factor = scaling.slope.abs() / signal_per_millimolar;
                setting("conversion", text("absolute enhancement"));
                setting("signal_per_mM", SettingValue::Number(signal_per_millimolar));
            }
        }
        match (&self.t10, t.law) {
            (None, Law::Absolute) => {}
            (None, _) => {
                let mend = "give T1 before contrast agent: a value in seconds, or a map";
                return Err(Error::setting("T10", "missing", mend));
            }
            (Some(_), Law::Absolute) => {
                return Err(Error::setting("T10", "given", "absolute enhancement has no use for it; leave it out"));
            }
            (Some(NativeT1::Value(t10)), _) => {
                t.t10 = check_t1("T10", *t10)?;
                if t.t10 < t.shortest_t10 {
                    let mend = format!("with TR = {} s the signal hardly depends on a T1 that short", t.tr);
                    return Err(Error::setting("T10", t10, mend));
                }
                setting("t10_s", SettingValue::Number(t.t10));
            }
            (Some(NativeT1::Map(map)), _) => {
                map.check_matches(input.series)?;
                check_t1_map("T10", map, input.mask)?;
                t.shortest_t10 = t.shortest_t10.max(crate::units::SHORTEST_T1_S);
                t.t10_layer = Some(layers.len());
                layers.push(layer(map, input)?);
                setting("t10", map_name(map));
            }
        }
        if let Some(b1) = &self.b1 {
            if t.law != Law::SpoiledGradientEcho {
                return Err(Error::setting("B1", "given", "the linear conversions have no flip angle; leave it out"));
            }
            t.b1_layer = Some(layers.len());
            layers.push(layer(b1, input)?);
            setting("b1", map_name(b1));
        }
        let frames = self.baseline.of_rising(input)?;
        setting("baseline", SettingValue::Text(self.baseline.to_text()));
        setting(
            "baseline_frames",
            SettingValue::List(vec![
                SettingValue::Number(frames.start as f64),
                SettingValue::Number(frames.end as f64),
            ]),
        );
        t.baseline = frames.collect();
        let outputs = vec![Output { quantity: Quantity::CONCENTRATION, kind: OutputKind::Curve(n) }];
        Ok(Box::new(PreparedConcentration { tables: t, outputs, layers, record }))
    }
}

/// The law of a prepared conversion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Law {
    SpoiledGradientEcho,
    Relative,
    Absolute,
}

/// What all voxels share.
#[derive(Debug, Clone)]
struct Tables {
    law: Law,
    n: usize,
    /// The row of each sample, and the rows that have none because their sample is skipped.
    rows: Vec<usize>,
    rows_without_sample: Vec<usize>,
    baseline: Vec<usize>,
    /// Intercept over slope: stored samples plus this are proportional to the signal.
    offset: f64,
    sign: f64,
    tr: f64,
    t10: f64,
    shortest_t10: f64,
    t10_layer: Option<usize>,
    b1_layer: Option<usize>,
    largest_b1: f64,
    half_angle: f64,
    versine: f64,
    /// What the logarithm, the relative or the absolute enhancement is multiplied by.
    factor: f64,
}

/// [`Concentration`] with its tables.
#[derive(Debug, Clone)]
pub struct PreparedConcentration {
    tables: Tables,
    outputs: Vec<Output>,
    layers: Vec<Vec<f32>>,
    record: Vec<(String, SettingValue)>,
}

impl PreparedKernel for PreparedConcentration {
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
        0
    }

    fn evaluate<L: Lanes>(&self, lanes: L, curve: Curve<'_, L>, _: &mut [L::F], rows: &mut Rows<'_, L>) {
        reference::evaluate(&self.tables, lanes, &curve, rows);
    }

    fn program(&self) -> Program {
        let t = &self.tables;
        let settings = ShaderSettings {
            law: match t.law {
                Law::SpoiledGradientEcho => 0,
                Law::Relative => 1,
                Law::Absolute => 2,
            },
            baseline_start: t.baseline[0] as u32,
            baseline_end: t.baseline[0] as u32 + t.baseline.len() as u32,
            has_t10: u32::from(t.t10_layer.is_some()),
            has_b1: u32::from(t.b1_layer.is_some()),
            b1_layer: t.b1_layer.unwrap_or(0) as u32,
            inv_baseline: (1.0 / t.baseline.len() as f64) as f32,
            offset: t.offset as f32,
            sign: t.sign as f32,
            tr: t.tr as f32,
            t10: t.t10 as f32,
            shortest_t10: t.shortest_t10 as f32,
            largest_b1: t.largest_b1 as f32,
            half_angle: t.half_angle as f32,
            versine: t.versine as f32,
            factor: t.factor as f32,
        };
        Program::new("concentration", SOURCES, &settings)
    }

    fn with_frames(&self, frames: &[usize]) -> Option<Self> {
        let mut kernel = self.clone();
        let t = &mut kernel.tables;
        t.baseline = (0..frames.len()).filter(|i| self.tables.baseline.contains(&frames[*i])).collect();
        if t.baseline.is_empty() {
            return None;
        }
        t.n = frames.len();
        t.rows = frames.to_vec();
        t.rows_without_sample = (0..self.tables.n).filter(|row| !frames.contains(row)).collect();
        Some(kernel)
    }
}

const SOURCES: &[&str] =
    &[include_str!("../../../shaders/arithmetic.wgsl"), include_str!("../../../shaders/concentration.wgsl")];

/// The kernel's part of the uniform buffer, as `struct Settings` in the shader.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct ShaderSettings {
    law: u32,
    baseline_start: u32,
    baseline_end: u32,
    has_t10: u32,
    has_b1: u32,
    b1_layer: u32,
    inv_baseline: f32,
    offset: f32,
    sign: f32,
    tr: f32,
    t10: f32,
    shortest_t10: f32,
    largest_b1: f32,
    half_angle: f32,
    versine: f32,
    factor: f32,
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
            law baseline_start baseline_end has_t10 has_b1 b1_layer inv_baseline offset sign tr t10 shortest_t10 largest_b1
            half_angle versine factor
        );
        assert_eq!(text::entry_points(&module), [("concentration", [64, 1, 1])]);
        let constants = text::constants(&module);
        for (name, value) in [
            ("NON_FINITE_SAMPLE", status::NON_FINITE_SAMPLE),
            ("BASELINE_NOT_POSITIVE", status::BASELINE_NOT_POSITIVE),
            ("NOT_INVERTIBLE", status::NOT_INVERTIBLE),
            ("MAP_NOT_USABLE", status_bit::MAP_NOT_USABLE),
        ] {
            assert_eq!(constants.get(name), Some(&value), "{name}");
        }
    }
}
