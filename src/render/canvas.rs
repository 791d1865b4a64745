//! Antialiased lines, filled shapes and text on paper.

use tiny_skia::{
    Color, FillRule, LineCap, LineJoin, Paint, Path, PathBuilder, Pixmap, Rect, Stroke, StrokeDash, Transform,
};

use super::picture::Picture;
use super::text::Line;
use crate::error::{Error, Result};

pub(super) const PAPER: [u8; 3] = [255, 255, 255];
pub(super) const INK: [u8; 3] = [28, 28, 32];
pub(super) const FAINT_INK: [u8; 3] = [98, 98, 106];
pub(super) const GRID: [u8; 3] = [230, 230, 234];

/// What a point of a text is put at a position: its beginning, middle or end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Start,
    Middle,
    End,
}

/// How a line is drawn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pen {
    pub(super) color: [u8; 3],
    /// 0 clear to 1 opaque.
    pub(super) opacity: f32,
    pub(super) width: f32,
    /// Lengths of dashes and gaps.
    pub(super) dash: Option<[f32; 2]>,
}

impl Pen {
    pub(super) fn new(color: [u8; 3], width: f32) -> Self {
        Self { color, opacity: 1.0, width, dash: None }
    }

    pub(super) fn opacity(mut self, opacity: f32) -> Self {
        self.opacity = opacity;
        self
    }

    pub(super) fn dash(mut self, dash: f32, gap: f32) -> Self {
        self.dash = Some([dash, gap]);
        self
    }
}

/// Paper to draw on; positions in pixels from the upper left corner, y downwards.
#[derive(Clone)]
pub(super) struct Canvas {
    pixmap: Pixmap,
}

fn paint(color: [u8; 3], opacity: f32) -> Paint<'static> {
    let mut paint = Paint::default();
    let [r, g, b] = color;
    let alpha = (255.0 * opacity.clamp(0.0, 1.0)).round() as u8;
    paint.set_color(Color::from_rgba8(r, g, b, alpha));
    paint.anti_alias = true;
    paint
}

impl Canvas {
    pub(super) fn new(width: u32, height: u32) -> Result<Self> {
        Self::of_color(width, height, PAPER)
    }

    /// Paper of another colour than white.
    pub(super) fn of_color(width: u32, height: u32, [r, g, b]: [u8; 3]) -> Result<Self> {
        let mut pixmap = Pixmap::new(width, height).ok_or_else(|| {
            Error::setting(
                "picture size",
                format!("{width} x {height} pixels"),
                "choose fewer slices or a smaller picture",
            )
        })?;
        pixmap.fill(Color::from_rgba8(r, g, b, 255));
        Ok(Self { pixmap })
    }

    /// A filled rectangle.
    pub(super) fn rect(&mut self, x: f32, y: f32, width: f32, height: f32, color: [u8; 3], opacity: f32) {
        if let Some(rect) = Rect::from_xywh(x, y, width, height) {
            self.pixmap.fill_rect(rect, &paint(color, opacity), Transform::identity(), None);
        }
    }

    /// One whole pixel.
    pub(super) fn pixel(&mut self, x: u32, y: u32, color: [u8; 3]) {
        let (width, height) = (self.pixmap.width(), self.pixmap.height());
        if x < width && y < height {
            let at = 4 * (y as usize * width as usize + x as usize);
            self.pixmap.data_mut()[at..at + 3].copy_from_slice(&color);
        }
    }

    fn fill(&mut self, path: &Path, color: [u8; 3], transform: Transform) {
        self.pixmap.fill_path(path, &paint(color, 1.0), FillRule::Winding, transform, None);
    }

    fn stroke(&mut self, path: &Path, pen: Pen) {
        let stroke = Stroke {
            width: pen.width,
            line_cap: LineCap::Butt,
            line_join: LineJoin::Round,
            dash: pen.dash.and_then(|[dash, gap]| StrokeDash::new(vec![dash, gap], 0.0)),
            ..Stroke::default()
        };
        self.pixmap.stroke_path(path, &paint(pen.color, pen.opacity), &stroke, Transform::identity(), None);
    }

    /// A line through points.
    pub(super) fn line(&mut self, points: &[(f32, f32)], pen: Pen) {
        let mut builder = PathBuilder::new();
        for (i, (x, y)) in points.iter().enumerate() {
            if i == 0 { builder.move_to(*x, *y) } else { builder.line_to(*x, *y) }
        }
        if points.len() > 1
            && let Some(path) = builder.finish()
        {
            self.stroke(&path, pen);
        }
    }

    /// Many separate straight pieces at once.
    pub(super) fn pieces(&mut self, pieces: &[[(f32, f32); 2]], pen: Pen) {
        let mut builder = PathBuilder::new();
        for [a, b] in pieces {
            builder.move_to(a.0, a.1);
            builder.line_to(b.0, b.1);
        }
        if let Some(path) = builder.finish() {
            self.stroke(&path, pen);
        }
    }

    /// A filled shape with straight edges.
    pub(super) fn polygon(&mut self, points: &[(f32, f32)], color: [u8; 3]) {
        let mut builder = PathBuilder::new();
        for (i, (x, y)) in points.iter().enumerate() {
            if i == 0 { builder.move_to(*x, *y) } else { builder.line_to(*x, *y) }
        }
        builder.close();
        if let Some(path) = builder.finish() {
            self.fill(&path, color, Transform::identity());
        }
    }

    /// A filled disc.
    pub(super) fn disc(&mut self, x: f32, y: f32, radius: f32, color: [u8; 3]) {
        if let Some(path) = PathBuilder::from_circle(x, y, radius) {
            self.fill(&path, color, Transform::identity());
        }
    }

    /// A circle.
    pub(super) fn ring(&mut self, x: f32, y: f32, radius: f32, pen: Pen) {
        if let Some(path) = PathBuilder::from_circle(x, y, radius) {
            self.stroke(&path, pen);
        }
    }

    /// A line of text with its baseline at `y`.
    pub(super) fn text(&mut self, line: &Line, x: f32, y: f32, align: Align, color: [u8; 3]) {
        if let Some(path) = line.outlines() {
            let start = x - shift(line, align);
            self.fill(&path, color, Transform::from_translate(start, y));
        }
    }

    /// Text that stands out on any ground: light letters with a dark rim, or the other way round on light ground.
    pub(super) fn text_with_rim(&mut self, line: &Line, x: f32, y: f32, align: Align) {
        let start = x - shift(line, align);
        let ground = self.pixmap.pixel((start + 0.5 * line.width()) as u32, (y - 0.35 * line.size) as u32);
        let light =
            ground.is_some_and(|p| 3 * u32::from(p.red()) + 6 * u32::from(p.green()) + u32::from(p.blue()) > 1400);
        let (letters, rim) = if light { (INK, PAPER) } else { (PAPER, INK) };
        if let Some(path) = line.outlines().and_then(|path| path.transform(Transform::from_translate(start, y))) {
            self.stroke(&path, Pen::new(rim, 4.0).opacity(0.75));
            self.fill(&path, letters, Transform::identity());
        }
    }

    /// Text that reads upwards, its baseline to the right at `x`.
    pub(super) fn text_upwards(&mut self, line: &Line, x: f32, y: f32, align: Align, color: [u8; 3]) {
        if let Some(path) = line.outlines() {
            let turned = Transform::from_row(0.0, -1.0, 1.0, 0.0, x, y + shift(line, align));
            self.fill(&path, color, turned);
        }
    }

    pub(super) fn finish(self) -> Picture {
        let (width, height) = (self.pixmap.width(), self.pixmap.height());
        // The paper is opaque, so colours aren't premultiplied by anything but 1.
        let rgb = self.pixmap.data().chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect();
        Picture::new(width, height, rgb)
    }
}

fn shift(line: &Line, align: Align) -> f32 {
    match align {
        Align::Start => 0.0,
        Align::Middle => 0.5 * line.width(),
        Align::End => line.width(),
    }
}
