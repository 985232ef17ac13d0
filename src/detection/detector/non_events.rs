//! Explains why input yields no audit events: how many records are something else, what they look like and what to do.
//!
//! Takes the counts of a window or of a whole input, and a shape of a record per reason; returns a text for the log and for people. A shape
//! must never reveal a secret: a record of another program may contain anything. Of a text it keeps punctuation and the words of a fixed
//! vocabulary, and replaces each other letter by `x` and each digit by `0`. Of an object it keeps the keys that are field names, and no
//! value but a kind of the Kubernetes API.

use super::stats::{Stats, malformed};
use crate::detection::audit::envelope::skipped;
use crate::detection::audit::event::{Event, Member};
use crate::detection::audit::json::{Cursor, Raw};
use crate::text::numbers::grouped;

/// Reasons for which a whole record is counted as something other than an audit event, although no wrapper explains it.
const FOREIGN: [&str; 5] = [
    malformed::NOT_JSON,
    malformed::SYNTAX,
    malformed::NO_EVENT,
    skipped::KUBERNETES_EVENT,
    skipped::OTHER_AUDIT_LOG,
];

/// Maximum length of a shape, in characters.
const MAX_SHAPE_LEN: usize = 60;

/// Maximum number of keys shown of an object.
const MAX_KEYS: usize = 6;

/// Maximum length of a key that is shown, in bytes.
const MAX_KEY_LEN: usize = 20;

/// Maximum number of bytes of a record that are examined to describe its shape.
const MAX_READ: usize = 4096;

/// Words that identify a program or format and cannot be a secret.
const VOCABULARY: [&str; 72] = [
    "jan",
    "feb",
    "mar",
    "apr",
    "may",
    "jun",
    "jul",
    "aug",
    "sep",
    "oct",
    "nov",
    "dec",
    "mon",
    "tue",
    "wed",
    "thu",
    "fri",
    "sat",
    "sun",
    "t",
    "z",
    "f",
    "p",
    "i",
    "e",
    "w",
    "d",
    "utc",
    "gmt",
    "stdout",
    "stderr",
    "trace",
    "debug",
    "info",
    "notice",
    "warn",
    "warning",
    "error",
    "fatal",
    "critical",
    "k8s",
    "kube",
    "kubernetes",
    "apiserver",
    "audit",
    "kubelet",
    "controller",
    "manager",
    "scheduler",
    "etcd",
    "rancher",
    "openshift",
    "syslog",
    "systemd",
    "journal",
    "kernel",
    "containerd",
    "docker",
    "crio",
    "fluentd",
    "fluent",
    "bit",
    "vector",
    "filebeat",
    "json",
    "log",
    "logs",
    "event",
    "http",
    "https",
    "get",
    "post",
];

impl Stats {
    /// Records that are not audit events and have no known wrapper.
    pub fn foreign_records(&self) -> u64 {
        self.counts_of(|reason| FOREIGN.contains(&reason))
    }

    /// Records without an audit event, including those whose wrapper explains this, such as other categories of a cloud's export.
    pub fn records_without_event(&self) -> u64 {
        self.counts_of(|reason| {
            FOREIGN.contains(&reason)
                || (skipped::ALL.contains(&reason)
                    && ![skipped::CONTROL, skipped::EMPTY, skipped::PIECE].contains(&reason))
        })
    }

    fn counts_of(&self, counts: impl Fn(&str) -> bool) -> u64 {
        let all = self.malformed.iter().chain(&self.skipped);
        all.filter(|(reason, _)| counts(reason)).map(|(_, count)| count).sum()
    }

    /// Whether there were records, and no audit event in any of them.
    pub fn is_without_events(&self) -> bool {
        self.events == 0 && self.outside_time_range == 0 && self.records_without_event() > 0
    }

    /// Describes how many records are not audit events, what the most frequent kind looks like, and what to do.
    pub fn describe_non_events(&self) -> String {
        let without = self.records_without_event();
        let total = without + self.events;
        let reason = self
            .malformed
            .iter()
            .chain(&self.skipped)
            .filter(|(reason, _)| FOREIGN.contains(reason) || self.foreign_records() == 0)
            .max_by_key(|&(_, count)| *count)
            .map_or(malformed::NO_EVENT, |(reason, _)| *reason);
        let shape = match self.shapes.get(reason) {
            Some(shape) => format!("; they look like `{shape}` (letters as x, digits as 0)"),
            None => String::new(),
        };
        format!(
            "{} of {} records are not audit events ({reason}){shape}: {}",
            grouped(without),
            grouped(total),
            advice(reason)
        )
    }

    /// Stores the shape of a record that is not an audit event.
    pub(super) fn note_shape(&mut self, reason: &'static str, record: &[u8]) {
        let is_record = FOREIGN.contains(&reason) || skipped::ALL.contains(&reason);
        if is_record && !self.shapes.contains_key(reason) {
            self.shapes.insert(reason, shape(record));
        }
    }
}

fn advice(reason: &str) -> &'static str {
    match reason {
        skipped::KUBERNETES_EVENT => {
            "these are Event objects of the Kubernetes API, as of `kubectl get events`; read the audit log instead, \
             which the apiserver writes with --audit-policy-file and --audit-log-path"
        }
        skipped::OTHER_AUDIT_LOG => {
            "these are of the audit log of another program, such as Rancher; read the audit log of the apiserver, \
             which it writes with --audit-policy-file and --audit-log-path"
        }
        malformed::NOT_JSON | malformed::SYNTAX | malformed::NO_EVENT => {
            "check that the input is the apiserver's audit log in JSON (--audit-log-format=json), in a format that \
             docs/inputs.md lists"
        }
        _ => {
            "check that the audit log is among what the shipper or cloud service sends, such as the category or log \
             stream of the apiserver's audit log"
        }
    }
}

/// The reason why an object that looks like an event is not one of the apiserver's audit log. `None` unless that is certain: an
/// audit event always has a level or an `apiVersion` of `audit.k8s.io`, and none of its verbs has capital letters.
pub(super) fn other_event(event: &mut Event<'_>) -> Option<&'static str> {
    let version = event.text(Member::ApiVersion);
    if version.as_deref().is_some_and(|version| version.starts_with(b"audit.k8s.io/"))
        || event.get(Member::Level).is_some()
    {
        return None;
    }
    let has_kind = event.get(Member::Kind).is_some();
    if event.get(Member::AuditId).is_none() {
        let is_of_api = version
            .as_deref()
            .is_some_and(|version| version == b"v1" || version.starts_with(b"events.k8s.io/"));
        let has_subject =
            ["involvedObject", "regarding"].iter().any(|name| event.member_by_name(name).is_some());
        return (has_kind && (is_of_api || has_subject)).then_some(skipped::KUBERNETES_EVENT);
    }
    if has_kind || event.get(Member::ObjectRef).is_some() {
        return None;
    }
    let has_method = event.text(Member::Verb).is_some_and(|verb| {
        [&b"GET"[..], b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"].contains(&&*verb)
    });
    (has_method || event.member_by_name("method").is_some()).then_some(skipped::OTHER_AUDIT_LOG)
}

/// The shape of a record, without anything that could be a secret.
fn shape(record: &[u8]) -> String {
    let record = &record[..record.len().min(MAX_READ)];
    let line = record.trim_ascii_start();
    match line.first() {
        Some(b'{') => object_shape(line),
        _ => text_shape(line.split(|byte| *byte == b'\n').next().unwrap_or_default()),
    }
}

fn object_shape(object: &[u8]) -> String {
    let mut cursor = Cursor::new(object, b'{');
    let mut parts = Vec::new();
    while let Some(Ok((key, value))) = cursor.member() {
        if parts.len() == MAX_KEYS {
            parts.push("…".to_owned());
            break;
        }
        let name = key.text();
        let name = std::str::from_utf8(&name).unwrap_or("…");
        let is_field = name.len() <= MAX_KEY_LEN
            && name.bytes().all(|byte| byte.is_ascii_alphabetic() || b"_.@-/".contains(&byte));
        let name = if is_field { name } else { "…" };
        parts.push(match kind_of(name, value) {
            Some(kind) => format!("{name}: {kind}"),
            None => name.to_owned(),
        });
    }
    format!("{{{}}}", parts.join(", "))
}

/// Values of `kind` that count as audit events.
fn kind_of(name: &str, value: Raw<'_>) -> Option<&'static str> {
    const KINDS: [&str; 8] = ["Event", "EventList", "List", "Pod", "Policy", "Secret", "ConfigMap", "Status"];
    let text = value.text();
    (name == "kind").then(|| KINDS.into_iter().find(|kind| kind.as_bytes() == &*text)).flatten()
}

fn text_shape(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let end = text.find('{').map_or(text.len(), |at| at + 1);
    let mut out = String::new();
    let mut word = String::new();
    for letter in text[..end].chars().take(MAX_SHAPE_LEN) {
        if letter.is_alphanumeric() {
            word.push(letter);
            continue;
        }
        push_word(&mut word, &mut out);
        out.push(match letter {
            ' '..='~' if letter != '`' => letter,
            '\t' => ' ',
            _ => '?',
        });
    }
    push_word(&mut word, &mut out);
    if text[..end].chars().nth(MAX_SHAPE_LEN).is_some() {
        out.push('…');
    }
    out
}

/// Appends a word if it is in the vocabulary, otherwise its shape.
fn push_word(word: &mut String, out: &mut String) {
    // A syslog priority or a day: too short to be a secret.
    let is_number = word.len() <= 3 && word.bytes().all(|byte| byte.is_ascii_digit());
    if is_number && (out.is_empty() || out.ends_with(['<', ' ']))
        || VOCABULARY.contains(&word.to_ascii_lowercase().as_str())
    {
        out.push_str(word);
    } else {
        out.extend(word.chars().map(|letter| if letter.is_numeric() { '0' } else { 'x' }));
    }
    word.clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_tell_formats_apart_and_hide_values() {
        for (record, expected) in [
            (
                r#"<133>Oct  7 16:19:19 master-7 k8s-audit: {"kind":"Event","password":"x"}"#,
                "<133>Oct  7 16:00:00 xxxxxx-0 k8s-audit: {",
            ),
            (r#"2026-10-07T16:19:19Z stdout F {"a"#, "0000-00-00x00:00:00x stdout F {"),
            ("password=hunter2 token: eyJhbGciOiJSUzI1NiJ9", "xxxxxxxx=xxxxxx0 xxxxx: xxxxxxxxxxxxxxx0xxx0"),
            ("s3cr3t", "x0xx0x"),
            (
                r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"secret-name"}}"#,
                "{kind: Pod, apiVersion, metadata}",
            ),
            (r#"{"kind":"hunter","ghp_16C7e42F292c6912E7710c838347Ae178B4a":1,"a":2}"#, "{kind, …, a}"),
            ("\u{1b}[2J`x\u{202e}", "?[0x?x?"),
            ("", ""),
        ] {
            assert_eq!(shape(record.as_bytes()), expected, "{record}");
        }
    }
}
