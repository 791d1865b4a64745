//! The curve of a voxel or a region, with what was found in it.

use std::ops::Range;

use super::canvas::{Align, Canvas, GRID, INK, PAPER, Pen};
use super::picture::Picture;
use super::text::{Line, Weight};
use super::ticks::{self, Ticks};
use crate::error::{Error, Result};

const CURVE: [u8; 3] = [0, 94, 162];
const ONSET: [u8; 3] = [0, 128, 84];
const PEAK: [u8; 3] = [196, 78, 0];
const SLOPE: [u8; 3] = [178, 24, 60];
const BAND: [u8; 3] = [221, 228, 238];
const BASELINE: [u8; 3] = [92, 108, 132];
/// Further curves and fits, told apart without red and green.
const FURTHER: [[u8; 3]; 5] = [[128, 90, 174], [86, 180, 233], [230, 159, 0], [204, 121, 167], [0, 158, 115]];

/// A PNG of a curve: samples as dots joined by a thin line, baseline, onset, peak and steepest rise marked, further
/// curves and fits if given. All times are in seconds on the series' own clock.
///
/// ```
/// use perfuse::render::CurvePlot;
/// let times: Vec<f64> = (0..40).map(|i| 3.0 * f64::from(i)).collect();
/// let values: Vec<f64> = times.iter().map(|t| 100.0 + 80.0 * (1.0 - (-(t - 20.0f64).max(0.0) / 15.0).exp())).collect();
/// let picture = CurvePlot::new(&times, &values)
///     .title("Voxel 12, 30, 4")
///     .unit("a.u.")
///     .baseline(0..6, 100.0)
///     .onset(20.0, Some(0.8))
///     .peak(117.0, 180.0)
///     .slope(24.0, 118.0, 4.6)
///     .render()?;
/// assert_eq!((picture.width(), picture.height()), (1200, 760));
/// # Ok::<(), perfuse::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct CurvePlot {
    curves: Vec<Curve>,
    title: String,
    value_name: String,
    unit: String,
    baseline: Option<(Range<usize>, f64)>,
    onset: Option<(f64, Option<f64>)>,
    peak: Option<(f64, f64)>,
    slope: Option<(f64, f64, f64)>,
    size: (u32, u32),
}

#[derive(Debug, Clone)]
struct Curve {
    name: String,
    times: Vec<f64>,
    values: Vec<f64>,
    /// Dots and a thin line for samples, a strong line for fits.
    sampled: bool,
}

impl CurvePlot {
    /// The curve: times in seconds, values. Values that aren't finite leave a gap.
    pub fn new(times_s: &[f64], values: &[f64]) -> Self {
        let curve = Curve { name: "samples".into(), times: times_s.to_vec(), values: values.to_vec(), sampled: true };
        Self {
            curves: vec![curve],
            title: String::new(),
            value_name: "signal".into(),
            unit: String::new(),
            baseline: None,
            onset: None,
            peak: None,
            slope: None,
            size: (1200, 760),
        }
    }

    /// What the picture shows, above it.
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.title = title.into();
        self
    }

    /// What the samples are called in the legend (`samples` unless told).
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.curves[0].name = name.into();
        self
    }

    /// Draws the curve itself as a strong line, without dots: a function rather than samples.
    pub fn as_line(mut self) -> Self {
        self.curves[0].sampled = false;
        self
    }

    /// What the values are (`signal` unless told).
    pub fn value_name(mut self, name: impl Into<String>) -> Self {
        self.value_name = name.into();
        self
    }

    /// The unit of the values.
    pub fn unit(mut self, unit: impl Into<String>) -> Self {
        self.unit = unit.into();
        self
    }

    /// The baseline frames (from zero, end excluded) and their level.
    pub fn baseline(mut self, frames: Range<usize>, level: f64) -> Self {
        self.baseline = Some((frames, level));
        self
    }

    /// The onset on the series' own clock (the map `onset` plus the time of the first frame) and its standard error, in
    /// seconds.
    pub fn onset(mut self, time_s: f64, standard_error_s: Option<f64>) -> Self {
        self.onset = Some((time_s, standard_error_s));
        self
    }

    /// The peak: its time in seconds and the curve's value there (baseline plus enhancement).
    pub fn peak(mut self, time_s: f64, value: f64) -> Self {
        self.peak = Some((time_s, value));
        self
    }

    /// The steepest rise: the middle of the line in time and value, and its slope per second.
    pub fn slope(mut self, time_s: f64, value: f64, per_second: f64) -> Self {
        self.slope = Some((time_s, value, per_second));
        self
    }

    /// A fitted curve, as a line.
    pub fn overlay(mut self, name: impl Into<String>, times_s: &[f64], values: &[f64]) -> Self {
        let (times, values) = (times_s.to_vec(), values.to_vec());
        self.curves.push(Curve { name: name.into(), times, values, sampled: false });
        self
    }

    /// A further sampled curve, as dots and a line.
    pub fn curve(mut self, name: impl Into<String>, times_s: &[f64], values: &[f64]) -> Self {
        let (times, values) = (times_s.to_vec(), values.to_vec());
        self.curves.push(Curve { name: name.into(), times, values, sampled: true });
        self
    }

    /// Width and height of the picture in pixels: 480 to 4000 and 360 to 4000 (1200 × 760 unless told).
    pub fn size(mut self, width: u32, height: u32) -> Self {
        self.size = (width, height);
        self
    }

    /// Draws the picture. Marks that aren't finite are left out.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if a curve has not as many times as values; [`Error::Setting`] if no value is finite or the
    /// size is out of range.
    pub fn render(&self) -> Result<Picture> {
        let (width, height) = self.size;
        if !(480..=4000).contains(&width) || !(360..=4000).contains(&height) {
            return Err(Error::setting(
                "size",
                format!("{width} x {height}"),
                "give 480 to 4000 by 360 to 4000 pixels",
            ));
        }
        for curve in &self.curves {
            if curve.times.len() != curve.values.len() {
                let lengths = format!("{} values for {} times", curve.values.len(), curve.times.len());
                return Err(Error::mismatch(format!("curve {:?}", curve.name), "its times", lengths));
            }
        }
        let mut canvas = Canvas::new(width, height)?;
        let (width, height) = (width as f32, height as f32);
        let title = Line::wrap(&self.title, 26.0, Weight::SemiBold, width - 2.0 * MARGIN, 2);
        for (i, line) in title.iter().enumerate() {
            canvas.text(line, MARGIN, MARGIN + 22.0 + 34.0 * i as f32, Align::Start, INK);
        }
        let mut y = MARGIN + 34.0 * title.len() as f32 + 4.0;

        let (times, values) = self.extent()?;
        let y_ticks = Ticks::new(values.0, values.1, ((height - y) / 80.0) as usize);
        let x_ticks = Ticks::new(times.0, times.1, (width / 130.0) as usize);
        let labels: Vec<Line> = y_ticks.labels.iter().map(|label| Line::plain(label, 18.0, Weight::Regular)).collect();
        let left = MARGIN + 40.0 + labels.iter().map(Line::width).fold(0.0, f32::max);

        y = self.legend(&mut canvas, left, y, width - MARGIN);
        y = self.marks_above(
            &mut canvas,
            y,
            |time| left + ((time - times.0) / (times.1 - times.0)) as f32 * (width - MARGIN - left),
            (left, width - MARGIN),
        );
        let bottom = height - MARGIN - 62.0;
        if bottom - y < 60.0 {
            return Err(Error::setting("size", format!("{width} x {height}"), "give more height for so many curves"));
        }
        let axes = Axes { left, right: width - MARGIN, top: y, bottom, times, values };

        for (value, label) in y_ticks.values.iter().zip(&labels) {
            let at = axes.y(*value);
            canvas.line(&[(axes.left, at), (axes.right, at)], Pen::new(GRID, 1.0));
            canvas.text(label, axes.left - 10.0, at + 6.0, Align::End, INK);
        }
        self.baseline_band(&mut canvas, &axes);
        self.guides(&mut canvas, &axes);
        self.slope_line(&mut canvas, &axes);
        for (i, curve) in self.curves.iter().enumerate() {
            draw_curve(&mut canvas, &axes, curve, self.color(i));
        }
        if let Some((time, value)) = self.finite_peak() {
            canvas.disc(axes.x(time), axes.y(value), 8.0, PAPER);
            canvas.ring(axes.x(time), axes.y(value), 7.0, Pen::new(PEAK, 3.0));
            canvas.disc(axes.x(time), axes.y(value), 3.0, PEAK);
        }

        canvas.line(&[(axes.left, axes.top), (axes.left, axes.bottom), (axes.right, axes.bottom)], Pen::new(INK, 1.6));
        for (time, label) in x_ticks.values.iter().zip(&x_ticks.labels) {
            let at = axes.x(*time);
            canvas.line(&[(at, axes.bottom), (at, axes.bottom + 6.0)], Pen::new(INK, 1.6));
            canvas.text(&Line::plain(label, 18.0, Weight::Regular), at, axes.bottom + 26.0, Align::Middle, INK);
        }
        let axis = |name: &str, factor: Option<String>, unit: &str| {
            let unit = [factor.unwrap_or_default(), ticks::unit(unit)].join(" ");
            let text = if unit.trim().is_empty() { name.to_string() } else { format!("{name} ({})", unit.trim()) };
            Line::plain(&text, 20.0, Weight::Regular)
        };
        let middle = 0.5 * (axes.left + axes.right);
        canvas.text(&axis("time", x_ticks.factor(), "s"), middle, height - MARGIN + 2.0, Align::Middle, INK);
        let upright = axis(&self.value_name, y_ticks.factor(), &self.unit);
        canvas.text_upwards(&upright, MARGIN + 12.0, 0.5 * (axes.top + axes.bottom), Align::Middle, INK);
        Ok(canvas.finish())
    }

    /// The times and values to show.
    fn extent(&self) -> Result<((f64, f64), (f64, f64))> {
        let mut times = Extent::default();
        let mut values = Extent::default();
        for curve in &self.curves {
            for (time, value) in curve.times.iter().zip(&curve.values).filter(|(t, v)| t.is_finite() && v.is_finite()) {
                times.add(*time);
                values.add(*value);
            }
        }
        if values.low > values.high {
            return Err(Error::setting("curve", "without a finite sample", "give at least one finite time and value"));
        }
        if let Some((time, value)) = self.finite_peak() {
            times.add(time);
            values.add(value);
        }
        if let Some((time, _)) = self.finite_onset() {
            times.add(time);
        }
        if let Some((_, level)) = self.baseline.as_ref().filter(|(_, level)| level.is_finite()) {
            values.add(*level);
        }
        let (times, values) = (times.padded(0.02), values.padded(0.07));
        match (times, values) {
            (Some(times), Some(values)) => Ok((times, values)),
            _ => Err(Error::setting("curve", "beyond what can be drawn", "give times and values below 1e300")),
        }
    }

    fn finite_peak(&self) -> Option<(f64, f64)> {
        self.peak.filter(|(time, value)| time.is_finite() && value.is_finite())
    }

    fn finite_onset(&self) -> Option<(f64, Option<f64>)> {
        let (time, error) = self.onset.filter(|(time, _)| time.is_finite())?;
        Some((time, error.filter(|e| e.is_finite() && *e > 0.0)))
    }

    fn finite_slope(&self) -> Option<(f64, f64, f64)> {
        self.slope.filter(|(time, value, slope)| time.is_finite() && value.is_finite() && slope.is_finite())
    }

    /// The baseline's first and last time, if any of its frames exists.
    fn baseline_span(&self) -> Option<(f64, f64, f64)> {
        let (frames, level) = self.baseline.as_ref()?;
        let times = &self.curves[0].times;
        let last = frames.end.min(times.len()).checked_sub(1)?;
        let (from, to) = (*times.get(frames.start)?, times[last]);
        (from <= to && level.is_finite()).then_some((from, to, *level))
    }

    fn color(&self, index: usize) -> [u8; 3] {
        match index {
            0 => CURVE,
            i => FURTHER[(i - 1) % FURTHER.len()],
        }
    }

    /// Names of everything drawn, in rows; returns where they end.
    fn legend(&self, canvas: &mut Canvas, left: f32, top: f32, right: f32) -> f32 {
        let unit = ticks::unit(&self.unit);
        let with_unit = |value: f64| format!("{} {unit}", ticks::number(value)).trim_end().to_string();
        let mut entries: Vec<(Key, String)> = Vec::new();
        for (i, curve) in self.curves.iter().enumerate() {
            let key = if curve.sampled { Key::Samples(self.color(i)) } else { Key::Line(self.color(i)) };
            entries.push((key, curve.name.clone()));
        }
        if let (Some((_, _, level)), Some((frames, _))) = (self.baseline_span(), &self.baseline) {
            let last = frames.end.min(self.curves[0].times.len()) - 1;
            let frames = if last == frames.start {
                format!("frame {last}")
            } else {
                format!("frames {}–{last}", frames.start)
            };
            entries.push((Key::Band, format!("baseline {} ({frames})", with_unit(level))));
        }
        if let Some((_, _, slope)) = self.finite_slope() {
            let per = if unit.is_empty() { "per s".into() } else { format!("{unit}/s") };
            entries.push((Key::Line(SLOPE), format!("steepest rise {} {per}", ticks::number(slope))));
        }
        let (mut x, mut y) = (left, top + 20.0);
        for (key, text) in entries {
            let line = Line::wrap(&text, 18.0, Weight::Regular, (right - left - 60.0).max(80.0), 1).pop();
            let Some(line) = line else { continue };
            let width = 52.0 + line.width();
            if x > left && x + width > right {
                x = left;
                y += 28.0;
            }
            key.draw(canvas, x, y - 6.0);
            canvas.text(&line, x + 44.0, y, Align::Start, INK);
            x += width + 26.0;
        }
        y + 16.0
    }

    /// Onset and peak in words above the axes, each over its time; returns where the axes begin.
    fn marks_above(&self, canvas: &mut Canvas, top: f32, x_of: impl Fn(f64) -> f32, span: (f32, f32)) -> f32 {
        let mut marks: Vec<(f32, String, [u8; 3])> = Vec::new();
        if let Some((time, error)) = self.finite_onset() {
            let error = error.map(|e| format!(" ± {}", ticks::number(e))).unwrap_or_default();
            marks.push((x_of(time), format!("onset {}{error} s", ticks::number(time)), ONSET));
        }
        if let Some((time, value)) = self.finite_peak() {
            let value = format!("{} {}", ticks::number(value), ticks::unit(&self.unit));
            marks.push((x_of(time), format!("peak {} at {} s", value.trim_end(), ticks::number(time)), PEAK));
        }
        if marks.is_empty() {
            return top + 4.0;
        }
        marks.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut placed: Vec<(f32, Line, [u8; 3])> = marks
            .into_iter()
            .map(|(x, text, color)| {
                let line = Line::plain(&text, 18.0, Weight::SemiBold);
                let half = 0.5 * line.width();
                (x.min(span.1 - half).max(span.0 + half), line, color)
            })
            .collect();
        let mut rows = 1;
        if let [(a, left, _), (b, right, _)] = &mut placed[..] {
            let (half_a, half_b) = (0.5 * left.width(), 0.5 * right.width());
            if *b - half_b < *a + half_a + 24.0 {
                // Side by side if there is room on both sides, else one above the other.
                let middle = 0.5 * (*a + *b);
                let apart = (middle - 12.0 - half_a, middle + 12.0 + half_b);
                if apart.0 - half_a >= span.0 && apart.1 + half_b <= span.1 {
                    (*a, *b) = apart;
                } else {
                    rows = 2;
                }
            }
        }
        let mut y = top + 20.0;
        for (i, (x, line, color)) in placed.iter().enumerate() {
            if i > 0 && rows > 1 {
                y += 25.0;
            }
            canvas.text(line, *x, y, Align::Middle, *color);
        }
        y + 10.0
    }

    fn baseline_band(&self, canvas: &mut Canvas, axes: &Axes) {
        let Some((from, to, level)) = self.baseline_span() else { return };
        let (a, b) = (axes.x(from) - 6.0, axes.x(to) + 6.0);
        let a = a.max(axes.left);
        canvas.rect(a, axes.top, b - a, axes.bottom - axes.top, BAND, 1.0);
        let y = axes.y(level);
        canvas.line(&[(axes.left, y), (axes.right, y)], Pen::new(BASELINE, 1.6).dash(7.0, 5.0));
    }

    fn guides(&self, canvas: &mut Canvas, axes: &Axes) {
        if let Some((time, error)) = self.finite_onset() {
            let x = axes.x(time);
            if let Some(error) = error {
                let (a, b) = (axes.x(time - error).max(axes.left), axes.x(time + error).min(axes.right));
                canvas.rect(a, axes.top, b - a, axes.bottom - axes.top, ONSET, 0.16);
            }
            canvas.line(&[(x, axes.top), (x, axes.bottom)], Pen::new(ONSET, 2.0));
        }
        if let Some((time, value)) = self.finite_peak() {
            let x = axes.x(time);
            canvas.line(&[(x, axes.top), (x, axes.y(value))], Pen::new(PEAK, 1.6).dash(2.5, 4.0));
        }
    }

    fn slope_line(&self, canvas: &mut Canvas, axes: &Axes) {
        let Some((time, value, slope)) = self.finite_slope() else { return };
        // A piece of about a fifth of the picture's width or a half of its height, within the axes.
        let mut reach = 0.1 * (axes.times.1 - axes.times.0);
        if slope != 0.0 {
            reach = reach.min(0.28 * (axes.values.1 - axes.values.0) / slope.abs());
        }
        let at = |dt: f64| (time + dt, value + slope * dt);
        let inside = |(t, v): (f64, f64)| {
            (axes.times.0..=axes.times.1).contains(&t) && (axes.values.0..=axes.values.1).contains(&v)
        };
        let ends = [-reach, reach].map(|dt| {
            let share = (0..=50).rev().map(|i| f64::from(i) / 50.0).find(|share| inside(at(dt * share)));
            share.map(|share| at(dt * share))
        });
        if let [Some(a), Some(b)] = ends {
            let points = [a, b].map(|(t, v)| (axes.x(t), axes.y(v)));
            canvas.line(&points, Pen::new(SLOPE, 4.0));
        }
    }
}

const MARGIN: f32 = 26.0;

#[derive(Clone, Copy)]
struct Extent {
    low: f64,
    high: f64,
}

impl Default for Extent {
    fn default() -> Self {
        Self { low: f64::INFINITY, high: f64::NEG_INFINITY }
    }
}

impl Extent {
    fn add(&mut self, value: f64) {
        self.low = self.low.min(value);
        self.high = self.high.max(value);
    }

    /// Some room on both sides; `None` if the extent is beyond what numbers can hold.
    fn padded(self, share: f64) -> Option<(f64, f64)> {
        let span = self.high - self.low;
        let least = 1e-9 * self.low.abs().max(self.high.abs());
        let room = if span > least { share * span } else { (0.05 * self.high.abs()).max(0.5) };
        let (low, high) = (self.low - room, self.high + room);
        ((high - low).is_finite() && high > low).then_some((low, high))
    }
}

/// Where times and values lie on the paper.
struct Axes {
    left: f32,
    right: f32,
    top: f32,
    bottom: f32,
    times: (f64, f64),
    values: (f64, f64),
}

impl Axes {
    fn x(&self, time: f64) -> f32 {
        self.left + ((time - self.times.0) / (self.times.1 - self.times.0)) as f32 * (self.right - self.left)
    }

    fn y(&self, value: f64) -> f32 {
        self.bottom - ((value - self.values.0) / (self.values.1 - self.values.0)) as f32 * (self.bottom - self.top)
    }
}

/// What stands before a name in the legend.
enum Key {
    Samples([u8; 3]),
    Line([u8; 3]),
    Band,
}

impl Key {
    fn draw(&self, canvas: &mut Canvas, x: f32, y: f32) {
        let ends = [(x, y), (x + 34.0, y)];
        match self {
            Key::Samples(color) => {
                canvas.line(&ends, Pen::new(*color, 1.6).opacity(0.6));
                canvas.disc(x + 17.0, y, 4.5, *color);
            }
            Key::Line(color) => canvas.line(&ends, Pen::new(*color, 3.4)),
            Key::Band => {
                canvas.rect(x, y - 9.0, 34.0, 18.0, BAND, 1.0);
                canvas.line(&ends, Pen::new(BASELINE, 1.6).dash(7.0, 5.0));
            }
        }
    }
}

fn draw_curve(canvas: &mut Canvas, axes: &Axes, curve: &Curve, color: [u8; 3]) {
    let finite = |(t, v): &(&f64, &f64)| t.is_finite() && v.is_finite();
    let samples: Vec<(&f64, &f64)> = curve.times.iter().zip(&curve.values).collect();
    let pen = if curve.sampled { Pen::new(color, 1.6).opacity(0.6) } else { Pen::new(color, 3.0) };
    for piece in samples.split(|sample| !finite(sample)) {
        let points: Vec<(f32, f32)> = piece.iter().map(|(t, v)| (axes.x(**t), axes.y(**v))).collect();
        canvas.line(&points, pen);
        if curve.sampled {
            let spacing = (axes.right - axes.left) / curve.times.len() as f32;
            let radius = (0.32 * spacing).clamp(2.0, 4.5);
            points.iter().for_each(|(x, y)| canvas.disc(*x, *y, radius, color));
        }
    }
}
