//! How long each step of the main job takes here, beside what this machine's memory can do.
//!
//! `cargo run --release --example benchmark`; the binary alone works on a machine without cargo.

mod support;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use perfuse::io::{Overwrite, ReadOptions, SaveOptions};
use perfuse::kernels::descriptors::{Baseline, MapSelection};
use perfuse::phantom::{Noise, Phantom};
use perfuse::{Descriptors, Engine, Error, Maps, Result, RunOptions, Series};
use serde_json::{Value, json};
use support::arguments::{Numbers, Times};
use support::bandwidth::{self, Bandwidth};

const EXAMPLES: &str = "\
Examples:
  benchmark
      A generated 16-bit series of 256 x 256 x 30 voxels and 60 frames on the CPU engine.
  benchmark dce.nii.gz --device gpu --json result.json
      Your own series, on the CPU engine and on a GPU, also as JSON.
  benchmark --size 64,64,16,40 --runs 20

`cold` is the first run, `warm` the median of the others, which write into the memory of the run before. GB/s are 10^9
bytes per second: of samples in memory for the file, of samples and maps (read plus written) for the maps.";

/// End-to-end times and bandwidths of the semi-quantitative maps.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES, max_term_width = 110)]
struct Arguments {
    /// The dynamic series, e.g. dce.nii.gz; a generated one if there is none
    #[arg(value_name = "SERIES")]
    series: Option<PathBuf>,
    #[command(flatten)]
    times: Times,
    /// Voxels along x, y, z, and frames of the generated series, e.g. --size 128,128,20,80
    #[arg(long, value_name = "X,Y,Z,T", default_value = "256,256,30,60", conflicts_with = "series")]
    size: Numbers<4>,
    /// Baseline frames [default: the first tenth], e.g. --baseline 8 or --baseline auto
    #[arg(long, value_name = "auto|N|A:B")]
    baseline: Option<Baseline>,
    /// A device beside the CPU engine: gpu, auto or part of an adapter's name; may be repeated, e.g. --device gpu
    #[arg(long, value_name = "auto|gpu|NAME")]
    device: Vec<String>,
    /// Threads of the CPU engine [default: all cores], e.g. --threads 2
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Warm runs of each measurement, e.g. --runs 20
    #[arg(long, value_name = "N", default_value_t = 5)]
    runs: usize,
    /// Also write the results as JSON, e.g. --json result.json
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Replace an earlier JSON file
    #[arg(long)]
    force: bool,
}

/// What is computed, by the maps that are asked for.
const CASES: [(&str, &[&str]); 3] = [
    ("peak_time, max_slope, auc", &["peak_time", "max_slope", "auc"]),
    ("peak_time, wash_in_slope, auc", &["peak_time", "wash_in_slope", "auc"]),
    ("all maps", &[]),
];

fn main() -> ExitCode {
    support::finish(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<()> {
    if let Some(json) = &arguments.json {
        support::refuse_existing(json, arguments.force)?;
    }
    let mut engines = vec![match arguments.threads {
        Some(threads) => Engine::cpu().with_threads(threads)?,
        None => Engine::cpu(),
    }];
    for name in &arguments.device {
        let engine = Engine::named(name)?;
        if engine.name() == "cpu" {
            eprintln!("warning: --device {name}: {}; it is measured anyway", engine.reason());
        } else {
            engines.push(engine);
        }
    }
    let scratch =
        tempfile::tempdir().map_err(|source| Error::Io { action: "create", path: std::env::temp_dir(), source })?;
    let path = match &arguments.series {
        Some(path) => path.clone(),
        None => generate(arguments.size.0, scratch.path())?,
    };
    let mut options = ReadOptions::new();
    if let Some(spacing) = arguments.times.dt {
        options = options.frame_spacing_s(spacing);
    }
    if let Some(file) = &arguments.times.times {
        options = options.times_file(file);
    }

    // The whole job first, with nothing else in memory.
    let mut job = Vec::new();
    for (index, engine) in engines.iter().enumerate() {
        let out = scratch.path().join(format!("maps{index}"));
        job.push(whole_job(&path, &options, &out, engine, arguments.baseline.clone())?);
    }

    let (series, inflating) = read_apart(&path, options)?;
    let bandwidth = bandwidth::measure(series.voxels(), series.frames(), arguments.runs);
    let [x, y, z, t] = series.shape();
    let (name, sample_type) =
        (arguments.series.as_ref().map_or("generated".into(), |_| series.name()), series.voxels().type_name());
    let mut text = format!(
        "series     {name}: {x} x {y} x {z} voxels, {t} frames, {sample_type}, {:.1} MB in memory\n\
         memory     copy {:.1} GB/s (one thread {:.1}), read plus written; read {:.1} GB/s in slab order; two threads\n",
        sample_bytes(&series) / 1e6,
        bandwidth.copy / 1e9,
        bandwidth.copy_one_thread / 1e9,
        bandwidth.slab_read / 1e9,
    );
    text += &inflating.text;
    let mut devices = Vec::new();
    for (engine, job) in engines.iter().zip(job) {
        text += &format!("\n{}: {}\n{}", engine.name(), engine.device(), job.text);
        let copy = device_copy(engine);
        if let Some(copy) = copy {
            text += &format!("device memory: copy {:.1} GB/s, read plus written\n", copy / 1e9);
        }
        let (table, rows) = kernels(engine, &series, arguments, &bandwidth)?;
        text += &table;
        devices.push(json!({
            "engine": engine.name(), "device": engine.device(), "device_copy_bytes_per_s": copy,
            "whole_job": job.json, "runs": rows,
        }));
    }
    support::print(&text);
    if let Some(file) = &arguments.json {
        let all = json!({
            "software": {"name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION")},
            "optimised": !cfg!(debug_assertions),
            "series": {"name": name, "shape": [x, y, z, t], "samples": sample_type, "bytes": sample_bytes(&series)},
            "memory": {
                "copy_bytes_per_s": bandwidth.copy, "copy_one_thread_bytes_per_s": bandwidth.copy_one_thread,
                "slab_read_bytes_per_s": bandwidth.slab_read, "threads": 2,
            },
            "file": inflating.json,
            "devices": devices,
        });
        support::write_file(file, &format!("{all:#}\n"))?;
    }
    Ok(())
}

/// Writes a noisy head whose bolus arrives after an eighth of four minutes.
fn generate([x, y, z, t]: [usize; 4], folder: &Path) -> Result<PathBuf> {
    let phantom = Phantom::brain_with_lesion().shape([x, y, z]).frames(t, 240.0 / t.max(1) as f64);
    let path = folder.join("series.nii.gz");
    phantom.noise(Noise::Gaussian(8.0)).build()?.series.save(&path, Overwrite::Refuse)?;
    Ok(path)
}

fn sample_bytes(series: &Series) -> f64 {
    (series.voxels().len() * series.voxels().sample_bytes()) as f64
}

fn kernel(series: &Series, baseline: Option<Baseline>, ids: &[&str]) -> Descriptors {
    let first = || Baseline::first((series.frames() / 10).clamp(1, series.frames() - 1));
    let maps = if ids.is_empty() { MapSelection::All } else { MapSelection::only(ids) };
    Descriptors::new().baseline(baseline.unwrap_or_else(first)).maps(maps)
}

/// A piece of the report in both forms.
struct Part {
    text: String,
    json: Value,
}

/// Reads, computes all maps, writes: the main job, once, from a cold start of the engine.
fn whole_job(
    path: &Path,
    options: &ReadOptions,
    out: &Path,
    engine: &Engine,
    baseline: Option<Baseline>,
) -> Result<Part> {
    bandwidth::forget_peak_memory();
    let before = bandwidth::memory().map(|[now, _]| now);
    let start = Instant::now();
    let (series, read) = Series::open_with_report(path, options)?;
    let kernel = kernel(&series, baseline, &[]);
    let maps = engine.run(&kernel, &series)?;
    let written = maps.save_with(out, &SaveOptions::new())?;
    let seconds = start.elapsed().as_secs_f64();
    let peak = bandwidth::memory().map(|[_, peak]| peak);
    let name = if read.compressed { "read and inflate" } else { "read" };
    let mut stages = vec![(name, read.read_inflate_seconds, read.data_bytes)];
    stages.extend(maps.record().stages.iter().map(|stage| (stage.stage.as_str(), stage.seconds, stage.bytes)));
    stages.push(("write", written.seconds, written.bytes));
    stages.push(("whole job", seconds, 0));
    let mut text = format!("{:<28} {:>10} {:>10} {:>8}\n", "whole job, cold, all maps", "seconds", "MB", "GB/s");
    for (stage, seconds, bytes) in &stages {
        let rate = if *bytes > 0 {
            format!("{:>10.1} {:>8.2}", *bytes as f64 / 1e6, *bytes as f64 / seconds / 1e9)
        } else {
            String::new()
        };
        text += &format!("  {stage:<26} {seconds:>10.4} {rate}\n");
    }
    let needed = sample_bytes(&series) as u64 + map_bytes(&maps);
    if let (Some(before), Some(peak)) = (before, peak) {
        let mb = |bytes: u64| bytes as f64 / 1e6;
        let (before, needed) = (mb(before), mb(needed));
        text += &format!(
            "  {:<26} {:>10.1} MB, of which {before:.1} before; samples and maps: {needed:.1} MB\n",
            "peak memory",
            mb(peak)
        );
    }
    let stages: Vec<Value> = stages
        .iter()
        .map(|(stage, seconds, bytes)| json!({"stage": stage, "seconds": seconds, "bytes": bytes}))
        .collect();
    let json = json!({"stages": stages, "memory_before_bytes": before, "peak_memory_bytes": peak, "samples_and_maps_bytes": needed});
    Ok(Part { text, json })
}

/// Bytes of all maps and the status in memory.
fn map_bytes(maps: &Maps) -> u64 {
    4 * (maps.status().len() * (maps.iter().count() + 1)) as u64
}

/// Reading the file's bytes and turning them into samples, each for itself.
fn read_apart(path: &Path, options: ReadOptions) -> Result<(Series, Part)> {
    let times = Series::open_with(path, &options)?.times()?.clone();
    let start = Instant::now();
    let read = std::fs::read(path).map_err(|source| Error::Io { action: "read", path: path.into(), source })?;
    let reading = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let opened = Series::from_nifti_bytes(path, &read, &ReadOptions::new().times(times));
    let inflating = start.elapsed().as_secs_f64();
    let Ok(series) = opened else {
        // A pair of files: its bytes can't be had apart.
        let json = json!({"bytes": read.len(), "read_seconds": reading});
        return Ok((Series::open_with(path, &options)?, Part { text: String::new(), json }));
    };
    let (stored, inflated) = (read.len() as f64, sample_bytes(&series));
    let text = format!(
        "file       read {:.1} MB in {reading:.4} s ({:.2} GB/s), inflate to samples in {inflating:.4} s ({:.2} GB/s)\n",
        stored / 1e6,
        stored / reading / 1e9,
        inflated / inflating / 1e9,
    );
    let json = json!({"bytes": stored, "read_seconds": reading, "inflate_seconds": inflating});
    Ok((series, Part { text, json }))
}

/// Every case on one engine, cold and warm, as a table and as rows.
fn kernels(
    engine: &Engine,
    series: &Series,
    arguments: &Arguments,
    memory: &Bandwidth,
) -> Result<(String, Vec<Value>)> {
    let mut text = format!(
        "{:<33} {:>9} {:>9} {:>9} {:>8} {:>13} {:>9}\n",
        "from memory to memory", "cold s", "warm s", "kernel s", "GB/s", "of slab read", "of copy"
    );
    let mut rows = Vec::new();
    for (name, ids) in CASES {
        let kernel = kernel(series, arguments.baseline.clone(), ids);
        let start = Instant::now();
        let mut maps = engine.run(&kernel, series)?;
        let cold = start.elapsed().as_secs_f64();
        let mut warm = Vec::new();
        for _ in 0..arguments.runs.max(1) {
            let start = Instant::now();
            maps = engine.run_reusing(&kernel, series, &RunOptions::new(), maps)?;
            let seconds = start.elapsed().as_secs_f64();
            let in_kernel = maps.record().stages.iter().find(|stage| stage.stage.ends_with("kernel"));
            warm.push((seconds, in_kernel.map_or(f64::NAN, |stage| stage.seconds)));
        }
        warm.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (seconds, in_kernel) = warm[warm.len() / 2];
        let (read, all) = (sample_bytes(series), sample_bytes(series) + map_bytes(&maps) as f64);
        text += &format!(
            "  {name:<31} {cold:>9.4} {seconds:>9.4} {in_kernel:>9.4} {:>8.2} {:>11.1} % {:>6.1} %\n",
            all / seconds / 1e9,
            100.0 * read / seconds / memory.slab_read,
            100.0 * all / seconds / memory.best_copy(),
        );
        rows.push(json!({
            "maps": name, "cold_seconds": cold, "warm_seconds": seconds, "kernel_seconds": in_kernel,
            "fastest_seconds": warm[0].0, "bytes_read": read, "bytes_read_and_written": all,
            "share_of_slab_read": read / seconds / memory.slab_read,
            "share_of_copy": all / seconds / memory.best_copy(),
        }));
    }
    Ok((text, rows))
}

/// What the device's own memory can do, in bytes per second.
fn device_copy(engine: &Engine) -> Option<f64> {
    #[cfg(feature = "gpu")]
    return engine.as_gpu()?.copy_bandwidth(256 << 20).ok();
    #[cfg(not(feature = "gpu"))]
    return engine.name().is_empty().then_some(0.0);
}
