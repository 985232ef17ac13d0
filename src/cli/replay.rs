//! Reads past logs once, in order, for the commands that summarize them: `report` and `baseline`.

use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use anyhow::Context as _;
use clap::Args;

use super::scan::reading::read_all;
use super::scan::screen::Screen;
use super::scan::{LogArgs, bounds, report_failure, size};
use super::{learned, rule_files};
use crate::cli::networks::NetworkArgs;
use crate::daemon::inventory;
use crate::daemon::source::chunker::{Buffer, Chunk};
use crate::daemon::source::discover;
use crate::daemon::source::input::Input;
use crate::detection::audit::event::Event;
use crate::detection::detector::{Detector, Options, Stats};
use crate::detection::engine::alert::Alert;
use crate::detection::history::{Collector, CredentialRead, Times, around};
use crate::detection::rules::ast::RuleSet;
use crate::detection::rules::{Matching, SourceFile};

/// Logs to read, and the rules to evaluate.
#[derive(Debug, Args)]
pub struct LogInput {
    /// Files, directories or glob patterns to read, or - for standard input, as for `scan`
    #[arg(value_name = "PATH|DIR|GLOB|-")]
    paths: Vec<OsString>,

    /// Rule file or directory of rule files; repeatable, later definitions override earlier ones
    #[arg(short, long = "rules", value_name = "PATH")]
    pub rules: Vec<PathBuf>,

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

    /// Maximum event size in bytes (suffixes K, M, G); longer lines are evaluated by their first part
    #[arg(long, value_name = "BYTES", default_value = "64M", value_parser = size)]
    max_event_size: usize,

    #[command(flatten)]
    log: LogArgs,

    /// The initial state; set by commands that support it.
    #[arg(skip)]
    pub learned: Option<PathBuf>,

    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Information on the logs that were read, apart from alerts.
#[derive(Debug, Default)]
pub struct LogFacts {
    /// Names of the files, in reading order.
    pub inputs: Vec<String>,
    /// Uncompressed bytes.
    pub bytes: u64,
    pub counts: Stats,
    /// Time range of the events, with the precision of a buffer: only its first and last event are examined for it.
    pub times: Times,
    /// Inputs that could not be read completely, each with the reason.
    pub failures: Vec<String>,
    /// Names of empty inputs.
    pub empty: Vec<String>,
}

impl LogFacts {
    /// Whether all inputs were read, and audit events found in them.
    pub fn is_complete(&self) -> bool {
        self.failures.is_empty() && !self.counts.is_without_events()
    }
}

impl LogInput {
    /// Whether any log is named.
    pub fn has_paths(&self) -> bool {
        !self.paths.is_empty()
    }

    pub fn rule_files(&self) -> anyhow::Result<Vec<SourceFile>> {
        rule_files::read(&self.rules)
    }

    /// Reads all inputs; passes each event that exposes or concerns a credential to `take`.
    pub fn read(
        &self,
        files: Vec<SourceFile>,
        take: &mut dyn FnMut(&CredentialRead<'_>),
    ) -> anyhow::Result<(RuleSet, LogFacts)> {
        self.check_time_range()?;
        let names = if self.paths.is_empty() {
            anyhow::ensure!(
                !std::io::stdin().is_terminal(),
                "no input: name a file, a directory or a glob pattern, or pipe a log to standard input"
            );
            vec![OsString::from("-")]
        } else {
            self.paths.clone()
        };
        rule_files::ensure_not_empty(&rule_files::load_files(&files, Matching::All)?)?;
        let mut rules = rule_files::load_files(&around(files), Matching::All)?.rules;
        let mut collector = Collector::new(&mut rules);
        let options = Options {
            since: self.since,
            until: self.until,
            max_event_size: self.max_event_size,
            networks: self.networks.networks()?,
            inventory: inventory::load(&self.inventory)?,
            ..Options::default()
        };
        let detector = learned::start(Detector::new(&rules, options), self.learned.as_deref())?;
        let (inputs, errors) = discover::inputs(&names);
        let mut facts = LogFacts {
            inputs: inputs.iter().map(Input::name).collect(),
            failures: errors.iter().map(ToString::to_string).collect(),
            ..LogFacts::default()
        };
        for failure in &facts.failures {
            report_failure(failure);
        }
        let mut session = detector.session();
        session.set_log(&Arc::new(self.log.context()));
        let read = Arc::new(AtomicU64::new(0));
        let mut screen = Screen::new(&inputs, read.clone());
        let reading = read_all(self.max_event_size, &inputs, &read, Buffer::default(), |part, buffer| {
            session.begin_input(part.input, part.received, part.columns.as_ref());
            for time in edges(buffer.bytes()) {
                facts.times.widen(Some(time).filter(|&time| self.is_in_range(time)));
            }
            let mut on_alert = |alert: &Alert<'_>| collector.add_alert(alert, take);
            match part.kind {
                Chunk::Records => session.chunk(buffer.bytes(), &mut on_alert),
                Chunk::Head => session.head(buffer.bytes(), &mut on_alert),
            }
            facts.counts.add(&session.take_stats());
            screen.progress();
            Some(buffer)
        });
        screen.bar.finish_and_clear();
        session.finish(&mut |alert| collector.add_alert(alert, take));
        facts.counts.add(&session.take_stats());
        if facts.counts.is_without_events() {
            report_failure(&facts.counts.describe_non_events());
        }
        facts.times.count = facts.counts.events;
        facts.bytes = reading.bytes;
        facts.failures.extend(reading.failures);
        facts.empty.extend(reading.empty);
        Ok((rules, facts))
    }

    pub fn check_time_range(&self) -> anyhow::Result<()> {
        if let (Some(since), Some(until)) = (self.since, self.until) {
            anyhow::ensure!(since < until, "invalid time range: --since must be earlier than --until");
        }
        Ok(())
    }

    pub fn is_in_range(&self, time: i64) -> bool {
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time < until)
    }

    /// Writes the result to the output file or to standard output.
    pub fn write(&self, text: &str) -> anyhow::Result<()> {
        match &self.output {
            Some(path) if path.as_path() != Path::new("-") => {
                std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
            }
            _ => {
                let mut out = std::io::stdout().lock();
                out.write_all(text.as_bytes())?;
                Ok(out.flush()?)
            }
        }
    }
}

/// Returns the times of the first and the last event of a buffer that starts and ends at record boundaries.
fn edges(bytes: &[u8]) -> impl Iterator<Item = i64> {
    let last = memchr::memmem::rfind(bytes, b"\n{").map_or(0, |at| at + 1);
    [0, last].into_iter().filter_map(|start| Event::new(&bytes[start..]).time())
}
