//! The table of all metrics: name, kind, labels, help. Registration, the reference documentation and the tests are generated from it.

use prometheus::{
    CounterVec, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, Result,
};

/// One metric, as documented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Full name, with prefix and unit.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Label names.
    pub labels: &'static [&'static str],
    /// Help text, one sentence.
    pub help: &'static str,
}

/// Bucket bounds in seconds for evaluating or storing a batch, from a single event to the largest webhook body.
const LATENCY: &[f64] =
    &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0];

/// Bucket bounds in seconds for the time from an event to its alert, from a live log to a backlog of one day.
const DELAY: &[f64] =
    &[0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 60.0, 300.0, 3600.0, 86400.0];

/// Bucket bounds in seconds for a delivery attempt, from a local pipe to an unresponsive receiver.
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
    (seconds_total) => {
        CounterVec
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
    (seconds_total) => {
        "counter"
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
    (seconds_total, $name:literal, $labels:expr, $help:literal) => {
        CounterVec::new(Opts::new($name, $help), $labels)
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
            /// Creates all instruments and registers them.
            pub(super) fn register(registry: &Registry) -> Result<Self> {
                $(
                    let $field = make!($kind, $name, &[$($label),*], $help)?;
                    registry.register(Box::new($field.clone()))?;
                )*
                Ok(Instruments { $($field,)* })
            }
        }

        /// All metrics, in the order of the reference documentation.
        pub const TABLE: &[Definition] = &[
            $(Definition { name: $name, kind: kind!($kind), labels: &[$($label),*], help: $help },)*
        ];
    };
}

metrics! {
    build_info: gauge "pullwatch_build_info" ["version"]
        "Always 1, labeled with the version of pullwatch.";
    cpu: seconds_total "process_cpu_seconds_total" []
        "Total user and system CPU time spent in seconds.";
    open_fds: gauge "process_open_fds" []
        "Number of open file descriptors.";
    max_fds: gauge "process_max_fds" []
        "Maximum number of open file descriptors.";
    virtual_memory: gauge "process_virtual_memory_bytes" []
        "Virtual memory size in bytes.";
    resident_memory: gauge "process_resident_memory_bytes" []
        "Resident memory size in bytes.";
    threads: gauge "process_threads" []
        "Number of OS threads in the process.";
    start_time: seconds "process_start_time_seconds" []
        "Start time of the process since unix epoch in seconds.";
    events: counter "pullwatch_source_events_total" ["source"]
        "Audit events evaluated, including those that the prefilter skipped because no rule can match them.";
    bytes: counter "pullwatch_source_bytes_total" ["source"]
        "Bytes read, after decompression.";
    malformed: counter "pullwatch_source_malformed_total" ["source", "reason"]
        "Malformed records, by reason.";
    skipped: counter "pullwatch_source_skipped_total" ["source", "reason"]
        "Records of log shippers and cloud services that hold no audit event, by reason.";
    truncated: counter "pullwatch_source_truncated_events_total" ["source", "reason"]
        "Events evaluated with parts missing, by reason.";
    degraded: gauge "pullwatch_source_degraded" ["source"]
        "1 while the records of a source are not audit events, all of them or most, otherwise 0.";
    source_errors: counter "pullwatch_source_errors_total" ["source"]
        "Read errors, such as a file that cannot be opened or a lost connection.";
    source_up: gauge "pullwatch_source_up" ["source"]
        "1 if the source is readable or connected, otherwise 0.";
    lag_bytes: gauge "pullwatch_source_lag_bytes" ["source"]
        "Bytes available and not yet read.";
    lag_seconds: seconds "pullwatch_source_lag_seconds" ["source"]
        "Age of the newest evaluated event while more input is available; 0 when caught up.";
    match_latency: latency "pullwatch_match_duration_seconds" []
        "Time to evaluate a batch against all rules.";
    alerts: counter "pullwatch_alerts_total" ["rule", "priority"]
        "Alerts stored, by rule and priority.";
    throttled: counter "pullwatch_alerts_throttled_total" ["rule"]
        "Alerts suppressed by a throttle and not summed up in a later alert, by rule.";
    alert_latency: delay "pullwatch_alert_latency_seconds" []
        "Time from an event's timestamp until its alert is stored.";
    evictions: counter "pullwatch_evictions_total" ["kind"]
        "Entries evicted to stay within memory limits, by kind; also matches and state discarded as late or foreign.";
    tracked: gauge "pullwatch_tracked_objects" ["kind"]
        "Cluster objects tracked, by kind.";
    rotation: seconds "pullwatch_credential_last_rotation_timestamp_seconds" ["namespace", "secret"]
        "Unix time at which a registry credential was last seen written. At most 1000 credentials, the newest.";
    credential_exposures: counter "pullwatch_credential_exposures_total" ["namespace", "secret", "exposure", "verb"]
        "Events with an alert that exposed a registry credential, by credential. At most 1000 series; others count as _other_.";
    actor_exposures: counter "pullwatch_actor_exposures_total" ["actor", "exposure", "verb"]
        "Events with an alert that exposed registry credentials, by actor. At most 1000 series; others count as _other_.";
    rules_loaded: gauge "pullwatch_rules_loaded" []
        "Rules and correlations loaded.";
    rule_set: gauge "pullwatch_rule_set_info" ["version"]
        "Always 1, labeled with a hash of the loaded rules.";
    config_last_reload: gauge "pullwatch_config_last_reload_successful" []
        "1 if the last reload of the configuration succeeded, 0 if it was invalid and the previous one stays in use.";
    rule_reloads: counter "pullwatch_rule_reloads_total" ["result"]
        "Reloads of changed rule files, by result (success or failure).";
    store_bytes: gauge "pullwatch_store_size_bytes" []
        "Size of the store on disk.";
    store_alerts: gauge "pullwatch_store_alerts" []
        "Alerts in the store.";
    store_errors: counter "pullwatch_store_errors_total" []
        "Failed reads and writes of the store.";
    store_full: gauge "pullwatch_store_full" []
        "1 while the store is full and sources are paused, otherwise 0.";
    store_latency: latency "pullwatch_store_commit_duration_seconds" []
        "Time to commit a batch to the store.";
    sink_deliveries: counter "pullwatch_sink_deliveries_total" ["sink"]
        "Alerts delivered.";
    sink_filtered: counter "pullwatch_sink_filtered_total" ["sink"]
        "Alerts excluded by the sink's filters.";
    sink_failures: counter "pullwatch_sink_failures_total" ["sink", "reason"]
        "Failed delivery attempts, by reason.";
    sink_retries: counter "pullwatch_sink_retries_total" ["sink"]
        "Delivery attempts that repeat a failed one.";
    sink_dead_letters: counter "pullwatch_sink_dead_letters_total" ["sink", "reason"]
        "Undeliverable alerts, by reason; written to the dead-letter file unless pullwatch_sink_dropped_total counts them.";
    sink_dropped: counter "pullwatch_sink_dropped_total" ["sink", "reason"]
        "Undeliverable alerts that could not be written to the dead-letter file, by reason.";
    sink_paused: gauge "pullwatch_sink_paused" ["sink"]
        "1 while a sink waits because its receiver refuses everything.";
    sink_truncated: counter "pullwatch_sink_truncated_total" ["sink"]
        "Messages shortened to the limit of the sink (`max_message`).";
    sink_backlog: gauge "pullwatch_sink_backlog_alerts" ["sink"]
        "Stored alerts not yet delivered (upper bound: includes alerts that the filters exclude).";
    sink_last_success: seconds "pullwatch_sink_last_success_timestamp_seconds" ["sink"]
        "Unix time of the last successful delivery; 0 before the first.";
    sink_active: gauge "pullwatch_sink_active_alerts" ["sink"]
        "Alerts that an alertmanager sink sends again at each interval, because they have not ended.";
    sink_resends: counter "pullwatch_sink_resends_total" ["sink", "result"]
        "Active alerts sent again, counted for each Alertmanager, by result (success or failure); not in pullwatch_sink_deliveries_total.";
    sink_duration: attempt "pullwatch_sink_delivery_duration_seconds" ["sink"]
        "Duration of delivery attempts.";
    kafka_messages: counter "pullwatch_kafka_messages_total" ["source"]
        "Messages consumed.";
    kafka_empty: counter "pullwatch_kafka_empty_messages_total" ["source"]
        "Messages consumed without a value (tombstones of a compacted topic).";
    kafka_lag: gauge "pullwatch_kafka_lag_messages" ["source", "topic", "partition"]
        "Messages not yet evaluated in the partitions assigned to this process.";
    kafka_rebalances: counter "pullwatch_kafka_rebalances_total" ["source", "event"]
        "Rebalances, by what happened to partitions of this process: assigned, revoked, or lost without a revocation.";
    kafka_errors: counter "pullwatch_kafka_errors_total" ["source", "reason"]
        "Consumer errors, by reason.";
    webhook_requests: counter "pullwatch_webhook_requests_total" ["source", "code"]
        "Webhook requests, by status code of the response.";
    webhook_batches: counter "pullwatch_webhook_batches_total" ["source"]
        "Webhook batches passed to the pipeline.";
    webhook_duplicates: counter "pullwatch_webhook_duplicate_events_total" ["source"]
        "Events dropped because an event with the same content was received before.";
    webhook_dropped_events: counter "pullwatch_webhook_dropped_events_total" ["source"]
        "Events of batches larger than max_body that were read and not evaluated before a limit of time or memory; a lower bound.";
    webhook_dropped_bytes: counter "pullwatch_webhook_dropped_bytes_total" ["source"]
        "Bytes of batches larger than max_body that were received or announced and not evaluated before a limit of time or memory.";
    webhook_memory: gauge "pullwatch_webhook_memory_bytes" ["source"]
        "Bytes held by batches that are being received, queued or evaluated.";
    file_reloads: counter "pullwatch_secret_file_reloads_total" ["listener", "result"]
        "Reloads of changed certificate, key and token files of a listener, by result (success or failure).";
    http_requests: counter "pullwatch_http_requests_total" ["path", "code"]
        "HTTP requests to the server, by path (\"other\" for unknown paths) and status code.";
    streams: gauge "pullwatch_http_alert_streams" []
        "Clients connected to the alert stream.";
}
