//! From a stream of bytes to samples in their stored type. Nothing is allocated that the file can't justify.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use bytemuck::Pod;

use super::bytes::ByteSource;
use super::header::{ByteOrder, Header, Layout, NIFTI1_BYTES, NIFTI2_BYTES, SampleType};
use super::names;
use crate::error::{Error, Result};
use crate::series::Voxels;

/// Samples are read in pieces that stay in the processor's cache while they are inflated and swapped.
const CHUNK_BYTES: usize = 1 << 20;

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
    pub(super) voxels: Voxels,
    pub(super) warnings: Vec<String>,
    /// Bytes of the files that were read.
    pub(super) file_bytes: u64,
    pub(super) compressed: bool,
}

/// Reads an image from one file or from a pair, whichever member is named.
pub(super) fn read_image(path: &Path, watch: Watch<'_>) -> Result<Image> {
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
        Layout::Single => read_samples(header, source, watch),
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
            let mut image = read_samples(header, ByteSource::open(&samples_path)?, watch)?;
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
    read_samples(header, source, watch)
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

fn read_samples(header: Header, mut source: ByteSource<'_>, watch: Watch<'_>) -> Result<Image> {
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
    let voxels = match header.sample {
        SampleType::U8 => Voxels::U8(samples::<u8, 1>(&header, &mut source, watch)?),
        SampleType::I8 => Voxels::I8(samples::<i8, 1>(&header, &mut source, watch)?),
        SampleType::U16 => Voxels::U16(samples::<u16, 2>(&header, &mut source, watch)?),
        SampleType::I16 => Voxels::I16(samples::<i16, 2>(&header, &mut source, watch)?),
        SampleType::U32 => Voxels::U32(samples::<u32, 4>(&header, &mut source, watch)?),
        SampleType::I32 => Voxels::I32(samples::<i32, 4>(&header, &mut source, watch)?),
        SampleType::U64 => Voxels::U64(samples::<u64, 8>(&header, &mut source, watch)?),
        SampleType::I64 => Voxels::I64(samples::<i64, 8>(&header, &mut source, watch)?),
        SampleType::F32 => Voxels::F32(samples::<f32, 4>(&header, &mut source, watch)?),
        SampleType::F64 => Voxels::F64(samples::<f64, 8>(&header, &mut source, watch)?),
    };
    let mut warnings = header.warnings.clone();
    // To the very end, so that gzip's check sums are checked.
    let left_over = skip(&mut source, u64::MAX, watch)?;
    if left_over > 0 {
        warnings.push(format!("{left_over} bytes behind the samples are ignored"));
    }
    Ok(Image { header, voxels, warnings, file_bytes: source.stored_bytes(), compressed: source.compressed() })
}

/// Reads past this many bytes, or to the end, and says how many there were.
fn skip(source: &mut ByteSource<'_>, bytes: u64, watch: Watch<'_>) -> Result<u64> {
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

/// Reads straight into the vector that the series keeps. It grows within its reservation as bytes arrive, so memory is
/// touched once and only for samples that exist.
fn samples<T: Pod, const N: usize>(header: &Header, source: &mut ByteSource<'_>, watch: Watch<'_>) -> Result<Vec<T>> {
    let count = header.samples();
    let total = header.data_bytes();
    let mut samples: Vec<T> = Vec::new();
    samples.try_reserve_exact(count).map_err(|_| {
        let mend =
            format!("this machine has no {total} bytes of memory left for the samples; crop the series or free memory");
        Error::file(source.name(), "dim", format!("{:?}", header.dims), mend)
    })?;
    while samples.len() < count {
        watch.step((samples.len() * N) as u64, total)?;
        let start = samples.len();
        samples.resize((start + CHUNK_BYTES / N).min(count), T::zeroed());
        let chunk: &mut [u8] = bytemuck::cast_slice_mut(&mut samples[start..]);
        let got = source.fill(chunk)?;
        if got < chunk.len() {
            return Err(truncated(header, source, (start * N + got) as u64));
        }
        if N > 1 && header.order != ByteOrder::NATIVE {
            chunk.as_chunks_mut::<N>().0.iter_mut().for_each(|sample| sample.reverse());
        }
    }
    watch.step(total, total)?;
    Ok(samples)
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
