//! Gzip files of several members, inflated on all threads. Nothing in such a file says where members begin; but few bytes
//! look like a beginning, and every member ends with its length, so that its place among the inflated bytes is known ahead.
//! Should a guess be wrong, a sum won't fit, and the file is read as a stream.

use std::io;
use std::ops::Range;

use flate2::{Decompress, FlushDecompress, Status};
use rayon::prelude::*;

use super::gzip::{Checker, MAGIC, damaged, read_header, truncated};

/// Bytes that one thread looks through at a time.
const SHARE: usize = 1 << 20;
/// Bytes of a member's header at least, and of its end.
const HEADER: usize = 10;
const TRAILER: usize = 8;

/// Where members seem to lie in a file.
#[derive(Debug)]
pub(super) struct Members {
    /// Each with the number of bytes that it says to hold.
    found: Vec<(Range<usize>, usize)>,
}

impl Members {
    /// Finds them; `None` if there are not two at least.
    pub(super) fn find(stored: &[u8]) -> Option<Self> {
        let starts: Vec<usize> = (0..stored.len().div_ceil(SHARE))
            .into_par_iter()
            .flat_map_iter(|share| {
                let end = stored.len().min((share + 1) * SHARE);
                (share * SHARE..end).filter(|at| looks_like_a_header(&stored[*at..]))
            })
            .collect();
        if starts.len() < 2 || starts[0] != 0 {
            return None;
        }
        let ends = starts[1..].iter().copied().chain([stored.len()]);
        let found = starts.iter().zip(ends).map(|(start, end)| {
            let length = stored[*start..end].last_chunk::<4>()?;
            Some((*start..end, u32::from_le_bytes(*length) as usize))
        });
        Some(Self { found: found.collect::<Option<_>>()? })
    }

    /// Bytes of all of them, inflated.
    pub(super) fn inflated_bytes(&self) -> u64 {
        self.found.iter().map(|(_, length)| *length as u64).sum()
    }

    /// Inflates all of them to a buffer of exactly [`inflated_bytes`](Self::inflated_bytes), and tells how many bytes are
    /// done, which may end it.
    ///
    /// The error says that something is wrong with the file or with the guess where members begin.
    pub(super) fn inflate(
        &self,
        stored: &[u8],
        mut to: &mut [u8],
        tell: impl Fn(usize) -> io::Result<()> + Sync,
    ) -> io::Result<()> {
        let mut tasks = Vec::with_capacity(self.found.len());
        for (place, length) in &self.found {
            let (here, rest) = to.split_at_mut_checked(*length).ok_or_else(truncated)?;
            tasks.push((&stored[place.clone()], here));
            to = rest;
        }
        tasks.into_par_iter().try_for_each(|(member, to)| {
            inflate(member, to)?;
            tell(to.len())
        })
    }
}

/// Whether bytes begin as the header of a member does that any program writes.
fn looks_like_a_header(bytes: &[u8]) -> bool {
    let Some([first, magic, method, flags, _, _, _, _, level, system]) = bytes.first_chunk::<HEADER>() else {
        return false;
    };
    [*first, *magic] == MAGIC
        && *method == 8
        && flags & 0xe0 == 0
        && matches!(level, 0 | 2 | 4)
        && matches!(system, 0..=13 | 255)
}

fn inflate(member: &[u8], to: &mut [u8]) -> io::Result<()> {
    let mut rest = member;
    let mut next = || {
        let (byte, behind) = rest.split_first().ok_or_else(truncated)?;
        rest = behind;
        Ok(*byte)
    };
    let start = next()?;
    read_header(start, next)?;
    let (body, trailer) = rest.split_last_chunk::<TRAILER>().ok_or_else(truncated)?;
    let mut inflater = Decompress::new(false);
    let mut status = Status::Ok;
    while status != Status::StreamEnd {
        let (consumed, produced) = (inflater.total_in() as usize, inflater.total_out() as usize);
        let outcome = inflater.decompress(&body[consumed..], &mut to[produced..], FlushDecompress::Finish);
        status = outcome.map_err(|_| damaged("it is no deflate stream"))?;
        let stuck = (consumed, produced) == (inflater.total_in() as usize, inflater.total_out() as usize);
        if status != Status::StreamEnd && stuck {
            return Err(truncated());
        }
    }
    if inflater.total_in() as usize != body.len() || inflater.total_out() as usize != to.len() {
        return Err(damaged("its length differs"));
    }
    let mut checker = Checker::default();
    checker.add(to);
    checker.end(*trailer)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn member(bytes: &[u8]) -> Vec<u8> {
        let mut writer = GzEncoder::new(Vec::new(), Compression::new(6));
        writer.write_all(bytes).expect("into memory");
        writer.finish().expect("into memory")
    }

    fn all(stored: &[u8]) -> Option<io::Result<Vec<u8>>> {
        let members = Members::find(stored)?;
        let mut bytes = vec![0; members.inflated_bytes() as usize];
        Some(members.inflate(stored, &mut bytes, |_| Ok(())).map(|()| bytes))
    }

    #[test]
    fn several_members_come_out_as_one() {
        let bytes: Vec<u8> = (0..3 * SHARE as u32).map(|i| (i.wrapping_mul(i) >> 9) as u8).collect();
        let stored: Vec<u8> = bytes.chunks(70_001).flat_map(member).collect();
        assert!(all(&stored).expect("many members").expect("sound") == bytes);
        assert!(all(&member(&bytes)).is_none());
        assert!(all(&[]).is_none());
    }

    #[test]
    fn whatever_doesnt_fit_is_an_error() {
        let stored: Vec<u8> = [member(b"one"), member(b"two")].concat();
        assert_eq!(all(&stored).expect("two members").expect("sound"), b"onetwo");
        for place in 3..stored.len() {
            let mut damaged = stored.clone();
            damaged[place] ^= 0x40;
            // The time, the level and the system mean nothing, nor do bits behind the last one of the stream; nothing else
            // goes unnoticed.
            let meaningless = matches!(place % (stored.len() / 2), 4..10 | 14);
            let outcome = all(&damaged);
            assert!(meaningless || outcome.is_none_or(|found| found.is_err()), "{place}");
        }
        // What looks like a member within one.
        let mut false_start = vec![7u8; 100];
        false_start.extend(member(b"inside"));
        let stored = [stored_only(&false_start), member(b"end")].concat();
        assert!(all(&stored).expect("seems to be three").is_err());
        // Zeros behind the last one.
        let padded = [member(b"one"), member(b"two"), vec![0; 3]].concat();
        assert!(all(&padded).expect("two members").is_err());
    }

    /// A member whose bytes stand in it as they are.
    fn stored_only(bytes: &[u8]) -> Vec<u8> {
        let mut writer = GzEncoder::new(Vec::new(), Compression::none());
        writer.write_all(bytes).expect("into memory");
        writer.finish().expect("into memory")
    }
}
