//! `pullwatch config`: checks the configuration file of `pullwatch run`.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::apiserver_flags::ApiserverFlags;
use super::downtime::Downtime;
use super::rule_files::{plural, show};
use crate::daemon::config::{self, Config, Finding, check};
use crate::detection::rules::{self, Severity, SourceFile};

/// The complete configuration.
const EXAMPLE: &str = include_str!("../../samples/pullwatch.yaml");

/// Check the configuration file of `run`
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  pullwatch config check pullwatch.yaml        validate a configuration file
  pullwatch config example > pullwatch.yaml    the complete configuration, with comments")]
pub enum Configuration {
    Check(Check),
    Example(Example),
}

/// Print the complete configuration, with comments
///
/// Values are defaults or, where there is no default, examples.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pullwatch config example > pullwatch.yaml
  pullwatch config example | less")]
pub struct Example {}

/// Validate a configuration file and show errors with their position
///
/// Unknown keys are errors, with a suggestion. Finds what `run` would refuse, such as missing files and unusable addresses, and
/// what would be regretted: rule patterns that match no rule, a sink that writes into a watched log, two sources on one log,
/// listeners without TLS or token. Nothing is opened for writing, and nothing is sent.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pullwatch config check pullwatch.yaml
  pullwatch config check --offline pullwatch.yaml   on another machine: leave files alone
  pullwatch config check pullwatch.yaml --apiserver-flags /etc/kubernetes/manifests/kube-apiserver.yaml
                                                    how long pullwatch may be down before events are lost

Exit status: 0 valid, 1 invalid, 2 the file could not be read.")]
pub struct Check {
    /// Configuration file
    path: PathBuf,

    /// Check the text alone: read no rules, certificates, tokens or other files that it names
    #[arg(long)]
    offline: bool,

    /// File with the apiserver's flags: its static pod manifest, a kubeadm, K3s or RKE2 configuration, a systemd unit, or a
    /// list of flags, such as /proc/PID/cmdline; computes how long pullwatch may be down before events are lost
    #[arg(long, value_name = "FILE")]
    apiserver_flags: Option<PathBuf>,
}

impl Configuration {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Configuration::Check(check) => check.run(),
            Configuration::Example(_) => {
                std::io::stdout().write_all(EXAMPLE.as_bytes())?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

impl Check {
    fn run(self) -> anyhow::Result<ExitCode> {
        let flags = self.apiserver_flags.as_deref().map(read_flags).transpose()?;
        let (config, mut errors) = read_with(&self.path, !self.offline)?;
        let mut warnings = 0;
        let mut downtime = Downtime::default();
        if let Some(config) = &config {
            let mut findings = check::findings(config, self.offline);
            if !self.offline {
                findings.extend(Self::rules(config));
            }
            if let Some(flags) = &flags {
                downtime = Downtime::new(config, flags, self.offline);
                findings.append(&mut downtime.findings);
            }
            for finding in &findings {
                let severity = if finding.is_error { "error" } else { "warning" };
                show(&format!("{severity}: {}\n", super::visible(&finding.message)));
            }
            errors += findings.iter().filter(|finding| finding.is_error).count();
            warnings = findings.iter().filter(|finding| !finding.is_error).count();
        }
        let mut out = std::io::stdout().lock();
        let counted = match (errors, warnings) {
            (0, 0) => "no errors".to_owned(),
            (0, warnings) => format!("no errors, {}", plural(warnings, "warning")),
            (errors, 0) => plural(errors, "error"),
            (errors, warnings) => format!("{}, {}", plural(errors, "error"), plural(warnings, "warning")),
        };
        match config {
            Some(config) => writeln!(
                out,
                "{}, {}: {counted}",
                plural(config.sources.len(), "source"),
                plural(config.sinks.len(), "sink")
            )?,
            None => writeln!(out, "{counted}")?,
        }
        if !downtime.lines.is_empty() {
            writeln!(out, "\nHow long pullwatch may be down before events are lost:")?;
        }
        for line in &downtime.lines {
            writeln!(out, "{line}")?;
        }
        Ok(ExitCode::from(u8::from(errors > 0)))
    }

    /// Loads the rules, and compares the patterns of sinks with their names.
    fn rules(config: &Config) -> Vec<Finding> {
        let files = match super::rule_files::read(&config.rules) {
            Ok(files) => files,
            Err(error) => return vec![Finding::error(format!("rules: {error:#}"))],
        };
        let loaded = rules::load(&files, &rules::Options { matching: config.matching });
        let errors = loaded.count(Severity::Error);
        if errors > 0 {
            let message = format!("rules: {}: run `pullwatch rules check`", plural(errors, "error"));
            return vec![Finding::error(message)];
        }
        let rules = loaded.rules.rules.iter().map(|rule| rule.name.to_string());
        let correlations = loaded.rules.correlations.iter().map(|rule| rule.name.to_string());
        check::patterns(config, &rules.chain(correlations).collect::<Vec<_>>())
    }
}

/// Reads the flags of an apiserver. The size is limited because manifests are written by hand; a larger file must be something else.
fn read_flags(path: &std::path::Path) -> anyhow::Result<ApiserverFlags> {
    const MAX_FILE_SIZE: u64 = 1 << 20;
    let name = path.display();
    let file = std::fs::File::open(path).with_context(|| format!("cannot read {name}"))?;
    let mut text = Vec::new();
    file.take(MAX_FILE_SIZE + 1).read_to_end(&mut text).with_context(|| format!("cannot read {name}"))?;
    anyhow::ensure!(
        text.len() as u64 <= MAX_FILE_SIZE,
        "{name} is larger than 1 MiB: expected flags of kube-apiserver"
    );
    let flags = ApiserverFlags::read(&String::from_utf8_lossy(&text));
    flags.with_context(|| {
        format!("no flags of kube-apiserver in {name}: expected its static pod manifest, a kubeadm, K3s or RKE2 configuration, or a list of flags")
    })
}

/// Reads a configuration file and prints its diagnostics. Returns the configuration, if it is valid, and the number of errors.
pub fn read(path: &std::path::Path) -> anyhow::Result<(Option<Config>, usize)> {
    read_with(path, true)
}

/// Like [`read`]. Without `with_files`, files that the configuration names are not read.
fn read_with(path: &std::path::Path, with_files: bool) -> anyhow::Result<(Option<Config>, usize)> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
    let file = SourceFile { name: name.into(), text };
    let variable = |name: &str| std::env::var(name).ok();
    let read = if with_files { config::read(&file, &variable) } else { config::read_offline(&file) };
    show(&rules::render(&read.diagnostics, std::slice::from_ref(&file), true));
    let errors = read.diagnostics.iter().filter(|one| one.severity == Severity::Error).count();
    Ok((read.config, errors))
}
