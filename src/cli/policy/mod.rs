//! `pullwatch policy`: what the apiserver's audit policy lets rules see.

mod check;
mod json;
mod report;
mod wording;

use std::process::ExitCode;

use clap::Subcommand;

/// Check the apiserver's audit policy against rules, or have one written
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  pullwatch policy check audit-policy.yaml     which rules it leaves blind, and what it writes to disk
  pullwatch policy check --recommend           a policy that serves the loaded rules")]
pub enum Policy {
    Check(check::Check),
}

impl Policy {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Policy::Check(check) => check.run(),
        }
    }
}
