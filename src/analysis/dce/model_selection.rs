//! Which of several models describes each voxel best, by the corrected Akaike information criterion.

use ndarray::{Array3, Array4, Axis};

use crate::engine::{Engine, RunOptions, count_bits};
use crate::error::{Error, Result};
use crate::kernels::descriptors::MapSelection;
use crate::kernels::fit::PharmacokineticFit;
use crate::maps::{Map, MapData, Maps, RunRecord, SettingValue};
use crate::quantity::{Quantity, Unit};
use crate::series::Series;

/// Fits several models and keeps in every voxel the one with the smallest AICc (Hurvich and Tsai 1989), the earlier one of
/// equals.
///
/// The result holds the map `model`, a label: 1 for the first fit and so on, 0 where none has an AICc; `akaike_weight`, the
/// weight of evidence for the winner among these models (Burnham and Anderson 2002), from 0 to 1; and all maps of the fits,
/// with the winner's values: NaN in voxels whose winner has no such parameter. The status is the winner's, and that of the
/// first fit where there is no winner. All maps are computed, whatever selection the fits carry.
///
/// # Errors
/// [`Error::Setting`] for fewer than two fits, or for two of the same model; those of [`Engine::run_with`].
pub fn select_model(
    engine: &Engine,
    fits: &[PharmacokineticFit],
    series: &Series,
    options: &RunOptions<'_>,
) -> Result<Maps> {
    let names: Vec<&str> = fits.iter().map(|fit| fit.model.as_str()).collect();
    if fits.len() < 2 {
        return Err(Error::setting("models", names.join(", "), "give two or more to choose from"));
    }
    if let Some(twice) = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
        return Err(Error::setting("models", twice.1, "give each model once"));
    }
    let mut choice: Option<Choice> = None;
    for (place, fit) in fits.iter().enumerate() {
        let maps = engine.run_with(&fit.clone().maps(MapSelection::All), series, options)?;
        match &mut choice {
            None => choice = Some(Choice::new(maps)?),
            Some(choice) => choice.challenge(place, maps)?,
        }
    }
    choice.expect("there are two fits or more").finish(&names)
}

/// What stands after the models so far.
struct Choice {
    /// The smallest AICc so far; infinite where there is none.
    smallest: Array3<f32>,
    labels: Array3<u32>,
    /// Every model's AICc.
    all: Vec<Array3<f32>>,
    maps: Vec<Map>,
    status: Array3<u32>,
    record: RunRecord,
    geometry: crate::Geometry,
    /// The settings of every model.
    settings: Vec<Vec<(String, SettingValue)>>,
}

impl Choice {
    fn new(maps: Maps) -> Result<Self> {
        let aic = maps.get(Quantity::AIC)?.to_owned();
        Ok(Self {
            smallest: aic.mapv(|value| if value.is_nan() { f32::INFINITY } else { value }),
            labels: aic.mapv(|value| u32::from(!value.is_nan())),
            all: vec![aic],
            status: maps.status.clone(),
            settings: vec![maps.record.settings.clone()],
            record: maps.record,
            geometry: maps.geometry,
            maps: maps.maps,
        })
    }

    /// Lets another model win the voxels where its AICc is smaller.
    fn challenge(&mut self, place: usize, maps: Maps) -> Result<()> {
        let aic = maps.get(Quantity::AIC)?.to_owned();
        let wins: Array3<bool> = ndarray::Zip::from(&aic).and(&self.smallest).map_collect(|new, old| new < old);
        for map in &mut self.maps {
            let other = maps.maps.iter().find(|other| other.quantity.id == map.quantity.id);
            take(&mut map.data, other.map(|map| &map.data), &wins);
        }
        for map in maps.maps {
            if self.maps.iter().all(|known| known.quantity.id != map.quantity.id) {
                let mut data = empty(&map.data);
                take(&mut data, Some(&map.data), &wins);
                self.maps.push(Map { data, ..map });
            }
        }
        let label = place as u32 + 1;
        ndarray::azip!((wins in &wins, label_of in &mut self.labels, smallest in &mut self.smallest, aic in &aic,
            status in &mut self.status, other in &maps.status) if *wins {
            (*label_of, *smallest, *status) = (label, *aic, *other);
        });
        self.all.push(aic);
        self.settings.push(maps.record.settings);
        self.record.stages.extend(maps.record.stages);
        for meaning in maps.record.status_meanings {
            if !self.record.status_meanings.contains(&meaning) {
                self.record.status_meanings.push(meaning);
            }
        }
        Ok(())
    }

    fn finish(mut self, names: &[&str]) -> Result<Maps> {
        let weights = self.weights();
        let model = model_quantity(names);
        let weight = akaike_weight();
        let text = |quantity: &Quantity| quantity.unit.text(self.record.kind);
        self.maps.insert(0, Map { unit: text(&model), quantity: model, data: MapData::Label(self.labels) });
        self.maps.insert(1, Map { unit: text(&weight), quantity: weight, data: MapData::Float(weights) });

        self.record.kernel = "model_selection".into();
        self.record.settings = join_settings(names, &self.settings);
        self.record.status_meanings.sort_by_key(|(bit, _)| *bit);
        let words = self.status.as_slice_memory_order().unwrap_or_default();
        self.record.status_counts = count_bits(words, &self.record.status_meanings);
        self.record.stages = join_stages(std::mem::take(&mut self.record.stages));
        Maps::new(self.maps, self.status, self.geometry, self.record)
    }

    /// exp(-Delta / 2) of the winner over the sum of all: 1 over the sum of the others' exp(-Delta / 2).
    fn weights(&self) -> Array3<f32> {
        let mut sums = Array3::<f64>::zeros(self.smallest.dim());
        for aic in &self.all {
            ndarray::azip!((sum in &mut sums, aic in aic, smallest in &self.smallest) if !aic.is_nan() {
                *sum += (-0.5 * (f64::from(*aic) - f64::from(*smallest))).exp();
            });
        }
        sums.mapv(|sum| if sum > 0.0 { (1.0 / sum) as f32 } else { f32::NAN })
    }
}

fn model_quantity(names: &[&str]) -> Quantity {
    let listed: Vec<String> = names.iter().enumerate().map(|(i, name)| format!("{} {name}", i + 1)).collect();
    let definition =
        format!("the model with the smallest AICc, the earlier one of equals: {}; 0 no answer", listed.join(", "));
    Quantity::new("model", None, "model", Unit::Label, definition)
}

fn akaike_weight() -> Quantity {
    let definition = "weight of evidence for the model of the voxel: exp(-(AICc - smallest AICc) / 2), over the sum of \
                      the same of all models; 1 over that sum for the winner";
    Quantity::new("akaike_weight", None, "w", Unit::Dimensionless, definition)
}

/// The settings that all models share once, the others under the model's name.
fn join_settings(names: &[&str], all: &[Vec<(String, SettingValue)>]) -> Vec<(String, SettingValue)> {
    let list = names.iter().map(|name| SettingValue::Text((*name).into())).collect();
    let mut joined = vec![("models".to_string(), SettingValue::List(list))];
    let shared = |setting: &(String, SettingValue)| all.iter().all(|settings| settings.contains(setting));
    joined.extend(all[0].iter().filter(|setting| shared(setting)).cloned());
    for (name, settings) in names.iter().zip(all) {
        let own = settings.iter().filter(|setting| !shared(setting) && setting.0 != "model");
        joined.extend(own.map(|(key, value)| (format!("{name}_{key}"), value.clone())));
    }
    joined
}

/// One entry per stage, with the seconds and bytes of all runs.
fn join_stages(stages: Vec<crate::StageTime>) -> Vec<crate::StageTime> {
    let mut joined: Vec<crate::StageTime> = Vec::new();
    for stage in stages {
        match joined.iter_mut().find(|known| known.stage == stage.stage) {
            Some(known) => {
                known.seconds += stage.seconds;
                known.bytes += stage.bytes;
            }
            None => joined.push(stage),
        }
    }
    joined
}

/// The same kind of map without a value in it.
fn empty(data: &MapData) -> MapData {
    match data {
        MapData::Float(values) => MapData::Float(Array3::from_elem(values.dim(), f32::NAN)),
        MapData::Label(labels) => MapData::Label(Array3::zeros(labels.dim())),
        MapData::Curve(curves) => MapData::Curve(Array4::from_elem(curves.dim(), f32::NAN)),
    }
}

/// Takes the other map's values where it wins: no value if it has no such map.
fn take(data: &mut MapData, other: Option<&MapData>, wins: &Array3<bool>) {
    match (data, other) {
        (MapData::Float(values), Some(MapData::Float(others))) => {
            ndarray::azip!((value in values, other in others, wins in wins) if *wins { *value = *other; });
        }
        (MapData::Label(values), Some(MapData::Label(others))) => {
            ndarray::azip!((value in values, other in others, wins in wins) if *wins { *value = *other; });
        }
        (MapData::Curve(values), Some(MapData::Curve(others))) => {
            for (mut values, others) in values.axis_iter_mut(Axis(3)).zip(others.axis_iter(Axis(3))) {
                ndarray::azip!((value in &mut values, other in others, wins in wins) if *wins { *value = *other; });
            }
        }
        (MapData::Float(values), _) => {
            ndarray::azip!((value in values, wins in wins) if *wins { *value = f32::NAN; });
        }
        (MapData::Label(values), _) => {
            ndarray::azip!((value in values, wins in wins) if *wins { *value = 0; });
        }
        (MapData::Curve(values), _) => {
            for mut values in values.axis_iter_mut(Axis(3)) {
                ndarray::azip!((value in &mut values, wins in wins) if *wins { *value = f32::NAN; });
            }
        }
    }
}
