//! From YAML nodes to definitions: what lists, macros and rules the files define, append to and override, one
//! item after the other. Conditions are still text here.

mod correlations;
mod exceptions;
mod rules;
mod versions;

pub use correlations::{ConditionDefinition, CorrelationDefinition, ThrottleDefinition};

use std::collections::HashMap;
use std::sync::Arc;

use crate::detection::alert::Priority;
use crate::text::diagnostics::{Diagnostic, SourceFile, Span};
use crate::text::located::Located;
use crate::text::suggest::did_you_mean;
use crate::text::yaml::{self, Entry, Node};

/// The event source that rules here are about.
pub const SOURCE: &str = "k8s_audit";

/// A list.
#[derive(Debug)]
pub struct List {
    /// Its items, not expanded.
    pub items: Vec<Located>,
    /// Where its name stands.
    pub span: Span,
    /// From the prelude.
    pub is_prelude: bool,
}

/// A macro.
#[derive(Debug)]
pub struct Macro {
    /// What it stands for.
    pub condition: Located,
    /// Where its name stands.
    pub span: Span,
    /// From the prelude.
    pub is_prelude: bool,
    /// Its place among all macros. It sees those before [`Macro::sees`].
    pub index: usize,
    /// When it was last defined or appended to, in the same count.
    pub sees: usize,
}

/// A rule's exception.
#[derive(Clone, Debug)]
pub struct Exception {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub span: Span,
    /// The fields compared.
    pub fields: Vec<Located>,
    /// How each is compared; empty for the default.
    pub comparisons: Vec<Located>,
    /// One field and its values, rather than rows of values for several.
    pub is_scalar: bool,
    /// Rows of values, one for each field; in scalar form one row with all values.
    pub rows: Vec<Vec<Cell>>,
}

/// A value of an exception.
#[derive(Clone, Debug)]
pub enum Cell {
    /// One value, or a list's name.
    One(Located),
    /// Several.
    Many(Vec<Located>, Span),
}

/// A rule.
#[derive(Debug)]
pub struct RuleDefinition {
    /// Its name.
    pub name: String,
    /// Where its name stands.
    pub span: Span,
    /// What it detects.
    pub desc: String,
    /// When it matches.
    pub condition: Located,
    /// What an alert says.
    pub output: Located,
    /// How bad it is.
    pub priority: Priority,
    /// Unsorted.
    pub tags: Vec<String>,
    /// Whether it is on.
    pub enabled: bool,
    /// The event source.
    pub source: String,
    /// What it leaves out.
    pub exceptions: Vec<Exception>,
    /// Leave it out silently where it asks for unknown fields.
    pub skip_if_unknown: bool,
    /// How often it may alert.
    pub throttle: Option<ThrottleDefinition>,
}

/// Everything that the files define.
#[derive(Debug, Default)]
pub struct Definitions {
    /// Lists by name.
    pub lists: HashMap<String, List>,
    /// Macros by name.
    pub macros: HashMap<String, Macro>,
    /// Rules in load order.
    pub rules: Vec<RuleDefinition>,
    /// Correlations in load order.
    pub correlations: Vec<CorrelationDefinition>,
    /// What is wrong.
    pub diagnostics: Vec<Diagnostic>,
    rule_index: HashMap<String, usize>,
    correlation_index: HashMap<String, usize>,
    clock: usize,
}

const ITEMS: [&str; 6] =
    ["rule", "macro", "list", "correlation", "required_engine_version", "required_plugin_versions"];
const RULE_KEYS: [&str; 14] = [
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
    "skip-if-unknown-filter",
    "throttle",
];
const MACRO_KEYS: [&str; 4] = ["macro", "condition", "override", "append"];
const LIST_KEYS: [&str; 4] = ["list", "items", "override", "append"];

/// What an item does to a definition of its name.
#[derive(Clone, Copy, PartialEq)]
enum Change {
    /// Makes it, or makes it anew.
    Define,
    /// `append: true`
    Append,
    /// `override: {…}`
    Override,
}

/// One file on its way.
struct Reader<'d, 'f> {
    definitions: &'d mut Definitions,
    file: usize,
    text: &'f str,
    is_prelude: bool,
}

type Read<T> = Result<T, ()>;

impl Definitions {
    /// Adds what a file defines. `file` is its index among all files.
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
                    format!("`{key}` is given twice; the first counts"),
                    span,
                )
                .label("ignored"),
            );
        }
        let mut reader = Reader { definitions: self, file, text: &source.text, is_prelude };
        for root in &documents.roots {
            if root.is_null() {
                continue;
            }
            match root.sequence() {
                Some(items) => items.iter().for_each(|item| reader.item(item)),
                None => {
                    let span = reader.span(root);
                    reader.say(
                        Diagnostic::error("no-sequence", "a rule file is a sequence of items", span)
                            .label("expected `- rule: …`, `- macro: …` or `- list: …`"),
                    );
                }
            }
        }
    }

    fn tick(&mut self) -> usize {
        self.clock += 1;
        self.clock
    }
}

impl Reader<'_, '_> {
    fn say(&mut self, diagnostic: Diagnostic) {
        self.definitions.diagnostics.push(diagnostic);
    }

    fn fail<T>(
        &mut self,
        code: &'static str,
        message: impl Into<String>,
        span: Span,
        label: &str,
    ) -> Read<T> {
        self.say(Diagnostic::error(code, message, span).label(label));
        Err(())
    }

    fn span(&self, node: &Node) -> Span {
        // A block that goes over many lines is shown by its first.
        let first = self.text.get(node.range.clone()).and_then(|text| text.find('\n'));
        let end = first.map_or(node.range.end, |length| node.range.start + length);
        Span { file: self.file, range: node.range.start..end }
    }

    fn key_span(&self, entry: &Entry) -> Span {
        Span { file: self.file, range: entry.key_range.clone() }
    }

    fn located(&self, node: &Node) -> Located {
        Located::new(node, self.file, self.text)
    }

    fn item(&mut self, item: &Node) {
        let Some(entries) = item.mapping() else {
            let span = self.span(item);
            self.say(
                Diagnostic::error("no-item", "an item is a mapping", span)
                    .label("expected `rule:`, `macro:` or `list:`"),
            );
            return;
        };
        let kind = ITEMS.into_iter().find(|kind| entries.iter().any(|entry| entry.key == *kind));
        // What went wrong is said already.
        let _ = match kind {
            Some("rule") => self.rule(item),
            Some("macro") => self.a_macro(item),
            Some("list") => self.list(item),
            Some("correlation") => self.correlation(item),
            Some("required_engine_version") => self.engine_version(item),
            Some("required_plugin_versions") => self.plugin_versions(item),
            _ => {
                if let Some(entry) = entries.first() {
                    let span = self.key_span(entry);
                    let help = did_you_mean(&entry.key, ITEMS);
                    self.say(
                        Diagnostic::warning(
                            "unknown-item",
                            format!("`{}` is no item; it is ignored", entry.key),
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
                let message = format!("`{}` means nothing here; it is ignored", entry.key);
                self.say(
                    Diagnostic::warning("unknown-key", message, span).label("unknown key").maybe_help(help),
                );
            }
        }
    }

    /// The text of a key's scalar.
    fn scalar<'n>(&mut self, item: &'n Node, key: &str) -> Read<Option<&'n Arc<Node>>> {
        match item.get(key) {
            None => Ok(None),
            Some(node) if node.text().is_some() => Ok(Some(node)),
            Some(node) => {
                let span = self.span(node);
                self.fail("not-a-text", format!("`{key}` takes one text"), span, "expected a text")
            }
        }
    }

    fn required<'n>(
        &mut self,
        item: &'n Node,
        key: &'static str,
        what: &str,
        span: &Span,
    ) -> Read<&'n Arc<Node>> {
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

    fn boolean(&mut self, item: &Node, key: &str) -> Read<Option<bool>> {
        let Some(node) = self.scalar(item, key)? else { return Ok(None) };
        match yaml::boolean(node.text().unwrap_or_default()) {
            Some(value) => Ok(Some(value)),
            None => {
                let span = self.span(node);
                self.fail(
                    "not-a-boolean",
                    format!("`{key}` is either true or false"),
                    span,
                    "expected true or false",
                )
            }
        }
    }

    fn name<'n>(&mut self, item: &'n Node, kind: &'static str) -> Read<(&'n str, Span)> {
        let whole = self.span(item);
        let node = self.required(item, kind, kind, &whole)?;
        let span = self.span(node);
        match node.text() {
            Some(name) if !name.is_empty() => Ok((name, span)),
            _ => self.fail("missing-key", format!("this {kind} has no name"), span, "expected a name"),
        }
    }

    /// How an item changes what it names, and with `override` how each key does (true: append).
    fn change(
        &mut self,
        item: &Node,
        kind: &str,
        keys: &[(&str, bool)],
    ) -> Read<(Change, HashMap<String, bool>)> {
        let appends = self.boolean(item, "append")?.unwrap_or(false);
        let Some(overrides) = item.get("override") else {
            if let Some(entry) = item.mapping().unwrap_or_default().iter().find(|entry| entry.key == "append")
            {
                let span = self.key_span(entry);
                self.say(
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
                self.say(Diagnostic::error("override", message, place).label("unknown key").maybe_help(help));
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
                    self.say(Diagnostic::error("override", message, place).label(expected));
                    wrong = true;
                    continue;
                }
            }
            if item.get(&entry.key).is_none() {
                let message = format!("`{}` is to be overridden, but is not given", entry.key);
                self.say(
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
                let message =
                    format!("`{}` is given, but `override` does not say what to do with it", entry.key);
                let help = format!("add `{}: replace` to `override`", entry.key);
                self.say(Diagnostic::error("override", message, place).label("not in `override`").help(help));
                wrong = true;
            }
        }
        if wrong { Err(()) } else { Ok((Change::Override, changes)) }
    }

    fn undefined<T>(&mut self, kind: &str, name: &str, span: Span, known: &[String]) -> Read<T> {
        let help = did_you_mean(name, known.iter().map(String::as_str));
        let message = format!("there is no {kind} `{name}` to change yet");
        self.say(Diagnostic::error("undefined", message, span).label("not defined before").maybe_help(help));
        Err(())
    }

    fn list(&mut self, item: &Node) -> Read<()> {
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
                            "an item of a list is a text",
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
        if change != Change::Define {
            let Some(list) = self.definitions.lists.get_mut(name) else {
                let known: Vec<String> = self.definitions.lists.keys().cloned().collect();
                return self.undefined("list", name, span, &known);
            };
            if overrides.get("items") == Some(&false) {
                list.items.clear();
            }
            list.items.extend(items);
            list.is_prelude = self.is_prelude;
            return Ok(());
        }
        let list = List { items, span, is_prelude: self.is_prelude };
        self.definitions.lists.insert(name.to_owned(), list);
        Ok(())
    }

    fn a_macro(&mut self, item: &Node) -> Read<()> {
        self.unknown_keys(item, &MACRO_KEYS);
        let (name, span) = self.name(item, "macro")?;
        let (change, overrides) = self.change(item, "macro", &[("condition", true)])?;
        let node = self.required(item, "condition", "macro", &span)?;
        let condition = self.located(node);
        let now = self.definitions.tick();
        if change != Change::Define {
            let Some(known) = self.definitions.macros.get_mut(name) else {
                let known: Vec<String> = self.definitions.macros.keys().cloned().collect();
                return self.undefined("macro", name, span, &known);
            };
            if overrides.get("condition") == Some(&false) {
                known.condition = condition;
            } else {
                known.condition.append(&condition);
            }
            known.sees = now;
            known.is_prelude = self.is_prelude;
            return Ok(());
        }
        let index = self.definitions.macros.get(name).map_or(now, |known| known.index);
        let defined = Macro { condition, span, is_prelude: self.is_prelude, index, sees: now };
        self.definitions.macros.insert(name.to_owned(), defined);
        Ok(())
    }

    fn priority(&mut self, item: &Node) -> Read<Option<Priority>> {
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
        self.say(
            Diagnostic::error("priority", format!("`{word}` is no priority"), span)
                .label("expected Emergency, Alert, Critical, Error, Warning, Notice, Informational or Debug")
                .maybe_help(help),
        );
        Err(())
    }

    fn tags(&mut self, item: &Node) -> Read<Vec<String>> {
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
                self.fail("not-a-list", "`tags` takes a sequence of texts", span, "expected [k8s, secrets]")
            }
        }
    }
}
