//! T1 mapping against closed forms and another optimiser: all methods, on every engine; standard errors against Monte
//! Carlo; what is wrong with settings, files and samples.

mod support;

use perfuse::kernel::VoxelKernel;
use perfuse::kernels::t1::{
    InversionRecovery, NoiseSd, Readout, RecoverySignal, VariableFlipAngle, VfaMethod, status_bit,
};
use perfuse::{
    Descriptors, Engine, Error, FlipAngle, Maps, Mask, RunOptions, SampleAxis, Scaling, Seconds, Series, TimeAxis,
    VoxelMap, Voxels, status,
};
use support::engines;
use support::random::Random;

const TR: f64 = 0.005;
const ANGLES: [f64; 5] = [2.0, 5.0, 10.0, 15.0, 25.0];
const TIMES: [f64; 8] = [0.03, 0.1, 0.25, 0.5, 0.9, 1.6, 3.0, 6.0];

fn spoiled(m0: f64, t1: f64, degrees: f64) -> f64 {
    let (sine, cosine) = degrees.to_radians().sin_cos();
    let e = (-TR / t1).exp();
    m0 * sine * (1.0 - e) / (1.0 - e * cosine)
}

fn angles(degrees: &[f64]) -> Vec<FlipAngle> {
    degrees.iter().copied().map(FlipAngle::from_degrees).collect()
}

fn vfa(degrees: &[f64]) -> VariableFlipAngle {
    VariableFlipAngle::new(Seconds::from_seconds(TR), angles(degrees))
}

fn recovery(times: &[f64]) -> InversionRecovery {
    InversionRecovery::new(times.iter().copied().map(Seconds::from_seconds).collect::<Vec<_>>())
}

/// Samples voxel by voxel as a series.
fn stack(voxels: &[Vec<f64>]) -> Series {
    let frames = voxels[0].len();
    let samples: Vec<f64> = (0..frames).flat_map(|t| voxels.iter().map(move |voxel| voxel[t])).collect();
    Series::from_voxels(samples, [voxels.len(), 1, 1, frames], SampleAxis::Index).unwrap()
}

fn map(values: &[f64]) -> VoxelMap {
    let values: Vec<f32> = values.iter().map(|value| *value as f32).collect();
    VoxelMap::from_array(ndarray::Array3::from_shape_vec((values.len(), 1, 1), values).unwrap().view())
}

fn reference<K: VoxelKernel>(kernel: &K, series: &Series, voxel: usize) -> impl Fn(&str) -> f64 + use<K> {
    let values = Engine::reference_values(kernel, series, [voxel, 0, 0], &RunOptions::new()).unwrap();
    move |id| values.iter().find(|(name, _)| name == id).unwrap_or_else(|| panic!("no {id}")).1
}

fn value(maps: &Maps, id: &str, voxel: usize) -> f64 {
    f64::from(maps.get(id).unwrap()[[voxel, 0, 0]])
}

/// T1 and M0 of every voxel: the definition within 1e-8, engines within `wide`; and verified within derived bounds.
fn check<K: VoxelKernel>(name: &str, kernel: &K, series: &Series, truth: &[(f64, f64)], wide: f64) {
    for (voxel, (t1, m0)) in truth.iter().enumerate() {
        let found = reference(kernel, series, voxel);
        for (id, wanted) in [("t1", *t1), ("r1", 1.0 / t1), ("m0", *m0)] {
            assert!((found(id) / wanted - 1.0).abs() < 1e-8, "{name}, voxel {voxel}: {id} {} for {wanted}", found(id));
        }
        assert!((found("r_squared") - 1.0).abs() < 1e-12 && found("sse") < 1e-15 * m0 * m0, "{name}");
    }
    for engine in engines() {
        let maps = engine.run(kernel, series).unwrap();
        for (voxel, (t1, m0)) in truth.iter().enumerate() {
            for (id, wanted) in [("t1", *t1), ("m0", *m0)] {
                let found = value(&maps, id, voxel);
                assert!(
                    (found / wanted - 1.0).abs() < wide,
                    "{name} on {}: {id} {found} for {wanted} (T1 {t1})",
                    engine.device()
                );
            }
        }
        verified(name, &engine, kernel, series);
    }
}

fn verified<K: VoxelKernel>(name: &str, engine: &Engine, kernel: &K, series: &Series) {
    let verification = engine.verify(kernel, series, &RunOptions::new()).unwrap();
    println!("{name}\n{verification}");
    assert!(verification.passed(), "{name}: {verification}");
}

#[test]
fn flip_angles_noise_free() {
    let mut random = Random::new(1);
    let truth: Vec<(f64, f64)> =
        (0..300).map(|_| (0.05 * 100f64.powf(random.uniform()), 10f64.powf(1.0 + 6.0 * random.uniform()))).collect();
    let series = |degrees: &[f64]| {
        let voxel = |(t1, m0): &(f64, f64)| degrees.iter().map(|a| spoiled(*m0, *t1, *a)).collect();
        stack(&truth.iter().map(voxel).collect::<Vec<Vec<f64>>>())
    };
    for degrees in [&ANGLES[..], &[3.0, 17.0], &[90.0, 4.0, 30.0]] {
        let series = series(degrees);
        check("nonlinear", &vfa(degrees), &series, &truth, 1e-3);
        check("linear", &vfa(degrees).method(VfaMethod::Linear), &series, &truth, 1e-3);
    }
    // Every voxel with its own angles.
    let b1: Vec<f64> = truth.iter().map(|_| f64::from((0.6 + 0.8 * random.uniform()) as f32)).collect();
    let voxels: Vec<Vec<f64>> = truth
        .iter()
        .zip(&b1)
        .map(|((t1, m0), b1)| ANGLES.iter().map(|a| spoiled(*m0, *t1, a * b1)).collect())
        .collect();
    for method in [VfaMethod::Nonlinear, VfaMethod::Linear] {
        check("b1", &vfa(&ANGLES).b1(map(&b1)).method(method), &stack(&voxels), &truth, 1e-3);
    }
}

#[test]
fn recoveries_noise_free() {
    let mut random = Random::new(2);
    let mut truth = Vec::new();
    let (mut magnitudes, mut signed, mut shuffled) = (Vec::new(), Vec::new(), Vec::new());
    let order = [5, 2, 7, 0, 1, 6, 3, 4];
    for _ in 0..300 {
        let (t1, m0) = (0.15 * 20f64.powf(random.uniform()), 10f64.powf(1.0 + 5.0 * random.uniform()));
        let b = m0 * (1.6 + 0.4 * random.uniform());
        let curve: Vec<f64> = TIMES.iter().map(|ti| m0 - b * (-ti / t1).exp()).collect();
        magnitudes.push(curve.iter().map(|s| s.abs()).collect::<Vec<f64>>());
        shuffled.push(order.iter().map(|i| curve[*i].abs()).collect());
        signed.push(curve);
        truth.push((t1, m0));
    }
    check("magnitude", &recovery(&TIMES), &stack(&magnitudes), &truth, 1e-3);
    check("shuffled", &recovery(&order.map(|i| TIMES[i])), &stack(&shuffled), &truth, 1e-3);
    let kernel = recovery(&TIMES).signal(RecoverySignal::Signed);
    check("signed", &kernel, &stack(&signed), &truth, 1e-3);
}

#[test]
fn look_locker_noise_free() {
    let mut random = Random::new(3);
    let (mut truth, mut voxels) = (Vec::new(), Vec::new());
    let times: Vec<f64> = (0..24).map(|i| 0.02 + 0.12 * f64::from(i)).collect();
    for _ in 0..300 {
        let (t1, m0) = (0.2 * 12f64.powf(random.uniform()), 1000.0);
        // The pulses shorten the recovery: 1/T1* = 1/T1 - ln(cos a) / tau.
        let apparent = 1.0 / (1.0 / t1 + (0.1 + random.uniform()) / t1);
        let (a, b) = (m0 * apparent / t1, m0 * (1.0 + apparent / t1));
        voxels.push(times.iter().map(|ti| (a - b * (-ti / apparent).exp()).abs()).collect());
        truth.push((t1, m0));
    }
    check("look-locker", &recovery(&times).readout(Readout::LookLocker), &stack(&voxels), &truth, 2e-3);
}

/// Least squares by brute force: a fine grid over T1 with the amplitude in closed form, refined by golden sections.
fn brute_force(samples: &[f64], degrees: &[f64]) -> (f64, f64) {
    let squares = |t1: f64| {
        let f: Vec<f64> = degrees.iter().map(|a| spoiled(1.0, t1, *a)).collect();
        let (yf, ff) = samples.iter().zip(&f).fold((0.0, 0.0), |(yf, ff), (y, f)| (yf + y * f, ff + f * f));
        let m0 = (yf / ff).max(0.0);
        samples.iter().zip(&f).map(|(y, f)| (y - m0 * f).powi(2)).sum::<f64>()
    };
    minimum(squares)
}

/// Least squares of a magnitude recovery by brute force: every sign of every sample that is possible, T1 as above.
fn brute_force_recovery(samples: &[f64], times: &[f64]) -> (f64, f64) {
    let squares = |t1: f64| {
        (0..=samples.len())
            .map(|switch| {
                let y: Vec<f64> = samples.iter().enumerate().map(|(i, y)| if i < switch { -y } else { *y }).collect();
                let e: Vec<f64> = times.iter().map(|ti| (-ti / t1).exp()).collect();
                let n = y.len() as f64;
                let (my, me) = (y.iter().sum::<f64>() / n, e.iter().sum::<f64>() / n);
                let cov: f64 = y.iter().zip(&e).map(|(y, e)| (y - my) * (e - me)).sum();
                let var: f64 = e.iter().map(|e| (e - me).powi(2)).sum();
                let (a, b) = (my - cov / var * me, -cov / var);
                if a <= 0.0 || b <= 0.0 {
                    return f64::INFINITY;
                }
                y.iter().zip(&e).map(|(y, e)| (y - a + b * e).powi(2)).sum()
            })
            .fold(f64::INFINITY, f64::min)
    };
    minimum(squares)
}

/// The least value of a function of T1 between 10 ms and 20 s, and where it is.
fn minimum(squares: impl Fn(f64) -> f64) -> (f64, f64) {
    let grid: Vec<f64> = (0..4000).map(|k| 0.01 * 2000f64.powf(f64::from(k) / 3999.0)).collect();
    let values: Vec<f64> = grid.iter().map(|t1| squares(*t1)).collect();
    let best = (0..grid.len()).min_by(|a, b| values[*a].total_cmp(&values[*b])).unwrap();
    let (mut low, mut high) = (grid[best.max(1) - 1], grid[(best + 1).min(3999)]);
    let ratio = (5f64.sqrt() - 1.0) / 2.0;
    for _ in 0..60 {
        let (a, b) = (high - ratio * (high - low), low + ratio * (high - low));
        if squares(a) < squares(b) { high = b } else { low = a }
    }
    let t1 = 0.5 * (low + high);
    (t1, squares(t1))
}

#[test]
fn the_fit_is_the_global_minimum_whatever_the_noise() {
    let mut random = Random::new(4);
    let (mut flips, mut recoveries) = (Vec::new(), Vec::new());
    for i in 0..400 {
        let (t1, noise) = (0.03 * 200f64.powf(random.uniform()), [0.01, 0.05, 0.3, 2.0][i % 4]);
        let scale = ANGLES.iter().map(|a| spoiled(1.0, t1, *a)).fold(0.0, f64::max);
        flips.push(ANGLES.map(|a| spoiled(1.0, t1, a) + noise * scale * random.normal()).to_vec());
        recoveries.push(TIMES.map(|ti| (1.0 - 1.9 * (-ti / t1).exp() + noise * random.normal()).abs()).to_vec());
    }
    let flips_series = stack(&flips);
    let recovery_series = stack(&recoveries);
    let (mut better, mut recovered) = (0, 0);
    for i in 0..flips.len() {
        let (t1, least) = brute_force(&flips[i], &ANGLES);
        let found = reference(&vfa(&ANGLES), &flips_series, i);
        if found("status") as u32 & status_bit::NO_SIGNAL == 0 {
            assert!(found("sse") <= least * (1.0 + 1e-6) + 1e-15, "{i}: {} over {least}, T1 {t1}", found("sse"));
            better += 1;
        }
        let (t1, least) = brute_force_recovery(&recoveries[i], &TIMES);
        let found = reference(&recovery(&TIMES), &recovery_series, i);
        // Where the sum falls until A reaches 0, no recovery fits.
        if found("sse").is_finite() {
            recovered += 1;
            assert!(found("sse") <= least * (1.0 + 1e-6) + 1e-15, "{i}: {} over {least}, T1 {t1}", found("sse"));
        }
    }
    println!("{better} and {recovered} of 400 have a fit");
    assert!(better > 350 && recovered > 350, "{better} {recovered}");
    for engine in engines() {
        verified("noisy flip angles", &engine, &vfa(&ANGLES), &flips_series);
        verified("noisy linear", &engine, &vfa(&ANGLES).method(VfaMethod::Linear), &flips_series);
        verified("noisy recovery", &engine, &recovery(&TIMES), &recovery_series);
        verified("noisy look-locker", &engine, &recovery(&TIMES).readout(Readout::LookLocker), &recovery_series);
    }
}

#[test]
fn standard_errors_say_how_results_scatter() {
    let mut random = Random::new(5);
    let (t1, m0, sd) = (1.1, 1000.0, 0.4);
    let apparent = 0.7;
    let times: Vec<f64> = TIMES.iter().map(|ti| ti * 0.8).collect();
    let (a, b) = (m0 * apparent / t1, m0 * (1.0 + apparent / t1));
    let spoiled_curve: Vec<f64> = ANGLES.iter().map(|angle| spoiled(m0, t1, *angle)).collect();
    let recovered: Vec<f64> = TIMES.iter().map(|ti| m0 - 1.9 * m0 * (-ti / t1).exp()).collect();
    let look: Vec<f64> = times.iter().map(|ti| a - b * (-ti / apparent).exp()).collect();
    let mut noisy = |curve: &[f64], sd: f64| {
        stack(&(0..3000).map(|_| curve.iter().map(|s| s + sd * random.normal()).collect()).collect::<Vec<Vec<f64>>>())
    };
    let (flips, recovery_series, look) = (noisy(&spoiled_curve, sd), noisy(&recovered, 10.0), noisy(&look, 5.0));
    let scatter = |name: &str, maps: &Maps, expected: f64| {
        for id in ["t1", "r1", "m0"] {
            let values: Vec<f64> = maps.get(id).unwrap().iter().map(|v| f64::from(*v)).collect();
            let errors = maps.get(format!("{id}_se")).unwrap();
            let n = values.len() as f64;
            let mean = values.iter().sum::<f64>() / n;
            let sd = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
            let rms = (errors.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / n).sqrt();
            println!("{name} {id}: scatter {sd:.4e}, standard error {rms:.4e}");
            assert!((rms / sd - 1.0).abs() < expected, "{name} {id}: scatter {sd}, standard error {rms}");
        }
    };
    let engine = Engine::cpu();
    for method in [VfaMethod::Nonlinear, VfaMethod::Linear] {
        let name = method.as_str();
        scatter(name, &engine.run(&vfa(&ANGLES).method(method), &flips).unwrap(), 0.08);
        let known = vfa(&ANGLES).method(method).noise(NoiseSd::Value(sd));
        scatter(name, &engine.run(&known, &flips).unwrap(), 0.08);
        let known = vfa(&ANGLES).method(method).noise(NoiseSd::Map(map(&[sd; 3000])));
        scatter(name, &engine.run(&known, &flips).unwrap(), 0.08);
    }
    let signed = |times: &[f64]| recovery(times).signal(RecoverySignal::Signed);
    scatter("recovery", &engine.run(&signed(&TIMES), &recovery_series).unwrap(), 0.08);
    scatter("look-locker", &engine.run(&signed(&times).readout(Readout::LookLocker), &look).unwrap(), 0.08);
}

#[test]
fn two_angles_have_a_value_and_standard_errors_only_with_a_known_noise() {
    let series = stack(&[vec![spoiled(100.0, 1.3, 3.0), spoiled(100.0, 1.3, 17.0)]]);
    let found = reference(&vfa(&[3.0, 17.0]), &series, 0);
    assert!((found("t1") - 1.3).abs() < 1e-9 && found("t1_se").is_nan());
    assert_eq!(found("status") as u32, status_bit::NO_DEGREES_OF_FREEDOM);
    let known = reference(&vfa(&[3.0, 17.0]).noise(NoiseSd::Value(0.01)), &series, 0);
    assert!(known("t1_se") > 0.0 && known("m0_se") > 0.0 && known("status") == 0.0);
    let linear = reference(&vfa(&[3.0, 17.0]).noise(NoiseSd::Value(0.01)).method(VfaMethod::Linear), &series, 0);
    assert!((linear("t1_se") / known("t1_se") - 1.0).abs() < 1e-6, "with two angles both methods are one");
    // Noise that leaves T1 open.
    let vague = reference(&vfa(&[3.0, 17.0]).noise(NoiseSd::Value(2.0)), &series, 0);
    assert!(vague("t1").is_finite() && vague("status") as u32 == status::NOT_IDENTIFIABLE, "{}", vague("t1_se"));
}

#[test]
fn bounds_are_reported_and_have_no_standard_errors() {
    let curve = |t1: f64| ANGLES.map(|a| spoiled(100.0, t1, a)).to_vec();
    let series = stack(&[curve(1.0), curve(3.0), curve(0.2)]);
    let kernel = vfa(&ANGLES).t1_bounds(Seconds::from_seconds(0.5), Seconds::from_seconds(2.0));
    for (voxel, bit, bound) in [(0, 0, 1.0), (1, status::AT_UPPER_BOUND, 2.0), (2, status::AT_LOWER_BOUND, 0.5)] {
        let found = reference(&kernel, &series, voxel);
        assert!((found("t1") - bound).abs() < 1e-9 && found("status") as u32 == bit, "{voxel}: {}", found("t1"));
        assert_eq!(found("t1_se").is_nan(), bit != 0);
        let linear = reference(&kernel.clone().method(VfaMethod::Linear), &series, voxel);
        assert_eq!((linear("t1").is_nan(), linear("status") as u32), (bit != 0, bit), "{voxel}");
    }
    // Signals that no T1 explains: rising faster than the sine, and falling faster than saturation lets them.
    let series = stack(&[ANGLES.map(|a| a * a).to_vec(), ANGLES.map(|a| 1.0 / (a * a * a)).to_vec()]);
    let [low, high] = [0, 1].map(|voxel| reference(&vfa(&ANGLES), &series, voxel));
    assert_eq!(low("status") as u32 & status::AT_LOWER_BOUND, status::AT_LOWER_BOUND);
    assert_eq!(high("status") as u32 & status::AT_UPPER_BOUND, status::AT_UPPER_BOUND);
}

/// Every kernel over these samples on every engine: the status of the definition, no value without a bit, and verified.
fn poison(name: &str, voxels: &[Vec<f64>]) {
    let series = stack(voxels);
    let times = &TIMES[..5];
    for engine in engines() {
        let runs = [
            engine.run(&vfa(&ANGLES), &series).unwrap(),
            engine.run(&vfa(&ANGLES).method(VfaMethod::Linear), &series).unwrap(),
            engine.run(&recovery(times), &series).unwrap(),
            engine.run(&recovery(times).readout(Readout::LookLocker), &series).unwrap(),
        ];
        for maps in &runs {
            for (index, status) in maps.status().indexed_iter() {
                let missing = maps.iter().any(|map| {
                    let perfuse::MapData::Float(values) = &map.data else { panic!("numbers") };
                    assert!(!values[index].is_infinite(), "{name}: {} at {index:?}", map.quantity.id);
                    values[index].is_nan()
                });
                assert!(!missing || *status != 0, "{name}: a value is missing at {index:?} without a bit");
            }
        }
        verified(name, &engine, &vfa(&ANGLES), &series);
        verified(name, &engine, &vfa(&ANGLES).method(VfaMethod::Linear), &series);
        verified(name, &engine, &recovery(times), &series);
        verified(name, &engine, &recovery(times).readout(Readout::LookLocker), &series);
    }
}

#[test]
fn poisoned_samples_have_a_bit_and_leave_their_neighbours_alone() {
    let good = ANGLES.map(|a| spoiled(500.0, 0.9, a)).to_vec();
    let mut voxels = vec![good.clone()];
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, 0.0, -100.0, 1e-40, 3e38] {
        for frame in [0, 3] {
            let mut voxel = good.clone();
            voxel[frame] = bad;
            voxels.push(voxel);
        }
        voxels.push(vec![bad; 5]);
    }
    voxels.push(vec![7.0; 5]);
    voxels.push(vec![-7.0; 5]);
    poison("poison", &voxels);

    let series = stack(&voxels);
    let all_zero = reference(&vfa(&ANGLES), &stack(&[vec![0.0; 5]]), 0);
    assert!(all_zero("status") as u32 == status_bit::NO_SIGNAL && all_zero("t1").is_nan());
    for engine in engines() {
        let alone = engine.run(&vfa(&ANGLES), &stack(std::slice::from_ref(&good))).unwrap();
        let among = engine.run(&vfa(&ANGLES), &series).unwrap();
        assert_eq!(value(&alone, "t1", 0).to_bits(), value(&among, "t1", 0).to_bits());
        assert_eq!(among.status()[[1, 0, 0]], status::NON_FINITE_SAMPLE);
        // A damaged image is left out of its voxel's fit where that is asked for.
        let skipped = engine.run_with(&vfa(&ANGLES), &series, &RunOptions::new().non_finite(perfuse::NonFinite::Skip));
        let skipped = skipped.unwrap();
        assert!((value(&skipped, "t1", 1) - 0.9).abs() < 1e-3, "{}", value(&skipped, "t1", 1));
    }
}

#[test]
fn unusable_maps_have_a_bit() {
    let good = ANGLES.map(|a| spoiled(500.0, 0.9, a)).to_vec();
    let b1 = [1.0, f64::NAN, 0.0, -1.0, f64::INFINITY, 7.3];
    let series = stack(&vec![good; 6]);
    let kernel = vfa(&ANGLES).b1(map(&b1)).noise(NoiseSd::Map(map(&[1.0, 1.0, 1.0, 1.0, 1.0, f64::NAN])));
    for engine in engines() {
        let maps = engine.run(&kernel, &series).unwrap();
        assert_eq!(maps.status()[[0, 0, 0]], 0);
        for voxel in 1..6 {
            assert_eq!(maps.status()[[voxel, 0, 0]], status_bit::MAP_NOT_USABLE, "{voxel}");
        }
        verified("b1", &engine, &kernel, &series);
    }
}

#[test]
fn results_are_the_same_whatever_the_storage_order_and_scaling() {
    let mut random = Random::new(6);
    let voxels: Vec<Vec<f64>> = (0..203)
        .map(|_| {
            ANGLES
                .map(|a| (spoiled(20_000.0, 0.2 + 2.0 * random.uniform(), a) + 20.0 * random.normal()).round())
                .to_vec()
        })
        .collect();
    let series = stack(&voxels);
    let Ok(Voxels::F64(samples)) = series.voxels() else { panic!("as given") };
    let shape = series.shape();
    let stored: Vec<Voxels> = vec![
        samples.iter().map(|s| *s as f32).collect::<Vec<_>>().into(),
        samples.iter().map(|s| *s as i16).collect::<Vec<_>>().into(),
        samples.iter().map(|s| *s as u32).collect::<Vec<_>>().into(),
        samples.iter().map(|s| *s as i64).collect::<Vec<_>>().into(),
    ];
    for engine in engines() {
        let wanted = engine.run(&vfa(&ANGLES), &series).unwrap();
        for voxels in &stored {
            let series = Series::from_voxels(voxels.clone(), shape, SampleAxis::Index).unwrap();
            let found = engine.run(&vfa(&ANGLES), &series).unwrap();
            for (a, b) in found.get("t1").unwrap().iter().zip(wanted.get("t1").unwrap()) {
                assert!((a / b - 1.0).abs() < 1e-4, "{}: {a} for {b}", voxels.type_name());
            }
            verified(voxels.type_name(), &engine, &vfa(&ANGLES), &series);
        }
        // Other images' scaling: T1 stays, M0 follows. A negative slope turns stored samples over.
        for (slope, intercept) in [(0.25, 0.0), (2.0, -1000.0), (-0.5, 40.0)] {
            let turned: Vec<f32> = samples.iter().map(|s| ((s - intercept) / slope) as f32).collect();
            let scaling = Scaling { slope, intercept };
            let series = Series::from_voxels(turned, shape, SampleAxis::Index).unwrap().with_scaling(scaling).unwrap();
            let found = engine.run(&vfa(&ANGLES), &series).unwrap();
            for id in ["t1", "m0", "sse"] {
                for (a, b) in found.get(id).unwrap().iter().zip(wanted.get(id).unwrap()) {
                    assert!((a / b - 1.0).abs() < 2e-2, "{scaling:?}: {id} {a} for {b}");
                }
            }
            verified("scaled", &engine, &vfa(&ANGLES), &series);
        }
        // Angles and images in another order.
        let order = [3, 0, 4, 2, 1];
        let shuffled: Vec<Vec<f64>> = voxels.iter().map(|voxel| order.iter().map(|i| voxel[*i]).collect()).collect();
        let found = engine.run(&vfa(&order.map(|i| ANGLES[i])), &stack(&shuffled)).unwrap();
        for (a, b) in found.get("t1").unwrap().iter().zip(wanted.get("t1").unwrap()) {
            assert!((a / b - 1.0).abs() < 1e-4, "{a} for {b}");
        }
    }
}

fn refused<K: VoxelKernel>(kernel: &K, series: &Series, hints: &[&str]) {
    let error = Engine::cpu().run(kernel, series).unwrap_err();
    assert!(matches!(error, Error::Setting { .. } | Error::Mismatch { .. } | Error::Time { .. }), "{error:?}");
    let text = error.to_string();
    for hint in hints {
        assert!(text.contains(hint), "{hint} not in: {text}");
    }
}

#[test]
fn wrong_settings_are_refused_with_the_likely_mistake() {
    let series = stack(&[vec![1.0, 2.0, 1.5]]);
    let s = Seconds::from_seconds;
    let with_tr = |tr| VariableFlipAngle::new(tr, angles(&[2.0, 10.0, 20.0]));
    refused(&with_tr(s(4.2)), &series, &["repetition time is 4.2 s", "milliseconds given as seconds", "0.0042 s"]);
    refused(&vfa(&[2.0, 10.0]), &series, &["flip angles is a list of 2", "3 samples per voxel"]);
    refused(&vfa(&[10.0]), &series, &["flip angles is a list of 1", "2 or more"]);
    refused(&vfa(&[0.03, 0.17, 0.35]), &series, &["radians given as degrees"]);
    refused(&vfa(&[10.0, 10.0, 10.0]), &series, &["all equal"]);
    refused(&vfa(&[10.0, 20.0, 200.0]), &series, &["between 0 and 180"]);
    let bounds = |a, b| vfa(&[2.0, 10.0, 20.0]).t1_bounds(s(a), s(b));
    refused(&bounds(0.0014, 3.0), &series, &["shortest T1", "seconds given as milliseconds"]);
    refused(&bounds(0.1, 3000.0), &series, &["longest T1", "milliseconds given as seconds"]);
    refused(&bounds(3.0, 0.1), &series, &["T1 bounds is 3 s to 0.1 s"]);
    refused(&vfa(&[2.0, 10.0, 20.0]).noise(NoiseSd::Value(0.0)), &series, &["noise is 0", "positive"]);
    refused(&vfa(&[2.0, 10.0, 20.0]).b1(map(&[1.0, 1.0])), &series, &["[2, 1, 1]", "[1, 1, 1]"]);
    refused(&recovery(&[50.0, 500.0, 2000.0]), &series, &["milliseconds given as seconds? (2000 ms is 2 s)"]);
    refused(&recovery(&[0.5, 0.5, 2.0]), &series, &["three different times"]);
    refused(&recovery(&[-0.5, 0.5, 2.0]), &series, &["-0.5 s"]);
    // A stack has no times for what needs them, and a dynamic series has too many samples for the angles.
    refused(&Descriptors::new(), &series, &["the series: no usable time axis", "3 samples that were put together"]);
    let dynamic = Series::from_voxels(vec![1.0f32; 40], [1, 1, 1, 40], TimeAxis::uniform(2.0, 40).unwrap()).unwrap();
    refused(&vfa(&ANGLES), &dynamic, &["40 samples per voxel"]);
}

#[test]
fn a_mask_keeps_the_outside_blank() {
    let series = stack(&vec![ANGLES.map(|a| spoiled(500.0, 0.9, a)).to_vec(); 3]);
    let mask = Mask::from_labels(ndarray::Array3::from_shape_vec((3, 1, 1), vec![1u32, 0, 1]).unwrap().view());
    for engine in engines() {
        let maps = engine.run_with(&vfa(&ANGLES), &series, &RunOptions::new().mask(&mask)).unwrap();
        assert!(value(&maps, "t1", 1).is_nan() && maps.status()[[1, 0, 0]] == status::OUTSIDE_MASK);
        assert!((value(&maps, "t1", 2) - 0.9).abs() < 1e-4);
        let record = maps.record();
        assert!(record.times_s.is_empty() && record.times_origin.contains("no time series"));
        assert_eq!(maps.map("t1").unwrap().unit, "s");
        assert_eq!(maps.map("r1_se").unwrap().unit, "1/s");
        assert_eq!(maps.map("sse").unwrap().unit, "(a.u.)^2");
    }
}
