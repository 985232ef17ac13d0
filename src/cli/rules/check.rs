//! `pullwatch rules check`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::super::rule_files::{self, plural};
use crate::detection::rules::{self, Matching, Severity};

/// Check rule files and show errors and warnings with their position
///
/// Errors of all files are shown at once, then warnings: unused macros and lists, comparisons that are never true, regular
/// expressions that a simpler operator can replace, unknown keys.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pullwatch rules check                        check ./rules.d, or the built-in rules without it
  pullwatch rules check rules.d mine.yaml      several files and directories, loaded in this order
  pullwatch rules check mine.yaml --strict     treat warnings as errors, for CI

Exit status: 0 no errors, 1 errors (with --strict also warnings), 2 a file could not be read.")]
pub struct Check {
    /// Rule files or directories of rule files
    paths: Vec<PathBuf>,

    /// Treat warnings as errors
    #[arg(long)]
    strict: bool,

    /// Also warn about rules that can never fire with --rule-matching first
    #[arg(long)]
    first: bool,
}

impl Check {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let files = rule_files::read(&self.paths)?;
        let matching = if self.first { Matching::First } else { Matching::All };
        let loaded = rules::load(&files, &rules::Options { matching });
        rule_files::show(&rules::render(&loaded.diagnostics, &files, true));
        let (errors, warnings) = (loaded.count(Severity::Error), loaded.count(Severity::Warning));
        let correlations = match loaded.rules.correlations.len() {
            0 => String::new(),
            count => format!(" {},", plural(count, "correlation")),
        };
        let found = format!(
            "{},{correlations} {}, {} in {}",
            plural(loaded.rules.rules.len(), "rule"),
            plural(loaded.macros, "macro"),
            plural(loaded.lists, "list"),
            plural(files.len(), "file")
        );
        let mut out = std::io::stdout().lock();
        match (errors, warnings) {
            (0, 0) => writeln!(out, "{found}: no errors, no warnings")?,
            _ => writeln!(out, "{found}: {}, {}", plural(errors, "error"), plural(warnings, "warning"))?,
        }
        let failed = errors > 0 || (self.strict && warnings > 0);
        Ok(ExitCode::from(u8::from(failed)))
    }
}
