//! Text that something writes before an event on its line.
//!
//! Takes a line of text; returns the JSON in it, if what precedes it has the shape of a known header and nothing else: of syslog,
//! `journalctl`, `kubectl logs`, `aws logs tail`, `oc adm node-logs`, fluentd's files, exports of CloudWatch and Loki, Kafka's console
//! consumer. A line of another log can quote what a client sent: JSON in the middle of such a line is never an event.

use super::super::time;
use super::pod::Pod;
use super::times;

/// The longest header, in bytes.
const MAX_HEADER_LEN: usize = 1024;

/// How an audit event starts. After a header that could be anything else, such as a host name, only this is accepted.
const EVENT_START: &[u8] = br#"{"kind":"Event","apiVersion":"audit.k8s.io/"#;

const MONTHS: [&[u8]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

const WEEKDAYS: [&[u8]; 7] = [b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun"];

/// What was recognized before the JSON of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Prefix<'a> {
    /// The JSON, up to the end of the line.
    pub(super) text: &'a [u8],
    /// The time of the line, in nanoseconds since 1970.
    pub(super) time: Option<i64>,
    /// What the lines of one stream have in common.
    pub(super) stream: &'a [u8],
    /// The log stream of CloudWatch.
    pub(super) log_stream: Option<&'a [u8]>,
    pub(super) pod: Option<Pod<'a>>,
}

/// Recognizes the header of a line, which must start with it.
pub(super) fn strip(line: &[u8]) -> Option<Prefix<'_>> {
    match line.first()? {
        b'{' | b'"' => return None,
        byte if byte.is_ascii_whitespace() => return None,
        _ => {}
    }
    // The export format of the journal.
    if let Some(text) = line.strip_prefix(b"MESSAGE=").filter(|text| text.starts_with(b"{")) {
        return Some(Prefix { text, stream: b"MESSAGE", ..Prefix::default() });
    }
    // Octet counting of RFC 6587.
    let digits = line.iter().take(8).take_while(|byte| byte.is_ascii_digit()).count();
    let line = match &line[digits..] {
        [b' ', rest @ ..] if digits > 0 && rest.starts_with(b"<") => rest,
        _ => line,
    };
    let head = &line[..line.len().min(MAX_HEADER_LEN)];
    let mut start = json_start(head, 0)?;
    let header = &line[..start];
    // The labels of a line in the output of logcli.
    if line.get(start + 1).is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'}') {
        let (clock, _) = next_token(header);
        time::parse(clock)?;
        let labels = &head[start..];
        let end = if labels.starts_with(b"{} {") {
            Some(1)
        } else {
            memchr::memmem::find(labels, b"\"} {").map(|at| at + 1)
        };
        start += end? + 2;
    }
    // RFC 5424 lets a message start with the mark of its encoding.
    let header = header.strip_suffix(b"\xef\xbb\xbf").unwrap_or(header);
    let text = &line[start..];
    // A header before a line of a container log.
    if let Some(at) = container_log(header) {
        let text = &line[at..];
        return read(&header[..at], text).map(|prefix| Prefix { text, ..prefix });
    }
    read(header, text).map(|prefix| Prefix { text, ..prefix })
}

/// Where `<time> stdout F ` starts at the end of a header.
fn container_log(header: &[u8]) -> Option<usize> {
    let before = [&b" stdout F "[..], b" stdout P ", b" stderr F ", b" stderr P "]
        .iter()
        .find_map(|end| header.strip_suffix(*end))?;
    let at = memchr::memrchr(b' ', before)? + 1;
    is_clock(&before[at..]).then_some(at)
}

/// The first brace from an offset on that follows a blank or a tab.
fn json_start(head: &[u8], from: usize) -> Option<usize> {
    memchr::memchr_iter(b'{', &head[from..]).map(|at| from + at).find(|at| {
        *at > 0 && (matches!(head[at - 1], b' ' | b'\t') || head[..*at].ends_with(b" \xef\xbb\xbf"))
    })
}

fn read<'a>(header: &'a [u8], text: &[u8]) -> Option<Prefix<'a>> {
    if let Some(prefix) = tabbed(header, text) {
        return Some(prefix);
    }
    if memchr::memchr(b'\t', header).is_some() {
        return None;
    }
    let (priority, header) = match header.strip_prefix(b"<") {
        Some(rest) => {
            let end = rest.iter().take(4).position(|byte| *byte == b'>')?;
            (rest[..end].iter().all(u8::is_ascii_digit), &rest[end + 1..])
        }
        None => (false, header),
    };
    let mut tokens: Vec<&[u8]> =
        header.split(|byte| *byte == b' ').filter(|token| !token.is_empty()).collect();
    // The cookie of rsyslog for JSON.
    if tokens.last() == Some(&&b"@cee:"[..]) {
        tokens.pop();
    }
    let is_audit = text.starts_with(EVENT_START);
    let of = |stream: &'a [u8], time| Some(Prefix { time, stream, ..Prefix::default() });
    match tokens[..] {
        // `kubectl logs --prefix`, with and without `--timestamps`.
        [pod] if pod_of(pod).is_some() => Some(Prefix { stream: pod, pod: pod_of(pod), ..Prefix::default() }),
        [pod, clock] if pod_of(pod).is_some() => {
            Some(Prefix { time: Some(clock_of(clock)?), stream: pod, pod: pod_of(pod), ..Prefix::default() })
        }
        [tag] if is_tag(tag) => of(tag, None),
        // `kubectl logs --timestamps`, exports of CloudWatch to S3.
        [clock] if is_clock(clock) => of(b"", clock_of(clock)),
        // `oc adm node-logs`.
        [host] if is_audit && is_host(host) => of(host, None),
        [clock, tag] if is_clock(clock) && is_tag(tag) => of(tag, clock_of(clock)),
        // `aws logs tail`.
        [clock, stream] if is_clock(clock) && is_word(stream) => {
            Some(Prefix { stream, time: clock_of(clock), log_stream: Some(stream), ..Prefix::default() })
        }
        [name, b"|"] if is_audit && is_word(name) => of(name, None),
        // `awslogs get`, `aws logs tail` of several groups.
        [group, stream] if group.starts_with(b"/aws/") => {
            Some(Prefix { stream, log_stream: Some(stream), ..Prefix::default() })
        }
        [clock, group, stream] if is_clock(clock) && group.starts_with(b"/aws/") => {
            Some(Prefix { stream, time: clock_of(clock), log_stream: Some(stream), ..Prefix::default() })
        }
        // A date and a time of day in two words; with a zone and a tag, as fluentd writes to standard output.
        [date, clock] if is_date(date) && is_time_of_day(clock) => {
            of(b"", clock_of(&[date, b"T", clock].concat()))
        }
        [date, clock, zone, tag] if is_date(date) && is_time_of_day(clock) && is_tag(tag) => {
            of(tag, clock_of(&[date, b"T", clock, zone].concat()))
        }
        // `stern`.
        [pod, container] if is_audit && is_word(pod) && container == b"kube-apiserver" => Some(Prefix {
            stream: pod,
            pod: Some(Pod { namespace: None, name: Some(pod), container: Some(container) }),
            ..Prefix::default()
        }),
        [clock, host, tag] if is_uptime(clock) && is_word(host) && is_tag(tag) => of(tag, None),
        // Syslog with an ISO timestamp, `journalctl -o short-iso` and `short-unix`.
        [clock, host, tag] if is_clock(clock) && is_tag(tag) && is_word(host) => of(tag, clock_of(clock)),
        [clock, host, tag] if is_tag(tag) && is_word(host) => of(tag, Some(times::epoch(clock)?)),
        [b"[", clock, host, tag] if clock.ends_with(b"]") && is_word(host) && is_tag(tag) => of(tag, None),
        // The same without a colon after the tag.
        [clock, host, tag] if priority && is_clock(clock) && is_word(host) && is_word(tag) => {
            of(tag, clock_of(clock))
        }
        // RFC 3164 without a host, and with a year.
        [month, day, clock, tag]
            if priority
                && MONTHS.contains(&month)
                && is_number(day)
                && is_time_of_day(clock)
                && is_tag(tag) =>
        {
            of(tag, None)
        }
        [month, day, year, clock, host, tag]
            if MONTHS.contains(&month)
                && is_number(day)
                && is_number(year)
                && is_time_of_day(clock)
                && is_word(host)
                && is_tag(tag) =>
        {
            of(tag, None)
        }
        // RFC 3164. It has no year.
        [month, day, clock, host, tag]
            if MONTHS.contains(&month)
                && is_number(day)
                && is_time_of_day(clock)
                && is_word(host)
                && is_tag(tag) =>
        {
            of(tag, None)
        }
        // `journalctl -o short-full`.
        [weekday, date, clock, zone, host, tag]
            if WEEKDAYS.contains(&weekday) && is_time_of_day(clock) && is_word(host) && is_tag(tag) =>
        {
            let zone: &[u8] = if zone == b"UTC" { b"Z" } else { b"" };
            of(tag, time::parse(&[date, b"T", clock, zone].concat()))
        }
        // RFC 5424.
        [version, clock, host, app, _, _, ref data @ ..] if priority && is_number(version) => {
            let is_data = match data {
                [b"-"] => true,
                // The first bracket that closes ends structured data; a message would follow it.
                [first, ..] => {
                    first.starts_with(b"[")
                        && data.iter().position(|token| token.ends_with(b"]")) == Some(data.len() - 1)
                }
                [] => false,
            };
            let is_header = is_data && is_word(host) && (is_clock(clock) || clock == b"-");
            if is_header { of(app, clock_of(clock)) } else { None }
        }
        _ => None,
    }
}

/// Headers of fields between tabs: fluentd's files, Kafka's console consumer, the text output of the AWS command line.
fn tabbed<'a>(header: &'a [u8], text: &[u8]) -> Option<Prefix<'a>> {
    let fields: Vec<&[u8]> = header.strip_suffix(b"\t")?.split(|byte| *byte == b'\t').collect();
    match fields[..] {
        [clock] if is_clock(clock) => Some(Prefix { time: clock_of(clock), ..Prefix::default() }),
        [clock, tag] if is_clock(clock) && is_word(tag) => {
            Some(Prefix { stream: tag, time: clock_of(clock), pod: Pod::of_tag(tag), ..Prefix::default() })
        }
        [create, ref more @ ..] if create.starts_with(b"CreateTime:") && more.len() <= 4 => {
            let time = times::epoch(&create[b"CreateTime:".len()..])?;
            // Producers of audit events set no key, so only `null` is accepted: a client could choose the text of another key.
            let is_meta = |field: &&[u8]| {
                [&b"Partition:"[..], b"Offset:", b"null"].iter().any(|start| field.starts_with(start))
            };
            more.iter().all(is_meta).then_some(Prefix { time: Some(time), ..Prefix::default() })
        }
        [b"EVENTS", ref more @ ..] if text.starts_with(EVENT_START) => {
            // Event id, time of ingestion and stream, of which `get-log-events` writes the second alone.
            match *more {
                [ingestion] if is_number(ingestion) => Some(Prefix::default()),
                [_, ingestion, stream] if is_number(ingestion) => {
                    Some(Prefix { stream, log_stream: Some(stream), ..Prefix::default() })
                }
                _ => None,
            }
        }
        _ => None,
    }
}

fn next_token(header: &[u8]) -> (&[u8], &[u8]) {
    let end = memchr::memchr(b' ', header).unwrap_or(header.len());
    header.split_at(end)
}

/// `[pod/NAME/CONTAINER]`
fn pod_of(token: &[u8]) -> Option<Pod<'_>> {
    let inner = token.strip_prefix(b"[pod/")?.strip_suffix(b"]")?;
    let slash = memchr::memchr(b'/', inner)?;
    Some(Pod { namespace: None, name: Some(&inner[..slash]), container: Some(&inner[slash + 1..]) })
}

/// A word of a header: no quote, bracket or other character of JSON.
fn is_word(token: &[u8]) -> bool {
    token
        .first()
        .is_some_and(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'/' | b'-' | b'*'))
        && token.iter().all(|byte| {
            byte.is_ascii_alphanumeric()
                || matches!(
                    byte,
                    b'.' | b'_' | b'-' | b'/' | b'@' | b'[' | b']' | b'(' | b')' | b'*' | b'#' | b':'
                )
        })
}

fn is_tag(token: &[u8]) -> bool {
    token.ends_with(b":") && token.len() > 1 && is_word(token)
}

fn is_number(token: &[u8]) -> bool {
    !token.is_empty() && token.len() <= 20 && token.iter().all(u8::is_ascii_digit)
}

/// A host name that is not a plain word, or one that is usual.
fn is_host(token: &[u8]) -> bool {
    const USUAL: [&[u8]; 5] = [b"localhost", b"master", b"controlplane", b"minikube", b"server"];
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    USUAL.contains(&token)
        || token.iter().all(is_part)
            && token.first().is_some_and(u8::is_ascii_alphanumeric)
            && token.last().is_some_and(u8::is_ascii_alphanumeric)
            && token.iter().any(|byte| !byte.is_ascii_alphabetic())
}

fn is_date(token: &[u8]) -> bool {
    token.len() == 10 && token.iter().all(|byte| byte.is_ascii_digit() || *byte == b'-')
}

/// A date and a time of day, in one word.
fn is_clock(token: &[u8]) -> bool {
    token.get(10) == Some(&b'T')
        && token.len() <= 40
        && token[..10].iter().all(|byte| byte.is_ascii_digit() || *byte == b'-')
        && token[11..]
            .iter()
            .all(|byte| byte.is_ascii_digit() || matches!(byte, b':' | b'.' | b',' | b'Z' | b'+' | b'-'))
}

fn clock_of(token: &[u8]) -> Option<i64> {
    times::text(token)
}

fn is_time_of_day(token: &[u8]) -> bool {
    token.get(2) == Some(&b':')
        && token.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b':' | b'.' | b','))
}

/// `[1234.567890]`
fn is_uptime(token: &[u8]) -> bool {
    token.starts_with(b"[")
        && token.ends_with(b"]")
        && token[1..token.len() - 1].iter().all(|byte| byte.is_ascii_digit() || *byte == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1"}"#;

    #[test]
    fn finds_the_event_after_a_header() {
        for header in [
            "<134>Nov 23 03:46:20 master-1 kube-apiserver[42]: ",
            "<133>Oct  7 16:19:20 cp1 k8s-audit: ",
            "Nov  3 03:46:20 master-1 audit: @cee: ",
            "Nov 03 03:46:20.123456 master-1 k3s[7]: ",
            "2026-11-23T03:46:20.873Z master-1 kube-apiserver: ",
            "2026-11-23T03:46:20+0000 master-1 k3s[812]: ",
            "<134>1 2026-11-23T03:46:20.873Z master-1 kube-apiserver 42 audit - ",
            "<134>1 2026-11-23T03:46:20Z h a 1 - [meta x=\"y\" z=\"w\"] ",
            "<134>1 - h a - - - ",
            "kube-apiserver: ",
            "2026-11-23T03:46:20.873000000Z ",
            "2026-11-23T03:46:20.873+01:00 ",
            "2026-11-23T03:46:20 ",
            "[pod/kube-apiserver-cp1/kube-apiserver] ",
            "[pod/kube-apiserver-cp1/kube-apiserver] 2026-11-23T03:46:20.873Z ",
            "2026-11-23T03:46:20.873000+00:00 kube-apiserver-audit-4f ",
            "2026-11-23T03:46:20+00:00\tkube.audit\t",
            "1795405580.873000 cp1 k3s[1]: ",
            "Mon 2026-11-23 03:46:20 UTC cp1 k3s[812]: ",
            "[ 1234.567890] cp1 k3s[812]: ",
            "[1234.567890] cp1 k3s[812]: ",
            "ip-10-0-140-97.ec2.internal ",
            "master-0 ",
            "apiserver-1  | ",
            "kube-apiserver-cp1 kube-apiserver ",
            "2026-11-23T03:46:20Z {job=\"audit\", host=\"cp {1}\"} ",
            "2026-11-23T03:46:20Z {} ",
            "CreateTime:1795405580873\t",
            "CreateTime:1795405580873\tPartition:1\tnull\t",
            "EVENTS\t36\t1795405580999\tkube-apiserver-audit-4f\t",
            "MESSAGE=",
            "90 <134>1 2026-11-23T03:46:20Z h a - - - ",
            "<134>1 2026-11-23T03:46:20Z h a - - - \u{feff}",
            "<13>2026-11-23T03:46:20Z cp1 audit ",
            "<13>Nov 23 03:46:20 k8s-audit: ",
            "<13>Nov 23 2026 03:46:20 cp1 k8s-audit: ",
            "2026-11-23 03:46:20.873 ",
            "2026-11-23 03:46:20.000000000 +0000 kube.audit: ",
            "2026-11-23T03:46:20.873Z\t",
            "2026-11-23T03:46:20.873Z /aws/eks/prod/cluster kube-apiserver-audit-0f ",
            "/aws/eks/prod/cluster kube-apiserver-audit-0f ",
            "master ",
        ] {
            let line = format!("{header}{EVENT}");
            assert_eq!(strip(line.as_bytes()).map(|found| found.text), Some(EVENT.as_bytes()), "{header}");
        }
    }

    #[test]
    fn reads_the_time_of_a_header() {
        for header in [
            "2026-11-23T03:46:20.873000000Z ",
            "2026-11-23T04:46:20.873+01:00 ",
            "2026-11-23T03:46:20.873 ",
            "2026-11-23T03:46:20,873+0000 cp1 k3s[812]: ",
            "CreateTime:1795405580873\t",
            "1795405580.873000 cp1 k3s[1]: ",
            "Mon 2026-11-23 03:46:20.873 UTC cp1 k3s[812]: ",
            "<134>1 2026-11-23T03:46:20.873Z h a - - - ",
        ] {
            let line = format!("{header}{EVENT}");
            assert_eq!(
                strip(line.as_bytes()).and_then(|found| found.time),
                Some(1_795_405_580_873_000_000),
                "{header}"
            );
        }
    }

    #[test]
    fn text_of_another_log_is_no_header() {
        for line in [
            "E1123 04:00:00.000000 1 log.go:1] error: ",
            "Nov 23 03:46:20 master-1 kube-apiserver[42]: E1123 log.go:1] cannot decode: ",
            "<134>1 2026-11-23T03:46:20.873Z h a 1 audit - cannot decode: ",
            "<134>1 2026-11-23T03:46:20.873Z h a 1 audit [meta] cannot decode] ",
            "2026-11-23T03:46:20.873Z h kube-apiserver: cannot decode: ",
            "2026-11-23T03:46:20.873Z GET /api?a= ",
            "\"value\": 1, ",
            "\"value\": ",
            "  \"value\": ",
            "error ",
            "10.0.0.1 - - [23/Nov/2026:03:46:20 +0000] \"GET / HTTP/1.1\" 200 1 \"-\" ",
            "a\tb\tc\t",
            "CreateTime:1795405580873\tkey\t",
            " ",
            "",
        ] {
            let line = format!("{line}{EVENT}");
            assert_eq!(strip(line.as_bytes()), None, "{line}");
        }
        // A host name may be any word: nothing but an audit event is accepted after it.
        assert_eq!(strip(b"master-0 {\"log\":\"x\"}"), None);
    }
}
