//! Round numbers on axes, and numbers in words.

/// Positions and texts of an axis.
pub(crate) struct Ticks {
    pub(crate) values: Vec<f64>,
    pub(crate) labels: Vec<String>,
    /// The power of ten that the labels leave out; 0 for none.
    pub(crate) exponent: i32,
}

impl Ticks {
    /// Round numbers within a range, about `wanted` of them.
    pub(crate) fn new(low: f64, high: f64, wanted: usize) -> Self {
        let span = high - low;
        if !(span.is_finite() && span > 0.0) {
            return Self { values: Vec::new(), labels: Vec::new(), exponent: 0 };
        }
        let raw = span / wanted.max(2) as f64;
        let magnitude = 10f64.powi(raw.log10().floor() as i32);
        // The nearest of the round steps, by ratio.
        let step = match raw / magnitude {
            ratio if ratio < 2f64.sqrt() => magnitude,
            ratio if ratio < 10f64.sqrt() => 2.0 * magnitude,
            ratio if ratio < 50f64.sqrt() => 5.0 * magnitude,
            _ => 10.0 * magnitude,
        };
        let (first, last) = ((low / step - 1e-6).ceil(), (high / step + 1e-6).floor());
        let values: Vec<f64> = (0..=(last - first).max(0.0) as usize).map(|i| (first + i as f64) * step).collect();
        let largest = values.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        let power = if largest > 0.0 { largest.log10().floor() as i32 } else { 0 };
        let exponent = if power >= 5 || power <= -4 { power } else { 0 };
        // Enough digits that neighbouring labels differ.
        let decimals = (exponent - (step * 1.000_001).log10().floor() as i32).clamp(0, 15) as usize;
        let labels = values.iter().map(|v| minus(&format!("{:.decimals$}", v / 10f64.powi(exponent)))).collect();
        Self { values, labels, exponent }
    }

    /// The same for times: steps that a clock has, and `m:ss` where the range reaches two minutes.
    pub(crate) fn seconds(low: f64, high: f64, wanted: usize) -> Self {
        let span = high - low;
        if !(span.is_finite() && span > 0.0) || clock_style(high) == ClockStyle::Seconds {
            return Self::new(low, high, wanted);
        }
        let raw = span / wanted.max(2) as f64;
        let steps = [5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0, 14400.0];
        let step = *steps.iter().min_by(|a, b| (*a / raw).ln().abs().total_cmp(&(*b / raw).ln().abs())).unwrap_or(&raw);
        if !(2.5..=20000.0).contains(&raw) {
            return Self::new(low, high, wanted);
        }
        let (first, last) = ((low / step - 1e-6).ceil(), (high / step + 1e-6).floor());
        let values: Vec<f64> = (0..=(last - first).max(-1.0) as i64).map(|i| (first + i as f64) * step).collect();
        let labels = values.iter().map(|v| clock(*v, ClockStyle::Minutes, 0)).collect();
        Self { values, labels, exponent: 0 }
    }

    /// `×10⁵`, or nothing.
    pub(crate) fn factor(&self) -> Option<String> {
        (self.exponent != 0).then(|| format!("×10{}", raised(self.exponent)))
    }
}

/// How times are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClockStyle {
    /// `95 s`.
    Seconds,
    /// `1:35`.
    Minutes,
}

/// Seconds up to two minutes, then minutes and seconds.
pub(crate) fn clock_style(longest_s: f64) -> ClockStyle {
    if longest_s < 120.0 { ClockStyle::Seconds } else { ClockStyle::Minutes }
}

/// A time in a style, with so many decimals, without a unit.
pub(crate) fn clock(seconds: f64, style: ClockStyle, decimals: usize) -> String {
    match style {
        ClockStyle::Seconds => minus(&format!("{seconds:.decimals$}")),
        ClockStyle::Minutes => {
            // Rounded before it is split, so that 59.9 becomes 1:00 and never 0:60.
            let unit = 10f64.powi(decimals as i32);
            let size = (seconds.abs() * unit).round() / unit;
            let (minutes, rest) = ((size / 60.0).floor(), size % 60.0);
            let width = if decimals > 0 { decimals + 3 } else { 2 };
            let sign = if seconds < 0.0 && size > 0.0 { "\u{2212}" } else { "" };
            format!("{sign}{minutes:.0}:{rest:0width$.decimals$}")
        }
    }
}

/// A real minus sign instead of the hyphen; no negative zero.
fn minus(text: &str) -> String {
    match text.strip_prefix('-') {
        Some(rest) if rest.chars().all(|c| c == '0' || c == '.') => rest.into(),
        Some(rest) => format!("\u{2212}{rest}"),
        None => text.into(),
    }
}

fn raised(number: i32) -> String {
    let digits = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    number.to_string().chars().map(|c| c.to_digit(10).map_or('⁻', |d| digits[d as usize])).collect()
}

/// A number with about three significant digits, for sentences and legends.
pub(crate) fn number(value: f64) -> String {
    if !value.is_finite() {
        return "none".into();
    }
    let size = value.abs();
    if size == 0.0 {
        return "0".into();
    }
    let power = size.log10().floor() as i32;
    if !(-3..5).contains(&power) {
        return format!("{} × 10{}", minus(&format!("{:.2}", value / 10f64.powi(power))), raised(power));
    }
    let text = format!("{value:.*}", (2 - power).clamp(0, 5) as usize);
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    minus(text)
}

/// A count with thin groups of three digits: `12 345`.
pub(crate) fn count(value: usize) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) && digits.len() > 4 {
            text.push('\u{a0}');
        }
        text.push(c);
    }
    text
}

/// A unit as printed: `a.u./s^2` with a raised 2, nothing for pure numbers.
pub(crate) fn unit(text: &str) -> String {
    if text == "1" || text == "label" {
        return String::new();
    }
    text.replace("^2", "²").replace("^3", "³").replace("^-1", "⁻¹")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let ticks = Ticks::new(1.3, 58.2, 5);
        assert_eq!(ticks.labels, ["10", "20", "30", "40", "50"]);
        assert_eq!(Ticks::new(0.0, 1.0, 5).labels, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(Ticks::new(-0.5, 0.5, 4).labels, ["−0.4", "−0.2", "0.0", "0.2", "0.4"]);
        let large = Ticks::new(0.0, 420_000.0, 4);
        assert_eq!((large.labels.join(" "), large.factor()), ("0 1 2 3 4".into(), Some("×10⁵".into())));
        let small = Ticks::new(0.0, 4.2e-7, 4);
        assert_eq!((small.labels.join(" "), small.factor()), ("0 1 2 3 4".into(), Some("×10⁻⁷".into())));
        assert!(Ticks::new(1.0, 1.0, 5).values.is_empty());
        assert!(Ticks::new(f64::NAN, 1.0, 5).values.is_empty());
        for (low, high) in [(-3.4e38, 3.4e38), (1e6, 1e6 + 1.0), (1e-40, 2e-40), (7.0, 7.1)] {
            let ticks = Ticks::new(low, high, 5);
            assert!((2..9).contains(&ticks.values.len()), "{low} {high}: {:?}", ticks.values);
            assert!(ticks.labels.windows(2).all(|w| w[0] != w[1]), "{:?}", ticks.labels);
        }
    }

    #[test]
    fn times_read_like_a_clock() {
        let minutes = |seconds, decimals| clock(seconds, ClockStyle::Minutes, decimals);
        let texts = [minutes(95.0, 0), minutes(59.9, 0), minutes(59.94, 1), minutes(-30.2, 0), minutes(3599.96, 1)];
        assert_eq!(texts, ["1:35", "1:00", "0:59.9", "\u{2212}0:30", "60:00.0"]);
        assert_eq!(clock(95.04, ClockStyle::Seconds, 1), "95.0");
        assert_eq!(Ticks::seconds(0.0, 240.0, 5).labels, ["0:00", "1:00", "2:00", "3:00", "4:00"]);
        assert_eq!(Ticks::seconds(3.0, 60.0, 3).labels, ["20", "40", "60"]);
        for (low, high) in [(0.0, 370.0), (100.0, 130.0), (5000.0, 5001.0), (0.0, 1e6), (-100.0, 300.0)] {
            let ticks = Ticks::seconds(low, high, 5);
            assert!((2..=9).contains(&ticks.values.len()), "{low} {high}: {:?}", ticks.labels);
            assert!(ticks.values.iter().all(|v| (low - 1e-3..=high + 1e-3).contains(v)));
        }
        assert!(Ticks::seconds(2.0, 2.0, 5).values.is_empty());
    }

    #[test]
    fn numbers_read_well() {
        let texts = [0.0, 12.345, 650.0, 1234.6, -0.0123, 2.0e7, 3.1e-5, f64::NAN].map(number);
        assert_eq!(texts, ["0", "12.3", "650", "1235", "−0.0123", "2.00 × 10⁷", "3.10 × 10⁻⁵", "none"]);
        assert_eq!(count(1234), "1234");
        assert_eq!(count(1_234_567), "1\u{a0}234\u{a0}567");
        assert_eq!(unit("a.u./s^2"), "a.u./s²");
    }
}
