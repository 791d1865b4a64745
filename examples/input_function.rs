//! Finds, plots and exports the input function of a series: from the literature, a mask, a table, or the image itself.
//!
//! `cargo run --release --example input_function -- SERIES.nii.gz --kind concentration --aif auto --out DIR`

mod support;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use ndarray::Array3;
use perfuse::input_function::Fluid;
use perfuse::io::Overwrite;
use perfuse::render::{Colormap, CurvePlot, Montage, Slices};
use perfuse::{Error, InputFunction, Mask, Result, Series};
use serde_json::{Value, json};
use support::arguments::{Device, Region, Source, Times};
use support::conversion::Conversion;
use support::input::Input;
use support::input_function::{InputFunctionFlags, ResolvedInputFunction};
use support::progress::Bars;

const EXAMPLES: &str = "\
Examples:
  input_function conc.nii.gz --kind concentration --aif auto --haematocrit 0.42 --out aif
      Arterial voxels, found in the image and shown in artery.png.
  input_function conc.nii.gz --kind concentration --aif parker --arrival 34.5 --haematocrit 0.42 --out aif
      Parker's function with its t = 0 at 34.5 s on the series' clock.
  input_function conc.nii.gz --kind concentration --aif mask:aorta.nii.gz --aif-average median --out aif
      The median curve of a mask, in whole blood.
  input_function conc.nii.gz --kind concentration --aif measured.csv --aif-in blood --out aif
      A table with the columns time_s and concentration_mM.
  input_function dce.nii.gz --tr 0.004 --flip-angle 20 --t1-blood 1.6 --relaxivity 3.4 --aif auto --out aif
      Signal, converted by the exact law of the spoiled gradient echo with the T1 of blood.

DIR then holds input_function.csv (which --aif takes again), .json and .png, and for voxels artery.png and artery.nii.gz.
Exit code: 0 when they are written, 2 for a flag or value that can't be used, 1 for any other failure.";

/// The input function of a series: found, plotted and exported.
///
/// For research, not for diagnosis.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES, max_term_width = 110)]
struct Arguments {
    /// The dynamic series: NIfTI (.nii, .nii.gz, .hdr with .img), 4D, e.g. conc.nii.gz
    #[arg(value_name = "SERIES")]
    series: PathBuf,
    /// Folder for the results; made if it isn't there, e.g. --out aif
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    conversion: Conversion,
    #[command(flatten)]
    input_function: InputFunctionFlags,
    #[command(flatten)]
    times: Times,
    #[command(flatten)]
    region: Region,
    #[command(flatten)]
    device: Device,
    /// Replace an earlier result in DIR
    #[arg(long, help_heading = "Output")]
    force: bool,
    /// No progress bars and no summary; warnings and errors stay
    #[arg(long, help_heading = "Output")]
    quiet: bool,
}

fn main() -> ExitCode {
    support::finish(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<()> {
    for name in ["input_function.json", "input_function.csv", "input_function.png", "artery.png", "artery.nii.gz"] {
        support::refuse_existing(&arguments.out.join(name), arguments.force)?;
    }
    let engine = arguments.device.engine()?;
    let bars = Bars { quiet: arguments.quiet };
    let source = Source { series: Some(arguments.series.clone()), demo: false };
    let input = Input::load(&source, arguments.times.options(), &arguments.region, bars)?;
    let converted = arguments.conversion.run(&engine, &input.series, input.mask.as_ref(), bars)?;
    // Of blood where its T1 is given, and everywhere where a mask says where to look.
    let series = converted.blood.as_ref().unwrap_or(&converted.tissue);
    let found = arguments.input_function.resolve(series, input.mask.as_ref(), &engine)?;
    let exported = found.plasma.as_ref().unwrap_or(&found.native);

    let folder = &arguments.out;
    std::fs::create_dir_all(folder).map_err(|source| Error::Io { action: "create", path: folder.into(), source })?;
    // What an earlier run with other flags left must not stand beside this one's.
    for name in ["artery.png", "artery.nii.gz"] {
        let path = folder.join(name);
        if arguments.force && path.exists() {
            std::fs::remove_file(&path).map_err(|source| Error::Io { action: "remove", path, source })?;
        }
    }
    support::write_file(&folder.join("input_function.csv"), exported.to_csv())?;
    let record = record(&found, exported, series, &converted.assumed);
    let text = serde_json::to_string_pretty(&record).expect("numbers and texts") + "\n";
    support::write_file(&folder.join("input_function.json"), &text)?;
    plot(&found, series)?.render()?.save(folder.join("input_function.png"))?;
    if let Some(mask) = &found.mask {
        show(mask, exported, series, &folder.join("artery.png"))?;
    }
    if let Some(artery) = &found.artery {
        let overwrite = if arguments.force { Overwrite::Replace } else { Overwrite::Refuse };
        artery.mask().save(folder.join("artery.nii.gz"), overwrite)?;
    }
    if !arguments.quiet {
        support::print(&summary(&found, exported, arguments, &converted.assumed));
    }
    Ok(())
}

/// The largest concentration and its time.
fn peak(function: &InputFunction) -> (f64, f64) {
    let knots = function.times_s().iter().copied().zip(function.concentration_mm().iter().copied());
    knots.fold((f64::NAN, f64::NEG_INFINITY), |best, knot| if knot.1 > best.1 { knot } else { best })
}

fn record(found: &ResolvedInputFunction, exported: &InputFunction, series: &Series, assumed: &[String]) -> Value {
    let (peak_time, peak) = peak(exported);
    let times = exported.times_s();
    let name = series.source().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    json!({
        "software": {"name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION")},
        "series": name,
        "origin": exported.origin(),
        "assumed": assumed,
        "unit": "mM",
        "fluid": exported.fluid().as_str(),
        "fluid_of_origin": found.native.fluid().as_str(),
        "haematocrit_applied": exported.haematocrit_applied().map(|haematocrit| haematocrit.fraction()),
        "arrival_s": found.arrival.as_ref().map(|arrival| arrival.time_s()),
        "arrival_from": found.arrival.as_ref().map(|arrival| arrival.how()),
        "clock": "seconds on the series' clock",
        "knots": times.len(),
        "first_s": times[0],
        "last_s": times[times.len() - 1],
        "peak_mM": peak,
        "peak_time_s": peak_time,
        "score": found.artery.as_ref().map(|artery| artery.score()),
        "candidates": found.artery.as_ref().map(|artery| artery.candidates()),
        "left_out_not_finite": found.mask.as_ref().map(|_| found.left_out),
        "voxels": voxels(found),
    })
}

/// Position of every voxel, with its score if there is one.
fn voxels(found: &ResolvedInputFunction) -> Option<Value> {
    if let Some(artery) = &found.artery {
        return Some(artery.voxels().iter().map(|v| json!({"position": v.position, "score": v.score})).collect());
    }
    let labels = found.mask.as_ref()?.labels();
    let inside = labels.indexed_iter().filter(|(_, label)| **label != 0);
    Some(inside.map(|((x, y, z), _)| json!({"position": [x, y, z]})).collect())
}

fn plot(found: &ResolvedInputFunction, series: &Series) -> Result<CurvePlot> {
    let name = |function: &InputFunction| match (function.haematocrit_applied(), function.fluid()) {
        (Some(haematocrit), _) => format!("plasma, haematocrit {}", haematocrit.fraction()),
        (None, Fluid::Blood) => "whole blood".to_string(),
        (None, Fluid::Plasma) => "plasma".to_string(),
    };
    // From the first frame to the last one; 0 before the first knot, from which the function may jump.
    let (from, to) = (series.times()?.first_s(), series.times()?.last_s());
    let shown = |function: &InputFunction| -> (Vec<f64>, Vec<f64>) {
        let first = function.times_s()[0];
        let before = [(from.min(first), 0.0), (first, 0.0)].into_iter().filter(|_| first > from);
        let knots = function.times_s().iter().copied().zip(function.concentration_mm().iter().copied());
        let inside = knots.filter(|(time, _)| (from..=to).contains(time));
        let end = function.at(to).map(|value| (to, value)).filter(|_| !function.times_s().contains(&to));
        before.chain(inside).chain(end).unzip()
    };
    let (times, values) = shown(&found.native);
    let title = match &found.arrival {
        Some(arrival) => {
            let of = found.native.origin().split(',').next().unwrap_or_default();
            format!("Input function: {of}, t = 0 at {:.1} s", arrival.time_s())
        }
        None => format!("Input function: {}", found.native.origin().split(" (").next().unwrap_or_default()),
    };
    let mut plot = CurvePlot::new(&times, &values).name(name(&found.native)).title(title);
    plot = plot.value_name("concentration").unit("mM");
    // Curves of voxels have a knot at every frame; other functions are lines.
    let of_voxels = found.mask.is_some();
    if !of_voxels {
        plot = plot.as_line();
    }
    Ok(match found.plasma.as_ref().filter(|plasma| plasma.haematocrit_applied().is_some()) {
        Some(plasma) => {
            let (times, values) = shown(plasma);
            let name = name(plasma);
            if of_voxels { plot.curve(name, &times, &values) } else { plot.overlay(name, &times, &values) }
        }
        None => plot,
    })
}

/// The frame of the peak in grey, the voxels in colour, in the slices that have some.
fn show(mask: &Mask, function: &InputFunction, series: &Series, path: &Path) -> Result<()> {
    let frame = series.times()?.seconds().partition_point(|time| *time < peak(function).0).min(series.frames() - 1);
    let [x, y, z] = series.spatial_shape();
    let image = series.mean_of_frames(&[frame])?;
    let labels = mask.labels();
    let slices = (0..z).filter(|slice| (0..y).any(|j| (0..x).any(|i| labels[[i, j, *slice]] != 0))).take(20).collect();
    let time = series.times()?.seconds()[frame];
    let coloured = Array3::from_shape_fn((x, y, z), |at| if labels[at] != 0 { image[at] } else { f32::NAN });
    Montage::of_values(coloured.view(), series.geometry())
        .title(format!("Voxels of the input function, {} in all, at its peak ({time:.1} s)", mask.voxel_count()))
        .symbol("C")
        .unit("mM")
        .colormap(Colormap::Viridis)
        .underlay(image.view())
        .slices(Slices::Chosen(slices))
        .render()?
        .save(path)
}

fn summary(
    found: &ResolvedInputFunction,
    exported: &InputFunction,
    arguments: &Arguments,
    assumed: &[String],
) -> String {
    let mut text = String::new();
    let mut line = |topic: &str, content: String| text += &format!("{topic:<12} {content}\n");
    line("origin", exported.origin().into());
    let fluid = match exported.haematocrit_applied() {
        Some(haematocrit) => format!("plasma, from whole blood with haematocrit {}", haematocrit.fraction()),
        None if exported.fluid() == Fluid::Blood => "whole blood; --haematocrit makes it plasma".into(),
        None => "plasma from the start, no haematocrit applied".into(),
    };
    line("fluid", fluid);
    if !assumed.is_empty() {
        line("ASSUMED", format!("{} - not measured", assumed.join("; ")));
    }
    if let Some(arrival) = &found.arrival {
        line("arrival", format!("{} s ({})", support::summary::round(arrival.time_s()), arrival.how()));
    }
    let (time, value) = peak(exported);
    line("peak", format!("{} mM at {} s", support::summary::round(value), support::summary::round(time)));
    if let Some(artery) = &found.artery {
        let score = support::summary::round(artery.score());
        let (inside, all) = (artery.voxels().len(), artery.candidates());
        line("artery", format!("{inside} voxels of {all} candidates, score {score}; look at artery.png"));
    }
    line("written", format!("input_function.csv, .json and .png in {}", arguments.out.display()));
    text
}
