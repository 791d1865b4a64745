//! The lesion in hand: its voxels in a box around it, and their curves as a small series of their own.

use std::ops::Range;

use rayon::prelude::*;

use crate::error::Result;
use crate::series::{Mask, Series};
use crate::voxels::{SampleType, Voxels};

use super::distance::{Grid, depth, geodesic, neighbour_steps, on_surface};

/// Where a lesion lies, and how deep each voxel is.
#[derive(Debug)]
pub(super) struct Lesion {
    /// The box around the lesion.
    pub(super) grid: Grid,
    /// The box's first voxel in the series.
    pub(super) corner: [usize; 3],
    /// The lesion's voxels, as places in the box, in increasing order.
    pub(super) voxels: Vec<usize>,
    /// For every place in the box: the number of the lesion's voxel there.
    pub(super) number: Vec<Option<u32>>,
    /// Per voxel: distance to the nearest voxel outside, in mm.
    pub(super) depth_mm: Vec<f64>,
    /// Per voxel: whether a face touches the outside.
    pub(super) rim: Vec<bool>,
}

impl Lesion {
    /// Finds the voxels of a mask that lies on the series' grid and isn't empty.
    pub(super) fn new(mask: &Mask, series: &Series) -> Self {
        let [nx, ny, nz] = series.spatial_shape();
        let labels = mask.flat();
        let (mut low, mut high) = ([nx, ny, nz], [0; 3]);
        for (i, _) in labels.iter().enumerate().filter(|(_, label)| **label != 0) {
            let voxel = [i % nx, i / nx % ny, i / (nx * ny)];
            for axis in 0..3 {
                low[axis] = low[axis].min(voxel[axis]);
                high[axis] = high[axis].max(voxel[axis]);
            }
        }
        let shape: [usize; 3] = std::array::from_fn(|axis| high[axis] + 1 - low[axis]);
        let grid = Grid { shape, size_mm: series.geometry().voxel_size_mm() };
        let in_series = |i: usize| {
            let [x, y, z] = grid.voxel(i);
            x + low[0] + nx * (y + low[1] + ny * (z + low[2]))
        };
        let voxels: Vec<usize> = (0..grid.count()).filter(|i| labels[in_series(*i)] != 0).collect();
        let mut number = vec![None; grid.count()];
        for (n, i) in voxels.iter().enumerate() {
            number[*i] = Some(n as u32);
        }
        let inside = |i: usize| number[i].is_some();
        let depth = depth(grid, inside);
        let depth_mm = voxels.iter().map(|i| depth[*i]).collect();
        let rim = voxels.iter().map(|i| on_surface(grid, inside, *i)).collect();
        Self { grid, corner: low, voxels, number, depth_mm, rim }
    }

    /// The voxels that steps over voxels that belong lead to from one of them, without those seen before.
    pub(super) fn connected(&self, start: usize, seen: &mut [bool], belongs: impl Fn(usize) -> bool) -> Vec<usize> {
        seen[start] = true;
        let mut voxels = vec![start];
        let mut at = 0;
        while at < voxels.len() {
            for step in neighbour_steps() {
                let other = self.grid.neighbour(self.voxels[voxels[at]], step).and_then(|i| self.number[i]);
                if let Some(other) = other.map(|n| n as usize)
                    && belongs(other)
                    && !std::mem::replace(&mut seen[other], true)
                {
                    voxels.push(other);
                }
            }
            at += 1;
        }
        voxels
    }

    /// Number of voxels.
    pub(super) fn count(&self) -> usize {
        self.voxels.len()
    }

    /// The place of a voxel in the series' memory.
    pub(super) fn in_series(&self, voxel: usize, series: &Series) -> usize {
        let [nx, ny, _] = series.spatial_shape();
        let [x, y, z] = self.grid.voxel(self.voxels[voxel]);
        x + self.corner[0] + nx * (y + self.corner[1] + ny * (z + self.corner[2]))
    }

    /// A voxel's centre in mm, along the grid's axes from the box's first voxel.
    pub(super) fn position_mm(&self, voxel: usize) -> [f64; 3] {
        let place = self.grid.voxel(self.voxels[voxel]);
        std::array::from_fn(|axis| place[axis] as f64 * self.grid.size_mm[axis])
    }

    /// Lengths of the paths inside the lesion from these of its voxels, in mm, straight as far as `straight_mm`.
    pub(super) fn paths_mm(&self, sources: &[usize], straight_mm: f64) -> Vec<f64> {
        let sources: Vec<(usize, f64)> = sources.iter().map(|n| (self.voxels[*n], 0.0)).collect();
        let distance = geodesic(self.grid, |i| self.number[i].is_some(), &sources, straight_mm);
        self.voxels.iter().map(|i| distance[*i]).collect()
    }

    /// The voxel nearest to a point, in mm from the box's first voxel.
    pub(super) fn nearest(&self, point_mm: [f64; 3]) -> usize {
        let squared = |n: usize| -> f64 {
            let position = self.position_mm(n);
            (0..3).map(|axis| (position[axis] - point_mm[axis]).powi(2)).sum()
        };
        (0..self.count()).fold(0, |best, n| if squared(n) < squared(best) { n } else { best })
    }

    /// The largest depth.
    pub(super) fn deepest_mm(&self) -> f64 {
        self.depth_mm.iter().copied().fold(0.0, f64::max)
    }

    /// Volume in mm³.
    pub(super) fn volume_mm3(&self) -> f64 {
        self.count() as f64 * self.grid.voxel_volume_mm3()
    }

    /// Radius of a ball of the lesion's volume, in mm.
    pub(super) fn equivalent_radius_mm(&self) -> f64 {
        (self.volume_mm3() * 0.75 / std::f64::consts::PI).cbrt()
    }

    /// The lesion's curves alone, `[voxel, 1, 1, t]`, with the series' scaling and times.
    pub(super) fn curves(&self, series: &Series) -> Result<Series> {
        let (count, frames) = (self.count(), series.frames());
        // In increasing order, as the lesion's voxels are.
        let places: Vec<usize> = (0..count).map(|n| self.in_series(n, series)).collect();
        let within = |range: &Range<usize>| {
            places.partition_point(|i| *i < range.start)..places.partition_point(|i| *i < range.end)
        };
        let mut samples = vec![0.0f64; count * frames];
        series.for_each_window(
            0..frames,
            |range| !within(&range).is_empty(),
            |window| {
                let here = within(&window.range);
                samples.par_chunks_mut(count).enumerate().for_each(|(t, row)| {
                    for (to, place) in row[here.clone()].iter_mut().zip(&places[here.clone()]) {
                        *to = window.get_f64(*place, t);
                    }
                });
                Ok(())
            },
        )?;
        // What 32-bit floats hold exactly stays small.
        let narrow = matches!(
            series.sample_type(),
            SampleType::U8 | SampleType::I8 | SampleType::U16 | SampleType::I16 | SampleType::F32
        );
        let samples: Voxels = match narrow {
            true => samples.into_par_iter().map(|v| v as f32).collect::<Vec<_>>().into(),
            false => samples.into(),
        };
        Series::from_voxels(samples, [places.len(), 1, 1, frames], series.times()?.clone())?
            .with_scaling(series.scaling())
    }
}
