//! From rows of words to maps with their record, and back to memory for the next run.

use ndarray::{Array3, Array4, ShapeBuilder};
use rayon::prelude::*;

use super::raw_rows::{Ran, RawRows};
use super::{Engine, NonFinite, RunOptions};
use crate::kernel::{OutputKind, Runnable};
use crate::maps::{Map, MapData, Maps, RunRecord, SettingValue, StageTime};
use crate::quantity::SignalKind;
use crate::series::{Mask, Series};
use crate::status;
use crate::time::{FrameReference, TimeAxis};

impl Engine {
    #[expect(clippy::too_many_arguments, reason = "everything that a record tells")]
    pub(super) fn assemble(
        &self,
        kernel: &str,
        kind: SignalKind,
        prepared: &dyn Runnable,
        series: &Series,
        options: &RunOptions<'_>,
        raw: RawRows,
        stages: Vec<StageTime>,
    ) -> Maps {
        let [x, y, z] = series.spatial_shape();
        let ran = raw.ran.unwrap_or_else(|| Ran {
            engine: self.name(),
            device: self.device.clone(),
            reason: self.reason.clone(),
        });
        let mut rows = raw.rows.into_iter();
        let mut maps = Vec::new();
        for output in prepared.outputs() {
            let data = match output.kind {
                OutputKind::Float => MapData::Float(volume((x, y, z), floats(rows.next()))),
                OutputKind::Label => MapData::Label(volume((x, y, z), rows.next().unwrap_or_default())),
                OutputKind::Curve(samples) => {
                    let joined: Vec<f32> = (0..samples).flat_map(|_| floats(rows.next())).collect();
                    let shape = (x, y, z, samples).f();
                    MapData::Curve(Array4::from_shape_vec(shape, joined).expect("as many words as the shape says"))
                }
            };
            maps.push(Map { unit: output.quantity.unit.text(kind), quantity: output.quantity.clone(), data });
        }
        let status: Array3<u32> = volume((x, y, z), rows.next().unwrap_or_default());
        let common = status::MEANINGS.iter().chain(prepared.status_meanings());
        let status_meanings: Vec<(u32, String)> = common.map(|(bit, text)| (*bit, (*text).to_string())).collect();
        let times = series.times().ok();
        let record = RunRecord {
            kernel: kernel.into(),
            engine: ran.engine.into(),
            device: ran.device,
            reason: ran.reason,
            kind,
            settings: settings_with_options(prepared.settings(), options),
            source: series.source().map(Into::into),
            shape: series.shape(),
            further_sources: series.further_sources().to_vec(),
            times_s: times.map_or_else(Vec::new, |times| times.seconds().to_vec()),
            times_origin: times.map_or("none: the samples are no time series", TimeAxis::origin).into(),
            times_reference: times.map_or(FrameReference::Unknown, TimeAxis::reference).as_str().into(),
            stages,
            voxels: options.mask.map_or(series.voxel_count(), Mask::voxel_count),
            status_counts: count_bits(status.as_slice_memory_order().unwrap_or_default(), &status_meanings),
            status_meanings,
            warnings: series.warnings().to_vec(),
        };
        Maps { maps, status, geometry: series.geometry().clone(), record }
    }
}

fn settings_with_options(
    mut settings: Vec<(String, SettingValue)>,
    options: &RunOptions<'_>,
) -> Vec<(String, SettingValue)> {
    if let Some(mask) = options.mask {
        let name =
            mask.source().and_then(|path| path.file_name()).map_or("given".into(), |name| name.to_string_lossy());
        settings.push(("mask".into(), SettingValue::Text(name.into_owned())));
    }
    let policy = match options.non_finite {
        NonFinite::Refuse => "refuse",
        NonFinite::Skip => "skip",
    };
    settings.push(("non_finite_samples".into(), SettingValue::Text(policy.into())));
    settings
}

fn floats(words: Option<Vec<u32>>) -> Vec<f32> {
    bytemuck::allocation::cast_vec(words.unwrap_or_default())
}

fn volume<T>(shape: (usize, usize, usize), words: Vec<T>) -> Array3<T> {
    Array3::from_shape_vec(shape.f(), words).expect("as many words as the shape says")
}

/// The memory of maps, to be written anew.
pub(super) fn into_rows(maps: Maps) -> Vec<Vec<u32>> {
    let mut rows = Vec::new();
    for map in maps.maps {
        match map.data {
            MapData::Float(values) => rows.push(bytemuck::allocation::cast_vec(values.into_raw_vec_and_offset().0)),
            MapData::Label(values) => rows.push(values.into_raw_vec_and_offset().0),
            MapData::Curve(_) => {}
        }
    }
    rows.push(maps.status.into_raw_vec_and_offset().0);
    rows
}

/// Each status bit that occurs, with its meaning and the number of voxels that have it.
pub(crate) fn count_bits(words: &[u32], meanings: &[(u32, String)]) -> Vec<(u32, String, usize)> {
    let counts = words
        .par_chunks(1 << 14)
        .map(|words| {
            let present = words.iter().fold(0, |all, word| all | word);
            let count = |bit| if present >> bit & 1 == 0 { 0 } else { words.iter().map(|word| word >> bit & 1).sum() };
            std::array::from_fn(|bit| -> usize { count(bit as u32) as usize })
        })
        .reduce(|| [0usize; 32], |a, b| std::array::from_fn(|bit| a[bit] + b[bit]));
    let meaning = |bit: u32| {
        let known = meanings.iter().find(|(word, _)| *word == 1 << bit);
        known.map_or_else(|| "not documented".to_string(), |(_, text)| text.clone())
    };
    (0..32).filter(|bit| counts[*bit as usize] > 0).map(|bit| (1 << bit, meaning(bit), counts[bit as usize])).collect()
}
