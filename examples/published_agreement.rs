//! What published data give beside what the field's tolerances allow.
//!
//! `PERFUSE_TEST_DATA=FOLDER cargo run --release --example published_agreement` prints the table of
//! `docs/published_agreement.md`; docs/testing.md says where the data come from.

#[path = "../tests/support/agreement.rs"]
mod agreement;

use std::path::PathBuf;
use std::process::ExitCode;

use perfuse::{Engine, Result};

fn main() -> ExitCode {
    let Some(data) = std::env::var_os("PERFUSE_TEST_DATA").map(PathBuf::from) else {
        eprintln!("error: set PERFUSE_TEST_DATA to the folder of the published data (docs/testing.md)");
        return ExitCode::from(2);
    };
    match print(&Engine::cpu(), &data) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print(engine: &Engine, data: &std::path::Path) -> Result<bool> {
    let rows = agreement::all(engine, data)?;
    println!("| set | quantity | values | allowed | found | worst deviation over allowed |\n|---|---|---|---|---|---|");
    for row in &rows {
        let verdict = if row.holds() { "" } else { " **exceeds**" };
        println!(
            "| {} | `{}` | {} | {} | {} | {:.3}{verdict} |",
            row.set, row.quantity, row.cases, row.allowed, row.found, row.worst_share
        );
    }
    Ok(rows.iter().all(agreement::Row::holds))
}
