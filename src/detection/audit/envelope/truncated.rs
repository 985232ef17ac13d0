//! Records whose text ends in the middle.
//!
//! Takes the beginning of a value; returns the available part. If the text of an event ends before `objectRef`, the object is derived from
//! the request URI, which contains the same information. A client controls the length of many members before `objectRef`, so an event must
//! never be lost because it was cut before it.

use std::borrow::Cow;

use super::super::event::Member;
use super::super::json::{Cursor, JsonError, Raw};
use super::super::uri::path::Target;
use crate::text::escape::push_json_string;

/// The content of a string that may be truncated. Empty for other values.
pub(super) fn string_of(value: Raw<'_>) -> Cow<'_, [u8]> {
    let Some(inner) = value.bytes().strip_prefix(b"\"") else { return Cow::Borrowed(b"") };
    match Raw::first(value.bytes()) {
        Ok(whole) => whole.string().unwrap_or_default(),
        Err(_) => Cow::Owned(string(inner)),
    }
}

/// The value of the first member with this name, which may be truncated.
pub(super) fn get<'a>(object: Raw<'a>, name: &str) -> Option<Raw<'a>> {
    let mut cursor = Cursor::new(object.bytes(), b'{');
    loop {
        match cursor.member()? {
            Ok((key, value)) if key.is(name) => return Some(value),
            Ok(_) => {}
            Err(JsonError::Truncated) => {
                let (key, value) = cursor.truncated_member()?;
                return (key == name.as_bytes()).then_some(value);
            }
            Err(JsonError::Syntax) => return None,
        }
    }
}

/// The elements of an array, the last of which may be truncated.
pub(super) fn items(list: Raw<'_>) -> impl Iterator<Item = Raw<'_>> {
    let mut cursor = Cursor::new(list.bytes(), b'[');
    std::iter::from_fn(move || match cursor.item()? {
        Ok(item) => Some(item),
        Err(JsonError::Truncated) => {
            Some(Raw::assume(cursor.remainder())).filter(|item| !item.bytes().is_empty())
        }
        Err(JsonError::Syntax) => None,
    })
}

/// The content of a truncated string. `text` starts after the opening quote.
fn string(text: &[u8]) -> Vec<u8> {
    // A truncated escape is dropped. The longest escape has six bytes.
    let from = text.len().saturating_sub(6);
    let mut end = text.len();
    for at in from..text.len() {
        let before = text[..at].iter().rev().take_while(|byte| **byte == b'\\').count();
        let length = if text.get(at + 1) == Some(&b'u') { 6 } else { 2 };
        if text[at] == b'\\' && before % 2 == 0 && at + length > text.len() {
            end = at;
            break;
        }
    }
    let quoted = [b"\"", &text[..end], b"\""].concat();
    Raw::assume(&quoted).string().map(std::borrow::Cow::into_owned).unwrap_or_default()
}

/// Maximum length in bytes of the mark with which a shipper ends a record that it cut, such as `...`, `...TRUNCATED...` or `[truncated 512 bytes]`.
const MAX_MARK: usize = 64;

/// Maximum number of places at which a mark is presumed to begin.
const MAX_TRIES: usize = 8;

/// A record without the mark of a shipper that cut it outside of a string, where the mark is not JSON. `None` if `line` is malformed
/// elsewhere than at its end.
pub(super) fn without_mark(line: &[u8]) -> Option<&[u8]> {
    let line = line.trim_ascii_end();
    let start = line.len().saturating_sub(MAX_MARK).max(1);
    let is_cut = |text: &[u8]| {
        let mut cursor = Cursor::new(text, b'{');
        let error = std::iter::from_fn(|| cursor.member()).find_map(Result::err);
        error == Some(JsonError::Truncated)
    };
    if line.first() != Some(&b'{') || Raw::first(line).is_ok() || is_cut(line) || !is_cut(&line[..start]) {
        return None;
    }
    let ends = (start..line.len())
        .rev()
        .filter(|&at| matches!(line[at], b'"' | b'{' | b'}' | b'[' | b']' | b',' | b':'));
    ends.take(MAX_TRIES).map(|at| &line[..=at]).find(|text| is_cut(text))
}

/// Adds `objectRef` to an event whose text ends before it, from the request URI. Further down the event is read as truncated all the
/// same. `None` if the text is complete, is not an event, has an object, or has no URI that names one.
pub(super) fn with_target(text: &[u8]) -> Option<Vec<u8>> {
    let mut cursor = Cursor::new(text, b'{');
    let mut read_to = 0;
    let (mut uri, mut verb, mut is_event) = (None, None, false);
    loop {
        match cursor.member()? {
            Ok((key, value)) => {
                match Member::named(&key.text()) {
                    // In the apiserver's member order, everything after `objectRef` is late enough.
                    Some(Member::ObjectRef | Member::ResponseStatus) => return None,
                    Some(Member::RequestUri) if uri.is_none() => uri = value.string(),
                    Some(Member::Verb) if verb.is_none() => verb = value.string(),
                    Some(Member::Kind) => is_event |= value.string().as_deref() == Some(b"Event"),
                    Some(Member::AuditId) => is_event = true,
                    _ => {}
                }
                read_to = cursor.position();
            }
            Err(JsonError::Syntax) => return None,
            Err(JsonError::Truncated) => break,
        }
    }
    if !is_event {
        return None;
    }
    let mut out = text[..read_to].to_vec();
    let target = match &uri {
        Some(uri) => Target::of(uri, verb.as_deref())?,
        None => {
            const KEY: &[u8] = b",\"requestURI\":\"";
            let whole = string(text[read_to..].strip_prefix(KEY)?);
            let uri = complete_part(&whole);
            let is_path = uri.len() < whole.len() && whole[uri.len()] == b'/';
            out.extend_from_slice(&KEY[..KEY.len() - 1]);
            push_json_string(uri, &mut out);
            let target = Target::of(uri, None)?;
            // `/api/v1/namespaces/x/secr` is not a request for the namespace.
            if is_path && target.resource == b"namespaces" {
                return None;
            }
            target
        }
    };
    out.extend_from_slice(
        format!(",\"{}\":true,\"objectRef\":{{\"resource\":", Member::DerivedTarget.name()).as_bytes(),
    );
    push_json_string(&target.resource, &mut out);
    for (key, value) in [
        ("namespace", &target.namespace),
        ("name", &target.name),
        ("apiGroup", &target.group),
        ("apiVersion", &target.version),
        ("subresource", &target.subresource),
    ] {
        if !value.is_empty() {
            out.extend_from_slice(format!(",\"{key}\":").as_bytes());
            push_json_string(value, &mut out);
        }
    }
    out.extend_from_slice(b"}\n");
    Some(out)
}

/// A truncated URI without its last parameter, or without the last segment of its path, since either may be incomplete.
fn complete_part(uri: &[u8]) -> &[u8] {
    let end = match memchr::memchr(b'?', uri) {
        Some(question) => memchr::memrchr(b'&', &uri[question..]).map_or(question, |at| question + at),
        None => memchr::memrchr(b'/', uri).unwrap_or_default(),
    };
    &uri[..end]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"a","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/p/secrets/x?a=1\u0026watch=1","verb":"get","user":{"username":"m"},"sourceIPs":["10.0.0.1"],"userAgent":"curl","objectRef":{"resource":"secrets","namespace":"p","name":"x","apiVersion":"v1"},"responseStatus":{"code":200}}"#;

    #[test]
    fn the_mark_of_a_shipper_is_not_a_part_of_a_cut_record() {
        for until in [
            r#""sourceIPs":["10.0.0.1"],"#,
            r#""user":{"username":"m"}"#,
            r#""verb":"get","#,
            r#"{"kind":"Event""#,
        ] {
            let cut = &EVENT[..EVENT.find(until).unwrap() + until.len()];
            for mark in [
                "...",
                "...TRUNCATED...",
                "[truncated 512 bytes]",
                " <truncated: 512 bytes>",
                "…",
                "... (cut)\r\n",
            ] {
                let marked = format!("{cut}{mark}");
                assert_eq!(without_mark(marked.as_bytes()), Some(cut.as_bytes()), "{marked}");
            }
        }
        let long = "x".repeat(MAX_MARK + 1);
        for other in [
            EVENT,
            &format!("{EVENT}..."),
            &format!("{},{long}", &EVENT[..EVENT.len() - 1]),
            "{...",
            "",
            "x\"\"",
            &"{".repeat(200),
        ] {
            assert_eq!(without_mark(other.as_bytes()), None, "{other}");
        }
    }

    fn completed(until: &str) -> Option<String> {
        let end = EVENT.find(until).unwrap() + until.len();
        with_target(&EVENT.as_bytes()[..end]).map(|text| String::from_utf8(text).unwrap())
    }

    #[test]
    fn reads_the_object_from_the_uri_of_a_truncated_event() {
        let object = r#""pullwatch.io/derived-target":true,"objectRef":{"resource":"secrets","namespace":"p","name":"x","apiVersion":"v1"}"#;
        for until in [
            "\"user\":{",
            "\"username\":\"m\"}",
            "\"verb\":\"get\"",
            "sourceIPs",
            "userAgent\":\"cu",
            "\"resource\":\"se",
            "watch=1",
            "\\u00",
            "secrets/x?a=1",
        ] {
            let text = completed(until).unwrap();
            assert!(text.contains(object), "{until}: {text}");
            assert!(Raw::first(text.as_bytes()).is_err(), "{until}: it is still truncated");
        }
        assert!(
            completed("watch=1").unwrap().contains(r#""requestURI":"/api/v1/namespaces/p/secrets/x?a=1","#)
        );
        // The name may be incomplete.
        assert!(
            completed("secrets/x")
                .unwrap()
                .contains(r#""objectRef":{"resource":"secrets","namespace":"p","apiVersion""#)
        );
    }

    #[test]
    fn changes_nothing_else() {
        assert_eq!(with_target(EVENT.as_bytes()), None);
        for until in
            ["\"v1\"},", "\"code\":200}", "\"auditID\":\"", "\"requestURI\":\"/api", "/namespaces/p/sec"]
        {
            assert_eq!(completed(until), None, "{until}");
        }
        assert_eq!(with_target(br#"{"kind":"Pod","requestURI":"/api/v1/secrets","a"#), None);
        assert_eq!(with_target(br#"{"kind":"Event","requestURI":"/healthz","verb":"#), None);
    }
}
