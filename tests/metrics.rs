//! The metrics of a running daemon, as Prometheus scrapes them.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use common::{pullwatch, wait_for};

/// A running daemon and the address of its server.
struct Daemon {
    child: Child,
    address: String,
    log_size: f64,
    folder: tempfile::TempDir,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Daemon {
    /// Follows the sample log, in a directory without rule files.
    fn start() -> Daemon {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("audit.log");
        let sample = File::open("samples/audit/request-response.log.gz").unwrap();
        let mut text = Vec::new();
        flate2::read::MultiGzDecoder::new(sample).read_to_end(&mut text).unwrap();
        fs::write(&log, &text).unwrap();
        #[allow(clippy::cast_precision_loss)] // Some megabytes.
        let log_size = text.len() as f64;
        let mut child = pullwatch()
            .current_dir(folder.path())
            .args(["run", "--listen", "127.0.0.1:0", "--state-dir", "state", "audit.log"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let serving = lines.find(|line| line.contains("serving metrics")).unwrap();
        let serving: serde_json::Value = serde_json::from_str(&serving).unwrap();
        let address = serving["address"].as_str().unwrap().to_owned();
        // A pipe that is not read would block the daemon.
        std::thread::spawn(move || lines.for_each(drop));
        Daemon { child, address, log_size, folder }
    }

    fn get(&self, path: &str) -> String {
        String::from_utf8(self.get_with(path, "")).unwrap()
    }

    /// Sends a request with these headers, each with a line break.
    fn get_with(&self, path: &str, headers: &str) -> Vec<u8> {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Connection: close\r\n\r\n")
            .unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    }

    /// Values by series, as `name{labels}`.
    fn metrics(&self) -> BTreeMap<String, f64> {
        let text = self.get("/metrics");
        let series =
            text.lines().filter(|line| line.starts_with("pullwatch_") || line.starts_with("process_"));
        series
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
            .collect()
    }
}

/// What is 0 when everything is read and delivered.
const ZEROS: [&str; 4] = [
    r#"pullwatch_source_lag_bytes{source="audit"}"#,
    r#"pullwatch_source_lag_seconds{source="audit"}"#,
    r#"pullwatch_sink_backlog_alerts{sink="stdout"}"#,
    "pullwatch_store_full",
];

#[test]
fn reports_a_read_log_in_gauges_and_counters() {
    let daemon = Daemon::start();
    let mut metrics = BTreeMap::new();
    wait_for("all alerts are delivered", || {
        metrics = daemon.metrics();
        let delivered = metrics.get(r#"pullwatch_sink_deliveries_total{sink="stdout"}"#);
        let is_read =
            metrics.get(r#"pullwatch_source_bytes_total{source="audit"}"#) >= Some(&daemon.log_size);
        // Gauges follow counters.
        let is_at_rest = ZEROS.iter().all(|zero| metrics.get(*zero) == Some(&0.0));
        is_read && is_at_rest && delivered > Some(&0.0) && delivered == metrics.get("pullwatch_store_alerts")
    });
    let value = |name: &str| *metrics.get(name).unwrap_or_else(|| panic!("no {name} in {metrics:#?}"));
    let sum = |name: &str| {
        metrics.iter().filter(|(series, _)| series.starts_with(name)).map(|(_, value)| value).sum::<f64>()
    };
    assert!(value(r#"pullwatch_source_events_total{source="audit"}"#) > 10_000.0);
    assert!(value(r#"pullwatch_tracked_objects{kind="credentials"}"#) >= 5.0);
    assert!(sum("pullwatch_credential_last_rotation_timestamp_seconds{") > 1.7e9);
    assert!(sum("pullwatch_alerts_total{") >= value("pullwatch_store_alerts"));
    assert!(value("pullwatch_store_size_bytes") > 100_000.0);
    assert!(value("process_resident_memory_bytes") > 1e6 && value("process_cpu_seconds_total") > 0.0);
    assert!(value("process_open_fds") > 3.0 && value("process_max_fds") >= value("process_open_fds"));
    wait_for("readiness", || daemon.get("/readyz").contains(r#""ok":true"#));
}

#[test]
fn counts_exposures_by_actor_and_by_credential() {
    let daemon = Daemon::start();
    let mut metrics = BTreeMap::new();
    wait_for("the log is read and its alerts are stored", || {
        metrics = daemon.metrics();
        let is_read =
            metrics.get(r#"pullwatch_source_bytes_total{source="audit"}"#) >= Some(&daemon.log_size);
        is_read && metrics.get(ZEROS[0]) == Some(&0.0)
    });
    let sum = |name: &str, label: &str| {
        let series = metrics.iter().filter(|(series, _)| series.starts_with(name) && series.contains(label));
        series.map(|(_, value)| value).sum::<f64>()
    };
    assert!(sum("pullwatch_actor_exposures_total{", r#"actor="mallory""#) > 1.0, "{metrics:#?}");
    assert!(sum("pullwatch_credential_exposures_total{", r#"namespace="production""#) > 1.0, "{metrics:#?}");
    assert!(
        sum("pullwatch_actor_exposures_total{", "") >= sum("pullwatch_actor_exposures_total{", "mallory")
    );
    assert!((metrics[r#"pullwatch_source_up{source="audit"}"#] - 1.0).abs() < f64::EPSILON);
    fs::remove_file(daemon.folder.path().join("audit.log")).unwrap();
    wait_for("the source is down", || {
        daemon.metrics().get(r#"pullwatch_source_up{source="audit"}"#).is_some_and(|up| *up < 1.0)
    });
}

#[test]
fn metrics_are_compressed_and_in_openmetrics_on_request() {
    let daemon = Daemon::start();
    let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
    let answer = String::from_utf8(daemon.get_with("/metrics", accept)).unwrap();
    assert!(answer.contains("application/openmetrics-text; version=1.0.0; charset=utf-8"), "{answer}");
    assert!(answer.trim_end().ends_with("# EOF") && answer.contains("# TYPE pullwatch_store_errors counter"));
    let plain = daemon.get("/metrics");
    assert!(plain.contains("text/plain; version=0.0.4") && !plain.contains("# EOF"));

    let answer = daemon.get_with("/metrics", "Accept-Encoding: gzip, deflate\r\n");
    let head = answer.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    let headers = String::from_utf8_lossy(&answer[..head]).to_lowercase();
    assert!(headers.contains("content-encoding: gzip"), "{headers}");
    let start = answer.windows(2).position(|magic| magic == [0x1f, 0x8b]).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(&answer[start..]).read_to_string(&mut text).unwrap();
    assert!(text.contains("pullwatch_build_info"), "{text}");
    assert!(answer.len() * 2 < plain.len(), "{} of {}", answer.len(), plain.len());
}

#[test]
fn counts_late_matches_while_running() {
    let daemon = Daemon::start();
    let path = daemon.folder.path().join("audit.log");
    let log = fs::read_to_string(&path).unwrap();
    let denied = "\"user\":{\"username\":\"mallory\"";
    let lists = |line: &&str| {
        line.contains(denied)
            && line.contains("\"resource\":\"secrets\"")
            && line.contains("\"verb\":\"list\"")
    };
    let late: String =
        log.lines().filter(lists).map(|line| line.replace("2026-11-23", "2025-11-23") + "\n").collect();
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(late.as_bytes()).unwrap();
    wait_for("the match is counted", || {
        daemon.metrics().get(r#"pullwatch_evictions_total{kind="late_matches"}"#) >= Some(&1.0)
    });
}

#[test]
fn exports_every_documented_metric() {
    let daemon = Daemon::start();
    wait_for("rules are loaded", || daemon.metrics().get("pullwatch_rules_loaded") >= Some(&1.0));
    // The first alert was delivered.
    wait_for("a delivery", || {
        daemon.metrics().get(r#"pullwatch_sink_deliveries_total{sink="stdout"}"#) > Some(&0.0)
    });
    let text = daemon.get("/metrics");
    for metric in pullwatch::internals::daemon::metrics::TABLE {
        // Series that depend on a webhook, a Kafka source, certificate files, credentials or Alertmanager do not exist yet.
        let is_there = text.contains(&format!("# TYPE {} {}", metric.name, metric.kind));
        let needs_more = [
            "_webhook_",
            "_kafka_",
            "_secret_file_",
            "_credential_",
            "_http_requests",
            "_sink_active_",
            "_sink_resends_",
        ];
        assert!(is_there || needs_more.iter().any(|part| metric.name.contains(part)), "{}", metric.name);
    }
}

#[test]
fn a_source_without_audit_events_degrades_until_events_arrive() {
    let daemon = Daemon::start();
    let log = daemon.folder.path().join("audit.log");
    let append = |text: &str| {
        fs::OpenOptions::new().append(true).open(&log).unwrap().write_all(text.as_bytes()).unwrap();
    };
    let value = |series: &str| daemon.metrics().get(series).copied();
    let degraded = || value(r#"pullwatch_source_degraded{source="audit"}"#).unwrap();
    wait_for("the log is read", || value(r#"pullwatch_source_lag_bytes{source="audit"}"#) == Some(0.0));
    assert!(degraded() < 0.5);
    wait_for("all is well", || daemon.get("/readyz").contains(r#""status":"ok""#));
    append(&"<133>Oct  7 16:19:19 m7 app: password=hunter2 {\n".repeat(20_000));
    wait_for("the source is degraded", || degraded() > 0.5);
    let mut ready = String::new();
    wait_for("readiness says so", || {
        ready = daemon.get("/readyz");
        ready.contains(r#""status":"degraded""#) && ready.contains("audit: ") && ready.contains("<133>Oct  7")
    });
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    assert!(!ready.contains("hunter"), "{ready}");
    let event =
        r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"a","verb":"get"}"#;
    wait_for("the source has recovered", || {
        append(&format!("{event}\n"));
        degraded() == 0.0
    });
}
