//! How long a run will take, from a stretch of it.

use std::ops::Range;
use std::time::Instant;

use fearless_simd::Level;
use rayon::prelude::*;

use super::{RunOptions, Task, Workspace, outside_words, run_task};
use crate::error::Result;
use crate::kernel::Runnable;
use crate::series::{Mask, Series};

/// Voxels that a thread is timed on to estimate a run.
const TIMED: usize = 1 << 10;

/// Seconds that a run will take, from a stretch of voxels in the middle of it on all threads.
pub(in crate::engine) fn estimate(kernel: &dyn Runnable, series: &Series, options: &RunOptions<'_>) -> Result<f64> {
    let (count, threads) = (series.voxel_count(), rayon::current_num_threads());
    let mask = options.mask.map(Mask::flat);
    let inside =
        |range: Range<usize>| mask.map_or(range.len(), |mask| mask[range].iter().filter(|label| **label != 0).count());
    let all = inside(0..count);
    // The voxel in the middle of those inside.
    let mut before = all / 2;
    let middle = mask.map_or(count / 2, |mask| {
        let found = mask.iter().position(|label| {
            let here = *label != 0 && before == 0;
            before -= usize::from(*label != 0 && !here);
            here
        });
        found.unwrap_or(count / 2)
    });
    let length = (TIMED * threads).min(count);
    let start = middle.saturating_sub(length / 2).min(count - length);
    let outside_words = outside_words(kernel.outputs());
    let (level, row_count) = (Level::new(), kernel.rows() + 1);
    let end = start + length;
    let seconds = series.with_range(start..end, 0..series.frames(), &mut None, |window| {
        let begin = Instant::now();
        (0..length.div_ceil(TIMED)).into_par_iter().for_each(|part| {
            let start = start + part * TIMED;
            let voxels = TIMED.min(end - start);
            let mut words: Vec<Vec<u32>> = vec![vec![0; voxels]; row_count];
            let mut rows: Vec<&mut [u32]> = words.iter_mut().map(Vec::as_mut_slice).collect();
            let mut workspace = Workspace::new(series, kernel);
            let task = Task { window, frames: series.frames(), mask, outside_words: &outside_words, start, sums: None };
            run_task(level, kernel, &task, &mut workspace, &mut rows);
        });
        begin.elapsed().as_secs_f64()
    })?;
    Ok(seconds / inside(start..end).max(1) as f64 * all as f64)
}
