//! `pullwatch alerts` on a store created through the library.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::process::Output;

use common::{project, pullwatch, said};
use pullwatch::internals::daemon::store::{Batch, Options, Store};
use pullwatch::internals::detection::alert::Priority;
use pullwatch::internals::detection::alert::{AlertId, NewAlert};
use serde_json::Value;

const SECOND: i64 = 1_000_000_000;

fn run(dir: &Path, arguments: &[&str]) -> Output {
    pullwatch()
        .arg("alerts")
        .args(arguments)
        .env("PULLWATCH_STATE_DIR", dir)
        .env("SUDO_USER", "ada")
        .output()
        .unwrap()
}

fn out(dir: &Path, arguments: &[&str]) -> String {
    let output = run(dir, arguments);
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the error message of a failed command.
fn error(dir: &Path, arguments: &[&str]) -> String {
    let output = run(dir, arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    assert!(output.stdout.is_empty());
    said(&output)
}

fn keep(store: &mut Store, alerts: &[NewAlert]) {
    let now = 1_795_428_000 * SECOND;
    store.commit(&Batch { alerts, now, ..Batch::default() }).unwrap();
}

/// A store with the alerts of a sample log.
fn sample() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let scan = pullwatch()
        .args(["scan", "--format", "json", "-q"])
        .arg(project("samples/audit/request-response.log.gz"))
        .output()
        .unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let alerts: Vec<NewAlert> = scan
        .stdout
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| {
            let alert: Value = serde_json::from_slice(line).unwrap();
            let id = u128::from_str_radix(alert["id"].as_str().unwrap(), 16).unwrap();
            let object = &alert["event"]["objectRef"];
            let message = text(&alert["output"]);
            NewAlert {
                id: id.to_be_bytes(),
                time: alert["output_fields"]["evt.time"].as_i64().unwrap(),
                rule: text(&alert["rule"]),
                priority: Priority::parse(alert["priority"].as_str().unwrap()).unwrap(),
                actor: text(&alert["event"]["user"]["username"]),
                target: format!(
                    "{} {}/{}",
                    text(&object["resource"]),
                    text(&object["namespace"]),
                    text(&object["name"])
                ),
                json: String::from_utf8(line.to_vec())
                    .unwrap()
                    .replace(&text(&alert["hostname"]), "node-1")
                    .into_bytes(),
                message: message.split_once(' ').unwrap().1.split_once(' ').unwrap().1.to_owned(),
            }
        })
        .collect();
    assert!(alerts.len() > 20);
    let mut store = Store::open(dir.path(), &Options::default()).unwrap().store;
    keep(&mut store, &alerts);
    (dir, store)
}

#[test]
fn lists_and_shows_alerts_while_the_daemon_runs() {
    let (dir, _daemon) = sample();
    let list = out(dir.path(), &["list", "--limit", "8", "--priority", "warning"]);
    insta::assert_snapshot!("list", list);
    let of_rule = ["list", "--rule", "Registry Credentials Harvested", "--user", "mallory", "-n", "1"];
    let harvested = out(dir.path(), &of_rule);
    let id = harvested.lines().nth(1).unwrap().split_whitespace().nth(3).unwrap().to_owned();
    let shown = out(dir.path(), &["show", &id[..8]]);
    let version = shown.rsplit_once("rule_set").unwrap().1.trim();
    assert!(version.len() == 12 && version.bytes().all(|digit| digit.is_ascii_hexdigit()), "{version}");
    // The version changes with every rule.
    insta::assert_snapshot!("show", shown.replace(version, "(version)"));

    let json = out(dir.path(), &["list", "--user", "mallory", "--format", "json", "--limit", "0"]);
    let alerts: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(alerts.len() > 2);
    assert!(alerts.iter().all(|alert| alert["event"]["user"]["username"] == "mallory"));
    let shown: Value = serde_json::from_str(&out(dir.path(), &["show", &id, "--format", "json"])).unwrap();
    assert!(alerts.contains(&shown));
}

#[test]
fn filters_alerts_and_explains_an_empty_list() {
    let (dir, _daemon) = sample();
    let count = |arguments: &[&str]| {
        let arguments = [&["list", "--format", "json", "-n", "0"], arguments].concat();
        out(dir.path(), &arguments).lines().count()
    };
    let all = count(&[]);
    let split = "2026-11-23T03:46:22Z";
    let (before, after) = (count(&["--until", split]), count(&["--since", split]));
    assert!(before > 0 && after > 0 && before + after == all);
    assert!(count(&["--priority", "critical"]) < count(&["--priority", "notice"]));

    let output = run(dir.path(), &["list", "-n", "3"]);
    assert_eq!(String::from_utf8(output.stdout.clone()).unwrap().lines().count(), 4);
    assert_eq!(said(&output), format!("and {} older alerts; use --limit 0 to list all\n", all - 3));
    assert_eq!(said(&run(dir.path(), &["list", "--since", "2100-01-01"])), "no matching alerts\n");
    let output = run(dir.path(), &["list", "--rule", "Secrets Lsted"]);
    assert!(said(&output).contains("did you mean `Secrets Listed`?"), "{}", said(&output));
    assert!(error(dir.path(), &["list", "--since", split, "--until", split]).contains("invalid time range"));
}

#[test]
fn acknowledges_an_alert_once() {
    let (dir, _daemon) = sample();
    let ids: Vec<String> = out(dir.path(), &["list", "-n", "3", "--format", "json"])
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned())
        .collect();
    // If one id is not found, no alert is acknowledged.
    let nothing = "f".repeat(32);
    assert!(error(dir.path(), &["ack", &ids[0], &nothing]).contains(&nothing));
    let open = |arguments: &[&str]| {
        let arguments = [&["list", "-n", "0", "--format", "json", "--unacknowledged"], arguments].concat();
        out(dir.path(), &arguments).lines().count()
    };
    let before = open(&[]);
    let said = out(dir.path(), &["ack", &ids[0][..10], &ids[1], "--note", "a \u{1b}[31mdrill"]);
    assert_eq!(said.lines().filter(|line| line.contains("  acknowledged: ")).count(), 2);
    assert_eq!(open(&[]), before - 2);
    let said = out(dir.path(), &["ack", &ids[0], &ids[2], "--by", "eve"]);
    assert!(said.lines().next().unwrap().contains("already acknowledged by ada"), "{said}");
    assert!(said.lines().nth(1).unwrap().contains("  acknowledged: "), "{said}");

    assert!(out(dir.path(), &["show", &ids[0]]).contains("by ada: a \\u{1b}[31mdrill"));
    let shown: Value =
        serde_json::from_str(&out(dir.path(), &["show", &ids[2], "--format", "json"])).unwrap();
    assert_eq!((&shown["acknowledged"]["by"], &shown["acknowledged"]["note"]), (&"eve".into(), &"".into()));
    let list = out(dir.path(), &["list", "-n", "3"]);
    assert!(list.lines().nth(1).unwrap().ends_with("ada") && list.lines().nth(3).unwrap().ends_with("eve"));
}

#[test]
fn errors_name_the_remedy() {
    let empty = tempfile::tempdir().unwrap();
    let said = error(empty.path(), &["list"]);
    assert!(said.contains("no store in") && said.contains("--state-dir"), "{said}");
    assert!(!empty.path().join("pullwatch.db").exists());
    let (dir, mut daemon) = sample();
    assert!(error(dir.path(), &["show", "nothing"]).contains("hex digits"));
    let twins = [[0xaa; 16], [[0xaa; 8], [0xbb; 8]].concat().try_into().unwrap()].map(hostile);
    keep(&mut daemon, &twins);
    let said = error(dir.path(), &["show", "aaaaaaaa"]);
    assert!(said.contains("several alerts\n  aaaaaaaaaaaaaaaa"), "{said}");
    // The option takes precedence over the environment.
    let state = dir.path().to_str().unwrap();
    assert!(!out(empty.path(), &["list", "--state-dir", state]).is_empty());
}

fn hostile(id: AlertId) -> NewAlert {
    let text = "\u{1b}]0;x\u{7}\r\n\u{9b}31m\u{202e}\0".to_owned();
    NewAlert {
        id,
        time: i64::MIN,
        rule: text.clone(),
        priority: Priority::Emergency,
        actor: text.clone(),
        target: text.clone(),
        json: b"{\"output\":\"\\u001b\",\"\\u009b\":{\"\\u001b\\u202e\":[\"\\r\\u0007\",{\"a\":\"\xe2\x80\xae\"}]},\"tags\":[\"\\n\"]}".to_vec(),
        message: text,
    }
}

#[test]
fn escapes_control_characters_of_stored_alerts() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path(), &Options::default()).unwrap().store;
    let damaged = NewAlert { json: b"\x1b[2J\xff\0".to_vec(), time: i64::MAX, ..hostile([0xbb; 16]) };
    keep(&mut store, &[hostile([0xaa; 16]), damaged]);
    for arguments in [
        &["list"][..],
        &["list", "--format", "json"],
        &["show", "aa"],
        &["show", "bb"],
        &["show", "aa", "--format", "json"],
        &["show", "bb", "--format", "json"],
        &["list", "--rule", "\u{1b}[2J"],
        &["ack", "aa"],
        &["ack", "aa", "--by", "\u{1b}"],
        &["list"],
    ] {
        let output = run(dir.path(), arguments);
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        for text in [String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap()] {
            let odd = |letter: char| letter != '\n' && (letter.is_control() || letter == '\u{202e}');
            assert!(!text.contains(odd), "{arguments:?}: {text:?}");
        }
    }
    assert_eq!(out(dir.path(), &["list"]).lines().count(), 3);
    keep(&mut store, &[NewAlert { actor: "🙂\u{1b}".repeat(10_000), ..hostile([0xcc; 16]) }]);
    assert!(out(dir.path(), &["list"]).lines().all(|line| line.chars().count() < 400));
}
