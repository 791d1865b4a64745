//! Cines as files: GIF, APNG, numbered PNG.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::film::Film;
use super::palette::{Palette, UNCHANGED};
use crate::error::{Error, Result};
use crate::render::picture::{Picture, write_whole};

/// Frames drawn at once: what is waiting to be written stays small.
const BATCH: usize = 16;
/// Frames from which the palette takes its colours.
const PALETTE_FRAMES: usize = 6;

impl Film {
    /// All frames as an animated GIF that begins anew at its end: one palette for all frames (greys in 64 steps, the colour
    /// map in 128), no dithering; of each frame only what changed. The same film gives the same bytes.
    ///
    /// # Errors
    /// [`Error::Cancelled`]; [`Error::Io`] if the encoder fails.
    pub fn gif(&self) -> Result<Vec<u8>> {
        let failed = |problem: gif::EncodingError| Error::io("encode", "the cine", std::io::Error::other(problem));
        let (width, height) = self.size();
        let step = self.len().div_ceil(PALETTE_FRAMES);
        let few: Vec<usize> = (0..self.len()).rev().step_by(step).collect();
        let few: Vec<Picture> = few.into_par_iter().map(|frame| self.frame(frame)).collect::<Result<_>>()?;
        let palette = Palette::new(self.colormap, &few);
        drop(few);

        let mut bytes = Vec::new();
        // At most 2400 pixels wide, so that both sides fit into 16 bits.
        let sides = (width as u16, height as u16);
        let mut encoder = gif::Encoder::new(&mut bytes, sides.0, sides.1, &palette.bytes()).map_err(failed)?;
        encoder.set_repeat(gif::Repeat::Infinite).map_err(failed)?;
        let mut before: Option<Vec<u8>> = None;
        let done = AtomicUsize::new(0);
        for first in (0..self.len()).step_by(BATCH) {
            let frames = first..(first + BATCH).min(self.len());
            let drawn: Vec<Vec<u8>> = frames
                .clone()
                .into_par_iter()
                .map(|frame| {
                    let indices = palette.indices(&self.frame(frame)?);
                    self.tell(&done);
                    Ok(indices)
                })
                .collect::<Result<_>>()?;
            let encoded: Vec<gif::Frame<'static>> = (0..drawn.len())
                .into_par_iter()
                .map(|i| {
                    let earlier = if i == 0 { before.as_deref() } else { Some(&drawn[i - 1][..]) };
                    let mut frame = changed(&drawn[i], earlier, sides);
                    frame.delay = self.delays_cs()[first + i];
                    frame.make_lzw_pre_encoded();
                    frame
                })
                .collect();
            for frame in &encoded {
                encoder.write_lzw_pre_encoded_frame(frame).map_err(failed)?;
            }
            before = drawn.into_iter().last();
        }
        drop(encoder);
        Ok(bytes)
    }

    /// Writes [`gif`](Self::gif) to a file, which appears whole or not at all and replaces one that is there.
    ///
    /// # Errors
    /// Those of [`gif`](Self::gif), and [`Error::Io`] if the file can't be written.
    pub fn save_gif(&self, path: impl AsRef<Path>) -> Result<()> {
        write_whole(path.as_ref(), &self.gif()?)
    }

    /// Writes all frames as one animated PNG in full colour: exact colours, several times as large as the GIF. The file
    /// appears whole or not at all and replaces one that is there.
    ///
    /// # Errors
    /// [`Error::Cancelled`]; [`Error::Io`] if the file can't be written.
    pub fn save_apng(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let failed = |problem: png::EncodingError| Error::io("encode", path, std::io::Error::other(problem));
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.size().0, self.size().1);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_animated(self.len() as u32, 0).map_err(failed)?;
        let mut writer = encoder.write_header().map_err(failed)?;
        let done = AtomicUsize::new(0);
        for first in (0..self.len()).step_by(BATCH) {
            let frames = first..(first + BATCH).min(self.len());
            let drawn: Vec<Picture> = frames.into_par_iter().map(|frame| self.frame(frame)).collect::<Result<_>>()?;
            for (i, picture) in drawn.iter().enumerate() {
                self.cancel.check()?;
                writer.set_frame_delay(self.delays_cs()[first + i], 100).map_err(failed)?;
                writer.write_image_data(picture.rgb()).map_err(failed)?;
                self.tell(&done);
            }
        }
        writer.finish().map_err(failed)?;
        write_whole(path, &bytes)
    }

    /// Writes every frame as `DIR/frame_0001.png` and so on, counted from 1; the folder is made if it isn't there. Each file
    /// appears whole or not at all and replaces one that is there. Returns the files in order.
    ///
    /// # Errors
    /// [`Error::Cancelled`]; [`Error::Io`] if a file can't be written.
    pub fn save_frames(&self, folder: impl AsRef<Path>) -> Result<Vec<PathBuf>> {
        let folder = folder.as_ref();
        std::fs::create_dir_all(folder).map_err(|source| Error::io("create", folder, source))?;
        let digits = self.len().to_string().len().max(4);
        let done = AtomicUsize::new(0);
        let write = |frame: usize| {
            let path = folder.join(format!("frame_{:0digits$}.png", frame + 1));
            self.frame(frame)?.save(&path)?;
            self.tell(&done);
            Ok(path)
        };
        (0..self.len()).into_par_iter().map(write).collect()
    }

    fn tell(&self, done: &AtomicUsize) {
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(progress) = &self.progress {
            progress(done, self.len());
        }
    }
}

/// The box of pixels that changed, with those in it that didn't as [`UNCHANGED`].
fn changed(now: &[u8], before: Option<&[u8]>, (width, height): (u16, u16)) -> gif::Frame<'static> {
    let row = usize::from(width);
    let Some(before) = before else {
        return gif::Frame { width, height, buffer: Cow::Owned(now.to_vec()), ..gif::Frame::default() };
    };
    let differs = |index: usize| now[index] != before[index];
    let rows: Vec<usize> =
        (0..usize::from(height)).filter(|y| now[y * row..(y + 1) * row] != before[y * row..(y + 1) * row]).collect();
    let (top, foot) = (rows.first().copied().unwrap_or(0), rows.last().copied().unwrap_or(0));
    let in_some_row = |x: usize| (top..=foot).any(|y| differs(y * row + x));
    let left = (0..row).find(|x| in_some_row(*x)).unwrap_or(0);
    let right = (0..row).rev().find(|x| in_some_row(*x)).unwrap_or(0);
    let pixels = (top..=foot).flat_map(|y| (left..=right).map(move |x| y * row + x));
    let buffer: Vec<u8> = pixels.map(|index| if differs(index) { now[index] } else { UNCHANGED }).collect();
    gif::Frame {
        left: left as u16,
        top: top as u16,
        width: (right - left + 1) as u16,
        height: (foot - top + 1) as u16,
        buffer: Cow::Owned(buffer),
        transparent: Some(UNCHANGED),
        dispose: gif::DisposalMethod::Keep,
        ..gif::Frame::default()
    }
}
