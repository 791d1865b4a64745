//! The GPU engine against the definition in f64, on whatever device is there, software included.
//!
//! Where there is no device at all the tests are reported as ignored, unless `PERFUSE_REQUIRE_GPU=1`: then they fail.
//! `PERFUSE_TEST_DEVICE` names the device to test.

use std::borrow::Cow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use libtest_mimic::{Arguments, Failed, Trial};
use ndarray::{Array3, ShapeBuilder};
use perfuse::engine::gpu::{DeviceChoice, DeviceKind, Gpu, Tuning, devices};
use perfuse::kernel::lanes::{Double, Lanes, Numbers};
use perfuse::kernel::{Curve, LARGEST_DIFFERENCE, Output, OutputKind, PreparedKernel, Program, Rows};
use perfuse::{Cancel, Error, Mask, Quantity, RunOptions, Scaling, Series, SettingValue, TimeAxis, Voxels, status};

type Outcome = Result<(), Failed>;
type Test = (&'static str, fn() -> Outcome);

const NAN_BITS: u32 = 0x7fc0_0000;
const SENTINEL: u32 = 0xdead_beef;

/// Weighted mean, last difference, frame of the maximum, extra layers, all differences.
#[derive(Clone)]
struct Sums {
    outputs: Vec<Output>,
    frames: usize,
    layers: Vec<Vec<f32>>,
    scaling: Scaling,
    entry_points: &'static [&'static str],
    sources: &'static [&'static str],
    voxels_per_thread: u32,
    doubled: bool,
    loop_turns: usize,
}

impl Sums {
    fn new(series: &Series) -> Self {
        let output = |quantity, kind| Output { quantity, kind };
        Self {
            outputs: vec![
                output(Quantity::TIME_TO_PEAK, OutputKind::Float),
                output(Quantity::TIME_TO_PEAK, OutputKind::Float),
                output(Quantity::TIME_TO_PEAK, OutputKind::Label),
                output(Quantity::TIME_TO_PEAK, OutputKind::Float),
                output(Quantity::TIME_TO_PEAK, OutputKind::Curve(series.frames())),
            ],
            frames: series.frames(),
            layers: Vec::new(),
            scaling: series.scaling(),
            entry_points: &["at_once"],
            sources: &[include_str!("gpu_kernel.wgsl")],
            voxels_per_thread: 1,
            doubled: false,
            loop_turns: 0,
        }
    }

    fn weights(&self) -> Vec<f32> {
        (0..self.frames).map(|t| (1.0 + t as f32) / (self.frames * self.frames) as f32).collect()
    }
}

impl PreparedKernel for Sums {
    fn outputs(&self) -> &[Output] {
        &self.outputs
    }
    fn settings(&self) -> Vec<(String, SettingValue)> {
        Vec::new()
    }
    fn extra(&self) -> &[Vec<f32>] {
        &self.layers
    }
    fn scratch(&self) -> usize {
        0
    }
    fn evaluate<L: Lanes>(&self, lanes: L, curve: Curve<'_, L>, _: &mut [L::F], rows: &mut Rows<'_, L>) {
        let zero = lanes.splat(0.0);
        let (mut weighted, mut largest, mut frame) = (zero, zero, zero);
        for (t, weight) in self.weights().into_iter().enumerate() {
            let change = curve.difference(t);
            weighted = weighted + lanes.splat(f64::from(weight)) * change;
            let higher = change.gt(largest);
            largest = lanes.select(higher, change, largest);
            frame = lanes.select(higher, lanes.count(t), frame);
        }
        let mean = lanes.splat(self.scaling.slope) * (curve.first + weighted) + lanes.splat(self.scaling.intercept);
        let mean = if self.doubled { mean + mean } else { mean };
        rows.set(0, mean, curve.finite);
        rows.set(1, curve.difference(self.frames - 1), curve.finite);
        rows.set(2, frame + lanes.splat(1.0), curve.finite);
        let mut along = zero;
        for (layer, value) in curve.extra.iter().enumerate() {
            along = along + lanes.count(layer + 1) * *value;
        }
        rows.set(3, along, lanes.mask(true));
        for t in 0..self.frames {
            rows.set(4 + t, curve.difference(t), curve.finite);
        }
        rows.set_bits(4 + self.frames, lanes.bits(!curve.finite, status::NON_FINITE_SAMPLE));
    }
    fn program(&self) -> Program {
        let mut settings = Vec::new();
        settings.extend((self.scaling.slope as f32).to_ne_bytes());
        settings.extend((self.scaling.intercept as f32).to_ne_bytes());
        settings.extend((self.layers.len() as u32).to_ne_bytes());
        settings.extend([0; 4]);
        Program {
            name: "sums",
            sources: self.sources,
            entry_points: self.entry_points.into(),
            workgroup_size: 64,
            voxels_per_thread: self.voxels_per_thread,
            constants: vec![("DOUBLED", f64::from(u8::from(self.doubled)))],
            settings,
            tables: Cow::Owned(self.weights()),
            state_words: if self.entry_points.len() > 1 { 3 } else { 0 },
            loop_turns: self.loop_turns,
        }
    }
    fn with_frames(&self, _: &[usize]) -> Option<Self> {
        None
    }
}

/// Rows of the definition; labels and bits as numbers.
fn reference(kernel: &Sums, series: &Series) -> Vec<Vec<f64>> {
    let (count, frames) = (series.voxel_count(), series.frames());
    let mut rows = vec![vec![0.0; count]; kernel.rows() + 1];
    let voxels = series.voxels().expect("in memory");
    for voxel in 0..count {
        let sample = |t: usize| voxels.get_f64(voxel + t * count);
        let exact = |t: usize| match voxels {
            Voxels::I64(v) => (i128::from(v[voxel + t * count]) - i128::from(v[voxel])) as f64,
            Voxels::U64(v) => (i128::from(v[voxel + t * count]) - i128::from(v[voxel])) as f64,
            _ => sample(t) - sample(0),
        };
        let finite = (0..frames).all(|t| sample(t).is_finite() && exact(t).abs() < LARGEST_DIFFERENCE);
        let differences: Vec<f64> = (0..frames).map(|t| if finite { exact(t) } else { 0.0 }).collect();
        let extra: Vec<f64> = kernel.layers.iter().map(|layer| f64::from(layer[voxel])).collect();
        let first = if finite { sample(0) } else { 0.0 };
        let curve = Curve::new(Double, &differences, 1, first, finite, &extra);
        let mut words = vec![0.0; kernel.rows() + 1];
        kernel.evaluate(Double, curve, &mut [], &mut Rows::new(Double, &mut words, 1));
        for (row, word) in rows.iter_mut().zip(words) {
            row[voxel] = word;
        }
    }
    rows
}

fn compare(kernel: &Sums, series: &Series, rows: &[Vec<u32>]) -> Outcome {
    let expected = reference(kernel, series);
    if rows.len() != expected.len() {
        return Err(format!("{} rows instead of {}", rows.len(), expected.len()).into());
    }
    let floats = !series.sample_type().is_integer();
    for (r, (row, expected)) in rows.iter().zip(&expected).enumerate() {
        if row.len() != expected.len() {
            return Err(format!("row {r} has {} voxels", row.len()).into());
        }
        let bits = r == 2 || r == rows.len() - 1;
        for (voxel, (word, expected)) in row.iter().zip(expected).enumerate() {
            let right = if bits {
                // The definition writes a label of a voxel without answer as NaN, a shader writes 0.
                f64::from(*word) == if expected.is_nan() { 0.0 } else { *expected }
            } else if expected.is_nan() {
                *word == NAN_BITS
            } else {
                let value = f64::from(f32::from_bits(*word));
                let scale = if r == 0 { curve_scale(series, voxel) } else { expected.abs() };
                let tolerance = match r {
                    // The sum's roundings; a difference of integers is rounded once, half a unit in the last place.
                    0 => 1e-5 * scale,
                    _ if floats => 1.2e-7 * scale,
                    _ => 6.0e-8 * scale,
                };
                (value - expected).abs() <= tolerance
            };
            if !right {
                let text = format!(
                    "{} row {r} voxel {voxel}: {word:#x} = {}, not {expected}",
                    series.sample_type().name(),
                    f32::from_bits(*word)
                );
                return Err(text.into());
            }
        }
    }
    Ok(())
}

fn curve_scale(series: &Series, voxel: usize) -> f64 {
    let count = series.voxel_count();
    let scaling = series.scaling();
    let voxels = series.voxels().expect("in memory");
    let largest = (0..series.frames()).map(|t| voxels.get_f64(voxel + t * count).abs()).fold(0.0, f64::max);
    largest * scaling.slope.abs() + scaling.intercept.abs() + 1e-30
}

/// Reproducible numbers (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn series(voxels: impl Into<Voxels>, count: usize, frames: usize) -> Series {
    let times = TimeAxis::uniform(1.0, frames).expect("even times");
    Series::from_voxels(voxels, [count, 1, 1, frames], times).expect("fits")
}

fn random_i16(count: usize, frames: usize) -> Series {
    let mut random = Random(count as u64);
    series((0..count * frames).map(|_| random.next() as i16).collect::<Vec<_>>(), count, frames)
}

/// One series of every sample type, over the type's whole range.
fn every_type(count: usize, frames: usize) -> Vec<Series> {
    let mut random = Random(count as u64 * 1000 + frames as u64);
    let words: Vec<u64> = (0..count * frames).map(|_| random.next()).collect();
    let words = &words;
    macro_rules! whole {
        ($type:ty) => {{
            let mut samples: Vec<$type> = words.iter().map(|w| *w as $type).collect();
            // The largest difference there is.
            samples[0] = <$type>::MIN;
            samples[(frames - 1) * count] = <$type>::MAX;
            series(samples, count, frames)
        }};
    }
    let fraction = |w: u64| (w >> 11) as f64 / (1u64 << 53) as f64 - 0.5;
    let large: Vec<f64> = words.iter().map(|w| 1e15 + (fraction(*w) * 1e4).round()).collect();
    let near: Vec<i64> = words.iter().map(|w| (1 << 60) + (*w % 1000) as i64).collect();
    vec![
        whole!(u8),
        whole!(i8),
        whole!(u16),
        whole!(i16),
        whole!(u32),
        whole!(i32),
        // Half of these voxels have differences that are too large, and are refused.
        series(words.iter().map(|w| *w >> 24).collect::<Vec<u64>>(), count, frames),
        series(words.iter().map(|w| *w as i64 >> 24).collect::<Vec<i64>>(), count, frames),
        series(near, count, frames),
        series(words.iter().map(|w| (fraction(*w) * 1e3) as f32).collect::<Vec<f32>>(), count, frames),
        series(words.iter().map(|w| fraction(*w) * 1e-3).collect::<Vec<f64>>(), count, frames),
        // Differences that f32 would lose if it were subtracted there.
        series(large, count, frames),
    ]
}

fn choice() -> DeviceChoice {
    match std::env::var("PERFUSE_TEST_DEVICE") {
        Ok(name) if name != "gpu" => DeviceChoice::Named(name),
        _ => DeviceChoice::Any,
    }
}

fn shared() -> &'static Gpu {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    GPU.get_or_init(|| tuned(None))
}

/// A device whose outputs hold a sentinel before every run.
fn tuned(slab_voxels: Option<usize>) -> Gpu {
    let gpu = Gpu::open(&choice()).expect("a device, as the listing said");
    gpu.with_tuning(Tuning { slab_voxels, sentinel: Some(SENTINEL), ..Tuning::default() })
}

fn run(gpu: &Gpu, kernel: &Sums, series: &Series, options: &RunOptions<'_>) -> Result<Vec<Vec<u32>>, Failed> {
    Ok(gpu.run_words(kernel, series, options).map_err(|error| error.to_string())?.0)
}

fn types_and_sizes() -> Outcome {
    for count in [1, 63, 64, 65, 345, 1023] {
        for frames in [2, 3, 7] {
            for series in every_type(count, frames) {
                let kernel = Sums::new(&series);
                compare(&kernel, &series, &run(shared(), &kernel, &series, &RunOptions::new())?)?;
            }
        }
    }
    Ok(())
}

fn two_voxels_per_thread() -> Outcome {
    let in_pairs = |series: &Series| Sums { entry_points: &["in_pairs"], voxels_per_thread: 2, ..Sums::new(series) };
    for count in [1, 2, 127, 128, 129, 4999] {
        for series in every_type(count, 5) {
            let kernel = in_pairs(&series);
            for gpu in [shared(), &tuned(Some(256))] {
                let rows = run(gpu, &kernel, &series, &RunOptions::new())?;
                compare(&kernel, &series, &rows)?;
            }
            let even = mask(count, |v| v % 2 == 0);
            let rows = run(shared(), &kernel, &series, &RunOptions::new().mask(&even))?;
            let alone = run(shared(), &Sums::new(&series), &series, &RunOptions::new().mask(&even))?;
            if rows != alone {
                return Err(format!("{} differs from one voxel per thread", series.sample_type().name()).into());
            }
        }
    }
    let series = random_i16(65_535 * 128 + 77, 2);
    compare(&in_pairs(&series), &series, &run(&tuned(None), &in_pairs(&series), &series, &RunOptions::new())?)?;
    let kernel = Sums { voxels_per_thread: 3, ..in_pairs(&random_i16(5, 2)) };
    match shared().run_words(&kernel, &random_i16(5, 2), &RunOptions::new()) {
        Err(error) if error.to_string().contains("3 voxels per thread") => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

fn slabs_do_not_matter() -> Outcome {
    for slab in [256, 512, 1024] {
        let gpu = tuned(Some(slab));
        for series in every_type(4999, 5) {
            let kernel = Sums::new(&series);
            let whole = run(shared(), &kernel, &series, &RunOptions::new())?;
            let cut = run(&gpu, &kernel, &series, &RunOptions::new())?;
            if whole != cut {
                return Err(format!("{} differs for slabs of {slab}", series.sample_type().name()).into());
            }
            compare(&kernel, &series, &cut)?;
        }
    }
    Ok(())
}

fn dispatches_fold() -> Outcome {
    let count = 65_535 * 64 + 77;
    let series = random_i16(count, 2);
    let kernel = Sums::new(&series);
    let gpu = tuned(None);
    compare(&kernel, &series, &run(&gpu, &kernel, &series, &RunOptions::new())?)
}

fn chunks_of_large_rows() -> Outcome {
    // Rows longer than a staging chunk, an odd number of bytes.
    let series = random_i16(2_345_677, 3);
    let kernel = Sums::new(&series);
    compare(&kernel, &series, &run(&tuned(None), &kernel, &series, &RunOptions::new())?)
}

fn scaling_and_constants() -> Outcome {
    let plain = random_i16(345, 9);
    let series = plain.with_scaling(Scaling { slope: -0.25, intercept: 1000.0 }).map_err(|e| e.to_string())?;
    let mut kernel = Sums::new(&series);
    compare(&kernel, &series, &run(shared(), &kernel, &series, &RunOptions::new())?)?;
    kernel.doubled = true;
    compare(&kernel, &series, &run(shared(), &kernel, &series, &RunOptions::new())?)
}

fn samples_that_are_not_finite() -> Outcome {
    let (count, frames) = (345, 7);
    let mut random = Random(5);
    let mut samples: Vec<f64> = (0..count * frames).map(|_| (random.next() % 1000) as f64).collect();
    let bad = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
    for (i, value) in bad.iter().cycle().take(60).enumerate() {
        samples[(i % frames) * count + i * 5] = *value;
    }
    let floats: Vec<f32> = samples.iter().map(|x| *x as f32).collect();
    for series in [series(samples, count, frames), series(floats, count, frames)] {
        let kernel = Sums::new(&series);
        let rows = run(shared(), &kernel, &series, &RunOptions::new())?;
        compare(&kernel, &series, &rows)?;
        let refused = rows[kernel.rows()].iter().filter(|word| **word == status::NON_FINITE_SAMPLE).count();
        if refused != 60 {
            return Err(format!("{refused} voxels refused").into());
        }
    }
    Ok(())
}

fn layers_and_state() -> Outcome {
    let gpu = tuned(Some(512));
    let series = random_i16(2345, 6);
    let mut kernel = Sums::new(&series);
    kernel.layers = (0..3).map(|l| (0..2345).map(|v| (v * 3 + l) as f32 * 0.5).collect()).collect();
    let at_once = run(&gpu, &kernel, &series, &RunOptions::new())?;
    compare(&kernel, &series, &at_once)?;
    kernel.entry_points = &["gather", "finish"];
    let in_two = run(&gpu, &kernel, &series, &RunOptions::new())?;
    compare(&kernel, &series, &in_two)?;
    kernel.layers[1].pop();
    match gpu.run_words(&kernel, &series, &RunOptions::new()) {
        Err(Error::Mismatch { .. }) => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

/// A mask over a line of voxels.
fn mask(count: usize, inside: impl Fn(usize) -> bool) -> Mask {
    let labels: Vec<u32> = (0..count).map(|v| u32::from(inside(v))).collect();
    Mask::from_labels(Array3::from_shape_vec((count, 1, 1).f(), labels).expect("fits").view())
}

fn masks() -> Outcome {
    let count = 5003;
    for series in every_type(count, 5) {
        let mut kernel = Sums::new(&series);
        kernel.layers = vec![(0..count).map(|v| v as f32).collect()];
        let whole = run(shared(), &kernel, &series, &RunOptions::new())?;
        let patterns: [fn(usize) -> bool; 5] = [
            |v| v % 3 != 0,
            |v| v % 37 == 5,
            |v| (2000..2100).contains(&v),
            |v| v == 5002,
            |v| (v * 7919) % 101 < 4 || v < 3,
        ];
        for (index, inside) in patterns.into_iter().enumerate() {
            let mask = mask(count, inside);
            for gpu in [shared(), &tuned(Some(256))] {
                let rows = run(gpu, &kernel, &series, &RunOptions::new().mask(&mask))?;
                for (r, (row, whole)) in rows.iter().zip(&whole).enumerate() {
                    let blank = match r {
                        2 => 0,
                        _ if r == rows.len() - 1 => status::OUTSIDE_MASK,
                        _ => NAN_BITS,
                    };
                    if let Some(v) = (0..count).find(|v| row[*v] != if inside(*v) { whole[*v] } else { blank }) {
                        return Err(format!("mask {index} row {r} voxel {v}: {:#x}", row[v]).into());
                    }
                }
            }
        }
    }
    Ok(())
}

fn progress_and_cancelling() -> Outcome {
    let gpu = tuned(Some(256));
    let series = random_i16(3000, 4);
    let kernel = Sums::new(&series);
    let last = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&last);
    let options = RunOptions::new().progress(move |done, all| {
        assert_eq!(all, 3000, "all voxels");
        assert!(seen.swap(done, Ordering::Relaxed) <= done, "progress never goes back");
    });
    run(&gpu, &kernel, &series, &options)?;
    if last.load(Ordering::Relaxed) != 3000 {
        return Err("progress ends early".into());
    }
    let cancel = Cancel::new();
    let now = cancel.clone();
    let options = RunOptions::new().cancel(cancel).progress(move |done, _| {
        if done > 0 {
            now.cancel();
        }
    });
    if !matches!(gpu.run_words(&kernel, &series, &options), Err(Error::Cancelled)) {
        return Err("it was not cancelled".into());
    }
    // The device is as good as before.
    compare(&kernel, &series, &run(&gpu, &kernel, &series, &RunOptions::new())?)
}

fn runs_repeat_bit_for_bit() -> Outcome {
    let series = random_i16(50_001, 11);
    let kernel = Sums::new(&series);
    let first = run(shared(), &kernel, &series, &RunOptions::new())?;
    for _ in 0..3 {
        if run(shared(), &kernel, &series, &RunOptions::new())? != first {
            return Err("a second run differs".into());
        }
    }
    Ok(())
}

fn threads_share_a_device() -> Outcome {
    let gpu = tuned(Some(1024));
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..4)
            .map(|i| {
                let gpu = &gpu;
                scope.spawn(move || -> Outcome {
                    for turn in 0..3 {
                        let series = random_i16(7001 + i * 500 + turn, 5);
                        let kernel = Sums::new(&series);
                        compare(&kernel, &series, &run(gpu, &kernel, &series, &RunOptions::new())?)?;
                    }
                    Ok(())
                })
            })
            .collect();
        runs.into_iter().try_for_each(|run| run.join().expect("no panic"))
    })
}

fn memory_limits() -> Outcome {
    let series = random_i16(100_000, 10);
    let kernel = Sums::new(&series);
    let whole = run(shared(), &kernel, &series, &RunOptions::new())?;
    if run(shared(), &kernel, &series, &RunOptions::new().memory_limit_bytes(300_000))? != whole {
        return Err("a memory limit changes the result".into());
    }
    match shared().run_words(&kernel, &series, &RunOptions::new().memory_limit_bytes(10_000)) {
        Err(Error::OutOfMemory { limit_bytes: 10_000, needed_bytes, .. }) if needed_bytes > 10_000 => {}
        other => return Err(format!("{other:?}").into()),
    }
    // A device that turns out to be full is asked for less until it has room.
    let full = |most| {
        let tuning = Tuning { full_above_voxels: Some(most), sentinel: Some(SENTINEL), ..Tuning::default() };
        Gpu::open(&choice()).expect("a device").with_tuning(tuning)
    };
    if run(&full(5000), &kernel, &series, &RunOptions::new())? != whole {
        return Err("halved slabs change the result".into());
    }
    match full(0).run_words(&kernel, &series, &RunOptions::new()) {
        Err(Error::OutOfMemory { needed_bytes: 1.., .. }) => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

fn broken_kernels_are_errors() -> Outcome {
    let series = random_i16(100, 4);
    let no_wgsl: &[&str] = &["this is no WGSL"];
    for (sources, entry_points, hint) in
        [(no_wgsl, &["main"][..], "kernel sums"), (&[include_str!("gpu_kernel.wgsl")], &["nowhere"][..], "nowhere")]
    {
        let kernel = Sums { sources, entry_points, ..Sums::new(&series) };
        match shared().run_words(&kernel, &series, &RunOptions::new()) {
            Err(Error::Device { problem, .. }) if problem.contains(hint) => {}
            other => return Err(format!("{other:?}").into()),
        }
    }
    let kernel = Sums::new(&series);
    compare(&kernel, &series, &run(shared(), &kernel, &series, &RunOptions::new())?)
}

/// The caller's own device, with the limits that wgpu gives by default.
fn own_device(errors: &Arc<AtomicUsize>) -> (wgpu::Device, wgpu::Queue) {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()));
    let (device, queue) =
        pollster::block_on(adapter.expect("an adapter").request_device(&wgpu::DeviceDescriptor::default()))
            .expect("a device");
    let errors = Arc::clone(errors);
    device.on_uncaptured_error(Arc::new(move |_| {
        errors.fetch_add(1, Ordering::Relaxed);
    }));
    (device, queue)
}

fn a_device_of_the_callers() -> Outcome {
    let errors = Arc::new(AtomicUsize::new(0));
    let (device, queue) = own_device(&errors);
    let gpu = Gpu::from_wgpu(device.clone(), queue).map_err(|error| error.to_string())?;
    let series = random_i16(345, 5);
    let kernel = Sums::new(&series);
    let outer = device.push_error_scope(wgpu::ErrorFilter::Validation);
    compare(&kernel, &series, &run(&gpu, &kernel, &series, &RunOptions::new())?)?;
    let broken = Sums { sources: &["nonsense"], ..kernel };
    if gpu.run_words(&broken, &series, &RunOptions::new()).is_ok() {
        return Err("nonsense runs".into());
    }
    if let Some(error) = pollster::block_on(outer.pop()) {
        return Err(format!("the caller's scope heard of {error}").into());
    }
    if errors.load(Ordering::Relaxed) != 0 {
        return Err("the caller's handler heard of an error that isn't theirs".into());
    }
    // An error of their own still reaches the handler that they set.
    let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::STORAGE;
    let _ = device.create_buffer(&wgpu::BufferDescriptor { label: None, size: 16, usage, mapped_at_creation: false });
    match errors.load(Ordering::Relaxed) {
        1 => Ok(()),
        count => Err(format!("{count} errors reached the caller's handler").into()),
    }
}

fn a_lost_device_is_an_error() -> Outcome {
    let errors = Arc::new(AtomicUsize::new(0));
    let (device, queue) = own_device(&errors);
    let gpu = Gpu::from_wgpu(device.clone(), queue).map_err(|error| error.to_string())?;
    let series = random_i16(345, 5);
    let kernel = Sums::new(&series);
    run(&gpu, &kernel, &series, &RunOptions::new())?;
    device.destroy();
    match gpu.run_words(&kernel, &series, &RunOptions::new()) {
        Err(Error::Device { .. }) => {}
        other => return Err(format!("{:?}", other.map(|_| "a result")).into()),
    }
    gpu.release_memory();
    match gpu.run_words(&kernel, &series, &RunOptions::new()) {
        Err(Error::Device { .. }) => Ok(()),
        other => Err(format!("{:?}", other.map(|_| "a result")).into()),
    }
}

fn choosing() -> Outcome {
    let found = devices();
    if let Some(real) = found.iter().find(|info| info.kind != DeviceKind::Software) {
        let gpu = Gpu::open(&DeviceChoice::Real).map_err(|error| error.to_string())?;
        if gpu.info().kind == DeviceKind::Software {
            return Err(format!("software instead of {real}").into());
        }
    } else {
        match Gpu::open(&DeviceChoice::Real) {
            Err(Error::NoDevice { found: listed, .. }) if listed.contains(&found[0].name) => {}
            other => return Err(format!("{other:?}").into()),
        }
    }
    let part = found[0].name[..4].to_uppercase();
    Gpu::open(&DeviceChoice::Named(part)).map_err(|error| error.to_string())?;
    match Gpu::open(&DeviceChoice::Named("no such device".into())) {
        Err(Error::NoDevice { wanted, .. }) if wanted == "no such device" => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

fn probes() -> Outcome {
    let gpu = shared();
    for turns in [0, 1, 60_000] {
        let kept = gpu.loop_turns_kept(turns).map_err(|error| error.to_string())?;
        if kept != turns {
            return Err(format!("{kept} of {turns} turns").into());
        }
    }
    let kept = gpu.loop_turns_kept(200_000).map_err(|error| error.to_string())?;
    // Software Vulkan of Mesa up to 24 truncates loops; every other device must not.
    let known = gpu.info().driver_info.starts_with("Mesa 22.");
    println!("{}: {kept} of 200000 loop turns", gpu.info());
    if kept != 200_000 && !known {
        return Err(format!("{} takes {kept} of 200000 loop turns", gpu.info()).into());
    }
    // A kernel that says that it loops longer is refused there.
    let series = random_i16(100, 20);
    let longer = Sums { loop_turns: 200_000, ..Sums::new(&series) };
    match gpu.run_words(&longer, &series, &RunOptions::new()) {
        Ok(_) if kept == 200_000 => {}
        Err(error @ Error::Setting { .. }) if kept < 200_000 && error.to_string().contains("200000") => {}
        other => return Err(format!("{:?}", other.map(|_| "runs")).into()),
    }
    let rate = gpu.copy_bandwidth(64 << 20).map_err(|error| error.to_string())?;
    println!("{:.2} GB/s copied", rate * 1e-9);
    if rate > 1e6 && rate < 1e14 { Ok(()) } else { Err(format!("{rate} bytes/s").into()) }
}

fn stages_are_told() -> Outcome {
    let series = random_i16(300_000, 20);
    let kernel = Sums::new(&series);
    let (_, stages) = shared().run_words(&kernel, &series, &RunOptions::new()).map_err(|error| error.to_string())?;
    for stage in &stages {
        println!("{}: {:.2} ms, {} bytes", stage.stage, stage.seconds * 1e3, stage.bytes);
    }
    for name in ["gpu: pack", "gpu: upload", "gpu: kernel", "gpu: download"] {
        if !stages.iter().any(|s| s.stage == name && s.seconds > 0.0 && s.seconds < 60.0 && s.bytes > 0) {
            return Err(format!("no {name} in {stages:?}").into());
        }
    }
    Ok(())
}

fn main() {
    let tests: &[Test] = &[
        ("types_and_sizes", types_and_sizes),
        ("two_voxels_per_thread", two_voxels_per_thread),
        ("slabs_do_not_matter", slabs_do_not_matter),
        ("dispatches_fold", dispatches_fold),
        ("chunks_of_large_rows", chunks_of_large_rows),
        ("scaling_and_constants", scaling_and_constants),
        ("samples_that_are_not_finite", samples_that_are_not_finite),
        ("layers_and_state", layers_and_state),
        ("masks", masks),
        ("progress_and_cancelling", progress_and_cancelling),
        ("runs_repeat_bit_for_bit", runs_repeat_bit_for_bit),
        ("threads_share_a_device", threads_share_a_device),
        ("memory_limits", memory_limits),
        ("broken_kernels_are_errors", broken_kernels_are_errors),
        ("a_device_of_the_callers", a_device_of_the_callers),
        ("a_lost_device_is_an_error", a_lost_device_is_an_error),
        ("choosing", choosing),
        ("probes", probes),
        ("stages_are_told", stages_are_told),
    ];
    let required = std::env::var("PERFUSE_REQUIRE_GPU").is_ok_and(|value| value == "1");
    let missing = devices().is_empty();
    let trials = tests
        .iter()
        .map(|(name, test)| {
            let test = *test;
            let body =
                move || if missing { Err("there is no device, and PERFUSE_REQUIRE_GPU=1".into()) } else { test() };
            Trial::test(*name, body).with_ignored_flag(missing && !required)
        })
        .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}
