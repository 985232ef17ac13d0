//! The report as sections, entries and sentences, independent of the output format. Names are raw values from events: each format must
//! escape them.

use std::fmt::Write as _;

use super::{Page, ReportSource};
use crate::cli::scan::summary::{bytes, grouped};
use crate::detection::audit::time;
use crate::detection::history::{
    AccessRecord, BoundedSet, CredentialView, Denial, Reader, ReaderView, Registry, RegistryKind, Rotation,
    Times, WholeScope,
};

/// A number or a short text of an entry.
pub enum Cell {
    Number(u64),
    Text(String),
}

/// One reader, credential, registry or rule.
#[derive(Default)]
pub struct ReportEntry {
    /// May come from an event.
    pub name: String,
    /// One per heading.
    pub cells: Vec<Cell>,
    /// Further facts, each a title and texts that may come from events.
    pub details: Vec<(&'static str, Vec<String>)>,
    pub rotation: Option<Rotation>,
}

/// A titled list.
pub struct Section {
    pub title: &'static str,
    /// Explanation above the list.
    pub intro: String,
    /// Headings of the cells; the name comes last.
    pub head: &'static [&'static str],
    pub name: &'static str,
    pub entries: Vec<ReportEntry>,
    /// Whether a terminal shows the details, which is not the case if they repeat those of another section.
    pub has_details: bool,
}

/// The whole report.
pub struct Document {
    /// The result in one or a few sentences.
    pub answer: Vec<String>,
    /// Describes the input: its size, time range and names, one line each.
    pub facts: Vec<String>,
    pub sections: Vec<Section>,
    /// What the report cannot show, and why.
    pub limitations: Vec<String>,
}

/// Maximum number of file names in a list.
const MAX_TEXTS: usize = 5;

/// Maximum number of credentials or readers in a list.
const MAX_NAMES: usize = 50;

impl Page {
    pub fn document(&self) -> Document {
        Document {
            answer: self.answer(),
            facts: self.facts(),
            sections: vec![
                self.readers(),
                self.credentials(),
                self.registries(),
                self.scopes(),
                self.denied(),
                self.expected(),
                self.rules(),
            ],
            limitations: self.limitations(),
        }
    }

    fn answer(&self) -> Vec<String> {
        let answer = self.report.answer();
        if answer.readers == 0 {
            if let ReportSource::Log(facts) = &self.origin
                && facts.counts.events == 0
            {
                return vec!["No event was read: this says nothing about exposures.".to_owned()];
            }
            return vec!["No registry credential was exposed to a reader that a rule reports.".to_owned()];
        }
        let mut lines = vec![format!(
            "{} exposed to {}; {} to rotate.",
            count(answer.credentials, "credential", "credentials"),
            count(answer.readers, "reader", "readers"),
            count(answer.registries, "registry", "registries")
        )];
        if answer.credentials_without_registry > 0 {
            lines.push(format!(
                "The log does not show the registry of {}: rotate these too.",
                count(answer.credentials_without_registry, "credential", "credentials")
            ));
        }
        if answer.whole_scopes > 0 {
            lines.push(format!(
                "{} of whole namespaces or of the cluster without a logged response: there may be further credentials.",
                count(usize::try_from(answer.whole_scopes).unwrap_or(usize::MAX), "read", "reads")
            ));
        }
        lines
    }

    fn facts(&self) -> Vec<String> {
        let facts = match &self.origin {
            ReportSource::Store { alerts, times } => {
                return vec![format!("{} stored alerts, {}", grouped(*alerts), span(*times))];
            }
            ReportSource::Log(facts) => facts,
        };
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

    fn readers(&self) -> Section {
        Section {
            title: "Readers",
            intro: "Readers that a rule reports, those with the most credentials first. PAYLOAD counts credentials that the log shows in a response, \
                    PRESUMED those that may have been in one."
                .to_owned(),
            head: &["PAYLOAD", "PRESUMED", "CREDENTIALS", "LAST"],
            name: "READER",
            entries: self.report.readers().iter().map(reader_entry).collect(),
            has_details: true,
        }
    }

    fn credentials(&self) -> Section {
        let entry = |view: &CredentialView<'_>| ReportEntry {
            name: view.credential.to_owned(),
            cells: vec![
                Cell::Number(view.payload),
                Cell::Number(view.presumed),
                Cell::Number(view.readers.len() as u64),
                when(view.times.last),
            ],
            details: vec![
                ("registries", view.registries.iter().map(ToString::to_string).collect()),
                ("possible registries", view.possible_registries.iter().map(ToString::to_string).collect()),
                ("readers", shortened(view.readers.iter().map(|reader| reader.name()).collect())),
                ("first", times_text(view.times.first)),
            ],
            ..ReportEntry::default()
        };
        Section {
            title: "Credentials",
            intro: "What they read, most exposed first.".to_owned(),
            head: &["PAYLOAD", "PRESUMED", "READERS", "LAST"],
            name: "CREDENTIAL",
            entries: self.report.credentials().iter().map(entry).collect(),
            has_details: false,
        }
    }

    fn registries(&self) -> Section {
        let mut intro = "Rotate the credentials of each: revoke the login at the registry, create a new one, and replace it in every \
                         secret. The host is known if the log shows the credential itself, for example when it was created."
            .to_owned();
        if self.report.expected_registries > 0 {
            let more = grouped(self.report.expected_registries as u64);
            // Writing to a String does not fail.
            let _ = write!(intro, " {more} more registries were read by expected readers only.");
        }
        let entry = |registry: &Registry| {
            let usernames = registry.usernames.texts.iter().map(String::as_str);
            let kind = match &registry.host {
                Some(host) => RegistryKind::of(host, usernames),
                None => RegistryKind::Other,
            };
            let users = if registry.usernames_are_uncertain { "one or more of the users" } else { "users" };
            ReportEntry {
                name: registry.host.clone().unwrap_or_else(|| "(not logged)".to_owned()),
                cells: vec![
                    Cell::Number(registry.payload),
                    Cell::Number(registry.presumed),
                    Cell::Number(registry.readers.len() as u64),
                    when(registry.times.last),
                ],
                details: vec![
                    (users, samples(&registry.usernames)),
                    ("credentials", shortened(registry.credentials.iter().cloned().collect())),
                    (
                        "one or more of the credentials",
                        shortened(registry.possible_credentials.iter().cloned().collect()),
                    ),
                    ("exposed to", shortened(registry.readers.iter().map(Reader::name).collect())),
                    ("first", times_text(registry.times.first)),
                ],
                rotation: Some(kind.rotation()),
            }
        };
        Section {
            title: "Registries to rotate",
            intro,
            head: &["PAYLOAD", "PRESUMED", "READERS", "LAST"],
            name: "REGISTRY",
            entries: self.report.registries.iter().map(entry).collect(),
            has_details: true,
        }
    }

    fn scopes(&self) -> Section {
        let entry = |one: &WholeScope| ReportEntry {
            name: format!("{} {} by {}", one.verb, scope_name(one), one.reader.name()),
            cells: vec![
                Cell::Number(one.reading.times.count),
                Cell::Text(if one.is_reported { "yes" } else { "no" }.to_owned()),
                when(one.reading.times.last),
            ],
            details: circumstances(&one.reading),
            ..ReportEntry::default()
        };
        Section {
            title: "Namespace-wide and cluster-wide reads without a logged response",
            intro: "Lists and watches that exposed every secret in scope; the log does not show which. Credentials known at that \
                    time count as presumed above; there may be others."
                .to_owned(),
            head: &["COUNT", "REPORTED", "LAST"],
            name: "READ",
            entries: self.report.scopes.iter().map(entry).collect(),
            has_details: false,
        }
    }

    fn denied(&self) -> Section {
        let entry = |one: &Denial| {
            let mut details = vec![("requested", samples(&one.reading.targets))];
            details.extend(circumstances(&one.reading));
            ReportEntry {
                name: one.reader.name(),
                cells: vec![Cell::Number(one.reading.times.count), when(one.reading.times.last)],
                details,
                ..ReportEntry::default()
            }
        };
        Section {
            title: "Denied requests",
            intro: "Denied attempts to read secrets. A single one may be a mistake; many are a search."
                .to_owned(),
            head: &["COUNT", "LAST"],
            name: "READER",
            entries: self.report.denied.iter().map(entry).collect(),
            has_details: true,
        }
    }

    fn expected(&self) -> Section {
        Section {
            title: "Exposures to expected readers",
            intro: match self.origin {
                ReportSource::Log(_) => {
                    "Reads that no rule reports: kubelets that pull images, controllers, and readers named in lists and exceptions."
                }
                ReportSource::Store { .. } => {
                    "The store holds what rules reported; a report on the log also shows reads that no rule reports."
                }
            }
            .to_owned(),
            head: &["PAYLOAD", "PRESUMED", "CREDENTIALS", "LAST"],
            name: "READER",
            entries: self.report.expected_readers().iter().map(reader_entry).collect(),
            has_details: true,
        }
    }

    /// The rules that reported readers, listed once for all of them.
    fn rules(&self) -> Section {
        let readers = self.report.readers();
        let entry = |(rule, name): (usize, &String)| {
            let by: Vec<String> = readers
                .iter()
                .filter(|view| view.rules.contains(&rule))
                .map(|view| view.reader.name())
                .collect();
            (!by.is_empty()).then(|| ReportEntry {
                name: name.clone(),
                cells: vec![Cell::Number(by.len() as u64)],
                details: vec![("readers", shortened(by))],
                ..ReportEntry::default()
            })
        };
        Section {
            title: "Rules",
            intro: "Rules that reported these readers.".to_owned(),
            head: &["READERS"],
            name: "RULE",
            entries: self.rules.iter().enumerate().filter_map(entry).collect(),
            has_details: false,
        }
    }

    fn limitations(&self) -> Vec<String> {
        let report = &self.report;
        let mut lines = Vec::new();
        if let ReportSource::Log(facts) = &self.origin {
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
        lines.push(
            match self.origin {
                ReportSource::Log(_) => "reads before the log starts, after it ends, or in missing files",
                ReportSource::Store { .. } => {
                    "reads whose alerts are no longer stored, or were suppressed by a throttle, and reads that no rule reported"
                }
            }
            .to_owned(),
        );
        lines.push(
            "access that bypasses the API (etcd and its backups, files on nodes, pods with a mounted credential), and requests \
             that the audit policy does not log"
                .to_owned(),
        );
        lines
    }
}

/// One reader over all credentials.
fn reader_entry(view: &ReaderView<'_>) -> ReportEntry {
    let mut credentials: Vec<String> = view.credentials.iter().map(|one| one.credential.clone()).collect();
    credentials.dedup();
    let number = credentials.len();
    let scopes = view.scopes.iter().map(|one| format!("{} {}", one.verb, scope_name(one))).collect();
    ReportEntry {
        name: view.reader.name(),
        cells: vec![
            Cell::Number(view.payload),
            Cell::Number(view.presumed),
            Cell::Number(number as u64),
            when(view.times.last),
        ],
        details: vec![
            ("credentials", shortened(credentials)),
            ("whole scopes", shortened(scopes)),
            ("verbs", samples(&view.verbs)),
            ("source IPs", samples(&view.clients)),
            ("user agents", samples(&view.agents)),
            ("first", times_text(view.times.first)),
        ],
        ..ReportEntry::default()
    }
}

fn scope_name(scope: &WholeScope) -> String {
    match &scope.namespace {
        Some(namespace) => format!("namespace {namespace}"),
        None => "cluster".to_owned(),
    }
}

fn circumstances(reading: &AccessRecord) -> Vec<(&'static str, Vec<String>)> {
    vec![
        ("verbs", samples(&reading.verbs)),
        ("source IPs", samples(&reading.clients)),
        ("user agents", samples(&reading.agents)),
        ("first", times_text(reading.times.first)),
    ]
}

fn samples(set: &BoundedSet) -> Vec<String> {
    let mut texts: Vec<String> = set.texts.iter().cloned().collect();
    if set.has_more {
        texts.push("and more".to_owned());
    }
    texts
}

fn shortened(mut texts: Vec<String>) -> Vec<String> {
    if texts.len() > MAX_NAMES {
        let more = texts.len() - MAX_NAMES;
        texts.truncate(MAX_NAMES);
        texts.push(format!("and {} more", grouped(more as u64)));
    }
    texts
}

fn count(number: usize, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number as u64), if number == 1 { one } else { many })
}

fn when(time: Option<i64>) -> Cell {
    Cell::Text(time.map_or_else(|| "(unknown)".to_owned(), time::utc_seconds))
}

fn times_text(time: Option<i64>) -> Vec<String> {
    time.map(time::utc_seconds).into_iter().collect()
}

fn span(times: Times) -> String {
    match (times.first, times.last) {
        (Some(first), Some(last)) => format!("{} to {}", time::utc_seconds(first), time::utc_seconds(last)),
        _ => "at unknown times".to_owned(),
    }
}

/// `2026-11-23T03:46:30.000000000Z`
pub fn rfc3339(time: i64) -> String {
    let mut text = Vec::with_capacity(30);
    time::write_rfc3339(&mut text, time);
    String::from_utf8_lossy(&text).into_owned()
}
