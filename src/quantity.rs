//! Quantities: the name, unit and exact definition of everything a map can hold. Every other text quotes this table.

use std::borrow::Cow;

/// What the samples of a series are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SignalKind {
    /// Signal of an MR image in arbitrary units.
    #[default]
    Signal,
    /// Concentration of contrast agent in mM.
    Concentration,
    /// Change of the transverse relaxation rate in 1/s.
    DeltaR2Star,
    /// X-ray attenuation in Hounsfield units.
    Attenuation,
}

impl SignalKind {
    /// The word for it on a command line and in records.
    pub fn as_str(self) -> &'static str {
        match self {
            SignalKind::Signal => "signal",
            SignalKind::Concentration => "concentration",
            SignalKind::DeltaR2Star => "delta_r2star",
            SignalKind::Attenuation => "hu",
        }
    }

    /// The unit of the samples.
    pub fn unit(self) -> &'static str {
        match self {
            SignalKind::Signal => "a.u.",
            SignalKind::Concentration => "mM",
            SignalKind::DeltaR2Star => "1/s",
            SignalKind::Attenuation => "HU",
        }
    }
}

impl std::str::FromStr for SignalKind {
    type Err = crate::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "signal" => Ok(SignalKind::Signal),
            "concentration" => Ok(SignalKind::Concentration),
            "delta_r2star" => Ok(SignalKind::DeltaR2Star),
            "hu" => Ok(SignalKind::Attenuation),
            other => Err(crate::Error::setting("kind", other, "use signal, concentration, delta_r2star or hu")),
        }
    }
}

/// The unit of a quantity, in terms of the unit `f` of the series' samples.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unit {
    /// As the samples.
    Series,
    /// Samples per second.
    SeriesPerSecond,
    /// Samples times seconds.
    SeriesSeconds,
    /// Samples times seconds squared.
    SeriesSecondsSquared,
    /// The square of the samples' unit.
    SeriesSquared,
    /// Millimoles per litre.
    Millimolar,
    /// Per second.
    PerSecond,
    /// Seconds.
    Seconds,
    /// Per cent.
    Percent,
    /// A pure number.
    Dimensionless,
    /// A label: its meanings are part of the definition.
    Label,
    /// A bit mask: see [`crate::status`].
    Bits,
    /// Any other unit, spelled out.
    Other(Cow<'static, str>),
}

impl Unit {
    /// The unit as text, for a series of this kind.
    pub fn text(&self, kind: SignalKind) -> String {
        match self {
            Unit::Series => kind.unit().into(),
            Unit::SeriesPerSecond if kind == SignalKind::DeltaR2Star => "1/s^2".into(),
            Unit::SeriesPerSecond => format!("{}/s", kind.unit()),
            Unit::SeriesSeconds if kind == SignalKind::DeltaR2Star => "1".into(),
            Unit::SeriesSeconds => format!("{} s", kind.unit()),
            Unit::SeriesSecondsSquared if kind == SignalKind::DeltaR2Star => "s".into(),
            Unit::SeriesSecondsSquared => format!("{} s^2", kind.unit()),
            Unit::SeriesSquared if kind == SignalKind::DeltaR2Star => "1/s^2".into(),
            Unit::SeriesSquared => format!("({})^2", kind.unit()),
            Unit::Millimolar => "mM".into(),
            Unit::PerSecond => "1/s".into(),
            Unit::Seconds => "s".into(),
            Unit::Percent => "%".into(),
            Unit::Dimensionless => "1".into(),
            Unit::Label => "label".into(),
            Unit::Bits => "bits".into(),
            Unit::Other(text) => text.to_string(),
        }
    }
}

/// A quantity: what a map holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quantity {
    /// Identifier: the map's name in the API and its file name.
    pub id: Cow<'static, str>,
    /// Code in the OSIPI CAPLEX lexicon; `None` where the lexicon has no entry and the definition is our own.
    pub caplex: Option<Cow<'static, str>>,
    /// Symbol, for figures.
    pub symbol: Cow<'static, str>,
    /// Unit.
    pub unit: Unit,
    /// The complete definition, in words and formulas.
    pub definition: Cow<'static, str>,
}

impl AsRef<str> for Quantity {
    fn as_ref(&self) -> &str {
        &self.id
    }
}

impl Quantity {
    /// A quantity of one's own.
    pub fn new(
        id: impl Into<Cow<'static, str>>,
        caplex: Option<Cow<'static, str>>,
        symbol: impl Into<Cow<'static, str>>,
        unit: Unit,
        definition: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { id: id.into(), caplex, symbol: symbol.into(), unit, definition: definition.into() }
    }

    const fn fixed(
        id: &'static str,
        caplex: Option<&'static str>,
        symbol: &'static str,
        unit: Unit,
        definition: &'static str,
    ) -> Self {
        Self {
            id: Cow::Borrowed(id),
            caplex: match caplex {
                Some(code) => Some(Cow::Borrowed(code)),
                None => None,
            },
            symbol: Cow::Borrowed(symbol),
            unit,
            definition: Cow::Borrowed(definition),
        }
    }

    /// The area under the enhancement from the onset to `seconds` after it (`iauc_60` for 60 s).
    pub fn iauc(seconds: f64) -> Self {
        let number = crate::quantity::number_in_id(seconds);
        Self::new(
            format!("iauc_{number}"),
            Some(format!("Q.CD1.013[t_on, t_on+{seconds} s]").into()),
            format!("IAUC{seconds}"),
            Unit::SeriesSeconds,
            format!(
                "exact integral of the piecewise-linear enhancement e from the onset t_on to t_on + {seconds} s, both ends interpolated on their segment; NaN if the series ends earlier"
            ),
        )
    }

    /// The standard error of a map (`auc_se` for `auc`).
    pub fn standard_error_of(map: &Quantity) -> Self {
        let definition = if map.id == "onset" {
            "standard error of the onset from the covariance of its least-squares fit, (J'J)^-1 SSE/dof, the baseline's mean included, conditional on the samples selected for the fit and on their following its line".to_string()
        } else if map.id == "baseline" {
            "standard error of the baseline: sigma / sqrt(n), n baseline frames".to_string()
        } else {
            format!(
                "standard error of {}: sqrt(sigma^2 (sum w^2 + (sum w)^2 / n)), w the weights of the samples, n baseline frames; conditional on the selected frames and on the onset",
                map.id
            )
        };
        Self::new(format!("{}_se", map.id), None, format!("SE({})", map.symbol), map.unit.clone(), definition)
    }

    /// The standard error of a fitted parameter (`t1_se` for `t1`).
    pub fn fit_error_of(map: &Quantity) -> Self {
        let definition = format!(
            "standard error of {}: from the covariance of the fit, sigma^2 (J'J)^-1, by the delta method; sigma^2 = SSE / degrees of freedom unless a noise SD is given",
            map.id
        );
        Self::new(format!("{}_se", map.id), None, format!("SE({})", map.symbol), map.unit.clone(), definition)
    }
}

/// A number as part of an identifier: `60`, `7.5` as `7p5`.
pub(crate) fn number_in_id(value: f64) -> String {
    format!("{value}").replace('.', "p")
}

/// Units that models need beside those of [`Unit`].
const PER_MINUTE: Unit = Unit::Other(Cow::Borrowed("1/min"));
const FLOW: Unit = Unit::Other(Cow::Borrowed("mL/min/100 mL"));

/// Parameters of the pharmacokinetic models.
impl Quantity {
    /// `ktrans`: volume transfer constant, plasma to extravascular extracellular space.
    pub const KTRANS: Quantity = Quantity::fixed(
        "ktrans",
        Some("Q.PH1.008"),
        "Ktrans",
        PER_MINUTE,
        "volume transfer constant from plasma to the extravascular extracellular space, per volume of tissue",
    );
    /// `kep`: Ktrans / v_e.
    pub const KEP: Quantity = Quantity::fixed(
        "kep",
        Some("Q.PH1.009"),
        "kep",
        PER_MINUTE,
        "rate constant Ktrans / v_e of the return to plasma, per minute (the lexicon has 1/s); NaN where Ktrans is 0",
    );
    /// `ve`: extravascular extracellular volume fraction.
    pub const VE: Quantity = Quantity::fixed(
        "ve",
        Some("Q.PH1.001"),
        "v_e",
        Unit::Dimensionless,
        "volume fraction of the extravascular extracellular space, 0 to 1 (times 100: mL/100 mL); NaN where Ktrans is 0",
    );
    /// `vp`: plasma volume fraction.
    pub const VP: Quantity = Quantity::fixed(
        "vp",
        Some("Q.PH1.001"),
        "v_p",
        Unit::Dimensionless,
        "volume fraction of plasma, 0 to 1 (times 100: mL/100 mL)",
    );
    /// `v`: volume fraction of a single compartment.
    pub const V: Quantity = Quantity::fixed(
        "v",
        Some("Q.PH1.001"),
        "v",
        Unit::Dimensionless,
        "volume fraction of the single compartment, 0 to 1 (times 100: mL/100 mL); NaN where F_p is 0",
    );
    /// `fp`: plasma flow.
    pub const FP: Quantity = Quantity::fixed("fp", Some("Q.PH1.002"), "F_p", FLOW, "plasma flow per 100 mL of tissue");
    /// `ps`: permeability-surface area product.
    pub const PS: Quantity = Quantity::fixed(
        "ps",
        Some("Q.PH1.004"),
        "PS",
        FLOW,
        "permeability-surface area product per 100 mL of tissue (divided by 100: 1/min); NaN where F_p is 0",
    );
    /// `extraction_fraction`: E = PS / (F_p + PS).
    pub const EXTRACTION_FRACTION: Quantity = Quantity::fixed(
        "extraction_fraction",
        Some("Q.PH1.005"),
        "E",
        Unit::Dimensionless,
        "extraction fraction PS / (F_p + PS); NaN where F_p is 0",
    );
    /// `delay`: arterial delay.
    pub const DELAY: Quantity = Quantity::fixed(
        "delay",
        Some("Q.PH1.007"),
        "T_a",
        Unit::Seconds,
        "arterial delay: how much later than the input function contrast agent reaches the tissue; negative if earlier",
    );
}

macro_rules! quantities {
    ($($(#[$doc:meta])* $name:ident = $id:literal, $caplex:expr, $symbol:literal, $unit:ident, $definition:literal;)*) => {
        impl Quantity {
            $($(#[$doc])* #[doc = concat!("`", $id, "`: ", $definition, ".")]
            pub const $name: Quantity = Quantity::fixed($id, $caplex, $symbol, Unit::$unit, $definition);)*
        }
    };
}

quantities! {
    BASELINE = "baseline", Some("Q.BL1.001"), "f_BL", Series,
        "mean of the samples over the baseline frames";
    BASELINE_SD = "baseline_sd", None, "s_BL", Series,
        "sample standard deviation (n - 1) of the samples over the n baseline frames; NaN for one frame";
    PEAK_ENHANCEMENT = "peak_enhancement", None, "e_max", Series,
        "largest signed enhancement e from the first frame after the baseline to the last frame, the last included; the earliest of equals (with sub-frame peaks: the vertex of the parabola through the peak and its neighbours)";
    RELATIVE_ENHANCEMENT = "relative_enhancement", None, "e_max/f_BL", Percent,
        "100 e_max / f_BL, where f_BL > 0; signal only";
    PEAK_TIME = "peak_time", Some("Q.CD1.003"), "t_max", Seconds,
        "time of the peak on the series' own clock";
    ONSET = "onset", Some("Q.BA1.001"), "t_on", Seconds,
        "bolus arrival t_on minus the time of the first frame, sub-frame, by the onset method of the settings";
    TIME_TO_PEAK = "time_to_peak", Some("Q.CD1.010"), "TTP", Seconds,
        "peak time minus onset, t_max - t_on";
    TIME_TO_FRACTION_10 = "time_to_fraction_10", None, "t_10", Seconds,
        "last upward crossing of 0.10 e_max before the peak, linear between samples, minus t_on";
    TIME_TO_FRACTION_25 = "time_to_fraction_25", None, "t_25", Seconds,
        "last upward crossing of 0.25 e_max before the peak, linear between samples, minus t_on";
    TIME_TO_FRACTION_50 = "time_to_fraction_50", None, "t_50", Seconds,
        "last upward crossing of 0.50 e_max before the peak, linear between samples, minus t_on";
    TIME_TO_FRACTION_75 = "time_to_fraction_75", None, "t_75", Seconds,
        "last upward crossing of 0.75 e_max before the peak, linear between samples, minus t_on";
    TIME_TO_FRACTION_90 = "time_to_fraction_90", None, "t_90", Seconds,
        "last upward crossing of 0.90 e_max before the peak, linear between samples, minus t_on";
    WASH_IN_SLOPE = "wash_in_slope", Some("Q.CD1.011"), "WiS", SeriesPerSecond,
        "e_max / time_to_peak";
    MAX_SLOPE = "max_slope", None, "m_max", SeriesPerSecond,
        "largest least-squares slope over w consecutive samples from the last baseline frame to the peak, both included (all samples if fewer than w lie there); the earliest of equals";
    MAX_SLOPE_TIME = "max_slope_time", None, "t_m", Seconds,
        "mean time of the window of max_slope, on the series' own clock";
    WASH_OUT_SLOPE = "wash_out_slope", Some("Q.CD1.012"), "WoS", SeriesPerSecond,
        "(e_max - e_last) / (t_max - t_last), negative for wash-out; NaN if the peak is the last frame";
    LATE_SLOPE = "late_slope", None, "m_late", SeriesPerSecond,
        "least-squares slope of e from the peak (or from a given time after the onset) to the last frame";
    AUC = "auc", Some("Q.CD1.013"), "AUC", SeriesSeconds,
        "exact integral of the piecewise-linear enhancement e from the onset t_on to the last frame";
    AUMC = "aumc", None, "AUMC", SeriesSecondsSquared,
        "exact integral of (t - t_on) e, e piecewise linear, from the onset to the last frame";
    MEAN_RESIDENCE_TIME = "mean_residence_time", None, "MRT", Seconds,
        "aumc / auc";
    FWHM = "fwhm", None, "FWHM", Seconds,
        "width of the first pass at e_max / 2, linear between samples; NaN if the curve doesn't come down";
    FINAL_ENHANCEMENT = "final_enhancement", Some("Q.CD1.006"), "e_last", Series,
        "enhancement at the last frame";
    SIGNAL_ENHANCEMENT_RATIO = "signal_enhancement_ratio", None, "SER", Dimensionless,
        "e(t_on + t_1) / e(t_on + t_2), linear between samples, t_1 and t_2 from the settings";
    CURVE_TYPE = "curve_type", None, "type", Label,
        "change = 100 (late - early) / early of the samples (of e unless they are signal); early: mean within 15 s of t_on + 120 s (the nearest sample if none), late: mean over the last 30 s; 1 persistent > +10 %, 2 plateau, 3 wash-out < -10 %, 4 undetermined (a boundary lies within 1.96 standard errors of the change), 0 no answer";
    PEAK_HEIGHT = "peak_height", None, "PH", Series,
        "e_max of the signal drop; falling signal only";
    PERCENT_SIGNAL_RECOVERY = "percent_signal_recovery", None, "PSR", Percent,
        "100 (1 - e_late / e_max), e_late the mean over a given window, the last 30 s unless told; falling signal only";
    CONTRAST_TO_NOISE = "contrast_to_noise", None, "CNR", Dimensionless,
        "e_max / sigma, sigma the noise of the settings";
    FRONT_ARRIVAL = "front_arrival", None, "T", Seconds,
        "arrival T of the filling front on the series' own clock: least squares of c + a (1 - exp(-(t - T)/tau)) (c before T), all four free, over the frames of the settings, tau on a logarithmic grid of 24 from half the shortest step to 4 times their duration, then at the vertex of the parabola through the sums of squares; NaN where the voxel doesn't enhance";
    FRONT_ARRIVAL_SE = "front_arrival_se", None, "SE(T)", Seconds,
        "standard error of the front's arrival from the fit's covariance (J'J)^-1 SSE/dof, with ln(tau) taken as known to 1.5";
    FITTED_BASELINE = "fitted_baseline", None, "c", Series,
        "the constant c before the front's arrival, fitted";
    FITTED_PLATEAU = "fitted_plateau", None, "a", Series,
        "the height a that the front's fit approaches, above the constant; extrapolated where the rise is slower than the series is long";
    RISE_TIME_CONSTANT = "rise_time_constant", None, "tau", Seconds,
        "time constant tau of the front's fit";
    FIT_NOISE_SD = "fit_noise_sd", None, "s", Series,
        "sqrt(SSE/dof) of the front's fit";
    LEVEL_CROSSING = "level_crossing", None, "T_L", Seconds,
        "when the isotonic regression of the samples crosses c + L, on the series' own clock, c the fitted constant and L the level of the settings: at the frame where the sums of (sample - c - L) from the first frame on are least, between frames by the least-squares line through the samples around it; NaN where the voxel doesn't enhance or the level isn't reached";
    LEVEL_CROSSING_SE = "level_crossing_se", None, "SE(T_L)", Seconds,
        "standard error of the level crossing from that line and the noise of the front's fit";
    SSE = "sse", Some("Q.US1.023"), "SSE", SeriesSquared,
        "sum of the squared residuals, sample minus fitted curve, over all N samples";
    R_SQUARED = "r_squared", None, "R^2", Dimensionless,
        "1 - SSE / (sum of the squared differences between samples and their mean); NaN for a constant curve";
    AIC = "aic", Some("Q.US1.026"), "AICc", Dimensionless,
        "corrected information criterion N ln(SSE / N) + 2 k + 2 k (k + 1) / (N - k - 1), k free parameters, a fitted delay counted, the variance of the noise not; NaN if SSE is 0 or N <= k + 1";
    ITERATIONS = "iterations", None, "iterations", Dimensionless,
        "exact evaluations of the model until the step became negligible, at least 1";
    FITTED_CURVE = "fitted_curve", None, "fit", Series,
        "the fitted model at every frame";
    RESIDUAL = "residual", None, "r", Series,
        "sample minus fitted curve at every frame";
    T1 = "t1", Some("Q.EL1.001"), "T1", Seconds,
        "longitudinal relaxation time";
    R1 = "r1", Some("Q.EL1.001"), "R1", PerSecond,
        "longitudinal relaxation rate, 1 / T1";
    M0 = "m0", Some("Q.MS1.010"), "M0", Series,
        "amplitude of the signal model: the signal of fully relaxed magnetisation turned by 90 degrees";
    CONCENTRATION = "concentration", Some("Q.IC1.001"), "C", Millimolar,
        "concentration of contrast agent at every frame, by the conversion of the settings";
    STATUS = "status", None, "status", Bits,
        "one bit per condition of the voxel";
}
