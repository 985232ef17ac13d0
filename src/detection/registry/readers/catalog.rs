//! Well-known platform controllers and how they read secrets.
//!
//! Each entry is the service account of a controller as its chart or manifest installs it, the programs that it runs, and how
//! it reads, with the source of each statement. A read by such an account has to match all of it; the name alone is
//! nothing.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

use super::read::{Breadth, Read};

/// One controller a line.
const CONTROLLERS: &str = include_str!("controllers.jsonl");

/// How a controller reads secrets.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Controller {
    name: String,
    /// Service accounts as `namespace/name`.
    accounts: Vec<String>,
    /// Product tokens of the user agent, without regard to case; one that ends in `*` is a prefix.
    programs: Vec<String>,
    verbs: Vec<String>,
    /// The widest scope: secret, namespace or cluster.
    scope: String,
    /// Whether its replicas run on several nodes, or its tokens are bound to no pod, so that its addresses say nothing.
    #[serde(default)]
    moves: bool,
    /// Where account, program and permissions are from.
    source: String,
}

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

/// Returns all controllers.
pub fn all() -> impl Iterator<Item = &'static Controller> {
    CATALOG.iter()
}

impl Controller {
    /// Returns the name for people.
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

    /// Returns the verbs with which it reads secrets.
    pub fn verbs(&self) -> &[String] {
        &self.verbs
    }

    /// Returns the widest scope of its reads: secret, namespace or cluster.
    pub fn scope(&self) -> &str {
        &self.scope
    }

    /// Returns where the entry is from.
    pub fn source(&self) -> &str {
        &self.source
    }

    fn breadth(&self) -> Breadth {
        match &*self.scope {
            "cluster" => Breadth::Cluster,
            "namespace" => Breadth::Namespace,
            _ => Breadth::Secret,
        }
    }

    /// Returns whether the networks of its clients say nothing.
    pub(super) fn moves(&self) -> bool {
        self.moves
    }

    fn runs(&self, program: &str) -> bool {
        self.programs.iter().any(|known| match known.strip_suffix('*') {
            Some(prefix) => {
                program.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
            }
            None => program.eq_ignore_ascii_case(known),
        })
    }

    /// Returns what in a read differs from the expected behavior, each with the name of its aspect.
    pub(super) fn mismatches(&self, read: &Read<'_>) -> Vec<String> {
        let mut all = Vec::new();
        if !read.program.as_ref().is_some_and(|program| self.runs(program)) {
            all.push(format!("program {}", read.program.as_deref().unwrap_or("(not a product token)")));
        }
        if !self.verbs.contains(&read.verb) {
            all.push(format!("verb {}", read.verb));
        }
        if read.breadth > self.breadth() {
            all.push(format!("scope {}", read.scope));
        }
        all
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_complete_and_every_account_is_listed_once() {
        let lines: Vec<Controller> =
            CONTROLLERS.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), CATALOG.len());
        let accounts: usize = lines.iter().map(|one| one.accounts.len()).sum();
        assert_eq!(accounts, ACCOUNTS.len());
        for one in &lines {
            assert!(
                !one.programs.is_empty() && !one.verbs.is_empty() && one.source.contains('/'),
                "{}",
                one.name
            );
            assert!(matches!(&*one.scope, "secret" | "namespace" | "cluster"), "{}", one.name);
            assert!(one.accounts.iter().all(|account| account.split('/').count() == 2), "{}", one.name);
            assert!(one.verbs.iter().all(|verb| matches!(&**verb, "get" | "list" | "watch")), "{}", one.name);
            assert!(one.programs.iter().all(|program| !program.contains(['/', ' '])), "{}", one.name);
        }
    }
}
