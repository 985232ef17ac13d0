//! An alert as a line for people, and hostile text made harmless.

use crate::detection::alert::StoredAlert;
use crate::detection::audit::time;
use crate::detection::audit::time::Clock;
use crate::text::escape::visible;

/// Appends `2026-11-23 03:45:32.270  WARNING        Rule: what happened` and a line's end, as `scan` writes it.
pub fn write_line(alert: &StoredAlert, out: &mut Vec<u8>) {
    let mut when = time::format(Clock::DateTime, alert.time);
    // Milliseconds are enough for people.
    when.truncate("2026-11-23 03:45:32.270".len());
    let name = alert.priority.name().to_ascii_uppercase();
    let (rule, message) = (visible(&alert.rule), visible(alert.message.trim()));
    out.extend_from_slice(format!("{when}  {name:<13}  {rule}: {message}\n").as_bytes());
}

/// The longest start of a text that has at most so many bytes.
pub fn start(text: &str, most: usize) -> &str {
    let mut end = most.min(text.len());
    // At most three steps back.
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
