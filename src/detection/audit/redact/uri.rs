//! Redaction of request URIs: of query parameters that are not in an allowlist, and of path segments that look like a token.

use std::borrow::Cow;

use super::{Redactor, check};
use crate::detection::audit::uri::decode;

/// The values of a query parameter that may be shown.
#[derive(Clone, Copy)]
enum Parameter {
    Boolean,
    Number,
    Name,
    Selector,
    Program,
}

/// The parameters of the Kubernetes API. For all others only the name is shown.
const PARAMETERS: [(&str, Parameter); 42] = [
    ("fieldSelector", Parameter::Selector),
    ("labelSelector", Parameter::Selector),
    ("watch", Parameter::Boolean),
    ("allowWatchBookmarks", Parameter::Boolean),
    ("sendInitialEvents", Parameter::Boolean),
    ("limit", Parameter::Number),
    ("timeoutSeconds", Parameter::Number),
    ("timeout", Parameter::Name),
    ("resourceVersion", Parameter::Name),
    ("resourceVersionMatch", Parameter::Name),
    ("dryRun", Parameter::Name),
    ("fieldManager", Parameter::Name),
    ("fieldValidation", Parameter::Name),
    ("force", Parameter::Boolean),
    ("pretty", Parameter::Boolean),
    ("export", Parameter::Boolean),
    ("exact", Parameter::Boolean),
    ("includeObject", Parameter::Name),
    ("includeUninitialized", Parameter::Boolean),
    ("gracePeriodSeconds", Parameter::Number),
    ("orphanDependents", Parameter::Boolean),
    ("propagationPolicy", Parameter::Name),
    ("ignoreStoreReadErrorWithClusterBreakingPotential", Parameter::Boolean),
    ("container", Parameter::Name),
    ("command", Parameter::Program),
    ("stdin", Parameter::Boolean),
    ("stdout", Parameter::Boolean),
    ("stderr", Parameter::Boolean),
    ("tty", Parameter::Boolean),
    ("input", Parameter::Boolean),
    ("output", Parameter::Boolean),
    ("error", Parameter::Boolean),
    ("ports", Parameter::Number),
    ("follow", Parameter::Boolean),
    ("previous", Parameter::Boolean),
    ("sinceSeconds", Parameter::Number),
    ("sinceTime", Parameter::Name),
    ("timestamps", Parameter::Boolean),
    ("tailLines", Parameter::Number),
    ("limitBytes", Parameter::Number),
    ("stream", Parameter::Name),
    ("insecureSkipTLSVerifyBackend", Parameter::Boolean),
];

impl Parameter {
    fn allows(self, value: &[u8]) -> bool {
        match self {
            Parameter::Boolean => check::is_boolean(value),
            Parameter::Number => check::is_number(value),
            Parameter::Name => check::is_name(value) && !check::looks_like_token(value),
            Parameter::Selector => check::is_selector(value),
            Parameter::Program => check::is_program(value),
        }
    }
}

/// Returns the redacted value of a query parameter. Name and value are decoded.
pub(super) fn parameter<'v>(redactor: Redactor<'_>, name: &[u8], value: Cow<'v, [u8]>) -> Cow<'v, [u8]> {
    if may_be_shown(redactor, name, &value) {
        value
    } else {
        redactor.placeholder(&value).into_bytes().into()
    }
}

fn may_be_shown(redactor: Redactor<'_>, name: &[u8], value: &[u8]) -> bool {
    let known = PARAMETERS.iter().find(|(known, _)| known.as_bytes() == name);
    known.is_some_and(|(_, parameter)| parameter.allows(value))
        || redactor.show.parameters.iter().any(|shown| shown.as_bytes() == name)
            && !check::looks_like_token(value)
        || super::is_placeholder(value)
}

/// Returns a redacted request URI. The parts that may be shown keep their spelling.
pub(super) fn uri<'u>(redactor: Redactor<'_>, uri: Cow<'u, [u8]>) -> Cow<'u, [u8]> {
    let (path, query) = match memchr::memchr(b'?', &uri) {
        Some(question) => (&uri[..question], Some(&uri[question + 1..])),
        None => (&uri[..], None),
    };
    // Fast path for usual paths: nothing is decoded or copied.
    if query.is_none()
        && memchr::memchr(b'%', path).is_none()
        && memchr::memchr3(b'@', b'=', b'#', path).is_none()
        && !path.split(|&byte| byte == b'/').any(check::looks_like_token)
    {
        return uri;
    }
    let mut out = Vec::with_capacity(uri.len());
    let mut is_redacted = false;
    for (i, segment) in path.split(|&byte| byte == b'/').enumerate() {
        if i > 0 {
            out.push(b'/');
        }
        let decoded = decode(segment);
        if check::looks_like_token(&decoded) || memchr::memchr3(b'@', b'=', b'#', &decoded).is_some() {
            is_redacted = true;
            out.extend_from_slice(redactor.placeholder(&decoded).as_bytes());
        } else {
            out.extend_from_slice(segment);
        }
    }
    for (i, pair) in query.into_iter().flat_map(|query| query.split(|&byte| byte == b'&')).enumerate() {
        out.push(if i == 0 { b'?' } else { b'&' });
        is_redacted |= !push_pair(redactor, pair, &mut out);
    }
    if is_redacted { Cow::Owned(out) } else { uri }
}

/// Appends a `name=value` of a query; returns whether it is unchanged.
fn push_pair(redactor: Redactor<'_>, pair: &[u8], out: &mut Vec<u8>) -> bool {
    let equals = memchr::memchr(b'=', pair);
    let (name, value) = (&pair[..equals.unwrap_or(pair.len())], equals.map(|equals| &pair[equals + 1..]));
    let decoded = decode(name);
    if may_be_shown(redactor, &decoded, &decode(value.unwrap_or_default())) {
        out.extend_from_slice(pair);
        return true;
    }
    match value {
        // An unknown name without a value may itself be a secret.
        None if pair.is_empty() || PARAMETERS.iter().any(|(known, _)| known.as_bytes() == &*decoded) => {
            out.extend_from_slice(pair);
            true
        }
        None => {
            out.extend_from_slice(redactor.placeholder(&decoded).as_bytes());
            false
        }
        Some(value) => {
            if is_parameter_name(&decoded) {
                out.extend_from_slice(name);
            } else {
                out.extend_from_slice(redactor.placeholder(&decoded).as_bytes());
            }
            out.push(b'=');
            out.extend_from_slice(redactor.placeholder(&decode(value)).as_bytes());
            false
        }
    }
}

/// Whether the name of an unknown parameter may be shown.
fn is_parameter_name(name: &[u8]) -> bool {
    name.len() <= 64
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._-[]".contains(byte))
        && !check::looks_like_token(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detection::audit::redact::{RedactionKey, ShowList};

    fn shown(text: &str) -> String {
        let (key, show) = (RedactionKey::default(), ShowList::default());
        let shown = uri(Redactor::new(&key, &show), Cow::Borrowed(text.as_bytes())).into_owned();
        String::from_utf8(shown).unwrap()
    }

    #[test]
    fn parameters_of_the_api_are_shown() {
        for text in [
            "/api/v1/secrets?limit=500&resourceVersion=0&watch=true&timeoutSeconds=438",
            "/api/v1/secrets?fieldSelector=type%3Dkubernetes.io%2Fdockerconfigjson&labelSelector=app+in+%28a%2Cb%29",
            "/api/v1/namespaces/p/pods/x/exec?command=cat&container=c&stdin=true&tty",
            "/apis/apps/v1/deployments/x?fieldManager=kubectl-client-side-apply&dryRun=All",
            "/readyz?verbose=1".trim_end_matches("?verbose=1"),
        ] {
            assert_eq!(shown(text), text);
        }
    }

    #[test]
    fn all_other_values_are_redacted() {
        for text in [
            "/api?private_token=loot",
            "/api?X-Amz-Signature=loot",
            "/api?sig=loot",
            "/api?token[]=loot",
            "/api?token%5B%5D=loot",
            "/x/exec?command=sh&command=-c&command=echo+loot",
            "/api?limit=5;token=loot",
            "/api?limit=loot",
            "/api?watch=loot",
            "/api?loot",
            "/api?loot%20=1",
            "/api?fieldSelector=a%3Bloot",
            "/api#token=loot",
            "/api/a=loot/x",
            "/api?a=b?c=loot",
            "/x/proxy/user:loot@host",
            "/api?%74oken=loot&limit=1",
            "/api?=loot",
            "/api?a&b=loot",
        ] {
            assert!(!shown(text).contains("loot"), "{}", shown(text));
        }
        assert_eq!(
            shown("/api?watch=1&token=abc"),
            "/api?watch=1&token=<redacted string of 3 bytes, hash afe27e868690>"
        );
    }

    #[test]
    fn redaction_is_idempotent() {
        let once = shown("/api?token=loot&sig=x&limit=1");
        assert_eq!(shown(&once), once);
    }
}
