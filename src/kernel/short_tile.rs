//! Rows of 16-bit samples on their way into a tile: several side by side, and scanned while they pass.
//!
//! A row is a stretch of one frame, and the next row lies a frame further on. While the memory of one row is looked up and
//! read ahead, the others go on; and what a scan looks at needn't come back from the cache.

use std::ops::Range;

use fearless_simd::Level;

use super::PreparedKernel;
use super::short::{ScanState, ShortCurve, ShortLanes};

/// Rows that are read side by side.
const ROWS: usize = 4;
/// The most voxels side by side.
const MOST_LANES: usize = 32;

/// Neighbouring voxels of a series, and the tile that they are copied to.
#[derive(Debug)]
pub struct ShortRows<'a> {
    pub(crate) level: Level,
    /// All samples of the series, frame by frame; to each of them `shift` is added, modulo 2^16.
    pub(crate) samples: &'a [i16],
    pub(crate) shift: i16,
    /// Samples from one frame to the next.
    pub(crate) count: usize,
    pub(crate) frames: usize,
    /// The first voxel, and how many.
    pub(crate) start: usize,
    pub(crate) length: usize,
    pub(crate) tile: &'a mut [i16],
    /// Numbers from one frame of the tile to the next: the multiple of the lanes' width that the voxels go up to, at least.
    pub(crate) stride: usize,
    /// What a scan keeps per voxel of the tile.
    pub(crate) kept: &'a mut [i16],
    pub(crate) sums: &'a mut [i32],
}

/// The smallest and the largest sample.
#[derive(Clone, Copy)]
struct Bounds<S> {
    lowest: S,
    highest: S,
}

/// Copies the rows, and scans them if the kernel has something to look for. Returns whether what it has kept holds.
#[inline(always)]
pub(super) fn load<L: ShortLanes, P: PreparedKernel>(lanes: L, kernel: &P, rows: &mut ShortRows<'_>) -> bool {
    let scans = kernel.scan_keeps() > 0;
    let start = if scans { kernel.scan_start() } else { rows.frames };
    let mut bounds = Bounds { lowest: lanes.short_splat(i16::MAX), highest: lanes.short_splat(i16::MIN) };
    passes::<L, P>(lanes, None, rows, 0..start, &mut bounds);
    if scans {
        begin(lanes, kernel, rows);
    }
    passes(lanes, Some(kernel), rows, start..rows.frames, &mut bounds);
    if !scans {
        return false;
    }
    let (mut lowest, mut highest) = ([i16::MAX; MOST_LANES], [i16::MIN; MOST_LANES]);
    lanes.short_store(bounds.lowest, &mut lowest);
    lanes.short_store(bounds.highest, &mut highest);
    let lowest = lowest.into_iter().fold(i16::MAX, i16::min);
    let range = highest.into_iter().fold(i16::MIN, i16::max).abs_diff(lowest);
    // A kernel counts on it that so many differences don't overflow.
    let fits = |rows: usize| usize::from(range) * rows < 1 << 15;
    if !fits(ROWS) && fits(1) {
        again(lanes, kernel, rows);
    }
    fits(1)
}

/// What a scan keeps of a block of voxels.
#[inline(always)]
pub(super) fn state_of<'a, L: ShortLanes>(
    keeps: usize,
    block: usize,
    kept: &'a mut [i16],
    sums: &'a mut [i32],
) -> ScanState<'a> {
    ScanState { short: &mut kept[block * keeps..][..keeps * L::WIDTH], sum: &mut sums[block..][..L::WIDTH] }
}

/// Copies the rows of these frames, as many at once as there are, and lets a kernel look at them.
#[inline(always)]
fn passes<L: ShortLanes, P: PreparedKernel>(
    lanes: L,
    kernel: Option<&P>,
    rows: &mut ShortRows<'_>,
    frames: Range<usize>,
    bounds: &mut Bounds<L::Short>,
) {
    let mut frame = frames.start;
    while frame + ROWS <= frames.end {
        pass::<L, P, ROWS>(lanes, kernel, rows, frame, bounds);
        frame += ROWS;
    }
    for frame in frame..frames.end {
        pass::<L, P, 1>(lanes, kernel, rows, frame, bounds);
    }
}

/// Copies `N` rows, and lets a kernel look at them.
#[inline(always)]
fn pass<L: ShortLanes, P: PreparedKernel, const N: usize>(
    lanes: L,
    kernel: Option<&P>,
    rows: &mut ShortRows<'_>,
    frame: usize,
    bounds: &mut Bounds<L::Short>,
) {
    let ShortRows { samples, shift, count, start, length, stride, .. } = *rows;
    let shift = lanes.short_splat(shift);
    let keeps = kernel.map_or(0, PreparedKernel::scan_keeps);
    let from: [&[i16]; N] = std::array::from_fn(|j| &samples[(frame + j) * count + start..][..length]);
    let ahead: [&[i16]; N] = std::array::from_fn(|j| row_ahead(samples, rows, frame + N + j).unwrap_or(from[j]));
    let (before, tile) = rows.tile.split_at_mut(frame * stride);
    // Of frame 0 itself nothing is counted from its first sample.
    let firsts = if frame > 0 { &before[..stride] } else { &[] };
    let mut tile = tile.chunks_exact_mut(stride);
    let to: [&mut [i16]; N] = std::array::from_fn(|_| tile.next().unwrap_or_default());
    let mut rest = [[0; MOST_LANES]; N];
    for block in (0..length).step_by(L::WIDTH) {
        for row in ahead {
            ask(&row[block]);
        }
        let mut here = [shift; N];
        if block + L::WIDTH <= length {
            for j in 0..N {
                here[j] = lanes.short(&from[j][block..block + L::WIDTH]) + shift;
            }
        } else {
            // The last voxel stands for those after the end.
            for j in 0..N {
                rest[j].fill(from[j][length - 1]);
                rest[j][..length - block].copy_from_slice(&from[j][block..]);
                here[j] = lanes.short(&rest[j]) + shift;
            }
        }
        for j in 0..N {
            lanes.short_store(here[j], &mut to[j][block..block + L::WIDTH]);
            bounds.lowest = lanes.short_min(bounds.lowest, here[j]);
            bounds.highest = lanes.short_max(bounds.highest, here[j]);
        }
        if let Some(kernel) = kernel {
            let state = state_of::<L>(keeps, block, rows.kept, rows.sums);
            kernel.scan_frames(lanes, frame, here, lanes.short(&firsts[block..block + L::WIDTH]), state);
        }
    }
}

/// The row of a frame; of one past the last, of as many voxels that follow, if there are.
#[inline(always)]
fn row_ahead<'a>(samples: &'a [i16], rows: &ShortRows<'_>, frame: usize) -> Option<&'a [i16]> {
    let (frame, start) =
        if frame < rows.frames { (frame, rows.start) } else { (frame - rows.frames, rows.start + rows.length) };
    let row = &samples[frame * rows.count..][..rows.count];
    row.get(start..start + rows.length)
}

/// Asks for the line of memory that a number lies in, so that it is there when it is read.
#[inline(always)]
fn ask(number: &i16) {
    #[cfg(target_arch = "x86_64")]
    safe_arch::prefetch_t0(number);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = number;
}

/// Begins a scan of every block.
#[inline(always)]
fn begin<L: ShortLanes, P: PreparedKernel>(lanes: L, kernel: &P, rows: &mut ShortRows<'_>) {
    for block in (0..rows.length).step_by(L::WIDTH) {
        let curve = ShortCurve { samples: &rows.tile[block..], stride: rows.stride };
        kernel.scan_begin(lanes, curve, state_of::<L>(kernel.scan_keeps(), block, rows.kept, rows.sums));
    }
}

/// The scan once more, frame by frame, where samples differ too much for several at once.
#[inline(always)]
fn again<L: ShortLanes, P: PreparedKernel>(lanes: L, kernel: &P, rows: &mut ShortRows<'_>) {
    begin(lanes, kernel, rows);
    for frame in kernel.scan_start()..rows.frames {
        for block in (0..rows.length).step_by(L::WIDTH) {
            let first = lanes.short(&rows.tile[block..]);
            let here = lanes.short(&rows.tile[frame * rows.stride + block..]);
            let state = state_of::<L>(kernel.scan_keeps(), block, rows.kept, rows.sums);
            kernel.scan_frames(lanes, frame, [here], first, state);
        }
    }
}
