//! `pullwatch readers show`.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

use super::{StateDir, StoredReaders, name, when};
use crate::cli::visible;

/// Show everything that is known about an identity
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pullwatch readers show system:serviceaccount:shop:operator
  pullwatch readers show jane --impersonated admin")]
pub struct Show {
    /// The user
    #[arg(value_name = "USER")]
    user: String,

    /// User that the reader impersonates
    #[arg(long, value_name = "USER")]
    impersonated: Option<String>,

    #[command(flatten)]
    state: StateDir,
}

impl Show {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let stored = StoredReaders::read(&self.state)?;
        let found =
            stored.profiles.iter().find(|(user, other, _)| *user == self.user && *other == self.impersonated);
        let Some((user, other, profile)) = found else {
            bail!(
                "no reader named `{}`: run `pullwatch readers list` for their names",
                visible(&name(&self.user, self.impersonated.as_deref()))
            );
        };
        let mut out = anstream::stdout().lock();
        writeln!(out, "{}", visible(&name(&user, other.as_deref())))?;
        writeln!(
            out,
            "  {} reads on {} days, from {} to {}",
            profile.reads(),
            profile.days(),
            when(profile.first()),
            when(profile.last())
        )?;
        for (aspect, values) in profile.facets() {
            for (value, days, is_routine) in values {
                let state = if is_routine { "routine" } else { "not routine" };
                let plural = if days == 1 { "" } else { "s" };
                writeln!(out, "  {aspect:<11} {:<40} {days} day{plural}, {state}", visible(value))?;
            }
        }
        if let Some((time, what)) = profile.last_deviation() {
            writeln!(out, "  last deviation at {}: {}", when(time), visible(&what.join(", ")))?;
        }
        if let Some(trusted) = stored.trusted.get(&user).filter(|_| other.is_none()) {
            writeln!(
                out,
                "  {} by {} at {}: {}",
                if trusted.is_distrusted { "distrusted" } else { "trusted" },
                visible(&trusted.by),
                when(Some(trusted.at)),
                visible(&trusted.why)
            )?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
