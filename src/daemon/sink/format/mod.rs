//! Renders alerts in the formats of receivers, within their limits.
//!
//! Takes a stored alert and a maximum length; returns one message without a line break. There is one file per format. An attacker may
//! choose values, so each format escapes them. A message that is too long is rendered again from a shortened alert, so that it stays valid.

mod cef;
mod ecs;
mod ocsf;
pub(crate) mod otlp;
pub mod template;
mod view;

use std::borrow::Cow;

use super::config::Format;
use super::failure::{Failure, Reason, Remedy};
use super::text;
use crate::detection::alert::StoredAlert;
use crate::detection::shorten::{self, MIN_ALERT};

/// Maximum number of attempts to shorten one alert. Each one gets closer to the limit.
const MAX_ATTEMPTS: usize = 16;

/// A message, and whether it was shortened.
pub(crate) type Message<'a> = (Cow<'a, [u8]>, bool);

/// Renders an alert in at most `max_len` bytes. Returns `None` if that is impossible in this format.
pub(crate) fn render(format: Format, alert: &StoredAlert, max_len: usize) -> Option<Message<'_>> {
    match format {
        // It is stored in this format.
        Format::Auto | Format::Falco => {
            let json = shorten::json(&alert.json, max_len);
            let is_short = matches!(json, Cow::Owned(_));
            (json.len() <= max_len).then_some((json, is_short))
        }
        Format::Text => fit(alert, max_len, |alert| text::line(alert).into_bytes()),
        Format::Cef => fit(alert, max_len, |alert| cef::write(alert).into_bytes()),
        Format::Ecs => fit(alert, max_len, ecs::write),
        Format::Ocsf => fit(alert, max_len, ocsf::write),
    }
}

/// Renders an alert, shortening it until the result has at most `max_len` bytes.
pub(crate) fn fit(
    alert: &StoredAlert,
    max_len: usize,
    render: impl Fn(&StoredAlert) -> Vec<u8>,
) -> Option<Message<'_>> {
    let whole = render(alert);
    if whole.len() <= max_len {
        return Some((Cow::Owned(whole), false));
    }
    let mut target = alert.json.len().max(alert.message.len()).min(max_len);
    for _ in 0..MAX_ATTEMPTS {
        let short = render(&shorten::stored(alert, target));
        if short.len() <= max_len {
            return Some((Cow::Owned(short), true));
        }
        if target <= MIN_ALERT {
            break;
        }
        // The overhead of a format is roughly proportional to the alert.
        let next = target.saturating_mul(max_len) / short.len();
        target = next.min(target / 16 * 15).max(MIN_ALERT);
    }
    // Hostile texts may be several times longer when escaped.
    [32, 16, 8, 4, 0].into_iter().find_map(|max| {
        let bare = render(&shorten::bare(alert, max));
        (bare.len() <= max_len).then_some((Cow::Owned(bare), true))
    })
}

/// The failure of an alert that cannot be shortened to the sink's limit.
pub(crate) fn too_long(max_len: usize) -> Failure {
    Failure {
        delivered: 0,
        reason: Reason::Rejected,
        remedy: Remedy::GiveUp(1),
        detail: format!("the alert cannot be shortened to {max_len} bytes: raise `max_message`"),
    }
}

/// Renders an alert. An error only affects the delivery of this alert.
pub(crate) fn message(
    format: Format,
    alert: &StoredAlert,
    max_len: Option<usize>,
) -> Result<Message<'_>, Failure> {
    let max_len = max_len.unwrap_or(usize::MAX);
    render(format, alert, max_len).ok_or_else(|| too_long(max_len))
}
