//! The contract between what is computed per voxel and the engines that compute it.
//!
//! Everything has one shape: a curve of samples, tables shared by all voxels and maps per voxel go in; maps and a status
//! word come out. A kernel never sees a file or a device, and an engine never sees a formula.

pub mod bounded;
pub mod lanes;
mod later;
mod runnable;
pub mod short;

use std::borrow::Cow;
use std::fmt;

use crate::error::Result;
use crate::maps::SettingValue;
use crate::quantity::{Quantity, SignalKind};
use crate::reduction::Reductions;
use crate::series::{Mask, Series};
use bounded::{Bounded, BoundedWord};
use lanes::{Double, Lanes};
pub use later::Later;
pub use runnable::{Runnable, Samples, ShortSamples, Tile};
use short::{ShortCurve, ShortLanes};

/// Samples whose difference from the voxel's first one is not below this (2^40) in magnitude count as not finite: 32-bit
/// arithmetic would overflow further on.
pub const LARGEST_DIFFERENCE: f64 = (1u64 << 40) as f64;

/// What one output row holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OutputKind {
    /// A number per voxel.
    Float,
    /// A label per voxel, 0 for no answer.
    Label,
    /// A curve per voxel: this many rows in sequence.
    Curve(usize),
}

impl OutputKind {
    /// Rows that it takes.
    pub fn rows(self) -> usize {
        match self {
            OutputKind::Float | OutputKind::Label => 1,
            OutputKind::Curve(samples) => samples,
        }
    }
}

/// One output of a kernel.
#[derive(Debug, Clone)]
pub struct Output {
    /// What it is.
    pub quantity: Quantity,
    /// How it is laid out.
    pub kind: OutputKind,
}

/// What a kernel prepares its tables from.
#[derive(Debug)]
pub struct Input<'a> {
    /// The series.
    pub series: &'a Series,
    /// Where to look; everywhere if there is none.
    pub mask: Option<&'a Mask>,
    /// Sums over the whole series, computed once on the host and the same for every engine.
    pub reductions: &'a Reductions<'a>,
}

/// A computation per voxel, with its settings.
pub trait VoxelKernel: Sync {
    /// Its name, as of its shader file.
    fn name(&self) -> &'static str;

    /// What the samples are: decides the units of the maps.
    fn kind(&self) -> SignalKind;

    /// Decides everything that is shared by all voxels, in f64. Returns a boxed [`PreparedKernel`].
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) if the settings don't fit the series.
    fn prepare(&self, input: &Input<'_>) -> Result<Box<dyn Runnable>>;
}

/// Whether a kernel may leave voxels for later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// All of them get their results now.
    Nothing,
    /// Those that take long, where they are few.
    Few,
}

/// A kernel with its tables: what engines run.
pub trait PreparedKernel: Send + Sync + Sized {
    /// Whether AVX-512 takes two vectors of voxels at a time: the second one's instructions fill the time in which the first
    /// one's results are awaited. Not for texts whose sums fill the registers once.
    const TWO_VECTORS: bool = true;

    /// Blocks of voxels that are evaluated together, at most. In a search, of which some voxels take many turns and others few,
    /// each lane goes on to its voxel of the next block without waiting for the others.
    const TOGETHER: usize = 1;

    /// What comes out, in the order of the rows. The status word is one more row, after the last of these.
    fn outputs(&self) -> &[Output];

    /// Output rows, without the status row.
    fn rows(&self) -> usize {
        self.outputs().iter().map(|output| output.kind.rows()).sum()
    }

    /// All settings, the decided ones included, for the record. What is decided from [`Input::reductions`] must show here: by
    /// this, engines tell whether a kernel would decide the same again.
    fn settings(&self) -> Vec<(String, SettingValue)>;

    /// The kernel's own status bits (15 and up) with their meanings.
    fn status_meanings(&self) -> &'static [(u32, &'static str)] {
        &[]
    }

    /// Maps per voxel that the kernel reads beside the samples, in the order of its layers; x fastest.
    fn extra(&self) -> &[Vec<f32>] {
        &[]
    }

    /// How many numbers of working memory the reference text needs per voxel.
    fn scratch(&self) -> usize;

    /// The definition in code, for [`Lanes::WIDTH`] voxels at once.
    fn evaluate<L: Lanes>(&self, lanes: L, curve: Curve<'_, L>, scratch: &mut [L::F], rows: &mut Rows<'_, L>);

    /// The same for several blocks, [`TOGETHER`](Self::TOGETHER) at most.
    #[inline(always)]
    fn evaluate_together<L: Lanes>(
        &self,
        lanes: L,
        blocks: &[Block<'_, L>],
        scratch: &mut [L::F],
        rows: &mut Rows<'_, L>,
    ) {
        for block in blocks {
            self.evaluate(lanes, block.curve, scratch, &mut rows.of(block));
        }
    }

    /// As [`evaluate`](Self::evaluate), but where few of the voxels need what takes long, they may be left for later: then
    /// their rows may hold anything, and the mask of them is returned. They come again beside others like them, and are not
    /// to be left that time. Only voxels whose samples are finite may be left.
    #[inline(always)]
    fn evaluate_or_leave<L: Lanes>(
        &self,
        lanes: L,
        curve: Curve<'_, L>,
        scratch: &mut [L::F],
        rows: &mut Rows<'_, L>,
        leave: Leave,
    ) -> L::M {
        let _ = leave;
        self.evaluate(lanes, curve, scratch, rows);
        lanes.mask(false)
    }

    /// How many numbers per voxel [`scan`](Self::scan) finds; 0 without one.
    fn scanned(&self) -> usize {
        0
    }

    /// A shortcut for 16-bit samples: finds, in whole numbers, what the text would find in the same samples, to the bit; the
    /// text then takes it from [`Curve::scanned`]. Returns whether what was found holds for all voxels in hand.
    #[inline(always)]
    fn scan<L: ShortLanes>(&self, lanes: L, curve: ShortCurve<'_>, found: &mut [L::F]) -> bool {
        let _ = (lanes, curve, found);
        false
    }

    /// How many of the first frames will be looked at in voxels that are left, beside what a scan has found in them; `None`
    /// for all of them.
    #[inline(always)]
    fn frames_looked_at<L: ShortLanes>(
        &self,
        lanes: L,
        curve: ShortCurve<'_>,
        found: &[L::F],
        voxels: L::M,
    ) -> Option<usize> {
        let _ = (lanes, curve, found, voxels);
        None
    }

    /// [`evaluate`](Self::evaluate) for one voxel, with bounds on what 32-bit engines may lose. A kernel that is verified
    /// otherwise spares the compiler that text.
    fn evaluate_bounded<'a>(&self, lanes: Bounded<'a>, curve: Curve<'_, Bounded<'a>>, words: &mut [BoundedWord]) {
        let mut scratch = vec![lanes.splat(0.0); self.scratch()];
        self.evaluate(lanes, curve, &mut scratch, &mut Rows::new(lanes, words, 1));
    }

    /// Whether an engine's rows of one voxel agree with the definition's, row by row and the status last; labels and bits as
    /// numbers. `None`, unless a kernel says otherwise: then they are compared within the bounds of
    /// [`evaluate_bounded`](Self::evaluate_bounded). For kernels that search, and whose results have no such bounds.
    fn judge(&self, curve: &Curve<'_, Double>, engine: &[f64], definition: &[f64]) -> Option<Vec<bool>> {
        let _ = (curve, engine, definition);
        None
    }

    /// The definition for GPUs.
    fn program(&self) -> Program;

    /// The kernel for a curve of which only these frames are left (the others hold samples that are not finite and are to
    /// be skipped); `None` if those don't suffice, or if such voxels shall have no answer.
    fn with_frames(&self, frames: &[usize]) -> Option<Self>;
}

/// Samples of voxels side by side.
#[derive(Debug, Clone, Copy)]
enum CurveSamples<'a, T> {
    /// Differences from each voxel's first sample; frame i begins at i times the number.
    Differences(&'a [T], usize),
    /// 16-bit samples themselves.
    Short(ShortCurve<'a>),
}

/// The curves of the voxels in hand.
#[derive(Debug, Clone, Copy)]
pub struct Curve<'a, L: Lanes> {
    lanes: L,
    samples: CurveSamples<'a, L::Stored>,
    /// What `samples` of 16 bits have in frame 0.
    short_first: L::F,
    /// Each voxel's first sample, in stored units.
    pub first: L::F,
    /// Whether all samples of the voxel are finite, and no difference reaches [`LARGEST_DIFFERENCE`].
    pub finite: L::M,
    /// Layers of [`PreparedKernel::extra`].
    pub extra: &'a [L::F],
    /// What [`PreparedKernel::scan`] found, if there was a scan and it holds.
    pub scanned: Option<&'a [L::F]>,
}

impl<'a, L: Lanes> Curve<'a, L> {
    /// Curves whose frame i begins at `i * stride`, of differences from each voxel's first sample in stored units.
    #[inline(always)]
    pub fn new(
        lanes: L,
        differences: &'a [L::Stored],
        stride: usize,
        first: L::F,
        finite: L::M,
        extra: &'a [L::F],
    ) -> Self {
        let samples = CurveSamples::Differences(differences, stride);
        Self { lanes, samples, short_first: first, first, finite, extra, scanned: None }
    }

    /// The same of 16-bit samples, all of them shifted by the same number or none.
    #[inline(always)]
    pub fn of_short(lanes: L, curve: ShortCurve<'a>, first: L::F, extra: &'a [L::F]) -> Self {
        let (short_first, finite) = (lanes.load_short(curve.samples), lanes.mask(true));
        Self { lanes, samples: CurveSamples::Short(curve), short_first, first, finite, extra, scanned: None }
    }

    /// Sample `frame` minus the voxel's first sample, in stored units: exact for integers.
    #[inline(always)]
    pub fn difference(&self, frame: usize) -> L::F {
        match self.samples {
            CurveSamples::Differences(differences, stride) => {
                self.lanes.load(&differences[frame * stride..][..L::WIDTH])
            }
            CurveSamples::Short(curve) => self.lanes.load_short(&curve.frame(frame)[..L::WIDTH]) - self.short_first,
        }
    }
}

/// One of several blocks of voxels in hand.
#[derive(Clone, Copy)]
pub struct Block<'a, L: Lanes> {
    /// Its place among those that follow each other in memory.
    pub number: usize,
    /// Its curves.
    pub curve: Curve<'a, L>,
    /// Where anybody asks for results.
    pub wanted: L::M,
}

impl<'a, L: Lanes> Block<'a, L> {
    /// A block of its own, all of it wanted.
    #[inline(always)]
    pub fn alone(lanes: L, curve: Curve<'a, L>) -> Self {
        Self { number: 0, curve, wanted: lanes.mask(true) }
    }
}

impl<L: Lanes> fmt::Debug for Block<'_, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block").field("number", &self.number).finish_non_exhaustive()
    }
}

/// Where the results of the voxels in hand go: row r begins at `r * stride`.
#[derive(Debug)]
pub struct Rows<'a, L: Lanes> {
    lanes: L,
    words: &'a mut [L::Word],
    stride: usize,
}

impl<'a, L: Lanes> Rows<'a, L> {
    /// Rows of `stride` words.
    #[inline(always)]
    pub fn new(lanes: L, words: &'a mut [L::Word], stride: usize) -> Self {
        Self { lanes, words, stride }
    }

    /// Where the results of one of several blocks go.
    #[inline(always)]
    pub fn of(&mut self, block: &Block<'_, L>) -> Rows<'_, L> {
        Rows { lanes: self.lanes, words: &mut self.words[block.number * L::WIDTH..], stride: self.stride }
    }

    /// Writes numbers into a row, NaN where they are not valid.
    #[inline(always)]
    pub fn set(&mut self, row: usize, value: L::F, valid: L::M) {
        self.lanes.write(value, valid, &mut self.words[row * self.stride..]);
    }

    /// Writes bit words or labels into a row.
    #[inline(always)]
    pub fn set_bits(&mut self, row: usize, bits: L::U) {
        self.lanes.write_bits(bits, &mut self.words[row * self.stride..]);
    }
}

/// A kernel for GPUs: complete WGSL text and what it is fed with.
///
/// Bindings are the same for every kernel, in group 0: 0 uniform (the engine's `Slab`, then the kernel's settings),
/// 1 samples, 2 tables, 3 extra maps, 4 outputs, 5 status, 6 state.
#[derive(Debug, Clone)]
pub struct Program {
    /// Name, for labels and error texts.
    pub name: &'static str,
    /// The kernel's WGSL in pieces, so that kernels can share some, to follow `shaders/common.wgsl` in this order.
    pub sources: &'static [&'static str],
    /// Entry points, dispatched in this order over the same slab; one may come several times, to do a part of a long search
    /// each time.
    pub entry_points: Cow<'static, [&'static str]>,
    /// Threads per workgroup.
    pub workgroup_size: u32,
    /// Neighbouring voxels of a thread, 1 or 2: `voxel_of` of `shaders/common.wgsl` gives the one, `first_voxel_of` the first
    /// of two.
    pub voxels_per_thread: u32,
    /// Pipeline-overridable constants.
    pub constants: Vec<(&'static str, f64)>,
    /// The kernel's settings as the shader lays them out; a multiple of 16 bytes.
    pub settings: Vec<u8>,
    /// The kernel's tables.
    pub tables: Cow<'static, [f32]>,
    /// 32-bit words kept per voxel between entry points.
    pub state_words: usize,
    /// Turns of loops, all together, that a voxel may need in one dispatch, if they may be tens of thousands; else 0. A driver
    /// that stops loops earlier is refused.
    pub loop_turns: usize,
}

impl Program {
    /// A program of one entry point, named as the program, for workgroups of 64, without tables or state; the settings as the
    /// shader lays them out.
    pub fn new<S: bytemuck::NoUninit>(name: &'static str, sources: &'static [&'static str], settings: &S) -> Self {
        Self {
            name,
            sources,
            entry_points: Cow::Owned(vec![name]),
            workgroup_size: 64,
            voxels_per_thread: 1,
            constants: Vec::new(),
            settings: bytemuck::bytes_of(settings).to_vec(),
            tables: Cow::Borrowed(&[]),
            state_words: 0,
            loop_turns: 0,
        }
    }

    /// Voxels per workgroup.
    #[cfg(feature = "gpu")]
    pub(crate) fn workgroup_voxels(&self) -> u32 {
        self.workgroup_size * self.voxels_per_thread
    }
}
