//! Whether an engine's fit of one voxel agrees with the definition's.
//!
//! A search has no bound by rounding: where the sum of squares is flat, parameters far apart fit alike. So a parameter
//! agrees within 1e-3 of the definition's or a twentieth of its standard error; and all do if the engine's parameters,
//! evaluated in f64, fit as well as the definition's: (1 + 1e-5) of its sum of squares and 1e-10 of the samples'. The linear
//! method has no least sum of squares: there the curves must agree, where there are curves of the model.

use super::Parameter;
use super::outputs::{Plan, slot};
use crate::status;

/// What a parameter may differ by, of its value and of its standard error.
const PARAMETER: (f64, f64) = (1e-3, 0.05);
/// What a delay may differ by in any case: s.
pub(super) const DELAY: f64 = 1e-3;
/// What a standard error may differ by, of its value.
const STANDARD_ERROR: f64 = 0.05;
/// What the sum of squares may be larger by, of itself and of the samples' one.
const SUM: (f64, f64) = (1e-5, 1e-10);
/// What sums and curves may differ by through rounding, of the samples' sum of squares and of the largest sample.
const ROUNDING: (f64, f64) = (1e-9, 1e-4);
/// What decides these bits may lie within rounding of its threshold.
const BORDERLINE: u32 = status::AT_LOWER_BOUND
    | status::AT_UPPER_BOUND
    | status::NOT_CONVERGED
    | status::NOT_IDENTIFIABLE
    | status::NOT_ENHANCING
    | !0 << 15;

/// The rows of a parameter and of its standard error, and what it may differ by in any case.
pub(super) struct ParameterRows {
    pub(super) value: Option<usize>,
    pub(super) error: Option<usize>,
    pub(super) absolute: f64,
}

/// What is in which row.
pub(super) struct Rows {
    pub(super) parameters: Vec<ParameterRows>,
    pub(super) sse: Option<usize>,
    pub(super) r_squared: Option<usize>,
    pub(super) aic: Option<usize>,
    /// Rows of curves.
    pub(super) curves: Vec<usize>,
    /// Rows of counts, which may differ.
    pub(super) counts: Option<usize>,
}

impl Rows {
    /// Those of a model with an input function.
    pub(super) fn of(plan: &Plan, row_of_frame: &[usize]) -> Self {
        let parameter = |parameter: Parameter| ParameterRows {
            value: plan.row(slot::PARAMETER + parameter.index()),
            error: plan.row(slot::STANDARD_ERROR + parameter.index()),
            absolute: if parameter == Parameter::Delay { DELAY } else { 0.0 },
        };
        let curves = [slot::FITTED_CURVE, slot::RESIDUAL].into_iter().filter_map(|slot| plan.row(slot));
        Self {
            parameters: Parameter::ALL.map(parameter).into(),
            sse: plan.row(slot::SSE),
            r_squared: plan.row(slot::R_SQUARED),
            aic: plan.row(slot::AIC),
            curves: curves.flat_map(|first| row_of_frame.iter().map(move |frame| first + frame)).collect(),
            counts: plan.row(slot::ITERATIONS),
        }
    }
}

/// What two fits of a voxel are compared by.
pub(super) struct Fits {
    pub(super) rows: Rows,
    /// Sums of squares of the engine's and of the definition's parameters in f64; `None` if they are not all there.
    pub(super) found: Option<f64>,
    pub(super) best: Option<f64>,
    pub(super) squares: f64,
    pub(super) squares_about_mean: f64,
    pub(super) peak: f64,
    pub(super) samples: usize,
    /// Whether the voxel can have a fit.
    pub(super) valid: bool,
    /// Whether the linear method found it.
    pub(super) linear: bool,
}

/// Row by row, the status last: whether the engine's value agrees.
pub(super) fn agreement(fits: &Fits, engine: &[f64], definition: &[f64]) -> Vec<bool> {
    let rows = &fits.rows;
    let as_good = match (fits.found, fits.best) {
        (Some(found), Some(best)) if fits.linear => {
            (found - best).abs() <= PARAMETER.0 * best + ROUNDING.0 * fits.squares
        }
        (Some(found), Some(best)) => found <= (1.0 + SUM.0) * best + SUM.1 * fits.squares,
        // No curve of the model, or hardly one: what its equations divide by hardly differs from nothing.
        _ => fits.linear && definition[definition.len() - 1] as u32 & status::NOT_IDENTIFIABLE != 0,
    };
    // Where nothing but rounding is left, so is its logarithm, and so are standard errors.
    let nothing = fits.best.is_some_and(|best| best <= 10.0 * ROUNDING.0 * fits.squares);
    let near = |row: usize, allowed: f64| {
        let (e, d) = (engine[row], definition[row]);
        if e.is_nan() || d.is_nan() { e.is_nan() == d.is_nan() } else { (e - d).abs() <= allowed }
    };
    // Rows of which nothing is said must be equal but for their rounding.
    let mut agrees: Vec<bool> = (0..definition.len()).map(|row| near(row, 1e-5 * definition[row].abs())).collect();
    if let Some(row) = rows.counts {
        agrees[row] = true;
    }
    let mut all = true;
    for parameter in &rows.parameters {
        let error = parameter.error.map_or(0.0, |row| definition[row]);
        let error = if error.is_nan() { 0.0 } else { error };
        if let Some(row) = parameter.value {
            let allowed = PARAMETER.0 * definition[row].abs() + PARAMETER.1 * error + parameter.absolute;
            agrees[row] = near(row, allowed) || as_good;
            all = all && agrees[row];
        }
        if let Some(row) = parameter.error {
            agrees[row] = near(row, STANDARD_ERROR * definition[row].abs()) || as_good || nothing;
        }
    }
    let spare = ROUNDING.0 * fits.squares;
    if let Some(row) = rows.sse {
        agrees[row] = near(row, PARAMETER.0 * definition[row] + spare);
    }
    if let Some(row) = rows.r_squared {
        let about_mean = fits.squares_about_mean.max(f64::MIN_POSITIVE);
        agrees[row] = near(row, PARAMETER.0 * (1.0 - definition[row]) + spare / about_mean + 1e-6);
    }
    if let Some(row) = rows.aic {
        // As much as the sum of squares may differ, of which it is the logarithm.
        let share = PARAMETER.0 + fits.best.map_or(0.0, |best| spare / best.max(f64::MIN_POSITIVE));
        agrees[row] = near(row, 2.0 * share * fits.samples as f64) || nothing;
    }
    for row in &rows.curves {
        agrees[*row] = near(*row, ROUNDING.1 * fits.peak) || as_good;
    }
    let status = definition.len() - 1;
    let different = engine[status] as u32 ^ definition[status] as u32;
    agrees[status] = different == 0 || (fits.valid && all && different & !BORDERLINE == 0);
    agrees
}
