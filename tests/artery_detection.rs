//! The automatic artery on simulated series whose arteries are known: sizes, noise, frames, drift, decoys, and none at all.

use ndarray::{Array3, Array4};
use perfuse::input_function::population::{georgiou, parker};
use perfuse::input_function::{Artery, ArteryFinder, Average, Fluid};
use perfuse::phantom::{Phantom, Tissue};
use perfuse::{Engine, Error, RunOptions, Series, SignalKind, TimeAxis};

const SIDE: usize = 40;
const SLICES: usize = 4;
const ARRIVAL_S: f64 = 30.0;

/// SplitMix64, and two of its numbers as a normal one.
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * (1.0 - self.uniform()).ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// A series of concentrations: tissue of many kinds, a fast tumour, a vein, an artery through the slices.
#[derive(Debug, Clone, Copy)]
struct Scene {
    /// Radius of the artery in voxels; 0 for none.
    radius: f64,
    noise_mm: f64,
    spacing_s: f64,
    duration_s: f64,
    /// Drift of all voxels over the series, and a step of the baseline of half of them (motion), in mM.
    drift_mm: f64,
    vein: bool,
    artery: fn(f64) -> f64,
    seed: u64,
}

const USUAL: Scene = Scene {
    radius: 2.5,
    noise_mm: 0.05,
    spacing_s: 3.0,
    duration_s: 300.0,
    drift_mm: 0.0,
    vein: true,
    artery: parker,
    seed: 1,
};

/// The share of a voxel that lies in a disc, by 8 × 8 points.
fn share(x: usize, y: usize, centre: [f64; 2], radius: f64) -> f64 {
    let inside = (0..64).filter(|i| {
        let at = |k: usize| (k as f64 + 0.5) / 8.0 - 0.5;
        (x as f64 + at(i % 8) - centre[0]).hypot(y as f64 + at(i / 8) - centre[1]) < radius
    });
    inside.count() as f64 / 64.0
}

impl Scene {
    fn build(&self) -> (Series, Array3<f64>) {
        let frames = (self.duration_s / self.spacing_s) as usize;
        let times = TimeAxis::uniform(self.spacing_s, frames).unwrap();
        let mut random = Random(self.seed);
        // A vein sees the bolus 8 s later, through a mean transit time of 6 s.
        let step = 0.25;
        let mut dispersed = vec![0.0; (self.duration_s / step) as usize + 1];
        for i in 1..dispersed.len() {
            let came = (self.artery)(i as f64 * step - ARRIVAL_S - 8.0);
            dispersed[i] = dispersed[i - 1] + step / 6.0 * (came - dispersed[i - 1]);
        }
        let artery_share =
            Array3::from_shape_fn((SIDE, SIDE, SLICES), |(x, y, _)| share(x, y, [12.3, 27.8], self.radius));
        let mut samples = Array4::<f32>::zeros((SIDE, SIDE, SLICES, frames));
        for z in 0..SLICES {
            for y in 0..SIDE {
                for x in 0..SIDE {
                    let arterial = artery_share[[x, y, z]];
                    let venous = if self.vein { share(x, y, [27.0, 27.0], 3.0) } else { 0.0 };
                    let tumour = (x as f64 - 25.0).hypot(y as f64 - 12.0) < 5.0;
                    // Tissue fills in half a minute to two; the tumour in 12 s, and washes out.
                    let (height, fill, delay) = if tumour {
                        (0.9 + 0.4 * random.uniform(), 12.0, 2.0)
                    } else {
                        (0.15 + 0.3 * random.uniform(), 30.0 + 90.0 * random.uniform(), 2.0 + 6.0 * random.uniform())
                    };
                    let step_mm = if random.uniform() < 0.5 { self.drift_mm } else { 0.0 };
                    for t in 0..frames {
                        let time = times.seconds()[t];
                        let since = (time - ARRIVAL_S - delay).max(0.0);
                        let wash_out = if tumour { (-since / 400.0).exp() } else { 1.0 };
                        let tissue = height * (1.0 - (-since / fill).exp()) * wash_out;
                        let vein = dispersed[(time / step) as usize];
                        let mix = arterial * (self.artery)(time - ARRIVAL_S)
                            + venous * vein
                            + (1.0 - arterial - venous).max(0.0) * tissue;
                        let drift = self.drift_mm * time / self.duration_s + if time > 150.0 { step_mm } else { 0.0 };
                        samples[[x, y, z, t]] = (mix + drift + self.noise_mm * random.normal()) as f32;
                    }
                }
            }
        }
        (Series::from_array(samples.view(), times).unwrap(), artery_share)
    }
}

fn find(series: &Series) -> Result<Artery, Error> {
    ArteryFinder::new().kind(SignalKind::Concentration).find(&Engine::cpu(), series, &RunOptions::new())
}

/// Parker's function for an injection that takes 20 s longer.
fn slow(seconds: f64) -> f64 {
    (0..40).map(|i| parker(seconds - 0.5 * (f64::from(i) + 0.5))).sum::<f64>() / 40.0
}

/// Voxels found, the least and the mean share of artery in them, and the curve's peak relative to the true samples'.
fn judge(scene: &Scene) -> Result<(usize, f64, f64, f64), Error> {
    let (series, share) = scene.build();
    let artery = find(&series)?;
    let shares: Vec<f64> = artery.voxels().iter().map(|voxel| share[voxel.position]).collect();
    let function = artery.input_function(&series, Average::Mean, Fluid::Blood)?.function;
    let peak = function.concentration_mm().iter().copied().fold(0.0, f64::max);
    let truth = series.times().unwrap().seconds().iter().map(|t| (scene.artery)(t - ARRIVAL_S)).fold(0.0, f64::max);
    let mean = shares.iter().sum::<f64>() / shares.len() as f64;
    Ok((shares.len(), shares.iter().copied().fold(1.0, f64::min), mean, peak / truth))
}

/// The rows of the table in `docs/input_functions.md`, each with what it must reach: the least mean share of artery.
fn scenes() -> Vec<(&'static str, Scene, f64)> {
    let usual = USUAL;
    vec![
        ("usual", usual, 0.95),
        ("radius 0.8 voxels", Scene { radius: 0.8, ..usual }, 0.8),
        ("radius 1.2 voxels", Scene { radius: 1.2, ..usual }, 0.9),
        ("radius 6 voxels", Scene { radius: 6.0, ..usual }, 0.95),
        ("no noise", Scene { noise_mm: 0.0, ..usual }, 0.95),
        ("noise 0.2 mM", Scene { noise_mm: 0.2, ..usual }, 0.95),
        ("noise 0.4 mM", Scene { noise_mm: 0.4, ..usual }, 0.9),
        ("frames 1 s apart", Scene { spacing_s: 1.0, ..usual }, 0.95),
        ("frames 6 s apart", Scene { spacing_s: 6.0, ..usual }, 0.95),
        ("frames 10 s apart", Scene { spacing_s: 10.0, ..usual }, 0.9),
        ("series of 80 s", Scene { duration_s: 80.0, ..usual }, 0.95),
        ("drift and steps of 0.1 mM", Scene { drift_mm: 0.1, ..usual }, 0.95),
        ("drift and steps of 0.3 mM", Scene { drift_mm: 0.3, ..usual }, 0.95),
        ("Georgiou's function", Scene { artery: georgiou, ..usual }, 0.95),
        ("injection 20 s longer", Scene { artery: slow, ..usual }, 0.95),
        ("Georgiou's, 6 s, 0.2 mM", Scene { artery: georgiou, spacing_s: 6.0, noise_mm: 0.2, ..usual }, 0.9),
    ]
}

#[test]
fn arteries_of_many_sizes_and_qualities_are_found() {
    let mut table = String::new();
    let mut failed = false;
    for (name, scene, least) in scenes() {
        for seed in 1..=2 {
            let found = judge(&Scene { seed, ..scene });
            let good = matches!(&found, Ok((_, _, mean, peak)) if *mean >= least && (0.75..1.1).contains(peak));
            failed |= !good;
            table += &match found {
                Ok((voxels, worst, mean, peak)) => {
                    format!("{name} | {seed} | {voxels} | {worst:.2} | {mean:.2} | {peak:.2} | {good}\n")
                }
                Err(error) => format!("{name} | {seed} | {error}\n"),
            };
        }
    }
    println!("{table}");
    assert!(!failed, "\n{table}");
}

#[test]
fn tissue_without_an_artery_is_refused() {
    let none = Scene { radius: 0.0, vein: false, ..USUAL };
    for scene in [
        none,
        Scene { noise_mm: 0.0, ..none },
        Scene { noise_mm: 0.2, ..none },
        Scene { noise_mm: 0.4, seed: 5, ..none },
        Scene { spacing_s: 6.0, ..none },
        Scene { spacing_s: 1.0, noise_mm: 0.1, ..none },
        Scene { drift_mm: 0.3, ..none },
        Scene { duration_s: 80.0, ..none },
    ] {
        let (series, _) = scene.build();
        match find(&series) {
            Err(error @ Error::NoArtery { .. }) => {
                let text = error.to_string();
                assert!(text.contains("give a mask of an artery or a population function"), "{text}");
            }
            other => panic!("{scene:?}: {:?}", other.map(|artery| artery.voxels().to_vec())),
        }
    }
    // Noise alone.
    let (series, _) = none.build();
    let mut random = Random(9);
    let noise = Array4::from_shape_fn(series.shape(), |_| random.normal() as f32);
    let noise = Series::from_array(noise.view(), series.times().unwrap().clone()).unwrap();
    assert!(matches!(find(&noise), Err(Error::NoArtery { .. })));
}

#[test]
fn the_artery_does_not_depend_on_the_order_or_direction_of_axes() {
    let (series, _) = Scene { noise_mm: 0.1, ..USUAL }.build();
    let frames = series.frames();
    let value = |x: usize, y: usize, z: usize, t: usize| {
        series.voxels().unwrap().get_f64(x + SIDE * (y + SIDE * (z + SLICES * t))) as f32
    };
    let mirrored =
        Array4::from_shape_fn((SIDE, SIDE, SLICES, frames), |(x, y, z, t)| value(SIDE - 1 - x, y, SLICES - 1 - z, t));
    let permuted = Array4::from_shape_fn((SLICES, SIDE, SIDE, frames), |(z, x, y, t)| value(x, y, z, t));
    let sorted = |artery: &Artery, back: &dyn Fn([usize; 3]) -> [usize; 3]| {
        let mut voxels: Vec<_> = artery.voxels().iter().map(|v| (back(v.position), v.score.to_bits())).collect();
        voxels.sort_unstable();
        voxels
    };
    let straight = find(&series).unwrap();
    let expected = sorted(&straight, &|p| p);
    assert_eq!(sorted(&find(&series).unwrap(), &|p| p), expected);
    let of = |samples: &Array4<f32>| {
        find(&Series::from_array(samples.view(), series.times().unwrap().clone()).unwrap()).unwrap()
    };
    // The mean curve, which decides the baseline, is summed in another order: the scores may differ in a last digit only if
    // the baseline did, so that voxels and scores agree exactly.
    assert_eq!(sorted(&of(&mirrored), &|[x, y, z]| [SIDE - 1 - x, y, SLICES - 1 - z]), expected);
    assert_eq!(sorted(&of(&permuted), &|[z, x, y]| [x, y, z]), expected);
}

#[test]
fn the_phantoms_arteries_are_found_as_signal() {
    for shape in [[32, 32, 6], [64, 64, 8]] {
        let phantom = Phantom::brain_with_lesion().shape(shape).build().unwrap();
        let artery = ArteryFinder::new().find(&Engine::cpu(), &phantom.series, &RunOptions::new()).unwrap();
        assert!(!artery.voxels().is_empty() && artery.score() > 10.0);
        for voxel in artery.voxels() {
            assert_eq!(phantom.labels.labels()[voxel.position], Tissue::Artery.label(), "{voxel:?}");
        }
        assert_eq!(artery.mask().voxel_count(), artery.voxels().len());
        let scored = artery.scores().iter().filter(|score| score.is_finite()).count();
        assert_eq!(scored, artery.candidates());
    }
}

#[test]
fn thresholds_are_checked_and_used() {
    let (series, _) = USUAL.build();
    let with =
        |finder: ArteryFinder| finder.kind(SignalKind::Concentration).find(&Engine::cpu(), &series, &RunOptions::new());
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        for finder in [
            ArteryFinder::new().least_contrast_to_noise(bad),
            ArteryFinder::new().latest_peak_s(bad),
            ArteryFinder::new().widest_pass_s(bad),
            ArteryFinder::new().least_score(bad),
        ] {
            assert!(matches!(with(finder), Err(Error::Setting { .. })), "{bad}");
        }
    }
    assert!(matches!(with(ArteryFinder::new().least_score(1e6)), Err(Error::NoArtery { .. })));
    assert!(matches!(with(ArteryFinder::new().least_contrast_to_noise(1e6)), Err(Error::NoArtery { .. })));
}
