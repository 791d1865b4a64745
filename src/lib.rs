//! Perfusion maps from dynamic contrast series, on any GPU, with a CPU reference for every kernel.

mod error;
mod geometry;
mod maps;
pub mod phantom;
mod quantity;
#[cfg(feature = "render")]
pub mod render;
mod series;
pub mod status;
mod time;

pub use error::{Error, Result};
pub use geometry::Geometry;
pub use maps::{Map, MapData, Maps, RunRecord, SettingValue, StageTime};
pub use quantity::{Quantity, SignalKind, Unit};
pub use series::{Mask, Sample, Scaling, Series, VoxelMap, Voxels};
pub use time::{FrameReference, TimeAxis};
