//! Any bytes as values of secrets and config maps, and docker configurations in encodings that the bytes choose: each is reported, and no
//! password is shown.
#![no_main]

#[path = "../../tests/encodings_model/mod.rs"]
mod model;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(value) = model::check(bytes) {
        panic!("silent about {value}");
    }
});
