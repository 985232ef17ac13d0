//! `pullwatch rules`: load, list, explain and test rules.

mod check;
mod events;
mod explain;
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
  pullwatch rules check my-rules.yaml          whether they load, and what is odd about them
  pullwatch rules list                         what the shipped rules look for
  pullwatch rules fields ka.req.pod            the fields that rules can use
  pullwatch rules explain --rule 'Secrets Listed' event.json
                                               why a rule fires on an event, or does not
  pullwatch rules test my-tests.yaml           whether rules fire where they should")]
pub enum Rules {
    Check(check::Check),
    List(list::List),
    Fields(fields::Fields),
    Explain(explain::Explain),
    Test(test::Test),
}

impl Rules {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Rules::Check(check) => check.run(),
            Rules::List(list) => list.run(),
            Rules::Fields(fields) => fields.run(),
            Rules::Explain(explain) => explain.run(),
            Rules::Test(test) => test.run(),
        }
    }
}
