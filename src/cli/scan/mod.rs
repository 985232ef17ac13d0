//! `pullwatch scan`: evaluates the rules over audit logs, prints alerts and a summary.

pub(super) mod bounds;
mod print;
pub(super) mod reading;
mod result;
pub(super) mod screen;
pub(super) mod summary;
mod tally;
pub(super) mod text;
mod threads;
mod worker;

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, ValueEnum};

use super::{learned, rule_files};
use crate::cli::networks::NetworkArgs;
use crate::daemon::inventory;
use crate::daemon::source::discover;
use crate::daemon::source::input::Input;
use crate::detection::alert::Priority;
use crate::detection::audit::envelope;
use crate::detection::detector::{Detector, LogContext, Options};
use crate::detection::rules::Matching;
use crate::text::size;

/// Scan audit logs and print alerts
///
/// Reads audit logs of a kube-apiserver and prints one alert per line, followed by a summary on standard error. Files may
/// be uncompressed, gzip or zstd. Directories and glob patterns are expanded to the logs in them; a rotated set is read
/// oldest first.
///
/// Without --rules, the rule files in ./rules.d are used or, if there is no such directory, the built-in rules.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pullwatch scan /var/log/kubernetes/audit/            all audit logs of a directory, oldest first
  pullwatch scan 'audit-2026-11-*.log.gz'              all files that match a pattern
  kubectl logs -n kube-system audit-relay | pullwatch scan
                                                       standard input
  pullwatch scan audit.log --format json | jq .rule    one JSON object per line
  pullwatch scan audit.log --since 2h --priority error last two hours, errors and above
  pullwatch scan audit.log --rules rules.d --rules mine.yaml
                                                       rules from several files
  pullwatch scan audit.log --fail-on warning -q        exit 1 if any alert of priority warning or higher fired

Exit status: 0 success, 1 an alert of the --fail-on priority or higher fired or no rule was left to evaluate,
2 error, unreadable input, or input in which no record is an audit event.")]
pub struct Scan {
    /// Files, directories or glob patterns to read, or - for standard input
    ///
    /// A directory is searched recursively for logs (*.log*, *.json, *.jsonl, *.ndjson; also .gz and .zst), except hidden
    /// ones. A rotated set is read oldest first, and each file once.
    #[arg(value_name = "PATH|DIR|GLOB|-")]
    paths: Vec<OsString>,

    /// Start from the state that `pullwatch run` has learned in this directory: credentials, readers and trust decisions
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// Output format of alerts
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    format: Format,

    /// Rule file or directory of rule files; repeatable, later definitions override earlier ones
    #[arg(short, long = "rules", value_name = "PATH")]
    rules: Vec<PathBuf>,

    /// Which matching rules make an alert: all, or only the first in load order
    #[arg(long, value_enum, default_value_t = RuleMatching::All, value_name = "WHICH")]
    rule_matching: RuleMatching,

    /// Minimum rule priority; lower-priority rules are disabled
    #[arg(short, long, value_name = "MIN", value_parser = priority, default_value = "debug")]
    priority: Priority,

    /// File that declares objects of the cluster, such as the output of kubectl get secrets -A; repeatable (see pullwatch inventory)
    #[arg(long, value_name = "PATH")]
    inventory: Vec<PathBuf>,

    #[command(flatten)]
    networks: NetworkArgs,

    /// Only events at or after this time: 2026-11-23T10:00:00Z, 2026-11-23, or an age such as 2h or 7d
    #[arg(long, value_name = "TIME", value_parser = bounds::parse)]
    since: Option<i64>,

    /// Only events before this time
    #[arg(long, value_name = "TIME", value_parser = bounds::parse)]
    until: Option<i64>,

    /// Number of threads; the output does not depend on it [default: number of cores]
    #[arg(short, long, value_name = "N")]
    threads: Option<usize>,

    /// Exit with status 1 if any alert has this priority or higher
    #[arg(long, value_name = "PRIORITY", value_parser = priority)]
    fail_on: Option<Priority>,

    /// Maximum event size in bytes (suffixes K, M, G); longer lines are evaluated by their first part
    #[arg(long, value_name = "BYTES", default_value = "64M", value_parser = size)]
    max_event_size: usize,

    #[command(flatten)]
    log: LogArgs,

    /// Do not print the summary
    #[arg(short, long, visible_alias = "no-summary")]
    quiet: bool,
}

/// Metadata of the logs to read.
#[derive(Clone, Debug, Args)]
pub struct LogArgs {
    /// Name of the cluster, for events whose wrapper does not name it
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,

    /// Wrapper that events must be in; records in another one are counted and not evaluated
    #[arg(long, value_name = "FORMAT", value_parser = input_format(), default_value = "auto")]
    input_format: envelope::Format,
}

impl LogArgs {
    /// The same settings for the detector.
    pub fn context(&self) -> LogContext {
        LogContext { cluster: self.cluster.clone(), format: self.input_format }
    }
}

fn input_format() -> impl clap::builder::TypedValueParser<Value = envelope::Format> {
    PossibleValuesParser::new(envelope::Format::ALL.map(|(name, _)| name))
        .map(|name| envelope::Format::named(&name).unwrap_or_default())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One human-readable line per alert: time, priority, rule, output
    Text,
    /// One JSON object per line
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RuleMatching {
    /// Only the first rule that matches
    First,
    /// Every rule that matches
    All,
}

pub(super) fn priority(word: &str) -> Result<Priority, String> {
    Priority::parse(word).ok_or_else(|| {
        let words: Vec<String> =
            Priority::ALL.iter().map(|priority| priority.name().to_ascii_lowercase()).collect();
        format!("unknown priority: expected one of {}", words.join(", "))
    })
}

/// Allowed values of `--max-event-size`, in bytes: no event is shorter, and offsets in an event have 32 bits.
const EVENT_SIZES: std::ops::RangeInclusive<usize> = 1024..=(u32::MAX as usize / 2);

pub(super) fn size(text: &str) -> Result<usize, String> {
    let size = size::parse(text).ok_or("invalid size: expected a number of bytes, such as 64M")?;
    usize::try_from(size)
        .ok()
        .filter(|size| EVENT_SIZES.contains(size))
        .ok_or_else(|| "size out of range: expected 1K to 2047M".to_owned())
}

impl Scan {
    fn log(&self) -> LogContext {
        self.log.context()
    }

    pub fn run(self) -> anyhow::Result<ExitCode> {
        let started = Instant::now();
        if let (Some(since), Some(until)) = (self.since, self.until) {
            anyhow::ensure!(since < until, "invalid time range: --since must be earlier than --until");
        }
        let matching = match self.rule_matching {
            RuleMatching::First => Matching::First,
            RuleMatching::All => Matching::All,
        };
        let names = if self.paths.is_empty() {
            anyhow::ensure!(
                !std::io::stdin().is_terminal(),
                "no input: name a file, a directory or a glob pattern, or pipe a log to standard input"
            );
            vec![OsString::from("-")]
        } else {
            self.paths.clone()
        };
        let loaded = rule_files::load(&self.rules, matching)?;
        let why_empty = loaded.why_empty();
        if let Some(skipped) = loaded.skipped().filter(|_| why_empty.is_none()) {
            rule_files::show(&format!("pullwatch: {skipped}; see `pullwatch rules check`\n"));
        }
        if let Some(reason) = &why_empty {
            rule_files::show(&format!(
                "pullwatch: no rule to evaluate: {reason}; see `pullwatch rules check`\n"
            ));
        }
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
            networks: self.networks.networks()?,
            inventory: inventory::load(&self.inventory)?,
            ..Options::default()
        };
        let detector = learned::start(Detector::new(&loaded.rules, options), self.state_dir.as_deref())?;

        let mut failures: Vec<String> = errors.iter().map(ToString::to_string).collect();
        for failure in &failures {
            report_failure(failure);
        }
        let report = worker::run(&self, &detector, &inputs)?;
        failures.extend(report.failures.iter().cloned());
        if report.pipe_closed {
            // The reader has seen enough, as with `head`, so do not print the summary either.
            return Ok(ExitCode::SUCCESS);
        }
        let result = summary::ScanResult {
            tally: &report.tally,
            failures: &failures,
            empty: &report.empty,
            files: inputs.iter().filter(|input| matches!(input, Input::File(_))).count(),
            elapsed: started.elapsed(),
            rule_names: detector.rule_names(),
        };
        if !self.quiet {
            summary::print(&result);
        }
        let counts = &report.tally.counts;
        if counts.is_without_events() {
            // A scan that evaluated nothing looks like one that found nothing.
            report_failure(&counts.describe_non_events());
        }
        let fired =
            self.fail_on.is_some_and(|limit| report.tally.highest().is_some_and(|highest| highest <= limit));
        Ok(match (failures.is_empty() && !counts.is_without_events(), fired || why_empty.is_some()) {
            (false, _) => ExitCode::from(2),
            (true, true) => ExitCode::from(1),
            (true, false) => ExitCode::SUCCESS,
        })
    }
}

/// Reports an unreadable input on standard error at once; the summary repeats it.
pub(super) fn report_failure(failure: &str) {
    rule_files::show(&format!("pullwatch: {}\n", super::visible(failure)));
}
