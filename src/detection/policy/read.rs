//! Parses a policy file into a [`Policy`], or into errors with their positions.
//!
//! It is as strict as the apiserver, which does not start with an invalid policy: unknown keys, unknown words and contradictions are
//! errors. Input that the apiserver accepts but that is unlikely to be intended is a warning.

use super::model::{GroupResources, Level, Policy, PolicyRule, Stage};
use super::requests;
use crate::text::diagnostics::{Diagnostic, SourceFile, Span};
use crate::text::document::DocumentReader;
use crate::text::suggest::did_you_mean;
use crate::text::yaml::{Entry, Node};

const POLICY_KEYS: [&str; 6] = ["apiVersion", "kind", "metadata", "omitStages", "omitManagedFields", "rules"];
const RULE_KEYS: [&str; 9] = [
    "level",
    "users",
    "userGroups",
    "verbs",
    "resources",
    "namespaces",
    "nonResourceURLs",
    "omitStages",
    "omitManagedFields",
];
const RESOURCE_KEYS: [&str; 3] = ["group", "resources", "resourceNames"];

/// Maximum number of strings, with aliases expanded.
const MAX_TEXTS: usize = 100_000;

/// Maximum number of rules, since each is evaluated for each kind of request.
const MAX_RULES: usize = 500;

/// The result of parsing.
#[derive(Debug)]
pub struct ParsedPolicy {
    /// The policy; none if there is an error.
    pub policy: Option<Policy>,
    /// Errors and warnings, in file order.
    pub diagnostics: Vec<Diagnostic>,
}

/// Parses a policy. Positions are in file 0.
pub fn read(file: &SourceFile) -> ParsedPolicy {
    let mut reader = PolicyReader { document: DocumentReader::new(0, &file.text), texts: 0 };
    let policy = reader.file();
    let (mut diagnostics, has_errors) = reader.document.finish();
    if has_errors {
        // If part of a rule was not understood, it is unknown what the rule matches.
        diagnostics.retain(|diagnostic| diagnostic.code != "unreachable");
    }
    ParsedPolicy { policy: policy.filter(|_| !has_errors), diagnostics }
}

struct PolicyReader<'f> {
    document: DocumentReader<'f>,
    texts: usize,
}

impl PolicyReader<'_> {
    fn file(&mut self) -> Option<Policy> {
        let documents = self.document.documents()?;
        let mut roots = documents.roots.iter().filter(|root| !root.is_null());
        let Some(root) = roots.next() else {
            let span = self.document.start();
            self.document.report(Diagnostic::error("empty", "the file contains no policy", span));
            return None;
        };
        if let Some(second) = roots.next() {
            self.document.error(
                "documents",
                second,
                "a policy file must contain one document",
                "second document",
            );
        }
        self.policy(root)
    }

    /// The entries of a mapping. Reports unknown keys, with which the apiserver does not start.
    fn entries<'n>(&mut self, node: &'n Node, what: &str, keys: &[&str]) -> Option<&'n [Entry]> {
        self.document.entries(node, what, keys, "; the apiserver rejects the policy")
    }

    fn policy(&mut self, root: &Node) -> Option<Policy> {
        self.entries(root, "a policy", &POLICY_KEYS)?;
        match root.get("apiVersion") {
            Some(node) if matches!(node.text(), Some("audit.k8s.io/v1beta1" | "audit.k8s.io/v1alpha1")) => {
                let span = self.document.span(node);
                self.document.report(
                    Diagnostic::warning("old-version", "Kubernetes 1.24 and later reject this version", span)
                        .label("write `audit.k8s.io/v1`"),
                );
            }
            _ => self.constant(root, "apiVersion", "audit.k8s.io/v1"),
        }
        self.constant(root, "kind", "Policy");
        if let Some(node) = root.get("omitManagedFields") {
            self.boolean(node);
        }
        let mut policy = Policy::default();
        if let Some(node) = root.get("omitStages") {
            policy.omit_stages = self.stages(node);
            policy.omit_stages_line = self.document.line(node.range.start);
        }
        let rules = self.document.items(root, "rules", "expected `- level: …`").ok()?.unwrap_or_default();
        if rules.is_empty() {
            self.document.error(
                "no-rules",
                root,
                "the policy has no rules; the apiserver rejects it",
                "no `rules`",
            );
            return None;
        }
        let mut all: Option<Span> = None;
        for node in rules {
            if self.texts > MAX_TEXTS || policy.rules.len() == MAX_RULES {
                let message = format!("more than {MAX_RULES} rules, or more than {MAX_TEXTS} values");
                self.document.error("too-large", node, message, "limit exceeded here");
                return None;
            }
            let Some(rule) = self.rule(node) else { continue };
            let span = self.document.span(node);
            match &all {
                Some(earlier) => self.document.report(
                    Diagnostic::warning("unreachable", "an earlier rule matches every request", span)
                        .label("never reached")
                        .other(earlier.clone(), "matches everything"),
                ),
                None if rule.is_catch_all() => all = Some(span),
                None => {}
            }
            policy.rules.push(rule);
        }
        Some(policy)
    }

    fn constant(&mut self, root: &Node, key: &str, wanted: &str) {
        match root.get(key) {
            Some(node) if node.text() == Some(wanted) => {}
            Some(node) => {
                self.document.error(
                    "no-policy",
                    node,
                    format!("not an audit policy that a kube-apiserver accepts: unexpected `{key}`"),
                    format!("expected `{wanted}`"),
                );
            }
            None => {
                let message = format!("not an audit policy: `{key}` is missing");
                self.document.error("no-policy", root, message, format!("expected `{key}: {wanted}`"));
            }
        }
    }

    fn boolean(&mut self, node: &Node) {
        if !node.is_null() && !matches!(node.text(), Some("true" | "false")) {
            self.document.error(
                "no-boolean",
                node,
                "`omitManagedFields` must be true or false",
                "expected true or false",
            );
        }
    }

    fn texts(&mut self, node: &Node) -> Vec<String> {
        if node.is_null() {
            return Vec::new();
        }
        let Some(items) = node.sequence() else {
            self.document.error("no-sequence", node, "expected a sequence of strings", "expected `[…]`");
            return Vec::new();
        };
        self.texts += items.len() + 1;
        if self.texts > MAX_TEXTS {
            return Vec::new();
        }
        let mut texts = Vec::new();
        for item in items {
            match item.text() {
                Some(text) => texts.push(text.to_owned()),
                None => self.document.error("no-text", item, "expected a text", "not a text"),
            }
        }
        texts
    }

    fn stages(&mut self, node: &Node) -> Vec<Stage> {
        let mut stages = Vec::new();
        for item in node.sequence().unwrap_or_default() {
            let Some(word) = item.text() else { continue };
            match Stage::parse(word) {
                Some(stage) => stages.push(stage),
                None => {
                    let help = nearest(word, &Stage::ALL.map(Stage::name));
                    let span = self.document.span(item);
                    let message = format!("unknown stage `{word}`");
                    self.document.report(Diagnostic::error("unknown-stage", message, span).help(help));
                }
            }
        }
        self.texts(node);
        stages
    }

    fn rule(&mut self, node: &Node) -> Option<PolicyRule> {
        self.entries(node, "a rule", &RULE_KEYS)?;
        let level = match node.get("level").filter(|level| !level.is_null()) {
            Some(level) => match level.text().and_then(Level::parse) {
                Some(level) => level,
                None => {
                    let word = level.text().unwrap_or("this");
                    let help = nearest(word, &Level::ALL.map(Level::name));
                    let span = self.document.span(level);
                    let message = format!("unknown level `{word}`");
                    self.document.report(Diagnostic::error("unknown-level", message, span).help(help));
                    return None;
                }
            },
            None => {
                self.document.error("no-level", node, "a rule must have a level", "no `level`");
                return None;
            }
        };
        if let Some(node) = node.get("omitManagedFields") {
            self.boolean(node);
        }
        let mut list = |key: &str| node.get(key).map(|node| self.texts(node)).unwrap_or_default();
        let mut rule = PolicyRule {
            line: 0,
            level,
            users: list("users"),
            user_groups: list("userGroups"),
            verbs: list("verbs"),
            resources: Vec::new(),
            namespaces: list("namespaces"),
            non_resource_urls: list("nonResourceURLs"),
            omit_stages: Vec::new(),
            omit_stages_line: 0,
        };
        rule.line = self.document.line(node.range.start);
        if let Some(stages) = node.get("omitStages") {
            rule.omit_stages = self.stages(stages);
            rule.omit_stages_line = self.document.line(stages.range.start);
        }
        if let Ok(Some(entries)) = self.document.items(node, "resources", "expected `- group: …`") {
            rule.resources = entries.iter().filter_map(|entry| self.resources(entry)).collect();
        }
        if let Some(urls) = node.get("nonResourceURLs") {
            self.urls(urls, &rule);
        }
        Some(rule)
    }

    fn urls(&mut self, node: &Node, rule: &PolicyRule) {
        if !rule.non_resource_urls.is_empty() && (!rule.resources.is_empty() || !rule.namespaces.is_empty()) {
            let span = self.document.span(node);
            self.document.report(
                Diagnostic::error("both", "a rule matches resources or other paths, not both", span)
                    .label("beside `resources` or `namespaces`")
                    .help("split it into two rules"),
            );
        }
        for item in node.sequence().unwrap_or_default() {
            let url = item.text().unwrap_or("*");
            if url != "*" && !url.starts_with('/') {
                self.document.error("path", item, "a path must start with `/`", "expected `/…`");
            }
            let mut before = url.chars();
            before.next_back();
            if before.as_str().contains('*') {
                self.document.error(
                    "wildcard",
                    item,
                    "`*` must be the last character",
                    "`*` inside the path",
                );
            }
        }
    }

    fn resources(&mut self, node: &Node) -> Option<GroupResources> {
        self.entries(node, "an entry of `resources`", &RESOURCE_KEYS)?;
        let group = match node.get("group") {
            Some(group) if !group.is_null() => match group.text() {
                Some(text) => {
                    if !text.is_empty() && !is_subdomain(text) {
                        let span = self.document.span(group);
                        let message = format!("invalid API group `{text}`");
                        let help = text.split_once('/').map_or_else(
                            || "a group is a lower-case domain name; the core group is \"\"".to_owned(),
                            |(group, _)| format!("a group has no version: `{group}`"),
                        );
                        self.document.report(Diagnostic::error("group", message, span).help(help));
                    }
                    text.to_owned()
                }
                None => {
                    self.document.error("no-text", group, "expected a text", "not a text");
                    String::new()
                }
            },
            _ => String::new(),
        };
        let mut list = |key: &str| node.get(key).map(|node| self.texts(node)).unwrap_or_default();
        let entry = GroupResources { group, resources: list("resources"), names: list("resourceNames") };
        if !entry.names.is_empty() && entry.resources.is_empty() {
            self.document.error("names", node, "`resourceNames` requires `resources`", "no `resources`");
        }
        for item in node.get("resources").and_then(|node| node.sequence()).unwrap_or_default() {
            let Some(pattern) = item.text() else { continue };
            let resource = pattern.split('/').next().unwrap_or(pattern);
            let groups = requests::groups_of(resource);
            if !groups.is_empty() && !groups.contains(&&*entry.group) {
                let here = if entry.group.is_empty() { "the core group" } else { &entry.group };
                let help = format!("it is in group `{}`", groups.join("`, `"));
                let span = self.document.span(item);
                self.document.report(
                    Diagnostic::warning("wrong-group", format!("{here} has no `{resource}`"), span)
                        .label("matches nothing")
                        .help(help),
                );
            }
        }
        Some(entry)
    }
}

fn nearest(word: &str, words: &[&'static str]) -> String {
    // Usually, only the case of the name is wrong.
    let same = words.iter().find(|known| known.eq_ignore_ascii_case(word));
    same.map(|known| format!("did you mean `{known}`?"))
        .or_else(|| did_you_mean(word, words.iter().copied()))
        .unwrap_or_else(|| format!("expected {}", words.join(", ")))
}

fn is_subdomain(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() <= 253
        && text.split('.').all(|label| {
            let bytes = label.as_bytes();
            bytes.first().is_some_and(|&byte| is_letter(byte))
                && bytes.last().is_some_and(|&byte| is_letter(byte))
                && bytes.iter().all(|&byte| is_letter(byte) || byte == b'-')
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::text::diagnostics::Severity;

    fn words() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "apiVersion: audit.k8s.io/v1\n",
            "kind: Policy\n",
            "rules:\n",
            "- level: Metadata\n",
            "- &a {level: None}\n",
            "- *a\n",
            "  verbs: [get, *a]\n",
            "  resources: [{group: '', resources: [pods/*, '*']}]\n",
            "  resources: {}\n",
            "  nonResourceURLs: ['*', '', /é*]\n",
            "  omitStages: [Panic, [x]]\n",
            "  users: [é, '']\n",
            "  <<: *a\n",
            "omitStages: x\n",
            "- \n",
            "# é\n",
        ])
    }

    proptest! {
        #[test]
        fn no_file_panics_and_what_is_refused_says_why(lines in prop::collection::vec(words(), 0..14)) {
            let read = read(&SourceFile { name: "p.yaml".into(), text: lines.concat() });
            let has_errors = read.diagnostics.iter().any(|found| found.severity == Severity::Error);
            prop_assert_eq!(read.policy.is_none(), has_errors);
            if let Some(policy) = read.policy {
                crate::detection::policy::findings::hidden(&policy);
            }
        }
    }

    #[test]
    fn lines_are_those_of_the_file_and_anchors_count() {
        let text = "# a comment\napiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: None\n  users: &u [a, b]\n\n- level: Request\n  users: *u\n  omitStages:\n  - Panic\n";
        let read = read(&SourceFile { name: "p.yaml".into(), text: text.to_owned() });
        let policy = read.policy.unwrap();
        assert_eq!(policy.rules.iter().map(|rule| rule.line).collect::<Vec<_>>(), [5, 8]);
        assert_eq!(policy.rules[1].users, ["a", "b"]);
        assert_eq!(
            (policy.rules[1].omit_stages.as_slice(), policy.rules[1].omit_stages_line),
            (&[Stage::Panic][..], 11)
        );
    }
}
