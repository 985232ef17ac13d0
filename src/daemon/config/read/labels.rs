//! The static labels of alerts.

use super::ConfigReader;
use crate::daemon::metrics::TABLE;
use crate::detection::alert::RESERVED_MEMBERS;
use crate::text::yaml::Node;

/// Maximum number of labels.
const MAX_LABELS: usize = 16;

/// Maximum length of a name, and of a value, in bytes.
const MAX_NAME_LEN: usize = 64;
const MAX_VALUE_LEN: usize = 256;

/// Names with a predefined meaning for receivers.
const RESERVED_BY_RECEIVERS: [&str; 7] =
    ["alertname", "instance", "job", "le", "quantile", "severity", "version"];

impl ConfigReader<'_> {
    pub(super) fn labels(&mut self, root: &Node) -> Vec<(String, String)> {
        let mut labels = Vec::new();
        for entry in self.entries(root, "labels") {
            let name = &entry.key;
            let Some(value) = self.value(&entry.value, name) else { continue };
            let reserved =
                RESERVED_MEMBERS.iter().chain(&RESERVED_BY_RECEIVERS).any(|reserved| reserved == name);
            if !is_label_name(name) {
                self.error(
                    &entry.value,
                    format!("invalid label name `{name}`"),
                    "expected letters, digits and single underscores, starting with a letter",
                );
            } else if reserved {
                self.error(
                    &entry.value,
                    format!("the label name `{name}` is reserved"),
                    "choose another name",
                );
            } else if value.is_empty() || value.len() > MAX_VALUE_LEN || value.contains(char::is_control) {
                self.error(
                    &entry.value,
                    format!("invalid value of label `{name}`"),
                    format!("expected 1 to {MAX_VALUE_LEN} bytes without control characters"),
                );
            } else {
                labels.push((name.clone(), value));
            }
        }
        if labels.len() > MAX_LABELS
            && let Some(node) = root.get("labels")
        {
            self.error(
                node,
                format!("{} labels", labels.len()),
                format!("at most {MAX_LABELS} are possible"),
            );
        }
        labels
    }

    /// Reports labels that have the name of a metric's label.
    pub(super) fn check_metric_labels(&mut self, root: &Node) {
        for entry in self.entries(root, "labels") {
            if TABLE.iter().any(|metric| metric.labels.contains(&&*entry.key)) {
                self.error(
                    &entry.value,
                    format!("metrics have a label `{}` of their own", entry.key),
                    "choose another name, or set `metrics.labels: false`",
                );
            }
        }
    }
}

/// Names that are valid as Prometheus labels, as syslog parameter names and as CEF keys.
fn is_label_name(name: &str) -> bool {
    name.len() <= MAX_NAME_LEN
        && name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.contains("__")
}
