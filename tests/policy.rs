//! `pullwatch policy check`, as a person uses it, and what it says against what apiservers wrote.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::process::Stdio;

use common::{project, pullwatch, sample};
use pullwatch::internals::detection::policy::model::{Attributes, Target, User};
use pullwatch::internals::detection::policy::requests::Request;
use pullwatch::internals::detection::policy::{Level, Policy, Stage, Verdict, coverage, read};
use pullwatch::internals::detection::rules::SourceFile;
use serde_json::Value;

/// The policy of the specification. It has no catch-all.
const SPECIFICATION: &str = r#"apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- level: RequestResponse
  omitStages: ["RequestReceived"]
  verbs: ["get","list","watch"]
  resources:
  - group: ""
    resources: ["secrets"]
- level: Metadata
  verbs: ["create","update","patch","delete"]
  resources:
  - group: ""
    resources: ["secrets"]
"#;

/// Rules whose needs differ: bodies, stages, subresources, reviews, resources that nobody knows.
const RULES: &str = r#"
- rule: Secret Deleted In Bulk
  desc: d
  condition: kevt and secret and ka.verb = deletecollection
  output: x
  priority: NOTICE
  tags: [T1485]
- rule: Command In Pod
  desc: d
  condition: kevt_started and ka.target.resource = pods and ka.target.subresource = exec
  output: "%ka.uri.param[command]"
  priority: NOTICE
  tags: [T1609]
- rule: Role Grants Secret Read Access
  desc: d
  condition: kevt and (role or clusterrole) and kmodify and ka.req.role.rules.resources intersects (secrets)
  output: x
  priority: NOTICE
  tags: [T1098.006]
- rule: Permission Asked
  desc: d
  condition: kevt and ka.target.resource = selfsubjectaccessreviews and kcreate
  output: "%jevt.value[/requestObject/spec/resourceAttributes/resource]"
  priority: NOTICE
  tags: [T1613]
- rule: Token Issued
  desc: d
  condition: kevt and serviceaccount and ka.target.subresource = token and kcreate
  output: x
  priority: NOTICE
  tags: [T1528]
- rule: Pod Named By The Apiserver
  desc: d
  condition: kevt and pod and kcreate and ka.resp.name startswith "x-"
  output: x
  priority: NOTICE
- rule: Kube Proxy Reads A Secret
  desc: d
  condition: kevt and secret and kget and ka.user.name = "system:kube-proxy"
  output: x
  priority: NOTICE
- rule: Gateway Changed
  desc: d
  condition: kevt and ka.target.resource = gateways and kmodify
  output: x
  priority: NOTICE
- rule: Credential Read
  desc: d
  condition: kevt and secret and ka.verb in (get, list) and registry.exposure in (payload, presumed)
  output: "%registry.secrets %registry.hosts"
  priority: NOTICE
  tags: [T1552.007]
- rule: Names Of Credentials Read
  desc: d
  condition: kevt and secret and ka.verb in (get, list) and registry.exposure = metadata
  output: x
  priority: NOTICE
- rule: Watch Of Secrets
  desc: d
  condition: kevt_started and secret and ka.verb = watch
  output: x
  priority: NOTICE
  tags: [T1552.007]
- rule: Watch Of Anything
  desc: d
  condition: ka.verb = watch
  output: x
  priority: NOTICE
- rule: Never
  desc: d
  condition: kevt and k8s_audit_never_true
  output: x
  priority: NOTICE
- rule: Off
  desc: d
  condition: kevt
  output: x
  priority: NOTICE
  enabled: false
"#;

/// Runs `policy check` with a policy as standard input and these arguments.
fn check(policy: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    use std::io::Write as _;
    let mut child = pullwatch()
        .args(["policy", "check", "-"])
        .args(arguments)
        .current_dir(project(""))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that is too long is not read to its end.
    let _ = child.stdin.take().unwrap().write_all(policy.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Runs it with rules of the test, and reads its JSON.
fn findings(policy: &str, rules: &str, arguments: &[&str]) -> (Option<i32>, Value) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rules.yaml");
    fs::write(&path, rules).unwrap();
    let path = path.display().to_string();
    let (code, out, err) = check(policy, &[&["--rules", &path, "--format", "json"], arguments].concat());
    assert!(!err.contains("error"), "{err}");
    (code, serde_json::from_str(&out).unwrap())
}

fn verdicts(findings: &Value) -> Vec<(&str, &str)> {
    let rules = findings["rules"].as_array().unwrap().iter();
    rules.map(|rule| (rule["rule"].as_str().unwrap(), rule["verdict"].as_str().unwrap())).collect()
}

fn policy(text: &str) -> Policy {
    let read = read::read(&SourceFile { name: "p.yaml".into(), text: text.to_owned() });
    assert!(read.diagnostics.is_empty(), "{:?}", read.diagnostics);
    read.policy.unwrap()
}

fn with(rule: &str) -> String {
    format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n{rule}- level: Metadata\n")
}

#[test]
fn specification_policy_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rules.yaml");
    fs::write(&path, common::RULE.to_owned() + RULES).unwrap();
    let (code, out, err) = check(SPECIFICATION, &["--rules", &path.display().to_string()]);
    assert_eq!((code, err.as_str()), (Some(1), ""));
    insta::assert_snapshot!(out);
}

#[test]
fn sample_policy_leaves_no_rule_blind_and_writes_no_credential() {
    let text = fs::read_to_string(project("samples/audit-policy.yaml")).unwrap();
    let (code, out, err) = check(&text, &[]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert!(out.contains("Credentials written to the audit log\nNone.\n"), "{out}");
    let (code, findings) = findings(&text, RULES, &[]);
    assert_eq!(code, Some(1));
    assert_eq!(
        verdicts(&findings),
        [
            ("Secret Deleted In Bulk", "sees"),
            ("Command In Pod", "sees"),
            ("Role Grants Secret Read Access", "sees"),
            ("Permission Asked", "sees"),
            ("Token Issued", "sees"),
            ("Pod Named By The Apiserver", "blind"),
            ("Kube Proxy Reads A Secret", "sees"),
            ("Gateway Changed", "sees"),
            ("Credential Read", "partly"),
            ("Names Of Credentials Read", "withheld"),
            ("Watch Of Secrets", "sees"),
            ("Watch Of Anything", "partly"),
            ("Never", "never"),
        ]
    );
}

#[test]
fn policy_errors_point_at_their_position() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broken.yaml");
    let text = "apiVersion: audit.k8s.io/v1beta1\nkind: Policy\nomitStages: [RequestRecieved]\nrules:\n- level: metadata\n- level: Request\n  resource:\n  - group: apps/v1\n- level: Metadata\n  nonResourceURLs: ['/a*b', version]\n  namespaces: [x]\n- level: Request\n  resources: [{group: apps/v1, resourceNames: [x]}]\n- verbs: get\n";
    fs::write(&path, text).unwrap();
    let name = path.display().to_string();
    let output = pullwatch().args(["policy", "check", &name]).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
    insta::assert_snapshot!(String::from_utf8(output.stderr).unwrap().replace(&name, "broken.yaml"));
}

#[test]
fn invalid_files_are_errors_and_odd_ones_warnings() {
    let odd =
        with("- level: Metadata\n- level: Request\n  resources: [{group: '', resources: [deployments]}]\n");
    let reads = [project("rules.d/00-common.yaml"), project("rules.d/10-reads.yaml")];
    let [common, reads] = reads.map(|path| path.display().to_string());
    let (code, _, err) = check(&odd, &["--rules", &common, "--rules", &reads]);
    assert_eq!(code, Some(0), "{err}");
    for warning in ["warning[unreachable]", "warning[wrong-group]", "it is in group `apps`"] {
        assert!(err.contains(warning), "{warning}: {err}");
    }
    for (text, message) in [
        ("", "the file contains no policy"),
        ("[1", "not valid YAML"),
        ("- a\n", "a policy must be a mapping"),
        ("kind: Pod\napiVersion: v1\nrules: []\n", "not an audit policy"),
        ("apiVersion: audit.k8s.io/v1\nkind: Policy\n", "the policy has no rules"),
        (
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: None\n- level: None\n  level: None\n",
            "duplicate key",
        ),
        (
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- {level: None, users: eve}\n",
            "expected a sequence of strings",
        ),
        (
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- {level: None, users: [[eve]]}\n",
            "expected a text",
        ),
        ("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- {level: None}\n---\na: b\n", "one document"),
    ] {
        let (code, _, err) = check(text, &[]);
        assert!(code == Some(2) && err.contains(message), "{message}: {err}");
    }
    let (code, _, err) = check(&"#".repeat(2 << 20), &[]);
    assert!(code == Some(2) && err.contains("too large for an audit policy"), "{err}");
}

#[test]
fn recommended_policy_serves_the_rules_and_logs_no_payload() {
    let recommend = |arguments: &[&str]| {
        let output = pullwatch()
            .args(["policy", "check", "--recommend"])
            .args(arguments)
            .current_dir(project(""))
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stdout).unwrap()
    };
    let shipped = recommend(&[]);
    let (code, out, err) = check(&shipped, &[]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert!(out.contains("Credentials written to the audit log\nNone.\n"), "{out}");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rules.yaml");
    fs::write(&path, RULES).unwrap();
    let own = recommend(&["--rules", &path.display().to_string()]);
    let (code, found) = findings(&own, RULES, &[]);
    assert_eq!((code, found["credentials_on_disk"].as_array().unwrap().len()), (Some(0), 0), "{own}");
    for (rule, verdict) in verdicts(&found) {
        // What only credentials on disk would tell stays unknown.
        let expected = match rule {
            "Credential Read" => "partly",
            "Names Of Credentials Read" => "withheld",
            "Never" => "never",
            _ => "sees",
        };
        assert_eq!(verdict, expected, "{rule}: {own}");
    }
    insta::assert_snapshot!(own);
}

#[test]
fn gaps_of_some_users_differ_from_gaps_of_all() {
    let reasons = |policy: &str, rule: &str| -> (String, String) {
        let (_, findings) = findings(policy, RULES, &[]);
        let rules = findings["rules"].as_array().unwrap();
        let found = rules.iter().find(|found| found["rule"] == rule).unwrap().clone();
        let reasons: Vec<&str> =
            found["reasons"].as_array().unwrap().iter().map(|reason| reason.as_str().unwrap()).collect();
        (found["verdict"].as_str().unwrap().to_owned(), reasons.join("\n"))
    };
    let proxy = with("- level: None\n  users: ['system:kube-proxy']\n");
    let (verdict, why) = reasons(&proxy, "Token Issued");
    assert_eq!(verdict, "partly");
    assert_eq!(
        why,
        "create serviceaccounts/token, not for user system:kube-proxy: line 4 sets level None; add a rule with level Metadata before it"
    );
    let two = with("- level: None\n  users: [eve, adam]\n");
    assert!(reasons(&two, "Token Issued").1.contains("not for user adam; for user eve: line 4"));
    // Who waits for that user alone is blind.
    assert_eq!(reasons(&proxy, "Kube Proxy Reads A Secret").0, "blind");
    // And who cannot fire on them misses nothing.
    let node = with("- level: None\n  userGroups: ['system:nodes']\n");
    assert_eq!(reasons(&node, "Kube Proxy Reads A Secret").0, "sees");

    let place = with("- level: None\n  namespaces: [kube-system]\n");
    let (verdict, why) = reasons(&place, "Command In Pod");
    assert!(verdict == "partly" && why.contains("not in namespace kube-system"), "{why}");
    let nowhere = with("- level: None\n  omitStages: []\n  resources: [{group: ''}]\n");
    assert_eq!(reasons(&nowhere, "Command In Pod").0, "blind");
    let stage = with("- level: Metadata\n  omitStages: [ResponseStarted]\n");
    let (verdict, why) = reasons(&stage, "Command In Pod");
    assert!(verdict == "blind" && why.contains("line 5 omits stage ResponseStarted"), "{why}");
    assert_eq!(reasons(&stage, "Watch Of Secrets").0, "blind");
    assert_eq!(reasons(&stage, "Watch Of Anything").0, "sees", "at RequestReceived");
    let stage = stage.replace("[R", "[RequestReceived, R");
    let (verdict, why) = reasons(&stage, "Watch Of Anything");
    assert!(
        verdict == "partly"
            && why.contains("only when the request ends, because line 5 omits stage ResponseStarted"),
        "{why}"
    );
    let (_, out, _) = check(&stage, &[]);
    for part in ["secrets watched", "visible only at its end", "failed logins"] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let (verdict, why) = reasons(&with(""), "Role Grants Secret Read Access");
    assert!(
        verdict == "blind" && why.contains("line 4 logs at level Metadata; this rule requires Request"),
        "{why}"
    );
    let (verdict, why) = reasons(&with(""), "Permission Asked");
    assert!(verdict == "partly" && why.contains("requestObject"), "{why}");
}

#[test]
fn help_has_examples() {
    for command in [&["policy", "--help"][..], &["policy", "check", "--help"]] {
        let output = pullwatch().args(command).output().unwrap();
        assert!(output.status.success());
        assert!(String::from_utf8(output.stdout).unwrap().contains("Examples:"));
    }
    let output = pullwatch().args(["policy", "check"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn limits_of_the_apiserver_are_taken_into_account() {
    let all = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: RequestResponse}]\n";
    let (_, out, _) = check(all, &["--maxsize", "5", "--truncate-max-event-size", "2097152"]);
    assert!(out.contains("--audit-log-maxsize 5: larger events are dropped"), "{out}");
    assert!(out.contains("larger than 2 MiB lose their objects"), "{out}");
    for payload in ["secrets", "config maps", "valid service account tokens", "bearer tokens"] {
        assert!(out.contains(payload), "{payload}: {out}");
    }
    let request = with("- level: Request\n  resources: [{group: apps}]\n");
    let (_, findings) = findings(&request, RULES, &[]);
    let size = &findings["event_sizes"][0];
    assert_eq!(
        (size["may_be_dropped"].as_bool(), size["may_be_truncated"].as_bool()),
        (Some(false), Some(true))
    );
}

/// What an event says of its request, for the policy.
fn decide<'p>(policy: &'p Policy, event: &Value) -> (Level, Option<usize>, Option<&'p [Stage]>) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let groups: Vec<String> = event["user"]["groups"].as_array().into_iter().flatten().map(text).collect();
    let (name, verb, uri) =
        (text(&event["user"]["username"]), text(&event["verb"]), text(&event["requestURI"]));
    let object = &event["objectRef"];
    let part = |key: &str| text(&object[key]);
    let (group, resource, subresource) = (part("apiGroup"), part("resource"), part("subresource"));
    let (namespace, object_name) = (part("namespace"), part("name"));
    let target = if object.is_object() {
        Target::Resource {
            group: &group,
            resource: &resource,
            subresource: &subresource,
            namespace: &namespace,
            name: &object_name,
        }
    } else {
        Target::Path(uri.split('?').next().unwrap())
    };
    let user = (!name.is_empty()).then_some(User { name: &name, groups: &groups });
    let decision = policy.decide(&Attributes { user, verb: &verb, target });
    (decision.level, decision.rule.map(|rule| rule.line), decision.rule.map(|rule| &*rule.omit_stages))
}

fn events(log: &str) -> Vec<Value> {
    sample(log)
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

#[test]
fn recorded_apiserver_decisions_match_the_model() {
    let specification = policy(&format!("{SPECIFICATION}- level: Metadata\n"));
    let metadata = policy(&with(""));
    for (log, policy) in [
        ("request-response.log.gz", &specification),
        ("kubernetes-1.36.log.gz", &specification),
        ("metadata.log.gz", &metadata),
    ] {
        let events = events(log);
        assert!(events.len() > 500, "{log}");
        for event in events {
            let (level, _, omitted) = decide(policy, &event);
            assert_eq!(Some(level.name()), event["level"].as_str(), "{log}: {event}");
            let stage = Stage::parse(event["stage"].as_str().unwrap()).unwrap();
            assert!(omitted.is_some_and(|stages| !stages.contains(&stage)), "{log}: {event}");
        }
    }
}

/// A rule that fired on a real event was said to see that request, under the policy that the log was made with.
#[test]
fn rules_that_fire_are_never_reported_as_blind() {
    let mut rules = RULES.to_owned();
    rules += "- rule: Anything\n  desc: d\n  condition: ka.verb exists\n  output: x\n  priority: INFO\n- rule: Subresource\n  desc: d\n  condition: ka.target.subresource exists and not ka.user.name startswith system\n  output: x\n  priority: INFO\n";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rules.yaml");
    fs::write(&path, &rules).unwrap();
    let file = SourceFile { name: "rules.yaml".into(), text: rules };
    let files: Vec<SourceFile> = pullwatch::internals::shipped::files().into_iter().chain([file]).collect();
    let loaded = pullwatch::internals::detection::rules::load(
        &files,
        &pullwatch::internals::detection::rules::Options::default(),
    );
    assert!(!loaded.has_errors());
    let shipped = project("rules.d").display().to_string();
    for (log, text) in [
        ("request-response.log.gz", format!("{SPECIFICATION}- level: Metadata\n")),
        ("metadata.log.gz", with("")),
    ] {
        let coverage = coverage(&policy(&text), &loaded.rules);
        let name = project("samples/audit").join(log).display().to_string();
        let output = common::scan(&[&name, "--rules", &shipped, "--rules", &path.display().to_string()]);
        let mut fired = BTreeSet::new();
        // A correlation sees what its rules see.
        for alert in common::alerts(&output).iter().filter(|alert| alert["correlation"].is_null()) {
            let object = &alert["event"]["objectRef"];
            let text = |key: &str| object[key].as_str().unwrap_or_default();
            let verb = alert["event"]["verb"].as_str().unwrap_or_default();
            let mut resource = text("resource").to_owned();
            if !text("subresource").is_empty() {
                resource = format!("{resource}/{}", text("subresource"));
            }
            let rule = coverage.iter().find(|one| alert["rule"] == *one.rule).unwrap();
            assert!(!matches!(rule.verdict, Verdict::Blind | Verdict::Withheld | Verdict::Never), "{alert}");
            let is_known =
                pullwatch::internals::detection::policy::requests::all().iter().any(|request: &Request| {
                    request.group == text("apiGroup") && request.target() == resource && request.verb == verb
                });
            if is_known && object.is_object() {
                let sees = rule.fires.iter().any(|request| {
                    request.group == text("apiGroup") && request.target() == resource && request.verb == verb
                });
                assert!(sees, "{} does not see {verb} {resource}: {alert}", rule.rule);
                fired.insert((rule.rule.clone(), verb.to_owned(), resource));
            }
        }
        assert!(fired.len() > 40, "{log}: {fired:?}");
    }
}
