//! A prepared kernel as engines see it: without its type, so that its text is compiled once, with it, and not again in
//! every program that runs it.

use std::fmt;

use fearless_simd::Level;

use super::bounded::{Bounded, BoundedWord};
use super::lanes::{Double, Numbers as _, Wide};
use super::later::Later;
use super::short::{ShortCurve, ShortLanes};
use super::short_tile::{self, ShortRows};
use super::{Curve, Leave, Output, PreparedKernel, Program, Rows};
use crate::maps::SettingValue;

/// Samples in working memory.
#[derive(Debug, Clone, Copy)]
pub enum Samples<'a, T> {
    /// Differences from each voxel's first sample.
    Differences(&'a [T]),
    /// 16-bit samples themselves, all of them shifted by the same number or none.
    Short(&'a [i16]),
}

/// What is known from a scan of 16-bit samples.
#[derive(Debug)]
pub enum Scan<'a> {
    /// Nothing that holds.
    None,
    /// What it has kept of the tile's voxels, and its sums.
    Kept(&'a mut [i16], &'a mut [i32]),
    /// What it found, number by number.
    Found(&'a [f32]),
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
    pub(crate) scan: Scan<'a>,
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
    /// Copies rows of 16-bit samples into a tile, and scans them on the way if the kernel can. Returns whether what the scan has
    /// kept holds.
    fn load_rows(&self, rows: &mut ShortRows<'_>) -> bool;
    /// [`PreparedKernel::scan_keeps`].
    fn scan_keeps(&self) -> usize;
}

impl fmt::Debug for dyn Runnable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runnable").field("outputs", &self.outputs().len()).finish_non_exhaustive()
    }
}

/// Does something with the lanes of a level. A kernel is compiled once per level, so only those that matter: SSE4.2 is hardly
/// faster than the SSE2 of every x86-64. AVX-512 has registers to spare for two vectors at a time; elsewhere sixteen voxels
/// are two or more.
macro_rules! at_level {
    ($level:expr, $lanes:ident => $work:expr) => {{
        #[cfg(target_arch = "x86_64")]
        {
            use fearless_simd::Simd as _;
            if let Some(avx512) = $level.as_avx512() {
                let $lanes = super::lanes::Twice(Wide(avx512));
                avx512.vectorize(
                    #[inline(always)]
                    || $work,
                )
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

    fn load_rows(&self, rows: &mut ShortRows<'_>) -> bool {
        at_level!(rows.level, lanes => short_tile::load(lanes, self, rows))
    }

    fn scan_keeps(&self) -> usize {
        PreparedKernel::scan_keeps(self)
    }
}

/// Evaluates a tile by the widest lanes; some voxels may be left for later if that is given.
fn evaluate_at_level<P: PreparedKernel>(kernel: &P, tile: &mut Tile<'_>, later: Option<&mut Later>) {
    at_level!(tile.level, lanes => evaluate_blocks(lanes, kernel, tile, later));
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
    let leave = if later.is_some() { Leave::Few } else { Leave::Nothing };
    for block in (0..tile.length).step_by(L::WIDTH) {
        let end = tile.length.min(block + L::WIDTH);
        if tile.inside.is_some_and(|inside| inside[block..end].iter().all(|label| *label == 0)) {
            continue;
        }
        for (layer, extra) in extra.iter_mut().enumerate() {
            *extra = lanes.load(&tile.extra[layer * tile.stride + block..]);
        }
        let first = lanes.load(&tile.first[block..]);
        let curve = match tile.samples {
            Samples::Differences(differences) => {
                let finite = lanes.load(&tile.finite[block..]).gt(lanes.splat(0.0));
                Curve::new(lanes, &differences[block..], tile.stride, first, finite, &extra)
            }
            Samples::Short(samples) => {
                let curve = ShortCurve { samples: &samples[block..], stride: tile.stride };
                match &mut tile.scan {
                    Scan::None => {}
                    Scan::Kept(kept, sums) => {
                        let state = short_tile::state_of::<L>(kernel.scan_keeps(), block, kept, sums);
                        kernel.scan_end(lanes, curve, state, &mut found);
                    }
                    Scan::Found(numbers) => {
                        for (number, found) in found.iter_mut().enumerate() {
                            *found = lanes.load(&numbers[number * tile.stride + block..]);
                        }
                    }
                }
                let scanned = !matches!(tile.scan, Scan::None);
                Curve::of_short(lanes, curve, first, &extra, scanned.then_some(&found))
            }
        };
        let rows = &mut Rows::new(lanes, &mut tile.words[block..], tile.word_stride);
        let left = lanes.bitmask(kernel.evaluate_or_leave(lanes, curve, &mut scratch, rows, leave));
        if left != 0
            && let Some(later) = &mut later
        {
            // Voxels after the end and outside the mask need no results.
            let wanted = |i: &usize| block + i < end && tile.inside.is_none_or(|inside| inside[block + i] != 0);
            let wanted = (0..L::WIDTH).filter(wanted).fold(0, |bits, i| bits | 1 << i);
            later.take(lanes, (block, left & wanted), (tile.samples, tile.stride), first, &extra, &found);
        }
    }
}
