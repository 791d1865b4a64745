//! The two-compartment exchange model: linear given two rate constants.

mod exchange;
mod program;
mod reference;
mod results;
mod tables;

use crate::kernel::bounded::{Bounded, BoundedWord};
use crate::kernel::lanes::{Double, Lanes};
use crate::kernel::{Curve, Output, PreparedKernel, Program, Rows};
use crate::maps::SettingValue;

use super::{PharmacokineticFit, status_bit};
pub use tables::Tables;
pub(super) use tables::prepare;

/// The exchange model with its tables, ready to run.
#[derive(Debug, Clone)]
pub struct PreparedTwoRate {
    tables: Tables,
    record: Vec<(String, SettingValue)>,
    extra: Vec<Vec<f32>>,
    settings: PharmacokineticFit,
    times: Vec<f64>,
}

impl PreparedKernel for PreparedTwoRate {
    fn outputs(&self) -> &[Output] {
        &self.tables.plan.outputs
    }

    fn rows(&self) -> usize {
        self.tables.plan.rows
    }

    fn settings(&self) -> Vec<(String, SettingValue)> {
        self.record.clone()
    }

    fn status_meanings(&self) -> &'static [(u32, &'static str)] {
        status_bit::MEANINGS
    }

    fn extra(&self) -> &[Vec<f32>] {
        &self.extra
    }

    fn scratch(&self) -> usize {
        reference::scratch(&self.tables)
    }

    #[inline(always)]
    fn evaluate<L: Lanes>(&self, lanes: L, curve: Curve<'_, L>, scratch: &mut [L::F], rows: &mut Rows<'_, L>) {
        results::evaluate(lanes, &self.tables, &curve, scratch, rows);
    }

    fn evaluate_bounded<'a>(&self, _: Bounded<'a>, _: Curve<'_, Bounded<'a>>, words: &mut [BoundedWord]) {
        // A search has no bound by rounding: `judge` compares it.
        words.fill(BoundedWord { value: f64::NAN, error: f64::INFINITY });
    }

    fn judge(&self, curve: &Curve<'_, Double>, engine: &[f64], definition: &[f64]) -> Option<Vec<bool>> {
        Some(results::judge(&self.tables, curve, engine, definition))
    }

    fn program(&self) -> Program {
        program::program(&self.tables)
    }

    fn with_frames(&self, frames: &[usize]) -> Option<Self> {
        let free = self.settings.model.parameters().len() + usize::from(self.tables.delay.fitted);
        if frames.len() <= free {
            return None;
        }
        let scaling = (self.tables.slope, self.tables.intercept);
        let tables = tables::build(&self.settings, &self.times, frames, scaling).ok()?;
        Some(Self { tables, ..self.clone() })
    }
}
