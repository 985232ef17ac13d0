//! From the text of a configuration file to a [`Config`], or to errors with a place.

use std::path::PathBuf;
use std::time::Duration;

use super::{
    Config, FileSource, Format, Server, ServerTls, Sink, SinkKind, Source, SourceKind, WebhookSource,
};
use crate::rules::Matching;
use crate::rules::ast::Priority;
use crate::rules::diagnostics::{Diagnostic, Severity, SourceFile, Span};
use crate::rules::suggest::did_you_mean;
use crate::rules::timespan;
use crate::rules::yaml::{self, Node};

/// What came of reading.
#[derive(Debug)]
pub struct Read {
    /// The configuration, where there is no error.
    pub config: Option<Config>,
    /// What is wrong, in file order.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads a configuration. Places are in file 0. `variable` gives the value of an environment variable.
pub fn read(file: &SourceFile, variable: &dyn Fn(&str) -> Option<String>) -> Read {
    let mut reader = Reader { text: &file.text, variable, diagnostics: Vec::new() };
    let config = reader.file();
    let mut diagnostics = reader.diagnostics;
    diagnostics.sort_by_key(|diagnostic| diagnostic.span.range.start);
    let has_errors = diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
    Read { config: config.filter(|_| !has_errors), diagnostics }
}

struct Reader<'f> {
    text: &'f str,
    variable: &'f dyn Fn(&str) -> Option<String>,
    diagnostics: Vec<Diagnostic>,
}

const COMMON_SINK_KEYS: [&str; 6] = ["name", "type", "priority", "rules", "exclude_rules", "retry"];

impl Reader<'_> {
    fn span(&self, node: &Node) -> Span {
        // A block that goes over many lines is shown by its first.
        let first = self.text.get(node.range.clone()).and_then(|text| text.find('\n'));
        let end = first.map_or(node.range.end, |length| node.range.start + length);
        Span { file: 0, range: node.range.start..end }
    }

    fn error(&mut self, node: &Node, message: impl Into<String>, label: impl Into<String>) {
        let span = self.span(node);
        self.diagnostics.push(Diagnostic::error("config", message, span).label(label));
    }

    fn file(&mut self) -> Option<Config> {
        let documents = match yaml::parse(self.text) {
            Ok(documents) => documents,
            Err(error) => {
                let span = Span { file: 0, range: error.range };
                let message = format!("not valid YAML: {}", error.message);
                self.diagnostics.push(Diagnostic::error("yaml", message, span));
                return None;
            }
        };
        for (key, range) in &documents.repeated_keys {
            let span = Span { file: 0, range: range.clone() };
            self.diagnostics.push(Diagnostic::error("config", format!("`{key}` is given twice"), span));
        }
        let mut config = Config::default();
        for root in documents.roots.iter().filter(|root| !root.is_null()) {
            self.config(root, &mut config);
        }
        Some(config)
    }

    fn config(&mut self, root: &Node, config: &mut Config) {
        self.keys(
            root,
            "the configuration",
            &[
                "state_dir",
                "rules",
                "rule_matching",
                "priority",
                "max_event_size",
                "sources",
                "sinks",
                "server",
                "store",
            ],
        );
        config.state_dir = self.path(root, "state_dir").or(config.state_dir.take());
        config.rules = self.texts(root, "rules").into_iter().map(PathBuf::from).collect();
        let matching = [("all", Matching::All), ("first", Matching::First)];
        config.matching = self.word(root, "rule_matching", &matching).unwrap_or(config.matching);
        config.priority = self.priority(root).unwrap_or(config.priority);
        if let Some(size) = self.size(root, "max_event_size", 1 << 10, 1 << 30) {
            config.max_event_size = usize::try_from(size).unwrap_or(usize::MAX);
        }
        if let Some(sources) = self.items(root, "sources") {
            config.sources =
                sources.iter().enumerate().filter_map(|(at, node)| self.source(node, at)).collect();
            self.unique(sources, config.sources.iter().map(|source| source.name.clone()).collect());
        }
        if let Some(sinks) = self.items(root, "sinks") {
            config.sinks = sinks.iter().enumerate().filter_map(|(at, node)| self.sink(node, at)).collect();
            self.unique(sinks, config.sinks.iter().map(|sink| sink.name.clone()).collect());
        }
        match root.get("server") {
            Some(node) if node.text().is_some_and(|text| yaml::boolean(text) == Some(false)) => {
                config.server = None;
            }
            Some(node) => {
                self.keys(node, "`server`", &["listen", "token_file", "tls"]);
                let default = Server::default();
                config.server = Some(Server {
                    listen: self.parsed(node, "listen", "expected 127.0.0.1:9417").unwrap_or(default.listen),
                    token_file: self.path(node, "token_file"),
                    tls: self.tls(node),
                });
            }
            None => {}
        }
        if let Some(node) = root.get("store") {
            self.keys(node, "`store`", &["max_age", "max_size"]);
            config.store.max_age = self.duration(node, "max_age").unwrap_or(config.store.max_age);
            config.store.max_size =
                self.size(node, "max_size", 1 << 20, 1 << 50).unwrap_or(config.store.max_size);
        }
    }

    fn source(&mut self, node: &Node, at: usize) -> Option<Source> {
        let kind = self.text(node, "type").unwrap_or_else(|| "file".to_owned());
        let name = self.text(node, "name").unwrap_or_else(|| numbered(&kind, at));
        let kind = match kind.as_str() {
            "file" => {
                self.keys(node, "a file source", &["name", "type", "paths", "start_at", "poll"]);
                let from = [("beginning", false), ("end", true)];
                let default = FileSource::default();
                SourceKind::File(FileSource {
                    paths: self.texts(node, "paths"),
                    from_end: self.word(node, "start_at", &from).unwrap_or(default.from_end),
                    poll: self.duration(node, "poll").unwrap_or(default.poll),
                })
            }
            "webhook" => {
                self.keys(
                    node,
                    "a webhook source",
                    &["name", "type", "listen", "path", "tls", "token_file", "max_body"],
                );
                let default = WebhookSource::default();
                let max_body = self.size(node, "max_body", 1 << 10, 1 << 30);
                SourceKind::Webhook(WebhookSource {
                    listen: self.parsed(node, "listen", "expected 0.0.0.0:9443").unwrap_or(default.listen),
                    path: self.text(node, "path").unwrap_or(default.path),
                    tls: self.tls(node),
                    token_file: self.path(node, "token_file"),
                    max_body: max_body
                        .and_then(|size| usize::try_from(size).ok())
                        .unwrap_or(default.max_body),
                })
            }
            "stdin" => {
                self.keys(node, "a stdin source", &["name", "type"]);
                SourceKind::Stdin
            }
            other => return self.unknown_type(node, other, &["file", "webhook", "stdin"]),
        };
        Some(Source { name, kind })
    }

    fn sink(&mut self, node: &Node, at: usize) -> Option<Sink> {
        let kind = self.text(node, "type").unwrap_or_default();
        let name = self.text(node, "name").unwrap_or_else(|| numbered(&kind, at));
        let lines = [("auto", Format::Auto), ("json", Format::Json), ("text", Format::Text)];
        let own: &[&str] = match kind.as_str() {
            "stdout" => &["format"],
            "file" => &["path", "format"],
            other => return self.unknown_type(node, other, &["stdout", "file"]),
        };
        let known: Vec<&str> = COMMON_SINK_KEYS.iter().chain(own).copied().collect();
        self.keys(node, "this sink", &known);
        let kind = match kind.as_str() {
            "stdout" => SinkKind::Stdout { format: self.word(node, "format", &lines).unwrap_or_default() },
            _ => SinkKind::File {
                path: PathBuf::from(self.required(node, "path")?),
                format: self.word(node, "format", &lines).unwrap_or_default(),
            },
        };
        let mut sink = Sink::new(&name, kind);
        sink.priority = self.priority(node).unwrap_or(sink.priority);
        sink.rules = self.texts(node, "rules");
        sink.exclude_rules = self.texts(node, "exclude_rules");
        if let Some(retry) = node.get("retry") {
            self.keys(retry, "`retry`", &["initial", "max"]);
            sink.retry_initial = self.duration(retry, "initial").unwrap_or(sink.retry_initial);
            sink.retry_max = self.duration(retry, "max").unwrap_or(sink.retry_max);
        }
        Some(sink)
    }

    fn tls(&mut self, parent: &Node) -> Option<ServerTls> {
        let node = parent.get("tls").filter(|node| !node.is_null())?;
        self.keys(node, "`tls`", &["certificate", "key", "client_ca"]);
        let certificate = self.required(node, "certificate");
        let key = self.required(node, "key");
        Some(ServerTls {
            certificate: PathBuf::from(certificate?),
            key: PathBuf::from(key?),
            client_ca: self.path(node, "client_ca"),
        })
    }

    /// Says which keys mean nothing.
    fn keys(&mut self, node: &Node, what: &str, known: &[&str]) {
        let Some(entries) = node.mapping() else {
            self.error(node, format!("{what} is a mapping"), "expected `key: value`");
            return;
        };
        for entry in entries.iter().filter(|entry| !known.contains(&&*entry.key)) {
            let span = Span { file: 0, range: entry.key_range.clone() };
            let help = did_you_mean(&entry.key, known.iter().copied())
                .unwrap_or_else(|| format!("its keys are {}", known.join(", ")));
            let message = format!("{what} has no key `{}`", entry.key);
            self.diagnostics
                .push(Diagnostic::error("unknown-key", message, span).label("unknown key").help(help));
        }
    }

    fn unknown_type<T>(&mut self, node: &Node, word: &str, known: &[&str]) -> Option<T> {
        let place = node.get("type").map_or(node, |node| node);
        let span = self.span(place);
        let message = if word.is_empty() {
            "`type` is missing".to_owned()
        } else {
            format!("there is no type `{word}`")
        };
        self.diagnostics.push(
            Diagnostic::error("config", message, span)
                .label(format!("expected {}", known.join(", ")))
                .maybe_help(did_you_mean(word, known.iter().copied())),
        );
        None
    }

    fn unique(&mut self, nodes: &[std::sync::Arc<Node>], names: Vec<String>) {
        let mut seen = std::collections::HashSet::new();
        for (node, name) in nodes.iter().zip(names) {
            if !seen.insert(name.clone()) {
                self.error(node, format!("`{name}` is there twice"), "give each a `name` of its own");
            }
        }
    }

    fn items<'n>(&mut self, node: &'n Node, key: &str) -> Option<&'n [std::sync::Arc<Node>]> {
        let found = node.get(key).filter(|node| !node.is_null())?;
        let items = found.sequence();
        if items.is_none() {
            self.error(found, format!("`{key}` takes a sequence"), "expected `- type: …`");
        }
        items
    }

    /// A scalar, with environment variables in place.
    fn value(&mut self, node: &Node, key: &str) -> Option<String> {
        let Some(text) = node.text() else {
            self.error(node, format!("`{key}` takes one text"), "expected a text");
            return None;
        };
        match expand(text, self.variable) {
            Ok(text) => Some(text),
            Err(message) => {
                self.error(node, message, "write ${NAME:-default} for what may be unset");
                None
            }
        }
    }

    fn text(&mut self, node: &Node, key: &str) -> Option<String> {
        let found = node.get(key).filter(|node| !node.is_null())?;
        self.value(found, key)
    }

    fn required(&mut self, node: &Node, key: &str) -> Option<String> {
        if node.get(key).is_none_or(|node| node.is_null()) {
            self.error(node, format!("`{key}` is missing"), format!("add `{key}:`"));
            return None;
        }
        self.text(node, key)
    }

    fn path(&mut self, node: &Node, key: &str) -> Option<PathBuf> {
        self.text(node, key).filter(|text| !text.is_empty()).map(PathBuf::from)
    }

    /// A sequence of texts, or one.
    fn texts(&mut self, node: &Node, key: &str) -> Vec<String> {
        let Some(found) = node.get(key).filter(|node| !node.is_null()) else { return Vec::new() };
        match found.sequence() {
            Some(nodes) => nodes.iter().filter_map(|node| self.value(node, key)).collect(),
            None => self.value(found, key).into_iter().collect(),
        }
    }

    fn parsed<T: std::str::FromStr>(&mut self, node: &Node, key: &str, expected: &str) -> Option<T> {
        let text = self.text(node, key)?;
        let parsed = text.trim().parse().ok();
        if let (None, Some(found)) = (&parsed, node.get(key)) {
            self.error(found, format!("`{key}` cannot be `{text}`"), expected);
        }
        parsed
    }

    fn word<T: Copy>(&mut self, node: &Node, key: &str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(node, key)?;
        let known = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if let (None, Some(found)) = (known, node.get(key)) {
            let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.error(
                found,
                format!("`{key}` cannot be `{text}`"),
                format!("expected {}", names.join(" or ")),
            );
        }
        known
    }

    fn priority(&mut self, node: &Node) -> Option<Priority> {
        let text = self.text(node, "priority")?;
        let priority = Priority::parse(&text);
        if let (None, Some(found)) = (priority, node.get("priority")) {
            self.error(found, format!("`{text}` is no priority"), "expected warning, notice and the like");
        }
        priority
    }

    fn duration(&mut self, node: &Node, key: &str) -> Option<Duration> {
        let text = self.text(node, key)?;
        let length = match text.strip_suffix("ms").map(str::parse::<u64>) {
            Some(Ok(milliseconds)) if milliseconds > 0 => Ok(Duration::from_millis(milliseconds)),
            _ => timespan::parse(&text).map(|length| Duration::from_nanos(length.unsigned_abs())),
        };
        match (length, node.get(key)) {
            (Ok(length), _) => Some(length),
            (Err(expected), Some(found)) => {
                self.error(found, format!("`{key}` cannot be `{text}`"), expected);
                None
            }
            (Err(_), None) => None,
        }
    }

    fn size(&mut self, node: &Node, key: &str, least: u64, most: u64) -> Option<u64> {
        let text = self.text(node, key)?;
        let size = bytes(&text).filter(|size| (least..=most).contains(size));
        if let (None, Some(found)) = (size, node.get(key)) {
            self.error(
                found,
                format!("`{key}` cannot be `{text}`"),
                "expected a number of bytes, such as 64M",
            );
        }
        size
    }
}

fn numbered(kind: &str, at: usize) -> String {
    if at == 0 { kind.to_owned() } else { format!("{kind}-{}", at + 1) }
}

/// Reads a number of bytes: `64M`, `1 GiB`, `1000`.
pub fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let factor: u64 = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "K" | "KB" | "KIB" => 1 << 10,
        "M" | "MB" | "MIB" => 1 << 20,
        "G" | "GB" | "GIB" => 1 << 30,
        _ => return None,
    };
    digits.trim().parse::<u64>().ok()?.checked_mul(factor)
}

/// Puts environment variables in place: `${NAME}`, `${NAME:-default}`. `$$` is a dollar sign.
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
            let Some(end) = inner.find('}') else { return Err("`${` has no `}`".to_owned()) };
            let (name, default) = match inner[..end].split_once(":-") {
                Some((name, default)) => (name, Some(default)),
                None => (&inner[..end], None),
            };
            match variable(name).or_else(|| default.map(str::to_owned)) {
                Some(value) => out.push_str(&value),
                None => return Err(format!("the environment has no variable `{name}`")),
            }
            rest = &inner[end + 1..];
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn of(text: &str) -> Read {
        let file = SourceFile { name: "pullwatch.yaml".into(), text: text.to_owned() };
        read(&file, &|name| (name == "HOST").then(|| "siem".to_owned()))
    }

    #[test]
    fn an_empty_file_is_the_default() {
        assert_eq!(of("").config, Some(Config::default()));
        assert_eq!(of("# nothing\n").config, Some(Config::default()));
    }

    #[test]
    fn everything_is_read() {
        let read = of(
            "state_dir: /tmp/x\nrules: rules.d\npriority: notice\nmax_event_size: 8M\nserver: false\nstore: {max_age: 7d, max_size: 100M}\nsources:\n- paths: [/a, '/b/*.log']\n  start_at: end\n  poll: 250ms\n- {type: webhook, listen: '0.0.0.0:9443', tls: {certificate: c, key: k, client_ca: ca}}\n- type: stdin\nsinks:\n- {type: file, path: '/${HOST}/a$$b', retry: {initial: 1s, max: 2m}}\n- {type: stdout, name: log, format: text, priority: warning, rules: 'R*', exclude_rules: ['Secret*', '${X:-y}']}\n",
        );
        assert!(read.diagnostics.is_empty(), "{:?}", read.diagnostics);
        let config = read.config.unwrap();
        assert_eq!((config.sources.len(), config.sinks.len(), config.server), (3, 2, None));
        let SinkKind::File { path, .. } = &config.sinks[0].kind else { panic!() };
        assert_eq!(path, &PathBuf::from("/siem/a$b"));
        assert_eq!(config.sinks[0].retry_max, Duration::from_secs(120));
        assert_eq!(config.sinks[1].exclude_rules, ["Secret*", "y"]);
        let SourceKind::File(file) = &config.sources[0].kind else { panic!() };
        assert!(file.from_end && file.poll == Duration::from_millis(250));
    }

    #[test]
    fn what_is_wrong_is_said_at_its_place() {
        let said = |text: &str| -> Vec<String> {
            of(text).diagnostics.iter().map(|one| format!("{} {}", one.message, one.help.join(" "))).collect()
        };
        for (text, message) in [
            ("stat_dir: x", "did you mean `state_dir`?"),
            ("sources: [{type: fil}]", "there is no type `fil`"),
            ("sources: [{type: webhook, tls: {key: k}}]", "`certificate` is missing"),
            ("sinks: [{type: file}]", "`path` is missing"),
            ("sinks: [{type: file, path: /a, retry: {max: soon}}]", "`max` cannot be `soon`"),
            ("sinks: [{type: stdout}, {type: stdout, name: stdout}]", "`stdout` is there twice"),
            ("sinks: [{type: file, path: '${NOSUCH}'}]", "no variable `NOSUCH`"),
            ("server: {listen: here}", "`listen` cannot be `here`"),
            ("max_event_size: 1", "`max_event_size` cannot be `1`"),
            ("[1", "not valid YAML"),
        ] {
            assert!(said(text).iter().any(|one| one.contains(message)), "{text}: {:?}", said(text));
            assert!(of(text).config.is_none());
        }
    }
}
