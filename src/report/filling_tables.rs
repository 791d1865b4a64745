//! The tables on how a lesion fills.

use super::filling::{FillingPage, file_name};
use super::filling_charts::directed;
use super::html::table;
use crate::analysis::filling::FillingReport;
use crate::analysis::filling::report::{Direction, Index, NoOrigin, Shell};
use crate::maps::SettingValue;
use crate::render::ticks::{self, number};

fn interval(low: f64, high: f64) -> String {
    match (low.is_finite(), high.is_finite()) {
        (true, true) => format!("{} to {}", number(low), number(high)),
        (true, false) => format!("{}, no upper end", number(low)),
        _ => "none".into(),
    }
}

fn or_undetermined(value: f64) -> String {
    if value.is_finite() { number(value) } else { "undetermined".into() }
}

fn index_row(name: &str, index: &Index) -> Vec<String> {
    let p = if index.p < 0.001 { "p < 0.001".into() } else { format!("p = {}", number(index.p)) };
    let p = if index.p.is_finite() { p } else { String::new() };
    let note = format!("{p}; standard error {}, {} voxels", number(index.standard_error), ticks::count(index.voxels));
    let note = note.trim_start_matches("; ").to_string();
    vec![name.into(), or_undetermined(index.value), interval(index.low, index.high), note]
}

fn further_rows(of: &str, direction: &Direction) -> [Vec<String>; 2] {
    let row = |name: String, value: f64, note: &str| vec![name, or_undetermined(value), String::new(), note.into()];
    [
        row(
            format!("{of}, not enhancing voxels as censored"),
            direction.arrival_censored,
            "they fill later than all that do",
        ),
        row(format!("{of}, of the level crossing"), direction.level, "voxels that don't reach the level as censored"),
    ]
}

/// Every measure with its interval.
pub(super) fn measures(report: &FillingReport) -> String {
    let mut rows: Vec<Vec<String>> = Vec::new();
    rows.push(index_row("Centrifugality index", &report.centrifugality));
    rows.extend(further_rows("Centrifugality index", &report.outward));
    if let Some(base) = &report.from_base {
        rows.push(index_row("Index from the base outward", &base.arrival));
        rows.extend(further_rows("Index from the base outward", base));
    }
    let mut row = |name: &str, value: String, interval: String, note: String| {
        rows.push(vec![name.into(), value, interval, note]);
    };
    let none = String::new;
    if let Some(index) = report.from_origin {
        row(
            "Index from the origin outward",
            or_undetermined(index),
            none(),
            "descriptive only: the origin was chosen for being early".into(),
        );
    }
    let tenths = |at: &[f64; 3]| at.map(|x| ticks::clock(x, ticks::ClockStyle::Seconds, 1)).join(", ");
    match &report.origin {
        Ok(origin) => {
            row(
                "Origin (world mm)",
                tenths(&origin.world_mm),
                format!("within {} mm", number(origin.region_radius_mm)),
                format!("place: {}", origin.place.as_str()),
            );
            row("Origin (voxel)", tenths(&origin.voxel), none(), "counted from 0".into());
            row(
                "Origin, volume (mL)",
                number(origin.volume_ml),
                none(),
                "largest component of the earliest twentieth".into(),
            );
            row("Origin, depth (mm)", number(origin.depth_mm), none(), "below the lesion's surface".into());
            for other in &origin.others_world_mm {
                row("Further origin (world mm)", tenths(other), none(), none());
            }
        }
        Err(NoOrigin::TooFewVoxels) => row("Origin", "undetermined".into(), none(), "too few voxels enhance".into()),
        Err(NoOrigin::Scattered { region_radius_mm, limit_mm }) => {
            let note = format!(
                "the noise scatters it over {} mm; {} mm are accepted",
                number(*region_radius_mm),
                number(*limit_mm)
            );
            row("Origin", "undetermined".into(), none(), note);
        }
    }
    match &report.speed {
        Some(speed) => {
            if directed(report) {
                let [low, high] = speed.interval_mm_per_s;
                let median = speed.median_mm_per_s.map_or("undetermined".into(), number);
                row("Apparent front speed (mm/s)", median, interval(low, high), speed.path.as_str().into());
            } else {
                let at_least = interval(speed.interval_mm_per_s[0], f64::INFINITY);
                row(
                    "Apparent front speed (mm/s)",
                    "undetermined".into(),
                    at_least,
                    "no direction is determined".into(),
                );
            }
            let note = format!("{}; standard error {}", speed.path.as_str(), number(speed.slowness_se_s_per_mm));
            row("Slowness (s/mm)", or_undetermined(speed.slowness_s_per_mm), none(), note);
            let [low, high] = speed.slowness_change_interval;
            let note = format!("trend of the speed: {}", speed.trend.as_str());
            row(
                "Change of the slowness on the way (s/mm per mm)",
                or_undetermined(speed.slowness_change_s_per_mm2),
                interval(low, high),
                note,
            );
        }
        None => row("Apparent front speed (mm/s)", "undetermined".into(), none(), "too few voxels enhance".into()),
    }
    let extent = &report.extent;
    let [low, high] = extent.enhancing_fraction_interval;
    row(
        "Enhancing fraction (%)",
        number(100.0 * extent.enhancing_fraction),
        interval(100.0 * low, 100.0 * high),
        "in full or partly; interval: thresholds 1.96 noise SDs higher and lower".into(),
    );
    let percent = |volume: f64| format!("{} % of the lesion", number(100.0 * volume / extent.lesion_ml));
    row("Lesion (mL)", number(extent.lesion_ml), none(), none());
    row("Reaching the common level (mL)", number(extent.enhancing_ml), none(), percent(extent.enhancing_ml));
    row("Enhancing below the common level (mL)", number(extent.partly_ml), none(), percent(extent.partly_ml));
    row("Not enhancing (mL)", number(extent.not_enhancing_ml), none(), percent(extent.not_enhancing_ml));
    if extent.unusable_ml > 0.0 {
        row("With unusable samples (mL)", number(extent.unusable_ml), none(), percent(extent.unusable_ml));
    }
    let unit = ticks::unit(report.unit);
    row("Standard error of the arrival, median (s)", or_undetermined(report.arrival_se_s), none(), none());
    row(&format!("Reference plateau ({unit})"), or_undetermined(report.reference_plateau), none(), none());
    row(
        &format!("Common level ({unit})"),
        or_undetermined(report.level),
        none(),
        "above each voxel's fitted baseline".into(),
    );
    let confidence = report.settings.iter().find(|(name, _)| name == "confidence");
    let head = match confidence {
        Some((_, SettingValue::Number(share))) => format!("{} % interval", number(100.0 * share)),
        _ => "interval".into(),
    };
    table(
        "stacks",
        "Indices run from −1 to +1: +1 fills from the centre (or the base), −1 from the rim",
        &["measure", "value", &head, "note"],
        &rows,
    )
}

/// The shells along the depth, and along the base if there is one.
pub(super) fn shells(report: &FillingReport) -> String {
    let head = [
        "shell",
        "distance (mm)",
        "volume (mL)",
        "area (mm²)",
        "voxels",
        "enhancing (%)",
        "arrival (s)",
        "level crossing (s)",
        "slowness (s/mm)",
    ];
    let quartiles = |[low, middle, high]: [f64; 3]| {
        let text = |t: f64| if t.is_finite() { number(t) } else { "–".into() };
        format!("{} ({} to {})", text(middle), text(low), text(high))
    };
    let row = |(i, shell): (usize, &Shell)| {
        vec![
            (i + 1).to_string(),
            format!("{} to {}", number(shell.from_mm), number(shell.to_mm)),
            number(shell.volume_ml),
            number(shell.area_mm2),
            ticks::count(shell.voxels),
            number(100.0 * shell.enhancing_fraction),
            quartiles(shell.arrival_quartiles_s),
            quartiles(shell.level_quartiles_s),
            format!("{} ± {}", or_undetermined(shell.slowness_s_per_mm), number(shell.slowness_se_s_per_mm)),
        ]
    };
    if report.shells.is_empty() {
        return "<p>No shells: too few voxels.</p>\n".into();
    }
    let rows = |shells: &[Shell]| shells.iter().enumerate().map(row).collect::<Vec<_>>();
    let mut out = table(
        "dense",
        "From the centre outward; times: median (quartiles), – where so many voxels don't fill",
        &head,
        &rows(&report.shells),
    );
    if !report.base_shells.is_empty() {
        out += &table("dense", "From the base outward", &head, &rows(&report.base_shells));
    }
    out
}

fn text(value: &SettingValue) -> String {
    match value {
        // Six digits; the file has all of them.
        SettingValue::Number(number) if number.is_finite() && number.fract() != 0.0 => {
            let decimals = (5.0 - number.abs().log10().floor()).clamp(0.0, 12.0) as usize;
            let text = format!("{number:.decimals$}");
            if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text }
        }
        SettingValue::Number(number) if number.is_finite() => format!("{number}"),
        SettingValue::Number(_) => "none".into(),
        SettingValue::Text(text) => text.clone(),
        SettingValue::List(list) => list.iter().map(text).collect::<Vec<_>>().join(", "),
    }
}

pub(super) fn settings(report: &FillingReport) -> Vec<Vec<String>> {
    report.settings.iter().map(|(name, value)| vec![name.replace('_', " "), text(value)]).collect()
}

pub(super) fn provenance(page: &FillingPage<'_>) -> Vec<Vec<String>> {
    let (record, series) = (page.report.maps.record(), page.series);
    let mut rows = Vec::new();
    let mut row = |name: &str, value: String| rows.push(vec![name.to_string(), value]);
    row("software", concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")).into());
    if let Some(date) = &page.date {
        row("date", date.clone());
    }
    row("series", file_name(series.source()).unwrap_or("not from a file".into()));
    row("lesion", file_name(page.lesion.source()).unwrap_or("not from a file".into()));
    let [x, y, z, t] = series.shape();
    row("shape", format!("{x} × {y} × {z} voxels, {t} frames, {}", series.sample_type().name()));
    row("voxel size", format!("{} mm", series.geometry().voxel_size_mm().map(number).join(" × ")));
    if let Ok(times) = series.times() {
        let spacing = if times.is_even() { "every" } else { "uneven, in the median every" };
        row(
            "times",
            format!(
                "{} to {} s, {spacing} {} s; {}",
                number(times.first_s()),
                number(times.last_s()),
                number(times.median_spacing_s()),
                times.origin()
            ),
        );
    }
    row("device", record.device.clone());
    row("engine", format!("{}: {}", record.engine, record.reason));
    for (name, value) in &page.notes {
        row(name, value.clone());
    }
    for warning in &record.warnings {
        row("warning", warning.clone());
    }
    rows
}
