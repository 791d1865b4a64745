//! Which maps there are, which of them a run computes, and in which row each one comes out.

use crate::error::{Error, Result};
use crate::kernel::{Output, OutputKind};
use crate::quantity::{Quantity, SignalKind};

use super::{Descriptors, Onset, Polarity};

/// Most windows of the initial area under the curve in one run.
pub(super) const MAX_WINDOWS: usize = 8;

/// The place of every map in [`Slots`]; the shader has the same list.
pub(super) mod slot {
    pub(in super::super) const BASELINE: usize = 0;
    pub(in super::super) const BASELINE_SD: usize = 1;
    pub(in super::super) const PEAK_ENHANCEMENT: usize = 2;
    pub(in super::super) const RELATIVE_ENHANCEMENT: usize = 3;
    pub(in super::super) const PEAK_TIME: usize = 4;
    pub(in super::super) const ONSET: usize = 5;
    pub(in super::super) const TIME_TO_PEAK: usize = 6;
    /// The first of five.
    pub(in super::super) const TIME_TO_FRACTION: usize = 7;
    pub(in super::super) const WASH_IN_SLOPE: usize = 12;
    pub(in super::super) const MAX_SLOPE: usize = 13;
    pub(in super::super) const MAX_SLOPE_TIME: usize = 14;
    pub(in super::super) const WASH_OUT_SLOPE: usize = 15;
    pub(in super::super) const LATE_SLOPE: usize = 16;
    pub(in super::super) const AUC: usize = 17;
    pub(in super::super) const AUMC: usize = 18;
    pub(in super::super) const MEAN_RESIDENCE_TIME: usize = 19;
    pub(in super::super) const FWHM: usize = 20;
    pub(in super::super) const FINAL_ENHANCEMENT: usize = 21;
    pub(in super::super) const SIGNAL_ENHANCEMENT_RATIO: usize = 22;
    pub(in super::super) const CURVE_TYPE: usize = 23;
    pub(in super::super) const PEAK_HEIGHT: usize = 24;
    pub(in super::super) const PERCENT_SIGNAL_RECOVERY: usize = 25;
    pub(in super::super) const CONTRAST_TO_NOISE: usize = 26;
    pub(in super::super) const BASELINE_SE: usize = 27;
    pub(in super::super) const ONSET_SE: usize = 28;
    pub(in super::super) const LATE_SLOPE_SE: usize = 29;
    pub(in super::super) const AUC_SE: usize = 30;
    pub(in super::super) const AUMC_SE: usize = 31;
    pub(in super::super) const FINAL_ENHANCEMENT_SE: usize = 32;
    /// The first of [`MAX_WINDOWS`](super::MAX_WINDOWS).
    pub(in super::super) const IAUC: usize = 33;
    /// The first of [`MAX_WINDOWS`](super::MAX_WINDOWS).
    pub(in super::super) const IAUC_SE: usize = 41;
    /// A multiple of 4, so that the shader reads it in fours.
    pub(in super::super) const COUNT: usize = 52;
}

/// The row of each map, -1 where it isn't computed.
pub(super) type Slots = [i32; slot::COUNT];

/// The levels of `time_to_fraction_*`.
pub(super) const FRACTIONS: [f64; 5] = [0.10, 0.25, 0.50, 0.75, 0.90];
/// The place of one half among them.
pub(super) const HALF: usize = 2;

/// Which maps to compute.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum MapSelection {
    /// Every map that has a meaning for the settings, with standard errors.
    #[default]
    All,
    /// These, by identifier; `iauc_N` may name any number of seconds.
    Ids(Vec<String>),
}

impl MapSelection {
    /// These maps, by quantity or identifier.
    pub fn only<T: AsRef<str>>(ids: impl IntoIterator<Item = T>) -> Self {
        MapSelection::Ids(ids.into_iter().map(|id| id.as_ref().to_string()).collect())
    }
}

impl std::str::FromStr for MapSelection {
    type Err = Error;

    /// `all`, or identifiers between commas.
    fn from_str(text: &str) -> Result<Self> {
        if text == "all" {
            return Ok(MapSelection::All);
        }
        let ids: Vec<String> = text.split(',').map(|id| id.trim().to_string()).filter(|id| !id.is_empty()).collect();
        if ids.is_empty() {
            return Err(Error::setting("maps", text, "use all, or map identifiers between commas"));
        }
        Ok(MapSelection::Ids(ids))
    }
}

/// The rows of a run.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) outputs: Vec<Output>,
    pub(super) slots: Slots,
    /// Windows of the initial area under the curve, in seconds.
    pub(super) windows: Vec<f64>,
}

/// One map that there is: its slot and quantity, or why it has no meaning for the settings.
struct Entry {
    slot: usize,
    quantity: Quantity,
    kind: OutputKind,
    meaningless: Option<&'static str>,
}

/// Decides what comes out in which row.
pub(super) fn plan(settings: &Descriptors) -> Result<Plan> {
    let windows = windows(settings)?;
    let entries = entries(settings, &windows);
    let known = || entries.iter().map(|entry| entry.quantity.id.to_string()).collect::<Vec<_>>().join(", ");
    let mut plan = Plan { outputs: Vec::new(), slots: [-1; slot::COUNT], windows };
    let mut add = |entry: &Entry| {
        if plan.slots[entry.slot] < 0 {
            plan.slots[entry.slot] = plan.outputs.len() as i32;
            plan.outputs.push(Output { quantity: entry.quantity.clone(), kind: entry.kind });
        }
    };
    match &settings.maps {
        MapSelection::All => entries.iter().filter(|entry| entry.meaningless.is_none()).for_each(&mut add),
        MapSelection::Ids(ids) => {
            for id in ids {
                if id == "status" {
                    continue;
                }
                let entry = entries.iter().find(|entry| entry.quantity.id == id.as_str());
                match entry {
                    Some(Entry { meaningless: None, .. }) => add(entry.expect("matched")),
                    Some(Entry { meaningless: Some(why), .. }) => return Err(Error::setting("maps", id, *why)),
                    None => return Err(Error::UnknownMap { id: id.clone(), known: known() }),
                }
            }
        }
    }
    Ok(plan)
}

/// The windows asked for by the settings, or by the identifiers `iauc_N`.
fn windows(settings: &Descriptors) -> Result<Vec<f64>> {
    let mut windows = match &settings.maps {
        MapSelection::All => settings.iauc_seconds.clone(),
        MapSelection::Ids(ids) => ids
            .iter()
            .filter_map(|id| id.strip_prefix("iauc_"))
            .map(|rest| rest.strip_suffix("_se").unwrap_or(rest))
            .filter_map(|number| number.replace('p', ".").parse().ok())
            .collect(),
    };
    if let Some(window) = windows.iter().find(|w| !(w.is_finite() && **w > 0.0)) {
        return Err(Error::setting("iauc window", window, "give a positive number of seconds after the onset"));
    }
    let mut seen = Vec::new();
    windows.retain(|window| {
        let new = !seen.contains(window);
        seen.push(*window);
        new
    });
    if windows.len() > MAX_WINDOWS {
        return Err(Error::setting("iauc windows", windows.len(), format!("use at most {MAX_WINDOWS} in one run")));
    }
    Ok(windows)
}

fn entries(settings: &Descriptors, windows: &[f64]) -> Vec<Entry> {
    let signal = settings.kind == SignalKind::Signal;
    let falling = signal && settings.polarity == Polarity::Fall;
    let fitted = settings.onset == Onset::PiecewiseLinear && settings.onset_scope == super::OnsetScope::Voxel;
    let only_signal = (!signal).then_some("it needs a signal (--kind signal)");
    let only_falling = (!falling).then_some("it needs a falling signal (--kind signal --polarity fall)");
    let only_fitted =
        (!fitted).then_some("only the piecewise-linear onset per voxel comes from a fit that gives its standard error");
    let mut entries = Vec::new();
    let mut push = |slot, quantity, meaningless| {
        let kind = if slot == slot::CURVE_TYPE { OutputKind::Label } else { OutputKind::Float };
        entries.push(Entry { slot, quantity, kind, meaningless });
    };
    push(slot::BASELINE, Quantity::BASELINE, None);
    push(slot::BASELINE_SE, Quantity::standard_error_of(&Quantity::BASELINE), None);
    push(slot::BASELINE_SD, Quantity::BASELINE_SD, None);
    push(slot::PEAK_ENHANCEMENT, Quantity::PEAK_ENHANCEMENT, None);
    push(slot::RELATIVE_ENHANCEMENT, Quantity::RELATIVE_ENHANCEMENT, only_signal);
    push(slot::PEAK_TIME, Quantity::PEAK_TIME, None);
    push(slot::ONSET, Quantity::ONSET, None);
    push(slot::ONSET_SE, Quantity::standard_error_of(&Quantity::ONSET), only_fitted);
    push(slot::TIME_TO_PEAK, Quantity::TIME_TO_PEAK, None);
    let fractions = [
        Quantity::TIME_TO_FRACTION_10,
        Quantity::TIME_TO_FRACTION_25,
        Quantity::TIME_TO_FRACTION_50,
        Quantity::TIME_TO_FRACTION_75,
        Quantity::TIME_TO_FRACTION_90,
    ];
    for (i, quantity) in fractions.into_iter().enumerate() {
        push(slot::TIME_TO_FRACTION + i, quantity, None);
    }
    push(slot::WASH_IN_SLOPE, Quantity::WASH_IN_SLOPE, None);
    push(slot::MAX_SLOPE, Quantity::MAX_SLOPE, None);
    push(slot::MAX_SLOPE_TIME, Quantity::MAX_SLOPE_TIME, None);
    push(slot::WASH_OUT_SLOPE, Quantity::WASH_OUT_SLOPE, None);
    push(slot::LATE_SLOPE, Quantity::LATE_SLOPE, None);
    push(slot::LATE_SLOPE_SE, Quantity::standard_error_of(&Quantity::LATE_SLOPE), None);
    push(slot::AUC, Quantity::AUC, None);
    push(slot::AUC_SE, Quantity::standard_error_of(&Quantity::AUC), None);
    for (i, window) in windows.iter().enumerate() {
        push(slot::IAUC + i, Quantity::iauc(*window), None);
        push(slot::IAUC_SE + i, Quantity::standard_error_of(&Quantity::iauc(*window)), None);
    }
    push(slot::AUMC, Quantity::AUMC, None);
    push(slot::AUMC_SE, Quantity::standard_error_of(&Quantity::AUMC), None);
    push(slot::MEAN_RESIDENCE_TIME, Quantity::MEAN_RESIDENCE_TIME, None);
    push(slot::FWHM, Quantity::FWHM, None);
    push(slot::FINAL_ENHANCEMENT, Quantity::FINAL_ENHANCEMENT, None);
    push(slot::FINAL_ENHANCEMENT_SE, Quantity::standard_error_of(&Quantity::FINAL_ENHANCEMENT), None);
    push(slot::SIGNAL_ENHANCEMENT_RATIO, Quantity::SIGNAL_ENHANCEMENT_RATIO, None);
    push(slot::CURVE_TYPE, Quantity::CURVE_TYPE, None);
    push(slot::PEAK_HEIGHT, Quantity::PEAK_HEIGHT, only_falling);
    push(slot::PERCENT_SIGNAL_RECOVERY, Quantity::PERCENT_SIGNAL_RECOVERY, only_falling);
    push(slot::CONTRAST_TO_NOISE, Quantity::CONTRAST_TO_NOISE, None);
    entries
}
