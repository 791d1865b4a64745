//! Pharmacokinetic fits, T1, concentrations and input functions against published tables, reference objects and peers.
//!
//! The files lie in `$PERFUSE_TEST_DATA`; without that variable the tests are reported as ignored.

#[path = "support/agreement.rs"]
mod agreement;

use std::path::PathBuf;

use libtest_mimic::{Arguments, Failed, Trial};
use perfuse::Engine;
use perfuse::kernels::fit::Model;

fn main() {
    let arguments = Arguments::from_args();
    let trials = match std::env::var_os("PERFUSE_TEST_DATA").map(PathBuf::from) {
        Some(folder) => {
            let other = folder.clone();
            vec![
                Trial::test("published tables within what the field allows", move || tables(&folder)),
                Trial::test("kidney curves through the two-compartment models", move || kidneys(&other)),
            ]
        }
        None => vec![Trial::test("set PERFUSE_TEST_DATA to run", || Ok(())).with_ignored_flag(true)],
    };
    libtest_mimic::run(&arguments, trials).exit();
}

fn tables(data: &std::path::Path) -> Result<(), Failed> {
    let rows = agreement::all(&Engine::cpu(), data)?;
    println!("{} values", rows.iter().map(|row| row.cases).sum::<usize>());
    let mut missed = Vec::new();
    for row in &rows {
        println!("{}, {}: {} ({:.3} of {})", row.set, row.quantity, row.found, row.worst_share, row.allowed);
        if !row.holds() {
            missed.push(format!("{}, {}: {}, {} allowed", row.set, row.quantity, row.found, row.allowed));
        }
    }
    if missed.is_empty() { Ok(()) } else { Err(missed.join("\n").into()) }
}

/// No truth, and an aorta that inflow makes too small, so that flows run high: finite values within the bounds, and fits that
/// follow the curves.
fn kidneys(data: &std::path::Path) -> Result<(), Failed> {
    for model in [Model::TwoCompartmentUptake, Model::TwoCompartmentExchange] {
        for (name, values) in agreement::kidney(&Engine::cpu(), data, model)? {
            println!("{model}, {name}: {values:?}");
            let (flow, volume, explained) = (values["fp"], values["vp"], values["r_squared"]);
            if !((20.0..1000.1).contains(&flow) && (0.02..1.001).contains(&volume) && explained > 0.5) {
                return Err(format!("{model}, {name}: F_p {flow}, v_p {volume}, R^2 {explained}").into());
            }
        }
    }
    Ok(())
}
