//! Where filling begins: the earliest component of the smoothed filling times, if the noise lets it stay in one place.

use rayon::prelude::*;

use super::distance::neighbour_steps;
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
    let count = lesion.count();
    let weights: Vec<f64> =
        (0..count).map(|n| times.arrival(n).map_or(0.0, |(_, error)| 1.0 / (error * error).max(1e-12))).collect();
    if weights.iter().filter(|w| **w > 0.0).count() < FEWEST_VOXELS {
        return Err(NoOrigin::TooFewVoxels);
    }
    // One voxel of the same volume: enough to quieten single voxels, little against the lesion.
    let sigma_mm = lesion.grid.voxel_volume_mm3().cbrt();
    // One voxel that happens to fit very well must not speak for all around it.
    let typical = quantile(&weights.iter().copied().filter(|w| *w > 0.0).collect::<Vec<_>>(), 0.5).unwrap_or(1.0);
    let weights: Vec<f64> = weights.into_iter().map(|w| w.min(4.0 * typical)).collect();
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
    if region_radius_mm.is_nan() || region_radius_mm > limit_mm {
        return Err(NoOrigin::Scattered { region_radius_mm, limit_mm });
    }
    let (voxel, world_mm) = to_world(main.centroid_mm);
    let nearest = nearest_voxel(lesion, main.centroid_mm);
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

/// The lesion's voxel nearest to a point.
pub(super) fn nearest_voxel(lesion: &Lesion, point_mm: [f64; 3]) -> usize {
    let distance = |n: usize| apart(lesion.position_mm(n), point_mm);
    (0..lesion.count()).fold(0, |best, n| if distance(n) < distance(best) { n } else { best })
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
    components.sort_by(|a, b| b.voxels.len().cmp(&a.voxels.len()));
    components
}

fn apart(a: [f64; 3], b: [f64; 3]) -> f64 {
    (0..3).map(|axis| (a[axis] - b[axis]).powi(2)).sum::<f64>().sqrt()
}
