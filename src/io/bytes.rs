//! A stream of an image's bytes, inflated where they are gzip, that knows how much the stored bytes can justify.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use rayon::prelude::*;

use super::gzip::{Checker, Gunzip, MAGIC, Piece};
use crate::error::{Error, Result};
use crate::stored::read_at;

/// Deflate's best case: 258 bytes from two bits, so 1032 bytes from one.
const MOST_FROM_ONE_BYTE: u64 = 1032;
/// Bytes of a file that one thread reads at once.
const SHARE: usize = 1 << 20;
/// Pieces between the thread that inflates and the one that puts them in their place.
const PIECES: usize = 4;

/// The bytes of one file (or of memory), inflated on the fly.
pub(super) struct ByteSource<'a> {
    name: PathBuf,
    reader: Reader<'a>,
    stored_bytes: u64,
}

enum Reader<'a> {
    Memory { bytes: &'a [u8], at: usize },
    File { file: File, at: u64 },
    Gzip(Box<Inflating<'a>>),
}

struct Inflating<'a> {
    stream: Gunzip<Box<dyn Read + Send + 'a>>,
    piece: Piece,
    /// Bytes of the piece that were handed on.
    taken: usize,
    checker: Checker,
    ended: bool,
}

impl Inflating<'_> {
    /// What has been inflated and not handed on; inflates on where that is nothing. Empty at the end.
    fn ahead(&mut self) -> io::Result<&[u8]> {
        while self.taken == self.piece.content().len() && !self.ended {
            self.stream.next(&mut self.piece)?;
            self.checker.check(&self.piece)?;
            self.taken = 0;
            self.ended = self.piece.content().is_empty();
        }
        Ok(&self.piece.content()[self.taken..])
    }

    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            let ahead = self.ahead()?;
            let here = ahead.len().min(buffer.len() - filled);
            if here == 0 {
                break;
            }
            buffer[filled..filled + here].copy_from_slice(&ahead[..here]);
            self.taken += here;
            filled += here;
        }
        Ok(filled)
    }

    /// Hands on all that follows, piece by piece, until `take` has had enough. Another thread inflates meanwhile.
    fn drain<E: From<io::Error>>(&mut self, mut take: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let here = self.ahead()?;
        let short = here.len();
        take(here)?;
        self.taken += short;
        if self.ended || self.ahead()?.is_empty() {
            return Ok(());
        }
        let (stream, checker) = (&mut self.stream, &mut self.checker);
        take(&self.piece.content()[self.taken..])?;
        self.taken = self.piece.content().len();
        self.ended = true;
        std::thread::scope(|scope| {
            let (full, pieces) = mpsc::sync_channel::<io::Result<Piece>>(PIECES);
            let (empty, returned) = mpsc::sync_channel::<Piece>(PIECES);
            for _ in 0..PIECES {
                // There is room for all of them, and nobody has gone yet.
                let _ = empty.send(Piece::new());
            }
            let inflate = move || {
                // Ends with the stream, with an error, or when nobody listens any more.
                while let Ok(mut piece) = returned.recv() {
                    let outcome = stream.next(&mut piece);
                    let over = outcome.is_err() || piece.content().is_empty();
                    if full.send(outcome.map(|()| piece)).is_err() || over {
                        break;
                    }
                }
            };
            std::thread::Builder::new().name("inflate".into()).spawn_scoped(scope, inflate)?;
            for piece in pieces {
                let piece = piece?;
                checker.check(&piece)?;
                if !piece.content().is_empty() {
                    take(piece.content())?;
                }
                // The other thread may be done already.
                let _ = empty.send(piece);
            }
            Ok(())
        })
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
        ByteSource::new(path, &start[..length], metadata.len(), |compressed| {
            if compressed { Err(Box::new(file) as Box<dyn Read + Send>) } else { Ok(Reader::File { file, at: 0 }) }
        })
    }

    pub(super) fn from_slice(name: &Path, bytes: &'a [u8]) -> Result<Self> {
        Self::new(name, bytes, bytes.len() as u64, |compressed| {
            if compressed { Err(Box::new(bytes)) } else { Ok(Reader::Memory { bytes, at: 0 }) }
        })
    }

    fn new(
        name: &Path,
        start: &[u8],
        stored_bytes: u64,
        reader: impl FnOnce(bool) -> Result<Reader<'a>, Box<dyn Read + Send + 'a>>,
    ) -> Result<Self> {
        if start.is_empty() {
            return Err(Error::file(name, "the file", "empty", "copy or convert the image again"));
        }
        let reader = reader(start.starts_with(&MAGIC)).unwrap_or_else(|stored| {
            Reader::Gzip(Box::new(Inflating {
                stream: Gunzip::new(stored),
                piece: Piece::new(),
                taken: 0,
                checker: Checker::default(),
                ended: false,
            }))
        });
        Ok(Self { name: name.to_path_buf(), reader, stored_bytes })
    }

    pub(super) fn name(&self) -> &Path {
        &self.name
    }

    pub(super) fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    pub(super) fn compressed(&self) -> bool {
        matches!(self.reader, Reader::Gzip(_))
    }

    /// The file and the place that was reached in it, if its bytes are the image's own.
    pub(super) fn into_file(self) -> Option<(File, u64)> {
        match self.reader {
            Reader::File { file, at } => Some((file, at)),
            _ => None,
        }
    }

    /// Whether [`into_file`](Self::into_file) will find one.
    pub(super) fn is_file(&self) -> bool {
        matches!(self.reader, Reader::File { .. })
    }

    /// The most bytes that can come out, whatever a header claims.
    pub(super) fn justified_bytes(&self) -> u64 {
        if self.compressed() { self.stored_bytes.saturating_mul(MOST_FROM_ONE_BYTE) } else { self.stored_bytes }
    }

    /// Fills the buffer as far as the bytes reach and says how far that is.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let filled = match &mut self.reader {
            Reader::Memory { bytes, at } => {
                let here = (bytes.len() - *at).min(buffer.len());
                buffer[..here].copy_from_slice(&bytes[*at..*at + here]);
                *at += here;
                Ok(here)
            }
            Reader::File { file, at } => {
                // Many threads at once: memory that is touched for the first time costs more than reading.
                let shares = buffer.par_chunks_mut(SHARE).enumerate();
                let outcome = shares
                    .map(|(i, share)| Ok((share.len(), fill_at(file, share, *at + (i * SHARE) as u64)?)))
                    .collect::<io::Result<Vec<_>>>();
                outcome.map(|shares| {
                    // What lies behind a short share is behind the end.
                    let whole = shares.iter().take_while(|(wanted, got)| wanted == got).count();
                    let filled = shares[..shares.len().min(whole + 1)].iter().map(|(_, got)| got).sum::<usize>();
                    *at += filled as u64;
                    filled
                })
            }
            Reader::Gzip(inflating) => inflating.fill(buffer),
        };
        filled.map_err(|e| failed(&self.name, self.compressed(), e))
    }

    /// Hands on all inflated bytes that follow, piece by piece, while another thread inflates. `false` if the bytes aren't
    /// compressed: nothing happens then.
    pub(super) fn drain(&mut self, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<bool> {
        let Reader::Gzip(inflating) = &mut self.reader else { return Ok(false) };
        match inflating.drain(|bytes| take(bytes).map_err(Stop::Told)) {
            Ok(()) => Ok(true),
            Err(Stop::Told(error)) => Err(error),
            Err(Stop::Failed(error)) => Err(failed(&self.name, true, error)),
        }
    }

    /// Goes past bytes of a file that aren't wanted; says how many there were. `None` where they have to be inflated.
    pub(super) fn seek(&mut self, bytes: u64) -> Option<u64> {
        match &mut self.reader {
            Reader::Memory { bytes: all, at } => {
                let here = bytes.min((all.len() - *at) as u64);
                *at += here as usize;
                Some(here)
            }
            Reader::File { at, .. } => {
                let here = bytes.min(self.stored_bytes.saturating_sub(*at));
                *at += here;
                Some(here)
            }
            Reader::Gzip(_) => None,
        }
    }
}

/// What ends a stream early.
enum Stop {
    Told(Error),
    Failed(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Stop::Failed(error)
    }
}

/// Reads as far as the file reaches.
fn fill_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match read_at(file, &mut buffer[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

fn failed(name: &Path, compressed: bool, error: io::Error) -> Error {
    // Errors without the system's number come from inflating, not from the disk.
    if compressed && error.raw_os_error().is_none() {
        let value = match error.kind() {
            io::ErrorKind::UnexpectedEof => "truncated".to_string(),
            _ => format!("damaged ({error})"),
        };
        return Error::file(name, "gzip stream", value, "copy or compress the image again");
    }
    Error::io("read", name, error)
}
