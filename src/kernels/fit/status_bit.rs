//! The status bits of fits: which parameter is at which bound.

use super::Parameter;

const FIRST: u32 = 15;

/// Place of a bounded parameter among the bits; derived ones have none.
const fn place(parameter: Parameter) -> Option<u32> {
    match parameter {
        Parameter::Ktrans => Some(0),
        Parameter::ExtravascularVolume => Some(1),
        Parameter::PlasmaVolume => Some(2),
        Parameter::PlasmaFlow => Some(3),
        Parameter::ExchangeFlow => Some(4),
        Parameter::Volume => Some(5),
        Parameter::Delay => Some(6),
        Parameter::Kep | Parameter::ExtractionFraction => None,
    }
}

/// The bit that says that a parameter is at its lower bound, as a word; 0 for derived ones.
pub const fn at_lower_bound(parameter: Parameter) -> u32 {
    match place(parameter) {
        Some(place) => 1 << (FIRST + 2 * place),
        None => 0,
    }
}

/// The bit that says that a parameter is at its upper bound, as a word; 0 for derived ones.
pub const fn at_upper_bound(parameter: Parameter) -> u32 {
    at_lower_bound(parameter) << 1
}

/// Each with its meaning.
pub const MEANINGS: &[(u32, &str)] = &[
    (at_lower_bound(Parameter::Ktrans), "ktrans at its lower bound"),
    (at_upper_bound(Parameter::Ktrans), "ktrans at its upper bound"),
    (at_lower_bound(Parameter::ExtravascularVolume), "ve at its lower bound"),
    (at_upper_bound(Parameter::ExtravascularVolume), "ve at its upper bound"),
    (at_lower_bound(Parameter::PlasmaVolume), "vp at its lower bound"),
    (at_upper_bound(Parameter::PlasmaVolume), "vp at its upper bound"),
    (at_lower_bound(Parameter::PlasmaFlow), "fp at its lower bound"),
    (at_upper_bound(Parameter::PlasmaFlow), "fp at its upper bound"),
    (at_lower_bound(Parameter::ExchangeFlow), "ps at its lower bound"),
    (at_upper_bound(Parameter::ExchangeFlow), "ps at its upper bound"),
    (at_lower_bound(Parameter::Volume), "v at its lower bound"),
    (at_upper_bound(Parameter::Volume), "v at its upper bound"),
    (at_lower_bound(Parameter::Delay), "delay at its lower bound"),
    (at_upper_bound(Parameter::Delay), "delay at its upper bound"),
];
