//! The Kafka settings of sources and sinks.

use std::time::Duration;

use super::super::{Config, SourceKind, keys};
use super::ConfigReader;
use crate::daemon::kafka::{self, Cluster, Role};
use crate::daemon::secret::Secret;
use crate::daemon::sink::{Compression, Format, Kafka, Key, Kind};
use crate::daemon::source::kafka::{Commit, Correlate, Settings, StartAt};
use crate::text::yaml::Node;

/// Upper bound of `correlate.partitions`: no deployment has more replicas.
const MAX_PARTITIONS: usize = 1024;

impl ConfigReader<'_> {
    pub(super) fn kafka_source(&mut self, node: &Node) -> Option<Settings> {
        self.keys(node, &keys::KAFKA_SOURCE);
        let default = Settings::default();
        let topics = self.texts(node, "topics");
        if topics.is_empty() {
            self.error(
                node,
                "`topics` is missing",
                "add `topics: [audit]`; a name that starts with ^ is a regular expression",
            );
        }
        let commits = [("delivered", Commit::Delivered), ("stored", Commit::Stored)];
        Some(Settings {
            cluster: self.cluster(node, Role::Consumer)?,
            topics,
            group: self.text(node, "group").unwrap_or(default.group),
            instance_id: self.text(node, "instance_id").filter(|id| !id.is_empty()),
            start_at: self.start_at(node).unwrap_or(default.start_at),
            commit: self.word(node, "commit", &commits).unwrap_or(default.commit),
            exactly_once: self.boolean(node, "exactly_once").unwrap_or(default.exactly_once),
            correlate: self.correlate(node),
        })
    }

    fn correlate(&mut self, node: &Node) -> Option<Correlate> {
        let found = node.get("correlate").filter(|node| !node.is_null())?;
        self.keys(found, &keys::CORRELATE);
        let mut partitions = 16;
        if let (Some(text), Some(place)) = (self.text(found, "partitions"), found.get("partitions")) {
            match text.parse() {
                Ok(number) if (1..=MAX_PARTITIONS).contains(&number) => partitions = number,
                _ => self.error(
                    place,
                    format!("invalid `partitions`: `{text}`"),
                    format!("expected a number from 1 to {MAX_PARTITIONS}"),
                ),
            }
        }
        Some(Correlate {
            topic: self.required(found, "topic")?,
            partitions,
            lateness: self.duration(found, "lateness").unwrap_or(Duration::from_secs(60)),
        })
    }

    /// Rejects several repartition topics: all matches must go through the same one.
    pub(super) fn check_repartition(&mut self, root: &Node, config: &Config) {
        let exchanges = config.sources.iter().filter(
            |source| matches!(&source.kind, SourceKind::Kafka(settings) if settings.correlate.is_some()),
        );
        if exchanges.count() > 1 {
            let place = root.get("sources").map_or(root, |place| place);
            let message = "several sources have `correlate`: the matches of all sources go through one topic";
            self.error(place, message, "keep it on one source");
        }
    }

    /// Checks the requirements of `exactly_once`: one source and one sink on the same cluster, since a transaction cannot span more.
    pub(super) fn check_exactly_once(&mut self, root: &Node, config: &Config) {
        let mut kafka = config.sources.iter().filter_map(|source| match &source.kind {
            SourceKind::Kafka(settings) => Some(settings),
            _ => None,
        });
        let Some(source) = kafka.find(|source| source.exactly_once) else { return };
        let place = root.get("sources").map_or(root, |place| place);
        let sinks: Vec<&Kafka> = config
            .sinks
            .iter()
            .filter_map(|sink| match &sink.kind {
                Kind::Kafka(settings) => Some(settings),
                _ => None,
            })
            .collect();
        if config.sources.len() != 1 {
            self.error(
                place,
                "`exactly_once` requires a single source",
                "read other sources with a second pullwatch",
            );
        }
        if sinks.len() != 1 {
            self.error(place, "`exactly_once` requires exactly one kafka sink", "alerts are written to it");
        }
        if sinks.iter().any(|sink| sink.cluster.brokers != source.cluster.brokers) {
            let message = "`exactly_once` requires source and sink on the same cluster: a transaction cannot span clusters";
            self.error(place, message, "set the same `brokers` for both");
        }
    }

    pub(super) fn kafka_sink(&mut self, node: &Node) -> Option<Kind> {
        self.keys(node, &keys::KAFKA_SINK);
        let keys = [("actor", Key::Actor), ("id", Key::Id), ("rule", Key::Rule), ("none", Key::None)];
        Some(Kind::Kafka(Kafka {
            cluster: self.cluster(node, Role::Producer)?,
            topic: self.required(node, "topic")?,
            key: self.word(node, "key", &keys).unwrap_or_default(),
            format: self.format(node, Format::Falco),
            compression: self.word(node, "compression", &Compression::ALL).unwrap_or_default(),
        }))
    }

    fn start_at(&mut self, node: &Node) -> Option<StartAt> {
        let text = self.text(node, "start_at")?;
        match text.as_str() {
            "earliest" => Some(StartAt::Earliest),
            "latest" => Some(StartAt::Latest),
            time => match (time.parse::<jiff::Timestamp>(), node.get("start_at")) {
                (Ok(time), _) => Some(StartAt::Time(time.as_millisecond())),
                (Err(_), Some(place)) => {
                    let expected = "expected earliest, latest or a time such as 2026-11-23T00:00:00Z";
                    self.error(place, format!("invalid `start_at`: `{text}`"), expected);
                    None
                }
                (Err(_), None) => None,
            },
        }
    }

    pub(super) fn cluster(&mut self, node: &Node, role: Role) -> Option<Cluster> {
        if !kafka::ENABLED {
            let place = node.get("type").map_or(node, |place| place);
            self.error(place, kafka::DISABLED, "not available");
            return None;
        }
        let brokers = self.texts(node, "brokers");
        if brokers.is_empty() {
            self.error(node, "`brokers` is missing", "add `brokers: [\"kafka:9092\"]`");
        }
        let mut cluster = Cluster {
            brokers,
            properties: Vec::new(),
            oauth_token_file: self.path(node, "oauth_token_file"),
        };
        for (key, is_file) in [("properties", false), ("property_files", true)] {
            for entry in self.entries(node, key) {
                let value = self.value(&entry.value, &entry.key);
                let value = if is_file {
                    value.and_then(|path| self.content(&entry.value, &path))
                } else {
                    value.map(Secret::new)
                };
                let Some(value) = value else { continue };
                let name = entry.key.clone();
                if let Some(why) = kafka::reserved(&name, role) {
                    self.error(&entry.value, format!("`{name}` cannot be set: {why}"), "remove it");
                    continue;
                }
                let one = Cluster { properties: vec![(name, value)], ..Cluster::default() };
                match kafka::check(&one) {
                    Ok(()) => cluster.properties.extend(one.properties),
                    Err(error) => self.error(&entry.value, error.to_string(), "invalid"),
                }
            }
        }
        Some(cluster)
    }
}
