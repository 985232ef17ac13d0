//! `pullwatch scan` on real files: input, output and exit status.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use common::{RULE, alerts, event, ids, peak_memory, project, pullwatch, said, sample, scan};
use tempfile::TempDir;

/// A directory with a rule file, and the path of that file.
fn folder() -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rule.yaml");
    fs::write(&rules, RULE).unwrap();
    let rules = rules.display().to_string();
    (folder, rules)
}

fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) -> String {
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    path.display().to_string()
}

/// Scans one file of this content.
fn scan_text(content: impl AsRef<[u8]>) -> (Vec<String>, String) {
    let (folder, rules) = folder();
    let log = write(folder.path(), "audit.log", content);
    let output = scan(&["--rules", &rules, &log]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    (ids(&output), said(&output))
}

#[test]
fn reports_the_reads_in_the_sample_log() {
    let log = project("samples/audit/request-response.log.gz").display().to_string();
    let output = scan(&["--rules", &project("rules.d").display().to_string(), &log]);
    let alerts = alerts(&output);
    let of = |rule: &str| alerts.iter().filter(|alert| alert["rule"] == rule).count();
    assert!(of("Registry Credential Read") >= 10 && of("Secrets Listed") >= 10 && of("Secrets Watched") >= 3);
    let first = &alerts[0];
    for key in
        ["hostname", "output", "output_fields", "priority", "rule", "source", "tags", "time", "id", "event"]
    {
        assert!(first.get(key).is_some(), "{key}");
    }
    for key in
        ["auditID", "stage", "verb", "user", "sourceIPs", "userAgent", "objectRef", "code", "requestURI"]
    {
        assert!(first["event"].get(key).is_some(), "{key}");
    }
    let summary = said(&output);
    assert!(summary.contains("10,282 events") && summary.contains("mallory"), "{summary}");
}

#[test]
fn output_does_not_depend_on_the_number_of_threads() {
    let log = project("samples/audit/request-response.log.gz").display().to_string();
    let metadata = project("samples/audit/metadata.log.gz").display().to_string();
    let one = scan(&["--threads", "1", &log, &metadata]);
    assert!(alerts(&one).len() > 50);
    for threads in ["2", "7"] {
        assert_eq!(scan(&["--threads", threads, &log, &metadata]).stdout, one.stdout);
    }
}

#[test]
fn alert_ids_depend_on_event_and_rule_only() {
    let list =
        |items: &str| format!(r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":[{items}]}}"#);
    let one = event("a1", "get", "registry-1");
    let in_list = one.replacen(r#""kind":"Event","apiVersion":"audit.k8s.io/v1","#, "", 1);
    let (folder, rules) = folder();
    let log = write(
        folder.path(),
        "a.log",
        format!("{one}\n{}\n{}\n", list(&in_list), event("a2", "get", "registry-1")),
    );
    let found = alerts(&scan(&["--rules", &rules, &log]));
    assert_eq!(found.len(), 3);
    assert_eq!(found[0]["id"], found[1]["id"]);
    assert_ne!(found[0]["id"], found[2]["id"]);
    assert_eq!(found[0]["id"].as_str().unwrap().len(), 32);
}

#[test]
fn finds_events_in_every_json_layout() {
    let one = event("a1", "get", "registry-1");
    let two = event("a2", "get", "registry-2");
    let three = event("a3", "get", "registry-3");
    let pretty = |line: &str| {
        serde_json::to_string_pretty(&serde_json::from_str::<serde_json::Value>(line).unwrap()).unwrap()
    };
    let in_order = |line: &str| {
        // Reversed: nothing may depend on the order of members.
        let value: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).unwrap();
        serde_json::Value::Object(value.into_iter().rev().collect()).to_string()
    };
    let escaped = |line: &str| {
        line.replace(r#""verb""#, r#""v\u0065rb""#)
            .replace("registry", r"r\u0065gistry")
            .replace("secrets\"", "secret\\u0073\"")
    };
    for content in [
        format!("{one}\n{two}\n{three}\n"),
        format!("{one}\r\n\r\n{two}\r\n\n\n{three}"),
        format!("\u{feff}{one}\n{two}\n{three}\n"),
        format!("[{one},{two},{three}]\n"),
        format!("[\n{one},\n{two},\n{three}\n]\n"),
        format!("[{one},\n{two},\n{three}]\n"),
        format!("{}\n{}\n{}\n", pretty(&one), pretty(&two), pretty(&three)),
        format!("{}{}\n{}", pretty(&one), pretty(&two), three),
        format!("{}\n", pretty(&format!("[{one},{two},{three}]"))),
        format!("{one}{two} {three}\n"),
        format!("{}\n{}\n{}\n", in_order(&one), in_order(&two), in_order(&three)),
        format!("{}\n{}\n{}\n", escaped(&one), escaped(&two), escaped(&three)),
        format!(r#"{{"kind":"EventList","items":[{one},{two}]}}{}{three}"#, "\n"),
        format!(r#"{{"items":[{one},{two}],"kind":"EventList"}}{}{three}"#, "\n"),
        format!("{}\n{two}\n\t {three} \n", one.replace("\":", "\" : ").replace(",\"", " , \"")),
    ] {
        let (found, said) = scan_text(&content);
        assert_eq!(found, ["a1", "a2", "a3"], "{said}\n{content}");
        assert!(said.contains("3 events") && !said.contains("Malformed"), "{said}\n{content}");
    }
}

#[test]
fn counts_malformed_records_by_reason_and_continues() {
    let good = event("a1", "get", "registry-1");
    let half = &good[..good.len() / 2];
    for (content, reason) in [
        (format!("rubbish\n{good}\n"), "not JSON"),
        (format!("\u{0}\u{1}\u{2}\n{good}\n"), "not JSON"),
        (format!("{{\"kind\":\"Event\" oops}}\n{good}\n"), "broken JSON"),
        (format!("{{oops}}\n{good}\n"), "broken JSON"),
        (format!("{{\"kind\":\"Pod\"}}\n{good}\n"), "not an audit event"),
        (format!("{{}}\n[1]\n{good}\n"), "not an audit event"),
        (format!("{half}\n{good}\n"), "cut off"),
        (format!("{good}\n{half}"), "cut off"),
        (format!("{half}{good}\n"), "cut off"),
        (format!("{good} oops\n"), "text after an event"),
        (format!("[{good},{{\"kind\":\"Event\" oops}}]\n"), "broken JSON"),
        (format!("{}\n", good.replacen('{', r#"{"verb":"get","#, 1)), "duplicate member"),
        (format!("{}\n", good.replace("curl/8", r"\ud83d")), "lone surrogate"),
        (format!("{}\n{}\n", good, "[".repeat(10_000)), "cut off|broken JSON|"),
    ] {
        let (found, said) = scan_text(&content);
        assert!(found.contains(&"a1".to_owned()), "{reason}: {said}");
        assert!(reason.split('|').any(|reason| said.contains(reason)), "{reason}: {said}");
    }
    let mut binary = good.replace("curl/8", "curl/?").into_bytes();
    let at = binary.iter().position(|&byte| byte == b'?').unwrap();
    binary[at] = 0xff;
    let (found, said) = scan_text(&binary);
    assert_eq!(found, ["a1"]);
    assert!(said.contains("invalid UTF-8"), "{said}");
}

#[test]
fn an_event_that_a_client_nested_is_not_a_record_where_its_own_event_lost_its_beginning() {
    let forged = event("f1", "get", "registry-1");
    let end = r#""requestReceivedTimestamp":"2026-01-01T00:00:00.000000Z","stageTimestamp":"2026-01-01T00:00:00.000001Z""#;
    let good = event("a1", "get", "registry-1");
    for before_end in ["}],", "},", "}],\"responseObject\":{\"a\":[1,\"]}\"]},", "},{\"op\":\"test\"}],"] {
        for annotations in ["", r#","annotations":{"a":"b"}"#] {
            let tail = format!("{forged}{before_end}{end}{annotations}}}");
            let cri = format!("2026-01-01T00:00:00.000000000Z stdout F {tail}\n");
            for content in
                [format!("{tail}\n{good}\n"), format!("{cri}{good}\n"), format!("{forged}, {tail}\n{good}\n")]
            {
                let (found, said) = scan_text(&content);
                assert_eq!(found.last().map(String::as_str), Some("a1"), "{content}: {said}");
                assert!(said.contains("end of an event without its beginning"), "{content}: {said}");
                // What comes before the end of an event on its line is a record.
                let records = usize::from(content.starts_with(&format!("{forged}, "))) + 1;
                assert_eq!(found.len(), records, "{content}");
            }
        }
    }
    // Lists that are written over several lines.
    for content in [
        format!("{{\"kind\":\"EventList\",\"items\":[\n{good},\n{good}],\"metadata\":{{}}}}\n"),
        format!("[\n{good},{good}\n,{good}]\n"),
        format!("[{good},\n{good}]\n"),
    ] {
        let (found, said) = scan_text(&content);
        assert!(found.len() >= 2, "{content}: {said}");
    }
}

#[test]
fn accepts_deep_nesting_and_empty_files() {
    let deep = format!("{}{}{}", "{\"a\":".repeat(10_000), 1, "}".repeat(10_000));
    let good = event("a1", "get", "registry-1").replacen('{', &format!("{{\"requestObject\":{deep},"), 1);
    assert_eq!(scan_text(format!("{deep}\n{good}\n")).0, ["a1"]);
    let (found, said) = scan_text("");
    assert!(found.is_empty() && said.contains("0 events"), "{said}");
}

#[test]
fn evaluates_a_too_long_line_by_its_head() {
    let (folder, rules) = folder();
    let body = "x".repeat(300_000);
    let long = event("big", "get", "registry-1").replace(
        r#""requestReceived"#,
        &format!(r#""responseObject":{{"kind":"Secret","data":{{"x":"{body}"}}}},"requestReceived"#),
    );
    let log = write(
        folder.path(),
        "a.log",
        format!("{}\n{long}\n{}\n", event("a1", "get", "registry-1"), event("a2", "get", "registry-1")),
    );
    let output = scan(&["--rules", &rules, "--max-event-size", "64K", &log]);
    assert_eq!(ids(&output), ["a1", "big", "a2"]);
    assert_eq!(alerts(&output)[1]["event"]["truncated"], true);
    assert!(said(&output).contains("longer than --max-event-size"), "{}", said(&output));
}

#[test]
#[cfg(target_os = "linux")]
fn memory_is_bounded_for_any_line_length() {
    let (folder, rules) = folder();
    let log = folder.path().join("a.log");
    let mut file = std::io::BufWriter::new(fs::File::create(&log).unwrap());
    let head = event("big", "get", "registry-1");
    let (head, tail) = head.split_at(head.find(r#""requestReceived"#).unwrap());
    write!(file, "{head}\"responseObject\":{{\"data\":\"").unwrap();
    for _ in 0..200 {
        file.write_all(&vec![b'x'; 1_000_000]).unwrap();
    }
    writeln!(file, "\"}},{tail}\n{}", event("a2", "get", "registry-1")).unwrap();
    drop(file);
    let small = folder.path().join("small.log");
    fs::write(&small, event("a1", "get", "registry-1") + "\n").unwrap();
    let scan = |log: &std::path::Path, more: &[&str]| {
        peak_memory(
            pullwatch()
                .args(["scan", "--format", "json", "--threads", "1", "--rules", &rules])
                .args(more)
                .arg(log),
        )
    };
    // The program itself takes memory too, and more without optimization.
    let (own, found) = scan(&small, &[]);
    assert_eq!(found, ["a1"]);
    let (peak, found) = scan(&log, &[]);
    assert_eq!(found, ["big", "a2"]);
    // The default limit is 64 MiB.
    assert!(peak < own + (76 << 20), "{peak} bytes, {own} of them the program's own");
    let (peak, found) = scan(&log, &["--max-event-size", "1M"]);
    assert_eq!(found, ["big", "a2"]);
    assert!(peak < own + (8 << 20), "{peak} bytes, {own} of them the program's own");
}

#[test]
fn reads_compressed_and_rotated_logs_in_time_order() {
    let (folder, rules) = folder();
    let logs = folder.path().join("logs");
    fs::create_dir(&logs).unwrap();
    let line = |id: &str| event(id, "get", "registry-1") + "\n";
    let gzip = |text: String| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    // Two members, as a log that was appended to has.
    write(&logs, "audit-2026-11-23T03-53-15.501.log.gz", [gzip(line("a1")), gzip(line("a2"))].concat());
    write(
        &logs,
        "audit-2026-11-23T04-53-15.501.log.zst",
        zstd::encode_all(line("a3").as_bytes(), 1).unwrap(),
    );
    write(&logs, "audit-2026-11-23T05-53-15.501.log", line("a4"));
    write(&logs, "audit.log", line("a5"));
    write(&logs, ".hidden.log", line("no"));
    write(&logs, "notes.txt", line("no"));
    let all = ["a1", "a2", "a3", "a4", "a5"];
    let folder_name = logs.display().to_string();
    assert_eq!(ids(&scan(&["--rules", &rules, &folder_name])), all);
    assert_eq!(ids(&scan(&["--rules", &rules, &format!("{folder_name}/audit*")])), all);
    assert_eq!(ids(&scan(&["--rules", &rules, &format!("{folder_name}/audit.log"), &folder_name])), all);
    // By their bytes, not by their names.
    let stdin = fs::File::open(logs.join("audit-2026-11-23T04-53-15.501.log.zst")).unwrap();
    let output =
        pullwatch().args(["scan", "--format", "json", "--rules", &rules]).stdin(stdin).output().unwrap();
    assert_eq!(ids(&output), ["a3"]);
}

#[test]
fn names_unreadable_inputs_and_continues() {
    let (folder, rules) = folder();
    let good = write(folder.path(), "good.log", event("a1", "get", "registry-1") + "\n");
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    encoder.write_all((event("a2", "get", "registry-1") + "\n").repeat(100).as_bytes()).unwrap();
    let whole = encoder.finish().unwrap();
    let broken = write(folder.path(), "broken.log.gz", &whole[..whole.len() / 2]);
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let missing = folder.path().join("missing.log").display().to_string();
    let output =
        scan(&["--rules", &rules, &missing, &broken, &empty.display().to_string(), "no-such-*.log", &good]);
    assert_eq!(output.status.code(), Some(2));
    let found = ids(&output);
    assert!(found.contains(&"a1".to_owned()) && found.len() > 10, "{found:?}");
    let said = said(&output);
    for part in [
        "missing.log: no such file",
        "broken.log.gz:",
        "empty: no audit log",
        "no-such-*.log: no file matches",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn exits_quietly_on_a_closed_pipe() {
    let log = project("samples/audit/request-response.log.gz").display().to_string();
    for threads in ["1", "4"] {
        let mut child = pullwatch()
            .args(["scan", "--format", "json", "--threads", threads, &log, &log])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(said(&output), "");
    }
}

#[test]
fn exit_codes_are_a_contract() {
    let (folder, rules) = folder();
    let log = write(folder.path(), "a.log", event("a1", "get", "registry-1"));
    let code = |arguments: &[&str]| scan(arguments).status.code();
    assert_eq!(code(&["--rules", &rules, &log]), Some(0));
    assert_eq!(code(&["--rules", &rules, &log, "--fail-on", "warning"]), Some(1));
    assert_eq!(code(&["--rules", &rules, &log, "--fail-on", "error"]), Some(0));
    assert_eq!(code(&["--rules", "/no/such.yaml", &log]), Some(2));
    assert_eq!(code(&["--fail-on", "bad", &log]), Some(2));
    let wrong = write(
        folder.path(),
        "wrong.yaml",
        "- rule: X\n  desc: d\n  condition: ka.nosuch = 1\n  output: x\n  priority: INFO\n",
    );
    let output = scan(&["--rules", &wrong, &log]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("unknown field `ka.nosuch`"), "{}", said(&output));
}

/// Rules of another source beside those that are evaluated cost one line, not silence.
#[test]
fn names_rules_that_are_skipped_because_of_their_source() {
    let (folder, rules) = folder();
    let log = write(folder.path(), "audit.log", event("1", "get", "registry"));
    let other = "- {rule: \"Shell in\\x1ba container\", desc: d, condition: proc.name = bash, output: x, priority: INFO}\n";
    let typing_error =
        "- {rule: t, desc: d, condition: ka.verb = get, output: x, priority: INFO, source: k8saudit}\n";
    write(folder.path(), "other.yaml", other);
    write(folder.path(), "wrong.yaml", typing_error);
    let [other, wrong] =
        ["other.yaml", "wrong.yaml"].map(|name| folder.path().join(name).display().to_string());
    let output = scan(&["--rules", &rules, "--rules", &other, "--rules", &wrong, &log]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let skipped: Vec<String> =
        said(&output).lines().filter(|line| line.contains("skipped")).map(str::to_owned).collect();
    assert_eq!(skipped.len(), 1, "{skipped:?}");
    assert!(
        skipped[0].contains("`t`") && skipped[0].contains("Shell in") && !skipped[0].contains('\u{1b}'),
        "{skipped:?}"
    );
    let output = scan(&["--rules", &wrong, &log]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("did you mean `source: k8s_audit`?"), "{}", said(&output));
}

#[test]
fn filters_by_time_and_priority() {
    let (folder, rules) = folder();
    let at = |id: &str, time: &str| {
        event(id, "get", "registry-1").replace("2026-11-23T10:00:00.000100Z", time) + "\n"
    };
    let content = at("a1", "2026-11-23T09:00:00Z")
        + &at("a2", "2026-11-23T10:00:00Z")
        + &at("a3", "2026-11-23T11:00:00Z");
    let log = write(folder.path(), "a.log", content);
    let output = scan(&[
        "--rules",
        &rules,
        &log,
        "--since",
        "2026-11-23T10:00:00Z",
        "--until",
        "2026-11-23T11:00:00Z",
    ]);
    assert_eq!(ids(&output), ["a2"]);
    assert!(said(&output).contains("2 events outside the time range"), "{}", said(&output));
    assert!(ids(&scan(&["--rules", &rules, &log, "--priority", "error"])).is_empty());
}

#[test]
fn rule_matching_selects_the_first_or_all_rules() {
    let (folder, _) = folder();
    let rules = RULE.to_owned() + &RULE.replace("Registry Secret Access", "Another");
    let rules = write(folder.path(), "two.yaml", rules);
    let log = write(folder.path(), "a.log", event("a1", "get", "registry-1"));
    assert_eq!(alerts(&scan(&["--rules", &rules, &log])).len(), 2);
    let first = alerts(&scan(&["--rules", &rules, &log, "--rule-matching", "first"]));
    assert_eq!(first.len(), 1);
    assert_eq!(first[0]["rule"], "Registry Secret Access");
}

#[test]
fn text_output_has_no_control_characters() {
    let (folder, rules) = folder();
    let rule = RULE.replace("id=%ka.auditid", "agent=%ka.useragent");
    fs::write(folder.path().join("rule.yaml"), rule).unwrap();
    let hostile = event("a1", "get", "registry-1").replace("curl/8", r"x\u001b[2J\n\r\u0085\u202e\u2028y");
    let log = write(folder.path(), "a.log", hostile);
    let output = pullwatch().args(["scan", "--color", "always", "--rules", &rules, &log]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1);
    assert!(text.contains(r"agent=x\u{1b}[2J\n\r\u{85}\u{202e}\u{2028}y"), "{text}");
    assert!(text.contains("\u{1b}[33m"), "the priority is colored: {text:?}");
    let plain = pullwatch().args(["scan", "--rules", &rules, &log]).output().unwrap();
    assert!(!String::from_utf8(plain.stdout).unwrap().contains('\u{1b}'));
    let json = scan(&["--rules", &rules, &log]).stdout;
    assert!(!String::from_utf8(json).unwrap().trim_end().chars().any(char::is_control));
}

#[test]
fn evaluates_standard_input_without_waiting_for_its_end() {
    use std::io::{BufRead as _, BufReader};
    let (_folder, rules) = folder();
    let mut child = pullwatch()
        .args(["scan", "--format", "json", "--rules", &rules])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for id in ["a1", "a2"] {
        writeln!(stdin, "{}", event(id, "get", "registry-1")).unwrap();
        stdin.flush().unwrap();
        // The pipe is still open: the alert does not wait for more.
        assert!(lines.next().unwrap().unwrap().contains(id));
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[test]
fn uses_the_built_in_rules_without_rule_files() {
    let elsewhere = tempfile::tempdir().unwrap();
    let log = write(elsewhere.path(), "a.log", sample("metadata.log.gz"));
    let output =
        pullwatch().args(["scan", "--format", "json", &log]).current_dir(elsewhere.path()).output().unwrap();
    assert!(output.status.success() && alerts(&output).len() > 10);
}

#[test]
fn stateful_matches_do_not_depend_on_the_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    // Each credential is known only by a reference that comes before its second read, often in another buffer.
    let number = 1500;
    let mut log = String::new();
    for at in 0..number {
        let name = format!("plain-{at}");
        let read = event(&format!("r{at}"), "get", &name);
        let pod = event(&format!("p{at}"), "create", "pod")
            .replace("\"resource\":\"secrets\"", "\"resource\":\"pods\"")
            .replace("\"level\":\"Metadata\"", "\"level\":\"Request\"")
            .replace(
                "\"requestReceived",
                &format!(r#""requestObject":{{"spec":{{"imagePullSecrets":[{{"name":"{name}"}}],"x":"{}"}}}},"requestReceived"#, "y".repeat(at % 700)),
            );
        log.extend([read, "\n".to_owned(), pod, "\n".to_owned()]);
        if at >= 300 {
            log.push_str(&event(&format!("s{at}"), "get", &format!("plain-{}", at - 300)));
            log.push('\n');
        }
    }
    let log = write(folder.path(), "a.log", log);
    let one = scan(&["--threads", "1", &log]);
    let alerts = alerts(&one);
    let reads = alerts.iter().filter(|alert| alert["rule"] == "Registry Credential Read");
    let found: Vec<&str> = reads.map(|alert| alert["event"]["auditID"].as_str().unwrap()).collect();
    assert!(alerts.iter().any(|alert| alert["correlation"]["value_count"] == 5), "{}", said(&one));
    let expected: Vec<String> = (300..number).map(|at| format!("s{at}")).collect();
    assert_eq!(found, expected, "{}", said(&one));
    for threads in ["2", "3", "8"] {
        let many = scan(&["--threads", threads, &log]);
        assert!(many.stdout == one.stdout, "output differs with {threads} threads");
    }
    // Events before the time range still update the cluster state.
    let since = scan(&["--since", "2026-11-23T09:59:59Z", "--threads", "2", &log]);
    assert!(since.stdout == one.stdout);
}
