//! Input that is designed to be misread: forged records, truncated events, and text that takes long to read.

use std::fmt::Write as _;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Detector, Options, Stats};
use crate::detection::alert::Priority;
use crate::detection::audit::envelope::LineTracker;
use crate::detection::audit::steps;
use crate::detection::engine::alert::Alert;
use crate::detection::engine::prefilter::Guards;
use crate::detection::rules;

fn detector(max_event_size: usize) -> Detector {
    let loaded = rules::load(&crate::shipped::files(), &rules::Options::default());
    Detector::new(&loaded.rules, Options { max_event_size, ..Options::default() })
}

/// Skipping depends on this: events of the stage RequestReceived are nearly half of a log whose policy does not omit them.
#[test]
fn no_shipped_rule_concerns_requests_that_were_only_received() {
    assert!(detector(1 << 20).ignores_received);
    let rule = "- {rule: r, desc: d, priority: INFO, output: x, condition: 'ka.stage = RequestReceived and ka.verb = get'}";
    let files = [rules::SourceFile { name: "r".into(), text: rule.to_owned() }];
    let detector = Detector::new(&rules::load(&files, &rules::Options::default()).rules, Options::default());
    assert!(!detector.ignores_received);
    let received = event("alice", "/api/v1/secrets", "")
        .replace("ResponseComplete", "RequestReceived")
        .replace(r#""auditID":"a""#, r#""auditID":"4d5f8e2a-7c1b-4a90-9d3e-0123456789ab""#)
        .replace(r#""verb":"list""#, r#""verb":"get""#);
    assert_eq!(rules_of(&evaluate(&detector, received.as_bytes()).0), ["r"]);
}

/// Events are only skipped by their stage if their form is not suspicious, and each is counted.
#[test]
fn skipped_events_are_counted_and_anomalies_among_them_reported() {
    let received = received("alice", "/api/v1/secrets");
    let long = received.replace("curl", &"A".repeat(5000));
    let cut = &received[..received.find(r#","objectRef""#).unwrap()];
    let torn = format!("{}{}", &received[..300], event("mallory", "/api/v1/secrets", ""));
    let (alerts, stats) =
        evaluate(&detector(1 << 20), format!("{received}\n{long}\n{cut}\n{torn}\n{received}\n").as_bytes());
    let rules = rules_of(&alerts);
    for expected in
        ["Oversized Request Field In Audit Event", "Audit Event Cut Before Its Target", "Secrets Listed"]
    {
        assert!(rules.contains(&expected), "{expected}: {rules:?}");
    }
    assert_eq!(stats.events, 6);
}

/// Whether a rule makes alerts does not change what correlations count: only the throttle of a rule without alerts limits that.
#[test]
fn correlations_count_throttled_matches_of_rules_below_the_minimum_priority() {
    let text = "- {rule: r, desc: d, priority: INFO, output: x, condition: ka.verb = list, throttle: {per: [ka.user.name], every: 1h}}
- {correlation: c, desc: d, priority: WARNING, output: x, type: event_count, rules: [r], group-by: [ka.user.name], timespan: 10m, condition: {gte: 3}}";
    let files = |text: &str| [rules::SourceFile { name: "r".into(), text: text.to_owned() }];
    let read = event("mallory", "/api/v1/secrets", "");
    let three = ["1", "2", "3"].map(|id| read.replace(r#""auditID":"a""#, &format!(r#""auditID":"{id}""#)));
    let three = three.join("\n");
    let alerts = |text: &str, minimum| {
        let loaded = rules::load(&files(text), &rules::Options::default());
        let detector = Detector::new(&loaded.rules, Options { minimum, ..Options::default() });
        let (alerts, stats) = evaluate(&detector, three.as_bytes());
        (rules_of(&alerts).join(" "), stats.throttled.values().sum::<u64>())
    };
    assert_eq!(alerts(text, Priority::Debug).0, "r c");
    assert_eq!(alerts(text, Priority::Warning), ("c".to_owned(), 0));
    let silent = text.replace("output: x, condition: ka", "output: x, alert: false, condition: ka");
    assert_eq!(alerts(&silent, Priority::Debug).0, "");
}

/// A correlation that is completed repeatedly, as by a client that retries, is reported once per combination of values, including the
/// values of its window. The rules that feed it are still counted.
#[test]
fn throttles_limit_the_alerts_of_correlations() {
    let text = "- {rule: r, desc: d, priority: INFO, output: x, alert: false, condition: ka.verb = list}
- {correlation: c, desc: d, priority: WARNING, output: x, type: value_count, rules: [r], group-by: [ka.user.name], timespan: 1m, condition: {field: ka.auditid, gte: 2}, throttle: {per: [ka.user.name, correlation.values], every: 1h}}
- {correlation: e, desc: d, priority: WARNING, output: x, type: event_count, rules: [c], group-by: [ka.user.name], timespan: 1h, condition: {gte: 4}}";
    let files = [rules::SourceFile { name: "r".into(), text: text.to_owned() }];
    let loaded = rules::load(&files, &rules::Options::default());
    let detector = Detector::new(&loaded.rules, Options::default());
    let read = |id: &str, time: &str| {
        event("mallory", "/api/v1/secrets", "")
            .replace(r#""auditID":"a""#, &format!(r#""auditID":"{id}""#))
            .replace("2026-11-23T04:00:01", &format!("2026-11-23T{time}"))
    };
    let lines = [
        ("1", "10:00:00"),
        ("2", "10:00:01"),
        // The same two values again, twice, and two others.
        ("1", "10:20:00"),
        ("2", "10:20:01"),
        ("1", "10:40:00"),
        ("2", "10:40:01"),
        ("3", "10:50:00"),
        ("4", "10:50:01"),
        // An hour after the first.
        ("1", "11:10:00"),
        ("2", "11:10:01"),
    ]
    .map(|(id, time)| read(id, time));
    let (alerts, stats) = evaluate(&detector, lines.join("\n").as_bytes());
    let found: Vec<(&str, u64)> = alerts
        .iter()
        .map(|alert| (alert["rule"].as_str().unwrap(), alert["throttled"].as_u64().unwrap_or(0)))
        .collect();
    assert_eq!(found, [("c", 0), ("c", 0), ("e", 0), ("c", 2)]);
    assert_eq!(stats.throttled.values().sum::<u64>(), 0);
    let (alerts, stats) = evaluate(&detector, lines[..4].join("\n").as_bytes());
    assert_eq!((rules_of(&alerts).join(" "), stats.throttled.values().sum::<u64>()), ("c".to_owned(), 1));
}

/// The guards of rules only save work: the alerts are the same without them, for attacks in every spelling.
#[test]
fn guards_of_rules_exclude_nothing_that_matches() {
    let mut text = Vec::new();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/evasion");
    for entry in std::fs::read_dir(folder).unwrap() {
        text.extend(std::fs::read(entry.unwrap().path()).unwrap());
        text.push(b'\n');
    }
    // An annotation whose key is written with escapes, and one that is not there.
    let violated = |key: &str| {
        event("mallory", "/api/v1/namespaces/a/pods", "")
            .replace(r#""verb":"list""#, r#""verb":"create""#)
            .replace(r#""resource":"secrets""#, r#""resource":"pods","namespace":"a""#)
            .replace(r#""annotations":{"#, &format!(r#""annotations":{{"{key}":"[]","#))
    };
    let key = "validation.policy.admission.k8s.io/validation_failure";
    for spelled in [
        key.to_owned(),
        key.replace('/', "\\/"),
        key.replace("policy", "\\u0070olicy"),
        key.replace("policy", "other"),
    ] {
        text.extend(violated(&spelled).bytes());
        text.push(b'\n');
    }
    let guarded = detector(1 << 20);
    let excludes = |text: &str| {
        (0..guarded.plan.rules.len()).any(|rule| !guarded.guards.over(text.as_bytes()).admits(rule))
    };
    // Escaped quotes are in most events and spell no letter; escaped letters may, also in JSON inside of a string.
    assert!(excludes("{}") && excludes(r#"{"a":"\"b\" \\ \n"}"#));
    assert!(!excludes(r#"{"a":"\u0062"}"#) && !excludes(r#"{"a":"{\"b\":\"\\u0062\"}"}"#));
    let mut unguarded = detector(1 << 20);
    unguarded.guards = Guards::none();
    let alerts = evaluate(&guarded, &text).0;
    assert_eq!(alerts, evaluate(&unguarded, &text).0);
    assert_eq!(alerts.iter().filter(|alert| alert["rule"] == "Admission Policy Violated").count(), 3);
}

/// The rules that an event can match are derived once for all events with the same stage, verb and resource; this must not change how an
/// event is counted.
#[test]
fn equal_events_are_counted_alike() {
    let rule = "- {rule: r, desc: d, priority: INFO, output: x, condition: registry.exposure = payload}";
    let files = [rules::SourceFile { name: "r".into(), text: rule.to_owned() }];
    let detector = Detector::new(&rules::load(&files, &rules::Options::default()).rules, Options::default());
    let cut = received("alice", "/api/v1/secrets").replace("4d5f", "");
    let cut = cut.replace(r#"},"requestReceived"#, r#"},"responseStatus":{"metadata":{}"#);
    let cut = &cut[..cut.find("Timestamp").unwrap()];
    let (_, once) = evaluate(&detector, format!("{cut}\n").as_bytes());
    let (_, twice) = evaluate(&detector, format!("{cut}\n{cut}\n").as_bytes());
    let counts = |stats: &Stats| (stats.events, stats.truncated.values().sum::<u64>());
    let (events, truncated) = counts(&once);
    assert_eq!(counts(&twice), (2 * events, 2 * truncated));
}

/// If a part of a log is lost, the start of an event of the stage RequestReceived may be followed by the end of an answered one.
#[test]
fn an_answered_event_is_not_skipped_with_one_that_was_only_received() {
    let detector = detector(1 << 20);
    let received = received("alice", "/api/v1/pods");
    let answered = event("mallory", "/api/v1/secrets", "");
    let at = answered.find(r#","annotations""#).unwrap();
    for answered in [answered.clone(), format!("{}}}", &answered[..at])] {
        let head = &received[..received.find(r#","sourceIPs""#).unwrap() - 5];
        let tail = &answered[answered.find(r#"},"responseStatus""#).unwrap()..];
        let (_, stats) = evaluate(&detector, format!("{head}{tail}\n").as_bytes());
        assert_eq!(
            (stats.events, stats.malformed.len() + stats.truncated.len()),
            (stats.truncated.len() as u64, 1)
        );
    }
}

/// The alerts for a text, and the counts.
fn evaluate(detector: &Detector, text: &[u8]) -> (Vec<Value>, Stats) {
    let mut session = detector.session();
    let mut alerts = Vec::new();
    let mut on_alert = |alert: &Alert<'_>| {
        let mut json = Vec::new();
        alert.write_json(&mut json);
        alerts.push(serde_json::from_slice(&json).unwrap());
    };
    session.chunk(text, &mut on_alert);
    session.finish(&mut on_alert);
    let stats = session.take_stats();
    (alerts, stats)
}

fn rules_of(alerts: &[Value]) -> Vec<&str> {
    alerts.iter().map(|alert| alert["rule"].as_str().unwrap()).collect()
}

/// A list of secrets in the format of the apiserver, with `body` as its request object.
fn event(user: &str, uri: &str, body: &str) -> String {
    let body = if body.is_empty() { String::new() } else { format!(r#","requestObject":{body}"#) };
    format!(
        r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Request","auditID":"a","stage":"ResponseComplete","requestURI":"{uri}","verb":"list","user":{{"username":"{user}","groups":["contractors"]}},"sourceIPs":["10.0.0.66"],"userAgent":"curl","objectRef":{{"resource":"secrets","apiVersion":"v1"}},"responseStatus":{{"metadata":{{}},"code":200}}{body},"requestReceivedTimestamp":"2026-11-23T04:00:01.000685Z","stageTimestamp":"2026-11-23T04:00:01.000822Z","annotations":{{"authorization.k8s.io/decision":"allow"}}}}"#
    )
}

/// The same event when the request is received.
fn received(user: &str, uri: &str) -> String {
    let event = event(user, uri, "")
        .replace("ResponseComplete", "RequestReceived")
        .replace(r#""auditID":"a""#, r#""auditID":"4d5f8e2a-7c1b-4a90-9d3e-0123456789ab""#)
        .replace(r#","responseStatus":{"metadata":{},"code":200}"#, "")
        .replace("01.000822Z", "01.000685Z");
    format!("{}}}", &event[..event.find(r#","annotations""#).unwrap()])
}

/// A harmless patch by mallory that contains a complete event of alice, with the start and end of that event.
fn patch() -> (String, usize, usize) {
    let nested = event("alice", "/api/v1/secrets", "");
    let filler = "A".repeat(2000);
    let body = format!(
        r#"[{{"op":"add","path":"/x","value":"{filler}"}},{{"op":"add","path":"/y","value":{nested}}}]"#
    );
    let patch = event("mallory", "/apis/x/v1/foos", &body)
        .replace(r#""resource":"secrets","apiVersion":"v1"}},"responseStatus""#, "X");
    let patch = patch.replacen(r#""verb":"list""#, r#""verb":"patch""#, 1).replacen(
        r#"{"resource":"secrets","apiVersion":"v1"}"#,
        r#"{"resource":"foos","apiGroup":"x","apiVersion":"v1"}"#,
        1,
    );
    let start = patch.find(&nested).unwrap();
    (patch, start, start + nested.len())
}

fn users(alerts: &[Value]) -> Vec<&str> {
    alerts.iter().map(|alert| alert["event"]["user"]["username"].as_str().unwrap_or_default()).collect()
}

/// Length of the longest prefix that ends with a complete line, with no line of any stream unfinished.
fn complete_prefix(text: &str) -> usize {
    let mut tracker = LineTracker::default();
    let (mut end, mut closed) = (0, 0);
    for line in text.split_inclusive('\n') {
        end += line.len();
        tracker.push(line.trim_end_matches('\n').as_bytes());
        if !tracker.is_open() {
            closed = end;
        }
    }
    closed
}

#[test]
fn reads_no_event_that_a_client_nested_into_another() {
    let detector = detector(1 << 20);
    let (patch, start, end) = patch();
    let own = event("bob", "/api/v1/secrets", "");
    let docker = |pieces: &[&str]| -> String {
        let last = pieces.len() - 1;
        pieces
            .iter()
            .enumerate()
            .map(|(at, piece)| {
                let log = if at == last { format!("{piece}\n") } else { (*piece).to_owned() };
                json!({"log": log, "stream": "stdout", "time": "2026-11-23T04:00:00Z"}).to_string() + "\n"
            })
            .collect()
    };
    let cri = |pieces: &[&str]| -> String {
        let last = pieces.len() - 1;
        let line = |(at, piece): (usize, &&str)| {
            let tag = if at == last { "F" } else { "P" };
            format!("2026-11-23T03:46:20.873000000Z stdout {tag} {piece}\n")
        };
        pieces.iter().enumerate().map(line).collect::<Vec<_>>().concat()
    };
    let in_log = |lines: String| -> String {
        lines
            .lines()
            .map(|line| json!({"log": line, "kubernetes": {"pod_name": "apiserver"}}).to_string() + "\n")
            .collect()
    };
    let tagged = |pieces: &[&str]| -> String {
        cri(pieces)
            .lines()
            .map(|line| {
                let parts: Vec<&str> = line.splitn(4, ' ').collect();
                json!({"time": parts[0], "stream": parts[1], "logtag": parts[2], "message": parts[3]})
                    .to_string()
                    + "\n"
            })
            .collect()
    };
    let pieces = [&patch[..start], &patch[start..end], &patch[end..]];
    let two = [&patch[..start], &patch[start..]];
    for (name, text) in [
        ("docker", docker(&pieces)),
        ("docker, two pieces", docker(&two)),
        ("CRI", cri(&pieces)),
        ("CRI in a shipper's record", in_log(cri(&pieces))),
        ("CRI, parsed by a shipper", tagged(&pieces)),
        ("lines", pieces.join("\n") + "\n"),
        ("two lines", two.join("\n") + "\n"),
        ("one line", patch.clone() + "\n"),
        ("one line that is cut in the event", patch[..end - 10].to_owned() + "\n"),
        ("one line that is cut behind the event", patch[..end].to_owned() + "\n"),
    ] {
        let (alerts, stats) = evaluate(&detector, text.as_bytes());
        assert!(!users(&alerts).contains(&"alice"), "{name}: {:?}", rules_of(&alerts));
        assert_eq!(stats.events, 1, "{name}: {stats:?}");
        // The record after it is read.
        let own = if name.starts_with("CRI in") {
            in_log(cri(&[&own]))
        } else if name.starts_with("CRI,") {
            tagged(&[&own])
        } else if name == "CRI" {
            cri(&[&own])
        } else {
            own.clone() + "\n"
        };
        let (alerts, stats) = evaluate(&detector, (text + &own).as_bytes());
        assert!(!users(&alerts).contains(&"alice") && users(&alerts).contains(&"bob"), "{name}: {alerts:?}");
        assert_eq!(stats.events, 2, "{name}: {stats:?}");
    }
    // Longer than the limit.
    let limited = self::detector(start + 100);
    let (alerts, stats) = evaluate(&limited, (cri(&pieces) + &docker(&pieces) + &patch).as_bytes());
    assert!(!users(&alerts).contains(&"alice"), "{alerts:?}");
    assert_eq!(stats.events, 3, "{stats:?}");
}

#[test]
fn interleaved_streams_are_joined_by_stream() {
    let detector = detector(1 << 20);
    let (patch, start, end) = patch();
    let line =
        |stream: &str, tag: &str, text: &str| format!("2026-11-23T03:46:20.8Z {stream} {tag} {text}\n");
    let text = [
        line("stdout", "P", &patch[..start]),
        line("stderr", "F", "I1123 04:00:00 log.go:1] something"),
        line("stderr", "P", "E1123 04:00:00 log.go:1] a long line of another log "),
        line("stdout", "P", &patch[start..end]),
        line("stderr", "F", &event("alice", "/api/v1/secrets", "")),
        line("stdout", "F", &patch[end..]),
        line("stdout", "F", &event("bob", "/api/v1/secrets", "")),
    ];
    let (alerts, stats) = evaluate(&detector, text.concat().as_bytes());
    assert!(!users(&alerts).contains(&"alice") && users(&alerts).contains(&"bob"), "{alerts:?}");
    assert_eq!(stats.events, 2);
    // A buffer is cut where no line is open.
    let ends: Vec<usize> = text
        .iter()
        .scan(0, |end, line| {
            *end += line.len();
            Some(*end)
        })
        .collect();
    let whole = text.concat();
    let cuts: Vec<usize> = ends.iter().map(|end| complete_prefix(&whole[..*end])).collect();
    assert_eq!(cuts, [0, 0, 0, 0, 0, ends[5], ends[6]]);
}

#[test]
fn an_event_after_an_interruption_is_read() {
    let detector = detector(1 << 20);
    let own = event("bob", "/api/v1/secrets", "");
    let other = event("carol", "/api/v1/secrets", "");
    for end in (60..own.len()).step_by(7) {
        // Interrupted by the next event, or by the end of a line from a shipper that truncates.
        for text in [
            format!("{}{other}\n", &own[..end]),
            format!("{}\n{other}\n", &own[..end]),
            json!({"message": &own[..end]}).to_string() + "\n" + &json!({"message": other}).to_string(),
        ] {
            let is_value = own[..end].ends_with([':', '[']) && !own[..end].ends_with("T04:");
            let (alerts, stats) = evaluate(&detector, text.as_bytes());
            assert!(users(&alerts).contains(&"carol") || is_value, "{text}");
            assert!(stats.events == 2 || is_value, "{text}: {stats:?}");
        }
    }
}

#[test]
fn records_that_a_shipper_truncated_do_not_hide_each_other() {
    let detector = detector(1 << 20);
    let own = |user: &str| event(user, "/api/v1/secrets", "");
    let until = |text: &str, end: &str| {
        json!({"message": &text[..text.find(end).unwrap() + end.len()]}).to_string() + "\n"
    };
    // The first one ends where, according to the grammar, the second one could be a value in it.
    let log = until(&own("alice"), "\"responseStatus\":")
        + &until(&own("bob"), "\"code\":2")
        + &until(&own("carol"), "}}");
    let (alerts, stats) = evaluate(&detector, log.as_bytes());
    assert_eq!(stats.events, 3, "{stats:?}");
    for user in ["alice", "bob", "carol"] {
        assert!(users(&alerts).contains(&user), "{user}: {:?}", users(&alerts));
    }
}

#[test]
fn an_event_that_is_cut_anywhere_is_reported() {
    let detector = detector(1 << 20);
    let own = event("mallory", "/api/v1/namespaces/production/secrets?limit=500", "");
    let object = own.find(r#""objectRef""#).unwrap();
    for end in own.find("auditID").unwrap()..own.len() {
        let (alerts, stats) = evaluate(&detector, &own.as_bytes()[..end]);
        assert_eq!(stats.events, 1, "{}: {stats:?}", &own[..end]);
        assert!(stats.malformed.is_empty(), "{}: {stats:?}", &own[..end]);
        if end < object {
            assert!(rules_of(&alerts).contains(&"Audit Event Cut Before Its Target"), "{}", &own[..end]);
        }
    }
    let (alerts, _) = evaluate(&detector, &own.as_bytes()[..object]);
    let cut = alerts.iter().find(|alert| alert["rule"] == "Audit Event Cut Before Its Target").unwrap();
    assert_eq!(cut["event"]["objectRef"]["resource"], "secrets");
    assert_eq!(cut["event"]["objectRef"]["namespace"], "production");
}

#[test]
fn a_field_that_a_client_filled_is_reported() {
    let detector = detector(1 << 20);
    let long = "x".repeat(20_000);
    let own = event("mallory", "/api/v1/secrets", "");
    for (field, text) in [
        ("auditID", own.replace(r#""auditID":"a""#, &format!(r#""auditID":"{long}""#))),
        ("requestURI", own.replace("/api/v1/secrets", &format!("/api/v1/secrets?x={long}"))),
        ("sourceIPs", own.replace("10.0.0.66", &long)),
        ("userAgent", own.replace("curl", &long)),
        (
            "impersonatedUser",
            own.replace(
                r#""sourceIPs""#,
                &format!(r#""impersonatedUser":{{"username":"u","extra":{{"x":["{long}"]}}}},"sourceIPs""#),
            ),
        ),
    ] {
        // The same for a resource that no other rule matches.
        for text in [text.clone(), text.replace("secrets", "endpoints")] {
            let (alerts, _) = evaluate(&detector, text.as_bytes());
            assert!(
                rules_of(&alerts).contains(&"Oversized Request Field In Audit Event"),
                "{field}: {:?}",
                rules_of(&alerts)
            );
            // Regardless of whether the line is cut within the field or behind it.
            for end in [3000, 12_000, 20_000] {
                let (alerts, stats) = evaluate(&detector, &text.as_bytes()[..end]);
                assert!(!alerts.is_empty(), "{field}, {end}: {stats:?}");
            }
        }
    }
    let (alerts, _) = evaluate(&detector, own.as_bytes());
    assert!(!rules_of(&alerts).contains(&"Oversized Request Field In Audit Event"));
}

#[test]
fn objects_that_a_producer_wrote_as_text_are_read_and_redacted() {
    let detector = detector(1 << 20);
    let secret = r#"{"kind":"Secret","metadata":{"name":"x","namespace":"p"},"data":{".dockerconfigjson":"eyJhdXRocyI6eyJnaGNyLmlvIjp7InVzZXJuYW1lIjoiYm90In19fQ=="},"type":"kubernetes.io/dockerconfigjson"}"#;
    let list = event("mallory", "/api/v1/secrets", "").replace(
        r#""requestReceived"#,
        &format!(
            r#""responseObject":{},"requestReceived"#,
            json!(format!(r#"{{"kind":"SecretList","items":[{secret}]}}"#))
        ),
    );
    let sorted = list.replacen(r#""kind":"Event","apiVersion":"audit.k8s.io/v1","#, "", 1);
    for text in [list.clone(), sorted, json!({"log": list}).to_string()] {
        let (alerts, _) = evaluate(&detector, text.as_bytes());
        let read = alerts
            .iter()
            .find(|alert| alert["registry"]["exposure"] == "payload")
            .unwrap_or_else(|| panic!("{text}"));
        assert_eq!(read["registry"]["secrets"], json!(["p/x"]));
        assert!(!json!(alerts).to_string().contains("eyJhdXRo"), "{alerts:?}");
    }
}

/// A name, and an input whose size is given by a number.
type Shape = (&'static str, Box<dyn Fn(usize) -> String>);

/// Inputs whose size is given by a number.
fn shapes() -> Vec<Shape> {
    const START: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1""#;
    let escaped = |text: String| json!({"log": text}).to_string();
    let repeated = |unit: &'static str| move |n: usize| unit.repeat(n);
    vec![
        ("lists over lines", Box::new(repeated("[\n"))),
        ("lists that close", Box::new(|n| "[1,\n".repeat(n) + "1" + &"]".repeat(n))),
        ("objects over lines", Box::new(repeated("{\n"))),
        ("members without values", Box::new(repeated("{\"a\":\n"))),
        ("members of lists", Box::new(repeated("{\"a\":[\n"))),
        ("unclosed starts", Box::new(repeated(START))),
        ("unclosed starts on lines", Box::new(|n| format!("{START}\n").repeat(n))),
        ("unclosed starts and blanks", Box::new(|n| START.repeat(n) + &" ".repeat(n * 40))),
        ("lists in a record", Box::new(move |n| escaped("[\n".repeat(n)))),
        ("starts in a record", Box::new(move |n| escaped(START.repeat(n)))),
        ("records in a record", Box::new(move |n| escaped("{\"log\":\"x\"}\n".repeat(n)))),
        ("records in two records", Box::new(move |n| escaped(escaped("[\n".repeat(n))))),
        ("wrappers in wrappers", Box::new(|n| "{\"log\":".repeat(n))),
        ("lists of wrappers", Box::new(|n| format!("[{}", "{\"log\":\"x\"},".repeat(n)))),
        (
            "a cut patch",
            Box::new(|n| format!("{START},\"requestObject\":[{}", format!("{START}}},").repeat(n))),
        ),
        (
            "a cut patch of unclosed starts",
            Box::new(|n| format!("{START},\"requestObject\":[{}", format!("{START},\"x\":[").repeat(n))),
        ),
        (
            "pieces of a stream",
            Box::new(|n| "{\"log\":\"{\\\"a\\\":\",\"stream\":\"stdout\",\"time\":\"t\"}\n".repeat(n)),
        ),
        ("pieces without an end", Box::new(|n| "2026-11-23T03:46:20.8Z stdout P {\"a\":\n".repeat(n))),
        (
            "streams",
            Box::new(|n| {
                (0..n).fold(String::new(), |mut text, at| {
                    let _ = writeln!(text, "{{\"log\":\"{{\\\"a\\\":\",\"stream\":\"{at}\"}}");
                    text
                })
            }),
        ),
        (
            "rows of a table",
            Box::new(|n| json!({"fields": ["a".repeat(n), "_raw"], "rows": vec![["", "{}"]; n]}).to_string()),
        ),
        (
            "columns of a table",
            Box::new(|n| {
                let columns: Vec<Vec<&str>> =
                    (0..n).map(|at| if at == 0 { vec!["{}"; n] } else { vec![] }).collect();
                json!({"fields": vec!["_raw"; n], "columns": columns}).to_string()
            }),
        ),
        ("unclosed tables", Box::new(repeated("{\"fields\":[\"_raw\"],\"rows\":[[\n"))),
        (
            "lines above unclosed records",
            Box::new(repeated("2026-11-23T03:46:20.8Z kube-apiserver-audit-1 \n{\"a\":\n")),
        ),
        (
            "lines above closed records",
            Box::new(repeated("2026-11-23T03:46:20.8Z kube-apiserver-audit-1 \n{\n\"a\":1\n}\n")),
        ),
        ("a header and its lines", Box::new(|n| format!("a,message\n{}", "b,\"{\"\"a\"\":\"\n".repeat(n)))),
        ("columns of a header", Box::new(|n| format!("{}message\n{}", "a,".repeat(n), ",".repeat(n)))),
        ("labels of a line", Box::new(|n| format!("2026-11-23T03:46:20Z {{{}", "a=\"\\\"\",".repeat(n)))),
        ("lone surrogates", Box::new(|n| format!("{START},\"a\":\"{}\"}}", "\\ud800".repeat(n)))),
        ("backslashes", Box::new(|n| format!("{{\"log\":\"{}", "\\".repeat(n * 8)))),
        (
            "members",
            Box::new(|n| format!("{START},\"requestObject\":{{{}\"a\":1}}}}", "\"value\":1,".repeat(n))),
        ),
        (
            "parameters",
            Box::new(|n| {
                event("m", &format!("/api/v1/secrets?{}", "fieldSelector=type%3Da&;".repeat(n)), "")
            }),
        ),
        (
            "an uri of slashes",
            Box::new(|n| event("m", &format!("/api/v1/{}", "secrets/".repeat(n)), "")[..n * 8].to_owned()),
        ),
        (
            "paths of the host and their mounts",
            Box::new(|n| {
                let volume = |at: usize| json!({"name": format!("v{at}"), "hostPath": {"path": format!("/usr/bin/{at}")}});
                let mount =
                    |at: usize| json!({"name": format!("v{at}"), "mountPath": "/x", "readOnly": true});
                let [volumes, mounts] = [(0..n).map(volume).collect::<Vec<_>>(), (0..n).map(mount).collect()];
                json!({"kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Request", "auditID": "m", "stage": "ResponseComplete",
                    "requestURI": "/api/v1/namespaces/p/pods", "verb": "create", "user": {"username": "m"},
                    "objectRef": {"resource": "pods", "namespace": "p", "name": "p", "apiVersion": "v1"}, "responseStatus": {"code": 201},
                    "requestObject": {"kind": "Pod", "apiVersion": "v1", "spec": {"volumes": volumes, "containers": [{"name": "c", "volumeMounts": mounts}]}}})
                .to_string()
            }),
        ),
        ("marked cuts behind separators", Box::new(|n| "\x1e{\"a\":{\"b\":1}...\n".repeat(n))),
        ("deep values", Box::new(|n| event("m", "/api/v1/secrets", &("[".repeat(n) + &"]".repeat(n))))),
        (
            "any values",
            Box::new(|n| {
                json!({"body": {"kvlistValue": {"values": vec![json!({"key": "a", "value": {"stringValue": "b"}}); n]}}}).to_string()
            }),
        ),
    ]
}

/// Work may double with the input, with some tolerance.
#[test]
fn reading_takes_time_in_proportion_to_the_input() {
    let shipped = detector(1 << 24);
    // Shows the whole event, redacted.
    let all = "- rule: all\n  desc: d\n  condition: ka.auditid exists\n  output: '%jevt.obj %jevt.value[/requestObject] %ka.uri.param[a]'\n  priority: INFO\n";
    let file = rules::SourceFile { name: "r.yaml".into(), text: all.to_owned() };
    let all = Detector::new(&rules::load(&[file], &rules::Options::default()).rules, Options::default());
    for (name, shape) in shapes() {
        let work = |n: usize| {
            let text = shape(n);
            steps::take();
            evaluate(&shipped, text.as_bytes());
            evaluate(&all, text.as_bytes());
            shipped.session().message(text.as_bytes(), &mut |_| {});
            complete_prefix(&text);
            steps::take()
        };
        let (once, twice) = (work(400), work(800));
        assert!(twice <= once * 5 / 2 + 20_000, "{name}: {once} steps, {twice} for twice the input");
    }
}

/// Building blocks of hostile input.
const TOKENS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "\\\"",
    "\n",
    " ",
    "\"a\"",
    "\"log\":",
    "\"message\":",
    "\"items\":",
    "\"kind\":\"EventList\"",
    "{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\"",
    "\"requestObject\":",
    "\"responseObject\":\"{",
    "\"requestURI\":\"/api/v1/secrets?",
    "\"auditID\":\"a\"",
    "{\"log\":\"",
    "\"stream\":\"stdout\"",
    "2026-11-23T03:46:20.8Z stdout P ",
    "2026-11-23T03:46:20.8Z stderr F ",
    "\\u0022",
    "\\ud800",
    "\u{fffd}",
    "&",
    "%",
    "\"records\":",
    "\"body\":",
    "\"kubernetes\":{\"audit\":",
    "<134>1 ",
    "\"rows\":[[",
    "\"columns\":[[",
    "\"fields\":[\"_raw\"",
    "2026-11-23T03:46:20.8Z kube-apiserver-audit-1 \n",
    "message,",
    "\x1e",
];

proptest! {
    /// The same for repetitions of any text of such tokens.
    #[test]
    fn reading_any_repetition_takes_time_in_proportion(unit in proptest::collection::vec(proptest::sample::select(TOKENS), 1..8)) {
        static DETECTOR: std::sync::LazyLock<Detector> = std::sync::LazyLock::new(|| detector(1 << 24));
        let unit = unit.concat();
        let work = |n: usize| {
            let text = unit.repeat(n);
            steps::take();
            evaluate(&DETECTOR, text.as_bytes());
            complete_prefix(&text);
            steps::take()
        };
        let (once, twice) = (work(150), work(300));
        prop_assert!(twice <= once * 5 / 2 + 20_000, "{:?}: {} steps, {} for twice the input", unit, once, twice);
    }
}
