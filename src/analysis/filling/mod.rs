//! How a lesion fills: the origin, direction, speed and extent of its enhancement, each with its uncertainty.
//!
//! [`FillingPattern::run`] takes a series and the lesion's mask and gives a [`FillingReport`]: filling times two ways, their
//! shells, the centrifugality index, the origin, the apparent speed of the front, how much enhances, and a description in
//! words that says no more than its intervals carry. It describes; it doesn't diagnose.
//!
//! | file | subject |
//! |---|---|
//! | `times.rs` | filling times of the voxels, by [`crate::kernels::filling_time`] |
//! | `lesion.rs`, `distance.rs`, `places.rs` | the lesion's voxels; depth and paths inside it; base, origin and world |
//! | `somers.rs` | the rank measure, with censoring |
//! | `noise.rs`, `correlogram.rs`, `simulation.rs`, `statistics.rs` | what makes it uncertain: noise, tissue, estimator |
//! | `direction.rs`, `origin.rs`, `front_speed.rs`, `shells.rs` | what is found |
//! | `smooth.rs`, `local_fit.rs` | smoothing inside the lesion; smoothed maps with gradients |
//! | `report.rs`, `description.rs`, `fields.rs`, `json.rs` | how it is told: numbers, words, maps, a file |

mod correlogram;
mod csv;
mod description;
mod direction;
pub mod distance;
mod fields;
mod front_speed;
#[cfg(feature = "nifti")]
mod json;
mod lesion;
mod local_fit;
mod noise;
mod origin;
mod places;
pub mod report;
mod run;
mod settings;
mod shells;
mod simulation;
mod smooth;
pub mod somers;
mod statistics;
mod times;

pub use report::FillingReport;
pub use settings::{FillingPattern, Rim};
