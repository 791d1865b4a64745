//! Where filling begins: the earliest component of the smoothed filling times, if the noise lets it stay in one place.
//!
//! Two kinds of draws tell. Noise on top of the measured times shows whether the component is one among several; but noise has
//! chosen that component already, so it seems firmer than it is. Noise on a smooth front that starts there (a parabola of the
//! times along the paths from it) shows how far the centroid strays, and how far it lies off on average: at a surface, inward.
//! That is taken off. The region is the larger one.

use rayon::prelude::*;

use super::distance::neighbour_steps;
use super::front_speed::least_squares;
use super::lesion::Lesion;
use super::noise::NoiseFields;
use super::report::{NoOrigin, Origin, Place};
use super::smooth::Smoother;
use super::statistics::quantile;
use super::times::FillingTimes;

/// The share of the filling voxels that counts as earliest.
const EARLIEST: f64 = 0.05;
/// Draws of the noise for the region, at most.
const MOST_DRAWS: usize = 100;
/// The region may have this part of the lesion's equivalent radius.
const LARGEST_REGION: f64 = 0.25;
/// Fewest voxels with a filling time.
const FEWEST_VOXELS: usize = 20;
/// A further component counts if it is at least so large as a part of the largest.
const FURTHER: f64 = 0.5;

/// A component of the earliest voxels.
#[derive(Debug, Clone)]
struct Component {
    voxels: Vec<usize>,
    /// In mm from the box's first voxel.
    centroid_mm: [f64; 3],
}

/// Finds the origin. `touches_base` tells which voxels touch the base.
pub(super) fn find(
    lesion: &Lesion,
    times: &FillingTimes,
    noise: &NoiseFields,
    draws: usize,
    seed: u64,
    touches_base: Option<&[bool]>,
    to_world: impl Fn([f64; 3]) -> ([f64; 3], [f64; 3]),
) -> Result<Origin, NoOrigin> {
    let weights = times.weights();
    if weights.iter().filter(|w| **w > 0.0).count() < FEWEST_VOXELS {
        return Err(NoOrigin::TooFewVoxels);
    }
    // One voxel of the same volume: enough to quieten single voxels, little against the lesion.
    let sigma_mm = lesion.grid.voxel_volume_mm3().cbrt();
    let smoother = Smoother::new(lesion, weights.clone(), sigma_mm);
    let components = |shift: &dyn Fn(usize) -> f64| {
        let smooth = smoother.smooth(lesion, |n| times.arrival_s[n] + shift(n));
        earliest(lesion, &smooth, |n| weights[n] > 0.0)
    };
    let found = components(&|_| 0.0);
    let Some(main) = found.first() else { return Err(NoOrigin::TooFewVoxels) };
    let further: Vec<&Component> =
        found[1..].iter().filter(|other| other.voxels.len() as f64 >= FURTHER * main.voxels.len() as f64).collect();

    let drawn: Vec<Vec<Component>> = (0..draws.min(MOST_DRAWS))
        .into_par_iter()
        .map(|draw| {
            let field = noise.draw(seed.wrapping_add(1_000_003).wrapping_add(draw as u64));
            components(&|n| f64::from(field[n]) * times.arrival_se_s[n])
        })
        .collect();
    let limit_mm = LARGEST_REGION * lesion.equivalent_radius_mm();
    // Several origins stay in place if each draw's largest components do, whichever is the largest in it.
    let region = |origins: &[[f64; 3]]| {
        let farthest: Vec<f64> = drawn
            .iter()
            .map(|components| {
                let largest = &components[..origins.len().min(components.len())];
                let misses = origins
                    .iter()
                    .map(|origin| largest.iter().map(|c| apart(c.centroid_mm, *origin)).fold(f64::INFINITY, f64::min));
                misses.fold(0.0, f64::max)
            })
            .collect();
        quantile(&farthest, 0.95).unwrap_or(f64::INFINITY)
    };
    let alone = region(&[main.centroid_mm]);
    let (region_radius_mm, others): (f64, Vec<&Component>) = if further.is_empty() {
        (alone, Vec::new())
    } else {
        let all: Vec<[f64; 3]> = std::iter::once(main).chain(further.iter().copied()).map(|c| c.centroid_mm).collect();
        let together = region(&all);
        if together <= limit_mm || together <= alone { (together, further) } else { (alone, Vec::new()) }
    };
    let scattered = |region_radius_mm: f64| Err(NoOrigin::Scattered { region_radius_mm, limit_mm });
    if region_radius_mm.is_nan() || region_radius_mm > limit_mm {
        return scattered(region_radius_mm);
    }
    // Fronts that start there.
    let starts: Vec<usize> =
        std::iter::once(main).chain(others.iter().copied()).map(|c| lesion.nearest(c.centroid_mm)).collect();
    let Some(front) = front_from(lesion, times, &weights, &starts) else { return scattered(f64::INFINITY) };
    let start_mm = lesion.position_mm(starts[0]);
    let strays: Vec<[f64; 3]> = (0..draws.min(MOST_DRAWS))
        .into_par_iter()
        .filter_map(|draw| {
            let field = noise.draw(seed.wrapping_add(2_000_029).wrapping_add(draw as u64));
            let found = components(&|n| front[n] - times.arrival_s[n] + f64::from(field[n]) * times.arrival_se_s[n]);
            let largest = &found[..starts.len().min(found.len())];
            let near = largest
                .iter()
                .min_by(|a, b| apart(a.centroid_mm, start_mm).total_cmp(&apart(b.centroid_mm, start_mm)))?;
            Some(std::array::from_fn(|axis| near.centroid_mm[axis] - start_mm[axis]))
        })
        .collect();
    let off: [f64; 3] = std::array::from_fn(|axis| strays.iter().map(|s| s[axis]).sum::<f64>() / strays.len() as f64);
    let around: Vec<f64> = strays.iter().map(|stray| apart(*stray, off)).collect();
    let region_radius_mm = region_radius_mm.max(quantile(&around, 0.95).unwrap_or(f64::INFINITY));
    if region_radius_mm > limit_mm {
        return scattered(region_radius_mm);
    }
    let corrected: [f64; 3] = std::array::from_fn(|axis| main.centroid_mm[axis] - off[axis]);
    // An origin lies in the lesion.
    let within = lesion.position_mm(lesion.nearest(corrected));
    let half_voxel = 0.5 * lesion.grid.size_mm.iter().map(|s| s * s).sum::<f64>().sqrt();
    let centroid_mm = if apart(within, corrected) <= half_voxel { corrected } else { within };
    let (voxel, world_mm) = to_world(centroid_mm);
    let nearest = lesion.nearest(centroid_mm);
    let depth_mm = lesion.depth_mm[nearest];
    let at_base = touches_base.is_some_and(|touches| main.voxels.iter().any(|n| touches[*n]));
    let place = if at_base {
        Place::Base
    } else if depth_mm >= 0.5 * lesion.deepest_mm() {
        Place::Core
    } else {
        Place::Rim
    };
    Ok(Origin {
        world_mm,
        voxel,
        volume_ml: main.voxels.len() as f64 * lesion.grid.voxel_volume_mm3() / 1000.0,
        depth_mm,
        place,
        region_radius_mm,
        others_world_mm: others.iter().map(|c| to_world(c.centroid_mm).1).collect(),
    })
}

/// Arrivals of a smooth front from these voxels: a parabola in the length of the path, weighted least squares. `None` if the
/// front doesn't move away from them.
fn front_from(lesion: &Lesion, times: &FillingTimes, weights: &[f64], starts: &[usize]) -> Option<Vec<f64>> {
    let distance = lesion.paths_mm(starts, f64::INFINITY);
    let known: Vec<usize> = (0..distance.len()).filter(|n| weights[*n] > 0.0 && distance[*n].is_finite()).collect();
    let basis: Vec<Vec<f64>> = (0..3).map(|power| known.iter().map(|n| distance[*n].powi(power)).collect()).collect();
    let weight: Vec<f64> = known.iter().map(|n| weights[*n]).collect();
    let time: Vec<f64> = known.iter().map(|n| times.arrival_s[*n]).collect();
    let (c, _) = least_squares(&basis, &weight, &time)?;
    let farthest = known.iter().map(|n| distance[*n]).fold(0.0, f64::max);
    // Earlier at the start than half way: a front that comes from there.
    let half = 0.5 * farthest;
    if c[1] * half + c[2] * half * half <= 0.0 {
        return None;
    }
    // Where no path leads (a lesion in two pieces) the times stay as they are.
    let arrival = |n: usize| match distance[n] {
        d if d.is_finite() => c[0] + c[1] * d + c[2] * d * d,
        _ => times.arrival_s[n],
    };
    Some((0..distance.len()).map(arrival).collect())
}

/// The components of the earliest voxels that have a time of their own, the largest first.
fn earliest(lesion: &Lesion, smooth: &[f64], has_time: impl Fn(usize) -> bool) -> Vec<Component> {
    let usable: Vec<f64> = (0..smooth.len()).filter(|n| has_time(*n)).map(|n| smooth[n]).collect();
    let Some(limit) = quantile(&usable, EARLIEST) else { return Vec::new() };
    let first = usable.iter().copied().fold(f64::INFINITY, f64::min);
    let early = |n: usize| has_time(n) && smooth[n] <= limit;
    let mut seen = vec![false; smooth.len()];
    let mut components = Vec::new();
    for start in (0..smooth.len()).filter(|n| early(*n)) {
        if std::mem::replace(&mut seen[start], true) {
            continue;
        }
        let mut voxels = vec![start];
        let mut at = 0;
        while at < voxels.len() {
            for step in neighbour_steps() {
                let other = lesion.grid.neighbour(lesion.voxels[voxels[at]], step).and_then(|i| lesion.number[i]);
                if let Some(other) = other.map(|n| n as usize)
                    && early(other)
                    && !std::mem::replace(&mut seen[other], true)
                {
                    voxels.push(other);
                }
            }
            at += 1;
        }
        // Weighted by how early: where filling starts at a surface, the plain centroid lies too deep.
        let (mut sum, mut centroid) = (0.0, [0.0; 3]);
        for n in &voxels {
            let weight = (limit - smooth[*n]).max(1e-9 * (limit - first).max(1e-9));
            sum += weight;
            let position = lesion.position_mm(*n);
            (0..3).for_each(|axis| centroid[axis] += weight * position[axis]);
        }
        components.push(Component { centroid_mm: centroid.map(|c| c / sum), voxels });
    }
    components.sort_by_key(|component| std::cmp::Reverse(component.voxels.len()));
    components
}

fn apart(a: [f64; 3], b: [f64; 3]) -> f64 {
    (0..3).map(|axis| (a[axis] - b[axis]).powi(2)).sum::<f64>().sqrt()
}
