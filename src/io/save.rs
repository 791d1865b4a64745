//! `Maps::save`, and `save` for series, masks and maps of the caller's own.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use ndarray::ArrayView4;
use rayon::prelude::*;
use serde_json::{Value, json};

use super::encode::{self, flat, shape3};
use super::header::Header;
use super::names;
use super::options::{Compression, Overwrite, SaveOptions, SaveReport};
use super::staged::{Staged, check_free, commit_all};
use super::{records, regions};
use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::maps::{Map, MapData, Maps, RunRecord};
use crate::quantity::Quantity;
use crate::series::{Mask, Series, VoxelMap};
use crate::time::TimeAxis;

/// NIfTI's code for "an estimate of the quantity that intent_name names".
const INTENT_ESTIMATE: i16 = 1001;
const INTENT_LABEL: i16 = 1002;
const SECONDS: u8 = 8;

impl Maps {
    /// Writes every map and the status as `DIR/<id>.nii.gz` with `DIR/<id>.json` beside it, and `DIR/run.json` last: a
    /// folder with `run.json` holds a complete run. Values are 32-bit floats (labels and status: integers) on the series'
    /// grid. Every file appears whole or not at all.
    ///
    /// # Errors
    /// [`Error::Exists`] if a file of the result is there already: nothing is written then. [`Error::Io`] if a file can't
    /// be written, [`Error::Setting`] if a map's id is no file name.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<SaveReport> {
        self.save_with(folder, &SaveOptions::new())
    }

    /// Writes the maps as [`Maps::save`] does, with `DIR/regions.csv` if a mask is given, overwriting if told to.
    ///
    /// # Errors
    /// Those of [`Maps::save`]; [`Error::Mismatch`] if the mask lies on another grid; [`Error::Cancelled`].
    pub fn save_with(&self, folder: impl AsRef<Path>, options: &SaveOptions) -> Result<SaveReport> {
        let folder = folder.as_ref();
        let start = Instant::now();
        let items = self.items()?;
        if let Some(mask) = &options.mask {
            self.check_mask(mask)?;
        }
        check_free(targets(folder, &items, options), options.overwrite)?;
        std::fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;

        let done = AtomicU64::new(0);
        let staged: Vec<[Staged; 2]> = items
            .par_iter()
            .map(|item| {
                if options.cancel.as_ref().is_some_and(|cancel| cancel.load(Ordering::Relaxed)) {
                    return Err(Error::Cancelled);
                }
                let staged = item.stage(folder, self, options.compression)?;
                if let Some(progress) = &options.progress {
                    progress(done.fetch_add(1, Ordering::Relaxed) + 1, items.len() as u64);
                }
                Ok(staged)
            })
            .collect::<Result<_>>()?;
        let mut staged: Vec<Staged> = staged.into_iter().flatten().collect();
        if let Some(mask) = &options.mask {
            let table = regions::table(self, mask);
            staged.push(Staged::write(&folder.join("regions.csv"), |out| out.write_all(table.as_bytes()))?);
        }
        let files: Vec<String> = staged.iter().map(Staged::name).collect();
        let bytes: u64 = staged.iter().map(Staged::bytes).sum();
        let record = records::run_record(self, &files, start.elapsed().as_secs_f64(), bytes);
        let run = folder.join("run.json");
        staged.push(stage_json(&run, &record)?);

        // Nothing earlier goes before all of this is on the disk.
        staged.iter_mut().try_for_each(Staged::settle)?;
        if options.overwrite == Overwrite::Replace {
            // From here until the end the folder holds parts of two runs: without run.json nobody takes it for one. What
            // the earlier run wrote goes, and so does a map stored the other way: an older result under the same name.
            let earlier = earlier_files(&run);
            let earlier = earlier.iter().map(|name| folder.join(name));
            let other = if options.compression == Compression::Gzip { Compression::None } else { Compression::Gzip };
            let stale = items.iter().map(|item| folder.join(item.file(other)));
            let regions = options.mask.is_none().then(|| folder.join("regions.csv"));
            for path in std::iter::once(run.clone()).chain(earlier).chain(stale).chain(regions) {
                remove_if_there(&path)?;
            }
        }
        let bytes = staged.iter().map(Staged::bytes).sum();
        let files = staged.iter().map(|file| folder.join(file.name())).collect();
        commit_all(staged, options.overwrite)?;
        Ok(SaveReport { seconds: start.elapsed().as_secs_f64(), bytes, files })
    }

    /// The maps, then the status; ids are checked, because they become file names.
    fn items(&self) -> Result<Vec<Item<'_>>> {
        let mut seen = vec!["status", "run", "regions"];
        for map in self.iter() {
            let id = map.quantity.id.as_ref();
            let plain = id.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
            if id.is_empty() || id.starts_with('.') || !plain || seen.contains(&id) {
                let mend = "ids become file names: use letters, digits, _ and -, each id once; status, run and regions are taken";
                return Err(Error::setting("map id", format!("{id:?}"), mend));
            }
            seen.push(id);
        }
        Ok(self.iter().map(Item::Map).chain([Item::Status]).collect())
    }

    fn check_mask(&self, mask: &Mask) -> Result<()> {
        let name = mask.source().map_or_else(|| "the mask".to_string(), |path| path.display().to_string());
        let (ours, theirs) = (shape3(&self.status()), shape3(&mask.labels()));
        if ours != theirs {
            return Err(Error::mismatch(name, "the maps", format!("its shape is {theirs:?}, the maps' is {ours:?}")));
        }
        match mask.geometry() {
            Some(geometry) => self.geometry().check_matches(geometry, &name, "the maps"),
            None => Ok(()),
        }
    }
}

/// What becomes one image with its JSON.
enum Item<'a> {
    Map(&'a Map),
    Status,
}

impl Item<'_> {
    fn id(&self) -> &str {
        match self {
            Item::Map(map) => &map.quantity.id,
            Item::Status => "status",
        }
    }

    fn file(&self, compression: Compression) -> String {
        format!("{}{}", self.id(), compression.ending())
    }

    fn stage(&self, folder: &Path, maps: &Maps, compression: Compression) -> Result<[Staged; 2]> {
        let file = self.file(compression);
        let record = match self {
            Item::Map(map) => records::map_record(map, maps.record(), &file),
            Item::Status => records::status_record(maps.record(), &file),
        };
        let image = Staged::write(&folder.join(&file), |out| {
            encode::compressed(out, compression, |out| match self {
                Item::Map(map) => write_map(out, map, maps),
                Item::Status => {
                    let unit = Quantity::STATUS.unit.text(maps.record().kind);
                    let header = encode::header(&shape3(&maps.status()), maps.geometry(), "status", &unit);
                    encode::write_bits(out, header, &flat(maps.status()))
                }
            })
        })?;
        let json = stage_json(&folder.join(format!("{}.json", self.id())), &record)?;
        Ok([image, json])
    }
}

fn write_map(out: &mut dyn Write, map: &Map, maps: &Maps) -> std::io::Result<()> {
    let header = |shape: &[usize], intent| {
        let mut header = encode::header(shape, maps.geometry(), &map.quantity.id, &map.unit);
        header.intent_code = intent;
        header
    };
    match &map.data {
        MapData::Float(values) => {
            encode::write_floats(out, header(&shape3(&values.view()), INTENT_ESTIMATE), &flat(values.view()))
        }
        MapData::Label(labels) => {
            encode::write_labels(out, header(&shape3(&labels.view()), INTENT_LABEL), &flat(labels.view()))
        }
        MapData::Curve(curves) => {
            let mut header = header(curves.shape(), INTENT_ESTIMATE);
            set_curve_spacing(&mut header, curves.view(), maps.record());
            encode::write_floats(out, header, &flat(curves.view()))
        }
    }
}

/// Curves over the series' frames have its spacing, if that is one number; other curves have their axis in the definition.
fn set_curve_spacing(header: &mut Header, curves: ArrayView4<'_, f32>, record: &RunRecord) {
    let axis = TimeAxis::from_seconds(record.times_s.clone());
    if let Some(axis) = axis.ok().filter(|axis| axis.len() == curves.dim().3 && axis.is_even()) {
        set_times(header, &axis);
    }
}

fn set_times(header: &mut Header, times: &TimeAxis) {
    header.frame_spacing = times.duration_s() / (times.len() - 1) as f64;
    header.time_offset = times.first_s();
    header.time_unit = SECONDS;
}

/// Everything that a run writes, and the same maps stored the other way.
fn targets(folder: &Path, items: &[Item<'_>], options: &SaveOptions) -> Vec<PathBuf> {
    let mut targets = vec![folder.join("run.json")];
    for item in items {
        targets.push(folder.join(item.file(Compression::Gzip)));
        targets.push(folder.join(item.file(Compression::None)));
        targets.push(folder.join(format!("{}.json", item.id())));
    }
    if options.mask.is_some() {
        targets.push(folder.join("regions.csv"));
    }
    targets
}

/// The files that an earlier run's record lists: plain names only, so that a foreign record can't reach out of the folder.
fn earlier_files(run: &Path) -> Vec<String> {
    let record: Option<Value> = std::fs::read(run).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let ours = record.filter(|record| record["software"]["name"] == env!("CARGO_PKG_NAME"));
    let names = ours.as_ref().and_then(|record| record["files"].as_array()).into_iter().flatten();
    let plain = |name: &&str| !name.contains(['/', '\\']) && !name.starts_with('.');
    names.filter_map(Value::as_str).filter(plain).map(String::from).collect()
}

fn remove_if_there(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path, e)),
        _ => Ok(()),
    }
}

fn stage_json(path: &Path, value: &Value) -> Result<Staged> {
    Staged::write(path, |out| {
        serde_json::to_writer_pretty(&mut *out, value)?;
        out.write_all(b"\n")
    })
}

impl Series {
    /// Writes the series as `.nii` or `.nii.gz`, in its stored type, with a JSON sidecar beside it (`VolumeTiming`) that
    /// lists the time of every frame in seconds.
    ///
    /// ```
    /// use perfuse::io::Overwrite;
    /// use perfuse::{Series, TimeAxis};
    /// let times = TimeAxis::from_seconds(vec![0.0, 2.0, 5.0])?;
    /// let series = Series::from_voxels(vec![7i16; 2 * 2 * 1 * 3], [2, 2, 1, 3], times)?;
    /// # let folder = tempfile::tempdir().unwrap();
    /// let path = folder.path().join("dce.nii.gz");
    /// series.save(&path, Overwrite::Refuse)?;
    /// assert_eq!(Series::open(&path)?.times()?.seconds(), [0.0, 2.0, 5.0]);
    /// # Ok::<(), perfuse::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::Io`]; [`Error::Setting`] if the name ends in neither.
    pub fn save(&self, path: impl AsRef<Path>, overwrite: Overwrite) -> Result<()> {
        let path = path.as_ref();
        let compression = compression_of(path)?;
        let sidecar = names::beside(path, ".json");
        let times = self.times().ok();
        let beside = times.is_some().then(|| sidecar.clone());
        check_free([path.to_path_buf()].into_iter().chain(beside), overwrite)?;
        let mut header = encode::header(&self.shape(), self.geometry(), "", "");
        header.sample = self.sample_type();
        header.scaling = self.scaling();
        if let Some(times) = times {
            set_times(&mut header, times);
        }
        let image = Staged::write(path, |out| {
            encode::compressed(out, compression, |out| encode::write_series(out, &header, self))
        })?;
        let mut files = vec![image];
        if let Some(times) = times {
            files.insert(0, stage_json(&sidecar, &json!({"VolumeTiming": times.seconds()}))?);
        }
        commit_all(files, overwrite)
    }
}

impl Mask {
    /// Writes the labels as `.nii` or `.nii.gz`, in the smallest unsigned type that holds them.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::Io`]; [`Error::Setting`] if the name ends in neither.
    pub fn save(&self, path: impl AsRef<Path>, overwrite: Overwrite) -> Result<()> {
        save_volume(path.as_ref(), overwrite, shape3(&self.labels()), self.geometry(), |out, mut header| {
            header.intent_code = INTENT_LABEL;
            encode::write_labels(out, header, self.flat())
        })
    }
}

impl VoxelMap {
    /// Writes the values as `.nii` or `.nii.gz`, as 32-bit floats.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::Io`]; [`Error::Setting`] if the name ends in neither.
    pub fn save(&self, path: impl AsRef<Path>, overwrite: Overwrite) -> Result<()> {
        save_volume(path.as_ref(), overwrite, shape3(&self.values()), self.geometry(), |out, header| {
            encode::write_floats(out, header, self.flat())
        })
    }
}

fn save_volume(
    path: &Path,
    overwrite: Overwrite,
    shape: [usize; 3],
    geometry: Option<&Geometry>,
    content: impl FnOnce(&mut dyn Write, Header) -> std::io::Result<()>,
) -> Result<()> {
    let compression = compression_of(path)?;
    check_free([path.to_path_buf()], overwrite)?;
    let header = encode::header(&shape, geometry.unwrap_or(&Geometry::default()), "", "");
    let image = Staged::write(path, |out| encode::compressed(out, compression, |out| content(out, header)))?;
    commit_all(vec![image], overwrite)
}

fn compression_of(path: &Path) -> Result<Compression> {
    if names::ends_in(path, "nii") {
        return Ok(Compression::None);
    }
    if names::ends_in(path, "gz") && path.file_stem().is_some_and(|stem| names::ends_in(Path::new(stem), "nii")) {
        return Ok(Compression::Gzip);
    }
    Err(Error::setting("file name", path.display(), "end it in .nii.gz or .nii"))
}
