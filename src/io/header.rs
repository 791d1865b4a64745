//! NIfTI-1 and NIfTI-2 headers, read into one struct and written from one struct.

use crate::geometry::Geometry;
use crate::series::Scaling;
use crate::voxels::SampleType;

mod emit;
mod parse;

pub(super) const NIFTI1_BYTES: usize = 348;
pub(super) const NIFTI2_BYTES: usize = 540;
/// The header is followed by four bytes that say whether extensions follow.
const EXTENDER_BYTES: usize = 4;

/// The sample types that are read and written, with NIfTI's code.
const SAMPLE_TYPES: [(i16, SampleType); 10] = [
    (2, SampleType::U8),
    (256, SampleType::I8),
    (512, SampleType::U16),
    (4, SampleType::I16),
    (768, SampleType::U32),
    (8, SampleType::I32),
    (1280, SampleType::U64),
    (1024, SampleType::I64),
    (16, SampleType::F32),
    (64, SampleType::F64),
];

fn sample_type(code: i16) -> Option<SampleType> {
    SAMPLE_TYPES.iter().find(|row| row.0 == code).map(|row| row.1)
}

fn code(sample: SampleType) -> i16 {
    SAMPLE_TYPES.iter().find(|row| row.1 == sample).expect("every sample type has a row").0
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

impl Version {
    pub(super) fn header_bytes(self) -> usize {
        match self {
            Version::One => NIFTI1_BYTES,
            Version::Two => NIFTI2_BYTES,
        }
    }
}

/// Where the samples lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// Behind the header (`.nii`).
    Single,
    /// In a file of their own (`.img` beside `.hdr`).
    Pair,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ByteOrder {
    Little,
    Big,
}

impl ByteOrder {
    pub(super) const NATIVE: ByteOrder = if cfg!(target_endian = "big") { ByteOrder::Big } else { ByteOrder::Little };
}

/// A valid header: every field was checked, and `samples() * bytes` fits a `usize`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Header {
    pub(super) version: Version,
    pub(super) layout: Layout,
    pub(super) order: ByteOrder,
    /// Sizes along the axes that the image has, one to seven, each at least 1.
    pub(super) dims: Vec<usize>,
    pub(super) sample: SampleType,
    /// Bytes before the first sample, in the file that holds the samples.
    pub(super) vox_offset: u64,
    pub(super) scaling: Scaling,
    /// `pixdim[4]`, in the unit of `time_unit`.
    pub(super) frame_spacing: f64,
    /// `toffset`, in the unit of `time_unit`.
    pub(super) time_offset: f64,
    /// The time part of `xyzt_units`: 8 s, 16 ms, 24 µs, 0 unknown.
    pub(super) time_unit: u8,
    pub(super) geometry: Geometry,
    pub(super) display_range: [f64; 2],
    pub(super) intent_code: i16,
    pub(super) intent_name: String,
    pub(super) description: String,
    pub(super) warnings: Vec<String>,
}

impl Header {
    /// A header for samples of this shape, to be written in this machine's byte order: NIfTI-1 unless a size needs more.
    pub(super) fn new(shape: &[usize], sample: SampleType, geometry: &Geometry) -> Self {
        let fits = shape.iter().all(|n| i16::try_from(*n).is_ok());
        let version = if fits { Version::One } else { Version::Two };
        Self {
            version,
            layout: Layout::Single,
            order: ByteOrder::NATIVE,
            dims: shape.to_vec(),
            sample,
            vox_offset: (version.header_bytes() + EXTENDER_BYTES) as u64,
            scaling: Scaling::NONE,
            frame_spacing: 0.0,
            time_offset: 0.0,
            time_unit: 0,
            geometry: geometry.clone(),
            display_range: [0.0; 2],
            intent_code: 0,
            intent_name: String::new(),
            description: String::new(),
            warnings: Vec::new(),
        }
    }

    /// Size along an axis, counted from 0; 1 for axes that the image doesn't have.
    pub(super) fn size(&self, axis: usize) -> usize {
        self.dims.get(axis).copied().unwrap_or(1)
    }

    pub(super) fn samples(&self) -> usize {
        self.dims.iter().product()
    }

    pub(super) fn data_bytes(&self) -> u64 {
        self.samples() as u64 * self.sample.bytes() as u64
    }

    /// How many bytes the header has, if these first four start one that names its own size.
    pub(super) fn announced_bytes(start: [u8; 4]) -> usize {
        let is = |size: i32| i32::from_le_bytes(start) == size || i32::from_be_bytes(start) == size;
        if is(NIFTI2_BYTES as i32) { NIFTI2_BYTES } else { NIFTI1_BYTES }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_is_written_reads_back_the_same() {
        for shape in [&[3, 4, 5][..], &[40_000, 2, 1, 7]] {
            let mut header = Header::new(shape, SampleType::U16, &Geometry::from_voxel_size_mm([2.0, 3.0, 4.5]));
            header.geometry.qfac = -1.0;
            header.geometry.qform_code = 3;
            header.geometry.quaternion = [0.5, -0.25, 0.125];
            header.geometry.offset = [-10.0, 20.5, 30.0];
            header.frame_spacing = 2.5;
            header.time_offset = 7.5;
            header.time_unit = 8;
            header.scaling = Scaling { slope: 0.5, intercept: -3.0 };
            header.display_range = [-1.0, 8.0];
            header.intent_code = 1001;
            header.intent_name = "an_id".into();
            header.description = "what it is".into();
            let bytes = header.to_bytes();
            assert_eq!(bytes.len() as u64, header.vox_offset);
            let parsed = Header::parse(&bytes, Path::new("x.nii")).expect("our own header is valid");
            assert_eq!(parsed, header);
        }
    }
}
