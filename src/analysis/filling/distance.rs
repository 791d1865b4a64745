//! Distances in a lesion: to its surface (exact Euclidean distance transform) and along paths inside it (fast marching).

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A grid of voxels, x fastest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grid {
    /// Voxels along x, y, z.
    pub shape: [usize; 3],
    /// Voxel size along x, y, z in mm.
    pub size_mm: [f64; 3],
}

impl Grid {
    /// Number of voxels.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// The place of a voxel in memory.
    pub fn index(&self, voxel: [usize; 3]) -> usize {
        voxel[0] + self.shape[0] * (voxel[1] + self.shape[1] * voxel[2])
    }

    /// The voxel at a place in memory.
    pub fn voxel(&self, index: usize) -> [usize; 3] {
        let [nx, ny, _] = self.shape;
        [index % nx, index / nx % ny, index / (nx * ny)]
    }

    /// The neighbour in a direction, if it lies on the grid.
    pub fn neighbour(&self, index: usize, step: [isize; 3]) -> Option<usize> {
        let voxel = self.voxel(index);
        let mut other = [0; 3];
        for axis in 0..3 {
            other[axis] = voxel[axis].checked_add_signed(step[axis]).filter(|v| *v < self.shape[axis])?;
        }
        Some(self.index(other))
    }

    /// Volume of a voxel in mm³.
    pub fn voxel_volume_mm3(&self) -> f64 {
        self.size_mm.iter().product()
    }
}

/// The 26 steps to the voxels that share a face, an edge or a corner.
pub fn neighbour_steps() -> impl Iterator<Item = [isize; 3]> {
    (0..27).filter(|i| *i != 13).map(|i| [i % 3 - 1, i / 3 % 3 - 1, i / 9 - 1])
}

/// The six steps to the voxels that share a face.
pub const FACES: [[isize; 3]; 6] = [[-1, 0, 0], [1, 0, 0], [0, -1, 0], [0, 1, 0], [0, 0, -1], [0, 0, 1]];

/// From every voxel's centre to the nearest centre of a voxel of the set, in mm; infinite if the set is empty.
///
/// Exact: the squared distance is a minimum over parabolas, axis by axis (Felzenszwalb and Huttenlocher, "Distance
/// Transforms of Sampled Functions", Theory of Computing 8, 2012), with the voxel's size along each axis.
pub fn distance_to(grid: Grid, set: impl Fn(usize) -> bool) -> Vec<f64> {
    let mut squared: Vec<f64> = (0..grid.count()).map(|i| if set(i) { 0.0 } else { f64::INFINITY }).collect();
    let mut stride = 1;
    for axis in 0..3 {
        let n = grid.shape[axis];
        let mut line = vec![0.0; n];
        let mut envelope = Envelope::with_capacity(n);
        for start in 0..grid.count() {
            if start / stride % n != 0 {
                continue;
            }
            for (i, value) in line.iter_mut().enumerate() {
                *value = squared[start + i * stride];
            }
            envelope.transform(&line, grid.size_mm[axis], |i, value| squared[start + i * stride] = value);
        }
        stride *= n;
    }
    squared.iter().map(|d| d.sqrt()).collect()
}

/// From every voxel of the set to the nearest voxel outside it, in mm; 0 outside. What lies beyond the grid is outside, but
/// for axes of a single voxel: a lesion of one slice is a flat one, and its surface is its outline.
pub fn depth(grid: Grid, inside: impl Fn(usize) -> bool) -> Vec<f64> {
    let margin = grid.shape.map(|n| usize::from(n > 1));
    let padded = Grid { shape: std::array::from_fn(|a| grid.shape[a] + 2 * margin[a]), ..grid };
    let within = |i: usize| {
        let place = padded.voxel(i);
        let voxel: [Option<usize>; 3] =
            std::array::from_fn(|a| place[a].checked_sub(margin[a]).filter(|v| *v < grid.shape[a]));
        matches!(voxel, [Some(x), Some(y), Some(z)] if inside(grid.index([x, y, z])))
    };
    let distance = distance_to(padded, |i| !within(i));
    (0..grid.count())
        .map(|i| {
            let voxel = grid.voxel(i);
            distance[padded.index(std::array::from_fn(|a| voxel[a] + margin[a]))]
        })
        .collect()
}

/// Whether a voxel of the set shares a face with the outside, along axes of more than one voxel.
pub fn on_surface(grid: Grid, inside: impl Fn(usize) -> bool, index: usize) -> bool {
    FACES.into_iter().any(|step| {
        (0..3).all(|a| step[a] == 0 || grid.shape[a] > 1)
            && grid.neighbour(index, step).is_none_or(|other| !inside(other))
    })
}

/// The lower envelope of parabolas over one line.
struct Envelope {
    vertices: Vec<usize>,
    /// Where each parabola begins to be the lowest.
    from: Vec<f64>,
}

impl Envelope {
    fn with_capacity(n: usize) -> Self {
        Self { vertices: Vec::with_capacity(n), from: Vec::with_capacity(n) }
    }

    fn transform(&mut self, line: &[f64], step: f64, mut set: impl FnMut(usize, f64)) {
        self.vertices.clear();
        self.from.clear();
        let place = |i: usize| i as f64 * step;
        for (i, height) in line.iter().enumerate() {
            if height.is_infinite() {
                continue;
            }
            let mut begin = f64::NEG_INFINITY;
            while let Some(top) = self.vertices.last().copied() {
                let (a, b) = (place(top), place(i));
                begin = ((height + b * b) - (line[top] + a * a)) / (2.0 * (b - a));
                if begin > self.from[self.from.len() - 1] {
                    break;
                }
                self.vertices.pop();
                self.from.pop();
                begin = f64::NEG_INFINITY;
            }
            self.vertices.push(i);
            self.from.push(begin);
        }
        let mut at = 0;
        for i in 0..line.len() {
            if self.vertices.is_empty() {
                set(i, f64::INFINITY);
                continue;
            }
            while at + 1 < self.vertices.len() && self.from[at + 1] < place(i) {
                at += 1;
            }
            let vertex = self.vertices[at];
            set(i, (place(i) - place(vertex)).powi(2) + line[vertex]);
        }
    }
}

/// Lengths of the shortest paths inside a set from its sources, in mm; infinite where no path leads, and outside.
///
/// Fast marching (Sethian, "A fast marching level set method for monotonically advancing fronts", PNAS 93, 1996), first
/// order, for voxels of any size. Around each source distances are straight as far as `straight_mm` and as all voxels
/// between are inside: a point source would otherwise cost several per cent.
pub fn geodesic(grid: Grid, inside: impl Fn(usize) -> bool, sources: &[(usize, f64)], straight_mm: f64) -> Vec<f64> {
    let mut distance = vec![f64::INFINITY; grid.count()];
    let mut queue = BinaryHeap::new();
    let offer = |distance: &mut Vec<f64>, queue: &mut BinaryHeap<Front>, index: usize, value: f64| {
        if value < distance[index] {
            distance[index] = value;
            queue.push(Front { distance: value, index });
        }
    };
    for (source, start) in sources.iter().filter(|(source, _)| inside(*source)) {
        let centre = grid.voxel(*source);
        let reach: [usize; 3] = std::array::from_fn(|axis| {
            ((straight_mm / grid.size_mm[axis]).floor().min(grid.shape[axis] as f64)) as usize
        });
        let range = |axis: usize| {
            centre[axis].saturating_sub(reach[axis])..=(centre[axis] + reach[axis]).min(grid.shape[axis] - 1)
        };
        for z in range(2) {
            for y in range(1) {
                for x in range(0) {
                    let voxel = [x, y, z];
                    let squared: f64 =
                        (0..3).map(|a| ((voxel[a] as f64 - centre[a] as f64) * grid.size_mm[a]).powi(2)).sum();
                    if squared.sqrt() <= straight_mm && sees(grid, &inside, centre, voxel) {
                        offer(&mut distance, &mut queue, grid.index(voxel), start + squared.sqrt());
                    }
                }
            }
        }
    }
    let mut done = vec![false; grid.count()];
    while let Some(Front { index, .. }) = queue.pop() {
        if std::mem::replace(&mut done[index], true) {
            continue;
        }
        for step in FACES {
            let Some(next) = grid.neighbour(index, step).filter(|next| !done[*next] && inside(*next)) else { continue };
            let value = upwind(grid, &distance, &done, next);
            offer(&mut distance, &mut queue, next, value);
        }
    }
    distance
}

/// Whether the straight line between two voxels stays inside.
fn sees(grid: Grid, inside: &impl Fn(usize) -> bool, from: [usize; 3], to: [usize; 3]) -> bool {
    let steps = (0..3).map(|a| 2 * from[a].abs_diff(to[a])).max().unwrap_or(0).max(1);
    (0..=steps).all(|i| {
        let share = i as f64 / steps as f64;
        let at = std::array::from_fn(|a| (from[a] as f64 + share * (to[a] as f64 - from[a] as f64)).round() as usize);
        inside(grid.index(at))
    })
}

/// Solves |grad d| = 1 at a voxel from its settled neighbours.
fn upwind(grid: Grid, distance: &[f64], done: &[bool], index: usize) -> f64 {
    let mut terms: Vec<(f64, f64)> = Vec::with_capacity(3);
    for axis in 0..3 {
        let mut lowest = f64::INFINITY;
        for sign in [-1, 1] {
            let mut step = [0; 3];
            step[axis] = sign;
            if let Some(neighbour) = grid.neighbour(index, step).filter(|n| done[*n]) {
                lowest = lowest.min(distance[neighbour]);
            }
        }
        if lowest.is_finite() {
            terms.push((lowest, grid.size_mm[axis]));
        }
    }
    terms.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut best = f64::INFINITY;
    for used in 1..=terms.len() {
        // sum ((d - d_a) / h_a)^2 = 1, the larger root.
        let (mut a, mut b, mut c) = (0.0, 0.0, -1.0);
        for (value, size) in &terms[..used] {
            let weight = 1.0 / (size * size);
            a += weight;
            b -= 2.0 * weight * value;
            c += weight * value * value;
        }
        let discriminant = b * b - 4.0 * a * c;
        if discriminant < 0.0 {
            break;
        }
        let root = (-b + discriminant.sqrt()) / (2.0 * a);
        if root < terms[used - 1].0 {
            break;
        }
        best = root;
    }
    best
}

/// A voxel that a front may reach next; the nearest one is the greatest, so that a heap gives it first.
struct Front {
    distance: f64,
    index: usize,
}

impl PartialEq for Front {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Front {}

impl PartialOrd for Front {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Front {
    fn cmp(&self, other: &Self) -> Ordering {
        other.distance.total_cmp(&self.distance).then(other.index.cmp(&self.index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scattered(i: usize) -> bool {
        (i.wrapping_mul(2_654_435_761) >> 7).is_multiple_of(23)
    }

    fn straight(grid: Grid, a: usize, b: usize) -> f64 {
        let (a, b) = (grid.voxel(a), grid.voxel(b));
        (0..3).map(|x| ((a[x] as f64 - b[x] as f64) * grid.size_mm[x]).powi(2)).sum::<f64>().sqrt()
    }

    #[test]
    fn distances_equal_brute_force_on_uneven_voxels() {
        for (shape, size_mm) in
            [([9, 7, 5], [1.0, 1.0, 1.0]), ([11, 6, 4], [0.7, 1.9, 5.0]), ([1, 13, 3], [2.0, 0.5, 3.1])]
        {
            let grid = Grid { shape, size_mm };
            let set: Vec<usize> = (0..grid.count()).filter(|i| scattered(*i)).collect();
            assert!(!set.is_empty());
            for (i, found) in distance_to(grid, scattered).into_iter().enumerate() {
                let brute = set.iter().map(|s| straight(grid, i, *s)).fold(f64::INFINITY, f64::min);
                assert!((found - brute).abs() < 1e-9, "{i}: {found} {brute}");
            }
        }
        let grid = Grid { shape: [3, 3, 3], size_mm: [1.0; 3] };
        assert!(distance_to(grid, |_| false).iter().all(|d| d.is_infinite()));
    }

    #[test]
    fn the_edge_of_the_grid_is_a_surface() {
        let grid = Grid { shape: [5, 5, 3], size_mm: [1.0, 1.0, 4.0] };
        let depth = depth(grid, |_| true);
        assert_eq!(depth[grid.index([0, 2, 1])], 1.0);
        assert_eq!(depth[grid.index([2, 2, 1])], 3.0);
        let slice = Grid { shape: [5, 5, 1], size_mm: [1.0, 1.0, 4.0] };
        assert_eq!(super::depth(slice, |_| true)[slice.index([2, 2, 0])], 3.0);
        assert!(
            !on_surface(slice, |_| true, slice.index([2, 2, 0])) && on_surface(slice, |_| true, slice.index([0, 2, 0]))
        );
    }

    #[test]
    fn geodesics_are_straight_in_a_ball_and_bend_round_a_corner() {
        let grid = Grid { shape: [41, 41, 21], size_mm: [1.0, 1.0, 2.0] };
        let source = grid.index([8, 20, 10]);
        let ball = |i: usize| straight(grid, i, grid.index([20, 20, 10])) < 19.0;
        let found = geodesic(grid, ball, &[(source, 0.0)], 6.0);
        for (i, found) in found.into_iter().enumerate().filter(|(i, _)| ball(*i)) {
            let exact = straight(grid, i, source);
            // First-order marching is late by some per cent, most along diagonals of long voxels.
            assert!((found - exact).abs() < 0.05 * exact + 0.3, "{:?}: {found} {exact}", grid.voxel(i));
        }
        // A wall with a gap at its end: the path goes round its corner.
        let open = |i: usize| {
            let [x, y, z] = grid.voxel(i);
            z == 10 && (x != 20 || y >= 30)
        };
        let found = geodesic(grid, open, &[(grid.index([10, 10, 10]), 0.0)], 4.0);
        let round = (10.0f64.powi(2) + 20.0f64.powi(2)).sqrt() * 2.0;
        let there = found[grid.index([30, 10, 10])];
        assert!((there - round).abs() < 0.06 * round, "{there} {round}");
        assert!(found[grid.index([20, 10, 10])].is_infinite());
    }
}
