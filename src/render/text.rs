//! Glyph outlines of the packaged font, with subscripts and superscripts for symbols.

use std::sync::LazyLock;

use tiny_skia::{Path, PathBuilder};
use ttf_parser::{Face, GlyphId, OutlineBuilder};

/// How heavy the letters are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    Regular,
    SemiBold,
}

static FACES: LazyLock<[Face<'static>; 2]> = LazyLock::new(|| {
    let files: [&[u8]; 2] = [include_bytes!("font/NotoSans-Regular.ttf"), include_bytes!("font/NotoSans-SemiBold.ttf")];
    files.map(|bytes| Face::parse(bytes, 0).expect("the packaged font is whole"))
});

impl Weight {
    fn face(self) -> &'static Face<'static> {
        &FACES[usize::from(self == Weight::SemiBold)]
    }
}

/// Where a run of letters stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Line,
    Below,
    Above,
}

impl Level {
    /// Size and rise relative to the line's size.
    fn scale_and_rise(self) -> (f32, f32) {
        match self {
            Level::Line => (1.0, 0.0),
            Level::Below => (0.72, -0.16),
            Level::Above => (0.72, 0.36),
        }
    }
}

/// One line of text.
#[derive(Debug, Clone)]
pub(super) struct Line {
    runs: Vec<(String, Level)>,
    pub(super) size: f32,
    pub(super) weight: Weight,
}

impl Line {
    /// Letters as they are.
    pub(super) fn plain(text: &str, size: f32, weight: Weight) -> Self {
        Self { runs: vec![(text.into(), Level::Line)], size, weight }
    }

    /// Adds a symbol in which `_` lowers and `^` raises what follows, up to the next character that isn't a letter,
    /// digit, hyphen or another mark: `e_max/f_BL`.
    pub(super) fn with_symbol(mut self, symbol: &str) -> Self {
        let mut level = Level::Line;
        let mut run = String::new();
        let mut runs = Vec::new();
        for c in symbol.chars() {
            let next = match c {
                '_' => Level::Below,
                '^' => Level::Above,
                c if level != Level::Line && !(c.is_alphanumeric() || c == '-') => Level::Line,
                _ => level,
            };
            if next != level && !run.is_empty() {
                runs.push((std::mem::take(&mut run), level));
            }
            level = next;
            if !matches!(c, '_' | '^') {
                run.push(if c == '-' { '\u{2013}' } else { c });
            }
        }
        runs.push((run, level));
        self.runs.extend(runs);
        self
    }

    /// Adds letters as they are.
    pub(super) fn with_plain(mut self, text: &str) -> Self {
        self.runs.push((text.into(), Level::Line));
        self
    }

    /// Width in pixels.
    pub(super) fn width(&self) -> f32 {
        let face = self.weight.face();
        let unit = self.size / f32::from(face.units_per_em());
        self.glyphs().map(|(glyph, level)| advance(face, glyph) * unit * level.scale_and_rise().0).sum()
    }

    fn glyphs(&self) -> impl Iterator<Item = (GlyphId, Level)> + '_ {
        let face = self.weight.face();
        self.runs.iter().flat_map(move |(text, level)| {
            text.chars().filter(|c| !c.is_control()).map(move |c| (face.glyph_index(c).unwrap_or(GlyphId(0)), *level))
        })
    }

    /// The outlines, the baseline beginning at 0, 0, y downwards. `None` for blank text.
    pub(super) fn outlines(&self) -> Option<Path> {
        let face = self.weight.face();
        let unit = self.size / f32::from(face.units_per_em());
        let mut pen = Pen { path: PathBuilder::new(), x: 0.0, y: 0.0, unit };
        let mut x = 0.0;
        for (glyph, level) in self.glyphs() {
            let (scale, rise) = level.scale_and_rise();
            pen.x = x;
            pen.y = -rise * self.size;
            pen.unit = unit * scale;
            // Glyphs without an outline are blanks.
            let _ = face.outline_glyph(glyph, &mut pen);
            x += advance(face, glyph) * pen.unit;
        }
        pen.path.finish()
    }

    /// Splits plain text into lines no wider than `width`, between words where that is possible; what doesn't fit into
    /// `most` lines ends in an ellipsis.
    pub(super) fn wrap(text: &str, size: f32, weight: Weight, width: f32, most: usize) -> Vec<Line> {
        let fits = |text: &str| Line::plain(text, size, weight).width() <= width;
        let mut lines: Vec<String> = Vec::new();
        let mut line = String::new();
        for word in text.split_whitespace() {
            let candidate = if line.is_empty() { word.to_string() } else { format!("{line} {word}") };
            if fits(&candidate) {
                line = candidate;
                continue;
            }
            if !line.is_empty() {
                lines.push(std::mem::take(&mut line));
            }
            for c in word.chars() {
                line.push(c);
                if !fits(&line) && line.chars().count() > 1 {
                    line.pop();
                    lines.push(std::mem::take(&mut line));
                    line.push(c);
                }
                if lines.len() > most {
                    break;
                }
            }
            if lines.len() > most {
                break;
            }
        }
        if !line.is_empty() {
            lines.push(line);
        }
        if lines.len() > most {
            lines.truncate(most);
            if let Some(last) = lines.last_mut() {
                while !last.is_empty() && !fits(&format!("{last}…")) {
                    last.pop();
                }
                last.push('…');
            }
        }
        lines.iter().map(|text| Line::plain(text, size, weight)).collect()
    }
}

fn advance(face: &Face<'_>, glyph: GlyphId) -> f32 {
    f32::from(face.glyph_hor_advance(glyph).unwrap_or(0))
}

/// Moves a glyph's outline, in font units with y upwards, to its place.
struct Pen {
    path: PathBuilder,
    x: f32,
    y: f32,
    unit: f32,
}

impl Pen {
    fn at(&self, x: f32, y: f32) -> (f32, f32) {
        (self.x + x * self.unit, self.y - y * self.unit)
    }
}

impl OutlineBuilder for Pen {
    fn move_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.at(x, y);
        self.path.move_to(x, y);
    }

    fn line_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.at(x, y);
        self.path.line_to(x, y);
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        let ((x1, y1), (x, y)) = (self.at(x1, y1), self.at(x, y));
        self.path.quad_to(x1, y1, x, y);
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        let ((x1, y1), (x2, y2), (x, y)) = (self.at(x1, y1), self.at(x2, y2), self.at(x, y));
        self.path.cubic_to(x1, y1, x2, y2, x, y);
    }

    fn close(&mut self) {
        self.path.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_split_into_levels() {
        let line = Line::plain("", 20.0, Weight::Regular).with_symbol("e_max/f_BL s^2 t_10-90");
        let runs: Vec<(&str, Level)> =
            line.runs.iter().map(|(t, l)| (t.as_str(), *l)).filter(|r| !r.0.is_empty()).collect();
        use Level::{Above, Below, Line as On};
        let wanted = [
            ("e", On),
            ("max", Below),
            ("/f", On),
            ("BL", Below),
            (" s", On),
            ("2", Above),
            (" t", On),
            ("10–90", Below),
        ];
        assert_eq!(runs, wanted);
    }

    #[test]
    fn wrapping_keeps_within_the_width() {
        for text in ["", "a", "several words that need more than a line", &"x".repeat(5000), "αβγ\u{1F9E0}\n\tz"] {
            let lines = Line::wrap(text, 16.0, Weight::Regular, 120.0, 3);
            assert!(lines.len() <= 3 && lines.iter().all(|line| line.width() <= 120.0), "{text}");
        }
    }

    #[test]
    fn the_font_has_what_pictures_say() {
        for weight in [Weight::Regular, Weight::SemiBold] {
            for c in "−±²³⁻⁰⁹×·…–°µΔσταβ ()%/".chars() {
                assert!(weight.face().glyph_index(c).is_some(), "{c}");
            }
        }
    }
}
