//! `pullwatch readers trust` and `distrust`.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{bail, ensure};
use clap::Args;

use super::{StateDir, StoredReaders};
use crate::cli::alerts::user as current_user;
use crate::cli::visible;
use crate::daemon::store;
use crate::daemon::time::unix_nanos;
use crate::detection::registry::{TrustedReader, service_account};

/// Trust a service account with its behavior so far
///
/// Reads with the verbs, scopes, programs and client networks of its profile are stored as Informational from now on; anything else
/// is reported as before. The running daemon takes the decision over within seconds.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pullwatch readers trust system:serviceaccount:shop:operator --why 'reviewed in CHG-1234'
  pullwatch readers trust system:serviceaccount:ci:deployer --program kubectl --why 'smoke test'")]
pub struct Trust {
    /// User name of the service account
    #[arg(value_name = "USER")]
    user: String,

    /// Reason, which is stored with the decision
    #[arg(long, value_name = "TEXT")]
    why: String,

    /// Name to record as the decider [default: the current user]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,

    /// Also trust this program, which does not become routine automatically; repeatable
    #[arg(long = "program", value_name = "PROGRAM")]
    programs: Vec<String>,

    #[command(flatten)]
    state: StateDir,
}

impl Trust {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        ensure!(!self.why.trim().is_empty(), "--why is empty: say why this reader is trusted");
        let stored = StoredReaders::read(&self.state)?;
        let found = stored.profiles.iter().find(|(user, other, _)| *user == self.user && other.is_none());
        let Some((user, _, profile)) = found else {
            bail!("no reader named `{}`: run `pullwatch readers list` for their names", visible(&self.user));
        };
        ensure!(
            profile.is_service_account(),
            "`{}` is not a service account: only what a program does can be trusted",
            visible(&user)
        );
        let mut trusted = TrustedReader::of(profile);
        trusted.at = unix_nanos();
        trusted.by = self.by.unwrap_or_else(current_user);
        trusted.why = self.why;
        trusted.programs.extend(self.programs);
        ensure!(
            !trusted.programs.is_empty(),
            "no program of `{}` is routine by itself: name the programs to trust with --program",
            visible(&user)
        );
        store::set_trust(&self.state.path(), &user, Some(&trusted.encode()))?;
        let mut out = anstream::stdout().lock();
        writeln!(out, "{} is trusted from now on with", visible(&user))?;
        for (aspect, values) in [
            ("verbs", &trusted.verbs),
            ("scopes", &trusted.scopes),
            ("programs", &trusted.programs),
            ("clients", &trusted.clients),
        ] {
            writeln!(out, "  {aspect:<9} {}", visible(&values.join(", ")))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Always report a service account, regardless of its profile
///
/// Its reads are never routine until it is trusted again, or the decision is removed with --clear.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pullwatch readers distrust system:serviceaccount:shop:operator --why 'incident 42'
  pullwatch readers distrust system:serviceaccount:shop:operator --clear
                                               neither trusted nor distrusted")]
pub struct Distrust {
    /// User name of the service account
    #[arg(value_name = "USER")]
    user: String,

    /// Reason, which is stored with the decision
    #[arg(long, value_name = "TEXT", default_value = "")]
    why: String,

    /// Name to record as the decider [default: the current user]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,

    /// Remove the decision: neither trust nor distrust it
    #[arg(long, conflicts_with_all = ["why", "by"])]
    clear: bool,

    #[command(flatten)]
    state: StateDir,
}

impl Distrust {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let mut out = anstream::stdout().lock();
        if self.clear {
            if !store::set_trust(&self.state.path(), &self.user, None)? {
                bail!(
                    "there is no decision on `{}`: run `pullwatch readers list` for existing ones",
                    visible(&self.user)
                );
            }
            writeln!(out, "{} is neither trusted nor distrusted", visible(&self.user))?;
            return Ok(ExitCode::SUCCESS);
        }
        ensure!(
            service_account(&self.user).is_some(),
            "`{}` is not the user name of a service account: nothing that others do is routine",
            visible(&self.user)
        );
        let decision = TrustedReader {
            at: unix_nanos(),
            by: self.by.unwrap_or_else(current_user),
            why: self.why,
            is_distrusted: true,
            ..TrustedReader::default()
        };
        store::set_trust(&self.state.path(), &self.user, Some(&decision.encode()))?;
        writeln!(out, "{} is distrusted: all its reads are reported", visible(&self.user))?;
        Ok(ExitCode::SUCCESS)
    }
}
