//! The summary of a scan, on standard error.

use std::fmt::Write as _;
use std::time::Duration;

use super::tally::{Names, Tally};
use super::text;
use crate::cli::rule_files::show;
use crate::cli::visible;
pub use crate::text::numbers::grouped;

pub struct ScanResult<'a> {
    pub tally: &'a Tally,
    /// Inputs that could not be read completely, each with the reason.
    pub failures: &'a [String],
    /// Names of empty inputs.
    pub empty: &'a [String],
    /// Number of files read.
    pub files: usize,
    pub elapsed: Duration,
    /// Names by rule index.
    pub rule_names: &'a [String],
}

/// Number of users, targets and empty inputs shown.
const TOP: usize = 5;

/// Names are truncated to this number of characters.
const MAX_NAME_WIDTH: usize = 100;

pub fn print(result: &ScanResult<'_>) {
    show(&render(result));
}

fn render(result: &ScanResult<'_>) -> String {
    let tally = result.tally;
    let mut out = String::from("\n");
    let seconds = result.elapsed.as_secs_f64();
    #[allow(clippy::cast_precision_loss)] // Rounded for display.
    let size = tally.bytes as f64;
    let rate = size / seconds.max(1e-9);
    let files = match result.files {
        0 => String::new(),
        1 => " in 1 file".to_owned(),
        files => format!(" in {files} files"),
    };
    // Writing to a String does not fail.
    let _ = writeln!(
        out,
        "{} events, {}{files}, {seconds:.2} s ({}/s)",
        grouped(tally.counts.events),
        bytes(size),
        bytes(rate)
    );
    if tally.counts.outside_time_range > 0 {
        let _ = writeln!(out, "{} events outside the time range", grouped(tally.counts.outside_time_range));
    }
    let _ = writeln!(out, "{} alerts", grouped(tally.alerts()));
    let mut rules: Vec<_> = tally.rules.iter().collect();
    rules.sort_by_key(|&(&rule, &(priority, count))| (priority, std::cmp::Reverse(count), rule));
    for (&rule, &(priority, count)) in rules {
        let style = text::style(priority);
        let name = result.rule_names.get(rule).map_or("", String::as_str);
        let _ =
            writeln!(out, "{:>9}  {style}{:<13}{style:#}  {}", grouped(count), priority.name(), short(name));
    }
    names(&mut out, "Top users", &tally.actors);
    names(&mut out, "Top targets", &tally.targets);
    reasons(&mut out, "Malformed records", tally.counts.malformed.iter());
    reasons(&mut out, "Skipped records", tally.counts.skipped.iter());
    reasons(&mut out, "Truncated events", tally.counts.truncated.iter());
    reasons(&mut out, "Evicted to stay within memory limits", tally.counts.evicted.iter());
    if !tally.counts.throttled.is_empty() {
        out.push_str("Throttled alerts:\n");
        for (&rule, &count) in &tally.counts.throttled {
            let name = result.rule_names.get(rule).map_or("", String::as_str);
            let _ = writeln!(out, "{:>9}  {}", grouped(count), short(name));
        }
    }
    if !result.empty.is_empty() {
        let _ = writeln!(out, "Empty inputs: {}", grouped(result.empty.len() as u64));
        for name in result.empty.iter().take(TOP) {
            let _ = writeln!(out, "           {}", visible(name));
        }
    }
    if !result.failures.is_empty() {
        let _ = writeln!(out, "Unreadable inputs:");
        for failure in result.failures {
            let _ = writeln!(out, "           {}", visible(failure));
        }
    }
    out
}

fn names(out: &mut String, title: &str, names: &Names) {
    let top = names.top(TOP);
    if top.is_empty() {
        return;
    }
    let _ = writeln!(out, "{title}:");
    for (name, count) in &top {
        let _ = writeln!(out, "{:>9}  {}", grouped(*count), short(name));
    }
    let more = names.len() - top.len();
    if more > 0 || names.others > 0 {
        let bound = if names.others > 0 { "at least " } else { "" };
        let _ = writeln!(out, "           and {bound}{} more", grouped(more as u64));
    }
}

fn reasons<'a>(out: &mut String, title: &str, reasons: impl Iterator<Item = (&'a &'static str, &'a u64)>) {
    let reasons: Vec<_> = reasons.collect();
    if reasons.is_empty() {
        return;
    }
    let total: u64 = reasons.iter().map(|(_, count)| *count).sum();
    let _ = writeln!(out, "{title}: {}", grouped(total));
    for (reason, count) in reasons {
        let _ = writeln!(out, "{:>9}  {reason}", grouped(*count));
    }
}

fn short(name: &str) -> String {
    let name = visible(name);
    match name.char_indices().nth(MAX_NAME_WIDTH) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name,
    }
}

/// Formats a size as `1.2 MB`, in decimal units.
pub fn bytes(number: f64) -> String {
    let mut number = number;
    for unit in ["B", "kB", "MB", "GB"] {
        if number < 1000.0 {
            return if unit == "B" { format!("{number:.0} B") } else { format!("{number:.1} {unit}") };
        }
        number /= 1000.0;
    }
    format!("{number:.1} TB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_sizes() {
        assert_eq!((bytes(512.0), bytes(11_217_308.0)), ("512 B".into(), "11.2 MB".into()));
    }
}
