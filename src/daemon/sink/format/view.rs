//! Reads the data that formats need from a stored alert.

use std::net::IpAddr;

use serde_json::{Map, Value};

use crate::daemon::sink::fields::Fields;
use crate::detection::alert::{StoredAlert, push_hex};
use crate::detection::audit::time;

/// An alert, with its JSON parsed.
pub(crate) struct View<'a> {
    pub(crate) alert: &'a StoredAlert,
    pub(crate) json: Value,
    pub(crate) fields: Fields,
    /// The id as 32 hexadecimal digits.
    pub(crate) id: String,
}

impl<'a> View<'a> {
    pub(crate) fn new(alert: &'a StoredAlert) -> Self {
        let mut id = Vec::with_capacity(32);
        push_hex(&alert.id, &mut id);
        View {
            alert,
            json: serde_json::from_slice(&alert.json).unwrap_or_default(),
            fields: Fields::of(alert),
            id: String::from_utf8_lossy(&id).into_owned(),
        }
    }

    /// The value at a JSON pointer; null if there is none.
    pub(crate) fn value(&self, pointer: &str) -> Value {
        self.json.pointer(pointer).cloned().unwrap_or_default()
    }

    /// The string at a JSON pointer; null if there is none.
    pub(crate) fn text(&self, pointer: &str) -> Value {
        self.json.pointer(pointer).and_then(Value::as_str).map_or(Value::Null, Into::into)
    }

    /// The strings of a list.
    pub(crate) fn list<'s>(&'s self, pointer: &str) -> impl Iterator<Item = &'s str> {
        self.json.pointer(pointer).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
    }

    pub(crate) fn tags(&self) -> Vec<&str> {
        self.list("/tags").collect()
    }

    /// Tags that are MITRE ATT&CK techniques, such as `T1552.007`.
    pub(crate) fn techniques(&self) -> Vec<&str> {
        let is_technique = |tag: &&str| {
            tag.strip_prefix('T').is_some_and(|rest| {
                let (id, sub) = rest.split_once('.').unwrap_or((rest, "000"));
                let digits = |text: &str, len: usize| {
                    text.len() == len && text.bytes().all(|byte| byte.is_ascii_digit())
                };
                digits(id, 4) && digits(sub, 3)
            })
        };
        self.list("/tags").filter(is_technique).collect()
    }

    /// Address of the peer: the last of the source addresses, the only one that the client cannot forge.
    pub(crate) fn client(&self) -> Option<String> {
        let last = self.list("/event/sourceIPs").last()?;
        last.parse::<IpAddr>().ok().map(|address| address.to_string())
    }

    fn code(&self) -> Option<i64> {
        self.json.pointer("/event/code").and_then(Value::as_i64)
    }

    /// Whether the request was not denied.
    pub(crate) fn is_allowed(&self) -> bool {
        !matches!(self.code(), Some(401 | 403))
    }

    pub(crate) fn outcome(&self) -> &'static str {
        match self.code() {
            Some(100..=399) => "success",
            Some(_) => "failure",
            None => "unknown",
        }
    }

    /// Severity in reverse syslog order: 0 (debug) to 7 (emergency).
    pub(crate) fn severity(&self) -> u8 {
        7_u8.saturating_sub(self.alert.priority as u8)
    }

    pub(crate) fn time(&self) -> String {
        rfc3339(self.nanoseconds())
    }

    pub(crate) fn time_in_milliseconds(&self) -> String {
        time::utc_milliseconds(self.nanoseconds()).replacen(' ', "T", 1)
    }

    /// The time of the event, or if it is not known, when the alert was stored.
    fn nanoseconds(&self) -> i64 {
        if self.alert.time == 0 { self.alert.stored } else { self.alert.time }
    }

    pub(crate) fn stored(&self) -> String {
        rfc3339(self.alert.stored)
    }
}

fn rfc3339(nanos: i64) -> String {
    let mut out = Vec::new();
    time::write_rfc3339(&mut out, nanos);
    String::from_utf8_lossy(&out).into_owned()
}

/// Sets a member of nested objects, addressed by names with dots between them. Null, empty strings and empty lists are omitted.
pub(crate) fn set(object: &mut Map<String, Value>, path: &str, value: Value) {
    let is_empty = match &value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    if is_empty {
        return;
    }
    match path.split_once('.') {
        None => {
            object.insert(path.to_owned(), value);
        }
        Some((first, rest)) => {
            let inner = object.entry(first).or_insert_with(|| Map::new().into());
            if let Value::Object(inner) = inner {
                set(inner, rest, value);
            }
        }
    }
}
