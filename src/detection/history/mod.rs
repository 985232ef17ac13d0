//! What past logs say about the readers of registry credentials: who read which, how often, from where.
//!
//! It takes the alerts of a detector and returns two views of them: a [`Report`] of what was handed over to whom and which
//! registries to rotate, and a [`Baseline`] of recurring reads, as rule exceptions for review. It evaluates no events and
//! reads no files. The detector gets two additional rules, one before and one after all others ([`around`]): each event
//! about credentials triggers both, and the alerts between them are those of the user's rules.
//!
//! Clients choose the names in events, so every collection is bounded, and what exceeds a bound is counted. No secret may
//! enter: of a credential, an alert knows registry hosts and user names.

mod baseline;
mod collector;
mod exceptions;
mod ledger;
mod recurring;
mod report;
mod rotation;
mod stored;
mod views;

use std::collections::BTreeSet;

pub use baseline::{Baseline, Criteria, Proposal, ReadTarget, Recurrence};
pub(crate) use collector::is_per_reader;
pub use collector::{Collector, CredentialRead, around};
pub use exceptions::{Header, write as write_exceptions};
pub use ledger::{AccessRecord, Ledger};
pub use recurring::RecurringReads;
pub use report::{CredentialAccess, Denial, Registry, Report, WholeScope};
pub use rotation::{REPLACE_SECRET, RegistryKind, Rotation};
pub use stored::{StoredFacts, StoredReads};
pub use views::{CredentialView, ReaderView};

/// Maximum length of a text from an event in bytes; a client can send a million.
const MAX_TEXT_BYTES: usize = 256;

/// The identity that reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reader {
    /// The authenticated user; empty if there is none.
    pub user: String,
    pub impersonated: Option<String>,
}

impl Reader {
    /// For display: `user`, or `user as impersonated`.
    pub fn name(&self) -> String {
        let user = if self.user.is_empty() { "(unknown)" } else { &self.user };
        match &self.impersonated {
            Some(other) => format!("{user} as {other}"),
            None => user.to_owned(),
        }
    }
}

impl Reader {
    fn clipped(&self) -> Self {
        Reader {
            user: clip(&self.user).into_owned(),
            impersonated: self.impersonated.as_deref().map(|posed| clip(posed).into_owned()),
        }
    }
}

/// How often, and the first and last time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    pub count: u64,
    /// Nanoseconds since 1970-01-01T00:00:00Z; none if no event had a time.
    pub first: Option<i64>,
    pub last: Option<i64>,
}

impl Times {
    pub fn add(&mut self, time: Option<i64>) {
        self.count += 1;
        self.widen(time);
    }

    /// Extends the time span without counting.
    pub fn widen(&mut self, time: Option<i64>) {
        if let Some(time) = time {
            self.first = Some(self.first.map_or(time, |first| first.min(time)));
            self.last = Some(self.last.map_or(time, |last| last.max(time)));
        }
    }
}

/// The first few distinct strings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BoundedSet {
    pub texts: BTreeSet<String>,
    /// Whether further strings were omitted.
    pub has_more: bool,
}

impl BoundedSet {
    /// Adds a text if there is room for it.
    pub fn add(&mut self, text: &str, most: usize) {
        let text = clip(text);
        if self.texts.contains(&*text) {
            return;
        }
        if self.texts.len() < most {
            self.texts.insert(text.into_owned());
        } else {
            self.has_more = true;
        }
    }
}

/// The start of a string, with an ellipsis if it was truncated.
fn clip(text: &str) -> std::borrow::Cow<'_, str> {
    if text.len() <= MAX_TEXT_BYTES {
        return text.into();
    }
    let end = (0..=MAX_TEXT_BYTES).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    format!("{}…", &text[..end]).into()
}
