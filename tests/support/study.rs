//! Simulated curves with a known onset, and how far each method is off: shared by the example that writes
//! `docs/onset_methods.md` and the test that holds the default method to its bars.

use perfuse::kernels::descriptors::{MapSelection, Onset};
use perfuse::{Descriptors, Engine, Result, Series, SettingValue, TimeAxis, status};

use super::oracle::Random;

/// Seconds of a ramp from its onset to its plateau.
const RAMP_S: f64 = 60.0;
/// Seconds from arrival to peak of the first pass, (x e^(1-x))^3.
const PASS_S: f64 = 10.0;
const PEAK: f64 = 100.0;
const LEVEL: f64 = 500.0;

/// A course of contrast agent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shape {
    /// 1 - exp(-t / tau).
    Saturating(f64),
    /// A line to a plateau.
    Ramp,
    /// A gamma-variate first pass.
    FirstPass,
}

pub const SHAPES: [Shape; 6] = [
    Shape::Saturating(5.0),
    Shape::Saturating(30.0),
    Shape::Saturating(60.0),
    Shape::Saturating(120.0),
    Shape::Ramp,
    Shape::FirstPass,
];
pub const SPACINGS: [f64; 4] = [1.0, 3.0, 6.0, 10.0];
pub const CNRS: [f64; 4] = [5.0, 10.0, 20.0, 50.0];
pub const METHODS: [Onset; 6] = [
    Onset::PiecewiseLinear,
    Onset::Saturating,
    Onset::Intersection,
    Onset::Threshold { fraction: 0.1 },
    Onset::SdThreshold { deviations: 3.0 },
    Onset::Derivative { fraction: 0.1 },
];

impl Shape {
    pub fn name(self) -> String {
        match self {
            Shape::Saturating(tau) => format!("saturating, tau {tau} s"),
            Shape::Ramp => format!("ramp of {RAMP_S} s"),
            Shape::FirstPass => format!("first pass, peak after {PASS_S} s"),
        }
    }

    fn value(self, t: f64) -> f64 {
        if t <= 0.0 {
            return 0.0;
        }
        match self {
            Shape::Saturating(tau) => 1.0 - (-t / tau).exp(),
            Shape::Ramp => (t / RAMP_S).min(1.0),
            Shape::FirstPass => (t / PASS_S * (1.0 - t / PASS_S).exp()).powi(3),
        }
    }

    /// When the course first reaches a fraction of its peak.
    fn reaches(self, fraction: f64) -> f64 {
        let (mut low, mut high) = match self {
            Shape::Saturating(tau) => (0.0, 20.0 * tau),
            Shape::Ramp => (0.0, RAMP_S),
            Shape::FirstPass => (0.0, PASS_S),
        };
        for _ in 0..60 {
            let middle = (low + high) / 2.0;
            if self.value(middle) < fraction { low = middle } else { high = middle }
        }
        low
    }

    /// Where the onset counts, after the arrival: a first pass has a smooth foot.
    fn foot(self) -> f64 {
        if self == Shape::FirstPass { self.reaches(0.05) } else { 0.0 }
    }

    pub fn rise_time(self) -> f64 {
        self.reaches(0.9) - self.reaches(0.1)
    }

    /// Seconds that a series goes on after the arrival.
    fn follow_up(self) -> f64 {
        match self {
            Shape::Saturating(tau) => (5.0 * tau).max(300.0),
            Shape::Ramp => 300.0,
            Shape::FirstPass => 120.0,
        }
    }
}

/// One series: a shape, a frame spacing, a ratio of peak to noise SD.
#[derive(Debug, Clone, Copy)]
pub struct Cell {
    pub shape: Shape,
    pub spacing: f64,
    pub cnr: f64,
}

/// Curves of a cell with their true onsets.
pub struct Simulated {
    pub series: Series,
    pub onsets: Vec<f64>,
}

impl Cell {
    /// All voxels arrive within one frame, at an instant 30 to 60 s after the first frame that depends on the seed.
    pub fn simulate(&self, voxels: usize, seed: u64) -> Simulated {
        let mut random = Random::new(seed);
        let arrival = random.between(30.0, 60.0);
        let frames = ((60.0 + self.shape.follow_up()) / self.spacing).ceil() as usize + 1;
        let mut samples = vec![0.0f32; voxels * frames];
        let mut onsets = Vec::with_capacity(voxels);
        for voxel in 0..voxels {
            let own = arrival + random.between(0.0, self.spacing);
            onsets.push(own + self.shape.foot());
            for frame in 0..frames {
                let e = PEAK * (self.shape.value(frame as f64 * self.spacing - own) + random.normal() / self.cnr);
                samples[frame * voxels + voxel] = (LEVEL + e) as f32;
            }
        }
        let times = TimeAxis::uniform(self.spacing, frames).unwrap();
        let series = Series::from_voxels(samples, [voxels, 1, 1, frames], times).unwrap();
        Simulated { series, onsets }
    }

    /// What the median of |error| may be at a contrast to noise of 20.
    pub fn bar(&self) -> f64 {
        0.5 * self.spacing + 0.05 * self.shape.rise_time()
    }
}

/// How far a method is off, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Errors {
    pub median_absolute: f64,
    /// Median of the signed error.
    pub bias: f64,
    /// Between the quartiles.
    pub spread: f64,
    /// Share of voxels with the global onset.
    pub global: f64,
    /// Share of voxels without any.
    pub none: f64,
}

fn quantile(sorted: &[f64], share: f64) -> f64 {
    if sorted.is_empty() {
        return f64::NAN;
    }
    let place = share * (sorted.len() - 1) as f64;
    let below = place.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (place - below as f64) * (sorted[above] - sorted[below])
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    quantile(&values, 0.5)
}

pub fn onset_errors(engine: &Engine, simulated: &Simulated, method: Onset) -> Result<Errors> {
    let kernel = Descriptors::new().onset(method).maps(MapSelection::Ids(vec!["onset".into()]));
    let maps = engine.run(&kernel, &simulated.series)?;
    let found = maps.get("onset")?;
    let mut errors: Vec<f64> =
        found.iter().zip(&simulated.onsets).map(|(f, t)| f64::from(*f) - t).filter(|e| !e.is_nan()).collect();
    errors.sort_by(f64::total_cmp);
    let voxels = simulated.onsets.len() as f64;
    let status = maps.status();
    let global = status.iter().zip(found).filter(|(s, f)| *s & status::GLOBAL_ONSET_USED != 0 && !f.is_nan());
    Ok(Errors {
        median_absolute: median(errors.iter().map(|e| e.abs()).collect()),
        bias: quantile(&errors, 0.5),
        spread: quantile(&errors, 0.75) - quantile(&errors, 0.25),
        global: global.count() as f64 / voxels,
        none: 1.0 - errors.len() as f64 / voxels,
    })
}

/// What the automatic baseline makes of a series: whether it reaches past the true onset, and the share that it keeps of
/// the frames before the first arrival.
pub fn automatic_baseline(engine: &Engine, simulated: &Simulated) -> Result<(bool, f64)> {
    let kernel = Descriptors::new().maps(MapSelection::Ids(vec!["baseline".into()]));
    let maps = engine.run(&kernel, &simulated.series)?;
    let frames = maps.record().settings.iter().find_map(|(name, value)| match value {
        SettingValue::List(ends) if name == "baseline_frames" => match ends[..] {
            [SettingValue::Number(_), SettingValue::Number(end)] => Some(end),
            _ => None,
        },
        _ => None,
    });
    let frames = frames.expect("a run says which frames are its baseline");
    let onset = simulated.onsets.iter().copied().fold(f64::INFINITY, f64::min);
    let times = simulated.series.times().unwrap().seconds();
    let before = times.iter().filter(|t| **t < onset).count() as f64;
    Ok((frames > before, frames / before))
}
