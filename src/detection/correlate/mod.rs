//! Correlation: what several matches mean together, and how often a rule may alert.
//!
//! ```text
//! matches ──► Correlator ──► Fired       a count, a number of distinct values, several rules, a sequence of rules
//!    └──────► Throttle ────► Decision    emit, or throttle and count
//! ```
//!
//! It takes observations: which rule matched, when, and the values that the correlation groups by and counts, as redacted bytes. It returns
//! the windows that satisfied their condition. It does not know events, reads no clock and does no I/O: time is event time, so that a log
//! of last year gives the alerts that it would have given then.
//!
//! # Windows
//!
//! A group holds all observations with equal values of `group-by`. Times are compared inclusively: two observations exactly `timespan`
//! apart share a window.
//!
//! - **Sliding windows** serve conditions without an upper bound (`gte`, `gt`, both `temporal` types). An observation fires its group if
//!   some interval of `timespan` that contains it satisfies the condition; of several such intervals the one that ends first counts. The
//!   window is everything known of that interval. Then the group is suppressed around it: an observation at most `timespan` after the
//!   window's last one, or before its first, fires nothing, but may count in another window. So two windows that fired share no
//!   observation, and activity that lasts for hours fires once per `timespan`.
//! - **Tumbling windows** serve conditions with an upper bound (`lte`, `lt`, `eq`, ranges), which can only be evaluated on window close. A
//!   window starts with the first observation after the previous window, lasts `timespan`, and is closed once the time has passed its end
//!   by the allowed lateness: by [`Correlator::advance`], or by [`Correlator::finish`] at the end of all input. A group without
//!   observations has no window, so `lt: 1` is never true.
//! - **`temporal_ordered`** takes observations of the same nanosecond in any order.
//!
//! # Allowed lateness
//!
//! An apiserver writes some events after later ones. An observation counts at its own time as long as it is not older than its group's
//! newest by more than both `timespan` and the allowed lateness ([`DEFAULT_ALLOWED_LATENESS`]); older ones are dropped. In a tumbling
//! window it counts until that window closed. Both cases are counted ([`CorrelationStats::late`], [`CorrelationStats::too_late`]). Logs of
//! several apiservers that are read one after the other need a larger value: [`Correlator::with_allowed_lateness`].
//!
//! # Bounds
//!
//! Values are kept by digest (SHA-256, cut to 128 bits), a few of them as text. A full group first drops what cannot affect any window (of
//! equal values all but the latest; of a sequence what is in no best chain), then its oldest observations.
//!
//! If the groups of a correlation exceed their limits, those go first that cannot affect anything anymore. Then a group is evicted, which
//! is counted: groups that already hold a part of what the condition needs outlive a flood of groups that hold less, as long as they take
//! at most half of the limits ([`LruMap`](crate::detection::lru::LruMap)).
//!
//! # Saved state
//!
//! [`Correlator`] and [`Throttle`] report changes as entries for a store (`take_changes`) and restore them. Entries are bound to the name
//! and definition of their correlation or rule: after a reload those that did not change continue, and the windows of others are dropped.
//!
//! # Handoff
//!
//! Where several processes share the groups, a new owner replays the observations of a group ([`Correlator::replay`]) and the outcomes of
//! its windows ([`Correlator::take_markers`], [`Correlator::apply_marker`]).

mod correlator;
mod digest;
mod group;
mod handoff;
mod persist;
mod stored;
mod throttle;
mod window_marker;

#[cfg(test)]
mod tests;

pub use correlator::Correlator;
pub use digest::Digest;
pub use throttle::{Decision, Throttle};
pub use window_marker::{WindowMarker, WindowOutcome};

use crate::detection::alert::AlertId;

/// Default for how late an observation may come, in nanoseconds of event time. The apiserver writes events up to a
/// second or two out of order.
pub const DEFAULT_ALLOWED_LATENESS: i64 = 5_000_000_000;

/// A group holds at least this many observations (or values, if those are counted), and twice the number in its
/// condition.
pub const MIN_GROUP_CAPACITY: usize = 1024;

/// Maximum number of observations in all correlations together, about 50 bytes each. Each correlation has an equal share, so that a flood
/// in one does not affect the others, but at least the size of one full group.
pub const MAX_OBSERVATIONS: usize = 1 << 19;

/// Maximum number of groups in all correlations together. Each correlation has an equal share, but at least
/// [`MIN_GROUPS`].
pub const MAX_GROUPS: usize = 1 << 16;

pub const MIN_GROUPS: usize = 256;

/// Maximum number of values that a fired window shows.
pub const MAX_VALUES: usize = 32;

/// Maximum length of each of them in bytes.
pub const MAX_VALUE_BYTES: usize = 256;

/// Maximum number of alerts that a fired window lists.
pub const MAX_IDS: usize = 64;

/// Maximum length of a note in bytes; longer ones are dropped.
pub const MAX_NOTE_BYTES: usize = 4096;

/// A match of a rule, as a correlation sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// Which of the correlation's rules matched: an index into
    /// [`Correlation::feeds`](crate::detection::rules::ast::Correlation::feeds).
    pub source: usize,
    /// Event time, in nanoseconds since 1970-01-01T00:00:00Z.
    pub time: i64,
    /// The alert of the match. An alert counts once per group.
    pub id: AlertId,
    /// The values of `group-by`, in its order. A missing value is empty; observations without values form a group too.
    pub key: Vec<Box<[u8]>>,
    /// The values of the condition's field. A list gives several; a `value_count` ignores observations without any.
    /// Some are shown, so they must be redacted.
    pub values: Vec<Box<[u8]>>,
    /// What the caller needs to know of the event when a tumbling window closes, since the event is no longer available then
    /// ([`Correlator::is_tumbling`]). Ignored by sliding windows.
    pub note: Option<Box<[u8]>>,
}

/// A window that satisfied its condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fired {
    pub correlation: usize,
    /// Digest of the group's values.
    pub group: Digest,
    /// The time of the observation that completed a sliding window, or the end of a tumbling window.
    pub time: i64,
    /// Number of observations.
    pub count: u64,
    /// Number of distinct values of the condition's field; 0 if values are not counted.
    pub value_count: u64,
    /// Some of these values, sorted.
    pub values: Vec<Box<[u8]>>,
    pub first: i64,
    pub last: i64,
    /// Which of the correlation's rules matched, ascending.
    pub sources: Vec<usize>,
    /// The last alerts in the window, in time order.
    pub ids: Vec<AlertId>,
    /// More was observed than could be stored: the counts are lower bounds.
    pub is_partial: bool,
    /// The last note in a tumbling window.
    pub note: Option<Box<[u8]>>,
}

/// Numbers of observations that were lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CorrelationStats {
    pub observed: u64,
    pub fired: u64,
    /// Observations older than their group's newest by more than the allowed lateness. Some of them counted nevertheless.
    pub late: u64,
    /// Late observations that were too old to count.
    pub too_late: u64,
    /// Observations of alerts that were seen before.
    pub repeated: u64,
    /// Observations dropped by full groups, and values beyond the capacity of a group.
    pub dropped: u64,
    pub evicted_groups: u64,
    /// The subset of these that satisfied a part of the condition ([`Group::rank`](group::Group::rank)).
    pub evicted_advanced_groups: u64,
}
