//! Compiled rules against an event: which rules match, and what their alerts say.
//!
//! In come a checked [`RuleSet`](crate::detection::rules::ast::RuleSet) and events; out come matches. Nothing here does
//! I/O, keeps an event longer than it takes to judge it, or knows where it came from.
//!
//! ```text
//! RuleSet ──► plan ──► prefilter   which lines can match at all
//!                 ├──► judge       which rules match an event: head first, then the rest
//!                 └──► alert       what a match says, with secrets hidden
//! ```

pub mod alert;
pub mod alert_context;
pub mod compare;
pub mod evaluator;
pub mod explain;
pub mod extract;
pub mod glob;
pub mod plan;
pub mod prefilter;
pub mod transform;
pub mod value;
