//! Metrics of the daemon, in the text format of Prometheus.
//!
//! Has one method per kind of pipeline event, so that label values are only set in this module. Returns the exposition text. [`TABLE`]
//! lists all metrics with their labels.
//!
//! Label values come from closed sets: names of sources, sinks and rules are in the configuration; reasons and codes are constants. The
//! exceptions are bounded in number and length: namespace and name of at most [`MAX_ROTATIONS`](rotations::MAX_ROTATIONS) registry
//! credentials, credentials and actors of at most [`MAX_SERIES`](identities::MAX_SERIES) exposures each, and the topics that Kafka assigned
//! to this process. No other value from an event may become a label, and these only if [`Settings::identities`] is set.
//!
//! Series are created at 0 on start, so that the first failure is an increase.

mod exposition;
mod identities;
mod kafka;
mod number;
mod observers;
mod process;
mod rotations;
mod table;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use prometheus::{Encoder as _, Registry, TextEncoder};

pub use exposition::Exposition;
pub(crate) use identities::Exposed;
pub(crate) use kafka::KafkaMetrics;
pub use observers::{ListenerMetrics, WebhookMetrics};
pub use table::{Definition, TABLE};

use crate::daemon::time::since_epoch;
use crate::detection::alert::Priority;
use crate::detection::audit::envelope::skipped;
use crate::detection::detector::{Stats, evicted, malformed, truncated};
use identities::{Identities, REST};
use number::int;
use process::ProcessMetrics;
use rotations::Rotations;
use table::Instruments;

/// Label values of the reasons in [`malformed`].
const MALFORMED: [(&str, &str); 9] = [
    (malformed::NOT_JSON, "not_json"),
    (malformed::SYNTAX, "syntax"),
    (malformed::NO_EVENT, "no_event"),
    (malformed::TRAILING, "trailing"),
    (malformed::TAIL, "tail"),
    (malformed::REPEATED, "repeated_member"),
    (malformed::UTF8, "invalid_utf8"),
    (malformed::SURROGATE, "lone_surrogate"),
    (malformed::REPARTITION, "exchanged_match"),
];

/// Label values of the reasons in [`skipped`].
const SKIPPED: [(&str, &str); skipped::ALL.len()] = [
    (skipped::OTHER_LOG, "other_log"),
    (skipped::OTHER_KIND, "other_kind"),
    (skipped::OTHER_STREAM, "other_stream"),
    (skipped::NO_STREAM, "no_stream"),
    (skipped::OTHER_FORMAT, "other_format"),
    (skipped::OTHER_COLUMNS, "other_columns"),
    (skipped::CONTROL, "control_message"),
    (skipped::TOO_BIG, "left_out_by_sender"),
    (skipped::EMPTY, "empty"),
    (skipped::UNREADABLE, "unreadable"),
    (skipped::TOO_DEEP, "too_deep"),
    (skipped::TOO_LARGE, "too_large"),
    (skipped::PIECE, "piece"),
    (skipped::KUBERNETES_EVENT, "kubernetes_event"),
    (skipped::OTHER_AUDIT_LOG, "other_audit_log"),
];

/// Label values of the reasons in [`truncated`].
const TRUNCATED: [(&str, &str); 3] =
    [(truncated::CUT, "cut"), (truncated::TOO_LONG, "too_long"), (truncated::APISERVER, "apiserver")];

/// Label values of the kinds in [`evicted`].
const EVICTIONS: [(&str, &str); 11] = [
    (evicted::CLUSTER_STATE, "cluster_state"),
    (evicted::READERS, "reader_profiles"),
    (evicted::CREDENTIALS, "credentials"),
    (evicted::GROUPS, "correlation_groups"),
    (evicted::ADVANCED_GROUPS, "advanced_correlation_groups"),
    (evicted::OBSERVATIONS, "observations"),
    (evicted::LATE, "late_matches"),
    (evicted::THROTTLES, "throttles"),
    (evicted::FOREIGN_RULE_SET, "foreign_matches"),
    (evicted::RECURRING_READS, "recurring_reads"),
    (evicted::STATE, "stored_state"),
];

/// Registry credentials whose last rotation is no longer exported.
const ROTATIONS: &str = "credential_rotations";

/// Active alerts that are not sent to Alertmanager again.
pub(crate) const ACTIVE_ALERTS: &str = "active_alerts";

/// Label value for a reason that is missing in the tables above, which a test rules out.
const OTHER: &str = "other";

fn label(words: &[(&'static str, &'static str)], reason: &str) -> &'static str {
    words.iter().find(|(known, _)| *known == reason).map_or(OTHER, |(_, label)| label)
}

/// Kinds of cluster objects that are tracked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TrackedKind {
    Credentials,
    /// Secrets whose name could be that of a registry credential, without other evidence.
    OtherSecrets,
    /// Pods that use a secret.
    Pods,
    /// Roles that grant read access to secrets.
    Roles,
    Namespaces,
}

impl TrackedKind {
    const ALL: [TrackedKind; 5] = [
        TrackedKind::Credentials,
        TrackedKind::OtherSecrets,
        TrackedKind::Pods,
        TrackedKind::Roles,
        TrackedKind::Namespaces,
    ];

    const fn label(self) -> &'static str {
        match self {
            TrackedKind::Credentials => "credentials",
            TrackedKind::OtherSecrets => "other_secrets",
            TrackedKind::Pods => "pods",
            TrackedKind::Roles => "roles",
            TrackedKind::Namespaces => "namespaces",
        }
    }
}

/// Label values of the loaded rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleNames {
    /// Name and priority of each rule, followed by those of each correlation, in the order of
    /// [`Detector::rule_names`](crate::detection::detector::Detector::rule_names).
    pub rules: Vec<(String, Priority)>,
    /// Hash of the rule files.
    pub version: String,
}

/// Which labels may be exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether names of users and credentials may be label values.
    pub identities: bool,
    /// Constant labels of all metrics, as names and values.
    pub labels: Vec<(String, String)>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { identities: true, labels: Vec::new() }
    }
}

/// All metrics of the daemon.
pub struct Metrics {
    registry: Registry,
    instruments: Instruments,
    rules: RwLock<RuleNames>,
    rotations: Mutex<Rotations>,
    /// `None` if names must not be label values.
    identities: Option<Mutex<Identities>>,
    process: ProcessMetrics,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Metrics({} in the table)", TABLE.len())
    }
}

impl Metrics {
    /// Registers all metrics and creates the series of these sources.
    ///
    /// # Errors
    /// If the table holds an invalid or a duplicate name, which a test excludes.
    pub fn new(sources: &[String]) -> Result<Arc<Self>, prometheus::Error> {
        Self::with_settings(sources, &Settings::default())
    }

    /// Registers all metrics and creates the series of these sources.
    ///
    /// # Errors
    /// If the table holds an invalid or a duplicate name, or a constant label has the name of another label.
    pub fn with_settings(sources: &[String], settings: &Settings) -> Result<Arc<Self>, prometheus::Error> {
        let labels: HashMap<String, String> = settings.labels.iter().cloned().collect();
        let registry = Registry::new_custom(None, (!labels.is_empty()).then_some(labels))?;
        let instruments = Instruments::register(&registry)?;
        let metrics = Metrics {
            registry,
            instruments,
            rules: RwLock::default(),
            rotations: Mutex::default(),
            identities: settings.identities.then(Mutex::default),
            process: ProcessMetrics::default(),
        };
        metrics.start(sources);
        Ok(Arc::new(metrics))
    }

    /// Creates every series whose labels are known in advance.
    fn start(&self, sources: &[String]) {
        let all = &self.instruments;
        let now = since_epoch();
        all.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        all.start_time.with_label_values::<&str>(&[]).set(now.as_secs_f64());
        for gauge in [&all.rules_loaded, &all.store_bytes, &all.store_alerts, &all.store_full, &all.streams] {
            gauge.with_label_values::<&str>(&[]).set(0);
        }
        all.store_errors.with_label_values::<&str>(&[]).reset();
        for histogram in [&all.match_latency, &all.alert_latency, &all.store_latency] {
            histogram.with_label_values::<&str>(&[]);
        }
        for source in sources {
            let source = source.as_str();
            for counter in [&all.events, &all.bytes, &all.source_errors] {
                counter.with_label_values(&[source]).reset();
            }
            all.source_up.with_label_values(&[source]).set(1);
            all.degraded.with_label_values(&[source]).set(0);
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
        if self.identities.is_some() {
            all.credential_exposures.with_label_values(&[REST; 4]).reset();
            all.actor_exposures.with_label_values(&[REST; 3]).reset();
        }
        for (_, kind) in EVICTIONS {
            all.evictions.with_label_values(&[kind]).reset();
        }
        all.evictions.with_label_values(&[ROTATIONS]).reset();
        all.evictions.with_label_values(&[ACTIVE_ALERTS]).reset();
        for kind in TrackedKind::ALL {
            all.tracked.with_label_values(&[kind.label()]).set(0);
        }
        for success in [true, false] {
            all.rule_reloads.with_label_values(&[result(success)]).reset();
        }
    }

    // Sources and evaluation.

    /// Adds uncompressed bytes read by a source.
    pub(crate) fn add_bytes(&self, source: &str, bytes: u64) {
        self.instruments.bytes.with_label_values(&[source]).inc_by(bytes);
    }

    pub(crate) fn source_error(&self, source: &str) {
        self.instruments.source_errors.with_label_values(&[source]).inc();
    }

    /// Sets whether a source is readable or connected.
    pub(crate) fn set_source_up(&self, source: &str, is_up: bool) {
        self.instruments.source_up.with_label_values(&[source]).set(i64::from(is_up));
    }

    /// Adds the detector's counts for records of this source since the last call
    /// ([`take_stats`](crate::detection::detector::Session::take_stats)).
    pub(crate) fn add_counts(&self, source: &str, counts: &Stats) {
        let all = &self.instruments;
        all.events.with_label_values(&[source]).inc_by(counts.events);
        for (reason, count) in &counts.malformed {
            all.malformed.with_label_values(&[source, label(&MALFORMED, reason)]).inc_by(*count);
        }
        for (reason, count) in &counts.skipped {
            all.skipped.with_label_values(&[source, label(&SKIPPED, reason)]).inc_by(*count);
        }
        for (reason, count) in &counts.truncated {
            all.truncated.with_label_values(&[source, label(&TRUNCATED, reason)]).inc_by(*count);
        }
        self.add_evictions(&counts.evicted);
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        for (rule, count) in &counts.throttled {
            if let Some((name, _)) = rules.rules.get(*rule) {
                all.throttled.with_label_values(&[name.as_str()]).inc_by(*count);
            }
        }
    }

    /// Adds evictions since the last call, by kind.
    pub(crate) fn add_evictions(&self, counts: &BTreeMap<&'static str, u64>) {
        for (kind, count) in counts {
            self.instruments.evictions.with_label_values(&[label(&EVICTIONS, kind)]).inc_by(*count);
        }
    }

    /// Records how long the evaluation of a batch took.
    pub(crate) fn observe_evaluation(&self, time: Duration) {
        self.instruments.match_latency.with_label_values::<&str>(&[]).observe(time.as_secs_f64());
    }

    /// Sets whether all or most records of a source are not audit events.
    pub(crate) fn set_degraded(&self, source: &str, is_degraded: bool) {
        self.instruments.degraded.with_label_values(&[source]).set(i64::from(is_degraded));
    }

    /// Sets how far a source is behind: bytes not yet read, and the age of the newest evaluated event.
    pub(crate) fn set_lag(&self, source: &str, bytes: u64, age: Duration) {
        self.instruments.lag_bytes.with_label_values(&[source]).set(int(bytes));
        self.instruments.lag_seconds.with_label_values(&[source]).set(age.as_secs_f64());
    }

    // Alerts and cluster state.

    /// Counts a stored alert of the rule with this index. `event_time` is in nanoseconds since 1970-01-01T00:00:00Z, 0 if unknown.
    pub(crate) fn alert_stored(&self, rule: usize, event_time: i64) {
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        let Some((name, priority)) = rules.rules.get(rule) else { return };
        self.instruments.alerts.with_label_values(&[name.as_str(), priority.name()]).inc();
        let now = since_epoch();
        if let Ok(event_time @ 1..) = u64::try_from(event_time) {
            // If this host's clock is behind the apiserver's, the latency must not become negative.
            let latency = now.saturating_sub(Duration::from_nanos(event_time));
            self.instruments.alert_latency.with_label_values::<&str>(&[]).observe(latency.as_secs_f64());
        }
    }

    /// Counts an event that exposed registry credentials.
    pub(crate) fn exposed(&self, exposed: &Exposed) {
        let Some(identities) = &self.identities else { return };
        let mut identities = identities.lock().unwrap_or_else(PoisonError::into_inner);
        let all = &self.instruments;
        all.actor_exposures.with_label_values(&identities.actor(exposed)).inc();
        for secret in &exposed.secrets {
            all.credential_exposures.with_label_values(&identities.credential(secret, exposed)).inc();
        }
    }

    pub(crate) fn set_tracked(&self, kind: TrackedKind, count: usize) {
        self.instruments.tracked.with_label_values(&[kind.label()]).set(int(count as u64));
    }

    /// Records that a registry credential was written at this time (nanoseconds since 1970-01-01T00:00:00Z). Beyond
    /// [`MAX_ROTATIONS`](rotations::MAX_ROTATIONS) credentials, the one with the oldest time is evicted.
    pub(crate) fn credential_rotated(&self, namespace: &str, secret: &str, time: i64) {
        if self.identities.is_none() {
            return;
        }
        let mut rotations = self.rotations.lock().unwrap_or_else(PoisonError::into_inner);
        let all = &self.instruments;
        let change = rotations.rotated(namespace, secret, time);
        if let Some((namespace, secret)) = change.evicted {
            let _ = all.rotation.remove_label_values(&[&namespace, &secret]);
            all.evictions.with_label_values(&[ROTATIONS]).inc();
        }
        if let Some(((namespace, secret), time)) = change.exported {
            #[allow(clippy::cast_precision_loss)] // Microseconds are enough.
            let seconds = time as f64 / 1e9;
            all.rotation.with_label_values(&[&namespace, &secret]).set(seconds);
        }
    }

    pub(crate) fn credential_deleted(&self, namespace: &str, secret: &str) {
        let mut rotations = self.rotations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((namespace, secret)) = rotations.deleted(namespace, secret) {
            let _ = self.instruments.rotation.remove_label_values(&[&namespace, &secret]);
        }
    }

    // Rules.

    /// Creates the series of the loaded rules and removes those of rules that are no longer loaded.
    pub(crate) fn set_rules(&self, new: RuleNames) {
        let all = &self.instruments;
        let mut rules = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        for (name, priority) in &rules.rules {
            if !new.rules.contains(&(name.clone(), *priority)) {
                let _ = all.alerts.remove_label_values(&[name.as_str(), priority.name()]);
                let _ = all.throttled.remove_label_values(&[name.as_str()]);
            }
        }
        for (name, priority) in &new.rules {
            all.alerts.with_label_values(&[name.as_str(), priority.name()]);
            all.throttled.with_label_values(&[name.as_str()]);
        }
        all.rules_loaded.with_label_values::<&str>(&[]).set(int(new.rules.len() as u64));
        all.rule_set.reset();
        all.rule_set.with_label_values(&[new.version.as_str()]).set(1);
        *rules = new;
    }

    /// Records the result of the last configuration reload.
    pub(crate) fn config_reloaded(&self, success: bool) {
        self.instruments.config_last_reload.with_label_values::<&str>(&[]).set(i64::from(success));
    }

    pub(crate) fn rules_reloaded(&self, success: bool) {
        self.instruments.rule_reloads.with_label_values(&[result(success)]).inc();
    }

    // The store.

    pub(crate) fn set_store_size(&self, bytes: u64, alerts: u64) {
        self.instruments.store_bytes.with_label_values::<&str>(&[]).set(int(bytes));
        self.instruments.store_alerts.with_label_values::<&str>(&[]).set(int(alerts));
    }

    /// Counts a failed read or write of the store.
    pub(crate) fn store_error(&self) {
        self.instruments.store_errors.with_label_values::<&str>(&[]).inc();
    }

    pub(crate) fn set_store_full(&self, full: bool) {
        self.instruments.store_full.with_label_values::<&str>(&[]).set(i64::from(full));
    }

    /// Records how long the commit of a batch took.
    pub(crate) fn observe_commit(&self, time: Duration) {
        self.instruments.store_latency.with_label_values::<&str>(&[]).observe(time.as_secs_f64());
    }

    /// The underlying instruments, for modules with their own closed sets of label values.
    pub(crate) fn instruments(&self) -> &Instruments {
        &self.instruments
    }

    /// Renders all metrics in the Prometheus text format 0.0.4.
    pub fn render(&self) -> String {
        self.process.update(&self.instruments);
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "failed to encode metrics");
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Renders all metrics in a format.
    pub fn render_as(&self, format: Exposition) -> String {
        match format {
            Exposition::Text => self.render(),
            Exposition::OpenMetrics => exposition::to_open_metrics(&self.render()),
        }
    }
}

/// Value of the label `result`.
pub(crate) const fn result(success: bool) -> &'static str {
    if success { "success" } else { "failure" }
}

#[cfg(test)]
mod tests;
