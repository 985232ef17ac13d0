//! Compares the engine with a reference implementation on generated rules and events.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/naive/mod.rs"]
mod naive;

fuzz_target!(|bytes: &[u8]| naive::check(bytes));
