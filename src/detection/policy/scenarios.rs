//! Scenarios: the user, namespace and name of a request, as far as a policy's rule or a condition distinguishes them.
//!
//! In the ordinary scenario, neither mentions the user, namespace or name. There is an additional scenario for each one that is mentioned,
//! so that gaps that only concern it are found.

use std::collections::HashSet;

use super::model::{Attributes, Policy, PolicyRule, Target, User};
use super::requests::{Literals, Request};

/// What is known about a user's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum UserName {
    /// Any user.
    Any,
    /// A user that is not mentioned.
    Other,
    StartsWith(String),
    Known(String),
}

/// The user of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Actor {
    pub name: UserName,
    /// Some of the user's groups.
    pub groups: Vec<String>,
    /// A description for people, such as `for user mallory`; empty for the ordinary user.
    pub label: String,
}

/// The namespace of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NamespaceKind {
    /// Unknown.
    Anywhere,
    /// No namespace, or all namespaces.
    Cluster,
    /// A namespace that is not mentioned.
    Other,
    Named(String),
}

/// The object name of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Name {
    /// Unknown.
    Any,
    /// The request has no name.
    Absent,
    /// A name that neither the policy nor the rule mentions.
    Other,
    Named(String),
}

/// The user, namespace and name of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scenario {
    pub actor: Actor,
    pub place: NamespaceKind,
    pub name: Name,
}

/// The group of all authenticated users.
const AUTHENTICATED: &str = "system:authenticated";

/// No user, namespace or object has this name.
const UNNAMED: &str = "\u{0}";

impl Actor {
    fn ordinary() -> Self {
        Actor { name: UserName::Other, groups: vec![AUTHENTICATED.to_owned()], label: String::new() }
    }

    fn anonymous() -> Self {
        Actor {
            name: UserName::Known("system:anonymous".to_owned()),
            groups: vec!["system:unauthenticated".to_owned()],
            label: "for anonymous users".to_owned(),
        }
    }

    /// A user, with the groups that the name implies.
    fn user(name: &str) -> Self {
        if name == "system:anonymous" {
            return Actor::anonymous();
        }
        let mut groups = vec![AUTHENTICATED.to_owned()];
        if let Some(account) = name.strip_prefix("system:serviceaccount:") {
            groups.push("system:serviceaccounts".to_owned());
            if let Some((namespace, _)) = account.split_once(':') {
                groups.push(format!("system:serviceaccounts:{namespace}"));
            }
        } else if name.starts_with("system:node:") {
            groups.push("system:nodes".to_owned());
        } else if name == "system:apiserver" {
            // The apiserver's own requests bypass authentication.
            groups = vec!["system:masters".to_owned()];
        }
        Actor { name: UserName::Known(name.to_owned()), groups, label: format!("for user {name}") }
    }

    /// A member of a group.
    fn member(group: &str) -> Option<Self> {
        let label = format!("for members of {group}");
        let name = match group {
            AUTHENTICATED => return None,
            "system:unauthenticated" => return Some(Actor::anonymous()),
            "system:nodes" => UserName::StartsWith("system:node:".to_owned()),
            "system:serviceaccounts" => UserName::StartsWith("system:serviceaccount:".to_owned()),
            _ => match group.strip_prefix("system:serviceaccounts:") {
                Some(namespace) => UserName::StartsWith(format!("system:serviceaccount:{namespace}:")),
                None => UserName::Other,
            },
        };
        let mut groups = vec![AUTHENTICATED.to_owned(), group.to_owned()];
        if group.starts_with("system:serviceaccounts:") {
            groups.push("system:serviceaccounts".to_owned());
        }
        Some(Actor { name, groups, label })
    }
}

impl Scenario {
    /// Any user, namespace and name. A condition that cannot hold in this scenario cannot hold in any other.
    pub fn any() -> Self {
        let actor = Actor { name: UserName::Any, groups: Vec::new(), label: String::new() };
        Scenario { actor, place: NamespaceKind::Anywhere, name: Name::Any }
    }

    /// A user, namespace and name that neither the policy nor the rule mentions.
    pub fn ordinary(request: &Request) -> Self {
        let first = |of: Vec<NamespaceKind>| of.into_iter().next().unwrap_or(NamespaceKind::Cluster);
        let place = first(places(request, &[]));
        let name = names(request, &[]).into_iter().next().unwrap_or(Name::Absent);
        Scenario { actor: Actor::ordinary(), place, name }
    }

    /// Whether it is a special case of another scenario: each aspect is the same, or ordinary there.
    pub fn refines(&self, other: &Scenario, ordinary: &Scenario) -> bool {
        (self.actor == other.actor || other.actor == ordinary.actor)
            && (self.place == other.place || other.place == ordinary.place)
            && (self.name == other.name || other.name == ordinary.name)
    }

    /// A description of what is special about it, for people; empty for the ordinary scenario.
    pub fn label(&self, request: &Request) -> String {
        let ordinary = Scenario::ordinary(request);
        let mut parts = Vec::new();
        if !self.actor.label.is_empty() {
            parts.push(self.actor.label.clone());
        }
        match &self.place {
            NamespaceKind::Named(name) => parts.push(format!("in namespace {name}")),
            NamespaceKind::Cluster if ordinary.place != NamespaceKind::Cluster => {
                parts.push("in all namespaces at once".to_owned());
            }
            _ => {}
        }
        match &self.name {
            Name::Named(name) => parts.push(format!("of name {name}")),
            Name::Other if ordinary.name == Name::Absent => parts.push("by name".to_owned()),
            _ => {}
        }
        parts.join(" ")
    }

    /// The request as a policy sees it.
    pub fn attributes<'a>(&'a self, request: &'a Request) -> Attributes<'a> {
        let name = match &self.actor.name {
            UserName::Known(name) | UserName::StartsWith(name) => name.as_str(),
            UserName::Any | UserName::Other => UNNAMED,
        };
        let target = if request.is_resource() {
            Target::Resource {
                group: &request.group,
                resource: &request.resource,
                subresource: &request.subresource,
                namespace: match &self.place {
                    NamespaceKind::Cluster => "",
                    NamespaceKind::Named(name) => name,
                    NamespaceKind::Anywhere | NamespaceKind::Other => UNNAMED,
                },
                name: match &self.name {
                    Name::Absent => "",
                    Name::Named(name) => name,
                    Name::Any | Name::Other => UNNAMED,
                },
            }
        } else {
            Target::Path(&request.path)
        };
        Attributes { user: Some(User { name, groups: &self.actor.groups }), verb: &request.verb, target }
    }
}

fn places(request: &Request, named: &[&str]) -> Vec<NamespaceKind> {
    let named =
        || named.iter().filter(|name| !name.is_empty()).map(|name| NamespaceKind::Named((*name).to_owned()));
    // For authorization and audit, a request for one namespace is inside that namespace.
    let is_one_namespace = request.group.is_empty()
        && request.resource == "namespaces"
        && !matches!(&*request.verb, "list" | "watch" | "create" | "deletecollection");
    if !(request.is_namespaced || is_one_namespace) {
        return vec![NamespaceKind::Cluster];
    }
    let mut places = vec![NamespaceKind::Other];
    if matches!(&*request.verb, "list" | "watch") {
        places.push(NamespaceKind::Cluster);
    }
    places.extend(named());
    places
}

fn names(request: &Request, named: &[&str]) -> Vec<Name> {
    let named = || named.iter().map(|name| Name::Named((*name).to_owned()));
    match &*request.verb {
        _ if !request.is_resource() => vec![Name::Absent],
        "create" if request.subresource.is_empty() => vec![Name::Absent],
        "deletecollection" => vec![Name::Absent],
        // A field selector may contain a name.
        "list" | "watch" => [Name::Absent, Name::Other].into_iter().chain(named()).collect(),
        _ => std::iter::once(Name::Other).chain(named()).collect(),
    }
}

/// Maximum number of users, namespaces and names of one rule that are considered.
const MAX_NAMED: usize = 24;

/// Maximum number of scenarios of one request.
const MAX_SCENARIOS: usize = 4096;

/// The scenarios of a request that a policy or a condition may distinguish, starting with the ordinary one.
pub fn scenarios(policy: &Policy, literals: &Literals, request: &Request) -> Vec<Scenario> {
    let mut scenarios = Vec::new();
    let mut known = HashSet::new();
    let mut add = |rule: Option<&PolicyRule>| {
        let actors = actors(rule, literals);
        let texts = |own: Option<&[String]>, literal: &[String]| -> Vec<String> {
            own.unwrap_or_default()
                .iter()
                .take(MAX_NAMED)
                .chain(literal.iter().take(MAX_NAMED))
                .cloned()
                .collect()
        };
        let spaces = texts(rule.map(|rule| &*rule.namespaces), &literals.namespaces);
        let own: Vec<String> =
            rule.iter().flat_map(|rule| &rule.resources).flat_map(|entry| entry.names.clone()).collect();
        let objects = texts(Some(&own), &literals.names);
        let spaces: Vec<&str> = spaces.iter().map(String::as_str).collect();
        let objects: Vec<&str> = objects.iter().map(String::as_str).collect();
        for actor in &actors {
            for place in places(request, &spaces) {
                for name in names(request, &objects) {
                    let scenario = Scenario { actor: actor.clone(), place: place.clone(), name };
                    if scenarios.len() == MAX_SCENARIOS {
                        return;
                    }
                    if known.insert(scenario.clone()) {
                        scenarios.push(scenario);
                    }
                }
            }
        }
    };
    add(None);
    for rule in &policy.rules {
        let is_limited = !rule.users.is_empty()
            || !rule.user_groups.is_empty()
            || !rule.namespaces.is_empty()
            || rule.resources.iter().any(|entry| !entry.names.is_empty());
        let is_about = rule.verbs.is_empty() || rule.verbs.contains(&request.verb);
        if is_limited && is_about {
            add(Some(rule));
        }
    }
    scenarios
}

fn actors(rule: Option<&PolicyRule>, literals: &Literals) -> Vec<Actor> {
    let mut actors = vec![Actor::ordinary(), Actor::anonymous()];
    let mut add = |actor: Actor| {
        if !actors.contains(&actor) {
            actors.push(actor);
        }
    };
    let users = rule.map(|rule| &*rule.users).unwrap_or_default();
    let groups = rule.map(|rule| &*rule.user_groups).unwrap_or_default();
    users
        .iter()
        .take(MAX_NAMED)
        .chain(literals.users.iter().take(MAX_NAMED))
        .for_each(|user| add(Actor::user(user)));
    groups
        .iter()
        .take(MAX_NAMED)
        .chain(literals.user_groups.iter().take(MAX_NAMED))
        .filter_map(|group| Actor::member(group))
        .for_each(add);
    actors
}
