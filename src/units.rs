//! Numbers that say their unit, for settings where a wrong one would go unnoticed, and the checks that name likely mistakes.

use crate::error::{Error, Result};
use crate::series::{Mask, VoxelMap};

/// A duration: a repetition time, an inversion time, a T1.
///
/// ```
/// use perfuse::Seconds;
/// assert_eq!(Seconds::from_milliseconds(250.0), Seconds::from_seconds(0.25));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Seconds(f64);

impl Seconds {
    /// So many seconds.
    pub const fn from_seconds(seconds: f64) -> Self {
        Self(seconds)
    }

    /// So many milliseconds.
    pub fn from_milliseconds(milliseconds: f64) -> Self {
        Self(milliseconds / 1e3)
    }

    /// The number of seconds.
    pub const fn seconds(self) -> f64 {
        self.0
    }
}

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} s", self.0)
    }
}

/// The angle by which a pulse turns the magnetisation.
///
/// ```
/// use perfuse::FlipAngle;
/// assert!((FlipAngle::from_degrees(90.0).radians() - 1.5707963).abs() < 1e-7);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct FlipAngle(f64);

impl FlipAngle {
    /// So many degrees.
    pub const fn from_degrees(degrees: f64) -> Self {
        Self(degrees)
    }

    /// So many radians.
    pub fn from_radians(radians: f64) -> Self {
        Self(radians.to_degrees())
    }

    /// The number of degrees.
    pub const fn degrees(self) -> f64 {
        self.0
    }

    /// The number of radians.
    pub fn radians(self) -> f64 {
        self.0.to_radians()
    }
}

impl std::fmt::Display for FlipAngle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} degrees", self.0)
    }
}

/// The shortest T1 that tissue with contrast agent has; what is shorter was given in another unit.
pub(crate) const SHORTEST_T1_S: f64 = 0.01;
/// The longest T1 that is believed: free water has less than 5 s.
pub(crate) const LONGEST_T1_S: f64 = 60.0;

/// A number without the digits that a change of unit adds.
fn shown(value: f64) -> f32 {
    value as f32
}

/// The repetition time of a spoiled gradient echo: above 0, at most 1 s.
pub(crate) fn check_repetition_time(time: Seconds) -> Result<f64> {
    let seconds = time.seconds();
    if !(seconds.is_finite() && seconds > 0.0) {
        return Err(Error::setting("repetition time", time, "give a positive number of seconds, 0.004 s for 4 ms"));
    }
    if seconds > 1.0 {
        let mend = format!(
            "a spoiled gradient echo repeats within a second: were milliseconds given as seconds? ({seconds} ms is {} s)",
            shown(seconds / 1e3)
        );
        return Err(Error::setting("repetition time", time, mend));
    }
    if seconds < 1e-4 {
        let mend = format!(
            "no pulse sequence repeats within 0.1 ms: were seconds given as milliseconds? ({} s is {} ms)",
            shown(seconds * 1e3),
            shown(seconds * 1e6)
        );
        return Err(Error::setting("repetition time", time, mend));
    }
    Ok(seconds)
}

/// A T1: 10 ms to a minute.
pub(crate) fn check_t1(name: &str, t1: Seconds) -> Result<f64> {
    let seconds = t1.seconds();
    if !(seconds.is_finite() && seconds > 0.0) {
        return Err(Error::setting(name, t1, "give a positive number of seconds, 1.2 s for 1200 ms"));
    }
    if seconds < SHORTEST_T1_S {
        let mend = format!(
            "no tissue has a T1 below 10 ms: were seconds given as milliseconds? ({} s is {} ms)",
            shown(seconds * 1e3),
            shown(seconds * 1e6)
        );
        return Err(Error::setting(name, t1, mend));
    }
    if seconds > LONGEST_T1_S {
        let mend = format!(
            "no tissue has a T1 above {LONGEST_T1_S} s: were milliseconds given as seconds? ({seconds} ms is {} s)",
            shown(seconds / 1e3)
        );
        return Err(Error::setting(name, t1, mend));
    }
    Ok(seconds)
}

/// A T1 map by the median of its positive values inside the mask: single voxels may hold anything.
pub(crate) fn check_t1_map(name: &str, map: &VoxelMap, mask: Option<&Mask>) -> Result<()> {
    let inside = mask.map(Mask::flat);
    let voxels = map.flat().iter().enumerate();
    let mut values: Vec<f32> = voxels
        .filter(|(i, t1)| inside.is_none_or(|inside| inside[*i] != 0) && t1.is_finite() && **t1 > 0.0)
        .map(|(_, t1)| *t1)
        .collect();
    if values.is_empty() {
        return Err(Error::setting(name, "a map", "it holds no positive number inside the mask; give T1 in seconds"));
    }
    let middle = values.len() / 2;
    let (_, median, _) = values.select_nth_unstable_by(middle, f32::total_cmp);
    check_t1(&format!("{name} (the median of the map)"), Seconds::from_seconds(f64::from(*median))).map(|_| ())
}

/// Flip angles in radians: above 0 and below 180 degrees, the largest at least 1 degree.
pub(crate) fn check_flip_angles(name: &str, angles: &[FlipAngle]) -> Result<Vec<f64>> {
    if let Some(angle) = angles.iter().find(|angle| !(angle.degrees() > 0.0 && angle.degrees() < 180.0)) {
        return Err(Error::setting(name, angle, "give degrees between 0 and 180, both excluded"));
    }
    let largest = angles.iter().fold(0.0, |largest: f64, angle| largest.max(angle.degrees()));
    if largest < 1.0 {
        let mend = format!(
            "were radians given as degrees? ({largest} rad is {:.1} degrees)",
            FlipAngle::from_radians(largest).degrees()
        );
        return Err(Error::setting(name, format!("{largest} degrees at most"), mend));
    }
    Ok(angles.iter().map(|angle| angle.radians()).collect())
}

/// Inversion times in seconds: not negative, the longest 10 ms to a minute.
pub(crate) fn check_inversion_times(times: &[Seconds]) -> Result<Vec<f64>> {
    if let Some(time) = times.iter().find(|time| !(time.seconds().is_finite() && time.seconds() >= 0.0)) {
        return Err(Error::setting("inversion times", time, "give seconds, 0 or more"));
    }
    let longest = times.iter().fold(0.0, |longest: f64, time| longest.max(time.seconds()));
    let found = format!("{longest} s at most");
    if longest > 60.0 {
        let mend = format!("were milliseconds given as seconds? ({longest} ms is {} s)", shown(longest / 1e3));
        return Err(Error::setting("inversion times", found, mend));
    }
    if longest < 0.01 {
        let mend = "the longest should be of the order of T1: were seconds given as milliseconds?";
        return Err(Error::setting("inversion times", found, mend));
    }
    Ok(times.iter().map(|time| time.seconds()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused<T: std::fmt::Debug>(outcome: Result<T>, hint: &str) {
        let text = outcome.unwrap_err().to_string();
        assert!(text.contains(hint), "{text}");
    }

    #[test]
    fn likely_unit_mistakes_are_named() {
        let (s, ms, degrees) = (Seconds::from_seconds, Seconds::from_milliseconds, FlipAngle::from_degrees);
        assert_eq!(check_repetition_time(ms(4.0)).unwrap(), 0.004);
        assert_eq!(check_repetition_time(s(1.0)).unwrap(), 1.0);
        refused(check_repetition_time(s(4.2)), "milliseconds given as seconds? (4.2 ms is 0.0042 s)");
        refused(check_repetition_time(ms(0.004)), "seconds given as milliseconds");
        refused(check_repetition_time(s(f64::NAN)), "positive");
        assert_eq!(check_t1("T10", s(0.01)).unwrap(), 0.01);
        refused(check_t1("T10", s(1200.0)), "milliseconds given as seconds? (1200 ms is 1.2 s)");
        refused(check_t1("T10", ms(1.2)), "seconds given as milliseconds? (1.2 s is 1200 ms)");
        refused(check_t1("T10", s(-1.0)), "positive");
        refused(check_flip_angles("flip angles", &[degrees(0.035), degrees(0.35)]), "radians given as degrees");
        refused(check_flip_angles("flip angles", &[degrees(5.0), degrees(180.0)]), "between 0 and 180");
        refused(check_inversion_times(&[s(50.0), s(2000.0)]), "milliseconds given as seconds? (2000 ms is 2 s)");
        refused(check_inversion_times(&[ms(0.05), ms(2.0)]), "seconds given as milliseconds");
    }

    #[test]
    fn a_map_is_judged_by_its_median_inside_the_mask() {
        use ndarray::Array3;
        let map = |values: &[f32]| {
            VoxelMap::from_array(Array3::from_shape_vec((values.len(), 1, 1), values.to_vec()).unwrap().view())
        };
        check_t1_map("T10", &map(&[1e-8, 1.2, 1.4, f32::NAN, 0.0]), None).unwrap();
        refused(check_t1_map("T10", &map(&[1200.0, 1400.0, 0.5]), None), "milliseconds given as seconds");
        refused(check_t1_map("T10", &map(&[0.0, f32::NAN, -1.0]), None), "no positive number");
        let mask = Mask::from_labels(Array3::from_shape_vec((3, 1, 1), vec![0, 0, 1]).unwrap().view());
        check_t1_map("T10", &map(&[1200.0, 1400.0, 0.5]), Some(&mask)).unwrap();
    }
}
