//! What an engine brings back: words, before they become maps.

use crate::kernel::{Output, OutputKind};
use crate::maps::StageTime;
use crate::series::{Mask, Series};
use crate::status;

/// The bits of the NaN that stands for "no answer".
pub(crate) const NAN_BITS: u32 = 0x7fc0_0000;

/// One vector of 32-bit words per row (f32 bits, labels, bits), x fastest; the last row is the status.
#[derive(Debug, Default)]
pub(crate) struct RawRows {
    pub(crate) rows: Vec<Vec<u32>>,
    pub(crate) stages: Vec<StageTime>,
    /// What ran, if it was chosen for this run.
    pub(crate) ran: Option<Ran>,
}

/// What ran, and why.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) engine: &'static str,
    pub(crate) device: String,
    pub(crate) reason: String,
}

/// So many rows of so many words: the given ones as they are, where they fit, new ones of 0. Their memory is handed out
/// when it is first used, by whatever thread that is.
pub(crate) fn fit_rows(rows: &mut Vec<Vec<u32>>, row_count: usize, words: usize) {
    rows.truncate(row_count);
    rows.iter_mut().filter(|row| row.len() != words).for_each(|row| *row = vec![0; words]);
    rows.resize_with(row_count, || vec![0; words]);
}

/// What each row holds, the status last.
pub(crate) fn row_kinds(outputs: &[Output]) -> Vec<OutputKind> {
    let rows = outputs.iter().flat_map(|output| std::iter::repeat_n(output.kind, output.kind.rows()));
    rows.chain([OutputKind::Label]).collect()
}

/// What each row holds outside the mask: no number, no label, only the status bit.
pub(crate) fn outside_words(outputs: &[Output]) -> Vec<u32> {
    let mut words: Vec<u32> = row_kinds(outputs).into_iter().map(blank_word).collect();
    if let Some(status) = words.last_mut() {
        *status = status::OUTSIDE_MASK;
    }
    words
}

/// Whether a stretch of voxels has any inside the mask.
pub(crate) fn wanted(mask: Option<&Mask>) -> impl Fn(std::ops::Range<usize>) -> bool {
    let inside = mask.map(Mask::flat);
    move |range| inside.is_none_or(|inside| inside[range].iter().any(|label| *label != 0))
}

/// What waiting for the file took, where samples stay in one.
pub(crate) fn read_stage(series: &Series, seconds: f64) -> Vec<StageTime> {
    let stage = StageTime { stage: "read".into(), seconds, bytes: series.sample_bytes() };
    if series.is_in_file() { vec![stage] } else { Vec::new() }
}

/// Writes a word where the label is 0.
pub(crate) fn overwrite_outside(row: &mut [u32], inside: &[u32], word: u32) {
    for (value, label) in row.iter_mut().zip(inside) {
        if *label == 0 {
            *value = word;
        }
    }
}

/// What a row of this kind holds where there is no answer.
pub(crate) fn blank_word(kind: OutputKind) -> u32 {
    match kind {
        OutputKind::Float | OutputKind::Curve(_) => NAN_BITS,
        OutputKind::Label => 0,
    }
}
