//! Reader profiles: what each identity usually reads, with which program, from where, and how an event differs from it.
//!
//! [`read`] takes an event and what it exposed, and returns the read. [`profiles`] compares it with what is known of its
//! identity, which gives an [`Assessment`], and learns from it. [`catalog`] holds what well-known platform controllers do.
//!
//! What is learned may only make later events less suspicious slowly and in the open: on three distinct days, each of which
//! was reported. See the decision record on reader profiles.

mod catalog;
mod profile;
mod profiles;
mod read;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use catalog::{Controller, all as controllers};
pub use profile::Profile;
pub(crate) use profiles::Assessment;
pub use profiles::{ReaderProfiles, TrustedReader};
pub(super) use read::Read;
