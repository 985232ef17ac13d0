//! Every sink at once: their receivers are down, slow, busy, refusing and restarted in turn, and pullwatch is killed ten times. Each
//! receiver has each alert in the end, exactly once where it recognizes repeats, none beyond its limit, and all of them parse.
//!
//! `PULLWATCH_ALERTS` is the number of alerts (100,000 in the long form), `PULLWATCH_BINARY` the binary to run.

#![allow(clippy::unwrap_used, dead_code)]

#[path = "../common/mod.rs"]
mod common;
mod hostile;
mod http;
#[cfg(feature = "kafka")]
mod kafka;
mod otlp;
mod received;
#[path = "../crash/rig.rs"]
mod rig;
mod streams;
mod text;

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::WAIT_TIMEOUT;
use http::{Protocol, Server};
use pullwatch::internals::daemon::sink::Format;
use received::Received;
use rig::{Daemon, Ledger, Place, RULES, Random, stop, times};

/// Number of kills.
const KILLS: usize = 10;

/// What a client can put into names.
const HOSTILE: &str =
    "a\n\r\t\0\u{1b}[2J\u{2028}\u{202e}\u{85}|=\\\"]' <!channel> <script> %{rule} {{.x}} ${jndi:ldap://x}";

/// Limit of every sink without a lower one: that of an alert.
const MAX_ALERT: usize = 64 << 10;

/// Both match each event; the second has an output of its own.
const RULES_TEXT: &str = "- rule: Registry Secret Access
  desc: Detect access to ImagePullSecrets
  condition: kevt and ka.target.name contains \"registry\"
  output: Registry secret accessed (user=%ka.user.name secret=%ka.target.name agent=%ka.useragent uri=%ka.uri id=%ka.auditid)
  priority: WARNING
- rule: Second Look
  desc: Detect it once more
  condition: kevt and ka.target.name contains \"registry\"
  output: Seen (user=%ka.user.name id=%ka.auditid)
  priority: ERROR
";

/// All receivers.
struct Receivers {
    all: Vec<Arc<Received>>,
    servers: Vec<Arc<Server>>,
    stdout: Arc<Received>,
    files: [(Arc<Received>, PathBuf); 2],
    /// Datagrams may get lost.
    udp: Arc<Received>,
}

impl Receivers {
    /// Starts all receivers, and writes the configuration with a sink for each.
    fn start(place: &Place) -> Self {
        let mut all = Vec::new();
        let mut receiver = |name: &str, max_len, format| {
            let received = Received::new(name, max_len, format, all.len());
            all.push(received.clone());
            received
        };
        let quick = "timeout: 2s, retry: {initial: 10ms, max: 100ms}";
        let (mut sinks, mut servers) = (Vec::new(), Vec::new());
        for (name, protocol, max_len, kind) in [
            ("alert", Protocol::Alert, MAX_ALERT, "http, url: \"{url}/\""),
            ("array", Protocol::Array, MAX_ALERT, "http, url: \"{url}/\", body: array"),
            (
                "lines",
                Protocol::Lines,
                4096,
                "http, url: \"{url}/\", body: lines, max_message: 4096, gzip: true",
            ),
            ("slack", Protocol::Slack, 16_384, "http, url: \"{url}/\", body: {template: slack}"),
            (
                "pagerduty",
                Protocol::PagerDuty,
                MAX_ALERT,
                "http, url: \"{url}/\", body: {template: pagerduty, values: {routing_key: R0}}",
            ),
            (
                "elastic",
                Protocol::Bulk,
                8192,
                "elasticsearch, url: \"{url}/\", max_message: 8192, gzip: true",
            ),
            (
                "splunk",
                Protocol::Splunk,
                10_000,
                "splunk_hec, url: \"{url}/\", token: t, ack: true, max_message: 10000",
            ),
            ("otlp", Protocol::Otlp, MAX_ALERT, "otlp, url: \"{url}/\""),
            ("loki", Protocol::Loki, 256 << 10, "loki, url: \"{url}/loki/api/v1/push\""),
            ("alertmanager", Protocol::Alertmanager, MAX_ALERT, "alertmanager, urls: [\"{url}\"]"),
        ] {
            let format = match protocol {
                Protocol::Bulk => Format::Ecs,
                Protocol::Loki => Format::Text,
                _ => Format::Falco,
            };
            let server = Server::start(protocol, receiver(name, max_len, format));
            let kind = kind.replace("{url}", &format!("http://127.0.0.1:{}", server.port));
            sinks.push(format!("{{name: {name}, type: {kind}, connect_timeout: 2s, {quick}}}"));
            servers.push(server);
        }
        let port = streams::tcp(receiver("syslog-tcp", 8192, Format::Cef));
        sinks.push(format!(
            "{{name: syslog-tcp, type: syslog, address: \"tcp://127.0.0.1:{port}\", format: cef, {quick}}}"
        ));
        let udp = receiver("syslog-udp", 8192, Format::Text);
        let port = streams::udp(udp.clone());
        sinks.push(format!(
            "{{name: syslog-udp, type: syslog, address: \"udp://127.0.0.1:{port}\", format: text, {quick}}}"
        ));
        let socket = place.path("log.sock");
        streams::unix(&socket, receiver("syslog-unix", 8192, Format::Falco));
        sinks.push(format!(
            "{{name: syslog-unix, type: syslog, address: \"unix://{}\", {quick}}}",
            socket.display()
        ));
        sinks.push("{name: stdout, type: stdout, format: falco}".to_owned());
        let stdout = receiver("stdout", MAX_ALERT, Format::Falco);
        let files = [("ecs", Format::Ecs), ("ocsf", Format::Ocsf)].map(|(name, format)| {
            let path = place.path(name);
            let at = path.display();
            sinks
                .push(format!("{{name: {name}, type: file, path: {at}, format: {name}, max_message: 8192}}"));
            (receiver(name, 8192, format), path)
        });
        #[cfg(feature = "kafka")]
        {
            let brokers = kafka::start(receiver("kafka", 8192, Format::Falco));
            sinks.push(format!(
                "{{name: kafka, type: kafka, brokers: [\"{brokers}\"], topic: {}, key: id, max_message: 8192, timeout: 5s, \
                 properties: {{reconnect.backoff.max.ms: \"200\"}}, retry: {{initial: 10ms, max: 100ms}}}}",
                kafka::TOPIC
            ));
        }
        place.configure(&place.log(), &sinks);
        Receivers { all, servers, stdout, files, udp }
    }

    fn total(&self) -> usize {
        self.all.iter().map(|received| received.count()).sum()
    }

    /// Changes moods until this is dropped.
    fn moody(&self) -> Moods {
        let (is_over, all) = (Arc::new(AtomicBool::new(false)), self.all.clone());
        let flag = is_over.clone();
        std::thread::spawn(move || {
            while !flag.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(200));
                for received in &all {
                    received.next_mood();
                }
            }
        });
        Moods(is_over)
    }
}

/// The receivers' changing moods.
struct Moods(Arc<AtomicBool>);

impl Drop for Moods {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn command(place: &Place) -> Command {
    let mut command = place.command();
    if let Some(binary) = std::env::var_os("PULLWATCH_BINARY") {
        let mut other = Command::new(binary);
        other.args(command.get_args()).stdin(Stdio::null()).stderr(place.said_file());
        command = other;
    }
    command.stdout(Stdio::piped());
    command
}

/// An event, with a hostile or a long text now and then.
fn event(number: usize) -> String {
    let agent = match number {
        // Longer than every limit.
        _ if number.is_multiple_of(500) => format!("{HOSTILE}{}", "x".repeat(100_000)),
        _ if number.is_multiple_of(20) => HOSTILE.repeat(1 + number % 7),
        _ => "curl/8".to_owned(),
    };
    let name = format!("registry-{number}{}", if number.is_multiple_of(20) { HOSTILE } else { "" });
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
    serde_json::json!({"kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": number.to_string(),
        "stage": "ResponseComplete", "requestURI": format!("/api/v1/namespaces/prod/secrets/{name}?x={agent}"), "verb": "get",
        "user": {"username": format!("user-{}", number % 50), "groups": ["system:authenticated"]}, "sourceIPs": ["192.0.2.7"],
        "userAgent": agent, "objectRef": {"resource": "secrets", "namespace": "prod", "name": name, "apiVersion": "v1"},
        "responseStatus": {"metadata": {}, "code": 200}, "requestReceivedTimestamp": now, "stageTimestamp": now})
    .to_string()
}

fn append(place: &Place, events: std::ops::Range<usize>) {
    let lines: Vec<String> = events.map(|number| event(number) + "\n").collect();
    let mut log = fs::OpenOptions::new().create(true).append(true).open(place.path("audit.log")).unwrap();
    log.write_all(lines.concat().as_bytes()).unwrap();
}

/// Waits for a condition as long as there is progress.
fn wait_while_progressing(what: &str, progress: impl Fn() -> usize, mut condition: impl FnMut() -> bool) {
    let (mut last, mut since) = (progress(), Instant::now());
    while !condition() {
        let now = progress();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        assert!(since.elapsed() < WAIT_TIMEOUT, "no progress: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Names and lengths of the sinks' queues.
fn backlogs(place: &Place) -> Option<Vec<(String, f64)>> {
    let (_, text) = place.ask("/metrics")?;
    let lines = text.lines().filter_map(|line| line.strip_prefix("pullwatch_sink_backlog_alerts"));
    lines
        .map(|line| line.rsplit_once(' ').map(|(sink, count)| (sink.to_owned(), count.parse().unwrap())))
        .collect()
}

/// Sends what receivers refused once more.
fn resend(place: &Place, servers: &[Arc<Server>]) {
    for server in servers {
        let output = Command::new(command(place).get_program())
            .args(["alerts", "resend", "--config"])
            .arg(place.path("pullwatch.yaml"))
            .args(["--sink", &server.received.name, "--dead-letters"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}: {}", server.received.name, common::said(&output));
    }
}

#[test]
fn every_receiver_has_every_alert_after_outages_and_kills() {
    let alerts = times("PULLWATCH_ALERTS", 4000);
    let events = alerts / RULES.len();
    let place = Place::new();
    fs::write(place.path("rules.d/rules.yaml"), RULES_TEXT).unwrap();
    let receivers = Receivers::start(&place);
    let moods = receivers.moody();
    let mut random = Random(5);
    let mut readers = Vec::new();
    let mut start = || {
        let mut child = command(&place).spawn().unwrap();
        readers.push(streams::stdout(child.stdout.take().unwrap(), receivers.stdout.clone()));
        Daemon(child)
    };
    let started = Instant::now();
    let mut written = 0;
    for round in 0..KILLS {
        let child = start();
        let until = events * (round + 1) / (KILLS + 1);
        append(&place, written..until);
        written = until;
        // Killed while deliveries go on.
        let goal = receivers.total() + 1 + random.count(events / KILLS * 8);
        wait_while_progressing("deliveries", || receivers.total(), || receivers.total() >= goal);
        rig::kill(child);
    }
    let child = start();
    append(&place, written..events);
    let mut ledger = Ledger::default();
    wait_while_progressing(
        "alerts in the store",
        || receivers.total(),
        || ledger.look(&place.state) >= events * RULES.len(),
    );
    drop(moods);
    receivers.all.iter().for_each(|received| received.calm());
    wait_while_progressing(
        "empty queues",
        || receivers.total(),
        || backlogs(&place).is_some_and(|all| !all.is_empty() && all.iter().all(|(_, count)| *count == 0.0)),
    );
    assert_eq!(stop(child), Some(0));
    for reader in readers {
        reader.join().unwrap();
    }
    eprintln!("{alerts} alerts, {} s", started.elapsed().as_secs());
    ledger.assert_exact(0..events);
    resend(&place, &receivers.servers);
    for (received, path) in &receivers.files {
        streams::file(path, received, KILLS);
    }
    for received in &receivers.all {
        let is_complete = !Arc::ptr_eq(received, &receivers.udp);
        // What is in the kernel's and the mock cluster's buffers arrives.
        if is_complete {
            wait_while_progressing(
                &received.name,
                || received.count(),
                || received.count() >= ledger.ids.len(),
            );
        }
        eprintln!("{}: {} alerts, {} of them repeated", received.name, received.count(), received.repeated());
        received.check(&ledger.ids, is_complete);
        // These recognize a repeat by its id, or by being equal.
        if matches!(&*received.name, "elastic" | "loki") {
            assert_eq!(received.repeated(), 0, "{}", received.name);
        }
    }
}
