//! Flags, alike in all programs. Values are parsed by the library, so they mean the same as in its API and records.

use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use perfuse::io::ReadOptions;
use perfuse::kernels::descriptors::{
    Baseline, LateSlopeFrom, MapSelection, Noise, Onset, OnsetScope, PeakReading, Polarity,
};
use perfuse::{Descriptors, Engine, NonFinite, Result, RunOptions, SignalKind, VoxelMap};

/// The series: a file, or the phantom.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Source {
    /// The dynamic series: NIfTI (.nii, .nii.gz, .hdr with .img), 4D, e.g. dce.nii.gz
    #[arg(value_name = "SERIES")]
    pub(crate) series: Option<PathBuf>,
    /// Take a phantom instead: a head with a lesion that fills from its base outward, e.g. --demo --out demo
    #[arg(long)]
    pub(crate) demo: bool,
}

/// Times, where those of the file are missing or wrong.
#[derive(Debug, Args)]
#[command(next_help_heading = "Times")]
pub(crate) struct Times {
    /// Seconds between frames, whatever the file says, e.g. --dt 4.97
    #[arg(long, value_name = "SECONDS", conflicts_with = "times")]
    pub(crate) dt: Option<f64>,
    /// Text file with the time of every frame: seconds, one a line, e.g. --times frame_times.txt
    #[arg(long, value_name = "FILE")]
    pub(crate) times: Option<PathBuf>,
    /// Memory that the samples of the series may take, in MiB [default: a third of the machine's]; a larger series is read
    /// stretch by stretch, a compressed one from a temporary file, e.g. --samples-in 2048
    #[arg(long, help_heading = "Memory", value_name = "MIB")]
    samples_in: Option<u64>,
    /// Folder for that temporary file [default: the system's], e.g. --scratch /data
    #[arg(long, help_heading = "Memory", value_name = "DIR")]
    scratch: Option<PathBuf>,
}

impl Times {
    /// How to read the series.
    pub(crate) fn options(&self) -> ReadOptions {
        let mut options = ReadOptions::new();
        if let Some(spacing) = self.dt {
            options = options.frame_spacing_s(spacing);
        }
        if let Some(file) = &self.times {
            options = options.times_file(file);
        }
        if let Some(mib) = self.samples_in {
            options = options.memory_limit_bytes(mib.saturating_mul(1 << 20));
        }
        if let Some(folder) = &self.scratch {
            options = options.scratch_folder(folder);
        }
        options
    }
}

/// Where to look.
#[derive(Debug, Args)]
#[command(next_help_heading = "Where")]
pub(crate) struct Region {
    /// Mask or label image on the series' grid: only voxels other than 0 are analysed, and each label gets its rows in
    /// regions.csv, e.g. --mask tumour.nii.gz
    #[arg(long, value_name = "FILE")]
    pub(crate) mask: Option<PathBuf>,
}

/// What is computed, and how.
#[derive(Debug, Args)]
#[command(next_help_heading = "Analysis")]
pub(crate) struct Analysis {
    /// What the samples are: signal, concentration (mM), delta_r2star (1/s) or hu, e.g. --kind hu
    #[arg(long, value_name = "KIND", default_value = "signal")]
    kind: SignalKind,
    /// Which way contrast agent moves them: rise (T1-weighted, CT) or fall (T2*-weighted), e.g. --polarity fall
    #[arg(long, value_name = "rise|fall", default_value = "rise")]
    polarity: Polarity,
    /// Frames before contrast: auto, the first N, or A to B - 1 counted from 0, e.g. --baseline 6 or --baseline 1:7
    #[arg(long, value_name = "auto|N|A:B", default_value = "auto")]
    baseline: Baseline,
    /// How the onset is found: piecewise-linear, saturating, intersection, threshold[:FRACTION], sd-threshold[:SDS],
    /// derivative[:FRACTION], or seconds after the first frame, e.g. --onset threshold:0.2 or --onset 31.5
    #[arg(long, value_name = "METHOD", default_value = "piecewise-linear")]
    onset: Onset,
    /// Whose onset counts: each voxel's own, or that of the mean curve for all, e.g. --onset-scope global
    #[arg(long, value_name = "voxel|global", default_value = "voxel")]
    onset_scope: OnsetScope,
    /// Noise SD, as a number or a map, instead of that of the baseline, e.g. --noise 8 or --noise noise.nii.gz
    #[arg(long, value_name = "SD|FILE")]
    noise: Option<NoiseSource>,
    /// Which maps: all, or identifiers between commas (iauc_N for any N), e.g. --maps time_to_peak,max_slope,iauc_45
    #[arg(long, value_name = "all|ID,ID,…", default_value = "all")]
    maps: MapSelection,
    /// How the peak is read: at the largest sample, or at the vertex of a parabola through it, e.g. --peak subframe
    #[arg(long, value_name = "WHERE", default_value = "sample")]
    peak: Peak,
    /// A voxel enhances if its peak reaches this many noise SDs, e.g. --enhancement-threshold 3
    #[arg(long, value_name = "SDS", default_value_t = 5.0)]
    enhancement_threshold: f64,
    /// Samples in the window of the steepest rise; 2 is the plain difference, e.g. --slope-window 5
    #[arg(long, value_name = "SAMPLES", default_value_t = 3)]
    slope_window: usize,
    /// Windows of the initial area, in seconds after the onset, with --maps all, e.g. --iauc 60,90
    #[arg(long, value_name = "S,S,…", value_delimiter = ',', default_values_t = [60.0, 90.0, 120.0])]
    iauc: Vec<f64>,
    /// Where the late slope begins: peak, or seconds after the onset, e.g. --late-slope-from 120
    #[arg(long, value_name = "peak|SECONDS", default_value = "peak")]
    late_slope_from: LateStart,
    /// Times after the onset of the signal enhancement ratio, in seconds, e.g. --ser-times 60:300
    #[arg(long, value_name = "T1:T2", default_value = "90:360")]
    ser_times: Window,
    /// Window of the percent signal recovery on the series' clock, in seconds [default: the last 30 s], e.g.
    /// --recovery-window 80:110
    #[arg(long, value_name = "A:B")]
    recovery_window: Option<Window>,
    /// Voxels with NaN or infinite samples: refuse (no value) or skip those frames, e.g. --non-finite skip
    #[arg(long, value_name = "POLICY", default_value = "refuse")]
    non_finite: NonFiniteSamples,
}

impl Analysis {
    /// The kernel with these settings; what can be wrong with them alone is found here, before anything is read.
    pub(crate) fn kernel(&self) -> Result<Descriptors> {
        let noise = match &self.noise {
            None => Noise::Baseline,
            Some(NoiseSource::Value(sd)) => Noise::Value(*sd),
            Some(NoiseSource::File(path)) => Noise::Map(VoxelMap::open(path)?),
        };
        let mut kernel = Descriptors::new()
            .kind(self.kind)
            .polarity(self.polarity)
            .baseline(self.baseline.clone())
            .onset(self.onset)
            .onset_scope(self.onset_scope)
            .noise(noise)
            .maps(self.maps.clone())
            .peak_reading(match self.peak {
                Peak::Sample => PeakReading::Sample,
                Peak::Subframe => PeakReading::Subframe,
            })
            .enhancement_threshold(self.enhancement_threshold)
            .slope_window(self.slope_window)
            .iauc_seconds(self.iauc.clone())
            .late_slope_from(self.late_slope_from.0)
            .ratio_times_s(self.ser_times.0, self.ser_times.1);
        if let Some(Window(from, to)) = self.recovery_window {
            kernel = kernel.recovery_window_s(from, to);
        }
        kernel.quantities()?;
        Ok(kernel)
    }

    pub(crate) fn non_finite(&self) -> NonFinite {
        match self.non_finite {
            NonFiniteSamples::Refuse => NonFinite::Refuse,
            NonFiniteSamples::Skip => NonFinite::Skip,
        }
    }

    pub(crate) fn polarity(&self) -> Polarity {
        self.polarity
    }

    pub(crate) fn kind(&self) -> SignalKind {
        self.kind
    }
}

/// What computes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Device")]
pub(crate) struct Device {
    /// What computes: auto (a real GPU if there is one, else the CPU), cpu, gpu, reference (the definition in f64: slow, for
    /// checking), or part of an adapter's name, e.g. --device cpu or --device llvmpipe; the program `devices` lists them
    #[arg(long, value_name = "auto|cpu|gpu|NAME", default_value = "auto")]
    pub(crate) device: String,
    /// Threads for what runs on the CPU [default: all cores], e.g. --threads 4
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Device memory that may be used, in MiB, e.g. --memory-limit 512
    #[arg(long, value_name = "MIB")]
    memory_limit: Option<u64>,
}

impl Device {
    pub(crate) fn engine(&self) -> Result<Engine> {
        let engine = Engine::named(&self.device)?;
        match self.threads {
            Some(threads) => engine.with_threads(threads),
            None => Ok(engine),
        }
    }

    pub(crate) fn limit<'a>(&self, options: RunOptions<'a>) -> RunOptions<'a> {
        match self.memory_limit {
            Some(mib) => options.memory_limit_bytes(mib.saturating_mul(1 << 20)),
            None => options,
        }
    }
}

/// `--noise`: a number is a standard deviation, anything else a file.
#[derive(Debug, Clone)]
enum NoiseSource {
    Value(f64),
    File(PathBuf),
}

impl FromStr for NoiseSource {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.parse().map_or_else(|_| NoiseSource::File(text.into()), NoiseSource::Value))
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Peak {
    Sample,
    Subframe,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum NonFiniteSamples {
    Refuse,
    Skip,
}

#[derive(Debug, Clone, Copy)]
struct LateStart(LateSlopeFrom);

impl FromStr for LateStart {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "peak" => Ok(Self(LateSlopeFrom::Peak)),
            seconds => seconds
                .parse()
                .map(|seconds| Self(LateSlopeFrom::SecondsAfterOnset(seconds)))
                .map_err(|_| "use peak or a number of seconds after the onset".into()),
        }
    }
}

/// Two numbers with a colon between them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window(pub(crate) f64, pub(crate) f64);

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers =
            text.split_once(':').and_then(|(a, b)| Some(Self(a.trim().parse().ok()?, b.trim().parse().ok()?)));
        numbers.ok_or_else(|| "use two numbers of seconds with a colon between them".into())
    }
}

/// Numbers between commas, as many as the type has, whole ones unless told: `64,64,10`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbers<const N: usize, T = usize>(pub(crate) [T; N]);

impl<const N: usize, T: FromStr> FromStr for Numbers<N, T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Option<Vec<T>> = text.split(',').map(|n| n.trim().parse().ok()).collect();
        let array = numbers.and_then(|numbers| numbers.try_into().ok());
        let kind = if std::any::type_name::<T>() == "usize" { "whole numbers" } else { "numbers" };
        array.map(Self).ok_or_else(|| format!("use {N} {kind} between commas"))
    }
}
