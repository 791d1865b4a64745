//! Voxels that a kernel leaves for later, put side by side.
//!
//! What takes long is often asked for by a few voxels in many blocks: those that enhance, say, between others that don't. A
//! block takes as long for one of them as for all. So a kernel may leave them, and they go through its text once more, in
//! blocks of their own. What a voxel gets does not depend on its neighbours.

use super::runnable::{Samples, Tile};

/// How voxels of a tile lie in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    /// Voxels side by side in a block.
    pub(super) width: usize,
    /// 16-bit numbers that a scan keeps per voxel.
    pub(super) keeps: usize,
    /// Layers of extra maps.
    pub(super) layers: usize,
    /// Rows of results, the status included.
    pub(super) rows: usize,
}

/// Working memory for such voxels.
#[derive(Debug, Default)]
pub struct Later {
    /// Their places in the tile that they come from.
    pub(super) positions: Vec<u32>,
    differences: Vec<f32>,
    short: Vec<i16>,
    kept: Vec<i16>,
    sums: Vec<i32>,
    first: Vec<f32>,
    finite: Vec<f32>,
    extra: Vec<f32>,
    words: Vec<u32>,
    /// Voxels that there is room for.
    stride: usize,
}

impl Later {
    /// A tile of these voxels alone. The last one stands for those after the end.
    pub(super) fn gather(&mut self, tile: &Tile<'_>, layout: Layout) -> Tile<'_> {
        let Layout { width, keeps, layers, rows } = layout;
        let count = self.positions.len();
        let last = self.positions[count - 1];
        self.positions.resize(count.next_multiple_of(width), last);
        let (positions, stride) = (&self.positions[..], self.positions.len());
        self.stride = stride;
        let all = |source: &[f32], to: &mut Vec<f32>, layers: usize| {
            collect(source, tile.stride, positions, layers, to);
        };
        all(tile.first, &mut self.first, 1);
        all(tile.finite, &mut self.finite, 1);
        all(tile.extra, &mut self.extra, layers);
        match tile.samples {
            Samples::Differences(from) => collect(from, tile.stride, positions, tile.frames, &mut self.differences),
            Samples::Short(from) => collect(from, tile.stride, positions, tile.frames, &mut self.short),
        }
        if let Some((kept, sums)) = &tile.kept {
            // Block by block, and within a block number by number.
            let place = |voxel: usize, number: usize| (voxel / width * keeps + number) * width + voxel % width;
            self.kept.resize(keeps * stride, 0);
            for (to, from) in positions.iter().enumerate() {
                for number in 0..keeps {
                    self.kept[place(to, number)] = kept[place(*from as usize, number)];
                }
            }
            collect(sums, 0, positions, 1, &mut self.sums);
        }
        self.words.resize(rows * stride, 0);
        Tile {
            level: tile.level,
            stride,
            length: count,
            frames: tile.frames,
            samples: match tile.samples {
                Samples::Differences(_) => Samples::Differences(&self.differences),
                Samples::Short(_) => Samples::Short(&self.short),
            },
            kept: tile.kept.is_some().then_some((&mut self.kept, &mut self.sums)),
            first: &self.first,
            finite: &self.finite,
            extra: &self.extra,
            inside: None,
            words: &mut self.words,
            word_stride: stride,
        }
    }

    /// Puts their results where they belong.
    pub(super) fn scatter(&self, tile: &mut Tile<'_>, rows: usize) {
        for row in 0..rows {
            let to = &mut tile.words[row * tile.word_stride..];
            for (word, position) in self.words[row * self.stride..].iter().zip(&self.positions) {
                to[*position as usize] = *word;
            }
        }
    }
}

/// Numbers of voxels at these places, of as many layers one behind the other.
fn collect<T: Copy + Default>(from: &[T], stride: usize, positions: &[u32], layers: usize, to: &mut Vec<T>) {
    to.resize(layers * positions.len(), T::default());
    for (layer, to) in to.chunks_exact_mut(positions.len()).enumerate() {
        let from = &from[layer * stride..];
        for (to, position) in to.iter_mut().zip(positions) {
            *to = from[*position as usize];
        }
    }
}
