//! What identities read, over a week: routine becomes quiet, attacks stay reported.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use common::reads::{Read, evaluate, event, is_loud};
use common::{alerts, pullwatch, sample, scan};
use serde_json::Value;

const DAYS: std::ops::RangeInclusive<u8> = 1..=7;

/// Controllers of the catalog: account, user agent.
const CATALOGED: [(&str, &str); 13] = [
    ("ingress-nginx:ingress-nginx", "nginx-ingress-controller/v1.9.4 (linux/amd64) ingress-nginx/846d251"),
    (
        "cert-manager:cert-manager",
        "cert-manager-certificates-issuing/v1.13.2 (linux/amd64) cert-manager/4d8d",
    ),
    ("istio-system:istiod", "pilot-discovery/1.20.0"),
    ("traefik:traefik", "traefik/v2.10.5 (linux/amd64) kubernetes/crd"),
    ("reloader:reloader-reloader", "manager/v0.0.0 (linux/amd64) kubernetes/$Format"),
    ("monitoring:prometheus-operator", "PrometheusOperator/0.70.0"),
    ("kyverno:kyverno-admission-controller", "kyverno/v0.0.0 (linux/amd64) kubernetes/$Format"),
    ("flux-system:helm-controller", "helm-controller/v0.0.0 (linux/amd64) kubernetes/$Format"),
    ("flux-system:kustomize-controller", "kustomize-controller/v0.0.0 (linux/amd64) kubernetes/$Format"),
    ("velero:velero", "velero-server/v1.12.1 (linux/amd64) 5c4fdfe"),
    ("flux-system:source-controller", "source-controller/v1.1.2 (linux/amd64) kubernetes/$Format"),
    ("argocd:argocd-applicationset-controller", "argocd-applicationset-controller/v2.9"),
    (
        "kube-system:generic-garbage-collector",
        "kube-controller-manager/v1.33.1 (linux/amd64) kubernetes/abc/metadata-informers",
    ),
];

/// One day of controllers with restarts, kubelets and deployers. Everything happens in the same way on each day.
fn routine(day: u8, id: &mut u32) -> Vec<String> {
    let mut log = Vec::new();
    let unknown: Vec<(String, String)> =
        (0..17).map(|n| (format!("team-{n}:operator-{n}"), format!("operator-{n}/v1.{n}"))).collect();
    let known = CATALOGED.iter().map(|(account, agent)| ((*account).to_owned(), (*agent).to_owned()));
    for (number, (account, agent)) in known.chain(unknown).enumerate() {
        let user = format!("system:serviceaccount:{account}");
        // Three starts a day, each in a new pod on another node: a list and a watch, or a watch that lists.
        for start in 0..3_usize {
            let pod = format!("{account}-{day}-{start}");
            let address = format!("10.{number}.{}.7", (usize::from(day) * 3 + start) % 5);
            let watch_list = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&watch=true";
            let reads: &[(&str, &str)] = if start == 0 {
                &[("list", "limit=500&resourceVersion=0"), ("watch", "watch=true&resourceVersion=120000")]
            } else {
                &[("watch", watch_list)]
            };
            for (verb, query) in reads {
                let target = if number % 3 == 2 && number >= CATALOGED.len() { "production" } else { "" };
                let read = Read {
                    user: &user,
                    agent: &agent,
                    address: &address,
                    pod: Some(&pod),
                    verb,
                    target,
                    query,
                };
                log.push(event(&read, day, number + start * 60, id));
            }
        }
    }
    // Tokens that are bound to no pod.
    for (user, agent, verb, target) in [
        ("system:serviceaccount:ci:deployer", "helm/v3.13", "list", "production"),
        (
            "system:serviceaccount:ci:deployer",
            "kubectl/v1.32.4 (linux/amd64)",
            "get",
            "production/registry-credentials",
        ),
        ("system:serviceaccount:ci:release", "Helm/3.14.0", "list", "staging"),
    ] {
        for round in 0..3 {
            let read = Read { user, agent, address: "10.200.0.9", pod: None, verb, target, query: "" };
            log.push(event(&read, day, 200 + round * 30, id));
        }
    }
    log
}

/// Lines of a recorded log by these users, moved to a day.
fn recorded(log: &str, day: u8, is_wanted: impl Fn(&Value) -> bool) -> Vec<String> {
    let lines = log.lines().filter(|line| is_wanted(&serde_json::from_str(line).unwrap()));
    lines.map(|line| line.replace("2026-11-23T", &format!("2024-10-{day:02}T"))).collect()
}

fn user(event: &Value) -> &str {
    event["user"]["username"].as_str().unwrap_or_default()
}

fn is_hostile(event: &Value) -> bool {
    matches!(user(event), "mallory" | "system:anonymous")
        || user(event) == "system:serviceaccount:velero:velero"
}

fn is_benign(event: &Value) -> bool {
    let is_kubelet = user(event) == "system:node:node-1"
        && event["userAgent"].as_str().unwrap_or_default().starts_with("kubelet/");
    is_kubelet
        || matches!(
            user(event),
            "system:apiserver" | "system:kube-controller-manager" | "system:kube-scheduler"
        )
        || user(event) == "system:serviceaccount:external-secrets:external-secrets"
        || user(event) == "system:serviceaccount:argocd:argocd-application-controller"
}

fn by_time(mut lines: Vec<String>) -> Vec<String> {
    let time = |line: &String| {
        let event: Value = serde_json::from_str(line).unwrap();
        event["stageTimestamp"].as_str().unwrap().to_owned()
    };
    lines.sort_by_cached_key(time);
    lines
}

#[test]
fn a_week_of_routine_becomes_quiet_and_hides_no_attack() {
    let log = String::from_utf8(sample("metadata.log.gz")).unwrap();
    // What the hostile part of the recorded log is reported for on its own.
    let alone = evaluate(&recorded(&log, 1, |event| is_benign(event) || is_hostile(event)));
    let steps: BTreeSet<String> = alone
        .iter()
        .filter(|alert| is_loud(alert) && is_hostile(&alert["event"]))
        .map(|alert| alert["event"]["auditID"].as_str().unwrap().to_owned())
        .collect();
    assert!(steps.len() > 30, "{}", steps.len());

    let (mut lines, mut id) = (Vec::new(), 0);
    for day in DAYS {
        let is_attacked = day == 2 || day == 6;
        let mut today = recorded(&log, day, |event| is_benign(event) || is_attacked && is_hostile(event));
        today.extend(routine(day, &mut id));
        lines.extend(by_time(today));
    }
    let found = evaluate(&lines);
    let mut days: BTreeMap<u8, Vec<&Value>> = BTreeMap::new();
    for alert in found.iter().filter(|alert| is_loud(alert)) {
        let time = alert["time"].as_str().unwrap();
        days.entry(time[8..10].parse().unwrap()).or_default().push(alert);
    }
    let mut table = String::from("day  routine  attack\n");
    for day in DAYS {
        let today = days.get(&day).map_or(&[][..], |today| today);
        let (attack, benign): (Vec<&&Value>, Vec<_>) =
            today.iter().partition(|alert| is_hostile(&alert["event"]));
        let _ = writeln!(table, "{day:>3}  {:>7}  {:>6}", benign.len(), attack.len());
        // At most one for each identity and rule on the first days, none from the fourth on.
        let mut counts: BTreeMap<(String, String), u32> = BTreeMap::new();
        for alert in &benign {
            let key = (alert["rule"].as_str().unwrap().to_owned(), user(&alert["event"]).to_owned());
            *counts.entry(key).or_default() += 1;
        }
        assert!(counts.values().all(|count| *count == 1), "day {day}: {counts:#?}");
        assert!(day < 4 || benign.is_empty(), "day {day}: {counts:#?}");
        let cataloged = |alert: &&&&Value| {
            let recorded = ["argocd:argocd-application-controller", "external-secrets:external-secrets"];
            let mut accounts = CATALOGED.iter().map(|(account, _)| *account).chain(recorded);
            accounts.any(|account| user(&alert["event"]).ends_with(&format!(":{account}")))
        };
        assert_eq!(benign.iter().filter(cataloged).count(), 0, "day {day}: {counts:#?}");
        let reported: BTreeSet<String> =
            attack.iter().map(|alert| alert["event"]["auditID"].as_str().unwrap().to_owned()).collect();
        if day == 2 || day == 6 {
            assert!(steps.is_subset(&reported), "day {day}: {:?}", steps.difference(&reported));
        }
    }
    println!("{table}");
}

#[test]
fn the_account_of_a_controller_is_reported_with_anything_else() {
    let (mut lines, mut id) = (Vec::new(), 0);
    for day in DAYS {
        lines.extend(by_time(routine(day, &mut id)));
    }
    let first_theft = id;
    for (number, (account, agent)) in CATALOGED.iter().enumerate() {
        let user = format!("system:serviceaccount:{account}");
        let own = format!("{account}-7-2");
        let address = format!("10.{number}.{}.7", (7 * 3 + 2) % 5);
        for (agent, address, pod) in [
            ("kubectl/v1.32.4", &*address, Some(&*own)),
            ("Python-urllib/3.11", &*address, Some(&*own)),
            ("curl/8.5.0", "203.0.113.9", None),
            (agent, "203.0.113.9", Some(&*own)),
            (agent, "203.0.113.9", None),
            (agent, &*address, None),
        ] {
            // The tokens of the controller manager are bound to no pod.
            if account.starts_with("kube-system") && !agent.starts_with("kubectl") {
                continue;
            }
            for (verb, target) in [("get", "production/registry-credentials"), ("list", ""), ("watch", "")] {
                let read = Read { user: &user, agent, address, pod, verb, target, query: "" };
                lines.push(event(&read, 7, 600 + number, &mut id));
            }
        }
    }
    let critical: BTreeSet<String> = evaluate(&lines)
        .iter()
        .filter(|alert| alert["priority"] == "Critical")
        .map(|alert| alert["event"]["auditID"].as_str().unwrap().to_owned())
        .collect();
    let all: BTreeSet<String> = (first_theft + 1..=id).map(|id| format!("benign-{id}")).collect();
    assert_eq!(critical, all);
}

#[test]
fn a_stolen_account_of_an_unknown_controller_is_reported_on_every_day() {
    let (mut lines, mut id) = (Vec::new(), 0);
    let mut thefts = BTreeSet::new();
    for day in 1..=20 {
        let mut today = routine(day, &mut id);
        // From the third day on the token is used with another program, in the same network.
        if day >= 3 {
            let user = "system:serviceaccount:team-0:operator-0";
            let pod = format!("team-0:operator-0-{day}-2");
            let address = format!("10.13.{}.9", (usize::from(day) * 3 + 2) % 5);
            let (pod, address) = (Some(&*pod), &*address);
            let read =
                Read { user, agent: "python-requests/2", address, pod, verb: "list", target: "", query: "" };
            today.push(event(&read, day, 900, &mut id));
            thefts.insert(format!("benign-{id}"));
        }
        lines.extend(by_time(today));
    }
    let reported: BTreeSet<String> = evaluate(&lines)
        .iter()
        .filter(|alert| is_loud(alert) && alert["event"]["userAgent"] == "python-requests/2")
        .map(|alert| alert["event"]["auditID"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(reported, thefts);
}

/// The accounts of some operators are used by their pods and, with a token that a pipeline requested, from outside of them.
#[test]
fn an_account_with_two_kinds_of_tokens_becomes_quiet_and_others_stay_reported() {
    let read = |name: &'static str, address: &'static str, pod: Option<&'static str>| Read {
        user: name,
        agent: "shop-operator/v1.2",
        address,
        pod,
        verb: "list",
        target: "shop",
        query: "",
    };
    let (mixed, bound) = ("system:serviceaccount:shop:operator", "system:serviceaccount:shop:web");
    let (mut lines, mut id, mut thefts) = (Vec::new(), 0, BTreeSet::new());
    for day in DAYS {
        lines.push(event(&read(mixed, "10.0.1.7", Some("a")), day, 0, &mut id));
        lines.push(event(&read(mixed, "10.0.2.9", None), day, 1, &mut id));
        lines.push(event(&read(mixed, "10.0.2.9", None), day, 2, &mut id));
        lines.push(event(&read(bound, "10.0.1.8", Some("b")), day, 3, &mut id));
        if day >= 3 {
            lines.push(event(&read(bound, "10.0.1.8", None), day, 4, &mut id));
            thefts.insert(format!("benign-{id}"));
        }
    }
    let found = evaluate(&lines);
    let mut quiet_days: BTreeMap<&str, u32> = BTreeMap::new();
    let mut reported = BTreeSet::new();
    for alert in found.iter().filter(|alert| is_loud(alert)) {
        let id = alert["event"]["auditID"].as_str().unwrap();
        if thefts.contains(id) {
            reported.insert(id.to_owned());
        } else {
            let day = &alert["time"].as_str().unwrap()[8..10];
            *quiet_days.entry(day).or_default() += 1;
        }
    }
    assert_eq!(reported, thefts);
    // Both ways of the one and the one way of the other, on each of the first three days.
    assert_eq!(quiet_days, BTreeMap::from([("01", 3), ("02", 3), ("03", 3)]));
}

/// That the Node authorizer decides is learned from the first read that it allowed, and kept over a restart.
#[test]
fn a_secret_that_no_pod_on_the_node_uses_is_reported_over_a_restart() {
    let node = |name: &str, minute, reason: &str, id: &mut u32| {
        let user = format!("system:node:{name}");
        let read = Read {
            user: &user,
            agent: "kubelet/v1.33.1 (linux/amd64) kubernetes/8adc0f0",
            address: "192.168.5.7",
            pod: None,
            verb: "get",
            target: "shop/registry-credentials",
            query: "",
        };
        let mut read: Value = serde_json::from_str(&event(&read, 1, minute, id)).unwrap();
        read["user"]["groups"] = serde_json::json!(["system:nodes", "system:authenticated"]);
        read["annotations"]["authorization.k8s.io/reason"] = reason.into();
        read.to_string()
    };
    let by_rbac = r#"RBAC: allowed by ClusterRoleBinding "nodes" of ClusterRole "reads-secrets" to Group "system:nodes""#;
    let folder = tempfile::tempdir().unwrap();
    let (log, state) = (folder.path().join("audit.log"), folder.path().join("state"));
    let mut id = 0;
    let runs = [
        // A cluster in which RBAC decides about nodes.
        ([node("n1", 0, by_rbac, &mut id), node("n2", 1, by_rbac, &mut id)], 0),
        ([node("n1", 2, "", &mut id), node("n2", 3, "", &mut id)], 0),
        ([node("n1", 4, by_rbac, &mut id), node("n3", 5, by_rbac, &mut id)], 2),
    ];
    let mut before = 0;
    for (lines, expected) in runs {
        std::fs::write(&log, lines.join("\n") + "\n").unwrap();
        let input = std::fs::File::open(&log).unwrap();
        let run = pullwatch()
            .args(["run", "-", "--listen", "127.0.0.1:0", "--state-dir", state.to_str().unwrap()])
            .stdin(input)
            .output()
            .unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        let list = pullwatch()
            .args(["alerts", "list", "--priority", "warning", "--format", "json", "--limit", "0"])
            .args(["--state-dir", state.to_str().unwrap()])
            .output()
            .unwrap();
        let found = alerts(&list);
        assert!(
            found.iter().all(|alert| alert["rule"] == "Unrelated Secret Read With Kubelet Identity"),
            "{found:#?}"
        );
        assert_eq!(found.len() - before, expected);
        before = found.len();
    }
}

#[test]
fn readers_are_listed_and_trusted_from_the_store_of_run() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let run = |lines: &[String]| {
        use std::io::Write as _;
        let mut child = pullwatch()
            .args(["run", "-", "--listen", "127.0.0.1:0", "--state-dir", state.to_str().unwrap()])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all((lines.join("\n") + "\n").as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let readers = |arguments: &[&str]| {
        let output = pullwatch()
            .arg("readers")
            .args(arguments)
            .args(["--state-dir", state.to_str().unwrap()])
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let loud = || {
        let output = pullwatch()
            .args(["alerts", "list", "--priority", "warning", "--format", "json", "--limit", "0"])
            .args(["--state-dir", state.to_str().unwrap()])
            .output()
            .unwrap();
        alerts(&output).len()
    };
    let operator = "system:serviceaccount:shop:operator";
    let read = Read {
        user: operator,
        agent: "shop-operator/v1",
        address: "10.0.1.7",
        pod: None,
        verb: "get",
        target: "shop/registry-credentials",
        query: "",
    };
    let mut id = 0;
    run(&[event(&read, 1, 0, &mut id)]);
    assert_eq!(loud(), 1);
    let (code, list, hint) = readers(&["list", "--user", "nobody-else"]);
    assert_eq!((code, list.as_str()), (Some(0), ""));
    assert!(hint.starts_with("no reader whose name contains `nobody-else`"), "{hint}");
    let (code, list, _) = readers(&["list"]);
    assert!(code == Some(0) && list.contains(operator) && list.contains("shop-operator"), "{list}");
    let (code, _, error) = readers(&["trust", "jane", "--why", "x"]);
    assert!(code == Some(2) && error.contains("no reader named `jane`"), "{error}");
    let (code, said, error) = readers(&["trust", operator, "--why", "reviewed", "--by", "ada"]);
    assert!(code == Some(0) && said.contains("shop-operator"), "{said}{error}");
    let (_, shown, _) = readers(&["show", operator]);
    assert!(shown.contains("trusted by ada") && shown.contains("reviewed"), "{shown}");
    // The next days are quiet, another program is not.
    run(&[event(&read, 2, 0, &mut id), event(&read, 2, 9, &mut id)]);
    assert_eq!(loud(), 1);
    run(&[event(&Read { agent: "curl/8", ..read }, 2, 10, &mut id)]);
    assert!(loud() > 1);
    // The export loads after the shipped rules, and trusts the same.
    let (code, rules, _) = readers(&["export"]);
    assert!(code == Some(0) && rules.contains("By ada") && rules.contains(operator), "{rules}");
    let path = folder.path().join("trusted.yaml");
    std::fs::write(&path, rules).unwrap();
    let log = folder.path().join("audit.log");
    let read = Read { agent: "shop-operator/v1", ..read };
    std::fs::write(&log, event(&read, 1, 0, &mut id)).unwrap();
    let shipped = common::project("rules.d");
    let arguments =
        ["--rules", shipped.to_str().unwrap(), "--rules", path.to_str().unwrap(), log.to_str().unwrap()];
    assert_eq!(alerts(&scan(&arguments)).iter().filter(|alert| is_loud(alert)).count(), 0);
    // What is distrusted is reported, however often it was seen.
    assert_eq!(readers(&["distrust", operator, "--why", "incident"]).0, Some(0));
    assert!(readers(&["list"]).1.contains("no, by"));
    let before = loud();
    run(&[event(&read, 5, 0, &mut id), event(&read, 6, 0, &mut id), event(&read, 7, 0, &mut id)]);
    assert_eq!(loud(), before + 3);
    run(&[event(&read, 8, 0, &mut id)]);
    assert_eq!(loud(), before + 4);
    assert_eq!(readers(&["distrust", operator, "--clear"]).0, Some(0));
    assert_eq!(readers(&["distrust", operator, "--clear"]).0, Some(2));
}
