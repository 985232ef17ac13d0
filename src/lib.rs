//! pullwatch detects who reads the registry credentials of a Kubernetes cluster, from the audit events of its apiserver.
//!
//! # Layers
//!
//! ```text
//! text ──► detection ──► daemon ──► cli
//! ```
//!
//! * `text`: YAML with positions, diagnostics, suggestions, time spans.
//! * `detection`: from bytes of audit logs to alerts. No I/O, threads, async runtime or logging.
//! * `daemon`: configuration, sources, pipeline, store, sinks, HTTP server and metrics.
//! * `cli`: arguments and output of the commands.
//!
//! A layer uses only those to its left. Without the default feature `daemon` the crate is `text`, `detection` and the API
//! below; with it, the crate also contains the daemon and the commands.
//!
//! # Embedding
//!
//! Load [`Rules`], compile an [`Engine`], evaluate bytes in a [`Session`], and read each [`Alert`]:
//!
//! ```
//! use pullwatch::{Engine, RuleFile, Rules, Settings};
//!
//! let file = RuleFile {
//!     name: "rules.yaml".into(),
//!     text: r"
//! - rule: Secret Read
//!   desc: A secret was read.
//!   condition: ka.verb = get and ka.target.resource = secrets
//!   output: '%ka.user.name read %ka.target.name'
//!   priority: WARNING
//! "
//!     .into(),
//! };
//! let rules = Rules::load(&[file])?;
//! let engine = Engine::new(&rules, Settings::default());
//! let mut session = engine.session();
//!
//! let event = br#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","stage":"ResponseComplete","verb":"get",
//!     "user":{"username":"jane"},"objectRef":{"resource":"secrets","namespace":"prod","name":"regcred"},
//!     "responseStatus":{"code":200},"stageTimestamp":"2026-01-01T00:00:00.000000Z"}"#;
//! let mut messages = Vec::new();
//! session.evaluate_record(event, &mut |alert| {
//!     messages.push(format!("{}: {}", alert.priority(), alert.message()));
//! });
//! assert_eq!(messages, ["Warning: jane read regcred"]);
//! # Ok::<(), pullwatch::RuleErrors>(())
//! ```
//!
//! `examples/embed.rs` evaluates a log from standard input with the shipped rules. Everything outside of this page is internal
//! and changes without notice.

// Some parts of the library (reports, policies, saved state) are only used by the commands and the daemon.
#![cfg_attr(not(feature = "daemon"), allow(dead_code, unused_imports))]

mod embed;

// Private, so that the compiler finds unused items. Items with self-explanatory names have no documentation.
#[cfg(feature = "daemon")]
mod cli;
#[cfg(feature = "daemon")]
#[allow(missing_docs)]
mod daemon;
#[allow(missing_docs)]
mod detection;
#[doc(hidden)]
pub mod internals;
mod shipped;
mod text;

/// Runs the command line: what `main` does.
#[cfg(feature = "daemon")]
#[doc(hidden)]
pub use cli::run;
pub use detection::alert::{AlertId, Priority};
pub use detection::engine::alert::Alert;
pub use embed::{Engine, RuleErrors, Rules, Session, Settings};
pub use text::diagnostics::{Diagnostic, Severity, SourceFile as RuleFile};
