//! Images into bytes: header, then samples, compressed or not.

use std::borrow::Cow;
use std::io::{self, Write};

use bytemuck::Pod;
use ndarray::{ArrayView, ArrayView3, Dimension};

use super::header::Header;
use super::options::Compression;
use super::pack::GzipWriter;
use crate::error::Error;
use crate::geometry::Geometry;
use crate::series::Series;
use crate::voxels::SampleType;

/// Samples to look at for a display range: enough for a percentile, few enough to cost nothing.
const MOST_RANKED: usize = 1 << 18;

/// Runs `content` on the way through gzip or not.
pub(super) fn compressed(
    out: &mut impl Write,
    compression: Compression,
    content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    match compression {
        Compression::None => content(out),
        Compression::Gzip => {
            let mut gzip = GzipWriter::new(out)?;
            content(&mut gzip)?;
            gzip.finish()
        }
    }
}

/// The samples of an array, x fastest; a copy only where they don't lie so.
pub(super) fn flat<T: Copy, D: Dimension>(array: ArrayView<'_, T, D>) -> Cow<'_, [T]> {
    let reversed = array.reversed_axes();
    match reversed.to_slice() {
        Some(slice) => Cow::Borrowed(slice),
        None => Cow::Owned(reversed.iter().copied().collect()),
    }
}

pub(super) fn write_floats(out: &mut dyn Write, mut header: Header, samples: &[f32]) -> io::Result<()> {
    header.sample = SampleType::F32;
    header.display_range = display_range(samples);
    write_samples(out, &header, samples)
}

/// Whole numbers in the smallest of uint8, uint16 and uint32 that holds them.
pub(super) fn write_labels(out: &mut dyn Write, mut header: Header, labels: &[u32]) -> io::Result<()> {
    let largest = labels.iter().copied().max().unwrap_or(0);
    header.display_range = [0.0, largest.into()];
    if u8::try_from(largest).is_ok() {
        header.sample = SampleType::U8;
        write_samples(out, &header, &labels.iter().map(|l| *l as u8).collect::<Vec<u8>>())
    } else if u16::try_from(largest).is_ok() {
        header.sample = SampleType::U16;
        write_samples(out, &header, &labels.iter().map(|l| *l as u16).collect::<Vec<u16>>())
    } else {
        header.sample = SampleType::U32;
        write_samples(out, &header, labels)
    }
}

/// Bit masks as int32, which more programs read than uint32, as long as the highest bit is free.
pub(super) fn write_bits(out: &mut dyn Write, mut header: Header, bits: &[u32]) -> io::Result<()> {
    let largest = bits.iter().copied().max().unwrap_or(0);
    header.display_range = [0.0, largest.into()];
    header.sample = if i32::try_from(largest).is_ok() { SampleType::I32 } else { SampleType::U32 };
    write_samples(out, &header, bits)
}

/// A series in its stored type; frame by frame if it stays in a file.
pub(super) fn write_series(out: &mut dyn Write, header: &Header, series: &Series) -> io::Result<()> {
    out.write_all(&header.to_bytes())?;
    if let Ok(voxels) = series.voxels() {
        return out.write_all(voxels.as_bytes());
    }
    for frame in 0..series.frames() {
        let frames = series.for_each_window(
            frame..frame + 1,
            |_| true,
            |window| {
                let written = out.write_all(window.voxels.as_bytes());
                written.map_err(|error| Error::io("write", "the series", error))
            },
        );
        frames.map_err(io::Error::other)?;
    }
    Ok(())
}

fn write_samples<T: Pod>(out: &mut dyn Write, header: &Header, samples: &[T]) -> io::Result<()> {
    out.write_all(&header.to_bytes())?;
    out.write_all(bytemuck::cast_slice(samples))
}

/// A header for an image on this grid, described by its name, a word on what it is, and this crate's version.
pub(super) fn header(shape: &[usize], geometry: &Geometry, id: &str, what: &str) -> Header {
    let mut header = Header::new(shape, SampleType::F32, geometry);
    header.intent_name = id.into();
    let version = concat!("perfuse ", env!("CARGO_PKG_VERSION"));
    header.description =
        [id, what, version].iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join(", ");
    header
}

/// The 2nd to the 98th percentile of the finite samples: a range to look at them with, whatever outliers there are.
fn display_range(samples: &[f32]) -> [f64; 2] {
    // An odd step doesn't fall into step with the image's rows.
    let step = (samples.len() / MOST_RANKED) | 1;
    let mut finite: Vec<f32> = samples.iter().step_by(step).copied().filter(|v| v.is_finite()).collect();
    if finite.is_empty() {
        return [0.0; 2];
    }
    [0.02, 0.98].map(|fraction| {
        let rank = (fraction * (finite.len() - 1) as f64).round() as usize;
        f64::from(*finite.select_nth_unstable_by(rank, f32::total_cmp).1)
    })
}

/// The shape of an array of three axes.
pub(super) fn shape3<T>(array: &ArrayView3<'_, T>) -> [usize; 3] {
    let (x, y, z) = array.dim();
    [x, y, z]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_display_range_ignores_outliers_and_nan() {
        let mut samples: Vec<f32> = (0..=100).map(|i| i as f32).collect();
        samples.extend([f32::NAN, f32::INFINITY]);
        assert_eq!(display_range(&samples), [2.0, 98.0]);
        assert_eq!(display_range(&[f32::NAN]), [0.0; 2]);
    }
}
