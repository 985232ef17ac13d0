//! Determines what a rule of a role grants: verbs on secrets, and permissions through which a subject gains others.
//!
//! Takes the `rules` of a role, or what a patch writes of them, and returns a set of [`Grant`]s. If a patch only shows a part of a rule,
//! such as one verb, the other parts are presumed to be those that grant most.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::sync::LazyLock;

use foldhash::fast::RandomState;

use super::patch::{Write, Written, last, last_of_each};
use crate::detection::audit::json::{Raw, Type};

/// The API's verbs on secrets. Other verbs grant nothing.
const SECRET_VERBS: [&str; 9] =
    ["*", "create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// The verbs on secrets that are presumed if a patch does not show those of a rule.
const PRESUMED_SECRET_VERBS: [&str; 3] = ["get", "list", "watch"];

/// A permission through which a subject gains others.
struct Privilege {
    name: &'static str,
    group: &'static str,
    resource: &'static str,
    verbs: &'static [&'static str],
}

const fn privilege(
    name: &'static str,
    group: &'static str,
    resource: &'static str,
    verbs: &'static [&'static str],
) -> Privilege {
    Privilege { name, group, resource, verbs }
}

const CORE: &str = "";
const APPS: &str = "apps";
const BATCH: &str = "batch";
const RBAC: &str = "rbac.authorization.k8s.io";
const CERTIFICATES: &str = "certificates.k8s.io";
const ADMISSION: &str = "admissionregistration.k8s.io";
const WRITE: &[&str] = &["create", "patch", "update"];
const MODIFY: &[&str] = &["patch", "update"];
/// The verbs of requests to a single object, which are the only ones that a proxy forwards.
const PROXY: &[&str] = &["create", "delete", "get", "patch", "update"];

static PRIVILEGES: [Privilege; 38] = [
    // Write roles and bindings beyond one's own permissions.
    privilege("escalate", RBAC, "roles", &["escalate"]),
    privilege("escalate", RBAC, "clusterroles", &["escalate"]),
    privilege("bind", RBAC, "roles", &["bind"]),
    privilege("bind", RBAC, "clusterroles", &["bind"]),
    // Acting as another identity. Kubernetes 1.35 and later has more verbs, all with this prefix.
    privilege("impersonate", CORE, "users", &["impersonate"]),
    privilege("impersonate", CORE, "groups", &["impersonate"]),
    privilege("impersonate", CORE, "serviceaccounts", &["impersonate"]),
    privilege("impersonate", "authentication.k8s.io", "users", &["impersonate"]),
    privilege("impersonate", "authentication.k8s.io", "groups", &["impersonate"]),
    privilege("impersonate", "authentication.k8s.io", "serviceaccounts", &["impersonate"]),
    privilege("impersonate", "authentication.k8s.io", "nodes", &["impersonate"]),
    privilege("impersonate", "authentication.k8s.io", "uids", &["impersonate"]),
    privilege("impersonate", "authentication.k8s.io", "", &["impersonate"]),
    privilege("serviceaccounts/token", CORE, "serviceaccounts/token", &["create"]),
    // The kubelet's API. WebSocket clients run commands with the verb get.
    privilege("nodes/proxy", CORE, "nodes/proxy", PROXY),
    // All pull secrets of a namespace in OpenShift.
    privilege("imagestreams/secrets", "image.openshift.io", "imagestreams/secrets", &["get"]),
    privilege("pods/exec", CORE, "pods/exec", &["create", "get"]),
    privilege("pods/attach", CORE, "pods/attach", &["create", "get"]),
    privilege("pods/portforward", CORE, "pods/portforward", &["create", "get"]),
    privilege("pods/proxy", CORE, "pods/proxy", PROXY),
    privilege("pods/ephemeralcontainers", CORE, "pods/ephemeralcontainers", MODIFY),
    // Pods that mount any secret of their namespace, and run as any of its service accounts. An update of a pod can change its images,
    // which have access to what the pod mounts.
    privilege("workloads", CORE, "pods", WRITE),
    privilege("workloads", CORE, "replicationcontrollers", WRITE),
    privilege("workloads", APPS, "daemonsets", WRITE),
    privilege("workloads", APPS, "deployments", WRITE),
    privilege("workloads", APPS, "replicasets", WRITE),
    privilege("workloads", APPS, "statefulsets", WRITE),
    privilege("workloads", BATCH, "cronjobs", WRITE),
    privilege("workloads", BATCH, "jobs", WRITE),
    // Client certificates for any identity.
    privilege(
        "certificatesigningrequests/approval",
        CERTIFICATES,
        "certificatesigningrequests/approval",
        MODIFY,
    ),
    privilege("certificatesigningrequests/status", CERTIFICATES, "certificatesigningrequests/status", MODIFY),
    privilege("signers", CERTIFICATES, "signers", &["approve", "sign"]),
    // A kubelet certificate for any node, which the controller manager approves automatically for users with this permission. The
    // permission for `selfnodeclient` only renews a node's own certificate.
    privilege(
        "certificatesigningrequests/nodeclient",
        CERTIFICATES,
        "certificatesigningrequests/nodeclient",
        &["create"],
    ),
    // Seeing and changing what others write.
    privilege("mutatingwebhookconfigurations", ADMISSION, "mutatingwebhookconfigurations", WRITE),
    privilege("validatingwebhookconfigurations", ADMISSION, "validatingwebhookconfigurations", WRITE),
    privilege("mutatingadmissionpolicies", ADMISSION, "mutatingadmissionpolicies", WRITE),
    privilege("mutatingadmissionpolicies", ADMISSION, "mutatingadmissionpolicybindings", WRITE),
    // Answering in place of the apiserver for a whole API group.
    privilege("apiservices", "apiregistration.k8s.io", "apiservices", WRITE),
];

/// What a role grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Grant {
    /// A verb on secrets.
    OnSecrets(&'static str),
    Privilege(&'static str),
}

impl Grant {
    /// Returns the text under which the cluster state records the grant. No verb starts with `+`.
    pub(super) fn to_text(self) -> String {
        match self {
            Grant::OnSecrets(verb) => verb.to_owned(),
            Grant::Privilege(name) => format!("+{name}"),
        }
    }

    pub(super) fn from_text(text: &str) -> Option<Self> {
        match text.strip_prefix('+') {
            Some(name) => {
                let known = PRIVILEGES.iter().find(|privilege| privilege.name == name);
                known.map(|privilege| Grant::Privilege(privilege.name))
            }
            None => SECRET_VERBS.iter().find(|verb| **verb == text).map(|verb| Grant::OnSecrets(verb)),
        }
    }
}

pub(super) type Grants = BTreeSet<Grant>;

/// One of the string lists of a rule, of which only membership matters.
struct Texts<'a>(Vec<Cow<'a, [u8]>>);

impl<'a> Texts<'a> {
    fn of(list: Option<Raw<'a>>) -> Self {
        let items = list.into_iter().flat_map(Raw::items).map_while(Result::ok);
        Texts(items.filter_map(Raw::string).collect())
    }

    fn any(&self, accepts: impl Fn(&[u8]) -> bool) -> bool {
        self.0.iter().any(|text| accepts(text))
    }

    fn has(&self, expected: &str) -> bool {
        self.any(|text| text == b"*" || text == expected.as_bytes())
    }

    /// Returns whether a resource of a rule matches, as RBAC matches it (`ResourceMatches`): `*` matches everything, and
    /// `*/x` the subresource x of all resources.
    fn has_resource(&self, resource: &str) -> bool {
        self.any(|text| {
            text == b"*"
                || text == resource.as_bytes()
                || resource
                    .split_once('/')
                    .is_some_and(|(_, subresource)| text.strip_prefix(b"*/") == Some(subresource.as_bytes()))
        })
    }

    fn has_verb_of(&self, privilege: &Privilege) -> bool {
        if privilege.verbs == ["impersonate"] {
            return self.any(|verb| verb == b"*" || verb.starts_with(b"impersonate"));
        }
        self.any(|verb| verb == b"*" || privilege.verbs.iter().any(|accepted| accepted.as_bytes() == verb))
    }
}

/// The resources that stand for the fields of a user's `extra`, one each.
const USER_EXTRAS: &[u8] = b"userextras";

/// Returns whether a resource of a rule may be one on which verbs grant something.
fn is_of_interest(resource: &[u8]) -> bool {
    static RESOURCES: LazyLock<HashSet<&[u8], RandomState>> = LazyLock::new(|| {
        let privileges = PRIVILEGES.iter().map(|privilege| privilege.resource);
        privileges.chain(["secrets"]).map(str::as_bytes).collect()
    });
    resource.starts_with(b"*") || resource.starts_with(USER_EXTRAS) || RESOURCES.contains(resource)
}

/// Adds what one rule of a role grants.
pub(super) fn add_rule(rule: Raw<'_>, grants: &mut Grants) {
    let [groups, resources, verbs] = last_of_each(rule, ["apiGroups", "resources", "verbs"]);
    let resources = Texts::of(resources);
    // Most rules are about other resources: their groups and verbs are not read.
    if !resources.any(is_of_interest) {
        return;
    }
    let [groups, verbs] = [groups, verbs].map(Texts::of);
    if groups.has(CORE) && resources.has_resource("secrets") {
        grants.extend(
            SECRET_VERBS
                .iter()
                .filter(|verb| verbs.any(|granted| granted == verb.as_bytes()))
                .map(|verb| Grant::OnSecrets(verb)),
        );
    }
    for privilege in &PRIVILEGES {
        let has_resource = if privilege.resource.is_empty() {
            resources.any(|resource| resource == b"*" || resource.starts_with(USER_EXTRAS))
        } else {
            resources.has_resource(privilege.resource)
        };
        if has_resource && groups.has(privilege.group) && verbs.has_verb_of(privilege) {
            grants.insert(Grant::Privilege(privilege.name));
        }
    }
}

/// Adds what a request writes to the rules of a role.
pub(super) fn add_write(write: &Write<'_>, grants: &mut Grants) {
    let keys: Vec<&[u8]> = write.path.iter().map(|key| &**key).collect();
    if !matches!(keys.first(), None | Some(&b"rules")) {
        return;
    }
    let value = match write.value {
        Written::Value(value) => value,
        Written::Removed => return,
        Written::Unknown => {
            presume_secrets(grants);
            return;
        }
    };
    match &keys[..] {
        [] => {
            if let Some(rules) = last(value, "rules") {
                add_rules(rules, grants);
            }
        }
        [_] => add_rules(value, grants),
        [_, _] => add_rule(value, grants),
        [_, _, part, ..] => {
            let texts = if value.kind() == Type::Array {
                Texts::of(Some(value))
            } else {
                Texts(value.string().into_iter().collect())
            };
            add_part(part, &texts, grants);
        }
    }
}

pub(super) fn add_rules(rules: Raw<'_>, grants: &mut Grants) {
    rules.items().map_while(Result::ok).for_each(|rule| add_rule(rule, grants));
}

/// Adds the verbs on secrets that an unknown role may grant.
pub(super) fn presume_secrets(grants: &mut Grants) {
    grants.extend(PRESUMED_SECRET_VERBS.iter().map(|verb| Grant::OnSecrets(verb)));
}

/// Adds what one part of a rule may grant, if the other parts of the rule allow it.
fn add_part(part: &[u8], texts: &Texts<'_>, grants: &mut Grants) {
    match part {
        b"verbs" => {
            let on_secrets = SECRET_VERBS.iter().filter(|verb| texts.any(|text| text == verb.as_bytes()));
            grants.extend(on_secrets.map(|verb| Grant::OnSecrets(verb)));
            let telling = PRIVILEGES.iter().filter(|privilege| {
                matches!(privilege.name, "escalate" | "bind" | "impersonate" | "signers")
                    && texts.has_verb_of(privilege)
            });
            grants.extend(telling.map(|privilege| Grant::Privilege(privilege.name)));
        }
        b"resources" => {
            if texts.has_resource("secrets") {
                presume_secrets(grants);
            }
            let telling = PRIVILEGES
                .iter()
                .filter(|privilege| !privilege.resource.is_empty() && texts.has_resource(privilege.resource))
                // The resource of `escalate`, `bind` or workloads alone proves little: most roles that name it lack these verbs.
                .filter(|privilege| {
                    !matches!(privilege.name, "escalate" | "bind" | "workloads") || texts.has_resource("*")
                });
            grants.extend(telling.map(|privilege| Grant::Privilege(privilege.name)));
        }
        b"apiGroups" if texts.has(CORE) => presume_secrets(grants),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::patch::writes;
    use super::*;

    fn of(body: &str) -> Vec<String> {
        let mut grants = Grants::new();
        for write in writes(Raw::assume(body.as_bytes())) {
            add_write(&write, &mut grants);
        }
        grants.into_iter().map(Grant::to_text).collect()
    }

    fn rule(group: &str, resources: &str, verbs: &str) -> Vec<String> {
        of(&format!(
            r#"{{"rules":[{{"apiGroups":["{group}"],"resources":["{resources}"],"verbs":["{verbs}"]}}]}}"#
        ))
    }

    #[test]
    fn rules_grant_by_api_group_resource_and_verb() {
        for (group, resource, verb, expected) in [
            ("", "secrets", "get", &["get"][..]),
            ("", "secrets", "frobnicate", &[]),
            ("apps", "secrets", "get", &[]),
            (RBAC, "clusterroles", "escalate", &["+escalate"]),
            (RBAC, "clusterroles", "*", &["+bind", "+escalate"]),
            (RBAC, "*", "bind", &["+bind"]),
            (RBAC, "rolebindings", "create", &[]),
            ("", "users", "impersonate", &["+impersonate"]),
            ("", "serviceaccounts", "*", &["+impersonate"]),
            ("", "serviceaccounts", "impersonate:serviceaccount", &["+impersonate"]),
            ("", "pods", "impersonate", &[]),
            ("authentication.k8s.io", "userextras/scopes", "impersonate", &["+impersonate"]),
            ("authentication.k8s.io", "uids", "*", &["+impersonate"]),
            ("authentication.k8s.io", "users", "impersonate:user-info", &["+impersonate"]),
            ("authentication.k8s.io", "serviceaccounts", "impersonate:serviceaccount", &["+impersonate"]),
            ("authentication.k8s.io", "tokenreviews", "create", &[]),
            ("", "serviceaccounts/token", "create", &["+serviceaccounts/token"]),
            ("", "*/token", "create", &["+serviceaccounts/token"]),
            ("*", "*/proxy", "get", &["+nodes/proxy", "+pods/proxy"]),
            ("", "nodes/proxy", "delete", &["+nodes/proxy"]),
            ("", "pods/exec", "get", &["+pods/exec"]),
            ("", "pods/exec", "delete", &[]),
            ("", "pods/ephemeralcontainers", "patch", &["+pods/ephemeralcontainers"]),
            (
                CERTIFICATES,
                "certificatesigningrequests/approval",
                "update",
                &["+certificatesigningrequests/approval"],
            ),
            (CERTIFICATES, "signers", "approve", &["+signers"]),
            (
                CERTIFICATES,
                "certificatesigningrequests/nodeclient",
                "create",
                &["+certificatesigningrequests/nodeclient"],
            ),
            (CERTIFICATES, "*/nodeclient", "*", &["+certificatesigningrequests/nodeclient"]),
            (CERTIFICATES, "certificatesigningrequests/selfnodeclient", "create", &[]),
            (CERTIFICATES, "certificatesigningrequests", "create", &[]),
            ("apiregistration.k8s.io", "apiservices", "patch", &["+apiservices"]),
            ("apiregistration.k8s.io", "apiservices", "list", &[]),
            ("", "pods", "create", &["+workloads"]),
            ("", "pods", "update", &["+workloads"]),
            ("", "pods", "delete", &[]),
            (APPS, "deployments", "patch", &["+workloads"]),
            (APPS, "deployments", "get", &[]),
            (APPS, "*", "update", &["+workloads"]),
            (BATCH, "cronjobs", "*", &["+workloads"]),
            ("", "deployments", "create", &[]),
            ("", "podtemplates", "create", &[]),
            (ADMISSION, "mutatingwebhookconfigurations", "patch", &["+mutatingwebhookconfigurations"]),
            (ADMISSION, "validatingwebhookconfigurations", "get", &[]),
        ] {
            assert_eq!(rule(group, resource, verb), expected, "{group} {resource} {verb}");
        }
        let everything = rule("*", "*", "*");
        assert_eq!(
            everything.len(),
            1 + PRIVILEGES.iter().map(|one| one.name).collect::<BTreeSet<_>>().len()
        );
        // Read access to everything includes the kubelet's API and commands in pods.
        assert_eq!(
            rule("*", "*", "get"),
            [
                "get",
                "+imagestreams/secrets",
                "+nodes/proxy",
                "+pods/attach",
                "+pods/exec",
                "+pods/portforward",
                "+pods/proxy"
            ]
        );
    }

    #[test]
    fn parts_of_rules_in_patches_are_presumed_to_grant() {
        let patch = |op: &str, path: &str, value: &str| {
            of(&format!(r#"[{{"op":"{op}","path":"{path}","value":{value}}}]"#))
        };
        let secrets = r#"{"apiGroups":[""],"resources":["secrets"],"verbs":["watch"]}"#;
        assert_eq!(patch("add", "/rules/-", secrets), ["watch"]);
        assert_eq!(patch("replace", "/rules", &format!("[{secrets}]")), ["watch"]);
        assert_eq!(patch("replace", "", &format!(r#"{{"rules":[{secrets}]}}"#)), ["watch"]);
        assert_eq!(patch("add", "/rules/0/verbs/-", r#""escalate""#), ["+escalate"]);
        assert_eq!(patch("add", "/rules/0/verbs/-", r#""list""#), ["list"]);
        assert_eq!(patch("replace", "/rules/0/verbs", r#"["get","bind"]"#), ["get", "+bind"]);
        assert_eq!(patch("add", "/rules/0/resources/0", r#""secrets""#), ["get", "list", "watch"]);
        assert_eq!(patch("add", "/rules/0/resources/0", r#""nodes/proxy""#), ["+nodes/proxy"]);
        assert_eq!(patch("add", "/rules/0/resources/0", r#""users""#), ["+impersonate"]);
        assert_eq!(patch("add", "/rules/0/apiGroups/0", r#""""#), ["get", "list", "watch"]);
        assert!(patch("add", "/rules/0/resources/0", r#""pods""#).is_empty());
        assert!(patch("remove", "/rules/0", "1").is_empty());
        assert!(patch("add", "/metadata/labels/verbs", r#""get""#).is_empty());
        let copied = r#"[{"op":"copy","from":"/metadata/annotations/x","path":"/rules/0/verbs/0"}]"#;
        assert_eq!(of(copied), ["get", "list", "watch"]);
    }

    #[test]
    fn grants_survive_as_text() {
        for grant in of(r#"{"rules":[{"apiGroups":["*"],"resources":["*"],"verbs":["*","get"]}]}"#) {
            assert_eq!(Grant::from_text(&grant).map(Grant::to_text).as_deref(), Some(&*grant));
        }
        assert!(Grant::from_text("frobnicate").is_none() && Grant::from_text("+x").is_none());
    }
}
