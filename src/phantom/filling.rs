//! Lesions that fill in a known way: origin, direction and speed are chosen, so an analysis of filling can be checked.
//!
//! Every voxel of the lesion enhances as `a (1 - exp(-(t - t_on) / τ))`. The pattern says when it begins, t_on; the
//! contrast-to-noise ratio says how high it goes, a; around the lesion lies tissue that doesn't enhance.
//!
//! ```
//! use perfuse::phantom::filling::{FillingPhantom, Pattern};
//! let phantom = FillingPhantom::ball(6.0, [1.0, 1.0, 1.0]).pattern(Pattern::Centrifugal).speed_mm_per_s(0.2).build()?;
//! let arrival = &phantom.arrival_s;
//! let [x, y, z] = phantom.origin_voxel.expect("a centrifugal lesion has an origin").map(|v| v as usize);
//! assert!(arrival[[x, y, z]] < arrival[[x + 4, y, z]]);
//! # Ok::<(), perfuse::Error>(())
//! ```

use ndarray::{Array3, ShapeBuilder};
use rayon::prelude::*;

use super::curves::Enhancement;
use super::random::Random;
use crate::analysis::filling::distance::{Grid, depth, neighbour_steps, on_surface};
use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::series::{Mask, Series};
use crate::time::TimeAxis;

/// Voxels around the lesion.
const MARGIN: usize = 4;
/// Signal before contrast in the lesion and around it.
const BASELINE: [f64; 2] = [225.0, 310.0];
/// Share of a rim voxel that is lesion, where the rim has partial volume.
const RIM_SHARE: f64 = 0.5;

/// How a lesion fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pattern {
    /// Everywhere at once.
    Uniform,
    /// From the innermost point outward, by the straight distance from it.
    Centrifugal,
    /// From the surface inward, by depth.
    Centripetal,
    /// From the middle of a base outward, by the straight distance from it: the base is a cap of the surface below (-z).
    FromBase,
    /// From two points, on the longest axis half way between middle and surface.
    TwoOrigins,
    /// Not at all.
    None,
}

/// What makes the contrast-to-noise ratio change from the middle to the rim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ContrastFall {
    /// The enhancement falls; the noise is the same everywhere.
    Enhancement,
    /// The noise grows; the enhancement is the same everywhere.
    Noise,
}

/// Settings of a phantom of one lesion; [`build`](Self::build) makes it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FillingPhantom {
    lesion: Array3<bool>,
    voxel_size_mm: [f64; 3],
    pattern: Pattern,
    times: TimeAxis,
    arrival_s: f64,
    speed_mm_per_s: f64,
    deceleration: f64,
    enhancing_fraction: f64,
    rise_time_constant_s: f64,
    contrast_to_noise: [f64; 2],
    contrast_fall: ContrastFall,
    noise_sd: f64,
    noise_width_voxels: f64,
    partial_volume_rim: bool,
    seed: u64,
}

impl FillingPhantom {
    /// A ball of this radius.
    pub fn ball(radius_mm: f64, voxel_size_mm: [f64; 3]) -> Self {
        Self::ellipsoid([radius_mm; 3], voxel_size_mm)
    }

    /// An ellipsoid with these half axes along x, y and z.
    pub fn ellipsoid(half_axes_mm: [f64; 3], voxel_size_mm: [f64; 3]) -> Self {
        let reach: [usize; 3] = std::array::from_fn(|a| {
            let voxels = (half_axes_mm[a] / voxel_size_mm[a]).ceil();
            // Sizes that make no sense are refused when the phantom is built.
            if voxels.is_finite() { (voxels.max(0.0) as usize).min(150) + MARGIN } else { MARGIN }
        });
        let shape = reach.map(|r| 2 * r + 1);
        let inside = |(x, y, z): (usize, usize, usize)| {
            let r = |v: usize, a: usize| (v as f64 - reach[a] as f64) * voxel_size_mm[a] / half_axes_mm[a];
            r(x, 0).powi(2) + r(y, 1).powi(2) + r(z, 2).powi(2) <= 1.0
        };
        Self::of_shape(Array3::from_shape_fn((shape[0], shape[1], shape[2]), inside), voxel_size_mm)
    }

    /// A lesion of any shape, `[x, y, z]`, on a grid of its own.
    pub fn of_shape(lesion: Array3<bool>, voxel_size_mm: [f64; 3]) -> Self {
        Self {
            lesion,
            voxel_size_mm,
            pattern: Pattern::Uniform,
            times: TimeAxis::uniform(3.0, 80).expect("even times"),
            arrival_s: 40.0,
            speed_mm_per_s: 0.1,
            deceleration: 0.0,
            enhancing_fraction: 1.0,
            rise_time_constant_s: 25.0,
            contrast_to_noise: [20.0, 20.0],
            contrast_fall: ContrastFall::Enhancement,
            noise_sd: 10.0,
            noise_width_voxels: 0.0,
            partial_volume_rim: false,
            seed: 0,
        }
    }

    /// What a dural angioleiomyoma was seen to do: enhancement that is progressive (it rises to the last frame), centrifugal,
    /// slow, decelerating towards the edge, and partial. A lesion of about 8 mL.
    pub fn angioleiomyoma_like() -> Self {
        Self::ellipsoid([13.0, 12.0, 12.5], [1.2, 1.2, 1.5])
            .pattern(Pattern::Centrifugal)
            .times(TimeAxis::uniform(4.0, 90).expect("even times"))
            .arrival_s(36.0)
            .speed_mm_per_s(0.16)
            .deceleration(3.0)
            .enhancing_fraction(0.72)
            .rise_time_constant_s(70.0)
            .contrast_to_noise(25.0, 12.0)
            .noise_width_voxels(2.0)
            .partial_volume_rim(true)
    }

    /// How the lesion fills.
    #[must_use]
    pub fn pattern(mut self, pattern: Pattern) -> Self {
        self.pattern = pattern;
        self
    }

    /// The times of the frames.
    #[must_use]
    pub fn times(mut self, times: TimeAxis) -> Self {
        self.times = times;
        self
    }

    /// When the first voxel begins to enhance, on the series' clock.
    #[must_use]
    pub fn arrival_s(mut self, seconds: f64) -> Self {
        self.arrival_s = seconds;
        self
    }

    /// How fast the front starts.
    #[must_use]
    pub fn speed_mm_per_s(mut self, speed: f64) -> Self {
        self.speed_mm_per_s = speed;
        self
    }

    /// How much slower it becomes: at the distance d the slowness is `(1 + k d / R) / speed`, R the radius of a ball of the
    /// lesion's volume. 0 is constant speed; negative numbers above -0.5 accelerate.
    #[must_use]
    pub fn deceleration(mut self, k: f64) -> Self {
        self.deceleration = k;
        self
    }

    /// The part of the lesion's voxels that ever enhances: those that the front reaches first.
    #[must_use]
    pub fn enhancing_fraction(mut self, fraction: f64) -> Self {
        self.enhancing_fraction = fraction;
        self
    }

    /// The time constant τ of every voxel's rise.
    #[must_use]
    pub fn rise_time_constant_s(mut self, seconds: f64) -> Self {
        self.rise_time_constant_s = seconds;
        self
    }

    /// Plateau over noise SD at the innermost point and at the rim; linear in the normalised depth between.
    #[must_use]
    pub fn contrast_to_noise(mut self, centre: f64, rim: f64) -> Self {
        self.contrast_to_noise = [centre, rim];
        self
    }

    /// What makes the contrast-to-noise ratio change.
    #[must_use]
    pub fn contrast_fall(mut self, fall: ContrastFall) -> Self {
        self.contrast_fall = fall;
        self
    }

    /// Spatial width of the noise in voxels: white noise, smoothed with a Gaussian of this full width at half maximum, and
    /// of the same standard deviation as before; 0 is white noise.
    #[must_use]
    pub fn noise_width_voxels(mut self, width: f64) -> Self {
        self.noise_width_voxels = width;
        self
    }

    /// Whether the lesion's outermost voxels are half lesion, half surrounding tissue.
    #[must_use]
    pub fn partial_volume_rim(mut self, partial: bool) -> Self {
        self.partial_volume_rim = partial;
        self
    }

    /// Which noise.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Makes the phantom.
    ///
    /// # Errors
    /// [`Error::Setting`] if the lesion has no voxel or a number makes no sense.
    pub fn build(&self) -> Result<FillingPhantomSeries> {
        self.check()?;
        let (nx, ny, nz) = self.lesion.dim();
        let grid = Grid { shape: [nx, ny, nz], size_mm: self.voxel_size_mm };
        let inside: Vec<bool> = (0..grid.count()).map(|i| self.lesion[grid.voxel(i)]).collect();
        let depth = depth(grid, |i| inside[i]);
        let innermost = (0..grid.count()).fold(0, |best, i| if depth[i] > depth[best] { i } else { best });
        let deepest = depth[innermost];
        let count = inside.iter().filter(|i| **i).count();
        let radius = (count as f64 * grid.voxel_volume_mm3() * 0.75 / std::f64::consts::PI).cbrt();

        let (origins, base) = self.origins(grid, &inside, innermost);
        let distance = |i: usize| match self.pattern {
            Pattern::Uniform | Pattern::None => 0.0,
            Pattern::Centripetal => depth[i],
            _ => origins.iter().map(|o| straight(grid, *o, i)).fold(f64::INFINITY, f64::min),
        };
        let travel = |d: f64| (d + self.deceleration * d * d / (2.0 * radius)) / self.speed_mm_per_s;
        let mut arrival: Vec<f64> = (0..grid.count())
            .map(|i| if inside[i] { self.arrival_s + travel(distance(i)) } else { f64::NAN })
            .collect();
        self.leave_unfilled(&mut arrival, count);

        let contrast = |i: usize| {
            let relative = 1.0 - depth[i] / deepest;
            let [centre, rim] = self.contrast_to_noise;
            centre + (rim - centre) * relative
        };
        let rim = |i: usize| inside[i] && on_surface(grid, |other| inside[other], i);
        let last = self.times.last_s();
        let voxels: Vec<VoxelPlan> = (0..grid.count())
            .map(|i| {
                let share = match (inside[i], self.partial_volume_rim && rim(i)) {
                    (false, _) => 0.0,
                    (true, true) => RIM_SHARE,
                    (true, false) => 1.0,
                };
                let (height, noise_sd) = match self.contrast_fall {
                    _ if !inside[i] => (0.0, self.noise_sd),
                    ContrastFall::Enhancement => (contrast(i) * self.noise_sd, self.noise_sd),
                    ContrastFall::Noise => {
                        let height = self.contrast_to_noise[0].max(self.contrast_to_noise[1]) * self.noise_sd;
                        (height, height / contrast(i))
                    }
                };
                let curve = match arrival[i] {
                    t if t.is_finite() && t < last => {
                        Enhancement::saturating(t, share * height, self.rise_time_constant_s)
                    }
                    _ => Ok(Enhancement::none()),
                }?;
                let baseline = share * BASELINE[0] + (1.0 - share) * BASELINE[1];
                Ok(VoxelPlan { baseline, curve, noise_sd })
            })
            .collect::<Result<_>>()?;
        let samples = self.samples(grid, &voxels);

        let mut geometry = Geometry::from_voxel_size_mm(self.voxel_size_mm);
        for axis in 0..3 {
            geometry.srow[axis][3] = -0.5 * (grid.shape[axis] as f64 - 1.0) * self.voxel_size_mm[axis];
            geometry.offset[axis] = geometry.srow[axis][3];
        }
        let mask = |inside: &dyn Fn(usize) -> bool| {
            let labels = Array3::from_shape_fn((nx, ny, nz), |(x, y, z)| u32::from(inside(grid.index([x, y, z]))));
            Mask::from_labels(labels.view()).with_geometry(geometry.clone())
        };
        let finite: Vec<f64> = arrival.iter().copied().filter(|t| t.is_finite()).collect();
        let span_s = finite.iter().copied().fold(f64::MIN, f64::max) - finite.iter().copied().fold(f64::MAX, f64::min);
        let flat: Vec<f32> = arrival.iter().map(|t| *t as f32).collect();
        Ok(FillingPhantomSeries {
            series: Series::from_voxels(samples, [nx, ny, nz, self.times.len()], self.times.clone())?
                .with_geometry(geometry.clone()),
            lesion: mask(&|i| inside[i]),
            base: mask(&|i| base[i]),
            arrival_s: Array3::from_shape_vec((nx, ny, nz).f(), flat).expect("one arrival per voxel"),
            origin_voxel: match self.pattern {
                Pattern::Centrifugal | Pattern::FromBase => Some(grid.voxel(origins[0]).map(|v| v as f64)),
                _ => None,
            },
            span_s: if span_s.is_finite() { span_s.max(0.0) } else { 0.0 },
        })
    }

    fn check(&self) -> Result<()> {
        let positive = |name: &str, value: f64| {
            if value.is_finite() && value > 0.0 {
                return Ok(());
            }
            Err(Error::setting(name, value, "give a positive, finite number"))
        };
        for size in self.voxel_size_mm {
            positive("voxel size", size)?;
        }
        if !self.lesion.iter().any(|inside| *inside) {
            return Err(Error::setting("lesion", "empty", "give a lesion of at least one voxel"));
        }
        positive("speed", self.speed_mm_per_s)?;
        positive("rise time constant", self.rise_time_constant_s)?;
        positive("noise", self.noise_sd)?;
        for ratio in self.contrast_to_noise {
            positive("contrast to noise", ratio)?;
        }
        for (name, value, least, most) in [
            ("deceleration", self.deceleration, -0.5, 1e3),
            ("enhancing fraction", self.enhancing_fraction, 0.0, 1.0),
            ("noise width", self.noise_width_voxels, 0.0, 50.0),
            ("arrival", self.arrival_s, -1e6, 1e6),
        ] {
            if !(least..=most).contains(&value) {
                return Err(Error::setting(name, value, format!("give a number from {least} to {most}")));
            }
        }
        Ok(())
    }

    /// Where filling begins, and the base: tissue that touches the lesion from below, within a third of its width of the
    /// lowest point.
    fn origins(&self, grid: Grid, inside: &[bool], innermost: usize) -> (Vec<usize>, Vec<bool>) {
        let lesion = || (0..grid.count()).filter(|i| inside[*i]);
        let middle = grid.voxel(innermost);
        let column = |i: usize| -> f64 {
            let v = grid.voxel(i);
            ((v[0] as f64 - middle[0] as f64) * grid.size_mm[0])
                .hypot((v[1] as f64 - middle[1] as f64) * grid.size_mm[1])
        };
        let widest: f64 = lesion().map(column).fold(0.0, f64::max);
        // The lowest voxel below the innermost point.
        let foot = lesion()
            .filter(|i| grid.voxel(*i)[0] == middle[0] && grid.voxel(*i)[1] == middle[1])
            .min()
            .unwrap_or(innermost);
        let touches = |i: usize| {
            neighbour_steps().any(|step| step[2] == 1 && grid.neighbour(i, step).is_some_and(|other| inside[other]))
        };
        let reach = (0.4 * widest).max(1.5 * grid.size_mm[0]);
        let base = (0..grid.count()).map(|i| !inside[i] && touches(i) && straight(grid, i, foot) <= reach).collect();
        let origins = match self.pattern {
            Pattern::FromBase => vec![foot],
            Pattern::TwoOrigins => {
                let extent: [(usize, usize); 3] = std::array::from_fn(|a| {
                    let along = || lesion().map(|i| grid.voxel(i)[a]);
                    (along().min().unwrap_or(0), along().max().unwrap_or(0))
                });
                let length = |a: usize| (extent[a].1 - extent[a].0) as f64 * grid.size_mm[a];
                let longest = (0..3).fold(0, |best, a| if length(a) > length(best) { a } else { best });
                let at = |end: usize| {
                    let mut voxel = middle;
                    voxel[longest] = (middle[longest] + end) / 2;
                    grid.index(voxel)
                };
                vec![at(extent[longest].0), at(extent[longest].1)]
            }
            _ => vec![innermost],
        };
        (origins, base)
    }

    /// Leaves out the voxels that the front would reach last.
    fn leave_unfilled(&self, arrival: &mut [f64], count: usize) {
        if self.pattern == Pattern::None {
            arrival.fill(f64::NAN);
            return;
        }
        let filled = (self.enhancing_fraction * count as f64).round() as usize;
        let mut order: Vec<usize> = (0..arrival.len()).filter(|i| arrival[*i].is_finite()).collect();
        order.sort_by(|a, b| arrival[*a].total_cmp(&arrival[*b]));
        for i in &order[filled.min(order.len())..] {
            arrival[*i] = f64::NAN;
        }
    }

    fn samples(&self, grid: Grid, voxels: &[VoxelPlan]) -> Vec<f32> {
        let mut samples = vec![0.0f32; voxels.len() * self.times.len()];
        let sigma = self.noise_width_voxels / (8.0 * std::f64::consts::LN_2).sqrt();
        samples.par_chunks_mut(voxels.len()).enumerate().for_each(|(frame, samples)| {
            let mut random = Random::new(self.seed, frame as u64);
            let mut noise: Vec<f64> = voxels.iter().map(|_| random.normal()).collect();
            if sigma > 0.0 {
                smooth_noise(grid, &mut noise, sigma);
            }
            let time = self.times.seconds()[frame];
            for ((sample, voxel), noise) in samples.iter_mut().zip(voxels).zip(noise) {
                *sample = (voxel.baseline + voxel.curve.value(time) + voxel.noise_sd * noise) as f32;
            }
        });
        samples
    }
}

/// What a voxel's samples are made of.
struct VoxelPlan {
    baseline: f64,
    curve: Enhancement,
    noise_sd: f64,
}

/// Smooths white noise of unit variance along each axis; every voxel keeps unit variance, those at the edge of the grid too.
fn smooth_noise(grid: Grid, noise: &mut [f64], sigma: f64) {
    let reach = (4.0 * sigma).ceil() as isize;
    let weights: Vec<f64> = (-reach..=reach).map(|d| (-0.5 * (d as f64 / sigma).powi(2)).exp()).collect();
    let mut stride = 1;
    for axis in 0..3 {
        let n = grid.shape[axis] as isize;
        let before = noise.to_vec();
        for (i, value) in noise.iter_mut().enumerate() {
            let at = (i / stride % grid.shape[axis]) as isize;
            let (mut sum, mut squares) = (0.0, 0.0);
            for d in (-reach).max(-at)..=reach.min(n - 1 - at) {
                let weight = weights[(d + reach) as usize];
                sum += weight * before[(i as isize + d * stride as isize) as usize];
                squares += weight * weight;
            }
            *value = sum / squares.sqrt();
        }
        stride *= grid.shape[axis];
    }
}

fn straight(grid: Grid, a: usize, b: usize) -> f64 {
    let (a, b) = (grid.voxel(a), grid.voxel(b));
    (0..3).map(|x| ((a[x] as f64 - b[x] as f64) * grid.size_mm[x]).powi(2)).sum::<f64>().sqrt()
}

/// A lesion with the truth about how it fills.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FillingPhantomSeries {
    /// The series, with noise, as 32-bit floats.
    pub series: Series,
    /// The lesion, what doesn't enhance included.
    pub lesion: Mask,
    /// The surface that the lesion sits on: tissue that touches it from below.
    pub base: Mask,
    /// When each voxel begins to enhance, in seconds on the series' clock, `[x, y, z]`; NaN where none does.
    pub arrival_s: Array3<f32>,
    /// Where filling begins, in voxels, if that is one point.
    pub origin_voxel: Option<[f64; 3]>,
    /// Seconds from the first to the last arrival.
    pub span_s: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_begin_where_they_should() {
        let make =
            |pattern| FillingPhantom::ellipsoid([9.0, 7.0, 8.0], [1.0, 1.0, 1.5]).pattern(pattern).build().unwrap();
        let earliest = |phantom: &FillingPhantomSeries| {
            let mut best = ([0; 3], f32::INFINITY);
            for ((x, y, z), t) in phantom.arrival_s.indexed_iter() {
                if *t < best.1 {
                    best = ([x, y, z], *t);
                }
            }
            best.0
        };
        let middle = [13, 11, 10];
        assert_eq!(earliest(&make(Pattern::Centrifugal)), middle);
        let base = make(Pattern::FromBase);
        let foot = earliest(&base);
        assert_eq!((foot[0], foot[1]), (13, 11));
        assert!(foot[2] < 6 && base.base.labels()[[13, 11, foot[2] - 1]] == 1);
        let centripetal = make(Pattern::Centripetal);
        assert!(centripetal.arrival_s[middle] > 40.0 + 60.0);
        let uniform = make(Pattern::Uniform);
        assert_eq!(uniform.span_s, 0.0);
        assert!(make(Pattern::None).arrival_s.iter().all(|t| t.is_nan()));
    }

    #[test]
    fn noise_keeps_its_variance_and_spreads() {
        let grid = Grid { shape: [24, 24, 24], size_mm: [1.0; 3] };
        let mut random = Random::new(3, 0);
        let (mut variance, mut neighbours, mut draws) = (0.0, 0.0, 0.0);
        for _ in 0..12 {
            let mut noise: Vec<f64> = (0..grid.count()).map(|_| random.normal()).collect();
            smooth_noise(grid, &mut noise, 3.0 / 2.3548);
            for i in (0..grid.count()).filter(|i| i % 24 < 23) {
                variance += noise[i] * noise[i];
                neighbours += noise[i] * noise[i + 1];
                draws += 1.0;
            }
        }
        assert!((variance / draws - 1.0).abs() < 0.06, "{}", variance / draws);
        // A Gaussian's autocorrelation is exp(-d^2 / (4 sigma^2)).
        let expected = (-0.25f64 * (2.3548f64 / 3.0).powi(2)).exp();
        assert!((neighbours / variance - expected).abs() < 0.03, "{} {expected}", neighbours / variance);
    }

    #[test]
    fn refuses_bad_settings() {
        let ball = || FillingPhantom::ball(5.0, [1.0; 3]);
        assert!(ball().speed_mm_per_s(0.0).build().is_err());
        assert!(ball().enhancing_fraction(1.5).build().is_err());
        assert!(ball().contrast_to_noise(f64::NAN, 5.0).build().is_err());
        assert!(FillingPhantom::ball(f64::NAN, [1.0; 3]).build().is_err());
        assert!(FillingPhantom::ball(5.0, [0.0, 1.0, 1.0]).build().is_err());
    }
}
