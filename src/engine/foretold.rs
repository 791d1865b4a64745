//! Runs on the CPU engine whose mean curve is foretold, summed up on the way and checked.

use super::raw_rows::RawRows;
use super::{RunOptions, cpu, prepare_with};
use crate::error::Result;
use crate::kernel::{Input, Runnable, VoxelKernel};
use crate::maps::StageTime;
use crate::reduction::Reductions;
use crate::reduction::frame_sums::FrameSums;
use crate::series::Series;

/// What a kernel makes of a whole series, its samples of 16 bits at most and at hand: the same as if it had been prepared
/// with the exact mean curve.
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

#[cfg(test)]
mod tests {
    use ndarray::Array3;

    use super::*;
    use crate::engine::Engine;
    use crate::kernels::descriptors::{Descriptors, Onset, Polarity};
    use crate::maps::{MapData, Maps};
    use crate::series::Mask;
    use crate::time::TimeAxis;
    use crate::voxels::Voxels;

    const VOXELS: usize = 1 << 18;
    const FRAMES: usize = 30;

    /// What a curve of a voxel is about at a frame.
    type Curve = fn(voxel: usize, frame: usize) -> f64;

    /// Every third voxel enhances, and so does the mean curve.
    fn usual(voxel: usize, frame: usize) -> f64 {
        let risen = frame.saturating_sub(7 + voxel % 4) as f64 / (1 + voxel % 5) as f64;
        if voxel.is_multiple_of(3) { 300.0 * (1.0 - (-risen).exp()) } else { 0.0 }
    }

    /// What a rough look finds rises at once and fades; the others rise slowly, in frames that it takes for unimportant.
    fn misleading(voxel: usize, frame: usize) -> f64 {
        let (stretch, every) = (voxel / 256, 64);
        let looked_at = stretch % every == stretch / every * 39 % every;
        match (looked_at, frame) {
            (_, 0..8) => 0.0,
            (true, _) => 9_000.0 / (frame - 7) as f64,
            (false, _) => 20.0 * (frame - 7) as f64,
        }
    }

    fn flat(_: usize, _: usize) -> f64 {
        0.0
    }

    /// A level, that with a sign, and noise: the bits of a place, mixed well (Steele et al. 2014, SplitMix).
    fn samples(curve: Curve, level: f64, sign: f64) -> Vec<i32> {
        let noise = |i: usize| {
            let mixed = (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            (mixed >> 56) as f64 / 16.0
        };
        (0..VOXELS * FRAMES).map(|i| (level + sign * curve(i % VOXELS, i / VOXELS) + noise(i)) as i32).collect()
    }

    fn words(maps: &Maps) -> Vec<Vec<u32>> {
        let bits = |data: &MapData| match data {
            MapData::Float(values) => values.iter().map(|x| x.to_bits()).collect(),
            MapData::Label(values) => values.iter().copied().collect(),
            MapData::Curve(_) => unreachable!("descriptors are no curves"),
        };
        maps.iter().map(|map| bits(&map.data)).chain([maps.status().iter().copied().collect()]).collect()
    }

    /// Whether not all was summed up before.
    fn is_foretold(maps: &Maps, bytes: u64) -> bool {
        maps.record().stages.iter().any(|stage| stage.stage.ends_with("baseline noise") && stage.bytes < bytes)
    }

    /// How often the samples are gone through.
    fn passes(maps: &Maps) -> usize {
        maps.record().stages.iter().filter(|stage| stage.stage == "cpu: kernel").count()
    }

    #[test]
    fn what_is_foretold_changes_nothing() {
        let i16s = |x: Vec<i32>| Voxels::from(x.into_iter().map(|x| x as i16).collect::<Vec<_>>());
        let u16s = |x: Vec<i32>| Voxels::from(x.into_iter().map(|x| x as u16).collect::<Vec<_>>());
        let rising = Descriptors::new().baseline_frames(0..6);
        let falling = rising.clone().polarity(Polarity::Fall);
        let saturating = rising.clone().onset(Onset::Saturating);
        let cases = [
            ("usual", i16s(samples(usual, 500.0, 1.0)), &rising, Some(1)),
            ("unsigned", u16s(samples(usual, 40_000.0, 1.0)), &rising, Some(1)),
            ("falling", i16s(samples(usual, 500.0, -1.0)), &falling, Some(1)),
            ("fitted to the peak", i16s(samples(usual, 500.0, 1.0)), &saturating, None),
            ("misleading", i16s(samples(misleading, 500.0, 1.0)), &rising, Some(2)),
            ("flat", i16s(samples(flat, 500.0, 1.0)), &rising, None),
        ];
        // A run within a mask sums up everything before.
        let mask = Mask::from_labels(Array3::ones((VOXELS, 1, 1)).view());
        for (name, voxels, kernel, foretold_passes) in cases {
            let times = TimeAxis::uniform(3.0, FRAMES).expect("even times");
            let series = Series::from_voxels(voxels, [VOXELS, 1, 1, FRAMES], times).expect("fits");
            let here = Engine::cpu().run(kernel, &series).expect("runs");
            let there = Engine::cpu().run_with(kernel, &series, &RunOptions::new().mask(&mask)).expect("runs");
            assert!(words(&here) == words(&there), "{name}");
            let settings = &there.record().settings;
            assert_eq!(
                here.record().settings,
                settings.iter().filter(|(name, _)| name != "mask").cloned().collect::<Vec<_>>()
            );
            let foretold = is_foretold(&here, series.sample_bytes());
            assert_eq!(foretold.then(|| passes(&here)), foretold_passes, "{name}");
            assert!(!is_foretold(&there, series.sample_bytes()) && passes(&there) == 1, "{name}");
        }
    }
}
