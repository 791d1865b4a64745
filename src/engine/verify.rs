//! Verification: an engine's maps against the definition in f64, with tolerances derived voxel by voxel.

use rayon::prelude::*;

use super::reference::{evaluate_bounded, judge};
use crate::error::Result;
use crate::kernel::bounded::{BoundedWord, Decisions};
use crate::kernel::{OutputKind, Runnable};
use crate::series::{Mask, Series};
use crate::stored::Window;

use super::raw_rows::RawRows;

/// Most outcomes of ambiguous comparisons that are tried for one voxel.
const MOST_OUTCOMES: u64 = 1 << 10;

/// How one map compares with the definition.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MapVerification {
    /// The map.
    pub id: String,
    /// Voxels compared.
    pub voxels: usize,
    /// The largest deviation, in the map's unit.
    pub worst_absolute: f64,
    /// The voxel where it is.
    pub worst_absolute_at: [usize; 3],
    /// The largest deviation relative to the value.
    pub worst_relative: f64,
    /// The voxel where it is.
    pub worst_relative_at: [usize; 3],
    /// The largest deviation as a share of what was allowed there; at most 1 where the map agrees.
    pub worst_share: f64,
    /// Voxels where only another outcome of a comparison within rounding gives the engine's value.
    pub ambiguous: usize,
    /// Voxels for which no tolerance can be derived, because a divisor's bound includes zero: there, 5 % of the value or of
    /// the map's median magnitude is allowed.
    pub unbounded: usize,
    /// Voxels that don't agree.
    pub failures: usize,
    /// The first voxel that doesn't agree: where, the engine's value, the definition's.
    pub first_failure: Option<([usize; 3], f64, f64)>,
}

/// How a run compares with the definition.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Verification {
    /// The engine and device that were verified.
    pub device: String,
    /// Voxels compared.
    pub voxels: usize,
    /// Map by map, the status last.
    pub maps: Vec<MapVerification>,
}

impl Verification {
    /// Whether every compared voxel of every map agrees.
    pub fn passed(&self) -> bool {
        self.maps.iter().all(|map| map.failures == 0)
    }
}

impl std::fmt::Display for Verification {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} against the f64 definition, {} voxels", self.device, self.voxels)?;
        writeln!(
            f,
            "{:<26} {:>12} {:>16} {:>12} {:>9} {:>9} {:>9} {:>8}",
            "map", "worst abs", "at", "worst rel", "of limit", "ambiguous", "unbounded", "failed"
        )?;
        for map in &self.maps {
            let at = map.worst_absolute_at.map(|i| i.to_string()).join(",");
            writeln!(
                f,
                "{:<26} {:>12.3e} {:>16} {:>12.3e} {:>8.1}% {:>9} {:>9} {:>8}",
                map.id,
                map.worst_absolute,
                at,
                map.worst_relative,
                100.0 * map.worst_share,
                map.ambiguous,
                map.unbounded,
                map.failures
            )?;
            if let Some((at, engine, definition)) = map.first_failure {
                writeln!(f, "    first at voxel {at:?}: {engine} where the definition gives {definition}")?;
            }
        }
        write!(f, "{}", if self.passed() { "PASSED" } else { "FAILED" })
    }
}

/// What is allowed where no tolerance can be derived, of the value or of the map's median magnitude.
const UNBOUNDED_SHARE: f64 = 0.05;

/// What one voxel's row amounts to.
#[derive(Clone, Copy)]
struct Comparison {
    agrees: bool,
    ambiguous: bool,
    unbounded: bool,
    deviation: f64,
    share: f64,
    engine: f64,
    definition: f64,
}

/// Compares the rows of an engine with the definition in every `step`-th voxel inside the mask.
pub(super) fn compare(
    prepared: &dyn Runnable,
    series: &Series,
    mask: Option<&Mask>,
    raw: &RawRows,
    device: String,
    step: usize,
) -> Result<Verification> {
    let inside = mask.map(Mask::flat);
    let voxels: Vec<usize> =
        (0..series.voxel_count()).filter(|i| inside.is_none_or(|m| m[*i] != 0)).step_by(step).collect();
    let mut names: Vec<(String, OutputKind)> = Vec::new();
    for output in prepared.outputs() {
        for _ in 0..output.kind.rows() {
            names.push((output.quantity.id.to_string(), output.kind));
        }
    }
    names.push(("status".into(), OutputKind::Label));
    let empty = |id: &str| MapVerification {
        id: id.into(),
        voxels: 0,
        worst_absolute: 0.0,
        worst_absolute_at: [0; 3],
        worst_relative: 0.0,
        worst_relative_at: [0; 3],
        worst_share: 0.0,
        ambiguous: 0,
        unbounded: 0,
        failures: 0,
        first_failure: None,
    };
    let [nx, ny, _] = series.spatial_shape();
    let place = |voxel: usize| [voxel % nx, voxel / nx % ny, voxel / nx / ny];
    let mut compared: Vec<(usize, Vec<Comparison>)> = Vec::with_capacity(voxels.len());
    series.for_each_window_of(&voxels, |window, here| {
        let compare = |voxel: &usize| (*voxel, compare_voxel(prepared, window, series.frames(), *voxel, raw, &names));
        compared.par_extend(here.par_iter().map(compare));
        Ok(())
    })?;
    let mut maps: Vec<MapVerification> = names.iter().map(|(id, _)| empty(id)).collect();
    let typical: Vec<f64> = (0..names.len())
        .map(|row| {
            let mut magnitudes: Vec<f64> =
                compared.iter().map(|(_, rows)| rows[row].definition.abs()).filter(|x| x.is_finite()).collect();
            magnitudes.sort_by(f64::total_cmp);
            magnitudes.get(magnitudes.len() / 2).copied().unwrap_or(0.0)
        })
        .collect();
    for (voxel, rows) in &compared {
        for ((map, row), typical) in maps.iter_mut().zip(rows).zip(&typical) {
            let mut row = *row;
            if row.unbounded {
                let allowed = UNBOUNDED_SHARE * row.definition.abs().max(*typical);
                row.agrees = row.deviation <= allowed;
                row.share = if allowed > 0.0 { row.deviation / allowed } else { 0.0 };
            }
            map.voxels += 1;
            map.ambiguous += usize::from(row.ambiguous);
            map.unbounded += usize::from(row.unbounded);
            if !row.agrees {
                map.failures += 1;
                if map.first_failure.is_none() {
                    map.first_failure = Some((place(*voxel), row.engine, row.definition));
                }
            }
            if row.deviation > map.worst_absolute {
                map.worst_absolute = row.deviation;
                map.worst_absolute_at = place(*voxel);
            }
            let relative = row.deviation / row.definition.abs();
            if row.definition != 0.0 && relative > map.worst_relative {
                map.worst_relative = relative;
                map.worst_relative_at = place(*voxel);
            }
            map.worst_share = map.worst_share.max(row.share);
        }
    }
    // The rows of a curve are one map.
    let mut joined: Vec<MapVerification> = Vec::new();
    for map in maps {
        match joined.last_mut() {
            Some(last) if last.id == map.id => join(last, &map),
            _ => joined.push(map),
        }
    }
    Ok(Verification { device, voxels: voxels.len(), maps: joined })
}

fn join(all: &mut MapVerification, row: &MapVerification) {
    if row.worst_absolute > all.worst_absolute {
        (all.worst_absolute, all.worst_absolute_at) = (row.worst_absolute, row.worst_absolute_at);
    }
    if row.worst_relative > all.worst_relative {
        (all.worst_relative, all.worst_relative_at) = (row.worst_relative, row.worst_relative_at);
    }
    all.worst_share = all.worst_share.max(row.worst_share);
    all.ambiguous += row.ambiguous;
    all.unbounded += row.unbounded;
    all.failures += row.failures;
    all.first_failure = all.first_failure.or(row.first_failure);
}

/// Compares one voxel, row by row: first with the nominal outcome of its ambiguous comparisons, then, for the rows that
/// differ, with the other outcomes.
fn compare_voxel(
    prepared: &dyn Runnable,
    window: &Window<'_>,
    frames: usize,
    voxel: usize,
    raw: &RawRows,
    names: &[(String, OutputKind)],
) -> Vec<Comparison> {
    let engine: Vec<f64> =
        names.iter().enumerate().map(|(row, (_, kind))| number(raw.rows[row][voxel], *kind)).collect();
    if let Some((definition, agrees)) = judge(prepared, window, frames, voxel, &engine) {
        return (0..names.len()).map(|row| judged(engine[row], definition[row], agrees[row])).collect();
    }
    let decisions = Decisions::default();
    decisions.restart(0);
    let nominal = evaluate_bounded(prepared, window, frames, voxel, &decisions);
    let ambiguous = decisions.ambiguous();
    let mut rows: Vec<Comparison> =
        (0..names.len()).map(|row| compare_word(raw.rows[row][voxel], nominal[row], names[row].1)).collect();
    if rows.iter().all(|row| row.agrees) || ambiguous == 0 {
        return rows;
    }
    for flips in outcomes(ambiguous) {
        decisions.restart(flips);
        let other = evaluate_bounded(prepared, window, frames, voxel, &decisions);
        for row in 0..names.len() {
            if !rows[row].agrees {
                let comparison = compare_word(raw.rows[row][voxel], other[row], names[row].1);
                if comparison.agrees {
                    rows[row] = Comparison { ambiguous: true, ..comparison };
                }
            }
        }
        if rows.iter().all(|row| row.agrees) {
            break;
        }
    }
    rows
}

/// Which of the ambiguous comparisons to turn: each alone, then each pair, then every combination of the first ten.
fn outcomes(ambiguous: u32) -> impl Iterator<Item = u64> {
    let bits = ambiguous.min(64);
    let singles = (0..bits).map(|i| 1u64 << i);
    let pairs = (0..bits).flat_map(move |i| (0..i).map(move |j| 1u64 << i | 1u64 << j));
    let all = 1..(1u64 << bits.min(10));
    singles.chain(pairs.take(MOST_OUTCOMES as usize)).chain(all)
}

/// An engine's word as a number.
fn number(word: u32, kind: OutputKind) -> f64 {
    match kind {
        OutputKind::Label => f64::from(word),
        OutputKind::Float | OutputKind::Curve(_) => f64::from(f32::from_bits(word)),
    }
}

/// A comparison that the kernel itself decided; there is no limit of which a deviation would be a share.
fn judged(engine: f64, definition: f64, agrees: bool) -> Comparison {
    let both = !(engine.is_nan() || definition.is_nan());
    let deviation = if both { (engine - definition).abs() } else { 0.0 };
    Comparison { agrees, ambiguous: false, unbounded: false, deviation, share: 0.0, engine, definition }
}

fn compare_word(word: u32, definition: BoundedWord, kind: OutputKind) -> Comparison {
    let engine = number(word, kind);
    let mut comparison = Comparison {
        agrees: true,
        ambiguous: false,
        unbounded: false,
        deviation: 0.0,
        share: 0.0,
        engine,
        definition: definition.value,
    };
    if engine.is_nan() || definition.value.is_nan() {
        comparison.agrees = engine.is_nan() && definition.value.is_nan();
        return comparison;
    }
    let deviation = (engine - definition.value).abs();
    comparison.deviation = deviation;
    if !definition.error.is_finite() {
        comparison.unbounded = true;
        return comparison;
    }
    comparison.agrees = deviation <= definition.error;
    if definition.error > 0.0 {
        comparison.share = deviation / definition.error;
    }
    comparison
}
