//! The catalog of requests: each verb on each resource that is relevant to credentials, and the possible content of its event.
//!
//! Requests that a rule's condition names and the catalog lacks are added for that rule.

use std::fmt;

use super::model::{Level, Stage};

/// Verbs of collections of objects.
const ALL: &[&str] = &["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];
const CREATE: &[&str] = &["create"];
const SUB: &[&str] = &["get", "update", "patch"];
const UPDATE: &[&str] = &["update", "patch"];
/// `get` is used by WebSocket clients, such as kubectl since 1.31.
const CONNECT: &[&str] = &["get", "create"];
const PROXY: &[&str] = &["get", "create", "update", "patch", "delete"];

/// API group, resources (with subresource), verbs, and whether the objects are namespaced.
type Entry = (&'static str, &'static [&'static str], &'static [&'static str], bool);

const CATALOG: &[Entry] = &[
    ("", &["secrets", "configmaps", "pods", "serviceaccounts", "services", "endpoints"], ALL, true),
    ("", &["replicationcontrollers", "podtemplates", "persistentvolumeclaims", "events"], ALL, true),
    ("", &["namespaces", "nodes", "persistentvolumes"], ALL, false),
    ("", &["serviceaccounts/token", "pods/eviction", "pods/binding"], CREATE, true),
    ("", &["pods/exec", "pods/attach", "pods/portforward"], CONNECT, true),
    ("", &["pods/log"], &["get"], true),
    ("", &["pods/proxy", "services/proxy"], PROXY, true),
    ("", &["nodes/proxy"], PROXY, false),
    ("", &["pods/ephemeralcontainers", "pods/status"], SUB, true),
    ("", &["namespaces/finalize", "namespaces/status", "nodes/status"], SUB, false),
    ("apps", &["deployments", "daemonsets", "statefulsets", "replicasets"], ALL, true),
    ("apps", &["deployments/scale", "statefulsets/scale"], SUB, true),
    ("batch", &["jobs", "cronjobs"], ALL, true),
    ("rbac.authorization.k8s.io", &["roles", "rolebindings"], ALL, true),
    ("rbac.authorization.k8s.io", &["clusterroles", "clusterrolebindings"], ALL, false),
    ("authorization.k8s.io", &["selfsubjectaccessreviews", "selfsubjectrulesreviews"], CREATE, false),
    ("authorization.k8s.io", &["subjectaccessreviews"], CREATE, false),
    ("authorization.k8s.io", &["localsubjectaccessreviews"], CREATE, true),
    ("authentication.k8s.io", &["tokenreviews", "selfsubjectreviews"], CREATE, false),
    ("certificates.k8s.io", &["certificatesigningrequests"], ALL, false),
    ("certificates.k8s.io", &["certificatesigningrequests/approval"], UPDATE, false),
    (
        "admissionregistration.k8s.io",
        &[
            "mutatingwebhookconfigurations",
            "validatingwebhookconfigurations",
            "validatingadmissionpolicies",
            "validatingadmissionpolicybindings",
            "mutatingadmissionpolicies",
            "mutatingadmissionpolicybindings",
        ],
        ALL,
        false,
    ),
    ("apiextensions.k8s.io", &["customresourcedefinitions"], ALL, false),
    ("apiregistration.k8s.io", &["apiservices"], ALL, false),
    ("networking.k8s.io", &["ingresses", "networkpolicies"], ALL, true),
    ("storage.k8s.io", &["storageclasses", "volumeattributesclasses", "volumeattachments"], ALL, false),
    ("snapshot.storage.k8s.io", &["volumesnapshotclasses", "volumesnapshotcontents"], ALL, false),
    (
        "groupsnapshot.storage.k8s.io",
        &["volumegroupsnapshotclasses", "volumegroupsnapshotcontents"],
        ALL,
        false,
    ),
    ("coordination.k8s.io", &["leases"], ALL, true),
    ("events.k8s.io", &["events"], ALL, true),
    ("external-secrets.io", &["externalsecrets", "secretstores", "pushsecrets"], ALL, true),
    ("external-secrets.io", &["clusterexternalsecrets", "clustersecretstores"], ALL, false),
    ("bitnami.com", &["sealedsecrets"], ALL, true),
    ("kyverno.io", &["policies"], ALL, true),
    ("kyverno.io", &["clusterpolicies"], ALL, false),
    ("policies.kyverno.io", &["namespacedgeneratingpolicies"], ALL, true),
    ("policies.kyverno.io", &["generatingpolicies"], ALL, false),
    ("velero.io", &["backupstoragelocations", "downloadrequests", "restores"], ALL, true),
];

/// Verbs of requests to non-resource paths.
const METHODS: &[&str] = &["get", "head", "post", "put", "patch", "delete", "options"];

/// Placeholder for resources and subresources outside the catalog. No resource has this name.
pub const OTHER: &str = "*";

/// Non-resource paths; the last one represents all others.
const PATHS: &[&str] =
    &["/healthz", "/livez", "/readyz", "/version", "/metrics", "/api", "/apis", "/openapi/v2", "/"];

/// Content of an object that must not be written to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Payload {
    Secrets,
    /// Config maps, which should not but often do contain passwords.
    ConfigMaps,
    /// A token that was just issued.
    IssuedTokens,
    /// A token that a client submits for review.
    ReviewedTokens,
}

impl Payload {
    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Payload::Secrets => "content of secrets",
            Payload::ConfigMaps => "content of config maps",
            Payload::IssuedTokens => "valid service account tokens",
            Payload::ReviewedTokens => "bearer tokens of clients",
        }
    }
}

/// A kind of request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Request {
    /// The API group; empty for the core group.
    pub group: String,
    /// The resource; empty if the request is for a path.
    pub resource: String,
    /// The subresource, or empty.
    pub subresource: String,
    /// The path, if it is not a resource.
    pub path: String,
    /// The verb.
    pub verb: String,
    /// Whether the objects are namespaced.
    pub is_namespaced: bool,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.target())
    }
}

impl Request {
    /// A request for a resource, with an optional subresource after a slash.
    pub fn new(verb: &str, group: &str, resource: &str, is_namespaced: bool) -> Self {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        Request {
            group: group.to_owned(),
            resource: resource.to_owned(),
            subresource: subresource.to_owned(),
            path: String::new(),
            verb: verb.to_owned(),
            is_namespaced,
        }
    }

    /// `secrets`, `pods/exec`, `/healthz`.
    pub fn target(&self) -> String {
        match (&*self.resource, &*self.subresource) {
            ("", _) => self.path.clone(),
            (OTHER, "") => "other resources".to_owned(),
            (OTHER, _) => "other subresources".to_owned(),
            (resource, "") => resource.to_owned(),
            (resource, subresource) => format!("{resource}/{subresource}"),
        }
    }

    /// Whether it is for an object or a collection.
    pub fn is_resource(&self) -> bool {
        !self.resource.is_empty()
    }

    /// Whether the apiserver treats the request as long-running: the response continues until client or server closes it.
    pub fn is_long_running(&self) -> bool {
        self.verb == "watch"
            || (self.is_resource()
                && matches!(&*self.subresource, "exec" | "attach" | "portforward" | "proxy" | "log"))
    }

    /// The stages that it goes through.
    pub fn stages(&self) -> impl Iterator<Item = Stage> + use<> {
        let is_long_running = self.is_long_running();
        Stage::ALL.into_iter().filter(move |&stage| stage != Stage::ResponseStarted || is_long_running)
    }

    /// Whether the client sends an object that is logged.
    pub fn sends_object(&self) -> bool {
        self.is_resource()
            && !self.is_long_running()
            && !matches!(&*self.verb, "get" | "list" | "watch" | "head" | "options")
    }

    /// Whether the response is an object that is logged. What a watch streams is never logged.
    pub fn answers_object(&self) -> bool {
        self.is_resource() && !self.is_long_running()
    }

    /// Whether the response may contain more than one object.
    pub fn answers_many(&self) -> bool {
        self.answers_object() && matches!(&*self.verb, "list" | "deletecollection")
    }

    /// The credentials that logging at this level writes to disk.
    pub fn payload(&self, level: Level) -> Option<Payload> {
        let payload = match (&*self.group, &*self.resource, &*self.subresource) {
            ("", "secrets", "") => Payload::Secrets,
            ("", "configmaps", "") => Payload::ConfigMaps,
            ("", "serviceaccounts", "token") => Payload::IssuedTokens,
            ("authentication.k8s.io", "tokenreviews", "") => Payload::ReviewedTokens,
            _ => return None,
        };
        // DeleteOptions hold no credential. The response to a delete is normally a Status.
        let is_sent =
            matches!(&*self.verb, "create" | "update" | "patch") && payload != Payload::IssuedTokens;
        let is_answered = self.answers_object() && self.verb != "delete";
        match level {
            Level::None | Level::Metadata => None,
            Level::Request => is_sent.then_some(payload),
            Level::RequestResponse => (is_sent || is_answered).then_some(payload),
        }
    }

    /// Whether some level would write credentials to disk.
    pub fn carries_payload(&self) -> bool {
        self.payload(Level::RequestResponse).is_some()
    }
}

/// All requests of the catalog.
pub fn all() -> Vec<Request> {
    let mut requests = Vec::new();
    for &(group, resources, verbs, is_namespaced) in CATALOG {
        for resource in resources {
            requests.extend(verbs.iter().map(|verb| Request::new(verb, group, resource, is_namespaced)));
        }
    }
    for path in PATHS {
        for verb in if *path == "/" { METHODS } else { &METHODS[..1] } {
            let mut request = Request::new(verb, "", "", false);
            (*path).clone_into(&mut request.path);
            requests.push(request);
        }
    }
    // Requests outside the catalog, since a rule may match by a pattern or by an empty condition.
    for resource in [OTHER, "*/*"] {
        requests.extend(ALL.iter().map(|verb| Request::new(verb, UNKNOWN_GROUP, resource, true)));
    }
    requests
}

/// The groups in which the catalog has a resource.
pub fn groups_of(resource: &str) -> Vec<&'static str> {
    let mut groups: Vec<&'static str> = Vec::new();
    for &(group, resources, ..) in CATALOG {
        let is_in = resources.iter().any(|one| one.split('/').next() == Some(resource));
        if is_in && !groups.contains(&group) {
            groups.push(group);
        }
    }
    groups
}

/// The constants that a condition compares with, by the part of the request that it compares.
#[derive(Clone, Debug, Default)]
pub struct Literals {
    pub resources: Vec<String>,
    pub subresources: Vec<String>,
    pub groups: Vec<String>,
    pub verbs: Vec<String>,
    pub namespaces: Vec<String>,
    pub names: Vec<String>,
    pub users: Vec<String>,
    pub user_groups: Vec<String>,
}

/// Maximum number of requests that are added for one rule.
const MAX_NAMED: usize = 500;

/// Requests that a rule names and the catalog lacks. `known_groups` returns the API groups in which a policy has a
/// resource.
pub fn named(literals: &Literals, known_groups: impl Fn(&str) -> Vec<String>) -> Vec<Request> {
    let mut requests: Vec<Request> = Vec::new();
    let mut add = |request: Request| {
        if requests.len() < MAX_NAMED && !requests.contains(&request) {
            requests.push(request);
        }
    };
    let is_known_subresource = |wanted: &str| {
        CATALOG
            .iter()
            .flat_map(|(_, resources, ..)| resources.iter())
            .any(|resource| resource.split_once('/').is_some_and(|(_, subresource)| subresource == wanted))
    };
    let subresources: Vec<&String> =
        literals.subresources.iter().filter(|subresource| !is_known_subresource(subresource)).collect();
    let odd_verbs: Vec<&str> =
        literals.verbs.iter().map(String::as_str).filter(|verb| !ALL.contains(verb)).collect();
    for resource in &literals.resources {
        let mut groups: Vec<String> = groups_of(resource).into_iter().map(str::to_owned).collect();
        let is_new = groups.is_empty();
        if is_new {
            groups = known_groups(resource);
            groups.extend(literals.groups.iter().cloned());
            if groups.is_empty() {
                groups.push(UNKNOWN_GROUP.to_owned());
            }
        }
        for group in &groups {
            let is_namespaced = CATALOG
                .iter()
                .find(|(_, resources, ..)| resources.contains(&&**resource))
                .is_none_or(|(.., is_namespaced)| *is_namespaced);
            for verb in odd_verbs.iter().chain(ALL.iter().filter(|_| is_new)) {
                add(Request::new(verb, group, resource, is_namespaced));
            }
            let subresources: Vec<&String> =
                if is_new { literals.subresources.iter().collect() } else { subresources.clone() };
            for subresource in subresources {
                let resource = format!("{resource}/{subresource}");
                for verb in ALL.iter().chain(&odd_verbs) {
                    add(Request::new(verb, group, &resource, is_namespaced));
                }
            }
        }
    }
    requests
}

/// Placeholder for an unknown API group. No group has this name.
pub const UNKNOWN_GROUP: &str = "?";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_depends_on_verb_and_level() {
        let payload = |verb, group, resource, level| Request::new(verb, group, resource, true).payload(level);
        let (metadata, request, both) = (Level::Metadata, Level::Request, Level::RequestResponse);
        assert_eq!(payload("get", "", "secrets", both), Some(Payload::Secrets));
        assert_eq!(payload("get", "", "secrets", request), None);
        assert_eq!(payload("watch", "", "secrets", both), None);
        assert_eq!(payload("patch", "", "secrets", request), Some(Payload::Secrets));
        assert_eq!(payload("patch", "", "secrets", metadata), None);
        assert_eq!(payload("deletecollection", "", "secrets", both), Some(Payload::Secrets));
        assert_eq!(payload("create", "", "serviceaccounts/token", request), None);
        assert_eq!(payload("create", "", "serviceaccounts/token", both), Some(Payload::IssuedTokens));
        assert_eq!(
            payload("create", "authentication.k8s.io", "tokenreviews", request),
            Some(Payload::ReviewedTokens)
        );
        assert_eq!(payload("get", "", "pods", both), None);
    }

    #[test]
    fn resources_named_by_rules_join_the_catalog() {
        let literals = Literals {
            resources: vec!["gateways".to_owned(), "pods".to_owned()],
            subresources: vec!["exec".to_owned(), "console".to_owned()],
            ..Literals::default()
        };
        let requests = named(&literals, |_| vec!["example.io".to_owned()]);
        let has = |verb, group, resource| requests.contains(&Request::new(verb, group, resource, true));
        assert!(has("list", "example.io", "gateways") && has("get", "example.io", "gateways/exec"));
        assert!(has("get", "", "pods/console") && !has("get", "", "pods") && !has("get", "", "pods/exec"));
        assert_eq!(groups_of("events"), ["", "events.k8s.io"]);
    }
}
