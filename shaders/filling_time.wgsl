// When a voxel fills. src/kernels/filling_time/reference.rs is the definition: the same names, order and guards.
// Amplitudes are in stored units, as differences from the voxel's first sample; times are in seconds after the first frame.

struct Settings {
    frames_used: u32,
    tau_count: u32,
    dt_at: u32,
    taus_at: u32,
    rho_at: u32,
    has_level: u32,
    half_window: u32,
    fewest_after: u32,
    t0: f32,
    log_tau_first: f32,
    log_tau_step: f32,
    log_tau_information: f32,
    slope: f32,
    intercept: f32,
    scale: f32,
    sign: f32,
    direction: f32,
    enhancement_threshold: f32,
    level: f32,
    padding: u32,
}

struct Uniforms {
    slab: Slab,
    settings: Settings,
}

@group(0) @binding(0) var<uniform> uniforms: Uniforms;

const ROW_ARRIVAL: u32 = 0u;
const ROW_ARRIVAL_SE: u32 = 1u;
const ROW_BASELINE: u32 = 2u;
const ROW_PLATEAU: u32 = 3u;
const ROW_TAU: u32 = 4u;
const ROW_NOISE: u32 = 5u;
const ROW_CROSSING: u32 = 6u;
const ROW_CROSSING_SE: u32 = 7u;

const NON_FINITE_SAMPLE: u32 = 2u;
const NOT_ENHANCING: u32 = 8u;
const AT_LOWER_BOUND: u32 = 1024u;
const AT_UPPER_BOUND: u32 = 2048u;
const NOT_IDENTIFIABLE: u32 = 8192u;
const CENSORED: u32 = 16384u;

// Guards a division whose result doesn't matter.
const TINY: f32 = 1e-30;

// The voxel in hand: its place in the slab, and the word of its first sample.
var<private> here: u32;
var<private> first_word: u32;

struct Break {
    gain: f32,
    arrival: f32,
    found: bool,
}

struct Front {
    constant: f32,
    plateau: f32,
    explained: f32,
    squares: f32,
}

struct After {
    count: f32,
    mean_w: f32,
    mean_y: f32,
    ww: f32,
    wy: f32,
}

struct Candidate {
    gain: f32,
    w: f32,
    usable: bool,
}

struct Found {
    value: f32,
    found: bool,
}

// `a` where the condition holds, else `b`.
fn pick(condition: bool, a: f32, b: f32) -> f32 {
    return select(b, a, condition);
}

fn u_at(i: u32) -> f32 {
    return tables[i];
}

fn dt_at(i: u32) -> f32 {
    return tables[uniforms.settings.dt_at + i];
}

// The stored difference from the first sample, turned so that contrast agent raises it.
fn y_at(i: u32) -> f32 {
    return difference_of_words(stored_word(here, i), first_word, i) * uniforms.settings.sign;
}

// The logarithm of the time constant at a place of the grid, also between its points.
fn log_tau(index: f32) -> f32 {
    return uniforms.settings.log_tau_first + index * uniforms.settings.log_tau_step;
}

// 1 - exp(-x) for x >= 0, without cancellation at small x.
fn one_minus_exp(x: f32) -> f32 {
    let series = x * (1.0 - x * 0.5 * (1.0 - x * (1.0 / 3.0) * (1.0 - x * 0.25 * (1.0 - x * 0.2))));
    return pick(x < 0.05, series, 1.0 - exp(-x));
}

// ln(1 - w) for 0 <= w < 1, without cancellation at small w.
fn ln_one_minus(w: f32) -> f32 {
    var sum = 1.0 / 7.0;
    sum = sum * w + 1.0 / 6.0;
    sum = sum * w + 1.0 / 5.0;
    sum = sum * w + 1.0 / 4.0;
    sum = sum * w + 1.0 / 3.0;
    sum = sum * w + 1.0 / 2.0;
    sum = sum * w + 1.0;
    let small = w < 0.05;
    let rest = pick(small, 0.5, 1.0 - w);
    return pick(small, -(sum * w), log(max(rest, 1e-30)));
}

fn sum_of_samples() -> f32 {
    var total = 0.0;
    for (var i = 0u; i < uniforms.settings.frames_used; i++) {
        total += y_at(i);
    }
    return total;
}

// Goes back a frame: w becomes w + rho (1 - w), and the sample of the frame after, at w = rho, joins.
fn join(a: After, rho: f32, y: f32) -> After {
    let kept = 1.0 - rho;
    let below = kept * a.mean_w;
    let above = y - a.mean_y;
    let share = 1.0 / (a.count + 1.0);
    let kept_share = a.count * share;
    return After(
        a.count + 1.0,
        rho + below * (1.0 - share),
        a.mean_y + above * share,
        kept * kept * a.ww + below * below * kept_share,
        kept * a.wy - below * above * kept_share,
    );
}

// The best break point between frame k and the next: what it explains, and w there.
fn candidate(sum_before: f32, a: After, rho: f32, k: u32) -> Candidate {
    let before = f32(k + 1u);
    let constant = sum_before / before;
    let weight = before * a.count * (1.0 / f32(uniforms.settings.frames_used));
    let rise = a.mean_y - constant;
    let of_means = weight * rise * rise;
    let reach = a.mean_w * a.wy - rise * a.ww;
    let crosses = a.wy > 0.0 && a.ww > 0.0 && reach >= 0.0 && reach < rho * a.wy;
    let sww = a.ww + weight * a.mean_w * a.mean_w;
    let swy = a.wy + weight * a.mean_w * rise;
    let usable = crosses || (swy > 0.0 && sww > 0.0);
    let numerator = pick(crosses, a.wy * a.wy, swy * swy);
    let denominator = pick(crosses, a.ww, pick(usable, sww, 1.0));
    let gain = pick(crosses, of_means, 0.0) + numerator / max(denominator, TINY);
    let w = pick(crosses, reach / pick(crosses, a.wy, 1.0), 0.0);
    return Candidate(gain, w, usable);
}

// The best break point for one time constant: number `grid` of the grid, or any if that is not below their count.
fn best_break(total: f32, grid: u32, tau: f32) -> Break {
    let s = &uniforms.settings;
    let m = (*s).frames_used;
    let on_grid = grid < (*s).tau_count;
    let row = (*s).rho_at + grid * (uniforms.slab.frames - 1u);
    var before = total;
    var a = After(0.0, 0.0, 0.0, 0.0, 0.0);
    var gain = 0.0;
    var time = 0.0;
    var w = 0.0;
    var found = false;
    for (var k = m - 2u; k >= 1u; k--) {
        var rho = 0.0;
        if on_grid {
            rho = tables[row + k];
        } else {
            rho = one_minus_exp(dt_at(k) / tau);
        }
        let y = y_at(k + 1u);
        a = join(a, rho, y);
        before = before - y;
        if k + 1u + (*s).fewest_after > m {
            continue;
        }
        let c = candidate(before, a, rho, k);
        // From late to early: of equals, the earliest.
        let better = c.usable && c.gain >= gain;
        gain = pick(better, c.gain, gain);
        time = pick(better, u_at(k), time);
        w = pick(better, c.w, w);
        found = found || better;
    }
    return Break(gain, time - tau * ln_one_minus(w), found);
}

fn rise_at(i: u32, arrival: f32, tau: f32) -> f32 {
    return one_minus_exp(max(u_at(i) - arrival, 0.0) / tau);
}

// Constant, plateau and sum of squared residuals for a given arrival and time constant.
fn fit_front(arrival: f32, tau: f32) -> Front {
    let m = uniforms.settings.frames_used;
    let inv_m = 1.0 / f32(m);
    var mean_w = 0.0;
    var mean_y = 0.0;
    for (var i = 0u; i < m; i++) {
        mean_w += rise_at(i, arrival, tau);
        mean_y += y_at(i);
    }
    mean_w = mean_w * inv_m;
    mean_y = mean_y * inv_m;
    var ww = 0.0;
    var wy = 0.0;
    for (var i = 0u; i < m; i++) {
        let w = rise_at(i, arrival, tau) - mean_w;
        ww += w * w;
        wy += w * (y_at(i) - mean_y);
    }
    let plateau = wy / pick(ww > 0.0, ww, 1.0);
    let constant = mean_y - plateau * mean_w;
    var squares = 0.0;
    for (var i = 0u; i < m; i++) {
        let residual = (y_at(i) - constant) - plateau * rise_at(i, arrival, tau);
        squares += residual * residual;
    }
    return Front(constant, plateau, plateau * wy, squares);
}

// w, h and h (t - T)/tau at a frame; 0 before the arrival.
fn derivatives(i: u32, arrival: f32, tau: f32, inv_tau: f32) -> vec3<f32> {
    let since = (u_at(i) - arrival) * inv_tau;
    let w = rise_at(i, arrival, tau);
    let h = pick(since > 0.0, 1.0 - w, 0.0);
    return vec3<f32>(w, h, h * since);
}

// The standard error of the arrival from (J'J)^-1 SSE/dof over constant, plateau, arrival and time constant.
fn arrival_error(arrival: f32, tau: f32, front: Front, noise: f32) -> Found {
    let m = uniforms.settings.frames_used;
    let inv_tau = 1.0 / tau;
    let inv_m = 1.0 / f32(m);
    var mean = vec3<f32>(0.0, 0.0, 0.0);
    for (var i = 0u; i < m; i++) {
        mean += derivatives(i, arrival, tau, inv_tau);
    }
    mean = mean * inv_m;
    var ww = 0.0;
    var wh = 0.0;
    var wg = 0.0;
    var hh = 0.0;
    var hg = 0.0;
    var gg = 0.0;
    for (var i = 0u; i < m; i++) {
        let d = derivatives(i, arrival, tau, inv_tau) - mean;
        ww += d.x * d.x;
        wh += d.x * d.y;
        wg += d.x * d.z;
        hh += d.y * d.y;
        hg += d.y * d.z;
        gg += d.z * d.z;
    }
    let rises = front.plateau > 0.0 && ww > 0.0;
    let plateau = pick(rises, front.plateau, 1.0);
    let relative = noise / plateau;
    gg = gg + relative * relative * uniforms.settings.log_tau_information;
    let inv_ww = 1.0 / pick(rises, ww, 1.0);
    hh = hh - wh * wh * inv_ww;
    hg = hg - wh * wg * inv_ww;
    gg = gg - wg * wg * inv_ww;
    let independent = gg > 0.0;
    let information = hh - pick(independent, hg * hg / pick(independent, gg, 1.0), 0.0);
    let known = rises && information > 0.0;
    return Found(tau * relative / sqrt(pick(known, information, 1.0)), known);
}

// Where the isotonic regression of the samples crosses a threshold; returns status bits.
fn cross_level(threshold: f32, noise: f32, valid: bool, enhancing: bool) -> u32 {
    let m = uniforms.settings.frames_used;
    let half = i32(uniforms.settings.half_window);
    // The first frame above: where the sums of (sample - threshold) up to it are least.
    var sum = 0.0;
    var least = 0.0;
    var first = 0u;
    for (var i = 0u; i < m; i++) {
        sum += y_at(i) - threshold;
        let lower = sum < least;
        least = pick(lower, sum, least);
        first = select(first, i + 1u, lower);
    }
    let from_start = first == 0u;
    let never = first >= m;
    let crosses = enhancing && !from_start && !never;
    // The line through the samples around it; times from the frame itself.
    let last = i32(m) - 1;
    let at = select(i32(first), last, never);
    let time_at = u_at(u32(at));
    let begin = max(at - half, 0);
    let end = min(at + half - 1, last);
    var count = 0.0;
    var sx = 0.0;
    var sy = 0.0;
    for (var frame = begin; frame <= end; frame++) {
        count += 1.0;
        sx += u_at(u32(frame)) - time_at;
        sy += y_at(u32(frame)) - threshold;
    }
    let mean_x = sx / count;
    let mean_y = sy / count;
    var sxx = 0.0;
    var sxy = 0.0;
    var earliest = 0.0;
    var latest = 0.0;
    for (var frame = begin; frame <= end; frame++) {
        let from_at = u_at(u32(frame)) - time_at;
        let x = from_at - mean_x;
        sxx += x * x;
        sxy += x * ((y_at(u32(frame)) - threshold) - mean_y);
        earliest = min(earliest, from_at);
        latest = max(latest, from_at);
    }
    let rising = crosses && sxy > 0.0 && sxx > 0.0;
    let inv_slope = sxx / pick(rising, sxy, 1.0);
    let on_line = mean_x - mean_y * inv_slope;
    // Where no line rises: half a step before the frame.
    let half_step = (u_at(u32(max(at - 1, 0))) - time_at) * 0.5;
    let from_at = pick(rising, min(max(on_line, earliest), latest), half_step);
    let lever = from_at - mean_x;
    let error = noise * abs(inv_slope) * sqrt(1.0 / count + lever * lever / pick(rising, sxx, 1.0));
    write_number(ROW_CROSSING, here, time_at + from_at + uniforms.settings.t0, crosses);
    write_number(ROW_CROSSING_SE, here, error, rising);
    return select(0u, CENSORED, valid && never)
        | select(0u, AT_LOWER_BOUND, valid && from_start)
        | select(0u, NOT_IDENTIFIABLE, crosses && !rising);
}

fn begin_voxel(voxel: u32) {
    here = voxel;
    first_word = stored_word(voxel, 0u);
}

// The grid of time constants: keeps the best one's number and the arrivals of it and its neighbours. A dispatch of its own,
// for its many loop turns.
@compute @workgroup_size(64)
fn search_time_constant(@builtin(global_invocation_id) id: vec3<u32>) {
    let voxel = voxel_of(id);
    if is_outside(voxel) {
        return;
    }
    begin_voxel(voxel);
    let total = sum_of_samples();
    var best = 0u;
    var best_gain = 0.0;
    var arrival_before = 0.0;
    var arrival_at = 0.0;
    var arrival_after = 0.0;
    var previous = 0.0;
    var previous_was_best = false;
    for (var j = 0u; j < uniforms.settings.tau_count; j++) {
        let there = best_break(total, j, tables[uniforms.settings.taus_at + j]);
        arrival_after = pick(previous_was_best, there.arrival, arrival_after);
        let better = there.found && there.gain > best_gain;
        arrival_before = pick(better, previous, arrival_before);
        arrival_at = pick(better, there.arrival, arrival_at);
        best_gain = pick(better, there.gain, best_gain);
        best = select(best, j, better);
        previous = there.arrival;
        previous_was_best = better;
    }
    write_state(0u, voxel, best);
    write_state(1u, voxel, bitcast<u32>(arrival_before));
    write_state(2u, voxel, bitcast<u32>(arrival_at));
    write_state(3u, voxel, bitcast<u32>(arrival_after));
}

@compute @workgroup_size(64)
fn filling_time(@builtin(global_invocation_id) id: vec3<u32>) {
    let voxel = voxel_of(id);
    if is_outside(voxel) {
        return;
    }
    begin_voxel(voxel);
    let s = &uniforms.settings;
    let valid = all_finite(voxel);
    var bits = select(NON_FINITE_SAMPLE, 0u, valid);
    let total = sum_of_samples();
    let best = f32(read_state(0u, voxel));
    // The vertex of the parabola through the sums of squares of the best time constant and its neighbours.
    let lowest = best <= 0.0;
    let highest = best >= f32((*s).tau_count - 1u);
    let before = fit_front(bitcast<f32>(read_state(1u, voxel)), exp(log_tau(best - 1.0))).squares;
    let at = fit_front(bitcast<f32>(read_state(2u, voxel)), exp(log_tau(best))).squares;
    let after = fit_front(bitcast<f32>(read_state(3u, voxel)), exp(log_tau(best + 1.0))).squares;
    let curvature = (before - at) + (after - at);
    let inner = !lowest && !highest && curvature > 0.0;
    let vertex = (before - after) * 0.5 / pick(inner, curvature, 1.0);
    let tau = exp(log_tau(best + pick(inner, min(max(vertex, -1.0), 1.0), 0.0)));
    let there = best_break(total, (*s).tau_count, tau);
    let found = there.found && valid;
    let arrival = there.arrival;
    let front = fit_front(arrival, tau);
    let noise = sqrt(front.squares / f32((*s).frames_used - 4u));

    // Does it enhance?
    var highest_e = -3.4028235e38;
    var pair = highest_e;
    var previous_e = y_at(0u) - front.constant;
    for (var i = 1u; i < uniforms.slab.frames; i++) {
        let e = y_at(i) - front.constant;
        highest_e = max(highest_e, e);
        pair = max(pair, min(previous_e, e));
        previous_e = e;
    }
    let least = noise * (*s).enhancement_threshold;
    let enhancing = found
        && front.plateau > 0.0
        && highest_e > 0.0
        && highest_e >= least
        && front.explained >= least * least
        && pair > noise * 3.0;
    bits |= select(0u, NOT_ENHANCING, valid && !enhancing);
    bits |= select(0u, AT_LOWER_BOUND, enhancing && lowest) | select(0u, AT_UPPER_BOUND, enhancing && highest);

    let error = arrival_error(arrival, tau, front, noise);
    bits |= select(0u, NOT_IDENTIFIABLE, enhancing && !error.found);
    write_number(ROW_ARRIVAL, voxel, arrival + (*s).t0, enhancing);
    write_number(ROW_ARRIVAL_SE, voxel, error.value, enhancing && error.found);
    let baseline = (*s).slope * first_sample(voxel) + (*s).intercept + (*s).direction * (*s).scale * front.constant;
    write_number(ROW_BASELINE, voxel, baseline, valid);
    write_number(ROW_PLATEAU, voxel, front.plateau * (*s).scale, enhancing);
    write_number(ROW_TAU, voxel, tau, enhancing);
    write_number(ROW_NOISE, voxel, noise * (*s).scale, valid);
    if (*s).has_level != 0u {
        bits |= cross_level(front.constant + (*s).level, noise, valid, enhancing);
    }
    write_status(voxel, bits);
}
