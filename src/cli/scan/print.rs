//! Prints an alert, and counts it.

use super::tally::Tally;
use super::{Format, text};
use crate::detection::engine::alert::Alert;

/// Output format, and whether to use color.
pub(super) type Style = (Format, bool);

pub(super) fn print_alert(alert: &Alert<'_>, style: Style, tally: &mut Tally, out: &mut Vec<u8>) {
    tally.alert(alert);
    match style {
        (Format::Json, _) => {
            alert.write_json(out);
            out.push(b'\n');
        }
        (Format::Text, color) => text::write(alert, color, out),
    }
}
