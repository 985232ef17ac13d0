//! `pullwatch run`: arguments and configuration of the daemon.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};

use super::rule_files;
use super::scan::LogArgs;
use crate::daemon::app::{self, RuleLoader, Signals, warn_of_skipped};
use crate::daemon::config::{Config, FileSource, Source, SourceKind, WELL_KNOWN_PATHS};
use crate::daemon::redaction_key;
use crate::daemon::sink::{Format, Kind};
use crate::daemon::store::{self, Store};

/// Follow audit logs and deliver alerts (daemon)
///
/// Follows log files through rotation, receives the apiserver's audit webhook, and reads Kafka topics or standard input.
/// Alerts are stored and delivered to the configured sinks. After a restart, even after a crash, it resumes where it left
/// off: no event is lost and no alert is stored twice.
///
/// Without a configuration file it follows the first well-known audit log path that exists and prints alerts to standard
/// output.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pullwatch run                                  follow the well-known audit log, print alerts
  pullwatch run /var/log/kube/audit.log          follow another log
  pullwatch run --config pullwatch.yaml          sources, sinks and everything else from a file
  kubectl logs -f audit-relay | pullwatch run -  read standard input
  curl http://127.0.0.1:9417/metrics             metrics; also /healthz, /readyz, /api/v1/alerts

Signals: SIGHUP reloads the configuration and the rules, and reopens output files; SIGTERM and SIGINT shut down gracefully.

Exit status: 0 stopped by a signal or at the end of standard input, 2 error.")]
pub struct Run {
    /// Logs to follow instead of the configured sources: files, glob patterns, or - for standard input
    #[arg(value_name = "PATH|GLOB|-")]
    paths: Vec<String>,

    /// Configuration file (see samples/pullwatch.yaml)
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Directory for positions, alerts and learned state
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// Rule file or directory of rule files; repeatable
    #[arg(short, long = "rules", value_name = "PATH")]
    rules: Vec<PathBuf>,

    /// File that declares objects of the cluster, such as the output of kubectl get secrets -A; repeatable (see pullwatch inventory)
    #[arg(long, value_name = "PATH")]
    inventory: Vec<PathBuf>,

    /// Output format of the stdout sink
    #[arg(short, long, value_enum)]
    format: Option<Lines>,

    #[command(flatten)]
    log: LogArgs,

    /// Listen address for the page, metrics, health checks and the API, instead of the configured one [default:
    /// $PULLWATCH_LISTEN, else 127.0.0.1:9417]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
}

/// Output format of the stdout sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Lines {
    /// One human-readable line per alert
    Text,
    /// One JSON object per line
    Json,
}

/// Environment variable with the listen address.
const LISTEN_VARIABLE: &str = "PULLWATCH_LISTEN";

/// Time that blocked threads get on shutdown: one may wait for standard input, or for a pipe that is not read.
const RUNTIME_SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(200);

/// The listen address in the environment. An empty value means none.
pub(super) fn listen_of_environment() -> anyhow::Result<Option<SocketAddr>> {
    match std::env::var(LISTEN_VARIABLE) {
        Ok(text) if !text.is_empty() => match text.parse() {
            Ok(address) => Ok(Some(address)),
            Err(_) => {
                bail!(
                    "invalid {LISTEN_VARIABLE} `{text}`: expected an address and a port such as 127.0.0.1:9417"
                )
            }
        },
        Ok(_) | Err(std::env::VarError::NotPresent) => Ok(None),
        Err(error) => Err(error).context(LISTEN_VARIABLE),
    }
}

impl Run {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        // Before the store is checked, which may take long, so that a signal in the meantime is a graceful shutdown too.
        let signals = runtime.block_on(async { Signals::listen() })?;
        raise_file_limit();
        let config = self.config()?;
        let dir = config.state_dir.clone().unwrap_or_else(store::default_dir);
        let hostname = gethostname::gethostname().to_string_lossy().into_owned();
        let mut loader = RuleLoader::new(&config, &dir, hostname, Arc::new(rule_files::read))?;
        let loaded = rule_files::load(&config.rules, config.matching)?;
        rule_files::ensure_not_empty(&loaded)?;
        warn_of_skipped(&loaded);
        tracing::info!(rules = loaded.rules.rules.len(), version = %loaded.rules.version, "rules loaded");
        let opened = Store::open(
            &dir,
            &store::Options { max_bytes: Some(config.store.max_size), ..Default::default() },
        )?;
        if let Some(aside) = &opened.set_aside {
            tracing::error!(moved_to = %aside.display(), "the store was damaged: moved it aside and created a new one");
        }
        if opened.was_empty {
            tracing::error!(
                state_dir = %dir.display(),
                "the store was an empty file: positions, learned state and alerts of earlier runs are lost; logs are read from the start"
            );
        }
        if let Some(mode) = opened.world_writable {
            tracing::warn!(
                state_dir = %dir.display(),
                mode = format!("{mode:o}"),
                "any user can write to the state directory and replace the store: run chmod 700 on it"
            );
        }
        loader.set_redaction_key(redaction_key::load_or_create(&dir)?);
        let initial_rules = loader.with_options(loaded.rules);
        let read_config = Arc::new(move || self.config());
        let result = runtime.block_on(app::run(
            &config,
            &dir,
            opened.store,
            initial_rules,
            loader,
            read_config,
            signals,
        ));
        runtime.shutdown_timeout(RUNTIME_SHUTDOWN_TIMEOUT);
        result?;
        Ok(ExitCode::SUCCESS)
    }

    /// The listen address from the command line, or else from the environment.
    fn listen(&self) -> anyhow::Result<Option<SocketAddr>> {
        if self.listen.is_some() { Ok(self.listen) } else { listen_of_environment() }
    }

    fn config(&self) -> anyhow::Result<Config> {
        let mut config = match &self.config {
            Some(path) => match super::config::read(path)? {
                (Some(config), _) => config,
                (None, _) => bail!("invalid configuration file: {}", path.display()),
            },
            None => Config::default(),
        };
        if !self.paths.is_empty() {
            config.sources = if self.paths == ["-"] {
                vec![Source { name: "stdin".to_owned(), log: self.log.context(), kind: SourceKind::Stdin }]
            } else {
                let files = FileSource { paths: self.paths.clone(), ..FileSource::default() };
                vec![Source {
                    name: "audit".to_owned(),
                    log: self.log.context(),
                    kind: SourceKind::File(files),
                }]
            };
        }
        if let Some(dir) = &self.state_dir {
            config.state_dir = Some(dir.clone());
        }
        if !self.rules.is_empty() {
            config.rules.clone_from(&self.rules);
        }
        if !self.inventory.is_empty() {
            config.inventory.clone_from(&self.inventory);
        }
        if let (Some(listen), Some(server)) = (self.listen()?, &mut config.server) {
            // The container image sets the variable, so remote access is not necessarily intended.
            if self.listen.is_none()
                && !listen.ip().to_canonical().is_loopback()
                && server.token_file.is_none()
            {
                bail!(
                    "{LISTEN_VARIABLE} is {listen}, so anyone who can reach this address could read alerts: set `server.token_file` in the \
                     configuration, or set {LISTEN_VARIABLE} to an empty text and `server.listen` to an address of your choice"
                );
            }
            server.listen = listen;
        }
        if let Some(lines) = self.format {
            for sink in &mut config.sinks {
                if let Kind::Stdout(stdout) = &mut sink.kind {
                    stdout.format = if lines == Lines::Json { Format::Falco } else { Format::Text };
                }
            }
        }
        for source in &mut config.sources {
            if let SourceKind::File(files) = &mut source.kind
                && files.paths.is_empty()
            {
                let Some(path) = WELL_KNOWN_PATHS.iter().find(|path| Path::new(path).exists()) else {
                    bail!(
                        "no audit log found at a well-known path ({}): name one (pullwatch run PATH) or a configuration file (--config). \
                         Audit logging is off by default: the apiserver needs --audit-log-path and --audit-policy-file, and \
                         `pullwatch policy check --recommend` writes a policy",
                        WELL_KNOWN_PATHS.join(", ")
                    );
                };
                files.paths = vec![(*path).to_owned()];
            }
        }
        // The pipeline expects file sources first.
        config.sources.sort_by_key(|source| !matches!(source.kind, SourceKind::File(_)));
        Ok(config)
    }
}

/// Raises the limit of open files to the maximum: a directory may hold many rotated logs, and each connection is a file.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::debug!(%error, "cannot raise the limit of open files");
    }
}
