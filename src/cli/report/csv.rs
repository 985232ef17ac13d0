//! The report as CSV (RFC 4180): one row per reader and credential, scope, or denied attempts.

use std::collections::HashMap;

use super::Page;
use super::sections::rfc3339;
use crate::cli::visible;
use crate::detection::history::{AccessRecord, BoundedSet, CredentialView, Reader};

const HEAD: [&str; 18] = [
    "kind",
    "user",
    "impersonated",
    "credential",
    "namespace",
    "reported",
    "payload",
    "presumed",
    "metadata",
    "count",
    "first",
    "last",
    "verbs",
    "source_ips",
    "user_agents",
    "requested",
    "registries",
    "rules",
];

pub fn write(page: &Page) -> String {
    let mut out = String::new();
    push_row(&mut out, HEAD.iter().map(|head| (*head).to_owned()));
    let report = &page.report;
    let views = report.credentials();
    let views: HashMap<&str, &CredentialView<'_>> =
        views.iter().map(|view| (view.credential, view)).collect();
    let registries = |credential: &str| {
        let hosts = views
            .get(credential)
            .into_iter()
            .flat_map(|view| view.registries.iter().chain(&view.possible_registries));
        hosts.copied().collect::<Vec<_>>().join(" ")
    };
    for (exposures, is_reported) in [(&report.reported, true), (&report.expected, false)] {
        for one in exposures {
            let namespace = one.credential.split_once('/').map_or("", |(namespace, _)| namespace);
            let row = Row {
                kind: "credential",
                reader: &one.reader,
                credential: &one.credential,
                namespace,
                is_reported,
                reading: &one.reading,
                registries: registries(&one.credential),
            };
            row.push(page, &mut out);
        }
    }
    for scope in &report.scopes {
        let row = Row {
            kind: if scope.namespace.is_some() { "namespace" } else { "cluster" },
            reader: &scope.reader,
            credential: "",
            namespace: scope.namespace.as_deref().unwrap_or_default(),
            is_reported: scope.is_reported,
            reading: &scope.reading,
            registries: String::new(),
        };
        row.push(page, &mut out);
    }
    for denial in &report.denied {
        let row = Row {
            kind: "denied",
            reader: &denial.reader,
            credential: "",
            namespace: "",
            is_reported: !denial.reading.rules.is_empty(),
            reading: &denial.reading,
            registries: String::new(),
        };
        row.push(page, &mut out);
    }
    out
}

struct Row<'r> {
    kind: &'static str,
    reader: &'r Reader,
    credential: &'r str,
    namespace: &'r str,
    is_reported: bool,
    reading: &'r AccessRecord,
    registries: String,
}

impl Row<'_> {
    fn push(&self, page: &Page, out: &mut String) {
        let reading = self.reading;
        let time = |time: Option<i64>| time.map(rfc3339).unwrap_or_default();
        push_row(
            out,
            [
                self.kind.to_owned(),
                self.reader.user.clone(),
                self.reader.impersonated.clone().unwrap_or_default(),
                self.credential.to_owned(),
                self.namespace.to_owned(),
                self.is_reported.to_string(),
                reading.payload.to_string(),
                reading.presumed.to_string(),
                reading.metadata.to_string(),
                reading.times.count.to_string(),
                time(reading.times.first),
                time(reading.times.last),
                list(&reading.verbs),
                list(&reading.clients),
                list(&reading.agents),
                list(&reading.targets),
                self.registries.clone(),
                page.rule_names(&reading.rules).join("; "),
            ]
            .into_iter(),
        );
    }
}

fn list(set: &BoundedSet) -> String {
    let mut texts: Vec<&str> = set.texts.iter().map(String::as_str).collect();
    if set.has_more {
        texts.push("and more");
    }
    texts.join("; ")
}

fn push_row(out: &mut String, cells: impl Iterator<Item = String>) {
    for (at, cell) in cells.enumerate() {
        if at > 0 {
            out.push(',');
        }
        push_cell(out, &cell);
    }
    out.push_str("\r\n");
}

/// Appends a quoted cell. Spreadsheets evaluate cells that start with certain characters, even after spaces: an apostrophe makes them text.
fn push_cell(out: &mut String, cell: &str) {
    let text = visible(cell);
    out.push('"');
    if text.trim_start().starts_with(['=', '+', '-', '@', '|', '%', '＝', '＋', '－', '＠']) {
        out.push('\'');
    }
    out.push_str(&text.replace('"', "\"\""));
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_and_no_formulas() {
        for (cell, expected) in [
            ("a,b", "\"a,b\""),
            ("say \"x\"", "\"say \"\"x\"\"\""),
            ("=cmd|' /C calc'!A0", "\"'=cmd|' /C calc'!A0\""),
            (" @SUM(1)", "\"' @SUM(1)\""),
            ("a\r\nb", "\"a\\r\\nb\""),
            ("\t=1", "\"\\t=1\""),
        ] {
            let mut out = String::new();
            push_cell(&mut out, cell);
            assert_eq!(out, expected);
        }
    }
}
