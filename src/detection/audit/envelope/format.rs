//! The formats that a source can be restricted to.

/// The format of a log: which wrappers its events are in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Any wrapper that is recognized, or none.
    #[default]
    Auto,
    /// No wrapper: events as the apiserver writes them.
    Raw,
    /// This wrapper alone.
    In(Wrapper),
}

/// A kind of wrapper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrapper {
    /// Lines of a container log (Container Runtime Interface).
    Cri,
    /// Lines with a header: syslog, the journal, `kubectl logs`, fluentd's files.
    Text,
    /// JSON of log shippers and log stores: Fluent Bit, Vector, Filebeat, Loki, Elasticsearch, Splunk and the like.
    Json,
    /// Diagnostic records of Azure.
    Azure,
    /// CloudWatch Logs: subscriptions, exports, the AWS command line.
    Cloudwatch,
    /// Audit log entries of Google Cloud Logging.
    Google,
    /// OpenTelemetry logs.
    Otlp,
    /// OpenShift's ViaQ.
    Openshift,
}

impl Format {
    /// All formats, with their names in configurations.
    pub const ALL: [(&'static str, Format); 10] = [
        ("auto", Format::Auto),
        ("raw", Format::Raw),
        ("cri", Format::In(Wrapper::Cri)),
        ("text", Format::In(Wrapper::Text)),
        ("json", Format::In(Wrapper::Json)),
        ("azure", Format::In(Wrapper::Azure)),
        ("cloudwatch", Format::In(Wrapper::Cloudwatch)),
        ("google", Format::In(Wrapper::Google)),
        ("otlp", Format::In(Wrapper::Otlp)),
        ("openshift", Format::In(Wrapper::Openshift)),
    ];

    /// The format with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(own, _)| *own == name).map(|(_, format)| format)
    }

    /// Whether events are expected without a wrapper.
    pub(super) fn admits_raw(self) -> bool {
        matches!(self, Format::Auto | Format::Raw)
    }

    /// Whether events in this wrapper belong to the format.
    pub(super) fn admits(self, wrapper: Wrapper) -> bool {
        match self {
            Format::Auto => true,
            Format::Raw => false,
            Format::In(own) => own == wrapper,
        }
    }
}
