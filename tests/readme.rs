//! What the texts say of the code, against the code: the README's tables, and where shaders lie.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use perfuse::kernels::descriptors::{Polarity, status_bit};
use perfuse::{Descriptors, Quantity, Unit, status};

const README: &str = include_str!("../README.md");

/// The cells of the table between two marks, without its head.
fn table(name: &str) -> Vec<Vec<&'static str>> {
    let from = README.find(&format!("<!-- {name}: begin")).expect("the mark before the table");
    let to = README.find(&format!("<!-- {name}: end")).expect("the mark after the table");
    let rows = README[from..to].lines().filter(|line| line.starts_with('|')).skip(2);
    rows.map(|line| line[1..].trim_end_matches('|').split('|').map(str::trim).collect()).collect()
}

fn unit(quantity: &Quantity) -> &'static str {
    match quantity.unit {
        Unit::Series => "f",
        Unit::SeriesPerSecond => "f/s",
        Unit::SeriesSeconds => "f s",
        Unit::SeriesSecondsSquared => "f s²",
        Unit::Seconds => "s",
        Unit::Percent => "%",
        Unit::Dimensionless => "1",
        Unit::Label => "label",
        _ => "another",
    }
}

/// The code without the window that is named behind it.
fn caplex(quantity: &Quantity) -> String {
    let code = quantity.caplex.as_deref().unwrap_or("");
    code.split('[').next().unwrap_or("").into()
}

#[test]
fn the_table_of_maps_lists_what_can_be_computed() {
    let mut listed = BTreeMap::new();
    for row in table("maps") {
        let [ids, unit, error, caplex, what] = row[..] else { panic!("no row of five cells: {row:?}") };
        assert!(!what.is_empty(), "{ids}");
        for id in ids.split(',').map(|id| id.trim().trim_matches('`').to_string()) {
            if error == "yes" {
                listed.insert(format!("{id}_se"), (unit.to_string(), String::new()));
            }
            assert_eq!(listed.insert(id, (unit.to_string(), caplex.to_string())), None, "{ids} twice");
        }
    }
    // Falling signal has some that rising signal hasn't.
    let mut computed = BTreeMap::new();
    for kernel in [Descriptors::new(), Descriptors::new().polarity(Polarity::Fall)] {
        for quantity in kernel.quantities().unwrap() {
            computed.insert(quantity.id.to_string(), (unit(&quantity).to_string(), caplex(&quantity)));
        }
    }
    assert_eq!(listed, computed);
}

#[test]
fn the_table_of_status_bits_lists_all_of_them() {
    let listed: Vec<(String, String)> =
        table("status").iter().map(|row| (row[0].to_string(), row[1].to_string())).collect();
    let meanings = status::MEANINGS.iter().chain(status_bit::MEANINGS);
    let known: Vec<(String, String)> =
        meanings.map(|(bit, text)| (bit.trailing_zeros().to_string(), text.to_string())).collect();
    assert_eq!(listed, known);
}

fn shaders(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { shaders(&path, found) } else { found.push(path) }
    }
}

#[test]
fn every_shader_has_its_rust_text_at_the_same_place() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    shaders(&root.join("shaders"), &mut found);
    assert!(found.len() > 10, "{found:?}");
    for path in found {
        let place = path.strip_prefix(root.join("shaders")).expect("a shader").with_extension("");
        // The head of all kernels, and the engine's own.
        let of_engine = ["common", "probe"].iter().any(|name| place == Path::new(name));
        let rust = root.join("src/kernels").join(&place);
        assert!(
            of_engine || rust.is_dir() || rust.with_extension("rs").is_file(),
            "{} for {}",
            rust.display(),
            path.display()
        );
    }
}
