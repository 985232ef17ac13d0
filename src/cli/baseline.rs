//! `pullwatch baseline`: past reads that recur, as exceptions.

use std::process::ExitCode;

use clap::Args;

use super::past::Past;
use super::rulefiles::{plural, show};
use crate::history::{Baseline as Habits, Criteria, Header, write_exceptions};
use crate::rules::{self, Severity, SourceFile};

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
  pullwatch scan --rules rules.d --rules baseline.yaml audit.log
                                               then: what is left
  pullwatch baseline --rules rules.d --rules baseline.yaml audit.log
                                               what the exceptions so far leave out

What is never proposed, and why, stands at the head of the file.

Exit status: 0 done, 2 an error, or an input that could not be read.")]
pub struct Baseline {
    #[command(flatten)]
    past: Past,

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
        let mut habits = Habits::default();
        let (rules, facts) = self.past.read(files.clone(), &mut |read| habits.add(read))?;
        let span = match (facts.times.first, facts.times.last) {
            (Some(first), Some(last)) => last.saturating_sub(first),
            _ => 0,
        };
        let min_days = self.min_days.map_or(if span < THREE_DAYS { 1 } else { 2 }, usize::from);
        let criteria = Criteria { min_count: self.min_count, min_days };
        let proposals = habits.proposals(criteria);
        let text = write_exceptions(&proposals, &rules, &Header { log: facts.times, criteria });
        check(files, &text)?;
        self.past.write(&text)?;
        let rows: usize = proposals.rules.values().map(std::collections::BTreeMap::len).sum();
        let events = usize::try_from(facts.counts.events).unwrap_or(usize::MAX);
        show(&format!("{} from {}\n", plural(rows, "exception"), plural(events, "event")));
        Ok(if facts.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(2) })
    }
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
