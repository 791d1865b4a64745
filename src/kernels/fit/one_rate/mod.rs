//! Models that are linear given one rate constant: Tofts, extended Tofts, Patlak, one compartment, two-compartment uptake.

mod bounded_linear;
mod delayed;
mod judge;
mod linear;
mod program;
mod reference;
mod results;
mod search;
mod tables;
mod valleys;

use super::delay::DelayTables;
use super::prepared::{Axis, FamilyTables, FitTables, with_frames};
use super::{PharmacokineticFit, status_bit};
use crate::error::Result;
use crate::kernel::lanes::{Double, Lanes};
use crate::kernel::{Block, Curve, Output, Program, Rows};

pub(super) use tables::Tables;

impl FamilyTables for Tables {
    fn build(settings: &PharmacokineticFit, axis: &Axis<'_>) -> Result<Self> {
        tables::build(settings, axis)
    }

    fn delay(&self) -> &DelayTables {
        &self.delay
    }

    fn rates_searched(&self) -> usize {
        self.rates.len()
    }
}

impl FitTables for Tables {
    type Settings = PharmacokineticFit;
    const STATUS: &'static [(u32, &'static str)] = status_bit::MEANINGS;
    const TOGETHER: usize = 32;

    fn outputs(&self) -> &[Output] {
        &self.plan.outputs
    }

    fn rows(&self) -> usize {
        self.plan.rows
    }

    fn scratch(&self) -> usize {
        reference::scratch(self) + if self.delay.own { Self::TOGETHER * self.n } else { 0 }
    }

    #[inline(always)]
    fn evaluate<L: Lanes>(&self, lanes: L, blocks: &[Block<'_, L>], scratch: &mut [L::F], rows: &mut Rows<'_, L>) {
        results::evaluate(lanes, self, blocks, scratch, rows);
    }

    fn judge(&self, curve: &Curve<'_, Double>, engine: &[f64], definition: &[f64]) -> Vec<bool> {
        judge::judge(self, curve, engine, definition)
    }

    fn program(&self) -> Program {
        program::program(self)
    }

    fn with_frames(&self, settings: &PharmacokineticFit, times: &[f64], frames: &[usize]) -> Option<Self> {
        with_frames(self, (self.slope, self.intercept), settings, times, frames)
    }
}
