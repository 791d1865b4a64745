//! Deflate streams, in and out.
//!
//! Of their own because samples are not text: inflating is a third faster than zlib-rs and needs no C compiler, and
//! deflating is several times faster than the lowest level of a general compressor, with smaller results.

mod inflate;
mod pack;

pub(super) use inflate::{INPUT_PADDING, Inflater, Input, OUTPUT_SLACK, Pause};
pub(super) use pack::{BLOCK, deflate};

/// Bytes that a match can reach back.
pub(super) const HISTORY: usize = 1 << 15;

/// What is wrong with a compressed stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Damage {
    /// It ends too early.
    Truncated,
    /// It can't have been written so.
    Invalid(&'static str),
}

#[cfg(test)]
mod tests;
