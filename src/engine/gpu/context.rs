//! Finding devices, opening one, and turning what goes wrong on it into errors.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::engine::Cancel;
use crate::error::{Error, Result};

/// What kind of device it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DeviceKind {
    /// A card with memory of its own.
    Discrete,
    /// Shares memory with the processor.
    Integrated,
    /// A GPU as a virtual machine sees it.
    Virtual,
    /// Something else that is no processor.
    Other,
    /// The processor itself behind a graphics driver: right, but slower than the CPU engine.
    Software,
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DeviceKind::Discrete => "discrete GPU",
            DeviceKind::Integrated => "integrated GPU",
            DeviceKind::Virtual => "virtual GPU",
            DeviceKind::Other => "other GPU",
            DeviceKind::Software => "software",
        })
    }
}

/// The interface through which a device is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeviceBackend {
    /// Vulkan.
    Vulkan,
    /// Metal.
    Metal,
    /// DirectX 12.
    Dx12,
    /// Another, on a device that the caller opened.
    Other,
}

impl fmt::Display for DeviceBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DeviceBackend::Vulkan => "Vulkan",
            DeviceBackend::Metal => "Metal",
            DeviceBackend::Dx12 => "DirectX 12",
            DeviceBackend::Other => "another backend",
        })
    }
}

/// The limits of a device that decide how work is cut for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceLimits {
    /// Bytes that a shader can see of one buffer.
    pub storage_binding_bytes: u64,
    /// Bytes of one buffer.
    pub buffer_bytes: u64,
    /// Workgroups along one side of a dispatch.
    pub workgroups_per_dimension: u32,
    /// Bytes that the threads of a workgroup can share.
    pub workgroup_storage_bytes: u32,
    /// Threads in a workgroup.
    pub invocations_per_workgroup: u32,
    /// Storage buffers that a shader can see.
    pub storage_buffers: u32,
    /// Threads that run in step, at least.
    pub subgroup_min: u32,
    /// Threads that run in step, at most.
    pub subgroup_max: u32,
}

/// A device as it describes itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: DeviceKind,
    /// How it is reached.
    pub backend: DeviceBackend,
    /// The driver's name.
    pub driver: String,
    /// The driver's version.
    pub driver_info: String,
    /// How much it can take at once.
    pub limits: DeviceLimits,
    /// Whether the device itself can time kernels; else they are timed from the host.
    pub timestamps: bool,
}

impl fmt::Display for DeviceInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {}", self.name, self.kind, self.backend)?;
        let driver = [self.driver.as_str(), self.driver_info.as_str()].join(" ");
        let driver = driver.trim();
        if driver.is_empty() { write!(f, ")") } else { write!(f, ", {driver})") }
    }
}

impl DeviceInfo {
    fn new(info: &wgpu::AdapterInfo, limits: &wgpu::Limits, features: wgpu::Features) -> Self {
        Self {
            name: info.name.clone(),
            kind: match info.device_type {
                wgpu::DeviceType::DiscreteGpu => DeviceKind::Discrete,
                wgpu::DeviceType::IntegratedGpu => DeviceKind::Integrated,
                wgpu::DeviceType::VirtualGpu => DeviceKind::Virtual,
                wgpu::DeviceType::Cpu => DeviceKind::Software,
                wgpu::DeviceType::Other => DeviceKind::Other,
            },
            backend: match info.backend {
                wgpu::Backend::Vulkan => DeviceBackend::Vulkan,
                wgpu::Backend::Metal => DeviceBackend::Metal,
                wgpu::Backend::Dx12 => DeviceBackend::Dx12,
                _ => DeviceBackend::Other,
            },
            driver: info.driver.clone(),
            driver_info: info.driver_info.clone(),
            limits: DeviceLimits {
                storage_binding_bytes: limits.max_storage_buffer_binding_size,
                buffer_bytes: limits.max_buffer_size,
                workgroups_per_dimension: limits.max_compute_workgroups_per_dimension,
                workgroup_storage_bytes: limits.max_compute_workgroup_storage_size,
                invocations_per_workgroup: limits.max_compute_invocations_per_workgroup,
                storage_buffers: limits.max_storage_buffers_per_shader_stage,
                subgroup_min: info.subgroup_min_size,
                subgroup_max: info.subgroup_max_size,
            },
            timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
        }
    }

    /// Whether `part` occurs in its name or its driver's, whatever the case.
    fn answers_to(&self, part: &str) -> bool {
        let part = part.to_lowercase();
        [&self.name, &self.driver, &self.driver_info].iter().any(|text| text.to_lowercase().contains(&part))
    }
}

/// Which device to open.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum DeviceChoice {
    /// The best real GPU, never software.
    #[default]
    Real,
    /// The best device, software only if there is nothing else.
    Any,
    /// The best device whose name or driver contains this, in any case; software included.
    Named(String),
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceChoice::Real => f.write_str("a real GPU"),
            DeviceChoice::Any => f.write_str("any device"),
            DeviceChoice::Named(name) => f.write_str(name),
        }
    }
}

/// The devices of this machine, best first; software ones last.
pub fn devices() -> Vec<DeviceInfo> {
    adapters().into_iter().map(|(info, _)| info).collect()
}

fn adapters() -> Vec<(DeviceInfo, wgpu::Adapter)> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        // Only what can compute well: every further backend costs time at start.
        backends: wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12,
        // Without the layers that a debug build would load, unless the environment asks for them.
        flags: wgpu::InstanceFlags::empty().with_env(),
        // Running out of memory shall be an error, not the whole machine swapping.
        memory_budget_thresholds: wgpu::MemoryBudgetThresholds {
            for_resource_creation: Some(90),
            for_device_loss: None,
        },
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let mut found: Vec<_> = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()))
        .into_iter()
        .map(|adapter| (DeviceInfo::new(&adapter.get_info(), &adapter.limits(), adapter.features()), adapter))
        .collect();
    found.sort_by_key(|(info, _)| info.kind);
    found
}

/// What may go wrong on a device, before it is told as an [`Error`].
#[derive(Debug)]
pub(super) enum Fault {
    /// Worth trying with less.
    OutOfMemory,
    Device(String),
    Cancelled,
}

/// Storage buffers that every kernel is given.
const STORAGE_BUFFERS: u32 = 6;

/// How long the device may keep silent about one submission.
const PATIENCE: Duration = Duration::from_secs(120);

/// Between two looks at the device.
const SHORTEST_NAP: Duration = Duration::from_micros(20);
const LONGEST_NAP: Duration = Duration::from_millis(1);

/// A device with its queue.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) info: DeviceInfo,
    /// Why the device is gone, once it is; only known for a device of our own.
    lost: Arc<OnceLock<String>>,
}

impl Context {
    pub(super) fn open(choice: &DeviceChoice) -> Result<Self> {
        let found = adapters();
        let mut notes: Vec<String> = found.iter().map(|(info, _)| info.to_string()).collect();
        for (index, (info, adapter)) in found.iter().enumerate() {
            let chosen = match choice {
                DeviceChoice::Real => info.kind != DeviceKind::Software,
                DeviceChoice::Any => true,
                DeviceChoice::Named(part) => info.answers_to(part),
            };
            if !chosen {
                continue;
            }
            match Self::from_adapter(adapter) {
                Ok(context) => return Ok(context),
                Err(problem) => notes[index].push_str(&format!(", which does not open: {problem}")),
            }
        }
        Err(Error::NoDevice {
            wanted: choice.to_string(),
            found: if notes.is_empty() { "none".into() } else { notes.join("; ") },
            mend: match choice {
                DeviceChoice::Real => "use the CPU engine, or name a software device to have it all the same",
                DeviceChoice::Any => "install a Vulkan, Metal or DirectX 12 driver, or use the CPU engine",
                DeviceChoice::Named(_) => "give a part of a device's name, or use the CPU engine",
            }
            .into(),
        })
    }

    fn from_adapter(adapter: &wgpu::Adapter) -> std::result::Result<Self, String> {
        let wanted = wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS;
        let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("perfuse"),
            required_features: adapter.features() & wanted,
            // The defaults would cap bindings at 128 MiB on any card.
            required_limits: adapter.limits(),
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..Default::default()
        }))
        .map_err(|error| error.to_string())?;
        let lost = Arc::new(OnceLock::new());
        device.set_device_lost_callback({
            let lost = Arc::clone(&lost);
            move |reason, message| {
                let _ = lost.set(format!("lost ({reason:?}): {message}"));
            }
        });
        Self::with_lost(device, queue, lost)
    }

    /// A device that the caller opened: no handler of theirs is touched.
    pub(super) fn from_wgpu(device: wgpu::Device, queue: wgpu::Queue) -> Result<Self> {
        let name = device.adapter_info().name;
        Self::with_lost(device, queue, Arc::default()).map_err(|problem| Error::Device {
            device: name,
            problem,
            mend: "open the device with the adapter's own limits".into(),
        })
    }

    fn with_lost(
        device: wgpu::Device,
        queue: wgpu::Queue,
        lost: Arc<OnceLock<String>>,
    ) -> std::result::Result<Self, String> {
        let limits = device.limits();
        if limits.max_storage_buffers_per_shader_stage < STORAGE_BUFFERS {
            return Err(format!(
                "{} storage buffers per shader, {STORAGE_BUFFERS} are needed",
                limits.max_storage_buffers_per_shader_stage
            ));
        }
        if limits.max_compute_workgroups_per_dimension == 0 {
            return Err("it cannot compute".into());
        }
        let info = DeviceInfo::new(&device.adapter_info(), &limits, device.features());
        Ok(Self { device, queue, info, lost })
    }

    /// Does something on the device and returns what it complains about. Error scopes belong to this thread and nest, so
    /// neither the caller's handlers nor other threads notice.
    pub(super) fn scoped<T>(&self, work: impl FnOnce() -> T) -> std::result::Result<T, Fault> {
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let internal = self.device.push_error_scope(wgpu::ErrorFilter::Internal);
        let validation = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let value = work();
        let validation = pollster::block_on(validation.pop());
        let internal = pollster::block_on(internal.pop());
        let memory = pollster::block_on(memory.pop());
        if memory.is_some() {
            return Err(Fault::OutOfMemory);
        }
        match validation.or(internal) {
            Some(error) => Err(Fault::Device(error.to_string())),
            None => Ok(value),
        }
    }

    /// Waits until a mapping is ready.
    ///
    /// By asking again and again: a blocking poll with a timeout panics in wgpu 30.0.1 when another thread polls at the
    /// same time (wgpu#9958), one without could neither be cancelled nor give up, and both keep other threads waiting.
    pub(super) fn wait(&self, mapping: &Mapping, cancel: &Cancel) -> std::result::Result<(), Fault> {
        let start = Instant::now();
        loop {
            match mapping.0.get() {
                Some(Ok(())) => return Ok(()),
                Some(Err(problem)) => return Err(self.fault(format!("a buffer cannot be mapped: {problem}"))),
                None => {}
            }
            if cancel.check().is_err() {
                return Err(Fault::Cancelled);
            }
            let waited = start.elapsed();
            if waited > PATIENCE {
                return Err(self.fault(format!("no answer within {} s", PATIENCE.as_secs())));
            }
            // On a device that was lost meanwhile, poll panics instead of returning an error.
            match catch_unwind(AssertUnwindSafe(|| self.device.poll(wgpu::PollType::Poll))) {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(self.fault(error.to_string())),
                Err(_) => return Err(self.fault("it was lost while work was waiting".into())),
            }
            if mapping.0.get().is_none() {
                // Late by an eighth at most.
                std::thread::sleep((waited / 8).clamp(SHORTEST_NAP, LONGEST_NAP));
            }
        }
    }

    /// A fault, with the reason for which the device was lost if it was.
    pub(super) fn fault(&self, problem: String) -> Fault {
        Fault::Device(match self.lost.get() {
            Some(lost) => format!("{problem} ({lost})"),
            None => problem,
        })
    }

    /// Maps a buffer; the callback only notes the outcome.
    pub(super) fn map(&self, buffer: &wgpu::Buffer, mode: wgpu::MapMode) -> std::result::Result<Mapping, Fault> {
        let mapping = Mapping::default();
        let noted = mapping.clone();
        self.scoped(|| {
            buffer.map_async(mode, .., move |outcome| {
                let _ = noted.0.set(outcome.map_err(|error| error.to_string()));
            });
        })?;
        Ok(mapping)
    }

    pub(super) fn buffer(
        &self,
        label: &str,
        size: u64,
        usage: wgpu::BufferUsages,
        mapped: bool,
    ) -> std::result::Result<wgpu::Buffer, Fault> {
        self.scoped(|| {
            self.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size,
                usage,
                mapped_at_creation: mapped,
            })
        })
    }

    pub(super) fn submit(&self, encoder: wgpu::CommandEncoder) -> std::result::Result<(), Fault> {
        self.scoped(|| {
            self.queue.submit([encoder.finish()]);
        })
    }

    pub(super) fn encoder(&self) -> std::result::Result<wgpu::CommandEncoder, Fault> {
        self.scoped(|| self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("perfuse") }))
    }

    pub(super) fn error(&self, fault: Fault) -> Error {
        match fault {
            Fault::Cancelled => Error::Cancelled,
            Fault::Device(problem) => Error::Device {
                device: self.info.name.clone(),
                problem,
                mend: "update its driver, choose another device, or use the CPU engine".into(),
            },
            Fault::OutOfMemory => Error::OutOfMemory {
                place: self.info.name.clone(),
                needed_bytes: 0,
                limit_bytes: 0,
                mend: "close other programs that use the device, or use the CPU engine".into(),
            },
        }
    }
}

/// Whether a buffer is mapped yet, and if not, why.
#[derive(Debug, Clone, Default)]
pub(super) struct Mapping(Arc<OnceLock<std::result::Result<(), String>>>);

impl Mapping {
    pub(super) fn ready() -> Self {
        Self(Arc::new(OnceLock::from(Ok(()))))
    }
}
