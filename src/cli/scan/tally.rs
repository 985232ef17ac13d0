//! Counting what was seen, in bounded memory: names in events are whatever a client made up.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::detection::alert::Priority;
use crate::detection::detector::Stats;
use crate::detection::engine::alert::Alert;

/// How many different names are told apart. With more, the least frequent half is counted as others: so a name
/// that is frequent is found even if somebody sent ten thousand invented ones before it.
const MOST_NAMES: usize = 10_000;

/// A name is kept up to so many bytes; a client can send a million.
const LONGEST_NAME: usize = 256;

/// Stats names.
#[derive(Debug, Default)]
pub struct Names {
    counts: HashMap<String, u64, RandomState>,
    /// Alerts of names that were too rare to keep. Above zero, the counts of the others are lower bounds.
    pub others: u64,
}

impl Names {
    fn add(&mut self, name: &str, count: u64) {
        let end = (0..=LONGEST_NAME.min(name.len())).rev().find(|&end| name.is_char_boundary(end));
        let name = &name[..end.unwrap_or(0)];
        if let Some(known) = self.counts.get_mut(name) {
            *known += count;
            return;
        }
        if self.counts.len() >= MOST_NAMES {
            self.forget_rare();
        }
        self.counts.insert(name.to_owned(), count);
    }

    fn forget_rare(&mut self) {
        let mut names: Vec<_> = self.counts.drain().collect();
        names.select_nth_unstable_by(MOST_NAMES / 2, |a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        self.others += names.drain(MOST_NAMES / 2..).map(|(_, count)| count).sum::<u64>();
        self.counts = names.into_iter().collect();
    }

    /// The most frequent ones, most first.
    pub fn top(&self, most: usize) -> Vec<(&str, u64)> {
        let mut names: Vec<_> = self.counts.iter().map(|(name, &count)| (name.as_str(), count)).collect();
        names.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        names.truncate(most);
        names
    }

    /// How many different names there are.
    pub fn len(&self) -> usize {
        self.counts.len()
    }
}

/// What one thread, or all, saw.
#[derive(Debug, Default)]
pub struct Tally {
    /// Events and what is wrong with them.
    pub counts: Stats,
    /// Bytes, uncompressed.
    pub bytes: u64,
    /// Alerts by rule (its index), with its priority.
    pub rules: HashMap<usize, (Priority, u64)>,
    /// Alerts by who.
    pub actors: Names,
    /// Alerts by what.
    pub targets: Names,
}

impl Tally {
    /// Stats an alert.
    pub fn alert(&mut self, alert: &Alert<'_>) {
        self.rules.entry(alert.rule()).or_insert((alert.priority(), 0)).1 += 1;
        self.actors.add(alert.actor(), 1);
        self.targets.add(alert.target(), 1);
    }

    /// Adds what another thread saw.
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

    /// How many alerts there are.
    pub fn alerts(&self) -> u64 {
        self.rules.values().map(|(_, count)| count).sum()
    }

    /// The worst priority of an alert.
    pub fn worst(&self) -> Option<Priority> {
        self.rules.values().map(|(priority, _)| *priority).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invented_names_hide_nobody_and_take_no_memory() {
        let mut names = Names::default();
        for number in 0..100_000 {
            names.add(&format!("{number}{}", "é".repeat(1000)), 1);
            if number > 50_000 && number % 10 == 0 {
                names.add("mallory", 1);
            }
        }
        assert_eq!(names.top(1), [("mallory", 4999)]);
        assert!(names.len() <= MOST_NAMES && names.counts.keys().all(|name| name.len() <= LONGEST_NAME));
        let sum: u64 = names.counts.values().sum();
        assert_eq!(sum + names.others, 100_000 + 4999);
    }
}
