//! The same for GPUs: settings and tables as the shader lays them out.

use bytemuck::{Pod, Zeroable};

use super::linear::LinearTables;
use super::reference::{TURNS, descents};
use super::search::{DELAYS, PARTNERS, STARTS};
use super::tables::{ALL_RATES, Tables};
use crate::kernel::Program;

/// `Settings` of `shaders/fit/two_rate.wgsl`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct ShaderSettings {
    pairs: u32,
    delays: u32,
    delays_per_search: u32,
    layer: u32,
    before: u32,
    steps: u32,
    knots: u32,
    curves_at: u32,
    products_at: u32,
    pairs_at: u32,
    curve_squares_at: u32,
    rates_at: u32,
    steps_at: u32,
    frame_times_at: u32,
    knots_at: u32,
    nodes_at: u32,
    slope: f32,
    intercept: f32,
    fixed_delay: f32,
    reach: f32,
    log_step: f32,
    delay_low: f32,
    delay_high: f32,
    linear_at: u32,
    low: [f32; 4],
    high: [f32; 4],
    slots: [i32; 24],
}

const SHADER: &str = include_str!("../../../../shaders/fit/two_rate.wgsl");
const SOURCES: &[&str] = &[
    include_str!("../../../../shaders/fit/refinement.wgsl"),
    SHADER,
    include_str!("../../../../shaders/fit/two_rate/linear.wgsl"),
];

/// Words that the shader keeps per voxel; the linear method has no use for those of the search.
const LINEAR_STATE_WORDS: usize = 6 * (STARTS + PARTNERS + DELAYS) + 39;
const STATE_WORDS: usize = LINEAR_STATE_WORDS + 2 * ALL_RATES + 4 * (ALL_RATES * (ALL_RATES - 1) / 2);
/// Turns of loops that one search may take: software Vulkan of Mesa 22.3.6 stops all loops after 65,535.
const LOOP_TURNS: usize = 40_000;
/// Turns of the loops over parameters in one turn of a refinement.
const ALGEBRA: usize = 1500;

pub(super) fn program(t: &Tables) -> Program {
    let mut values: Vec<f32> = Vec::new();
    let mut append = |numbers: &mut dyn Iterator<Item = f64>| {
        let at = values.len() as u32;
        values.extend(numbers.map(|x| x as f32));
        at
    };
    let curves_at = append(&mut t.curves.iter().copied());
    let products_at = append(&mut t.dictionaries.iter().flat_map(|d| {
        let numbers = [&d.overlap, &d.inverse_beside, &d.linear, &d.square];
        (0..t.pairs.count()).flat_map(move |pair| numbers.map(|list| list[pair]))
    }));
    let curve_squares_at = append(&mut t.curve_squares.iter().copied());
    let rates_at = append(&mut t.rates.iter().copied());
    let pairs = &t.pairs;
    let pairs_at = append(
        &mut (0..pairs.count())
            .flat_map(|pair| [pairs.fast[pair], pairs.slow[pair], pairs.low_share[pair], pairs.high_share[pair]]),
    );
    let steps = &t.steps;
    let steps_at = append(&mut steps.table().into_iter());
    let frame_times_at = append(&mut t.frame_times.iter().copied());
    let d = &t.delay;
    let knots_at =
        append(&mut (0..d.knot_times.len()).flat_map(|k| [d.knot_times[k], d.knot_values[k], d.knot_slopes[k]]));
    let nodes: &[f64] = if d.own { &d.nodes } else { &[0.0] };
    let nodes_at = append(&mut nodes.iter().copied());
    let linear_at = append(&mut t.linear.iter().flat_map(|linear| linear_numbers(linear, t.n)));
    let around = if d.own { DELAYS } else { 0 };
    let refinements = descents(t);
    let per_delay = t.rates.len() * (t.n / 4 + 5) + pairs.count() + 1 + 7 * around;
    let begin = 3 * t.n + STATE_WORDS;
    let delays_per_search = (LOOP_TURNS.saturating_sub(begin) / per_delay).max(1);
    let search_turns = delays_per_search * per_delay + begin;
    let walk = t.n + steps.steps.len();
    let choose_turns = 10 * t.pairs.count() + 3 * walk + t.n * ALL_RATES + 10 * ALL_RATES;
    let refine_turns = TURNS * (walk + ALGEBRA);
    let searches = t.dictionaries.len().div_ceil(delays_per_search);
    let entry_points = if t.linear.is_some() {
        vec!["linear", "finish"]
    } else {
        [vec!["search"; searches], vec!["choose"], vec!["refine"; refinements], vec!["finish"]].concat()
    };
    let settings = ShaderSettings {
        pairs: pairs.count() as u32,
        delays: t.dictionaries.len() as u32,
        delays_per_search: delays_per_search as u32,
        layer: u32::from(d.layer),
        before: steps.before as u32,
        steps: steps.steps.len() as u32,
        knots: d.knot_times.len() as u32,
        curves_at,
        products_at,
        pairs_at,
        curve_squares_at,
        rates_at,
        steps_at,
        frame_times_at,
        knots_at,
        nodes_at,
        slope: t.slope as f32,
        intercept: t.intercept as f32,
        fixed_delay: t.fixed_delay as f32,
        reach: d.reach as f32,
        log_step: t.log_step as f32,
        delay_low: d.bounds.0 as f32,
        delay_high: d.bounds.1 as f32,
        linear_at,
        low: t.bounds.map(|bounds| bounds.0 as f32),
        high: t.bounds.map(|bounds| bounds.1 as f32),
        slots: t.plan.slots,
    };
    Program {
        entry_points: entry_points.into(),
        constants: vec![
            ("LINEAR", f64::from(t.linear.is_some())),
            ("OWN_DELAY", f64::from(d.own)),
            ("NEEDS_CURVES", f64::from(t.needs_curves)),
        ],
        tables: values.into(),
        state_words: if t.linear.is_some() { LINEAR_STATE_WORDS } else { STATE_WORDS },
        loop_turns: search_turns.max(choose_turns).max(refine_turns),
        ..Program::new("two_rate_fit", SOURCES, &settings)
    }
}

/// The linear method's tables as `shaders/fit/two_rate/linear.wgsl` reads them.
fn linear_numbers(linear: &LinearTables, n: usize) -> Vec<f64> {
    let shared = &linear.shared;
    let mut numbers = vec![shared.first_length, shared.second_length, shared.second_on_first];
    numbers.extend(linear.along.as_flattened());
    numbers.push(0.0);
    for i in 0..n {
        let interval = if i > 0 { linear.intervals[i - 1] } else { 0.0 };
        numbers.extend([interval, shared.first[i], shared.second[i]]);
        numbers.extend((0..4).map(|k| linear.beside[k * n + i]));
    }
    numbers
}

#[cfg(all(test, feature = "gpu"))]
mod tests {
    use super::*;
    use crate::engine::gpu::text;
    use crate::kernels::fit::Parameter;
    use crate::kernels::fit::outputs::slot;
    use crate::kernels::fit::status_bit::at_lower_bound;
    use crate::kernels::fit::two_rate::reference::*;
    use crate::kernels::fit::two_rate::restarts::*;
    use crate::kernels::fit::two_rate::tables::PARAMETERS;

    #[test]
    fn settings_are_the_same_in_both_texts() {
        text::assert_same_layout!(
            &text::kernel(SOURCES), "Settings", ShaderSettings:
            pairs delays delays_per_search layer before steps knots curves_at products_at pairs_at curve_squares_at rates_at
            steps_at frame_times_at knots_at nodes_at slope intercept fixed_delay reach log_step delay_low delay_high
            linear_at low high slots
        );
    }

    #[test]
    fn places_and_bits_are_rusts() {
        let all = [&PARAMETERS[..], &[Parameter::ExtractionFraction, Parameter::Delay]].concat();
        let places: Vec<f64> = all.iter().map(|parameter| parameter.index() as f64).collect();
        assert_eq!(text::numbers(SHADER, "PLACES"), places);
        for (bit, parameter) in text::numbers(SHADER, "BOUND_BITS").into_iter().zip(&all) {
            let expected = at_lower_bound(*parameter);
            assert!(expected == 0 || expected == 1 << bit as u32, "{parameter:?}");
        }
        for (name, values) in [
            ("SHIFTS", &SHIFTS[..]),
            ("SPLITS", SPLITS.as_flattened()),
            ("SPLIT_SHIFTS", &SPLIT_SHIFTS),
            ("EXCHANGED_SHIFTS", &EXCHANGED_SHIFTS),
            ("EXCHANGED", &EXCHANGED),
            ("FLOWS", &FLOWS),
            ("VOLUMES", &VOLUMES),
            ("SMALLEST_SPACE", &[SMALLEST_SPACE]),
            ("SEPARATE", &[SEPARATE]),
            ("PERFECT", &[PERFECT.0]),
            ("NOTHING_LEFT", &[NOTHING_LEFT]),
            ("FAR_ABOVE", &FAR_ABOVE),
            ("FAR_ABOVE_FLOOR", &[FAR_ABOVE_FLOOR]),
            ("PROMISES", &[PROMISES]),
            ("NEAR", &[NEAR]),
            ("NO_LOWER", &[NO_LOWER]),
            ("SAME", &[SAME]),
            ("SMALL", &SMALL),
        ] {
            assert_eq!(text::numbers(SHADER, name), values, "{name}");
        }
        let constants = text::constants(&text::kernel(SOURCES));
        assert_eq!(constants["STATE_HAS"] as usize + 1, LINEAR_STATE_WORDS);
        for (name, value) in [
            ("SLOT_STANDARD_ERROR", slot::STANDARD_ERROR),
            ("SLOT_SSE", slot::SSE),
            ("SLOT_R_SQUARED", slot::R_SQUARED),
            ("SLOT_AIC", slot::AIC),
            ("SLOT_ITERATIONS", slot::ITERATIONS),
            ("SLOT_FITTED_CURVE", slot::FITTED_CURVE),
            ("SLOT_RESIDUAL", slot::RESIDUAL),
            ("STARTS", STARTS),
            ("PARTNERS", PARTNERS),
            ("DELAYS", DELAYS),
            ("TURNS", TURNS),
            ("CONTINUATIONS", CONTINUATIONS),
            ("CONTINUATIONS_WITH_DELAY", CONTINUATIONS_WITH_DELAY),
            ("RESTARTS", restarts(false)),
            ("RESTARTS_WITH_DELAY", restarts(true)),
            ("SHIFT_COUNT", SHIFTS.len()),
            ("SPLIT_COUNT", SPLITS.len()),
            ("SPLIT_SHIFT_COUNT", SPLIT_SHIFTS.len()),
            ("RATES", ALL_RATES),
        ] {
            assert_eq!(constants.get(name), Some(&(value as u32)), "{name}");
        }
    }
}
