//! How a lesion fills: origin, direction, speed and extent of its enhancement, with maps, a report and a cine.
//!
//! `cargo run --release --example filling_pattern -- SERIES.nii.gz --lesion MASK.nii.gz --out DIR`

mod support;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use perfuse::analysis::filling::{FillingPattern, FillingReport, Rim};
use perfuse::io::{Overwrite, SaveOptions};
use perfuse::kernels::descriptors::Polarity;
use perfuse::phantom::filling::FillingPhantom;
use perfuse::render::{Film, Plane, Range, View};
use perfuse::report::FillingPage;
use perfuse::{Error, Mask, Result, RunOptions, Series, SignalKind};
use support::arguments::{Device, Times, Window};
use support::progress::{Bar, Bars};

const EXAMPLES: &str = "\
Examples:
  filling_pattern --demo --out demo
      A phantom with a lesion like an angioleiomyoma: works without any data.
  filling_pattern dce.nii.gz --lesion tumour.nii.gz --out filling
      A lesion in a DCE-MRI series.
  filling_pattern dce.nii.gz --lesion tumour.nii.gz --base dura.nii.gz --out filling --fps 12
      With the surface that it sits on: the direction from there, too.
  filling_pattern dce.nii.gz --lesion tumour.nii.gz --out filling --window 0:900 --planes axial --cine frames
      A window for the grey image, one plane, and the cine as numbered PNG, too.

DIR then holds ID.nii.gz with ID.json for every map, status.nii.gz, run.json, filling.json,
shells.csv, report.html and cine.gif.
Exit code: 0 when all is written, whether a pattern is found or not; 2 for a flag or value that
can't be used, 1 for any other failure.";

/// How a lesion fills: the origin, direction, speed and extent of its enhancement, each with its uncertainty.
///
/// A description, not a diagnosis; for research. Motion is not corrected here: register the frames first.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES, max_term_width = 110)]
struct Arguments {
    /// The dynamic series: NIfTI (.nii, .nii.gz, .hdr with .img), 4D, e.g. dce.nii.gz
    #[arg(value_name = "SERIES", required_unless_present = "demo", conflicts_with = "demo")]
    series: Option<PathBuf>,
    /// Take a phantom instead: a lesion that fills slowly, in part, from its centre outward, e.g. --demo --out demo
    #[arg(long)]
    demo: bool,
    /// Mask of the lesion on the series' grid; all voxels other than 0 belong to it, e.g. --lesion tumour.nii.gz
    #[arg(long, value_name = "FILE", required_unless_present = "demo", conflicts_with = "demo")]
    lesion: Option<PathBuf>,
    /// Mask of a surface that the lesion sits on; it touches or overlaps the lesion, e.g. --base dura.nii.gz
    #[arg(long, value_name = "FILE", conflicts_with = "demo")]
    base: Option<PathBuf>,
    /// Folder for the results; made if it isn't there, e.g. --out filling
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    times: Times,
    #[command(flatten)]
    analysis: Analysis,
    #[command(flatten)]
    device: Device,
    #[command(flatten)]
    pictures: Pictures,
    /// Replace an earlier result in DIR
    #[arg(long, help_heading = "Output")]
    force: bool,
    /// No progress bars and no summary; warnings and errors stay
    #[arg(long, help_heading = "Output")]
    quiet: bool,
}

/// How it is measured.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Analysis")]
struct Analysis {
    /// What the samples are: signal, concentration (mM), delta_r2star (1/s) or hu, e.g. --kind hu
    #[arg(long, value_name = "KIND", default_value = "signal")]
    kind: SignalKind,
    /// Which way contrast agent moves them: rise (T1-weighted, CT) or fall (T2*-weighted), e.g. --polarity fall
    #[arg(long, value_name = "rise|fall", default_value = "rise")]
    polarity: Polarity,
    /// A voxel enhances if it rises by this many noise SDs, e.g. --enhancement-threshold 3
    #[arg(long, value_name = "SDS", default_value_t = 5.0)]
    enhancement_threshold: f64,
    /// Use the first so many frames [default: all, or those before the lesion washes out], e.g. --frames 60
    #[arg(long, value_name = "N")]
    frames: Option<usize>,
    /// The common level above the baseline, in the samples' unit [default: half of the lesion's plateau], e.g. --level 120
    #[arg(long, value_name = "VALUE")]
    level: Option<f64>,
    /// The lesion's outermost voxels, which are partly something else: leave-out or use, e.g. --rim use
    #[arg(long, value_name = "leave-out|use", default_value = "leave-out")]
    rim: RimVoxels,
    /// Shells of equal volume, 3 to 50, e.g. --shells 8
    #[arg(long, value_name = "N", default_value_t = 6)]
    shells: usize,
    /// Confidence of the intervals, 0.5 to below 1, e.g. --confidence 0.9
    #[arg(long, value_name = "SHARE", default_value_t = 0.95)]
    confidence: f64,
    /// Draws of the noise that uncertainty is taken from, 50 to 10000, e.g. --draws 500
    #[arg(long, value_name = "N", default_value_t = 200)]
    draws: usize,
    /// Which random numbers, e.g. --seed 7
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RimVoxels {
    LeaveOut,
    Use,
}

impl Analysis {
    fn pattern(&self, base: Option<Mask>) -> FillingPattern {
        let mut pattern = FillingPattern::new()
            .kind(self.kind)
            .polarity(self.polarity)
            .enhancement_threshold(self.enhancement_threshold)
            .rim(match self.rim {
                RimVoxels::LeaveOut => Rim::LeftOut,
                RimVoxels::Use => Rim::Used,
            })
            .shells(self.shells)
            .confidence(self.confidence)
            .draws(self.draws)
            .seed(self.seed);
        if let Some(frames) = self.frames {
            pattern = pattern.frames(frames);
        }
        if let Some(level) = self.level {
            pattern = pattern.level(level);
        }
        match base {
            Some(base) => pattern.with_base(base),
            None => pattern,
        }
    }
}

/// What is drawn.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Pictures")]
struct Pictures {
    /// Maps as pictures in the report, or none, e.g. --pictures none
    #[arg(long, value_name = "maps|none", default_value = "maps")]
    pictures: MapPictures,
    /// The cine: gif, apng (exact colours, several times as large), frames (numbered PNG in DIR/cine), the last two beside
    /// the GIF, or none, e.g. --cine apng
    #[arg(long, value_name = "gif|apng|frames|none", default_value = "gif")]
    cine: CineFormat,
    /// Frames of the cine per second, at the series' median frame spacing, e.g. --fps 12
    #[arg(long, value_name = "N", default_value_t = 8.0)]
    fps: f64,
    /// Window of the grey image, in the samples' unit [default: percentiles 1 and 99.5], e.g. --window 0:900
    #[arg(long, value_name = "LOW:HIGH")]
    window: Option<Window>,
    /// Range of the enhancement's colours, in the samples' unit [default: 0 to its 98th percentile in the lesion], e.g.
    /// --range 0:250
    #[arg(long, value_name = "LOW:HIGH")]
    range: Option<Window>,
    /// Planes through the lesion: three, or axial, coronal and sagittal between commas, e.g. --planes axial,sagittal
    #[arg(long, value_name = "PLANE,…", default_value = "three")]
    planes: Planes,
    /// Baseline frames of the cine: auto (those before the lesion fills), the first N, or A to B - 1 counted from 0, e.g.
    /// --baseline 6; the analysis fits each voxel's baseline
    #[arg(long, value_name = "auto|N|A:B", default_value = "auto")]
    baseline: Baseline,
    /// Show the whole image, or the lesion and this many mm around it [default: half of its longest side], e.g. --view 30
    #[arg(long, value_name = "whole|MM")]
    view: Option<Shown>,
    /// Width of the cine in pixels, 480 to 2400, e.g. --width 1200
    #[arg(long, value_name = "PIXELS", default_value_t = 960)]
    width: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MapPictures {
    Maps,
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CineFormat {
    Gif,
    Apng,
    Frames,
    None,
}

#[derive(Debug, Clone)]
struct Planes(Vec<Plane>);

impl FromStr for Planes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "three" {
            return Ok(Self(Plane::ALL.to_vec()));
        }
        let named = |name: &str| Plane::ALL.into_iter().find(|plane| plane.name() == name.trim());
        let planes: Option<Vec<Plane>> = text.split(',').map(named).collect();
        planes.map(Self).ok_or_else(|| "use three, or axial, coronal, sagittal between commas".into())
    }
}

#[derive(Debug, Clone)]
enum Baseline {
    Automatic,
    Frames(std::ops::Range<usize>),
}

impl FromStr for Baseline {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Automatic);
        }
        let (from, to) = text.split_once(':').unwrap_or(("0", text));
        match (from.trim().parse(), to.trim().parse()) {
            (Ok(from), Ok(to)) => Ok(Self::Frames(from..to)),
            _ => Err("use auto, a number of frames, or two with a colon between them".into()),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Shown(View);

impl FromStr for Shown {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "whole" => Ok(Self(View::Whole)),
            text => text
                .parse()
                .map(|margin_mm| Self(View::Lesion { margin_mm }))
                .map_err(|_| "use whole or a number of mm".into()),
        }
    }
}

fn main() -> ExitCode {
    support::finish(run(&Arguments::parse()))
}

/// What is analysed.
struct Case {
    series: Series,
    lesion: Mask,
    base: Option<Mask>,
}

fn run(arguments: &Arguments) -> Result<()> {
    let (out, bars) = (&arguments.out, Bars { quiet: arguments.quiet });
    for name in ["run.json", "filling.json"] {
        support::refuse_existing(&out.join(name), arguments.force)?;
    }
    let engine = arguments.device.engine()?;
    let start = Instant::now();
    let mut stages: Vec<(&str, f64)> = Vec::new();
    let mut stage = |name, since: Instant| stages.push((name, since.elapsed().as_secs_f64()));
    let case = load(arguments, bars)?;
    stage(if arguments.demo { "phantom" } else { "read" }, start);

    let start = Instant::now();
    let report = {
        let bar = bars.counts("computing");
        let tell = bar.teller();
        let options = RunOptions::new().progress(move |done, all| tell(done as u64, all as u64));
        let pattern = arguments.analysis.pattern(case.base.clone());
        pattern.run(&engine, &case.series, &case.lesion, &arguments.device.limit(options))?
    };
    stage("analysis", start);

    // Everything is drawn before anything is written: a setting that can't be used leaves no half of a result.
    let start = Instant::now();
    let mut page = FillingPage::new(&report, &case.series, &case.lesion)
        .date(support::today())
        .planes(&arguments.pictures.planes.0)
        .pictures(arguments.pictures.pictures == MapPictures::Maps);
    if arguments.demo {
        page = page.title("How the lesion fills: a phantom like an angioleiomyoma");
    }
    let bar = bars.counts("drawing");
    let film = match arguments.pictures.cine {
        CineFormat::None => None,
        _ => Some(film(arguments, &page, &bar)?),
    };
    let gif = film.as_ref().map(Film::gif).transpose()?;
    if let (Some(film), Some(gif)) = (&film, &gif) {
        page = page.cine(gif.clone(), film.frame(film.len() - 1)?);
    }
    let html = page.html()?;
    drop(bar);
    stage("pictures and report", start);

    let start = Instant::now();
    let bar = bars.counts("writing");
    let mut options = SaveOptions::new().progress(std::sync::Arc::new(bar.teller()));
    if arguments.force {
        options = options.overwrite(Overwrite::Replace);
        remove_cine(out)?;
    }
    let written = report.maps.save_with(out, &options)?;
    drop(bar);
    support::write_file(&out.join("shells.csv"), report.shells_csv())?;
    support::write_file(&out.join("report.html"), &html)?;
    let mut files = written.files.len() + 3;
    if let (Some(film), Some(gif)) = (&film, &gif) {
        support::write_file(&out.join("cine.gif"), gif)?;
        files += 1;
        match arguments.pictures.cine {
            CineFormat::Apng => {
                film.save_apng(out.join("cine.png"))?;
                files += 1;
            }
            CineFormat::Frames => files += film.save_frames(out.join("cine"))?.len(),
            _ => {}
        }
    }
    // Last: a folder with filling.json holds a complete result.
    support::write_file(&out.join("filling.json"), format!("{:#}\n", report.to_json()))?;
    stage("write", start);

    if !arguments.quiet {
        support::print(&summary(arguments, &case, &report, &stages, files));
    }
    Ok(())
}

fn load(arguments: &Arguments, bars: Bars) -> Result<Case> {
    let (Some(series), Some(lesion)) = (&arguments.series, &arguments.lesion) else {
        let phantom = FillingPhantom::angioleiomyoma_like().build()?;
        return Ok(Case { series: phantom.series, lesion: phantom.lesion, base: None });
    };
    // Small files first: a mask that isn't there is known before the series is read.
    let lesion = Mask::open(lesion)?;
    let base = arguments.base.as_ref().map(Mask::open).transpose()?;
    let (series, _) = support::input::open_series(series, arguments.times.options(), bars)?;
    lesion.check_matches(&series)?;
    if let Some(base) = &base {
        base.check_matches(&series)?;
    }
    support::input::warn(&series);
    Ok(Case { series, lesion, base })
}

fn film(arguments: &Arguments, page: &FillingPage<'_>, bar: &Bar) -> Result<Film> {
    let pictures = &arguments.pictures;
    let tell = bar.teller();
    let mut cine = page
        .film_settings()
        .frames_per_second(pictures.fps)
        .width(pictures.width)
        .progress(move |done, all| tell(done as u64, all as u64));
    if arguments.demo {
        cine = cine.title("Phantom");
    }
    if let Baseline::Frames(frames) = &pictures.baseline {
        cine = cine.baseline_frames(frames.clone());
    }
    if let Some(Window(low, high)) = pictures.window {
        cine = cine.window(Range::Fixed(low, high));
    }
    if let Some(Window(low, high)) = pictures.range {
        cine = cine.enhancement_range(Range::Fixed(low, high));
    }
    if let Some(Shown(view)) = pictures.view {
        cine = cine.view(view);
    }
    cine.film()
}

fn summary(arguments: &Arguments, case: &Case, report: &FillingReport, stages: &[(&str, f64)], files: usize) -> String {
    let record = report.maps.record();
    let mut text = format!("device     {} ({})\n", record.device, record.reason);
    let [x, y, z, t] = case.series.shape();
    let name = case.series.source().and_then(Path::file_name).map_or("phantom".into(), |name| name.to_string_lossy());
    text += &format!("series     {name}: {x} x {y} x {z} voxels, {t} frames\n");
    text += &format!("lesion     {} voxels, {:.2} mL\n", case.lesion.voxel_count(), report.extent.lesion_ml);
    let words = &report.description;
    let topics = ["origin", "direction", "speed", "extent"];
    for (topic, sentence) in topics.into_iter().zip([&words.origin, &words.direction, &words.speed, &words.extent]) {
        text += &format!("{topic:<10} {sentence}\n");
    }
    text += &format!("{:<10} {}\n", "note", words.caution);
    text += &format!("seconds    {}\n", support::summary::seconds(stages.iter().copied()));
    text + &format!("written    {files} files in {}; begin with report.html\n", arguments.out.display())
}

/// The cine of an earlier run must not stand beside the maps of this one.
fn remove_cine(out: &Path) -> Result<()> {
    let frames = std::fs::read_dir(out.join("cine")).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let is_frame = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|n| n.starts_with("frame_") && n.ends_with(".png"))
    };
    for path in frames.filter(is_frame).chain([out.join("cine.gif"), out.join("cine.png")]) {
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::Io { action: "remove", path, source });
            }
            _ => {}
        }
    }
    Ok(())
}
