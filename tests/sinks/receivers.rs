//! Formats against their published schemas, and receivers that speak their documented protocols.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use pullwatch::internals::daemon::sink::{Body, File, Format, Http, Kind, Secret, Template};
use pullwatch::internals::detection::alert::StoredAlert;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::rig::{HOSTILE, Memory, Rig, alert, config};

/// An alert with all members, about names that a client chose.
fn full(seq: i64, name: &str) -> StoredAlert {
    let value = json!({
        "hostname": "node", "output": format!("03:45:32.270783000: Warning {name} read it"),
        "output_fields": {"evt.time": 1, "ka.user.name": name},
        "priority": "Warning", "rule": "Registry Credential Read", "source": "k8s_audit", "tags": ["k8s", "T1552.007", "T1528"],
        "time": "2026-11-23T03:45:32.270783000Z", "actor": name, "credential": "prod/regcred", "namespace": "prod",
        "registry_host": "ghcr.io", "exposure": "payload", "verb": "get", "cluster": "blue", "team": "platform",
        "id": format!("{seq:032x}"), "rule_set": "0",
        "event": {"auditID": "a", "stage": "ResponseComplete", "verb": "get",
            "user": {"username": name, "uid": "u1", "groups": ["system:authenticated", name]}, "impersonatedUser": {"username": name},
            "sourceIPs": [name, "10.0.0.1"], "userAgent": name,
            "objectRef": {"resource": "secrets", "namespace": "prod", "name": name, "apiVersion": "v1"}, "code": 200,
            "requestURI": name},
        "registry": {"exposure": "payload", "scope": "object", "secrets": ["prod/regcred"], "hosts": ["ghcr.io", name], "usernames": ["robot"]},
    });
    let mut json = Vec::new();
    pullwatch::internals::detection::shorten::write(&value, &mut json);
    StoredAlert {
        rule: "Registry Credential Read".to_owned(),
        actor: name.to_owned(),
        target: format!("secrets prod/{name}"),
        message: format!("{name} read it"),
        json,
        ..alert(seq)
    }
}

/// What a client may choose to mislead receivers.
fn hostile() -> String {
    format!(
        "{HOSTILE}<script>alert(1)</script>\r\n{{{{.Values}}}} ${{jndi:ldap://x}} %{{rule}} {}",
        "a".repeat(400)
    )
}

async fn rendered(format: Format, alerts: Vec<StoredAlert>, max_message: Option<usize>) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("alerts");
    let count = alerts.len();
    let mut settings = config(Kind::File(File { path: path.clone(), format, ..File::default() }));
    settings.max_message = max_message;
    let rig = Rig::start(settings, &Memory::with(alerts));
    rig.reaches(i64::try_from(count).unwrap()).await;
    rig.stop().await.unwrap();
    let lines: Vec<String> = std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), count, "one line for each alert");
    lines
}

/// Each leaf with its path; the elements of a list have the path of the list.
fn leaves(value: &Value, path: &str, out: &mut Vec<(String, Value, bool)>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                leaves(member, &path, out);
            }
        }
        Value::Array(items) => out.extend(items.iter().map(|item| (path.to_owned(), item.clone(), true))),
        leaf => out.push((path.to_owned(), leaf.clone(), false)),
    }
}

#[tokio::test]
async fn ecs_documents_follow_the_published_fields() {
    let fields: BTreeMap<&str, (&str, bool)> = include_str!("../data/schemas/ecs-fields.csv")
        .lines()
        .skip(1)
        .map(|line| {
            let columns: Vec<&str> = line.split(',').collect();
            (columns[0], (columns[1], columns[2] == "array"))
        })
        .collect();
    let alerts = vec![full(1, "alice"), full(2, &hostile()), alert(3)];
    for line in rendered(Format::Ecs, alerts, None).await {
        let document: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (&document["event"]["kind"], &document["ecs"]["version"]),
            (&json!("alert"), &json!("8.17.0"))
        );
        let mut found = Vec::new();
        leaves(&document, "", &mut found);
        for (path, value, is_list) in found {
            // Fields of our own, and labels, which are free.
            if path.starts_with("pullwatch.") || path.starts_with("labels.") {
                continue;
            }
            let (kind, is_array) =
                *fields.get(path.as_str()).unwrap_or_else(|| panic!("{path} is no field of ECS"));
            assert_eq!(is_list, is_array, "{path}");
            let fits = match kind {
                "date" => value.as_str().is_some_and(|text| text.parse::<jiff::Timestamp>().is_ok()),
                "long" => value.is_i64() || value.is_u64(),
                "ip" => value.as_str().is_some_and(|text| text.parse::<std::net::IpAddr>().is_ok()),
                "keyword" | "wildcard" | "match_only_text" | "text" => value.is_string(),
                other => panic!("{path}: {other}"),
            };
            assert!(fits, "{path} ({kind}): {value}");
        }
    }
    let document: Value =
        serde_json::from_str(&rendered(Format::Ecs, vec![full(1, "alice")], None).await[0]).unwrap();
    assert_eq!(document["user"]["effective"]["name"], "alice");
    assert_eq!(document["threat"]["technique"]["id"], json!(["T1528", "T1552"]));
    assert_eq!(document["threat"]["technique"]["subtechnique"]["id"], json!(["T1552.007"]));
    assert_eq!(document["orchestrator"]["cluster"]["name"], "blue");
    assert_eq!(document["pullwatch"]["credential"], "prod/regcred");
}

/// Checks an object against the resolved attributes of the schema.
fn check_ocsf(schema: &Value, attributes: &Value, value: &Value, at: &str) {
    let object = value.as_object().unwrap_or_else(|| panic!("{at} is no object: {value}"));
    for (name, attribute) in attributes.as_object().unwrap() {
        assert!(
            attribute["requirement"] != "required" || object.contains_key(name),
            "{at}.{name} is required"
        );
    }
    for (name, member) in object {
        let attribute = attributes.get(name).unwrap_or_else(|| panic!("{at}.{name} is no attribute"));
        let at = format!("{at}.{name}");
        let is_array = attribute["is_array"] == true;
        assert_eq!(member.is_array(), is_array, "{at}");
        let items = if is_array { member.as_array().unwrap().clone() } else { vec![member.clone()] };
        for item in items {
            let kind = attribute["type"].as_str().unwrap();
            match kind {
                "string_t" | "hostname_t" | "ip_t" | "url_t" | "username_t" | "uuid_t" => {
                    assert!(item.is_string(), "{at}: {item}");
                }
                "integer_t" | "long_t" | "timestamp_t" => {
                    assert!(item.is_i64() || item.is_u64(), "{at}: {item}");
                    if let Some(allowed) = attribute["enum"].as_array() {
                        assert!(
                            allowed.contains(&json!(item.to_string())) || allowed.len() == 1,
                            "{at}: {item} {allowed:?}"
                        );
                    }
                }
                "boolean_t" => assert!(item.is_boolean(), "{at}: {item}"),
                "object" | "json_t" => {}
                object => {
                    let known = &schema["objects"][object];
                    assert!(known.is_object(), "{at}: {object} is not in the schema");
                    check_ocsf(schema, &known["attributes"], &item, &at);
                    if let Some(one_of) = known["constraints"]["at_least_one"].as_array() {
                        assert!(
                            one_of.iter().any(|name| item.get(name.as_str().unwrap()).is_some()),
                            "{at}: {item}"
                        );
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn ocsf_findings_follow_the_published_schema() {
    let schema: Value = serde_json::from_str(include_str!("../data/schemas/ocsf-2004.json")).unwrap();
    let alerts = vec![full(1, "alice"), full(2, &hostile()), alert(3)];
    for line in rendered(Format::Ocsf, alerts, None).await {
        let finding: Value = serde_json::from_str(&line).unwrap();
        check_ocsf(&schema, &schema["class"], &finding, "finding");
        assert_eq!((&finding["class_uid"], &finding["type_uid"]), (&json!(2004), &json!(200_401)));
        assert_eq!(finding["severity_id"], 3);
    }
    let finding: Value =
        serde_json::from_str(&rendered(Format::Ocsf, vec![full(1, "alice")], None).await[0]).unwrap();
    assert_eq!(finding["evidences"][0]["actor"]["user"]["name"], "alice");
    assert_eq!(finding["finding_info"]["attacks"][0]["sub_technique"]["uid"], "T1552.007");
    assert!(
        finding["resources"].as_array().unwrap().contains(&json!({"type": "registry", "name": "ghcr.io"}))
    );
}

#[tokio::test]
async fn cef_has_all_that_an_analyst_asks_for() {
    let line = &rendered(Format::Cef, vec![full(1, "alice")], None).await[0];
    for part in [
        "suser=alice",
        "duser=alice",
        "dvchost=node",
        "outcome=success",
        "request=alice",
        "src=10.0.0.1",
        "act=get",
        "cs1=prod/regcred cs1Label=credentials",
        "cs2=ghcr.io,alice cs2Label=registries",
        "cs3=payload cs3Label=exposure",
        "cs4=prod cs4Label=namespace",
        "cs5=k8s,T1552.007,T1528 cs5Label=tags",
        "cs6=blue cs6Label=cluster",
        "cn1=1 cn1Label=credentials",
        "pullwatchTeam=platform",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
}

#[tokio::test]
async fn hostile_values_are_inert_in_every_format_and_within_every_limit() {
    for format in [Format::Falco, Format::Ecs, Format::Ocsf, Format::Cef, Format::Text] {
        for max_len in [None, Some(8192), Some(2048)] {
            let alerts: Vec<_> =
                (1..=3).map(|seq| full(seq, &hostile().repeat(usize::try_from(seq).unwrap() * 3))).collect();
            for line in rendered(format, alerts, max_len).await {
                assert!(!line.chars().any(pullwatch::internals::text::escape::is_disruptive), "{format:?}");
                assert!(max_len.is_none_or(|max_len| line.len() <= max_len), "{format:?} {}", line.len());
                if format.content_type() == "application/json" {
                    assert!(serde_json::from_str::<Value>(&line).unwrap().is_object());
                }
            }
        }
    }
}

/// A request: its head in lower case, and its body.
type Request = (String, Vec<u8>);

/// A receiver that answers each request as `answer` says, with a status and a body.
async fn receiver(
    mut answer: impl FnMut(&Request) -> (u16, Vec<u8>) + Send + 'static,
) -> (std::net::SocketAddr, Arc<Mutex<Vec<Request>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
    let seen = requests.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = Vec::new();
            let start = loop {
                if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                    break None;
                }
                if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                    break Some(end + 4);
                }
            };
            let Some(start) = start else { continue };
            let head = String::from_utf8_lossy(&bytes[..start]).into_owned();
            let lower = head.to_ascii_lowercase();
            let length: usize = lower
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .unwrap()
                .trim()
                .parse()
                .unwrap();
            while bytes.len() < start + length && stream.read_buf(&mut bytes).await.unwrap_or(0) > 0 {}
            let request = (head, bytes.split_off(start));
            let (status, body) = answer(&request);
            seen.lock().unwrap().push(request);
            let head =
                format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(&body).await;
        }
    });
    (address, requests)
}

fn http(address: std::net::SocketAddr, body: Body, format: Format) -> Http {
    Http { url: Secret::new(format!("http://{address}/")), body, format, ..Http::default() }
}

#[tokio::test]
async fn elasticsearch_gets_each_alert_once_and_refuses_single_ones() {
    // The documents by id; item errors as the bulk API reports them.
    let documents: Arc<Mutex<BTreeMap<String, Value>>> = Arc::default();
    let (stored, mut round) = (documents.clone(), 0);
    let (address, requests) = receiver(move |(_, body)| {
        round += 1;
        let lines: Vec<Value> = std::str::from_utf8(body)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let mut items = Vec::new();
        #[allow(clippy::map_entry, reason = "the conditions between decide as well")]
        for pair in lines.chunks(2) {
            let id = pair[0]["create"]["_id"].as_str().unwrap().to_owned();
            assert_eq!(pair[0]["create"]["_index"], "logs-pullwatch.alert-default");
            let mut stored = stored.lock().unwrap();
            let item = if stored.contains_key(&id) {
                json!({"status": 409, "error": {"type": "version_conflict_engine_exception"}})
            } else if id.ends_with('4') {
                json!({"status": 400, "error": {"type": "document_parsing_exception"}})
            } else if id.ends_with('6') && round <= 2 {
                json!({"status": 429, "error": {"type": "es_rejected_execution_exception"}})
            } else if round <= 3 && id.ends_with('7') {
                // The state of the index, not the document; so are the next two.
                json!({"status": 403, "error": {"type": "cluster_block_exception"}})
            } else if round <= 4 && id.ends_with('8') {
                json!({"status": 400, "error": {"type": "index_closed_exception"}})
            } else if round <= 5 && id.ends_with('9') {
                json!({"status": 404, "error": {"type": "index_not_found_exception"}})
            } else {
                stored.insert(id, pair[1].clone());
                json!({"status": 201})
            };
            items.push(json!({"create": item}));
        }
        (
            200,
            json!({"errors": items.iter().any(|item| item["create"]["error"].is_object()), "items": items})
                .to_string()
                .into(),
        )
    })
    .await;
    let body =
        Body::Bulk { data_stream: "logs-pullwatch.alert-default".to_owned(), alerts: 100, bytes: 1 << 20 };
    let alerts: Vec<_> = (1..=9).map(|seq| full(seq, "alice")).collect();
    let rig = Rig::start(config(Kind::Http(http(address, body, Format::Ecs))), &Memory::with(alerts));
    rig.reaches(9).await;
    let stored = documents.lock().unwrap();
    assert_eq!(stored.len(), 8);
    assert!(
        stored
            .values()
            .all(|document| document["@timestamp"].is_string() && document["user"]["name"] == "alice")
    );
    assert_eq!(rig.count("dead_letters_total", Some("rejected")), 1);
    assert_eq!(rig.count("failures_total", Some("throttled")), 1);
    // The document and the three states of the index.
    assert_eq!(rig.count("failures_total", Some("rejected")), 4);
    let requests = requests.lock().unwrap();
    assert!(requests[0].0.starts_with("POST /_bulk?filter_path="), "{}", requests[0].0);
    assert!(requests[0].0.to_ascii_lowercase().contains("content-type: application/x-ndjson"));
}

#[tokio::test]
async fn results_count_however_late_they_come_and_responses_without_them_are_failures() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(async move {
        let result = json!({"errors": false, "items": [{"create": {"status": 201}}]}).to_string();
        let head =
            format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", result.len());
        // The first response breaks off, the second is slow.
        for body in [&result[..9], &result[..]] {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"}\n") {
                stream.read_buf(&mut request).await.unwrap();
            }
            stream.write_all(head.as_bytes()).await.unwrap();
            if body.len() == result.len() {
                tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
            }
            stream.write_all(body.as_bytes()).await.unwrap();
        }
    });
    let body = Body::Bulk { data_stream: "logs-a-b".to_owned(), alerts: 100, bytes: 1 << 20 };
    let rig = Rig::start(config(Kind::Http(http(address, body, Format::Ecs))), &Memory::with([alert(1)]));
    rig.reaches(1).await;
    served.await.unwrap();
    assert_eq!((rig.count("deliveries_total", None), rig.count("retries_total", None)), (1, 1));
}

#[tokio::test]
async fn splunk_events_have_their_metadata_and_are_acknowledged() {
    let mut polls = 0;
    let (address, requests) = receiver(move |(head, body)| {
        if head.starts_with("POST /services/collector/ack ") {
            assert_eq!(serde_json::from_slice::<Value>(body).unwrap(), json!({"acks": [7]}));
            polls += 1;
            return (200, json!({"acks": {"7": polls > 1}}).to_string().into());
        }
        (200, b"{\"text\":\"Success\",\"code\":0,\"ackId\":7}".to_vec())
    })
    .await;
    let body = Body::Splunk {
        index: Some("security".to_owned()),
        source: "pullwatch".to_owned(),
        sourcetype: "pullwatch:alert".to_owned(),
        host: Some("node-1".to_owned()),
        ack: true,
        alerts: 100,
        bytes: 1 << 20,
    };
    let memory = Memory::with([full(1, &hostile()), full(2, "alice")]);
    let rig = Rig::start(config(Kind::Http(http(address, body, Format::Falco))), &memory);
    rig.reaches(2).await;
    let requests = requests.lock().unwrap();
    let events: Vec<Value> =
        serde_json::Deserializer::from_slice(&requests[0].1).into_iter().map(Result::unwrap).collect();
    assert_eq!(events.len(), 2);
    let event = &events[1];
    assert_eq!(
        (&event["time"], &event["host"], &event["index"]),
        (&json!("1795405532.270"), &json!("node-1"), &json!("security"))
    );
    assert_eq!(
        (&event["sourcetype"], &event["fields"]["actor"]),
        (&json!("pullwatch:alert"), &json!("alice"))
    );
    assert_eq!(event["event"]["registry"]["hosts"], json!(["ghcr.io", "alice"]));
    let head = requests[0].0.to_ascii_lowercase();
    assert!(
        head.starts_with("post /services/collector/event ") && head.contains("x-splunk-request-channel: "),
        "{head}"
    );
    assert_eq!(requests.iter().filter(|(head, _)| head.contains("/collector/ack")).count(), 2);
}

#[tokio::test]
async fn otlp_requests_go_to_the_logs_endpoint_and_partial_success_is_noticed() {
    let mut first = true;
    let (address, requests) = receiver(move |_| {
        // partial_success { rejected_log_records: 1 }
        if std::mem::take(&mut first) { (200, vec![0x0a, 0x02, 0x08, 0x01]) } else { (200, Vec::new()) }
    })
    .await;
    let memory = Memory::with([full(1, "alice"), full(2, &hostile())]);
    let body = Body::Otlp { alerts: 100, bytes: 1 << 20 };
    let rig = Rig::start(config(Kind::Http(http(address, body, Format::Falco))), &memory);
    rig.reaches(2).await;
    let requests = requests.lock().unwrap();
    assert!(requests[0].0.starts_with("POST /v1/logs "));
    assert!(requests[0].0.to_ascii_lowercase().contains("content-type: application/x-protobuf"));
    // Both at once, and then each on its own.
    assert_eq!(requests.len(), 3);
    assert_eq!(requests[0].1[0], 0x0a);
}

#[tokio::test]
async fn templates_reach_a_service_as_json() {
    let (address, requests) = receiver(|_| (202, Vec::new())).await;
    let values = vec![("routing_key".to_owned(), Secret::new("R0"))];
    let body = Body::Template(Box::new(Template::new("pagerduty", values).unwrap()));
    let rig = Rig::start(
        config(Kind::Http(http(address, body, Format::Falco))),
        &Memory::with([full(1, &hostile())]),
    );
    rig.reaches(1).await;
    let requests = requests.lock().unwrap();
    let body: Value = serde_json::from_slice(&requests[0].1).unwrap();
    assert_eq!((&body["routing_key"], &body["event_action"]), (&json!("R0"), &json!("trigger")));
    assert_eq!(body["payload"]["custom_details"]["credentials"], "prod/regcred");
}
