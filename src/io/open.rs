//! `Series::open`, `Mask::open`, `VoxelMap::open`.

use std::path::Path;
use std::time::Instant;

use ndarray::{ArrayView3, ShapeBuilder};

use super::header::Header;
use super::memory;
use super::options::{ReadOptions, ReadReport};
use super::read::{self, Image, Room, Samples, Watch};
use super::times::{self, HeaderTime};
use crate::error::{Error, Result};
use crate::series::{Mask, Scaling, Series, VoxelMap};
use crate::time::SampleAxis;
use crate::voxels::Voxels;

impl Series {
    /// Opens a dynamic series: a NIfTI-1 or NIfTI-2 image (`.nii`, `.hdr` with `.img`; gzip is known by its bytes) with at
    /// least two frames. Samples stay in their stored type.
    ///
    /// A series that is larger than the memory limit ([`ReadOptions::memory_limit_bytes`]) stays in its file, or, if that is
    /// compressed, in a temporary one, and is read stretch by stretch whenever it is needed: runs give the same maps to the
    /// bit. [`ReadOptions::leave_in_file`] lets a smaller one stay, too.
    ///
    /// Times come from a BIDS sidecar beside the image (`VolumeTiming`, `FrameTimesStart`, or a `RepetitionTime` of 0.05
    /// to 120 s), else from `pixdim[4]` and its unit. What was doubtful is in [`Series::warnings`].
    ///
    /// ```no_run
    /// let series = perfuse::Series::open("dce.nii.gz")?;
    /// println!("{:?} voxels and frames, times from {}", series.shape(), series.times()?.origin());
    /// # Ok::<(), perfuse::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`] if the file can't be read, [`Error::File`] if its content can't be used, [`Error::Time`] if there is
    /// no usable time axis, [`Error::Mismatch`] if the sidecar lists another number of times.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &ReadOptions::new())
    }

    /// Opens a dynamic series with times given by the caller, with progress, or so that it can be cancelled.
    ///
    /// # Errors
    /// Those of [`Series::open`]; [`Error::Setting`] if a given spacing is not positive; [`Error::Cancelled`].
    pub fn open_with(path: impl AsRef<Path>, options: &ReadOptions) -> Result<Self> {
        Ok(Self::open_with_report(path, options)?.0)
    }

    /// Opens a dynamic series and says how long reading and inflating took.
    ///
    /// # Errors
    /// Those of [`Series::open_with`].
    pub fn open_with_report(path: impl AsRef<Path>, options: &ReadOptions) -> Result<(Self, ReadReport)> {
        let path = path.as_ref();
        let start = Instant::now();
        let image = read::read_image(path, room(options), watch(options))?;
        series(image, path, true, options, start.elapsed().as_secs_f64())
    }

    /// Opens images as samples without times, one behind the other: 3D images, or 4D ones whose header says nothing usable
    /// about time. T1 mapping reads them, in the order of its flip angles or inversion times.
    ///
    /// ```no_run
    /// let angles = perfuse::Series::open_stack(["vfa_2deg.nii.gz", "vfa_10deg.nii.gz", "vfa_20deg.nii.gz"])?;
    /// # Ok::<(), perfuse::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::File`] if a file can't be read; those of [`Series::stack`].
    pub fn open_stack<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Result<Self> {
        Self::open_stack_with(paths, &ReadOptions::new())
    }

    /// [`open_stack`](Series::open_stack) with progress (of each file anew), or so that it can be cancelled. Times in the
    /// options don't count.
    ///
    /// # Errors
    /// Those of [`Series::open_stack`]; [`Error::Cancelled`].
    pub fn open_stack_with<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>, options: &ReadOptions) -> Result<Self> {
        let parts: Result<Vec<Series>> = paths.into_iter().map(|path| image(path.as_ref(), options)).collect();
        Self::stack(&parts?)
    }

    /// Reads a dynamic series from the bytes of a `.nii` or `.nii.gz` file. `name` stands for the file in messages; no
    /// sidecar is looked for.
    ///
    /// # Errors
    /// Those of [`Series::open_with`].
    pub fn from_nifti_bytes(name: impl AsRef<Path>, bytes: &[u8], options: &ReadOptions) -> Result<Self> {
        let name = name.as_ref();
        let image = read::read_image_bytes(name, bytes, watch(options))?;
        Ok(series(image, name, false, options, 0.0)?.0)
    }
}

impl Mask {
    /// Opens a mask or label image: three axes, whole numbers from 0 on; 0 is outside.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::File`] if the file can't be read or a voxel is no label.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let image = read::read_image(path, Room::MEMORY, Watch::default())?;
        let shape = one_volume(&image.header, path)?;
        let Scaling { slope, intercept } = image.header.scaling;
        let voxels = in_memory(image.samples, path)?;
        let mut labels = Vec::with_capacity(voxels.len());
        for index in 0..voxels.len() {
            let value = slope * voxels.get_f64(index) + intercept;
            let label = value.round();
            // Slopes like 1/255 are stored rounded, so whole numbers come out almost whole. NaN fails here, too.
            let whole = (value - label).abs() <= 1e-4 && (0.0..=f64::from(u32::MAX)).contains(&label);
            if !whole {
                let voxel = [index % shape[0], index / shape[0] % shape[1], index / (shape[0] * shape[1])];
                let mend = "a mask holds whole numbers from 0 on: 0 outside, any other a region; threshold or round it";
                return Err(Error::file(path, format!("voxel {voxel:?}"), value, mend));
            }
            labels.push(label as u32);
        }
        let labels = view(&labels, shape, path)?;
        Ok(Mask::from_labels(labels).with_geometry(image.header.geometry).with_source(path))
    }
}

impl VoxelMap {
    /// Opens a map with one number per voxel: three axes, scaled as its header says.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::File`] if the file can't be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let image = read::read_image(path, Room::MEMORY, Watch::default())?;
        let shape = one_volume(&image.header, path)?;
        let Scaling { slope, intercept } = image.header.scaling;
        let values = match in_memory(image.samples, path)? {
            // Spares the copy, and keeps NaN as it is.
            Voxels::F32(values) if image.header.scaling == Scaling::NONE => values,
            voxels => (0..voxels.len()).map(|i| (slope * voxels.get_f64(i) + intercept) as f32).collect(),
        };
        let values = view(&values, shape, path)?;
        Ok(VoxelMap::from_array(values).with_geometry(image.header.geometry).with_source(path))
    }
}

/// One image, of one or several samples, without times.
fn image(path: &Path, options: &ReadOptions) -> Result<Series> {
    let Image { header, samples, mut warnings, .. } = read::read_image(path, Room::MEMORY, watch(options))?;
    let shape = frames_last(&header, path, &mut warnings)?;
    Ok(Series::from_voxels(in_memory(samples, path)?, shape, SampleAxis::Index)?
        .with_scaling(header.scaling)?
        .with_geometry(header.geometry)
        .with_source(path)
        .with_warnings(warnings))
}

/// Samples that were asked for in memory.
fn in_memory(samples: Samples, path: &Path) -> Result<Voxels> {
    match samples {
        Samples::Memory(voxels) => Ok(voxels),
        Samples::Stored(stored) => stored.load().map_err(|error| match error {
            Error::OutOfMemory { .. } => Error::file(path, "dim", "too large", "there is no memory for it"),
            other => other,
        }),
    }
}

fn room(options: &ReadOptions) -> Room<'_> {
    let limit = options.memory_limit_bytes.unwrap_or_else(memory::default_limit);
    Room { limit_bytes: Some(limit), scratch: options.scratch_folder.as_deref(), leave_cached: options.leave_in_file }
}

fn watch(options: &ReadOptions) -> Watch<'_> {
    Watch { progress: options.progress.as_deref(), cancel: options.cancel.as_deref() }
}

fn view<'a, T>(flat: &'a [T], shape: [usize; 3], path: &Path) -> Result<ArrayView3<'a, T>> {
    ArrayView3::from_shape((shape[0], shape[1], shape[2]).f(), flat)
        .map_err(|e| Error::file(path, "dim", format!("{shape:?}"), e.to_string()))
}

fn series(
    image: Image,
    path: &Path,
    sidecar: bool,
    options: &ReadOptions,
    read_inflate_seconds: f64,
) -> Result<(Series, ReadReport)> {
    let Image { header, samples, storage, mut warnings, file_bytes, compressed } = image;
    let shape = series_shape(&header, path, &mut warnings)?;
    let time = HeaderTime::new(&header, shape[3]);
    let axis = times::time_axis(options.times.as_ref(), path, sidecar, &time, &mut warnings)?;
    let report = ReadReport { read_inflate_seconds, file_bytes, data_bytes: header.data_bytes(), compressed, storage };
    let series = match samples {
        Samples::Memory(voxels) => Series::from_voxels(voxels, shape, axis),
        Samples::Stored(stored) => Series::from_stored(stored, shape, axis),
    };
    let series =
        series?.with_scaling(header.scaling)?.with_geometry(header.geometry).with_source(path).with_warnings(warnings);
    Ok((series, report))
}

/// `[x, y, z, t]` of a dynamic series.
fn series_shape(header: &Header, path: &Path, warnings: &mut Vec<String>) -> Result<[usize; 4]> {
    let shape = frames_last(header, path, warnings)?;
    if shape[3] < 2 {
        let mend = "it has one frame; a dynamic series has at least two, in one file with four axes";
        return Err(Error::file(path, "dim", format!("{:?}", header.dims), mend));
    }
    Ok(shape)
}

/// `[x, y, z, t]`, whatever axes of size 1 the header adds.
fn frames_last(header: &Header, path: &Path, warnings: &mut Vec<String>) -> Result<[usize; 4]> {
    let space = [header.size(0), header.size(1), header.size(2)];
    let further = [header.size(4), header.size(5), header.size(6)];
    let frames = match (header.size(3), further) {
        (frames, [1, 1, 1]) => frames,
        (1, [frames, 1, 1]) => {
            warnings.push(format!(
                "the frames lie along the fifth axis (dim[5] = {frames}); it is taken as time, pixdim[4] as its spacing"
            ));
            frames
        }
        _ => {
            let mend = "a series has three axes of space and one of time; split the image along the others";
            return Err(Error::file(path, "dim", format!("{:?}", header.dims), mend));
        }
    };
    Ok([space[0], space[1], space[2], frames])
}

fn one_volume(header: &Header, path: &Path) -> Result<[usize; 3]> {
    if header.dims.iter().skip(3).any(|n| *n != 1) {
        let mend = "a mask or map has one volume; take one frame of it";
        return Err(Error::file(path, "dim", format!("{:?}", header.dims), mend));
    }
    Ok([header.size(0), header.size(1), header.size(2)])
}
