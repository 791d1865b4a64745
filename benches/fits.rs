//! Fits per second of each model at 60 and 120 frames, with the error of the same fits of the same curves without noise, and with
//! a fitted delay; and of extended Tofts over 10^3 to 10^7 voxels.
//!
//! `cargo bench --bench fits`: the GPU's rows are there if `Engine::auto` finds one. Criterion shows elements, that is
//! fits, per second of wall-clock time, outputs warm; the lines before it, in processor time where the system tells it.
//! Noise: 2 % of the curve's peak.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ndarray::Array4;
use perfuse::input_function::Fluid;
use perfuse::kernels::descriptors::{Baseline, MapSelection};
use perfuse::kernels::fit::brix::BrixFit;
use perfuse::kernels::fit::{Delay, Method, Model, Parameter};
use perfuse::{Engine, InputFunction, Maps, PharmacokineticFit, RunOptions, Series, TimeAxis};

const MODELS: [Model; 6] = [
    Model::Tofts,
    Model::ExtendedTofts,
    Model::Patlak,
    Model::OneCompartment,
    Model::TwoCompartmentUptake,
    Model::TwoCompartmentExchange,
];
/// Different curves of a series; the noise is another one in every voxel.
const CURVES: usize = 1000;
/// Voxels that all models fit.
const VOXELS: usize = 200_000;
/// Voxels that all models fit with a delay of each one's own.
const DELAYED_VOXELS: usize = 20_000;
/// Voxels that extended Tofts fits besides.
const SWEEP: [usize; 5] = [1_000, 10_000, 100_000, 1_000_000, 10_000_000];

/// Concentration in plasma: a bolus and a slow decay.
fn plasma(t: f64) -> f64 {
    let since = (t - 20.0).max(0.0);
    6.0 * (since / 6.0) * (1.0 - since / 6.0).exp() + 1.2 * (1.0 - (-since / 8.0).exp()) * (-since / 900.0).exp()
}

/// Even numbers between 0 and 1, by a multiplicative generator.
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f64 / (1u64 << 24) as f64
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }
}

/// Ranges of the parameters that curves are made from.
fn range(parameter: Parameter) -> (f64, f64) {
    match parameter {
        Parameter::Ktrans => (0.02, 0.4),
        Parameter::PlasmaFlow => (10.0, 100.0),
        Parameter::ExchangeFlow => (2.0, 30.0),
        Parameter::PlasmaVolume => (0.02, 0.15),
        Parameter::Volume => (0.05, 0.4),
        _ => (0.1, 0.5),
    }
}

struct Curves {
    times: TimeAxis,
    input: InputFunction,
    curves: Vec<Vec<f64>>,
    /// The first parameter of each.
    truth: Vec<f64>,
}

impl Curves {
    fn of(model: Model, frames: usize) -> Self {
        let times = TimeAxis::uniform(5.0, frames).expect("times");
        let knots = times.seconds().iter().map(|t| plasma(*t)).collect();
        let input = InputFunction::new(times.seconds().to_vec(), knots, Fluid::Plasma).expect("an input function");
        let mut random = Random(1);
        let (mut curves, mut truth) = (Vec::new(), Vec::new());
        for _ in 0..CURVES {
            let parameters: Vec<_> = model
                .parameters()
                .iter()
                .map(|parameter| {
                    let (low, high) = range(*parameter);
                    (*parameter, random.between(low, high))
                })
                .collect();
            truth.push(parameters[0].1);
            curves.push(model.concentration(&parameters, &input, 0.0, &times).expect("a curve"));
        }
        Self { times, input, curves, truth }
    }

    fn series(&self, voxels: usize, noise: f64) -> Series {
        let frames = self.times.seconds().len();
        let mut random = Random(2);
        let mut samples = vec![0f32; voxels * frames];
        for t in 0..frames {
            for voxel in 0..voxels {
                let curve = &self.curves[voxel % CURVES];
                let spread =
                    if noise > 0.0 { 2.0 * (random.unit() + random.unit() + random.unit() - 1.5) } else { 0.0 };
                samples[t * voxels + voxel] = (curve[t] + noise * 0.5 * spread) as f32;
            }
        }
        // Frames are slowest, as in a file.
        let samples =
            Array4::from_shape_vec((frames, 1, 1, voxels), samples).expect("a shape").permuted_axes([3, 2, 1, 0]);
        Series::from_array(samples.view(), self.times.clone()).expect("a series")
    }

    /// Noise of 2 % of the median curve's peak.
    fn noise(&self) -> f64 {
        let mut peaks: Vec<f64> = self.curves.iter().map(|c| c.iter().copied().fold(0.0, f64::max)).collect();
        peaks.sort_by(f64::total_cmp);
        0.02 * peaks[CURVES / 2]
    }
}

/// Seconds that this process's threads have computed, on Linux.
fn processor_seconds() -> Option<f64> {
    let mut nanoseconds = 0.0;
    for task in std::fs::read_dir("/proc/self/task").ok()? {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        nanoseconds += text.split_whitespace().next()?.parse::<f64>().ok()?;
    }
    Some(nanoseconds * 1e-9)
}

fn engines() -> Vec<Engine> {
    let mut engines = vec![Engine::cpu()];
    let auto = Engine::auto();
    if auto.name() != "cpu" {
        engines.push(auto);
    }
    engines
}

/// Times a fit, outputs warm, and says what it takes of a processor.
fn measure<F>(criterion: &mut Criterion, group: &str, name: &str, voxels: usize, engine: &Engine, mut run: F)
where
    F: FnMut(Option<Maps>) -> Maps,
{
    let mut maps = Some(run(None));
    if let Some(before) = processor_seconds() {
        maps = Some(run(maps));
        let spent = processor_seconds().unwrap_or(before) - before;
        if spent > 0.05 {
            let rate = voxels as f64 / spent * 1e-6;
            println!("{group}, {name}, {}: {rate:.3} million fits per second of one processor", engine.name());
        }
    }
    let mut group = criterion.benchmark_group(group);
    group.sample_size(10).throughput(Throughput::Elements(voxels as u64));
    group.bench_function(BenchmarkId::new(format!("{name}, {}", engine.name()), voxels), |bencher| {
        bencher.iter(|| maps = Some(run(maps.take())));
    });
    group.finish();
}

/// Median and largest relative error of the first parameter.
fn errors(truth: &[f64], found: &Maps, id: &str) -> String {
    let found = found.get(id).expect("the map");
    let of = |(t, f): (&f64, &f32)| (f64::from(*f) - t).abs() / t;
    let mut errors: Vec<f64> = truth.iter().zip(found.iter()).map(of).collect();
    errors.sort_by(f64::total_cmp);
    format!("median error of {id} {:.1e}, largest {:.1e}", errors[CURVES / 2], errors[CURVES - 1])
}

fn models(criterion: &mut Criterion) {
    for frames in [60, 120] {
        for model in MODELS {
            let curves = Curves::of(model, frames);
            let series = curves.series(VOXELS, curves.noise());
            let clean = curves.series(CURVES, 0.0);
            for method in [Method::Nonlinear, Method::Linear] {
                let ids: Vec<String> = model.parameters().iter().map(|p| p.quantity().id.to_string()).collect();
                let first = ids[0].clone();
                let fit = PharmacokineticFit::new(model, curves.input.clone()).method(method);
                let fit = fit.maps(MapSelection::only(ids));
                for engine in engines() {
                    let name = format!("{model} {}", method.as_str());
                    let clean = engine.run(&fit, &clean).expect("a run");
                    println!("{name}, {frames} frames, {}: {}", engine.name(), errors(&curves.truth, &clean, &first));
                    measure(
                        criterion,
                        &format!("fits of {frames} frames"),
                        &name,
                        VOXELS,
                        &engine,
                        |maps| match maps {
                            Some(maps) => engine.run_reusing(&fit, &series, &RunOptions::new(), maps).expect("a run"),
                            None => engine.run(&fit, &series).expect("a run"),
                        },
                    );
                }
            }
        }
        delayed(criterion, frames);
        brix(criterion, frames);
    }
}

/// The same models with a fitted delay.
fn delayed(criterion: &mut Criterion, frames: usize) {
    for model in MODELS {
        let curves = Curves::of(model, frames);
        let series = curves.series(DELAYED_VOXELS, curves.noise());
        let ids: Vec<String> = model.parameters().iter().map(|p| p.quantity().id.to_string()).collect();
        let fit = PharmacokineticFit::new(model, curves.input.clone()).delay(Delay::Free).maps(MapSelection::only(ids));
        for engine in engines() {
            let group = format!("fits of {frames} frames");
            let name = format!("{model} nonlinear, delay fitted");
            measure(criterion, &group, &name, DELAYED_VOXELS, &engine, |maps| match maps {
                Some(maps) => engine.run_reusing(&fit, &series, &RunOptions::new(), maps).expect("a run"),
                None => engine.run(&fit, &series).expect("a run"),
            });
        }
    }
}

/// Brix' model takes signals: one and the curves of extended Tofts, 20 s of them before the contrast agent.
fn brix(criterion: &mut Criterion, frames: usize) {
    let mut curves = Curves::of(Model::ExtendedTofts, frames);
    curves.curves.iter_mut().flatten().for_each(|sample| *sample += 1.0);
    let series = curves.series(VOXELS, curves.noise());
    let fit = BrixFit::new().baseline(Baseline::first(4));
    for engine in engines() {
        measure(criterion, &format!("fits of {frames} frames"), "brix", VOXELS, &engine, |maps| match maps {
            Some(maps) => engine.run_reusing(&fit, &series, &RunOptions::new(), maps).expect("a run"),
            None => engine.run(&fit, &series).expect("a run"),
        });
    }
}

fn sweep(criterion: &mut Criterion) {
    let curves = Curves::of(Model::ExtendedTofts, 60);
    let ids = Model::ExtendedTofts.parameters().iter().map(|parameter| parameter.quantity().id.to_string());
    let fit = PharmacokineticFit::new(Model::ExtendedTofts, curves.input.clone()).maps(MapSelection::only(ids));
    for voxels in SWEEP {
        let series = curves.series(voxels, curves.noise());
        for engine in engines() {
            measure(criterion, "extended_tofts of 60 frames", "nonlinear", voxels, &engine, |maps| match maps {
                Some(maps) => engine.run_reusing(&fit, &series, &RunOptions::new(), maps).expect("a run"),
                None => engine.run(&fit, &series).expect("a run"),
            });
        }
    }
}

criterion_group!(benches, models, sweep);
criterion_main!(benches);
