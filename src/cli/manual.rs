//! `pullwatch completions` and `pullwatch man`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
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
        let date = date()?;
        // Names the subcommands in full, as in pullwatch-rules-check.
        let mut command = command.clone().disable_help_subcommand(true);
        command.build();
        match self.directory {
            Some(directory) => {
                std::fs::create_dir_all(&directory)
                    .and_then(|()| write_pages(&command, &date, &directory))
                    .with_context(|| format!("cannot write manual pages to {}", directory.display()))?;
            }
            None => {
                let mut text = Vec::new();
                page(&command, &date).render(&mut text)?;
                std::io::stdout().write_all(&text)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn write_pages(command: &clap::Command, date: &str, directory: &Path) -> std::io::Result<()> {
    for subcommand in command.get_subcommands().filter(|one| !one.is_hide_set()) {
        write_pages(subcommand, date, directory)?;
    }
    page(command, date).generate_to(directory).map(drop)
}

fn page(command: &clap::Command, date: &str) -> clap_mangen::Man {
    clap_mangen::Man::new(command.clone()).date(date).manual("pullwatch manual")
}

/// The date of the pages: today, or that of `SOURCE_DATE_EPOCH` for reproducible packages.
fn date() -> anyhow::Result<String> {
    let now = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(seconds) => {
            seconds.parse().ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok()).with_context(
                || format!("invalid SOURCE_DATE_EPOCH `{seconds}`: expected seconds since 1970"),
            )?
        }
        Err(_) => jiff::Timestamp::now(),
    };
    Ok(now.strftime("%Y-%m-%d").to_string())
}
