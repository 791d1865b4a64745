//! The kernel for GPUs: its settings and tables as `shaders/fit/one_rate.wgsl` lays them out.

use std::borrow::Cow;

use bytemuck::{Pod, Zeroable};

use super::super::outputs::{Slots, slot};
use super::super::{Method, Model, Parameter};
use super::delayed::{BRANCHES, DELAYED_ITERATIONS, NODE_TURNS, branched, rounds};
use super::reference::ITERATIONS;
use super::tables::{Companion, Tables};
use crate::kernel::Program;

const SOURCE: &str = include_str!("../../../../shaders/fit/one_rate.wgsl");

/// Turns of loops per invocation that are planned with: software Vulkan stops after 65,535.
const TURNS: usize = 50_000;
/// Words of state per voxel, the branches' last; the shader has the same number.
const STATE_WORDS: usize = 60 + 4 * BRANCHES;
/// Turns of a bounded solution, fine and coarse; and of keeping the state.
const SOLUTION_TURNS: (usize, usize) = (44, 16);
/// Most evaluations of a voxel.
fn evaluations(t: &Tables) -> usize {
    match (t.method, t.delay.own) {
        (Method::Linear, _) => 1,
        (Method::Nonlinear, false) => 2 * ITERATIONS + 1,
        (Method::Nonlinear, true) => rounds(t) * DELAYED_ITERATIONS + 1,
    }
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ShaderSettings {
    layer: u32,
    fitted: u32,
    delays: u32,
    rates: u32,
    knots: u32,
    search_delays: u32,
    refine_evaluations: u32,
    parameters: u32,
    slope: f32,
    intercept: f32,
    fixed_delay: f32,
    corner: f32,
    companion_low: f32,
    companion_high: f32,
    flow_low: f32,
    flow_high: f32,
    volume_low: f32,
    volume_high: f32,
    delay_low: f32,
    delay_high: f32,
    reach: f32,
    aside: f32,
    first_length: f32,
    second_length: f32,
    second_on_first: f32,
    frame_times_at: u32,
    knot_times_at: u32,
    knot_values_at: u32,
    knot_slopes_at: u32,
    knot_integrals_at: u32,
    rates_at: u32,
    log_steps_at: u32,
    nodes_at: u32,
    dictionaries_at: u32,
    half_steps_at: u32,
    first_at: u32,
    second_at: u32,
    knot_rest_at: u32,
    frame_rest_at: u32,
    slowest_shaping: f32,
    fastest_shaping: f32,
    restarts_at: u32,
    steps_at: u32,
    steps: u32,
    before: u32,
    integral_at: u32,
    reserved: [u32; 2],
    lower: [f32; 12],
    upper: [f32; 12],
    slots: Slots,
}

/// The kernel for GPUs.
pub(super) fn program(t: &Tables) -> Program {
    let mut values: Vec<f32> = Vec::new();
    let mut append = |table: &[f64]| {
        let at = values.len() as u32;
        values.extend(table.iter().map(|x| *x as f32));
        at
    };
    let d = &t.delay;
    let frame_times_at = append(&t.frame_times);
    let knot_times_at = append(&d.knot_times);
    let knot_rest_at = append(&d.knot_rest);
    let frame_rest_at = append(&d.frame_rest);
    let knot_values_at = append(&d.knot_values);
    let knot_slopes_at = append(&d.knot_slopes);
    let knot_integrals_at = append(&d.knot_integrals);
    let rates_at = append(&t.rates);
    let log_steps_at = append(&t.log_steps);
    let nodes_at = append(&d.nodes);
    let restarts_at = append(&t.restarts);
    let half_steps_at = append(&t.linear.half_steps);
    let first_at = append(&t.linear.shared.first);
    let second_at = append(&t.linear.shared.second);
    let shared = &t.dictionaries[0];
    let integral_at = append(&shared.integral);
    let steps_at = append(&shared.steps.table());
    let dictionaries_at = append(&[]);
    for dictionary in &t.dictionaries {
        append(&[dictionary.companion_squares, dictionary.inverse_squares]);
        append(&dictionary.length);
        append(&dictionary.overlap);
        append(&dictionary.companion);
        append(&dictionary.vectors);
    }
    // The shader looks at the vectors of four rates at once.
    append(&vec![0.0; 3 * t.n]);
    let uptake = t.companion == Companion::Integral;
    let coarse = if uptake { SOLUTION_TURNS.1 } else { 0 };
    let walk = walk_turns(t);
    let per_evaluation = 3 * walk + if uptake { SOLUTION_TURNS.0 } else { 0 } + 8;
    let valleys = if branched(t) { 2 } else { 1 };
    let per_delay = 2 * t.n
        + (t.rates.len() / 4 + 1) * (t.n / 2 + 3)
        + (t.rates.len() + 1) * (4 + coarse)
        + if d.own { valleys * NODE_TURNS * per_evaluation } else { 0 };
    let aside = 2 * STATE_WORDS + 2 * walk;
    let search_delays = (TURNS / per_delay).max(1);
    let refine_evaluations = (TURNS.saturating_sub(aside) / per_evaluation).max(1);
    let delays = if d.own { t.dictionaries.len() + 1 } else { 1 };
    let mut entry_points = vec!["begin"];
    if t.method == Method::Nonlinear {
        entry_points.extend(std::iter::repeat_n("search", delays.div_ceil(search_delays)));
    }
    entry_points.extend(std::iter::repeat_n("refine", evaluations(t).div_ceil(refine_evaluations)));
    let mut lower = [0.0; 12];
    let mut upper = [0.0; 12];
    for parameter in Parameter::ALL {
        let (low, high) = super::results::thresholds(t, parameter);
        lower[parameter.index()] = low as f32;
        upper[parameter.index()] = high as f32;
    }
    let single = |x: f64| x as f32;
    let model = match t.model {
        Model::Tofts => 0,
        Model::ExtendedTofts => 1,
        Model::Patlak => 2,
        Model::OneCompartment => 3,
        Model::TwoCompartmentUptake | Model::TwoCompartmentExchange => 4,
    };
    let companion = match t.companion {
        Companion::None => 0,
        Companion::Input => 1,
        Companion::Integral => 2,
    };
    let settings = ShaderSettings {
        layer: u32::from(d.layer),
        fitted: u32::from(d.fitted),
        delays: t.dictionaries.len() as u32,
        rates: t.rates.len() as u32,
        knots: d.knot_times.len() as u32,
        search_delays: search_delays as u32,
        refine_evaluations: refine_evaluations as u32,
        parameters: t.model.parameters().len() as u32,
        slope: single(t.slope),
        intercept: single(t.intercept),
        fixed_delay: single(t.fixed_delay),
        corner: single(t.corner),
        companion_low: single(t.bounds.companion.0),
        companion_high: single(t.bounds.companion.1),
        flow_low: single(t.bounds.flow.0),
        flow_high: single(t.bounds.flow.1),
        volume_low: single(t.bounds.volume.0),
        volume_high: single(t.bounds.volume.1),
        delay_low: single(d.bounds.0),
        delay_high: single(d.bounds.1),
        reach: single(d.reach),
        aside: single(4.0 * f64::from(f32::EPSILON) * d.near),
        first_length: single(t.linear.shared.first_length),
        second_length: single(t.linear.shared.second_length),
        second_on_first: single(t.linear.shared.second_on_first),
        frame_times_at,
        knot_times_at,
        knot_values_at,
        knot_slopes_at,
        knot_integrals_at,
        rates_at,
        log_steps_at,
        nodes_at,
        dictionaries_at,
        half_steps_at,
        first_at,
        second_at,
        knot_rest_at,
        frame_rest_at,
        slowest_shaping: single(t.shaping.0),
        fastest_shaping: single(t.shaping.1),
        restarts_at,
        steps_at,
        steps: shared.steps.steps.len() as u32,
        before: shared.steps.before as u32,
        integral_at,
        reserved: [0; 2],
        lower,
        upper,
        slots: t.plan.slots,
    };
    const { assert!(slot::COUNT == 24) };
    Program {
        entry_points: Cow::Owned(entry_points),
        constants: vec![
            ("MODEL", f64::from(model)),
            ("COMPANION", f64::from(companion)),
            ("LINEAR", f64::from(t.method == Method::Linear)),
            ("OWN_DELAY", f64::from(d.own)),
        ],
        tables: Cow::Owned(values),
        state_words: if d.own && branched(t) { STATE_WORDS } else { STATE_WORDS - 4 * BRANCHES },
        loop_turns: (search_delays * per_delay).max(refine_evaluations * per_evaluation + aside),
        ..Program::new("one_rate_fit", &[SOURCE], &settings)
    }
}

/// Turns of one walk along the knots by voxels that go together, each with its own delay: a turn of one counts for all of
/// them. Per frame one turn, one to see that no knot is due, and as many as the voxel that passes most knots there.
fn walk_turns(t: &Tables) -> usize {
    let d = &t.delay;
    let (low, high) = match (d.own, d.layer) {
        (false, _) => (t.fixed_delay, t.fixed_delay),
        (true, false) => d.bounds,
        // The caller's delays may lie anywhere.
        (true, true) => (f64::NEG_INFINITY, f64::INFINITY),
    };
    let passed = |time: f64| d.knot_times.partition_point(|knot| *knot <= time);
    let mut turns = passed(t.frame_times[0] - low + 1e-3);
    for pair in t.frame_times.windows(2) {
        // Rounding and the shader's step aside may move a knot into the window.
        let length = (pair[1] - pair[0]) * (1.0 + 1e-5) + 1e-3;
        let (first, last) = (passed(pair[0] - high - 1e-3), passed(pair[1] - low + 1e-3));
        let most =
            (first..last).map(|k| d.knot_times[k..last].partition_point(|knot| *knot <= d.knot_times[k] + length));
        turns += most.max().unwrap_or(0);
    }
    turns + 2 * t.n + 2
}

#[cfg(all(test, feature = "gpu"))]
mod tests {
    use super::super::delayed::{FIRST_BRANCH, FIRST_RESTART, LAST_ROUND};
    use super::*;
    use crate::engine::gpu::text;

    #[test]
    fn settings_are_the_same_in_both_texts() {
        let module = text::kernel(&[SOURCE]);
        text::assert_same_layout!(
            &module, "Settings", ShaderSettings:
            layer fitted delays rates knots search_delays refine_evaluations parameters slope
            intercept fixed_delay corner companion_low companion_high flow_low flow_high volume_low volume_high delay_low
            delay_high reach aside first_length second_length second_on_first frame_times_at knot_times_at
            knot_values_at knot_slopes_at knot_integrals_at rates_at log_steps_at nodes_at dictionaries_at half_steps_at
            first_at second_at knot_rest_at frame_rest_at slowest_shaping fastest_shaping restarts_at steps_at
            steps before integral_at reserved lower upper slots
        );
        assert_eq!(size_of::<ShaderSettings>() % 16, 0);
        let constants = text::constants(&module);
        assert_eq!(constants["STATE_WORDS"] as usize, STATE_WORDS);
        assert_eq!(constants["SLOT_SSE"] as usize, slot::SSE);
        assert_eq!(constants["SLOT_RESIDUAL"] as usize, slot::RESIDUAL);
        assert_eq!(constants["NODE_TURNS"] as usize, NODE_TURNS);
        assert_eq!(constants["LAST_ROUND"] as usize, LAST_ROUND);
        assert_eq!(constants["FIRST_RESTART"] as usize, FIRST_RESTART);
        assert_eq!(constants["FIRST_BRANCH"] as usize, FIRST_BRANCH);
        assert_eq!(constants["BRANCHES"] as usize, BRANCHES);
        assert_eq!(constants["ITERATIONS"] as usize, ITERATIONS);
        assert_eq!(constants["DELAYED_ITERATIONS"] as usize, DELAYED_ITERATIONS);
        assert_eq!(constants["HALVINGS"] as usize, SOLUTION_TURNS.0);
        assert_eq!(constants["DELAY"] as usize, Parameter::Delay.index());
        assert_eq!(constants["EXTRACTION"] as usize, Parameter::ExtractionFraction.index());
    }
}
