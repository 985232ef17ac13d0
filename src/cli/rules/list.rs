//! `pullwatch rules list`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::super::{rule_files, visible};
use crate::detection::alert::Priority;
use crate::detection::rules::Matching;
use crate::detection::rules::ast::Location;

/// List rules and correlations with type, priority, tags and location
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pullwatch rules list                         list ./rules.d, or the built-in rules without it
  pullwatch rules list mine.yaml --desc        show descriptions")]
pub struct List {
    /// Rule files or directories of rule files
    paths: Vec<PathBuf>,

    /// Show descriptions instead of tags and locations
    #[arg(short, long)]
    desc: bool,
}

/// The common attributes of rules and correlations.
struct Row<'a> {
    name: &'a str,
    kind: &'a str,
    priority: Priority,
    enabled: bool,
    desc: &'a str,
    tags: &'a [String],
    location: &'a Location,
}

impl List {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let loaded = rule_files::load(&self.paths, Matching::All)?;
        let head: &[&str] = if self.desc {
            &["RULE", "TYPE", "PRIORITY", "DESCRIPTION"]
        } else {
            &["RULE", "TYPE", "PRIORITY", "ENABLED", "TAGS", "LOCATION"]
        };
        let mut table = super::table(head);
        let mut add = |row: &Row<'_>| {
            let (name, priority) = (visible(row.name), row.priority.to_string());
            let kind = row.kind.to_owned();
            if self.desc {
                let desc = row.desc.split_whitespace().collect::<Vec<_>>().join(" ");
                table.add_row([name, kind, priority, visible(&desc)]);
            } else {
                let on = if row.enabled { "yes" } else { "no" }.to_owned();
                let place = format!("{}:{}", visible(&row.location.file), row.location.line);
                table.add_row([name, kind, priority, on, visible(&row.tags.join(" ")), place]);
            }
        };
        for rule in &loaded.rules.rules {
            add(&Row {
                name: &rule.name,
                kind: "rule",
                priority: rule.priority,
                enabled: rule.enabled,
                desc: &rule.desc,
                tags: &rule.tags,
                location: &rule.location,
            });
        }
        for correlation in &loaded.rules.correlations {
            add(&Row {
                name: &correlation.name,
                kind: correlation.kind.name(),
                priority: correlation.priority,
                enabled: correlation.enabled,
                desc: &correlation.desc,
                tags: &correlation.tags,
                location: &correlation.location,
            });
        }
        super::print(&table)?;
        Ok(ExitCode::SUCCESS)
    }
}
