//! Evaluation of compiled rules: which rules an event matches, and the alerts of the matches.
//!
//! Takes a checked [`RuleSet`](crate::detection::rules::ast::RuleSet) and events, returns matches and redacted alerts. Nothing here does
//! I/O, keeps an event beyond its evaluation, or depends on where an event came from.
//!
//! ```text
//! RuleSet ──► plan ──► prefilter   candidate lines: those that can match at all
//!                 ├──► evaluator   the rules that an event matches, by its head first
//!                 └──► alert       the alert of a match, redacted
//! ```

pub mod alert;
pub mod alert_context;
mod alert_fields;
pub mod compare;
pub mod evaluator;
// Used by the commands only.
#[cfg(feature = "daemon")]
pub mod explain;
pub mod extract;
pub mod glob;
pub mod plan;
pub mod prefilter;
pub mod transform;
pub mod value;
