//! The apiserver's audit policy: what it lets rules see.
//!
//! In come the text of a policy and a loaded rule set, out come findings: which rules are blind under that policy,
//! what stays invisible, where it writes credentials to disk, how big an event can be. And the other way: a policy
//! that serves a rule set.
//!
//! ```text
//! text ──► read ──► model ─────────────┐
//!          yaml     first match wins   ▼
//!                                   coverage ──► findings    recommend
//! rule set ──► truth ──► members ──────┘
//!              three values          over the catalogue of requests
//! ```
//!
//! A rule's needs are not written down anywhere: they follow from its condition, evaluated over every kind of request
//! ([`requests`]) with what an event of it can say at a stage and a level ([`abstract_event`]). What is not known then may be
//! anything ([`tristate`]), so a rule is called blind only where it cannot fire at all. Nothing here reads a file.

pub mod abstract_event;
pub mod coverage;
pub mod findings;
pub mod model;
pub mod read;
pub mod recommend;
pub mod requests;
pub mod scenarios;
pub mod tristate;

pub use coverage::{Coverage, Verdict, coverage};
pub use model::{Level, Policy, Stage};
