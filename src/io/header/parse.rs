//! Bytes to a header, every field checked.

use std::path::Path;

use super::{ByteOrder, EXTENDER_BYTES, Header, Layout, NIFTI1_BYTES, NIFTI2_BYTES, Version, sample_type};
use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::series::Scaling;

impl Header {
    /// Reads and checks a header of 348 or 540 bytes.
    pub(in crate::io) fn parse(bytes: &[u8], path: &Path) -> Result<Self> {
        if bytes.len() < NIFTI1_BYTES {
            return Err(Error::file(
                path,
                "header",
                format!("{} bytes long", bytes.len()),
                "a NIfTI header has 348 (NIfTI-2: 540) bytes: the file is truncated or not NIfTI",
            ));
        }
        let start = [bytes[0], bytes[1], bytes[2], bytes[3]];
        if Self::announced_bytes(start) == NIFTI2_BYTES {
            return parse_nifti2(bytes, path);
        }
        parse_nifti1(bytes, path)
    }
}

/// Fields by their offset, in the header's byte order. The caller made sure that the header is long enough.
struct Fields<'a> {
    bytes: &'a [u8],
    order: ByteOrder,
}

impl Fields<'_> {
    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut field = [0; N];
        field.copy_from_slice(&self.bytes[at..at + N]);
        if self.order == ByteOrder::Big {
            field.reverse();
        }
        field
    }

    fn i16(&self, at: usize) -> i16 {
        i16::from_le_bytes(self.array(at))
    }

    fn i32(&self, at: usize) -> i32 {
        i32::from_le_bytes(self.array(at))
    }

    fn i64(&self, at: usize) -> i64 {
        i64::from_le_bytes(self.array(at))
    }

    fn f32(&self, at: usize) -> f64 {
        f32::from_le_bytes(self.array(at)).into()
    }

    fn f64(&self, at: usize) -> f64 {
        f64::from_le_bytes(self.array(at))
    }

    fn text(&self, at: usize, field: usize) -> String {
        let bytes = &self.bytes[at..at + field];
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(field);
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    }
}

/// The fields of either version, not yet checked.
struct Raw {
    version: Version,
    layout: Layout,
    dim: [i64; 8],
    datatype: i16,
    bitpix: i16,
    pixdim: [f64; 8],
    vox_offset: f64,
    slope: f64,
    intercept: f64,
    units: i32,
    time_offset: f64,
    qform_code: i32,
    sform_code: i32,
    /// Quaternion, offset and the affine's rows: 18 numbers in the header's order.
    place: [f64; 18],
    display_range: [f64; 2],
    intent_code: i32,
    intent_name: String,
    description: String,
}

fn parse_nifti1(bytes: &[u8], path: &Path) -> Result<Header> {
    let mut warnings = Vec::new();
    let size = [bytes[0], bytes[1], bytes[2], bytes[3]];
    let layout = match &bytes[344..348] {
        b"n+1\0" => Some(Layout::Single),
        b"ni1\0" => Some(Layout::Pair),
        _ => None,
    };
    let known = if i32::from_le_bytes(size) == NIFTI1_BYTES as i32 {
        Some(ByteOrder::Little)
    } else if i32::from_be_bytes(size) == NIFTI1_BYTES as i32 {
        Some(ByteOrder::Big)
    } else {
        None
    };
    let (layout, order) = match (layout, known) {
        (Some(layout), Some(order)) => (layout, order),
        (None, Some(_)) => {
            return Err(Error::file(
                path,
                "magic",
                format!("\"{}\", not \"n+1\" or \"ni1\"", bytes[344..348].escape_ascii()),
                "the header looks like ANALYZE 7.5, which doesn't tell left from right; convert it to NIfTI with the program that wrote it, or with one that lets you state the orientation",
            ));
        }
        // The magic is right, so this is NIfTI-1 by someone who got one field wrong: the number of axes tells the order.
        (Some(layout), None) => {
            let order = if (1..=7).contains(&i16::from_le_bytes([bytes[40], bytes[41]])) {
                ByteOrder::Little
            } else {
                ByteOrder::Big
            };
            let fields = Fields { bytes, order };
            warnings.push(format!("sizeof_hdr is {}, not 348; the other fields are used as they are", fields.i32(0)));
            (layout, order)
        }
        (None, None) => {
            return Err(Error::file(
                path,
                "magic",
                format!("\"{}\"", bytes[344..348].escape_ascii()),
                "this is not a NIfTI image (.nii, .nii.gz, .hdr with .img); convert it first, DICOM with dcm2niix for one",
            ));
        }
    };
    let fields = Fields { bytes, order };
    let raw = Raw {
        version: Version::One,
        layout,
        dim: std::array::from_fn(|i| fields.i16(40 + 2 * i).into()),
        datatype: fields.i16(70),
        bitpix: fields.i16(72),
        pixdim: std::array::from_fn(|i| fields.f32(76 + 4 * i)),
        vox_offset: fields.f32(108),
        slope: fields.f32(112),
        intercept: fields.f32(116),
        units: bytes[123].into(),
        time_offset: fields.f32(136),
        qform_code: fields.i16(252).into(),
        sform_code: fields.i16(254).into(),
        place: std::array::from_fn(|i| fields.f32(256 + 4 * i)),
        display_range: [fields.f32(128), fields.f32(124)],
        intent_code: fields.i16(68).into(),
        intent_name: fields.text(328, 16),
        description: fields.text(148, 80),
    };
    raw.check(order, warnings, path)
}

fn parse_nifti2(bytes: &[u8], path: &Path) -> Result<Header> {
    if bytes.len() < NIFTI2_BYTES {
        return Err(Error::file(
            path,
            "header",
            format!("{} bytes long", bytes.len()),
            "a NIfTI-2 header has 540 bytes: the file is truncated",
        ));
    }
    let order = if i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) == NIFTI2_BYTES as i32 {
        ByteOrder::Little
    } else {
        ByteOrder::Big
    };
    let layout = match &bytes[4..12] {
        b"n+2\0\r\n\x1a\n" => Layout::Single,
        b"ni2\0\r\n\x1a\n" => Layout::Pair,
        other => {
            return Err(Error::file(
                path,
                "magic",
                format!("\"{}\"", other.escape_ascii()),
                "a NIfTI-2 header says \"n+2\" or \"ni2\" followed by 00 0D 0A 1A 0A; if only the last bytes differ, the file was copied as text: copy it as binary",
            ));
        }
    };
    let fields = Fields { bytes, order };
    let raw = Raw {
        version: Version::Two,
        layout,
        dim: std::array::from_fn(|i| fields.i64(16 + 8 * i)),
        datatype: fields.i16(12),
        bitpix: fields.i16(14),
        pixdim: std::array::from_fn(|i| fields.f64(104 + 8 * i)),
        // Exact up to 2^53, far beyond any file.
        vox_offset: fields.i64(168) as f64,
        slope: fields.f64(176),
        intercept: fields.f64(184),
        units: fields.i32(500),
        time_offset: fields.f64(216),
        qform_code: fields.i32(344),
        sform_code: fields.i32(348),
        place: std::array::from_fn(|i| fields.f64(352 + 8 * i)),
        display_range: [fields.f64(200), fields.f64(192)],
        intent_code: fields.i32(504),
        intent_name: fields.text(508, 16),
        description: fields.text(240, 80),
    };
    raw.check(order, Vec::new(), path)
}

impl Raw {
    fn check(self, order: ByteOrder, mut warnings: Vec<String>, path: &Path) -> Result<Header> {
        let dims = self.dims(path)?;
        let Some(sample) = sample_type(self.datatype) else {
            return Err(Error::file(
                path,
                "datatype",
                format!("{} ({})", self.datatype, refused_type(self.datatype)),
                "uint8, int8, uint16, int16, uint32, int32, uint64, int64, float32 and float64 are read; convert the image to one of them",
            ));
        };
        if i64::from(self.bitpix) != 8 * sample.bytes() as i64 {
            return Err(Error::file(
                path,
                "bitpix",
                self.bitpix,
                format!(
                    "datatype {} has {} bits per sample; the header contradicts itself, write the image again",
                    self.datatype,
                    8 * sample.bytes()
                ),
            ));
        }
        let bytes = dims.iter().try_fold(sample.bytes(), |product, n| product.checked_mul(*n));
        // Vec can't hold more than isize::MAX bytes.
        if bytes.and_then(|n| isize::try_from(n).ok()).is_none() {
            return Err(Error::file(
                path,
                "dim",
                format!("{dims:?}"),
                format!(
                    "so many samples of {} bytes don't fit any memory; the header is damaged or hostile",
                    sample.bytes()
                ),
            ));
        }
        let vox_offset = self.offset(path)?;
        let code = |field: &str, value: i32| {
            i16::try_from(value)
                .map_err(|_| Error::file(path, field, value, "codes from 0 to 4 are known; the header is damaged"))
        };
        let mut place = [[0.0; 3]; 2];
        place[0].copy_from_slice(&self.place[0..3]);
        place[1].copy_from_slice(&self.place[3..6]);
        let geometry = Geometry {
            voxel_size: [self.pixdim[1], self.pixdim[2], self.pixdim[3]],
            qfac: self.pixdim[0],
            qform_code: code("qform_code", self.qform_code)?,
            quaternion: place[0],
            offset: place[1],
            sform_code: code("sform_code", self.sform_code)?,
            srow: std::array::from_fn(|row| std::array::from_fn(|column| self.place[6 + 4 * row + column])),
            length_unit: (self.units & 0x07) as u8,
        };
        for axis in 0..dims.len().min(3) {
            let size = geometry.voxel_size[axis];
            if !(size.is_finite() && size != 0.0) {
                warnings.push(format!("pixdim[{}], a voxel size, is {size}", axis + 1));
            }
        }
        Ok(Header {
            version: self.version,
            layout: self.layout,
            order,
            dims,
            sample,
            vox_offset,
            scaling: Scaling::from_header(self.slope, self.intercept),
            frame_spacing: self.pixdim[4],
            time_offset: self.time_offset,
            time_unit: (self.units & 0x38) as u8,
            geometry,
            display_range: self.display_range,
            intent_code: i16::try_from(self.intent_code).unwrap_or(0),
            intent_name: self.intent_name,
            description: self.description,
            warnings,
        })
    }

    fn dims(&self, path: &Path) -> Result<Vec<usize>> {
        let rank = match self.dim[0] {
            rank @ 1..=7 => rank as usize,
            other => return Err(Error::file(path, "dim[0]", other, "an image has 1 to 7 axes; the header is damaged")),
        };
        let mut dims = Vec::with_capacity(rank);
        for axis in 1..=rank {
            match usize::try_from(self.dim[axis]) {
                Ok(n) if n > 0 => dims.push(n),
                _ => {
                    return Err(Error::file(
                        path,
                        format!("dim[{axis}]"),
                        self.dim[axis],
                        "every axis that dim[0] counts has at least one sample; the header is damaged",
                    ));
                }
            }
        }
        Ok(dims)
    }

    fn offset(&self, path: &Path) -> Result<u64> {
        let least = match self.layout {
            Layout::Single => self.version.header_bytes() + EXTENDER_BYTES,
            Layout::Pair => 0,
        };
        let offset = self.vox_offset;
        // 2^53: up to there a float counts single bytes.
        if !(offset >= least as f64 && offset <= 9_007_199_254_740_992.0 && offset.fract() == 0.0) {
            return Err(Error::file(
                path,
                "vox_offset",
                offset,
                format!("the samples start at a whole number of bytes, {least} or more; the header is damaged"),
            ));
        }
        Ok(offset as u64)
    }
}

/// What a type code stands for that isn't read.
fn refused_type(code: i16) -> &'static str {
    match code {
        0 => "unknown",
        1 => "one bit per voxel",
        32 => "complex64",
        128 => "RGB",
        1536 => "float128",
        1792 => "complex128",
        2048 => "complex256",
        2304 => "RGBA",
        _ => "no code of the standard",
    }
}
