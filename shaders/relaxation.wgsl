// Arithmetic that keeps its relative accuracy near 0, and the search for a rate: what relaxation kernels share. The Rust
// texts (src/kernels/arithmetic.rs, src/kernels/t1/search.rs) have the same names, order and guards.

const SERIES_BELOW: f32 = 0.25;

// ln(1 + x), x > -1: near 0 twice the area tangent of x / (2 + x).
fn ln_1p(x: f32) -> f32 {
    let small = abs(x) < SERIES_BELOW;
    let z = select(0.0, x, small) / (2.0 + select(0.0, x, small));
    let square = z * z;
    var sum = 1.0 / 19.0;
    sum = sum * square + 1.0 / 17.0;
    sum = sum * square + 1.0 / 15.0;
    sum = sum * square + 1.0 / 13.0;
    sum = sum * square + 1.0 / 11.0;
    sum = sum * square + 1.0 / 9.0;
    sum = sum * square + 1.0 / 7.0;
    sum = sum * square + 1.0 / 5.0;
    sum = sum * square + 1.0 / 3.0;
    sum = sum * square + 1.0;
    let series = (z + z) * sum;
    let one_plus = select(1.0 + x, 1.0, small);
    return select(log(one_plus), series, small);
}

// exp(x) - 1, x from 0 to 80.
fn exp_m1(x: f32) -> f32 {
    let small = x < SERIES_BELOW;
    let near = select(0.0, x, small);
    var sum = 1.0;
    sum = 1.0 + near * (1.0 / 13.0) * sum;
    sum = 1.0 + near * (1.0 / 12.0) * sum;
    sum = 1.0 + near * (1.0 / 11.0) * sum;
    sum = 1.0 + near * (1.0 / 10.0) * sum;
    sum = 1.0 + near * (1.0 / 9.0) * sum;
    sum = 1.0 + near * (1.0 / 8.0) * sum;
    sum = 1.0 + near * (1.0 / 7.0) * sum;
    sum = 1.0 + near * (1.0 / 6.0) * sum;
    sum = 1.0 + near * (1.0 / 5.0) * sum;
    sum = 1.0 + near * (1.0 / 4.0) * sum;
    sum = 1.0 + near * (1.0 / 3.0) * sum;
    sum = 1.0 + near * (1.0 / 2.0) * sum;
    return select(exp(x) - 1.0, near * sum, small);
}

// Sine and versine (1 - cosine) of twice an angle between 0 and a right angle, by their series.
fn sine_and_versine(half_angle: f32) -> vec2<f32> {
    let square = half_angle * half_angle;
    var sine = 1.0;
    var cosine = 1.0;
    sine = 1.0 - square * (1.0 / 420.0) * sine;
    cosine = 1.0 - square * (1.0 / 380.0) * cosine;
    sine = 1.0 - square * (1.0 / 342.0) * sine;
    cosine = 1.0 - square * (1.0 / 306.0) * cosine;
    sine = 1.0 - square * (1.0 / 272.0) * sine;
    cosine = 1.0 - square * (1.0 / 240.0) * cosine;
    sine = 1.0 - square * (1.0 / 210.0) * sine;
    cosine = 1.0 - square * (1.0 / 182.0) * cosine;
    sine = 1.0 - square * (1.0 / 156.0) * sine;
    cosine = 1.0 - square * (1.0 / 132.0) * cosine;
    sine = 1.0 - square * (1.0 / 110.0) * sine;
    cosine = 1.0 - square * (1.0 / 90.0) * cosine;
    sine = 1.0 - square * (1.0 / 72.0) * sine;
    cosine = 1.0 - square * (1.0 / 56.0) * cosine;
    sine = 1.0 - square * (1.0 / 42.0) * sine;
    cosine = 1.0 - square * (1.0 / 30.0) * cosine;
    sine = 1.0 - square * (1.0 / 20.0) * sine;
    cosine = 1.0 - square * (1.0 / 12.0) * cosine;
    sine = 1.0 - square * (1.0 / 6.0) * sine;
    cosine = 1.0 - square * (1.0 / 2.0) * cosine;
    sine = half_angle * sine;
    let twice = sine + sine;
    return vec2<f32>(twice * cosine, twice * sine);
}

// A peak on a grid: its place, its second index (a polarity switch) and its height, 0 for none.
struct Peak {
    at: f32,
    branch: f32,
    height: f32,
}

// The grid point `at` with its neighbours' heights: a peak counts by the vertex of the parabola through the three; at an
// end of the grid, or beside a point that is not allowed (height 0), by itself.
fn peak_of(at: f32, branch: f32, before: f32, height: f32, after: f32, at_end: bool) -> Peak {
    let is_peak = height > 0.0 && height >= before && height >= after;
    let bend = (height - before) + (height - after);
    let tilt = after - before;
    let curved = is_peak && !at_end && bend > 0.0 && before > 0.0 && after > 0.0;
    let rise = tilt * tilt / (8.0 * select(1.0, bend, curved));
    return Peak(at, branch, select(0.0, height + select(0.0, rise, curved), is_peak));
}

// A step that misses the bracket by less than this share of the rate is one that rounding turned.
const MARGIN: f32 = 1e-4;

// Where a rate is looked for, and how far the last step went, relative.
struct Bracket {
    x: f32,
    low: f32,
    high: f32,
    step: f32,
}

// One step: Newton's (relative to x: `slope / curvature`) if it stays within the bracket, else to its middle.
fn narrow(bracket: ptr<function, Bracket>, slope: f32, curvature: f32) {
    let x = (*bracket).x;
    let rising = slope > 0.0;
    let low = select((*bracket).low, x, rising);
    let high = select(x, (*bracket).high, rising);
    let convex = curvature > 0.0;
    let newton = x + x * (slope / select(1.0, curvature, convex));
    let margin = x * MARGIN;
    let near = convex && newton >= low - margin && newton <= high + margin;
    let next = select(0.5 * (low + high), min(max(newton, low), high), near);
    (*bracket).step = (next - x) / x;
    (*bracket).low = low;
    (*bracket).high = high;
    (*bracket).x = next;
}
