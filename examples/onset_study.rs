//! How far each onset method is off on simulated curves with a known onset, and how the automatic baseline does.
//!
//! `cargo run --release --example onset_study` prints the tables of `docs/onset_methods.md`.

#[path = "../tests/support/mod.rs"]
mod support;

use perfuse::{Engine, Result};
use support::study::{CNRS, Cell, METHODS, SHAPES, SPACINGS, automatic_baseline, median, onset_errors};

const VOXELS: usize = 240;
const REPEATS: usize = 25;

fn main() -> Result<()> {
    let engine = Engine::cpu();
    let mut bars = Vec::new();
    for method in METHODS {
        println!("\n### `{}`\n", method.to_text());
        println!("| curve | CNR | 1 s | 3 s | 6 s | 10 s |\n|---|---|---|---|---|---|");
        for (s, shape) in SHAPES.into_iter().enumerate() {
            for (c, cnr) in CNRS.into_iter().enumerate() {
                print!("| {} | {cnr} |", shape.name());
                for (d, spacing) in SPACINGS.into_iter().enumerate() {
                    let cell = Cell { shape, spacing, cnr };
                    let errors =
                        onset_errors(&engine, &cell.simulate(VOXELS, 1 + (s * 100 + c * 10 + d) as u64), method)?;
                    print!(" {:.2} / {:+.2} / {:.2}", errors.median_absolute, errors.bias, errors.spread);
                    if errors.global + errors.none > 0.0 {
                        print!(" / {:.0} %", 100.0 * errors.global);
                    }
                    if errors.none > 0.0 {
                        print!(" ({:.0} % none)", 100.0 * errors.none);
                    }
                    print!(" |");
                    if method == METHODS[0] && cnr == 20.0 {
                        bars.push((cell, errors.median_absolute));
                    }
                }
                println!();
            }
        }
    }

    println!("\n### The default against its bar, CNR 20\n");
    println!("| curve | frame, s | median abs. error, s | bar, s | |\n|---|---|---|---|---|");
    for (cell, error) in bars {
        let verdict = if error <= cell.bar() { "within" } else { "**fails**" };
        println!("| {} | {} | {error:.2} | {:.2} | {verdict} |", cell.shape.name(), cell.spacing, cell.bar());
    }

    for (voxels, title) in [(VOXELS, "mean over 240 voxels"), (1, "a single voxel")] {
        println!("\n### The automatic baseline, {title}\n");
        println!("| curve | CNR | 1 s | 3 s | 6 s | 10 s |\n|---|---|---|---|---|---|");
        for (s, shape) in SHAPES.into_iter().enumerate() {
            for (c, cnr) in CNRS.into_iter().enumerate() {
                print!("| {} | {cnr} |", shape.name());
                for (d, spacing) in SPACINGS.into_iter().enumerate() {
                    let cell = Cell { shape, spacing, cnr };
                    let repeats = if voxels == 1 { 8 * REPEATS } else { REPEATS };
                    let (mut past, mut kept) = (0, Vec::new());
                    for repeat in 0..repeats {
                        let seed = 5_000 + (repeat * 1_000 + s * 100 + c * 10 + d) as u64;
                        let (reaches_past, share) = automatic_baseline(&engine, &cell.simulate(voxels, seed))?;
                        past += usize::from(reaches_past);
                        kept.push(share);
                    }
                    let least = kept.iter().copied().fold(f64::INFINITY, f64::min);
                    let past = 100.0 * past as f64 / repeats as f64;
                    print!(" {past:.1} % / {:.0} % / {:.0} % |", 100.0 * median(kept), 100.0 * least);
                }
                println!();
            }
        }
    }
    Ok(())
}
