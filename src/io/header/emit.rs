//! A header to bytes.

use super::{EXTENDER_BYTES, Header, NIFTI1_BYTES, NIFTI2_BYTES, Version};

impl Header {
    /// The header and the four bytes behind it, in native byte order.
    pub(in crate::io) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer(vec![0; self.version.header_bytes() + EXTENDER_BYTES]);
        let (code, size) = (super::code(self.sample), self.sample.bytes());
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
