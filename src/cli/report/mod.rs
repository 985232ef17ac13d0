//! `pullwatch report`: reports reads of registry credentials and the registries to rotate.

mod html;
mod json;
mod sections;
mod table;

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::replay::{LogFacts, LogInput};
use crate::detection::history::{self, Ledger};
use crate::detection::rules::ast::RuleSet;

/// Report who read which registry credential, and which registries to rotate
///
/// Reads audit logs and reports which credentials were exposed to whom, how often, from where and with which certainty;
/// which registries need a rotation; and what the logs cannot show. Expected readers, which no rule reports, are listed
/// separately.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pullwatch report /var/log/kubernetes/audit/          all audit logs of a directory
  pullwatch report audit.log --since 7d                last seven days
  pullwatch report 'audit-*.log.gz' --format html --output report.html
                                                       a self-contained HTML page
  pullwatch report audit.log --format json | jq '.registries[].host'
                                                       registries to rotate

Exposure:
  payload    the log shows that the response contained the credential
  presumed   the response may have contained the credential, but is not in the log
  metadata   names only

Exit status: 0 success, 2 error, unreadable input, or input in which no record is an audit event.")]
pub struct Report {
    #[command(flatten)]
    input: LogInput,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Tables for a terminal
    Table,
    /// One JSON object
    Json,
    /// A self-contained HTML page for a browser or printer
    Html,
}

/// The content of the report in every format.
struct Page {
    report: history::Report,
    facts: LogFacts,
    rules: RuleSet,
}

impl Page {
    fn rule_names(&self, rules: &std::collections::BTreeSet<usize>) -> Vec<&str> {
        rules.iter().filter_map(|&rule| self.rules.rules.get(rule)).map(|rule| &*rule.name).collect()
    }
}

impl Report {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let mut ledger = Ledger::default();
        let (rules, mut facts) = self.input.read(self.input.rule_files()?, &mut |read| ledger.add(read))?;
        facts.times.widen(ledger.times().first);
        facts.times.widen(ledger.times().last);
        let page = Page { report: ledger.report(), facts, rules };
        let text = match self.format {
            Format::Table => table::write(&page),
            Format::Json => json::write(&page)?,
            Format::Html => html::write(&page),
        };
        self.input.write(&text)?;
        Ok(if page.facts.is_complete() { ExitCode::SUCCESS } else { ExitCode::from(2) })
    }
}
