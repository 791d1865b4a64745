//! From a fit to maps: parameters, standard errors, goodness, status.

#![expect(clippy::needless_range_loop, reason = "formulas of matrices and frames are read by their indices")]

use super::super::agreement::{Fits, Rows as FitRows, agreement};
use super::super::goodness::{goodness, invert, is_not_identifiable};
use super::super::outputs::slot;
use super::super::refinement::Problem as _;
use super::super::{Parameter, status_bit};
use super::linear::{self, LinearTables};
use super::memory::{Work, of_block, read, scratch};
use super::pass::{Exchange, first_four};
use super::reference::{Fit, descend};
use super::tables::{PARAMETERS, Tables};
use super::variables::Terms;
use crate::kernel::lanes::{Double, Lanes, Numbers as _};
use crate::kernel::{Block, Curve, Rows};
use crate::status;

/// A value within this share of a bound is at it.
const AT_BOUND: f64 = 2e-6;

/// Computes every row of blocks of voxels.
#[inline(always)]
pub(super) fn evaluate<L: Lanes>(
    lanes: L,
    t: &Tables,
    blocks: &[Block<'_, L>],
    memory: &mut [L::F],
    rows: &mut Rows<'_, L>,
) {
    if let Some(tables) = &t.linear {
        evaluate_linear(lanes, t, tables, blocks, memory, rows);
    } else if t.delay.own {
        evaluate_with::<L, 5>(lanes, t, blocks, memory, rows);
    } else {
        evaluate_with::<L, 4>(lanes, t, blocks, memory, rows);
    }
}

#[inline(never)]
fn evaluate_with<L: Lanes, const P: usize>(
    lanes: L,
    t: &Tables,
    blocks: &[Block<'_, L>],
    memory: &mut [L::F],
    rows: &mut Rows<'_, L>,
) {
    lanes.within(
        #[inline(always)]
        || evaluate_within::<L, P>(lanes, t, blocks, memory, rows),
    );
}

#[inline(always)]
fn evaluate_within<L: Lanes, const P: usize>(
    lanes: L,
    t: &Tables,
    blocks: &[Block<'_, L>],
    memory: &mut [L::F],
    rows: &mut Rows<'_, L>,
) {
    let (memory, of_blocks) = memory.split_at_mut(scratch(t));
    let mut work = Work::new(lanes, t, memory);
    let mut fits: Vec<Fit<'_, L, P>> = Vec::with_capacity(blocks.len());
    for (block, memory) in blocks.iter().zip(of_blocks.chunks_exact_mut(of_block(t))) {
        fits.push(Fit::begin(lanes, t, block, &mut work, memory));
    }
    descend(lanes, t, &mut fits, &mut work);
    for (block, fit) in blocks.iter().zip(&fits) {
        write(lanes, t, fit, block.curve.finite, &mut work, &mut rows.of(block));
    }
}

#[inline(never)]
fn evaluate_linear<L: Lanes>(
    lanes: L,
    t: &Tables,
    tables: &LinearTables,
    blocks: &[Block<'_, L>],
    memory: &mut [L::F],
    rows: &mut Rows<'_, L>,
) {
    lanes.within(
        #[inline(always)]
        || {
            let (memory, of_blocks) = memory.split_at_mut(scratch(t));
            let mut work = Work::new(lanes, t, memory);
            for block in blocks {
                let mut fit = Fit::<L, 4>::begin(lanes, t, block, &mut work, &mut of_blocks[..of_block(t)]);
                linear::fit(lanes, t, tables, &mut fit, &mut work);
                write(lanes, t, &fit, block.curve.finite, &mut work, &mut rows.of(block));
            }
        },
    );
}

/// Writes the rows of one block.
#[inline(always)]
fn write<L: Lanes, const P: usize>(
    lanes: L,
    t: &Tables,
    fit: &Fit<'_, L, P>,
    finite: L::M,
    work: &mut Work<'_, L::F>,
    rows: &mut Rows<'_, L>,
) {
    let zero = lanes.splat(0.0);
    let one = lanes.splat(1.0);
    let Fit { fitted: f, samples, delay_free, .. } = fit;
    let delay_free = *delay_free;
    let usable = finite & fit.has_curve;
    let mut bits =
        lanes.bits(!finite, status::NON_FINITE_SAMPLE) | lanes.bits(finite & !f.converged, status::NOT_CONVERGED);

    // Goodness and curves.
    let count = lanes.count(PARAMETERS.len());
    let free = lanes.select(delay_free, count + one, count);
    let g = goodness(lanes, t.n, free, f.sse, samples.squares, samples.squares_about_mean);
    bits = bits | lanes.bits(usable & g.not_enhancing, status::NOT_ENHANCING);
    let (sse, r_squared, aic) = (t.plan.row(slot::SSE), t.plan.row(slot::R_SQUARED), t.plan.row(slot::AIC));
    for (row, value, valid) in
        [(sse, g.sse, usable), (r_squared, g.r_squared, usable & g.varies), (aic, g.aic, usable & g.has_aic)]
    {
        if let Some(row) = row {
            rows.set(row, value, valid);
        }
    }
    let (fitted_row, residual_row) = (t.plan.row(slot::FITTED_CURVE), t.plan.row(slot::RESIDUAL));
    if fitted_row.is_some() || residual_row.is_some() {
        work.c.copy_from_slice(fit.c);
        Exchange::<_, P> { t, work, keep: true }.equations(lanes, &f.parameters, &f.r);
        for i in 0..t.n {
            let fitted = work.fitted[i];
            if let Some(row) = fitted_row {
                rows.set(row + t.row_of_frame[i], fitted, usable);
            }
            if let Some(row) = residual_row {
                rows.set(row + t.row_of_frame[i], work.c[i] - fitted, usable);
            }
        }
    }
    if let Some(row) = t.plan.row(slot::ITERATIONS) {
        rows.set(row, f.turns, finite);
    }

    // Parameters with their gradients by the variables y = 1 / F_p and Ktrans (or 1 / PS, where exchange is fast).
    let mut r = f.r;
    if P == 5 {
        for i in 0..P {
            let alone = if i + 1 == P { one } else { zero };
            r[i][P - 1] = lanes.select(delay_free, r[i][P - 1], alone);
        }
    }
    let inverse = invert(lanes, &r);
    let parameters = first_four(&f.parameters);
    let gradients = Terms::of(lanes, t, parameters).gradients(lanes, parameters);
    let (flow, exchange) = (parameters[0], parameters[1]);
    let sum = one / (flow + exchange);
    let extraction = exchange * sum;
    let mut unclear = !fit.has_curve;
    for (j, parameter) in PARAMETERS.iter().chain(&[Parameter::ExtractionFraction]).enumerate() {
        let mut gradient = [zero; P];
        // E = PS / (F_p + PS).
        for k in 0..4 {
            gradient[k] =
                if j < 4 { gradients[j][k] } else { (gradients[1][k] * flow - gradients[0][k] * exchange) * sum * sum };
        }
        let value = if j < 4 { parameters[j] } else { extraction };
        let unit = lanes.splat(1.0 / parameter.internal_per_unit());
        if let Some(row) = t.plan.row(slot::PARAMETER + parameter.index()) {
            rows.set(row, value * unit, finite & fit.has[j]);
        }
        let error = inverse.standard_error(lanes, gradient, g.variance);
        let has_error = usable & inverse.regular;
        if let Some(row) = t.plan.row(slot::STANDARD_ERROR + parameter.index()) {
            rows.set(row, error * unit, has_error);
        }
        if j < PARAMETERS.len() && t.linear.is_none() {
            let (lower, upper) = t.bounds[j];
            let low = value.le(lanes.splat(lower * (1.0 + AT_BOUND)));
            let high = value.ge(lanes.splat(upper * (1.0 - AT_BOUND)));
            bits = bits
                | lanes.bits(finite & low, status::AT_LOWER_BOUND | status_bit::at_lower_bound(*parameter))
                | lanes.bits(finite & high, status::AT_UPPER_BOUND | status_bit::at_upper_bound(*parameter));
        }
        if j < PARAMETERS.len() && t.needs_curves {
            unclear = unclear | !has_error | is_not_identifiable(lanes, value, error);
        }
    }
    let delay = if P == 5 { f.parameters[P - 1] } else { lanes.splat(t.fixed_delay) };
    if let Some(row) = t.plan.row(slot::PARAMETER + Parameter::Delay.index()) {
        rows.set(row, delay, finite);
    }
    if P == 5 {
        let mut gradient = [zero; P];
        gradient[P - 1] = one;
        if let Some(row) = t.plan.row(slot::STANDARD_ERROR + Parameter::Delay.index()) {
            let error = inverse.standard_error(lanes, gradient, g.variance);
            rows.set(row, error, finite & delay_free & inverse.regular);
        }
        let (lower, upper) = t.delay.bounds;
        let low = finite & delay_free & delay.le(lanes.splat(lower));
        let high = finite & delay_free & delay.ge(lanes.splat(upper));
        bits = bits
            | lanes.bits(low, status::AT_LOWER_BOUND | status_bit::at_lower_bound(Parameter::Delay))
            | lanes.bits(high, status::AT_UPPER_BOUND | status_bit::at_upper_bound(Parameter::Delay));
    }
    bits = bits | lanes.bits(finite & unclear, status::NOT_IDENTIFIABLE);
    rows.set_bits(t.plan.rows, bits);
}

/// Whether an engine's rows of one voxel agree with the definition's.
pub(super) fn judge(t: &Tables, curve: &Curve<'_, Double>, engine: &[f64], definition: &[f64]) -> Vec<bool> {
    let mut memory = vec![0.0; scratch(t)];
    let mut work = Work::new(Double, t, &mut memory);
    let samples = read(Double, t, curve, work.c);
    let peak = work.c.iter().fold(0.0f64, |peak, c| peak.max(c.abs()));
    let best = sum_of(t, definition, &mut work);
    let found = sum_of(t, engine, &mut work);
    let fits = Fits {
        rows: FitRows::of(&t.plan, &t.row_of_frame),
        found,
        best,
        squares: samples.squares,
        squares_about_mean: samples.squares_about_mean,
        peak,
        samples: t.n,
        valid: curve.finite,
        linear: t.linear.is_some(),
    };
    agreement(&fits, engine, definition)
}

/// The sum of squares of these rows' parameters in f64.
fn sum_of(t: &Tables, rows: &[f64], work: &mut Work<'_, f64>) -> Option<f64> {
    let mut parameters = [0.0; 5];
    for (value, parameter) in parameters.iter_mut().zip(PARAMETERS.iter().chain(&[Parameter::Delay])) {
        if *parameter == Parameter::Delay && !t.delay.own {
            continue;
        }
        *value = rows[t.plan.row(slot::PARAMETER + parameter.index())?] * parameter.internal_per_unit();
    }
    // A flow that was rounded to 0 divides.
    parameters[0] = parameters[0].max(t.bounds[0].0);
    if parameters.iter().any(|value| !value.is_finite() || t.linear.is_some() && *value < 0.0) {
        return None;
    }
    let [flow, exchange, plasma, space, _] = parameters;
    let sse = if t.delay.own {
        let r = std::array::from_fn(|i| std::array::from_fn(|j| if i == j { 1.0 } else { 0.0 }));
        Exchange::<_, 5> { t, work, keep: false }.equations(Double, &parameters, &r).sse
    } else {
        let r = std::array::from_fn(|i| std::array::from_fn(|j| if i == j { 1.0 } else { 0.0 }));
        Exchange::<_, 4> { t, work, keep: false }.equations(Double, &[flow, exchange, plasma, space], &r).sse
    };
    Some(sse)
}
