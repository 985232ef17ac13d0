//! Reader profiles: what each identity usually reads, with which program and from where, and how an event differs from that.
//!
//! [`read`] takes an event and what it exposed, and returns the read. [`profiles`] compares it with what is known of its identity, which
//! gives an [`Assessment`], and learns from it. [`catalog`] contains the behavior of well-known platform controllers, and [`own_program`]
//! compares the program of any request with it.
//!
//! Learning may only make later events less suspicious slowly and visibly: after three distinct days, each of which was reported. See the
//! decision record on reader profiles.

mod catalog;
mod own_program;
mod profile;
mod profiles;
mod read;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod trust;

pub use catalog::{Controller, ExpectedRead, all as controllers};
pub(crate) use own_program::runs_own_program;
pub use profile::Profile;
pub use profiles::ReaderProfiles;
pub(crate) use profiles::{Assessment, is_interactive_agent};
pub(super) use read::Read;
pub(crate) use read::service_account;
pub use trust::TrustedReader;
