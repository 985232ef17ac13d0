use proptest::prelude::*;
use serde_json::json;

use super::*;

fn unwrapped(text: &str) -> Option<String> {
    Unwrapper::new(1 << 20)
        .unwrap(text.as_bytes())
        .map(|plain| String::from_utf8(plain.bytes().to_vec()).unwrap())
}

const EVENT: &str =
    r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"a","user":{"username":"a\"\\ä\n"}}"#;

#[test]
fn leaves_raw_events_alone() {
    for text in [
        EVENT.to_owned(),
        format!("{EVENT}\n{EVENT}\n"),
        format!("[{EVENT},\n{EVENT}]"),
        format!(r#"{{"kind":"EventList","items":[{EVENT}]}}"#),
        r#"{"auditID":"a","message":"x"}"#.to_owned(),
        r#"{"kind":"Pod","apiVersion":"v1","message":"x"}"#.to_owned(),
        "no JSON\n".to_owned(),
        String::new(),
    ] {
        assert_eq!(unwrapped(&text), None, "{text}");
    }
}

#[test]
fn keeps_the_order_of_wrapped_and_raw_records() {
    let wrapped = json!({ "log": EVENT }).to_string();
    let text = format!("{EVENT}\n{wrapped}\n\n{EVENT}\n[{wrapped},{wrapped}]\n");
    assert_eq!(unwrapped(&text).unwrap(), format!("{EVENT}\n").repeat(5));
    let indented = serde_json::to_string_pretty(&json!({ "log": EVENT })).unwrap();
    assert_eq!(unwrapped(&format!("{indented}\n{EVENT}")).unwrap(), format!("{EVENT}\n{EVENT}"));
}

#[test]
fn records_of_other_streams_are_counted() {
    let event: serde_json::Value = serde_json::from_str(EVENT).unwrap();
    for record in [
        json!({"log": EVENT, "kubernetes": {"namespace_name": "default", "pod_name": "web-0"}}).to_string(),
        json!({"log": EVENT, "tag": "kube.var.log.containers.web-0_default_web-1.log"}).to_string(),
        json!({"logStream": "authenticator-1", "logEvents": [{"message": EVENT}]}).to_string(),
        json!({"events": [{"logStreamName": "authenticator-1", "message": EVENT}]}).to_string(),
        json!({"category": "kube-audit", "properties": {"log": EVENT, "pod": "web-0"}}).to_string(),
        json!({"logName": "projects/p/logs/stdout", "protoPayload": {"serviceName": "k8s.io"}}).to_string(),
        json!({"resource": {"type": "k8s_container", "labels": {"pod_name": "web-0"}}, "textPayload": EVENT}).to_string(),
        json!({"auditID": "a", "level": "Metadata", "stageTimestamp": "t", "kubernetes": {"pod_name": "web-0"}})
            .to_string(),
        format!("[pod/web-0/web] {EVENT}"),
        format!("web-1  | {EVENT}"),
        format!("2026-11-23T03:46:20Z {{job=\"pods\", pod=\"web-0\"}} {EVENT}"),
        format!("2026-11-23 03:46:20.8 +0000 kube.var.log.containers.web-0_default_web-1.log: {EVENT}"),
        "2026-11-23T03:46:20.873Z authenticator-1 \n{\n    \"kind\": \"Event\",\n    \"auditID\": \"a\"\n}".to_owned(),
        "2026-11-23T03:46:20.873Z authenticator-1\n{\n    \"kind\": \"Event\",\n    \"auditID\": \"a\"\n}".to_owned(),
        "2026-11-23T03:46:20.873Z authenticator-1\r\n\r\n{\r\n    \"kind\": \"Event\",\r\n    \"auditID\": \"a\"\r\n}\r\n".to_owned(),
        format!("2026-11-23T03:46:20.873Z /k8s/app web-0 \n[\n    {EVENT}\n]\n"),
        format!("2026-11-23T03:46:20.873Z 2026/11/23/[$LATEST]1 \n[\n    {EVENT}\n]\n"),
        json!({"event.original": EVENT, "kubernetes.pod.name": "web-0"}).to_string(),
        json!({"AuditId": "a", "RequestUri": "/api", "Stage": "Panic", "Verb": "get", "PodName": "web-0"}).to_string(),
        json!({"fields": ["_raw", "source"], "rows": [[EVENT, "/var/log/pods/default_web-0_1/web/0.log"]]}).to_string(),
        json!({"fields": ["_raw", "source"], "columns": [[EVENT], ["/var/log/pods/default_web-0_1/web/0.log"]]})
            .to_string(),
        json!({"results": [[{"field": "@message", "value": EVENT}, {"field": "kubernetes.pod_name", "value": "web-0"}]]})
            .to_string(),
        json!({"status": "success", "data": {"result": [{"stream": {"filename": "/var/log/pods/default_web-0_1/web/0.log"}, "values": [["1", EVENT]]}]}})
            .to_string(),
        format!("pod,message\nweb-0,\"{}\"", EVENT.replace('"', "\"\"")),
        json!({"schema": {"fields": [{"name": "Line", "labels": {"pod": "web-0"}}]}, "data": {"values": [[EVENT]]}}).to_string(),
        format!("a,authenticator-0123456789abcdef0123456789abcdef,\"{}\"", EVENT.replace('"', "\"\"")),
        format!("2026-11-23T03:46:20.873Z authenticator-1 {EVENT}"),
    ] {
        let mut unwrapper = Unwrapper::new(1 << 20);
        unwrapper.set_columns(Columns::of(record.lines().next().unwrap().as_bytes()).map(Arc::new).as_ref());
        assert_eq!(unwrapper.unwrap(record.as_bytes()).unwrap().bytes(), b"", "{record}");
        assert_eq!(unwrapper.take_skipped(), BTreeMap::from([(skipped::OTHER_STREAM, 1)]), "{record}");
    }
    // Another control plane log.
    for record in [
        json!({"Category": "kube-scheduler", "log_s": EVENT}).to_string(),
        format!("Category,log_s\nkube-scheduler,\"{}\"", EVENT.replace('"', "\"\"")),
    ] {
        let mut unwrapper = Unwrapper::new(1 << 20);
        unwrapper.set_columns(Columns::of(record.lines().next().unwrap().as_bytes()).map(Arc::new).as_ref());
        assert_eq!(unwrapper.unwrap(record.as_bytes()).unwrap().bytes(), b"", "{record}");
        assert_eq!(unwrapper.take_skipped(), BTreeMap::from([(skipped::OTHER_KIND, 1)]), "{record}");
    }
    // A shipper's metadata follows an event whose members it merged.
    let merged =
        json!({"zz": 1, "kubernetes": {"namespace_name": "default", "pod_name": "web-0"}}).to_string();
    let merged = format!("{},{}\n", EVENT.trim_end_matches('}').to_owned() + "}", &merged[1..]);
    let mut unwrapper = Unwrapper::new(1 << 20);
    assert_eq!(unwrapper.unwrap(merged.as_bytes()).unwrap().bytes(), b"", "{merged}");
    drop(event);
}

#[test]
fn only_records_of_the_configured_format_are_read() {
    let azure = json!({"category": "kube-audit", "properties": {"log": EVENT}}).to_string();
    let cri = format!("2026-11-23T03:46:20.873Z stdout F {EVENT}");
    let cloudwatch =
        json!({"logStream": "kube-apiserver-audit-1", "logEvents": [{"message": EVENT}]}).to_string();
    let json = json!({ "log": EVENT }).to_string();
    let records = [
        (EVENT.to_owned(), Format::Raw),
        (azure, Format::In(Wrapper::Azure)),
        (cri, Format::In(Wrapper::Cri)),
        (cloudwatch, Format::In(Wrapper::Cloudwatch)),
        (json, Format::In(Wrapper::Json)),
        (format!("k8s-audit: {EVENT}"), Format::In(Wrapper::Text)),
    ];
    for (text, own) in &records {
        for (_, format) in Format::ALL {
            let mut unwrapper = Unwrapper::new(1 << 20);
            unwrapper.set_format(format);
            let plain = unwrapper.unwrap(text.as_bytes());
            let plain = plain.as_ref().map_or(text.as_bytes(), Unwrapped::bytes);
            let is_read = plain.starts_with(EVENT.as_bytes());
            assert_eq!(is_read, format == Format::Auto || format == *own, "{text} as {format:?}");
        }
    }
}

#[test]
fn the_first_member_that_holds_an_event_is_read_once() {
    let event: serde_json::Value = serde_json::from_str(EVENT).unwrap();
    for record in [
        json!({"@timestamp": "t", "message": EVENT, "event": {"original": EVENT}}),
        json!({"time": "t", "log": EVENT, "log_processed": event}),
        json!({"short_message": EVENT, "full_message": EVENT}),
        json!({"log": {"file": {"path": "/a"}}, "message": EVENT}),
        json!({"event": {"original": EVENT, "kind": "event"}}),
        json!({"kind": "Record", "payload": EVENT}),
    ] {
        assert_eq!(unwrapped(&record.to_string()).unwrap(), format!("{EVENT}\n"), "{record}");
    }
}

#[test]
fn nothing_is_searched_in_what_a_client_sent() {
    let event: serde_json::Value = serde_json::from_str(EVENT).unwrap();
    for record in [
        json!({"kind": "Pod", "apiVersion": "v1", "message": EVENT}),
        json!({"kind": "Event", "apiVersion": "v1", "involvedObject": {}, "message": EVENT}),
        json!({"auditID": "a", "requestBody": event, "message": EVENT}),
        json!({"stream": "stdout", "requestBody": event}),
        json!({"time": "t", "body": event}),
        json!({"level": "info", "user_agent": EVENT, "msg": EVENT}),
        json!({"message": "text", "data": event}),
    ] {
        let plain = unwrapped(&record.to_string()).unwrap_or_else(|| record.to_string());
        assert!(!plain.starts_with(r#"{"kind":"Event","apiVersion":"audit"#), "{record}: {plain}");
    }
}

#[test]
fn wrappers_name_the_cluster_and_the_time() {
    for (record, cluster, time) in [
        (
            json!({"logGroup": "/aws/eks/c1/cluster", "logEvents": [{"timestamp": 1_795_405_580_873_i64, "message": EVENT}]}),
            Some("c1"),
            true,
        ),
        (
            json!({"time": "2026-11-23T03:46:20.873Z", "resourceId": "/S/0/PROVIDERS/M/MANAGEDCLUSTERS/C2", "properties": {"log": EVENT}}),
            Some("C2"),
            true,
        ),
        (json!({"orchestrator": {"cluster": {"name": "c3"}}, "message": EVENT}), Some("c3"), false),
        (json!({"log": EVENT}), None, false),
    ] {
        let unwrapped = Unwrapper::new(1 << 20).unwrap(record.to_string().as_bytes()).unwrap();
        let origin = unwrapped.records().origin_at(0);
        assert_eq!(origin.cluster, cluster.map(str::as_bytes), "{record}");
        assert_eq!(origin.time.map(|(time, _)| time), time.then_some(1_795_405_580_873_000_000), "{record}");
    }
}

#[test]
fn reads_what_there_is_of_a_truncated_wrapper() {
    for record in [
        json!({"records": [{"category": "kube-audit", "properties": {"log": EVENT}}, {"x": 1}]}),
        json!({"logEvents": [{"message": EVENT}, {"message": "x"}]}),
        json!({"hits": {"hits": [{"_source": {"message": EVENT}}]}}),
        json!({"log": EVENT}),
    ] {
        let text = record.to_string();
        let end = text.find("user").unwrap() + 20;
        let plain = unwrapped(&text[..end]).unwrap();
        assert!(plain.starts_with(&EVENT[..60]), "{plain}");
    }
}

#[test]
fn a_record_that_was_cut_before_its_stream_is_not_read_where_the_format_names_one() {
    let cut = |record: serde_json::Value| {
        let text = record.to_string();
        text[..text.find("user").unwrap() + 20].to_owned()
    };
    let azure = json!({"properties": {"log": EVENT}});
    let insights = json!({"results": [[{"field": "@message", "value": EVENT}]]});
    let event = json!({"events": [{"message": EVENT}]});
    for (text, wrapper) in [
        (cut(azure), Wrapper::Azure),
        (cut(insights), Wrapper::Cloudwatch),
        (cut(event), Wrapper::Cloudwatch),
        (cut(json!({"logEvents": [{"message": EVENT}]})), Wrapper::Cloudwatch),
    ] {
        let mut unwrapper = Unwrapper::new(1 << 20);
        assert!(
            unwrapper.unwrap(text.as_bytes()).unwrap().bytes().starts_with(&EVENT.as_bytes()[..60]),
            "{text}"
        );
        unwrapper.set_format(Format::In(wrapper));
        assert_eq!(unwrapper.unwrap(text.as_bytes()).unwrap().bytes(), b"", "{text}");
        assert_eq!(unwrapper.take_skipped(), BTreeMap::from([(skipped::NO_STREAM, 1)]), "{text}");
    }
    for (text, wrapper) in [
        (cut(json!({"category": "kube-audit", "properties": {"log": EVENT}})), Wrapper::Azure),
        (
            format!(
                r#"{{"logStream":"kube-apiserver-audit-1",{}"#,
                &cut(json!({"logEvents": [{"message": EVENT}]}))[1..]
            ),
            Wrapper::Cloudwatch,
        ),
        (
            cut(json!({"events": [{"logStreamName": "kube-apiserver-audit-1", "message": EVENT}]})),
            Wrapper::Cloudwatch,
        ),
    ] {
        let mut unwrapper = Unwrapper::new(1 << 20);
        unwrapper.set_format(Format::In(wrapper));
        assert!(
            unwrapper.unwrap(text.as_bytes()).unwrap().bytes().starts_with(&EVENT.as_bytes()[..60]),
            "{text}"
        );
    }
}

#[test]
fn indented_records_are_below_the_line_that_names_their_stream() {
    let event: serde_json::Value = serde_json::from_str(EVENT).unwrap();
    let heading = "2026-11-23T03:46:20.873000+00:00 kube-apiserver-audit-1 \n";
    let indented = serde_json::to_string_pretty(&event).unwrap();
    let other = format!("2026-11-23T03:46:20.873000+00:00 authenticator-1 \n{indented}\n");
    let cut = &other[..other.len() - 20];
    let text = format!(
        "{heading}{indented}\n{other}{heading}{EVENT}\n{cut}\n{heading}[\n  {EVENT}\n]\n{heading}{indented}"
    );
    assert_eq!(unwrapped(&text).unwrap().replace("\n\n", "\n"), format!("{EVENT}\n").repeat(4));
    // If the end is missing, the available part is read.
    let cut = &indented[..indented.len() - 2];
    assert!(unwrapped(&format!("{heading}{cut}\n")).unwrap().starts_with(&EVENT[..60]));
}

#[test]
fn holes_of_a_truncated_file_are_no_text() {
    let text = format!("\0\0\0{EVENT}\n{EVENT}\n\0\0\n\0{EVENT}\n");
    assert_eq!(unwrapped(&text).unwrap().replace("\n\n", "\n"), format!("{EVENT}\n").repeat(3));
}

#[test]
fn restores_the_level_that_openshift_moved() {
    let text = r#"{"kind":"Event","level":"info","auditID":"a","k8s_audit_level":"Metadata"}"#;
    let plain = r#"{"kind":"Event","level":"Metadata","auditID":"a"}"#;
    assert_eq!(unwrapped(text).unwrap(), format!("{plain}\n"));
}

#[test]
fn reads_a_body_of_keys_and_values() {
    let body = json!({"body": {"kvlistValue": {"values": [
        {"key": "auditID", "value": {"stringValue": "a"}},
        {"key": "user", "value": {"kvlistValue": {"values": [{"key": "groups", "value": {"arrayValue": {"values": [{"stringValue": "b"}]}}}]}}},
        {"key": "code", "value": {"intValue": "200"}},
        {"key": "ok", "value": {"boolValue": true}},
    ]}}});
    let event = r#"{"auditID":"a","user":{"groups":["b"]},"code":200,"ok":true}"#;
    assert_eq!(unwrapped(&body.to_string()).unwrap(), format!("{event}\n"));
}

#[test]
fn limits_nested_wrappers() {
    let wrap = |text: &str| json!({ "log": text }).to_string();
    let text = (0..4).fold(EVENT.to_owned(), |text, _| wrap(&text));
    assert_eq!(unwrapped(&text).unwrap(), format!("{EVENT}\n"));
    let text = (0..12).fold("{}".to_owned(), |text, _| wrap(&text));
    let mut unwrapper = Unwrapper::new(1 << 20);
    assert_eq!(unwrapper.unwrap(text.as_bytes()).unwrap().bytes(), b"");
    assert_eq!(unwrapper.take_skipped(), BTreeMap::from([(skipped::TOO_DEEP, 1)]));
}

#[test]
fn reads_empty_and_compressed_messages() {
    use std::io::Write as _;
    let mut unwrapper = Unwrapper::new(1 << 20);
    assert_eq!(unwrapper.unwrap_message(b" ").unwrap().bytes(), b"");
    assert_eq!(unwrapper.take_skipped(), BTreeMap::from([(skipped::EMPTY, 1)]));
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(EVENT.as_bytes()).unwrap();
    let packed = encoder.finish().unwrap();
    assert_eq!(unwrapper.unwrap_message(&packed).unwrap().bytes(), format!("{EVENT}\n").as_bytes());
    assert!(unwrapper.unwrap_message(EVENT.as_bytes()).is_none());
}

/// Parts of wrappers.
const TOKENS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"log\"",
    "\"message\"",
    "\"records\"",
    "\"data\"",
    "\"protoPayload\"",
    "\"properties\"",
    "\"H4sIAAAA\"",
    "\"body\"",
    "\"kvlistValue\"",
    "\"logEvents\"",
    "\"",
    "\\",
    "\\u00",
    "\n",
    "ä",
];

proptest! {
    #[test]
    fn unwraps_the_original_text(name in ".*", wraps in 1_usize..4) {
        let event = json!({"kind": "Event", "auditID": "a", "name": name}).to_string();
        let text = (0..wraps).fold(event.clone(), |text, at| {
            let key = ["log", "message"][at % 2];
            json!({ key: text }).to_string()
        });
        prop_assert_eq!(unwrapped(&text), Some(format!("{event}\n")));
    }

    #[test]
    fn nothing_panics(
        tokens in proptest::collection::vec(proptest::sample::select(TOKENS), 0..60), cut in 0_usize..200) {
        let bytes = tokens.concat().into_bytes();
        let mut unwrapper = Unwrapper::new(1000);
        let _ = unwrapper.unwrap(&bytes);
        let _ = unwrapper.unwrap_message(&bytes);
        let _ = unwrapper.unwrap_head(&bytes[..cut.min(bytes.len())]);
    }
}

proptest! {
    /// A line yields the same event at whatever point a runtime splits it, whatever a client wrote into it.
    #[test]
    fn joins_a_line_that_is_split_anywhere(text in ".{0,20}", mut ends in proptest::collection::vec(0_usize..600, 0..6), how in 0_u8..4) {
        let nested = json!({"kind": "Event", "apiVersion": "audit.k8s.io/v1", "auditID": "n", "verb": "get"});
        let body = json!([{"op": "add", "path": "/x", "value": nested}, text, nested, "\\\"{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\"}"]);
        let outer = json!({"kind": "Event", "apiVersion": "audit.k8s.io/v1", "auditID": "o", "requestObject": body}).to_string();
        for end in &mut ends {
            *end = outer.floor_char_boundary(*end % outer.len());
        }
        ends.push(outer.len());
        ends.sort_unstable();
        let (mut log, mut start) = (String::new(), 0);
        for end in ends {
            let piece = &outer[start..end];
            start = end;
            let tag = if end == outer.len() { "F" } else { "P" };
            let cri = format!("2026-11-23T03:46:20.8Z stdout {tag} {piece}");
            log += &match how {
                0 => cri,
                1 => json!({"time": "t", "stream": "stdout", "logtag": tag, "log": piece}).to_string(),
                2 => json!({"partial_message": tag == "P", "message": piece}).to_string(),
                _ => json!({ "log": cri }).to_string(),
            };
            log.push('\n');
        }
        // A shipper that marks pieces marks the last one by omitting the mark.
        prop_assert_eq!(unwrapped(&log), Some(format!("{outer}\n")), "{}", log);
    }
}
