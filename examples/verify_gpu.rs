//! Compares the maps of a GPU and its driver with the f64 definition, on your own data or on the phantom.
//!
//! `cargo run --release --example verify_gpu -- SERIES.nii.gz`

mod support;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser};
use perfuse::{Result, RunOptions};
use support::arguments::{Analysis, Device, Region, Source, Times};
use support::input::Input;
use support::progress::Bars;

const EXAMPLES: &str = "\
Examples:
  verify_gpu
      The phantom on the best GPU (software Vulkan if there is nothing else).
  verify_gpu dce.nii.gz --all-voxels
      Every voxel of your own data; a minute or more, because the definition is evaluated in f64 with error bounds.
  verify_gpu dsc.nii.gz --polarity fall --maps onset,time_to_peak --device cpu
      Some maps on the CPU engine.

The limits are derived voxel by voxel from what WGSL allows a device to lose in each operation. `ambiguous` counts voxels
where rounding decides between two answers and the device took the other one, `unbounded` those for which no limit exists.
Exit code: 0 when every compared voxel agrees, 2 for a flag or value that can't be used, 1 otherwise.";

/// Checks a device against the definition: maps of one run, compared voxel by voxel.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES, max_term_width = 110)]
struct Arguments {
    /// The dynamic series, e.g. dce.nii.gz; the phantom if there is none
    #[arg(value_name = "SERIES")]
    series: Option<PathBuf>,
    /// Take the phantom
    #[arg(long, conflicts_with = "series")]
    demo: bool,
    /// Compare every voxel, not 100,000 evenly spread ones
    #[arg(long)]
    all_voxels: bool,
    #[command(flatten)]
    times: Times,
    #[command(flatten)]
    region: Region,
    #[command(flatten)]
    analysis: Analysis,
    #[command(flatten)]
    device: Device,
    /// No progress bars and no table; warnings and errors stay
    #[arg(long)]
    quiet: bool,
}

fn main() -> ExitCode {
    // Here `auto` would mean: check the CPU engine where there is no GPU, and call it a pass.
    let command = Arguments::command().mut_arg("device", |device| device.default_value("gpu"));
    let arguments = Arguments::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit());
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => support::finish(Err(error)),
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    let bars = Bars { quiet: arguments.quiet };
    let kernel = arguments.analysis.kernel()?;
    let engine = arguments.device.engine()?;
    let source = Source { series: arguments.series.clone(), demo: arguments.series.is_none() };
    let input = Input::load(&source, arguments.times.options(), &arguments.region, bars)?;
    let bar = bars.counts("computing");
    let tell = bar.teller();
    let mut options = RunOptions::new().progress(move |done, all| tell(done as u64, all as u64));
    if let Some(mask) = &input.mask {
        options = options.mask(mask);
    }
    let options = arguments.device.limit(options);
    let at_most = if arguments.all_voxels { usize::MAX } else { 100_000 };
    let verification = engine.verify_voxels(&kernel, &input.series, &options, at_most)?;
    drop(bar);
    if !arguments.quiet {
        support::print(&format!("{verification}\n"));
    }
    Ok(verification.passed())
}
