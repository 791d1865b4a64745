//! A prepared kernel as engines see it: without its type, so that its text is compiled once, with it, and not again in
//! every program that runs it.

use std::fmt;

use fearless_simd::{Level, dispatch};

use super::bounded::{Bounded, BoundedWord};
use super::lanes::{Double, Lanes, Numbers as _, Wide};
use super::{Curve, Output, PreparedKernel, Program, Rows};
use crate::maps::SettingValue;

/// Neighbouring voxels in working memory, as the CPU engine gives them to a kernel.
#[derive(Debug)]
pub struct Tile<'a> {
    pub(crate) level: Level,
    /// Numbers from one frame to the next, and words from one row to the next.
    pub(crate) stride: usize,
    /// Voxels; memory goes on to the next multiple of the lanes' width.
    pub(crate) length: usize,
    pub(crate) differences: &'a [f32],
    pub(crate) first: &'a [f32],
    /// 1 where the voxel's samples can be worked with, 0 elsewhere.
    pub(crate) finite: &'a [f32],
    /// Layer by layer.
    pub(crate) extra: &'a [f32],
    /// Voxels with label 0 need no results.
    pub(crate) inside: Option<&'a [u32]>,
    pub(crate) words: &'a mut [u32],
}

/// A prepared kernel without its type. Every [`PreparedKernel`] is one.
pub trait Runnable: Send + Sync {
    /// [`PreparedKernel::outputs`].
    fn outputs(&self) -> &[Output];
    /// [`PreparedKernel::rows`].
    fn rows(&self) -> usize;
    /// [`PreparedKernel::settings`].
    fn settings(&self) -> Vec<(String, SettingValue)>;
    /// [`PreparedKernel::status_meanings`].
    fn status_meanings(&self) -> &'static [(u32, &'static str)];
    /// [`PreparedKernel::extra`].
    fn extra(&self) -> &[Vec<f32>];
    /// [`PreparedKernel::program`].
    fn program(&self) -> Program;
    /// [`PreparedKernel::with_frames`].
    fn with_frames(&self, frames: &[usize]) -> Option<Box<dyn Runnable>>;
    /// [`PreparedKernel::evaluate`] for one voxel in f64; one word per row, then the status.
    fn evaluate_double(&self, curve: Curve<'_, Double>) -> Vec<f64>;
    /// The same with bounds on what 32-bit engines may lose.
    fn evaluate_bounded<'a>(&self, lanes: Bounded<'a>, curve: Curve<'_, Bounded<'a>>) -> Vec<BoundedWord>;
    /// The same for a tile of voxels in f32, by the widest vector instructions that there are.
    fn evaluate_tile(&self, tile: &mut Tile<'_>);
}

impl fmt::Debug for dyn Runnable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runnable").field("outputs", &self.outputs().len()).finish_non_exhaustive()
    }
}

impl<P: PreparedKernel + 'static> Runnable for P {
    fn outputs(&self) -> &[Output] {
        PreparedKernel::outputs(self)
    }
    fn rows(&self) -> usize {
        PreparedKernel::rows(self)
    }
    fn settings(&self) -> Vec<(String, SettingValue)> {
        PreparedKernel::settings(self)
    }
    fn status_meanings(&self) -> &'static [(u32, &'static str)] {
        PreparedKernel::status_meanings(self)
    }
    fn extra(&self) -> &[Vec<f32>] {
        PreparedKernel::extra(self)
    }
    fn program(&self) -> Program {
        PreparedKernel::program(self)
    }
    fn with_frames(&self, frames: &[usize]) -> Option<Box<dyn Runnable>> {
        PreparedKernel::with_frames(self, frames).map(|kernel| Box::new(kernel) as Box<dyn Runnable>)
    }

    fn evaluate_double(&self, curve: Curve<'_, Double>) -> Vec<f64> {
        let mut words = vec![f64::NAN; PreparedKernel::rows(self) + 1];
        let mut scratch = vec![0.0; self.scratch()];
        self.evaluate(Double, curve, &mut scratch, &mut Rows::new(Double, &mut words, 1));
        words
    }

    fn evaluate_bounded<'a>(&self, lanes: Bounded<'a>, curve: Curve<'_, Bounded<'a>>) -> Vec<BoundedWord> {
        let mut words = vec![BoundedWord::default(); PreparedKernel::rows(self) + 1];
        PreparedKernel::evaluate_bounded(self, lanes, curve, &mut words);
        words
    }

    fn evaluate_tile(&self, tile: &mut Tile<'_>) {
        // AVX-512 has registers to spare for two vectors at a time; elsewhere sixteen voxels are two vectors or more.
        #[cfg(target_arch = "x86_64")]
        if let Some(avx512) = tile.level.as_avx512() {
            return fearless_simd::Simd::vectorize(
                avx512,
                #[inline(always)]
                || evaluate_blocks(super::lanes::Twice(Wide(avx512)), self, tile),
            );
        }
        dispatch!(tile.level, simd => evaluate_blocks(Wide(simd), self, tile));
    }
}

#[inline(always)]
fn evaluate_blocks<L: Lanes<Stored = f32, Word = u32>, P: PreparedKernel>(lanes: L, kernel: &P, tile: &mut Tile<'_>) {
    let mut scratch = vec![lanes.splat(0.0); kernel.scratch()];
    let mut extra = vec![lanes.splat(0.0); kernel.extra().len()];
    for block in (0..tile.length).step_by(L::WIDTH) {
        let end = tile.length.min(block + L::WIDTH);
        if tile.inside.is_some_and(|inside| inside[block..end].iter().all(|label| *label == 0)) {
            continue;
        }
        for (layer, extra) in extra.iter_mut().enumerate() {
            *extra = lanes.load(&tile.extra[layer * tile.stride + block..]);
        }
        let first = lanes.load(&tile.first[block..]);
        let finite = lanes.load(&tile.finite[block..]).gt(lanes.splat(0.0));
        let curve = Curve::new(lanes, &tile.differences[block..], tile.stride, first, finite, &extra);
        kernel.evaluate(lanes, curve, &mut scratch, &mut Rows::new(lanes, &mut tile.words[block..], tile.stride));
    }
}
