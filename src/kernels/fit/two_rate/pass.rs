//! The model's curve and its derivatives in one pass over the frames: what a refinement goes by.

#![expect(clippy::needless_range_loop, reason = "formulas of matrices and frames are read by their indices")]

use super::super::convolution::{WEIGHTS, convolve, prepare};
use super::super::refinement::{Equations, Problem, Variables};
use super::exchange::{TwoRates, two_rates};
use super::memory::{Place, Work};
use super::tables::Tables;
use crate::kernel::lanes::{Lanes, Masks, Numbers};

/// Parameters per turn shrink to this share of their distance from the lower bound at least, and grow by its reciprocal:
/// on a bound of PS, v_p or v_e others lose their meaning, and a fit would stay there.
const SMALLEST_SHARE: f64 = 0.02;
/// Below this share of its scale a parameter may go to its bound.
const NEARLY_NOTHING: f64 = 1e-6;
/// What the second derivatives are taken over, as a share of a variable.
const SHIFT: f64 = 1e-3;
/// Where the variable is next to nothing, as a share of its scale.
const SMALLEST_SHIFT: f64 = 1e-8;
/// A volume that its inflow fills less than so often fills slowly, if it isn't next to nothing.
const FILLINGS: f64 = 2.0;
const SOMETHING: f64 = 1e-4;
/// Scales of y = 1 / F_p (s), Ktrans (1/s), v_p, v_e and delay (s).
const SCALES: [f64; 5] = [100.0, 0.002, 0.05, 0.2, 1.0];

/// The exchange model's curve, for P = 4 with a delay that all voxels share, for P = 5 with one of their own.
pub(super) struct Exchange<'a, 'b, F, const P: usize> {
    pub(super) t: &'a Tables,
    pub(super) work: &'a mut Work<'b, F>,
    /// Whether the fitted curve is to be kept.
    pub(super) keep: bool,
}

/// What the passes add up per frame.
struct Sums<F, const P: usize> {
    equations: Equations<F, P>,
    a: F,
    b: F,
    /// Columns J R^-1 over I_1, I_2, their derivatives by the rates, and c_p.
    columns: [[F; P]; 5],
    /// Products of the residual with I_1, I_2, their derivatives by the rates, and half their second derivatives.
    products: [F; 6],
}

impl<F: Numbers, const P: usize> Sums<F, P> {
    /// Takes a frame in, and gives its fitted sample.
    #[inline(always)]
    fn add(&mut self, sample: F, basis: [F; 5], bends: [F; 2]) -> F {
        let fitted = self.a * basis[0] + self.b * basis[1];
        let residual = sample - fitted;
        let e = &mut self.equations;
        e.sse = e.sse + residual * residual;
        for k in 0..4 {
            self.products[k] = self.products[k] + residual * basis[k];
        }
        for k in 0..2 {
            self.products[4 + k] = self.products[4 + k] + residual * bends[k];
        }
        let mut q = [residual; P];
        for (j, q) in q.iter_mut().enumerate() {
            *q = (self.columns[0][j] * basis[0] + self.columns[1][j] * basis[1])
                + (self.columns[2][j] * basis[2] + self.columns[3][j] * basis[3]);
            if P == 5 {
                *q = *q + self.columns[4][j] * basis[4];
            }
        }
        for i in 0..P {
            e.rhs[i] = e.rhs[i] + q[i] * residual;
            for j in i..P {
                e.gram[i][j] = e.gram[i][j] + q[i] * q[j];
            }
        }
        fitted
    }
}

/// Which variables steps are taken in: those that the curve is close to linear in.
#[derive(Clone, Copy)]
pub(super) struct Terms<M> {
    /// 1 / PS instead of Ktrans: where exchange is fast.
    pub(super) fast: M,
    /// 1 / v_p and 1 / v_e instead of these: where they fill slowly.
    pub(super) slow: [M; 2],
}

impl<M: Masks> Terms<M> {
    #[inline(always)]
    pub(super) fn of<L: Lanes<M = M>>(lanes: L, t: &Tables, [flow, exchange, plasma, space]: [L::F; 4]) -> Self {
        let duration = lanes.splat(t.frame_times[t.n - 1] / FILLINGS);
        let something = lanes.splat(SOMETHING);
        Self {
            fast: exchange.ge(flow) | exchange.ge(lanes.splat(t.bounds[1].1)),
            slow: [
                (flow * duration).lt(plasma) & plasma.gt(something),
                (exchange * duration).lt(space) & space.gt(something),
            ],
        }
    }
}

impl<const P: usize, F> Exchange<'_, '_, F, P> {
    /// The derivatives by the first four variables over I_1, I_2 and their derivatives by the rates: from those by the
    /// parameters.
    #[inline(always)]
    fn by_variable<L: Lanes<F = F>>(lanes: L, p: [F; 4], terms: Terms<L::M>, two: &TwoRates<F>) -> [[F; 4]; 4]
    where
        F: Numbers<Mask = L::M>,
    {
        let one = lanes.splat(1.0);
        let [flow, exchange, plasma, space] = p;
        let fast = terms.fast;
        let flow_squared = flow * flow;
        let square = exchange * exchange;
        let exchange_squared = lanes.select(fast, lanes.splat(0.0), square);
        let ratio = one + exchange / flow;
        let by_second = lanes.select(fast, -square, ratio * ratio);
        let by_plasma = lanes.select(terms.slow[0], -(plasma * plasma), one);
        let by_space = lanes.select(terms.slow[1], -(space * space), one);
        let [by_fp, by_ps, mut by_vp, mut by_ve] = two.by_parameter;
        let (mut first, mut second) = (by_fp, by_ps);
        for k in 0..4 {
            first[k] = exchange_squared * by_ps[k] - flow_squared * by_fp[k];
            second[k] = by_second * by_ps[k];
            by_vp[k] = by_plasma * by_vp[k];
            by_ve[k] = by_space * by_ve[k];
        }
        [first, second, by_vp, by_ve]
    }

    /// The second variable: Ktrans, or 1 / PS where exchange is fast.
    #[inline(always)]
    fn second<L: Lanes<F = F>>(lanes: L, [flow, exchange]: [F; 2], fast: L::M) -> F
    where
        F: Numbers<Mask = L::M>,
    {
        let one = lanes.splat(1.0);
        let top = lanes.select(fast, one, exchange);
        top / lanes.select(fast, exchange.max(lanes.splat(1e-30)), one + exchange / flow)
    }

    /// PS, given the flow and the second variable.
    #[inline(always)]
    fn exchange<L: Lanes<F = F>>(lanes: L, flow: F, second: F, fast: L::M) -> F
    where
        F: Numbers<Mask = L::M>,
    {
        let one = lanes.splat(1.0);
        let top = lanes.select(fast, one, second);
        let rest = (one - second / flow).max(lanes.splat(1e-6));
        top / lanes.select(fast, second.max(lanes.splat(1e-30)), rest)
    }

    /// J R^-1 over the basis.
    #[inline(always)]
    fn columns<L: Lanes<F = F>>(
        lanes: L,
        flow: F,
        two: &TwoRates<F>,
        by_variable: &[[F; 4]; 4],
        r: &[[F; P]; P],
    ) -> [[F; P]; 5]
    where
        F: Numbers<Mask = L::M>,
    {
        let zero = lanes.splat(0.0);
        let mut inverse = [zero; P];
        for i in 0..P {
            inverse[i] = lanes.splat(1.0) / r[i][i];
        }
        let mut columns = [[zero; P]; 5];
        for (k, row) in columns.iter_mut().enumerate() {
            let mut j = [zero; P];
            if k < 4 {
                for i in 0..4 {
                    j[i] = by_variable[i][k];
                }
            }
            if P == 5 {
                // C' = F_p c_p - a l_1 I_1 - b l_2 I_2; by the delay, minus that.
                j[4] = match k {
                    0 => two.a * two.rates[0],
                    1 => two.b * two.rates[1],
                    4 => -flow,
                    _ => zero,
                };
            }
            for i in 0..P {
                let mut value = j[i];
                for m in 0..i {
                    value = value - row[m] * r[m][i];
                }
                row[i] = value * inverse[i];
            }
        }
        columns
    }

    /// The products of the residual with the second derivatives by the first four variables; what changes with them of the
    /// coefficients and the rates is taken from differences.
    #[inline(always)]
    fn bend<L: Lanes<F = F>>(
        lanes: L,
        parameters: &[F; P],
        terms: Terms<L::M>,
        two: &TwoRates<F>,
        by_variable: &[[F; 4]; 4],
        products: &[F; 6],
    ) -> [[F; P]; P]
    where
        F: Numbers<Mask = L::M>,
    {
        let zero = lanes.splat(0.0);
        let one = lanes.splat(1.0);
        let mut bend = [[zero; P]; P];
        let (flow, exchange) = (parameters[0], parameters[1]);
        let reciprocal = one / flow;
        let fast = terms.fast;
        let second = Self::second(lanes, [flow, exchange], fast);
        for i in 0..4 {
            let at = match i {
                0 => reciprocal,
                1 => second,
                _ => volume(lanes, parameters[i], terms.slow[i - 2]),
            };
            let shift = at * lanes.splat(SHIFT) + lanes.splat(SMALLEST_SHIFT * SCALES[i]);
            let mut p = [flow, exchange, parameters[2], parameters[3]];
            match i {
                0 => {
                    p[0] = one / (reciprocal + shift);
                    p[1] = Self::exchange(lanes, p[0], second, fast);
                }
                1 => p[1] = Self::exchange(lanes, flow, second + shift, fast),
                _ => p[i] = volume(lanes, at + shift, terms.slow[i - 2]),
            }
            let moved = two_rates(lanes, p);
            let moved_by_variable = Self::by_variable(lanes, p, terms, &moved);
            let inverse = one / shift;
            let rates = [(moved.rates[0] - two.rates[0]) * inverse, (moved.rates[1] - two.rates[1]) * inverse];
            for j in 0..4 {
                let mut sum = zero;
                for k in 0..4 {
                    sum = sum + (moved_by_variable[j][k] - by_variable[j][k]) * inverse * products[k];
                }
                for k in 0..2 {
                    let second = products[4 + k] + products[4 + k];
                    sum = sum + rates[k] * (by_variable[j][k] * products[2 + k] + by_variable[j][2 + k] * second);
                }
                // Half from either side.
                let half = lanes.splat(0.5) * sum;
                let (low, high) = (i.min(j), i.max(j));
                bend[low][high] = bend[low][high] + half;
                if i == j {
                    bend[i][i] = bend[i][i] + half;
                }
            }
        }
        bend
    }
}

impl<const P: usize, F> Exchange<'_, '_, F, P> {
    #[inline(always)]
    fn pass<L: Lanes<F = F>>(&mut self, lanes: L, parameters: &[F; P], r: &[[F; P]; P]) -> Equations<F, P>
    where
        F: Numbers<Mask = L::M>,
    {
        let zero = lanes.splat(0.0);
        let two = two_rates(lanes, [parameters[0], parameters[1], parameters[2], parameters[3]]);
        let p = [parameters[0], parameters[1], parameters[2], parameters[3]];
        let terms = Terms::of(lanes, self.t, p);
        let by_variable = Self::by_variable(lanes, p, terms, &two);
        let columns = Self::columns(lanes, parameters[0], &two, &by_variable, r);
        let products = [zero; 6];
        let mut sums = Sums { equations: Equations::new(zero), a: two.a, b: two.b, columns, products };
        if P == 5 {
            self.own_delay(lanes, &two, parameters[P - 1], &mut sums);
        } else {
            self.same_delay(lanes, &two, &mut sums);
        }
        sums.equations.bend = Self::bend(lanes, parameters, terms, &two, &by_variable, &sums.products);
        sums.equations
    }

    /// The pass for a delay that all voxels share.
    #[inline(always)]
    fn same_delay<L: Lanes<F = F>>(&mut self, lanes: L, two: &TwoRates<F>, sums: &mut Sums<F, P>)
    where
        F: Numbers<Mask = L::M>,
    {
        let zero = lanes.splat(0.0);
        let t = self.t;
        let steps = &t.steps;
        for (rate, memory) in two.rates.iter().zip(&mut self.work.weights) {
            prepare(lanes, steps, *rate, memory);
        }
        let Work { c, fitted, weights: [fast, slow], .. } = &mut *self.work;
        let mut basis = [zero; 5];
        let mut bends = [zero; 2];
        for i in 0..steps.before {
            let value = sums.add(c[i], basis, bends);
            if self.keep {
                fitted[i] = value;
            }
        }
        let mut begin = steps.input.at(lanes, 0);
        for (i, step) in steps.steps.iter().enumerate() {
            let end = steps.input.at(lanes, i + 1);
            for (k, weights) in [&*fast, &*slow].into_iter().enumerate() {
                let w = &weights[step.length * WEIGHTS..][..WEIGHTS];
                let by_rate = w[0] * basis[2 + k] + w[3] * basis[k] + (w[4] * begin + w[5] * end);
                // Half the second derivative is minus the convolution of the first one, here of the line through its ends.
                bends[k] = w[0] * bends[k] - (w[1] * basis[2 + k] + w[2] * by_rate);
                basis[2 + k] = by_rate;
                basis[k] = w[0] * basis[k] + (w[1] * begin + w[2] * end);
            }
            begin = end;
            if let Some(frame) = step.frame {
                let value = sums.add(c[frame], basis, bends);
                if self.keep {
                    fitted[frame] = value;
                }
            }
        }
    }
}

/// A volume from its variable, and the variable from the volume: either is the other's reciprocal where it fills slowly.
#[inline(always)]
fn volume<L: Lanes>(lanes: L, value: L::F, slow: L::M) -> L::F {
    lanes.select(slow, lanes.splat(1.0) / value.max(lanes.splat(1e-30)), value)
}

impl<L: Lanes, const P: usize> Problem<L, P> for Exchange<'_, '_, L::F, P> {
    const BENT: bool = true;

    #[inline(never)]
    fn equations(&mut self, lanes: L, parameters: &[L::F; P], r: &[[L::F; P]; P]) -> Equations<L::F, P> {
        lanes.within(
            #[inline(always)]
            || self.pass(lanes, parameters, r),
        )
    }

    #[inline(always)]
    fn variables(&self, lanes: L, parameters: &[L::F; P]) -> Variables<L::F, P> {
        let one = lanes.splat(1.0);
        let b = &self.t.bounds;
        let (flow, exchange) = (parameters[0], parameters[1]);
        let mut v = Variables { at: *parameters, low: *parameters, high: *parameters };
        v.at[0] = one / flow;
        v.low[0] = lanes.splat(1.0 / b[0].1);
        v.high[0] = lanes.splat(1.0 / b[0].0);
        let terms = Terms::of(lanes, self.t, [flow, exchange, parameters[2], parameters[3]]);
        let fast = terms.fast;
        v.at[1] = Self::second(lanes, [flow, exchange], fast);
        let (lowest, highest) = (lanes.splat(b[1].0), lanes.splat(b[1].1));
        let none = lanes.splat(1e-30);
        v.low[1] = lanes.select(fast, one / highest.max(none), lowest / (one + lowest * v.at[0]));
        v.high[1] = lanes.select(fast, one / lowest.max(none), v.at[1] + highest);
        for j in 2..4 {
            let slow = terms.slow[j - 2];
            let (low, high) = (lanes.splat(b[j].0), lanes.splat(b[j].1));
            v.at[j] = volume(lanes, parameters[j], slow);
            v.low[j] = lanes.select(slow, volume(lanes, high, slow), low);
            v.high[j] = lanes.select(slow, volume(lanes, low, slow), high);
        }
        if P == 5 {
            v.low[P - 1] = lanes.splat(self.t.delay.bounds.0);
            v.high[P - 1] = lanes.splat(self.t.delay.bounds.1);
        }
        v
    }

    #[inline(always)]
    fn moved(&self, lanes: L, parameters: &[L::F; P], step: &[L::F; P]) -> [L::F; P] {
        let one = lanes.splat(1.0);
        let b = &self.t.bounds;
        let v = Problem::<L, P>::variables(self, lanes, parameters);
        let mut next = *parameters;
        let reciprocal = (v.at[0] + step[0]).max(v.low[0]).min(v.high[0]);
        next[0] = one / reciprocal;
        let terms = Terms::of(lanes, self.t, [parameters[0], parameters[1], parameters[2], parameters[3]]);
        next[1] = Self::exchange(lanes, next[0], (v.at[1] + step[1]).max(v.low[1]), terms.fast);
        for j in 2..4 {
            let slow = terms.slow[j - 2];
            let to = v.at[j] + step[j];
            next[j] = volume(lanes, lanes.select(slow, to.max(v.low[j]), to), slow);
        }
        let flows = [0.01, 0.002];
        for j in 0..4 {
            let scale = if j < 2 { flows[j] } else { SCALES[j] };
            let (low, high) = (lanes.splat(b[j].0), lanes.splat(b[j].1));
            let above = parameters[j] - low;
            let near = above.lt(lanes.splat(scale * NEARLY_NOTHING));
            let lowest = lanes.select(near, low, low + above * lanes.splat(SMALLEST_SHARE));
            next[j] = next[j].max(lowest);
            if j < 2 {
                let highest = parameters[j] * lanes.splat(1.0 / SMALLEST_SHARE) + lanes.splat(0.01 * scale);
                next[j] = next[j].min(highest);
            }
            next[j] = next[j].max(low).min(high);
        }
        if P == 5 {
            let delay = parameters[P - 1] + step[P - 1];
            next[P - 1] = lanes.select(
                step[P - 1].abs().gt(lanes.splat(0.0)),
                delay.max(v.low[P - 1]).min(v.high[P - 1]),
                parameters[P - 1],
            );
        }
        next
    }

    #[inline(always)]
    fn scales(&self) -> [f64; P] {
        std::array::from_fn(|j| SCALES[j])
    }
}

impl<const P: usize, F> Exchange<'_, '_, F, P> {
    /// The pass for a delay of the voxel's own: convolutions at the knots, and from there to each frame.
    #[inline(always)]
    fn own_delay<L: Lanes<F = F>>(&mut self, lanes: L, two: &TwoRates<F>, delay: F, sums: &mut Sums<F, P>)
    where
        F: Numbers<Mask = L::M>,
    {
        let zero = lanes.splat(0.0);
        let t = self.t;
        let work = &mut *self.work;
        for k in 0..2 {
            convolve(lanes, &t.steps, two.rates[k], work.weights[k], work.knots[k], work.knots_by_rate[k]);
            bend_at_knots(lanes, t, work.weights[k], work.knots_by_rate[k], work.knots_bend[k]);
        }
        for i in 0..t.n {
            let place = Place::of(lanes, t, i, delay);
            let mut basis = [zero; 5];
            let mut bends = [zero; 2];
            for k in 0..2 {
                [basis[k], basis[2 + k], bends[k]] = place.advance(
                    lanes,
                    two.rates[k],
                    [&*work.knots[k], &*work.knots_by_rate[k], &*work.knots_bend[k]],
                );
            }
            basis[4] = lanes.select(place.arrived, place.end, zero);
            let value = sums.add(work.c[i], basis, bends);
            if self.keep {
                work.fitted[i] = value;
            }
        }
    }
}

/// Half the second derivatives by the rate at the knots, from the first ones there.
#[inline(always)]
fn bend_at_knots<L: Lanes>(lanes: L, t: &Tables, weights: &[L::F], by_rate: &[L::F], bend: &mut [L::F]) {
    let zero = lanes.splat(0.0);
    let mut before = [zero; 2];
    for (knot, step) in t.steps.steps.iter().enumerate() {
        let w = &weights[step.length * WEIGHTS..][..WEIGHTS];
        let here = by_rate[knot + 1];
        bend[knot] = before[1];
        before = [here, w[0] * before[1] - (w[1] * before[0] + w[2] * here)];
    }
    bend[t.steps.steps.len()] = before[1];
}
