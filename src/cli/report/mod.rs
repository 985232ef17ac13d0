//! `pullwatch report`: reports reads of registry credentials and the registries to rotate.

mod csv;
mod html;
mod json;
mod sections;
mod stored;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::replay::{LogFacts, LogInput};
use crate::detection::history::{self, Ledger, Times};

/// Report who read which registry credential, and which registries to rotate
///
/// Reads audit logs and reports which credentials were exposed to whom, how often, from where and with which certainty;
/// which registries need a rotation, and how; and what the logs cannot show. Expected readers, which no rule reports, are
/// listed separately. With --state-dir it reads the alerts that `run` stored instead of a log.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pullwatch report /var/log/kubernetes/audit/          all audit logs of a directory
  pullwatch report audit.log --since 7d                last seven days
  pullwatch report 'audit-*.log.gz' --format html --output report.html
                                                       a self-contained HTML page
  pullwatch report --state-dir /var/lib/pullwatch --since 24h
                                                       what `run` stored, also from a webhook or Kafka
  pullwatch report audit.log --format csv --output report.csv
                                                       one row per reader and credential
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

    /// Without a log: report on the alerts that `run` stored in this directory. With one: start from what `run` has learned there
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,

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
    /// One row per reader and credential, for a spreadsheet
    Csv,
}

/// The input of a report.
enum ReportSource {
    Log(Box<LogFacts>),
    /// The alerts that `run` stored.
    Store {
        alerts: u64,
        times: Times,
    },
}

/// The content of the report in every format.
struct Page {
    report: history::Report,
    origin: ReportSource,
    /// Names of the rules, by index.
    rules: Vec<String>,
}

impl Page {
    fn rule_names(&self, rules: &std::collections::BTreeSet<usize>) -> Vec<&str> {
        rules.iter().filter_map(|&rule| self.rules.get(rule)).map(String::as_str).collect()
    }
}

impl Report {
    pub fn run(mut self) -> anyhow::Result<ExitCode> {
        let page = match &self.state_dir {
            Some(dir) if !self.input.has_paths() => stored::read(dir, &self.input)?,
            dir => {
                self.input.learned.clone_from(dir);
                self.read_log()?
            }
        };
        let text = match self.format {
            Format::Table => table::write(&page),
            Format::Json => json::write(&page)?,
            Format::Html => html::write(&page),
            Format::Csv => csv::write(&page),
        };
        self.input.write(&text)?;
        let is_incomplete = matches!(&page.origin, ReportSource::Log(facts) if !facts.is_complete());
        Ok(if is_incomplete { ExitCode::from(2) } else { ExitCode::SUCCESS })
    }

    fn read_log(&self) -> anyhow::Result<Page> {
        let mut ledger = Ledger::default();
        let (rules, mut facts) = self.input.read(self.input.rule_files()?, &mut |read| ledger.add(read))?;
        facts.times.widen(ledger.times().first);
        facts.times.widen(ledger.times().last);
        let rules = rules.rules.iter().map(|rule| rule.name.to_string()).collect();
        Ok(Page { report: ledger.report(), origin: ReportSource::Log(Box::new(facts)), rules })
    }
}
