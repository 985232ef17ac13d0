//! Text that precedes an event on its line.
//!
//! Takes a line of text; returns the JSON in it, if the text before it is exactly a known header: of syslog, `journalctl`, `kubectl logs`,
//! `aws logs tail`, `oc adm node-logs`, fluentd's files, exports of CloudWatch and Loki, Kafka's console consumer. A line of another log
//! can quote what a client sent: JSON in the middle of such a line is never an event.

use super::super::time;
use super::pod::Pod;
use super::skipped;
use super::stream::{self, RecordSource};
use super::times::{self, MONTHS};

/// Maximum length of a header, in bytes.
const MAX_HEADER_LEN: usize = 1024;

/// How an audit event starts. After a header that could also be other text, such as a lone host name, only this is accepted.
const EVENT_START: &[u8] = br#"{"kind":"Event","apiVersion":"audit.k8s.io/"#;

const WEEKDAYS: [&[u8]; 7] = [b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun"];

/// The header recognized before the JSON of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Prefix<'a> {
    /// The JSON, up to the end of the line.
    pub(super) text: &'a [u8],
    /// The time of the line, in nanoseconds since 1970.
    pub(super) time: Option<i64>,
    /// Identifies the stream that the line belongs to.
    pub(super) stream: &'a [u8],
    /// The log stream of CloudWatch.
    pub(super) log_stream: Option<&'a [u8]>,
    pub(super) pod: Option<Pod<'a>>,
    /// What the labels in the header state about the source.
    pub(super) source: RecordSource,
}

impl Prefix<'_> {
    /// Checks what the header states about the stream.
    ///
    /// # Errors
    ///
    /// Returns the reason to skip the line if it is not from an apiserver.
    pub(super) fn check_stream(&self) -> Result<(), &'static str> {
        let is_other = self.source.is_other()
            || self.pod.is_some_and(|pod| !pod.is_apiserver())
            || self.log_stream.is_some_and(|stream| !stream::is_apiserver_stream(stream));
        if is_other { Err(skipped::OTHER_STREAM) } else { Ok(()) }
    }
}

/// Recognizes the header at the start of a line of a log.
pub(super) fn strip(line: &[u8]) -> Option<Prefix<'_>> {
    strip_at(line, true)
}

/// Recognizes the header of a line inside a wrapper. A single word is not accepted as a header there, since only commands that print whole
/// lines write one.
pub(super) fn strip_nested(line: &[u8]) -> Option<Prefix<'_>> {
    strip_at(line, false)
}

fn strip_at(line: &[u8], is_outermost: bool) -> Option<Prefix<'_>> {
    // The export format of the journal, and its verbose format, which indents fields.
    let field = if is_outermost { line.strip_prefix(b"    ").unwrap_or(line) } else { line };
    if let Some(text) = field.strip_prefix(b"MESSAGE=").filter(|text| text.starts_with(b"{")) {
        return Some(Prefix { text, stream: b"MESSAGE", ..Prefix::default() });
    }
    match line.first()? {
        b'{' | b'"' => return None,
        byte if byte.is_ascii_whitespace() => return None,
        _ => {}
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
    // The labels of a line in logcli output.
    let mut labels = RecordSource::default();
    if line.get(start + 1).is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'}') {
        let (clock, _) = next_token(header);
        time::parse(clock)?;
        let end = labels.add_labels(&head[start..])?;
        start += end + 1;
        if head.get(start - 1..start + 1)? != b" {" {
            return None;
        }
    }
    // RFC 5424 allows a byte order mark at the start of the message.
    let header = header.strip_suffix(b"\xef\xbb\xbf").unwrap_or(header);
    let text = &line[start..];
    // A header before a line of a container log.
    if let Some(at) = container_log(header) {
        let text = &line[at..];
        return read(&header[..at], text, labels, is_outermost).map(|prefix| Prefix { text, ..prefix });
    }
    read(header, text, labels, is_outermost).map(|prefix| Prefix { text, ..prefix })
}

/// Reads the structured data of RFC 5424, `[ID name="value" …][…]`, as far as it is well-formed.
fn read_structured_data(data: &[u8], source: &mut RecordSource) -> Option<()> {
    let mut rest = data;
    loop {
        rest = rest.strip_prefix(b"[")?;
        let end = rest.iter().position(|byte| matches!(byte, b' ' | b']'))?;
        // The name is followed by the enterprise number of the organization that defined it.
        let id = rest[..end].split(|byte| *byte == b'@').next()?;
        rest = &rest[end..];
        while let Some(parameter) = rest.strip_prefix(b" ") {
            let name_len = memchr::memchr(b'=', parameter)?;
            let (name, quoted) = (&parameter[..name_len], parameter.get(name_len + 1..)?);
            let quoted = quoted.strip_prefix(b"\"")?;
            let mut len = 0;
            while *quoted.get(len)? != b'"' {
                len += if quoted[len] == b'\\' { 2 } else { 1 };
            }
            source.add(name, &quoted[..len]);
            source.add(&[id, b".", name].concat(), &quoted[..len]);
            rest = &quoted[len + 1..];
        }
        rest = rest.strip_prefix(b"]")?;
    }
}

/// The position of `<time> stdout F ` at the end of a header.
fn container_log(header: &[u8]) -> Option<usize> {
    let before = [&b" stdout F "[..], b" stdout P ", b" stderr F ", b" stderr P "]
        .iter()
        .find_map(|end| header.strip_suffix(*end))?;
    let at = memchr::memrchr(b' ', before)? + 1;
    is_clock(&before[at..]).then_some(at)
}

/// The first brace from an offset on that follows a space or a tab.
fn json_start(head: &[u8], from: usize) -> Option<usize> {
    memchr::memchr_iter(b'{', &head[from..]).map(|at| from + at).find(|at| {
        *at > 0 && (matches!(head[at - 1], b' ' | b'\t') || head[..*at].ends_with(b" \xef\xbb\xbf"))
    })
}

/// Reads a header. `labels` are the labels after it.
fn read<'a>(header: &'a [u8], text: &[u8], labels: RecordSource, is_outermost: bool) -> Option<Prefix<'a>> {
    let prefix = read_words(header, text, is_outermost)?;
    Some(if labels == RecordSource::default() { prefix } else { Prefix { source: labels, ..prefix } })
}

fn read_words<'a>(header: &'a [u8], text: &[u8], is_outermost: bool) -> Option<Prefix<'a>> {
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
    // The cookie of rsyslog that announces JSON.
    if tokens.last() == Some(&&b"@cee:"[..]) {
        tokens.pop();
    }
    let is_audit = text.starts_with(EVENT_START);
    let of =
        |stream: &'a [u8], time| Some(Prefix { time, stream, pod: Pod::of_tag(stream), ..Prefix::default() });
    match tokens[..] {
        // `kubectl logs --prefix`, with and without `--timestamps`.
        [pod] if pod_of(pod).is_some() => Some(Prefix { stream: pod, pod: pod_of(pod), ..Prefix::default() }),
        [pod, clock] if pod_of(pod).is_some() => {
            Some(Prefix { time: Some(clock_of(clock)?), stream: pod, pod: pod_of(pod), ..Prefix::default() })
        }
        [tag] if is_own_tag(tag) => of(tag, None),
        // `journalctl -o json-sse`: records of the journal.
        [b"data:"] if is_outermost && !is_audit => of(b"", None),
        // `kubectl logs --timestamps`, exports of CloudWatch to S3.
        [clock] if is_clock(clock) => of(b"", clock_of(clock)),
        // `oc adm node-logs`.
        [host] if is_outermost && is_audit && is_host(host) => of(host, None),
        [clock, tag] if is_clock(clock) && is_own_tag(tag) => of(tag, clock_of(clock)),
        // `aws logs tail`.
        [clock, stream] if is_clock(clock) && is_word(stream) => {
            Some(Prefix { stream, time: clock_of(clock), log_stream: Some(stream), ..Prefix::default() })
        }
        // Docker Compose names the container of each line.
        [name, b"|"] if is_audit && is_word(name) => {
            let container = if is_control_plane(name) { None } else { Some(name) };
            let pod = Some(Pod { container, ..Pod::default() });
            Some(Prefix { stream: name, pod, ..Prefix::default() })
        }
        // `awslogs get`, `aws logs tail` of several groups.
        [group, stream] if group.starts_with(b"/aws/") => {
            Some(Prefix { stream, log_stream: Some(stream), ..Prefix::default() })
        }
        [clock, group, stream] if is_clock(clock) && group.starts_with(b"/aws/") => {
            Some(Prefix { stream, time: clock_of(clock), log_stream: Some(stream), ..Prefix::default() })
        }
        // A date and a time of day in two words; with a time zone and a tag, as fluentd writes to standard output.
        [date, clock] if is_date(date) && is_time_of_day(clock) => {
            of(b"", clock_of(&[date, b"T", clock].concat()))
        }
        [date, clock, zone, tag]
            if is_date(date)
                && is_time_of_day(clock)
                && is_tag(tag)
                && (tag.contains(&b'.') || is_own_tag(tag)) =>
        {
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
        // `journalctl -o short-delta`: the time since boot, and since the preceding line.
        [ref clocks @ .., host, tag] if is_delta(clocks) && is_word(host) && is_tag(tag) => of(tag, None),
        // kcat with the format string of its manual. Producers of audit events set no message key.
        [b"Topic", topic, partition, b"at", b"offset", offset, b"key", b":"]
            if is_audit
                && is_word(topic)
                && is_bracketed_number(partition)
                && is_number(trim_colon(offset)) =>
        {
            of(topic, None)
        }
        // The same, without a colon after the tag.
        [clock, host, tag] if priority && is_clock(clock) && is_word(host) && is_word(tag) => {
            of(tag, clock_of(clock))
        }
        // RFC 3164 without a host name, but with a year.
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
        // RFC 3164, which has no year.
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
                // The structured data ends at the first closing bracket; a message would follow it.
                [first, ..] => {
                    first.starts_with(b"[")
                        && data.iter().position(|token| token.ends_with(b"]")) == Some(data.len() - 1)
                }
                [] => false,
            };
            let is_header = is_data && is_word(host) && (is_clock(clock) || clock == b"-");
            let mut source = RecordSource::default();
            if let Some(at) = memchr::memmem::find(header, b" [") {
                read_structured_data(&header[at + 1..], &mut source);
            }
            if is_header { of(app, clock_of(clock)).map(|prefix| Prefix { source, ..prefix }) } else { None }
        }
        _ => None,
    }
}

/// Header fields separated by tabs: fluentd's files, Kafka's console consumer, the text output of the AWS command line.
fn tabbed<'a>(header: &'a [u8], text: &[u8]) -> Option<Prefix<'a>> {
    let fields: Vec<&[u8]> = header.strip_suffix(b"\t")?.split(|byte| *byte == b'\t').collect();
    match fields[..] {
        [clock] if is_clock(clock) => Some(Prefix { time: clock_of(clock), ..Prefix::default() }),
        // Grafana's text download of logs: milliseconds, and the same time as a date.
        [millis, clock] if is_number(millis) && is_clock(clock) => {
            Some(Prefix { time: times::epoch(millis), ..Prefix::default() })
        }
        [clock, tag] if is_clock(clock) && is_word(tag) => {
            Some(Prefix { stream: tag, time: clock_of(clock), pod: Pod::of_tag(tag), ..Prefix::default() })
        }
        [create, ref more @ ..] if create.starts_with(b"CreateTime:") && more.len() <= 4 => {
            let time = times::epoch(&create[b"CreateTime:".len()..])?;
            // Producers of audit events set no key, so only `null` is accepted: a client could choose the text of any other key.
            let is_meta = |field: &&[u8]| {
                [&b"Partition:"[..], b"Offset:", b"null"].iter().any(|start| field.starts_with(start))
            };
            more.iter().all(is_meta).then_some(Prefix { time: Some(time), ..Prefix::default() })
        }
        [b"EVENTS", ref more @ ..] if text.starts_with(EVENT_START) => {
            // Event id, ingestion time and stream. `get-log-events` writes only the ingestion time.
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

/// A word of a header: no quotes, brackets or other characters of JSON.
pub(super) fn is_word(token: &[u8]) -> bool {
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

/// The tag of an apiserver, or of a program that includes one. If only a time precedes the tag, other words are part of a log message:
/// `INFO:`, `User-Agent:`.
fn is_own_tag(tag: &[u8]) -> bool {
    is_tag(tag) && is_control_plane(tag)
}

/// Whether a name is that of a control plane program or container.
fn is_control_plane(name: &[u8]) -> bool {
    const PARTS: [&[u8]; 3] = [b"audit", b"apiserver", b"control-plane"];
    const STARTS: [&[u8]; 6] = [b"k3s", b"k0s", b"k3d", b"rke2", b"minikube", b"server"];
    PARTS.iter().any(|part| memchr::memmem::find(name, part).is_some())
        || STARTS.iter().any(|start| name.starts_with(start))
}

fn trim_colon(token: &[u8]) -> &[u8] {
    token.strip_suffix(b":").unwrap_or(token)
}

/// `[0]`
fn is_bracketed_number(token: &[u8]) -> bool {
    token.strip_prefix(b"[").and_then(|token| token.strip_suffix(b"]")).is_some_and(is_number)
}

/// `[1234.567890 <    0.000123 >]`, and without the absolute time: `[<    0.000123 >]`.
fn is_delta(tokens: &[&[u8]]) -> bool {
    let text = tokens.concat();
    let inner = text.strip_prefix(b"[").and_then(|text| text.strip_suffix(b">]"));
    inner.is_some_and(|inner| {
        memchr::memchr(b'<', inner).is_some()
            && inner.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'<'))
    })
}

fn is_number(token: &[u8]) -> bool {
    !token.is_empty() && token.len() <= 20 && token.iter().all(u8::is_ascii_digit)
}

/// A host name that is not a plain word, or is a common one.
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
pub(super) fn is_clock(token: &[u8]) -> bool {
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
            "    MESSAGE=",
            "2026-11-23T03:46:20Z k8s-audit: ",
            "[ 1234.567890 <    0.000123 >] cp1 k3s[812]: ",
            "[1234.567890 <0.000123>] cp1 k3s[812]: ",
            "1795405580873\t2026-11-23T03:46:20.873Z\t",
            "Topic k8s-audit [0] at offset 17: key : ",
            "2026-11-23T03:46:20Z {job=\"audit\", host=\"cp \\\"} {1}\"} ",
        ] {
            let line = format!("{header}{EVENT}");
            assert_eq!(strip(line.as_bytes()).map(|found| found.text), Some(EVENT.as_bytes()), "{header}");
        }
    }

    #[test]
    fn structured_data_names_the_stream() {
        for (data, is_other) in [
            (r#"[kubernetes pod_name="web-0" namespace_name="default"]"#, true),
            (r#"[kubernetes@32473 pod_name="kube-apiserver-a" namespace_name="kube-system"]"#, false),
            (r#"[origin software="a \"b\" [c\]"][meta pod="web-0"]"#, true),
            (r#"[meta file="/var/log/pods/default_web-0_1/web/0.log"]"#, true),
            (r#"[meta x="y"]"#, false),
        ] {
            let line = format!("<134>1 2026-11-23T03:46:20Z h a 1 - {data} {EVENT}");
            assert_eq!(
                strip(line.as_bytes()).map(|prefix| prefix.source.is_other()),
                Some(is_other),
                "{data}"
            );
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
            // Words of a log message before text that a client sent.
            "INFO: ",
            "User-Agent: ",
            "2026-11-23 03:46:20 +0000 error: ",
            "data: ",
            "  MESSAGE=",
            "Topic k8s-audit [0] at offset 17: key a: ",
            "2026-11-23T03:46:20Z {job=\"audit\", x} ",
            "CreateTime:1795405580873\tkey\t",
            " ",
            "",
        ] {
            let line = format!("{line}{EVENT}");
            assert_eq!(strip(line.as_bytes()), None, "{line}");
        }
        // A word after a time may be a CloudWatch log stream, and then it is not the apiserver's.
        let line = format!("2026-11-23T03:46:20Z error: {EVENT}");
        let prefix = strip(line.as_bytes());
        assert!(prefix.and_then(|prefix| prefix.log_stream).is_some_and(|stream| stream == b"error:"));
        // A host name may be any word, so only an audit event is accepted after it, and not inside a wrapper.
        assert_eq!(strip(b"master-0 {\"log\":\"x\"}"), None);
        assert_eq!(strip_nested(format!("master-0 {EVENT}").as_bytes()), None);
        assert!(strip(br#"data: {"__CURSOR":"a"}"#).is_some());
    }
}
