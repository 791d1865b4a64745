//! Plots the curve of a voxel, or the mean curve of a mask, with baseline, onset, peak and steepest rise marked.
//!
//! `cargo run --release --example curve -- SERIES.nii.gz --voxel 34,50,6 --out curve.png`

mod support;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use perfuse::{Quantity, Result, Unit, status};
use support::arguments::{Analysis, Numbers, Region, Source, Times};
use support::figure::Analysed;
use support::input::Input;
use support::progress::Bars;

const EXAMPLES: &str = "\
Examples:
  curve --demo --out lesion.png
      The mean curve of the phantom's lesion.
  curve dce.nii.gz --voxel 34,50,6 --out voxel.png
      One voxel; the automatic baseline comes from the mean curve of all voxels.
  curve dsc.nii.gz --mask gm.nii.gz --polarity fall --out gm.png
      The mean curve of a mask.";

/// A plot of one curve, and the values found in it by the definition in f64.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES, max_term_width = 110)]
struct Arguments {
    #[command(flatten)]
    source: Source,
    /// The picture, e.g. --out curve.png
    #[arg(long, value_name = "FILE.png")]
    out: PathBuf,
    /// The voxel, counted from 0; without it, the mean curve of the mask, e.g. --voxel 34,50,6
    #[arg(long, value_name = "X,Y,Z")]
    voxel: Option<Numbers<3>>,
    #[command(flatten)]
    times: Times,
    #[command(flatten)]
    region: Region,
    #[command(flatten)]
    analysis: Analysis,
    /// Replace an earlier picture
    #[arg(long)]
    force: bool,
    /// No progress bars and no values; warnings and errors stay
    #[arg(long)]
    quiet: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.voxel.is_none() && arguments.region.mask.is_none() && !arguments.source.demo {
        let problem = "which curve? Give --voxel X,Y,Z or --mask FILE";
        Arguments::command().error(ErrorKind::MissingRequiredArgument, problem).exit();
    }
    support::finish(run(&arguments))
}

fn run(arguments: &Arguments) -> Result<()> {
    support::refuse_existing(&arguments.out, arguments.force)?;
    let kernel = arguments.analysis.kernel()?;
    let bars = Bars { quiet: arguments.quiet };
    let input = Input::load(&arguments.source, arguments.times.options(), &arguments.region, bars)?;
    let (curve, title) = match arguments.voxel {
        Some(Numbers([x, y, z])) => {
            let policy = arguments.analysis.non_finite();
            let curve = Analysed::voxel(&kernel, &input.series, input.mask.as_ref(), [x, y, z], policy)?;
            (curve, format!("Voxel {x}, {y}, {z}"))
        }
        None => {
            let voxels = input.outline.as_ref().map_or(0, perfuse::Mask::voxel_count);
            let curve = Analysed::mean(&kernel, &input.series, input.outline.as_ref())?;
            (curve, format!("Mean curve of {voxels} voxels"))
        }
    };
    curve.plot(&title).render()?.save(&arguments.out)?;
    if !arguments.quiet {
        support::print(&values(&curve, &title, arguments));
    }
    Ok(())
}

fn values(curve: &Analysed, title: &str, arguments: &Arguments) -> String {
    let kind = arguments.analysis.kind();
    let unit = |id: &str| match id {
        "baseline" | "peak_enhancement" => Unit::Series.text(kind),
        "max_slope" => Quantity::MAX_SLOPE.unit.text(kind),
        _ => Unit::Seconds.text(kind),
    };
    let [from, to] = curve.baseline_frames;
    let mut text = format!("{title}\n{:<18} {from} to {}\n", "baseline frames", to - 1);
    for (id, value) in &curve.values {
        text += &match id.as_str() {
            "status" => {
                let bits = status::MEANINGS.iter().filter(|(bit, _)| *value as u32 & bit != 0);
                let words: Vec<&str> = bits.map(|(_, meaning)| *meaning).collect();
                format!("{id:<18} {}\n", if words.is_empty() { "no remarks".into() } else { words.join("; ") })
            }
            _ if value.is_nan() => format!("{id:<18} none\n"),
            _ => format!("{id:<18} {value:.6} {}\n", unit(id)),
        };
    }
    format!("{text}{:<18} {}\n", "written", arguments.out.display())
}
