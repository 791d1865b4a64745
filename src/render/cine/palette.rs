//! The colours of a GIF: chosen once for all frames, so that nothing flickers, and never dithered.

use std::collections::HashMap;

use crate::render::colormap::Colormap;
use crate::render::picture::Picture;
use crate::render::planes::dark::{FAINT_INK, GRID, GROUND, INK, MARK};

/// The index that leaves a pixel as it is.
pub(super) const UNCHANGED: u8 = 255;
const GREYS: usize = 64;
const COLORS: usize = 128;
/// Squared distance at which a colour counts as another one.
const APART: i32 = 300;

/// At most 255 colours: greys, the colour map, those of lines and letters, and whatever else is frequent in some frames.
pub(super) struct Palette {
    colors: Vec<[u8; 3]>,
}

fn distance(a: [u8; 3], b: [u8; 3]) -> i32 {
    (0..3).map(|c| (i32::from(a[c]) - i32::from(b[c])).pow(2)).sum()
}

impl Palette {
    pub(super) fn new(colormap: Colormap, frames: &[Picture]) -> Self {
        let mut colors = vec![GROUND, INK, FAINT_INK, GRID, MARK];
        colors.extend((0..GREYS).map(|i| Colormap::Grey.color(i as f64 / (GREYS - 1) as f64)));
        if colormap != Colormap::Grey {
            colors.extend((0..COLORS).map(|i| colormap.color(i as f64 / (COLORS - 1) as f64)));
        }
        let mut palette = Self { colors };
        // Isochrones, and the soft edges of lines: the most frequent of the colours that are far from all there are.
        let mut memory = HashMap::new();
        let mut counts: HashMap<[u8; 3], u32> = HashMap::new();
        for frame in frames {
            for color in frame.rgb().chunks_exact(3) {
                let color = [color[0], color[1], color[2]];
                let known = palette.colors[usize::from(palette.nearest(color, &mut memory))];
                if distance(color, known) > APART {
                    *counts.entry(color).or_insert(0) += 1;
                }
            }
        }
        let mut rest: Vec<([u8; 3], u32)> = counts.into_iter().collect();
        rest.sort_unstable_by_key(|(color, count)| (std::cmp::Reverse(*count), *color));
        for (color, _) in rest {
            if palette.colors.len() >= usize::from(UNCHANGED) {
                break;
            }
            if palette.colors.iter().all(|known| distance(*known, color) > APART) {
                palette.colors.push(color);
            }
        }
        palette
    }

    /// Red, green and blue of all 256 entries.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.colors.concat();
        bytes.resize(3 * 256, 0);
        bytes
    }

    /// The nearest colour; the memory keeps what was found.
    fn nearest(&self, color: [u8; 3], memory: &mut HashMap<[u8; 3], u8>) -> u8 {
        *memory.entry(color).or_insert_with(|| {
            let all = self.colors.iter().enumerate();
            all.min_by_key(|(_, known)| distance(**known, color)).map_or(0, |(index, _)| index as u8)
        })
    }

    /// A picture as indices.
    pub(super) fn indices(&self, picture: &Picture) -> Vec<u8> {
        let mut memory = HashMap::new();
        let mut last = ([0; 3], self.nearest([0; 3], &mut memory));
        let pixels = picture.rgb().chunks_exact(3).map(|color| {
            let color = [color[0], color[1], color[2]];
            // Neighbours are mostly alike.
            if color != last.0 {
                last = (color, self.nearest(color, &mut memory));
            }
            last.1
        });
        pixels.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greys_and_colours_of_the_map_survive() {
        let mut rgb = Vec::new();
        for i in 0..=255u8 {
            rgb.extend([i, i, i]);
            rgb.extend(Colormap::Inferno.color(f64::from(i) / 255.0));
        }
        let picture = Picture::new(512, 1, rgb);
        let palette = Palette::new(Colormap::Inferno, std::slice::from_ref(&picture));
        assert!(palette.colors.len() <= 255);
        for (index, color) in palette.indices(&picture).iter().zip(picture.rgb().chunks_exact(3)) {
            let found = palette.colors[usize::from(*index)];
            assert!((0..3).all(|c| found[c].abs_diff(color[c]) <= 5), "{color:?} became {found:?}");
        }
    }

    #[test]
    fn frequent_other_colours_get_a_place() {
        let rgb: Vec<u8> = (0..4000).flat_map(|i| if i % 2 == 0 { [12, 220, 230] } else { [0, 90, 255] }).collect();
        let picture = Picture::new(4000, 1, rgb);
        let palette = Palette::new(Colormap::Inferno, std::slice::from_ref(&picture));
        for (i, index) in palette.indices(&picture).iter().enumerate() {
            assert_eq!(palette.colors[usize::from(*index)], picture.pixel(i as u32, 0).unwrap());
        }
    }
}
