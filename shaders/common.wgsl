// What every kernel has: the bindings, the slab in hand, and how samples are read and results written.
//
// A kernel's text follows this one. It declares
//     struct Settings { ... }
//     struct Uniforms { slab: Slab, settings: Settings }
//     @group(0) @binding(0) var<uniform> uniforms: Uniforms;
// and entry points that begin with
//     let voxel = voxel_of(id);                        // @builtin(global_invocation_id) id: vec3<u32>
//     if is_outside(voxel) { return; }
// or, with two voxels per thread, with `first_voxel_of` and a look whether the second one is outside.
//
// Loops: software Vulkan of Mesa 22.3.6 stops every loop without a word after 65,535 turns per invocation, all loops
// together. `all_finite` takes one turn per frame for floats and none for integers.

// The slab in hand; the Rust text (src/engine/gpu/slabs.rs) has the same fields, which a test compares.
struct Slab {
    // Voxels of this slab: threads beyond them do nothing.
    voxels: u32,
    // Frames of the series.
    frames: u32,
    // Words of `samples` from one frame to the next.
    frame_stride_words: u32,
    // Words of `outputs` from one row to the next.
    output_stride: u32,
    // Numbers of `extra` from one layer to the next.
    extra_stride: u32,
    // Words of `state` from one word of a voxel to its next.
    state_stride: u32,
    // Voxels that one row of workgroups covers: a dispatch has at most 65,535 workgroups a side, so it is folded.
    voxels_per_row: u32,
    // The word written for "no number": WGSL forbids a NaN in the text.
    nan_bits: u32,
    reserved_a: vec4<u32>,
    reserved_b: vec4<u32>,
}

// How samples are stored: 0 u8, 1 i8, 2 u16, 3 i16, 4 u32, 5 i32, 6 f32; 7 f32 whose frame 0 holds the sample and whose
// other frames hold differences from it (what 64-bit samples become on the host, so that nothing is lost before the
// subtraction).
override SAMPLE_TYPE: u32 = 6u;

@group(0) @binding(1) var<storage, read> samples: array<u32>;
@group(0) @binding(2) var<storage, read> tables: array<f32>;
@group(0) @binding(3) var<storage, read> extra: array<f32>;
@group(0) @binding(4) var<storage, read_write> outputs: array<u32>;
@group(0) @binding(5) var<storage, read_write> status: array<u32>;
@group(0) @binding(6) var<storage, read_write> state: array<u32>;

// The voxel of a thread, in the slab.
fn voxel_of(id: vec3<u32>) -> u32 {
    return id.y * uniforms.slab.voxels_per_row + id.x;
}

// The first of the two voxels of a thread, an even one, for kernels whose program says two per thread. The second may be
// outside; its samples can be read then, too, and mean nothing.
fn first_voxel_of(id: vec3<u32>) -> u32 {
    return id.y * uniforms.slab.voxels_per_row + 2u * id.x;
}

// Whether a thread has no voxel.
fn is_outside(voxel: u32) -> bool {
    return voxel >= uniforms.slab.voxels;
}

// A sample from the upper bits of a word, extended to 32 bits; the lower bits may hold anything.
fn extended(upper: u32, shift: u32, is_unsigned: bool) -> u32 {
    return select(bitcast<u32>(bitcast<i32>(upper) >> shift), upper >> shift, is_unsigned);
}

// A sample as one word: integers extended to 32 bits with their sign, floats as their bits.
fn stored_word(voxel: u32, frame: u32) -> u32 {
    let row = frame * uniforms.slab.frame_stride_words;
    switch SAMPLE_TYPE {
        case 0u, 1u: {
            let word = samples[row + (voxel >> 2u)];
            let upper = word << (24u - ((voxel & 3u) << 3u));
            return extended(upper, 24u, SAMPLE_TYPE == 0u);
        }
        case 2u, 3u: {
            let word = samples[row + (voxel >> 1u)];
            let upper = word << (16u - ((voxel & 1u) << 4u));
            return extended(upper, 16u, SAMPLE_TYPE == 2u);
        }
        default: {
            return samples[row + voxel];
        }
    }
}

// The words of two neighbours as `stored_word` gives them, the first an even voxel: samples of up to 16 bits are fetched
// together.
fn stored_words(first: u32, frame: u32) -> vec2<u32> {
    let row = frame * uniforms.slab.frame_stride_words;
    switch SAMPLE_TYPE {
        case 0u, 1u: {
            let word = samples[row + (first >> 2u)];
            let lower = word >> ((first & 2u) << 3u);
            let is_unsigned = SAMPLE_TYPE == 0u;
            return vec2<u32>(extended(lower << 24u, 24u, is_unsigned), extended(lower << 16u, 24u, is_unsigned));
        }
        case 2u, 3u: {
            let word = samples[row + (first >> 1u)];
            let is_unsigned = SAMPLE_TYPE == 2u;
            return vec2<u32>(extended(word << 16u, 16u, is_unsigned), extended(word, 16u, is_unsigned));
        }
        default: {
            return vec2<u32>(samples[row + first], samples[row + first + 1u]);
        }
    }
}

// Whether the bits are those of a finite number. By bits: WGSL may assume that NaN and infinity never occur, and drivers
// get comparisons with them wrong.
fn is_finite_word(word: u32) -> bool {
    return (word & 0x7f800000u) != 0x7f800000u;
}

// The number that a word from `stored_word` stands for; 0 if it isn't finite.
fn number_of_word(word: u32) -> f32 {
    switch SAMPLE_TYPE {
        case 0u, 2u, 4u: {
            return f32(word);
        }
        case 1u, 3u, 5u: {
            return f32(bitcast<i32>(word));
        }
        default: {
            return bitcast<f32>(select(0u, word, is_finite_word(word)));
        }
    }
}

// The difference of the samples that two words stand for, the second that of frame 0, `frame` that of the first: for
// kernels that keep the first word at hand. See `difference`.
fn difference_of_words(word: u32, first: u32, frame: u32) -> f32 {
    switch SAMPLE_TYPE {
        case 0u, 1u, 2u, 3u: {
            return f32(bitcast<i32>(word) - bitcast<i32>(first));
        }
        case 4u, 5u: {
            // With the sign bit flipped, signed numbers are ordered as unsigned ones, and differ by as much.
            let flip = select(0u, 0x80000000u, SAMPLE_TYPE == 5u);
            let a = word ^ flip;
            let b = first ^ flip;
            let magnitude = f32(max(a, b) - min(a, b));
            return select(magnitude, -magnitude, a < b);
        }
        case 7u: {
            // The word is the difference already.
            let valid = is_finite_word(word) && is_finite_word(first) && frame != 0u;
            return bitcast<f32>(select(0u, word, valid));
        }
        default: {
            let valid = is_finite_word(word) && is_finite_word(first);
            return bitcast<f32>(select(0u, word, valid)) - bitcast<f32>(select(0u, first, valid));
        }
    }
}

// The first sample of a voxel, in stored units; 0 if it isn't finite.
fn first_sample(voxel: u32) -> f32 {
    return number_of_word(stored_word(voxel, 0u));
}

// A sample minus the voxel's first one, in stored units: subtracted as integers where they are such, so exact, then
// rounded once; 0 if either isn't finite.
fn difference(voxel: u32, frame: u32) -> f32 {
    return difference_of_words(stored_word(voxel, frame), stored_word(voxel, 0u), frame);
}

// Whether all samples of a voxel are finite, and none differs from the first by 2^40 or more, where later arithmetic would
// overflow. Integers of up to 32 bits always are.
fn all_finite(voxel: u32) -> bool {
    var finite = true;
    if SAMPLE_TYPE >= 6u {
        let first = stored_word(voxel, 0u);
        for (var frame = 0u; frame < uniforms.slab.frames; frame++) {
            let word = stored_word(voxel, frame);
            let difference_bits = bitcast<u32>(difference_of_words(word, first, frame)) & 0x7fffffffu;
            finite = finite && is_finite_word(word) && difference_bits < 0x53800000u;
        }
    }
    return finite;
}

// A map that goes with the series.
fn extra_value(layer: u32, voxel: u32) -> f32 {
    return extra[layer * uniforms.slab.extra_stride + voxel];
}

// Writes a number into a row, NaN where it isn't valid.
fn write_number(row: u32, voxel: u32, value: f32, valid: bool) {
    outputs[row * uniforms.slab.output_stride + voxel] = select(uniforms.slab.nan_bits, bitcast<u32>(value), valid);
}

// Writes a label or bits into a row.
fn write_bits(row: u32, voxel: u32, word: u32) {
    outputs[row * uniforms.slab.output_stride + voxel] = word;
}

// Writes the status of a voxel.
fn write_status(voxel: u32, word: u32) {
    status[voxel] = word;
}

// What an earlier entry point kept for a voxel.
fn read_state(word: u32, voxel: u32) -> u32 {
    return state[word * uniforms.slab.state_stride + voxel];
}

// Keeps a word of a voxel for a later entry point.
fn write_state(word: u32, voxel: u32, value: u32) {
    state[word * uniforms.slab.state_stride + voxel] = value;
}

