//! Shared by the tests of the semi-quantitative maps.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "every test file uses a part of it")]

pub mod filling;
pub mod oracle;
pub mod pharmacokinetic_oracle;
pub mod random;
pub mod study;

use perfuse::Engine;

/// The 32-bit engines that every shared test body runs on: the CPU's, and the GPU that `PERFUSE_TEST_DEVICE` names.
pub fn engines() -> Vec<Engine> {
    let mut engines = vec![Engine::cpu()];
    if let Ok(device) = std::env::var("PERFUSE_TEST_DEVICE") {
        engines.push(Engine::named(&device).expect("the device that PERFUSE_TEST_DEVICE names"));
    }
    engines
}
