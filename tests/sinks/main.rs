//! Sinks against real sockets and files.

mod delivery;
mod files;
mod http;
mod rig;
mod server;
mod syslog;
mod tls;
