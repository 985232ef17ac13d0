//! `pullwatch policy`: checks which rules an audit policy makes blind.

mod check;
mod findings;
mod json;
mod report;
pub(super) mod wording;

use std::process::ExitCode;

use clap::Subcommand;

/// Check an audit policy against rules, or generate one
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  pullwatch policy check audit-policy.yaml     find blind rules and logged credentials
  pullwatch policy check --recommend           generate a policy for the loaded rules")]
pub enum Policy {
    Check(check::Check),
}

impl Policy {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Policy::Check(check) => check.run(),
        }
    }
}
