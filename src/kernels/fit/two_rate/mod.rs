//! The two-compartment exchange model: linear given two rate constants.

mod exchange;
mod memory;
mod pass;
mod program;
mod reference;
mod results;
mod search;
mod tables;

use super::PharmacokineticFit;
use super::delay::DelayTables;
use super::outputs::Plan;
use super::prepared::{Axis, FitTables};
use crate::error::Result;
use crate::kernel::lanes::{Double, Lanes};
use crate::kernel::{Curve, Program, Rows};

pub(super) use tables::Tables;

impl FitTables for Tables {
    fn build(settings: &PharmacokineticFit, axis: &Axis<'_>) -> Result<Self> {
        tables::build(settings, axis)
    }

    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn delay(&self) -> &DelayTables {
        &self.delay
    }

    fn rates_searched(&self) -> usize {
        self.rates.len()
    }

    fn scratch(&self) -> usize {
        memory::scratch(self)
    }

    #[inline(always)]
    fn evaluate<L: Lanes>(&self, lanes: L, curve: Curve<'_, L>, scratch: &mut [L::F], rows: &mut Rows<'_, L>) {
        results::evaluate(lanes, self, &curve, scratch, rows);
    }

    fn judge(&self, curve: &Curve<'_, Double>, engine: &[f64], definition: &[f64]) -> Vec<bool> {
        results::judge(self, curve, engine, definition)
    }

    fn program(&self) -> Program {
        program::program(self)
    }
}
