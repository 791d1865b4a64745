//! How long each step of the main job takes here, beside what this machine's memory can do.
//!
//! `cargo run --release --example benchmark`; the binary alone works on a machine without cargo.

#[path = "support/floors.rs"]
mod floors;
#[path = "support/jobs.rs"]
mod jobs;
mod support;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use perfuse::io::Overwrite;
use perfuse::kernels::descriptors::{Baseline, MapSelection};
use perfuse::phantom::{Noise, Phantom};
use perfuse::{Descriptors, Engine, Error, Maps, Result, RunOptions, Series, TimeAxis};
use serde_json::{Value, json};
use support::arguments::{Numbers, Times};
use support::bandwidth::Meter;

const EXAMPLES: &str = "\
Examples:
  benchmark
      A generated 16-bit series of 256 x 256 x 30 voxels and 60 frames on the CPU engine.
  benchmark dce.nii.gz --device gpu --json result.json
      Your own series, on the CPU engine and on a GPU, also as JSON.
  benchmark --size 64,64,16,40 --runs 20
  benchmark --record benches/record
      Also as JSON, in a file named by the day and the processor.
  benchmark --sweep 1e9
      Seconds per sample from 10^7 samples to 10^9, in memory.

`cold` is the first run, `warm` the median of the others, which write into the memory of the run before. GB/s are 10^9
bytes per second: of samples in memory for the file, of samples and maps (read plus written) for the maps. After each run
all samples are read, in the engine's order, and copied, by two threads: the shares compare medians with medians, and the
fastest run with the fastest reading and copy. A job is the
fastest of its runs, from opening the file to maps on the disk. A floor is what other software takes for that alone:
reading into warm memory, inflating, deflating on all cores, writing to the disk, or a copy of as many bytes.";

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
    /// Also write the results as JSON into this folder, named by the day and the processor, e.g. --record benches/record
    #[arg(long, value_name = "DIR", conflicts_with = "json")]
    record: Option<PathBuf>,
    /// Instead: seconds per sample from 10^7 samples up to so many, e.g. --sweep 1e9
    #[arg(long, value_name = "SAMPLES", conflicts_with = "series")]
    sweep: Option<f64>,
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
    if let Some(most) = arguments.sweep {
        return sweep(most, arguments);
    }
    let json = arguments.json.clone().or(arguments.record.as_ref().map(|folder| folder.join(record_name())));
    if let Some(json) = &json {
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
    let options = arguments.times.options();

    // The whole jobs first, with nothing else in memory.
    let mut jobs = Vec::new();
    for engine in &engines {
        let baseline = arguments.baseline.as_ref();
        jobs.push(jobs::measure(&path, &options, scratch.path(), engine, baseline, arguments.runs)?);
    }

    let series = Series::open_with(&path, &options)?.in_memory()?;
    let (mut meter, bandwidth) = Meter::new(series.voxels()?, series.frames(), arguments.runs);
    let [x, y, z, t] = series.shape();
    let (name, sample_type) =
        (arguments.series.as_ref().map_or("generated".into(), |_| series.name()), series.sample_type().name());
    let mut text = format!(
        "series     {name}: {x} x {y} x {z} voxels, {t} frames, {sample_type}, {:.1} MB in memory\n\
         memory     copy {:.1} GB/s (one thread {:.1}), read plus written; read {:.1} GB/s in slab order; two threads\n",
        sample_bytes(&series) / 1e6,
        bandwidth.copy / 1e9,
        bandwidth.copy_one_thread / 1e9,
        bandwidth.slab_read / 1e9,
    );
    let mut devices = Vec::new();
    for (engine, jobs) in engines.iter().zip(jobs) {
        text += &format!("\n{}: {}\n", engine.name(), engine.device());
        let copy = device_copy(engine);
        jobs.iter().for_each(|job| text += &job.text(&bandwidth, copy));
        if let Some(copy) = copy {
            text += &format!("device memory: copy {:.1} GB/s, read plus written\n", copy / 1e9);
        }
        let (table, rows) = kernels(engine, &series, arguments, &mut meter)?;
        text += &table;
        devices.push(json!({
            "engine": engine.name(), "device": engine.device(), "device_copy_bytes_per_s": copy,
            "jobs": jobs.iter().map(|job| job.json(&bandwidth, copy)).collect::<Vec<_>>(), "runs": rows,
        }));
    }
    support::print(&text);
    if let Some(file) = &json {
        // A record travels: where its file lay on this machine is nobody's business.
        let file_name = Path::new(&name).file_name().map_or(name.clone(), |part| part.to_string_lossy().into_owned());
        let all = json!({
            "software": {"name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION")},
            "optimised": !cfg!(debug_assertions),
            "series": {"name": file_name, "shape": [x, y, z, t], "samples": sample_type, "bytes": sample_bytes(&series)},
            "memory": {
                "copy_bytes_per_s": bandwidth.copy, "copy_one_thread_bytes_per_s": bandwidth.copy_one_thread,
                "slab_read_bytes_per_s": bandwidth.slab_read, "threads": 2,
            },
            "best_compressor": floors::COMPRESSOR,
            "devices": devices,
        });
        support::write_file(file, format!("{all:#}\n"))?;
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
    series.sample_bytes() as f64
}

fn kernel(series: &Series, baseline: Option<Baseline>, ids: &[&str]) -> Descriptors {
    let first = || Baseline::first((series.frames() / 10).clamp(1, series.frames() - 1));
    let maps = if ids.is_empty() { MapSelection::All } else { MapSelection::only(ids) };
    Descriptors::new().baseline(baseline.unwrap_or_else(first)).maps(maps)
}

/// Seconds per sample over three decades: the same cost at every size means that nothing grows faster than the work.
fn sweep(most: f64, arguments: &Arguments) -> Result<()> {
    let engine = Engine::cpu();
    let mut text =
        format!("{}\n{:>14} {:>9} {:>9} {:>13}\n", engine.device(), "samples", "MB", "seconds", "ns per sample");
    for exponent in 0.. {
        // Two a decade, and the last as large as was asked for.
        let wanted = (1e7 * 10f64.powf(f64::from(exponent) / 2.0)).min(most);
        let (frames, plane) = (60, 256 * 256);
        let slices = ((wanted / (frames * plane) as f64).round() as usize).max(1);
        let samples: Vec<i16> = (0..plane * slices * frames)
            .map(|i| {
                let (voxel, frame) = (i % (plane * slices), i / (plane * slices));
                let noise = (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60) as i16;
                // Of an odd number of frames: half of it is at no frame, whatever the noise is.
                let rise = frame.saturating_sub(8).min(21) * (voxel % 31);
                300 + rise as i16 + noise
            })
            .collect();
        let times = TimeAxis::uniform(4.0, frames)?;
        let series = Series::from_voxels(samples, [256, 256, slices, frames], times)?;
        let kernel = kernel(&series, arguments.baseline.clone(), CASES[0].1);
        let mut maps = engine.run(&kernel, &series)?;
        let mut seconds = f64::INFINITY;
        for _ in 0..arguments.runs.max(1) {
            let start = Instant::now();
            maps = engine.run_reusing(&kernel, &series, &RunOptions::new(), maps)?;
            seconds = seconds.min(start.elapsed().as_secs_f64());
        }
        let count = (series.voxel_count() * frames) as f64;
        text += &format!(
            "{count:>14.3e} {:>9.1} {seconds:>9.4} {:>13.4}\n",
            series.sample_bytes() as f64 / 1e6,
            seconds / count * 1e9
        );
        if wanted >= most {
            break;
        }
    }
    support::print(&text);
    Ok(())
}

/// `2026-11-22-amd-epyc.json`: the day, in coordinated universal time, and the processor.
fn record_name() -> String {
    let model = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(std::env::consts::ARCH);
    let plain: String = model.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { ' ' }).collect();
    let model = plain.split_whitespace().take(4).collect::<Vec<_>>().join("-");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{}-{model}-{cores}-cores.json", support::today())
}

/// Bytes of all maps and the status in memory.
fn map_bytes(maps: &Maps) -> u64 {
    4 * (maps.status().len() * (maps.iter().count() + 1)) as u64
}

/// Every case on one engine, cold and warm, as a table and as rows.
fn kernels(
    engine: &Engine,
    series: &Series,
    arguments: &Arguments,
    meter: &mut Meter<'_>,
) -> Result<(String, Vec<Value>)> {
    let mut text = format!(
        "{:<33} {:>9} {:>9} {:>9} {:>8} {:>13} {:>9} {:>20}\n",
        "from memory to memory",
        "cold s",
        "warm s",
        "kernel s",
        "GB/s",
        "of slab read",
        "of copy",
        "fastest to fastest"
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
            // Other work on the machine slows memory and arithmetic by the minute: what is compared is measured in turns.
            let [read, copy] = [meter.read_seconds(), meter.copy_seconds()];
            warm.push([seconds, in_kernel.map_or(f64::NAN, |stage| stage.seconds), read, copy]);
        }
        let sorted = |column: usize| {
            let mut seconds: Vec<f64> = warm.iter().map(|times| times[column]).collect();
            seconds.sort_by(f64::total_cmp);
            seconds
        };
        let [median, fastest] = [warm.len() / 2, 0].map(|place| [0, 1, 2, 3].map(|column| sorted(column)[place]));
        let [seconds, in_kernel, ..] = median;
        let (read, all) = (sample_bytes(series), sample_bytes(series) + map_bytes(&maps) as f64);
        let shares =
            |[seconds, _, reading, copying]: [f64; 4]| [reading / seconds, all / (2.0 * read) * copying / seconds];
        let ([of_read, of_copy], [fastest_of_read, fastest_of_copy]) = (shares(median), shares(fastest));
        text += &format!(
            "  {name:<31} {cold:>9.4} {seconds:>9.4} {in_kernel:>9.4} {:>8.2} {:>11.1} % {:>7.1} % {:>9.1} % {:>6.1} %\n",
            all / seconds / 1e9,
            100.0 * of_read,
            100.0 * of_copy,
            100.0 * fastest_of_read,
            100.0 * fastest_of_copy,
        );
        rows.push(json!({
            "maps": name, "cold_seconds": cold, "warm_seconds": seconds, "kernel_seconds": in_kernel,
            "slab_read_seconds": median[2], "copy_seconds": median[3],
            "fastest_seconds": fastest[0], "fastest_slab_read_seconds": fastest[2], "fastest_copy_seconds": fastest[3],
            "bytes_read": read, "bytes_read_and_written": all, "share_of_slab_read": of_read, "share_of_copy": of_copy,
            "fastest_share_of_slab_read": fastest_of_read, "fastest_share_of_copy": fastest_of_copy,
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
