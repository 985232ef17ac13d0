//! Reads definitions: takes YAML nodes, returns lists, macros, rules and correlations with `append` and `override` applied in load order.
//! Conditions are not parsed here.

mod correlations;
mod exceptions;
mod rules;
mod versions;

pub use correlations::{CorrelationDefinition, ThrottleDefinition};

use std::collections::HashMap;
use std::sync::Arc;

use crate::detection::alert::Priority;
use crate::text::diagnostics::{Diagnostic, SourceFile, Span};
use crate::text::document::first_line;
use crate::text::located::Located;
use crate::text::suggest::did_you_mean;
use crate::text::yaml::{self, Entry, Node};

/// The event source of all rules.
pub const SOURCE: &str = "k8s_audit";

#[derive(Debug)]
pub struct List {
    /// Not expanded.
    pub items: Vec<Located>,
    /// Location of the name.
    pub span: Span,
    pub is_prelude: bool,
}

#[derive(Debug)]
pub struct Macro {
    pub condition: Located,
    /// Location of the name.
    pub span: Span,
    pub is_prelude: bool,
    /// Position in the order of definition. A macro can use those below the index in its `sees`.
    pub index: usize,
    /// Position of the last definition or change, in the same order.
    pub sees: usize,
}

/// An exception of a rule.
#[derive(Clone, Debug)]
pub struct Exception {
    pub name: String,
    pub span: Span,
    pub fields: Vec<Located>,
    /// An operator per field; empty for the default.
    pub comparisons: Vec<Located>,
    /// Scalar form: one field and its values, instead of rows of values.
    pub is_scalar: bool,
    /// Rows with a value per field; in scalar form, a single row with all values.
    pub rows: Vec<Vec<Cell>>,
}

#[derive(Clone, Debug)]
pub enum Cell {
    /// A value, or the name of a list.
    One(Located),
    Many(Vec<Located>),
}

#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a key of the rule file")]
pub struct RuleDefinition {
    pub name: String,
    /// Location of the name.
    pub span: Span,
    pub desc: String,
    pub condition: Located,
    pub output: Located,
    pub priority: Priority,
    /// Unsorted.
    pub tags: Vec<String>,
    pub enabled: bool,
    pub source: String,
    /// Whether the rule names its source. In the reference engine, a rule without a source is about system calls.
    pub has_source: bool,
    pub exceptions: Vec<Exception>,
    /// `skip-if-unknown-filter`: skip the rule instead of reporting unknown fields.
    pub skip_if_unknown: bool,
    pub throttle: Option<ThrottleDefinition>,
    /// Whether matches make alerts; if not, they only feed correlations.
    pub makes_alerts: bool,
    /// Paths that the output exempts from redaction: JSON pointers, or `ka.uri.param[NAME]`.
    pub show: Vec<Located>,
}

/// All definitions.
#[derive(Debug, Default)]
pub struct Definitions {
    pub lists: HashMap<String, List>,
    pub macros: HashMap<String, Macro>,
    /// In load order.
    pub rules: Vec<RuleDefinition>,
    /// In load order.
    pub correlations: Vec<CorrelationDefinition>,
    pub diagnostics: Vec<Diagnostic>,
    rule_index: HashMap<String, usize>,
    correlation_index: HashMap<String, usize>,
    clock: usize,
}

const ITEMS: [&str; 6] =
    ["rule", "macro", "list", "correlation", "required_engine_version", "required_plugin_versions"];
const RULE_KEYS: [&str; 18] = [
    "rule",
    "condition",
    "output",
    "desc",
    "priority",
    "source",
    "enabled",
    "tags",
    "exceptions",
    "override",
    "append",
    "warn_evttypes",
    "capture",
    "capture_duration",
    "skip-if-unknown-filter",
    "throttle",
    "alert",
    "show",
];
const MACRO_KEYS: [&str; 4] = ["macro", "condition", "override", "append"];
const LIST_KEYS: [&str; 4] = ["list", "items", "override", "append"];

/// The effect of an item on an existing definition of the same name.
#[derive(Clone, Copy, PartialEq)]
enum Change {
    /// Define or redefine.
    Define,
    /// `append: true`
    Append,
    /// `override: {…}`
    Override,
}

/// The state of reading one file.
struct DefinitionReader<'d, 'f> {
    definitions: &'d mut Definitions,
    file: usize,
    text: &'f str,
    is_prelude: bool,
}

type Parsed<T> = Result<T, ()>;

impl Definitions {
    /// Adds the definitions of a file. `file` is its index among all files.
    pub fn read(&mut self, file: usize, source: &SourceFile, is_prelude: bool) {
        let documents = match yaml::parse(&source.text) {
            Ok(documents) => documents,
            Err(error) => {
                let span = Span { file, range: error.range };
                self.diagnostics.push(Diagnostic::error(
                    "yaml",
                    format!("not valid YAML: {}", error.message),
                    span,
                ));
                return;
            }
        };
        for (key, range) in &documents.repeated_keys {
            let span = Span { file, range: range.clone() };
            self.diagnostics.push(
                Diagnostic::warning(
                    "repeated-key",
                    format!("`{key}` is given twice; the first one is used"),
                    span,
                )
                .label("ignored"),
            );
        }
        let mut reader = DefinitionReader { definitions: self, file, text: &source.text, is_prelude };
        for root in &documents.roots {
            if root.is_null() {
                continue;
            }
            match root.sequence() {
                Some(items) => items.iter().for_each(|item| reader.item(item)),
                None => {
                    let span = reader.span(root);
                    reader.report(
                        Diagnostic::error("no-sequence", "a rule file must be a sequence of items", span)
                            .label("expected `- rule: …`, `- macro: …` or `- list: …`"),
                    );
                }
            }
        }
    }

    fn next_position(&mut self) -> usize {
        self.clock += 1;
        self.clock
    }
}

impl DefinitionReader<'_, '_> {
    fn report(&mut self, diagnostic: Diagnostic) {
        self.definitions.diagnostics.push(diagnostic);
    }

    fn fail<T>(
        &mut self,
        code: &'static str,
        message: impl Into<String>,
        span: Span,
        label: &str,
    ) -> Parsed<T> {
        self.report(Diagnostic::error(code, message, span).label(label));
        Err(())
    }

    fn span(&self, node: &Node) -> Span {
        first_line(self.file, self.text, node)
    }

    fn key_span(&self, entry: &Entry) -> Span {
        Span { file: self.file, range: entry.key_range.clone() }
    }

    fn located(&self, node: &Node) -> Located {
        Located::new(node, self.file, self.text)
    }

    fn item(&mut self, item: &Node) {
        // An empty item, as a lone `-` leaves it.
        if item.is_null() {
            return;
        }
        let Some(entries) = item.mapping() else {
            let span = self.span(item);
            self.report(
                Diagnostic::error("no-item", "an item must be a mapping", span)
                    .label("expected `rule:`, `macro:` or `list:`"),
            );
            return;
        };
        let kind = ITEMS.into_iter().find(|kind| entries.iter().any(|entry| entry.key == *kind));
        // Errors were reported already.
        let _ = match kind {
            Some("rule") => self.rule(item),
            Some("macro") => self.macro_item(item),
            Some("list") => self.list(item),
            Some("correlation") => self.correlation(item),
            Some("required_engine_version") => self.engine_version(item),
            Some("required_plugin_versions") => self.plugin_versions(item),
            _ => {
                if let Some(entry) = entries.first() {
                    let span = self.key_span(entry);
                    let help = did_you_mean(&entry.key, ITEMS);
                    self.report(
                        Diagnostic::warning(
                            "unknown-item",
                            format!("`{}` is not a kind of item; it is ignored", entry.key),
                            span,
                        )
                        .label("expected `rule`, `macro` or `list`")
                        .maybe_help(help),
                    );
                }
                Ok(())
            }
        };
    }

    fn unknown_keys(&mut self, item: &Node, known: &[&str]) {
        for entry in item.mapping().unwrap_or_default() {
            if !known.contains(&&*entry.key) {
                let span = self.key_span(entry);
                let help = did_you_mean(&entry.key, known.iter().copied());
                let message = format!("`{}` is not a key of this item; it is ignored", entry.key);
                self.report(
                    Diagnostic::warning("unknown-key", message, span).label("unknown key").maybe_help(help),
                );
            }
        }
    }

    /// Returns the scalar value of a key.
    fn scalar<'n>(&mut self, item: &'n Node, key: &str) -> Parsed<Option<&'n Arc<Node>>> {
        match item.get(key) {
            None => Ok(None),
            Some(node) if node.text().is_some() => Ok(Some(node)),
            Some(node) => {
                let span = self.span(node);
                self.fail("not-a-text", format!("`{key}` must be a string"), span, "expected a text")
            }
        }
    }

    fn required<'n>(
        &mut self,
        item: &'n Node,
        key: &'static str,
        what: &str,
        span: &Span,
    ) -> Parsed<&'n Arc<Node>> {
        match self.scalar(item, key)? {
            Some(node) if !node.is_null() => Ok(node),
            Some(node) => {
                let span = self.span(node);
                self.fail("missing-key", format!("`{key}` of this {what} is empty"), span, "expected a text")
            }
            None => self.fail(
                "missing-key",
                format!("this {what} has no `{key}`"),
                span.clone(),
                &format!("add `{key}:`"),
            ),
        }
    }

    /// Checks `capture_duration`, in milliseconds, which has no effect.
    fn capture_duration(&mut self, item: &Node) -> Parsed<()> {
        let Some(node) = self.scalar(item, "capture_duration")? else { return Ok(()) };
        if node.text().unwrap_or_default().parse::<u32>().is_ok() {
            return Ok(());
        }
        let span = self.span(node);
        self.fail(
            "not-a-number",
            "`capture_duration` must be a number of milliseconds".to_owned(),
            span,
            "expected a number such as 5000",
        )
    }

    fn boolean(&mut self, item: &Node, key: &str) -> Parsed<Option<bool>> {
        let Some(node) = self.scalar(item, key)? else { return Ok(None) };
        match yaml::boolean(node.text().unwrap_or_default()) {
            Some(value) => Ok(Some(value)),
            None => {
                let span = self.span(node);
                self.fail(
                    "not-a-boolean",
                    format!("`{key}` must be true or false"),
                    span,
                    "expected true or false",
                )
            }
        }
    }

    fn name<'n>(&mut self, item: &'n Node, kind: &'static str) -> Parsed<(&'n str, Span)> {
        let whole = self.span(item);
        let node = self.required(item, kind, kind, &whole)?;
        let span = self.span(node);
        match node.text() {
            Some(name) if !name.is_empty() => Ok((name, span)),
            _ => self.fail("missing-key", format!("this {kind} has no name"), span, "expected a name"),
        }
    }

    /// Returns the effect of an item, and with `override` that of each key (true: append).
    fn change(
        &mut self,
        item: &Node,
        kind: &str,
        keys: &[(&str, bool)],
    ) -> Parsed<(Change, HashMap<String, bool>)> {
        let appends = self.boolean(item, "append")?.unwrap_or(false);
        let Some(overrides) = item.get("override") else {
            if let Some(entry) = item.mapping().unwrap_or_default().iter().find(|entry| entry.key == "append")
            {
                let span = self.key_span(entry);
                self.report(
                    Diagnostic::warning("deprecated-append", "`append` is deprecated", span)
                        .help("write `override: {condition: append}`, with each key that is appended to"),
                );
            }
            return Ok((if appends { Change::Append } else { Change::Define }, HashMap::new()));
        };
        let span = self.span(overrides);
        if appends {
            return self.fail(
                "override",
                "`append` and `override` exclude each other",
                span,
                "leave one of them out",
            );
        }
        let Some(entries) = overrides.mapping() else {
            return self.fail(
                "override",
                "`override` takes a mapping",
                span,
                "expected `condition: append` and the like",
            );
        };
        let mut changes = HashMap::new();
        let mut wrong = false;
        for entry in entries {
            let place = self.key_span(entry);
            let Some((_, can_append)) = keys.iter().find(|(key, _)| *key == entry.key) else {
                let help = did_you_mean(&entry.key, keys.iter().map(|(key, _)| *key));
                let message = format!("`{}` of a {kind} cannot be overridden", entry.key);
                self.report(
                    Diagnostic::error("override", message, place).label("unknown key").maybe_help(help),
                );
                wrong = true;
                continue;
            };
            match entry.value.text() {
                Some("append") if *can_append => drop(changes.insert(entry.key.clone(), true)),
                Some("replace") => drop(changes.insert(entry.key.clone(), false)),
                _ => {
                    let place = self.span(&entry.value);
                    let expected =
                        if *can_append { "expected `append` or `replace`" } else { "expected `replace`" };
                    let message = format!("`{}` cannot be overridden like this", entry.key);
                    self.report(Diagnostic::error("override", message, place).label(expected));
                    wrong = true;
                    continue;
                }
            }
            if item.get(&entry.key).is_none() {
                let message = format!("`{}` is listed in `override`, but missing", entry.key);
                self.report(
                    Diagnostic::error("override", message, place)
                        .label(format!("add `{}:` to this item", entry.key)),
                );
                wrong = true;
            }
        }
        for entry in item.mapping().unwrap_or_default() {
            let is_named = keys.iter().any(|(key, _)| *key == entry.key);
            if is_named && !entries.iter().any(|other| other.key == entry.key) {
                let place = self.key_span(entry);
                let message = format!("`{}` is missing in `override`", entry.key);
                let help = format!("add `{}: replace` to `override`", entry.key);
                self.report(
                    Diagnostic::error("override", message, place).label("not in `override`").help(help),
                );
                wrong = true;
            }
        }
        if wrong { Err(()) } else { Ok((Change::Override, changes)) }
    }

    fn undefined<T>(&mut self, kind: &str, name: &str, span: Span, known: &[String]) -> Parsed<T> {
        let help = did_you_mean(name, known.iter().map(String::as_str));
        let message = format!("{kind} `{name}` is not defined, so it cannot be changed");
        self.report(
            Diagnostic::error("undefined", message, span).label("not defined before").maybe_help(help),
        );
        Err(())
    }

    fn list(&mut self, item: &Node) -> Parsed<()> {
        self.unknown_keys(item, &LIST_KEYS);
        let (name, span) = self.name(item, "list")?;
        let (change, overrides) = self.change(item, "list", &[("items", true)])?;
        let Some(node) = item.get("items") else {
            return self.fail("missing-key", "this list has no `items`", span, "add `items: []`");
        };
        let mut items = Vec::new();
        match node.sequence() {
            Some(nodes) => {
                for node in nodes {
                    if node.text().is_none() {
                        let span = self.span(node);
                        return self.fail(
                            "not-a-text",
                            "a list item must be a string",
                            span,
                            "expected a text",
                        );
                    }
                    items.push(self.located(node));
                }
            }
            None if node.is_null() => {}
            None => {
                let span = self.span(node);
                return self.fail("not-a-list", "`items` takes a sequence", span, "expected [a, b, …]");
            }
        }
        // `items: replace` defines a list that is not defined yet.
        if change == Change::Append || overrides.get("items") == Some(&true) {
            let Some(list) = self.definitions.lists.get_mut(name) else {
                let known: Vec<String> = self.definitions.lists.keys().cloned().collect();
                return self.undefined("list", name, span, &known);
            };
            list.items.extend(items);
            list.is_prelude = self.is_prelude;
            return Ok(());
        }
        let list = List { items, span, is_prelude: self.is_prelude };
        self.definitions.lists.insert(name.to_owned(), list);
        Ok(())
    }

    fn macro_item(&mut self, item: &Node) -> Parsed<()> {
        self.unknown_keys(item, &MACRO_KEYS);
        let (name, span) = self.name(item, "macro")?;
        let (change, overrides) = self.change(item, "macro", &[("condition", true)])?;
        let node = self.required(item, "condition", "macro", &span)?;
        let condition = self.located(node);
        let now = self.definitions.next_position();
        // `condition: replace` defines a macro that is not defined yet.
        if change == Change::Append || overrides.get("condition") == Some(&true) {
            let Some(known) = self.definitions.macros.get_mut(name) else {
                let known: Vec<String> = self.definitions.macros.keys().cloned().collect();
                return self.undefined("macro", name, span, &known);
            };
            known.condition.append(&condition);
            known.sees = now;
            known.is_prelude = self.is_prelude;
            return Ok(());
        }
        let index = self.definitions.macros.get(name).map_or(now, |known| known.index);
        let defined = Macro { condition, span, is_prelude: self.is_prelude, index, sees: now };
        self.definitions.macros.insert(name.to_owned(), defined);
        Ok(())
    }

    fn priority(&mut self, item: &Node) -> Parsed<Option<Priority>> {
        let Some(node) = self.scalar(item, "priority")? else { return Ok(None) };
        let word = node.text().unwrap_or_default();
        if let Some(priority) = Priority::parse(word) {
            return Ok(Some(priority));
        }
        let span = self.span(node);
        let help = match word.to_ascii_lowercase().as_str() {
            "warn" => Some("did you mean `Warning`?".to_owned()),
            "err" => Some("did you mean `Error`?".to_owned()),
            "crit" | "high" => Some("did you mean `Critical`?".to_owned()),
            _ => did_you_mean(word, Priority::ALL.map(Priority::name)),
        };
        self.report(
            Diagnostic::error("priority", format!("`{word}` is not a priority"), span)
                .label("expected Emergency, Alert, Critical, Error, Warning, Notice, Informational or Debug")
                .maybe_help(help),
        );
        Err(())
    }

    fn tags(&mut self, item: &Node) -> Parsed<Vec<String>> {
        let Some(node) = item.get("tags") else { return Ok(Vec::new()) };
        if node.is_null() {
            return Ok(Vec::new());
        }
        let texts = node
            .sequence()
            .and_then(|nodes| nodes.iter().map(|node| node.text().map(str::to_owned)).collect());
        match texts {
            Some(texts) => Ok(texts),
            None => {
                let span = self.span(node);
                self.fail(
                    "not-a-list",
                    "`tags` must be a sequence of strings",
                    span,
                    "expected [k8s, secrets]",
                )
            }
        }
    }
}
