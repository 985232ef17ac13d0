//! `pullwatch readers export`.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Args;

use super::{StateDir, StoredReaders, when};
use crate::cli::rule_files::show;
use crate::cli::visible;

/// Print the decisions to trust readers as a rule file
///
/// Load the file after the shipped rules. It trusts exactly what the decisions do, except that a new pod does not explain a new client network
/// there.
#[derive(Debug, Args)]
pub struct Export {
    #[command(flatten)]
    state: StateDir,
}

impl Export {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let stored = StoredReaders::read(&self.state)?;
        let mut out = anstream::stdout().lock();
        writeln!(
            out,
            "# Service accounts that read secrets and are trusted, from `pullwatch readers export`."
        )?;
        let mut is_complete = true;
        for (user, trusted) in stored.trusted.iter().filter(|(_, trusted)| !trusted.is_distrusted) {
            let Some(rule) = trusted.rule(user) else {
                show(&format!("{} is left out: a name cannot be written in a rule file\n", visible(user)));
                is_complete = false;
                continue;
            };
            let line = |text: &str| visible(text).replace(['\n', '\r'], " ");
            writeln!(
                out,
                "\n# By {} at {}: {}",
                line(&trusted.by),
                when(Some(trusted.at)),
                line(&trusted.why)
            )?;
            write!(out, "{rule}")?;
        }
        Ok(if is_complete { ExitCode::SUCCESS } else { ExitCode::from(2) })
    }
}
