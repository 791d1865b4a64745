//! Files: NIfTI images in, NIfTI maps with JSON beside them out.
//!
//! Reading is [`Series::open`](crate::Series::open), [`Mask::open`](crate::Mask::open) and
//! [`VoxelMap::open`](crate::VoxelMap::open); writing is [`Maps::save`](crate::Maps::save), and `save` on the other three.
//!
//! What a file says is never believed before it is checked: a header that asks for more memory than the file can justify
//! (gzip expands at most 1032 times) is refused before anything is allocated for it, and every error names the file, the
//! field, the value found there and the mend. What is written appears whole or not at all.
//!
//! | file | what it does |
//! |---|---|
//! | `gzip.rs`, `members.rs` | gzip files to bytes: as a stream, and several members at once |
//! | `pack.rs` | bytes to a gzip file |
//! | `bytes.rs` | a file's bytes, inflated, and how many of them can be justified |
//! | `memory.rs` | how much memory there is, and files for what doesn't fit |
//! | `cached.rs` | whether the system holds a file in its memory |
//! | `header.rs`, `header/` | NIfTI-1 and NIfTI-2 headers: the struct, from bytes, to bytes |
//! | `read.rs` | bytes to samples in their stored type |
//! | `times.rs` | the time axis: caller, sidecar, header |
//! | `open.rs` | images to series, masks and maps |
//! | `encode.rs` | samples to bytes |
//! | `staged.rs` | temporary names and renaming |
//! | `records.rs`, `regions.rs` | the JSON and CSV beside the maps |
//! | `save.rs` | maps, series and masks to files |

mod bytes;
mod cached;
mod encode;
mod gzip;
mod header;
mod members;
mod memory;
mod names;
mod open;
mod options;
mod pack;
mod read;
mod records;
mod regions;
mod save;
mod staged;
mod times;

pub use options::{
    Compression, Overwrite, ReadOptions, ReadProgress, ReadReport, SaveOptions, SaveProgress, SaveReport, Storage,
};

/// The bytes of samples that reading these bytes would allocate; for the tests that feed it damaged files.
#[doc(hidden)]
pub fn planned_bytes(bytes: &[u8]) -> crate::Result<u64> {
    read::planned_bytes(std::path::Path::new("bytes"), bytes)
}
