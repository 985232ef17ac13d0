//! The policy, and how the apiserver evaluates it: the first rule that matches a request decides how much is logged and
//! at which stages. If no rule matches, nothing is logged. (`k8s.io/apiserver/pkg/audit/policy/checker.go`)

use std::fmt;

/// How much of a request is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Nothing.
    None,
    /// User, verb, object, time, address and result.
    Metadata,
    /// Metadata and the client's object.
    Request,
    /// Metadata, the client's object and the response.
    RequestResponse,
}

impl Level {
    /// All levels, in ascending order.
    pub const ALL: [Level; 4] = [Level::None, Level::Metadata, Level::Request, Level::RequestResponse];

    /// The name in policies.
    pub const fn name(self) -> &'static str {
        match self {
            Level::None => "None",
            Level::Metadata => "Metadata",
            Level::Request => "Request",
            Level::RequestResponse => "RequestResponse",
        }
    }

    /// Parses a name; it is case-sensitive.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == word)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The point in a request at which an event is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// The request arrived.
    RequestReceived,
    /// A long-running request (watch, exec, …) began to be answered.
    ResponseStarted,
    /// The request was answered.
    ResponseComplete,
    /// The apiserver panicked.
    Panic,
}

impl Stage {
    /// All stages in order.
    pub const ALL: [Stage; 4] =
        [Stage::RequestReceived, Stage::ResponseStarted, Stage::ResponseComplete, Stage::Panic];

    /// The name in policies and events.
    pub const fn name(self) -> &'static str {
        match self {
            Stage::RequestReceived => "RequestReceived",
            Stage::ResponseStarted => "ResponseStarted",
            Stage::ResponseComplete => "ResponseComplete",
            Stage::Panic => "Panic",
        }
    }

    /// Parses a name; it is case-sensitive.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.name() == word)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// An audit policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Stages at which nothing is logged.
    pub omit_stages: Vec<Stage>,
    /// Line of that setting, from 1.
    pub omit_stages_line: usize,
    /// The rules in order. The first that matches a request decides.
    pub rules: Vec<PolicyRule>,
}

/// One rule of a policy. An empty list matches everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRule {
    /// Line where it starts, from 1.
    pub line: usize,
    /// The level at which matching requests are logged.
    pub level: Level,
    /// User names.
    pub users: Vec<String>,
    /// Groups; the user must be in one of them.
    pub user_groups: Vec<String>,
    /// Verbs.
    pub verbs: Vec<String>,
    /// Resources.
    pub resources: Vec<GroupResources>,
    /// Namespaces; the empty text stands for requests outside namespaces.
    pub namespaces: Vec<String>,
    /// Paths that are not resources.
    pub non_resource_urls: Vec<String>,
    /// Stages that are not logged, in addition to the policy's.
    pub omit_stages: Vec<Stage>,
    /// Line of that setting, from 1.
    pub omit_stages_line: usize,
}

/// Resources of one API group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupResources {
    /// The group; empty for the core group.
    pub group: String,
    /// `pods`, `pods/exec`, `pods/*`, `*/scale`, `*`. Empty for all resources of the group.
    pub resources: Vec<String>,
    /// Names of objects. Empty for all.
    pub names: Vec<String>,
}

/// A request as the policy sees it.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    /// The user; none if authentication failed.
    pub user: Option<User<'a>>,
    /// The verb.
    pub verb: &'a str,
    /// The object or path.
    pub target: Target<'a>,
}

/// The user of a request.
#[derive(Clone, Copy, Debug)]
pub struct User<'a> {
    /// The name.
    pub name: &'a str,
    /// The groups.
    pub groups: &'a [String],
}

/// The object or path of a request.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// An object or a collection.
    Resource {
        /// The API group; empty for the core group.
        group: &'a str,
        /// The resource.
        resource: &'a str,
        /// The subresource, or empty.
        subresource: &'a str,
        /// The namespace, or empty.
        namespace: &'a str,
        /// The object's name, or empty.
        name: &'a str,
    },
    /// A path that is not a resource.
    Path(&'a str),
}

/// The policy's decision about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision<'p> {
    /// How much is logged.
    pub level: Level,
    /// The rule that decided; none if no rule matched.
    pub rule: Option<&'p PolicyRule>,
}

impl Policy {
    /// Returns the policy's decision about a request.
    pub fn decide(&self, request: &Attributes<'_>) -> Decision<'_> {
        let rule = self.rules.iter().find(|rule| rule.matches(request));
        Decision { level: rule.map_or(Level::None, |rule| rule.level), rule }
    }

    /// The line that excludes a stage from the logged stages.
    pub fn omits(&self, decision: &Decision<'_>, stage: Stage) -> Option<usize> {
        match decision.rule {
            Some(rule) if rule.omit_stages.contains(&stage) => Some(rule.omit_stages_line),
            _ => self.omit_stages.contains(&stage).then_some(self.omit_stages_line),
        }
    }
}

impl PolicyRule {
    /// Whether it matches every request.
    pub fn is_catch_all(&self) -> bool {
        self.users.is_empty()
            && self.user_groups.is_empty()
            && self.verbs.is_empty()
            && self.resources.is_empty()
            && self.namespaces.is_empty()
            && self.non_resource_urls.is_empty()
    }

    /// Whether it matches a request.
    pub fn matches(&self, request: &Attributes<'_>) -> bool {
        let is_user = self.users.is_empty() || request.user.is_some_and(|user| has(&self.users, user.name));
        let is_member = self.user_groups.is_empty()
            || request
                .user
                .is_some_and(|user| user.groups.iter().any(|group| self.user_groups.contains(group)));
        let is_verb = self.verbs.is_empty() || has(&self.verbs, request.verb);
        if !is_user || !is_member || !is_verb {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return self.matches_resource(&request.target);
        }
        match (&*self.non_resource_urls, request.target) {
            ([], _) => true,
            (urls, Target::Path(path)) => urls.iter().any(|url| path_matches(path, url)),
            (_, Target::Resource { .. }) => false,
        }
    }

    fn matches_resource(&self, target: &Target<'_>) -> bool {
        let Target::Resource { group, resource, subresource, namespace, name } = *target else {
            return false;
        };
        if !self.namespaces.is_empty() && !has(&self.namespaces, namespace) {
            return false;
        }
        self.resources.is_empty()
            || self.resources.iter().any(|entry| {
                if entry.group != group {
                    return false;
                }
                // The apiserver only compares names if resources are given; the parser rejects names without resources.
                entry.resources.is_empty()
                    || ((entry.names.is_empty() || has(&entry.names, name))
                        && entry
                            .resources
                            .iter()
                            .any(|pattern| pattern_matches(pattern, resource, subresource)))
            })
    }
}

fn has(texts: &[String], wanted: &str) -> bool {
    texts.iter().any(|text| text == wanted)
}

fn pattern_matches(pattern: &str, resource: &str, subresource: &str) -> bool {
    let is_exact = match subresource {
        "" => pattern == resource,
        _ => pattern.split_once('/') == Some((resource, subresource)),
    };
    is_exact
        || pattern == "*"
        || (!subresource.is_empty() && pattern.strip_prefix("*/") == Some(subresource))
        || pattern.strip_suffix("/*") == Some(resource)
}

fn path_matches(path: &str, pattern: &str) -> bool {
    pattern == "*"
        || pattern == path
        || (pattern.ends_with('*') && path.starts_with(pattern.trim_end_matches('*')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detection::policy::read;
    use crate::detection::rules::SourceFile;

    fn policy(rules: &str) -> Policy {
        let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n{rules}");
        let read = read::read(&SourceFile { name: "p.yaml".into(), text });
        read.policy.unwrap_or_else(|| panic!("{:?}", read.diagnostics))
    }

    /// `verb group/resource[/subresource] namespace name`, a dot for nothing; or `verb /path`.
    fn level(policy: &Policy, user: &str, groups: &[&str], request: &str) -> Level {
        let groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
        let parts: Vec<&str> = request.split(' ').map(|part| if part == "." { "" } else { part }).collect();
        let target = if parts[1].starts_with('/') {
            Target::Path(parts[1])
        } else {
            let mut target = parts[1].split('/').map(|part| if part == "core" { "" } else { part });
            Target::Resource {
                group: target.next().unwrap(),
                resource: target.next().unwrap(),
                subresource: target.next().unwrap_or_default(),
                namespace: parts.get(2).unwrap_or(&""),
                name: parts.get(3).unwrap_or(&""),
            }
        };
        let user = Some(User { name: user, groups: &groups });
        policy.decide(&Attributes { user, verb: parts[0], target }).level
    }

    fn is_logged(rule: &str, request: &str) -> bool {
        let policy = policy(&format!("- {{level: Metadata, {rule}}}\n"));
        level(&policy, "eve", &["dev", "system:authenticated"], request) == Level::Metadata
    }

    #[test]
    fn resources_match_as_the_apiserver_matches_them() {
        let group = |resources: &str| format!("resources: [{{group: '', resources: [{resources}]}}]");
        for (resources, request, expected) in [
            ("pods", "get core/pods ns p", true),
            ("pods", "get core/pods/exec ns p", false),
            ("pods/exec", "get core/pods/exec ns p", true),
            ("pods/exec", "get core/pods ns p", false),
            ("pods/*", "get core/pods/exec ns p", true),
            // The star also matches the resource itself, contrary to what its name suggests.
            ("pods/*", "get core/pods ns p", true),
            ("'*/scale'", "get core/replicationcontrollers/scale ns p", true),
            ("'*/scale'", "get core/replicationcontrollers ns p", false),
            ("'*'", "get core/pods/exec ns p", true),
            ("'*'", "get apps/deployments ns p", false),
            ("pods", "get apps/pods ns p", false),
            ("pods", "get /healthz", false),
        ] {
            assert_eq!(is_logged(&group(resources), request), expected, "{resources}: {request}");
        }
        assert!(is_logged("resources: [{group: apps}]", "get apps/deployments/scale ns d"));
        assert!(is_logged("resources: [{}]", "get core/secrets ns s"));
        let named = "resources: [{resources: [secrets], resourceNames: [a]}]";
        assert!(is_logged(named, "get core/secrets ns a") && !is_logged(named, "get core/secrets ns b"));
        assert!(!is_logged(named, "list core/secrets ns ."));
    }

    #[test]
    fn users_groups_verbs_namespaces_and_paths_restrict_a_rule() {
        for (rule, request, expected) in [
            ("users: [eve]", "get core/pods ns p", true),
            ("users: [adam]", "get core/pods ns p", false),
            ("users: [eve], userGroups: [ops]", "get core/pods ns p", false),
            ("userGroups: [ops, dev]", "get /healthz", true),
            ("verbs: [list]", "get core/pods ns p", false),
            ("namespaces: [ns]", "get core/pods ns p", true),
            ("namespaces: [ns]", "get core/pods other p", false),
            ("namespaces: ['']", "list core/pods . .", true),
            ("namespaces: ['']", "get core/nodes . n", true),
            ("namespaces: ['']", "get /healthz", false),
            ("nonResourceURLs: ['/healthz*']", "get /healthz/ping", true),
            ("nonResourceURLs: ['/healthz']", "get /healthz/ping", false),
            ("nonResourceURLs: ['*']", "get /anything", true),
            ("nonResourceURLs: ['*']", "get core/pods ns p", false),
            ("verbs: []", "patch core/pods ns p", true),
        ] {
            assert_eq!(is_logged(rule, request), expected, "{rule}: {request}");
        }
    }

    #[test]
    fn first_matching_rule_decides_and_none_means_not_logged() {
        let policy = policy(
            "- level: None\n  users: [system:kube-proxy]\n- level: Request\n  omitStages: [ResponseStarted]\n  verbs: [get]\n- level: Metadata\n  verbs: [get, list]\n",
        );
        assert_eq!(level(&policy, "system:kube-proxy", &[], "get core/pods ns p"), Level::None);
        assert_eq!(level(&policy, "eve", &[], "get core/pods ns p"), Level::Request);
        assert_eq!(level(&policy, "eve", &[], "list core/pods ns ."), Level::Metadata);
        assert_eq!(level(&policy, "eve", &[], "watch core/pods ns ."), Level::None);
        let nobody = Attributes { user: None, verb: "get", target: Target::Path("/api") };
        let decision = policy.decide(&nobody);
        assert_eq!(decision.rule.map(|rule| rule.line), Some(6));
        assert_eq!(policy.omits(&decision, Stage::ResponseStarted), Some(7));
        assert_eq!(policy.omits(&decision, Stage::ResponseComplete), None);
    }
}
