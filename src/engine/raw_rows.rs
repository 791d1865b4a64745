//! What an engine brings back: words, before they become maps.

use crate::kernel::OutputKind;
use crate::maps::StageTime;

/// The bits of the NaN that stands for "no answer".
pub(crate) const NAN_BITS: u32 = 0x7fc0_0000;

/// One vector of 32-bit words per row (f32 bits, labels, bits), x fastest; the last row is the status.
#[derive(Debug, Default)]
pub(crate) struct RawRows {
    pub(crate) rows: Vec<Vec<u32>>,
    pub(crate) stages: Vec<StageTime>,
}

/// What a row of this kind holds where there is no answer.
pub(crate) fn blank_word(kind: OutputKind) -> u32 {
    match kind {
        OutputKind::Float | OutputKind::Curve(_) => NAN_BITS,
        OutputKind::Label => 0,
    }
}
