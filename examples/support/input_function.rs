//! `--aif` and what goes with it: where the input function comes from, in which fluid, with which haematocrit.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use perfuse::input_function::{
    Arrival, Artery, ArteryFinder, Average, CsvOptions, Fluid, Haematocrit, Population, population,
};
use perfuse::{Descriptors, Engine, Error, InputFunction, Mask, Result, RunOptions, Series, SignalKind};

/// Flags of the input function.
#[derive(Debug, Args)]
#[command(next_help_heading = "Input function")]
pub(crate) struct InputFunctionFlags {
    /// Where it comes from: a population function (parker, georgiou, weinmann, fritz_hansen, orton), auto (arterial voxels are
    /// looked for), mask:FILE, or a table FILE.csv, with several columns FILE.csv:COLUMN, e.g. --aif mask:aorta.nii.gz
    #[arg(long, value_name = "SOURCE", default_value = "parker")]
    pub(crate) aif: InputFunctionSource,
    /// In which fluid the concentrations of a mask or a table are [default: blood for voxels; as the column's name says for
    /// tables], e.g. --aif-in plasma
    #[arg(long, value_name = "blood|plasma")]
    aif_in: Option<Fluid>,
    /// How the curves of voxels become one, e.g. --aif-average median
    #[arg(long, value_name = "mean|median", default_value = "mean")]
    aif_average: Average,
    /// Fraction of cells in the blood, by which blood becomes plasma, e.g. --haematocrit 0.42
    #[arg(long, value_name = "FRACTION")]
    pub(crate) haematocrit: Option<Haematocrit>,
    /// Where t = 0 of a population function lies: seconds on the series' clock, or auto (the onset in an artery if one is
    /// found, else that of the mean curve), e.g. --arrival 34.5
    #[arg(long, value_name = "SECONDS|auto", default_value = "auto")]
    arrival: ArrivalChoice,
    /// Dose in mmol per kg of body weight, to which population functions are proportional, e.g. --dose 0.05
    #[arg(long, value_name = "MMOL_PER_KG", default_value_t = population::STANDARD_DOSE_MMOL_PER_KG)]
    dose: f64,
}

/// `--aif`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum InputFunctionSource {
    Population(Population),
    Automatic,
    Mask(PathBuf),
    Table { file: PathBuf, column: Option<String> },
}

impl FromStr for InputFunctionSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Automatic);
        }
        if let Some(file) = text.strip_prefix("mask:").filter(|file| !file.is_empty()) {
            return Ok(Self::Mask(file.into()));
        }
        if let Ok(population) = text.parse() {
            return Ok(Self::Population(population));
        }
        // A colon behind .csv, not that of a drive's letter.
        let lower = text.to_ascii_lowercase();
        if let Some(at) = lower.find(".csv:").map(|at| at + 4) {
            return Ok(Self::Table { file: text[..at].into(), column: Some(text[at + 1..].into()) });
        }
        if [".csv", ".tsv", ".txt"].iter().any(|ending| lower.ends_with(ending)) {
            return Ok(Self::Table { file: text.into(), column: None });
        }
        Err("use parker, georgiou, weinmann, fritz_hansen, orton, auto, mask:FILE, FILE.csv or FILE.csv:COLUMN".into())
    }
}

#[derive(Debug, Clone, Copy)]
enum ArrivalChoice {
    At(f64),
    Automatic,
}

impl FromStr for ArrivalChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<f64>() {
            _ if text == "auto" => Ok(Self::Automatic),
            Ok(seconds) if seconds.is_finite() => Ok(Self::At(seconds)),
            _ => Err("use auto, or seconds on the series' clock".into()),
        }
    }
}

/// The input function with what it rests on.
pub(crate) struct ResolvedInputFunction {
    /// As it was measured or published.
    pub(crate) native: InputFunction,
    /// In plasma, if it is in plasma or a haematocrit was given.
    pub(crate) plasma: Option<InputFunction>,
    /// Of a population function.
    pub(crate) arrival: Option<Arrival>,
    /// Of a mask or of the automatic search.
    pub(crate) mask: Option<Mask>,
    /// Voxels of the mask that were left out because a sample isn't finite.
    pub(crate) left_out: usize,
    pub(crate) artery: Option<Artery>,
}

impl InputFunctionFlags {
    /// Finds, reads or samples the input function. `series` holds concentrations in mM; `region` is where to look for an
    /// artery.
    pub(crate) fn resolve(
        &self,
        series: &Series,
        region: Option<&Mask>,
        engine: &Engine,
    ) -> Result<ResolvedInputFunction> {
        let mut found = match &self.aif {
            InputFunctionSource::Population(population) => self.population(*population, series, region, engine)?,
            InputFunctionSource::Automatic => {
                let artery = find_artery(series, region, engine)?;
                let fluid = self.aif_in.unwrap_or(Fluid::Blood);
                let from_mask = artery.input_function(series, self.aif_average, fluid)?;
                let mask = Some(artery.mask().clone());
                let left_out = from_mask.left_out;
                ResolvedInputFunction { mask, left_out, artery: Some(artery), ..plain(from_mask.function) }
            }
            InputFunctionSource::Mask(file) => {
                let mask = Mask::open(file)?;
                let fluid = self.aif_in.unwrap_or(Fluid::Blood);
                let from_mask = InputFunction::from_mask(series, &mask, self.aif_average, fluid)?;
                ResolvedInputFunction { mask: Some(mask), left_out: from_mask.left_out, ..plain(from_mask.function) }
            }
            InputFunctionSource::Table { file, column } => {
                let mut options = CsvOptions::new();
                if let Some(column) = column {
                    options = options.column(column);
                }
                if let Some(fluid) = self.aif_in {
                    options = options.fluid(fluid);
                }
                plain(InputFunction::open(file, &options)?)
            }
        };
        found.native.check_covers(series.times()?)?;
        found.plasma = match (found.native.fluid(), self.haematocrit) {
            (Fluid::Plasma, _) => Some(found.native.clone()),
            (Fluid::Blood, Some(haematocrit)) => Some(found.native.in_plasma(haematocrit)?),
            (Fluid::Blood, None) => None,
        };
        if found.native.fluid() == Fluid::Plasma && self.haematocrit.is_some() {
            eprintln!("warning: the input function is in plasma already; the haematocrit isn't applied");
        }
        Ok(found)
    }

    fn population(
        &self,
        population: Population,
        series: &Series,
        region: Option<&Mask>,
        engine: &Engine,
    ) -> Result<ResolvedInputFunction> {
        if let Some(asked) = self.aif_in.filter(|fluid| *fluid != population.fluid()) {
            let mend = format!("{population} is in {}; leave --aif-in out", population.fluid());
            return Err(Error::Setting { name: "--aif-in".into(), value: asked.to_string(), mend });
        }
        let arrival = match self.arrival {
            ArrivalChoice::At(seconds) => Arrival::at(seconds)?,
            ArrivalChoice::Automatic => {
                let kernel = Descriptors::new().kind(SignalKind::Concentration);
                match find_artery(series, region, engine) {
                    Ok(artery) => {
                        let how = format!(
                            "detected: onset of the mean curve of the artery found automatically, voxels: {}",
                            artery.voxels().len()
                        );
                        Arrival::detect(series, Some(artery.mask()), &kernel)?.with_how(how)
                    }
                    Err(Error::NoArtery { .. }) => Arrival::detect(series, region, &kernel)?,
                    Err(other) => return Err(other),
                }
            }
        };
        let function = population.with_dose(series.times()?, &arrival, self.dose)?;
        Ok(ResolvedInputFunction { arrival: Some(arrival), ..plain(function) })
    }
}

fn plain(native: InputFunction) -> ResolvedInputFunction {
    ResolvedInputFunction { native, plasma: None, arrival: None, mask: None, left_out: 0, artery: None }
}

fn find_artery(series: &Series, region: Option<&Mask>, engine: &Engine) -> Result<Artery> {
    let mut options = RunOptions::new();
    if let Some(mask) = region {
        options = options.mask(mask);
    }
    ArteryFinder::new().kind(SignalKind::Concentration).find(engine, series, &options)
}
