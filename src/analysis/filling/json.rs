//! The report as JSON (feature `nifti`).

use serde_json::{Map, Value, json};

use crate::maps::SettingValue;

use super::report::{Direction, FillingReport, Index, NoOrigin, Shell};

impl FillingReport {
    /// The report as a JSON object, with the units in the names. What has no value is `null`, an interval without an upper
    /// end too.
    pub fn to_json(&self) -> Value {
        let origin = match &self.origin {
            Ok(origin) => json!({
                "world_mm": origin.world_mm.map(number),
                "voxel": origin.voxel.map(number),
                "volume_ml": number(origin.volume_ml),
                "depth_mm": number(origin.depth_mm),
                "place": origin.place.as_str(),
                "region_radius_mm": number(origin.region_radius_mm),
                "origins": origin.others_world_mm.len() + 1,
                "others_world_mm": origin.others_world_mm.iter().map(|o| o.map(number)).collect::<Vec<_>>(),
            }),
            Err(_) => Value::Null,
        };
        let why_no_origin = match &self.origin {
            Ok(_) => Value::Null,
            Err(NoOrigin::TooFewVoxels) => json!("too few voxels enhance"),
            Err(NoOrigin::Scattered { region_radius_mm, limit_mm }) => json!(format!(
                "the noise scatters it over {region_radius_mm:.2} mm; up to {limit_mm:.2} mm are accepted"
            )),
        };
        let speed = self.speed.as_ref();
        let directed = self.outward.sign != 0 || self.from_base.is_some_and(|base| base.sign != 0);
        // Without a direction there is a lower bound only.
        let of_speed = |value: Option<f64>| value.filter(|_| directed).map_or(Value::Null, number);
        let front_speed = json!({
            "median": of_speed(speed.and_then(|speed| speed.median_mm_per_s)),
            "low": speed.map_or(Value::Null, |speed| number(speed.interval_mm_per_s[0])),
            "high": of_speed(speed.map(|speed| speed.interval_mm_per_s[1])),
        });
        let trend = speed.filter(|_| directed).map_or("undetermined", |speed| speed.trend.as_str());
        let mut object = Map::new();
        let mut put = |key: &str, value: Value| object.insert(key.into(), value);
        put("centrifugality", index(&self.centrifugality));
        put("outward", direction(&self.outward));
        put("from_base", self.from_base.as_ref().map_or(Value::Null, direction));
        put("index_from_origin_descriptive", self.from_origin.map_or(Value::Null, number));
        put("origin", origin);
        put("no_origin_because", why_no_origin);
        put("front_speed_mm_per_s", front_speed);
        put("speed_trend", json!(trend));
        put(
            "slowness",
            speed.map_or(Value::Null, |speed| {
                json!({
                    "path": speed.path.as_str(),
                    "explained_variance": number(speed.explained),
                    "s_per_mm": number(speed.slowness_s_per_mm),
                    "se_s_per_mm": number(speed.slowness_se_s_per_mm),
                    "estimator_bias_taken_off_s_per_mm": number(speed.slowness_bias_s_per_mm),
                    "change_s_per_mm2": number(speed.slowness_change_s_per_mm2),
                    "change_interval_s_per_mm2": speed.slowness_change_interval.map(number),
                    "by_distance": speed.by_distance.iter().map(|at| json!({
                        "distance_mm": number(at.distance_mm),
                        "slowness_s_per_mm": number(at.slowness_s_per_mm),
                        "speed_mm_per_s": number(at.speed_mm_per_s),
                        "interval_mm_per_s": at.interval_mm_per_s.map(number),
                    })).collect::<Vec<_>>(),
                })
            }),
        );
        let extent = &self.extent;
        put("enhancing_fraction", number(extent.enhancing_fraction));
        put("enhancing_fraction_interval", json!(extent.enhancing_fraction_interval.map(number)));
        put(
            "volume_ml",
            json!({
                "lesion": number(extent.lesion_ml),
                "enhancing": number(extent.enhancing_ml),
                "partly_enhancing": number(extent.partly_ml),
                "not_enhancing": number(extent.not_enhancing_ml),
                "unusable": number(extent.unusable_ml),
            }),
        );
        put(
            "filled_fraction",
            json!({
                "time_s": extent.filled.iter().map(|(time, _)| number(*time)).collect::<Vec<_>>(),
                "fraction": extent.filled.iter().map(|(_, fraction)| number(*fraction)).collect::<Vec<_>>(),
            }),
        );
        put("shells", self.shells.iter().map(shell).collect());
        put("base_shells", self.base_shells.iter().map(shell).collect());
        put("arrival_se_s", number(self.arrival_se_s));
        put("reference_plateau", number(self.reference_plateau));
        put("level", number(self.level));
        put("unit", json!(self.unit));
        put("description", json!(self.description.text()));
        put(
            "description_parts",
            json!({
                "origin": self.description.origin,
                "direction": self.description.direction,
                "speed": self.description.speed,
                "extent": self.description.extent,
                "caution": self.description.caution,
            }),
        );
        put("settings", self.settings.iter().map(|(name, value)| (name.clone(), setting(value))).collect());
        Value::Object(object)
    }
}

/// A number; `null` if it isn't finite, which JSON can't hold.
fn number(value: f64) -> Value {
    serde_json::Number::from_f64(value).map_or(Value::Null, Value::Number)
}

fn setting(value: &SettingValue) -> Value {
    match value {
        SettingValue::Number(value) => number(*value),
        SettingValue::Text(text) => json!(text),
        SettingValue::List(values) => values.iter().map(setting).collect(),
    }
}

fn index(index: &Index) -> Value {
    json!({
        "index": number(index.value),
        "low": number(index.low),
        "high": number(index.high),
        "p": number(index.p),
        "standard_error": number(index.standard_error),
        "standard_error_noise": number(index.noise_standard_error),
        "standard_error_tissue": number(index.tissue_standard_error),
        "estimator_bias": number(index.bias),
        "voxels": index.voxels,
    })
}

fn direction(direction: &Direction) -> Value {
    json!({
        "sign": direction.sign,
        "arrival": index(&direction.arrival),
        "arrival_not_enhancing_censored": number(direction.arrival_censored),
        "level_crossing": number(direction.level),
        "level_crossing_of_equal_filling": number(direction.level_of_equal_filling),
    })
}

fn shell(shell: &Shell) -> Value {
    json!({
        "from_mm": number(shell.from_mm),
        "to_mm": number(shell.to_mm),
        "volume_ml": number(shell.volume_ml),
        "area_mm2": number(shell.area_mm2),
        "voxels": shell.voxels,
        "enhancing_fraction": number(shell.enhancing_fraction),
        "arrival_quartiles_s": shell.arrival_quartiles_s.map(number),
        "level_quartiles_s": shell.level_quartiles_s.map(number),
        "slowness_s_per_mm": number(shell.slowness_s_per_mm),
        "slowness_se_s_per_mm": number(shell.slowness_se_s_per_mm),
        "mean_enhancement": shell.curve.iter().map(|e| number(*e)).collect::<Vec<_>>(),
    })
}
