//! Engines: what runs a kernel over a series.

#[cfg(feature = "gpu")]
mod choice;
mod cpu;
mod foretold;
#[cfg(feature = "gpu")]
pub mod gpu;
mod options;
mod raw_rows;
mod reference;
mod results;
mod verify;

use std::time::Instant;

use rayon::prelude::*;

pub use options::{Cancel, NonFinite, Progress, RunOptions};
pub use verify::{MapVerification, Verification};

use crate::error::{Error, Result};
use crate::kernel::{Input, Runnable, VoxelKernel};
use crate::maps::{Maps, StageTime};
use crate::reduction::{self, Reductions};
use crate::series::{Mask, Series};
use crate::status;
pub(crate) use raw_rows::wanted;
use raw_rows::{RawRows, row_kinds};
pub(crate) use results::count_bits;
use results::into_rows;

/// Voxels that [`Engine::verify`] compares at most, evenly spread, unless told.
const VERIFIED_VOXELS: usize = 100_000;

/// Runs kernels: on the CPU, on a GPU, or as the f64 reference.
///
/// ```
/// let engine = perfuse::Engine::cpu();
/// println!("{}: {}", engine.device(), engine.reason());
/// ```
#[derive(Debug)]
pub struct Engine {
    backend: Backend,
    device: String,
    reason: String,
    pool: Option<rayon::ThreadPool>,
    /// Whether each run may go to the CPU all the same.
    #[cfg(feature = "gpu")]
    choosing: Option<Choosing>,
}

/// What `auto` learns of its GPU from run to run.
#[cfg(feature = "gpu")]
#[derive(Debug)]
struct Choosing {
    link: choice::Link,
    /// Bytes per second, samples and results, by the kernel's name and number of rows.
    measured: std::sync::Mutex<std::collections::HashMap<(&'static str, usize), f64>>,
}

#[derive(Debug)]
enum Backend {
    Cpu,
    Reference,
    #[cfg(feature = "gpu")]
    Gpu(Box<gpu::Gpu>),
}

impl Engine {
    /// The fastest engine for each run: without a real GPU the CPU engine, never software Vulkan. Where there is a GPU, a
    /// stretch of the work is timed on the CPU before each run; the run goes to the GPU if that will be done earlier, by
    /// what the device's kind allows or, from the second run of a kernel on, by what was measured on the device. The run's
    /// record says where it ran and why; [`reason`](Self::reason) says why this device.
    ///
    /// Opening a GPU takes some tenths of a second: do it on a thread of its own while the series is read.
    pub fn auto() -> Self {
        #[cfg(feature = "gpu")]
        let why_not = match gpu::Gpu::open(&gpu::DeviceChoice::Real) {
            Ok(gpu) => return Self::choosing(gpu),
            Err(Error::NoDevice { .. }) => "auto: no real GPU is there".to_string(),
            Err(error) => format!("auto: the GPU can't be used ({error})"),
        };
        #[cfg(not(feature = "gpu"))]
        let why_not = "auto: built without GPU support".to_string();
        Self { reason: why_not, ..Self::cpu() }
    }

    /// The engine that a text names: `auto`, `cpu`, `gpu` (the best device, software only if there is nothing else), or a
    /// part of an adapter's name or driver, software included.
    ///
    /// # Errors
    /// [`Error::NoDevice`] with the devices that are there if none answers.
    pub fn named(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::auto()),
            "cpu" => Ok(Self::cpu()),
            "reference" => Ok(Self::reference()),
            "gpu" => Self::gpu(None),
            name => Self::gpu(Some(name)),
        }
    }

    /// A GPU: the best device, software only if there is nothing else; or the best whose name or driver contains a text,
    /// software included.
    ///
    /// # Errors
    /// [`Error::NoDevice`] with the devices that are there if none answers, or if the crate was built without GPU support.
    #[cfg(feature = "gpu")]
    pub fn gpu(name: Option<&str>) -> Result<Self> {
        let choice = name.map_or(gpu::DeviceChoice::Any, |name| gpu::DeviceChoice::Named(name.into()));
        Ok(Self::on(gpu::Gpu::open(&choice)?, "asked for"))
    }

    /// Without GPU support there is none.
    ///
    /// # Errors
    /// [`Error::NoDevice`].
    #[cfg(not(feature = "gpu"))]
    pub fn gpu(name: Option<&str>) -> Result<Self> {
        Err(Error::NoDevice {
            wanted: name.unwrap_or("gpu").into(),
            found: "none".into(),
            mend: "build with the feature gpu, or use the CPU engine".into(),
        })
    }

    /// A device that the caller opened, left as it is: its handlers too.
    ///
    /// wgpu makes a new major release every few months; this method follows it, outside of this crate's own
    /// compatibility promise.
    ///
    /// # Errors
    /// [`Error::Device`] if the device lacks what kernels need.
    #[cfg(feature = "gpu")]
    pub fn from_wgpu(device: wgpu::Device, queue: wgpu::Queue) -> Result<Self> {
        Ok(Self::on(gpu::Gpu::from_wgpu(device, queue)?, "the caller's device"))
    }

    #[cfg(feature = "gpu")]
    fn on(gpu: gpu::Gpu, reason: &str) -> Self {
        let device = gpu.info().to_string();
        Self { backend: Backend::Gpu(Box::new(gpu)), device, reason: reason.into(), pool: None, choosing: None }
    }

    #[cfg(feature = "gpu")]
    fn choosing(gpu: gpu::Gpu) -> Self {
        use gpu::DeviceKind;
        let link = match gpu.info().kind {
            DeviceKind::Integrated => choice::Link::Shared,
            DeviceKind::Software => choice::Link::Software,
            DeviceKind::Discrete | DeviceKind::Virtual | DeviceKind::Other => choice::Link::Bus,
        };
        let choosing = Some(Choosing { link, measured: std::sync::Mutex::default() });
        Self { choosing, ..Self::on(gpu, "auto: a GPU is there; each run says why it ran there or not") }
    }

    /// For this crate's tests: decides as [`auto`](Self::auto) does, with any device taken for a real one.
    #[cfg(feature = "gpu")]
    #[doc(hidden)]
    pub fn auto_with(gpu: gpu::Gpu) -> Self {
        let mut engine = Self::choosing(gpu);
        if let Some(choosing) = &mut engine.choosing {
            choosing.link = choice::Link::Shared;
        }
        engine
    }

    /// The device behind the engine, for measuring it; `None` unless it is a GPU.
    #[cfg(feature = "gpu")]
    pub fn as_gpu(&self) -> Option<&gpu::Gpu> {
        match &self.backend {
            Backend::Gpu(gpu) => Some(gpu),
            _ => None,
        }
    }

    /// The CPU engine: 32-bit lanes, the widest vector instructions that this processor has, all cores.
    pub fn cpu() -> Self {
        Self {
            backend: Backend::Cpu,
            device: cpu::device_name(),
            reason: "asked for".into(),
            pool: None,
            #[cfg(feature = "gpu")]
            choosing: None,
        }
    }

    /// The definition itself: f64, one voxel at a time, all cores. Slow; for checking.
    pub fn reference() -> Self {
        Self {
            backend: Backend::Reference,
            device: format!("CPU in f64, {} threads", rayon::current_num_threads()),
            reason: "asked for".into(),
            pool: None,
            #[cfg(feature = "gpu")]
            choosing: None,
        }
    }

    /// Uses this many threads for what runs on the CPU.
    ///
    /// # Errors
    /// [`Error::Setting`] if the threads can't be started.
    pub fn with_threads(mut self, threads: usize) -> Result<Self> {
        if threads == 0 {
            return Err(Error::setting("threads", threads, "use 1 or more"));
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|error| Error::setting("threads", threads, error.to_string()))?;
        if let Backend::Cpu = self.backend {
            self.device = format!("CPU, {threads} threads, {}", cpu::level_name());
        }
        self.pool = Some(pool);
        Ok(self)
    }

    /// What runs the kernels: `cpu`, `gpu` or `reference`.
    pub fn name(&self) -> &'static str {
        match self.backend {
            Backend::Cpu => "cpu",
            Backend::Reference => "reference",
            #[cfg(feature = "gpu")]
            Backend::Gpu(_) => "gpu",
        }
    }

    /// The device, as it calls itself.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Why this engine was chosen.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Runs a kernel over every voxel of a series.
    ///
    /// # Errors
    /// Those of [`run_with`](Self::run_with).
    pub fn run<K: VoxelKernel>(&self, kernel: &K, series: &Series) -> Result<Maps> {
        self.run_with(kernel, series, &RunOptions::new())
    }

    /// Runs a kernel over a series.
    ///
    /// # Errors
    /// [`Error::Setting`] if the kernel's settings don't fit the series, [`Error::Mismatch`] if the mask doesn't,
    /// [`Error::Device`] and [`Error::OutOfMemory`] from the device, [`Error::Cancelled`].
    pub fn run_with<K: VoxelKernel>(&self, kernel: &K, series: &Series, options: &RunOptions<'_>) -> Result<Maps> {
        self.in_pool(|| self.run_into(kernel, series, options, Vec::new()))
    }

    /// Runs a kernel over a series into the memory of earlier maps of the same shape, which saves the time that a system
    /// takes to hand out fresh memory.
    ///
    /// # Errors
    /// Those of [`run_with`](Self::run_with).
    pub fn run_reusing<K: VoxelKernel>(
        &self,
        kernel: &K,
        series: &Series,
        options: &RunOptions<'_>,
        maps: Maps,
    ) -> Result<Maps> {
        self.in_pool(|| self.run_into(kernel, series, options, into_rows(maps)))
    }

    /// Runs a kernel and compares its maps with the f64 definition, map by map, in up to 100,000 voxels evenly spread
    /// inside the mask. Voxels with samples that are not finite are compared as refused, whatever the options say: skipping
    /// such samples is the definition's own work on every engine. The tolerances are derived voxel by voxel from what WGSL
    /// allows a device to lose in each operation.
    ///
    /// # Errors
    /// Those of [`run_with`](Self::run_with). That maps don't agree is no error: see [`Verification::passed`].
    pub fn verify<K: VoxelKernel>(
        &self,
        kernel: &K,
        series: &Series,
        options: &RunOptions<'_>,
    ) -> Result<Verification> {
        self.verify_voxels(kernel, series, options, VERIFIED_VOXELS)
    }

    /// [`verify`](Self::verify) with at most this many voxels.
    ///
    /// # Errors
    /// Those of [`run_with`](Self::run_with).
    pub fn verify_voxels<K: VoxelKernel>(
        &self,
        kernel: &K,
        series: &Series,
        options: &RunOptions<'_>,
        at_most: usize,
    ) -> Result<Verification> {
        self.in_pool(|| {
            let (prepared, _) = prepare(kernel, series, options)?;
            let raw = self.run_raw(prepared.as_ref(), series, options, Vec::new())?;
            let inside = options.mask.map_or(series.voxel_count(), Mask::voxel_count);
            let step = inside.div_ceil(at_most.max(1)).max(1);
            verify::compare(prepared.as_ref(), series, options.mask, &raw, self.device.clone(), step)
        })
    }

    /// The definition's values in f64 for one voxel: identifier and value of every map, then the status word. NaN where
    /// there is none; labels and bits as numbers; a curve's samples one after the other.
    ///
    /// # Errors
    /// [`Error::Setting`] if the settings don't fit the series or the voxel lies outside it.
    pub fn reference_values<K: VoxelKernel>(
        kernel: &K,
        series: &Series,
        voxel: [usize; 3],
        options: &RunOptions<'_>,
    ) -> Result<Vec<(String, f64)>> {
        series.curve(voxel)?;
        let (prepared, _) = prepare(kernel, series, options)?;
        let [nx, ny, _] = series.spatial_shape();
        let index = voxel[0] + nx * (voxel[1] + ny * voxel[2]);
        let values = series.with_voxel(index, |window| {
            reference::evaluate(prepared.as_ref(), window, series.frames(), index, options.non_finite)
        })?;
        let names = prepared
            .outputs()
            .iter()
            .flat_map(|output| std::iter::repeat_n(output.quantity.id.to_string(), output.kind.rows()))
            .chain(["status".to_string()]);
        Ok(names.zip(values).collect())
    }

    pub(crate) fn in_pool<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match &self.pool {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }

    fn run_into<K: VoxelKernel>(
        &self,
        kernel: &K,
        series: &Series,
        options: &RunOptions<'_>,
        memory: Vec<Vec<u32>>,
    ) -> Result<Maps> {
        let on_the_way = options.mask.is_none() && reduction::foretold::pays(series);
        let (prepared, mut stages, mut raw) = if on_the_way && matches!(self.backend, Backend::Cpu) {
            foretold::run(kernel, series, options, memory)?
        } else {
            let (prepared, stages) = prepare(kernel, series, options)?;
            options.cancel.check()?;
            let raw = self.run_raw(prepared.as_ref(), series, options, memory)?;
            (prepared, stages, raw)
        };
        if options.non_finite == NonFinite::Skip && !matches!(self.backend, Backend::Reference) {
            skip_non_finite(prepared.as_ref(), series, &mut raw)?;
        }
        stages.append(&mut raw.stages);
        Ok(self.assemble(kernel.name(), kernel.kind(), prepared.as_ref(), series, options, raw, stages))
    }

    fn run_raw(
        &self,
        prepared: &dyn Runnable,
        series: &Series,
        options: &RunOptions<'_>,
        memory: Vec<Vec<u32>>,
    ) -> Result<RawRows> {
        match &self.backend {
            Backend::Cpu => cpu::run(prepared, series, options, memory, None),
            Backend::Reference => reference::run(prepared, series, options),
            #[cfg(feature = "gpu")]
            Backend::Gpu(gpu) => match &self.choosing {
                Some(choosing) => self.run_chosen(gpu, choosing, prepared, series, options, memory),
                None => gpu.run(prepared, series, options, memory),
            },
        }
    }

    /// Runs where the run will be done earlier.
    #[cfg(feature = "gpu")]
    fn run_chosen(
        &self,
        gpu: &gpu::Gpu,
        choosing: &Choosing,
        prepared: &dyn Runnable,
        series: &Series,
        options: &RunOptions<'_>,
        memory: Vec<Vec<u32>>,
    ) -> Result<RawRows> {
        let lock = || choosing.measured.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let key = (prepared.program().name, prepared.rows());
        let inside = options.mask.map_or(series.voxel_count(), Mask::voxel_count);
        let samples = (inside * series.frames()) as u64 * series.sample_type().bytes() as u64;
        let bytes = samples + (inside * (prepared.rows() + 1) * 4) as u64;
        let choice = choice::choose(&choice::Estimate {
            cpu_seconds: cpu::estimate(prepared, series, options)?,
            bytes,
            link: choosing.link,
            measured_bytes_per_s: lock().get(&key).copied(),
        });
        let reason = choice.to_string();
        if !choice.gpu {
            let mut raw = cpu::run(prepared, series, options, memory, None)?;
            raw.ran = Some(raw_rows::Ran { engine: "cpu", device: cpu::device_name(), reason });
            return Ok(raw);
        }
        let start = Instant::now();
        let mut raw = gpu.run(prepared, series, options, memory)?;
        // What compiling the pipeline took is no property of the bus.
        let set_up: f64 =
            raw.stages.iter().filter(|stage| stage.stage == "gpu: set up").map(|stage| stage.seconds).sum();
        let seconds = start.elapsed().as_secs_f64() - set_up;
        lock().insert(key, bytes as f64 / seconds.max(1e-6));
        raw.ran = Some(raw_rows::Ran { engine: "gpu", device: self.device.clone(), reason });
        Ok(raw)
    }
}

/// A kernel with its tables for a series, and how long that took.
fn prepare<K: VoxelKernel>(
    kernel: &K,
    series: &Series,
    options: &RunOptions<'_>,
) -> Result<(Box<dyn Runnable>, Vec<StageTime>)> {
    if let Some(mask) = options.mask {
        mask.check_matches(series)?;
    }
    prepare_with(kernel, series, options, &Reductions::new(series, options.mask))
}

/// The same with reductions of one's own.
fn prepare_with<K: VoxelKernel>(
    kernel: &K,
    series: &Series,
    options: &RunOptions<'_>,
    reductions: &Reductions<'_>,
) -> Result<(Box<dyn Runnable>, Vec<StageTime>)> {
    let start = Instant::now();
    let prepared = kernel.prepare(&Input { series, mask: options.mask, reductions });
    // Whatever a kernel made of reductions that failed, the file is what has to be mended.
    reductions.check()?;
    let prepared = prepared?;
    let mut stages = reductions.take_stages();
    let reduced: f64 = stages.iter().map(|stage| stage.seconds).sum();
    let seconds = (start.elapsed().as_secs_f64() - reduced).max(0.0);
    stages.push(StageTime { stage: "prepare".into(), seconds, bytes: 0 });
    Ok((prepared, stages))
}

/// Evaluates voxels with samples that are not finite from their other frames, in f64, whatever the engine.
fn skip_non_finite(prepared: &dyn Runnable, series: &Series, raw: &mut RawRows) -> Result<()> {
    let Some(status_row) = raw.rows.last() else { return Ok(()) };
    let voxels: Vec<usize> =
        (0..status_row.len()).filter(|i| status_row[*i] & status::NON_FINITE_SAMPLE != 0).collect();
    if voxels.is_empty() {
        return Ok(());
    }
    let kinds = row_kinds(prepared.outputs());
    series.for_each_window_of(&voxels, |window, here| {
        let repaired: Vec<(usize, Vec<f64>)> = here
            .par_iter()
            .filter_map(|voxel| {
                let values = reference::evaluate_finite_frames(prepared, window, series.frames(), *voxel)?;
                Some((*voxel, values))
            })
            .collect();
        for (voxel, values) in repaired {
            for ((row, value), kind) in raw.rows.iter_mut().zip(values).zip(&kinds) {
                row[voxel] = reference::word(value, *kind);
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use ndarray::Array3;

    use super::*;
    use crate::kernels::descriptors::Descriptors;
    use crate::time::TimeAxis;

    #[test]
    fn a_mask_of_another_shape_is_refused_by_every_way_to_run() {
        let times = TimeAxis::uniform(1.0, 4).expect("even times");
        let series = Series::from_voxels(vec![0i16; 24], [3, 2, 1, 4], times).expect("fits");
        let mask = Mask::from_labels(Array3::ones((2, 1, 1)).view());
        let options = RunOptions::new().mask(&mask);
        let (kernel, engine) = (Descriptors::new(), Engine::cpu());
        let refusals = [
            engine.run_with(&kernel, &series, &options).err(),
            engine.verify(&kernel, &series, &options).err(),
            Engine::reference_values(&kernel, &series, [0, 0, 0], &options).err(),
        ];
        assert!(refusals.iter().all(|error| matches!(error, Some(Error::Mismatch { .. }))), "{refusals:?}");
    }
}
