//! The colour bar.

use super::canvas::{Align, Canvas, Pen};
use super::colormap::Colormap;
use super::planes::dark;
use super::text::{Line, Weight};
use super::ticks::{self, Ticks};

pub(super) const TRIANGLE: f32 = 16.0;

/// A vertical colour bar with ticks to its right.
pub(super) struct Bar<'a> {
    pub(super) colormap: Colormap,
    pub(super) width: f32,
    pub(super) height: f32,
    /// Place in the range, 0 at the foot, and text.
    pub(super) ticks: &'a [(f32, Line)],
    /// Whether values lie below and above the range: the bar ends in a point there.
    pub(super) triangles: (bool, bool),
    pub(super) ink: [u8; 3],
    pub(super) faint_ink: [u8; 3],
}

impl Bar<'_> {
    /// Draws it with its upper left corner at whole pixels; the upper triangle stands above that.
    pub(super) fn draw(&self, canvas: &mut Canvas, x: f32, y: f32) {
        let rows = self.height as u32;
        for row in 0..rows {
            let fraction = 1.0 - f64::from(row) / f64::from(rows - 1);
            for column in 0..self.width as u32 {
                canvas.pixel(x as u32 + column, y as u32 + row, self.colormap.color(fraction));
            }
        }
        let (left, right, middle) = (x, x + self.width, x + 0.5 * self.width);
        let foot = y + self.height;
        let mut outline = vec![(left - 0.5, y - 0.5)];
        if self.triangles.1 {
            outline.push((middle, y - TRIANGLE - 0.5));
        }
        outline.extend([(right + 0.5, y - 0.5), (right + 0.5, foot + 0.5)]);
        if self.triangles.0 {
            outline.push((middle, foot + TRIANGLE + 0.5));
        }
        outline.extend([(left - 0.5, foot + 0.5), (left - 0.5, y - 0.5)]);
        if self.triangles.1 {
            canvas.polygon(&[(left, y), (right, y), (middle, y - TRIANGLE)], self.colormap.color(1.0));
        }
        if self.triangles.0 {
            canvas.polygon(&[(left, foot), (right, foot), (middle, foot + TRIANGLE)], self.colormap.color(0.0));
        }
        canvas.line(&outline, Pen::new(self.faint_ink, 1.0));
        for (fraction, label) in self.ticks {
            let at = foot - fraction * self.height;
            canvas.line(&[(right, at), (right + 6.0, at)], Pen::new(self.ink, 1.4));
            canvas.text(label, right + 12.0, at + 0.342 * label.size, Align::Start, self.ink);
        }
    }
}

pub(super) const SCALE_WIDTH: f32 = 20.0;

/// A colour bar on dark ground, with its name and unit above.
pub(super) struct DarkScale<'a> {
    pub(super) name: &'a str,
    pub(super) unit: &'a str,
    pub(super) range: (f64, f64),
    pub(super) colormap: Colormap,
    pub(super) height: f32,
    pub(super) triangles: (bool, bool),
}

impl DarkScale<'_> {
    /// Draws it from its upper left corner; returns where the bar itself begins.
    pub(super) fn draw(&self, canvas: &mut Canvas, left: f32, top: f32) -> f32 {
        let (low, high) = self.range;
        let ticks = Ticks::new(low, high, 5);
        let labels = ticks.values.iter().zip(&ticks.labels);
        let placed: Vec<(f32, Line)> = labels
            .map(|(value, label)| (((value - low) / (high - low)) as f32, Line::plain(label, 15.0, Weight::Regular)))
            .collect();
        let text = |text: &str| Line::plain(text, 15.0, Weight::Regular);
        // An empty name leaves its place free, so that bars stand alike.
        canvas.text(&text("").with_symbol(self.name), left, top + 2.0, Align::Start, dark::INK);
        let unit = [ticks.factor().unwrap_or_default(), ticks::unit(self.unit)].join(" ");
        if !unit.trim().is_empty() {
            canvas.text(&text(&format!("in {}", unit.trim())), left, top + 21.0, Align::Start, dark::FAINT_INK);
        }
        let y = top + 30.0 + TRIANGLE;
        let bar = Bar {
            colormap: self.colormap,
            width: SCALE_WIDTH,
            height: self.height,
            ticks: &placed,
            triangles: self.triangles,
            ink: dark::INK,
            faint_ink: dark::FAINT_INK,
        };
        bar.draw(canvas, left, y);
        y
    }
}
