//! Reports as one self-contained HTML file (feature `render`): pictures, charts, tables, settings and provenance. They open
//! without a network, follow the reader's light or dark setting, fit a phone, and print.
//!
//! [`FillingPage`] is the report of [`FillingReport`](crate::analysis::filling::FillingReport).
//!
//! | file | subject |
//! |---|---|
//! | `filling.rs`, `filling_charts.rs`, `filling_tables.rs` | what the page on a lesion's filling says |
//! | `chart.rs` | line charts as SVG |
//! | `html.rs` | escaping, data addresses, tables, the page's style |

mod chart;
mod filling;
mod filling_charts;
mod filling_tables;
mod html;

pub use filling::{FillingPage, baseline_frames};
