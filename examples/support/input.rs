//! The series and its mask, from files or from the phantom.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use perfuse::io::ReadOptions;
use perfuse::phantom::Phantom;
use perfuse::{Engine, Mask, Result, Series, StageTime};

use super::arguments::{Device, Region, Source};
use super::progress::Bars;

/// What a program works on.
pub(crate) struct Input {
    pub(crate) series: Series,
    /// Where to look; everywhere if there is none.
    pub(crate) mask: Option<Mask>,
    /// What to outline in pictures.
    pub(crate) outline: Option<Mask>,
    /// What reading took.
    pub(crate) read: StageTime,
}

impl Input {
    /// Opens the device while the series is read.
    pub(crate) fn load_beside(
        device: &Device,
        source: &Source,
        options: ReadOptions,
        region: &Region,
        bars: Bars,
    ) -> Result<(Engine, Self)> {
        let (engine, input) = rayon::join(|| device.engine(), || Self::load(source, options, region, bars));
        Ok((engine?, input?))
    }

    /// Reads the series and the mask, and checks that they lie on one grid.
    pub(crate) fn load(source: &Source, options: ReadOptions, region: &Region, bars: Bars) -> Result<Self> {
        let mut input = match &source.series {
            Some(path) => {
                let (series, read) = open_series(path, options, bars)?;
                Self { series, mask: None, outline: None, read }
            }
            None => Self::phantom(&Phantom::brain_with_lesion())?,
        };
        if let Some(path) = &region.mask {
            let mask = Mask::open(path)?;
            mask.check_matches(&input.series)?;
            input.outline = Some(mask.clone());
            input.mask = Some(mask);
        }
        warn(&input.series);
        Ok(input)
    }

    /// A phantom: all of the head is analysed, tissue by tissue; the lesion is outlined.
    pub(crate) fn phantom(settings: &Phantom) -> Result<Self> {
        let start = Instant::now();
        let phantom = settings.build()?;
        let read = StageTime { stage: "phantom".into(), seconds: start.elapsed().as_secs_f64(), bytes: 0 };
        Ok(Self { series: phantom.series, mask: Some(phantom.labels), outline: Some(phantom.lesion), read })
    }
}

/// Reads a series, and shows how far that is.
pub(crate) fn open_series(path: &Path, options: ReadOptions, bars: Bars) -> Result<(Series, StageTime)> {
    let bar = bars.bytes("reading");
    let options = options.progress(Arc::new(bar.teller()));
    let (series, report) = Series::open_with_report(path, &options)?;
    Ok((series, report.stage()))
}

/// Says what was doubtful about a series.
pub(crate) fn warn(series: &Series) {
    for warning in series.warnings() {
        eprintln!("warning: {warning}");
    }
}
