//! Fast path for the first members of an event as the apiserver writes them: reads each at its expected position instead of parsing one
//! after the other.
//!
//! Takes the text of an event; returns the members up to `stage`. The apiserver writes the fields of `audit.k8s.io/v1` `Event` in the order
//! of its Go type, without whitespace, and each of these values except the audit id is one of a few words. Any other event, such as one
//! whose audit id was set by a client, is read member by member.

use wide::u8x16;

use super::json::Raw;

const START: &[u8] = br#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"#;
const KIND: std::ops::Range<usize> = 8..15;
const API_VERSION: std::ops::Range<usize> = 29..46;
const LEVELS: [&[u8]; 3] = [br#""Metadata""#, br#""RequestResponse""#, br#""Request""#];
const AUDIT_ID: &[u8] = br#","auditID":"#;
/// A UUID in quotes.
const AUDIT_ID_LEN: usize = 38;
const STAGE: &[u8] = br#","stage":"#;
const STAGES: [&[u8]; 4] =
    [br#""ResponseComplete""#, REQUEST_RECEIVED, br#""ResponseStarted""#, br#""Panic""#];
const REQUEST_RECEIVED: &[u8] = br#""RequestReceived""#;

/// The members up to `stage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ApiserverHead<'a> {
    pub kind: Raw<'a>,
    pub api_version: Raw<'a>,
    pub level: Raw<'a>,
    pub audit_id: Raw<'a>,
    pub stage: Raw<'a>,
    /// The index after the value of `stage`.
    pub end: usize,
}

impl<'a> ApiserverHead<'a> {
    /// Reads the head of an event; `None` if it is not written as the apiserver does.
    #[inline]
    pub(crate) fn read(text: &'a [u8]) -> Option<Self> {
        let rest = text.strip_prefix(START)?;
        let level = LEVELS.into_iter().find(|level| rest.starts_with(level))?.len();
        let rest = rest[level..].strip_prefix(AUDIT_ID)?;
        let (id, rest) = rest.split_first_chunk::<AUDIT_ID_LEN>()?;
        let rest = rest.strip_prefix(STAGE)?;
        let stage = STAGES.into_iter().find(|stage| rest.starts_with(stage))?.len();
        let inner: &[u8; AUDIT_ID_LEN - 2] = id.strip_prefix(b"\"")?.strip_suffix(b"\"")?.try_into().ok()?;
        if !is_verbatim(inner) {
            return None;
        }
        let level_end = START.len() + level;
        let id_end = level_end + AUDIT_ID.len() + AUDIT_ID_LEN;
        let end = id_end + STAGE.len() + stage;
        let raw = |from: usize, to: usize| Raw::assume(&text[from..to]);
        Some(ApiserverHead {
            kind: raw(KIND.start, KIND.end),
            api_version: raw(API_VERSION.start, API_VERSION.end),
            level: raw(START.len(), level_end),
            audit_id: raw(id_end - AUDIT_ID_LEN, id_end),
            stage: raw(end - stage, end),
            end,
        })
    }

    /// Whether the request was received and is not answered yet.
    #[inline]
    pub(crate) fn is_request_received(&self) -> bool {
        self.stage.bytes() == REQUEST_RECEIVED
    }
}

/// Whether a string of this length is neither closed earlier nor contains an escape.
#[inline]
fn is_verbatim(inner: &[u8; AUDIT_ID_LEN - 2]) -> bool {
    let (quote, backslash) = (u8x16::splat(b'"'), u8x16::splat(b'\\'));
    let lanes = [inner.first_chunk::<16>(), inner[16..].first_chunk(), inner.last_chunk()];
    lanes.into_iter().flatten().all(|lane| {
        let lane = u8x16::new(*lane);
        (lane.simd_eq(quote) | lane.simd_eq(backslash)).to_bitmask() == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detection::audit::event::{Event, Member};

    const ID: &str = "4d5f8e2a-7c1b-4a90-9d3e-0123456789ab";

    fn event(level: &str, id: &str, stage: &str) -> String {
        format!(
            r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"{level}","auditID":"{id}","stage":"{stage}","requestURI":"/x"}}"#
        )
    }

    #[test]
    fn reads_what_a_walk_over_the_members_reads() {
        for level in ["Metadata", "Request", "RequestResponse"] {
            for stage in ["RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"] {
                let text = event(level, ID, stage);
                let head = ApiserverHead::read(text.as_bytes()).unwrap();
                let members = Raw::assume(text.as_bytes());
                for (name, value) in [
                    ("kind", head.kind),
                    ("apiVersion", head.api_version),
                    ("level", head.level),
                    ("auditID", head.audit_id),
                    ("stage", head.stage),
                ] {
                    assert_eq!(members.get(name).map(Raw::bytes), Some(value.bytes()), "{name}");
                }
                assert_eq!(&text[head.end..], r#","requestURI":"/x"}"#);
                assert_eq!(head.is_request_received(), stage == "RequestReceived");
                for end in 0..head.end {
                    assert_eq!(ApiserverHead::read(&text.as_bytes()[..end]), None, "{}", &text[..end]);
                }
            }
        }
    }

    #[test]
    fn leaves_other_spellings_to_the_walk() {
        let forged = format!(r#"{}\","stage":"RequestReceived"#, "x".repeat(35));
        for text in [
            event("None", ID, "ResponseComplete"),
            event("Metadata", "short", "ResponseComplete"),
            event("Metadata", &forged, "ResponseComplete"),
            event("Metadata", &ID.replace('4', "\\"), "RequestReceived"),
            event("Metadata", &ID.replace('5', "\""), "RequestReceived"),
            event("Metadata", ID, "RequestReceived2"),
            event("Metadata", ID, "ResponseComplete").replace("/v1\"", "/v1beta1\""),
            event("Metadata", ID, "ResponseComplete").replace(':', ": "),
        ] {
            assert_eq!(ApiserverHead::read(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn an_event_has_the_same_members_either_way() {
        let text = event("Request", ID, "ResponseStarted");
        let spaced = text.replacen(':', ": ", 1);
        let (mut quick, mut walked) = (Event::new(text.as_bytes()), Event::new(spaced.as_bytes()));
        for member in [
            Member::Kind,
            Member::ApiVersion,
            Member::Level,
            Member::AuditId,
            Member::Stage,
            Member::RequestUri,
        ] {
            assert_eq!(quick.text(member), walked.text(member));
        }
        assert_eq!((quick.finish(), walked.finish()), (Ok(()), Ok(())));
        assert_eq!(quick.bytes(), text.as_bytes());
        let repeated = text.replace("\"requestURI\":\"/x\"", "\"stage\":\"Panic\"");
        let mut repeated = Event::new(repeated.as_bytes());
        assert_eq!(repeated.finish(), Ok(()));
        assert!(repeated.has_duplicate_members());
        assert_eq!(repeated.text(Member::Stage).unwrap(), &b"ResponseStarted"[..]);
    }
}
