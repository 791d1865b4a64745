//! Digital reference objects: series whose truth is known because it was chosen.
//!
//! A voxel's noise-free signal is `baseline + enhancement(t)`, the enhancement one of the closed forms of [`curves`].
//! Noise and rounding come on top. The same settings give the same bytes, however many threads run: noise comes from
//! xoshiro256++, one stream per frame, seeded by SplitMix64. (On another platform its mathematics library may differ in
//! a last digit.) Voxels belong to one tissue each: there is no partial volume, so the truth is exact.
//!
//! ```
//! use perfuse::phantom::{Noise, Phantom};
//! let phantom = Phantom::brain_with_lesion().shape([32, 32, 4]).noise(Noise::Rician(5.0)).seed(1).build()?;
//! assert_eq!(phantom.series.spatial_shape(), [32, 32, 4]);
//! assert!(phantom.lesion.voxel_count() > 0);
//! let curve = phantom.curve([16, 16, 2])?;
//! assert!(curve.value(0.0) > 0.0);
//! # Ok::<(), perfuse::Error>(())
//! ```

mod anatomy;
pub mod curves;
pub mod filling;
mod random;

use std::borrow::Cow;
use std::collections::BTreeMap;

use ndarray::{Array3, ShapeBuilder};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::quantity::{Quantity, Unit};
use crate::series::{Mask, Series};
use crate::time::TimeAxis;
use crate::voxels::Voxels;
use anatomy::Head;
use curves::Enhancement;
pub(crate) use random::Random;

/// Noise on every sample, independent between voxels and frames.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Noise {
    /// None: the closed forms, rounded to the stored type.
    None,
    /// Normal, with this standard deviation in units of the signal.
    Gaussian(f64),
    /// As in a magnitude image: normal in both channels with this standard deviation, then the modulus. Where the
    /// signal is several times the standard deviation it is nearly normal; in air its mean is 1.25 of it, not 0.
    Rician(f64),
}

/// The type that samples are stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum StoredType {
    /// Rounded to the nearest 16-bit integer, as scanners store.
    #[default]
    Int16,
    /// 32-bit floats.
    Float32,
}

/// The tissues of a phantom: the labels of [`PhantomSeries::labels`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
#[repr(u32)]
pub enum Tissue {
    /// Skin and fat outside the skull.
    Scalp = 1,
    /// Bone.
    Skull = 2,
    /// Fluid around the brain.
    Csf = 3,
    /// Cortex and deep nuclei.
    GreyMatter = 4,
    /// White matter.
    WhiteMatter = 5,
    /// Fluid inside the brain.
    Ventricle = 6,
    /// Arteries with the first pass of the bolus.
    Artery = 7,
    /// The superior sagittal sinus: the same bolus, later and broader.
    SagittalSinus = 8,
    /// The part of the lesion that enhances before the series ends.
    LesionEnhancing = 9,
    /// The part of the lesion that doesn't.
    LesionNotEnhancing = 10,
}

impl Tissue {
    /// All tissues, in the order of their labels.
    pub const ALL: [Tissue; 10] = [
        Tissue::Scalp,
        Tissue::Skull,
        Tissue::Csf,
        Tissue::GreyMatter,
        Tissue::WhiteMatter,
        Tissue::Ventricle,
        Tissue::Artery,
        Tissue::SagittalSinus,
        Tissue::LesionEnhancing,
        Tissue::LesionNotEnhancing,
    ];

    /// The label in [`PhantomSeries::labels`].
    pub fn label(self) -> u32 {
        self as u32
    }

    /// The name in plain words.
    pub fn name(self) -> &'static str {
        match self {
            Tissue::Scalp => "scalp",
            Tissue::Skull => "skull",
            Tissue::Csf => "cerebrospinal fluid",
            Tissue::GreyMatter => "grey matter",
            Tissue::WhiteMatter => "white matter",
            Tissue::Ventricle => "ventricle",
            Tissue::Artery => "artery",
            Tissue::SagittalSinus => "sagittal sinus",
            Tissue::LesionEnhancing => "lesion, enhancing",
            Tissue::LesionNotEnhancing => "lesion, not enhancing",
        }
    }

    /// T1-weighted signal before contrast, in arbitrary units.
    fn baseline(self) -> f64 {
        match self {
            Tissue::Scalp => 420.0,
            Tissue::Skull => 45.0,
            Tissue::Csf => 95.0,
            Tissue::GreyMatter => 235.0,
            Tissue::WhiteMatter => 310.0,
            Tissue::Ventricle => 85.0,
            Tissue::Artery => 160.0,
            Tissue::SagittalSinus => 170.0,
            Tissue::LesionEnhancing | Tissue::LesionNotEnhancing => 225.0,
        }
    }

    /// Enhancement of the tissues that enhance alike everywhere, for a bolus that arrives at `arrival_s`.
    fn enhancement(self, arrival_s: f64) -> Result<Enhancement> {
        match self {
            Tissue::Scalp => Enhancement::saturating(arrival_s + 6.0, 90.0, 60.0),
            Tissue::GreyMatter => Enhancement::wash_out(arrival_s + 2.0, 26.0, 4.0, 240.0),
            Tissue::WhiteMatter => Enhancement::wash_out(arrival_s + 3.0, 12.0, 5.0, 260.0),
            Tissue::Artery => Enhancement::gamma_variate(arrival_s, 900.0, 3.0, 2.0),
            Tissue::SagittalSinus => Enhancement::gamma_variate(arrival_s + 6.0, 700.0, 3.0, 3.5),
            _ => Ok(Enhancement::none()),
        }
    }
}

/// Settings of a phantom; [`build`](Self::build) makes it.
#[derive(Debug, Clone)]
pub struct Phantom {
    shape: [usize; 3],
    voxel_size_mm: [f64; 3],
    times: Times,
    bolus_arrival_s: f64,
    noise: Noise,
    seed: u64,
    stored: StoredType,
}

#[derive(Debug, Clone)]
enum Times {
    Even { spacing_s: f64, frames: usize },
    Given(TimeAxis),
}

impl Phantom {
    /// An axial slab through a head, with a mass on the inner table of the skull that fills from its base outward.
    ///
    /// Scalp, skull, cerebrospinal fluid, grey and white matter, ventricles, arteries with the first pass of a bolus
    /// (gamma-variate), the superior sagittal sinus (later and broader), and an extra-axial lesion over the right
    /// frontal convexity (+x is right, +y anterior, +z up). All sizes follow the field of view in the plane: the head
    /// fills it. A voxel of the lesion at the relative distance ρ from the middle of its base (0 there, 1 at the
    /// farthest front, the front's tongues included) enhances as `a (1 - exp(-(t - t_on) / τ))` with
    ///
    /// - `t_on = arrival + 3 s + 75 s · ρ²`: fast near the base, slower outward;
    /// - `τ = 18 s + 45 s · ρ`, `a = 420 (1 - 0.45 ρ)`.
    ///
    /// Where ρ > 1 (the outer rim) it doesn't enhance, nor where t_on lies at or after the last frame.
    ///
    /// The default: 128 × 128 × 12 voxels of 1.8 × 1.8 × 5 mm, 80 frames 3 s apart, arrival at 30 s, Rician noise of
    /// standard deviation 8, stored as 16-bit integers, seed 0. The default brain's signal is 85 to 420.
    pub fn brain_with_lesion() -> Self {
        Self {
            shape: [128, 128, 12],
            voxel_size_mm: [1.8, 1.8, 5.0],
            times: Times::Even { spacing_s: 3.0, frames: 80 },
            bolus_arrival_s: 30.0,
            noise: Noise::Rician(8.0),
            seed: 0,
            stored: StoredType::Int16,
        }
    }

    /// Voxels along x, y and z.
    #[must_use]
    pub fn shape(mut self, voxels: [usize; 3]) -> Self {
        self.shape = voxels;
        self
    }

    /// Voxel size along x, y and z in mm.
    #[must_use]
    pub fn voxel_size_mm(mut self, size: [f64; 3]) -> Self {
        self.voxel_size_mm = size;
        self
    }

    /// `frames` frames, `spacing_s` seconds apart, the first at 0 s.
    #[must_use]
    pub fn frames(mut self, frames: usize, spacing_s: f64) -> Self {
        self.times = Times::Even { spacing_s, frames };
        self
    }

    /// Any times, uneven ones too. A frame shows the signal at its time: nothing is averaged over its duration.
    #[must_use]
    pub fn times(mut self, times: TimeAxis) -> Self {
        self.times = Times::Given(times);
        self
    }

    /// When the bolus reaches the arteries, in seconds after the first frame: until then all is baseline.
    #[must_use]
    pub fn bolus_arrival_s(mut self, seconds: f64) -> Self {
        self.bolus_arrival_s = seconds;
        self
    }

    /// Noise of every sample.
    #[must_use]
    pub fn noise(mut self, noise: Noise) -> Self {
        self.noise = noise;
        self
    }

    /// Which noise: another seed gives other noise on the same truth.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The type that samples are stored in.
    #[must_use]
    pub fn stored_type(mut self, stored: StoredType) -> Self {
        self.stored = stored;
        self
    }

    /// Makes the phantom.
    ///
    /// # Errors
    /// [`Error::Setting`] or [`Error::Time`] if a size is 0 or not finite, the number of samples overflows, the noise is
    /// negative, or the times aren't times.
    pub fn build(&self) -> Result<PhantomSeries> {
        let times = match &self.times {
            Times::Even { spacing_s, frames } => TimeAxis::uniform(*spacing_s, *frames)?.with_origin("phantom"),
            Times::Given(times) => times.clone(),
        };
        self.check(times.len())?;
        let arrival_s = times.first_s() + self.bolus_arrival_s;
        let [nx, ny, nz] = self.shape;
        let count = nx * ny * nz;
        let head = Head::new(self.shape, self.voxel_size_mm);
        let shared = Tissue::ALL.into_iter().map(|tissue| tissue.enhancement(arrival_s)).collect::<Result<Vec<_>>>()?;

        let mut labels = vec![0u32; count];
        let mut baseline = vec![0.0f32; count];
        let mut lesion_curves = BTreeMap::new();
        for index in 0..count {
            let voxel = [index % nx, index / nx % ny, index / (nx * ny)];
            let Some((mut tissue, place)) = head.tissue(voxel) else { continue };
            if let (Tissue::LesionEnhancing, Some(rho)) = (tissue, place.lesion_distance) {
                let onset = arrival_s + 3.0 + 75.0 * rho * rho;
                if onset < times.last_s() {
                    let curve = Enhancement::saturating(onset, 420.0 * (1.0 - 0.45 * rho), 18.0 + 45.0 * rho)?;
                    lesion_curves.insert(index, curve);
                } else {
                    tissue = Tissue::LesionNotEnhancing;
                }
            }
            labels[index] = tissue.label();
            baseline[index] = (tissue.baseline() * place.texture) as f32;
        }

        let geometry = self.geometry();
        let mask = |flat: Vec<u32>| {
            let array = Array3::from_shape_vec((nx, ny, nz).f(), flat).expect("as many labels as voxels");
            Mask::from_labels(array.view()).with_geometry(geometry.clone())
        };
        let lesion = labels.iter().map(|label| u32::from(*label >= Tissue::LesionEnhancing.label())).collect();
        let model = Model { labels, baseline, tissue_curves: shared, lesion_curves };
        let samples = match self.stored {
            StoredType::Int16 => Voxels::from(self.fill(&model, &times, |value| value.round() as i16)),
            StoredType::Float32 => Voxels::from(self.fill(&model, &times, |value| value as f32)),
        };
        Ok(PhantomSeries {
            truth: model.truth_maps(self.shape, &times),
            lesion: mask(lesion),
            labels: mask(model.labels.clone()),
            lesion_base: head.lesion_base(),
            series: Series::from_voxels(samples, [nx, ny, nz, times.len()], times)?.with_geometry(geometry),
            model,
        })
    }

    fn check(&self, frames: usize) -> Result<()> {
        let samples = self.shape.iter().try_fold(frames, |product, n| product.checked_mul(*n));
        if samples.is_none_or(|n| n == 0 || n > isize::MAX as usize / 4) {
            return Err(Error::setting(
                "shape",
                format!("{:?}", self.shape),
                "give positive numbers of voxels that fit into memory",
            ));
        }
        if self.voxel_size_mm.iter().any(|size| !(1e-3..=1e3).contains(size)) {
            return Err(Error::setting(
                "voxel size",
                format!("{:?} mm", self.voxel_size_mm),
                "give 0.001 to 1000 mm each",
            ));
        }
        if !self.bolus_arrival_s.is_finite() {
            return Err(Error::setting("bolus arrival", self.bolus_arrival_s, "give a finite number of seconds"));
        }
        match self.noise {
            Noise::Gaussian(sd) | Noise::Rician(sd) if !(sd.is_finite() && sd >= 0.0) => {
                Err(Error::setting("noise", sd, "give a standard deviation of 0 or more"))
            }
            _ => Ok(()),
        }
    }

    /// The first voxel such that the middle of the volume is the world's origin.
    fn geometry(&self) -> Geometry {
        let mut geometry = Geometry::from_voxel_size_mm(self.voxel_size_mm);
        for axis in 0..3 {
            geometry.srow[axis][3] = -0.5 * (self.shape[axis] as f64 - 1.0) * self.voxel_size_mm[axis];
            geometry.offset[axis] = geometry.srow[axis][3];
        }
        geometry
    }

    fn fill<T: Default + Copy + Send>(
        &self,
        model: &Model,
        times: &TimeAxis,
        store: impl Fn(f64) -> T + Sync,
    ) -> Vec<T> {
        let labels = &model.labels;
        let mut samples = vec![T::default(); labels.len() * times.len()];
        samples.par_chunks_mut(labels.len()).enumerate().for_each(|(frame, samples)| {
            let time = times.seconds()[frame];
            let shared: Vec<f64> = model.tissue_curves.iter().map(|curve| curve.value(time)).collect();
            let mut random = Random::new(self.seed, frame as u64);
            let mut lesion = model.lesion_curves.iter().peekable();
            for (index, sample) in samples.iter_mut().enumerate() {
                let enhancement = match (lesion.peek(), labels[index]) {
                    (Some((i, curve)), _) if **i == index => {
                        let value = curve.value(time);
                        lesion.next();
                        value
                    }
                    (_, 0) => 0.0,
                    (_, label) => shared[label as usize - 1],
                };
                let signal = f64::from(model.baseline[index]) + enhancement;
                *sample = store(match self.noise {
                    Noise::None => signal,
                    Noise::Gaussian(sd) => signal + sd * random.normal(),
                    Noise::Rician(sd) => (signal + sd * random.normal()).hypot(sd * random.normal()),
                });
            }
        });
        samples
    }
}

/// A series with its truth.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PhantomSeries {
    /// The series, with noise, in its stored type.
    pub series: Series,
    /// The lesion, its part that doesn't enhance included: 1 inside.
    pub lesion: Mask,
    /// The tissue of every voxel: the labels of [`Tissue`], 0 for air.
    pub labels: Mask,
    /// Noise-free truth, `[x, y, z]`, NaN where there is none:
    ///
    /// - `baseline`, a.u.;
    /// - `onset`, s after the first frame (first passes: where they reach 5 % of their peak);
    /// - `peak_enhancement`, largest value over the frames after the onset, and `final_enhancement`, at the last frame: a.u., 0
    ///   where nothing enhances;
    /// - `plateau_enhancement`, the height of the closed form, and `steepest_slope`, its largest time derivative;
    /// - `rise_time`, from 10 to 90 % of that height, s;
    /// - `rise_time_constant`, τ of the lesion's saturating rise, s.
    pub truth: Vec<(Quantity, Array3<f32>)>,
    /// Where the lesion begins to fill: the middle of its base, in voxels (fractions count; voxel centres are whole numbers).
    pub lesion_base: [f64; 3],
    model: Model,
}

/// Every voxel's noise-free curve, in little memory: tissues share theirs, voxels of the lesion have their own.
#[derive(Debug, Clone)]
struct Model {
    labels: Vec<u32>,
    baseline: Vec<f32>,
    tissue_curves: Vec<Enhancement>,
    lesion_curves: BTreeMap<usize, Enhancement>,
}

/// The noise-free curve of one voxel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VoxelCurve {
    /// Signal before the onset.
    pub baseline: f64,
    /// What is added to it, on the series' clock.
    pub enhancement: Enhancement,
}

impl VoxelCurve {
    /// The signal at a time in seconds on the series' clock.
    pub fn value(&self, time_s: f64) -> f64 {
        self.baseline + self.enhancement.value(time_s)
    }
}

impl PhantomSeries {
    /// The noise-free curve of a voxel.
    ///
    /// # Errors
    /// [`Error::Setting`] if the voxel lies outside the series.
    pub fn curve(&self, voxel: [usize; 3]) -> Result<VoxelCurve> {
        let shape = self.series.spatial_shape();
        if (0..3).any(|axis| voxel[axis] >= shape[axis]) {
            return Err(Error::setting(
                "voxel",
                format!("{voxel:?}"),
                format!("the phantom has {shape:?} voxels, counted from 0"),
            ));
        }
        Ok(self.model.curve_at(voxel[0] + shape[0] * (voxel[1] + shape[1] * voxel[2])))
    }

    /// A truth map by its quantity or identifier.
    ///
    /// # Errors
    /// [`Error::UnknownMap`] if there is no such truth.
    pub fn truth(&self, id: impl AsRef<str>) -> Result<ndarray::ArrayView3<'_, f32>> {
        let id = id.as_ref();
        let found = self.truth.iter().find(|(quantity, _)| quantity.id == id);
        found.map(|(_, values)| values.view()).ok_or_else(|| Error::UnknownMap {
            id: id.into(),
            known: self.truth.iter().map(|(q, _)| q.id.as_ref()).collect::<Vec<_>>().join(", "),
        })
    }
}

impl Model {
    fn curve_at(&self, index: usize) -> VoxelCurve {
        let enhancement = match (self.lesion_curves.get(&index), self.labels[index]) {
            (Some(curve), _) => *curve,
            (None, 0) => Enhancement::none(),
            (None, label) => self.tissue_curves[label as usize - 1],
        };
        VoxelCurve { baseline: f64::from(self.baseline[index]), enhancement }
    }

    fn truth_maps(&self, shape: [usize; 3], times: &TimeAxis) -> Vec<(Quantity, Array3<f32>)> {
        let [nx, ny, nz] = shape;
        let (seconds, first, last) = (times.seconds(), times.first_s(), times.last_s());
        let labels = &self.labels;
        let per_voxel = |value: &(dyn Fn(usize, &VoxelCurve) -> f64 + Sync)| {
            let flat: Vec<f32> =
                (0..labels.len()).into_par_iter().map(|i| value(i, &self.curve_at(i)) as f32).collect();
            Array3::from_shape_vec((nx, ny, nz).f(), flat).expect("as many values as voxels")
        };
        let onset = |curve: &VoxelCurve| {
            let Some(start) = curve.enhancement.onset_s() else { return f64::NAN };
            let smooth_foot = curve.enhancement.has_smooth_foot();
            let time = if smooth_foot { curve.enhancement.crossing_s(0.05).unwrap_or(start) } else { start };
            if time < last { time - first } else { f64::NAN }
        };
        let largest = |curve: &VoxelCurve| seconds.iter().map(|t| curve.enhancement.value(*t)).fold(0.0, f64::max);
        // Tissues share curves: only lesion voxels are evaluated one by one.
        let shared_peak: Vec<f64> = self
            .tissue_curves
            .iter()
            .map(|curve| largest(&VoxelCurve { baseline: 0.0, enhancement: *curve }))
            .collect();
        let enhances = |curve: &VoxelCurve| !onset(curve).is_nan();
        let where_enhancing = |curve: &VoxelCurve, value: f64| if enhances(curve) { value } else { f64::NAN };
        let own = |id: &'static str, symbol: &'static str, unit: Unit, definition: &'static str| {
            Quantity::new(Cow::Borrowed(id), None, symbol, unit, definition)
        };
        vec![
            (Quantity::BASELINE, per_voxel(&|_, curve| curve.baseline)),
            (Quantity::ONSET, per_voxel(&|_, curve| onset(curve))),
            (
                Quantity::PEAK_ENHANCEMENT,
                per_voxel(&|i, curve| match labels[i] {
                    0 => 0.0,
                    _ if self.lesion_curves.contains_key(&i) => largest(curve),
                    label => shared_peak[label as usize - 1],
                }),
            ),
            (Quantity::FINAL_ENHANCEMENT, per_voxel(&|_, curve| curve.enhancement.value(last))),
            (
                own(
                    "plateau_enhancement",
                    "a",
                    Unit::Series,
                    "height of the closed-form curve: its peak, or the value that it approaches",
                ),
                per_voxel(&|_, curve| where_enhancing(curve, curve.enhancement.height())),
            ),
            (
                own("steepest_slope", "m", Unit::SeriesPerSecond, "largest time derivative of the closed-form curve"),
                per_voxel(&|_, curve| where_enhancing(curve, curve.enhancement.max_slope())),
            ),
            (
                own("rise_time", "t_10-90", Unit::Seconds, "seconds from 10 to 90 % of the closed-form curve's height"),
                per_voxel(&|_, curve| where_enhancing(curve, curve.enhancement.rise_time_s().unwrap_or(f64::NAN))),
            ),
            (
                own(
                    "rise_time_constant",
                    "τ",
                    Unit::Seconds,
                    "time constant of the saturating rise a (1 - exp(-(t - t_on)/τ))",
                ),
                per_voxel(&|_, curve| where_enhancing(curve, curve.enhancement.tau_s().unwrap_or(f64::NAN))),
            ),
        ]
    }
}

#[cfg(test)]
mod tests;
