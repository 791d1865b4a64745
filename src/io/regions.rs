//! `regions.csv`: what every map holds in every region of a mask.

use std::fmt::Write;

use rayon::prelude::*;

use super::encode::flat;
use crate::maps::{Map, MapData, Maps};
use crate::series::Mask;

const COLUMNS: &str = "map,unit,region,voxels,valid,missing,mean,sd,median,q25,q75\n";

/// One row per map and region. Labels have counts only (0 is missing); curves have no row.
pub(super) fn table(maps: &Maps, mask: &Mask) -> String {
    let regions = mask.regions();
    let mut voxels: Vec<Vec<usize>> = vec![Vec::new(); regions.len()];
    for (voxel, label) in mask.flat().iter().enumerate() {
        if let Ok(region) = regions.binary_search(label) {
            voxels[region].push(voxel);
        }
    }
    let all: Vec<&Map> = maps.iter().collect();
    let rows: Vec<String> = all.par_iter().map(|map| rows(map, &regions, &voxels)).collect();
    COLUMNS.to_string() + &rows.concat()
}

fn rows(map: &Map, regions: &[u32], voxels: &[Vec<usize>]) -> String {
    let mut text = String::new();
    let mut row = |region: u32, voxels: usize, valid: usize, statistics: [Option<f64>; 5]| {
        let _ = write!(
            text,
            "{},{},{region},{voxels},{valid},{}",
            quoted(&map.quantity.id),
            quoted(&map.unit),
            voxels - valid
        );
        for value in statistics {
            let _ = match value {
                Some(value) => write!(text, ",{value}"),
                None => write!(text, ","),
            };
        }
        text.push('\n');
    };
    match &map.data {
        MapData::Float(values) => {
            let values = flat(values.view());
            for (region, voxels) in regions.iter().zip(voxels) {
                let mut valid: Vec<f64> =
                    voxels.iter().map(|v| f64::from(values[*v])).filter(|v| v.is_finite()).collect();
                valid.sort_unstable_by(f64::total_cmp);
                row(*region, voxels.len(), valid.len(), statistics(&valid));
            }
        }
        MapData::Label(labels) => {
            let labels = flat(labels.view());
            for (region, voxels) in regions.iter().zip(voxels) {
                row(*region, voxels.len(), voxels.iter().filter(|v| labels[**v] != 0).count(), [None; 5]);
            }
        }
        MapData::Curve(_) => {}
    }
    text
}

/// Mean, standard deviation (n - 1), median and quartiles of sorted values; quantiles are linear between the values.
fn statistics(sorted: &[f64]) -> [Option<f64>; 5] {
    let n = sorted.len();
    if n == 0 {
        return [None; 5];
    }
    let mean = sorted.iter().sum::<f64>() / n as f64;
    let squares: f64 = sorted.iter().map(|v| (v - mean) * (v - mean)).sum();
    let sd = (n > 1).then(|| (squares / (n - 1) as f64).sqrt());
    let quantile = |fraction: f64| {
        let place = fraction * (n - 1) as f64;
        let below = place.floor() as usize;
        let above = (below + 1).min(n - 1);
        Some(sorted[below] + (place - below as f64) * (sorted[above] - sorted[below]))
    };
    [Some(mean), sd, quantile(0.5), quantile(0.25), quantile(0.75)]
}

fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_by_hand() {
        // 1, 2, 4, 9: mean 4, squares 9 + 4 + 0 + 25 = 38, sd sqrt(38 / 3); places 0.75, 1.5, 2.25.
        assert_eq!(
            statistics(&[1.0, 2.0, 4.0, 9.0]),
            [Some(4.0), Some((38.0f64 / 3.0).sqrt()), Some(3.0), Some(1.75), Some(5.25)]
        );
        assert_eq!(statistics(&[3.0]), [Some(3.0), None, Some(3.0), Some(3.0), Some(3.0)]);
        assert_eq!(statistics(&[]), [None; 5]);
    }
}
