//! The input function of a mask on a series of concentrations.

use std::str::FromStr;

use super::{Fluid, InputFunction};
use crate::error::{Error, Result};
use crate::series::{Mask, Series};

/// How the curves of several voxels become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Average {
    /// The mean of each frame.
    #[default]
    Mean,
    /// The median of each frame: stray voxels count less.
    Median,
}

impl Average {
    /// The word for it on a command line and in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Average::Mean => "mean",
            Average::Median => "median",
        }
    }
}

impl FromStr for Average {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "mean" => Ok(Average::Mean),
            "median" => Ok(Average::Median),
            other => Err(Error::setting("average", other, "use mean or median")),
        }
    }
}

/// The input function of a mask, and what it rests on.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FromMask {
    /// The function.
    pub function: InputFunction,
    /// Voxels that it is the average of.
    pub voxels: usize,
    /// Voxels of the mask that were left out because a sample isn't finite.
    pub left_out: usize,
}

impl InputFunction {
    /// The average curve of a mask on a series of concentrations in mM, as it is: no baseline is removed. Voxels with a
    /// sample that isn't finite are left out and counted.
    ///
    /// ```
    /// use ndarray::{Array3, Array4};
    /// use perfuse::input_function::{Average, Fluid};
    /// use perfuse::{InputFunction, Mask, Series, TimeAxis};
    /// let samples = Array4::from_shape_fn((2, 1, 1, 3), |(x, _, _, t)| (x as f32 + 1.0) * t as f32);
    /// let series = Series::from_array(samples.view(), TimeAxis::uniform(2.0, 3)?)?;
    /// let mask = Mask::from_labels(Array3::from_elem((2, 1, 1), 1).view());
    /// let artery = InputFunction::from_mask(&series, &mask, Average::Mean, Fluid::Blood)?;
    /// assert_eq!(artery.function.concentration_mm(), [0.0, 1.5, 3.0]);
    /// assert_eq!((artery.voxels, artery.left_out), (2, 0));
    /// # Ok::<(), perfuse::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the mask doesn't fit the series, or none of its voxels has finite samples only;
    /// [`Error::Setting`] if the average is 0 throughout.
    pub fn from_mask(series: &Series, mask: &Mask, average: Average, fluid: Fluid) -> Result<FromMask> {
        mask.check_matches(series)?;
        let inside = mask.flat().iter().enumerate().filter(|(_, label)| **label != 0).map(|(index, _)| index);
        let curves: Vec<Vec<f64>> = inside.map(|index| series.curve_at(index)).collect::<Result<_>>()?;
        let (curves, refused): (Vec<_>, Vec<_>) =
            curves.into_iter().partition(|curve| curve.iter().all(|c| c.is_finite()));
        let name = mask.source().and_then(|path| path.file_name()).map(|name| name.display().to_string());
        let name = name.unwrap_or_else(|| "a mask".into());
        if curves.is_empty() {
            let detail = format!("none of its {} voxels has finite samples only", refused.len());
            return Err(Error::mismatch(name, series.name(), detail));
        }
        let concentration = (0..series.frames())
            .map(|frame| {
                let mut values: Vec<f64> = curves.iter().map(|curve| curve[frame]).collect();
                match average {
                    Average::Mean => values.iter().sum::<f64>() / values.len() as f64,
                    Average::Median => median(&mut values),
                }
            })
            .collect();
        let function = InputFunction::new(series.times()?.seconds().to_vec(), concentration, fluid)?;
        let origin = format!(
            "{} of {} of {name}{}",
            average.as_str(),
            counted(curves.len(), "voxel"),
            if refused.is_empty() { String::new() } else { format!(", {} left out: not finite", refused.len()) }
        );
        Ok(FromMask { function: function.with_origin(origin), voxels: curves.len(), left_out: refused.len() })
    }
}

/// `1 voxel`, `2 voxels`.
pub(super) fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// The median of finite numbers, the mean of the middle two if their number is even.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { 0.5 * (values[middle - 1] + values[middle]) }
}
