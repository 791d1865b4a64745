//! Kernels: what is computed per voxel. One file (or folder) per kernel, one shader of the same name.

mod arithmetic;
pub mod concentration;
pub mod descriptors;
pub mod filling_time;
pub mod fit;
pub mod t1;
