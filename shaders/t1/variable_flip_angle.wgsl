// T1 from spoiled gradient echoes with several flip angles. The Rust text (src/kernels/t1/variable_flip_angle/reference.rs) has the same
// names, order and guards. With q = exp(TR / T1) - 1 and v = 1 - cos(a), the signal is M0 sin(a) q / (q + v).
//
// Loop turns of an invocation: at most (grid + 4 steps + 12) times the number of angles.

struct Settings {
    method: u32,
    has_b1: u32,
    noise_from: u32,
    noise_layer: u32,
    grid: u32,
    steps: u32,
    noise_value: f32,
    tr: f32,
    inv_tr: f32,
    largest_b1: f32,
    offset: f32,
    sign: f32,
    scale: f32,
    per_sample: f32,
    inv_freedom: f32,
    has_freedom: u32,
}

struct Uniforms {
    slab: Slab,
    settings: Settings,
}

@group(0) @binding(0) var<uniform> uniforms: Uniforms;

// State of a voxel: its samples, then the sines, then the versines of its angles.
fn sample(voxel: u32, i: u32) -> f32 {
    return bitcast<f32>(read_state(i, voxel));
}

fn sine_of(voxel: u32, i: u32) -> f32 {
    return bitcast<f32>(read_state(uniforms.slab.frames + i, voxel));
}

fn versine_of(voxel: u32, i: u32) -> f32 {
    return bitcast<f32>(read_state(2u * uniforms.slab.frames + i, voxel));
}

struct Fit {
    m0: f32,
    slope: f32,
    curvature: f32,
    sse: f32,
    model: f32,
    derivative: f32,
    share: f32,
    whole: f32,
}

fn fit_at(voxel: u32, q: f32) -> Fit {
    let n = uniforms.slab.frames;
    var yf = 0.0;
    var ff = 0.0;
    var fg = 0.0;
    var whole = 0.0;
    for (var i = 0u; i < n; i++) {
        let versine = versine_of(voxel, i);
        let inverse = 1.0 / (q + versine);
        let f = sine_of(voxel, i) * q * inverse;
        let g = f * versine * inverse;
        yf = yf + sample(voxel, i) * f;
        ff = ff + f * f;
        fg = fg + f * g;
        whole = whole + g * g;
    }
    let m0 = yf / ff;
    let share = fg / ff;
    var slope = 0.0;
    var derivative = 0.0;
    var bend = 0.0;
    var sse = 0.0;
    for (var i = 0u; i < n; i++) {
        let versine = versine_of(voxel, i);
        let inverse = 1.0 / (q + versine);
        let f = sine_of(voxel, i) * q * inverse;
        let g = f * versine * inverse;
        let r = sample(voxel, i) - m0 * f;
        let own = g - share * f;
        slope = slope + r * own;
        derivative = derivative + own * own;
        bend = bend + r * g * q * inverse;
        sse = sse + r * r;
    }
    return Fit(m0, slope, m0 * derivative + bend + bend, sse, ff, derivative, share, whole);
}

fn best_of_grid(voxel: u32) -> Peak {
    let n = uniforms.slab.frames;
    let grid = uniforms.settings.grid;
    var peak = Peak(0.0, 0.0, 0.0);
    var before = 0.0;
    var height = 0.0;
    for (var k = 0u; k <= grid; k++) {
        var after = 0.0;
        if k < grid {
            let q = tables[k];
            var yf = 0.0;
            var ff = 0.0;
            for (var i = 0u; i < n; i++) {
                let f = sine_of(voxel, i) * (q / (q + versine_of(voxel, i)));
                yf = yf + sample(voxel, i) * f;
                ff = ff + f * f;
            }
            let positive = yf > 0.0;
            after = select(0.0, yf, positive) * select(0.0, yf, positive) / ff;
        }
        if k > 0u {
            let at_end = k == 1u || k == grid;
            let candidate = peak_of(f32(k - 1u), 0.0, before, height, after, at_end);
            if candidate.height > peak.height {
                peak = candidate;
            }
        }
        before = height;
        height = after;
    }
    return peak;
}

struct Found {
    q: f32,
    m0: f32,
    found: bool,
    at_shortest: bool,
    at_longest: bool,
    converged: bool,
    informative: bool,
    q_per_sigma: f32,
    m0_per_sigma: f32,
    sse: f32,
}

fn nonlinear(voxel: u32) -> Found {
    let peak = best_of_grid(voxel);
    let last = uniforms.settings.grid - 1u;
    let at = u32(peak.at);
    var bracket = Bracket(tables[at], tables[max(at, 1u) - 1u], tables[min(at + 1u, last)], 0.0);
    for (var step = 0u; step < uniforms.settings.steps; step++) {
        let fit = fit_at(voxel, bracket.x);
        narrow(&bracket, fit.slope, fit.curvature);
    }
    let fit = fit_at(voxel, bracket.x);
    let at_longest = at == 0u && bracket.high <= bracket.low;
    let at_shortest = at == last && bracket.low >= bracket.high;
    let found = peak.height > 0.0;
    let informative = fit.derivative > LEAST_OWN_SHARE * fit.whole && fit.m0 > 0.0;
    let derivative = select(1.0, fit.derivative, informative);
    return Found(
        bracket.x,
        fit.m0,
        found,
        at_shortest && found,
        at_longest && found,
        abs(bracket.step) <= CONVERGED,
        informative,
        1.0 / (select(1.0, fit.m0, informative) * sqrt(derivative)),
        sqrt(1.0 / fit.model + fit.share * fit.share / derivative),
        fit.sse,
    );
}

fn linear(voxel: u32) -> Found {
    let n = uniforms.slab.frames;
    let per_sample = uniforms.settings.per_sample;
    var mean_x = 0.0;
    var mean_w = 0.0;
    for (var i = 0u; i < n; i++) {
        let versine = versine_of(voxel, i);
        let sine = sine_of(voxel, i);
        let u = (1.0 - versine) / sine;
        let w = versine / sine;
        mean_x = mean_x + sample(voxel, i) * u * per_sample;
        mean_w = mean_w + sample(voxel, i) * w * per_sample;
    }
    var squares_x = 0.0;
    var products = 0.0;
    for (var i = 0u; i < n; i++) {
        let versine = versine_of(voxel, i);
        let sine = sine_of(voxel, i);
        let x = sample(voxel, i) * ((1.0 - versine) / sine) - mean_x;
        let w = sample(voxel, i) * (versine / sine) - mean_w;
        squares_x = squares_x + x * x;
        products = products + x * w;
    }
    let spread = squares_x > 0.0;
    let xx = select(1.0, squares_x, spread);
    let slope = -products / xx;
    let below_one = slope < 1.0;
    let rest = select(1.0, 1.0 - slope, below_one);
    let ratio = slope / rest;
    let at_shortest = spread && (!below_one || ratio > tables[uniforms.settings.grid - 1u]);
    let at_longest = spread && below_one && ratio < tables[0];
    let inside = spread && !at_shortest && !at_longest;
    let p = select(0.5, slope, inside);
    let q = select(1.0, ratio, inside);
    let e = select(0.5, rest, inside);
    let m0 = mean_w / p + mean_x;

    var sse = 0.0;
    var p_squares = 0.0;
    var m0_squares = 0.0;
    for (var i = 0u; i < n; i++) {
        let versine = versine_of(voxel, i);
        let sine = sine_of(voxel, i);
        let u = (1.0 - versine) / sine;
        let w = versine / sine;
        let r = sample(voxel, i) - m0 * (sine * (q / (q + versine)));
        sse = sse + r * r;
        let dx = sample(voxel, i) * u - mean_x;
        let dw = sample(voxel, i) * w - mean_w;
        let dp = -(u * dw + w * dx + (p + p) * u * dx) / xx;
        let dm0 = w * per_sample / p - mean_w / (p * p) * dp + u * per_sample;
        p_squares = p_squares + dp * dp;
        m0_squares = m0_squares + dm0 * dm0;
    }
    return Found(
        q,
        m0,
        inside && m0 > 0.0,
        at_shortest,
        at_longest,
        true,
        p_squares > 0.0,
        sqrt(p_squares) / (p * e),
        sqrt(m0_squares),
        sse,
    );
}

@compute @workgroup_size(64)
fn t1_vfa(@builtin(global_invocation_id) id: vec3<u32>) {
    let voxel = voxel_of(id);
    if is_outside(voxel) {
        return;
    }
    let n = uniforms.slab.frames;
    let finite = all_finite(voxel);

    let origin = select(0.0, first_sample(voxel), finite) + uniforms.settings.offset;
    var top = 0.0;
    for (var i = 0u; i < n; i++) {
        let y = origin + select(0.0, difference(voxel, i), finite);
        write_state(i, voxel, bitcast<u32>(y));
        top = max(top, abs(y));
    }
    let signal = is_signal(top * uniforms.settings.scale);
    top = select(1.0, top, signal);
    var mean = 0.0;
    for (var i = 0u; i < n; i++) {
        let y = uniforms.settings.sign * (sample(voxel, i) / top);
        write_state(i, voxel, bitcast<u32>(y));
        mean = mean + y * uniforms.settings.per_sample;
    }
    var total = 0.0;
    for (var i = 0u; i < n; i++) {
        let y = sample(voxel, i);
        total = total + (y - mean) * (y - mean);
    }

    var usable = true;
    let at = uniforms.settings.grid;
    if uniforms.settings.has_b1 != 0u {
        let value = extra_value(0u, voxel);
        usable = value > 0.0 && value < uniforms.settings.largest_b1;
        let b1 = select(1.0, value, usable);
        for (var i = 0u; i < n; i++) {
            let both = sine_and_versine(b1 * tables[at + i]);
            write_state(n + i, voxel, bitcast<u32>(both.x));
            write_state(2u * n + i, voxel, bitcast<u32>(both.y));
        }
    } else {
        for (var i = 0u; i < n; i++) {
            write_state(n + i, voxel, bitcast<u32>(tables[at + n + i]));
            write_state(2u * n + i, voxel, bitcast<u32>(tables[at + 2u * n + i]));
        }
    }

    var found: Found;
    if uniforms.settings.method == 0u {
        found = nonlinear(voxel);
    } else {
        found = linear(voxel);
    }
    let q = select(1.0, found.q, found.found);
    let t1 = uniforms.settings.tr / ln_1p(q);
    let t1_per_sigma = t1 * t1 * uniforms.settings.inv_tr * (q / (1.0 + q)) * found.q_per_sigma;
    write_results(voxel, finite, Estimate(
        top * uniforms.settings.scale,
        signal,
        usable,
        found.found,
        found.at_shortest,
        found.at_longest,
        found.converged,
        found.informative,
        t1,
        t1_per_sigma,
        found.m0,
        found.m0_per_sigma,
        found.sse,
        total,
    ));
}
