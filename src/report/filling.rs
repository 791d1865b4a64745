//! The page on how a lesion fills.

use std::fmt::Write;
use std::ops::Range as Frames;
use std::path::Path;

use rayon::prelude::*;

use super::filling_charts as charts;
use super::filling_tables as tables;
use super::html::{data_address, escaped, figure, page, table};
use crate::analysis::filling::FillingReport;
use crate::error::Result;
use crate::kernels::descriptors::Polarity;
use crate::maps::SettingValue;
use crate::quantity::Quantity;
use crate::render::picture::write_whole;
use crate::render::{Cine, Colormap, Picture, Plane, Range, Sections};
use crate::series::{Mask, Series};

/// The report of an analysis of filling as one HTML file: the description in words, the cine, maps of filling time, depth,
/// cosine and local speed in three planes, charts (curves of the shells, filled fraction, arrival and speed against distance
/// with their intervals), the measures with their intervals, settings and provenance.
///
/// Everything is inside the file: nothing is loaded from elsewhere. Whatever comes from files (names, warnings) is escaped;
/// of paths only the last part is shown.
///
/// ```
/// use perfuse::analysis::filling::FillingPattern;
/// use perfuse::phantom::filling::{FillingPhantom, Pattern};
/// use perfuse::report::FillingPage;
/// use perfuse::{Engine, RunOptions};
/// let phantom = FillingPhantom::ball(5.0, [1.0; 3]).pattern(Pattern::Centrifugal).build()?;
/// let report = FillingPattern::new().run(&Engine::cpu(), &phantom.series, &phantom.lesion, &RunOptions::new())?;
/// let html = FillingPage::new(&report, &phantom.series, &phantom.lesion).date("2026-01-31").html()?;
/// assert!(html.starts_with("<!DOCTYPE html>") && html.contains("2026-01-31"));
/// # Ok::<(), perfuse::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct FillingPage<'a> {
    pub(super) report: &'a FillingReport,
    pub(super) series: &'a Series,
    pub(super) lesion: &'a Mask,
    title: String,
    pub(super) date: Option<String>,
    pub(super) notes: Vec<(String, String)>,
    cine: Option<(Vec<u8>, Picture)>,
    pictures: bool,
    planes: Vec<Plane>,
}

impl<'a> FillingPage<'a> {
    /// A page on a report, with the series and the lesion that it was made of.
    pub fn new(report: &'a FillingReport, series: &'a Series, lesion: &'a Mask) -> Self {
        let name = file_name(series.source());
        Self {
            report,
            series,
            lesion,
            title: name.map_or("How the lesion fills".into(), |name| format!("How the lesion fills: {name}")),
            date: None,
            notes: Vec::new(),
            cine: None,
            pictures: true,
            planes: Plane::ALL.to_vec(),
        }
    }

    /// The page's title.
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.title = title.into();
        self
    }

    /// When the report was made, as it shall stand there; nothing is said unless told.
    pub fn date(mut self, date: impl Into<String>) -> Self {
        self.date = Some(date.into());
        self
    }

    /// A further line of the provenance.
    pub fn note(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.notes.push((name.into(), value.into()));
        self
    }

    /// The cine as GIF, and one of its frames for paper and for those who don't want moving pictures.
    pub fn cine(mut self, gif: Vec<u8>, still: Picture) -> Self {
        self.cine = Some((gif, still));
        self
    }

    /// Whether maps are drawn (they are unless told).
    pub fn pictures(mut self, wanted: bool) -> Self {
        self.pictures = wanted;
        self
    }

    /// Which planes the maps show (all three unless told).
    pub fn planes(mut self, planes: &[Plane]) -> Self {
        self.planes = planes.to_vec();
        self
    }

    /// A cine of the series with this report's filling times as isochrones and its origin as mark, to be changed further.
    /// The lines are left out where the arrivals of the lesion span less than four of their standard errors: they would
    /// draw noise.
    pub fn film_settings(&self) -> Cine<'a> {
        let report = self.report;
        let falls = report
            .settings
            .iter()
            .any(|(name, value)| name == "polarity" && *value == SettingValue::Text(Polarity::Fall.as_str().into()));
        let mut cine = Cine::new(self.series, self.lesion, baseline_frames(report))
            .polarity(if falls { Polarity::Fall } else { Polarity::Rise })
            .unit(report.unit)
            .planes(&self.planes)
            .title(file_name(self.series.source()).unwrap_or_default());
        let arrivals = arrivals(report, &Quantity::FRONT_ARRIVAL.id);
        let span = match arrivals.len() {
            0 => 0.0,
            n => f64::from(arrivals[n - 1 - n / 20] - arrivals[n / 20]),
        };
        // The analysis has smoothed these already, each by its error.
        if let Ok(times) = report.maps.get("smoothed_arrival")
            && span >= 4.0 * report.arrival_se_s
        {
            cine = cine.filling_time(times).isochrone_smoothing(0.0);
        }
        match self.origin() {
            Some(voxel) => cine.mark(voxel),
            None => cine,
        }
    }

    /// The whole page.
    ///
    /// # Errors
    /// Those of [`Sections::render`].
    pub fn html(&self) -> Result<String> {
        let report = self.report;
        let mut body = format!("<h1>{}</h1>\n", escaped(&self.title));
        let software = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"));
        let date = self.date.as_ref().map_or(String::new(), |date| format!(", {date}"));
        let _ = writeln!(
            body,
            "<p class=\"faint\">{}</p>",
            escaped(&format!("Made by {software}{date}. For research, not for diagnosis."))
        );

        let words = &report.description;
        body += "<section class=\"words\" aria-label=\"Description\">\n";
        for sentence in [&words.origin, &words.direction, &words.speed, &words.extent] {
            let _ = writeln!(body, "<p>{}</p>", escaped(sentence));
        }
        let _ = writeln!(body, "<p class=\"caution\">{}</p>\n</section>", escaped(words.caution));

        if let Some((gif, still)) = &self.cine {
            let alt = "Cine of the series in planes through the lesion: enhancement in colour on the grey image, the lesion \
                       outlined, lines of equal filling time appearing as the front passes.";
            body += "<h2>Cine</h2>\n";
            let (width, height) = (still.width(), still.height());
            let image = |class: &str, address: String| {
                format!(
                    "<img class=\"{class}\" width=\"{width}\" height=\"{height}\" alt=\"{}\" src=\"{address}\">",
                    escaped(alt)
                )
            };
            let both = image("moving", data_address("image/gif", gif))
                + &image("still", data_address("image/png", &still.png()?));
            body += &figure(
                "wide",
                &both,
                "Enhancement over the baseline in colour, the image in grey where there is none. Lines of equal filling time \
                 (smoothed) are drawn where arrivals differ by more than noise. Below: the lesion's mean enhancement.",
            );
        }
        if self.pictures {
            body += "<h2>Maps</h2>\n<div class=\"pair\">\n";
            body += &self.maps()?;
            body += "</div>\n";
        }
        body += "<h2>Charts</h2>\n<div class=\"pair\">\n";
        body += &charts::all(report);
        body += "</div>\n<h2>Measures</h2>\n";
        body += &tables::measures(report);
        body += "<h2>Shells</h2>\n";
        body += &tables::shells(report);
        body += "<h2>Settings</h2>\n";
        body += &table("", "Everything that was chosen or decided", &["setting", "value"], &tables::settings(report));
        body += "<h2>Provenance</h2>\n";
        body += &table("", "What was analysed, with what", &["what", "value"], &tables::provenance(self));
        Ok(page(&self.title, &body))
    }

    /// Writes the page; the file appears whole or not at all and replaces one that is there.
    ///
    /// # Errors
    /// Those of [`html`](Self::html); [`Error::Io`](crate::Error::Io) if the file can't be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        write_whole(path.as_ref(), self.html()?.as_bytes())
    }

    /// The voxel nearest to the origin.
    fn origin(&self) -> Option<[usize; 3]> {
        let origin = self.report.origin.as_ref().ok()?;
        let shape = self.series.spatial_shape();
        Some(std::array::from_fn(|axis| (origin.voxel[axis].round().max(0.0) as usize).min(shape[axis] - 1)))
    }

    fn maps(&self) -> Result<String> {
        let last = self.series.mean_of_frames(&[self.series.frames() - 1])?;
        let maps = &self.report.maps;
        let drawn: Vec<String> = charts::MAPS
            .par_iter()
            .filter_map(|(id, caption)| Some((maps.map(id).ok()?, maps.get(id).ok()?, *caption)))
            .map(|(map, values, caption)| {
                let mut sections = Sections::new(values, self.series.geometry(), self.lesion)
                    .quantity(&map.quantity)
                    .unit(map.unit.clone())
                    .planes(&self.planes)
                    .underlay(last.view());
                if map.quantity.id.ends_with("cosine") {
                    sections = sections.colormap(Colormap::Diverging).range(Range::Fixed(-1.0, 1.0));
                }
                if let Some(voxel) = self.origin() {
                    sections = sections.mark(voxel);
                }
                let picture = sections.render()?;
                let image = format!(
                    "<img width=\"{}\" height=\"{}\" alt=\"{}\" src=\"{}\">",
                    picture.width(),
                    picture.height(),
                    escaped(&format!("Map in planes through the lesion. {caption}")),
                    data_address("image/png", &picture.png()?)
                );
                Ok(figure("map", &image, caption))
            })
            .collect::<Result<_>>()?;
        Ok(drawn.concat())
    }
}

/// The frames before the lesion begins to fill: those before the earliest arrival of the front less two of the arrivals'
/// standard errors, one frame less for safety, at least one; without any arrival the first tenth.
pub fn baseline_frames(report: &FillingReport) -> Frames<usize> {
    let times = &report.times_s;
    let before = match earliest_arrival(report) {
        Some(first) => times.partition_point(|t| *t < first - 2.0 * report.arrival_se_s).saturating_sub(1),
        None => times.len() / 10,
    };
    0..before.clamp(1, times.len() - 1)
}

/// The earliest arrival among the voxels whose surroundings fill early, too (the earliest twentieth of the smoothed ones): a
/// voxel whose fit went astray elsewhere doesn't decide for all. The smoothed arrivals themselves are too late where a front
/// starts from a point.
fn earliest_arrival(report: &FillingReport) -> Option<f64> {
    let smoothed = arrivals(report, "smoothed_arrival");
    let limit = *smoothed.get(smoothed.len() / 20)?;
    let (own, smooth) = (report.maps.get(Quantity::FRONT_ARRIVAL).ok()?, report.maps.get("smoothed_arrival").ok()?);
    let early = own.iter().zip(smooth.iter()).filter(|(own, smooth)| own.is_finite() && **smooth <= limit);
    early.map(|(own, _)| f64::from(*own)).reduce(f64::min)
}

/// All values of a map of arrivals, in order.
fn arrivals(report: &FillingReport, id: &str) -> Vec<f32> {
    let mut arrivals: Vec<f32> = match report.maps.get(id) {
        Ok(map) => map.iter().copied().filter(|t| t.is_finite()).collect(),
        Err(_) => Vec::new(),
    };
    arrivals.sort_by(f32::total_cmp);
    arrivals
}

/// The last part of a path: folders name people and machines.
pub(super) fn file_name(path: Option<&Path>) -> Option<String> {
    path.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned())
}
