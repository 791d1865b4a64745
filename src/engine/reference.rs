//! The reference engine: the definition in f64, voxel by voxel, with or without bounds on what 32 bits may lose.

use rayon::prelude::*;

use super::raw_rows::{RawRows, blank_word, outside_words, read_stage, row_kinds, wanted};
use super::{NonFinite, RunOptions};
use crate::error::Result;
use crate::kernel::bounded::{Bounded, BoundedWord, Decisions};
use crate::kernel::lanes::Double;
use crate::kernel::{Curve, LARGEST_DIFFERENCE, OutputKind, Runnable};
use crate::series::{Mask, Series};
use crate::status;
use crate::stored::Window;
use crate::voxels::Voxels;

/// One voxel's results in f64: the rows in order, then the status.
pub(crate) fn evaluate(
    prepared: &dyn Runnable,
    window: &Window<'_>,
    frames: usize,
    voxel: usize,
    policy: NonFinite,
) -> Vec<f64> {
    let Voxel { first, mut differences, finite } = Voxel::load(window, frames, voxel);
    if !finite
        && policy == NonFinite::Skip
        && let Some(words) = evaluate_finite_frames(prepared, window, frames, voxel)
    {
        return words;
    }
    if !finite {
        differences.fill(0.0);
    }
    let extra: Vec<f64> = prepared.extra().iter().map(|layer| f64::from(layer[voxel])).collect();
    let first = if finite { first } else { 0.0 };
    let curve = Curve::new(Double, &differences, 1, first, finite, &extra);
    prepared.evaluate_double(curve)
}

/// A voxel with samples that are not finite, from its other frames; `None` if they don't suffice.
pub(crate) fn evaluate_finite_frames(
    prepared: &dyn Runnable,
    window: &Window<'_>,
    frames: usize,
    voxel: usize,
) -> Option<Vec<f64>> {
    let samples: Vec<f64> = (0..frames).map(|t| window.get_f64(voxel, t)).collect();
    let frames: Vec<usize> = (0..samples.len()).filter(|t| samples[*t].is_finite()).collect();
    let kernel = prepared.with_frames(&frames)?;
    let first = samples[*frames.first()?];
    let differences: Vec<f64> = frames.iter().map(|t| samples[*t] - first).collect();
    if !usable(first, &differences) {
        return None;
    }
    let extra: Vec<f64> = kernel.extra().iter().map(|layer| f64::from(layer[voxel])).collect();
    let mut words = kernel.evaluate_double(Curve::new(Double, &differences, 1, first, true, &extra));
    let status = words.last_mut()?;
    *status = f64::from(*status as u32 | status::NON_FINITE_SAMPLE);
    Some(words)
}

/// One voxel's results with the error that a 32-bit engine may make; `decisions` says how to take ambiguous comparisons.
pub(super) fn evaluate_bounded(
    prepared: &dyn Runnable,
    window: &Window<'_>,
    frames: usize,
    voxel: usize,
    decisions: &Decisions,
) -> Vec<BoundedWord> {
    let lanes = Bounded(decisions);
    let Voxel { first, mut differences, finite } = Voxel::load(window, frames, voxel);
    if !finite {
        differences.fill(0.0);
    }
    let number = |x: f64| crate::kernel::lanes::Lanes::splat(lanes, x);
    let extra: Vec<_> = prepared.extra().iter().map(|layer| number(f64::from(layer[voxel]))).collect();
    let curve = Curve::new(lanes, &differences, 1, number(if finite { first } else { 0.0 }), finite, &extra);
    prepared.evaluate_bounded(lanes, curve)
}

/// One voxel's results in f64, and a kernel's own verdict on an engine's, if it gives one.
pub(super) fn judge(
    prepared: &dyn Runnable,
    window: &Window<'_>,
    frames: usize,
    voxel: usize,
    engine: &[f64],
) -> Option<(Vec<f64>, Vec<bool>)> {
    let Voxel { first, mut differences, finite } = Voxel::load(window, frames, voxel);
    if !finite {
        differences.fill(0.0);
    }
    let extra: Vec<f64> = prepared.extra().iter().map(|layer| f64::from(layer[voxel])).collect();
    let first = if finite { first } else { 0.0 };
    let curve = || Curve::new(Double, &differences, 1, first, finite, &extra);
    // Asked first with the engine's rows alone, which costs nothing where the kernel has no verdict.
    prepared.judge(&curve(), engine, engine)?;
    let definition = prepared.evaluate_double(curve());
    let agrees = prepared.judge(&curve(), engine, &definition)?;
    Some((definition, agrees))
}

struct Voxel {
    first: f64,
    differences: Vec<f64>,
    finite: bool,
}

impl Voxel {
    fn load(window: &Window<'_>, frames: usize, voxel: usize) -> Self {
        let (first, differences) = differences_at(window, frames, voxel);
        let finite = usable(first, &differences);
        Self { first, differences, finite }
    }
}

/// The first sample of a voxel and every sample's difference from it, in stored units: exact for integers of up to 52 bits.
fn differences_at(window: &Window<'_>, frames: usize, voxel: usize) -> (f64, Vec<f64>) {
    let at = |t| window.at(voxel, t);
    let differences = match window.voxels {
        Voxels::I64(v) => (0..frames).map(|t| (i128::from(v[at(t)]) - i128::from(v[at(0)])) as f64).collect(),
        Voxels::U64(v) => (0..frames).map(|t| (i128::from(v[at(t)]) - i128::from(v[at(0)])) as f64).collect(),
        other => (0..frames).map(|t| other.get_f64(at(t)) - other.get_f64(at(0))).collect(),
    };
    (window.get_f64(voxel, 0), differences)
}

/// Whether 32-bit engines can work with these samples.
fn usable(first: f64, differences: &[f64]) -> bool {
    (first as f32).is_finite() && differences.iter().all(|d| d.abs() < LARGEST_DIFFERENCE)
}

/// Runs a kernel over a series in f64.
pub(super) fn run(prepared: &dyn Runnable, series: &Series, options: &RunOptions<'_>) -> Result<RawRows> {
    let start = std::time::Instant::now();
    let count = series.voxel_count();
    let inside = options.mask.map(Mask::flat);
    let kinds = row_kinds(prepared.outputs());
    let outside_words = outside_words(prepared.outputs());
    let done = std::sync::atomic::AtomicUsize::new(0);
    let mut rows: Vec<Vec<u32>> = outside_words.iter().map(|word| vec![*word; count]).collect();
    let waited = series.for_each_window(0..series.frames(), wanted(options.mask), |window| {
        let blocks: Vec<Vec<u32>> = (0..window.range.len().div_ceil(256))
            .into_par_iter()
            .map(|block| {
                options.cancel.check()?;
                let first = window.range.start + block * 256;
                let voxels = first..window.range.end.min(first + 256);
                let mut words = Vec::with_capacity(voxels.len() * kinds.len());
                for voxel in voxels.clone() {
                    if inside.is_some_and(|inside| inside[voxel] == 0) {
                        words.extend_from_slice(&outside_words);
                        continue;
                    }
                    let values = evaluate(prepared, window, series.frames(), voxel, options.non_finite);
                    words.extend(values.iter().zip(&kinds).map(|(value, kind)| word(*value, *kind)));
                }
                let finished = done.fetch_add(voxels.len(), std::sync::atomic::Ordering::Relaxed) + voxels.len();
                options.tell(finished, count);
                Ok(words)
            })
            .collect::<Result<_>>()?;
        for (voxel, words) in window.range.clone().zip(blocks.iter().flat_map(|block| block.chunks_exact(kinds.len())))
        {
            for (row, word) in rows.iter_mut().zip(words) {
                row[voxel] = *word;
            }
        }
        Ok(())
    })?;
    let mut stages = read_stage(series, waited);
    let stage = crate::maps::StageTime {
        stage: "reference: kernel".into(),
        seconds: start.elapsed().as_secs_f64() - waited,
        bytes: series.sample_bytes(),
    };
    stages.push(stage);
    Ok(RawRows { rows, stages, ran: None })
}

/// A result as the 32-bit word that maps are made of.
pub(super) fn word(value: f64, kind: OutputKind) -> u32 {
    match kind {
        OutputKind::Label => value as u32,
        OutputKind::Float | OutputKind::Curve(_) if value.is_nan() => blank_word(kind),
        OutputKind::Float | OutputKind::Curve(_) => (value as f32).to_bits(),
    }
}
