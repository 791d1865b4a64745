// The two-compartment exchange model, fitted. src/kernels/fit/refinement.rs and two_rate/ are the definition: the same names,
// order and guards. Times are in seconds after the first frame, flows in 1/s.
//
// Entry points, in this order: `search` as often as the delays need it, `choose`, `refine` once per start and then on from the best
// place so far, `finish`; with the linear method `linear` (two_rate/linear.wgsl) in the place of the first three. Arrays have a
// fifth place for the delay; where all voxels share it, that place is held.

struct Settings {
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
    low: vec4<f32>,
    high: vec4<f32>,
    slots: array<vec4<i32>, 6>,
}

struct Uniforms {
    slab: Slab,
    settings: Settings,
}

@group(0) @binding(0) var<uniform> uniforms: Uniforms;

// What is fitted, and how: compiled in.
override LINEAR: bool;
override OWN_DELAY: bool;
override NEEDS_CURVES: bool;

const PARAMETERS: u32 = 5u;
const BENT: bool = true;
alias Vector = array<f32, 5>;
alias Triangle = array<Vector, 5>;
alias Flags = array<bool, 5>;
const RATES: u32 = 21u;
const STARTS: u32 = 3u;
const PARTNERS: u32 = 3u;
const DELAYS: u32 = 16u;
const TURNS: u32 = 8u;
const NUMBERS_PER_PAIR: u32 = 4u;
const FARTHEST_PARTNER: f32 = 1e5;
const SHIFT: f32 = 1e-3;
const SMALLEST_SHIFT: f32 = 1e-8;
const FILLINGS: f32 = 2.0;
const SOMETHING: f32 = 1e-4;
const NEAR_UPPER: f32 = 0.99;
const NO_BOUND: f32 = 1e37;
const PERFECT: f32 = 1e-11;
const CONTINUATIONS: u32 = 6u;
const CONTINUATIONS_WITH_DELAY: u32 = 24u;
const RESTARTS: u32 = 4u;
const RESTARTS_WITH_DELAY: u32 = 24u;
const SHIFT_COUNT: u32 = 8u;
const SPLIT_COUNT: u32 = 4u;
const SPLIT_SHIFT_COUNT: u32 = 3u;
const SHIFTS: array<f32, 8> = array<f32, 8>(-1.0, -2.0, -3.0, -4.0, 1.0, 2.0, 4.0, 6.0);
const SPLITS: array<f32, 8> = array<f32, 8>(3.0, 0.1, 0.1, 0.9, 7.0, 0.05, 2.0, 0.95);
const SPLIT_SHIFTS: array<f32, 3> = array<f32, 3>(0.0, 1.0, -1.0);
const EXCHANGED_SHIFTS: array<f32, 4> = array<f32, 4>(0.0, 1.0, 2.0, 3.0);
const EXCHANGED: array<f32, 2> = array<f32, 2>(0.75, 0.02);
const FLOWS: array<f32, 2> = array<f32, 2>(0.01, 20.0);
const VOLUMES: array<f32, 2> = array<f32, 2>(1e-3, 0.99);
const SMALLEST_SPACE: f32 = 0.01;
const SEPARATE: f32 = 0.02;
const NEAR: f32 = 1e-2;
const NO_LOWER: f32 = 1e-6;
const SAME: f32 = 1e-2;
const SMALL: array<f32, 4> = array<f32, 4>(1e-4, 1e-4, 1e-3, 1e-3);
const FAR_ABOVE: array<f32, 2> = array<f32, 2>(100.0, 20.0);
const FAR_ABOVE_FLOOR: f32 = 5.0;
const PROMISES: f32 = 4.0;
const NOTHING_LEFT: f32 = 1e-5;
const SMALLEST_VOLUME: f32 = 1e-7;
const CLOSEST: f32 = 1e-3;
const SMALLEST_SHARE: f32 = 0.02;
const NEARLY_NOTHING: f32 = 1e-6;
const AT_BOUND: f32 = 2e-6;
const PARAMETER_SCALES: array<f32, 4> = array<f32, 4>(0.01, 0.002, 0.05, 0.2);

// Words of state: the starts of six numbers, the refinement, the best of every single rate and of every pair.
const STATE_STARTS: u32 = 0u;
const STATE_REFINED: u32 = 132u;
const STATE_TRIANGLE: u32 = 137u;
const STATE_SSE: u32 = 162u;
const STATE_DAMPING: u32 = 163u;
const STATE_TURNS: u32 = 164u;
const STATE_CONVERGED: u32 = 165u;
const STATE_SQUARES: u32 = 166u;
const STATE_FINITE: u32 = 167u;
const STATE_SEARCHES: u32 = 168u;
const STATE_REFINEMENTS: u32 = 169u;
// Of the linear method: bit q, whether value q of `finish` is there; bit 5, whether there is a curve of the model for them.
const STATE_HAS: u32 = 170u;
const STATE_SINGLES: u32 = 171u;
const STATE_PAIRS: u32 = 213u;

// Slots of the maps; src/kernels/fit/outputs.rs has the same.
const SLOT_STANDARD_ERROR: u32 = 9u;
const SLOT_SSE: u32 = 18u;
const SLOT_R_SQUARED: u32 = 19u;
const SLOT_AIC: u32 = 20u;
const SLOT_ITERATIONS: u32 = 21u;
const SLOT_FITTED_CURVE: u32 = 22u;
const SLOT_RESIDUAL: u32 = 23u;
// Places of F_p, PS, v_p, v_e, E and the delay among the parameters of all models.
const PLACES: array<u32, 6> = array<u32, 6>(4u, 5u, 2u, 1u, 7u, 8u);
// Bits of the lower bounds of these; the upper bound's is the next one.
const BOUND_BITS: array<u32, 6> = array<u32, 6>(21u, 23u, 19u, 17u, 0u, 27u);

const STATUS_NON_FINITE_SAMPLE: u32 = 2u;
const STATUS_NOT_ENHANCING: u32 = 8u;
const STATUS_AT_LOWER_BOUND: u32 = 1024u;
const STATUS_AT_UPPER_BOUND: u32 = 2048u;
const STATUS_NOT_CONVERGED: u32 = 4096u;
const STATUS_NOT_IDENTIFIABLE: u32 = 8192u;

fn scales() -> Vector {
    return Vector(100.0, 0.002, 0.05, 0.2, 1.0);
}

fn row_of(slot: u32) -> i32 {
    return uniforms.settings.slots[slot >> 2u][slot & 3u];
}

// The sample as a concentration; `first` is the voxel's first sample.
fn concentration(voxel: u32, frame: u32, first: f32) -> f32 {
    return first + uniforms.settings.slope * difference(voxel, frame);
}

// What a step does to a convolution and to its derivative by the rate; src/kernels/fit/convolution.rs.
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
    let small = x < 1.0;
    let near = min(x, 1.0);
    var sum = 1.0;
    // Fifteen terms in Rust's text; beyond eleven none counts in 32 bits.
    sum = 1.0 - near * (1.0 / 14.0) * sum;
    sum = 1.0 - near * (1.0 / 13.0) * sum;
    sum = 1.0 - near * (1.0 / 12.0) * sum;
    sum = 1.0 - near * (1.0 / 11.0) * sum;
    sum = 1.0 - near * (1.0 / 10.0) * sum;
    sum = 1.0 - near * (1.0 / 9.0) * sum;
    sum = 1.0 - near * (1.0 / 8.0) * sum;
    sum = 1.0 - near * (1.0 / 7.0) * sum;
    sum = 1.0 - near * (1.0 / 6.0) * sum;
    sum = 1.0 - near * (1.0 / 5.0) * sum;
    sum = 1.0 - near * (1.0 / 4.0) * sum;
    let near_3 = sum * (1.0 / 6.0);
    let near_2 = 0.5 - near * near_3;
    let near_1 = 1.0 - near * near_2;
    let far = max(x, 1.0);
    let inverse = 1.0 / far;
    let far_decay = exp_negative(min(far, 80.0));
    let far_1 = (1.0 - far_decay) * inverse;
    let far_2 = (1.0 - far_1) * inverse;
    let far_3 = (0.5 - far_2) * inverse;
    let decay = select(far_decay, 1.0 - near * near_1, small);
    let phi_1 = select(far_1, near_1, small);
    let phi_2 = select(far_2, near_2, small);
    let phi_3 = select(far_3, near_3, small);
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

// C = a I_1 + b I_2 and its derivatives by F_p, PS, v_p, v_e over I_1, I_2 and their derivatives by the rates.
struct TwoRates {
    fast: f32,
    slow: f32,
    a: f32,
    b: f32,
    by_fp: vec4<f32>,
    by_ps: vec4<f32>,
    by_vp: vec4<f32>,
    by_ve: vec4<f32>,
}

// apart + middle and apart - middle, whose product is known.
fn pair(middle: f32, apart: f32, product: f32) -> vec2<f32> {
    let larger = abs(middle) + apart;
    let smaller = product / larger;
    return select(vec2<f32>(smaller, larger), vec2<f32>(larger, smaller), middle >= 0.0);
}

fn two_rates(fp: f32, ps: f32, vp: f32, ve: f32) -> TwoRates {
    let inverse_vp = 1.0 / max(vp, SMALLEST_VOLUME);
    let alpha = fp * inverse_vp;
    let beta = ps * inverse_vp;
    let gamma = ps / max(ve, SMALLEST_VOLUME);
    let sum = alpha + beta + gamma;
    let n = 0.5 * (alpha + beta - gamma);
    let root = sqrt(n * n + beta * gamma);
    let apart = max(max(root, sum * (0.5 * CLOSEST)), 1e-20);
    let fast = max(0.5 * sum + apart, 1e-20);
    let slow = alpha * gamma / fast;
    let z = beta + gamma;
    let m = 0.5 * (alpha - beta - gamma);
    let of_z = pair(m, apart, alpha * beta);
    let of_gamma = pair(n, apart, beta * gamma);
    let inverse = 0.5 / apart;
    let w_fast = of_z.x * inverse;
    let w_slow = of_z.y * inverse;
    let ratio = alpha * inverse;
    let square = ratio * ratio;
    let cube = square * inverse;
    let mixed = z * sum - 3.0 * alpha * gamma;
    let squared_inverse = inverse * inverse;
    let by_fp = vec4<f32>(
        w_fast * ((mixed + fast * fast) * squared_inverse),
        w_slow * ((mixed + slow * slow) * squared_inverse),
        w_fast * w_fast * fast,
        w_slow * w_slow * slow,
    );
    let by_ps = vec4<f32>(-(cube * sum), cube * sum, square * fast, square * slow);
    let exchange = 2.0 * cube * beta * gamma;
    let by_vp = vec4<f32>(
        -exchange,
        exchange,
        -(square * of_gamma.x * of_gamma.x),
        -(square * of_gamma.y * of_gamma.y),
    );
    let back = 2.0 * cube * gamma * gamma;
    let held = -(square * gamma * gamma);
    let by_ve = vec4<f32>(back, -back, held, held);
    return TwoRates(fast, slow, fp * w_fast, fp * w_slow, by_fp, by_ps, by_vp, by_ve);
}

// The best place of the starts so far; below 0 where there is none to compare with.
var<private> chosen_sse: f32;
// The sum of squares that it is a part of.
var<private> chosen_of: f32;
// Whether that place is the floor of its valley.
var<private> chosen_settled: bool;
var<private> chosen_parameters: Vector;
// Sums of a pass: columns J R^-1 over the basis, by basis function, and the delay's column apart.
var<private> columns: array<vec4<f32>, 5>;
var<private> delay_columns: Vector;
var<private> sum_gram: mat4x4<f32>;
var<private> sum_delay_gram: vec4<f32>;
var<private> sum_delay_delay: f32;
var<private> sum_rhs: vec4<f32>;
var<private> sum_delay_rhs: f32;
var<private> sum_sse: f32;
// The residual's products with I_1, I_2 and their derivatives by the rates, with half their second derivatives, and with c_p and
// its slope.
var<private> sum_products: vec4<f32>;
var<private> sum_bends: vec2<f32>;
var<private> sum_inputs: vec2<f32>;

// Which variables steps are taken in: two_rate/variables.rs. In general 1 / F_p, Ktrans, v_p and v_e.
struct Terms {
    // 1 / PS instead of Ktrans.
    fast: bool,
    // 1 / v_p and 1 / v_e instead of these.
    slow: vec2<bool>,
    // 1 / F_p, v_p v_e / PS, v_p + v_e and v_e / PS instead of all.
    together: bool,
}

fn terms_of(p: vec4<f32>) -> Terms {
    let low = uniforms.settings.low;
    let high = uniforms.settings.high;
    let duration = tables[uniforms.settings.frame_times_at + uniforms.slab.frames - 1u] / FILLINGS;
    let fast = p.y >= p.x;
    let some = p.zw > vec2<f32>(SOMETHING);
    let least = low + vec4<f32>(0.0, 0.0, SOMETHING, SOMETHING);
    let inside = all(p > least) && all(p < NEAR_UPPER * high);
    let together = inside && all(some) && (fast || p.w * p.x < p.z * p.y);
    let slow = (p.xy * duration < p.zw) & some & !vec2<bool>(together);
    return Terms(fast || p.y >= high.y, slow, together);
}

// A volume from its variable, and the variable from the volume: either is the other's reciprocal where it fills slowly.
fn volume(value: f32, slow: bool) -> f32 {
    return select(value, 1.0 / max(value, 1e-30), slow);
}

fn first_four(parameters: Vector) -> vec4<f32> {
    return vec4<f32>(parameters[0], parameters[1], parameters[2], parameters[3]);
}

// The variables at these parameters.
fn variables_of(p: vec4<f32>, terms: Terms) -> vec4<f32> {
    let exchange = max(p.y, 1e-30);
    if terms.together {
        let held = p.w / exchange;
        return vec4<f32>(1.0 / p.x, p.z * held, p.z + p.w, held);
    }
    var second = 1.0 / exchange;
    if !terms.fast {
        second = p.y / (1.0 + p.y / p.x);
    }
    return vec4<f32>(1.0 / p.x, second, volume(p.z, terms.slow.x), volume(p.w, terms.slow.y));
}

// The parameters at these variables.
fn parameters_of(v: vec4<f32>, terms: Terms) -> vec4<f32> {
    if terms.together {
        let inverse = 1.0 / max(v.w, 1e-30);
        let plasma = v.y * inverse;
        let space = v.z - plasma;
        return vec4<f32>(1.0 / v.x, space * inverse, plasma, space);
    }
    var exchange = 1.0 / max(v.y, 1e-30);
    if !terms.fast {
        exchange = v.y / max(1.0 - v.y * v.x, 1e-6);
    }
    return vec4<f32>(1.0 / v.x, exchange, volume(v.z, terms.slow.x), volume(v.w, terms.slow.y));
}

// The gradients of the parameters by the first four variables.
fn gradients_of(p: vec4<f32>, terms: Terms) -> array<vec4<f32>, 4> {
    let flow = vec4<f32>(-(p.x * p.x), 0.0, 0.0, 0.0);
    if terms.together {
        let rate = p.y / max(p.w, 1e-30);
        return array<vec4<f32>, 4>(
            flow,
            vec4<f32>(0.0, -(rate * rate), rate, (p.z - p.w) * rate * rate),
            vec4<f32>(0.0, rate, 0.0, -(p.z * rate)),
            vec4<f32>(0.0, -rate, 1.0, p.z * rate),
        );
    }
    let square = p.y * p.y;
    let ratio = 1.0 + p.y / p.x;
    return array<vec4<f32>, 4>(
        flow,
        vec4<f32>(select(square, 0.0, terms.fast), select(ratio * ratio, -square, terms.fast), 0.0, 0.0),
        vec4<f32>(0.0, 0.0, select(1.0, -(p.z * p.z), terms.slow.x), 0.0),
        vec4<f32>(0.0, 0.0, 0.0, select(1.0, -(p.w * p.w), terms.slow.y)),
    );
}

// The derivatives by the first four variables over I_1, I_2 and their derivatives by the rates.
fn by_variable(p: vec4<f32>, terms: Terms, two: TwoRates) -> mat4x4<f32> {
    let flow = p.x;
    let exchange = p.y;
    if terms.together {
        let apart = 1.0 / max(two.fast - two.slow, 1e-20);
        let single = two.fast * two.slow * apart;
        let double = single * apart;
        let fast_part = single * two.fast * two.a;
        let slow_part = single * two.slow * two.b;
        let reciprocal = 1.0 / flow;
        let by_fast = fast_part * reciprocal;
        let by_slow = slow_part * reciprocal;
        let product = double * two.fast * two.slow * (two.a - two.b) * reciprocal;
        let volume = double * (two.b * two.slow - two.a * two.fast) * reciprocal;
        let time = double * (two.b * two.fast - two.a * two.slow);
        return mat4x4<f32>(
            -(flow * flow * two.by_fp),
            vec4<f32>(product, -product, -(by_fast * two.fast), by_slow * two.slow),
            vec4<f32>(volume, -volume, by_fast, -by_slow),
            vec4<f32>(time, -time, fast_part, -slow_part),
        );
    }
    let square = exchange * exchange;
    let ratio = 1.0 + exchange / flow;
    return mat4x4<f32>(
        select(square, 0.0, terms.fast) * two.by_ps - flow * flow * two.by_fp,
        select(ratio * ratio, -square, terms.fast) * two.by_ps,
        select(1.0, -(p.z * p.z), terms.slow.x) * two.by_vp,
        select(1.0, -(p.w * p.w), terms.slow.y) * two.by_ve,
    );
}

// The derivative by the delay over I_1, I_2 and c_p: minus C', which is F_p c_p - a l_1 I_1 - b l_2 I_2.
fn by_delay(flow: f32, two: TwoRates) -> vec3<f32> {
    return vec3<f32>(two.a * two.fast, two.b * two.slow, -flow);
}

// The residual's products with the second derivatives by the variables; what changes with the first four of the coefficients
// and the rates is taken from differences.
fn make_bend(parameters: Vector, terms: Terms, two: TwoRates, here: mat4x4<f32>) {
    let flow = parameters[0];
    let at = variables_of(first_four(parameters), terms);
    let here_delay = by_delay(flow, two);
    var scale = scales();
    for (var i = 0u; i < PARAMETERS; i++) {
        for (var j = 0u; j < PARAMETERS; j++) {
            pass_bend[i][j] = 0.0;
        }
    }
    for (var i = 0u; i < 4u; i++) {
        let shift = at[i] * SHIFT + SMALLEST_SHIFT * scale[i];
        var shifted = at;
        shifted[i] = shifted[i] + shift;
        let p = parameters_of(shifted, terms);
        let there = two_rates(p.x, p.y, p.z, p.w);
        let moved_by = by_variable(p, terms, there);
        let inverse = 1.0 / shift;
        let rates = vec2<f32>(there.fast - two.fast, there.slow - two.slow) * inverse;
        for (var j = 0u; j < 4u; j++) {
            let along = rates * (here[j].xy * sum_products.zw + here[j].zw * (2.0 * sum_bends));
            let half = 0.5 * (dot((moved_by[j] - here[j]) * inverse, sum_products) + along.x + along.y);
            let low = min(i, j);
            let high = max(i, j);
            pass_bend[low][high] = pass_bend[low][high] + select(half, half + half, i == j);
        }
        if OWN_DELAY {
            let change = (by_delay(p.x, there) - here_delay) * inverse;
            let along = here_delay.xy * rates * sum_products.zw;
            pass_bend[i][4] = change.z * sum_inputs.x + dot(change.xy, sum_products.xy) + along.x + along.y;
        }
    }
    if OWN_DELAY {
        // C'' but for the bends of c_p at its knots.
        let along = here_delay.xy * vec2<f32>(two.fast, two.slow) * sum_products.xy;
        pass_bend[4][4] = (flow * sum_inputs.y - (here_delay.x + here_delay.y) * sum_inputs.x) + (along.x + along.y);
    }
}

// J R^-1 over the basis.
fn make_columns(flow: f32, two: TwoRates, here: mat4x4<f32>) {
    for (var k = 0u; k < 5u; k++) {
        var j = Vector(0.0, 0.0, 0.0, 0.0, 0.0);
        if k < 4u {
            for (var i = 0u; i < 4u; i++) {
                j[i] = here[i][k];
            }
        }
        if OWN_DELAY {
            let delayed = by_delay(flow, two);
            if k < 2u {
                j[4] = delayed[k];
            }
            if k == 4u {
                j[4] = delayed.z;
            }
        }
        var row: Vector;
        for (var i = 0u; i < 5u; i++) {
            var value = j[i];
            for (var m = 0u; m < i; m++) {
                value = value - row[m] * triangle[m][i];
            }
            row[i] = value / triangle[i][i];
        }
        columns[k] = vec4<f32>(row[0], row[1], row[2], row[3]);
        delay_columns[k] = row[4];
    }
}

// Takes a frame in, and gives its fitted sample; `input` is c_p and its slope.
fn add(sample: f32, two_a: f32, two_b: f32, basis: vec4<f32>, bends: vec2<f32>, input: vec2<f32>) -> f32 {
    let fitted = two_a * basis.x + two_b * basis.y;
    let residual = sample - fitted;
    sum_sse = sum_sse + residual * residual;
    sum_products = sum_products + residual * basis;
    sum_bends = sum_bends + residual * bends;
    sum_inputs = sum_inputs + residual * input;
    let q = (columns[0] * basis.x + columns[1] * basis.y) + (columns[2] * basis.z + columns[3] * basis.w)
        + columns[4] * input.x;
    sum_rhs = sum_rhs + q * residual;
    sum_gram = sum_gram + mat4x4<f32>(q * q.x, q * q.y, q * q.z, q * q.w);
    if OWN_DELAY {
        let d = (delay_columns[0] * basis.x + delay_columns[1] * basis.y)
            + (delay_columns[2] * basis.z + delay_columns[3] * basis.w) + delay_columns[4] * input.x;
        sum_delay_rhs = sum_delay_rhs + d * residual;
        sum_delay_gram = sum_delay_gram + q * d;
        sum_delay_delay = sum_delay_delay + d * d;
    }
    return fitted;
}

fn write_curves(voxel: u32, frame: u32, sample: f32, fitted: f32, valid: bool) {
    let fitted_row = row_of(SLOT_FITTED_CURVE);
    if fitted_row >= 0 {
        write_number(u32(fitted_row) + frame, voxel, fitted, valid);
    }
    let residual_row = row_of(SLOT_RESIDUAL);
    if residual_row >= 0 {
        write_number(u32(residual_row) + frame, voxel, sample - fitted, valid);
    }
}

// A convolution and its derivative by the rate after a step.
fn after(w: StepWeights, begin: f32, end: f32, value: f32, by_rate: f32) -> vec2<f32> {
    return vec2<f32>(
        w.decay * value + (w.begin * begin + w.end * end),
        w.decay * by_rate + w.decay_by_rate * value + (w.begin_by_rate * begin + w.end_by_rate * end),
    );
}

// I_1, I_2 and their derivatives by the rates after a step.
fn both_after(fast: StepWeights, slow: StepWeights, begin: f32, end: f32, basis: vec4<f32>) -> vec4<f32> {
    let first = after(fast, begin, end, basis.x, basis.z);
    let second = after(slow, begin, end, basis.y, basis.w);
    return vec4<f32>(first.x, second.x, first.y, second.y);
}

// Half the second derivatives by the rates after a step, from those before it and the first ones before and after.
fn advanced(bends: vec2<f32>, fast: StepWeights, slow: StepWeights, before: vec2<f32>, after: vec2<f32>) -> vec2<f32> {
    return vec2<f32>(
        fast.decay * bends.x - (fast.begin * before.x + fast.end * after.x),
        slow.decay * bends.y - (slow.begin * before.y + slow.end * after.y),
    );
}

// One pass over the samples; with `curves`, the fitted curve is written.
fn equations(voxel: u32, first: f32, parameters: Vector, curves: bool, valid: bool) {
    let two = two_rates(parameters[0], parameters[1], parameters[2], parameters[3]);
    let terms = terms_of(first_four(parameters));
    let here_by = by_variable(first_four(parameters), terms, two);
    make_columns(parameters[0], two, here_by);
    sum_sse = 0.0;
    sum_products = vec4<f32>();
    sum_bends = vec2<f32>();
    sum_inputs = vec2<f32>();
    sum_gram = mat4x4<f32>();
    sum_delay_gram = vec4<f32>();
    sum_delay_delay = 0.0;
    sum_rhs = vec4<f32>();
    sum_delay_rhs = 0.0;
    // I_1, I_2 and their derivatives by the rates.
    var basis = vec4<f32>();
    // Half the second derivatives: minus the convolutions of the first ones, of lines through their ends.
    var bends = vec2<f32>();
    var length = -1.0;
    var fast: StepWeights;
    var slow: StepWeights;
    if !OWN_DELAY {
        for (var i = 0u; i < uniforms.settings.before; i++) {
            let sample = concentration(voxel, i, first);
            let fitted = add(sample, two.a, two.b, basis, bends, vec2<f32>());
            if curves {
                write_curves(voxel, i, sample, fitted, valid);
            }
        }
        var begin = tables[uniforms.settings.steps_at];
        for (var i = 0u; i < uniforms.settings.steps; i++) {
            let at = uniforms.settings.steps_at + 1u + 3u * i;
            let end = tables[at];
            if tables[at + 1u] != length {
                length = tables[at + 1u];
                fast = step_weights(two.fast, length);
                slow = step_weights(two.slow, length);
            }
            let next = both_after(fast, slow, begin, end, basis);
            bends = advanced(bends, fast, slow, basis.zw, next.zw);
            basis = next;
            begin = end;
            let frame = tables[at + 2u];
            if frame >= 0.0 {
                let sample = concentration(voxel, u32(frame), first);
                let fitted = add(sample, two.a, two.b, basis, bends, vec2<f32>());
                if curves {
                    write_curves(voxel, u32(frame), sample, fitted, valid);
                }
            }
        }
    } else {
        // From knot to knot, and from the last knot before a frame to the frame.
        let delay = parameters[4];
        let knots_at = uniforms.settings.knots_at;
        var knot = 0u;
        for (var i = 0u; i < uniforms.slab.frames; i++) {
            let time = tables[uniforms.settings.frame_times_at + i] - delay;
            while knot + 1u < uniforms.settings.knots && tables[knots_at + 3u * (knot + 1u)] <= time {
                let step = tables[knots_at + 3u * (knot + 1u)] - tables[knots_at + 3u * knot];
                if abs(step - length) > 1e-6 * step {
                    length = step;
                    fast = step_weights(two.fast, length);
                    slow = step_weights(two.slow, length);
                }
                let begin = tables[knots_at + 3u * knot + 1u];
                let end = tables[knots_at + 3u * (knot + 1u) + 1u];
                let next = both_after(fast, slow, begin, end, basis);
                bends = advanced(bends, fast, slow, basis.zw, next.zw);
                basis = next;
                knot = knot + 1u;
            }
            // The difference of two times that lie close is exact; that of a time and a delay isn't.
            let since = (tables[uniforms.settings.frame_times_at + i] - tables[knots_at + 3u * knot]) - delay;
            let arrived = since >= 0.0;
            let rest = max(since, 0.0);
            let begin = tables[knots_at + 3u * knot + 1u];
            let input_slope = tables[knots_at + 3u * knot + 2u];
            let end = begin + input_slope * rest;
            let f = step_weights(two.fast, rest);
            let s = step_weights(two.slow, rest);
            let here = both_after(f, s, begin, end, basis);
            let sample = concentration(voxel, i, first);
            let bends_here = select(vec2<f32>(), advanced(bends, f, s, basis.zw, here.zw), arrived);
            let input = select(vec2<f32>(), vec2<f32>(end, input_slope), arrived);
            let fitted = add(sample, two.a, two.b, select(vec4<f32>(), here, arrived), bends_here, input);
            if curves {
                write_curves(voxel, i, sample, fitted, valid);
            }
        }
    }
    pass_sse = sum_sse;
    for (var i = 0u; i < 4u; i++) {
        pass_rhs[i] = sum_rhs[i];
        for (var j = i; j < 4u; j++) {
            pass_gram[i][j] = sum_gram[i][j];
        }
        pass_gram[i][4] = sum_delay_gram[i];
    }
    pass_rhs[4] = sum_delay_rhs;
    // A delay that all voxels share has no column: it stands alone.
    pass_gram[4][4] = select(sum_delay_delay, 1.0, !OWN_DELAY);
    make_bend(parameters, terms, two, here_by);
}

fn variables_at(parameters: Vector) -> Variables {
    let low = uniforms.settings.low;
    let high = uniforms.settings.high;
    let terms = terms_of(first_four(parameters));
    let slow = terms.slow;
    var v: Variables;
    let at = variables_of(first_four(parameters), terms);
    v.at = Vector(at.x, at.y, at.z, at.w, parameters[4]);
    let lowest = select(low.y / (1.0 + low.y * at.x), 1.0 / max(high.y, 1e-30), terms.fast);
    let highest = select(at.y + high.y, 1.0 / max(low.y, 1e-30), terms.fast);
    let low_volumes = select(low.zw, vec2<f32>(volume(high.z, slow.x), volume(high.w, slow.y)), slow);
    let high_volumes = select(high.zw, vec2<f32>(volume(low.z, slow.x), volume(low.w, slow.y)), slow);
    v.low = Vector(1.0 / high.x, lowest, low_volumes.x, low_volumes.y, uniforms.settings.delay_low);
    v.high = Vector(1.0 / low.x, highest, high_volumes.x, high_volumes.y, uniforms.settings.delay_high);
    // No bound is near: `moved` sees to it that none is passed.
    if terms.together {
        for (var j = 0u; j < 4u; j++) {
            v.low[j] = -NO_BOUND;
            v.high[j] = NO_BOUND;
        }
    }
    return v;
}

// Steps in the variables that have no bounds of their own end where a parameter comes to one, or a variable halfway to 0.
fn until_bound(p: vec4<f32>, terms: Terms, at: vec4<f32>, to: vec4<f32>) -> vec4<f32> {
    var share = 1.0;
    for (var j = 0u; j < 4u; j++) {
        let fall = at[j] - to[j];
        if fall > 0.5 * at[j] {
            share = min(share, 0.5 * at[j] / fall);
        }
    }
    let next = at + share * (to - at);
    let there = parameters_of(next, terms);
    var less = 1.0;
    for (var j = 0u; j < 4u; j++) {
        if there[j] > uniforms.settings.high[j] {
            less = min(less, (uniforms.settings.high[j] - p[j]) / (there[j] - p[j]));
        }
        if there[j] < uniforms.settings.low[j] {
            less = min(less, (p[j] - uniforms.settings.low[j]) / (p[j] - there[j]));
        }
    }
    return at + less * (next - at);
}

// The parameters after a step in the variables, within their bounds.
fn moved(parameters: Vector, step: Vector) -> Vector {
    let v = variables_at(parameters);
    let p = first_four(parameters);
    let terms = terms_of(p);
    let at = first_four(v.at);
    var to = at + first_four(step);
    to.x = min(max(to.x, v.low[0]), v.high[0]);
    to.y = max(to.y, v.low[1]);
    to.z = select(to.z, max(to.z, v.low[2]), terms.slow.x);
    to.w = select(to.w, max(to.w, v.low[3]), terms.slow.y);
    if terms.together {
        to = until_bound(p, terms, at, to);
    }
    let there = parameters_of(to, terms);
    var next = Vector(there.x, there.y, there.z, there.w, 0.0);
    var scales = PARAMETER_SCALES;
    for (var j = 0u; j < 4u; j++) {
        let low = uniforms.settings.low[j];
        let above = parameters[j] - low;
        let near = above < scales[j] * NEARLY_NOTHING;
        next[j] = max(next[j], select(low + above * SMALLEST_SHARE, low, near));
        if j < 2u {
            next[j] = min(next[j], parameters[j] * (1.0 / SMALLEST_SHARE) + 0.01 * scales[j]);
        }
        next[j] = min(max(next[j], low), uniforms.settings.high[j]);
    }
    let delay = parameters[4] + step[4];
    next[4] = select(parameters[4], min(max(delay, v.low[4]), v.high[4]), abs(step[4]) > 0.0);
    return next;
}

// The delay that isn't fitted, and whether it is.
fn given_delay(voxel: u32) -> vec2<f32> {
    if !OWN_DELAY {
        return vec2<f32>(uniforms.settings.fixed_delay, 0.0);
    }
    if uniforms.settings.layer != 0u {
        let word = bitcast<u32>(extra_value(0u, voxel));
        if is_finite_word(word) {
            return vec2<f32>(bitcast<f32>(word), 0.0);
        }
    }
    return vec2<f32>(0.0, 1.0);
}

// PS, v_p and v_e per plasma flow, from H(0), H'(0) and the product of the rates; `share` is the faster exponential's.
fn per_flow_of(fast: f32, slow: f32, share: f32) -> vec3<f32> {
    let rest = 1.0 - share;
    let product = fast * slow;
    let start = share * fast + rest * slow;
    let inverse = 1.0 / (start * product);
    let plasma = product * inverse;
    let space = max((share * slow + rest * fast) * start * inverse - plasma, 0.0);
    return vec3<f32>(product * plasma * space, plasma, space);
}

@compute @workgroup_size(64)
fn search(@builtin(global_invocation_id) id: vec3<u32>) {
    let voxel = voxel_of(id);
    if is_outside(voxel) {
        return;
    }
    let first = uniforms.settings.slope * first_sample(voxel) + uniforms.settings.intercept;
    let begun = read_state(STATE_SEARCHES, voxel) == 0x5eedu;
    var done = select(0u, read_state(STATE_REFINEMENTS, voxel), begun);
    if !begun {
        let finite = all_finite(voxel);
        write_state(STATE_FINITE, voxel, select(0u, 1u, finite));
        var squares = 0.0;
        for (var i = 0u; i < uniforms.slab.frames; i++) {
            let c = concentration(voxel, i, first);
            squares = squares + c * c;
        }
        keep(STATE_SQUARES, voxel, squares);
        for (var k = 0u; k < RATES; k++) {
            keep(STATE_SINGLES + 2u * k, voxel, 0.0);
        }
        for (var pair = 0u; pair < uniforms.settings.pairs; pair++) {
            keep(STATE_PAIRS + 4u * pair, voxel, 0.0);
        }
        for (var k = 0u; k < 6u * (STARTS + PARTNERS + DELAYS); k++) {
            keep(STATE_STARTS + k, voxel, 0.0);
        }
        write_state(STATE_SEARCHES, voxel, 0x5eedu);
    }
    let n = uniforms.slab.frames;
    let delay = given_delay(voxel);
    let end = min(done + uniforms.settings.delays_per_search, uniforms.settings.delays);
    for (var which = done; which < end; which++) {
        let node = tables[uniforms.settings.nodes_at + which];
        if OWN_DELAY && delay.y == 0.0 && abs(node - delay.x) > uniforms.settings.reach {
            continue;
        }
        var projections: array<f32, 21>;
        for (var k = 0u; k < RATES; k++) {
            let at = uniforms.settings.curves_at + (which * RATES + k) * n;
            var even = 0.0;
            var odd = 0.0;
            var i = 0u;
            // Four at a time: turns of loops are few.
            while i + 3u < n {
                even = even + concentration(voxel, i, first) * tables[at + i];
                odd = odd + concentration(voxel, i + 1u, first) * tables[at + i + 1u];
                even = even + concentration(voxel, i + 2u, first) * tables[at + i + 2u];
                odd = odd + concentration(voxel, i + 3u, first) * tables[at + i + 3u];
                i = i + 4u;
            }
            while i < n {
                even = even + concentration(voxel, i, first) * tables[at + i];
                i = i + 1u;
            }
            let along = even + odd;
            projections[k] = along;
            let gain = max(along, 0.0) * along / max(tables[uniforms.settings.curve_squares_at + which * RATES + k], 1e-30);
            if gain > kept(STATE_SINGLES + 2u * k, voxel) {
                keep(STATE_SINGLES + 2u * k, voxel, gain);
                keep(STATE_SINGLES + 2u * k + 1u, voxel, f32(which));
            }
        }
        let most = uniforms.settings.high;
        let node_delay = select(node, delay.x, delay.y == 0.0);
        var top = array<f32, 6>(0.0, 0.0, 1.0, 1.0, 0.0, 0.0);
        var pair = 0u;
        for (var slow = 0u; slow < RATES; slow++) {
            let along_slow = projections[slow];
            let squares_slow = tables[uniforms.settings.curve_squares_at + which * RATES + slow];
            let inverse_slow = select(0.0, 1.0 / squares_slow, squares_slow > 0.0);
            for (var fast = slow + 1u; fast < RATES; fast++) {
                let along_fast = projections[fast];
                // Least squares by both, and what the bounds leave of it.
                let at = uniforms.settings.products_at + NUMBERS_PER_PAIR * (which * uniforms.settings.pairs + pair);
                let of_pair = uniforms.settings.pairs_at + NUMBERS_PER_PAIR * pair;
                let overlap = tables[at];
                let a = (along_fast - overlap * along_slow) * tables[at + 1u];
                let b = along_slow * inverse_slow - overlap * a;
                var share = select(0.0, select(1.0, a / (a + max(b, 1e-30)), b > 0.0), a > 0.0);
                share = min(max(share, tables[of_pair + 2u]), tables[of_pair + 3u]);
                let along = along_slow + share * (along_fast - along_slow);
                let squares = max(squares_slow + share * (tables[at + 2u] + share * tables[at + 3u]), 1e-30);
                let per_flow = per_flow_of(tables[of_pair], tables[of_pair + 1u], share);
                let least = max(max(1.0 / most.x, per_flow.x / most.y), max(per_flow.y / most.z, per_flow.z / most.w));
                // The best flow, or the largest one.
                let within = along * least < squares;
                let flow = select(1.0, along, within) / select(least, squares, within);
                let gain = flow * (along + along - flow * squares);
                let word = STATE_PAIRS + 4u * pair;
                if gain > kept(word, voxel) && flow > 0.0 {
                    keep(word, voxel, gain);
                    keep(word + 1u, voxel, flow);
                    keep(word + 2u, voxel, share);
                    keep(word + 3u, voxel, select(0.0, node, OWN_DELAY));
                }
                if gain > top[0] && flow > 0.0 {
                    top = array<f32, 6>(gain, flow, tables[of_pair], tables[of_pair + 1u], share, node_delay);
                }
                pair = pair + 1u;
            }
        }
        // The best pair of this delay.
        if OWN_DELAY {
            keep_start(voxel, STARTS + PARTNERS, DELAYS, top);
        }
    }
    done = end;
    if done == uniforms.settings.delays {
        // What follows counts refinements here, and a later slab begins anew.
        done = 0u;
        write_state(STATE_SEARCHES, voxel, 0u);
    }
    write_state(STATE_REFINEMENTS, voxel, done);
}

// The place of a pair among all.
fn pair_of(slow: u32, fast: u32) -> u32 {
    return slow * (2u * RATES - slow - 1u) / 2u + fast - slow - 1u;
}

// Puts a start among those from `begin` on that are kept, best first: gain, flow, both rates, share, delay.
fn keep_start(voxel: u32, begin: u32, count: u32, start: array<f32, 6>) {
    var next = start;
    for (var place = begin; place < begin + count; place++) {
        let at = STATE_STARTS + 6u * place;
        if next[0] > kept(at, voxel) {
            for (var k = 0u; k < 6u; k++) {
                let before = kept(at + k, voxel);
                keep(at + k, voxel, next[k]);
                next[k] = before;
            }
        }
    }
}

// A single exponential's curve and its derivative by the rate at a frame; walks on from frame to frame.
struct Walk {
    value: f32,
    by_rate: f32,
    begin: f32,
    step: u32,
}

fn first_of_walk() -> Walk {
    let at = select(uniforms.settings.knots_at + 1u, uniforms.settings.steps_at, !OWN_DELAY);
    return Walk(0.0, 0.0, tables[at], 0u);
}

// The curve at the frame, the derivative there, and the walk so far: frames must come in order.
fn single_at(walk: ptr<function, Walk>, frame: u32, rate: f32, delay: f32) -> vec2<f32> {
    if !OWN_DELAY {
        if frame < uniforms.settings.before {
            return vec2<f32>();
        }
        while (*walk).step < uniforms.settings.steps {
            let at = uniforms.settings.steps_at + 1u + 3u * (*walk).step;
            let end = tables[at];
            let next = after(step_weights(rate, tables[at + 1u]), (*walk).begin, end, (*walk).value, (*walk).by_rate);
            *walk = Walk(next.x, next.y, end, (*walk).step + 1u);
            if tables[at + 2u] >= 0.0 {
                break;
            }
        }
        return vec2<f32>((*walk).value, (*walk).by_rate);
    }
    let knots_at = uniforms.settings.knots_at;
    let time = tables[uniforms.settings.frame_times_at + frame] - delay;
    while (*walk).step + 1u < uniforms.settings.knots && tables[knots_at + 3u * ((*walk).step + 1u)] <= time {
        let at = knots_at + 3u * (*walk).step;
        let end = tables[at + 4u];
        let next = after(step_weights(rate, tables[at + 3u] - tables[at]), tables[at + 1u], end, (*walk).value, (*walk).by_rate);
        *walk = Walk(next.x, next.y, end, (*walk).step + 1u);
    }
    let at = knots_at + 3u * (*walk).step;
    let since = (tables[uniforms.settings.frame_times_at + frame] - tables[at]) - delay;
    if since < 0.0 {
        return vec2<f32>();
    }
    let begin = tables[at + 1u];
    return after(step_weights(rate, since), begin, begin + tables[at + 2u] * since, (*walk).value, (*walk).by_rate);
}

@compute @workgroup_size(64)
fn choose(@builtin(global_invocation_id) id: vec3<u32>) {
    let voxel = voxel_of(id);
    if is_outside(voxel) {
        return;
    }
    let n = uniforms.slab.frames;
    let first = uniforms.settings.slope * first_sample(voxel) + uniforms.settings.intercept;
    let given = given_delay(voxel);

    // The highest places among the pairs; of neighbours that are as high the first one counts.
    var pair = 0u;
    for (var slow = 0u; slow < RATES; slow++) {
        for (var fast = slow + 1u; fast < RATES; fast++) {
            let word = STATE_PAIRS + 4u * pair;
            let gain = kept(word, voxel);
            var summit = gain > 0.0;
            for (var near = 0u; near < 9u && summit; near++) {
                let near_slow = slow + near / 3u;
                let near_fast = fast + near % 3u;
                // Both one too large: there is no rate below the first.
                if near_slow == 0u || near_fast <= near_slow || near_fast > RATES {
                    continue;
                }
                let other = pair_of(near_slow - 1u, near_fast - 1u);
                let height = kept(STATE_PAIRS + 4u * other, voxel);
                summit = (other == pair) || (other < pair && gain > height) || (other > pair && gain >= height);
            }
            if summit {
                let at = uniforms.settings.pairs_at + NUMBERS_PER_PAIR * pair;
                let found = select(given.x, kept(word + 3u, voxel), given.y != 0.0);
                let flow = kept(word + 1u, voxel);
                let share = kept(word + 2u, voxel);
                keep_start(voxel, 0u, STARTS, array<f32, 6>(gain, flow, tables[at], tables[at + 1u], share, found));
            }
            pair = pair + 1u;
        }
    }

    // The top of the parabola through the best single rate and its neighbours.
    var best = 0u;
    var top = kept(STATE_SINGLES, voxel);
    for (var k = 1u; k < RATES; k++) {
        let gain = kept(STATE_SINGLES + 2u * k, voxel);
        if gain > top {
            top = gain;
            best = k;
        }
    }
    var shift = 0.0;
    if best > 0u && best < RATES - 2u {
        let below = kept(STATE_SINGLES + 2u * best - 2u, voxel);
        let above = kept(STATE_SINGLES + 2u * best + 2u, voxel);
        let fall = (top - below) + (top - above);
        if fall > 0.0 {
            shift = min(max(0.5 * (above - below) / max(fall, 1e-30), -0.5), 0.5);
        }
    }
    let x = shift * uniforms.settings.log_step;
    let rate = tables[uniforms.settings.rates_at + best]
        * (1.0 + x * (1.0 + x * (0.5 + x * (1.0 / 6.0 + x * (1.0 / 24.0)))));
    let which = u32(kept(STATE_SINGLES + 2u * best + 1u, voxel));
    let delay = select(0.0, tables[uniforms.settings.nodes_at + which], OWN_DELAY);

    // Its curve and the derivative by the rate, orthonormal, and what they leave of the samples.
    var squares = 0.0;
    var mixed = 0.0;
    var along_curve = 0.0;
    var along_derivative = 0.0;
    var walk = first_of_walk();
    for (var i = 0u; i < n; i++) {
        let curve = single_at(&walk, i, rate, delay);
        squares = squares + curve.x * curve.x;
        mixed = mixed + curve.x * curve.y;
    }
    let inverse = 1.0 / max(sqrt(squares), 1e-30);
    let coefficient = mixed / max(squares, 1e-30);
    walk = first_of_walk();
    var beside = 0.0;
    for (var i = 0u; i < n; i++) {
        let curve = single_at(&walk, i, rate, delay);
        let off = curve.y - coefficient * curve.x;
        beside = beside + off * off;
        let c = concentration(voxel, i, first);
        along_curve = along_curve + curve.x * inverse * c;
        along_derivative = along_derivative + off * c;
    }
    let inverse_beside = 1.0 / max(sqrt(beside), 1e-30);
    along_derivative = along_derivative * inverse_beside;
    let alone = along_curve * inverse;

    var along: array<f32, 21>;
    var on_first: array<f32, 21>;
    var on_second: array<f32, 21>;
    walk = first_of_walk();
    for (var i = 0u; i < n; i++) {
        let curve = single_at(&walk, i, rate, delay);
        let unit = curve.x * inverse;
        let bent_unit = (curve.y - coefficient * curve.x) * inverse_beside;
        let left = concentration(voxel, i, first) - (along_curve * unit + along_derivative * bent_unit);
        for (var k = 0u; k < RATES; k++) {
            let other = tables[uniforms.settings.curves_at + (which * RATES + k) * n + i];
            along[k] = along[k] + left * other;
            on_first[k] = on_first[k] + unit * other;
            on_second[k] = on_second[k] + bent_unit * other;
        }
    }
    var gains: array<f32, 21>;
    var amplitudes: array<f32, 21>;
    for (var k = 0u; k < RATES; k++) {
        let all = tables[uniforms.settings.curve_squares_at + which * RATES + k];
        let left = all - (on_first[k] * on_first[k] + on_second[k] * on_second[k]);
        if left > all * 1e-6 && along[k] > 0.0 {
            amplitudes[k] = along[k] / max(left, 1e-30);
        }
        gains[k] = amplitudes[k] * along[k];
    }
    for (var k = 0u; k < RATES; k++) {
        let gain = gains[k];
        if !(gain > 0.0 && (k == 0u || gain > gains[max(k, 1u) - 1u])
            && (k + 1u == RATES || gain >= gains[min(k + 1u, RATES - 1u)])) {
            continue;
        }
        let rest = max(alone - amplitudes[k] * on_first[k] * inverse, 0.0);
        let other = tables[uniforms.settings.rates_at + k];
        let fast = max(other, rate);
        let slow = min(other, rate);
        let ratio = sqrt(fast / slow);
        let flow = amplitudes[k] + rest;
        let least = ratio / FARTHEST_PARTNER;
        let most = ratio * FARTHEST_PARTNER;
        var share = select(rest, amplitudes[k], other > rate) / max(flow, 1e-30);
        share = min(max(share, least / (1.0 + least)), most / (1.0 + most));
        let at_delay = select(given.x, delay, given.y != 0.0);
        keep_start(voxel, STARTS, PARTNERS, array<f32, 6>(gain, flow, fast, slow, share, at_delay));
    }
}

@compute @workgroup_size(64)
fn refine(@builtin(global_invocation_id) id: vec3<u32>) {
    let voxel = voxel_of(id);
    if is_outside(voxel) {
        return;
    }
    let round = read_state(STATE_REFINEMENTS, voxel);
    write_state(STATE_REFINEMENTS, voxel, round + 1u);
    let first = uniforms.settings.slope * first_sample(voxel) + uniforms.settings.intercept;
    let squares = kept(STATE_SQUARES, voxel);
    let delay = given_delay(voxel);
    let held = Flags(false, false, false, false, delay.y == 0.0);
    let starts = STARTS + PARTNERS + select(0u, DELAYS, OWN_DELAY);
    let continuations = select(CONTINUATIONS, CONTINUATIONS_WITH_DELAY, OWN_DELAY);
    let restarts = select(RESTARTS, RESTARTS_WITH_DELAY, OWN_DELAY);
    let after = round - min(round, starts);
    if round >= starts && (after < continuations || after >= continuations + restarts) {
        // On from the best place so far.
        if read_state(STATE_CONVERGED, voxel) == 1u {
            return;
        }
        chosen_sse = -1.0;
        let turns = refine_from(voxel, first, best_place(voxel), held, squares, kept(STATE_DAMPING, voxel), TURNS);
        keep_refined(voxel);
        write_state(STATE_CONVERGED, voxel, select(0u, 1u, turns > 0));
        write_state(STATE_TURNS, voxel, read_state(STATE_TURNS, voxel) + u32(abs(turns)));
        return;
    }
    let before = kept(STATE_SSE, voxel);
    if round > 0u && !(before > squares * PERFECT) {
        return;
    }
    let best = best_place(voxel);
    var start: Vector;
    if round < starts {
        let at = STATE_STARTS + 6u * round;
        if round > 0u && !(kept(at, voxel) > 0.0) {
            return;
        }
        let flow = kept(at + 1u, voxel);
        let fast = select(1.0, kept(at + 2u, voxel), flow > 0.0);
        let slow = select(1.0, kept(at + 3u, voxel), flow > 0.0);
        let per_flow = per_flow_of(fast, slow, kept(at + 4u, voxel));
        let raw = vec4<f32>(flow, flow * per_flow.x, flow * per_flow.y, flow * per_flow.z);
        let start_delay = select(delay.x, kept(at + 5u, voxel), delay.y != 0.0);
        let inside = min(max(raw, uniforms.settings.low), uniforms.settings.high);
        start = Vector(inside.x, inside.y, inside.z, inside.w, start_delay);
    } else {
        let number = after - continuations;
        if !is_restart(number, best, delay.y != 0.0) {
            return;
        }
        start = restart(number, best, delay.y != 0.0);
    }
    chosen_sse = select(before, -1.0, round == 0u);
    chosen_of = squares;
    chosen_settled = read_state(STATE_CONVERGED, voxel) == 1u;
    chosen_parameters = best;
    let turns = refine_from(voxel, first, start, held, squares, DAMPING, TURNS);
    if round == 0u || best_sse < before {
        keep_refined(voxel);
        write_state(STATE_CONVERGED, voxel, select(0u, 1u, turns > 0));
    }
    let counted = select(read_state(STATE_TURNS, voxel), 0u, round == 0u);
    write_state(STATE_TURNS, voxel, counted + u32(abs(turns)));
}

// As in restarts.rs: the first of the shifts where delays are the voxels' own, splits, exchanged places.
fn first_split() -> u32 {
    return select(0u, SHIFT_COUNT, OWN_DELAY);
}

fn first_exchanged() -> u32 {
    return select(RESTARTS, SHIFT_COUNT + SPLIT_COUNT * SPLIT_SHIFT_COUNT, OWN_DELAY);
}

// Whether a restart beside a place is worth a descent.
fn is_restart(number: u32, place: Vector, delay_free: bool) -> bool {
    if number < first_split() || number >= first_exchanged() {
        return delay_free;
    }
    var flows = FLOWS;
    var volumes = VOLUMES;
    let about_one_exponential = place[1] < flows[0] * place[0] || place[1] > flows[1] * place[0]
        || place[3] > volumes[1] || place[3] < volumes[0] || place[2] < volumes[0]
        || place[3] < SMALLEST_SPACE * place[2];
    return about_one_exponential && (delay_free || number - first_split() < SPLIT_COUNT);
}

// A restart beside a place.
fn restart(number: u32, place: Vector, delay_free: bool) -> Vector {
    var start = vec4<f32>(place[0], place[1], place[2], place[3]);
    let volume = select(place[2] + place[3], place[2], place[1] < SEPARATE * place[0]);
    var shift = 0.0;
    if number < first_split() {
        var shifts = SHIFTS;
        shift = shifts[number];
    } else if number < first_exchanged() {
        var splits = SPLITS;
        var shifts = SPLIT_SHIFTS;
        let split = number - first_split();
        let share = splits[2u * (split % SPLIT_COUNT) + 1u];
        start = vec4<f32>(place[0], place[0] * splits[2u * (split % SPLIT_COUNT)], volume * share, volume * (1.0 - share));
        shift = shifts[split / SPLIT_COUNT];
    } else {
        var exchanged = EXCHANGED;
        var shifts = EXCHANGED_SHIFTS;
        start = vec4<f32>(exchanged[0] * uniforms.settings.high.x, place[0], volume * exchanged[1], volume);
        shift = shifts[number - first_exchanged()];
    }
    let inside = min(max(start, uniforms.settings.low), uniforms.settings.high);
    let later = place[4] + shift * uniforms.settings.reach;
    let delay = select(place[4], min(max(later, uniforms.settings.delay_low), uniforms.settings.delay_high), delay_free);
    return Vector(inside.x, inside.y, inside.z, inside.w, delay);
}

// As in reference.rs: descents that need not go on, those far above the best place so far, and those whose next step leads to
// it.
fn leads_nowhere(turns: u32, trial: Vector, promised: f32) -> bool {
    if turns < 2u || chosen_sse <= NOTHING_LEFT * chosen_of {
        return false;
    }
    let settled = !OWN_DELAY && chosen_settled;
    var far = FAR_ABOVE;
    if best_sse > far[min(turns, 3u) - 2u] * chosen_sse {
        return true;
    }
    if settled && turns >= 4u && best_sse > FAR_ABOVE_FLOOR * chosen_sse {
        return true;
    }
    let lowest = (1.0 - NO_LOWER) * chosen_sse;
    let steady = best_damping <= DAMPING;
    if settled && steady && turns >= 3u && best_sse - PROMISES * promised >= lowest {
        return true;
    }
    var small = SMALL;
    var arrives = !OWN_DELAY && steady && promised <= NEAR * best_sse && best_sse - promised >= lowest;
    for (var i = 0u; i < 4u; i++) {
        arrives = arrives && abs(trial[i] - chosen_parameters[i]) <= SAME * (abs(chosen_parameters[i]) + small[i]);
    }
    return arrives;
}

// Writes the goodness of the fit; gives the residual's variance, and whether the zero curve is the better model.
fn write_goodness(voxel: u32, valid: bool, first: f32, squares: f32, sse: f32, free: f32) -> vec2<f32> {
    let frames = uniforms.slab.frames;
    let n = f32(frames);
    var differences = 0.0;
    for (var i = 0u; i < frames; i++) {
        differences = differences + uniforms.settings.slope * difference(voxel, i);
    }
    let mean = differences / n;
    var about_mean = 0.0;
    for (var i = 0u; i < frames; i++) {
        let off = uniforms.settings.slope * difference(voxel, i) - mean;
        about_mean = about_mean + off * off;
    }
    let varies = about_mean > SMALLEST_SUM;
    let spare = n - free - 1.0;
    let left = sse > SMALLEST_SUM;
    let has_aic = left && spare > 0.0;
    let penalty = 2.0 * free + 2.0 * free * (free + 1.0) / select(1.0, spare, spare > 0.0);
    let aic = n * log(select(1.0, sse, left) / n) + penalty;
    let something = squares > SMALLEST_SUM;
    let ratio = select(1.0, squares, something) / select(1.0, sse, left);
    let no_better = n * log(select(1.0, ratio, left)) <= penalty;
    let not_enhancing = !something || (left && no_better);
    let degrees = n - free;
    let variance = select(0.0, sse / select(1.0, degrees, degrees > 0.0), degrees > 0.0);
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
    return vec2<f32>(variance, select(0.0, 1.0, not_enhancing));
}

@compute @workgroup_size(64)
fn finish(@builtin(global_invocation_id) id: vec3<u32>) {
    let voxel = voxel_of(id);
    if is_outside(voxel) {
        return;
    }
    let finite = read_state(STATE_FINITE, voxel) == 1u;
    let has = select(0x3fu, read_state(STATE_HAS, voxel), LINEAR);
    let usable = finite && (has & 32u) != 0u;
    let first = uniforms.settings.slope * first_sample(voxel) + uniforms.settings.intercept;
    let sse = kept(STATE_SSE, voxel);
    let delay_free = given_delay(voxel).y != 0.0;
    best_parameters = best_place(voxel);
    for (var i = 0u; i < PARAMETERS; i++) {
        for (var j = 0u; j < PARAMETERS; j++) {
            triangle[i][j] = select(0.0, kept(STATE_TRIANGLE + 5u * i + j, voxel), j >= i);
        }
    }
    var bits = select(STATUS_NON_FINITE_SAMPLE, 0u, finite);
    if finite && read_state(STATE_CONVERGED, voxel) != 1u {
        bits = bits | STATUS_NOT_CONVERGED;
    }
    let goodness = write_goodness(voxel, usable, first, kept(STATE_SQUARES, voxel), sse, select(4.0, 5.0, delay_free));
    if usable && goodness.y > 0.0 {
        bits = bits | STATUS_NOT_ENHANCING;
    }
    if row_of(SLOT_FITTED_CURVE) >= 0 || row_of(SLOT_RESIDUAL) >= 0 {
        equations(voxel, first, best_parameters, true, usable);
    }
    if row_of(SLOT_ITERATIONS) >= 0 {
        write_number(u32(row_of(SLOT_ITERATIONS)), voxel, f32(read_state(STATE_TURNS, voxel)), finite);
    }

    // The inverse of the triangle; a delay that isn't fitted stands alone.
    if !delay_free {
        for (var i = 0u; i < PARAMETERS; i++) {
            triangle[i][4] = select(0.0, 1.0, i == 4u);
        }
    }
    let regular = invert_triangle();
    let flow = best_parameters[0];
    let exchange = best_parameters[1];
    var gradients = gradients_of(first_four(best_parameters), terms_of(first_four(best_parameters)));
    let sum = 1.0 / (flow + exchange);
    var values = array<f32, 6>(flow, exchange, best_parameters[2], best_parameters[3], exchange * sum, best_parameters[4]);
    var units = array<f32, 6>(6000.0, 6000.0, 1.0, 1.0, 1.0, 1.0);
    var places = PLACES;
    var bound_bits = BOUND_BITS;
    var unclear = !usable;
    for (var q = 0u; q < 6u; q++) {
        var by_first = vec4<f32>();
        if q < 4u {
            by_first = gradients[q];
        }
        if q == 4u {
            // E = PS / (F_p + PS).
            by_first = (gradients[1] * flow - gradients[0] * exchange) * sum * sum;
        }
        let gradient = Vector(by_first.x, by_first.y, by_first.z, by_first.w, select(0.0, 1.0, q == 5u));
        var squared = 0.0;
        for (var j = 0u; j < PARAMETERS; j++) {
            var element = 0.0;
            for (var i = 0u; i <= j; i++) {
                element = element + gradient[i] * inverse_triangle[i][j];
            }
            squared = squared + element * element;
        }
        let error = sqrt(goodness.x * squared);
        let value = values[q];
        let has_error = usable && regular && (q < 5u || delay_free);
        if row_of(places[q]) >= 0 {
            write_number(u32(row_of(places[q])), voxel, value * units[q], finite && (q == 5u || (has >> q & 1u) != 0u));
        }
        let error_row = row_of(SLOT_STANDARD_ERROR + places[q]);
        if error_row >= 0 {
            write_number(u32(error_row), voxel, error * units[q], has_error);
        }
        var low = false;
        var high = false;
        if q < 4u && !LINEAR {
            low = value <= uniforms.settings.low[q] * (1.0 + AT_BOUND);
            high = value >= uniforms.settings.high[q] * (1.0 - AT_BOUND);
        }
        if q < 4u && NEEDS_CURVES {
            unclear = unclear || !has_error || error > 0.5 * abs(value);
        }
        if q == 5u && delay_free {
            low = value <= uniforms.settings.delay_low;
            high = value >= uniforms.settings.delay_high;
        }
        if finite && low {
            bits = bits | STATUS_AT_LOWER_BOUND | (1u << bound_bits[q]);
        }
        if finite && high {
            bits = bits | STATUS_AT_UPPER_BOUND | (2u << bound_bits[q]);
        }
    }
    if finite && unclear {
        bits = bits | STATUS_NOT_IDENTIFIABLE;
    }
    write_status(voxel, bits);
}
