//! What composes kernels: one analysis runs several of them, or measures a whole region from their maps and neighbourhood.

pub mod dce;
pub mod filling;
