//! Reads single values and reports invalid ones.

use std::path::PathBuf;
use std::time::Duration;

use super::super::keys::Section;
use super::ConfigReader;
use crate::daemon::sink::Secret;
use crate::detection::alert::Priority;
use crate::text::diagnostics::Diagnostic;
use crate::text::size;
use crate::text::suggest::did_you_mean;
use crate::text::timespan;
use crate::text::yaml::{self, Node};

impl ConfigReader<'_> {
    /// Reports unknown keys.
    pub(super) fn keys(&mut self, node: &Node, section: &Section) {
        self.document.entries(node, section.name, &section.names(), "");
    }

    pub(super) fn unknown_type<T>(&mut self, node: &Node, word: &str, known: &[&str]) -> Option<T> {
        let place = node.get("type").map_or(node, |node| node);
        let span = self.document.span(place);
        let message =
            if word.is_empty() { "`type` is missing".to_owned() } else { format!("unknown type `{word}`") };
        self.document.report(
            Diagnostic::error("config", message, span)
                .label(format!("expected {}", known.join(", ")))
                .maybe_help(did_you_mean(word, known.iter().copied())),
        );
        None
    }

    pub(super) fn unique(&mut self, nodes: &[std::sync::Arc<Node>], names: Vec<String>) {
        let mut seen = std::collections::HashSet::new();
        for (node, name) in nodes.iter().zip(names) {
            if !seen.insert(name.clone()) {
                self.error(node, format!("duplicate name `{name}`"), "set a unique `name`");
            }
        }
    }

    pub(super) fn items<'n>(&mut self, node: &'n Node, key: &str) -> Option<&'n [std::sync::Arc<Node>]> {
        self.document.items(node, key, "expected `- type: …`").ok().flatten()
    }

    /// Reads a scalar and expands environment variables in it.
    pub(super) fn value(&mut self, node: &Node, key: &str) -> Option<String> {
        let Some(text) = node.text() else {
            self.error(node, format!("`{key}` must be a string"), "expected a string");
            return None;
        };
        match expand(text, self.variable) {
            Ok(text) => Some(text),
            Err(message) => {
                self.error(node, message, "use ${NAME:-default} for variables that may be unset");
                None
            }
        }
    }

    pub(super) fn text(&mut self, node: &Node, key: &str) -> Option<String> {
        let found = node.get(key).filter(|node| !node.is_null())?;
        self.value(found, key)
    }

    pub(super) fn required(&mut self, node: &Node, key: &str) -> Option<String> {
        if node.get(key).is_none_or(|node| node.is_null()) {
            self.error(node, format!("`{key}` is missing"), format!("add `{key}:`"));
            return None;
        }
        self.text(node, key)
    }

    pub(super) fn boolean(&mut self, node: &Node, key: &str) -> Option<bool> {
        match self.boolean_or_text(node, key)? {
            Ok(value) => Some(value),
            Err(text) => {
                let place = node.get(key).map_or(node, |place| place);
                self.error(place, format!("invalid `{key}`: `{text}`"), "expected true or false");
                None
            }
        }
    }

    /// Reads a boolean; any other text is returned as the error.
    pub(super) fn boolean_or_text(&mut self, node: &Node, key: &str) -> Option<Result<bool, String>> {
        let text = self.text(node, key)?;
        Some(yaml::boolean(&text).ok_or(text))
    }

    /// Returns the entries of a mapping; none if the key is missing.
    pub(super) fn entries<'n>(&mut self, node: &'n Node, key: &str) -> &'n [yaml::Entry] {
        let Some(found) = node.get(key).filter(|node| !node.is_null()) else { return &[] };
        let entries = found.mapping();
        if entries.is_none() {
            self.error(found, format!("`{key}` must be a mapping"), "expected `name: value`");
        }
        entries.unwrap_or_default()
    }

    /// Reads a secret: the value of the key, or the content of the file named by `<key>_file`.
    pub(super) fn secret(&mut self, node: &Node, key: &str) -> Option<Secret> {
        let file_key = format!("{key}_file");
        let path = self.text(node, &file_key);
        match (path, node.get(&file_key)) {
            (Some(path), Some(place)) => self.content(place, &path),
            _ => self.required(node, key).map(Secret::new),
        }
    }

    /// Reads a file, without surrounding whitespace.
    pub(super) fn content(&mut self, place: &Node, path: &str) -> Option<Secret> {
        if !self.with_files {
            return Some(Secret::new("https://offline.invalid/"));
        }
        match std::fs::read_to_string(path) {
            Ok(text) => Some(Secret::new(text.trim())),
            Err(error) => {
                self.error(place, format!("cannot read `{path}`: {error}"), "expected a readable text file");
                None
            }
        }
    }

    pub(super) fn path(&mut self, node: &Node, key: &str) -> Option<PathBuf> {
        self.text(node, key).filter(|text| !text.is_empty()).map(PathBuf::from)
    }

    /// Reads a sequence of strings, or a single one.
    pub(super) fn texts(&mut self, node: &Node, key: &str) -> Vec<String> {
        let Some(found) = node.get(key).filter(|node| !node.is_null()) else { return Vec::new() };
        match found.sequence() {
            Some(nodes) => nodes.iter().filter_map(|node| self.value(node, key)).collect(),
            None => self.value(found, key).into_iter().collect(),
        }
    }

    /// Host names: without scheme and port, possibly with `*.` for any subdomain.
    pub(super) fn hosts(&mut self, node: &Node) -> Vec<String> {
        let hosts = self.texts(node, "hosts");
        let is_name = |name: &str| {
            let label = |label: &str| {
                !label.is_empty()
                    && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            };
            name.strip_prefix("*.").unwrap_or(name).split('.').all(label)
        };
        if let (Some(wrong), Some(found)) = (hosts.iter().find(|host| !is_name(host)), node.get("hosts")) {
            let message = format!("invalid host name `{wrong}`");
            self.error(
                found,
                message,
                "expected a name such as alerts.example.com or *.example.com, without a port",
            );
        }
        hosts
    }

    pub(super) fn parsed<T: std::str::FromStr>(
        &mut self,
        node: &Node,
        key: &str,
        expected: &str,
    ) -> Option<T> {
        let text = self.text(node, key)?;
        let parsed = text.trim().parse().ok();
        if let (None, Some(found)) = (&parsed, node.get(key)) {
            self.error(found, format!("invalid `{key}`: `{text}`"), expected);
        }
        parsed
    }

    pub(super) fn word<T: Copy>(&mut self, node: &Node, key: &str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(node, key)?;
        let known = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if let (None, Some(found)) = (known, node.get(key)) {
            let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.error(
                found,
                format!("invalid `{key}`: `{text}`"),
                format!("expected {}", names.join(" or ")),
            );
        }
        known
    }

    pub(super) fn priority(&mut self, node: &Node) -> Option<Priority> {
        let text = self.text(node, "priority")?;
        let priority = Priority::parse(&text);
        if let (None, Some(found)) = (priority, node.get("priority")) {
            self.error(
                found,
                format!("unknown priority `{text}`"),
                "expected emergency, alert, critical, error, warning, notice, informational or debug",
            );
        }
        priority
    }

    pub(super) fn duration(&mut self, node: &Node, key: &str) -> Option<Duration> {
        let text = self.text(node, key)?;
        let length = match text.strip_suffix("ms").map(str::parse::<u64>) {
            Some(Ok(milliseconds)) if milliseconds > 0 => Ok(Duration::from_millis(milliseconds)),
            _ => timespan::parse(&text).map(|length| Duration::from_nanos(length.unsigned_abs())),
        };
        match (length, node.get(key)) {
            (Ok(length), _) => Some(length),
            (Err(expected), Some(found)) => {
                self.error(found, format!("invalid `{key}`: `{text}`"), expected);
                None
            }
            (Err(_), None) => None,
        }
    }

    pub(super) fn size(&mut self, node: &Node, key: &str, min: u64, max: u64) -> Option<u64> {
        let text = self.text(node, key)?;
        let size = size::parse(&text).filter(|size| (min..=max).contains(size));
        if let (None, Some(found)) = (size, node.get(key)) {
            self.error(
                found,
                format!("invalid `{key}`: `{text}`"),
                format!("expected a size from {min} to {max} bytes, such as 64M"),
            );
        }
        size
    }
}

/// Expands environment variables: `${NAME}`, `${NAME:-default}`. `$$` is a literal dollar sign.
fn expand(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(inner) = rest.strip_prefix('{') {
            let Some(end) = inner.find('}') else { return Err("unclosed `${`".to_owned()) };
            let (name, default) = match inner[..end].split_once(":-") {
                Some((name, default)) => (name, Some(default)),
                None => (&inner[..end], None),
            };
            match variable(name).or_else(|| default.map(str::to_owned)) {
                Some(value) => out.push_str(&value),
                None => return Err(format!("environment variable `{name}` is not set")),
            }
            rest = &inner[end + 1..];
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    Ok(out)
}
