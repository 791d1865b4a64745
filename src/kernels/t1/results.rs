//! What all T1 kernels give: rows, their standard errors and the status. `shaders/t1/results.wgsl` has the same names, order
//! and guards.

use crate::kernel::bounded::BoundedWord;
use crate::kernel::lanes::{Lanes, Numbers};
use crate::kernel::{Curve, Output, OutputKind, Rows};
use crate::quantity::Quantity;
use crate::status;

use super::{NoiseFrom, status_bit};

/// The largest magnitude among a voxel's samples must lie between these: their squares and those of amplitudes have to fit
/// into 32 bits.
const SIGNAL_ABOVE: f64 = 1e-15;
const SIGNAL_BELOW: f64 = 1e15;

/// Whether the largest magnitude is that of a signal.
#[inline(always)]
pub(super) fn is_signal<L: Lanes>(l: L, largest: L::F) -> L::M {
    largest.gt(l.splat(SIGNAL_ABOVE)) & largest.lt(l.splat(SIGNAL_BELOW))
}

/// The outputs in the order of their rows.
pub(super) fn outputs() -> Vec<Output> {
    let float = |quantity| Output { quantity, kind: OutputKind::Float };
    let mut outputs = Vec::new();
    for quantity in [Quantity::T1, Quantity::R1, Quantity::M0] {
        outputs.push(float(quantity.clone()));
        outputs.push(float(Quantity::fit_error_of(&quantity)));
    }
    outputs.push(float(Quantity::SSE));
    outputs.push(float(Quantity::R_SQUARED));
    outputs
}

/// Widens the bounds of a T1 that the samples hardly determine: where its minimum is flat to within rounding, devices may
/// end anywhere in it. Such a voxel is marked as not identifiable; its values agree if they lie within one standard error of
/// each other, and the standard errors, which only say that they are large, are not compared.
pub(super) fn widen_vague(words: &mut [BoundedWord]) {
    let bits = words[8].value as u32;
    if bits & status::NOT_IDENTIFIABLE == 0 || words[1].value.is_nan() {
        return;
    }
    for row in [0, 2, 4] {
        words[row].error += words[row + 1].value;
        words[row + 1].error = f64::MAX;
    }
}

/// What a fit found, with the samples divided by `unit` (their largest magnitude, in units of the signal).
pub(super) struct Estimate<L: Lanes> {
    /// The samples' unit.
    pub(super) unit: L::F,
    /// Whether there is a signal to fit.
    pub(super) signal: L::M,
    /// Whether the maps that go with the series can be used.
    pub(super) usable: L::M,
    /// Whether there is a T1.
    pub(super) found: L::M,
    pub(super) at_shortest: L::M,
    pub(super) at_longest: L::M,
    pub(super) converged: L::M,
    /// Whether the samples tell T1 apart from the other parameters; without, only a bound can be the answer.
    pub(super) informative: L::M,
    pub(super) t1: L::F,
    /// The standard error of T1 for a noise SD of 1 in the samples' unit.
    pub(super) t1_per_sigma: L::F,
    pub(super) m0: L::F,
    pub(super) m0_per_sigma: L::F,
    pub(super) sse: L::F,
    /// Squared differences of the samples from their mean.
    pub(super) total: L::F,
}

/// Writes the rows and the status.
#[inline(always)]
pub(super) fn write<L: Lanes>(
    l: L,
    degrees_of_freedom: usize,
    noise: NoiseFrom,
    curve: &Curve<'_, L>,
    e: &Estimate<L>,
    rows: &mut Rows<'_, L>,
) {
    let (zero, one) = (l.splat(0.0), l.splat(1.0));
    let readable = curve.finite & e.usable;
    let at_bound = e.at_shortest | e.at_longest;
    let fitted = readable & e.signal & e.found;
    let valid = fitted & (e.informative | at_bound);
    let unit = l.select(e.signal, e.unit, one);

    let (sigma, noise_known) = match noise {
        NoiseFrom::Residuals => {
            let inverse = 1.0 / degrees_of_freedom.max(1) as f64;
            ((e.sse * l.splat(inverse)).sqrt(), l.mask(degrees_of_freedom > 0))
        }
        NoiseFrom::Value(sd) => (l.splat(sd) / unit, l.mask(true)),
        NoiseFrom::Layer(layer) => (curve.extra[layer] / unit, curve.extra[layer].gt(zero)),
    };
    let t1 = l.select(valid, e.t1, one);
    let t1_se = e.t1_per_sigma * sigma;
    let known = valid & noise_known & e.informative & !at_bound;
    rows.set(0, t1, valid);
    rows.set(1, t1_se, known);
    rows.set(2, one / t1, valid);
    rows.set(3, t1_se / (t1 * t1), known);
    rows.set(4, e.m0 * unit, valid);
    rows.set(5, e.m0_per_sigma * sigma * unit, known);
    rows.set(6, e.sse * unit * unit, valid);
    let varied = e.total.gt(zero);
    rows.set(7, one - e.sse / l.select(varied, e.total, one), valid & varied);

    let vague = (known & t1_se.gt(l.splat(0.5) * t1)) | (fitted & !valid);
    let no_freedom = match noise {
        NoiseFrom::Residuals => valid & !noise_known,
        _ => l.mask(false),
    };
    let unusable = match noise {
        NoiseFrom::Layer(_) => curve.finite & !(e.usable & noise_known),
        _ => curve.finite & !e.usable,
    };
    let bits = l.bits(!curve.finite, status::NON_FINITE_SAMPLE)
        | l.bits(readable & e.signal & e.at_shortest, status::AT_LOWER_BOUND)
        | l.bits(readable & e.signal & e.at_longest, status::AT_UPPER_BOUND)
        | l.bits(valid & !e.converged, status::NOT_CONVERGED)
        | l.bits(vague, status::NOT_IDENTIFIABLE)
        | l.bits(no_freedom, status_bit::NO_DEGREES_OF_FREEDOM)
        | l.bits(readable & !(e.signal & (e.found | at_bound)), status_bit::NO_SIGNAL)
        | l.bits(valid & !varied, status_bit::NO_VARIATION)
        | l.bits(unusable, status_bit::MAP_NOT_USABLE);
    rows.set_bits(8, bits);
}
