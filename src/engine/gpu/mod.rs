//! The GPU engine: runs a kernel's WGSL on any Vulkan, Metal or DirectX 12 device.
//!
//! Voxels go in slabs, all frames of a slab at once, as many as the device's limits allow; results don't depend on how
//! they were cut. Samples travel as stored: the shader widens and scales them.

mod context;
mod pipeline;
mod probe;
mod slabs;
mod transfer;

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use rayon::prelude::*;

pub use context::{DeviceBackend, DeviceChoice, DeviceInfo, DeviceKind, DeviceLimits, devices};

use super::RunOptions;
use super::raw_rows::{NAN_BITS, RawRows, fit_rows, outside_words, overwrite_outside, read_stage, wanted};
use crate::error::{Error, Result};
use crate::kernel::{Output, Program, Runnable};
use crate::maps::StageTime;
use crate::series::{Mask, Series};
use crate::stored::Window;
use context::{Context, Fault};
use pipeline::Pipelines;
#[cfg(test)]
pub(crate) use pipeline::text;
use slabs::{Allowed, Needs, Piece, SLOTS, Sizes, Slab, pieces, plan, within, workgroups};
use transfer::{RowKind, Rows, Target, Upload, Workspace, sample_type};

/// Workspaces that are kept for later runs: as many as run at the same time, within reason.
const KEPT_WORKSPACES: usize = 2;

/// A GPU that runs kernels. It can be shared by threads.
#[derive(Debug)]
pub struct Gpu {
    context: Context,
    pipelines: Pipelines,
    workspaces: Mutex<Vec<Workspace>>,
    tuning: Tuning,
}

/// What tests change about how runs are cut; results must not depend on it.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Tuning {
    /// Voxels per slab at most.
    pub slab_voxels: Option<usize>,
    /// What outputs and status hold before the kernel runs.
    pub sentinel: Option<u32>,
    /// Buffers of slabs with more voxels than this fail as if the device were full.
    pub full_above_voxels: Option<usize>,
}

impl Gpu {
    /// Opens a device.
    ///
    /// # Errors
    /// [`Error::NoDevice`] if none answers to the choice, or none of those that do can be opened.
    pub fn open(choice: &DeviceChoice) -> Result<Self> {
        Self::new(Context::open(choice)?)
    }

    /// Uses a device that the caller opened, and leaves its handlers as they are. The device should be opened with the
    /// adapter's own limits: the default ones cap slabs at 128 MiB.
    ///
    /// wgpu makes a new major release every few months; this method follows it, outside of this crate's own
    /// compatibility promise.
    ///
    /// # Errors
    /// [`Error::Device`] if the device lacks what kernels need.
    pub fn from_wgpu(device: wgpu::Device, queue: wgpu::Queue) -> Result<Self> {
        Self::new(Context::from_wgpu(device, queue)?)
    }

    fn new(context: Context) -> Result<Self> {
        let pipelines = Pipelines::new(&context).map_err(|fault| context.error(fault))?;
        Ok(Self { context, pipelines, workspaces: Mutex::default(), tuning: Tuning::default() })
    }

    /// The device as it describes itself.
    pub fn info(&self) -> &DeviceInfo {
        &self.context.info
    }

    /// Gives back the memory that is kept on the device for later runs.
    pub fn release_memory(&self) {
        self.kept().clear();
    }

    #[doc(hidden)]
    #[must_use]
    pub fn with_tuning(mut self, tuning: Tuning) -> Self {
        self.tuning = tuning;
        self
    }

    /// For this crate's tests: rows of words as a run brings them back.
    #[doc(hidden)]
    pub fn run_words(
        &self,
        prepared: &dyn Runnable,
        series: &Series,
        options: &RunOptions<'_>,
    ) -> Result<(Vec<Vec<u32>>, Vec<StageTime>)> {
        let raw = self.run(prepared, series, options, Vec::new())?;
        Ok((raw.rows, raw.stages))
    }

    /// Runs a kernel over a series, into rows of memory that may be reused.
    pub(crate) fn run(
        &self,
        prepared: &dyn Runnable,
        series: &Series,
        options: &RunOptions<'_>,
        mut memory: Vec<Vec<u32>>,
    ) -> Result<RawRows> {
        for (layer, values) in prepared.extra().iter().enumerate() {
            if values.len() != series.voxel_count() {
                return Err(Error::mismatch(
                    format!("layer {layer} of the kernel's maps"),
                    series.name(),
                    format!("it has {} values for {} voxels", values.len(), series.voxel_count()),
                ));
            }
        }
        if let Some(mask) = options.mask
            && mask.flat().len() != series.voxel_count()
        {
            mask.check_matches(series)?;
        }
        let program = prepared.program();
        self.check(&program)?;
        // What memory held before doesn't matter: every voxel is written, by the kernel or as outside the mask.
        fit_rows(&mut memory, prepared.rows() + 1, series.voxel_count());
        let inside = options.mask.map(Mask::flat);
        let all = voxels_of(&pieces(series.voxel_count(), inside));
        options.tell(0, all);
        let (mut done, mut times) = (0, Times::default());
        let waited = series.for_each_window(0..series.frames(), wanted(options.mask), |window| {
            let mut pieces = pieces(window.range.len(), inside.map(|inside| &inside[window.range.clone()]));
            pieces.iter_mut().for_each(|piece| piece.source += window.range.start);
            let job = Job {
                program: &program,
                rows: prepared.rows(),
                layers: prepared.extra(),
                window,
                frames: series.frames(),
                options,
                pieces,
                done,
                all,
            };
            done += job.voxels();
            self.run_window(&job, &mut memory, &mut times)
        })?;
        let mut stages = read_stage(series, waited);
        stages.extend(times.stages((done * (prepared.rows() + 1) * 4) as u64));
        let mut raw = RawRows { rows: memory, stages, ran: None };
        if let Some(mask) = options.mask {
            blank_outside(&mut raw, prepared.outputs(), mask);
        }
        Ok(raw)
    }

    /// Runs a kernel over what is in memory, in smaller slabs if the device is full.
    fn run_window(&self, job: &Job<'_>, rows: &mut [Vec<u32>], times: &mut Times) -> Result<()> {
        let mut slab = self.plan(job, self.tuning.slab_voxels)?;
        loop {
            match self.run_in_slabs(job, slab, rows, times) {
                Ok(()) => return Ok(()),
                Err(Fault::OutOfMemory) => {
                    // Memory kept from other runs may be all that is missing.
                    self.release_memory();
                    let smaller = self.plan(job, Some(slab / 2))?;
                    if smaller >= slab {
                        return Err(self.too_little_memory(job, slab));
                    }
                    log::warn!("{}: no memory for slabs of {slab} voxels, trying {smaller}", self.context.info.name);
                    slab = smaller;
                }
                Err(fault) => return Err(self.context.error(fault)),
            }
        }
    }

    fn too_little_memory(&self, job: &Job<'_>, slab: usize) -> Error {
        Error::OutOfMemory {
            place: self.context.info.name.clone(),
            needed_bytes: Sizes::of(slab, &job.needs()).total(&job.needs()),
            limit_bytes: job.options.memory_limit_bytes.unwrap_or(0),
            mend: "the device refused the smallest slab: close other programs that use it, ask for fewer maps, or use \
                   the CPU engine"
                .into(),
        }
    }

    /// Checks what the device can't be asked without making it fail.
    fn check(&self, program: &Program) -> Result<()> {
        let limits = self.context.device.limits();
        let size = program.workgroup_size;
        let problem = if size == 0
            || size > limits.max_compute_invocations_per_workgroup
            || size > limits.max_compute_workgroup_size_x
        {
            format!("workgroups of {size} threads, {} are possible", limits.max_compute_invocations_per_workgroup)
        } else if !matches!(program.voxels_per_thread, 1 | 2) {
            format!("{} voxels per thread, 1 or 2 are possible", program.voxels_per_thread)
        } else if !program.settings.len().is_multiple_of(16) {
            format!("{} bytes of settings, no multiple of 16", program.settings.len())
        } else if (size_of::<Slab>() + program.settings.len()) as u64 > limits.max_uniform_buffer_binding_size {
            format!("{} bytes of settings are too many", program.settings.len())
        } else if size_of_val(&*program.tables) as u64 > self.context.info.limits.storage_binding_bytes {
            format!("{} bytes of tables are too many", size_of_val(&*program.tables))
        } else {
            return self.check_loops(program);
        };
        Err(self.context.error(Fault::Device(format!("kernel {}: {problem}", program.name))))
    }

    fn plan(&self, job: &Job<'_>, cap: Option<usize>) -> Result<usize> {
        let limits = &self.context.info.limits;
        let allowed = Allowed {
            binding_bytes: limits.storage_binding_bytes,
            buffer_bytes: limits.buffer_bytes,
            workgroups_per_dimension: limits.workgroups_per_dimension,
            total_bytes: job.options.memory_limit_bytes,
            voxels: cap,
        };
        plan(&self.context.info.name, job.voxels(), &job.needs(), &allowed)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Vec<Workspace>> {
        // A poisoned lock only means that a thread panicked beside it: the list is whole.
        self.workspaces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn workspace(&self, job: &Job<'_>, slab: usize) -> Result<Workspace, Fault> {
        let sizes = Sizes::of(slab, &job.needs());
        let (tables, uniforms) = (job.table_bytes(), job.uniform_bytes());
        {
            let mut kept = self.kept();
            if let Some(index) = kept.iter().position(|space| space.serves(&sizes, tables, uniforms)) {
                return Ok(kept.swap_remove(index));
            }
            // Another kind of run begins: what doesn't serve it only takes memory from it.
            kept.clear();
        }
        if self.tuning.full_above_voxels.is_some_and(|most| slab > most) {
            return Err(Fault::OutOfMemory);
        }
        Workspace::new(&self.context, sizes, tables, uniforms)
    }

    fn run_in_slabs(&self, job: &Job<'_>, slab: usize, rows: &mut [Vec<u32>], times: &mut Times) -> Result<(), Fault> {
        let start = Instant::now();
        let (code, _) = sample_type(job.window.voxels);
        let pipelines = self.pipelines.of(&self.context, job.program, code)?;
        let mut space = self.workspace(job, slab)?;
        let buffers =
            [&space.uniforms, &space.samples, &space.tables, &space.extra, &space.outputs, &space.status, &space.state];
        let bindings = self.pipelines.bind(&self.context, buffers)?;
        if !job.program.tables.is_empty() {
            let tables = bytemuck::cast_slice(&job.program.tables);
            self.context.scoped(|| self.context.queue.write_buffer(&space.tables, 0, tables))?;
        }
        times.set_up += start.elapsed().as_secs_f64();
        let mut run = Run { gpu: self, job, pipelines, bindings, rows, times };
        let count = job.voxels();
        let mut pace = Pace::new(slab, self.tuning.slab_voxels.is_some());
        let mut before: Option<Flight> = None;
        let (mut start, mut slot) = (0, 0);
        while start < count {
            let range = start..count.min(start + pace.voxels);
            start = range.end;
            let flight = run.send(&mut space, range, slot)?;
            slot = (slot + 1) % SLOTS;
            run.times.uploaded += flight.upload.bytes;
            if let Some(before) = before.replace(flight) {
                pace.learn(before.range.len(), run.receive(&mut space, &before)?);
                job.tell(before.range.end);
            }
        }
        if let Some(last) = before {
            run.receive(&mut space, &last)?;
            job.tell(last.range.end);
        }
        // Only a workspace whose run ended well: whatever went wrong may have left one of its buffers mapped.
        let mut kept = self.kept();
        if kept.len() < KEPT_WORKSPACES {
            kept.push(space);
        }
        Ok(())
    }
}

/// Everything about a run but how it is cut.
struct Job<'a> {
    program: &'a Program,
    rows: usize,
    layers: &'a [Vec<f32>],
    window: &'a Window<'a>,
    frames: usize,
    options: &'a RunOptions<'a>,
    pieces: Vec<Piece>,
    /// Voxels of earlier windows, and of all.
    done: usize,
    all: usize,
}

impl Job<'_> {
    /// Voxels to process.
    fn voxels(&self) -> usize {
        voxels_of(&self.pieces)
    }

    fn tell(&self, done: usize) {
        // Small gaps in the mask count, and windows cut some of them off.
        self.options.tell((self.done + done).min(self.all), self.all);
    }

    fn needs(&self) -> Needs {
        Needs {
            frames: self.frames,
            sample_bytes: sample_type(self.window.voxels).1,
            rows: self.rows,
            layers: self.layers.len(),
            state_words: self.program.state_words,
            fixed_bytes: self.table_bytes() + self.uniform_bytes(),
            workgroup_voxels: self.program.workgroup_voxels(),
        }
    }

    fn table_bytes(&self) -> u64 {
        (size_of_val(&*self.program.tables) as u64).max(16)
    }

    fn uniform_bytes(&self) -> u64 {
        (size_of::<Slab>() + self.program.settings.len()) as u64
    }
}

/// Voxels that are processed, small gaps included.
fn voxels_of(pieces: &[Piece]) -> usize {
    pieces.last().map_or(0, |piece| piece.at + piece.len)
}

/// How many voxels to send at once: few at first, then as many as the device computes in a moment, so that no watchdog
/// takes a slow kernel for a hung one, progress is told and cancelling works; at most a slab.
struct Pace {
    voxels: usize,
    slab: usize,
    fixed: bool,
}

impl Pace {
    const FIRST: usize = 1 << 16;
    const LEAST: usize = 1 << 12;
    const MOMENT_SECONDS: f64 = 0.1;

    fn new(slab: usize, fixed: bool) -> Self {
        Self { voxels: if fixed { slab } else { slab.min(Self::FIRST) }, slab, fixed }
    }

    /// So many voxels took so long.
    fn learn(&mut self, voxels: usize, seconds: f64) {
        if self.fixed {
            return;
        }
        let wanted = voxels as f64 * (Self::MOMENT_SECONDS / seconds.max(1e-9));
        // At most four times what was measured: small slabs tell little about large ones.
        let next = (wanted as usize).min(4 * voxels) / slabs::GRANULE * slabs::GRANULE;
        self.voxels = next.clamp(Self::LEAST.min(self.slab), self.slab);
    }
}

/// A slab on its way through the device.
struct Flight {
    range: std::ops::Range<usize>,
    slot: usize,
    upload: Upload,
}

/// Words from one row to the next in a slab of so many voxels.
fn stride(voxels: usize) -> usize {
    voxels.next_multiple_of(slabs::GRANULE)
}

/// A run under way.
struct Run<'a> {
    gpu: &'a Gpu,
    job: &'a Job<'a>,
    pipelines: Vec<wgpu::ComputePipeline>,
    bindings: wgpu::BindGroup,
    rows: &'a mut [Vec<u32>],
    times: &'a mut Times,
}

impl Run<'_> {
    /// Uploads a slab and queues its kernel and the way back.
    fn send(&mut self, space: &mut Workspace, range: std::ops::Range<usize>, slot: usize) -> Result<Flight, Fault> {
        let (context, job) = (&self.gpu.context, self.job);
        let cancel = &job.options.cancel;
        cancel.check().map_err(|_| Fault::Cancelled)?;
        let voxels = range.len();
        let here: Vec<Piece> = within(&job.pieces, range.clone()).collect();
        let mut upload = Upload::default();
        let samples = Rows { kind: RowKind::Samples { window: job.window, frames: job.frames }, pieces: &here, voxels };
        space.upload(context, &samples, Target::Samples, cancel, &mut upload)?;
        let layers = Rows { kind: RowKind::Layers(job.layers), pieces: &here, voxels };
        space.upload(context, &layers, Target::Extra, cancel, &mut upload)?;

        let workgroup = job.program.workgroup_voxels();
        let groups = workgroups(voxels, workgroup, context.info.limits.workgroups_per_dimension);
        let slab = Slab {
            voxels: voxels as u32,
            frames: job.frames as u32,
            frame_stride_words: samples.row_words() as u32,
            output_stride: stride(voxels) as u32,
            extra_stride: layers.row_words() as u32,
            state_stride: stride(voxels) as u32,
            voxels_per_row: groups.0 * workgroup,
            nan_bits: NAN_BITS,
            ..Slab::default()
        };
        let uniforms = [bytemuck::bytes_of(&slab), job.program.settings.as_slice()].concat();
        context.scoped(|| {
            context.queue.write_buffer(&space.uniforms, 0, &uniforms);
            if let Some(word) = self.gpu.tuning.sentinel {
                for buffer in [&space.outputs, &space.status, &space.state] {
                    let words = vec![word; buffer.size() as usize / 4];
                    context.queue.write_buffer(buffer, 0, bytemuck::cast_slice(&words));
                }
            }
        })?;

        let mut encoder = context.encoder()?;
        let results = &space.slots[slot].buffer;
        context.scoped(|| {
            {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                    label: Some(job.program.name),
                    timestamp_writes: space.queries.as_ref().map(|queries| wgpu::ComputePassTimestampWrites {
                        query_set: &queries.set,
                        beginning_of_pass_write_index: Some(0),
                        end_of_pass_write_index: Some(1),
                    }),
                });
                pass.set_bind_group(0, &self.bindings, &[]);
                for pipeline in &self.pipelines {
                    pass.set_pipeline(pipeline);
                    pass.dispatch_workgroups(groups.0, groups.1, 1);
                }
            }
            let timed = space.queries.as_ref().filter(|queries| queries.copies);
            if let Some(queries) = timed {
                encoder.write_timestamp(&queries.set, 2);
            }
            let row = stride(voxels) as u64 * 4;
            if job.rows > 0 {
                encoder.copy_buffer_to_buffer(&space.outputs, 0, results, 0, job.rows as u64 * row);
            }
            encoder.copy_buffer_to_buffer(&space.status, 0, results, space.sizes.outputs, row);
            if let Some(queries) = timed {
                encoder.write_timestamp(&queries.set, 3);
            }
            if let Some(queries) = &space.queries {
                // Only what this slab has written: others hold nothing.
                let written = if queries.copies { 4 + 2 * upload.timed } else { 2 };
                encoder.resolve_query_set(&queries.set, 0..written, &queries.resolved, 0);
                let bytes = u64::from(written) * 8;
                encoder.copy_buffer_to_buffer(&queries.resolved, 0, results, space.sizes.results(), bytes);
            }
        })?;
        context.submit(encoder)?;
        let mapping = context.map(results, wgpu::MapMode::Read)?;
        space.slots[slot].mapping = mapping;
        self.times.pack += upload.pack_seconds;
        self.times.upload_wait += upload.wait_seconds;
        Ok(Flight { range, slot, upload })
    }

    /// Waits for a slab's results and puts them where they belong; tells how long the kernel took.
    fn receive(&mut self, space: &mut Workspace, flight: &Flight) -> Result<f64, Fault> {
        let (context, job) = (&self.gpu.context, self.job);
        let slot = &space.slots[flight.slot];
        let start = Instant::now();
        context.wait(&slot.mapping, &job.options.cancel)?;
        let mut seconds = start.elapsed().as_secs_f64();
        self.times.kernel_wait += seconds;

        let start = Instant::now();
        {
            let view = context
                .scoped(|| slot.buffer.get_mapped_range(..))?
                .map_err(|problem| context.fault(format!("results cannot be mapped: {problem}")))?;
            let (results, times) = view.split_at(space.sizes.results() as usize);
            let here: Vec<Piece> = within(&job.pieces, flight.range.clone()).collect();
            let (status_row, stride) = (job.rows, stride(flight.range.len()));
            self.rows.par_iter_mut().enumerate().for_each(|(row, out)| {
                let begin = if row == status_row { space.sizes.outputs as usize } else { row * stride * 4 };
                for piece in &here {
                    let bytes = &results[begin + piece.at * 4..begin + (piece.at + piece.len) * 4];
                    // Copied as bytes: a mapped view promises no alignment.
                    bytemuck::cast_slice_mut(&mut out[piece.source..piece.source + piece.len]).copy_from_slice(bytes);
                }
            });
            if let Some(queries) = &space.queries {
                let period = f64::from(context.queue.get_timestamp_period()) * 1e-9;
                let at = |index: usize| {
                    let bytes = times[index * 8..index * 8 + 8].try_into().expect("eight bytes");
                    u64::from_ne_bytes(bytes)
                };
                let between = |index: usize| at(index + 1).saturating_sub(at(index)) as f64 * period;
                seconds = between(0);
                self.times.kernel += seconds;
                self.times.on_device = true;
                if queries.copies {
                    self.times.download += between(2);
                    self.times.upload += (0..flight.upload.timed as usize).map(|i| between(4 + 2 * i)).sum::<f64>();
                    self.times.copies_on_device = true;
                }
            }
        }
        context.scoped(|| slot.buffer.unmap())?;
        self.times.download_copy += start.elapsed().as_secs_f64();
        Ok(seconds)
    }
}

/// Seconds of a run, some measured by the device and some by the host. Stages overlap, so they may add up to more than
/// the run took.
#[derive(Debug, Default)]
struct Times {
    set_up: f64,
    pack: f64,
    upload: f64,
    upload_wait: f64,
    kernel: f64,
    kernel_wait: f64,
    download: f64,
    download_copy: f64,
    uploaded: u64,
    on_device: bool,
    copies_on_device: bool,
}

impl Times {
    fn stages(&self, results: u64) -> Vec<StageTime> {
        let uploaded = self.uploaded;
        let stage = |stage: &str, seconds, bytes| StageTime { stage: stage.into(), seconds, bytes };
        vec![
            stage("gpu: set up", self.set_up, 0),
            stage("gpu: pack", self.pack, uploaded),
            stage("gpu: upload", if self.copies_on_device { self.upload } else { self.upload_wait }, uploaded),
            stage("gpu: kernel", if self.on_device { self.kernel } else { self.kernel_wait }, uploaded + results),
            stage("gpu: download", self.download + self.download_copy, results),
        ]
    }
}

/// Makes voxels outside the mask say so: no number, no label, only the status bit.
pub(crate) fn blank_outside(raw: &mut RawRows, outputs: &[Output], mask: &Mask) {
    let inside = mask.flat();
    raw.rows.par_iter_mut().zip(outside_words(outputs)).for_each(|(row, word)| overwrite_outside(row, inside, word));
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, ShapeBuilder};

    use super::*;
    use crate::kernel::OutputKind;
    use crate::quantity::Quantity;
    use crate::status;

    #[test]
    fn a_gpu_can_be_shared() {
        fn shared<T: Send + Sync>() {}
        shared::<Gpu>();
        shared::<DeviceInfo>();
    }

    #[test]
    fn the_pace_follows_the_device_within_the_slab() {
        let mut pace = Pace::new(1 << 20, false);
        assert_eq!(pace.voxels, Pace::FIRST);
        pace.learn(1 << 16, 1e-3);
        assert_eq!(pace.voxels, 1 << 18);
        pace.learn(1 << 18, 0.0);
        assert_eq!(pace.voxels, 1 << 20);
        pace.learn(1 << 20, 1e-3);
        assert_eq!(pace.voxels, 1 << 20);
        pace.learn(1 << 20, 2.0);
        assert!(pace.voxels.abs_diff(1 << 20) > 900_000 && pace.voxels.is_multiple_of(256));
        pace.learn(1 << 16, 1e6);
        assert_eq!(pace.voxels, Pace::LEAST);
        let mut small = Pace::new(512, false);
        small.learn(512, 1e6);
        assert_eq!(small.voxels, 512);
    }

    #[test]
    fn outside_the_mask_there_is_only_a_status() {
        let labels = Array3::from_shape_vec((3, 1, 1).f(), vec![0, 2, 0]).unwrap();
        let mask = Mask::from_labels(labels.view());
        let output = |kind| Output { quantity: Quantity::TIME_TO_PEAK, kind };
        let outputs = [output(OutputKind::Label), output(OutputKind::Curve(2)), output(OutputKind::Float)];
        let mut raw = RawRows { rows: vec![vec![9; 3]; 5], stages: Vec::new(), ran: None };
        blank_outside(&mut raw, &outputs, &mask);
        let blanks: Vec<u32> = raw.rows.iter().map(|row| row[0]).collect();
        assert_eq!(blanks, [0, NAN_BITS, NAN_BITS, NAN_BITS, status::OUTSIDE_MASK]);
        assert!(raw.rows.iter().all(|row| row[1] == 9 && row[2] == row[0]));
    }
}
