//! What wraps events: any bytes are unwrapped without a panic and within the limit, and an event that is wrapped, in whatever and
//! however deep, makes the alert that it makes by itself.
#![no_main]

use std::sync::LazyLock;

use base64::Engine as _;
use libfuzzer_sys::fuzz_target;
use pullwatch::detection::audit::envelope::Unwrapper;
use pullwatch::detection::detector::{Detector, Options};
use pullwatch::detection::rules::{self, SourceFile};
use serde_json::{Value, json};

static DETECTOR: LazyLock<Detector> = LazyLock::new(|| {
    let text = "- {rule: all, desc: d, condition: ka.verb = get, output: '%ka.user.name', priority: INFO}\n";
    let file = SourceFile { name: "r.yaml".into(), text: text.to_owned() };
    Detector::new(&rules::load(&[file], &rules::Options::default()).rules, Options::default())
});

const LIMIT: usize = 1 << 16;

/// The ids and messages of the alerts in a message.
fn alerts(message: &[u8]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    DETECTOR.session().message(message, &mut |alert| found.push((alert.id(), alert.message().into_owned())));
    found
}

fn gzip(text: &str) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).expect("memory takes all");
    encoder.finish().expect("memory takes all")
}

/// One wrapper more.
fn wrap(text: String, how: u8) -> String {
    let event = || -> Value { serde_json::from_str(&text).expect("it is JSON") };
    let whole = match how % 8 {
        0 => json!({"log": text, "stream": "stdout"}),
        1 => json!({"message": text}),
        2 => json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"stringValue": text}}]}]}]}),
        3 => json!({"records": [{"category": "kube-audit", "properties": {"log": text}}]}),
        4 => json!({"messageType": "DATA_MESSAGE", "logEvents": [{"message": text}]}),
        5 => json!({"data": base64::engine::general_purpose::STANDARD.encode(gzip(
            &json!({"messageType": "DATA_MESSAGE", "logEvents": [{"message": text}]}).to_string()))}),
        6 => json!([event()]),
        _ => json!({"kubernetes": {"audit": event()}}),
    };
    whole.to_string()
}

fuzz_target!(|bytes: &[u8]| {
    let mut unwrapper = Unwrapper::new(LIMIT);
    for plain in [unwrapper.unwrap(bytes), unwrapper.unwrap_message(bytes), unwrapper.unwrap_head(bytes)] {
        // Google's entries become longer: what their fields are called is spelt out.
        assert!(plain.is_none_or(|plain| plain.len() <= 16 * (bytes.len() + LIMIT)));
    }
    let Some((&how, rest)) = bytes.split_first() else { return };
    let name = String::from_utf8_lossy(rest);
    let event = json!({"kind": "Event", "auditID": "a", "stage": "ResponseComplete", "verb": "get", "user": {"username": name}}).to_string();
    let expected = alerts(event.as_bytes());
    assert_eq!(expected.len(), 1);
    let once = wrap(event, how);
    assert_eq!(alerts(once.as_bytes()), expected, "{once}");
    // Shippers wrap what shippers wrapped.
    let twice = wrap(once, (how >> 4) % 2);
    assert_eq!(alerts(twice.as_bytes()), expected, "{twice}");
    assert_eq!(alerts(&gzip(&twice)), expected, "{twice}");
});
