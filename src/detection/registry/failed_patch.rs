//! What the error of a patch quotes of the stored object.
//!
//! Takes an event and returns whether its request is a patch whose error may have handed over the stored object. The apiserver
//! applies a patch, and where the result is not a valid object, the error quotes the result, or the value at the wrong place:
//! `{"data":{"x":5}}` suffices, and so does a JSON patch that copies a value to `/metadata/uid`. The client gets it as the message
//! of a Status with code 422, 400 or 500; the log has the message at every level, in versions before 1.21 only in the response.

use super::RequestInfo;
use crate::detection::audit::event::{Event, Member};
use crate::detection::audit::json::{Raw, Type};

/// Shortest text without punctuation that counts as a value: base64 of the shortest docker configuration with a login has 32 bytes.
/// Words, and the parts of UIDs and of the names of types, are shorter.
const MIN_VALUE: usize = 24;

/// Messages of admission webhooks begin like this. They hold what the webhook answered, or why it could not be called.
const OF_WEBHOOKS: [&[u8]; 3] =
    [b"admission webhook ", b"failed calling webhook ", b"Internal error occurred: failed calling webhook "];

/// What an error quotes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Quoted {
    /// A value, or what is not known since the message is not logged.
    Value,
    /// The object to which the patch led, as JSON. All of it but the data is what the client wanted it to be.
    Object(Vec<u8>),
}

/// Returns what the error of a patch quotes of the stored object; none for other requests and other errors.
pub(super) fn quoted(event: &mut Event<'_>, request: &RequestInfo<'_>) -> Option<Quoted> {
    if request.verb != "patch" || !matches!(request.code, Some(400 | 422 | 500)) {
        return None;
    }
    let message = [Member::ResponseStatus, Member::ResponseObject]
        .into_iter()
        .find_map(|member| event.get(member)?.get("message")?.string());
    let Some(message) = message else { return Some(Quoted::Value) };
    if OF_WEBHOOKS.iter().any(|prefix| message.starts_with(prefix)) {
        return None;
    }
    if let Some(object) = quoted_object(&message) {
        return Some(Quoted::Object(object));
    }
    holds_value(&message).then_some(Quoted::Value)
}

/// Returns the object that a message quotes as `Invalid value: "{\"apiVersion\":…}"`.
fn quoted_object(message: &[u8]) -> Option<Vec<u8>> {
    let start = memchr::memmem::find(message, br#""{\""#)?;
    // Go quotes as JSON does, except for control characters, which JSON of objects does not contain.
    let text = Raw::first(&message[start..]).ok()?.string()?;
    let is_object = Raw::first(&text).is_ok_and(|object| object.kind() == Type::Object);
    is_object.then(|| text.into_owned())
}

/// Returns whether a message may hold a value of the object: JSON, lines of text, or base64.
fn holds_value(message: &[u8]) -> bool {
    let is_of_value = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
    let is_json = message.windows(2).any(|pair| pair[0] == b'{' && pair[1] != b'}');
    is_json
        || message.iter().any(|byte| matches!(byte, b'\\' | b'\n'))
        || message.split(|byte| !is_of_value(byte)).any(|run| run.len() >= MIN_VALUE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(verb: &str, code: u16, status: &str, rest: &str) -> Option<Quoted> {
        let text = format!(
            r#"{{"verb":"{verb}","objectRef":{{"resource":"secrets","name":"x"}},"responseStatus":{{"code":{code}{status}}}{rest}}}"#
        );
        let mut event = Event::new(text.as_bytes());
        let request = RequestInfo::of(&mut event);
        quoted(&mut event, &request)
    }

    fn message(text: &str) -> String {
        format!(r#","message":{}"#, serde_json::to_string(text).unwrap())
    }

    #[test]
    fn an_error_that_quotes_the_stored_object_hands_it_over() {
        let whole = r#" "" is invalid: patch: Invalid value: "{\"data\":{\"a\":\"YQ==\",\"x\":5}}": json: cannot unmarshal"#;
        let object = Some(Quoted::Object(br#"{"data":{"a":"YQ==","x":5}}"#.to_vec()));
        assert_eq!(read("patch", 422, &message(whole), ""), object);
        let status = format!(r#","responseObject":{{"kind":"Status"{}}}"#, message(whole));
        assert_eq!(
            read("patch", 422, "", &status),
            object,
            "older versions log the message in the response alone"
        );
        for (code, text) in [
            (
                422,
                r#"Secret "x" is invalid: metadata.uid: Invalid value: "eyJhdXRocyI6eyJnaGNyLmlvIjp7fX19": field is immutable"#,
            ),
            (400, r#"the name of the object ({"auths":{}}) does not match the name on the URL (x)"#),
            (500, r#"strconv.ParseUint: parsing "eyJhdXRocyI6eyJnaGNyLmlvIjp7fX19": invalid syntax"#),
            (
                422,
                r#"ConfigMap "x" is invalid: metadata.uid: Invalid value: "auths:\n  a: b": field is immutable"#,
            ),
            (422, r#" "" is invalid: patch: Invalid value: "{\"data\":{\"a\":\"YQ=="#),
        ] {
            assert_eq!(read("patch", code, &message(text), ""), Some(Quoted::Value), "{text}");
        }
        assert_eq!(read("patch", 422, "", ""), Some(Quoted::Value), "the message is not logged");
    }

    #[test]
    fn other_errors_hand_over_nothing() {
        for (code, text) in [
            (
                422,
                r#"Secret "x" is invalid: type: Invalid value: "kubernetes.io/dockerconfigjson": field is immutable"#,
            ),
            (
                422,
                r#" "" is invalid: patch: Invalid value: "map[data:map[x:5]]": cannot restore slice from int64"#,
            ),
            (422, "the server rejected our request due to an error in our request"),
            (
                422,
                r#"Secret "x" is invalid: data[.dockerconfigjson]: Invalid value: "<secret contents redacted>": invalid character"#,
            ),
            (
                400,
                "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}",
            ),
            (400, r#"admission webhook "a.b.c" denied the request: {"a":"b"}"#),
            (
                500,
                r#"Internal error occurred: failed calling webhook "a.b.c": Post "https://a.b.svc:443/mutate/externalsecrets/v1?timeout=10s""#,
            ),
        ] {
            assert_eq!(read("patch", code, &message(text), ""), None, "{text}");
        }
        let text = message(r#"{"a":"b"}"#);
        for (verb, code) in [
            ("patch", 200),
            ("patch", 403),
            ("patch", 404),
            ("patch", 409),
            ("patch", 504),
            ("update", 422),
            ("get", 422),
        ] {
            assert_eq!(read(verb, code, &text, ""), None, "{verb} {code}");
        }
    }
}
