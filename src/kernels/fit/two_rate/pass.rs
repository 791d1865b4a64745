//! The model's curve and its derivatives in one pass over the frames: what a refinement goes by.

#![expect(clippy::needless_range_loop, reason = "formulas of matrices and frames are read by their indices")]

use super::super::convolution::{WEIGHTS, convolve, prepare};
use super::super::delay::PLACE;
use super::super::refinement::{Equations, Problem, Variables};
use super::exchange::{TwoRates, two_rates};
use super::memory::{Place, Work};
use super::tables::Tables;
use super::variables::{Terms, volume};
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
/// Scales of y = 1 / F_p (s), Ktrans (1/s), v_p, v_e and delay (s).
const SCALES: [f64; 5] = [100.0, 0.002, 0.05, 0.2, 1.0];

/// The exchange model's curve, for P = 4 with a delay that all voxels share, for P = 5 with one of their own.
pub(super) struct Exchange<'a, 'b, F, const P: usize> {
    pub(super) t: &'a Tables,
    pub(super) work: &'a mut Work<'b, F>,
    /// Whether the fitted curve is to be kept.
    pub(super) keep: bool,
}

/// Numbers per frame that a walk along the frames leaves: I_1, I_2, their derivatives by the rates, c_p where the delay is a
/// voxel's own, and the residual.
pub(super) const fn kept(own_delay: bool) -> usize {
    if own_delay { 6 } else { 5 }
}

/// What a walk along the frames adds up.
struct Sums<F, const P: usize> {
    sse: F,
    /// Products of the residual with I_1, I_2, their derivatives by the rates, half their second derivatives, c_p and its slope.
    products: [F; 8],
}

impl<F: Numbers, const P: usize> Sums<F, P> {
    /// Takes a frame in, keeps what its equations need, and gives its fitted sample.
    #[inline(always)]
    fn add(&mut self, sample: F, [a, b]: [F; 2], basis: [F; 5], bends: [F; 3], kept: &mut [F]) -> F {
        let fitted = a.mul_add(basis[0], b * basis[1]);
        let residual = sample - fitted;
        self.sse = residual.mul_add(residual, self.sse);
        for k in 0..4 {
            self.products[k] = residual.mul_add(basis[k], self.products[k]);
        }
        for k in 0..2 {
            self.products[4 + k] = residual.mul_add(bends[k], self.products[4 + k]);
        }
        let kept = &mut kept[..P + 1];
        kept[..4].copy_from_slice(&basis[..4]);
        if P == 5 {
            self.products[6] = residual.mul_add(basis[4], self.products[6]);
            self.products[7] = residual.mul_add(bends[2], self.products[7]);
            kept[4] = basis[4];
        }
        kept[P] = residual;
        fitted
    }
}

/// The equations from what a walk has kept: a loop of its own, in which all sums stay in registers. `columns` are J R^-1 over
/// I_1, I_2, their derivatives by the rates, and c_p.
#[inline(always)]
fn equations_of<L: Lanes, const P: usize>(
    lanes: L,
    sse: L::F,
    columns: &[[L::F; P]; 5],
    kept: &[L::F],
) -> Equations<L::F, P> {
    let zero = lanes.splat(0.0);
    let mut gram = [[zero; P]; P];
    let mut rhs = [zero; P];
    for frame in kept.chunks_exact(P + 1) {
        let residual = frame[P];
        let mut q = [zero; P];
        for j in 0..P {
            let first = columns[0][j].mul_add(frame[0], columns[1][j] * frame[1]);
            let second = columns[2][j].mul_add(frame[2], columns[3][j] * frame[3]);
            q[j] = first + second;
            if P == 5 {
                q[j] = columns[4][j].mul_add(frame[4], q[j]);
            }
        }
        for i in 0..P {
            rhs[i] = q[i].mul_add(residual, rhs[i]);
            for j in i..P {
                gram[i][j] = q[i].mul_add(q[j], gram[i][j]);
            }
        }
    }
    Equations { sse, gram, rhs, bend: [[zero; P]; P] }
}

impl<const P: usize, F> Exchange<'_, '_, F, P> {
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
                let [fast, slow, input] = by_delay(flow, two);
                j[4] = match k {
                    0 => fast,
                    1 => slow,
                    4 => input,
                    _ => zero,
                };
            }
            for i in 0..P {
                let mut value = j[i];
                for m in 0..i {
                    value = value.minus_product(row[m], r[m][i]);
                }
                row[i] = value * inverse[i];
            }
        }
        columns
    }

    /// The products of the residual with the second derivatives by the variables; what changes with the first four of the
    /// coefficients and the rates is taken from differences.
    #[inline(always)]
    fn bend<L: Lanes<F = F>>(
        lanes: L,
        parameters: &[F; P],
        terms: Terms<L::M>,
        two: &TwoRates<F>,
        by_variable: &[[F; 4]; 4],
        products: &[F; 8],
    ) -> [[F; P]; P]
    where
        F: Numbers<Mask = L::M>,
    {
        let zero = lanes.splat(0.0);
        let one = lanes.splat(1.0);
        let mut bend = [[zero; P]; P];
        let flow = parameters[0];
        let at = terms.at(lanes, first_four(parameters));
        for i in 0..4 {
            let shift = at[i] * lanes.splat(SHIFT) + lanes.splat(SMALLEST_SHIFT * SCALES[i]);
            let mut there = at;
            there[i] = there[i] + shift;
            let p = terms.parameters(lanes, there);
            let moved = two_rates(lanes, p);
            let moved_by_variable = terms.derivatives(lanes, p, &moved);
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
            if P == 5 {
                let (here, there) = (by_delay(flow, two), by_delay(p[0], &moved));
                let mut sum = (there[2] - here[2]) * inverse * products[6];
                for k in 0..2 {
                    sum = sum + ((there[k] - here[k]) * inverse * products[k] + here[k] * rates[k] * products[2 + k]);
                }
                bend[i][4] = sum;
            }
        }
        if P == 5 {
            // C'' but for the bends of c_p at its knots.
            let [fast, slow, _] = by_delay(flow, two);
            bend[4][4] = (flow * products[7] - (fast + slow) * products[6])
                + (fast * two.rates[0] * products[0] + slow * two.rates[1] * products[1]);
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
        let p = first_four(parameters);
        let two = two_rates(lanes, p);
        let terms = Terms::of(lanes, self.t, p);
        let by_variable = terms.derivatives(lanes, p, &two);
        let columns = Self::columns(lanes, parameters[0], &two, &by_variable, r);
        let mut sums = Sums { sse: zero, products: [zero; 8] };
        let first = if P == 5 {
            self.own_delay(lanes, &two, parameters[P - 1], &mut sums);
            0
        } else {
            self.same_delay(lanes, &two, &mut sums);
            self.t.steps.before
        };
        let mut equations = equations_of(lanes, sums.sse, &columns, &self.work.kept[first * (P + 1)..]);
        equations.bend = Self::bend(lanes, parameters, terms, &two, &by_variable, &sums.products);
        equations
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
        let Work { c, fitted, weights: [fast, slow], kept, .. } = &mut *self.work;
        let mut basis = [zero; 5];
        let mut bends = [zero; 3];
        for i in 0..steps.before {
            sums.sse = c[i].mul_add(c[i], sums.sse);
            if self.keep {
                fitted[i] = zero;
            }
        }
        let mut begin = steps.input.at(lanes, 0);
        for (i, step) in steps.steps.iter().enumerate() {
            let end = steps.input.at(lanes, i + 1);
            for (k, weights) in [&*fast, &*slow].into_iter().enumerate() {
                let w = &weights[step.length * WEIGHTS..][..WEIGHTS];
                let [value, by_rate, bend] = advanced(w, [begin, end], [basis[k], basis[2 + k], bends[k]]);
                bends[k] = bend;
                basis[2 + k] = by_rate;
                basis[k] = value;
            }
            begin = end;
            if let Some(frame) = step.frame {
                let value = sums.add(c[frame], [two.a, two.b], basis, bends, &mut kept[frame * (P + 1)..]);
                if self.keep {
                    fitted[frame] = value;
                }
            }
        }
    }
}

/// A convolution, its derivative by the rate and half the second one after a step, over which the input goes along a line. The
/// second one is minus the convolution of the first one, here of the line through its ends.
#[inline(always)]
fn advanced<F: Numbers>(w: &[F], [begin, end]: [F; 2], [value, by_rate, bend]: [F; 3]) -> [F; 3] {
    let input = w[4].mul_add(begin, w[5] * end);
    let next_by_rate = w[0].mul_add(by_rate, w[3].mul_add(value, input));
    let pull = w[1].mul_add(by_rate, w[2] * next_by_rate);
    let next = w[0].mul_add(value, w[1].mul_add(begin, w[2] * end));
    [next, next_by_rate, w[0].mul_add(bend, -pull)]
}

/// The derivative by the delay over I_1, I_2 and c_p: minus C', which is F_p c_p - a l_1 I_1 - b l_2 I_2.
#[inline(always)]
fn by_delay<F: Numbers>(flow: F, two: &TwoRates<F>) -> [F; 3] {
    [two.a * two.rates[0], two.b * two.rates[1], -flow]
}

/// F_p, PS, v_p and v_e.
#[inline(always)]
pub(super) fn first_four<F: Copy, const P: usize>(parameters: &[F; P]) -> [F; 4] {
    [parameters[0], parameters[1], parameters[2], parameters[3]]
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
        let mut v = Variables { at: *parameters, low: *parameters, high: *parameters };
        let terms = Terms::of(lanes, self.t, first_four(parameters));
        v.at[..4].copy_from_slice(&terms.at(lanes, first_four(parameters)));
        v.low[0] = lanes.splat(1.0 / b[0].1);
        v.high[0] = lanes.splat(1.0 / b[0].0);
        let (lowest, highest) = (lanes.splat(b[1].0), lanes.splat(b[1].1));
        let none = lanes.splat(1e-30);
        v.low[1] = lanes.select(terms.fast, one / highest.max(none), lowest / (one + lowest * v.at[0]));
        v.high[1] = lanes.select(terms.fast, one / lowest.max(none), v.at[1] + highest);
        for j in 2..4 {
            let slow = terms.slow[j - 2];
            let (low, high) = (lanes.splat(b[j].0), lanes.splat(b[j].1));
            v.low[j] = lanes.select(slow, volume(lanes, high, slow), low);
            v.high[j] = lanes.select(slow, volume(lanes, low, slow), high);
        }
        // No bound is near: `moved` sees to it that none is passed.
        let far = lanes.splat(f64::from(f32::MAX) / 8.0);
        for j in 0..4 {
            v.low[j] = lanes.select(terms.together, -far, v.low[j]);
            v.high[j] = lanes.select(terms.together, far, v.high[j]);
        }
        if P == 5 {
            v.low[P - 1] = lanes.splat(self.t.delay.bounds.0);
            v.high[P - 1] = lanes.splat(self.t.delay.bounds.1);
        }
        v
    }

    #[inline(always)]
    fn moved(&self, lanes: L, parameters: &[L::F; P], step: &[L::F; P]) -> [L::F; P] {
        let b = &self.t.bounds;
        let v = Problem::<L, P>::variables(self, lanes, parameters);
        let terms = Terms::of(lanes, self.t, first_four(parameters));
        let at = first_four(&v.at);
        let mut to = at;
        for j in 0..4 {
            to[j] = to[j] + step[j];
        }
        to[0] = to[0].max(v.low[0]).min(v.high[0]);
        to[1] = to[1].max(v.low[1]);
        for j in 2..4 {
            to[j] = lanes.select(terms.slow[j - 2], to[j].max(v.low[j]), to[j]);
        }
        if terms.together.any() {
            to = self.until_bound(lanes, first_four(parameters), &terms, &at, &to);
        }
        let mut next = *parameters;
        next[..4].copy_from_slice(&terms.parameters(lanes, to));
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
    /// Steps in the variables that have no bounds of their own end where a parameter comes to one, or a variable halfway to 0.
    #[inline(always)]
    fn until_bound<L: Lanes<F = F>>(
        &self,
        lanes: L,
        parameters: [F; 4],
        terms: &Terms<L::M>,
        at: &[F; 4],
        to: &[F; 4],
    ) -> [F; 4]
    where
        F: Numbers<Mask = L::M>,
    {
        let one = lanes.splat(1.0);
        let half = lanes.splat(0.5);
        let mut share = one;
        for j in 0..4 {
            let fall = at[j] - to[j];
            share = lanes.select(fall.gt(half * at[j]), share.min(half * at[j] / fall), share);
        }
        let mut next = *at;
        for j in 0..4 {
            next[j] = at[j] + share * (to[j] - at[j]);
        }
        let there = terms.parameters(lanes, next);
        let mut less = one;
        for j in 0..4 {
            let (low, high) = (lanes.splat(self.t.bounds[j].0), lanes.splat(self.t.bounds[j].1));
            let (before, after) = (parameters[j], there[j]);
            less = lanes.select(after.gt(high), less.min((high - before) / (after - before)), less);
            less = lanes.select(after.lt(low), less.min((before - low) / (before - after)), less);
        }
        for j in 0..4 {
            let short = at[j] + less * (next[j] - at[j]);
            next[j] = lanes.select(terms.together, short, to[j]);
        }
        next
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
            let place = Place::of(lanes, t, i, delay, &mut work.places[PLACE * i..][..PLACE]);
            let mut basis = [zero; 5];
            let mut bends = [zero; 3];
            for k in 0..2 {
                [basis[k], basis[2 + k], bends[k]] = place.advance(
                    lanes,
                    two.rates[k],
                    [&*work.knots[k], &*work.knots_by_rate[k], &*work.knots_bend[k]],
                );
            }
            basis[4] = lanes.select(place.arrived, place.end, zero);
            bends[2] = lanes.select(place.arrived, place.slope, zero);
            let value = sums.add(work.c[i], [two.a, two.b], basis, bends, &mut work.kept[i * (P + 1)..]);
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
