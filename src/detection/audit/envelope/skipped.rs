//! Reasons why a wrapper contained no event to evaluate.

/// A line of another log.
pub const OTHER_LOG: &str = "line of another log";
/// Azure's other categories, Google's other services, and the like.
pub const OTHER_KIND: &str = "record of another kind";
/// A record of another pod, container or log stream than the apiserver's.
pub const OTHER_STREAM: &str = "record of another stream than the apiserver's";
/// A record that was cut before its log stream or category, which the configured format requires.
pub const NO_STREAM: &str = "record that was cut before the name of its stream";
/// A record that is not in the configured format.
pub const OTHER_FORMAT: &str = "record not in the format of its source";
/// A row of comma-separated values with another number of fields than its header, or with an event in a column that holds none.
pub const OTHER_COLUMNS: &str = "row that does not match the header of its table";
/// A message by which a cloud tests a connection.
pub const CONTROL: &str = "control message";
/// An object that Azure found too large to send.
pub const TOO_BIG: &str = "left out by its sender as too big";
/// No content, as a tombstone of Kafka.
pub const EMPTY: &str = "empty";
/// Malformed base64 or gzip.
pub const UNREADABLE: &str = "unreadable packing";
/// More nested wrappers than the limit.
pub const TOO_DEEP: &str = "wrapped too often";
/// A compressed record whose decompressed size exceeds the limit; the part within the limit was evaluated.
pub const TOO_LARGE: &str = "unpacks to more than --max-event-size (evaluated up to there)";
/// A piece of a line that a container runtime split, without the pieces before it.
pub const PIECE: &str = "piece of a line whose start is missing";

/// An Event of the Kubernetes API (core or events.k8s.io).
pub const KUBERNETES_EVENT: &str = "Event object of the Kubernetes API";
/// A record of the audit log of another program, such as Rancher.
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
