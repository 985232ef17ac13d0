//! A sink at work, and the alerts it reads.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use pullwatch::internals::daemon::metrics::Metrics;
use pullwatch::internals::daemon::sink::{
    Feed, FeedError, Kind, Reopen, Retry, Sink, SinkConfig, SinkError, SinkMetrics,
};
use pullwatch::internals::detection::alert::Priority;
use pullwatch::internals::detection::alert::StoredAlert;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use crate::wait::wait_until;

/// What a client can put into names.
pub const HOSTILE: &str = "a\n\r\t\0\u{1b}[2J\u{2028}\u{2029}\u{202e}\u{85}\u{7f}|=\\\"]' ä";

pub fn alert(seq: i64) -> StoredAlert {
    alert_of(seq, "Secret Read", Priority::Warning, "alice read b")
}

pub fn alert_of(seq: i64, rule: &str, priority: Priority, message: &str) -> StoredAlert {
    let json = serde_json::json!({
        "hostname": "node", "output": message, "output_fields": {"evt.time": 1}, "priority": priority.name(), "rule": rule,
        "source": "k8s_audit", "tags": [], "time": "2026-11-23T03:45:32.270783000Z", "seq": seq,
    });
    let mut escaped = Vec::new();
    pullwatch::internals::text::escape::escape_json(message.as_bytes(), &mut escaped);
    let plain = serde_json::to_string(message).unwrap();
    let json = json.to_string().replace(&plain, &format!("\"{}\"", String::from_utf8(escaped).unwrap()));
    let mut id = [0; 16];
    id[8..].copy_from_slice(&seq.to_be_bytes());
    StoredAlert {
        seq,
        id,
        time: 1_795_405_532_270_783_000,
        stored: 1_795_405_532_280_000_000,
        rule: rule.to_owned(),
        priority,
        actor: "alice".to_owned(),
        target: "secrets a/b".to_owned(),
        json: json.into_bytes(),
        message: message.to_owned(),
    }
}

/// A store in memory.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    alerts: Vec<StoredAlert>,
    cursor: i64,
    /// Whether saving fails.
    broken: bool,
    failures: usize,
}

impl Memory {
    pub fn with(alerts: impl IntoIterator<Item = StoredAlert>) -> Self {
        let memory = Memory::default();
        memory.0.lock().unwrap().alerts.extend(alerts);
        memory
    }

    pub fn cursor(&self) -> i64 {
        self.0.lock().unwrap().cursor
    }

    pub fn break_saving(&self, broken: bool) {
        self.0.lock().unwrap().broken = broken;
    }

    pub fn failures(&self) -> usize {
        self.0.lock().unwrap().failures
    }
}

impl Feed for Memory {
    fn after(&mut self, seq: i64, limit: usize) -> Result<Vec<StoredAlert>, FeedError> {
        let inner = self.0.lock().unwrap();
        Ok(inner.alerts.iter().filter(|alert| alert.seq > seq).take(limit).cloned().collect())
    }

    fn load(&mut self) -> Result<i64, FeedError> {
        Ok(self.cursor())
    }

    fn save(&mut self, seq: i64) -> Result<(), FeedError> {
        let mut inner = self.0.lock().unwrap();
        if inner.broken {
            inner.failures += 1;
            return Err(FeedError::new("disk full"));
        }
        assert!(seq > inner.cursor, "a cursor goes on");
        inner.cursor = seq;
        Ok(())
    }
}

/// Settings that try again soon.
pub fn config(kind: Kind) -> SinkConfig {
    SinkConfig {
        name: "test".to_owned(),
        kind,
        retry: Retry {
            initial: Duration::from_millis(1),
            max: Duration::from_millis(20),
            max_retry_after: Duration::from_millis(30),
            max_age: None,
            ..Retry::default()
        },
        timeout: Duration::from_secs(20),
        grace: Duration::from_secs(20),
        ..SinkConfig::default()
    }
}

/// A sink at work.
pub struct Rig {
    pub memory: Memory,
    pub reopen: Reopen,
    metrics: Arc<Metrics>,
    wake: watch::Sender<i64>,
    shutdown: watch::Sender<bool>,
    pub task: JoinHandle<Result<(), SinkError>>,
}

impl Rig {
    pub fn start(config: SinkConfig, memory: &Memory) -> Rig {
        let metrics = Metrics::new(&[]).unwrap();
        let (wake, woken) = watch::channel(0);
        let (shutdown, stopped) = watch::channel(false);
        let sink = Sink::new(config, &SinkMetrics::new(&metrics)).unwrap();
        let reopen = sink.reopen();
        let task = tokio::spawn(sink.run(memory.clone(), woken, stopped));
        Rig { memory: memory.clone(), reopen, metrics, wake, shutdown, task }
    }

    pub fn add(&self, alert: StoredAlert) {
        let seq = alert.seq;
        self.memory.0.lock().unwrap().alerts.push(alert);
        self.wake.send_replace(seq);
    }

    /// Waits until all up to this one are done with.
    pub async fn reaches(&self, seq: i64) {
        wait_until(async || self.memory.cursor() >= seq).await;
    }

    pub fn tell_to_stop(&self) {
        self.shutdown.send_replace(true);
    }

    /// Stops the sink, which has delivered this many alerts and refused none for good.
    pub async fn ends_with_all_delivered(self, count: u64) {
        assert_eq!(
            (self.count("deliveries_total", None), self.count("dead_letters_total", Some("rejected"))),
            (count, 0)
        );
        self.stop().await.unwrap();
    }

    pub async fn stop(self) -> Result<(), SinkError> {
        self.tell_to_stop();
        self.task.await.unwrap()
    }

    /// Ends it at once, as a kill would.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// A metric's value, by what stands before the space.
    pub fn metric(&self, name: &str, reason: Option<&str>) -> f64 {
        let reason = reason.map(|reason| format!("reason=\"{reason}\",")).unwrap_or_default();
        let start = format!("pullwatch_sink_{name}{{{reason}sink=\"test\"}} ");
        let text = self.metrics.render();
        let line = text.lines().find_map(|line| line.strip_prefix(&start));
        line.unwrap_or_else(|| panic!("no {start} in\n{text}")).parse().unwrap()
    }

    pub fn count(&self, name: &str, reason: Option<&str>) -> u64 {
        let value = self.metric(name, reason);
        format!("{value}").parse().unwrap()
    }
}
