//! Determines from the query of a watch whether it sends the existing objects first.

use crate::detection::audit::uri::query::{Query, Readings};

/// Returns whether a watch may send existing objects before changes: it does unless it continues from a resource version.
pub(super) fn sends_initial_events(uri: &[u8]) -> bool {
    Readings::of(uri).any(asks_for_initial_events)
}

/// Returns whether a watch sends existing objects in every reading of its query.
pub(super) fn certainly_sends_initial_events(uri: &[u8]) -> bool {
    Readings::of(uri).all(asks_for_initial_events)
}

fn asks_for_initial_events(query: &Query<'_>) -> bool {
    matches!(query.first("resourceVersion"), None | Some(b"" | b"0"))
        || query.flag("sendInitialEvents").unwrap_or_default()
}
