//! Any bytes as requests for secrets: whatever hands over a registry credential according to a reference model of the
//! apiserver has to be reported.
#![no_main]

#[path = "../../tests/evasion_model/apiserver.rs"]
mod apiserver;
#[path = "../../tests/evasion_model/check.rs"]
mod check;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(evasion) = check::check(bytes) {
        panic!("silent about {:?}:\n{}", evasion.secrets, evasion.log);
    }
});
