//! When the bolus arrives: where a population function's t = 0 lies on the series' clock.

use super::from_mask::counted;
use crate::engine::{Engine, RunOptions};
use crate::error::{Error, Result};
use crate::kernels::descriptors::{Descriptors, MapSelection};
use crate::quantity::Quantity;
use crate::reduction::Reductions;
use crate::series::{Mask, Series};

/// When the bolus arrives, on the series' clock, and how that is known.
#[derive(Debug, Clone, PartialEq)]
pub struct Arrival {
    time_s: f64,
    how: String,
}

impl Arrival {
    /// At a given time in seconds on the series' clock.
    ///
    /// # Errors
    /// [`Error::Setting`] if the time isn't finite.
    pub fn at(time_s: f64) -> Result<Self> {
        if !time_s.is_finite() {
            return Err(Error::setting("arrival", time_s, "give seconds on the series' clock"));
        }
        Ok(Self { time_s, how: "given".into() })
    }

    /// Detected: the onset of the mean curve of a mask, or of all voxels, by the method, baseline and polarity of these
    /// settings ([`Descriptors::new`]: automatic baseline, piecewise-linear onset).
    ///
    /// The mean curve of an artery shows the arrival in the artery. That of tissue comes some seconds later, and then so
    /// does a population function placed there, which a fit with a free delay makes good.
    ///
    /// # Errors
    /// [`Error::Time`] if the mean curve has no onset, or there is no voxel with finite samples; [`Error::Mismatch`] if the
    /// mask doesn't fit the series; [`Error::Setting`] if the settings don't.
    pub fn detect(series: &Series, mask: Option<&Mask>, settings: &Descriptors) -> Result<Self> {
        if let Some(mask) = mask {
            mask.check_matches(series)?;
        }
        let refuse = |found: &str| Error::Time {
            what: series.name(),
            found: format!("arrival of the bolus: {found}"),
            mend: "give the arrival in seconds on the series' clock, or a mask of an artery".into(),
        };
        let reductions = Reductions::new(series, mask);
        let mean = reductions.mean_curve();
        reductions.check()?;
        let mean = mean.ok_or_else(|| refuse("no voxel has finite samples only"))?;
        let curve = Series::from_voxels(mean.to_vec(), [1, 1, 1, mean.len()], series.times()?.clone())?;
        let kernel = settings.clone().maps(MapSelection::only([Quantity::ONSET]));
        let values = Engine::reference_values(&kernel, &curve, [0; 3], &RunOptions::new())?;
        let onset = values.iter().find(|(id, _)| *id == Quantity::ONSET.id).map_or(f64::NAN, |(_, value)| *value);
        if !onset.is_finite() {
            return Err(refuse("the mean curve doesn't rise above its noise"));
        }
        let of = match (mask, mask.and_then(Mask::source).and_then(|path| path.file_name())) {
            (_, Some(name)) => format!("{} of {}", counted(mask.map_or(0, Mask::voxel_count), "voxel"), name.display()),
            (Some(mask), None) => format!("{} of a mask", counted(mask.voxel_count(), "voxel")),
            (None, _) => "all voxels".into(),
        };
        let how = format!("detected: onset of the mean curve of {of}");
        Ok(Self { time_s: series.times()?.first_s() + onset, how })
    }

    /// Says in words how the time is known, for records.
    #[must_use]
    pub fn with_how(mut self, how: impl Into<String>) -> Self {
        self.how = how.into();
        self
    }

    /// Seconds on the series' clock.
    pub fn time_s(&self) -> f64 {
        self.time_s
    }

    /// How the time is known: `given`, or from what it was detected.
    pub fn how(&self) -> &str {
        &self.how
    }
}
