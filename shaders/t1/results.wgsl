// What all T1 kernels give: rows, their standard errors and the status. The Rust text (src/kernels/t1/results.rs) has the
// same names, order and guards.

const NON_FINITE_SAMPLE: u32 = 2u;
const AT_LOWER_BOUND: u32 = 1024u;
const AT_UPPER_BOUND: u32 = 2048u;
const NOT_CONVERGED: u32 = 4096u;
const NOT_IDENTIFIABLE: u32 = 8192u;
const NO_DEGREES_OF_FREEDOM: u32 = 32768u;
const NO_SIGNAL: u32 = 65536u;
const NO_VARIATION: u32 = 131072u;
const MAP_NOT_USABLE: u32 = 262144u;

const SIGNAL_ABOVE: f32 = 1e-15;
const SIGNAL_BELOW: f32 = 1e15;
const CONVERGED: f32 = 1e-3;

// What a fit found, with the samples divided by `unit`.
struct Estimate {
    unit: f32,
    signal: bool,
    usable: bool,
    found: bool,
    at_shortest: bool,
    at_longest: bool,
    converged: bool,
    informative: bool,
    t1: f32,
    t1_per_sigma: f32,
    m0: f32,
    m0_per_sigma: f32,
    sse: f32,
    total: f32,
}

// Whether the largest magnitude is that of a signal.
fn is_signal(largest: f32) -> bool {
    return largest > SIGNAL_ABOVE && largest < SIGNAL_BELOW;
}

fn when(condition: bool, bits: u32) -> u32 {
    return select(0u, bits, condition);
}

// Writes the rows and the status.
fn write_results(voxel: u32, finite: bool, e: Estimate) {
    let readable = finite && e.usable;
    let at_bound = e.at_shortest || e.at_longest;
    let fitted = readable && e.signal && e.found;
    let valid = fitted && (e.informative || at_bound);
    let unit = select(1.0, e.unit, e.signal);

    var sigma = sqrt(e.sse * uniforms.settings.inv_freedom);
    var noise_known = uniforms.settings.has_freedom != 0u;
    if uniforms.settings.noise_from == 1u {
        sigma = uniforms.settings.noise_value / unit;
        noise_known = true;
    } else if uniforms.settings.noise_from == 2u {
        let value = extra_value(uniforms.settings.noise_layer, voxel);
        sigma = value / unit;
        noise_known = value > 0.0;
    }
    let t1 = select(1.0, e.t1, valid);
    let t1_se = e.t1_per_sigma * sigma;
    let known = valid && noise_known && e.informative && !at_bound;
    write_number(0u, voxel, t1, valid);
    write_number(1u, voxel, t1_se, known);
    write_number(2u, voxel, 1.0 / t1, valid);
    write_number(3u, voxel, t1_se / (t1 * t1), known);
    write_number(4u, voxel, e.m0 * unit, valid);
    write_number(5u, voxel, e.m0_per_sigma * sigma * unit, known);
    write_number(6u, voxel, e.sse * unit * unit, valid);
    let varied = e.total > 0.0;
    write_number(7u, voxel, 1.0 - e.sse / select(1.0, e.total, varied), valid && varied);

    let vague = (known && t1_se > 0.5 * t1) || (fitted && !valid);
    let no_freedom = uniforms.settings.noise_from == 0u && valid && !noise_known;
    let unusable = finite && !(e.usable && (noise_known || uniforms.settings.noise_from != 2u));
    let bits = when(!finite, NON_FINITE_SAMPLE)
        | when(readable && e.signal && e.at_shortest, AT_LOWER_BOUND)
        | when(readable && e.signal && e.at_longest, AT_UPPER_BOUND)
        | when(valid && !e.converged, NOT_CONVERGED)
        | when(vague, NOT_IDENTIFIABLE)
        | when(no_freedom, NO_DEGREES_OF_FREEDOM)
        | when(readable && !(e.signal && (e.found || at_bound)), NO_SIGNAL)
        | when(valid && !varied, NO_VARIATION)
        | when(unusable, MAP_NOT_USABLE);
    write_status(voxel, bits);
}
