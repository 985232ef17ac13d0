//! Reading past logs once, in order, for the commands that say something of all of them.

use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use anyhow::Context as _;
use clap::Args;

use super::rule_files;
use super::scan::{bounds, complain, size, worker};
use crate::daemon::source::chunker::{Buffer, Chunk};
use crate::daemon::source::discover;
use crate::daemon::source::input::Input;
use crate::detection::audit::event::Event;
use crate::detection::detector::{Detector, Options, Stats};
use crate::detection::engine::alert::Alert;
use crate::detection::history::{Collector, Read, Times, around};
use crate::detection::rules::ast::RuleSet;
use crate::detection::rules::{Matching, SourceFile};

/// What to read and by which rules.
#[derive(Debug, Args)]
pub struct Past {
    /// What to read: files, directories, patterns, or - for standard input, as for `scan`.
    #[arg(value_name = "PATH|DIR|GLOB|-")]
    paths: Vec<OsString>,

    /// A rule file, or a directory of them. May be given several times; later definitions replace earlier ones.
    #[arg(short, long = "rules", value_name = "PATH")]
    pub rules: Vec<PathBuf>,

    /// Only events from this time on: 2026-11-23T10:00:00Z, 2026-11-23, or 2h, 7d (ago).
    #[arg(long, value_name = "TIME", value_parser = bounds::parse)]
    since: Option<i64>,

    /// Only events before this time.
    #[arg(long, value_name = "TIME", value_parser = bounds::parse)]
    until: Option<i64>,

    /// The longest line that is read whole, in bytes (suffixes K, M, G). Of a longer one the head is judged.
    #[arg(long, value_name = "BYTES", default_value = "64M", value_parser = size)]
    max_event_size: usize,

    /// Write to this file rather than to standard output.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// What was read.
#[derive(Debug, Default)]
pub struct Facts {
    /// The names of the files, in the order of reading.
    pub inputs: Vec<String>,
    /// Uncompressed.
    pub bytes: u64,
    /// Events and what is wrong with them.
    pub counts: Stats,
    /// When the events were, to within a buffer: its first and its last event are looked at.
    pub times: Times,
    /// Inputs that were not read, or not to their end, and why.
    pub failures: Vec<String>,
    /// Inputs with nothing in them.
    pub empty: Vec<String>,
}

impl Past {
    /// The user's rule files.
    pub fn files(&self) -> anyhow::Result<Vec<SourceFile>> {
        rule_files::read(&self.rules)
    }

    /// Reads everything; each event about credentials goes to `take`.
    pub fn read(
        &self,
        files: Vec<SourceFile>,
        take: &mut dyn FnMut(&Read<'_>),
    ) -> anyhow::Result<(RuleSet, Facts)> {
        if let (Some(since), Some(until)) = (self.since, self.until) {
            anyhow::ensure!(since < until, "no time is left: --since is not before --until");
        }
        let names = if self.paths.is_empty() {
            anyhow::ensure!(
                !std::io::stdin().is_terminal(),
                "nothing to read: name a file, a directory or a pattern, or pipe a log to standard input"
            );
            vec![OsString::from("-")]
        } else {
            self.paths.clone()
        };
        let mut rules = rule_files::load_files(&around(files), Matching::All)?.rules;
        let mut collector = Collector::new(&mut rules);
        let options = Options {
            since: self.since,
            until: self.until,
            max_event_size: self.max_event_size,
            ..Options::default()
        };
        let detector = Detector::new(&rules, options);
        let (inputs, errors) = discover::inputs(&names);
        let mut facts = Facts {
            inputs: inputs.iter().map(Input::name).collect(),
            failures: errors.iter().map(ToString::to_string).collect(),
            ..Facts::default()
        };
        for failure in &facts.failures {
            complain(failure);
        }
        let mut session = detector.session();
        let read = Arc::new(AtomicU64::new(0));
        let mut screen = worker::Screen::new(&inputs, read.clone());
        let reading =
            worker::read_all(self.max_event_size, &inputs, &read, Buffer::default(), |kind, buffer| {
                for time in edges(buffer.bytes()) {
                    facts.times.widen(Some(time).filter(|&time| self.is_in_range(time)));
                }
                let mut on_alert = |alert: &Alert<'_>| collector.add_alert(alert, take);
                match kind {
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
        facts.times.count = facts.counts.events;
        facts.bytes = reading.bytes;
        facts.failures.extend(reading.failures);
        facts.empty.extend(reading.empty);
        Ok((rules, facts))
    }

    fn is_in_range(&self, time: i64) -> bool {
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time < until)
    }

    /// Writes what came of it where the user wants it.
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

/// The times of the first and the last event of a buffer that starts and ends at record boundaries.
fn edges(bytes: &[u8]) -> impl Iterator<Item = i64> {
    let last = memchr::memmem::rfind(bytes, b"\n{").map_or(0, |at| at + 1);
    [0, last].into_iter().filter_map(|start| Event::new(&bytes[start..]).time())
}
