//! The header that syslog writes before a message.
//!
//! Takes a line of text; returns the message, if it is a JSON object and what precedes it is a header of syslog and nothing else.
//! A line of another log can quote what a client sent: JSON in the middle of such a line is never an event.

/// The longest header, in bytes.
const MAX_HEADER_LEN: usize = 512;

const MONTHS: [&[u8]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// The JSON object after a header: RFC 3164, RFC 5424, the same with an ISO timestamp, or a tag alone.
pub(super) fn message(line: &[u8]) -> Option<&[u8]> {
    let start = memchr::memmem::find(&line[..line.len().min(MAX_HEADER_LEN)], b" {")? + 1;
    let (priority, header) = match line[..start].strip_prefix(b"<") {
        Some(rest) => {
            let end = rest.iter().position(|byte| *byte == b'>')?;
            (rest[..end].iter().all(u8::is_ascii_digit), &rest[end + 1..])
        }
        None => (false, &line[..start]),
    };
    let mut tokens: Vec<&[u8]> =
        header.split(|byte| *byte == b' ').filter(|token| !token.is_empty()).collect();
    // The cookie of rsyslog for JSON.
    if tokens.last() == Some(&&b"@cee:"[..]) {
        tokens.pop();
    }
    let is_tag = |token: &[u8]| token.ends_with(b":");
    let is_header = match &tokens[..] {
        [tag] => is_tag(tag),
        [time, _, tag] => time.get(10) == Some(&b'T') && time[0].is_ascii_digit() && is_tag(tag),
        [month, _, _, _, tag] => MONTHS.contains(month) && is_tag(tag),
        [version, time, _, _, _, _, data @ ..] if priority => {
            let is_data = match data {
                [b"-"] => true,
                // The first bracket that closes ends structured data; a message would follow it.
                [first, ..] => {
                    first.starts_with(b"[")
                        && data.iter().position(|token| token.ends_with(b"]")) == Some(data.len() - 1)
                }
                [] => false,
            };
            version.iter().all(u8::is_ascii_digit) && time.get(10) == Some(&b'T') && is_data
        }
        _ => false,
    };
    is_header.then(|| &line[start..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_message_after_a_header() {
        for header in [
            "<134>Nov 23 03:46:20 master-1 kube-apiserver[42]: ",
            "Nov  3 03:46:20 master-1 audit: @cee: ",
            "2026-11-23T03:46:20.873Z master-1 kube-apiserver: ",
            "<134>1 2026-11-23T03:46:20.873Z master-1 kube-apiserver 42 audit - ",
            "<134>1 2026-11-23T03:46:20Z h a 1 - [meta x=\"y\" z=\"w\"] ",
            "kube-apiserver: ",
        ] {
            assert_eq!(message(format!("{header}{{}}").as_bytes()), Some(&b"{}"[..]), "{header}");
        }
    }

    #[test]
    fn text_of_another_log_is_no_header() {
        for line in [
            "E1123 04:00:00.000000 1 log.go:1] error: {}",
            "Nov 23 03:46:20 master-1 kube-apiserver[42]: E1123 log.go:1] cannot decode: {}",
            "<134>1 2026-11-23T03:46:20.873Z h a 1 audit - cannot decode: {}",
            "<134>1 2026-11-23T03:46:20.873Z h a 1 audit [meta] cannot decode] {}",
            "2026-11-23T03:46:20.873Z h kube-apiserver: cannot decode: {}",
            "\"value\": 1, {}",
            "error {}",
            " {}",
            "{}",
        ] {
            assert_ne!(message(line.as_bytes()), Some(&b"{}"[..]), "{line}");
        }
    }
}
