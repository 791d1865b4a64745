//! T1 fits and concentrations per second, from a region to a whole volume.
//!
//! `cargo bench --bench relaxation`; the GPU's rows are there if `Engine::auto` finds one.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use perfuse::kernel::VoxelKernel;
use perfuse::kernels::concentration::Concentration;
use perfuse::kernels::t1::{InversionRecovery, VariableFlipAngle, VfaMethod};
use perfuse::{Engine, FlipAngle, SampleAxis, Seconds, Series, TimeAxis};

const VOXELS: [usize; 3] = [1_000, 100_000, 1_000_000];

/// Signals of several T1, as 16-bit samples: one per voxel and setting.
fn stack(voxels: usize, axis: impl Into<SampleAxis>, samples: usize, signal: impl Fn(f64, usize) -> f64) -> Series {
    let t1 = |voxel: usize| 0.3 + 2.0 * (voxel % 977) as f64 / 977.0;
    let values = (0..samples).flat_map(|i| (0..voxels).map(move |voxel| (voxel, i)));
    let values: Vec<i16> = values.map(|(voxel, i)| signal(t1(voxel), i).round() as i16).collect();
    Series::from_voxels(values, [voxels, 1, 1, samples], axis).expect("as many samples as the shape says")
}

fn relaxation(criterion: &mut Criterion) {
    let mut engines = vec![Engine::cpu()];
    let auto = Engine::auto();
    if auto.name() != "cpu" {
        engines.push(auto);
    }
    let tr = 0.005;
    let spoiled = move |t1: f64, degrees: f64| {
        let (sine, cosine) = degrees.to_radians().sin_cos();
        let e = (-tr / t1).exp();
        200_000.0 * sine * (1.0 - e) / (1.0 - e * cosine)
    };
    let angles = [2.0, 5.0, 10.0, 15.0, 25.0];
    let times = [0.03, 0.1, 0.25, 0.5, 0.9, 1.6, 3.0, 6.0];
    let vfa = VariableFlipAngle::new(Seconds::from_seconds(tr), angles.map(FlipAngle::from_degrees));
    let linear = vfa.clone().method(VfaMethod::Linear);
    let recovery = InversionRecovery::new(times.map(Seconds::from_seconds));
    let concentration = Concentration::new(Seconds::from_seconds(tr), FlipAngle::from_degrees(15.0), 4.5)
        .t10(Seconds::from_seconds(1.2))
        .baseline_frames(0..6);
    for voxels in VOXELS {
        let flips = stack(voxels, SampleAxis::Index, 5, |t1, i| spoiled(t1, angles[i]));
        let inversions = stack(voxels, SampleAxis::Index, 8, |t1, i| (9e3 - 17e3 * (-times[i] / t1).exp()).abs());
        let frames = TimeAxis::uniform(4.0, 60).expect("even times");
        let dynamic =
            stack(voxels, frames, 60, |t1, i| spoiled(1.0 / (1.0 / t1 + 0.1 * i.saturating_sub(6) as f64), 15.0));
        bench(criterion, &engines, "t1 vfa, 5 angles", &vfa, &flips);
        bench(criterion, &engines, "t1 vfa-linear, 5 angles", &linear, &flips);
        bench(criterion, &engines, "t1 inversion recovery, 8 times", &recovery, &inversions);
        bench(criterion, &engines, "concentration, 60 frames", &concentration, &dynamic);
    }
}

fn bench<K: VoxelKernel>(criterion: &mut Criterion, engines: &[Engine], name: &str, kernel: &K, series: &Series) {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10).throughput(Throughput::Elements(series.voxel_count() as u64));
    for engine in engines {
        group.bench_function(BenchmarkId::new(engine.name(), series.voxel_count()), |bencher| {
            bencher.iter(|| engine.run(kernel, series).expect("a run"));
        });
    }
    group.finish();
}

criterion_group!(benches, relaxation);
criterion_main!(benches);
