//! The rule language: from the text of rule files to a checked [`ast::RuleSet`], or to diagnostics.
//!
//! ```text
//! text ──► yaml ──► definitions ──► parse ──► resolve ──► ast
//!          tree     lists, macros,  syntax    names,      what the engine
//!                   rules,          trees     types       compiles
//!                   correlations
//! ```
//!
//! Takes the untrusted text of rule files in load order, returns a rule set and all diagnostics of all files, each with its location
//! ([`crate::text::diagnostics`]). Does no I/O, and never reads an audit event.

use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

pub mod ast;
pub mod definitions;
pub mod fields;
mod lint;
pub mod number;
mod other_source;
pub mod parse;
pub mod posix;
mod resolve;
pub mod syntax;
pub mod template;

pub use crate::text::diagnostics::{Diagnostic, Severity, SourceFile, render};

use crate::text::diagnostics::Span;
use crate::text::escape::visible;
use crate::text::suggest::did_you_mean;
use ast::{Location, Rule, RuleSet};
use definitions::{Definitions, RuleDefinition, SOURCE};
use resolve::{Reported, Resolver, RuleState};

/// Macros and lists that are predefined, as in the reference.
pub const PRELUDE: &str = include_str!("prelude.yaml");

/// Whether every matching rule makes an alert, or only the first in load order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Matching {
    First,
    #[default]
    All,
}

/// Options of [`load`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Warn about rules that never match in this mode.
    pub matching: Matching,
}

/// The result of [`load`].
#[derive(Debug, Default)]
pub struct Loaded {
    /// The valid rules.
    pub rules: RuleSet,
    /// Errors and warnings, in the order of the files.
    pub diagnostics: Vec<Diagnostic>,
    /// Number of lists that the files define.
    pub lists: usize,
    /// Number of macros that the files define.
    pub macros: usize,
    /// Sources of rules that were skipped because they are not about audit events, each once.
    pub other_sources: Vec<String>,
    /// The names of these rules.
    pub skipped_rules: Vec<String>,
}

/// Maximum number of skipped rules named in a message.
const MAX_SKIPPED_NAMES: usize = 5;

impl Loaded {
    /// Whether the rule set must not be used.
    pub fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    /// Returns the reason why no rule is left to evaluate; `None` if there is one.
    pub fn why_empty(&self) -> Option<String> {
        let RuleSet { rules, correlations, .. } = &self.rules;
        if rules.iter().any(|rule| rule.enabled) {
            return None;
        }
        let disabled = rules.len() + correlations.len();
        Some(match &self.other_sources[..] {
            [] if disabled == 0 => "the rule files define no rule".to_owned(),
            [] => "all rules are disabled".to_owned(),
            sources => {
                let sources: Vec<String> = sources.iter().map(|source| format!("`{source}`")).collect();
                let is_misspelled =
                    self.other_sources.iter().any(|source| did_you_mean(source, [SOURCE]).is_some());
                let hint =
                    if is_misspelled { format!("; did you mean `source: {SOURCE}`?") } else { String::new() };
                format!(
                    "the rules have the source {}, and pullwatch evaluates those of `{SOURCE}`{hint}",
                    sources.join(", ")
                )
            }
        })
    }

    /// Returns which rules were skipped because they are not about audit events; `None` if there are none.
    pub fn skipped(&self) -> Option<String> {
        let mut names: Vec<String> = self
            .skipped_rules
            .iter()
            .take(MAX_SKIPPED_NAMES)
            .map(|name| format!("`{}`", visible(name)))
            .collect();
        let others = self.skipped_rules.len() - names.len();
        if others > 0 {
            names.push(format!("and {others} more"));
        }
        let noun = if self.skipped_rules.len() == 1 { "rule" } else { "rules" };
        (!names.is_empty())
            .then(|| format!("skipped {noun} of another source than `{SOURCE}`: {}", names.join(", ")))
    }

    /// Returns the number of diagnostics of a severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.diagnostics.iter().filter(|diagnostic| diagnostic.severity == severity).count()
    }
}

/// Loads rule files in this order, after the prelude.
pub fn load(files: &[SourceFile], options: &Options) -> Loaded {
    let mut definitions = Definitions::default();
    let prelude = SourceFile { name: Arc::from("prelude.yaml"), text: PRELUDE.to_owned() };
    definitions.read(files.len(), &prelude, true);
    for (index, file) in files.iter().enumerate() {
        definitions.read(index, file, false);
    }
    let mut diagnostics = std::mem::take(&mut definitions.diagnostics);

    let mut resolver = Resolver::new(&definitions);
    let mut rules: Vec<(Rule, Span)> = Vec::new();
    let mut states: HashMap<&str, RuleState> = HashMap::new();
    let mut about_system_calls = Vec::new();
    for rule in definitions.rules.iter().filter(|rule| rule.source == SOURCE) {
        let before = resolver.diagnostics.len();
        resolver.unknown_fields = false;
        let throttle = resolver.throttle(rule.throttle.as_ref(), &rule.span);
        let show = resolver.show(&rule.show);
        states.insert(&rule.name, RuleState::Failed);
        match resolver.rule(rule).and_then(|(condition, output)| Ok((condition, output, throttle?, show?))) {
            Ok((condition, output, throttle, show)) => {
                let (index, enabled) = (rules.len(), rule.enabled);
                states.insert(&rule.name, RuleState::Valid { index, enabled });
                let mut tags = rule.tags.clone();
                tags.sort_unstable();
                tags.dedup();
                let location = location(files, &rule.span);
                let resolved = Rule {
                    name: rule.name.as_str().into(),
                    desc: rule.desc.trim().to_owned(),
                    condition,
                    output,
                    priority: rule.priority,
                    tags,
                    enabled: rule.enabled,
                    throttle,
                    makes_alerts: rule.makes_alerts,
                    show,
                    location,
                };
                rules.push((resolved, rule.span.clone()));
            }
            Err(Reported) if rule.skip_if_unknown && resolver.unknown_fields => {
                let mut said = resolver.diagnostics.split_off(before);
                said.retain(|diagnostic| diagnostic.code != "unknown-field");
                states.insert(&rule.name, RuleState::Skipped);
                resolver.diagnostics.extend(said);
                let message = format!(
                    "rule `{}` uses an unknown field; it is skipped because of `skip-if-unknown-filter`",
                    rule.name
                );
                resolver
                    .diagnostics
                    .push(Diagnostic::warning("skipped", message, rule.span.clone()).label("skipped"));
            }
            Err(Reported) if !rule.has_source && other_source::is_about_system_calls(rule, &definitions) => {
                resolver.discard_since(before);
                states.insert(&rule.name, RuleState::Skipped);
                about_system_calls.push(rule);
            }
            Err(Reported) => {}
        }
    }
    if let Some(first) = about_system_calls.first() {
        let message = match about_system_calls.len() - 1 {
            0 => format!("rule `{}` is about system calls; it is skipped", first.name),
            others => {
                format!("rule `{}` and {others} more are about system calls; they are skipped", first.name)
            }
        };
        resolver.diagnostics.push(
            Diagnostic::warning("other-source", message, first.span.clone())
                .label(format!("a rule without `source` that uses no field of `{SOURCE}`")),
        );
    }
    let credential_names = resolver.credential_names();
    let correlations = resolver.correlations(&states, |span| location(files, span));
    let skipped: Vec<(&RuleDefinition, &str)> = definitions
        .rules
        .iter()
        .filter(|rule| rule.source != SOURCE)
        .map(|rule| (rule, rule.source.as_str()))
        .chain(about_system_calls.into_iter().map(|rule| (rule, "syscall")))
        .collect();
    let skipped_rules = skipped.iter().map(|(rule, _)| rule.name.clone()).collect();
    resolver.unused(&skipped.iter().map(|(rule, _)| rule.span.file).collect());
    let mut other_sources: Vec<String> = skipped.iter().map(|(_, source)| (*source).to_owned()).collect();
    other_sources.sort_unstable();
    other_sources.dedup();
    diagnostics.append(&mut resolver.diagnostics);
    if options.matching == Matching::First {
        diagnostics.extend(lint::shadowed(&rules));
    }
    diagnostics.sort_by_key(|a| (a.span.file, a.span.range.start));
    Loaded {
        rules: RuleSet {
            version: version(files),
            rules: rules.into_iter().map(|(rule, _)| rule).collect(),
            correlations,
            credential_names,
        },
        diagnostics,
        lists: definitions.lists.values().filter(|list| !list.is_prelude).count(),
        other_sources,
        skipped_rules,
        macros: definitions.macros.values().filter(|known| !known.is_prelude).count(),
    }
}

fn version(files: &[SourceFile]) -> Arc<str> {
    let mut hash = Sha256::new();
    for file in files {
        hash.update((file.text.len() as u64).to_le_bytes());
        hash.update(&file.text);
    }
    let hash: [u8; 32] = hash.finalize().into();
    let start = hash[..6].iter().fold(0, |start: u64, byte| start << 8 | u64::from(*byte));
    format!("{start:012x}").into()
}

fn location(files: &[SourceFile], span: &Span) -> Location {
    match files.get(span.file) {
        Some(file) => {
            let before = file.text.as_bytes().get(..span.range.start).unwrap_or_default();
            Location { file: file.name.clone(), line: memchr::memchr_iter(b'\n', before).count() + 1 }
        }
        None => Location { file: Arc::from("prelude.yaml"), line: 1 },
    }
}

#[cfg(test)]
mod dialect_tests;
