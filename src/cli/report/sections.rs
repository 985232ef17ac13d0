//! The report as sections, rows and sentences, for whoever draws them. Names in them are as the events spell them: escape
//! them for where they go.

use std::fmt::Write as _;

use super::Page;
use crate::cli::scan::summary::{bytes, grouped};
use crate::detection::audit::time::{self, Clock};
use crate::detection::history::{BoundedSet, HandedOver, Reading, Registry, Times};

/// Something in a row.
pub enum Cell {
    /// A text; some of it may come from events.
    Text(String),
    /// A number.
    Number(u64),
    /// Texts, one below the other where there is room.
    Texts(Vec<String>),
}

/// A table, and what it says.
pub struct Section {
    /// Its title.
    pub title: &'static str,
    /// What it shows.
    pub intro: String,
    /// Titles of columns.
    pub head: &'static [&'static str],
    /// As many cells as columns.
    pub rows: Vec<Vec<Cell>>,
}

/// The whole report.
pub struct Document {
    /// What was read.
    pub facts: Vec<String>,
    /// The tables.
    pub sections: Vec<Section>,
    /// What it could not see.
    pub blind: Vec<String>,
}

/// So many texts are shown in one cell.
const MOST: usize = 5;

impl Page {
    /// Everything in words.
    pub fn document(&self) -> Document {
        Document {
            facts: self.facts(),
            sections: vec![
                self.registries(),
                self.handed_over(
                    "Handed over, and reported by a rule",
                    "Reads of registry credentials that a rule matched.",
                    &self.report.reported,
                ),
                self.scopes(),
                self.denied(),
                self.handed_over(
                    "Handed over to known readers",
                    "The rules leave these reads alone: kubelets that pull images, controllers, and whom lists and exceptions \
                     name.",
                    &self.report.expected,
                ),
            ],
            blind: self.blind(),
        }
    }

    fn facts(&self) -> Vec<String> {
        let facts = &self.facts;
        #[allow(clippy::cast_precision_loss)] // For people.
        let size = bytes(facts.bytes as f64);
        let files = facts.inputs.len() as u64;
        let mut lines = vec![format!(
            "{} events, {size} in {} {}, {}",
            grouped(facts.counts.events),
            grouped(files),
            if files == 1 { "input" } else { "inputs" },
            span(facts.times)
        )];
        if facts.counts.outside_time_range > 0 {
            lines.push(format!(
                "{} more events are outside the time range",
                grouped(facts.counts.outside_time_range)
            ));
        }
        let names: Vec<&str> = facts.inputs.iter().take(MOST).map(String::as_str).collect();
        let more = if facts.inputs.len() > MOST { " and others" } else { "" };
        if !names.is_empty() {
            lines.push(format!("read: {}{more}", names.join(", ")));
        }
        lines
    }

    fn registries(&self) -> Section {
        let mut intro = "Registries whose credentials were handed over to readers whom a rule reports, the worst first. A \
                         rotation is due for each. The host is known where the log showed the credential itself, be it when it was \
                         created. PAYLOAD counts answers, PRESUMED reads of each of its credentials."
            .to_owned();
        if self.report.expected_registries > 0 {
            let more = grouped(self.report.expected_registries as u64);
            // Writing to a String does not fail.
            let _ = write!(intro, " Of {more} more the log shows the host and no such reader.");
        }
        let row = |registry: &Registry| {
            let host = registry.host.clone().unwrap_or_else(|| "(not in the log)".to_owned());
            let mut holders: Vec<String> = registry.credentials.iter().cloned().collect();
            if !registry.possible_credentials.is_empty() {
                holders.push("perhaps, one or some of:".to_owned());
                holders.extend(registry.possible_credentials.iter().cloned());
            }
            let mut usernames = samples(&registry.usernames);
            if let (true, Cell::Texts(names)) = (registry.usernames_are_uncertain, &mut usernames)
                && !names.is_empty()
            {
                names.insert(0, "perhaps, one or some of:".to_owned());
            }
            vec![
                Cell::Text(host),
                usernames,
                shortened(holders, 20),
                Cell::Number(registry.payload),
                Cell::Number(registry.presumed),
                shortened(registry.readers.iter().map(crate::detection::history::Reader::name).collect(), 20),
                when(registry.times.first),
                when(registry.times.last),
            ]
        };
        Section {
            title: "Registries to rotate",
            intro,
            head: &["REGISTRY", "AS", "CREDENTIALS", "PAYLOAD", "PRESUMED", "GIVEN TO", "FIRST", "LAST"],
            rows: self.report.registries.iter().map(row).collect(),
        }
    }

    fn handed_over(&self, title: &'static str, intro: &str, rows: &[HandedOver]) -> Section {
        let row = |one: &HandedOver| {
            let reading = &one.reading;
            let rules = self.rule_names(&reading.rules);
            let mut row = vec![
                Cell::Text(one.credential.clone()),
                Cell::Text(one.reader.name()),
                Cell::Number(reading.payload),
                Cell::Number(reading.presumed),
                Cell::Number(reading.metadata),
                samples(&reading.verbs),
            ];
            row.extend(circumstances(reading));
            row.push(Cell::Texts(rules.into_iter().map(str::to_owned).collect()));
            row
        };
        Section {
            title,
            intro: intro.to_owned(),
            head: &[
                "CREDENTIAL",
                "READER",
                "PAYLOAD",
                "PRESUMED",
                "METADATA",
                "VERB",
                "FROM",
                "AGENT",
                "FIRST",
                "LAST",
                "RULES",
            ],
            rows: rows.iter().map(row).collect(),
        }
    }

    fn scopes(&self) -> Section {
        let row = |one: &crate::detection::history::WholeScope| {
            let scope = match &one.namespace {
                Some(namespace) => format!("namespace {namespace}"),
                None => "whole cluster".to_owned(),
            };
            let mut row = vec![
                Cell::Text(scope),
                Cell::Text(one.reader.name()),
                Cell::Text(one.verb.clone()),
                Cell::Number(one.reading.times.count),
                Cell::Text(if one.is_reported { "yes" } else { "no" }.to_owned()),
            ];
            row.extend(circumstances(&one.reading));
            row
        };
        Section {
            title: "Whole namespaces, or the cluster, with the answer not in the log",
            intro: "Lists and watches that handed over every secret in scope; which ones, the log does not show. \
                    Credentials that were known by then count as presumed above; there may be others."
                .to_owned(),
            head: &["SCOPE", "READER", "VERB", "COUNT", "REPORTED", "FROM", "AGENT", "FIRST", "LAST"],
            rows: self.report.scopes.iter().map(row).collect(),
        }
    }

    fn denied(&self) -> Section {
        let row = |one: &crate::detection::history::Denial| {
            let mut row = vec![
                Cell::Text(one.reader.name()),
                Cell::Number(one.reading.times.count),
                samples(&one.reading.targets),
            ];
            row.extend(circumstances(&one.reading));
            row
        };
        Section {
            title: "Denied",
            intro: "Who asked for secrets and was refused. One attempt may be a mistake; many are a search."
                .to_owned(),
            head: &["READER", "COUNT", "ASKED FOR", "FROM", "AGENT", "FIRST", "LAST"],
            rows: self.report.denied.iter().map(row).collect(),
        }
    }

    fn blind(&self) -> Vec<String> {
        let (report, facts) = (&self.report, &self.facts);
        let mut lines = Vec::new();
        for (reason, count) in &facts.counts.malformed {
            lines.push(format!("malformed lines: {} {reason}", grouped(*count)));
        }
        for (reason, count) in &facts.counts.truncated {
            lines.push(format!("truncated events: {} {reason}", grouped(*count)));
        }
        for (what, count) in &facts.counts.evicted {
            lines.push(format!("forgotten to stay within bounds: {} {what}", grouped(*count)));
        }
        for failure in &facts.failures {
            lines.push(format!("not read, or not to its end: {failure}"));
        }
        for name in facts.empty.iter().take(MOST) {
            lines.push(format!("empty: {name}"));
        }
        if facts.empty.len() > MOST {
            lines.push(format!("empty: {} others", grouped((facts.empty.len() - MOST) as u64)));
        }
        for (count, what) in [
            (report.other_readers, "events of readers beyond those that are told apart"),
            (report.other_reads, "reads of credentials and scopes beyond those that are told apart"),
            (report.other_hosts, "mentions of registries beyond those that are told apart"),
        ] {
            if count > 0 {
                lines.push(format!("not shown: {} {what}", grouped(count)));
            }
        }
        if report.answers_hidden > 0 {
            lines.push(format!(
                "the log shows the answers of {} reads, and does not show those of {}: these are presumed",
                grouped(report.answers_shown),
                grouped(report.answers_hidden)
            ));
        }
        lines.push(
            "what was read before the log begins, after it ends, or in files that are missing".to_owned(),
        );
        lines.push(
            "ways around the API: etcd and its backups, files on nodes, and pods that are given a credential; requests that \
             the audit policy does not log"
                .to_owned(),
        );
        lines
    }
}

/// From where, with what, when.
fn circumstances(reading: &Reading) -> [Cell; 4] {
    [samples(&reading.clients), samples(&reading.agents), when(reading.times.first), when(reading.times.last)]
}

fn samples(set: &BoundedSet) -> Cell {
    let mut texts: Vec<String> = set.texts.iter().take(MOST).cloned().collect();
    if set.has_more || set.texts.len() > MOST {
        texts.push("others".to_owned());
    }
    Cell::Texts(texts)
}

fn shortened(mut texts: Vec<String>, most: usize) -> Cell {
    if texts.len() > most {
        let more = texts.len() - most;
        texts.truncate(most);
        texts.push(format!("and {} more", grouped(more as u64)));
    }
    Cell::Texts(texts)
}

fn when(time: Option<i64>) -> Cell {
    Cell::Text(time.map_or_else(|| "(unknown)".to_owned(), |time| time::format(Clock::DateTimeSeconds, time)))
}

fn span(times: Times) -> String {
    match (times.first, times.last) {
        (Some(first), Some(last)) => format!(
            "{} to {} UTC",
            time::format(Clock::DateTimeSeconds, first),
            time::format(Clock::DateTimeSeconds, last)
        ),
        _ => "at unknown times".to_owned(),
    }
}
