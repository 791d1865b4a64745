//! Where voxels lie in the world, kept so that maps overlay the series they come from.

use crate::error::{Error, Result};

/// How a NIfTI header says where voxels lie, field by field, so that it can be written back unchanged.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Geometry {
    /// Voxel size along x, y, z, as in `pixdim[1..4]`, in the header's length unit.
    pub voxel_size: [f64; 3],
    /// `pixdim[0]`: the sign of the third axis in the quaternion transform.
    pub qfac: f64,
    /// `qform_code`; 0 means that the quaternion transform isn't given.
    pub qform_code: i16,
    /// `quatern_b`, `quatern_c`, `quatern_d`.
    pub quaternion: [f64; 3],
    /// `qoffset_x`, `qoffset_y`, `qoffset_z`.
    pub offset: [f64; 3],
    /// `sform_code`; 0 means that the affine rows aren't given.
    pub sform_code: i16,
    /// `srow_x`, `srow_y`, `srow_z`.
    pub srow: [[f64; 4]; 3],
    /// The length unit's code in `xyzt_units` (0 unknown, 1 m, 2 mm, 3 µm).
    pub length_unit: u8,
}

impl Geometry {
    /// Voxels of a size in mm, the first one at the origin, axes along the world's.
    pub fn from_voxel_size_mm(voxel_size: [f64; 3]) -> Self {
        let [x, y, z] = voxel_size;
        Self {
            voxel_size,
            qfac: 1.0,
            qform_code: 0,
            quaternion: [0.0; 3],
            offset: [0.0; 3],
            sform_code: 1,
            srow: [[x, 0.0, 0.0, 0.0], [0.0, y, 0.0, 0.0], [0.0, 0.0, z, 0.0]],
            length_unit: 2,
        }
    }

    /// Voxel to world, three rows of four, by NIfTI's order: the affine rows if given, else the quaternion, else the
    /// voxel size alone.
    pub fn affine(&self) -> [[f64; 4]; 3] {
        let [dx, dy, dz] = self.voxel_size;
        if self.sform_code > 0 {
            return self.srow;
        }
        if self.qform_code > 0 {
            let [b, c, d] = self.quaternion;
            let squared = 1.0 - (b * b + c * c + d * d);
            // Rounded quaternions can exceed unit length a little: then the rotation is by 180 degrees.
            let (a, b, c, d) = if squared < 1e-7 {
                let norm = (b * b + c * c + d * d).sqrt();
                (0.0, b / norm, c / norm, d / norm)
            } else {
                (squared.sqrt(), b, c, d)
            };
            let rotation = [
                [a * a + b * b - c * c - d * d, 2.0 * (b * c - a * d), 2.0 * (b * d + a * c)],
                [2.0 * (b * c + a * d), a * a + c * c - b * b - d * d, 2.0 * (c * d - a * b)],
                [2.0 * (b * d - a * c), 2.0 * (c * d + a * b), a * a + d * d - b * b - c * c],
            ];
            let dz = if self.qfac < 0.0 { -dz } else { dz };
            let mut affine = [[0.0; 4]; 3];
            for row in 0..3 {
                affine[row] = [rotation[row][0] * dx, rotation[row][1] * dy, rotation[row][2] * dz, self.offset[row]];
            }
            return affine;
        }
        [[dx, 0.0, 0.0, 0.0], [0.0, dy, 0.0, 0.0], [0.0, 0.0, dz, 0.0]]
    }

    /// Voxel size in mm: the lengths of the affine's columns, in mm whatever the header's unit.
    pub fn voxel_size_mm(&self) -> [f64; 3] {
        let factor = match self.length_unit {
            1 => 1000.0,
            3 => 0.001,
            _ => 1.0,
        };
        self.voxel_size.map(|size| size.abs() * factor)
    }

    /// Volume of a voxel in mm³.
    pub fn voxel_volume_mm3(&self) -> f64 {
        self.voxel_size_mm().iter().product()
    }

    /// Checks that another image's voxels lie where these do, to a thousandth of a voxel.
    ///
    /// # Errors
    /// [`Error::Mismatch`] with both affines where they differ.
    pub fn check_matches(&self, other: &Geometry, what: &str, series: &str) -> Result<()> {
        let (ours, theirs) = (self.affine(), other.affine());
        let smallest = self.voxel_size.iter().fold(f64::INFINITY, |m, s| m.min(s.abs())).max(1e-6);
        for row in 0..3 {
            for column in 0..4 {
                let difference = (ours[row][column] - theirs[row][column]).abs();
                if difference.is_nan() || difference > 1e-3 * smallest {
                    return Err(Error::mismatch(
                        what,
                        series,
                        format!(
                            "affine row {row}, column {column} is {} where the series has {}; resample the one onto the other's grid",
                            theirs[row][column], ours[row][column]
                        ),
                    ));
                }
            }
        }
        Ok(())
    }
}

impl Default for Geometry {
    fn default() -> Self {
        Self::from_voxel_size_mm([1.0; 3])
    }
}
