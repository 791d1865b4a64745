//! Engines: what runs a kernel over a series.

#[cfg(feature = "gpu")]
pub mod gpu;
mod options;

pub use options::{Cancel, NonFinite, Progress, RunOptions};

use crate::maps::StageTime;

/// What an engine brings back: one vector of 32-bit words per row (f32 bits, labels, bits), x fastest; the last row is
/// the status.
#[derive(Debug, Default)]
pub(crate) struct RawRows {
    pub(crate) rows: Vec<Vec<u32>>,
    pub(crate) stages: Vec<StageTime>,
}
