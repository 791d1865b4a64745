//! Lists what can compute here, with its limits, and checks that long loops run to their end on it.
//!
//! `cargo run --release --example devices`

mod support;

use std::fmt::Write;
use std::process::ExitCode;

use clap::Parser;
use perfuse::engine::gpu::{DeviceChoice, DeviceInfo, Gpu, devices};
use perfuse::{Engine, Result};

const EXAMPLES: &str = "\
Examples:
  devices
  devices --no-test
      Only what the devices say of themselves.

A part of a device's name or driver is what --device of the other programs takes.";

/// What can compute here: the CPU engine and every Vulkan, Metal or DirectX 12 device.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES, max_term_width = 110)]
struct Arguments {
    /// Don't open the devices: no loop test, no copy test
    #[arg(long)]
    no_test: bool,
}

/// Turns of the test's loop. Some drivers stop loops after 65,535 turns without saying so.
const TURNS: u32 = 200_000;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut text = format!("CPU engine: {}\n", Engine::cpu().device());
    let found = devices();
    for info in &found {
        describe(&mut text, info);
        if !arguments.no_test {
            let line = test(info).unwrap_or_else(|error| format!("    does not work: {error}\n"));
            text += &line;
        }
    }
    if found.is_empty() {
        text += "no Vulkan, Metal or DirectX 12 device\n";
    }
    let auto = Engine::auto();
    let _ = writeln!(text, "--device auto takes {} ({})", auto.device(), auto.reason());
    support::print(&text);
    ExitCode::SUCCESS
}

fn describe(text: &mut String, info: &DeviceInfo) {
    let limits = &info.limits;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let _ = write!(
        text,
        "{info}\n    \
         a binding takes {:.0} MiB, a buffer {:.0} MiB; {} storage buffers a kernel\n    \
         workgroups of at most {} threads that share {} KiB, {} a side; {} to {} threads in step\n    \
         {}\n",
        mib(limits.storage_binding_bytes),
        mib(limits.buffer_bytes),
        limits.storage_buffers,
        limits.invocations_per_workgroup,
        limits.workgroup_storage_bytes >> 10,
        limits.workgroups_per_dimension,
        limits.subgroup_min,
        limits.subgroup_max,
        if info.timestamps { "times its own kernels" } else { "kernels are timed from the host" },
    );
}

/// Opens a device by its name (of two with the same name, the first) and tries it.
fn test(info: &DeviceInfo) -> Result<String> {
    let gpu = Gpu::open(&DeviceChoice::Named(info.name.clone()))?;
    let kept = gpu.loop_turns_kept(TURNS)?;
    let verdict = if kept == TURNS { "as it should" } else { "long loops are cut short by this driver" };
    let copy = gpu.copy_bandwidth(64 << 20)? / 1e9;
    Ok(format!("    a loop of {TURNS} turns takes {kept}: {verdict}\n    copies {copy:.1} GB/s, read plus written\n"))
}
