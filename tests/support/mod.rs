//! Shared by the tests of the semi-quantitative maps.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "every test file uses a part of it")]

pub mod oracle;
pub mod study;

use perfuse::Engine;

/// The 32-bit engines that every shared test body runs on.
pub fn engines() -> Vec<Engine> {
    vec![Engine::cpu()]
}
