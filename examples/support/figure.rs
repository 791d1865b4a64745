//! A curve with baseline, onset, peak and steepest rise marked, by the f64 definition.

use perfuse::kernel::{Input, VoxelKernel};
use perfuse::kernels::descriptors::{MapSelection, Noise};
use perfuse::reduction::Reductions;
use perfuse::render::CurvePlot;
use perfuse::{Descriptors, Engine, Error, Mask, NonFinite, Result, RunOptions, Series, SettingValue, SignalKind};

/// A curve with what was found in it.
pub(crate) struct Analysed {
    pub(crate) times_s: Vec<f64>,
    pub(crate) samples: Vec<f64>,
    /// Baseline frames: the first, and the one after the last.
    pub(crate) baseline_frames: [usize; 2],
    /// Maps by identifier.
    pub(crate) values: Vec<(String, f64)>,
    settings: Vec<(String, SettingValue)>,
    kind: SignalKind,
}

impl Analysed {
    /// The curve of one voxel, with whatever is shared by all voxels (baseline, global onset) decided over the mask.
    pub(crate) fn voxel(
        kernel: &Descriptors,
        series: &Series,
        mask: Option<&Mask>,
        voxel: [usize; 3],
        non_finite: NonFinite,
    ) -> Result<Self> {
        let ids = ["baseline", "peak_enhancement", "peak_time", "onset", "max_slope", "max_slope_time", "onset_se"];
        // The onset has a standard error only where it comes from a fit.
        let with_error = kernel.clone().maps(MapSelection::only(ids));
        let kernel = match with_error.quantities() {
            Ok(_) => with_error,
            Err(_) => with_error.maps(MapSelection::only(&ids[..6])),
        };
        let reductions = Reductions::new(series, mask);
        let settings = kernel.prepare(&Input { series, mask, reductions: &reductions })?.settings();
        let mut options = RunOptions::new().non_finite(non_finite);
        if let Some(mask) = mask {
            options = options.mask(mask);
        }
        let frames = match find(&settings, "baseline_frames") {
            Some(SettingValue::List(frames)) => frames.iter().map(|frame| number(frame) as usize).collect(),
            _ => vec![0, 0],
        };
        Ok(Self {
            times_s: series.times()?.seconds().to_vec(),
            samples: series.curve(voxel)?,
            baseline_frames: [frames[0], frames[1]],
            values: Engine::reference_values(&kernel, series, voxel, &options)?,
            settings,
            kind: VoxelKernel::kind(&kernel),
        })
    }

    /// The mean curve over a mask, or over everything; voxels with samples that aren't finite are left out of it.
    pub(crate) fn mean(kernel: &Descriptors, series: &Series, mask: Option<&Mask>) -> Result<Self> {
        let reductions = Reductions::new(series, mask);
        let Some(mean) = reductions.mean_curve() else {
            let mend = "there must be at least one voxel whose samples are all finite".into();
            return Err(Error::Setting { name: "mean curve".into(), value: "empty".into(), mend });
        };
        let shape = [1, 1, 1, mean.len()];
        let mean = Series::from_voxels(mean.to_vec(), shape, series.times()?.clone())?;
        // The noise of a mean isn't that of a voxel: its own baseline tells.
        Self::voxel(&kernel.clone().noise(Noise::Baseline), &mean, None, [0; 3], NonFinite::Refuse)
    }

    pub(crate) fn value(&self, id: &str) -> f64 {
        self.values.iter().find(|(name, _)| name == id).map_or(f64::NAN, |(_, value)| *value)
    }

    /// The figure.
    pub(crate) fn plot(&self, title: impl Into<String>) -> CurvePlot {
        let falls = matches!(find(&self.settings, "polarity"), Some(SettingValue::Text(text)) if text == "fall");
        let direction = if falls { -1.0 } else { 1.0 };
        let (baseline, slope_time) = (self.value("baseline"), self.value("max_slope_time"));
        let [from, to] = self.baseline_frames;
        let onset_se = Some(self.value("onset_se")).filter(|se| se.is_finite());
        CurvePlot::new(&self.times_s, &self.samples)
            .title(title)
            .value_name(match self.kind {
                SignalKind::Concentration => "concentration",
                SignalKind::DeltaR2Star => "ΔR2*",
                SignalKind::Attenuation => "attenuation",
                _ => "signal",
            })
            .unit(self.kind.unit())
            .baseline(from..to, baseline)
            .onset(self.times_s[0] + self.value("onset"), onset_se)
            .peak(self.value("peak_time"), baseline + direction * self.value("peak_enhancement"))
            .slope(slope_time, self.middle(slope_time), direction * self.value("max_slope"))
    }

    /// The mean of the samples in the window with this mean time: the line of steepest rise goes through it.
    fn middle(&self, time_s: f64) -> f64 {
        let window = match find(&self.settings, "slope_window_samples") {
            Some(samples) => number(samples) as usize,
            None => 3,
        };
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let found = (2..=window)
            .rev()
            .flat_map(|w| self.times_s.windows(w).zip(self.samples.windows(w)))
            .find(|(times, _)| (mean(times) - time_s).abs() <= 1e-9 * (times[times.len() - 1] - times[0]));
        found.map_or(f64::NAN, |(_, samples)| mean(samples))
    }
}

/// A setting by its name.
pub(crate) fn find<'a>(settings: &'a [(String, SettingValue)], name: &str) -> Option<&'a SettingValue> {
    settings.iter().find(|(known, _)| known == name).map(|(_, value)| value)
}

fn number(value: &SettingValue) -> f64 {
    if let SettingValue::Number(number) = value { *number } else { f64::NAN }
}
