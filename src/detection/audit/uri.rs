//! Request URIs: query parameters and percent-encoding, as the apiserver reads them.

use std::borrow::Cow;

/// Undoes percent-encoding and `+` for a blank, as in a query.
///
/// A `%` without two hex digits stays as it is; [`parameter`] refuses it, as the apiserver does.
pub fn decode(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr2(b'%', b'+', text).is_none() {
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
            (b'+', ..) => {
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

fn is_well_encoded(text: &[u8]) -> bool {
    memchr::memchr_iter(b'%', text)
        .all(|at| text.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)))
}

/// The first value of a query parameter, decoded. Nothing if the query is malformed: Go's `url.ParseQuery`
/// refuses it whole where one parameter has a bad escape or a semicolon.
pub fn parameter<'a>(uri: &'a [u8], name: &[u8]) -> Option<Cow<'a, [u8]>> {
    let uri = uri.split(|&byte| byte == b'#').next()?;
    let question = memchr::memchr(b'?', uri)?;
    if !is_well_encoded(uri) {
        return None;
    }
    let query = &uri[question + 1..];
    if memchr::memchr(b';', query).is_some() {
        return None;
    }
    query.split(|&byte| byte == b'&').filter(|parameter| !parameter.is_empty()).find_map(|parameter| {
        let equals = memchr::memchr(b'=', parameter).unwrap_or(parameter.len());
        let value = parameter.get(equals + 1..).unwrap_or_default();
        (*decode(&parameter[..equals]) == *name).then(|| decode(value))
    })
}

/// All values of a query parameter, decoded as far as they can be: what is malformed stays as it is. To be asked where
/// it is worse to miss something than to see too much.
pub fn lenient_parameters(uri: &[u8], name: &[u8]) -> Vec<Vec<u8>> {
    let Some(question) = memchr::memchr(b'?', uri) else { return Vec::new() };
    uri[question + 1..]
        .split(|byte| matches!(byte, b'&' | b';'))
        .filter_map(|parameter| {
            let equals = memchr::memchr(b'=', parameter)?;
            (*decode(&parameter[..equals]) == *name).then(|| decode(&parameter[equals + 1..]).into_owned())
        })
        .collect()
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
        assert_eq!(lenient_parameters(b"/api?a=%zz&%62=%31;b=2&c", b"b"), [b"1", b"2"]);
    }
}
