//! Findings about a policy itself: techniques that leave no trace, credentials that it writes to disk, and the size of
//! its events.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::coverage::{Coverage, Verdict};
use super::model::{Attributes, Level, Policy, Stage};
use super::requests::{self, Literals, Payload, Request};
use super::scenarios::{Scenario, scenarios};

/// A technique of attackers that a policy should make visible.
struct Technique {
    name: &'static str,
    /// MITRE ATT&CK technique.
    tag: &'static str,
    verbs: &'static [&'static str],
    group: &'static str,
    resources: &'static [&'static str],
    /// The level that shows the content of the action, not just that it happened.
    content: Level,
}

const WRITES: &[&str] = &["create", "update", "patch"];
const CONNECT: &[&str] = &["get", "create"];
const RBAC: &str = "rbac.authorization.k8s.io";
const ADMISSION: &str = "admissionregistration.k8s.io";

const fn technique(
    name: &'static str,
    tag: &'static str,
    verbs: &'static [&'static str],
    group: &'static str,
    resources: &'static [&'static str],
    content: Level,
) -> Technique {
    Technique { name, tag, verbs, group, resources, content }
}

const TECHNIQUES: &[Technique] = &[
    technique("secrets read by name", "T1552.007", &["get"], "", &["secrets"], Level::Metadata),
    technique("secrets listed", "T1552.007", &["list"], "", &["secrets"], Level::Metadata),
    technique("secrets watched", "T1552.007", &["watch"], "", &["secrets"], Level::Metadata),
    technique(
        "secrets changed or planted",
        "T1098",
        &["create", "update", "patch", "delete"],
        "",
        &["secrets"],
        Level::Metadata,
    ),
    technique("secrets deleted in bulk", "T1485", &["deletecollection"], "", &["secrets"], Level::Metadata),
    technique(
        "commands executed in pods",
        "T1609",
        CONNECT,
        "",
        &["pods/exec", "pods/attach"],
        Level::Metadata,
    ),
    technique(
        "tunnels into pods and nodes",
        "T1572",
        CONNECT,
        "",
        &["pods/portforward", "pods/proxy", "services/proxy", "nodes/proxy"],
        Level::Metadata,
    ),
    technique(
        "containers added to running pods",
        "T1609",
        &["update", "patch"],
        "",
        &["pods/ephemeralcontainers"],
        Level::Request,
    ),
    technique("pods created with secrets mounted", "T1610", WRITES, "", &["pods"], Level::Request),
    technique(
        "workloads created with secrets mounted",
        "T1610",
        WRITES,
        "apps",
        &["deployments", "daemonsets", "statefulsets", "replicasets"],
        Level::Request,
    ),
    technique(
        "jobs created with secrets mounted",
        "T1610",
        WRITES,
        "batch",
        &["jobs", "cronjobs"],
        Level::Request,
    ),
    technique(
        "pull secrets added to service accounts",
        "T1098",
        WRITES,
        "",
        &["serviceaccounts"],
        Level::Request,
    ),
    technique(
        "service account tokens issued",
        "T1528",
        &["create"],
        "",
        &["serviceaccounts/token"],
        Level::Metadata,
    ),
    technique(
        "permissions granted",
        "T1098.006",
        WRITES,
        RBAC,
        &["roles", "rolebindings", "clusterroles", "clusterrolebindings"],
        Level::Request,
    ),
    technique(
        "permissions checked (kubectl auth can-i)",
        "T1613",
        &["create"],
        "authorization.k8s.io",
        &["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
        Level::Request,
    ),
    technique(
        "admission webhooks that receive objects",
        "T1546",
        WRITES,
        ADMISSION,
        &["mutatingwebhookconfigurations", "validatingwebhookconfigurations"],
        Level::Request,
    ),
    technique(
        "client certificates requested",
        "T1649",
        &["create"],
        "certificates.k8s.io",
        &["certificatesigningrequests"],
        Level::Metadata,
    ),
    technique(
        "namespaces created or deleted",
        "T1485",
        &["create", "delete"],
        "",
        &["namespaces"],
        Level::Metadata,
    ),
];

/// The part of a technique that a policy does not show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Visibility {
    Invisible,
    /// That it was used is logged, but not its content.
    NoContent,
    /// It is logged only after it has ended.
    OnlyAtEnd,
}

impl Visibility {
    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Visibility::Invisible => "invisible",
            Visibility::NoContent => "content unknown",
            Visibility::OnlyAtEnd => "visible only at its end",
        }
    }
}

/// A technique that a policy does not fully show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TechniqueGap {
    pub name: &'static str,
    /// MITRE ATT&CK technique.
    pub tag: &'static str,
    pub visibility: Visibility,
    /// The deciding line of the policy; none if no rule of it matches.
    pub line: Option<usize>,
    pub requests: Vec<Request>,
}

/// The techniques that an ordinary user can use without being fully visible.
pub fn hidden(policy: &Policy) -> Vec<TechniqueGap> {
    let mut all = Vec::new();
    for technique in TECHNIQUES {
        let mut found: BTreeMap<(Visibility, Option<usize>), Vec<Request>> = BTreeMap::new();
        for resource in technique.resources {
            let is_namespaced = !resource.starts_with("nodes") && *resource != "namespaces";
            for verb in technique.verbs {
                let request = Request::new(verb, technique.group, resource, is_namespaced);
                if let Some(key) = visibility(policy, &request, technique.content) {
                    found.entry(key).or_default().push(request);
                }
            }
        }
        all.extend(found.into_iter().map(|((visibility, line), requests)| TechniqueGap {
            name: technique.name,
            tag: technique.tag,
            visibility,
            line,
            requests,
        }));
    }
    all.extend(failed_logins(policy));
    all
}

fn visibility(policy: &Policy, request: &Request, content: Level) -> Option<(Visibility, Option<usize>)> {
    let scenario = Scenario::ordinary(request);
    let decision = policy.decide(&scenario.attributes(request));
    let line = decision.rule.map(|rule| rule.line);
    let is_logged = |stage| policy.omits(&decision, stage).is_none();
    let started = request.is_long_running() && is_logged(Stage::ResponseStarted);
    if decision.level == Level::None {
        return Some((Visibility::Invisible, line));
    }
    if !is_logged(Stage::ResponseComplete) && !started {
        return Some((Visibility::Invisible, policy.omits(&decision, Stage::ResponseComplete)));
    }
    if decision.level < content {
        return Some((Visibility::NoContent, line));
    }
    if request.is_long_running() && !started {
        return Some((Visibility::OnlyAtEnd, policy.omits(&decision, Stage::ResponseStarted)));
    }
    None
}

/// A failed login has no user, and no stage except ResponseStarted.
fn failed_logins(policy: &Policy) -> Option<TechniqueGap> {
    let request = Request::new("get", "", "secrets", true);
    let scenario = Scenario::ordinary(&request);
    let attributes = Attributes { user: None, ..scenario.attributes(&request) };
    let decision = policy.decide(&attributes);
    let line = match decision.level {
        Level::None => Some(decision.rule.map(|rule| rule.line)),
        _ => policy.omits(&decision, Stage::ResponseStarted).map(Some),
    };
    line.map(|line| TechniqueGap {
        name: "failed logins",
        tag: "T1110",
        visibility: Visibility::Invisible,
        line,
        requests: Vec::new(),
    })
}

/// Coverage of the rules with one MITRE ATT&CK tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    /// For example T1552.007.
    pub name: String,
    /// Rules that can fire.
    pub seeing: Vec<Arc<str>>,
    /// Rules that cannot.
    pub blind: Vec<Arc<str>>,
}

/// The MITRE ATT&CK techniques of the loaded rules.
pub fn tags(coverage: &[Coverage]) -> Vec<Tag> {
    let is_technique = |tag: &str| {
        tag.strip_prefix('T').is_some_and(|rest| {
            rest.len() >= 4 && rest.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        })
    };
    let mut tags: BTreeMap<&str, Tag> = BTreeMap::new();
    for rule in coverage {
        for tag in rule.tags.iter().filter(|tag| is_technique(tag)) {
            let entry = tags.entry(tag).or_insert_with(|| Tag {
                name: tag.clone(),
                seeing: Vec::new(),
                blind: Vec::new(),
            });
            match rule.verdict {
                Verdict::Blind => entry.blind.push(rule.rule.clone()),
                Verdict::Sees | Verdict::Partly => entry.seeing.push(rule.rule.clone()),
                Verdict::Withheld | Verdict::Never => {}
            }
        }
    }
    tags.into_values().collect()
}

/// Credentials that a policy writes to disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    pub payload: Payload,
    pub level: Level,
    /// Line of the policy's rule.
    pub line: usize,
    /// The users, namespaces and names that this is limited to; empty if it applies to all.
    pub only: String,
    pub requests: Vec<Request>,
}

/// The places where a policy writes credentials to disk.
pub fn written(policy: &Policy) -> Vec<Written> {
    let mut found: BTreeMap<(usize, Payload, Level, String), Vec<Request>> = BTreeMap::new();
    for request in requests::all().into_iter().filter(Request::carries_payload) {
        let ordinary = Scenario::ordinary(&request);
        let mut said: Vec<(usize, Scenario)> = Vec::new();
        for scenario in scenarios(policy, &Literals::default(), &request) {
            let decision = policy.decide(&scenario.attributes(&request));
            let Some(rule) = decision.rule else { continue };
            let Some(payload) = request.payload(decision.level) else { continue };
            if said.iter().any(|(line, wider)| *line == rule.line && scenario.refines(wider, &ordinary))
                || policy.omits(&decision, Stage::ResponseComplete).is_some()
            {
                continue;
            }
            said.push((rule.line, scenario.clone()));
            let key = (rule.line, payload, decision.level, scenario.label(&request));
            found.entry(key).or_default().push(request.clone());
        }
    }
    found
        .into_iter()
        .map(|((line, payload, level, only), requests)| Written { payload, level, line, only, requests })
        .collect()
}

/// How large an event can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Size {
    /// Only the head.
    Head,
    /// With the client's object.
    Body,
    /// With the client's object and one object in the response.
    Object,
    /// With any number of objects.
    Unbounded,
}

/// Maximum size of an object in etcd, in bytes. A secret holds 1 MiB of data, which is 1.4 MB in base64.
pub const MAX_OBJECT_BYTES: u64 = 3 << 19;
/// Maximum size of a request body that an apiserver accepts, in bytes.
pub const MAX_BODY_BYTES: u64 = 3 << 20;
/// Data of a secret of 1 MiB in base64, in bytes.
pub const MAX_SECRET_BYTES: u64 = 1_398_104;
/// Size of a small secret in a list, in bytes; measured with 3,000 of them in 2.6 MB.
pub const SMALL_SECRET_BYTES: u64 = 880;
/// Number of objects that kubectl requests at once.
pub const KUBECTL_CHUNK: u64 = 500;

impl Size {
    /// Maximum size without the head, in bytes; none if unbounded.
    pub const fn max_bytes(self) -> Option<u64> {
        match self {
            Size::Head => Some(0),
            Size::Body => Some(MAX_BODY_BYTES),
            Size::Object => Some(MAX_BODY_BYTES + MAX_OBJECT_BYTES),
            Size::Unbounded => None,
        }
    }
}

/// The largest events that one line of a policy causes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LargestEvents {
    pub size: Size,
    /// Line of the policy's rule.
    pub line: usize,
    pub requests: Vec<Request>,
}

/// How large the events of a policy can be, largest first; for each rule its largest.
pub fn sizes(policy: &Policy) -> Vec<LargestEvents> {
    let mut found: BTreeMap<usize, (Size, Vec<Request>)> = BTreeMap::new();
    for request in requests::all() {
        for scenario in scenarios(policy, &Literals::default(), &request) {
            let decision = policy.decide(&scenario.attributes(&request));
            let Some(rule) = decision.rule.filter(|rule| rule.level != Level::None) else { continue };
            let size = match rule.level {
                Level::RequestResponse if request.answers_many() => Size::Unbounded,
                Level::RequestResponse if request.answers_object() => Size::Object,
                Level::Request if request.sends_object() => Size::Body,
                _ => Size::Head,
            };
            let (biggest, requests) = found.entry(rule.line).or_insert_with(|| (size, Vec::new()));
            if size > *biggest {
                *biggest = size;
                requests.clear();
            }
            if size == *biggest && !requests.contains(&request) {
                requests.push(request.clone());
            }
        }
    }
    let mut sizes: Vec<LargestEvents> =
        found.into_iter().map(|(line, (size, requests))| LargestEvents { size, line, requests }).collect();
    sizes.sort_by_key(|big| (std::cmp::Reverse(big.size), big.line));
    sizes
}
