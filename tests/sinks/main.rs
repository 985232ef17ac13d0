//! Sinks against real sockets and files.

#![allow(clippy::unwrap_used)]

mod delivery;
mod files;
mod http;
mod loki;
#[path = "../common/port.rs"]
mod port;
mod receivers;
mod rig;
mod server;
mod sizes;
mod syslog;
mod tls;
#[path = "../common/wait.rs"]
mod wait;
