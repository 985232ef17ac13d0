//! `pullwatch report` and `pullwatch baseline` on past logs.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use common::{RULE, alerts, event, ids, project, pullwatch, said, sample, scan};
use serde_json::Value;
use tempfile::TempDir;

/// The shipped rules, whatever the current directory is.
fn rules() -> String {
    project("rules.d").display().to_string()
}

/// Runs a command in a folder with the shipped rules.
fn run(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output =
        pullwatch().args(arguments).args(["--rules", &rules()]).current_dir(folder).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// A folder with `audit.log`.
fn folder(log: impl AsRef<[u8]>) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("audit.log"), log).unwrap();
    folder
}

/// The events on secrets of some people of the sample, and the first of a kubelet.
fn small() -> Vec<u8> {
    let log = String::from_utf8(sample("request-response.log.gz")).unwrap();
    let mut kubelet = 0;
    let mut out: String = log
        .lines()
        .filter(|line| {
            let by = |name: &str| line.contains(&format!("\"user\":{{\"username\":\"{name}\""));
            kubelet += usize::from(by("system:node:node-1"));
            line.contains("\"resource\":\"secrets\"")
                && !line.contains("\"verb\":\"list\",\"user\":{\"username\":\"alice\"")
                && !line.contains("\"requestURI\":\"/api/v1/secrets\"")
                && (["alice", "bob", "system:anonymous", "system:serviceaccount:velero:velero"]
                    .iter()
                    .any(|name| by(name))
                    || by("system:node:node-1") && kubelet < 40
                    || by("mallory") && line.contains("\"verb\":\"watch\""))
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    out.push_str("no event\n");
    out.into_bytes()
}

#[test]
fn report_lists_readers_and_registries_to_rotate() {
    let folder = folder(small());
    let (code, table, error) = run(folder.path(), &["report", "audit.log"]);
    assert_eq!((code, error.as_str()), (Some(0), ""));
    insta::assert_snapshot!("report_table", table);
    let (_, json, _) = run(folder.path(), &["report", "audit.log", "--format", "json"]);
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["registries"][0]["host"], "ghcr.io");
    insta::assert_snapshot!("report_json", json);
}

#[test]
fn reports_contain_no_secrets() {
    for name in ["request-response.log.gz", "kubernetes-1.36.log.gz", "objects.log.gz"] {
        let folder = folder(sample(name));
        for format in ["table", "json", "html", "csv"] {
            let (_, out, _) = run(folder.path(), &["report", "audit.log", "--format", format]);
            // The command that replaces a secret is no content of one.
            let out = out.replace("--docker-password=", "");
            for secret in ["eyJhdXRocy", "\"auth\"", "password", "dockerconfigjson\":"] {
                assert!(!out.contains(secret), "{name} {format} {secret}");
            }
        }
    }
}

#[test]
fn report_writes_one_csv_row_per_reader_and_credential() {
    let folder = folder(small());
    let (code, csv, _) = run(folder.path(), &["report", "audit.log", "--format", "csv"]);
    assert_eq!(code, Some(0));
    let (_, json, _) = run(folder.path(), &["report", "audit.log", "--format", "json"]);
    let report: Value = serde_json::from_str(&json).unwrap();
    let rows = |name: &str| report[name].as_array().unwrap().len();
    let expected = 1 + rows("reported") + rows("known_readers") + rows("whole_scopes") + rows("denied");
    assert_eq!(csv.matches("\r\n").count(), expected, "{csv}");
    assert!(csv.starts_with("\"kind\",\"user\",\"impersonated\",\"credential\","), "{csv}");
    assert!(csv.contains(
        "\"credential\",\"mallory\",\"\",\"production/registry-credentials\",\"production\",\"true\""
    ));
}

#[test]
fn report_takes_a_time_range_and_an_output_file() {
    let folder = folder(small());
    let (code, out, _) =
        run(folder.path(), &["report", "audit.log", "--since", "2026-11-24", "--output", "report.txt"]);
    assert_eq!((code, out.as_str()), (Some(0), ""));
    let report = fs::read_to_string(folder.path().join("report.txt")).unwrap();
    assert!(report.contains("0 events") && report.contains("outside the time range"), "{report}");
    let (code, _, error) = run(folder.path(), &["report", "nothing.log"]);
    assert!(code == Some(2) && error.contains("nothing.log"), "{error}");
}

/// What a client may send, inside a JSON string.
const HOSTILE: &str =
    r#"<script>alert(1)</script>&amp;\"'\u001b[2J\u202egnp.exe\nREAD `x` http://evil.example/ \u0000"#;

fn hostile_log() -> String {
    let line = event("a1", "get", "registry-1");
    let hostile =
        [("mallory", HOSTILE), ("curl/8", HOSTILE), ("192.0.2.7", HOSTILE), ("registry-1", HOSTILE)];
    let mut log = String::new();
    for (part, instead) in hostile {
        let instead = if part == "registry-1" { format!("registry{instead}") } else { instead.to_owned() };
        for _ in 0..3 {
            log.push_str(&line.replace(part, &instead));
            log.push('\n');
        }
    }
    log
}

/// Whether all elements are closed in their order, as in XML.
fn is_well_formed(page: &str) -> bool {
    let mut open = Vec::new();
    let body = page.strip_prefix("<!DOCTYPE html>").unwrap();
    for part in body.split('<').skip(1) {
        let Some((tag, _)) = part.split_once('>') else { return false };
        if tag.ends_with('/') {
            continue;
        }
        match tag.strip_prefix('/') {
            Some(name) => {
                if open.pop() != Some(name) {
                    return false;
                }
            }
            None => open.push(tag.split(' ').next().unwrap()),
        }
    }
    open.is_empty()
}

#[test]
fn html_report_is_self_contained_and_escapes_hostile_names() {
    let folder = folder(hostile_log());
    let (code, page, _) = run(folder.path(), &["report", "audit.log", "--format", "html"]);
    assert_eq!(code, Some(0));
    assert!(is_well_formed(&page), "{page}");
    // Names may break after their separators.
    assert!(
        page.replace("<wbr />", "").contains("&lt;script&gt;alert(1)&lt;/script&gt;&amp;amp;&quot;&#39;"),
        "{page}"
    );
    // The only links are those to the vendors' pages.
    for link in page.split("href=\"").skip(1) {
        assert!(link.starts_with("https://") && !link.split('"').next().unwrap().contains("evil"), "{link}");
    }
    for wrong in ["<script", "src=", "url(", "@import", "\u{1b}", "\u{202e}", "\0"] {
        assert!(!page.contains(wrong), "{wrong:?}");
    }
    assert!(
        page.contains("\\nREAD")
            && page.contains("prefers-color-scheme: dark")
            && page.contains("@media print")
    );
    for format in ["table", "json", "csv"] {
        let (_, out, _) = run(folder.path(), &["report", "audit.log", "--format", format]);
        assert!(!out.contains(['\u{1b}', '\u{202e}', '\0']) && !out.contains("\nREAD `"), "{out}");
    }
}

/// What the baseline has to silence, derived from alerts alone.
fn habits(alerts: &[Value], min_count: usize) -> BTreeSet<String> {
    let event = |alert: &Value| alert["event"].to_string();
    let grave: BTreeSet<String> = alerts
        .iter()
        .filter(|alert| {
            ["Emergency", "Alert", "Critical", "Error"].contains(&alert["priority"].as_str().unwrap())
        })
        .map(event)
        .collect();
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for alert in alerts {
        let (said, exposure) = (&alert["event"], alert["registry"]["exposure"].as_str());
        let user = said["user"]["username"].as_str().unwrap_or_default();
        let posed = said["impersonatedUser"]["username"].as_str();
        let target = &said["objectRef"];
        let is_person = !posed.unwrap_or(user).starts_with("system:");
        let agent = said["userAgent"].as_str().unwrap_or_default();
        let is_by_hand =
            [Some(user), posed].into_iter().flatten().any(|name| name.starts_with("system:serviceaccount:"))
                && agent.starts_with("kubectl/");
        let expected = [
            "Secrets Watched After Metadata List",
            "Registry Credential Read Again",
            "Secrets Listed Again",
            "Routine Secret Read",
        ];
        if !matches!(exposure, Some("payload" | "presumed" | "metadata"))
            || !["get", "list", "watch"].contains(&said["verb"].as_str().unwrap())
            || user == "system:anonymous"
            || alert["rule"] == "Secret Data Logged In Audit Log"
            || is_person
            || is_by_hand
            || expected.contains(&alert["rule"].as_str().unwrap())
            || grave.contains(&event(alert))
        {
            continue;
        }
        let key = format!(
            "{} {user} {posed:?} {} {} {}",
            alert["rule"], said["verb"], target["namespace"], target["name"]
        );
        groups.entry(key).or_default().push(alert["id"].as_str().unwrap().to_owned());
    }
    groups.into_values().filter(|ids| ids.len() >= min_count).flatten().collect()
}

fn without_correlations(alerts: Vec<Value>) -> Vec<Value> {
    alerts.into_iter().filter(|alert| alert.get("correlation").is_none()).collect()
}

/// A sample whose busiest reader is no person: what people read is never proposed.
fn sample_without_people(name: &str) -> Vec<u8> {
    String::from_utf8(sample(name)).unwrap().replace("\"mallory\"", "\"system:mallory\"").into_bytes()
}

/// The shipped rules without throttles, so that each read is an alert.
fn unthrottled_rules(folder: &Path) -> String {
    let copy = folder.join("rules");
    fs::create_dir(&copy).unwrap();
    for file in fs::read_dir(project("rules.d")).unwrap() {
        let path = file.unwrap().path();
        let (mut text, mut is_throttle) = (String::new(), false);
        for line in fs::read_to_string(&path).unwrap().lines() {
            is_throttle = line == "  throttle:" || is_throttle && line.starts_with("    ");
            if !is_throttle {
                text += line;
                text.push('\n');
            }
        }
        fs::write(copy.join(path.file_name().unwrap()), text).unwrap();
    }
    copy.display().to_string()
}

#[test]
fn baseline_excepts_exactly_the_recurring_reads() {
    let mut silenced = 0;
    for name in ["request-response.log.gz", "metadata.log.gz", "kubernetes-1.36.log.gz", "objects.log.gz"] {
        for min_count in [1, 2] {
            let folder = folder(sample_without_people(name));
            let rules = unthrottled_rules(folder.path());
            let log = folder.path().join("audit.log").display().to_string();
            let baseline = folder.path().join("baseline.yaml").display().to_string();
            let output = pullwatch()
                .args(["baseline", &log, "--min-count", &min_count.to_string(), "--output", &baseline])
                .args(["--rules", &rules])
                .output()
                .unwrap();
            assert_eq!((output.status.code(), &*output.stdout), (Some(0), &b""[..]));
            let before = without_correlations(alerts(&scan(&["--rules", &rules, &log])));
            let output = scan(&["--rules", &rules, "--rules", &baseline, &log]);
            assert_eq!(output.status.code(), Some(0), "{}", said(&output));
            let after: Vec<String> =
                without_correlations(alerts(&output)).iter().map(|alert| alert["id"].to_string()).collect();
            let habits = habits(&before, min_count);
            let left: Vec<String> = before
                .iter()
                .filter(|alert| !habits.contains(alert["id"].as_str().unwrap()))
                .map(|alert| alert["id"].to_string())
                .collect();
            assert_eq!(after, left, "{name} {min_count}");
            silenced += habits.len();
            // Behind its own exceptions nothing is left to propose.
            let again = pullwatch()
                .args(["baseline", &log, "--min-count", &min_count.to_string()])
                .args(["--rules", &rules, "--rules", &baseline])
                .output()
                .unwrap();
            let text = String::from_utf8(again.stdout.clone()).unwrap();
            assert!(text.contains("# Proposed: 0."), "{text}");
        }
    }
    assert!(silenced > 100, "{silenced}");
}

/// An event of a user, a secret name and a user agent, each as JSON text.
fn read_by(user: &str, name: &str, agent: &str) -> String {
    event("a1", "get", "registry-1")
        .replace("\"mallory\"", &format!("\"{user}\""))
        .replace("registry-1", name)
        .replace("curl/8", agent)
}

/// Runs a baseline over each event thrice, and gives the file and the users and names that still alert.
fn baseline_of(events: &[String]) -> (String, Vec<String>) {
    let log: String = events.iter().flat_map(|event| vec![event.clone() + "\n"; 3]).collect();
    let folder = folder(&log);
    let log = folder.path().join("audit.log").display().to_string();
    let baseline = folder.path().join("baseline.yaml").display().to_string();
    let (code, _, error) = run(folder.path(), &["baseline", &log, "--output", &baseline]);
    assert_eq!(code, Some(0), "{error}");
    let output = scan(&["--rules", &rules(), "--rules", &baseline, &log]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let left: BTreeSet<String> = without_correlations(alerts(&output))
        .iter()
        .filter(|alert| alert["registry"]["exposure"] == "presumed")
        .map(|alert| {
            let event = &alert["event"];
            let posed = event["impersonatedUser"]["username"].as_str();
            let user = event["user"]["username"].as_str().unwrap();
            format!(
                "{user}{} {}",
                posed.map(|posed| format!("+{posed}")).unwrap_or_default(),
                event["objectRef"]["name"]
            )
        })
        .collect();
    (fs::read_to_string(baseline).unwrap(), left.into_iter().collect())
}

#[test]
fn names_in_a_baseline_are_exact_and_inject_nothing() {
    let agent = r"x\n- rule: Evil\n  condition: always\u2028# \u0085 ]\r\n- list: known_secret_readers\u202e";
    let fine = [
        "o'brien",
        "'quoted'",
        "a: b # c",
        r"back\\slash\\",
        "josé",
        // A list's name, which stands for what the list holds where it is bare.
        "known_secret_readers",
        "(known_secret_readers)",
        "null",
        "0x10",
    ];
    let as_part = |user: &&str| read_by(&format!("system:{user}"), "registry-1", agent);
    let mut events: Vec<String> = fine.iter().map(as_part).collect();
    events.push(read_by("system:eve", "registry-known_secret_readers", agent));
    let (file, left) = baseline_of(&events);
    assert_eq!(left, Vec::<String>::new(), "{file}");
    for line in file.lines() {
        let start = line.trim_start();
        assert!(
            start.is_empty()
                || start.starts_with(['#', '['])
                || [
                    "- rule: 'Registry Credential Read'",
                    "exceptions:",
                    "- name: baseline_",
                    "fields: [",
                    "comps: [=, =, ",
                    "values:",
                    "- ['",
                    "- [\"",
                    "override: "
                ]
                .iter()
                .any(|known| start.starts_with(known)),
            "{line}"
        );
    }
    assert!(!file.contains(['\u{2028}', '\u{85}', '\u{202e}', '\r']));

    // Names that are redacted, since they do not look like names, cannot be matched by an exception: their reads stay reported.
    let hidden = [r#"\"quoted\""#, r#"x\"], [\"y"#, "- *anchor &a !tag |"];
    let events: Vec<String> = hidden.iter().map(|user| read_by(user, "registry-1", agent)).collect();
    let (file, left) = baseline_of(&events);
    assert_eq!(left.len(), hidden.len(), "{left:?}\n{file}");
    assert!(left.iter().all(|read| read.starts_with("<redacted string of ")), "{left:?}");

    let odd = [r"a\nb", r"\u202eevil", " blank", r"zero\u200bwidth", "alice as bob", "", "system:anonymous"];
    let events: Vec<String> = odd.iter().map(|user| read_by(user, "registry-1", agent)).collect();
    let (file, left) = baseline_of(&events);
    assert_eq!(left.len(), odd.len(), "{left:?}\n{file}");
    assert!(file.contains("# Proposed: 0."), "{file}");
}

#[test]
fn baseline_file_is_reviewable() {
    let folder = folder(small());
    let (code, file, said) = run(folder.path(), &["baseline", "audit.log", "--min-count", "2"]);
    assert_eq!((code, said.as_str()), (Some(0), "0 exceptions from 6109 events\n"));
    insta::assert_snapshot!("baseline", file);
}

#[test]
fn impersonators_are_distinct_from_users() {
    let direct = read_by("system:alice", "registry-1", "x");
    let posed = direct.replace(
        "\"sourceIPs\"",
        r#""impersonatedUser":{"username":"system:bob","groups":["system:authenticated"]},"sourceIPs""#,
    );
    // Only her own reads recur; the log of the second scan holds both.
    let (file, left) = baseline_of(std::slice::from_ref(&direct));
    assert!(left.is_empty(), "{left:?}");
    let folder = folder(format!("{direct}\n{posed}\n"));
    fs::write(folder.path().join("baseline.yaml"), file).unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let output = scan(&["--rules", &rules(), "--rules", &path("baseline.yaml"), &path("audit.log")]);
    let rules: Vec<Value> =
        without_correlations(alerts(&output)).iter().map(|alert| alert["rule"].clone()).collect();
    assert_eq!(rules, ["Secrets Read Via Impersonation", "Registry Credential Read"]);
    // A pair is reported once a day.
    let on_days = [23, 24, 25].map(|day| posed.replace("2026-11-23", &format!("2026-11-{day}")));
    let (file, left) = baseline_of(&on_days);
    assert!(left.is_empty() && file.contains("[ka.user.name, ka.impuser.name, "), "{left:?}\n{file}");
}

#[test]
fn baseline_keeps_denied_requests_of_broad_rules_reported() {
    let read = event("a1", "get", "registry-1").replace("mallory", "system:mallory") + "\n";
    let folder =
        folder(read.repeat(3) + &read.replace("\"code\":200", "\"code\":403").replace("a1", "denied"));
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::write(path("rule.yaml"), RULE).unwrap();
    let rules = ["--rules", &path("rule.yaml")];
    let baseline = ["baseline", &path("audit.log"), "--output", &path("baseline.yaml")];
    assert!(pullwatch().args(baseline).args(rules).status().unwrap().success());
    let before = scan(&["--rules", &path("rule.yaml"), &path("audit.log")]);
    assert_eq!(ids(&before), ["a1", "a1", "a1", "denied"]);
    let after = scan(&["--rules", &path("rule.yaml"), "--rules", &path("baseline.yaml"), &path("audit.log")]);
    assert_eq!(ids(&after), ["denied"]);
}

#[test]
fn days_count() {
    let on = |day: u32| {
        read_by("system:reader", "registry-1", "x").replace("2026-11-23", &format!("2026-11-{day}"))
    };
    let propose = |log: &str, arguments: &[&str]| {
        let folder = folder(log);
        let mut all = vec!["baseline", "audit.log"];
        all.extend(arguments);
        let (code, out, _) = run(folder.path(), &all);
        assert_eq!(code, Some(0));
        out.contains("# Proposed: 1.")
    };
    let one_day = format!("{}\n", on(20)).repeat(3);
    assert!(propose(&one_day, &[]));
    assert!(!propose(&one_day, &["--min-days", "2"]) && !propose(&one_day, &["--min-count", "4"]));
    // Of a log of more than three days a habit of one day is none.
    let other = event("a2", "get", "registry-2").replace("2026-11-23", "2026-11-28") + "\n";
    assert!(!propose(&format!("{one_day}{other}"), &[]));
    assert!(propose(&format!("{}\n{}\n{}\n{other}", on(20), on(20), on(21)), &[]));
}

#[test]
fn daemon_keeps_recurring_reads() {
    let log = String::from_utf8(sample_without_people("request-response.log.gz")).unwrap();
    let folder = folder(&log);
    let shipped = unthrottled_rules(folder.path());
    fs::write(folder.path().join("other.yaml"), RULE).unwrap();
    // Stopped in the middle, and with other rules in between, which change nothing.
    let middle = log[..log.len() / 2].rfind('\n').unwrap() + 1;
    for part in [&log[..middle], "", &log[middle..]] {
        let mut daemon = pullwatch()
            .args(["run", "-", "--state-dir", "state", "--listen", "127.0.0.1:0"])
            .args(["--rules", if part.is_empty() { "other.yaml" } else { &shipped }])
            .current_dir(folder.path())
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut daemon.stdin.take().unwrap(), part.as_bytes()).unwrap();
        assert_eq!(daemon.wait().unwrap().code(), Some(0));
    }
    let (code, from_logs, _) = run(folder.path(), &["baseline", "audit.log", "--min-count", "2"]);
    assert_eq!(code, Some(0));
    let (code, remembered, said) =
        run(folder.path(), &["baseline", "--state-dir", "state", "--min-count", "2", "--min-days", "1"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(" exceptions from ") && said.contains(" reads"), "{said}");
    // With how often, from where and by what: all but what only a log knows, at the head.
    let rows = |text: &str| text.split_once("\n- rule").unwrap().1.to_owned();
    assert!(rows(&remembered).lines().filter(|line| line.contains("- [")).count() > 4);
    assert_eq!(rows(&remembered), rows(&from_logs));
    let (code, _, said) = run(folder.path(), &["baseline", "audit.log", "--state-dir", "state"]);
    assert_eq!(code, Some(2), "{said}");
    let (code, _, said) = run(folder.path(), &["baseline", "--state-dir", "nowhere"]);
    assert_eq!(code, Some(2), "{said}");
}

#[test]
fn neither_people_nor_stolen_tokens_are_proposed() {
    let by_hand = |agent: &str| read_by("system:serviceaccount:ci:deployer", "registry-1", agent);
    for read in [read_by("mallory", "registry-1", "curl/8"), by_hand("kubectl/v1.33"), by_hand("")] {
        let (file, left) = baseline_of(std::slice::from_ref(&read));
        assert!(file.contains("# Proposed: 0.") && left.len() == 1, "{file}");
    }
}
