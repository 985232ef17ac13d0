//! Wrappers: any bytes are unwrapped without a panic and within the limit; an event has the same alert in any wrapper, at any
//! depth; and a line that is split into pieces is one event wherever it is split, whatever a client wrote into it.
#![no_main]

use std::sync::LazyLock;

use base64::Engine as _;
use libfuzzer_sys::fuzz_target;
use pullwatch::internals::detection::audit::envelope::Unwrapper;
use pullwatch::internals::detection::detector::{Detector, Options};
use pullwatch::internals::detection::rules::{self, SourceFile};
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

/// Wraps a text once more.
fn wrap(text: String, how: u8) -> String {
    let event = || -> Value { serde_json::from_str(&text).expect("it is JSON") };
    let whole = match how % 11 {
        0 => json!({"log": text, "stream": "stdout"}),
        1 => json!({"message": text}),
        2 => json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"stringValue": text}}]}]}]}),
        3 => json!({"records": [{"category": "kube-audit", "properties": {"log": text}}]}),
        4 => json!({"messageType": "DATA_MESSAGE", "logEvents": [{"message": text}]}),
        5 => json!({"data": base64::engine::general_purpose::STANDARD.encode(gzip(
            &json!({"messageType": "DATA_MESSAGE", "logEvents": [{"message": text}]}).to_string()))}),
        6 => json!([event()]),
        7 => json!({"fields": ["_time", "_raw"], "rows": [["2026-11-23T03:46:20Z", text]]}),
        8 => json!({"tables": [{"columns": [{"name": "log_s"}, {"name": "Category"}], "rows": [[text, "kube-audit"]]}]}),
        9 => json!({"schema": {"fields": [{"name": "Line"}]}, "data": {"values": [[text]]}}),
        _ => json!({"kubernetes": {"audit": event()}}),
    };
    whole.to_string()
}

fuzz_target!(|bytes: &[u8]| {
    let mut unwrapper = Unwrapper::new(LIMIT);
    for plain in [unwrapper.unwrap(bytes), unwrapper.unwrap_message(bytes), unwrapper.unwrap_head(bytes)] {
        // Entries of Google become longer, since member names are written out.
        assert!(plain.is_none_or(|plain| plain.bytes().len() <= 16 * (bytes.len() + LIMIT)));
    }
    let Some((&how, rest)) = bytes.split_first() else { return };
    let name = String::from_utf8_lossy(rest);
    let event = json!({"kind": "Event", "auditID": "a", "stage": "ResponseComplete", "verb": "get", "user": {"username": name}}).to_string();
    let expected = alerts(event.as_bytes());
    assert_eq!(expected.len(), 1);
    let once = wrap(event, how);
    assert_eq!(alerts(once.as_bytes()), expected, "{once}");
    // Shippers wrap records of other shippers.
    let twice = wrap(once, (how >> 4) % 2);
    assert_eq!(alerts(twice.as_bytes()), expected, "{twice}");
    assert_eq!(alerts(&gzip(&twice)), expected, "{twice}");
    is_one_event_in_pieces(how, rest);
});

/// Splits an event with another event nested into its body, and checks that the nested one is not read.
fn is_one_event_in_pieces(how: u8, rest: &[u8]) {
    let nested = json!({"kind": "Event", "apiVersion": "audit.k8s.io/v1", "auditID": "n", "verb": "get", "user": {"username": "nested"}});
    let body = json!([{"op": "add", "path": "/x", "value": nested}, String::from_utf8_lossy(rest), nested]);
    let outer = json!({"kind": "Event", "apiVersion": "audit.k8s.io/v1", "auditID": "o", "requestObject": body, "user": {"username": "outer"}, "verb": "get"}).to_string();
    let mut ends: Vec<usize> =
        rest.iter().map(|byte| outer.floor_char_boundary(outer.len() * usize::from(*byte) / 256)).collect();
    ends.push(outer.len());
    ends.sort_unstable();
    let (mut log, mut start) = (String::new(), 0);
    for end in ends.iter().copied() {
        let piece = &outer[start..end];
        let is_last = end == outer.len();
        start = end;
        let tag = if is_last { "F" } else { "P" };
        let record = match how % 3 {
            0 => format!("2026-11-23T03:46:20.8Z stdout {tag} {piece}"),
            1 => json!({"time": "t", "stream": "stdout", "logtag": tag, "log": piece}).to_string(),
            _ => json!({"log": format!("2026-11-23T03:46:20.8Z stdout {tag} {piece}")}).to_string(),
        };
        log.push_str(&record);
        log.push('\n');
        if is_last {
            break;
        }
    }
    let found = alerts(log.as_bytes());
    assert!(found.len() == 1 && found[0].1.contains("outer"), "{found:?}: {log}");
}
