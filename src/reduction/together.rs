//! The mean curve and the baseline's noise of samples of 16 bits at most, the baseline frames read once for both: the same
//! numbers as one after the other, because all sums of such samples are exact.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use fearless_simd::{Level, Simd, SimdBase as _, SimdMask as _, dispatch, f32x16};
use rayon::prelude::*;

use super::frame_sums::FrameSums;
use super::{BLOCK, DEVIATION_BLOCK, Reductions, baseline_squares, bracket_of, middle_two, scattered, sum_block};
use crate::engine::wanted;
use crate::error::Result;
use crate::series::{Mask, STRETCH, Series, Stretch};
use crate::stored::Window;
use crate::voxels::Voxels;

/// Places, and neighbouring voxels at each, that stand for all in the first guess at a median: the samples of a place have to
/// be fetched from afar.
pub(super) const PLACES: usize = 1 << 9;
pub(super) const NEIGHBOURS: usize = 1 << 2;
const _: () = assert!(STRETCH <= BLOCK, "the sum of a stretch of 16-bit samples fits into 32 bits");

/// What is found in the baseline frames of some of the voxels.
#[derive(Default)]
struct Found {
    /// How many sums of squares there are, how many of them lie below the bracket of their median, those that lie in it.
    total: usize,
    below: usize,
    within: Vec<f32>,
}

/// What both reductions give.
pub(super) struct Both {
    /// The sum of each frame.
    pub(super) sums: Vec<f64>,
    /// Over so many voxels.
    pub(super) voxels: usize,
    /// The middle two of the sums of squared deviations, of voxels inside; `None` if there is no voxel.
    pub(super) middle: Option<(f32, f32)>,
}

/// Whether a series is one for this: at hand, with samples of 16 bits at most.
pub(super) fn serves(series: &Series) -> bool {
    series.is_at_hand() && series.sample_type().bytes() <= 2
}

/// Both reductions of a series that this [`serves`]; sums of these frames and of those of the baseline, 0 for others. Or
/// `None`, in the rare case that a sample of the voxels was misleading: then each for itself finds what it looks for.
pub(super) fn reduce(reductions: &Reductions<'_>, baseline: &Range<usize>, frames: &[usize]) -> Result<Option<Both>> {
    let (series, mask) = (reductions.series, reductions.mask);
    let sums = FrameSums::new(series.frames());
    let Found { total, below, within } = baseline_pass(series, mask, baseline, &sums)?;
    for frame in frames.iter().filter(|frame| !baseline.contains(*frame)) {
        sum_frame(series, mask, *frame, &sums)?;
    }
    let (first, last) = (total.saturating_sub(1) / 2, total / 2);
    let middle = if total == 0 {
        None
    } else if first >= below && last < below + within.len() {
        Some(middle_two(within, first - below, last - below))
    } else {
        return Ok(None);
    };
    Ok(Some(Both { sums: sums.totals(total, 0), voxels: total, middle }))
}

/// As many parts as there are stretches.
fn stretches(series: &Series) -> Vec<()> {
    vec![(); series.voxel_count().div_ceil(STRETCH)]
}

/// Adds up a frame.
fn sum_frame(series: &Series, mask: Option<&Mask>, frame: usize, sums: &FrameSums) -> Result<()> {
    let labels = mask.map(Mask::flat);
    series.for_each_stretch(
        frame..frame + 1,
        wanted(mask),
        stretches(series),
        || (),
        |(), (), Stretch { range, window }| {
            if let Some(window) = window {
                sums.add(frame, sum(window, frame, labels, range));
            }
            Ok(())
        },
    )?;
    Ok(())
}

/// The sum of a frame over these voxels, a stretch at most.
pub(super) fn sum(window: &Window<'_>, frame: usize, labels: Option<&[u32]>, range: Range<usize>) -> i64 {
    let level = Level::new();
    let here = window.at(range.start, frame)..window.at(range.end, frame);
    let inside = labels.map(|labels| &labels[range]);
    macro_rules! sum {
        ($samples:expr) => {
            i64::from(dispatch!(level, _simd => sum_block(&$samples[here], inside, &i32::from)))
        };
    }
    match window.voxels {
        Voxels::U8(v) => sum!(v),
        Voxels::I8(v) => sum!(v),
        Voxels::U16(v) => sum!(v),
        Voxels::I16(v) => sum!(v),
        _ => unreachable!("samples of 16 bits at most"),
    }
}

/// Adds up the baseline frames, and looks at their deviations meanwhile.
fn baseline_pass(series: &Series, mask: Option<&Mask>, baseline: &Range<usize>, sums: &FrameSums) -> Result<Found> {
    let level = Level::new();
    let labels = mask.map(Mask::flat);
    let (low, high) = bracket(series, labels, baseline)?;
    let all = Mutex::new(Found::default());
    series.for_each_stretch(
        baseline.clone(),
        wanted(mask),
        stretches(series),
        || (vec![0.0; STRETCH], Vec::new()),
        |(squares, within), (), Stretch { range, window }| {
            let Some(window) = window else { return Ok(()) };
            for frame in baseline.clone() {
                sums.add(frame, sum(window, frame, labels, range.clone()));
            }
            // The frames are in the cache when deviations are looked at.
            let squares = &mut squares[..range.len()];
            for (part, out) in squares.chunks_mut(DEVIATION_BLOCK).enumerate() {
                let start = range.start - window.range.start + part * DEVIATION_BLOCK;
                dispatch!(level, _simd => baseline_squares(window, baseline.clone(), start, out));
            }
            let squares = match labels {
                None => squares,
                Some(labels) => kept(squares, &labels[range]),
            };
            within.clear();
            let below = dispatch!(level, simd => collect(simd, squares, low, high, within));
            let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
            all.total += squares.len();
            all.below += below;
            all.within.extend_from_slice(within);
            Ok(())
        },
    )?;
    Ok(all.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Appends those of the values that lie in a bracket; returns how many lie below it.
#[inline(always)]
fn collect<S: Simd>(simd: S, values: &[f32], low: f32, high: f32, within: &mut Vec<f32>) -> usize {
    let (vectors, rest) = values.as_chunks::<16>();
    let mut kept = within.len();
    let mut below = 0;
    // Every vector is written as a whole, those that count in front.
    within.resize(kept + 16 * (vectors.len() + 1), 0.0);
    for vector in vectors {
        let values = f32x16::from_slice(simd, vector);
        let inside = values.simd_ge(low) & values.simd_le(high);
        values.compress(inside).store_slice(&mut within[kept..kept + 16]);
        kept += inside.to_bitmask().count_ones() as usize;
        below += values.simd_lt(low).to_bitmask().count_ones() as usize;
    }
    within.truncate(kept);
    within.extend(rest.iter().filter(|value| (low..=high).contains(*value)));
    below + rest.iter().filter(|value| **value < low).count()
}

/// Moves the values of voxels inside to the front.
fn kept<'a>(values: &'a mut [f32], inside: &[u32]) -> &'a mut [f32] {
    let mut kept = 0;
    for (i, label) in inside.iter().enumerate() {
        if *label != 0 {
            values[kept] = values[i];
            kept += 1;
        }
    }
    &mut values[..kept]
}

/// Between which sums of squares the median lies, as a sample of the voxels says.
fn bracket(series: &Series, labels: Option<&[u32]>, baseline: &Range<usize>) -> Result<(f32, f32)> {
    let count = series.voxel_count();
    let squares = |window: &Window<'_>, voxel: usize| {
        let (mut sum, mut squares) = (0.0, 0.0);
        let first = window.get_f64(voxel, baseline.start);
        for frame in baseline.clone() {
            let difference = window.get_f64(voxel, frame) - first;
            sum += difference;
            squares += difference * difference;
        }
        (squares - sum * sum / baseline.len() as f64).max(0.0) as f32
    };
    let every = count.div_ceil(PLACES);
    let places = (0..count / every).into_par_iter();
    let found = places.map_init(
        || None,
        |memory, i| {
            let start = scattered(i, every);
            let here = start..count.min(start + NEIGHBOURS);
            let inside = here.clone().filter(|voxel| labels.is_none_or(|labels| labels[*voxel] != 0));
            series.with_range(here, baseline.clone(), memory, |window| {
                inside.map(|voxel| squares(window, voxel)).collect()
            })
        },
    );
    let found: Vec<Vec<f32>> = found.collect::<Result<_>>()?;
    Ok(bracket_of(&mut found.concat()))
}
