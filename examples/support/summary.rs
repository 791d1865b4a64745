//! The last words of a program: what was done, with what, and where the results are.

use std::fmt::Write;
use std::path::Path;

use perfuse::{Maps, Mask, RunRecord, Series, SettingValue, status};

use super::figure::find;

/// One line a topic, for semi-quantitative maps.
pub(crate) fn summary(maps: &Maps, series: &Series, mask: Option<&Mask>) -> String {
    let record = maps.record();
    let text = series_lines(maps, series);
    let text = format!("{text}{:<10} {}\n{:<10} {}\n", "baseline", baseline(record), "onset", onset(record));
    text + &voxel_lines(maps, mask)
}

/// What computed, from which series.
pub(crate) fn series_lines(maps: &Maps, series: &Series) -> String {
    let record = maps.record();
    let [x, y, z, t] = record.shape;
    let name = record.source.as_ref().and_then(|path| path.file_name()).map(|name| name.to_string_lossy());
    let name = name.unwrap_or("phantom".into());
    let kind = series.sample_type().name();
    let mut text = String::new();
    let _ = writeln!(text, "{:<10} {} ({})", "device", record.device, record.reason);
    let _ = writeln!(text, "{:<10} {name}: {x} x {y} x {z} voxels, {t} frames, {kind}", "series");
    let _ = writeln!(text, "{:<10} {}", "times", times(series));
    text
}

/// Where there are values, and how many voxels have which status.
pub(crate) fn voxel_lines(maps: &Maps, mask: Option<&Mask>) -> String {
    let record = maps.record();
    let all: usize = record.shape[..3].iter().product();
    let mut text = String::new();
    let mut line = |topic: &str, content: String| {
        let _ = writeln!(text, "{topic:<10} {content}");
    };
    let inside = mask.map(|mask| match mask.source().and_then(Path::file_name) {
        Some(name) => format!("inside {}", name.display()),
        None => "inside the phantom's head".into(),
    });
    line(
        "voxels",
        match inside {
            Some(mask) => format!("{} of {all} ({mask})", record.voxels),
            None => format!("{all}"),
        },
    );
    for (i, (bit, meaning, voxels)) in record.status_counts.iter().enumerate() {
        let topic = if i == 0 { "status" } else { "" };
        let share = 100.0 * *voxels as f64 / if *bit == status::OUTSIDE_MASK { all } else { record.voxels } as f64;
        line(topic, format!("{voxels:>9} {share:>5.1} %  {meaning} (bit {})", bit.trailing_zeros()));
    }
    text
}

/// `read 0.21, kernel 0.40, …: 1.23 s in all`.
pub(crate) fn seconds<'a>(stages: impl Iterator<Item = (&'a str, f64)>) -> String {
    let (mut text, mut all) = (String::new(), 0.0);
    for (stage, seconds) in stages {
        all += seconds;
        // What takes less than a millisecond isn't worth a reader's time.
        if seconds >= 0.001 {
            let _ = write!(text, "{stage} {seconds:.3}, ");
        }
    }
    format!("{text}{all:.3} in all")
}

fn times(series: &Series) -> String {
    let Ok(times) = series.times() else { return "none".into() };
    let spacing = if times.is_even() {
        format!("every {} s", round(times.median_spacing_s()))
    } else {
        format!("uneven, {} s in the median", round(times.median_spacing_s()))
    };
    let reference = match times.reference().as_str() {
        "unknown" => "frame start or centre: unknown",
        known => known,
    };
    format!(
        "{} to {} s, {spacing}; from {}; {reference}",
        round(times.first_s()),
        round(times.last_s()),
        times.origin()
    )
}

fn baseline(record: &RunRecord) -> String {
    let how = match find(&record.settings, "baseline") {
        Some(SettingValue::Text(text)) if text == "auto" => "automatic: before the mean curve rises",
        _ => "given",
    };
    match find(&record.settings, "baseline_frames") {
        Some(SettingValue::List(frames)) => match frames.as_slice() {
            [SettingValue::Number(from), SettingValue::Number(to)] => {
                format!("frames {from} to {} of {}, counted from 0 ({how})", to - 1.0, record.shape[3])
            }
            _ => how.into(),
        },
        _ => how.into(),
    }
}

fn onset(record: &RunRecord) -> String {
    let text = |name: &str| match find(&record.settings, name) {
        Some(SettingValue::Text(text)) => text.clone(),
        Some(SettingValue::Number(number)) => format!("{} s after the first frame", round(*number)),
        _ => "not needed".into(),
    };
    format!("{} per {}; global: {}", text("onset"), text("onset_scope"), text("global_onset_s"))
        .replace("per global", "for all voxels")
}

/// Three decimals, without zeros at the end.
pub(crate) fn round(number: f64) -> String {
    let text = format!("{number:.3}");
    text.trim_end_matches('0').trim_end_matches('.').into()
}
