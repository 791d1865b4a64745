// Pharmacokinetic models that are linear given one rate constant. The definition is src/kernels/fit/one_rate/ (reference.rs,
// bounded_linear.rs, linear.rs, results.rs): the same names, order and guards. One thread per voxel.
//
// A thread has no memory for curves: the convolution is walked along anew for each of the three passes of an evaluation, from
// knot to knot of the input function, with a part of a step to each frame.
//
// Loops: `search` takes some delays of the dictionary, `refine` some evaluations, as many as stay below 65,535 turns; both
// are dispatched as often as it takes, and keep a voxel's state in between. The last thing that `refine` does is to write.

struct Settings {
    model: u32,
    linear: u32,
    companion: u32,
    own: u32,
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
    reserved_a: u32,
    reserved_b: u32,
    reserved_c: u32,
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
const DELAYED_ITERATIONS: u32 = 64u;
const LAST_ROUND: u32 = 4u;
const STATE_WORDS: u32 = 56u;

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
var<private> walk_by_rate: f32;
var<private> walk_length: f32;
var<private> walk_weights: StepWeights;
var<private> part_length: f32;
var<private> part_weights: StepWeights;

fn walk_start(rate: f32) {
    walk_rate = rate;
    walk_knot = 0u;
    walk_value = 0.0;
    walk_by_rate = 0.0;
    walk_length = -1.0;
    part_length = -1.0;
}

struct Basis {
    x: f32,
    b: f32,
    by_rate: f32,
    x_by_time: f32,
    b_by_time: f32,
}

// X, B and their derivatives at a time; times may only grow.
fn walk_to(time: f32, side: f32) -> Basis {
    let looked_up = time + side;
    if knot_time(0u) > looked_up {
        return Basis(0.0, 0.0, 0.0, 0.0, 0.0);
    }
    let patlak = uniforms.settings.model == PATLAK;
    while walk_knot + 1u < uniforms.settings.knots && knot_time(walk_knot + 1u) <= looked_up {
        if !patlak {
            let length = knot_time(walk_knot + 1u) - knot_time(walk_knot);
            if length != walk_length {
                walk_length = length;
                walk_weights = step_weights(walk_rate, length);
            }
            let begin = entry(uniforms.settings.knot_values_at + walk_knot);
            let end = entry(uniforms.settings.knot_values_at + walk_knot + 1u);
            let w = walk_weights;
            walk_by_rate =
                w.decay * walk_by_rate + w.decay_by_rate * walk_value + (w.begin_by_rate * begin + w.end_by_rate * end);
            walk_value = w.decay * walk_value + (w.begin * begin + w.end * end);
        }
        walk_knot += 1u;
    }
    let since = time - knot_time(walk_knot);
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
        let w = part_weights;
        basis.b = w.decay * walk_value + (w.begin * begin + w.end * end);
        basis.by_rate =
            w.decay * walk_by_rate + w.decay_by_rate * walk_value + (w.begin_by_rate * begin + w.end_by_rate * end);
        basis.b_by_time = end - walk_rate * basis.b;
    }
    switch uniforms.settings.companion {
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
    if s.model != PATLAK {
        low_moves = s.volume_low * n.rate > low;
        high_moves = s.volume_high * n.rate < high;
        low = max(low, s.volume_low * n.rate);
        high = min(high, s.volume_high * n.rate);
    }
    var a = 0.0;
    var b = min(max(n.best, low), high);
    var a_free = true;
    if s.companion != NO_COMPANION {
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
    let excess = select(n.squares * off * off, rise(n, a, b), s.companion != NO_COMPANION);
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
    if uniforms.settings.companion == INTEGRAL {
        return uptake(n, coarse);
    }
    return boxed(n);
}

// ---- One evaluation ----

struct Samples {
    squares: f32,
    squares_about_mean: f32,
}

fn sample(voxel: u32, i: u32) -> f32 {
    let s = uniforms.settings.slope;
    return (s * first_sample(voxel) + uniforms.settings.intercept) + s * difference(voxel, i);
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
    let own = s.own != 0u;
    let beside = s.companion != NO_COMPANION;
    var xb = 0.0;
    var xd = 0.0;
    var xc = 0.0;
    var xx = 0.0;
    if beside {
        walk_start(rate);
        for (var i = 0u; i < frames; i++) {
            let p = walk_to(frame_time(i) - delay, side);
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
        let p = walk_to(frame_time(i) - delay, side);
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
    let kept = select(overlap, 0.0, solution.a_free);
    let kept_by_rate = select(overlap_by_rate, 0.0, solution.a_free);
    let surplus = select(a - (alone - overlap * b), 0.0, solution.a_free);
    let whole_bb = bb + kept * overlap * xx;
    let whole_bd = bd + kept * overlap_by_rate * xx;
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
        let p = walk_to(frame_time(i) - delay, side);
        let b_i = p.b - overlap * p.x;
        let d_i = p.by_rate - overlap_by_rate * p.x;
        let residual = (sample(voxel, i) - alone * p.x) - b * b_i - surplus * p.x;
        let convolution = b_i + kept * p.x;
        let direction = (d_i + kept_by_rate * p.x) - ratio * convolution;
        let free_direction = d_i - free_ratio * b_i;
        sse += residual * residual;
        rd += residual * direction;
        dd += direction * direction;
        free_dd += free_direction * free_direction;
        rb += residual * convolution;
        rx += residual * p.x;
        if own {
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
    if s.companion != INTEGRAL && rate == s.corner && b >= s.flow_high {
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
    if own {
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
