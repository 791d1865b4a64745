// Signal to concentration. The Rust text (src/kernels/concentration/reference.rs) has the same names, order and guards.
// With q = exp(TR / T1) - 1, q0 before contrast agent, v = 1 - cos(a) and e = S / S0 - 1:
// (1 + q) / (1 + q0) = 1 + e q0 (q0 + v) / ((1 + q0) (v - e q0)).

const NON_FINITE_SAMPLE: u32 = 2u;
const BASELINE_NOT_POSITIVE: u32 = 4u;
const NOT_INVERTIBLE: u32 = 512u;
const MAP_NOT_USABLE: u32 = 262144u;

// A baseline up to this, in stored units, has no inverse in 32 bits.
const SMALLEST_BASELINE: f32 = 1e-30;

const SPOILED_GRADIENT_ECHO: u32 = 0u;
const RELATIVE: u32 = 1u;
const ABSOLUTE: u32 = 2u;

struct Settings {
    law: u32,
    baseline_start: u32,
    baseline_end: u32,
    has_t10: u32,
    has_b1: u32,
    b1_layer: u32,
    inv_baseline: f32,
    offset: f32,
    sign: f32,
    tr: f32,
    t10: f32,
    shortest_t10: f32,
    largest_b1: f32,
    half_angle: f32,
    versine: f32,
    factor: f32,
}

struct Uniforms {
    slab: Slab,
    settings: Settings,
}

@group(0) @binding(0) var<uniform> uniforms: Uniforms;

@compute @workgroup_size(64)
fn concentration(@builtin(global_invocation_id) id: vec3<u32>) {
    let voxel = voxel_of(id);
    if is_outside(voxel) {
        return;
    }
    let law = uniforms.settings.law;
    let finite = all_finite(voxel);

    var base = 0.0;
    for (var frame = uniforms.settings.baseline_start; frame < uniforms.settings.baseline_end; frame++) {
        base = base + select(0.0, difference(voxel, frame), finite);
    }
    base = base * uniforms.settings.inv_baseline;
    let first = select(0.0, first_sample(voxel), finite);
    let s0 = uniforms.settings.sign * (first + base + uniforms.settings.offset);

    var usable = true;
    var t10 = uniforms.settings.t10;
    if uniforms.settings.has_t10 != 0u {
        let value = extra_value(0u, voxel);
        usable = value >= uniforms.settings.shortest_t10;
        t10 = select(1.0, value, usable);
    }
    var versine = uniforms.settings.versine;
    if uniforms.settings.has_b1 != 0u {
        let value = extra_value(uniforms.settings.b1_layer, voxel);
        let b1_usable = value > 0.0 && value < uniforms.settings.largest_b1;
        usable = usable && b1_usable;
        versine = sine_and_versine(select(1.0, value, b1_usable) * uniforms.settings.half_angle).y;
    }
    let positive = law == ABSOLUTE || s0 > SMALLEST_BASELINE;
    let readable = finite && usable;
    let valid = readable && positive;
    let inv_s0 = 1.0 / select(1.0, s0, positive && law != ABSOLUTE);

    var q0 = 0.0;
    var linear = 1.0;
    if law == SPOILED_GRADIENT_ECHO {
        q0 = exp_m1(uniforms.settings.tr / t10);
    } else if law == RELATIVE {
        linear = uniforms.settings.factor / t10;
    } else {
        linear = uniforms.settings.factor;
    }
    let gain = q0 * (q0 + versine) / (1.0 + q0);
    var failed = false;
    for (var frame = 0u; frame < uniforms.slab.frames; frame++) {
        let sample = select(0.0, difference(voxel, frame), finite);
        let e = uniforms.settings.sign * (sample - base) * inv_s0;
        var value = linear * e;
        var invertible = true;
        if law == SPOILED_GRADIENT_ECHO {
            let rest = versine - e * q0;
            let reached = rest > 0.0;
            let growth = gain * e / select(1.0, rest, reached);
            invertible = reached && growth > -1.0;
            value = uniforms.settings.factor * ln_1p(select(0.0, growth, invertible));
        }
        failed = failed || !invertible;
        write_number(frame, voxel, value, valid && invertible);
    }
    var bits = select(0u, NON_FINITE_SAMPLE, !finite);
    bits |= select(0u, BASELINE_NOT_POSITIVE, readable && !positive);
    bits |= select(0u, NOT_INVERTIBLE, valid && failed);
    bits |= select(0u, MAP_NOT_USABLE, finite && !usable);
    write_status(voxel, bits);
}
