//! Where filling begins: the earliest component of the smoothed filling times, if the noise lets it stay in one place. The
//! origin is the point that the front around that component comes from ([`super::apex`]).
//!
//! Two kinds of draws tell. Noise on top of the measured times shows whether the component is one among several; but noise has
//! chosen that component already, so it seems firmer than it is. Noise on a smooth front that starts at the origin (a parabola
//! of the times along the paths from it) shows how far off all of this finds it. The region is the larger one.

use rayon::prelude::*;

use super::apex::{apart_squared, apices};
use super::distance::neighbour_steps;
use super::front_speed::least_squares;
use super::lesion::Lesion;
use super::noise::NoiseFields;
use super::report::{NoOrigin, Origin, Place};
use super::settings::Rim;
use super::smooth::Smoother;
use super::statistics::{median, quantile};
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

/// Finds the origin. The front is followed back without rim voxels if they are left out; `touches_base` tells which voxels touch the base.
#[expect(clippy::too_many_arguments, reason = "what was measured so far")]
pub(super) fn find(
    lesion: &Lesion,
    times: &FillingTimes,
    noise: &NoiseFields,
    draws: usize,
    seed: u64,
    rim: Rim,
    touches_base: Option<&[bool]>,
    to_world: impl Fn([f64; 3]) -> ([f64; 3], [f64; 3]),
) -> Result<Origin, NoOrigin> {
    let weights = steady_weights(lesion, times);
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
    let mut inner = weights.clone();
    if rim == Rim::LeftOut {
        inner.iter_mut().zip(&lesion.rim).filter(|(_, rim)| **rim).for_each(|(weight, _)| *weight = 0.0);
    }
    if inner.iter().filter(|w| **w > 0.0).count() < FEWEST_VOXELS {
        inner.clone_from(&weights);
    }
    let place = |components: &[&Component], shift: &dyn Fn(usize) -> f64| {
        let centroids: Vec<[f64; 3]> = components.iter().map(|component| component.centroid_mm).collect();
        apices(lesion, &inner, |n| times.arrival_s[n] + shift(n), &centroids)
    };
    let all: Vec<&Component> = std::iter::once(main).chain(others).collect();
    let places_mm = place(&all, &|_| 0.0);
    let starts: Vec<usize> = places_mm.iter().map(|place| lesion.nearest(*place)).collect();
    let Some(front) = front_from(lesion, times, &weights, &starts) else { return scattered(f64::INFINITY) };
    let start_mm = lesion.position_mm(starts[0]);
    let strays_mm: Vec<f64> = (0..draws.min(MOST_DRAWS))
        .into_par_iter()
        .map(|draw| {
            let field = noise.draw(seed.wrapping_add(2_000_029).wrapping_add(draw as u64));
            let shift = |n: usize| front[n] - times.arrival_s[n] + f64::from(field[n]) * times.arrival_se_s[n];
            let found = components(&shift);
            let largest: Vec<&Component> = found.iter().take(starts.len()).collect();
            place(&largest, &shift).into_iter().map(|place| apart(place, start_mm)).fold(f64::INFINITY, f64::min)
        })
        .collect();
    let strays_mm = quantile(&strays_mm, 0.95).unwrap_or(f64::INFINITY);
    // A voxel's arrival doesn't say where in the voxel: the spread of a place that may be anywhere in it.
    let in_voxel_mm = (lesion.grid.size_mm.iter().map(|size| size * size).sum::<f64>() / 12.0).sqrt();
    let region_radius_mm = region_radius_mm.max(strays_mm).hypot(in_voxel_mm);
    if region_radius_mm > limit_mm {
        return scattered(region_radius_mm);
    }
    let (voxel, world_mm) = to_world(places_mm[0]);
    let nearest = starts[0];
    let depth_mm = lesion.depth_mm[nearest];
    let at_base = touches_base.is_some_and(|touches| touches[nearest] || main.voxels.iter().any(|n| touches[*n]));
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
        others_world_mm: places_mm[1..].iter().map(|place| to_world(*place).1).collect(),
    })
}

/// The weight of every voxel's arrival: 1/SE², SE the median over the voxel and its neighbours, and no more than four times the
/// median weight; 0 where there is no arrival. A voxel's own error depends on what the noise made of its arrival (an early one
/// is fitted with a slow rise, whose beginning is vague), so its own 1/SE² would speak for late arrivals: by seconds where
/// contrast to noise is low, at the rim.
fn steady_weights(lesion: &Lesion, times: &FillingTimes) -> Vec<f64> {
    let error = |n: usize| times.arrival(n).map(|(_, error)| error);
    let weight = |n: usize| {
        let own = error(n)?;
        let around = neighbour_steps()
            .filter_map(|step| lesion.grid.neighbour(lesion.voxels[n], step))
            .filter_map(|place| error(lesion.number[place]? as usize));
        let typical = median(&around.chain([own]).collect::<Vec<_>>())?;
        Some(1.0 / (typical * typical).max(1e-12))
    };
    let weights: Vec<f64> = (0..lesion.count()).into_par_iter().map(|n| weight(n).unwrap_or(0.0)).collect();
    let some: Vec<f64> = weights.iter().copied().filter(|w| *w > 0.0).collect();
    let most = 4.0 * median(&some).unwrap_or(1.0);
    weights.into_iter().map(|w| w.min(most)).collect()
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
        if seen[start] {
            continue;
        }
        let voxels = lesion.connected(start, &mut seen, early);
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
    apart_squared(a, b).sqrt()
}
