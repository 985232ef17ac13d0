//! `pullwatch scan`: audit logs in, alerts out, and a summary of what was seen.

pub(super) mod bounds;
pub(super) mod summary;
mod tally;
pub(super) mod text;
pub(super) mod worker;

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Args, ValueEnum};

use super::rule_files;
use crate::daemon::source::discover;
use crate::daemon::source::input::Input;
use crate::detection::alert::Priority;
use crate::detection::detector::{Detector, Options};
use crate::detection::rules::Matching;

/// Search audit logs: who read, listed or watched which secrets
///
/// Reads audit logs of a kube-apiserver and prints an alert a line. Files may be plain, gzip or zstd; a directory or a
/// pattern stands for the audit logs in it, a rotated set is read oldest first. A summary follows on standard error.
///
/// Without --rules it uses the files of ./rules.d, else the rules that ship with pullwatch.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pullwatch scan /var/log/kubernetes/audit/            all audit logs of a directory, rotated ones first
  pullwatch scan 'audit-2026-11-*.log.gz'              a pattern
  kubectl logs -n kube-system audit-relay | pullwatch scan
                                                       standard input, alerts as they come
  pullwatch scan audit.log --format json | jq .rule    one JSON object a line
  pullwatch scan audit.log --since 2h --priority error the last two hours, only what is bad
  pullwatch scan audit.log --rules rules.d --rules mine.yaml
                                                       more rules, in this order
  pullwatch scan audit.log --fail-on warning -q        exit 1 if there is something to look at

Exit status: 0 done, 1 an alert at least as bad as --fail-on fired, 2 an error, or an input that could not be read.")]
pub struct Scan {
    /// What to read: files, directories, patterns, or - for standard input.
    ///
    /// A directory stands for the logs in it and below it (*.log*, *.json, *.jsonl, *.ndjson; plain, .gz, .zst), but for
    /// hidden ones. A rotated set is read oldest first, each file once.
    #[arg(value_name = "PATH|DIR|GLOB|-")]
    paths: Vec<OsString>,

    /// How to print alerts.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    format: Format,

    /// A rule file, or a directory of them. May be given several times; later definitions replace earlier ones.
    #[arg(short, long = "rules", value_name = "PATH")]
    rules: Vec<PathBuf>,

    /// Whether each rule that matches an event makes an alert, or only the first one in load order.
    #[arg(long, value_enum, default_value_t = RuleMatching::All, value_name = "WHICH")]
    rule_matching: RuleMatching,

    /// Leave out rules less bad than this.
    #[arg(short, long, value_name = "MIN", value_parser = priority, default_value = "debug")]
    priority: Priority,

    /// Only events from this time on: 2026-11-23T10:00:00Z, 2026-11-23, or 2h, 7d (ago).
    #[arg(long, value_name = "TIME", value_parser = bounds::parse)]
    since: Option<i64>,

    /// Only events before this time.
    #[arg(long, value_name = "TIME", value_parser = bounds::parse)]
    until: Option<i64>,

    /// How many threads judge events. The output is the same with any number. [default: all cores]
    #[arg(short, long, value_name = "N")]
    threads: Option<usize>,

    /// Exit with 1 if an alert at least as bad as this fired.
    #[arg(long, value_name = "PRIORITY", value_parser = priority)]
    fail_on: Option<Priority>,

    /// The longest line that is read whole, in bytes (suffixes K, M, G). Of a longer one the head is judged.
    #[arg(long, value_name = "BYTES", default_value = "64M", value_parser = size)]
    max_event_size: usize,

    /// No summary.
    #[arg(short, long, visible_alias = "no-summary")]
    quiet: bool,
}

/// How to print alerts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people: time, priority, rule, what happened.
    Text,
    /// For programs: one JSON object a line.
    Json,
}

/// Which rules make alerts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RuleMatching {
    /// The first that matches.
    First,
    /// Each that matches.
    All,
}

pub(super) fn priority(word: &str) -> Result<Priority, String> {
    Priority::parse(word).ok_or_else(|| {
        let words: Vec<String> =
            Priority::ALL.iter().map(|priority| priority.name().to_ascii_lowercase()).collect();
        format!("expected {}", words.join(", "))
    })
}

/// Events are at least this long, and offsets in them have 32 bits.
const SIZES: std::ops::RangeInclusive<usize> = 1024..=(u32::MAX as usize / 2);

pub(super) fn size(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let factor = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "K" | "KB" | "KIB" => 1 << 10,
        "M" | "MB" | "MIB" => 1 << 20,
        "G" | "GB" | "GIB" => 1 << 30,
        _ => return Err("expected a number of bytes, such as 64M".to_owned()),
    };
    let size = digits.parse::<usize>().ok().and_then(|number| number.checked_mul(factor));
    size.filter(|size| SIZES.contains(size))
        .ok_or_else(|| "expected a number of bytes from 1K to 2047M".to_owned())
}

impl Scan {
    /// Reads, judges, prints.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let started = Instant::now();
        if let (Some(since), Some(until)) = (self.since, self.until) {
            anyhow::ensure!(since < until, "no time is left: --since is not before --until");
        }
        let matching = match self.rule_matching {
            RuleMatching::First => Matching::First,
            RuleMatching::All => Matching::All,
        };
        let names = if self.paths.is_empty() {
            anyhow::ensure!(
                !std::io::stdin().is_terminal(),
                "nothing to scan: name a file, a directory or a pattern, or pipe a log to standard input"
            );
            vec![OsString::from("-")]
        } else {
            self.paths.clone()
        };
        let loaded = rule_files::load(&self.rules, matching)?;
        let hostname = gethostname::gethostname().to_string_lossy().into_owned();
        let (inputs, errors) = discover::inputs(&names);
        let options = Options {
            repartition: None,
            matching,
            minimum: self.priority,
            since: self.since,
            until: self.until,
            max_event_size: self.max_event_size,
            hostname,
            is_in_time_order: inputs.len() <= 1,
        };
        let detector = Detector::new(&loaded.rules, options);

        let mut failures: Vec<String> = errors.iter().map(ToString::to_string).collect();
        for failure in &failures {
            complain(failure);
        }
        let report = worker::run(&self, &detector, &inputs)?;
        failures.extend(report.failures.iter().cloned());
        if report.pipe_closed {
            // Whoever asked has seen enough, as with `head`: neither the rest nor a summary is of interest.
            return Ok(ExitCode::SUCCESS);
        }
        let outcome = summary::Outcome {
            tally: &report.tally,
            failures: &failures,
            empty: &report.empty,
            files: inputs.iter().filter(|input| matches!(input, Input::File(_))).count(),
            elapsed: started.elapsed(),
            rule_names: detector.rule_names(),
        };
        if !self.quiet {
            summary::print(&outcome);
        }
        let fired =
            self.fail_on.is_some_and(|limit| report.tally.worst().is_some_and(|worst| worst <= limit));
        Ok(match (failures.is_empty(), fired) {
            (false, _) => ExitCode::from(2),
            (true, true) => ExitCode::from(1),
            (true, false) => ExitCode::SUCCESS,
        })
    }
}

/// Says at once what cannot be read.
pub(super) fn complain(failure: &str) {
    rule_files::show(&format!("pullwatch: {}\n", super::visible(failure)));
}
