//! Images with several flip angles or inversion times in; maps of T1, R1 and M0 with their standard errors out.
//!
//! `cargo run --release --example t1_map -- vfa_*.nii.gz --flip-angles 2,10,20 --tr 0.004 --out DIR`

mod support;

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use perfuse::io::{Compression, Overwrite, ReadOptions, SaveOptions};
use perfuse::kernel::VoxelKernel;
use perfuse::kernels::t1::{
    DEFAULT_T1_BOUNDS, InversionRecovery, NoiseSd, Readout, RecoverySignal, VariableFlipAngle, VfaMethod,
};
use perfuse::{Error, FlipAngle, Maps, Mask, Result, RunOptions, Seconds, Series, StageTime, VoxelMap, status};
use support::arguments::{Device, Region, Window};
use support::progress::Bars;

const EXAMPLES: &str = "\
Examples:
  t1_map vfa_2deg.nii.gz vfa_10deg.nii.gz vfa_20deg.nii.gz --flip-angles 2,10,20 --tr 0.004 --out t1
      Variable flip angle: one file per angle, in the order of the angles; TR in seconds (4 ms is 0.004).
  t1_map vfa.nii.gz --flip-angles 5,10,15,20,25 --tr 0.00422 --b1 b1.nii.gz --out t1
      All angles in one file with four axes; the angle of a voxel is B1 times the nominal one.
  t1_map ir_*.nii.gz --method inversion-recovery --inversion-times 0.05,0.3,0.8,1.5,3 --out t1
      Magnitude images at five times after an inversion, in seconds.
  t1_map look_locker.nii.gz --method look-locker --inversion-times 0.02,0.14,0.26,0.38,0.5,0.62 --out t1

DIR then holds ID.nii.gz with ID.json for t1, r1, m0, their standard errors (_se), sse and r_squared, status.nii.gz,
run.json, with a mask regions.csv, and pictures/.
Exit code: 0 when the maps are written, 2 for a flag or value that can't be used, 1 for any other failure.";

/// Status bits of T1 values that pictures should not be scaled by.
const DOUBTFUL: u32 =
    status::AT_LOWER_BOUND | status::AT_UPPER_BOUND | status::NOT_CONVERGED | status::NOT_IDENTIFIABLE;

/// T1 maps from images with several flip angles or inversion times.
///
/// For research, not for diagnosis. Motion is not corrected here: register the images first.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES, max_term_width = 110)]
struct Arguments {
    /// The images: NIfTI, one 3D file per flip angle or inversion time, or 4D files, in the order of these, e.g.
    /// vfa_2deg.nii.gz vfa_10deg.nii.gz
    #[arg(required = true, value_name = "FILE")]
    images: Vec<PathBuf>,
    /// Folder for the results; made if it isn't there, e.g. --out t1
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How T1 is found: vfa (least squares of the signal), vfa-linear (a line, faster, biased by noise),
    /// inversion-recovery or look-locker, e.g. --method look-locker
    #[arg(long, help_heading = "Method", value_name = "METHOD", default_value = "vfa")]
    method: Method,
    /// Flip angles in degrees, one for each image, e.g. --flip-angles 2,10,20
    #[arg(long, help_heading = "Method", value_name = "DEG,DEG,…", value_delimiter = ',')]
    flip_angles: Vec<f64>,
    /// Repetition time of the spoiled gradient echo in seconds, e.g. --tr 0.004
    #[arg(long, help_heading = "Method", value_name = "SECONDS")]
    tr: Option<f64>,
    /// Times after the inversion in seconds, one for each image, e.g. --inversion-times 0.05,0.3,0.8,1.5,3
    #[arg(long, help_heading = "Method", value_name = "S,S,…", value_delimiter = ',')]
    inversion_times: Vec<f64>,
    /// What images after an inversion hold: magnitude or signed, e.g. --signal signed
    #[arg(long, help_heading = "Method", value_name = "magnitude|signed", default_value = "magnitude")]
    signal: Signal,
    /// Map of actual over nominal flip angle on the images' grid, e.g. --b1 b1.nii.gz
    #[arg(long, help_heading = "Method", value_name = "FILE")]
    b1: Option<PathBuf>,
    /// Shortest and longest T1 looked for, in seconds [default: 0.01:20], e.g. --t1-bounds 0.1:5
    #[arg(long, help_heading = "Method", value_name = "A:B")]
    t1_bounds: Option<Window>,
    /// Noise SD for the standard errors, as a number or a map, instead of the residuals, e.g. --noise 8
    #[arg(long, help_heading = "Method", value_name = "SD|FILE")]
    noise: Option<String>,
    #[command(flatten)]
    region: Region,
    #[command(flatten)]
    device: Device,
    /// A PNG of every map over its slices, or none, e.g. --pictures none
    #[arg(long, help_heading = "Output", value_name = "montage|none", default_value = "montage")]
    pictures: Pictures,
    /// Write .nii, larger and faster, instead of .nii.gz
    #[arg(long, help_heading = "Output")]
    uncompressed: bool,
    /// Replace an earlier result in DIR, its pictures too
    #[arg(long, help_heading = "Output")]
    force: bool,
    /// No progress bars and no summary; warnings and errors stay
    #[arg(long, help_heading = "Output")]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Method {
    Vfa,
    VfaLinear,
    InversionRecovery,
    LookLocker,
}

#[derive(Debug, Clone, Copy)]
struct Signal(RecoverySignal);

impl FromStr for Signal {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.parse().map(Self)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Pictures {
    Montage,
    None,
}

fn main() -> ExitCode {
    support::finish(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<()> {
    support::refuse_existing(&arguments.out.join("run.json"), arguments.force)?;
    let noise = match &arguments.noise {
        None => NoiseSd::Residuals,
        Some(text) => match text.parse() {
            Ok(sd) => NoiseSd::Value(sd),
            Err(_) => NoiseSd::Map(VoxelMap::open(text)?),
        },
    };
    let bounds = match arguments.t1_bounds {
        Some(Window(a, b)) => (Seconds::from_seconds(a), Seconds::from_seconds(b)),
        None => DEFAULT_T1_BOUNDS,
    };
    match arguments.method {
        Method::Vfa | Method::VfaLinear => {
            unused("inversion times", !arguments.inversion_times.is_empty(), "flip angles")?;
            let tr = arguments.tr.ok_or_else(|| missing("tr", "--tr SECONDS, 0.004 for 4 ms"))?;
            if arguments.flip_angles.is_empty() {
                return Err(missing("flip angles", "--flip-angles DEG,DEG,…, one for each image"));
            }
            let angles: Vec<FlipAngle> = arguments.flip_angles.iter().copied().map(FlipAngle::from_degrees).collect();
            let mut kernel = VariableFlipAngle::new(Seconds::from_seconds(tr), angles)
                .method(if arguments.method == Method::Vfa { VfaMethod::Nonlinear } else { VfaMethod::Linear })
                .t1_bounds(bounds.0, bounds.1)
                .noise(noise);
            if let Some(b1) = &arguments.b1 {
                kernel = kernel.b1(VoxelMap::open(b1)?);
            }
            map(arguments, &kernel)
        }
        Method::InversionRecovery | Method::LookLocker => {
            unused("flip angles", !arguments.flip_angles.is_empty(), "inversion times")?;
            unused("tr", arguments.tr.is_some(), "inversion times")?;
            unused("b1", arguments.b1.is_some(), "inversion times")?;
            if arguments.inversion_times.is_empty() {
                return Err(missing("inversion times", "--inversion-times S,S,…, one for each image"));
            }
            let times: Vec<Seconds> = arguments.inversion_times.iter().copied().map(Seconds::from_seconds).collect();
            let readout = match arguments.method {
                Method::LookLocker => Readout::LookLocker,
                _ => Readout::Single,
            };
            let kernel = InversionRecovery::new(times)
                .readout(readout)
                .signal(arguments.signal.0)
                .t1_bounds(bounds.0, bounds.1)
                .noise(noise);
            map(arguments, &kernel)
        }
    }
}

fn missing(name: &str, mend: &str) -> Error {
    Error::Setting { name: name.into(), value: "missing".into(), mend: format!("this method needs {mend}") }
}

fn unused(name: &str, given: bool, instead: &str) -> Result<()> {
    if !given {
        return Ok(());
    }
    let mend = format!("this method reads {instead} and has no use for it; leave it out or choose another --method");
    Err(Error::Setting { name: name.into(), value: "given".into(), mend })
}

/// Reads the images, runs the kernel, writes the maps and the pictures.
fn map<K: VoxelKernel>(arguments: &Arguments, kernel: &K) -> Result<()> {
    let bars = Bars { quiet: arguments.quiet };
    let engine = arguments.device.engine()?;
    let start = Instant::now();
    let series = {
        let bar = bars.bytes("reading");
        Series::open_stack_with(&arguments.images, &ReadOptions::new().progress(Arc::new(bar.teller())))?
    };
    for warning in series.warnings() {
        eprintln!("warning: {warning}");
    }
    let mask = arguments.region.mask.as_ref().map(Mask::open).transpose()?;
    let read = StageTime { stage: "read".into(), seconds: start.elapsed().as_secs_f64(), bytes: 0 };

    let mut maps = {
        let bar = bars.counts("computing");
        let tell = bar.teller();
        let mut options = RunOptions::new().progress(move |done, all| tell(done as u64, all as u64));
        if let Some(mask) = &mask {
            options = options.mask(mask);
        }
        engine.run_with(kernel, &series, &arguments.device.limit(options))?
    };
    maps.record_mut().stages.insert(0, read);

    let folder = arguments.out.join("pictures");
    let bar = bars.counts("writing");
    let mut options = SaveOptions::new().progress(Arc::new(bar.teller()));
    if arguments.force {
        options = options.overwrite(Overwrite::Replace);
        support::pictures::remove_earlier(&folder, &[])?;
    }
    if arguments.uncompressed {
        options = options.compression(Compression::None);
    }
    if let Some(mask) = &mask {
        options = options.mask(mask);
    }
    let written = maps.save_with(&arguments.out, &options)?;
    drop(bar);
    let drawing = Instant::now();
    let pictures = match arguments.pictures {
        Pictures::Montage => {
            let bar = bars.counts("drawing");
            support::pictures::montages(&folder, &maps, &series, mask.as_ref(), DOUBTFUL, &bar)?
        }
        Pictures::None => 0,
    };
    if !arguments.quiet {
        let mut text = summary(arguments, &maps);
        let stages = maps.record().stages.iter().map(|stage| (stage.stage.as_str(), stage.seconds));
        let around = [("write", written.seconds), ("pictures", drawing.elapsed().as_secs_f64())];
        text += &format!("seconds    {}\n", support::summary::seconds(stages.chain(around)));
        text += &format!("written    {} files in {}", written.files.len(), arguments.out.display());
        if pictures > 0 {
            text += &format!(", {pictures} pictures in {}", folder.display());
        }
        support::print(&(text + "\n"));
    }
    Ok(())
}

fn summary(arguments: &Arguments, maps: &Maps) -> String {
    let record = maps.record();
    let [x, y, z, samples] = record.shape;
    let method = arguments.method.to_possible_value().expect("no method is hidden").get_name().to_string();
    let mut text = format!("device     {} ({})\n", record.device, record.reason);
    text += &format!("images     {samples} of {x} x {y} x {z} voxels in {} files\n", arguments.images.len());
    text += &format!("method     {method}\n");
    if let Ok(t1) = maps.get("t1") {
        let mut values: Vec<f32> = t1.iter().copied().filter(|t1| t1.is_finite()).collect();
        values.sort_by(f32::total_cmp);
        if !values.is_empty() {
            let at = |share: f64| values[(share * (values.len() - 1) as f64).round() as usize];
            let (low, middle, high) = (at(0.05), at(0.5), at(0.95));
            text +=
                &format!("T1         {low:.3}, {middle:.3}, {high:.3} s at 5, 50, 95 % of {} voxels\n", values.len());
        }
    }
    for (i, (bit, meaning, voxels)) in record.status_counts.iter().enumerate() {
        let topic = if i == 0 { "status" } else { "" };
        let all = if *bit == status::OUTSIDE_MASK { x * y * z } else { record.voxels };
        let share = 100.0 * *voxels as f64 / all as f64;
        text += &format!("{topic:<10} {voxels:>9} {share:>5.1} %  {meaning} (bit {})\n", bit.trailing_zeros());
    }
    text
}
