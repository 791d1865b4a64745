//! Voxels that a kernel leaves for later, put side by side.
//!
//! What takes long is often asked for by a few voxels in many blocks: those that enhance, say, between others that don't. A
//! block takes as long for one of them as for all. So a kernel may leave them, and they go through its text once more, in
//! blocks of their own. What a voxel gets does not depend on its neighbours.

use super::runnable::{Samples, Scan, Tile};
use super::short::ShortLanes;

/// Vectors are stored as a whole: beyond the voxels there is room for two of the longest.
const BEYOND: usize = 64;

/// Working memory for such voxels, of one kernel and series.
#[derive(Debug, Default)]
pub struct Later {
    /// Their places in the tile that they come from.
    positions: Vec<u32>,
    /// Numbers from one frame, layer or row to the next.
    stride: usize,
    differences: Vec<f32>,
    short: Vec<i16>,
    /// What a scan found in them.
    found: Vec<f32>,
    first: Vec<f32>,
    finite: Vec<f32>,
    extra: Vec<f32>,
    words: Vec<u32>,
}

impl Later {
    /// Nothing is left yet, of a tile with so many `layers` of extra maps, numbers that a scan finds and rows of results.
    pub(super) fn begin(&mut self, tile: &Tile<'_>, layers: usize, numbers: usize, rows: usize) {
        self.positions.clear();
        let stride = tile.length + BEYOND;
        if stride <= self.stride {
            return;
        }
        self.stride = stride;
        match tile.samples {
            Samples::Differences(_) => self.differences.resize(tile.frames * stride, 0.0),
            Samples::Short(_) => self.short.resize(tile.frames * stride, 0),
        }
        self.found.resize(numbers * stride, 0.0);
        self.first.resize(stride, 0.0);
        self.finite.resize(stride, 1.0);
        self.extra.resize(layers * stride, 0.0);
        self.words.resize(rows * stride, 0);
    }

    /// Whether nothing was left.
    pub(super) fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// Takes voxels of a block, a bit for each, with what is known of them; their samples are finite.
    #[inline(always)]
    pub(super) fn take<L: ShortLanes<Stored = f32>>(
        &mut self,
        lanes: L,
        (block, voxels): (usize, u32),
        (samples, stride): (Samples<'_, f32>, usize),
        first: L::F,
        extra: &[L::F],
        found: &[L::F],
    ) {
        let at = self.positions.len();
        match samples {
            Samples::Differences(from) => {
                for (frame, to) in self.differences.chunks_exact_mut(self.stride).enumerate() {
                    lanes.pack(lanes.load(&from[frame * stride + block..]), voxels, &mut to[at..]);
                }
            }
            Samples::Short(from) => {
                for (frame, to) in self.short.chunks_exact_mut(self.stride).enumerate() {
                    lanes.pack_short(lanes.short(&from[frame * stride + block..]), voxels, &mut to[at..]);
                }
            }
        }
        lanes.pack(first, voxels, &mut self.first[at..]);
        for (layer, values) in extra.iter().enumerate() {
            lanes.pack(*values, voxels, &mut self.extra[layer * self.stride + at..]);
        }
        for (number, values) in found.iter().enumerate() {
            lanes.pack(*values, voxels, &mut self.found[number * self.stride + at..]);
        }
        let mut rest = voxels;
        while rest != 0 {
            self.positions.push(block as u32 + rest.trailing_zeros());
            rest &= rest - 1;
        }
    }

    /// They as a tile of their own, like the one that they come from.
    pub(super) fn tile(&mut self, tile: &Tile<'_>) -> Tile<'_> {
        Tile {
            level: tile.level,
            stride: self.stride,
            length: self.positions.len(),
            frames: tile.frames,
            samples: match tile.samples {
                Samples::Differences(_) => Samples::Differences(&self.differences),
                Samples::Short(_) => Samples::Short(&self.short),
            },
            scan: match tile.scan {
                Scan::None => Scan::None,
                Scan::Kept(..) | Scan::Found(_) => Scan::Found(&self.found),
            },
            first: &self.first,
            finite: &self.finite,
            extra: &self.extra,
            inside: None,
            words: &mut self.words,
            word_stride: self.stride,
        }
    }

    /// Puts their results where they belong.
    pub(super) fn put_back(&self, tile: &mut Tile<'_>, rows: usize) {
        for row in 0..rows {
            let from = &self.words[row * self.stride..];
            let to = &mut tile.words[row * tile.word_stride..];
            for (word, position) in from.iter().zip(&self.positions) {
                to[*position as usize] = *word;
            }
        }
    }
}
