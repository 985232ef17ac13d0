//! `pullwatch alerts ack`.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Args;

use super::super::visible;
use super::{StateDir, find, prefix, short, when};
use crate::daemon::store::{self, Ack, IdPrefix};
use crate::daemon::time::unix_nanos;

/// Say that stored alerts were looked at
///
/// Who acknowledges first stands. Alerts are delivered to the sinks whether somebody acknowledged them or not.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pullwatch alerts ack 289c2a7a --note 'quarterly drill'
  pullwatch alerts ack 289c2a7a 2ccfd2a0 --by ada
  pullwatch alerts list --unacknowledged       what is left to look at")]
pub struct Acknowledge {
    /// Alerts' ids, or as many of their first digits as no other alert has. If one is not found, none is acknowledged.
    #[arg(value_name = "ID", required = true, value_parser = prefix)]
    ids: Vec<(String, IdPrefix)>,

    /// What was found.
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    note: String,

    /// Who looked. [default: who you are logged in as]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,

    #[command(flatten)]
    state: StateDir,
}

impl Acknowledge {
    /// Finds and marks.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let reader = self.state.reader()?;
        let found = self.ids.iter().map(|id| find(&reader, id)).collect::<anyhow::Result<Vec<_>>>()?;
        let ids: Vec<_> = found.iter().map(|listed| listed.alert.id).collect();
        let ack = Ack { at: unix_nanos(), by: self.by.unwrap_or_else(user), note: self.note };
        let marked = store::acknowledge(&self.state.path(), &ids, &ack)?;
        let mut out = anstream::stdout().lock();
        for listed in found {
            let (id, rule) = (short(&listed.alert.id), visible(&listed.alert.rule));
            if marked.contains(&listed.alert.id) {
                writeln!(out, "{id}  acknowledged: {rule}, {}", visible(&listed.alert.actor))?;
            } else if let Some(ack) = &listed.ack {
                writeln!(out, "{id}  was acknowledged by {}, {} UTC", visible(&ack.by), when(ack.at))?;
            } else {
                writeln!(out, "{id}  was acknowledged or removed just now")?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Who asks: behind sudo, the one who used it.
fn user() -> String {
    ["SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|name| !name.is_empty())
        .unwrap_or_else(|| format!("user {}", rustix::process::getuid().as_raw()))
}
