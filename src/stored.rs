//! Samples that stay in a file: a stretch of neighbouring voxels with all their frames is read at a time.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::{Instant, SystemTime};

use crate::error::{Error, Result};
use crate::voxels::{SampleType, Voxels, swap_samples};

/// Windows begin and hold a multiple of this many voxels, so that sums over blocks are the same wherever samples lie.
pub(crate) const WINDOW_GRANULE: usize = 1 << 14;

/// A stretch of voxels with their samples in memory, frame by frame.
#[derive(Debug, Clone)]
pub(crate) struct Window<'a> {
    pub(crate) voxels: &'a Voxels,
    /// The voxels, by their index in the volume.
    pub(crate) range: Range<usize>,
    /// The first frame that is there.
    pub(crate) first_frame: usize,
}

impl Window<'_> {
    /// Where a frame begins that a voxel is counted from by its index in the volume, less the window's first voxel.
    pub(crate) fn row(&self, frame: usize) -> usize {
        (frame - self.first_frame) * self.range.len()
    }

    /// Where a sample is.
    pub(crate) fn at(&self, voxel: usize, frame: usize) -> usize {
        self.row(frame) + voxel - self.range.start
    }

    /// One stored sample as f64 (rounded there beyond 2^53).
    pub(crate) fn get_f64(&self, voxel: usize, frame: usize) -> f64 {
        self.voxels.get_f64(self.at(voxel, frame))
    }
}

/// Where samples lie in a file.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    /// Bytes before the first sample.
    pub(crate) offset: u64,
    pub(crate) sample: SampleType,
    /// Stored in the other byte order.
    pub(crate) swapped: bool,
    pub(crate) voxels: usize,
    pub(crate) frames: usize,
}

/// Samples in a file.
#[derive(Debug)]
pub(crate) struct Stored {
    file: Arc<File>,
    place: Place,
    /// Length and time of the last change, to notice that someone writes to the file.
    stamp: (u64, Option<SystemTime>),
    /// Memory that windows may take.
    window_bytes: u64,
    at_hand: bool,
}

impl Stored {
    #[cfg_attr(not(feature = "nifti"), expect(dead_code, reason = "only io reads files"))]
    pub(crate) fn new(file: Arc<File>, place: Place, window_bytes: u64, at_hand: bool) -> Result<Self> {
        let stamp = stamp(&file).map_err(|e| Error::io("read", &place.path, e))?;
        Ok(Self { file, place, stamp, window_bytes, at_hand })
    }

    /// Whether the system holds the file in its memory, so that small pieces come as fast as large ones.
    pub(crate) fn is_at_hand(&self) -> bool {
        self.at_hand
    }

    pub(crate) fn sample_type(&self) -> SampleType {
        self.place.sample
    }

    pub(crate) fn samples(&self) -> usize {
        self.place.voxels * self.place.frames
    }

    /// Reads these voxels of these frames.
    pub(crate) fn read(&self, voxels: Range<usize>, frames: Range<usize>, into: &mut Voxels) -> Result<()> {
        let failed = |e| Error::io("read", &self.place.path, e);
        let bytes = self.place.sample.bytes();
        into.resize(voxels.len() * frames.len());
        let rows = into.as_bytes_mut().chunks_exact_mut((voxels.len() * bytes).max(1));
        for (row, frame) in rows.zip(frames) {
            let first = (frame * self.place.voxels + voxels.start) as u64;
            if fill_at(&self.file, row, self.place.offset + first * bytes as u64).map_err(failed)? < row.len() {
                return Err(failed(io::ErrorKind::UnexpectedEof.into()));
            }
            if self.place.swapped {
                swap_samples(row, bytes);
            }
        }
        if stamp(&self.file).map_err(failed)? != self.stamp {
            let mend = "another program wrote to it while it was in use; open it again when that program is done";
            return Err(Error::file(&self.place.path, "the file", "changed", mend));
        }
        Ok(())
    }

    /// Voxels that are read at once with so many frames.
    fn window_voxels(&self, frames: usize) -> usize {
        let each = (frames * self.place.sample.bytes()).max(1);
        let most = usize::try_from(self.window_bytes / 2).unwrap_or(usize::MAX) / each;
        (most / WINDOW_GRANULE).max(1) * WINDOW_GRANULE
    }

    /// Hands over window after window, reading the next one meanwhile; without those that aren't wanted. Returns the
    /// seconds that were waited for the file.
    pub(crate) fn for_each_window(
        &self,
        frames: Range<usize>,
        wanted: impl Fn(Range<usize>) -> bool,
        mut work: impl FnMut(&Window<'_>) -> Result<()>,
    ) -> Result<f64> {
        let (count, size) = (self.place.voxels, self.window_voxels(frames.len()));
        let ranges: Vec<Range<usize>> = (0..count)
            .step_by(size)
            .map(|start| start..count.min(start + size))
            .filter(|range| wanted(range.clone()))
            .collect();
        let empty = || Voxels::zeros(self.place.sample, 0).ok_or_else(|| self.no_memory(0));
        if let [only] = ranges.as_slice() {
            let start = Instant::now();
            let mut voxels = empty()?;
            self.read(only.clone(), frames.clone(), &mut voxels)?;
            let seconds = start.elapsed().as_secs_f64();
            work(&Window { voxels: &voxels, range: only.clone(), first_frame: frames.start })?;
            return Ok(seconds);
        }
        std::thread::scope(|scope| {
            let (full, windows) = mpsc::sync_channel::<Result<Voxels>>(1);
            let (used, returned) = mpsc::sync_channel::<Voxels>(2);
            for _ in 0..2 {
                let _ = used.send(empty()?);
            }
            let read = {
                let (ranges, frames) = (ranges.clone(), frames.clone());
                move || {
                    for range in ranges {
                        // Ends when nobody listens any more, too.
                        let Ok(mut voxels) = returned.recv() else { break };
                        let outcome = self.read(range, frames.clone(), &mut voxels);
                        let failed = outcome.is_err();
                        if full.send(outcome.map(|()| voxels)).is_err() || failed {
                            break;
                        }
                    }
                }
            };
            std::thread::Builder::new()
                .name("read".into())
                .spawn_scoped(scope, read)
                .map_err(|e| Error::io("read", &self.place.path, e))?;
            let mut waited = 0.0;
            for range in ranges {
                let start = Instant::now();
                let Ok(voxels) = windows.recv() else { break };
                let voxels = voxels?;
                waited += start.elapsed().as_secs_f64();
                work(&Window { voxels: &voxels, range, first_frame: frames.start })?;
                let _ = used.send(voxels);
            }
            Ok(waited)
        })
    }

    /// All samples, into memory.
    pub(crate) fn load(&self) -> Result<Voxels> {
        let mut voxels = Voxels::zeros(self.place.sample, self.samples()).ok_or_else(|| self.no_memory(0))?;
        self.read(0..self.place.voxels, 0..self.place.frames, &mut voxels)?;
        Ok(voxels)
    }

    /// What to tell someone who wants all of it in memory.
    pub(crate) fn no_memory(&self, limit_bytes: u64) -> Error {
        Error::OutOfMemory {
            place: self.place.path.display().to_string(),
            needed_bytes: (self.samples() * self.place.sample.bytes()) as u64,
            limit_bytes,
            mend: "its samples stay in the file: raise the limit (ReadOptions::memory_limit_bytes), or crop the series"
                .into(),
        }
    }
}

fn stamp(file: &File) -> io::Result<(u64, Option<SystemTime>)> {
    let metadata = file.metadata()?;
    Ok((metadata.len(), metadata.modified().ok()))
}

/// Reads as far as the file reaches, and says how far that is.
pub(crate) fn fill_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match read_at(file, &mut buffer[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// Reads from a place in a file, whatever other threads read.
pub(crate) fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_at(file, buffer, at);
    #[cfg(windows)]
    return std::os::windows::fs::FileExt::seek_read(file, buffer, at);
    #[cfg(not(any(unix, windows)))]
    {
        use std::io::{Read, Seek, SeekFrom};
        static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let _turn = ONE_AT_A_TIME.lock();
        let mut file = file;
        file.seek(SeekFrom::Start(at))?;
        file.read(buffer)
    }
}
