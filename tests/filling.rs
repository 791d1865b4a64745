//! The filling analysis on phantoms with truth: a part of the study that `examples/filling_study.rs` prints in full, and what
//! else must hold.

mod support;

use ndarray::{Array3, Array4};
use perfuse::analysis::filling::report::{NoOrigin, Place, SpeedTrend};
use perfuse::analysis::filling::{FillingPattern, FillingReport};
use perfuse::kernels::descriptors::Polarity;
use perfuse::kernels::filling_time::FillingTime;
use perfuse::phantom::filling::{ContrastFall, FillingPhantom, FillingPhantomSeries, Pattern};
use perfuse::{Engine, Geometry, Mask, Quantity, RunOptions, Scaling, Series, TimeAxis, Voxels, status};
use support::filling::{Cell, NOISE_WIDTHS, SPACINGS, Shape};

fn run(analysis: &FillingPattern, phantom: &FillingPhantomSeries) -> FillingReport {
    analysis.run(&Engine::cpu(), &phantom.series, &phantom.lesion, &RunOptions::new()).unwrap()
}

#[test]
fn uniform_filling_is_called_undetermined() {
    let (mut undetermined, mut all) = (0, 0);
    for noise_width in NOISE_WIDTHS {
        for spacing_s in SPACINGS {
            let cell = Cell {
                shape: Shape::Ball,
                pattern: Pattern::Uniform,
                spacing_s,
                noise_width,
                fall: ContrastFall::Enhancement,
                speed: 0.1,
                tau_s: 25.0,
            };
            let seeds = 5;
            let quiet = (0..seeds)
                .filter(|seed| cell.report(&Engine::cpu(), 77_000 + seed).unwrap().1.outward.sign == 0)
                .count();
            assert!(quiet >= 4, "{cell:?}: undetermined in {quiet} of {seeds}");
            undetermined += quiet;
            all += seeds as usize;
        }
    }
    assert!(undetermined as f64 >= 0.93 * all as f64, "{undetermined} of {all}");
}

#[test]
fn directions_origins_and_speeds_are_found() {
    for pattern in [Pattern::Centrifugal, Pattern::Centripetal, Pattern::FromBase] {
        for (noise_width, spacing_s, fall) in [
            (0.0, 3.0, ContrastFall::Enhancement),
            (0.0, 10.0, ContrastFall::Noise),
            (3.0, 3.0, ContrastFall::Enhancement),
        ] {
            let mut cell = Cell { shape: Shape::Ball, pattern, spacing_s, noise_width, fall, speed: 1.0, tau_s: 25.0 };
            cell.set_span(9.0).unwrap();
            for seed in 0..2 {
                let outcome = cell.outcome(&Engine::cpu(), 88_000 + seed).unwrap();
                let report = &outcome.report;
                assert_eq!(
                    outcome.sign(),
                    outcome.true_sign(),
                    "{cell:?} {seed}: {:?} {:?}",
                    report.outward,
                    report.from_base
                );
                assert!(outcome.origin_is_right_or_none(), "{cell:?} {seed}: {:?}", report.origin);
                if noise_width == 0.0 && pattern != Pattern::Centripetal {
                    let (miss, region) = outcome.origin_miss_and_region_mm().expect("an origin is given");
                    assert!(miss <= 1.5 && region < 2.0, "{cell:?} {seed}: {miss} {region} {:?}", report.origin);
                }
                assert!(
                    !outcome.slowness_is_precise() || outcome.speed_is_right(),
                    "{cell:?} {seed}: {:?}",
                    report.speed
                );
            }
        }
    }
}

#[test]
fn an_origin_at_a_base_is_found_at_the_surface_of_a_large_lesion() {
    // The earliest twentieth of 12 mL reaches some millimetres deep, and the outermost voxels have no time.
    for spacing_s in SPACINGS {
        let mut cell = Cell {
            shape: Shape::Large,
            pattern: Pattern::FromBase,
            spacing_s,
            noise_width: 0.0,
            fall: ContrastFall::Enhancement,
            speed: 1.0,
            tau_s: 25.0,
        };
        cell.set_span(9.0).unwrap();
        let outcome = cell.outcome(&Engine::cpu(), 88_000).unwrap();
        let origin = outcome.report.origin.as_ref().unwrap();
        let (miss, region) = outcome.origin_miss_and_region_mm().unwrap();
        assert!(miss < 1.5 * 1.3 && region < 3.0, "{spacing_s} s: {miss} {region} {origin:?}");
        assert_eq!(origin.place, Place::Base);
    }
}

#[test]
fn the_angioleiomyoma_like_lesion_is_described_as_it_was_seen() {
    let phantom = FillingPhantom::angioleiomyoma_like().build().unwrap();
    let report = run(&FillingPattern::new(), &phantom);
    let text = report.description.text();
    for word in ["centrifugal", "decelerating", "partial", "progressive", "core", "not a diagnosis"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!((report.extent.enhancing_fraction - 0.72).abs() < 0.03, "{}", report.extent.enhancing_fraction);
    let speed = report.speed.unwrap();
    assert!(speed.interval_mm_per_s[1] < 0.16, "slower than where it starts: {speed:?}");
    assert_eq!(speed.trend, SpeedTrend::Decelerating);
    let origin = report.origin.unwrap();
    assert_eq!(origin.place, Place::Core);
    // The middle of the volume is the world's origin.
    assert!(origin.world_mm.iter().all(|x| x.abs() < 2.0), "{origin:?}");
    // The front reaches the shells one after the other.
    let medians: Vec<f64> = report.shells.iter().map(|shell| shell.arrival_quartiles_s[1]).collect();
    assert!(medians.windows(2).all(|w| w[1] > w[0]), "{medians:?}");
    // Filled fractions never fall, and end with what fills.
    let filled = &report.extent.filled;
    assert!(filled.windows(2).all(|w| w[1].1 >= w[0].1) && (0.6..0.75).contains(&filled[filled.len() - 1].1));
    // Maps lie on the series' grid and say why a voxel has none.
    let arrival = report.maps.get(Quantity::FRONT_ARRIVAL).unwrap();
    // Smoothed arrivals, from which isochrones are drawn, lie where the front truly is, at the rim too; so do local speeds.
    let (smooth, speeds) = (report.maps.get("smoothed_arrival").unwrap(), report.maps.get("local_speed").unwrap());
    let (half_rise, tau) = (report.maps.get("half_rise_time").unwrap(), report.maps.get("rise_time_constant").unwrap());
    let mut misses = Vec::new();
    let radius_mm = (report.extent.lesion_ml * 1000.0 * 0.75 / std::f64::consts::PI).cbrt();
    let mut ratios = Vec::new();
    for (voxel, truth) in phantom.arrival_s.indexed_iter().filter(|(_, truth)| truth.is_finite()) {
        if smooth[voxel].is_finite() {
            misses.push(f64::from(smooth[voxel] - truth).abs());
        }
        // Back from the truth's time to its distance: T = 36 + (d + 1.5 d²/R) / 0.16.
        let travelled = (f64::from(*truth) - 36.0) * 0.16;
        let distance = radius_mm / 3.0 * ((1.0 + 6.0 * travelled / radius_mm).sqrt() - 1.0);
        if distance > 5.0 && speeds[voxel].is_finite() {
            ratios.push(f64::from(speeds[voxel]) / (0.16 / (1.0 + 3.0 * distance / radius_mm)));
        }
        // Half of the fitted height at the last frame.
        let (first, half) = (f64::from(arrival[voxel]), f64::from(half_rise[voxel]));
        let risen = |t: f64| -(-(t - first) / f64::from(tau[voxel])).exp_m1();
        assert!(first.is_nan() == half.is_nan());
        assert!(half.is_nan() || (risen(half) / risen(356.0) - 0.5).abs() < 1e-3, "{voxel:?}");
    }
    misses.sort_by(f64::total_cmp);
    ratios.sort_by(f64::total_cmp);
    assert!(
        misses[misses.len() / 2] < 1.5 && misses[misses.len() * 95 / 100] < 6.0,
        "{}",
        misses[misses.len() * 95 / 100]
    );
    assert!((ratios[ratios.len() / 2] - 1.0).abs() < 0.05 && ratios.len() > 1000, "{}", ratios[ratios.len() / 2]);
    for ((voxel, time), word) in arrival.indexed_iter().zip(report.maps.status().iter()) {
        assert_eq!(phantom.lesion.labels()[voxel] == 0, word & status::OUTSIDE_MASK != 0);
        assert!(time.is_finite() || *word != 0, "{voxel:?}");
    }
}

#[test]
fn a_lesion_that_does_not_enhance_gets_no_claims() {
    let phantom = FillingPhantom::ball(5.0, [1.0; 3]).pattern(Pattern::None).build().unwrap();
    let report = run(&FillingPattern::new().with_base(phantom.base.clone()), &phantom);
    assert_eq!(report.extent.enhancing_fraction, 0.0);
    assert_eq!(report.origin, Err(NoOrigin::TooFewVoxels));
    assert_eq!((report.outward.sign, report.from_base.unwrap().sign), (0, 0));
    assert!(report.centrifugality.value.is_nan() && report.centrifugality.low == -1.0);
    assert!(report.speed.is_none());
    let sentences = &report.description;
    for sentence in [&sentences.origin, &sentences.direction, &sentences.speed] {
        assert!(sentence.contains("undetermined"), "{sentence}");
    }
}

#[test]
fn two_origins_are_told_from_one() {
    let phantom = FillingPhantom::ellipsoid([14.0, 7.0, 7.0], [1.0; 3])
        .pattern(Pattern::TwoOrigins)
        .speed_mm_per_s(0.15)
        .build()
        .unwrap();
    let origin = run(&FillingPattern::new(), &phantom).origin.unwrap();
    assert_eq!(origin.others_world_mm.len(), 1);
    // Half way between the middle and either end.
    let mut x = [origin.world_mm[0], origin.others_world_mm[0][0]];
    x.sort_by(f64::total_cmp);
    assert!((x[0] + 7.0).abs() < 2.0 && (x[1] - 7.0).abs() < 2.0, "{x:?}");
}

#[test]
fn a_lesion_of_one_slice_is_measured_in_its_plane() {
    let disc = Array3::from_shape_fn((31, 31, 1), |(x, y, _)| {
        (x as f64 - 15.0).powi(2) + (y as f64 - 15.0).powi(2) < 12.0f64.powi(2)
    });
    let phantom = FillingPhantom::of_shape(disc, [1.0, 1.0, 5.0])
        .pattern(Pattern::Centrifugal)
        .speed_mm_per_s(0.2)
        .build()
        .unwrap();
    let report = run(&FillingPattern::new(), &phantom);
    assert_eq!(report.outward.sign, 1, "{:?}", report.outward);
    let speed = report.speed.unwrap();
    assert!((speed.median_mm_per_s.unwrap() - 0.2).abs() < 0.02, "{speed:?}");
}

#[test]
fn falling_samples_and_negative_scaling_give_the_same() {
    let phantom = FillingPhantom::ball(6.0, [1.0; 3]).pattern(Pattern::Centrifugal).build().unwrap();
    let Ok(Voxels::F32(samples)) = phantom.series.voxels() else { panic!("stored as floats") };
    let fallen: Vec<f32> = samples.iter().map(|y| 1000.0 - y).collect();
    let make = |samples: Vec<f32>| {
        Series::from_voxels(samples, phantom.series.shape(), phantom.series.times().unwrap().clone())
            .unwrap()
            .with_geometry(phantom.series.geometry().clone())
    };
    let rising = run(&FillingPattern::new(), &phantom).centrifugality;
    let falling = FillingPattern::new()
        .polarity(Polarity::Fall)
        .run(&Engine::cpu(), &make(fallen.clone()), &phantom.lesion, &RunOptions::new())
        .unwrap();
    assert!((falling.centrifugality.value - rising.value).abs() < 2e-3);
    let turned = make(fallen).with_scaling(Scaling { slope: -1.0, intercept: 1000.0 }).unwrap();
    let turned = FillingPattern::new().run(&Engine::cpu(), &turned, &phantom.lesion, &RunOptions::new()).unwrap();
    assert!((turned.centrifugality.value - rising.value).abs() < 2e-3);
    assert!((turned.reference_plateau - falling.reference_plateau).abs() < 0.1);
}

#[test]
fn bad_input_is_refused_and_odd_input_survives() {
    let phantom = FillingPhantom::ball(5.0, [1.0; 3]).build().unwrap();
    let attempt = |analysis: &FillingPattern, series: &Series, lesion: &Mask| {
        analysis.run(&Engine::cpu(), series, lesion, &RunOptions::new()).map(|_| ()).map_err(|error| error.to_string())
    };
    let (x, y, z) = phantom.lesion.labels().dim();
    let empty = Mask::from_labels(Array3::zeros((x, y, z)).view());
    assert!(attempt(&FillingPattern::new(), &phantom.series, &empty).unwrap_err().contains("no voxel"));
    let other = Mask::from_labels(Array3::ones((2, 2, 2)).view());
    assert!(attempt(&FillingPattern::new(), &phantom.series, &other).unwrap_err().contains("shape"));
    let mut far = Array3::zeros((x, y, z));
    far[[0, 0, 0]] = 1;
    let far = FillingPattern::new().with_base(Mask::from_labels(far.view()));
    assert!(attempt(&far, &phantom.series, &phantom.lesion).unwrap_err().contains("touches"));
    for (analysis, word) in [
        (FillingPattern::new().shells(1), "shells"),
        (FillingPattern::new().confidence(1.0), "confidence"),
        (FillingPattern::new().draws(1), "draws"),
        (FillingPattern::new().frames(3), "frames"),
        (FillingPattern::new().level(-1.0), "level"),
        (FillingPattern::new().enhancement_threshold(f64::NAN), "threshold"),
    ] {
        let error = attempt(&analysis, &phantom.series, &phantom.lesion).unwrap_err();
        assert!(error.contains(word), "{word}: {error}");
    }
    let short =
        Series::from_voxels(vec![0.0f32; x * y * z * 4], [x, y, z, 4], TimeAxis::uniform(1.0, 4).unwrap()).unwrap();
    let mask = Mask::from_labels(phantom.lesion.labels());
    assert!(attempt(&FillingPattern::new(), &short, &mask).unwrap_err().contains("frames"));

    // Constant samples, a voxel that isn't finite, a lesion of one voxel.
    let flat =
        Series::from_voxels(vec![5i16; x * y * z * 20], [x, y, z, 20], TimeAxis::uniform(1.0, 20).unwrap()).unwrap();
    attempt(&FillingPattern::new(), &flat, &mask).unwrap();
    let Ok(Voxels::F32(samples)) = phantom.series.voxels() else { panic!("stored as floats") };
    let mut damaged = samples.clone();
    let inside = phantom.lesion.labels().indexed_iter().find(|(_, label)| **label != 0).unwrap().0;
    damaged[inside.0 + x * (inside.1 + y * inside.2)] = f32::NAN;
    let damaged =
        Series::from_voxels(damaged, phantom.series.shape(), phantom.series.times().unwrap().clone()).unwrap();
    let report = FillingPattern::new().run(&Engine::cpu(), &damaged, &mask, &RunOptions::new()).unwrap();
    assert!((report.extent.unusable_ml - 0.001).abs() < 1e-9);
    assert!(report.maps.status()[inside] & status::NON_FINITE_SAMPLE != 0);
    let mut single = Array3::zeros((x, y, z));
    single[inside] = 1;
    attempt(&FillingPattern::new(), &phantom.series, &Mask::from_labels(single.view())).unwrap();
}

#[test]
fn the_fit_finds_the_closed_forms_parameters() {
    // Uneven times, the first one not 0; arrivals on and between frames, time constants on and off the grid.
    let times: Vec<f64> = (0..60).map(|i| 7.0 + 2.0 * f64::from(i) + 0.03 * f64::from(i * i)).collect();
    let arrivals = [15.0, 22.22, 41.0, 63.3, 100.0];
    let taus = [4.0, 12.0, 40.0, 110.0];
    let samples = Array4::from_shape_fn((arrivals.len(), taus.len(), 1, times.len()), |(a, t, _, i)| {
        150.0 - 80.0 * (-(times[i] - arrivals[a]).max(0.0) / taus[t]).exp_m1()
    });
    let series = Series::from_array(samples.view(), TimeAxis::from_seconds(times).unwrap()).unwrap();
    let kernel = FillingTime::new().level(20.0);
    for (engine, tolerance) in [(Engine::reference(), 0.05), (Engine::cpu(), 0.05)] {
        let maps = engine.run(&kernel, &series).unwrap();
        for (a, arrival) in arrivals.into_iter().enumerate() {
            for (t, tau) in taus.into_iter().enumerate() {
                let at = |quantity: Quantity| f64::from(maps.get(quantity).unwrap()[[a, t, 0]]);
                let found = at(Quantity::FRONT_ARRIVAL);
                assert!((found - arrival).abs() < tolerance * tau.min(20.0), "{arrival} {tau}: {found}");
                assert!((at(Quantity::RISE_TIME_CONSTANT) / tau - 1.0).abs() < 0.05, "{arrival} {tau}");
                assert!((at(Quantity::FITTED_BASELINE) - 150.0).abs() < 0.5);
                // Level 20 of a plateau of 80.
                let crossing = arrival - tau * 0.75f64.ln();
                let crossed = at(Quantity::LEVEL_CROSSING);
                assert!((crossed - crossing).abs() < 2.5, "{arrival} {tau}: {crossed} {crossing}");
            }
        }
    }
}

#[test]
fn the_standard_error_of_the_arrival_is_its_scatter() {
    for (spacing, contrast) in [(3.0, 20.0), (3.0, 8.0), (10.0, 20.0)] {
        let frames = (300.0 / spacing) as usize;
        let phantom = FillingPhantom::ball(8.0, [1.0; 3])
            .times(TimeAxis::uniform(spacing, frames).unwrap())
            .arrival_s(61.0)
            .contrast_to_noise(contrast, contrast)
            .build()
            .unwrap();
        let maps = Engine::cpu()
            .run_with(&FillingTime::new(), &phantom.series, &RunOptions::new().mask(&phantom.lesion))
            .unwrap();
        let (arrival, error) =
            (maps.get(Quantity::FRONT_ARRIVAL).unwrap(), maps.get(Quantity::FRONT_ARRIVAL_SE).unwrap());
        let pairs: Vec<(f64, f64)> = arrival
            .iter()
            .zip(error.iter())
            .filter(|(t, se)| t.is_finite() && se.is_finite())
            .map(|(t, se)| (f64::from(*t) - 61.0, f64::from(*se)))
            .collect();
        let covered = pairs.iter().filter(|(off, se)| off.abs() < 1.96 * se).count() as f64 / pairs.len() as f64;
        assert!((0.88..0.99).contains(&covered), "{spacing} s, {contrast}: {covered}");
        // Whether the estimate drifts with contrast to noise is what matters.
        let mut offs: Vec<f64> = pairs.iter().map(|p| p.0).collect();
        offs.sort_by(f64::total_cmp);
        let median = offs[offs.len() / 2];
        assert!(median.abs() < 0.1 * spacing, "{spacing} s, {contrast}: {median}");
    }
}

#[test]
fn a_level_that_is_not_reached_is_censored() {
    let curve =
        |height: f64, i: usize| 100.0 + if i > 10 { height * (1.0 - (-(i as f64 - 10.0) / 6.0).exp()) } else { 0.0 };
    let samples = Array4::from_shape_fn((2, 1, 1, 40), |(x, _, _, i)| curve([60.0, 20.0][x], i));
    let series = Series::from_array(samples.view(), TimeAxis::uniform(1.0, 40).unwrap()).unwrap();
    let maps = Engine::cpu().run(&FillingTime::new().level(30.0), &series).unwrap();
    let crossing = maps.get(Quantity::LEVEL_CROSSING).unwrap();
    assert!((f64::from(crossing[[0, 0, 0]]) - (10.0 + 6.0 * 2f64.ln())).abs() < 0.5);
    assert!(crossing[[1, 0, 0]].is_nan() && maps.status()[[1, 0, 0]] & status::CENSORED != 0);
    assert!(maps.get(Quantity::FRONT_ARRIVAL).unwrap()[[1, 0, 0]].is_finite());
}

#[test]
fn noise_that_crosses_a_low_level_gives_no_time() {
    let phantom = FillingPhantom::ball(4.0, [1.0; 3]).pattern(Pattern::None).build().unwrap();
    // A tenth of the noise's standard deviation.
    let maps = Engine::cpu().run(&FillingTime::new().level(1.0), &phantom.series).unwrap();
    let crossing = maps.get(Quantity::LEVEL_CROSSING).unwrap();
    for (time, word) in crossing.iter().zip(maps.status().iter()) {
        assert!(time.is_nan() || word & status::NOT_ENHANCING == 0);
    }
    assert!(crossing.iter().filter(|time| time.is_nan()).count() > crossing.len() * 9 / 10);
}

#[test]
fn the_engines_agree_with_the_definition() {
    let phantom = FillingPhantom::ball(4.0, [1.0; 3])
        .pattern(Pattern::Centrifugal)
        .contrast_to_noise(15.0, 3.0)
        .times(TimeAxis::uniform(4.0, 40).unwrap())
        .build()
        .unwrap();
    for engine in support::engines() {
        let verification =
            engine.verify_voxels(&FillingTime::new().level(60.0), &phantom.series, &RunOptions::new(), 300).unwrap();
        assert!(verification.passed(), "{}: {verification}", engine.device());
    }
}

#[cfg(feature = "nifti")]
#[test]
fn the_report_as_json_has_what_readers_look_for() {
    let phantom = FillingPhantom::ball(6.0, [1.0; 3]).pattern(Pattern::Centrifugal).build().unwrap();
    let json = run(&FillingPattern::new(), &phantom).to_json();
    for key in ["index", "low", "high", "p"] {
        assert!(json["centrifugality"][key].is_number(), "{key}");
    }
    for key in ["world_mm", "voxel", "volume_ml", "depth_mm", "place"] {
        assert!(!json["origin"][key].is_null(), "{key}");
    }
    for key in ["median", "low", "high"] {
        assert!(json["front_speed_mm_per_s"][key].is_number(), "{key}");
    }
    // Without a direction a lower bound is all that can be said.
    let uniform = run(&FillingPattern::new(), &FillingPhantom::ball(6.0, [1.0; 3]).build().unwrap()).to_json();
    let speed = &uniform["front_speed_mm_per_s"];
    assert!(speed["median"].is_null() && speed["high"].is_null() && speed["low"].as_f64().unwrap() > 0.1, "{speed}");
    assert!(uniform["origin"].is_null() && uniform["speed_trend"] == "undetermined");
    assert!(json["speed_trend"].is_string() && json["enhancing_fraction"].is_number());
    assert!(json["description"].as_str().unwrap().contains("not a diagnosis"));
    assert!(json["settings"]["level"].is_number());
}

#[test]
fn the_world_is_that_of_the_affine() {
    let phantom = FillingPhantom::ball(6.0, [1.0; 3]).pattern(Pattern::Centrifugal).build().unwrap();
    let before = run(&FillingPattern::new(), &phantom).origin.unwrap();
    // Axes exchanged and turned, shifted.
    let mut geometry = Geometry::from_voxel_size_mm([1.0; 3]);
    geometry.srow = [[0.0, -1.0, 0.0, 50.0], [1.0, 0.0, 0.0, -20.0], [0.0, 0.0, 1.0, 7.0]];
    let series = phantom.series.clone().with_geometry(geometry);
    let mask = Mask::from_labels(phantom.lesion.labels());
    let after = FillingPattern::new().run(&Engine::cpu(), &series, &mask, &RunOptions::new()).unwrap().origin.unwrap();
    assert_eq!(before.voxel, after.voxel);
    let [x, y, z] = after.voxel;
    let expected = [50.0 - y, x - 20.0, z + 7.0];
    assert!((0..3).all(|a| (after.world_mm[a] - expected[a]).abs() < 1e-9), "{after:?}");
}
