//! Samples of some voxels, wherever those of the series are: in memory, or in a file that is read stretch by stretch.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use rayon::prelude::*;

use super::{Samples, Series};
use crate::error::Result;
use crate::stored::{WINDOW_GRANULE, Window};
use crate::voxels::Voxels;

/// Voxels that a thread takes at once: their samples in some tens of frames fit into a processor's caches.
pub(crate) const STRETCH: usize = WINDOW_GRANULE;

/// What a thread is given of a series at once.
pub(crate) struct Stretch<'a> {
    pub(crate) range: Range<usize>,
    /// Holds these voxels, among others or alone; `None` if they aren't wanted and were not even read.
    pub(crate) window: Option<&'a Window<'a>>,
}

impl Series {
    /// Hands over all voxels with these frames, stretch by stretch, to all threads: each with a part of the caller's, of
    /// which there is one for every [`STRETCH`] voxels, and with what `init` gave to the thread. Those that aren't wanted
    /// come without samples where that spares reading them. Returns the seconds that were waited for a file.
    pub(crate) fn for_each_stretch<P: Send, S>(
        &self,
        frames: Range<usize>,
        wanted: impl Fn(Range<usize>) -> bool + Sync,
        parts: Vec<P>,
        init: impl Fn() -> S + Sync,
        work: impl Fn(&mut S, P, Stretch<'_>) -> Result<()> + Sync,
    ) -> Result<f64> {
        let count = self.voxel_count();
        assert_eq!(parts.len(), count.div_ceil(STRETCH), "a part for every stretch");
        let stretch = |index: usize| index * STRETCH..count.min((index + 1) * STRETCH);
        match &*self.samples {
            Samples::File(stored) if stored.is_at_hand() => {
                let nanoseconds = AtomicU64::new(0);
                parts.into_par_iter().enumerate().try_for_each_init(
                    || (init(), None),
                    |(state, memory), (index, part)| {
                        let range = stretch(index);
                        if !wanted(range.clone()) {
                            return work(state, part, Stretch { range, window: None });
                        }
                        let start = Instant::now();
                        self.with_range(range.clone(), frames.clone(), memory, |window| {
                            nanoseconds.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
                            work(state, part, Stretch { range, window: Some(window) })
                        })?
                    },
                )?;
                Ok(nanoseconds.into_inner() as f64 * 1e-9 / rayon::current_num_threads() as f64)
            }
            _ => {
                let mut parts = parts.into_iter().enumerate();
                let mut all = |until: usize, window: Option<&Window<'_>>| {
                    let number = until.div_ceil(STRETCH) - (count.div_ceil(STRETCH) - parts.len());
                    let here: Vec<(usize, P)> = parts.by_ref().take(number).collect();
                    here.into_par_iter().try_for_each_init(&init, |state, (index, part)| {
                        work(state, part, Stretch { range: stretch(index), window })
                    })
                };
                let waited = self.for_each_window(frames, &wanted, |window| {
                    all(window.range.start, None)?;
                    all(window.range.end, Some(window))
                })?;
                all(count, None)?;
                Ok(waited)
            }
        }
    }

    /// Hands over windows with all frames of these voxels, which ascend, and those of them that lie in each.
    pub(crate) fn for_each_window_of(
        &self,
        voxels: &[usize],
        mut work: impl FnMut(&Window<'_>, &[usize]) -> Result<()>,
    ) -> Result<()> {
        let within = |range: &Range<usize>| {
            let end = voxels.partition_point(|voxel| *voxel < range.end);
            &voxels[voxels.partition_point(|voxel| *voxel < range.start)..end]
        };
        let wanted = |range: Range<usize>| !within(&range).is_empty();
        self.for_each_window(0..self.frames(), wanted, |window| work(window, within(&window.range)))?;
        Ok(())
    }

    /// Hands over all voxels with these frames: at once if they are in memory, else window after window as they are read,
    /// without those that aren't wanted. Returns the seconds that were waited for a file.
    pub(crate) fn for_each_window(
        &self,
        frames: Range<usize>,
        wanted: impl Fn(Range<usize>) -> bool,
        mut work: impl FnMut(&Window<'_>) -> Result<()>,
    ) -> Result<f64> {
        match &*self.samples {
            Samples::Memory(voxels) => {
                work(&Window { voxels, range: 0..self.voxel_count(), first_frame: 0 })?;
                Ok(0.0)
            }
            Samples::File(stored) => stored.for_each_window(frames, wanted, work),
        }
    }

    /// Whether a few samples here and there take no longer than their number says: they are in memory, this program's or the
    /// system's.
    pub(crate) fn is_at_hand(&self) -> bool {
        match &*self.samples {
            Samples::Memory(_) => true,
            Samples::File(stored) => stored.is_at_hand(),
        }
    }

    /// Does something with these frames of some neighbouring voxels. Where they have to be read, that is into `memory`, which
    /// may be given again.
    pub(crate) fn with_range<T>(
        &self,
        range: Range<usize>,
        frames: Range<usize>,
        memory: &mut Option<Voxels>,
        work: impl FnOnce(&Window<'_>) -> T,
    ) -> Result<T> {
        match &*self.samples {
            Samples::Memory(voxels) => Ok(work(&Window { voxels, range: 0..self.voxel_count(), first_frame: 0 })),
            Samples::File(stored) => {
                if memory.is_none() {
                    *memory = Voxels::zeros(stored.sample_type(), 0);
                }
                let voxels = memory.as_mut().ok_or_else(|| stored.no_memory(0))?;
                stored.read(range.clone(), frames.clone(), voxels)?;
                Ok(work(&Window { voxels, range, first_frame: frames.start }))
            }
        }
    }

    /// Does something with the samples of one voxel.
    pub(crate) fn with_voxel<T>(&self, index: usize, work: impl FnOnce(&Window<'_>) -> T) -> Result<T> {
        self.with_range(index..index + 1, 0..self.frames(), &mut None, work)
    }
}
