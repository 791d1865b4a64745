//! Sums over the whole series that kernels need before they start: the mask's mean curve and the median of the baseline's
//! standard deviations. Computed once, on the host, in fixed blocks, so that every engine works with identical values.

use std::sync::{Mutex, OnceLock};
use std::time::Instant;

use fearless_simd::{Level, dispatch};
use rayon::prelude::*;

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
    stages: Mutex<Vec<StageTime>>,
    failed: Mutex<Option<Error>>,
}

impl<'a> Reductions<'a> {
    /// Nothing is computed yet.
    pub fn new(series: &'a Series, mask: Option<&'a Mask>) -> Self {
        Self { series, mask, mean: OnceLock::new(), stages: Mutex::default(), failed: Mutex::default() }
    }

    /// The mean of the scaled samples over the mask, frame by frame; voxels with a sample that isn't finite are left
    /// out. `None` if no voxel is left.
    pub fn mean_curve(&self) -> Option<&[f64]> {
        self.mean
            .get_or_init(|| self.timed("reduce: mean curve", self.series.frames(), || self.compute_mean()))
            .as_deref()
    }

    /// The median over the mask of the standard deviation (n - 1) of the baseline samples, scaled; voxels with a baseline
    /// sample that isn't finite are left out. `None` if no voxel is left or there are fewer than two baseline frames.
    pub fn baseline_sd_median(&self, frames: std::ops::Range<usize>) -> Option<f64> {
        if frames.len() < 2 {
            return None;
        }
        self.timed("reduce: baseline noise", frames.len(), || {
            let count = self.series.voxel_count();
            let mut deviations = vec![0.0f32; count];
            let level = Level::new();
            let read = self.series.for_each_window(frames.clone(), wanted(self.mask), |window| {
                let here = &mut deviations[window.range.clone()];
                here.par_chunks_mut(DEVIATION_BLOCK).enumerate().for_each(|(block, out)| {
                    let start = block * DEVIATION_BLOCK;
                    dispatch!(level, _simd => baseline_deviations(window, frames.clone(), start, out));
                });
                Ok(())
            });
            self.note(read)?;
            if let Some(mask) = self.mask {
                let inside = mask.flat();
                let mut kept = 0;
                for i in 0..count {
                    if inside[i] != 0 {
                        deviations[kept] = deviations[i];
                        kept += 1;
                    }
                }
                deviations.truncate(kept);
            }
            let median = median_of_non_negative(&deviations)?;
            Some(median * self.series.scaling().slope.abs())
        })
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

    fn note(&self, read: Result<f64>) -> Option<f64> {
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
        let scaling = self.series.scaling();
        let mut selected =
            inside.map_or(self.series.voxel_count(), |inside| inside.iter().filter(|l| **l != 0).count());
        // As `sum` begins.
        let mut sums = vec![-0.0; self.series.frames()];
        let read = self.series.for_each_window(0..self.series.frames(), wanted(self.mask), |window| {
            let inside = inside.map(|inside| &inside[window.range.clone()]);
            let mut finite = None;
            if matches!(window.voxels, Voxels::F32(_) | Voxels::F64(_) | Voxels::I64(_) | Voxels::U64(_)) {
                let here = inside.map_or(window.range.len(), |inside| inside.iter().filter(|l| **l != 0).count());
                let usable = usable_voxels(window, self.series.frames(), inside);
                let usable_count = usable.iter().filter(|l| **l != 0).count();
                // Without a single unusable voxel the sums need not look at each.
                if usable_count < here {
                    selected -= here - usable_count;
                    finite = Some(usable);
                }
            }
            add_to_sums(window, finite.as_deref().or(inside), &mut sums);
            Ok(())
        });
        self.note(read)?;
        if selected == 0 {
            return None;
        }
        Some(sums.iter().map(|sum| scaling.slope * (sum / selected as f64) + scaling.intercept).collect())
    }
}

/// Adds each frame's sum over the selected voxels: blocks in integers for integers of up to 32 bits, else in f64.
fn add_to_sums(window: &Window<'_>, inside: Option<&[u32]>, to: &mut [f64]) {
    macro_rules! sums {
        ($samples:expr, $wide:ty) => {
            add_sums_of(window, inside, $samples, <$wide>::from, |sum: $wide| sum as f64, to)
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
        Voxels::U64(v) => add_sums_of(window, inside, v, |x| x as f64, |sum: f64| sum, to),
        Voxels::I64(v) => add_sums_of(window, inside, v, |x| x as f64, |sum: f64| sum, to),
        Voxels::F32(v) => add_sums_of(window, inside, v, f64::from, |sum: f64| sum, to),
        Voxels::F64(v) => add_sums_of(window, inside, v, |x| x, |sum: f64| sum, to),
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
            for chunk in &mut chunks {
                for lane in 0..PARTIAL {
                    partial[lane] += widen(chunk[lane]);
                }
            }
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

/// Sample standard deviation over the baseline frames, in stored units, for the voxels from the window's `start`-th; NaN
/// where a sample isn't finite.
#[inline(always)]
fn baseline_deviations(window: &Window<'_>, frames: std::ops::Range<usize>, start: usize, out: &mut [f32]) {
    let n = frames.len() as f64;
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
                out[i] = (((squares[i] - sum * sum / n) / (n - 1.0)).max(0.0)).sqrt() as f32;
                // Voxels that kernels refuse have no say in the noise either.
                if !(squares[i].is_finite() && squares[i] < LARGEST_DIFFERENCE * LARGEST_DIFFERENCE) {
                    out[i] = f32::NAN;
                }
            }
        }};
    }
    match window.voxels {
        Voxels::U8(v) => deviations!(v, i32, |x: u8, first: u8| i32::from(x) - i32::from(first)),
        Voxels::I8(v) => deviations!(v, i32, |x: i8, first: i8| i32::from(x) - i32::from(first)),
        Voxels::U16(v) => deviations!(v, i32, |x: u16, first: u16| i32::from(x) - i32::from(first)),
        Voxels::I16(v) => deviations!(v, i32, |x: i16, first: i16| i32::from(x) - i32::from(first)),
        Voxels::U32(v) => deviations!(v, i64, |x: u32, first: u32| i64::from(x) - i64::from(first)),
        Voxels::I32(v) => deviations!(v, i64, |x: i32, first: i32| i64::from(x) - i64::from(first)),
        Voxels::U64(v) => deviations!(v, f64, |x: u64, first: u64| x as f64 - first as f64),
        Voxels::I64(v) => deviations!(v, f64, |x: i64, first: i64| x as f64 - first as f64),
        Voxels::F32(v) => deviations!(v, f64, |x: f32, first: f32| f64::from(x) - f64::from(first)),
        Voxels::F64(v) => deviations!(v, f64, |x: f64, first: f64| x - first),
    }
}

/// How many values fall into each of 2^16 bins; NaN into none.
fn histogram(values: &[f32], bin: impl Fn(u32) -> Option<usize> + Sync) -> Vec<u64> {
    let share = values.len().div_ceil(rayon::current_num_threads()).max(1 << 16);
    let count = |values: &[f32]| {
        let mut counts = vec![0u64; 1 << 16];
        for value in values.iter().filter(|value| !value.is_nan()) {
            if let Some(bin) = bin(value.to_bits()) {
                counts[bin] += 1;
            }
        }
        counts
    };
    let add = |mut a: Vec<u64>, b: Vec<u64>| {
        a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        a
    };
    values.par_chunks(share).map(count).reduce_with(add).unwrap_or_else(|| vec![0; 1 << 16])
}

/// The median (the mean of the middle two) of numbers that are not negative; NaN are left out.
///
/// Two counting passes over the halves of the bit pattern, which orders such numbers as their values: exact, and much
/// faster than selecting within a large array.
fn median_of_non_negative(values: &[f32]) -> Option<f64> {
    let upper = histogram(values, |bits| Some((bits >> 16) as usize));
    let total: u64 = upper.iter().sum();
    if total == 0 {
        return None;
    }
    // The rank-th smallest value, counted from 0.
    let at = |rank: u64| {
        let mut before = 0;
        let bin = upper.iter().position(|n| {
            let found = before + n > rank;
            if !found {
                before += n;
            }
            found
        })?;
        let lower = histogram(values, |bits| ((bits >> 16) as usize == bin).then_some((bits & 0xffff) as usize));
        let low = lower.iter().position(|n| {
            let found = before + n > rank;
            if !found {
                before += n;
            }
            found
        })?;
        Some(f64::from(f32::from_bits((bin as u32) << 16 | low as u32)))
    };
    let middle = at((total - 1) / 2)?;
    if total % 2 == 1 { Some(middle) } else { Some((middle + at(total / 2)?) / 2.0) }
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
        assert_eq!(median_of_non_negative(&[3.0, f32::NAN, 1.0, 2.0]), Some(2.0));
        assert_eq!(median_of_non_negative(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median_of_non_negative(&[f32::NAN]), None);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), Some(2.5));
        let many: Vec<f32> = (0..100_001).map(|i| ((i * 7919) % 100_001) as f32 * 0.37).collect();
        assert_eq!(median_of_non_negative(&many), Some(f64::from(50_000.0f32 * 0.37)));
    }

    #[test]
    fn mean_curve_leaves_out_voxels_that_are_not_finite() {
        let samples = vec![1.0f32, f32::NAN, 3.0, 5.0, 7.0, 9.0];
        let series = Series::from_voxels(samples, [3, 1, 1, 2], TimeAxis::uniform(1.0, 2).unwrap()).unwrap();
        let reductions = Reductions::new(&series, None);
        assert_eq!(reductions.mean_curve(), Some(&[2.0, 7.0][..]));
    }

    #[test]
    fn baseline_noise_is_the_sample_standard_deviation() {
        let samples = vec![10i16, 12, 14, 0];
        let series = Series::from_voxels(samples, [1, 1, 1, 4], TimeAxis::uniform(1.0, 4).unwrap()).unwrap();
        assert_eq!(Reductions::new(&series, None).baseline_sd_median(0..3), Some(2.0));
        assert_eq!(Reductions::new(&series, None).baseline_sd_median(0..1), None);
    }
}
