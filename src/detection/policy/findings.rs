//! What a policy means apart from single rules: techniques that leave no trace, credentials that it writes to disk, and
//! how big its events can be.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::coverage::{Coverage, Verdict};
use super::model::{Attributes, Level, Policy, Stage};
use super::requests::{self, Literals, Payload, Request};
use super::scenarios::{Scenario, scenarios};

/// Something that an attacker does and that a policy should let show.
struct Technique {
    name: &'static str,
    /// In MITRE ATT&CK.
    tag: &'static str,
    verbs: &'static [&'static str],
    group: &'static str,
    resources: &'static [&'static str],
    /// What it takes to know what was done, not only that it was.
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
    technique(
        "secrets deleted all at once",
        "T1485",
        &["deletecollection"],
        "",
        &["secrets"],
        Level::Metadata,
    ),
    technique("commands run in pods", "T1609", CONNECT, "", &["pods/exec", "pods/attach"], Level::Metadata),
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
    technique("pods made to mount secrets", "T1610", WRITES, "", &["pods"], Level::Request),
    technique(
        "workloads made to mount secrets",
        "T1610",
        WRITES,
        "apps",
        &["deployments", "daemonsets", "statefulsets", "replicasets"],
        Level::Request,
    ),
    technique("jobs made to mount secrets", "T1610", WRITES, "batch", &["jobs", "cronjobs"], Level::Request),
    technique(
        "service accounts given pull secrets",
        "T1098",
        WRITES,
        "",
        &["serviceaccounts"],
        Level::Request,
    ),
    technique(
        "tokens of service accounts issued",
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
        "permissions asked for (kubectl auth can-i)",
        "T1613",
        &["create"],
        "authorization.k8s.io",
        &["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
        Level::Request,
    ),
    technique(
        "webhooks that read what is admitted",
        "T1546",
        WRITES,
        ADMISSION,
        &["mutatingwebhookconfigurations", "validatingwebhookconfigurations"],
        Level::Request,
    ),
    technique(
        "client certificates asked for",
        "T1649",
        &["create"],
        "certificates.k8s.io",
        &["certificatesigningrequests"],
        Level::Metadata,
    ),
    technique(
        "namespaces made or deleted",
        "T1485",
        &["create", "delete"],
        "",
        &["namespaces"],
        Level::Metadata,
    ),
];

/// What a policy does not show of a technique.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Visibility {
    /// Nothing at all.
    Invisible,
    /// That it was done, not what.
    NoContent,
    /// That it was done, once it is over.
    OnlyAtEnd,
}

impl Visibility {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Visibility::Invisible => "invisible",
            Visibility::NoContent => "content unknown",
            Visibility::OnlyAtEnd => "seen only at its end",
        }
    }
}

/// A technique that is not, or not wholly, seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hidden {
    /// What is done.
    pub name: &'static str,
    /// In MITRE ATT&CK.
    pub tag: &'static str,
    /// What of it is hidden.
    pub visibility: Visibility,
    /// The line of the policy that decides; nothing where no rule matches.
    pub line: Option<usize>,
    /// Of which requests.
    pub requests: Vec<Request>,
}

/// The techniques that an ordinary user can use unseen.
pub fn hidden(policy: &Policy) -> Vec<Hidden> {
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
        all.extend(found.into_iter().map(|((visibility, line), requests)| Hidden {
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

/// A login that fails has no user, and no other stage than ResponseStarted.
fn failed_logins(policy: &Policy) -> Option<Hidden> {
    let request = Request::new("get", "", "secrets", true);
    let scenario = Scenario::ordinary(&request);
    let attributes = Attributes { user: None, ..scenario.attributes(&request) };
    let decision = policy.decide(&attributes);
    let line = match decision.level {
        Level::None => Some(decision.rule.map(|rule| rule.line)),
        _ => policy.omits(&decision, Stage::ResponseStarted).map(Some),
    };
    line.map(|line| Hidden {
        name: "logins with a wrong token",
        tag: "T1110",
        visibility: Visibility::Invisible,
        line,
        requests: Vec::new(),
    })
}

/// How well the rules with a tag of MITRE ATT&CK see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    /// The tag, such as T1552.007.
    pub tag: String,
    /// Rules with it that see something.
    pub seeing: Vec<Arc<str>>,
    /// Rules with it that are blind.
    pub blind: Vec<Arc<str>>,
}

/// The techniques that the loaded rules are tagged with.
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
                tag: tag.clone(),
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
    /// What.
    pub payload: Payload,
    /// At which level.
    pub level: Level,
    /// The line of the rule.
    pub line: usize,
    /// Only of these, in these places, of these names; empty for everybody.
    pub only: String,
    /// By which requests.
    pub requests: Vec<Request>,
}

/// Where a policy writes credentials to disk.
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

/// How big an event can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Size {
    /// The head alone.
    Head,
    /// With what was sent.
    Body,
    /// With what was sent and one object answered.
    Object,
    /// With any number of objects.
    Unbounded,
}

/// An object may be as large as etcd takes, in bytes; a secret holds 1 MiB, which is 1.4 MB in base64.
pub const MAX_OBJECT_BYTES: u64 = 3 << 19;
/// What an apiserver takes as a body, in bytes.
pub const MAX_BODY_BYTES: u64 = 3 << 20;
/// The content of a secret of 1 MiB in base64, in bytes.
pub const MAX_SECRET_BYTES: u64 = 1_398_104;
/// One of many small secrets in a list, in bytes: 3,000 of them made 2.6 MB.
pub const SMALL_SECRET_BYTES: u64 = 880;
/// The objects in a chunk of kubectl.
pub const KUBECTL_CHUNK: u64 = 500;

impl Size {
    /// The most bytes that it comes to, the head apart; nothing where there is no bound.
    pub const fn max_bytes(self) -> Option<u64> {
        match self {
            Size::Head => Some(0),
            Size::Body => Some(MAX_BODY_BYTES),
            Size::Object => Some(MAX_BODY_BYTES + MAX_OBJECT_BYTES),
            Size::Unbounded => None,
        }
    }
}

/// The largest events that one line of a policy brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LargestEvents {
    /// How big.
    pub size: Size,
    /// The line of the rule.
    pub line: usize,
    /// By which requests.
    pub requests: Vec<Request>,
}

/// How big the events of a policy can be, biggest first: for each rule its biggest.
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
