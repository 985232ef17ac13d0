//! `pullwatch rules`: loads, lists, explains and tests rules.

mod check;
mod events;
mod explain;
mod export;
mod fields;
mod list;
mod test;

use std::process::ExitCode;

use clap::Subcommand;

use super::table::{print, table};

/// Check, list, explain and test rules
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  pullwatch rules check my-rules.yaml          check rules for errors and warnings
  pullwatch rules list                         list the built-in rules
  pullwatch rules fields ka.req.pod            list fields by name
  pullwatch rules explain --rule 'Secrets Listed' event.json
                                               show why a rule matches an event or not
  pullwatch rules test my-tests.yaml           run unit tests for rules
  pullwatch rules export rules.d               write the built-in rules to a directory")]
pub enum Rules {
    Check(check::Check),
    List(list::List),
    Fields(fields::Fields),
    Explain(explain::Explain),
    Test(test::Test),
    Export(export::Export),
}

impl Rules {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Rules::Check(check) => check.run(),
            Rules::List(list) => list.run(),
            Rules::Fields(fields) => fields.run(),
            Rules::Explain(explain) => explain.run(),
            Rules::Test(test) => test.run(),
            Rules::Export(export) => export.run(),
        }
    }
}
