//! The commands other than `scan` and `run`, as a user runs them.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use common::{event, project, pullwatch};

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = pullwatch().args(arguments).current_dir(project("")).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_shipped_rules_load_without_warnings_and_pass_their_tests() {
    let (code, out, err) = run(&["rules", "check", "--strict"]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    let tests: Vec<String> = fs::read_dir(project("tests/rules"))
        .unwrap()
        .map(|entry| entry.unwrap().path().display().to_string())
        .filter(|path| std::path::Path::new(path).extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    let mut arguments = vec!["rules", "test"];
    arguments.extend(tests.iter().map(String::as_str));
    let (code, out, err) = run(&arguments);
    assert_eq!(code, Some(0), "{out}{err}");
    // Every enabled rule has a test in which it fires.
    let (_, list, _) = run(&["rules", "list", "--desc"]);
    let mut all: String = tests.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    // Tests with more events than one writes by hand.
    all += &fs::read_to_string(project("tests/evasion.rs")).unwrap();
    let rules = pullwatch::internals::detection::rules::load(
        &shipped(),
        &pullwatch::internals::detection::rules::Options::default(),
    )
    .rules;
    let correlations = rules.correlations.iter().map(|one| (&one.name, one.enabled));
    // What a rule without alerts matches shows in the correlations that it feeds.
    let alerting = rules.rules.iter().map(|rule| (&rule.name, rule.enabled && rule.makes_alerts));
    for (name, enabled) in alerting.chain(correlations) {
        assert!(list.contains(&**name));
        let fires =
            [format!("rule: {name}"), format!("rule: \"{name}\""), format!("[\"rule\"] == \"{name}\"")];
        assert!(!enabled || fires.iter().any(|fires| all.contains(fires)), "{name} has no test");
    }
}

#[test]
fn explaining_a_correlation_names_its_rules() {
    let event = event("a", "get", "registry");
    let (code, _, err) =
        run(&["rules", "explain", "--rule", "Secret Access Failures Followed By Read", &event]);
    assert_eq!(code, Some(2));
    assert!(err.contains("  Repeated Secret Access Failures\n  Registry Credential Read"), "{err}");
}

fn shipped() -> Vec<pullwatch::internals::detection::rules::SourceFile> {
    let mut paths: Vec<_> =
        fs::read_dir(project("rules.d")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let file = |path: &std::path::PathBuf| pullwatch::internals::detection::rules::SourceFile {
        name: path.display().to_string().into(),
        text: fs::read_to_string(path).unwrap(),
    };
    paths.iter().map(file).collect()
}

#[test]
fn every_file_of_rules_d_is_in_the_binary() {
    let elsewhere = tempfile::tempdir().unwrap();
    let bare = pullwatch().args(["rules", "list"]).current_dir(elsewhere.path()).output().unwrap();
    let here = pullwatch().args(["rules", "list"]).current_dir(project("")).output().unwrap();
    assert_eq!(bare.stdout, here.stdout);
}

#[test]
fn rule_errors_show_their_position() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wrong.yaml");
    let text = "- rule: Wrong\n  desc: d\n  condition: >\n    kevt and ka.verb in (get, list)\n    and ka.user.nam = mallory\n  output: x %ka.verv\n  priority: URGENT\n- macro: m\n  condition: (ka.verb = get\n- rule: Uses m\n  desc: d\n  condition: m and kevnt\n  output: x\n  priority: INFO\n";
    fs::write(&path, text).unwrap();
    let (code, out, err) = run(&["rules", "check", &path.display().to_string()]);
    assert_eq!(code, Some(1));
    assert!(out.contains("errors"), "{out}");
    insta::assert_snapshot!(err.replace(&path.display().to_string(), "wrong.yaml"));
}

#[test]
fn suspicious_rules_load_with_warnings() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("odd.yaml");
    let rule = |name: &str, condition: &str| {
        format!("- rule: {name}\n  desc: d\n  condition: {condition}\n  output: x\n  priority: INFO\n")
    };
    let text = rule("First", "ka.verb = get")
        + &rule("Shadowed", "ka.verb = get and ka.user.name = x")
        + &rule(
            "Never",
            "ka.stage = Complete or ka.verb = GET or (ka.uri = a and ka.uri = b) or len(ka.uri) < 0",
        )
        + &rule("Regex", "ka.uri regex \"reg.*\"")
        + &rule("Text", "ka.uri = ka.verb or ka.verb in nolist")
        + "- macro: unused\n  condition: ka.nosuch = 1\n- list: idle\n  items: []\n  itmes: []\n- foo: bar\n";
    fs::write(&path, text).unwrap();
    let name = path.display().to_string();
    let (code, out, err) = run(&["rules", "check", "--first", &name]);
    assert_eq!(code, Some(0), "{out}");
    for (code, count) in [
        ("shadowed", 1),
        ("never-true", 4),
        ("simple-regex", 1),
        ("field-as-text", 1),
        ("unknown-list", 1),
        ("unused-macro", 1),
        ("unknown-field", 1),
        ("unused-list", 1),
        ("unknown-key", 1),
        ("unknown-item", 1),
    ] {
        assert_eq!(err.matches(&format!("warning[{code}]")).count(), count, "{code}: {err}");
    }
    assert!(!err.contains("error["), "{err}");
    assert_eq!(run(&["rules", "check", "--strict", &name]).0, Some(1));
}

#[test]
fn counts_and_lists_correlations() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.yaml");
    let text = "- rule: Read\n  desc: d\n  condition: ka.verb = get\n  output: x\n  priority: INFO\n\
        - correlation: Many\n  desc: Too many.\n  type: event_count\n  rules: [Read]\n  timespan: 1m\n  condition: {gte: 9}\n  \
        output: x %correlation.count\n  priority: ERROR\n";
    fs::write(&path, text).unwrap();
    let name = path.display().to_string();
    let (code, out, err) = run(&["rules", "check", &name]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.starts_with("1 rule, 1 correlation, "), "{out}");
    let (_, out, _) = run(&["rules", "list", &name]);
    let rows: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().take(3).collect()).collect();
    assert_eq!(rows[1..], [["Read", "rule", "Informational"], ["Many", "event_count", "Error"]]);
    assert!(run(&["rules", "list", "--desc", &name]).1.contains("Too many."));
}

#[test]
fn explains_rules() {
    let text = event("a1", "list", "registry-1").replace(r#""name":"registry-1","#, "");
    let (code, out, _) = run(&["rules", "explain", "--rule", "Secrets Listed", &text]);
    assert_eq!(code, Some(0));
    insta::assert_snapshot!(out);
    let other = text.replace("\"list\"", "\"get\"");
    let (code, out, _) = run(&["rules", "explain", "--rule", "Secrets Listed", "--failing", &other]);
    assert_eq!(code, Some(1));
    insta::assert_snapshot!(out);
    let (code, _, err) = run(&["rules", "explain", "--rule", "Nosuch", &text]);
    assert!(code == Some(2) && err.contains("no rule named `Nosuch`"), "{err}");
}

#[test]
fn failed_rule_tests_report_missing_and_unexpected_alerts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.yaml");
    let text = format!(
        "rule_files: [{}]\ntests:\n  - name: wrong\n    events:\n      - {{verb: list, objectRef: {{resource: secrets}}}}\n    alerts:\n      - rule: Secrets Watched\n",
        project("rules.d").display()
    );
    fs::write(&path, text).unwrap();
    let (code, out, _) = run(&["rules", "test", &path.display().to_string()]);
    assert_eq!(code, Some(1));
    for part in ["FAILED", "missing: Secrets Watched", "unexpected: Secrets Listed", "0 passed, 1 failed"] {
        assert!(out.contains(part), "{part}: {out}");
    }
    fs::write(&path, "tests:\n  - name: x\n    events: []\n    alerts: []\n    oops: 1\n").unwrap();
    let (code, _, err) = run(&["rules", "test", &path.display().to_string()]);
    assert!(code == Some(2) && err.contains("unknown key `oops`"), "{err}");
}

#[test]
fn every_help_text_has_examples() {
    for command in [
        &["--help"][..],
        &["scan", "--help"],
        &["rules", "--help"],
        &["rules", "check", "--help"],
        &["rules", "list", "--help"],
        &["rules", "fields", "--help"],
        &["rules", "explain", "--help"],
        &["rules", "test", "--help"],
        &["completions", "--help"],
        &["man", "--help"],
    ] {
        let (code, out, _) = run(command);
        assert_eq!(code, Some(0));
        assert!(out.contains("Examples:"), "{command:?}: {out}");
    }
    let (code, _, err) = run(&["scna"]);
    assert!(code == Some(2) && err.contains("scan"), "{err}");
}

#[test]
fn writes_completions_and_manual_pages() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let (code, out, _) = run(&["completions", shell]);
        assert!(code == Some(0) && out.contains("explain"), "{shell}");
    }
    let folder = tempfile::tempdir().unwrap();
    let (code, _, err) = run(&["man", &folder.path().display().to_string()]);
    assert_eq!(code, Some(0), "{err}");
    let pages: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for page in ["pullwatch.1", "pullwatch-scan.1", "pullwatch-rules-explain.1"] {
        assert!(pages.iter().any(|name| name == page), "{pages:?}");
    }
}

#[test]
fn lists_fields() {
    let (code, out, _) = run(&["rules", "fields"]);
    assert_eq!(code, Some(0));
    for field in ["ka.user.name", "jevt.value[key]", "ka.req.pod.containers.image[i]", "evt.time"] {
        assert!(out.contains(field), "{field}");
    }
}

#[test]
fn empty_results_say_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().display().to_string();
    let log = folder.path().join("empty.log");
    fs::write(&log, "").unwrap();

    let secrets = folder.path().join("secrets.json");
    fs::write(&secrets, r#"{"kind": "List", "apiVersion": "v1", "items": []}"#).unwrap();
    let secrets = secrets.display().to_string();
    let (code, _, err) = run(&["inventory", "import", &secrets, "--state-dir", &state]);
    assert_eq!(code, Some(0), "{err}");

    let (_, out, err) = run(&["inventory", "list", "--state-dir", &state]);
    assert!(!format!("{out}{err}").contains("NAMESPACE"), "{out}{err}");
    assert!(format!("{out}{err}").starts_with("registry credentials: 0;"), "{out}{err}");
    let (code, out, _) = run(&["report", &log.display().to_string()]);
    assert_eq!(code, Some(0));
    assert!(out.starts_with("No event was read: "), "{out}");
}

#[test]
fn an_invalid_log_filter_is_reported_and_the_default_used() {
    let output = pullwatch().args(["rules", "list"]).env("PULLWATCH_LOG", "pullwatch=loud").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("PULLWATCH_LOG is not a valid filter"), "{said}");
}
