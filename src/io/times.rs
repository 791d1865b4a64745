//! The time axis of a series: from the caller, else from the BIDS sidecar, else from the header.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::header::Header;
use super::names;
use super::options::GivenTimes;
use crate::error::{Error, Result};
use crate::time::{FrameReference, TimeAxis};

/// Frame spacings in seconds that a dynamic contrast series can have. Shorter ones are the repetition time of the pulse,
/// longer ones have lost their unit.
const PLAUSIBLE_SPACING_S: std::ops::RangeInclusive<f64> = 0.05..=120.0;
/// An offset of the first frame beyond this is not a time of a scan.
const LARGEST_OFFSET_S: f64 = 1e6;
/// No sidecar or list of times is longer.
const LARGEST_TEXT_BYTES: u64 = 1 << 26;

const MEND: &str = "give the frame spacing in seconds (--dt SECONDS in the examples, ReadOptions::frame_spacing_s in the library) or the time of every frame (--times FILE, ReadOptions::times_file)";

/// What the header says about time.
pub(super) struct HeaderTime {
    frames: usize,
    spacing: f64,
    offset: f64,
    unit: u8,
}

impl HeaderTime {
    pub(super) fn new(header: &Header, frames: usize) -> Self {
        Self {
            frames,
            spacing: as_meant(header.frame_spacing),
            offset: as_meant(header.time_offset),
            unit: header.time_unit,
        }
    }

    fn unit_name(&self) -> String {
        match self.unit {
            0 => "an unknown unit".into(),
            8 => "s".into(),
            16 => "ms".into(),
            24 => "us".into(),
            32 => "Hz".into(),
            40 => "ppm".into(),
            48 => "rad/s".into(),
            other => format!("unit code {other}"),
        }
    }

    /// Seconds per unit; unknown units count as seconds.
    fn unit_s(&self) -> Option<f64> {
        match self.unit {
            0 | 8 => Some(1.0),
            16 => Some(1e-3),
            24 => Some(1e-6),
            _ => None,
        }
    }
}

/// Headers hold 32-bit floats: the shortest decimal that reads back the same is what was meant, 0.1 and not
/// 0.10000000149.
fn as_meant(value: f64) -> f64 {
    let short = value as f32;
    if f64::from(short) == value { short.to_string().parse().unwrap_or(value) } else { value }
}

/// Finds the times of a series named `path`. `sidecar` is false where nothing can lie beside it.
pub(super) fn time_axis(
    given: Option<&GivenTimes>,
    path: &Path,
    sidecar: bool,
    header: &HeaderTime,
    warnings: &mut Vec<String>,
) -> Result<TimeAxis> {
    if let Some(given) = given {
        return from_caller(given, path, header.frames);
    }
    let mut found = Vec::new();
    if sidecar && let Some(times) = from_sidecar(path, header, &mut found, warnings)? {
        return Ok(times);
    }
    from_header(path, header, &mut found, warnings)?.ok_or_else(|| Error::Time {
        what: path.display().to_string(),
        found: found.join("; "),
        mend: MEND.into(),
    })
}

fn from_caller(given: &GivenTimes, path: &Path, frames: usize) -> Result<TimeAxis> {
    match given {
        GivenTimes::SpacingS(spacing) => {
            if !(spacing.is_finite() && *spacing > 0.0) {
                let mend = "give a positive number of seconds between frames (--dt SECONDS in the examples)";
                return Err(Error::setting("frame_spacing_s", spacing, mend));
            }
            Ok(TimeAxis::uniform(*spacing, frames)?
                .with_origin(format!("frame spacing of {spacing} s given by the caller")))
        }
        GivenTimes::File(file) => {
            let times = read_times(file)?;
            check_count(times.len(), frames, &file.display().to_string(), path)?;
            let axis = TimeAxis::from_seconds(times).map_err(|e| named(e, &file.display().to_string()))?;
            Ok(axis.with_origin(format!("times of {}, given by the caller", file_name(file))))
        }
        GivenTimes::Axis(axis) => {
            check_count(axis.len(), frames, "the times given by the caller", path)?;
            Ok(axis.clone())
        }
    }
}

/// Says where unusable times come from.
fn named(error: Error, what: &str) -> Error {
    match error {
        Error::Time { found, mend, .. } => Error::Time { what: what.into(), found, mend },
        other => other,
    }
}

fn check_count(times: usize, frames: usize, what: &str, series: &Path) -> Result<()> {
    if times == frames {
        return Ok(());
    }
    Err(Error::mismatch(what, series.display().to_string(), format!("{times} times for {frames} frames")))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn read_text(path: &Path) -> Result<String> {
    let file = File::open(path).map_err(|e| Error::io("read", path, e))?;
    let mut bytes = Vec::new();
    file.take(LARGEST_TEXT_BYTES + 1).read_to_end(&mut bytes).map_err(|e| Error::io("read", path, e))?;
    if bytes.len() as u64 > LARGEST_TEXT_BYTES {
        return Err(Error::file(path, "the file", "longer than 64 MiB", "give a text file with times"));
    }
    String::from_utf8(bytes).map_err(|_| Error::file(path, "the file", "not UTF-8 text", "give a text file"))
}

fn read_times(path: &Path) -> Result<Vec<f64>> {
    let text = read_text(path)?;
    let mut times = Vec::new();
    for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let value = line.split('#').next().unwrap_or("").trim();
        if value.is_empty() {
            continue;
        }
        match value.parse::<f64>() {
            Ok(time) if time.is_finite() => times.push(time),
            _ => {
                let mend = "write one time in seconds on each line; comments start with #";
                return Err(Error::file(path, format!("line {}", number + 1), format!("{value:?}"), mend));
            }
        }
    }
    Ok(times)
}

fn from_sidecar(
    image: &Path,
    header: &HeaderTime,
    found: &mut Vec<String>,
    warnings: &mut Vec<String>,
) -> Result<Option<TimeAxis>> {
    let path: PathBuf = names::beside(image, ".json");
    let name = file_name(&path);
    if !path.is_file() {
        found.push(format!("no sidecar {name}"));
        return Ok(None);
    }
    let json: Value = match read_text(&path).map(|text| serde_json::from_str(text.trim_start_matches('\u{feff}'))) {
        Ok(Ok(json)) => json,
        Ok(Err(e)) => return unreadable(&name, &e.to_string(), found, warnings),
        Err(e) => return unreadable(&name, &e.to_string(), found, warnings),
    };
    for key in ["VolumeTiming", "FrameTimesStart"] {
        if let Some(value) = json.get(key) {
            return listed_times(value, key, &path, image, header.frames).map(Some);
        }
        found.push(format!("{name} has no {key}"));
    }
    match json.get("RepetitionTime") {
        None => found.push(format!("{name} has no RepetitionTime")),
        Some(value) => match value.as_f64() {
            Some(spacing) if PLAUSIBLE_SPACING_S.contains(&spacing) => {
                warn_of_contradiction(spacing, &name, header, warnings);
                let origin = format!("RepetitionTime = {spacing} s of {name}");
                let axis = TimeAxis::uniform(spacing, header.frames).map_err(|e| named(e, &origin))?;
                return Ok(Some(axis.with_origin(origin)));
            }
            Some(other) => {
                let note = format!(
                    "{name} has RepetitionTime = {other} s, which is no frame spacing (0.05 to 120 s) but may be that of the pulse"
                );
                warnings.push(format!("{note}; it isn't used"));
                found.push(note);
            }
            None => {
                let note = format!("{name} has RepetitionTime = {value}, which is not a number");
                warnings.push(format!("{note}; it isn't used"));
                found.push(note);
            }
        },
    }
    Ok(None)
}

fn unreadable(name: &str, why: &str, found: &mut Vec<String>, warnings: &mut Vec<String>) -> Result<Option<TimeAxis>> {
    let note = format!("sidecar {name} can't be read ({why})");
    warnings.push(format!("{note}; it isn't used"));
    found.push(note);
    Ok(None)
}

/// `VolumeTiming` or `FrameTimesStart`: one number per frame, or an error, because a wrong list must not be passed over.
fn listed_times(value: &Value, key: &str, path: &Path, image: &Path, frames: usize) -> Result<TimeAxis> {
    let wrong = |value: &Value| {
        let mend =
            "the sidecar should list the time of every frame in seconds; mend it, or give the times (--times FILE)";
        let mut text = value.to_string();
        if text.chars().count() > 60 {
            text = text.chars().take(60).chain("...".chars()).collect();
        }
        Error::file(path, key, text, mend)
    };
    let list = value.as_array().ok_or_else(|| wrong(value))?;
    let times: Vec<f64> = list.iter().map(|time| time.as_f64().ok_or_else(|| wrong(time))).collect::<Result<_>>()?;
    let what = format!("{key} of {}", path.display());
    check_count(times.len(), frames, &what, image)?;
    let axis = TimeAxis::from_seconds(times).map_err(|e| named(e, &what))?;
    let spacing = axis.median_spacing_s();
    if !PLAUSIBLE_SPACING_S.contains(&spacing) {
        return Err(Error::Time {
            what: image.display().to_string(),
            found: format!("{what} has frames {spacing} s apart (median), expected 0.05 to 120 s"),
            mend: MEND.into(),
        });
    }
    Ok(axis.with_reference(FrameReference::Start).with_origin(format!("{key} of {}", file_name(path))))
}

fn warn_of_contradiction(spacing: f64, name: &str, header: &HeaderTime, warnings: &mut Vec<String>) {
    let Some(unit_s) = header.unit_s() else { return };
    let other = header.spacing * unit_s;
    if PLAUSIBLE_SPACING_S.contains(&other) && (other - spacing).abs() > 0.01 * spacing {
        warnings.push(format!(
            "{name} has RepetitionTime = {spacing} s but pixdim[4] is {} {}; the sidecar is believed",
            header.spacing,
            header.unit_name()
        ));
    }
}

fn from_header(
    path: &Path,
    header: &HeaderTime,
    found: &mut Vec<String>,
    warnings: &mut Vec<String>,
) -> Result<Option<TimeAxis>> {
    let shown = format!("pixdim[4] = {} {}", header.spacing, header.unit_name());
    let Some(unit_s) = header.unit_s() else {
        found.push(format!("{shown}, which is no time"));
        return Ok(None);
    };
    let spacing = header.spacing * unit_s;
    if !PLAUSIBLE_SPACING_S.contains(&spacing) {
        let as_seconds = if header.unit == 0 { ", taken as seconds" } else { "" };
        found.push(format!("{shown}{as_seconds}, which is no frame spacing (0.05 to 120 s)"));
        return Ok(None);
    }
    if header.unit == 0 {
        warnings.push(format!("{shown} (xyzt_units doesn't say); taken as seconds"));
    }
    let mut first = header.offset * unit_s;
    if !(first.is_finite() && first.abs() <= LARGEST_OFFSET_S) {
        warnings.push(format!("toffset is {}, no time of a scan; the first frame counts as 0 s", header.offset));
        first = 0.0;
    }
    let origin = format!("{shown} of {}", file_name(path));
    let times = (0..header.frames).map(|frame| first + frame as f64 * spacing).collect();
    Ok(Some(TimeAxis::from_seconds(times).map_err(|e| named(e, &origin))?.with_origin(origin)))
}
