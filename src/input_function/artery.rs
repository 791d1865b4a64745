//! Finding the voxels of an artery: early, steep, high, and over soon.

use ndarray::{Array3, ArrayView3};

use super::from_mask::counted;
use super::{Average, Fluid, FromMask, InputFunction};
use crate::engine::{Engine, RunOptions};
use crate::error::{Error, Result};
use crate::kernels::descriptors::{Descriptors, MapSelection, Polarity};
use crate::maps::Maps;
use crate::quantity::{Quantity, SignalKind};
use crate::reduction::Reductions;
use crate::series::{Mask, Series};
use crate::status;

/// Finds arterial voxels in a series by what [`Descriptors`] say of each curve. The same series gives the same voxels,
/// whatever the order or direction of its axes.
///
/// A voxel is a *candidate* if it
/// - enhances, with an onset of its own, and its peak is at least 10 times the noise, both that of the baseline and the
///   median of successive differences over the whole series, which pulsation raises ([`least_contrast_to_noise`]);
/// - peaks within 25 s of its onset, give or take a frame ([`latest_peak_s`]);
/// - holds at most 30 mM, for concentrations ([`highest_mm`]): more is noise that the conversion has blown up;
/// - comes down again: half of its peak is over within 45 s ([`widest_pass_s`]), or its mean from 60 to 120 s after the onset
///   is at most 0.65 of the peak (0.8 for signal, which saturates).
///
/// Its *score* says how many times steeper it rises than tissue (the mean curve of the enhancing voxels that are no
/// candidates; if there are none, the median candidate), times exp(-d / 10 s), d being how much later its onset comes than
/// the earliest tenth of the candidates (2 frames instead of 10 s where that is longer). Steepness is `max_slope`, for signal
/// relative to the baseline. Partial volume and dispersion lower it.
///
/// The *support* of a candidate is its score, but no more than the third highest among itself and its (up to 26) neighbours: a
/// single wild voxel has none. From the candidate with the best support a region grows through neighbours whose score is at
/// least 0.35 of that: the whole vessel, also where its rim is the steepest, as flow and motion can make it. Of the region, the
/// artery is what lies between 0.75 and 1.5 times its upper quartile: neither partial volume nor wild voxels. Where three
/// voxels together don't reach the least score of 3 ([`least_score`]), two may, or else one with twice that score; where none
/// does, the search refuses.
///
/// Thresholds are from simulations (`docs/input_functions.md`). The artery of best score need not feed the tissue of interest:
/// look at the picture, and give a mask where you know better. An image of signal is better converted to concentration first.
///
/// ```
/// use perfuse::input_function::{ArteryFinder, Average, Fluid};
/// use perfuse::phantom::Phantom;
/// use perfuse::{Engine, RunOptions};
/// let phantom = Phantom::brain_with_lesion().shape([48, 48, 4]).build()?;
/// let artery = ArteryFinder::new().find(&Engine::cpu(), &phantom.series, &RunOptions::new())?;
/// for voxel in artery.voxels() {
///     assert_eq!(phantom.labels.labels()[voxel.position], perfuse::phantom::Tissue::Artery.label());
/// }
/// # Ok::<(), perfuse::Error>(())
/// ```
///
/// [`highest_mm`]: Self::highest_mm
/// [`least_contrast_to_noise`]: Self::least_contrast_to_noise
/// [`latest_peak_s`]: Self::latest_peak_s
/// [`widest_pass_s`]: Self::widest_pass_s
/// [`least_score`]: Self::least_score
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ArteryFinder {
    kind: SignalKind,
    polarity: Polarity,
    least_contrast_to_noise: f64,
    highest_mm: f64,
    latest_peak_s: f64,
    widest_pass_s: f64,
    least_score: f64,
}

/// A voxel of an artery.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct ArteryVoxel {
    /// Where: x, y, z, counted from 0.
    pub position: [usize; 3],
    /// Its score: see [`ArteryFinder`].
    pub score: f64,
}

/// An artery that was found.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Artery {
    voxels: Vec<ArteryVoxel>,
    mask: Mask,
    scores: Array3<f32>,
    enhancing: usize,
    candidates: usize,
}

impl Default for ArteryFinder {
    fn default() -> Self {
        Self {
            kind: SignalKind::Signal,
            polarity: Polarity::Rise,
            least_contrast_to_noise: 10.0,
            highest_mm: 30.0,
            latest_peak_s: 25.0,
            widest_pass_s: 45.0,
            least_score: 3.0,
        }
    }
}

impl ArteryFinder {
    /// For rising signal, with the thresholds above.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the samples are.
    #[must_use]
    pub fn kind(mut self, kind: SignalKind) -> Self {
        self.kind = kind;
        self
    }

    /// Which way contrast agent moves the samples.
    #[must_use]
    pub fn polarity(mut self, polarity: Polarity) -> Self {
        self.polarity = polarity;
        self
    }

    /// The least peak in noise standard deviations (10 unless told).
    #[must_use]
    pub fn least_contrast_to_noise(mut self, deviations: f64) -> Self {
        self.least_contrast_to_noise = deviations;
        self
    }

    /// The greatest peak of a concentration in mM (30 unless told).
    #[must_use]
    pub fn highest_mm(mut self, concentration: f64) -> Self {
        self.highest_mm = concentration;
        self
    }

    /// The longest time from onset to peak in seconds, give or take a frame (25 unless told).
    #[must_use]
    pub fn latest_peak_s(mut self, seconds: f64) -> Self {
        self.latest_peak_s = seconds;
        self
    }

    /// The greatest full width at half maximum in seconds (45 unless told).
    #[must_use]
    pub fn widest_pass_s(mut self, seconds: f64) -> Self {
        self.widest_pass_s = seconds;
        self
    }

    /// The least mean score of an artery (3 unless told).
    #[must_use]
    pub fn least_score(mut self, score: f64) -> Self {
        self.least_score = score;
        self
    }

    /// Looks for an artery in a series, inside the mask of the options if they have one.
    ///
    /// # Errors
    /// [`Error::NoArtery`] if nothing arterial is there, with what fails; [`Error::Setting`] if a threshold isn't a positive
    /// number; those of [`Engine::run_with`].
    pub fn find(&self, engine: &Engine, series: &Series, options: &RunOptions<'_>) -> Result<Artery> {
        for (name, value) in [
            ("least contrast to noise", self.least_contrast_to_noise),
            ("highest peak in mM", self.highest_mm),
            ("latest peak in s", self.latest_peak_s),
            ("widest pass in s", self.widest_pass_s),
            ("least score", self.least_score),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return Err(Error::setting(name, value, "give a positive number"));
            }
        }
        let kernel = Descriptors::new().kind(self.kind).polarity(self.polarity).iauc_seconds([60.0, 120.0]);
        let kernel = kernel.maps(MapSelection::only([
            Quantity::BASELINE,
            Quantity::PEAK_ENHANCEMENT,
            Quantity::CONTRAST_TO_NOISE,
            Quantity::ONSET,
            Quantity::TIME_TO_PEAK,
            Quantity::FWHM,
            Quantity::MAX_SLOPE,
            Quantity::iauc(60.0),
            Quantity::iauc(120.0),
        ]));
        let maps = engine.run_with(&kernel, series, options)?;
        let reductions = Reductions::new(series, options.mask);
        let roughness = reductions.successive_difference_sd();
        reductions.check()?;
        let features = self.features(&maps, &roughness, series.times()?.median_spacing_s())?;
        let tissue = self.tissue_steepness(&kernel, series, &features)?;
        let scores = scores(&features, tissue, series.times()?.median_spacing_s());
        self.select(series, &features, scores)
    }

    /// What each voxel's curve is like, in memory order, x fastest.
    fn features(&self, maps: &Maps, roughness: &[f32], spacing_s: f64) -> Result<Vec<Feature>> {
        let get = |quantity: Quantity| maps.get(quantity).map(flat);
        let (baseline, peak) = (get(Quantity::BASELINE)?, get(Quantity::PEAK_ENHANCEMENT)?);
        let (contrast, onset) = (get(Quantity::CONTRAST_TO_NOISE)?, get(Quantity::ONSET)?);
        let (to_peak, width) = (get(Quantity::TIME_TO_PEAK)?, get(Quantity::FWHM)?);
        let (slope, area_60, area_120) =
            (get(Quantity::MAX_SLOPE)?, get(Quantity::iauc(60.0))?, get(Quantity::iauc(120.0))?);
        let words: Vec<u32> = maps.status().reversed_axes().iter().copied().collect();
        let refused = status::OUTSIDE_MASK | status::NON_FINITE_SAMPLE | status::NOT_ENHANCING;
        let latest_level = if self.kind == SignalKind::Signal { 0.8 } else { 0.65 };
        let feature = |i: usize| {
            let steepness = self.steepness(slope[i], baseline[i]);
            let enhances = words[i] & refused == 0 && steepness > 0.0;
            let late = (area_120[i] - area_60[i]) / 60.0;
            // Comparisons with NaN are false: what has no answer fulfils nothing.
            let plausible = self.kind != SignalKind::Concentration || peak[i] <= self.highest_mm;
            let early = plausible
                && words[i] & status::GLOBAL_ONSET_USED == 0
                && to_peak[i] <= self.latest_peak_s + spacing_s
                // Without any noise there is no contrast to it.
                && (contrast[i] >= self.least_contrast_to_noise || contrast[i].is_nan())
                && peak[i] >= self.least_contrast_to_noise * f64::from(roughness[i]);
            let brief = width[i] <= self.widest_pass_s || late <= latest_level * peak[i];
            Feature {
                enhances,
                early: enhances && early,
                candidate: enhances && early && brief,
                steepness,
                onset: onset[i],
            }
        };
        Ok((0..words.len()).map(feature).collect())
    }

    /// The steepest rise of the mean curve of the enhancing voxels that are no candidates; `None` if there are none. The
    /// mean, because the steepest rise of a single noisy voxel says more about noise.
    fn tissue_steepness(&self, kernel: &Descriptors, series: &Series, features: &[Feature]) -> Result<Option<f64>> {
        let [nx, ny, _] = series.spatial_shape();
        let tissue = Array3::from_shape_fn(series.spatial_shape(), |(x, y, z)| {
            let feature = &features[x + nx * (y + ny * z)];
            u32::from(feature.enhances && !feature.candidate)
        });
        let mask = Mask::from_labels(tissue.view());
        let reductions = Reductions::new(series, Some(&mask));
        let mean = reductions.mean_curve();
        reductions.check()?;
        let Some(mean) = mean else { return Ok(None) };
        let curve = Series::from_voxels(mean.to_vec(), [1, 1, 1, mean.len()], series.times()?.clone())?;
        let kernel = kernel.clone().maps(MapSelection::only([Quantity::BASELINE, Quantity::MAX_SLOPE]));
        let values = Engine::reference_values(&kernel, &curve, [0; 3], &RunOptions::new())?;
        let value = |id: &str| values.iter().find(|(name, _)| name == id).map_or(f64::NAN, |(_, value)| *value);
        let steepness = self.steepness(value("max_slope"), value("baseline"));
        Ok(Some(steepness).filter(|steepness| *steepness > 0.0))
    }

    /// The steepest rise, for signal relative to the baseline: coils and proton density drop out.
    fn steepness(&self, max_slope: f64, baseline: f64) -> f64 {
        match self.kind {
            SignalKind::Signal if baseline > 0.0 => max_slope / baseline,
            SignalKind::Signal => f64::NAN,
            _ => max_slope,
        }
    }

    fn select(&self, series: &Series, features: &[Feature], scores: Vec<f64>) -> Result<Artery> {
        let count = |which: fn(&Feature) -> bool| features.iter().filter(|f| which(f)).count();
        let (enhancing, early, candidates) = (count(|f| f.enhances), count(|f| f.early), count(|f| f.candidate));
        let refuse = |found: String| {
            let mend = "give a mask of an artery or a population function";
            Err(Error::NoArtery { series: series.name(), found, mend: mend.into() })
        };
        if candidates == 0 {
            return refuse(format!(
                "of {enhancing} enhancing voxels {early} peak within {} s of their onset and stand {} times above the \
                 noise, and {candidates} of these come down again",
                self.latest_peak_s, self.least_contrast_to_noise
            ));
        }
        let shape = series.spatial_shape();
        // Where everything is arterial there is no tissue to be steeper than.
        let least = if enhancing > candidates { self.least_score } else { 0.0 };
        // Three voxels together, or two, or one with twice the score.
        let found = [(2, 1.0), (1, 1.0), (0, 2.0)].into_iter().find_map(|(rank, factor)| {
            let support = support(shape, &scores, rank);
            let best = support.iter().copied().fold(0.0, f64::max);
            (best > 0.0 && best >= factor * least).then_some((support, best))
        });
        let Some((support, best)) = found else {
            let highest = scores.iter().copied().fold(0.0, f64::max);
            return refuse(format!(
                "none of {candidates} candidates rises, with a neighbour, {least} times as steeply as tissue, nor alone \
                 {} times (the highest: {highest:.1})",
                2.0 * least
            ));
        };
        let mut reached = vec![false; scores.len()];
        // Voxels with equal support belong to the artery alike: none is preferred for its place in memory.
        let mut growing: Vec<usize> = (0..scores.len()).filter(|index| support[*index] == best).collect();
        while let Some(index) = growing.pop() {
            if !reached[index] {
                reached[index] = true;
                growing.extend(neighbours(shape, index).filter(|n| !reached[*n] && scores[*n] >= 0.35 * best));
            }
        }
        let mut region: Vec<f64> =
            scores.iter().zip(&reached).filter(|(_, reached)| **reached).map(|(s, _)| *s).collect();
        let level = quantile(&mut region, 0.75).unwrap_or(best);
        let inside = |index: usize| reached[index] && (0.75 * level..=1.5 * level).contains(&scores[index]);
        let [nx, ny, _] = shape;
        let position = |index: usize| [index % nx, index / nx % ny, index / (nx * ny)];
        let mut voxels: Vec<ArteryVoxel> = (0..scores.len())
            .filter(|index| inside(*index))
            .map(|index| ArteryVoxel { position: position(index), score: scores[index] })
            .collect();
        voxels.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.position.cmp(&b.position)));
        let volume =
            |values: &dyn Fn(usize) -> f32| Array3::from_shape_fn(shape, |(x, y, z)| values(x + nx * (y + ny * z)));
        let labels = Array3::from_shape_fn(shape, |(x, y, z)| u32::from(inside(x + nx * (y + ny * z))));
        Ok(Artery {
            voxels,
            mask: Mask::from_labels(labels.view()).with_geometry(series.geometry().clone()),
            scores: volume(&|index| if scores[index] > 0.0 { scores[index] as f32 } else { f32::NAN }),
            enhancing,
            candidates,
        })
    }
}

impl Artery {
    /// The voxels, the best first.
    pub fn voxels(&self) -> &[ArteryVoxel] {
        &self.voxels
    }

    /// The mean score of the voxels.
    pub fn score(&self) -> f64 {
        self.voxels.iter().map(|voxel| voxel.score).sum::<f64>() / self.voxels.len() as f64
    }

    /// The voxels as a mask.
    pub fn mask(&self) -> &Mask {
        &self.mask
    }

    /// The score of every candidate, `[x, y, z]`; NaN where there is none.
    pub fn scores(&self) -> ArrayView3<'_, f32> {
        self.scores.view()
    }

    /// Number of candidates.
    pub fn candidates(&self) -> usize {
        self.candidates
    }

    /// Number of voxels that enhance.
    pub fn enhancing(&self) -> usize {
        self.enhancing
    }

    /// The input function on a series of concentrations in mM on the same grid.
    ///
    /// # Errors
    /// As [`InputFunction::from_mask`].
    pub fn input_function(&self, series: &Series, average: Average, fluid: Fluid) -> Result<FromMask> {
        let mut found = InputFunction::from_mask(series, &self.mask, average, fluid)?;
        let origin = format!(
            "{} of {} found automatically (score {:.1}, of {})",
            average.as_str(),
            counted(found.voxels, "arterial voxel"),
            self.score(),
            counted(self.candidates, "candidate")
        );
        found.function = found.function.with_origin(origin);
        Ok(found)
    }
}

/// What a voxel's curve is like.
#[derive(Debug, Clone, Copy)]
struct Feature {
    enhances: bool,
    /// Peaks early and high.
    early: bool,
    /// And comes down again.
    candidate: bool,
    steepness: f64,
    onset: f64,
}

/// The score of every voxel; 0 for those that are no candidates.
fn scores(features: &[Feature], tissue: Option<f64>, spacing_s: f64) -> Vec<f64> {
    let mut steepness: Vec<f64> = features.iter().filter(|f| f.candidate).map(|f| f.steepness).collect();
    let tissue = tissue.or_else(|| quantile(&mut steepness, 0.5)).unwrap_or(1.0);
    let mut onsets: Vec<f64> = features.iter().filter(|f| f.candidate).map(|f| f.onset).collect();
    let earliest = quantile(&mut onsets, 0.1).unwrap_or(0.0);
    let scale = f64::max(10.0, 2.0 * spacing_s);
    let score = |f: &Feature| {
        if f.candidate { f.steepness / tissue * (-(f.onset - earliest).max(0.0) / scale).exp() } else { 0.0 }
    };
    features.iter().map(score).collect()
}

/// The score of each candidate, but no more than that of this rank (0 is the highest) among it and its neighbours; 0 where
/// there are fewer candidates.
fn support(shape: [usize; 3], scores: &[f64], rank: usize) -> Vec<f64> {
    let support = |index: usize| {
        if scores[index] == 0.0 || rank == 0 {
            return scores[index];
        }
        let mut around: Vec<f64> = neighbours(shape, index).chain([index]).map(|n| scores[n]).collect();
        around.sort_by(|a, b| b.total_cmp(a));
        around.get(rank).copied().unwrap_or(0.0).min(scores[index])
    };
    (0..scores.len()).map(support).collect()
}

/// The value below which this share of the values lies: the one at that rank, rounded down.
fn quantile(values: &mut [f64], share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    Some(values[(share * last as f64) as usize])
}

/// Values in memory order, x fastest, in f64.
fn flat(values: ArrayView3<'_, f32>) -> Vec<f64> {
    values.reversed_axes().iter().map(|value| f64::from(*value)).collect()
}

/// The up to 26 voxels that share a face, an edge or a corner with one.
fn neighbours([nx, ny, nz]: [usize; 3], index: usize) -> impl Iterator<Item = usize> {
    let (x, y, z) = (index % nx, index / nx % ny, index / (nx * ny));
    let around = |at: usize, size: usize| at.saturating_sub(1)..(at + 2).min(size);
    around(z, nz)
        .flat_map(move |k| around(y, ny).map(move |j| (j, k)))
        .flat_map(move |(j, k)| around(x, nx).map(move |i| i + nx * (j + ny * k)))
        .filter(move |neighbour| *neighbour != index)
}
