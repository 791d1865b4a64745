//! What a run may be told beside its kernel: where to look, how much to use, whom to tell.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};
use crate::series::Mask;

/// Stops a run from another thread; the run returns [`Error::Cancelled`].
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Not cancelled yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops the runs that hold this.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
    }
}

/// Told how far a run is: voxels done, voxels in all.
pub type Progress = dyn Fn(usize, usize) + Send + Sync;

/// What to do with samples that are not finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum NonFinite {
    /// The voxel has no value, and its status says so.
    #[default]
    Refuse,
    /// The voxel is evaluated from its other frames, in f64 on the host; its status still says so.
    Skip,
}

/// Options of a run.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct RunOptions<'a> {
    pub(crate) mask: Option<&'a Mask>,
    pub(crate) progress: Option<Arc<Progress>>,
    pub(crate) cancel: Cancel,
    pub(crate) non_finite: NonFinite,
    pub(crate) memory_limit_bytes: Option<u64>,
}

impl<'a> RunOptions<'a> {
    /// All voxels, nobody told.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only voxels inside the mask.
    #[must_use]
    pub fn mask(mut self, mask: &'a Mask) -> Self {
        self.mask = Some(mask);
        self
    }

    /// Calls back with voxels done and voxels in all, from any thread.
    #[must_use]
    pub fn progress(mut self, progress: impl Fn(usize, usize) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(progress));
        self
    }

    /// Lets another thread stop the run.
    #[must_use]
    pub fn cancel(mut self, cancel: Cancel) -> Self {
        self.cancel = cancel;
        self
    }

    /// What to do with samples that are not finite.
    #[must_use]
    pub fn non_finite(mut self, policy: NonFinite) -> Self {
        self.non_finite = policy;
        self
    }

    /// Device memory that a run may use for its slabs, in bytes; results don't depend on it.
    #[must_use]
    pub fn memory_limit_bytes(mut self, bytes: u64) -> Self {
        self.memory_limit_bytes = Some(bytes);
        self
    }

    pub(crate) fn tell(&self, done: usize, all: usize) {
        if let Some(progress) = &self.progress {
            progress(done, all);
        }
    }
}

impl fmt::Debug for RunOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunOptions")
            .field("mask", &self.mask.is_some())
            .field("progress", &self.progress.is_some())
            .field("non_finite", &self.non_finite)
            .field("memory_limit_bytes", &self.memory_limit_bytes)
            .finish_non_exhaustive()
    }
}
