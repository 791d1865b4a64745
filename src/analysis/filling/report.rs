//! What an analysis of filling finds: plain numbers, for a report, a file or a table.

use crate::maps::{Maps, SettingValue};

pub use super::description::Description;

/// A rank measure of direction in [-1, 1] with its interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Index {
    /// Somers' D.
    pub value: f64,
    /// The interval's lower end.
    pub low: f64,
    /// The interval's upper end.
    pub high: f64,
    /// Two-sided p of no direction.
    pub p: f64,
    /// The standard error in use: the larger of the next two.
    pub standard_error: f64,
    /// From the noise and its spatial correlation.
    pub noise_standard_error: f64,
    /// From the spatial correlation of what a trend along the distance leaves.
    pub tissue_standard_error: f64,
    /// What the estimator would find without a direction, from contrast to noise that changes along the distance; the
    /// interval is wider by it on either side.
    pub bias: f64,
    /// Voxels that it is measured on.
    pub voxels: usize,
}

impl Index {
    /// The sign if the interval leaves out 0, else 0.
    pub fn determined_sign(&self) -> i32 {
        if self.low > 0.0 {
            1
        } else if self.high < 0.0 {
            -1
        } else {
            0
        }
    }
}

/// A direction of filling along one distance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Direction {
    /// Of the front's arrival; voxels that don't enhance are left out.
    pub arrival: Index,
    /// The same with voxels that don't enhance as censored: they fill later than all that do. Without interval.
    pub arrival_censored: f64,
    /// Of the crossing of the common level, voxels that don't reach it as censored. Without interval.
    pub level: f64,
    /// What the level crossing would give if all voxels began at once, each as high as it is: where enhancement falls towards
    /// the rim, a common level is crossed later there without any front.
    pub level_of_equal_filling: f64,
    /// The sign of the direction if the arrival's interval leaves out 0 and the level crossing, beyond what equal filling
    /// gives, has the same sign; else 0.
    pub sign: i32,
}

/// How much of the lesion enhances.
#[derive(Debug, Clone, PartialEq)]
pub struct Extent {
    /// Volume of the lesion in mL.
    pub lesion_ml: f64,
    /// Volume that reaches the common level, in mL.
    pub enhancing_ml: f64,
    /// Volume that enhances but doesn't reach the common level before the series ends, in mL.
    pub partly_ml: f64,
    /// Volume that doesn't enhance, in mL.
    pub not_enhancing_ml: f64,
    /// Volume of voxels with samples that can't be used, in mL.
    pub unusable_ml: f64,
    /// The share of the usable volume that enhances, in full or partly.
    pub enhancing_fraction: f64,
    /// Its interval: the shares that enhance with a threshold 1.96 noise SDs higher, and lower.
    pub enhancing_fraction_interval: [f64; 2],
    /// At each frame's time in seconds, the share of the usable volume that has reached the common level.
    pub filled: Vec<(f64, f64)>,
}

/// Where the origin lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the inner half of the lesion, by depth.
    Core,
    /// In its outer half.
    Rim,
    /// It touches the base.
    Base,
}

impl Place {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Place::Core => "core",
            Place::Rim => "rim",
            Place::Base => "base",
        }
    }
}

/// Where filling begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Origin {
    /// Centroid of the earliest component in world mm, voxels weighted by how early they are.
    pub world_mm: [f64; 3],
    /// The same in voxels of the series (fractions count).
    pub voxel: [f64; 3],
    /// Volume of the component in mL.
    pub volume_ml: f64,
    /// Distance of the centroid's voxel from the lesion's surface in mm.
    pub depth_mm: f64,
    /// Where it lies.
    pub place: Place,
    /// 95 % of the draws of the noise put the centroid within this distance, in mm.
    pub region_radius_mm: f64,
    /// Centroids in world mm of further components, at least half as large, that the draws keep in place, too.
    pub others_world_mm: Vec<[f64; 3]>,
}

/// Why there is no origin.
#[derive(Debug, Clone, PartialEq)]
pub enum NoOrigin {
    /// Too few voxels enhance.
    TooFewVoxels,
    /// The draws of the noise scatter it over more than a quarter of the lesion's radius.
    Scattered {
        /// Radius of the region that holds 95 % of them, in mm.
        region_radius_mm: f64,
        /// What is allowed, in mm.
        limit_mm: f64,
    },
}

/// A shell of the lesion.
#[derive(Debug, Clone, PartialEq)]
pub struct Shell {
    /// From this distance in mm …
    pub from_mm: f64,
    /// … to this one.
    pub to_mm: f64,
    /// Volume in mL.
    pub volume_ml: f64,
    /// Volume over thickness, in mm².
    pub area_mm2: f64,
    /// Voxels.
    pub voxels: usize,
    /// The share of them that enhances.
    pub enhancing_fraction: f64,
    /// First quartile, median and third quartile of the front's arrival in seconds, voxels that don't enhance counted as
    /// later than all; infinite where so many don't.
    pub arrival_quartiles_s: [f64; 3],
    /// The same of the crossing of the common level.
    pub level_quartiles_s: [f64; 3],
    /// Slowness along the distance in s/mm, signed, over this shell and its neighbours.
    pub slowness_s_per_mm: f64,
    /// Its standard error.
    pub slowness_se_s_per_mm: f64,
    /// Mean enhancement of the shell's voxels at each frame, in the unit of the samples.
    pub curve: Vec<f64>,
}

/// The distance that the speed is measured along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// From the innermost point outward, by depth.
    Depth,
    /// Inside the lesion from its origin.
    FromOrigin,
    /// Inside the lesion from its base.
    FromBase,
}

impl Path {
    /// The words for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Path::Depth => "depth, from the innermost point outward",
            Path::FromOrigin => "inside the lesion, from the origin",
            Path::FromBase => "inside the lesion, from the base",
        }
    }
}

/// How the front's speed changes on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpeedTrend {
    /// Slower and slower.
    Decelerating,
    /// Faster and faster.
    Accelerating,
    /// The interval includes no change.
    Undetermined,
}

impl SpeedTrend {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            SpeedTrend::Decelerating => "decelerating",
            SpeedTrend::Accelerating => "accelerating",
            SpeedTrend::Undetermined => "undetermined",
        }
    }
}

/// The apparent speed of the front.
#[derive(Debug, Clone, PartialEq)]
pub struct FrontSpeed {
    /// What distance is meant: the one that explains the arrivals best.
    pub path: Path,
    /// The share of the arrivals' variance that a parabola along it explains, weighted.
    pub explained: f64,
    /// Slowness in s/mm at the median distance: positive where the front moves with the distance.
    pub slowness_s_per_mm: f64,
    /// Its standard error.
    pub slowness_se_s_per_mm: f64,
    /// What equal filling would give as slowness there, from contrast to noise that changes along the distance; taken off.
    pub slowness_bias_s_per_mm: f64,
    /// 1 / |slowness| in mm/s; `None` if the interval of the slowness includes 0.
    pub median_mm_per_s: Option<f64>,
    /// The interval of the speed by inversion; infinite above where that of the slowness includes 0.
    pub interval_mm_per_s: [f64; 2],
    /// By how much the slowness grows per mm on the front's way, s/mm².
    pub slowness_change_s_per_mm2: f64,
    /// Its interval.
    pub slowness_change_interval: [f64; 2],
    /// What that says.
    pub trend: SpeedTrend,
    /// Distance in mm, speed there and its interval in mm/s, from the parabola; at the middles of the shells.
    pub by_distance: Vec<SpeedAt>,
}

/// The apparent speed at a distance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SpeedAt {
    /// Distance in mm.
    pub distance_mm: f64,
    /// Slowness in s/mm, signed.
    pub slowness_s_per_mm: f64,
    /// Speed in mm/s.
    pub speed_mm_per_s: f64,
    /// Its interval; infinite above where that of the slowness includes 0.
    pub interval_mm_per_s: [f64; 2],
}

/// How a lesion fills.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FillingReport {
    /// The centrifugality index with its interval: Somers' D of the front's arrival against the distance from the lesion's
    /// centre (its innermost depth) outward. +1 fills from the centre, -1 from the rim. Words are
    /// said only where the level crossings agree in sign, too: see [`Direction::sign`].
    pub centrifugality: Index,
    /// The direction from the centre outward in full.
    pub outward: Direction,
    /// The direction from the base outward, if a base was given.
    pub from_base: Option<Direction>,
    /// Somers' D of the arrival against the distance from the estimated origin. Descriptive only: the origin was chosen for
    /// being early.
    pub from_origin: Option<f64>,
    /// How much of the lesion enhances.
    pub extent: Extent,
    /// Where filling begins.
    pub origin: Result<Origin, NoOrigin>,
    /// Shells of equal volume along the depth, from the centre outward.
    pub shells: Vec<Shell>,
    /// Shells of equal volume from the base outward, if a base was given.
    pub base_shells: Vec<Shell>,
    /// The apparent speed of the front; `None` if too few voxels enhance.
    pub speed: Option<FrontSpeed>,
    /// Median standard error of the front's arrival in seconds.
    pub arrival_se_s: f64,
    /// Median over the enhancing voxels of the fitted enhancement at the end of the frames used, in the unit of the samples.
    pub reference_plateau: f64,
    /// The common level above each voxel's baseline.
    pub level: f64,
    /// The unit of the samples.
    pub unit: &'static str,
    /// The pattern in words and numbers.
    pub description: Description,
    /// Everything that was chosen or decided.
    pub settings: Vec<(String, SettingValue)>,
    /// Times of the frames in seconds.
    pub times_s: Vec<f64>,
    /// Maps on the series' grid: filling times with standard errors, distances, local cosines and speed.
    pub maps: Maps,
}
