//! `pullwatch policy check`.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};

use super::super::rule_files::{self, plural};
use super::findings::{Findings, Limits};
use super::{json, report};
use crate::detection::policy::{Verdict, read, recommend};
use crate::detection::rules::{self, Matching, Severity, SourceFile};

/// Maximum size of a policy file, in bytes. Policies are written by hand; a larger file must be something else.
const MAX_FILE_SIZE: u64 = 1024 * 1024;

/// Check which rules an audit policy makes blind
///
/// A rule can only match what the apiserver logs. The audit policy decides that: its first rule that matches a request sets
/// the level at which the request is logged, and the omitted stages. This command reports, for each loaded rule, whether
/// the policy logs what its condition needs and what to change; which techniques leave no trace; where the policy writes
/// credentials to disk; and the maximum event size, because the apiserver silently drops larger events.
///
/// Verdicts: `sees`: everything needed is logged. `partly`: some requests or fields are not logged. `withheld`: disabled by
/// design, the rule can only fire if credentials are logged; other rules report the same reads. `blind`: the rule cannot
/// fire. `never`: the rule matches no request under any policy.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pullwatch policy check /etc/kubernetes/audit-policy.yaml
                                               check against ./rules.d or the built-in rules
  pullwatch policy check policy.yaml --rules rules.d --rules mine.yaml
                                               check against other rules
  pullwatch policy check policy.yaml --maxsize 200 --truncate-max-event-size 1048576
                                               with the flags of your apiserver
  pullwatch policy check policy.yaml --format json | jq '.rules[] | select(.verdict == \"blind\")'
  pullwatch policy check --recommend > audit-policy.yaml
                                               generate a policy that logs no credentials

Exit status: 0 no blind rules, 1 at least one rule is blind, 2 error in the policy or the rules.")]
pub struct Check {
    /// Audit policy file, or - for standard input
    #[arg(value_name = "POLICY", required_unless_present = "recommend")]
    policy: Option<PathBuf>,

    /// Rule file or directory of rule files; repeatable, later definitions override earlier ones
    #[arg(short, long = "rules", value_name = "PATH")]
    rules: Vec<PathBuf>,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    format: Format,

    /// The apiserver's --audit-log-maxsize in MB; it drops larger events
    #[arg(long, value_name = "MB", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    maxsize: u64,

    /// The apiserver's --audit-log-truncate-max-event-size; with --audit-log-truncate-enabled it removes the objects from
    /// larger events
    #[arg(long, value_name = "BYTES", default_value_t = 102_400, value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    truncate_max_event_size: u64,

    /// Print a policy for the loaded rules instead of checking one
    #[arg(long, conflicts_with_all = ["policy", "format", "maxsize", "truncate_max_event_size"])]
    recommend: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Human-readable tables
    Text,
    /// One JSON object
    Json,
}

impl Check {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let rules = rule_files::load(&self.rules, Matching::All)?.rules;
        let Some(path) = &self.policy else {
            let text = recommend::recommend(&rules);
            std::io::stdout().lock().write_all(text.as_bytes())?;
            return Ok(ExitCode::SUCCESS);
        };
        let file = [read_file(path)?];
        let read = read::read(&file[0]);
        rule_files::show(&rules::render(&read.diagnostics, &file, true));
        let Some(policy) = read.policy else {
            let errors =
                read.diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count();
            bail!("invalid audit policy: {}; the apiserver would not start with it", plural(errors, "error"));
        };
        let limits = Limits { largest: self.maxsize << 20, truncated: self.truncate_max_event_size };
        let findings = Findings::new(file[0].name.to_string(), &policy, &rules, limits);
        match self.format {
            Format::Text => report::print(&findings)?,
            Format::Json => {
                let mut out = std::io::stdout().lock();
                serde_json::to_writer_pretty(&mut out, &json::findings(&findings))?;
                writeln!(out)?;
            }
        }
        Ok(ExitCode::from(u8::from(findings.count(Verdict::Blind) > 0)))
    }
}

fn read_file(path: &Path) -> anyhow::Result<SourceFile> {
    let is_input = path == Path::new("-");
    let name = if is_input { "standard input".to_owned() } else { path.display().to_string() };
    let mut bytes = Vec::new();
    let cannot_read = || format!("cannot read the policy {name}");
    if is_input {
        std::io::stdin().lock().take(MAX_FILE_SIZE + 1).read_to_end(&mut bytes).with_context(cannot_read)?;
    } else {
        let file = std::fs::File::open(path).with_context(cannot_read)?;
        file.take(MAX_FILE_SIZE + 1).read_to_end(&mut bytes).with_context(cannot_read)?;
    }
    if bytes.len() as u64 > MAX_FILE_SIZE {
        bail!("{name} is too large for an audit policy (limit {MAX_FILE_SIZE} bytes)");
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        anyhow::anyhow!(
            "{name} is not valid UTF-8 (byte {}): save it as UTF-8",
            error.utf8_error().valid_up_to()
        )
    })?;
    Ok(SourceFile { name: name.into(), text })
}
