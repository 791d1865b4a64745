//! The CPU engine: the reference text in 32-bit lanes, over all cores.
//!
//! A series lies frame by frame, so the samples of a voxel are far apart. A tile of neighbouring voxels is copied row by
//! row into working memory that stays in the cache, and sixteen or thirty-two voxels of it at a time go through the
//! kernel. Samples of 8 and 16 bits are copied as such, others as differences from the first sample. Rows are as long as the
//! cache allows: memory is read ahead along a row, and anew at the beginning of each.

#[cfg(feature = "gpu")]
mod estimate;
mod tile;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use fearless_simd::Level;
use rayon::prelude::*;

use super::RunOptions;
use super::raw_rows::{RawRows, outside_words, overwrite_outside, read_stage, wanted};
use crate::error::Result;
use crate::kernel::{Later, Runnable, Samples, Scan, Tile};
use crate::maps::StageTime;
use crate::reduction::foretold::FrameSums;
use crate::series::{Mask, Series};
use crate::stored::Window;

/// Voxels that a thread takes at once.
const TASK: usize = 1 << 13;
/// Samples of a tile: half of a second-level cache. The other half holds what a scan keeps, and the rows that were asked for.
const TILE_BYTES: usize = 1 << 19;
/// The most voxels side by side: a tile is a multiple of it.
const WIDTH: usize = 32;
/// Voxels whose results are collected before they are copied to their rows.
const PART: usize = 1 << 11;

/// Runs a kernel over a series, into rows of memory that may be reused. On the way adds all samples, of 16 bits at most, to
/// sums, if there are some.
pub(super) fn run(
    kernel: &dyn Runnable,
    series: &Series,
    options: &RunOptions<'_>,
    rows: Vec<Vec<u32>>,
    sums: Option<&FrameSums>,
) -> Result<RawRows> {
    run_at(Level::new(), kernel, series, options, rows, sums)
}

/// The same with the vector instructions of a level.
fn run_at(
    level: Level,
    kernel: &dyn Runnable,
    series: &Series,
    options: &RunOptions<'_>,
    mut rows: Vec<Vec<u32>>,
    sums: Option<&FrameSums>,
) -> Result<RawRows> {
    let start = Instant::now();
    let count = series.voxel_count();
    let row_count = kernel.rows() + 1;
    rows.resize_with(row_count, Vec::new);
    for row in &mut rows {
        row.resize(count, 0);
    }
    let outside_words = outside_words(kernel.outputs());
    let done = AtomicUsize::new(0);
    let mut begun = 0;
    let waited = series.for_each_window(0..series.frames(), wanted(options.mask), |window| {
        // Nobody looks inside the mask between windows.
        blank(&mut rows, begun..window.range.start, &outside_words);
        begun = window.range.end;
        let voxels = window.range.len();
        let mut tasks: Vec<Vec<&mut [u32]>> =
            (0..voxels.div_ceil(TASK)).map(|_| Vec::with_capacity(row_count)).collect();
        for row in &mut rows {
            for (task, chunk) in tasks.iter_mut().zip(row[window.range.clone()].chunks_mut(TASK)) {
                task.push(chunk);
            }
        }
        tasks.into_par_iter().enumerate().try_for_each_init(
            || Workspace::new(series, kernel),
            |workspace, (index, mut rows)| {
                options.cancel.check()?;
                let mask = options.mask.map(Mask::flat);
                let start = window.range.start + index * TASK;
                let task = Task { window, frames: series.frames(), mask, outside_words: &outside_words, start, sums };
                run_task(level, kernel, &task, workspace, &mut rows);
                let voxels = rows[0].len();
                options.tell(done.fetch_add(voxels, Ordering::Relaxed) + voxels, count);
                Ok(())
            },
        )
    })?;
    blank(&mut rows, begun..count, &outside_words);
    let bytes = series.sample_bytes() + (row_count * count * 4) as u64;
    let seconds = start.elapsed().as_secs_f64() - waited;
    let mut stages = read_stage(series, waited);
    stages.push(StageTime { stage: "cpu: kernel".into(), seconds, bytes });
    Ok(RawRows { rows, stages, ran: None })
}

/// Voxels outside the mask that were not even read.
fn blank(rows: &mut [Vec<u32>], voxels: std::ops::Range<usize>, outside_words: &[u32]) {
    if !voxels.is_empty() {
        rows.iter_mut().zip(outside_words).for_each(|(row, word)| row[voxels.clone()].fill(*word));
    }
}

#[cfg(feature = "gpu")]
pub(super) use estimate::estimate;

/// What the CPU engine calls itself.
pub(super) fn device_name() -> String {
    format!("CPU, {} threads, {}", rayon::current_num_threads(), level_name())
}

/// What this machine's vector instructions are called.
pub(super) fn level_name() -> &'static str {
    let name = format!("{:?}", Level::new());
    for (known, text) in [
        ("Avx512", "AVX-512"),
        ("Avx2", "AVX2"),
        ("Sse4_2", "SSE4.2"),
        ("Sse2", "SSE2"),
        ("Neon", "NEON"),
        ("Wasm", "SIMD128"),
    ] {
        if name.contains(known) {
            return text;
        }
    }
    "scalar"
}

/// Equal tiles that make up a task.
fn tile_voxels(voxel_bytes: usize) -> usize {
    let tiles = TASK.div_ceil(WIDTH).min((TASK * voxel_bytes).div_ceil(TILE_BYTES));
    TASK.div_ceil(tiles).next_multiple_of(WIDTH)
}

struct Task<'a> {
    window: &'a Window<'a>,
    frames: usize,
    mask: Option<&'a [u32]>,
    outside_words: &'a [u32],
    start: usize,
    sums: Option<&'a FrameSums>,
}

/// Words from one row of a part's results to the next; apart from each other in the cache as well.
const WORD_STRIDE: usize = PART + WIDTH;

struct Workspace {
    /// Voxels of a tile.
    length: usize,
    /// Numbers from one row of a tile to the next: more than its voxels, so that rows don't all lie in the same few lines of
    /// the fastest cache.
    stride: usize,
    /// Empty where there are 16-bit samples.
    differences: Vec<f32>,
    /// Samples of 8 and 16 bits; unsigned ones of 16 bits are shifted by 2^15.
    short: Vec<i16>,
    /// What a scan of them keeps, and whether it holds.
    kept: Vec<i16>,
    sums: Vec<i32>,
    scanned: bool,
    first: Vec<f32>,
    /// 1 where the voxel's samples can be worked with, 0 elsewhere.
    finite: Vec<f32>,
    extra: Vec<f32>,
    /// Results of a part of the tile.
    words: Vec<u32>,
    later: Later,
}

impl Workspace {
    fn new(series: &Series, kernel: &dyn Runnable) -> Self {
        let frames = series.frames();
        let short = series.sample_type().bytes() <= 2;
        let length = tile_voxels(frames * if short { 2 } else { 4 });
        let stride = length + WIDTH;
        let keeps = if short { kernel.scan_keeps() } else { 0 };
        Self {
            length,
            stride,
            differences: vec![0.0; if short { 0 } else { frames * stride }],
            short: vec![0; if short { frames * stride } else { 0 }],
            kept: vec![0; keeps * stride],
            sums: vec![0; if keeps > 0 { stride } else { 0 }],
            scanned: false,
            first: vec![0.0; stride],
            finite: vec![1.0; stride],
            extra: vec![0.0; kernel.extra().len() * stride],
            words: vec![0; (kernel.rows() + 1) * WORD_STRIDE],
            later: Later::default(),
        }
    }
}

fn run_task(level: Level, kernel: &dyn Runnable, task: &Task<'_>, workspace: &mut Workspace, rows: &mut [&mut [u32]]) {
    let stride = workspace.stride;
    let voxels = rows[0].len();
    for begin in (0..voxels).step_by(workspace.length) {
        let length = workspace.length.min(voxels - begin);
        let first_voxel = task.start + begin;
        let inside = task.mask.map(|mask| &mask[first_voxel..first_voxel + length]);
        if inside.is_some_and(|inside| inside.iter().all(|label| *label == 0)) {
            for (row, word) in rows.iter_mut().zip(task.outside_words) {
                row[begin..begin + length].fill(*word);
            }
            continue;
        }
        tile::load(level, kernel, task, first_voxel, length, workspace);
        if let Some(sums) = task.sums {
            sums.add(level, &workspace.short, stride, length);
        }
        for (layer, values) in kernel.extra().iter().enumerate() {
            workspace.extra[layer * stride..][..length].copy_from_slice(&values[first_voxel..][..length]);
        }
        let keeps = kernel.scan_keeps();
        for part in (0..length).step_by(PART) {
            let voxels = PART.min(length - part);
            let mut tile = Tile {
                level,
                stride,
                length: voxels,
                frames: task.frames,
                samples: if workspace.short.is_empty() {
                    Samples::Differences(&workspace.differences[part..])
                } else {
                    Samples::Short(&workspace.short[part..])
                },
                scan: if workspace.scanned {
                    Scan::Kept(&mut workspace.kept[part * keeps..], &mut workspace.sums[part..])
                } else {
                    Scan::None
                },
                first: &workspace.first[part..],
                finite: &workspace.finite[part..],
                extra: workspace.extra.get(part..).unwrap_or_default(),
                inside: inside.map(|inside| &inside[part..part + voxels]),
                words: &mut workspace.words,
                word_stride: WORD_STRIDE,
            };
            kernel.evaluate_tile(&mut tile, &mut workspace.later);
            for (row, words) in rows.iter_mut().zip(workspace.words.chunks(WORD_STRIDE)) {
                row[begin + part..][..voxels].copy_from_slice(&words[..voxels]);
            }
        }
        if let Some(inside) = inside {
            for (row, word) in rows.iter_mut().zip(task.outside_words) {
                overwrite_outside(&mut row[begin..], inside, *word);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::prepare;
    use crate::kernels::descriptors::Descriptors;
    use crate::time::TimeAxis;

    /// What this machine has, and what it would have without its widest vectors.
    fn levels() -> Vec<Level> {
        let level = Level::new();
        #[cfg(target_arch = "x86_64")]
        let narrower = [level.as_avx2().map(Level::Avx2)];
        #[cfg(not(target_arch = "x86_64"))]
        let narrower: [Option<Level>; 0] = [];
        [level, Level::baseline()].into_iter().chain(narrower.into_iter().flatten()).collect()
    }

    #[test]
    fn every_level_of_vector_instructions_gives_the_same() {
        let (voxels, frames) = (5_000, 40);
        // Contrast arrives in frames 8 to 15 and fills slowly, in two voxels of three; noise from a congruential generator.
        let mut state = 1u32;
        let mut curve = |voxel: usize, frame: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let risen = frame.saturating_sub(8 + voxel % 8) as f64 / (1 + voxel % 13) as f64;
            let height = if voxel.is_multiple_of(3) { 0.0 } else { 300.0 };
            (500.0 + height * (1.0 - (-risen).exp()) + f64::from(state >> 24) / 8.0) as i16
        };
        let samples: Vec<i16> = (0..frames * voxels).map(|i| curve(i % voxels, i / voxels)).collect();
        let times = TimeAxis::uniform(3.0, frames).expect("even times");
        let floats: Vec<f32> = samples.iter().map(|sample| f32::from(*sample) + 0.25).collect();
        let shape = [voxels, 1, 1, frames];
        let short = Series::from_voxels(samples, shape, times.clone()).expect("fits");
        let float = Series::from_voxels(floats, shape, times).expect("fits");
        for series in [short, float] {
            let options = RunOptions::new();
            let (kernel, _) = prepare(&Descriptors::new(), &series, &options).expect("fits");
            let run = |level| run_at(level, kernel.as_ref(), &series, &options, Vec::new(), None).expect("runs").rows;
            let widest = run(levels()[0]);
            for level in &levels()[1..] {
                assert!(widest == run(*level), "{level:?}");
            }
        }
    }

    /// Ranges that a scan takes several frames of at once, one, and none; and unsigned samples beyond the signed ones.
    #[test]
    fn samples_of_16_bits_give_what_those_of_32_give() {
        let (voxels, frames) = (777_usize, 37_usize);
        for (range, lowest) in [(4_000, -500), (9_000, 20_000), (30_000, -15_000), (60_000, -30_000), (60_000, 3_000)] {
            let mut state = 7u32;
            let samples: Vec<i32> = (0..frames * voxels)
                .map(|i| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let risen = (i / voxels).saturating_sub(6 + i % voxels % 9) as f64 / 4.0;
                    let height = if i % voxels % 5 == 0 { 0.0 } else { 0.8 * f64::from(range) };
                    let noise = f64::from(state >> 16) / 65_536.0 * 0.2 * f64::from(range);
                    lowest + (height * (1.0 - (-risen).exp()) + noise) as i32
                })
                .collect();
            let times = TimeAxis::uniform(2.0, frames).expect("even times");
            let shape = [voxels, 1, 1, frames];
            let long = Series::from_voxels(samples.clone(), shape, times.clone()).expect("fits");
            let short = if samples.iter().all(|x| i16::try_from(*x).is_ok()) {
                Series::from_voxels(samples.iter().map(|x| *x as i16).collect::<Vec<_>>(), shape, times)
            } else {
                Series::from_voxels(samples.iter().map(|x| *x as u16).collect::<Vec<_>>(), shape, times)
            };
            let rows = |series: &Series| {
                let options = RunOptions::new();
                let (kernel, _) = prepare(&Descriptors::new().baseline_frames(0..5), series, &options).expect("fits");
                levels()
                    .into_iter()
                    .map(|level| run_at(level, kernel.as_ref(), series, &options, Vec::new(), None).expect("runs").rows)
                    .collect::<Vec<_>>()
            };
            assert!(rows(&long) == rows(&short.expect("fits")), "{range} from {lowest}");
        }
    }
}
