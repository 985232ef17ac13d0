//! An alert as a line for people, and hostile text made harmless.

use std::fmt::Write as _;

use crate::audit::fields::Clock;
use crate::audit::text::is_disruptive;
use crate::audit::time;
use crate::store::StoredAlert;

/// Appends `2026-11-23 03:45:32.270  WARNING        Rule: what happened` and a line's end, as `scan` writes it.
pub fn write_line(alert: &StoredAlert, out: &mut Vec<u8>) {
    let mut when = time::format(Clock::DateTime, alert.time);
    // Milliseconds are enough for people.
    when.truncate("2026-11-23 03:45:32.270".len());
    let name = alert.priority.name().to_ascii_uppercase();
    let (rule, message) = (visible(&alert.rule), visible(alert.message.trim()));
    out.extend_from_slice(format!("{when}  {name:<13}  {rule}: {message}\n").as_bytes());
}

/// Text from events with its control characters spelled out, so that it stays on its line and moves no cursor.
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            letter if is_disruptive(letter) => {
                // Writing to a String does not fail.
                let _ = write!(out, "\\u{{{:x}}}", u32::from(letter));
            }
            letter => out.push(letter),
        }
    }
    out
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
