//! `pullwatch rules list`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::super::{rulefiles, visible};
use crate::rules::Matching;

/// List rules: name, priority, tags, where they are defined
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pullwatch rules list                         the rules of ./rules.d, else the shipped ones
  pullwatch rules list mine.yaml --desc        with what each detects")]
pub struct List {
    /// Rule files, or directories of them.
    paths: Vec<PathBuf>,

    /// Show what each rule detects, rather than its tags and place.
    #[arg(short, long)]
    desc: bool,
}

impl List {
    /// Loads and prints.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let loaded = rulefiles::load(&self.paths, Matching::All)?;
        let head: &[&str] = if self.desc {
            &["RULE", "PRIORITY", "DETECTS"]
        } else {
            &["RULE", "PRIORITY", "ON", "TAGS", "DEFINED"]
        };
        let mut table = super::table(head);
        for rule in &loaded.rules.rules {
            let name = visible(&rule.name);
            let priority = rule.priority.to_string();
            if self.desc {
                let desc = rule.desc.split_whitespace().collect::<Vec<_>>().join(" ");
                table.add_row([name, priority, visible(&desc)]);
            } else {
                let on = if rule.enabled { "yes" } else { "no" }.to_owned();
                let place = format!("{}:{}", visible(&rule.place.file), rule.place.line);
                table.add_row([name, priority, on, visible(&rule.tags.join(" ")), place]);
            }
        }
        super::print(&table)?;
        Ok(ExitCode::SUCCESS)
    }
}
