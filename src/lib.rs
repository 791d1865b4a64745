//! Perfusion maps from dynamic contrast series, on any GPU, with a CPU reference for every kernel.

pub mod engine;
mod error;
mod geometry;
#[cfg(feature = "nifti")]
pub mod io;
pub mod kernel;
pub mod kernels;
mod maps;
pub mod phantom;
mod quantity;
pub mod reduction;
#[cfg(feature = "render")]
pub mod render;
mod series;
pub mod status;
mod time;

pub use engine::{Cancel, Engine, NonFinite, RunOptions, Verification};
pub use error::{Error, Result};
pub use geometry::Geometry;
pub use kernels::descriptors::Descriptors;
pub use maps::{Map, MapData, Maps, RunRecord, SettingValue, StageTime};
pub use quantity::{Quantity, SignalKind, Unit};
pub use series::{Mask, Sample, Scaling, Series, VoxelMap, Voxels};
pub use time::{FrameReference, TimeAxis};
