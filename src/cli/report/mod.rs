//! `pullwatch report`: who read which credential, and what to rotate.

mod html;
mod json;
mod sections;
mod table;

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::replay::{Facts, Past};
use crate::detection::history::{self, Ledger};
use crate::detection::rules::ast::RuleSet;

/// Report who read which registry credential, and which registries to rotate
///
/// Reads audit logs and says what was handed over to whom, how often, from where, and how surely; which registries to
/// rotate; what the log cannot say. Readers whom the rules leave alone stand apart.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pullwatch report /var/log/kubernetes/audit/          all audit logs of a directory
  pullwatch report audit.log --since 7d                the last seven days
  pullwatch report 'audit-*.log.gz' --format html --output report.html
                                                       one page to read, print or send
  pullwatch report audit.log --format json | jq '.registries[].host'
                                                       which registries to rotate

Exposure:
  payload    the log shows that the answer carried the credential
  presumed   it may have, and the log does not show the answer
  metadata   only names

Exit status: 0 done, 2 an error, or an input that could not be read.")]
pub struct Report {
    #[command(flatten)]
    past: Past,

    /// How to write it.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// How to write the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For a terminal.
    Table,
    /// For programs.
    Json,
    /// For a browser or a printer: one page that needs nothing else.
    Html,
}

/// Everything that is written.
struct Page {
    report: history::Report,
    facts: Facts,
    rules: RuleSet,
}

impl Page {
    /// The names of rules.
    fn rule_names(&self, rules: &std::collections::BTreeSet<usize>) -> Vec<&str> {
        rules.iter().filter_map(|&rule| self.rules.rules.get(rule)).map(|rule| &*rule.name).collect()
    }
}

impl Report {
    /// Reads, collects, writes.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let mut ledger = Ledger::default();
        let (rules, mut facts) = self.past.read(self.past.files()?, &mut |read| ledger.add(read))?;
        facts.times.widen(ledger.times().first);
        facts.times.widen(ledger.times().last);
        let page = Page { report: ledger.report(), facts, rules };
        let text = match self.format {
            Format::Table => table::write(&page),
            Format::Json => json::write(&page)?,
            Format::Html => html::write(&page),
        };
        self.past.write(&text)?;
        Ok(if page.facts.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(2) })
    }
}
