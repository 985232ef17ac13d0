//! Splits a body into events, each with the hash by which repetitions are recognized.

use std::ops::Range;

use crate::detection::audit::event_id;
use crate::detection::audit::json::{Cursor, JsonError, Raw, Type};

/// Maximum number of events in a body. The apiserver's default is 400.
pub const MAX_EVENTS: usize = 100_000;

/// The reason why a body is not a batch of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBody {
    /// Only whitespace.
    #[error("the body is empty")]
    Empty,
    #[error("the body is not JSON")]
    NotJson,
    #[error("the JSON of the body is truncated")]
    Cut,
    /// JSON of another kind.
    #[error("the body is not an audit.k8s.io EventList, an Event or an array of events")]
    WrongKind,
    #[error("the body contains no events")]
    NoEvents,
    #[error("the body contains more than 100000 events")]
    TooMany,
}

impl From<JsonError> for InvalidBody {
    fn from(broken: JsonError) -> Self {
        match broken {
            JsonError::Truncated => InvalidBody::Cut,
            JsonError::Syntax => InvalidBody::NotJson,
        }
    }
}

/// The events of a body in order: hash of the content, and position in the body.
pub type Events = Vec<([u8; 16], Range<usize>)>;

/// Splits a body: an `EventList`, an array, a single event, or several of these concatenated.
///
/// The hash is the same for an event in a list and in the apiserver's log file ([`event_id::digest`]). Elements that are not
/// events are returned as well, so that they are evaluated and counted as malformed.
///
/// # Errors
/// If the body is not a batch of events.
pub fn split_events(body: &[u8]) -> Result<Events, InvalidBody> {
    let mut events = Vec::new();
    let mut at = 0;
    while let Some(blanks) = body[at..].iter().position(|byte| !byte.is_ascii_whitespace()) {
        let start = at + blanks;
        let value = Raw::first(&body[start..])?;
        at = start + value.bytes().len();
        match value.kind() {
            Type::Array => list(value, start, &mut events)?,
            Type::Object => object(value, start, &mut events)?,
            Type::String | Type::Scalar if at == body.len() => return Err(InvalidBody::WrongKind),
            Type::String | Type::Scalar => return Err(InvalidBody::NotJson),
        }
    }
    if at == 0 {
        return Err(InvalidBody::Empty);
    }
    if events.is_empty() {
        return Err(InvalidBody::NoEvents);
    }
    Ok(events)
}

fn push(event: Raw<'_>, start: usize, events: &mut Events) -> Result<(), InvalidBody> {
    if events.len() == MAX_EVENTS {
        return Err(InvalidBody::TooMany);
    }
    events.push((event_id::digest(event.bytes()), start..start + event.bytes().len()));
    Ok(())
}

fn list(array: Raw<'_>, start: usize, events: &mut Events) -> Result<(), InvalidBody> {
    let mut cursor = Cursor::new(array.bytes(), b'[');
    while let Some(item) = cursor.item() {
        let item = item?;
        push(item, start + cursor.position() - item.bytes().len(), events)?;
    }
    Ok(())
}

fn object(value: Raw<'_>, start: usize, events: &mut Events) -> Result<(), InvalidBody> {
    let (mut kind, mut items, mut has_id) = (None, None, false);
    let mut cursor = Cursor::new(value.bytes(), b'{');
    while let Some(member) = cursor.member() {
        let (key, member) = member?;
        // As elsewhere, the first of duplicate members counts.
        if key.is("kind") {
            kind = kind.or(Some(member));
        } else if key.is("items") {
            let at = start + cursor.position() - member.bytes().len();
            items = items.or(Some((member, at)));
        } else if key.is("auditID") {
            has_id = true;
        }
    }
    match kind.map(Raw::text).as_deref() {
        Some(b"EventList") => match items {
            Some((items, at)) if items.kind() == Type::Array => list(items, at, events),
            _ => Err(InvalidBody::NoEvents),
        },
        Some(b"Event") => push(value, start, events),
        None if has_id => push(value, start, events),
        _ => Err(InvalidBody::WrongKind),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(body: &str) -> Result<Vec<&str>, InvalidBody> {
        split_events(body.as_bytes()).map(|events| events.into_iter().map(|(_, at)| &body[at]).collect())
    }

    #[test]
    fn splits_lists_arrays_and_events() {
        let a = r#"{"kind":"Event","auditID":"a"}"#;
        let b = r#"{"auditID":"b"}"#;
        for body in [
            format!(r#"{{"kind":"EventList","items":[{a},{b}]}}"#),
            format!(r#" {{ "items" : [ {a} , {b} ] , "metadata":{{}}, "kind":"EventList" }} "#),
            format!("[{a},\n{b}]"),
            format!("{a}\n{b}\n"),
            format!("{a}[{b}]"),
        ] {
            assert_eq!(texts(&body), Ok(vec![a, b]), "{body}");
        }
    }

    #[test]
    fn elements_that_are_not_events_are_kept() {
        assert_eq!(texts(r#"[3,{"kind":"Pod"},null]"#), Ok(vec!["3", r#"{"kind":"Pod"}"#, "null"]));
    }

    #[test]
    fn the_first_of_duplicate_members_counts() {
        let body = r#"{"kind":"EventList","kind":"Pod","items":[1],"items":[2]}"#;
        assert_eq!(texts(body), Ok(vec!["1"]));
    }

    #[test]
    fn the_hash_is_equal_in_a_file_and_in_a_list() {
        let file = br#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"a"}"#;
        let list = br#"{"kind":"EventList","items":[{"level":"Metadata","auditID":"a"}]}"#;
        assert_eq!(split_events(file).unwrap()[0].0, split_events(list).unwrap()[0].0);
    }

    #[test]
    fn equal_audit_ids_do_not_make_events_equal() {
        let body = br#"[{"auditID":"a","stage":"x","verb":"get"},{"auditID":"a","stage":"x","verb":"list"}]"#;
        let events = split_events(body).unwrap();
        assert_ne!(events[0].0, events[1].0);
    }

    #[test]
    fn the_number_of_events_is_limited() {
        let list = |count: usize| format!("[{}1]", "1,".repeat(count - 1));
        assert_eq!(texts(&list(MAX_EVENTS)).unwrap().len(), MAX_EVENTS);
        assert_eq!(texts(&list(MAX_EVENTS + 1)), Err(InvalidBody::TooMany));
    }

    proptest! {
        #[test]
        fn never_panics_and_positions_are_in_the_body(
            body in proptest::collection::vec(
                prop_oneof![Just("{"), Just("}"), Just("["), Just("]"), Just(","), Just(":"), Just("\"kind\""),
                    Just("\"items\""), Just("\"EventList\""), Just("\"Event\""), Just("\"auditID\""), Just("1"),
                    Just(" "), Just("\""), Just("\\")],
                0..40,
            )
        ) {
            let body = body.concat();
            if let Ok(events) = split_events(body.as_bytes()) {
                let mut end = 0;
                for (digest, at) in events {
                    prop_assert!(end <= at.start && at.start < at.end && at.end <= body.len());
                    prop_assert_eq!(digest, event_id::digest(&body.as_bytes()[at.clone()]));
                    end = at.end;
                }
            }
        }
    }
}
