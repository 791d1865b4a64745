//! What the caller says about reading and writing.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::maps::StageTime;
use crate::series::Mask;
use crate::time::TimeAxis;

/// Told while a file is read: bytes of samples done, bytes of samples in all.
pub type ReadProgress = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// Times that the caller gives; they are believed whatever the file says.
#[derive(Debug, Clone)]
pub(super) enum GivenTimes {
    SpacingS(f64),
    File(PathBuf),
    Axis(TimeAxis),
}

/// How to read a series.
///
/// ```
/// use perfuse::io::ReadOptions;
/// let options = ReadOptions::new().frame_spacing_s(4.97);
/// # let _ = options;
/// ```
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct ReadOptions {
    pub(super) times: Option<GivenTimes>,
    pub(super) progress: Option<ReadProgress>,
    pub(super) cancel: Option<Arc<AtomicBool>>,
    pub(super) memory_limit_bytes: Option<u64>,
    pub(super) scratch_folder: Option<PathBuf>,
    pub(super) leave_in_file: bool,
}

impl ReadOptions {
    /// Times from the sidecar or the header, no progress, no cancelling.
    pub fn new() -> Self {
        Self::default()
    }

    /// Frames lie this many seconds apart, the first at 0 s, whatever the file says. Replaces other given times.
    #[must_use]
    pub fn frame_spacing_s(mut self, spacing_s: f64) -> Self {
        self.times = Some(GivenTimes::SpacingS(spacing_s));
        self
    }

    /// The times of all frames are in this text file: seconds, one time a line; blank lines and what follows a `#` don't
    /// count. Replaces other given times.
    #[must_use]
    pub fn times_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.times = Some(GivenTimes::File(path.into()));
        self
    }

    /// These are the times. Replaces other given times.
    #[must_use]
    pub fn times(mut self, times: TimeAxis) -> Self {
        self.times = Some(GivenTimes::Axis(times));
        self
    }

    /// Memory that samples may take [default: a third of the machine's, and no more than half of what is free]. Those of a
    /// larger series stay in its file; a compressed one is inflated to a temporary file.
    #[must_use]
    pub fn memory_limit_bytes(mut self, bytes: u64) -> Self {
        self.memory_limit_bytes = Some(bytes);
        self
    }

    /// Where to inflate a compressed series that is larger than the memory limit [default: the system's folder for
    /// temporary files, which some systems keep in memory]. Nothing stays there, however the program ends.
    #[must_use]
    pub fn scratch_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.scratch_folder = Some(folder.into());
        self
    }

    /// Leaves the samples of an uncompressed series in its file where the system holds that in its memory, as it does files
    /// that were written or read not long ago. Then every thread fetches the samples that it works on, which takes less time
    /// and memory than reading all of them first, where they are gone through once or twice. Until then nobody may
    /// change the file: runs notice it, and fail. [`Series::in_memory`](crate::Series::in_memory) reads it after all.
    #[must_use]
    pub fn leave_in_file(mut self) -> Self {
        self.leave_in_file = true;
        self
    }

    /// Called once in a while, from every quarter to every sixteen MiB of samples, on the thread that reads.
    #[must_use]
    pub fn progress(mut self, progress: ReadProgress) -> Self {
        self.progress = Some(progress);
        self
    }

    /// Set this flag from another thread to stop reading with [`Error::Cancelled`](crate::Error::Cancelled).
    #[must_use]
    pub fn cancel(mut self, cancel: Arc<AtomicBool>) -> Self {
        self.cancel = Some(cancel);
        self
    }
}

impl fmt::Debug for ReadOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadOptions")
            .field("times", &self.times)
            .field("progress", &self.progress.is_some())
            .field("cancel", &self.cancel)
            .field("memory_limit_bytes", &self.memory_limit_bytes)
            .field("scratch_folder", &self.scratch_folder)
            .field("leave_in_file", &self.leave_in_file)
            .finish()
    }
}

/// Where the samples of a series are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Storage {
    /// In memory.
    Memory,
    /// In the file that was opened.
    File,
    /// Inflated, in a temporary file.
    Scratch,
}

/// What reading a series took.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ReadReport {
    /// Wall-clock seconds for reading and inflating.
    pub read_inflate_seconds: f64,
    /// Bytes of the file (of both files of a pair), as stored.
    pub file_bytes: u64,
    /// Bytes of all samples, inflated.
    pub data_bytes: u64,
    /// Whether the samples were stored as gzip.
    pub compressed: bool,
    /// Where the samples are now.
    pub storage: Storage,
}

impl ReadReport {
    /// The same as a stage of a run's record. Samples that stay in their file are not read yet: that counts no bytes.
    pub fn stage(&self) -> StageTime {
        let (stage, bytes) = match (self.storage, self.compressed) {
            (Storage::File, _) => ("open", 0),
            (_, true) => ("read and inflate", self.data_bytes),
            (_, false) => ("read", self.data_bytes),
        };
        StageTime { stage: stage.into(), seconds: self.read_inflate_seconds, bytes }
    }
}

/// What to do where a result exists already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overwrite {
    /// Refuse, before anything is written.
    #[default]
    Refuse,
    /// Replace it.
    Replace,
}

/// How maps are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Compression {
    /// `.nii.gz`.
    #[default]
    Gzip,
    /// `.nii`: larger, written many times faster.
    None,
}

impl Compression {
    pub(super) fn ending(self) -> &'static str {
        match self {
            Compression::Gzip => ".nii.gz",
            Compression::None => ".nii",
        }
    }
}

/// Told while maps are written: maps done, maps in all.
pub type SaveProgress = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// How to write maps.
///
/// ```
/// use perfuse::io::{Overwrite, SaveOptions};
/// let options = SaveOptions::new().overwrite(Overwrite::Replace);
/// # let _ = options;
/// ```
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct SaveOptions {
    pub(super) overwrite: Overwrite,
    pub(super) compression: Compression,
    pub(super) mask: Option<Mask>,
    pub(super) progress: Option<SaveProgress>,
    pub(super) cancel: Option<Arc<AtomicBool>>,
}

impl SaveOptions {
    /// Compressed, nothing overwritten, no regions.
    pub fn new() -> Self {
        Self::default()
    }

    /// What to do where a file of the result exists already.
    #[must_use]
    pub fn overwrite(mut self, overwrite: Overwrite) -> Self {
        self.overwrite = overwrite;
        self
    }

    /// How the maps are stored.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Also writes `regions.csv`: what every map holds in every region of this mask.
    #[must_use]
    pub fn mask(mut self, mask: &Mask) -> Self {
        self.mask = Some(mask.clone());
        self
    }

    /// Called whenever a map is written, on the threads that write.
    #[must_use]
    pub fn progress(mut self, progress: SaveProgress) -> Self {
        self.progress = Some(progress);
        self
    }

    /// Set this flag from another thread to stop with [`Error::Cancelled`](crate::Error::Cancelled), leaving no file.
    #[must_use]
    pub fn cancel(mut self, cancel: Arc<AtomicBool>) -> Self {
        self.cancel = Some(cancel);
        self
    }
}

impl fmt::Debug for SaveOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SaveOptions")
            .field("overwrite", &self.overwrite)
            .field("compression", &self.compression)
            .field("mask", &self.mask.is_some())
            .field("progress", &self.progress.is_some())
            .field("cancel", &self.cancel)
            .finish()
    }
}

/// What writing maps took.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SaveReport {
    /// Wall-clock seconds for compressing and writing.
    pub seconds: f64,
    /// Bytes of all files.
    pub bytes: u64,
    /// The files, in the order in which they got their names; `run.json` is the last.
    pub files: Vec<PathBuf>,
}
