// Brix's model of the relative signal, fitted. src/kernels/fit/brix/ is the definition: the same names, order and guards.
// Times are in seconds after the first frame, rates in 1/s.
//
// Entry points, in this order: `search` as often as the onsets need it, `refine` once per start and then on from the best
// place so far, `finish`.

struct Settings {
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
    low: vec4<f32>,
    high: vec4<f32>,
    slots: array<vec4<i32>, 4>,
}

struct Uniforms {
    slab: Slab,
    settings: Settings,
}

@group(0) @binding(0) var<uniform> uniforms: Uniforms;

const PARAMETERS: u32 = 4u;
const BENT: bool = false;
alias Vector = array<f32, 4>;
alias Triangle = array<Vector, 4>;
alias Flags = array<bool, 4>;
const RATES: u32 = 16u;
const CELLS: u32 = 6u;
const STARTS: u32 = 8u;
const CONTINUATIONS: u32 = 8u;
const RESTARTS: u32 = 5u;
const FIRST_HELD: u32 = 3u;
const FAR_APART: f32 = 30.0;
const HARDLY_BENT: f32 = 3.0;
const HARDLY_FALLING: f32 = 1.0;
const LEAST_RATIO: f32 = 0.1;
const NOTHING_LEFT: f32 = 1e-5;
const TURNS: u32 = 8u;
const NUMBERS_PER_CELL: u32 = 4u;
const CELL_NUMBERS: u32 = 7u;
const AT_BOUND: f32 = 2e-6;

// Words of state.
const STATE_BEST: u32 = 0u;
const STATE_REFINED: u32 = 24u;
const STATE_SSE: u32 = 44u;
const STATE_DAMPING: u32 = 45u;
const STATE_TURNS: u32 = 46u;
const STATE_CONVERGED: u32 = 47u;
const STATE_SQUARES: u32 = 48u;
const STATE_FINITE: u32 = 49u;
const STATE_SEARCHES: u32 = 50u;
const STATE_ROUND: u32 = 51u;
const STATE_MEAN: u32 = 52u;
const STATE_SCALE: u32 = 53u;
const STATE_BASELINE: u32 = 54u;

const SLOT_STANDARD_ERROR: u32 = 4u;
const SLOT_BASELINE: u32 = 8u;
const SLOT_SSE: u32 = 9u;
const SLOT_R_SQUARED: u32 = 10u;
const SLOT_AIC: u32 = 11u;
const SLOT_ITERATIONS: u32 = 12u;
const SLOT_FITTED_CURVE: u32 = 13u;
const SLOT_RESIDUAL: u32 = 14u;

const STATUS_NON_FINITE_SAMPLE: u32 = 2u;
const STATUS_BASELINE_NOT_POSITIVE: u32 = 4u;
const STATUS_NOT_ENHANCING: u32 = 8u;
const STATUS_AT_LOWER_BOUND: u32 = 1024u;
const STATUS_AT_UPPER_BOUND: u32 = 2048u;
const STATUS_NOT_CONVERGED: u32 = 4096u;
const STATUS_NOT_IDENTIFIABLE: u32 = 8192u;
const FIRST_BOUND: u32 = 15u;

// The samples along the dictionary's curves.
var<private> projections: array<f32, 16>;
// The mean of the baseline's differences, and the factor that makes S / S_BL of a difference; of the voxel in hand.
var<private> baseline_mean: f32;
var<private> relative_scale: f32;

fn scales() -> Vector {
    return Vector(0.5, 0.05, 0.002, 1.0);
}

fn row_of(slot: u32) -> i32 {
    return uniforms.settings.slots[slot >> 2u][slot & 3u];
}

// S / S_BL - 1.
fn relative(voxel: u32, frame: u32) -> f32 {
    return relative_scale * (difference(voxel, frame) - baseline_mean);
}

fn recall(voxel: u32) {
    baseline_mean = kept(STATE_MEAN, voxel);
    relative_scale = kept(STATE_SCALE, voxel);
}

// The integrals of exp(-x v) and v exp(-x v) over v from 0 to 1, x not below 0.
fn moments(x: f32) -> vec2<f32> {
    let small = x < 1.0;
    let near = min(x, 1.0);
    // Fifteen terms in Rust's text; beyond eleven none counts in 32 bits.
    var sum = 1.0 / 13.0;
    sum = 1.0 / 12.0 - near * (1.0 / 11.0) * sum;
    sum = 1.0 / 11.0 - near * (1.0 / 10.0) * sum;
    sum = 1.0 / 10.0 - near * (1.0 / 9.0) * sum;
    sum = 1.0 / 9.0 - near * (1.0 / 8.0) * sum;
    sum = 1.0 / 8.0 - near * (1.0 / 7.0) * sum;
    sum = 1.0 / 7.0 - near * (1.0 / 6.0) * sum;
    sum = 1.0 / 6.0 - near * (1.0 / 5.0) * sum;
    sum = 1.0 / 5.0 - near * (1.0 / 4.0) * sum;
    sum = 1.0 / 4.0 - near * (1.0 / 3.0) * sum;
    sum = 1.0 / 3.0 - near * (1.0 / 2.0) * sum;
    sum = 1.0 / 2.0 - near * sum;
    let decay = exp_negative(min(x, 80.0));
    let near_0 = near * sum + decay;
    let far = max(x, 1.0);
    let inverse = 1.0 / far;
    let far_0 = (1.0 - decay) * inverse;
    let far_1 = (far_0 - decay) * inverse;
    return select(vec2<f32>(far_0, far_1), vec2<f32>(near_0, sum), small);
}

// One pass over the samples; with `curves`, the fitted curve is written.
fn equations(voxel: u32, first: f32, parameters: Vector, curves: bool, valid: bool) {
    let amplitude = parameters[0];
    let kep = parameters[1];
    let kel = parameters[2];
    let fast = max(kep, kel);
    let slow = min(kep, kel);
    let apart = fast - slow;
    let swapped = kep < kel;
    let scale = amplitude * kep;
    var sse = 0.0;
    var gram = mat4x4<f32>();
    var rhs = vec4<f32>();
    for (var i = 0u; i < uniforms.slab.frames; i++) {
        let since = tables[uniforms.settings.times_at + i] - parameters[3];
        let begun = since > 0.0;
        let u = select(0.0, since, begun);
        let m = moments(apart * u);
        let decay = exp_negative(min(slow * u, 80.0));
        let s = u * decay * m.x;
        let square = u * u * decay;
        let by_fast = -(square * m.y);
        let by_slow = -(square * (m.x - m.y));
        let by_kep = select(by_fast, by_slow, swapped);
        let by_kel = select(by_slow, by_fast, swapped);
        let fitted = scale * s;
        let kel_decay = exp_negative(min(kel * u, 80.0));
        let by_onset = select(0.0, -(scale * (kel_decay - kep * s)), begun);
        let y = relative(voxel, i);
        let residual = y - fitted;
        if curves {
            if row_of(SLOT_FITTED_CURVE) >= 0 {
                write_number(u32(row_of(SLOT_FITTED_CURVE)) + i, voxel, 1.0 + fitted, valid);
            }
            if row_of(SLOT_RESIDUAL) >= 0 {
                write_number(u32(row_of(SLOT_RESIDUAL)) + i, voxel, residual, valid);
            }
        }
        let q0 = kep * s / triangle[0][0];
        let q1 = (amplitude * (s + kep * by_kep) - q0 * triangle[0][1]) / triangle[1][1];
        let q2 = (scale * by_kel - q0 * triangle[0][2] - q1 * triangle[1][2]) / triangle[2][2];
        let q3 = (by_onset - q0 * triangle[0][3] - q1 * triangle[1][3] - q2 * triangle[2][3]) / triangle[3][3];
        let q = vec4<f32>(q0, q1, q2, q3);
        sse = sse + residual * residual;
        rhs = rhs + q * residual;
        gram = gram + mat4x4<f32>(q * q.x, q * q.y, q * q.z, q * q.w);
    }
    pass_sse = sse;
    for (var i = 0u; i < 4u; i++) {
        pass_rhs[i] = rhs[i];
        for (var j = i; j < 4u; j++) {
            pass_gram[i][j] = gram[i][j];
        }
    }
}

fn variables_at(parameters: Vector) -> Variables {
    let low = uniforms.settings.low;
    let high = uniforms.settings.high;
    return Variables(parameters, Vector(low.x, low.y, low.z, low.w), Vector(high.x, high.y, high.z, high.w));
}

fn moved(parameters: Vector, step: Vector) -> Vector {
    var next: Vector;
    var scale = scales();
    for (var j = 0u; j < 4u; j++) {
        let tried = min(max(parameters[j] + step[j], uniforms.settings.low[j]), uniforms.settings.high[j]);
        next[j] = select(parameters[j], tried, abs(step[j]) > 0.0);
        if j < 2u {
            let far = parameters[j] * 10.0 + 0.01 * scale[j];
            next[j] = min(max(next[j], parameters[j] * 0.1), far);
        }
    }
    return next;
}

// The onset that isn't fitted, and whether it is.
fn given_onset(voxel: u32) -> vec2<f32> {
    if uniforms.settings.onset_fixed != 0u {
        return vec2<f32>(uniforms.settings.onset, 0.0);
    }
    if uniforms.settings.layer != 0u {
        let word = bitcast<u32>(extra_value(0u, voxel));
        if is_finite_word(word) {
            return vec2<f32>(bitcast<f32>(word), 0.0);
        }
    }
    return vec2<f32>(0.0, 1.0);
}

// Every descent goes to its end.
fn leads_nowhere(turns: u32, trial: Vector, promised: f32) -> bool {
    return false;
}

// How much of the sum of squares a cell explains with an onset in an interval, its scale, and the ratio b / a.
fn fit_cell(which: u32, slow: u32, fast: u32, cell: u32) -> vec3<f32> {
    let squares_at = uniforms.settings.squares_at + which * RATES;
    let at = uniforms.settings.numbers_at + CELL_NUMBERS * (which * uniforms.settings.cells + cell);
    let along_slow = projections[slow];
    let along_fast = projections[fast];
    let squares_slow = tables[squares_at + slow];
    let squares_fast = tables[squares_at + fast];
    let cross = tables[at];
    let inverse = tables[at + 1u];
    let largest = tables[at + 2u];
    let most = tables[uniforms.settings.cells_at + NUMBERS_PER_CELL * cell];
    // With the onset at either end of the interval,
    let along_start = along_slow - along_fast;
    var scale = min(max(along_start * tables[at + 4u], 0.0), most);
    var gain = scale * (along_start + along_start - scale * tables[at + 3u]);
    var ratio = 1.0;
    let along_end = along_slow - largest * along_fast;
    let at_end = min(max(along_end * tables[at + 6u], 0.0), most);
    let gain_at_end = at_end * (along_end + along_end - at_end * tables[at + 5u]);
    if gain_at_end > gain {
        gain = gain_at_end;
        scale = at_end;
        ratio = largest;
    }
    // or between them.
    let a = (along_slow * squares_fast - along_fast * cross) * inverse;
    let b = (along_slow * cross - along_fast * squares_slow) * inverse;
    if a > 0.0 && b > a && b < largest * a {
        let inside = b / a;
        let capped = min(a, most);
        let along = along_slow - inside * along_fast;
        let squares = squares_slow - inside * (cross + cross - inside * squares_fast);
        let gain_inside = capped * (along + along - capped * squares);
        if gain_inside > gain {
            gain = gain_inside;
            scale = capped;
            ratio = inside;
        }
    }
    return vec3<f32>(gain, scale, ratio);
}

// Puts the best of an interval (gain, cell, scale, ratio) among the others, best first; the last one leaves.
fn insert(voxel: u32, which: u32, best: vec4<f32>) {
    if best.x <= kept(STATE_BEST + 4u * (CELLS - 1u), voxel) {
        return;
    }
    // From the ratio to the onset, and to what the scale is there.
    let cell_at = uniforms.settings.cells_at + NUMBERS_PER_CELL * u32(best.y);
    let kep = tables[cell_at + 2u];
    let kel = tables[cell_at + 3u];
    let since = log(best.w) / (kep - kel);
    let interval_at = uniforms.settings.intervals_at + 2u * which;
    let onset = min(tables[interval_at] + since, tables[interval_at + 1u]);
    var next = vec4<f32>(best.x, best.y, best.z * exp(kel * since), onset);
    for (var k = 0u; k < CELLS; k++) {
        let at = STATE_BEST + 4u * k;
        if next.x > kept(at, voxel) {
            let displaced =
                vec4<f32>(kept(at, voxel), kept(at + 1u, voxel), kept(at + 2u, voxel), kept(at + 3u, voxel));
            keep(at, voxel, next.x);
            keep(at + 1u, voxel, next.y);
            keep(at + 2u, voxel, next.z);
            keep(at + 3u, voxel, next.w);
            next = displaced;
        }
    }
}

@compute @workgroup_size(64)
fn search(@builtin(global_invocation_id) id: vec3<u32>) {
    let voxel = voxel_of(id);
    if is_outside(voxel) {
        return;
    }
    let given = given_onset(voxel);
    let n = uniforms.slab.frames;
    let begun = read_state(STATE_SEARCHES, voxel) == 0x5eedu;
    let done = select(0u, read_state(STATE_ROUND, voxel), begun);
    if !begun {
        let finite = all_finite(voxel);
        var sum = 0.0;
        for (var i = uniforms.settings.baseline_start; i < uniforms.settings.baseline_end; i++) {
            sum = sum + difference(voxel, i);
        }
        let mean = sum * uniforms.settings.inverse_baseline;
        let baseline = uniforms.settings.slope * (first_sample(voxel) + mean) + uniforms.settings.intercept;
        let positive = baseline > 0.0 && finite;
        let scale = select(0.0, uniforms.settings.slope / select(1.0, baseline, positive), positive);
        keep(STATE_MEAN, voxel, mean);
        keep(STATE_SCALE, voxel, scale);
        keep(STATE_BASELINE, voxel, baseline);
        write_state(STATE_FINITE, voxel, select(0u, 1u, finite) + select(0u, 2u, positive));
        recall(voxel);
        var squares = 0.0;
        for (var i = 0u; i < n; i++) {
            let y = relative(voxel, i);
            squares = squares + y * y;
        }
        keep(STATE_SQUARES, voxel, squares);
        for (var k = 0u; k < 4u * CELLS; k++) {
            keep(STATE_BEST + k, voxel, select(0.0, given.x, k % 4u == 3u));
        }
        write_state(STATE_SEARCHES, voxel, 0x5eedu);
    }
    recall(voxel);
    let end = min(done + uniforms.settings.onsets_per_search, uniforms.settings.onsets);
    let free = given.y != 0.0;
    for (var which = done; which < end; which++) {
        let interval_at = uniforms.settings.intervals_at + 2u * which;
        let begun_by_then = which == 0u || tables[interval_at] <= given.x;
        let ends_later = which + 1u == uniforms.settings.onsets || given.x < tables[interval_at + 1u];
        if !free && !(begun_by_then && ends_later) {
            continue;
        }
        for (var k = 0u; k < RATES; k++) {
            let at = uniforms.settings.curves_at + (which * RATES + k) * n;
            var sum = 0.0;
            var i = 0u;
            // Four at a time: turns of loops are few.
            while i + 3u < n {
                sum = sum + relative(voxel, i) * tables[at + i];
                sum = sum + relative(voxel, i + 1u) * tables[at + i + 1u];
                sum = sum + relative(voxel, i + 2u) * tables[at + i + 2u];
                sum = sum + relative(voxel, i + 3u) * tables[at + i + 3u];
                i = i + 4u;
            }
            while i < n {
                sum = sum + relative(voxel, i) * tables[at + i];
                i = i + 1u;
            }
            projections[k] = sum;
        }
        // Gain, cell, scale, ratio: the best, and those of the last two slower rates.
        var best = vec4<f32>(0.0, 0.0, 0.0, 1.0);
        var before = best;
        var gain_before_that = 0.0;
        var cell = 0u;
        for (var slow = 0u; slow < RATES; slow++) {
            var row = vec4<f32>(0.0, 0.0, 0.0, 1.0);
            for (var fast = slow + 1u; fast < RATES; fast++) {
                let found = fit_cell(which, slow, fast, cell);
                if found.x > row.x && found.y > 0.0 {
                    row = vec4<f32>(found.x, f32(cell), found.y, found.z);
                }
                cell = cell + 1u;
            }
            if row.x > best.x {
                best = row;
            }
            if !free && before.x > gain_before_that && before.x >= row.x {
                insert(voxel, which, before);
            }
            gain_before_that = before.x;
            before = row;
        }
        if free {
            insert(voxel, which, best);
        }
    }
    if end == uniforms.settings.onsets {
        // What follows counts refinements here, and a later slab begins anew.
        write_state(STATE_SEARCHES, voxel, 0u);
        write_state(STATE_ROUND, voxel, 0u);
    } else {
        write_state(STATE_ROUND, voxel, end);
    }
}

// The parameters of a cell of the list.
fn start_of(voxel: u32, number: u32, given: vec2<f32>) -> Vector {
    let best = STATE_BEST + 4u * number;
    let at = uniforms.settings.cells_at + NUMBERS_PER_CELL * u32(kept(best + 1u, voxel));
    var scale = scales();
    return Vector(
        max(kept(best + 2u, voxel) * tables[at + 1u], 1e-6 * scale[0]),
        min(tables[at + 2u], uniforms.settings.high.y),
        min(tables[at + 3u], uniforms.settings.high.z),
        select(given.x, kept(best + 3u, voxel), given.y != 0.0),
    );
}

// The middle of the interval before an onset, or after it; the onset itself where there is none.
fn beside(onset: f32, earlier: bool) -> f32 {
    var place = onset;
    for (var i = 0u; i < uniforms.settings.onsets; i++) {
        // The last one before, the first one after.
        let which = select(uniforms.settings.onsets - 1u - i, i, earlier);
        let start = tables[uniforms.settings.intervals_at + 2u * which];
        let end = tables[uniforms.settings.intervals_at + 2u * which + 1u];
        place = select(place, 0.5 * (start + end), select(start >= onset, end <= onset, earlier));
    }
    return place;
}

// Whether a restart beside a place is worth a descent.
fn is_restart(number: u32, place: Vector, free: bool) -> bool {
    let fast = max(place[1], place[2]);
    let hardly_bent = fast * tables[uniforms.settings.times_at + uniforms.slab.frames - 1u] < HARDLY_BENT;
    switch number {
        case 0u: { return fast < FAR_APART * min(place[1], place[2]) || hardly_bent; }
        case 1u: { return hardly_bent; }
        case 2u: {
            let slow = min(place[1], place[2]);
            return slow * tables[uniforms.settings.times_at + uniforms.slab.frames - 1u] < HARDLY_FALLING;
        }
        default: { return free; }
    }
}

// A restart beside a place.
fn restart(number: u32, place: Vector) -> Vector {
    let fast = max(place[1], place[2]);
    let scale = place[0] * place[1];
    let low = uniforms.settings.low;
    let high = uniforms.settings.high;
    var next = place;
    if number == 0u {
        let rate = min(sqrt(fast * max(min(place[1], place[2]), LEAST_RATIO * fast)), high.z);
        next = Vector(scale / max(rate, 1e-12), rate, rate, place[3]);
    }
    if number == 1u {
        next[0] = high.x;
        next[1] = scale / high.x;
    }
    if number == 2u {
        next = Vector(scale / max(fast, 1e-12), fast, low.z, place[3]);
    }
    if number == 4u {
        var nearest = tables[uniforms.settings.times_at];
        for (var i = 1u; i < uniforms.slab.frames; i++) {
            let time = tables[uniforms.settings.times_at + i];
            nearest = select(nearest, time, abs(time - place[3]) < abs(nearest - place[3]));
        }
        next[3] = nearest;
    }
    return Vector(
        min(max(next[0], low.x), high.x), min(max(next[1], low.y), high.y), min(max(next[2], low.z), high.z), next[3],
    );
}

@compute @workgroup_size(64)
fn refine(@builtin(global_invocation_id) id: vec3<u32>) {
    let voxel = voxel_of(id);
    if is_outside(voxel) {
        return;
    }
    recall(voxel);
    let round = read_state(STATE_ROUND, voxel);
    write_state(STATE_ROUND, voxel, round + 1u);
    let squares = kept(STATE_SQUARES, voxel);
    let given = given_onset(voxel);
    let free = given.y != 0.0;
    let held = Flags(false, false, false, !free);
    let number = round - min(round, STARTS + CONTINUATIONS);
    if round >= STARTS && (round < STARTS + CONTINUATIONS || number >= RESTARTS) {
        // On from the best place so far.
        if read_state(STATE_CONVERGED, voxel) == 1u {
            return;
        }
        let turns =
            refine_from(voxel, 0.0, best_place(voxel), held, squares, kept(STATE_DAMPING, voxel), TURNS);
        keep_refined(voxel);
        write_state(STATE_CONVERGED, voxel, select(0u, 1u, turns > 0));
        write_state(STATE_TURNS, voxel, read_state(STATE_TURNS, voxel) + u32(abs(turns)));
        return;
    }
    if round == 0u {
        let turns = refine_from(voxel, 0.0, start_of(voxel, 0u, given), held, squares, DAMPING, TURNS);
        keep_refined(voxel);
        write_state(STATE_CONVERGED, voxel, select(0u, 1u, turns > 0));
        write_state(STATE_TURNS, voxel, u32(abs(turns)));
        return;
    }
    var start = best_place(voxel);
    var holds = held;
    let something_left = kept(STATE_SSE, voxel) > NOTHING_LEFT * squares;
    var most_turns = TURNS;
    if round < CELLS {
        if !(something_left && kept(STATE_BEST + 4u * round, voxel) > 0.0) {
            return;
        }
        start = start_of(voxel, round, given);
    } else if round < STARTS {
        // From the intervals beside it.
        if !free {
            return;
        }
        start[3] = beside(start[3], round == CELLS);
    } else {
        if !(something_left && is_restart(number, start, free)) {
            return;
        }
        start = restart(number, start);
        if number >= FIRST_HELD {
            holds[3] = true;
            most_turns = uniforms.settings.held_turns;
        }
    }
    let turns = refine_from(voxel, 0.0, start, holds, squares, DAMPING, most_turns);
    if best_sse < kept(STATE_SSE, voxel) {
        keep_refined(voxel);
        write_state(STATE_CONVERGED, voxel, select(0u, 1u, turns > 0));
    }
    write_state(STATE_TURNS, voxel, read_state(STATE_TURNS, voxel) + u32(abs(turns)));
}

@compute @workgroup_size(64)
fn finish(@builtin(global_invocation_id) id: vec3<u32>) {
    let voxel = voxel_of(id);
    if is_outside(voxel) {
        return;
    }
    recall(voxel);
    let flags = read_state(STATE_FINITE, voxel);
    let finite = (flags & 1u) != 0u;
    let valid = (flags & 2u) != 0u;
    let given = given_onset(voxel);
    let free = given.y != 0.0;
    let squares = kept(STATE_SQUARES, voxel);
    var converged = read_state(STATE_CONVERGED, voxel) == 1u;
    var parameters = best_place(voxel);
    var turn_count = read_state(STATE_TURNS, voxel);
    // The larger rate is k_ep: the curve is the same.
    if parameters[1] < parameters[2] {
        let kep = parameters[1];
        parameters[0] = parameters[0] * kep / parameters[2];
        parameters[1] = parameters[2];
        parameters[2] = kep;
        let turns = refine_from(voxel, 0.0, parameters, Flags(false, false, false, !free), squares, DAMPING, 2u);
        keep_refined(voxel);
        parameters = best_parameters;
        converged = turns > 0;
        turn_count = u32(abs(turns));
    }
    for (var i = 0u; i < PARAMETERS; i++) {
        for (var j = 0u; j < PARAMETERS; j++) {
            triangle[i][j] = select(0.0, kept(STATE_REFINED + PARAMETERS + PARAMETERS * i + j, voxel), j >= i);
        }
    }
    let sse = kept(STATE_SSE, voxel);
    var bits = select(STATUS_NON_FINITE_SAMPLE, 0u, finite);
    if finite && !valid {
        bits = bits | STATUS_BASELINE_NOT_POSITIVE;
    }
    if valid && !converged {
        bits = bits | STATUS_NOT_CONVERGED;
    }

    // Goodness.
    let n = f32(uniforms.slab.frames);
    var whole = 0.0;
    for (var i = 0u; i < uniforms.slab.frames; i++) {
        whole = whole + relative(voxel, i);
    }
    let middle = whole / n;
    var about_mean = 0.0;
    for (var i = 0u; i < uniforms.slab.frames; i++) {
        let off = relative(voxel, i) - middle;
        about_mean = about_mean + off * off;
    }
    let count = select(3.0, 4.0, free);
    let varies = about_mean > SMALLEST_SUM;
    let spare = n - count - 1.0;
    let left = sse > SMALLEST_SUM;
    let has_aic = left && spare > 0.0;
    let penalty = 2.0 * count + 2.0 * count * (count + 1.0) / select(1.0, spare, spare > 0.0);
    let aic = n * log(select(1.0, sse, left) / n) + penalty;
    let something = squares > SMALLEST_SUM;
    let ratio = select(1.0, squares, something) / select(1.0, sse, left);
    let no_better = n * log(select(1.0, ratio, left)) <= penalty;
    if valid && (!something || (left && no_better)) {
        bits = bits | STATUS_NOT_ENHANCING;
    }
    let degrees = n - count;
    let variance = select(0.0, sse / select(1.0, degrees, degrees > 0.0), degrees > 0.0);
    if row_of(SLOT_BASELINE) >= 0 {
        write_number(u32(row_of(SLOT_BASELINE)), voxel, kept(STATE_BASELINE, voxel), finite);
    }
    if row_of(SLOT_SSE) >= 0 {
        write_number(u32(row_of(SLOT_SSE)), voxel, sse, valid);
    }
    if row_of(SLOT_R_SQUARED) >= 0 {
        let value = 1.0 - sse / select(1.0, about_mean, varies);
        write_number(u32(row_of(SLOT_R_SQUARED)), voxel, value, valid && varies);
    }
    if row_of(SLOT_AIC) >= 0 {
        write_number(u32(row_of(SLOT_AIC)), voxel, aic, valid && has_aic);
    }
    if row_of(SLOT_ITERATIONS) >= 0 {
        write_number(u32(row_of(SLOT_ITERATIONS)), voxel, f32(turn_count), valid);
    }
    if row_of(SLOT_FITTED_CURVE) >= 0 || row_of(SLOT_RESIDUAL) >= 0 {
        equations(voxel, 0.0, parameters, true, valid);
    }

    // The inverse of the triangle; an onset that isn't fitted stands alone.
    if !free {
        for (var i = 0u; i < PARAMETERS; i++) {
            triangle[i][3] = select(0.0, 1.0, i == 3u);
        }
    }
    let regular = invert_triangle();
    let units = vec4<f32>(1.0, 60.0, 60.0, 1.0);
    var unclear = false;
    for (var q = 0u; q < PARAMETERS; q++) {
        var squared = 0.0;
        for (var j = q; j < PARAMETERS; j++) {
            squared = squared + inverse_triangle[q][j] * inverse_triangle[q][j];
        }
        let error = sqrt(variance * squared);
        let fitted = valid && (q < 3u || free);
        let has_error = fitted && regular;
        if row_of(q) >= 0 {
            write_number(u32(row_of(q)), voxel, parameters[q] * units[q], valid);
        }
        if row_of(SLOT_STANDARD_ERROR + q) >= 0 {
            write_number(u32(row_of(SLOT_STANDARD_ERROR + q)), voxel, error * units[q], has_error);
        }
        if fitted && parameters[q] <= uniforms.settings.low[q] * (1.0 + AT_BOUND) {
            bits = bits | STATUS_AT_LOWER_BOUND | (1u << (FIRST_BOUND + 2u * q));
        }
        if fitted && parameters[q] >= uniforms.settings.high[q] * (1.0 - AT_BOUND) {
            bits = bits | STATUS_AT_UPPER_BOUND | (2u << (FIRST_BOUND + 2u * q));
        }
        if q < 3u {
            unclear = unclear || !has_error || error > 0.5 * abs(parameters[q]);
        }
    }
    if valid && unclear {
        bits = bits | STATUS_NOT_IDENTIFIABLE;
    }
    write_status(voxel, bits);
}
