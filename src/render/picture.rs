//! A finished picture: pixels, PNG, file.

use std::io::Write;
use std::path::{Path, PathBuf};

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

use crate::error::{Error, Result};

/// A picture: 8-bit RGB pixels, the first row on top.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    width: u32,
    height: u32,
    rgb: Vec<u8>,
}

impl std::fmt::Debug for Picture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Picture({} x {})", self.width, self.height)
    }
}

impl Picture {
    /// `rgb` holds three bytes for each of `width * height` pixels.
    pub(super) fn new(width: u32, height: u32, rgb: Vec<u8>) -> Self {
        Self { width, height, rgb }
    }

    /// Width in pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Red, green and blue of every pixel, row by row.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// The colour of a pixel, counted from the upper left corner; `None` outside.
    pub fn pixel(&self, x: u32, y: u32) -> Option<[u8; 3]> {
        if x >= self.width || y >= self.height {
            return None;
        }
        let at = 3 * (y as usize * self.width as usize + x as usize);
        self.rgb.get(at..at + 3)?.try_into().ok()
    }

    /// The picture as the bytes of a PNG file.
    ///
    /// # Errors
    /// [`Error::Io`] if the encoder fails.
    pub fn png(&self) -> Result<Vec<u8>> {
        self.encode(Path::new("PNG"))
    }

    fn encode(&self, path: &Path) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        PngEncoder::new(&mut bytes)
            .write_image(&self.rgb, self.width, self.height, ExtendedColorType::Rgb8)
            .map_err(|problem| Error::io("encode", path, std::io::Error::other(problem)))?;
        Ok(bytes)
    }

    /// Writes the picture as PNG, whatever the name ends in. The file appears whole or not at all: a temporary file
    /// in the same folder is renamed. A file that is there already is replaced.
    ///
    /// # Errors
    /// [`Error::Io`] if the file can't be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        write_whole(path, &self.encode(path)?)
    }
}

/// Writes a file that appears whole or not at all: a temporary file in the same folder is renamed.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = temporary_beside(path);
    let written = std::fs::File::create_new(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    let finished = match written {
        Ok(()) => std::fs::rename(&temporary, path).map_err(|source| Error::io("rename", path, source)),
        Err(source) => Err(Error::io("write", path, source)),
    };
    if finished.is_err() {
        // Whatever went wrong first is what the caller should hear.
        let _ = std::fs::remove_file(&temporary);
    }
    finished
}

/// A name in the same folder that no other thread or process uses.
fn temporary_beside(path: &Path) -> PathBuf {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!(".{name}.{}.{number}.tmp", std::process::id()))
}
