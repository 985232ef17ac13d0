//! The command line: arguments in, text and an exit status out.
//!
//! One file per command. A command collects its input, calls the library and prints the result; it contains no other logic. Text from
//! events is escaped ([`visible`]) before it reaches a terminal. Exit statuses are a contract: 0 success, 1 the condition that the command
//! checks for is true (`--fail-on`, a failed check), 2 error.

mod alerts;
mod apiserver_flags;
mod baseline;
mod config;
mod demo;
mod downtime;
mod health;
mod inventory;
mod learned;
mod manual;
mod networks;
mod policy;
mod readers;
mod replay;
mod report;
mod rule_files;
mod rules;
mod run;
mod scan;
mod table;

use std::io::IsTerminal as _;
use std::process::ExitCode;

pub use crate::text::escape::visible;

use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Detect reads of registry credentials in Kubernetes audit logs
///
/// pullwatch evaluates rules in Falco's language over the audit events of a kube-apiserver and reports who read, listed or
/// watched image pull secrets. It needs no access to the cluster.
#[derive(Debug, Parser)]
#[command(
    version,
    max_term_width = 100,
    arg_required_else_help = true,
    after_help = "\
Examples:
  pullwatch demo                                 see what it does, on an embedded audit log
  pullwatch scan /var/log/kubernetes/audit/      scan all audit logs of a directory
  pullwatch scan audit.log.gz --format json      print one JSON alert per line
  pullwatch report audit-*.log.gz --format html --output report.html
                                                 report exposed credentials and registries to rotate
  pullwatch baseline audit-*.log.gz              propose exceptions for recurring reads
  pullwatch readers list                         show who reads secrets, and how
  pullwatch rules check my-rules.yaml            check rules for errors and warnings
  pullwatch rules explain --rule 'Secrets Listed' event.json
                                                 show why a rule matches an event or not
  pullwatch policy check audit-policy.yaml       find rules that an audit policy makes blind
  kubectl get secrets -A | pullwatch inventory import
                                                 declare the registry credentials of the cluster
  pullwatch alerts list --since 24h              list alerts stored in the last 24 hours

Run `pullwatch COMMAND --help` for details and more examples."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,

    /// When to use color
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    color: Color,

    /// Increase log verbosity (-vv for debug)
    ///
    /// Logs go to standard error. The environment variable PULLWATCH_LOG sets a filter per module, for example
    /// PULLWATCH_LOG=pullwatch=debug.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Color {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
enum Command {
    Scan(scan::Scan),
    Run(run::Run),
    Report(report::Report),
    Baseline(baseline::Baseline),
    #[command(subcommand)]
    Readers(readers::Readers),
    #[command(subcommand)]
    Alerts(alerts::Alerts),
    #[command(subcommand)]
    Rules(rules::Rules),
    #[command(subcommand)]
    Policy(policy::Policy),
    #[command(subcommand)]
    Inventory(inventory::Inventories),
    #[command(subcommand)]
    Config(config::Configuration),
    Health(health::Health),
    Demo(demo::Demo),
    Completions(manual::Completions),
    Man(manual::Man),
}

/// Parses the command line and runs the command.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are printed to standard output with status 0; clap decides.
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match cli.color {
        Color::Auto => {}
        Color::Always => anstream::ColorChoice::Always.write_global(),
        Color::Never => anstream::ColorChoice::Never.write_global(),
    }
    start_log(cli.verbose, matches!(cli.command, Command::Run(_)));
    let result = dispatch(cli.command);
    match result {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Line breaks are part of an error message; everything else that could control the terminal is escaped.
            let message = format!("{error:#}");
            let lines: Vec<String> = message.lines().map(visible).collect();
            rule_files::show(&format!("pullwatch: {}\n", lines.join("\n")));
            ExitCode::from(2)
        }
    }
}

/// Runs a command.
fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Scan(scan) => scan.run(),
        Command::Run(run) => run.run(),
        Command::Report(report) => report.run(),
        Command::Baseline(baseline) => baseline.run(),
        Command::Readers(readers) => readers.run(),
        Command::Alerts(alerts) => alerts.run(),
        Command::Rules(rules) => rules.run(),
        Command::Policy(policy) => policy.run(),
        Command::Inventory(inventory) => inventory.run(),
        Command::Config(config) => config.run(),
        Command::Health(health) => health.run(),
        Command::Demo(demo) => demo.run(),
        Command::Completions(completions) => completions.run(&mut Cli::command()),
        Command::Man(man) => man.run(&Cli::command()),
    }
}

/// Whether the reader of our output closed the pipe, as `head` does, which is not an error.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Starts logging to standard error: from level info and, unless it is a terminal, in JSON for the daemon; warnings as text for all
/// other commands.
fn start_log(verbose: u8, is_daemon: bool) {
    let level = match verbose + u8::from(is_daemon) {
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    let wanted = std::env::var_os("PULLWATCH_LOG").filter(|filter| !filter.is_empty());
    let parsed = wanted.map(|filter| EnvFilter::try_new(filter.to_string_lossy())).transpose();
    let (mut filter, invalid) = match parsed {
        Ok(filter) => (filter.unwrap_or_else(|| EnvFilter::new(level)), None),
        Err(error) => (EnvFilter::new(level), Some(error)),
    };
    // At this level, the crate logs each file system notification: a log in a watched directory would cause one per line. It can still be
    // enabled with `notify::inotify=trace`.
    if filter.max_level_hint() == Some(LevelFilter::TRACE)
        && let Ok(directive) = "notify=info".parse()
    {
        filter = filter.add_directive(directive);
    }
    // A log that cannot be written (full disk, closed pipe) must not end the process.
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    if is_daemon && !std::io::stderr().is_terminal() {
        log.json().flatten_event(true).init();
    } else {
        let has_color = anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never;
        log.with_ansi(has_color).init();
    }
    if let Some(error) = invalid {
        tracing::warn!(%error, level, "PULLWATCH_LOG is not a valid filter, such as `info` or `pullwatch=debug`: using the default");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_definition_is_valid() {
        Cli::command().debug_assert();
    }
}
