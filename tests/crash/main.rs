//! The daemon under all that can go wrong around it: kills at any moment, full disks, receivers that fail in every way, storms of
//! rotations. What has to hold is the same each time: one alert a rule and event in the store, and each of them with its receivers.
//!
//! `cargo test` runs a short form. `PULLWATCH_KILLS=200` and `PULLWATCH_ROTATIONS=1000` are the long one.

#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod files;
mod full;
mod receiver;
mod rig;
mod rotation;
mod sinks;
mod starts;
mod webhook;
mod writer;
