//! Any bytes as a body of the webhook: nothing panics, and the events' places are in it, one behind the other.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pullwatch::internals::detection::audit::event_id;
use pullwatch::internals::daemon::source::webhook::split_events;

fuzz_target!(|bytes: &[u8]| {
    let mut end = 0;
    for (digest, at) in split_events(bytes).unwrap_or_default() {
        assert!(end <= at.start && at.start < at.end && at.end <= bytes.len());
        assert_eq!(digest, event_id::digest(&bytes[at.clone()]));
        end = at.end;
    }
});
