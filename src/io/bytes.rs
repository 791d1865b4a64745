//! A stream of an image's bytes, inflated where they are gzip, that knows how much the stored bytes can justify.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::GzDecoder;

use crate::error::{Error, Result};

/// Deflate's best case: 258 bytes from two bits, so 1032 bytes from one.
const MOST_FROM_ONE_BYTE: u64 = 1032;
const FILE_BUFFER_BYTES: usize = 1 << 18;

/// The bytes of one file (or of memory), inflated on the fly.
pub(super) struct ByteSource<'a> {
    name: PathBuf,
    reader: Box<dyn Read + 'a>,
    stored_bytes: u64,
    compressed: bool,
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
        ByteSource::new(path, BufReader::with_capacity(FILE_BUFFER_BYTES, file), metadata.len())
    }

    pub(super) fn from_slice(name: &Path, bytes: &'a [u8]) -> Result<Self> {
        Self::new(name, bytes, bytes.len() as u64)
    }

    fn new(name: &Path, mut stored: impl BufRead + 'a, stored_bytes: u64) -> Result<Self> {
        let start = stored.fill_buf().map_err(|e| Error::io("read", name, e))?;
        if start.is_empty() {
            return Err(Error::file(name, "the file", "empty", "copy or convert the image again"));
        }
        let compressed = start.starts_with(&[0x1f, 0x8b]);
        let reader: Box<dyn Read + 'a> = if compressed { Box::new(Members::new(stored)) } else { Box::new(stored) };
        Ok(Self { name: name.to_path_buf(), reader, stored_bytes, compressed })
    }

    pub(super) fn name(&self) -> &Path {
        &self.name
    }

    pub(super) fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    pub(super) fn compressed(&self) -> bool {
        self.compressed
    }

    /// The most bytes that can come out, whatever a header claims.
    pub(super) fn justified_bytes(&self) -> u64 {
        if self.compressed { self.stored_bytes.saturating_mul(MOST_FROM_ONE_BYTE) } else { self.stored_bytes }
    }

    /// Fills the buffer as far as the bytes reach and says how far that is.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.reader.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.failed(e)),
            }
        }
        Ok(filled)
    }

    fn failed(&self, error: io::Error) -> Error {
        // Errors without the system's number come from inflating, not from the disk.
        if self.compressed && error.raw_os_error().is_none() {
            let value = match error.kind() {
                io::ErrorKind::UnexpectedEof => "truncated".to_string(),
                _ => format!("damaged ({error})"),
            };
            return Error::file(&self.name, "gzip stream", value, "copy or compress the image again");
        }
        Error::io("read", &self.name, error)
    }
}

/// All members of a gzip file, one behind the other, with the zeros that tapes and archives pad them with.
struct Members<R> {
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> Members<R> {
    fn new(stored: R) -> Self {
        Self { member: Some(GzDecoder::new(stored)) }
    }
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(mut member) = self.member.take() {
            let n = member.read(buffer)?;
            if n > 0 || buffer.is_empty() {
                self.member = Some(member);
                return Ok(n);
            }
            let mut stored = member.into_inner();
            match first_after_zeros(&mut stored)? {
                None => {}
                Some(0x1f) => self.member = Some(GzDecoder::new(stored)),
                Some(_) => return Err(io::Error::new(io::ErrorKind::InvalidData, "bytes that aren't gzip follow it")),
            }
        }
        Ok(0)
    }
}

/// Goes to the next byte that isn't 0, if there is one, and says which it is.
fn first_after_zeros(stored: &mut impl BufRead) -> io::Result<Option<u8>> {
    loop {
        let ahead = stored.fill_buf()?;
        if ahead.is_empty() {
            return Ok(None);
        }
        let zeros = ahead.iter().take_while(|b| **b == 0).count();
        let found = ahead.get(zeros).copied();
        stored.consume(zeros);
        if found.is_some() {
            return Ok(found);
        }
    }
}
