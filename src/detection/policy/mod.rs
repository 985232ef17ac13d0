//! What an apiserver's audit policy lets rules see.
//!
//! It takes the text of a policy and a loaded rule set, and returns findings: which rules are blind under that policy,
//! which techniques leave no trace, where the policy writes credentials to disk, how large an event can be. It also
//! writes a policy that serves a rule set. It reads no file and evaluates no real event.
//!
//! ```text
//! policy text ──► read ──► model ──────────┐
//!                          first match wins ▼
//!                                       coverage ──► findings, recommend
//! rule set ──► tristate, abstract_event ───┘
//!              three-valued evaluation over the catalog of requests
//! ```
//!
//! What a rule needs is not listed anywhere. It follows from the rule's condition, which is evaluated over every kind of
//! request ([`requests`]) with what an event of that kind can contain at a stage and a level. Whatever is unknown then
//! may have any value, so that a rule is called blind only if it cannot fire at all.

mod abstract_event;
mod abstract_value;
pub(crate) mod coverage;
pub(crate) mod findings;
pub mod model;
pub mod read;
pub(crate) mod recommend;
pub mod requests;
mod rule_fields;
pub(crate) mod scenarios;
mod tristate;

pub use coverage::{Coverage, Verdict, coverage};
pub use model::{Level, Policy, Stage};
