//! A stream of an image's bytes, inflated where they are gzip, that knows how much the stored bytes can justify.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use super::gzip::{Gunzip, MAGIC};
use crate::error::{Error, Result};
use crate::stored::{fill_at, read_at};

/// Deflate's best case: 258 bytes from two bits, so 1032 bytes from one.
const MOST_FROM_ONE_BYTE: u64 = 1032;
/// Bytes of a file that one thread reads at once.
const SHARE: usize = 1 << 20;

/// The bytes of one file (or of memory), inflated on the fly.
pub(super) struct ByteSource<'a> {
    name: PathBuf,
    stored: Stored<'a>,
    stored_bytes: u64,
    /// Where the next bytes come from, if they are compressed.
    gzip: Option<Box<Gunzip<Stored<'a>>>>,
}

/// Bytes as they are stored, and how many of them were read.
#[derive(Clone)]
enum Stored<'a> {
    Memory { bytes: &'a [u8], at: usize },
    File { file: Arc<File>, at: u64 },
}

impl Read for Stored<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stored::Memory { bytes, at } => {
                let here = (bytes.len() - *at).min(buffer.len());
                buffer[..here].copy_from_slice(&bytes[*at..*at + here]);
                *at += here;
                Ok(here)
            }
            Stored::File { file, at } => {
                let here = read_at(file, buffer, *at)?;
                *at += here as u64;
                Ok(here)
            }
        }
    }
}

impl<'a> ByteSource<'a> {
    pub(super) fn open(path: &Path) -> Result<ByteSource<'static>> {
        // Asked before opening, because opening a pipe waits for someone to write into it.
        let metadata = path.metadata().map_err(|e| Error::io("read", path, e))?;
        if !metadata.is_file() {
            let value = if metadata.is_dir() { "a folder" } else { "not a regular file" };
            let mend =
                "give a NIfTI image (.nii, .nii.gz, .hdr with .img); DICOM folders can be converted with dcm2niix";
            return Err(Error::file(path, "the path", value, mend));
        }
        let file = File::open(path).map_err(|e| Error::io("read", path, e))?;
        let mut start = [0; 2];
        let length = fill_at(&file, &mut start, 0).map_err(|e| Error::io("read", path, e))?;
        let stored = Stored::File { file: Arc::new(file), at: 0 };
        ByteSource::new(path, &start[..length], stored, metadata.len())
    }

    pub(super) fn from_slice(name: &Path, bytes: &'a [u8]) -> Result<Self> {
        Self::new(name, bytes, Stored::Memory { bytes, at: 0 }, bytes.len() as u64)
    }

    fn new(name: &Path, start: &[u8], stored: Stored<'a>, stored_bytes: u64) -> Result<Self> {
        if start.is_empty() {
            return Err(Error::file(name, "the file", "empty", "copy or convert the image again"));
        }
        let gzip = start.starts_with(&MAGIC).then(|| Box::new(Gunzip::new(stored.clone())));
        Ok(Self { name: name.to_path_buf(), stored, stored_bytes, gzip })
    }

    pub(super) fn name(&self) -> &Path {
        &self.name
    }

    pub(super) fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    pub(super) fn compressed(&self) -> bool {
        self.gzip.is_some()
    }

    /// The file, if its bytes are the image's own.
    pub(super) fn plain_file(&self) -> Option<Arc<File>> {
        match &self.stored {
            Stored::File { file, .. } if self.gzip.is_none() => Some(file.clone()),
            _ => None,
        }
    }

    /// Whether the last word of a compressed file says another length than this: then it has several members, or zeros
    /// behind the last one.
    pub(super) fn denies_length(&self, bytes: u64) -> Result<bool> {
        let mut word = [0; 4];
        let at = self.stored_bytes.saturating_sub(4);
        match &self.stored {
            _ if self.gzip.is_none() => return Ok(false),
            Stored::Memory { bytes, .. } => word = bytes.last_chunk().copied().unwrap_or_default(),
            Stored::File { file, .. } => {
                fill_at(file, &mut word, at).map_err(|e| Error::io("read", &self.name, e))?;
            }
        }
        Ok(u32::from_le_bytes(word) != bytes as u32)
    }

    /// All bytes as they are stored.
    pub(super) fn all_stored(&self) -> Result<Cow<'a, [u8]>> {
        match &self.stored {
            Stored::Memory { bytes, .. } => Ok(Cow::Borrowed(bytes)),
            Stored::File { file, .. } => {
                let mut bytes = vec![0; self.stored_bytes as usize];
                let filled = fill_by_all(file, &mut bytes, 0).map_err(|e| Error::io("read", &self.name, e))?;
                bytes.truncate(filled);
                Ok(Cow::Owned(bytes))
            }
        }
    }

    /// The most bytes that can come out, whatever a header claims.
    pub(super) fn justified_bytes(&self) -> u64 {
        if self.compressed() { self.stored_bytes.saturating_mul(MOST_FROM_ONE_BYTE) } else { self.stored_bytes }
    }

    /// Fills the buffer as far as the bytes reach and says how far that is.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let filled = match (&mut self.gzip, &mut self.stored) {
            (Some(gzip), _) => gzip.fill(buffer),
            (None, Stored::File { file, at }) => {
                let filled = fill_by_all(file, buffer, *at);
                *at += *filled.as_ref().unwrap_or(&0) as u64;
                filled
            }
            (None, stored) => stored.read(buffer),
        };
        filled.map_err(|e| self.failed(e))
    }

    /// Goes past bytes that aren't wanted; says how many there were. `None` where they have to be inflated.
    pub(super) fn seek(&mut self, bytes: u64) -> Option<u64> {
        match &mut self.stored {
            _ if self.gzip.is_some() => None,
            Stored::Memory { bytes: all, at } => {
                let here = bytes.min((all.len() - *at) as u64);
                *at += here as usize;
                Some(here)
            }
            Stored::File { at, .. } => {
                let here = bytes.min(self.stored_bytes.saturating_sub(*at));
                *at += here;
                Some(here)
            }
        }
    }

    fn failed(&self, error: io::Error) -> Error {
        // Errors without the system's number come from inflating, not from the disk.
        if self.compressed() && error.raw_os_error().is_none() {
            let value = match error.kind() {
                io::ErrorKind::UnexpectedEof => "truncated".to_string(),
                _ => format!("damaged ({error})"),
            };
            return Error::file(&self.name, "gzip stream", value, "copy or compress the image again");
        }
        Error::io("read", &self.name, error)
    }
}

/// Reads as far as the file reaches, on all threads: memory that is touched for the first time costs more than reading.
fn fill_by_all(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let shares = buffer
        .par_chunks_mut(SHARE)
        .enumerate()
        .map(|(i, share)| Ok((share.len(), fill_at(file, share, at + (i * SHARE) as u64)?)))
        .collect::<io::Result<Vec<_>>>()?;
    // What lies behind a short share is behind the end.
    let whole = shares.iter().take_while(|(wanted, got)| wanted == got).count();
    Ok(shares[..shares.len().min(whole + 1)].iter().map(|(_, got)| got).sum())
}
