//! The mean curve and the baseline's noise of samples of 16 bits at most, the baseline frames read once for both: the same
//! numbers as one after the other, because all sums of such samples are exact.

use std::ops::Range;

use fearless_simd::{Level, Simd, SimdBase as _, SimdMask as _, dispatch, f32x16};
use rayon::prelude::*;

use super::{BLOCK, DEVIATION_BLOCK, Reductions, add_to_sums, baseline_squares, bracket_of, middle_two, sum_block};
use crate::series::Mask;
use crate::stored::Window;
use crate::voxels::Voxels;

/// Voxels that stand for all in the first guess at a median: each of their samples has to be fetched from afar.
const SAMPLE: usize = 1 << 11;

/// What is found in the baseline frames of some of the voxels.
struct Found {
    /// The sum of each baseline frame.
    sums: Vec<f64>,
    /// How many sums of squares there are, how many of them lie below the bracket of their median, those that lie in it.
    total: usize,
    below: usize,
    within: Vec<f32>,
    /// Those of a block.
    squares: Vec<f32>,
}

impl Found {
    fn nothing(frames: usize) -> Self {
        Self { sums: vec![0.0; frames], total: 0, below: 0, within: Vec::new(), squares: vec![0.0; BLOCK] }
    }

    fn join(mut self, mut other: Self) -> Self {
        self.sums.iter_mut().zip(&other.sums).for_each(|(sum, more)| *sum += more);
        self.total += other.total;
        self.below += other.below;
        self.within.append(&mut other.within);
        self
    }
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

/// The reductions of a series in memory whose samples have 16 bits at most; sums of these frames and of those of the
/// baseline, 0 for others. Or `None`: then, and in the rare case that a sample of the voxels was misleading, each for itself
/// finds what it looks for.
pub(super) fn reduce(reductions: &Reductions<'_>, baseline: &Range<usize>, frames: &[usize]) -> Option<Both> {
    let (series, mask) = (reductions.series, reductions.mask.map(Mask::flat));
    let window = &series.whole()?;
    let found = match window.voxels {
        Voxels::U8(v) => baseline_pass(window, mask, v, baseline),
        Voxels::I8(v) => baseline_pass(window, mask, v, baseline),
        Voxels::U16(v) => baseline_pass(window, mask, v, baseline),
        Voxels::I16(v) => baseline_pass(window, mask, v, baseline),
        _ => return None,
    };
    let Found { sums, total, below, within, .. } = found;
    let mut all = vec![0.0; series.frames()];
    all[baseline.clone()].copy_from_slice(&sums);
    let others = all.par_iter_mut().enumerate();
    others.filter(|(frame, _)| !baseline.contains(frame) && frames.contains(frame)).for_each(|(frame, sum)| {
        add_to_sums(window, mask, frame..frame + 1, std::slice::from_mut(sum));
    });
    let (first, last) = (total.saturating_sub(1) / 2, total / 2);
    let middle = if total == 0 {
        None
    } else if first >= below && last < below + within.len() {
        Some(middle_two(within, first - below, last - below))
    } else {
        return None;
    };
    Some(Both { sums: all, voxels: total, middle })
}

fn baseline_pass<T: Copy + Sync + Into<i32>>(
    window: &Window<'_>,
    mask: Option<&[u32]>,
    samples: &[T],
    baseline: &Range<usize>,
) -> Found {
    let (count, level) = (window.range.len(), Level::new());
    let (low, high) = bracket(window, mask, samples, baseline);
    (0..count.div_ceil(BLOCK))
        .into_par_iter()
        .fold(
            || Found::nothing(baseline.len()),
            |mut found, block| {
                let here = block * BLOCK..count.min((block + 1) * BLOCK);
                let inside = mask.map(|mask| &mask[here.clone()]);
                for (sum, t) in found.sums.iter_mut().zip(baseline.clone()) {
                    let row = &samples[t * count..][here.clone()];
                    let more: i32 = dispatch!(level, _simd => sum_block(row, inside, &T::into));
                    *sum += f64::from(more);
                }
                // The frames are in the cache when deviations are looked at.
                let squares = &mut found.squares[..here.len()];
                for (part, out) in squares.chunks_mut(DEVIATION_BLOCK).enumerate() {
                    let start = here.start + part * DEVIATION_BLOCK;
                    dispatch!(level, _simd => baseline_squares(window, baseline.clone(), start, out));
                }
                let Found { squares, within, below, total, .. } = &mut found;
                let squares = match inside {
                    None => &squares[..here.len()],
                    Some(inside) => kept(squares, inside),
                };
                *total += squares.len();
                *below += dispatch!(level, simd => collect(simd, squares, low, high, within));
                found
            },
        )
        .reduce(|| Found::nothing(baseline.len()), Found::join)
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
fn kept<'a>(values: &'a mut [f32], inside: &[u32]) -> &'a [f32] {
    let mut kept = 0;
    for (i, label) in inside.iter().enumerate() {
        if *label != 0 {
            values[kept] = values[i];
            kept += 1;
        }
    }
    &values[..kept]
}

/// Between which sums of squares the median lies, as a sample of the voxels says.
fn bracket<T: Copy + Sync + Into<i32>>(
    window: &Window<'_>,
    mask: Option<&[u32]>,
    samples: &[T],
    baseline: &Range<usize>,
) -> (f32, f32) {
    let count = window.range.len();
    let inside = |voxel: &usize| mask.is_none_or(|mask| mask[*voxel] != 0);
    let squares = |voxel: usize| {
        let (mut sum, mut squares) = (0.0, 0.0);
        let first: i32 = samples[baseline.start * count + voxel].into();
        for t in baseline.clone() {
            let sample: i32 = samples[t * count + voxel].into();
            let difference = f64::from(sample - first);
            sum += difference;
            squares += difference * difference;
        }
        (squares - sum * sum / baseline.len() as f64).max(0.0) as f32
    };
    let voxels = (0..count).into_par_iter().step_by(count.div_ceil(SAMPLE).max(1));
    let mut sample: Vec<f32> = voxels.filter(inside).map(squares).collect();
    bracket_of(&mut sample)
}
