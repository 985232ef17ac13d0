//! Every metric there is: name, labels, and what it says. Documentation, registration and tests are made of this one table.

use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, Result};

/// One metric, as it is documented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its whole name.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

/// Seconds to judge a batch: from one event to the largest body.
const LATENCY: &[f64] =
    &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0];

/// Seconds between an event and its alert: from one that was just written to a day's backlog.
const DELAY: &[f64] =
    &[0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 60.0, 300.0, 3600.0, 86400.0];

/// Seconds that a delivery takes: from a pipe to a receiver that hangs.
const ATTEMPT: &[f64] = &[0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];

macro_rules! instrument {
    (counter) => {
        IntCounterVec
    };
    (gauge) => {
        IntGaugeVec
    };
    (seconds) => {
        GaugeVec
    };
    (latency) => {
        HistogramVec
    };
    (delay) => {
        HistogramVec
    };
    (attempt) => {
        HistogramVec
    };
}

macro_rules! kind {
    (counter) => {
        "counter"
    };
    (gauge) => {
        "gauge"
    };
    (seconds) => {
        "gauge"
    };
    (latency) => {
        "histogram"
    };
    (delay) => {
        "histogram"
    };
    (attempt) => {
        "histogram"
    };
}

macro_rules! make {
    (counter, $name:literal, $labels:expr, $help:literal) => {
        IntCounterVec::new(Opts::new($name, $help), $labels)
    };
    (gauge, $name:literal, $labels:expr, $help:literal) => {
        IntGaugeVec::new(Opts::new($name, $help), $labels)
    };
    (seconds, $name:literal, $labels:expr, $help:literal) => {
        GaugeVec::new(Opts::new($name, $help), $labels)
    };
    (latency, $name:literal, $labels:expr, $help:literal) => {
        HistogramVec::new(HistogramOpts::new($name, $help).buckets(LATENCY.to_vec()), $labels)
    };
    (delay, $name:literal, $labels:expr, $help:literal) => {
        HistogramVec::new(HistogramOpts::new($name, $help).buckets(DELAY.to_vec()), $labels)
    };
    (attempt, $name:literal, $labels:expr, $help:literal) => {
        HistogramVec::new(HistogramOpts::new($name, $help).buckets(ATTEMPT.to_vec()), $labels)
    };
}

macro_rules! metrics {
    ($($field:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        /// The instruments behind [`TABLE`].
        pub(crate) struct Instruments {
            $(pub(crate) $field: instrument!($kind),)*
        }

        impl Instruments {
            /// Makes all of them, in a registry.
            pub(super) fn register(registry: &Registry) -> Result<Self> {
                $(
                    let $field = make!($kind, $name, &[$($label),*], $help)?;
                    registry.register(Box::new($field.clone()))?;
                )*
                Ok(Instruments { $($field,)* })
            }
        }

        /// All metrics.
        pub const TABLE: &[Definition] = &[
            $(Definition { name: $name, kind: kind!($kind), labels: &[$($label),*], help: $help },)*
        ];
    };
}

metrics! {
    build_info: gauge "pullwatch_build_info" ["version"]
        "Always 1; its label says which pullwatch this is.";
    start_time: seconds "pullwatch_process_start_time_seconds" []
        "When the process started, in seconds since 1970.";
    resident_memory: gauge "pullwatch_process_resident_memory_bytes" []
        "Memory of the process; 0 where the system does not say.";
    events: counter "pullwatch_source_events_total" ["source"]
        "Audit events judged, or passed over because no rule can match them.";
    events_outside: counter "pullwatch_source_events_outside_time_range_total" ["source"]
        "Audit events left out for their time.";
    bytes: counter "pullwatch_source_bytes_total" ["source"]
        "Bytes read, unpacked.";
    malformed: counter "pullwatch_source_malformed_total" ["source", "reason"]
        "Records that are no sound audit events, by what is wrong with them.";
    skipped: counter "pullwatch_source_skipped_total" ["source", "reason"]
        "Records of log shippers and clouds that held no audit event, by why.";
    truncated: counter "pullwatch_source_truncated_events_total" ["source", "reason"]
        "Events judged by a part of them, by why.";
    source_errors: counter "pullwatch_source_errors_total" ["source"]
        "Failures to read: a file that cannot be opened, a connection that broke.";
    lag_bytes: gauge "pullwatch_source_lag_bytes" ["source"]
        "Bytes that are there and were not read yet.";
    lag_seconds: seconds "pullwatch_source_lag_seconds" ["source"]
        "Age of the newest event that was judged, while there is more to read; 0 when all is read.";
    match_latency: latency "pullwatch_match_duration_seconds" []
        "Time to judge a batch.";
    alerts: counter "pullwatch_alerts_total" ["rule", "priority"]
        "Alerts, by rule.";
    held_back: counter "pullwatch_alerts_held_back_total" ["rule"]
        "Alerts that a throttle held back and that no later alert tells of.";
    alert_delay: delay "pullwatch_alert_delay_seconds" []
        "Time between an event and the alert being stored.";
    forgotten: counter "pullwatch_forgotten_total" ["what"]
        "What was forgotten to stay within bounds.";
    known: gauge "pullwatch_known" ["what"]
        "What is remembered of the cluster: registry credentials, other secrets, pods, roles, namespaces.";
    rotation: seconds "pullwatch_credential_last_rotation_timestamp_seconds" ["namespace", "secret"]
        "When a registry credential was last seen to be written, in seconds since 1970. At most 1000 credentials.";
    rules_loaded: gauge "pullwatch_rules_loaded" []
        "Rules and correlations in use.";
    rule_set: gauge "pullwatch_rule_set_info" ["version"]
        "Always 1; its label is a hash of the rules in use.";
    rule_reloads: counter "pullwatch_rule_reloads_total" ["result"]
        "Changed rule files: taken, or refused for an error in them.";
    store_bytes: gauge "pullwatch_store_size_bytes" []
        "Size of the store on disk.";
    store_alerts: gauge "pullwatch_store_alerts" []
        "Alerts in the store.";
    store_errors: counter "pullwatch_store_errors_total" []
        "Failures to write to the store or to read it.";
    store_full: gauge "pullwatch_store_full" []
        "1 while nothing more can be stored.";
    store_latency: latency "pullwatch_store_commit_duration_seconds" []
        "Time to store a batch.";
    sink_deliveries: counter "pullwatch_sink_deliveries_total" ["sink"]
        "Alerts that a sink delivered.";
    sink_passed_over: counter "pullwatch_sink_passed_over_total" ["sink"]
        "Alerts that are not for a sink: its priority or its rules are others.";
    sink_failures: counter "pullwatch_sink_failures_total" ["sink", "reason"]
        "Attempts of a sink that failed, by what failed.";
    sink_retries: counter "pullwatch_sink_retries_total" ["sink"]
        "Attempts of a sink after one that failed.";
    sink_dead_letters: counter "pullwatch_sink_dead_letters_total" ["sink", "reason"]
        "Alerts that a sink gave up, by reason. They are in the dead-letter file, but for those lost.";
    sink_lost: counter "pullwatch_sink_lost_total" ["sink", "reason"]
        "Alerts that a sink gave up and that are in no dead-letter file, by why not.";
    sink_truncated: counter "pullwatch_sink_truncated_total" ["sink"]
        "Messages that were cut to fit into a datagram.";
    sink_backlog: gauge "pullwatch_sink_backlog_alerts" ["sink"]
        "Alerts that are stored and not delivered yet, at most.";
    sink_last_success: seconds "pullwatch_sink_last_success_timestamp_seconds" ["sink"]
        "When a sink last delivered, in seconds since 1970; 0 before the first time.";
    sink_duration: attempt "pullwatch_sink_delivery_duration_seconds" ["sink"]
        "How long attempts of a sink took.";
    kafka_messages: counter "pullwatch_kafka_messages_total" ["source"]
        "Messages read from Kafka.";
    kafka_empty: counter "pullwatch_kafka_empty_messages_total" ["source"]
        "Messages from Kafka without a value: they delete a key of a compacted topic.";
    kafka_lag: gauge "pullwatch_kafka_lag_messages" ["source", "topic", "partition"]
        "Messages of a partition that were not judged yet, of the partitions that are assigned to this process.";
    kafka_rebalances: counter "pullwatch_kafka_rebalances_total" ["source", "what"]
        "Times that partitions were assigned to this process, revoked, or lost without being asked.";
    kafka_errors: counter "pullwatch_kafka_errors_total" ["source", "reason"]
        "Failures of a source over Kafka, by what failed.";
    webhook_requests: counter "pullwatch_webhook_requests_total" ["source", "code"]
        "Requests of apiservers, by the code of the answer.";
    webhook_batches: counter "pullwatch_webhook_batches_total" ["source"]
        "Batches handed to the pipeline.";
    webhook_repeated: counter "pullwatch_webhook_repeated_events_total" ["source"]
        "Events that were sent again and dropped, known by their whole content.";
    webhook_memory: gauge "pullwatch_webhook_memory_bytes" ["source"]
        "Bytes of batches that are being read, wait or are being judged.";
    file_reloads: counter "pullwatch_certificate_reloads_total" ["listener", "result"]
        "Changed files of certificates and tokens: taken, or refused for an error in them.";
    http_requests: counter "pullwatch_http_requests_total" ["path", "code"]
        "Requests to this server, by path; unknown paths are one.";
    streams: gauge "pullwatch_http_alert_streams" []
        "Clients that follow the alerts.";
}
