//! Input functions: closed forms, the haematocrit, tables of text, masks, the arrival.

use std::f64::consts::TAU;
use std::path::Path;

use ndarray::{Array3, Array4};
use perfuse::input_function::population::{fritz_hansen, georgiou, orton, parker, weinmann};
use perfuse::input_function::{Arrival, Average, CsvOptions, Fluid, Haematocrit, Population};
use perfuse::{Descriptors, Error, InputFunction, Mask, Series, SignalKind, TimeAxis};

fn blood(times: &[f64], values: &[f64]) -> InputFunction {
    InputFunction::new(times.to_vec(), values.to_vec(), Fluid::Blood).unwrap()
}

#[test]
fn values_between_before_and_after_the_knots() {
    let function = blood(&[-3.0, 1.0, 1.5, 20.0], &[0.4, -0.1, 6.0, 1.0]);
    assert_eq!(function.at(-3.1), Some(0.0));
    assert_eq!(function.at(-3.0), Some(0.4));
    assert!((function.at(0.0).unwrap() - 0.025).abs() < 1e-15);
    assert_eq!(function.at(1.5), Some(6.0));
    assert_eq!(function.at(20.0), Some(1.0));
    assert_eq!(function.at(20.000001), None);
    assert_eq!(function.at(f64::NAN), None);
    let later = function.shifted(2.5).unwrap();
    for time in [-5.0, -3.0, 0.3, 1.2, 7.0, 20.0] {
        let (a, b) = (function.at(time).unwrap(), later.at(time + 2.5).unwrap());
        assert!((a - b).abs() < 1e-12, "{time}: {a} {b}");
    }
    assert!(function.shifted(f64::INFINITY).is_err());
}

#[test]
fn knots_that_are_none_are_refused() {
    let refused = |times: &[f64], values: &[f64]| InputFunction::new(times.to_vec(), values.to_vec(), Fluid::Blood);
    for (times, values, part) in [
        (&[0.0, 1.0][..], &[1.0][..], "1 concentrations for 2 times"),
        (&[0.0], &[1.0], "input function"),
        (&[0.0, 0.0], &[1.0, 2.0], "0 s after"),
        (&[0.0, f64::NAN], &[1.0, 2.0], "NaN"),
        (&[0.0, 1.0], &[1.0, f64::INFINITY], "inf mM at 1 s"),
        (&[0.0, 1.0], &[0.0, 0.0], "0 mM at all times"),
        (&[1e9, 1e9 + 1e-9, 2e9], &[0.0, 1.0, 1.0], "input function"),
    ] {
        let error = refused(times, values).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn the_haematocrit_is_applied_once() {
    let hct = Haematocrit::new(0.42).unwrap();
    let function = blood(&[0.0, 5.0], &[0.0, 5.8]).with_origin("a vessel");
    assert_eq!(function.haematocrit_applied(), None);
    let plasma = function.in_plasma(hct).unwrap();
    assert!((plasma.concentration_mm()[1] - 10.0).abs() < 1e-12);
    assert_eq!((plasma.fluid(), plasma.haematocrit_applied(), plasma.origin()), (Fluid::Plasma, Some(hct), "a vessel"));
    assert_eq!(plasma.in_plasma(Haematocrit::new(0.3).unwrap()).unwrap(), plasma);
    assert_eq!(plasma.shifted(3.0).unwrap().haematocrit_applied(), Some(hct));
    // Plasma from the start: nothing is applied, and the record says so.
    let native = InputFunction::new(vec![0.0, 5.0], vec![0.0, 5.8], Fluid::Plasma).unwrap();
    assert_eq!(native.in_plasma(hct).unwrap().haematocrit_applied(), None);
    assert_eq!(native.in_plasma(hct).unwrap().concentration_mm(), [0.0, 5.8]);

    for (text, part) in [("42", "0.42"), ("0", "above 0"), ("1", "above 0"), ("-0.1", "above 0"), ("NaN", "above 0")] {
        let error = text.parse::<Haematocrit>().unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
    assert!("serum".parse::<Fluid>().is_err());
}

/// Composite Simpson with as many pieces.
fn integral(f: impl Fn(f64) -> f64, from: f64, to: f64, pieces: u32) -> f64 {
    let h = (to - from) / f64::from(pieces);
    let inner: f64 = (1..pieces).map(|i| f(from + f64::from(i) * h) * if i % 2 == 1 { 4.0 } else { 2.0 }).sum();
    h / 3.0 * (f(from) + inner + f(to))
}

#[test]
fn parker_has_the_areas_and_heights_of_its_parts() {
    // Both Gaussians hold their areas, A_1 and A_2 mM min, and what is left is the sigmoid.
    let sigmoid = |t: f64| 1.05 * (-0.1685 * t).exp() / (1.0 + (-38.078 * (t - 0.483)).exp());
    let area = integral(|t| parker(60.0 * t) - sigmoid(t), 0.0, 2.0, 20_000);
    // What the Gaussians would have before t = 0.
    let missing = 0.809 * 1.2319e-3 + 0.330 * 2.846e-3;
    assert!((area - (0.809 + 0.330) + missing).abs() < 2e-6, "{area}");
    // 5 min: only the exponential is left.
    assert!((parker(300.0) - 1.05 * (-0.8425f64).exp()).abs() < 1e-12);
    assert!((parker(10.35) - 6.0732).abs() < 1e-4);
}

#[test]
fn georgiou_is_its_sum_of_gamma_variates() {
    // The first circulation alone: a product of powers, in the form of the equation, with its gamma function by quadrature.
    let (alpha, beta) = (5.26699, 0.0320788);
    let gamma = integral(|x| x.powf(alpha) * (-x).exp(), 0.0, 80.0, 100_000);
    for t in [0.01f64, 0.05, 0.1, 0.128] {
        let variate = t.powf(alpha) * (-t / beta).exp() / (beta.powf(alpha + 1.0) * gamma);
        let decays = 0.374322 * (-0.112701 * t).exp() + 0.331184 * (-1.17465 * t).exp() + 10.0612 * (-16.02 * t).exp();
        let expected = variate * decays;
        assert!((georgiou(60.0 * t) - expected).abs() < 1e-9 * expected, "{t}");
    }
    // Later on circulations overlap into a constant flow: one unit of area every (α + 1) β + τ minutes.
    let late = georgiou(3600.0) / (0.374322 * (-0.112701f64 * 60.0).exp());
    let flow = 1.0 / ((alpha + 1.0) * beta + 0.128556);
    assert!((late / flow - 1.0).abs() < 1e-3, "{late} {flow}");
    // Hours, where gamma functions themselves overflow.
    assert!(georgiou(4.0 * 3600.0) > 0.0 && georgiou(4.0 * 3600.0) < 1e-9);
}

#[test]
fn exponentials_and_orton_follow_their_equations() {
    let weinmann_at = |t: f64| 0.1 * (3.99 * (-0.144 * t).exp() + 4.78 * (-0.0111 * t).exp());
    let fritz_hansen_at = |t: f64| 2.4 * (-3.0 * t).exp() + 0.62 * (-0.016 * t).exp();
    let bolus = |t: f64| if t < TAU / 22.8 { 2.84 * (1.0 - (22.8 * t).cos()) } else { 0.0 };
    for t in [0.02f64, 0.1, 0.2, TAU / 22.8, 0.3, 1.0, 7.5] {
        assert!((weinmann(60.0 * t) - weinmann_at(t)).abs() < 1e-14);
        assert!((fritz_hansen(60.0 * t) - fritz_hansen_at(t)).abs() < 1e-14);
        // The convolution of bolus and washout, by quadrature over the bolus.
        let until = t.min(TAU / 22.8);
        let convolved = integral(|s| bolus(s) * (-0.171 * (t - s)).exp(), 0.0, until, 2000);
        assert!((orton(60.0 * t) - bolus(t) - 1.36 * convolved).abs() < 1e-9, "{t}");
    }
    // Fitted to Parker's curve, so never far from it once the bolus has passed.
    for t in [60.0, 120.0, 300.0] {
        assert!((orton(t) / parker(t) - 1.0).abs() < 0.1, "{t}: {} {}", orton(t), parker(t));
    }
}

#[test]
fn nothing_before_zero_and_numbers_everywhere() {
    for population in Population::ALL {
        assert_eq!(population.concentration_mm(-1e-9), 0.0);
        assert_eq!(population.concentration_mm(f64::NAN), 0.0);
        for i in 0..40_000 {
            let value = population.concentration_mm(0.1 * f64::from(i));
            assert!((0.0..10.0).contains(&value), "{population} {i}: {value}");
        }
        assert_eq!(population.as_str().parse::<Population>().unwrap(), population);
    }
    assert!("parker2006".parse::<Population>().unwrap_err().to_string().contains("fritz_hansen"));
}

#[test]
fn the_table_of_peaks_is_true() {
    for (population, peak, at, late) in [
        (Population::Parker, 6.07, 10.3, 0.45),
        (Population::Georgiou, 8.65, 7.5, 0.65),
        (Population::Weinmann, 0.88, 0.0, 0.65),
        (Population::FritzHansen, 3.02, 0.0, 0.57),
        (Population::Orton, 6.23, 8.6, 0.46),
    ] {
        let values: Vec<f64> = (0..6000).map(|i| population.concentration_mm(0.01 * f64::from(i))).collect();
        let (i, highest) = values.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
        let found = (*highest, 0.01 * i as f64, population.concentration_mm(300.0));
        let near = (found.0 / peak - 1.0f64).abs() < 0.02
            && (found.1 - at).abs() <= 0.06
            && (found.2 / late - 1.0).abs() < 0.012;
        assert!(near, "{population}: {found:?}");
    }
}

#[test]
fn chords_follow_the_population_functions() {
    let times = TimeAxis::from_seconds(vec![3.0, 8.0, 100.0, 640.0]).unwrap();
    for population in Population::ALL {
        for arrival in [-20.0, 3.0, 31.7] {
            let function = population.input_function(&times, &Arrival::at(arrival).unwrap()).unwrap();
            assert_eq!(function.fluid(), population.fluid());
            assert!(function.times_s().len() < 400, "{population}: {}", function.times_s().len());
            assert!(*function.times_s().last().unwrap() >= 700.0);
            function.check_covers(&times).unwrap();
            let peak = (0..2000).map(|i| population.concentration_mm(0.05 * f64::from(i))).fold(0.0, f64::max);
            for i in 0..60_000 {
                let time = arrival - 10.0 + 0.0113 * f64::from(i);
                let (chord, exact) = (function.at(time).unwrap(), population.concentration_mm(time - arrival));
                // The bound is tested at eighths of a piece: half again as much for what lies between those.
                let bound = 1.5 * (5e-4 * exact + 2e-5 * peak);
                assert!((chord - exact).abs() < bound, "{population} {}: {chord} {exact}", time - arrival);
            }
        }
    }
}

#[test]
fn doses_scale_and_arrivals_are_recorded() {
    let times = TimeAxis::uniform(5.0, 60).unwrap();
    let arrival = Arrival::at(25.0).unwrap();
    let one = Population::Weinmann.input_function(&times, &arrival).unwrap();
    let two = Population::Weinmann.with_dose(&times, &arrival, 0.2).unwrap();
    assert!((two.at(100.0).unwrap() / one.at(100.0).unwrap() - 2.0).abs() < 1e-12);
    for part in ["weinmann", "Tofts and Kermode", "0.1 mmol/kg", "25.000 s", "given"] {
        assert!(one.origin().contains(part), "{}", one.origin());
    }
    for dose in [0.0, -0.1, f64::NAN, 100.0] {
        assert!(matches!(Population::Parker.with_dose(&times, &arrival, dose), Err(Error::Setting { .. })));
    }
    let late = Population::Parker.input_function(&times, &Arrival::at(400.0).unwrap()).unwrap_err().to_string();
    assert!(late.contains("400 s") && late.contains("series' clock"), "{late}");
    assert!(Arrival::at(f64::NAN).is_err());
}

#[test]
fn the_arrival_is_the_onset_of_the_mean_curve() {
    // An artery of 4 voxels, tissue that begins 6 s later, and noise-like wiggles.
    let times = TimeAxis::from_seconds((0..80).map(|i| 100.0 + 2.0 * f64::from(i)).collect()).unwrap();
    let samples = Array4::from_shape_fn((4, 4, 1, 80), |(x, y, _, t)| {
        let time = 2.0 * t as f64;
        let wiggle = 0.002 * ((7 * t + 3 * x + 5 * y) as f64).sin();
        let value = if y == 0 { parker(time - 31.0) } else { 0.4 * (1.0 - (-(time - 37.0).max(0.0) / 40.0).exp()) };
        (value + wiggle) as f32
    });
    let series = Series::from_array(samples.view(), times).unwrap();
    let mask = Mask::from_labels(Array3::from_shape_fn((4, 4, 1), |(_, y, _)| u32::from(y == 0)).view());
    let kernel = Descriptors::new().kind(SignalKind::Concentration);
    let artery = Arrival::detect(&series, Some(&mask), &kernel).unwrap();
    // Parker's foot is smooth: its piecewise-linear onset lies 2 to 3 s after t = 0.
    assert!((artery.time_s() - 133.5).abs() < 1.0, "{}", artery.time_s());
    assert!(artery.how().contains("4 voxels of a mask"), "{}", artery.how());
    let all = Arrival::detect(&series, None, &kernel).unwrap();
    assert!(all.how().contains("all voxels") && (all.time_s() - 131.0).abs() < 4.0, "{all:?}");
    let tissue = Mask::from_labels(Array3::from_shape_fn((4, 4, 1), |(_, y, _)| u32::from(y == 3)).view());
    assert!((Arrival::detect(&series, Some(&tissue), &kernel).unwrap().time_s() - 137.0).abs() < 2.0);

    let flat = Array4::from_shape_fn((2, 2, 1, 40), |(x, _, _, t)| ((t * 5 + x) as f32).sin());
    let flat = Series::from_array(flat.view(), TimeAxis::uniform(2.0, 40).unwrap()).unwrap();
    let error = Arrival::detect(&flat, None, &kernel).unwrap_err().to_string();
    assert!(error.contains("doesn't rise above its noise") && error.contains("give the arrival"), "{error}");
}

#[test]
fn a_mask_gives_mean_or_median_of_finite_voxels() {
    let samples = Array4::from_shape_fn((5, 1, 1, 4), |(x, _, _, t)| match (x, t) {
        (4, 2) => f32::NAN,
        (3, _) => 100.0 * t as f32,
        _ => (x * t) as f32,
    });
    let series = Series::from_array(samples.view(), TimeAxis::uniform(2.0, 4).unwrap()).unwrap();
    let mask = |inside: &dyn Fn(usize) -> bool| {
        Mask::from_labels(Array3::from_shape_fn((5, 1, 1), |(x, _, _)| u32::from(inside(x))).view())
    };
    let most = mask(&|x| x > 0);
    let mean = InputFunction::from_mask(&series, &most, Average::Mean, Fluid::Blood).unwrap();
    assert_eq!((mean.voxels, mean.left_out), (3, 1));
    assert!((mean.function.concentration_mm()[1] - 103.0 / 3.0).abs() < 1e-12);
    assert_eq!(mean.function.times_s(), [0.0, 2.0, 4.0, 6.0]);
    assert!(mean.function.origin().contains("mean of 3 voxels") && mean.function.origin().contains("1 left out"));
    let median = InputFunction::from_mask(&series, &most, Average::Median, Fluid::Plasma).unwrap();
    assert_eq!(median.function.concentration_mm(), [0.0, 2.0, 4.0, 6.0]);
    assert_eq!(median.function.fluid(), Fluid::Plasma);
    let none = InputFunction::from_mask(&series, &mask(&|x| x == 4), Average::Mean, Fluid::Blood).unwrap_err();
    assert!(none.to_string().contains("none of its 1 voxels"), "{none}");
    assert!(InputFunction::from_mask(&series, &mask(&|_| false), Average::Mean, Fluid::Blood).is_err());
}

fn read(text: &str, options: &CsvOptions) -> Result<InputFunction, String> {
    InputFunction::from_csv(text, Path::new("somewhere/aif.csv"), options).map_err(|error| error.to_string())
}

#[test]
fn tables_in_many_dresses() {
    let plain = CsvOptions::new();
    let expected = InputFunction::new(vec![0.0, 30.0, 60.0], vec![0.0, 5.5, -0.25], Fluid::Plasma).unwrap();
    for text in [
        "time_s,plasma_concentration_mM\n0,0\n30,5.5\n60,-0.25\n",
        "\u{feff}# a comment\r\n\r\ntime_min,cp_mM\r\n0,0\r\n # another\r\n0.5,5.5\r\n1,-2.5e-1",
        "time [s];Cp [mM]\n0;0\n30;5,5\n60;-0,25\n",
        "time (ms)\tother\tplasma mmol/L\n0\tx\t0\n30000\t\t5.5\n60000\tz\t-0.25",
        "\"cp_mM\",\"t_s\"\n\"0\",\"0\"\n\"5.5\",\"30\"\n-0.25,60\n",
    ] {
        let function = read(text, &plain).unwrap();
        assert_eq!(function.times_s(), expected.times_s(), "{text}");
        assert_eq!(function.concentration_mm(), expected.concentration_mm(), "{text}");
        assert_eq!(function.fluid(), Fluid::Plasma);
        assert!(function.origin().contains("of aif.csv"), "{}", function.origin());
    }
    let several = "time_s,aif_mM_a,aif_mM_b,tissue\n0,1,2,3\n1,4,5,6\n";
    let second = read(several, &CsvOptions::new().column("aif_mM_b").fluid(Fluid::Blood)).unwrap();
    assert_eq!(second.concentration_mm(), [2.0, 5.0]);
}

#[test]
fn tables_that_say_too_little_are_refused_with_place_and_mend() {
    let plain = CsvOptions::new();
    for (text, parts) in [
        ("", &["without a line of content", "time_s"][..]),
        ("0,1\n1,2\n", &["line 1", "without a column of times"]),
        ("# c\n\ntime,cp_mM\n0,1\n", &["line 3", "time_s, time_min or time_ms"]),
        ("time_s,aif\n0,1\n", &["without a column in mM"]),
        ("time_s,aif_mm\n0,1\n", &["without a column in mM"]),
        ("time_s,time_min,cp_mM\n0,0,1\n", &["several columns of times"]),
        ("time_s,concentration_mM\n0,1\n1,2\n", &["blood or plasma", "--aif-in"]),
        ("time_s,cp_mM,cb_mM\n0,1,2\n", &["2 columns in mM", "cp_mM, cb_mM"]),
        ("time_s,cp_mM\n0,1\n1,2,3\n", &["line 3", "3 field(s) for 2 columns"]),
        ("time_s,cp_mM\n0,1\n1,abc\n", &["line 3", "column 2 (cp_mM)", "\"abc\"", "finite number"]),
        ("time_s,cp_mM\n0,1\n1,NaN\n", &["line 3", "\"NaN\""]),
        ("time_s,cp_mM\n0,1\n\n5,1\n4,2\n", &["line 5", "column 1 (time_s)", "\"4\"", "5 s", "sort"]),
        ("time_s,cp_mM\n0,1\n", &["1 line(s) long"]),
        ("time_s,cp_mM\n0,0\n1,0\n", &["0 mM at all times"]),
    ] {
        let error = read(text, &plain).unwrap_err();
        assert!(error.contains("aif.csv"), "{error}");
        for part in parts {
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }
    let contradiction = read("time_s,cp_mM\n0,1\n1,2\n", &CsvOptions::new().fluid(Fluid::Blood)).unwrap_err();
    assert!(contradiction.contains("is in plasma, but blood was asked for"), "{contradiction}");
    let unknown = read("time_s,cp_mM\n0,1\n1,2\n", &CsvOptions::new().column("x")).unwrap_err();
    assert!(unknown.contains("\"x\"") && unknown.contains("cp_mM"), "{unknown}");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.csv");
    assert!(matches!(InputFunction::open(&path, &plain), Err(Error::Io { .. })));
    std::fs::write(&path, [0xff, 0xfe, b't', 0]).unwrap();
    assert!(InputFunction::open(&path, &plain).unwrap_err().to_string().contains("UTF-8"));
}

#[test]
fn a_table_written_reads_back_exactly() {
    let times = TimeAxis::uniform(3.7, 50).unwrap();
    let arrival = Arrival::at(17.3).unwrap();
    let blood = Population::Georgiou.input_function(&times, &arrival).unwrap();
    let plasma = blood.in_plasma(Haematocrit::new(0.35).unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for function in [blood, plasma] {
        let path = folder.path().join(format!("{}.csv", function.fluid()));
        std::fs::write(&path, function.to_csv()).unwrap();
        let again = InputFunction::open(&path, &CsvOptions::new()).unwrap();
        assert_eq!(again.times_s(), function.times_s());
        assert_eq!(again.concentration_mm(), function.concentration_mm());
        assert_eq!(again.fluid(), function.fluid());
        assert!(function.to_csv().contains("georgiou"));
        assert_eq!(function.to_csv().contains("haematocrit 0.35"), function.fluid() == Fluid::Plasma);
    }
}
