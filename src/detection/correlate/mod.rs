//! What alerts say together: windows over them, and how often a rule may say the same.
//!
//! ```text
//! alerts ──► Correlator ──► Fired       so many, so many different, all of these, in this order
//!    └─────► Throttle ────► Decision    shown, or held back and counted
//! ```
//!
//! In come observations: that a rule alerted, when, and the values that its correlation groups by and counts, as bytes
//! that may be shown. Out comes what a window held when it was complete. Nothing here knows an event, reads a clock or
//! does I/O: time is the time of events, so that a log of last year says what it would have said then.
//!
//! # Windows
//!
//! A group is all observations with equal values of `group-by`. Times are compared inclusively: two observations that are
//! exactly `timespan` apart share a window.
//!
//! - **Most conditions slide** (`gte`, `gt`, and both `temporal` types). An observation fires its group when some interval
//!   of `timespan` that contains it satisfies the condition; of several the one that ends first. The window is all
//!   that is known of that interval. Then the group is suppressed around it: an observation that is not more than `timespan`
//!   after the window's last one, or before its first, fires nothing, though it may count in another window. So two
//!   windows that fired share no observation, and what goes on for hours says so once every `timespan`.
//! - **Conditions with an upper end** (`lte`, `lt`, `eq`, ranges) can only be judged when nothing more can come. Their
//!   windows do not slide: one starts with the first observation behind the one before, lasts `timespan`, and is judged when the
//!   time has passed its end by [`DEFAULT_ALLOWED_LATENESS`]: by [`Correlator::advance`], or by [`Correlator::finish`] at the end of all
//!   input. A group without any observation has no window, so that `lt: 1` is never true.
//! - **`temporal_ordered`** takes observations of the same nanosecond in any order.
//!
//! # Out of order
//!
//! An apiserver writes some events after later ones. Each observation counts in its place, whenever it comes, as
//! long as it is not older than its group's newest by more than `timespan` and by more than [`DEFAULT_ALLOWED_LATENESS`]; beyond that it is
//! left out. Where windows do not slide it counts until its window was judged. Both are counted: [`CorrelationStats::late`],
//! [`CorrelationStats::too_late`]. Logs of several apiservers that are read one after the other want a larger allowed_lateness:
//! [`Correlator::with_allowed_lateness`].
//!
//! # Bounds
//!
//! Values are remembered by their hash (SHA-256, cut to 128 bits), a few of them as text. A full group first forgets
//! what cannot matter (of equal values all but the latest, in a sequence what is in no best chain), then its oldest.
//! What is full beyond that forgets the group that was not used for longest.
//!
//! # After a restart
//!
//! Both say what changed in them as entries for a store ([`Correlator::take_changes`], [`Throttle::take_changes`]) and take
//! them back. Entries are bound to what a correlation or a rule is called and to how it is defined, so that with other
//! rules those that are the same go on, and windows of others are dropped.

//!
//! # Somewhere else
//!
//! Where several processes share the groups, one that takes groups over is given their observations again
//! ([`Correlator::replay`]) with what came of their windows ([`Correlator::take_markers`], [`Correlator::apply_marker`]).

mod correlator;
mod digest;
mod group;
mod handoff;
mod lru;
mod stored;
mod throttle;

#[cfg(test)]
mod tests;

pub use correlator::{Consumer, Correlator};
pub use digest::Digest;
pub use handoff::{WindowMarker, WindowOutcome};
pub use throttle::{Decision, Throttle, Throttled};

use crate::detection::alert::AlertId;

/// How late an observation may come and be in time, in nanoseconds, unless the correlator is told otherwise. The apiserver's own disorder is within a second
/// or two.
pub const DEFAULT_ALLOWED_LATENESS: i64 = 5_000_000_000;

/// A group holds at least so many observations (of a list: values), and twice the number of its condition.
pub const MIN_GROUP_CAPACITY: usize = 1024;

/// All correlations together hold so many observations, some 50 bytes each. Each has an equal share, so that a
/// flood in one costs the others nothing, but at least what one full group needs.
pub const MAX_OBSERVATIONS: usize = 1 << 19;

/// All correlations together have so many groups, each an equal share, but at least [`MIN_GROUPS`].
pub const MAX_GROUPS: usize = 1 << 16;

/// Each correlation may have at least so many groups.
pub const MIN_GROUPS: usize = 256;

/// So many values of a window are shown.
pub const MAX_VALUES: usize = 32;

/// And so many bytes of each.
pub const MAX_VALUE_BYTES: usize = 256;

/// So many alerts of a window are named.
pub const MAX_IDS: usize = 64;

/// A longer note is not kept, in bytes.
pub const MAX_NOTE_BYTES: usize = 4096;

/// That a rule alerted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// Which of the correlation's rules: an index of [`Correlation::feeds`](crate::detection::rules::ast::Correlation::feeds).
    pub source: usize,
    /// When it happened, in nanoseconds since 1970.
    pub time: i64,
    /// Which alert it is.
    pub id: AlertId,
    /// The values of `group-by`, in its order. What is missing is empty, and such observations are a group too.
    pub key: Vec<Box<[u8]>>,
    /// The values of the condition's field; a list gives several, and without any a `value_count` takes no notice.
    /// Some of them are shown, so they must have been made fit for that.
    pub values: Vec<Box<[u8]>>,
    /// What the caller wants back with a window that is judged when it has closed, for then the event is
    /// gone ([`Correlator::is_tumbling`]). Elsewhere it is dropped.
    pub note: Option<Box<[u8]>>,
}

/// A window that satisfied its condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fired {
    /// Index of the correlation.
    pub correlation: usize,
    /// Which group, by the hash of its values.
    pub group: Digest,
    /// When: the time of the observation that completed the window, or the end of a window that was judged at its close.
    pub time: i64,
    /// How many observations it held.
    pub count: u64,
    /// How many different values of the condition's field; 0 where none is counted.
    pub value_count: u64,
    /// Some of these values, sorted.
    pub values: Vec<Box<[u8]>>,
    /// Time of its first observation.
    pub first: i64,
    /// Time of its last observation.
    pub last: i64,
    /// Which of the correlation's rules alerted, ascending.
    pub sources: Vec<usize>,
    /// Its last alerts, in the order of their times.
    pub ids: Vec<AlertId>,
    /// More was seen than could be kept: the counts are at least so high.
    pub is_partial: bool,
    /// The note of its last observation that came with one, where it was judged at its close.
    pub note: Option<Box<[u8]>>,
}

/// What was seen and what was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CorrelationStats {
    /// Observations, all of them.
    pub observed: u64,
    /// Windows that fired.
    pub fired: u64,
    /// Observations that were older than their group's newest by more than the allowed_lateness; some of them counted all the same.
    pub late: u64,
    /// Those among them that were too old to count.
    pub too_late: u64,
    /// Observations of alerts that were seen before.
    pub repeated: u64,
    /// Observations that a full group forgot, or values that a list had too many of.
    pub dropped: u64,
    /// Groups that were forgotten to make room.
    pub evicted_groups: u64,
}
