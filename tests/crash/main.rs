//! The daemon under failures of its environment: kills at any moment, full disks, failing receivers, storms of rotations, floods of
//! events. The invariant is the same each time: one alert per rule and event in the store, delivered to each receiver.
//!
//! `cargo test` runs a short form. `PULLWATCH_KILLS=200` and `PULLWATCH_ROTATIONS=1000` select the long one.

#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod files;
mod flood;
mod full;
mod receiver;
mod rig;
mod rotation;
mod sinks;
mod starts;
mod state_dir;
mod webhook;
mod writer;
