//! The text format of alerts: one line each.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use crate::cli::visible;
use crate::detection::alert::Priority;
use crate::detection::audit::time;
use crate::detection::engine::alert::Alert;

pub fn style(priority: Priority) -> Style {
    match priority {
        Priority::Emergency | Priority::Alert | Priority::Critical => AnsiColor::Red.on_default().bold(),
        Priority::Error => AnsiColor::Red.on_default(),
        Priority::Warning => AnsiColor::Yellow.on_default(),
        Priority::Notice => AnsiColor::Cyan.on_default(),
        Priority::Informational | Priority::Debug => AnsiColor::BrightBlack.on_default(),
    }
}

/// Appends `2026-11-23 03:45:32.270Z  WARNING  Rule: output` and a line break. Times are in UTC.
pub fn write(alert: &Alert<'_>, color: bool, out: &mut Vec<u8>) {
    let when = time::utc_milliseconds(alert.time());
    let name = alert.priority().name().to_ascii_uppercase();
    let rule = visible(alert.rule_name());
    let message = visible(alert.message().trim());
    let mut line = String::new();
    // Writing to a String does not fail.
    let _ = if color {
        let (style, bold, dim) = (style(alert.priority()), Style::new().bold(), Style::new().dimmed());
        writeln!(line, "{dim}{when}{dim:#}  {style}{name:<13}{style:#}  {bold}{rule}{bold:#}: {message}")
    } else {
        writeln!(line, "{when}  {name:<13}  {rule}: {message}")
    };
    out.extend_from_slice(line.as_bytes());
}
