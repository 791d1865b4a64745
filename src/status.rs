//! Status bits: why a voxel has no value, or what to know about the one it has.

macro_rules! bits {
    ($($(#[$doc:meta])* $name:ident = $bit:literal, $text:literal;)*) => {
        $(#[doc = concat!("Bit ", stringify!($bit), ": ", $text, ".")] pub const $name: u32 = 1 << $bit;)*
        /// Every bit with its meaning, in order.
        pub const MEANINGS: &[(u32, &str)] = &[$(($name, $text)),*];
    };
}

bits! {
    OUTSIDE_MASK = 0, "outside the mask";
    NON_FINITE_SAMPLE = 1, "a sample is not finite, or 2^40 or more away from the voxel's first one";
    BASELINE_NOT_POSITIVE = 2, "baseline not positive where a ratio needs it";
    NOT_ENHANCING = 3, "not enhancing";
    GLOBAL_ONSET_USED = 4, "own onset not found, the global one used";
    NO_ONSET = 5, "no onset";
    PEAK_AT_LAST_FRAME = 6, "peak at the last frame";
    WINDOW_PAST_END = 7, "a window reaches past the end";
    NOISE_NOT_FROM_BASELINE = 8, "noise not from the baseline";
    NOT_INVERTIBLE = 9, "signal can't be inverted to concentration";
    AT_LOWER_BOUND = 10, "a parameter at its lower bound";
    AT_UPPER_BOUND = 11, "a parameter at its upper bound";
    NOT_CONVERGED = 12, "not converged";
    NOT_IDENTIFIABLE = 13, "not identifiable";
    CENSORED = 14, "level not reached when the series ends";
}
