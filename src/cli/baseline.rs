//! `pullwatch baseline`: past reads that recur, as exceptions.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::replay::Past;
use super::rule_files::{self, plural, show};
use crate::daemon::store::Reader;
use crate::daemon::time::unix_nanos;
use crate::detection::history::{
    Baseline as ReadCounts, Criteria, Header, RecurringReads, Times, write_exceptions,
};
use crate::detection::rules::ast::RuleSet;
use crate::detection::rules::{self, Matching, Severity, SourceFile};
use crate::detection::state::kind;

/// A log that spans so many nanoseconds shows habits of more than one day.
const THREE_DAYS: i64 = 3 * 86_400_000_000_000;

/// Propose exceptions for reads that recur, from past logs
///
/// Reads audit logs and writes a rule file: exceptions for who reads which registry credential again and again, each with
/// how often, when and from where, for a person to review and commit. Loaded behind the same rules it silences exactly
/// those reads.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pullwatch baseline /var/log/kubernetes/audit/ --output baseline.yaml
                                               what recurs in all logs of a directory
  pullwatch baseline 'audit-2026-11-*.log.gz' --min-count 10 --min-days 5
                                               only what was read often and on many days
  pullwatch baseline --state-dir /var/lib/pullwatch
                                               what recurred while `pullwatch run` was at work
  pullwatch scan --rules rules.d --rules baseline.yaml audit.log
                                               then: what is left
  pullwatch baseline --rules rules.d --rules baseline.yaml audit.log
                                               what the exceptions so far leave out

What is never proposed, and why, stands at the head of the file.

Exit status: 0 done, 2 an error, or an input that could not be read.")]
pub struct Baseline {
    #[command(flatten)]
    past: Past,

    /// Propose from what `pullwatch run` has seen, by the store in this directory, rather than from logs.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["paths", "since", "until", "max_event_size"])]
    state_dir: Option<PathBuf>,

    /// Propose what was read at least so often.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    min_count: u64,

    /// Propose what was read on at least so many different days (UTC). [default: 2; 1 for logs of less than three days]
    #[arg(long, value_name = "D", value_parser = clap::value_parser!(u16).range(1..=366))]
    min_days: Option<u16>,
}

impl Baseline {
    /// Reads, counts, writes.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let files = self.past.files()?;
        let Seen { rules, habits, times, what, is_whole } = match &self.state_dir {
            Some(dir) => Self::remembered(dir, &files)?,
            None => self.logged(&files)?,
        };
        let span = match (times.first, times.last) {
            (Some(first), Some(last)) => last.saturating_sub(first),
            _ => 0,
        };
        let min_days = self.min_days.map_or(if span < THREE_DAYS { 1 } else { 2 }, usize::from);
        let criteria = Criteria { min_count: self.min_count, min_days };
        let proposals = habits.proposals(criteria);
        let text = write_exceptions(
            &proposals,
            &rules,
            &Header {
                log: times,
                what: if self.state_dir.is_some() { "reads that rules reported" } else { "events" },
                criteria,
            },
        );
        check(files, &text)?;
        self.past.write(&text)?;
        let rows: usize = proposals.rules.values().map(std::collections::BTreeMap::len).sum();
        let count = usize::try_from(times.count).unwrap_or(usize::MAX);
        show(&format!("{} from {}\n", plural(rows, "exception"), plural(count, what)));
        Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::from(2) })
    }

    /// What logs say.
    fn logged(&self, files: &[SourceFile]) -> anyhow::Result<Seen> {
        let mut habits = ReadCounts::default();
        let (rules, facts) = self.past.read(files.to_vec(), &mut |read| habits.add(read))?;
        Ok(Seen { rules, habits, times: facts.times, what: "event", is_whole: facts.failures.is_empty() })
    }

    /// What a daemon has seen.
    fn remembered(dir: &Path, files: &[SourceFile]) -> anyhow::Result<Seen> {
        let rules = rule_files::load_files(files, Matching::All)?.rules;
        let mut kept = RecurringReads::new(&rules);
        let now = unix_nanos();
        for (key, value) in Reader::open(dir)?.state(kind::RECURRING_READ)? {
            kept.restore(&key, &value, now);
        }
        let habits = kept.into_baseline();
        let times = habits.times();
        Ok(Seen { rules, habits, times, what: "read", is_whole: true })
    }
}

/// What was seen of past reads.
struct Seen {
    rules: RuleSet,
    habits: ReadCounts,
    times: Times,
    /// What is counted.
    what: &'static str,
    is_whole: bool,
}

/// A file that does not load must not be handed on: names in it come from events.
fn check(mut files: Vec<SourceFile>, text: &str) -> anyhow::Result<()> {
    files.push(SourceFile { name: "baseline".into(), text: text.to_owned() });
    let loaded = rules::load(&files, &rules::Options::default());
    if loaded.has_errors() {
        let wrong: Vec<_> = loaded
            .diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.severity == Severity::Error)
            .cloned()
            .collect();
        show(&rules::render(&wrong, &files, true));
        anyhow::bail!(
            "the exceptions do not load behind the rules; nothing was written. Please report this as a bug"
        );
    }
    Ok(())
}
