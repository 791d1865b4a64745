//! Curves whose maps are known in closed form: the f64 reference within 1e-10, the 32-bit engines within 1e-4, on even and
//! uneven times, from 0 and not from 0, rising and falling; and a named test for each error seen in shipped tools that
//! concerns these maps.

mod support;

use perfuse::kernels::descriptors::{Noise, Onset, Polarity};
use perfuse::{Descriptors, Engine, Geometry, Maps, Quantity, RunOptions, Series, SignalKind, TimeAxis};
use support::engines;

const FRAMES: usize = 61;
const LEVEL: f64 = 300.0;

/// Even and uneven times; the first at 0, later, or before 0.
fn axes() -> Vec<Vec<f64>> {
    let even = |t0: f64, dt: f64| (0..FRAMES).map(|i| t0 + dt * i as f64).collect();
    let uneven = |t0: f64, dt: f64| {
        let mut time = t0;
        (0..FRAMES)
            .map(|i| {
                let now = time;
                time += dt * [1.0, 0.6, 1.7, 0.9, 1.35][i % 5];
                now
            })
            .collect()
    };
    vec![even(0.0, 2.0), even(12.5, 7.3), even(-40.0, 0.8), uneven(0.0, 3.0), uneven(1_000.25, 6.0)]
}

fn series(times: &[f64], enhancement: &dyn Fn(f64) -> f64, sign: f64) -> Series {
    // Several voxels, so that lanes and remainders both occur; all alike.
    let voxels = 19;
    let samples: Vec<f64> =
        times.iter().flat_map(|t| std::iter::repeat_n(LEVEL + sign * enhancement(*t), voxels)).collect();
    Series::from_voxels(samples, [voxels, 1, 1, times.len()], TimeAxis::from_seconds(times.to_vec()).unwrap()).unwrap()
}

fn close(value: f64, wanted: f64, relative: f64, scale: f64) -> bool {
    (value.is_nan() && wanted.is_nan()) || (value - wanted).abs() <= relative * wanted.abs().max(scale)
}

/// Checks maps against closed forms, in f64 and on all engines. `scale`: what counts as 1 where the value is about 0.
fn check(name: &str, times: &[f64], kernel: &Descriptors, e: &dyn Fn(f64) -> f64, wanted: &[(&str, f64)]) {
    for (polarity, sign) in [(Polarity::Rise, 1.0), (Polarity::Fall, -1.0)] {
        let series = series(times, e, sign);
        let kernel = kernel.clone().polarity(polarity);
        let found = Engine::reference_values(&kernel, &series, [7, 0, 0], &RunOptions::new()).unwrap();
        for (id, wanted) in wanted {
            let value = found.iter().find(|(name, _)| name == id).unwrap_or_else(|| panic!("no map {id}")).1;
            assert!(
                close(value, *wanted, 1e-10, 1e-3),
                "{name}, {polarity:?}, first time {}: {id} is {value}, closed form {wanted}",
                times[0]
            );
        }
        for engine in engines() {
            let maps = engine.run(&kernel, &series).unwrap();
            for (id, wanted) in wanted {
                for value in maps.get(id).unwrap() {
                    assert!(
                        close(f64::from(*value), *wanted, 1e-4, 1e-2),
                        "{name} on {}, {polarity:?}, first time {}: {id} is {value}, closed form {wanted}",
                        engine.name(),
                        times[0]
                    );
                }
            }
        }
    }
}

fn kernel(baseline: usize) -> Descriptors {
    Descriptors::new().baseline_frames(0..baseline).noise(Noise::Value(0.01))
}

#[test]
fn ramp_to_the_last_frame() {
    for t in axes() {
        let (first, last) = (t[0], t[FRAMES - 1]);
        // Arrival a third of the way between frames 9 and 10.
        let arrival = t[9] + (t[10] - t[9]) / 3.0;
        let slope = 1.7;
        let height = slope * (last - arrival);
        let rise = last - arrival;
        // The piecewise-linear curve begins at frame 9, not at the arrival: the area of its first segment.
        let e10 = slope * (t[10] - arrival);
        let at_arrival = e10 / 3.0;
        let start = (t[10] - arrival) * (at_arrival + e10) / 2.0;
        let area = start + (last - t[10]) * (e10 + height) / 2.0;
        let wanted = [
            ("baseline", LEVEL),
            ("baseline_sd", 0.0),
            ("peak_enhancement", height),
            ("peak_time", last),
            ("onset", arrival - first),
            ("time_to_peak", rise),
            ("time_to_fraction_25", 0.25 * rise),
            ("time_to_fraction_50", 0.5 * rise),
            ("time_to_fraction_75", 0.75 * rise),
            ("time_to_fraction_90", 0.9 * rise),
            ("wash_in_slope", slope),
            ("max_slope", slope),
            ("wash_out_slope", f64::NAN),
            ("late_slope", f64::NAN),
            ("fwhm", f64::NAN),
            ("auc", area),
            ("final_enhancement", height),
            ("contrast_to_noise", height / 0.01),
        ];
        check("ramp", &t, &kernel(8), &|time| slope * (time - arrival).max(0.0), &wanted);
    }
}

#[test]
fn triangle() {
    for t in axes() {
        let (a, p, q) = (t[10], t[20], t[45]);
        let (first, last) = (t[0], t[FRAMES - 1]);
        let h = 210.0;
        let e = |time: f64| {
            if time <= a || time >= q {
                0.0
            } else if time <= p {
                h * (time - a) / (p - a)
            } else {
                h * (q - time) / (q - p)
            }
        };
        let area = h * (q - a) / 2.0;
        let centroid = (a + p + q) / 3.0;
        let within = 0.8 * (p - a);
        let wanted = [
            ("peak_enhancement", h),
            ("peak_time", p),
            ("onset", a - first),
            ("time_to_peak", p - a),
            ("time_to_fraction_10", 0.1 * (p - a)),
            ("time_to_fraction_25", 0.25 * (p - a)),
            ("time_to_fraction_50", 0.5 * (p - a)),
            ("time_to_fraction_75", 0.75 * (p - a)),
            ("time_to_fraction_90", 0.9 * (p - a)),
            ("wash_in_slope", h / (p - a)),
            ("max_slope", h / (p - a)),
            ("wash_out_slope", h / (p - last)),
            ("auc", area),
            ("iauc_window", h / (p - a) * within * within / 2.0),
            ("aumc", area * (centroid - a)),
            ("mean_residence_time", centroid - a),
            ("fwhm", (q - a) / 2.0),
            ("final_enhancement", 0.0),
        ];
        let id = Quantity::iauc(within).id.to_string();
        let wanted = wanted.map(|(name, value)| (if name == "iauc_window" { id.as_str() } else { name }, value));
        check("triangle", &t, &kernel(6).iauc_seconds([within]), &e, &wanted);
    }
}

#[test]
fn trapezoid_with_a_plateau() {
    for t in axes() {
        // Up from a to b, level to c, down to 40 % at the end.
        let (a, b, c, end) = (t[8], t[15], t[30], t[FRAMES - 1]);
        let h = 95.0;
        let e = |time: f64| {
            if time <= a {
                0.0
            } else if time <= b {
                h * (time - a) / (b - a)
            } else if time <= c {
                h
            } else {
                h * (1.0 - 0.6 * (time - c) / (end - c))
            }
        };
        let area = h * ((b - a) / 2.0 + (c - b) + 0.7 * (end - c));
        // Moments about a: triangle, rectangle, trapezoid as rectangle less triangle.
        let moment = h
            * ((b - a) / 2.0 * (2.0 / 3.0 * (b - a))
                + (c - b) * ((b + c) / 2.0 - a)
                + (end - c) * ((c + end) / 2.0 - a)
                - 0.6 * (end - c) / 2.0 * (c + 2.0 / 3.0 * (end - c) - a));
        let ratio_times = (0.5 * (b - a), 0.5 * (b + c) - a);
        let kernel = kernel(5).kind(SignalKind::Concentration).ratio_times_s(ratio_times.0, ratio_times.1);
        let wanted = [
            ("peak_enhancement", h),
            ("peak_time", b),
            ("onset", a - t[0]),
            ("time_to_peak", b - a),
            ("wash_out_slope", -0.6 * h / (end - b)),
            ("auc", area),
            ("aumc", moment),
            ("mean_residence_time", moment / area),
            ("signal_enhancement_ratio", 0.5),
            ("fwhm", c + (end - c) * 0.5 / 0.6 - (a + 0.5 * (b - a))),
            ("final_enhancement", 0.4 * h),
        ];
        check("trapezoid", &t, &kernel, &e, &wanted);
    }
}

#[test]
fn peak_on_the_first_frame_after_the_baseline() {
    for t in axes() {
        let b = 12;
        let (before, p, end) = (t[b - 1], t[b], t[FRAMES - 1]);
        let h = 61.0;
        let slope = -h / (end - p);
        let e = |time: f64| if time < p { 0.0 } else { h * (end - time) / (end - p) };
        let area = h * (p - before) / 2.0 + h * (end - p) / 2.0;
        let wanted = [
            ("peak_enhancement", h),
            ("peak_time", p),
            // Every break point between the two frames fits alike: the earliest.
            ("onset", before - t[0]),
            ("time_to_peak", p - before),
            ("time_to_fraction_50", (p - before) / 2.0),
            ("max_slope", h / (p - before)),
            ("max_slope_time", (p + before) / 2.0),
            ("wash_out_slope", slope),
            ("late_slope", slope),
            ("auc", area),
            ("fwhm", (p - before) / 2.0 + (end - p) / 2.0),
            ("final_enhancement", 0.0),
        ];
        check("step", &t, &kernel(b), &e, &wanted);
    }
}

/// Sampled curves: their integrals are those of the piecewise-linear interpolant, summed here backwards by segments.
#[test]
fn sampled_exponential_and_gamma_variate() {
    for t in axes() {
        let last = t[FRAMES - 1];
        let span = last - t[10];
        let rise = |time: f64| 180.0 * (1.0 - (-(time - t[10]).max(0.0) / (0.2 * span)).exp());
        let x = |time: f64| (time - t[10]).max(0.0) / (0.15 * span);
        let pass = |time: f64| 180.0 * (x(time) * (1.0 - x(time)).exp()).powi(3);
        let shapes: [&dyn Fn(f64) -> f64; 2] = [&rise, &pass];
        for e in shapes {
            // From a given onset, between two frames, to the end of a window, between two others.
            let from = t[12] + 0.37 * (t[13] - t[12]);
            let window = t[40] + 0.81 * (t[41] - t[40]) - from;
            let clipped = |to: f64, moment: bool| {
                let mut sum = 0.0;
                for i in (1..FRAMES).rev() {
                    let (low, high) = (t[i - 1].max(from), t[i].min(to));
                    if high <= low {
                        continue;
                    }
                    let slope = (e(t[i]) - e(t[i - 1])) / (t[i] - t[i - 1]);
                    let constant = e(t[i]) + slope * (from - t[i]);
                    let power = |n: i32| ((high - from).powi(n) - (low - from).powi(n)) / f64::from(n);
                    sum += if moment {
                        constant * power(2) + slope * power(3)
                    } else {
                        constant * power(1) + slope * power(2)
                    };
                }
                sum
            };
            let peak = (0..FRAMES).max_by(|a, b| e(t[*a]).total_cmp(&e(t[*b])).then(b.cmp(a))).unwrap();
            let id = Quantity::iauc(window).id.to_string();
            let wanted = [
                ("peak_enhancement", e(t[peak])),
                ("peak_time", t[peak]),
                ("onset", from - t[0]),
                ("time_to_peak", t[peak] - from),
                ("auc", clipped(last, false)),
                (id.as_str(), clipped(from + window, false)),
                ("aumc", clipped(last, true)),
                ("mean_residence_time", clipped(last, true) / clipped(last, false)),
                ("final_enhancement", e(last)),
            ];
            let kernel = kernel(7).onset(Onset::Seconds(from - t[0])).iauc_seconds([window]);
            check("sampled", &t, &kernel, e, &wanted);
        }
    }
}

/// The saturating fit finds the arrival of a saturating rise between frames, as far as a search in 32 bits can.
#[test]
fn saturating_onset_of_a_saturating_rise() {
    for t in axes() {
        let arrival = t[10] + 0.4 * (t[11] - t[10]);
        let frame = t[11] - t[10];
        for tau in [2.0, 8.0, 30.0] {
            let e = |time: f64| 180.0 * (1.0 - (-(time - arrival).max(0.0) / (tau * frame)).exp());
            for sign in [1.0, -1.0] {
                let polarity = if sign > 0.0 { Polarity::Rise } else { Polarity::Fall };
                let series = series(&t, &e, sign);
                let kernel = kernel(8).onset(Onset::Saturating).polarity(polarity);
                let found = Engine::reference_values(&kernel, &series, [0, 0, 0], &RunOptions::new()).unwrap();
                let onset = found.iter().find(|(id, _)| id == "onset").unwrap().1;
                let error = (onset - (arrival - t[0])) / frame;
                println!("first time {}, tau {tau} frames: f64 {error:.1e} frames off", t[0]);
                assert!(error.abs() < 0.1, "tau {tau} frames: {error} frames off");
                for engine in engines() {
                    let maps = engine.run(&kernel, &series).unwrap();
                    let error = (f64::from(maps.get("onset").unwrap()[[0, 0, 0]]) - (arrival - t[0])) / frame;
                    println!("    {} {error:.1e} frames off", engine.name());
                    assert!(error.abs() < 0.1, "tau {tau} frames on {}: {error} frames off", engine.name());
                }
            }
        }
    }
}

// Errors seen in shipped tools.

fn one(maps: &Maps, id: &str) -> f32 {
    maps.get(id).unwrap()[[0, 0, 0]]
}

fn run(times: &[f64], curve: &[f64], kernel: &Descriptors) -> Vec<Maps> {
    let times = TimeAxis::from_seconds(times.to_vec()).unwrap();
    let series = Series::from_voxels(curve.to_vec(), [1, 1, 1, curve.len()], times).unwrap();
    let mut engines = engines();
    engines.push(Engine::reference());
    engines.iter().map(|engine| engine.run(kernel, &series).unwrap()).collect()
}

fn even(dt: f64, frames: usize) -> Vec<f64> {
    (0..frames).map(|i| dt * i as f64).collect()
}

#[test]
fn the_last_frame_is_considered() {
    for maps in run(&even(2.0, 6), &[0.0, 0.0, 0.0, 4.0, 5.0, 9.0], &kernel(3)) {
        assert_eq!(one(&maps, "peak_enhancement"), 9.0);
        assert_eq!(one(&maps, "peak_time"), 10.0);
        assert_eq!(one(&maps, "final_enhancement"), 9.0);
    }
}

#[test]
fn the_last_interval_is_not_dropped_from_areas() {
    for maps in run(&even(2.0, 6), &[0.0, 0.0, 0.0, 4.0, 5.0, 9.0], &kernel(3).onset(Onset::Seconds(4.0))) {
        assert_eq!(one(&maps, "auc"), 4.0 + 9.0 + 14.0);
    }
}

#[test]
fn times_are_seconds_and_not_frames_or_counted_from_one() {
    for maps in run(&even(2.5, 8), &[0.0, 0.0, 0.0, 3.0, 6.0, 9.0, 6.0, 6.0], &kernel(3)) {
        assert_eq!(one(&maps, "onset"), 5.0);
        assert_eq!(one(&maps, "time_to_peak"), 7.5);
        assert_eq!(one(&maps, "peak_time"), 12.5);
        assert!((one(&maps, "max_slope") - 1.2).abs() < 1e-6);
    }
}

#[test]
fn the_first_time_is_neither_zero_nor_the_spacing() {
    let curve = [5.0, 5.0, 5.0, 8.0, 11.0, 14.0, 11.0, 9.0, 7.0];
    let at = |t0: f64| {
        let times: Vec<f64> = [0.0, 2.0, 3.0, 5.0, 8.0, 9.0, 13.0, 14.0, 20.0].iter().map(|t| t + t0).collect();
        run(&times, &curve, &kernel(3).iauc_seconds([6.0]))
    };
    let on_its_clock = ["peak_time", "max_slope_time"];
    for shift in [512.0, -64.0] {
        for (zero, later) in at(0.0).iter().zip(at(shift)) {
            for map in zero.iter().filter(|map| map.quantity.id != "curve_type") {
                let id = map.quantity.id.as_ref();
                let (a, b) = (one(zero, id), one(&later, id));
                let b = if on_its_clock.contains(&id) { b - shift as f32 } else { b };
                assert!(a.to_bits() == b.to_bits() || (a - b).abs() < 1e-4, "{id}: {a} and {b}");
            }
        }
    }
}

#[test]
fn areas_and_slopes_carry_the_time_step() {
    let curve = [0.0, 0.0, 0.0, 3.0, 6.0, 9.0, 6.0, 6.0];
    let (slow, fast) = (run(&even(4.0, 8), &curve, &kernel(3)), run(&even(1.0, 8), &curve, &kernel(3)));
    for (slow, fast) in slow.iter().zip(&fast) {
        assert_eq!(one(slow, "auc"), 4.0 * one(fast, "auc"));
        assert_eq!(one(slow, "aumc"), 16.0 * one(fast, "aumc"));
        assert_eq!(4.0 * one(slow, "max_slope"), one(fast, "max_slope"));
        assert_eq!(4.0 * one(slow, "wash_in_slope"), one(fast, "wash_in_slope"));
        assert_eq!(4.0 * one(slow, "wash_out_slope"), one(fast, "wash_out_slope"));
    }
}

#[test]
fn areas_are_signed() {
    // After the pass the curve lies below its baseline for as large an area.
    let curve = [50.0, 50.0, 50.0, 60.0, 60.0, 50.0, 40.0, 40.0, 50.0];
    for maps in run(&even(1.0, 9), &curve, &kernel(3).onset(Onset::Seconds(2.0))) {
        assert!(one(&maps, "auc").abs() < 1e-5);
        assert!(one(&maps, "aumc") < -1.0);
    }
}

#[test]
fn areas_follow_the_samples_and_no_fitted_curve() {
    // A spike that no smooth curve follows.
    let curve = [0.0, 0.0, 0.0, 1.0, 1.0, 101.0, 1.0, 1.0, 1.0];
    let area = 0.5 + 1.0 + 51.0 + 51.0 + 1.0 + 1.0;
    for maps in run(&even(1.0, 9), &curve, &kernel(3).onset(Onset::Seconds(2.0))) {
        assert!((one(&maps, "auc") - area).abs() < 1e-4);
    }
}

#[test]
fn negatives_are_not_clamped() {
    let curve = [50.0, 50.0, 50.0, 45.0, 44.0, 43.0, 42.0, 41.0];
    for maps in run(&even(1.0, 8), &curve, &kernel(3).onset(Onset::Seconds(2.0)).iauc_seconds([3.0])) {
        assert_eq!(one(&maps, "peak_enhancement"), -5.0);
        assert_eq!(one(&maps, "final_enhancement"), -9.0);
        assert!(one(&maps, "auc") < 0.0 && one(&maps, "iauc_3") < 0.0);
        assert!(one(&maps, "relative_enhancement") < 0.0);
        // No answer is NaN: never 0, -1 or a clamp.
        assert!(one(&maps, "time_to_peak").is_nan() && one(&maps, "onset").is_nan());
    }
}

#[test]
fn polarity_is_not_guessed() {
    let curve = [50.0, 50.0, 50.0, 45.0, 24.0, 23.0, 32.0, 41.0];
    for maps in run(&even(1.0, 8), &curve, &kernel(3)) {
        assert_eq!(one(&maps, "peak_enhancement"), -5.0);
    }
    for maps in run(&even(1.0, 8), &curve, &kernel(3).polarity(Polarity::Fall)) {
        assert_eq!(one(&maps, "peak_enhancement"), 27.0);
        assert_eq!(one(&maps, "peak_time"), 5.0);
    }
}

#[test]
fn the_baseline_is_no_fixed_share_of_the_series() {
    // Contrast arrives after 8 % of the frames: a fifth of them as baseline would swallow the rise.
    let times = even(1.0, 100);
    let curve: Vec<f64> = times.iter().map(|t| 10.0 + 100.0 * (1.0 - (-(t - 8.0f64).max(0.0) / 10.0).exp())).collect();
    for maps in run(&times, &curve, &Descriptors::new()) {
        assert!((one(&maps, "baseline") - 10.0).abs() < 1e-4);
        assert!((one(&maps, "onset") - 8.0).abs() < 0.5);
    }
}

#[test]
fn standard_errors_are_not_silently_zero() {
    let times = even(1.0, 60);
    let curve: Vec<f64> = times
        .iter()
        .enumerate()
        .map(|(i, t)| 10.0 + 5.0 * (t - 12.0f64).clamp(0.0, 20.0) + [0.3, -0.2, 0.1, -0.4, 0.2][i % 5])
        .collect();
    for maps in run(&times, &curve, &Descriptors::new().baseline_frames(0..10).iauc_seconds([30.0])) {
        let errors: Vec<&str> = maps.iter().map(|m| m.quantity.id.as_ref()).filter(|id| id.ends_with("_se")).collect();
        assert_eq!(errors.len(), 7, "{errors:?}");
        for id in errors {
            assert!(one(&maps, id) > 0.0 && one(&maps, id).is_finite(), "{id} is {}", one(&maps, id));
        }
    }
}

#[test]
fn geometry_is_kept() {
    let mut geometry = Geometry::from_voxel_size_mm([2.0, 2.5, 3.0]);
    geometry.qform_code = 1;
    geometry.quaternion = [0.1, 0.2, 0.3];
    geometry.offset = [9.0, -8.0, 7.0];
    geometry.srow[0] = [-2.0, 0.0, 0.1, 9.0];
    let samples = vec![0.0f32; 2 * 8];
    let series = Series::from_voxels(samples, [2, 1, 1, 8], TimeAxis::uniform(1.0, 8).unwrap()).unwrap();
    let series = series.with_geometry(geometry);
    for engine in engines() {
        let maps = engine.run(&Descriptors::new(), &series).unwrap();
        assert_eq!(maps.geometry(), series.geometry());
    }
}
