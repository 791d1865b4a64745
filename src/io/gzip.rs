//! Gzip files (RFC 1952) to bytes: member after member, straight to where the bytes are wanted.

use std::io::{self, Read};

use crc32fast::Hasher;
use flate2::{Decompress, FlushDecompress, Status};

/// What a gzip file begins with.
pub(super) const MAGIC: [u8; 2] = [0x1f, 0x8b];
/// Compressed bytes that are read at once.
const STORED: usize = 1 << 18;
/// Bytes that are inflated between two sums: so few that they are still in the cache, so many that keeping what later bytes
/// may refer to costs nothing.
const INFLATED: usize = 1 << 20;

/// What a member says about itself at its end, compared with what came out.
#[derive(Debug, Default)]
pub(super) struct Checker {
    checksum: Hasher,
    length: u32,
}

impl Checker {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.checksum.update(bytes);
        // A length is told modulo 2^32.
        self.length = self.length.wrapping_add(bytes.len() as u32);
    }

    /// Ends a member, of which these are the last bytes.
    pub(super) fn end(&mut self, words: [u8; 8]) -> io::Result<()> {
        let Self { checksum, length } = std::mem::take(self);
        let [a, b, c, d, e, f, g, h] = words;
        if checksum.finalize() != u32::from_le_bytes([a, b, c, d]) {
            return Err(damaged("its checksum differs"));
        }
        if length != u32::from_le_bytes([e, f, g, h]) {
            return Err(damaged("its length differs"));
        }
        Ok(())
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
    inflater: Decompress,
    checker: Checker,
}

impl<R: Read> Gunzip<R> {
    pub(super) fn new(stored: R) -> Self {
        Self {
            stored,
            input: vec![0; STORED].into_boxed_slice(),
            len: 0,
            place: 0,
            ended: false,
            state: At::Member,
            first: true,
            inflater: Decompress::new(false),
            checker: Checker::default(),
        }
    }

    /// Fills the buffer as far as the members reach and says how far that is. A stream that failed has to be let alone.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.state {
                At::End => break,
                At::Member => self.state = if self.begin_member()? { At::Body } else { At::End },
                At::Body => {
                    let end = buffer.len().min(filled + INFLATED);
                    filled += self.inflate(&mut buffer[filled..end])?;
                }
                At::Trailer => {
                    let mut words = [0; 8];
                    for byte in &mut words {
                        *byte = self.byte()?.ok_or_else(truncated)?;
                    }
                    self.checker.end(words)?;
                    self.state = At::Member;
                }
            }
        }
        Ok(filled)
    }

    /// Inflates what is there of a member's body, and reads on where nothing is.
    fn inflate(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.place == self.len && !self.ended {
            self.refill()?;
        }
        let (consumed, produced) = (self.inflater.total_in(), self.inflater.total_out());
        let outcome = self.inflater.decompress(&self.input[self.place..self.len], to, FlushDecompress::None);
        let status = outcome.map_err(|_| damaged("it is no deflate stream"))?;
        let (consumed, produced) = (self.inflater.total_in() - consumed, self.inflater.total_out() - produced);
        self.place += consumed as usize;
        self.checker.add(&to[..produced as usize]);
        if status == Status::StreamEnd {
            self.state = At::Trailer;
        } else if consumed == 0 && produced == 0 {
            return Err(if self.ended { truncated() } else { damaged("it is no deflate stream") });
        }
        Ok(produced as usize)
    }

    /// Reads past a member's header, if there is one more member.
    fn begin_member(&mut self) -> io::Result<bool> {
        let mut byte = self.byte()?;
        // Zeros may follow a member, not precede the first one.
        while byte == Some(0) && !self.first {
            byte = self.byte()?;
        }
        let Some(start) = byte else { return Ok(false) };
        read_header(start, || self.byte()?.ok_or_else(truncated))?;
        self.first = false;
        self.inflater.reset(false);
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

    fn refill(&mut self) -> io::Result<()> {
        (self.place, self.len) = (0, 0);
        while self.len == 0 && !self.ended {
            match self.stored.read(&mut self.input) {
                Ok(0) => self.ended = true,
                Ok(n) => self.len = n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// Reads past a member's header, of which the first byte is known.
pub(super) fn read_header(start: u8, mut next: impl FnMut() -> io::Result<u8>) -> io::Result<()> {
    if start != MAGIC[0] {
        return Err(damaged("bytes that aren't gzip follow it"));
    }
    let mut rest = [0; 9];
    for byte in &mut rest {
        *byte = next()?;
    }
    let [magic, method, flags, ..] = rest;
    if magic != MAGIC[1] {
        return Err(damaged("bytes that aren't gzip follow it"));
    }
    if method != 8 || flags & 0xe0 != 0 {
        return Err(damaged("its header says a method or flags that gzip doesn't have"));
    }
    if flags & 4 != 0 {
        let extra = u16::from_le_bytes([next()?, next()?]);
        for _ in 0..extra {
            next()?;
        }
    }
    // A name, and a comment.
    for flag in [8, 16] {
        while flags & flag != 0 && next()? != 0 {}
    }
    // A check of the header.
    for _ in 0..flags & 2 {
        next()?;
    }
    Ok(())
}

pub(super) fn truncated() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

pub(super) fn damaged(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, GzBuilder};

    use super::*;

    fn member(bytes: &[u8]) -> Vec<u8> {
        let mut writer = GzBuilder::new()
            .filename("a name")
            .comment("a comment")
            .extra(vec![1, 2, 3])
            .write(Vec::new(), Compression::new(6));
        writer.write_all(bytes).expect("into memory");
        writer.finish().expect("into memory")
    }

    /// Hands out a few bytes at a time.
    struct Slowly<'a>(&'a [u8]);

    impl Read for Slowly<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = self.0.len().min(buffer.len()).min(7);
            buffer[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    fn inflated(stored: &[u8], portion: usize) -> io::Result<Vec<u8>> {
        let mut gunzip = Gunzip::new(Slowly(stored));
        let mut all = Vec::new();
        loop {
            let mut part = vec![0; portion];
            let filled = gunzip.fill(&mut part)?;
            all.extend_from_slice(&part[..filled]);
            if filled < portion {
                return Ok(all);
            }
        }
    }

    #[test]
    fn members_follow_each_other_whatever_the_portions() {
        let bytes: Vec<u8> = (0..10_000u32).map(|i| ((i * i) >> 7) as u8).collect();
        let mut stored = member(&bytes[..3_000]);
        stored.extend(member(&[]));
        stored.extend([0; 5]);
        stored.extend(member(&bytes[3_000..]));
        stored.extend([0; 512]);
        for portion in [1, 7, 1000, 10_000, 20_000] {
            assert!(inflated(&stored, portion).expect("sound") == bytes, "{portion}");
        }
    }

    #[test]
    fn every_damage_is_noticed() {
        let sound = member(&[7; 4000]);
        let length = sound.len();
        let with = |place: usize, bits: u8| {
            let mut damaged = sound.clone();
            damaged[place] ^= bits;
            inflated(&damaged, 64).expect_err("damaged").to_string()
        };
        assert!(with(length - 8, 1).contains("checksum"));
        assert!(with(length - 1, 1).contains("length"));
        assert!(with(2, 1).contains("method"));
        assert!(with(length - 12, 0xff).len() > 3);
        for end in 0..length {
            let cut = inflated(&sound[..end], 64);
            assert!(cut.is_err_and(|e| e.kind() == io::ErrorKind::UnexpectedEof) || end == 0, "{end}");
        }
        let followed: Vec<u8> = sound.iter().copied().chain(*b"more").collect();
        assert!(inflated(&followed, 64).expect_err("no gzip").to_string().contains("aren't gzip"));
    }
}
