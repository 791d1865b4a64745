//! Gzip files (RFC 1952): members to bytes, a piece at a time, and bytes to a member.

use std::io::{self, Read, Write};

use crc32fast::Hasher;
use rayon::prelude::*;

use super::deflate::{BLOCK, Damage, HISTORY, INPUT_PADDING, Inflater, Input, OUTPUT_SLACK, Pause, deflate};

/// What a gzip file begins with.
pub(super) const MAGIC: [u8; 2] = [0x1f, 0x8b];
/// Bytes of a piece: what stays in the processor's cache while it is inflated, checked and put in its place.
const PIECE: usize = 1 << 18;
/// Compressed bytes that are read at once.
const STORED: usize = 1 << 18;

/// Inflated bytes on their way, behind those that matches may refer to.
#[derive(Debug)]
pub(super) struct Piece {
    bytes: Box<[u8]>,
    end: usize,
    /// The members that end in it: where, and what their last words say.
    ends: Vec<MemberEnd>,
}

#[derive(Debug)]
struct MemberEnd {
    at: usize,
    checksum: u32,
    length: u32,
}

impl Piece {
    pub(super) fn new() -> Self {
        let bytes = vec![0; HISTORY + PIECE + OUTPUT_SLACK].into_boxed_slice();
        Self { bytes, end: HISTORY, ends: Vec::new() }
    }

    pub(super) fn content(&self) -> &[u8] {
        &self.bytes[HISTORY..self.end]
    }
}

/// Compares what came out with what every member says about itself.
#[derive(Debug, Default)]
pub(super) struct Checker {
    checksum: Hasher,
    length: u32,
}

impl Checker {
    pub(super) fn check(&mut self, piece: &Piece) -> io::Result<()> {
        let mut from = HISTORY;
        for end in &piece.ends {
            self.add(&piece.bytes[from..end.at]);
            from = end.at;
            let (checksum, length) = (std::mem::take(&mut self.checksum).finalize(), std::mem::take(&mut self.length));
            if checksum != end.checksum {
                return Err(damaged("its checksum differs"));
            }
            if length != end.length {
                return Err(damaged("its length differs"));
            }
        }
        self.add(&piece.bytes[from..piece.end]);
        Ok(())
    }

    fn add(&mut self, bytes: &[u8]) {
        self.checksum.update(bytes);
        // A length is told modulo 2^32.
        self.length = self.length.wrapping_add(bytes.len() as u32);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Member,
    Body,
    Trailer,
    End,
}

/// All members of a gzip file, one behind the other, with the zeros that tapes and archives pad them with.
pub(super) struct Gunzip<R> {
    stored: R,
    input: Box<[u8]>,
    len: usize,
    place: usize,
    ended: bool,
    state: At,
    first: bool,
    inflater: Inflater,
    history: Box<[u8]>,
    /// How many of the last bytes belong to the member under way.
    reach: usize,
}

impl<R: Read> Gunzip<R> {
    pub(super) fn new(stored: R) -> Self {
        Self {
            stored,
            input: vec![0; STORED + INPUT_PADDING].into_boxed_slice(),
            len: 0,
            place: 0,
            ended: false,
            state: At::Member,
            first: true,
            inflater: Inflater::new(),
            history: vec![0; HISTORY].into_boxed_slice(),
            reach: 0,
        }
    }

    /// Inflates the next piece; an empty one is the end. A stream that failed has to be let alone.
    pub(super) fn next(&mut self, piece: &mut Piece) -> io::Result<()> {
        piece.ends.clear();
        piece.bytes[HISTORY - self.reach..HISTORY].copy_from_slice(&self.history[HISTORY - self.reach..]);
        let mut oldest = HISTORY - self.reach;
        let (mut at, stop) = (HISTORY, HISTORY + PIECE);
        while at < stop {
            match self.state {
                At::End => break,
                At::Member => {
                    self.state = if self.begin_member()? { At::Body } else { At::End };
                    oldest = at;
                }
                At::Body => {
                    let mut input = Input { bytes: &self.input, len: self.len, at: self.place, more: !self.ended };
                    let outcome = self.inflater.run(&mut input, &mut piece.bytes, &mut at, oldest, stop);
                    self.place = input.at;
                    match outcome.map_err(of_damage)? {
                        Pause::Output => {}
                        Pause::Input => self.refill()?,
                        Pause::End => self.state = At::Trailer,
                    }
                }
                At::Trailer => {
                    let mut words = [0; 8];
                    for byte in &mut words {
                        *byte = self.byte()?.ok_or_else(truncated)?;
                    }
                    let word = |i: usize| u32::from_le_bytes([words[i], words[i + 1], words[i + 2], words[i + 3]]);
                    piece.ends.push(MemberEnd { at, checksum: word(0), length: word(4) });
                    self.state = At::Member;
                }
            }
        }
        self.reach = (at - oldest).min(HISTORY);
        self.history[HISTORY - self.reach..].copy_from_slice(&piece.bytes[at - self.reach..at]);
        piece.end = at;
        Ok(())
    }

    /// Reads past a member's header, if there is one more member.
    fn begin_member(&mut self) -> io::Result<bool> {
        let mut byte = self.byte()?;
        // Zeros may follow a member, not precede the first one.
        while byte == Some(0) && !self.first {
            byte = self.byte()?;
        }
        let Some(start) = byte else { return Ok(false) };
        if start != MAGIC[0] {
            return Err(damaged("bytes that aren't gzip follow it"));
        }
        let mut rest = [0; 9];
        for byte in &mut rest {
            *byte = self.byte()?.ok_or_else(truncated)?;
        }
        let [magic, method, flags, ..] = rest;
        if magic != MAGIC[1] {
            return Err(damaged("bytes that aren't gzip follow it"));
        }
        if method != 8 || flags & 0xe0 != 0 {
            return Err(damaged("its header says a method or flags that gzip doesn't have"));
        }
        let mut to_skip = 0;
        if flags & 4 != 0 {
            let low = self.byte()?.ok_or_else(truncated)?;
            to_skip = usize::from(u16::from_le_bytes([low, self.byte()?.ok_or_else(truncated)?]));
        }
        for _ in 0..to_skip {
            self.byte()?.ok_or_else(truncated)?;
        }
        // A name, and a comment.
        for flag in [8, 16] {
            while flags & flag != 0 && self.byte()?.ok_or_else(truncated)? != 0 {}
        }
        // A check of the header.
        for _ in 0..flags & 2 {
            self.byte()?.ok_or_else(truncated)?;
        }
        self.first = false;
        self.inflater.restart();
        Ok(true)
    }

    fn byte(&mut self) -> io::Result<Option<u8>> {
        if self.place == self.len && !self.ended {
            self.refill()?;
        }
        if self.place >= self.len {
            return Ok(None);
        }
        self.place += 1;
        Ok(Some(self.input[self.place - 1]))
    }

    /// Moves what is left to the front and reads on, so far that the inflater has enough or the file is over.
    fn refill(&mut self) -> io::Result<()> {
        self.input.copy_within(self.place..self.len, 0);
        self.len -= self.place;
        self.place = 0;
        while self.len < STORED && !self.ended {
            match self.stored.read(&mut self.input[self.len..STORED]) {
                Ok(0) => self.ended = true,
                Ok(n) => self.len += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.input[self.len..self.len + INPUT_PADDING].fill(0);
        Ok(())
    }
}

fn of_damage(damage: Damage) -> io::Error {
    match damage {
        Damage::Truncated => truncated(),
        Damage::Invalid(what) => damaged(what),
    }
}

fn truncated() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

fn damaged(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Writes one member, deflated on all threads.
pub(super) struct GzipWriter<W: Write> {
    out: W,
    sample_bytes: usize,
    waiting: Vec<u8>,
    checksum: Hasher,
    length: u32,
}

impl<W: Write> GzipWriter<W> {
    /// Bytes that one thread deflates at a time.
    const SHARE: usize = 4 * BLOCK;
    /// Bytes that are deflated before they are written.
    const BATCH: usize = 32 * Self::SHARE;

    /// A member; of bytes until it is told of larger samples.
    pub(super) fn new(mut out: W) -> io::Result<Self> {
        // No name, no time (the same samples are the same file), no matter which system.
        out.write_all(&[MAGIC[0], MAGIC[1], 8, 0, 0, 0, 0, 0, 4, 255])?;
        Ok(Self { out, sample_bytes: 1, waiting: Vec::new(), checksum: Hasher::new(), length: 0 })
    }

    pub(super) fn set_sample_bytes(&mut self, bytes: usize) {
        self.sample_bytes = bytes;
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        let rest = std::mem::take(&mut self.waiting);
        self.send(&rest, true)?;
        self.out.write_all(&self.checksum.finalize().to_le_bytes())?;
        self.out.write_all(&self.length.to_le_bytes())
    }

    fn send(&mut self, bytes: &[u8], last: bool) -> io::Result<()> {
        let shares: Vec<(Vec<u8>, Hasher)> = bytes
            .par_chunks(Self::SHARE)
            .map(|share| {
                let mut checksum = Hasher::new();
                checksum.update(share);
                (deflate(share, self.sample_bytes, false), checksum)
            })
            .collect();
        for (deflated, checksum) in shares {
            self.out.write_all(&deflated)?;
            self.checksum.combine(&checksum);
        }
        if last {
            self.out.write_all(&deflate(&[], self.sample_bytes, true))?;
        }
        self.length = self.length.wrapping_add(bytes.len() as u32);
        Ok(())
    }
}

impl<W: Write> Write for GzipWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.waiting.is_empty() && bytes.len() >= Self::BATCH {
            self.send(&bytes[..Self::BATCH], false)?;
            return Ok(Self::BATCH);
        }
        let taken = bytes.len().min(Self::BATCH - self.waiting.len());
        self.waiting.extend_from_slice(&bytes[..taken]);
        if self.waiting.len() == Self::BATCH {
            let mut batch = std::mem::take(&mut self.waiting);
            self.send(&batch, false)?;
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
