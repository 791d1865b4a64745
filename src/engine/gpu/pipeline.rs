//! From WGSL text to something that can be dispatched, once per kernel, sample type and constants.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::context::{Context, Fault};
use crate::kernel::Program;

/// What precedes every kernel's text.
pub(crate) const COMMON: &str = include_str!("../../../shaders/common.wgsl");

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    sources: &'static [&'static str],
    entry_point: &'static str,
    constants: Vec<(&'static str, u64)>,
}

/// The pipelines that a device has compiled.
#[derive(Debug)]
pub(super) struct Pipelines {
    bindings: wgpu::BindGroupLayout,
    layout: wgpu::PipelineLayout,
    modules: Mutex<HashMap<&'static [&'static str], wgpu::ShaderModule>>,
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
        for entry_point in program.entry_points.iter().copied() {
            let key = Key {
                sources: program.sources,
                entry_point,
                constants: constants.iter().map(|(name, value)| (*name, value.to_bits())).collect(),
            };
            if let Some(pipeline) = compiled.get(&key) {
                pipelines.push(pipeline.clone());
                continue;
            }
            if !modules.contains_key(program.sources) {
                let text = whole_text(program.sources);
                let module = named(
                    program.name,
                    context.scoped(|| {
                        context.device.create_shader_module(wgpu::ShaderModuleDescriptor {
                            label: Some(program.name),
                            source: wgpu::ShaderSource::Wgsl(text.into()),
                        })
                    }),
                )?;
                modules.insert(program.sources, module);
            }
            let pipeline = named(
                program.name,
                context.scoped(|| {
                    context.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                        label: Some(program.name),
                        layout: Some(&self.layout),
                        module: &modules[program.sources],
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

/// The common text, then the kernel's pieces.
fn whole_text(sources: &[&str]) -> String {
    COMMON.to_string() + &sources.concat()
}

/// Says which kernel a compiler's complaint is about.
fn named<T>(name: &str, outcome: Result<T, Fault>) -> Result<T, Fault> {
    outcome.map_err(|fault| match fault {
        Fault::Device(problem) => Fault::Device(format!("kernel {name}: {problem}")),
        other => other,
    })
}

/// Reads WGSL without a device, to compare it with the Rust text. For the tests of kernels.
#[cfg(test)]
pub(crate) mod text {
    use naga::valid::{Capabilities, ValidationFlags, Validator};

    /// A kernel's text as devices get it, parsed and validated.
    pub(crate) fn kernel(sources: &[&str]) -> naga::Module {
        whole(&super::whole_text(sources))
    }

    /// A complete text, parsed and validated.
    pub(crate) fn whole(text: &str) -> naga::Module {
        let module =
            naga::front::wgsl::parse_str(text).unwrap_or_else(|error| panic!("{}", error.emit_to_string(text)));
        Validator::new(ValidationFlags::all(), Capabilities::empty())
            .validate(&module)
            .unwrap_or_else(|error| panic!("{}", error.emit_to_string(text)));
        module
    }

    /// The fields of a struct with their offsets, and its size.
    pub(crate) fn layout(module: &naga::Module, name: &str) -> (Vec<(String, u32)>, u32) {
        for (_, ty) in module.types.iter() {
            if ty.name.as_deref() == Some(name)
                && let naga::TypeInner::Struct { members, span } = &ty.inner
            {
                let fields = members.iter().map(|m| (m.name.clone().expect("fields have names"), m.offset)).collect();
                return (fields, *span);
            }
        }
        panic!("no struct {name}");
    }

    /// Asserts that a shader's struct has all of these fields of a Rust struct, in this order at the same offsets, and its
    /// size.
    macro_rules! assert_same_layout {
        ($module:expr, $name:literal, $rust:ty: $($field:ident)*) => {{
            let (fields, size) = $crate::engine::gpu::text::layout($module, $name);
            let of_rust = vec![$((stringify!($field).to_string(), std::mem::offset_of!($rust, $field) as u32)),*];
            assert_eq!(fields, of_rust);
            assert_eq!(size as usize, size_of::<$rust>());
        }};
    }
    pub(crate) use assert_same_layout;

    /// The bindings of group 0 in order, with their names.
    pub(crate) fn bindings(module: &naga::Module) -> Vec<(u32, String)> {
        let mut found: Vec<(u32, String)> = module
            .global_variables
            .iter()
            .filter_map(|(_, variable)| {
                let binding = variable.binding.as_ref()?;
                assert_eq!(binding.group, 0, "all bindings are in one group");
                Some((binding.binding, variable.name.clone()?))
            })
            .collect();
        found.sort();
        found
    }

    /// The numbers of a constant as they are written in a line: one, or those of a list.
    pub(crate) fn numbers(text: &str, name: &str) -> Vec<f64> {
        let line = text.lines().find(|line| line.starts_with(&format!("const {name}:"))).expect(name);
        let inside = line.rsplit(['(', '=']).next().expect("a value").trim_end_matches([')', ';']);
        inside.split(',').map(|number| number.trim().trim_end_matches('u').parse().expect("a number")).collect()
    }

    /// The whole-number constants by name.
    pub(crate) fn constants(module: &naga::Module) -> std::collections::BTreeMap<String, u32> {
        let value = |init| match module.global_expressions[init] {
            naga::Expression::Literal(naga::Literal::U32(value)) => Some(value),
            _ => None,
        };
        let named =
            module.constants.iter().filter_map(|(_, constant)| Some((constant.name.clone()?, value(constant.init)?)));
        named.collect()
    }

    /// The entry points with their workgroup sizes.
    pub(crate) fn entry_points(module: &naga::Module) -> Vec<(&str, [u32; 3])> {
        module.entry_points.iter().map(|entry| (entry.name.as_str(), entry.workgroup_size)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::slabs::Slab;
    use super::text;

    const TEST_KERNEL: &[&str] = &[include_str!("../../../tests/gpu_kernel.wgsl")];

    #[test]
    fn slab_is_the_same_in_both_texts() {
        text::assert_same_layout!(
            &text::kernel(TEST_KERNEL), "Slab", Slab:
            voxels frames frame_stride_words output_stride extra_stride state_stride voxels_per_row nan_bits
            reserved_a reserved_b
        );
        assert_eq!(size_of::<Slab>() % 16, 0);
    }

    #[test]
    fn settings_follow_the_slab() {
        let (fields, _) = text::layout(&text::kernel(TEST_KERNEL), "Uniforms");
        assert_eq!(fields, [("slab".to_string(), 0), ("settings".to_string(), size_of::<Slab>() as u32)]);
    }

    #[test]
    fn bindings_are_the_seven_of_the_contract() {
        let module = text::kernel(TEST_KERNEL);
        let names = ["uniforms", "samples", "tables", "extra", "outputs", "status", "state"];
        assert_eq!(text::bindings(&module), (0..).zip(names.map(String::from)).collect::<Vec<_>>());
        assert!(text::entry_points(&module).iter().all(|(_, size)| *size == [64, 1, 1]));
    }

    #[test]
    fn the_probe_is_valid() {
        assert_eq!(
            text::entry_points(&text::whole(include_str!("../../../shaders/probe.wgsl"))),
            [("count_turns", [1; 3])]
        );
    }
}
