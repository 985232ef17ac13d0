//! The table of all configuration keys: type, default, description.
//!
//! The reader rejects keys that are not in this table, and `docs/reference/configuration.md` is generated from it. A test checks the
//! defaults against [`Config::default`](super::Config).

/// One key of the configuration file.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    pub name: &'static str,
    /// Type of the value, with its unit or its possible values.
    pub value: &'static str,
    /// Default as YAML; empty if there is none.
    pub default: &'static str,
    /// One or two sentences.
    pub description: &'static str,
}

/// The keys of one mapping.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// Location in the file, such as `sources[]`.
    pub path: &'static str,
    /// Noun phrase for messages, such as "a file source".
    pub name: &'static str,
    pub description: &'static str,
    pub keys: &'static [Key],
    /// Sections whose keys are valid here, too.
    pub includes: &'static [&'static Section],
}

impl Section {
    /// Returns the names of all valid keys.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        let own = self.keys.iter().map(|key| key.name);
        own.chain(self.includes.iter().flat_map(|section| section.names())).collect()
    }
}

const fn key(
    name: &'static str,
    value: &'static str,
    default: &'static str,
    description: &'static str,
) -> Key {
    Key { name, value, default, description }
}

/// All sections, in the order of the reference documentation.
pub const SECTIONS: &[&Section] = &[
    &ROOT,
    &SOURCE,
    &FILE_SOURCE,
    &WEBHOOK_SOURCE,
    &KAFKA_SOURCE,
    &KAFKA_CLUSTER,
    &CORRELATE,
    &STDIN_SOURCE,
    &SINK,
    &NETWORKS,
    &EVENTS,
    &RETRY,
    &DEAD_LETTER,
    &STDOUT_SINK,
    &FILE_SINK,
    &HTTP_SINK,
    &HTTP_REQUEST,
    &TEMPLATE,
    &ELASTICSEARCH_SINK,
    &SPLUNK_SINK,
    &OTLP_SINK,
    &HTTP_CLIENT,
    &BASIC_AUTH,
    &BATCH,
    &KAFKA_SINK,
    &SYSLOG_SINK,
    &ALERTMANAGER_SINK,
    &LOKI_SINK,
    &CLIENT_TLS,
    &SERVER,
    &METRICS,
    &SERVER_TLS,
    &STORE,
];

pub(crate) const ROOT: Section = Section {
    path: "",
    name: "the configuration",
    description: "Top-level keys.",
    keys: &[
        key(
            "state_dir",
            "path",
            "",
            "Directory for positions, alerts and learned state. Default: `$PULLWATCH_STATE_DIR`, else `/var/lib/pullwatch` for root, \
             else `~/.local/state/pullwatch`.",
        ),
        key(
            "rules",
            "paths",
            "",
            "Rule files and directories, loaded in this order, and `builtin` for the built-in rules; reloaded on change and on SIGHUP. Default: `./rules.d` if it exists, \
             else the built-in rules.",
        ),
        key(
            "inventory",
            "paths",
            "",
            "Files that declare objects of the cluster (output of `kubectl get secrets -A`, manifests, `pullwatch inventory export`), \
             in addition to those stored by `pullwatch inventory import`; reloaded on change and on SIGHUP.",
        ),
        key("networks", "mapping", "", "The networks of the cluster, see `networks`."),
        key(
            "rule_matching",
            "`all` or `first`",
            "all",
            "Which matching rules make an alert: all, or only the first in load order.",
        ),
        key("priority", "priority", "debug", "Minimum rule priority; lower-priority rules are disabled."),
        key(
            "max_event_size",
            "size, 1K to 1G",
            "64M",
            "Maximum event size. Longer lines are evaluated by their first part.",
        ),
        key(
            "labels",
            "mapping",
            "{}",
            "Static labels of all alerts, such as `{cluster: prod-eu}`: in JSON, text, structured data, CEF, record headers and labels of \
             receivers. At most 16.",
        ),
        key(
            "max_string",
            "size, 64 bytes to 64M",
            "1K",
            "Maximum size of a string from a request in an alert; longer ones end with the number of bytes left out.",
        ),
        key(
            "max_alert",
            "size, 1K to 64M",
            "64K",
            "Maximum size of an alert; a longer one is shortened, the least important parts first.",
        ),
        key(
            "sources",
            "sequence",
            "[{type: file, name: audit}]",
            "Sources of audit events, see `sources[]`.",
        ),
        key("sinks", "sequence", "[{type: stdout}]", "Receivers of alerts, see `sinks[]`."),
        key("server", "mapping or `false`", "", "HTTP server, see `server`; `false` disables it."),
        key("metrics", "mapping", "", "Names and labels in metrics, see `metrics`."),
        key("store", "mapping", "", "Retention of stored alerts, see `store`."),
    ],
    includes: &[],
};

pub(crate) const SOURCE: Section = Section {
    path: "sources[]",
    name: "a source",
    description: "Keys common to all sources.",
    keys: &[
        key("type", "`file`, `webhook`, `kafka` or `stdin`", "file", "Type of the source."),
        key(
            "name",
            "string, unique",
            "",
            "Names the source in metrics and its position in the store; a new name starts from scratch. Default: the type, with a \
             number from the second source on.",
        ),
        key(
            "format",
            "`auto`, `raw`, `cri`, `text`, `json`, `azure`, `cloudwatch`, `google`, `otlp` or `openshift`",
            "auto",
            "Wrapper that events must be in. Records in another one are counted and not evaluated.",
        ),
        key("cluster", "string", "", "Name of the cluster, for events whose wrapper does not name it."),
    ],
    includes: &[],
};

pub(crate) const FILE_SOURCE: Section = Section {
    path: "sources[] with type: file",
    name: "a file source",
    description: "Log files, followed through every kind of rotation.",
    keys: &[
        key(
            "paths",
            "paths or glob patterns",
            "",
            "Logs to follow. Rotated files of a log are included automatically. Default: the first existing well-known audit log path.",
        ),
        key(
            "start_at",
            "`beginning` or `end`",
            "beginning",
            "Where to start in new logs; `beginning` includes rotated files.",
        ),
        key(
            "poll",
            "duration",
            "1s",
            "Polling interval for what change notifications do not report: file systems without them, and a log directory that is renamed.",
        ),
    ],
    includes: &[&SOURCE],
};

pub(crate) const WEBHOOK_SOURCE: Section = Section {
    path: "sources[] with type: webhook",
    name: "a webhook source",
    description: "Receiver of the apiserver's audit webhook (`--audit-webhook-config-file`).",
    keys: &[
        key("listen", "address:port", "127.0.0.1:9443", "Listen address."),
        key("path", "string", "/", "Path of the URL; requests for other paths are rejected."),
        key("tls", "mapping", "", "TLS, see `tls` of listeners. If unset, traffic is unencrypted."),
        key(
            "token_file",
            "path",
            "",
            "File with the bearer token that the apiserver must send. If unset, none is required.",
        ),
        key(
            "max_body",
            "size, 1K to 1G",
            "64M",
            "Maximum size of a request body that is evaluated as a whole; a larger one is evaluated in parts, and long events in it by their beginning.",
        ),
    ],
    includes: &[&SOURCE],
};

pub(crate) const KAFKA_SOURCE: Section = Section {
    path: "sources[] with type: kafka",
    name: "a kafka source",
    description: "Kafka consumer. Replicas with the same group share the partitions of its topics.",
    keys: &[
        key("topics", "names or regular expressions that start with `^`", "", "Topics to consume. Required."),
        key("group", "string", "pullwatch", "Consumer group."),
        key(
            "instance_id",
            "string",
            "",
            "Static group membership (`group.instance.id`): after a restart within `session.timeout.ms` the replica keeps its \
             partitions.",
        ),
        key(
            "start_at",
            "`earliest`, `latest` or a time",
            "earliest",
            "Where to start in partitions without an offset in the group or the store, and in recreated topics.",
        ),
        key(
            "commit",
            "`delivered` or `stored`",
            "delivered",
            "When to commit offsets: when all sinks have delivered or given up the alerts, or when alerts are stored.",
        ),
        key(
            "exactly_once",
            "boolean",
            "false",
            "Write alerts and offsets in one Kafka transaction. Requires one kafka sink with the same brokers and no other source.",
        ),
        key(
            "correlate",
            "mapping",
            "",
            "Correlate over all replicas, see `correlate`. If unset, each replica correlates what it reads.",
        ),
    ],
    includes: &[&SOURCE, &KAFKA_CLUSTER],
};

pub(crate) const KAFKA_CLUSTER: Section = Section {
    path: "sources[] and sinks[] with type: kafka",
    name: "a kafka cluster",
    description: "Connection to Kafka, for sources and sinks.",
    keys: &[
        key("brokers", "sequence of host:port", "", "Bootstrap brokers. Required."),
        key(
            "properties",
            "mapping",
            "{}",
            "librdkafka properties, except for those that pullwatch sets itself.",
        ),
        key(
            "property_files",
            "mapping",
            "{}",
            "librdkafka properties whose values are read from files, for passwords.",
        ),
        key(
            "oauth_token_file",
            "path",
            "",
            "File with a token for `sasl.mechanism: OAUTHBEARER`, reloaded before it expires.",
        ),
    ],
    includes: &[],
};

pub(crate) const CORRELATE: Section = Section {
    path: "sources[].correlate",
    name: "`correlate`",
    description: "Repartition topic over which replicas exchange matches.",
    keys: &[
        key("topic", "string", "", "Name of the topic; created if it does not exist. Required."),
        key(
            "partitions",
            "1 to 1024",
            "16",
            "Number of partitions, which bounds the number of replicas that share the work.",
        ),
        key("lateness", "duration", "1m", "Allowed lateness of matches, in event time."),
    ],
    includes: &[],
};

pub(crate) const STDIN_SOURCE: Section = Section {
    path: "sources[] with type: stdin",
    name: "a stdin source",
    description: "Standard input. If it is the only source, pullwatch exits at its end.",
    keys: &[],
    includes: &[&SOURCE],
};

pub(crate) const SINK: Section = Section {
    path: "sinks[]",
    name: "a sink",
    description: "Keys common to all sinks.",
    keys: &[
        key(
            "type",
            "`stdout`, `file`, `http`, `elasticsearch`, `splunk_hec`, `otlp`, `kafka`, `syslog`, `alertmanager` or `loki`",
            "",
            "Type of the sink. Required.",
        ),
        key(
            "name",
            "string, unique",
            "",
            "Names the sink in metrics and its cursor in the store; a new name starts from scratch. Default: the type, with a number \
             from the second sink on.",
        ),
        key("priority", "priority", "debug", "Minimum alert priority."),
        key("rules", "glob patterns", "", "Rule names to include. Default: all."),
        key("exclude_rules", "glob patterns", "[]", "Rule names to exclude."),
        key(
            "events",
            "mapping",
            "",
            "Deliver the audit events behind alerts, redacted, instead of alerts, see `events`.",
        ),
        key("retry", "mapping", "", "Retries of failed deliveries, see `retry`."),
        key("timeout", "duration", "10s", "Timeout of one delivery over the network."),
        key(
            "max_message",
            "size, 480 bytes or more",
            "",
            "Maximum size of a message; longer ones are shortened, the least important parts first, marked and counted. Default: `8K` \
             for syslog, `message.max.bytes` for Kafka, otherwise `max_alert`.",
        ),
        key(
            "dead_letter",
            "mapping or boolean",
            "true",
            "File for undeliverable alerts, see `dead_letter`; `false` drops them.",
        ),
    ],
    includes: &[],
};

pub(crate) const EVENTS: Section = Section {
    path: "sinks[].events",
    name: "`events`",
    description: "Of a sink of type `stdout`, `file`, `http` without a template, `kafka`, `syslog` or `loki` in JSON: deliver audit events instead of alerts. Each \
                  event has the form of `audit.k8s.io/v1`, redacted like outputs of rules, and a member `pullwatch` with `rule` and `alert_id`. There is one for each \
                  alert: a rule with a throttle passes on what it does not throttle. An event that does not fit into `max_alert` has `shortened` in that member. \
                  The store keeps the events with the alerts.",
    keys: &[key(
        "rules",
        "glob patterns",
        "",
        "Names of rules and correlations whose events are delivered. Required.",
    )],
    includes: &[],
};

pub(crate) const RETRY: Section = Section {
    path: "sinks[].retry",
    name: "`retry`",
    description: "Exponential backoff with jitter.",
    keys: &[
        key("initial", "duration", "500ms", "Upper bound of the first wait."),
        key("max", "duration", "1m", "Upper bound of every wait."),
        key(
            "max_retry_after",
            "duration",
            "5m",
            "Upper bound of a wait that the receiver requests (`Retry-After`).",
        ),
        key(
            "max_age",
            "duration",
            "",
            "Alerts stored longer ago are not retried and go to the dead-letter file. If unset, retries do not end.",
        ),
        key(
            "max_refusals",
            "number",
            "10",
            "Alerts that the receiver may refuse in a row before the sink pauses until one is accepted; `0`: it never pauses.",
        ),
    ],
    includes: &[],
};

pub(crate) const DEAD_LETTER: Section = Section {
    path: "sinks[].dead_letter",
    name: "`dead_letter`",
    description: "File for undeliverable alerts: one JSON object per line, with the reason.",
    keys: &[
        key("path", "path", "dead-letters.jsonl", "File, relative to `state_dir`."),
        key(
            "max_size",
            "size",
            "100M",
            "Maximum size of the file. Beyond it, alerts are dropped and counted.",
        ),
    ],
    includes: &[],
};

pub(crate) const STDOUT_SINK: Section = Section {
    path: "sinks[] with type: stdout",
    name: "a stdout sink",
    description: "Standard output.",
    keys: &[key(
        "format",
        "`auto`, `falco`, `ecs`, `ocsf`, `cef` or `text`",
        "auto",
        "Output format; `auto` is text on a terminal, otherwise `falco`.",
    )],
    includes: &[&SINK],
};

pub(crate) const FILE_SINK: Section = Section {
    path: "sinks[] with type: file",
    name: "a file sink",
    description: "A file, reopened after rotation and on SIGHUP.",
    keys: &[
        key("path", "path", "", "File to append to. Required."),
        key("format", "`falco`, `ecs`, `ocsf`, `cef` or `text`", "falco", "Output format."),
        key("sync", "boolean", "false", "Sync the file to disk before alerts count as delivered."),
        key("mode", "octal digits", "", "Permissions of the file when it is created. Default: `0600`."),
        key(
            "group",
            "name or number",
            "",
            "Group of the file when it is created. Default: that of the process.",
        ),
    ],
    includes: &[&SINK],
};

pub(crate) const HTTP_SINK: Section = Section {
    path: "sinks[] with type: http",
    name: "an http sink",
    description: "An HTTP receiver of POST requests. Redirects are not followed.",
    keys: &[
        key(
            "body",
            "`alert`, `array`, `lines`, or a mapping with `template`",
            "alert",
            "Request body: one alert, a JSON array, one JSON object per line, or a template for one alert, see `body`.",
        ),
        key("format", "`falco`, `ecs`, `ocsf`, `cef` or `text`", "falco", "Format of the alerts in it."),
    ],
    includes: &[&SINK, &HTTP_REQUEST, &HTTP_CLIENT],
};

pub(crate) const TEMPLATE: Section = Section {
    path: "sinks[].body",
    name: "`body`",
    description: "A JSON template. `%name` and `%{name:LIMIT}` in its strings are replaced by values of the alert: `rule`, `priority`, `message`, `actor`, \
                  `target`, `credential`, `registry_host`, `namespace`, `exposure`, `verb`, `cluster`, `time`, `id`, `fingerprint`, any member \
                  (`event.userAgent`, `registry.hosts`) or output field (`ka.target.name`); `%%` is a percent sign.",
    keys: &[
        key(
            "template",
            "JSON, or `slack`, `teams`, `pagerduty`, `opsgenie` or `discord`",
            "",
            "The template, or the name of the one for a service. Required.",
        ),
        key(
            "values",
            "mapping",
            "{}",
            "Further names and their values, such as the `routing_key` of PagerDuty.",
        ),
        key("value_files", "mapping", "{}", "Further names whose values are read from files."),
        key(
            "resolve_after",
            "duration",
            "",
            "With `pagerduty`: resolve an incident this time after its last alert was delivered. Default: never.",
        ),
    ],
    includes: &[],
};

pub(crate) const HTTP_REQUEST: Section = Section {
    path: "sinks[] with type: http, elasticsearch, splunk_hec or otlp",
    name: "a sink over HTTP",
    description: "Requests with several alerts.",
    keys: &[
        key("url", "URL", "", "URL of the receiver. Required, or `url_file`."),
        key("url_file", "path", "", "File with the URL, if it contains a token."),
        key("batch", "mapping", "", "Maximum batch of requests with several alerts, see `batch`."),
        key("gzip", "boolean", "false", "Compress request bodies."),
        key(
            "retry_statuses",
            "sequence of 300 to 599",
            "[]",
            "Status codes to retry, in addition to 408, 425, 429 and 5xx.",
        ),
    ],
    includes: &[],
};

pub(crate) const ELASTICSEARCH_SINK: Section = Section {
    path: "sinks[] with type: elasticsearch",
    name: "an elasticsearch sink",
    description: "Elasticsearch or OpenSearch: bulk requests that create documents whose id is the alert's id. A repeat does not make a second document.",
    keys: &[
        key("data_stream", "string", "logs-pullwatch.alert-default", "Data stream or index."),
        key("format", "`falco`, `ecs`, `ocsf`, `cef` or `text`", "ecs", "Format of the documents."),
        key("api_key", "string", "", "API key, as Elasticsearch encodes it; or `api_key_file`."),
        key("api_key_file", "path", "", "File with the API key."),
    ],
    includes: &[&SINK, &HTTP_REQUEST, &HTTP_CLIENT],
};

pub(crate) const SPLUNK_SINK: Section = Section {
    path: "sinks[] with type: splunk_hec",
    name: "a splunk_hec sink",
    description: "Splunk's HTTP Event Collector.",
    keys: &[
        key("token", "string", "", "Token of the collector. Required, or `token_file`."),
        key("token_file", "path", "", "File with the token."),
        key("index", "string", "", "Index. Default: that of the token."),
        key("source", "string", "pullwatch", "Source of the events."),
        key("sourcetype", "string", "pullwatch:alert", "Source type of the events."),
        key("host", "string", "", "Host of the events. Default: the host name of the machine."),
        key("ack", "boolean", "false", "Wait for acknowledgements of the indexer (`useACK` of the token)."),
        key("format", "`falco`, `ecs`, `ocsf`, `cef` or `text`", "falco", "Format of the events."),
    ],
    includes: &[&SINK, &HTTP_REQUEST, &HTTP_CLIENT],
};

pub(crate) const HTTP_CLIENT: Section = Section {
    path: "sinks[] with type: http, alertmanager or loki",
    name: "an HTTP client",
    description: "Requests of the sinks that use HTTP.",
    keys: &[
        key("headers", "mapping", "{}", "Additional request headers."),
        key("header_files", "mapping", "{}", "Additional request headers whose values are read from files."),
        key("bearer_token_file", "path", "", "File with a bearer token, read before each request."),
        key("tls", "mapping", "", "TLS for https URLs, see `tls` of sinks."),
        key("connect_timeout", "duration", "5s", "Timeout of connecting."),
        key("proxy", "URL", "", "HTTP proxy. Proxies in the environment are not used."),
        key("basic_auth", "mapping", "", "User name and password, see `basic_auth`."),
    ],
    includes: &[],
};

pub(crate) const BASIC_AUTH: Section = Section {
    path: "sinks[].basic_auth",
    name: "`basic_auth`",
    description: "Basic authentication.",
    keys: &[
        key("username", "string", "", "User name. Required."),
        key("password", "string", "", "Password. Required, or `password_file`."),
        key("password_file", "path", "", "File with the password."),
    ],
    includes: &[],
};

pub(crate) const ALERTMANAGER_SINK: Section = Section {
    path: "sinks[] with type: alertmanager",
    name: "an alertmanager sink",
    description: "Prometheus Alertmanager (API v2). Labels are `alertname`, `severity`, `actor`, `credential`, `namespace`, `registry`, \
                  `cluster` and the static labels.",
    keys: &[
        key(
            "urls",
            "sequence of URLs",
            "",
            "All Alertmanagers of a cluster, without the path of the API. Required.",
        ),
        key("resolve_after", "duration", "1h", "How long an alert fires after its last event."),
        key(
            "resend_interval",
            "duration or `false`",
            "1m",
            "Interval at which active alerts are sent again, for an Alertmanager that lost them; `false`: never.",
        ),
        key(
            "severities",
            "mapping of priority to string",
            "{}",
            "Label `severity`. Default: `critical` for critical and above, `warning` for error and warning, otherwise `info`.",
        ),
        key("page_url", "URL", "", "URL of pullwatch's page, for links to alerts (`generatorURL`)."),
        key(
            "runbook_url",
            "URL",
            "",
            "Annotation `runbook_url`; `{rule}` stands for the rule's name in lower case with hyphens.",
        ),
    ],
    includes: &[&SINK, &HTTP_CLIENT],
};

pub(crate) const LOKI_SINK: Section = Section {
    path: "sinks[] with type: loki",
    name: "a loki sink",
    description: "Grafana Loki, or VictoriaLogs. Labels are `job`, `rule`, `priority`, `cluster` and the static labels; the rest is \
                  structured metadata.",
    keys: &[
        key(
            "url",
            "URL",
            "",
            "URL of the push API, such as `http://loki:3100/loki/api/v1/push`. Required, or `url_file`.",
        ),
        key("url_file", "path", "", "File with the URL, if it contains a token."),
        key("tenant", "string", "", "Tenant (`X-Scope-OrgID`)."),
        key("job", "string", "pullwatch", "Label `job`."),
        key(
            "format",
            "`text`, `falco`, `ecs`, `ocsf` or `cef`",
            "text",
            "Format of lines; `json` means `falco`.",
        ),
        key("gzip", "boolean", "true", "Compress request bodies."),
    ],
    includes: &[&SINK, &HTTP_CLIENT],
};

pub(crate) const OTLP_SINK: Section = Section {
    path: "sinks[] with type: otlp",
    name: "an otlp sink",
    description: "Logs of the OpenTelemetry protocol over HTTP, as protobuf: collectors and most vendors.",
    keys: &[],
    includes: &[&SINK, &HTTP_REQUEST, &HTTP_CLIENT],
};

pub(crate) const BATCH: Section = Section {
    path: "sinks[].batch",
    name: "`batch`",
    description: "Maximum size of a request with several alerts.",
    keys: &[
        key("alerts", "number", "100", "Maximum number of alerts."),
        key(
            "bytes",
            "size",
            "1M",
            "Maximum size of the body before compression; a longer alert is sent alone.",
        ),
    ],
    includes: &[],
};

pub(crate) const KAFKA_SINK: Section = Section {
    path: "sinks[] with type: kafka",
    name: "a kafka sink",
    description: "Kafka producer. An alert counts as delivered when all in-sync replicas have acknowledged it.",
    keys: &[
        key("topic", "string", "", "Topic to produce to. Required."),
        key(
            "key",
            "`actor`, `id`, `rule` or `none`",
            "actor",
            "Record key; `actor` keeps the order of alerts per user.",
        ),
        key(
            "compression",
            "`none`, `gzip`, `snappy`, `lz4` or `zstd`",
            "lz4",
            "Compression of record batches.",
        ),
        key("format", "`falco`, `ecs`, `ocsf`, `cef` or `text`", "falco", "Format of records."),
    ],
    includes: &[&SINK, &KAFKA_CLUSTER],
};

pub(crate) const SYSLOG_SINK: Section = Section {
    path: "sinks[] with type: syslog",
    name: "a syslog sink",
    description: "A syslog receiver (RFC 5424). Syslog has no acknowledgements: messages in flight when the receiver fails may be lost.",
    keys: &[
        key(
            "address",
            "`udp://`, `tcp://` or `tls://` with host:port, or `unix://` with a path",
            "unix:///dev/log",
            "Address of the receiver.",
        ),
        key("tls", "mapping", "", "TLS for `tls://` addresses, see `tls` of sinks."),
        key("facility", "facility of RFC 5424", "authpriv", "Facility."),
        key("app_name", "string", "pullwatch", "APP-NAME."),
        key("hostname", "string", "", "HOSTNAME. Default: the host name of the machine."),
        key("format", "`falco`, `ecs`, `ocsf`, `cef` or `text`", "falco", "Format of messages."),
        key(
            "structured_data",
            "SD-ID or `false`",
            "pullwatch@32473",
            "SD-ID of the structured data; `false` sends none.",
        ),
    ],
    includes: &[&SINK],
};

pub(crate) const CLIENT_TLS: Section = Section {
    path: "sinks[].tls",
    name: "`tls`",
    description: "TLS of sinks. Files are reloaded when they change.",
    keys: &[
        key("ca", "path", "", "PEM file of certificate authorities to trust instead of the system's."),
        key("certificate", "path", "", "PEM file with the client certificate chain."),
        key("key", "path", "", "PEM file with the private key of the client certificate."),
        key("server_name", "string", "", "Expected server name, if it differs from the one in the address."),
    ],
    includes: &[],
};

pub(crate) const SERVER: Section = Section {
    path: "server",
    name: "`server`",
    description: "HTTP server for the page at `/`, `/metrics`, `/healthz`, `/readyz` and the API under `/api/v1/`.",
    keys: &[
        key(
            "listen",
            "address:port",
            "127.0.0.1:9417",
            "Listen address; `--listen` and `$PULLWATCH_LISTEN` take precedence.",
        ),
        key(
            "hosts",
            "host names",
            "[]",
            "Host names accepted without a token, in addition to addresses and `localhost`; `*.` matches any subdomain.",
        ),
        key(
            "token_file",
            "path",
            "",
            "File with the bearer token that clients must send; acknowledging requires one. If unset, none is required.",
        ),
        key("tls", "mapping", "", "TLS, see `tls` of listeners. If unset, plain HTTP."),
    ],
    includes: &[],
};

pub(crate) const SERVER_TLS: Section = Section {
    path: "server.tls and sources[].tls",
    name: "`tls`",
    description: "TLS of listeners. Files are reloaded when they change.",
    keys: &[
        key("certificate", "path", "", "PEM file with the certificate chain. Required."),
        key("key", "path", "", "PEM file with the private key. Required."),
        key(
            "client_ca",
            "path",
            "",
            "PEM file of certificate authorities; if set, clients must present a certificate of one of them.",
        ),
    ],
    includes: &[],
};

pub(crate) const NETWORKS: Section = Section {
    path: "networks",
    name: "`networks`",
    description: "From where pods and nodes reach the apiserver, in CIDR notation. Rules report tokens of pods that are used outside of both, and identities of \
                  nodes that are used outside of `nodes`. Name the addresses that the apiserver sees: of load balancers, gateways and proxies too. An address \
                  of both counts as one of nodes, and so do loopback addresses. Both are required.",
    keys: &[
        key("pods", "networks", "[]", "Networks of pods, such as `10.244.0.0/16`."),
        key("nodes", "networks", "[]", "Networks of nodes, and of what connects in their name."),
    ],
    includes: &[],
};

pub(crate) const METRICS: Section = Section {
    path: "metrics",
    name: "`metrics`",
    description: "What `/metrics` contains.",
    keys: &[
        key(
            "identities",
            "boolean",
            "true",
            "Whether metrics name actors and credentials (`pullwatch_actor_exposures_total`, `pullwatch_credential_exposures_total`, \
             `pullwatch_credential_last_rotation_timestamp_seconds`).",
        ),
        key("labels", "boolean", "false", "Whether every metric has the static `labels`."),
    ],
    includes: &[],
};

pub(crate) const STORE: Section = Section {
    path: "store",
    name: "`store`",
    description: "Retention of stored alerts.",
    keys: &[
        key("max_age", "duration", "30d", "Retention by age."),
        key("max_size", "size, 1M or more", "1G", "Retention by size (oldest alerts are deleted first)."),
    ],
    includes: &[],
};

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{Config, read};
    use super::*;
    use crate::text::diagnostics::SourceFile;

    fn config(text: &str) -> Config {
        let file = SourceFile { name: "pullwatch.yaml".into(), text: text.to_owned() };
        let read = read(&file, &|_| None);
        read.config.unwrap_or_else(|| panic!("{text}: {:?}", read.diagnostics))
    }

    /// A configuration with this entry in this section.
    fn wrapped(section: &Section, entry: &str) -> String {
        let (source, sink) = (
            |rest: &str| format!("sources: [{{type: {rest}, {entry}}}]"),
            |rest: &str| format!("sinks: [{{type: {rest}, {entry}}}]"),
        );
        let kafka = "kafka, brokers: 'a:1', topics: [t]";
        match section.path {
            "" => entry.to_owned(),
            "sources[]" => source("file"),
            "sources[] and sinks[] with type: kafka" => source(kafka),
            "sources[].correlate" => {
                format!("sources: [{{type: {kafka}, correlate: {{topic: t, {entry}}}}}]")
            }
            "sinks[]" => sink("stdout"),
            "sinks[].events" => format!("sinks: [{{type: stdout, events: {{rules: a, {entry}}}}}]"),
            "sinks[].retry" => format!("sinks: [{{type: stdout, retry: {{{entry}}}}}]"),
            "sinks[].dead_letter" => format!("sinks: [{{type: stdout, dead_letter: {{{entry}}}}}]"),
            "sinks[].batch" => {
                format!("sinks: [{{type: http, url: 'http://a', body: array, batch: {{{entry}}}}}]")
            }
            "sinks[] with type: http, alertmanager or loki" => sink("http, url: 'http://a'"),
            "sinks[].basic_auth" => {
                format!(
                    "sinks: [{{type: http, url: 'https://a', basic_auth: {{username: u, password: p, {entry}}}}}]"
                )
            }
            "sinks[].body" => {
                format!("sinks: [{{type: http, url: 'http://a', body: {{template: slack, {entry}}}}}]")
            }
            "sinks[] with type: http, elasticsearch, splunk_hec or otlp" => sink("http, url: 'http://a'"),
            "sinks[].tls" => format!("sinks: [{{type: http, url: 'https://a', tls: {{{entry}}}}}]"),
            "server" | "store" | "metrics" | "networks" => format!("{}: {{{entry}}}", section.path),
            "server.tls and sources[].tls" => format!("server: {{tls: {{certificate: c, key: k, {entry}}}}}"),
            path => match path.split_once(" with type: ").unwrap() {
                ("sources[]", "kafka") => source(kafka),
                ("sources[]", kind) => source(kind),
                (_, "file") => sink("file, path: /a"),
                (_, kind @ ("http" | "loki" | "elasticsearch" | "otlp")) => {
                    sink(&format!("{kind}, url: 'http://a'"))
                }
                (_, "splunk_hec") => sink("splunk_hec, url: 'http://a', token: t"),
                (_, "alertmanager") => sink("alertmanager, urls: ['http://a']"),
                (_, "kafka") => sink("kafka, brokers: 'a:1', topic: t"),
                (_, kind) => sink(kind),
            },
        }
    }

    #[test]
    fn documented_defaults_are_the_defaults() {
        assert_eq!(config("sources: [{type: file}]"), config("sources: [{name: file}]"));
        let mut checked = 0;
        for section in SECTIONS {
            if !cfg!(feature = "kafka")
                && (section.path.contains("kafka") || section.path.contains("correlate"))
            {
                continue;
            }
            let without = config(&wrapped(section, ""));
            for key in section.keys.iter().filter(|key| !key.default.is_empty() && key.name != "type") {
                let with = config(&wrapped(section, &format!("{}: {}", key.name, key.default)));
                assert_eq!(with, without, "{} {}", section.path, key.name);
                checked += 1;
            }
        }
        assert!(checked > 30, "{checked}");
    }

    #[test]
    fn the_sample_has_every_key() {
        let sample = include_str!("../../../samples/pullwatch.yaml");
        for section in SECTIONS {
            for key in section.keys {
                let in_flow =
                    [format!("{{{}:", key.name), format!(", {}:", key.name), format!(" {}:", key.name)];
                let mentioned = in_flow.iter().any(|text| sample.contains(text))
                    || sample.contains(&format!("\n{}:", key.name))
                    || sample.contains(&format!("{} ", key.name));
                assert!(mentioned, "{} {}", section.path, key.name);
            }
        }
    }

    #[test]
    fn descriptions_are_sentences() {
        for key in SECTIONS.iter().flat_map(|section| section.keys) {
            let first = key.description.chars().next().unwrap();
            assert!(first.is_uppercase() || key.description.starts_with("librdkafka"), "{}", key.description);
            assert!(key.description.ends_with('.'), "{}", key.description);
        }
    }
}
