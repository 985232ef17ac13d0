//! No client can have an event evaluated that it put into its request.

#![allow(clippy::unwrap_used)]

#[path = "forgery/mod.rs"]
mod model;

use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_event_inside_an_event_is_never_evaluated(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        if let Err(log) = model::check(&bytes) {
            prop_assert!(false, "forged by:\n{}", log);
        }
    }
}
