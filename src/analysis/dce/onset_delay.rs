//! The arterial delay of every voxel from the onsets of its curve and of the input function.

use ndarray::{Array3, Zip};

use crate::engine::{Engine, RunOptions};
use crate::error::{Error, Result};
use crate::input_function::InputFunction;
use crate::kernels::descriptors::{Baseline, Descriptors, MapSelection};
use crate::maps::{Maps, SettingValue};
use crate::quantity::{Quantity, SignalKind};
use crate::series::{Series, VoxelMap};
use crate::status;

/// The arterial delay (CAPLEX Q.PH1.007) as the onset of the voxel's curve minus that of the input function, where the voxel
/// has an arterial phase.
///
/// Both onsets are [`Quantity::ONSET`] by the default method, the input function's at the same frames as the tissue's, so
/// that what the frame spacing does to the one it does to the other.
///
/// A voxel has an arterial phase if its own onset was found and it reaches half of its largest concentration, counted from
/// that onset, no later than the input function reaches its peak, counted from its own, plus one (median) frame spacing. In
/// slower tissue the onset says where the curve leaves the noise rather than when the agent arrived: such voxels get NaN,
/// which [`Delay::PerVoxel`](crate::kernels::fit::Delay::PerVoxel) takes for "fit it". So do delays outside the limits.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OnsetDelay {
    baseline: Baseline,
    limits_s: (f64, f64),
}

impl Default for OnsetDelay {
    fn default() -> Self {
        Self { baseline: Baseline::Automatic, limits_s: (-10.0, 10.0) }
    }
}

/// What the onsets gave.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OnsetDelays {
    /// Seconds, positive where the tissue comes after the input function; NaN where the onset is no delay.
    pub map: VoxelMap,
    /// Voxels with a delay from their onset.
    pub voxels: usize,
    /// The input function's onset on the series' clock, in seconds.
    pub input_onset_s: f64,
}

impl OnsetDelay {
    /// An automatic baseline, and delays from -10 to 10 s.
    pub fn new() -> Self {
        Self::default()
    }

    /// Which frames are the baseline of the onsets.
    #[must_use]
    pub fn baseline(mut self, baseline: Baseline) -> Self {
        self.baseline = baseline;
        self
    }

    /// The smallest and the largest delay in seconds that is believed.
    #[must_use]
    pub fn limits_s(mut self, lower: f64, upper: f64) -> Self {
        self.limits_s = (lower, upper);
        self
    }

    /// Finds the delays in a series of concentrations.
    ///
    /// # Errors
    /// Those of [`Engine::run_with`]; [`Error::Setting`] if the input function doesn't reach the series' frames or has no
    /// onset there.
    pub fn run(
        &self,
        engine: &Engine,
        series: &Series,
        input: &InputFunction,
        options: &RunOptions<'_>,
    ) -> Result<OnsetDelays> {
        let ids = ["onset", "time_to_fraction_50"];
        let kernel = Descriptors::new()
            .kind(SignalKind::Concentration)
            .baseline(self.baseline.clone())
            .maps(MapSelection::only(ids));
        let tissue = engine.run_with(&kernel, series, options)?;

        // The frames that were the tissue's baseline are the input function's.
        let kernel = kernel
            .baseline(decided_baseline(&tissue).unwrap_or(self.baseline.clone()))
            .maps(MapSelection::only(["onset", "time_to_peak"]));
        let artery = Engine::reference_values(&kernel, &at_frames(input, series)?, [0; 3], &RunOptions::new())?;
        let value = |id: &str| artery.iter().find(|(name, _)| name == id).map_or(f64::NAN, |(_, value)| *value);
        let (onset, time_to_peak) = (value("onset"), value("time_to_peak"));
        if !(onset.is_finite() && time_to_peak.is_finite()) {
            let mend = "it needs a baseline and a rise within the series' frames; fit the delay or fix it instead";
            return Err(Error::setting("delay from the onset", "the input function has no onset", mend));
        }

        let latest = time_to_peak + series.times()?.median_spacing_s();
        let (lower, upper) = self.limits_s;
        let mut delays = Array3::<f32>::from_elem(tissue.status().dim(), f32::NAN);
        let mut voxels = 0;
        Zip::from(&mut delays)
            .and(tissue.get(Quantity::ONSET)?)
            .and(tissue.get(Quantity::TIME_TO_FRACTION_50)?)
            .and(tissue.status())
            .for_each(|delay, &own, &half, &bits| {
                let later = f64::from(own) - onset;
                let own_onset = bits & (status::GLOBAL_ONSET_USED | status::NO_ONSET | status::NOT_ENHANCING) == 0;
                if own_onset && f64::from(half) <= latest && (lower..=upper).contains(&later) {
                    *delay = later as f32;
                    voxels += 1;
                }
            });
        let map = VoxelMap::from_array(delays.view()).with_geometry(series.geometry().clone());
        Ok(OnsetDelays { map, voxels, input_onset_s: series.times()?.first_s() + onset })
    }
}

/// The baseline frames that a run decided on.
fn decided_baseline(maps: &Maps) -> Option<Baseline> {
    let settings = &maps.record().settings;
    let (_, frames) = settings.iter().find(|(name, _)| name == "baseline_frames")?;
    match frames {
        SettingValue::List(frames) => match frames.as_slice() {
            [SettingValue::Number(from), SettingValue::Number(to)] => {
                Some(Baseline::Frames(*from as usize..*to as usize))
            }
            _ => None,
        },
        _ => None,
    }
}

/// The input function as a series of one voxel, sampled at the frames of another.
fn at_frames(input: &InputFunction, series: &Series) -> Result<Series> {
    let times = series.times()?;
    input.check_covers(times)?;
    let last = input.concentration_mm()[input.concentration_mm().len() - 1];
    let samples: Vec<f64> = times.seconds().iter().map(|t| input.at(*t).unwrap_or(last)).collect();
    Series::from_voxels(samples, [1, 1, 1, times.len()], times.clone())
}
