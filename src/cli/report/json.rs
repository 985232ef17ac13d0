//! The report as one JSON object.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::sections::rfc3339;
use super::{Page, ReportSource};
use crate::detection::history::{
    AccessRecord, BoundedSet, CredentialAccess, Denial, Reader, ReaderView, Registry, RegistryKind, Times,
    WholeScope,
};
use crate::text::escape::is_disruptive;

pub fn write(page: &Page) -> anyhow::Result<String> {
    let report = &page.report;
    let answer = report.answer();
    let exposures = |exposures: &[CredentialAccess]| -> Value {
        exposures.iter().map(|one| credential(page, one)).collect()
    };
    let value = json!({
        "answer": {
            "credentials": answer.credentials,
            "readers": answer.readers,
            "registries": answer.registries,
            "credentials_without_registry": answer.credentials_without_registry,
            "whole_scopes": answer.whole_scopes,
        },
        "log": log(page),
        "store": match &page.origin {
            ReportSource::Log(_) => Value::Null,
            ReportSource::Store { alerts, times } => {
                json!({ "alerts": alerts, "first": when(times.first), "last": when(times.last) })
            }
        },
        "readers": report.readers().iter().map(|view| reader(page, view)).collect::<Value>(),
        "registries": report.registries.iter().map(registry).collect::<Value>(),
        "registries_of_known_readers_alone": report.expected_registries,
        "reported": exposures(&report.reported),
        "known_readers": exposures(&report.expected),
        "whole_scopes": report.scopes.iter().map(|one| scope(page, one)).collect::<Value>(),
        "denied": report.denied.iter().map(|one| denial(page, one)).collect::<Value>(),
        "beyond_limits": {
            "events_of_other_readers": report.other_readers,
            "reads_of_others": report.other_reads,
            "mentions_of_other_registries": report.other_hosts,
        },
    });
    Ok(escape_control(&serde_json::to_string_pretty(&value)?))
}

fn log(page: &Page) -> Value {
    let ReportSource::Log(facts) = &page.origin else { return Value::Null };
    json!({
        "inputs": facts.inputs,
        "bytes": facts.bytes,
        "events": facts.counts.events,
        "first": when(facts.times.first),
        "last": when(facts.times.last),
        "outside_time_range": facts.counts.outside_time_range,
        "malformed": facts.counts.malformed,
        "truncated": facts.counts.truncated,
        "evicted": facts.counts.evicted,
        "not_read": facts.failures,
        "empty": facts.empty,
        "answers_shown": page.report.answers_shown,
        "answers_hidden": page.report.answers_hidden,
    })
}

/// One reader over all credentials.
fn reader(page: &Page, view: &ReaderView<'_>) -> Value {
    let mut credentials: Vec<&str> = view.credentials.iter().map(|one| one.credential.as_str()).collect();
    credentials.dedup();
    let mut value = json!({
        "credentials": credentials,
        "payload": view.payload,
        "presumed": view.presumed,
        "metadata": view.metadata,
        "whole_scopes": view.scopes.len(),
        "denied": view.denied.map_or(0, |denial| denial.reading.times.count),
        "rules": page.rule_names(&view.rules),
    });
    add_reader(&mut value, &view.reader);
    add_times(&mut value, view.times);
    value
}

/// Writes characters that could control a terminal as JSON escapes. They only occur inside strings: outside there is only ASCII.
fn escape_control(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 1);
    for letter in text.chars() {
        if letter != '\n' && is_disruptive(letter) {
            // All of them are at most U+FFFF. Writing to a String does not fail.
            let _ = write!(out, "\\u{:04x}", u32::from(letter));
        } else {
            out.push(letter);
        }
    }
    out.push('\n');
    out
}

fn credential(page: &Page, one: &CredentialAccess) -> Value {
    let mut value = json!({"credential": one.credential});
    add_reader(&mut value, &one.reader);
    value["payload"] = one.reading.payload.into();
    value["presumed"] = one.reading.presumed.into();
    value["metadata"] = one.reading.metadata.into();
    add_reading(page, &mut value, &one.reading);
    value
}

fn scope(page: &Page, one: &WholeScope) -> Value {
    let kind = if one.namespace.is_some() { "namespace" } else { "cluster" };
    let mut value =
        json!({"scope": kind, "namespace": one.namespace, "verb": one.verb, "reported": one.is_reported});
    add_reader(&mut value, &one.reader);
    add_reading(page, &mut value, &one.reading);
    value
}

fn denial(page: &Page, one: &Denial) -> Value {
    let mut value = json!({});
    add_reader(&mut value, &one.reader);
    value["asked_for"] = samples(&one.reading.targets);
    add_reading(page, &mut value, &one.reading);
    value
}

fn registry(registry: &Registry) -> Value {
    let readers: Value = registry
        .readers
        .iter()
        .map(|reader| {
            let mut value = json!({});
            add_reader(&mut value, reader);
            value
        })
        .collect();
    let kind = match &registry.host {
        Some(host) => RegistryKind::of(host, registry.usernames.texts.iter().map(String::as_str)),
        None => RegistryKind::Other,
    };
    let rotation = kind.rotation();
    let mut value = json!({
        "host": registry.host,
        "rotation": {
            "kind": rotation.kind,
            "step": rotation.step,
            "command": rotation.command,
            "link": rotation.link,
        },
        "usernames": samples(&registry.usernames),
        "usernames_are_for_one_or_some_registries": registry.usernames_are_uncertain,
        "credentials": registry.credentials,
        "perhaps_credentials": registry.possible_credentials,
        "payload": registry.payload,
        "presumed": registry.presumed,
        "exposed_to": readers,
    });
    add_times(&mut value, registry.times);
    value
}

fn add_reader(value: &mut Value, reader: &Reader) {
    value["user"] = Some(&reader.user).filter(|user| !user.is_empty()).cloned().into();
    value["impersonated"] = reader.impersonated.clone().into();
}

fn add_reading(page: &Page, value: &mut Value, reading: &AccessRecord) {
    value["count"] = reading.times.count.into();
    add_times(value, reading.times);
    value["verbs"] = samples(&reading.verbs);
    value["clients"] = samples(&reading.clients);
    value["user_agents"] = samples(&reading.agents);
    value["rules"] = page.rule_names(&reading.rules).into();
}

fn add_times(value: &mut Value, times: Times) {
    value["first"] = when(times.first);
    value["last"] = when(times.last);
}

/// Returns a list; a null as the last element means that it is incomplete.
fn samples(set: &BoundedSet) -> Value {
    let mut texts: Vec<Value> = set.texts.iter().map(|text| text.as_str().into()).collect();
    if set.has_more {
        texts.push(Value::Null);
    }
    texts.into()
}

fn when(time: Option<i64>) -> Value {
    time.map(rfc3339).into()
}
