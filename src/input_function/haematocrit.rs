//! The haematocrit, and in which fluid a concentration is.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// In which fluid a concentration is meant: contrast agent doesn't enter blood cells, so plasma holds more of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fluid {
    /// Whole blood: C_b, what an image of an artery shows.
    Blood,
    /// Blood plasma: C_p = C_b / (1 - haematocrit), what the models of exchange take.
    Plasma,
}

impl Fluid {
    /// The word for it on a command line and in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Fluid::Blood => "blood",
            Fluid::Plasma => "plasma",
        }
    }
}

impl fmt::Display for Fluid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Fluid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "blood" => Ok(Fluid::Blood),
            "plasma" => Ok(Fluid::Plasma),
            other => Err(Error::setting("fluid of the input function", other, "use blood or plasma")),
        }
    }
}

/// The fraction of the blood's volume that is cells, above 0 and below 1; of large vessels, about 0.42 in adults.
///
/// ```
/// use perfuse::input_function::Haematocrit;
/// assert_eq!(Haematocrit::new(0.42)?.fraction(), 0.42);
/// assert!(Haematocrit::new(42.0).unwrap_err().to_string().contains("per cent"));
/// # Ok::<(), perfuse::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Haematocrit(f64);

impl Haematocrit {
    /// Takes a fraction.
    ///
    /// # Errors
    /// [`Error::Setting`] if it isn't above 0 and below 1; a number from 1 to 100 is probably meant in per cent, and the
    /// error says so.
    pub fn new(fraction: f64) -> Result<Self> {
        if fraction > 0.0 && fraction < 1.0 {
            return Ok(Self(fraction));
        }
        let mend = if fraction > 1.0 && fraction < 100.0 {
            format!("that is probably per cent; give the fraction {}", fraction / 100.0)
        } else {
            "give a fraction above 0 and below 1, such as 0.42; for a concentration in plasma already, say plasma"
                .into()
        };
        Err(Error::setting("haematocrit", fraction, mend))
    }

    /// The fraction.
    pub fn fraction(self) -> f64 {
        self.0
    }

    /// C_p / C_b = 1 / (1 - haematocrit).
    pub fn plasma_per_blood(self) -> f64 {
        1.0 / (1.0 - self.0)
    }
}

impl FromStr for Haematocrit {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number =
            text.trim().parse().map_err(|_| Error::setting("haematocrit", text, "give a fraction, such as 0.42"))?;
        Self::new(number)
    }
}
