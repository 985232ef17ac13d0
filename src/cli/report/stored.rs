//! A report on the alerts that `run` stored: for sources without a log, such as a webhook or Kafka.

use std::collections::HashMap;
use std::path::Path;

use super::{Page, ReportSource};
use crate::cli::replay::LogInput;
use crate::cli::rule_files;
use crate::daemon::store::StoreReader;
use crate::detection::history::{StoredReads, Times, is_per_reader};
use crate::detection::rules::Matching;

/// Number of alerts read at once.
const PAGE_SIZE: u32 = 500;

/// Reads the store of a directory, even while the daemon is running.
pub fn read(dir: &Path, input: &LogInput) -> anyhow::Result<Page> {
    input.check_time_range()?;
    // A rule determines whether its alerts are about readers. A rule that no longer exists counts as one whose alerts are.
    let rules = rule_files::load_files(&input.rule_files()?, Matching::All)?.rules;
    let per_reader: HashMap<&str, bool> =
        rules.rules.iter().map(|rule| (&*rule.name, is_per_reader(rule))).collect();
    let store = StoreReader::open(dir)?;
    let mut reads = StoredReads::default();
    let (mut alerts, mut times, mut last) = (0, Times::default(), 0);
    loop {
        let page = store.after(last, PAGE_SIZE)?;
        let Some(newest) = page.last() else { break };
        last = newest.seq;
        for alert in page.iter().filter(|alert| input.is_in_range(alert.time)) {
            alerts += 1;
            times.widen(Some(alert.time).filter(|&time| time != 0));
            reads.add(alert, per_reader.get(alert.rule.as_str()).copied().unwrap_or(true));
        }
    }
    let (ledger, rules) = reads.finish();
    Ok(Page { report: ledger.report(), origin: ReportSource::Store { alerts, times }, rules })
}
