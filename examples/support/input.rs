//! The series and its mask, from files or from the phantom.

use std::sync::Arc;
use std::time::Instant;

use perfuse::phantom::Phantom;
use perfuse::{Engine, Mask, Result, Series, StageTime};

use super::arguments::{Device, Region, Source, Times};
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
        times: &Times,
        region: &Region,
        bars: Bars,
    ) -> Result<(Engine, Self)> {
        let (engine, input) = rayon::join(|| device.engine(), || Self::load(source, times, region, bars));
        Ok((engine?, input?))
    }

    /// Reads the series and the mask, and checks that they lie on one grid.
    pub(crate) fn load(source: &Source, times: &Times, region: &Region, bars: Bars) -> Result<Self> {
        let mut input = match &source.series {
            Some(path) => {
                let bar = bars.bytes("reading");
                let options = times.options().progress(Arc::new(bar.teller()));
                let (series, report) = Series::open_with_report(path, &options)?;
                let read = StageTime {
                    stage: if report.compressed { "read and inflate" } else { "read" }.into(),
                    seconds: report.read_inflate_seconds,
                    bytes: report.data_bytes,
                };
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
        for warning in input.series.warnings() {
            eprintln!("warning: {warning}");
        }
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
