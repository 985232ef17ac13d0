//! The daemon on Kafka: a real Apache Kafka if available (`PULLWATCH_KAFKA=host:port` names one, otherwise
//! `tests/kafka/broker.py` starts one), otherwise the mock cluster of librdkafka. Tests that the mock does not support are skipped with a message.

#![allow(clippy::unwrap_used)]
#![cfg(feature = "kafka")]

#[path = "kafka/mod.rs"]
mod brokers;
mod common;
mod net;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

use brokers::Brokers;
use common::{RULE, WAIT_TIMEOUT, event, pullwatch, wait_for};
use net::Authority;
use pullwatch::internals::daemon::store::{Filter, StoreReader};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

enum Cluster {
    Real(String, Option<Brokers>),
    // It lives on a thread of its own, which creates topics on request.
    Mock(String, Mutex<mpsc::Sender<(String, i32, mpsc::Sender<()>)>>),
}

/// The address of a mock cluster, and a channel that creates topics.
fn mock() -> (String, mpsc::Sender<(String, i32, mpsc::Sender<()>)>) {
    let (topics, wanted) = mpsc::channel::<(String, i32, mpsc::Sender<()>)>();
    let (address, received) = mpsc::channel();
    std::thread::spawn(move || {
        let mock = MockCluster::new(1).unwrap();
        address.send(mock.bootstrap_servers()).unwrap();
        for (topic, partitions, done) in wanted {
            mock.create_topic(&topic, partitions, 1).unwrap();
            done.send(()).unwrap();
        }
    });
    (received.recv().unwrap(), topics)
}

/// The CA of brokers and clients.
fn authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(Authority::new)
}

fn start() -> Option<Brokers> {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let identity = authority().sign();
    fs::write(path("broker.pem"), format!("{}{}", identity.key, identity.certificate)).unwrap();
    fs::write(path("ca.pem"), &authority().pem).unwrap();
    let brokers = Brokers::start(&["--sasl", "--tls", &path("broker.pem"), "--client-ca", &path("ca.pem")]);
    // Brokers read these files at start.
    drop(folder);
    brokers
}

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<&'static Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let cluster = if let Ok(address) = std::env::var("PULLWATCH_KAFKA") {
            Cluster::Real(address, None)
        } else if let Some(brokers) = start() {
            Cluster::Real(brokers.bootstrap.clone(), Some(brokers))
        } else {
            let (address, topics) = mock();
            Cluster::Mock(address, Mutex::new(topics))
        };
        Box::leak(Box::new(cluster))
    })
}

impl Cluster {
    fn address(&self) -> &str {
        match self {
            Cluster::Real(address, _) | Cluster::Mock(address, _) => address,
        }
    }

    /// Brokers that were started here, with SASL and TLS ports; without them, prints which test is skipped.
    fn own(&self, test: &str) -> Option<&Brokers> {
        match self {
            Cluster::Real(_, Some(brokers)) => Some(brokers),
            _ => {
                eprintln!("not run, since there are no brokers of our own here: {test}");
                None
            }
        }
    }

    /// Whether these are real brokers; otherwise prints which test is skipped.
    fn is_real(&self, test: &str) -> bool {
        let is_real = matches!(self, Cluster::Real(..));
        if !is_real {
            eprintln!("not run, since there is no real Kafka here: {test}");
        }
        is_real
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", self.address()).create().unwrap()
    }

    /// Creates a topic for one test.
    fn topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) -> String {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
        let topic = format!("{name}-{now:x}");
        self.create(&topic, partitions, settings);
        topic
    }

    fn create(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
        match self {
            Cluster::Mock(_, topics) => {
                let (done, made) = mpsc::channel();
                topics.lock().unwrap().send((topic.to_owned(), partitions, done)).unwrap();
                made.recv().unwrap();
            }
            Cluster::Real(..) => {
                let mut wanted = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
                for (key, value) in settings {
                    wanted = wanted.set(key, value);
                }
                let admin = self.admin();
                let made = block(admin.create_topics([&wanted], &AdminOptions::new())).unwrap();
                assert!(made[0].is_ok(), "{made:?}");
            }
        }
    }

    fn delete(&self, topic: &str) {
        let admin = self.admin();
        let gone = block(admin.delete_topics(&[topic], &AdminOptions::new())).unwrap();
        assert!(gone[0].is_ok(), "{gone:?}");
    }

    /// Writes messages in order; `None` is a tombstone.
    fn write(&self, topic: &str, messages: &[Option<Vec<u8>>]) {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", self.address())
            .set("message.max.bytes", "67108864")
            .create()
            .unwrap();
        for (number, message) in messages.iter().enumerate() {
            let key = number.to_string();
            let mut record = BaseRecord::to(topic).key(&key);
            if let Some(message) = message {
                record = record.payload(message);
            }
            producer.send(record).unwrap();
            producer.poll(Duration::ZERO);
        }
        producer.flush(WAIT_TIMEOUT).unwrap();
    }

    fn events(&self, topic: &str, numbers: std::ops::Range<usize>) {
        let messages: Vec<_> =
            numbers.map(|number| Some(event(&number.to_string(), "get", "registry").into_bytes())).collect();
        self.write(topic, &messages);
    }

    /// Sum of the committed offsets of all partitions.
    fn committed(&self, group: &str, topic: &str, partitions: i32) -> i64 {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.address())
            .set("group.id", group)
            .create()
            .unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_range(topic, 0, partitions - 1);
        let list = consumer.committed_offsets(list, WAIT_TIMEOUT).unwrap();
        list.elements()
            .iter()
            .map(|one| if let Offset::Offset(offset) = one.offset() { offset } else { 0 })
            .sum()
    }

    /// Reads committed records of a topic, until there are this many and no more arrive.
    fn read(
        &self,
        topic: &str,
        partitions: i32,
        least: usize,
    ) -> Vec<(Option<String>, BTreeMap<String, String>, String)> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.address())
            .set("group.id", "reader")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .create()
            .unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_range(topic, 0, partitions - 1);
        list.set_all_offsets(Offset::Beginning).unwrap();
        consumer.assign(&list).unwrap();
        let mut found = Vec::new();
        let mut quiet = Instant::now();
        while found.len() < least || quiet.elapsed() < Duration::from_secs(2) {
            assert!(quiet.elapsed() < WAIT_TIMEOUT, "{} of {least}", found.len());
            let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
            let Ok(message) = message else { continue };
            quiet = Instant::now();
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let headers = message.headers().map_or_else(BTreeMap::new, |headers| {
                headers.iter().map(|one| (one.key.to_owned(), text(one.value.unwrap()))).collect()
            });
            found.push((message.key().map(text), headers, text(message.payload().unwrap())));
        }
        found
    }
}

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A directory with rules, a configuration and a state directory.
struct Place {
    folder: tempfile::TempDir,
}

/// A running daemon.
struct Daemon {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Daemon {
    fn log(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    fn has_logged(&self, part: &str) -> bool {
        self.log().iter().any(|line| line.contains(part))
    }

    fn get(&self, path: &str) -> String {
        let address = |line: &String| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            (line["message"] == "serving metrics, health and alerts")
                .then(|| line["address"].as_str().map(str::to_owned))?
        };
        let Some(address) = self.log().iter().find_map(address) else { return String::new() };
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Sum of all series with this prefix.
    fn metric(&self, series: &str) -> f64 {
        let text = self.get("/metrics");
        let lines = text.lines().filter(|line| line.starts_with(series));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }

    fn stop(mut self) -> Option<i32> {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap().code()
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("rules.yaml"), RULE).unwrap();
        Place { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts the daemon with this source and these sinks.
    fn start(&self, source: &str, sinks: &str) -> Daemon {
        self.start_by(pullwatch(), source, sinks)
    }

    /// Starts it by a command that takes the daemon's arguments.
    fn start_by(&self, mut command: Command, source: &str, sinks: &str) -> Daemon {
        let here = self.folder.path().display();
        let config = format!(
            "state_dir: {here}/state\nrules: {here}/rules.yaml\nserver: {{listen: '127.0.0.1:0'}}\nsources:\n- {{type: kafka, {source}}}\nsinks:\n- {{type: file, path: '{here}/alerts.jsonl'}}\n{sinks}"
        );
        fs::write(self.path("pullwatch.yaml"), config).unwrap();
        let mut child = command
            .arg("run")
            .arg("--config")
            .arg(self.path("pullwatch.yaml"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (said, heard) = (BufReader::new(child.stderr.take().unwrap()), lines.clone());
        std::thread::spawn(move || {
            said.lines().map_while(Result::ok).for_each(|line| heard.lock().unwrap().push(line));
        });
        Daemon { child, lines }
    }

    /// Audit ids of the stored alerts.
    fn stored(&self) -> Vec<String> {
        let Ok(reader) = StoreReader::open(&self.path("state")) else { return Vec::new() };
        let all = reader.list(&Filter::default()).unwrap_or_default();
        all.iter().map(|one| id(std::str::from_utf8(&one.alert.json).unwrap())).collect()
    }
}

/// Audit id of an alert.
fn id(json: &str) -> String {
    let alert: serde_json::Value = serde_json::from_str(json).unwrap();
    alert["event"]["auditID"].as_str().unwrap().to_owned()
}

/// Numbers below `count` that do not occur exactly once, with how often they occur.
fn not_once(ids: &[String], count: usize) -> Vec<(usize, usize)> {
    let mut counts = vec![0; count];
    for id in ids {
        counts[id.parse::<usize>().unwrap()] += 1;
    }
    counts.into_iter().enumerate().filter(|(_, count)| *count != 1).collect()
}

fn source(topic: &str, group: &str) -> String {
    format!("brokers: '{}', topics: ['{topic}'], group: '{group}'", cluster().address())
}

#[test]
fn events_are_stored_once_through_kills_and_offsets_are_committed() {
    let (cluster, place) = (cluster(), Place::new());
    let topic = cluster.topic("kills", 3, &[]);
    let is_real = cluster.is_real(
        "kills of events_are_stored_once_through_kills_and_offsets_are_committed; it is stopped instead",
    );
    // A static member, so that the group does not wait for the dead one.
    let source = |topic: &str, group: &str| {
        format!("{}, instance_id: one, properties: {{session.timeout.ms: 6000}}", source(topic, group))
    };
    let mut written = 0;
    for round in 0..4 {
        let daemon = place.start(&source(&topic, &topic), "");
        cluster.events(&topic, written..written + 200);
        written += 200;
        // At a different point each time.
        wait_for("some are stored", || place.stored().len() > written - 200 + round * 60);
        // The mock does not readmit a member that was killed.
        if is_real { daemon.kill() } else { assert_eq!(daemon.stop(), Some(0)) }
    }
    let daemon = place.start(&source(&topic, &topic), "");
    wait_for("all are stored", || place.stored().len() >= written);
    wait_for("the group has all offsets", || {
        cluster.committed(&topic, &topic, 3) == i64::try_from(written).unwrap()
    });
    assert_eq!(daemon.stop(), Some(0));
    assert_eq!(not_once(&place.stored(), written), []);
    // Nothing is left to read again.
    let daemon = place.start(&source(&topic, &topic), "");
    cluster.events(&topic, written..written + 1);
    wait_for("the new one is stored", || place.stored().len() > written);
    assert!((daemon.metric("pullwatch_kafka_messages_total") - 1.0).abs() < f64::EPSILON);
    wait_for("the lag of each partition", || {
        daemon.get("/metrics").matches("pullwatch_kafka_lag_messages{").count() == 3
    });
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn offsets_wait_for_the_slowest_sink() {
    let (cluster, place) = (cluster(), Place::new());
    let topic = cluster.topic("waits", 1, &[]);
    let source = |topic: &str, group: &str| {
        format!("{}, instance_id: one, properties: {{session.timeout.ms: 6000}}", source(topic, group))
    };
    // No server listens there.
    let dead = "- {type: http, url: 'http://127.0.0.1:1/', retry: {initial: 50ms, max: 100ms}}\n";
    let daemon = place.start(&source(&topic, &topic), dead);
    cluster.events(&topic, 0..5);
    wait_for("they are stored", || place.stored().len() == 5);
    wait_for("the sink has tried", || daemon.metric("pullwatch_sink_retries_total") >= 10.0);
    assert_eq!(cluster.committed(&topic, &topic, 1), 0);
    daemon.kill();
    let daemon = place.start(&format!("{}, commit: stored", source(&topic, &topic)), dead);
    cluster.events(&topic, 5..6);
    wait_for("they are committed", || cluster.committed(&topic, &topic, 1) == 6);
    daemon.kill();
    // The stored position was ahead of the group's.
    assert_eq!(not_once(&place.stored(), 6), []);
}

#[test]
fn alerts_have_key_and_headers() {
    let (cluster, place) = (cluster(), Place::new());
    let (events, alerts) = (cluster.topic("events", 1, &[]), cluster.topic("alerts", 2, &[]));
    let sink = format!(
        "- {{type: kafka, brokers: '{}', topic: '{alerts}', compression: zstd, properties: {{linger.ms: 3}}}}\n",
        cluster.address()
    );
    let daemon = place.start(&source(&events, &events), &sink);
    cluster.events(&events, 0..20);
    let records = cluster.read(&alerts, 2, 20);
    let ids: Vec<_> = records.iter().map(|(_, _, value)| id(value)).collect();
    assert_eq!(not_once(&ids, 20), []);
    for (key, headers, value) in &records {
        let alert: serde_json::Value = serde_json::from_str(value).unwrap();
        assert_eq!(key.as_deref(), Some("mallory"));
        assert_eq!(headers["rule"], "Registry Secret Access");
        assert_eq!(headers["priority"], "Warning");
        assert_eq!(headers["content_type"], "application/json");
        assert_eq!(Some(headers["alert_id"].as_str()), alert["id"].as_str());
    }
    // Alerts of one actor stay in order.
    assert_eq!(ids, (0..20).map(|number| number.to_string()).collect::<Vec<_>>());
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn tombstones_and_malformed_messages_are_counted_and_skipped() {
    let (cluster, place) = (cluster(), Place::new());
    let topic = cluster.topic("rubbish", 1, &[]);
    let good = |number: usize| Some(event(&number.to_string(), "get", "registry").into_bytes());
    let list = format!(
        r#"{{"kind":"EventList","items":[{},{}]}}"#,
        event("1", "get", "registry"),
        event("2", "get", "registry")
    );
    cluster.write(
        &topic,
        &[
            good(0),
            None,
            Some(b"rubbish".to_vec()),
            Some(vec![0xff; 1000]),
            Some(list.into_bytes()),
            Some(Vec::new()),
            good(3),
        ],
    );
    let daemon = place.start(&source(&topic, &topic), "");
    wait_for("the good ones are stored", || place.stored().len() == 4);
    assert_eq!(not_once(&place.stored(), 4), []);
    assert!((daemon.metric("pullwatch_kafka_empty_messages_total") - 2.0).abs() < f64::EPSILON);
    assert!(daemon.metric("pullwatch_source_malformed_total") >= 2.0);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_message_of_50_megabytes_is_processed() {
    let (cluster, place) = (cluster(), Place::new());
    if !cluster.is_real("a_message_of_50_megabytes_is_processed") {
        return;
    }
    let topic = cluster.topic("huge", 1, &[("max.message.bytes", "67108864")]);
    let event_of = |number: usize| event(&number.to_string(), "get", "registry");
    // A list of all secrets, and 50 MB of nothing.
    let big = event_of(1).replace(
        "\"annotations\"",
        &format!("\"responseObject\":\"{}\",\"annotations\"", "x".repeat(50_000_000)),
    );
    cluster.write(
        &topic,
        &[
            Some(event_of(0).into_bytes()),
            Some(big.into_bytes()),
            Some(vec![b'{'; 50_000_000]),
            Some(event_of(2).into_bytes()),
        ],
    );
    let daemon = place.start(&source(&topic, &topic), "");
    wait_for("the last one is stored", || place.stored().len() == 3);
    assert_eq!(not_once(&place.stored(), 3), []);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn an_unreachable_broker_is_reported_and_retried() {
    let place = Place::new();
    let source = "brokers: '127.0.0.1:1', topics: [audit], properties: {reconnect.backoff.max.ms: 500}";
    let sink = "- {type: kafka, brokers: '127.0.0.1:1', topic: alerts}\n";
    let start = Instant::now();
    let mut daemon = place.start(source, sink);
    wait_for("logged", || daemon.has_logged("no broker answers"));
    wait_for("not ready", || daemon.get("/readyz").contains("kafka: no broker answers"));
    wait_for("retries", || daemon.metric("pullwatch_kafka_errors_total{reason=\"unreachable\"") > 5.0);
    assert!(daemon.child.try_wait().unwrap().is_none());
    // Source and sink log it once a minute each, however often it failed.
    let minutes = usize::try_from(start.elapsed().as_secs() / 60).unwrap();
    assert!(
        daemon.log().iter().filter(|line| line.contains("no broker answers")).count() <= 3 + 2 * minutes,
        "{:#?}",
        daemon.log()
    );
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn an_unknown_topic_is_reported_and_read_once_it_exists() {
    let (cluster, place) = (cluster(), Place::new());
    if !cluster.is_real("an_unknown_topic_is_reported_and_read_once_it_exists") {
        return;
    }
    let topic = format!("{}-later", cluster.topic("unknown", 1, &[]));
    let quick = "properties: {topic.metadata.refresh.interval.ms: 1000}";
    let daemon = place.start(&format!("{}, {quick}", source(&topic, &topic)), "");
    wait_for("logged", || daemon.has_logged("topic not found, retrying: create it"));
    wait_for("not ready", || daemon.get("/readyz").contains("topic not found"));
    cluster.create(&topic, 1, &[]);
    cluster.events(&topic, 0..3);
    wait_for("they are stored", || place.stored().len() == 3);
    wait_for("ready", || daemon.get("/readyz").contains("\"ok\":true,\"checks\""));
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_recreated_topic_is_read_from_its_start() {
    let (cluster, place) = (cluster(), Place::new());
    if !cluster.is_real("a_recreated_topic_is_read_from_its_start") {
        return;
    }
    let topic = cluster.topic("anew", 1, &[]);
    let quick = "instance_id: one, properties: {topic.metadata.refresh.interval.ms: 1000}";
    let settings = format!("{}, {quick}", source(&topic, &topic));
    let daemon = place.start(&settings, "");
    cluster.events(&topic, 0..10);
    wait_for("they are stored", || place.stored().len() == 10);
    // While the daemon runs.
    cluster.delete(&topic);
    wait_for("logged", || daemon.has_logged("topic not found"));
    daemon.kill();
    cluster.create(&topic, 1, &[]);
    cluster.events(&topic, 10..13);
    // While the daemon is down: store and group have an offset that does not exist.
    let daemon = place.start(&settings, "");
    wait_for("the new ones are stored", || place.stored().len() == 13);
    assert_eq!(not_once(&place.stored(), 13), []);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn wrong_credentials_are_reported_and_right_ones_work() {
    let (cluster, place) = (cluster(), Place::new());
    let Cluster::Real(_, Some(brokers)) = cluster else {
        eprintln!(
            "not run, since there is no broker of our own that asks for credentials: wrong_credentials_are_reported_and_right_ones_work"
        );
        return;
    };
    let topic = cluster.topic("sasl", 1, &[]);
    cluster.events(&topic, 0..2);
    let (address, user) = (brokers.sasl.clone().unwrap(), brokers.user.clone().unwrap());
    fs::write(place.path("wrong"), "hunter2\n").unwrap();
    let with = |mechanism: &str, password: &str| {
        format!(
            "brokers: '{address}', topics: ['{topic}'], group: 'g-{topic}-{mechanism}', properties: {{security.protocol: sasl_plaintext, sasl.mechanism: {mechanism}, sasl.username: {user}}}, property_files: {{sasl.password: '{password}'}}"
        )
    };
    let daemon = place.start(&with("PLAIN", place.path("wrong").to_str().unwrap()), "");
    wait_for("logged", || daemon.has_logged("authentication failed"));
    wait_for("not ready", || daemon.get("/readyz").contains("authentication failed"));
    assert!(!daemon.has_logged("hunter2"));
    assert_eq!(daemon.stop(), Some(0));
    let password = brokers.password_file.clone().unwrap();
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let place = Place::new();
        let daemon = place.start(&with(mechanism, password.to_str().unwrap()), "");
        wait_for(mechanism, || place.stored().len() == 2);
        assert_eq!(daemon.stop(), Some(0));
    }
}

#[test]
fn exactly_once_through_kills() {
    let (cluster, place) = (cluster(), Place::new());
    if !cluster.is_real("exactly_once_through_kills") {
        return;
    }
    let (events, alerts) = (cluster.topic("once", 3, &[]), cluster.topic("once-alerts", 2, &[]));
    let sink = format!("- {{type: kafka, brokers: '{}', topic: '{alerts}'}}\n", cluster.address());
    let settings = format!("{}, exactly_once: true, instance_id: one", source(&events, &events));
    let mut written = 0;
    for round in 0..5 {
        let daemon = place.start(&settings, &sink);
        for _ in 0..10 {
            cluster.events(&events, written..written + 30);
            written += 30;
        }
        wait_for("some are stored", || place.stored().len() > written - 300 + round * 50);
        daemon.kill();
    }
    let daemon = place.start(&settings, &sink);
    wait_for("all offsets are committed", || {
        cluster.committed(&events, &events, 3) == i64::try_from(written).unwrap()
    });
    wait_for("all are stored", || place.stored().len() >= written);
    assert_eq!(daemon.stop(), Some(0));
    let ids: Vec<_> = cluster.read(&alerts, 2, written).iter().map(|(_, _, value)| id(value)).collect();
    assert_eq!(not_once(&ids, written), []);
    assert_eq!(not_once(&place.stored(), written), []);
    // The other sink has each alert at least once.
    let other = fs::read_to_string(place.path("alerts.jsonl")).unwrap();
    let mut other: Vec<_> = other.lines().map(id).collect();
    other.sort();
    other.dedup();
    assert_eq!(other.len(), written);
}

/// Sets a flag when it is dropped.
struct SetOnDrop<'f>(&'f AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn exactly_once_through_rebalances() {
    let cluster = cluster();
    if !cluster.is_real("exactly_once_through_rebalances") {
        return;
    }
    let (events, alerts) = (cluster.topic("turns", 4, &[]), cluster.topic("turns-alerts", 2, &[]));
    let sink = format!("- {{type: kafka, brokers: '{}', topic: '{alerts}'}}\n", cluster.address());
    // Members notice a rebalance soon.
    let settings = format!(
        "{}, exactly_once: true, properties: {{heartbeat.interval.ms: 200}}",
        source(&events, &events)
    );
    let (stays, comes) = (Place::new(), Place::new());
    let daemon = stays.start(&settings, &sink);
    wait_for("all partitions assigned", || daemon.has_logged("partitions assigned"));
    // Constant events: at each rebalance a transaction is in flight, and is refused.
    let is_over = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let feeder = scope.spawn(|| {
            let mut written = 0;
            while !is_over.load(Ordering::Acquire) {
                cluster.events(&events, written..written + 20);
                written += 20;
            }
            written
        });
        // The feeder ends even if this half fails.
        let end = SetOnDrop(&is_over);
        for _ in 0..6 {
            let other = comes.start(&settings, &sink);
            wait_for("some partitions assigned", || other.has_logged("partitions assigned"));
            assert_eq!(other.stop(), Some(0));
        }
        drop(end);
        feeder.join().unwrap()
    });
    wait_for("all offsets are committed", || {
        cluster.committed(&events, &events, 4) == i64::try_from(written).unwrap()
    });
    assert_eq!(daemon.stop(), Some(0));
    let ids: Vec<_> = cluster.read(&alerts, 2, written).iter().map(|(_, _, value)| id(value)).collect();
    assert_eq!(not_once(&ids, written), []);
}

const MANY: &str = "- correlation: Many
  type: event_count
  rules: [Registry Secret Access]
  group-by: [ka.user.name]
  timespan: 1m
  condition: {gte: 10}
  output: '%ka.user.name read %correlation.count'
  priority: CRITICAL
";

impl Place {
    /// Stored alerts of the correlation: user and number of matches.
    fn many(&self) -> Vec<(String, u64)> {
        let Ok(reader) = StoreReader::open(&self.path("state")) else { return Vec::new() };
        let all = reader.list(&Filter::default()).unwrap_or_default();
        all.iter().filter_map(|one| many(std::str::from_utf8(&one.alert.json).unwrap())).collect()
    }

    fn with_correlation() -> Self {
        let place = Place::new();
        fs::write(place.path("rules.yaml"), format!("{RULE}{MANY}")).unwrap();
        place
    }
}

/// User and number of matches of an alert, if it is of the correlation.
fn many(json: &str) -> Option<(String, u64)> {
    let alert: serde_json::Value = serde_json::from_str(json).unwrap();
    let count = alert["correlation"]["count"].as_u64()?;
    Some((alert["event"]["user"]["username"].as_str().unwrap().to_owned(), count))
}

/// Three members see a part of the events each and are killed one after the other; the last one has seen almost
/// none of them itself.
fn replicas_evaluate_correlations_together(is_exact: bool) {
    let cluster = cluster();
    if !cluster.is_real("replicas_evaluate_correlations_together") {
        return;
    }
    let (events, alerts) = (cluster.topic("parts", 4, &[]), cluster.topic("parts-alerts", 2, &[]));
    let exchange = format!("{events}-correlations");
    let settings = format!(
        "{}, exactly_once: {is_exact}, correlate: {{topic: '{exchange}', partitions: 4}}, properties: {{session.timeout.ms: 6000}}",
        source(&events, &events)
    );
    let sink = if is_exact {
        format!("- {{type: kafka, brokers: '{}', topic: '{alerts}'}}\n", cluster.address())
    } else {
        String::new()
    };
    let mut written = 0;
    let mut write = |user: &str, count: usize| {
        let event = |number: usize| event(&number.to_string(), "get", "registry").replace("mallory", user);
        let messages: Vec<_> = (written..written + count).map(|at| Some(event(at).into_bytes())).collect();
        cluster.write(&events, &messages);
        written += count;
        written
    };
    let places = [Place::with_correlation(), Place::with_correlation(), Place::with_correlation()];
    let fired = || -> Vec<(String, u64)> { places.iter().flat_map(Place::many).collect() };
    let stored = || -> usize { places.iter().map(|place| place.stored().len()).sum() };
    let is_committed = |events_written: usize, matches: usize| {
        let all = |topic: &str| usize::try_from(cluster.committed(&events, topic, 4)).unwrap();
        // Transaction markers take an offset too.
        all(&events) >= events_written && all(&exchange) >= matches
    };
    let first = places[0].start(&settings, &sink);
    let second = places[1].start(&settings, &sink);
    wait_for("both have partitions", || {
        first.has_logged("partitions assigned") && second.has_logged("partitions assigned")
    });
    // Sixteen keys go to all four partitions.
    let all = write("eve", 9);
    let all = all.max(write("mallory", 9));
    wait_for("what is no alert of a correlation is stored", || stored() >= all);
    assert_eq!(fired(), []);
    let all = write("mallory", 7);
    wait_for("the window is full", || fired().len() == 1);
    assert_eq!(fired(), [("mallory".to_owned(), 10)]);
    wait_for("all is committed", || stored() > all && is_committed(all, all));
    first.kill();
    second.kill();
    // The new owner knows windows that fired and windows that nearly did.
    let third = places[2].start(&settings, &sink);
    write("mallory", 8);
    let all = write("eve", 1);
    wait_for("the other window is full", || fired().len() == 2);
    assert_eq!(fired()[1], ("eve".to_owned(), 10));
    let all = all.max(write("eve", 5));
    wait_for("all is stored", || stored() >= all + 2 && is_committed(all, all));
    assert_eq!(third.stop(), Some(0));
    assert_eq!(fired().len(), 2, "{:?}", fired());
    assert_eq!(stored(), all + 2);
    if is_exact {
        let records = cluster.read(&alerts, 2, all + 2);
        assert_eq!(records.len(), all + 2);
        let fired: Vec<_> = records.iter().filter_map(|(_, _, json)| many(json)).collect();
        assert_eq!(fired.len(), 2, "{fired:?}");
    }
}

#[test]
fn replicas_evaluate_correlations_together_at_least_once() {
    replicas_evaluate_correlations_together(false);
}

#[test]
fn replicas_evaluate_correlations_together_exactly_once() {
    replicas_evaluate_correlations_together(true);
}

#[test]
fn mutual_tls() {
    let (cluster, place) = (cluster(), Place::new());
    let Some(brokers) = cluster.own("mutual_tls") else { return };
    let topic = cluster.topic("tls", 1, &[]);
    let alerts = cluster.topic("tls-alerts", 1, &[]);
    cluster.events(&topic, 0..3);
    let identity = authority().sign();
    for (name, content) in [
        ("ca.crt", &authority().pem),
        ("client.crt", &identity.certificate),
        ("client.key", &identity.key),
        ("other-ca.crt", &Authority::new().pem),
    ] {
        fs::write(place.path(name), content).unwrap();
    }
    let tls = brokers.tls.clone().unwrap();
    let with = |ca: &str| {
        let path = |name: &str| place.path(name).display().to_string();
        format!(
            "brokers: '{tls}', properties: {{security.protocol: ssl, ssl.ca.location: '{}', ssl.certificate.location: '{}', ssl.key.location: '{}'}}",
            path(ca),
            path("client.crt"),
            path("client.key")
        )
    };
    let daemon = place.start(&format!("{}, topics: ['{topic}'], group: '{topic}'", with("other-ca.crt")), "");
    wait_for("logged", || daemon.has_logged("TLS failed"));
    wait_for("not ready", || daemon.get("/readyz").contains("TLS failed"));
    assert_eq!(daemon.stop(), Some(0));
    let sink = format!("- {{type: kafka, topic: '{alerts}', {}}}\n", with("ca.crt"));
    let daemon = place.start(&format!("{}, topics: ['{topic}'], group: '{topic}'", with("ca.crt")), &sink);
    assert_eq!(cluster.read(&alerts, 1, 3).len(), 3);
    wait_for("ready", || daemon.get("/readyz").contains("\"ok\":true,\"checks\""));
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn oauth_tokens_from_a_file() {
    use base64::Engine as _;
    let (cluster, place) = (cluster(), Place::new());
    let Some(brokers) = cluster.own("oauth_tokens_from_a_file") else { return };
    let (topic, alerts) = (cluster.topic("tokens", 1, &[]), cluster.topic("tokens-alerts", 1, &[]));
    cluster.events(&topic, 0..3);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let part = |text: String| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    let token = |end: u64| {
        let claims = format!(r#"{{"sub":"pullwatch","iat":{},"exp":{end}}}"#, now - 100);
        format!("{}.{}.", part(r#"{"alg":"none"}"#.to_owned()), part(claims))
    };
    fs::write(place.path("token"), token(now - 50)).unwrap();
    let with = format!(
        "brokers: '{}', oauth_token_file: '{}', properties: {{security.protocol: sasl_plaintext}}",
        brokers.tokens.clone().unwrap(),
        place.path("token").display()
    );
    let source = format!("{with}, topics: ['{topic}'], group: '{topic}'");
    let sink =
        format!("- {{type: kafka, topic: '{alerts}', retry: {{initial: 50ms, max: 200ms}}, {with}}}\n");
    let daemon = place.start(&source, &sink);
    wait_for("an expired token is refused", || daemon.has_logged("authentication failed"));
    // A new token, later than it should be.
    fs::write(place.path("token"), token(now + 3600)).unwrap();
    assert_eq!(cluster.read(&alerts, 1, 3).len(), 3);
    assert!(!daemon.log().iter().any(|line| line.contains(&token(now + 3600))), "a token is in the log");
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn patterns_match_topics_that_are_created_later() {
    let (cluster, place) = (cluster(), Place::new());
    if !cluster.is_real("patterns_match_topics_that_are_created_later") {
        return;
    }
    let first = cluster.topic("pattern", 1, &[]);
    let quick = "properties: {topic.metadata.refresh.interval.ms: 1000}";
    let source =
        format!("brokers: '{}', topics: ['^{first}.*'], group: '{first}', {quick}", cluster.address());
    let daemon = place.start(&source, "");
    cluster.events(&first, 0..2);
    wait_for("what is there is read", || place.stored().len() == 2);
    let second = format!("{first}-second");
    cluster.create(&second, 2, &[]);
    cluster.events(&second, 2..6);
    wait_for("so is what comes later, from its start", || place.stored().len() == 6);
    assert_eq!(not_once(&place.stored(), 6), []);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn starts_at_the_end_or_at_a_time_without_a_position() {
    let (cluster, place) = (cluster(), Place::new());
    if !cluster.is_real("starts_at_the_end_or_at_a_time_without_a_position") {
        return;
    }
    let topic = cluster.topic("starts", 2, &[]);
    cluster.events(&topic, 0..20);
    std::thread::sleep(Duration::from_millis(20));
    let time = jiff::Timestamp::now();
    cluster.events(&topic, 20..30);
    let at_time = Place::new();
    let daemon =
        at_time.start(&format!("{}, start_at: {time}", source(&topic, &format!("{topic}-time"))), "");
    let at_end = place.start(&format!("{}, start_at: latest", source(&topic, &topic)), "");
    wait_for("both have partitions", || {
        at_end.has_logged("partitions assigned") && daemon.has_logged("partitions assigned")
    });
    wait_for("what was written from then on is stored", || at_time.stored().len() >= 10);
    // It has reached the end once a new message arrives.
    let mut written = 30;
    wait_for("what is written now is stored", || {
        cluster.events(&topic, written..written + 1);
        written += 1;
        !place.stored().is_empty()
    });
    assert!(place.stored().iter().all(|id| id.parse::<usize>().unwrap() >= 30), "{:?}", place.stored());
    wait_for("all of it", || at_time.stored().len() >= written - 20);
    assert!(at_time.stored().iter().all(|id| id.parse::<usize>().unwrap() >= 20));
    assert_eq!((at_end.stop(), daemon.stop()), (Some(0), Some(0)));
}

#[test]
fn reads_and_writes_all_compressions() {
    let (cluster, place) = (cluster(), Place::new());
    if !cluster.is_real("reads_and_writes_all_compressions") {
        return;
    }
    let topic = cluster.topic("packed", 1, &[]);
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    for (number, codec) in codecs.iter().enumerate() {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", cluster.address())
            .set("compression.type", *codec)
            .create()
            .unwrap();
        // Large enough to be compressed.
        let event = event(&number.to_string(), "get", &format!("registry-{}", "a".repeat(5000)));
        producer.send(BaseRecord::<(), _>::to(&topic).payload(&event)).unwrap();
        producer.flush(WAIT_TIMEOUT).unwrap();
    }
    let topics: Vec<String> =
        codecs.iter().map(|codec| cluster.topic(&format!("packed-{codec}"), 1, &[])).collect();
    let sink = |(codec, topic): (&&str, &String)| {
        let address = cluster.address();
        format!(
            "- {{type: kafka, name: {codec}, brokers: '{address}', topic: '{topic}', compression: {codec}}}\n"
        )
    };
    let sinks: String = codecs.iter().zip(&topics).map(sink).collect();
    let daemon = place.start(&source(&topic, &topic), &sinks);
    for topic in &topics {
        let ids: Vec<_> =
            cluster.read(topic, 1, codecs.len()).iter().map(|(_, _, value)| id(value)).collect();
        assert_eq!(not_once(&ids, codecs.len()), []);
    }
    assert_eq!(daemon.stop(), Some(0));
}

/// The daemon with a file size limit (in blocks), which simulates a full disk without privileges. Blocks are
/// of 512 bytes.
fn limited() -> Command {
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "trap '' XFSZ; ulimit -S -f 1500; exec \"$0\" \"$@\""])
        .arg(pullwatch().get_program());
    limited
}

/// Removes the limit.
fn unlimit(daemon: &Daemon) {
    let none = rustix::process::Rlimit { current: None, maximum: None };
    let pid = rustix::process::Pid::from_child(&daemon.child);
    rustix::process::prlimit(Some(pid), rustix::process::Resource::Fsize, none).unwrap();
}

#[test]
fn a_full_store_pauses_reading_and_keeps_the_membership() {
    let (cluster, place) = (cluster(), Place::new());
    if !cluster.is_real("a_full_store_pauses_reading_and_keeps_the_membership") {
        return;
    }
    let topic = cluster.topic("full", 2, &[]);
    // A member that does not poll for this long is evicted; one that does has to be able to on a loaded machine.
    let impatient = "properties: {session.timeout.ms: 15000, max.poll.interval.ms: 16000}";
    let daemon = place.start_by(limited(), &format!("{}, {impatient}", source(&topic, &topic)), "");
    let is_full = || daemon.metric("pullwatch_store_full ") > 0.0;
    let mut written = 0;
    wait_for("the store is full", || {
        cluster.events(&topic, written..written + 500);
        written += 500;
        is_full()
    });
    cluster.events(&topic, written..written + 2000);
    written += 2000;
    let until = Instant::now() + Duration::from_secs(25);
    while Instant::now() < until {
        assert!(is_full());
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(place.stored().len() < written - 2000);
    let gone = ["revoked", "lost"].map(|what| {
        daemon.metric(&format!("pullwatch_kafka_rebalances_total{{event=\"{what}\",source=\"kafka\""))
    });
    assert!(gone.iter().sum::<f64>() < 1.0, "{gone:?} {:#?}", daemon.log());
    unlimit(&daemon);
    wait_for("all are stored", || place.stored().len() >= written);
    assert_eq!(not_once(&place.stored(), written), []);
    let assigned = daemon.metric("pullwatch_kafka_rebalances_total{event=\"assigned\",source=\"kafka\"");
    assert!((assigned - 1.0).abs() < f64::EPSILON, "{assigned}");
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn partitions_revoked_while_paused_are_read_when_assigned_again() {
    let (cluster, place, other) = (cluster(), Place::new(), Place::new());
    if !cluster.is_real("partitions_revoked_while_paused_are_read_when_assigned_again") {
        return;
    }
    let topic = cluster.topic("paused", 2, &[]);
    let settings = format!("{}, properties: {{heartbeat.interval.ms: 200}}", source(&topic, &topic));
    let daemon = place.start_by(limited(), &settings, "");
    let is_full = || daemon.metric("pullwatch_store_full ") > 0.0;
    let mut written = 0;
    let mut write = |count| {
        cluster.events(&topic, written..written + count);
        written += count;
        written
    };
    wait_for("the store is full", || {
        write(500);
        is_full()
    });
    // Far more than fits into a batch, so that the partitions are paused.
    write(20_000);
    wait_for("no more is taken", || {
        let taken = daemon.metric("pullwatch_kafka_messages_total");
        std::thread::sleep(Duration::from_secs(2));
        taken.to_bits() == daemon.metric("pullwatch_kafka_messages_total").to_bits()
    });
    let member = other.start(&settings, "");
    wait_for("another member has a partition", || member.has_logged("partitions assigned"));
    assert_eq!(member.stop(), Some(0));
    unlimit(&daemon);
    let written = write(100);
    let mut all = Vec::new();
    wait_for("all are stored", || {
        all = [place.stored(), other.stored()].concat();
        all.sort_unstable();
        all.dedup();
        all.len() >= written
    });
    assert_eq!(not_once(&all, written), []);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_topic_recreated_while_running_is_read_from_its_start() {
    let (cluster, place) = (cluster(), Place::new());
    if !cluster.is_real("a_topic_recreated_while_running_is_read_from_its_start") {
        return;
    }
    let topic = cluster.topic("again", 1, &[]);
    let quick = "properties: {topic.metadata.refresh.interval.ms: 1000}";
    let daemon = place.start(&format!("{}, {quick}", source(&topic, &topic)), "");
    cluster.events(&topic, 0..10);
    wait_for("they are stored", || place.stored().len() == 10);
    wait_for("they are committed", || cluster.committed(&topic, &topic, 1) == 10);
    cluster.delete(&topic);
    wait_for("logged", || daemon.has_logged("topic not found"));
    wait_for("not ready", || daemon.get("/readyz").contains("topic not found"));
    cluster.create(&topic, 1, &[]);
    cluster.events(&topic, 10..13);
    wait_for("the new ones are stored", || place.stored().len() == 13);
    wait_for("ready", || daemon.get("/readyz").contains("\"ok\":true,\"checks\""));
    assert_eq!(not_once(&place.stored(), 13), []);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_match_that_is_too_large_does_not_block_others() {
    let cluster = cluster();
    if !cluster.is_real("a_match_that_is_too_large_does_not_block_others") {
        return;
    }
    for is_exact in [false, true] {
        let place = Place::with_correlation();
        let (events, alerts) = (cluster.topic("large", 1, &[]), cluster.topic("large-alerts", 1, &[]));
        let exchange = cluster.topic("large-correlations", 1, &[("max.message.bytes", "2000")]);
        // By default a long text of a request is shortened, and no match is too large.
        let sink = format!(
            "- {{type: kafka, brokers: '{}', topic: '{alerts}'}}\nmax_string: 64K\n",
            cluster.address()
        );
        let settings = format!(
            "{}, exactly_once: {is_exact}, correlate: {{topic: '{exchange}'}}",
            source(&events, &events)
        );
        let read = |number: usize, user: &str, agent: &str| {
            let event = event(&number.to_string(), "get", "registry");
            Some(event.replace("mallory", user).replace("curl/8", agent).into_bytes())
        };
        // Incompressible.
        let parts = (0..1500_u32).map(|number| number.wrapping_mul(2_654_435_761).to_string());
        let long = parts.collect::<Vec<_>>().concat();
        let mut messages: Vec<_> = (0..9).map(|number| read(number, "mallory", "curl/8")).collect();
        messages.push(read(9, "trudy", &long));
        messages.push(read(10, "mallory", "curl/8"));
        cluster.write(&events, &messages);
        let daemon = place.start(&settings, &sink);
        wait_for("the others meet", || place.many() == [("mallory".to_owned(), 10)]);
        wait_for("the drop is logged", || daemon.has_logged("match dropped: too large for the topic"));
        // The alert itself is stored.
        wait_for("all are stored", || place.stored().len() >= 12);
        assert_eq!(place.stored().len(), 12);
        assert_eq!(cluster.read(&alerts, 1, 12).len(), 12);
        assert_eq!(daemon.stop(), Some(0));
    }
}
