//! Parses a configuration file to a [`Config`], or to diagnostics with positions.

mod grafana;
mod kafka;
mod labels;
mod sinks;
mod sources;
mod values;

use std::path::PathBuf;

use super::{Config, Server, keys};
use crate::daemon::sink::Kind;
use crate::detection::networks::{InvalidNetwork, Network, Networks};
use crate::detection::rules::Matching;
use crate::text::diagnostics::{Diagnostic, SourceFile};
use crate::text::document::DocumentReader;
use crate::text::yaml::{self, Node};

/// The result of reading a configuration file.
#[derive(Debug)]
pub struct ParsedConfig {
    /// `None` if there are errors.
    pub config: Option<Config>,
    /// In file order.
    pub diagnostics: Vec<Diagnostic>,
}

/// Parses a configuration. Positions refer to file 0. `variable` returns the value of an environment variable.
pub fn read(file: &SourceFile, variable: &dyn Fn(&str) -> Option<String>) -> ParsedConfig {
    read_with(ConfigReader { document: DocumentReader::new(0, &file.text), variable, with_files: true })
}

/// Parses a configuration without the files that it names and without the environment. Unset variables are replaced by a placeholder.
pub fn read_offline(file: &SourceFile) -> ParsedConfig {
    let variable = |_: &str| Some("offline".to_owned());
    read_with(ConfigReader {
        document: DocumentReader::new(0, &file.text),
        variable: &variable,
        with_files: false,
    })
}

fn read_with(mut reader: ConfigReader<'_>) -> ParsedConfig {
    let config = reader.file();
    let (diagnostics, has_errors) = reader.document.finish();
    ParsedConfig { config: config.filter(|_| !has_errors), diagnostics }
}

struct ConfigReader<'f> {
    document: DocumentReader<'f>,
    variable: &'f dyn Fn(&str) -> Option<String>,
    /// Whether the files named in the configuration are read.
    with_files: bool,
}

impl ConfigReader<'_> {
    fn error(&mut self, node: &Node, message: impl Into<String>, label: impl Into<String>) {
        self.document.error("config", node, message, label);
    }

    fn file(&mut self) -> Option<Config> {
        let documents = self.document.documents()?;
        let mut config = Config::default();
        for root in documents.roots.iter().filter(|root| !root.is_null()) {
            self.config(root, &mut config);
        }
        // The limit includes what formats add to an alert. Syslog and Kafka have their own limits.
        for sink in &mut config.sinks {
            if !matches!(sink.kind, Kind::Syslog(_) | Kind::Kafka(_)) {
                sink.max_message.get_or_insert(config.limits.max_alert);
            }
        }
        Some(config)
    }

    fn networks(&mut self, root: &Node) -> Networks {
        let Some(node) = root.get("networks").filter(|node| !node.is_null()) else {
            return Networks::default();
        };
        self.keys(node, &keys::NETWORKS);
        let mut list = |key: &str| -> Option<Vec<Network>> {
            let texts = self.texts(node, key);
            let parse = |text: &String| match text.trim().parse() {
                Ok(network) => Some(network),
                Err(InvalidNetwork) => {
                    let place = node.get(key).map_or(node, |place| place);
                    self.error(place, format!("invalid network: `{text}`"), InvalidNetwork.to_string());
                    None
                }
            };
            texts.iter().map(parse).collect()
        };
        // Invalid values were reported.
        let (Some(pods), Some(nodes)) = (list("pods"), list("nodes")) else { return Networks::default() };
        Networks::new(pods, nodes).unwrap_or_else(|error| {
            self.error(node, "incomplete `networks`", error.to_string());
            Networks::default()
        })
    }

    fn config(&mut self, root: &Node, config: &mut Config) {
        self.keys(root, &keys::ROOT);
        config.state_dir = self.path(root, "state_dir").or(config.state_dir.take());
        config.rules = self.texts(root, "rules").into_iter().map(PathBuf::from).collect();
        config.inventory = self.texts(root, "inventory").into_iter().map(PathBuf::from).collect();
        config.networks = self.networks(root);
        let matching = [("all", Matching::All), ("first", Matching::First)];
        config.matching = self.word(root, "rule_matching", &matching).unwrap_or(config.matching);
        config.priority = self.priority(root).unwrap_or(config.priority);
        if let Some(size) = self.size(root, "max_event_size", 1 << 10, 1 << 30) {
            config.max_event_size = usize::try_from(size).unwrap_or(usize::MAX);
        }
        config.labels = self.labels(root);
        for (key, min, limit) in [
            ("max_string", 64, &mut config.limits.max_string),
            ("max_alert", 1 << 10, &mut config.limits.max_alert),
        ] {
            let size = self.size(root, key, min, 64 << 20);
            *limit = size.and_then(|size| usize::try_from(size).ok()).unwrap_or(*limit);
        }
        if let Some(sources) = self.items(root, "sources") {
            config.sources =
                sources.iter().enumerate().filter_map(|(at, node)| self.source(node, at)).collect();
            self.unique(sources, config.sources.iter().map(|source| source.name.clone()).collect());
        }
        if let Some(sinks) = self.items(root, "sinks") {
            config.sinks = sinks.iter().enumerate().filter_map(|(at, node)| self.sink(node, at)).collect();
            self.unique(sinks, config.sinks.iter().map(|sink| sink.name.clone()).collect());
        }
        self.check_exactly_once(root, config);
        self.check_repartition(root, config);
        match root.get("server") {
            Some(node) if node.text().is_some_and(|text| yaml::boolean(text) == Some(false)) => {
                config.server = None;
            }
            Some(node) => {
                self.keys(node, &keys::SERVER);
                let default = Server::default();
                config.server = Some(Server {
                    listen: self.parsed(node, "listen", "expected 127.0.0.1:9417").unwrap_or(default.listen),
                    hosts: self.hosts(node),
                    token_file: self.path(node, "token_file"),
                    tls: self.tls(node),
                });
            }
            None => {}
        }
        if let Some(node) = root.get("metrics") {
            self.keys(node, &keys::METRICS);
            let metrics = &mut config.metrics;
            metrics.identities = self.boolean(node, "identities").unwrap_or(metrics.identities);
            metrics.labels = self.boolean(node, "labels").unwrap_or(metrics.labels);
            if metrics.labels {
                self.check_metric_labels(root);
            }
        }
        if let Some(node) = root.get("store") {
            self.keys(node, &keys::STORE);
            config.store.max_age = self.duration(node, "max_age").unwrap_or(config.store.max_age);
            config.store.max_size =
                self.size(node, "max_size", 1 << 20, 1 << 50).unwrap_or(config.store.max_size);
        }
    }
}

fn numbered(kind: &str, at: usize) -> String {
    if at == 0 { kind.to_owned() } else { format!("{kind}-{}", at + 1) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::super::SourceKind;
    use super::*;
    use crate::daemon::sink::{Body, DeadLetter, Facility, Format, TlsSettings, Transport};

    fn read_text(text: &str) -> ParsedConfig {
        let file = SourceFile { name: "pullwatch.yaml".into(), text: text.to_owned() };
        read(&file, &|name| (name == "HOST").then(|| "siem".to_owned()))
    }

    #[test]
    fn networks_are_those_of_pods_and_of_nodes() {
        let read = read_text("networks: {pods: [10.244.0.0/16], nodes: 192.168.5.0/24}");
        assert_eq!(read.config.unwrap().networks.place_of("192.168.5.1"), Some("nodes"));
        for (text, message) in [
            ("networks: {pods: [10.244.0.0/16]}", "incomplete `networks`"),
            ("networks: {pods: [10.244.0.0], nodes: [192.168.5.0/24]}", "invalid network: `10.244.0.0`"),
        ] {
            let read = read_text(text);
            assert!(read.config.is_none(), "{text}");
            assert_eq!(read.diagnostics[0].message, message, "{text}");
        }
    }

    #[test]
    fn an_empty_file_is_valid() {
        let mut expected = Config::default();
        // The limit of an alert is that of its message.
        expected.sinks[0].max_message = Some(expected.limits.max_alert);
        assert_eq!(read_text("").config, Some(expected.clone()));
        assert_eq!(read_text("# nothing\n").config, Some(expected));
    }

    #[test]
    fn reads_all_sections() {
        let read = read_text(
            "state_dir: /tmp/x\nrules: rules.d\npriority: notice\nmax_event_size: 8M\nserver: false\nstore: {max_age: 7d, max_size: 100M}\nsources:\n- paths: [/a, '/b/*.log']\n  start_at: end\n  poll: 250ms\n- {type: webhook, listen: '0.0.0.0:9443', tls: {certificate: c, key: k, client_ca: ca}}\n- type: stdin\nsinks:\n- {type: file, path: '/${HOST}/a$$b', retry: {initial: 1s, max: 2m}}\n- {type: stdout, name: log, format: text, priority: warning, rules: 'R*', exclude_rules: ['Secret*', '${X:-y}']}\n",
        );
        assert!(read.diagnostics.is_empty(), "{:?}", read.diagnostics);
        let config = read.config.unwrap();
        assert_eq!((config.sources.len(), config.sinks.len(), config.server), (3, 2, None));
        let Kind::File(file) = &config.sinks[0].kind else { panic!() };
        assert_eq!(file.path, PathBuf::from("/siem/a$b"));
        assert_eq!(config.sinks[0].retry.max, Duration::from_secs(120));
        assert_eq!(config.sinks[1].exclude, ["Secret*", "y"]);
        let SourceKind::File(file) = &config.sources[0].kind else { panic!() };
        assert!(file.from_end && file.poll == Duration::from_millis(250));
    }

    #[test]
    fn reads_network_sinks() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key");
        std::fs::write(&key, "Splunk hunter2\n").unwrap();
        let read = read_text(&format!(
            "sinks:\n- type: http\n  url: 'https://${{HOST}}/in'\n  body: array\n  batch: {{alerts: 10, bytes: 64K}}\n  headers: {{X-Cluster: prod}}\n  header_files: {{Authorization: '{}'}}\n  tls: {{ca: /ca, certificate: /c, key: /k, server_name: siem}}\n  gzip: true\n  timeout: 3s\n  retry_statuses: [401]\n  retry: {{max_age: 7d}}\n  dead_letter: {{path: /dead, max_size: 1M}}\n- {{type: syslog, address: 'tls://siem:6514', tls: {{ca: /ca}}, facility: local3, format: cef, structured_data: false, dead_letter: false}}\n- {{type: syslog, address: 'unix:///dev/log'}}\n",
            key.display()
        ));
        assert!(read.diagnostics.is_empty(), "{:?}", read.diagnostics);
        let config = read.config.unwrap();
        let Kind::Http(http) = &config.sinks[0].kind else { panic!() };
        assert_eq!(http.url.reveal(), "https://siem/in");
        assert_eq!(http.body, Body::Array { alerts: 10, bytes: 64 << 10 });
        assert_eq!(http.headers[1].1.reveal(), "Splunk hunter2");
        assert_eq!((http.gzip, &http.retry_statuses[..]), (true, &[401][..]));
        assert_eq!(config.sinks[0].timeout, Duration::from_secs(3));
        assert_eq!(config.sinks[0].retry.max_age, Some(Duration::from_secs(7 * 86_400)));
        let dead_letter = config.sinks[0].dead_letter.as_ref().unwrap();
        assert_eq!((dead_letter.path.to_str(), dead_letter.max_bytes), (Some("/dead"), 1 << 20));
        let Kind::Syslog(syslog) = &config.sinks[1].kind else { panic!() };
        let tls = TlsSettings { ca: Some("/ca".into()), ..TlsSettings::default() };
        assert_eq!(syslog.transport, Transport::Tls("siem:6514".to_owned(), tls));
        assert_eq!((syslog.facility, syslog.format), (Facility::Local3, Format::Cef));
        assert_eq!((&syslog.structured_data, &config.sinks[1].dead_letter), (&None, &None));
        assert_eq!(config.sinks[2].dead_letter, Some(DeadLetter::default()));
        // The debug output of a configuration contains no secrets.
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    #[cfg(feature = "kafka")]
    fn reads_kafka_settings_and_reports_errors_without_values() {
        let read = read_text(
            "sources:\n- {type: kafka, brokers: ['a:1', 'b:1'], topics: [audit, '^x'], group: g, instance_id: '${HOST}', start_at: 2026-11-23T00:00:00Z, commit: stored, properties: {sasl.password: hunter2}}\nsinks:\n- {type: kafka, brokers: 'a:1', topic: alerts, key: rule, compression: zstd}\n",
        );
        assert!(read.diagnostics.is_empty(), "{:?}", read.diagnostics);
        let config = read.config.unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
        let SourceKind::Kafka(source) = &config.sources[0].kind else { panic!() };
        assert_eq!((source.instance_id.as_deref(), source.topics.len()), (Some("siem"), 2));
        assert_eq!(source.start_at, crate::daemon::source::kafka::StartAt::Time(1_795_392_000_000));
        let source = "brokers: 'a:1', topics: [t]";
        let sink = "{type: kafka, brokers: 'a:1', topic: t}";
        for (text, message) in [
            (
                format!("sources: [{{type: kafka, {source}, properties: {{enable.auto.commit: 'true'}}}}]"),
                "see `commit`",
            ),
            (
                format!("sources: [{{type: kafka, {source}, properties: {{no.such: hunter2}}}}]"),
                "unknown librdkafka property `no.such`",
            ),
            (
                format!("sources: [{{type: kafka, {source}, properties: {{socket.timeout.ms: hunter2}}}}]"),
                "invalid value",
            ),
            (format!("sources: [{{type: kafka, {source}, start_at: soon}}]"), "invalid `start_at`: `soon`"),
            ("sources: [{type: kafka, topics: [t]}]".to_owned(), "`brokers` is missing"),
            ("sources: [{type: kafka, brokers: 'a:1'}]".to_owned(), "`topics` is missing"),
            (
                format!("sources: [{{type: kafka, {source}, exactly_once: true}}]\nsinks: []"),
                "requires exactly one kafka sink",
            ),
            (
                format!(
                    "sources: [{{type: kafka, {source}, exactly_once: true}}, {{type: stdin}}]\nsinks: [{sink}]"
                ),
                "requires a single source",
            ),
            (
                format!(
                    "sources: [{{type: kafka, brokers: 'b:1', topics: [t], exactly_once: true}}]\nsinks: [{sink}]"
                ),
                "on the same cluster",
            ),
            (
                "sinks: [{type: kafka, brokers: 'a:1', topic: t, properties: {acks: '1'}}]".to_owned(),
                "always `all`",
            ),
        ] {
            let diagnostics = read_text(&text).diagnostics;
            assert!(diagnostics.iter().any(|one| one.message.contains(message)), "{text}: {diagnostics:?}");
            assert!(!format!("{diagnostics:?}").contains("hunter2"));
        }
    }

    #[test]
    #[cfg(not(feature = "kafka"))]
    fn a_build_without_kafka_reports_it() {
        for text in [
            "sources: [{type: kafka, brokers: 'a:1', topics: [t]}]",
            "sinks: [{type: kafka, brokers: 'a:1', topic: t}]",
        ] {
            assert!(
                read_text(text)
                    .diagnostics
                    .iter()
                    .any(|one| one.message.contains("this build does not support Kafka"))
            );
        }
    }

    #[test]
    fn reports_errors_with_their_position() {
        let messages = |text: &str| -> Vec<String> {
            read_text(text)
                .diagnostics
                .iter()
                .map(|one| format!("{} {}", one.message, one.help.join(" ")))
                .collect()
        };
        for (text, message) in [
            ("stat_dir: x", "did you mean `state_dir`?"),
            ("sources: [{type: fil}]", "unknown type `fil`"),
            ("sources: [{type: webhook, tls: {key: k}}]", "`certificate` is missing"),
            ("sinks: [{type: file}]", "`path` is missing"),
            ("sinks: [{type: file, path: /a, retry: {max: soon}}]", "invalid `max`: `soon`"),
            ("sinks: [{type: stdout}, {type: stdout, name: stdout}]", "duplicate name `stdout`"),
            ("sinks: [{type: file, path: '${NOSUCH}'}]", "environment variable `NOSUCH` is not set"),
            ("sinks: [{type: http}]", "`url` is missing"),
            ("sinks: [{type: http, url_file: /no/such}]", "cannot read `/no/such`"),
            (
                "sinks: [{type: http, url: 'http://x', retry_statuses: [200]}]",
                "invalid `retry_statuses`: `200`",
            ),
            ("sinks: [{type: http, url: 'http://x', gzip: yess}]", "invalid `gzip`: `yess`"),
            ("sinks: [{type: syslog, address: 'siem:514'}]", "invalid `address`: `siem:514`"),
            ("sinks: [{type: syslog, adress: x}]", "did you mean `address`?"),
            ("sinks: [{type: kafkaa}]", "did you mean `kafka`?"),
            ("server: {listen: here}", "invalid `listen`: `here`"),
            ("max_event_size: 1", "invalid `max_event_size`: `1`"),
            ("[1", "not valid YAML"),
        ] {
            assert!(messages(text).iter().any(|one| one.contains(message)), "{text}: {:?}", messages(text));
            assert!(read_text(text).config.is_none());
        }
    }
}
