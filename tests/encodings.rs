//! Docker configurations in generated encodings. `PULLWATCH_ENCODINGS_CASES` sets the number of cases; the fuzz target `encodings` runs the
//! same check.

#![allow(clippy::unwrap_used)]

#[path = "encodings_model/mod.rs"]
mod model;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// The same cases in each run, so that the test fails with the change that makes it fail; others where their number is set.
fn config() -> ProptestConfig {
    let number = std::env::var("PULLWATCH_ENCODINGS_CASES").ok().and_then(|number| number.parse().ok());
    let rng_seed = if number.is_some() { RngSeed::Random } else { RngSeed::Fixed(1) };
    ProptestConfig {
        cases: number.unwrap_or(1000),
        rng_seed,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

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
