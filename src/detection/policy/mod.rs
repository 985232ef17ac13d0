//! Determines what rules can see under an apiserver's audit policy.
//!
//! It takes the text of a policy and a loaded rule set, and returns findings: which rules are blind under that policy, which techniques
//! leave no trace, where the policy writes credentials to disk, how large an event can be. It also generates a policy for a rule set. It
//! reads no file and evaluates no real event.
//!
//! ```text
//! policy text ──► read ──► model ──────────┐
//!                          first match wins ▼
//!                                       coverage ──► findings, recommend
//! rule set ──► tristate, abstract_event ───┘
//!              three-valued evaluation over the catalog of requests
//! ```
//!
//! The needs of a rule are not listed anywhere. They follow from its condition, which is evaluated for every kind of request ([`requests`])
//! with the possible content of such an event at a stage and a level. Unknown parts may have any value, so a rule is only called blind if
//! it cannot fire at all.

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
