//! The two-compartment exchange model: linear given two rate constants.

mod exchange;
mod linear;
mod memory;
mod pass;
mod program;
mod reference;
mod restarts;
mod results;
mod search;
mod tables;
mod variables;

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
    const TWO_VECTORS: bool = false;
    const TOGETHER: usize = 32;

    fn outputs(&self) -> &[Output] {
        &self.plan.outputs
    }

    fn rows(&self) -> usize {
        self.plan.rows
    }

    fn scratch(&self) -> usize {
        memory::scratch(self) + Self::TOGETHER * memory::of_block(self)
    }

    #[inline(always)]
    fn evaluate<L: Lanes>(&self, lanes: L, blocks: &[Block<'_, L>], scratch: &mut [L::F], rows: &mut Rows<'_, L>) {
        results::evaluate(lanes, self, blocks, scratch, rows);
    }

    fn judge(&self, curve: &Curve<'_, Double>, engine: &[f64], definition: &[f64]) -> Vec<bool> {
        results::judge(self, curve, engine, definition)
    }

    fn program(&self) -> Program {
        program::program(self)
    }

    fn with_frames(&self, settings: &PharmacokineticFit, times: &[f64], frames: &[usize]) -> Option<Self> {
        with_frames(self, (self.slope, self.intercept), settings, times, frames)
    }
}
