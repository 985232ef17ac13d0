//! `pullwatch alerts show`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use anstyle::Style;
use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

use super::super::scan::text::style;
use super::super::visible;
use super::{SHORT, StateDir, find, hex, json, prefix, when};
use crate::daemon::store::{IdPrefix, Listed};

/// Show one stored alert in full
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pullwatch alerts show 289c2a7a               all that is known of it
  pullwatch alerts show 289c2a7a --format json the same for other programs")]
pub struct Show {
    /// The alert's id, or as many of its first digits as no other alert has.
    #[arg(value_name = "ID", value_parser = prefix)]
    id: (String, IdPrefix),

    /// How to print it.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    format: Format,

    #[command(flatten)]
    state: StateDir,
}

/// How to print an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For programs: the JSON that the sinks send, indented, with who acknowledged it.
    Json,
}

impl Show {
    /// Finds and prints.
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

/// What is said above the sections, or not worth saying: the rule's output holds what its fields say.
const ABOVE: [&str; 10] = [
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
];

/// The sections in the order of what a person asks first; any others follow.
const SECTIONS: [(&str, &str); 3] =
    [("registry", "Credentials"), ("correlation", "Correlation"), ("event", "Event")];

/// A list that is longer than this, in bytes, has an item a line.
const WIDE: usize = 80;

fn page(listed: &Listed, object: &Map<String, Value>) -> String {
    let alert = &listed.alert;
    let (bold, priority) = (Style::new().bold(), style(alert.priority));
    let mut out = String::new();
    // Writing to a String does not fail.
    let name = alert.priority.name().to_ascii_uppercase();
    let _ = writeln!(out, "{priority}{name}{priority:#}  {bold}{}{bold:#}", visible(&alert.rule));
    let _ = writeln!(out, "{}\n", visible(alert.message.trim()));
    let id = hex(&alert.id);
    let looked_at = match &listed.ack {
        None => format!("by nobody yet: pullwatch alerts ack {}", &id[..SHORT]),
        Some(ack) if ack.note.is_empty() => format!("by {}, {} UTC", visible(&ack.by), when(ack.at)),
        Some(ack) => format!("by {}, {} UTC: {}", visible(&ack.by), when(ack.at), visible(&ack.note)),
    };
    let mut head = vec![
        ("when".to_owned(), format!("{} UTC", when(alert.time))),
        ("who".to_owned(), visible(&alert.actor)),
        ("target".to_owned(), visible(&alert.target)),
        ("stored".to_owned(), format!("{} UTC", when(alert.stored))),
        ("id".to_owned(), id),
        ("acknowledged".to_owned(), looked_at),
    ];
    for (name, says) in [("tags", "tags"), ("hostname", "seen by")] {
        if let Some(value) = object.get(name).and_then(scalar) {
            head.push((says.to_owned(), value));
        }
    }
    rows(&head, &mut out);

    let known = SECTIONS.iter().map(|&(name, title)| (name, title.to_owned()));
    let others = object
        .keys()
        .map(String::as_str)
        .filter(|name| !ABOVE.contains(name) && SECTIONS.iter().all(|(known, _)| known != name))
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

/// Names and what they say, all lines of the latter below each other.
fn rows(rows: &[(String, String)], out: &mut String) {
    // A name that is longer than any of ours does not push all others away.
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default().min(28);
    let dim = Style::new().dimmed();
    for (name, value) in rows {
        let blanks = " ".repeat(width.saturating_sub(name.chars().count()));
        let value = value.replace('\n', &format!("\n{}", " ".repeat(width + 4)));
        let _ = writeln!(out, "  {dim}{name}{dim:#}{blanks}  {value}");
    }
}

/// The members of an object and of those in it, by path. What says nothing is left out.
fn flatten(path: &str, object: &Map<String, Value>, lines: &mut Vec<(String, String)>) {
    // serde_json reads no deeper than 128.
    for (name, value) in object {
        let path = if path.is_empty() { visible(name) } else { format!("{path}.{}", visible(name)) };
        match value {
            Value::Object(inner) => flatten(&path, inner, lines),
            value => lines.extend(scalar(value).map(|value| (path, value))),
        }
    }
}

/// A value, a long list with an item a line; nothing where it says nothing. The line breaks in it are ours.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(visible(text)),
        Value::Array(items) if items.is_empty() => None,
        Value::Array(items) => {
            let items: Vec<String> = items.iter().filter_map(scalar).collect();
            let line = items.join(", ");
            Some(if line.len() > WIDE { items.join("\n") } else { line })
        }
        value => Some(visible(&value.to_string())),
    }
}
