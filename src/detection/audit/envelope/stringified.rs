//! Objects that a producer wrote as JSON strings.
//!
//! Takes the text of an event; returns it with these strings replaced by the objects they contain, so that code that reads and redacts
//! bodies sees their members. The apiserver writes objects; some shippers convert them.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::super::event::Member;
use super::super::json::{Cursor, Raw, Type};
use super::super::steps;

/// The end of an object's name and the start of a string.
const MARK: &[u8] = b"Object\":\"";

/// Whether a text contains an event with such an object. Events with whitespace between tokens are ignored.
pub(super) fn may_be_in(text: &[u8]) -> bool {
    static FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(MARK));
    steps::add(text.len());
    FINDER.find(text).is_some()
}

/// Replaces these strings. `None` if there are none, or if the event is malformed.
pub(super) fn expand(event: &[u8]) -> Option<Vec<u8>> {
    let objects = [Member::RequestObject, Member::ResponseObject];
    expand_members(event, |member| objects.contains(&member))
}

/// Replaces the strings of all members that contain an object or a list: some log stores support only strings.
pub(super) fn expand_all(event: &[u8]) -> Option<Vec<u8>> {
    const OPEN: [Member; 8] = [
        Member::User,
        Member::ImpersonatedUser,
        Member::SourceIps,
        Member::ObjectRef,
        Member::ResponseStatus,
        Member::RequestObject,
        Member::ResponseObject,
        Member::Annotations,
    ];
    expand_members(event, |member| OPEN.contains(&member))
}

fn expand_members(event: &[u8], is_open: impl Fn(Member) -> bool) -> Option<Vec<u8>> {
    let mut objects = Vec::new();
    let mut cursor = Cursor::new(event, b'{');
    while let Some(member) = cursor.member() {
        let Ok((key, value)) = member else { break };
        if value.kind() == Type::String
            && Member::named(&key.text()).is_some_and(&is_open)
            && let Some(text) = value.string()
            && is_whole(&text)
        {
            let end = cursor.position();
            objects.push((end - value.bytes().len()..end, text));
        }
    }
    if objects.is_empty() {
        return None;
    }
    let mut out = Vec::with_capacity(event.len());
    let mut done = 0;
    for (range, text) in &objects {
        out.extend_from_slice(&event[done..range.start]);
        // One event per line.
        out.extend(Raw::assume(trim(text)).compact().iter());
        done = range.end;
    }
    out.extend_from_slice(&event[done..]);
    Some(out)
}

fn trim(text: &[u8]) -> &[u8] {
    text.trim_ascii()
}

/// Whether a text is exactly one object or list.
fn is_whole(text: &[u8]) -> bool {
    let text = text.trim_ascii();
    matches!(text.first(), Some(b'{' | b'['))
        && Raw::first(text).is_ok_and(|value| value.bytes().len() == text.len())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn objects_take_the_place_of_strings() {
        let event = br#"{"kind":"Event","auditID":"a","requestObject":"text","responseObject":"{\"kind\": \"Secret\",\n\"data\":{\"a\":\"\\u0022\"}}","verb":"get"}"#;
        assert!(may_be_in(event));
        assert_eq!(
            String::from_utf8(expand(event).unwrap()).unwrap(),
            r#"{"kind":"Event","auditID":"a","requestObject":"text","responseObject":{"kind":"Secret","data":{"a":"\u0022"}},"verb":"get"}"#
        );
        for other in [
            &br#"{"requestObject":{"a":"Object\":\"{"}}"#[..],
            br#"{"responseObject":"{"}"#,
            br#"{"responseObject":"{} {}"}"#,
            br#"{"userAgent":"{}"}"#,
            br"[]",
        ] {
            assert_eq!(expand(other), None);
        }
    }
}
