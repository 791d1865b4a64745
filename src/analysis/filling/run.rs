//! The analysis from the series to the report.

use crate::engine::{Engine, RunOptions};
use crate::error::Result;
use crate::kernels::filling_time::FillingTime;
use crate::maps::SettingValue;
use crate::series::{Mask, Series};
use crate::status;

use super::description::{Facts, describe};
use super::direction::{FEWEST_VOXELS, Uncertainty};
use super::fields;
use super::front_speed::Sample;
use super::lesion::Lesion;
use super::noise::NoiseFields;
use super::origin;
use super::places::{Affine, base_distance, path_from_origin};
use super::report::{Direction, Extent, FillingReport, FrontSpeed, Index, Path};
use super::settings::{FillingPattern, Rim};
use super::shells::{self, Source};
use super::simulation::{EqualFilling, equal_filling};
use super::somers::{Time, somers_d};
use super::statistics::{median, quantile};
use super::times::{self, FillingTimes};

/// Voxels that uncertainty and speed are computed from, at most, evenly spread.
const MOST_SAMPLED: usize = 6000;
/// Shells of which fewer voxels enhance don't tell a speed: those that would be late are missing.
const FEWEST_ENHANCING: f64 = 0.5;
/// Enhancement is progressive if the last tenth of the frames lies higher than the tenth before by so many standard errors.
const PROGRESSIVE: f64 = 3.0;

impl FillingPattern {
    /// Measures how the lesion fills.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) if a setting makes no sense, [`Error::Mismatch`](crate::Error::Mismatch) if a mask doesn't lie on the series' grid, the
    /// lesion is empty, the base touches no voxel of it, or the series has fewer than 8 frames; those of
    /// [`Engine::run_with`]. That nothing enhances, or that nothing can be told, is no error: the report says so.
    pub fn run(
        &self,
        engine: &Engine,
        series: &Series,
        lesion: &Mask,
        options: &RunOptions<'_>,
    ) -> Result<FillingReport> {
        self.check()?;
        lesion.check_matches(series)?;
        if let Some(base) = &self.base {
            base.check_matches(series)?;
        }
        // The lesion's curves are a series of their own: a mask of the options would not fit it.
        let inner = RunOptions { mask: None, ..options.clone() };
        engine.in_pool(|| self.measure(engine, series, &Lesion::new(lesion, series), &inner))
    }

    fn measure(
        &self,
        engine: &Engine,
        series: &Series,
        lesion: &Lesion,
        options: &RunOptions<'_>,
    ) -> Result<FillingReport> {
        let curves = lesion.curves(series)?;
        let times = times::measure(self, engine, &curves, options)?;
        options.cancel.check()?;
        let noise = NoiseFields::new(times::residuals(&times, &curves, self.direction())?, times.frames);
        let used: Vec<usize> = (0..lesion.count()).filter(|n| self.rim == Rim::Used || !lesion.rim[*n]).collect();
        let known: Vec<usize> = used.iter().copied().filter(|n| times.arrival(*n).is_some()).collect();
        let sampled: Vec<usize> = known.iter().copied().step_by(known.len().div_ceil(MOST_SAMPLED).max(1)).collect();
        let simulated = equal_filling(self, engine, &curves, &times, &sampled, options)?;
        options.cancel.check()?;
        let here = Measurement::new(self, lesion, &times, &noise, &used, &known, &sampled, &simulated);

        let deepest = lesion.deepest_mm();
        let outward_mm: Vec<f64> = lesion.depth_mm.iter().map(|d| deepest - d).collect();
        let outward = here.direction(&outward_mm);
        let base = match &self.base {
            Some(base) => Some(base_distance(base, series, lesion)?),
            None => None,
        };
        let from_base = base.as_ref().map(|base| here.direction(&base.distance_mm));

        let affine = Affine::new(series.geometry(), lesion);
        let origin = origin::find(
            lesion,
            &times,
            &noise,
            self.draws,
            self.seed,
            self.rim,
            base.as_ref().map(|base| base.touches.as_slice()),
            |point| affine.of_box(point),
        );
        options.cancel.check()?;
        let origin_mm = origin.as_ref().ok().map(|origin| path_from_origin(lesion, origin, &affine));
        let from_origin = origin_mm
            .as_ref()
            .map(|distance| here.value(distance, known.iter().copied(), |n| Some(Time::Known(times.arrival_s[n]))));

        let source = Source {
            lesion,
            times: &times,
            curves: &curves,
            direction: self.direction(),
            used: &used,
            sample_voxels: &sampled,
        };
        let make_shells =
            |distance: &[f64]| shells::build(&source, distance, self.shells, &here.sample(&pick(distance, &sampled)));
        let depth_shells = make_shells(&outward_mm);
        let base_shells = base.as_ref().map_or(Vec::new(), |base| make_shells(&base.distance_mm));
        let speed = [
            Some((Path::Depth, outward_mm.as_slice())),
            origin_mm.as_ref().map(|d| (Path::FromOrigin, d.as_slice())),
            base.as_ref().map(|base| (Path::FromBase, base.distance_mm.as_slice())),
        ]
        .into_iter()
        .flatten()
        .filter_map(|(path, distance)| here.speed(path, distance))
        .max_by(|a, b| a.explained.total_cmp(&b.explained));
        options.cancel.check()?;

        let extent = self.extent(engine, &curves, lesion, &times, options)?;
        let errors: Vec<f64> = known.iter().map(|n| times.arrival_se_s[*n]).collect();
        let arrivals: Vec<f64> = known.iter().map(|n| times.arrival_s[*n]).collect();
        let span_s = quantile(&arrivals, 0.95).zip(quantile(&arrivals, 0.05)).map(|(late, early)| late - early);
        let description = describe(&Facts {
            origin: &origin,
            outward: &outward,
            from_base: from_base.as_ref(),
            speed: speed.as_ref(),
            extent: &extent,
            span_s,
            progressive: progressive(&curves, &times, &known, self.direction()),
            confidence: self.confidence,
        });
        let mut settings = self.record();
        settings.extend([
            ("frames_used".into(), SettingValue::Number(times.frames as f64)),
            ("reference_plateau".into(), SettingValue::Number(times.reference_plateau)),
            ("level".into(), SettingValue::Number(times.level)),
            ("voxels_used".into(), SettingValue::Number(used.len() as f64)),
        ]);
        let maps = fields::maps(
            series,
            lesion,
            &times,
            fields::all(lesion, &times, base.as_ref().map(|base| base.distance_mm.as_slice())),
            self.kind,
            settings.clone(),
        )?;
        Ok(FillingReport {
            centrifugality: outward.arrival,
            outward,
            from_base,
            from_origin,
            extent,
            origin,
            shells: depth_shells,
            base_shells,
            speed,
            arrival_se_s: median(&errors).unwrap_or(f64::NAN),
            reference_plateau: times.reference_plateau,
            level: times.level,
            unit: self.kind.unit(),
            description,
            settings,
            times_s: series.times()?.seconds().to_vec(),
            maps,
        })
    }

    fn extent(
        &self,
        engine: &Engine,
        curves: &Series,
        lesion: &Lesion,
        times: &FillingTimes,
        options: &RunOptions<'_>,
    ) -> Result<Extent> {
        let unusable = |n: usize| times.status[n] & status::NON_FINITE_SAMPLE != 0;
        let count = |which: &dyn Fn(usize) -> bool| (0..lesion.count()).filter(|n| which(*n)).count();
        let volume = |voxels: usize| voxels as f64 * lesion.grid.voxel_volume_mm3() / 1000.0;
        let usable = lesion.count() - count(&unusable);
        let share = |voxels: usize| voxels as f64 / usable as f64;
        let enhancing = count(&|n| times.enhances(n) && times.reaches_level(n));
        let partly = count(&|n| times.enhances(n) && !times.reaches_level(n));
        // What enhances by a hair, or doesn't by a hair.
        let with_threshold = |deviations: f64| -> Result<f64> {
            let kernel = FillingTime::new()
                .kind(self.kind)
                .polarity(self.polarity)
                .enhancement_threshold(deviations)
                .frames(times.frames);
            let maps = engine.run_with(&kernel, curves, options)?;
            let none = status::NOT_ENHANCING | status::NON_FINITE_SAMPLE;
            Ok(share(maps.status().iter().filter(|word| **word & none == 0).count()))
        };
        let threshold = self.enhancement_threshold;
        let interval = [with_threshold(threshold + 1.96)?, with_threshold((threshold - 1.96).max(1e-3))?];
        let mut crossings: Vec<f64> = (0..lesion.count())
            .filter(|n| times.enhances(*n))
            .map(|n| times.crossing_s[n])
            .filter(|t| t.is_finite())
            .collect();
        crossings.sort_by(f64::total_cmp);
        let filled = curves.times()?.seconds()[..times.frames]
            .iter()
            .map(|time| (*time, share(crossings.partition_point(|crossing| crossing <= time))))
            .collect();
        Ok(Extent {
            lesion_ml: volume(lesion.count()),
            enhancing_ml: volume(enhancing),
            partly_ml: volume(partly),
            not_enhancing_ml: volume(usable - enhancing - partly),
            unusable_ml: volume(lesion.count() - usable),
            enhancing_fraction: share(enhancing + partly),
            enhancing_fraction_interval: interval,
            filled,
        })
    }
}

/// The voxels that directions and speeds are measured on, with what makes them uncertain.
struct Measurement<'a> {
    settings: &'a FillingPattern,
    times: &'a FillingTimes,
    used: &'a [usize],
    known: &'a [usize],
    sampled: &'a [usize],
    simulated: &'a [EqualFilling],
    positions: Vec<[f64; 3]>,
    arrival_s: Vec<f64>,
    error_s: Vec<f64>,
    /// Draws of the noise at the sampled voxels.
    draws: Vec<Vec<f32>>,
    degrees_of_freedom: f64,
    bin_mm: f64,
}

impl<'a> Measurement<'a> {
    #[expect(clippy::too_many_arguments, reason = "what was measured so far")]
    fn new(
        settings: &'a FillingPattern,
        lesion: &Lesion,
        times: &'a FillingTimes,
        noise: &NoiseFields,
        used: &'a [usize],
        known: &'a [usize],
        sampled: &'a [usize],
        simulated: &'a [EqualFilling],
    ) -> Self {
        let own = noise.at(sampled);
        let draws = (0..settings.draws).map(|draw| own.draw(settings.seed.wrapping_add(draw as u64))).collect();
        Self {
            settings,
            times,
            used,
            known,
            sampled,
            simulated,
            positions: sampled.iter().map(|n| lesion.position_mm(*n)).collect(),
            arrival_s: sampled.iter().map(|n| times.arrival_s[*n]).collect(),
            error_s: sampled.iter().map(|n| times.arrival_se_s[*n]).collect(),
            draws,
            degrees_of_freedom: noise.degrees_of_freedom(),
            bin_mm: 0.5 * lesion.grid.voxel_volume_mm3().cbrt(),
        }
    }

    /// Somers' D of some voxels' times against a distance; NaN if none can be compared.
    fn value(
        &self,
        distance_mm: &[f64],
        voxels: impl Iterator<Item = usize>,
        time: impl Fn(usize) -> Option<Time>,
    ) -> f64 {
        let (along, times): (Vec<f64>, Vec<Time>) =
            voxels.filter(|n| distance_mm[*n].is_finite()).filter_map(|n| Some((distance_mm[n], time(n)?))).unzip();
        somers_d(&along, &times).unwrap_or(f64::NAN)
    }

    fn direction(&self, distance_mm: &[f64]) -> Direction {
        let times = self.times;
        let arrival = |n: usize| Some(Time::Known(times.arrival_s[n]));
        let or_censored = |n: usize| match times.arrival(n) {
            Some((time, _)) => Some(Time::Known(time)),
            None if times.status[n] & status::NOT_ENHANCING != 0 => Some(Time::Censored),
            None => None,
        };
        let reachable = self.known.iter().filter(|n| distance_mm[**n].is_finite()).count();
        let d = self.value(distance_mm, self.known.iter().copied(), arrival);
        let (index, level_of_equal_filling) = if reachable < FEWEST_VOXELS || d.is_nan() {
            (nothing_known(reachable), f64::NAN)
        } else {
            let uncertainty = Uncertainty {
                positions: &self.positions,
                arrival_s: &self.arrival_s,
                error_s: &self.error_s,
                fields: &self.draws,
                degrees_of_freedom: self.degrees_of_freedom,
                simulated: self.simulated,
                confidence: self.settings.confidence,
                bin_mm: self.bin_mm,
            };
            let distances = pick(distance_mm, self.sampled);
            (uncertainty.index(d, &distances, reachable), uncertainty.level_of_equal_filling(&distances))
        };
        let level = self.value(distance_mm, self.used.iter().copied(), |n| times.crossing(n));
        let agree = f64::from(index.determined_sign()) * (level - level_of_equal_filling) > 0.0;
        Direction {
            arrival: index,
            arrival_censored: self.value(distance_mm, self.used.iter().copied(), or_censored),
            level,
            level_of_equal_filling,
            sign: if agree { index.determined_sign() } else { 0 },
        }
    }

    fn sample<'s>(&'s self, distance_mm: &'s [f64]) -> Sample<'s> {
        Sample {
            distance_mm,
            arrival_s: &self.arrival_s,
            error_s: &self.error_s,
            simulated: self.simulated,
            positions: &self.positions,
            fields: &self.draws,
            degrees_of_freedom: self.degrees_of_freedom,
            confidence: self.settings.confidence,
            bin_mm: self.bin_mm,
        }
    }

    /// The speed along a distance, over the shells in which most voxels enhance.
    fn speed(&self, path: Path, distance_mm: &[f64]) -> Option<FrontSpeed> {
        let reached: Vec<usize> = self.used.iter().copied().filter(|n| distance_mm[*n].is_finite()).collect();
        let bounds = super::front_speed::equal_groups(&pick(distance_mm, &reached), self.settings.shells);
        if bounds.is_empty() {
            return None;
        }
        let shell = |n: usize| shells::shell_of(&bounds, distance_mm[n]);
        let mut counts = vec![(0usize, 0usize); bounds.len() - 1];
        for n in reached {
            counts[shell(n)].0 += 1;
            counts[shell(n)].1 += usize::from(self.times.enhances(n));
        }
        let fills: Vec<bool> =
            counts.iter().map(|(all, enhancing)| *enhancing as f64 >= FEWEST_ENHANCING * *all as f64).collect();
        let distance = pick(distance_mm, self.sampled);
        let voxels: Vec<usize> =
            (0..self.sampled.len()).filter(|i| distance[*i].is_finite() && fills[shell(self.sampled[*i])]).collect();
        let middles: Vec<f64> =
            (0..fills.len()).filter(|s| fills[*s]).map(|s| 0.5 * (bounds[s] + bounds[s + 1])).collect();
        self.sample(&distance).speed(&voxels, path, &middles)
    }
}

/// An index of which nothing is known.
fn nothing_known(voxels: usize) -> Index {
    Index {
        value: f64::NAN,
        low: -1.0,
        high: 1.0,
        p: 1.0,
        standard_error: f64::NAN,
        noise_standard_error: f64::NAN,
        tissue_standard_error: f64::NAN,
        bias: f64::NAN,
        voxels,
    }
}

fn pick(values: &[f64], which: &[usize]) -> Vec<f64> {
    which.iter().map(|n| values[*n]).collect()
}

/// Whether the mean enhancement still rises at the end.
fn progressive(curves: &Series, times: &FillingTimes, voxels: &[usize], direction: f64) -> bool {
    if voxels.is_empty() {
        return false;
    }
    let count = curves.voxel_count();
    let scale = direction * curves.scaling().slope;
    let mean: Vec<f64> = (0..curves.frames())
        .map(|t| {
            let sum: f64 = voxels.iter().map(|n| curves.resident().get_f64(n + t * count)).sum();
            scale * sum / voxels.len() as f64
        })
        .collect();
    let n = (mean.len() / 10).max(3);
    if mean.len() < 3 * n || times.frames < mean.len() {
        return false;
    }
    let part = |from: usize| &mean[from..from + n];
    let average = |part: &[f64]| part.iter().sum::<f64>() / n as f64;
    let (late, before) = (part(mean.len() - n), part(mean.len() - 2 * n));
    // Scatter about the local line, from second differences, which leave out any slope.
    let last = &mean[mean.len() - 2 * n..];
    let second: Vec<f64> = last.windows(3).map(|w| w[0] - 2.0 * w[1] + w[2]).collect();
    let noise = (second.iter().map(|d| d * d).sum::<f64>() / second.len() as f64 / 6.0).sqrt();
    average(late) - average(before) > PROGRESSIVE * noise * (2.0 / n as f64).sqrt()
}
