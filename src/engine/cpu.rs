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

use bytemuck::Zeroable as _;
use fearless_simd::Level;

use self::tile::{BLOCK, Line};
use super::RunOptions;
use super::raw_rows::{RawRows, fit_rows, outside_words, overwrite_outside, read_stage, wanted};
use crate::error::Result;
use crate::kernel::{Later, Runnable, Samples, ShortSamples, Tile};
use crate::maps::StageTime;
use crate::prefetch::ask;
use crate::reduction::frame_sums::FrameSums;
use crate::series::{Mask, STRETCH, Series, Stretch};
use crate::stored::Window;

/// Samples of a tile: less than half of a second-level cache. The rest holds results, and the rows that were asked for.
const TILE_BYTES: usize = 3 << 17;
/// The most voxels side by side: a tile is a multiple of it.
const WIDTH: usize = 32;
/// Voxels whose results are collected before they are copied to their rows.
const PART: usize = 1 << 11;

/// The most rows of results whose memory is asked for while they are computed: of more, it would push the tile out.
const FEW_ROWS: usize = 8;
/// Words of a line of memory.
const LINE: usize = 16;

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
    fit_rows(&mut rows, row_count, count);
    let outside_words = outside_words(kernel.outputs());
    let done = AtomicUsize::new(0);
    let mut tasks: Vec<Vec<&mut [u32]>> = (0..count.div_ceil(STRETCH)).map(|_| Vec::with_capacity(row_count)).collect();
    for row in &mut rows {
        for (task, chunk) in tasks.iter_mut().zip(row.chunks_mut(STRETCH)) {
            task.push(chunk);
        }
    }
    let waited = series.for_each_stretch(
        0..series.frames(),
        wanted(options.mask),
        tasks,
        || Workspace::new(series, kernel),
        |workspace, mut rows, Stretch { range, window }| {
            options.cancel.check()?;
            if let Some(window) = window {
                let mask = options.mask.map(Mask::flat);
                let (frames, start) = (series.frames(), range.start);
                let task = Task { window, frames, mask, outside_words: &outside_words, start, sums };
                run_task(level, kernel, &task, workspace, &mut rows);
            } else {
                rows.iter_mut().zip(&outside_words).for_each(|(row, word)| row.fill(*word));
            }
            options.tell(done.fetch_add(range.len(), Ordering::Relaxed) + range.len(), count);
            Ok(())
        },
    )?;
    let bytes = series.sample_bytes() + (row_count * count * 4) as u64;
    let seconds = start.elapsed().as_secs_f64() - waited;
    let mut stages = read_stage(series, waited);
    stages.push(StageTime { stage: "cpu: kernel".into(), seconds, bytes });
    Ok(RawRows { rows, stages, ran: None })
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

/// Voxels of the equal tiles that make up a stretch.
fn tile_voxels(voxel_bytes: usize) -> usize {
    let tiles = STRETCH.div_ceil(WIDTH).min((STRETCH * voxel_bytes).div_ceil(TILE_BYTES));
    STRETCH.div_ceil(tiles).next_multiple_of(WIDTH)
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
    /// Samples of 8 and 16 bits, block by block; unsigned ones of 16 bits are shifted by 2^15.
    short: Vec<Line>,
    shift: f32,
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
        Self {
            length,
            stride,
            differences: vec![0.0; if short { 0 } else { frames * stride }],
            short: vec![Line::zeroed(); if short { frames * length.div_ceil(BLOCK) } else { 0 }],
            shift: 0.0,
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
        tile::load(level, task, first_voxel, length, workspace);
        for (layer, values) in kernel.extra().iter().enumerate() {
            workspace.extra[layer * stride..][..length].copy_from_slice(&values[first_voxel..][..length]);
        }
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
                    Samples::Short(ShortSamples {
                        numbers: bytemuck::cast_slice(&workspace.short[part / BLOCK * task.frames..]),
                        stride: BLOCK,
                        block: BLOCK * task.frames,
                        shift: workspace.shift,
                    })
                },
                found: None,
                first: &workspace.first[part..],
                finite: &workspace.finite[part..],
                extra: workspace.extra.get(part..).unwrap_or_default(),
                inside: inside.map(|inside| &inside[part..part + voxels]),
                words: &mut workspace.words,
                word_stride: WORD_STRIDE,
            };
            if rows.len() <= FEW_ROWS {
                for row in rows.iter() {
                    row[begin + part..][..voxels].iter().step_by(LINE).for_each(ask);
                }
            }
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
    use crate::kernels::descriptors::{Descriptors, MapSelection, Polarity};
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

    /// A noisy series of 777 voxels, four of five of which rise, between `lowest` and about that and a `range` more.
    fn noisy(range: i32, lowest: i32) -> (Vec<i32>, [usize; 4]) {
        let (voxels, frames) = (777_usize, 37_usize);
        let mut state = 7u32;
        let sample = |i: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let risen = (i / voxels).saturating_sub(6 + i % voxels % 9) as f64 / 4.0;
            let height = if (i % voxels).is_multiple_of(5) { 0.0 } else { 0.8 * f64::from(range) };
            let noise = f64::from(state >> 16) / 65_536.0 * 0.2 * f64::from(range);
            lowest + (height * (1.0 - (-risen).exp()) + noise) as i32
        };
        ((0..frames * voxels).map(sample).collect(), [voxels, 1, 1, frames])
    }

    /// Ranges whose sums a scan finds modulo 2^16, larger ones and too large ones; unsigned samples beyond the signed ones.
    #[test]
    fn samples_of_16_bits_give_what_those_of_32_give() {
        let all = Descriptors::new().baseline_frames(1..5);
        let few = all.clone().maps(MapSelection::only(["peak_time", "max_slope", "auc"]));
        let times = TimeAxis::uniform(2.0, 37).expect("even times");
        let ranges = [
            (900, 100),
            (900, -32_768),
            (4_000, -500),
            (9_000, 20_000),
            (30_000, -15_000),
            (60_000, -30_000),
            (60_000, 3_000),
        ];
        for (range, lowest) in ranges {
            let (samples, shape) = noisy(range, lowest);
            let short = if samples.iter().all(|x| i16::try_from(*x).is_ok()) {
                Series::from_voxels(samples.iter().map(|x| *x as i16).collect::<Vec<_>>(), shape, times.clone())
            } else {
                Series::from_voxels(samples.iter().map(|x| *x as u16).collect::<Vec<_>>(), shape, times.clone())
            }
            .expect("fits");
            let long = Series::from_voxels(samples, shape, times.clone()).expect("fits");
            for kernel in [&all, &few, &all.clone().polarity(Polarity::Fall), &few.clone().polarity(Polarity::Fall)] {
                let rows = |series: &Series| {
                    let options = RunOptions::new();
                    let (kernel, _) = prepare(kernel, series, &options).expect("fits");
                    let run = |level| run_at(level, kernel.as_ref(), series, &options, Vec::new(), None).expect("runs");
                    levels().into_iter().map(|level| run(level).rows).collect::<Vec<_>>()
                };
                assert!(rows(&long) == rows(&short), "{range} from {lowest}, {:?}", kernel.polarity);
            }
        }
    }

    #[test]
    fn frames_are_summed_up_on_the_way() {
        let (samples, shape) = noisy(60_000, 3_000);
        let voxels = shape[0];
        let totals: Vec<f64> = samples.chunks(voxels).map(|frame| frame.iter().map(|x| f64::from(*x)).sum()).collect();
        let words: Vec<u16> = samples.iter().map(|x| *x as u16).collect();
        let series = Series::from_voxels(words, shape, TimeAxis::uniform(2.0, shape[3]).expect("even times"));
        let (series, options) = (series.expect("fits"), RunOptions::new());
        let (kernel, _) = prepare(&Descriptors::new(), &series, &options).expect("fits");
        for level in levels() {
            let sums = FrameSums::new(shape[3]);
            run_at(level, kernel.as_ref(), &series, &options, Vec::new(), Some(&sums)).expect("runs");
            assert_eq!(sums.totals(voxels, 1 << 15), totals, "{level:?}");
        }
    }
}
