//! Lines of equal value in a slice of a map, and levels worth drawing.

use ndarray::{Array3, ArrayView3, Slice};

use super::ticks::Ticks;

/// Pieces of the line where the values equal `level`: linear along the edges of the squares between the middles of four
/// neighbouring voxels (marching squares; of a saddle the middle decides). Squares with a missing value have no line.
pub(super) fn contour(count: [usize; 2], level: f64, value: impl Fn(usize, usize) -> f64) -> Vec<[(f64, f64); 2]> {
    let mut pieces = Vec::new();
    for v in 1..count[1] {
        for u in 1..count[0] {
            // Corners in a round.
            let corners = [(u - 1, v - 1), (u, v - 1), (u, v), (u - 1, v)];
            let values = corners.map(|(u, v)| value(u, v) - level);
            if values.iter().any(|d| !d.is_finite()) {
                continue;
            }
            let above = values.map(|d| d >= 0.0);
            let crossing = |i: usize| {
                let j = (i + 1) % 4;
                (above[i] != above[j]).then(|| {
                    let share = values[i] / (values[i] - values[j]);
                    let mix = |a: usize, b: usize| a as f64 + share * (b as f64 - a as f64);
                    (mix(corners[i].0, corners[j].0), mix(corners[i].1, corners[j].1))
                })
            };
            let points: Vec<(f64, f64)> = (0..4).filter_map(crossing).collect();
            match points[..] {
                [a, b] => pieces.push([a, b]),
                [a, b, c, d] => {
                    let middle_above = values.iter().sum::<f64>() >= 0.0;
                    // Corner 0 is cut off from the middle unless both lie on the same side.
                    if above[0] == middle_above {
                        pieces.extend([[a, b], [c, d]]);
                    } else {
                        pieces.extend([[a, d], [b, c]]);
                    }
                }
                _ => {}
            }
        }
    }
    pieces
}

/// A map smoothed by a Gaussian of `sigma` voxels along each axis, from values alone: missing voxels stay missing and
/// don't weigh on their neighbours.
pub(super) fn smoothed(values: ArrayView3<'_, f32>, sigma: f64) -> Array3<f32> {
    let mut out = Array3::from_elem(values.dim(), f32::NAN);
    // Only the box that has values: a lesion is a small part of an image.
    let (mut low, mut high) = ([usize::MAX; 3], [0; 3]);
    for ((x, y, z), value) in values.indexed_iter().filter(|(_, value)| value.is_finite()) {
        out[[x, y, z]] = *value;
        for (axis, at) in [x, y, z].into_iter().enumerate() {
            (low[axis], high[axis]) = (low[axis].min(at), high[axis].max(at + 1));
        }
    }
    if sigma <= 0.0 || high == [0; 3] {
        return out;
    }
    let mut inside = out.slice_each_axis_mut(|at| {
        let axis = at.axis.index();
        Slice::from(low[axis]..high[axis])
    });
    let mut weights = inside.mapv(|v| f32::from(v.is_finite()));
    let mut sums = inside.mapv(|v| if v.is_finite() { v } else { 0.0 });
    let reach = (3.0 * sigma).ceil() as usize;
    let kernel: Vec<f32> = (0..=reach).map(|d| (-0.5 * (d as f64 / sigma).powi(2)).exp() as f32).collect();
    for axis in 0..3 {
        sums = along(&sums, axis, &kernel);
        weights = along(&weights, axis, &kernel);
    }
    ndarray::Zip::from(&mut inside).and(&sums).and(&weights).for_each(|value, sum, weight| {
        if value.is_finite() {
            *value = sum / weight;
        }
    });
    out
}

fn along(values: &Array3<f32>, axis: usize, kernel: &[f32]) -> Array3<f32> {
    let mut out = Array3::zeros(values.dim());
    let lanes = values.lanes(ndarray::Axis(axis));
    for (mut to, from) in out.lanes_mut(ndarray::Axis(axis)).into_iter().zip(lanes) {
        let n = from.len();
        for i in 0..n {
            let (low, high) = (i.saturating_sub(kernel.len() - 1), (i + kernel.len()).min(n));
            to[i] = (low..high).map(|j| kernel[i.abs_diff(j)] * from[j]).sum();
        }
    }
    out
}

/// Round levels inside the range of most values, four or so.
pub(super) fn levels(low: f64, high: f64) -> Vec<f64> {
    Ticks::seconds(low, high, 5).values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circle_is_found() {
        let distance = |u: usize, v: usize| (u as f64 - 10.0).hypot(v as f64 - 12.0);
        let pieces = contour([24, 26], 6.5, distance);
        let length: f64 = pieces.iter().map(|[a, b]| (a.0 - b.0).hypot(a.1 - b.1)).sum();
        for (x, y) in pieces.iter().flatten() {
            assert!(((x - 10.0).hypot(y - 12.0) - 6.5).abs() < 0.06, "{x} {y}");
        }
        assert!((length / (13.0 * std::f64::consts::PI) - 1.0).abs() < 0.02, "{length}");
        // Every end is the end of another piece: the line is closed.
        let mut ends: Vec<(i64, i64)> =
            pieces.iter().flatten().map(|(x, y)| ((x * 1e6).round() as i64, (y * 1e6).round() as i64)).collect();
        ends.sort_unstable();
        assert!(ends.chunks(2).all(|pair| pair[0] == pair[1]));
    }

    #[test]
    fn missing_values_break_the_line() {
        let value = |u: usize, v: usize| if v == 3 { f64::NAN } else { u as f64 };
        let pieces = contour([6, 8], 2.25, value);
        assert_eq!(pieces.len(), 5);
        assert!(pieces.iter().flatten().all(|(x, y)| (x - 2.25).abs() < 1e-12 && !(2.0 < *y && *y < 4.0)));
    }

    #[test]
    fn saddles_keep_to_the_middle() {
        // High at two opposite corners, the middle high: the low corners are cut off.
        let values = [[3.0, 0.0], [0.0, 3.0]];
        for level in [1.0, 2.0] {
            let pieces = contour([2, 2], level, |u, v| values[u][v]);
            assert_eq!(pieces.len(), 2);
            let middle_above = 1.5 >= level;
            for [a, b] in pieces {
                let corner = if (a.0 + b.0) * 0.5 < 0.5 { 0 } else { 1 };
                let other = if (a.1 + b.1) * 0.5 < 0.5 { 0 } else { 1 };
                assert_eq!(values[corner][other] < level, middle_above, "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn smoothing_keeps_constants_and_holes() {
        let mut values = Array3::from_elem((7, 6, 5), 4.0f32);
        values[[3, 3, 2]] = f32::NAN;
        let smooth = smoothed(values.view(), 1.0);
        assert!(smooth[[3, 3, 2]].is_nan());
        assert!(smooth.iter().filter(|v| v.is_finite()).all(|v| (v - 4.0).abs() < 1e-5));
        let ramp = Array3::from_shape_fn((15, 3, 3), |(x, _, _)| x as f32);
        assert!((smoothed(ramp.view(), 1.0)[[7, 1, 1]] - 7.0).abs() < 1e-4);
    }
}
