//! `pullwatch readers list`.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::{StateDir, StoredReaders, name, when};
use crate::cli::{rule_files, table, visible};
use crate::detection::registry::{Profile, TrustedReader};

/// List identities that read secrets
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pullwatch readers list                       all identities, those that differed last first
  pullwatch readers list --user shop           only identities whose name contains a text
  pullwatch readers list --format json | jq 'select(.days >= 3)'
                                               established identities, as JSON")]
pub struct List {
    /// Only identities whose user or impersonated user contains this text
    #[arg(short, long, value_name = "TEXT")]
    user: Option<String>,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    format: Format,

    #[command(flatten)]
    state: StateDir,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One row per identity
    Table,
    /// One JSON object per line
    Json,
}

/// Maximum number of values of an aspect shown in a table cell.
const MAX_SHOWN: usize = 3;

fn few(profile: &Profile, aspect: &str) -> String {
    let facets = profile.facets();
    let Some((_, values)) = facets.iter().find(|(known, _)| *known == aspect) else { return String::new() };
    let mut shown: Vec<String> = values.iter().take(MAX_SHOWN).map(|(value, ..)| visible(value)).collect();
    if values.len() > MAX_SHOWN {
        shown.push(format!("and {} more", values.len() - MAX_SHOWN));
    }
    shown.join(", ")
}

impl List {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let stored = StoredReaders::read(&self.state)?;
        let mut rows: Vec<_> = stored
            .profiles
            .iter()
            .map(|(user, other, profile)| (name(&user, other.as_deref()), user, other, profile))
            .filter(|(shown, ..)| self.user.as_ref().is_none_or(|text| shown.contains(text)))
            .collect();
        let differed = |profile: &Profile| profile.last_deviation().and_then(|(time, _)| time);
        rows.sort_by(|a, b| (differed(b.3), &a.0).cmp(&(differed(a.3), &b.0)));
        if self.format == Format::Json {
            let mut out = anstream::stdout().lock();
            for (_, user, other, profile) in rows {
                let trusted = other.is_none()
                    && stored.trusted.get(&user).is_some_and(|trusted| !trusted.is_distrusted);
                writeln!(out, "{}", object(&user, other.as_deref(), profile, trusted))?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        if rows.is_empty() {
            let hint = match &self.user {
                Some(text) => format!("no reader whose name contains `{}`\n", visible(text)),
                None => "no readers: `pullwatch run` stored no read of a secret in this state directory\n"
                    .to_owned(),
            };
            rule_files::show(&hint);
            return Ok(ExitCode::SUCCESS);
        }
        let head =
            ["READER", "DAYS", "READS", "SINCE", "LAST", "DOES", "PROGRAMS", "LAST DEVIATION", "TRUSTED"];
        let mut table = table::table(&head);
        for (shown, user, other, profile) in rows {
            let deviation = profile.last_deviation().map_or_else(
                || "-".to_owned(),
                |(time, what)| format!("{} {}", when(time), visible(&what.join(", "))),
            );
            let trusted = stored.trusted.get(&user).filter(|_| other.is_none());
            table.add_row([
                visible(&shown),
                profile.days().to_string(),
                profile.reads().to_string(),
                when(profile.first()),
                when(profile.last()),
                format!("{} {}", few(profile, "verb"), few(profile, "scope")),
                few(profile, "program"),
                deviation,
                trusted.map_or_else(|| "-".to_owned(), decision),
            ]);
        }
        table::print(&table)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The person who decided to trust or distrust.
fn decision(trusted: &TrustedReader) -> String {
    let verb = if trusted.is_distrusted { "no, by" } else { "yes, by" };
    format!("{verb} {}", visible(&trusted.by))
}

/// A profile as JSON.
pub(super) fn object(
    user: &str,
    impersonated: Option<&str>,
    profile: &Profile,
    is_trusted: bool,
) -> serde_json::Value {
    let facets: serde_json::Map<String, serde_json::Value> = profile
        .facets()
        .into_iter()
        .map(|(aspect, values)| {
            let values = values.into_iter();
            let values = values
                .map(|(value, days, routine)| json!({"value": value, "days": days, "routine": routine}));
            (format!("{aspect}s"), values.collect())
        })
        .collect();
    let deviation = profile.last_deviation().map(|(time, what)| json!({"time": when(time), "what": what}));
    json!({
        "user": user,
        "impersonated": impersonated,
        "service_account": profile.is_service_account(),
        "days": profile.days(),
        "reads": profile.reads(),
        "first": when(profile.first()),
        "last": when(profile.last()),
        "profile": facets,
        "last_deviation": deviation,
        "trusted": is_trusted,
    })
}
