//! Docker configurations in generated encodings. `PULLWATCH_ENCODINGS_CASES` sets the number of cases; the fuzz target `encodings` runs the
//! same check.

#![allow(clippy::unwrap_used)]

#[path = "encodings_model/mod.rs"]
mod model;

use proptest::prelude::*;

fn cases() -> u32 {
    std::env::var("PULLWATCH_ENCODINGS_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(1000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_encoded_configuration_is_reported(bytes in proptest::collection::vec(any::<u8>(), 4..40)) {
        if let Err(value) = model::check(&bytes) {
            panic!("silent about {value:?} ({bytes:?})");
        }
    }
}

#[test]
fn each_encoding_alone_is_reported() {
    for which in 0..5 {
        for how in 0..17 {
            let result = model::check(&[which, 0, how % 2, 1, how]);
            assert!(result.is_ok(), "configuration {which}, encoding {how}: {result:?}");
        }
    }
}
