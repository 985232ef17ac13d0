//! `pullwatch alerts`: what the daemon stored, while it runs or not.

mod ack;
mod json;
mod list;
mod show;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};

use crate::daemon::store::{self, IdPrefix, Listed, Match, Reader};
use crate::detection::alert::AlertId;
use crate::detection::audit::time::{self, Clock};

/// List, show and acknowledge the alerts that `run` stored
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  pullwatch alerts list --since 24h            what happened since yesterday, newest first
  pullwatch alerts list --unacknowledged --priority error
                                               what is bad and nobody looked at yet
  pullwatch alerts show 289c2a7a               one of them, in full
  pullwatch alerts ack 289c2a7a --note 'drill' it was looked at")]
pub enum Alerts {
    List(list::List),
    Show(show::Show),
    Ack(ack::Acknowledge),
}

impl Alerts {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Alerts::List(list) => list.run(),
            Alerts::Show(show) => show.run(),
            Alerts::Ack(ack) => ack.run(),
        }
    }
}

/// Where the store is.
#[derive(Debug, Args)]
pub struct StateDir {
    /// The directory in which `run` keeps its state. [default: $PULLWATCH_STATE_DIR, else /var/lib/pullwatch for root, else
    /// ~/.local/state/pullwatch]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

impl StateDir {
    fn path(&self) -> PathBuf {
        self.state_dir.clone().unwrap_or_else(store::default_dir)
    }

    fn reader(&self) -> anyhow::Result<Reader> {
        Ok(Reader::open(&self.path())?)
    }
}

/// Reads the start of an id as it was typed.
fn prefix(text: &str) -> Result<(String, IdPrefix), String> {
    let prefix =
        IdPrefix::parse(text).ok_or("expected an alert's id or how it starts: up to 32 hex digits")?;
    Ok((text.to_owned(), prefix))
}

/// The one alert whose id starts so.
fn find(reader: &Reader, (text, prefix): &(String, IdPrefix)) -> anyhow::Result<Listed> {
    match reader.get(prefix)? {
        Match::One(listed) => Ok(*listed),
        Match::None => {
            bail!("there is no alert whose id starts with {text}; `pullwatch alerts list` has their ids")
        }
        Match::Several(ids) => {
            let ids: Vec<String> = ids.iter().map(hex).collect();
            bail!("several alerts have ids that start with {text}; which one?\n  {}", ids.join("\n  "))
        }
    }
}

/// How much of an id tables show: among a million alerts, two start alike once in 500 stores.
const SHORT: usize = 12;

/// An id in full.
fn hex(id: &AlertId) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(32);
    for byte in id {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// An id as tables show it.
fn short(id: &AlertId) -> String {
    let mut text = hex(id);
    text.truncate(SHORT);
    text
}

/// A time for people, UTC; `-` where the event does not say.
fn when(nanoseconds: i64) -> String {
    if nanoseconds == 0 { "-".to_owned() } else { time::format(Clock::DateTimeSeconds, nanoseconds) }
}
