//! Bytes to the device and back: packing rows straight into mapped staging memory, and the buffers that are kept for it.

use std::ops::Range;
use std::time::Instant;

use rayon::prelude::*;
use wgpu::BufferUsages as Usage;

use super::context::{Context, Fault, Mapping};
use super::slabs::{CHUNKS, Piece, SLOTS, Sizes, within};
use crate::engine::Cancel;
use crate::stored::Window;
use crate::voxels::Voxels;

/// How samples are told apart in the shader, and how many bytes one takes there.
pub(super) fn sample_type(voxels: &Voxels) -> (u32, usize) {
    match voxels {
        Voxels::U8(_) => (0, 1),
        Voxels::I8(_) => (1, 1),
        Voxels::U16(_) => (2, 2),
        Voxels::I16(_) => (3, 2),
        Voxels::U32(_) => (4, 4),
        Voxels::I32(_) => (5, 4),
        Voxels::F32(_) => (6, 4),
        Voxels::U64(_) | Voxels::I64(_) | Voxels::F64(_) => (7, 4),
    }
}

/// Rows of bytes to upload, one after the other, each padded to whole words.
pub(super) struct Rows<'a> {
    pub(super) kind: RowKind<'a>,
    /// Which voxels, in the order of the slab.
    pub(super) pieces: &'a [Piece],
    /// How many voxels that is.
    pub(super) voxels: usize,
}

/// What rows are made of.
pub(super) enum RowKind<'a> {
    /// Frames of a series.
    Samples { window: &'a Window<'a>, frames: usize },
    /// Maps beside the series.
    Layers(&'a [Vec<f32>]),
}

impl Rows<'_> {
    fn count(&self) -> usize {
        match &self.kind {
            RowKind::Samples { frames, .. } => *frames,
            RowKind::Layers(layers) => layers.len(),
        }
    }

    fn element_bytes(&self) -> usize {
        match &self.kind {
            RowKind::Samples { window, .. } => sample_type(window.voxels).1,
            RowKind::Layers(_) => 4,
        }
    }

    /// Words of one row.
    pub(super) fn row_words(&self) -> usize {
        (self.voxels * self.element_bytes()).div_ceil(4)
    }

    pub(super) fn bytes(&self) -> usize {
        self.count() * self.row_words() * 4
    }

    /// Writes these bytes of the packed rows, on all threads: one alone doesn't fill a fast bus.
    fn write_all(&self, range: Range<usize>, out: wgpu::WriteOnly<'_, [u8]>) {
        const PART: usize = 1 << 16;
        let (parts, rest) = out.into_chunks::<PART>();
        let parts: Vec<_> = parts.into_iter().zip(range.clone().step_by(PART)).collect();
        let end = range.start + parts.len() * PART;
        parts.into_par_iter().for_each(|(out, start)| self.write(start..start + PART, out.into()));
        self.write(end..range.end, rest);
    }

    /// Writes these bytes of the packed rows; the range begins and ends at whole words.
    fn write(&self, range: Range<usize>, mut out: wgpu::WriteOnly<'_, [u8]>) {
        let (row_bytes, element) = (self.row_words() * 4, self.element_bytes());
        let mut at = range.start;
        while at < range.end {
            let row = at / row_bytes;
            let start = row * row_bytes;
            let end = range.end.min(start + row_bytes);
            let elements = (at - start) / element..((end - start) / element).min(self.voxels);
            for piece in within(self.pieces, elements) {
                let offset = at - range.start + piece.at * element;
                let slice = out.slice(offset..offset + piece.len * element);
                self.write_piece(row, piece, slice);
            }
            at = end;
        }
    }

    fn write_piece(&self, row: usize, piece: Piece, mut out: wgpu::WriteOnly<'_, [u8]>) {
        let window = match &self.kind {
            RowKind::Samples { window, .. } => *window,
            RowKind::Layers(layers) => {
                let values = &layers[row][piece.source..piece.source + piece.len];
                return out.copy_from_slice(bytemuck::cast_slice(values));
            }
        };
        let stretch = |frame| window.at(piece.source, frame)..window.at(piece.source, frame) + piece.len;
        let (here, first) = (stretch(row), stretch(0));
        macro_rules! stored {
            ($samples:expr) => {
                out.copy_from_slice(bytemuck::cast_slice(&$samples[here]))
            };
        }
        match window.voxels {
            Voxels::U8(v) => stored!(v),
            Voxels::I8(v) => stored!(v),
            Voxels::U16(v) => stored!(v),
            Voxels::I16(v) => stored!(v),
            Voxels::U32(v) => stored!(v),
            Voxels::I32(v) => stored!(v),
            Voxels::F32(v) => stored!(v),
            Voxels::U64(v) => anchored(row, &v[here], &v[first], out, |x, first| {
                if x >= first { (x - first) as f32 } else { -((first - x) as f32) }
            }),
            Voxels::I64(v) => anchored(row, &v[here], &v[first], out, |x, first| {
                x.checked_sub(first).map_or_else(|| (i128::from(x) - i128::from(first)) as f32, |d| d as f32)
            }),
            Voxels::F64(v) => anchored(row, &v[here], &v[first], out, |x, first| (x - first) as f32),
        }
    }
}

/// Samples of 64 bits: frame 0 holds them, every other frame their difference from it, subtracted before rounding. A
/// sample that isn't finite stays so: in its own frame, or, as frame 0, in its own word.
fn anchored<T: Copy + Rounded>(
    row: usize,
    samples: &[T],
    first: &[T],
    mut out: wgpu::WriteOnly<'_, [u8]>,
    difference: impl Fn(T, T) -> f32,
) {
    const BLOCK: usize = 128;
    let mut block = [0.0f32; BLOCK];
    for (i, (samples, first)) in samples.chunks(BLOCK).zip(first.chunks(BLOCK)).enumerate() {
        let block = &mut block[..samples.len()];
        for (word, (sample, first)) in block.iter_mut().zip(samples.iter().zip(first)) {
            *word = if row == 0 { sample.rounded() } else { difference(*sample, *first) };
        }
        out.slice(i * BLOCK * 4..(i * BLOCK + block.len()) * 4).copy_from_slice(bytemuck::cast_slice(block));
    }
}

trait Rounded {
    fn rounded(self) -> f32;
}

impl Rounded for u64 {
    fn rounded(self) -> f32 {
        self as f32
    }
}

impl Rounded for i64 {
    fn rounded(self) -> f32 {
        self as f32
    }
}

impl Rounded for f64 {
    fn rounded(self) -> f32 {
        self as f32
    }
}

/// A stretch of memory that both sides see, on its way to the device or ready to be filled.
#[derive(Debug)]
struct Chunk {
    buffer: wgpu::Buffer,
    mapping: Mapping,
}

/// Results on their way back.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) buffer: wgpu::Buffer,
    pub(super) mapping: Mapping,
}

/// Timestamps of one slab: 0 and 1 around the kernel, 2 and 3 around the way back, then two per chunk of upload.
#[derive(Debug)]
pub(super) struct Queries {
    pub(super) set: wgpu::QuerySet,
    pub(super) resolved: wgpu::Buffer,
    /// Whether copies can be timed too.
    pub(super) copies: bool,
}

/// Timestamps per slab.
pub(super) const QUERIES: u32 = 128;

/// All buffers of a run; kept for the next one.
#[derive(Debug)]
pub(super) struct Workspace {
    pub(super) sizes: Sizes,
    pub(super) uniforms: wgpu::Buffer,
    pub(super) tables: wgpu::Buffer,
    pub(super) samples: wgpu::Buffer,
    pub(super) extra: wgpu::Buffer,
    pub(super) outputs: wgpu::Buffer,
    pub(super) status: wgpu::Buffer,
    pub(super) state: wgpu::Buffer,
    chunks: Vec<Chunk>,
    turn: usize,
    pub(super) slots: Vec<Slot>,
    pub(super) queries: Option<Queries>,
}

/// What uploading took, as the host saw it.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Upload {
    pub(super) pack_seconds: f64,
    pub(super) wait_seconds: f64,
    pub(super) bytes: u64,
    /// Chunks that have timestamps.
    pub(super) timed: u32,
}

impl Workspace {
    pub(super) fn new(context: &Context, sizes: Sizes, tables: u64, uniforms: u64) -> Result<Self, Fault> {
        let storage =
            |label, size| context.buffer(label, size, Usage::STORAGE | Usage::COPY_DST | Usage::COPY_SRC, false);
        let mut chunks = Vec::with_capacity(CHUNKS);
        for _ in 0..CHUNKS {
            chunks.push(Chunk {
                buffer: context.buffer("staging", sizes.chunk, Usage::MAP_WRITE | Usage::COPY_SRC, true)?,
                mapping: Mapping::ready(),
            });
        }
        let features = context.device.features();
        let queries = if features.contains(wgpu::Features::TIMESTAMP_QUERY) {
            let set = context.scoped(|| {
                context.device.create_query_set(&wgpu::QuerySetDescriptor {
                    label: Some("times"),
                    ty: wgpu::QueryType::Timestamp,
                    count: QUERIES,
                })
            })?;
            let usage = Usage::QUERY_RESOLVE | Usage::COPY_SRC;
            Some(Queries {
                set,
                resolved: context.buffer("times", u64::from(QUERIES) * 8, usage, false)?,
                copies: features.contains(wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS),
            })
        } else {
            None
        };
        let mut slots = Vec::with_capacity(SLOTS);
        for _ in 0..SLOTS {
            let size = sizes.results() + if queries.is_some() { u64::from(QUERIES) * 8 } else { 0 };
            slots.push(Slot {
                buffer: context.buffer("results", size, Usage::MAP_READ | Usage::COPY_DST, false)?,
                mapping: Mapping::default(),
            });
        }
        Ok(Self {
            sizes,
            uniforms: context.buffer("uniforms", uniforms, Usage::UNIFORM | Usage::COPY_DST, false)?,
            tables: storage("tables", tables)?,
            samples: storage("samples", sizes.samples)?,
            extra: storage("extra", sizes.extra)?,
            outputs: storage("outputs", sizes.outputs)?,
            status: storage("status", sizes.status)?,
            state: storage("state", sizes.state)?,
            chunks,
            turn: 0,
            slots,
            queries,
        })
    }

    /// Whether a run with these sizes can use it without holding on to much more than it needs.
    pub(super) fn serves(&self, sizes: &Sizes, tables: u64, uniforms: u64) -> bool {
        self.sizes == *sizes && self.tables.size() >= tables && self.uniforms.size() >= uniforms
    }

    /// Packs rows into staging memory and sends them to the beginning of a buffer, chunk by chunk, so that the host packs
    /// while the device copies and computes.
    pub(super) fn upload(
        &mut self,
        context: &Context,
        rows: &Rows<'_>,
        target: Target,
        cancel: &Cancel,
        done: &mut Upload,
    ) -> Result<(), Fault> {
        let size = self.sizes.chunk as usize;
        let mut at = 0;
        while at < rows.bytes() {
            let bytes = size.min(rows.bytes() - at);
            let turn = self.turn;
            self.turn = (turn + 1) % self.chunks.len();
            let chunk = &mut self.chunks[turn];
            let start = Instant::now();
            context.wait(&chunk.mapping, cancel)?;
            done.wait_seconds += start.elapsed().as_secs_f64();

            let start = Instant::now();
            {
                let mut view = context
                    .scoped(|| chunk.buffer.get_mapped_range_mut(..bytes as u64))?
                    .map_err(|problem| context.fault(format!("staging memory cannot be mapped: {problem}")))?;
                rows.write_all(at..at + bytes, view.slice(..));
            }
            done.pack_seconds += start.elapsed().as_secs_f64();

            let start = Instant::now();
            context.scoped(|| chunk.buffer.unmap())?;
            let target = match target {
                Target::Samples => &self.samples,
                Target::Extra => &self.extra,
            };
            let mut encoder = context.encoder()?;
            let query = 4 + 2 * done.timed;
            let timed = self.queries.as_ref().filter(|queries| queries.copies && query + 1 < QUERIES);
            context.scoped(|| {
                if let Some(queries) = timed {
                    encoder.write_timestamp(&queries.set, query);
                }
                encoder.copy_buffer_to_buffer(&chunk.buffer, 0, target, at as u64, bytes as u64);
                if let Some(queries) = timed {
                    encoder.write_timestamp(&queries.set, query + 1);
                }
            })?;
            done.timed += u32::from(timed.is_some());
            context.submit(encoder)?;
            chunk.mapping = context.map(&chunk.buffer, wgpu::MapMode::Write)?;
            done.wait_seconds += start.elapsed().as_secs_f64();
            done.bytes += bytes as u64;
            at += bytes;
        }
        Ok(())
    }
}

/// Which buffer to upload to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target {
    Samples,
    Extra,
}

#[cfg(test)]
mod tests {
    use super::super::slabs::pieces;
    use super::*;

    fn packed(rows: &Rows<'_>) -> Vec<u8> {
        let mut bytes = vec![0xaa; rows.bytes()];
        rows.write_all(0..rows.bytes(), wgpu::WriteOnly::from_mut(bytes.as_mut_slice()));
        // The same in small steps: chunks must not matter.
        for step in [4, 16, 36] {
            let mut steps = vec![0xaa; rows.bytes()];
            for start in (0..steps.len()).step_by(step) {
                let range = start..steps.len().min(start + step);
                rows.write(range.clone(), wgpu::WriteOnly::from_mut(&mut steps[range]));
            }
            assert_eq!(steps, bytes, "in steps of {step}");
        }
        bytes
    }

    #[test]
    fn rows_of_odd_length_begin_at_whole_words() {
        let voxels = Voxels::I16(vec![1, 2, 3, 4, 5, 6]);
        let pieces = pieces(3, None);
        let window = Window { voxels: &voxels, range: 0..3, first_frame: 0 };
        let rows = Rows { kind: RowKind::Samples { window: &window, frames: 2 }, pieces: &pieces, voxels: 3 };
        assert_eq!(rows.row_words(), 2);
        let bytes = packed(&rows);
        let words: Vec<i16> = bytes.chunks(2).map(|b| i16::from_ne_bytes([b[0], b[1]])).collect();
        let padding = i16::from_ne_bytes([0xaa; 2]);
        assert_eq!(words, [1, 2, 3, padding, 4, 5, 6, padding]);
    }

    #[test]
    fn pieces_are_gathered() {
        let voxels = Voxels::U8((0..100).collect());
        let mut inside = [0u32; 50];
        for i in [3, 4, 30, 31, 32, 49] {
            inside[i] = 1;
        }
        let pieces = pieces(50, Some(&inside));
        let window = Window { voxels: &voxels, range: 0..50, first_frame: 0 };
        let rows = Rows { kind: RowKind::Samples { window: &window, frames: 2 }, pieces: &pieces, voxels: 6 };
        let bytes = packed(&rows);
        assert_eq!(bytes, [3, 4, 30, 31, 32, 49, 0xaa, 0xaa, 53, 54, 80, 81, 82, 99, 0xaa, 0xaa]);
    }

    #[test]
    fn long_samples_are_subtracted_before_they_are_rounded() {
        let far = 1i64 << 60;
        let cases: Vec<(Voxels, Vec<f32>)> = vec![
            (
                Voxels::I64(vec![far, i64::MIN, far + 3, i64::MAX]),
                vec![far as f32, i64::MIN as f32, 3.0, 2f32.powi(64)],
            ),
            (Voxels::U64(vec![5, u64::MAX, 3, 0]), vec![5.0, 2f32.powi(64), -2.0, -(2f32.powi(64))]),
            (Voxels::F64(vec![1e15, -1e15, 1e15 + 1.0, 0.5 - 1e15]), vec![1e15, -1e15, 1.0, 0.5]),
        ];
        for (voxels, expected) in cases {
            let pieces = pieces(2, None);
            let window = Window { voxels: &voxels, range: 0..2, first_frame: 0 };
            let rows = Rows { kind: RowKind::Samples { window: &window, frames: 2 }, pieces: &pieces, voxels: 2 };
            let words: Vec<f32> = packed(&rows).chunks(4).map(|b| f32::from_ne_bytes(b.try_into().unwrap())).collect();
            assert_eq!(words, expected, "{}", voxels.type_name());
        }
        let voxels = Voxels::F64(vec![f64::NAN, 1.0, 2.0, f64::INFINITY]);
        let pieces = pieces(2, None);
        let window = Window { voxels: &voxels, range: 0..2, first_frame: 0 };
        let rows = Rows { kind: RowKind::Samples { window: &window, frames: 2 }, pieces: &pieces, voxels: 2 };
        let finite: Vec<bool> =
            packed(&rows).chunks(4).map(|b| f32::from_ne_bytes(b.try_into().unwrap()).is_finite()).collect();
        assert_eq!(finite, [false, true, false, false]);
    }
}
