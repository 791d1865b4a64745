//! How signal becomes concentration: T1 before contrast agent, the sequence, the relaxivity, and what is assumed where the
//! user says nothing.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use perfuse::kernels::concentration::Concentration;
use perfuse::kernels::descriptors::Baseline;
use perfuse::kernels::t1::VariableFlipAngle;
use perfuse::{
    Engine, Error, FlipAngle, Maps, Mask, Result, RunOptions, Seconds, Series, SettingValue, SignalKind, VoxelMap,
};

use super::progress::Bars;

/// T1 of soft tissue at 3 T, taken where none is given.
const ASSUMED_T1_S: f64 = 1.4;
/// 1/s/mM, of common gadolinium agents at 1.5 to 3 T and 37 degrees, taken where none is given.
const ASSUMED_RELAXIVITY: f64 = 4.5;

/// Flags of the conversion.
#[derive(Debug, Args)]
#[command(next_help_heading = "Signal to concentration")]
pub(crate) struct Conversion {
    /// What the samples are: signal, which is converted, or concentration in mM, taken as it is, e.g. --kind concentration
    #[arg(long, value_name = "signal|concentration", default_value = "signal")]
    kind: SignalKind,
    /// T1 before contrast agent: seconds, or a map in seconds [assumed without this and --vfa: 1.4 s], e.g. --t1 1.2 or --t1
    /// t1.nii.gz
    #[arg(long, value_name = "FILE|SECONDS", conflicts_with = "vfa")]
    t1: Option<ValueOrFile>,
    /// Images with several flip angles to map T1 from: one 4D file or several 3D ones, e.g. --vfa a2.nii.gz,a10.nii.gz
    #[arg(long, value_name = "FILE,…", value_delimiter = ',', num_args = 1.., requires = "flip_angles")]
    vfa: Vec<PathBuf>,
    /// Their flip angles in degrees, in the same order, e.g. --flip-angles 2,10,20
    #[arg(long, value_name = "DEG,DEG,…", value_delimiter = ',', requires = "vfa")]
    flip_angles: Vec<f64>,
    /// Their repetition time in seconds [default: that of the series], e.g. --vfa-tr 0.0035
    #[arg(long, value_name = "SECONDS", requires = "vfa")]
    vfa_tr: Option<f64>,
    /// T1 of blood in seconds, for the voxels of the input function [default: as the tissue], e.g. --t1-blood 1.6
    #[arg(long, value_name = "SECONDS")]
    t1_blood: Option<f64>,
    /// Repetition time of the series in seconds; with --flip-angle the spoiled gradient echo is inverted exactly, without them
    /// the relative enhancement is taken as proportional to the concentration, e.g. --tr 0.004
    #[arg(long, value_name = "SECONDS", requires = "flip_angle")]
    tr: Option<f64>,
    /// Flip angle of the series in degrees, e.g. --flip-angle 20
    #[arg(long, value_name = "DEG", requires = "tr")]
    flip_angle: Option<f64>,
    /// Longitudinal relaxivity of the agent in 1/s/mM [assumed: 4.5], e.g. --relaxivity 3.4
    #[arg(long, value_name = "PER_S_PER_MM")]
    relaxivity: Option<f64>,
    /// Map of actual over nominal flip angle, e.g. --b1 b1.nii.gz
    #[arg(long, value_name = "FILE")]
    b1: Option<PathBuf>,
    /// Frames before contrast: auto, the first N, or A to B - 1 counted from 0, e.g. --baseline 6 or --baseline 1:7
    #[arg(long, value_name = "auto|N|A:B", default_value = "auto")]
    pub(crate) baseline: Baseline,
}

#[derive(Debug, Clone)]
enum ValueOrFile {
    Value(f64),
    File(PathBuf),
}

impl FromStr for ValueOrFile {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(text.parse().map_or_else(|_| Self::File(text.into()), Self::Value))
    }
}

/// What the conversion gave.
pub(crate) struct Converted {
    /// Concentrations in mM.
    pub(crate) tissue: Series,
    /// The same with the T1 of blood, where that is given: for the voxels of the input function.
    pub(crate) blood: Option<Series>,
    /// The run that converted; none where the series was concentration already.
    pub(crate) run: Option<Maps>,
    /// The T1 maps, where there are images with several flip angles.
    pub(crate) t1: Option<Maps>,
    /// What was taken for want of a setting, in words.
    pub(crate) assumed: Vec<String>,
}

impl Conversion {
    /// What the samples of the series are.
    pub(crate) fn kind(&self) -> SignalKind {
        self.kind
    }

    /// Converts a series; where it is concentration already, it is taken as it is.
    pub(crate) fn run(&self, engine: &Engine, series: &Series, mask: Option<&Mask>, bars: Bars) -> Result<Converted> {
        match self.kind {
            SignalKind::Signal => self.convert(engine, series, mask, bars),
            SignalKind::Concentration => {
                self.refuse_useless()?;
                let tissue = series.clone();
                Ok(Converted { tissue, blood: None, run: None, t1: None, assumed: Vec::new() })
            }
            other => Err(Error::Setting {
                name: "kind".into(),
                value: other.as_str().into(),
                mend: "use signal or concentration".into(),
            }),
        }
    }

    fn convert(&self, engine: &Engine, series: &Series, mask: Option<&Mask>, bars: Bars) -> Result<Converted> {
        let mut assumed = Vec::new();
        let relaxivity = self.relaxivity.unwrap_or_else(|| {
            assumed.push(format!("relaxivity {ASSUMED_RELAXIVITY} 1/s/mM"));
            ASSUMED_RELAXIVITY
        });
        let b1 = self.b1.as_ref().map(VoxelMap::open).transpose()?;
        let mut kernel = match (self.tr, self.flip_angle) {
            (Some(tr), Some(angle)) => {
                Concentration::new(Seconds::from_seconds(tr), FlipAngle::from_degrees(angle), relaxivity)
            }
            _ => {
                assumed.push("signal proportional to concentration (no --tr and --flip-angle)".into());
                Concentration::relative_enhancement(relaxivity)
            }
        };
        if let Some(b1) = &b1 {
            kernel = kernel.b1(b1.clone());
        }
        kernel = kernel.baseline(self.baseline.clone());
        let mut options = RunOptions::new();
        if let Some(mask) = mask {
            options = options.mask(mask);
        }
        // Everywhere: arteries may lie outside the mask.
        let t1 = if self.vfa.is_empty() { None } else { Some(self.map_t1(engine, b1, bars)?) };
        let blood_kernel = kernel.clone();
        kernel = match (&t1, &self.t1) {
            (Some(maps), _) => {
                let map = VoxelMap::from_array(maps.get("t1")?).with_geometry(maps.geometry().clone());
                kernel.t10_map(map.with_source("the T1 map of the flip angles"))
            }
            (None, Some(ValueOrFile::File(path))) => kernel.t10_map(VoxelMap::open(path)?),
            (None, Some(ValueOrFile::Value(seconds))) => kernel.t10(Seconds::from_seconds(*seconds)),
            (None, None) => {
                assumed.push(format!("T1 {ASSUMED_T1_S} s before contrast agent"));
                kernel.t10(Seconds::from_seconds(ASSUMED_T1_S))
            }
        };
        let run = {
            let bar = bars.counts("converting");
            let tell = bar.teller();
            let told = options.clone().progress(move |done, all| tell(done as u64, all as u64));
            engine.run_with(&kernel, series, &told)?
        };
        let blood = match self.t1_blood {
            Some(seconds) => {
                let maps = engine.run(&blood_kernel.t10(Seconds::from_seconds(seconds)), series)?;
                Some(Series::from_curves(&maps, "concentration")?)
            }
            None if mask.is_some() => {
                let maps = engine.run(&kernel, series)?;
                Some(Series::from_curves(&maps, "concentration")?)
            }
            None => None,
        };
        Ok(Converted { tissue: Series::from_curves(&run, "concentration")?, blood, run: Some(run), t1, assumed })
    }

    fn map_t1(&self, engine: &Engine, b1: Option<VoxelMap>, bars: Bars) -> Result<Maps> {
        let Some(tr) = self.vfa_tr.or(self.tr) else {
            let mend = "T1 mapping needs the repetition time of the flip-angle images: give --vfa-tr or --tr";
            return Err(Error::Setting { name: "vfa".into(), value: "without TR".into(), mend: mend.into() });
        };
        let angles: Vec<FlipAngle> = self.flip_angles.iter().map(|angle| FlipAngle::from_degrees(*angle)).collect();
        let mut kernel = VariableFlipAngle::new(Seconds::from_seconds(tr), angles);
        if let Some(b1) = b1 {
            kernel = kernel.b1(b1);
        }
        let images = Series::open_stack(&self.vfa)?;
        let bar = bars.counts("mapping T1");
        let tell = bar.teller();
        engine.run_with(&kernel, &images, &RunOptions::new().progress(move |done, all| tell(done as u64, all as u64)))
    }

    /// A flag that would have no effect is a mistake of the user's that we can name.
    fn refuse_useless(&self) -> Result<()> {
        let given = [
            ("--t1", self.t1.is_some()),
            ("--vfa", !self.vfa.is_empty()),
            ("--t1-blood", self.t1_blood.is_some()),
            ("--tr", self.tr.is_some()),
            ("--relaxivity", self.relaxivity.is_some()),
            ("--b1", self.b1.is_some()),
        ];
        match given.iter().find(|(_, given)| *given) {
            Some((name, _)) => Err(Error::Setting {
                name: (*name).into(),
                value: "given".into(),
                mend: "concentrations are taken as they are; leave it out, or use --kind signal".into(),
            }),
            None => Ok(()),
        }
    }
}

impl Converted {
    /// The settings of the conversion, for the record of what is computed from it.
    pub(crate) fn settings(&self) -> Vec<(String, SettingValue)> {
        let mut settings: Vec<(String, SettingValue)> = match &self.run {
            Some(run) => run.record().settings.iter().map(|(k, v)| (format!("conversion_{k}"), v.clone())).collect(),
            None => Vec::new(),
        };
        if let Some(t1) = &self.t1 {
            settings.extend(t1.record().settings.iter().map(|(k, v)| (format!("t1_{k}"), v.clone())));
        }
        let assumed = self.assumed.iter().map(|text| SettingValue::Text(text.clone())).collect();
        settings.push(("assumed".into(), SettingValue::List(assumed)));
        settings
    }
}
