//! `pullwatch alerts list`.

use std::io::{BufWriter, Write as _};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::super::scan::{bounds, priority};
use super::super::{rule_files, table, visible};
use super::{StateDir, json, short, when};
use crate::daemon::store::{Filter, Listed, Reader};
use crate::detection::alert::Priority;
use crate::text::suggest;

/// How many alerts are read at once: some megabytes.
const PAGE: u32 = 2000;

/// List stored alerts, newest first
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pullwatch alerts list                                the newest alerts
  pullwatch alerts list --since 2h --priority error    the last two hours, only what is bad
  pullwatch alerts list --user mallory --unacknowledged
                                                       what somebody did and nobody looked at yet
  pullwatch alerts list --rule 'Secrets Listed' --limit 0 --format json | jq .event.sourceIPs
                                                       all of a rule, for other programs

Times are of the events, in UTC. `pullwatch alerts show ID` says the rest of an alert; the first digits of an ID are enough.")]
pub struct List {
    /// Only alerts of this rule.
    #[arg(short, long, value_name = "NAME")]
    rule: Option<String>,

    /// Leave out alerts less bad than this.
    #[arg(short, long, value_name = "MIN", value_parser = priority)]
    priority: Option<Priority>,

    /// Only alerts of users whose name has this in it: the user, or whom they posed as.
    #[arg(short, long, value_name = "TEXT")]
    user: Option<String>,

    /// Only events from this time on: 2026-11-23T10:00:00Z, 2026-11-23, or 2h, 7d (ago).
    #[arg(long, value_name = "TIME", value_parser = bounds::parse)]
    since: Option<i64>,

    /// Only events before this time.
    #[arg(long, value_name = "TIME", value_parser = bounds::parse)]
    until: Option<i64>,

    /// Only alerts that nobody acknowledged.
    #[arg(long)]
    unacknowledged: bool,

    /// So many at most, 0 for all.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50)]
    limit: u32,

    /// How to print them.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    format: Format,

    #[command(flatten)]
    state: StateDir,
}

/// How to print alerts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people: one alert a row.
    Table,
    /// For programs: one JSON object a line, as the sinks send it, with who acknowledged it.
    Json,
}

/// A text as a cell: one that is very long, and an attacker's, must not push the columns of all rows apart.
fn cell(text: &str) -> String {
    const LONGEST: usize = 80;
    let mut cell = visible(text);
    if let Some((end, _)) = cell.char_indices().nth(LONGEST) {
        cell.truncate(end);
        cell.push('…');
    }
    cell
}

impl List {
    /// Reads and prints.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        if let (Some(since), Some(until)) = (self.since, self.until) {
            anyhow::ensure!(since < until, "no time is left: --since is not before --until");
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
        self.remark(&reader, &filter, shown)?;
        Ok(ExitCode::SUCCESS)
    }

    fn table(&self, reader: &Reader, filter: &Filter) -> anyhow::Result<u64> {
        let mut table = table::table(&["TIME", "PRIORITY", "ID", "RULE", "USER", "TARGET", "ACKNOWLEDGED"]);
        let seen = self.each(reader, filter, |listed| {
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

    fn json(&self, reader: &Reader, filter: &Filter) -> anyhow::Result<u64> {
        let mut out = BufWriter::new(std::io::stdout().lock());
        let seen = self.each(reader, filter, |listed| {
            Ok(writeln!(out, "{}", json::text(&json::object(listed), false)?)?)
        })?;
        out.flush()?;
        Ok(seen)
    }

    /// Reads page by page, so that no number of alerts takes much memory. How many there were.
    fn each(
        &self,
        reader: &Reader,
        filter: &Filter,
        mut show: impl FnMut(&Listed) -> anyhow::Result<()>,
    ) -> anyhow::Result<u64> {
        let (mut seen, mut last) = (0, i64::MAX);
        let wanted = if self.limit == 0 { u64::MAX } else { u64::from(self.limit) };
        while seen < wanted {
            let limit = u32::try_from(wanted - seen).unwrap_or(PAGE).min(PAGE);
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

    /// Says what is not in the list.
    fn remark(&self, reader: &Reader, filter: &Filter, shown: u64) -> anyhow::Result<()> {
        if shown == 0 {
            let mut remark = "no alerts".to_owned();
            if *filter != Filter::default() {
                remark.push_str(" are so");
            }
            if let Some(rule) = &self.rule {
                let names = reader.rule_names()?;
                if !names.contains(rule) {
                    remark = format!("no alerts are of a rule `{}`", visible(rule));
                    if let Some(hint) = suggest::did_you_mean(rule, names.iter().map(String::as_str)) {
                        remark.push_str("; ");
                        remark.push_str(&visible(&hint));
                    }
                }
            }
            rule_files::show(&format!("{remark}\n"));
        } else if self.format == Format::Table && shown == u64::from(self.limit) {
            let more = reader.count(filter)?.saturating_sub(shown);
            if more > 0 {
                rule_files::show(&format!("and {more} older; --limit 0 lists all\n"));
            }
        }
        Ok(())
    }
}
