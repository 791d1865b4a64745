//! A map over its slices, in a grid, with a colour bar or a legend.

use ndarray::ArrayView3;

use super::bar::{Bar, TRIANGLE};
use super::canvas::{Align, Canvas, FAINT_INK, INK, PAPER, Pen};
use super::colormap::{Colormap, label_color};
use super::picture::Picture;
use super::text::{Line, Weight};
use super::ticks::{self, Ticks};
use super::tile::{Sampling, border, direction, percentile, underlay_window};
use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::maps::{Map, MapData};
use crate::quantity::{Quantity, Unit};
use crate::series::Mask;

/// Which values take the end colours.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Range {
    /// These percentiles (0 to 100) of all finite values of the map.
    Percentiles(f64, f64),
    /// From minus to plus the largest absolute value among the 2nd and 98th percentile: for signed quantities.
    Symmetric,
    /// These values, in the map's unit.
    Fixed(f64, f64),
}

impl Range {
    /// The ends for these finite values, which are reordered. They are never equal: a constant map, or none at all, still
    /// needs a range to stand in.
    pub(super) fn resolve(self, finite: &mut [f32]) -> Result<(f64, f64)> {
        let (low, high) = match self {
            Range::Fixed(low, high)
                if low.is_finite() && high.is_finite() && low < high && (high - low).is_finite() =>
            {
                (low, high)
            }
            Range::Fixed(low, high) => {
                return Err(Error::setting(
                    "range",
                    format!("{low} to {high}"),
                    "give two finite numbers, the lower one first",
                ));
            }
            Range::Percentiles(low, high) => {
                if !(0.0 <= low && low < high && high <= 100.0) {
                    let mend = "give two percentiles from 0 to 100, the lower one first";
                    return Err(Error::setting("range", format!("{low} to {high} %"), mend));
                }
                (percentile(finite, low), percentile(finite, high))
            }
            Range::Symmetric => {
                let largest = percentile(finite, 2.0).abs().max(percentile(finite, 98.0).abs());
                (-largest, largest)
            }
        };
        let least = (1e-6 * low.abs().max(high.abs())).max(f64::from(f32::MIN_POSITIVE));
        Ok(match (low, high) {
            _ if finite.is_empty() && !matches!(self, Range::Fixed(..)) => (0.0, 1.0),
            (low, high) if high - low >= least => (low, high),
            (low, high) => {
                let middle = 0.5 * (low + high);
                let half = if middle == 0.0 { 0.5 } else { 0.05 * middle.abs().max(least) };
                if self == Range::Symmetric { (-half, half) } else { (middle - half, middle + half) }
            }
        })
    }
}

/// Which slices (of constant z) are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Slices {
    /// Of the slices from the first to the last with a value, at most so many, evenly thinned.
    Evenly(usize),
    /// All slices, empty ones too.
    All,
    /// These, counted from 0.
    Chosen(Vec<usize>),
}

#[derive(Debug, Clone, Copy)]
enum Layer<'a> {
    Values(ArrayView3<'a, f32>),
    Labels(ArrayView3<'a, u32>),
}

impl Layer<'_> {
    fn shape(&self) -> [usize; 3] {
        let (x, y, z) = match self {
            Layer::Values(values) => values.dim(),
            Layer::Labels(labels) => labels.dim(),
        };
        [x, y, z]
    }

    fn has_value(&self, voxel: [usize; 3]) -> bool {
        match self {
            Layer::Values(values) => values[voxel].is_finite(),
            Layer::Labels(labels) => labels[voxel] != 0,
        }
    }
}

/// A PNG of a map over its slices: a grid of axial tiles, x to the right, y up, in the voxels' true proportions,
/// voxels as sharp squares; a colour bar with unit (or a legend of labels with counts), the display range in words.
///
/// Pictures are 900 to 2400 pixels wide. Letters R L A P S I stand at the first tile where the header says which way the
/// voxel axes point.
///
/// ```
/// use ndarray::Array3;
/// use perfuse::Geometry;
/// use perfuse::render::{Colormap, Montage, Range};
/// let slope = Array3::from_shape_fn((24, 24, 3), |(x, _, _)| x as f32 - 12.0);
/// let geometry = Geometry::from_voxel_size_mm([1.0, 1.0, 4.0]);
/// let picture = Montage::of_values(slope.view(), &geometry)
///     .title("Wash-out slope")
///     .symbol("WoS")
///     .unit("a.u./s")
///     .colormap(Colormap::Diverging)
///     .range(Range::Symmetric)
///     .render()?;
/// assert!(picture.png()?.starts_with(b"\x89PNG"));
/// # Ok::<(), perfuse::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Montage<'a> {
    layer: Layer<'a>,
    geometry: Geometry,
    title: String,
    symbol: String,
    unit: String,
    range: Range,
    colormap: Colormap,
    underlay: Option<ArrayView3<'a, f32>>,
    outline: Option<&'a Mask>,
    slices: Slices,
    labels: Vec<(u32, String, [u8; 3])>,
}

impl<'a> Montage<'a> {
    fn of(layer: Layer<'a>, geometry: &Geometry) -> Self {
        Self {
            layer,
            geometry: geometry.clone(),
            title: String::new(),
            symbol: String::new(),
            unit: String::new(),
            range: Range::Percentiles(2.0, 98.0),
            colormap: Colormap::default(),
            underlay: None,
            outline: None,
            slices: Slices::Evenly(20),
            labels: Vec::new(),
        }
    }

    /// A map of a run: title, symbol, unit, colours and range follow its quantity.
    ///
    /// # Errors
    /// [`Error::Setting`] for a map of curves: plot those with [`super::CurvePlot`].
    pub fn of_map(map: &'a Map, geometry: &Geometry) -> Result<Self> {
        let layer = match &map.data {
            MapData::Float(values) => Layer::Values(values.view()),
            MapData::Label(labels) => Layer::Labels(labels.view()),
            MapData::Curve(_) => {
                return Err(Error::setting(
                    "map",
                    &map.quantity.id,
                    "a montage shows one number or label per voxel; plot curves",
                ));
            }
        };
        let mut montage = Self::of(layer, geometry).quantity(&map.quantity);
        montage.unit.clone_from(&map.unit);
        Ok(montage)
    }

    /// Values of shape `[x, y, z]`; whatever isn't finite counts as no value.
    pub fn of_values(values: ArrayView3<'a, f32>, geometry: &Geometry) -> Self {
        Self::of(Layer::Values(values), geometry)
    }

    /// Labels of shape `[x, y, z]`; 0 counts as no answer.
    pub fn of_labels(labels: ArrayView3<'a, u32>, geometry: &Geometry) -> Self {
        Self::of(Layer::Labels(labels), geometry)
    }

    /// Takes title, symbol, colours and range from a quantity.
    #[must_use]
    pub fn quantity(mut self, quantity: &Quantity) -> Self {
        self.title = plain_name(quantity);
        self.symbol = if quantity.unit == Unit::Label { String::new() } else { quantity.symbol.to_string() };
        if matches!(quantity.id.as_ref(), "wash_out_slope" | "late_slope") {
            self.range = Range::Symmetric;
            self.colormap = Colormap::Diverging;
        }
        if quantity.id == "curve_type" {
            let types: [(&str, [u8; 3]); 4] = [
                ("persistent", [0, 114, 178]),
                ("plateau", [240, 180, 0]),
                ("wash-out", [192, 48, 43]),
                ("undetermined", [204, 121, 167]),
            ];
            for (value, (name, color)) in (1..).zip(types) {
                self = self.label(value, name, Some(color));
            }
        }
        self
    }

    /// What the picture shows, above it.
    #[must_use]
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.title = title.into();
        self
    }

    /// The symbol at the colour bar; `_` lowers what follows: `e_max`.
    #[must_use]
    pub fn symbol(mut self, symbol: impl Into<String>) -> Self {
        self.symbol = symbol.into();
        self
    }

    /// The unit at the colour bar: `s`, `a.u./s^2`.
    #[must_use]
    pub fn unit(mut self, unit: impl Into<String>) -> Self {
        self.unit = unit.into();
        self
    }

    /// Which values take the end colours (the 2nd to 98th percentile unless told).
    #[must_use]
    pub fn range(mut self, range: Range) -> Self {
        self.range = range;
        self
    }

    /// The colours.
    #[must_use]
    pub fn colormap(mut self, colormap: Colormap) -> Self {
        self.colormap = colormap;
        self
    }

    /// A grey image of the same shape, shown where the map has no value: a frame or the mean of the series.
    #[must_use]
    pub fn underlay(mut self, values: ArrayView3<'a, f32>) -> Self {
        self.underlay = Some(values);
        self
    }

    /// Draws the border of the mask's inside.
    #[must_use]
    pub fn outline(mut self, mask: &'a Mask) -> Self {
        self.outline = Some(mask);
        self
    }

    /// Which slices (at most 20, evenly thinned, unless told).
    #[must_use]
    pub fn slices(mut self, slices: Slices) -> Self {
        self.slices = slices;
        self
    }

    /// Names a label and gives it a colour ([`label_color`] if `None`). Label 0 is called `no answer` unless told.
    #[must_use]
    pub fn label(mut self, value: u32, name: impl Into<String>, color: Option<[u8; 3]>) -> Self {
        self.labels.retain(|(known, _, _)| *known != value);
        self.labels.push((value, name.into(), color.unwrap_or_else(|| label_color(value))));
        self
    }

    /// Draws the picture.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if underlay or outline have another shape; [`Error::Setting`] if the map is empty, a chosen
    /// slice doesn't exist, there are too many slices for a picture, or the range isn't a range.
    pub fn render(&self) -> Result<Picture> {
        let shape = self.layer.shape();
        if shape.contains(&0) {
            return Err(Error::setting("map", format!("of shape {shape:?}"), "give at least one voxel"));
        }
        self.check_companions(shape)?;
        let slices = self.chosen_slices(shape)?;
        let scale = match self.layer {
            Layer::Values(values) => Some(self.scale(values)?),
            Layer::Labels(_) => None,
        };
        let grid = Grid::new(shape, &self.geometry, slices.len())?;
        let side = match (&scale, self.layer) {
            (Some(scale), _) => Side::bar(self, scale),
            (None, Layer::Labels(labels)) => Side::legend(self, labels),
            (None, Layer::Values(_)) => Side::default(),
        };

        let content = (grid.width() + GAP_TO_SIDE + side.width).max(MIN_WIDTH - 2.0 * MARGIN);
        let title = Line::wrap(&self.title, 28.0, Weight::SemiBold, content, 2);
        let notes = Line::wrap(&self.notes(&slices, scale.as_ref(), &grid), 17.0, Weight::Regular, content, 3);
        let top = MARGIN + title.len() as f32 * 38.0 + if title.is_empty() { 0.0 } else { 8.0 };
        let body = grid.height().max(side.height + grid.caption);
        let height = top + body + 20.0 + notes.len() as f32 * 24.0 + MARGIN - 8.0;
        let width = content + 2.0 * MARGIN;

        let mut canvas = Canvas::new(width.ceil() as u32, height.ceil() as u32)?;
        for (i, line) in title.iter().enumerate() {
            canvas.text(line, MARGIN, MARGIN + 28.0 + 38.0 * i as f32, Align::Start, INK);
        }
        // A narrow grid stands in the middle of the paper together with its bar.
        let left = MARGIN + 0.5 * (content - grid.width() - GAP_TO_SIDE - side.width);
        let origin = (left.floor(), top.floor());
        self.tiles(&mut canvas, &grid, origin, &slices, scale.as_ref());
        self.letters(&mut canvas, &grid, origin);
        side.draw(&mut canvas, self, origin.0 + grid.width() + GAP_TO_SIDE, origin.1 + grid.caption);
        for (i, line) in notes.iter().enumerate() {
            canvas.text(line, MARGIN, top + body + 36.0 + 24.0 * i as f32, Align::Start, FAINT_INK);
        }
        Ok(canvas.finish())
    }

    fn check_companions(&self, shape: [usize; 3]) -> Result<()> {
        let underlay = self.underlay.map(|values| ("the underlay", values.dim()));
        let outline = self.outline.map(|mask| ("the outline", mask.labels().dim()));
        for (what, (x, y, z)) in [underlay, outline].into_iter().flatten() {
            if [x, y, z] != shape {
                return Err(Error::mismatch(what, "the map", format!("shapes {:?} and {shape:?}", [x, y, z])));
            }
        }
        Ok(())
    }

    fn chosen_slices(&self, shape: [usize; 3]) -> Result<Vec<usize>> {
        match &self.slices {
            Slices::All => Ok((0..shape[2]).collect()),
            Slices::Chosen(chosen) => match chosen.iter().find(|z| **z >= shape[2]) {
                Some(z) => Err(Error::setting("slices", z, format!("the map has slices 0 to {}", shape[2] - 1))),
                None if chosen.is_empty() => {
                    Err(Error::setting("slices", "an empty list", "choose at least one slice"))
                }
                None => Ok(chosen.clone()),
            },
            Slices::Evenly(most) => {
                let filled = |z: &usize| (0..shape[1]).any(|y| (0..shape[0]).any(|x| self.layer.has_value([x, y, *z])));
                let first = (0..shape[2]).find(filled).unwrap_or(0);
                let last = (0..shape[2]).rev().find(filled).unwrap_or(shape[2] - 1);
                let (count, most) = (last - first + 1, (*most).max(1));
                if count <= most {
                    return Ok((first..=last).collect());
                }
                // The middles of `most` equal parts.
                Ok((0..most).map(|i| first + (2 * i + 1) * count / (2 * most)).collect())
            }
        }
    }

    fn scale(&self, values: ArrayView3<'_, f32>) -> Result<Scale> {
        let mut finite: Vec<f32> = values.iter().copied().filter(|v| v.is_finite()).collect();
        let voxels = finite.len();
        let extreme = finite.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| {
            (low.min(f64::from(*v)), high.max(f64::from(*v)))
        });
        let (low, high) = self.range.resolve(&mut finite)?;
        let missing = voxels < values.len();
        Ok(Scale { low, high, voxels, missing, below: extreme.0 < low, above: extreme.1 > high })
    }

    /// What stands below the tiles.
    fn notes(&self, slices: &[usize], scale: Option<&Scale>, grid: &Grid) -> String {
        let mut notes = Vec::new();
        if let Some(scale) = scale {
            if scale.voxels == 0 {
                notes.push("No voxel has a value.".into());
            } else {
                let unit = ticks::unit(&self.unit);
                let how = match self.range {
                    Range::Fixed(..) => format!("{} with a value", voxels(scale.voxels)),
                    Range::Percentiles(low, high) => format!(
                        "percentiles {} to {} of {}",
                        ticks::number(low),
                        ticks::number(high),
                        voxels(scale.voxels)
                    ),
                    Range::Symmetric => {
                        format!("symmetric, from percentiles 2 and 98 of {}", voxels(scale.voxels))
                    }
                };
                let (low, high) = (ticks::number(scale.low), ticks::number(scale.high));
                notes.push(
                    format!("Display range {low} to {high} {unit}",).trim_end().to_string() + &format!(" ({how})."),
                );
                if scale.below || scale.above {
                    notes.push("Values beyond it take the end colours.".into());
                }
            }
        }
        let all = self.layer.shape()[2];
        notes.push(match slices.len() {
            1 if all == 1 => String::new(),
            n if n == all => format!("All {n} slices."),
            n => format!("{n} of {all} slices."),
        });
        if grid.distorted {
            notes.push("Not to scale: the slices are too narrow for true proportions.".into());
        }
        if self.outline.is_some() {
            notes.push("Line: border of the mask.".into());
        }
        notes.retain(|note| !note.is_empty());
        notes.join(" ")
    }

    fn tiles(&self, canvas: &mut Canvas, grid: &Grid, origin: (f32, f32), slices: &[usize], scale: Option<&Scale>) {
        let [nx, ny, _] = self.layer.shape();
        let grey = self.underlay.map(|values| (values, underlay_window(values)));
        let (columns, rows) = (Sampling::new(0..nx, grid.tile.0, false), Sampling::new(0..ny, grid.tile.1, true));
        for (i, z) in slices.iter().enumerate() {
            let (x0, y0) = grid.tile_origin(i, origin);
            let caption = Line::plain("z = ", 16.0, Weight::Regular).with_plain(&z.to_string());
            if grid.caption > 0.0 && caption.width() <= grid.tile.0 as f32 {
                canvas.text(&caption, x0, y0 - 6.0, Align::Start, FAINT_INK);
            }
            for v in 0..grid.tile.1 {
                for u in 0..grid.tile.0 {
                    let (mut sum, mut n) = ([0u32; 3], 0);
                    for y in rows.of(v) {
                        for x in columns.of(u) {
                            let color = self.voxel_color([x, y, *z], scale, grey.as_ref());
                            (0..3).for_each(|c| sum[c] += u32::from(color[c]));
                            n += 1;
                        }
                    }
                    let color = sum.map(|c| ((c + n / 2) / n) as u8);
                    canvas.pixel(x0 as u32 + u, y0 as u32 + v, color);
                }
            }
            if let Some(mask) = self.outline {
                let labels = mask.labels();
                let pieces = border([nx, ny], [false, true], grid.tile, (x0, y0), |x, y| labels[[x, y, *z]] != 0);
                canvas.pieces(&pieces, Pen::new(INK, 3.4).opacity(0.55));
                canvas.pieces(&pieces, Pen::new(PAPER, 1.6));
            }
        }
    }

    fn voxel_color(
        &self,
        voxel: [usize; 3],
        scale: Option<&Scale>,
        grey: Option<&(ArrayView3<'_, f32>, (f32, f32))>,
    ) -> [u8; 3] {
        let empty = |color: [u8; 3]| match grey {
            Some((values, (low, high))) if values[voxel].is_finite() => {
                Colormap::Grey.color(f64::from((values[voxel] - low) / (high - low)))
            }
            _ => color,
        };
        match (self.layer, scale) {
            (Layer::Values(values), Some(scale)) if values[voxel].is_finite() => {
                self.colormap.color(scale.fraction(f64::from(values[voxel])))
            }
            (Layer::Labels(labels), _) if labels[voxel] != 0 => self.color_of_label(labels[voxel]),
            (Layer::Labels(_), _) => empty(self.color_of_label(0)),
            _ => empty(self.colormap.no_value()),
        }
    }

    fn color_of_label(&self, label: u32) -> [u8; 3] {
        let known = self.labels.iter().find(|(value, _, _)| *value == label);
        known.map_or_else(|| label_color(label), |(_, _, color)| *color)
    }

    /// Which way the axes point, at the edges of the first tile.
    fn letters(&self, canvas: &mut Canvas, grid: &Grid, origin: (f32, f32)) {
        if grid.tile.0 < 110 || grid.tile.1 < 110 {
            return;
        }
        let (x0, y0) = grid.tile_origin(0, origin);
        let (w, h) = (grid.tile.0 as f32, grid.tile.1 as f32);
        let line = |letter: char| Line::plain(&letter.to_string(), 17.0, Weight::SemiBold);
        if let Some((minus, plus)) = direction(&self.geometry, 0) {
            canvas.text_with_rim(&line(minus), x0 + 6.0, y0 + 0.5 * h + 6.0, Align::Start);
            canvas.text_with_rim(&line(plus), x0 + w - 6.0, y0 + 0.5 * h + 6.0, Align::End);
        }
        if let Some((minus, plus)) = direction(&self.geometry, 1) {
            canvas.text_with_rim(&line(plus), x0 + 0.5 * w, y0 + 18.0, Align::Middle);
            canvas.text_with_rim(&line(minus), x0 + 0.5 * w, y0 + h - 7.0, Align::Middle);
        }
    }
}

fn voxels(count: usize) -> String {
    format!("{} {}", ticks::count(count), if count == 1 { "voxel" } else { "voxels" })
}

/// What a quantity is called in a title.
pub(super) fn plain_name(quantity: &Quantity) -> String {
    if let Some(id) = quantity.id.strip_suffix("_se") {
        let of = plain_name(&Quantity::new(id.to_string(), None, "", Unit::Dimensionless, ""));
        let mut letters = of.chars();
        let first = letters.next().map(|c| c.to_lowercase().to_string()).unwrap_or_default();
        // Symbols keep their capital.
        if letters.as_str().starts_with(|c: char| c.is_ascii_digit()) {
            return format!("Standard error of {of}");
        }
        return format!("Standard error of the {first}{}", letters.as_str());
    }
    if let Some(seconds) = quantity.id.strip_prefix("iauc_") {
        return format!("Initial area under the curve, {} s", seconds.replace('p', "."));
    }
    if let Some(percent) = quantity.id.strip_prefix("time_to_fraction_") {
        return format!("Time to {percent} % of the peak");
    }
    match quantity.id.as_ref() {
        "onset" => "Onset of enhancement".into(),
        "auc" => "Area under the curve".into(),
        "aumc" => "Area under the first-moment curve".into(),
        "fwhm" => "Full width at half maximum".into(),
        "baseline_sd" => "Standard deviation of the baseline".into(),
        "max_slope" => "Steepest rise".into(),
        "max_slope_time" => "Time of the steepest rise".into(),
        "wash_in_slope" => "Wash-in slope".into(),
        "wash_out_slope" => "Wash-out slope".into(),
        "sse" => "Sum of squared residuals".into(),
        "r_squared" => "R²".into(),
        "contrast_to_noise" => "Contrast-to-noise ratio".into(),
        id => {
            let words = id.replace('_', " ");
            let mut letters = words.chars();
            letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default() + letters.as_str()
        }
    }
}

/// The display range.
struct Scale {
    low: f64,
    high: f64,
    /// Voxels with a value.
    voxels: usize,
    /// Whether there are voxels without one.
    missing: bool,
    /// Whether values lie below or above the range.
    below: bool,
    above: bool,
}

impl Scale {
    fn fraction(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }
}

const MARGIN: f32 = 28.0;
const MIN_WIDTH: f32 = 900.0;
const GAP_TO_SIDE: f32 = 32.0;
/// Space for the tiles: the widest and highest grid.
const GRID_LIMIT: (f64, f64) = (1800.0, 1500.0);
/// The widest and highest tile.
const TILE_LIMIT: f64 = 820.0;
const GAP: u32 = 8;
const CAPTION: u32 = 26;
const MOST_SLICES: usize = 400;

/// Where the tiles stand.
struct Grid {
    columns: usize,
    rows: usize,
    /// Pixels of a tile.
    tile: (u32, u32),
    /// Height of the line above each tile.
    caption: f32,
    /// Whether the proportions had to be changed.
    distorted: bool,
}

impl Grid {
    fn new(shape: [usize; 3], geometry: &Geometry, count: usize) -> Result<Self> {
        if count > MOST_SLICES {
            return Err(Error::setting("slices", count, format!("show at most {MOST_SLICES} slices in one picture")));
        }
        let size = geometry.voxel_size_mm().map(|s| if s.is_finite() && s > 0.0 { s } else { 1.0 });
        let (wide, high) = (shape[0] as f64 * size[0], shape[1] as f64 * size[1]);
        // A line of voxels is drawn as a strip.
        let ratio = (wide / high).clamp(1.0 / 24.0, 24.0);
        let distorted = (ratio - wide / high).abs() > 1e-9 * ratio;
        let (wide, high) = if distorted { (ratio.max(1.0), (1.0 / ratio).max(1.0)) } else { (wide, high) };

        let fit = |columns: usize| {
            let rows = count.div_ceil(columns);
            let space =
                |limit: f64, n: usize, gap: u32| ((limit - (n - 1) as f64 * f64::from(gap)) / n as f64).max(4.0);
            let scale = (space(GRID_LIMIT.0, columns, GAP) / wide).min(space(GRID_LIMIT.1, rows, GAP + CAPTION) / high);
            scale.min(TILE_LIMIT / wide.max(high))
        };
        // Large tiles, but hardly any empty places.
        let columns = (1..=count.max(1))
            .max_by(|a, b| {
                let score = |columns: usize| {
                    let filled = count as f64 / (count.div_ceil(columns) * columns) as f64;
                    fit(columns) * filled.powf(0.8)
                };
                score(*a).total_cmp(&score(*b))
            })
            .unwrap_or(1);
        let mut scale = fit(columns);
        // Whole pixels per voxel where voxels are enlarged, so that they look alike.
        let pixels = scale * wide / shape[0] as f64;
        let square = (pixels - scale * high / shape[1] as f64).abs() < 1e-3 * pixels;
        if square && pixels >= 1.0 && !distorted {
            scale *= pixels.floor() / pixels;
        }
        let tile = (((scale * wide).round() as u32).max(1), ((scale * high).round() as u32).max(1));
        let rows = count.div_ceil(columns);
        let caption = if shape[2] > 1 { CAPTION as f32 } else { 0.0 };
        Ok(Self { columns, rows, tile, caption, distorted })
    }

    fn width(&self) -> f32 {
        (self.columns as u32 * self.tile.0 + (self.columns as u32 - 1) * GAP) as f32
    }

    fn height(&self) -> f32 {
        self.rows as f32 * (self.tile.1 as f32 + self.caption) + (self.rows as u32 - 1) as f32 * GAP as f32
    }

    fn tile_origin(&self, index: usize, origin: (f32, f32)) -> (f32, f32) {
        let (column, row) = ((index % self.columns) as f32, (index / self.columns) as f32);
        let x = origin.0 + column * (self.tile.0 + GAP) as f32;
        let y = origin.1 + row * (self.tile.1 as f32 + self.caption + GAP as f32) + self.caption;
        (x, y)
    }
}

/// What stands to the right of the tiles.
#[derive(Default)]
struct Side {
    width: f32,
    height: f32,
    head: Option<Line>,
    ticks: Vec<(f32, Line)>,
    triangles: (bool, bool),
    bar: bool,
    entries: Vec<(Swatch, Line)>,
}

enum Swatch {
    Color([u8; 3]),
    GreyImage,
}

const BAR_WIDTH: f32 = 28.0;
const BAR_HEIGHT: f32 = 340.0;
const SWATCH: f32 = 22.0;
const ENTRY: f32 = 32.0;
const HEAD: f32 = 40.0;
const MOST_ENTRIES: usize = 24;

impl Side {
    fn bar(montage: &Montage<'_>, scale: &Scale) -> Self {
        let ticks = Ticks::new(scale.low, scale.high, 6);
        let unit = ticks::unit(&montage.unit);
        let mut head = Line::plain("", 21.0, Weight::Regular).with_symbol(&montage.symbol);
        let factor_and_unit = [ticks.factor().unwrap_or_default(), unit].join(" ");
        match (montage.symbol.is_empty(), factor_and_unit.trim()) {
            (_, "") => {}
            (true, text) => head = head.with_plain(text),
            (false, text) => head = head.with_plain(&format!(" ({text})")),
        }
        let labels = ticks.values.iter().zip(&ticks.labels);
        let ticks: Vec<(f32, Line)> = labels
            .map(|(value, label)| (scale.fraction(*value) as f32, Line::plain(label, 19.0, Weight::Regular)))
            .collect();
        let entry = Line::plain("no value", 18.0, Weight::Regular);
        let swatch = match montage.underlay {
            Some(_) => Swatch::GreyImage,
            None => Swatch::Color(montage.colormap.no_value()),
        };
        let entries = if scale.missing { vec![(swatch, entry)] } else { Vec::new() };
        let labels_width = ticks.iter().map(|(_, line)| line.width()).fold(0.0, f32::max);
        let width = (BAR_WIDTH + 14.0 + labels_width)
            .max(head.width())
            .max(entries.iter().map(|(_, text)| SWATCH + 10.0 + text.width()).fold(0.0, f32::max));
        let height = HEAD + BAR_HEIGHT + 2.0 * TRIANGLE + 14.0 + SWATCH;
        let triangles = (scale.below, scale.above);
        Self { width, height, head: Some(head), ticks, triangles, bar: true, entries }
    }

    fn legend(montage: &Montage<'_>, labels: ArrayView3<'_, u32>) -> Self {
        let mut counts = std::collections::BTreeMap::new();
        for label in labels {
            *counts.entry(*label).or_insert(0usize) += 1;
        }
        for (value, _, _) in &montage.labels {
            counts.entry(*value).or_insert(0);
        }
        let none = counts.remove(&0).unwrap_or(0);
        let line = |text: &str| Line::wrap(text, 19.0, Weight::Regular, 330.0, 1).pop();
        let mut entries = Vec::new();
        let listed = if counts.len() > MOST_ENTRIES { MOST_ENTRIES - 1 } else { counts.len() };
        for (label, count) in counts.iter().take(listed) {
            let known = montage.labels.iter().find(|(value, _, _)| value == label);
            let name = known.map_or_else(|| format!("label {label}"), |(_, name, _)| name.clone());
            let text = line(&format!("{name} ({})", ticks::count(*count)));
            entries.extend(text.map(|text| (Swatch::Color(montage.color_of_label(*label)), text)));
        }
        if counts.len() > listed {
            let rest: usize = counts.values().skip(listed).sum();
            let text = format!("{} further labels ({})", counts.len() - listed, ticks::count(rest));
            entries.extend(line(&text).map(|text| (Swatch::Color(PAPER), text)));
        }
        let swatch =
            if montage.underlay.is_some() { Swatch::GreyImage } else { Swatch::Color(montage.color_of_label(0)) };
        let name = montage.labels.iter().find(|(value, _, _)| *value == 0).map_or("no answer", |(_, name, _)| name);
        entries.extend(line(&format!("{name} ({})", ticks::count(none))).map(|text| (swatch, text)));
        let head = Line::plain("voxels in brackets", 18.0, Weight::Regular);
        let width = entries.iter().map(|(_, text)| SWATCH + 10.0 + text.width()).fold(head.width(), f32::max);
        let height = HEAD + entries.len() as f32 * ENTRY;
        Self { width, height, head: Some(head), entries, ..Self::default() }
    }

    fn draw(&self, canvas: &mut Canvas, montage: &Montage<'_>, x: f32, y: f32) {
        if let Some(head) = &self.head {
            canvas.text(head, x, y + 18.0, Align::Start, if self.bar { INK } else { FAINT_INK });
        }
        let mut y = (y + HEAD).round();
        let x = x.round();
        if self.bar {
            y += TRIANGLE;
            let bar = Bar {
                colormap: montage.colormap,
                width: BAR_WIDTH,
                height: BAR_HEIGHT,
                ticks: &self.ticks,
                triangles: self.triangles,
                ink: INK,
                faint_ink: FAINT_INK,
            };
            bar.draw(canvas, x, y);
            y += BAR_HEIGHT + TRIANGLE + 14.0;
        }
        for (swatch, text) in &self.entries {
            match swatch {
                Swatch::Color(color) => canvas.rect(x, y, SWATCH, SWATCH, *color, 1.0),
                Swatch::GreyImage => {
                    for i in 0..SWATCH as u32 {
                        let grey = Colormap::Grey.color(f64::from(i) / f64::from(SWATCH));
                        canvas.rect(x + i as f32, y, 1.0, SWATCH, grey, 1.0);
                    }
                }
            }
            canvas.text(text, x + SWATCH + 10.0, y + 17.0, Align::Start, INK);
            y += ENTRY;
        }
    }
}
