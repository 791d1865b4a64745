//! What a device really does: whether loops run to their end, and how fast it copies its own memory.

use std::time::Instant;

use wgpu::BufferUsages as Usage;

use super::Gpu;
use super::context::{Context, Fault};
use crate::engine::Cancel;
use crate::error::{Error, Result};
use crate::kernel::Program;

/// The probe's WGSL.
const SOURCE: &str = include_str!("../../../shaders/probe.wgsl");

/// Turns of loops that every driver takes.
const FEW_TURNS: usize = 65_000;

/// Copies that are timed together.
const COPIES: u32 = 8;

impl Gpu {
    /// How many of so many turns a loop in a shader takes. A driver that takes fewer stops long loops without saying so
    /// (software Vulkan of Mesa 22.3.6 after 65,535), and kernels must not loop longer there.
    ///
    /// # Errors
    /// [`Error::Device`] if the device fails.
    pub fn loop_turns_kept(&self, turns: u32) -> Result<u32> {
        loop_turns_kept(&self.context, turns).map_err(|fault| self.context.error(fault))
    }

    /// Refuses a driver that would stop this kernel's loops before their end.
    pub(super) fn check_loops(&self, program: &Program) -> Result<()> {
        if program.loop_turns <= FEW_TURNS {
            return Ok(());
        }
        let turns = u32::try_from(program.loop_turns).unwrap_or(u32::MAX);
        let kept = self.loop_turns_kept(turns)?;
        if kept == turns {
            return Ok(());
        }
        let mend = format!(
            "its driver stops loops after {kept} turns, and {} takes up to {turns} with so many frames, or knots of the input \
             function: use the CPU engine",
            program.name
        );
        Err(Error::setting("device", &self.context.info.name, mend))
    }

    /// Bytes per second, read plus written, of a plain copy between two buffers of the device: what a kernel that only
    /// moved data could reach. At most `bytes` are copied, less where a buffer can't be so large.
    ///
    /// # Errors
    /// [`Error::Device`] or [`Error::OutOfMemory`] if the device fails.
    pub fn copy_bandwidth(&self, bytes: u64) -> Result<f64> {
        copy_bandwidth(&self.context, bytes).map_err(|fault| self.context.error(fault))
    }
}

fn loop_turns_kept(context: &Context, turns: u32) -> std::result::Result<u32, Fault> {
    let mut target = 1u32;
    for _ in 0..turns {
        target = target.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        target ^= target >> 15;
    }
    let words = context.buffer("turns", 16, Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST, false)?;
    let result = context.buffer("turns result", 16, Usage::MAP_READ | Usage::COPY_DST, false)?;
    let device = &context.device;
    let (pipeline, bindings) = context.scoped(|| {
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some("probe"),
            source: wgpu::ShaderSource::Wgsl(SOURCE.into()),
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some("probe"),
            layout: None,
            module: &module,
            entry_point: Some("count_turns"),
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            cache: None,
        });
        let bindings = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("probe"),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &[wgpu::BindGroupEntry { binding: 0, resource: words.as_entire_binding() }],
        });
        (pipeline, bindings)
    })?;
    let mut encoder = context.encoder()?;
    context.scoped(|| {
        context.queue.write_buffer(&words, 0, bytemuck::cast_slice(&[turns, target, u32::MAX, 0]));
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            pass.set_pipeline(&pipeline);
            pass.set_bind_group(0, &bindings, &[]);
            pass.dispatch_workgroups(1, 1, 1);
        }
        encoder.copy_buffer_to_buffer(&words, 0, &result, 0, 16);
    })?;
    context.submit(encoder)?;
    let mapping = context.map(&result, wgpu::MapMode::Read)?;
    context.wait(&mapping, &Cancel::new())?;
    let view = context
        .scoped(|| result.get_mapped_range(..))?
        .map_err(|problem| context.fault(format!("results cannot be mapped: {problem}")))?;
    Ok(u32::from_ne_bytes(view[8..12].try_into().expect("four bytes")))
}

fn copy_bandwidth(context: &Context, bytes: u64) -> std::result::Result<f64, Fault> {
    let bytes = (bytes.min(context.info.limits.buffer_bytes).min(1 << 30) & !3).max(4);
    let usage = Usage::COPY_SRC | Usage::COPY_DST;
    let from = context.buffer("copied", bytes, usage, false)?;
    let to = context.buffer("copy", bytes, usage, false)?;
    let told = context.buffer("told", 4, Usage::MAP_READ | Usage::COPY_DST, false)?;
    let mut best = f64::INFINITY;
    // The first turn pays for clearing both buffers.
    for turn in 0..4 {
        let mut encoder = context.encoder()?;
        context.scoped(|| {
            for _ in 0..COPIES {
                encoder.copy_buffer_to_buffer(&from, 0, &to, 0, bytes);
            }
            encoder.copy_buffer_to_buffer(&to, 0, &told, 0, 4);
        })?;
        let start = Instant::now();
        context.submit(encoder)?;
        let mapping = context.map(&told, wgpu::MapMode::Read)?;
        context.wait(&mapping, &Cancel::new())?;
        if turn > 0 {
            best = best.min(start.elapsed().as_secs_f64());
        }
        context.scoped(|| told.unmap())?;
    }
    Ok(2.0 * (bytes * u64::from(COPIES)) as f64 / best)
}
