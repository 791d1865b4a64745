// T1 from images at several times after an inversion. The Rust text (src/kernels/t1/inversion_recovery/reference.rs) has the same
// names, order and guards. The signal is a - b exp(-R TI), or its magnitude: then every place for the curve's zero is tried.
//
// Loop turns of an invocation: at most (grid + 1) (2 times + 2), 4 for each of (grid times) / 2 peaks, 4 (3 (steps + 1) + 1)
// times and 4 times.

// Peaks of the grid that are followed to their end.
const PEAKS: u32 = 4u;

struct Settings {
    look_locker: u32,
    places: u32,
    noise_from: u32,
    noise_layer: u32,
    grid: u32,
    steps: u32,
    noise_value: f32,
    offset: f32,
    sign: f32,
    scale: f32,
    shortest_t1: f32,
    longest_t1: f32,
    per_sample: f32,
    inv_freedom: f32,
    has_freedom: u32,
    padding: u32,
}

struct Uniforms {
    slab: Slab,
    settings: Settings,
}

@group(0) @binding(0) var<uniform> uniforms: Uniforms;

// State of a voxel: its samples by increasing time, the same with the signs of a place, exp(-R TI), and the last two
// heights of each place.
fn sample(voxel: u32, i: u32) -> f32 {
    return bitcast<f32>(read_state(i, voxel));
}

fn signed_sample(voxel: u32, i: u32) -> f32 {
    return bitcast<f32>(read_state(uniforms.slab.frames + i, voxel));
}

fn remaining(voxel: u32, i: u32) -> f32 {
    return bitcast<f32>(read_state(2u * uniforms.slab.frames + i, voxel));
}

// Tables: rates, mean of exp(-R TI) and 1 over its spread for each; its deviations rate by rate; times; order of samples.
fn mean_of(k: u32) -> f32 {
    return tables[uniforms.settings.grid + k];
}

fn inv_spread_of(k: u32) -> f32 {
    return tables[2u * uniforms.settings.grid + k];
}

fn deviation_of(k: u32, i: u32) -> f32 {
    return tables[3u * uniforms.settings.grid + k * uniforms.slab.frames + i];
}

fn time_of(i: u32) -> f32 {
    return tables[(3u + uniforms.slab.frames) * uniforms.settings.grid + i];
}

fn frame_of(i: u32) -> u32 {
    return u32(tables[(3u + uniforms.slab.frames) * uniforms.settings.grid + uniforms.slab.frames + i]);
}

struct Fit {
    a: f32,
    b: f32,
    slope: f32,
    curvature: f32,
    sse: f32,
    mean_e: f32,
    spread: f32,
    derivative: f32,
    whole: f32,
    b_share: f32,
    a_share: f32,
}

fn fit_at(voxel: u32, mean_y: f32, rate: f32) -> Fit {
    let n = uniforms.slab.frames;
    let per_sample = uniforms.settings.per_sample;
    var mean_e = 0.0;
    var mean_g = 0.0;
    for (var i = 0u; i < n; i++) {
        let turned = rate * time_of(i);
        let e = exp(-turned);
        write_state(2u * n + i, voxel, bitcast<u32>(e));
        mean_e = mean_e + e * per_sample;
        mean_g = mean_g + e * turned * per_sample;
    }
    var spread = 0.0;
    var covariance = 0.0;
    var shared_part = 0.0;
    var whole = 0.0;
    for (var i = 0u; i < n; i++) {
        let e = remaining(voxel, i);
        let own = e - mean_e;
        let g = e * (rate * time_of(i));
        spread = spread + own * own;
        covariance = covariance + (signed_sample(voxel, i) - mean_y) * own;
        shared_part = shared_part + (g - mean_g) * own;
        whole = whole + (g - mean_g) * (g - mean_g);
    }
    let b = -covariance / spread;
    let b_share = shared_part / spread;
    var slope = 0.0;
    var derivative = 0.0;
    var bend = 0.0;
    var sse = 0.0;
    for (var i = 0u; i < n; i++) {
        let turned = rate * time_of(i);
        let e = remaining(voxel, i);
        let own = e - mean_e;
        let g = e * turned;
        let r = (signed_sample(voxel, i) - mean_y) + b * own;
        let free = (g - mean_g) - b_share * own;
        slope = slope + r * free;
        derivative = derivative + free * free;
        bend = bend + r * g * turned;
        sse = sse + r * r;
    }
    return Fit(
        mean_y + b * mean_e,
        b,
        slope,
        b * derivative + bend,
        sse,
        mean_e,
        spread,
        derivative,
        whole,
        b_share,
        b_share * mean_e - mean_g,
    );
}

fn best_of_grid(voxel: u32, sum: f32) -> array<Peak, PEAKS> {
    let n = uniforms.slab.frames;
    let grid = uniforms.settings.grid;
    let heights = 3u * n;
    var peaks: array<Peak, PEAKS>;
    for (var place = 0u; place < uniforms.settings.places; place++) {
        write_state(heights + 2u * place, voxel, 0u);
        write_state(heights + 2u * place + 1u, voxel, 0u);
    }
    for (var k = 0u; k <= grid; k++) {
        var covariance = 0.0;
        if k < grid {
            for (var i = 0u; i < n; i++) {
                covariance = covariance + sample(voxel, i) * deviation_of(k, i);
            }
        }
        var signed = sum;
        for (var place = 0u; place < uniforms.settings.places; place++) {
            var after = 0.0;
            if k < grid {
                if place > 0u {
                    let y = sample(voxel, place - 1u);
                    let turned = y + y;
                    signed = signed - turned;
                    covariance = covariance - turned * deviation_of(k, place - 1u);
                }
                let b = -covariance * inv_spread_of(k);
                let mean_y = signed * uniforms.settings.per_sample;
                let a = mean_y + b * mean_of(k);
                let explained = signed * mean_y - b * covariance;
                after = select(0.0, explained, b > 0.0 && a > 0.0);
            }
            let before = bitcast<f32>(read_state(heights + 2u * place, voxel));
            let height = bitcast<f32>(read_state(heights + 2u * place + 1u, voxel));
            if k > 0u {
                let at_end = k == 1u || k == grid;
                var candidate = peak_of(f32(k - 1u), f32(place), before, height, after, at_end);
                if candidate.height > 0.0 {
                    for (var i = 0u; i < PEAKS; i++) {
                        if candidate.height > peaks[i].height {
                            let kept = peaks[i];
                            peaks[i] = candidate;
                            candidate = kept;
                        }
                    }
                }
            }
            write_state(heights + 2u * place, voxel, bitcast<u32>(height));
            write_state(heights + 2u * place + 1u, voxel, bitcast<u32>(after));
        }
    }
    return peaks;
}

// The fit at the end of a search.
struct Followed {
    rate: f32,
    fit: Fit,
    found: bool,
    at_longest: bool,
    at_shortest: bool,
    converged: bool,
}

fn follow(voxel: u32, peak: Peak) -> Followed {
    let n = uniforms.slab.frames;
    var mean_y = 0.0;
    for (var i = 0u; i < n; i++) {
        let y = sample(voxel, i);
        let signed = select(y, -y, f32(i) < peak.branch);
        write_state(n + i, voxel, bitcast<u32>(signed));
        mean_y = mean_y + signed * uniforms.settings.per_sample;
    }
    let last = uniforms.settings.grid - 1u;
    let at = u32(peak.at);
    var bracket = Bracket(tables[at], tables[max(at, 1u) - 1u], tables[min(at + 1u, last)], 0.0);
    for (var step = 0u; step < uniforms.settings.steps; step++) {
        let fit = fit_at(voxel, mean_y, bracket.x);
        narrow(&bracket, fit.slope, fit.curvature);
    }
    let fit = fit_at(voxel, mean_y, bracket.x);
    let found = peak.height > 0.0 && fit.a > 0.0 && fit.b > 0.0;
    return Followed(
        bracket.x,
        fit,
        found,
        found && at == 0u && bracket.high <= bracket.low,
        found && at == last && bracket.low >= bracket.high,
        abs(bracket.step) <= CONVERGED,
    );
}

@compute @workgroup_size(64)
fn t1_recovery(@builtin(global_invocation_id) id: vec3<u32>) {
    let voxel = voxel_of(id);
    if is_outside(voxel) {
        return;
    }
    let n = uniforms.slab.frames;
    let per_sample = uniforms.settings.per_sample;
    let finite = all_finite(voxel);

    let origin = select(0.0, first_sample(voxel), finite) + uniforms.settings.offset;
    var top = 0.0;
    for (var i = 0u; i < n; i++) {
        let y = origin + select(0.0, difference(voxel, frame_of(i)), finite);
        write_state(i, voxel, bitcast<u32>(y));
        top = max(top, abs(y));
    }
    let signal = is_signal(top * uniforms.settings.scale);
    top = select(1.0, top, signal);
    var sum = 0.0;
    for (var i = 0u; i < n; i++) {
        let y = uniforms.settings.sign * (sample(voxel, i) / top);
        write_state(i, voxel, bitcast<u32>(y));
        sum = sum + y;
    }
    let mean = sum * per_sample;
    var total = 0.0;
    for (var i = 0u; i < n; i++) {
        let y = sample(voxel, i);
        total = total + (y - mean) * (y - mean);
    }

    var peaks = best_of_grid(voxel, sum);
    var best = follow(voxel, peaks[0]);
    for (var i = 1u; i < PEAKS; i++) {
        if peaks[i].height > 0.0 {
            let other = follow(voxel, peaks[i]);
            if other.fit.sse < best.fit.sse {
                best = other;
            }
        }
    }
    let fit = best.fit;
    let found = best.found;
    let at_longest = best.at_longest;
    let at_shortest = best.at_shortest;

    let a = select(1.0, fit.a, found);
    let b = select(1.0, fit.b, found);
    let apparent = 1.0 / best.rate;
    var t1 = apparent;
    var m0 = a;
    var t1_a = 0.0;
    var t1_b = 0.0;
    var m0_a = 1.0;
    var m0_b = 0.0;
    if uniforms.settings.look_locker != 0u {
        let ratio = b / a;
        t1 = apparent * (ratio - 1.0);
        m0 = b - a;
        t1_a = -apparent * ratio / a;
        t1_b = apparent / a;
        m0_a = -1.0;
        m0_b = 1.0;
    }
    let t1_rate = -t1;
    let informative = fit.derivative > LEAST_OWN_SHARE * fit.whole && found;
    let derivative = select(1.0, fit.derivative, informative);
    let inv_spread = 1.0 / fit.spread;
    let along_t1 = t1_a * fit.a_share + t1_b * fit.b_share + t1_rate / b;
    let along_m0 = m0_a * fit.a_share + m0_b * fit.b_share;
    let across_t1 = t1_a * fit.mean_e + t1_b;
    let across_m0 = m0_a * fit.mean_e + m0_b;
    let t1_variance =
        t1_a * t1_a * per_sample + across_t1 * across_t1 * inv_spread + along_t1 * along_t1 / derivative;
    let m0_variance =
        m0_a * m0_a * per_sample + across_m0 * across_m0 * inv_spread + along_m0 * along_m0 / derivative;

    let transformed = uniforms.settings.look_locker != 0u;
    let outside_short = transformed && found && t1 < uniforms.settings.shortest_t1;
    let outside_long = transformed && found && t1 > uniforms.settings.longest_t1;
    write_results(voxel, finite, Estimate(
        top * uniforms.settings.scale,
        signal,
        true,
        found && !outside_short && !outside_long,
        at_shortest || outside_short,
        at_longest || outside_long,
        best.converged,
        informative,
        select(t1, 1.0, outside_short),
        sqrt(t1_variance),
        m0,
        sqrt(m0_variance),
        fit.sse,
        total,
    ));
}
