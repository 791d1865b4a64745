//! Bytes to one gzip member, deflated on all threads.

use std::io::{self, Write};

use crc32fast::Hasher;
use miniz_oxide::deflate::core::create_comp_flags_from_zip_params;
use miniz_oxide::deflate::core::{CompressorOxide, TDEFLFlush, TDEFLStatus, compress_to_output};
use rayon::prelude::*;

use super::gzip::MAGIC;

/// Maps of 32-bit floats are mostly noise. Measured on maps of a noisy series this level makes them as small as the levels
/// above it, to a sixth, in a third to a fifth of the time; where they are noisy it is faster than zlib-rs and libdeflate.
const LEVEL: i32 = 1;
/// A share whose bytes hold more information than this, as a share of what bytes can hold, is stored as it is: deflating would
/// take longest there and save 7 %. Areas under noisy curves are such, every float another one.
const FULL: f64 = 0.9;
/// Words of a share of which one is looked at for that.
const LOOKED_AT: usize = 16;
/// The most bytes of a stored block.
const STORED: usize = 65_535;
/// A deflate stream without zlib's words around it.
const RAW: i32 = -15;
/// Bytes that one thread deflates at a time.
const SHARE: usize = 1 << 18;
/// Bytes that are deflated before they are written.
const BATCH: usize = 32 * SHARE;

/// Writes one member. Its bytes don't depend on the number of threads.
pub(super) struct GzipWriter<W: Write> {
    out: W,
    waiting: Vec<u8>,
    checksum: Hasher,
    length: u32,
}

impl<W: Write> GzipWriter<W> {
    pub(super) fn new(mut out: W) -> io::Result<Self> {
        // No name, no time (the same samples are the same file), fastest level, no matter which system.
        out.write_all(&[MAGIC[0], MAGIC[1], 8, 0, 0, 0, 0, 0, 4, 255])?;
        Ok(Self { out, waiting: Vec::new(), checksum: Hasher::new(), length: 0 })
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        let rest = std::mem::take(&mut self.waiting);
        self.send(&rest)?;
        let (end, _) = deflated(&mut compressor(), &[], TDEFLFlush::Finish)?;
        self.out.write_all(&end)?;
        self.out.write_all(&self.checksum.finalize().to_le_bytes())?;
        self.out.write_all(&self.length.to_le_bytes())
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let shares = bytes
            .par_chunks(SHARE)
            .map_init(compressor, |compressor, share| deflated(compressor, share, TDEFLFlush::Sync))
            .collect::<io::Result<Vec<_>>>()?;
        for (deflated, checksum) in shares {
            self.out.write_all(&deflated)?;
            self.checksum.combine(&checksum);
        }
        // A length is told modulo 2^32.
        self.length = self.length.wrapping_add(bytes.len() as u32);
        Ok(())
    }
}

fn compressor() -> CompressorOxide {
    CompressorOxide::new(create_comp_flags_from_zip_params(LEVEL, RAW, 0))
}

/// Deflates a share by itself, to blocks that end at a whole byte: put together, they are one stream.
fn deflated(compressor: &mut CompressorOxide, share: &[u8], flush: TDEFLFlush) -> io::Result<(Vec<u8>, Hasher)> {
    let mut checksum = Hasher::new();
    checksum.update(share);
    if flush == TDEFLFlush::Sync && information(share) > FULL {
        return Ok((stored(share), checksum));
    }
    compressor.reset();
    let mut out = Vec::with_capacity(share.len() + share.len() / 8 + 64);
    let (status, consumed) = compress_to_output(compressor, share, flush, |bytes| {
        out.extend_from_slice(bytes);
        true
    });
    if consumed != share.len() || !matches!(status, TDEFLStatus::Okay | TDEFLStatus::Done) {
        return Err(io::Error::other("the compressor stopped early"));
    }
    Ok((out, checksum))
}

/// The information of bytes, each by itself, as a share of what they can hold (Shannon 1948); from some of their words of 32 bits.
fn information(share: &[u8]) -> f64 {
    let mut counts = [0u32; 256];
    for byte in share.chunks_exact(4).step_by(LOOKED_AT).flatten() {
        counts[usize::from(*byte)] += 1;
    }
    let all = f64::from(counts.iter().sum::<u32>());
    let bits = |count: &u32| f64::from(*count) / all * (all / f64::from(*count)).log2();
    counts.iter().filter(|count| **count > 0).map(bits).sum::<f64>() / 8.0
}

/// Blocks that are stored as they are (RFC 1951, 3.2.4), from one whole byte to another.
fn stored(share: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(share.len() + 5 * share.len().div_ceil(STORED));
    for block in share.chunks(STORED) {
        let length = block.len() as u16;
        out.push(0);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(block);
    }
    out
}

impl<W: Write> Write for GzipWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.waiting.is_empty() && bytes.len() >= BATCH {
            self.send(&bytes[..BATCH])?;
            return Ok(BATCH);
        }
        let taken = bytes.len().min(BATCH - self.waiting.len());
        self.waiting.extend_from_slice(&bytes[..taken]);
        if self.waiting.len() == BATCH {
            let mut batch = std::mem::take(&mut self.waiting);
            self.send(&batch)?;
            batch.clear();
            self.waiting = batch;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        // Bytes wait until there are enough of them, or none follow.
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn packed(bytes: &[u8], portion: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = GzipWriter::new(&mut out).expect("into memory");
        for part in bytes.chunks(portion.max(1)) {
            writer.write_all(part).expect("into memory");
        }
        writer.finish().expect("into memory");
        out
    }

    /// Bytes without any order, the same ones every time.
    fn noise() -> impl FnMut() -> u8 {
        let mut state = 1u32;
        move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        }
    }

    /// By an independent reader that refuses everything behind the first member.
    fn unpacked(stored: &[u8]) -> Vec<u8> {
        let mut reader = flate2::bufread::GzDecoder::new(stored);
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).expect("sound");
        assert!(reader.into_inner().is_empty(), "one member");
        bytes
    }

    #[test]
    fn what_is_packed_comes_back_whatever_its_size_and_portions() {
        let mut noise = noise();
        let bytes: Vec<u8> = (0..BATCH + 3 * SHARE + 17).map(|i| if i % 4 < 2 { noise() } else { 0 }).collect();
        for size in [0, 1, SHARE - 1, SHARE, SHARE + 1, BATCH, bytes.len()] {
            let whole = packed(&bytes[..size], usize::MAX);
            assert!(unpacked(&whole) == bytes[..size], "{size}");
            assert!(packed(&bytes[..size], 99_991) == whole, "{size}");
            assert!(size < SHARE || whole.len() < size * 7 / 10, "{size}: {}", whole.len());
        }
    }

    #[test]
    fn noise_is_stored_between_shares_that_are_deflated() {
        let mut noise = noise();
        let random: Vec<u8> = (0..SHARE * 2 + 11).map(|_| noise()).collect();
        assert!(information(&random) > 0.99 && information(&[7; 400]) == 0.0 && information(&[]) == 0.0);
        let whole = packed(&random, usize::MAX);
        assert!(whole.len() < random.len() + random.len() / 1000 && unpacked(&whole) == random);
        let mixed: Vec<u8> = [&vec![0; SHARE][..], &random[..SHARE], &vec![3; SHARE], &random].concat();
        let whole = packed(&mixed, usize::MAX);
        assert!(whole.len() < 3 * SHARE + SHARE / 50 && unpacked(&whole) == mixed);
    }
}
