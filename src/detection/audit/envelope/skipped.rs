//! Reasons why a wrapper contained no event to evaluate.

/// A line of another program's log.
pub const OTHER_LOG: &str = "line of another log";
/// A record of another category (Azure), service (Google) or the like.
pub const OTHER_KIND: &str = "record of another kind";
/// A record of a pod, container or log stream other than the apiserver's.
pub const OTHER_STREAM: &str = "record of a stream other than the apiserver's";
/// A record that was truncated before its log stream or category, which the configured format requires.
pub const NO_STREAM: &str = "record truncated before the name of its stream";
/// A record that is not in the configured format.
pub const OTHER_FORMAT: &str = "record not in the format of its source";
/// A row of comma-separated values whose number of fields differs from its header, or with an event in a column that holds none.
pub const OTHER_COLUMNS: &str = "row that does not match the header of its table";
/// A message that a cloud provider sends to test a connection.
pub const CONTROL: &str = "control message";
/// An object that was too large for Azure to send.
pub const TOO_BIG: &str = "omitted by its sender because of its size";
/// No content, such as a Kafka tombstone.
pub const EMPTY: &str = "empty";
/// Malformed base64 or gzip.
pub const UNREADABLE: &str = "unreadable packing";
/// Wrappers nested more deeply than the limit.
pub const TOO_DEEP: &str = "nested in too many wrappers";
/// A compressed record whose decompressed size exceeds the limit; the part within the limit was evaluated.
pub const TOO_LARGE: &str = "unpacks to more than --max-event-size (evaluated up to there)";
/// A piece of a line that a container runtime split, without the preceding pieces.
pub const PIECE: &str = "piece of a line whose start is missing";

/// An Event of the Kubernetes API (core or events.k8s.io).
pub const KUBERNETES_EVENT: &str = "Event object of the Kubernetes API";
/// An audit log record of another program, such as Rancher.
pub const OTHER_AUDIT_LOG: &str = "audit record of another program";

/// All reasons.
pub const ALL: [&str; 15] = [
    OTHER_LOG,
    OTHER_KIND,
    OTHER_STREAM,
    NO_STREAM,
    OTHER_FORMAT,
    OTHER_COLUMNS,
    CONTROL,
    TOO_BIG,
    EMPTY,
    UNREADABLE,
    TOO_DEEP,
    TOO_LARGE,
    PIECE,
    KUBERNETES_EVENT,
    OTHER_AUDIT_LOG,
];
