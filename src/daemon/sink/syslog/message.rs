//! Writes syslog messages (RFC 5424).

use crate::daemon::sink::config::{Format, Syslog};
use crate::daemon::sink::error::SettingsError;
use crate::daemon::sink::fields::Fields;
use crate::daemon::sink::format;
use crate::detection::alert::{StoredAlert, push_hex};
use crate::detection::audit::time;
use crate::detection::shorten;
use crate::text::escape::visible;

/// Maximum length of a value of structured data before escaping, in bytes.
const MAX_VALUE_BYTES: usize = 512;

/// The parts that all messages of a sink have in common.
#[derive(Debug)]
pub(crate) struct Writer {
    facility: usize,
    /// ` HOSTNAME APP-NAME PROCID MSGID `
    sender: String,
    structured_data: Option<String>,
    format: Format,
}

impl Writer {
    /// Checks the settings.
    ///
    /// # Errors
    /// When a name is not allowed.
    pub(crate) fn new(settings: &Syslog) -> Result<Self, SettingsError> {
        let host = match &settings.hostname {
            Some(name) => checked("host name", name, 255, "")?.to_owned(),
            // The machine's host name may be invalid in syslog. `-` is the nil value.
            None => Some(gethostname::gethostname().to_string_lossy().into_owned())
                .filter(|name| checked("host name", name, 255, "").is_ok())
                .unwrap_or_else(|| "-".to_owned()),
        };
        let app = checked("program name", &settings.app_name, 48, "")?;
        if let Some(id) = &settings.structured_data {
            checked("id of structured data", id, 32, "=]\"")?;
        }
        Ok(Writer {
            facility: settings.facility.number(),
            sender: format!(" {host} {app} {} alert ", std::process::id()),
            structured_data: settings.structured_data.clone(),
            format: settings.format,
        })
    }

    /// Appends a message of at most `max_len` bytes; returns whether it was shortened, or `None` if it cannot be that short.
    ///
    /// There is no byte order mark before the text, although RFC 5424 requires one: receivers forward it, and JSON parsers reject it.
    pub(crate) fn write(&self, alert: &StoredAlert, max_len: usize, out: &mut Vec<u8>) -> Option<bool> {
        let from = out.len();
        let priority = self.facility * 8 + alert.priority as usize;
        out.extend_from_slice(format!("<{priority}>1 ").as_bytes());
        let when = if alert.time == 0 { alert.stored } else { alert.time };
        time::write_rfc3339(out, when);
        // Syslog allows microseconds, so three digits and the Z are removed.
        out.truncate(out.len() - 4);
        out.push(b'Z');
        out.extend_from_slice(self.sender.as_bytes());
        let sender_end = out.len();
        // A message that is too long reduces the room for structured data, but leaves some.
        for max_value in [MAX_VALUE_BYTES, 128, 48, 0] {
            out.truncate(sender_end);
            match &self.structured_data {
                Some(id) if max_value > 0 => push_data(id, alert, max_value, out),
                _ => out.push(b'-'),
            }
            out.push(b' ');
            let room = max_len.saturating_sub(out.len() - from);
            let message = match self.format {
                Format::Text => format::fit(alert, room, |alert| {
                    format!("{}: {}", visible(&alert.rule), visible(alert.message.trim())).into_bytes()
                }),
                format => format::render(format, alert, room),
            };
            if let Some((message, is_short)) = message
                && (room > max_len / 2 || max_value == 0)
            {
                out.extend_from_slice(&message);
                return Some(is_short);
            }
        }
        None
    }
}

fn checked<'t>(
    what: &'static str,
    text: &'t str,
    max_len: usize,
    forbidden: &'static str,
) -> Result<&'t str, SettingsError> {
    let is_allowed = |byte: u8| (33..=126).contains(&byte) && !forbidden.as_bytes().contains(&byte);
    if (1..=max_len).contains(&text.len()) && text.bytes().all(is_allowed) {
        return Ok(text);
    }
    let except = if forbidden.is_empty() { "" } else { ", except `=`, `]` and `\"`" };
    Err(SettingsError::Name { what, text: text.to_owned(), max_len, except })
}

fn push_data(id: &str, alert: &StoredAlert, max_value: usize, out: &mut Vec<u8>) {
    out.push(b'[');
    out.extend_from_slice(id.as_bytes());
    out.extend_from_slice(b" id=\"");
    push_hex(&alert.id, out);
    out.push(b'"');
    let values = [
        ("rule", &*alert.rule),
        ("priority", alert.priority.name()),
        ("actor", &alert.actor),
        ("target", &alert.target),
    ];
    for (name, value) in values {
        out.push(b' ');
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"=\"");
        push_value(&shorten::str(value, max_value), out);
        out.push(b'"');
    }
    for (name, value) in Fields::of(alert).labels() {
        // Names are letters, digits and underscores; PARAM-NAME has at most 32 of them.
        out.push(b' ');
        out.extend_from_slice(&name.as_bytes()[..name.len().min(32)]);
        out.extend_from_slice(b"=\"");
        push_value(&shorten::str(value, max_value), out);
        out.push(b'"');
    }
    out.push(b']');
}

/// Appends a PARAM-VALUE: `"`, `\` and `]` are escaped with `\`. Control characters are allowed, but receivers write values to
/// lines of files; they are made visible.
fn push_value(value: &str, out: &mut Vec<u8>) {
    for byte in visible(value).bytes() {
        if matches!(byte, b'"' | b'\\' | b']') {
            out.push(b'\\');
        }
        out.push(byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::sink::tests::{HOSTILE, alert};
    use crate::text::escape::is_disruptive;
    use proptest::prelude::*;

    fn written(settings: &Syslog, alert: &StoredAlert, max_len: usize) -> (bool, String) {
        let mut out = Vec::new();
        let cut = Writer::new(settings).unwrap().write(alert, max_len, &mut out).unwrap();
        (cut, String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_message_has_all_parts() {
        let settings = Syslog { hostname: Some("node-1".into()), format: Format::Text, ..Syslog::default() };
        let (cut, text) = written(&settings, &alert(1), usize::MAX);
        let process = std::process::id();
        assert!(!cut);
        assert_eq!(
            text,
            format!(
                "<84>1 2026-11-23T03:45:32.270783Z node-1 pullwatch {process} alert \
                 [pullwatch@32473 id=\"00000000000000000000000000000001\" rule=\"Secret Read\" priority=\"Warning\" \
                 actor=\"alice\" target=\"secrets a/b\"] Secret Read: alice read b"
            )
        );
    }

    #[test]
    fn hostile_values_cannot_leave_their_quotes() {
        let hostile = StoredAlert {
            actor: HOSTILE.into(),
            target: HOSTILE.repeat(100),
            rule: HOSTILE.into(),
            message: HOSTILE.into(),
            ..alert(1)
        };
        for format in [Format::Text, Format::Cef, Format::Falco] {
            let settings = Syslog { format, ..Syslog::default() };
            for max_len in [usize::MAX, 3000, 1000, 480] {
                let (cut, text) = written(&settings, &hostile, max_len);
                assert!(!text.chars().any(is_disruptive), "{text:?}");
                assert!(text.len() <= max_len);
                assert!(!cut || text.contains("omitted]") || text.contains("shortened"), "{text}");
                // The first `]` that is not escaped, outside or inside quotes, ends the structured data.
                let data = text.split_once(" alert ").unwrap().1;
                if data.starts_with('[') {
                    let (mut escaped, mut quoted, mut end) = (false, false, None);
                    for (at, letter) in data.char_indices() {
                        match letter {
                            _ if escaped => escaped = false,
                            '\\' if quoted => escaped = true,
                            '"' => quoted = !quoted,
                            ']' => {
                                assert!(!quoted);
                                end = Some(at);
                                break;
                            }
                            _ => {}
                        }
                    }
                    assert!(data[end.unwrap()..].starts_with("] "));
                }
            }
        }
    }

    proptest! {
        #[test]
        fn escaped_values_are_read_back(value in any::<String>()) {
            let mut out = Vec::new();
            push_value(&value, &mut out);
            let out = String::from_utf8(out).unwrap();
            let (mut read, mut escaped) = (String::new(), false);
            for letter in out.chars() {
                prop_assert!(escaped || !matches!(letter, '"' | ']'));
                escaped = !escaped && letter == '\\';
                if !escaped {
                    read.push(letter);
                }
            }
            prop_assert!(!escaped);
            prop_assert_eq!(read, visible(&value));
        }

        #[test]
        fn no_text_exceeds_the_limit(text in any::<String>(), times in 0_usize..50, max_len in 480_usize..3000) {
            let text = text.repeat(times);
            let alert = StoredAlert { actor: text.clone(), target: text.clone(), message: text, ..alert(1) };
            for format in [Format::Text, Format::Cef] {
                let (cut, written) = written(&Syslog { format, ..Syslog::default() }, &alert, max_len);
                prop_assert!(written.len() <= max_len && (!cut || written.contains("omitted]")));
            }
        }
    }

    #[test]
    fn rejects_names_that_would_break_the_header() {
        for name in ["", "a b", "a\n", "ä", &"a".repeat(49)] {
            assert!(Writer::new(&Syslog { app_name: name.into(), ..Syslog::default() }).is_err());
        }
        for id in ["a b", "a=b", "a]", "\"", ""] {
            assert!(Writer::new(&Syslog { structured_data: Some(id.into()), ..Syslog::default() }).is_err());
        }
        assert!(Writer::new(&Syslog { hostname: Some("a b".into()), ..Syslog::default() }).is_err());
    }
}
