//! Shells of equal volume along a distance: when they fill, how fast the front crosses them, and their mean curves.

use super::front_speed::{Sample, equal_groups};
use super::lesion::Lesion;
use super::report::Shell;
use super::statistics::quantile;
use super::times::FillingTimes;
use crate::series::Series;

/// What shells are made from.
pub(super) struct Source<'a> {
    pub(super) lesion: &'a Lesion,
    pub(super) times: &'a FillingTimes,
    pub(super) curves: &'a Series,
    pub(super) direction: f64,
    /// The voxels that count (rim voxels left out, unless told).
    pub(super) used: &'a [usize],
    /// The voxels of the sample that slowness is measured on.
    pub(super) sample_voxels: &'a [usize],
}

/// Which shell a distance belongs to.
pub(super) fn shell_of(bounds: &[f64], distance: f64) -> usize {
    let shells = bounds.len() - 1;
    bounds[1..shells].partition_point(|bound| *bound < distance)
}

/// Shells along a distance (one per voxel of the lesion, infinite where there is none); `sample` has the same distance.
pub(super) fn build(source: &Source<'_>, distance_mm: &[f64], shells: usize, sample: &Sample<'_>) -> Vec<Shell> {
    let used: Vec<usize> = source.used.iter().copied().filter(|n| distance_mm[*n].is_finite()).collect();
    let along: Vec<f64> = used.iter().map(|n| distance_mm[*n]).collect();
    let bounds = equal_groups(&along, shells);
    if bounds.is_empty() {
        return Vec::new();
    }
    let mut members = vec![Vec::new(); bounds.len() - 1];
    for n in used {
        members[shell_of(&bounds, distance_mm[n])].push(n);
    }
    let of_sample: Vec<usize> = source.sample_voxels.iter().map(|n| shell_of(&bounds, distance_mm[*n])).collect();
    let volume = source.lesion.grid.voxel_volume_mm3();
    members
        .into_iter()
        .enumerate()
        .map(|(s, members)| {
            // A shell and its neighbours: a thin shell alone has no lever.
            let near: Vec<usize> = (0..of_sample.len())
                .filter(|i| of_sample[*i].abs_diff(s) <= 1 && sample.distance_mm[*i].is_finite())
                .collect();
            let (slowness, error) = sample.slowness(&near).unwrap_or((f64::NAN, f64::NAN));
            let thickness = bounds[s + 1] - bounds[s];
            let volume_mm3 = members.len() as f64 * volume;
            let enhancing = members.iter().filter(|n| source.times.enhances(**n)).count();
            let quartiles = |time: &dyn Fn(usize) -> f64| {
                let times: Vec<f64> =
                    members.iter().map(|n| time(*n)).map(|t| if t.is_finite() { t } else { f64::INFINITY }).collect();
                [0.25, 0.5, 0.75].map(|q| quantile(&times, q).unwrap_or(f64::NAN))
            };
            Shell {
                from_mm: bounds[s],
                to_mm: bounds[s + 1],
                volume_ml: volume_mm3 / 1000.0,
                area_mm2: volume_mm3 / thickness,
                voxels: members.len(),
                enhancing_fraction: enhancing as f64 / members.len().max(1) as f64,
                arrival_quartiles_s: quartiles(&|n| source.times.arrival_s[n]),
                level_quartiles_s: quartiles(&|n| source.times.crossing_s[n]),
                slowness_s_per_mm: slowness,
                slowness_se_s_per_mm: error,
                curve: mean_enhancement(source, &members),
            }
        })
        .collect()
}

/// The mean enhancement over these voxels' fitted baselines, frame by frame.
fn mean_enhancement(source: &Source<'_>, members: &[usize]) -> Vec<f64> {
    let (count, scaling) = (source.curves.voxel_count(), source.curves.scaling());
    let usable: Vec<usize> = members.iter().copied().filter(|n| source.times.baseline[*n].is_finite()).collect();
    (0..source.curves.frames())
        .map(|t| {
            let sum: f64 = usable
                .iter()
                .map(|n| {
                    let sample = scaling.slope * source.curves.resident().get_f64(n + t * count) + scaling.intercept;
                    source.direction * (sample - source.times.baseline[*n])
                })
                .sum();
            sum / usable.len() as f64
        })
        .collect()
}
