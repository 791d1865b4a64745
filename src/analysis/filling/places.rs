//! Places and paths: from the base, from the origin, to the world.

use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::series::{Mask, Series};

use super::distance::neighbour_steps;
use super::lesion::Lesion;
use super::report::Origin;

/// Paths from a base are straight so far around each of its voxels, in voxels. From the origin, which is one, they are as far
/// as it can be seen.
const STRAIGHT_VOXELS: f64 = 6.0;

/// The base as the lesion sees it.
pub(super) struct Base {
    /// Which voxels touch it or lie in it.
    pub(super) touches: Vec<bool>,
    /// Lengths of the paths from it, per voxel of the lesion.
    pub(super) distance_mm: Vec<f64>,
}

pub(super) fn base_distance(base: &Mask, series: &Series, lesion: &Lesion) -> Result<Base> {
    let [nx, ny, nz] = series.spatial_shape();
    let labels = base.labels();
    let touches: Vec<bool> = (0..lesion.count())
        .map(|n| {
            let place = lesion.grid.voxel(lesion.voxels[n]);
            let voxel: [usize; 3] = std::array::from_fn(|a| place[a] + lesion.corner[a]);
            std::iter::once([0; 3]).chain(neighbour_steps()).any(|step| {
                let at = |a: usize| voxel[a].checked_add_signed(step[a]).filter(|v| *v < [nx, ny, nz][a]);
                match (at(0), at(1), at(2)) {
                    (Some(x), Some(y), Some(z)) => labels[[x, y, z]] != 0,
                    _ => false,
                }
            })
        })
        .collect();
    if !touches.contains(&true) {
        return Err(Error::mismatch(
            base.source().map_or_else(|| "the base".to_string(), |path| path.display().to_string()),
            "the lesion",
            "no voxel of the lesion touches it; extend the base until it does",
        ));
    }
    let sources: Vec<usize> = (0..lesion.count()).filter(|n| touches[*n]).collect();
    let straight_mm = STRAIGHT_VOXELS * lesion.grid.voxel_volume_mm3().cbrt();
    Ok(Base { distance_mm: lesion.paths_mm(&sources, straight_mm), touches })
}

pub(super) fn path_from_origin(lesion: &Lesion, origin: &Origin, affine: &Affine) -> Vec<f64> {
    lesion.paths_mm(&[lesion.nearest(affine.in_box(origin.voxel))], f64::INFINITY)
}

/// From the box's millimetres to voxels of the series and to the world.
pub(super) struct Affine {
    rows: [[f64; 4]; 3],
    corner: [usize; 3],
    size_mm: [f64; 3],
    /// World units in mm.
    unit_mm: f64,
}

impl Affine {
    pub(super) fn new(geometry: &Geometry, lesion: &Lesion) -> Self {
        let unit_mm = match geometry.length_unit {
            1 => 1000.0,
            3 => 0.001,
            _ => 1.0,
        };
        Self { rows: geometry.affine(), corner: lesion.corner, size_mm: lesion.grid.size_mm, unit_mm }
    }

    pub(super) fn of_box(&self, point_mm: [f64; 3]) -> ([f64; 3], [f64; 3]) {
        let voxel: [f64; 3] = std::array::from_fn(|a| point_mm[a] / self.size_mm[a] + self.corner[a] as f64);
        let world =
            self.rows.map(|row| (row[0] * voxel[0] + row[1] * voxel[1] + row[2] * voxel[2] + row[3]) * self.unit_mm);
        (voxel, world)
    }

    fn in_box(&self, voxel: [f64; 3]) -> [f64; 3] {
        std::array::from_fn(|a| (voxel[a] - self.corner[a] as f64) * self.size_mm[a])
    }
}
