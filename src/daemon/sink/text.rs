//! Alerts as lines of text for people. An attacker may choose any value, so control characters are made visible.

use super::fields::Fields;
use crate::detection::alert::StoredAlert;
use crate::detection::audit::time;
use crate::text::escape::visible;

/// Returns `2026-11-23 03:45:32.270Z  WARNING        Rule: message`, in the format of `pullwatch scan`.
pub(crate) fn line(alert: &StoredAlert) -> String {
    let time = time::utc_milliseconds(alert.time);
    let priority = alert.priority.name().to_ascii_uppercase();
    let (rule, message) = (visible(&alert.rule), visible(alert.message.trim()));
    format!("{time}  {priority:<13}  {rule}: {message}{}", labels(alert))
}

/// The labels of an alert, as ` [cluster=prod-eu team=registry]`; empty without labels.
fn labels(alert: &StoredAlert) -> String {
    let fields = Fields::of(alert);
    let labels: Vec<String> =
        fields.labels().map(|(name, value)| format!("{}={}", visible(name), visible(value))).collect();
    if labels.is_empty() { String::new() } else { format!(" [{}]", labels.join(" ")) }
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
