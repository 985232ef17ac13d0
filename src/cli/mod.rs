//! The commands: what a person types, and what they read.
//!
//! One file a command. A command gathers its input, hands it to the library, and shows what comes out. Exit
//! codes are a contract: 0 done, 1 what was asked about is so (`--fail-on`, a failed check), 2 an error.

mod alerts;
mod baseline;
mod config;
mod manual;
mod policy;
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

/// Watches who reads the registry credentials of a Kubernetes cluster.
///
/// pullwatch reads the audit events of a kube-apiserver, matches rules in Falco's language, and says who read, listed
/// or watched image pull secrets. It needs no access to the cluster.
#[derive(Debug, Parser)]
#[command(
    version,
    max_term_width = 100,
    arg_required_else_help = true,
    after_help = "\
Examples:
  pullwatch scan /var/log/kubernetes/audit/      who read which secrets, from all logs in a directory
  pullwatch scan audit.log.gz --format json      one JSON alert a line, for other programs
  pullwatch report audit-*.log.gz --format html --output report.html
                                                 who read which credential, and which registries to rotate
  pullwatch baseline audit-*.log.gz              exceptions for the reads that recur
  pullwatch rules check my-rules.yaml            whether rules load, and what is odd about them
  pullwatch rules explain --rule 'Secrets Listed' event.json
                                                 why a rule fires on an event, or does not
  pullwatch policy check audit-policy.yaml       which rules an audit policy leaves blind
  pullwatch alerts list --since 24h              what `run` stored since yesterday

`pullwatch COMMAND --help` has more, with examples."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,

    /// When to use colour.
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    color: Color,

    /// Say more of what is going on, on standard error (twice: still more). The environment variable PULLWATCH_LOG
    /// sets it in detail, as in `PULLWATCH_LOG=pullwatch=debug`.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

/// When to use colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

#[derive(Debug, Subcommand)]
enum Command {
    Scan(scan::Scan),
    Run(run::Run),
    Report(report::Report),
    Baseline(baseline::Baseline),
    #[command(subcommand)]
    Alerts(alerts::Alerts),
    #[command(subcommand)]
    Rules(rules::Rules),
    #[command(subcommand)]
    Policy(policy::Policy),
    #[command(subcommand)]
    Config(config::Configuration),
    Completions(manual::Completions),
    Man(manual::Man),
}

/// Runs what the command line asks for.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; clap knows where each goes.
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
    let result = match cli.command {
        Command::Scan(scan) => scan.run(),
        Command::Run(run) => run.run(),
        Command::Report(report) => report.run(),
        Command::Baseline(baseline) => baseline.run(),
        Command::Alerts(alerts) => alerts.run(),
        Command::Rules(rules) => rules.run(),
        Command::Policy(policy) => policy.run(),
        Command::Config(config) => config.run(),
        Command::Completions(completions) => completions.run(&mut Cli::command()),
        Command::Man(man) => man.run(&Cli::command()),
    };
    match result {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Commands make names visible that they put into an error; lines are their own.
            let message = format!("{error:#}");
            let lines: Vec<String> = message.lines().map(visible).collect();
            rule_files::show(&format!("pullwatch: {}\n", lines.join("\n")));
            ExitCode::from(2)
        }
    }
}

/// Whoever reads our output stopped reading: that is no error.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Starts the log, on standard error. A daemon says what it does, and where nobody watches it speaks JSON; other commands speak
/// up when something is odd.
fn start_log(verbose: u8, is_daemon: bool) {
    let level = match verbose + u8::from(is_daemon) {
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_env("PULLWATCH_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    // A log that cannot be written, for a full disk or a reader that is gone, is no reason to end.
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    if is_daemon && !std::io::stderr().is_terminal() {
        log.json().flatten_event(true).init();
    } else {
        let has_colour = anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never;
        log.with_ansi(has_colour).init();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
