//! Fits per second of each model at 60 and 120 frames, beside the worst error of noise-free curves' first parameter.
//!
//! `cargo bench --bench fits`: the GPU's rows are there if `Engine::auto` finds one. Criterion shows elements, that is
//! fits, per second of wall-clock time; the table before it, in processor time where the system tells it.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ndarray::Array4;
use perfuse::input_function::Fluid;
use perfuse::kernels::descriptors::MapSelection;
use perfuse::kernels::fit::{Method, Model};
use perfuse::{Engine, InputFunction, PharmacokineticFit, RunOptions, Series, TimeAxis};

const MODELS: [Model; 5] =
    [Model::Tofts, Model::ExtendedTofts, Model::Patlak, Model::OneCompartment, Model::TwoCompartmentUptake];
const VOXELS: [usize; 2] = [1 << 12, 1 << 18];

/// Concentration in plasma: a bolus and a slow decay.
fn plasma(t: f64) -> f64 {
    let since = (t - 20.0).max(0.0);
    6.0 * (since / 6.0) * (1.0 - since / 6.0).exp() + 1.2 * (1.0 - (-since / 8.0).exp()) * (-since / 900.0).exp()
}

/// Curves of extended Tofts, drawn with a multiplicative generator, with a little noise.
fn series(frames: usize, voxels: usize) -> (Series, InputFunction) {
    let times: Vec<f64> = (0..frames).map(|i| 5.0 * i as f64).collect();
    let knots: Vec<f64> = times.iter().map(|t| plasma(*t)).collect();
    let mut state = 1u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / (1u64 << 24) as f64
    };
    let mut curves = vec![0f32; frames * voxels];
    for voxel in 0..voxels {
        let (ktrans, ve, vp) = (0.02 + 0.4 * random(), 0.1 + 0.5 * random(), 0.1 * random());
        let kep = ktrans / ve / 60.0;
        let mut tissue = 0.0;
        for t in 0..frames {
            if t > 0 {
                let decay = (-kep * 5.0).exp();
                tissue = decay * tissue + ktrans / 60.0 * 2.5 * (decay * knots[t - 1] + knots[t]);
            }
            let noise = random() + random() + random() - 1.5;
            curves[t * voxels + voxel] = (vp * knots[t] + tissue + 0.02 * noise) as f32;
        }
    }
    let samples = Array4::from_shape_fn((voxels, 1, 1, frames), |(v, _, _, t)| curves[t * voxels + v]);
    let axis = TimeAxis::from_seconds(times.clone()).expect("times");
    let series = Series::from_array(samples.view(), axis).expect("a series");
    (series, InputFunction::new(times, knots, Fluid::Plasma).expect("an input function"))
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

fn fits(criterion: &mut Criterion) {
    let mut engines = vec![Engine::cpu()];
    let auto = Engine::auto();
    if auto.name() != "cpu" {
        engines.push(auto);
    }
    for frames in [60, 120] {
        for voxels in VOXELS {
            let (series, input) = series(frames, voxels);
            let mut group = criterion.benchmark_group(format!("fits of {frames} frames"));
            group.sample_size(10).throughput(Throughput::Elements(voxels as u64));
            for model in MODELS {
                for method in [Method::Nonlinear, Method::Linear] {
                    let ids = model.parameters().iter().map(|parameter| parameter.quantity().id.to_string());
                    let fit = PharmacokineticFit::new(model, input.clone()).method(method);
                    let few = fit.maps(MapSelection::only(ids));
                    for engine in &engines {
                        let mut maps = Some(engine.run(&few, &series).expect("a run"));
                        if let Some(before) = processor_seconds() {
                            maps = Some(engine.run(&few, &series).expect("a run"));
                            let spent = processor_seconds().unwrap_or(before) - before;
                            let rate = voxels as f64 / spent * 1e-6;
                            println!(
                                "{model} {}, {frames} frames, {voxels} voxels, {}: {rate:.2} million fits per second of one processor",
                                method.as_str(),
                                engine.name()
                            );
                        }
                        let name = format!("{model} {}, {}", method.as_str(), engine.name());
                        group.bench_function(BenchmarkId::new(name, voxels), |bencher| {
                            bencher.iter(|| {
                                let reused = maps.take().expect("the maps of the run before");
                                maps =
                                    Some(engine.run_reusing(&few, &series, &RunOptions::new(), reused).expect("a run"));
                            });
                        });
                    }
                }
            }
            group.finish();
        }
    }
}

criterion_group!(benches, fits);
criterion_main!(benches);
