//! The cine of a series: settings. `film.rs` draws the frames, `output.rs` writes them, `palette.rs` has the GIF's colours.

mod film;
mod output;
mod palette;
mod timing;

use std::fmt;
use std::ops::Range as FrameRange;
use std::sync::Arc;

use ndarray::ArrayView3;

use super::colormap::Colormap;
use super::montage::Range;
use super::planes::{Choice, Plane, View};
use crate::engine::Cancel;
use crate::error::{Error, Result};
use crate::kernels::descriptors::Polarity;
use crate::series::{Mask, Series};

pub use film::Film;

/// What stands in grey beneath the enhancement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Anatomy {
    /// The frame itself: motion and artefacts stay visible.
    #[default]
    Frame,
    /// The mean of the baseline frames: still, and a smaller file.
    Baseline,
}

/// When the lines of equal filling time are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Isochrones {
    /// Each from its own time on: the lines appear as the front passes.
    #[default]
    AsTheyPass,
    /// All in every frame.
    Always,
}

pub(super) type FrameProgress = dyn Fn(usize, usize) + Send + Sync;

/// A cine of a series: three planes through a lesion, the enhancement over the baseline in colour on the grey image, the
/// lesion outlined, the time, and lines of equal filling time if a map of it is given.
///
/// What is seen:
///
/// - **Planes** at one scale in mm, through the lesion's centre of mass unless told; axial and coronal with the patient's
///   right on the left, sagittal with the front on the left, as far as the header says how the patient lies (letters stand
///   at the edges where a voxel axis runs along an axis of the patient within 30 degrees). Voxels are sharp squares.
/// - **Grey**: the frame itself, from the 1st to the 99.5th percentile of what is shown in up to nine frames, unless told.
/// - **Colour**: enhancement `e`, the sample minus the mean of the voxel's baseline frames (its negative where contrast
///   agent lowers the signal), in the series' unit. Voxels are coloured where `e` is above a threshold, three standard
///   deviations of the noise unless told, and stay grey elsewhere. The range runs from 0 to the 98th percentile of `e` over
///   the lesion's voxels and all frames after the baseline, unless told.
/// - **Time** on the series' own clock, in seconds, or as m:ss in series of two minutes and more; below the planes the mean
///   enhancement of the lesion, with the present frame as a dot.
/// - **Playback**: every frame is shown for as long as it lasted, at a constant speed. Frames are never interpolated: uneven
///   times give uneven delays. The last frame stays a second longer, then the cine begins anew.
///
/// ```
/// use perfuse::phantom::Phantom;
/// use perfuse::render::Cine;
/// let phantom = Phantom::brain_with_lesion().shape([24, 24, 6]).frames(12, 20.0).build()?;
/// let film = Cine::new(&phantom.series, &phantom.lesion, 0..2).title("A lesion").width(480).film()?;
/// assert_eq!(film.len(), 12);
/// assert!(film.gif()?.starts_with(b"GIF89a"));
/// # Ok::<(), perfuse::Error>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct Cine<'a> {
    series: Series,
    lesion: &'a Mask,
    baseline: FrameRange<usize>,
    polarity: Polarity,
    unit: String,
    title: String,
    choice: Choice,
    anatomy: Anatomy,
    grey: Range,
    enhancement: Option<Range>,
    threshold: Option<f64>,
    opacity: f64,
    colormap: Colormap,
    filling_time: Option<ArrayView3<'a, f32>>,
    levels: Option<Vec<f64>>,
    isochrones: Isochrones,
    smoothing: f64,
    mark: Option<[usize; 3]>,
    width: u32,
    frames_per_second: f64,
    progress: Option<Arc<FrameProgress>>,
    cancel: Cancel,
}

impl fmt::Debug for Cine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cine")
            .field("series", &self.series.name())
            .field("baseline", &self.baseline)
            .field("choice", &self.choice)
            .field("width", &self.width)
            .field("frames_per_second", &self.frames_per_second)
            .finish_non_exhaustive()
    }
}

impl<'a> Cine<'a> {
    /// A cine of the series around a lesion (the mask's inside); the baseline frames are counted from 0, the end excluded.
    pub fn new(series: &Series, lesion: &'a Mask, baseline_frames: FrameRange<usize>) -> Self {
        Self {
            series: series.clone(),
            lesion,
            baseline: baseline_frames,
            polarity: Polarity::Rise,
            unit: "a.u.".into(),
            title: String::new(),
            choice: Choice::default(),
            anatomy: Anatomy::default(),
            grey: Range::Percentiles(1.0, 99.5),
            enhancement: None,
            threshold: None,
            opacity: 1.0,
            colormap: Colormap::Inferno,
            filling_time: None,
            levels: None,
            isochrones: Isochrones::default(),
            smoothing: 1.0,
            mark: None,
            width: 960,
            frames_per_second: 8.0,
            progress: None,
            cancel: Cancel::new(),
        }
    }

    /// Other baseline frames, counted from 0, the end excluded.
    pub fn baseline_frames(mut self, frames: FrameRange<usize>) -> Self {
        self.baseline = frames;
        self
    }

    /// Which way contrast agent moves the samples (up unless told).
    pub fn polarity(mut self, polarity: Polarity) -> Self {
        self.polarity = polarity;
        self
    }

    /// The unit of the samples (`a.u.` unless told).
    pub fn unit(mut self, unit: impl Into<String>) -> Self {
        self.unit = unit.into();
        self
    }

    /// What stands above the planes.
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.title = title.into();
        self
    }

    /// Which planes, in this order (all three unless told).
    pub fn planes(mut self, planes: &[Plane]) -> Self {
        self.choice.planes = planes.to_vec();
        self
    }

    /// The voxel that the planes go through (that nearest to the lesion's centre of mass unless told; the
    /// first plane goes through the mark, if there is one).
    pub fn centre(mut self, voxel: [usize; 3]) -> Self {
        self.choice.centre = Some(voxel);
        self
    }

    /// How much is shown (the lesion and half of its longest side around it, 20 mm at least, unless told).
    pub fn view(mut self, view: View) -> Self {
        self.choice.view = Some(view);
        self
    }

    /// What stands in grey beneath the colours (the frame itself unless told).
    pub fn anatomy(mut self, anatomy: Anatomy) -> Self {
        self.anatomy = anatomy;
        self
    }

    /// The window of the grey image: percentiles of what is shown, or values in the samples' unit.
    pub fn window(mut self, window: Range) -> Self {
        self.grey = window;
        self
    }

    /// The range of the enhancement's colours: percentiles over the lesion's voxels in all frames after the baseline, or
    /// values in the samples' unit.
    pub fn enhancement_range(mut self, range: Range) -> Self {
        self.enhancement = Some(range);
        self
    }

    /// Above which enhancement voxels are coloured, in the samples' unit. Unless told: three times the standard deviation
    /// of the noise (the median over the lesion of the baseline's standard deviation), or a tenth of the range where the
    /// baseline has fewer than three frames.
    pub fn threshold(mut self, enhancement: f64) -> Self {
        self.threshold = Some(enhancement);
        self
    }

    /// How much of the grey image the colours hide: 1, all of it, unless told. Less than that, they are no longer those of
    /// the colour bar.
    pub fn opacity(mut self, opacity: f64) -> Self {
        self.opacity = opacity;
        self
    }

    /// The colours of the enhancement.
    pub fn colormap(mut self, colormap: Colormap) -> Self {
        self.colormap = colormap;
        self
    }

    /// A map of filling times `[x, y, z]` in seconds on the series' clock, of which lines are drawn inside the lesion.
    pub fn filling_time(mut self, seconds: ArrayView3<'a, f32>) -> Self {
        self.filling_time = Some(seconds);
        self
    }

    /// The times of the lines in seconds, at most eight (round numbers within the map's range unless told).
    pub fn isochrone_levels(mut self, seconds: &[f64]) -> Self {
        self.levels = Some(seconds.to_vec());
        self
    }

    /// When the lines are drawn (each from its own time on unless told).
    pub fn isochrones(mut self, isochrones: Isochrones) -> Self {
        self.isochrones = isochrones;
        self
    }

    /// The standard deviation in voxels of the Gaussian that smooths the map before the lines are drawn (1 unless told; 0
    /// for none). Only the lines depend on it.
    pub fn isochrone_smoothing(mut self, voxels: f64) -> Self {
        self.smoothing = voxels;
        self
    }

    /// Marks a voxel by a cross wherever a plane goes through it: the origin of the enhancement. The first plane does, unless a
    /// centre is given.
    pub fn mark(mut self, voxel: [usize; 3]) -> Self {
        self.mark = Some(voxel);
        self.choice.mark = self.mark;
        self
    }

    /// Width of the pictures in pixels: 480 to 2400 (960 unless told). The height follows.
    pub fn width(mut self, pixels: u32) -> Self {
        self.width = pixels;
        self
    }

    /// Frames per second of playback: the speed at which the series' median frame spacing takes that part of a second; 0.1
    /// to 50 (8 unless told).
    pub fn frames_per_second(mut self, frames: f64) -> Self {
        self.frames_per_second = frames;
        self
    }

    /// Told how many frames are drawn, and of how many.
    pub fn progress(mut self, progress: impl Fn(usize, usize) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(progress));
        self
    }

    /// Stops the drawing from another thread.
    pub fn cancel(mut self, cancel: Cancel) -> Self {
        self.cancel = cancel;
        self
    }

    /// Decides everything that the frames share. A series that stays in its file is read into memory.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the mask or the map of filling times doesn't lie on the series' grid or no voxel is inside;
    /// [`Error::Setting`] for a setting out of its range; those of [`Series::in_memory`].
    pub fn film(&self) -> Result<Film> {
        self.check()?;
        Film::new(&Self { series: self.series.in_memory()?, ..self.clone() })
    }

    fn check(&self) -> Result<()> {
        let frames = self.series.frames();
        self.lesion.check_matches(&self.series)?;
        if self.baseline.start >= self.baseline.end || self.baseline.end > frames {
            let found = format!("{}:{}", self.baseline.start, self.baseline.end);
            let mend = format!("give a range of frames, counted from 0, within the {frames} frames of the series");
            return Err(Error::setting("baseline frames", found, mend));
        }
        if let Some((x, y, z)) = self.filling_time.map(|map| map.dim())
            && [x, y, z] != self.series.spatial_shape()
        {
            let shapes = format!("shapes {:?} and {:?}", [x, y, z], self.series.spatial_shape());
            return Err(Error::mismatch("the map of filling times", self.series.name(), shapes));
        }
        if let Some(voxel) = self.mark
            && (0..3).any(|axis| voxel[axis] >= self.series.spatial_shape()[axis])
        {
            let mend = format!("the series has {:?} voxels, counted from 0", self.series.spatial_shape());
            return Err(Error::setting("mark", format!("{voxel:?}"), mend));
        }
        let within = |name: &str, value: f64, low: f64, high: f64| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err(Error::setting(name, value, format!("give a number from {low} to {high}")))
        };
        within("width", f64::from(self.width), 480.0, 2400.0)?;
        within("frames per second", self.frames_per_second, 0.1, 50.0)?;
        within("opacity", self.opacity, 0.0, 1.0)?;
        within("isochrone smoothing", self.smoothing, 0.0, 10.0)?;
        if let Some(threshold) = self.threshold.filter(|t| !t.is_finite()) {
            return Err(Error::setting("enhancement threshold", threshold, "give a finite number"));
        }
        if let Some(levels) = &self.levels
            && (levels.len() > MOST_LEVELS || levels.iter().any(|level| !level.is_finite()))
        {
            let mend = format!("give at most {MOST_LEVELS} finite times in seconds");
            return Err(Error::setting("isochrone levels", format!("{levels:?}"), mend));
        }
        Ok(())
    }
}

/// Lines that a legend can hold and an eye tell apart.
const MOST_LEVELS: usize = 8;
