//! `pullwatch completions` and `pullwatch man`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

/// Print a shell completion script
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pullwatch completions bash > /etc/bash_completion.d/pullwatch
  pullwatch completions zsh > ~/.zfunc/_pullwatch
  pullwatch completions fish > ~/.config/fish/completions/pullwatch.fish")]
pub struct Completions {
    /// Shell to generate the script for
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

impl Completions {
    pub fn run(self, command: &mut clap::Command) -> anyhow::Result<ExitCode> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, command, "pullwatch", &mut script);
        std::io::stdout().write_all(&script)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Write manual pages
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pullwatch man | man -l -                       show the main page
  pullwatch man /usr/local/share/man/man1        write all pages, one per command")]
pub struct Man {
    /// Directory to write all pages to; if omitted, print the main page to standard output
    directory: Option<PathBuf>,
}

impl Man {
    pub fn run(self, command: &clap::Command) -> anyhow::Result<ExitCode> {
        match self.directory {
            Some(directory) => {
                std::fs::create_dir_all(&directory)
                    .and_then(|()| clap_mangen::generate_to(command.clone(), &directory))
                    .with_context(|| format!("cannot write manual pages to {}", directory.display()))?;
            }
            None => {
                let mut page = Vec::new();
                clap_mangen::Man::new(command.clone()).render(&mut page)?;
                std::io::stdout().write_all(&page)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
