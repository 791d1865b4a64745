//! Files: NIfTI images in, NIfTI maps with JSON beside them out.
//!
//! Reading is [`Series::open`](crate::Series::open), [`Mask::open`](crate::Mask::open) and
//! [`VoxelMap::open`](crate::VoxelMap::open).
//!
//! What a file says is never believed before it is checked: a header that asks for more memory than the file can justify
//! (gzip expands at most 1032 times) is refused before anything is allocated for it, and every error names the file, the
//! field, the value found there and the mend.

mod bytes;
mod header;
mod names;
mod open;
mod options;
mod read;
mod times;

pub use options::{ReadOptions, ReadProgress, ReadReport};

/// The bytes of samples that reading these bytes would allocate; for the tests that feed it damaged files.
#[doc(hidden)]
pub fn planned_bytes(bytes: &[u8]) -> crate::Result<u64> {
    read::planned_bytes(std::path::Path::new("bytes"), bytes)
}
