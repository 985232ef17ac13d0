//! Stored alerts as JSON that is safe to print on a terminal.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::hex;
use crate::daemon::store::Listed;
use crate::detection::audit::time;
use crate::text::escape::is_disruptive;

/// Returns the alert as the sinks send it, plus its acknowledgement. An alert whose JSON is damaged is rebuilt from its columns and
/// marked `damaged`.
pub fn object(listed: &Listed) -> Map<String, Value> {
    let alert = &listed.alert;
    let mut object = match serde_json::from_slice(&alert.json) {
        Ok(Value::Object(object)) => object,
        _ => {
            let mut object = Map::new();
            for (name, value) in [
                ("output", alert.message.clone()),
                ("priority", alert.priority.to_string()),
                ("rule", alert.rule.clone()),
                ("time", rfc3339(alert.time)),
                ("id", hex(&alert.id)),
            ] {
                object.insert(name.to_owned(), Value::String(value));
            }
            object.insert("damaged".to_owned(), Value::Bool(true));
            object
        }
    };
    if let Some(ack) = &listed.ack {
        let ack = json!({ "by": ack.by, "at": rfc3339(ack.at), "note": ack.note });
        object.insert("acknowledged".to_owned(), ack);
    }
    object
}

/// Serializes to one line, or indented if `pretty`. Characters that could control a terminal are written as JSON escapes.
pub fn text(object: &Map<String, Value>, pretty: bool) -> anyhow::Result<String> {
    let json = if pretty { serde_json::to_string_pretty(object)? } else { serde_json::to_string(object)? };
    let mut out = String::with_capacity(json.len());
    for letter in json.chars() {
        // The only such character outside of strings is the line break of the indented form; inside strings an escape is equivalent.
        if letter != '\n' && is_disruptive(letter) {
            // All of these are below U+10000. Writing to a String does not fail.
            let _ = write!(out, "\\u{:04x}", u32::from(letter));
        } else {
            out.push(letter);
        }
    }
    Ok(out)
}

fn rfc3339(nanoseconds: i64) -> String {
    let mut text = Vec::new();
    time::write_rfc3339(&mut text, nanoseconds.max(0));
    String::from_utf8(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detection::alert::Priority;
    use crate::detection::alert::StoredAlert;

    fn listed(json: &[u8]) -> Listed {
        let alert = StoredAlert {
            seq: 1,
            id: [0xab; 16],
            time: i64::MIN,
            stored: 0,
            rule: "R\u{9b}".to_owned(),
            priority: Priority::Error,
            actor: String::new(),
            target: String::new(),
            json: json.to_vec(),
            message: "\u{202e}".to_owned(),
        };
        Listed { alert, ack: None }
    }

    #[test]
    fn output_is_valid_json_without_control_characters() {
        let deep = [b"{\"a\":".repeat(1000), b"1".to_vec(), b"}".repeat(1000)].concat();
        for json in [&b"{\"a\":\"\\u001b\xc2\x9b\xe2\x80\xae\"}"[..], b"\xff\0", b"[]", b"", &deep] {
            for pretty in [false, true] {
                let said = text(&object(&listed(json)), pretty).unwrap();
                assert!(!said.chars().any(|letter| is_disruptive(letter) && !(pretty && letter == '\n')));
                assert!(serde_json::from_str::<Value>(&said).unwrap().is_object());
            }
        }
        let said = text(&object(&listed(b"[]")), false).unwrap();
        assert!(said.contains(r#""rule":"R\u009b""#) && said.contains(r#""damaged":true"#), "{said}");
    }
}
