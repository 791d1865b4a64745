//! What this machine's memory can do, measured in the same run as what is compared with it.

use std::time::Instant;

use perfuse::Voxels;
use rayon::prelude::*;

/// Bytes per second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bandwidth {
    /// Read, by two threads, slab after slab of voxels, all frames of a slab: the order in which voxelwise kernels read.
    pub(crate) slab_read: f64,
    /// Read plus written, in a plain copy by two threads.
    pub(crate) copy: f64,
    /// The same by one thread.
    pub(crate) copy_one_thread: f64,
}

impl Bandwidth {
    /// The faster copy: what a share of the copy bandwidth refers to.
    pub(crate) fn best_copy(&self) -> f64 {
        self.copy.max(self.copy_one_thread)
    }
}

/// Measures with the samples themselves.
pub(crate) struct Meter<'a> {
    pool: rayon::ThreadPool,
    bytes: &'a [u8],
    frames: usize,
    target: Vec<u8>,
    /// Bytes of a row: of some lengths the one that is read fastest.
    row: usize,
    two_threads_copy_faster: bool,
}

impl<'a> Meter<'a> {
    /// The best of several rounds, and what repeats them.
    pub(crate) fn new(voxels: &'a Voxels, frames: usize, rounds: usize) -> (Self, Bandwidth) {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("two threads");
        let bytes = voxels.as_bytes();
        let target = vec![0u8; bytes.len()];
        let mut meter = Self { pool, bytes, frames, target, row: 0, two_threads_copy_faster: false };
        let rounds = 0..rounds.max(2);
        let copy = [false, true].map(|two| {
            meter.two_threads_copy_faster = two;
            rounds.clone().map(|_| meter.copy_seconds()).fold(f64::INFINITY, f64::min)
        });
        // Longer rows are read faster, up to some length.
        let reads = [1 << 14, 1 << 16, 1 << 18].map(|row| {
            meter.row = row;
            (rounds.clone().map(|_| meter.read_seconds()).fold(f64::INFINITY, f64::min), row)
        });
        let (read, row) = reads.into_iter().min_by(|a, b| a.0.total_cmp(&b.0)).expect("three rows");
        meter.row = row;
        meter.two_threads_copy_faster = copy[1] < copy[0];
        let size = bytes.len() as f64;
        let [copy_one_thread, copy] = copy.map(|seconds| 2.0 * size / seconds);
        (meter, Bandwidth { slab_read: size / read, copy, copy_one_thread })
    }

    /// Seconds that reading all samples takes now.
    pub(crate) fn read_seconds(&self) -> f64 {
        let start = Instant::now();
        std::hint::black_box(self.pool.install(|| read_slabs(self.bytes, self.frames, self.row)));
        start.elapsed().as_secs_f64()
    }

    /// Seconds that a copy of all samples takes now, by as many threads as are faster.
    pub(crate) fn copy_seconds(&mut self) -> f64 {
        let (bytes, target) = (self.bytes, &mut self.target);
        let start = Instant::now();
        if self.two_threads_copy_faster {
            let half = bytes.len().div_ceil(2).max(1);
            self.pool.install(|| {
                target.par_chunks_mut(half).zip(bytes.par_chunks(half)).for_each(|(to, from)| to.copy_from_slice(from));
            });
        } else {
            target.copy_from_slice(bytes);
        }
        start.elapsed().as_secs_f64()
    }
}

/// Adds up every word, in rows of so many bytes: all frames of a row, then the next row.
fn read_slabs(bytes: &[u8], frames: usize, row: usize) -> u64 {
    let frame = bytes.len() / frames;
    (0..frame.div_ceil(row))
        .into_par_iter()
        .map(|slab| {
            let mut sum = 0u64;
            for t in 0..frames {
                let from = t * frame + slab * row;
                let to = (from + row).min((t + 1) * frame);
                let (_, words, _) = bytemuck::pod_align_to::<u8, u64>(&bytes[from..to]);
                sum = words.iter().fold(sum, |sum, word| sum.wrapping_add(*word));
            }
            sum
        })
        .reduce(|| 0, u64::wrapping_add)
}

/// The memory that this process has now and the most that it has had since [`forget_peak_memory`], in bytes; Linux only.
pub(crate) fn memory() -> Option<[u64; 2]> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let bytes = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
    };
    Some([bytes("VmRSS:")?, bytes("VmHWM:")?])
}

/// Begins to watch the peak anew; without effect where the system can't.
pub(crate) fn forget_peak_memory() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}
