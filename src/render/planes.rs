//! Orthogonal planes through a point, side by side at one scale in mm: the ground of cines and of maps in reports.

use std::ops::Range;

use super::canvas::{Align, Canvas, INK, PAPER, Pen};
use super::text::{Line, Weight};
use super::tile::{Sampling, border, direction};
use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::series::Mask;

/// A plane through the patient. Where the header doesn't say how the patient lies, axial is the plane of the first and the
/// second voxel axis, coronal that of the first and third, sagittal that of the second and third.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Plane {
    /// Across the body: the patient's right on the left of the picture, front on top.
    Axial,
    /// From ear to ear: the patient's right on the left of the picture, head on top.
    Coronal,
    /// From front to back: front on the left of the picture, head on top.
    Sagittal,
}

impl Plane {
    /// All three.
    pub const ALL: [Plane; 3] = [Plane::Axial, Plane::Coronal, Plane::Sagittal];

    /// The name in plain words.
    pub fn name(self) -> &'static str {
        match self {
            Plane::Axial => "axial",
            Plane::Coronal => "coronal",
            Plane::Sagittal => "sagittal",
        }
    }

    /// The world axes (0 left to right, 1 back to front, 2 foot to head) across, upwards and through the plane.
    fn world_axes(self) -> [usize; 3] {
        match self {
            Plane::Axial => [0, 1, 2],
            Plane::Coronal => [0, 2, 1],
            Plane::Sagittal => [1, 2, 0],
        }
    }
}

/// Which part of the image is shown.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum View {
    /// The whole image.
    Whole,
    /// The box around the lesion and so many mm more on each side.
    Lesion {
        /// Millimetres around the lesion's box.
        margin_mm: f64,
    },
}

/// What to show of an image.
#[derive(Debug, Clone)]
pub(super) struct Choice {
    pub(super) planes: Vec<Plane>,
    pub(super) view: Option<View>,
    pub(super) centre: Option<[usize; 3]>,
    /// The first plane goes through it, unless there is a centre.
    pub(super) mark: Option<[usize; 3]>,
}

impl Default for Choice {
    fn default() -> Self {
        Self { planes: Plane::ALL.to_vec(), view: None, centre: None, mark: None }
    }
}

/// Where a plane's voxels come from and where they are drawn.
#[derive(Debug, Clone)]
pub(super) struct Panel {
    pub(super) plane: Plane,
    /// The voxel axes across, upwards and through the plane.
    pub(super) axes: [usize; 3],
    /// The slice: the place on the third of these axes.
    pub(super) slice: usize,
    /// The voxels shown, across and upwards.
    pub(super) window: [Range<usize>; 2],
    /// Whether the first voxel stands on the right, and whether on top.
    flipped: [bool; 2],
    letters: [Option<(char, char)>; 2],
    /// Upper left corner and size, in pixels.
    pub(super) place: (u32, u32),
    pub(super) size: (u32, u32),
}

const GAP: u32 = 10;
/// Height of the line above a panel.
const CAPTION: u32 = 24;
const LARGEST_VOXEL: f64 = 28.0;

/// The panels of a picture.
#[derive(Debug, Clone)]
pub(super) struct Planes {
    pub(super) panels: Vec<Panel>,
    /// The voxel that the planes go through.
    pub(super) centre: [usize; 3],
    /// Pixels of all panels with their captions.
    pub(super) width: u32,
    pub(super) height: u32,
}

impl Planes {
    /// Lays out the planes within so many pixels; `around` is the lesion.
    pub(super) fn new(choice: &Choice, around: &Mask, geometry: &Geometry, limit: (u32, u32)) -> Result<Self> {
        let (x, y, z) = around.labels().dim();
        let shape = [x, y, z];
        if choice.planes.is_empty() {
            return Err(Error::setting(
                "planes",
                "an empty list",
                "choose axial, coronal, sagittal or several of them",
            ));
        }
        let mm = geometry.voxel_size_mm().map(|s| if s.is_finite() && s > 0.0 { s } else { 1.0 });
        let (low, high, mean) = extent(around)?;
        let to_voxel = voxel_axes(geometry);
        let centre = match choice.centre {
            Some(voxel) if (0..3).all(|axis| voxel[axis] < shape[axis]) => voxel,
            Some(voxel) => {
                let mend = format!("the series has {shape:?} voxels, counted from 0");
                return Err(Error::setting("centre", format!("{voxel:?}"), mend));
            }
            None => {
                let mut centre = mean.map(|at| at.round() as usize);
                let across = to_voxel[choice.planes[0].world_axes()[2]];
                if let Some(mark) = choice.mark {
                    centre[across] = mark[across].min(shape[across] - 1);
                }
                centre
            }
        };
        // Unless told: as much around the lesion as half of its longest side, and 20 mm at least.
        let longest = (0..3).map(|a| (high[a] - low[a]) as f64 * mm[a]).fold(0.0, f64::max);
        let view = choice.view.unwrap_or(View::Lesion { margin_mm: (0.5 * longest).max(20.0) });
        let window: [Range<usize>; 3] = match view {
            View::Whole => shape.map(|n| 0..n),
            View::Lesion { margin_mm } if margin_mm >= 0.0 => std::array::from_fn(|a| {
                // A chosen centre is in the picture, wherever it lies.
                let (low, high) = (low[a].min(centre[a]), high[a].max(centre[a] + 1));
                let margin = (margin_mm / mm[a]).ceil() as usize;
                low.saturating_sub(margin)..high.saturating_add(margin).min(shape[a])
            }),
            View::Lesion { margin_mm } => {
                return Err(Error::setting("margin", format!("{margin_mm} mm"), "give 0 mm or more"));
            }
        };
        let mut panels: Vec<Panel> =
            choice.planes.iter().map(|plane| panel(*plane, to_voxel, geometry, &window, centre)).collect();
        let (width, height) = arrange(&mut panels, mm, limit);
        Ok(Self { panels, centre, width, height })
    }

    /// Moves all panels.
    pub(super) fn shift(&mut self, x: u32, y: u32) {
        for panel in &mut self.panels {
            panel.place.0 += x;
            panel.place.1 += y;
        }
    }
}

/// First voxel, the one after the last, and centre of mass of a mask's inside.
fn extent(mask: &Mask) -> Result<([usize; 3], [usize; 3], [f64; 3])> {
    let (mut low, mut high, mut sum, mut n) = ([usize::MAX; 3], [0; 3], [0.0; 3], 0.0);
    for ((x, y, z), label) in mask.labels().indexed_iter() {
        if *label != 0 {
            for (axis, at) in [x, y, z].into_iter().enumerate() {
                low[axis] = low[axis].min(at);
                high[axis] = high[axis].max(at + 1);
                sum[axis] += at as f64;
            }
            n += 1.0;
        }
    }
    if n == 0.0 {
        return Err(Error::setting("lesion", "a mask without a voxel inside", "give a mask with the lesion's voxels"));
    }
    Ok((low, high, sum.map(|s| s / n)))
}

/// For each world axis the voxel axis that runs along it most nearly, each voxel axis once.
fn voxel_axes(geometry: &Geometry) -> [usize; 3] {
    let affine = geometry.affine();
    let cosine = |world: usize, axis: usize| {
        let length = (0..3).map(|row| affine[row][axis].powi(2)).sum::<f64>().sqrt();
        if length > 0.0 { (affine[world][axis] / length).abs() } else { 0.0 }
    };
    // The first one wins where the header says nothing.
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let fit = |order: &[usize; 3]| (0..3).map(|world| cosine(world, order[world])).sum::<f64>();
    orders.iter().fold(orders[0], |best, order| if fit(order) > fit(&best) + 1e-9 { *order } else { best })
}

fn panel(
    plane: Plane,
    to_voxel: [usize; 3],
    geometry: &Geometry,
    window: &[Range<usize>; 3],
    centre: [usize; 3],
) -> Panel {
    let world = plane.world_axes();
    let axes = world.map(|axis| to_voxel[axis]);
    let known = geometry.sform_code > 0 || geometry.qform_code > 0;
    let affine = geometry.affine();
    let rises = |i: usize| !known || affine[world[i]][axes[i]] >= 0.0;
    // Known: the patient's right, or front, on the left of the picture. Not known: the first voxel there.
    let flipped = [known && rises(0), rises(1)];
    let letters = [0, 1].map(|i| {
        let (minus, plus) = direction(geometry, axes[i])?;
        Some(if flipped[i] { (plus, minus) } else { (minus, plus) })
    });
    Panel {
        plane,
        axes,
        slice: centre[axes[2]],
        window: [window[axes[0]].clone(), window[axes[1]].clone()],
        flipped,
        letters,
        place: (0, 0),
        size: (0, 0),
    }
}

/// Gives the panels their places and sizes: of a row, a column and one beside two others, whichever shows them largest.
fn arrange(panels: &mut [Panel], mm: [f64; 3], limit: (u32, u32)) -> (u32, u32) {
    let size: Vec<[f64; 2]> = panels.iter().map(|p| [0, 1].map(|i| p.window[i].len() as f64 * mm[p.axes[i]])).collect();
    let n = panels.len();
    let whole =
        |values: Vec<f64>, sum: bool| values.into_iter().fold(0.0, |a: f64, b| if sum { a + b } else { a.max(b) });
    let side = |indices: &[usize], axis: usize, sum: bool| whole(indices.iter().map(|i| size[*i][axis]).collect(), sum);
    // Each layout as columns of panels.
    let all: Vec<usize> = (0..n).collect();
    let mut layouts: Vec<Vec<Vec<usize>>> = vec![all.iter().map(|i| vec![*i]).collect(), vec![all.clone()]];
    if n == 3 {
        layouts.push(vec![vec![0], vec![1, 2]]);
    }
    let scale = |columns: &[Vec<usize>]| {
        let wide: f64 = columns.iter().map(|column| side(column, 0, false)).sum();
        let across = f64::from(limit.0.saturating_sub(GAP * (columns.len() as u32 - 1)).max(16)) / wide;
        columns.iter().fold(across, |scale, column| {
            let k = column.len() as u32;
            let down = limit.1.saturating_sub(CAPTION * k + GAP * (k - 1)).max(16);
            scale.min(f64::from(down) / side(column, 1, true))
        })
    };
    let best = layouts
        .iter()
        .fold(&layouts[0], |best, columns| if scale(columns) > 1.05 * scale(best) { columns } else { best });
    let finest = mm.iter().copied().fold(f64::INFINITY, f64::min);
    let mut scale = scale(best).min(LARGEST_VOXEL / finest);
    // Whole pixels per voxel where voxels are enlarged, so that they look alike.
    if scale * finest >= 3.0 {
        scale *= (scale * finest).floor() / (scale * finest);
    }
    let (mut x, mut height) = (0, 0);
    for column in best {
        let (mut y, mut width) = (0, 0);
        for i in column {
            let pixels = size[*i].map(|mm| ((scale * mm).round() as u32).max(1));
            panels[*i].place = (x, y + CAPTION);
            panels[*i].size = (pixels[0], pixels[1]);
            y += CAPTION + pixels[1] + GAP;
            width = width.max(pixels[0]);
        }
        height = height.max(y - GAP);
        x += width + GAP;
    }
    (x - GAP, height)
}

impl Panel {
    /// The voxel at a place of the plane.
    pub(super) fn voxel(&self, across: usize, up: usize) -> [usize; 3] {
        let mut voxel = [0; 3];
        voxel[self.axes[0]] = across;
        voxel[self.axes[1]] = up;
        voxel[self.axes[2]] = self.slice;
        voxel
    }

    /// All voxels shown, row by row.
    pub(super) fn voxels(&self) -> impl Iterator<Item = [usize; 3]> + '_ {
        self.window[1].clone().flat_map(move |up| self.window[0].clone().map(move |across| self.voxel(across, up)))
    }

    /// Where a point given in voxels (0 is the middle of the first one) is drawn.
    pub(super) fn point(&self, across: f64, up: f64) -> (f32, f32) {
        let place = |i: usize, at: f64, pixels: u32| {
            let share = (at + 0.5 - self.window[i].start as f64) / self.window[i].len() as f64;
            f64::from(pixels) * if self.flipped[i] { 1.0 - share } else { share }
        };
        let (x, y) = (place(0, across, self.size.0), place(1, up, self.size.1));
        (self.place.0 as f32 + x as f32, self.place.1 as f32 + y as f32)
    }

    /// The pixel in the middle of a voxel.
    pub(super) fn pixel_of(&self, voxel: [usize; 3]) -> Option<(u32, u32)> {
        let (across, up) = (voxel[self.axes[0]], voxel[self.axes[1]]);
        let shown =
            voxel[self.axes[2]] == self.slice && self.window[0].contains(&across) && self.window[1].contains(&up);
        let (x, y) = self.point(across as f64, up as f64);
        shown.then_some((x as u32, y as u32))
    }

    /// Colours every voxel.
    pub(super) fn paint(&self, canvas: &mut Canvas, color: impl Fn([usize; 3]) -> [u8; 3]) {
        let [across, up] = &self.window;
        let colors: Vec<[u8; 3]> = self.voxels().map(color).collect();
        let columns = Sampling::new(0..across.len(), self.size.0, self.flipped[0]);
        let rows = Sampling::new(0..up.len(), self.size.1, self.flipped[1]);
        for y in 0..self.size.1 {
            for x in 0..self.size.0 {
                let (mut sum, mut n) = ([0u32; 3], 0);
                for v in rows.of(y) {
                    for u in columns.of(x) {
                        let color = colors[v * across.len() + u];
                        (0..3).for_each(|c| sum[c] += u32::from(color[c]));
                        n += 1;
                    }
                }
                canvas.pixel(self.place.0 + x, self.place.1 + y, sum.map(|c| ((c + n / 2) / n) as u8));
            }
        }
    }

    /// The border of a mask in this plane.
    pub(super) fn outline(&self, mask: &Mask) -> Vec<[(f32, f32); 2]> {
        let labels = mask.labels();
        let count = [self.window[0].len(), self.window[1].len()];
        let origin = (self.place.0 as f32, self.place.1 as f32);
        border(count, self.flipped, self.size, origin, |u, v| {
            labels[self.voxel(self.window[0].start + u, self.window[1].start + v)] != 0
        })
    }

    /// `axial, z = 12`, above the panel; a shorter text where that doesn't fit.
    pub(super) fn caption(&self, canvas: &mut Canvas, color: [u8; 3]) {
        let at = format!("{} = {}", ['x', 'y', 'z'][self.axes[2]], self.slice);
        let texts = [format!("{}, {at}", self.plane.name()), at];
        let lines = texts.map(|text| Line::plain(&text, 15.0, Weight::Regular));
        if let Some(line) = lines.iter().find(|line| line.width() <= self.size.0 as f32 + 6.0) {
            canvas.text(line, self.place.0 as f32, self.place.1 as f32 - 7.0, Align::Start, color);
        }
    }

    /// Which way the axes point, at the panel's edges.
    pub(super) fn letters(&self, canvas: &mut Canvas) {
        let (x, y) = (self.place.0 as f32, self.place.1 as f32);
        let (w, h) = (self.size.0 as f32, self.size.1 as f32);
        let line = |letter: char| Line::plain(&letter.to_string(), 15.0, Weight::SemiBold);
        if let Some((left, right)) = self.letters[0].filter(|_| w >= 70.0 && h >= 22.0) {
            canvas.text_with_rim(&line(left), x + 5.0, y + 0.5 * h + 5.5, Align::Start);
            canvas.text_with_rim(&line(right), x + w - 5.0, y + 0.5 * h + 5.5, Align::End);
        }
        if let Some((top, foot)) = self.letters[1].filter(|_| w >= 40.0 && h >= 60.0) {
            canvas.text_with_rim(&line(top), x + 0.5 * w, y + 16.0, Align::Middle);
            canvas.text_with_rim(&line(foot), x + 0.5 * w, y + h - 5.0, Align::Middle);
        }
    }
}

/// The colours of pictures on dark ground.
pub(super) mod dark {
    pub(in crate::render) const GROUND: [u8; 3] = [13, 14, 17];
    pub(in crate::render) const INK: [u8; 3] = [236, 237, 240];
    pub(in crate::render) const FAINT_INK: [u8; 3] = [158, 161, 170];
    pub(in crate::render) const GRID: [u8; 3] = [58, 61, 68];
    pub(in crate::render) const MARK: [u8; 3] = [90, 230, 120];
}

/// A cross.
pub(super) fn draw_mark(canvas: &mut Canvas, x: f32, y: f32) {
    let cross = [[(x - 7.0, y), (x + 7.0, y)], [(x, y - 7.0), (x, y + 7.0)]];
    canvas.pieces(&cross, Pen::new(dark::GROUND, 4.5).opacity(0.8));
    canvas.pieces(&cross, Pen::new(dark::MARK, 2.0));
}

/// A light line with a dark rim, seen on any ground.
pub(super) fn draw_outline(canvas: &mut Canvas, pieces: &[[(f32, f32); 2]]) {
    canvas.pieces(pieces, Pen::new(INK, 3.2).opacity(0.55));
    canvas.pieces(pieces, Pen::new(PAPER, 1.5));
}
