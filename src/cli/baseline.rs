//! `pullwatch baseline`: proposes exceptions for recurring reads.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::replay::LogInput;
use super::rule_files::{self, plural, show};
use crate::daemon::store::StoreReader;
use crate::daemon::time::unix_nanos;
use crate::detection::history::{
    Baseline as ReadCounts, Criteria, Header, RecurringReads, Times, write_exceptions,
};
use crate::detection::rules::ast::RuleSet;
use crate::detection::rules::{self, Matching, Severity, SourceFile};
use crate::detection::state::kind;

/// Minimum time range of a log, in nanoseconds, to show a read recurring on several days.
const THREE_DAYS: i64 = 3 * 86_400_000_000_000;

/// Propose exceptions for recurring reads in past logs
///
/// Reads audit logs and writes a rule file with exceptions for identities that read a registry credential repeatedly, each
/// annotated with how often, when and from where. Review the file and load it after the same rules: it suppresses exactly
/// those reads.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pullwatch baseline /var/log/kubernetes/audit/ --output baseline.yaml
                                               exceptions from all logs of a directory
  pullwatch baseline 'audit-2026-11-*.log.gz' --min-count 10 --min-days 5
                                               only frequent reads on many days
  pullwatch baseline --state-dir /var/lib/pullwatch
                                               exceptions from what `pullwatch run` has observed
  pullwatch scan --rules rules.d --rules baseline.yaml audit.log
                                               scan with the exceptions in place
  pullwatch baseline --rules rules.d --rules baseline.yaml audit.log
                                               what the existing exceptions do not cover

The header of the file lists what is never proposed, and why.

Exit status: 0 success, 2 error, unreadable input, or input in which no record is an audit event.")]
pub struct Baseline {
    #[command(flatten)]
    input: LogInput,

    /// Use the reads that `pullwatch run` recorded in this state directory instead of logs
    #[arg(long, value_name = "DIR", conflicts_with_all = ["paths", "since", "until", "max_event_size"])]
    state_dir: Option<PathBuf>,

    /// Minimum number of reads
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    min_count: u64,

    /// Minimum number of distinct days (UTC) with a read [default: 2; 1 for logs of less than three days]
    #[arg(long, value_name = "D", value_parser = clap::value_parser!(u16).range(1..=366))]
    min_days: Option<u16>,
}

impl Baseline {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let files = self.input.rule_files()?;
        let CollectedReads { rules, habits, times, unit, is_complete } = match &self.state_dir {
            Some(dir) => Self::read_store(dir, &files)?,
            None => self.read_logs(&files)?,
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
        self.input.write(&text)?;
        let rows: usize = proposals.rules.values().map(std::collections::BTreeMap::len).sum();
        let count = usize::try_from(times.count).unwrap_or(usize::MAX);
        show(&format!("{} from {}\n", plural(rows, "exception"), plural(count, unit)));
        Ok(if is_complete { ExitCode::SUCCESS } else { ExitCode::from(2) })
    }

    fn read_logs(&self, files: &[SourceFile]) -> anyhow::Result<CollectedReads> {
        let mut habits = ReadCounts::default();
        let (rules, facts) = self.input.read(files.to_vec(), &mut |read| habits.add(read))?;
        let is_complete = facts.is_complete();
        Ok(CollectedReads { rules, habits, times: facts.times, unit: "event", is_complete })
    }

    fn read_store(dir: &Path, files: &[SourceFile]) -> anyhow::Result<CollectedReads> {
        let rules = rule_files::load_files(files, Matching::All)?.rules;
        let mut kept = RecurringReads::new(&rules);
        let now = unix_nanos();
        for (key, value) in StoreReader::open(dir)?.state(kind::RECURRING_READ)? {
            kept.restore(&key, &value, now);
        }
        let habits = kept.into_baseline();
        let times = habits.times();
        Ok(CollectedReads { rules, habits, times, unit: "read", is_complete: true })
    }
}

/// Past reads, and the rules that they were evaluated with.
struct CollectedReads {
    rules: RuleSet,
    habits: ReadCounts,
    times: Times,
    /// Noun for what `times` counts.
    unit: &'static str,
    /// Whether all inputs were read completely.
    is_complete: bool,
}

/// Loads the proposed exceptions after the rules. A file that does not load must not be written, and names in it come from events.
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
            "the proposed exceptions do not load; nothing was written. Please report this as a bug"
        );
    }
    Ok(())
}
