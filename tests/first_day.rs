//! The first day of 36 identities that read secrets: what is in the catalog raises nothing, anything else one warning at most.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::reads::{Read, evaluate, event, is_loud};
use serde_json::{Value, json};

const WATCH_LIST: &str =
    "allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&watch=true";
const LIST: &str = "limit=500&resourceVersion=0";
const WATCH: &str = "allowWatchBookmarks=true&resourceVersion=4711&watch=true";

/// What one identity does each time that it starts.
struct Identity {
    /// `namespace:name`.
    account: &'static str,
    agents: &'static [&'static str],
    /// Whether its tokens are bound to the pod that it runs in.
    in_pod: bool,
    /// Verb, target, query.
    reads: &'static [(&'static str, &'static str, &'static str)],
}

const INFORMER: &[(&str, &str, &str)] = &[("list", "", LIST), ("watch", "", WATCH)];
const STREAM: &[(&str, &str, &str)] = &[("watch", "", WATCH_LIST)];

const fn pod(
    account: &'static str,
    agents: &'static [&'static str],
    reads: &'static [(&'static str, &'static str, &'static str)],
) -> Identity {
    Identity { account, agents, in_pod: true, reads }
}

const CATALOGED: [Identity; 18] = [
    pod("ingress-nginx:ingress-nginx", &["nginx-ingress-controller/v1.9.4 (linux/amd64)"], INFORMER),
    pod("traefik:traefik", &["traefik/v3.1.0 (linux/amd64) kubernetes/crd"], STREAM),
    pod("projectcontour:contour", &["contour/v0.0.0 (linux/amd64) kubernetes/$Format"], INFORMER),
    pod("istio-system:istiod", &["pilot-discovery/1.22.0"], INFORMER),
    pod(
        "cert-manager:cert-manager",
        &["cert-manager-certificates-issuing/v1.15.1 (linux/amd64)", "cert-manager-issuers/v1.15.1"],
        &[("list", "", LIST), ("watch", "", WATCH), ("get", "production/regcred", "")],
    ),
    pod("cert-manager:cert-manager-cainjector", &["cert-manager-cainjector/v1.15.1"], STREAM),
    pod(
        "external-secrets:external-secrets",
        &["external-secrets/v0.0.0 (linux/amd64) kubernetes/$Format"],
        &[("list", "", LIST), ("watch", "", WATCH), ("get", "staging/regcred", "")],
    ),
    pod("argocd:argocd-application-controller", &["argocd-application-controller/v2.9"], INFORMER),
    pod(
        "argocd:argocd-server",
        &["argocd-server/v2.9"],
        &[("list", "argocd", LIST), ("watch", "argocd", WATCH)],
    ),
    pod("flux-system:kustomize-controller", &["kustomize-controller/v0.0.0 (linux/amd64)"], STREAM),
    pod(
        "flux-system:source-controller",
        &["source-controller/v1.1.2 (linux/amd64)"],
        &[("get", "production/regcred", ""), ("get", "staging/regcred", "")],
    ),
    pod("velero:velero", &["velero-server/v1.12.1 (linux/amd64) 5c4fdfe"], INFORMER),
    pod(
        "kyverno:kyverno-admission-controller",
        &["kyverno/v0.0.0 (linux/amd64) kubernetes/$Format"],
        &[("list", "", LIST), ("watch", "", WATCH), ("get", "production/regcred", "")],
    ),
    pod("monitoring:prometheus-operator", &["PrometheusOperator/0.70.0"], INFORMER),
    pod("reloader:reloader-reloader", &["manager/v0.0.0 (linux/amd64) kubernetes/$Format"], INFORMER),
    pod("crossplane-system:crossplane", &["crossplane/v1.16.0 (linux/amd64)"], STREAM),
    pod("tekton-pipelines:tekton-pipelines-controller", &["controller/v0.0.0 (linux/amd64)"], INFORMER),
    Identity {
        account: "kube-system:generic-garbage-collector",
        agents: &["kube-controller-manager/v1.33.1 (linux/amd64) kubernetes/abc/metadata-informers"],
        in_pod: false,
        reads: INFORMER,
    },
];

const OTHERS: [Identity; 18] = [
    pod("shop:operator", &["shop-operator/v1.2.0"], INFORMER),
    pod("mesh:gateway", &["edge-gateway/3.1"], STREAM),
    // A cache of everything, and direct reads of some of it.
    pod(
        "cache:operator",
        &["cache-operator/v1"],
        &[("list", "", LIST), ("watch", "", WATCH), ("get", "staging/regcred", "")],
    ),
    pod(
        "stream:operator",
        &["stream-operator/v1"],
        &[("watch", "", WATCH_LIST), ("get", "staging/regcred", "")],
    ),
    pod(
        "billing:sync",
        &["manager/v0.0.0 (linux/amd64)"],
        &[("list", "billing", LIST), ("watch", "billing", WATCH)],
    ),
    // An informer for each of its namespaces, and one that falls back from a stream to a list.
    pod(
        "tenants:manager",
        &["tenant-manager/2"],
        &[
            ("watch", "production", WATCH_LIST),
            ("watch", "staging", WATCH_LIST),
            ("watch", "tenants", WATCH_LIST),
        ],
    ),
    pod(
        "mirror:images",
        &["image-mirror/v5 (linux/arm64)"],
        &[("watch", "", WATCH_LIST), ("list", "", LIST)],
    ),
    // By name: one credential, several, and one that is looked for by a field selector.
    pod("scanner:scanner", &["scanner/0.9"], &[("get", "production/regcred", "")]),
    pod(
        "copier:copier",
        &["pull-secret-copier/v1"],
        &[("get", "production/regcred", ""), ("get", "staging/regcred", ""), ("get", "tenants/regcred", "")],
    ),
    pod(
        "injector:webhook",
        &["injector/v1"],
        &[("list", "production/regcred", "fieldSelector=metadata.name%3Dregcred")],
    ),
    pod(
        "backup:agent",
        &["backup-agent/7"],
        &[("list", "", "limit=100"), ("list", "", "limit=100&continue=abc")],
    ),
    // By label, as a sidecar of a dashboard.
    pod(
        "graphs:sidecar",
        &["OpenAPI-Generator/28.1.0/python"],
        &[
            ("list", "", "labelSelector=dashboard%3D1"),
            ("watch", "", "labelSelector=dashboard%3D1&watch=True"),
        ],
    ),
    // Several programs of one pod, and several clients of one program.
    pod("storage:csi", &["csi-provisioner/v5", "csi-attacher/v4"], &[("get", "production/regcred", "")]),
    pod("queues:operator", &["queue-operator/v1 leader-election", "queue-operator/v1 informers"], INFORMER),
    pod(
        "java:service",
        &["fabric8-kubernetes-client/6.13.0"],
        &[("list", "production", ""), ("watch", "production", WATCH)],
    ),
    // Outside of the cluster, with tokens that are bound to no pod.
    Identity {
        account: "ci:deployer",
        agents: &["Helm/3.14.0"],
        in_pod: false,
        reads: &[
            ("list", "production", "labelSelector=name%3Dshop%2Cowner%3Dhelm"),
            ("list", "production", "labelSelector=owner%3Dhelm"),
        ],
    },
    Identity {
        account: "ci:release",
        agents: &["kubectl/v1.32.4 (linux/amd64)"],
        in_pod: false,
        reads: &[("get", "staging/regcred", ""), ("get", "staging/regcred", "")],
    },
    Identity {
        account: "fleet:agent",
        agents: &["fleet-agent/v0.10 (linux/amd64)"],
        in_pod: false,
        reads: INFORMER,
    },
];

/// A registry credential as a response shows it.
fn credential(namespace: &str) -> Value {
    json!({
        "kind": "Secret", "apiVersion": "v1", "type": "kubernetes.io/dockerconfigjson",
        "metadata": {"name": "regcred", "namespace": namespace},
        // {"auths":{"ghcr.io":{"username":"bot"}}}
        "data": {".dockerconfigjson": "eyJhdXRocyI6eyJnaGNyLmlvIjp7InVzZXJuYW1lIjoiYm90In19fQ=="},
    })
}

/// The event with its response, as a policy logs it that logs everything.
fn with_response(line: &str) -> String {
    let mut event: Value = serde_json::from_str(line).unwrap();
    if event["verb"] == "watch" {
        return line.to_owned();
    }
    let namespaces = ["production", "staging", "tenants"];
    let namespace = event["objectRef"]["namespace"].as_str().unwrap_or_default().to_owned();
    event["level"] = "RequestResponse".into();
    event["responseObject"] = if event["verb"] == "get" {
        credential(&namespace)
    } else {
        let is_label = event["requestURI"].as_str().unwrap().contains("labelSelector");
        let in_scope = |one: &&str| !is_label && (namespace.is_empty() || **one == *namespace);
        let items: Vec<Value> =
            namespaces.iter().copied().filter(|one| in_scope(one)).map(credential).collect();
        json!({"kind": "SecretList", "apiVersion": "v1", "metadata": {"resourceVersion": "4711"}, "items": items})
    };
    event.to_string()
}

fn user(account: &str) -> String {
    format!("system:serviceaccount:{account}")
}

/// Three rounds: a start and two restarts, the restarted ones in new pods on other nodes, one identity after the other.
fn log(is_full: bool) -> Vec<String> {
    let (mut log, mut id) = (Vec::new(), 0);
    let creation = json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": "creation",
        "stage": "ResponseComplete", "requestURI": "/api/v1/namespaces/production/secrets?fieldManager=helm",
        "verb": "create", "user": {"username": "system:admin", "groups": ["system:masters"]},
        "sourceIPs": ["10.200.0.1"], "userAgent": "Helm/3.14.0", "responseStatus": {"code": 201},
        "objectRef": {"resource": "secrets", "namespace": "production", "name": "regcred", "apiVersion": "v1"},
        "stageTimestamp": "2024-10-01T00:30:00.000000Z",
    });
    log.push(creation.to_string());
    for round in 0..3 {
        for (number, identity) in CATALOGED.iter().chain(&OTHERS).enumerate() {
            let address = if identity.in_pod {
                format!("10.{}.{number}.7", (number + round) % 5)
            } else {
                "10.200.0.9".to_owned()
            };
            let pod = format!("{}-{round}", identity.account);
            for agent in identity.agents {
                for (verb, target, query) in identity.reads {
                    let user = user(identity.account);
                    let pod = identity.in_pod.then_some(&*pod);
                    let read = Read { user: &user, agent, address: &address, pod, verb, target, query };
                    log.push(event(&read, 1, number + round * 240, &mut id));
                }
            }
        }
    }
    if is_full { log.iter().map(|line| with_response(line)).collect() } else { log }
}

#[test]
fn controllers_are_quiet_on_their_first_day() {
    for is_full in [false, true] {
        let mut loud: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let log = log(is_full);
        let users: BTreeSet<String> = log
            .iter()
            .skip(1)
            .map(|line| {
                serde_json::from_str::<Value>(line).unwrap()["user"]["username"].as_str().unwrap().into()
            })
            .collect();
        assert_eq!(users.len(), 36);
        let found = evaluate(&log);
        let is_creation = |alert: &&Value| alert["event"]["auditID"] == "creation";
        for alert in found.iter().filter(|alert| is_loud(alert) && !is_creation(alert)) {
            let by = alert["event"]["user"]["username"].as_str().unwrap_or_default().to_owned();
            loud.entry(by).or_default().push(format!("{}: {}", alert["rule"], alert["output"]));
        }
        for identity in &CATALOGED {
            assert_eq!(loud.get(&user(identity.account)), None, "full: {is_full}");
        }
        // Each program of an unknown identity is news.
        for identity in &OTHERS {
            let alerts = loud.remove(&user(identity.account)).unwrap_or_default();
            let programs: BTreeSet<_> = identity.agents.iter().map(|agent| agent.split('/').next()).collect();
            let expected =
                if is_full && identity.reads.iter().all(|(.., query)| query.contains("labelSelector")) {
                    0..=1
                } else {
                    1..=programs.len()
                };
            assert!(expected.contains(&alerts.len()), "full: {is_full}, {}: {alerts:#?}", identity.account);
        }
        assert!(loud.is_empty(), "full: {is_full}, {loud:#?}");
    }
}
