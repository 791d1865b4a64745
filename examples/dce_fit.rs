//! A T1-weighted dynamic series in; pharmacokinetic maps with their uncertainty, pictures and a record out.
//!
//! `cargo run --release --example dce_fit -- SERIES.nii.gz --model extended_tofts --out DIR`

mod support;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use perfuse::analysis::dce::{OnsetDelay, select_model};
use perfuse::input_function::Haematocrit;
use perfuse::io::{Overwrite, SaveOptions};
use perfuse::kernels::descriptors::MapSelection;
use perfuse::kernels::fit::brix::{BrixFit, BrixOnset};
use perfuse::kernels::fit::{Delay, FitCurves, Method, Model, Parameter, PharmacokineticFit};
use perfuse::reduction::Reductions;
use perfuse::render::CurvePlot;
use perfuse::{
    Descriptors, Engine, Error, InputFunction, Maps, Mask, Result, RunOptions, Series, SettingValue, SignalKind,
    VoxelMap, status,
};
use support::arguments::{Device, Region, Source, Times};
use support::conversion::{Conversion, Converted};
use support::input::Input;
use support::input_function::{InputFunctionFlags, ResolvedInputFunction};
use support::pictures;
use support::progress::{Bar, Bars};
use support::summary::{self, round};

/// Fraction of cells in blood, taken where none is given.
const ASSUMED_HAEMATOCRIT: f64 = 0.42;

const EXAMPLES: &str = "\
Examples:
  dce_fit dce.nii.gz --model extended_tofts --out fit --mask tumour.nii.gz --tr 0.004 --flip-angle 20 \\
          --vfa a2.nii.gz,a10.nii.gz,a20.nii.gz --flip-angles 2,10,20 --relaxivity 3.4 --aif auto --haematocrit 0.42
      T1 from three flip angles, exact concentrations, an artery that is looked for in the image.
  dce_fit dce.nii.gz --model tofts --out fit
      Only a dynamic series: T1, relaxivity, haematocrit and input function are assumed, and the output says so.
  dce_fit conc.nii.gz --kind concentration --model two_compartment_exchange --aif measured.csv --aif-in plasma \\
          --delay free --out fit
      Concentrations and an input function from elsewhere; the arterial delay is fitted.
  dce_fit dce.nii.gz --model tofts,extended_tofts,two_compartment_uptake --out fit
      In every voxel the model with the smallest AICc: model.nii.gz says which.

DIR then holds ID.nii.gz with ID.json for every map (ktrans, ve, vp, kep, fp, ps, delay, their _se, sse, r_squared, aic,
status …), run.json, input_function.csv, with a mask regions.csv, with --vfa t1/, and pictures/.
Exit code: 0 when the maps are written, 2 for a flag or value that can't be used, 1 for any other failure.";

/// Pharmacokinetic models fitted to every voxel of a T1-weighted dynamic series (DCE-MRI).
///
/// For research, not for diagnosis. Motion is not corrected here: register the frames first.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES, max_term_width = 110)]
struct Arguments {
    #[command(flatten)]
    source: Source,
    /// Folder for the results; made if it isn't there, e.g. --out fit
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The model: tofts, extended_tofts, patlak, two_compartment_uptake, two_compartment_exchange, one_compartment or brix; or
    /// several between commas, of which each voxel takes the one with the smallest AICc, e.g. --model tofts,extended_tofts
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', required = true)]
    model: Vec<ModelChoice>,
    /// How it is fitted: nonlinear least squares within bounds, or the faster linear form, e.g. --method linear
    #[arg(long, value_name = "nonlinear|linear", default_value = "nonlinear")]
    method: Method,
    /// How much later than the input function the agent reaches the tissue: none, free (fitted), onset (the voxel's onset
    /// minus the input function's where there is an arterial phase, else fitted), or seconds, e.g. --delay 3.5
    #[arg(long, value_name = "none|free|onset|SECONDS", default_value = "none", allow_hyphen_values = true)]
    delay: DelayChoice,
    /// Other bounds of a parameter, in its map's unit, e.g. --bounds ve=0:0.8 --bounds delay=-5:20
    #[arg(long, value_name = "ID=LOW:HIGH", allow_hyphen_values = true)]
    bounds: Vec<Bounds>,
    #[command(flatten)]
    times: Times,
    #[command(flatten)]
    region: Region,
    #[command(flatten)]
    conversion: Conversion,
    #[command(flatten)]
    input_function: InputFunctionFlags,
    #[command(flatten)]
    device: Device,
    /// A PNG of every map over its slices, and of curves with their fit, or none, e.g. --pictures none
    #[arg(long, help_heading = "Output", value_name = "montage|none", default_value = "montage")]
    pictures: Pictures,
    /// Curves of every voxel beside the maps: the fitted curve, the residual, or both, e.g. --curves fitted
    #[arg(long, help_heading = "Output", value_name = "none|fitted|residual|both", default_value = "none")]
    curves: Curves,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Curves {
    None,
    Fitted,
    Residual,
    Both,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ModelChoice {
    /// Of the concentration.
    Kinetic(Model),
    /// Of the signal itself.
    Brix,
}

impl FromStr for ModelChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "brix" => Ok(Self::Brix),
            model => model.parse().map(Self::Kinetic).map_err(|error: Error| format!("{error}, or brix")),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum DelayChoice {
    None,
    Free,
    Onset,
    Seconds(f64),
}

impl FromStr for DelayChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "free" => Ok(Self::Free),
            "onset" => Ok(Self::Onset),
            seconds => seconds.parse().map(Self::Seconds).map_err(|_| "use none, free, onset or seconds".into()),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Bounds(Parameter, f64, f64);

impl FromStr for Bounds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('=').and_then(|(id, bounds)| Some((id, bounds.split_once(':')?)));
        let known = |id: &str| Parameter::ALL.into_iter().find(|parameter| parameter.quantity().id == id);
        parts
            .and_then(|(id, (low, high))| {
                Some(Self(known(id.trim())?, low.trim().parse().ok()?, high.trim().parse().ok()?))
            })
            .ok_or_else(|| {
                let ids: Vec<String> = Parameter::ALL.iter().map(|p| p.quantity().id.to_string()).collect();
                format!("use ID=LOW:HIGH with an ID of {}", ids.join(", "))
            })
    }
}

fn main() -> ExitCode {
    support::finish(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<()> {
    let bars = Bars { quiet: arguments.quiet };
    support::refuse_existing(&arguments.out.join("run.json"), arguments.force)?;
    let (engine, input) =
        Input::load_beside(&arguments.device, &arguments.source, arguments.times.options(), &arguments.region, bars)?;
    let mask = input.mask.as_ref();
    if arguments.model.contains(&ModelChoice::Brix) {
        return run_brix(arguments, &engine, &input, bars);
    }
    let converted = arguments.conversion.run(&engine, &input.series, mask, bars)?;
    let artery = Artery::find(arguments, &converted, mask, &engine)?;
    let fits = arguments.fits(&converted.tissue, &artery.plasma, mask, &engine)?;

    let mut maps = {
        let bar = bars.counts("fitting");
        let tell = bar.teller();
        let mut options = RunOptions::new().progress(move |done, all| tell(done as u64, all as u64));
        if let Some(mask) = mask {
            options = options.mask(mask);
        }
        let options = arguments.device.limit(options);
        match fits.as_slice() {
            [fit] => engine.run_with(fit, &converted.tissue, &options)?,
            several => select_model(&engine, several, &converted.tissue, &options)?,
        }
    };
    record(&mut maps, &input, &converted, &artery)?;
    let written = save(arguments, &maps, &converted, &artery, &input, &bars)?;

    let start = Instant::now();
    let folder = arguments.out.join("pictures");
    let drawn = match arguments.pictures {
        Pictures::Montage => {
            // A delay map belongs to its voxels: for a curve alone it is fitted.
            let fit = match arguments.delay {
                DelayChoice::Onset => fits[0].clone().delay(Delay::Free),
                _ => fits[0].clone(),
            };
            draw(&folder, &maps, &fit, &converted, &input, &bars.counts("drawing"))?
        }
        Pictures::None => 0,
    };
    if !arguments.quiet {
        let mut text = report(&maps, &input, &converted, &artery);
        let stages = maps.record().stages.iter().map(|stage| (stage.stage.as_str(), stage.seconds));
        let around = [("write", written.1), ("pictures", start.elapsed().as_secs_f64())];
        text += &format!("seconds    {}\n", summary::seconds(stages.chain(around)));
        text += &format!("written    {} files in {}", written.0, arguments.out.display());
        if drawn > 0 {
            text += &format!(", {drawn} pictures in {}", folder.display());
        }
        support::print(&(text + "\n"));
    }
    Ok(())
}

/// Brix's model of the relative signal: no conversion, no input function.
fn run_brix(arguments: &Arguments, engine: &Engine, input: &Input, bars: Bars) -> Result<()> {
    let refuse = |name: &str, value: &str, mend: &str| {
        Err(Error::Setting { name: name.into(), value: value.into(), mend: mend.into() })
    };
    if arguments.model.len() > 1 {
        return refuse("--model", "brix beside others", "its signal and their concentrations have no AICc in common");
    }
    if arguments.conversion.kind() != SignalKind::Signal {
        return refuse("--kind", arguments.conversion.kind().as_str(), "brix describes signal; use --kind signal");
    }
    if arguments.method == Method::Linear {
        return refuse("--method", "linear", "brix has no linear form; leave it out");
    }
    if !arguments.bounds.is_empty() {
        return refuse(
            "--bounds",
            "given",
            "those of brix are fixed: brix_a 20, kep 60 1/min, kel 5 1/min; leave it out",
        );
    }
    let mask = input.mask.as_ref();
    let mut options = RunOptions::new();
    if let Some(mask) = mask {
        options = options.mask(mask);
    }
    let onset = match arguments.delay {
        DelayChoice::None | DelayChoice::Free => BrixOnset::Free,
        DelayChoice::Seconds(seconds) => BrixOnset::Fixed(seconds),
        DelayChoice::Onset => {
            let kernel = Descriptors::new().baseline(arguments.conversion.baseline.clone());
            let maps = engine.run_with(&kernel.maps(MapSelection::only(["onset"])), &input.series, &options)?;
            BrixOnset::PerVoxel(VoxelMap::from_array(maps.get("onset")?))
        }
    };
    let curves = arguments.fit_curves();
    let fit = BrixFit::new().baseline(arguments.conversion.baseline.clone()).onset(onset).curves(curves);
    let mut maps = {
        let bar = bars.counts("fitting");
        let tell = bar.teller();
        let options = arguments.device.limit(options.progress(move |done, all| tell(done as u64, all as u64)));
        engine.run_with(&fit, &input.series, &options)?
    };
    maps.record_mut().stages.insert(0, input.read.clone());
    let mut options = SaveOptions::new();
    let pictures = arguments.out.join("pictures");
    if arguments.force {
        options = options.overwrite(Overwrite::Replace);
        pictures::remove_earlier(&pictures, &CURVES)?;
    }
    if let Some(mask) = mask {
        options = options.mask(mask);
    }
    let files = maps.save_with(&arguments.out, &options)?.files.len();
    if arguments.pictures == Pictures::Montage {
        let bar = bars.counts("drawing");
        pictures::montages(&pictures, &maps, &input.series, input.outline.as_ref(), DOUBTFUL, &bar)?;
    }
    if !arguments.quiet {
        let text = summary::series_lines(&maps, &input.series) + &summary::voxel_lines(&maps, mask);
        support::print(&format!("{text}written    {files} files in {}\n", arguments.out.display()));
    }
    Ok(())
}

/// The input function in plasma, and what it rests on.
struct Artery {
    found: ResolvedInputFunction,
    plasma: InputFunction,
    assumed: Option<String>,
}

impl Artery {
    fn find(arguments: &Arguments, converted: &Converted, mask: Option<&Mask>, engine: &Engine) -> Result<Self> {
        let (series, region) = match &converted.blood {
            Some(blood) => (blood, None),
            None => (&converted.tissue, mask),
        };
        let found = arguments.input_function.resolve(series, region, engine)?;
        let (plasma, assumed) = match &found.plasma {
            Some(plasma) => (plasma.clone(), None),
            None => {
                let text = format!("haematocrit {ASSUMED_HAEMATOCRIT}");
                (found.native.in_plasma(Haematocrit::new(ASSUMED_HAEMATOCRIT)?)?, Some(text))
            }
        };
        Ok(Self { found, plasma, assumed })
    }
}

impl Arguments {
    fn fit_curves(&self) -> FitCurves {
        match self.curves {
            Curves::None => FitCurves::None,
            Curves::Fitted => FitCurves::Fitted,
            Curves::Residual => FitCurves::Residual,
            Curves::Both => FitCurves::Both,
        }
    }

    fn fits(
        &self,
        series: &Series,
        plasma: &InputFunction,
        mask: Option<&Mask>,
        engine: &Engine,
    ) -> Result<Vec<PharmacokineticFit>> {
        let delay = match self.delay {
            DelayChoice::None => Delay::None,
            DelayChoice::Free => Delay::Free,
            DelayChoice::Seconds(seconds) => Delay::Fixed(seconds),
            DelayChoice::Onset => {
                let mut options = RunOptions::new();
                if let Some(mask) = mask {
                    options = options.mask(mask);
                }
                let settings = OnsetDelay::new().baseline(self.conversion.baseline.clone());
                Delay::PerVoxel(settings.run(engine, series, plasma, &options)?.map)
            }
        };
        let curves = self.fit_curves();
        let fit = |model: &Model| {
            let fit =
                PharmacokineticFit::new(*model, plasma.clone()).method(self.method).delay(delay.clone()).curves(curves);
            self.bounds.iter().fold(fit, |fit, Bounds(parameter, low, high)| fit.bounds(*parameter, *low, *high))
        };
        let kinetic = self.model.iter().filter_map(|choice| match choice {
            ModelChoice::Kinetic(model) => Some(model),
            ModelChoice::Brix => None,
        });
        Ok(kinetic.map(fit).collect())
    }
}

/// Adds to the fit's record what came before it.
fn record(maps: &mut Maps, input: &Input, converted: &Converted, artery: &Artery) -> Result<()> {
    let mut stages = vec![input.read.clone()];
    if let Some(run) = &converted.run {
        stages.extend(run.record().stages.iter().map(|stage| {
            let mut stage = stage.clone();
            stage.stage = format!("conversion {}", stage.stage);
            stage
        }));
        maps.add_status_of(run)?;
    }
    let mut settings = converted.settings();
    if let Some(arrival) = &artery.found.arrival {
        settings.push(("input_function_arrival_s".into(), SettingValue::Number(arrival.time_s())));
        settings.push(("input_function_arrival".into(), SettingValue::Text(arrival.how().into())));
    }
    if let (Some(assumed), Some((_, SettingValue::List(list)))) =
        (&artery.assumed, settings.iter_mut().find(|s| s.0 == "assumed"))
    {
        list.push(SettingValue::Text(assumed.clone()));
    }
    let record = maps.record_mut();
    record.stages.splice(0..0, stages);
    record.settings.extend(settings);
    record.source = input.series.source().map(Path::to_path_buf);
    Ok(())
}

/// Writes everything but pictures; returns how many files there are and the seconds that they took.
fn save(
    arguments: &Arguments,
    maps: &Maps,
    converted: &Converted,
    artery: &Artery,
    input: &Input,
    bars: &Bars,
) -> Result<(usize, f64)> {
    let start = Instant::now();
    let bar = bars.counts("writing");
    let mut options = SaveOptions::new().progress(Arc::new(bar.teller()));
    if arguments.force {
        options = options.overwrite(Overwrite::Replace);
        pictures::remove_earlier(&arguments.out.join("pictures"), &CURVES)?;
    }
    let mut files = 1;
    if let Some(t1) = &converted.t1 {
        files += t1.save_with(arguments.out.join("t1"), &options)?.files.len();
    }
    if let Some(mask) = &input.mask {
        options = options.mask(mask);
    }
    files += maps.save_with(&arguments.out, &options)?.files.len();
    support::write_file(&arguments.out.join("input_function.csv"), artery.plasma.to_csv())?;
    Ok((files, start.elapsed().as_secs_f64()))
}

/// Names of the pictures of curves.
const CURVES: [&str; 4] = ["mean_curve", "curve_low", "curve_median", "curve_high"];

/// Bits of voxels that don't decide the range of colours, and that no curve is drawn of.
const DOUBTFUL: u32 = status::NOT_CONVERGED | status::NOT_ENHANCING | status::NOT_IDENTIFIABLE;

/// Montages, and curves with their fit: the mean of the mask, and voxels at the 10th, 50th and 90th percentile of the model's
/// first parameter among those that it describes.
fn draw(
    folder: &Path,
    maps: &Maps,
    fit: &PharmacokineticFit,
    converted: &Converted,
    input: &Input,
    bar: &Bar,
) -> Result<usize> {
    let mut drawn = pictures::montages(folder, maps, &input.series, input.outline.as_ref(), DOUBTFUL, bar)?;
    let series = &converted.tissue;
    let mut plot = |name: &str, title: String, samples: Vec<f64>| -> Result<()> {
        let single = Series::from_voxels(samples.clone(), [1, 1, 1, samples.len()], series.times()?.clone())?;
        let fit = fit.clone().curves(FitCurves::Fitted);
        let values = Engine::reference_values(&fit, &single, [0; 3], &RunOptions::new())?;
        let fitted: Vec<f64> = values.iter().filter(|(id, _)| id == "fitted_curve").map(|(_, value)| *value).collect();
        let times = series.times()?.seconds();
        let mut plot = CurvePlot::new(times, &samples)
            .title(format!("{title}: {}", in_words(&values, fit.model())))
            .name("samples")
            .value_name("concentration")
            .unit("mM");
        if fitted.iter().all(|value| value.is_finite()) {
            plot = plot.overlay(fit.model().as_str().replace('_', " "), times, &fitted);
        }
        plot.render()?.save(folder.join(format!("{name}.png")))?;
        drawn += 1;
        Ok(())
    };
    if let Some(mean) = Reductions::new(series, input.mask.as_ref()).mean_curve() {
        plot("mean_curve", "Mean curve".into(), mean.to_vec())?;
    }
    let first = fit.model().parameters()[0].quantity();
    let values = maps.get(&first)?;
    let mut voxels: Vec<([usize; 3], f32)> = values
        .indexed_iter()
        .filter(|(at, value)| value.is_finite() && maps.status()[*at] & DOUBTFUL == 0)
        .map(|((x, y, z), value)| ([x, y, z], *value))
        .collect();
    voxels.sort_by(|a, b| a.1.total_cmp(&b.1));
    for (name, share) in CURVES[1..].iter().zip([0.1, 0.5, 0.9]) {
        if voxels.is_empty() {
            break;
        }
        let (voxel, _) = voxels[((voxels.len() - 1) as f64 * share).round() as usize];
        plot(name, format!("Voxel {}, {}, {}", voxel[0], voxel[1], voxel[2]), series.curve(voxel)?)?;
    }
    Ok(drawn)
}

/// `ktrans 0.12 1/min, ve 0.3 …`
fn in_words(values: &[(String, f64)], model: Model) -> String {
    let of = |id: &str| values.iter().find(|(known, _)| known == id).map_or(f64::NAN, |(_, value)| *value);
    let parts: Vec<String> = model
        .parameters()
        .iter()
        .map(|parameter| {
            let quantity = parameter.quantity();
            let unit = quantity.unit.text(SignalKind::Concentration);
            let unit = if unit == "1" { String::new() } else { format!(" {unit}") };
            let error = of(&format!("{}_se", quantity.id));
            let error = if error.is_finite() { format!(" ± {}", digits(error)) } else { String::new() };
            format!("{} {}{error}{unit}", quantity.symbol, digits(of(&quantity.id)))
        })
        .collect();
    parts.join(", ")
}

/// Three digits that count.
fn digits(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return format!("{value}");
    }
    let places = (2 - value.abs().log10().floor() as i32).clamp(0, 9) as usize;
    format!("{value:.places$}")
}

/// What was done, one line a topic.
fn report(maps: &Maps, input: &Input, converted: &Converted, artery: &Artery) -> String {
    let record = maps.record();
    let mut text = summary::series_lines(maps, &input.series);
    let mut line = |topic: &str, content: String| text += &format!("{topic:<10} {content}\n");
    let plasma = &artery.plasma;
    let fluid = match plasma.haematocrit_applied() {
        Some(haematocrit) => format!("plasma, from blood with haematocrit {}", haematocrit.fraction()),
        None => "plasma from the start".into(),
    };
    line("input", format!("{}; {fluid}", plasma.origin()));
    if let Some(arrival) = &artery.found.arrival {
        line("arrival", format!("{} s ({})", round(arrival.time_s()), arrival.how()));
    }
    let assumed: Vec<&str> = converted.assumed.iter().chain(&artery.assumed).map(String::as_str).collect();
    if !assumed.is_empty() {
        line("ASSUMED", format!("{} - not measured, so the maps are only as right as this", assumed.join("; ")));
    }
    for name in ["model", "models", "method", "delay"] {
        match support::figure::find(&record.settings, name) {
            Some(SettingValue::Text(value)) => line(name, value.clone()),
            Some(SettingValue::List(list)) => {
                let names = list.iter().map(|v| if let SettingValue::Text(t) = v { t.as_str() } else { "" });
                line(name, format!("{}, by AICc", names.collect::<Vec<_>>().join(", ")));
            }
            _ => {}
        }
    }
    text + &summary::voxel_lines(maps, input.mask.as_ref())
}
