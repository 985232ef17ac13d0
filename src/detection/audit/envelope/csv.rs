//! Events in a field of comma-separated values (RFC 4180), as the consoles of Splunk, CloudWatch and Azure export them.
//!
//! Takes a line; returns the event in its first field that starts as the apiserver writes events. Fields are read from the start of
//! the line, so that text inside a field is never taken for a field. A record that spans several lines is not read: events do not.

use super::times;

/// How the field of an event starts, with the quotes doubled.
const EVENT_START: &[u8] = br#""{""kind"":""Event"",""apiVersion"":""audit.k8s.io/"#;

/// Most fields before that of the event. An export has a few columns.
const MAX_FIELDS: usize = 32;

/// The event of a line.
pub(super) struct Field {
    pub(super) event: Vec<u8>,
    /// The first time in the fields before it.
    pub(super) time: Option<i64>,
}

pub(super) fn event(line: &[u8]) -> Option<Field> {
    // Most lines of other logs end here.
    memchr::memmem::find(line, EVENT_START)?;
    let mut time = None;
    let mut rest = line;
    for _ in 0..MAX_FIELDS {
        let end = field_end(rest)?;
        let field = &rest[..end];
        if field.starts_with(EVENT_START) {
            return Some(Field { event: unquote(field), time });
        }
        let text = unquote(field);
        time = time.or_else(|| times::text(&text)).or_else(|| times::epoch(&text));
        rest = rest.get(end + 1..)?;
    }
    None
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
            format!("\"2026-11-23T04:00:00.000Z\",\"a, \"\"b\"\"\",,kube-audit,{EVENT},\"more\""),
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
            format!("\"GET / x,{}\",1", EVENT.replace('"', "\"\"")),
            format!("\"a\"b,{EVENT}"),
            format!("{}{EVENT}", "a,".repeat(MAX_FIELDS)),
            EVENT[..EVENT.len() - 1].to_owned(),
        ] {
            assert!(event(line.as_bytes()).is_none(), "{line}");
        }
    }
}
