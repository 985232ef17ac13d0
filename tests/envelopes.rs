//! Events in the wrappers of log shippers and clouds have the same alerts as without them.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::Write as _;

use common::{alerts, project, pullwatch, said, scan};
use serde_json::{Value, json};

/// Rule and id of each alert of a sample.
fn rules_and_ids(name: &str, more: &[&str]) -> Vec<(String, String)> {
    let path = project("samples/envelopes").join(name).display().to_string();
    let output = scan(&[&[&*path], more].concat());
    let text = |alert: &Value, key: &str| alert[key].as_str().unwrap().to_owned();
    alerts(&output).iter().map(|alert| (text(alert, "rule"), text(alert, "id"))).collect()
}

/// What is known of an event without a time of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Time {
    /// The wrapper has one, here of the moment when a shipper read the event.
    Wrapper,
    /// The same in whole seconds.
    Seconds,
    /// The wrapper has none.
    Receipt,
    /// The sample is compressed, or built from other members.
    Untested,
}

/// Samples with the three events of `raw.jsonl`, the cluster that they name, and the time of the wrapper. All have the same alerts.
const SAMPLES: &[(&str, Option<&str>, Time)] = &[
    ("alibaba-sls.jsonl", None, Time::Seconds),
    ("audit-member.jsonl", None, Time::Wrapper),
    ("aws-filter-log-events.json", None, Time::Wrapper),
    ("aws-get-log-events.json", None, Time::Wrapper),
    ("aws-insights-export.json", Some("prod"), Time::Wrapper),
    ("aws-insights-results.json", Some("prod"), Time::Wrapper),
    ("aws-logs-tail-json.log", None, Time::Wrapper),
    ("aws-logs-tail.log", None, Time::Wrapper),
    ("aws-messages.json", None, Time::Receipt),
    ("aws-text.log", None, Time::Receipt),
    ("azure-array.json", Some("AKS"), Time::Wrapper),
    ("azure-event-hubs.jsonl", Some("AKS"), Time::Wrapper),
    ("azure-filebeat.jsonl", Some("AKS"), Time::Wrapper),
    ("azure-log-analytics.jsonl", Some("AKS"), Time::Wrapper),
    ("azure-record.jsonl", Some("AKS"), Time::Wrapper),
    ("cloudevents.jsonl", None, Time::Wrapper),
    ("cloudwatch-insights.csv", Some("prod"), Time::Wrapper),
    ("cloudwatch-s3-export.log", None, Time::Wrapper),
    ("cloudwatch.jsonl", Some("prod"), Time::Wrapper),
    ("compose.log", None, Time::Receipt),
    ("console-export.csv", None, Time::Wrapper),
    ("containerd.jsonl", None, Time::Wrapper),
    ("cri-split.log", None, Time::Wrapper),
    ("cri.log", None, Time::Wrapper),
    ("docker.jsonl", None, Time::Wrapper),
    ("elastic-agent.jsonl", Some("prod"), Time::Wrapper),
    ("elastic-annotations.jsonl", None, Time::Wrapper),
    ("elastic-dotted.jsonl", None, Time::Wrapper),
    ("elasticdump.jsonl", None, Time::Wrapper),
    ("elasticsearch-msearch.json", None, Time::Wrapper),
    ("elasticsearch-search.json", Some("prod"), Time::Wrapper),
    ("filebeat-parsed.jsonl", None, Time::Wrapper),
    ("filebeat.jsonl", None, Time::Wrapper),
    ("firehose.jsonl", Some("prod"), Time::Untested),
    ("fluent-bit-keep-log.jsonl", None, Time::Wrapper),
    ("fluent-bit-merge-log-key.jsonl", None, Time::Wrapper),
    ("fluent-bit-object.jsonl", None, Time::Wrapper),
    ("fluent-bit.jsonl", None, Time::Wrapper),
    ("fluentd-file.log", None, Time::Seconds),
    ("gelf.jsonl", None, Time::Wrapper),
    ("google-ops-agent.jsonl", None, Time::Wrapper),
    ("grafana-download.json", None, Time::Wrapper),
    ("grafana-download.txt", None, Time::Wrapper),
    ("grafana-query.json", None, Time::Wrapper),
    ("journalctl-delta.log", None, Time::Receipt),
    ("journalctl-full.log", None, Time::Wrapper),
    ("journalctl-iso.log", None, Time::Wrapper),
    ("journalctl-unix.log", None, Time::Wrapper),
    ("journalctl-verbose.log", None, Time::Receipt),
    ("journalctl.log", None, Time::Receipt),
    ("journald-seq.json", None, Time::Wrapper),
    ("journald-sse.log", None, Time::Wrapper),
    ("journald.jsonl", None, Time::Wrapper),
    ("kafka-console-consumer.log", None, Time::Wrapper),
    ("kcat-format.log", None, Time::Receipt),
    ("kcat.jsonl", None, Time::Wrapper),
    ("kibana-export.csv", None, Time::Wrapper),
    ("kubectl-logs-prefix.log", None, Time::Wrapper),
    ("kubectl-logs.log", None, Time::Wrapper),
    ("lambda-kinesis.jsonl", Some("prod"), Time::Untested),
    ("lambda-logs.jsonl", Some("prod"), Time::Untested),
    ("log-analytics-tables.json", Some("AKS"), Time::Wrapper),
    ("log-analytics.csv", Some("AKS"), Time::Wrapper),
    ("logcli.log", None, Time::Wrapper),
    ("loki-logcli.jsonl", None, Time::Wrapper),
    ("loki-push.json", None, Time::Wrapper),
    ("loki-query-range.json", None, Time::Wrapper),
    ("nul-hole.log", None, Time::Receipt),
    ("oc-adm-node-logs.log", None, Time::Receipt),
    ("opentelemetry.jsonl", Some("prod"), Time::Wrapper),
    ("raw.jsonl", None, Time::Receipt),
    ("rsyslog.log", None, Time::Wrapper),
    ("splunk-export.jsonl", None, Time::Wrapper),
    ("splunk-hec.jsonl", None, Time::Wrapper),
    ("splunk-json-cols.json", None, Time::Wrapper),
    ("splunk-json-rows.json", None, Time::Wrapper),
    ("splunk-results.json", None, Time::Wrapper),
    ("stern.log", None, Time::Receipt),
    ("syslog-rfc3164.log", None, Time::Receipt),
    ("syslog-rfc5424.log", None, Time::Wrapper),
    ("text-as-json.jsonl", None, Time::Receipt),
    ("vector-gelf.jsonl", None, Time::Wrapper),
    ("vector-native.jsonl", None, Time::Wrapper),
    ("vector.jsonl", None, Time::Wrapper),
    ("wrapper-with-kind.jsonl", None, Time::Wrapper),
    // The text of the events differs, and so do their ids.
    ("aks-audit.csv", Some("AKS"), Time::Untested),
    ("aks-audit.jsonl", Some("AKS"), Time::Untested),
    ("alibaba-sls-fields.jsonl", None, Time::Seconds),
    ("fluent-bit-root.jsonl", None, Time::Wrapper),
    ("vector-merged.jsonl", None, Time::Wrapper),
    ("viaq-sorted.jsonl", Some("c"), Time::Wrapper),
    ("viaq.jsonl", Some("c"), Time::Wrapper),
    // One event each, which has no text of an audit event.
    ("google.jsonl", Some("prod"), Time::Untested),
    ("pubsub.jsonl", Some("prod"), Time::Untested),
];

/// The samples whose events have other ids than in `raw.jsonl`.
const OTHER_IDS: [&str; 7] = [
    "aks-audit.csv",
    "aks-audit.jsonl",
    "alibaba-sls-fields.jsonl",
    "fluent-bit-root.jsonl",
    "vector-merged.jsonl",
    "viaq-sorted.jsonl",
    "viaq.jsonl",
];

fn sample(name: &str) -> String {
    project("samples/envelopes").join(name).display().to_string()
}

#[test]
fn an_event_has_the_same_alerts_in_every_wrapper() {
    let raw = rules_and_ids("raw.jsonl", &[]);
    assert_eq!(raw.len(), 3);
    let rules = |alerts: Vec<(String, String)>| alerts.into_iter().map(|(rule, _)| rule).collect::<Vec<_>>();
    for (name, ..) in SAMPLES {
        if matches!(*name, "google.jsonl" | "pubsub.jsonl") {
            continue;
        }
        if OTHER_IDS.contains(name) {
            assert_eq!(rules(rules_and_ids(name, &[])), rules(raw.clone()), "{name}");
        } else {
            assert_eq!(rules_and_ids(name, &[]), raw, "{name}");
        }
    }
    for name in ["azure-event-hubs.jsonl", "cri-split.log", "syslog-rfc3164.log", "loki-push.json"] {
        assert_eq!(rules_and_ids(name, &["--threads", "3"]), raw, "{name}, on several threads");
    }
}

#[test]
fn every_sample_is_tested_and_documented() {
    let names = fs::read_dir(project("samples/envelopes")).unwrap().map(|entry| entry.unwrap().file_name());
    let documented = fs::read_to_string(project("docs/wrappers.md")).unwrap();
    let mut found = 0;
    for name in names {
        let name = name.to_str().unwrap();
        assert!(SAMPLES.iter().any(|(own, ..)| *own == name), "{name} is not tested");
        assert!(documented.contains(&format!("`{name}`")), "{name} is not in docs/wrappers.md");
        found += 1;
    }
    assert_eq!(found, SAMPLES.len());
}

#[test]
fn alerts_name_the_cluster_of_the_wrapper_or_the_configured_one() {
    for (name, cluster, _) in SAMPLES {
        for alert in alerts(&scan(&[&sample(name), "--cluster", "configured"])) {
            assert_eq!(alert["cluster"], cluster.unwrap_or("configured"), "{name}");
        }
    }
}

#[test]
fn an_event_without_a_time_has_that_of_its_wrapper() {
    let folder = tempfile::tempdir().unwrap();
    for (name, _, time) in SAMPLES {
        let path = folder.path().join(name);
        let mut text = fs::read(sample(name)).unwrap();
        let keys: [(&[u8], u8); 2] = [(b"requestReceivedTimestamp", b'R'), (b"stageTimestamp", b'S')];
        for (key, other) in keys {
            let places: Vec<usize> = memchr::memmem::find_iter(&text, key).collect();
            for at in places {
                text[at] = other;
            }
        }
        // Bytes in a list.
        let text = String::from_utf8(text).unwrap().replace("115,116,97,103,101,84", "83,116,97,103,101,84");
        let text = text.replace("114,101,113,117,101,115,116,82", "82,101,113,117,101,115,116,82");
        fs::write(&path, text).unwrap();
        let found = alerts(&scan(&[path.to_str().unwrap()]));
        let (expected, source) = match time {
            Time::Wrapper => ("2026-11-23T03:46:20.873", "wrapper"),
            Time::Seconds => ("2026-11-23T03:46:20.000", "wrapper"),
            Time::Receipt => ("20", "receipt"),
            Time::Untested => continue,
        };
        assert_eq!(found.len(), 3, "{name}");
        for alert in found {
            let time = alert["time"].as_str().unwrap();
            assert!(time.starts_with(expected) && alert["time_source"] == source, "{name}: {alert}");
        }
    }
}

#[test]
fn an_event_without_any_time_has_that_of_the_event_before_it() {
    let raw = fs::read_to_string(sample("raw.jsonl")).unwrap();
    let lines: Vec<&str> = raw.lines().collect();
    let cut = &lines[1][..lines[1].find("responseObject").unwrap() + 40];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    // Far enough apart that they are in different buffers.
    let quiet = lines[0].replace("\"get\"", "\"watch\"").replace("secrets", "configmaps");
    let filler = format!("{quiet}\n").repeat((1 << 20) / quiet.len());
    for before in [format!("{}\n", lines[0]), format!("{}\n{filler}", lines[0])] {
        fs::write(&path, format!("{before}{cut}")).unwrap();
        for threads in ["1", "3"] {
            let found = alerts(&scan(&[path.to_str().unwrap(), "--threads", threads]));
            let list = found.iter().find(|alert| alert["rule"] == "Secrets Listed").unwrap();
            assert_eq!(list["time_source"], "previous_event");
            assert_eq!(list["time"], found[0]["time"], "with {threads} threads");
        }
    }
}

#[test]
fn the_header_of_an_export_names_the_columns_of_all_its_lines() {
    let raw = fs::read_to_string(sample("raw.jsonl")).unwrap();
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("export.csv");
    let list = quoted(raw.lines().nth(1).unwrap());
    // Far enough from the header that it is in another buffer.
    let filler = format!("kube-apiserver-cp1,{}\n", quoted("I1123 log.go:1] line")).repeat(60_000);
    let lines = format!("web-0,{list}\nkube-apiserver-cp1,{list}\n");
    fs::write(&path, format!("\"kubernetes.pod_name\",message\n{lines}{filler}{lines}")).unwrap();
    for threads in ["1", "3"] {
        let output = scan(&[path.to_str().unwrap(), "--threads", threads]);
        // Of the two pairs of equal events the ones of another pod are no alerts.
        let found = alerts(&output).iter().filter(|alert| alert["rule"] == "Secrets Listed").count();
        assert_eq!(found, 2, "{}", said(&output));
        assert!(said(&output).contains("2  record of a stream other than"), "{}", said(&output));
    }
}

#[test]
fn indented_records_have_the_stream_of_the_line_above_them_wherever_a_buffer_ends() {
    let tail = fs::read_to_string(sample("aws-logs-tail-json.log")).unwrap();
    let other = tail.replace("kube-apiserver-audit-0f1e2d3c", "authenticator-0f1e2d3c");
    let count = other.matches("authenticator").count();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tail.log");
    let path = path.to_str().unwrap();
    let without_blanks = |text: &str| text.replace(" \n{", "\n{");
    let with_groups = |text: &str| text.replace("+00:00 ", "+00:00 /aws/eks/prod/cluster ");
    for (own, other) in [
        (tail.clone(), other.clone()),
        (without_blanks(&tail), without_blanks(&other)),
        (tail.replace('\n', "\r\n"), other.replace('\n', "\r\n")),
        (tail.replace(" \n{", "\n\n{"), other.replace(" \n{", "\n\n{")),
        (with_groups(&tail), with_groups(&other)),
        (
            tail.replace("\n{", "\n[\n  {").replace("\n}", "\n}\n]"),
            other.replace("\n{", "\n[\n  {").replace("\n}", "\n  }\n]"),
        ),
    ] {
        for repeat in [1, 500] {
            fs::write(path, other.repeat(repeat) + &own).unwrap();
            for threads in ["1", "3"] {
                let output = scan(&[path, "--threads", threads]);
                let found = alerts(&output);
                assert_eq!(found.len(), 3, "{}: {}", other.lines().next().unwrap(), said(&output));
                let counted = format!("{}  record of a stream other than", count * repeat);
                assert!(said(&output).replace(',', "").contains(&counted), "{counted}: {}", said(&output));
            }
        }
    }
}

#[test]
fn members_that_a_shipper_added_to_an_event_name_its_stream_wherever_they_are() {
    let raw = fs::read_to_string(sample("raw.jsonl")).unwrap();
    let quiet = raw.lines().next().unwrap().replace("\"get\"", "\"watch\"").replace("secrets", "configmaps");
    let list = raw.lines().nth(1).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let path = path.to_str().unwrap();
    let labels = format!("\"labels\":{{\"a\":\"{}\"}}", "x".repeat(3000));
    for (member, is_other) in [
        (r#""kubernetes":{"namespace_name":"default","pod_name":"web-0"}"#.to_owned(), true),
        (format!(r#""kubernetes":{{"namespace_name":"default","pod_name":"web-0",{labels}}}"#), true),
        (r#""kubernetes":{"namespace_name":"kube-system","pod_name":"kube-apiserver-a"}"#.to_owned(), false),
        (r#""kubernetes.pod_name":"web-0""#.to_owned(), true),
        (r#""kubernetes_pod_name":"web-0""#.to_owned(), true),
        (r#""file":"/var/log/pods/default_web-0_1/web/0.log""#.to_owned(), true),
        (r#""file":"/var/log/kubernetes/audit.log""#.to_owned(), false),
        (r#""tag":"kube.var.log.containers.web-0_default_web-12ab.log""#.to_owned(), true),
        (r#""tag":"audit""#.to_owned(), false),
        (r#""pod":"web-0","namespace":"default""#.to_owned(), true),
        (r#""authenticationMetadata":{"impersonationConstraint":"x"}"#.to_owned(), false),
    ] {
        let at_end = format!("{},{member}}}", &list[..list.len() - 1]);
        let in_the_middle = list.replacen(",\"objectRef\"", &format!(",{member},\"objectRef\""), 1);
        assert_ne!(in_the_middle, list);
        for event in [at_end, in_the_middle] {
            // Alone, and between events as the apiserver writes them.
            for text in [format!("{event}\n"), format!("{quiet}\n{event}\n{quiet}\n")] {
                fs::write(path, &text).unwrap();
                for format in ["auto", "json"] {
                    let output = scan(&[path, "--input-format", format]);
                    let count =
                        alerts(&output).iter().filter(|alert| alert["rule"] == "Secrets Listed").count();
                    // Members of no shipper make no wrapper.
                    let is_read = !is_other && (format == "auto" || !member.starts_with("\"auth"));
                    assert_eq!(count, usize::from(is_read), "{format} {event}: {}", said(&output));
                    assert!(
                        !is_other || said(&output).contains("1  record of a stream other than"),
                        "{format} {event}: {}",
                        said(&output)
                    );
                }
            }
        }
    }
}

#[test]
fn rows_are_read_with_the_header_of_their_table_alone() {
    let raw = fs::read_to_string(sample("raw.jsonl")).unwrap();
    let event = format!("\"{}\"", raw.lines().nth(1).unwrap().replace('"', "\"\""));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("export.csv");
    let count = |text: &str| {
        fs::write(&path, text).unwrap();
        let output = scan(&[path.to_str().unwrap()]);
        let found = alerts(&output).iter().filter(|alert| alert["rule"] == "Secrets Listed").count();
        (found, said(&output))
    };
    for header in [
        "pod,rate%,message",
        "pod,\u{f6},message",
        "pod,95th,message",
        "pod,\"rate of {a}\",message",
        "pod,\"the rate, in %\",Message",
        "PodName,Computer,LogMessage",
        "Search of the week\n\npod,rate,MESSAGE",
        "\u{feff}\"kubernetes.pod_name\",rate,AuditLog\r",
    ] {
        let (other, words) = count(&format!("{header}\nweb-0,5,{event}\n"));
        assert_eq!(other, 0, "{header}");
        assert!(words.contains("1  record of a stream other than"), "{header}: {words}");
        assert_eq!(count(&format!("{header}\nkube-apiserver-a,5,{event}\n")).0, 1, "{header}");
        // Rows with another number of fields.
        for row in [format!("web-0,{event}"), format!("web-0,5,{event},1"), format!("5,{event},web-0,1,2")] {
            let (found, words) = count(&format!("{header}\n{row}\n"));
            assert_eq!(found, 0, "{header}: {row}");
            assert!(words.contains("1  row that does not match"), "{header}: {words}");
        }
    }
    // No column is known to hold events.
    let (found, words) = count(&format!("pod,UserAgent\nkube-apiserver-a,{event}\n"));
    assert!(found == 0 && words.contains("1  row that does not match"), "{words}");
    // Parts of an export that were put together.
    assert_eq!(
        count(&format!("pod,message\nkube-apiserver-a,{event}\npod,message\nkube-apiserver-b,{event}\n")).0,
        2
    );
    // Without a header.
    assert_eq!(count(&format!("2026-11-23T04:00:00Z,a,{event}\n")).0, 1);
}

#[test]
fn an_event_behind_a_header_in_brackets_is_none() {
    let raw = fs::read_to_string(sample("raw.jsonl")).unwrap();
    let list = raw.lines().nth(1).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    for header in [
        "[pod/web-0/web] [pod/kube-apiserver-a/kube-apiserver] ",
        "[pod/web-0/web] text ",
        "[web-0] ",
        "[web-0] text\n[web-0] ",
        "[web-0 web] {",
        "[ 1234.5] node web: text ",
        "[INFO] \"",
        "{web-0} ",
        "{pod=\"web-0\"} ",
    ] {
        for before in ["", "\u{feff}"] {
            fs::write(&path, format!("{before}{header}{list}\n")).unwrap();
            let output = scan(&[path.to_str().unwrap()]);
            assert!(alerts(&output).is_empty(), "{header}");
        }
    }
    // A writer that was interrupted.
    for start in [&list[..900], "[", "[{", "{", "[[{\"kind\":\"Event\",\"verb\":\"ge"] {
        fs::write(&path, format!("{start}{list}\n")).unwrap();
        let found = alerts(&scan(&[path.to_str().unwrap()]));
        assert!(found.iter().any(|alert| alert["rule"] == "Secrets Listed"), "{start}");
    }
}

#[test]
fn reads_entries_of_google_cloud_logging() {
    let path = project("samples/envelopes/google.jsonl").display().to_string();
    let found = alerts(&scan(&[&path]));
    let rules: Vec<&str> = found.iter().map(|alert| alert["rule"].as_str().unwrap()).collect();
    assert_eq!(
        rules,
        ["Registry Credential Read", "Secrets Listed", "Secret Access Denied", "Secrets Listed"]
    );
    let read = &found[0]["event"];
    assert_eq!(read["verb"], "get");
    assert_eq!(read["user"]["groups"], json!(["system:authenticated"]));
    assert_eq!(read["objectRef"]["resource"], "secrets");
    assert_eq!((&read["code"], &found[2]["event"]["code"]), (&json!(200), &json!(403)));
    // A list across all namespaces has no namespace.
    assert_eq!(found[3]["registry"]["scope"], "cluster");
    assert_eq!(rules_and_ids("pubsub.jsonl", &[]), rules_and_ids("google.jsonl", &[])[..2]);
}

#[test]
fn entries_of_google_are_converted_as_by_falcos_plugin() {
    let entry = |resource: &str, verb: &str, authentication: Value, operation: Value, status: Value| {
        let method = format!("io.k8s.core.v1.pods.{verb}");
        json!({
            "insertId": "x1", "timestamp": "2026-10-07T16:19:19Z", "operation": operation,
            "protoPayload": {
                "@type": "type.googleapis.com/google.cloud.audit.AuditLog", "serviceName": "k8s.io", "methodName": method,
                "resourceName": resource, "authenticationInfo": authentication, "status": status,
            },
        })
        .to_string()
    };
    let rules = "- rule: Any\n  desc: d\n  condition: ka.verb exists\n  priority: INFO\n  \
                 output: '%ka.stage %ka.response.code %ka.user.name %ka.verb'\n";
    let folder = tempfile::tempdir().unwrap();
    let (log, file) = (folder.path().join("google.log"), folder.path().join("any.yaml"));
    fs::write(&file, rules).unwrap();
    let mallory = json!({"principalEmail": "mallory"});
    let once = json!({"first": true, "last": true});
    let exec = "core/v1/namespaces/a/pods/b/exec";
    for (text, expected) in [
        (
            entry(exec, "exec.create", mallory.clone(), once.clone(), json!({})),
            "ResponseStarted 101 mallory create",
        ),
        (
            entry(&exec.replace("exec", "attach"), "attach.create", mallory.clone(), Value::Null, json!({})),
            "ResponseStarted 101 mallory create",
        ),
        (
            entry(exec, "exec.create", mallory.clone(), once.clone(), json!({"code": 7})),
            "ResponseStarted 403 mallory create",
        ),
        (
            entry(exec, "exec.create", mallory, json!({"last": true}), json!({})),
            "ResponseComplete 101 mallory create",
        ),
        (
            entry(
                "core/v1/namespaces/a/pods/b",
                "get",
                json!({"authoritySelector": "x"}),
                once.clone(),
                json!({}),
            ),
            "ResponseComplete 200 system:anonymous get",
        ),
        (
            entry(
                "core/v1/namespaces/a/pods/b",
                "get",
                json!({"principalSubject": "principal://iam.googleapis.com/x/subject/eve"}),
                once,
                json!({}),
            ),
            "ResponseComplete 200 principal://iam.googleapis.com/x/subject/eve get",
        ),
    ] {
        fs::write(&log, text).unwrap();
        let found = alerts(&scan(&["--rules", &file.display().to_string(), &log.display().to_string()]));
        assert_eq!(found.len(), 1);
        assert!(
            found[0]["output"].as_str().unwrap().ends_with(expected),
            "{} {expected}",
            found[0]["output"]
        );
    }
}

#[test]
fn counts_records_without_an_event_by_reason() {
    let folder = tempfile::tempdir().unwrap();
    let counted = |text: &str| {
        let path = folder.path().join("log");
        fs::write(&path, text).unwrap();
        said(&pullwatch().arg("scan").arg(&path).output().unwrap())
    };
    let azure = fs::read_to_string(project("samples/envelopes/azure-event-hubs.jsonl")).unwrap();
    assert!(counted(&azure).contains("Skipped records: 2"), "{}", counted(&azure));
    for (text, reason) in [
        (r#"{"log":"I1123 scheduler.go: started"}"#, "line of another log"),
        (r#"{"message":""}"#, "empty"),
        (r#"{"records":[{"category":"kube-scheduler","properties":{"log":"x"}}]}"#, "record of another kind"),
        (r#"{"messageType":"CONTROL_MESSAGE","logEvents":[]}"#, "control message"),
        (r#"{"message":{"data":"!!"}}"#, "unreadable packing"),
        (r#"{"message":{"data":"H4sIAAAA"}}"#, "unreadable packing"),
        (r#"{"records":[{"properties":{"log":"skipped-too-big-size-object"}}]}"#, "omitted by its sender"),
    ] {
        assert!(counted(text).contains(reason), "{text}: {}", counted(text));
    }
    let deep = (0..40)
        .fold("{}".to_owned(), |inner, _| json!({ "log": inner }).to_string().replace("\\\\\\\\", "\\"));
    assert!(counted(&deep[..deep.len().min(1 << 20)]).len() < 4000);
}

#[test]
fn evaluates_a_truncated_wrapped_event_by_its_beginning() {
    let raw = fs::read_to_string(project("samples/envelopes/raw.jsonl")).unwrap();
    let list = raw.lines().nth(1).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let record = json!({ "time": "2026-11-23T03:46:20Z", "log": list }).to_string();
    let end = record.find("responseObject").unwrap() + 60;
    let cloudwatch = json!({
        "messageType": "DATA_MESSAGE", "logStream": "kube-apiserver-audit-1",
        "logEvents": [{"message": format!("{}[Truncated...]", &list[..list.find("responseObject").unwrap() + 40])}],
    });
    // Wherever the line ends, also inside an escape.
    for end in (end..end + 12).chain([record.len() - 1]) {
        fs::write(&path, &record[..end]).unwrap();
        let found = alerts(&scan(&[path.to_str().unwrap()]));
        assert!(found.iter().any(|alert| alert["rule"] == "Secrets Listed"), "{end}: {found:?}");
    }
    let mut file = fs::File::create(&path).unwrap();
    writeln!(file, "{cloudwatch}").unwrap();
    let found = alerts(&scan(&[path.to_str().unwrap()]));
    assert_eq!(found[0]["event"]["truncated"], true, "{found:?}");
    // Longer than the limit.
    fs::write(&path, format!("{record}\n")).unwrap();
    let found = alerts(&scan(&["--max-event-size", "1K", path.to_str().unwrap()]));
    assert!(found.iter().any(|alert| alert["rule"] == "Secrets Listed"), "{found:?}");
}
