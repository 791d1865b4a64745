//! The reference (f64) against an oracle that was written from the definitions alone, on thousands of random curves.

mod support;

use std::collections::BTreeMap;

use perfuse::kernels::descriptors::Onset;
use perfuse::{Engine, RunOptions, SettingValue, SignalKind};
use support::oracle::{Curves, NoiseFrom, Random, Settings, Shared, Storage};

/// A random enhancement between about 0 and 1 at time `t` after the arrival.
fn shape(kind: usize, t: f64, scale: f64) -> f64 {
    if t <= 0.0 {
        return 0.0;
    }
    let x = t / scale;
    match kind {
        0 => x.min(1.0),
        1 => (1.0 - (x - 1.0).abs()).max(0.0),
        2 => x.min(1.0).min((4.0 - x).max(0.3)),
        3 => 1.0 - (-x).exp(),
        4 => (x * (1.0 - x).exp()).powi(3),
        5 => 1.6 * ((-0.1 * x).exp() - (-x).exp()),
        // A spike of one frame, most likely.
        6 => f64::from(u8::from(x < 0.2)),
        _ => 0.0,
    }
}

/// A series of random curves with settings that fit it.
fn draw(random: &mut Random) -> (Curves, Settings) {
    let frames = 10 + random.below(50);
    let spacing = [1.0, 2.5, 6.0, 11.3][random.below(4)];
    let mut time = [0.0, 12.5, -7.0, 1000.25][random.below(4)];
    let uneven = random.below(2) == 0;
    let times: Vec<f64> = (0..frames)
        .map(|_| {
            let now = time;
            time += spacing * if uneven { random.between(0.4, 1.9) } else { 1.0 };
            now
        })
        .collect();
    let duration = times[frames - 1] - times[0];
    let fall = random.below(3) == 0;
    let storage = [Storage::I16, Storage::F32, Storage::F64][random.below(3)];
    let slope = [1.0, 0.25, -0.5, -2.0][random.below(4)];
    let intercept = [0.0, 100.0, -31.5][random.below(3)];
    let first = random.below(3);
    let baseline = (first, (first + 1 + random.below(7)).min(frames - 2));
    let arrival = times[baseline.1 - 1] + random.between(-0.5, 5.0) * spacing;
    let noise = [0.0, 0.02, 0.1, 0.4][random.below(4)];
    let curves: Vec<Vec<f64>> = (0..40)
        .map(|_| {
            let kind = random.below(8);
            let height = random.between(10.0, 400.0) * if random.below(12) == 0 { -1.0 } else { 1.0 };
            let scale = random.between(0.5, 12.0) * spacing;
            let level = random.between(150.0, 900.0) * if random.below(15) == 0 { -1.0 } else { 1.0 };
            let shift = random.between(-1.0, 1.0) * spacing;
            let coarse = random.below(5) == 0;
            times
                .iter()
                .map(|t| {
                    let e = height * (shape(kind, t - arrival - shift, scale) + noise * random.normal());
                    // Coarse steps make ties.
                    let e = if coarse { (e / 16.0).round() * 16.0 } else { e };
                    level + if fall { -e } else { e }
                })
                .collect()
        })
        .collect();
    let mut curves = Curves::new(&curves, storage, slope, intercept, times);
    let masked = random.below(3) == 0;
    for voxel in 0..curves.inside.len() {
        curves.inside[voxel] = !masked || random.below(3) > 0;
    }
    let methods = [
        Onset::PiecewiseLinear,
        Onset::PiecewiseLinear,
        Onset::Intersection,
        Onset::Threshold { fraction: 0.1 },
        Onset::Threshold { fraction: 0.3 },
        Onset::SdThreshold { deviations: 3.0 },
        Onset::Derivative { fraction: 0.1 },
        Onset::Seconds(random.between(0.2, 0.6) * duration),
    ];
    let kinds = [SignalKind::Signal, SignalKind::Signal, SignalKind::Concentration, SignalKind::Attenuation];
    let settings = Settings {
        kind: kinds[random.below(4)],
        fall,
        baseline: (random.below(4) > 0).then_some(baseline),
        onset: methods[random.below(methods.len())],
        global: random.below(5) == 0,
        noise: match random.below(5) {
            0 => NoiseFrom::Value(random.between(0.5, 20.0)),
            1 => NoiseFrom::Map((0..40).map(|_| random.between(0.5, 20.0) as f32).collect()),
            _ => NoiseFrom::Baseline,
        },
        subframe: random.below(3) == 0,
        threshold: [5.0, 5.0, 2.0, 0.5][random.below(4)],
        window: 2 + random.below(5),
        late_from: (random.below(3) == 0).then(|| random.between(0.0, 0.6) * duration),
        iauc: vec![random.between(0.05, 0.7) * duration, 7.5],
        ratio: (random.between(0.0, 0.2) * duration, random.between(0.2, 0.6) * duration),
        recovery: (random.below(2) == 0).then(|| (times_at(&curves, 0.6), times_at(&curves, 0.9))),
    };
    (curves, settings)
}

fn times_at(curves: &Curves, share: f64) -> f64 {
    let (first, last) = (curves.times[0], curves.times[curves.times.len() - 1]);
    first + share * (last - first) + 0.123
}

/// What f64 itself may lose in a map's unit: differences of samples cancel.
fn rounding(id: &str, curves: &Curves, voxel: usize) -> f64 {
    let largest = curves.stored[voxel].iter().fold(0.0f64, |m, s| m.max((curves.slope * s).abs()));
    let duration = curves.times[curves.times.len() - 1] - curves.times[0];
    let unit = match id {
        id if id.starts_with("auc") || id.starts_with("iauc") => duration,
        id if id.starts_with("aumc") => duration * duration,
        _ => 1.0,
    };
    1e-13 * largest.max(1.0) * unit
}

/// The frames of the baseline that a run decided on.
fn decided_baseline(curves: &Curves, settings: &Settings) -> (usize, usize) {
    let mask = curves.mask();
    let maps =
        Engine::reference().run_with(&settings.kernel(), &curves.series(), &RunOptions::new().mask(&mask)).unwrap();
    for (name, value) in &maps.record().settings {
        if name == "baseline_frames" {
            let SettingValue::List(ends) = value else { panic!("{value:?}") };
            let [SettingValue::Number(from), SettingValue::Number(to)] = ends[..] else { panic!("{ends:?}") };
            return (from as usize, to as usize);
        }
    }
    panic!("no baseline frames in {:?}", maps.record().settings);
}

#[test]
fn reference_agrees_with_the_oracle() {
    let mut random = Random::new(20_251);
    let mut differing: BTreeMap<String, (usize, String)> = BTreeMap::new();
    let (mut voxels, mut baselines, mut baselines_differing) = (0, 0, 0);
    for round in 0..250 {
        let (curves, settings) = draw(&mut random);
        let used = match settings.baseline {
            Some(frames) => frames,
            None => {
                let decided = decided_baseline(&curves, &settings);
                let expected = Shared::new(&curves, &settings).baseline;
                baselines += 1;
                if decided != expected {
                    baselines_differing += 1;
                    println!("round {round}: baseline {decided:?}, oracle {expected:?} of {}", curves.times.len());
                }
                decided
            }
        };
        let mut oracle = Shared::with_baseline(&curves, &settings, used);
        let series = curves.series();
        let mask = curves.mask();
        let options = RunOptions::new().mask(&mask);
        for voxel in 0..curves.stored.len() {
            let expected = oracle.answer(voxel);
            let found = Engine::reference_values(&settings.kernel(), &series, [voxel, 0, 0], &options).unwrap();
            voxels += 1;
            let mut differs = |id: &str, text: String| {
                let entry = differing.entry(id.to_string()).or_insert_with(|| (0, String::new()));
                entry.0 += 1;
                if entry.0 <= 3 {
                    entry.1 += &format!(
                        "\n    round {round} voxel {voxel}: {text}; {:?} global {} {} subframe {} late {:?} status {:#x} base {used:?}/{}",
                        settings.onset,
                        settings.global,
                        settings.kind.as_str(),
                        settings.subframe,
                        settings.late_from,
                        expected.status,
                        curves.times.len()
                    );
                }
            };
            if expected.values.len() + 1 != found.len() && !expected.values.is_empty() {
                let ids: Vec<&str> =
                    found.iter().map(|(id, _)| id.as_str()).filter(|id| !expected.values.contains_key(*id)).collect();
                let missing: Vec<&String> =
                    expected.values.keys().filter(|id| !found.iter().any(|f| f.0 == **id)).collect();
                differs("maps", format!("{ids:?} not in the oracle, {missing:?} not in the kernel"));
            }
            for (id, value) in &found {
                if id == "status" {
                    // Where rounding decides whether a quotient has a divisor, it decides its bit.
                    let close = |ids: &[&str]| ids.iter().any(|id| expected.close.contains(*id));
                    let quotients =
                        ["contrast_to_noise", "mean_residence_time", "signal_enhancement_ratio", "curve_type"];
                    let mut left_open = 0;
                    if close(&["onset_se"]) {
                        left_open |= support::oracle::NOT_IDENTIFIABLE;
                    }
                    if close(&quotients) {
                        left_open |= support::oracle::NO_DIVISOR;
                    }
                    let (found, wanted) = (*value as u32 & !left_open, expected.status & !left_open);
                    for bit in 0..32 {
                        if (found ^ wanted) >> bit & 1 == 1 {
                            differs(&format!("status bit {bit}"), format!("kernel {}", found >> bit & 1));
                        }
                    }
                    continue;
                }
                let Some(wanted) = expected.values.get(id) else { continue };
                if expected.close.contains(id) {
                    continue;
                }
                let tolerance = if expected.noisy.contains(id) { 2e-7 } else { 1e-9 };
                let mut floor = rounding(id, &curves, voxel);
                if expected.noisy.contains(id) && id.starts_with("time_to") {
                    // A small difference of two times, one of which follows the noise.
                    floor += 1e-7 * curves.times.iter().fold(0.0f64, |m, t| m.max(t - curves.times[0]));
                }
                if value.is_nan() != wanted.is_nan() || (value - wanted).abs() > tolerance * wanted.abs() + floor {
                    differs(id, format!("kernel {value} oracle {wanted}"));
                }
            }
        }
    }
    println!("{voxels} voxels, {baselines} automatic baselines, {baselines_differing} differ");
    for (id, (count, examples)) in &differing {
        println!("{id}: {count}{examples}");
    }
    assert!(differing.is_empty());
    assert_eq!(baselines_differing, 0);
}

/// The saturating fit is a search in two dimensions: what it finds must explain the curve as well as a dense search does.
#[test]
fn saturating_onset_explains_the_curve_as_well_as_a_dense_search() {
    let mut random = Random::new(77);
    let (mut voxels, mut worse, mut worst_excess) = (0, 0, 0.0f64);
    let mut deviations = Vec::new();
    while voxels < 300 {
        let (mut curves, mut settings) = draw(&mut random);
        settings.onset = Onset::Saturating;
        settings.global = false;
        settings.baseline = settings.baseline.or(Some((0, 3)));
        settings.noise = NoiseFrom::Baseline;
        curves.stored.truncate(12);
        curves.inside.truncate(12);
        curves.inside.fill(true);
        let oracle = Shared::with_baseline(&curves, &settings, settings.baseline.unwrap());
        let series = curves.series();
        for voxel in 0..curves.stored.len() {
            let found =
                Engine::reference_values(&settings.kernel(), &series, [voxel, 0, 0], &RunOptions::new()).unwrap();
            let value = |id: &str| found.iter().find(|(name, _)| name == id).unwrap().1;
            if value("onset").is_nan() || value("status") as u32 & support::oracle::GLOBAL_ONSET != 0 {
                continue;
            }
            let curve = oracle.enhancement(voxel);
            let (best_time, best) = curve.saturating();
            let total: f64 = curve.e[..=curve.peak].iter().map(|e| e * e).sum();
            let excess = (curve.saturating_sse(value("onset")) - best) / total;
            voxels += 1;
            worst_excess = worst_excess.max(excess);
            worse += usize::from(excess > 1e-3);
            deviations.push((value("onset") - best_time).abs() / (curve.t[1] - curve.t[0]));
        }
    }
    deviations.sort_by(f64::total_cmp);
    println!(
        "{voxels} voxels, {worse} worse by more than 1e-3 of the sum of squares, worst excess {worst_excess:.2e}; deviation in frames: median {:.2e}, 90 % {:.2e}, largest {:.2e}",
        deviations[voxels / 2],
        deviations[voxels * 9 / 10],
        deviations[deviations.len() - 1]
    );
    assert_eq!(worse, 0);
}

/// A voxel without an answer says why: no map is NaN (or label 0) where no status bit is set.
#[test]
fn nothing_is_missing_without_a_status_bit() {
    let mut random = Random::new(4);
    let mut silent: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..80 {
        let (curves, settings) = draw(&mut random);
        let series = curves.series();
        for voxel in 0..curves.stored.len() {
            let found =
                Engine::reference_values(&settings.kernel(), &series, [voxel, 0, 0], &RunOptions::new()).unwrap();
            if found.last().unwrap().1 != 0.0 {
                continue;
            }
            for (id, value) in &found {
                if value.is_nan() || (id == "curve_type" && *value == 0.0) {
                    *silent.entry(id.clone()).or_default() += 1;
                }
            }
        }
    }
    assert!(silent.is_empty(), "{silent:?}");
}
