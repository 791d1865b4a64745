//! Whole jobs, from a file to maps on the disk: every stage beside the floor that it stands on.

use std::path::{Path, PathBuf};
use std::time::Instant;

use perfuse::io::{Compression, Overwrite, ReadOptions, SaveOptions};
use perfuse::kernels::descriptors::Baseline;
use perfuse::{Engine, Maps, Result, Series};
use serde_json::{Value, json};

use super::support::bandwidth::{self, Bandwidth};
use super::{CASES, floors, kernel, map_bytes};

/// A whole job: which file to begin with, which maps, how they are written, and what of it counts as its floor.
struct Job {
    name: &'static str,
    compressed: bool,
    maps: &'static [&'static str],
    /// Whether deflating is a part of the floor: all maps are as large as the series.
    deflated: bool,
}

const JOBS: [Job; 4] = [
    Job { name: ".nii.gz to three maps .nii.gz", compressed: true, maps: CASES[0].1, deflated: false },
    Job { name: ".nii.gz to all maps .nii.gz", compressed: true, maps: CASES[2].1, deflated: true },
    Job { name: ".nii to three maps .nii", compressed: false, maps: CASES[0].1, deflated: false },
    Job { name: ".nii to all maps .nii", compressed: false, maps: CASES[2].1, deflated: false },
];

/// What the same files take other software of its kind, in seconds.
struct Floors {
    /// Reading into warm memory, or inflating.
    read: f64,
    /// Deflating the maps on all cores; nothing for maps that aren't compressed.
    deflate: f64,
    /// Writing as many bytes to the disk.
    write: f64,
}

/// What a job came to.
pub(crate) struct Measured {
    job: &'static Job,
    fastest: Outcome,
    cold_seconds: f64,
    floors: Floors,
    /// Before the job and at most, in bytes.
    memory: Option<[u64; 2]>,
}

/// One run of a job.
struct Outcome {
    seconds: f64,
    stages: Vec<(String, f64, u64)>,
    sample_bytes: u64,
    written_bytes: u64,
    map_bytes: u64,
    maps: Option<Maps>,
}

/// Runs every job: the first time (cold) counts for memory, the fastest for time.
pub(crate) fn measure(
    path: &Path,
    options: &ReadOptions,
    scratch: &Path,
    engine: &Engine,
    baseline: Option<&Baseline>,
    runs: usize,
) -> Result<Vec<Measured>> {
    let (plain, packed) = both_ways(path, options, scratch)?;
    let mut all = Vec::new();
    for job in &JOBS {
        let source = if job.compressed { &packed } else { &plain };
        let out = scratch.join("maps");
        bandwidth::forget_peak_memory();
        let before = bandwidth::memory().map(|[now, _]| now);
        let cold = run(job, source, options, &out, engine, baseline)?;
        let memory = before.zip(bandwidth::memory()).map(|(before, [_, peak])| [before, peak]);
        let (cold_seconds, mut fastest) = (cold.seconds, cold);
        for _ in 0..runs {
            let warm = run(job, source, options, &out, engine, baseline)?;
            if warm.seconds < fastest.seconds {
                fastest = warm;
            }
        }
        let read = if job.compressed { floors::inflate(source, runs)? } else { floors::read_warm(source, runs)? };
        let mut deflate = 0.0;
        if let Some(maps) = fastest.maps.take().filter(|_| job.compressed) {
            let saved = SaveOptions::new().compression(Compression::None).overwrite(Overwrite::Replace);
            let files = maps.save_with(scratch.join("plain"), &saved)?.files;
            let images: Vec<PathBuf> =
                files.into_iter().filter(|file| file.extension().is_some_and(|ending| ending == "nii")).collect();
            deflate = floors::deflate(&images, runs)?;
        }
        let write = floors::write(scratch, fastest.written_bytes, runs)?;
        all.push(Measured { job, fastest, cold_seconds, floors: Floors { read, deflate, write }, memory });
    }
    Ok(all)
}

/// The series as `.nii` and as `.nii.gz`; whichever is missing is written.
fn both_ways(path: &Path, options: &ReadOptions, scratch: &Path) -> Result<(PathBuf, PathBuf)> {
    let is_packed = path.extension().is_some_and(|ending| ending == "gz");
    let other = scratch.join(if is_packed { "as.nii" } else { "as.nii.gz" });
    Series::open_with(path, options)?.save(&other, Overwrite::Replace)?;
    Ok(if is_packed { (other, path.into()) } else { (path.into(), other) })
}

/// Reads, computes, writes.
fn run(
    job: &Job,
    path: &Path,
    options: &ReadOptions,
    out: &Path,
    engine: &Engine,
    baseline: Option<&Baseline>,
) -> Result<Outcome> {
    let start = Instant::now();
    let (series, read) = Series::open_with_report(path, &options.clone().leave_in_file())?;
    let maps = engine.run(&kernel(&series, baseline.cloned(), job.maps), &series)?;
    let compression = if job.compressed { Compression::Gzip } else { Compression::None };
    let saved = SaveOptions::new().compression(compression).overwrite(Overwrite::Replace);
    let written = maps.save_with(out, &saved)?;
    let seconds = start.elapsed().as_secs_f64();
    let of_run = maps.record().stages.iter().cloned();
    let mut stages: Vec<_> =
        [read.stage()].into_iter().chain(of_run).map(|stage| (stage.stage, stage.seconds, stage.bytes)).collect();
    stages.push(("write".into(), written.seconds, written.bytes));
    Ok(Outcome {
        seconds,
        stages,
        sample_bytes: series.sample_bytes(),
        written_bytes: written.bytes,
        map_bytes: map_bytes(&maps),
        maps: Some(maps),
    })
}

impl Measured {
    fn floor(&self) -> (f64, String) {
        let compressor = floors::COMPRESSOR;
        match (self.job.compressed, self.job.deflated) {
            (false, _) => (self.floors.read, "reading into warm memory".into()),
            (true, false) => (self.floors.read, format!("inflating alone, {compressor}")),
            (true, true) => (
                self.floors.read + self.floors.deflate,
                format!("inflating, then deflating on all cores, {compressor}"),
            ),
        }
    }

    /// The least seconds that a stage could take: what its files take alone, or its bytes at the copy's rate.
    fn stage_floor(&self, stage: &str, bytes: u64, copy: f64) -> Option<f64> {
        match stage {
            // From a temporary file, after inflating.
            "read" if self.job.compressed => None,
            "read" | "read and inflate" => Some(self.floors.read),
            "write" => Some(self.floors.deflate + self.floors.write),
            _ if bytes > 0 => Some(bytes as f64 / copy),
            _ => None,
        }
    }

    /// The job as a table; `device_copy` is the copy bandwidth of the memory that the kernel works in.
    pub(crate) fn text(&self, memory: &Bandwidth, device_copy: Option<f64>) -> String {
        let Self { job, fastest, cold_seconds, .. } = self;
        let mut text = format!("{:<42} {:>9} {:>10} {:>8} {:>9}\n", job.name, "seconds", "MB", "GB/s", "floor s");
        for (stage, seconds, bytes) in &fastest.stages {
            let rate = match *bytes {
                0 => " ".repeat(19),
                bytes => format!("{:>10.1} {:>8.2}", bytes as f64 / 1e6, bytes as f64 / seconds / 1e9),
            };
            let floor = self.stage_floor(stage, *bytes, copy_for(stage, memory, device_copy));
            let floor = floor.map_or(String::new(), |floor| format!("{floor:>9.4}"));
            text += format!("  {stage:<40} {seconds:>9.4} {rate} {floor}").trim_end();
            text += "\n";
        }
        let (floor, name) = self.floor();
        let ratio = fastest.seconds / floor;
        text += &format!(
            "  whole job {:.4} s (cold {cold_seconds:.4}): {ratio:.2} x {name} ({floor:.4} s)\n",
            fastest.seconds
        );
        if let Some([before, peak]) = self.memory {
            let mb = |bytes: u64| bytes as f64 / 1e6;
            text += &format!(
                "  peak memory {:.1} MB, of which {:.1} before; samples and maps are {:.1} MB\n",
                mb(peak),
                mb(before),
                mb(fastest.sample_bytes + fastest.map_bytes)
            );
        }
        text
    }

    /// The same for a record.
    pub(crate) fn json(&self, memory: &Bandwidth, device_copy: Option<f64>) -> Value {
        let fastest = &self.fastest;
        let stages: Vec<Value> = fastest
            .stages
            .iter()
            .map(|(stage, seconds, bytes)| {
                let floor = self.stage_floor(stage, *bytes, copy_for(stage, memory, device_copy));
                json!({"stage": stage, "seconds": seconds, "bytes": bytes, "floor_seconds": floor})
            })
            .collect();
        let (floor, name) = self.floor();
        json!({
            "job": self.job.name, "seconds": fastest.seconds, "cold_seconds": self.cold_seconds, "stages": stages,
            "floor": name, "floor_seconds": floor, "ratio_to_floor": fastest.seconds / floor,
            "memory_before_bytes": self.memory.map(|[before, _]| before),
            "peak_memory_bytes": self.memory.map(|[_, peak]| peak),
            "samples_and_maps_bytes": fastest.sample_bytes + fastest.map_bytes,
        })
    }
}

/// The copy bandwidth of the memory that a stage works in.
fn copy_for(stage: &str, memory: &Bandwidth, device_copy: Option<f64>) -> f64 {
    device_copy.filter(|_| stage == "gpu: kernel").unwrap_or(memory.best_copy())
}
