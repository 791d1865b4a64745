//! What pictures of slices share: which voxels a pixel shows, the border of a mask, display windows, directions.

use std::ops::Range;

use ndarray::ArrayView3;

use crate::geometry::Geometry;

/// The letters at the low and the high end of a voxel axis, if it runs along an axis of the patient within 30 degrees.
pub(super) fn direction(geometry: &Geometry, axis: usize) -> Option<(char, char)> {
    if geometry.sform_code <= 0 && geometry.qform_code <= 0 {
        return None;
    }
    let affine = geometry.affine();
    let column = [affine[0][axis], affine[1][axis], affine[2][axis]];
    let length = column.iter().map(|c| c * c).sum::<f64>().sqrt();
    let world = (0..3).find(|row| column[*row].abs() > 0.866 * length)?;
    let (minus, plus) = [('L', 'R'), ('P', 'A'), ('I', 'S')][world];
    Some(if column[world] < 0.0 { (plus, minus) } else { (minus, plus) })
}

/// Linear interpolation between the nearest ranks; reorders the values. 0 if there are none.
pub(super) fn percentile(values: &mut [f32], percent: f64) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let rank = percent / 100.0 * (values.len() - 1) as f64;
    let low = (rank.floor() as usize).min(values.len() - 1);
    let (_, at, above) = values.select_nth_unstable_by(low, f32::total_cmp);
    let at = f64::from(*at);
    let next = above.iter().copied().min_by(f32::total_cmp).map_or(at, f64::from);
    at + (rank - low as f64) * (next - at)
}

/// The darkest and the lightest value of a grey image.
pub(super) fn underlay_window(values: ArrayView3<'_, f32>) -> (f32, f32) {
    grey_window(&mut values.iter().copied().filter(|v| v.is_finite()).collect::<Vec<f32>>())
}

/// The same for finite values, which are reordered.
pub(super) fn grey_window(finite: &mut [f32]) -> (f32, f32) {
    let (low, high) = (percentile(finite, 1.0) as f32, percentile(finite, 99.5) as f32);
    if high > low { (low, high) } else { (low, low + low.abs().max(1.0)) }
}

/// Which voxels a pixel shows: the nearest one, or several where the image is reduced.
#[derive(Debug, Clone)]
pub(super) struct Sampling {
    voxels: Range<usize>,
    pixels: usize,
    /// Samples per pixel.
    samples: usize,
    flipped: bool,
}

impl Sampling {
    pub(super) fn new(voxels: Range<usize>, pixels: u32, flipped: bool) -> Self {
        let pixels = pixels as usize;
        Self { samples: voxels.len().div_ceil(pixels).min(8), voxels, pixels, flipped }
    }

    pub(super) fn of(&self, pixel: u32) -> impl Iterator<Item = usize> + '_ {
        let count = self.voxels.len();
        (0..self.samples).map(move |s| {
            let position = (pixel as usize * self.samples + s) as f64 + 0.5;
            let voxel = (position * count as f64 / (self.samples * self.pixels) as f64) as usize;
            let voxel = voxel.min(count - 1);
            self.voxels.start + if self.flipped { count - 1 - voxel } else { voxel }
        })
    }
}

/// The edges between voxels inside and outside of something, in one slice of `count` voxels that is drawn into a tile. An
/// axis that isn't flipped runs to the right or downwards.
pub(super) fn border(
    count: [usize; 2],
    flipped: [bool; 2],
    tile: (u32, u32),
    origin: (f32, f32),
    is_inside: impl Fn(usize, usize) -> bool,
) -> Vec<[(f32, f32); 2]> {
    let [nx, ny] = count;
    let inside = |x: Option<usize>, y: Option<usize>| match (x, y) {
        (Some(x), Some(y)) if x < nx && y < ny => is_inside(x, y),
        _ => false,
    };
    // The corner between voxels x - 1 and x, y - 1 and y.
    let place = |at: usize, n: usize, flipped: bool, pixels: u32| {
        (if flipped { n - at } else { at }) as f32 * pixels as f32 / n as f32
    };
    let corner =
        |x: usize, y: usize| (origin.0 + place(x, nx, flipped[0], tile.0), origin.1 + place(y, ny, flipped[1], tile.1));
    let mut pieces = Vec::new();
    for y in 0..=ny {
        for x in 0..=nx {
            if y < ny && inside(x.checked_sub(1), Some(y)) != inside(Some(x), Some(y)) {
                pieces.push([corner(x, y), corner(x, y + 1)]);
            }
            if x < nx && inside(Some(x), y.checked_sub(1)) != inside(Some(x), Some(y)) {
                pieces.push([corner(x, y), corner(x + 1, y)]);
            }
        }
    }
    pieces
}
