//! What composes kernels: one analysis runs several of them, or measures a whole region from their maps.

pub mod dce;
