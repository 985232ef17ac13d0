//! The daemon under everything that goes wrong: kills, rotations, full disks, receivers that fail. However it goes, the store has one
//! alert per event and rule, and the receiver has each at least once.
//!
//! What runs by default is a short form. `PULLWATCH_TORTURE=long cargo test --release --test torture` takes minutes.

#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod disk;
mod kills;
mod place;
mod receiver;
mod rotation;
mod webhook;

/// How often something is done: in the short form, and in the long one.
fn times(short: usize, long: usize) -> usize {
    if std::env::var("PULLWATCH_TORTURE").is_ok_and(|form| form == "long") { long } else { short }
}
