//! What is measured of a whole region, from maps and their neighbourhood: analyses compose kernels.

pub mod filling;
