//! Kernels: what is computed per voxel. One file (or folder) per kernel, one shader of the same name.

pub mod descriptors;
pub mod filling_time;
