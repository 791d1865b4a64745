//! Runs on the CPU engine whose mean curve is foretold, summed up on the way and checked.

use super::{RunOptions, cpu, prepare_with};
use crate::error::Result;
use crate::kernel::{Input, Runnable, VoxelKernel};
use crate::maps::StageTime;
use crate::reduction::Reductions;
use crate::reduction::foretold::FrameSums;
use crate::series::Series;

use super::raw_rows::RawRows;

/// What a kernel makes of a whole series, all samples of 16 bits at most and in memory; the same as if it had been prepared with
/// the exact mean curve.
pub(super) fn run<K: VoxelKernel>(
    kernel: &K,
    series: &Series,
    options: &RunOptions<'_>,
    memory: Vec<Vec<u32>>,
) -> Result<(Box<dyn Runnable>, Vec<StageTime>, RawRows)> {
    let reductions = Reductions::foretelling(series);
    let (prepared, mut stages) = prepare_with(kernel, series, options, &reductions)?;
    options.cancel.check()?;
    if !reductions.is_foretold() {
        let raw = cpu::run(prepared.as_ref(), series, options, memory, None)?;
        return Ok((prepared, stages, raw));
    }
    let sums = FrameSums::new(series.frames());
    let mut raw = cpu::run(prepared.as_ref(), series, options, memory, Some(&sums))?;
    let settled = kernel.prepare(&Input { series, mask: None, reductions: &reductions.settled(&sums) })?;
    // Settings hold all that was decided.
    if settled.settings() != prepared.settings() {
        stages.append(&mut raw.stages);
        raw = cpu::run(settled.as_ref(), series, options, raw.rows, None)?;
    }
    Ok((settled, stages, raw))
}
