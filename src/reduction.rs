//! Sums over the whole series that kernels need before they start: the mask's mean curve and the median of the baseline's
//! standard deviations. Computed once, on the host, in fixed blocks, so that every engine works with identical values.

pub(crate) mod foretold;
pub(crate) mod frame_sums;
mod together;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Instant;

use fearless_simd::{Level, dispatch};
use rayon::prelude::*;

use self::frame_sums::FrameSums;
use crate::engine::wanted;
use crate::error::{Error, Result};
use crate::kernel::LARGEST_DIFFERENCE;
use crate::maps::StageTime;
use crate::series::{Mask, Series};
use crate::stored::{WINDOW_GRANULE, Window};
use crate::voxels::Voxels;

/// Voxels that are summed in sequence before sums are put together; fixed, so that results don't depend on threads.
const BLOCK: usize = 1 << 14;
const _: () = assert!(WINDOW_GRANULE.is_multiple_of(BLOCK), "windows are made of whole blocks");

/// Voxels whose deviations are computed at once: their sums stay in the fastest cache.
const DEVIATION_BLOCK: usize = 1 << 10;

/// The reductions of one series, computed when first asked for.
#[derive(Debug)]
pub struct Reductions<'a> {
    series: &'a Series,
    mask: Option<&'a Mask>,
    mean: OnceLock<Option<Vec<f64>>>,
    /// The median of the baseline's standard deviations, with the frames that it is of.
    noise: OnceLock<(Range<usize>, Option<f64>)>,
    stages: Mutex<Vec<StageTime>>,
    /// Whether the engine will sum up all frames and check, and whether it has to.
    may_foretell: bool,
    foretold: AtomicBool,
    failed: Mutex<Option<Error>>,
}

impl<'a> Reductions<'a> {
    /// Nothing is computed yet.
    pub fn new(series: &'a Series, mask: Option<&'a Mask>) -> Self {
        Self {
            series,
            mask,
            mean: OnceLock::new(),
            noise: OnceLock::new(),
            stages: Mutex::default(),
            may_foretell: false,
            foretold: AtomicBool::new(false),
            failed: Mutex::default(),
        }
    }

    /// For an engine that sums up all frames on its way, and calls [`settled`](Self::settled) if the mean curve
    /// [`is_foretold`](Self::is_foretold).
    pub(crate) fn foretelling(series: &'a Series) -> Self {
        Self { may_foretell: true, ..Self::new(series, None) }
    }

    /// Whether the mean curve is exact only in the frames that were asked for.
    pub(crate) fn is_foretold(&self) -> bool {
        self.foretold.load(Ordering::Relaxed)
    }

    /// The same with the exact mean curve.
    pub(crate) fn settled(&self, sums: &FrameSums) -> Self {
        let count = self.series.voxel_count();
        let mean = self.mean_of(&sums.totals(count, foretold::shift(self.series)), count);
        Self { mean: OnceLock::from(mean), noise: self.noise.clone(), ..Self::new(self.series, self.mask) }
    }

    /// The mean of the scaled samples over the mask, frame by frame; voxels with a sample that isn't finite are left
    /// out. `None` if no voxel is left. Exact, unless
    /// [`mean_curve_and_baseline_noise`](Self::mean_curve_and_baseline_noise) was told which frames suffice.
    pub fn mean_curve(&self) -> Option<&[f64]> {
        self.mean
            .get_or_init(|| self.timed("reduce: mean curve", self.series.frames(), || self.compute_mean()))
            .as_deref()
    }

    /// The median over the mask of the standard deviation (n - 1) of the baseline samples, scaled; voxels with a baseline
    /// sample that isn't finite are left out. `None` if no voxel is left or there are fewer than two baseline frames.
    pub fn baseline_sd_median(&self, frames: Range<usize>) -> Option<f64> {
        if frames.len() < 2 {
            return None;
        }
        if let Some((of, median)) = self.noise.get()
            && *of == frames
        {
            return *median;
        }
        self.timed("reduce: baseline noise", frames.len(), || {
            let count = self.series.voxel_count();
            let mut squares = vec![0.0f32; count];
            let level = Level::new();
            let read = self.series.for_each_window(frames.clone(), wanted(self.mask), |window| {
                let here = &mut squares[window.range.clone()];
                here.par_chunks_mut(DEVIATION_BLOCK).enumerate().for_each(|(block, out)| {
                    let start = block * DEVIATION_BLOCK;
                    dispatch!(level, _simd => baseline_squares(window, frames.clone(), start, out));
                });
                Ok(())
            });
            self.note(read)?;
            if let Some(mask) = self.mask {
                let inside = mask.flat();
                let mut kept = 0;
                for i in 0..count {
                    if inside[i] != 0 {
                        squares[kept] = squares[i];
                        kept += 1;
                    }
                }
                squares.truncate(kept);
            }
            Some(self.deviation(middle_of_many(&squares)?, frames.len()))
        })
    }

    /// Computes [`mean_curve`](Self::mean_curve) and [`baseline_sd_median`](Self::baseline_sd_median), where the samples
    /// allow it without reading the baseline frames twice: for those who need both. `deciding` says which frames of the
    /// curve have to be exact for what it is needed for, by what the curve is about: an engine may make do with these at
    /// first.
    pub fn mean_curve_and_baseline_noise(&self, frames: Range<usize>, deciding: impl FnOnce(&[f64]) -> Vec<usize>) {
        if self.mean.get().is_some() || frames.len() < 2 || !together::serves(self.series) {
            return;
        }
        let count = self.series.frames();
        let rough = if self.may_foretell && foretold::pays(self.series) {
            let about = count.div_ceil(foretold::EVERY);
            self.timed("reduce: rough mean curve", about, || self.note(foretold::rough_means(self.series)))
        } else {
            None
        };
        let exact = rough.as_ref().and_then(|rough| self.mean_of(rough, 1)).map(|rough| deciding(&rough));
        let exact = exact.unwrap_or_else(|| (0..count).collect());
        let reduced = self
            .timed("reduce: mean curve and baseline noise", exact.len(), || together::reduce(self, &frames, &exact));
        if let Some(together::Both { mut sums, voxels, middle }) = self.note(reduced).flatten() {
            if let Some(mut rough) = rough.filter(|_| exact.len() < count) {
                rough.iter_mut().for_each(|mean| *mean *= voxels as f64);
                foretold::fill_in(&mut sums, &exact, &rough);
                self.foretold.store(true, Ordering::Relaxed);
            }
            // Whoever computed one of them meanwhile found the same.
            let _ = self.mean.set(self.mean_of(&sums, voxels));
            let _ = self.noise.set((frames.clone(), middle.map(|middle| self.deviation(middle, frames.len()))));
        }
    }

    /// A noise estimate per voxel without a baseline: the median of the magnitudes of successive differences, divided by
    /// what it is for a normal distribution of unit standard deviation; scaled.
    pub fn successive_difference_sd(&self) -> Vec<f32> {
        // Median of |x1 - x2| for unit normal x: sqrt(2) times the third quartile of the normal distribution.
        const UNIT: f64 = std::f64::consts::SQRT_2 * 0.674_489_750_196_081_7;
        self.timed("reduce: successive differences", self.series.frames(), || {
            let (count, frames) = (self.series.voxel_count(), self.series.frames());
            let factor = self.series.scaling().slope.abs() / UNIT;
            let mut noise = vec![0.0f32; count];
            let read = self.series.for_each_window(0..frames, wanted(self.mask), |window| {
                let here = &mut noise[window.range.clone()];
                here.par_chunks_mut(256).enumerate().for_each(|(block, out)| {
                    let mut steps = Vec::with_capacity(frames);
                    for (i, out) in out.iter_mut().enumerate() {
                        let voxel = window.range.start + block * 256 + i;
                        let sample = |t: usize| window.get_f64(voxel, t);
                        steps.clear();
                        steps.extend((1..frames).map(|t| (sample(t) - sample(t - 1)).abs()));
                        steps.retain(|step| step.is_finite());
                        *out = match median(&mut steps) {
                            Some(median) => (median * factor) as f32,
                            None => 0.0,
                        };
                    }
                });
                Ok(())
            });
            let _ = self.note(read);
            noise
        })
    }

    /// Seconds that the reductions took so far.
    pub fn take_stages(&self) -> Vec<StageTime> {
        std::mem::take(&mut self.stages.lock().expect("no reduction panicked"))
    }

    /// What went wrong while samples were read from a file: whatever was reduced meanwhile is not to be used.
    pub(crate) fn check(&self) -> Result<()> {
        match self.failed.lock().expect("no reduction panicked").take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn note<T>(&self, read: Result<T>) -> Option<T> {
        read.map_err(|error| *self.failed.lock().expect("no reduction panicked") = Some(error)).ok()
    }

    fn timed<T>(&self, stage: &str, frames: usize, compute: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = compute();
        let bytes = (frames * self.series.voxel_count() * self.series.sample_type().bytes()) as u64;
        let time = StageTime { stage: stage.into(), seconds: start.elapsed().as_secs_f64(), bytes };
        self.stages.lock().expect("no reduction panicked").push(time);
        result
    }

    fn compute_mean(&self) -> Option<Vec<f64>> {
        let inside = self.mask.map(Mask::flat);
        let mut selected =
            inside.map_or(self.series.voxel_count(), |inside| inside.iter().filter(|l| **l != 0).count());
        let frames = 0..self.series.frames();
        // As `sum` begins.
        let mut sums = vec![-0.0; frames.len()];
        let read = self.series.for_each_window(frames.clone(), wanted(self.mask), |window| {
            let inside = inside.map(|inside| &inside[window.range.clone()]);
            let mut finite = None;
            if matches!(window.voxels, Voxels::F32(_) | Voxels::F64(_) | Voxels::I64(_) | Voxels::U64(_)) {
                let here = inside.map_or(window.range.len(), |inside| inside.iter().filter(|l| **l != 0).count());
                let usable = usable_voxels(window, frames.len(), inside);
                let usable_count = usable.iter().filter(|l| **l != 0).count();
                // Without a single unusable voxel the sums need not look at each.
                if usable_count < here {
                    selected -= here - usable_count;
                    finite = Some(usable);
                }
            }
            add_to_sums(window, finite.as_deref().or(inside), frames.clone(), &mut sums);
            Ok(())
        });
        self.note(read)?;
        self.mean_of(&sums, selected)
    }

    /// The scaled mean curve from the sums over so many voxels.
    fn mean_of(&self, sums: &[f64], voxels: usize) -> Option<Vec<f64>> {
        let scaling = self.series.scaling();
        (voxels > 0).then(|| sums.iter().map(|sum| scaling.slope * (sum / voxels as f64) + scaling.intercept).collect())
    }

    /// The scaled median of standard deviations over so many frames, from the middle two of sums of squares: roots only of
    /// what the median needs.
    fn deviation(&self, (lower, upper): (f32, f32), frames: usize) -> f64 {
        let deviation = |squares: f32| (f64::from(squares) / (frames - 1) as f64).sqrt();
        (deviation(lower) + deviation(upper)) / 2.0 * self.series.scaling().slope.abs()
    }
}

/// Adds the sum of each of these frames over the selected voxels: blocks in integers for integers of up to 32 bits, else in
/// f64.
fn add_to_sums(window: &Window<'_>, inside: Option<&[u32]>, frames: Range<usize>, to: &mut [f64]) {
    let range = window.row(frames.start)..window.row(frames.end);
    macro_rules! sums {
        ($samples:expr, $wide:ty) => {
            add_sums_of(window, inside, &$samples[range], <$wide>::from, |sum: $wide| sum as f64, to)
        };
    }
    match window.voxels {
        // A block of 2^14 samples of 16 bits sums up within 32.
        Voxels::U8(v) => sums!(v, i32),
        Voxels::I8(v) => sums!(v, i32),
        Voxels::U16(v) => sums!(v, i32),
        Voxels::I16(v) => sums!(v, i32),
        Voxels::U32(v) => sums!(v, i64),
        Voxels::I32(v) => sums!(v, i64),
        Voxels::U64(v) => add_sums_of(window, inside, &v[range], |x| x as f64, |sum: f64| sum, to),
        Voxels::I64(v) => add_sums_of(window, inside, &v[range], |x| x as f64, |sum: f64| sum, to),
        Voxels::F32(v) => add_sums_of(window, inside, &v[range], f64::from, |sum: f64| sum, to),
        Voxels::F64(v) => add_sums_of(window, inside, &v[range], |x| x, |sum: f64| sum, to),
    }
}

fn add_sums_of<T, W>(
    window: &Window<'_>,
    inside: Option<&[u32]>,
    samples: &[T],
    widen: impl Fn(T) -> W + Sync,
    finish: impl Fn(W) -> f64 + Sync,
    to: &mut [f64],
) where
    T: Copy + Sync,
    W: Copy + Default + std::ops::AddAssign + std::ops::Add<Output = W>,
{
    let level = Level::new();
    to.par_iter_mut().zip(samples.par_chunks_exact(window.range.len())).for_each(|(to, frame)| {
        let block_sum = |(block, samples): (usize, &[T])| {
            let inside = inside.map(|inside| &inside[block * BLOCK..block * BLOCK + samples.len()]);
            finish(dispatch!(level, _simd => sum_block(samples, inside, &widen)))
        };
        *to = frame.chunks(BLOCK).enumerate().map(block_sum).fold(*to, |sum, block| sum + block);
    });
}

/// The sum of a block. Independent partial sums let the compiler use vector instructions, and their fixed number keeps the
/// result the same on every machine.
#[inline(always)]
fn sum_block<T, W>(samples: &[T], inside: Option<&[u32]>, widen: &impl Fn(T) -> W) -> W
where
    T: Copy,
    W: Copy + Default + std::ops::AddAssign + std::ops::Add<Output = W>,
{
    const PARTIAL: usize = 64;
    let mut partial = [W::default(); PARTIAL];
    match inside {
        None => {
            let mut chunks = samples.chunks_exact(PARTIAL);
            // In a variable of their own, all of whose places are known when compiling: so they stay in registers.
            let mut lanes = [W::default(); PARTIAL];
            for chunk in &mut chunks {
                for lane in 0..PARTIAL {
                    lanes[lane] += widen(chunk[lane]);
                }
            }
            partial = lanes;
            for (lane, sample) in chunks.remainder().iter().enumerate() {
                partial[lane] += widen(*sample);
            }
        }
        Some(inside) => {
            for (i, (sample, label)) in samples.iter().zip(inside).enumerate() {
                if *label != 0 {
                    partial[i % PARTIAL] += widen(*sample);
                }
            }
        }
    }
    partial.into_iter().fold(W::default(), |sum, x| sum + x)
}

/// 1 for voxels inside whose samples are all finite and near enough to their first one, as kernels ask for.
fn usable_voxels(window: &Window<'_>, frames: usize, inside: Option<&[u32]>) -> Vec<u32> {
    let count = window.range.len();
    let mut usable: Vec<u32> =
        inside.map_or_else(|| vec![1; count], |inside| inside.iter().map(|l| u32::from(*l != 0)).collect());
    let level = Level::new();
    usable.par_chunks_mut(BLOCK).enumerate().for_each(|(block, out)| {
        for t in 0..frames {
            dispatch!(level, _simd => keep_usable(window, t, block * BLOCK, out));
        }
    });
    usable
}

/// `start` counts from the window's first voxel.
#[inline(always)]
fn keep_usable(window: &Window<'_>, frame: usize, start: usize, out: &mut [u32]) {
    macro_rules! keep {
        ($samples:expr, $difference:expr) => {{
            let first = &$samples[start..start + out.len()];
            let row = &$samples[window.row(frame) + start..][..out.len()];
            for i in 0..out.len() {
                let near = f64::abs($difference(row[i], first[i])) < LARGEST_DIFFERENCE;
                out[i] &= u32::from(near & (first[i] as f32).is_finite());
            }
        }};
    }
    match window.voxels {
        Voxels::F32(v) => keep!(v, |x: f32, first: f32| f64::from(x) - f64::from(first)),
        Voxels::F64(v) => keep!(v, |x: f64, first: f64| x - first),
        Voxels::I64(v) => keep!(v, |x: i64, first: i64| (i128::from(x) - i128::from(first)) as f64),
        Voxels::U64(v) => keep!(v, |x: u64, first: u64| (i128::from(x) - i128::from(first)) as f64),
        _ => {}
    }
}

/// Sum of the squared deviations from the mean over the baseline frames, in stored units, for the voxels from the window's
/// `start`-th; NaN where a sample isn't finite.
#[inline(always)]
fn baseline_squares(window: &Window<'_>, frames: Range<usize>, start: usize, out: &mut [f32]) {
    let inv_n = 1.0 / frames.len() as f64;
    macro_rules! deviations {
        ($samples:expr, $narrow:ty, $convert:expr) => {{
            let samples = $samples;
            let first = &samples[window.row(frames.start) + start..][..out.len()];
            let mut sums = [<$narrow>::default(); DEVIATION_BLOCK];
            let mut squares = [0.0f64; DEVIATION_BLOCK];
            let (sums, squares) = (&mut sums[..out.len()], &mut squares[..out.len()]);
            for t in frames.clone() {
                let row = &samples[window.row(t) + start..][..out.len()];
                for i in 0..out.len() {
                    let difference: $narrow = $convert(row[i], first[i]);
                    sums[i] += difference;
                    squares[i] += difference as f64 * difference as f64;
                }
            }
            for i in 0..out.len() {
                let sum = sums[i] as f64;
                out[i] = (squares[i] - sum * sum * inv_n).max(0.0) as f32;
                // Voxels that kernels refuse have no say in the noise either.
                if !(squares[i].is_finite() && squares[i] < LARGEST_DIFFERENCE * LARGEST_DIFFERENCE) {
                    out[i] = f32::NAN;
                }
            }
        }};
    }
    macro_rules! short_deviations {
        ($samples:expr) => {{
            if !short_baseline_squares(window, $samples, frames.clone(), start, out) {
                deviations!($samples, i32, |x, first| i32::from(x) - i32::from(first));
            }
        }};
    }
    match window.voxels {
        Voxels::U8(v) => short_deviations!(v),
        Voxels::I8(v) => short_deviations!(v),
        Voxels::U16(v) => short_deviations!(v),
        Voxels::I16(v) => short_deviations!(v),
        Voxels::U32(v) => deviations!(v, i64, |x: u32, first: u32| i64::from(x) - i64::from(first)),
        Voxels::I32(v) => deviations!(v, i64, |x: i32, first: i32| i64::from(x) - i64::from(first)),
        Voxels::U64(v) => deviations!(v, f64, |x: u64, first: u64| x as f64 - first as f64),
        Voxels::I64(v) => deviations!(v, f64, |x: i64, first: i64| x as f64 - first as f64),
        Voxels::F32(v) => deviations!(v, f64, |x: f32, first: f32| f64::from(x) - f64::from(first)),
        Voxels::F64(v) => deviations!(v, f64, |x: f64, first: f64| x - first),
    }
}

/// The same in 32-bit whole numbers, if they hold the sums; else the result is of no use, which is said.
#[inline(always)]
fn short_baseline_squares<T: Copy + Into<i32>>(
    window: &Window<'_>,
    samples: &[T],
    frames: Range<usize>,
    start: usize,
    out: &mut [f32],
) -> bool {
    const LANES: usize = 32;
    let mut largest = 0;
    let (blocks, rest) = out.as_chunks_mut::<LANES>();
    let rest_start = start + blocks.len() * LANES;
    for (block, out) in blocks.iter_mut().enumerate() {
        largest = largest.max(squares_side_by_side(window, samples, &frames, start + block * LANES, out));
    }
    for (i, out) in rest.iter_mut().enumerate() {
        largest =
            largest.max(squares_side_by_side(window, samples, &frames, rest_start + i, std::array::from_mut(out)));
    }
    i64::from(largest).pow(2) * (frames.len() as i64) < 1 << 31
}

/// The same of some voxels, whose sums stay in registers. Returns the largest difference.
#[inline(always)]
fn squares_side_by_side<T: Copy + Into<i32>, const N: usize>(
    window: &Window<'_>,
    samples: &[T],
    frames: &Range<usize>,
    start: usize,
    out: &mut [f32; N],
) -> i32 {
    let first = &samples[window.row(frames.start) + start..][..N];
    let (mut sums, mut squares, mut largest) = ([0i32; N], [0i32; N], [0i32; N]);
    for t in frames.clone() {
        let row = &samples[window.row(t) + start..][..N];
        for i in 0..N {
            let difference: i32 = row[i].into() - first[i].into();
            sums[i] = sums[i].wrapping_add(difference);
            squares[i] = squares[i].wrapping_add(difference.wrapping_mul(difference));
            largest[i] = largest[i].max(difference.abs());
        }
    }
    let inv_n = 1.0 / frames.len() as f64;
    for i in 0..N {
        let sum = f64::from(sums[i]);
        out[i] = (f64::from(squares[i]) - sum * sum * inv_n).max(0.0) as f32;
    }
    let mut most = 0;
    for difference in largest {
        most = most.max(difference);
    }
    most
}

/// Values that stand for all in the first guess at a median.
const SAMPLE: usize = 1 << 12;

/// The middle two of numbers (twice the same of an odd number of them); NaN are left out. Exact: a sample brackets it, one pass counts what
/// lies below the bracket and collects what lies in it, and the rank is found among the collected few. Should the bracket
/// have missed, everything is collected.
fn middle_of_many(values: &[f32]) -> Option<(f32, f32)> {
    let every = values.len().div_ceil(SAMPLE).max(1);
    let sample = (0..values.len() / every).map(|i| values[scattered(i, every)]);
    let mut sample: Vec<f32> = sample.filter(|value| !value.is_nan()).collect();
    let (low, high) = bracket_of(&mut sample);
    let (total, below, collected) = bracketed(values, low, high);
    if total == 0 {
        return None;
    }
    let (first, last) = ((total - 1) / 2, total / 2);
    if first >= below && last < below + collected.len() {
        return Some(middle_two(collected, first - below, last - below));
    }
    let (_, _, all) = bracketed(values, f32::NEG_INFINITY, f32::INFINITY);
    Some(middle_two(all, first, last))
}

/// The `i`-th of some places, of which there is one in `every` so many, but not at the same place of each: rows and slices of
/// images often hold a power of two. The golden section of `every`, again and again, comes everywhere.
fn scattered(i: usize, every: usize) -> usize {
    let golden = (every as f64 * 0.618_034) as usize;
    i * every + i * golden % every
}

/// Between which numbers the median of all lies, as a sample says: six standard errors of its own median to either side of
/// that, since neighbours may resemble each other.
fn bracket_of(sample: &mut [f32]) -> (f32, f32) {
    sample.sort_unstable_by(f32::total_cmp);
    let margin = 3 * sample.len().isqrt() + 1;
    let middle = sample.len() / 2;
    let low = middle.checked_sub(margin).map_or(f32::NEG_INFINITY, |i| sample[i]);
    let high = sample.get(middle + margin).copied().unwrap_or(f32::INFINITY);
    (low, high)
}

/// How many numbers there are, how many of them lie below a bracket, and those that lie in it.
fn bracketed(values: &[f32], low: f32, high: f32) -> (usize, usize, Vec<f32>) {
    let count = |values: &[f32]| {
        let (mut total, mut below, mut kept) = (0, 0, 0);
        let mut collected = vec![0.0; values.len()];
        for value in values {
            total += usize::from(!value.is_nan());
            below += usize::from(*value < low);
            collected[kept] = *value;
            kept += usize::from((*value >= low) & (*value <= high));
        }
        collected.truncate(kept);
        (total, below, collected)
    };
    let join = |(total, below, mut collected): (usize, usize, Vec<f32>), next: (usize, usize, Vec<f32>)| {
        collected.extend(next.2);
        (total + next.0, below + next.1, collected)
    };
    values.par_chunks(BLOCK).map(count).reduce(|| (0, 0, Vec::new()), join)
}

/// The numbers of two ranks, of which the second is the first or the next.
fn middle_two(mut values: Vec<f32>, first: usize, last: usize) -> (f32, f32) {
    let (_, lower, above) = values.select_nth_unstable_by(first, f32::total_cmp);
    let lower = *lower;
    if first == last { (lower, lower) } else { (lower, above.iter().copied().fold(f32::INFINITY, f32::min)) }
}

fn median(values: &mut [f64]) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    let (middle, odd) = (values.len() / 2, values.len() % 2 == 1);
    let (below, upper, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    let upper = *upper;
    if odd {
        return Some(upper);
    }
    let lower = below.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    Some((lower + upper) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::TimeAxis;

    #[test]
    fn medians_are_exact() {
        assert_eq!(middle_of_many(&[3.0, f32::NAN, 1.0, 2.0]), Some((2.0, 2.0)));
        assert_eq!(middle_of_many(&[4.0, 1.0, 2.0, 3.0]), Some((2.0, 3.0)));
        assert_eq!(middle_of_many(&[f32::NAN]), None);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), Some(2.5));
        let many: Vec<f32> = (0..100_000).map(|i| ((i * 7919) % 100_000) as f32 * 0.37).collect();
        assert_eq!(middle_of_many(&many), Some((49_999.0 * 0.37, 50_000.0 * 0.37)));
        // The sample sees one in 25 numbers only: here those that the others are not like.
        let seen = |i: usize| scattered(i / 25, 25) == i;
        let misleading: Vec<f32> = (0..100_000).map(|i| if seen(i) { i as f32 } else { -(i as f32) }).collect();
        let mut sorted = misleading.clone();
        sorted.sort_unstable_by(f32::total_cmp);
        assert_eq!(middle_of_many(&misleading), Some((sorted[49_999], sorted[50_000])));
        assert_eq!(middle_of_many(&vec![2.0; 70_000]), Some((2.0, 2.0)));
    }

    #[test]
    fn mean_curve_leaves_out_voxels_that_are_not_finite() {
        let samples = vec![1.0f32, f32::NAN, 3.0, 5.0, 7.0, 9.0];
        let series = Series::from_voxels(samples, [3, 1, 1, 2], TimeAxis::uniform(1.0, 2).unwrap()).unwrap();
        let reductions = Reductions::new(&series, None);
        assert_eq!(reductions.mean_curve(), Some(&[2.0, 7.0][..]));
    }

    /// Both reductions of the same series, together and each for itself.
    fn assert_same(samples: impl Into<Voxels>, voxels: usize, frames: usize, masked: bool) {
        let times = TimeAxis::uniform(1.0, frames).unwrap();
        let series = Series::from_voxels(samples, [voxels, 1, 1, frames], times).unwrap();
        let labels = ndarray::Array3::from_shape_fn((voxels, 1, 1), |(i, _, _)| u32::from(i % 3 != 1));
        let mask = masked.then(|| Mask::from_labels(labels.view()));
        let together = Reductions::new(&series, mask.as_ref());
        together.mean_curve_and_baseline_noise(1..6, |_| unreachable!("nothing is foretold"));
        let apart = Reductions::new(&series, mask.as_ref());
        assert_eq!(together.baseline_sd_median(1..6), apart.baseline_sd_median(1..6));
        assert_eq!(together.baseline_sd_median(0..6), apart.baseline_sd_median(0..6));
        assert_eq!(together.mean_curve(), apart.mean_curve());
        assert!(apart.mean_curve().is_some() && apart.baseline_sd_median(1..6).is_some());
    }

    #[test]
    fn reductions_are_the_same_together_and_apart() {
        let (voxels, frames) = (40_003, 9);
        let mut state = 1u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) as u16
        };
        let words: Vec<u16> = (0..voxels * frames).map(|_| random()).collect();
        for masked in [false, true] {
            // Squares that 32 bits hold the sums of, and some that they don't.
            assert_same(words.iter().map(|x| (x % 900) as i16 - 300).collect::<Vec<_>>(), voxels, frames, masked);
            assert_same(words.iter().map(|x| *x as i16).collect::<Vec<_>>(), voxels, frames, masked);
            assert_same(words.clone(), voxels, frames, masked);
            assert_same(words.iter().map(|x| *x as u8).collect::<Vec<_>>(), voxels, frames, masked);
            assert_same(words.iter().map(|x| f32::from(*x)).collect::<Vec<_>>(), voxels, frames, masked);
            // Only the voxels that stand for all in the first guess are noisy.
            let every = voxels.div_ceil(together::PLACES);
            let seen =
                |voxel: usize| (0..together::NEIGHBOURS).contains(&voxel.wrapping_sub(scattered(voxel / every, every)));
            let misleading = |i: usize| if seen(i % voxels) { words[i] as i16 } else { (i / voxels) as i16 };
            assert_same((0..voxels * frames).map(misleading).collect::<Vec<_>>(), voxels, frames, masked);
        }
    }

    #[test]
    fn baseline_noise_is_the_sample_standard_deviation() {
        let samples = vec![10i16, 12, 14, 0];
        let series = Series::from_voxels(samples, [1, 1, 1, 4], TimeAxis::uniform(1.0, 4).unwrap()).unwrap();
        assert_eq!(Reductions::new(&series, None).baseline_sd_median(0..3), Some(2.0));
        assert_eq!(Reductions::new(&series, None).baseline_sd_median(0..1), None);
    }
}
