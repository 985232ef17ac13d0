//! Counts for the summary, in bounded memory because clients choose the names in events.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::detection::alert::Priority;
use crate::detection::detector::Stats;
use crate::detection::engine::alert::Alert;

/// Maximum number of distinct names. Beyond it the less frequent half is merged into [`Names::others`], so that a frequent name
/// survives a flood of invented ones.
const MAX_NAMES: usize = 10_000;

/// Names are truncated to this number of bytes: a client may send a million.
const MAX_NAME_LEN: usize = 256;

/// Number of alerts by name.
#[derive(Debug, Default)]
pub struct Names {
    counts: HashMap<String, u64, RandomState>,
    /// Alerts of names that were merged. If greater than zero, the counts of all names are lower bounds.
    pub others: u64,
}

impl Names {
    fn add(&mut self, name: &str, count: u64) {
        let end = (0..=MAX_NAME_LEN.min(name.len())).rev().find(|&end| name.is_char_boundary(end));
        let name = &name[..end.unwrap_or(0)];
        if let Some(known) = self.counts.get_mut(name) {
            *known += count;
            return;
        }
        if self.counts.len() >= MAX_NAMES {
            self.merge_rare();
        }
        self.counts.insert(name.to_owned(), count);
    }

    fn merge_rare(&mut self) {
        let mut names: Vec<_> = self.counts.drain().collect();
        names.select_nth_unstable_by(MAX_NAMES / 2, |a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        self.others += names.drain(MAX_NAMES / 2..).map(|(_, count)| count).sum::<u64>();
        self.counts = names.into_iter().collect();
    }

    /// The most frequent names, in descending order.
    pub fn top(&self, limit: usize) -> Vec<(&str, u64)> {
        let mut names: Vec<_> = self.counts.iter().map(|(name, &count)| (name.as_str(), count)).collect();
        names.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        names.truncate(limit);
        names
    }

    pub fn len(&self) -> usize {
        self.counts.len()
    }
}

/// Counts of one thread or of the whole scan.
#[derive(Debug, Default)]
pub struct Tally {
    pub counts: Stats,
    /// Uncompressed bytes read.
    pub bytes: u64,
    /// Priority and number of alerts by rule index.
    pub rules: HashMap<usize, (Priority, u64)>,
    pub actors: Names,
    pub targets: Names,
}

impl Tally {
    pub fn alert(&mut self, alert: &Alert<'_>) {
        self.rules.entry(alert.rule()).or_insert((alert.priority(), 0)).1 += 1;
        self.actors.add(alert.actor(), 1);
        self.targets.add(alert.target(), 1);
    }

    pub fn add(&mut self, other: Tally) {
        self.counts.add(&other.counts);
        self.bytes += other.bytes;
        for (rule, (priority, count)) in other.rules {
            self.rules.entry(rule).or_insert((priority, 0)).1 += count;
        }
        for (own, names) in [(&mut self.actors, other.actors), (&mut self.targets, other.targets)] {
            own.others += names.others;
            let mut names: Vec<_> = names.counts.into_iter().collect();
            names.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
            for (name, count) in names {
                own.add(&name, count);
            }
        }
    }

    pub fn alerts(&self) -> u64 {
        self.rules.values().map(|(_, count)| count).sum()
    }

    /// The highest priority of all alerts.
    pub fn highest(&self) -> Option<Priority> {
        self.rules.values().map(|(priority, _)| *priority).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_invented_names_is_bounded_and_hides_no_frequent_name() {
        let mut names = Names::default();
        for number in 0..100_000 {
            names.add(&format!("{number}{}", "é".repeat(1000)), 1);
            if number > 50_000 && number % 10 == 0 {
                names.add("mallory", 1);
            }
        }
        assert_eq!(names.top(1), [("mallory", 4999)]);
        assert!(names.len() <= MAX_NAMES && names.counts.keys().all(|name| name.len() <= MAX_NAME_LEN));
        let sum: u64 = names.counts.values().sum();
        assert_eq!(sum + names.others, 100_000 + 4999);
    }
}
