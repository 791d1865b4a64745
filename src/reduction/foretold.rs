//! A mean curve of which only some frames are summed up before a run.
//!
//! What is decided by the mean curve is often decided by a few frames of it. An engine that goes through all samples anyway
//! can sum up the frames on its way, and see afterwards that the exact curve decides the same: that spares a pass over the
//! samples. Which frames decide, a rough curve of some of the voxels tells.

use std::sync::atomic::{AtomicI64, Ordering};

use fearless_simd::{Level, dispatch};
use rayon::prelude::*;

use super::sum_block;
use crate::series::Series;
use crate::voxels::Voxels;

/// Neighbouring voxels that are looked at for a rough curve: a few lines of memory.
const STRETCH: usize = 1 << 8;
/// Of so many such stretches one.
pub(super) const EVERY: usize = 1 << 6;
/// Series of fewer voxels are summed up in less time than it takes to foretell.
const FEWEST: usize = 1 << 18;

/// The sums of frames, of samples of 16 bits at most: exact, whoever adds to them when.
#[derive(Debug)]
pub(crate) struct FrameSums(Vec<AtomicI64>);

impl FrameSums {
    /// Of so many frames, all 0.
    pub(crate) fn new(frames: usize) -> Self {
        Self((0..frames).map(|_| AtomicI64::new(0)).collect())
    }

    /// Adds some voxels, whose frames begin `stride` apart.
    pub(crate) fn add(&self, level: Level, samples: &[i16], stride: usize, voxels: usize) {
        for (sum, row) in self.0.iter().zip(samples.chunks(stride)) {
            let more: i32 = dispatch!(level, _simd => sum_block(&row[..voxels], None, &i32::from));
            sum.fetch_add(i64::from(more), Ordering::Relaxed);
        }
    }

    /// The sums as they are now; each of so many voxels was stored less by `shift`.
    pub(super) fn totals(&self, voxels: usize, shift: i64) -> Vec<f64> {
        self.0.iter().map(|sum| (sum.load(Ordering::Relaxed) + shift * voxels as i64) as f64).collect()
    }
}

/// Whether it pays to foretell the mean curve of all voxels of a series.
pub(crate) fn pays(series: &Series) -> bool {
    series.whole().is_some() && series.sample_type().bytes() <= 2 && series.voxel_count() >= FEWEST
}

/// What each of the engine's working samples is less than the stored one.
pub(super) fn shift(series: &Series) -> i64 {
    match series.whole().map(|window| window.voxels) {
        Some(Voxels::U16(_)) => 1 << 15,
        _ => 0,
    }
}

/// About the mean of every frame, in stored units, if samples are of such a type and in memory.
pub(super) fn rough_means(series: &Series) -> Option<Vec<f64>> {
    let window = series.whole()?;
    let count = series.voxel_count();
    Some(match window.voxels {
        Voxels::U8(v) => means_of_stretches(v, count),
        Voxels::I8(v) => means_of_stretches(v, count),
        Voxels::U16(v) => means_of_stretches(v, count),
        Voxels::I16(v) => means_of_stretches(v, count),
        _ => return None,
    })
}

fn means_of_stretches<T: Copy + Sync + Into<i32>>(samples: &[T], count: usize) -> Vec<f64> {
    let level = Level::new();
    let stretches = count / (STRETCH * EVERY);
    // Not at the same place of every so many voxels: rows and slices of images often hold a power of two. Their golden
    // section, again and again, comes everywhere.
    let golden = (EVERY as f64 * 0.618_034) as usize;
    let start = |i: usize| (i * EVERY + i * golden % EVERY) * STRETCH;
    let mean = |frame: &[T]| {
        let sum = |i| -> i32 { dispatch!(level, _simd => sum_block(&frame[start(i)..][..STRETCH], None, &T::into)) };
        (0..stretches).map(|i| f64::from(sum(i))).sum::<f64>() / (stretches * STRETCH) as f64
    };
    samples.par_chunks_exact(count).map(mean).collect()
}

/// Fills a curve of which only these frames are known in by a rough one, turned and moved so that both agree in the highest
/// and the lowest of those frames.
pub(super) fn fill_in(curve: &mut [f64], known: &[usize], rough: &[f64]) {
    let by_height = |a: &&usize, b: &&usize| rough[**a].total_cmp(&rough[**b]);
    let (Some(&low), Some(&high)) = (known.iter().min_by(by_height), known.iter().max_by(by_height)) else { return };
    let span = rough[high] - rough[low];
    let turn = if span > 0.0 { (curve[high] - curve[low]) / span } else { 0.0 };
    let lowest = curve[low];
    for i in (0..curve.len()).filter(|i| !known.contains(i)) {
        curve[i] = lowest + turn * (rough[i] - rough[low]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rough_curve_is_turned_and_moved() {
        // Twice as high as the rough one, and 1 above it.
        let rough = [0.0, 3.0, 1.0, 4.0, 2.0];
        let mut curve = [1.0, 0.0, 0.0, 9.0, 0.0];
        fill_in(&mut curve, &[0, 3], &rough);
        assert_eq!(curve, [1.0, 7.0, 3.0, 9.0, 5.0]);
    }

    #[test]
    fn sums_are_those_of_the_samples() {
        let sums = FrameSums::new(2);
        sums.add(Level::new(), &[1, 2, 3, 9, -4, 5, -6, 9], 4, 3);
        sums.add(Level::baseline(), &[i16::MAX; 8], 4, 2);
        assert_eq!(sums.totals(5, 1), [5.0 + 6.0 + 65_534.0, 5.0 - 5.0 + 65_534.0]);
    }
}
