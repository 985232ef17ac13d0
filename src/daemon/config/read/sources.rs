//! The settings of sources, and TLS settings of listeners.

use std::path::PathBuf;

use super::super::{FileSource, ServerTls, Source, SourceKind, WebhookSource, keys};
use super::{ConfigReader, numbered};
use crate::detection::audit::envelope::Format;
use crate::detection::detector::LogContext;
use crate::text::yaml::Node;

impl ConfigReader<'_> {
    pub(super) fn source(&mut self, node: &Node, at: usize) -> Option<Source> {
        let kind = self.text(node, "type").unwrap_or_else(|| "file".to_owned());
        let name = self.text(node, "name").unwrap_or_else(|| numbered(&kind, at));
        let kind = match kind.as_str() {
            "file" => {
                self.keys(node, &keys::FILE_SOURCE);
                let from = [("beginning", false), ("end", true)];
                let default = FileSource::default();
                SourceKind::File(FileSource {
                    paths: self.texts(node, "paths"),
                    from_end: self.word(node, "start_at", &from).unwrap_or(default.from_end),
                    poll: self.duration(node, "poll").unwrap_or(default.poll),
                })
            }
            "webhook" => {
                self.keys(node, &keys::WEBHOOK_SOURCE);
                let default = WebhookSource::default();
                let max_body = self.size(node, "max_body", 1 << 10, 1 << 30);
                SourceKind::Webhook(WebhookSource {
                    listen: self.parsed(node, "listen", "expected 0.0.0.0:9443").unwrap_or(default.listen),
                    path: self.text(node, "path").unwrap_or(default.path),
                    tls: self.tls(node),
                    token_file: self.path(node, "token_file"),
                    max_body: max_body
                        .and_then(|size| usize::try_from(size).ok())
                        .unwrap_or(default.max_body),
                })
            }
            "stdin" => {
                self.keys(node, &keys::STDIN_SOURCE);
                SourceKind::Stdin
            }
            "kafka" => SourceKind::Kafka(self.kafka_source(node)?),
            other => return self.unknown_type(node, other, &["file", "webhook", "kafka", "stdin"]),
        };
        let log = LogContext {
            cluster: self.text(node, "cluster"),
            format: self.word(node, "format", &Format::ALL).unwrap_or_default(),
        };
        Some(Source { name, log, kind })
    }

    pub(super) fn tls(&mut self, parent: &Node) -> Option<ServerTls> {
        let node = parent.get("tls").filter(|node| !node.is_null())?;
        self.keys(node, &keys::SERVER_TLS);
        let certificate = self.required(node, "certificate");
        let key = self.required(node, "key");
        Some(ServerTls {
            certificate: PathBuf::from(certificate?),
            key: PathBuf::from(key?),
            client_ca: self.path(node, "client_ca"),
        })
    }
}
