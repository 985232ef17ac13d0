//! Well-known platform controllers and how they read secrets.
//!
//! Each entry is the service account of a controller as its chart or manifest installs it, the programs that it runs, and how it reads,
//! with the source of each statement. A read by such an account must match all of these; the name alone proves nothing. For a write whose
//! response contains a secret, account and program must match.
//!
//! An entry takes its accounts from the chart or the manifests with their usual release names and namespaces, its reads from the code
//! (objects read through a cache are listed and watched, not read by name) and its programs from the code that sets the user agent: the
//! client, or for client-go the file name of the binary. Anything that the sources do not show is omitted.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

use super::read::{Breadth, Read, service_account};
use crate::detection::audit::uri::carried_labels;

/// One controller per line.
const CONTROLLERS: &str = include_str!("controllers.jsonl");

/// A well-known controller.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Controller {
    name: String,
    /// Service accounts as `namespace/name`.
    accounts: Vec<String>,
    /// Product tokens of the user agent, ignoring case; one that ends in `*` is a prefix.
    programs: Vec<String>,
    /// How it reads secrets; empty if it reads none.
    reads: Vec<ExpectedRead>,
    /// Whether its replicas run on several nodes, or its tokens are not bound to a pod, so that its addresses prove nothing.
    #[serde(default)]
    moves: bool,
    /// Sources of account, program and permissions.
    source: String,
}

/// One way in which a controller reads secrets.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedRead {
    verbs: Vec<String>,
    scope: ExpectedScope,
    /// The request's label selector must require one of these labels. Empty if any selector is accepted.
    #[serde(default)]
    labels: Vec<String>,
}

/// The widest scope of a read. Narrower reads are expected too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ExpectedScope {
    /// Secrets in the namespace of the account.
    Own,
    /// Single secrets in any namespace.
    Secret,
    /// One namespace at a time.
    Namespace,
    /// All namespaces at once.
    Cluster,
}

impl ExpectedScope {
    fn includes(self, read: &Read<'_>) -> bool {
        match self {
            ExpectedScope::Own => {
                let namespace = read.scope.split_once(':').map(|(_, namespace)| namespace);
                let own = service_account(&read.user).map(|(namespace, _)| namespace);
                own.is_some() && namespace == own
            }
            ExpectedScope::Secret => read.breadth == Breadth::Secret,
            ExpectedScope::Namespace => read.breadth <= Breadth::Namespace,
            ExpectedScope::Cluster => true,
        }
    }
}

impl ExpectedRead {
    /// Returns the verbs: get, list, watch.
    pub fn verbs(&self) -> &[String] {
        &self.verbs
    }

    /// Returns the widest scope: own (the namespace of the account), secret, namespace or cluster.
    pub fn scope(&self) -> &'static str {
        match self.scope {
            ExpectedScope::Own => "own",
            ExpectedScope::Secret => "secret",
            ExpectedScope::Namespace => "namespace",
            ExpectedScope::Cluster => "cluster",
        }
    }

    /// Returns the labels, one of which the request must require; none if any selector is accepted.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    fn has_verb(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }

    /// Whether the selector only selects secrets that carry one of the labels.
    fn selects(&self, read: &Read<'_>) -> bool {
        let selector = read.selector.as_ref().and_then(|both| both.split_once('&')).map(|(labels, _)| labels);
        self.labels.is_empty()
            || selector.is_some_and(|selector| {
                carried_labels(selector.as_bytes()).is_ok_and(|carried| {
                    carried.iter().any(|label| self.labels.iter().any(|known| known.as_bytes() == *label))
                })
            })
    }
}

/// Users of the control plane that are not service accounts, with their programs, as [`Controller::programs`].
///
/// k3s, `MicroK8s` and `MicroShift` run several components in one process. OpenShift runs a second program as the controller manager.
const CONTROL_PLANE: [(&str, &[&str]); 2] = [
    ("system:apiserver", &["kube-apiserver*", "k3s", "kubelite", "microshift", "hyperkube"]),
    (
        "system:kube-controller-manager",
        &[
            "kube-controller-manager*",
            "k3s",
            "kubelite",
            "microshift",
            "hyperkube",
            "cluster-policy-controller",
        ],
    ),
];

static CATALOG: LazyLock<Vec<Controller>> =
    LazyLock::new(|| CONTROLLERS.lines().filter_map(|line| serde_json::from_str(line).ok()).collect());

static ACCOUNTS: LazyLock<BTreeMap<String, usize>> = LazyLock::new(|| {
    let user = |account: &str| format!("system:serviceaccount:{}", account.replace('/', ":"));
    let all = CATALOG.iter().enumerate();
    all.flat_map(|(index, one)| one.accounts.iter().map(move |account| (user(account), index))).collect()
});

/// Returns the controller that a user name belongs to.
pub(super) fn find(user: &str) -> Option<&'static Controller> {
    ACCOUNTS.get(user).and_then(|&index| CATALOG.get(index))
}

/// The programs of a user, as product tokens.
pub(super) enum ExpectedPrograms {
    ControlPlane(&'static [&'static str]),
    Controller(&'static Controller),
}

impl ExpectedPrograms {
    /// Returns the programs of a user that is a control plane component or the account of a controller.
    pub(super) fn of(user: &str) -> Option<Self> {
        match CONTROL_PLANE.iter().find(|(name, _)| *name == user) {
            Some((_, programs)) => Some(ExpectedPrograms::ControlPlane(programs)),
            None => find(user).map(ExpectedPrograms::Controller),
        }
    }

    pub(super) fn include(&self, program: &str) -> bool {
        match self {
            ExpectedPrograms::ControlPlane(all) => all.iter().any(|known| is_program(known, program)),
            ExpectedPrograms::Controller(controller) => controller.runs(program),
        }
    }
}

/// Returns whether a product token matches this one, ignoring case; one that ends in `*` is a prefix.
fn is_program(known: &str, program: &str) -> bool {
    match known.strip_suffix('*') {
        Some(prefix) => program.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix)),
        None => program.eq_ignore_ascii_case(known),
    }
}

/// Returns all controllers.
pub fn all() -> impl Iterator<Item = &'static Controller> {
    CATALOG.iter()
}

impl Controller {
    /// Returns the display name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns its service accounts as `namespace/name`.
    pub fn accounts(&self) -> &[String] {
        &self.accounts
    }

    /// Returns the product tokens of its user agents.
    pub fn programs(&self) -> &[String] {
        &self.programs
    }

    /// Returns how it reads secrets; nothing if it reads none.
    pub fn reads(&self) -> &[ExpectedRead] {
        &self.reads
    }

    /// Returns the sources of the entry.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Returns whether the networks of its clients prove nothing.
    pub(super) fn moves(&self) -> bool {
        self.moves
    }

    fn runs(&self, program: &str) -> bool {
        self.programs.iter().any(|known| is_program(known, program))
    }

    /// Returns how a read differs from the expected behavior, each difference with the name of its aspect.
    pub(super) fn mismatches(&self, read: &Read<'_>) -> Vec<String> {
        let mut all = Vec::new();
        if !read.program.as_ref().is_some_and(|program| self.runs(program)) {
            all.push(format!("program {}", read.program.as_deref().unwrap_or("(not a product token)")));
        }
        // The catalog does not contain the writes of a controller.
        if !matches!(&*read.verb, "get" | "list" | "watch") {
            return all;
        }
        let expected: Vec<&ExpectedRead> = self.reads.iter().filter(|one| one.has_verb(&read.verb)).collect();
        let in_scope: Vec<&ExpectedRead> =
            expected.iter().copied().filter(|one| one.scope.includes(read)).collect();
        if expected.is_empty() {
            all.push(format!("verb {}", read.verb));
        } else if in_scope.is_empty() {
            all.push(format!("scope {}", read.scope));
        } else if !in_scope.iter().any(|one| one.selects(read)) {
            all.push("selector without the expected label".to_owned());
        }
        all
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::is_interactive_agent;
    use super::*;

    #[test]
    fn every_entry_is_complete_and_every_account_is_listed_once() {
        let lines: Vec<Controller> =
            CONTROLLERS.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), CATALOG.len());
        let accounts: usize = lines.iter().map(|one| one.accounts.len()).sum();
        assert_eq!(accounts, ACCOUNTS.len());
        for one in &lines {
            let name = &one.name;
            assert!(!one.programs.is_empty(), "{name}");
            for source in one.source.split("; ") {
                let (repository, paths) = source.split_once(": ").unwrap();
                let (repository, commit) = repository.split_once('@').unwrap();
                assert!(repository.starts_with("github.com/") && !paths.is_empty(), "{name}: {source}");
                assert!(
                    commit.len() == 12 && commit.bytes().all(|byte| byte.is_ascii_hexdigit()),
                    "{name}: {source}"
                );
            }
            for account in &one.accounts {
                let user = format!("system:serviceaccount:{}", account.replace('/', ":"));
                assert!(service_account(&user).is_some(), "{name}: {account}");
            }
            for read in &one.reads {
                assert!(!read.verbs.is_empty(), "{name}");
                assert!(read.verbs.iter().all(|verb| matches!(&**verb, "get" | "list" | "watch")), "{name}");
                // For one secret by name, a scope beyond it adds no information, and a selector does not apply.
                let is_get = read.has_verb("get");
                assert!(!is_get || read.verbs.len() == 1 && read.labels.is_empty(), "{name}");
                assert!(
                    !is_get || matches!(read.scope, ExpectedScope::Secret | ExpectedScope::Own),
                    "{name}"
                );
            }
        }
    }

    /// A program that scripts and people run as well proves nothing, so its reads must be limited by their selector.
    #[test]
    fn programs_are_specific_or_their_reads_are_limited_by_labels() {
        for one in CATALOG.iter() {
            for program in &one.programs {
                let prefix = program.trim_end_matches('*');
                assert!(!program.contains(['/', ' ']) && prefix.len() > 1, "{}: {program}", one.name);
                if is_interactive_agent(prefix) {
                    assert!(one.reads.iter().all(|read| !read.labels.is_empty()), "{}: {program}", one.name);
                }
                for agent in [
                    "curl",
                    "kubectl",
                    "python-requests",
                    "Python-urllib",
                    "Go-http-client",
                    "Mozilla",
                    "(none)",
                ] {
                    assert!(!one.runs(agent), "{}: {program}", one.name);
                }
            }
        }
    }

    /// An identity that the shipped rules except by name is only excepted with its own programs.
    #[test]
    fn every_identity_that_the_shipped_rules_know_has_programs() {
        let files = crate::shipped::files();
        let lines = files.iter().flat_map(|file| file.text.lines()).filter(|line| !line.starts_with('#'));
        let words = lines.flat_map(|line| line.split(['[', ']', ',', ' ', '"']));
        let is_identity = |word: &&str| {
            word.starts_with("system:serviceaccount:")
                || ["system:apiserver", "system:kube-controller-manager"].contains(word)
        };
        let names: Vec<&str> = words.filter(is_identity).collect();
        assert!(names.len() > 20, "{names:?}");
        for name in names {
            assert!(ExpectedPrograms::of(name).is_some_and(|all| !all.include("curl")), "{name}");
        }
    }
}
