//! Redaction of values from events.
//!
//! Takes a value and its [`Place`] in an event; returns text that may leave pullwatch. At level RequestResponse an event contains
//! data of Secrets, tokens, and passwords in environment variables. Conditions may read all of it; no output may contain it, so
//! every value that leaves pullwatch must pass [`Place::show`].
//!
//! The key of a redacted value is kept, the value becomes [`REDACTED`]. Redacting too much is an inconvenience, too little a
//! leak: a key that names a secret redacts everything below it.

use std::borrow::Cow;

use super::json::{Raw, Type};
use crate::text::escape::MAX_SHOWN_LEN;

/// Replaces a redacted value.
pub const REDACTED: &str = "<redacted>";

/// Replaces a value that is nested deeper than [`MAX_DEPTH`].
const TOO_DEEP: &str = "\"<nested too deep>\"";

/// The deepest nesting of a value that is shown. Kubernetes objects are far below it; it bounds the recursion.
const MAX_DEPTH: usize = 96;

/// Ends a text that was truncated to [`MAX_SHOWN_LEN`].
const ELLIPSIS: &str = "…";

/// Keys of a request or response body whose values are secrets, in lower case.
const SECRET_KEYS: [&str; 17] = [
    "data",
    "stringdata",
    "binarydata",
    "kubectl.kubernetes.io/last-applied-configuration",
    "token",
    "tokens",
    "bearertoken",
    "accesstoken",
    "refreshtoken",
    "idtoken",
    "password",
    "passphrase",
    "clientsecret",
    "secretkey",
    "secretaccesskey",
    "privatekey",
    "apikey",
];

/// Query parameters whose values are secrets, in lower case.
const SECRET_PARAMETERS: [&str; 12] = [
    "token",
    "access_token",
    "id_token",
    "refresh_token",
    "bearer_token",
    "authorization",
    "password",
    "passwd",
    "secret",
    "client_secret",
    "api_key",
    "apikey",
];

/// Prefix of annotations that contain the patch of a mutating webhook as text. It may set the data of a Secret or an environment.
const PATCHES: &[u8] = b"patch.webhook.admission.k8s.io/";

/// The place of a value in an event, which decides what is redacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The event itself.
    Event,
    /// A part without secrets: user, objectRef, most annotations of the event …
    Plain,
    /// The annotations of the event.
    Annotations,
    /// The request URI.
    Uri,
    /// In the request or response object.
    Body,
    /// A container's environment: a list of names and values.
    Environment,
    /// One entry of an environment.
    Variable,
    /// Under a key that names a secret.
    Secret,
}

impl Place {
    /// The place of the member `key` of `parent`, which is at this place.
    #[must_use]
    pub fn member(self, key: &[u8], parent: Raw<'_>) -> Place {
        match self {
            Place::Event => match key {
                b"requestURI" => Place::Uri,
                b"requestObject" | b"responseObject" => Place::Body,
                b"annotations" => Place::Annotations,
                _ => Place::Plain,
            },
            Place::Annotations if key.starts_with(PATCHES) => Place::Secret,
            Place::Annotations => Place::Plain,
            Place::Body => body_member(key, parent),
            Place::Variable if key == b"value" => Place::Secret,
            Place::Variable => Place::Body,
            // A JSON pointer's index, or a map instead of a list.
            Place::Environment => Place::Variable,
            Place::Plain | Place::Uri | Place::Secret => self,
        }
    }

    /// The place of the elements of an array at this place.
    #[must_use]
    pub fn item(self) -> Place {
        if self == Place::Environment { Place::Variable } else { self }
    }

    /// The place of the member or element that a token of a JSON pointer names.
    #[must_use]
    pub fn step(self, token: &str, parent: Raw<'_>) -> Place {
        match parent.kind() {
            Type::Array => self.item(),
            _ => self.member(token.as_bytes(), parent),
        }
    }

    /// The redacted text of a value at this place: the content of a string, compact JSON in source order for other types. At most
    /// [`MAX_SHOWN_LEN`] bytes and an ellipsis.
    pub fn show(self, value: Raw<'_>) -> Cow<'_, [u8]> {
        match (value.kind(), self) {
            (Type::String | Type::Scalar, Place::Secret) => Cow::Borrowed(REDACTED.as_bytes()),
            (Type::String, Place::Uri) => value.string().map(uri).map_or(Cow::default(), truncate),
            (Type::String | Type::Scalar, _) => truncate(value.text()),
            (Type::Object | Type::Array, _) => {
                let mut out = Vec::new();
                self.write(value, Shape { depth: 0, indent: None, limit: MAX_SHOWN_LEN }, &mut out);
                truncate(Cow::Owned(out))
            }
        }
    }

    /// Like [`Place::show`], but as JSON that is indented by two spaces.
    pub fn show_indented(self, value: Raw<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(value, Shape { depth: 0, indent: Some(0), limit: MAX_SHOWN_LEN }, &mut out);
        truncate(Cow::Owned(out)).into_owned()
    }

    /// Appends the redacted value as JSON. Recursion ends at [`MAX_DEPTH`].
    fn write(self, value: Raw<'_>, shape: Shape, out: &mut Vec<u8>) {
        let Shape { depth, indent, limit } = shape;
        if out.len() > limit {
            return;
        }
        let (open, close) = match value.kind() {
            Type::String | Type::Scalar if self == Place::Secret => {
                out.push(b'"');
                out.extend_from_slice(REDACTED.as_bytes());
                out.push(b'"');
                return;
            }
            Type::String if self == Place::Uri => {
                out.push(b'"');
                let shown = value.string().map(uri).unwrap_or_default();
                crate::text::escape::escape_json(&shown, out);
                out.push(b'"');
                return;
            }
            Type::String | Type::Scalar => {
                out.extend_from_slice(value.bytes());
                return;
            }
            Type::Object | Type::Array if depth == MAX_DEPTH => {
                out.extend_from_slice(TOO_DEEP.as_bytes());
                return;
            }
            Type::Object => (b'{', b'}'),
            Type::Array => (b'[', b']'),
        };
        let inner = indent.map(|indent| indent + 2);
        let below = Shape { depth: depth + 1, indent: inner, limit };
        let mut empty = true;
        let mut separate = |out: &mut Vec<u8>| {
            if !std::mem::take(&mut empty) {
                out.push(b',');
            }
            new_line(inner, out);
        };
        out.push(open);
        if open == b'{' {
            for (key, member) in value.members().map_while(Result::ok) {
                separate(out);
                let key = key.text();
                out.push(b'"');
                crate::text::escape::escape_json(&key, out);
                out.extend_from_slice(if inner.is_some() { b"\": " } else { b"\":" });
                self.member(&key, value).write(member, below, out);
            }
        } else {
            for item in value.items().map_while(Result::ok) {
                separate(out);
                self.item().write(item, below, out);
            }
        }
        if !empty {
            new_line(indent, out);
        }
        out.push(close);
    }
}

/// The format of a value that is written.
#[derive(Clone, Copy)]
struct Shape {
    depth: usize,
    /// Spaces before each line; `None` for compact JSON.
    indent: Option<usize>,
    /// Writing stops once the output is longer than this, in bytes.
    limit: usize,
}

/// An object or array without redaction, indented by two spaces. For conditions only: the result must not leave pullwatch.
pub fn indented(value: Raw<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    // Values at a plain place are not redacted.
    Place::Plain.write(value, Shape { depth: 0, indent: Some(0), limit: usize::MAX }, &mut out);
    out
}

fn new_line(indent: Option<usize>, out: &mut Vec<u8>) {
    if let Some(indent) = indent {
        out.push(b'\n');
        out.resize(out.len() + indent, b' ');
    }
}

fn body_member(key: &[u8], parent: Raw<'_>) -> Place {
    if key == b"env" {
        return Place::Environment;
    }
    if SECRET_KEYS.iter().any(|secret| key.eq_ignore_ascii_case(secret.as_bytes())) {
        return Place::Secret;
    }
    // An operation of a JSON patch (RFC 6902) names the place of its `value` in `path`.
    if key == b"value"
        && parent.get("op").is_some()
        && let Some(path) = parent.get("path").and_then(Raw::string)
    {
        let hidden = path.split(|&byte| byte == b'/').any(|token| {
            let token =
                String::from_utf8_lossy(token).replace("~1", "/").replace("~0", "~").to_ascii_lowercase();
            token == "env" || SECRET_KEYS.contains(&&*token)
        });
        if hidden {
            return Place::Secret;
        }
    }
    Place::Body
}

/// Whether the value of a query parameter of this name is a secret.
pub fn is_secret_parameter(name: &[u8]) -> bool {
    SECRET_PARAMETERS.iter().any(|secret| name.eq_ignore_ascii_case(secret.as_bytes()))
}

/// Redacts secrets in the query of a request URI.
pub fn uri(uri: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    let Some(question) = memchr::memchr(b'?', &uri) else { return uri };
    let (path, query) = uri.split_at(question + 1);
    let secret = |parameter: &[u8]| {
        let name = parameter.split(|&byte| byte == b'=').next().unwrap_or_default();
        name.len() < parameter.len() && is_secret_parameter(&super::uri::decode(name))
    };
    let parameters = || query.split(|byte| matches!(byte, b'&' | b';'));
    if !parameters().any(secret) {
        return uri;
    }
    let mut shown = path.to_vec();
    for (i, parameter) in parameters().enumerate() {
        if i > 0 {
            shown.push(b'&');
        }
        if secret(parameter) {
            shown.extend(parameter.iter().take_while(|&&byte| byte != b'='));
            shown.push(b'=');
            shown.extend_from_slice(REDACTED.as_bytes());
        } else {
            shown.extend_from_slice(parameter);
        }
    }
    Cow::Owned(shown)
}

/// Truncates to [`MAX_SHOWN_LEN`] bytes at the start of a character, so that valid UTF-8 stays valid.
fn truncate(text: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    if text.len() <= MAX_SHOWN_LEN {
        return text;
    }
    let mut end = MAX_SHOWN_LEN;
    while end > MAX_SHOWN_LEN - 4 && text[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    let mut shown = text[..end].to_vec();
    shown.extend_from_slice(ELLIPSIS.as_bytes());
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(json: &str) -> String {
        String::from_utf8(Place::Event.show(Raw::first(json.as_bytes()).unwrap()).into_owned()).unwrap()
    }

    #[test]
    fn redacts_secrets_of_bodies_and_keeps_their_keys() {
        insta::assert_snapshot!(
            shown(r#"{"verb":"get","responseObject":{"kind":"Secret","data":{".dockerconfigjson":"bG9vdA=="},"type":"t"}}"#),
            @r#"{"verb":"get","responseObject":{"kind":"Secret","data":{".dockerconfigjson":"<redacted>"},"type":"t"}}"#
        );
        insta::assert_snapshot!(
            shown(r#"{"responseObject":{"items":[{"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{loot}"}},"stringData":{"a":{"b":[1,"loot"]}}}]}}"#),
            @r#"{"responseObject":{"items":[{"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"<redacted>"}},"stringData":{"a":{"b":["<redacted>","<redacted>"]}}}]}}"#
        );
        insta::assert_snapshot!(
            shown(r#"{"responseObject":{"status":{"token":"loot"}},"requestObject":{"spec":{"containers":[{"env":[{"name":"A","value":"loot"}],"command":["sh"]}]}}}"#),
            @r#"{"responseObject":{"status":{"token":"<redacted>"}},"requestObject":{"spec":{"containers":[{"env":[{"name":"A","value":"<redacted>"}],"command":["sh"]}]}}}"#
        );
        insta::assert_snapshot!(
            shown(r#"{"requestObject":[{"op":"add","path":"/data/x","value":"loot"},{"op":"add","path":"/metadata/labels/x","value":"fine"}]}"#),
            @r#"{"requestObject":[{"op":"add","path":"/data/x","value":"<redacted>"},{"op":"add","path":"/metadata/labels/x","value":"fine"}]}"#
        );
    }

    #[test]
    fn redacts_patches_of_webhooks() {
        insta::assert_snapshot!(
            shown(r#"{"annotations":{"authorization.k8s.io/decision":"allow","patch.webhook.admission.k8s.io/round_0_index_0":"{\"patch\":[{\"value\":\"loot\"}]}"}}"#),
            @r#"{"annotations":{"authorization.k8s.io/decision":"allow","patch.webhook.admission.k8s.io/round_0_index_0":"<redacted>"}}"#
        );
    }

    #[test]
    fn redacts_below_escaped_keys() {
        assert!(!shown(r#"{"responseObject":{"d\u0061ta":{"x":"loot"}}}"#).contains("loot"));
        assert!(!shown(r#"{"r\u0065sponseObject":{"data":{"x":"loot"}}}"#).contains("loot"));
    }

    #[test]
    fn redacts_tokens_in_uris() {
        let redacted =
            |text: &str| String::from_utf8(uri(Cow::Borrowed(text.as_bytes())).into_owned()).unwrap();
        assert_eq!(redacted("/api?watch=1&token=loot&x=2"), "/api?watch=1&token=<redacted>&x=2");
        assert_eq!(redacted("/api?%74oken=loot"), "/api?%74oken=<redacted>");
        assert_eq!(redacted("/api?command=cat&command=%2Fetc"), "/api?command=cat&command=%2Fetc");
        assert!(!shown(r#"{"requestURI":"/a?b=1\u0026access_token=loot"}"#).contains("loot"));
    }

    #[test]
    fn truncates_what_is_too_long_or_too_deep() {
        let deep = format!("{{\"requestObject\":{}1{}}}", "[".repeat(5000), "]".repeat(5000));
        assert!(shown(&deep).contains("<nested too deep>"));
        let long = format!("{{\"userAgent\":\"{}\"}}", "ä".repeat(MAX_SHOWN_LEN));
        let long = shown(&long);
        assert!(long.len() < MAX_SHOWN_LEN + 8 && long.ends_with('…'));
    }
}
