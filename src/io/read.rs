//! From a stream of bytes to samples in their stored type. Nothing is allocated that the file can't justify.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use rayon::prelude::*;

use super::bytes::ByteSource;
use super::cached::is_cached;
use super::header::{ByteOrder, Header, Layout, NIFTI1_BYTES, NIFTI2_BYTES};
use super::members::Members;
use super::memory::Scratch;
use super::names;
use super::options::Storage;
use crate::error::{Error, Result};
use crate::stored::{Place, Stored};
use crate::voxels::{Voxels, swap_samples};

/// Bytes of a file that are read, on all threads, between two looks at whether to go on.
const CHUNK_BYTES: usize = 16 << 20;
/// Bytes that are inflated between two looks, and how many chunks of so many are under way between two threads.
const INFLATED_BYTES: usize = 4 << 20;
const CHUNKS_AHEAD: usize = 8;
/// Bytes of a page of memory, on systems with small ones.
const PAGE_BYTES: usize = 1 << 12;
/// Memory for the two windows of a series in a file, of which one is read while the other is worked on.
const WINDOW_BYTES: u64 = 128 << 20;
/// The same of a file that the system holds in its memory: small enough for a processor's last cache.
const CACHED_WINDOW_BYTES: u64 = 16 << 20;
/// Bytes that one thread turns around at once.
const SWAP_BYTES: usize = 1 << 20;

/// Where samples may be put.
#[derive(Clone, Copy)]
pub(super) struct Room<'a> {
    /// Memory that they may take; `None` for images that are small or have to be in memory.
    pub(super) limit_bytes: Option<u64>,
    /// Where to inflate what is larger.
    pub(super) scratch: Option<&'a Path>,
    /// Whether they may stay in a file that the system holds in its memory.
    pub(super) leave_cached: bool,
}

impl Room<'_> {
    /// Memory, whatever it takes.
    pub(super) const MEMORY: Room<'static> = Room { limit_bytes: None, scratch: None, leave_cached: false };
}

/// Samples where they were put.
pub(super) enum Samples {
    Memory(Voxels),
    Stored(Stored),
}

/// Who is told how far reading is, and who can stop it.
#[derive(Clone, Copy, Default)]
pub(super) struct Watch<'a> {
    pub(super) progress: Option<&'a (dyn Fn(u64, u64) + Send + Sync)>,
    pub(super) cancel: Option<&'a AtomicBool>,
}

impl Watch<'_> {
    fn step(&self, done: u64, total: u64) -> Result<()> {
        if self.cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed)) {
            return Err(Error::Cancelled);
        }
        if let Some(progress) = self.progress {
            progress(done, total);
        }
        Ok(())
    }
}

/// An image as stored.
pub(super) struct Image {
    pub(super) header: Header,
    pub(super) samples: Samples,
    pub(super) storage: Storage,
    pub(super) warnings: Vec<String>,
    /// Bytes of the files that were read.
    pub(super) file_bytes: u64,
    pub(super) compressed: bool,
}

/// Reads an image from one file or from a pair, whichever member is named.
pub(super) fn read_image(path: &Path, room: Room<'_>, watch: Watch<'_>) -> Result<Image> {
    let header_path = match names::is_img(path) {
        true => names::other_member(path, ".hdr"),
        false => None,
    };
    let header_path = header_path.as_deref().unwrap_or(path);
    let mut source = ByteSource::open(header_path)?;
    let header = match read_header(&mut source) {
        Err(Error::File { field, value, .. }) if header_path == path && names::is_img(path) && field == "magic" => {
            let wanted = names::beside(path, ".hdr");
            let mend = format!("samples without a header; the header {} should lie beside it", wanted.display());
            return Err(Error::file(path, "magic", value, mend));
        }
        other => other?,
    };
    match header.layout {
        Layout::Single => read_samples(header, source, room, watch),
        Layout::Pair => {
            let samples_path = if header_path == path {
                names::other_member(path, ".img").ok_or_else(|| {
                    let wanted: PathBuf = names::beside(path, ".img");
                    let mend = format!("its samples should lie in {}, which isn't there", wanted.display());
                    Error::file(path, "magic", "that of a header without samples", mend)
                })?
            } else {
                path.to_path_buf()
            };
            let header_bytes = source.stored_bytes();
            let mut image = read_samples(header, ByteSource::open(&samples_path)?, room, watch)?;
            image.file_bytes += header_bytes;
            Ok(image)
        }
    }
}

/// Reads an image from a file's bytes.
pub(super) fn read_image_bytes(name: &Path, bytes: &[u8], watch: Watch<'_>) -> Result<Image> {
    let mut source = ByteSource::from_slice(name, bytes)?;
    let header = read_header(&mut source)?;
    single_file(&header, name)?;
    read_samples(header, source, Room::MEMORY, watch)
}

/// The bytes of samples that reading these bytes would allocate.
pub(super) fn planned_bytes(name: &Path, bytes: &[u8]) -> Result<u64> {
    let mut source = ByteSource::from_slice(name, bytes)?;
    let header = read_header(&mut source)?;
    single_file(&header, name)?;
    check_room(&header, &source)?;
    Ok(header.data_bytes())
}

fn single_file(header: &Header, name: &Path) -> Result<()> {
    match header.layout {
        Layout::Single => Ok(()),
        Layout::Pair => Err(Error::file(
            name,
            "magic",
            "that of a header without samples",
            "give the bytes of a .nii or .nii.gz file",
        )),
    }
}

/// Reads the header and leaves the stream right behind it.
fn read_header(source: &mut ByteSource<'_>) -> Result<Header> {
    let mut bytes = [0; NIFTI2_BYTES];
    let mut have = source.fill(&mut bytes[..NIFTI1_BYTES])?;
    if have == NIFTI1_BYTES && Header::announced_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) == NIFTI2_BYTES {
        have += source.fill(&mut bytes[NIFTI1_BYTES..])?;
    }
    if bytes[128..132] == *b"DICM" {
        let mend = "convert the series to NIfTI, with dcm2niix for one";
        return Err(Error::file(source.name(), "the file", "DICOM, not NIfTI", mend));
    }
    Header::parse(&bytes[..have], source.name())
}

/// Refuses a header that asks for more than the file can hold, before anything is allocated for it.
fn check_room(header: &Header, source: &ByteSource<'_>) -> Result<()> {
    let needed = header.vox_offset.saturating_add(header.data_bytes());
    let justified = source.justified_bytes();
    if needed <= justified {
        return Ok(());
    }
    let holds = if source.compressed() {
        format!("{} bytes of gzip, {justified} at most when inflated", source.stored_bytes())
    } else {
        format!("{justified} bytes long")
    };
    let field = if header.vox_offset > justified { "vox_offset" } else { "dim" };
    let value = match field {
        "vox_offset" => header.vox_offset.to_string(),
        _ => format!("{:?}", header.dims),
    };
    let mend = format!(
        "the header asks for {needed} bytes ({} before the samples, {} of samples) but the file is {holds}: it is truncated or its header damaged",
        header.vox_offset,
        header.data_bytes()
    );
    Err(Error::file(source.name(), field, value, mend))
}

fn read_samples(header: Header, mut source: ByteSource<'_>, room: Room<'_>, watch: Watch<'_>) -> Result<Image> {
    check_room(&header, &source)?;
    // A header that lies in the same file has been read already.
    let at = match header.layout {
        Layout::Single => header.version.header_bytes(),
        Layout::Pair => 0,
    };
    let to_skip = header.vox_offset - at as u64;
    let skipped = skip(&mut source, to_skip, watch)?;
    if skipped < to_skip {
        return Err(truncated(&header, &source, 0));
    }
    let (file_bytes, compressed, name) = (source.stored_bytes(), source.compressed(), source.name().to_path_buf());
    let large = room.limit_bytes.is_some_and(|limit| header.data_bytes() > limit);
    let window_bytes = room.limit_bytes.unwrap_or(u64::MAX).min(WINDOW_BYTES);
    let end = header.vox_offset + header.data_bytes();
    let cached = |file: &File| room.leave_cached && is_cached(file, header.vox_offset..end);
    let in_file = source.plain_file().map(|file| (cached(&file), file)).filter(|(cached, _)| large || *cached);
    let (samples, storage, left_over) = match in_file {
        Some((cached, file)) => {
            let place = place(&header, name, header.vox_offset);
            let window_bytes = if cached { window_bytes.min(CACHED_WINDOW_BYTES) } else { window_bytes };
            let stored = Stored::new(file, place, window_bytes, cached)?;
            (Samples::Stored(stored), Storage::File, file_bytes.saturating_sub(end))
        }
        None if large => {
            let (file, left_over) = spill(&header, &mut source, room, watch)?;
            let stored = Stored::new(Arc::new(file), place(&header, name, 0), window_bytes, false)?;
            (Samples::Stored(stored), Storage::Scratch, left_over)
        }
        None => {
            let (mut voxels, left_over) = match members(&header, &source, room, watch)? {
                Some(found) => found,
                None => in_memory(&header, &mut source, watch)?,
            };
            if header.order != ByteOrder::NATIVE {
                let size = header.sample.bytes();
                voxels.as_bytes_mut().par_chunks_mut(SWAP_BYTES).for_each(|bytes| swap_samples(bytes, size));
            }
            (Samples::Memory(voxels), Storage::Memory, left_over)
        }
    };
    let mut warnings = header.warnings.clone();
    if left_over > 0 {
        warnings.push(format!("{left_over} bytes behind the samples are ignored"));
    }
    Ok(Image { header, samples, storage, warnings, file_bytes, compressed })
}

fn place(header: &Header, path: PathBuf, offset: u64) -> Place {
    let voxels = header.dims.iter().take(3).product();
    Place {
        path,
        offset,
        sample: header.sample,
        swapped: header.order != ByteOrder::NATIVE,
        voxels,
        frames: header.samples() / voxels,
    }
}

/// Reads past this many bytes, or to the end, and says how many there were.
fn skip(source: &mut ByteSource<'_>, bytes: u64, watch: Watch<'_>) -> Result<u64> {
    if let Some(skipped) = source.seek(bytes) {
        return Ok(skipped);
    }
    let mut scratch = vec![0; 1 << 16];
    let mut skipped = 0;
    while skipped < bytes {
        let wanted = (bytes - skipped).min(scratch.len() as u64) as usize;
        let got = source.fill(&mut scratch[..wanted])?;
        skipped += got as u64;
        if got < wanted {
            break;
        }
        if watch.cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed)) {
            return Err(Error::Cancelled);
        }
    }
    Ok(skipped)
}

/// Memory for so many samples; none of it is touched yet.
fn room_for(header: &Header, samples: usize, name: &Path) -> Result<Voxels> {
    Voxels::zeros(header.sample, samples).ok_or_else(|| {
        let mend = format!(
            "this machine has no {} bytes of memory left for the samples; set a limit (ReadOptions::memory_limit_bytes), so that they stay in a file, or free memory",
            header.data_bytes()
        );
        Error::file(name, "dim", format!("{:?}", header.dims), mend)
    })
}

/// Reads straight into the memory that the series keeps, and says how many bytes follow. Memory is touched only for samples
/// that exist.
fn in_memory(header: &Header, source: &mut ByteSource<'_>, watch: Watch<'_>) -> Result<(Voxels, u64)> {
    let total = header.data_bytes();
    let mut voxels = room_for(header, header.samples(), source.name())?;
    let (in_chunks, mut done) = (source.compressed() && total > INFLATED_BYTES as u64, 0u64);
    let mut read = |chunk: &mut [u8]| {
        watch.step(done, total)?;
        let got = source.fill(chunk)?;
        done += got as u64;
        if got < chunk.len() { Err(truncated(header, source, done)) } else { Ok(()) }
    };
    if in_chunks {
        for_each_touched(voxels.as_bytes_mut(), &mut read)?;
    } else {
        voxels.as_bytes_mut().chunks_mut(CHUNK_BYTES).try_for_each(&mut read)?;
    }
    // To the very end, so that gzip's checksums are checked.
    let left_over = skip(source, u64::MAX, watch)?;
    watch.step(total, total)?;
    Ok((voxels, left_over))
}

/// Hands over chunk after chunk, while another thread touches the next ones for the first time: one thread alone would spend
/// a quarter of the time that inflating takes on that.
fn for_each_touched(bytes: &mut [u8], mut work: impl FnMut(&mut [u8]) -> Result<()>) -> Result<()> {
    let (touched, chunks) = mpsc::sync_channel(CHUNKS_AHEAD);
    std::thread::scope(|scope| {
        let all = bytes.chunks_mut(INFLATED_BYTES);
        scope.spawn(move || {
            for chunk in all {
                for page in chunk.chunks_mut(PAGE_BYTES) {
                    page[0] = std::hint::black_box(0);
                }
                // Nobody listens any more where reading failed.
                if touched.send(chunk).is_err() {
                    break;
                }
            }
        });
        chunks.into_iter().try_for_each(&mut work)
    })
}

/// Inflates a file of several members on all threads, where it and what comes out fit in memory; says how many bytes follow
/// the samples. `None` if that is not what the file is.
fn members(
    header: &Header,
    source: &ByteSource<'_>,
    room: Room<'_>,
    watch: Watch<'_>,
) -> Result<Option<(Voxels, u64)>> {
    let total = header.data_bytes();
    let needed = header.vox_offset + total;
    let limit = room.limit_bytes.unwrap_or(u64::MAX);
    if needed.saturating_add(source.stored_bytes()) > limit || !source.denies_length(needed)? {
        return Ok(None);
    }
    let stored = source.all_stored()?;
    let Some(members) = Members::find(&stored) else { return Ok(None) };
    let inflated = members.inflated_bytes();
    if inflated < needed || inflated.saturating_add(source.stored_bytes()) > limit.min(source.justified_bytes()) {
        return Ok(None);
    }
    // The header comes first: what follows it is moved to the front in the end.
    let size = header.sample.bytes();
    let mut voxels = room_for(header, (inflated as usize).div_ceil(size), source.name())?;
    let done = AtomicU64::new(0);
    let outcome = members.inflate(&stored, &mut voxels.as_bytes_mut()[..inflated as usize], |bytes| {
        let done = done.fetch_add(bytes as u64, Ordering::Relaxed);
        watch.step(done.min(total), total).map_err(io::Error::other)
    });
    watch.step(0, total)?;
    // Whatever is wrong, reading it as a stream will tell, or show that nothing is.
    if outcome.is_err() {
        return Ok(None);
    }
    let from = header.vox_offset as usize;
    voxels.as_bytes_mut().copy_within(from..from + total as usize, 0);
    voxels.resize(header.samples());
    watch.step(total, total)?;
    Ok(Some((voxels, inflated - needed)))
}

/// Inflates all samples to a temporary file, and says how many bytes followed them. Another thread writes.
fn spill(header: &Header, source: &mut ByteSource<'_>, room: Room<'_>, watch: Watch<'_>) -> Result<(File, u64)> {
    let total = header.data_bytes();
    let mut scratch = Scratch::new(room.scratch, total)?;
    let (full, chunks) = mpsc::sync_channel::<Vec<u8>>(CHUNKS_AHEAD);
    let (empty, returned) = mpsc::sync_channel::<Vec<u8>>(CHUNKS_AHEAD);
    let file = std::thread::scope(|scope| {
        let write = scope.spawn(move || {
            for chunk in chunks {
                scratch.write(&chunk)?;
                // Whoever inflates may be done already.
                let _ = empty.try_send(chunk);
            }
            Ok(scratch.into_file())
        });
        let mut done = 0;
        while done < total {
            watch.step(done, total)?;
            let mut chunk = returned.try_recv().unwrap_or_default();
            chunk.resize((total - done).min(INFLATED_BYTES as u64) as usize, 0);
            let got = source.fill(&mut chunk)?;
            done += got as u64;
            if got < chunk.len() {
                return Err(truncated(header, source, done));
            }
            if full.send(chunk).is_err() {
                // Writing failed: its error is the one to tell.
                break;
            }
        }
        drop(full);
        write.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    let left_over = skip(source, u64::MAX, watch)?;
    watch.step(total, total)?;
    Ok((file, left_over))
}

fn truncated(header: &Header, source: &ByteSource<'_>, found: u64) -> Error {
    let mend = format!(
        "dim {:?} and datatype need {} bytes from byte {} on: the file is truncated, copy or convert it again",
        header.dims,
        header.data_bytes(),
        header.vox_offset
    );
    Error::file(source.name(), "the samples", format!("{found} bytes long"), mend)
}
