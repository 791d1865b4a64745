//! Charts as SVG within the page: crisp at any size, their text can be selected, their colours follow the page.

use std::fmt::Write;

use super::html::escaped;
use crate::render::ticks::Ticks;

/// Colours that the page's style has.
pub(super) const COLORS: usize = 6;

const WIDTH: f64 = 460.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 52.0;
const PLOT: f64 = 200.0;
const FOOT: f64 = 46.0;
const ENTRY: f64 = 19.0;

/// What the numbers of an axis are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Axis {
    Number,
    /// Seconds, written as m:ss from two minutes on.
    Time,
}

/// A line chart.
pub(super) struct Chart {
    title: String,
    x_name: String,
    y_name: String,
    x_axis: Axis,
    y_axis: Axis,
    x: (f64, f64),
    y: (f64, f64),
    marks: String,
    legend: Vec<(usize, String)>,
    identifier: String,
}

impl Chart {
    /// A chart with this name in the page; the ranges are widened to round numbers' neighbourhood by the caller.
    pub(super) fn new(identifier: &str, title: &str, x: (f64, f64), y: (f64, f64)) -> Self {
        let sound = |(low, high): (f64, f64)| {
            if low.is_finite() && high.is_finite() && low < high { (low, high) } else { (0.0, 1.0) }
        };
        Self {
            title: title.into(),
            x_name: String::new(),
            y_name: String::new(),
            x_axis: Axis::Number,
            y_axis: Axis::Number,
            x: sound(x),
            y: sound(y),
            marks: String::new(),
            legend: Vec::new(),
            identifier: identifier.into(),
        }
    }

    pub(super) fn x_axis(mut self, name: &str, axis: Axis) -> Self {
        (self.x_name, self.x_axis) = (name.into(), axis);
        self
    }

    pub(super) fn y_axis(mut self, name: &str, axis: Axis) -> Self {
        (self.y_name, self.y_axis) = (name.into(), axis);
        self
    }

    fn place(&self, x: f64, y: f64) -> (f64, f64) {
        let across = (x - self.x.0) / (self.x.1 - self.x.0);
        let up = (y - self.y.0) / (self.y.1 - self.y.0);
        // What lies far outside is cut off anyway; no renderer needs its number.
        let up = up.clamp(-20.0, 20.0);
        (LEFT + across.clamp(-20.0, 20.0) * (WIDTH - LEFT - RIGHT), TOP + (1.0 - up) * PLOT)
    }

    fn path(&self, points: &[(f64, f64)]) -> String {
        let mut path = String::new();
        let mut begins = true;
        for (x, y) in points {
            if !x.is_finite() || y.is_nan() {
                begins = true;
                continue;
            }
            let (x, y) = self.place(*x, *y);
            let _ = write!(path, "{}{x:.1} {y:.1}", if begins { "M" } else { "L" });
            begins = false;
        }
        path
    }

    /// A curve; values that are NaN leave a gap.
    pub(super) fn curve(&mut self, color: usize, points: &[(f64, f64)]) {
        let path = self.path(points);
        let _ = writeln!(self.marks, "<path class=\"curve s{}\" d=\"{path}\"/>", color % COLORS);
    }

    /// A band between a lower and an upper curve with the same places; infinite ends are cut off at the frame.
    pub(super) fn band(&mut self, color: usize, points: &[(f64, f64, f64)]) {
        let sound: Vec<_> = points.iter().filter(|(x, l, h)| x.is_finite() && !l.is_nan() && !h.is_nan()).collect();
        let around =
            sound.iter().map(|(x, low, _)| (*x, *low)).chain(sound.iter().rev().map(|(x, _, high)| (*x, *high)));
        let path = self.path(&around.collect::<Vec<_>>());
        if !path.is_empty() {
            let _ = writeln!(self.marks, "<path class=\"band f{}\" d=\"{path}Z\"/>", color % COLORS);
        }
    }

    /// A dot.
    pub(super) fn dot(&mut self, color: usize, x: f64, y: f64) {
        if x.is_finite() && y.is_finite() {
            let (x, y) = self.place(x, y);
            let _ =
                writeln!(self.marks, "<circle class=\"f{}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.6\"/>", color % COLORS);
        }
    }

    /// A dot with its interval; infinite ends are cut off at the frame.
    pub(super) fn whisker(&mut self, color: usize, x: f64, [low, middle, high]: [f64; 3]) {
        if x.is_finite() && !low.is_nan() && !high.is_nan() {
            let ((px, from), (_, to)) = (self.place(x, low), self.place(x, high));
            let color = color % COLORS;
            let _ = writeln!(self.marks, "<path class=\"whisker s{color}\" d=\"M{px:.1} {from:.1}L{px:.1} {to:.1}\"/>");
        }
        self.dot(color, x, middle);
    }

    /// An entry below the chart.
    pub(super) fn legend(&mut self, color: usize, name: &str) {
        self.legend.push((color % COLORS, name.into()));
    }

    /// The finished chart; `description` says in words what is seen, for those who can't.
    pub(super) fn svg(&self, description: &str) -> String {
        // Digits and letters of the page's fonts are about so wide.
        let wide = |text: &str| 28.0 + 7.2 * text.chars().count() as f64;
        let (mut x, mut rows, mut entries) = (LEFT, 0usize, Vec::new());
        for (color, name) in &self.legend {
            if x > LEFT && x + wide(name) > WIDTH {
                (x, rows) = (LEFT, rows + 1);
            }
            entries.push((x, rows, *color, name));
            x += wide(name) + 6.0;
        }
        let legend_height = if entries.is_empty() { 0.0 } else { (rows + 1) as f64 * ENTRY + 4.0 };
        let height = TOP + PLOT + FOOT + legend_height;
        let (foot, right) = (TOP + PLOT, WIDTH - RIGHT);
        let id = &self.identifier;

        let mut out = format!(
            "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\">\
             <title id=\"{id}-t\">{}</title><desc id=\"{id}-d\">{}</desc>\n\
             <text class=\"name\" x=\"10\" y=\"19\">{}</text>\n\
             <clipPath id=\"{id}-c\"><rect x=\"{LEFT}\" y=\"{TOP}\" width=\"{}\" height=\"{PLOT}\"/></clipPath>\n",
            escaped(&self.title),
            escaped(description),
            escaped(&self.title),
            right - LEFT
        );
        let ticks = |axis: Axis, (low, high): (f64, f64), wanted: usize| match axis {
            Axis::Number => Ticks::new(low, high, wanted),
            Axis::Time => Ticks::seconds(low, high, wanted),
        };
        let (across, up) = (ticks(self.x_axis, self.x, 6), ticks(self.y_axis, self.y, 5));
        for (value, label) in up.values.iter().zip(&up.labels) {
            let y = self.place(self.x.0, *value).1;
            let _ = writeln!(
                out,
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/><text class=\"faint\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                LEFT - 7.0,
                y + 4.5
            );
        }
        for (value, label) in across.values.iter().zip(&across.labels) {
            let x = self.place(*value, self.y.0).0;
            let _ = writeln!(
                out,
                "<path class=\"axis\" d=\"M{x:.1} {foot}V{}\"/><text class=\"faint\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
                foot + 5.0,
                foot + 19.0
            );
        }
        let _ = writeln!(out, "<path class=\"axis\" d=\"M{LEFT} {TOP}V{foot}H{right}\"/>");
        let _ = writeln!(out, "<g clip-path=\"url(#{id}-c)\">\n{}</g>", self.marks);
        let name = |name: &str, ticks: &Ticks| match ticks.factor() {
            Some(factor) => format!("{name}, {factor}"),
            None => name.to_string(),
        };
        let _ = writeln!(
            out,
            "<text class=\"faint\" x=\"10\" y=\"{}\">{}</text><text class=\"faint\" x=\"{right}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            TOP - 9.0,
            escaped(&name(&self.y_name, &up)),
            foot + 36.0,
            escaped(&name(&self.x_name, &across))
        );
        for (x, row, color, name) in entries {
            let y = foot + FOOT + 10.0 + row as f64 * ENTRY;
            let _ = writeln!(
                out,
                "<path class=\"curve s{color}\" d=\"M{x:.1} {:.1}h18\"/><text x=\"{:.1}\" y=\"{y:.1}\">{}</text>",
                y - 4.5,
                x + 23.0,
                escaped(name)
            );
        }
        out + "</svg>"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_lie_where_the_axes_say() {
        let mut chart = Chart::new("c", "a <b>", (0.0, 10.0), (0.0, 1.0)).x_axis("time & place", Axis::Number);
        chart.curve(0, &[(0.0, 0.0), (10.0, 1.0), (5.0, f64::NAN), (5.0, 0.5), (10.0, 0.5)]);
        chart.whisker(9, 5.0, [0.25, 0.5, f64::INFINITY]);
        chart.band(2, &[(0.0, 0.0, 1.0), (10.0, 0.5, f64::INFINITY), (f64::NAN, 0.0, 0.0)]);
        let svg = chart.svg("what is seen");
        assert!(svg.contains("d=\"M58.0 252.0L446.0 52.0M252.0 152.0L446.0 152.0\""), "{svg}");
        assert!(svg.contains("M252.0 202.0L252.0 -3748.0") && svg.contains("class=\"whisker s3\""), "{svg}");
        assert!(svg.contains("a &lt;b&gt;") && svg.contains("time &amp; place") && svg.contains("what is seen"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn odd_ranges_give_charts() {
        for range in [(0.0, 0.0), (f64::NAN, 1.0), (1.0, f64::INFINITY), (5.0, 1.0)] {
            let mut chart = Chart::new("c", "t", range, range);
            chart.curve(0, &[(0.5, 0.5), (1e300, -1e300), (f64::INFINITY, 0.0)]);
            let svg = chart.svg("");
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }
}
