//! `pullwatch config`: checks the configuration file of `pullwatch run`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::rule_files::{plural, show};
use crate::daemon::config::{self, Config};
use crate::detection::rules::{self, Severity, SourceFile};

/// Check the configuration file of `run`
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  pullwatch config check pullwatch.yaml        validate a configuration file")]
pub enum Configuration {
    Check(Check),
}

/// Validate a configuration file and show errors with their position
///
/// Unknown keys are errors, with a suggestion. Rule files are not loaded; use `pullwatch rules check` for them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pullwatch config check pullwatch.yaml
  pullwatch config check samples/pullwatch.yaml     the sample, which documents every key

Exit status: 0 valid, 1 invalid, 2 the file could not be read.")]
pub struct Check {
    /// Configuration file
    path: PathBuf,
}

impl Configuration {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Configuration::Check(check) => check.run(),
        }
    }
}

impl Check {
    fn run(self) -> anyhow::Result<ExitCode> {
        let (config, errors) = read(&self.path)?;
        let mut out = std::io::stdout().lock();
        match config {
            Some(config) => writeln!(
                out,
                "{}, {}: no errors",
                plural(config.sources.len(), "source"),
                plural(config.sinks.len(), "sink")
            )?,
            None => writeln!(out, "{}", plural(errors, "error"))?,
        }
        Ok(ExitCode::from(u8::from(errors > 0)))
    }
}

/// Reads a configuration file and prints its diagnostics. Returns the configuration, if it is valid, and the number of errors.
pub fn read(path: &std::path::Path) -> anyhow::Result<(Option<Config>, usize)> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
    let file = SourceFile { name: name.into(), text };
    let read = config::read(&file, &|name| std::env::var(name).ok());
    show(&rules::render(&read.diagnostics, std::slice::from_ref(&file), true));
    let errors = read.diagnostics.iter().filter(|one| one.severity == Severity::Error).count();
    Ok((read.config, errors))
}
