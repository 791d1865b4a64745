//! The result of a run: named maps with their status and the record of how they came about.

use ndarray::{Array3, Array4, ArrayView3, ArrayView4};

use crate::engine::count_bits;
use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::quantity::{Quantity, SignalKind};

/// The values of one map.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum MapData {
    /// One number per voxel, `[x, y, z]`; NaN where there is no answer.
    Float(Array3<f32>),
    /// One label per voxel, `[x, y, z]`; 0 where there is no answer.
    Label(Array3<u32>),
    /// One curve per voxel, `[x, y, z, sample]`; NaN where there is no answer.
    Curve(Array4<f32>),
}

/// One map: what it holds, and its values.
#[derive(Debug, Clone)]
pub struct Map {
    /// What the values are.
    pub quantity: Quantity,
    /// The unit as text, for the series that was analysed.
    pub unit: String,
    /// The values.
    pub data: MapData,
}

/// A setting's value in a record.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum SettingValue {
    /// A number.
    Number(f64),
    /// A word.
    Text(String),
    /// Several values.
    List(Vec<SettingValue>),
}

/// Seconds that a stage of a run took.
#[derive(Debug, Clone, PartialEq)]
pub struct StageTime {
    /// The stage: `upload`, `kernel`, `download` …
    pub stage: String,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// Bytes that the stage moved, where that says something.
    pub bytes: u64,
}

/// How a run came about: enough to repeat it.
#[derive(Debug, Clone)]
pub struct RunRecord {
    /// The kernel.
    pub kernel: String,
    /// The engine: `cpu`, `gpu` or `reference`.
    pub engine: String,
    /// The device, as it calls itself.
    pub device: String,
    /// Why this engine was chosen.
    pub reason: String,
    /// What the samples are.
    pub kind: SignalKind,
    /// All settings of the kernel, the decided ones included (baseline frames, global onset …).
    pub settings: Vec<(String, SettingValue)>,
    /// The file that was analysed, if any; the first one of a stack.
    pub source: Option<std::path::PathBuf>,
    /// The files of a stack, the first one left out.
    pub further_sources: Vec<std::path::PathBuf>,
    /// Shape of the series.
    pub shape: [usize; 4],
    /// Times of the frames in seconds; none if the samples are no time series.
    pub times_s: Vec<f64>,
    /// Where the times come from.
    pub times_origin: String,
    /// What the times refer to: frame start, frame centre, unknown.
    pub times_reference: String,
    /// Seconds per stage.
    pub stages: Vec<StageTime>,
    /// Voxels analysed (those inside the mask).
    pub voxels: usize,
    /// For each status bit that occurs: the bit as a word of [`crate::status`], its meaning, the number of voxels that have it.
    pub status_counts: Vec<(u32, String, usize)>,
    /// Every status bit that the kernel may set, as a word, with its meaning.
    pub status_meanings: Vec<(u32, String)>,
    /// What was doubtful.
    pub warnings: Vec<String>,
}

/// Named maps, the status of every voxel, and the record of the run.
#[derive(Debug, Clone)]
pub struct Maps {
    pub(crate) maps: Vec<Map>,
    pub(crate) status: Array3<u32>,
    pub(crate) geometry: Geometry,
    pub(crate) record: RunRecord,
}

impl Maps {
    /// Puts maps together.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the shapes differ.
    pub fn new(maps: Vec<Map>, status: Array3<u32>, geometry: Geometry, record: RunRecord) -> Result<Self> {
        for map in &maps {
            let shape = match &map.data {
                MapData::Float(values) => values.dim(),
                MapData::Label(values) => values.dim(),
                MapData::Curve(values) => {
                    let (x, y, z, _) = values.dim();
                    (x, y, z)
                }
            };
            if shape != status.dim() {
                return Err(Error::mismatch(
                    format!("map {}", map.quantity.id),
                    "the status",
                    format!("shapes {shape:?} and {:?}", status.dim()),
                ));
            }
        }
        Ok(Self { maps, status, geometry, record })
    }

    /// A map of numbers, `[x, y, z]`, by its quantity or identifier.
    ///
    /// # Errors
    /// [`Error::UnknownMap`] if the run has no such map of numbers.
    pub fn get(&self, id: impl AsRef<str>) -> Result<ArrayView3<'_, f32>> {
        match self.map(id.as_ref())?.data {
            MapData::Float(ref values) => Ok(values.view()),
            _ => Err(self.unknown(id.as_ref())),
        }
    }

    /// A map of labels, `[x, y, z]`.
    ///
    /// # Errors
    /// [`Error::UnknownMap`] if the run has no such map of labels.
    pub fn labels(&self, id: impl AsRef<str>) -> Result<ArrayView3<'_, u32>> {
        match self.map(id.as_ref())?.data {
            MapData::Label(ref values) => Ok(values.view()),
            _ => Err(self.unknown(id.as_ref())),
        }
    }

    /// A map of curves, `[x, y, z, sample]`.
    ///
    /// # Errors
    /// [`Error::UnknownMap`] if the run has no such map of curves.
    pub fn curves(&self, id: impl AsRef<str>) -> Result<ArrayView4<'_, f32>> {
        match self.map(id.as_ref())?.data {
            MapData::Curve(ref values) => Ok(values.view()),
            _ => Err(self.unknown(id.as_ref())),
        }
    }

    /// A map of any sort, with its quantity and unit.
    ///
    /// # Errors
    /// [`Error::UnknownMap`] if the run has no such map.
    pub fn map(&self, id: impl AsRef<str>) -> Result<&Map> {
        let id = id.as_ref();
        self.maps.iter().find(|map| map.quantity.id == id).ok_or_else(|| self.unknown(id))
    }

    fn unknown(&self, id: &str) -> Error {
        let known: Vec<&str> = self.maps.iter().map(|map| map.quantity.id.as_ref()).collect();
        Error::UnknownMap { id: id.into(), known: known.join(", ") }
    }

    /// All maps, in the kernel's order.
    pub fn iter(&self) -> impl Iterator<Item = &Map> {
        self.maps.iter()
    }

    /// The status bits of every voxel: see [`crate::status`].
    pub fn status(&self) -> ArrayView3<'_, u32> {
        self.status.view()
    }

    /// Where the voxels lie.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// How the run came about.
    pub fn record(&self) -> &RunRecord {
        &self.record
    }

    /// Adds the status bits of an earlier run whose result this one started from (a conversion, say), so that a voxel's status
    /// tells the whole story; counts and meanings in the record follow.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the shapes differ.
    pub fn add_status_of(&mut self, earlier: &Maps) -> Result<()> {
        if self.status.dim() != earlier.status.dim() {
            let detail = format!("shapes {:?} and {:?}", self.status.dim(), earlier.status.dim());
            return Err(Error::mismatch("the status", "that of the earlier run", detail));
        }
        self.status.zip_mut_with(&earlier.status, |status, bits| *status |= bits);
        for meaning in &earlier.record.status_meanings {
            if !self.record.status_meanings.contains(meaning) {
                self.record.status_meanings.push(meaning.clone());
            }
        }
        self.record.status_meanings.sort_by_key(|(bit, _)| *bit);
        let words = self.status.as_slice_memory_order().unwrap_or_default();
        self.record.status_counts = count_bits(words, &self.record.status_meanings);
        Ok(())
    }

    /// The same, to add what happened around the run: a stage of reading, a warning of one's own.
    pub fn record_mut(&mut self) -> &mut RunRecord {
        &mut self.record
    }
}
