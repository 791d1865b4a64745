//! A dynamic contrast series in; perfusion maps, pictures and a record of how they came about out.
//!
//! `cargo run --release --example perfusion_maps -- SERIES.nii.gz --out DIR`

mod support;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use perfuse::io::{Compression, Overwrite, SaveOptions};
use perfuse::{Descriptors, Maps, Result, RunOptions};
use support::arguments::{Analysis, Device, Region, Source, Times};
use support::figure::Analysed;
use support::input::Input;
use support::pictures;
use support::progress::{Bar, Bars};

const EXAMPLES: &str = "\
Examples:
  perfusion_maps --demo --out demo
      A phantom: works without any data.
  perfusion_maps dce.nii.gz --out maps --mask tumour.nii.gz
      All maps of a DCE-MRI series inside a mask, and regions.csv with their statistics.
  perfusion_maps dsc.nii.gz --out maps --polarity fall --baseline 2:12
      T2*-weighted signal, which contrast agent lowers; frames 2 to 11 are the baseline.
  perfusion_maps ctp.nii.gz --out maps --kind hu --dt 1.5 --maps time_to_peak,max_slope,auc
      CT perfusion with frames 1.5 s apart, three maps.

DIR then holds ID.nii.gz with ID.json for every map, status.nii.gz, run.json, with a mask regions.csv, and pictures/.
Exit code: 0 when the maps are written, 2 for a flag or value that can't be used, 1 for any other failure.";

/// Perfusion maps from a dynamic contrast series (DCE-MRI, DSC-MRI, CT perfusion).
///
/// For research, not for diagnosis. Motion is not corrected here: register the frames first.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES, max_term_width = 110)]
struct Arguments {
    #[command(flatten)]
    source: Source,
    /// Folder for the results; made if it isn't there, e.g. --out maps
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    times: Times,
    #[command(flatten)]
    region: Region,
    #[command(flatten)]
    analysis: Analysis,
    #[command(flatten)]
    device: Device,
    /// A PNG of every map over its slices, and of the mean curve, or none, e.g. --pictures none
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
enum Pictures {
    Montage,
    None,
}

fn main() -> ExitCode {
    support::finish(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<()> {
    let bars = Bars { quiet: arguments.quiet };
    let folder = arguments.out.join("pictures");
    support::refuse_existing(&arguments.out.join("run.json"), arguments.force)?;
    let kernel = arguments.analysis.kernel()?;
    // Samples are gone through once, and for the mean curve's picture once more.
    let options = arguments.times.options().leave_in_file();
    let (engine, input) = Input::load_beside(&arguments.device, &arguments.source, options, &arguments.region, bars)?;

    let mut maps = {
        let bar = bars.counts("computing");
        let tell = bar.teller();
        let mut options = RunOptions::new()
            .non_finite(arguments.analysis.non_finite())
            .progress(move |done, all| tell(done as u64, all as u64));
        if let Some(mask) = &input.mask {
            options = options.mask(mask);
        }
        engine.run_with(&kernel, &input.series, &arguments.device.limit(options))?
    };

    maps.record_mut().stages.insert(0, input.read.clone());

    let bar = bars.counts("writing");
    let mut options = SaveOptions::new().progress(Arc::new(bar.teller()));
    if arguments.force {
        options = options.overwrite(Overwrite::Replace);
        pictures::remove_earlier(&folder, &["mean_curve"])?;
    }
    if arguments.uncompressed {
        options = options.compression(Compression::None);
    }
    if let Some(mask) = &input.mask {
        options = options.mask(mask);
    }
    let written = maps.save_with(&arguments.out, &options)?;
    drop(bar);

    let start = Instant::now();
    let pictures = match arguments.pictures {
        Pictures::Montage => draw(&folder, &maps, &kernel, &input, &bars.counts("drawing"))?,
        Pictures::None => 0,
    };

    if !arguments.quiet {
        let mut text = support::summary::summary(&maps, &input.series, input.mask.as_ref());
        let stages = maps.record().stages.iter().map(|stage| (stage.stage.as_str(), stage.seconds));
        let around = [("write", written.seconds), ("pictures", start.elapsed().as_secs_f64())];
        text += &format!("seconds    {}\n", support::summary::seconds(stages.chain(around)));
        text += &format!("written    {} files in {}", written.files.len(), arguments.out.display());
        if pictures > 0 {
            text += &format!(", {pictures} pictures in {}", folder.display());
        }
        support::print(&(text + "\n"));
    }
    Ok(())
}

/// A montage of every map and the mean curve; returns how many pictures there are.
fn draw(folder: &Path, maps: &Maps, kernel: &Descriptors, input: &Input, bar: &Bar) -> Result<usize> {
    let drawn = pictures::montages(folder, maps, &input.series, input.outline.as_ref(), 0, bar)?;
    // The curve that decided the automatic baseline and the global onset.
    let Ok(mean) = Analysed::mean(kernel, &input.series, input.mask.as_ref()) else { return Ok(drawn) };
    let title = format!("Mean curve of {} voxels", maps.record().voxels);
    mean.plot(title).render()?.save(folder.join("mean_curve.png"))?;
    Ok(drawn + 1)
}
