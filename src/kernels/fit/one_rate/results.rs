//! From coefficients to maps: physical parameters, standard errors, goodness, status.

use super::super::goodness::{goodness, invert, is_not_identifiable};
use super::super::outputs::slot;
use super::super::{Method, Model, Parameter, status_bit};
use super::delayed::{Pending, descend};
use super::linear;
use super::reference::{Fit, Point, Samples, Work, companion, evaluate_point, fit, read, scratch};
use super::tables::{Companion, Tables};
use crate::kernel::lanes::{Lanes, Numbers as _};
use crate::kernel::{Block, Curve, Rows};
use crate::status;

/// A value within this share of a bound is at it.
const AT_BOUND: f64 = 2e-6;

/// At or below the first a parameter is at its lower bound, at or above the second at its upper one.
pub(super) fn thresholds(t: &Tables, parameter: Parameter) -> (f64, f64) {
    let (lower, upper) = t.parameter_bounds[parameter.index()];
    (lower * (1.0 + AT_BOUND), upper * (1.0 - AT_BOUND))
}

/// The coefficients that were found.
struct Found<F, M> {
    a: F,
    b: F,
    rate: F,
    delay: F,
    delay_free: M,
    /// Whether the rate has a value.
    has_rate: M,
}

/// A parameter with its gradient by a, b, rate and delay.
struct Value<F, M> {
    parameter: Parameter,
    value: F,
    valid: M,
    gradient: [F; 4],
}

/// Computes every row of blocks of voxels.
#[inline(always)]
pub(super) fn evaluate<L: Lanes>(
    lanes: L,
    t: &Tables,
    blocks: &[Block<'_, L>],
    memory: &mut [L::F],
    rows: &mut Rows<'_, L>,
) {
    let (memory, of_blocks) = memory.split_at_mut(scratch(t));
    let mut work = Work::new(lanes, t, memory);
    if t.delay.own {
        evaluate_delayed(lanes, t, blocks, of_blocks, &mut work, rows);
        return;
    }
    for block in blocks {
        let samples = read(lanes, t, &block.curve, &mut work);
        let rows = &mut rows.of(block);
        if t.method == Method::Linear {
            evaluate_linear(lanes, t, &block.curve, &samples, &mut work, rows);
        } else {
            let f = fit(lanes, t, &samples, &mut work);
            write_fit(lanes, t, &block.curve, &f, &samples, &work, rows);
        }
    }
}

/// The same where each voxel has its own delay; `memory` is the blocks' own.
#[inline(always)]
fn evaluate_delayed<L: Lanes>(
    lanes: L,
    t: &Tables,
    blocks: &[Block<'_, L>],
    memory: &mut [L::F],
    work: &mut Work<'_, L::F>,
    rows: &mut Rows<'_, L>,
) {
    let mut pending = Vec::with_capacity(blocks.len());
    for (block, c) in blocks.iter().zip(memory.chunks_exact_mut(t.n)) {
        let samples = read(lanes, t, &block.curve, work);
        pending.push(Pending::begin(lanes, t, block, samples, work, c));
    }
    descend(lanes, t, &mut pending, work);
    for (block, pending) in blocks.iter().zip(&pending) {
        let f = pending.fit(lanes, t, work);
        write_fit(lanes, t, &block.curve, &f, &pending.samples, work, &mut rows.of(block));
    }
}

/// The linear method on one block.
#[inline(always)]
fn evaluate_linear<L: Lanes>(
    lanes: L,
    t: &Tables,
    curve: &Curve<'_, L>,
    samples: &Samples<L::F>,
    work: &mut Work<'_, L::F>,
    rows: &mut Rows<'_, L>,
) {
    let zero = lanes.splat(0.0);
    let l = linear::fit(lanes, t, work);
    let never = lanes.mask(false);
    let found = Found { a: l.a, b: l.b, rate: l.rate, delay: zero, delay_free: never, has_rate: l.has_rate };
    let first_statistic = slot::STANDARD_ERROR;
    let (mut point, mut usable) = (None, never);
    if t.plan.asks(first_statistic..slot::COUNT) {
        // A negative rate grows without end: there is no curve to compare with.
        usable = l.has_rate & l.rate.ge(zero);
        let rate = lanes.select(usable, l.rate, zero);
        let dictionary = &t.dictionaries[0];
        let mut alone = zero;
        if t.companion != Companion::None {
            for i in 0..t.n {
                alone = alone + dictionary.companion.at(lanes, i) * work.c[i];
            }
            alone = alone * lanes.splat(dictionary.inverse_squares);
            for i in 0..t.n {
                work.rest[i] = work.c[i] - alone * dictionary.companion.at(lanes, i);
            }
        }
        let given = Some((l.a, l.b));
        point = Some(evaluate_point::<L, false>(lanes, t, dictionary, rate, zero, zero, alone, given, work));
    }
    let bits = lanes.bits(!curve.finite, status::NON_FINITE_SAMPLE)
        | lanes.bits(curve.finite & !(l.has_rate & l.rate.ge(zero)), status::NOT_IDENTIFIABLE);
    write(lanes, t, curve, &found, point.as_ref(), usable, samples, work, bits, rows);
    if let Some(row) = t.plan.row(slot::ITERATIONS) {
        rows.set(row, lanes.splat(1.0), curve.finite);
    }
}

/// Writes the rows of a nonlinear fit.
#[inline(always)]
fn write_fit<L: Lanes>(
    lanes: L,
    t: &Tables,
    curve: &Curve<'_, L>,
    f: &Fit<L::F, L::M>,
    samples: &Samples<L::F>,
    work: &Work<'_, L::F>,
    rows: &mut Rows<'_, L>,
) {
    let bits = lanes.bits(!curve.finite, status::NON_FINITE_SAMPLE)
        | lanes.bits(curve.finite & f.not_converged, status::NOT_CONVERGED);
    let (a, b) = (f.point.solution.a, f.point.solution.b);
    let has_rate = if t.model == Model::Patlak { lanes.mask(true) } else { b.gt(lanes.splat(0.0)) };
    let found = Found { a, b, rate: f.rate, delay: f.delay, delay_free: f.delay_free, has_rate };
    write(lanes, t, curve, &found, Some(&f.point), lanes.mask(true), samples, work, bits, rows);
    if let Some(row) = t.plan.row(slot::ITERATIONS) {
        rows.set(row, f.iterations, curve.finite);
    }
}

/// The model's parameters and what follows from them.
#[inline(always)]
fn values<L: Lanes>(lanes: L, t: &Tables, f: &Found<L::F, L::M>) -> [Option<Value<L::F, L::M>>; 4] {
    let zero = lanes.splat(0.0);
    let one = lanes.splat(1.0);
    let (a, b) = (f.a, f.b);
    let always = lanes.mask(true);
    let turning = f.has_rate & f.rate.abs().gt(zero);
    let rate = lanes.select(turning, f.rate, one);
    let by = |parameter, value, valid, gradient| Some(Value { parameter, value, valid, gradient });
    let volume = b / rate;
    let volume_gradient = [zero, one / rate, -(volume / rate), zero];
    match t.model {
        Model::Tofts | Model::ExtendedTofts => [
            by(Parameter::Ktrans, b, always, [zero, one, zero, zero]),
            by(Parameter::ExtravascularVolume, volume, turning, volume_gradient),
            by(Parameter::Kep, f.rate, f.has_rate, [zero, zero, one, zero]),
            if t.companion == Companion::None {
                None
            } else {
                by(Parameter::PlasmaVolume, a, always, [one, zero, zero, zero])
            },
        ],
        Model::OneCompartment => [
            by(Parameter::PlasmaFlow, b, always, [zero, one, zero, zero]),
            by(Parameter::Volume, volume, turning, volume_gradient),
            None,
            None,
        ],
        Model::Patlak => [
            by(Parameter::PlasmaVolume, a, always, [one, zero, zero, zero]),
            by(Parameter::ExchangeFlow, b, always, [zero, one, zero, zero]),
            None,
            None,
        ],
        Model::TwoCompartmentUptake | Model::TwoCompartmentExchange => {
            let flow = a + b;
            let parted = turning & b.abs().gt(zero);
            let safe_b = lanes.select(parted, b, one);
            let flows = flow.abs().gt(zero);
            let safe_flow = lanes.select(flows, flow, one);
            let ratio = a / safe_b;
            let volume = flow * flow / (safe_b * rate);
            let two = lanes.splat(2.0);
            [
                by(Parameter::PlasmaFlow, flow, always, [one, one, zero, zero]),
                by(Parameter::ExchangeFlow, ratio * flow, parted, [one + two * ratio, -(ratio * ratio), zero, zero]),
                by(
                    Parameter::PlasmaVolume,
                    volume,
                    parted,
                    [
                        two * flow / (safe_b * rate),
                        flow / (safe_b * rate) * (two - flow / safe_b),
                        -(volume / rate),
                        zero,
                    ],
                ),
                by(
                    Parameter::ExtractionFraction,
                    a / safe_flow,
                    flows,
                    [b / (safe_flow * safe_flow), -(a / (safe_flow * safe_flow)), zero, zero],
                ),
            ]
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "everything that is known of a block of voxels")]
#[inline(never)]
fn write<L: Lanes>(
    lanes: L,
    t: &Tables,
    curve: &Curve<'_, L>,
    f: &Found<L::F, L::M>,
    point: Option<&Point<L::F, L::M>>,
    usable: L::M,
    samples: &Samples<L::F>,
    work: &Work<'_, L::F>,
    bits: L::U,
    rows: &mut Rows<'_, L>,
) {
    lanes.within(
        #[inline(always)]
        || write_within(lanes, t, curve, f, point, usable, samples, work, bits, rows),
    );
}

#[expect(clippy::too_many_arguments, reason = "as above")]
#[inline(always)]
fn write_within<L: Lanes>(
    lanes: L,
    t: &Tables,
    curve: &Curve<'_, L>,
    f: &Found<L::F, L::M>,
    point: Option<&Point<L::F, L::M>>,
    usable: L::M,
    samples: &Samples<L::F>,
    work: &Work<'_, L::F>,
    mut bits: L::U,
    rows: &mut Rows<'_, L>,
) {
    let zero = lanes.splat(0.0);
    let one = lanes.splat(1.0);
    let finite = curve.finite;
    let bounded = t.method == Method::Nonlinear;
    let values = values(lanes, t, f);
    let mut statistics = None;
    if let Some(p) = point {
        let count = lanes.count(t.model.parameters().len());
        let free = lanes.select(f.delay_free, count + one, count);
        let g = goodness(lanes, t.n, free, p.sse, samples.squares, samples.squares_about_mean);
        let valid = finite & usable;
        for (slot, value, has) in [
            (slot::SSE, g.sse, valid),
            (slot::R_SQUARED, g.r_squared, valid & g.varies),
            (slot::AIC, g.aic, valid & g.has_aic),
        ] {
            if let Some(row) = t.plan.row(slot) {
                rows.set(row, value, has);
            }
        }
        bits = bits | lanes.bits(valid & g.not_enhancing, status::NOT_ENHANCING);
        // Columns that the model or the voxel doesn't have stand alone.
        let mut r = p.triangle;
        let absent = [
            lanes.mask(t.companion == Companion::None),
            lanes.mask(false),
            if t.model == Model::Patlak { lanes.mask(true) } else { !f.has_rate },
            !f.delay_free,
        ];
        for (j, absent) in absent.into_iter().enumerate() {
            for (i, row) in r.iter_mut().enumerate().take(j + 1) {
                row[j] = lanes.select(absent, if i == j { one } else { zero }, row[j]);
            }
        }
        statistics = Some((invert(lanes, &r), g.variance));
        for i in 0..t.n {
            let curve_row = t.row_of_frame[i];
            let fitted_row = t.plan.row(slot::FITTED_CURVE);
            let residual_row = t.plan.row(slot::RESIDUAL);
            if fitted_row.is_none() && residual_row.is_none() {
                break;
            }
            let own = t.delay.own;
            let dictionary = &t.dictionaries[0];
            let x = if own {
                companion::<L, true>(lanes, dictionary, work, i)
            } else {
                companion::<L, false>(lanes, dictionary, work, i)
            };
            let rest = if own { work.c[i] - p.alone * x } else { work.rest[i] };
            let residual = rest - f.b * work.b[i] - p.surplus * x;
            if let Some(row) = fitted_row {
                rows.set(row + curve_row, work.c[i] - residual, valid);
            }
            if let Some(row) = residual_row {
                rows.set(row + curve_row, residual, valid);
            }
        }
    }
    let mut unclear = lanes.mask(false);
    for value in values.iter().flatten() {
        let parameter = value.parameter;
        let unit = lanes.splat(1.0 / parameter.internal_per_unit());
        let valid = finite & value.valid;
        if let Some(row) = t.plan.row(slot::PARAMETER + parameter.index()) {
            rows.set(row, value.value * unit, valid);
        }
        let own = t.model.parameters().contains(&parameter);
        if own && bounded {
            let (lower, upper) = thresholds(t, parameter);
            let low = value.value.le(lanes.splat(lower));
            let high = value.value.ge(lanes.splat(upper));
            bits = bits
                | lanes.bits(valid & low, status::AT_LOWER_BOUND | status_bit::at_lower_bound(parameter))
                | lanes.bits(valid & high, status::AT_UPPER_BOUND | status_bit::at_upper_bound(parameter));
        }
        if let Some((inverse, variance)) = &statistics {
            let error = inverse.standard_error(lanes, value.gradient, *variance);
            let has_error = valid & usable & inverse.regular;
            if own {
                unclear = unclear | !has_error | is_not_identifiable(lanes, value.value, error);
            }
            if let Some(row) = t.plan.row(slot::STANDARD_ERROR + parameter.index()) {
                rows.set(row, error * unit, has_error);
            }
        }
    }
    if let Some(row) = t.plan.row(slot::PARAMETER + Parameter::Delay.index()) {
        let delay = if t.delay.own { f.delay } else { lanes.splat(t.fixed_delay) };
        rows.set(row, delay, finite);
    }
    if t.delay.own {
        if let (Some((inverse, variance)), true) = (&statistics, t.delay.fitted) {
            let error = inverse.standard_error(lanes, [zero, zero, zero, one], *variance);
            if let Some(row) = t.plan.row(slot::STANDARD_ERROR + Parameter::Delay.index()) {
                rows.set(row, error, finite & f.delay_free & inverse.regular);
            }
        }
        let (lower, upper) = t.delay.bounds;
        let low = finite & f.delay_free & f.delay.le(lanes.splat(lower));
        let high = finite & f.delay_free & f.delay.ge(lanes.splat(upper));
        bits = bits
            | lanes.bits(low, status::AT_LOWER_BOUND | status_bit::at_lower_bound(Parameter::Delay))
            | lanes.bits(high, status::AT_UPPER_BOUND | status_bit::at_upper_bound(Parameter::Delay));
    }
    bits = bits | lanes.bits(finite & unclear, status::NOT_IDENTIFIABLE);
    rows.set_bits(t.plan.rows, bits);
}
