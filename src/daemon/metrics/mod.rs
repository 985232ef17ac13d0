//! Metrics: what happened, in numbers.
//!
//! In come facts, told by methods that are named after them; nobody else touches a label. Out comes the text that Prometheus reads.
//! [`TABLE`] is every metric there is, with its labels.
//!
//! Labels come from closed sets: names of sources, sinks and rules are the configuration's, reasons and codes are ours. Exceptions are
//! the names of known registry credentials, of which there are at most [`MOST_ROTATIONS`], each of bounded length, and the topics
//! that Kafka assigned to us. A series is
//! there from the start, at 0, so that a first failure is an increase.

mod kafka;
mod observers;
mod rotations;
mod table;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{Encoder as _, Registry, TextEncoder};

pub use kafka::KafkaMetrics;
pub use observers::{ListenerMetrics, WebhookMetrics};
pub use rotations::MOST_ROTATIONS;
pub use table::{Definition, TABLE};

use crate::detection::alert::Priority;
use crate::detection::audit::envelope::skipped;
use crate::detection::detector::{Counts, forgotten, malformed, truncated};
use rotations::Rotations;
use table::Instruments;

/// The words of [`malformed`] as labels.
const MALFORMED: [(&str, &str); 8] = [
    (malformed::NOT_JSON, "not_json"),
    (malformed::SYNTAX, "syntax"),
    (malformed::NO_EVENT, "no_event"),
    (malformed::TRAILING, "trailing"),
    (malformed::REPEATED, "repeated_member"),
    (malformed::UTF8, "invalid_utf8"),
    (malformed::SURROGATE, "lone_surrogate"),
    (malformed::EXCHANGE, "exchanged_match"),
];

/// The words of [`skipped`] as labels.
const SKIPPED: [(&str, &str); skipped::ALL.len()] = [
    (skipped::OTHER_LOG, "other_log"),
    (skipped::OTHER_KIND, "other_kind"),
    (skipped::CONTROL, "control_message"),
    (skipped::TOO_BIG, "left_out_by_sender"),
    (skipped::EMPTY, "empty"),
    (skipped::UNREADABLE, "unreadable"),
    (skipped::TOO_DEEP, "too_deep"),
    (skipped::TOO_LARGE, "too_large"),
];

/// The words of [`truncated`] as labels.
const TRUNCATED: [(&str, &str); 3] =
    [(truncated::CUT, "cut"), (truncated::TOO_LONG, "too_long"), (truncated::APISERVER, "apiserver")];

/// The words of [`forgotten`] as labels.
const FORGOTTEN: [(&str, &str); 8] = [
    (forgotten::CLUSTER_STATE, "knowledge"),
    (forgotten::WINDOWS, "windows"),
    (forgotten::MATCHES, "matches"),
    (forgotten::LATE, "late_matches"),
    (forgotten::THROTTLES, "throttles"),
    (forgotten::STRANGE, "other_rules"),
    (forgotten::HABITS, "habits"),
    (forgotten::STATE, "state"),
];

/// Credentials whose rotation is no longer told.
const ROTATIONS: &str = "rotations";

/// What a reason has as label that the tables above do not know. A test keeps it from happening.
const OTHER: &str = "other";

fn label(words: &[(&'static str, &'static str)], reason: &str) -> &'static str {
    words.iter().find(|(known, _)| *known == reason).map_or(OTHER, |(_, label)| label)
}

/// Kinds of things that are remembered of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Secrets that are registry credentials.
    Credentials,
    /// Other secrets whose name could be a credential's.
    OtherSecrets,
    /// Pods that take a secret.
    Pods,
    /// Roles that let read secrets.
    Roles,
    /// Namespaces and what they enforce.
    Namespaces,
}

impl Known {
    /// All kinds.
    pub const ALL: [Known; 5] =
        [Known::Credentials, Known::OtherSecrets, Known::Pods, Known::Roles, Known::Namespaces];

    const fn label(self) -> &'static str {
        match self {
            Known::Credentials => "credentials",
            Known::OtherSecrets => "other_secrets",
            Known::Pods => "pods",
            Known::Roles => "roles",
            Known::Namespaces => "namespaces",
        }
    }
}

/// The rules in use, as the metrics name them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleNames {
    /// Name and priority of each rule and, behind them, each correlation: the order of
    /// [`Detector::rule_names`](crate::detection::detector::Detector::rule_names).
    pub rules: Vec<(String, Priority)>,
    /// What tells this rule set from another one: a hash of its files.
    pub version: String,
}

/// All metrics of the daemon.
pub struct Metrics {
    registry: Registry,
    instruments: Instruments,
    rules: RwLock<RuleNames>,
    rotations: Mutex<Rotations>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Metrics({} in the table)", TABLE.len())
    }
}

fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Metrics {
    /// Starts at zero for these sources.
    ///
    /// # Errors
    /// None that depends on the arguments: when a name in the table is not one, which a test excludes.
    pub fn new(sources: &[String]) -> Result<Arc<Self>, prometheus::Error> {
        let registry = Registry::new();
        let instruments = Instruments::register(&registry)?;
        let metrics =
            Metrics { registry, instruments, rules: RwLock::default(), rotations: Mutex::default() };
        metrics.start(sources);
        Ok(Arc::new(metrics))
    }

    /// Every series that can be known before anything happens.
    fn start(&self, sources: &[String]) {
        let all = &self.instruments;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        all.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        all.start_time.with_label_values::<&str>(&[]).set(now.as_secs_f64());
        for gauge in [
            &all.resident_memory,
            &all.rules_loaded,
            &all.store_bytes,
            &all.store_alerts,
            &all.store_full,
            &all.streams,
        ] {
            gauge.with_label_values::<&str>(&[]).set(0);
        }
        all.store_errors.with_label_values::<&str>(&[]).reset();
        for histogram in [&all.match_latency, &all.alert_delay, &all.store_latency] {
            histogram.with_label_values::<&str>(&[]);
        }
        for source in sources {
            let source = source.as_str();
            for counter in [&all.events, &all.events_outside, &all.bytes, &all.source_errors] {
                counter.with_label_values(&[source]).reset();
            }
            all.lag_bytes.with_label_values(&[source]).set(0);
            all.lag_seconds.with_label_values(&[source]).set(0.0);
            for (_, reason) in MALFORMED {
                all.malformed.with_label_values(&[source, reason]).reset();
            }
            for (_, reason) in SKIPPED {
                all.skipped.with_label_values(&[source, reason]).reset();
            }
            for (_, reason) in TRUNCATED {
                all.truncated.with_label_values(&[source, reason]).reset();
            }
        }
        for (_, what) in FORGOTTEN {
            all.forgotten.with_label_values(&[what]).reset();
        }
        all.forgotten.with_label_values(&[ROTATIONS]).reset();
        for known in Known::ALL {
            all.known.with_label_values(&[known.label()]).set(0);
        }
        for result in ["taken", "refused"] {
            all.rule_reloads.with_label_values(&[result]).reset();
        }
    }

    // Sources and judging.

    /// A source read so many bytes, unpacked.
    pub fn read(&self, source: &str, bytes: u64) {
        self.instruments.bytes.with_label_values(&[source]).inc_by(bytes);
    }

    /// A source failed to read.
    pub fn source_failed(&self, source: &str) {
        self.instruments.source_errors.with_label_values(&[source]).inc();
    }

    /// What a detector saw in what this source handed on. The counts are added, so they must be new each time
    /// ([`take_counts`](crate::detection::detector::Session::take_counts)).
    pub fn judged(&self, source: &str, counts: &Counts) {
        let all = &self.instruments;
        all.events.with_label_values(&[source]).inc_by(counts.events);
        all.events_outside.with_label_values(&[source]).inc_by(counts.outside_time_range);
        for (reason, count) in &counts.malformed {
            all.malformed.with_label_values(&[source, label(&MALFORMED, reason)]).inc_by(*count);
        }
        for (reason, count) in &counts.skipped {
            all.skipped.with_label_values(&[source, label(&SKIPPED, reason)]).inc_by(*count);
        }
        for (reason, count) in &counts.truncated {
            all.truncated.with_label_values(&[source, label(&TRUNCATED, reason)]).inc_by(*count);
        }
        self.forgotten(&counts.forgotten);
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        for (rule, count) in &counts.held_back {
            if let Some((name, _)) = rules.rules.get(*rule) {
                all.held_back.with_label_values(&[name.as_str()]).inc_by(*count);
            }
        }
    }

    /// So much more was forgotten to stay within bounds, by what it was.
    pub fn forgotten(&self, counts: &BTreeMap<&'static str, u64>) {
        for (what, count) in counts {
            self.instruments.forgotten.with_label_values(&[label(&FORGOTTEN, what)]).inc_by(*count);
        }
    }

    /// Judging a batch took so long.
    pub fn judged_in(&self, time: Duration) {
        self.instruments.match_latency.with_label_values::<&str>(&[]).observe(time.as_secs_f64());
    }

    /// How far a source is behind: bytes that it has not read, and the age of the last event it has.
    pub fn lag(&self, source: &str, bytes: u64, age: Duration) {
        self.instruments.lag_bytes.with_label_values(&[source]).set(int(bytes));
        self.instruments.lag_seconds.with_label_values(&[source]).set(age.as_secs_f64());
    }

    // Alerts, and what is known.

    /// An alert of the rule with this index was stored now; its event is of that time (nanoseconds since 1970), 0 where it does not say.
    pub fn alert(&self, rule: usize, event_time: i64) {
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        let Some((name, priority)) = rules.rules.get(rule) else { return };
        self.instruments.alerts.with_label_values(&[name.as_str(), priority.name()]).inc();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if let Ok(event_time @ 1..) = u64::try_from(event_time) {
            // A clock that goes behind the apiserver's makes no negative delay.
            let delay = now.saturating_sub(Duration::from_nanos(event_time));
            self.instruments.alert_delay.with_label_values::<&str>(&[]).observe(delay.as_secs_f64());
        }
    }

    /// So much is remembered of that kind.
    pub fn known(&self, what: Known, count: usize) {
        self.instruments.known.with_label_values(&[what.label()]).set(int(count as u64));
    }

    /// A registry credential was written at that time (nanoseconds since 1970). Of more than [`MOST_ROTATIONS`] the one is no longer
    /// told that was not written for the longest time.
    pub fn rotated(&self, namespace: &str, secret: &str, time: i64) {
        let mut rotations = self.rotations.lock().unwrap_or_else(PoisonError::into_inner);
        let all = &self.instruments;
        let change = rotations.rotated(namespace, secret, time);
        if let Some((namespace, secret)) = change.forgotten {
            let _ = all.rotation.remove_label_values(&[&namespace, &secret]);
            all.forgotten.with_label_values(&[ROTATIONS]).inc();
        }
        if let Some(((namespace, secret), time)) = change.shown {
            #[allow(clippy::cast_precision_loss)] // Microseconds are enough.
            let seconds = time as f64 / 1e9;
            all.rotation.with_label_values(&[&namespace, &secret]).set(seconds);
        }
    }

    /// A registry credential was deleted.
    pub fn credential_gone(&self, namespace: &str, secret: &str) {
        let mut rotations = self.rotations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((namespace, secret)) = rotations.gone(namespace, secret) {
            let _ = self.instruments.rotation.remove_label_values(&[&namespace, &secret]);
        }
    }

    // Rules.

    /// These rules are in use from now on. Series of rules that are gone go with them.
    pub fn rules_in_use(&self, new: RuleNames) {
        let all = &self.instruments;
        let mut rules = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        for (name, priority) in &rules.rules {
            if !new.rules.contains(&(name.clone(), *priority)) {
                let _ = all.alerts.remove_label_values(&[name.as_str(), priority.name()]);
                let _ = all.held_back.remove_label_values(&[name.as_str()]);
            }
        }
        for (name, priority) in &new.rules {
            all.alerts.with_label_values(&[name.as_str(), priority.name()]);
            all.held_back.with_label_values(&[name.as_str()]);
        }
        all.rules_loaded.with_label_values::<&str>(&[]).set(int(new.rules.len() as u64));
        all.rule_set.reset();
        all.rule_set.with_label_values(&[new.version.as_str()]).set(1);
        *rules = new;
    }

    /// Rule files changed, and were taken or refused.
    pub fn rules_reloaded(&self, taken: bool) {
        self.instruments.rule_reloads.with_label_values(&[result(taken)]).inc();
    }

    // The store.

    /// How large the store is, and how many alerts are in it.
    pub fn store_holds(&self, bytes: u64, alerts: u64) {
        self.instruments.store_bytes.with_label_values::<&str>(&[]).set(int(bytes));
        self.instruments.store_alerts.with_label_values::<&str>(&[]).set(int(alerts));
    }

    /// The store could not be written or read.
    pub fn store_failed(&self) {
        self.instruments.store_errors.with_label_values::<&str>(&[]).inc();
    }

    /// Whether anything more can be stored.
    pub fn store_full(&self, full: bool) {
        self.instruments.store_full.with_label_values::<&str>(&[]).set(i64::from(full));
    }

    /// Storing a batch took so long.
    pub fn stored_in(&self, time: Duration) {
        self.instruments.store_latency.with_label_values::<&str>(&[]).observe(time.as_secs_f64());
    }

    /// The instruments themselves, for rooms that have reasons of their own to count by.
    pub(crate) fn instruments(&self) -> &Instruments {
        &self.instruments
    }

    /// Everything, in the text format of Prometheus (0.0.4).
    pub fn render(&self) -> String {
        let memory = resident_memory().unwrap_or(0);
        self.instruments.resident_memory.with_label_values::<&str>(&[]).set(int(memory));
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics cannot be written");
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

const fn result(taken: bool) -> &'static str {
    if taken { "taken" } else { "refused" }
}

/// Bytes of memory of this process, where the system says so in `/proc`.
fn resident_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

#[cfg(test)]
mod tests;
