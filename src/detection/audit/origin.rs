//! Metadata of an event that is not part of its text: the name of its cluster, and a time for an event without one.
//!
//! It comes from wrappers and the configuration. It is kept separate from the events instead of being written into them, so that an event
//! has the same text, and its alerts the same ids, in every wrapper.

use std::ops::Range;
use std::sync::Arc;

use super::event_end::ends_like_an_event;
use super::time;

/// The origin of an event's time, most precise first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeSource {
    /// The event's `stageTimestamp`.
    Stage,
    /// The event's `requestReceivedTimestamp`.
    RequestReceived,
    /// The record that wraps the event.
    Wrapper,
    /// The preceding event in the log.
    PreviousEvent,
    /// When the record was received; for a log that is read afterwards, when it was last modified.
    Receipt,
}

impl TimeSource {
    /// The name in alerts.
    pub fn name(self) -> &'static str {
        match self {
            TimeSource::Stage => "stageTimestamp",
            TimeSource::RequestReceived => "requestReceivedTimestamp",
            TimeSource::Wrapper => "wrapper",
            TimeSource::PreviousEvent => "previous_event",
            TimeSource::Receipt => "receipt",
        }
    }
}

/// Metadata of one event that is not part of its text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin<'a> {
    /// The name of the cluster.
    pub cluster: Option<&'a [u8]>,
    /// A time for an event without one, in nanoseconds since 1970-01-01T00:00:00Z.
    pub time: Option<(i64, TimeSource)>,
}

/// The origin of the events after an offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct OriginMark {
    start: usize,
    cluster: Option<Arc<[u8]>>,
    time: Option<i64>,
}

/// Events without their wrappers, one per line, with the metadata from their wrappers.
#[derive(Debug, Default)]
pub struct Unwrapped {
    pub(super) bytes: Vec<u8>,
    /// In order.
    marks: Vec<OriginMark>,
}

impl Unwrapped {
    /// The events.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The events with their origins.
    pub fn records(&self) -> Records<'_> {
        Records { bytes: &self.bytes, marks: &self.marks, cluster: None, time: None }
    }

    /// Sets the origin of the text appended after this call.
    pub(super) fn mark(&mut self, cluster: Option<&Arc<[u8]>>, time: Option<i64>) {
        let start = self.bytes.len();
        match self.marks.last() {
            Some(last) if last.time == time && last.cluster.as_ref() == cluster => return,
            None if cluster.is_none() && time.is_none() => return,
            _ => {}
        }
        if self.marks.last().is_some_and(|last| last.start == start) {
            self.marks.pop();
        }
        self.marks.push(OriginMark { start, cluster: cluster.cloned(), time });
    }
}

/// Records without wrappers, and their metadata.
#[derive(Clone, Copy, Debug)]
pub struct Records<'a> {
    /// The text, which starts and ends at record boundaries.
    pub bytes: &'a [u8],
    marks: &'a [OriginMark],
    /// The cluster of events before the first mark, and of those whose mark does not state one.
    cluster: Option<&'a [u8]>,
    /// The time of the same events.
    time: Option<(i64, TimeSource)>,
}

impl<'a> Records<'a> {
    /// Creates records from a buffer, or from its unwrapped events.
    pub fn new(unwrapped: Option<&'a Unwrapped>, buffer: &'a [u8]) -> Self {
        unwrapped.map_or_else(|| Records::from(buffer), Unwrapped::records)
    }

    /// The same, with a cluster name for events whose wrapper does not state one.
    #[must_use]
    pub fn with_cluster(self, cluster: Option<&'a [u8]>) -> Self {
        Records { cluster: self.cluster.or(cluster), ..self }
    }

    /// Creates one event from these records.
    #[must_use]
    pub fn part(self, range: Range<usize>) -> Self {
        let Origin { cluster, time } = self.origin_at(range.start);
        Records { bytes: self.bytes.get(range).unwrap_or_default(), marks: &[], cluster, time }
    }

    /// The origin of the event that starts at an offset.
    pub fn origin_at(&self, at: usize) -> Origin<'a> {
        let next = self.marks.partition_point(|mark| mark.start <= at);
        let mark = next.checked_sub(1).and_then(|index| self.marks.get(index));
        Origin {
            cluster: mark.and_then(|mark| mark.cluster.as_deref()).or(self.cluster),
            time: mark.and_then(|mark| mark.time).map(|time| (time, TimeSource::Wrapper)).or(self.time),
        }
    }

    /// The origin of an event of these records.
    #[inline]
    pub(crate) fn origin_of(&self, event: &[u8]) -> Origin<'a> {
        if self.marks.is_empty() {
            return Origin { cluster: self.cluster, time: self.time };
        }
        // An event is a part of the text.
        self.origin_at(event.as_ptr().addr().saturating_sub(self.bytes.as_ptr().addr()))
    }
}

impl<'a> From<&'a [u8]> for Records<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Records { bytes, marks: &[], cluster: None, time: None }
    }
}

/// The time of the last event, if its line is one complete event in the apiserver's format: it serves as the time of a following event
/// without one. Only the end of the text is examined.
pub(crate) fn last_time(records: &[u8]) -> Option<i64> {
    const KEY: &[u8] = br#""stageTimestamp":""#;
    const TIMESTAMP_LEN: usize = "2026-11-23T04:15:07.230739Z".len();
    /// Annotations follow the timestamp.
    const MAX_TAIL: usize = 4096;
    let tail = &records[records.len().saturating_sub(MAX_TAIL)..];
    let tail = tail.trim_ascii_end();
    let line = &tail[memchr::memrchr(b'\n', tail).map_or(0, |at| at + 1)..];
    if !ends_like_an_event(line) {
        return None;
    }
    // In text that a client sent, each quote is escaped.
    let start = memchr::memmem::rfind(line, KEY)? + KEY.len();
    time::parse(line.get(start..start + TIMESTAMP_LEN)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn events_have_the_origin_of_the_mark_before_them() {
        let mut unwrapped = Unwrapped::default();
        let cluster: Arc<[u8]> = Arc::from(&b"prod"[..]);
        unwrapped.mark(None, None);
        unwrapped.bytes.extend_from_slice(b"{0}\n");
        unwrapped.mark(Some(&cluster), Some(7));
        unwrapped.bytes.extend_from_slice(b"{1}\n");
        unwrapped.mark(Some(&cluster), Some(7));
        unwrapped.bytes.extend_from_slice(b"{2}\n");
        unwrapped.mark(None, None);
        unwrapped.bytes.extend_from_slice(b"{3}\n");
        let records = unwrapped.records().with_cluster(Some(b"default"));
        let origin = |at: usize| records.origin_of(&records.bytes[at..]);
        assert_eq!(origin(0), Origin { cluster: Some(b"default"), time: None });
        for at in [4, 8] {
            assert_eq!(origin(at), Origin { cluster: Some(b"prod"), time: Some((7, TimeSource::Wrapper)) });
        }
        assert_eq!(origin(12).cluster, Some(&b"default"[..]));
    }

    #[test]
    fn the_last_time_is_that_of_a_whole_event() {
        let event = r#"{"kind":"Event","requestObject":{"a":"\"stageTimestamp\":\"2000-01-01T00:00:00.000000Z\""},"stageTimestamp":"2026-11-23T03:45:32.270783Z","annotations":{"a":"b"}}"#;
        assert_eq!(last_time(format!("x\n{event}\n").as_bytes()), Some(1_795_405_532_270_783_000));
        assert_eq!(last_time(&event.as_bytes()[..80]), None);
        assert_eq!(last_time(b""), None);
    }
}
