//! NIfTI-1 and NIfTI-2 headers, read into one struct and written from one struct.

use std::path::Path;

use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::series::{Scaling, Voxels};

pub(super) const NIFTI1_BYTES: usize = 348;
pub(super) const NIFTI2_BYTES: usize = 540;
/// The header is followed by four bytes that say whether extensions follow.
const EXTENDER_BYTES: usize = 4;

/// The sample types that are read and written, with NIfTI's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SampleType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
}

const SAMPLE_TYPES: [(i16, SampleType, usize); 10] = [
    (2, SampleType::U8, 1),
    (256, SampleType::I8, 1),
    (512, SampleType::U16, 2),
    (4, SampleType::I16, 2),
    (768, SampleType::U32, 4),
    (8, SampleType::I32, 4),
    (1280, SampleType::U64, 8),
    (1024, SampleType::I64, 8),
    (16, SampleType::F32, 4),
    (64, SampleType::F64, 8),
];

impl SampleType {
    fn from_code(code: i16) -> Option<Self> {
        SAMPLE_TYPES.iter().find(|row| row.0 == code).map(|row| row.1)
    }

    fn row(self) -> (i16, SampleType, usize) {
        *SAMPLE_TYPES.iter().find(|row| row.1 == self).expect("every sample type has a row")
    }

    pub(super) fn bytes(self) -> usize {
        self.row().2
    }

    pub(super) fn of(voxels: &Voxels) -> Self {
        match voxels {
            Voxels::U8(_) => Self::U8,
            Voxels::I8(_) => Self::I8,
            Voxels::U16(_) => Self::U16,
            Voxels::I16(_) => Self::I16,
            Voxels::U32(_) => Self::U32,
            Voxels::I32(_) => Self::I32,
            Voxels::U64(_) => Self::U64,
            Voxels::I64(_) => Self::I64,
            Voxels::F32(_) => Self::F32,
            Voxels::F64(_) => Self::F64,
        }
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

    /// Reads and checks a header of 348 or 540 bytes.
    pub(super) fn parse(bytes: &[u8], path: &Path) -> Result<Self> {
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

    /// The header and the four bytes behind it, in native byte order.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer(vec![0; self.version.header_bytes() + EXTENDER_BYTES]);
        let (code, _, size) = self.sample.row();
        let mut pixdim = [1.0; 8];
        pixdim[0] = self.geometry.qfac;
        pixdim[1..4].copy_from_slice(&self.geometry.voxel_size);
        pixdim[4] = self.frame_spacing;
        let mut dim = [1i64; 8];
        dim[0] = self.dims.len() as i64;
        for (axis, n) in self.dims.iter().enumerate() {
            dim[axis + 1] = *n as i64;
        }
        let units = self.geometry.length_unit | self.time_unit;
        let place = [self.geometry.quaternion, self.geometry.offset].concat();
        match self.version {
            Version::One => {
                out.i32(0, NIFTI1_BYTES as i32);
                for (i, n) in dim.iter().enumerate() {
                    out.i16(40 + 2 * i, i16::try_from(*n).unwrap_or(i16::MAX));
                }
                out.i16(68, self.intent_code);
                out.i16(70, code);
                out.i16(72, 8 * size as i16);
                for (i, p) in pixdim.iter().enumerate() {
                    out.f32(76 + 4 * i, *p);
                }
                out.f32(108, self.vox_offset as f64);
                out.f32(112, self.scaling.slope);
                out.f32(116, self.scaling.intercept);
                out.0[123] = units;
                out.f32(124, self.display_range[1]);
                out.f32(128, self.display_range[0]);
                out.f32(136, self.time_offset);
                out.text(148, 80, &self.description);
                out.i16(252, self.geometry.qform_code);
                out.i16(254, self.geometry.sform_code);
                for (i, p) in place.iter().chain(self.geometry.srow.iter().flatten()).enumerate() {
                    out.f32(256 + 4 * i, *p);
                }
                out.text(328, 16, &self.intent_name);
                out.0[344..348].copy_from_slice(b"n+1\0");
            }
            Version::Two => {
                out.i32(0, NIFTI2_BYTES as i32);
                out.0[4..12].copy_from_slice(b"n+2\0\r\n\x1a\n");
                out.i16(12, code);
                out.i16(14, 8 * size as i16);
                for (i, n) in dim.iter().enumerate() {
                    out.i64(16 + 8 * i, *n);
                }
                for (i, p) in pixdim.iter().enumerate() {
                    out.f64(104 + 8 * i, *p);
                }
                out.i64(168, self.vox_offset as i64);
                out.f64(176, self.scaling.slope);
                out.f64(184, self.scaling.intercept);
                out.f64(192, self.display_range[1]);
                out.f64(200, self.display_range[0]);
                out.f64(216, self.time_offset);
                out.text(240, 80, &self.description);
                out.i32(344, self.geometry.qform_code.into());
                out.i32(348, self.geometry.sform_code.into());
                for (i, p) in place.iter().chain(self.geometry.srow.iter().flatten()).enumerate() {
                    out.f64(352 + 8 * i, *p);
                }
                out.i32(500, units.into());
                out.i32(504, self.intent_code.into());
                out.text(508, 16, &self.intent_name);
            }
        }
        out.0
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn put<const N: usize>(&mut self, at: usize, bytes: [u8; N]) {
        self.0[at..at + N].copy_from_slice(&bytes);
    }

    fn i16(&mut self, at: usize, value: i16) {
        self.put(at, value.to_ne_bytes());
    }

    fn i32(&mut self, at: usize, value: i32) {
        self.put(at, value.to_ne_bytes());
    }

    fn i64(&mut self, at: usize, value: i64) {
        self.put(at, value.to_ne_bytes());
    }

    fn f32(&mut self, at: usize, value: f64) {
        self.put(at, (value as f32).to_ne_bytes());
    }

    fn f64(&mut self, at: usize, value: f64) {
        self.put(at, value.to_ne_bytes());
    }

    /// ASCII that leaves at least one of the field's bytes 0.
    fn text(&mut self, at: usize, field: usize, text: &str) {
        for (i, c) in text.chars().take(field - 1).enumerate() {
            self.0[at + i] = if c.is_ascii() { c as u8 } else { b'?' };
        }
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
        let Some(sample) = SampleType::from_code(self.datatype) else {
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

#[cfg(test)]
mod tests {
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
