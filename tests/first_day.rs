//! The first day of 36 identities that read secrets: what is in the catalog raises nothing, anything else one warning at most. And what
//! administrators, operators and deployers do beside, with what a thief of their credentials does.

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

const LABEL: &str = "labelSelector=jenkins.io%2Fcredentials-type";

/// Identities with the programs of common libraries, and what else no catalog has: dashboards, agents, backup tools, runners and operators.
const GENERIC: [Identity; 22] = [
    pod("kopf:operator", &["kopf/1.37.2"], &[("list", "", ""), ("watch", "", "watch=true")]),
    pod(
        "tools:py-sync",
        &["OpenAPI-Generator/29.0.0/python"],
        &[
            ("list", "", ""),
            ("watch", "", "watch=True"),
            ("get", "production/regcred", ""),
            ("get", "staging/regcred", ""),
            ("list", "", ""),
        ],
    ),
    pod(
        "jenkins:jenkins",
        &["fabric8-kubernetes-client/6.10.0"],
        &[("list", "jenkins", LABEL), ("watch", "jenkins", LABEL), ("get", "jenkins/regcred", "")],
    ),
    pod(
        "java:app",
        &["okhttp/4.12.0"],
        &[
            ("list", "production", LIST),
            ("watch", "production", WATCH),
            ("list", "staging", LIST),
            ("watch", "staging", WATCH),
            ("list", "java", LIST),
            ("watch", "java", WATCH),
        ],
    ),
    pod(
        "java:quarkus",
        &["Java-http-client/17"],
        &[("list", "java", ""), ("watch", "java", WATCH), ("get", "java/regcred", "")],
    ),
    pod(
        "go:service",
        &["Go-http-client/2.0"],
        &[("list", "", LIST), ("watch", "", WATCH), ("get", "production/regcred", "")],
    ),
    pod(
        "spinnaker:clouddriver",
        &["kubectl/v1.29.3 (linux/amd64) kubernetes/6813625"],
        &[("list", "", "limit=500"), ("list", "production", "limit=500"), ("list", "staging", "limit=500")],
    ),
    pod(
        "ci:helm",
        &["Helm/3.15.1"],
        &[
            ("list", "production", "labelSelector=name%3Dshop%2Cowner%3Dhelm"),
            ("get", "production/regcred", ""),
            ("patch", "production/regcred", "fieldManager=helm"),
            ("list", "staging", "labelSelector=name%3Dshop%2Cowner%3Dhelm"),
            ("get", "staging/regcred", ""),
            ("patch", "staging/regcred", "fieldManager=helm"),
        ],
    ),
    Identity {
        account: "kube-system:terraform",
        agents: &["HashiCorp/1.0 Terraform/1.8.0"],
        in_pod: false,
        reads: &[
            ("get", "production/regcred", ""),
            ("get", "production/db", ""),
            ("patch", "production/regcred", "fieldManager=Terraform"),
        ],
    },
    Identity {
        account: "ops:ansible",
        agents: &["OpenAPI-Generator/24.2.0/python"],
        in_pod: false,
        reads: &[
            ("get", "production/regcred", ""),
            ("patch", "production/regcred", ""),
            ("get", "staging/regcred", ""),
            ("patch", "staging/regcred", ""),
        ],
    },
    pod("backstage:backstage", &["node-fetch/1.0"], &[("list", "production", ""), ("list", "staging", "")]),
    pod(
        "acme:operator",
        &[
            "acme-operator/v1.2 (linux/amd64) kubernetes/$Format",
            "acme-operator/v1.2 (linux/amd64) kubernetes/$Format/acme-cache",
        ],
        &[
            ("list", "", LIST),
            ("watch", "", WATCH),
            ("get", "t1/regcred", ""),
            ("get", "t2/regcred", ""),
            ("get", "t3/regcred", ""),
            ("get", "t4/regcred", ""),
            ("get", "t5/regcred", ""),
            ("get", "t6/regcred", ""),
            ("update", "t1/regcred", ""),
            ("patch", "t2/regcred", ""),
        ],
    ),
    pod(
        "platform:provisioner",
        &["ns-provisioner/v0.0.0 (linux/amd64) kubernetes/$Format"],
        &[("get", "platform/regcred", ""), ("create", "team/regcred", ""), ("update", "team/regcred", "")],
    ),
    pod(
        "ecr:refresher",
        &["ecr-refresher/v2 (linux/amd64) kubernetes/$Format"],
        &[
            ("list", "", LIST),
            ("watch", "", WATCH),
            ("update", "production/regcred", ""),
            ("update", "staging/regcred", ""),
        ],
    ),
    pod("policy:audit", &["policy-audit/v2 (linux/amd64) kubernetes/$Format/metadata-informers"], INFORMER),
    pod("gitlab:agent", &["gitlab-agent/v17.2 (linux/amd64)"], STREAM),
    pod(
        "datadog:cluster-agent",
        &["datadog-cluster-agent/v0.0.0 (linux/amd64) kubernetes/$Format"],
        &[("get", "datadog/regcred", ""), ("get", "datadog/regcred", "")],
    ),
    pod(
        "sysdig:agent",
        &["Go-http-client/1.1"],
        &[("list", "", "limit=500"), ("list", "", "limit=500&continue=a")],
    ),
    pod("dash:headlamp", &["Headlamp/0.25 (linux/amd64)"], &[("list", "", ""), ("watch", "", "watch=1")]),
    pod("backup:restic", &["python-requests/2.32"], &[("list", "production", ""), ("list", "staging", "")]),
    pod(
        "scan:trivy",
        &["trivy-operator/v0.0.0 (linux/amd64) kubernetes/$Format"],
        &[("get", "production/regcred", ""), ("get", "staging/regcred", ""), ("get", "tenants/regcred", "")],
    ),
    pod(
        "build:kaniko",
        &["buildctl/0.14"],
        &[("get", "build/push-regcred", ""), ("get", "build/push-regcred", "")],
    ),
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
    let is_one = ["get", "patch", "update", "create"].contains(&event["verb"].as_str().unwrap());
    event["responseObject"] = if is_one {
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

/// The address and the pod from which an identity comes in a round.
fn client(identity: &Identity, number: usize, round: usize) -> (String, Option<String>) {
    if identity.in_pod {
        (format!("10.{}.{number}.7", (number + round) % 5), Some(format!("{}-{round}", identity.account)))
    } else {
        ("10.200.0.9".to_owned(), None)
    }
}

/// Three rounds: a start and two restarts, the restarted ones in new pods on other nodes, one identity after the other.
fn log(identities: &[&Identity], is_full: bool) -> Vec<String> {
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
        for (number, identity) in identities.iter().enumerate() {
            let (address, pod) = client(identity, number, round);
            for agent in identity.agents {
                for (verb, target, query) in identity.reads {
                    let user = user(identity.account);
                    let pod = pod.as_deref();
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
        let log = log(&CATALOGED.iter().chain(&OTHERS).collect::<Vec<_>>(), is_full);
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

/// The alerts at Warning or worse, by user.
fn loud_by_user(log: &[String]) -> BTreeMap<String, Vec<String>> {
    let mut loud: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for alert in evaluate(log).iter().filter(|alert| is_loud(alert)) {
        let by = alert["event"]["user"]["username"].as_str().unwrap_or_default().to_owned();
        loud.entry(by).or_default().push(format!("{}: {}", alert["rule"], alert["output"]));
    }
    loud
}

#[test]
fn what_follows_from_the_first_alert_of_a_day_is_quiet() {
    for is_full in [false, true] {
        let mut loud = loud_by_user(&log(&GENERIC.each_ref(), is_full));
        loud.remove("system:admin");
        for identity in &GENERIC {
            let alerts = loud.remove(&user(identity.account)).unwrap_or_default();
            // A list by label hands over what carries the label: a read by name of another credential does not follow from it.
            let lists_by_label = identity.reads.iter().any(|(.., query)| query.contains("labelSelector"));
            let is_reported = alerts.iter().any(|alert| alert.starts_with("\"Registry Credential Read\""));
            assert!(!lists_by_label || is_reported, "full: {is_full}, {}: {alerts:#?}", identity.account);
            let limit = 1 + usize::from(lists_by_label);
            assert!(alerts.len() <= limit, "full: {is_full}, {}: {alerts:#?}", identity.account);
            assert!(is_full || !alerts.is_empty(), "{}", identity.account);
        }
        assert!(loud.is_empty(), "full: {is_full}, {loud:#?}");
    }
}

/// A theft: agent, address, whether the token is that of the pod, verb, target. `None` is what the identity has.
type Theft = (Option<&'static str>, Option<&'static str>, bool, &'static str, &'static str);

/// One thief for each identity, after what it does on its first day.
#[test]
fn thieves_are_reported_on_the_first_day() {
    let far = "203.0.113.9";
    let thefts: [(&str, Theft); 9] = [
        ("list from elsewhere", (None, Some(far), true, "list", "")),
        ("read from elsewhere", (None, Some(far), true, "get", "production/regcred")),
        ("patch from elsewhere", (None, Some(far), true, "patch", "production/regcred")),
        ("update from elsewhere", (None, Some(far), true, "update", "production/regcred")),
        ("curl", (Some("curl/8.5.0"), None, true, "get", "production/regcred")),
        ("curl that lists", (Some("curl/8.5.0"), None, true, "list", "")),
        ("no user agent", (Some(""), None, true, "get", "staging/regcred")),
        ("a token of no pod", (None, None, false, "get", "production/regcred")),
        ("another program", (Some("thief/1.0"), None, true, "list", "")),
    ];
    for (what, (agent, address, is_bound, verb, target)) in thefts {
        let mut lines = log(&GENERIC.each_ref(), false);
        let mut id = 900_000;
        let mut expected = BTreeMap::new();
        for (number, identity) in GENERIC.iter().enumerate() {
            if !is_bound && !identity.in_pod {
                continue;
            }
            let (own, pod) = client(identity, number, 2);
            let user = user(identity.account);
            let mut read = Read {
                user: &user,
                agent: agent.unwrap_or(identity.agents[0]),
                address: address.unwrap_or(&own),
                pod: pod.as_deref().filter(|_| is_bound),
                verb: "get",
                target: "production/settings",
                query: "",
            };
            // A harmless read from there teaches nothing.
            lines.push(event(&read, 1, 700 + number, &mut id));
            (read.verb, read.target) = (verb, target);
            lines.push(event(&read, 1, 700 + number, &mut id));
            expected.insert(format!("benign-{id}"), identity.account);
        }
        let reported: BTreeSet<String> = evaluate(&lines)
            .iter()
            .filter(|alert| is_loud(alert))
            .map(|alert| alert["event"]["auditID"].as_str().unwrap().to_owned())
            .collect();
        let missed: Vec<_> = expected.iter().filter(|(id, _)| !reported.contains(*id)).collect();
        assert!(missed.is_empty(), "{what}: {missed:?}");
    }
}

/// What goes beyond the first alert of a day is reported: a wider scope, and credentials that it does not cover.
#[test]
fn a_wider_read_on_the_first_day_is_reported() {
    let account = "system:serviceaccount:shop:reader";
    for agent in ["okhttp/4.12.0", "kubectl/v1.32.4 (linux/amd64)", "shop-reader/v1", "Go-http-client/2.0"] {
        for (first, then) in [
            (("list", "production"), ("list", "")),
            (("list", "production"), ("watch", "")),
            (("get", "production/regcred"), ("list", "production")),
            (("list", "production"), ("get", "staging/regcred")),
            (("get", "shop/regcred"), ("patch", "production/regcred")),
        ] {
            let mut id = 0;
            let mut lines = Vec::new();
            for (minute, (verb, target)) in [(0, first), (5, then)] {
                let read = Read {
                    user: account,
                    agent,
                    address: "10.1.1.7",
                    pod: Some("reader-1"),
                    verb,
                    target,
                    query: "",
                };
                lines.push(event(&read, 1, minute, &mut id));
            }
            let ids: BTreeSet<String> = evaluate(&lines)
                .iter()
                .filter(|alert| is_loud(alert))
                .map(|alert| alert["event"]["auditID"].as_str().unwrap().to_owned())
                .collect();
            assert!(ids.contains("benign-2"), "{agent} {first:?} {then:?}");
        }
    }
}

/// A request that is not a read of secrets alone, at level Metadata.
struct Request {
    id: String,
    user: String,
    agent: String,
    address: String,
    verb: String,
    /// `group/resource/subresource`.
    resource: String,
    /// `namespace/name`.
    target: String,
    minute: usize,
}

impl Request {
    fn new([id, user, agent, address, verb, resource, target]: [&str; 7], minute: usize) -> Self {
        let [id, user, agent, address, verb, resource, target] =
            [id, user, agent, address, verb, resource, target].map(str::to_owned);
        Request { id, user, agent, address, verb, resource, target, minute }
    }
}

fn request(request: &Request) -> Value {
    let [group, resource, subresource] = request.resource.split('/').collect::<Vec<_>>()[..] else {
        panic!()
    };
    let (namespace, name) = request.target.split_once('/').unwrap();
    let mut target = json!({"resource": resource, "apiVersion": "v1", "name": name});
    for (key, value) in [("namespace", namespace), ("apiGroup", group), ("subresource", subresource)] {
        if !value.is_empty() {
            target[key] = value.into();
        }
    }
    let mut user = json!({"username": request.user, "groups": ["system:authenticated"]});
    if let Some((_, account)) = request.user.split_once("system:serviceaccount:") {
        let group = format!("system:serviceaccounts:{}", account.split(':').next().unwrap());
        user["groups"] = json!(["system:serviceaccounts", group, "system:authenticated"]);
        user["extra"] = json!({"authentication.kubernetes.io/pod-uid": [account]});
    }
    let time = format!("2024-10-01T{:02}:{:02}:00.000000Z", 1 + request.minute / 60, request.minute % 60);
    json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": request.id, "stage": "ResponseComplete",
        "requestURI": format!("/api/v1/namespaces/{namespace}/{resource}/{name}/{subresource}"), "verb": request.verb, "user": user,
        "sourceIPs": [request.address], "userAgent": request.agent, "objectRef": target,
        "responseStatus": {"metadata": {}, "code": if request.verb == "create" { 201 } else { 200 }},
        "requestReceivedTimestamp": time, "stageTimestamp": time, "annotations": {"authorization.k8s.io/decision": "allow"},
    })
}

/// A log in the making. Audit ids say what each request is.
#[derive(Default)]
struct Log(Vec<(usize, String)>);

impl Log {
    fn add(&mut self, one: &Request) {
        self.0.push((one.minute, request(one).to_string()));
    }

    fn add_changed(&mut self, one: &Request, change: impl FnOnce(&mut Value)) {
        let mut event = request(one);
        change(&mut event);
        self.0.push((one.minute, event.to_string()));
    }

    /// All alerts, in the order of time.
    fn alerts(mut self) -> Vec<Value> {
        self.0.sort_by_key(|(minute, _)| *minute);
        let lines: Vec<String> = self.0.into_iter().map(|(_, line)| line).collect();
        evaluate(&lines)
    }

    /// The number of alerts at Warning or worse by audit id and rule.
    fn loud(self) -> BTreeMap<(String, String), usize> {
        count(self.alerts().iter().filter(|alert| is_loud(alert)))
    }
}

/// The number of alerts by audit id and rule.
fn count<'a>(alerts: impl Iterator<Item = &'a Value>) -> BTreeMap<(String, String), usize> {
    let mut counts = BTreeMap::new();
    for alert in alerts {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        *counts.entry((text(&alert["event"]["auditID"]), text(&alert["rule"]))).or_insert(0) += 1;
    }
    counts
}

fn expect(found: &BTreeMap<(String, String), usize>, expected: &[(&str, &str, usize)]) {
    let expected: BTreeMap<(String, String), usize> =
        expected.iter().map(|(id, rule, count)| (((*id).to_owned(), (*rule).to_owned()), *count)).collect();
    assert_eq!(*found, expected);
}

const KUBECTL: &str = "kubectl/v1.33.1 (linux/amd64) kubernetes/8adc0f0";

/// What several operators do with their own programs, as source code and charts have it.
const TOKEN_REQUESTERS: [(&str, &str); 5] = [
    ("cert-manager:cert-manager", "cert-manager-issuers/v1.15.1 (linux/amd64) cert-manager/abc"),
    ("external-secrets:external-secrets", "external-secrets/v0.0.0 (linux/amd64) kubernetes/$Format"),
    ("flux-system:source-controller", "source-controller/v1.6.0 (linux/amd64)"),
    ("flux-system:kustomize-controller", "kustomize-controller/v1.6.0 (linux/amd64)"),
    (
        "vault-secrets-operator-system:vault-secrets-operator-controller-manager",
        "vault-secrets-operator/v0.10.0 (linux/amd64) kubernetes/abc",
    ),
];

#[test]
fn an_administrator_who_impersonates_is_reported_once_a_day() {
    let as_masters = |event: &mut Value| {
        event["impersonatedUser"] =
            json!({"username": "alice", "groups": ["system:masters", "system:authenticated"]});
    };
    let read = |id: &str, verb: &str, target: &str, address: &str, minute: usize| {
        Request::new([id, "alice", KUBECTL, address, verb, "/secrets/", target], minute)
    };
    let mut log = Log::default();
    for round in 0..20 {
        for (id, verb, target) in
            [("regcred", "get", "production/regcred"), ("one", "get", "production/settings")]
        {
            log.add_changed(&read(id, verb, target, "10.200.0.9", round * 30), as_masters);
        }
        let other = format!("production/other-{round}");
        log.add_changed(&read("many", "get", &other, "10.200.0.9", round * 30 + 1), as_masters);
    }
    // From elsewhere, with another program, another verb, and many within a short time.
    for (id, target) in [("far-regcred", "production/regcred"), ("far", "production/settings")] {
        log.add_changed(&read(id, "get", target, "192.0.2.7", 700), as_masters);
    }
    log.add_changed(&read("curl", "get", "production/settings", "10.200.0.9", 710), |event| {
        as_masters(event);
        event["userAgent"] = "curl/8.5.0".into();
    });
    log.add_changed(&read("patch", "patch", "production/settings", "10.200.0.9", 720), as_masters);
    for number in 0..6 {
        let target = format!("staging/s{number}");
        log.add_changed(&read("harvest", "get", &target, "10.200.0.9", 730), as_masters);
    }
    expect(
        &log.loud(),
        &[
            ("curl", "Secret Read As Administrator", 1),
            ("far", "Secret Read As Administrator", 1),
            ("far-regcred", "Secrets Read Via Impersonation", 1),
            ("harvest", "Secrets Read One By One Via Impersonation", 1),
            ("one", "Secret Read As Administrator", 1),
            ("patch", "Secret Read As Administrator", 1),
            ("regcred", "Registry Credential Read", 1),
            ("regcred", "Secrets Read Via Impersonation", 1),
        ],
    );
}

#[test]
fn operators_request_tokens_of_the_accounts_that_their_resources_name() {
    let mut log = Log::default();
    let token = |id: &str, user: &str, agent: &str, target: &str, minute: usize| {
        Request::new([id, user, agent, "10.244.1.7", "create", "/serviceaccounts/token", target], minute)
    };
    let mut expected = Vec::new();
    let ids: Vec<[String; 3]> = TOKEN_REQUESTERS
        .iter()
        .map(|(account, _)| ["routine", "curl", "system"].map(|what| format!("{account} {what}")))
        .collect();
    for ((account, agent), [routine, curl, system]) in TOKEN_REQUESTERS.into_iter().zip(&ids) {
        let user = user(account);
        for minute in [0, 60, 120] {
            log.add(&token(routine, &user, agent, "shop/vault-auth", minute));
        }
        // Its token with another program, and for an account that may do more than log in to a vault.
        log.add(&token(curl, &user, "curl/8.5.0", "shop/vault-auth", 130));
        log.add(&token(system, &user, agent, "kube-system/clusterrole-aggregation-controller", 140));
        expected.push((&**curl, "Service Account Token Requested", 1));
        expected.push((&**system, "Service Account Token Requested", 1));
    }
    // Each account once a day, however often its token is renewed.
    let cloud = user("kube-system:cloud-controller-manager");
    let agent = "aws-cloud-controller-manager/v1.33.0 (linux/amd64) kubernetes/$Format";
    for minute in [10, 70, 130] {
        log.add(&token("cloud", &cloud, agent, "kube-system/node-controller", minute));
        log.add(&token("cloud", &cloud, agent, "kube-system/service-controller", minute));
    }
    expected.push(("cloud", "Service Account Token Requested", 2));
    log.add(&token("cloud-other", &cloud, agent, "kube-system/namespace-controller", 20));
    log.add(&token("cloud-curl", &cloud, "curl/8.5.0", "kube-system/node-controller", 140));
    log.add(&token(
        "ingress",
        &user("ingress-nginx:ingress-nginx"),
        "nginx-ingress-controller/v1.9.4",
        "shop/vault-auth",
        20,
    ));
    log.add(&token("person", "bob", KUBECTL, "shop/vault-auth", 20));
    for id in ["cloud-curl", "cloud-other", "ingress", "person"] {
        expected.push((id, "Service Account Token Requested", 1));
    }
    expect(&log.loud(), &expected);
}

#[test]
fn managers_of_add_ons_delete_cluster_roles() {
    let mut log = Log::default();
    let delete = |id: &str, user: &str, agent: &str, minute: usize| {
        Request::new(
            [id, user, agent, "10.0.0.2", "delete", "rbac.authorization.k8s.io/clusterroles/", "/old"],
            minute,
        )
    };
    for minute in [0, 60] {
        log.add(&delete("gke", "system:addon-manager", KUBECTL, minute));
        log.add_changed(&delete("eks", "eks:addon-manager", "Go-http-client/2.0", minute), |event| {
            event["user"]["uid"] = "aws-iam-authenticator:111122223333:AROA5PYP2AD2FVXU23CA6".into();
        });
    }
    // The name in a client certificate, the name that is impersonated, and that of another identity.
    log.add(&delete("certificate", "eks:addon-manager", "curl/8.5.0", 70));
    for name in ["system:addon-manager", "eks:addon-manager"] {
        log.add_changed(&delete("impersonated", "mallory", KUBECTL, 80), |event| {
            event["impersonatedUser"] = json!({"username": name, "uid": "aws-iam-authenticator:1:A"});
        });
        log.add_changed(&delete("impersonating", name, KUBECTL, 90), |event| {
            event["user"]["uid"] = "aws-iam-authenticator:1:A".into();
            event["impersonatedUser"] = json!({"username": "bob"});
        });
    }
    log.add(&delete("account", "system:serviceaccount:kube-system:addon-manager", KUBECTL, 100));
    let rule = "Cluster Role Or Binding Deleted";
    expect(
        &log.loud(),
        &[
            ("account", rule, 1),
            ("certificate", rule, 1),
            ("impersonated", rule, 2),
            ("impersonating", rule, 2),
        ],
    );
}

#[test]
fn deletions_by_controllers_are_no_reads_one_by_one() {
    let mut log = Log::default();
    let agent = |account: &str| {
        format!(
            "kube-controller-manager/v1.33.1 (linux/amd64) kubernetes/abc/{}",
            user(&format!("kube-system:{account}"))
        )
    };
    let (namespaces, garbage) = ("namespace-controller", "generic-garbage-collector");
    let of = |id: &str, account: &str, agent: &str, verb: &str, target: &str, minute: usize| {
        let user = user(&format!("kube-system:{account}"));
        request(&Request::new([id, &user, agent, "10.0.0.2", verb, "/secrets/", target], minute))
    };
    // `kubectl delete namespace`.
    for verb in ["deletecollection", "list"] {
        let event = of("namespace", namespaces, &agent(namespaces), verb, "team/", 10);
        log.0.push((10, event.to_string().replace(",\"name\":\"\"", "")));
    }
    for number in 0..12 {
        for verb in ["get", "patch", "delete"] {
            let target = format!("team/owned-{number}");
            let event = of("garbage", garbage, &agent(garbage), verb, &target, 20);
            log.0.push((20, event.to_string()));
        }
        // The same account, with another program.
        let event = of("stolen", garbage, "curl/8.5.0", "delete", &format!("shop/s{number}"), 40);
        log.0.push((40, event.to_string()));
    }
    expect(&log.loud(), &[("stolen", "Secrets Read One By One", 1)]);
}

#[test]
fn deployers_and_operators_update_secrets() {
    let mut log = Log::default();
    let of = |id: &str, user: &str, agent: &str, address: &str, verb: &str, target: &str, minute: usize| {
        Request::new([id, user, agent, address, verb, "/secrets/", target], minute)
    };
    let mut upgrade = |user: &str, id: &str, address: &str, minute: usize| {
        for number in 0..8 {
            for verb in ["get", "patch"] {
                let target = format!("shop/app-{number}");
                log.add(&of(id, user, "Helm/3.14.0", address, verb, &target, minute));
            }
        }
        log.add(&of(id, user, "Helm/3.14.0", address, "patch", "shop/regcred", minute));
    };
    for minute in [0, 60, 120, 180] {
        upgrade("system:serviceaccount:ci:deployer", "helm", "10.244.3.9", minute);
    }
    // The same from elsewhere.
    upgrade("system:serviceaccount:ci:deployer", "far", "192.0.2.7", 240);
    let operators = [
        (
            "argocd:argocd-application-controller",
            "argocd-application-controller/v0.0.0 (linux/amd64)",
            "patch",
        ),
        ("external-secrets:external-secrets", "external-secrets/v0.0.0 (linux/amd64)", "update"),
        ("flux-system:kustomize-controller", "kustomize-controller/v1.6.0 (linux/amd64)", "patch"),
        ("flux-system:helm-controller", "helm-controller/v1.6.0 (linux/amd64)", "patch"),
        ("kube-system:sealed-secrets-controller", "controller/v0.0.0 (linux/amd64)", "update"),
        ("kyverno:kyverno-background-controller", "kyverno/v0.0.0 (linux/amd64)", "update"),
        ("velero:velero", "velero-server/v1.12.1 (linux/amd64) 5c4fdfe", "patch"),
    ];
    let thefts: Vec<[String; 2]> = operators
        .iter()
        .map(|(account, ..)| ["curl", "far"].map(|what| format!("{account} {what}")))
        .collect();
    // Platform controllers write with their own program, from where their pods run.
    let mut expected = vec![
        ("far", "Registry Credential Modified", 1),
        ("far", "Secrets Read One By One", 1),
        ("helm", "Registry Credential Modified", 1),
        ("helm", "Secrets Read One By One", 1),
    ];
    for ((account, agent, verb), [curl, far]) in operators.into_iter().zip(&thefts) {
        let user = user(account);
        for minute in [300, 360, 420] {
            for number in 0..8 {
                for name in ["app", "regcred"] {
                    let target = format!("team-{number}/{name}");
                    log.add(&of("operator", &user, agent, "10.244.1.7", verb, &target, minute));
                }
            }
        }
        log.add(&of(curl, &user, "curl/8.5.0", "10.244.1.7", "patch", "team-1/regcred", 500));
        expected.push((&**curl, "Controller Account Used Interactively To Write Secrets", 1));
        if verb == "patch" || verb == "update" {
            // A patch that changes nothing is answered with the secret, and after an update images may come from elsewhere.
            log.add(&of(far, &user, agent, "192.0.2.7", "patch", "team-1/regcred", 510));
            expected.push((&**far, "Registry Credential Modified", 1));
        }
    }
    expect(&log.loud(), &expected);
}

/// A controller that lacks a permission tries again for as long as it runs, and one that reads five credentials does so at each of its restarts.
#[test]
fn what_a_controller_repeats_all_day_is_reported_once() {
    let mut log = Log::default();
    let account = "system:serviceaccount:app:operator";
    let of = |id: &str, agent: &str, address: &str, verb: &str, target: &str, minute: usize| {
        Request::new([id, account, agent, address, verb, "/secrets/", target], minute)
    };
    let deny = |event: &mut Value| event["responseStatus"]["code"] = 403.into();
    for minute in 0..600 {
        log.add_changed(&of("denied", "app-operator/v1", "10.2.0.4", "get", "app/config", minute), deny);
    }
    for minute in 600..610 {
        log.add_changed(&of("denied far", "app-operator/v1", "192.0.2.7", "get", "app/config", minute), deny);
        let curl = of("denied curl", "curl/8.5.0", "10.2.0.4", "get", "app/config", minute + 30);
        log.add_changed(&curl, deny);
    }
    // The same pod and program, looking for names, and trying to write.
    for (id, verb, code, start) in [("search", "get", 404, 1000), ("write", "patch", 403, 1030)] {
        for minute in start..start + 10 {
            let target = format!("app/guess-{minute}");
            let request = of(id, "app-operator/v1", "10.2.0.4", verb, &target, minute);
            log.add_changed(&request, |event| event["responseStatus"]["code"] = code.into());
        }
    }
    for (restart, minute) in [700, 760, 820].into_iter().enumerate() {
        for namespace in 0..6 {
            let (address, target) = (format!("10.2.0.{restart}"), format!("team-{namespace}/regcred"));
            log.add(&of("read", "app-operator/v1", &address, "get", &target, minute));
        }
    }
    for namespace in 0..6 {
        let (same, other) = (format!("team-{namespace}/regcred"), format!("shop-{namespace}/regcred"));
        log.add(&of("read curl", "curl/8.5.0", "10.2.0.4", "get", &same, 880));
        log.add(&of("read others", "app-operator/v1", "10.2.0.4", "get", &other, 940));
    }
    let alerts = log.alerts();
    let failures = "Repeated Secret Access Failures";
    let harvest = "Registry Credentials Harvested";
    expect(
        &count(alerts.iter().filter(|alert| is_loud(alert))),
        &[
            ("denied", failures, 1),
            ("denied curl", failures, 1),
            ("denied far", failures, 1),
            ("read", harvest, 1),
            ("read", "Registry Credential Read", 1),
            ("read curl", harvest, 1),
            // Each credential, since a program for people beside others explains nothing.
            ("read curl", "Registry Credential Read", 6),
            ("read others", harvest, 1),
            ("search", failures, 1),
            ("write", failures, 1),
        ],
    );
    // Hourly, with the number of those between.
    let denied = "Secret Access Denied";
    expect(
        &count(alerts.iter().filter(|alert| alert["rule"] == denied)),
        &[
            ("denied", denied, 10),
            ("denied curl", denied, 1),
            ("denied far", denied, 1),
            ("write", denied, 10),
        ],
    );
    let hourly = alerts.iter().filter(|alert| alert["rule"] == denied && alert["throttled"] == 59);
    assert_eq!(hourly.count(), 9);
}
