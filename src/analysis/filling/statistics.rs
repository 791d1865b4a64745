//! The few statistics that the analysis needs: quantiles, and Student's t.

/// A quantile (0 to 1) of numbers, linear between order statistics; `None` if there are none.
pub(super) fn quantile(values: &[f64], fraction: f64) -> Option<f64> {
    let mut sorted: Vec<f64> = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    let place = fraction * last as f64;
    let below = place.floor() as usize;
    let share = place - below as f64;
    let (low, high) = (sorted[below], sorted[(below + 1).min(last)]);
    // Infinite ones (voxels that never fill) must not give 0 * infinity or infinity - infinity.
    Some(if share == 0.0 || low == high { low } else { low + share * (high - low) })
}

/// The median.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    quantile(values, 0.5)
}

/// Probability that Student's t with so many degrees of freedom exceeds |t| in magnitude.
pub(super) fn student_two_sided(t: f64, degrees: f64) -> f64 {
    if t.is_nan() {
        return f64::NAN;
    }
    beta_regularised(degrees / (degrees + t * t), degrees / 2.0, 0.5)
}

/// The t that is exceeded in magnitude with this probability.
pub(super) fn student_critical(probability: f64, degrees: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1e3);
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if student_two_sided(middle, degrees) > probability { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// Regularised incomplete beta function I_x(a, b), by Lentz's continued fraction (Abramowitz and Stegun 26.5.8).
fn beta_regularised(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - beta_regularised(1.0 - x, b, a);
    }
    let front = (a * x.ln() + b * (1.0 - x).ln() + ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b)).exp() / a;
    let tiny = 1e-300;
    let guard = |v: f64| if v.abs() < tiny { tiny } else { v };
    let (mut c, mut d) = (1.0, 1.0 / guard(1.0 - (a + b) * x / (a + 1.0)));
    let mut fraction = d;
    for i in 1..500 {
        let m = f64::from(i);
        for term in [
            m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0)),
        ] {
            d = 1.0 / guard(1.0 + term * d);
            c = guard(1.0 + term / c);
            fraction *= c * d;
        }
        if (c * d - 1.0).abs() < 1e-15 {
            break;
        }
    }
    front * fraction
}

/// ln Gamma(x) for x > 0: Stirling's series after shifting x beyond 10.
fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut shift) = (x, 0.0);
    while x < 10.0 {
        shift -= x.ln();
        x += 1.0;
    }
    let inverse = 1.0 / x;
    let square = inverse * inverse;
    let series = inverse * (1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square * (1.0 / 1680.0))));
    shift + (x - 0.5) * x.ln() - x + 0.5 * std::f64::consts::TAU.ln() + series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn student_agrees_with_printed_tables() {
        // Two-sided 5 % points.
        for (degrees, critical) in [(1.0, 12.706), (5.0, 2.571), (10.0, 2.228), (30.0, 2.042), (1000.0, 1.962)] {
            assert!((student_critical(0.05, degrees) - critical).abs() < 6e-4, "{degrees}");
            // Three printed decimals: half of the last one times twice the density there, 0.06 at most.
            assert!((student_two_sided(critical, degrees) - 0.05).abs() < 6e-5, "{degrees}");
        }
        // Closed forms: Cauchy for one degree.
        assert!((student_two_sided(1.0, 1.0) - 0.5).abs() < 1e-12);
        assert_eq!(student_two_sided(0.0, 7.0), 1.0);
    }

    #[test]
    fn quantiles_interpolate_and_bear_infinity() {
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(quantile(&[3.0, 1.0, 2.0], 0.5), Some(2.0));
        assert_eq!(quantile(&[1.0, 2.0], 0.25), Some(1.25));
        assert_eq!(quantile(&[1.0, 2.0, f64::INFINITY], 0.5), Some(2.0));
        assert_eq!(quantile(&[1.0, f64::INFINITY, f64::INFINITY], 0.7), Some(f64::INFINITY));
    }
}
