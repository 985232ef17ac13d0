//! `pullwatch policy check`.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};

use super::super::rule_files::{self, plural};
use super::{json, report};
use crate::detection::policy::findings::{self, Hidden, LargestEvents, Tag, Written};
use crate::detection::policy::{Coverage, Policy, Verdict, coverage, read, recommend};
use crate::detection::rules::ast::RuleSet;
use crate::detection::rules::{self, Matching, Severity, SourceFile};

/// A policy is written by people; one larger than this, in bytes, is something else.
const LARGEST: u64 = 1024 * 1024;

/// Check whether an audit policy lets the rules see what they need
///
/// A rule can only fire on what the apiserver logs, and the audit policy decides that: its first rule that matches a
/// request says how much of it is logged, and at which stages. This says, for each loaded rule, whether the policy lets it
/// see what its condition asks for, and what to change; which techniques leave no trace; where the policy writes
/// credentials to disk; and how big an event can be, because the apiserver drops one that is too big without a word.
///
/// The verdicts: «sees» all it needs; «partly», it misses some requests, or does not know all it asks for; «withheld», only
/// credentials on disk would let it fire, and other rules report what it is about; «blind», it cannot fire; «never», it
/// fires on nothing, whatever the policy.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pullwatch policy check /etc/kubernetes/audit-policy.yaml
                                               the rules of ./rules.d, else the shipped ones
  pullwatch policy check policy.yaml --rules rules.d --rules mine.yaml
                                               other rules, several files and directories
  pullwatch policy check policy.yaml --maxsize 200 --truncate-max-event-size 1048576
                                               with the flags that your apiserver runs with
  pullwatch policy check policy.yaml --format json | jq '.rules[] | select(.verdict == \"blind\")'
  pullwatch policy check --recommend > audit-policy.yaml
                                               a policy for the loaded rules, with no credential in the log

Exit status: 0 every rule sees something, 1 a rule is blind, 2 an error in the policy or the rules.")]
pub struct Check {
    /// The audit policy, or - for standard input.
    #[arg(value_name = "POLICY", required_unless_present = "recommend")]
    policy: Option<PathBuf>,

    /// A rule file, or a directory of them. May be given several times; later definitions replace earlier ones.
    #[arg(short, long = "rules", value_name = "PATH")]
    rules: Vec<PathBuf>,

    /// How to print what was found.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    format: Format,

    /// What the apiserver has as --audit-log-maxsize, in MB. It drops larger events.
    #[arg(long, value_name = "MB", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    maxsize: u64,

    /// What the apiserver has as --audit-log-truncate-max-event-size. It takes the objects out of larger events, if it
    /// has --audit-log-truncate-enabled.
    #[arg(long, value_name = "BYTES", default_value_t = 102_400, value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    truncate_max_event_size: u64,

    /// Print a policy that serves the loaded rules, and check none.
    #[arg(long, conflicts_with_all = ["policy", "format", "maxsize", "truncate_max_event_size"])]
    recommend: bool,
}

/// How to print what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For programs: one JSON object.
    Json,
}

/// The apiserver's limits.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Larger events are dropped, in bytes.
    pub largest: u64,
    /// Larger events lose their objects, in bytes.
    pub truncated: u64,
}

/// All that was found.
#[derive(Debug)]
pub struct Findings {
    /// The policy's name.
    pub name: String,
    /// How many rules it has.
    pub policy_rules: usize,
    /// What each rule sees.
    pub coverage: Vec<Coverage>,
    /// The techniques that rules are tagged with.
    pub tags: Vec<Tag>,
    /// The techniques that are not wholly seen.
    pub hidden: Vec<Hidden>,
    /// Where credentials are written to disk.
    pub written: Vec<Written>,
    /// How big events can be.
    pub sizes: Vec<LargestEvents>,
    /// The apiserver's limits.
    pub limits: Limits,
}

impl Findings {
    fn new(name: String, policy: &Policy, rules: &RuleSet, limits: Limits) -> Self {
        let coverage = coverage(policy, rules);
        Findings {
            name,
            policy_rules: policy.rules.len(),
            tags: findings::tags(&coverage),
            coverage,
            hidden: findings::hidden(policy),
            written: findings::written(policy),
            sizes: findings::sizes(policy),
            limits,
        }
    }

    /// How many rules see so well.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.coverage.iter().filter(|coverage| coverage.verdict == verdict).count()
    }
}

impl Check {
    /// Checks, or recommends.
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
            bail!("the apiserver would not start with this policy: {}", plural(errors, "error"));
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
        std::io::stdin().lock().take(LARGEST + 1).read_to_end(&mut bytes).with_context(cannot_read)?;
    } else {
        let file = std::fs::File::open(path).with_context(cannot_read)?;
        file.take(LARGEST + 1).read_to_end(&mut bytes).with_context(cannot_read)?;
    }
    if bytes.len() as u64 > LARGEST {
        bail!("{name} is longer than {LARGEST} bytes; that is no audit policy");
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        anyhow::anyhow!("{name} is not UTF-8 (byte {}); save it as UTF-8", error.utf8_error().valid_up_to())
    })?;
    Ok(SourceFile { name: name.into(), text })
}
