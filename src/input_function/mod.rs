//! Input functions: the concentration of contrast agent in the artery that feeds the tissue.
//!
//! An [`InputFunction`] is concentration in mM over time in seconds on the series' clock, in blood or in plasma, and says
//! where it comes from. Between its knots it is linear, before the first one it is 0.

mod arrival;
mod artery;
mod csv;
mod from_mask;
mod haematocrit;
pub mod population;
mod refined;

pub use arrival::Arrival;
pub use artery::{Artery, ArteryFinder, ArteryVoxel};
pub use csv::CsvOptions;
pub use from_mask::{Average, FromMask};
pub use haematocrit::{Fluid, Haematocrit};
pub use population::Population;

use crate::error::{Error, Result};
use crate::time::TimeAxis;

/// Concentration of contrast agent in an artery over time: CAPLEX Q.IC1.001 in whole blood or in plasma.
///
/// Times are seconds on the clock of the series that it belongs to. They need not be the times of its frames: a finer grid
/// is welcome. Between knots the function is linear, before the first knot it is 0, after the last one it has no value.
///
/// ```
/// use perfuse::InputFunction;
/// use perfuse::input_function::{Fluid, Haematocrit};
/// let blood = InputFunction::new(vec![10.0, 15.0, 40.0], vec![0.0, 5.5, 1.1], Fluid::Blood)?;
/// assert_eq!(blood.at(5.0), Some(0.0));
/// assert_eq!(blood.at(12.5), Some(2.75));
/// assert_eq!(blood.at(41.0), None);
/// let plasma = blood.in_plasma(Haematocrit::new(0.45)?)?;
/// assert!((plasma.at(15.0).unwrap() - 10.0).abs() < 1e-12);
/// // Once is enough: what is in plasma already stays as it is.
/// assert_eq!(plasma.in_plasma(Haematocrit::new(0.45)?)?, plasma);
/// # Ok::<(), perfuse::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct InputFunction {
    times_s: Vec<f64>,
    concentration_mm: Vec<f64>,
    fluid: Fluid,
    haematocrit: Option<Haematocrit>,
    origin: String,
}

impl InputFunction {
    /// Takes knots: times in seconds on the series' clock, concentrations in mM, and the fluid that these are in.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if there are not as many concentrations as times; [`Error::Time`] if there are fewer than two
    /// times, or one is not finite, or they don't increase (in 32-bit floats relative to the first one, either);
    /// [`Error::Setting`] if a concentration is not finite or all of them are 0.
    pub fn new(times_s: Vec<f64>, concentration_mm: Vec<f64>, fluid: Fluid) -> Result<Self> {
        if times_s.len() != concentration_mm.len() {
            let detail = format!("{} concentrations for {} times", concentration_mm.len(), times_s.len());
            return Err(Error::mismatch("the concentrations of the input function", "its times", detail));
        }
        let times = TimeAxis::from_seconds(times_s).map_err(|error| match error {
            Error::Time { found, mend, .. } => Error::Time { what: "input function".into(), found, mend },
            other => other,
        })?;
        let name = "concentration of the input function";
        if let Some(i) = concentration_mm.iter().position(|c| !c.is_finite()) {
            let value = format!("{} mM at {} s", concentration_mm[i], times.seconds()[i]);
            return Err(Error::setting(name, value, "give finite numbers; leave out knots without a value"));
        }
        if concentration_mm.iter().all(|c| *c == 0.0) {
            return Err(Error::setting(name, "0 mM at all times", "give one with contrast agent in it"));
        }
        let times_s = times.seconds().to_vec();
        Ok(Self { times_s, concentration_mm, fluid, haematocrit: None, origin: "given by the caller".into() })
    }

    /// Says in words where the function comes from, for records.
    #[must_use]
    pub fn with_origin(mut self, origin: impl Into<String>) -> Self {
        self.origin = origin.into();
        self
    }

    /// Times of the knots in seconds on the series' clock, strictly increasing.
    pub fn times_s(&self) -> &[f64] {
        &self.times_s
    }

    /// Concentrations at the knots in mM.
    pub fn concentration_mm(&self) -> &[f64] {
        &self.concentration_mm
    }

    /// In which fluid the concentrations are.
    pub fn fluid(&self) -> Fluid {
        self.fluid
    }

    /// The haematocrit by which blood became plasma; `None` if none was applied, either because the concentrations are
    /// still those in blood, or because they were in plasma from the start.
    pub fn haematocrit_applied(&self) -> Option<Haematocrit> {
        self.haematocrit
    }

    /// Where the function comes from, in words.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The function in plasma: C_p = C_b / (1 - haematocrit), and [`haematocrit_applied`](Self::haematocrit_applied) says
    /// so. What is in plasma already stays as it is, whatever the haematocrit, which then isn't recorded as applied.
    ///
    /// # Errors
    /// [`Error::Setting`] if a concentration becomes too large for a number.
    pub fn in_plasma(&self, haematocrit: Haematocrit) -> Result<Self> {
        if self.fluid == Fluid::Plasma {
            return Ok(self.clone());
        }
        let factor = haematocrit.plasma_per_blood();
        let concentration = self.concentration_mm.iter().map(|c| c * factor).collect();
        let plasma = Self::new(self.times_s.clone(), concentration, Fluid::Plasma)?;
        Ok(Self { haematocrit: Some(haematocrit), origin: self.origin.clone(), ..plasma })
    }

    /// The concentration in mM at a time in seconds: 0 before the first knot, linear between knots, `None` after the last
    /// one (and for a time that is no number).
    pub fn at(&self, time_s: f64) -> Option<f64> {
        let (times, values) = (&self.times_s, &self.concentration_mm);
        // The first knot after the time.
        let next = times.partition_point(|t| *t <= time_s);
        match next {
            _ if time_s.is_nan() => None,
            0 => Some(0.0),
            n if n < times.len() => {
                let share = (time_s - times[n - 1]) / (times[n] - times[n - 1]);
                Some(values[n - 1] + share * (values[n] - values[n - 1]))
            }
            n => (time_s == times[n - 1]).then(|| values[n - 1]),
        }
    }

    /// The same function, later by so many seconds (earlier if negative).
    ///
    /// # Errors
    /// [`Error::Time`] if the shifted times can't be told apart any more.
    pub fn shifted(&self, seconds: f64) -> Result<Self> {
        let times = self.times_s.iter().map(|t| t + seconds).collect();
        let moved = Self::new(times, self.concentration_mm.clone(), self.fluid)?;
        Ok(Self { haematocrit: self.haematocrit, origin: self.origin.clone(), ..moved })
    }

    /// Checks that the function has a value at every frame.
    ///
    /// # Errors
    /// [`Error::Time`] if it ends before the last frame.
    pub fn check_covers(&self, times: &TimeAxis) -> Result<()> {
        let end = self.times_s[self.times_s.len() - 1];
        // A file's times are rounded: a thousandth of a frame is no gap.
        if end >= times.last_s() - 1e-3 * times.median_spacing_s() {
            return Ok(());
        }
        Err(Error::Time {
            what: "input function".into(),
            found: format!("it ends at {end} s, the series at {} s", times.last_s()),
            mend: "give one that lasts as long as the series, on the series' clock in seconds".into(),
        })
    }
}
