//! What a client can put into a request, in every format and through every sink: each message parses, has no characters that a
//! terminal obeys, is within its limit, and nothing leaves the field that it belongs to.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;

use pullwatch::internals::daemon::sink::Format;
use serde_json::{Value, json};

use crate::common::wait_for;
use crate::http::{Protocol, Server};
use crate::received::Received;
use crate::rig::{Daemon, Place, stop};
use crate::{backlogs, streams};

/// What means something to one receiver or another.
const VALUES: [&str; 19] = [
    "<script>alert(1)</script>",
    "<!channel> <@U1> <http://evil|ok>",
    " @everyone [a](http://evil) **b** `c` ||d||",
    "\u{1b}]0;title\u{7}\u{1b}[2J\u{9b}31m",
    "\r\n<1>1 2026-11-23T10:00:00Z evil evil - - - text",
    "\nCEF:0|evil|evil|1|evil|evil|10|externalId=evil",
    " externalId=evil act=evil cs1=evil",
    "|\\|=\\=",
    "\u{202e}gnp.exe\u{2066}\u{2069}\u{200f}\u{feff}",
    "\0\0",
    "${jndi:ldap://evil/x} ${env:SECRET}",
    "{{.Values}} {{ 7*7 }} {% raw %} #{7*7} <%= 7*7 %>",
    "%{rule} %rule %% %s %n",
    "\"] [evil@32473 id=\"evil\"] evil",
    "\",\"id\":\"evil\",\"x\":\"",
    "'; DROP TABLE alerts; --",
    "\u{2028}\u{2029}\u{85}\u{b}\u{c}",
    "\"}\n{\"create\":{\"_id\":\"evil\"}}\n{\"x\":\"",
    "\u{d7ff}\u{e000}\u{fffe}\u{10ffff}ÿ𝒳",
];

/// An event with a value in every place that a client can choose.
fn event(number: usize, value: &str) -> Value {
    let config =
        json!({"auths": {format!("registry.example.com/{value}"): {"username": value, "password": "x"}}})
            .to_string();
    let config = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, config);
    json!({"kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "RequestResponse", "auditID": format!("{number}{value}"),
        "stage": "ResponseComplete", "verb": "list",
        "requestURI": format!("/api/v1/secrets?fieldSelector=type=kubernetes.io/dockerconfigjson,metadata.name!={value}"),
        "user": {"username": value, "uid": value, "groups": ["system:authenticated", value], "extra": {value: [value]}},
        "impersonatedUser": {"username": value, "groups": [value]}, "sourceIPs": [value, "192.0.2.7"], "userAgent": value,
        "objectRef": {"resource": "secrets", "namespace": value, "name": value, "apiVersion": "v1"},
        "responseStatus": {"code": 200, "message": value}, "annotations": {"authorization.k8s.io/reason": value, value: value},
        "responseObject": {"kind": "SecretList", "apiVersion": "v1", "items": [
            {"metadata": {"name": value, "namespace": value, "labels": {value: value}}, "type": "kubernetes.io/dockerconfigjson",
                "data": {".dockerconfigjson": config}}]},
        "requestReceivedTimestamp": "2026-11-23T10:00:00.000000Z", "stageTimestamp": "2026-11-23T10:00:00.000100Z"})
}

/// Receivers of every kind for every format that it takes, and the sinks for them.
struct Set {
    receivers: Vec<(Arc<Received>, bool)>,
    files: Vec<(Arc<Received>, std::path::PathBuf)>,
    sinks: Vec<String>,
}

const FORMATS: [(&str, Format); 5] = [
    ("falco", Format::Falco),
    ("ecs", Format::Ecs),
    ("ocsf", Format::Ocsf),
    ("cef", Format::Cef),
    ("text", Format::Text),
];

impl Set {
    fn new(place: &Place) -> Self {
        let mut set = Set { receivers: Vec::new(), files: Vec::new(), sinks: Vec::new() };
        for (name, format) in FORMATS {
            set.each_format(place, name, format);
        }
        for (template, protocol, limit) in [
            ("slack", Protocol::Slack, 16_384),
            ("teams", Protocol::Teams, 28 << 10),
            ("pagerduty", Protocol::PagerDuty, 512 << 10),
            ("opsgenie", Protocol::Opsgenie, 32_768),
            ("discord", Protocol::Discord, 8192),
        ] {
            let body = format!("body: {{template: {template}, values: {{routing_key: R0}}}}");
            set.http(template, protocol, limit, Format::Falco, &format!("http, url: \"URL/\", {body}"));
        }
        set.http("otlp", Protocol::Otlp, 64 << 10, Format::Falco, "otlp, url: \"URL\"");
        set.http(
            "alertmanager",
            Protocol::Alertmanager,
            64 << 10,
            Format::Falco,
            "alertmanager, urls: [\"URL\"], resend_interval: false",
        );
        set
    }

    fn receiver(&mut self, name: &str, limit: usize, format: Format) -> Arc<Received> {
        let received = Received::new(name, limit, format, 0);
        self.receivers.push((received.clone(), true));
        received
    }

    fn http(&mut self, name: &str, protocol: Protocol, limit: usize, format: Format, kind: &str) {
        let server = Server::start(protocol, self.receiver(name, limit, format));
        let kind = kind.replace("URL", &format!("http://127.0.0.1:{}", server.port));
        self.sinks.push(format!("{{name: {name}, type: {kind}}}"));
    }

    fn each_format(&mut self, place: &Place, name: &str, format: Format) {
        let is_json = format.is_json();
        for (kind, protocol, limit, settings) in [
            ("alert", Protocol::Alert, 8192, "http, url: \"URL/\", max_message: 8192"),
            ("array", Protocol::Array, 8192, "http, url: \"URL/\", body: array, max_message: 8192"),
            ("lines", Protocol::Lines, 4096, "http, url: \"URL/\", body: lines, max_message: 4096"),
            ("elastic", Protocol::Bulk, 64 << 10, "elasticsearch, url: \"URL/\""),
            ("splunk", Protocol::Splunk, 10_000, "splunk_hec, url: \"URL/\", token: t, max_message: 10000"),
            ("loki", Protocol::Loki, 64 << 10, "loki, url: \"URL/\""),
        ] {
            if is_json || !matches!(protocol, Protocol::Array | Protocol::Bulk) {
                self.http(
                    &format!("{kind}-{name}"),
                    protocol,
                    limit,
                    format,
                    &format!("{settings}, format: {name}"),
                );
            }
        }
        let port = streams::tcp(self.receiver(&format!("tcp-{name}"), 8192, format));
        self.sinks.push(format!(
            "{{name: tcp-{name}, type: syslog, address: \"tcp://127.0.0.1:{port}\", format: {name}}}"
        ));
        let udp = Received::new(&format!("udp-{name}"), 8192, format, 0);
        let port = streams::udp(udp.clone());
        // Datagrams may get lost.
        self.receivers.push((udp, false));
        self.sinks.push(format!(
            "{{name: udp-{name}, type: syslog, address: \"udp://127.0.0.1:{port}\", format: {name}}}"
        ));
        let socket = place.path(&format!("{name}.sock"));
        streams::unix(&socket, self.receiver(&format!("unix-{name}"), 2048, format));
        let at = socket.display();
        self.sinks.push(format!(
            "{{name: unix-{name}, type: syslog, address: \"unix://{at}\", format: {name}, max_message: 2048}}"
        ));
        let path = place.path(&format!("file-{name}"));
        self.sinks
            .push(format!("{{name: file-{name}, type: file, path: {}, format: {name}}}", path.display()));
        let received = self.receiver(&format!("file-{name}"), 64 << 10, format);
        self.files.push((received, path));
        #[cfg(feature = "kafka")]
        {
            let brokers = crate::kafka::start(self.receiver(&format!("kafka-{name}"), 8192, format));
            self.sinks.push(format!(
                "{{name: kafka-{name}, type: kafka, brokers: [\"{brokers}\"], topic: {}, key: id, format: {name}, max_message: 8192}}",
                crate::kafka::TOPIC
            ));
        }
    }
}

#[test]
fn hostile_values_are_inert_in_every_format_through_every_sink() {
    let place = Place::new();
    let set = Set::new(&place);
    place.configure(&place.log(), &set.sinks);
    let config = place.path("pullwatch.yaml");
    let text = fs::read_to_string(&config).unwrap();
    let rules = format!("rules: [{}]", place.path("rules.d").display());
    fs::write(&config, text.replace(&rules, "rules: [builtin]")).unwrap();
    let mut lines: Vec<String> =
        VALUES.iter().enumerate().map(|(number, value)| event(number, value).to_string()).collect();
    // All of them at once, and a selector of 400 KB.
    lines.push(event(100, &VALUES.concat()).to_string());
    lines.push(event(101, &VALUES.concat().repeat(20)).to_string());
    lines.push(event(102, &"a".repeat(400_000)).to_string());
    lines.push(event(103, &"\u{202e}".repeat(130_000)).to_string());
    fs::write(place.path("audit.log"), lines.join("\n") + "\n").unwrap();

    let child = Daemon::start(
        Command::new(crate::command(&place).get_program())
            .args(["run", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(place.said_file()),
    );
    let ids = || {
        let reader = pullwatch::internals::daemon::store::StoreReader::open(&place.state).ok()?;
        let alerts = reader.after(0, 10_000).ok()?;
        Some(
            alerts
                .iter()
                .map(|alert| {
                    let mut hex = Vec::new();
                    pullwatch::internals::detection::alert::push_hex(&alert.id, &mut hex);
                    String::from_utf8(hex).unwrap()
                })
                .collect::<Vec<_>>(),
        )
    };
    // The last event is evaluated when its alerts are there, and all of one batch are stored together.
    wait_for("alerts", || ids().is_some_and(|ids| ids.len() >= lines.len()));
    wait_for("empty queues", || {
        backlogs(&place).is_some_and(|all| !all.is_empty() && all.iter().all(|(_, count)| *count == 0.0))
    });
    assert_eq!(stop(child), Some(0));
    let ids = ids().unwrap();
    let said = place.said();
    assert!(!said.contains("dead letter"), "{said}");
    for (received, path) in &set.files {
        streams::file(path, received, 0);
    }
    for (received, is_complete) in &set.receivers {
        if *is_complete {
            wait_for(&received.name, || received.messages() >= ids.len());
        }
        received.check_messages();
        assert!(ids.len() >= received.count(), "{}: more messages than alerts", received.name);
        if received.has_ids() && *is_complete {
            assert!(ids.iter().all(|id| received.has(id)), "{}", received.name);
        }
    }
    eprintln!("{} alerts of {} events through {} sinks", ids.len(), lines.len(), set.sinks.len());
}
