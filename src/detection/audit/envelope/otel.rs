//! Values of OpenTelemetry log records.
//!
//! Takes the typed values of the OTLP/JSON encoding; returns plain JSON.

use super::super::json::Raw;
use crate::text::escape::push_json_string;

/// Maximum nesting of a value, which bounds the recursion.
const MAX_VALUE_DEPTH: usize = 100;

/// The text of an attribute value.
pub(super) fn text_attribute<'a>(attributes: Raw<'a>, name: &str) -> Option<std::borrow::Cow<'a, [u8]>> {
    let mut attributes = attributes.items().map_while(Result::ok);
    let attribute = attributes.find(|attribute| {
        attribute.get("key").and_then(Raw::string).is_some_and(|key| *key == *name.as_bytes())
    })?;
    attribute.path(&["value", "stringValue"])?.string()
}

/// Appends an `AnyValue` of OpenTelemetry as plain JSON. Returns false if it is nested too deeply.
pub(super) fn push_any_value(value: Raw<'_>, depth: usize, out: &mut Vec<u8>) -> bool {
    if depth > MAX_VALUE_DEPTH {
        return false;
    }
    let Some(Ok((kind, inner))) = value.members().next() else {
        out.extend_from_slice(b"null");
        return true;
    };
    let (open, close, is_list) = match &*kind.text() {
        b"kvlistValue" => (b'{', b'}', false),
        b"arrayValue" => (b'[', b']', true),
        b"intValue" => {
            // As a string, so that readers with 53-bit numbers keep all digits.
            out.extend_from_slice(&inner.text());
            return true;
        }
        _ => {
            out.extend_from_slice(&inner.compact());
            return true;
        }
    };
    out.push(open);
    for (at, item) in inner.get("values").into_iter().flat_map(Raw::items).map_while(Result::ok).enumerate() {
        if at > 0 {
            out.push(b',');
        }
        let value = if is_list {
            Some(item)
        } else {
            push_json_string(&item.get("key").and_then(Raw::string).unwrap_or_default(), out);
            out.push(b':');
            item.get("value")
        };
        match value {
            Some(value) if !push_any_value(value, depth + 1, out) => return false,
            Some(_) => {}
            None => out.extend_from_slice(b"null"),
        }
    }
    out.push(close);
    true
}
