//! The sum of every frame, which threads add to as they go through the samples.

use std::sync::atomic::{AtomicI64, Ordering};

/// The sums of frames, of samples of 16 bits at most: exact, whoever adds to them when.
#[derive(Debug)]
pub(crate) struct FrameSums(Vec<AtomicI64>);

impl FrameSums {
    /// Of so many frames, all 0.
    pub(crate) fn new(frames: usize) -> Self {
        Self((0..frames).map(|_| AtomicI64::new(0)).collect())
    }

    /// Adds to the sum of a frame.
    pub(crate) fn add(&self, frame: usize, more: i64) {
        self.0[frame].fetch_add(more, Ordering::Relaxed);
    }

    /// The sums as they are now; each of so many voxels was stored less by `shift`.
    pub(crate) fn totals(&self, voxels: usize, shift: i64) -> Vec<f64> {
        self.0.iter().map(|sum| (sum.load(Ordering::Relaxed) + shift * voxels as i64) as f64).collect()
    }
}
