//! The reference engine: the definition in f64, voxel by voxel, with or without bounds on what 32 bits may lose.

use rayon::prelude::*;

use super::raw_rows::{RawRows, blank_word, outside_words, row_kinds};
use super::{NonFinite, RunOptions};
use crate::error::Result;
use crate::kernel::bounded::{Bounded, BoundedWord, Decisions};
use crate::kernel::lanes::Double;
use crate::kernel::{Curve, LARGEST_DIFFERENCE, OutputKind, Runnable};
use crate::series::{Mask, Series};
use crate::status;

/// One voxel's results in f64: the rows in order, then the status.
pub(crate) fn evaluate(prepared: &dyn Runnable, series: &Series, voxel: usize, policy: NonFinite) -> Vec<f64> {
    let Voxel { first, mut differences, finite } = Voxel::load(series, voxel);
    if !finite
        && policy == NonFinite::Skip
        && let Some(words) = evaluate_finite_frames(prepared, series, voxel)
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
pub(crate) fn evaluate_finite_frames(prepared: &dyn Runnable, series: &Series, voxel: usize) -> Option<Vec<f64>> {
    let stride = series.voxel_count();
    let samples: Vec<f64> = (0..series.frames()).map(|t| series.voxels().get_f64(voxel + t * stride)).collect();
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
    series: &Series,
    voxel: usize,
    decisions: &Decisions,
) -> Vec<BoundedWord> {
    let lanes = Bounded(decisions);
    let Voxel { first, mut differences, finite } = Voxel::load(series, voxel);
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
    series: &Series,
    voxel: usize,
    engine: &[f64],
) -> Option<(Vec<f64>, Vec<bool>)> {
    let Voxel { first, mut differences, finite } = Voxel::load(series, voxel);
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
    fn load(series: &Series, voxel: usize) -> Self {
        let (first, differences) = series.differences_at(voxel);
        let finite = usable(first, &differences);
        Self { first, differences, finite }
    }
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
    let blocks: Vec<Vec<u32>> = (0..count.div_ceil(256))
        .into_par_iter()
        .map(|block| {
            options.cancel.check()?;
            let voxels = block * 256..count.min((block + 1) * 256);
            let mut words = Vec::with_capacity(voxels.len() * kinds.len());
            for voxel in voxels.clone() {
                if inside.is_some_and(|inside| inside[voxel] == 0) {
                    words.extend_from_slice(&outside_words);
                    continue;
                }
                let values = evaluate(prepared, series, voxel, options.non_finite);
                words.extend(values.iter().zip(&kinds).map(|(value, kind)| word(*value, *kind)));
            }
            let finished = done.fetch_add(voxels.len(), std::sync::atomic::Ordering::Relaxed) + voxels.len();
            options.tell(finished, count);
            Ok(words)
        })
        .collect::<Result<_>>()?;
    let mut rows: Vec<Vec<u32>> = (0..kinds.len()).map(|_| Vec::with_capacity(count)).collect();
    for block in &blocks {
        for voxel in block.chunks_exact(kinds.len()) {
            for (row, word) in rows.iter_mut().zip(voxel) {
                row.push(*word);
            }
        }
    }
    let stage = crate::maps::StageTime {
        stage: "reference: kernel".into(),
        seconds: start.elapsed().as_secs_f64(),
        bytes: (series.voxels().len() * series.voxels().sample_bytes()) as u64,
    };
    Ok(RawRows { rows, stages: vec![stage] })
}

/// A result as the 32-bit word that maps are made of.
pub(super) fn word(value: f64, kind: OutputKind) -> u32 {
    match kind {
        OutputKind::Label => value as u32,
        OutputKind::Float | OutputKind::Curve(_) if value.is_nan() => blank_word(kind),
        OutputKind::Float | OutputKind::Curve(_) => (value as f32).to_bits(),
    }
}
