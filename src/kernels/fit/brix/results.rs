//! From a fit to maps: parameters, standard errors, goodness, status.

#![expect(clippy::needless_range_loop, reason = "formulas of matrices and frames are read by their indices")]

use super::super::agreement::{DELAY, Fits, ParameterRows, Rows as FitRows, agreement};
use super::super::goodness::{goodness, invert, is_not_identifiable};
use super::super::refinement::{Problem as _, Refined};
use super::descents::{Fit, descend, finish};
use super::reference::{Brix, Work, read, scratch};
use super::status_bit;
use super::tables::{Tables, slot};
use crate::kernel::lanes::{Double, Lanes, Numbers as _};
use crate::kernel::{Block, Curve, Rows};
use crate::status;

/// A value within this share of a bound is at it.
const AT_BOUND: f64 = 2e-6;
/// Units of the maps per unit of the fit: A, k_ep and k_el in 1/min, onset.
const UNITS: [f64; 4] = [1.0, 60.0, 60.0, 1.0];

/// Computes every row of blocks of voxels.
#[inline(never)]
pub(super) fn evaluate<L: Lanes>(
    lanes: L,
    t: &Tables,
    blocks: &[Block<'_, L>],
    memory: &mut [L::F],
    rows: &mut Rows<'_, L>,
) {
    lanes.within(
        #[inline(always)]
        || evaluate_within(lanes, t, blocks, memory, rows),
    );
}

#[inline(always)]
fn evaluate_within<L: Lanes>(
    lanes: L,
    t: &Tables,
    blocks: &[Block<'_, L>],
    memory: &mut [L::F],
    rows: &mut Rows<'_, L>,
) {
    let (memory, of_blocks) = memory.split_at_mut(scratch(t));
    let mut work = Work::new(t, memory);
    let mut fits = Vec::with_capacity(blocks.len());
    for (block, y) in blocks.iter().zip(of_blocks.chunks_exact_mut(t.n)) {
        fits.push(Fit::begin(lanes, t, block, &mut work, y));
    }
    descend(lanes, t, &mut fits, &mut work);
    for (block, fit) in blocks.iter().zip(&fits) {
        let fitted = finish(lanes, t, fit, &mut work);
        write(lanes, t, &block.curve, fit, &fitted, &mut work, &mut rows.of(block));
    }
}

/// Writes the rows of one block.
#[inline(always)]
fn write<L: Lanes>(
    lanes: L,
    t: &Tables,
    curve: &Curve<'_, L>,
    fit: &Fit<'_, L>,
    f: &Refined<L::F, L::M, 4>,
    work: &mut Work<'_, L::F>,
    rows: &mut Rows<'_, L>,
) {
    let zero = lanes.splat(0.0);
    let one = lanes.splat(1.0);
    let (samples, free) = (&fit.samples, fit.free);
    let valid = samples.positive;
    let mut bits = lanes.bits(!curve.finite, status::NON_FINITE_SAMPLE)
        | lanes.bits(curve.finite & !valid, status::BASELINE_NOT_POSITIVE)
        | lanes.bits(valid & !f.converged, status::NOT_CONVERGED);
    let count = lanes.select(free, lanes.splat(4.0), lanes.splat(3.0));
    let g = goodness(lanes, t.n, count, f.sse, samples.squares, samples.squares_about_mean);
    bits = bits | lanes.bits(valid & g.not_enhancing, status::NOT_ENHANCING);
    for (slot, value, valid) in [
        (slot::BASELINE, samples.baseline, curve.finite),
        (slot::SSE, g.sse, valid),
        (slot::R_SQUARED, g.r_squared, valid & g.varies),
        (slot::AIC, g.aic, valid & g.has_aic),
    ] {
        if let Some(row) = t.row(slot) {
            rows.set(row, value, valid);
        }
    }
    let (fitted_row, residual_row) = (t.row(slot::FITTED_CURVE), t.row(slot::RESIDUAL));
    if fitted_row.is_some() || residual_row.is_some() {
        Brix { t, work: &mut *work, keep: true }.equations(lanes, &f.parameters, &f.r);
        for i in 0..t.n {
            if let Some(row) = fitted_row {
                rows.set(row + t.row_of_frame[i], one + work.fitted[i], valid);
            }
            if let Some(row) = residual_row {
                rows.set(row + t.row_of_frame[i], work.y[i] - work.fitted[i], valid);
            }
        }
    }
    if let Some(row) = t.row(slot::ITERATIONS) {
        rows.set(row, f.turns, valid);
    }
    let mut r = f.r;
    for i in 0..4 {
        let alone = if i == 3 { one } else { zero };
        r[i][3] = lanes.select(free, r[i][3], alone);
    }
    let inverse = invert(lanes, &r);
    let mut unclear = lanes.mask(false);
    for j in 0..4 {
        let mut gradient = [zero; 4];
        gradient[j] = one;
        let value = f.parameters[j];
        let fitted = if j < 3 { valid } else { valid & free };
        let error = inverse.standard_error(lanes, gradient, g.variance);
        let has_error = fitted & inverse.regular;
        let unit = lanes.splat(UNITS[j]);
        if let Some(row) = t.row(slot::PARAMETER + j) {
            rows.set(row, value * unit, valid);
        }
        if let Some(row) = t.row(slot::STANDARD_ERROR + j) {
            rows.set(row, error * unit, has_error);
        }
        let (lower, upper) = t.bounds[j];
        let low = fitted & value.le(lanes.splat(lower * (1.0 + AT_BOUND)));
        let high = fitted & value.ge(lanes.splat(upper * (1.0 - AT_BOUND)));
        bits = bits
            | lanes.bits(low, status::AT_LOWER_BOUND | (status_bit::FIRST_BOUND << (2 * j)))
            | lanes.bits(high, status::AT_UPPER_BOUND | (status_bit::FIRST_BOUND << (2 * j + 1)));
        if j < 3 {
            unclear = unclear | !has_error | is_not_identifiable(lanes, value, error);
        }
    }
    bits = bits | lanes.bits(valid & unclear, status::NOT_IDENTIFIABLE);
    rows.set_bits(t.rows, bits);
}

/// Whether an engine's rows of one voxel agree with the definition's.
pub(super) fn judge(t: &Tables, curve: &Curve<'_, Double>, engine: &[f64], definition: &[f64]) -> Vec<bool> {
    let mut memory = vec![0.0; scratch(t)];
    let mut work = Work::new(t, &mut memory);
    let samples = read(Double, t, curve, work.y);
    let peak = work.y.iter().fold(0.0f64, |peak, y| peak.max(y.abs()));
    let best = sum_of(t, definition, &mut work);
    let found = sum_of(t, engine, &mut work);
    let row = |j: usize| ParameterRows {
        value: t.row(slot::PARAMETER + j),
        error: t.row(slot::STANDARD_ERROR + j),
        absolute: if j == 3 { DELAY } else { 0.0 },
    };
    let curves = [slot::FITTED_CURVE, slot::RESIDUAL].into_iter().filter_map(|slot| t.row(slot));
    let rows = FitRows {
        parameters: (0..4).map(row).collect(),
        sse: t.row(slot::SSE),
        r_squared: t.row(slot::R_SQUARED),
        aic: t.row(slot::AIC),
        curves: curves.flat_map(|first| t.row_of_frame.iter().map(move |frame| first + frame)).collect(),
        counts: t.row(slot::ITERATIONS),
    };
    let fits = Fits {
        rows,
        found,
        best,
        squares: samples.squares,
        squares_about_mean: samples.squares_about_mean,
        peak,
        samples: t.n,
        valid: samples.positive,
        linear: false,
    };
    agreement(&fits, engine, definition)
}

/// The sum of squares of these rows' parameters in f64; `None` if they are not all there.
fn sum_of(t: &Tables, rows: &[f64], work: &mut Work<'_, f64>) -> Option<f64> {
    let mut parameters = [0.0; 4];
    for (j, value) in parameters.iter_mut().enumerate() {
        *value = rows[t.row(slot::PARAMETER + j)?] / UNITS[j];
    }
    if parameters.iter().any(|value| !value.is_finite()) {
        return None;
    }
    let r = std::array::from_fn(|i| std::array::from_fn(|j| if i == j { 1.0 } else { 0.0 }));
    Some(Brix { t, work, keep: false }.equations(Double, &parameters, &r).sse)
}
