//! ReadTarget past logs say of the readers of registry credentials: who read which, how often, from where.
//!
//! In come the alerts of a detector, out come two views of them: [`Report`], what was handed over to whom and which
//! registries to rotate, and [`Baseline`], reads that recur, as exceptions of rules for a person to review. No event is
//! judged here and no file is read. The detector gets two rules more, one before and one after all others
//! ([`around`]), so that each event about credentials is heard of, and the alerts between the two are the user's rules that
//! it matched.
//!
//! Names in events are whatever a client made up, so everything here is bounded, and what goes beyond is counted. No secret
//! comes in: of a credential an alert knows hosts and user names.

mod baseline;
mod collector;
mod exceptions;
mod ledger;
mod recurring;
mod report;

use std::collections::BTreeSet;

pub use baseline::{Baseline, Criteria, Proposal, ReadTarget, Recurrence};
pub use collector::{Collector, Read, around};
pub use exceptions::{Header, write as write_exceptions};
pub use ledger::{Ledger, Reading};
pub use recurring::RecurringReads;
pub use report::{Denial, HandedOver, Registry, Report, WholeScope};

/// A text from an event is kept up to so many bytes; a client can send a million.
const MAX_TEXT_BYTES: usize = 256;

/// Who read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reader {
    /// Who really asked. Empty for nobody.
    pub user: String,
    /// Whom they posed as.
    pub impersonated: Option<String>,
}

impl Reader {
    /// For people: the user, and whom they posed as.
    pub fn name(&self) -> String {
        let user = if self.user.is_empty() { "(nobody)" } else { &self.user };
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

/// How often, and when first and last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// How often.
    pub count: u64,
    /// Nanoseconds since 1970; nothing where no event said when.
    pub first: Option<i64>,
    /// Likewise.
    pub last: Option<i64>,
}

impl Times {
    /// Once more.
    pub fn add(&mut self, time: Option<i64>) {
        self.count += 1;
        self.widen(time);
    }

    /// Takes a time without counting it.
    pub fn widen(&mut self, time: Option<i64>) {
        if let Some(time) = time {
            self.first = Some(self.first.map_or(time, |first| first.min(time)));
            self.last = Some(self.last.map_or(time, |last| last.max(time)));
        }
    }
}

/// The first few of many different texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BoundedSet {
    /// Those that were kept.
    pub texts: BTreeSet<String>,
    /// There were others.
    pub has_more: bool,
}

impl BoundedSet {
    /// Adds one, unless there are so many.
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

/// The start of a text, with a mark where something is left out.
fn clip(text: &str) -> std::borrow::Cow<'_, str> {
    if text.len() <= MAX_TEXT_BYTES {
        return text.into();
    }
    let end = (0..=MAX_TEXT_BYTES).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    format!("{}…", &text[..end]).into()
}
