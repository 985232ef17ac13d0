//! What makes two events the same: their whole content.
//!
//! Never the audit id, which a client chooses: who could have an event dropped by naming an id that was seen before could
//! hide a read.

use sha2::{Digest as _, Sha256};

/// The members before `level` in an event that the apiserver writes to a file; in a webhook's list they are
/// left out. The event is the same.
const ENVELOPE: [&[u8]; 2] = [br#""kind":"Event","#, br#""apiVersion":"audit.k8s.io/v1","#];

/// The content of an event's text: all of it but for what a webhook's list leaves out.
pub fn content(event: &[u8]) -> &[u8] {
    let mut content = event.strip_prefix(b"{").unwrap_or(event);
    for member in ENVELOPE {
        content = content.strip_prefix(member).unwrap_or(content);
    }
    content
}

/// SHA-256 of an event's content.
pub fn hash(content: &[u8]) -> [u8; 32] {
    Sha256::digest(content).into()
}

/// SHA-256 of an event's content, cut to 128 bits: what tells a repeated event. The ids of its alerts are made of the same
/// hash.
pub fn digest(event: &[u8]) -> [u8; 16] {
    let mut digest = [0; 16];
    digest.copy_from_slice(&hash(content(event))[..16]);
    digest
}
