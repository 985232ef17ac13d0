//! `pullwatch rules export`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;

use super::super::rule_files::plural;
use crate::shipped;

/// Write the built-in rules to a directory, to read or to change them
///
/// To add rules, lists or exceptions to the built-in ones, no copy is needed: name `builtin` before your own files.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pullwatch rules export rules.d                          write the built-in rules
  pullwatch run --rules builtin --rules mine.yaml         the built-in rules and your own, without a copy")]
pub struct Export {
    /// Directory, created if it does not exist; no file in it is overwritten
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

impl Export {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let shown = self.directory.display();
        std::fs::create_dir_all(&self.directory).with_context(|| format!("cannot create {shown}"))?;
        let files: Vec<_> = shipped::files()
            .into_iter()
            .map(|file| (self.directory.join(file.name.rsplit('/').next().unwrap_or_default()), file.text))
            .collect();
        if let Some((path, _)) = files.iter().find(|(path, _)| path.exists()) {
            bail!("{} exists: name an empty directory", path.display());
        }
        for (path, text) in &files {
            let write = || std::fs::File::create_new(path)?.write_all(text.as_bytes());
            write().with_context(|| format!("cannot write {}", path.display()))?;
        }
        writeln!(std::io::stdout(), "{}: {}", shown, plural(files.len(), "file"))?;
        Ok(ExitCode::SUCCESS)
    }
}
