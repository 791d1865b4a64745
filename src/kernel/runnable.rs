//! A prepared kernel as engines see it: without its type, so that its text is compiled once, with it, and not again in
//! every program that runs it.

use std::fmt;

use fearless_simd::Level;

use super::bounded::{Bounded, BoundedWord};
use super::lanes::{Double, Numbers as _, Wide};
use super::later::Later;
use super::short::{ShortCurve, ShortLanes};
use super::{Block, Curve, Leave, Output, PreparedKernel, Program, Rows};
use crate::maps::SettingValue;

/// Samples in working memory.
#[derive(Debug, Clone, Copy)]
pub enum Samples<'a, T> {
    /// Differences from each voxel's first sample.
    Differences(&'a [T]),
    /// 16-bit samples themselves, all of them shifted by the same number or none.
    Short(ShortSamples<'a>),
}

/// 16-bit samples in working memory, in blocks of some voxels.
#[derive(Debug, Clone, Copy)]
pub struct ShortSamples<'a> {
    pub(crate) numbers: &'a [i16],
    /// Numbers from one frame to the next.
    pub(crate) stride: usize,
    /// Numbers from one block to the next.
    pub(crate) block: usize,
    /// What each of them is more than what is stored.
    pub(crate) shift: f32,
}

impl<'a> ShortSamples<'a> {
    /// The voxels of a block.
    pub(crate) const VOXELS: usize = 32;

    /// The samples of voxels side by side, of one block.
    #[inline(always)]
    pub(super) fn curve(self, voxel: usize) -> ShortCurve<'a> {
        let start = voxel / Self::VOXELS * self.block + voxel % Self::VOXELS;
        ShortCurve { samples: &self.numbers[start..], stride: self.stride }
    }
}

/// Neighbouring voxels in working memory, as the CPU engine gives them to a kernel.
#[derive(Debug)]
pub struct Tile<'a> {
    pub(crate) level: Level,
    /// Numbers from one frame to the next, and from one extra layer to the next.
    pub(crate) stride: usize,
    /// Voxels; memory goes on to the next multiple of the lanes' width.
    pub(crate) length: usize,
    pub(crate) frames: usize,
    pub(crate) samples: Samples<'a, f32>,
    /// What a scan of the samples found before, number by number.
    pub(crate) found: Option<&'a [f32]>,
    pub(crate) first: &'a [f32],
    /// 1 where the voxel's samples can be worked with, 0 elsewhere.
    pub(crate) finite: &'a [f32],
    /// Layer by layer.
    pub(crate) extra: &'a [f32],
    /// Voxels with label 0 need no results.
    pub(crate) inside: Option<&'a [u32]>,
    pub(crate) words: &'a mut [u32],
    /// Words from one row of results to the next.
    pub(crate) word_stride: usize,
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
    /// [`PreparedKernel::judge`].
    fn judge(&self, curve: &Curve<'_, Double>, engine: &[f64], definition: &[f64]) -> Option<Vec<bool>>;
    /// [`PreparedKernel::evaluate`] for a tile of voxels in f32, by the widest vector instructions that there are.
    fn evaluate_tile(&self, tile: &mut Tile<'_>, later: &mut Later);
}

impl fmt::Debug for dyn Runnable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runnable").field("outputs", &self.outputs().len()).finish_non_exhaustive()
    }
}

/// Does something with the lanes of a level. A kernel is compiled once per level, so only those that matter: SSE4.2 is hardly
/// faster than the SSE2 of every x86-64. AVX-512 has registers to spare for two vectors at a time, unless a kernel fills them;
/// elsewhere sixteen voxels are two or more.
macro_rules! at_level {
    ($level:expr, $two_vectors:expr, $lanes:ident => $work:expr) => {{
        #[cfg(target_arch = "x86_64")]
        {
            use fearless_simd::Simd as _;
            if let Some(avx512) = $level.as_avx512() {
                if $two_vectors {
                    let $lanes = super::lanes::Twice(Wide(avx512));
                    avx512.vectorize(
                        #[inline(always)]
                        || $work,
                    )
                } else {
                    let $lanes = Wide(avx512);
                    avx512.vectorize(
                        #[inline(always)]
                        || $work,
                    )
                }
            } else if let Some(avx2) = $level.as_avx2() {
                let $lanes = Wide(avx2);
                avx2.vectorize(
                    #[inline(always)]
                    || $work,
                )
            } else if let Some(sse2) = $level.as_sse2() {
                let $lanes = Wide(sse2);
                sse2.vectorize(
                    #[inline(always)]
                    || $work,
                )
            } else {
                unreachable!("every x86-64 has SSE2")
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        fearless_simd::dispatch!($level, simd => {
            let $lanes = Wide(simd);
            $work
        })
    }};
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

    fn judge(&self, curve: &Curve<'_, Double>, engine: &[f64], definition: &[f64]) -> Option<Vec<bool>> {
        PreparedKernel::judge(self, curve, engine, definition)
    }

    fn evaluate_tile(&self, tile: &mut Tile<'_>, later: &mut Later) {
        let rows = PreparedKernel::rows(self) + 1;
        later.begin(tile, PreparedKernel::extra(self).len(), self.scanned(), rows);
        evaluate_at_level(self, tile, Some(later));
        if !later.is_empty() {
            evaluate_at_level(self, &mut later.tile(tile), None);
            later.put_back(tile, rows);
        }
    }
}

/// Evaluates a tile by the widest lanes; some voxels may be left for later if that is given.
fn evaluate_at_level<P: PreparedKernel>(kernel: &P, tile: &mut Tile<'_>, later: Option<&mut Later>) {
    at_level!(tile.level, P::TWO_VECTORS, lanes => {
        if P::TOGETHER > 1 { evaluate_together(lanes, kernel, tile) } else { evaluate_blocks(lanes, kernel, tile, later) }
    });
}

/// The same for a kernel that takes several blocks together: it doesn't leave voxels for later, and has no scan.
#[inline(always)]
fn evaluate_together<L, P>(lanes: L, kernel: &P, tile: &mut Tile<'_>)
where
    L: ShortLanes<Stored = f32, Word = u32>,
    P: PreparedKernel,
{
    let mut scratch = vec![lanes.splat(0.0); kernel.scratch()];
    let layers = kernel.extra().len();
    let mut extra = vec![lanes.splat(0.0); tile.length.div_ceil(L::WIDTH) * layers];
    for (number, start) in (0..tile.length).step_by(L::WIDTH).enumerate() {
        for layer in 0..layers {
            extra[number * layers + layer] = lanes.load(&tile.extra[layer * tile.stride + start..]);
        }
    }
    let mut blocks = Vec::with_capacity(P::TOGETHER);
    for start in (0..tile.length).step_by(L::WIDTH) {
        let wanted = wanted(tile, start, L::WIDTH);
        if wanted != 0 {
            let number = start / L::WIDTH;
            let curve = curve_at(lanes, tile, start, &extra[number * layers..]);
            blocks.push(Block { number, curve, wanted: lanes.mask_of(wanted) });
        }
        if blocks.len() == P::TOGETHER || start + L::WIDTH >= tile.length && !blocks.is_empty() {
            let rows = &mut Rows::new(lanes, tile.words, tile.word_stride);
            kernel.evaluate_together(lanes, &blocks, &mut scratch, rows);
            blocks.clear();
        }
    }
}

/// The curves of the voxels from one on.
#[inline(always)]
fn curve_at<'a, L>(lanes: L, tile: &Tile<'a>, start: usize, extra: &'a [L::F]) -> Curve<'a, L>
where
    L: ShortLanes<Stored = f32, Word = u32>,
{
    match tile.samples {
        Samples::Differences(differences) => {
            let first = lanes.load(&tile.first[start..]);
            let finite = lanes.load(&tile.finite[start..]).gt(lanes.splat(0.0));
            Curve::new(lanes, &differences[start..], tile.stride, first, finite, extra)
        }
        Samples::Short(samples) => {
            let curve = samples.curve(start);
            let first = lanes.load_short(curve.samples) - lanes.splat(f64::from(samples.shift));
            Curve::of_short(lanes, curve, first, extra)
        }
    }
}

/// A bit for each of some voxels that lies neither after the end nor outside the mask.
fn wanted(tile: &Tile<'_>, start: usize, count: usize) -> u32 {
    let wanted = |i: &usize| start + i < tile.length && tile.inside.is_none_or(|inside| inside[start + i] != 0);
    (0..count).filter(wanted).fold(0, |bits, i| bits | 1 << i)
}

#[inline(always)]
fn evaluate_blocks<L, P>(lanes: L, kernel: &P, tile: &mut Tile<'_>, mut later: Option<&mut Later>)
where
    L: ShortLanes<Stored = f32, Word = u32>,
    P: PreparedKernel,
{
    let mut scratch = vec![lanes.splat(0.0); kernel.scratch()];
    let mut extra = vec![lanes.splat(0.0); kernel.extra().len()];
    let mut found = vec![lanes.splat(0.0); kernel.scanned()];
    for block in (0..tile.length).step_by(L::WIDTH) {
        let end = tile.length.min(block + L::WIDTH);
        if tile.inside.is_some_and(|inside| inside[block..end].iter().all(|label| *label == 0)) {
            continue;
        }
        for (layer, extra) in extra.iter_mut().enumerate() {
            *extra = lanes.load(&tile.extra[layer * tile.stride + block..]);
        }
        let mut curve = curve_at(lanes, tile, block, &extra);
        let mut holds = true;
        if let Samples::Short(samples) = tile.samples {
            let scanned = match tile.found {
                Some(numbers) => {
                    for (number, found) in found.iter_mut().enumerate() {
                        *found = lanes.load(&numbers[number * tile.stride + block..]);
                    }
                    true
                }
                None => !found.is_empty() && kernel.scan(lanes, samples.curve(block), &mut found),
            };
            holds = scanned || found.is_empty();
            curve.scanned = scanned.then_some(&found);
        }
        // What a scan found goes along with the voxels that are left.
        let leave = if later.is_some() && holds { Leave::Few } else { Leave::Nothing };
        let rows = &mut Rows::new(lanes, &mut tile.words[block..], tile.word_stride);
        let voxels = kernel.evaluate_or_leave(lanes, curve, &mut scratch, rows, leave);
        let left = lanes.bitmask(voxels);
        if left != 0
            && let Some(later) = &mut later
        {
            let wanted = wanted(tile, block, L::WIDTH);
            let frames = match tile.samples {
                Samples::Short(samples) if !found.is_empty() => {
                    kernel.frames_looked_at(lanes, samples.curve(block), &found, voxels)
                }
                _ => None,
            };
            let frames = frames.unwrap_or(tile.frames).min(tile.frames);
            later.take(lanes, (block, left & wanted, frames), (tile.samples, tile.stride), curve.first, &extra, &found);
        }
    }
}
