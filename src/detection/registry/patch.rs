//! Determines what a write request writes, for every kind of body.
//!
//! Takes a request object and returns the values that it writes, each with the keys that lead to it. A whole object, a merge patch, a
//! strategic merge patch and an applied object are one value without keys; a JSON patch (RFC 6902) is a value per operation. The object
//! before the patch is not available, so a value that an operation copies from it is [`Written::Unknown`], and callers presume the worst
//! case.

use std::borrow::Cow;

use crate::detection::audit::json::{Raw, Type};

/// Maximum number of operations that are read. The apiserver rejects patches with more (`maxJSONPatchOperations`).
const MAX_OPERATIONS: usize = 10_000;

/// Maximum number of `copy` and `move` operations whose value is searched for in earlier operations. The search is linear in the number of
/// operations, and a client chooses both.
const MAX_RESOLVED: usize = 16;

/// The value that a request writes at a place.
#[derive(Clone, Copy, Debug)]
pub(super) enum Written<'a> {
    Value(Raw<'a>),
    Removed,
    /// A value from the object before the patch, or beyond the limits of this reader.
    Unknown,
}

/// One value that a request writes.
#[derive(Clone, Debug)]
pub(super) struct Write<'a> {
    /// The keys and array indices from the root of the object to the value.
    pub(super) path: Vec<Cow<'a, [u8]>>,
    pub(super) value: Written<'a>,
}

impl<'a> Write<'a> {
    /// Returns the value at a path of keys below the root: written directly, or as part of an enclosing value. None if the request does not
    /// change the place, [`Written::Removed`] if it replaces an enclosing value with one that lacks it.
    ///
    /// The enclosing value must be complete, as in a JSON patch; in a merge patch a missing member means no change.
    pub(super) fn at(&self, keys: &[&str]) -> Option<Written<'a>> {
        let is_above = self.path.len() <= keys.len()
            && self.path.iter().zip(keys).all(|(written, key)| **written == *key.as_bytes());
        if !is_above {
            return None;
        }
        Some(match self.value {
            Written::Value(value) => {
                let value = keys[self.path.len()..].iter().try_fold(value, |value, key| last(value, key));
                value.map_or(Written::Removed, Written::Value)
            }
            other => other,
        })
    }
}

/// Returns the value of the last member with this name. The apiserver uses the last of duplicate members, and a patch is logged as the
/// client sent it.
pub(super) fn last<'a>(object: Raw<'a>, name: &str) -> Option<Raw<'a>> {
    object.members().map_while(Result::ok).filter(|(key, _)| key.is(name)).map(|(_, value)| value).last()
}

/// The same for several names, in one pass over the object.
pub(super) fn last_of_each<'a, const N: usize>(object: Raw<'a>, names: [&str; N]) -> [Option<Raw<'a>>; N] {
    let mut found = [None; N];
    for (key, value) in object.members().map_while(Result::ok) {
        if let Some(at) = names.iter().position(|name| key.is(name)) {
            found[at] = Some(value);
        }
    }
    found
}

/// Returns the values that a request object writes.
pub(super) fn writes(body: Raw<'_>) -> Vec<Write<'_>> {
    if body.kind() != Type::Array {
        return vec![Write { path: Vec::new(), value: Written::Value(body) }];
    }
    let mut patch = JsonPatch::default();
    for (index, operation) in body.items().map_while(Result::ok).enumerate() {
        if index == MAX_OPERATIONS {
            patch.writes.push(Write { path: Vec::new(), value: Written::Unknown });
            break;
        }
        patch.add(operation);
    }
    patch.writes
}

/// The operations of a JSON patch so far.
#[derive(Default)]
struct JsonPatch<'a> {
    writes: Vec<Write<'a>>,
    /// What `test` operations show of the object.
    tested: Vec<Write<'a>>,
    resolved: usize,
}

impl<'a> JsonPatch<'a> {
    fn add(&mut self, operation: Raw<'a>) {
        // Of duplicate members the last one counts.
        let (mut op, mut path, mut from, mut value) = (None, None, None, None);
        for (key, member) in operation.members().map_while(Result::ok) {
            match &*key.text() {
                b"op" => op = member.string(),
                b"path" => path = member.string(),
                b"from" => from = member.string(),
                b"value" => value = Some(member),
                _ => {}
            }
        }
        let (Some(op), Some(path)) = (op, path) else { return };
        let path = tokens(&path);
        let mut written = value.map_or(Written::Unknown, Written::Value);
        match &*op {
            b"test" => {
                self.tested.push(Write { path, value: written });
                return;
            }
            b"add" | b"replace" => {}
            b"remove" => written = Written::Removed,
            b"copy" | b"move" => {
                let from = from.map(|from| tokens(&from)).unwrap_or_default();
                written = self.resolve(&from);
                if *op == *b"move" {
                    self.writes.push(Write { path: from, value: Written::Removed });
                }
            }
            _ => return,
        }
        self.writes.push(Write { path, value: written });
    }

    /// Returns the value at a path, as far as earlier operations determine it.
    fn resolve(&mut self, from: &[Cow<'a, [u8]>]) -> Written<'a> {
        self.resolved += 1;
        // Indices shift with every insertion and removal.
        let has_index = from.iter().any(|token| is_index(token));
        if self.resolved > MAX_RESOLVED || has_index {
            return Written::Unknown;
        }
        for write in self.writes.iter().rev().chain(self.tested.iter().rev()) {
            let is_above = write.path.len() <= from.len() && from.starts_with(&write.path);
            if !is_above {
                // A part of the value was written on its own.
                if write.path.starts_with(from) {
                    return Written::Unknown;
                }
                continue;
            }
            let Written::Value(value) = write.value else { return Written::Unknown };
            let keys = from[write.path.len()..].iter().map(|token| std::str::from_utf8(token));
            let value = keys.into_iter().try_fold(value, |value, key| last(value, key.ok()?));
            return value.map_or(Written::Unknown, Written::Value);
        }
        Written::Unknown
    }
}

/// Returns whether a token of a pointer is an array index, or `-` for the end of the array.
pub(super) fn is_index(token: &[u8]) -> bool {
    token == b"-" || !token.is_empty() && token.iter().all(u8::is_ascii_digit)
}

/// Splits a JSON pointer like the apiserver's library (`evanphx/json-patch`), which ignores text before the first slash.
fn tokens<'a>(pointer: &[u8]) -> Vec<Cow<'a, [u8]>> {
    pointer.split(|&byte| byte == b'/').skip(1).map(|token| Cow::Owned(unescape(token))).collect()
}

/// Decodes `~1` and `~0` of a JSON pointer.
fn unescape(token: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(token.len());
    let mut bytes = token.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let decoded = match (byte, bytes.peek()) {
            (b'~', Some(b'1')) => b'/',
            (b'~', Some(b'0')) => b'~',
            _ => {
                text.push(byte);
                continue;
            }
        };
        bytes.next();
        text.push(decoded);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each write as `path=value`, `path-` if removed, `path?` if unknown.
    fn of(body: &str) -> Vec<String> {
        writes(Raw::assume(body.as_bytes()))
            .into_iter()
            .map(|write| {
                let path: Vec<_> = write.path.iter().map(|token| String::from_utf8_lossy(token)).collect();
                let value = match write.value {
                    Written::Value(value) => format!("={}", String::from_utf8_lossy(value.bytes())),
                    Written::Removed => "-".to_owned(),
                    Written::Unknown => "?".to_owned(),
                };
                format!("{}{value}", path.join("/"))
            })
            .collect()
    }

    #[test]
    fn an_object_is_one_value() {
        assert_eq!(of(r#"{"a":1}"#), [r#"={"a":1}"#]);
        assert!(of("[]").is_empty());
    }

    #[test]
    fn every_operation_says_what_it_writes() {
        let patch = r#"[{"op":"test","path":"/x","value":1},{"op":"add","path":"/a/b~1c/-","value":{"d":1}},
            {"value":2,"path":"/e","op":"replace"},{"op":"remove","path":"/f"},{"op":"add","path":"","value":{}},
            {"op":"add","path":"ignored/g","value":3},{"op":"add","path":"/h","path":"/i","value":4},{"op":"other","path":"/j","value":5}]"#;
        assert_eq!(of(patch), [r#"a/b/c/-={"d":1}"#, "e=2", "f-", "={}", "g=3", "i=4"]);
    }

    #[test]
    fn copies_are_resolved_by_earlier_operations() {
        let patch = |from: &str| {
            let patch = format!(
                r#"[{{"op":"add","path":"/metadata/annotations","value":{{"a":"x","b":{{"c":"y"}}}}}},{{"op":"test","path":"/t","value":"z"}},
                {{"op":"add","path":"/metadata/finalizers/0","value":"w"}},{{"op":"copy","from":"{from}","path":"/spec"}}]"#
            );
            of(&patch).pop().unwrap()
        };
        assert_eq!(patch("/metadata/annotations/a"), r#"spec="x""#);
        assert_eq!(patch("/metadata/annotations/b/c"), r#"spec="y""#);
        assert_eq!(patch("/t"), r#"spec="z""#);
        for unknown in ["/metadata/annotations/d", "/metadata/finalizers/0", "/metadata", "/other", ""] {
            assert_eq!(patch(unknown), "spec?", "{unknown}");
        }
        let moved = r#"[{"op":"add","path":"/a","value":1},{"op":"move","from":"/a","path":"/b"},{"op":"copy","from":"/a","path":"/c"}]"#;
        assert_eq!(of(moved), ["a=1", "a-", "b=1", "c?"]);
    }

    #[test]
    fn more_operations_than_the_server_takes_are_unknown() {
        let operation = r#"{"op":"remove","path":"/a"}"#;
        let patch = format!("[{}]", vec![operation; MAX_OPERATIONS + 1].join(","));
        let writes = of(&patch);
        assert_eq!((writes.len(), writes.last().map(String::as_str)), (MAX_OPERATIONS + 1, Some("?")));
        let copies = vec![r#"{"op":"copy","from":"/a","path":"/b"}"#; MAX_RESOLVED + 1].join(",");
        let patch = format!(r#"[{{"op":"add","path":"/a","value":1}},{copies}]"#);
        assert_eq!(of(&patch).last().map(String::as_str), Some("b?"));
    }

    #[test]
    fn a_place_is_written_by_itself_or_by_a_value_above() {
        let at = |body: &str| {
            let write = writes(Raw::assume(body.as_bytes())).remove(0);
            match write.at(&["metadata", "labels", "a/b"]) {
                Some(Written::Value(value)) => String::from_utf8_lossy(value.bytes()).into_owned(),
                Some(Written::Removed) => "removed".to_owned(),
                Some(Written::Unknown) => "unknown".to_owned(),
                None => "unchanged".to_owned(),
            }
        };
        for (operation, expected) in [
            (r#"{"op":"add","path":"/metadata/labels/a~1b","value":1}"#, "1"),
            (r#"{"op":"add","path":"/metadata/labels","value":{"a/b":2}}"#, "2"),
            (r#"{"op":"replace","path":"/metadata","value":{"labels":{}}}"#, "removed"),
            (r#"{"op":"remove","path":"/metadata/labels"}"#, "removed"),
            (r#"{"op":"copy","from":"/x","path":"/metadata/labels/a~1b"}"#, "unknown"),
            (r#"{"op":"add","path":"/metadata/labels/a~1c","value":1}"#, "unchanged"),
            (r#"{"op":"add","path":"/metadata/labels/a~1b/c","value":1}"#, "unchanged"),
        ] {
            assert_eq!(at(&format!("[{operation}]")), expected, "{operation}");
        }
    }
}
