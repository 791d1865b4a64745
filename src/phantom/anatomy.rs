//! The head of [`super::Phantom::brain_with_lesion`]: which tissue lies where.
//!
//! Lengths are in millimetres of a head of 150 × 186 × 170 mm that is then scaled to the field of view; x to the right,
//! y anterior, z up, the origin in the middle of the head. The slab lies a little above it, through the ventricles.

use super::Tissue;

/// Half axes of the head.
const HEAD: [f64; 3] = [75.0, 93.0, 85.0];
/// Depth of the skull's outer table, of its inner table, and of the brain's surface below the skin.
const SKULL: f64 = 6.0;
const INNER_TABLE: f64 = 12.0;
const BRAIN: f64 = 14.5;
/// The head's half axes fill this part of half the field of view.
const FILL: f64 = 0.88;
/// Height of the slab's middle.
const SLAB: f64 = 12.0;
/// Direction of the lesion's base in the axial plane, from the right towards anterior.
const LESION_ANGLE_DEG: f64 = 38.0;
/// The lesion's half axes: inward, and along the skull.
const LESION: [f64; 2] = [18.0, 20.0];
/// How far the lesion's middle lies inward of the inner table.
const LESION_DEPTH: f64 = 12.0;
/// How far the front reaches from the middle of the base, before its tongues.
const FRONT: f64 = 24.0;

type Point = [f64; 3];

/// What a voxel needs to know beyond its tissue.
pub(super) struct Place {
    /// Smooth variation of the signal, a few per cent around 1.
    pub(super) texture: f64,
    /// In the lesion: distance from the middle of its base relative to the farthest front in that direction.
    pub(super) lesion_distance: Option<f64>,
}

/// The head, placed in a field of view.
pub(super) struct Head {
    middle: Point,
    /// Voxel size in the head's millimetres.
    step: Point,
    base: Point,
    /// Unit vector outward at the base.
    outward: Point,
    vessel_radius: f64,
}

impl Head {
    pub(super) fn new(shape: [usize; 3], voxel_size_mm: Point) -> Self {
        let half = |axis: usize| 0.5 * FILL * shape[axis] as f64 * voxel_size_mm[axis] / HEAD[axis];
        let scale = half(0).min(half(1));
        let step = voxel_size_mm.map(|size| size / scale);
        let (sin, cos) = LESION_ANGLE_DEG.to_radians().sin_cos();
        // The point at the inner table in that direction, in the middle of the slab.
        let reach = 1.0 / ((cos / HEAD[0]).powi(2) + (sin / HEAD[1]).powi(2)).sqrt();
        let share = ((1.0 - INNER_TABLE / mean_axis()).powi(2) - (SLAB / HEAD[2]).powi(2)).sqrt();
        let base = [cos * reach * share, sin * reach * share, SLAB];
        let gradient: Point = std::array::from_fn(|axis| base[axis] / (HEAD[axis] * HEAD[axis]));
        let outward = gradient.map(|g| g / norm(gradient));
        Self {
            middle: shape.map(|n| 0.5 * (n as f64 - 1.0)),
            step,
            base,
            outward,
            vessel_radius: 2.0f64.max(0.75 * step[0].min(step[1])),
        }
    }

    /// The middle of the lesion's base, in voxels.
    pub(super) fn lesion_base(&self) -> Point {
        let p = [self.base[0], self.base[1], self.base[2] - SLAB];
        std::array::from_fn(|axis| self.middle[axis] + p[axis] / self.step[axis])
    }

    /// The tissue at a voxel's centre; `None` in air.
    pub(super) fn tissue(&self, voxel: [usize; 3]) -> Option<(Tissue, Place)> {
        let mut p: Point = std::array::from_fn(|axis| (voxel[axis] as f64 - self.middle[axis]) * self.step[axis]);
        p[2] += SLAB;
        let depth = depth(p);
        if depth < 0.0 {
            return None;
        }
        let texture = 1.0 + 0.025 * (p[0] / 17.0 + 1.0).sin() * (p[1] / 21.0 + p[2] / 13.0).cos() - 0.0003 * p[1];
        let at = |tissue, lesion_distance| Some((tissue, Place { texture, lesion_distance }));
        if depth < SKULL {
            return at(Tissue::Scalp, None);
        }
        if in_sagittal_sinus(p, depth) {
            return at(Tissue::SagittalSinus, None);
        }
        if depth < INNER_TABLE {
            return at(Tissue::Skull, None);
        }
        // Below 1 in the lesion, up to 1.12 in the cleft of fluid between it and the brain.
        let (mass, distance) = self.lesion(p);
        if mass < 1.0 {
            return if distance <= 1.0 {
                at(Tissue::LesionEnhancing, Some(distance))
            } else {
                at(Tissue::LesionNotEnhancing, None)
            };
        }
        if mass < 1.12 {
            return at(Tissue::Csf, None);
        }
        if self.in_artery(p) {
            return at(Tissue::Artery, None);
        }
        at(brain(p, depth), None)
    }

    /// Where a point lies in the lesion: below 1 inside; and its distance from the base relative to the front.
    fn lesion(&self, p: Point) -> (f64, f64) {
        let from_base: Point = std::array::from_fn(|axis| p[axis] - self.base[axis]);
        let inward = -dot(from_base, self.outward);
        let along: Point = std::array::from_fn(|axis| from_base[axis] + inward * self.outward[axis]);
        let around = along[2].atan2(along[1] * self.outward[0] - along[0] * self.outward[1]);
        let lobes = 1.0 + 0.05 * (3.0 * around + 0.07 * inward).sin();
        let mass = ((inward - LESION_DEPTH) / LESION[0]).hypot(norm(along) / LESION[1]) / lobes;
        // Tongues: the front reaches farther in some directions.
        let polar = norm(along).atan2(inward);
        let tongues = 1.0 + 0.2 * (5.0 * polar + 1.0).sin() * (2.0 * around).cos();
        (mass, norm(from_base) / (FRONT * tongues))
    }

    fn in_artery(&self, p: Point) -> bool {
        let side = p[0].abs();
        let wiggle = (p[2] / 9.0).sin();
        let near = |x: f64, y: f64, radius: f64| (side - x).hypot(p[1] - y) < radius;
        near(2.6, 40.0 + 2.0 * wiggle, self.vessel_radius)
            || near(40.0 + wiggle, 6.0 + 2.0 * wiggle, 1.2 * self.vessel_radius)
    }
}

fn dot(a: Point, b: Point) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

fn norm(a: Point) -> f64 {
    dot(a, a).sqrt()
}

fn mean_axis() -> f64 {
    (HEAD[0] + HEAD[1] + HEAD[2]) / 3.0
}

/// Millimetres below the skin, negative outside.
fn depth(p: Point) -> f64 {
    let r = norm(std::array::from_fn(|axis| p[axis] / HEAD[axis]));
    (1.0 - r) * mean_axis()
}

fn in_sagittal_sinus(p: Point, depth: f64) -> bool {
    // A wedge below the inner table in the midline, behind and above.
    p[1] < -20.0
        && (INNER_TABLE - 2.0..INNER_TABLE + 8.0).contains(&depth)
        && p[0].abs() < 0.55 * (INNER_TABLE + 9.0 - depth)
}

/// Fluid, grey and white matter inside the inner table.
fn brain(p: Point, depth: f64) -> Tissue {
    if depth < BRAIN {
        return Tissue::Csf;
    }
    let side = p[0].abs();
    if in_ventricle(side, p) {
        return Tissue::Ventricle;
    }
    if in_deep_nucleus(side, p) {
        return Tissue::GreyMatter;
    }
    // The fissure between the hemispheres, open in front, behind, and above the corpus callosum.
    let open = p[1] > 33.0 || p[1] < -40.0 || p[2] > 30.0;
    if open && side < 1.1 {
        return Tissue::Csf;
    }
    // Cortex folds: deep in a sulcus the surface reaches inward, and grey matter with it.
    let angle = p[1].atan2(side) + 0.05 * p[0].signum();
    let lift = p[2] / 24.0;
    let fold = ((17.0 * angle + 1.6 * (4.0 * angle + lift).sin() + lift).sin()
        + 0.55 * (27.0 * angle - 2.0 + 2.0 * lift).sin())
        / 1.3;
    let sulcus = ((fold - 0.1) / 0.9).clamp(0.0, 1.0);
    let below = depth - BRAIN;
    if sulcus > 0.72 && below < 13.0 * sulcus * sulcus {
        return Tissue::Csf;
    }
    let medial = open && side < 4.6;
    // The island of Reil: cortex around the middle cerebral arteries.
    let insula = (side - 40.0).hypot((p[1] - 6.0) / 2.6) < 4.5;
    if below < 4.0 + 1.5 * fold + 11.0 * sulcus || medial || insula {
        return Tissue::GreyMatter;
    }
    Tissue::WhiteMatter
}

fn in_ventricle(side: f64, p: Point) -> bool {
    // The lateral ventricles along a bent line, tapering above and below.
    const LINE: [(f64, f64, f64); 4] = [(9.0, 30.0, 4.4), (5.5, 8.0, 3.6), (12.0, -18.0, 4.4), (19.0, -38.0, 4.0)];
    let height = 1.0 - ((p[2] - 12.0) / 17.0).powi(2);
    let lateral = height > 0.0
        && LINE.windows(2).any(|w| {
            let ((ax, ay, ar), (bx, by, br)) = (w[0], w[1]);
            let (dx, dy) = (bx - ax, by - ay);
            let t = (((side - ax) * dx + (p[1] - ay) * dy) / (dx * dx + dy * dy)).clamp(0.0, 1.0);
            (side - ax - t * dx).hypot(p[1] - ay - t * dy) < (ar + t * (br - ar)) * height.sqrt()
        });
    let third = side < 1.6 && (-18.0..6.0).contains(&p[1]) && (-14.0..4.0).contains(&p[2]);
    lateral || third
}

fn in_deep_nucleus(side: f64, p: Point) -> bool {
    let inside = |x: f64, y: f64, a: f64, b: f64| ((side - x) / a).hypot((p[1] - y) / b) < 1.0;
    let height = 1.0 - ((p[2] - 6.0) / 18.0).powi(2);
    height > 0.0 && {
        let shrink = height.sqrt();
        // Caudate, putamen with pallidum, thalamus.
        inside(15.5, 25.0, 4.0 * shrink, 8.0 * shrink)
            || inside(27.0, 7.0, 5.0 * shrink, 14.0 * shrink)
            || inside(10.5, -7.0, 6.5 * shrink, 11.0 * shrink)
    }
}
