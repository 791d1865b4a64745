//! Pictures of maps and curves, as PNG, fit for a paper, and cines of series as GIF, animated or numbered PNG (feature
//! `render`).
//!
//! ```
//! use ndarray::Array3;
//! use perfuse::Geometry;
//! use perfuse::render::Montage;
//! let values = Array3::from_shape_fn((40, 32, 6), |(x, y, _)| (x + y) as f32);
//! let geometry = Geometry::from_voxel_size_mm([2.0, 2.0, 5.0]);
//! let picture = Montage::of_values(values.view(), &geometry).title("Time to peak").symbol("TTP").unit("s").render()?;
//! assert!(picture.width() >= 900);
//! # Ok::<(), perfuse::Error>(())
//! ```
//!
//! Glyphs come from a part of Noto Sans that is packaged with the crate under the SIL Open Font License
//! (`src/render/font/`): no fonts of the system are used. The same input gives the same bytes.

mod bar;
mod canvas;
mod cine;
mod colormap;
mod contours;
mod curve_plot;
mod montage;
pub(crate) mod picture;
mod planes;
mod sections;
mod text;
pub(crate) mod ticks;
mod tile;

pub use cine::{Anatomy, Cine, Film, Isochrones};
pub use colormap::{Colormap, label_color};
pub use curve_plot::CurvePlot;
pub use montage::{Montage, Range, Slices};
pub use picture::Picture;
pub use planes::{Plane, View};
pub use sections::Sections;
