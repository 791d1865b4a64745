//! The series: samples in their stored type, with scaling, times and geometry; masks and maps that go with it.

mod windows;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ndarray::{Array3, ArrayView3, ArrayView4, ShapeBuilder};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::stored::Stored;
use crate::time::{SampleAxis, TimeAxis};
use crate::voxels::{Sample, SampleType, Voxels};
pub(crate) use windows::{STRETCH, Stretch};

/// `value = slope * stored + intercept`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scaling {
    /// Factor, finite and not 0.
    pub slope: f64,
    /// Offset, finite.
    pub intercept: f64,
}

impl Scaling {
    /// Stored values as they are.
    pub const NONE: Scaling = Scaling { slope: 1.0, intercept: 0.0 };

    /// A header's scaling by nibabel's rule: a slope of 0 or one that isn't finite means none; an intercept that
    /// isn't finite counts as 0.
    pub fn from_header(slope: f64, intercept: f64) -> Self {
        if slope == 0.0 || !slope.is_finite() {
            return Self::NONE;
        }
        Self { slope, intercept: if intercept.is_finite() { intercept } else { 0.0 } }
    }
}

/// Where samples are.
#[derive(Debug)]
enum Samples {
    Memory(Voxels),
    File(Stored),
}

/// A series: `[x, y, z, t]` samples in their stored type, with scaling, times and geometry. A stack of images that differ in
/// something else than time, a flip angle for one, has no times ([`SampleAxis::Index`]).
///
/// Cloning shares the samples.
#[derive(Debug, Clone)]
pub struct Series {
    samples: Arc<Samples>,
    shape: [usize; 4],
    scaling: Scaling,
    axis: SampleAxis,
    geometry: Geometry,
    source: Option<PathBuf>,
    further_sources: Vec<PathBuf>,
    warnings: Vec<String>,
}

impl Series {
    /// Takes samples that lie x fastest, then y, z and time, without copying them. The axis is a [`TimeAxis`], or
    /// [`SampleAxis::Index`] where the samples differ in something else.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the number of samples, the shape and the times don't fit.
    pub fn from_voxels(voxels: impl Into<Voxels>, shape: [usize; 4], axis: impl Into<SampleAxis>) -> Result<Self> {
        Self::from_samples(Samples::Memory(voxels.into()), shape, axis.into())
    }

    /// Takes samples that stay in a file.
    #[cfg_attr(not(feature = "nifti"), expect(dead_code, reason = "only io reads files"))]
    pub(crate) fn from_stored(stored: Stored, shape: [usize; 4], axis: impl Into<SampleAxis>) -> Result<Self> {
        Self::from_samples(Samples::File(stored), shape, axis.into())
    }

    fn from_samples(samples: Samples, shape: [usize; 4], axis: SampleAxis) -> Result<Self> {
        let found = match &samples {
            Samples::Memory(voxels) => voxels.len(),
            Samples::File(stored) => stored.samples(),
        };
        let expected = shape.iter().try_fold(1usize, |product, n| product.checked_mul(*n));
        if expected != Some(found) || found == 0 {
            return Err(Error::mismatch("samples", "shape", format!("{found} samples for a shape of {shape:?}")));
        }
        check_times(&axis, shape[3], "series")?;
        Ok(Self {
            samples: Arc::new(samples),
            shape,
            scaling: Scaling::NONE,
            axis,
            geometry: Geometry::default(),
            source: None,
            further_sources: Vec::new(),
            warnings: Vec::new(),
        })
    }

    /// Copies samples from an array of shape `[x, y, z, t]` in any memory order.
    ///
    /// ```
    /// use ndarray::Array4;
    /// use perfuse::{Series, TimeAxis};
    /// let samples = Array4::<f32>::zeros((4, 3, 2, 10));
    /// let series = Series::from_array(samples.view(), TimeAxis::uniform(2.0, 10)?)?;
    /// assert_eq!(series.shape(), [4, 3, 2, 10]);
    /// # Ok::<(), perfuse::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the array is empty or the number of times isn't the number of frames.
    pub fn from_array<T>(samples: ArrayView4<'_, T>, axis: impl Into<SampleAxis>) -> Result<Self>
    where
        T: Sample,
        Voxels: From<Vec<T>>,
    {
        let (x, y, z, t) = samples.dim();
        // Reversed axes in row-major order are the original axes with x fastest.
        let flat: Vec<T> = samples.reversed_axes().iter().copied().collect();
        Self::from_voxels(flat, [x, y, z, t], axis)
    }

    /// Says where the voxels lie in the world.
    #[must_use]
    pub fn with_geometry(mut self, geometry: Geometry) -> Self {
        self.geometry = geometry;
        self
    }

    /// Says how stored samples become values.
    ///
    /// # Errors
    /// [`Error::Setting`] if the slope is 0 or either number is not finite.
    pub fn with_scaling(mut self, scaling: Scaling) -> Result<Self> {
        if scaling.slope == 0.0 || !scaling.slope.is_finite() || !scaling.intercept.is_finite() {
            return Err(Error::setting(
                "scaling",
                format!("{scaling:?}"),
                "give a finite slope other than 0 and a finite intercept",
            ));
        }
        self.scaling = scaling;
        Ok(self)
    }

    /// Replaces the times.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the number of times isn't the number of frames.
    pub fn with_times(mut self, times: TimeAxis) -> Result<Self> {
        let axis = times.into();
        check_times(&axis, self.shape[3], &self.name())?;
        self.axis = axis;
        Ok(self)
    }

    /// Says which file the series comes from, for records and error texts.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<PathBuf>) -> Self {
        self.source = Some(source.into());
        self
    }

    pub(crate) fn with_further_sources(mut self, sources: Vec<PathBuf>) -> Self {
        self.further_sources = sources;
        self
    }

    pub(crate) fn with_warnings(mut self, warnings: Vec<String>) -> Self {
        self.warnings = warnings;
        self
    }

    /// The samples, x fastest, as stored.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if they stay in their file, as those of a large one do: see [`in_memory`](Self::in_memory).
    pub fn voxels(&self) -> Result<&Voxels> {
        match &*self.samples {
            Samples::Memory(voxels) => Ok(voxels),
            Samples::File(stored) => Err(stored.no_memory(0)),
        }
    }

    /// The samples of a series that is known to be in memory.
    pub(crate) fn resident(&self) -> &Voxels {
        self.voxels().expect("made in memory")
    }

    /// The same series with its samples in memory, read if they stayed in a file until now.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if there is no memory for them, [`Error::Io`] if the file can't be read.
    pub fn in_memory(&self) -> Result<Self> {
        match &*self.samples {
            Samples::Memory(_) => Ok(self.clone()),
            Samples::File(stored) => {
                let samples = Arc::new(Samples::Memory(stored.load()?));
                Ok(Self { samples, ..self.clone() })
            }
        }
    }

    /// Whether the samples stay in their file and are read from there whenever they are needed.
    pub fn is_in_file(&self) -> bool {
        matches!(&*self.samples, Samples::File(_))
    }

    /// The type that samples are stored in.
    pub fn sample_type(&self) -> SampleType {
        match &*self.samples {
            Samples::Memory(voxels) => voxels.sample_type(),
            Samples::File(stored) => stored.sample_type(),
        }
    }

    /// Bytes of all samples.
    pub fn sample_bytes(&self) -> u64 {
        (self.voxel_count() * self.frames()) as u64 * self.sample_type().bytes() as u64
    }

    /// Voxels along x, y, z, and frames.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// Voxels along x, y, z.
    pub fn spatial_shape(&self) -> [usize; 3] {
        [self.shape[0], self.shape[1], self.shape[2]]
    }

    /// Voxels per frame.
    pub fn voxel_count(&self) -> usize {
        self.shape[0] * self.shape[1] * self.shape[2]
    }

    /// Number of frames.
    pub fn frames(&self) -> usize {
        self.shape[3]
    }

    /// How stored samples become values.
    pub fn scaling(&self) -> Scaling {
        self.scaling
    }

    /// What distinguishes the samples of a voxel: times, or their order only.
    pub fn axis(&self) -> &SampleAxis {
        &self.axis
    }

    /// The times of the frames.
    ///
    /// # Errors
    /// [`Error::Time`] if the samples are no time series ([`SampleAxis::Index`]).
    pub fn times(&self) -> Result<&TimeAxis> {
        match &self.axis {
            SampleAxis::Time(times) => Ok(times),
            SampleAxis::Index => Err(Error::Time {
                what: self.name(),
                found: format!("{} samples that were put together without times", self.frames()),
                mend: "give a dynamic series with the time of every frame (Series::with_times adds them)".into(),
            }),
        }
    }

    /// Where the voxels lie.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The file that the series comes from, if any; the first one of a stack.
    pub fn source(&self) -> Option<&Path> {
        self.source.as_deref()
    }

    /// The files of a stack, the first one left out.
    pub fn further_sources(&self) -> &[PathBuf] {
        &self.further_sources
    }

    /// What was doubtful when the series was read (an unknown time unit, say).
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// What to call the series in a message.
    pub fn name(&self) -> String {
        match &self.source {
            Some(path) => path.display().to_string(),
            None => "the series".into(),
        }
    }

    /// The scaled curve of one voxel, in f64.
    ///
    /// # Errors
    /// [`Error::Setting`] if the voxel lies outside the series.
    pub fn curve(&self, voxel: [usize; 3]) -> Result<Vec<f64>> {
        if (0..3).any(|axis| voxel[axis] >= self.shape[axis]) {
            return Err(Error::setting(
                "voxel",
                format!("{voxel:?}"),
                format!("the series has {:?} voxels, counted from 0", self.spatial_shape()),
            ));
        }
        let index = voxel[0] + self.shape[0] * (voxel[1] + self.shape[1] * voxel[2]);
        self.curve_at(index)
    }

    /// The scaled curve of the voxel with this flat index, in f64.
    pub(crate) fn curve_at(&self, index: usize) -> Result<Vec<f64>> {
        let Scaling { slope, intercept } = self.scaling;
        self.with_voxel(index, |window| {
            (0..self.frames()).map(|frame| slope * window.get_f64(index, frame) + intercept).collect()
        })
    }

    /// The mean of some frames, scaled: `[x, y, z]`.
    ///
    /// # Errors
    /// [`Error::Setting`] if there is no frame or one that the series doesn't have; [`Error::Io`] if samples stay in a file
    /// that can't be read.
    pub fn mean_of_frames(&self, frames: &[usize]) -> Result<Array3<f32>> {
        if frames.is_empty() || frames.iter().any(|frame| *frame >= self.frames()) {
            let mend = format!("the series has {} frames, counted from 0", self.frames());
            return Err(Error::setting("frames", format!("{frames:?}"), mend));
        }
        let mut sums = vec![0.0f64; self.voxel_count()];
        for frame in frames {
            self.for_each_window(
                *frame..frame + 1,
                |_| true,
                |window| {
                    let start = window.range.start;
                    sums[window.range.clone()].par_iter_mut().enumerate().for_each(|(i, sum)| {
                        *sum += window.get_f64(start + i, *frame);
                    });
                    Ok(())
                },
            )?;
        }
        let Scaling { slope, intercept } = self.scaling;
        let mean = |sum: &f64| (slope * sum / frames.len() as f64 + intercept) as f32;
        let [x, y, z] = self.spatial_shape();
        let flat: Vec<f32> = sums.par_iter().map(mean).collect();
        Ok(Array3::from_shape_vec((x, y, z).f(), flat).expect("as many values as voxels"))
    }
}

fn check_times(axis: &SampleAxis, frames: usize, series: &str) -> Result<()> {
    match axis {
        SampleAxis::Time(times) if times.len() != frames => {
            Err(Error::mismatch("times", series, format!("{} times for {frames} frames", times.len())))
        }
        _ => Ok(()),
    }
}

/// Which voxels to look at: 0 is outside, any other number a region.
#[derive(Debug, Clone)]
pub struct Mask {
    labels: Array3<u32>,
    geometry: Option<Geometry>,
    source: Option<PathBuf>,
}

impl Mask {
    /// Takes labels of shape `[x, y, z]`; 0 is outside.
    pub fn from_labels(labels: ArrayView3<'_, u32>) -> Self {
        let (x, y, z) = labels.dim();
        let flat: Vec<u32> = labels.reversed_axes().iter().copied().collect();
        let labels = Array3::from_shape_vec((x, y, z).f(), flat).expect("as many labels as the shape says");
        Self { labels, geometry: None, source: None }
    }

    /// Says where the mask's voxels lie, so that a run can check that they are the series' own.
    #[must_use]
    pub fn with_geometry(mut self, geometry: Geometry) -> Self {
        self.geometry = Some(geometry);
        self
    }

    /// Says which file the mask comes from.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<PathBuf>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Labels of shape `[x, y, z]`.
    pub fn labels(&self) -> ArrayView3<'_, u32> {
        self.labels.view()
    }

    /// Labels in memory order, x fastest.
    pub(crate) fn flat(&self) -> &[u32] {
        self.labels.as_slice_memory_order().expect("labels are contiguous")
    }

    /// Where the mask's voxels lie, if known.
    pub fn geometry(&self) -> Option<&Geometry> {
        self.geometry.as_ref()
    }

    /// The regions that occur, in increasing order, without 0.
    pub fn regions(&self) -> Vec<u32> {
        let mut regions: Vec<u32> = self.labels.iter().copied().filter(|l| *l != 0).collect();
        regions.sort_unstable();
        regions.dedup();
        regions
    }

    /// Number of voxels inside.
    pub fn voxel_count(&self) -> usize {
        self.labels.iter().filter(|l| **l != 0).count()
    }

    /// The file that the mask comes from, if any.
    pub fn source(&self) -> Option<&Path> {
        self.source.as_deref()
    }

    /// Checks that the mask lies on the series' grid and isn't empty.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if shape or affine differ, or no voxel is inside.
    pub fn check_matches(&self, series: &Series) -> Result<()> {
        let name = self.source.as_ref().map_or_else(|| "the mask".to_string(), |p| p.display().to_string());
        check_grid(&name, self.labels.dim(), self.geometry.as_ref(), series)?;
        if self.voxel_count() == 0 {
            return Err(Error::mismatch(name, series.name(), "no voxel of the mask is inside (all are 0)"));
        }
        Ok(())
    }
}

/// One number per voxel that goes with a series: a noise map, a T1 map.
#[derive(Debug, Clone)]
pub struct VoxelMap {
    values: Array3<f32>,
    geometry: Option<Geometry>,
    source: Option<PathBuf>,
}

impl VoxelMap {
    /// Takes values of shape `[x, y, z]`.
    pub fn from_array(values: ArrayView3<'_, f32>) -> Self {
        let (x, y, z) = values.dim();
        let flat: Vec<f32> = values.reversed_axes().iter().copied().collect();
        let values = Array3::from_shape_vec((x, y, z).f(), flat).expect("as many values as the shape says");
        Self { values, geometry: None, source: None }
    }

    /// Says where the map's voxels lie, so that a run can check that they are the series' own.
    #[must_use]
    pub fn with_geometry(mut self, geometry: Geometry) -> Self {
        self.geometry = Some(geometry);
        self
    }

    /// Says which file the map comes from.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<PathBuf>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Where the map's voxels lie, if known.
    pub fn geometry(&self) -> Option<&Geometry> {
        self.geometry.as_ref()
    }

    /// The file that the map comes from, if any.
    pub fn source(&self) -> Option<&Path> {
        self.source.as_deref()
    }

    /// Values of shape `[x, y, z]`.
    pub fn values(&self) -> ArrayView3<'_, f32> {
        self.values.view()
    }

    /// Values in memory order, x fastest.
    pub(crate) fn flat(&self) -> &[f32] {
        self.values.as_slice_memory_order().expect("values are contiguous")
    }

    /// Checks that the map lies on the series' grid.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if shape or affine differ.
    pub fn check_matches(&self, series: &Series) -> Result<()> {
        let name = self.source.as_ref().map_or_else(|| "the map".to_string(), |p| p.display().to_string());
        check_grid(&name, self.values.dim(), self.geometry.as_ref(), series)
    }
}

fn check_grid(name: &str, dim: (usize, usize, usize), geometry: Option<&Geometry>, series: &Series) -> Result<()> {
    let shape = [dim.0, dim.1, dim.2];
    if shape != series.spatial_shape() {
        return Err(Error::mismatch(
            name,
            series.name(),
            format!(
                "its shape is {shape:?}, the series' is {:?}; resample it onto the series' grid",
                series.spatial_shape()
            ),
        ));
    }
    match geometry {
        Some(geometry) => series.geometry().check_matches(geometry, name, &series.name()),
        None => Ok(()),
    }
}
