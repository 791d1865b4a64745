//! Brix's model of the relative signal, which needs no input function.
//!
//! ```text
//! S(t) / S_BL = 1 + A k_ep / (k_ep - k_el) (exp(-k_el u) - exp(-k_ep u)),   u = t - t_on > 0
//! ```
//!
//! (Brix and others, J Comput Assist Tomogr 1991; 15: 621-628, for a short injection; CAPLEX's entry of that name.) A is the
//! amplitude (-), k_ep the exchange rate from tissue to plasma and k_el the rate of elimination, in 1/min. At equal rates the
//! curve is 1 + A k_ep u exp(-k_ep u).
//!
//! Exchanging the two rates and dividing A by their ratio gives the same curve: k_ep is taken to be the larger one.
//! A is only known together with k_el where a series ends early, and k_ep only as the product A k_ep where the signal still
//! rises: `status` then says not identifiable.

mod descents;
mod program;
mod reference;
mod results;
mod search;
mod tables;

use crate::error::{Error, Result};
use crate::kernel::lanes::{Double, Lanes};
use crate::kernel::{Block, Curve, Input, Output, Program, Rows, Runnable, VoxelKernel};
use crate::kernels::descriptors::{Baseline, MapSelection};
use crate::quantity::SignalKind;
use crate::series::{Series, VoxelMap};

use super::FitCurves;
use super::prepared::FitTables;
use tables::Tables;

/// The kernel's own status bits.
pub mod status_bit {
    /// Bit 15: A at its lower bound; 16: at its upper bound; then k_ep, k_el and the onset alike.
    pub const FIRST_BOUND: u32 = 1 << 15;
    /// Each with its meaning.
    pub const MEANINGS: &[(u32, &str)] = &[
        (1 << 15, "brix_a at its lower bound"),
        (1 << 16, "brix_a at its upper bound"),
        (1 << 17, "kep at its lower bound"),
        (1 << 18, "kep at its upper bound"),
        (1 << 19, "kel at its lower bound"),
        (1 << 20, "kel at its upper bound"),
        (1 << 21, "onset at its lower bound"),
        (1 << 22, "onset at its upper bound"),
    ];
}

/// When the signal begins to rise: seconds after the first frame, as the map `onset` has them.
#[expect(clippy::large_enum_variant, reason = "there is one per run")]
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum BrixOnset {
    /// Fitted in every voxel.
    #[default]
    Free,
    /// The same in every voxel.
    Fixed(f64),
    /// Each voxel's own; fitted where the map is NaN.
    PerVoxel(VoxelMap),
}

/// Brix's model fitted to every voxel, with everything that can be chosen about it.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct BrixFit {
    pub(crate) baseline: Baseline,
    pub(crate) onset: BrixOnset,
    /// Upper bounds of A, and of k_ep and k_el in 1/min; `None` for 20, 60 and 5.
    pub(crate) upper: [Option<f64>; 3],
    pub(crate) maps: MapSelection,
    pub(crate) curves: FitCurves,
}

impl BrixFit {
    /// Automatic baseline, onset fitted, A up to 20, k_ep up to 60 1/min, k_el up to 5 1/min.
    pub fn new() -> Self {
        Self::default()
    }

    /// Which frames S_BL is the mean of.
    #[must_use]
    pub fn baseline(mut self, baseline: Baseline) -> Self {
        self.baseline = baseline;
        self
    }

    /// When the signal begins to rise.
    #[must_use]
    pub fn onset(mut self, onset: BrixOnset) -> Self {
        self.onset = onset;
        self
    }

    /// Upper bounds of A (-), of k_ep and of k_el (1/min); the lower ones are 0.
    #[must_use]
    pub fn upper_bounds(mut self, amplitude: f64, kep_per_min: f64, kel_per_min: f64) -> Self {
        self.upper = [Some(amplitude), Some(kep_per_min), Some(kel_per_min)];
        self
    }

    /// Which maps come out: all but curves unless told.
    #[must_use]
    pub fn maps(mut self, maps: MapSelection) -> Self {
        self.maps = maps;
        self
    }

    /// Which curves come out beside the maps, as S / S_BL.
    #[must_use]
    pub fn curves(mut self, curves: FitCurves) -> Self {
        self.curves = curves;
        self
    }

    /// Upper bounds of A, and of the rates in 1/s.
    fn bounds(&self) -> [f64; 3] {
        let [a, kep, kel] = self.upper;
        [a.unwrap_or(20.0), kep.unwrap_or(60.0) / 60.0, kel.unwrap_or(5.0) / 60.0]
    }

    fn onset_text(&self) -> String {
        match &self.onset {
            BrixOnset::Free => "free".into(),
            BrixOnset::Fixed(seconds) => format!("{seconds} s"),
            BrixOnset::PerVoxel(_) => "map, free where it is NaN".into(),
        }
    }

    fn check(&self, series: &Series) -> Result<()> {
        let names = ["upper bound of brix_a", "upper bound of kep", "upper bound of kel"];
        let upper = self.bounds();
        for (name, value) in names.into_iter().zip(upper) {
            if !(value.is_finite() && value > 0.0) {
                return Err(Error::setting(name, value, "give a finite number above 0"));
            }
        }
        if upper[2] > upper[1] {
            let mend = "kep is the larger one of the two rates: its bound must not be the lower one";
            return Err(Error::setting(names[2], upper[2] * 60.0, mend));
        }
        let frames = series.frames();
        if frames < 6 {
            return Err(Error::setting("model", format!("brix for a series of {frames} frames"), "give at least 6"));
        }
        if let Baseline::Frames(range) = &self.baseline
            && (range.is_empty() || range.end >= frames)
        {
            let mend = format!("give at least one of the {frames} frames, and leave one after it (A:B, B excluded)");
            return Err(Error::setting("baseline", self.baseline.to_text(), mend));
        }
        match &self.onset {
            BrixOnset::Fixed(seconds) if !(0.0..series.times()?.duration_s()).contains(seconds) => {
                let mend = "give seconds after the first frame, less than the series lasts";
                Err(Error::setting("onset", seconds, mend))
            }
            BrixOnset::PerVoxel(map) => map.check_matches(series),
            _ => Ok(()),
        }
    }
}

impl VoxelKernel for BrixFit {
    fn name(&self) -> &'static str {
        "brix_fit"
    }

    fn kind(&self) -> SignalKind {
        SignalKind::Signal
    }

    fn prepare(&self, input: &Input<'_>) -> Result<Box<dyn Runnable>> {
        Ok(Box::new(tables::prepare(self, input)?))
    }
}

impl FitTables for Tables {
    type Settings = BrixFit;
    const STATUS: &'static [(u32, &'static str)] = status_bit::MEANINGS;
    const TWO_VECTORS: bool = false;
    const TOGETHER: usize = 32;

    fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    fn rows(&self) -> usize {
        self.outputs.iter().map(|output| output.kind.rows()).sum()
    }

    fn scratch(&self) -> usize {
        reference::scratch(self) + Self::TOGETHER * self.n
    }

    #[inline(always)]
    fn evaluate<L: Lanes>(&self, lanes: L, blocks: &[Block<'_, L>], scratch: &mut [L::F], rows: &mut Rows<'_, L>) {
        results::evaluate(lanes, self, blocks, scratch, rows);
    }

    fn judge(&self, curve: &Curve<'_, Double>, engine: &[f64], definition: &[f64]) -> Vec<bool> {
        results::judge(self, curve, engine, definition)
    }

    fn program(&self) -> Program {
        program::program(self)
    }

    fn with_frames(&self, settings: &BrixFit, times: &[f64], frames: &[usize]) -> Option<Self> {
        let left = frames.iter().filter(|frame| self.baseline_frames.contains(frame)).count();
        if left == 0 || frames.len() < 6 || left == frames.len() {
            return None;
        }
        tables::build(settings, times, frames, self.baseline_frames.clone(), (self.slope, self.intercept)).ok()
    }
}
