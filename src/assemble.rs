//! Series put together: of images that differ in something else than time, and of the curves that a kernel gave.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::maps::Maps;
use crate::series::{Scaling, Series};
use crate::time::{FrameReference, SampleAxis, TimeAxis};
use crate::voxels::{SampleType, Voxels};

impl Series {
    /// Puts images one behind the other, as samples without times ([`SampleAxis::Index`]): for T1 mapping, one image (or
    /// more) per flip angle or inversion time, in the order of the kernel's settings.
    ///
    /// Samples stay as stored if all parts share type and scaling; otherwise they become scaled 32-bit floats, or 64-bit
    /// ones where a part has 32 bits or more.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if a part's shape or affine differs from the first one's; [`Error::Setting`] without parts.
    pub fn stack(parts: &[Series]) -> Result<Self> {
        let Some(first) = parts.first() else {
            return Err(Error::setting("stack", "empty", "give one image at least"));
        };
        let shape = first.spatial_shape();
        for part in &parts[1..] {
            if part.spatial_shape() != shape {
                let detail = format!("its shape is {:?}, the first image's is {shape:?}", part.spatial_shape());
                return Err(Error::mismatch(part.name(), first.name(), detail));
            }
            first.geometry().check_matches(part.geometry(), &part.name(), &first.name())?;
        }
        let alike =
            parts.iter().all(|part| part.scaling() == first.scaling() && part.sample_type() == first.sample_type());
        let whole: Vec<Series> = parts.iter().map(Series::in_memory).collect::<Result<_>>()?;
        let (voxels, scaling) =
            if alike { (joined(&whole)?, first.scaling()) } else { (scaled(&whole)?, Scaling::NONE) };
        let frames = parts.iter().map(Series::frames).sum();
        let mut stack = Series::from_voxels(voxels, [shape[0], shape[1], shape[2], frames], SampleAxis::Index)?
            .with_scaling(scaling)?
            .with_geometry(first.geometry().clone())
            .with_warnings(parts.iter().flat_map(|part| part.warnings().iter().cloned()).collect());
        let mut sources = parts.iter().filter_map(|part| part.source().map(PathBuf::from));
        if let Some(source) = sources.next() {
            stack = stack.with_source(source).with_further_sources(sources.collect());
        }
        Ok(stack)
    }

    /// The curves that a run gave (a concentration, a fitted curve) as a series, for the next kernel: with the run's times,
    /// geometry and source.
    ///
    /// ```
    /// use perfuse::kernels::concentration::Concentration;
    /// use perfuse::{Engine, FlipAngle, Seconds, Series, TimeAxis};
    /// let signal = Series::from_voxels(vec![100.0f32, 101.0, 130.0, 120.0], [1, 1, 1, 4], TimeAxis::uniform(2.0, 4)?)?;
    /// let kernel = Concentration::new(Seconds::from_milliseconds(4.0), FlipAngle::from_degrees(15.0), 4.5)
    ///     .t10(Seconds::from_seconds(1.2))
    ///     .baseline_frames(0..2);
    /// let maps = Engine::cpu().run(&kernel, &signal)?;
    /// let concentration = Series::from_curves(&maps, "concentration")?;
    /// assert_eq!(concentration.frames(), 4);
    /// # Ok::<(), perfuse::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownMap`] if the run has no such curves; [`Error::Mismatch`] if they don't have a sample per time.
    pub fn from_curves(maps: &Maps, id: impl AsRef<str>) -> Result<Self> {
        let curves = maps.curves(id)?;
        let (x, y, z, frames) = curves.dim();
        let record = maps.record();
        let axis = if record.times_s.is_empty() {
            SampleAxis::Index
        } else {
            let references = [FrameReference::Start, FrameReference::Centre];
            let reference = references.into_iter().find(|known| known.as_str() == record.times_reference);
            TimeAxis::from_seconds(record.times_s.clone())?
                .with_reference(reference.unwrap_or(FrameReference::Unknown))
                .with_origin(record.times_origin.clone())
                .into()
        };
        let flat: Vec<f32> = curves.reversed_axes().iter().copied().collect();
        let mut series = Series::from_voxels(flat, [x, y, z, frames], axis)?.with_geometry(maps.geometry().clone());
        if let Some(source) = &record.source {
            series = series.with_source(source).with_further_sources(record.further_sources.clone());
        }
        Ok(series)
    }
}

/// Samples of one type, one part behind the other.
fn joined(parts: &[Series]) -> Result<Voxels> {
    macro_rules! join {
        ($($variant:ident)*) => {
            match parts[0].voxels()? {
                $(Voxels::$variant(_) => {
                    let samples = parts.iter().map(|part| part.voxel_count() * part.frames()).sum();
                    let mut all = Vec::with_capacity(samples);
                    for part in parts {
                        if let Voxels::$variant(samples) = part.voxels()? {
                            all.extend_from_slice(samples);
                        }
                    }
                    Voxels::$variant(all)
                })*
            }
        };
    }
    Ok(join!(U8 I8 U16 I16 U32 I32 U64 I64 F32 F64))
}

/// Scaled samples, one part behind the other.
fn scaled(parts: &[Series]) -> Result<Voxels> {
    let mut values = Vec::with_capacity(parts.iter().map(|part| part.voxel_count() * part.frames()).sum());
    for part in parts {
        let Scaling { slope, intercept } = part.scaling();
        let voxels = part.voxels()?;
        values.extend((0..voxels.len()).map(|i| slope * voxels.get_f64(i) + intercept));
    }
    let narrow = |part: &Series| part.sample_type().bytes() <= 2 || part.sample_type() == SampleType::F32;
    Ok(if parts.iter().all(narrow) {
        Voxels::F32(values.iter().map(|value| *value as f32).collect())
    } else {
        Voxels::F64(values)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Geometry;

    fn image(samples: impl Into<Voxels>, shape: [usize; 3]) -> Series {
        Series::from_voxels(samples, [shape[0], shape[1], shape[2], 1], SampleAxis::Index).unwrap()
    }

    #[test]
    fn images_of_one_type_stay_as_stored_and_others_are_scaled() {
        let scaling = Scaling { slope: 0.5, intercept: 1.0 };
        let a = image(vec![1i16, 2], [2, 1, 1]).with_source("a.nii");
        let b = image(vec![3i16, 4], [2, 1, 1]).with_source("b.nii");
        let c = image(vec![5u8, 6], [2, 1, 1]).with_scaling(scaling).unwrap();
        let stack = Series::stack(&[a.clone(), b.clone()]).unwrap();
        assert!(matches!(stack.voxels(), Ok(Voxels::I16(v)) if *v == [1, 2, 3, 4]), "{stack:?}");
        assert_eq!((stack.shape(), stack.further_sources()), ([2, 1, 1, 2], &[PathBuf::from("b.nii")][..]));
        assert!(stack.times().unwrap_err().to_string().contains("a.nii: no usable time axis: 2 samples"));
        let stack = Series::stack(&[a.clone(), c]).unwrap();
        assert!(matches!(stack.voxels(), Ok(Voxels::F32(v)) if *v == [1.0, 2.0, 3.5, 4.0]), "{stack:?}");
        let stack = Series::stack(&[a.clone(), image(vec![1u32 << 31, 0], [2, 1, 1])]).unwrap();
        assert!(matches!(stack.voxels(), Ok(Voxels::F64(_))));

        let other = Series::stack(&[a.clone(), image(vec![1i16, 2], [1, 2, 1])]).unwrap_err().to_string();
        assert!(other.contains("[1, 2, 1]") && other.contains("[2, 1, 1]") && other.contains("a.nii"), "{other}");
        let moved = b.with_geometry(Geometry::from_voxel_size_mm([2.0, 1.0, 1.0]));
        let other = Series::stack(&[a, moved]).unwrap_err().to_string();
        assert!(other.contains("b.nii") && other.contains("affine row 0"), "{other}");
        assert!(Series::stack(&[]).is_err());
    }
}
