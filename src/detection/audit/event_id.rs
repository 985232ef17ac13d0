//! The identity of an event: a hash of its whole content.
//!
//! Takes the text of an event; returns a digest that identifies repeated deliveries and from which alert ids are derived. `auditID` must
//! never be used instead: a client chooses it, and could have a read dropped as a repetition of another request.

use sha2::{Digest as _, Sha256};

/// The members before `level` in an event of a log file. The apiserver omits them in a webhook's list; the event is the same.
const TYPE_MEMBERS: [&[u8]; 2] = [br#""kind":"Event","#, br#""apiVersion":"audit.k8s.io/v1","#];

/// The text of an event without the members that only a log file has.
pub fn content(event: &[u8]) -> &[u8] {
    let mut content = event.strip_prefix(b"{").unwrap_or(event);
    for member in TYPE_MEMBERS {
        content = content.strip_prefix(member).unwrap_or(content);
    }
    content
}

/// The SHA-256 of the [`content`] of an event.
pub fn hash(content: &[u8]) -> [u8; 32] {
    Sha256::digest(content).into()
}

/// The first 128 bits of the SHA-256 of the content of an event. The ids of its alerts are derived from the same hash.
pub fn digest(event: &[u8]) -> [u8; 16] {
    let mut digest = [0; 16];
    digest.copy_from_slice(&hash(content(event))[..16]);
    digest
}
