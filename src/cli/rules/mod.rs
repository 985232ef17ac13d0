//! `pullwatch rules`: load, list, explain and test rules.

mod check;
mod events;
mod explain;
mod fields;
mod list;
mod test;

use std::process::ExitCode;

use clap::Subcommand;

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

/// A table as commands print them: no lines, a head, columns side by side.
fn table(head: &[&str]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(head.iter().copied());
    table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    table
}

/// Prints a table to standard output, without blanks at the ends of lines.
fn print(table: &comfy_table::Table) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut out = anstream::stdout().lock();
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}
