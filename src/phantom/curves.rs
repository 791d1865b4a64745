//! Closed-form enhancement curves: an oracle that shares no code with the kernels.
//!
//! Every curve is 0 up to its onset t_on; u = t - t_on below.
//!
//! | curve | value for u > 0 |
//! |---|---|
//! | none | 0 |
//! | ramp | h min(u / d, 1) |
//! | saturating | a (1 - exp(-u / τ)) |
//! | gamma-variate | h (u / αβ)^α exp(α - u / β) |
//! | triangle | h u / r up to u = r, then h (1 - (u - r) / f) down to 0 |
//! | wash-out | h (exp(-u / τ_out) - exp(-u / τ_in)) / N, N such that the largest value is h |

use crate::error::{Error, Result};
use crate::special::ln_gamma;

/// Enhancement against time, in closed form.
///
/// ```
/// use perfuse::phantom::curves::Enhancement;
/// let curve = Enhancement::saturating(10.0, 200.0, 30.0)?;
/// assert_eq!(curve.value(10.0), 0.0);
/// assert!((curve.value(40.0) - 200.0 * (1.0 - (-1.0f64).exp())).abs() < 1e-12);
/// assert!((curve.max_slope() - 200.0 / 30.0).abs() < 1e-12);
/// # Ok::<(), perfuse::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Enhancement {
    onset: f64,
    /// Largest value, or the value approached.
    height: f64,
    shape: Shape,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Shape {
    None,
    Ramp { duration: f64 },
    Saturating { tau: f64 },
    GammaVariate { alpha: f64, beta: f64 },
    Triangle { rise: f64, fall: f64 },
    WashOut { tau_in: f64, tau_out: f64 },
}

fn positive(name: &str, value: f64) -> Result<()> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(Error::setting(name, value, "give a positive, finite number"))
}

impl Enhancement {
    fn checked(onset_s: f64, height: f64, shape: Shape) -> Result<Self> {
        for (name, value) in [("onset", onset_s), ("height", height)] {
            if !value.is_finite() {
                return Err(Error::setting(name, value, "give a finite number"));
            }
        }
        Ok(Self { onset: onset_s, height, shape })
    }

    /// No enhancement at any time.
    pub fn none() -> Self {
        Self { onset: f64::NAN, height: 0.0, shape: Shape::None }
    }

    /// A straight rise to `height` in `duration_s` seconds, constant afterwards.
    ///
    /// # Errors
    /// [`Error::Setting`] if a number isn't finite or the duration isn't positive.
    pub fn ramp(onset_s: f64, height: f64, duration_s: f64) -> Result<Self> {
        positive("duration", duration_s)?;
        Self::checked(onset_s, height, Shape::Ramp { duration: duration_s })
    }

    /// A rise that approaches `plateau` with the time constant `tau_s`.
    ///
    /// # Errors
    /// [`Error::Setting`] if a number isn't finite or the time constant isn't positive.
    pub fn saturating(onset_s: f64, plateau: f64, tau_s: f64) -> Result<Self> {
        positive("tau", tau_s)?;
        Self::checked(onset_s, plateau, Shape::Saturating { tau: tau_s })
    }

    /// A first pass: the gamma-variate of shape `alpha` and scale `beta_s`, with its peak of `height` at
    /// `alpha * beta_s` after the onset.
    ///
    /// # Errors
    /// [`Error::Setting`] if a number isn't finite, `alpha` is below 1 (the slope would be infinite at the onset) or
    /// above 100, or `beta_s` isn't positive.
    pub fn gamma_variate(onset_s: f64, height: f64, alpha: f64, beta_s: f64) -> Result<Self> {
        positive("beta", beta_s)?;
        if !(1.0..=100.0).contains(&alpha) {
            return Err(Error::setting("alpha", alpha, "give a number from 1 to 100"));
        }
        Self::checked(onset_s, height, Shape::GammaVariate { alpha, beta: beta_s })
    }

    /// A straight rise to `height` in `rise_s` seconds and a straight fall back to 0 in `fall_s` seconds.
    ///
    /// # Errors
    /// [`Error::Setting`] if a number isn't finite or a duration isn't positive.
    pub fn triangle(onset_s: f64, height: f64, rise_s: f64, fall_s: f64) -> Result<Self> {
        positive("rise", rise_s)?;
        positive("fall", fall_s)?;
        Self::checked(onset_s, height, Shape::Triangle { rise: rise_s, fall: fall_s })
    }

    /// Two exponentials: wash-in with `tau_in_s`, wash-out with the longer `tau_out_s`, the peak being `height`.
    ///
    /// # Errors
    /// [`Error::Setting`] if a number isn't finite, a time constant isn't positive, or `tau_out_s` isn't at least 1 %
    /// longer than `tau_in_s` (nearer ones cancel in floating point).
    pub fn wash_out(onset_s: f64, height: f64, tau_in_s: f64, tau_out_s: f64) -> Result<Self> {
        positive("tau_in", tau_in_s)?;
        positive("tau_out", tau_out_s)?;
        if tau_out_s < 1.01 * tau_in_s {
            return Err(Error::setting("tau_out", tau_out_s, format!("give at least 1.01 tau_in ({tau_in_s} s)")));
        }
        Self::checked(onset_s, height, Shape::WashOut { tau_in: tau_in_s, tau_out: tau_out_s })
    }

    /// The onset in seconds: the last time at which the curve is 0 before it rises. `None` without enhancement.
    pub fn onset_s(&self) -> Option<f64> {
        (self.shape != Shape::None).then_some(self.onset)
    }

    /// The largest value, or the value that the curve approaches.
    pub fn height(&self) -> f64 {
        self.height
    }

    /// The time constant in seconds of a saturating rise; `None` for other curves.
    pub fn tau_s(&self) -> Option<f64> {
        match self.shape {
            Shape::Saturating { tau } => Some(tau),
            _ => None,
        }
    }

    /// Whether the curve leaves 0 so gently that the onset can't be seen: true for a gamma-variate. Its visible onset
    /// is taken as `crossing_s(0.05)`.
    pub fn has_smooth_foot(&self) -> bool {
        matches!(self.shape, Shape::GammaVariate { alpha, .. } if alpha > 1.0)
    }

    /// The first time in seconds at which the largest value is reached; `None` if it is only approached.
    pub fn peak_time_s(&self) -> Option<f64> {
        self.peak_after_onset().map(|u| self.onset + u)
    }

    fn peak_after_onset(&self) -> Option<f64> {
        match self.shape {
            Shape::None | Shape::Saturating { .. } => None,
            Shape::Ramp { duration } => Some(duration),
            Shape::GammaVariate { alpha, beta } => Some(alpha * beta),
            Shape::Triangle { rise, .. } => Some(rise),
            Shape::WashOut { tau_in, tau_out } => Some(tau_in * tau_out * (tau_out / tau_in).ln() / (tau_out - tau_in)),
        }
    }

    /// The value at a time in seconds.
    pub fn value(&self, time_s: f64) -> f64 {
        let u = time_s - self.onset;
        if self.shape == Shape::None || u <= 0.0 {
            return 0.0;
        }
        self.height * self.unit_value(u)
    }

    /// Value `u` seconds after the onset for a height of 1; `u` is positive.
    fn unit_value(&self, u: f64) -> f64 {
        match self.shape {
            Shape::None => 0.0,
            Shape::Ramp { duration } => (u / duration).min(1.0),
            Shape::Saturating { tau } => -(-u / tau).exp_m1(),
            Shape::GammaVariate { alpha, beta } => (alpha * (u / (alpha * beta)).ln() + alpha - u / beta).exp(),
            Shape::Triangle { rise, .. } if u <= rise => u / rise,
            Shape::Triangle { rise, fall } => (1.0 - (u - rise) / fall).max(0.0),
            Shape::WashOut { tau_in, tau_out } => {
                ((-u / tau_out).exp() - (-u / tau_in).exp()) / wash_out_norm(tau_in, tau_out)
            }
        }
    }

    /// The exact integral between two times in seconds: value times seconds, negative if `to_s` comes before `from_s`.
    pub fn integral(&self, from_s: f64, to_s: f64) -> f64 {
        if self.shape == Shape::None {
            return 0.0;
        }
        let area = |time: f64| self.unit_area((time - self.onset).max(0.0));
        self.height * (area(to_s) - area(from_s))
    }

    /// Integral from the onset to `u` seconds after it for a height of 1.
    fn unit_area(&self, u: f64) -> f64 {
        match self.shape {
            Shape::None => 0.0,
            Shape::Ramp { duration } if u <= duration => u * u / (2.0 * duration),
            Shape::Ramp { duration } => u - duration / 2.0,
            Shape::Saturating { tau } => u + tau * (-u / tau).exp_m1(),
            Shape::GammaVariate { alpha, beta } => {
                // h e^α (αβ)^-α β^(α+1) Γ(α+1) P(α+1, u/β), the large factors combined in the exponent.
                let factor = (alpha - alpha * alpha.ln() + ln_gamma(alpha + 1.0)).exp();
                beta * factor * gamma_p(alpha + 1.0, u / beta)
            }
            Shape::Triangle { rise, .. } if u <= rise => u * u / (2.0 * rise),
            Shape::Triangle { rise, fall } => {
                let v = (u - rise).min(fall);
                rise / 2.0 + v - v * v / (2.0 * fall)
            }
            Shape::WashOut { tau_in, tau_out } => {
                (tau_in * (-u / tau_in).exp_m1() - tau_out * (-u / tau_out).exp_m1()) / wash_out_norm(tau_in, tau_out)
            }
        }
    }

    /// The time in seconds at which the curve first reaches a fraction (0 to 1, both excluded) of its height; `None`
    /// without enhancement or outside that range. Closed form, except for gamma-variate and wash-out (bisection to
    /// the last digit).
    pub fn crossing_s(&self, fraction: f64) -> Option<f64> {
        if !(fraction > 0.0 && fraction < 1.0) {
            return None;
        }
        let u = match self.shape {
            Shape::None => return None,
            Shape::Ramp { duration } => fraction * duration,
            Shape::Saturating { tau } => -tau * (-fraction).ln_1p(),
            Shape::Triangle { rise, .. } => fraction * rise,
            Shape::GammaVariate { .. } | Shape::WashOut { .. } => {
                let (mut low, mut high) = (0.0, self.peak_after_onset()?);
                for _ in 0..200 {
                    let middle = 0.5 * (low + high);
                    if middle <= low || middle >= high {
                        break;
                    }
                    if self.unit_value(middle) < fraction { low = middle } else { high = middle }
                }
                high
            }
        };
        Some(self.onset + u)
    }

    /// Seconds from the first crossing of 10 % to the first crossing of 90 % of the height; `None` without enhancement.
    pub fn rise_time_s(&self) -> Option<f64> {
        Some(self.crossing_s(0.9)? - self.crossing_s(0.1)?)
    }

    /// The largest time derivative in absolute value, with the height's sign: value per second.
    pub fn max_slope(&self) -> f64 {
        match self.shape {
            Shape::None => 0.0,
            Shape::Ramp { duration } => self.height / duration,
            Shape::Saturating { tau } => self.height / tau,
            Shape::Triangle { rise, .. } => self.height / rise,
            Shape::GammaVariate { alpha, beta } => {
                // At the inflection u = β(α - √α), where α/u - 1/β = 1/(β(√α - 1)) for α > 1; α = 1 starts steepest.
                if alpha <= 1.0 + 1e-9 {
                    return self.height * std::f64::consts::E / beta;
                }
                let u = beta * (alpha - alpha.sqrt());
                self.height * self.unit_value(u) * (alpha / u - 1.0 / beta)
            }
            Shape::WashOut { tau_in, tau_out } => {
                self.height * (1.0 / tau_in - 1.0 / tau_out) / wash_out_norm(tau_in, tau_out)
            }
        }
    }
}

/// The largest value of exp(-u/τ_out) - exp(-u/τ_in).
fn wash_out_norm(tau_in: f64, tau_out: f64) -> f64 {
    let u = tau_in * tau_out * (tau_out / tau_in).ln() / (tau_out - tau_in);
    (-u / tau_out).exp() - (-u / tau_in).exp()
}

/// Regularised lower incomplete gamma function P(a, x): a series below a + 1, a continued fraction above.
fn gamma_p(a: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    let front = (a * x.ln() - x - ln_gamma(a)).exp();
    if x < a + 1.0 {
        let (mut term, mut sum, mut n) = (1.0 / a, 1.0 / a, a);
        for _ in 0..1000 {
            n += 1.0;
            term *= x / n;
            sum += term;
            if term < sum * 1e-17 {
                break;
            }
        }
        return front * sum;
    }
    // Lentz's method.
    let tiny = 1e-300;
    let mut b = x + 1.0 - a;
    let (mut c, mut d) = (1.0 / tiny, 1.0 / b);
    let mut fraction = d;
    for i in 1..1000 {
        let n = f64::from(i);
        let an = n * (a - n);
        b += 2.0;
        d = 1.0 / (an * d + b).abs().max(tiny).copysign(an * d + b);
        c = (b + an / c).abs().max(tiny).copysign(b + an / c);
        let step = d * c;
        fraction *= step;
        if (step - 1.0).abs() < 1e-16 {
            break;
        }
    }
    1.0 - front * fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Enhancement> {
        vec![
            Enhancement::none(),
            Enhancement::ramp(12.5, 300.0, 40.0).unwrap(),
            Enhancement::saturating(12.5, 300.0, 30.0).unwrap(),
            Enhancement::saturating(12.5, -80.0, 5.0).unwrap(),
            Enhancement::gamma_variate(12.5, 300.0, 3.0, 1.8).unwrap(),
            Enhancement::gamma_variate(12.5, 300.0, 1.0, 4.0).unwrap(),
            Enhancement::gamma_variate(12.5, 300.0, 60.0, 0.5).unwrap(),
            Enhancement::triangle(12.5, 300.0, 20.0, 50.0).unwrap(),
            Enhancement::wash_out(12.5, 300.0, 15.0, 120.0).unwrap(),
            Enhancement::wash_out(12.5, 300.0, 100.0, 101.0).unwrap(),
        ]
    }

    /// Simpson's rule over pieces that end at the kinks.
    fn quadrature(curve: &Enhancement, from: f64, to: f64) -> f64 {
        let mut knots = vec![from, to];
        knots.extend([12.5, 32.5, 52.5, 82.5].into_iter().filter(|k| *k > from && *k < to));
        knots.sort_by(f64::total_cmp);
        knots
            .windows(2)
            .map(|w| {
                let n = 20_000;
                let h = (w[1] - w[0]) / f64::from(n);
                let inner: f64 =
                    (1..n).map(|i| curve.value(w[0] + f64::from(i) * h) * if i % 2 == 1 { 4.0 } else { 2.0 }).sum();
                h / 3.0 * (curve.value(w[0]) + inner + curve.value(w[1]))
            })
            .sum()
    }

    #[test]
    fn integrals_match_fine_quadrature() {
        for curve in all() {
            for (from, to) in [(0.0, 200.0), (0.0, 13.0), (14.0, 15.0), (20.0, 47.0), (0.0, 5.0), (100.0, 101.0)] {
                let (exact, numeric) = (curve.integral(from, to), quadrature(&curve, from, to));
                let scale = curve.height().abs() * (to - from);
                assert!((exact - numeric).abs() <= 1e-9 * scale.max(1e-9), "{curve:?} {from} {to}: {exact} {numeric}");
                assert_eq!(curve.integral(to, from), -exact);
            }
        }
    }

    #[test]
    fn peaks_crossings_and_slopes_match_a_fine_scan() {
        for curve in all().into_iter().skip(1) {
            let onset = curve.onset_s().unwrap();
            assert_eq!(curve.value(onset), 0.0);
            let step = 1e-3;
            let values: Vec<f64> = (0..400_000).map(|i| curve.value(f64::from(i) * step)).collect();
            let sign = curve.height().signum();
            let largest = values.iter().fold(0.0f64, |m, v| m.max(sign * v));
            assert!((largest - curve.height().abs()).abs() < 1e-5 * largest, "{curve:?}: {largest}");
            if let Some(peak) = curve.peak_time_s() {
                assert!((curve.value(peak) - curve.height()).abs() < 1e-9 * largest, "{curve:?}");
            }
            for fraction in [0.05, 0.1, 0.5, 0.9] {
                let time = curve.crossing_s(fraction).unwrap();
                assert!((curve.value(time) / curve.height() - fraction).abs() < 1e-9, "{curve:?} {fraction}");
            }
            assert!(curve.rise_time_s().unwrap() > 0.0);
            // The steepest secant of the rise approaches the steepest tangent from below.
            let steepest = values.windows(2).fold(0.0f64, |m, w| m.max(sign * (w[1] - w[0]) / step));
            let exact = sign * curve.max_slope();
            assert!(steepest <= exact * (1.0 + 1e-6) && steepest > exact * 0.999, "{curve:?}: {steepest} {exact}");
        }
    }

    #[test]
    fn refuses_what_has_no_curve() {
        assert!(Enhancement::ramp(0.0, 1.0, 0.0).is_err());
        assert!(Enhancement::ramp(f64::NAN, 1.0, 1.0).is_err());
        assert!(Enhancement::saturating(0.0, f64::INFINITY, 1.0).is_err());
        assert!(Enhancement::gamma_variate(0.0, 1.0, 0.5, 1.0).is_err());
        assert!(Enhancement::wash_out(0.0, 1.0, 10.0, 10.0).is_err());
        assert!(Enhancement::triangle(0.0, 1.0, 1.0, -1.0).is_err());
        assert_eq!(Enhancement::none().onset_s(), None);
        assert_eq!(Enhancement::none().crossing_s(0.5), None);
    }
}
