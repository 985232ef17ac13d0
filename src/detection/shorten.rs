//! Shortens alerts to a limit, the least important parts first.
//!
//! Takes rendered values, JSON of alerts or stored alerts, and a limit in bytes; returns the same with markers in place of omitted parts:
//! `...[1234 bytes omitted]` at the end of a text, `...[12 more]` as the last item of a list. A client chooses the length of most values in
//! an alert, and receivers drop or truncate messages beyond their limit: without this module, a padded request could hide itself. The
//! actor, the action, the exposure and the registries to rotate are shortened last.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde_json::Value;

use super::alert::StoredAlert;
use crate::text::escape::{is_disruptive, push_json_string};

/// Limits of what an alert shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum length of a string that comes from a request, in bytes.
    pub max_string: usize,
    /// Maximum length of an alert as JSON, in bytes.
    pub max_alert: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { max_string: 1 << 10, max_alert: 64 << 10 }
    }
}

/// Minimum length to which the JSON of an alert can be shortened, in bytes.
pub const MIN_ALERT: usize = 256;

/// Minimum length of a truncated text, in bytes, so that the marker fits. A text may still be removed completely.
const MIN_TEXT: usize = 48;

/// Returns a text of at most `max` bytes. A truncated text ends with a marker; valid UTF-8 stays valid.
pub fn text(text: &[u8], max: usize) -> Cow<'_, [u8]> {
    if text.len() <= max {
        return Cow::Borrowed(text);
    }
    let (kept, omitted_before) = without_marker(text);
    let max = max.max(MIN_TEXT);
    // The marker's length depends on the number in it, which has at most 20 digits.
    let mut end = max.saturating_sub(MARKER_OPEN.len() + BYTES_CLOSE.len() + 20).min(kept.len());
    while end > 0 && kept.get(end).is_some_and(|byte| byte & 0xc0 == 0x80) {
        end -= 1;
    }
    let omitted = omitted_before.saturating_add((kept.len() - end) as u64);
    let mut out = kept[..end].to_vec();
    out.extend_from_slice(format!("{MARKER_OPEN}{omitted}{BYTES_CLOSE}").as_bytes());
    Cow::Owned(out)
}

/// Like [`text`], for a `str`.
pub fn str(value: &str, max: usize) -> Cow<'_, str> {
    match text(value.as_bytes(), max) {
        Cow::Borrowed(_) => Cow::Borrowed(value),
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
    }
}

const MARKER_OPEN: &str = "...[";
const BYTES_CLOSE: &str = " bytes omitted]";
const ITEMS_CLOSE: &str = " more]";

/// Splits off the marker of an earlier truncation, so that the numbers are added instead of appending another marker.
fn without_marker(text: &[u8]) -> (&[u8], u64) {
    let number = |close: &str| -> Option<(&[u8], u64)> {
        let rest = text.strip_suffix(close.as_bytes())?;
        let digits = rest.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
        let (rest, digits) = rest.split_at(rest.len() - digits);
        let kept = rest.strip_suffix(MARKER_OPEN.as_bytes())?;
        Some((kept, std::str::from_utf8(digits).ok()?.parse().ok()?))
    };
    number(BYTES_CLOSE).unwrap_or((text, 0))
}

/// The number in a list item that states how many items were omitted.
fn items_marker(value: &Value) -> Option<u64> {
    value.as_str()?.strip_prefix(MARKER_OPEN)?.strip_suffix(ITEMS_CLOSE)?.parse().ok()
}

/// Returns the JSON of an alert in at most `max` bytes, if it is an object and `max` is 256 or more. It is one line of valid JSON.
pub fn json(json: &[u8], max: usize) -> Cow<'_, [u8]> {
    if json.len() <= max {
        return Cow::Borrowed(json);
    }
    let Ok(mut alert @ Value::Object(_)) = serde_json::from_slice::<Value>(json) else {
        return Cow::Borrowed(json);
    };
    Cow::Owned(shorten(&mut alert, max))
}

/// Shortens a stored alert: its JSON to at most `max` bytes, the actor and the target to an eighth of that, and the message to
/// three quarters. If the message was cut and no longer contains the actor, the target or the registries, they are appended to it.
pub fn stored(alert: &StoredAlert, max: usize) -> StoredAlert {
    let short = json(&alert.json, max).into_owned();
    let part = (max / 8).max(MIN_TEXT);
    let (actor, target) = (str(&alert.actor, part), str(&alert.target, part));
    let mut message = str(&alert.message, max / 4 * 3);
    if matches!(message, Cow::Owned(_)) {
        let value: Value = serde_json::from_slice(&short).unwrap_or_default();
        let hosts = list(&value["registry"]["hosts"], part);
        let parts = [("actor", &*actor), ("target", &*target), ("registries", &*hosts)];
        let missing: Vec<String> = parts
            .iter()
            .filter(|(_, text)| !text.is_empty() && !message.contains(text))
            .map(|(name, text)| format!("{name}={text}"))
            .collect();
        if !missing.is_empty() {
            let missing = format!(" ({})", missing.join(", "));
            let room = (max / 4 * 3).saturating_sub(missing.len());
            message = Cow::Owned(format!("{}{missing}", str(&alert.message, room)));
        }
    }
    StoredAlert {
        rule: str(&alert.rule, part).into_owned(),
        actor: actor.into_owned(),
        target: target.into_owned(),
        message: message.into_owned(),
        json: short,
        ..alert.clone()
    }
}

/// Returns the properties that identify an alert, each with at most `max` bytes: for limits below what receivers accept.
pub fn bare(alert: &StoredAlert, max: usize) -> StoredAlert {
    let cut = |text: &str| {
        let end = (0..=max.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        if end == text.len() { text.to_owned() } else { format!("{}...", &text[..end]) }
    };
    StoredAlert {
        rule: cut(&alert.rule),
        actor: cut(&alert.actor),
        target: cut(&alert.target),
        message: format!("{MARKER_OPEN}{}{BYTES_CLOSE}", alert.message.len()),
        json: json(&alert.json, MIN_ALERT).into_owned(),
        ..alert.clone()
    }
}

/// Joins the strings of a JSON array to one text of at most `max` bytes.
pub fn list(array: &Value, max: usize) -> String {
    let items: Vec<&str> = array.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut out = String::new();
    for (i, item) in items.iter().enumerate() {
        let separator = usize::from(i > 0);
        if i > 0 && out.len() + separator + item.len() + MIN_TEXT > max.max(MIN_TEXT) && i + 1 < items.len() {
            let marked = items.last().copied().map(|last| Value::String(last.to_owned()));
            let before = marked.as_ref().and_then(items_marker);
            let rest = (items.len() - i) as u64;
            let more = before.map_or(rest, |before| before.saturating_add(rest - 1));
            let _ = write!(out, ",{MARKER_OPEN}{more}{ITEMS_CLOSE}");
            break;
        }
        if i > 0 {
            out.push(',');
        }
        out.push_str(item);
    }
    str(&out, max).into_owned()
}

/// The importance of an alert's member; the least important is shortened first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// The whole event, which the other members summarize.
    Event,
    /// Duplicates information of other members.
    Fields,
    /// Properties of the request that the client chooses.
    Request,
    /// Lists for an investigation.
    Details,
    Output,
    Credentials,
    /// The actor, the action and the registries; the identity of the alert.
    Essential,
}

const RANKS: [Rank; 7] = [
    Rank::Event,
    Rank::Fields,
    Rank::Request,
    Rank::Details,
    Rank::Output,
    Rank::Credentials,
    Rank::Essential,
];

/// Scalars about actor, action and exposure, anywhere in the alert.
const ESSENTIAL: [&str; 7] =
    ["actor", "credential", "namespace", "registry_host", "exposure", "verb", "cluster"];

fn rank(path: &[&str]) -> Rank {
    match path {
        ["audit_event", ..] => Rank::Event,
        ["output_fields", name, ..] if ESSENTIAL.contains(name) => Rank::Essential,
        ["output_fields", ..] => Rank::Fields,
        ["event", "requestURI" | "userAgent" | "sourceIPs" | "auditID" | "stage", ..]
        | ["event", "user" | "impersonatedUser", "groups" | "uid", ..] => Rank::Request,
        ["correlation" | "tags" | "labels", ..] | ["registry", "usernames", ..] => Rank::Details,
        ["output", ..] => Rank::Output,
        ["registry", "secrets", ..] => Rank::Credentials,
        _ => Rank::Essential,
    }
}

/// Shortens an alert step by step until it fits.
fn shorten(alert: &mut Value, max: usize) -> Vec<u8> {
    if let Value::Object(members) = alert {
        members.insert("shortened".to_owned(), Value::Bool(true));
    }
    // Values beyond the limit cannot be part of the result; after this step, the alert is small.
    for rank in RANKS {
        limit(alert, &mut Vec::new(), rank, max);
    }
    for rank in RANKS {
        let longest = longest(alert, &mut Vec::new(), rank);
        if longest <= MIN_TEXT {
            continue;
        }
        // The largest limit for this rank's values with which the alert fits.
        let (mut fits, mut too_long) = (MIN_TEXT, longest);
        while fits + 1 < too_long {
            let middle = fits + (too_long - fits) / 2;
            let mut attempt = alert.clone();
            limit(&mut attempt, &mut Vec::new(), rank, middle);
            if rendered(&attempt).len() <= max {
                fits = middle;
            } else {
                too_long = middle;
            }
        }
        limit(alert, &mut Vec::new(), rank, fits);
        let out = rendered(alert);
        if out.len() <= max {
            return out;
        }
    }
    remove(alert, max)
}

/// Removes whole members, for limits below what receivers accept.
fn remove(alert: &mut Value, max: usize) -> Vec<u8> {
    for rank in [Rank::Event, Rank::Fields, Rank::Request, Rank::Details] {
        retain(alert, rank);
        let out = rendered(alert);
        if out.len() <= max {
            return out;
        }
    }
    let stages: [&[&str]; 3] = [
        &["output_fields", "source", "rule_set", "hostname"],
        &["event", "registry", "correlation", "tags", "labels", "omitted"],
        &[],
    ];
    for names in stages {
        if let Value::Object(members) = alert {
            if names.is_empty() {
                members.retain(|name, _| {
                    ["output", "priority", "rule", "time", "id", "shortened"].contains(&name.as_str())
                });
            } else {
                members.retain(|name, _| !names.contains(&name.as_str()));
            }
        }
        let out = rendered(alert);
        if out.len() <= max {
            return out;
        }
    }
    rendered(alert)
}

/// Removes the members of a rank.
fn retain(value: &mut Value, removed: Rank) {
    // Members of a rank are at most three levels deep.
    let Value::Object(members) = value else { return };
    members.retain(|name, _| rank(&[name]) != removed || name == "output_fields");
    for (name, member) in members.iter_mut() {
        if let Value::Object(inner) = member {
            inner.retain(|key, _| rank(&[name, key]) != removed);
            for (key, deepest) in inner.iter_mut() {
                if let Value::Object(deepest) = deepest {
                    deepest.retain(|last, _| rank(&[name, key, last]) != removed);
                }
            }
        }
    }
}

/// The length of the longest text or list of a rank, as JSON.
fn longest(value: &Value, path: &mut Vec<String>, of: Rank) -> usize {
    match value {
        Value::Object(members) => {
            let mut most = 0;
            for (name, member) in members {
                path.push(name.clone());
                most = most.max(longest(member, path, of));
                path.pop();
            }
            most
        }
        Value::String(_) | Value::Array(_) if rank_of(path) == of => rendered(value).len(),
        _ => 0,
    }
}

fn rank_of(path: &[String]) -> Rank {
    let names: Vec<&str> = path.iter().map(String::as_str).collect();
    rank(&names)
}

/// Limits each text and each list of a rank to this length as JSON.
fn limit(value: &mut Value, path: &mut Vec<String>, of: Rank, max: usize) {
    match value {
        Value::Object(members) => {
            for (name, member) in members.iter_mut() {
                path.push(name.clone());
                limit(member, path, of, max);
                path.pop();
            }
        }
        Value::String(text) if rank_of(path) == of => limit_text(text, max),
        Value::Array(items) if rank_of(path) == of => limit_list(items, max),
        _ => {}
    }
}

fn limit_text(text: &mut String, max: usize) {
    if rendered_len(text) <= max {
        return;
    }
    // Number of bytes that fit when escaped.
    let room = max.saturating_sub(2 + MARKER_OPEN.len() + BYTES_CLOSE.len() + 20);
    let (mut end, mut length) = (0, 0);
    for (at, letter) in text.char_indices() {
        length += escaped_len(letter);
        if length > room {
            break;
        }
        end = at + letter.len_utf8();
    }
    let (kept, omitted_before) = without_marker(text.as_bytes());
    let end = end.min(kept.len());
    let omitted = omitted_before.saturating_add((kept.len() - end) as u64);
    text.truncate(end);
    let _ = write!(text, "{MARKER_OPEN}{omitted}{BYTES_CLOSE}");
}

fn limit_list(items: &mut Vec<Value>, max: usize) {
    let lengths: Vec<usize> = items.iter().map(|item| rendered(item).len() + 1).collect();
    if lengths.iter().sum::<usize>() < max {
        return;
    }
    let mut omitted = items.last().and_then(items_marker).unwrap_or_default();
    if omitted > 0 {
        items.pop();
    }
    // Brackets, quotes, and the marker with a number of up to 20 digits.
    let room = max.saturating_sub(4 + MARKER_OPEN.len() + ITEMS_CLOSE.len() + 20);
    let mut length = 0;
    let fitting = lengths.iter().take_while(|more| {
        length += **more;
        length <= room
    });
    let mut kept = fitting.count().min(items.len());
    // One item is always kept, truncated if necessary.
    if kept == 0 && !items.is_empty() {
        kept = 1;
        if let Some(Value::String(first)) = items.first_mut() {
            limit_text(first, MIN_TEXT.max(room));
        }
    }
    omitted = omitted.saturating_add((items.len() - kept) as u64);
    items.truncate(kept);
    if omitted > 0 {
        items.push(Value::String(format!("{MARKER_OPEN}{omitted}{ITEMS_CLOSE}")));
    }
}

fn rendered_len(text: &str) -> usize {
    2 + text.chars().map(escaped_len).sum::<usize>()
}

/// Length of a character in a JSON string.
fn escaped_len(letter: char) -> usize {
    match letter {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        letter if is_disruptive(letter) => 6,
        letter => letter.len_utf8(),
    }
}

fn rendered(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write(value, &mut out);
    out
}

/// Appends JSON on one line, with the escapes that alerts use.
pub fn write(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Value::String(text) => push_json_string(text.as_bytes(), out),
        Value::Array(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write(item, out);
            }
            out.push(b']');
        }
        Value::Object(members) => {
            out.push(b'{');
            for (i, (name, member)) in members.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                push_json_string(name.as_bytes(), out);
                out.push(b':');
                write(member, out);
            }
            out.push(b'}');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn alert(secrets: usize, uri: usize) -> Value {
        let secrets: Vec<String> =
            (0..secrets).map(|i| format!("team-{i}/registry-credential-{i}")).collect();
        serde_json::json!({
            "hostname": "node", "output": format!("alice read secrets {}", "x".repeat(uri)),
            "output_fields": {"evt.time": 1, "ka.uri": "a".repeat(uri), "registry.secrets": secrets},
            "priority": "Warning", "rule": "Secret Read", "tags": ["T1552"], "time": "2026-11-23T03:45:32.270783000Z",
            "id": "00000000000000000000000000000001",
            "event": {"verb": "list", "user": {"username": "alice", "groups": ["a", "b"]}, "requestURI": "b".repeat(uri),
                "objectRef": {"resource": "secrets", "namespace": "team"}},
            "registry": {"exposure": "credentials", "scope": "cluster", "secrets": secrets,
                "hosts": ["registry.example.com", "ghcr.io"], "usernames": ["robot"]},
        })
    }

    #[test]
    fn who_what_exposure_and_registries_stay() {
        for (secrets, uri) in [(0, 400_000), (100, 0), (5000, 0), (5000, 400_000)] {
            let full = alert(secrets, uri);
            let bytes = rendered(&full);
            for max in [64 << 10, 8 << 10, 2048, 1024] {
                let short = json(&bytes, max);
                assert!(short.len() <= max, "{} > {max}", short.len());
                let value: Value = serde_json::from_slice(&short).unwrap();
                for path in [
                    "/event/user/username",
                    "/event/verb",
                    "/event/objectRef",
                    "/registry/exposure",
                    "/registry/hosts",
                    "/rule",
                    "/id",
                ] {
                    assert_eq!(value.pointer(path), full.pointer(path), "{path} at {max}");
                }
            }
        }
    }

    #[test]
    fn the_least_important_is_shortened_first_and_says_by_how_much() {
        let short: Value = serde_json::from_slice(&json(&rendered(&alert(150, 0)), 8 << 10)).unwrap();
        assert_eq!(short["registry"]["secrets"].as_array().unwrap().len(), 150);
        let fields = short["output_fields"]["registry.secrets"].as_array().unwrap();
        assert_eq!(items_marker(fields.last().unwrap()), Some(150 - (fields.len() as u64 - 1)));
        let short: Value = serde_json::from_slice(&json(&rendered(&alert(0, 400_000)), 64 << 10)).unwrap();
        let uri = short["output_fields"]["ka.uri"].as_str().unwrap();
        let (kept, omitted) = without_marker(uri.as_bytes());
        assert_eq!(kept.len() as u64 + omitted, 400_000);
        assert_eq!(short["shortened"], true);
    }

    #[test]
    fn markers_of_two_cuts_add_up() {
        let once = text(&[b'a'; 5000], 1024).into_owned();
        let twice = text(&once, 200).into_owned();
        let (kept, omitted) = without_marker(&twice);
        assert_eq!(kept.len() as u64 + omitted, 5000);
        assert!(once.len() <= 1024 && twice.len() <= 200);
        let once = json(&rendered(&alert(5000, 0)), 64 << 10).into_owned();
        let twice: Value = serde_json::from_slice(&json(&once, 4096)).unwrap();
        let secrets = twice["registry"]["secrets"].as_array().unwrap();
        assert_eq!(items_marker(secrets.last().unwrap()), Some(5000 - (secrets.len() as u64 - 1)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn any_alert_fits_into_any_limit_and_stays_one_line_of_json(
            texts in proptest::collection::vec(any::<String>(), 8),
            times in 1_usize..60,
            max in 400_usize..20_000,
        ) {
            let long = |i: usize| texts[i].repeat(times);
            let value = serde_json::json!({
                "hostname": long(0), "output": long(1), "output_fields": {"a": long(2), long(3): [long(4), long(5)]},
                "rule": long(6), "event": {"user": {"username": long(7)}, "requestURI": long(1)},
                "registry": {"hosts": [long(2), long(3)], "secrets": [long(4)]}, "id": "0", "time": "t", "priority": "Warning",
            });
            let bytes = rendered(&value);
            let short = json(&bytes, max);
            prop_assert!(short.len() <= max);
            let text = std::str::from_utf8(&short).unwrap();
            prop_assert!(!text.chars().any(is_disruptive));
            prop_assert!(serde_json::from_str::<Value>(text).is_ok());
        }

        #[test]
        fn a_shortened_text_is_within_its_limit(value in any::<String>(), times in 1_usize..100, max in 48_usize..400) {
            let value = value.repeat(times);
            let short = str(&value, max);
            prop_assert!(short.len() <= max);
            prop_assert!(short.len() == value.len() || short.ends_with(BYTES_CLOSE));
        }
    }
}
