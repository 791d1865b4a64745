//! T1 mapping: the native longitudinal relaxation time from images taken with several flip angles or inversion times.
//!
//! | kernel | images | method |
//! |---|---|---|
//! | [`VariableFlipAngle`] | spoiled gradient echoes with two or more flip angles | nonlinear least squares, or the line of Gupta |
//! | [`InversionRecovery`] | three or more after an inversion | magnitude or signed recovery; Look-Locker |
//!
//! Images are stacked into a series without times: [`Series::stack`](crate::Series::stack), or `Series::open_stack` for
//! files. Outputs are `t1` (s), `r1` (1/s), `m0` (in units of the signal), their standard errors `t1_se`, `r1_se`, `m0_se`,
//! `sse` and `r_squared`, in all methods.
//!
//! # How the fits work
//!
//! Given the rate, the signal is linear in the other parameters (variable projection: Golub and Pereyra, SIAM J Numer Anal
//! 1973), so the sum of squares is a function of one rate alone. It can have several minima, so it is evaluated on a grid
//! of 64 rates between the bounds of T1; from the best one (by the vertex of the parabola through it and its neighbours)
//! ten steps of Newton's method follow, each kept within a bracket. There are no start values to choose, and no iteration
//! that runs away. A minimum at a bound has the bound's value, a status bit that says so, and no standard errors.
//!
//! Standard errors come from the covariance of the fit, `sigma^2 (J'J)^-1`, by the delta method. `sigma^2` is `SSE / (n - p)`
//! for n samples and p parameters, or what [`NoiseSd`] says; without degrees of freedom (two flip angles, three inversion
//! times) there is none unless the noise is given, and a status bit says so. A T1 whose standard error exceeds half of it
//! is marked as not identifiable and keeps its value; one that the other parameters can imitate to within 1e-3 of its effect
//! has the same bit and no value (inversion times far beyond T1, say).
//!
//! Beside the common status bits ([`crate::status`]) these maps have their own: [`status_bit`].

mod inversion_recovery;
mod results;
mod search;
mod variable_flip_angle;

use crate::error::{Error, Result};
use crate::kernel::Input;
use crate::maps::SettingValue;
use crate::series::VoxelMap;
use crate::units::{Seconds, check_t1};

pub use inversion_recovery::{InversionRecovery, PreparedRecovery, Readout, RecoverySignal};
pub use variable_flip_angle::{PreparedVariableFlipAngle, VariableFlipAngle, VfaMethod};

/// The kernels' own status bits.
pub mod status_bit {
    /// Bit 15: as many parameters as samples, and no noise SD given: no standard errors.
    pub const NO_DEGREES_OF_FREEDOM: u32 = 1 << 15;
    /// Bit 16: the largest sample is not between 1e-15 and 1e15 in magnitude, or no positive amplitude fits.
    pub const NO_SIGNAL: u32 = 1 << 16;
    /// Bit 17: all samples are equal, so R² has no divisor.
    pub const NO_VARIATION: u32 = 1 << 17;
    /// Bit 18: a map that goes with the series (B1, noise) has no usable number here.
    pub const MAP_NOT_USABLE: u32 = 1 << 18;
    /// Each with its meaning.
    pub const MEANINGS: &[(u32, &str)] = &[
        (NO_DEGREES_OF_FREEDOM, "as many parameters as samples and no noise SD given: no standard errors"),
        (NO_SIGNAL, "no signal (1e-15 to 1e15), or no positive amplitude fits"),
        (NO_VARIATION, "all samples are equal: no R squared"),
        (MAP_NOT_USABLE, "a map that goes with the series has no usable number here"),
    ];
}

/// The bounds of T1 unless told otherwise.
pub const DEFAULT_T1_BOUNDS: (Seconds, Seconds) = (Seconds::from_seconds(0.01), Seconds::from_seconds(20.0));

/// Where the noise standard deviation of standard errors comes from.
#[expect(clippy::large_enum_variant, reason = "there is one per run")]
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum NoiseSd {
    /// The residuals of the fit: `sqrt(SSE / (n - p))`.
    #[default]
    Residuals,
    /// This value everywhere, in the unit of the samples.
    Value(f64),
    /// A value per voxel, in the unit of the samples.
    Map(VoxelMap),
}

/// Where a prepared kernel finds the noise.
#[derive(Debug, Clone, Copy, PartialEq)]
enum NoiseFrom {
    Residuals,
    Value(f64),
    Layer(usize),
}

impl NoiseFrom {
    /// As the shaders have it.
    fn code(self) -> (u32, f32, u32) {
        match self {
            NoiseFrom::Residuals => (0, 0.0, 0),
            NoiseFrom::Value(sd) => (1, sd as f32, 0),
            NoiseFrom::Layer(layer) => (2, 0.0, layer as u32),
        }
    }
}

fn noise_from(noise: &NoiseSd, input: &Input<'_>, layers: &mut Vec<Vec<f32>>) -> Result<NoiseFrom> {
    match noise {
        NoiseSd::Residuals => Ok(NoiseFrom::Residuals),
        NoiseSd::Value(sd) if sd.is_finite() && *sd > 0.0 => Ok(NoiseFrom::Value(*sd)),
        NoiseSd::Value(sd) => Err(Error::setting("noise", sd, "give a positive standard deviation")),
        NoiseSd::Map(map) => {
            layers.push(layer(map, input)?);
            Ok(NoiseFrom::Layer(layers.len() - 1))
        }
    }
}

/// A map on the series' grid as the texts read it: what isn't finite, or can't be a positive number, is 0.
pub(super) fn layer(map: &VoxelMap, input: &Input<'_>) -> Result<Vec<f32>> {
    map.check_matches(input.series)?;
    let usable = |value: f32| if value.is_finite() && value > f32::MIN_POSITIVE { value } else { 0.0 };
    Ok(map.flat().iter().map(|value| usable(*value)).collect())
}

/// Checks bounds of T1 and returns them in seconds.
fn check_bounds((shortest, longest): (Seconds, Seconds)) -> Result<(f64, f64)> {
    let bounds = (check_t1("shortest T1", shortest)?, check_t1("longest T1", longest)?);
    if bounds.0 < bounds.1 {
        return Ok(bounds);
    }
    Err(Error::setting("T1 bounds", format!("{shortest} to {longest}"), "give the shorter one first"))
}

/// Checks that there is a sample per setting.
fn check_samples(input: &Input<'_>, settings: usize, what: &str, fewest: usize) -> Result<()> {
    if settings < fewest {
        let mend = format!("give {fewest} or more");
        return Err(Error::setting(what, format!("a list of {settings}"), mend));
    }
    let samples = input.series.frames();
    if samples == settings {
        return Ok(());
    }
    let mend =
        format!("{} has {samples} samples per voxel: give one for each image, in their order", input.series.name());
    Err(Error::setting(what, format!("a list of {settings}"), mend))
}

fn numbers(values: impl IntoIterator<Item = f64>) -> SettingValue {
    SettingValue::List(values.into_iter().map(SettingValue::Number).collect())
}

/// The settings that both kernels have, for the record.
fn record_common(bounds: (f64, f64), noise: &NoiseSd, record: &mut Vec<(String, SettingValue)>) {
    record.push(("t1_bounds_s".into(), numbers([bounds.0, bounds.1])));
    record.push((
        "noise_sd".into(),
        match noise {
            NoiseSd::Residuals => SettingValue::Text("residuals".into()),
            NoiseSd::Value(sd) => SettingValue::Number(*sd),
            NoiseSd::Map(map) => map_name(map),
        },
    ));
}

/// How a record calls a map.
pub(super) fn map_name(map: &VoxelMap) -> SettingValue {
    let name = map.source().and_then(std::path::Path::file_name);
    SettingValue::Text(name.map_or("a map".into(), |name| name.to_string_lossy().into_owned()))
}
