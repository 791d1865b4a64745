// The kernel that tests the GPU engine: it reads and writes everything that a kernel can.

struct Settings {
    slope: f32,
    intercept: f32,
    layers: u32,
    reserved: u32,
}

struct Uniforms {
    slab: Slab,
    settings: Settings,
}

@group(0) @binding(0) var<uniform> uniforms: Uniforms;

override DOUBLED: bool = false;

const NON_FINITE_SAMPLE = 2u;

struct Sums {
    weighted: f32,
    largest: f32,
    frame: u32,
    finite: bool,
}

fn sums_of(voxel: u32) -> Sums {
    var sums = Sums(0.0, 0.0, 0u, all_finite(voxel));
    for (var frame = 0u; frame < uniforms.slab.frames; frame++) {
        let change = difference(voxel, frame);
        sums.weighted += tables[frame] * change;
        if change > sums.largest {
            sums.largest = change;
            sums.frame = frame;
        }
    }
    return sums;
}

fn write_sums(voxel: u32, sums: Sums) {
    let mean = uniforms.settings.slope * (first_sample(voxel) + sums.weighted) + uniforms.settings.intercept;
    write_number(0u, voxel, select(mean, 2.0 * mean, DOUBLED), sums.finite);
    write_number(1u, voxel, difference(voxel, uniforms.slab.frames - 1u), sums.finite);
    write_bits(2u, voxel, select(0u, sums.frame + 1u, sums.finite));
    var along = 0.0;
    for (var layer = 0u; layer < uniforms.settings.layers; layer++) {
        along += f32(layer + 1u) * extra_value(layer, voxel);
    }
    write_number(3u, voxel, along, true);
    for (var frame = 0u; frame < uniforms.slab.frames; frame++) {
        write_number(4u + frame, voxel, difference(voxel, frame), sums.finite);
    }
    write_status(voxel, select(NON_FINITE_SAMPLE, 0u, sums.finite));
}

@compute @workgroup_size(64)
fn at_once(@builtin(global_invocation_id) id: vec3<u32>) {
    let voxel = voxel_of(id);
    if is_outside(voxel) { return; }
    write_sums(voxel, sums_of(voxel));
}

@compute @workgroup_size(64)
fn in_pairs(@builtin(global_invocation_id) id: vec3<u32>) {
    let first = first_voxel_of(id);
    if is_outside(first) { return; }
    for (var k = 0u; k < 2u && !is_outside(first + k); k++) {
        var sums = sums_of(first + k);
        sums.weighted = 0.0;
        for (var frame = 0u; frame < uniforms.slab.frames; frame++) {
            let change = difference_of_words(stored_words(first, frame)[k], stored_words(first, 0u)[k], frame);
            sums.weighted += tables[frame] * change;
        }
        write_sums(first + k, sums);
    }
}

@compute @workgroup_size(64)
fn gather(@builtin(global_invocation_id) id: vec3<u32>) {
    let voxel = voxel_of(id);
    if is_outside(voxel) { return; }
    let sums = sums_of(voxel);
    write_state(0u, voxel, bitcast<u32>(sums.weighted));
    write_state(1u, voxel, sums.frame);
    write_state(2u, voxel, u32(sums.finite));
}

@compute @workgroup_size(64)
fn finish(@builtin(global_invocation_id) id: vec3<u32>) {
    let voxel = voxel_of(id);
    if is_outside(voxel) { return; }
    write_sums(voxel, Sums(bitcast<f32>(read_state(0u, voxel)), 0.0, read_state(1u, voxel), read_state(2u, voxel) != 0u));
}
