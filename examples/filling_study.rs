//! How often the filling analysis is right on phantoms with known truth.
//!
//! `cargo run --release --example filling_study` prints the tables of `docs/filling.md`.

#[path = "../tests/support/mod.rs"]
mod support;

use std::env;

use perfuse::phantom::filling::{ContrastFall, Pattern};
use perfuse::{Engine, Result};
use support::filling::{Cell, NOISE_WIDTHS, SPACINGS, Shape};

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let seeds: u64 = arguments.first().and_then(|a| a.parse().ok()).unwrap_or(50);
    let first: u64 = arguments.get(1).and_then(|a| a.parse().ok()).unwrap_or(1000);
    let engine = Engine::cpu();
    for shape in [Shape::Ball] {
        for fall in [ContrastFall::Enhancement, ContrastFall::Noise] {
            for noise_width in NOISE_WIDTHS {
                for spacing_s in SPACINGS {
                    let cell = Cell { shape, pattern: Pattern::Uniform, spacing_s, noise_width, fall, speed: 0.1, tau_s: 25.0 };
                    let (mut words, mut interval, mut level_plus, mut origins) = (0, 0, 0, 0);
                    let (mut d, mut d2, mut sn, mut st, mut bias, mut se) = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0);
                    for seed in 0..seeds {
                        let (_, report) = cell.report(&engine, first + seed)?;
                        let index = report.centrifugality;
                        words += usize::from(report.outward.sign != 0);
                        interval += usize::from(index.determined_sign() != 0);
                        level_plus += usize::from(report.outward.level > 0.0);
                        origins += usize::from(report.origin.is_ok());
                        d += index.value;
                        d2 += index.value * index.value;
                        sn += index.noise_standard_error;
                        st += index.tissue_standard_error;
                        bias += index.bias;
                        se += report.arrival_se_s;
                    }
                    let n = seeds as f64;
                    println!(
                        "{} {fall:?} width {noise_width} dt {spacing_s}: words {words} interval {interval} level+ {level_plus} origins {origins} | D {:+.3} sd {:.3} noise se {:.3} tissue se {:.3} bias {:+.3} sigma_T {:.2}",
                        shape.name(), d / n, (d2 / n - (d / n).powi(2)).sqrt(), sn / n, st / n, bias / n, se / n
                    );
                }
            }
        }
    }
    Ok(())
}
