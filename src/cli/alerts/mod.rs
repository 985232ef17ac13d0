//! `pullwatch alerts`: reads and acknowledges stored alerts, whether the daemon is running or not.

mod ack;
mod json;
mod list;
mod resend;
mod show;

pub(super) use ack::user;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};

use crate::daemon::store::{self, IdMatch, IdPrefix, Listed, StoreReader};
use crate::detection::alert::AlertId;
use crate::detection::audit::time;

/// List, show, acknowledge and resend alerts stored by `run`
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  pullwatch alerts list --since 24h            alerts of the last 24 hours, newest first
  pullwatch alerts list --unacknowledged --priority error
                                               unacknowledged alerts, errors and above
  pullwatch alerts show 289c2a7a               one alert with all details
  pullwatch alerts ack 289c2a7a --note 'drill' acknowledge it
  pullwatch alerts resend --config pullwatch.yaml --sink siem --dead-letters
                                               deliver undeliverable alerts again")]
pub enum Alerts {
    List(list::List),
    Show(show::Show),
    Ack(ack::Acknowledge),
    Resend(resend::Resend),
}

impl Alerts {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Alerts::List(list) => list.run(),
            Alerts::Show(show) => show.run(),
            Alerts::Ack(ack) => ack.run(),
            Alerts::Resend(resend) => resend.run(),
        }
    }
}

/// Selects the store.
#[derive(Debug, Args)]
pub struct StateDir {
    /// State directory of `run` [default: $PULLWATCH_STATE_DIR, else /var/lib/pullwatch for root, else
    /// ~/.local/state/pullwatch]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

impl StateDir {
    pub(super) fn path(&self) -> PathBuf {
        self.state_dir.clone().unwrap_or_else(store::default_dir)
    }

    pub(super) fn reader(&self) -> anyhow::Result<StoreReader> {
        Ok(StoreReader::open(&self.path())?)
    }
}

/// Parses an alert id or a prefix of one.
fn prefix(text: &str) -> Result<(String, IdPrefix), String> {
    let prefix = IdPrefix::parse(text).ok_or("invalid alert id: expected 1 to 32 hex digits")?;
    Ok((text.to_owned(), prefix))
}

/// Returns the only alert whose id has this prefix.
fn find(reader: &StoreReader, (text, prefix): &(String, IdPrefix)) -> anyhow::Result<Listed> {
    match reader.get(prefix)? {
        IdMatch::One(listed) => Ok(*listed),
        IdMatch::None => {
            bail!("no alert with id {text}: run `pullwatch alerts list` for the ids")
        }
        IdMatch::Several(ids) => {
            let ids: Vec<String> = ids.iter().map(hex).collect();
            bail!("ambiguous id {text}: it matches several alerts\n  {}", ids.join("\n  "))
        }
    }
}

/// Number of hex digits of an id in tables: among a million alerts, two share them with a probability of 1 in 500.
const SHORT_ID_LEN: usize = 12;

fn hex(id: &AlertId) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(32);
    for byte in id {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// An id as in tables.
fn short(id: &AlertId) -> String {
    let mut text = hex(id);
    text.truncate(SHORT_ID_LEN);
    text
}

/// Formats a time in UTC (`2026-11-23 03:47:18Z`); `-` if it is unknown (0).
fn when(nanoseconds: i64) -> String {
    if nanoseconds == 0 { "-".to_owned() } else { time::utc_seconds(nanoseconds) }
}
