//! From a series into the working memory of a tile.

use bytemuck::{Pod, Zeroable};
use fearless_simd::{Level, Select as _, Simd, SimdBase as _, SimdIntWiden as _, dispatch, f32x16, i16x16, i32x8};

use super::{Task, Workspace};
use crate::kernel::{LARGEST_DIFFERENCE, ShortSamples};
use crate::prefetch::ask;
use crate::voxels::Voxels;

/// Rows of floats that are copied side by side: while the memory of one is looked up and read ahead, the others go on.
const ROWS: usize = 4;

/// Samples of 8 and 16 bits, of so many neighbouring voxels, lie frame by frame: a line of memory each. What belongs together
/// is close together then, in few pages of memory.
pub(super) const BLOCK: usize = ShortSamples::VOXELS;

/// Samples of a frame.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(super) struct Line([i16; BLOCK]);

/// Copies the samples of a tile.
pub(super) fn load(level: Level, task: &Task<'_>, first_voxel: usize, length: usize, workspace: &mut Workspace) {
    let (samples, shift): (&[i16], i16) = match task.window.voxels {
        Voxels::I16(v) => (v, 0),
        Voxels::U16(v) => (bytemuck::cast_slice(v), i16::MIN),
        _ => return dispatch!(level, simd => load_others(simd, task, first_voxel, length, workspace)),
    };
    dispatch!(level, simd => load_shorts(simd, task, samples, shift, first_voxel, length, workspace));
}

/// Copies samples of 16 bits, to each of which `shift` is added, modulo 2^16.
#[inline(always)]
fn load_shorts<S: Simd>(
    simd: S,
    task: &Task<'_>,
    samples: &[i16],
    shift: i16,
    first_voxel: usize,
    length: usize,
    workspace: &mut Workspace,
) {
    let start = first_voxel - task.window.range.start;
    workspace.shift = f32::from(shift);
    let mut frame = 0;
    while frame < task.frames {
        frame += match task.frames - frame {
            6.. => copy_shorts::<S, 6>(simd, task, samples, shift, [frame, start, length], &mut workspace.short),
            3.. => copy_shorts::<S, 3>(simd, task, samples, shift, [frame, start, length], &mut workspace.short),
            _ => copy_shorts::<S, 1>(simd, task, samples, shift, [frame, start, length], &mut workspace.short),
        };
    }
}

/// A row that is read soon: after the last frame, of the voxels that follow, if there are some.
#[inline(always)]
fn row_ahead<'a, T>(task: &Task<'_>, samples: &'a [T], [frame, start, length]: [usize; 3]) -> Option<&'a [T]> {
    let Task { window, frames, .. } = *task;
    let (frame, start) = if frame < frames { (frame, start) } else { (frame % frames, start + length) };
    samples[window.row(frame)..].get(start..start + length)
}

/// `N` rows of them, added up as well. Asks for the next rows meanwhile. Returns how many rows that were.
#[inline(always)]
fn copy_shorts<S: Simd, const N: usize>(
    simd: S,
    task: &Task<'_>,
    samples: &[i16],
    shift: i16,
    [frame, start, length]: [usize; 3],
    tile: &mut [Line],
) -> usize {
    let Task { window, frames, .. } = *task;
    let mut from = [&samples[..0]; N];
    let mut ahead = from;
    for j in 0..N {
        from[j] = &samples[window.row(frame + j) + start..][..length];
        ahead[j] = row_ahead(task, samples, [frame + N + j, start, length]).unwrap_or(from[j]);
    }
    let shifts = i16x16::splat(simd, shift);
    let mut sums = [i32x8::splat(simd, 0); N];
    let mut rests = [0; N];
    for (block, lines) in (0..length).step_by(BLOCK).zip(tile.chunks_exact_mut(frames)) {
        let to = &mut lines[frame..frame + N];
        if block + BLOCK > length {
            for j in 0..N {
                for (to, from) in to[j].0.iter_mut().zip(&from[j][block..]) {
                    *to = from.wrapping_add(shift);
                    rests[j] += i32::from(*to);
                }
            }
            break;
        }
        for j in 0..N {
            ask(&ahead[j][block]);
            let line = &from[j][block..block + BLOCK];
            let (low, high) = line.split_at(BLOCK / 2);
            let low = i16x16::from_slice(simd, low) + shifts;
            let high = i16x16::from_slice(simd, high) + shifts;
            let (to_low, to_high) = to[j].0.split_at_mut(BLOCK / 2);
            low.store_slice(to_low);
            high.store_slice(to_high);
            sums[j] = sums[j] + low.pairwise_widening_add() + high.pairwise_widening_add();
        }
    }
    if let Some(to) = task.sums {
        for j in 0..N {
            to.add(frame + j, i64::from(sums[j].reduce_sum() + rests[j]));
        }
    }
    N
}

/// Samples of 8 bits are copied as such, others as differences from the first; the lanes after the tile's end repeat nothing
/// and are never read back.
#[inline(always)]
fn load_others<S: Simd>(simd: S, task: &Task<'_>, start: usize, length: usize, workspace: &mut Workspace) {
    let Task { window, frames, .. } = *task;
    let start = start - window.range.start;
    let stride = workspace.stride;
    macro_rules! load {
        ($samples:expr, $difference:expr) => {{
            let first = &$samples[start..start + length];
            for (to, from) in workspace.first.iter_mut().zip(first) {
                *to = *from as f32;
            }
            for t in 0..frames {
                let row = &$samples[window.row(t) + start..][..length];
                let to = &mut workspace.differences[t * stride..][..length];
                for i in 0..length {
                    to[i] = $difference(row[i], first[i]);
                }
            }
        }};
    }
    macro_rules! load_bytes {
        ($samples:expr) => {{
            for t in 0..frames {
                let row = &$samples[window.row(t) + start..][..length];
                let mut sum = 0;
                for (block, samples) in row.chunks(BLOCK).enumerate() {
                    let to = &mut workspace.short[block * frames + t].0;
                    for i in 0..samples.len() {
                        to[i] = i16::from(samples[i]);
                        sum += i32::from(to[i]);
                    }
                }
                if let Some(sums) = task.sums {
                    sums.add(t, i64::from(sum));
                }
            }
        }};
    }
    // Types whose samples may be unusable: their voxels go through the kernel as constants, and are refused by it.
    macro_rules! load_checked {
        ($samples:expr, $difference:expr) => {{
            let first = &$samples[start..start + length];
            let finite = &mut workspace.finite[..length];
            for ((to, finite), from) in workspace.first.iter_mut().zip(&mut *finite).zip(first) {
                *to = *from as f32;
                *finite = f32::from(u8::from(to.is_finite()));
            }
            let limit = LARGEST_DIFFERENCE as f32;
            for t in 0..frames {
                let row = &$samples[window.row(t) + start..][..length];
                let to = &mut workspace.differences[t * stride..][..length];
                for (((to, finite), from), first) in to.iter_mut().zip(&mut *finite).zip(row).zip(first) {
                    let difference: f32 = $difference(*from, *first);
                    *to = difference;
                    *finite = if difference.abs() < limit { *finite } else { 0.0 };
                }
            }
            neutralise(frames, length, workspace);
        }};
    }
    match window.voxels {
        Voxels::U8(v) => load_bytes!(v),
        Voxels::I8(v) => load_bytes!(v),
        Voxels::U16(_) | Voxels::I16(_) => unreachable!("samples of 16 bits have a copy of their own"),
        Voxels::U32(v) => load!(v, |x: u32, first: u32| (i64::from(x) - i64::from(first)) as f32),
        Voxels::I32(v) => load!(v, |x: i32, first: i32| (i64::from(x) - i64::from(first)) as f32),
        Voxels::U64(v) => load_checked!(v, |x: u64, first: u64| (i128::from(x) - i128::from(first)) as f32),
        Voxels::I64(v) => load_checked!(v, |x: i64, first: i64| (i128::from(x) - i128::from(first)) as f32),
        Voxels::F32(v) => {
            load_floats(simd, v, task, [start, length], workspace);
            neutralise(frames, length, workspace);
        }
        Voxels::F64(v) => load_checked!(v, |x: f64, first: f64| (x - first) as f32),
    }
}

/// Copies samples as differences from the first, and notes which voxels can't be worked with.
#[inline(always)]
fn load_floats<S: Simd>(
    simd: S,
    samples: &[f32],
    task: &Task<'_>,
    [start, length]: [usize; 2],
    workspace: &mut Workspace,
) {
    let first = &samples[start..][..length];
    workspace.first[..length].copy_from_slice(first);
    let finite = &mut workspace.finite[..length];
    for (finite, first) in finite.iter_mut().zip(first) {
        *finite = f32::from(u8::from(first.is_finite()));
    }
    let mut t = 0;
    while t < task.frames {
        let rows = if t + ROWS <= task.frames { ROWS } else { 1 };
        let to = &mut workspace.differences[t * workspace.stride..];
        if rows == ROWS {
            copy_floats::<S, ROWS>(simd, samples, task, [t, start], to, workspace.stride, finite);
        } else {
            copy_floats::<S, 1>(simd, samples, task, [t, start], to, workspace.stride, finite);
        }
        t += rows;
    }
}

/// `N` rows of them; `finite` becomes 0 where a difference is too large, or none.
#[inline(always)]
fn copy_floats<S: Simd, const N: usize>(
    simd: S,
    samples: &[f32],
    task: &Task<'_>,
    [frame, start]: [usize; 2],
    to: &mut [f32],
    stride: usize,
    finite: &mut [f32],
) {
    const LANES: usize = 16;
    let length = finite.len();
    let first = &samples[start..][..length];
    let from: [&[f32]; N] = std::array::from_fn(|j| &samples[task.window.row(frame + j) + start..][..length]);
    let ahead: [&[f32]; N] =
        std::array::from_fn(|j| row_ahead(task, samples, [frame + N + j, start, length]).unwrap_or(from[j]));
    let mut rows = to.chunks_mut(stride);
    let to: [&mut [f32]; N] = std::array::from_fn(|_| &mut rows.next().unwrap_or_default()[..length]);
    let limit = f32x16::splat(simd, LARGEST_DIFFERENCE as f32);
    let zero = f32x16::splat(simd, 0.0);
    let whole = length - length % LANES;
    for block in (0..whole).step_by(LANES) {
        let here = f32x16::from_slice(simd, &first[block..block + LANES]);
        let mut usable = f32x16::from_slice(simd, &finite[block..block + LANES]);
        for j in 0..N {
            ask(&ahead[j][block]);
            let difference = f32x16::from_slice(simd, &from[j][block..block + LANES]) - here;
            difference.store_slice(&mut to[j][block..block + LANES]);
            usable = difference.abs().simd_lt(limit).select(usable, zero);
        }
        usable.store_slice(&mut finite[block..block + LANES]);
    }
    for j in 0..N {
        for i in whole..length {
            let difference = from[j][i] - first[i];
            to[j][i] = difference;
            finite[i] = if difference.abs() < LARGEST_DIFFERENCE as f32 { finite[i] } else { 0.0 };
        }
    }
}

/// Makes constants of the voxels that can't be worked with.
#[inline(always)]
fn neutralise(frames: usize, length: usize, workspace: &mut Workspace) {
    if !workspace.finite[..length].contains(&0.0) {
        return;
    }
    for t in 0..frames {
        for i in 0..length {
            let x = &mut workspace.differences[t * workspace.stride + i];
            *x = if workspace.finite[i] == 0.0 { 0.0 } else { *x };
        }
    }
    for i in 0..length {
        workspace.first[i] = if workspace.finite[i] == 0.0 { 0.0 } else { workspace.first[i] };
    }
}
