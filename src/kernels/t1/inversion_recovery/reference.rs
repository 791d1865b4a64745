//! The definition of the recovery fits in code. `shaders/t1/inversion_recovery.wgsl` has the same names, order and guards.
//!
//! The signal is a - b exp(-R TI), or its magnitude: then the samples before the curve's zero are taken as negative, and
//! every place for the zero is tried. Of all signs the best ones are those that the fitted curve has, so the least sum over
//! all places is that of the magnitudes.

#![expect(clippy::needless_range_loop, reason = "indices keep the text comparable with the shader's")]

use crate::kernel::lanes::{Lanes, Masks, Numbers};
use crate::kernel::{Curve, Rows};

use super::super::results::{self, Estimate};
use super::super::search::{Bracket, GRID, LEAST_OWN_SHARE, Peak, Peaks, STEPS};
use super::{Readout, Tables};

/// Peaks of the grid that are followed to their end: a sample near the curve's zero makes two places almost alike, and short
/// recoveries have minima in several.
const PEAKS: usize = 4;

/// The fit for one rate: a, b, and what Newton's step and the covariance need, derivatives relative to the rate.
struct Fit<F> {
    a: F,
    b: F,
    slope: F,
    curvature: F,
    sse: F,
    mean_e: F,
    /// Squares of exp(-R TI) about its mean; of the derivative, less what a and b explain of it, over b.
    spread: F,
    derivative: F,
    /// Squares of the whole derivative about its mean, over b.
    whole: F,
    /// How a derivative's share moves b and a, over b.
    b_share: F,
    a_share: F,
}

#[inline(always)]
fn fit_at<L: Lanes>(t: &Tables, l: L, y: &[L::F], e: &mut [L::F], mean_y: L::F, rate: L::F) -> Fit<L::F> {
    let zero = l.splat(0.0);
    let per_sample = l.splat(1.0 / t.n as f64);
    let (mut mean_e, mut mean_g) = (zero, zero);
    for i in 0..t.n {
        let turned = rate * t.times.at(l, i);
        e[i] = (-turned).exp();
        mean_e = mean_e + e[i] * per_sample;
        mean_g = mean_g + e[i] * turned * per_sample;
    }
    let (mut spread, mut covariance, mut shared, mut whole) = (zero, zero, zero, zero);
    for i in 0..t.n {
        let own = e[i] - mean_e;
        let g = e[i] * (rate * t.times.at(l, i));
        spread = spread + own * own;
        covariance = covariance + (y[i] - mean_y) * own;
        shared = shared + (g - mean_g) * own;
        whole = whole + (g - mean_g) * (g - mean_g);
    }
    let b = -covariance / spread;
    let b_share = shared / spread;
    let (mut slope, mut derivative, mut bend, mut sse) = (zero, zero, zero, zero);
    for i in 0..t.n {
        let turned = rate * t.times.at(l, i);
        let own = e[i] - mean_e;
        let g = e[i] * turned;
        let r = (y[i] - mean_y) + b * own;
        let free = (g - mean_g) - b_share * own;
        slope = slope + r * free;
        derivative = derivative + free * free;
        bend = bend + r * g * turned;
        sse = sse + r * r;
    }
    Fit {
        a: mean_y + b * mean_e,
        b,
        slope,
        curvature: b * derivative + bend,
        sse,
        mean_e,
        spread,
        derivative,
        whole,
        b_share,
        a_share: b_share * mean_e - mean_g,
    }
}

/// What a curve with this rate and this place for the zero explains of the samples, over the grid and all places.
/// `heights` holds the last two of each place.
#[inline(always)]
fn best_of_grid<L: Lanes>(t: &Tables, l: L, y: &[L::F], sum: L::F, heights: &mut [L::F]) -> Peaks<L, PEAKS> {
    let zero = l.splat(0.0);
    let per_sample = l.splat(1.0 / t.n as f64);
    let mut peaks = Peaks::none(l);
    for height in heights.iter_mut() {
        *height = zero;
    }
    for k in 0..=GRID {
        let mut covariance = zero;
        if k < GRID {
            for i in 0..t.n {
                covariance = covariance + y[i] * t.deviation.at(l, k * t.n + i);
            }
        }
        let mut signed = sum;
        for place in 0..t.places {
            let mut after = zero;
            if k < GRID {
                // Before place 1 the first sample turns over, and so on.
                if place > 0 {
                    let turned = y[place - 1] + y[place - 1];
                    signed = signed - turned;
                    covariance = covariance - turned * t.deviation.at(l, k * t.n + place - 1);
                }
                let b = -covariance * t.inv_spread.at(l, k);
                let mean_y = signed * per_sample;
                let a = mean_y + b * t.mean_e.at(l, k);
                let explained = signed * mean_y - b * covariance;
                after = l.select(b.gt(zero) & a.gt(zero), explained, zero);
            }
            let (before, height) = (heights[2 * place], heights[2 * place + 1]);
            if k > 0 {
                peaks.offer(l, k - 1, place, [before, height, after]);
            }
            heights[2 * place] = height;
            heights[2 * place + 1] = after;
        }
    }
    peaks
}

/// The fit at the end of a search.
struct Followed<L: Lanes> {
    rate: L::F,
    fit: Fit<L::F>,
    found: L::M,
    at_longest: L::M,
    at_shortest: L::M,
    converged: L::M,
}

impl<L: Lanes> Followed<L> {
    /// The other one where it is better.
    #[inline(always)]
    fn or(self, l: L, better: L::M, other: Self) -> Self {
        let either = |own: L::M, other: L::M| (better & other) | (!better & own);
        let (own, new) = (self.fit, other.fit);
        Self {
            rate: l.select(better, other.rate, self.rate),
            fit: Fit {
                a: l.select(better, new.a, own.a),
                b: l.select(better, new.b, own.b),
                slope: l.select(better, new.slope, own.slope),
                curvature: l.select(better, new.curvature, own.curvature),
                sse: l.select(better, new.sse, own.sse),
                mean_e: l.select(better, new.mean_e, own.mean_e),
                spread: l.select(better, new.spread, own.spread),
                derivative: l.select(better, new.derivative, own.derivative),
                whole: l.select(better, new.whole, own.whole),
                b_share: l.select(better, new.b_share, own.b_share),
                a_share: l.select(better, new.a_share, own.a_share),
            },
            found: either(self.found, other.found),
            at_longest: either(self.at_longest, other.at_longest),
            at_shortest: either(self.at_shortest, other.at_shortest),
            converged: either(self.converged, other.converged),
        }
    }
}

/// The search from a peak of the grid. A and B that are not positive are no answer, even where they fit best: then the sum
/// of squares falls until one of them reaches 0.
#[inline(always)]
fn follow<L: Lanes>(t: &Tables, l: L, samples: &[L::F], e: &mut [L::F], peak: &Peak<L>) -> Followed<L> {
    let zero = l.splat(0.0);
    let per_sample = l.splat(1.0 / t.n as f64);
    let (y, e) = e.split_at_mut(t.n);
    let mut mean_y = zero;
    for i in 0..t.n {
        let before_zero = l.count(i).lt(peak.branch);
        y[i] = l.select(before_zero, -samples[i], samples[i]);
        mean_y = mean_y + y[i] * per_sample;
    }
    let mut bracket = Bracket::around(l, &t.rates, peak.at);
    for _ in 0..STEPS {
        bracket.x = l.settled(bracket.x);
        let fit = fit_at(t, l, y, e, mean_y, bracket.x);
        bracket.narrow(l, fit.slope, fit.curvature);
    }
    let fit = fit_at(t, l, y, e, mean_y, bracket.x);
    let (at_longest, at_shortest) = bracket.at_bounds();
    let found = peak.height.gt(zero) & fit.a.gt(zero) & fit.b.gt(zero);
    Followed {
        rate: bracket.x,
        fit,
        found,
        at_longest: at_longest & found,
        at_shortest: at_shortest & found,
        converged: bracket.converged(l),
    }
}

#[inline(always)]
pub(super) fn evaluate<L: Lanes>(t: &Tables, l: L, curve: &Curve<'_, L>, scratch: &mut [L::F], rows: &mut Rows<'_, L>) {
    let (zero, one) = (l.splat(0.0), l.splat(1.0));
    let (y, rest) = scratch.split_at_mut(t.n);
    let (e, heights) = rest.split_at_mut(2 * t.n);

    // Samples by increasing time, divided by the largest magnitude.
    let origin = curve.first + l.splat(t.offset);
    let mut top = zero;
    for i in 0..t.n {
        y[i] = origin + curve.difference(t.order[i]);
        top = top.max(y[i].abs());
    }
    let signal = results::is_signal(l, top * l.splat(t.scale));
    let top = l.select(signal, top, one);
    let per_sample = l.splat(1.0 / t.n as f64);
    let mut sum = zero;
    for i in 0..t.n {
        y[i] = l.splat(t.sign) * (y[i] / top);
        sum = sum + y[i];
    }
    let mean = sum * per_sample;
    let mut total = zero;
    for i in 0..t.n {
        total = total + (y[i] - mean) * (y[i] - mean);
    }

    let peaks = best_of_grid(t, l, y, sum, heights);
    let mut best = follow(t, l, y, e, &peaks.0[0]);
    for peak in &peaks.0[1..] {
        let there = peak.height.gt(zero);
        if there.any() {
            let other = follow(t, l, y, e, peak);
            let better = there & other.fit.sse.lt(best.fit.sse);
            best = best.or(l, better, other);
        }
    }
    let Followed { rate, fit, found, at_longest, at_shortest, converged } = best;

    // T1, M0 and how they move with a, b and the logarithm of the rate.
    let (a, b) = (l.select(found, fit.a, one), l.select(found, fit.b, one));
    let apparent = one / rate;
    let (t1, m0, t1_a, t1_b, m0_a, m0_b) = match t.readout {
        Readout::Single => (apparent, a, zero, zero, one, zero),
        Readout::LookLocker => {
            let ratio = b / a;
            (apparent * (ratio - one), b - a, -apparent * ratio / a, apparent / a, -one, one)
        }
    };
    let t1_rate = -t1;
    let informative = fit.derivative.gt(l.splat(LEAST_OWN_SHARE) * fit.whole) & found;
    let derivative = l.select(informative, fit.derivative, one);
    let inv_spread = one / fit.spread;
    let along_t1 = t1_a * fit.a_share + t1_b * fit.b_share + t1_rate / b;
    let along_m0 = m0_a * fit.a_share + m0_b * fit.b_share;
    let across_t1 = t1_a * fit.mean_e + t1_b;
    let across_m0 = m0_a * fit.mean_e + m0_b;
    let t1_variance = t1_a * t1_a * per_sample + across_t1 * across_t1 * inv_spread + along_t1 * along_t1 / derivative;
    let m0_variance = m0_a * m0_a * per_sample + across_m0 * across_m0 * inv_spread + along_m0 * along_m0 / derivative;

    let (outside_short, outside_long) = match t.readout {
        Readout::Single => (l.mask(false), l.mask(false)),
        Readout::LookLocker => (found & t1.lt(l.splat(t.shortest_t1)), found & t1.gt(l.splat(t.longest_t1))),
    };
    let estimate = Estimate {
        unit: top * l.splat(t.scale),
        signal,
        usable: l.mask(true),
        found: found & !outside_short & !outside_long,
        at_shortest: at_shortest | outside_short,
        at_longest: at_longest | outside_long,
        converged,
        informative,
        t1: l.select(outside_short, one, t1),
        t1_per_sigma: t1_variance.sqrt(),
        m0,
        m0_per_sigma: m0_variance.sqrt(),
        sse: fit.sse,
        total,
    };
    results::write(l, t.n - 3, t.noise, curve, &estimate, rows);
}
