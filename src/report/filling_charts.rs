//! The charts on how a lesion fills, and which maps are shown.

use super::chart::{Axis, COLORS, Chart};
use super::html::figure;
use crate::analysis::filling::FillingReport;
use crate::analysis::filling::report::Shell;
use crate::render::ticks;

/// The maps of the page, where the report has them, with what they show.
pub(super) const MAPS: [(&str, &str); 8] = [
    ("front_arrival", "Filling time: the fitted arrival of the front, on the series' clock. Cross: origin."),
    (
        "level_crossing",
        "Filling time: when the common level is crossed, on the series' clock; grey where it isn't reached.",
    ),
    ("depth", "Depth: distance from the lesion's surface."),
    ("base_distance", "Length of the shortest path inside the lesion from its base."),
    (
        "outward_cosine",
        "Local direction: cosine between the gradient of the smoothed filling time and the outward direction; +1 fills outward, −1 inward. For display.",
    ),
    ("base_cosine", "Local direction: the same away from the base. For display."),
    (
        "local_speed",
        "Local apparent speed. For display only: noise biases it low; the speed with an interval is in the table.",
    ),
    ("front_arrival_se", "Standard error of the fitted arrival."),
];

/// All charts.
pub(super) fn all(report: &FillingReport) -> String {
    let mut out = String::new();
    out += &curves(report);
    out += &filled(report);
    out += &arrivals("a", "Arrival by distance from the centre", "distance from the centre", &report.shells);
    if !report.base_shells.is_empty() {
        out += &arrivals("b", "Arrival by distance from the base", "distance from the base", &report.base_shells);
    }
    out += &speed(report);
    out
}

fn span(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.filter(|v| v.is_finite()).fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)))
}

/// A little more than the values take.
fn roomy((low, high): (f64, f64)) -> (f64, f64) {
    let room = 0.06 * (high - low).max(1e-9 * low.abs().max(high.abs()));
    // Distances begin at 0.
    (if low >= 0.0 { (low - room).max(0.0) } else { low - room }, high + room)
}

fn time_name(report: &FillingReport) -> &'static str {
    let last = report.times_s.last().copied().unwrap_or(0.0);
    if ticks::clock_style(last) == ticks::ClockStyle::Seconds { "time (s)" } else { "time (m:ss)" }
}

fn time_span(report: &FillingReport) -> (f64, f64) {
    span(report.times_s.iter().copied())
}

fn curves(report: &FillingReport) -> String {
    let shells = &report.shells;
    if shells.is_empty() {
        return String::new();
    }
    let (low, high) = span(shells.iter().flat_map(|shell| shell.curve.iter().copied()));
    let mut chart =
        Chart::new("curves", "Mean enhancement of the shells", time_span(report), roomy((low.min(0.0), high)))
            .x_axis(time_name(report), Axis::Time)
            .y_axis(&format!("enhancement ({})", ticks::unit(report.unit)), Axis::Number);
    let color_of = |i: usize| i * COLORS / shells.len().max(COLORS);
    for (i, shell) in shells.iter().enumerate() {
        let color = color_of(i);
        let points: Vec<(f64, f64)> = report.times_s.iter().copied().zip(shell.curve.iter().copied()).collect();
        chart.curve(color, &points);
    }
    // Where there are more shells than colours, neighbours share one.
    let numbers: Vec<usize> = (0..shells.len()).collect();
    for alike in numbers.chunk_by(|a, b| color_of(*a) == color_of(*b)) {
        let (from, to) = (shells[alike[0]].from_mm, shells[alike[alike.len() - 1]].to_mm);
        chart.legend(color_of(alike[0]), &format!("{} to {} mm", ticks::number(from), ticks::number(to)));
    }
    let last = |shell: &Shell| ticks::number(shell.curve.last().copied().unwrap_or(f64::NAN));
    let description = format!(
        "{} curves of mean enhancement against time; at the end {} in the innermost shell and {} in the outermost.",
        shells.len(),
        last(&shells[0]),
        last(&shells[shells.len() - 1])
    );
    figure(
        "chart",
        &chart.svg(&description),
        "Shells of equal volume, by distance from the lesion's centre (its innermost depth) outward.",
    )
}

fn filled(report: &FillingReport) -> String {
    let filled: Vec<(f64, f64)> = report.extent.filled.iter().map(|(t, share)| (*t, 100.0 * share)).collect();
    let mut chart = Chart::new("filled", "Filled fraction", time_span(report), (0.0, 100.0))
        .x_axis(time_name(report), Axis::Time)
        .y_axis("filled (%)", Axis::Number);
    chart.curve(1, &filled);
    let last = filled.last().map_or(f64::NAN, |(_, share)| *share);
    let description = format!("The filled share of the lesion against time; at the end {} %.", ticks::number(last));
    figure(
        "chart",
        &chart.svg(&description),
        "The share of the lesion's usable volume that has reached the common level.",
    )
}

fn arrivals(identifier: &str, title: &str, distance: &str, shells: &[Shell]) -> String {
    if shells.is_empty() {
        return String::new();
    }
    let reach = span(shells.iter().flat_map(|shell| [shell.from_mm, shell.to_mm]));
    let times = span(shells.iter().flat_map(|shell| shell.arrival_quartiles_s));
    let axis = if ticks::clock_style(times.1) == ticks::ClockStyle::Seconds { "arrival (s)" } else { "arrival (m:ss)" };
    let mut chart = Chart::new(identifier, title, roomy(reach), roomy(times))
        .x_axis(&format!("{distance} (mm)"), Axis::Number)
        .y_axis(axis, Axis::Time);
    let middle = |shell: &Shell| 0.5 * (shell.from_mm + shell.to_mm);
    let medians: Vec<(f64, f64)> = shells
        .iter()
        .map(|shell| (middle(shell), Some(shell.arrival_quartiles_s[1]).filter(|t| t.is_finite()).unwrap_or(f64::NAN)))
        .collect();
    chart.curve(1, &medians);
    for shell in shells {
        chart.whisker(1, middle(shell), shell.arrival_quartiles_s);
    }
    let median = |shell: &Shell| ticks::number(shell.arrival_quartiles_s[1]);
    let description = format!(
        "Median arrival of the front by {distance}: {} s in the nearest shell, {} s in the farthest.",
        median(&shells[0]),
        median(&shells[shells.len() - 1])
    );
    figure(
        "chart",
        &chart.svg(&description),
        "Median and quartiles of the shells; voxels that don't enhance count as later than all, so that a bar without an upper end goes through the frame.",
    )
}

/// Without a direction a speed has no meaning, whatever a fit gives.
pub(super) fn directed(report: &FillingReport) -> bool {
    report.outward.sign != 0 || report.from_base.is_some_and(|base| base.sign != 0)
}

fn speed(report: &FillingReport) -> String {
    let Some(speed) = &report.speed else {
        return "<p>Speed against distance: undetermined, too few voxels enhance.</p>\n".into();
    };
    let points = &speed.by_distance;
    if !directed(report) {
        return "<p>Speed against distance: undetermined, as no direction is determined.</p>\n".into();
    }
    if points.is_empty() {
        return String::new();
    }
    let finite =
        span(points.iter().flat_map(|at| [at.speed_mm_per_s, at.interval_mm_per_s[0], at.interval_mm_per_s[1]]));
    let typical = speed.median_mm_per_s.unwrap_or(f64::INFINITY);
    let top = (1.08 * finite.1).min(6.0 * typical);
    let reach = span(points.iter().map(|at| at.distance_mm));
    let mut chart = Chart::new("speed", "Apparent front speed by distance", roomy(reach), (0.0, top))
        .x_axis("distance (mm)", Axis::Number)
        .y_axis("speed (mm/s)", Axis::Number);
    chart.band(
        1,
        &points.iter().map(|at| (at.distance_mm, at.interval_mm_per_s[0], at.interval_mm_per_s[1])).collect::<Vec<_>>(),
    );
    chart.curve(1, &points.iter().map(|at| (at.distance_mm, at.speed_mm_per_s)).collect::<Vec<_>>());
    for at in points {
        chart.dot(1, at.distance_mm, at.speed_mm_per_s);
    }
    let (first, last) = (points[0], points[points.len() - 1]);
    let description = format!(
        "Apparent speed {} mm/s at {} mm and {} mm/s at {} mm, with its interval as a band.",
        ticks::number(first.speed_mm_per_s),
        ticks::number(first.distance_mm),
        ticks::number(last.speed_mm_per_s),
        ticks::number(last.distance_mm)
    );
    let caption = format!(
        "Distance: {}. The band is the interval, through the frame where it has no upper end.",
        speed.path.as_str()
    );
    figure("chart", &chart.svg(&description), &caption)
}
