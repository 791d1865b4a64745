//! The JSON beside the maps: what each one is, and how the run came about.

use std::path::Path;

use serde_json::{Map as Object, Value, json};

use crate::maps::{Map, MapData, Maps, RunRecord, SettingValue};
use crate::quantity::Quantity;

/// `DIR/<id>.json`.
pub(super) fn map_record(map: &Map, record: &RunRecord, file: &str) -> Value {
    described(&map.quantity, &map.unit, sort(&map.data), record, file)
}

/// `DIR/status.json`, which says what each bit means.
pub(super) fn status_record(record: &RunRecord, file: &str) -> Value {
    let unit = Quantity::STATUS.unit.text(record.kind);
    let mut value = described(&Quantity::STATUS, &unit, "bits", record, file);
    value["bits"] = record
        .status_meanings
        .iter()
        .map(|(bit, meaning)| json!({"bit": bit.trailing_zeros(), "value": bit, "meaning": meaning}))
        .collect();
    value
}

fn described(quantity: &Quantity, unit: &str, sort: &str, record: &RunRecord, file: &str) -> Value {
    json!({
        "id": quantity.id,
        "caplex": quantity.caplex,
        "symbol": quantity.symbol,
        "unit": unit,
        "definition": quantity.definition,
        "file": file,
        "values": sort,
        "source": source(record),
        "samples": record.kind.as_str(),
        "kernel": record.kernel,
        "settings": settings(record),
        "times_origin": record.times_origin,
        "engine": record.engine,
        "device": record.device,
        "software": software(),
    })
}

/// `DIR/run.json`. `files` are all files of the run but this one.
pub(super) fn run_record(maps: &Maps, files: &[String], write_seconds: f64, write_bytes: u64) -> Value {
    let record = maps.record();
    let mut stages: Vec<Value> = record.stages.iter().map(|s| stage(&s.stage, s.seconds, s.bytes)).collect();
    stages.push(stage("write", write_seconds, write_bytes));
    let counts: Vec<Value> = record
        .status_counts
        .iter()
        .map(|(bit, meaning, voxels)| {
            json!({"bit": bit.trailing_zeros(), "value": bit, "meaning": meaning, "voxels": voxels})
        })
        .collect();
    let listed: Vec<Value> =
        maps.iter().map(|map| json!({"id": map.quantity.id, "unit": map.unit, "values": sort(&map.data)})).collect();
    json!({
        "software": software(),
        "kernel": record.kernel,
        "engine": record.engine,
        "device": record.device,
        "reason": record.reason,
        "source": source(record),
        "further_sources": record.further_sources.iter().map(|path| file_name(path)).collect::<Vec<_>>(),
        "samples": record.kind.as_str(),
        "shape": record.shape,
        "voxel_size_mm": maps.geometry().voxel_size_mm().map(number),
        "times_s": record.times_s.iter().copied().map(number).collect::<Vec<Value>>(),
        "times_origin": record.times_origin,
        "times_reference": record.times_reference,
        "settings": settings(record),
        "voxels": record.voxels,
        "status": counts,
        "stages": stages,
        "warnings": record.warnings,
        "maps": listed,
        "files": files,
    })
}

fn stage(name: &str, seconds: f64, bytes: u64) -> Value {
    json!({"stage": name, "seconds": number(seconds), "bytes": bytes})
}

fn software() -> Value {
    json!({"name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION")})
}

/// The file's name alone: folders name people and machines.
fn source(record: &RunRecord) -> Option<String> {
    record.source.as_deref().and_then(file_name)
}

fn file_name(path: &Path) -> Option<String> {
    path.file_name().map(|name| name.to_string_lossy().into_owned())
}

fn settings(record: &RunRecord) -> Value {
    Value::Object(record.settings.iter().map(|(name, v)| (name.clone(), setting(v))).collect::<Object<_, _>>())
}

fn setting(value: &SettingValue) -> Value {
    match value {
        SettingValue::Number(n) => number(*n),
        SettingValue::Text(text) => Value::from(text.as_str()),
        SettingValue::List(list) => list.iter().map(setting).collect(),
    }
}

/// JSON has no NaN and no infinity: both become null. Whole numbers are written without a point.
fn number(value: f64) -> Value {
    // Up to 2^53 every whole number is exact.
    if value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0 { json!(value as i64) } else { json!(value) }
}

fn sort(data: &MapData) -> &'static str {
    match data {
        MapData::Float(_) => "float",
        MapData::Label(_) => "label",
        MapData::Curve(_) => "curve",
    }
}
