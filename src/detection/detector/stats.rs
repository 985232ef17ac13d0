//! What was seen, and why something was not judged, or not wholly.

use std::collections::BTreeMap;

/// Why a line, or a part of it, is no sound audit event.
pub mod malformed {
    /// The line is not JSON at all.
    pub const NOT_JSON: &str = "not JSON";
    /// It starts as JSON and goes on as something else.
    pub const SYNTAX: &str = "broken JSON";
    /// It is JSON, but neither an audit event nor a list of them.
    pub const NO_EVENT: &str = "no audit event";
    /// Something follows an event on its line that is none.
    pub const TRAILING: &str = "text behind an event";
    /// The event was judged; the first of equal members counted.
    pub const REPEATED: &str = "member given twice (judged by the first)";
    /// The event was judged; what is no UTF-8 was read as U+FFFD.
    pub const UTF8: &str = "invalid UTF-8 (judged, read as U+FFFD)";
    /// What another replica wrote for us makes no sense.
    pub const EXCHANGE: &str = "match of another replica that cannot be read";
    /// The event was judged; half of a surrogate pair was read as U+FFFD.
    pub const SURROGATE: &str = "lone surrogate (judged, read as U+FFFD)";
}

/// Why an event was judged by a part of it.
pub mod truncated {
    /// Its line ends in the middle.
    pub const CUT: &str = "cut off in the middle";
    /// Its line is longer than the limit.
    pub const TOO_LONG: &str = "longer than --max-event-size";
    /// The apiserver took its objects out (annotation `audit.k8s.io/truncated`).
    pub const APISERVER: &str = "by the apiserver";
}

/// What was forgotten to stay within bounds.
pub mod forgotten {
    /// Secrets, pods, roles and namespaces that were learned of.
    pub const CLUSTER_STATE: &str = "what was learned of secrets, pods, roles and namespaces";
    /// Groups of correlations.
    pub const WINDOWS: &str = "windows of correlations";
    /// Matches that a full window had no room for.
    pub const MATCHES: &str = "matches in windows that were full";
    /// Matches that came after their window was over.
    pub const LATE: &str = "matches that came too late for their window";
    /// Matches that another replica found by other rules.
    pub const STRANGE: &str = "matches for correlations of other rules";
    /// Reads that are not told apart, since there are too many of them.
    pub const HABITS: &str = "reads that recur, of which there are too many";
    /// Combinations of values that a throttle remembers.
    pub const THROTTLES: &str = "throttled combinations (told again)";
    /// Entries of a store, and windows and throttles of rules that are no more.
    pub const STATE: &str = "stored state of other rules or another version";
}

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Audit events, judged or passed over because no rule can match them.
    pub events: u64,
    /// Events outside the time range asked for.
    pub outside_time_range: u64,
    /// Lines by what is wrong with them.
    pub malformed: BTreeMap<&'static str, u64>,
    /// Records of wrappers that held no audit event, by why (see [`skipped`](crate::detection::audit::envelope::skipped)).
    pub skipped: BTreeMap<&'static str, u64>,
    /// Events of which a part is missing, by why.
    pub truncated: BTreeMap<&'static str, u64>,
    /// What was forgotten because there was too much of it, by what it was.
    pub forgotten: BTreeMap<&'static str, u64>,
    /// Alerts that a throttle held back and that no later alert tells of, by rule (its index).
    pub held_back: BTreeMap<usize, u64>,
}

impl Counts {
    /// Adds what another session saw.
    pub fn add(&mut self, other: &Counts) {
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
        for (what, count) in &other.forgotten {
            *self.forgotten.entry(what).or_default() += count;
        }
        for (rule, count) in &other.held_back {
            *self.held_back.entry(*rule).or_default() += count;
        }
    }
}
