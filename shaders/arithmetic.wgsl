// Arithmetic that keeps its relative accuracy near 0. The Rust text (src/kernels/arithmetic.rs) has the same names, order and
// guards.

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
