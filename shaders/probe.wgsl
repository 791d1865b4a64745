// How many turns of a loop does the driver really take? Mesa 22.3.6 stops at 65,535 without a word.

// 0: turns wanted, 1: where a chain of numbers stands after so many steps, 2: turns taken.
@group(0) @binding(0) var<storage, read_write> words: array<u32>;

@compute @workgroup_size(1)
fn count_turns() {
    let wanted = words[0];
    let target_value = words[1];
    var number = 1u;
    var turns = 0u;
    // Only by walking the chain can it be known where it ends, so no compiler can replace the loop by its result.
    while number != target_value && turns < wanted {
        number = number * 1664525u + 1013904223u;
        number ^= number >> 15u;
        turns++;
    }
    words[2] = turns;
}
