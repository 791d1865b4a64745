//! A map in orthogonal planes through a lesion.

use ndarray::ArrayView3;

use super::bar::{DarkScale, TRIANGLE};
use super::canvas::{Align, Canvas};
use super::colormap::Colormap;
use super::montage::{Range, plain_name};
use super::picture::Picture;
use super::planes::dark::{FAINT_INK, GROUND, INK};
use super::planes::{Choice, Plane, Planes, View, draw_mark, draw_outline};
use super::text::{Line, Weight};
use super::tile::grey_window;
use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::quantity::Quantity;
use crate::series::Mask;

/// A picture of a map in the planes of a [`super::Cine`]: the same layout, directions and letters, so that both can be
/// compared. Values in colour, a grey image where there are none, the lesion outlined, a colour bar.
///
/// ```
/// use ndarray::Array3;
/// use perfuse::render::Sections;
/// use perfuse::{Geometry, Mask};
/// let values = Array3::from_shape_fn((20, 20, 8), |(x, y, z)| (x + y + z) as f32);
/// let lesion = Mask::from_labels(Array3::from_shape_fn((20, 20, 8), |(x, _, _)| u32::from(x > 12)).view());
/// let geometry = Geometry::from_voxel_size_mm([1.0, 1.0, 2.0]);
/// let picture = Sections::new(values.view(), &geometry, &lesion).title("Front arrival").unit("s").render()?;
/// assert_eq!(picture.width(), 760);
/// # Ok::<(), perfuse::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Sections<'a> {
    values: ArrayView3<'a, f32>,
    geometry: Geometry,
    lesion: &'a Mask,
    title: String,
    symbol: String,
    unit: String,
    range: Range,
    colormap: Colormap,
    underlay: Option<ArrayView3<'a, f32>>,
    choice: Choice,
    mark: Option<[usize; 3]>,
    width: u32,
}

const MARGIN: u32 = 16;
const HEAD: u32 = 30;
const SIDE: u32 = 104;
const GAP: u32 = 16;

impl<'a> Sections<'a> {
    /// Values of shape `[x, y, z]` around a lesion (the mask's inside); what isn't finite counts as no value.
    pub fn new(values: ArrayView3<'a, f32>, geometry: &Geometry, lesion: &'a Mask) -> Self {
        Self {
            values,
            geometry: geometry.clone(),
            lesion,
            title: String::new(),
            symbol: String::new(),
            unit: String::new(),
            range: Range::Percentiles(2.0, 98.0),
            colormap: Colormap::default(),
            underlay: None,
            choice: Choice::default(),
            mark: None,
            width: 760,
        }
    }

    /// Takes title and symbol from a quantity.
    pub fn quantity(mut self, quantity: &Quantity) -> Self {
        self.title = plain_name(quantity);
        self.symbol = quantity.symbol.to_string();
        self
    }

    /// What the picture shows, above it.
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.title = title.into();
        self
    }

    /// The unit at the colour bar.
    pub fn unit(mut self, unit: impl Into<String>) -> Self {
        self.unit = unit.into();
        self
    }

    /// Which values take the end colours (the 2nd to 98th percentile unless told).
    pub fn range(mut self, range: Range) -> Self {
        self.range = range;
        self
    }

    /// The colours.
    pub fn colormap(mut self, colormap: Colormap) -> Self {
        self.colormap = colormap;
        self
    }

    /// A grey image of the same shape, shown where the map has no value.
    pub fn underlay(mut self, values: ArrayView3<'a, f32>) -> Self {
        self.underlay = Some(values);
        self
    }

    /// Which planes, in this order (all three unless told).
    pub fn planes(mut self, planes: &[Plane]) -> Self {
        self.choice.planes = planes.to_vec();
        self
    }

    /// The voxel that the planes go through (that nearest to the lesion's centre of mass unless told; the
    /// first plane goes through the mark, if there is one).
    pub fn centre(mut self, voxel: [usize; 3]) -> Self {
        self.choice.centre = Some(voxel);
        self
    }

    /// How much is shown (as in [`super::Cine::view`]).
    pub fn view(mut self, view: View) -> Self {
        self.choice.view = Some(view);
        self
    }

    /// Marks a voxel by a cross wherever a plane goes through it; the first plane does, unless a centre is given.
    pub fn mark(mut self, voxel: [usize; 3]) -> Self {
        self.mark = Some(voxel);
        self.choice.mark = self.mark;
        self
    }

    /// Width of the picture in pixels: 400 to 2400 (760 unless told). The height follows.
    pub fn width(mut self, pixels: u32) -> Self {
        self.width = pixels;
        self
    }

    /// Draws the picture.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if mask or underlay have another shape; [`Error::Setting`] if the lesion is empty or a setting
    /// can't be used.
    pub fn render(&self) -> Result<Picture> {
        let shape = self.values.dim();
        let underlay = self.underlay.map(|values| ("the underlay", values.dim()));
        for (what, other) in [("the lesion", self.lesion.labels().dim())].into_iter().chain(underlay) {
            if other != shape {
                return Err(Error::mismatch(what, "the map", format!("shapes {other:?} and {shape:?}")));
            }
        }
        if !(400..=2400).contains(&self.width) {
            return Err(Error::setting("width", self.width, "give 400 to 2400 pixels"));
        }
        let mut finite: Vec<f32> = self.values.iter().copied().filter(|v| v.is_finite()).collect();
        let extremes = finite
            .iter()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(f64::from(*v)), h.max(f64::from(*v))));
        let (low, high) = self.range.resolve(&mut finite)?;
        let limit = (self.width - 2 * MARGIN - SIDE - GAP, (0.6 * f64::from(self.width)) as u32);
        let mut planes = Planes::new(&self.choice, self.lesion, &self.geometry, limit)?;
        let bar_height = (planes.height as f32 - 40.0 - 2.0 * TRIANGLE).clamp(110.0, 220.0).round();
        let body = planes.height.max((44.0 + 2.0 * TRIANGLE + bar_height) as u32);
        planes.shift(MARGIN + (limit.0.saturating_sub(planes.width)) / 2, MARGIN + HEAD + (body - planes.height) / 2);
        let grey = self.underlay.map(|values| {
            let mut shown: Vec<f32> =
                planes.panels.iter().flat_map(|panel| panel.voxels().map(|v| values[v])).collect();
            shown.retain(|value| value.is_finite());
            (values, grey_window(&mut shown))
        });
        let mut canvas = Canvas::of_color(self.width, MARGIN + HEAD + body + MARGIN, GROUND)?;
        let room = (self.width - 2 * MARGIN) as f32;
        if let Some(line) = Line::wrap(&self.title, 17.0, Weight::SemiBold, room, 1).first() {
            canvas.text(line, MARGIN as f32, MARGIN as f32 + 13.0, Align::Start, INK);
        }
        for panel in &planes.panels {
            panel.paint(&mut canvas, |voxel| {
                let value = self.values[voxel];
                match &grey {
                    _ if value.is_finite() => self.colormap.color((f64::from(value) - low) / (high - low)),
                    Some((values, (dark, light))) if values[voxel].is_finite() => {
                        Colormap::Grey.color(f64::from((values[voxel] - dark) / (light - dark)))
                    }
                    _ => GROUND,
                }
            });
            draw_outline(&mut canvas, &panel.outline(self.lesion));
            if let Some((x, y)) = self.mark.and_then(|voxel| panel.pixel_of(voxel)) {
                draw_mark(&mut canvas, x as f32 + 0.5, y as f32 + 0.5);
            }
            panel.letters(&mut canvas);
            panel.caption(&mut canvas, FAINT_INK);
        }
        let scale = DarkScale {
            name: &self.symbol,
            unit: &self.unit,
            range: (low, high),
            colormap: self.colormap,
            height: bar_height,
            triangles: (extremes.0 < low, extremes.1 > high),
        };
        scale.draw(&mut canvas, (self.width - MARGIN - SIDE) as f32, (MARGIN + HEAD) as f32 - 6.0);
        Ok(canvas.finish())
    }
}
