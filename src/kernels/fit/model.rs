//! The models and their parameters.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::quantity::Quantity;

/// A pharmacokinetic model. C(t) is the tissue's concentration, c_p that of the artery's plasma, (*) a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Model {
    /// Tofts (CAPLEX M.IC1.004; Tofts and Kermode 1991): C = Ktrans c_p (*) exp(-kep t), kep = Ktrans / v_e.
    Tofts,
    /// Extended Tofts (CAPLEX M.IC1.005; Tofts 1997): C = v_p c_p + Ktrans c_p (*) exp(-kep t).
    ExtendedTofts,
    /// Patlak (CAPLEX M.IC1.006; Patlak 1983): C = v_p c_p + PS (integral of c_p).
    Patlak,
    /// One compartment (CAPLEX M.IC1.003): C = F_p c_p (*) exp(-t F_p / v).
    OneCompartment,
    /// Two-compartment uptake (CAPLEX M.IC1.007; Sourbron and Buckley 2012): C = c_p (*) [(F_p - E F_p) exp(-t / T_p) +
    /// E F_p], T_p = v_p / (F_p + PS), E = PS / (F_p + PS).
    TwoCompartmentUptake,
    /// Two-compartment exchange (CAPLEX M.IC1.009; Sourbron and Buckley 2012): C = v_p c + v_e c_e, v_p dc/dt = F_p (c_p - c) +
    /// PS (c_e - c), v_e dc_e/dt = PS (c - c_e).
    TwoCompartmentExchange,
}

/// Names of the models.
const NAMES: &[(Model, &str)] = &[
    (Model::Tofts, "tofts"),
    (Model::ExtendedTofts, "extended_tofts"),
    (Model::Patlak, "patlak"),
    (Model::OneCompartment, "one_compartment"),
    (Model::TwoCompartmentUptake, "two_compartment_uptake"),
    (Model::TwoCompartmentExchange, "two_compartment_exchange"),
];

impl Model {
    /// The word for it on a command line and in records.
    pub fn as_str(self) -> &'static str {
        NAMES.iter().find(|(model, _)| *model == self).map_or("", |(_, name)| name)
    }

    /// The parameters that are fitted, and bounded; a free delay comes on top.
    pub fn parameters(self) -> &'static [Parameter] {
        use Parameter::{ExchangeFlow, ExtravascularVolume, Ktrans, PlasmaFlow, PlasmaVolume, Volume};
        match self {
            Model::Tofts => &[Ktrans, ExtravascularVolume],
            Model::ExtendedTofts => &[Ktrans, ExtravascularVolume, PlasmaVolume],
            Model::Patlak => &[PlasmaVolume, ExchangeFlow],
            Model::OneCompartment => &[PlasmaFlow, Volume],
            Model::TwoCompartmentUptake => &[PlasmaFlow, ExchangeFlow, PlasmaVolume],
            Model::TwoCompartmentExchange => &[PlasmaFlow, ExchangeFlow, PlasmaVolume, ExtravascularVolume],
        }
    }

    /// What follows from the parameters.
    pub fn derived(self) -> &'static [Parameter] {
        match self {
            Model::Tofts | Model::ExtendedTofts => &[Parameter::Kep],
            Model::TwoCompartmentUptake | Model::TwoCompartmentExchange => &[Parameter::ExtractionFraction],
            Model::Patlak | Model::OneCompartment => &[],
        }
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Model {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        NAMES.iter().find(|(_, name)| *name == text).map(|(model, _)| *model).ok_or_else(|| {
            let known: Vec<&str> = NAMES.iter().map(|(_, name)| *name).collect();
            Error::setting("model", text, format!("use one of {}", known.join(", ")))
        })
    }
}

/// A parameter of a model, or what follows from one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Parameter {
    /// Ktrans in 1/min.
    Ktrans,
    /// v_e, a fraction.
    ExtravascularVolume,
    /// v_p, a fraction.
    PlasmaVolume,
    /// kep = Ktrans / v_e in 1/min.
    Kep,
    /// F_p in mL/min/100 mL.
    PlasmaFlow,
    /// PS in mL/min/100 mL.
    ExchangeFlow,
    /// The volume fraction v of a single compartment.
    Volume,
    /// E = PS / (F_p + PS).
    ExtractionFraction,
    /// The arterial delay in s.
    Delay,
}

impl Parameter {
    /// Every parameter, in the order of rows and status bits.
    pub const ALL: [Parameter; 9] = [
        Parameter::Ktrans,
        Parameter::ExtravascularVolume,
        Parameter::PlasmaVolume,
        Parameter::Kep,
        Parameter::PlasmaFlow,
        Parameter::ExchangeFlow,
        Parameter::Volume,
        Parameter::ExtractionFraction,
        Parameter::Delay,
    ];

    /// What it is.
    pub fn quantity(self) -> Quantity {
        match self {
            Parameter::Ktrans => Quantity::KTRANS,
            Parameter::ExtravascularVolume => Quantity::VE,
            Parameter::PlasmaVolume => Quantity::VP,
            Parameter::Kep => Quantity::KEP,
            Parameter::PlasmaFlow => Quantity::FP,
            Parameter::ExchangeFlow => Quantity::PS,
            Parameter::Volume => Quantity::V,
            Parameter::ExtractionFraction => Quantity::EXTRACTION_FRACTION,
            Parameter::Delay => Quantity::DELAY,
        }
    }

    /// Its place in [`ALL`](Self::ALL).
    pub(super) fn index(self) -> usize {
        self as usize
    }

    /// One unit of the map in the units that the fit computes with: 1/s for rates and flows, fractions, seconds. The only
    /// place where units change.
    pub(super) fn internal_per_unit(self) -> f64 {
        match self {
            Parameter::Ktrans | Parameter::Kep => 1.0 / 60.0,
            // mL/min/100 mL to mL/s/mL.
            Parameter::PlasmaFlow | Parameter::ExchangeFlow => 1.0 / 6000.0,
            Parameter::ExtravascularVolume
            | Parameter::PlasmaVolume
            | Parameter::Volume
            | Parameter::ExtractionFraction
            | Parameter::Delay => 1.0,
        }
    }

    /// Bounds unless told otherwise, in the map's unit; those that contributors to the OSIPI code collection agreed on.
    pub(super) fn default_bounds(self) -> (f64, f64) {
        match self {
            Parameter::Ktrans => (0.0, 5.0),
            Parameter::ExtravascularVolume
            | Parameter::PlasmaVolume
            | Parameter::Volume
            | Parameter::ExtractionFraction => (0.0, 1.0),
            Parameter::PlasmaFlow => (0.0, 200.0),
            // 5 1/min, as Ktrans.
            Parameter::ExchangeFlow => (0.0, 500.0),
            Parameter::Delay => (-10.0, 10.0),
            Parameter::Kep => (0.0, f64::INFINITY),
        }
    }
}
