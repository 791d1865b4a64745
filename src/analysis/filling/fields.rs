//! Maps of the analysis on the series' grid, so that they are written like any other maps.

use ndarray::{Array3, ShapeBuilder};

use crate::error::Result;
use crate::maps::{Map, MapData, Maps, SettingValue};
use crate::quantity::{Quantity, SignalKind, Unit};
use crate::series::Series;
use crate::status;

use super::lesion::Lesion;
use super::local_fit::{cosine, local_fit};
use super::times::FillingTimes;

/// A map of the lesion's voxels.
pub(super) struct Field {
    quantity: Quantity,
    values: Vec<f64>,
}

/// The quantities that only this analysis has.
pub(super) mod quantities {
    use super::{Quantity, Unit};

    /// A quantity of the analysis: identifier, symbol, unit, definition.
    fn own(id: &'static str, symbol: &'static str, unit: Unit, definition: &'static str) -> Quantity {
        Quantity::new(id, None, symbol, unit, definition)
    }

    pub(crate) fn depth() -> Quantity {
        own(
            "depth",
            "d",
            Unit::Other("mm".into()),
            "Euclidean distance from the voxel's centre to the nearest centre of a voxel outside the lesion",
        )
    }

    pub(crate) fn normalised_radius() -> Quantity {
        own(
            "normalised_radius",
            "r",
            Unit::Dimensionless,
            "1 - depth / largest depth: 0 innermost, towards 1 at the rim",
        )
    }

    pub(crate) fn base_distance() -> Quantity {
        own(
            "base_distance",
            "d_B",
            Unit::Other("mm".into()),
            "length of the shortest path inside the lesion from its base",
        )
    }

    pub(crate) fn half_rise_time() -> Quantity {
        own(
            "half_rise_time",
            "T_50",
            Unit::Seconds,
            "when the fitted curve reaches half of the height that it has at the end of the frames used, on the series' own clock; for display: a share of a voxel's own height drifts with contrast to noise",
        )
    }

    pub(crate) fn smoothed_arrival() -> Quantity {
        own(
            "smoothed_arrival",
            "T_s",
            Unit::Seconds,
            "front arrival smoothed inside the lesion (a polynomial of second degree around every voxel, Gaussian weights times 1/SE^2), on the series' own clock; for display",
        )
    }

    pub(crate) fn outward_cosine() -> Quantity {
        own(
            "outward_cosine",
            "cos",
            Unit::Dimensionless,
            "cosine of the angle between the gradient of the smoothed front arrival and the outward direction (down the depth): +1 fills outward, -1 inward; for display",
        )
    }

    pub(crate) fn base_cosine() -> Quantity {
        own(
            "base_cosine",
            "cos_B",
            Unit::Dimensionless,
            "cosine of the angle between the gradient of the smoothed front arrival and the direction away from the base, along paths inside the lesion; for display",
        )
    }

    pub(crate) fn local_speed() -> Quantity {
        own(
            "local_speed",
            "v",
            Unit::Other("mm/s".into()),
            "1 / |gradient of the smoothed front arrival|: for display only, biased low by noise; the speed with an interval is in the report",
        )
    }
}

/// Puts maps together: NaN outside the lesion.
pub(super) fn maps(
    series: &Series,
    lesion: &Lesion,
    times: &FillingTimes,
    fields: Vec<Field>,
    kind: SignalKind,
    settings: Vec<(String, SettingValue)>,
) -> Result<Maps> {
    let [nx, ny, nz] = series.spatial_shape();
    let places: Vec<usize> = (0..lesion.count()).map(|n| lesion.in_series(n, series)).collect();
    let maps = fields
        .into_iter()
        .map(|field| {
            let mut flat = vec![f32::NAN; nx * ny * nz];
            for (place, value) in places.iter().zip(&field.values) {
                flat[*place] = *value as f32;
            }
            let data = Array3::from_shape_vec((nx, ny, nz).f(), flat).expect("one value per voxel");
            Map { unit: field.quantity.unit.text(kind), quantity: field.quantity, data: MapData::Float(data) }
        })
        .collect();
    let mut words = vec![status::OUTSIDE_MASK; nx * ny * nz];
    for (place, word) in places.iter().zip(&times.status) {
        words[*place] = *word;
    }
    let mut record = times.run.record().clone();
    record.kernel = "filling_pattern".into();
    record.settings = settings;
    record.source = series.source().map(Into::into);
    record.shape = series.shape();
    record.voxels = lesion.count();
    record.warnings = series.warnings().to_vec();
    let outside = words.len() - lesion.count();
    if outside > 0 {
        let meaning =
            status::MEANINGS.iter().find(|(bit, _)| *bit == status::OUTSIDE_MASK).map_or("", |(_, text)| *text);
        record.status_counts.insert(0, (status::OUTSIDE_MASK, meaning.into(), outside));
    }
    let words = Array3::from_shape_vec((nx, ny, nz).f(), words).expect("one word per voxel");
    Maps::new(maps, words, series.geometry().clone(), record)
}

/// The maps, by voxel of the lesion.
pub(super) fn all(lesion: &Lesion, times: &FillingTimes, base_mm: Option<&[f64]>) -> Vec<Field> {
    let width_mm = 1.5 * lesion.grid.voxel_volume_mm3().cbrt();
    let smooth = local_fit(lesion, &times.weights(), &times.arrival_s, width_mm);
    let along = |distance: &[f64]| -> Vec<f64> {
        let even: Vec<f64> = distance.iter().map(|d| f64::from(u8::from(d.is_finite()))).collect();
        let outward = local_fit(lesion, &even, distance, width_mm).gradients;
        let both = smooth.gradients.iter().zip(&outward);
        both.map(|(time, outward)| time.zip(*outward).and_then(|(a, b)| cosine(a, b)).unwrap_or(f64::NAN)).collect()
    };
    let deepest = lesion.deepest_mm();
    let radius: Vec<f64> = lesion.depth_mm.iter().map(|d| 1.0 - d / deepest).collect();
    let inverse = |g: [f64; 3]| {
        let length = g.iter().map(|x| x * x).sum::<f64>().sqrt();
        if length > 0.0 { 1.0 / length } else { f64::NAN }
    };
    let mut fields = vec![
        Field { quantity: Quantity::FRONT_ARRIVAL, values: times.arrival_s.clone() },
        Field { quantity: Quantity::FRONT_ARRIVAL_SE, values: times.arrival_se_s.clone() },
        Field { quantity: Quantity::LEVEL_CROSSING, values: times.crossing_s.clone() },
        Field { quantity: Quantity::LEVEL_CROSSING_SE, values: times.crossing_se_s.clone() },
        Field {
            quantity: quantities::half_rise_time(),
            values: (0..lesion.count()).map(|n| times.half_rise_s(n)).collect(),
        },
        Field { quantity: Quantity::FITTED_PLATEAU, values: times.plateau.clone() },
        Field { quantity: Quantity::RISE_TIME_CONSTANT, values: times.tau_s.clone() },
        Field { quantity: quantities::depth(), values: lesion.depth_mm.clone() },
        Field { quantity: quantities::outward_cosine(), values: along(&radius) },
        Field { quantity: quantities::normalised_radius(), values: radius },
        Field {
            quantity: quantities::local_speed(),
            values: smooth.gradients.iter().map(|g| g.map_or(f64::NAN, inverse)).collect(),
        },
        Field { quantity: quantities::smoothed_arrival(), values: smooth.values },
    ];
    if let Some(base_mm) = base_mm {
        fields.push(Field { quantity: quantities::base_cosine(), values: along(base_mm) });
        fields.push(Field { quantity: quantities::base_distance(), values: base_mm.to_vec() });
    }
    fields
}
