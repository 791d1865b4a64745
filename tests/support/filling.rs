//! The study of the filling analysis: phantoms with truth, and what the analysis makes of them.

use perfuse::analysis::filling::{FillingPattern, FillingReport};
use perfuse::phantom::filling::{ContrastFall, FillingPhantom, FillingPhantomSeries, Pattern};
use perfuse::{Engine, Result, RunOptions, TimeAxis};

/// Widths of the noise in voxels (full width at half maximum of the smoothing kernel).
pub const NOISE_WIDTHS: [f64; 3] = [0.0, 3.0, 6.0];
/// Seconds between frames.
pub const SPACINGS: [f64; 2] = [3.0, 10.0];
/// Seconds from the first to the last frame.
const DURATION_S: f64 = 300.0;

/// The shape of a lesion and its voxels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shape {
    /// A ball of 2 mL, voxels of 1 mm.
    Ball,
    /// An ellipsoid of 2 mL, voxels of 0.9 x 0.9 x 1.4 mm.
    Ellipsoid,
    /// A ball of 2 mL, voxels of 1.2 x 1.2 x 3 mm.
    ThickSlices,
    /// An ellipsoid of 12 mL, voxels of 1.3 mm.
    Large,
}

impl Shape {
    pub const ALL: [Shape; 4] = [Shape::Ball, Shape::Ellipsoid, Shape::ThickSlices, Shape::Large];

    pub fn name(self) -> &'static str {
        match self {
            Shape::Ball => "ball",
            Shape::Ellipsoid => "ellipsoid",
            Shape::ThickSlices => "thick slices",
            Shape::Large => "large",
        }
    }

    pub fn phantom(self) -> FillingPhantom {
        match self {
            Shape::Ball => FillingPhantom::ball(7.82, [1.0, 1.0, 1.0]),
            Shape::Ellipsoid => FillingPhantom::ellipsoid([10.0, 6.5, 7.4], [0.9, 0.9, 1.4]),
            Shape::ThickSlices => FillingPhantom::ball(7.82, [1.2, 1.2, 3.0]),
            Shape::Large => FillingPhantom::ellipsoid([17.0, 13.0, 13.0], [1.3, 1.3, 1.3]),
        }
    }
}

/// One kind of phantom.
#[derive(Debug, Clone, Copy)]
pub struct Cell {
    pub shape: Shape,
    pub pattern: Pattern,
    pub spacing_s: f64,
    pub noise_width: f64,
    pub fall: ContrastFall,
    pub speed: f64,
    pub tau_s: f64,
}

impl Cell {
    pub fn phantom(&self, seed: u64) -> Result<FillingPhantomSeries> {
        let frames = (DURATION_S / self.spacing_s).round() as usize + 1;
        self.shape
            .phantom()
            .pattern(self.pattern)
            .times(TimeAxis::uniform(self.spacing_s, frames)?)
            .arrival_s(62.0)
            .speed_mm_per_s(self.speed)
            .rise_time_constant_s(self.tau_s)
            .contrast_to_noise(20.0, 5.0)
            .contrast_fall(self.fall)
            .partial_volume_rim(true)
            .noise_width_voxels(self.noise_width)
            .seed(seed)
            .build()
    }

    pub fn report(&self, engine: &Engine, seed: u64) -> Result<(FillingPhantomSeries, FillingReport)> {
        let phantom = self.phantom(seed)?;
        let mut analysis = FillingPattern::new();
        if self.pattern == Pattern::FromBase {
            analysis = analysis.with_base(phantom.base.clone());
        }
        let report = analysis.run(engine, &phantom.series, &phantom.lesion, &RunOptions::new())?;
        Ok((phantom, report))
    }
}

/// What the analysis made of one phantom.
#[derive(Debug)]
pub struct Outcome {
    pub cell: Cell,
    pub phantom: FillingPhantomSeries,
    pub report: FillingReport,
}

impl Cell {
    pub fn outcome(&self, engine: &Engine, seed: u64) -> Result<Outcome> {
        let (phantom, report) = self.report(engine, seed)?;
        Ok(Outcome { cell: *self, phantom, report })
    }

    /// Chooses the speed such that the arrivals span so many median standard errors of an arrival.
    pub fn set_span(&mut self, errors: f64) -> Result<()> {
        // σ_T at this contrast to noise, spacing and time constant, and the span per unit of slowness.
        self.speed = 0.2;
        let (phantom, report) = self.report(&Engine::cpu(), 1)?;
        self.speed *= phantom.span_s / (errors * report.arrival_se_s);
        Ok(())
    }
}

impl Outcome {
    /// The direction in question: from the base if there is one.
    fn direction(&self) -> perfuse::analysis::filling::report::Direction {
        self.report.from_base.unwrap_or(self.report.outward)
    }

    pub fn sign(&self) -> i32 {
        self.direction().sign
    }

    pub fn true_sign(&self) -> i32 {
        if self.cell.pattern == Pattern::Centripetal { -1 } else { 1 }
    }

    pub fn index(&self) -> f64 {
        self.direction().arrival.value
    }

    /// The index from the centre where the one in question is from the base.
    pub fn other_index(&self) -> f64 {
        self.report.centrifugality.value
    }

    pub fn span_over_error(&self) -> f64 {
        self.phantom.span_s / self.report.arrival_se_s
    }

    /// The origin is the true one to two voxels, or none is claimed.
    pub fn origin_is_right_or_none(&self) -> bool {
        match (&self.report.origin, self.phantom.origin_voxel) {
            (Err(_), _) => true,
            (Ok(origin), Some(truth)) => {
                (0..3).map(|a| (origin.voxel[a] - truth[a]).powi(2)).sum::<f64>().sqrt() <= 2.0
            }
            // A surface isn't a point.
            (Ok(_), None) => false,
        }
    }

    /// Speed over the true one; NaN if none is claimed.
    pub fn speed_ratio(&self) -> f64 {
        self.report.speed.as_ref().map_or(f64::NAN, |speed| 1.0 / speed.slowness_s_per_mm.abs() / self.cell.speed)
    }

    pub fn speed_is_right(&self) -> bool {
        (self.speed_ratio() - 1.0).abs() <= 0.15
    }

    /// Relative standard error of the slowness.
    pub fn slowness_error(&self) -> f64 {
        let speed = self.report.speed.as_ref();
        speed.map_or(f64::INFINITY, |speed| speed.slowness_se_s_per_mm / speed.slowness_s_per_mm.abs())
    }

    pub fn slowness_is_precise(&self) -> bool {
        self.slowness_error() <= 0.05
    }
}
