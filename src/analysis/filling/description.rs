//! The pattern in words and numbers: what its intervals carry, and "undetermined" where they don't.

use super::report::{Direction, Extent, FrontSpeed, NoOrigin, Origin, SpeedTrend};

/// Short sentences about one lesion, each with its number and interval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Where filling begins.
    pub origin: String,
    /// Which way it goes.
    pub direction: String,
    /// How fast, and whether that changes.
    pub speed: String,
    /// How much enhances, and whether it is still rising when the series ends.
    pub extent: String,
    /// What this is not.
    pub caution: &'static str,
}

impl Description {
    /// All sentences.
    pub fn text(&self) -> String {
        [&self.origin, &self.direction, &self.speed, &self.extent, self.caution].join(" ")
    }
}

/// What every description says of itself.
const CAUTION: &str = "This describes how contrast agent fills the lesion; it is not a diagnosis.";

/// What the sentences are made of.
pub(super) struct Facts<'a> {
    pub(super) origin: &'a Result<Origin, NoOrigin>,
    pub(super) outward: &'a Direction,
    pub(super) from_base: Option<&'a Direction>,
    pub(super) speed: Option<&'a FrontSpeed>,
    pub(super) extent: &'a Extent,
    pub(super) span_s: Option<f64>,
    pub(super) progressive: bool,
    pub(super) confidence: f64,
}

pub(super) fn describe(facts: &Facts<'_>) -> Description {
    Description {
        origin: origin(facts),
        direction: direction(facts),
        speed: speed(facts),
        extent: extent(facts),
        caution: CAUTION,
    }
}

fn origin(facts: &Facts<'_>) -> String {
    match facts.origin {
        Ok(origin) => {
            // Adding 0 takes the sign off a zero.
            let [x, y, z] = origin.world_mm.map(|x| (10.0 * x).round() / 10.0 + 0.0);
            let several = match origin.others_world_mm.len() {
                0 => "one origin".to_string(),
                others => format!("{} origins, the largest", others + 1),
            };
            let place = origin.place.as_str();
            format!(
                "Origin: {several} at the {place}, ({x:.1}, {y:.1}, {z:.1}) mm, {:.1} mm below the surface, within {:.1} mm.",
                origin.depth_mm, origin.region_radius_mm
            )
        }
        Err(NoOrigin::TooFewVoxels) => "Origin: undetermined (too few voxels enhance).".into(),
        Err(NoOrigin::Scattered { region_radius_mm, limit_mm }) => format!(
            "Origin: undetermined (the noise scatters it over {region_radius_mm:.1} mm; up to {limit_mm:.1} mm are accepted)."
        ),
    }
}

fn index(direction: &Direction, confidence: f64) -> String {
    let index = &direction.arrival;
    if index.value.is_nan() {
        return "too few voxels with a filling time".into();
    }
    format!("index {:+.2}, {:.0} % interval {:+.2} to {:+.2}", index.value, 100.0 * confidence, index.low, index.high)
}

fn direction(facts: &Facts<'_>) -> String {
    let numbers = index(facts.outward, facts.confidence);
    let mut text = match facts.outward.sign {
        1 => format!("Direction: centrifugal, from the centre outward ({numbers})"),
        -1 => format!("Direction: centripetal, from the rim inward ({numbers})"),
        _ => format!("Direction from the centre outward: undetermined ({numbers})"),
    };
    if let Some(base) = facts.from_base {
        let numbers = index(base, facts.confidence);
        text += &match base.sign {
            1 => format!("; from the base outward ({numbers})"),
            -1 => format!("; towards the base ({numbers})"),
            _ => format!("; from the base: undetermined ({numbers})"),
        };
    }
    text + "."
}

fn speed(facts: &Facts<'_>) -> String {
    // Without a direction a speed has no meaning, whatever a fit gives.
    let directed = facts.outward.sign != 0 || facts.from_base.is_some_and(|base| base.sign != 0);
    let Some(speed) = facts.speed else { return "Front speed: undetermined.".into() };
    let (Some(median), true) = (speed.median_mm_per_s, directed) else {
        let least = three_digits(speed.interval_mm_per_s[0]);
        return format!("Front speed: undetermined (at least {least} mm/s, no upper bound).");
    };
    let [low, high] = speed.interval_mm_per_s.map(three_digits);
    let median = three_digits(median);
    let [change_low, change_high] = speed.slowness_change_interval;
    let trend = match speed.trend {
        SpeedTrend::Decelerating => "decelerating",
        SpeedTrend::Accelerating => "accelerating",
        SpeedTrend::Undetermined => "trend undetermined",
    };
    format!(
        "Apparent front speed: {median} mm/s ({low} to {high}), {trend} on its way (slowness changes by {change_low:+.2} to {change_high:+.2} s/mm per mm)."
    )
}

/// Three digits: slow fronts move hundredths of a millimetre per second.
fn three_digits(value: f64) -> String {
    let decimals = if value > 0.0 { (2.0 - value.log10().floor()).clamp(0.0, 6.0) as usize } else { 2 };
    format!("{value:.decimals$}")
}

fn extent(facts: &Facts<'_>) -> String {
    let extent = facts.extent;
    let [low, high] = extent.enhancing_fraction_interval.map(|f| 100.0 * f);
    let part = if high < 95.0 {
        "partial"
    } else if low >= 95.0 {
        "the whole lesion"
    } else {
        "undetermined whether the whole lesion"
    };
    let course = if facts.progressive { ", progressive: still rising when the series ends" } else { "" };
    let span = facts.span_s.map_or(String::new(), |span| format!("; 90 % of it begins to fill within {span:.0} s"));
    format!(
        "Enhancement: {part}, {:.0} % of {:.2} mL ({low:.0} to {high:.0} %), of these {:.2} mL below the common level to the end{course}{span}.",
        100.0 * extent.enhancing_fraction,
        extent.lesion_ml,
        extent.partly_ml
    )
}
