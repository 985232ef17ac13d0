//! Attacks that were written by reading the source of pullwatch: each must be reported.
//!
//! `tests/data/evasion/NAME.jsonl` are events as an apiserver logs them, one attack or more a file. Events of the set-up are
//! in them as well. A report is an alert at Notice or above for the audit id of the attack, by a rule that is not about the
//! audit log itself.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// The attacks by file, as the last four digits of their audit ids.
const ATTACKS: &[(&str, &[&str])] = &[
    ("builtin-roles.jsonl", &["0001", "0003", "0005", "0006"]),
    ("default-readers.jsonl", &["0047", "0050"]),
    ("dryrun-pod.jsonl", &["0016"]),
    ("dryrun-role.jsonl", &["0023"]),
    ("dryrun-secret.jsonl", &["0012"]),
    ("empty-members.jsonl", &["0056"]),
    ("forget-pod.jsonl", &["0004"]),
    ("jsonpatch.jsonl", &["0041", "0043"]),
    ("notsuccess-payload.jsonl", &["0053", "0055"]),
    ("opaque-docker.jsonl", &["0052"]),
    ("role-star.jsonl", &["0034", "0035", "0037", "0039"]),
    ("role-verbs.jsonl", &["0025"]),
    ("selector.jsonl", &["0002", "0003", "0006", "0007"]),
    ("uncovered.jsonl", &["0064", "0066", "0070"]),
    ("websocket.jsonl", &["0002"]),
];

/// Attacks that are not reported yet.
const UNREPORTED: &[(&str, &str)] = &[
    ("builtin-roles.jsonl", "0001"),
    ("builtin-roles.jsonl", "0003"),
    ("builtin-roles.jsonl", "0005"),
    ("builtin-roles.jsonl", "0006"),
    ("default-readers.jsonl", "0047"),
    ("default-readers.jsonl", "0050"),
    ("jsonpatch.jsonl", "0041"),
    ("jsonpatch.jsonl", "0043"),
    ("role-star.jsonl", "0034"),
    ("role-star.jsonl", "0035"),
    ("role-star.jsonl", "0037"),
    ("role-star.jsonl", "0039"),
    ("uncovered.jsonl", "0064"),
    ("uncovered.jsonl", "0066"),
    ("uncovered.jsonl", "0070"),
];

/// The alerts of a file with the shipped rules.
fn scan(file: &str) -> Vec<serde_json::Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/evasion").join(file);
    let output = Command::new(env!("CARGO_BIN_EXE_pullwatch"))
        .args(["scan", "--format", "json"])
        .arg(path)
        .output()
        .unwrap();
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
}

/// The last four digits of the audit ids that were reported.
fn reported(alerts: &[serde_json::Value]) -> BTreeSet<String> {
    let is_report = |alert: &&serde_json::Value| {
        let is_urgent = matches!(
            alert["priority"].as_str().unwrap(),
            "Emergency" | "Alert" | "Critical" | "Error" | "Warning" | "Notice"
        );
        is_urgent && !alert["rule"].as_str().unwrap().to_lowercase().contains("audit log")
    };
    alerts
        .iter()
        .filter(is_report)
        .map(|alert| {
            let id = alert["event"]["auditID"].as_str().unwrap();
            id[id.len() - 4..].to_owned()
        })
        .collect()
}

#[test]
fn every_attack_is_reported() {
    let mut wrong = Vec::new();
    for (file, ids) in ATTACKS {
        let reported = reported(&scan(file));
        for id in *ids {
            let is_expected = !UNREPORTED.contains(&(file, id));
            if reported.contains(*id) != is_expected {
                wrong.push(format!("{file}: {id}: reported: {}", reported.contains(*id)));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_file_of_attacks_is_tested() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/evasion");
    let files: BTreeSet<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".jsonl"))
        .collect();
    assert_eq!(files, ATTACKS.iter().map(|(file, _)| (*file).to_owned()).collect());
}
