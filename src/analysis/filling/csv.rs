//! The shells as a table for other programs.

use std::fmt::Write;

use super::report::{FillingReport, Shell};

const COLUMNS: &str = "distance_from,shell,from_mm,to_mm,volume_ml,area_mm2,voxels,enhancing_fraction,\
arrival_q25_s,arrival_median_s,arrival_q75_s,level_q25_s,level_median_s,level_q75_s,\
slowness_s_per_mm,slowness_se_s_per_mm";

impl FillingReport {
    /// The shells as comma-separated values, one row a shell, those along the base after those along the depth; then a
    /// column for the mean enhancement at each frame, named by its time in seconds. What has no finite value is empty.
    pub fn shells_csv(&self) -> String {
        let mut text = String::from(COLUMNS);
        for time in &self.times_s {
            // Whole milliseconds: multiples of a spacing carry the rounding of binary fractions.
            let _ = write!(text, ",enhancement_at_{}_s", (time * 1e3).round() / 1e3);
        }
        text.push('\n');
        for (from, shells) in [("centre", &self.shells), ("base", &self.base_shells)] {
            for (i, shell) in shells.iter().enumerate() {
                let _ = write!(text, "{from},{}", i + 1);
                for value in values(shell) {
                    text.push(',');
                    if value.is_finite() {
                        let _ = write!(text, "{value}");
                    }
                }
                text.push('\n');
            }
        }
        text
    }
}

fn values(shell: &Shell) -> impl Iterator<Item = f64> + '_ {
    let own =
        [shell.from_mm, shell.to_mm, shell.volume_ml, shell.area_mm2, shell.voxels as f64, shell.enhancing_fraction];
    let slowness = [shell.slowness_s_per_mm, shell.slowness_se_s_per_mm];
    let times = shell.arrival_quartiles_s.into_iter().chain(shell.level_quartiles_s);
    own.into_iter().chain(times).chain(slowness).chain(shell.curve.iter().copied())
}
