//! How often the filling analysis is right on phantoms with known truth.
//!
//! `cargo run --release --example filling_study` prints the tables of `docs/filling.md`. It takes the number of seeds per
//! cell (50), the first seed (1000), which tables (null, power or all) and of which shape (all).

#[path = "../tests/support/mod.rs"]
mod support;

use std::env;

use perfuse::phantom::filling::{ContrastFall, Pattern};
use perfuse::{Engine, Result};
use support::filling::{Cell, NOISE_WIDTHS, Outcome, SPACINGS, Shape};

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let seeds: u64 = arguments.first().and_then(|a| a.parse().ok()).unwrap_or(50);
    let first: u64 = arguments.get(1).and_then(|a| a.parse().ok()).unwrap_or(1000);
    let which = arguments.get(2).map_or("all", |a| a.as_str());
    let shape = arguments.get(3).map_or("all", |a| a.as_str());
    let shapes: Vec<Shape> = Shape::ALL.into_iter().filter(|s| shape == "all" || s.name() == shape).collect();
    let engine = Engine::cpu();
    if which != "power" {
        for shape in shapes.iter().copied() {
            null(&engine, shape, seeds, first)?;
        }
    }
    if which != "null" {
        for shape in shapes {
            power(&engine, shape, seeds, first)?;
        }
    }
    Ok(())
}

fn null(engine: &Engine, shape: Shape, seeds: u64, first: u64) -> Result<()> {
    println!("\n### Uniform filling, {}\n", shape.name());
    println!(
        "| contrast to noise 20 to 5 by | noise width | frames | undetermined | by the interval alone | no origin | index: mean, SD | its SE: noise, tissue | bias | σ_T |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let (mut undetermined, mut all) = (0, 0);
    for fall in [ContrastFall::Enhancement, ContrastFall::Noise] {
        for noise_width in NOISE_WIDTHS {
            for spacing_s in SPACINGS {
                let cell =
                    Cell { shape, pattern: Pattern::Uniform, spacing_s, noise_width, fall, speed: 0.1, tau_s: 25.0 };
                let outcomes = (0..seeds).map(|seed| cell.outcome(engine, first + seed)).collect::<Result<Vec<_>>>()?;
                let count = |which: &dyn Fn(&Outcome) -> bool| outcomes.iter().filter(|o| which(o)).count();
                let mean = |value: &dyn Fn(&Outcome) -> f64| outcomes.iter().map(value).sum::<f64>() / seeds as f64;
                let d = mean(&|o| o.report.centrifugality.value);
                let sd = mean(&|o| (o.report.centrifugality.value - d).powi(2)).sqrt();
                let quiet = count(&|o| o.report.outward.sign == 0);
                undetermined += quiet;
                all += outcomes.len();
                println!(
                    "| {} | {noise_width} | {spacing_s} s | {quiet} of {seeds} | {} | {} | {d:+.3}, {sd:.3} | {:.3}, {:.3} | {:+.3} | {:.1} s |",
                    match fall {
                        ContrastFall::Noise => "noise",
                        _ => "enhancement",
                    },
                    count(&|o| o.report.centrifugality.determined_sign() == 0),
                    count(&|o| o.report.origin.is_err()),
                    mean(&|o| o.report.centrifugality.noise_standard_error),
                    mean(&|o| o.report.centrifugality.tissue_standard_error),
                    mean(&|o| o.report.centrifugality.bias),
                    mean(&|o| o.report.arrival_se_s),
                );
            }
        }
    }
    println!("\nPooled: undetermined in {undetermined} of {all}, {:.1} %.", 100.0 * undetermined as f64 / all as f64);
    Ok(())
}

fn power(engine: &Engine, shape: Shape, seeds: u64, first: u64) -> Result<()> {
    println!("\n### Filling with a direction, {}\n", shape.name());
    println!(
        "| pattern | noise width | frames | span / σ_T | right sign | wrong sign | index | other index | origin right or none (none) | speed within 15 % (where SE ≤ 5 %) | speed / truth | SE of the slowness |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    for pattern in [Pattern::Centrifugal, Pattern::Centripetal, Pattern::FromBase] {
        for fall in [ContrastFall::Enhancement, ContrastFall::Noise] {
            for noise_width in NOISE_WIDTHS {
                for spacing_s in SPACINGS {
                    let mut cell = Cell { shape, pattern, spacing_s, noise_width, fall, speed: 1.0, tau_s: 25.0 };
                    cell.set_span(9.0)?;
                    let outcomes =
                        (0..seeds).map(|seed| cell.outcome(engine, first + seed)).collect::<Result<Vec<_>>>()?;
                    let count = |which: &dyn Fn(&Outcome) -> bool| outcomes.iter().filter(|o| which(o)).count();
                    let mean = |value: &dyn Fn(&Outcome) -> f64| outcomes.iter().map(value).sum::<f64>() / seeds as f64;
                    let precise = count(&|o| o.slowness_is_precise());
                    let near = count(&|o| o.slowness_is_precise() && o.speed_is_right());
                    println!(
                        "| {pattern:?}, {} | {noise_width} | {spacing_s} s | {:.1} | {} of {seeds} | {} | {:+.2} | {:+.2} | {} ({}) | {near} of {precise} | {:.2} | {:.0} % |",
                        match fall {
                            ContrastFall::Noise => "noise",
                            _ => "enhancement",
                        },
                        mean(&|o| o.span_over_error()),
                        count(&|o| o.sign() == o.true_sign()),
                        count(&|o| o.sign() == -o.true_sign()),
                        mean(&|o| o.index()),
                        mean(&|o| o.other_index()),
                        count(&|o| o.origin_is_right_or_none()),
                        count(&|o| o.report.origin.is_err()),
                        mean(&|o| o.speed_ratio()),
                        100.0 * mean(&|o| o.slowness_error()),
                    );
                }
            }
        }
    }
    Ok(())
}
