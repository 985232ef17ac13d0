//! The report as sections, rows and sentences, independent of the output format. Names are raw values out of events: each format must
//! escape them.

use std::fmt::Write as _;

use super::Page;
use crate::cli::scan::summary::{bytes, grouped};
use crate::detection::audit::time::{self, Clock};
use crate::detection::history::{BoundedSet, HandedOver, Reading, Registry, Times};

/// A table cell. Texts may come from events.
pub enum Cell {
    Text(String),
    Number(u64),
    /// One line each.
    Texts(Vec<String>),
}

/// A titled table.
pub struct Section {
    pub title: &'static str,
    /// Explanation above the table.
    pub intro: String,
    /// Column headings.
    pub head: &'static [&'static str],
    /// Each row has one cell per column.
    pub rows: Vec<Vec<Cell>>,
}

/// The whole report.
pub struct Document {
    /// What was read.
    pub facts: Vec<String>,
    pub sections: Vec<Section>,
    /// What the report cannot show, and why.
    pub limitations: Vec<String>,
}

/// Maximum number of texts in one cell.
const MAX_TEXTS: usize = 5;

/// Maximum number of credentials or readers in one cell of the registries.
const MAX_HOLDERS: usize = 20;

impl Page {
    pub fn document(&self) -> Document {
        Document {
            facts: self.facts(),
            sections: vec![
                self.registries(),
                self.exposures(
                    "Exposures reported by a rule",
                    "Reads of registry credentials that matched a rule.",
                    &self.report.reported,
                ),
                self.scopes(),
                self.denied(),
                self.exposures(
                    "Exposures to expected readers",
                    "Reads that no rule reports: kubelets that pull images, controllers, and readers named in lists and \
                     exceptions.",
                    &self.report.expected,
                ),
            ],
            limitations: self.limitations(),
        }
    }

    fn facts(&self) -> Vec<String> {
        let facts = &self.facts;
        #[allow(clippy::cast_precision_loss)] // Rounded for display.
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
            lines.push(format!("{} events outside the time range", grouped(facts.counts.outside_time_range)));
        }
        let names: Vec<&str> = facts.inputs.iter().take(MAX_TEXTS).map(String::as_str).collect();
        let more = if facts.inputs.len() > MAX_TEXTS { " and more" } else { "" };
        if !names.is_empty() {
            lines.push(format!("inputs: {}{more}", names.join(", ")));
        }
        lines
    }

    fn registries(&self) -> Section {
        let mut intro = "Registries whose credentials were exposed to a reader that a rule reports, most exposed first. Rotate the \
                         credentials of each. The host is known if the log shows the credential itself, for example when it was \
                         created. PAYLOAD counts responses that contained a credential of the registry, PRESUMED those that may have."
            .to_owned();
        if self.report.expected_registries > 0 {
            let more = grouped(self.report.expected_registries as u64);
            // Writing to a String does not fail.
            let _ = write!(intro, " {more} more registries were read by expected readers only.");
        }
        let row = |registry: &Registry| {
            let host = registry.host.clone().unwrap_or_else(|| "(not logged)".to_owned());
            let mut holders: Vec<String> = registry.credentials.iter().cloned().collect();
            if !registry.possible_credentials.is_empty() {
                holders.push("one or more of:".to_owned());
                holders.extend(registry.possible_credentials.iter().cloned());
            }
            let mut usernames = samples(&registry.usernames);
            if let (true, Cell::Texts(names)) = (registry.usernames_are_uncertain, &mut usernames)
                && !names.is_empty()
            {
                names.insert(0, "one or more of:".to_owned());
            }
            vec![
                Cell::Text(host),
                usernames,
                shortened(holders, MAX_HOLDERS),
                Cell::Number(registry.payload),
                Cell::Number(registry.presumed),
                shortened(
                    registry.readers.iter().map(crate::detection::history::Reader::name).collect(),
                    MAX_HOLDERS,
                ),
                when(registry.times.first),
                when(registry.times.last),
            ]
        };
        Section {
            title: "Registries to rotate",
            intro,
            head: &[
                "REGISTRY",
                "USERNAME",
                "CREDENTIALS",
                "PAYLOAD",
                "PRESUMED",
                "EXPOSED TO",
                "FIRST",
                "LAST",
            ],
            rows: self.report.registries.iter().map(row).collect(),
        }
    }

    fn exposures(&self, title: &'static str, intro: &str, rows: &[HandedOver]) -> Section {
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
                "SOURCE IP",
                "USER AGENT",
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
                None => "cluster".to_owned(),
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
            title: "Namespace-wide and cluster-wide reads without a logged response",
            intro: "Lists and watches that exposed every secret in scope; the log does not show which. Credentials known at that \
                    time count as presumed above; there may be others."
                .to_owned(),
            head: &[
                "SCOPE",
                "READER",
                "VERB",
                "COUNT",
                "REPORTED",
                "SOURCE IP",
                "USER AGENT",
                "FIRST",
                "LAST",
            ],
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
            title: "Denied requests",
            intro: "Denied attempts to read secrets. A single one may be a mistake; many are a search."
                .to_owned(),
            head: &["READER", "COUNT", "REQUESTED", "SOURCE IP", "USER AGENT", "FIRST", "LAST"],
            rows: self.report.denied.iter().map(row).collect(),
        }
    }

    fn limitations(&self) -> Vec<String> {
        let (report, facts) = (&self.report, &self.facts);
        let mut lines = Vec::new();
        for (reason, count) in &facts.counts.malformed {
            lines.push(format!("malformed records: {} {reason}", grouped(*count)));
        }
        for (reason, count) in &facts.counts.truncated {
            lines.push(format!("truncated events: {} {reason}", grouped(*count)));
        }
        for (what, count) in &facts.counts.evicted {
            lines.push(format!("evicted to stay within memory limits: {} {what}", grouped(*count)));
        }
        for failure in &facts.failures {
            lines.push(format!("unreadable input: {failure}"));
        }
        for name in facts.empty.iter().take(MAX_TEXTS) {
            lines.push(format!("empty input: {name}"));
        }
        if facts.empty.len() > MAX_TEXTS {
            lines.push(format!("empty inputs: {} more", grouped((facts.empty.len() - MAX_TEXTS) as u64)));
        }
        for (count, what) in [
            (report.other_readers, "events of readers beyond the limit"),
            (report.other_reads, "reads of credentials and scopes beyond the limit"),
            (report.other_hosts, "references to registries beyond the limit"),
        ] {
            if count > 0 {
                lines.push(format!("not shown: {} {what}", grouped(count)));
            }
        }
        if report.answers_hidden > 0 {
            lines.push(format!(
                "the log contains the responses of {} reads and lacks those of {}, whose exposure is presumed",
                grouped(report.answers_shown),
                grouped(report.answers_hidden)
            ));
        }
        lines.push("reads before the log starts, after it ends, or in missing files".to_owned());
        lines.push(
            "access that bypasses the API (etcd and its backups, files on nodes, pods with a mounted credential), and requests \
             that the audit policy does not log"
                .to_owned(),
        );
        lines
    }
}

/// Source IPs, user agents, first and last time.
fn circumstances(reading: &Reading) -> [Cell; 4] {
    [samples(&reading.clients), samples(&reading.agents), when(reading.times.first), when(reading.times.last)]
}

fn samples(set: &BoundedSet) -> Cell {
    let mut texts: Vec<String> = set.texts.iter().take(MAX_TEXTS).cloned().collect();
    if set.has_more || set.texts.len() > MAX_TEXTS {
        texts.push("and more".to_owned());
    }
    Cell::Texts(texts)
}

fn shortened(mut texts: Vec<String>, limit: usize) -> Cell {
    if texts.len() > limit {
        let more = texts.len() - limit;
        texts.truncate(limit);
        texts.push(format!("and {} more", grouped(more as u64)));
    }
    Cell::Texts(texts)
}

fn when(time: Option<i64>) -> Cell {
    Cell::Text(time.map_or_else(|| "(unknown)".to_owned(), format_time))
}

fn span(times: Times) -> String {
    match (times.first, times.last) {
        (Some(first), Some(last)) => format!("{} to {}", format_time(first), format_time(last)),
        _ => "at unknown times".to_owned(),
    }
}

/// `2026-11-23 03:46:30Z`
fn format_time(time: i64) -> String {
    time::format(Clock::DateTimeSeconds, time) + "Z"
}
