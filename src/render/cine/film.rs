//! The frames of a cine.

use std::sync::Arc;

use rayon::prelude::*;

use super::timing::delays_cs;
use super::{Anatomy, Cine, FrameProgress, Isochrones, MOST_LEVELS};
use crate::engine::Cancel;
use crate::error::{Error, Result};
use crate::kernels::descriptors::Polarity;
use crate::render::bar::{DarkScale, SCALE_WIDTH, TRIANGLE};
use crate::render::canvas::{Align, Canvas, Pen};
use crate::render::colormap::{Colormap, oklch};
use crate::render::contours::{contour, levels, smoothed};
use crate::render::montage::Range;
use crate::render::picture::Picture;
use crate::render::planes::dark::{FAINT_INK, GRID, GROUND, INK};
use crate::render::planes::{Panel, Planes, draw_mark, draw_outline};
use crate::render::text::{Line, Weight};
use crate::render::ticks::{self, ClockStyle, Ticks, clock, clock_style};
use crate::render::tile::percentile;
use crate::series::Series;

const MARGIN: u32 = 18;
const HEAD: u32 = 46;
const SIDE: u32 = 128;
const GAP: u32 = 18;
/// The mean curve of the lesion, and the labels of the time axis below it.
const STRIP: u32 = 62;
const STRIP_FOOT: u32 = 24;
/// Voxels of the lesion, and frames, that decide ranges: enough for a percentile.
const MOST_SAMPLES: usize = 4000;

/// A line of equal filling time, as pieces in every panel.
struct Isochrone {
    seconds: f64,
    color: [u8; 3],
    pieces: Vec<Vec<[(f32, f32); 2]>>,
}

/// A cine whose ranges, colours and layout are decided: it draws any frame, and writes all of them.
pub struct Film {
    series: Series,
    sign: f64,
    anatomy: Anatomy,
    opacity: f64,
    pub(super) colormap: Colormap,
    grey: (f64, f64),
    enhancement: (f64, f64),
    threshold: f64,
    planes: Planes,
    /// The mean of the baseline frames of every voxel in each panel.
    baseline: Vec<Vec<f64>>,
    outlines: Vec<Vec<[(f32, f32); 2]>>,
    lines: Vec<Isochrone>,
    isochrones: Isochrones,
    mark: Option<[usize; 3]>,
    /// What is alike in all frames.
    base: Canvas,
    width: u32,
    height: u32,
    /// The mean curve in pixels.
    curve: Vec<Option<(f32, f32)>>,
    delays: Vec<u16>,
    style: ClockStyle,
    decimals: usize,
    pub(super) progress: Option<Arc<FrameProgress>>,
    pub(super) cancel: Cancel,
}

impl std::fmt::Debug for Film {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Film({} frames of {} x {})", self.len(), self.width, self.height)
    }
}

impl Film {
    pub(super) fn new(cine: &Cine<'_>) -> Result<Self> {
        let series = &cine.series;
        let sign = if cine.polarity == Polarity::Fall { -1.0 } else { 1.0 };
        let inside: Vec<usize> =
            cine.lesion.flat().iter().enumerate().filter(|(_, label)| **label != 0).map(|(voxel, _)| voxel).collect();
        let baseline_of = |voxel: usize| mean(cine.baseline.clone().map(|frame| sample(series, voxel, frame)));

        let lines = lines(cine)?;
        let side = if lines.is_empty() && cine.mark.is_none() { SIDE - 12 } else { SIDE };
        let limit = (cine.width - 2 * MARGIN - side - GAP, (0.66 * f64::from(cine.width)) as u32);
        let mut planes = Planes::new(&cine.choice, cine.lesion, series.geometry(), limit)?;
        let entries = lines.len() + usize::from(cine.mark.is_some()) + usize::from(!lines.is_empty());
        let below_bar = 20.0 + 22.0 * entries as f32;
        let bar_height = (planes.height as f32 - 50.0 - 2.0 * TRIANGLE - below_bar).clamp(120.0, 240.0).round();
        let body = planes.height.max((50.0 + 2.0 * TRIANGLE + bar_height + below_bar) as u32);
        let height = MARGIN + HEAD + body + GAP + 18 + STRIP + STRIP_FOOT + MARGIN - 8;
        let free = limit.0.saturating_sub(planes.width) / 2;
        planes.shift(MARGIN + free, MARGIN + HEAD + (body - planes.height) / 2);

        let baseline: Vec<Vec<f64>> = planes
            .panels
            .iter()
            .map(|panel| panel_voxels(panel, series).into_par_iter().map(baseline_of).collect())
            .collect();
        let grey = grey_window(cine, &planes)?;
        let few: Vec<usize> = inside.iter().copied().step_by(inside.len().div_ceil(MOST_SAMPLES)).collect();
        let enhancement = enhancement_range(cine, &few, sign, baseline_of)?;
        let threshold = match cine.threshold {
            Some(threshold) => threshold,
            None => noise(cine, &few).map_or(enhancement.0 + 0.1 * (enhancement.1 - enhancement.0), |sd| 3.0 * sd),
        };
        let mean_curve: Vec<f64> = {
            let baselines: Vec<f64> = inside.par_iter().map(|voxel| baseline_of(*voxel)).collect();
            let frame_mean = |frame: usize| {
                let voxels = inside.iter().zip(&baselines);
                mean(voxels.map(|(voxel, b)| sign * (sample(series, *voxel, frame) - b)).filter(|e| e.is_finite()))
            };
            (0..series.frames()).into_par_iter().map(frame_mean).collect()
        };

        let times = series.times()?;
        let style = clock_style(times.last_s());
        let mut film = Self {
            series: series.clone(),
            sign,
            anatomy: cine.anatomy,
            opacity: cine.opacity,
            colormap: cine.colormap,
            grey,
            enhancement,
            threshold,
            outlines: planes.panels.iter().map(|panel| panel.outline(cine.lesion)).collect(),
            lines: place_lines(lines, cine, &planes),
            planes,
            baseline,
            isochrones: cine.isochrones,
            mark: cine.mark,
            base: Canvas::of_color(cine.width, height, GROUND)?,
            width: cine.width,
            height,
            curve: Vec::new(),
            delays: delays_cs(times.seconds(), cine.frames_per_second),
            style,
            decimals: usize::from(times.median_spacing_s() < 2.0),
            progress: cine.progress.clone(),
            cancel: cine.cancel.clone(),
        };
        film.draw_head(&cine.title);
        film.draw_side(cine, cine.width - MARGIN - side, bar_height);
        film.draw_strip(cine, &mean_curve);
        for panel in &film.planes.panels {
            panel.caption(&mut film.base, FAINT_INK);
        }
        Ok(film)
    }

    /// Number of frames.
    #[expect(clippy::len_without_is_empty, reason = "a series has at least two frames")]
    pub fn len(&self) -> usize {
        self.series.frames()
    }

    /// Width and height of the frames in pixels.
    pub fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    /// How long each frame is shown, in hundredths of a second.
    pub fn delays_cs(&self) -> &[u16] {
        &self.delays
    }

    /// The enhancement that takes the end colours, in the samples' unit.
    pub fn enhancement_range(&self) -> (f64, f64) {
        self.enhancement
    }

    /// Above which enhancement voxels are coloured, in the samples' unit.
    pub fn threshold(&self) -> f64 {
        self.threshold
    }

    /// The voxel that the planes go through.
    pub fn centre(&self) -> [usize; 3] {
        self.planes.centre
    }

    /// The pixel in the middle of a voxel, for each plane that shows it.
    pub fn pixels_of(&self, voxel: [usize; 3]) -> Vec<(u32, u32)> {
        self.planes.panels.iter().filter_map(|panel| panel.pixel_of(voxel)).collect()
    }

    /// Draws a frame.
    ///
    /// # Errors
    /// [`Error::Setting`] if there is no such frame; [`Error::Cancelled`].
    pub fn frame(&self, frame: usize) -> Result<Picture> {
        self.cancel.check()?;
        if frame >= self.len() {
            return Err(Error::setting("frame", frame, format!("the cine has frames 0 to {}", self.len() - 1)));
        }
        let seconds = self.series.times()?.seconds()[frame];
        let mut canvas = self.base.clone();
        for (i, panel) in self.planes.panels.iter().enumerate() {
            panel.paint(&mut canvas, |voxel| self.color(i, panel, voxel, frame));
            draw_outline(&mut canvas, &self.outlines[i]);
            for line in &self.lines {
                if self.isochrones == Isochrones::Always || line.seconds <= seconds {
                    draw_isochrone(&mut canvas, &line.pieces[i], line.color);
                }
            }
            if let Some((x, y)) = self.mark.and_then(|voxel| panel.pixel_of(voxel)) {
                draw_mark(&mut canvas, x as f32 + 0.5, y as f32 + 0.5);
            }
            panel.letters(&mut canvas);
        }
        self.draw_time(&mut canvas, frame, seconds);
        Ok(canvas.finish())
    }

    fn color(&self, index: usize, panel: &Panel, voxel: [usize; 3], frame: usize) -> [u8; 3] {
        let [across, up] = [0, 1].map(|i| voxel[panel.axes[i]] - panel.window[i].start);
        let baseline = self.baseline[index][up * panel.window[0].len() + across];
        let value = sample(&self.series, flat_index(&self.series, voxel), frame);
        let shown = if self.anatomy == Anatomy::Frame { value } else { baseline };
        let grey = Colormap::Grey.color((shown - self.grey.0) / (self.grey.1 - self.grey.0));
        let enhancement = self.sign * (value - baseline);
        if enhancement.is_nan() || enhancement <= self.threshold {
            return grey;
        }
        let color = self.colormap.color((enhancement - self.enhancement.0) / (self.enhancement.1 - self.enhancement.0));
        let mix = |c: usize| self.opacity * f64::from(color[c]) + (1.0 - self.opacity) * f64::from(grey[c]);
        std::array::from_fn(|c| mix(c).round() as u8)
    }

    fn draw_head(&mut self, title: &str) {
        let room = self.width as f32 - 2.0 * MARGIN as f32 - 260.0;
        if let Some(line) = Line::wrap(title, 19.0, Weight::SemiBold, room, 1).first() {
            self.base.text(line, MARGIN as f32, MARGIN as f32 + 16.0, Align::Start, INK);
        }
    }

    fn draw_side(&mut self, cine: &Cine<'_>, x: u32, bar_height: f32) {
        let (low, high) = self.enhancement;
        let (left, top) = (x as f32, (MARGIN + HEAD) as f32);
        let scale = DarkScale {
            name: "enhancement",
            unit: &cine.unit,
            range: self.enhancement,
            colormap: self.colormap,
            height: bar_height,
            triangles: (false, true),
        };
        let y = scale.draw(&mut self.base, left, top);
        let text = |canvas: &mut Canvas, text: &str, x: f32, y: f32, color| {
            canvas.text(&Line::plain(text, 15.0, Weight::Regular), x, y, Align::Start, color);
        };
        // What lies below the threshold isn't coloured.
        let share = ((self.threshold - low) / (high - low)).clamp(0.0, 1.0) as f32;
        let hidden = (share * bar_height).round();
        for row in 0..hidden as u32 {
            let grey = Colormap::Grey.color(0.35 * f64::from(row) / f64::from(bar_height));
            self.base.rect(left, y + bar_height - 1.0 - row as f32, SCALE_WIDTH, 1.0, grey, 1.0);
        }
        let mut y = y + bar_height + 30.0;
        if !self.lines.is_empty() {
            text(&mut self.base, "filled at", left, y, FAINT_INK);
            y += 22.0;
        }
        for line in &self.lines {
            draw_isochrone(&mut self.base, &[[(left, y - 5.0), (left + 20.0, y - 5.0)]], line.color);
            let mut at = clock(line.seconds, self.style, usize::from(line.seconds.fract().abs() > 1e-6));
            if self.style == ClockStyle::Seconds {
                at += " s";
            }
            text(&mut self.base, &at, left + 30.0, y, INK);
            y += 22.0;
        }
        if self.mark.is_some_and(|voxel| !self.pixels_of(voxel).is_empty()) {
            draw_mark(&mut self.base, left + 10.0, y - 5.0);
            text(&mut self.base, "origin", left + 30.0, y, INK);
        }
    }

    /// The mean curve over a time axis.
    fn draw_strip(&mut self, cine: &Cine<'_>, mean_curve: &[f64]) {
        let Ok(times) = self.series.times() else { return };
        let foot = (self.height - MARGIN + 8 - STRIP_FOOT) as f32 - 8.0;
        let top = foot - STRIP as f32;
        let (left, right) = (MARGIN as f32 + 0.5, (self.width - MARGIN) as f32 - 0.5);
        let x = |seconds: f64| left + (right - left) * ((seconds - times.first_s()) / times.duration_s()) as f32;
        let (from, to) = (x(times.seconds()[cine.baseline.start]), x(times.seconds()[cine.baseline.end - 1]));
        self.base.rect(from, top, (to - from).max(2.0), foot - top, GRID, 0.55);
        let note = Line::plain("baseline", 13.0, Weight::Regular);
        if note.width() + 8.0 < to - from {
            self.base.text(&note, from + 4.0, top + 13.0, Align::Start, FAINT_INK);
        }
        let title = format!("mean enhancement of the lesion, {}", ticks::unit(&cine.unit));
        let title = Line::plain(title.trim_end_matches([',', ' ']), 14.0, Weight::Regular);
        self.base.text(&title, left, top - 7.0, Align::Start, FAINT_INK);

        let finite = || mean_curve.iter().copied().filter(|e| e.is_finite());
        let (low, high) = (finite().fold(0.0, f64::min), finite().fold(0.0, f64::max));
        let span = if high > low { high - low } else { 1.0 };
        let y = |e: f64| foot - 3.0 - (foot - top - 8.0) * ((e - low) / span) as f32;
        self.curve =
            times.seconds().iter().zip(mean_curve).map(|(t, e)| e.is_finite().then(|| (x(*t), y(*e)))).collect();
        self.base.line(&[(left, y(0.0)), (right, y(0.0))], Pen::new(GRID, 1.0));
        for run in self.curve.split(Option::is_none) {
            let points: Vec<(f32, f32)> = run.iter().flatten().copied().collect();
            self.base.line(&points, Pen::new([96, 99, 108], 1.5));
        }
        self.base.line(&[(left, foot), (right, foot)], Pen::new(FAINT_INK, 1.0));
        let ticks = Ticks::seconds(times.first_s(), times.last_s(), 8);
        for (value, label) in ticks.values.iter().zip(&ticks.labels) {
            let at = x(*value);
            self.base.line(&[(at, foot), (at, foot + 5.0)], Pen::new(FAINT_INK, 1.0));
            let unit = if self.style == ClockStyle::Seconds { " s" } else { "" };
            let line = Line::plain(&format!("{label}{unit}"), 14.0, Weight::Regular);
            let half = 0.5 * line.width();
            let at = at.clamp(left + half, right - half);
            self.base.text(&line, at, foot + 20.0, Align::Middle, FAINT_INK);
        }
    }

    fn draw_time(&self, canvas: &mut Canvas, frame: usize, seconds: f64) {
        let right = (self.width - MARGIN) as f32;
        let unit = if self.style == ClockStyle::Seconds { " s" } else { "" };
        let time = format!("{}{unit}", clock(seconds, self.style, self.decimals));
        canvas.text(&Line::plain(&time, 26.0, Weight::SemiBold), right, MARGIN as f32 + 18.0, Align::End, INK);
        let count = Line::plain(&format!("frame {} of {}", frame + 1, self.len()), 14.0, Weight::Regular);
        canvas.text(&count, right - 112.0, MARGIN as f32 + 16.0, Align::End, FAINT_INK);
        for run in self.curve[..=frame].split(Option::is_none) {
            let points: Vec<(f32, f32)> = run.iter().flatten().copied().collect();
            canvas.line(&points, Pen::new(INK, 2.0));
        }
        if let Some((x, y)) = self.curve[frame] {
            canvas.disc(x, y, 4.5, INK);
        }
    }
}

fn flat_index(series: &Series, [x, y, z]: [usize; 3]) -> usize {
    let [nx, ny, ..] = series.shape();
    x + nx * (y + ny * z)
}

fn sample(series: &Series, voxel: usize, frame: usize) -> f64 {
    let scaling = series.scaling();
    scaling.slope * series.resident().get_f64(frame * series.voxel_count() + voxel) + scaling.intercept
}

/// NaN of nothing.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0.0), |(sum, n), value| (sum + value, n + 1.0));
    sum / n
}

fn panel_voxels(panel: &Panel, series: &Series) -> Vec<usize> {
    panel.voxels().map(|voxel| flat_index(series, voxel)).collect()
}

fn grey_window(cine: &Cine<'_>, planes: &Planes) -> Result<(f64, f64)> {
    let frames = (0..cine.series.frames()).step_by(cine.series.frames().div_ceil(9));
    let voxels: Vec<usize> = planes.panels.iter().flat_map(|panel| panel_voxels(panel, &cine.series)).collect();
    let mut finite: Vec<f32> = frames
        .flat_map(|frame| voxels.iter().map(move |voxel| sample(&cine.series, *voxel, frame) as f32))
        .filter(|value| value.is_finite())
        .collect();
    cine.grey.resolve(&mut finite)
}

fn enhancement_range(
    cine: &Cine<'_>,
    voxels: &[usize],
    sign: f64,
    baseline_of: impl Fn(usize) -> f64,
) -> Result<(f64, f64)> {
    if let Some(range @ Range::Fixed(..)) = cine.enhancement {
        return range.resolve(&mut []);
    }
    let frames = cine.baseline.end..cine.series.frames();
    let step = frames.len().div_ceil(60).max(1);
    let mut finite: Vec<f32> = Vec::with_capacity(voxels.len() * frames.len() / step);
    for voxel in voxels {
        let baseline = baseline_of(*voxel);
        let values =
            frames.clone().step_by(step).map(|frame| (sign * (sample(&cine.series, *voxel, frame) - baseline)) as f32);
        finite.extend(values.filter(|e| e.is_finite()));
    }
    match cine.enhancement {
        Some(range) => range.resolve(&mut finite),
        // Nothing that enhances: colours for whatever there is.
        None => Range::Fixed(0.0, Some(percentile(&mut finite, 98.0)).filter(|high| *high > 0.0).unwrap_or(1.0))
            .resolve(&mut []),
    }
}

/// The median over voxels of the baseline's standard deviation; none with fewer than three frames.
fn noise(cine: &Cine<'_>, voxels: &[usize]) -> Option<f64> {
    let frames = cine.baseline.clone();
    let n = frames.len() as f64;
    if frames.len() < 3 {
        return None;
    }
    let sd = |voxel: usize| {
        let values: Vec<f64> = frames.clone().map(|frame| sample(&cine.series, voxel, frame)).collect();
        let middle = mean(values.iter().copied());
        (values.iter().map(|v| (v - middle).powi(2)).sum::<f64>() / (n - 1.0)).sqrt()
    };
    let mut finite: Vec<f32> = voxels.iter().map(|voxel| sd(*voxel) as f32).filter(|sd| sd.is_finite()).collect();
    Some(percentile(&mut finite, 50.0)).filter(|sd| *sd > 0.0)
}

/// Times and colours of the lines.
fn lines(cine: &Cine<'_>) -> Result<Vec<(f64, [u8; 3])>> {
    let Some(map) = cine.filling_time else { return Ok(Vec::new()) };
    let mut times = match &cine.levels {
        Some(levels) => levels.clone(),
        None => {
            let pairs = map.iter().zip(cine.lesion.labels());
            let mut inside: Vec<f32> =
                pairs.filter(|(t, label)| **label != 0 && t.is_finite()).map(|(t, _)| *t).collect();
            let (low, high) = (percentile(&mut inside, 5.0), percentile(&mut inside, 95.0));
            let mut found = levels(low, high);
            found.truncate(MOST_LEVELS);
            found
        }
    };
    times.sort_by(f64::total_cmp);
    times.dedup();
    let last = (times.len().max(2) - 1) as f64;
    // Early lines light and green, late ones deeper and blue: none of the colours of the maps.
    let color = |i: usize| {
        let share = i as f64 / last;
        oklch(0.93 - 0.26 * share, 0.10 + 0.05 * share, 150.0 + 105.0 * share)
    };
    Ok(times.into_iter().enumerate().map(|(i, seconds)| (seconds, color(i))).collect())
}

fn place_lines(lines: Vec<(f64, [u8; 3])>, cine: &Cine<'_>, planes: &Planes) -> Vec<Isochrone> {
    let Some(map) = cine.filling_time else { return Vec::new() };
    let labels = cine.lesion.labels();
    let mut inside = map.to_owned();
    inside.zip_mut_with(&labels, |t, label| {
        if *label == 0 {
            *t = f32::NAN;
        }
    });
    let map = smoothed(inside.view(), cine.smoothing);
    let in_panel = |panel: &Panel, seconds: f64| {
        let [across, up] = [0, 1].map(|i| panel.window[i].start);
        let count = [panel.window[0].len(), panel.window[1].len()];
        let pieces = contour(count, seconds, |u, v| f64::from(map[panel.voxel(across + u, up + v)]));
        let place = |(u, v): (f64, f64)| panel.point(across as f64 + u, up as f64 + v);
        pieces.into_iter().map(|[a, b]| [place(a), place(b)]).collect()
    };
    lines
        .into_iter()
        .map(|(seconds, color)| Isochrone {
            seconds,
            color,
            pieces: planes.panels.iter().map(|panel| in_panel(panel, seconds)).collect(),
        })
        .collect()
}

fn draw_isochrone(canvas: &mut Canvas, pieces: &[[(f32, f32); 2]], color: [u8; 3]) {
    canvas.pieces(pieces, Pen::new(GROUND, 3.6).opacity(0.7));
    canvas.pieces(pieces, Pen::new(color, 1.8));
}
