//! `pullwatch alerts list`.

use std::io::{BufWriter, Write as _};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::super::scan::{bounds, priority};
use super::super::{rule_files, table, visible};
use super::{StateDir, json, short, when};
use crate::daemon::store::{Filter, Listed, StoreReader};
use crate::detection::alert::Priority;
use crate::text::suggest;

/// Number of alerts read at once: a few megabytes.
const PAGE_SIZE: u32 = 2000;

/// List stored alerts, newest first
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pullwatch alerts list                                the newest alerts
  pullwatch alerts list --since 2h --priority error    last two hours, errors and above
  pullwatch alerts list --user mallory --unacknowledged
                                                       unacknowledged alerts of a user
  pullwatch alerts list --rule 'Secrets Listed' --limit 0 --format json | jq .event.sourceIPs
                                                       all alerts of a rule, as JSON

Times are event times in UTC. Run `pullwatch alerts show ID` for all details of an alert; a unique prefix of the ID is enough.")]
pub struct List {
    /// Only alerts of this rule
    #[arg(short, long, value_name = "NAME")]
    rule: Option<String>,

    /// Minimum alert priority
    #[arg(short, long, value_name = "MIN", value_parser = priority)]
    priority: Option<Priority>,

    /// Only alerts whose user or impersonated user contains this text
    #[arg(short, long, value_name = "TEXT")]
    user: Option<String>,

    /// Only events at or after this time: 2026-11-23T10:00:00Z, 2026-11-23, or an age such as 2h or 7d
    #[arg(long, value_name = "TIME", value_parser = bounds::parse)]
    since: Option<i64>,

    /// Only events before this time
    #[arg(long, value_name = "TIME", value_parser = bounds::parse)]
    until: Option<i64>,

    /// Only alerts that are not acknowledged
    #[arg(long)]
    unacknowledged: bool,

    /// Maximum number of alerts; 0 for all
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50)]
    limit: u32,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    format: Format,

    #[command(flatten)]
    state: StateDir,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One row per alert
    Table,
    /// One JSON object per line, as the sinks send it, plus the acknowledgement
    Json,
}

/// Formats a table cell. Cut to a fixed width: a long text chosen by an attacker must not push the columns of all rows apart.
fn cell(text: &str) -> String {
    const MAX_WIDTH: usize = 80;
    let mut cell = visible(text);
    if let Some((end, _)) = cell.char_indices().nth(MAX_WIDTH) {
        cell.truncate(end);
        cell.push('…');
    }
    cell
}

impl List {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        if let (Some(since), Some(until)) = (self.since, self.until) {
            anyhow::ensure!(since < until, "invalid time range: --since must be earlier than --until");
        }
        let reader = self.state.reader()?;
        let filter = Filter {
            rule: self.rule.clone(),
            min_priority: self.priority,
            actor: self.user.clone(),
            since: self.since,
            until: self.until,
            acknowledged: self.unacknowledged.then_some(false),
            ..Filter::default()
        };
        let shown = match self.format {
            Format::Table => self.table(&reader, &filter)?,
            Format::Json => self.json(&reader, &filter)?,
        };
        self.print_hint(&reader, &filter, shown)?;
        Ok(ExitCode::SUCCESS)
    }

    fn table(&self, reader: &StoreReader, filter: &Filter) -> anyhow::Result<u64> {
        let mut table = table::table(&["TIME", "PRIORITY", "ID", "RULE", "USER", "TARGET", "ACKNOWLEDGED"]);
        let seen = self.for_each(reader, filter, |listed| {
            let alert = &listed.alert;
            table.add_row([
                when(alert.time),
                alert.priority.to_string(),
                short(&alert.id),
                cell(&alert.rule),
                cell(&alert.actor),
                cell(&alert.target),
                listed.ack.as_ref().map_or_else(|| "-".to_owned(), |ack| cell(&ack.by)),
            ]);
            Ok(())
        })?;
        if seen > 0 {
            table::print(&table)?;
        }
        Ok(seen)
    }

    fn json(&self, reader: &StoreReader, filter: &Filter) -> anyhow::Result<u64> {
        let mut out = BufWriter::new(std::io::stdout().lock());
        let seen = self.for_each(reader, filter, |listed| {
            Ok(writeln!(out, "{}", json::text(&json::object(listed), false)?)?)
        })?;
        out.flush()?;
        Ok(seen)
    }

    /// Calls `show` for each alert, reading page by page to bound memory. Returns the number of alerts.
    fn for_each(
        &self,
        reader: &StoreReader,
        filter: &Filter,
        mut show: impl FnMut(&Listed) -> anyhow::Result<()>,
    ) -> anyhow::Result<u64> {
        let (mut seen, mut last) = (0, i64::MAX);
        let wanted = if self.limit == 0 { u64::MAX } else { u64::from(self.limit) };
        while seen < wanted {
            let limit = u32::try_from(wanted - seen).unwrap_or(PAGE_SIZE).min(PAGE_SIZE);
            let page = Filter { limit: Some(limit), before_seq: Some(last), ..filter.clone() };
            let page = reader.list(&page)?;
            for listed in &page {
                show(listed)?;
                seen += 1;
                last = listed.alert.seq;
            }
            if page.len() < limit as usize {
                break;
            }
        }
        Ok(seen)
    }

    /// Explains an empty list, or reports how many alerts the limit cut off.
    fn print_hint(&self, reader: &StoreReader, filter: &Filter, shown: u64) -> anyhow::Result<()> {
        if shown == 0 {
            let has_filter = *filter != Filter::default();
            let mut hint = if has_filter { "no matching alerts" } else { "no alerts" }.to_owned();
            if let Some(rule) = &self.rule {
                let names = reader.rule_names()?;
                if !names.contains(rule) {
                    hint = format!("no alerts of rule `{}`", visible(rule));
                    if let Some(similar) = suggest::did_you_mean(rule, names.iter().map(String::as_str)) {
                        hint.push_str("; ");
                        hint.push_str(&visible(&similar));
                    }
                }
            }
            rule_files::show(&format!("{hint}\n"));
        } else if self.format == Format::Table && shown == u64::from(self.limit) {
            let more = reader.count(filter)?.saturating_sub(shown);
            if more > 0 {
                rule_files::show(&format!("and {more} older alerts; use --limit 0 to list all\n"));
            }
        }
        Ok(())
    }
}
