//! Request URIs, read as the kube-apiserver reads them.
//!
//! Takes `requestURI` as the client wrote it. Returns query parameters ([`query`]), field selectors ([`field_selector`]) and what the path
//! names ([`path`]), each exactly as Go's `net/url`, `k8s.io/apimachinery` and `k8s.io/apiserver` read it, so that a request is excluded
//! from suspicion only because of what the apiserver really did. If versions of the apiserver read a query differently, [`query::Readings`]
//! contains every reading. From label selectors ([`label_selector`]) only the required labels are read: the labels of secrets are unknown,
//! so a selector decides which credentials are named, and never that none was read. Parsing must not be lenient: guessing what a client
//! meant would make it possible to evade a rule.

use std::borrow::Cow;

pub(crate) mod field_selector;
mod label_selector;
pub(crate) mod path;
pub(crate) mod query;

pub(crate) use label_selector::carried_labels;

/// Percent-decodes text; in a query `+` is a space. A `%` without two hex digits is kept, although Go reports an error: callers that need
/// Go's behavior call [`is_well_encoded`] first.
pub(crate) fn decode_percent(text: &[u8], is_query: bool) -> Cow<'_, [u8]> {
    let is_encoded = |byte: &u8| *byte == b'%' || is_query && *byte == b'+';
    if !text.iter().any(is_encoded) {
        return Cow::Borrowed(text);
    }
    let digit = |at: usize| text.get(at).and_then(|&byte| char::from(byte).to_digit(16));
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        match (text[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                // Two hex digits are below 256.
                out.push(u8::try_from(high << 4 | low).unwrap_or_default());
                at += 3;
            }
            (b'+', ..) if is_query => {
                out.push(b' ');
                at += 1;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    Cow::Owned(out)
}

/// The path of a URI, percent-decoded.
pub(crate) fn decoded_path(uri: &[u8]) -> Cow<'_, [u8]> {
    decode_percent(memchr::memchr(b'?', uri).map_or(uri, |question| &uri[..question]), false)
}

/// Percent-decodes a part of a query. A `%` without two hex digits is kept as it is.
pub(crate) fn decode(text: &[u8]) -> Cow<'_, [u8]> {
    decode_percent(text, true)
}

/// Whether two hex digits follow each `%`.
fn is_well_encoded(text: &[u8]) -> bool {
    memchr::memchr_iter(b'%', text)
        .all(|at| text.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)))
}

/// The query of a URI, without its `?`. A request target has no fragment: Go treats `#` as part of the query.
fn query_part(uri: &[u8]) -> &[u8] {
    memchr::memchr(b'?', uri).map_or(&[], |question| &uri[question + 1..])
}

/// The first value of a query parameter as the rule language defines it: `None` for the whole query if any part of it is
/// malformed, as in the reference. To decide what the apiserver did, use [`query::Readings`].
pub(crate) fn parameter<'a>(uri: &'a [u8], name: &[u8]) -> Option<Cow<'a, [u8]>> {
    let uri = uri.split(|&byte| byte == b'#').next()?;
    if !is_well_encoded(uri) {
        return None;
    }
    let query = query_part(uri);
    if memchr::memchr(b';', query).is_some() {
        return None;
    }
    query.split(|&byte| byte == b'&').filter(|parameter| !parameter.is_empty()).find_map(|parameter| {
        let equals = memchr::memchr(b'=', parameter).unwrap_or(parameter.len());
        let value = parameter.get(equals + 1..).unwrap_or_default();
        (*decode(&parameter[..equals]) == *name).then(|| decode(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let uri =
            b"/api/v1/secrets?fieldSelector=type%3Dkubernetes.io%2Fdockerconfigjson&limit=500&a+b=&limit=2&x";
        assert_eq!(parameter(uri, b"fieldSelector").unwrap(), &b"type=kubernetes.io/dockerconfigjson"[..]);
        assert_eq!(parameter(uri, b"limit").unwrap(), &b"500"[..]);
        assert_eq!(parameter(uri, b"a b").unwrap(), &b""[..]);
        assert_eq!(parameter(uri, b"x").unwrap(), &b""[..]);
        assert_eq!(parameter(uri, b"nosuch"), None);
        assert_eq!(parameter(b"/api?a=%zz&b=1", b"b"), None);
    }
}
