//! Writes alerts in ArcSight's Common Event Format, version 0.

use std::fmt::Write as _;
use std::net::IpAddr;

use serde_json::Value;

use crate::daemon::sink::fields::Fields;
use crate::detection::alert::{Priority, StoredAlert, push_hex};
use crate::detection::shorten;
use crate::text::escape::visible;

/// Returns the line of an alert. Values are truncated to the maximum length of their key in the format's dictionary.
pub(crate) fn write(alert: &StoredAlert) -> String {
    let rule = header(&shorten::str(&alert.rule, 512));
    let mut out = format!(
        "CEF:0|pullwatch|pullwatch|{}|{rule}|{rule}|{}|",
        header(env!("CARGO_PKG_VERSION")),
        severity(alert.priority)
    );
    let mut id = Vec::with_capacity(32);
    push_hex(&alert.id, &mut id);
    let when = if alert.time == 0 { alert.stored } else { alert.time };
    // Writing to a String cannot fail.
    let _ = write!(out, "rt={} externalId={} cat=k8s_audit", when / 1_000_000, String::from_utf8_lossy(&id));
    let mut push = |key: &str, value: &str, max_len: usize| {
        if !value.is_empty() {
            let _ = write!(out, " {key}={}", extension(&shorten::str(value, max_len)));
        }
    };
    push("suser", &alert.actor, 1023);
    // Fields of the event, if the alert is valid JSON.
    let json: Value = serde_json::from_slice(&alert.json).unwrap_or_default();
    let event = &json["event"];
    push("act", event["verb"].as_str().unwrap_or_default(), 63);
    push("requestClientApplication", event["userAgent"].as_str().unwrap_or_default(), 1023);
    // The apiserver appends the last address; the client can forge the others.
    let address = event["sourceIPs"].as_array().and_then(|list| list.last()).and_then(Value::as_str);
    match address.map(str::parse) {
        Some(Ok(IpAddr::V4(address))) => push("src", &address.to_string(), 45),
        Some(Ok(IpAddr::V6(address))) => {
            push("c6a2", &address.to_string(), 45);
            push("c6a2Label", "Source IPv6 Address", 45);
        }
        _ => {}
    }
    push("duser", event["impersonatedUser"]["username"].as_str().unwrap_or_default(), 1023);
    push("dvchost", json["hostname"].as_str().unwrap_or_default(), 100);
    push("outcome", outcome(&event["code"]), 63);
    push("request", event["requestURI"].as_str().unwrap_or_default(), 1023);
    push("sproc", program(event["userAgent"].as_str().unwrap_or_default()), 1023);
    push("pullwatchTarget", &alert.target, 1023);
    let fields = Fields::of(alert);
    let registry = &json["registry"];
    let credentials = match shorten::list(&registry["secrets"], 1023) {
        list if list.is_empty() => fields.credential.clone().unwrap_or_default(),
        list => list,
    };
    let custom = [
        ("credentials", credentials),
        ("registries", shorten::list(&registry["hosts"], 1023)),
        ("exposure", fields.exposure.clone().unwrap_or_default()),
        ("namespace", fields.namespace.clone().unwrap_or_default()),
        ("tags", shorten::list(&json["tags"], 1023)),
        ("cluster", fields.cluster.clone().unwrap_or_default()),
    ];
    for (number, (label, value)) in (1..).zip(&custom) {
        if !value.is_empty() {
            push(&format!("cs{number}"), value, 1023);
            push(&format!("cs{number}Label"), label, 1023);
        }
    }
    let count =
        registry["count"].as_u64().or_else(|| registry["secrets"].as_array().map(|list| list.len() as u64));
    if let Some(count) = count {
        push("cn1", &count.to_string(), 20);
        push("cn1Label", "credentials", 1023);
    }
    for (name, value) in fields.labels().filter(|(name, _)| *name != "cluster") {
        push(&label_key(name), value, 1023);
    }
    push("msg", alert.message.trim(), 1023);
    out
}

/// The key of a static label. Keys that are not in the format's dictionary start with the product name.
fn label_key(name: &str) -> String {
    let mut key = String::from("pullwatch");
    for part in name.split('_').filter(|part| !part.is_empty()) {
        let (first, rest) = part.split_at(1);
        key.push_str(&first.to_ascii_uppercase());
        key.push_str(rest);
    }
    key
}

/// Whether a request succeeded, according to the status of its response.
fn outcome(code: &Value) -> &'static str {
    match code.as_u64() {
        Some(100..=399) => "success",
        Some(_) => "failure",
        None => "",
    }
}

/// The program in a user agent: the text before its version.
fn program(agent: &str) -> &str {
    agent.split(['/', ' ']).next().unwrap_or_default()
}

/// CEF severity, from 0 to 10.
fn severity(priority: Priority) -> u8 {
    match priority {
        Priority::Emergency => 10,
        Priority::Alert => 9,
        Priority::Critical => 8,
        Priority::Error => 7,
        Priority::Warning => 6,
        Priority::Notice => 4,
        Priority::Informational => 2,
        Priority::Debug => 0,
    }
}

/// Escapes a header field. `\` and `|` have escapes; line breaks have none, and become spaces.
fn header(text: &str) -> String {
    let text = text.replace(['\n', '\r', '\t'], " ");
    visible(&text).replace('\\', "\\\\").replace('|', "\\|")
}

/// Escapes an extension value. `\`, `=` and line breaks have escapes; other control characters have none, and are made visible.
fn extension(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '=' => out.push_str("\\="),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            letter if letter.is_ascii() && !letter.is_control() => out.push(letter),
            letter => out.push_str(&visible(letter.encode_utf8(&mut [0; 4])).replace('\\', "\\\\")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::sink::tests::alert;
    use crate::text::escape::is_disruptive;
    use proptest::prelude::*;

    #[test]
    fn a_line_has_all_fields() {
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            write(&alert(1)),
            format!(
                "CEF:0|pullwatch|pullwatch|{version}|Secret Read|Secret Read|6|rt=1795405532270 \
                 externalId=00000000000000000000000000000001 cat=k8s_audit suser=alice act=get \
                 requestClientApplication=kubectl src=10.0.0.1 sproc=kubectl pullwatchTarget=secrets a/b msg=alice read b"
            )
        );
    }

    proptest! {
        #[test]
        fn no_text_can_end_its_field(text in any::<String>()) {
            for (written, ends) in [(header(&text), '|'), (extension(&text), '=')] {
                let mut escaped = false;
                for letter in written.chars() {
                    prop_assert!(!is_disruptive(letter) && (escaped || letter != ends));
                    escaped = !escaped && letter == '\\';
                }
                prop_assert!(!escaped);
            }
        }
    }

    #[test]
    fn escapes_field_separators() {
        assert_eq!(header("a|b\\c\nd=e\0"), "a\\|b\\\\c d=e\\\\u{0}");
        assert_eq!(extension("a|b\\c\nd=e\r\u{2028}\0"), "a|b\\\\c\\nd\\=e\\r\\\\u{2028}\\\\u{0}");
    }
}
