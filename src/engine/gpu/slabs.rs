//! How many voxels go to the device at once. Pure arithmetic on a device's limits: no device is needed to test it.

use crate::error::{Error, Result};

/// The head of every kernel's uniform, as `struct Slab` in `shaders/common.wgsl`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct Slab {
    pub(crate) voxels: u32,
    pub(crate) frames: u32,
    pub(crate) frame_stride_words: u32,
    pub(crate) output_stride: u32,
    pub(crate) extra_stride: u32,
    pub(crate) state_stride: u32,
    pub(crate) voxels_per_row: u32,
    pub(crate) nan_bits: u32,
    pub(crate) reserved_a: [u32; 4],
    pub(crate) reserved_b: [u32; 4],
}

/// Slabs hold a multiple of this many voxels, so that rows of any sample type are whole words and copies are aligned.
pub(crate) const GRANULE: usize = 256;

/// What slabs aim at for samples and for outputs: small enough that uploads overlap with computing and that no dispatch
/// runs long enough for a watchdog, large enough that submitting costs nothing beside it.
const TARGET_BYTES: u64 = 64 << 20;

/// No binding is ever larger, whatever the device says: toolchains compute byte offsets in 32 signed bits.
const LARGEST_BINDING: u64 = (1 << 31) - 4;

/// Bytes of one staging chunk at most: what drivers copy fastest.
const CHUNK_BYTES: u64 = 8 << 20;

/// Staging chunks in the ring.
pub(crate) const CHUNKS: usize = 4;

/// Results on their way back at the same time.
pub(crate) const SLOTS: usize = 2;

/// What a kernel needs per voxel and in all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Needs {
    pub(crate) frames: usize,
    /// Bytes of a sample as uploaded: 1, 2 or 4.
    pub(crate) sample_bytes: usize,
    /// Output rows without the status.
    pub(crate) rows: usize,
    pub(crate) layers: usize,
    pub(crate) state_words: usize,
    /// Tables and uniforms.
    pub(crate) fixed_bytes: u64,
    /// Voxels of a workgroup.
    pub(crate) workgroup_voxels: u32,
}

/// What a device allows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowed {
    pub(crate) binding_bytes: u64,
    pub(crate) buffer_bytes: u64,
    pub(crate) workgroups_per_dimension: u32,
    /// All buffers of a run together.
    pub(crate) total_bytes: Option<u64>,
    /// Voxels per slab at most, for tests and after running out of memory.
    pub(crate) voxels: Option<usize>,
}

/// The sizes of a run's buffers in bytes; all are positive multiples of 16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) samples: u64,
    pub(crate) extra: u64,
    pub(crate) outputs: u64,
    pub(crate) status: u64,
    pub(crate) state: u64,
    pub(crate) chunk: u64,
}

impl Sizes {
    /// For slabs of so many voxels, a multiple of [`GRANULE`].
    pub(crate) fn of(voxels: usize, needs: &Needs) -> Self {
        let voxels = voxels as u64;
        let at_least = |bytes: u64| bytes.max(16);
        let samples = voxels * (needs.frames * needs.sample_bytes) as u64;
        Self {
            samples,
            extra: at_least(voxels * 4 * needs.layers as u64),
            outputs: at_least(voxels * 4 * needs.rows as u64),
            status: voxels * 4,
            state: at_least(voxels * 4 * needs.state_words as u64),
            chunk: (samples / CHUNKS as u64).next_multiple_of(256).min(CHUNK_BYTES),
        }
    }

    /// Bytes of what comes back per slab.
    pub(crate) fn results(&self) -> u64 {
        self.outputs + self.status
    }

    /// Everything that a run holds.
    pub(crate) fn total(&self, needs: &Needs) -> u64 {
        let device = self.samples + self.extra + self.outputs + self.status + self.state + needs.fixed_bytes;
        device + self.chunk * CHUNKS as u64 + self.results() * SLOTS as u64
    }

    fn largest_binding(&self) -> u64 {
        self.samples.max(self.extra).max(self.outputs).max(self.state)
    }
}

/// Workgroups along x and y for so many voxels: folded where one side doesn't suffice.
pub(crate) fn workgroups(voxels: usize, workgroup_voxels: u32, per_dimension: u32) -> (u32, u32) {
    let groups = voxels.div_ceil(workgroup_voxels as usize).max(1);
    let y = groups.div_ceil(per_dimension as usize);
    // The planner keeps slabs below the device's reach, so both fit.
    (groups.div_ceil(y) as u32, y as u32)
}

/// How many voxels a slab holds: as many as the limits and the target allow, no more than there are.
///
/// # Errors
/// [`Error::OutOfMemory`] if not even the smallest slab fits.
pub(crate) fn plan(place: &str, voxels: usize, needs: &Needs, allowed: &Allowed) -> Result<usize> {
    let smallest = GRANULE.max((needs.workgroup_voxels as usize).next_multiple_of(GRANULE));
    let binding = allowed.binding_bytes.min(allowed.buffer_bytes).min(LARGEST_BINDING);
    let reach = u64::from(allowed.workgroups_per_dimension).pow(2) * u64::from(needs.workgroup_voxels);
    let fits = |voxels: usize| -> bool {
        let sizes = Sizes::of(voxels, needs);
        sizes.largest_binding() <= binding
            && sizes.results() <= allowed.buffer_bytes
            && allowed.total_bytes.is_none_or(|limit| sizes.total(needs) <= limit)
            && voxels as u64 <= reach.min(1 << 30)
    };
    if !fits(smallest) {
        let sizes = Sizes::of(smallest, needs);
        let total = sizes.total(needs);
        return Err(match allowed.total_bytes.filter(|limit| total > *limit) {
            Some(limit) => Error::OutOfMemory {
                place: place.into(),
                needed_bytes: total,
                limit_bytes: limit,
                mend: format!(
                    "raise the memory limit, ask for fewer maps (there are {} rows) or use the CPU engine",
                    needs.rows
                ),
            },
            None => Error::OutOfMemory {
                place: place.into(),
                needed_bytes: sizes.largest_binding().max(sizes.results()),
                limit_bytes: binding,
                mend: format!(
                    "a slab of {smallest} voxels with {} frames and {} output rows does not fit into one buffer of this \
                     device; ask for fewer maps or use the CPU engine",
                    needs.frames, needs.rows
                ),
            },
        });
    }
    let target = |voxels: usize| {
        let sizes = Sizes::of(voxels, needs);
        sizes.samples <= TARGET_BYTES && sizes.outputs <= TARGET_BYTES && sizes.extra <= TARGET_BYTES
    };
    // Every condition only gets harder with size, so halve the interval between what fits and what doesn't.
    let most = allowed.voxels.map_or(voxels, |cap| voxels.min(cap)).next_multiple_of(GRANULE);
    let (mut low, mut high) = (smallest / GRANULE, most.max(smallest) / GRANULE);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if fits(middle * GRANULE) && target(middle * GRANULE) { low = middle } else { high = middle - 1 }
    }
    Ok(low * GRANULE)
}

/// A stretch of voxels that are neighbours in the volume and in the slab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Its first voxel in the volume.
    pub(crate) source: usize,
    /// Its first voxel in the order in which voxels are processed.
    pub(crate) at: usize,
    pub(crate) len: usize,
}

/// Voxels outside the mask that are processed along rather than interrupting a copy.
const SMALL_GAP: usize = 8;

/// The voxels to process: all of them, or those inside the mask with small gaps, so that the cost falls with the mask.
pub(crate) fn pieces(voxels: usize, inside: Option<&[u32]>) -> Vec<Piece> {
    let Some(inside) = inside else { return vec![Piece { source: 0, at: 0, len: voxels }] };
    let mut pieces: Vec<Piece> = Vec::new();
    let mut at = 0;
    let mut next = 0;
    while let Some(start) = inside[next..].iter().position(|label| *label != 0).map(|i| next + i) {
        let end = inside[start..].iter().position(|label| *label == 0).map_or(inside.len(), |i| start + i);
        match pieces.last_mut() {
            Some(last) if start - (last.source + last.len) <= SMALL_GAP => {
                at += end - (last.source + last.len);
                last.len = end - last.source;
            }
            _ => {
                pieces.push(Piece { source: start, at, len: end - start });
                at += end - start;
            }
        }
        next = end;
    }
    pieces
}

/// The part of `pieces` that lies in `range` of the processing order, counted from the range's beginning.
pub(crate) fn within(pieces: &[Piece], range: std::ops::Range<usize>) -> impl Iterator<Item = Piece> + '_ {
    let first = pieces.partition_point(|piece| piece.at + piece.len <= range.start);
    pieces[first..]
        .iter()
        .take_while({
            let end = range.end;
            move |piece| piece.at < end
        })
        .map(move |piece| {
            let start = piece.at.max(range.start);
            let end = (piece.at + piece.len).min(range.end);
            Piece { source: piece.source + (start - piece.at), at: start - range.start, len: end - start }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDS: Needs = Needs {
        frames: 60,
        sample_bytes: 2,
        rows: 20,
        layers: 1,
        state_words: 2,
        fixed_bytes: 4096,
        workgroup_voxels: 64,
    };
    const SOFTWARE: Allowed = Allowed {
        binding_bytes: 128 << 20,
        buffer_bytes: (1 << 31) - 1,
        workgroups_per_dimension: 65_535,
        total_bytes: None,
        voxels: None,
    };

    #[test]
    fn slabs_meet_the_target_and_are_no_larger_than_the_work() {
        let slab = plan("test", 10_000_000, &NEEDS, &SOFTWARE).unwrap();
        assert!(slab.is_multiple_of(GRANULE));
        assert!(slab * 120 <= 64 << 20 && (slab + GRANULE) * 120 > 64 << 20, "{slab}");
        assert_eq!(plan("test", 1, &NEEDS, &SOFTWARE).unwrap(), GRANULE);
        assert_eq!(plan("test", 257, &NEEDS, &SOFTWARE).unwrap(), 2 * GRANULE);
        assert_eq!(plan("test", 10_000, &NEEDS, &Allowed { voxels: Some(1), ..SOFTWARE }).unwrap(), GRANULE);
        assert_eq!(plan("test", 10_000, &NEEDS, &Allowed { voxels: Some(700), ..SOFTWARE }).unwrap(), 768);
    }

    #[test]
    fn every_limit_holds() {
        for frames in [1, 60, 1000, 20_000] {
            for rows in [0, 1, 40, 3000] {
                for total in [None, Some(300u64 << 20), Some(2 << 30)] {
                    for binding in [1 << 20, 128 << 20, u64::MAX] {
                        let needs = Needs { frames, rows, ..NEEDS };
                        let allowed = Allowed { binding_bytes: binding, total_bytes: total, ..SOFTWARE };
                        let Ok(slab) = plan("test", 1 << 27, &needs, &allowed) else {
                            let least = Sizes::of(GRANULE, &needs);
                            assert!(
                                least.largest_binding() > binding || total.is_some_and(|t| least.total(&needs) > t),
                                "refused {frames} {rows}"
                            );
                            continue;
                        };
                        let sizes = Sizes::of(slab, &needs);
                        assert!(sizes.largest_binding() <= binding.min(LARGEST_BINDING));
                        assert!(sizes.results() <= allowed.buffer_bytes);
                        assert!(total.is_none_or(|t| sizes.total(&needs) <= t));
                        for size in [sizes.samples, sizes.extra, sizes.outputs, sizes.status, sizes.state, sizes.chunk]
                        {
                            assert!(size > 0 && size % 16 == 0);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_cannot_fit_is_refused_with_numbers() {
        let limited = Allowed { total_bytes: Some(100_000), ..SOFTWARE };
        match plan("test", 1000, &NEEDS, &limited) {
            Err(Error::OutOfMemory { needed_bytes, limit_bytes: 100_000, .. }) => assert!(needed_bytes > 100_000),
            other => panic!("{other:?}"),
        }
        let needs = Needs { frames: 1 << 20, ..NEEDS };
        match plan("test", 1000, &needs, &SOFTWARE) {
            Err(Error::OutOfMemory { needed_bytes, limit_bytes, .. }) => {
                assert_eq!(limit_bytes, 128 << 20);
                assert_eq!(needed_bytes, 256 << 21);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn dispatches_fold_and_cover() {
        assert_eq!(workgroups(1, 64, 65_535), (1, 1));
        assert_eq!(workgroups(65_535 * 64, 64, 65_535), (65_535, 1));
        for voxels in [65_535 * 64 + 1, 10_000_000, 83_886_080] {
            let (x, y) = workgroups(voxels, 64, 65_535);
            assert!(x <= 65_535 && y > 1 && y <= 65_535);
            assert!(x as usize * y as usize * 64 >= voxels);
            assert!((x as usize * y as usize - y as usize) * 64 < voxels, "no row of workgroups is idle");
        }
    }

    #[test]
    fn pieces_hold_every_voxel_inside_once() {
        let mut inside = vec![0u32; 1000];
        for i in [0, 1, 2, 5, 100, 120, 121, 999] {
            inside[i] = 7;
        }
        let found = pieces(1000, Some(&inside));
        let voxels: Vec<usize> = found.iter().flat_map(|p| p.source..p.source + p.len).collect();
        assert!(voxels.is_sorted_by(|a, b| a < b));
        assert!((0..1000).all(|i| inside[i] == 0 || voxels.contains(&i)));
        assert_eq!(found[0], Piece { source: 0, at: 0, len: 6 });
        assert_eq!(found.len(), 4);
        let mut at = 0;
        for piece in &found {
            assert_eq!(piece.at, at);
            at += piece.len;
        }
        assert_eq!(pieces(10, Some(&[0; 10])), vec![]);
        let cut: Vec<Piece> = within(&found, 4..8).collect();
        assert_eq!(
            cut,
            vec![
                Piece { source: 4, at: 0, len: 2 },
                Piece { source: 100, at: 2, len: 1 },
                Piece { source: 120, at: 3, len: 1 }
            ]
        );
    }
}
