//! Where a front began: the point from which the arrivals around it grow with distance.
//!
//! The earliest voxels lie around that point only where there is lesion all around it. At a surface they lie to one side, and
//! the outermost voxels, partly other tissue, have no time of their own; the centroid of the earliest then lies too deep, the
//! deeper the larger the lesion. So the arrivals T of its surroundings are fitted with a cone,
//!
//! `T(x) = T₀ + s |x - x₀|`, s > 0, x₀ anywhere in the lesion, voxels without a time included,
//!
//! least squares with Huber's weights, by search over x₀; T₀ and s have a closed form. How the isochrones curve tells how far off
//! x₀ is, so what lies outward of the earliest voxels needn't be measured.

use super::distance::neighbour_steps;
use super::lesion::Lesion;
use super::statistics::{median, quantile};

/// The share of the filling voxels that counts as surroundings: small, so that a front needn't be round for long; and fewest
/// of them.
const SURROUNDINGS: f64 = 0.25;
const FEWEST: usize = 20;
/// Voxels that are fitted, and first candidates, at most; evenly spread.
const MOST_FITTED: usize = 2000;
const MOST_CANDIDATES: usize = 200;
/// Rounds of weighting down what lies far off the cone, and how far off, in robust standard deviations.
const ROUNDS: usize = 3;
const FAR_OFF: f64 = 1.5;
/// The last step of the search, in voxels.
const FINEST: f64 = 0.25;

/// A voxel of the surroundings.
struct Point {
    position_mm: [f64; 3],
    arrival_s: f64,
    /// From its standard error alone.
    weight: f64,
}

/// The points where fronts began that have these centroids (in mm from the box's first voxel) of their earliest voxels, each from
/// the surroundings that are its own. The centroid itself where the arrivals don't grow away from any point near it.
pub(super) fn apices(
    lesion: &Lesion,
    weights: &[f64],
    arrival_s: impl Fn(usize) -> f64,
    centroids_mm: &[[f64; 3]],
) -> Vec<[f64; 3]> {
    let known: Vec<usize> = (0..lesion.count()).filter(|n| weights[*n] > 0.0).collect();
    let share = SURROUNDINGS.max(FEWEST as f64 / known.len() as f64).min(1.0) / centroids_mm.len() as f64;
    centroids_mm
        .iter()
        .map(|centroid| {
            let squared: Vec<f64> = known.iter().map(|n| apart_squared(lesion.position_mm(*n), *centroid)).collect();
            let reach_mm = quantile(&squared, share).unwrap_or(0.0).sqrt();
            let own = |n: usize| {
                let position = lesion.position_mm(n);
                let here = apart_squared(position, *centroid);
                here <= reach_mm * reach_mm && centroids_mm.iter().all(|other| here <= apart_squared(position, *other))
            };
            let around = lesion.connected(lesion.nearest(*centroid), &mut vec![false; lesion.count()], own);
            let timed: Vec<usize> = around.iter().copied().filter(|n| weights[*n] > 0.0).collect();
            let points: Vec<Point> = spread(&timed, MOST_FITTED)
                .map(|n| Point { position_mm: lesion.position_mm(n), arrival_s: arrival_s(n), weight: weights[n] })
                .collect();
            search(lesion, &points, &around).unwrap_or(*centroid)
        })
        .collect()
}

/// The apex of the cone that fits best; `None` if no cone that opens upward does.
fn search(lesion: &Lesion, points: &[Point], candidates: &[usize]) -> Option<[f64; 3]> {
    let mut weights: Vec<f64> = points.iter().map(|point| point.weight).collect();
    let first = spread(candidates, MOST_CANDIDATES).map(|n| lesion.position_mm(n));
    let (_, mut apex) = first
        .map(|apex| (Cone::fit(points, &weights, apex).misfit, apex))
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(misfit, _)| misfit.is_finite())?;
    // As wide as the candidates are apart.
    let mut coarsest = 1.0;
    while coarsest * coarsest * coarsest < candidates.len() as f64 / MOST_CANDIDATES as f64 {
        coarsest *= 2.0;
    }
    for round in 0..=ROUNDS {
        apex = refine(lesion, points, &weights, apex, if round == 0 { coarsest } else { 1.0 });
        if round < ROUNDS {
            let cone = Cone::fit(points, &weights, apex);
            let off: Vec<f64> =
                points.iter().map(|p| (p.arrival_s - cone.at(p.position_mm, apex)).abs() * p.weight.sqrt()).collect();
            let far = (FAR_OFF * 1.4826 * median(&off)?).max(f64::MIN_POSITIVE);
            for ((weight, point), off) in weights.iter_mut().zip(points).zip(&off) {
                *weight = point.weight * (far / off.max(far));
            }
        }
    }
    Some(apex)
}

/// Steps to the best neighbouring place in the lesion until there is none, then with half the step.
fn refine(lesion: &Lesion, points: &[Point], weights: &[f64], start: [f64; 3], coarsest: f64) -> [f64; 3] {
    let grid = lesion.grid;
    let inside = |point: [f64; 3]| {
        let place = std::array::from_fn(|a| (point[a] / grid.size_mm[a]).round());
        (0..3).all(|a| (0.0..grid.shape[a] as f64).contains(&place[a]))
            && lesion.number[grid.index(place.map(|v: f64| v as usize))].is_some()
    };
    let (mut apex, mut misfit) = (start, Cone::fit(points, weights, start).misfit);
    let mut length = coarsest;
    while length >= FINEST {
        let step_to = |step: [isize; 3]| -> Option<[f64; 3]> {
            // A lesion of one slice has its apex in it.
            let flat = (0..3).any(|a| step[a] != 0 && grid.shape[a] == 1);
            let to = std::array::from_fn(|a| apex[a] + length * step[a] as f64 * grid.size_mm[a]);
            (!flat && inside(to)).then_some(to)
        };
        let best = neighbour_steps()
            .filter_map(step_to)
            .map(|to| (Cone::fit(points, weights, to).misfit, to))
            .min_by(|a, b| a.0.total_cmp(&b.0));
        match best {
            Some((better, to)) if better < misfit => (apex, misfit) = (to, better),
            _ => length *= 0.5,
        }
    }
    apex
}

struct Cone {
    at_apex_s: f64,
    slowness_s_per_mm: f64,
    /// Weighted sum of squares that it leaves; infinite if it doesn't open upward.
    misfit: f64,
}

impl Cone {
    fn fit(points: &[Point], weights: &[f64], apex: [f64; 3]) -> Self {
        let (mut w, mut d, mut t, mut dd, mut dt, mut tt) = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0);
        // Times from one of them on, so that nothing cancels.
        let from = points.first().map_or(0.0, |point| point.arrival_s);
        for (point, weight) in points.iter().zip(weights) {
            let distance = apart_squared(point.position_mm, apex).sqrt();
            let time = point.arrival_s - from;
            w += weight;
            d += weight * distance;
            t += weight * time;
            dd += weight * distance * distance;
            dt += weight * distance * time;
            tt += weight * time * time;
        }
        let (dd, dt, tt) = (dd - d * d / w, dt - d * t / w, tt - t * t / w);
        let slowness = dt / dd;
        let rises = dd > 0.0 && slowness > 0.0;
        Self {
            at_apex_s: from + (t - slowness * d) / w,
            slowness_s_per_mm: slowness,
            misfit: if rises { tt - slowness * dt } else { f64::INFINITY },
        }
    }

    fn at(&self, position_mm: [f64; 3], apex: [f64; 3]) -> f64 {
        self.at_apex_s + self.slowness_s_per_mm * apart_squared(position_mm, apex).sqrt()
    }
}

/// At most so many of them, evenly spread.
fn spread(voxels: &[usize], most: usize) -> impl Iterator<Item = usize> {
    voxels.iter().copied().step_by(voxels.len().div_ceil(most).max(1))
}

pub(super) fn apart_squared(a: [f64; 3], b: [f64; 3]) -> f64 {
    (0..3).map(|axis| (a[axis] - b[axis]).powi(2)).sum()
}

#[cfg(test)]
mod tests {
    use ndarray::Array3;

    use super::*;
    use crate::Geometry;
    use crate::phantom::Random;
    use crate::series::{Mask, Series};
    use crate::time::TimeAxis;

    const SIZE_MM: [f64; 3] = [1.0, 0.9, 1.3];

    fn apart(a: [f64; 3], b: [f64; 3]) -> f64 {
        apart_squared(a, b).sqrt()
    }

    /// A ball of 8 mm around (10, 10, 10) mm.
    fn ball(shape: [usize; 3]) -> Lesion {
        let [x, y, z] = shape;
        let times = TimeAxis::uniform(1.0, 2).expect("even times");
        let series = Series::from_voxels(vec![0.0f32; x * y * z * 2], [x, y, z, 2], times)
            .expect("fits")
            .with_geometry(Geometry::from_voxel_size_mm(SIZE_MM));
        let inside = |(x, y, z): (usize, usize, usize)| {
            let at = [x, y, z].map(|v| v as f64);
            let z = if shape[2] == 1 { 10.0 } else { at[2] * SIZE_MM[2] };
            apart([at[0] * SIZE_MM[0], at[1] * SIZE_MM[1], z], [10.0; 3]) <= 8.0
        };
        Lesion::new(&Mask::from_labels(Array3::from_shape_fn((x, y, z), |v| u32::from(inside(v))).view()), &series)
    }

    #[test]
    fn a_front_is_followed_back_to_the_surface_through_voxels_without_a_time() {
        let lesion = ball([21, 23, 16]);
        let weights: Vec<f64> = lesion.rim.iter().map(|rim| if *rim { 0.0 } else { 1.0 }).collect();
        let mut random = Random::new(4, 0);
        let noise: Vec<f64> = (0..lesion.count()).map(|_| random.normal()).collect();
        for target in [[10.0, 10.0, 2.0], [2.5, 10.0, 10.0], [10.0, 10.0, 10.0], [7.0, 9.0, 6.0]] {
            let corner: [f64; 3] = std::array::from_fn(|a| lesion.corner[a] as f64 * SIZE_MM[a]);
            let truth = lesion.position_mm(lesion.nearest(std::array::from_fn(|a| target[a] - corner[a])));
            // Slower and slower.
            let arrival = |n: usize| {
                let d = apart(lesion.position_mm(n), truth);
                50.0 + 2.0 * d + 0.1 * d * d + noise[n]
            };
            let mut order: Vec<usize> = (0..lesion.count()).filter(|n| weights[*n] > 0.0).collect();
            order.sort_by(|a, b| arrival(*a).total_cmp(&arrival(*b)));
            let early = &order[..order.len() / 20];
            let centroid = std::array::from_fn(|a| {
                early.iter().map(|n| lesion.position_mm(*n)[a]).sum::<f64>() / early.len() as f64
            });
            let found = apices(&lesion, &weights, arrival, &[centroid])[0];
            assert!(apart(found, truth) < 0.9, "{target:?}: {found:?} {truth:?} {centroid:?}");
        }
    }

    #[test]
    fn exact_cones_give_their_apices_two_at_once_and_in_one_slice() {
        let lesion = ball([21, 23, 16]);
        let weights = vec![1.0; lesion.count()];
        let middle = lesion.position_mm(lesion.nearest([8.0; 3]));
        let two = [-4.0, 4.0].map(|x| lesion.position_mm(lesion.nearest([middle[0] + x, middle[1], middle[2]])));
        let arrival = |n: usize| {
            let position = lesion.position_mm(n);
            10.0 + 3.0 * apart(position, two[0]).min(apart(position, two[1]))
        };
        let near = two.map(|p| [p[0] + 0.4, p[1] - 0.7, p[2] + 0.8]);
        for (found, truth) in apices(&lesion, &weights, arrival, &near).into_iter().zip(two) {
            assert!(apart(found, truth) < 0.3, "{found:?} {truth:?}");
        }
        let slice = ball([21, 23, 1]);
        let truth = slice.position_mm(slice.nearest([3.0, 6.0, 0.0]));
        let arrival = |n: usize| 5.0 * apart(slice.position_mm(n), truth);
        let found = apices(&slice, &vec![1.0; slice.count()], arrival, &[[4.0, 7.0, 0.0]])[0];
        assert!(apart(found, truth) < 0.3 && found[2] == 0.0, "{found:?} {truth:?}");
    }

    #[test]
    fn without_a_front_the_centroid_stays() {
        let lesion = ball([21, 23, 16]);
        let weights = vec![1.0; lesion.count()];
        let centroid = [8.0, 8.0, 8.0];
        assert_eq!(apices(&lesion, &weights, |_| 30.0, &[centroid]), [centroid]);
    }
}
