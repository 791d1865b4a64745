//! What `auto` runs on when a real GPU is there: a pure decision from measured seconds and bytes.

use std::fmt;

/// What a device is to this decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// Samples cross a bus to memory of the device's own.
    Bus,
    /// The device reads the processor's memory.
    Shared,
    /// The processor itself behind a graphics driver.
    Software,
}

/// Bytes per second from samples in memory to a device, packing included, as a rule: half of what PCIe 3 x16 carries.
/// What was measured on the device in hand takes its place as soon as there is something.
const BUS_BYTES_PER_S: f64 = 6e9;
/// The same where memory is shared: the packing alone, on a few cores.
const SHARED_BYTES_PER_S: f64 = 8e9;
/// What a run costs before anything is computed, once the device is open: a pipeline to compile, buffers to make.
const FIRST_RUN_SECONDS: f64 = 0.15;
/// The same for a kernel that ran before.
const LATER_RUN_SECONDS: f64 = 0.005;
/// How much faster than this processor a real GPU computes, at least, before it has shown how fast it is: kernels do
/// thousands of operations per voxel, of which even a laptop's GPU does several times as many per second.
const TIMES_AS_FAST: f64 = 4.0;
/// A GPU is taken if it saves this share of the time: estimates are no better.
const MARGIN: f64 = 0.8;

/// What is known before a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Estimate {
    /// Seconds on the CPU engine, from a measured stretch of this very work.
    pub(crate) cpu_seconds: f64,
    /// Bytes of samples to upload and of results to download.
    pub(crate) bytes: u64,
    pub(crate) link: Link,
    /// Bytes per second, samples and results, of this kernel's last run on the device, if it ran there.
    pub(crate) measured_bytes_per_s: Option<f64>,
}

/// Where to run, and why.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Choice {
    pub(crate) gpu: bool,
    pub(crate) gpu_seconds: f64,
    cpu_seconds: f64,
    measured: bool,
}

pub(crate) fn choose(estimate: &Estimate) -> Choice {
    let transfer = match estimate.link {
        Link::Bus => estimate.bytes as f64 / BUS_BYTES_PER_S,
        Link::Shared | Link::Software => estimate.bytes as f64 / SHARED_BYTES_PER_S,
    };
    let gpu_seconds = match estimate.measured_bytes_per_s {
        Some(rate) => LATER_RUN_SECONDS + estimate.bytes as f64 / rate,
        // Packing, copying and computing overlap: the slowest of them counts.
        None => FIRST_RUN_SECONDS + transfer.max(estimate.cpu_seconds / TIMES_AS_FAST),
    };
    Choice {
        gpu: estimate.link != Link::Software && gpu_seconds < MARGIN * estimate.cpu_seconds,
        gpu_seconds,
        cpu_seconds: estimate.cpu_seconds,
        measured: estimate.measured_bytes_per_s.is_some(),
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.measured { "as measured" } else { "estimated" };
        let (cpu, gpu) = (self.cpu_seconds, self.gpu_seconds);
        if self.gpu {
            write!(f, "auto: {gpu:.2} s on the GPU ({how}) against {cpu:.2} s on the CPU, from a measured stretch")
        } else {
            write!(f, "auto: {cpu:.2} s on the CPU, from a measured stretch, against {gpu:.2} s on the GPU ({how})")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate(cpu_seconds: f64, megabytes: u64, link: Link) -> Estimate {
        Estimate { cpu_seconds, bytes: megabytes * 1_000_000, link, measured_bytes_per_s: None }
    }

    #[test]
    fn small_work_stays_on_the_processor_and_large_work_goes_to_the_card() {
        // Three maps of 236 MB: 60 ms on two cores.
        assert!(!choose(&estimate(0.06, 268, Link::Bus)).gpu);
        assert!(!choose(&estimate(0.06, 268, Link::Shared)).gpu);
        // Fits of the same series: seconds.
        assert!(choose(&estimate(2.0, 268, Link::Bus)).gpu);
        assert!(choose(&estimate(0.6, 268, Link::Shared)).gpu);
        // A single slice, however expensive per voxel, that is done at once.
        assert!(!choose(&estimate(0.1, 1, Link::Bus)).gpu);
    }

    #[test]
    fn streaming_work_is_bound_by_the_bus() {
        // 5 GB that the processor goes through in 1.2 s: the bus takes most of that.
        assert!(!choose(&estimate(1.2, 6_000, Link::Bus)).gpu);
        assert!(choose(&estimate(6.0, 6_000, Link::Bus)).gpu);
    }

    #[test]
    fn what_was_measured_takes_the_place_of_rules() {
        let work = estimate(0.5, 1_000, Link::Bus);
        assert!(choose(&work).gpu);
        assert!(!choose(&Estimate { measured_bytes_per_s: Some(1e9), ..work }).gpu);
        let small = estimate(0.05, 100, Link::Bus);
        assert!(!choose(&small).gpu);
        assert!(choose(&Estimate { measured_bytes_per_s: Some(2e10), ..small }).gpu);
    }

    #[test]
    fn software_never_and_the_reason_has_the_numbers() {
        for seconds in [0.01, 1.0, 1e4] {
            let work = Estimate { measured_bytes_per_s: Some(1e12), ..estimate(seconds, 100, Link::Software) };
            assert!(!choose(&work).gpu);
        }
        let text = choose(&estimate(2.0, 600, Link::Bus)).to_string();
        assert_eq!(text, "auto: 0.65 s on the GPU (estimated) against 2.00 s on the CPU, from a measured stretch");
        let text = choose(&estimate(0.02, 60, Link::Bus)).to_string();
        assert_eq!(text, "auto: 0.02 s on the CPU, from a measured stretch, against 0.16 s on the GPU (estimated)");
    }
}
