//! Alerts as lines of text for people. All values may be chosen by an attacker: control characters are made visible.

use crate::detection::alert::StoredAlert;
use crate::detection::audit::time;
use crate::detection::audit::time::Clock;
use crate::text::escape::visible;

/// Appends `2026-11-23 03:45:32.270  WARNING        Rule: message` and a line break, in the format of `pullwatch scan`.
pub(crate) fn write_line(alert: &StoredAlert, out: &mut Vec<u8>) {
    let mut time = time::format(Clock::DateTime, alert.time);
    // Milliseconds are precise enough for people.
    time.truncate("2026-11-23 03:45:32.270".len());
    let priority = alert.priority.name().to_ascii_uppercase();
    let (rule, message) = (visible(&alert.rule), visible(alert.message.trim()));
    out.extend_from_slice(format!("{time}  {priority:<13}  {rule}: {message}\n").as_bytes());
}

/// Returns the longest prefix of at most `max_len` bytes.
pub(crate) fn truncate_str(text: &str, max_len: usize) -> &str {
    let mut end = max_len.min(text.len());
    // At most three steps: a character has at most four bytes.
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
