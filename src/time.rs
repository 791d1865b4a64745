//! The time axis of a series, in seconds.

use crate::error::{Error, Result};

/// What the time of a frame refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum FrameReference {
    /// The time is the start of the frame's acquisition.
    Start,
    /// The time is the middle of the frame's acquisition.
    Centre,
    /// Nothing says which; all maps are differences of times, so a constant shift does no harm.
    #[default]
    Unknown,
}

impl FrameReference {
    /// The word for it in records.
    pub fn as_str(self) -> &'static str {
        match self {
            FrameReference::Start => "frame start",
            FrameReference::Centre => "frame centre",
            FrameReference::Unknown => "unknown",
        }
    }
}

/// What distinguishes the samples of a voxel.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum SampleAxis {
    /// The time of every frame: a dynamic series.
    Time(TimeAxis),
    /// Only their order: images taken with different settings, such as flip angles or inversion times, which the kernel
    /// that reads them is told.
    Index,
}

impl From<TimeAxis> for SampleAxis {
    fn from(times: TimeAxis) -> Self {
        SampleAxis::Time(times)
    }
}

/// Times of the frames in seconds: finite, strictly increasing, evenly spaced or not, the first one not necessarily 0.
///
/// ```
/// use perfuse::TimeAxis;
/// let uneven = TimeAxis::from_seconds(vec![5.0, 6.0, 7.5, 12.0])?;
/// assert_eq!(uneven.len(), 4);
/// assert!(!uneven.is_even());
/// assert!(TimeAxis::from_seconds(vec![0.0, 2.0, 1.0]).is_err());
/// # Ok::<(), perfuse::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct TimeAxis {
    seconds: Vec<f64>,
    reference: FrameReference,
    origin: String,
}

impl TimeAxis {
    /// Takes the time of every frame, in seconds.
    ///
    /// # Errors
    /// [`Error::Time`] if there are fewer than two times, or one is not finite, or they don't increase.
    pub fn from_seconds(seconds: Vec<f64>) -> Result<Self> {
        let refuse = |found: String| Error::Time {
            what: "times".into(),
            found,
            mend: "give at least two finite times in seconds, each later than the one before".into(),
        };
        if seconds.len() < 2 {
            return Err(refuse(format!("{} time(s)", seconds.len())));
        }
        if let Some(i) = seconds.iter().position(|t| !t.is_finite()) {
            return Err(refuse(format!("time {i} is {}", seconds[i])));
        }
        if let Some(i) = seconds.windows(2).position(|w| w[1] <= w[0]) {
            return Err(refuse(format!("time {} is {} s after time {i} at {} s", i + 1, seconds[i + 1], seconds[i])));
        }
        // Shaders keep times as 32-bit floats relative to the first one: two frames must stay apart there.
        let t0 = seconds[0];
        if let Some(i) = seconds.windows(2).position(|w| (w[1] - t0) as f32 <= (w[0] - t0) as f32) {
            return Err(refuse(format!(
                "frames {i} and {} at {} s and {} s can't be told apart in 32-bit floats",
                i + 1,
                seconds[i],
                seconds[i + 1]
            )));
        }
        Ok(Self { seconds, reference: FrameReference::Unknown, origin: "given by the caller".into() })
    }

    /// `frames` frames, `spacing_s` seconds apart, the first at 0 s.
    ///
    /// # Errors
    /// [`Error::Time`] if the spacing is not positive and finite or there are fewer than two frames.
    pub fn uniform(spacing_s: f64, frames: usize) -> Result<Self> {
        if !(spacing_s.is_finite() && spacing_s > 0.0) {
            return Err(Error::Time {
                what: "times".into(),
                found: format!("a frame spacing of {spacing_s} s"),
                mend: "give a positive frame spacing in seconds".into(),
            });
        }
        Self::from_seconds((0..frames).map(|i| i as f64 * spacing_s).collect())
    }

    /// Says what the times refer to.
    #[must_use]
    pub fn with_reference(mut self, reference: FrameReference) -> Self {
        self.reference = reference;
        self
    }

    /// Says in words where the times come from, for records.
    #[must_use]
    pub fn with_origin(mut self, origin: impl Into<String>) -> Self {
        self.origin = origin.into();
        self
    }

    /// The times in seconds, on the series' own clock.
    pub fn seconds(&self) -> &[f64] {
        &self.seconds
    }

    /// Number of frames.
    #[expect(clippy::len_without_is_empty, reason = "a time axis has at least two frames")]
    pub fn len(&self) -> usize {
        self.seconds.len()
    }

    /// Time of the first frame in seconds.
    pub fn first_s(&self) -> f64 {
        self.seconds[0]
    }

    /// Time of the last frame in seconds.
    pub fn last_s(&self) -> f64 {
        self.seconds[self.seconds.len() - 1]
    }

    /// Seconds from the first to the last frame.
    pub fn duration_s(&self) -> f64 {
        self.last_s() - self.first_s()
    }

    /// The median distance between frames in seconds.
    pub fn median_spacing_s(&self) -> f64 {
        let mut steps: Vec<f64> = self.seconds.windows(2).map(|w| w[1] - w[0]).collect();
        steps.sort_by(f64::total_cmp);
        steps[steps.len() / 2]
    }

    /// Whether all frames are equally far apart, to one part in a million of the spacing.
    pub fn is_even(&self) -> bool {
        let mean = self.duration_s() / (self.len() - 1) as f64;
        self.seconds.iter().enumerate().all(|(i, t)| (t - self.first_s() - i as f64 * mean).abs() <= 1e-6 * mean)
    }

    /// What the times refer to.
    pub fn reference(&self) -> FrameReference {
        self.reference
    }

    /// Where the times come from, in words.
    pub fn origin(&self) -> &str {
        &self.origin
    }
}
