//! A model of forgery: a client puts an audit event into what an audit event says of its request, and everything between the apiserver
//! and pullwatch wraps, splits and cuts that event. Whatever it does, the forged event must never be evaluated.

use std::sync::LazyLock;

use base64::Engine as _;
use pullwatch::internals::detection::detector::{Detector, Options};
use pullwatch::internals::detection::rules::{self, SourceFile};
use serde_json::{Value, json};

static DETECTOR: LazyLock<Detector> = LazyLock::new(|| {
    let text = "- {rule: all, desc: d, condition: ka.user.name exists or ka.verb exists, output: '%ka.user.name', priority: INFO}\n";
    let file = SourceFile { name: "r.yaml".into(), text: text.to_owned() };
    Detector::new(&rules::load(&[file], &rules::Options::default()).rules, Options::default())
});

/// The name of the user in the forged event.
const FORGED: &str = "forged";

/// Makes choices by bytes.
struct Choices<'b>(&'b [u8]);

impl Choices<'_> {
    fn next(&mut self) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first)
    }

    fn of<'t, T>(&mut self, all: &'t [T]) -> &'t T {
        &all[self.next() % all.len()]
    }

    /// A position in a text.
    fn position(&mut self, text: &str) -> usize {
        let at = self.next() << 8 | self.next();
        (0..=at % (text.len() + 1)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default()
    }
}

/// An event in the apiserver's order of members. `extra` are the members after `responseStatus`.
fn event(user: &str, uri: &str, agent: &str, extra: &str) -> String {
    let text = |text: &str| Value::from(text).to_string();
    let id = text(&format!("id-{user}"));
    format!(
        r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Request","auditID":{id},"stage":"ResponseComplete","requestURI":{},"verb":"patch","user":{{"username":{},"groups":["system:authenticated"]}},"sourceIPs":["192.0.2.7"],"userAgent":{},"objectRef":{{"resource":"configmaps","apiVersion":"v1"}},"responseStatus":{{"metadata":{{}},"code":200}}{extra},"requestReceivedTimestamp":"2026-10-07T16:19:19.643609Z","stageTimestamp":"2026-10-07T16:19:19.647762Z","annotations":{{"authorization.k8s.io/decision":"allow"}}}}"#,
        text(uri),
        text(user),
        text(agent),
    )
}

/// Text that could make what follows it look like a record.
const NOISE: &[&str] = &[
    "",
    "\n",
    "\0",
    "\r\n",
    "\u{feff}",
    "\"}\n",
    "]}\n",
    "}}\n",
    "[Truncated...]",
    "[Truncated...]\n",
    "2026-11-23T04:00:00Z stdout F ",
    "\n2026-11-23T04:00:00Z stdout F ",
    "2026-11-23T04:00:00Z ",
    "\nip-10-0-0-1.ec2.internal ",
    "\n<133>Nov 23 03:46:20 cp1 k8s-audit: ",
    "[pod/kube-apiserver-a/kube-apiserver] ",
    "{\"log\":",
    "\n[",
    "MESSAGE=",
    "\u{2028}",
];

/// Wraps a text once.
fn wrap(text: &str, how: usize) -> String {
    let value: Option<Value> = serde_json::from_str(text).ok();
    let object = value.unwrap_or_else(|| Value::from(text));
    let gz = |text: &str| {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish()).unwrap_or_default()
    };
    let base64 = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let record = match how % 44 {
        0 => return format!("2026-11-23T03:46:20.8Z stdout F {text}"),
        1 => return format!("2026-11-23T03:46:20.8Z {text}"),
        2 => return format!("<133>Nov 23 03:46:20 cp1 k8s-audit: {text}"),
        3 => return format!("2026-11-23T03:46:20Z cp1 k3s[8]: {text}"),
        4 => return format!("2026-11-23T03:46:20+00:00\tkube.audit\t{text}"),
        5 => return format!("[pod/kube-apiserver-a/kube-apiserver] {text}"),
        6 => return format!("ip-10-0-0-1.ec2.internal {text}"),
        7 => return format!("<134>1 2026-11-23T03:46:20Z h a 1 - - {text}"),
        8 => return format!("2026-11-23T03:46:20Z {{job=\"audit\"}} {text}"),
        9 => return format!("\0\0\0{text}"),
        10 => json!({"log": text, "stream": "stdout"}),
        11 => json!({"log": format!("{text}\n"), "stream": "stdout", "time": "2026-11-23T03:46:20Z"}),
        12 => json!({"log": object, "stream": "stdout"}),
        13 => json!({"message": text}),
        14 => json!({"message": object}),
        15 => json!({"kubernetes": {"audit": object}}),
        16 => json!({"event": {"original": text}}),
        17 => json!({"time": "2026-11-23T03:46:20Z", "merged": object}),
        18 => json!({"records": [{"category": "kube-audit", "properties": {"log": text}}]}),
        19 => json!({"category": "kube-audit", "properties": {"log": object}}),
        20 => json!({"category": "kube-audit", "properties": json!({"log": text}).to_string()}),
        21 => {
            json!({"logStream": "kube-apiserver-audit-1", "logEvents": [{"message": text}, {"message": text}]})
        }
        22 => json!({"events": [{"logStreamName": "kube-apiserver-audit-1", "message": text}]}),
        23 => json!({"results": [[{"field": "@message", "value": text}]]}),
        24 => json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"stringValue": text}}]}]}]}),
        25 => json!({"hits": {"hits": [{"_source": {"message": text}}]}}),
        26 => json!({"_source": object}),
        27 => json!({"line": text}),
        28 => json!({"streams": [{"stream": {}, "values": [["1795405580873000000", text]]}]}),
        29 => json!({"data": {"result": [{"values": [["1795405580873000000", text]]}]}}),
        30 => json!({"result": {"_raw": text}}),
        31 => json!({"event": object}),
        32 => json!({"MESSAGE": text}),
        33 => json!({"MESSAGE": text.as_bytes()}),
        34 => json!({"short_message": text}),
        35 => json!({"payload": text}),
        36 => json!({"specversion": "1.0", "data": object}),
        37 => json!({"logName": "projects/p/logs/a", "textPayload": text}),
        38 => json!({"logName": "projects/p/logs/a", "jsonPayload": object}),
        39 => json!({"content": text}),
        40 => json!({"data": base64(&gz(text))}),
        41 => json!({"message": {"data": base64(text.as_bytes())}}),
        42 => json!([object]),
        _ => json!({"kind": "Record", "value": text}),
    };
    record.to_string()
}

/// Splits a line into pieces as something between does.
fn split(text: &str, choices: &mut Choices<'_>) -> String {
    let how = choices.next() % 6;
    let count = choices.next() % 4;
    let mut ends: Vec<usize> = (0..count).map(|_| choices.position(text)).collect();
    // Where a client would like it.
    if choices.next().is_multiple_of(2) {
        ends.extend(text.match_indices("{\"kind\"").skip(1).map(|(at, _)| at));
    }
    ends.push(text.len());
    ends.sort_unstable();
    ends.dedup();
    let mut log = String::new();
    let mut start = 0;
    for end in ends {
        let piece = &text[start..end];
        let is_last = end == text.len();
        start = end;
        let tag = if is_last { "F" } else { "P" };
        let line = match how {
            0 => format!("2026-11-23T03:46:20.8Z stdout {tag} {piece}"),
            1 => json!({"stream": "stdout", "logtag": tag, "log": piece}).to_string(),
            2 => json!({"partial_message": !is_last, "message": piece}).to_string(),
            3 => json!({"log": format!("2026-11-23T03:46:20.8Z stdout {tag} {piece}")}).to_string(),
            4 if is_last => json!({"MESSAGE": piece}).to_string(),
            4 => json!({"MESSAGE": piece, "_LINE_BREAK": "line-max"}).to_string(),
            _ => format!("<133>Nov 23 03:46:20 cp1 2026-11-23T03:46:20.8Z stdout {tag} {piece}"),
        };
        log += &line;
        log.push('\n');
    }
    log
}

/// The event of a client's request, in which the client put the forged one.
fn outer(choices: &mut Choices<'_>) -> String {
    let mut forged = event(FORGED, "/api/v1/secrets", "kubectl", "");
    for _ in 0..choices.next() % 3 {
        forged = wrap(&forged, choices.next());
    }
    let value: Value = serde_json::from_str(&forged).unwrap_or_else(|_| Value::from(&*forged));
    let text = format!("{}{forged}{}", choices.of(NOISE), choices.of(NOISE));
    let string = Value::from(&*text).to_string();
    let (mut uri, mut agent) = ("/api/v1/namespaces/a/configmaps/b".to_owned(), "kubectl".to_owned());
    // The apiserver keeps the order of members of a body that it copies.
    let forged_object = if value.is_string() { string.clone() } else { forged.clone() };
    let extra = match choices.next() % 9 {
        0 => format!(r#","requestObject":{forged_object}"#),
        1 => format!(r#","requestObject":[{{"op":"add","path":"/data","value":{forged_object}}}]"#),
        2 => format!(r#","requestObject":{{"kind":"ConfigMap","data":{{"a":{string}}}}}"#),
        3 => format!(r#","responseObject":{{"kind":"ConfigMap","items":[{forged_object},{forged_object}]}}"#),
        4 => format!(r#","requestObject":{string}"#),
        5 => format!(
            r#","requestObject":{{"log":{string},"message":{forged_object}}},"responseObject":{{"a":{string}}}"#
        ),
        6 => format!(r#","requestObject":[{forged_object},{string},[{forged_object}]]"#),
        7 => {
            uri = format!("/api/v1/namespaces/{text}");
            String::new()
        }
        _ => {
            agent = text;
            String::new()
        }
    };
    event("outer", &uri, &agent, &extra)
}

/// Evaluates one forgery.
///
/// # Errors
/// Returns the log if the forged event was evaluated.
pub fn check(bytes: &[u8]) -> Result<(), String> {
    let mut choices = Choices(bytes);
    let mut text = outer(&mut choices);
    let how = choices.next();
    if how % 4 == 1 {
        // Something cut the event.
        text.truncate(choices.position(&text));
        let ends: [&str; 4] = ["", "[Truncated...]", "\0\0\0", "..."];
        let end: &&str = choices.of(&ends);
        text.push_str(end);
    }
    let wraps = choices.next() % 4;
    let is_split = choices.next() % 3 == 0;
    if is_split {
        text = split(&text, &mut choices);
    }
    if !is_split || text.lines().count() == 1 {
        for _ in 0..wraps {
            text = wrap(text.trim_end_matches('\n'), choices.next());
        }
    }
    if how % 4 == 2 {
        text.truncate(choices.position(&text));
    }
    let neighbor = event("neighbor", "/api", "kubectl", "");
    let other = wrap(&neighbor, choices.next());
    let neighbors = choices.next() % 5;
    let names_pod = neighbors == 4;
    let log = match neighbors {
        0 => text,
        1 => format!("{text}\n{neighbor}\n"),
        2 => format!("{neighbor}\n{text}\n"),
        3 => format!("{other}\n{text}\n{other}\n"),
        _ => {
            let pod = json!({"namespace_name": "default", "pod_name": "web-0", "container_name": "web"});
            let forged = event(FORGED, "/api/v1/secrets", "kubectl", "");
            let record = json!({"log": forged, "stream": "stdout", "kubernetes": pod});
            format!("{text}\n{record}\n")
        }
    };
    let mut found = Vec::new();
    let mut on_alert = |alert: &pullwatch::Alert<'_>| found.push(alert.message().into_owned());
    let mut session = DETECTOR.session();
    session.chunk(log.as_bytes(), &mut on_alert);
    session.message(log.as_bytes(), &mut on_alert);
    // A record that is cut before it names its pod is evaluated: it may be the apiserver's.
    if !names_pod {
        session.head(&log.as_bytes()[..choices.position(&log)], &mut on_alert);
    }
    if found.iter().any(|message| message.contains(FORGED)) { Err(log) } else { Ok(()) }
}
