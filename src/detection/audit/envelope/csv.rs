//! Comma-separated values (RFC 4180), as the consoles of Splunk, CloudWatch, Azure, Kibana and Grafana export them.
//!
//! Takes the lines of an export. If it has a header, a line becomes a JSON object with the names of the columns, which is read like any
//! other record of a log store; a line with an event and a different number of fields is skipped. Without a header, returns the event in
//! the first field that starts as the apiserver's events do, and what the format of the other fields reveals about its source. Fields are
//! read from the start of the line, so that text inside a field is never taken for a field. Without a header only times, numbers and words
//! are accepted before the event: in a line of another log, a client may control that text and end it with a field of its own. A record
//! that spans several lines is not read, since an event never does.

use std::sync::{Arc, LazyLock};

use memchr::memmem::Finder;

use super::super::steps;
use super::azure_table;
use super::shape;
use super::stream::RecordSource;
use super::times;
use crate::text::escape::push_json_string;

/// Start of a field that contains an event, with doubled quotes.
const EVENT_START: &[u8] = br#""{""kind"":""Event"",""apiVersion"":""audit.k8s.io/"#;

static START: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(EVENT_START));

/// Maximum number of fields before the event's field, if the header is unknown.
const MAX_FIELDS: usize = 32;

/// Maximum number of columns of an export. Azure's table of all diagnostic records has a few hundred.
const MAX_COLUMNS: usize = 512;

/// Maximum length of a column name, in bytes.
const MAX_NAME_LEN: usize = 256;

/// Maximum length of a field before the event's field, in bytes: a host name, a path or a time.
const MAX_FIELD_LEN: usize = 256;

/// Maximum number of lines before a header, such as titles and blank lines.
const MAX_TITLE_LINES: usize = 32;

/// Maximum number of words in a column name.
const MAX_NAME_WORDS: usize = 6;

/// Endings, in lower case, of the names of columns that hold events. Used if no column has a well-known name.
const CARRIER_ENDS: [&[u8]; 14] = [
    b"log", b"logs", b"message", b"raw", b"event", b"audit", b"text", b"line", b"content", b"data",
    b"payload", b"record", b"entry", b"json",
];

/// The member name under which the event of such a column is read.
const CARRIER: &[u8] = b"event.original";

/// The column names of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns {
    /// The header line, without its line break.
    header: Vec<u8>,
    names: Vec<Vec<u8>>,
    /// The index of a column that may hold events, if no column has a well-known name.
    presumed_carriers: Vec<usize>,
    has_carrier: bool,
}

/// What a line of an export contains.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Row {
    /// A record as a JSON object, with the column names as member names.
    Record(Vec<u8>),
    /// A row with an event that does not match the header.
    Mismatch,
    /// Not a row.
    Other,
}

impl Columns {
    /// Parses a line as a header. `None` if it does not look like one.
    pub fn of(line: &[u8]) -> Option<Self> {
        let line = trim_header(line);
        let mut names = Vec::new();
        for field in fields(line).take(MAX_COLUMNS + 1) {
            let name = unquote(field?);
            if !is_name(&name) {
                return None;
            }
            // Azure appends the time zone to the column name.
            let name = name.strip_suffix(b" [UTC]").unwrap_or(&name);
            // Some consoles capitalize column names.
            let lower = name.to_ascii_lowercase();
            let is_carrier = shape::can_name_carrier(&lower) && !shape::can_name_carrier(name);
            names.push(if is_carrier { lower } else { name.to_vec() });
        }
        let named = names.iter().filter(|name| !name.is_empty()).count();
        if named < 2 || names.len() > MAX_COLUMNS {
            return None;
        }
        let has_name = |name: &[u8]| names.iter().any(|own| own == name);
        let has_carrier = names.iter().any(|name| shape::can_name_carrier(name))
            || azure_table::COLUMNS.into_iter().all(has_name);
        let presumed = names.iter().enumerate().filter(|(_, name)| !has_carrier && may_hold_event(name));
        let presumed_carriers = presumed.map(|(at, _)| at).collect();
        Some(Columns { header: line.to_vec(), names, presumed_carriers, has_carrier })
    }

    /// Whether this line is the header.
    pub(super) fn is_header(&self, line: &[u8]) -> bool {
        trim_header(line) == self.header
    }

    /// Reads a line.
    pub(super) fn row(&self, line: &[u8]) -> Row {
        let has_event = || START.find(line).is_some();
        steps::add(line.len());
        if !self.has_carrier && !has_event() {
            return Row::Other;
        }
        match self.object(line) {
            Some(object) => Row::Record(object),
            None if has_event() => Row::Mismatch,
            None => Row::Other,
        }
    }

    /// A line as a JSON object. `None` if the number of fields differs from that of the columns, or if an event is in a column that holds
    /// none.
    fn object(&self, line: &[u8]) -> Option<Vec<u8>> {
        steps::add(line.len());
        let mut object = vec![b'{'];
        let (mut count, mut has_event) = (0, self.has_carrier);
        for (at, field) in fields(line).enumerate() {
            let (mut name, field) = (&self.names.get(at)?[..], field?);
            if !has_event && field.starts_with(EVENT_START) && self.presumed_carriers.contains(&at) {
                (name, has_event) = (CARRIER, true);
            }
            if at > 0 {
                object.push(b',');
            }
            push_json_string(name, &mut object);
            object.push(b':');
            push_json_string(&unquote(field), &mut object);
            count += 1;
        }
        object.push(b'}');
        (count == self.names.len() && has_event).then_some(object)
    }
}

/// Searches a log for a header: its first line with several fields, possibly below titles and blank lines. Later lines are ignored, even if
/// they look like a header.
#[derive(Clone, Debug)]
pub struct HeaderSearch {
    lines_left: usize,
    columns: Option<Arc<Columns>>,
}

impl Default for HeaderSearch {
    fn default() -> Self {
        HeaderSearch { lines_left: MAX_TITLE_LINES + 1, columns: None }
    }
}

impl HeaderSearch {
    /// Reads the next lines of the log, and returns its columns once they are known.
    pub fn read(&mut self, buffer: &[u8]) -> Option<Arc<Columns>> {
        let mut rest = buffer;
        while self.lines_left > 0 && !rest.is_empty() {
            let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
            let line = trim_header(&rest[..end]);
            rest = rest.get(end + 1..).unwrap_or_default();
            self.lines_left -= 1;
            self.columns = Columns::of(line).map(Arc::new);
            let has_record =
                matches!(line.trim_ascii_start().first(), Some(b'{' | b'[')) || START.find(line).is_some();
            if self.columns.is_some() || has_record {
                self.lines_left = 0;
            }
        }
        self.columns.clone()
    }
}

/// A line without the byte order mark and without its line break.
fn trim_header(line: &[u8]) -> &[u8] {
    line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line).trim_ascii_end()
}

/// Whether a field of the first row of a table can be a column name: a short text that is not a number, a time, a path or JSON.
fn is_name(name: &[u8]) -> bool {
    let is_number = || name.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-'));
    let is_value = match name.first() {
        None => false,
        Some(first) if first.is_ascii_digit() || *first == b'-' => is_number() || is_time(name),
        Some(first) => *first == b'/' || name.starts_with(b"{\"") || times::text(name).is_some(),
    };
    name.len() <= MAX_NAME_LEN
        && !is_value
        && !name.iter().any(u8::is_ascii_control)
        && name.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).count() <= MAX_NAME_WORDS
}

/// Whether a text has the format of a time: it starts with a digit.
fn is_time(text: &[u8]) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_digit() || b" ,.:/-+TZAPMUCG".contains(byte);
    text.first().is_some_and(u8::is_ascii_digit) && text.iter().all(is_part)
}

/// Whether a column of this name may hold events. Other columns hold text that a client sent, such as its user agent.
fn may_hold_event(name: &[u8]) -> bool {
    let lower = name.to_ascii_lowercase();
    let name = lower.strip_suffix(b"_s").unwrap_or(&lower);
    CARRIER_ENDS.iter().any(|end| name.ends_with(end)) && !shape::is_request_part(name)
}

/// The event of a line.
pub(super) struct Field {
    pub(super) event: Vec<u8>,
    /// The first time in the fields before the event.
    pub(super) time: Option<i64>,
    /// What the format of the other fields reveals about the source.
    pub(super) source: RecordSource,
}

/// The event of a line of an export without a header.
pub(super) fn event(line: &[u8]) -> Option<Field> {
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
            // The fields after the event only determine its source.
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

/// The fields of a line, with their quotes. Yields `None` for a field that is not well-formed, and then ends.
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

/// Whether a field is a word, a number, a path or a time, which may contain blanks and commas.
fn is_plain(text: &[u8]) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.:/@+".contains(byte);
    text.len() <= MAX_FIELD_LEN && (text.iter().all(is_word) || is_time(text) || times::text(text).is_some())
}

/// The end of the field at the start of `rest`: a comma, or the end of the line.
fn field_end(rest: &[u8]) -> Option<usize> {
    if rest.first() != Some(&b'"') {
        let end = memchr::memchr(b',', rest).unwrap_or(rest.len());
        // A quote is only special at the start of a field.
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
            // Lines of another log, whose ends a client controls.
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
        let row = columns.row(b"2026-11-23T04:00:00Z,kube-audit,\"{\"\"a\"\":1}\"");
        let Row::Record(object) = row else { panic!("{row:?}") };
        assert_eq!(
            String::from_utf8(object).unwrap(),
            r#"{"TimeGenerated":"2026-11-23T04:00:00Z","Category":"kube-audit","log_s":"{\"a\":1}"}"#
        );
        for line in [&b"a,b"[..], b"a,b,c,d", b"a,b,\"c", b""] {
            assert_eq!(columns.row(line), Row::Other);
        }
        for line in [format!("a,{EVENT}"), format!("a,{EVENT},c,d"), format!("a,{EVENT},\"c")] {
            assert_eq!(columns.row(line.as_bytes()), Row::Mismatch);
        }
        for line in [
            "message",
            "message,{\"a\":1}",
            "{\"message\",a",
            "",
            "2026-11-23T04:00:00Z,message",
            "1,message",
            "a,/var/log",
            ",,",
            "a,a line of text with seven words",
        ] {
            assert_eq!(Columns::of(line.as_bytes()), None, "{line}");
        }
        for line in [
            "@timestamp,@message",
            "a,b",
            "rate%,Message",
            "\"\u{f6}\",message",
            ",pod,message",
            "pod,95th,\"in {a}\",b]",
        ] {
            assert!(Columns::of(line.as_bytes()).is_some(), "{line}");
        }
    }

    #[test]
    fn a_column_of_another_name_holds_events_if_the_name_says_so() {
        for (header, is_read) in [
            ("PodName,AuditLog", true),
            ("PodName,audit_log_s", true),
            ("PodName,Raw event", true),
            ("PodName,User agent", false),
            ("PodName,AuditId", false),
            ("PodName,request_data", false),
        ] {
            let columns = Columns::of(header.as_bytes()).unwrap();
            let row = columns.row(format!("a,{EVENT}").as_bytes());
            assert_eq!(matches!(&row, Row::Record(_)), is_read, "{header}");
            assert_eq!(row == Row::Mismatch, !is_read, "{header}");
            assert_eq!(columns.row(b"a,b"), Row::Other);
        }
    }

    #[test]
    fn a_header_is_the_first_line_with_several_fields() {
        let find =
            |text: &str| HeaderSearch::default().read(text.as_bytes()).map(|columns| columns.names.len());
        assert_eq!(find("a,message\nb,c,message\n"), Some(2));
        assert_eq!(find("Search of 2026-11-23\r\n\r\na,message\r\n"), Some(2));
        assert_eq!(find(&format!("2026-11-23T04:00:00Z,{EVENT}\na,message\n")), None);
        assert_eq!(find("{\"kind\":\"Event\"}\na,message\n"), None);
        assert_eq!(find(&("a\n".repeat(MAX_TITLE_LINES + 1) + "a,message\n")), None);
        // Line by line.
        let mut search = HeaderSearch::default();
        assert_eq!(search.read(b"title\n"), None);
        assert!(search.read(b"a,message\n").is_some() && search.read(b"b,c,message\n").is_some());
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
