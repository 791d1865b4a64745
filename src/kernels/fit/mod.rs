//! Pharmacokinetic models, fitted to the concentration of every voxel.
//!
//! Samples are concentrations in mM; the input function is that of the artery's plasma. Given its rate constants, each
//! model is linear in the rest (variable projection; Golub and Pereyra 1973), so that a fit is a search over one rate
//! constant whose basis functions are shared by all voxels: a dictionary finds every valley, and exact derivatives lead to
//! its floor. The bounds are on the physical parameters, not on the linear coefficients.
//!
//! Beside the common status bits ([`crate::status`]) fits say which parameter is at which bound: [`status_bit`].

mod agreement;
mod axis;
pub mod brix;
mod convolution;
mod delay;
mod forward;
mod goodness;
mod model;
pub mod models;
mod one_rate;
mod outputs;
mod prepared;
mod queue;
mod refinement;
mod shared_columns;
pub mod status_bit;
mod two_rate;

use crate::error::{Error, Result};
use crate::input_function::{Fluid, InputFunction};
use crate::kernel::{Input, Runnable, VoxelKernel};
use crate::kernels::descriptors::MapSelection;
use crate::maps::SettingValue;
use crate::quantity::SignalKind;
use crate::series::{Series, VoxelMap};

use prepared::prepare;

pub use model::{Model, Parameter};

/// How a model is fitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Method {
    /// Nonlinear least squares within the bounds: the global minimum.
    #[default]
    Nonlinear,
    /// The linear form of the model's differential equation (Tofts: Murase 2004; two compartments: Flouri, Lesnic and
    /// Mayrovitch 2016). Fast and without bounds; biased by noise and by coarse sampling of the tissue curve. What it finds need
    /// not be a curve of the model: then there are parameters, as far as they have values, but no goodness of the fit, and
    /// bit 13 is set. Where only parameters are asked for, it says nothing else: standard errors are not computed.
    Linear,
}

impl Method {
    /// The word for it on a command line and in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Nonlinear => "nonlinear",
            Method::Linear => "linear",
        }
    }
}

impl std::str::FromStr for Method {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "nonlinear" => Ok(Method::Nonlinear),
            "linear" => Ok(Method::Linear),
            other => Err(Error::setting("method", other, "use nonlinear or linear")),
        }
    }
}

/// How much later than the input function the contrast agent reaches the tissue (CAPLEX Q.PH1.007); negative if earlier.
#[expect(clippy::large_enum_variant, reason = "there is one per run")]
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Delay {
    /// Not at all.
    #[default]
    None,
    /// By so many seconds in every voxel.
    Fixed(f64),
    /// Fitted in every voxel, within its bounds (-10 to 10 s unless told).
    Free,
    /// By so many seconds in each voxel; fitted where the map is NaN.
    PerVoxel(VoxelMap),
}

impl Delay {
    /// Whether it is a parameter of the fit, in some voxel at least.
    pub(crate) fn is_fitted(&self) -> bool {
        match self {
            Delay::None | Delay::Fixed(_) => false,
            Delay::Free => true,
            Delay::PerVoxel(map) => map.flat().iter().any(|seconds| seconds.is_nan()),
        }
    }

    /// The words for it in records.
    pub(crate) fn to_text(&self) -> String {
        match self {
            Delay::None => "none".into(),
            Delay::Fixed(seconds) => format!("{seconds} s"),
            Delay::Free => "free".into(),
            Delay::PerVoxel(_) => "map, free where it is NaN".into(),
        }
    }
}

/// Which curves come out beside the maps: one sample per frame, in mM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum FitCurves {
    /// None.
    #[default]
    None,
    /// The fitted curve.
    Fitted,
    /// Sample minus fitted curve.
    Residual,
    /// Both.
    Both,
}

/// A model fitted to every voxel, with everything that can be chosen about it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PharmacokineticFit {
    pub(crate) model: Model,
    pub(crate) input: InputFunction,
    pub(crate) method: Method,
    pub(crate) delay: Delay,
    /// Lower and upper bound of each [`Parameter`] in its map's unit.
    pub(crate) bounds: [(f64, f64); Parameter::ALL.len()],
    pub(crate) maps: MapSelection,
    pub(crate) curves: FitCurves,
}

impl PharmacokineticFit {
    /// A nonlinear fit without delay, within physiological bounds: Ktrans 0 to 5 1/min, F_p 0 to 200 and PS 0 to
    /// 500 mL/min/100 mL, volume fractions 0 to 1.
    pub fn new(model: Model, input: InputFunction) -> Self {
        Self {
            model,
            input,
            method: Method::default(),
            delay: Delay::default(),
            bounds: Parameter::ALL.map(Parameter::default_bounds),
            maps: MapSelection::default(),
            curves: FitCurves::default(),
        }
    }

    /// The model.
    pub fn model(&self) -> Model {
        self.model
    }

    /// How the model is fitted.
    #[must_use]
    pub fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// The arterial delay.
    #[must_use]
    pub fn delay(mut self, delay: Delay) -> Self {
        self.delay = delay;
        self
    }

    /// A parameter's bounds in its map's unit, both included.
    #[must_use]
    pub fn bounds(mut self, parameter: Parameter, lower: f64, upper: f64) -> Self {
        self.bounds[parameter.index()] = (lower, upper);
        self
    }

    /// Which maps come out: all but curves unless told.
    #[must_use]
    pub fn maps(mut self, maps: MapSelection) -> Self {
        self.maps = maps;
        self
    }

    /// Which curves come out beside the maps.
    #[must_use]
    pub fn curves(mut self, curves: FitCurves) -> Self {
        self.curves = curves;
        self
    }

    /// A parameter's bounds in the fit's own units: 1/s, fractions, seconds.
    pub(crate) fn internal_bounds(&self, parameter: Parameter) -> (f64, f64) {
        let (lower, upper) = self.bounds[parameter.index()];
        let factor = parameter.internal_per_unit();
        (lower * factor, upper * factor)
    }

    /// Checks what doesn't depend on the model.
    pub(crate) fn check(&self, series: &Series) -> Result<()> {
        if self.input.fluid() != Fluid::Plasma {
            let mend = "models of exchange take plasma: convert with in_plasma(haematocrit)";
            return Err(Error::setting("input function", "a concentration in blood", mend));
        }
        self.input.check_covers(series.times()?)?;
        let mut bounded = self.model.parameters().to_vec();
        if self.delay.is_fitted() {
            bounded.push(Parameter::Delay);
        }
        for parameter in bounded {
            let (lower, upper) = self.bounds[parameter.index()];
            let signed = parameter == Parameter::Delay;
            if !(lower.is_finite() && upper.is_finite() && lower < upper && (signed || lower >= 0.0)) {
                let mend = "give two finite numbers, the lower one first, 0 or more except for a delay";
                let name = format!("bounds of {}", parameter.quantity().id);
                return Err(Error::setting(name, format!("{lower} to {upper}"), mend));
            }
        }
        let k = self.model.parameters().len() + usize::from(self.delay.is_fitted());
        if series.frames() <= k {
            let mend = format!("{} with {k} free parameters needs at least {} frames", self.model, k + 1);
            return Err(Error::setting("model", format!("for a series of {} frames", series.frames()), mend));
        }
        match &self.delay {
            Delay::Fixed(seconds) if !seconds.is_finite() => {
                Err(Error::setting("delay", seconds, "give a finite number of seconds"))
            }
            Delay::PerVoxel(map) => map.check_matches(series),
            _ => Ok(()),
        }
    }

    /// The settings for the record.
    pub(crate) fn record(&self) -> Vec<(String, SettingValue)> {
        let text = |text: &str| SettingValue::Text(text.into());
        let mut record = vec![
            ("model".into(), text(self.model.as_str())),
            ("method".into(), text(self.method.as_str())),
            ("delay".into(), text(&self.delay.to_text())),
            ("input_function".into(), text(self.input.origin())),
            ("input_function_fluid".into(), text(self.input.fluid().as_str())),
            ("input_function_knots".into(), SettingValue::Number(self.input.times_s().len() as f64)),
        ];
        if let Some(haematocrit) = self.input.haematocrit_applied() {
            record.push(("haematocrit".into(), SettingValue::Number(haematocrit.fraction())));
        }
        if self.method == Method::Nonlinear {
            let delay: &[Parameter] = if self.delay.is_fitted() { &[Parameter::Delay] } else { &[] };
            for parameter in self.model.parameters().iter().chain(delay) {
                let (lower, upper) = self.bounds[parameter.index()];
                let bounds = SettingValue::List(vec![SettingValue::Number(lower), SettingValue::Number(upper)]);
                record.push((format!("bounds_{}", parameter.quantity().id), bounds));
            }
        }
        record
    }
}

impl VoxelKernel for PharmacokineticFit {
    fn name(&self) -> &'static str {
        if self.model == Model::TwoCompartmentExchange { "two_rate_fit" } else { "one_rate_fit" }
    }

    fn kind(&self) -> SignalKind {
        SignalKind::Concentration
    }

    fn prepare(&self, input: &Input<'_>) -> Result<Box<dyn Runnable>> {
        match self.model {
            Model::TwoCompartmentExchange => Ok(Box::new(prepare::<two_rate::Tables>(self, input)?)),
            _ => Ok(Box::new(prepare::<one_rate::Tables>(self, input)?)),
        }
    }
}
