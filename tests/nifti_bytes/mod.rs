//! NIfTI files byte by byte, so that tests can make any of them wrong.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::io::Write;

/// A little-endian NIfTI-1 file: int16, 2 x 2 x 1 x 3, frames 2 s apart, samples 0, 1, 2 ...
pub(crate) fn nifti1() -> Vec<u8> {
    let mut file = vec![0u8; 352];
    put(&mut file, 0, 348i32.to_le_bytes());
    for (i, n) in [4i16, 2, 2, 1, 3, 1, 1, 1].iter().enumerate() {
        put(&mut file, 40 + 2 * i, n.to_le_bytes());
    }
    put(&mut file, 70, 4i16.to_le_bytes());
    put(&mut file, 72, 16i16.to_le_bytes());
    for (i, p) in [1f32, 1.5, 2.0, 3.0, 2.0].iter().enumerate() {
        put(&mut file, 76 + 4 * i, p.to_le_bytes());
    }
    put(&mut file, 108, 352f32.to_le_bytes());
    put(&mut file, 112, 1f32.to_le_bytes());
    file[123] = 2 | 8;
    put(&mut file, 344, *b"n+1\0");
    samples(&mut file);
    file
}

/// The same as NIfTI-2.
pub(crate) fn nifti2() -> Vec<u8> {
    let mut file = vec![0u8; 544];
    put(&mut file, 0, 540i32.to_le_bytes());
    put(&mut file, 4, *b"n+2\0\r\n\x1a\n");
    put(&mut file, 12, 4i16.to_le_bytes());
    put(&mut file, 14, 16i16.to_le_bytes());
    for (i, n) in [4i64, 2, 2, 1, 3, 1, 1, 1].iter().enumerate() {
        put(&mut file, 16 + 8 * i, n.to_le_bytes());
    }
    for (i, p) in [1f64, 1.5, 2.0, 3.0, 2.0].iter().enumerate() {
        put(&mut file, 104 + 8 * i, p.to_le_bytes());
    }
    put(&mut file, 168, 544i64.to_le_bytes());
    put(&mut file, 176, 1f64.to_le_bytes());
    put(&mut file, 500, 10i32.to_le_bytes());
    samples(&mut file);
    file
}

fn samples(file: &mut Vec<u8>) {
    file.extend((0..12i16).flat_map(i16::to_le_bytes));
}

/// Both versions in the other byte order.
pub(crate) fn big_endian(file: &[u8]) -> Vec<u8> {
    let mut file = file.to_vec();
    let (fields, offset): (Vec<(usize, usize, usize)>, usize) = if file[0] == 92 {
        (vec![(0, 4, 1), (40, 2, 8), (70, 2, 2), (76, 4, 8), (108, 4, 3), (252, 2, 2), (256, 4, 18)], 352)
    } else {
        (vec![(0, 4, 1), (12, 2, 2), (16, 8, 8), (104, 8, 8), (168, 8, 3), (344, 4, 2), (352, 8, 18), (500, 4, 2)], 544)
    };
    for (at, size, count) in fields {
        file[at..at + size * count].chunks_mut(size).for_each(<[u8]>::reverse);
    }
    file[offset..].chunks_mut(2).for_each(<[u8]>::reverse);
    file
}

pub(crate) fn put<const N: usize>(file: &mut [u8], at: usize, bytes: [u8; N]) {
    file[at..at + N].copy_from_slice(&bytes);
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(bytes).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}
