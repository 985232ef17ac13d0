//! The embedding API: load rules, evaluate audit events, read alerts.
//!
//! A thin facade over [`crate::detection`]. It takes rule files and bytes, and calls back with redacted alerts; it does no I/O
//! and starts no threads.

use std::fmt;

use crate::detection::alert::Priority;
use crate::detection::detector::{self, Detector};
use crate::detection::engine::alert::Alert;
use crate::detection::rules::ast::RuleSet;
use crate::detection::rules::{self, Matching};
use crate::text::diagnostics::{Diagnostic, SourceFile, render};

/// A rule set that was parsed and checked.
#[derive(Clone, Debug)]
pub struct Rules(RuleSet);

impl Rules {
    /// Loads rule files, in this order: later files can override lists, macros and rules of earlier ones.
    ///
    /// # Errors
    ///
    /// If a file is invalid: with all errors of all files. Warnings are not errors.
    pub fn load(files: &[SourceFile]) -> Result<Self, RuleErrors> {
        let loaded = rules::load(files, &rules::Options::default());
        if loaded.has_errors() {
            return Err(RuleErrors {
                rendered: render(&loaded.diagnostics, files, false),
                all: loaded.diagnostics,
            });
        }
        Ok(Rules(loaded.rules))
    }

    /// Loads the rules that ship with pullwatch.
    ///
    /// # Errors
    ///
    /// None in a released version: its tests load them.
    pub fn shipped() -> Result<Self, RuleErrors> {
        Self::load(&crate::shipped::files())
    }

    /// Returns the number of rules, without correlations.
    pub fn len(&self) -> usize {
        self.0.rules.len()
    }

    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        self.0.rules.is_empty()
    }
}

/// Invalid rule files. `Display` prints all diagnostics with their source lines.
#[derive(Debug)]
pub struct RuleErrors {
    rendered: String,
    all: Vec<Diagnostic>,
}

impl RuleErrors {
    /// Returns errors and warnings in the order of the files.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.all
    }
}

impl fmt::Display for RuleErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rendered)
    }
}

impl std::error::Error for RuleErrors {}

/// Settings of an [`Engine`].
#[derive(Clone, Debug)]
pub struct Settings {
    /// Rules of lower priority are disabled.
    pub minimum_priority: Priority,
    /// Whether only the first rule that an event matches makes an alert.
    pub first_match: bool,
    /// Host name in alerts.
    pub hostname: String,
    /// Longer events are truncated before evaluation, in bytes.
    pub max_event_size: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            minimum_priority: Priority::Debug,
            first_match: false,
            hostname: String::new(),
            max_event_size: 64 << 20,
        }
    }
}

/// Compiled rules. It is immutable and can be shared between threads.
#[derive(Debug)]
pub struct Engine(Detector);

impl Engine {
    /// Compiles rules.
    pub fn new(rules: &Rules, settings: Settings) -> Self {
        Engine(Detector::new(
            &rules.0,
            detector::Options {
                matching: if settings.first_match { Matching::First } else { Matching::All },
                minimum: settings.minimum_priority,
                hostname: settings.hostname,
                max_event_size: settings.max_event_size,
                ..detector::Options::default()
            },
        ))
    }

    /// Starts a session, with empty state.
    pub fn session(&self) -> Session<'_> {
        Session(self.0.session())
    }
}

/// The evaluation of one stream of events: what was learned from earlier events, windows of correlations and throttles.
#[derive(Debug)]
pub struct Session<'e>(detector::Session<'e>);

impl Session<'_> {
    /// Evaluates a buffer that starts and ends at record boundaries: JSON lines as the apiserver writes them, an `EventList`, or a
    /// known envelope around events (container logs, CloudWatch, Azure, Google …). Malformed records are skipped.
    pub fn evaluate(&mut self, bytes: &[u8], on_alert: &mut dyn FnMut(&Alert<'_>)) {
        self.0.chunk(bytes, on_alert);
    }

    /// Evaluates a single record, such as a message of a queue: an event or a list of events, possibly over several lines or
    /// compressed as a whole.
    pub fn evaluate_record(&mut self, record: &[u8], on_alert: &mut dyn FnMut(&Alert<'_>)) {
        self.0.message(record, on_alert);
    }

    /// Ends the stream: closes the windows of correlations that are still open.
    pub fn finish(mut self, on_alert: &mut dyn FnMut(&Alert<'_>)) {
        self.0.finish(on_alert);
    }
}
