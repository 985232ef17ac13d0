//! `pullwatch alerts ack`.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Args;

use super::super::visible;
use super::{StateDir, find, prefix, short, when};
use crate::daemon::store::{self, Ack, IdPrefix};
use crate::daemon::time::unix_nanos;

/// Acknowledge stored alerts
///
/// The first acknowledgement wins. Acknowledged alerts are still delivered to the sinks.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pullwatch alerts ack 289c2a7a --note 'quarterly drill'
  pullwatch alerts ack 289c2a7a 2ccfd2a0 --by ada
  pullwatch alerts list --unacknowledged       remaining alerts")]
pub struct Acknowledge {
    /// Alert ids or unique prefixes of them; if one is not found, no alert is acknowledged
    #[arg(value_name = "ID", required = true, value_parser = prefix)]
    ids: Vec<(String, IdPrefix)>,

    /// Comment to store with the acknowledgement
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    note: String,

    /// Name to acknowledge as [default: the current user]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,

    #[command(flatten)]
    state: StateDir,
}

impl Acknowledge {
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
                writeln!(out, "{id}  already acknowledged by {} at {}", visible(&ack.by), when(ack.at))?;
            } else {
                writeln!(out, "{id}  acknowledged or removed concurrently")?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The name of the current user; with sudo, the invoking user.
pub fn user() -> String {
    ["SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|name| !name.is_empty())
        .unwrap_or_else(|| format!("user {}", rustix::process::getuid().as_raw()))
}
