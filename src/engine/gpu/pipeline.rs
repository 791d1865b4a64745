//! From WGSL text to something that can be dispatched, once per kernel, sample type and constants.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::context::{Context, Fault};
use crate::kernel::Program;

/// What precedes every kernel's text.
pub(crate) const COMMON: &str = include_str!("../../../shaders/common.wgsl");

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    source: &'static str,
    entry_point: &'static str,
    constants: Vec<(&'static str, u64)>,
}

/// The pipelines that a device has compiled.
#[derive(Debug)]
pub(super) struct Pipelines {
    bindings: wgpu::BindGroupLayout,
    layout: wgpu::PipelineLayout,
    modules: Mutex<HashMap<&'static str, wgpu::ShaderModule>>,
    compiled: Mutex<HashMap<Key, wgpu::ComputePipeline>>,
}

impl Pipelines {
    pub(super) fn new(context: &Context) -> Result<Self, Fault> {
        let entry = |binding, ty| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
            count: None,
        };
        let read = wgpu::BufferBindingType::Storage { read_only: true };
        let write = wgpu::BufferBindingType::Storage { read_only: false };
        context.scoped(|| {
            let bindings = context.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: Some("perfuse bindings"),
                entries: &[
                    entry(0, wgpu::BufferBindingType::Uniform),
                    entry(1, read),
                    entry(2, read),
                    entry(3, read),
                    entry(4, write),
                    entry(5, write),
                    entry(6, write),
                ],
            });
            let layout = context.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: Some("perfuse kernels"),
                bind_group_layouts: &[Some(&bindings)],
                immediate_size: 0,
            });
            Self { bindings, layout, modules: Mutex::default(), compiled: Mutex::default() }
        })
    }

    /// The kernel's entry points in order, compiled for one sample type.
    pub(super) fn of(
        &self,
        context: &Context,
        program: &Program,
        sample_type: u32,
    ) -> Result<Vec<wgpu::ComputePipeline>, Fault> {
        // A poisoned lock only means that a thread panicked between two insertions: the maps are whole.
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        let mut constants = program.constants.clone();
        constants.push(("SAMPLE_TYPE", f64::from(sample_type)));
        let mut pipelines = Vec::with_capacity(program.entry_points.len());
        for entry_point in program.entry_points {
            let key = Key {
                source: program.source,
                entry_point,
                constants: constants.iter().map(|(name, value)| (*name, value.to_bits())).collect(),
            };
            if let Some(pipeline) = compiled.get(&key) {
                pipelines.push(pipeline.clone());
                continue;
            }
            if !modules.contains_key(program.source) {
                let text = [COMMON, program.source].concat();
                let module = named(
                    program.name,
                    context.scoped(|| {
                        context.device.create_shader_module(wgpu::ShaderModuleDescriptor {
                            label: Some(program.name),
                            source: wgpu::ShaderSource::Wgsl(text.into()),
                        })
                    }),
                )?;
                modules.insert(program.source, module);
            }
            let pipeline = named(
                program.name,
                context.scoped(|| {
                    context.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                        label: Some(program.name),
                        layout: Some(&self.layout),
                        module: &modules[program.source],
                        entry_point: Some(entry_point),
                        compilation_options: wgpu::PipelineCompilationOptions {
                            constants: &constants,
                            ..Default::default()
                        },
                        cache: None,
                    })
                }),
            )?;
            compiled.insert(key, pipeline.clone());
            pipelines.push(pipeline);
        }
        Ok(pipelines)
    }

    /// The seven bindings of a run.
    pub(super) fn bind(&self, context: &Context, buffers: [&wgpu::Buffer; 7]) -> Result<wgpu::BindGroup, Fault> {
        let entries: Vec<_> = buffers
            .iter()
            .zip(0..)
            .map(|(buffer, binding)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() })
            .collect();
        context.scoped(|| {
            context.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some("perfuse run"),
                layout: &self.bindings,
                entries: &entries,
            })
        })
    }
}

/// Says which kernel a compiler's complaint is about.
fn named<T>(name: &str, outcome: Result<T, Fault>) -> Result<T, Fault> {
    outcome.map_err(|fault| match fault {
        Fault::Device(problem) => Fault::Device(format!("kernel {name}: {problem}")),
        other => other,
    })
}
