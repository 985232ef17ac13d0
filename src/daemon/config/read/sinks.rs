//! The settings of sinks.

use std::path::PathBuf;

use base64::Engine as _;

use super::super::keys;
use super::{ConfigReader, numbered};
use crate::daemon::sink::{
    Body, DeadLetter, Facility, File, Format, Http, Kind, Retry, Secret, SinkConfig, Stdout, Syslog,
    Template, TlsSettings, Transport,
};
use crate::text::yaml::Node;

const TYPES: [&str; 10] = [
    "stdout",
    "file",
    "http",
    "elasticsearch",
    "splunk_hec",
    "otlp",
    "kafka",
    "syslog",
    "alertmanager",
    "loki",
];

/// Maximum status code of HTTP.
const MAX_STATUS: u16 = 599;

impl ConfigReader<'_> {
    pub(super) fn sink(&mut self, node: &Node, at: usize) -> Option<SinkConfig> {
        let kind = self.text(node, "type").unwrap_or_default();
        let name = self.text(node, "name").unwrap_or_else(|| numbered(&kind, at));
        let kind = match kind.as_str() {
            "stdout" => self.stdout(node),
            "file" => self.file_sink(node)?,
            "http" => self.http(node)?,
            "elasticsearch" => self.elasticsearch(node)?,
            "splunk_hec" => self.splunk(node)?,
            "otlp" => self.otlp(node)?,
            "kafka" => self.kafka_sink(node)?,
            "syslog" => self.syslog(node)?,
            "alertmanager" => self.alertmanager(node),
            "loki" => self.loki(node)?,
            other => return self.unknown_type(node, other, &TYPES),
        };
        let events = self.events(node, &kind);
        let default = SinkConfig::default();
        Some(SinkConfig {
            name,
            kind,
            min_priority: self.priority(node).unwrap_or(default.min_priority),
            include: self.texts(node, "rules"),
            exclude: self.texts(node, "exclude_rules"),
            events,
            retry: self.retry(node),
            dead_letter: self.dead_letter(node),
            timeout: self.duration(node, "timeout").unwrap_or(default.timeout),
            max_message: self
                .size(node, "max_message", 480, 1 << 30)
                .and_then(|size| usize::try_from(size).ok()),
            ..default
        })
    }

    /// The rules whose events a sink delivers.
    fn events(&mut self, parent: &Node, kind: &Kind) -> Vec<String> {
        let Some(node) = parent.get("events").filter(|node| !node.is_null()) else { return Vec::new() };
        self.keys(node, &keys::EVENTS);
        let rules = self.texts(node, "rules");
        if rules.is_empty() {
            self.error(node, "`events` names no rules", "add `rules:` with names or patterns");
        }
        let is_json = |format: Format| matches!(format, Format::Auto | Format::Falco);
        let is_possible = match kind {
            Kind::Stdout(stdout) => is_json(stdout.format),
            Kind::File(file) => is_json(file.format),
            Kind::Http(http) => {
                is_json(http.format)
                    && matches!(http.body, Body::Alert | Body::Array { .. } | Body::Lines { .. })
            }
            Kind::Kafka(kafka) => is_json(kafka.format),
            Kind::Syslog(syslog) => is_json(syslog.format),
            Kind::Loki(loki) => is_json(loki.format),
            Kind::Alertmanager(_) => false,
        };
        if !is_possible {
            let expected = "a sink that delivers JSON of its own: stdout, file, http, kafka, syslog or loki with `format: falco`";
            self.error(node, "this sink cannot deliver `events`", format!("expected {expected}"));
        }
        rules
    }

    pub(super) fn format(&mut self, node: &Node, default: Format) -> Format {
        // `json` is a synonym.
        let formats = [
            ("falco", Format::Falco),
            ("json", Format::Falco),
            ("text", Format::Text),
            ("cef", Format::Cef),
            ("ecs", Format::Ecs),
            ("ocsf", Format::Ocsf),
        ];
        let auto = [("auto", Format::Auto)].into_iter().filter(|_| default == Format::Auto);
        let formats: Vec<_> = auto.chain(formats).collect();
        self.word(node, "format", &formats).unwrap_or(default)
    }

    fn stdout(&mut self, node: &Node) -> Kind {
        self.keys(node, &keys::STDOUT_SINK);
        Kind::Stdout(Stdout { format: self.format(node, Format::Auto) })
    }

    fn file_sink(&mut self, node: &Node) -> Option<Kind> {
        self.keys(node, &keys::FILE_SINK);
        Some(Kind::File(File {
            path: PathBuf::from(self.required(node, "path")?),
            format: self.format(node, Format::Falco),
            sync: self.boolean(node, "sync").unwrap_or(false),
            mode: self.mode(node),
            group: self.text(node, "group"),
        }))
    }

    /// File permissions in octal digits.
    fn mode(&mut self, node: &Node) -> Option<u32> {
        let text = self.text(node, "mode")?;
        let digits = text.trim_start_matches("0o");
        let mode = u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o777 && mode & 0o200 != 0);
        if let (None, Some(found)) = (mode, node.get("mode")) {
            self.error(found, format!("invalid `mode`: `{text}`"), "expected octal digits such as \"0640\"");
        }
        mode
    }

    fn http(&mut self, node: &Node) -> Option<Kind> {
        self.keys(node, &keys::HTTP_SINK);
        let body = self.body(node);
        let format = self.format(node, Format::Falco);
        self.http_request(node).map(|http| Kind::Http(Http { body, format, ..http }))
    }

    fn elasticsearch(&mut self, node: &Node) -> Option<Kind> {
        self.keys(node, &keys::ELASTICSEARCH_SINK);
        let (alerts, bytes) = self.batch(node);
        let data_stream =
            self.text(node, "data_stream").unwrap_or_else(|| "logs-pullwatch.alert-default".to_owned());
        let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
        if data_stream.is_empty() || !data_stream.bytes().all(is_name) {
            let message = format!("invalid `data_stream`: `{data_stream}`");
            self.error(node, message, "expected lower-case letters, digits, `-`, `_` and `.`");
        }
        let mut http = self.http_request(node)?;
        if let Some(key) = self.optional_secret(node, "api_key") {
            http.headers.push(("Authorization".to_owned(), Secret::new(format!("ApiKey {}", key.reveal()))));
        }
        let format = self.format(node, Format::Ecs);
        Some(Kind::Http(Http { body: Body::Bulk { data_stream, alerts, bytes }, format, ..http }))
    }

    fn splunk(&mut self, node: &Node) -> Option<Kind> {
        self.keys(node, &keys::SPLUNK_SINK);
        let (alerts, bytes) = self.batch(node);
        let token = self.secret(node, "token")?;
        let body = Body::Splunk {
            index: self.text(node, "index"),
            source: self.text(node, "source").unwrap_or_else(|| "pullwatch".to_owned()),
            sourcetype: self.text(node, "sourcetype").unwrap_or_else(|| "pullwatch:alert".to_owned()),
            host: self.text(node, "host"),
            ack: self.boolean(node, "ack").unwrap_or(false),
            alerts,
            bytes,
        };
        let format = self.format(node, Format::Falco);
        let mut http = self.http_request(node)?;
        http.headers.push(("Authorization".to_owned(), Secret::new(format!("Splunk {}", token.reveal()))));
        Some(Kind::Http(Http { body, format, ..http }))
    }

    fn otlp(&mut self, node: &Node) -> Option<Kind> {
        self.keys(node, &keys::OTLP_SINK);
        let (alerts, bytes) = self.batch(node);
        self.http_request(node).map(|http| Kind::Http(Http { body: Body::Otlp { alerts, bytes }, ..http }))
    }

    /// Settings shared by sinks that send several alerts per request.
    fn http_request(&mut self, node: &Node) -> Option<Http> {
        let mut retry_statuses = Vec::new();
        for text in self.texts(node, "retry_statuses") {
            match text.parse() {
                Ok(status @ 300..=MAX_STATUS) => retry_statuses.push(status),
                _ => self.error(node, format!("invalid `retry_statuses`: `{text}`"), "expected 300 to 599"),
            }
        }
        Some(Http {
            url: self.secret(node, "url")?,
            gzip: self.boolean(node, "gzip").unwrap_or(false),
            retry_statuses,
            ..self.http_client(node)
        })
    }

    /// Settings shared by sinks that send HTTP requests.
    pub(super) fn http_client(&mut self, node: &Node) -> Http {
        let default = Http::default();
        let mut headers = self.named_values(node, "headers", "header_files");
        headers.extend(self.basic_auth(node).map(|value| ("Authorization".to_owned(), value)));
        Http {
            headers,
            bearer_token_file: self.path(node, "bearer_token_file"),
            tls: self.client_tls(node),
            connect_timeout: self.duration(node, "connect_timeout").unwrap_or(default.connect_timeout),
            proxy: self.text(node, "proxy").map(Secret::new),
            ..default
        }
    }

    /// The value of `Authorization` for a user name and a password.
    fn basic_auth(&mut self, parent: &Node) -> Option<Secret> {
        let node = parent.get("basic_auth").filter(|node| !node.is_null())?;
        self.keys(node, &keys::BASIC_AUTH);
        let user = self.required(node, "username")?;
        let password = self.secret(node, "password")?;
        let pair = format!("{user}:{}", password.reveal());
        Some(Secret::new(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))))
    }

    /// Maximum number of alerts, and maximum size in bytes, of a request.
    fn batch(&mut self, node: &Node) -> (usize, usize) {
        let (mut alerts, mut bytes) = (100, 1 << 20);
        if let Some(batch) = node.get("batch") {
            self.keys(batch, &keys::BATCH);
            alerts = self.parsed(batch, "alerts", "expected a number of alerts").unwrap_or(alerts);
            let size = self.size(batch, "bytes", 1, 1 << 30);
            bytes = size.and_then(|size| usize::try_from(size).ok()).unwrap_or(bytes);
        }
        (alerts, bytes)
    }

    fn body(&mut self, node: &Node) -> Body {
        let (alerts, bytes) = self.batch(node);
        if let Some(found) = node.get("body").filter(|body| body.mapping().is_some()) {
            return self.template(found).map_or(Body::Alert, |template| Body::Template(Box::new(template)));
        }
        match self.text(node, "body").as_deref() {
            None | Some("alert") => Body::Alert,
            Some("array") => Body::Array { alerts, bytes },
            Some("lines") => Body::Lines { alerts, bytes },
            Some(other) => {
                let place = node.get("body").map_or(node, |place| place);
                self.error(
                    place,
                    format!("invalid `body`: `{other}`"),
                    "expected alert or array or lines or {template: …}",
                );
                Body::Alert
            }
        }
    }

    /// Names and values: under one key as plain text, under the other as files to read them from.
    fn named_values(&mut self, node: &Node, written: &str, files: &str) -> Vec<(String, Secret)> {
        let mut values = Vec::new();
        for (key, is_file) in [(written, false), (files, true)] {
            for entry in self.entries(node, key) {
                let value = self.value(&entry.value, &entry.key);
                let value = if is_file {
                    value.and_then(|path| self.content(&entry.value, &path))
                } else {
                    value.map(Secret::new)
                };
                values.extend(value.map(|value| (entry.key.clone(), value)));
            }
        }
        values
    }

    /// `body: {template: …, values: …, value_files: …}`.
    fn template(&mut self, node: &Node) -> Option<Template> {
        self.keys(node, &keys::TEMPLATE);
        let values = self.named_values(node, "values", "value_files");
        let text = self.required(node, "template")?;
        let resolve_after = self.duration(node, "resolve_after");
        let template = Template::new(&text, values).and_then(|template| match resolve_after {
            Some(after) => template.resolve_after(after),
            None => Ok(template),
        });
        match template {
            Ok(template) => Some(template),
            Err(reason) => {
                let place = node.get("template").map_or(node, |place| place);
                self.error(
                    place,
                    format!("invalid `template`: {reason}"),
                    "expected JSON with %fields, or a service",
                );
                None
            }
        }
    }

    /// An optional secret: the value of the key, or the content of the file named by `<key>_file`.
    fn optional_secret(&mut self, node: &Node, key: &str) -> Option<Secret> {
        let is_there = node.get(key).is_some() || node.get(&format!("{key}_file")).is_some();
        if is_there { self.secret(node, key) } else { None }
    }

    fn syslog(&mut self, node: &Node) -> Option<Kind> {
        self.keys(node, &keys::SYSLOG_SINK);
        let default = Syslog::default();
        let facilities: Vec<(&str, Facility)> =
            Facility::ALL.iter().map(|(facility, name)| (*name, *facility)).collect();
        let structured_data = match self.boolean_or_text(node, "structured_data") {
            Some(Ok(false)) => None,
            Some(Err(id)) => Some(id),
            Some(Ok(true)) | None => default.structured_data,
        };
        Some(Kind::Syslog(Syslog {
            transport: self.transport(node)?,
            facility: self.word(node, "facility", &facilities).unwrap_or(default.facility),
            app_name: self.text(node, "app_name").unwrap_or(default.app_name),
            hostname: self.text(node, "hostname"),
            format: self.format(node, Format::Falco),
            structured_data,
        }))
    }

    fn transport(&mut self, node: &Node) -> Option<Transport> {
        let Some(address) = self.text(node, "address") else {
            return Some(Syslog::default().transport);
        };
        let tls = self.client_tls(node);
        Some(match address.split_once("://") {
            Some(("udp", at)) => Transport::Udp(at.to_owned()),
            Some(("tcp", at)) => Transport::Tcp(at.to_owned()),
            Some(("tls", at)) => Transport::Tls(at.to_owned(), tls),
            Some(("unix", path)) => Transport::Unix(PathBuf::from(path)),
            _ => {
                let place = node.get("address").map_or(node, |place| place);
                self.error(
                    place,
                    format!("invalid `address`: `{address}`"),
                    "expected udp://host:514, tcp://host:601, tls://host:6514 or unix:///dev/log",
                );
                return None;
            }
        })
    }

    fn client_tls(&mut self, parent: &Node) -> TlsSettings {
        let Some(node) = parent.get("tls").filter(|node| !node.is_null()) else {
            return TlsSettings::default();
        };
        self.keys(node, &keys::CLIENT_TLS);
        TlsSettings {
            ca: self.path(node, "ca"),
            certificate: self.path(node, "certificate"),
            key: self.path(node, "key"),
            server_name: self.text(node, "server_name"),
        }
    }

    fn retry(&mut self, parent: &Node) -> Retry {
        let mut retry = Retry::default();
        if let Some(node) = parent.get("retry") {
            self.keys(node, &keys::RETRY);
            retry.initial = self.duration(node, "initial").unwrap_or(retry.initial);
            retry.max = self.duration(node, "max").unwrap_or(retry.max);
            retry.max_retry_after = self.duration(node, "max_retry_after").unwrap_or(retry.max_retry_after);
            retry.max_age = self.duration(node, "max_age");
            let expected = "expected a number of alerts, or 0";
            retry.max_refusals = self.parsed(node, "max_refusals", expected).unwrap_or(retry.max_refusals);
        }
        retry
    }

    fn dead_letter(&mut self, parent: &Node) -> Option<DeadLetter> {
        let mut dead_letter = DeadLetter::default();
        let Some(node) = parent.get("dead_letter").filter(|node| !node.is_null()) else {
            return Some(dead_letter);
        };
        if node.text().is_some() {
            return match self.boolean(parent, "dead_letter") {
                Some(false) => None,
                _ => Some(dead_letter),
            };
        }
        self.keys(node, &keys::DEAD_LETTER);
        dead_letter.path = self.path(node, "path").unwrap_or(dead_letter.path);
        dead_letter.max_bytes = self.size(node, "max_size", 1, 1 << 50).unwrap_or(dead_letter.max_bytes);
        Some(dead_letter)
    }
}
