//! A mean curve of which only some frames are summed up before a run.
//!
//! What is decided by the mean curve is often decided by a few frames of it. An engine that goes through all samples anyway
//! can sum up the frames on its way, and see afterwards that the exact curve decides the same: that spares a pass over the
//! samples. Which frames decide, a rough curve of some of the voxels tells.

use rayon::prelude::*;

use super::frame_sums::FrameSums;
use super::scattered;
use super::together::{self, sum};
use crate::error::Result;
use crate::series::Series;
use crate::voxels::SampleType;

/// Neighbouring voxels that are looked at for a rough curve: a few lines of memory.
const FEW: usize = 1 << 8;
/// Of so many times so many voxels some.
pub(super) const EVERY: usize = 1 << 6;
/// Series of fewer voxels are summed up in less time than it takes to foretell.
const FEWEST: usize = 1 << 18;

/// Whether it pays to foretell the mean curve of all voxels of a series.
pub(crate) fn pays(series: &Series) -> bool {
    together::serves(series) && series.voxel_count() >= FEWEST
}

/// What each of the engine's working samples is less than the stored one.
pub(super) fn shift(series: &Series) -> i64 {
    match series.sample_type() {
        SampleType::U16 => 1 << 15,
        _ => 0,
    }
}

/// About the mean of every frame, in stored units, of samples of 16 bits at most that are at hand.
pub(super) fn rough_means(series: &Series) -> Result<Vec<f64>> {
    let frames = series.frames();
    let stretches = series.voxel_count() / (FEW * EVERY);
    let sums = FrameSums::new(frames);
    (0..stretches).into_par_iter().try_for_each_init(
        || None,
        |memory, i| {
            let start = scattered(i, EVERY) * FEW;
            let voxels = start..start + FEW;
            series.with_range(voxels.clone(), 0..frames, memory, |window| {
                for frame in 0..frames {
                    sums.add(frame, sum(window, frame, None, voxels.clone()));
                }
            })
        },
    )?;
    Ok(sums.totals(0, 0).iter().map(|sum| sum / (stretches * FEW) as f64).collect())
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
}
