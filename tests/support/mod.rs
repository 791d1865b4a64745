//! Shared by the tests of the semi-quantitative maps.
#![allow(dead_code, unreachable_pub, reason = "every test file uses a part of it")]

pub mod oracle;
