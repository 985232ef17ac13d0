//! The engine against a plain reading of the same rule and event.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/naive/mod.rs"]
mod naive;

fuzz_target!(|bytes: &[u8]| naive::check(bytes));
