//! The rule language: from the text of rule files to a checked [`ast::RuleSet`], or to errors with a place.
//!
//! ```text
//! text ──► yaml ──► definitions ──► parse ──► resolve ──► ast
//!          tree     lists, macros,  syntax    names,      what the engine
//!                   rules,          trees     types       compiles
//!                   correlations
//! ```
//!
//! Files come in as text that anybody may have written, in load order. All errors of all files come out at
//! once, each with its place ([`crate::text::diagnostics`]). Nothing here reads a file, and nothing here knows an event.

use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

pub mod ast;
pub mod definitions;
pub mod fields;
mod lint;
pub mod number;
pub mod parse;
pub mod posix;
mod resolve;
pub mod syntax;
pub mod template;

pub use crate::text::diagnostics::{Diagnostic, Severity, SourceFile, render};

use crate::text::diagnostics::Span;
use ast::{Place, Rule, RuleSet};
use definitions::{Definitions, SOURCE};
use resolve::{Resolver, RuleState, Said};

/// The macros and lists that rules of this source rely on, without any other file.
pub const PRELUDE: &str = include_str!("prelude.yaml");

/// Whether each rule that matches an event makes an alert, or only the first in load order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Matching {
    /// Only the first.
    First,
    /// Each.
    #[default]
    All,
}

/// How to load.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Warn of rules that never fire under this.
    pub matching: Matching,
}

/// What came of loading.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The rules that are sound.
    pub rules: RuleSet,
    /// What is wrong or odd, in file order.
    pub diagnostics: Vec<Diagnostic>,
    /// How many lists the files define.
    pub lists: usize,
    /// How many macros the files define.
    pub macros: usize,
}

impl Loaded {
    /// Whether the rule set is not to be used.
    pub fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    /// How many diagnostics are that bad.
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
    for rule in definitions.rules.iter().filter(|rule| rule.source == SOURCE) {
        let before = resolver.diagnostics.len();
        resolver.unknown_fields = false;
        let throttle = resolver.throttle(rule);
        states.insert(&rule.name, RuleState::Failed);
        match resolver.rule(rule).and_then(|(condition, output)| Ok((condition, output, throttle?))) {
            Ok((condition, output, throttle)) => {
                let (index, enabled) = (rules.len(), rule.enabled);
                states.insert(&rule.name, RuleState::Sound { index, enabled });
                let mut tags = rule.tags.clone();
                tags.sort_unstable();
                tags.dedup();
                let place = place(files, &rule.span);
                let resolved = Rule {
                    name: rule.name.as_str().into(),
                    desc: rule.desc.trim().to_owned(),
                    condition,
                    output,
                    priority: rule.priority,
                    tags,
                    enabled: rule.enabled,
                    throttle,
                    place,
                };
                rules.push((resolved, rule.span.clone()));
            }
            Err(Said) if rule.skip_if_unknown && resolver.unknown_fields => {
                let mut said = resolver.diagnostics.split_off(before);
                said.retain(|diagnostic| diagnostic.code != "unknown-field");
                states.insert(&rule.name, RuleState::Skipped);
                resolver.diagnostics.extend(said);
                let message = format!(
                    "rule `{}` asks for a field that does not exist; it is skipped, as it says",
                    rule.name
                );
                resolver
                    .diagnostics
                    .push(Diagnostic::warning("skipped", message, rule.span.clone()).label("skipped"));
            }
            Err(Said) => {}
        }
    }
    let credential_names = resolver.credential_names();
    let correlations = resolver.correlations(&states, |span| place(files, span));
    resolver.unused();
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

fn place(files: &[SourceFile], span: &Span) -> Place {
    match files.get(span.file) {
        Some(file) => {
            let before = file.text.as_bytes().get(..span.range.start).unwrap_or_default();
            Place { file: file.name.clone(), line: memchr::memchr_iter(b'\n', before).count() + 1 }
        }
        None => Place { file: Arc::from("prelude.yaml"), line: 1 },
    }
}
