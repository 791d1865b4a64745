//! Quantitative DCE-MRI beyond a single fit: the arterial delay from onsets, and the choice between models.

mod model_selection;
mod onset_delay;

pub use model_selection::select_model;
pub use onset_delay::{OnsetDelay, OnsetDelays};
