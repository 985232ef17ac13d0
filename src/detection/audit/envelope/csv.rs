//! Comma-separated values (RFC 4180), as the consoles of Splunk, CloudWatch, Azure, Kibana and Grafana export them.
//!
//! Takes the lines of an export. If its header is known, a line becomes a JSON object with the names of the columns, which is read as
//! every other record of a log store. Without the header, returns the event in the first field that starts as the apiserver writes
//! events, and what the form of the other fields says about its source. Fields are read from the start of the line, so that text inside
//! a field is never taken for a field. Without the header only times, numbers and words are accepted before the event: a line
//! of another log has text of a client there, which could end in a field of its own. A record that spans several lines is not read:
//! events do not.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::super::steps;
use super::shape;
use super::stream::RecordSource;
use super::times;
use crate::text::escape::push_json_string;

/// How the field of an event starts, with the quotes doubled.
const EVENT_START: &[u8] = br#""{""kind"":""Event"",""apiVersion"":""audit.k8s.io/"#;

/// Maximum number of fields before that of the event, if the header is not known.
const MAX_FIELDS: usize = 32;

/// Maximum number of columns of an export. Azure's table of all diagnostic records has some hundred.
const MAX_COLUMNS: usize = 512;

/// Maximum length of the name of a column, in bytes.
const MAX_NAME_LEN: usize = 128;

/// Maximum length of a field before that of the event, in bytes: a name of a host, a path, a time.
const MAX_FIELD_LEN: usize = 256;

/// The names of the columns of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns {
    names: Vec<Vec<u8>>,
}

impl Columns {
    /// Reads the first line of a log. `None` if it is not a header that names a column for the text of records.
    pub fn of(line: &[u8]) -> Option<Self> {
        let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line).trim_ascii_end();
        if !line.first().is_some_and(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'"' | b'@' | b'_'))
        {
            return None;
        }
        let mut names = Vec::new();
        for field in fields(line).take(MAX_COLUMNS + 1) {
            let name = unquote(field?);
            let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"_@.:-/ []#()".contains(byte);
            if name.len() > MAX_NAME_LEN || !name.iter().all(is_name) {
                return None;
            }
            // Azure names the time zone beside the column.
            names.push(name.strip_suffix(b" [UTC]").unwrap_or(&name).to_vec());
        }
        let is_header = names.len() <= MAX_COLUMNS && names.iter().any(|name| shape::can_name_carrier(name));
        (is_header && names.len() > 1).then_some(Columns { names })
    }

    /// A line as an object. `None` if it does not have a field for each column.
    pub(super) fn object(&self, line: &[u8]) -> Option<Vec<u8>> {
        steps::add(line.len());
        let mut object = vec![b'{'];
        let mut count = 0;
        for (at, field) in fields(line).enumerate() {
            let (name, field) = (self.names.get(at)?, field?);
            if at > 0 {
                object.push(b',');
            }
            push_json_string(name, &mut object);
            object.push(b':');
            push_json_string(&unquote(field), &mut object);
            count += 1;
        }
        object.push(b'}');
        (count == self.names.len()).then_some(object)
    }
}

/// The event of a line.
pub(super) struct Field {
    pub(super) event: Vec<u8>,
    /// The first time in the fields before it.
    pub(super) time: Option<i64>,
    /// What the form of the other fields says.
    pub(super) source: RecordSource,
}

/// The event of a line of an export whose header is not known.
pub(super) fn event(line: &[u8]) -> Option<Field> {
    static START: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(EVENT_START));
    steps::add(line.len());
    // Most lines of other logs end here.
    START.find(line)?;
    let mut time = None;
    let mut event = None;
    let mut source = RecordSource::default();
    for (at, field) in fields(line).take(MAX_COLUMNS).enumerate() {
        if at >= MAX_FIELDS && event.is_none() {
            return None;
        }
        let field = match field {
            Some(field) => field,
            // What follows the event is read for its source alone.
            None if event.is_some() => break,
            None => return None,
        };
        if event.is_none() && field.starts_with(EVENT_START) {
            event = Some(unquote(field));
            continue;
        }
        if field.len() > MAX_FIELD_LEN && event.is_some() {
            continue;
        }
        let text = unquote(field);
        source.add_unnamed(&text);
        if event.is_none() {
            if !is_plain(&text) {
                return None;
            }
            time = time.or_else(|| times::text(&text)).or_else(|| times::epoch(&text));
        }
    }
    event.map(|event| Field { event, time, source })
}

/// The fields of a line, with their quotes. `None` instead of a field that is not well-formed, after which the fields are unknown.
fn fields(line: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let line = rest?;
        let Some(end) = field_end(line) else {
            rest = None;
            return Some(None);
        };
        rest = line.get(end + 1..);
        Some(Some(&line[..end]))
    })
}

/// Whether a field is a word, a number, a path or a time, which may have blanks and commas in it.
fn is_plain(text: &[u8]) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.:/@+".contains(byte);
    let is_time = |byte: &u8| byte.is_ascii_digit() || b" ,.:/-+TZAPMUCG".contains(byte);
    text.len() <= MAX_FIELD_LEN
        && (text.iter().all(is_word)
            || text.first().is_some_and(u8::is_ascii_digit) && text.iter().all(is_time)
            || times::text(text).is_some())
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
            format!("\"Nov 23, 2026 @ 04:00:00.000\",{EVENT}"),
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
            format!("Nov 20 at @ home,{EVENT}"),
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

    #[test]
    fn a_header_names_the_fields_of_a_line() {
        let columns = Columns::of("\u{feff}\"TimeGenerated [UTC]\",Category,\"log_s\"\r".as_bytes()).unwrap();
        let object = columns.object(b"2026-11-23T04:00:00Z,kube-audit,\"{\"\"a\"\":1}\"").unwrap();
        assert_eq!(
            String::from_utf8(object).unwrap(),
            r#"{"TimeGenerated":"2026-11-23T04:00:00Z","Category":"kube-audit","log_s":"{\"a\":1}"}"#
        );
        for line in [&b"a,b"[..], b"a,b,c,d", b"a,b,\"c", b""] {
            assert_eq!(columns.object(line), None);
        }
        for line in ["a,b", "message", "message,{\"a\":1}", "I1123 message, log", "{\"message\",a", ""] {
            assert_eq!(Columns::of(line.as_bytes()), None, "{line}");
        }
        assert!(Columns::of(b"@timestamp,@message").is_some());
    }

    #[test]
    fn other_fields_name_the_source() {
        for (line, is_other) in [
            (format!("/var/log/kubernetes/audit.log,{EVENT},a"), false),
            (format!("/var/log/pods/default_web-0_1/web/0.log,{EVENT}"), true),
            (format!("{EVENT},1,/var/log/pods/default_web-0_1/web/0.log"), true),
            (format!("{EVENT},\"authenticator-0123456789abcdef0123456789abcdef\""), true),
            (format!("kube-apiserver-cp1,{EVENT}"), false),
        ] {
            assert_eq!(event(line.as_bytes()).unwrap().source.is_other(), is_other, "{line}");
        }
    }
}
