//! Any bytes as forgeries: an event that a client put into its request is never evaluated, however what carries it was wrapped, split or
//! cut.
#![no_main]

#[path = "../../tests/forgery/mod.rs"]
mod model;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(log) = model::check(bytes) {
        panic!("forged by:\n{log}");
    }
});
