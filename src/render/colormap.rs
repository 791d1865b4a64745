//! Colours for numbers and for labels.

/// How numbers become colours. All maps are perceptually uniform: equal steps of the value look equally far apart, in
/// grey print too (each half of the diverging map for itself).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Colormap {
    /// Dark violet, blue, green, yellow.
    #[default]
    Viridis,
    /// Black, purple, red, yellow.
    Inferno,
    /// Black, purple, pink, cream.
    Magma,
    /// Black to white.
    Grey,
    /// Blue, white, red: for signed numbers, white in the middle of the range.
    Diverging,
}

// Viridis, inferno and magma by S. van der Walt and N. Smith (CC0): every eighth of their 256 entries. Linear
// interpolation between these stays within two steps of 255 of the original.
const VIRIDIS: [u32; 33] = [
    0x440154, 0x470d60, 0x48186a, 0x482374, 0x472d7b, 0x453681, 0x424086, 0x3f4989, 0x3b528b, 0x375a8d, 0x33638d,
    0x2f6a8e, 0x2c728e, 0x297a8e, 0x26818e, 0x23898e, 0x21908c, 0x1f988b, 0x1f9f88, 0x21a685, 0x28ae80, 0x31b57b,
    0x3ebc74, 0x4cc26c, 0x5dc963, 0x6ece58, 0x82d34c, 0x96d83f, 0xabdc32, 0xc0df24, 0xd5e21a, 0xeae51a, 0xfde725,
];
const MAGMA: [u32; 33] = [
    0x000004, 0x030311, 0x0a0822, 0x130d33, 0x1d1146, 0x28115a, 0x36106a, 0x430f76, 0x50127c, 0x5d177f, 0x691c81,
    0x762181, 0x822681, 0x8f2a81, 0x9c2e7f, 0xa9327d, 0xb63779, 0xc33b75, 0xcf4170, 0xdb486a, 0xe65163, 0xee5c5e,
    0xf5695c, 0xf9785d, 0xfb8761, 0xfd9668, 0xfea571, 0xfeb47b, 0xfec387, 0xfed194, 0xfde0a2, 0xfceeb0, 0xfcfdbf,
];
const INFERNO: [u32; 33] = [
    0x000004, 0x040312, 0x0b0724, 0x150b37, 0x210c4a, 0x2e0a5a, 0x3c0965, 0x4a0c6b, 0x57106d, 0x63146e, 0x70196e,
    0x7d1e6d, 0x89226a, 0x962766, 0xa32b61, 0xaf315c, 0xbb3755, 0xc63e4d, 0xd14644, 0xdb4f3b, 0xe35932, 0xeb6528,
    0xf1711e, 0xf67f14, 0xf98d0a, 0xfb9c06, 0xfcab0f, 0xfbba1f, 0xf9ca32, 0xf5d949, 0xf2e865, 0xf3f586, 0xfcffa4,
];

fn rgb(code: u32) -> [u8; 3] {
    [(code >> 16) as u8, (code >> 8) as u8, code as u8]
}

impl Colormap {
    /// Red, green and blue for a fraction of the range; below 0 and above 1 the end colours, for NaN
    /// [`no_value`](Self::no_value).
    pub fn color(self, fraction: f64) -> [u8; 3] {
        if fraction.is_nan() {
            return self.no_value();
        }
        let f = fraction.clamp(0.0, 1.0);
        match self {
            Colormap::Viridis => between(&VIRIDIS, f),
            Colormap::Inferno => between(&INFERNO, f),
            Colormap::Magma => between(&MAGMA, f),
            Colormap::Grey => [(255.0 * f).round() as u8; 3],
            Colormap::Diverging => {
                // Lightness and chroma alike on both sides; the chroma is the largest that screens show there.
                let signed = 2.0 * f - 1.0;
                let strength = signed.abs();
                let (hue, chroma) = if signed < 0.0 { (255.0, 0.15) } else { (29.0, 0.17) };
                oklch(0.97 - 0.53 * strength, chroma * strength, hue)
            }
        }
    }

    /// The colour of voxels without a value: never a colour of the map.
    pub fn no_value(self) -> [u8; 3] {
        match self {
            Colormap::Viridis | Colormap::Inferno | Colormap::Magma => [222, 222, 226],
            Colormap::Grey => [71, 92, 122],
            Colormap::Diverging => [96, 96, 100],
        }
    }
}

fn between(table: &[u32; 33], fraction: f64) -> [u8; 3] {
    let position = fraction * (table.len() - 1) as f64;
    let low = (position as usize).min(table.len() - 2);
    let share = position - low as f64;
    let (a, b) = (rgb(table[low]), rgb(table[low + 1]));
    std::array::from_fn(|i| (f64::from(a[i]) + share * (f64::from(b[i]) - f64::from(a[i]))).round() as u8)
}

/// A colour for a label: 0 is light grey (no answer); the first eight are those of Okabe and Ito, which the colour-blind tell
/// apart too; further ones go around the colour circle by the golden angle.
pub fn label_color(label: u32) -> [u8; 3] {
    const FIRST: [u32; 8] = [0x0072b2, 0xe69f00, 0x009e73, 0xd55e00, 0xcc79a7, 0x56b4e9, 0xf0e442, 0x5c5c5c];
    match label {
        0 => [228, 228, 231],
        1..=8 => rgb(FIRST[label as usize - 1]),
        _ => {
            let hue = f64::from(label) * 137.507_764;
            oklch([0.45, 0.6, 0.75][label as usize % 3], 0.13, hue % 360.0)
        }
    }
}

/// Lightness 0 to 1, chroma, hue in degrees (B. Ottosson's Oklab) to sRGB, clipped to what screens show.
pub(super) fn oklch(lightness: f64, chroma: f64, hue_deg: f64) -> [u8; 3] {
    let (sin, cos) = hue_deg.to_radians().sin_cos();
    let (a, b) = (chroma * cos, chroma * sin);
    let l = (lightness + 0.396_337_777_4 * a + 0.215_803_757_3 * b).powi(3);
    let m = (lightness - 0.105_561_345_8 * a - 0.063_854_172_8 * b).powi(3);
    let s = (lightness - 0.089_484_177_5 * a - 1.291_485_548 * b).powi(3);
    let linear = [
        4.076_741_662_1 * l - 3.307_711_591_3 * m + 0.230_969_929_2 * s,
        -1.268_438_004_6 * l + 2.609_757_401_1 * m - 0.341_319_396_5 * s,
        -0.004_196_086_3 * l - 0.703_418_614_7 * m + 1.707_614_701 * s,
    ];
    linear.map(|c| {
        let c = c.clamp(0.0, 1.0);
        let gamma = if c <= 0.003_130_8 { 12.92 * c } else { 1.055 * c.powf(1.0 / 2.4) - 0.055 };
        (255.0 * gamma).round() as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Colormap; 5] =
        [Colormap::Viridis, Colormap::Inferno, Colormap::Magma, Colormap::Grey, Colormap::Diverging];

    /// Lightness L* of CIELAB.
    fn lightness(color: [u8; 3]) -> f64 {
        let linear = color.map(|c| {
            let c = f64::from(c) / 255.0;
            if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        });
        let y = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
        116.0 * y.cbrt() - 16.0
    }

    #[test]
    fn lightness_rises_steadily() {
        for map in ALL.into_iter().filter(|m| *m != Colormap::Diverging) {
            let steps: Vec<f64> = (0..=32).map(|i| lightness(map.color(f64::from(i) / 32.0))).collect();
            assert!(steps.windows(2).skip(1).all(|w| w[1] > w[0]), "{map:?}: {steps:?}");
        }
        let sides: Vec<f64> = (0..=32).map(|i| lightness(Colormap::Diverging.color(f64::from(i) / 32.0))).collect();
        assert!(sides[..17].windows(2).all(|w| w[1] > w[0]) && sides[16..].windows(2).all(|w| w[1] < w[0]));
        assert!((sides[0] - sides[32]).abs() < 6.0, "{sides:?}");
    }

    #[test]
    fn no_value_is_no_colour_of_the_map() {
        for map in ALL {
            let none = map.no_value().map(i32::from);
            for i in 0..=1000 {
                let color = map.color(f64::from(i) / 1000.0).map(i32::from);
                let apart = (0..3).map(|c| (color[c] - none[c]).abs()).max().unwrap_or(0);
                assert!(apart > 20, "{map:?} at {i}: {color:?}");
            }
            assert_eq!(map.color(f64::NAN), map.no_value());
            assert_eq!(map.color(-1.0), map.color(0.0));
            assert_eq!(map.color(f64::INFINITY), map.color(1.0));
        }
    }

    #[test]
    fn labels_differ() {
        let colors: std::collections::BTreeSet<[u8; 3]> = (0..60).map(label_color).collect();
        assert_eq!(colors.len(), 60);
    }
}
