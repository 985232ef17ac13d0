//! Decisions to trust a service account with its observed behavior.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::profile::Profile;
use super::read::{Breadth, Read, service_account};
use crate::detection::state;

/// Maximum number of values of each aspect.
const MAX_VALUES: usize = 1000;

/// The decision to trust or distrust a service account: with what, by whom, when and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustedReader {
    /// Time of the decision, in nanoseconds since 1970-01-01T00:00:00Z.
    pub at: i64,
    /// Name of the person, as they gave it; not verified.
    pub by: String,
    pub why: String,
    /// Whether this is the opposite decision: none of its behavior is routine.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_distrusted: bool,
    /// Verbs, scopes, programs and client networks; a list without values trusts none.
    pub verbs: Vec<String>,
    pub scopes: Vec<String>,
    pub programs: Vec<String>,
    pub clients: Vec<String>,
}

impl TrustedReader {
    /// Trusts what a profile contains, except for programs that do not become routine automatically.
    pub fn of(profile: &Profile) -> Self {
        let texts = |facet: &super::profile::Facet| {
            facet.iter().filter(|(_, seen)| !seen.is_barred).map(|(value, _)| value.to_owned()).collect()
        };
        TrustedReader {
            verbs: texts(&profile.verbs),
            scopes: texts(&profile.scopes),
            programs: texts(&profile.programs),
            clients: texts(&profile.networks),
            ..TrustedReader::default()
        }
    }

    /// Encodes a decision for a store.
    pub fn encode(&self) -> Vec<u8> {
        state::encode(0, self)
    }

    /// Decodes a stored decision, with the user name that is its key; none if this version cannot read it.
    pub fn decode(key: &[u8], value: &[u8]) -> Option<(String, Self)> {
        let user = std::str::from_utf8(key).ok().filter(|user| service_account(user).is_some())?;
        let (_, trusted): (_, Self) = state::decode(value)?;
        let lists = [&trusted.verbs, &trusted.scopes, &trusted.programs, &trusted.clients];
        lists.iter().all(|list| list.len() <= MAX_VALUES).then(|| (user.to_owned(), trusted))
    }

    pub(super) fn covers(&self, read: &Read<'_>, is_explained: bool) -> bool {
        let has = |list: &[String], value: Option<&str>| {
            value.is_some_and(|value| list.iter().any(|one| one == value))
        };
        !self.is_distrusted
            && has(&self.verbs, Some(&read.verb))
            && (has(&self.scopes, Some(&read.scope))
                || read.breadth == Breadth::Namespace && has(&self.scopes, Some("cluster")))
            && has(&self.programs, read.program.as_deref())
            && (is_explained || has(&self.clients, read.network.as_deref()))
    }

    /// The decision as an addition to the macro `trusted_reader` of the shipped rules; none if a name cannot be written
    /// exactly in a rule file.
    pub fn rule(&self, user: &str) -> Option<String> {
        let list = |values: &[String]| {
            let values = values.iter().map(|value| is_writable(value).then(|| format!("\"{value}\"")));
            values.collect::<Option<Vec<_>>>().map(|values| values.join(", "))
        };
        let lists = [&self.verbs, &self.scopes, &self.programs, &self.clients];
        if self.is_distrusted || !is_writable(user) || lists.iter().any(|values| values.is_empty()) {
            return None;
        }
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = write!(
            text,
            "- macro: trusted_reader\n  condition: >\n    or (audit.actor in (\"{user}\", \"{user} (unexpected program)\")\n    and audit.user.kind = serviceaccount \
             and ka.verb in ({})\n    and reader.scope in ({})\n    and reader.program in ({})\n    and reader.network in ({}))\n  \
             override: {{condition: append}}\n",
            list(&self.verbs)?,
            list(&self.scopes)?,
            list(&self.programs)?,
            list(&self.clients)?,
        );
        Some(text)
    }
}

fn is_writable(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".:_-/()".contains(&byte))
}
