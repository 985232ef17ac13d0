//! Events in a field of comma-separated values (RFC 4180), as the consoles of Splunk, CloudWatch and Azure export them.
//!
//! Takes a line; returns the event in its first field that starts as the apiserver writes events. Fields are read from the start of
//! the line, so that text inside a field is never taken for a field. Before the event only times, numbers and words are accepted: a
//! line of another log has text of a client there, which could end in a field of its own. A record that spans several lines is not
//! read: events do not.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::super::steps;
use super::times;

/// How the field of an event starts, with the quotes doubled.
const EVENT_START: &[u8] = br#""{""kind"":""Event"",""apiVersion"":""audit.k8s.io/"#;

/// Maximum number of fields before that of the event. An export has a few columns.
const MAX_FIELDS: usize = 32;

/// Maximum length of a field before that of the event, in bytes: a name of a host, a path, a time.
const MAX_FIELD_LEN: usize = 256;

/// The event of a line.
pub(super) struct Field {
    pub(super) event: Vec<u8>,
    /// The first time in the fields before it.
    pub(super) time: Option<i64>,
}

pub(super) fn event(line: &[u8]) -> Option<Field> {
    static START: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(EVENT_START));
    steps::add(line.len());
    // Most lines of other logs end here.
    START.find(line)?;
    let mut time = None;
    let mut rest = line;
    for _ in 0..MAX_FIELDS {
        let end = field_end(rest)?;
        let field = &rest[..end];
        if field.starts_with(EVENT_START) {
            return Some(Field { event: unquote(field), time });
        }
        let text = unquote(field);
        if !is_plain(&text) {
            return None;
        }
        time = time.or_else(|| times::text(&text)).or_else(|| times::epoch(&text));
        rest = rest.get(end + 1..)?;
    }
    None
}

/// Whether a field is a word, a number, a path or a time, which may have blanks and commas in it.
fn is_plain(text: &[u8]) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.:/@+".contains(byte);
    let is_time = |byte: &u8| byte.is_ascii_digit() || b" ,.:/-+TZAPMUCG".contains(byte);
    text.len() <= MAX_FIELD_LEN
        && (text.iter().all(is_word)
            || text.first().is_some_and(u8::is_ascii_digit) && text.iter().all(is_time))
}

/// Where the field at the start of `rest` ends: at a comma, or at the end of the line.
fn field_end(rest: &[u8]) -> Option<usize> {
    if rest.first() != Some(&b'"') {
        let end = memchr::memchr(b',', rest).unwrap_or(rest.len());
        // A quote belongs to the start of a field.
        return (!rest[..end].contains(&b'"')).then_some(end);
    }
    let mut at = 1;
    loop {
        at += memchr::memchr(b'"', &rest[at..])? + 1;
        match rest.get(at) {
            Some(b'"') => at += 1,
            Some(b',') => return Some(at),
            None => return Some(at),
            Some(_) => return rest[at..].trim_ascii().is_empty().then_some(rest.len()),
        }
    }
}

/// The content of a field.
fn unquote(field: &[u8]) -> Vec<u8> {
    let field = field.trim_ascii_end();
    let Some(inner) = field.strip_prefix(b"\"").and_then(|inner| inner.strip_suffix(b"\"")) else {
        return field.to_vec();
    };
    let mut out = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(at) = memchr::memchr(b'"', rest) {
        out.extend_from_slice(&rest[..=at]);
        rest = rest.get(at + 2..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const EVENT: &str =
        r#""{""kind"":""Event"",""apiVersion"":""audit.k8s.io/v1"",""userAgent"":""a \""b\"", c""}""#;

    #[test]
    fn the_event_is_a_field_of_its_own() {
        for line in [
            EVENT.to_owned(),
            format!("2026-11-23T04:00:00.000Z,{EVENT}"),
            format!(
                "\"2026-11-23T04:00:00.000Z\",\"/var/log/audit.log\",,kube-audit,{EVENT},\"a, \"\"b\"\"\""
            ),
            format!("0,\"11/23/2026, 3:46:20.873 AM\",{EVENT}").replace("0,", "2026-11-23T04:00:00Z,"),
            format!("{EVENT}\r"),
        ] {
            let field = event(line.as_bytes()).unwrap();
            let event = String::from_utf8(field.event).unwrap();
            assert_eq!(
                event, r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","userAgent":"a \"b\", c"}"#,
                "{line}"
            );
            assert_eq!(field.time.is_some(), line.contains("04:00"), "{line}");
        }
    }

    #[test]
    fn text_inside_a_field_is_no_field() {
        for line in [
            format!("a {EVENT}"),
            // Lines of another log whose end a client controls.
            format!("2026-11-23T04:00:00Z host app: hello,{EVENT}"),
            format!("\"GET / HTTP/1.1\",{EVENT}"),
            format!("192.0.2.1 - - [23/Nov/2026:04:00:00 +0000],{EVENT}"),
            format!("{},{EVENT}", "a".repeat(MAX_FIELD_LEN + 1)),
            format!("\"GET / x,{}\",1", EVENT.replace('"', "\"\"")),
            format!("\"a\"b,{EVENT}"),
            format!("{}{EVENT}", "a,".repeat(MAX_FIELDS)),
            EVENT[..EVENT.len() - 1].to_owned(),
        ] {
            assert!(event(line.as_bytes()).is_none(), "{line}");
        }
    }
}
