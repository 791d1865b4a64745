// Pharmacokinetic models that are linear given one rate constant. The definition is src/kernels/fit/one_rate/ (reference.rs, search.rs,
// bounded_linear.rs, linear.rs, results.rs): the same names, order and guards. One thread per voxel.
//
// A thread has no memory for curves: the convolution is walked along anew for each of the three passes of an evaluation. With
// a delay of the voxel's own that is from knot to knot of the input function, with a part of a step to each frame; without, along
// steps that all voxels share. There the definition begins at the floor of a polynomial through five of the dictionary's
// values; here three must do.
//
// Loops: `search` takes some delays of the dictionary, `refine` some evaluations, as many as stay below 65,535 turns; both
// are dispatched as often as it takes, and keep a voxel's state in between. The last thing that `refine` does is to write.

struct Settings {
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
    reserved: vec2<u32>,
    // By the parameters' places.
    lower: array<vec4<f32>, 3>,
    upper: array<vec4<f32>, 3>,
    slots: array<vec4<i32>, 6>,
}

struct Uniforms {
    slab: Slab,
    settings: Settings,
}

@group(0) @binding(0) var<uniform> uniforms: Uniforms;

// What is fitted, and how: compiled in.
override MODEL: u32;
override COMPANION: u32;
override LINEAR: bool;
override OWN_DELAY: bool;

const TOFTS: u32 = 0u;
const EXTENDED_TOFTS: u32 = 1u;
const PATLAK: u32 = 2u;
const ONE_COMPARTMENT: u32 = 3u;
const UPTAKE: u32 = 4u;

const NO_COMPANION: u32 = 0u;
const INPUT: u32 = 1u;
const INTEGRAL: u32 = 2u;

const KTRANS: u32 = 0u;
const VE: u32 = 1u;
const VP: u32 = 2u;
const KEP: u32 = 3u;
const FP: u32 = 4u;
const PS: u32 = 5u;
const VOLUME: u32 = 6u;
const EXTRACTION: u32 = 7u;
const DELAY: u32 = 8u;

const SLOT_STANDARD_ERROR: u32 = 9u;
const SLOT_SSE: u32 = 18u;
const SLOT_R_SQUARED: u32 = 19u;
const SLOT_AIC: u32 = 20u;
const SLOT_ITERATIONS: u32 = 21u;
const SLOT_FITTED_CURVE: u32 = 22u;
const SLOT_RESIDUAL: u32 = 23u;

const NON_FINITE_SAMPLE: u32 = 2u;
const NOT_ENHANCING: u32 = 8u;
const AT_LOWER_BOUND: u32 = 1024u;
const AT_UPPER_BOUND: u32 = 2048u;
const NOT_CONVERGED: u32 = 4096u;
const NOT_IDENTIFIABLE: u32 = 8192u;

const SERIES_TERMS: u32 = 15u;
const HALVINGS: u32 = 44u;
const COARSE_HALVINGS: u32 = 16u;
const ITERATIONS: u32 = 40u;
const DELAYED_ITERATIONS: u32 = 160u;
const NODE_TURNS: u32 = 4u;
const FIRST_RESTART: u32 = 8u;
const FIRST_BRANCH: u32 = 14u;
const LAST_ROUND: u32 = 22u;
const BRANCHES: u32 = 4u;
const NOTHING_LEFT: f32 = 1e-5;
const STATE_WORDS: u32 = 76u;

const EPSILON: f32 = 1.1920929e-7;
const RATIO_LOGARITHM: f32 = 0.38;
const FOLLOWED: f32 = 0.01;
const TYPICAL_TIME: f32 = 10.0;
const TINY: f32 = 1e-30;
const FAR: f32 = 4.2535296e37;

fn entry(at: u32) -> f32 {
    return tables[at];
}

fn knot_time(i: u32) -> f32 {
    return tables[uniforms.settings.knot_times_at + i];
}

fn rate_of(k: u32) -> f32 {
    return tables[uniforms.settings.rates_at + k];
}

// ---- The convolution ----

struct StepWeights {
    decay: f32,
    begin: f32,
    end: f32,
    decay_by_rate: f32,
    begin_by_rate: f32,
    end_by_rate: f32,
}

fn step_weights(rate: f32, length: f32) -> StepWeights {
    let x = rate * length;
    var decay: f32;
    var phi_1: f32;
    var phi_2: f32;
    var phi_3: f32;
    if x < 1.0 {
        // 1/6 (1 - x/4 (1 - x/5 (1 - ...))), unrolled: no turn of a loop.
        var sum = 1.0 - x / 11.0;
        sum = 1.0 - x * sum * 0.1;
        sum = 1.0 - x * sum / 9.0;
        sum = 1.0 - x * sum * 0.125;
        sum = 1.0 - x * sum / 7.0;
        sum = 1.0 - x * sum / 6.0;
        sum = 1.0 - x * sum * 0.2;
        sum = 1.0 - x * sum * 0.25;
        phi_3 = sum / 6.0;
        phi_2 = 0.5 - x * phi_3;
        phi_1 = 1.0 - x * phi_2;
        decay = 1.0 - x * phi_1;
    } else {
        decay = exp(-min(x, 80.0));
        phi_1 = (1.0 - decay) / x;
        phi_2 = (1.0 - phi_1) / x;
        phi_3 = (0.5 - phi_2) / x;
    }
    let square = length * length;
    return StepWeights(
        decay,
        length * (phi_1 - phi_2),
        length * phi_2,
        -(length * decay),
        -(square * (phi_1 - 2.0 * (phi_2 - phi_3))),
        -(square * (phi_2 - 2.0 * phi_3)),
    );
}

// Where the walk along the knots stands.
var<private> walk_rate: f32;
var<private> walk_knot: u32;
var<private> walk_value: f32;
var<private> walk_input: f32;
var<private> walk_by_rate: f32;
var<private> walk_length: f32;
var<private> walk_weights: StepWeights;
var<private> part_length: f32;
var<private> part_weights: StepWeights;

fn walk_start(rate: f32) {
    walk_rate = rate;
    walk_knot = 0u;
    walk_value = 0.0;
    walk_input = entry(uniforms.settings.steps_at);
    walk_by_rate = 0.0;
    walk_length = -1.0;
    part_length = -1.0;
}

// The convolution and its derivative by the rate a step on, over which the input function goes from one value to another.
fn walked(w: StepWeights, begin: f32, end: f32) -> vec2<f32> {
    return vec2<f32>(
        w.decay * walk_value + (w.begin * begin + w.end * end),
        w.decay * walk_by_rate + w.decay_by_rate * walk_value + (w.begin_by_rate * begin + w.end_by_rate * end),
    );
}

fn walk_on(there: vec2<f32>) {
    walk_value = there.x;
    walk_by_rate = there.y;
}

struct Basis {
    x: f32,
    b: f32,
    by_rate: f32,
    x_by_time: f32,
    b_by_time: f32,
}

// What 32 bits lack of a knot's time.
fn knot_rest(i: u32) -> f32 {
    return tables[uniforms.settings.knot_rest_at + i];
}

// The time from a knot to a frame, less a delay. The difference of two times that lie close is exact; that of a time and a delay
// isn't.
fn since_knot(frame: u32, knot: u32, delay: f32) -> f32 {
    return ((frame_time(frame) - knot_time(knot)) - delay)
        + (tables[uniforms.settings.frame_rest_at + frame] - knot_rest(knot));
}

// X, B and its derivative by the rate at a frame, at the delay of all voxels; frames may only grow.
fn walk_along(frame: u32) -> Basis {
    var x = 0.0;
    if COMPANION != NO_COMPANION { x = entry(companion_of(0u) + frame); }
    if MODEL == PATLAK {
        return Basis(x, entry(uniforms.settings.integral_at + frame), 0.0, 0.0, 0.0);
    }
    if frame < uniforms.settings.before {
        // Nothing has arrived, or it does just then.
        return Basis(x, 0.0, 0.0, 0.0, 0.0);
    }
    var arrived = false;
    while !arrived && walk_knot < uniforms.settings.steps {
        // The input function at the step's end, its length, and the frame there, if there is one.
        let at = uniforms.settings.steps_at + 1u + 3u * walk_knot;
        let end = entry(at);
        let length = entry(at + 1u);
        if length != walk_length {
            walk_length = length;
            walk_weights = step_weights(walk_rate, length);
        }
        walk_on(walked(walk_weights, walk_input, end));
        walk_input = end;
        arrived = entry(at + 2u) >= 0.0;
        walk_knot += 1u;
    }
    return Basis(x, walk_value, walk_by_rate, 0.0, 0.0);
}

// X, B and their derivatives at a frame; frames may only grow. Knots have come that would so much later.
fn walk_to(frame: u32, delay: f32, later: f32) -> Basis {
    if !OWN_DELAY {
        return walk_along(frame);
    }
    if since_knot(frame, 0u, delay) + later < 0.0 {
        return Basis(0.0, 0.0, 0.0, 0.0, 0.0);
    }
    let patlak = MODEL == PATLAK;
    while walk_knot + 1u < uniforms.settings.knots && since_knot(frame, walk_knot + 1u, delay) + later >= 0.0 {
        if !patlak {
            let length = (knot_time(walk_knot + 1u) - knot_time(walk_knot))
                + (knot_rest(walk_knot + 1u) - knot_rest(walk_knot));
            if abs(length - walk_length) > 1e-6 * length {
                walk_length = length;
                walk_weights = step_weights(walk_rate, length);
            }
            let begin = entry(uniforms.settings.knot_values_at + walk_knot);
            let end = entry(uniforms.settings.knot_values_at + walk_knot + 1u);
            walk_on(walked(walk_weights, begin, end));
        }
        walk_knot += 1u;
    }
    let since = since_knot(frame, walk_knot, delay);
    let length = max(since, 0.0);
    let begin = entry(uniforms.settings.knot_values_at + walk_knot);
    let slope = entry(uniforms.settings.knot_slopes_at + walk_knot);
    let end = begin + slope * since;
    let integral = entry(uniforms.settings.knot_integrals_at + walk_knot) + 0.5 * since * (begin + end);
    var basis = Basis(0.0, integral, 0.0, 0.0, end);
    if !patlak {
        if length != part_length {
            part_length = length;
            part_weights = step_weights(walk_rate, length);
        }
        let there = walked(part_weights, begin, end);
        basis.b = there.x;
        basis.by_rate = there.y;
        basis.b_by_time = end - walk_rate * basis.b;
    }
    switch COMPANION {
        case INPUT: {
            basis.x = end;
            basis.x_by_time = slope;
        }
        case INTEGRAL: {
            basis.x = integral;
            basis.x_by_time = end;
        }
        default: {}
    }
    return basis;
}

// ---- The linear part within the bounds ----

struct Normal {
    rate: f32,
    alone: f32,
    best: f32,
    overlap: f32,
    squares: f32,
    companion_squares: f32,
}

struct Solution {
    a: f32,
    b: f32,
    excess: f32,
    a_free: bool,
    b_free: bool,
    a_moves: f32,
    b_moves: f32,
}

fn rise(n: Normal, a: f32, b: f32) -> f32 {
    let off = b - n.best;
    let along = a - (n.alone - n.overlap * b);
    return n.squares * off * off + n.companion_squares * along * along;
}

fn boxed(n: Normal) -> Solution {
    let s = uniforms.settings;
    var low = s.flow_low;
    var high = s.flow_high;
    var low_moves = false;
    var high_moves = false;
    if MODEL != PATLAK {
        low_moves = s.volume_low * n.rate > low;
        high_moves = s.volume_high * n.rate < high;
        low = max(low, s.volume_low * n.rate);
        high = min(high, s.volume_high * n.rate);
    }
    var a = 0.0;
    var b = min(max(n.best, low), high);
    var a_free = true;
    if COMPANION != NO_COMPANION {
        a = min(max(n.alone - n.overlap * b, s.companion_low), s.companion_high);
        let best_a = n.alone - n.overlap * n.best;
        let other_a = min(max(best_a, s.companion_low), s.companion_high);
        let whole = n.squares + n.companion_squares * n.overlap * n.overlap;
        let shift = (best_a - other_a) * n.overlap * n.companion_squares / select(1.0, whole, whole > 0.0);
        let other_b = min(max(n.best + shift, low), high);
        if rise(n, other_a, other_b) < rise(n, a, b) {
            a = other_a;
            b = other_b;
        }
        a_free = a > s.companion_low && a < s.companion_high;
    }
    let at_low = b <= low;
    let at_high = b >= high;
    var moves = select(0.0, s.volume_low, at_low && low_moves);
    moves = select(moves, s.volume_high, at_high && high_moves);
    let off = b - n.best;
    let excess = select(n.squares * off * off, rise(n, a, b), COMPANION != NO_COMPANION);
    return Solution(a, b, excess, a_free, !(at_low || at_high), 0.0, moves);
}

struct Interval {
    b: f32,
    empty: bool,
    free: bool,
    by_volume: bool,
    slope: f32,
}

fn interval(n: Normal, a: f32, reach: f32) -> Interval {
    let flow = uniforms.settings.flow_high;
    let exchange = uniforms.settings.companion_high;
    let root = sqrt(max(reach * (reach - 4.0 * a), 0.0));
    let upper_root = 0.5 * ((reach - 2.0 * a) + root);
    let lower_root = a * a / max(upper_root, TINY);
    let rest = max(exchange - a, TINY);
    let by_exchange = a * a / rest;
    let low = max(by_exchange, lower_root);
    let high = min(upper_root, flow - a);
    let whole = n.squares + n.companion_squares * n.overlap * n.overlap;
    let best_a = n.alone - n.overlap * n.best;
    let pull = (best_a - a) * n.overlap * n.companion_squares / select(1.0, whole, whole > 0.0);
    let b = min(max(n.best + pull, low), high);
    let at_low = b <= low;
    let at_high = b >= high;
    var turn = reach - 2.0 * (a + b);
    turn = select(TINY, turn, abs(turn) > TINY);
    let by_root = 2.0 * (a + b) / turn;
    let from_above = upper_root < flow - a;
    let low_moves = select(a * (2.0 * exchange - a) / (rest * rest), by_root, lower_root > by_exchange);
    let high_moves = select(-1.0, by_root, from_above);
    let moves = select(select(0.0, low_moves, at_low), high_moves, at_high);
    let by_a = n.companion_squares * (a - (n.alone - n.overlap * b));
    let by_b = n.squares * (b - n.best) + n.overlap * by_a;
    return Interval(b, low > high, !(at_low || at_high), at_high && from_above, by_a + moves * by_b);
}

fn uptake(n: Normal, coarse: bool) -> Solution {
    let flow = uniforms.settings.flow_high;
    let exchange = uniforms.settings.companion_high;
    let volume = uniforms.settings.volume_high;
    let reach = volume * n.rate;
    let best_a = n.alone - n.overlap * n.best;
    let total = best_a + n.best;
    if best_a > 0.0 && n.best > 0.0 && total < flow && best_a * total < exchange * n.best
        && total * total < reach * n.best {
        return Solution(best_a, n.best, rise(n, best_a, n.best), true, true, 0.0, 0.0);
    }
    let side = interval(n, 0.0, reach);
    if side.slope >= 0.0 {
        return Solution(
            0.0, side.b, rise(n, 0.0, side.b), false, side.free, 0.0, select(0.0, volume, side.by_volume),
        );
    }
    let scale = min(min(flow, exchange), 0.25 * reach);
    var low = 0.0;
    var high = 1.0;
    let halvings = select(HALVINGS, COARSE_HALVINGS, coarse);
    for (var i = 0u; i < halvings; i++) {
        let z = 0.5 * (low + high);
        let here = interval(n, scale * (z * z) * (z * z), reach);
        if here.empty || here.slope > 0.0 { high = z; } else { low = z; }
    }
    let a = scale * (low * low) * (low * low);
    let here = interval(n, a, reach);
    let b = here.b;
    let near = 16.0 * EPSILON;
    let f = b + a;
    let volume_holds = f * f >= (1.0 - near) * reach * b;
    let flow_holds = f >= (1.0 - near) * flow;
    let exchange_holds = a * f >= (1.0 - near) * exchange * b;
    let slower = 1.0 / max(n.rate, TINY);
    var bend = 2.0 * f - reach;
    bend = select(near * reach, bend, abs(bend) > near * reach);
    let share = exchange / max(reach, TINY);
    var a_moves = select(0.0, exchange * share * slower, exchange_holds);
    var b_moves = select(volume * b / bend, volume * (1.0 - share * share), exchange_holds);
    a_moves = select(a_moves, b * slower, flow_holds);
    b_moves = select(b_moves, -(b * slower), flow_holds);
    return Solution(
        a, b, rise(n, a, b), false, here.free, select(0.0, a_moves, volume_holds), select(0.0, b_moves, volume_holds),
    );
}

fn solve(n: Normal, coarse: bool) -> Solution {
    if COMPANION == INTEGRAL {
        return uptake(n, coarse);
    }
    return boxed(n);
}

// ---- One evaluation ----

struct Samples {
    squares: f32,
    squares_about_mean: f32,
}

// The word of the voxel's first sample, and what that stands for.
var<private> first_word: u32;
var<private> first_value: f32;

fn take(voxel: u32) {
    first_word = stored_word(voxel, 0u);
    first_value = uniforms.settings.slope * number_of_word(first_word) + uniforms.settings.intercept;
}

fn sample(voxel: u32, i: u32) -> f32 {
    return first_value + uniforms.settings.slope * difference_of_words(stored_word(voxel, i), first_word, i);
}

fn frame_time(i: u32) -> f32 {
    return tables[uniforms.settings.frame_times_at + i];
}

struct Point {
    solution: Solution,
    alone: f32,
    surplus: f32,
    overlap: f32,
    sse: f32,
    slope: f32,
    curvature: f32,
    delay_slope: f32,
    delay_curvature: f32,
    rate_by_delay: f32,
    // The upper triangle by a, b, rate and delay, column by column.
    r00: f32,
    r01: f32,
    r11: f32,
    r02: f32,
    r12: f32,
    r22: f32,
    r03: f32,
    r13: f32,
    r23: f32,
    r33: f32,
}

fn evaluate_point(voxel: u32, rate: f32, delay: f32, side: f32, given: bool, given_a: f32, given_b: f32) -> Point {
    let s = uniforms.settings;
    let frames = uniforms.slab.frames;
    let beside = COMPANION != NO_COMPANION;
    var xb = 0.0;
    var xd = 0.0;
    var xc = 0.0;
    var xx = 0.0;
    if beside {
        walk_start(rate);
        for (var i = 0u; i < frames; i++) {
            let p = walk_to(i, delay, side);
            xb += p.x * p.b;
            xd += p.x * p.by_rate;
            xc += p.x * sample(voxel, i);
            xx += p.x * p.x;
        }
    }
    let inverse_xx = select(0.0, 1.0 / max(xx, TINY), xx > TINY);
    let alone = xc * inverse_xx;
    let overlap = xb * inverse_xx;
    let overlap_by_rate = xd * inverse_xx;
    var cb = 0.0;
    var bb = 0.0;
    var bd = 0.0;
    walk_start(rate);
    for (var i = 0u; i < frames; i++) {
        let p = walk_to(i, delay, side);
        let b = p.b - overlap * p.x;
        let by_rate = p.by_rate - overlap_by_rate * p.x;
        cb += (sample(voxel, i) - alone * p.x) * b;
        bb += b * b;
        bd += b * by_rate;
    }
    let inverse_bb = select(0.0, 1.0 / max(bb, TINY), bb > TINY);
    var solution: Solution;
    if given {
        solution = Solution(given_a, given_b, 0.0, false, false, 0.0, 0.0);
    } else {
        solution = solve(Normal(rate, alone, cb * inverse_bb, overlap, bb, xx), false);
    }
    let a = solution.a;
    let b = solution.b;
    let held = select(overlap, 0.0, solution.a_free);
    let held_by_rate = select(overlap_by_rate, 0.0, solution.a_free);
    let surplus = select(a - (alone - overlap * b), 0.0, solution.a_free);
    let whole_bb = bb + held * overlap * xx;
    let whole_bd = bd + held * overlap_by_rate * xx;
    let ratio = select(0.0, whole_bd / max(whole_bb, TINY), solution.b_free && whole_bb > TINY);
    let free_ratio = bd * inverse_bb;
    var sse = 0.0;
    var rd = 0.0;
    var rb = 0.0;
    var rx = 0.0;
    var dd = 0.0;
    var free_dd = 0.0;
    var xe = 0.0;
    var be = 0.0;
    var de = 0.0;
    var ee = 0.0;
    var re = 0.0;
    walk_start(rate);
    for (var i = 0u; i < frames; i++) {
        let p = walk_to(i, delay, side);
        let b_i = p.b - overlap * p.x;
        let d_i = p.by_rate - overlap_by_rate * p.x;
        let residual = (sample(voxel, i) - alone * p.x) - b * b_i - surplus * p.x;
        let convolution = b_i + held * p.x;
        let direction = (d_i + held_by_rate * p.x) - ratio * convolution;
        let free_direction = d_i - free_ratio * b_i;
        sse += residual * residual;
        rd += residual * direction;
        dd += direction * direction;
        free_dd += free_direction * free_direction;
        rb += residual * convolution;
        rx += residual * p.x;
        if OWN_DELAY {
            let e = -(a * p.x_by_time + b * p.b_by_time);
            xe += p.x * e;
            be += b_i * e;
            de += free_direction * e;
            ee += e * e;
            re += residual * e;
        }
    }
    let right = -(b * rd + (solution.a_moves * rx + solution.b_moves * rb));
    var slope = right;
    if COMPANION != INTEGRAL && rate == s.corner && b >= s.flow_high {
        let left = right - s.volume_high * rb;
        slope = select(select(0.0, right, right < 0.0), left, left > 0.0);
    }
    let am = solution.a_moves;
    let bm = solution.b_moves;
    let moved =
        bm * (2.0 * b * whole_bd + bm * whole_bb) + am * xx * (2.0 * (b * overlap_by_rate + bm * overlap) + am);
    let curvature = b * b * dd + max(moved, 0.0);
    let length_x = sqrt(xx);
    let length_b = sqrt(bb);
    let length_d = sqrt(free_dd);
    let inverse_b = select(0.0, 1.0 / max(length_b, TINY), bb > TINY);
    var point = Point(
        solution, alone, surplus, overlap, sse, slope, curvature, 0.0, 0.0, 0.0,
        length_x, overlap * length_x, length_b, b * overlap_by_rate * length_x, b * bd * inverse_b, abs(b) * length_d,
        0.0, 0.0, 0.0, 0.0,
    );
    if OWN_DELAY {
        let inverse_x = select(0.0, 1.0 / max(length_x, TINY), xx > TINY);
        let has_d = free_dd > TINY;
        let inverse_d = select(0.0, 1.0 / max(length_d, TINY), has_d);
        point.r03 = xe * inverse_x;
        point.r13 = be * inverse_b;
        point.r23 = select(1.0, -1.0, b < 0.0) * de * inverse_d;
        let along_b = be * inverse_b;
        let along_d = de * inverse_d;
        let without_rate = (ee - point.r03 * point.r03) - along_b * along_b;
        let rest = without_rate - along_d * along_d;
        point.r33 = sqrt(max(rest, 0.0));
        let follows = solution.a_free && solution.b_free && has_d && abs(b) > TINY;
        let coupled = select(0.0, rd * de / max(free_dd, TINY), follows);
        point.rate_by_delay = select(0.0, -(de / (select(1.0, b, follows) * max(free_dd, TINY))), follows);
        point.delay_slope = coupled - re;
        point.delay_curvature = max(select(without_rate, rest, follows), 1e-3 * ee);
    }
    return point;
}

// ---- The search ----

struct Valley {
    value: f32,
    depth: f32,
    rate: f32,
    delay: f32,
}

// The deepest valley among the dictionary's rates for one delay, and the one after it.
var<private> best_valley: Valley;
var<private> second_valley: Valley;

fn dictionary_at(which: u32) -> u32 {
    let rates = uniforms.settings.rates;
    return uniforms.settings.dictionaries_at + which * (2u + 2u * rates + (rates + 1u) * uniforms.slab.frames);
}

// What a sample has beside the companion.
fn beside(voxel: u32, frame: u32, alone: f32, companion_at: u32) -> f32 {
    if COMPANION == NO_COMPANION {
        return sample(voxel, frame);
    }
    return sample(voxel, frame) - alone * entry(companion_at + frame);
}

// One frame of four rates' vectors; past the last rate's whatever is there.
fn four_entries(at: u32, frames: u32) -> vec4<f32> {
    return vec4<f32>(entry(at), entry(at + frames), entry(at + 2u * frames), entry(at + 3u * frames));
}

// Where its companion is, behind both squares, the lengths and the overlaps.
fn companion_of(which: u32) -> u32 {
    return dictionary_at(which) + 2u + 2u * uniforms.settings.rates;
}

fn valleys(voxel: u32, which: u32) {
    let s = uniforms.settings;
    let frames = uniforms.slab.frames;
    let at = dictionary_at(which);
    let xx = entry(at);
    let inverse_xx = entry(at + 1u);
    let lengths_at = at + 2u;
    let overlaps_at = lengths_at + s.rates;
    let companion_at = companion_of(which);
    let vectors_at = companion_at + frames;
    var delay = 0.0;
    if OWN_DELAY { delay = entry(s.nodes_at + which); }
    var alone = 0.0;
    if COMPANION != NO_COMPANION {
        for (var i = 0u; i < frames; i++) {
            alone += entry(companion_at + i) * sample(voxel, i);
        }
        alone *= inverse_xx;
    }
    best_valley = Valley(2.0 * FAR, 0.0, rate_of(0u), 0.0);
    second_valley = best_valley;
    var before = FAR;
    var before_that = FAR;
    var rate_before = 0.0;
    var along_before = 0.0;
    var along_before_that = 0.0;
    var projections = vec4<f32>();
    for (var k = 0u; k <= s.rates; k++) {
        var value = FAR;
        var rate = 0.0;
        var along = 0.0;
        if k < s.rates {
            if k % 4u == 0u {
                // Of four rates at once, for the samples' sake; two frames a turn, for turns are counted.
                let row = vectors_at + k * frames;
                var even = vec4<f32>();
                var odd = vec4<f32>();
                var i = 0u;
                for (; i + 1u < frames; i += 2u) {
                    even += beside(voxel, i, alone, companion_at) * four_entries(row + i, frames);
                    odd += beside(voxel, i + 1u, alone, companion_at) * four_entries(row + i + 1u, frames);
                }
                if i < frames {
                    even += beside(voxel, i, alone, companion_at) * four_entries(row + i, frames);
                }
                projections = even + odd;
            }
            let projection = projections[k % 4u];
            let length = entry(lengths_at + k);
            rate = rate_of(k);
            let inverse = select(0.0, 1.0 / length, length > 0.0);
            let normal = Normal(rate, alone, projection * inverse, entry(overlaps_at + k), length * length, xx);
            value = solve(normal, true).excess - projection * projection;
            along = projection;
        }
        let between = k > 1u && k < s.rates;
        var below = 1.0;
        var above = 1.0;
        if between {
            below = entry(s.log_steps_at + k - 2u);
            above = entry(s.log_steps_at + k - 1u);
        }
        if between && s.flow_low == 0.0 {
            let to_below = (along_before_that - along_before) / below;
            let to_above = (along - along_before) / above;
            let bend = -(to_below + to_above);
            let slope = below * to_above - above * to_below;
            let peaks = along_before < 0.0 && along < along_before && along_before_that < along_before;
            let safe = select(1.0, bend, peaks && bend > 0.0);
            let top = along_before + 0.25 * slope * slope / (safe * (below + above));
            if peaks && top > 0.0 {
                let shift = 0.5 * slope / safe;
                rate_before *= 1.0 + shift * (1.0 + 0.5 * shift);
                before -= top * top;
            }
        }
        let valley = before <= value && before < before_that && k > 0u;
        let rise = select(0.0, value - before, value < FAR);
        let fall = select(0.0, before_that - before, before_that < FAR);
        let depth = 0.25 * (rise + fall);
        if between && s.corner != rate_of(k - 1u) {
            let to_below = fall / below;
            let to_above = rise / above;
            let bend = to_below + to_above;
            let slope = below * to_above - above * to_below;
            let curved = bend > 0.0 && valley;
            let safe = select(1.0, bend, curved);
            let shift = -(0.5 * slope / safe);
            if curved && abs(shift) < RATIO_LOGARITHM {
                rate_before *= 1.0 + shift * (1.0 + 0.5 * shift);
            }
        }
        if valley && before < best_valley.value {
            second_valley = best_valley;
            best_valley = Valley(before, depth, rate_before, delay);
        } else if valley && before < second_valley.value {
            second_valley = Valley(before, depth, rate_before, delay);
        }
        before_that = before;
        before = value;
        rate_before = rate;
        along_before_that = along_before;
        along_before = along;
    }
}

// What is kept of a voxel between dispatches.
var<private> kept: array<f32, STATE_WORDS>;

// Whether the range of rates has branches that are looked at each by itself.
fn branched() -> bool {
    return OWN_DELAY && COMPANION == INPUT && MODEL != PATLAK;
}

fn state_words() -> u32 {
    return select(STATE_WORDS - 4u * BRANCHES, STATE_WORDS, branched());
}

fn load_state(voxel: u32) {
    for (var i = 0u; i < state_words(); i++) {
        kept[i] = bitcast<f32>(read_state(i, voxel));
    }
}

fn save_state(voxel: u32) {
    for (var i = 0u; i < state_words(); i++) {
        write_state(i, voxel, bitcast<u32>(kept[i]));
    }
}

// Places in it. Flags and counts are small whole numbers.
const NEXT_DELAY: u32 = 0u;
const DEEPEST: u32 = 1u;        // value, depth, rate, delay
const NEXT_DEEPEST: u32 = 5u;
const BEFORE: u32 = 9u;
const BEFORE_THAT: u32 = 13u;
const DELAY_FREE: u32 = 14u;
const GIVEN_DELAY: u32 = 15u;
const RIVAL: u32 = 16u;
const ROUND: u32 = 17u;
const TURN: u32 = 18u;
const RATE: u32 = 19u;
const THE_DELAY: u32 = 20u;
const LOW: u32 = 21u;
const HIGH: u32 = 22u;
const PREVIOUS_RATE: u32 = 23u;
const PREVIOUS_SLOPE: u32 = 24u;
const SETTLED: u32 = 25u;
const COUNT: u32 = 26u;
const SEARCH_FIRST: u32 = 27u;
const SEARCH_LAST: u32 = 28u;
const SEARCH_LOW: u32 = 29u;
const SEARCH_HIGH: u32 = 30u;
const SEARCH_SIDE: u32 = 31u;
const SEARCH_PREVIOUS: u32 = 32u;
const SEARCH_SLOPE: u32 = 33u;
const SEARCH_STUCK: u32 = 34u;
const CHOSEN_RATE: u32 = 35u;
const CHOSEN_DELAY: u32 = 36u;
const LEAST: u32 = 37u;
const SUM_COUNT: u32 = 38u;
const SQUARES: u32 = 39u;
const ABOUT_MEAN: u32 = 40u;
const DONE: u32 = 41u;
const USABLE: u32 = 42u;
const STARTED: u32 = 43u;
const SLOPE_AT_LOW: u32 = 44u;
const SLOPE_AT_HIGH: u32 = 45u;
const LENGTH: u32 = 46u;
const LENGTH_BEFORE: u32 = 47u;
const SEARCH_RATE: u32 = 48u;
const SEARCH_LENGTH: u32 = 49u;
const SEARCH_LENGTH_BEFORE: u32 = 50u;
// At the delays of both valleys and of the one before: the rate of another valley, 0 if there is none.
const OTHER: u32 = 51u;
const NEXT_OTHER: u32 = 52u;
const OTHER_BEFORE: u32 = 53u;
const OTHER_RATE: u32 = 54u;
const DEGENERATE: u32 = 55u;
const LOWEST: u32 = 56u;
const LOWEST_RATE: u32 = 57u;
const LOWEST_DELAY: u32 = 58u;
const LOWEST_DEGENERATE: u32 = 59u;
const BRANCH: u32 = 60u;        // the deepest valley of each

fn keep_valley(at: u32, valley: Valley) {
    kept[at] = valley.value;
    kept[at + 1u] = valley.depth;
    kept[at + 2u] = valley.rate;
    kept[at + 3u] = valley.delay;
}

fn kept_valley(at: u32) -> Valley {
    return Valley(kept[at], kept[at + 1u], kept[at + 2u], kept[at + 3u]);
}

@compute @workgroup_size(64)
fn begin(@builtin(global_invocation_id) id: vec3<u32>) {
    let voxel = voxel_of(id);
    if is_outside(voxel) { return; }
    take(voxel);
    let s = uniforms.settings;
    for (var i = 0u; i < STATE_WORDS; i++) { kept[i] = 0.0; }
    let frames = uniforms.slab.frames;
    var squares = 0.0;
    var differences = 0.0;
    for (var i = 0u; i < frames; i++) {
        let c = sample(voxel, i);
        squares += c * c;
        differences += s.slope * difference(voxel, i);
    }
    let mean = differences / f32(frames);
    var about_mean = 0.0;
    for (var i = 0u; i < frames; i++) {
        let off = s.slope * difference(voxel, i) - mean;
        about_mean += off * off;
    }
    kept[SQUARES] = squares;
    kept[ABOUT_MEAN] = about_mean;
    kept[USABLE] = select(0.0, 1.0, all_finite(voxel));
    kept[DELAY_FREE] = f32(OWN_DELAY);
    kept[GIVEN_DELAY] = s.fixed_delay;
    if s.layer != 0u {
        let word = bitcast<u32>(extra_value(0u, voxel));
        if is_finite_word(word) && abs(bitcast<f32>(word)) < 1e30 {
            kept[DELAY_FREE] = 0.0;
            kept[GIVEN_DELAY] = bitcast<f32>(word);
        }
    }
    let blank = Valley(2.0 * FAR, 0.0, rate_of(0u), 0.0);
    keep_valley(DEEPEST, blank);
    keep_valley(NEXT_DEEPEST, blank);
    keep_valley(BEFORE, blank);
    for (var k = 0u; k < BRANCHES; k++) { keep_valley(BRANCH + 4u * k, blank); }
    kept[BEFORE_THAT] = 2.0 * FAR;
    save_state(voxel);
}

// Delays may differ by less than neighbouring rates do: some steps of the rate tell how deep a valley is.
fn refined_at_delay(voxel: u32, valley: Valley) -> Valley {
    var here = valley;
    start_rate();
    var rate = here.rate;
    here.value = FAR;
    for (var turn = 0u; turn < NODE_TURNS; turn++) {
        let p = evaluate_point(voxel, rate, here.delay, 0.0, false, 0.0, 0.0);
        if p.sse < here.value {
            here.value = p.sse;
            here.rate = rate;
        }
        rate = next_rate(p, rate, turn);
    }
    return here;
}

// Keeps the valley if it is the deepest of its branch.
fn keep_branch(valley: Valley) {
    for (var k = 0u; k < BRANCHES; k++) {
        let above = k == 0u || valley.rate >= rate_of(k * uniforms.settings.rates / BRANCHES);
        let below = k + 1u == BRANCHES || valley.rate < rate_of((k + 1u) * uniforms.settings.rates / BRANCHES);
        if above && below && valley.value < kept[BRANCH + 4u * k] { keep_valley(BRANCH + 4u * k, valley); }
    }
}

// Some delays of the dictionary.
@compute @workgroup_size(64)
fn search(@builtin(global_invocation_id) id: vec3<u32>) {
    let voxel = voxel_of(id);
    if is_outside(voxel) { return; }
    take(voxel);
    let s = uniforms.settings;
    if LINEAR { return; }
    load_state(voxel);
    if !OWN_DELAY {
        valleys(voxel, 0u);
        keep_valley(DEEPEST, best_valley);
        keep_valley(NEXT_DEEPEST, second_valley);
        save_state(voxel);
        return;
    }
    let begins = u32(kept[NEXT_DELAY]);
    let ends = min(begins + s.search_delays, s.delays + 1u);
    let free = kept[DELAY_FREE] != 0.0;
    for (var j = begins; j < ends; j++) {
        var here = Valley(2.0 * FAR, 0.0, rate_of(0u), 0.0);
        var other = 0.0;
        if j < s.delays {
            valleys(voxel, j);
            var second = second_valley;
            other = select(0.0, second.rate, second.value < FAR);
            here = refined_at_delay(voxel, best_valley);
            if branched() {
                let near = abs(here.delay - kept[GIVEN_DELAY]) <= s.reach;
                if free || near { keep_branch(here); }
                if second.value < FAR {
                    second = refined_at_delay(voxel, second);
                    if free || near { keep_branch(second); }
                }
            }
        }
        let before = kept_valley(BEFORE);
        let node = entry(s.nodes_at + max(j, 1u) - 1u);
        let near = abs(node - kept[GIVEN_DELAY]) <= s.reach && j > 0u;
        let valley = (free && before.value <= here.value && before.value < kept[BEFORE_THAT]) || (!free && near);
        if valley && before.value < kept[DEEPEST] {
            keep_valley(NEXT_DEEPEST, kept_valley(DEEPEST));
            keep_valley(DEEPEST, before);
            kept[NEXT_OTHER] = kept[OTHER];
            kept[OTHER] = kept[OTHER_BEFORE];
        } else if valley && before.value < kept[NEXT_DEEPEST] {
            keep_valley(NEXT_DEEPEST, before);
            kept[NEXT_OTHER] = kept[OTHER_BEFORE];
        }
        kept[BEFORE_THAT] = before.value;
        keep_valley(BEFORE, here);
        kept[OTHER_BEFORE] = other;
    }
    kept[NEXT_DELAY] = f32(ends);
    save_state(voxel);
}

fn round_is_needed(round: u32) -> bool {
    let free = kept[DELAY_FREE] != 0.0;
    let rival = kept[RIVAL] != 0.0;
    let left = OWN_DELAY && kept[LEAST] > NOTHING_LEFT * kept[SQUARES];
    if round >= FIRST_BRANCH && round < LAST_ROUND {
        let there = branched() && kept[BRANCH + 4u * ((round - FIRST_BRANCH) / 2u)] < FAR;
        return left && there && (free || round % 2u == 0u);
    }
    if round >= FIRST_RESTART && round < LAST_ROUND { return left && free && kept[DEGENERATE] != 0.0; }
    switch round {
        case 0u: { return true; }
        case 1u, 2u, 3u: { return free; }
        case 4u: { return rival; }
        case 5u: { return rival && free; }
        case 6u: { return left && kept[OTHER_RATE] > 0.0; }
        case 7u: { return left && kept[OTHER_RATE] > 0.0 && free; }
        default: { return OWN_DELAY || rival; }
    }
}

// Sets a round's start.
fn start_round(round: u32) {
    let s = uniforms.settings;
    var valley = kept_valley(DEEPEST);
    if round == 4u || round == 5u { valley = kept_valley(NEXT_DEEPEST); }
    kept[RATE] = valley.rate;
    // Towards the deepest valley from both sides: kinks may hide another one between two delays of the dictionary.
    var start = valley.delay;
    if round == 2u { start = max(start - s.reach, s.delay_low); }
    if round == 3u { start = min(start + s.reach, s.delay_high); }
    let branch = round >= FIRST_BRANCH && round < LAST_ROUND;
    let elsewhere = round >= 6u && round < FIRST_BRANCH;
    if branch {
        let deepest = kept_valley(BRANCH + 4u * ((round - FIRST_BRANCH) / 2u));
        start = deepest.delay;
        kept[RATE] = deepest.rate;
    }
    if elsewhere {
        start = kept[CHOSEN_DELAY];
        kept[RATE] = kept[OTHER_RATE];
    }
    if round >= FIRST_RESTART && round < FIRST_BRANCH {
        // From both sides of the best delay.
        let aside = select(s.reach, -s.reach, round % 2u == 0u);
        start = min(max(start + aside, s.delay_low), s.delay_high);
        kept[RATE] = entry(s.restarts_at + (round - FIRST_RESTART) / 2u);
    }
    kept[THE_DELAY] = select(kept[GIVEN_DELAY], start, kept[DELAY_FREE] != 0.0);
    if round == LAST_ROUND {
        kept[RATE] = kept[CHOSEN_RATE];
        kept[THE_DELAY] = kept[CHOSEN_DELAY];
    }
    kept[ROUND] = f32(round);
    kept[TURN] = 0.0;
    start_rate();
    kept[SETTLED] = 0.0;
    kept[COUNT] = 0.0;
    kept[LOWEST] = FAR;
    let left = round == 0u || round == 3u || round == 4u || round == 6u || (elsewhere && round > 7u && round % 2u == 1u)
        || (branch && round % 2u == 0u);
    let delay = kept[THE_DELAY];
    kept[SEARCH_FIRST] = select(delay, max(delay - 2.0 * s.reach, s.delay_low), left);
    kept[SEARCH_LAST] = select(min(delay + 2.0 * s.reach, s.delay_high), delay, left);
    kept[SEARCH_LOW] = kept[SEARCH_FIRST] - 1.0;
    kept[SEARCH_HIGH] = kept[SEARCH_LAST] + 1.0;
    kept[SEARCH_SIDE] = select(-s.aside, s.aside, left);
    kept[SEARCH_PREVIOUS] = delay;
    kept[SEARCH_SLOPE] = 0.0;
    kept[SEARCH_RATE] = 0.0;
    kept[SEARCH_LENGTH] = FAR;
    kept[SEARCH_LENGTH_BEFORE] = FAR;
    kept[SEARCH_STUCK] = 0.0;
}

// How the rate follows the delay.
var<private> rate_by_delay: f32;

// The next delay, from the slope at this one.
fn next_delay(rate: f32, delay: f32, moving: bool, p: Point) -> f32 {
    kept[SEARCH_STUCK] = 0.0;
    if !moving { return delay; }
    let slope = p.delay_slope;
    if slope < 0.0 {
        kept[SEARCH_LOW] = max(kept[SEARCH_LOW], delay);
    } else {
        kept[SEARCH_HIGH] = min(kept[SEARCH_HIGH], delay);
    }
    let apart = delay - kept[SEARCH_PREVIOUS];
    let moved = abs(apart) > 0.0;
    let secant = (slope - kept[SEARCH_SLOPE]) / select(1.0, apart, moved);
    // On a bound the curvature is that at a rate that stays: far more than that of a rate that follows.
    let follows = abs(p.rate_by_delay) > 0.0;
    let least = select(1e-4, 0.2, follows);
    let sensible = moved && secant > least * p.delay_curvature && secant < 20.0 * p.delay_curvature;
    let followed = select(0.0, (rate - kept[SEARCH_RATE]) / select(1.0, apart, moved), moved);
    rate_by_delay = select(followed, p.rate_by_delay, follows);
    let second = select(p.delay_curvature, secant, sensible);
    var step = select(0.0, -(slope / select(1.0, second, second > 0.0)), second > 0.0);
    // Where the slope gets steeper on the way, the next step is twice the last one.
    if moved && secant <= 0.0 && slope * apart < 0.0 && abs(2.0 * apart) > abs(step) { step = 2.0 * apart; }
    let tried = min(max(delay + step, kept[SEARCH_FIRST]), kept[SEARCH_LAST]);
    let stuck = tried == delay;
    let between = kept[SEARCH_LOW] >= kept[SEARCH_FIRST] && kept[SEARCH_HIGH] <= kept[SEARCH_LAST];
    let slow = between && abs(tried - delay) > 0.5 * kept[SEARCH_LENGTH_BEFORE];
    let out = (tried <= kept[SEARCH_LOW] || tried >= kept[SEARCH_HIGH] || slow) && !stuck;
    let middle =
        min(max(0.5 * (kept[SEARCH_LOW] + kept[SEARCH_HIGH]), kept[SEARCH_FIRST]), kept[SEARCH_LAST]);
    kept[SEARCH_STUCK] = select(0.0, 1.0, stuck);
    kept[SEARCH_PREVIOUS] = delay;
    kept[SEARCH_SLOPE] = slope;
    kept[SEARCH_RATE] = rate;
    let next = select(tried, middle, out);
    kept[SEARCH_LENGTH_BEFORE] = kept[SEARCH_LENGTH];
    kept[SEARCH_LENGTH] = abs(next - delay);
    return next;
}

fn start_rate() {
    kept[LOW] = 0.5 * rate_of(0u);
    kept[HIGH] = 2.0 * rate_of(uniforms.settings.rates - 1u);
    kept[SLOPE_AT_LOW] = 0.0;
    kept[SLOPE_AT_HIGH] = 0.0;
    kept[PREVIOUS_RATE] = 0.0;
    kept[PREVIOUS_SLOPE] = 0.0;
    kept[LENGTH] = FAR;
    kept[LENGTH_BEFORE] = FAR;
}

// Whether next to nothing is left to gain; whether the step is none.
var<private> small: bool;
var<private> stuck: bool;

fn negligible() -> f32 {
    return 4.0 * EPSILON * EPSILON * kept[SQUARES];
}

// A step of the rate: of Gauss and Newton, then of secants, between rates of falling and rising slope.
fn next_rate(p: Point, rate: f32, turn: u32) -> f32 {
    let s = uniforms.settings;
    let lowest = rate_of(0u);
    let highest = rate_of(s.rates - 1u);
    let drop = p.slope * p.slope / select(1.0, p.curvature, p.curvature > 0.0);
    small = drop <= 1e-8 * p.sse + negligible();
    stuck = true;
    if MODEL == PATLAK { return rate; }
    if p.slope < 0.0 {
        if rate > kept[LOW] {
            kept[LOW] = rate;
            kept[SLOPE_AT_LOW] = p.slope;
        }
    } else if rate < kept[HIGH] {
        kept[HIGH] = rate;
        kept[SLOPE_AT_HIGH] = p.slope;
    }
    let apart = rate - kept[PREVIOUS_RATE];
    let moved = abs(apart) > 0.0 && turn > 0u;
    let secant = (p.slope - kept[PREVIOUS_SLOPE]) / select(1.0, apart, moved);
    let curved = COMPANION == INTEGRAL && !p.solution.b_free;
    let least = select(0.05, 1e-3, curved);
    let sensible = moved && (p.sse > 1e-4 * kept[SQUARES] || curved) && secant > least * p.curvature
        && secant < 20.0 * p.curvature;
    let second = select(p.curvature, secant, sensible);
    let step = -(p.slope / (select(1.0, second, second > 0.0) * max(rate, TINY)));
    let relative = select(0.0, step, second > 0.0);
    let product = rate * TYPICAL_TIME;
    let share = product / (1.0 + product);
    let below = 1.0 - share * relative;
    let above = 1.0 + (1.0 - share) * relative;
    let fair = below > 0.2 && above > 0.2;
    let limit = select(0.2, 5.0, relative > 0.0);
    let factor = min(max(select(limit, above / select(1.0, below, fair), fair), 0.2), 5.0);
    var tried = min(max(rate * factor, lowest), highest);
    let crosses = (rate < s.corner && s.corner < tried) || (tried < s.corner && s.corner < rate);
    if crosses && !p.solution.b_free { tried = s.corner; }
    let between = kept[LOW] >= lowest && kept[HIGH] <= highest;
    let narrow = between && kept[HIGH] - kept[LOW] <= 4.0 * EPSILON * rate;
    stuck = tried == rate || narrow;
    if small && abs(relative) > 0.1 { tried = rate; }
    // A slope with a kink sends steps to and fro: each is at most half of the one before the last.
    let slow = between && abs(tried - rate) > 0.5 * kept[LENGTH_BEFORE];
    let out = tried <= kept[LOW] || tried >= kept[HIGH] || slow;
    var middle = min(max(sqrt(kept[LOW] * kept[HIGH]), lowest), highest);
    if between && turn % 2u == 0u {
        // Every other time where a straight line between both slopes has its zero.
        let part = kept[SLOPE_AT_HIGH] / max(kept[SLOPE_AT_HIGH] - kept[SLOPE_AT_LOW], TINY);
        middle = kept[HIGH] + min(max(part, 0.01), 0.99) * (kept[LOW] - kept[HIGH]);
    }
    let next = select(tried, select(middle, rate, stuck || small), out);
    kept[PREVIOUS_RATE] = rate;
    kept[PREVIOUS_SLOPE] = p.slope;
    kept[LENGTH_BEFORE] = kept[LENGTH];
    kept[LENGTH] = abs(next - rate);
    return next;
}

// Moves rate and delay by what an evaluation told.
fn advance(p: Point) {
    let s = uniforms.settings;
    let lowest = rate_of(0u);
    let highest = rate_of(s.rates - 1u);
    let rate = kept[RATE];
    var next = next_rate(p, rate, u32(kept[TURN]));
    if OWN_DELAY {
        let delay = kept[THE_DELAY];
        let free = kept[DELAY_FREE] != 0.0;
        let drop = p.slope * p.slope / select(1.0, p.curvature, p.curvature > 0.0);
        let level = p.delay_slope * p.delay_slope / max(p.delay_curvature, TINY);
        let flat = level <= 1e-8 * p.sse + negligible();
        let followed = small || stuck || (abs(p.rate_by_delay) > 0.0 && drop <= FOLLOWED * level);
        let later = next_delay(rate, delay, free && followed, p);
        if abs(later - delay) > 0.0 {
            let relative = rate_by_delay * (later - delay) / max(rate, TINY);
            next = min(max(next / (1.0 - min(max(relative, -1.0), 0.5)), lowest), highest);
            // Another delay has other slopes.
            kept[LOW] = 0.5 * lowest;
            kept[HIGH] = 2.0 * highest;
            kept[PREVIOUS_RATE] = next;
            kept[LENGTH] = FAR;
            kept[LENGTH_BEFORE] = FAR;
        }
        if (small || stuck) && (!free || flat || kept[SEARCH_STUCK] != 0.0) { kept[SETTLED] = 1.0; }
        kept[THE_DELAY] = later;
    } else if small || stuck {
        kept[SETTLED] = 1.0;
    }
    kept[RATE] = next;
}

// Some evaluations; when the last one is done, the results.
@compute @workgroup_size(64)
fn refine(@builtin(global_invocation_id) id: vec3<u32>) {
    let voxel = voxel_of(id);
    if is_outside(voxel) { return; }
    take(voxel);
    let s = uniforms.settings;
    load_state(voxel);
    if kept[DONE] != 0.0 { return; }
    if LINEAR {
        write_linear(voxel);
        kept[DONE] = 1.0;
        save_state(voxel);
        return;
    }
    if kept[STARTED] == 0.0 {
        // The first dispatch: whether the second valley may be the deeper one, and the first round.
        kept[STARTED] = 1.0;
        let noise = 1e-6 * abs(kept[DEEPEST]);
        let close = kept[NEXT_DEEPEST] - kept[NEXT_DEEPEST + 1u] - noise < kept[DEEPEST] || OWN_DELAY;
        let rival = kept[NEXT_DEEPEST] < FAR && close;
        kept[RIVAL] = select(0.0, 1.0, rival);
        kept[LEAST] = 4.0 * FAR;
        kept[OTHER_RATE] = kept[OTHER];
        start_round(0u);
        kept[CHOSEN_RATE] = kept[RATE];
        kept[CHOSEN_DELAY] = kept[THE_DELAY];
    }
    for (var evaluation = 0u; evaluation < s.refine_evaluations && kept[DONE] == 0.0; evaluation++) {
        let round = u32(kept[ROUND]);
        let again = round == LAST_ROUND;
        var turns = select(ITERATIONS, DELAYED_ITERATIONS, OWN_DELAY);
        if MODEL == PATLAK && !OWN_DELAY { turns = 1u; }
        if again { turns = 1u; }
        let side = select(0.0, kept[SEARCH_SIDE], OWN_DELAY);
        let p = evaluate_point(voxel, kept[RATE], kept[THE_DELAY], side, false, 0.0, 0.0);
        if kept[SETTLED] == 0.0 { kept[COUNT] += 1.0; }
        // Where the sum of squares has a kink at its floor, the last step may lead away from it.
        if !OWN_DELAY || p.sse < kept[LOWEST] {
            kept[LOWEST] = p.sse;
            kept[LOWEST_RATE] = kept[RATE];
            kept[LOWEST_DELAY] = kept[THE_DELAY];
            let shapes = kept[RATE] > s.slowest_shaping && kept[RATE] < s.fastest_shaping;
            kept[LOWEST_DEGENERATE] = select(1.0, 0.0, p.solution.a_free && p.solution.b_free && shapes);
        }
        if kept[SETTLED] == 0.0 && u32(kept[TURN]) + 1u < turns {
            advance(p);
            kept[TURN] += 1.0;
            continue;
        }
        if !again {
            if kept[LOWEST] < kept[LEAST] {
                kept[LEAST] = kept[LOWEST];
                kept[CHOSEN_RATE] = kept[LOWEST_RATE];
                kept[CHOSEN_DELAY] = kept[LOWEST_DELAY];
                kept[DEGENERATE] = kept[LOWEST_DEGENERATE];
                if round == 4u || round == 5u { kept[OTHER_RATE] = kept[NEXT_OTHER]; }
            }
            kept[SUM_COUNT] += kept[COUNT];
            var next = round + 1u;
            while next < LAST_ROUND && !round_is_needed(next) { next += 1u; }
            if round_is_needed(next) {
                start_round(next);
                continue;
            }
        }
        write_nonlinear(voxel, p);
        kept[DONE] = 1.0;
    }
    save_state(voxel);
}

// ---- Results ----

struct Found {
    a: f32,
    b: f32,
    rate: f32,
    delay: f32,
    delay_free: bool,
    has_rate: bool,
}

// What `write_value` needs of the covariance: the inverse triangle's rows.
var<private> i00: f32;
var<private> i01: f32;
var<private> i02: f32;
var<private> i03: f32;
var<private> i11: f32;
var<private> i12: f32;
var<private> i13: f32;
var<private> i22: f32;
var<private> i23: f32;
var<private> i33: f32;
var<private> regular: bool;
var<private> variance: f32;
var<private> statistics: bool;
var<private> usable: bool;
var<private> valid_voxel: bool;
var<private> unclear: bool;
var<private> word: u32;

fn slot_row(slot: u32) -> i32 {
    return uniforms.settings.slots[slot / 4u][slot % 4u];
}

fn write_slot(slot: u32, voxel: u32, value: f32, valid: bool) {
    let row = slot_row(slot);
    if row >= 0 {
        write_number(u32(row), voxel, value, valid);
    }
}

fn independent(diagonal: f32, length: f32) -> bool {
    return diagonal > 1e-5 * length && diagonal > 1e-18;
}

fn invert(p: Point, absent: vec4<bool>) {
    let r00 = select(p.r00, 1.0, absent.x);
    let r01 = select(p.r01, 0.0, absent.y);
    let r11 = select(p.r11, 1.0, absent.y);
    let r02 = select(p.r02, 0.0, absent.z);
    let r12 = select(p.r12, 0.0, absent.z);
    let r22 = select(p.r22, 1.0, absent.z);
    let r03 = select(p.r03, 0.0, absent.w);
    let r13 = select(p.r13, 0.0, absent.w);
    let r23 = select(p.r23, 0.0, absent.w);
    let r33 = select(p.r33, 1.0, absent.w);
    let ok0 = independent(r00, r00);
    let ok1 = independent(r11, sqrt(r01 * r01 + r11 * r11));
    let ok2 = independent(r22, sqrt(r02 * r02 + r12 * r12 + r22 * r22));
    let ok3 = independent(r33, sqrt(r03 * r03 + r13 * r13 + r23 * r23 + r33 * r33));
    regular = ok0 && ok1 && ok2 && ok3;
    i00 = 1.0 / select(1.0, r00, ok0);
    i11 = 1.0 / select(1.0, r11, ok1);
    i22 = 1.0 / select(1.0, r22, ok2);
    i33 = 1.0 / select(1.0, r33, ok3);
    i01 = -(i00 * r01 * i11);
    i12 = -(i11 * r12 * i22);
    i02 = -((i00 * r02 + i01 * r12) * i22);
    i23 = -(i22 * r23 * i33);
    i13 = -((i11 * r13 + i12 * r23) * i33);
    i03 = -((i00 * r03 + i01 * r13 + i02 * r23) * i33);
}

fn standard_error(g: vec4<f32>) -> f32 {
    let e0 = g.x * i00;
    let e1 = g.x * i01 + g.y * i11;
    let e2 = g.x * i02 + g.y * i12 + g.z * i22;
    let e3 = g.x * i03 + g.y * i13 + g.z * i23 + g.w * i33;
    return sqrt(variance * (e0 * e0 + e1 * e1 + e2 * e2 + e3 * e3));
}

// Place of a bounded parameter among the status bits.
fn bound_bit(parameter: u32) -> u32 {
    switch parameter {
        case KTRANS: { return 15u; }
        case VE: { return 17u; }
        case VP: { return 19u; }
        case FP: { return 21u; }
        case PS: { return 23u; }
        case VOLUME: { return 25u; }
        default: { return 27u; }
    }
}

fn per_unit(parameter: u32) -> f32 {
    switch parameter {
        case KTRANS, KEP: { return 60.0; }
        case FP, PS: { return 6000.0; }
        default: { return 1.0; }
    }
}

// A parameter (its own or a derived one), its bounds and its standard error.
fn write_value(voxel: u32, parameter: u32, own: bool, value: f32, has: bool, gradient: vec4<f32>) {
    let s = uniforms.settings;
    let valid = valid_voxel && has;
    write_slot(parameter, voxel, value * per_unit(parameter), valid);
    if own && !LINEAR && valid {
        let bit = bound_bit(parameter);
        if value <= uniforms.settings.lower[parameter / 4u][parameter % 4u] { word |= AT_LOWER_BOUND | (1u << bit); }
        if value >= uniforms.settings.upper[parameter / 4u][parameter % 4u] { word |= AT_UPPER_BOUND | (2u << bit); }
    }
    if statistics {
        let error = standard_error(gradient);
        let has_error = valid && usable && regular;
        if own && (!has_error || error > 0.5 * abs(value)) { unclear = true; }
        write_slot(SLOT_STANDARD_ERROR + parameter, voxel, error * per_unit(parameter), has_error);
    }
}

fn write_all(voxel: u32, f: Found, p: Point, side: f32) {
    let s = uniforms.settings;
    let frames = uniforms.slab.frames;
    valid_voxel = kept[USABLE] != 0.0;
    unclear = false;
    variance = 0.0;
    if statistics {
        let n = f32(frames);
        let free = f32(s.parameters) + select(0.0, 1.0, f.delay_free);
        let valid = valid_voxel && usable;
        let about_mean = kept[ABOUT_MEAN];
        let varies = about_mean > TINY;
        let left = p.sse > TINY;
        let spare = n - free - 1.0;
        let safe_spare = select(1.0, spare, spare > 0.0);
        let penalty = 2.0 * free + 2.0 * free * (free + 1.0) / safe_spare;
        let safe_sse = select(1.0, p.sse, left);
        write_slot(SLOT_SSE, voxel, p.sse, valid);
        write_slot(SLOT_R_SQUARED, voxel, 1.0 - p.sse / select(1.0, about_mean, varies), valid && varies);
        write_slot(SLOT_AIC, voxel, n * log(safe_sse / n) + penalty, valid && left && spare > 0.0);
        let something = kept[SQUARES] > TINY;
        let ratio = select(1.0, kept[SQUARES], something) / safe_sse;
        let no_better = n * log(select(1.0, ratio, left)) <= penalty;
        if valid && (!something || (left && no_better)) { word |= NOT_ENHANCING; }
        let degrees = n - free;
        if degrees > 0.0 { variance = p.sse / degrees; }
        invert(p, vec4<bool>(COMPANION == NO_COMPANION, false, MODEL == PATLAK || !f.has_rate, !f.delay_free));
        let fitted_row = slot_row(SLOT_FITTED_CURVE);
        let residual_row = slot_row(SLOT_RESIDUAL);
        if fitted_row >= 0 || residual_row >= 0 {
            walk_start(select(0.0, f.rate, f.rate > 0.0));
            for (var i = 0u; i < frames; i++) {
                let basis = walk_to(i, f.delay, side);
                let c = sample(voxel, i);
                let residual =
                    (c - p.alone * basis.x) - f.b * (basis.b - p.overlap * basis.x) - p.surplus * basis.x;
                if fitted_row >= 0 { write_number(u32(fitted_row) + i, voxel, c - residual, valid); }
                if residual_row >= 0 { write_number(u32(residual_row) + i, voxel, residual, valid); }
            }
        }
    }
    let a = f.a;
    let b = f.b;
    let turning = f.has_rate && abs(f.rate) > 0.0;
    let rate = select(1.0, f.rate, turning);
    let volume = b / rate;
    let by_volume = vec4<f32>(0.0, 1.0 / rate, -(volume / rate), 0.0);
    let by_a = vec4<f32>(1.0, 0.0, 0.0, 0.0);
    let by_b = vec4<f32>(0.0, 1.0, 0.0, 0.0);
    switch MODEL {
        case TOFTS, EXTENDED_TOFTS: {
            write_value(voxel, KTRANS, true, b, true, by_b);
            write_value(voxel, VE, true, volume, turning, by_volume);
            write_value(voxel, KEP, false, f.rate, f.has_rate, vec4<f32>(0.0, 0.0, 1.0, 0.0));
            if COMPANION != NO_COMPANION { write_value(voxel, VP, true, a, true, by_a); }
        }
        case ONE_COMPARTMENT: {
            write_value(voxel, FP, true, b, true, by_b);
            write_value(voxel, VOLUME, true, volume, turning, by_volume);
        }
        case PATLAK: {
            write_value(voxel, VP, true, a, true, by_a);
            write_value(voxel, PS, true, b, true, by_b);
        }
        default: {
            let flow = a + b;
            let parted = turning && abs(b) > 0.0;
            let safe_b = select(1.0, b, parted);
            let flows = abs(flow) > 0.0;
            let safe_flow = select(1.0, flow, flows);
            let ratio = a / safe_b;
            let plasma = flow * flow / (safe_b * rate);
            let per_flow = flow / (safe_b * rate);
            write_value(voxel, FP, true, flow, true, vec4<f32>(1.0, 1.0, 0.0, 0.0));
            write_value(voxel, PS, true, ratio * flow, parted, vec4<f32>(1.0 + 2.0 * ratio, -(ratio * ratio), 0.0, 0.0));
            write_value(
                voxel, VP, true, plasma, parted,
                vec4<f32>(2.0 * per_flow, per_flow * (2.0 - flow / safe_b), -(plasma / rate), 0.0),
            );
            let square = safe_flow * safe_flow;
            write_value(voxel, EXTRACTION, false, a / safe_flow, flows, vec4<f32>(b / square, -(a / square), 0.0, 0.0));
        }
    }
    write_slot(DELAY, voxel, f.delay, valid_voxel);
    if OWN_DELAY {
        let error = standard_error(vec4<f32>(0.0, 0.0, 0.0, 1.0));
        write_slot(SLOT_STANDARD_ERROR + DELAY, voxel, error, valid_voxel && f.delay_free && regular);
        if valid_voxel && f.delay_free {
            if f.delay <= s.delay_low { word |= AT_LOWER_BOUND | (1u << 27u); }
            if f.delay >= s.delay_high { word |= AT_UPPER_BOUND | (2u << 27u); }
        }
    }
    if valid_voxel && unclear { word |= NOT_IDENTIFIABLE; }
    if !valid_voxel { word |= NON_FINITE_SAMPLE; }
    write_status(voxel, word);
}

fn write_nonlinear(voxel: u32, p: Point) {
    let s = uniforms.settings;
    word = 0u;
    statistics = true;
    usable = true;
    let drop = p.slope * p.slope / select(1.0, p.curvature, p.curvature > 0.0);
    let limit = 1e-5 * p.sse + 1e-9 * kept[SQUARES];
    let rate = kept[RATE];
    let outwards = (rate <= rate_of(0u) && p.slope > 0.0) || (rate >= rate_of(s.rates - 1u) && p.slope < 0.0);
    if kept[USABLE] != 0.0 && drop > limit && !outwards { word |= NOT_CONVERGED; }
    let b = p.solution.b;
    let found = Found(
        p.solution.a, b, rate, select(s.fixed_delay, kept[THE_DELAY], OWN_DELAY), kept[DELAY_FREE] != 0.0,
        MODEL == PATLAK || b > 0.0,
    );
    write_slot(SLOT_ITERATIONS, voxel, kept[SUM_COUNT], kept[USABLE] != 0.0);
    write_all(voxel, found, p, select(0.0, kept[SEARCH_SIDE], OWN_DELAY));
}

// The linear method.
fn write_linear(voxel: u32) {
    let s = uniforms.settings;
    let frames = uniforms.slab.frames;
    let two_columns = s.second_length > 0.0;
    var first_c = 0.0;
    var second_c = 0.0;
    var first_s = 0.0;
    var second_s = 0.0;
    var integral = 0.0;
    var before = sample(voxel, 0u);
    for (var i = 0u; i < frames; i++) {
        let c = sample(voxel, i);
        if i > 0u { integral += entry(s.half_steps_at + i - 1u) * (before + c); }
        before = c;
        let first = entry(s.first_at + i);
        first_c += first * c;
        first_s += first * integral;
        if two_columns {
            let second = entry(s.second_at + i);
            second_c += second * c;
            second_s += second * integral;
        }
    }
    var coefficient = 0.0;
    var has_rate = true;
    if MODEL != PATLAK {
        var cs = 0.0;
        var ss = 0.0;
        integral = 0.0;
        before = sample(voxel, 0u);
        for (var i = 0u; i < frames; i++) {
            let sampled = sample(voxel, i);
            if i > 0u { integral += entry(s.half_steps_at + i - 1u) * (before + sampled); }
            before = sampled;
            let first = entry(s.first_at + i);
            var c = sampled - first_c * first;
            var rest = integral - first_s * first;
            if two_columns {
                let second = entry(s.second_at + i);
                c -= second_c * second;
                rest -= second_s * second;
            }
            cs += c * rest;
            ss += rest * rest;
        }
        let whole = first_s * first_s + second_s * second_s + ss;
        has_rate = ss > 1e-12 * whole && ss > TINY;
        coefficient = select(0.0, cs / max(ss, TINY), has_rate);
    }
    let inverse_second = select(0.0, 1.0 / s.second_length, two_columns);
    let inverse_first = select(0.0, 1.0 / s.first_length, s.first_length > 0.0);
    let second = (second_c - coefficient * second_s) * inverse_second;
    let first = ((first_c - coefficient * first_s) - s.second_on_first * second) * inverse_first;
    let rate = -coefficient;
    var a = 0.0;
    var b = first;
    switch MODEL {
        case EXTENDED_TOFTS: {
            a = second;
            b = first - rate * second;
        }
        case UPTAKE: {
            has_rate = has_rate && abs(rate) > TINY;
            a = second / select(1.0, rate, has_rate);
            b = first - a;
        }
        case PATLAK: {
            a = second;
        }
        default: {}
    }
    word = 0u;
    statistics = true;
    usable = has_rate && rate >= 0.0;
    if kept[USABLE] != 0.0 && !usable { word |= NOT_IDENTIFIABLE; }
    let p = evaluate_point(voxel, select(0.0, rate, usable), s.fixed_delay, 0.0, true, a, b);
    write_slot(SLOT_ITERATIONS, voxel, 1.0, kept[USABLE] != 0.0);
    write_all(voxel, Found(a, b, rate, s.fixed_delay, false, has_rate), p, 0.0);
}
