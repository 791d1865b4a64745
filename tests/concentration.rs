//! Signal to concentration against closed forms on every engine; small enhancements, noise below zero, what can't be
//! inverted, and wrong settings; and the chain from signal to concentration to descriptors.

mod support;

use perfuse::kernels::concentration::{Concentration, status_bit};
use perfuse::{
    Descriptors, Engine, Error, FlipAngle, MapData, NonFinite, RunOptions, Scaling, Seconds, Series, SignalKind,
    TimeAxis, VoxelMap, status,
};
use support::engines;
use support::random::Random;

const TR: f64 = 0.004;
const R1: f64 = 4.5;
const FRAMES: usize = 24;
const BASELINE: usize = 4;

fn kernel(degrees: f64) -> Concentration {
    Concentration::new(Seconds::from_seconds(TR), FlipAngle::from_degrees(degrees), R1)
}

/// The signal of a spoiled gradient echo with M0 = `m0`.
fn signal(m0: f64, t10: f64, degrees: f64, millimolar: f64) -> f64 {
    let (sine, cosine) = degrees.to_radians().sin_cos();
    let e = (-TR * (1.0 / t10 + R1 * millimolar)).exp();
    m0 * sine * (1.0 - e) / (1.0 - e * cosine)
}

fn series(voxels: &[Vec<f64>]) -> Series {
    let frames = voxels[0].len();
    let samples: Vec<f64> = (0..frames).flat_map(|t| voxels.iter().map(move |voxel| voxel[t])).collect();
    Series::from_voxels(samples, [voxels.len(), 1, 1, frames], TimeAxis::uniform(2.5, frames).unwrap()).unwrap()
}

fn map(values: &[f64]) -> VoxelMap {
    let values: Vec<f32> = values.iter().map(|value| *value as f32).collect();
    VoxelMap::from_array(ndarray::Array3::from_shape_vec((values.len(), 1, 1), values).unwrap().view())
}

/// The definition's curve of one voxel, and its status.
fn reference(kernel: &Concentration, series: &Series, voxel: usize) -> (Vec<f64>, u32) {
    let mut values = Engine::reference_values(kernel, series, [voxel, 0, 0], &RunOptions::new()).unwrap();
    let status = values.pop().unwrap().1 as u32;
    (values.into_iter().map(|(_, value)| value).collect(), status)
}

fn verified(name: &str, engine: &Engine, kernel: &Concentration, series: &Series) {
    let verification = engine.verify(kernel, series, &RunOptions::new()).unwrap();
    println!("{name}\n{verification}");
    assert!(verification.passed(), "{name}: {verification}");
}

/// Every curve: the definition within 1e-8 of the peak, engines within `wide`, and verified.
fn check(name: &str, kernel: &Concentration, series: &Series, truth: &[Vec<f64>], wide: f64) {
    let peak = |curve: &[f64]| curve.iter().fold(0.0f64, |peak, c| peak.max(c.abs()));
    for (voxel, wanted) in truth.iter().enumerate() {
        let (found, status) = reference(kernel, series, voxel);
        assert_eq!(status, 0, "{name}, voxel {voxel}");
        for (found, wanted_c) in found.iter().zip(wanted) {
            assert!((found - wanted_c).abs() <= 1e-8 * peak(wanted), "{name}, voxel {voxel}: {found} for {wanted_c}");
        }
    }
    for engine in engines() {
        let maps = engine.run(kernel, series).unwrap();
        let curves = maps.curves("concentration").unwrap();
        for (voxel, wanted) in truth.iter().enumerate() {
            for (frame, wanted_c) in wanted.iter().enumerate() {
                let found = f64::from(curves[[voxel, 0, 0, frame]]);
                let allowed = wide * peak(wanted);
                assert!(
                    (found - wanted_c).abs() <= allowed,
                    "{name}, {voxel} on {}: {found} for {wanted_c}",
                    engine.device()
                );
            }
        }
        verified(name, &engine, kernel, series);
    }
}

/// Concentrations that rise to `peak` after the baseline.
fn course(peak: f64) -> Vec<f64> {
    (0..FRAMES)
        .map(|t| match t.checked_sub(BASELINE) {
            None => 0.0,
            Some(t) => peak * (t as f64 / 4.0) * (1.0 - t as f64 / 4.0).exp(),
        })
        .collect()
}

#[test]
fn the_spoiled_gradient_echo_is_inverted_exactly() {
    let mut random = Random::new(1);
    for degrees in [5.0, 15.0, 30.0, 90.0, 120.0] {
        let (mut truth, mut voxels, mut t10s) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..60 {
            let t10 = f64::from((0.3 + 2.5 * random.uniform()) as f32);
            let course = course(10f64.powf(-2.0 + 2.5 * random.uniform()));
            voxels.push(course.iter().map(|c| signal(1000.0, t10, degrees, *c)).collect());
            truth.push(course);
            t10s.push(t10);
        }
        let kernel = kernel(degrees).t10_map(map(&t10s)).baseline_frames(0..BASELINE);
        check("t10 map", &kernel, &series(&voxels), &truth, 2e-4);
    }
}

#[test]
fn one_t10_and_a_b1_map() {
    let b1: Vec<f64> = (0..50).map(|i| f64::from((0.6 + 0.016 * f64::from(i)) as f32)).collect();
    let truth: Vec<Vec<f64>> = b1.iter().map(|_| course(1.0)).collect();
    let voxels: Vec<Vec<f64>> =
        b1.iter().map(|b1| course(1.0).iter().map(|c| signal(500.0, 1.2, 15.0 * b1, *c)).collect()).collect();
    let kernel = kernel(15.0).t10(Seconds::from_milliseconds(1200.0)).b1(map(&b1)).baseline_frames(0..BASELINE);
    check("b1", &kernel, &series(&voxels), &truth, 1e-4);
}

#[test]
fn small_enhancements_keep_their_digits() {
    // A thousandth of a millimole on a 16-bit signal's scale, in 64-bit samples: engines see the differences only.
    let voxels = [vec![1e-3; 3], vec![1e-4; 3], vec![-1e-3; 3]].map(|after| {
        let course: Vec<f64> = [vec![0.0; 4], after].concat();
        course.iter().map(|c| signal(30_000.0, 1.4, 15.0, *c)).collect()
    });
    let kernel = kernel(15.0).t10(Seconds::from_seconds(1.4)).baseline_frames(0..4);
    let series = series(&voxels);
    for engine in engines() {
        let maps = engine.run(&kernel, &series).unwrap();
        for (voxel, wanted) in [1e-3, 1e-4, -1e-3].into_iter().enumerate() {
            let found = f64::from(maps.curves("concentration").unwrap()[[voxel, 0, 0, 5]]);
            assert!((found / wanted - 1.0).abs() < 1e-5, "{found} for {wanted} on {}", engine.device());
        }
        verified("small", &engine, &kernel, &series);
    }
}

#[test]
fn linear_conversions() {
    let voxels = vec![vec![200.0, 210.0, 190.0, 260.0, 140.0]; 3];
    let series = series(&voxels);
    let relative = Concentration::relative_enhancement(4.0).t10(Seconds::from_seconds(1.25)).baseline_frames(0..3);
    let wanted = [0.0, 0.05, -0.05, 0.3, -0.3].map(|e| e / (4.0 * 1.25)).to_vec();
    check("relative", &relative, &series, &vec![wanted; 3], 1e-6);
    let absolute = Concentration::absolute_enhancement(50.0).baseline_frames(0..3);
    let wanted = [0.0, 0.2, -0.2, 1.2, -1.2].to_vec();
    check("absolute", &absolute, &series, &vec![wanted.clone(); 3], 1e-6);
    // Stored with a scaling, and turned over.
    let turned: Vec<f32> = voxels[0].iter().map(|s| ((s - 10.0) / -0.5) as f32).collect();
    let scaling = Scaling { slope: -0.5, intercept: 10.0 };
    let axis = TimeAxis::uniform(2.5, 5).unwrap();
    let series = Series::from_voxels(turned, [1, 1, 1, 5], axis).unwrap().with_scaling(scaling).unwrap();
    check("absolute, scaled", &absolute, &series, &[wanted], 1e-6);
    let wanted = [0.0, 0.05, -0.05, 0.3, -0.3].map(|e| e / (4.0 * 1.25)).to_vec();
    check("relative, scaled", &relative, &series, &[wanted], 1e-6);
}

#[test]
fn noise_below_zero_stays_and_what_cannot_be_inverted_is_nan() {
    // The signal can't exceed M0 sin(a): the sample that does is NaN, the others stay.
    let limit = 1000.0 * 15f64.to_radians().sin();
    let base = signal(1000.0, 1.2, 15.0, 0.0);
    let course = vec![base, base, base - 2.0, limit * 0.999, limit * 1.001, -5.0, base];
    let kernel = kernel(15.0).t10(Seconds::from_seconds(1.2)).baseline_frames(0..2);
    let series = series(&[course.clone(), vec![0.0; 7], course.iter().map(|s| -s).collect()]);
    let (found, status) = reference(&kernel, &series, 0);
    assert_eq!(status, status::NOT_INVERTIBLE);
    assert!(found[2] < 0.0 && found[3] > 100.0 && found[4].is_nan() && found[5] < found[2] && found[6].abs() < 1e-9);
    for voxel in [1, 2] {
        let (found, status) = reference(&kernel, &series, voxel);
        assert!(found.iter().all(|c| c.is_nan()) && status == status::BASELINE_NOT_POSITIVE);
    }
    for engine in engines() {
        verified("limits", &engine, &kernel, &series);
    }
}

#[test]
fn poison_has_a_bit_and_leaves_neighbours_alone() {
    let good: Vec<f64> = course(0.8).iter().map(|c| signal(1000.0, 1.2, 15.0, *c)).collect();
    let mut voxels = vec![good.clone()];
    for bad in [f64::NAN, f64::INFINITY, 1e300, 0.0, 1e-40, -1e12, 3e38] {
        for frame in [0, 3, 20] {
            let mut voxel = good.clone();
            voxel[frame] = bad;
            voxels.push(voxel);
        }
        voxels.push(vec![bad; FRAMES]);
    }
    let mut t10 = vec![1.2; voxels.len()];
    let poisoned = [f64::NAN, 0.0, -1.0, f64::INFINITY, 1e-5];
    for bad in poisoned {
        voxels.push(good.clone());
        t10.push(bad);
    }
    let kernels = [
        kernel(15.0).t10_map(map(&t10)).b1(map(&vec![1.0; t10.len()])).baseline_frames(0..BASELINE),
        Concentration::relative_enhancement(R1).t10_map(map(&t10)).baseline_frames(0..BASELINE),
        Concentration::absolute_enhancement(20.0).baseline_frames(0..BASELINE),
    ];
    let series = series(&voxels);
    for engine in engines() {
        for (index, kernel) in kernels.iter().enumerate() {
            let maps = engine.run(kernel, &series).unwrap();
            let curves = maps.curves("concentration").unwrap();
            for ((x, y, z), status) in maps.status().indexed_iter() {
                let missing = (0..FRAMES).any(|frame| !curves[[x, y, z, frame]].is_finite());
                assert!(!missing || *status != 0, "no bit at {x}");
            }
            for i in 0..poisoned.len() {
                let expected = if index == 2 { 0 } else { status_bit::MAP_NOT_USABLE };
                assert_eq!(maps.status()[[t10.len() - 1 - i, 0, 0]], expected);
            }
            verified("poison", &engine, kernel, &series);
        }
        // Frames that aren't finite can be skipped: only their sample is missing then.
        let options = RunOptions::new().non_finite(NonFinite::Skip);
        let maps = engine.run_with(&kernels[0], &series, &options).unwrap();
        let (curves, whole) = (maps.curves("concentration").unwrap(), |voxel, frame| {
            f64::from(maps.curves("concentration").unwrap()[[voxel, 0, 0, frame]])
        });
        assert!(curves[[2, 0, 0, 3]].is_nan() && curves[[3, 0, 0, 20]].is_nan());
        for frame in (0..FRAMES).filter(|frame| *frame != 20) {
            assert!((whole(3, frame) - whole(0, frame)).abs() < 1e-4, "{frame}");
        }
    }
}

#[test]
fn concentrations_are_a_series_for_the_next_kernel() {
    let truth = course(0.8);
    let voxel: Vec<f64> = truth.iter().map(|c| signal(1000.0, 1.2, 15.0, *c)).collect();
    let signal = series(&vec![voxel; 5]).with_source("somewhere/dce.nii.gz");
    let kernel = kernel(15.0).t10(Seconds::from_seconds(1.2));
    for engine in engines() {
        // Automatic baseline: found in the mean curve.
        let maps = engine.run(&kernel, &signal).unwrap();
        assert_eq!((maps.record().kind, maps.map("concentration").unwrap().unit.as_str()), (SignalKind::Signal, "mM"));
        let concentration = Series::from_curves(&maps, "concentration").unwrap();
        assert_eq!(concentration.times().unwrap().seconds(), signal.times().unwrap().seconds());
        assert_eq!((concentration.geometry(), concentration.source()), (signal.geometry(), signal.source()));
        let kernel = Descriptors::new().kind(SignalKind::Concentration).baseline_frames(0..BASELINE);
        let maps = engine.run(&kernel, &concentration).unwrap();
        let peak = maps.get("peak_enhancement").unwrap()[[2, 0, 0]];
        assert!((peak - 0.8).abs() < 1e-3 && maps.map("auc").unwrap().unit == "mM s", "{peak}");
        assert!(matches!(Series::from_curves(&maps, "auc"), Err(Error::UnknownMap { .. })));
        let MapData::Float(_) = &maps.map("auc").unwrap().data else { panic!("a number") };
    }
}

#[test]
fn wrong_settings_are_refused_with_the_likely_mistake() {
    let series = series(&[vec![1.0, 1.0, 2.0, 3.0]]);
    let s = Seconds::from_seconds;
    let good = || kernel(15.0).t10(s(1.2)).baseline_frames(0..2);
    Engine::cpu().run(&good(), &series).unwrap();
    let with =
        |tr, angle, r1| Concentration::new(s(tr), FlipAngle::from_degrees(angle), r1).t10(s(1.2)).baseline_frames(0..2);
    let refused: [(Concentration, &[&str]); 12] = [
        (with(4.0, 15.0, 4.5), &["repetition time is 4 s", "milliseconds given as seconds"]),
        (with(0.004, 0.26, 4.5), &["flip angle", "radians given as degrees"]),
        (with(0.004, 15.0, 4500.0), &["relaxivity is 4500", "1/s/mM"]),
        (with(0.004, 15.0, 0.0045), &["relaxivity is 0.0045", "1/ms/mM"]),
        (with(0.004, 15.0, f64::NAN), &["relaxivity is NaN"]),
        (good().t10(s(1200.0)), &["T10 is 1200 s", "milliseconds given as seconds"]),
        (good().t10(s(0.0012)), &["T10 is 0.0012 s", "seconds given as milliseconds"]),
        (good().t10_map(map(&[1200.0])), &["median of the map", "milliseconds given as seconds"]),
        (good().t10_map(map(&[1.2, 1.2])), &["[2, 1, 1]"]),
        (kernel(15.0).baseline_frames(0..2), &["T10 is missing"]),
        (good().baseline_frames(0..4), &["baseline is 0:4", "4 frames"]),
        (Concentration::relative_enhancement(4.5).t10(s(1.2)).b1(map(&[1.0])), &["B1", "no flip angle"]),
    ];
    for (kernel, hints) in refused {
        let error = Engine::cpu().run(&kernel, &series).unwrap_err().to_string();
        for hint in hints {
            assert!(error.contains(hint), "{hint} not in: {error}");
        }
    }
}
