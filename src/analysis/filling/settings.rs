//! What can be chosen about an analysis of filling.

use crate::error::{Error, Result};
use crate::kernels::descriptors::Polarity;
use crate::maps::SettingValue;
use crate::quantity::SignalKind;
use crate::series::Mask;

/// How a lesion fills: measured with [`run`](Self::run).
///
/// ```
/// use perfuse::analysis::filling::FillingPattern;
/// use perfuse::phantom::filling::{FillingPhantom, Pattern};
/// use perfuse::{Engine, RunOptions};
/// let phantom = FillingPhantom::ball(6.0, [1.0; 3]).pattern(Pattern::Centrifugal).build()?;
/// let report = FillingPattern::new().run(&Engine::cpu(), &phantom.series, &phantom.lesion, &RunOptions::new())?;
/// assert!(report.centrifugality.low > 0.0);
/// println!("{}", report.description.text());
/// # Ok::<(), perfuse::Error>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FillingPattern {
    pub(super) kind: SignalKind,
    pub(super) polarity: Polarity,
    pub(super) enhancement_threshold: f64,
    pub(super) frames: Option<usize>,
    pub(super) level: Option<f64>,
    pub(super) rim: Rim,
    pub(super) base: Option<Mask>,
    pub(super) shells: usize,
    pub(super) confidence: f64,
    pub(super) draws: usize,
    pub(super) seed: u64,
}

/// What happens to the lesion's outermost voxels, which are partly something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Rim {
    /// Voxels with a face to the outside are left out of direction and speed.
    #[default]
    LeftOut,
    /// They are used like all others.
    Used,
}

impl Default for FillingPattern {
    fn default() -> Self {
        Self {
            kind: SignalKind::default(),
            polarity: Polarity::default(),
            enhancement_threshold: 5.0,
            frames: None,
            level: None,
            rim: Rim::default(),
            base: None,
            shells: 6,
            confidence: 0.95,
            draws: 200,
            seed: 0,
        }
    }
}

impl FillingPattern {
    /// Rising signal, no base, rim voxels left out, 95 % intervals.
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

    /// A voxel enhances when its highest sample lies at least this many noise SDs above its baseline (k = 5 unless told), two
    /// consecutive frames exceed 3, and the fit explains at least k² noise variances.
    #[must_use]
    pub fn enhancement_threshold(mut self, deviations: f64) -> Self {
        self.enhancement_threshold = deviations;
        self
    }

    /// Uses the first so many frames; unless told, all, or those up to the peak of the lesion's mean curve if it falls by
    /// more than a tenth of its rise afterwards.
    #[must_use]
    pub fn frames(mut self, frames: usize) -> Self {
        self.frames = Some(frames);
        self
    }

    /// The common level above each voxel's baseline, in the unit of the samples; unless told, half of the median over the
    /// enhancing voxels of the fitted enhancement at the last frame used.
    #[must_use]
    pub fn level(mut self, level: f64) -> Self {
        self.level = Some(level);
        self
    }

    /// What happens to the lesion's outermost voxels.
    #[must_use]
    pub fn rim(mut self, rim: Rim) -> Self {
        self.rim = rim;
        self
    }

    /// A surface that the lesion sits on, for instance the dura: any mask on the series' grid that touches or overlaps the
    /// lesion.
    #[must_use]
    pub fn with_base(mut self, base: Mask) -> Self {
        self.base = Some(base);
        self
    }

    /// Shells of equal volume: 6 unless told.
    #[must_use]
    pub fn shells(mut self, shells: usize) -> Self {
        self.shells = shells;
        self
    }

    /// Confidence of the intervals: 0.95 unless told.
    #[must_use]
    pub fn confidence(mut self, confidence: f64) -> Self {
        self.confidence = confidence;
        self
    }

    /// Draws of the noise that errors are taken from: 200 unless told.
    #[must_use]
    pub fn draws(mut self, draws: usize) -> Self {
        self.draws = draws;
        self
    }

    /// Which random numbers.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// +1 where contrast agent raises the samples, -1 where it lowers them.
    pub(super) fn direction(&self) -> f64 {
        match self.polarity {
            Polarity::Fall => -1.0,
            _ => 1.0,
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        if !(3..=50).contains(&self.shells) {
            return Err(Error::setting("shells", self.shells, "use 3 to 50"));
        }
        if !(0.5..1.0).contains(&self.confidence) {
            return Err(Error::setting("confidence", self.confidence, "give a number from 0.5 to below 1"));
        }
        if !(50..=10_000).contains(&self.draws) {
            return Err(Error::setting("draws", self.draws, "use 50 to 10,000"));
        }
        Ok(())
    }

    /// All settings, for the record.
    pub(super) fn record(&self) -> Vec<(String, SettingValue)> {
        use SettingValue::{Number, Text};
        let rim = match self.rim {
            Rim::LeftOut => "left out",
            Rim::Used => "used",
        };
        let base = match &self.base {
            None => "none".to_string(),
            Some(base) => base
                .source()
                .and_then(|path| path.file_name())
                .map_or("given".into(), |name| name.to_string_lossy().into_owned()),
        };
        vec![
            ("kind".into(), Text(self.kind.as_str().into())),
            ("polarity".into(), Text(self.polarity.as_str().into())),
            ("enhancement_threshold_sd".into(), Number(self.enhancement_threshold)),
            ("rim_voxels".into(), Text(rim.into())),
            ("base".into(), Text(base)),
            ("shells".into(), Number(self.shells as f64)),
            ("confidence".into(), Number(self.confidence)),
            ("noise_draws".into(), Number(self.draws as f64)),
            ("seed".into(), Number(self.seed as f64)),
        ]
    }
}
