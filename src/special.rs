//! Special functions that closed forms need.

/// Logarithm of the gamma function for x > 0: Lanczos' approximation with g = 7, nine terms.
pub(crate) fn ln_gamma(x: f64) -> f64 {
    #[expect(clippy::excessive_precision, reason = "the coefficients as published")]
    const LANCZOS: [f64; 9] = [
        0.999_999_999_999_809_93,
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_13,
        -176.615_029_162_140_59,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_571_6e-6,
        1.505_632_735_149_311_6e-7,
    ];
    let x = x - 1.0;
    let t = x + 7.5;
    let sum = LANCZOS.iter().enumerate().skip(1).fold(LANCZOS[0], |sum, (i, c)| sum + c / (x + i as f64));
    0.5 * std::f64::consts::TAU.ln() + (x + 0.5) * t.ln() - t + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::ln_gamma;

    #[test]
    fn factorials_and_halves() {
        let mut factorial = 1.0f64;
        for n in 1..=20 {
            factorial *= f64::from(n);
            let error = ln_gamma(f64::from(n) + 1.0) - factorial.ln();
            assert!(error.abs() < 1e-13 * factorial.ln().max(1.0), "{n}: {error}");
        }
        assert!((ln_gamma(0.5) - 0.5 * std::f64::consts::PI.ln()).abs() < 1e-14);
    }
}
