//! A map's smoothed values and gradients inside the lesion, from a polynomial around every voxel.
//!
//! A plain weighted mean would flatten a front: at the lesion's edge it sees one side only, and where a front starts from a
//! point everything around is later. A polynomial of second degree, fitted with Gaussian weights, keeps slope and curvature
//! up to the edge (local regression: Cleveland and Devlin, Journal of the American Statistical Association 83, 1988).

use rayon::prelude::*;

use super::lesion::Lesion;

/// Terms of the polynomial: 1, x, y, z, x², y², z², xy, xz, yz.
const TERMS: usize = 10;
const PRODUCTS: usize = TERMS * (TERMS + 1) / 2;
/// The Gaussian is cut off at so many standard deviations.
const REACH: f64 = 2.0;
/// Added to the diagonal, relative to the sum of weights: where neighbours don't tell a curvature (a thin lesion) it is 0, and
/// where they don't tell a slope (a single slice), that is.
const RIDGE: [f64; TERMS] = [0.0, 1e-6, 1e-6, 1e-6, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01];
/// Least spread of the neighbours along an axis, in squared standard deviations of the Gaussian, for a slope to be told.
const LEAST_SPREAD: f64 = 1e-3;

/// A smoothed map: per voxel of the lesion.
#[derive(Debug)]
pub(super) struct LocalFit {
    /// The value; NaN where the voxel has none itself.
    pub(super) values: Vec<f64>,
    /// The gradient per mm, along the grid's axes; `None` where the voxel has no value or the neighbours tell none. 0 along
    /// an axis of one voxel.
    pub(super) gradients: Vec<Option<[f64; 3]>>,
}

/// A neighbour: where it is, and its terms and their products, each times its weight.
struct Neighbour {
    step: [isize; 3],
    terms: [f64; TERMS],
    products: [f64; PRODUCTS],
}

/// Fits the polynomials; a voxel of weight 0 has no value. `width_mm` is the standard deviation of the Gaussian.
pub(super) fn local_fit(lesion: &Lesion, weights: &[f64], values: &[f64], width_mm: f64) -> LocalFit {
    let neighbours = neighbours(lesion, width_mm);
    let fits: Vec<(f64, Option<[f64; 3]>)> = (0..lesion.count())
        .into_par_iter()
        .map(|n| if weights[n] > 0.0 { fit_one(lesion, &neighbours, weights, values, n) } else { (f64::NAN, None) })
        .collect();
    let per_mm = |gradient: [f64; 3]| gradient.map(|g| g / width_mm);
    LocalFit {
        values: fits.iter().map(|fit| fit.0).collect(),
        gradients: fits.iter().map(|fit| fit.1.map(per_mm)).collect(),
    }
}

fn neighbours(lesion: &Lesion, width_mm: f64) -> Vec<Neighbour> {
    let size = lesion.grid.size_mm;
    // At least the next voxel along each axis, however thick the slices.
    let reach: [isize; 3] = std::array::from_fn(|a| ((REACH * width_mm / size[a]).floor() as isize).max(1));
    let mut neighbours = Vec::new();
    for z in -reach[2]..=reach[2] {
        for y in -reach[1]..=reach[1] {
            for x in -reach[0]..=reach[0] {
                let step = [x, y, z];
                let [u, v, w]: [f64; 3] = std::array::from_fn(|a| step[a] as f64 * size[a] / width_mm);
                let squared = u * u + v * v + w * w;
                let next = step.iter().all(|s| s.abs() <= 1);
                if squared > REACH * REACH && !next {
                    continue;
                }
                let weight = (-0.5 * squared).exp();
                let terms = [1.0, u, v, w, u * u, v * v, w * w, u * v, u * w, v * w];
                let mut products = [0.0; PRODUCTS];
                for i in 0..TERMS {
                    for j in 0..=i {
                        products[i * (i + 1) / 2 + j] = weight * terms[i] * terms[j];
                    }
                }
                neighbours.push(Neighbour { step, terms: terms.map(|t| weight * t), products });
            }
        }
    }
    neighbours
}

fn fit_one(
    lesion: &Lesion,
    neighbours: &[Neighbour],
    weights: &[f64],
    values: &[f64],
    voxel: usize,
) -> (f64, Option<[f64; 3]>) {
    let mut matrix = [0.0; PRODUCTS];
    let mut right = [0.0; TERMS];
    for neighbour in neighbours {
        let number = lesion.grid.neighbour(lesion.voxels[voxel], neighbour.step).and_then(|place| lesion.number[place]);
        let Some(other) = number.map(|n| n as usize).filter(|other| weights[*other] > 0.0) else { continue };
        let weight = weights[other];
        matrix.iter_mut().zip(&neighbour.products).for_each(|(m, p)| *m += weight * p);
        let value = weight * (values[other] - values[voxel]);
        right.iter_mut().zip(&neighbour.terms).for_each(|(r, t)| *r += value * t);
    }
    let diagonal = |i: usize| i * (i + 1) / 2 + i;
    let total = matrix[0];
    let told = (0..3).all(|a| lesion.grid.shape[a] == 1 || matrix[diagonal(a + 1)] > LEAST_SPREAD * total);
    for (i, ridge) in RIDGE.into_iter().enumerate() {
        matrix[diagonal(i)] += ridge * total;
    }
    match solve(matrix, right) {
        Some(c) => (values[voxel] + c[0], told.then_some([c[1], c[2], c[3]])),
        None => (values[voxel], None),
    }
}

/// Solves a symmetric system given by its lower triangle, by Cholesky's decomposition; `None` if it isn't positive definite.
fn solve(mut matrix: [f64; PRODUCTS], mut right: [f64; TERMS]) -> Option<[f64; TERMS]> {
    let at = |i: usize, j: usize| i * (i + 1) / 2 + j;
    for i in 0..TERMS {
        for j in 0..=i {
            let sum: f64 = (0..j).map(|k| matrix[at(i, k)] * matrix[at(j, k)]).sum();
            let rest = matrix[at(i, j)] - sum;
            if i > j {
                matrix[at(i, j)] = rest / matrix[at(j, j)];
            } else if rest > 0.0 {
                matrix[at(i, i)] = rest.sqrt();
            } else {
                return None;
            }
        }
    }
    for i in 0..TERMS {
        let sum: f64 = (0..i).map(|k| matrix[at(i, k)] * right[k]).sum();
        right[i] = (right[i] - sum) / matrix[at(i, i)];
    }
    for i in (0..TERMS).rev() {
        let sum: f64 = (i + 1..TERMS).map(|k| matrix[at(k, i)] * right[k]).sum();
        right[i] = (right[i] - sum) / matrix[at(i, i)];
    }
    right.iter().all(|x| x.is_finite()).then_some(right)
}

/// The cosine of the angle between two gradients; `None` if one has no length.
pub(super) fn cosine(a: [f64; 3], b: [f64; 3]) -> Option<f64> {
    let dot = |a: [f64; 3], b: [f64; 3]| a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    (lengths > 0.0).then(|| (dot(a, b) / lengths).clamp(-1.0, 1.0))
}

#[cfg(test)]
mod tests {
    use ndarray::Array3;

    use super::*;
    use crate::Geometry;
    use crate::series::{Mask, Series};
    use crate::time::TimeAxis;

    fn lesion(shape: [usize; 3], size_mm: [f64; 3], inside: impl Fn([usize; 3]) -> bool) -> Lesion {
        let [x, y, z] = shape;
        let times = TimeAxis::uniform(1.0, 2).expect("even times");
        let series = Series::from_voxels(vec![0.0f32; x * y * z * 2], [x, y, z, 2], times)
            .expect("fits")
            .with_geometry(Geometry::from_voxel_size_mm(size_mm));
        let labels = Array3::from_shape_fn((x, y, z), |(x, y, z)| u32::from(inside([x, y, z])));
        Lesion::new(&Mask::from_labels(labels.view()), &series)
    }

    fn of_position(lesion: &Lesion, value: impl Fn([f64; 3]) -> f64) -> Vec<f64> {
        (0..lesion.count()).map(|n| value(lesion.position_mm(n))).collect()
    }

    #[test]
    fn planes_have_their_gradient_up_to_the_edge() {
        // Blocks of even and uneven voxels, thick slices, two slices.
        for (shape, size) in
            [([9, 8, 7], [1.0; 3]), ([9, 8, 5], [1.0, 0.8, 2.5]), ([8, 8, 4], [0.5, 0.5, 5.0]), ([9, 9, 2], [1.0; 3])]
        {
            let lesion = lesion(shape, size, |_| true);
            let plane = of_position(&lesion, |[x, y, z]| 70.0 + 2.0 * x - 3.0 * y + 0.5 * z);
            let found = local_fit(&lesion, &vec![1.0; lesion.count()], &plane, 1.4);
            for (n, value) in plane.iter().enumerate() {
                let g = found.gradients[n].unwrap();
                for (found, exact) in g.into_iter().zip([2.0, -3.0, 0.5]) {
                    assert!((found - exact).abs() < 0.02, "{shape:?}: {g:?}");
                }
                assert!((found.values[n] - value).abs() < 0.02);
            }
        }
    }

    #[test]
    fn a_front_from_a_point_keeps_its_speed_up_to_the_rim() {
        // T = 9 r + 0.5 r² in a ball of 8 mm; nothing outside. Within the window's 3 mm of the point the tip is rounded off.
        let middle = [10.0, 10.0, 10.0];
        let radius = |p: [f64; 3]| (0..3).map(|a| (p[a] - middle[a]).powi(2)).sum::<f64>().sqrt();
        let lesion = lesion([21, 21, 21], [1.0; 3], |v| radius(v.map(|v| v as f64)) <= 8.0);
        let corner = lesion.corner.map(|c| c as f64);
        let r = |n: usize| {
            let p = lesion.position_mm(n);
            radius([p[0] + corner[0], p[1] + corner[1], p[2] + corner[2]])
        };
        let time: Vec<f64> = (0..lesion.count()).map(|n| 9.0 * r(n) + 0.5 * r(n) * r(n)).collect();
        let found = local_fit(&lesion, &vec![1.0; lesion.count()], &time, 1.5);
        for n in (0..lesion.count()).filter(|n| r(*n) >= 4.0) {
            let slope = found.gradients[n].unwrap().iter().map(|g| g * g).sum::<f64>().sqrt();
            assert!((slope / (9.0 + r(n)) - 1.0).abs() < 0.06, "{}: {slope}", r(n));
            assert!((found.values[n] - time[n]).abs() < 1.5, "{}: {} {}", r(n), found.values[n], time[n]);
        }
    }

    #[test]
    fn what_has_no_value_counts_for_nothing() {
        let lesion = lesion([9, 9, 5], [1.0; 3], |_| true);
        let mut plane = of_position(&lesion, |[x, ..]| 4.0 * x);
        let mut weights = vec![1.0; lesion.count()];
        (weights[100], plane[100]) = (0.0, f64::NAN);
        let found = local_fit(&lesion, &weights, &plane, 1.2);
        assert!(found.values[100].is_nan() && found.gradients[100].is_none());
        assert!((0..lesion.count()).filter(|n| *n != 100).all(|n| (found.values[n] - plane[n]).abs() < 0.02));
        // One slice: no claim about its axis. A line of voxels in a volume: none at all.
        let slice = self::lesion([9, 9, 1], [1.0, 1.0, 4.0], |_| true);
        let found = local_fit(&slice, &vec![1.0; 81], &of_position(&slice, |[x, y, _]| x - y), 1.5);
        let g = found.gradients[40].unwrap();
        assert!((g[0] - 1.0).abs() < 0.01 && (g[1] + 1.0).abs() < 0.01 && g[2] == 0.0, "{g:?}");
        let bent = self::lesion([9, 9, 1], [1.0; 3], |[x, y, _]| y == 4 || (x == 0 && y > 4));
        let found = local_fit(&bent, &vec![1.0; bent.count()], &of_position(&bent, |[x, ..]| x), 1.0);
        assert!(found.gradients[bent.nearest([8.0, 0.0, 0.0])].is_none());
    }

    #[test]
    fn noise_is_quietened() {
        let lesion = lesion([15, 15, 15], [1.0; 3], |_| true);
        let mut random = crate::phantom::Random::new(3, 0);
        let noise: Vec<f64> = (0..lesion.count()).map(|_| random.normal()).collect();
        let found = local_fit(&lesion, &vec![1.0; lesion.count()], &noise, 1.5);
        let middle: Vec<usize> = (0..lesion.count()).filter(|n| lesion.depth_mm[*n] > 4.0).collect();
        let squares = middle.iter().map(|n| found.values[*n].powi(2)).sum::<f64>() / middle.len() as f64;
        assert!(squares < 0.06, "{squares}");
    }
}
