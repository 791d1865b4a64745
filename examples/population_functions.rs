//! Plots the population input functions side by side.
//!
//! `cargo run --release --example population_functions -- --out functions.png`

mod support;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use perfuse::Result;
use perfuse::input_function::{Fluid, Haematocrit, Population};
use perfuse::render::CurvePlot;

/// The population input functions for 0.1 mmol/kg in plasma, each from its t = 0 at 10 s.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 110)]
struct Arguments {
    /// The picture, e.g. --out functions.png
    #[arg(long, value_name = "FILE.png")]
    out: PathBuf,
    /// Fraction of cells in the blood, by which blood becomes plasma, e.g. --haematocrit 0.45
    #[arg(long, value_name = "FRACTION", default_value = "0.42")]
    haematocrit: Haematocrit,
    /// Seconds to show, e.g. --seconds 300
    #[arg(long, value_name = "SECONDS", default_value_t = 120.0)]
    seconds: f64,
    /// Replace an earlier picture
    #[arg(long)]
    force: bool,
}

fn main() -> ExitCode {
    support::finish(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<()> {
    support::refuse_existing(&arguments.out, arguments.force)?;
    let times: Vec<f64> = (0..=1000).map(|i| arguments.seconds * f64::from(i) / 1000.0).collect();
    let curve = |population: Population| -> Vec<f64> {
        let factor = match population.fluid() {
            Fluid::Blood => arguments.haematocrit.plasma_per_blood(),
            Fluid::Plasma => 1.0,
        };
        times.iter().map(|time| factor * population.concentration_mm(time - 10.0)).collect()
    };
    let [first, others @ ..] = Population::ALL;
    let plot = CurvePlot::new(&times, &curve(first))
        .as_line()
        .name(first.citation())
        .title(format!(
            "Population input functions in plasma for 0.1 mmol/kg, haematocrit {}, t = 0 at 10 s",
            arguments.haematocrit.fraction()
        ))
        .value_name("concentration")
        .unit("mM");
    let plot = others.into_iter().fold(plot, |plot, other| plot.overlay(other.citation(), &times, &curve(other)));
    plot.render()?.save(&arguments.out)
}
