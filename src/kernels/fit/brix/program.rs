//! The same for GPUs: settings and tables as the shader lays them out.

use bytemuck::{Pod, Zeroable};

use super::descents::{CONTINUATIONS, RESTARTS, STARTS};
use super::search::CELLS;
use super::tables::{RATES, Tables, slot};
use crate::kernel::Program;

/// `Settings` of `shaders/fit/brix.wgsl`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct ShaderSettings {
    cells: u32,
    onsets: u32,
    onsets_per_search: u32,
    baseline_start: u32,
    baseline_end: u32,
    onset_fixed: u32,
    layer: u32,
    curves_at: u32,
    squares_at: u32,
    cells_at: u32,
    numbers_at: u32,
    times_at: u32,
    intervals_at: u32,
    slope: f32,
    intercept: f32,
    onset: f32,
    inverse_baseline: f32,
    held_turns: u32,
    padding_a: u32,
    padding_b: u32,
    low: [f32; 4],
    high: [f32; 4],
    slots: [i32; slot::COUNT],
}

const SOURCES: &[&str] =
    &[include_str!("../../../../shaders/fit/refinement.wgsl"), include_str!("../../../../shaders/fit/brix.wgsl")];

/// Words that the shader keeps per voxel.
const STATE_WORDS: usize = 55;
/// Turns of loops that one search or descent may take: software Vulkan of Mesa 22.3.6 stops all loops after 65,535.
pub(super) const LOOP_TURNS: usize = 40_000;
const REFINEMENTS: usize = STARTS + CONTINUATIONS[0] + RESTARTS + CONTINUATIONS[1];

pub(super) fn program(t: &Tables) -> Program {
    let mut values: Vec<f32> = Vec::new();
    let mut append = |numbers: &mut dyn Iterator<Item = f64>| {
        let at = values.len() as u32;
        values.extend(numbers.map(|x| x as f32));
        at
    };
    let curves_at = append(&mut t.dictionaries.iter().flat_map(|d| d.curves.iter().copied()));
    let squares_at = append(&mut t.dictionaries.iter().flat_map(|d| d.squares.iter().copied()));
    let numbers_at = append(&mut t.dictionaries.iter().flat_map(|d| d.cells.iter().copied()));
    let cells = &t.cells;
    let cells_at = append(
        &mut (0..cells.fast.len()).flat_map(|c| [cells.most[c], cells.amplitude[c], cells.kep[c], cells.kel[c]]),
    );
    let times_at = append(&mut t.times.iter().copied());
    let intervals_at = append(&mut t.starts.iter().zip(t.ends.iter()).flat_map(|(start, end)| [*start, *end]));
    let per_onset = RATES * (t.n / 4 + 5) + cells.fast.len() + 1 + RATES * (1 + CELLS);
    let onsets_per_search = (LOOP_TURNS.saturating_sub(3 * t.n) / per_onset).max(1);
    let searches = t.dictionaries.len().div_ceil(onsets_per_search);
    let names = [vec!["search"; searches], vec!["refine"; REFINEMENTS], vec!["finish"]];
    let entry_points = names.concat();
    let settings = ShaderSettings {
        cells: cells.fast.len() as u32,
        onsets: t.dictionaries.len() as u32,
        onsets_per_search: onsets_per_search as u32,
        baseline_start: t.baseline.start as u32,
        baseline_end: t.baseline.end as u32,
        onset_fixed: u32::from(t.onset.is_some()),
        layer: u32::from(t.layer),
        curves_at,
        squares_at,
        cells_at,
        numbers_at,
        times_at,
        intervals_at,
        slope: t.slope as f32,
        intercept: t.intercept as f32,
        onset: t.onset.unwrap_or(0.0) as f32,
        inverse_baseline: (1.0 / t.baseline.len() as f64) as f32,
        held_turns: t.held_turns as u32,
        padding_a: 0,
        padding_b: 0,
        low: t.bounds.map(|bounds| bounds.0 as f32),
        high: t.bounds.map(|bounds| bounds.1 as f32),
        slots: t.slots,
    };
    Program {
        entry_points: entry_points.into(),
        tables: values.into(),
        state_words: STATE_WORDS,
        ..Program::new("brix_fit", SOURCES, &settings)
    }
}

#[cfg(all(test, feature = "gpu"))]
mod tests {
    use super::super::descents::{
        FAR_APART, FIRST_HELD, HARDLY_BENT, HARDLY_FALLING, LEAST_RATIO, NOTHING_LEFT, TURNS,
    };
    use super::super::tables::CELL_NUMBERS;
    use super::*;
    use crate::engine::gpu::text;

    #[test]
    fn both_texts_have_the_same_settings_and_constants() {
        let module = text::kernel(SOURCES);
        text::assert_same_layout!(
            &module, "Settings", ShaderSettings:
            cells onsets onsets_per_search baseline_start baseline_end onset_fixed layer curves_at squares_at cells_at
            numbers_at times_at intervals_at slope intercept onset inverse_baseline held_turns padding_a padding_b low high slots
        );
        let constants = text::constants(&module);
        for (name, value) in [
            ("SLOT_STANDARD_ERROR", slot::STANDARD_ERROR),
            ("SLOT_BASELINE", slot::BASELINE),
            ("SLOT_SSE", slot::SSE),
            ("SLOT_R_SQUARED", slot::R_SQUARED),
            ("SLOT_AIC", slot::AIC),
            ("SLOT_ITERATIONS", slot::ITERATIONS),
            ("SLOT_FITTED_CURVE", slot::FITTED_CURVE),
            ("SLOT_RESIDUAL", slot::RESIDUAL),
            ("RATES", RATES),
            ("CELLS", CELLS),
            ("STARTS", STARTS),
            ("CONTINUATIONS", CONTINUATIONS[0]),
            ("RESTARTS", RESTARTS),
            ("FIRST_HELD", FIRST_HELD),
            ("TURNS", TURNS),
            ("CELL_NUMBERS", CELL_NUMBERS),
        ] {
            assert_eq!(constants.get(name), Some(&(value as u32)), "{name}");
        }
        for (name, value) in [
            ("FAR_APART", FAR_APART),
            ("HARDLY_BENT", HARDLY_BENT),
            ("HARDLY_FALLING", HARDLY_FALLING),
            ("LEAST_RATIO", LEAST_RATIO),
            ("NOTHING_LEFT", NOTHING_LEFT),
        ] {
            assert_eq!(text::numbers(&SOURCES.concat(), name), [value], "{name}");
        }
    }
}
