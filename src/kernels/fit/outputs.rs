//! Which maps a fit gives, and in which row each one comes out.

use super::{Delay, FitCurves, Parameter, PharmacokineticFit};
use crate::error::{Error, Result};
use crate::kernel::{Output, OutputKind};
use crate::kernels::descriptors::MapSelection;
use crate::quantity::Quantity;

const PARAMETERS: usize = Parameter::ALL.len();

/// The place of every map in [`Slots`]; shaders have the same list.
pub(in super::super) mod slot {
    /// The first of the parameters, in their order.
    pub(in super::super::super) const PARAMETER: usize = 0;
    /// The first of their standard errors.
    pub(in super::super::super) const STANDARD_ERROR: usize = super::PARAMETERS;
    pub(in super::super::super) const SSE: usize = 2 * super::PARAMETERS;
    pub(in super::super::super) const R_SQUARED: usize = SSE + 1;
    pub(in super::super::super) const AIC: usize = SSE + 2;
    pub(in super::super::super) const ITERATIONS: usize = SSE + 3;
    /// The first row of a curve.
    pub(in super::super::super) const FITTED_CURVE: usize = SSE + 4;
    /// The first row of a curve.
    pub(in super::super::super) const RESIDUAL: usize = SSE + 5;
    /// A multiple of 4, so that shaders read it in fours.
    pub(in super::super::super) const COUNT: usize = 24;
}

/// The row of each map, -1 where it isn't computed.
pub(in super::super) type Slots = [i32; slot::COUNT];

/// The rows of a run.
#[derive(Debug, Clone)]
pub(in super::super) struct Plan {
    pub(in super::super) outputs: Vec<Output>,
    pub(in super::super) slots: Slots,
    /// Rows without the status.
    pub(in super::super) rows: usize,
}

impl Plan {
    /// The row of a map, if it is computed.
    #[inline(always)]
    pub(in super::super) fn row(&self, slot: usize) -> Option<usize> {
        usize::try_from(self.slots[slot]).ok()
    }

    /// Whether one of these is computed.
    pub(in super::super) fn asks(&self, mut slots: impl Iterator<Item = usize>) -> bool {
        slots.any(|slot| self.slots[slot] >= 0)
    }
}

/// Decides what comes out in which row; curves have `frames` rows.
pub(in super::super) fn plan(settings: &PharmacokineticFit, frames: usize) -> Result<Plan> {
    let mut entries: Vec<(usize, Quantity, OutputKind)> = Vec::new();
    let model = settings.model;
    let delay: &[Parameter] = if matches!(settings.delay, Delay::None) { &[] } else { &[Parameter::Delay] };
    let parameters = [model.parameters(), model.derived(), delay].concat();
    for parameter in &parameters {
        entries.push((slot::PARAMETER + parameter.index(), parameter.quantity(), OutputKind::Float));
    }
    for parameter in &parameters {
        if *parameter != Parameter::Delay || settings.delay.is_fitted() {
            let quantity = standard_error_of(&parameter.quantity());
            entries.push((slot::STANDARD_ERROR + parameter.index(), quantity, OutputKind::Float));
        }
    }
    entries.push((slot::SSE, Quantity::SSE, OutputKind::Float));
    entries.push((slot::R_SQUARED, Quantity::R_SQUARED, OutputKind::Float));
    entries.push((slot::AIC, Quantity::AIC, OutputKind::Float));
    entries.push((slot::ITERATIONS, Quantity::ITERATIONS, OutputKind::Float));
    let scalars = entries.len();
    entries.push((slot::FITTED_CURVE, Quantity::FITTED_CURVE, OutputKind::Curve(frames)));
    entries.push((slot::RESIDUAL, Quantity::RESIDUAL, OutputKind::Curve(frames)));

    let chosen: Vec<usize> = match &settings.maps {
        MapSelection::All => (0..scalars).collect(),
        MapSelection::Ids(ids) => {
            let mut chosen = Vec::new();
            for id in ids.iter().filter(|id| *id != "status") {
                let place = entries.iter().position(|(_, quantity, _)| quantity.id == id.as_str());
                let place = place.ok_or_else(|| Error::UnknownMap {
                    id: id.clone(),
                    known: entries
                        .iter()
                        .map(|(_, quantity, _)| quantity.id.to_string())
                        .collect::<Vec<_>>()
                        .join(", "),
                })?;
                if !chosen.contains(&place) {
                    chosen.push(place);
                }
            }
            chosen
        }
    };
    let curves: &[usize] = match settings.curves {
        FitCurves::None => &[],
        FitCurves::Fitted => &[scalars],
        FitCurves::Residual => &[scalars + 1],
        FitCurves::Both => &[scalars, scalars + 1],
    };
    let curves = curves.iter().copied().filter(|place| !chosen.contains(place)).collect::<Vec<_>>();
    let mut plan = Plan { outputs: Vec::new(), slots: [-1; slot::COUNT], rows: 0 };
    for place in chosen.into_iter().chain(curves) {
        let (slot, quantity, kind) = entries[place].clone();
        plan.slots[slot] = plan.rows as i32;
        plan.rows += kind.rows();
        plan.outputs.push(Output { quantity, kind });
    }
    Ok(plan)
}

/// The standard error of a fitted parameter.
pub(in super::super) fn standard_error_of(parameter: &Quantity) -> Quantity {
    let definition = format!(
        "standard error of {}: root of its variance in (J'J)^-1 SSE / (N - k), J the derivatives of the fitted curve by \
         all k free parameters (delay included, bounds or not); NaN where J'J has no inverse",
        parameter.id
    );
    Quantity::new(
        format!("{}_se", parameter.id),
        Some("Q.US1.029".into()),
        format!("SE({})", parameter.symbol),
        parameter.unit.clone(),
        definition,
    )
}
