//! The CPU engine: the reference text in 32-bit lanes, over all cores.
//!
//! A series lies frame by frame, so the samples of a voxel are far apart. A tile of neighbouring voxels is copied row by
//! row into working memory that stays in the cache, as differences from the first sample, and sixteen voxels of it at a
//! time go through the kernel.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use fearless_simd::{Level, dispatch};
use rayon::prelude::*;

use super::RunOptions;
use super::raw_rows::{RawRows, outside_words, overwrite_outside, read_stage, wanted};
use crate::error::Result;
use crate::kernel::{LARGEST_DIFFERENCE, Runnable, Tile};
use crate::maps::StageTime;
use crate::series::{Mask, Series};
use crate::stored::Window;
use crate::voxels::Voxels;

/// Voxels that a thread takes at once.
const TASK: usize = 1 << 13;
/// Working memory of a tile: half of a small second-level cache.
const TILE_BYTES: usize = 192 << 10;
/// The most voxels side by side: a tile is a multiple of it.
const WIDTH: usize = 32;

/// Runs a kernel over a series, into rows of memory that may be reused.
pub(super) fn run(
    kernel: &dyn Runnable,
    series: &Series,
    options: &RunOptions<'_>,
    mut rows: Vec<Vec<u32>>,
) -> Result<RawRows> {
    let start = Instant::now();
    let count = series.voxel_count();
    let row_count = kernel.rows() + 1;
    rows.resize_with(row_count, Vec::new);
    for row in &mut rows {
        row.resize(count, 0);
    }
    let level = Level::new();
    let tile = tile_voxels(series.frames());
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
            || Workspace::new(series.frames(), tile, row_count, kernel.extra().len()),
            |workspace, (index, mut rows)| {
                options.cancel.check()?;
                let mask = options.mask.map(Mask::flat);
                let start = window.range.start + index * TASK;
                let task = Task { window, frames: series.frames(), mask, outside_words: &outside_words, start };
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

/// Voxels that a thread is timed on to estimate a run.
#[cfg(feature = "gpu")]
const TIMED: usize = 1 << 10;

/// Seconds that a run will take, from a stretch of voxels in the middle of it on all threads.
#[cfg(feature = "gpu")]
pub(super) fn estimate(kernel: &dyn Runnable, series: &Series, options: &RunOptions<'_>) -> Result<f64> {
    let (count, threads) = (series.voxel_count(), rayon::current_num_threads());
    let mask = options.mask.map(Mask::flat);
    let inside = |range: std::ops::Range<usize>| {
        mask.map_or(range.len(), |mask| mask[range].iter().filter(|label| **label != 0).count())
    };
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
    let (level, tile, row_count) = (Level::new(), tile_voxels(series.frames()), kernel.rows() + 1);
    let end = start + length;
    let seconds = series.with_range(start..end, |window| {
        let begin = Instant::now();
        (0..length.div_ceil(TIMED)).into_par_iter().for_each(|part| {
            let start = start + part * TIMED;
            let voxels = TIMED.min(end - start);
            let mut words: Vec<Vec<u32>> = vec![vec![0; voxels]; row_count];
            let mut rows: Vec<&mut [u32]> = words.iter_mut().map(Vec::as_mut_slice).collect();
            let mut workspace = Workspace::new(series.frames(), tile, row_count, kernel.extra().len());
            let task = Task { window, frames: series.frames(), mask, outside_words: &outside_words, start };
            run_task(level, kernel, &task, &mut workspace, &mut rows);
        });
        begin.elapsed().as_secs_f64()
    })?;
    Ok(seconds / inside(start..end).max(1) as f64 * all as f64)
}

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

fn tile_voxels(frames: usize) -> usize {
    (TILE_BYTES / (4 * frames) / WIDTH * WIDTH).clamp(WIDTH, 1024)
}

struct Task<'a> {
    window: &'a Window<'a>,
    frames: usize,
    mask: Option<&'a [u32]>,
    outside_words: &'a [u32],
    start: usize,
}

struct Workspace {
    tile: usize,
    differences: Vec<f32>,
    first: Vec<f32>,
    /// 1 where the voxel's samples can be worked with, 0 elsewhere.
    finite: Vec<f32>,
    extra: Vec<f32>,
    words: Vec<u32>,
}

impl Workspace {
    fn new(frames: usize, tile: usize, rows: usize, layers: usize) -> Self {
        Self {
            tile,
            differences: vec![0.0; frames * tile],
            first: vec![0.0; tile],
            finite: vec![1.0; tile],
            extra: vec![0.0; layers * tile],
            words: vec![0; rows * tile],
        }
    }
}

fn run_task(level: Level, kernel: &dyn Runnable, task: &Task<'_>, workspace: &mut Workspace, rows: &mut [&mut [u32]]) {
    let tile = workspace.tile;
    let voxels = rows[0].len();
    for begin in (0..voxels).step_by(tile) {
        let length = tile.min(voxels - begin);
        let first_voxel = task.start + begin;
        let inside = task.mask.map(|mask| &mask[first_voxel..first_voxel + length]);
        if inside.is_some_and(|inside| inside.iter().all(|label| *label == 0)) {
            for (row, word) in rows.iter_mut().zip(task.outside_words) {
                row[begin..begin + length].fill(*word);
            }
            continue;
        }
        dispatch!(level, _simd => load_tile(task.window, task.frames, first_voxel, length, workspace));
        for (layer, values) in kernel.extra().iter().enumerate() {
            workspace.extra[layer * tile..][..length].copy_from_slice(&values[first_voxel..][..length]);
        }
        kernel.evaluate_tile(&mut Tile {
            level,
            stride: tile,
            length,
            differences: &workspace.differences,
            first: &workspace.first,
            finite: &workspace.finite,
            extra: &workspace.extra,
            inside,
            words: &mut workspace.words,
        });
        for (row, out) in rows.iter_mut().enumerate() {
            out[begin..begin + length].copy_from_slice(&workspace.words[row * tile..][..length]);
        }
        if let Some(inside) = inside {
            for (row, word) in rows.iter_mut().zip(task.outside_words) {
                overwrite_outside(&mut row[begin..], inside, *word);
            }
        }
    }
}

/// Copies the samples of a tile, frame by frame, as differences from the first; the lanes after its end repeat nothing
/// and are never read back.
#[inline(always)]
fn load_tile(window: &Window<'_>, frames: usize, start: usize, length: usize, workspace: &mut Workspace) {
    let start = start - window.range.start;
    let tile = workspace.tile;
    macro_rules! load {
        ($samples:expr, $difference:expr) => {{
            let first = &$samples[start..start + length];
            for (to, from) in workspace.first.iter_mut().zip(first) {
                *to = *from as f32;
            }
            for t in 0..frames {
                let row = &$samples[window.row(t) + start..][..length];
                let to = &mut workspace.differences[t * tile..][..length];
                for i in 0..length {
                    to[i] = $difference(row[i], first[i]);
                }
            }
        }};
    }
    // Types whose samples may be unusable: their voxels go through the kernel as constants, and are refused by it.
    macro_rules! load_checked {
        ($samples:expr, $difference:expr) => {{
            load!($samples, $difference);
            let limit = LARGEST_DIFFERENCE as f32;
            for (finite, first) in workspace.finite.iter_mut().zip(&workspace.first[..length]) {
                *finite = f32::from(u8::from(first.is_finite()));
            }
            for t in 0..frames {
                let row = &workspace.differences[t * tile..][..length];
                for i in 0..length {
                    workspace.finite[i] = if row[i].abs() < limit { workspace.finite[i] } else { 0.0 };
                }
            }
            if workspace.finite[..length].iter().any(|finite| *finite == 0.0) {
                for t in 0..frames {
                    for i in 0..length {
                        let x = &mut workspace.differences[t * tile + i];
                        *x = if workspace.finite[i] == 0.0 { 0.0 } else { *x };
                    }
                }
                for i in 0..length {
                    workspace.first[i] = if workspace.finite[i] == 0.0 { 0.0 } else { workspace.first[i] };
                }
            }
        }};
    }
    match window.voxels {
        Voxels::U8(v) => load!(v, |x: u8, first: u8| (i32::from(x) - i32::from(first)) as f32),
        Voxels::I8(v) => load!(v, |x: i8, first: i8| (i32::from(x) - i32::from(first)) as f32),
        Voxels::U16(v) => load!(v, |x: u16, first: u16| (i32::from(x) - i32::from(first)) as f32),
        Voxels::I16(v) => load!(v, |x: i16, first: i16| (i32::from(x) - i32::from(first)) as f32),
        Voxels::U32(v) => load!(v, |x: u32, first: u32| (i64::from(x) - i64::from(first)) as f32),
        Voxels::I32(v) => load!(v, |x: i32, first: i32| (i64::from(x) - i64::from(first)) as f32),
        Voxels::U64(v) => load_checked!(v, |x: u64, first: u64| (i128::from(x) - i128::from(first)) as f32),
        Voxels::I64(v) => load_checked!(v, |x: i64, first: i64| (i128::from(x) - i128::from(first)) as f32),
        Voxels::F32(v) => load_checked!(v, |x: f32, first: f32| x - first),
        Voxels::F64(v) => load_checked!(v, |x: f64, first: f64| (x - first) as f32),
    }
}
