//! The reason why Loki rejected a request, determined from its response.
//!
//! Takes the status and body of a response; returns one of a closed set of reasons, with advice for the operator. The text itself is not
//! passed on: it is only compared with phrases used by Loki 2.9 to 3.8.

/// The subject of a rejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A setting of Loki or of this machine, which affects every alert.
    Setting(&'static str),
    /// The length of a line. Contains the limit, if the response states it.
    LongLine(Option<usize>),
    /// The time of an entry.
    Time(&'static str),
    /// Another property of an entry.
    Entry(&'static str),
    /// Unknown.
    Other,
}

/// Settings that affect every alert.
const SETTINGS: [(&str, &str); 4] = [
    (
        "includes structured metadata, but this feature is disallowed",
        "Loki accepts no structured metadata: set `limits_config.allow_structured_metadata: true`, with schema v13",
    ),
    ("missing required labels", "add the labels that Loki requires (`enforced_labels`) to `labels`"),
    (
        "label names; limit",
        "more labels than `limits_config.max_label_names_per_series`: use fewer in `labels`",
    ),
    ("has timestamp too new", "the clock of this machine is ahead of Loki's"),
];

const TIMES: [(&str, &str); 2] = [
    ("entry too far behind", "too far behind the newest entry of its stream"),
    ("has timestamp too old", "older than `limits_config.reject_old_samples_max_age`"),
];

const ENTRIES: [(&str, &str); 4] = [
    ("structured metadata too large", "larger than `limits_config.max_structured_metadata_size`"),
    (
        "too many structured metadata labels",
        "more than `limits_config.max_structured_metadata_entries_count`",
    ),
    ("label value too long", "longer than `limits_config.max_label_value_length`"),
    ("label name too long", "longer than `limits_config.max_label_name_length`"),
];

/// The text before the limit on the length of a line, without its first letter, which is upper case in older versions.
const LINE_LIMIT: &str = "ax entry size '";

impl Refusal {
    pub(super) fn of(status: u16, body: &[u8]) -> Refusal {
        if status != 400 {
            return Refusal::Other;
        }
        let text = String::from_utf8_lossy(body);
        let find = |phrases: &[(&str, &'static str)]| {
            phrases.iter().find(|(phrase, _)| text.contains(phrase)).map(|(_, advice)| *advice)
        };
        if let Some(advice) = find(&SETTINGS) {
            return Refusal::Setting(advice);
        }
        if let Some((_, rest)) = text.split_once(LINE_LIMIT) {
            let digits = rest.split('\'').next().unwrap_or_default();
            return Refusal::LongLine(digits.parse().ok());
        }
        if let Some(advice) = find(&TIMES) {
            return Refusal::Time(advice);
        }
        find(&ENTRIES).map_or(Refusal::Other, Refusal::Entry)
    }

    /// A description for the log and the dead letters.
    pub(super) fn advice(self) -> Option<&'static str> {
        match self {
            Refusal::Setting(advice) | Refusal::Time(advice) | Refusal::Entry(advice) => Some(advice),
            Refusal::LongLine(_) => Some("longer than `limits_config.max_line_size`"),
            Refusal::Other => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Responses of Loki 3.8 to `tests/receivers/loki/limits.py`.
    #[test]
    fn answers_of_loki_are_known() {
        let of = |body: &str| Refusal::of(400, body.as_bytes());
        let is = |refusal: Refusal, text: &str| {
            assert!(refusal.advice().is_some_and(|advice| advice.contains(text)), "{refusal:?}");
        };
        let too_far = of(
            "entry with timestamp 2026-11-27 21:17:03 +0000 UTC ignored, reason: 'entry too far behind, entry timestamp is: 2026-11-27T21:17:03Z, oldest acceptable timestamp is: 2026-11-27T21:47:03Z',\nuser 'fake', total ignored: 1 out of 1 for stream: {job=\"pullwatch\"}",
        );
        assert!(matches!(too_far, Refusal::Time(_)));
        let too_old = of(
            "entry for stream '{job=\"pullwatch\"}' has timestamp too old: 2026-11-27T21:17:03Z, oldest acceptable timestamp is: 2026-11-27T21:47:03Z",
        );
        assert!(matches!(too_old, Refusal::Time(_)));
        let line = of(
            "max entry size '2048' bytes exceeded for stream '{job=\"pullwatch\"}' while adding an entry with length '5132' bytes",
        );
        assert_eq!(line, Refusal::LongLine(Some(2048)));
        assert_eq!(of("Max entry size 'no number"), Refusal::LongLine(None));
        let metadata = of(
            "stream '{job=\"pullwatch\"}' includes structured metadata, but this feature is disallowed. Please see `limits_config.allow_structured_metadata` or contact your Loki administrator to enable it",
        );
        assert!(matches!(metadata, Refusal::Setting(_)));
        is(metadata, "allow_structured_metadata");
        let labels = of("entry for stream '{}' has 19 label names; limit 15");
        assert!(matches!(labels, Refusal::Setting(_)));
        is(
            of("stream '{}' has structured metadata too large: '9' bytes, limit: '1' bytes."),
            "max_structured_metadata_size",
        );
        assert_eq!(of("something else"), Refusal::Other);
        assert_eq!(Refusal::of(500, b"entry too far behind"), Refusal::Other);
    }
}
