//! Counts of what a detector read, and the named reasons for what it could not evaluate or had to evict.

use std::collections::BTreeMap;

/// The reason why a record, or a part of it, is malformed.
pub mod malformed {
    /// The record is not JSON.
    pub const NOT_JSON: &str = "not JSON";
    /// The record begins as JSON and breaks off with a syntax error.
    pub const SYNTAX: &str = "broken JSON";
    /// Valid JSON, but neither an audit event nor a list of them.
    pub const NO_EVENT: &str = "not an audit event";
    /// The line contains something other than an event after an event.
    pub const TRAILING: &str = "text after an event";
    /// What looks like an event is at a position where a client may have written it.
    pub const TAIL: &str = "end of an event without its beginning";
    /// Evaluated; the first of equal members counts.
    pub const REPEATED: &str = "duplicate member (first one used)";
    /// Evaluated; invalid UTF-8 was read as U+FFFD.
    pub const UTF8: &str = "invalid UTF-8 (read as U+FFFD)";
    /// A message of the repartition topic cannot be decoded.
    pub const REPARTITION: &str = "undecodable match of another replica";
    /// Evaluated; half of a surrogate pair was read as U+FFFD.
    pub const SURROGATE: &str = "lone surrogate (read as U+FFFD)";
}

/// The reason why only a part of an event was evaluated.
pub mod truncated {
    /// The record is truncated.
    pub const CUT: &str = "cut off";
    /// The record is longer than the limit.
    pub const TOO_LONG: &str = "longer than --max-event-size";
    /// The apiserver removed the objects (annotation `audit.k8s.io/truncated`).
    pub const APISERVER: &str = "by the apiserver";
}

/// What was evicted or dropped to stay within memory limits.
pub mod evicted {
    /// Secrets, pods, roles, namespaces and addresses of nodes in the cluster state.
    pub const CLUSTER_STATE: &str = "cluster state (secrets, pods, roles, namespaces, nodes)";
    /// Registry credentials of the cluster state that were known by type or content.
    pub const CREDENTIALS: &str = "known registry credentials";
    /// Profiles of identities that read secrets. The next read of such an identity counts as its first.
    pub const READERS: &str = "reader profiles";
    /// Groups of correlations.
    pub const GROUPS: &str = "correlation groups";
    /// Correlation groups that already had some of the matches that the condition requires. [`GROUPS`] counts them too.
    pub const ADVANCED_GROUPS: &str = "correlation groups close to their condition";
    /// Matches that were dropped because their correlation group had reached its maximum size.
    pub const OBSERVATIONS: &str = "matches in full correlation groups";
    /// Matches that arrived after their window had closed.
    pub const LATE: &str = "matches too late for their window";
    /// Matches of another replica for correlations that this rule set does not have.
    pub const FOREIGN_RULE_SET: &str = "matches of other rule sets";
    /// Reads beyond the number that are tracked separately.
    pub const RECURRING_READS: &str = "recurring reads beyond the limit";
    /// Combinations of values that a throttle tracks. Their next alert is emitted at once.
    pub const THROTTLES: &str = "throttled combinations";
    /// Stored entries that could not be restored, and windows and throttles of rules that changed.
    pub const STATE: &str = "stored state of another rule set or version";
}

/// Counts since the last call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Audit events, evaluated or skipped because no rule can match them.
    pub events: u64,
    /// Events outside the requested time range.
    pub outside_time_range: u64,
    /// Malformed records, by reason ([`malformed`]).
    pub malformed: BTreeMap<&'static str, u64>,
    /// Records of wrappers that held no audit event, by reason
    /// ([`skipped`](crate::detection::audit::envelope::skipped)).
    pub skipped: BTreeMap<&'static str, u64>,
    /// For each reason in `malformed` and `skipped`, the shape of one record that was counted under it: its structure, without
    /// values that could be secret.
    pub shapes: BTreeMap<&'static str, String>,
    /// Events of which only a part was evaluated, by reason ([`truncated`]).
    pub truncated: BTreeMap<&'static str, u64>,
    /// What was evicted or dropped, by kind ([`evicted`]).
    pub evicted: BTreeMap<&'static str, u64>,
    /// Throttled alerts that no later alert has reported as suppressed, by index of the rule.
    pub throttled: BTreeMap<usize, u64>,
}

impl Stats {
    /// Adds the counts of another session.
    pub fn add(&mut self, other: &Stats) {
        self.events += other.events;
        self.outside_time_range += other.outside_time_range;
        for (reason, count) in &other.malformed {
            *self.malformed.entry(reason).or_default() += count;
        }
        for (reason, count) in &other.skipped {
            *self.skipped.entry(reason).or_default() += count;
        }
        for (reason, count) in &other.truncated {
            *self.truncated.entry(reason).or_default() += count;
        }
        for (reason, shape) in &other.shapes {
            // The smallest one, so that the result does not depend on the order in which threads finish.
            let kept = self.shapes.entry(reason).or_insert_with(|| shape.clone());
            if shape < kept {
                kept.clone_from(shape);
            }
        }
        for (what, count) in &other.evicted {
            *self.evicted.entry(what).or_default() += count;
        }
        for (rule, count) in &other.throttled {
            *self.throttled.entry(*rule).or_default() += count;
        }
    }
}
