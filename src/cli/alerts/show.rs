//! `pullwatch alerts show`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use anstyle::Style;
use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

use super::super::scan::text::style;
use super::super::visible;
use super::{SHORT_ID_LEN, StateDir, find, hex, json, prefix, when};
use crate::daemon::store::{IdPrefix, Listed};

/// Show one stored alert with all details
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pullwatch alerts show 289c2a7a               human-readable
  pullwatch alerts show 289c2a7a --format json as indented JSON")]
pub struct Show {
    /// Alert id or a unique prefix of it
    #[arg(value_name = "ID", value_parser = prefix)]
    id: (String, IdPrefix),

    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    format: Format,

    #[command(flatten)]
    state: StateDir,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Human-readable sections
    Text,
    /// Indented JSON, as the sinks send it, plus the acknowledgement
    Json,
}

impl Show {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let listed = find(&self.state.reader()?, &self.id)?;
        let object = json::object(&listed);
        let text = match self.format {
            Format::Text => page(&listed, &object),
            Format::Json => json::text(&object, true)? + "\n",
        };
        anstream::stdout().lock().write_all(text.as_bytes())?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Members that the heading shows or that repeat it: the output of the rule contains its output fields.
const HEADING: [&str; 17] = [
    "hostname",
    "output",
    "output_fields",
    "priority",
    "rule",
    "source",
    "tags",
    "time",
    "id",
    "acknowledged",
    "actor",
    "credential",
    "namespace",
    "registry_host",
    "exposure",
    "verb",
    "cluster",
];

/// Members with their own section, most important first; all other members follow.
const SECTIONS: [(&str, &str); 3] =
    [("registry", "Credentials"), ("correlation", "Correlation"), ("event", "Event")];

/// Lists longer than this, in bytes, are printed with one item per line.
const MAX_LINE_LEN: usize = 80;

fn page(listed: &Listed, object: &Map<String, Value>) -> String {
    let alert = &listed.alert;
    let (bold, priority) = (Style::new().bold(), style(alert.priority));
    let mut out = String::new();
    // Writing to a String does not fail.
    let name = alert.priority.name().to_ascii_uppercase();
    let _ = writeln!(out, "{priority}{name}{priority:#}  {bold}{}{bold:#}", visible(&alert.rule));
    let _ = writeln!(out, "{}\n", visible(alert.message.trim()));
    let id = hex(&alert.id);
    let acknowledged = match &listed.ack {
        None => format!("no (pullwatch alerts ack {})", &id[..SHORT_ID_LEN]),
        Some(ack) if ack.note.is_empty() => format!("{} by {}", when(ack.at), visible(&ack.by)),
        Some(ack) => format!("{} by {}: {}", when(ack.at), visible(&ack.by), visible(&ack.note)),
    };
    let mut head = vec![
        ("time".to_owned(), when(alert.time)),
        ("user".to_owned(), visible(&alert.actor)),
        ("target".to_owned(), visible(&alert.target)),
        ("stored".to_owned(), when(alert.stored)),
        ("id".to_owned(), id),
        ("acknowledged".to_owned(), acknowledged),
    ];
    for name in ["credential", "cluster", "tags", "hostname"] {
        if let Some(value) = object.get(name).and_then(scalar) {
            head.push((name.to_owned(), value));
        }
    }
    rows(&head, &mut out);

    let known = SECTIONS.iter().map(|&(name, title)| (name, title.to_owned()));
    let others = object
        .keys()
        .map(String::as_str)
        .filter(|name| !HEADING.contains(name) && SECTIONS.iter().all(|(known, _)| known != name))
        .map(|name| (name, visible(name)));
    for (name, title) in known.chain(others) {
        let mut lines = Vec::new();
        match object.get(name) {
            Some(Value::Object(section)) => flatten("", section, &mut lines),
            Some(value) => lines.extend(scalar(value).map(|value| (visible(name), value))),
            None => {}
        }
        if !lines.is_empty() {
            let _ = writeln!(out, "\n{bold}{title}{bold:#}");
            rows(&lines, &mut out);
        }
    }
    out
}

/// Prints names and values in two columns.
fn rows(rows: &[(String, String)], out: &mut String) {
    // A very long name from an event must not move the values of all other members aside.
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default().min(28);
    let dim = Style::new().dimmed();
    for (name, value) in rows {
        let blanks = " ".repeat(width.saturating_sub(name.chars().count()));
        let value = value.replace('\n', &format!("\n{}", " ".repeat(width + 4)));
        let _ = writeln!(out, "  {dim}{name}{dim:#}{blanks}  {value}");
    }
}

/// Flattens an object to pairs of path and value, without empty values.
fn flatten(path: &str, object: &Map<String, Value>, lines: &mut Vec<(String, String)>) {
    // Recursion is bounded: serde_json rejects nesting deeper than 128.
    for (name, value) in object {
        let path = if path.is_empty() { visible(name) } else { format!("{path}.{}", visible(name)) };
        match value {
            Value::Object(inner) => flatten(&path, inner, lines),
            value => lines.extend(scalar(value).map(|value| (path, value))),
        }
    }
}

/// Formats a value, a long list with one item per line; `None` if it is empty. Line breaks in the result are ours, never the event's.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(visible(text)),
        Value::Array(items) if items.is_empty() => None,
        Value::Array(items) => {
            let items: Vec<String> = items.iter().filter_map(scalar).collect();
            let line = items.join(", ");
            Some(if line.len() > MAX_LINE_LEN { items.join("\n") } else { line })
        }
        value => Some(visible(&value.to_string())),
    }
}
