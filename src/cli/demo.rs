//! `pullwatch demo`: runs the main commands on a log embedded in the binary.

use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser as _};
use flate2::read::MultiGzDecoder;

use super::{Cli, dispatch};

/// An audit log of a real apiserver in which registry credentials are stolen amid ordinary requests.
const LOG: &[u8] = include_bytes!("../../samples/audit/kubernetes-1.36.log.gz");

/// Show what pullwatch does, on an embedded audit log
///
/// Scans the log, reports what was exposed, and serves the alerts until it is interrupted. Nothing outside a temporary directory is
/// read or written.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pullwatch demo                       scan, report, and serve the alerts on http://127.0.0.1:9417
  pullwatch demo --no-serve            scan and report only

Exit status: 0 success, 2 error.")]
pub struct Demo {
    /// Do not serve the alerts
    #[arg(long)]
    no_serve: bool,

    /// Listen address of the daemon
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9417")]
    listen: SocketAddr,
}

impl Demo {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let dir = TemporaryDir::create()?;
        let log = dir.0.join("audit.log");
        fs::File::create_new(&log)
            .and_then(|mut file| io::copy(&mut MultiGzDecoder::new(LOG), &mut file))
            .with_context(|| format!("cannot write {}", log.display()))?;
        let log = log.display().to_string();

        step(
            "Search an audit log for the worst alerts",
            &["scan", &log, "--priority", "critical", "--quiet"],
        )?;
        step("Report who read which credential, and what to rotate", &["report", &log])?;
        let mut out = anstream::stdout().lock();
        if !self.no_serve {
            let config = dir.0.join("pullwatch.yaml");
            fs::write(&config, "sinks: []\n")
                .with_context(|| format!("cannot write {}", config.display()))?;
            writeln!(
                out,
                "\n# The daemon, fed with the same log: open http://{}/ (Ctrl-C ends it)",
                self.listen
            )?;
            drop(out);
            let config = config.display().to_string();
            let state = dir.0.join("state").display().to_string();
            let listen = self.listen.to_string();
            command(&["run", &log, "--config", &config, "--state-dir", &state, "--listen", &listen])?;
            out = anstream::stdout().lock();
        }
        out.write_all(NEXT_STEPS.as_bytes())?;
        Ok(ExitCode::SUCCESS)
    }
}

const NEXT_STEPS: &str = "
# Next
Beside the apiserver   pullwatch run /var/log/kubernetes/audit/audit.log
                       audit logging is off by default: pullwatch policy check --recommend > audit-policy.yaml
As a SIEM forwarder    pullwatch run --config pullwatch.yaml      sources and sinks from a configuration file
For Grafana            scrape http://127.0.0.1:9417/metrics of a running daemon
After an incident      pullwatch report /var/log/kubernetes/audit/ --format html --output report.html
";

/// Prints a heading and the command line, and runs the command.
fn step(heading: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let mut out = anstream::stdout().lock();
    writeln!(out, "\n# {heading}\n$ pullwatch {}\n", arguments.join(" "))?;
    drop(out);
    command(arguments)
}

fn command(arguments: &[&str]) -> anyhow::Result<()> {
    let cli = Cli::try_parse_from(std::iter::once("pullwatch").chain(arguments.iter().copied()))?;
    dispatch(cli.command).map(drop)
}

/// A directory for this process that only its user can enter, and that is removed at the end.
struct TemporaryDir(PathBuf);

impl TemporaryDir {
    fn create() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("pullwatch-demo-{:016x}", rand::random::<u64>()));
        // Fails if the name exists, so that no other user can prepare the directory.
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot create {}", path.display()))?;
        Ok(TemporaryDir(path))
    }
}

impl Drop for TemporaryDir {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path) {
        tracing::warn!(path = %path.display(), %error, "cannot remove the temporary directory");
    }
}
