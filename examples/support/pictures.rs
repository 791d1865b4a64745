//! Montages of maps, and what lies under them.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use perfuse::render::{Montage, Range};
use perfuse::{Error, Map, MapData, Maps, Mask, Result, Series};
use rayon::prelude::*;

use super::progress::Bar;

/// A montage of every map but curves, over anatomy in grey; returns how many there are. The display range is that of the
/// voxels without any of the status bits of `doubtful`, if there are such bits: noise around the patient would stretch it to
/// the bounds of a fit.
pub(crate) fn montages(
    folder: &Path,
    maps: &Maps,
    series: &Series,
    outline: Option<&Mask>,
    doubtful: u32,
    bar: &Bar,
) -> Result<usize> {
    std::fs::create_dir_all(folder).map_err(|source| Error::Io { action: "create", path: folder.into(), source })?;
    // The mean of some images, evenly spread.
    let frames: Vec<usize> = (0..series.frames()).step_by(series.frames().div_ceil(12)).collect();
    let underlay = series.mean_of_frames(&frames)?;
    let (tell, done) = (bar.teller(), AtomicU64::new(0));
    let drawn: Vec<_> = maps.iter().filter(|map| !matches!(map.data, MapData::Curve(_))).collect();
    drawn.par_iter().try_for_each(|map| {
        let mut montage = Montage::of_map(map, maps.geometry())?.underlay(underlay.view());
        if let Some(mask) = outline {
            montage = montage.outline(mask);
        }
        if let Some((low, high)) = trusted_range(map, maps, doubtful) {
            montage = montage.range(Range::Fixed(low, high));
        }
        montage.render()?.save(folder.join(format!("{}.png", map.quantity.id)))?;
        tell(done.fetch_add(1, Ordering::Relaxed) + 1, drawn.len() as u64);
        Ok::<(), Error>(())
    })?;
    Ok(drawn.len())
}

/// The 2nd and 98th percentile over the voxels without doubtful bits, if there are enough of them.
fn trusted_range(map: &Map, maps: &Maps, doubtful: u32) -> Option<(f64, f64)> {
    let MapData::Float(values) = &map.data else { return None };
    if doubtful == 0 {
        return None;
    }
    let trusted = values.iter().zip(maps.status()).filter(|(value, bits)| value.is_finite() && **bits & doubtful == 0);
    let mut trusted: Vec<f32> = trusted.map(|(value, _)| *value).collect();
    trusted.sort_by(f32::total_cmp);
    let at = |share: f64| f64::from(trusted[(share * (trusted.len() - 1) as f64).round() as usize]);
    (trusted.len() >= 50 && at(0.02) < at(0.98)).then(|| (at(0.02), at(0.98)))
}

/// Pictures of an earlier run's maps, and curves of these names, must not stand beside the maps of this one.
pub(crate) fn remove_earlier(folder: &Path, curves: &[&str]) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let of_a_map = |stem: &std::ffi::OsStr| folder.with_file_name(stem).with_extension("json").exists();
        let ours = path.file_stem().is_some_and(|stem| curves.iter().any(|known| stem == *known) || of_a_map(stem));
        if ours && path.extension().is_some_and(|ending| ending == "png") {
            std::fs::remove_file(&path).map_err(|source| Error::Io { action: "remove", path, source })?;
        }
    }
    Ok(())
}
