//! What other software of its own kind takes for a part of the work: floors to measure a whole job against.

use std::io::{Read, Write as _};
use std::path::Path;
use std::time::Instant;

use perfuse::{Error, Result};
use rayon::prelude::*;

/// The fastest of some runs, in seconds.
fn best(rounds: usize, mut work: impl FnMut() -> std::io::Result<()>, path: &Path) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..rounds.max(1) {
        let start = Instant::now();
        work().map_err(|source| Error::Io { action: "read", path: path.into(), source })?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}

/// Reads a file that the system has in memory into memory that was used before, by one thread.
pub(crate) fn read_warm(path: &Path, rounds: usize) -> Result<f64> {
    let mut memory = Vec::new();
    let mut read = || {
        memory.clear();
        std::fs::File::open(path)?.read_to_end(&mut memory).map(|_| ())
    };
    best(1, &mut read, path)?;
    best(rounds, read, path)
}

/// Writes so many bytes to a file and waits for the disk.
pub(crate) fn write(folder: &Path, bytes: u64, rounds: usize) -> Result<f64> {
    let (path, block) = (folder.join("floor"), vec![0x5a; 1 << 20]);
    let write = || {
        let mut file = std::fs::File::create(&path)?;
        let mut left = bytes as usize;
        while left > 0 {
            let here = left.min(block.len());
            file.write_all(&block[..here])?;
            left -= here;
        }
        file.sync_all()
    };
    let seconds = best(rounds, write, &path)?;
    std::fs::remove_file(&path).map_err(|source| Error::Io { action: "remove", path, source })?;
    Ok(seconds)
}

/// What is measured as the best inflater and deflater.
pub(crate) const COMPRESSOR: &str = if cfg!(feature = "libdeflate") {
    "libdeflate"
} else {
    "zlib-rs (build with the feature libdeflate for a faster one)"
};

/// Inflates a gzip file of one member from memory into memory that was used before, by one thread.
pub(crate) fn inflate(path: &Path, rounds: usize) -> Result<f64> {
    let stored = std::fs::read(path).map_err(|source| Error::Io { action: "read", path: path.into(), source })?;
    let mut whole = Vec::new();
    flate2::read::MultiGzDecoder::new(&stored[..]).read_to_end(&mut whole).map_err(|source| Error::Io {
        action: "inflate",
        path: path.into(),
        source,
    })?;
    let inflate = || {
        #[cfg(feature = "libdeflate")]
        {
            let outcome = libdeflater::Decompressor::new().gzip_decompress(&stored, &mut whole);
            outcome.map(|_| ()).map_err(std::io::Error::other)
        }
        #[cfg(not(feature = "libdeflate"))]
        flate2::read::MultiGzDecoder::new(&stored[..]).read_exact(&mut whole)
    };
    best(rounds, inflate, path)
}

/// Deflates these files (maps that aren't compressed), each by one thread, on all threads, at the lowest level.
pub(crate) fn deflate(paths: &[std::path::PathBuf], rounds: usize) -> Result<f64> {
    let read = |path: &std::path::PathBuf| {
        std::fs::read(path).map_err(|source| Error::Io { action: "read", path: path.clone(), source })
    };
    let files: Vec<Vec<u8>> = paths.iter().map(read).collect::<Result<_>>()?;
    let deflate = |file: &Vec<u8>| -> std::io::Result<usize> {
        #[cfg(feature = "libdeflate")]
        {
            let mut compressor =
                libdeflater::Compressor::new(libdeflater::CompressionLvl::new(1).expect("there is a level 1"));
            let mut out = vec![0; compressor.gzip_compress_bound(file.len())];
            compressor.gzip_compress(file, &mut out).map_err(std::io::Error::other)
        }
        #[cfg(not(feature = "libdeflate"))]
        {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(file)?;
            encoder.finish().map(|out| out.len())
        }
    };
    best(
        rounds,
        || files.par_iter().map(deflate).collect::<std::io::Result<Vec<_>>>().map(|_| ()),
        Path::new("the maps"),
    )
}
