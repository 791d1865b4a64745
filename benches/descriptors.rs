//! The semi-quantitative maps over a sweep of sizes, from some at which a GPU loses, beside a plain copy of the samples.
//!
//! `cargo bench --bench descriptors`; the GPU's rows are there if `Engine::auto` finds one.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use perfuse::kernels::descriptors::MapSelection;
use perfuse::phantom::{Noise, Phantom};
use perfuse::{Descriptors, Engine, RunOptions, Series, Voxels};

const FRAMES: usize = 60;
/// From a region to a whole volume.
const SHAPES: [[usize; 3]; 4] = [[16, 16, 4], [64, 64, 8], [128, 128, 16], [256, 256, 30]];

fn series(shape: [usize; 3]) -> Series {
    let phantom = Phantom::brain_with_lesion().shape(shape).frames(FRAMES, 4.0).noise(Noise::Gaussian(8.0));
    phantom.build().expect("a phantom").series
}

fn descriptors(criterion: &mut Criterion) {
    let mut engines = vec![Engine::cpu()];
    let auto = Engine::auto();
    if auto.name() != "cpu" {
        engines.push(auto);
    }
    let explicit = Descriptors::new().baseline_frames(0..6);
    let three = explicit.clone().maps(MapSelection::only(["peak_time", "max_slope", "auc"]));
    let mut group = criterion.benchmark_group("descriptors");
    group.sample_size(10);
    for shape in SHAPES {
        let series = series(shape);
        let Ok(Voxels::I16(samples)) = series.voxels() else { panic!("phantoms are 16-bit") };
        let size = shape.map(|n| n.to_string()).join("x");
        group.throughput(Throughput::Bytes(2 * samples.len() as u64));
        let mut copy = samples.clone();
        group.bench_function(BenchmarkId::new("copy of the samples", &size), |bencher| {
            bencher.iter(|| copy.copy_from_slice(black_box(samples)));
        });
        for engine in &engines {
            for (name, kernel) in [("three maps", &three), ("all maps", &explicit)] {
                let name = format!("{name}, {}", engine.name());
                let mut maps = Some(engine.run(kernel, &series).expect("a run"));
                group.bench_function(BenchmarkId::new(name, &size), |bencher| {
                    bencher.iter(|| {
                        let reused = maps.take().expect("the maps of the run before");
                        maps = Some(engine.run_reusing(kernel, &series, &RunOptions::new(), reused).expect("a run"));
                    });
                });
            }
        }
    }
    group.finish();
}

criterion_group!(benches, descriptors);
criterion_main!(benches);
