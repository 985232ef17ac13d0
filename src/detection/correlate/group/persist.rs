//! How a group is stored: as a head, the texts of its values, its notes, and its entries in pieces, so that one more observation in a group
//! of a hundred thousand only rewrites the piece that contains it.
//!
//! Entries are sorted; a piece holds all entries from its start up to the start of the next one. Expired entries are removed from the store
//! only with a whole piece: a restored group drops them itself. Any other removal rewrites the group, which only happens when a group is
//! full.
//!
//! An entry takes about 25 bytes, or 40 if values are counted; a piece holds at most 64 entries. A head takes about 60 bytes; texts and
//! notes take 18 and 10 bytes each on top of their content.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::super::{Digest, MAX_NOTE_BYTES, MAX_VALUE_BYTES, MAX_VALUES};
use super::sliding::MAX_SUPPRESSED_INTERVALS;
use super::tumbling::MAX_NOTES;
use super::{Entry, Group, GroupSpec};
use crate::detection::rules::ast::CorrelationKind;
use crate::detection::state::{EntryDecoder, VERSION, decode, encode, put_bytes, put_number};

/// Number of the part that every group has.
pub const HEAD: u64 = 0;
const TEXTS: u64 = 1;
const NOTES: u64 = 2;
/// Pieces have this number or a higher one.
const FIRST_PIECE: u64 = 3;

/// Maximum number of entries in a piece.
const MAX_PIECE_ENTRIES: usize = 64;

/// Which parts of a group are stored, and which of these are outdated.
#[derive(Clone, Debug)]
pub struct StoredParts {
    /// Numbers of the stored parts.
    stored: BTreeSet<u64>,
    /// Number of each piece by its first entry. The first piece also covers entries before it.
    starts: BTreeMap<Entry, u64>,
    /// First entries of the pieces that changed.
    changed: BTreeSet<Entry>,
    /// Number of the next new piece.
    next: u64,
    /// Whether the entries are divided as in `starts`.
    is_divided: bool,
    texts_have_changed: bool,
    notes_have_changed: bool,
}

impl StoredParts {
    /// Creates the state of a group that is not stored yet.
    fn new() -> Self {
        StoredParts {
            stored: BTreeSet::new(),
            starts: BTreeMap::new(),
            changed: BTreeSet::new(),
            next: FIRST_PIECE,
            is_divided: false,
            texts_have_changed: true,
            notes_have_changed: true,
        }
    }

    pub fn entry_added(&mut self, entry: &Entry) {
        let start = self.starts.range(..=entry).next_back().or_else(|| self.starts.first_key_value());
        match start {
            Some((&start, _)) => _ = self.changed.insert(start),
            None => self.is_divided = false,
        }
    }

    /// Records that entries other than the oldest were removed.
    pub fn all_changed(&mut self) {
        self.is_divided = false;
        self.texts_have_changed = true;
    }

    pub fn texts_changed(&mut self) {
        self.texts_have_changed = true;
    }

    pub fn notes_changed(&mut self) {
        self.notes_have_changed = true;
    }
}

/// The small part that changes with nearly every observation.
#[derive(Debug, Serialize, Deserialize)]
pub struct Head {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    newest: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    suppressed: Vec<(i64, i64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    closed: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dropped: Option<i64>,
}

/// A restored part.
#[derive(Debug)]
pub enum StoredPart {
    /// The members of the head, and the last use of the group.
    Head(u64, Head),
    /// Values as text.
    Texts(BTreeMap<Digest, Box<[u8]>>),
    /// Notes by event time.
    Notes(BTreeMap<i64, Box<[u8]>>),
    /// One piece.
    Entries(Vec<Entry>),
}

impl StoredPart {
    /// Decodes a part; none if it is malformed.
    pub fn read(spec: &GroupSpec, number: u64, value: &[u8]) -> Option<Self> {
        match number {
            HEAD => decode(value).map(|(used, head)| StoredPart::Head(used, head)),
            TEXTS => decode_texts(value).map(StoredPart::Texts),
            NOTES => decode_notes(value).map(StoredPart::Notes),
            _ => decode_entries(spec, value).map(StoredPart::Entries),
        }
    }
}

impl Group {
    /// Numbers of the stored parts.
    pub fn stored(&self) -> impl Iterator<Item = u64> + '_ {
        self.parts.iter().flat_map(|parts| parts.stored.iter().copied())
    }

    /// The parts that changed since the last call, by number; none for removed parts.
    pub fn changes(&mut self, spec: &GroupSpec, used: u64) -> Vec<(u64, Option<Vec<u8>>)> {
        let mut parts = self.parts.take().unwrap_or_else(|| Box::new(StoredParts::new()));
        let suppressed = self.suppressed.iter().map(|(&from, &until)| (from, until)).collect();
        let (newest, closed, dropped) = (self.newest, self.closed_until, self.dropped_until);
        let mut changes = vec![(HEAD, Some(encode(used, &Head { newest, suppressed, closed, dropped })))];
        if std::mem::take(&mut parts.texts_have_changed) {
            changes.push((TEXTS, (!self.texts.is_empty()).then(|| encode_texts(&self.texts))));
        }
        if std::mem::take(&mut parts.notes_have_changed) {
            changes.push((NOTES, (!self.notes.is_empty()).then(|| encode_notes(&self.notes))));
        }
        if parts.is_divided {
            self.divide_changed(spec, &mut parts, &mut changes);
        } else {
            let old: BTreeSet<u64> = parts.stored.range(FIRST_PIECE..).copied().collect();
            *parts = StoredParts {
                stored: parts.stored,
                texts_have_changed: false,
                notes_have_changed: false,
                ..StoredParts::new()
            };
            parts.is_divided = true;
            self.divide(spec, 0..self.entries.len(), None, &mut parts, &mut changes);
            changes.extend(old.range(parts.next..).map(|&number| (number, None)));
        }
        changes.retain(|(number, value)| match value {
            Some(_) => {
                parts.stored.insert(*number);
                true
            }
            None => parts.stored.remove(number),
        });
        self.parts = Some(parts);
        changes
    }

    /// Appends the pieces that were removed or changed.
    fn divide_changed(
        &self,
        spec: &GroupSpec,
        parts: &mut StoredParts,
        changes: &mut Vec<(u64, Option<Vec<u8>>)>,
    ) {
        while let Some((start, number)) = parts.starts.pop_first() {
            let is_over = match parts.starts.first_key_value() {
                Some((next, _)) => self.entries.front().is_none_or(|first| first >= next),
                None => self.entries.is_empty(),
            };
            if !is_over {
                parts.starts.insert(start, number);
                break;
            }
            parts.changed.remove(&start);
            changes.push((number, None));
        }
        for start in std::mem::take(&mut parts.changed) {
            let is_first = parts.starts.first_key_value().is_some_and(|(first, _)| *first == start);
            let from = if is_first { 0 } else { self.entries.partition_point(|entry| *entry < start) };
            let next = parts.starts.range(start..).nth(1).map(|(next, _)| *next);
            let to =
                next.map_or(self.entries.len(), |next| self.entries.partition_point(|entry| *entry < next));
            let Some(number) = parts.starts.remove(&start) else { continue };
            if from >= to {
                changes.push((number, None));
            }
            self.divide(spec, from..to, Some((start, number)), parts, changes);
        }
    }

    /// Divides entries into pieces. The first may be an existing piece.
    fn divide(
        &self,
        spec: &GroupSpec,
        range: Range<usize>,
        mut first: Option<(Entry, u64)>,
        parts: &mut StoredParts,
        changes: &mut Vec<(u64, Option<Vec<u8>>)>,
    ) {
        for from in range.clone().step_by(MAX_PIECE_ENTRIES) {
            let to = range.end.min(from + MAX_PIECE_ENTRIES);
            let Some(start) = self.entries.get(from) else { return };
            let (start, number) = first.take().unwrap_or_else(|| {
                parts.next += 1;
                (*start, parts.next - 1)
            });
            parts.starts.insert(start, number);
            changes.push((number, Some(encode_entries(spec, self.entries.range(from..to)))));
        }
    }

    /// Restores a part. Parts may come in any order; then [`Group::finish_restore`] has to be called.
    pub fn restore(&mut self, spec: &GroupSpec, number: u64, part: StoredPart) {
        self.parts.get_or_insert_with(|| Box::new(StoredParts::new())).stored.insert(number);
        match part {
            StoredPart::Head(_, head) => {
                let suppressed = head.suppressed.into_iter().filter(|(from, until)| from <= until);
                self.suppressed = suppressed.take(MAX_SUPPRESSED_INTERVALS + 1).collect();
                self.newest = self.newest.max(head.newest);
                self.closed_until = head.closed;
                self.dropped_until = head.dropped;
            }
            StoredPart::Texts(texts) => self.texts = texts,
            StoredPart::Notes(notes) => self.notes = notes,
            StoredPart::Entries(entries) => {
                for entry in entries {
                    let Err(at) = self.entries.binary_search(&entry) else { continue };
                    self.entries.insert(at, entry);
                    if spec.kind != CorrelationKind::EventCount {
                        *self.values.entry(entry.value).or_default() += 1;
                    }
                }
            }
        }
    }

    /// Completes a group after its parts were restored.
    pub fn finish_restore(&mut self, spec: &GroupSpec) {
        self.newest = self.newest.max(self.entries.back().map(|last| last.time));
        if spec.is_tumbling() {
            if let Some(closed) = self.closed_until {
                self.drop_oldest(self.index_after(closed));
                self.notes.retain(|time, _| *time > closed);
            }
        } else {
            self.drop_expired(spec);
        }
        let values = &self.values;
        self.texts.retain(|value, _| values.contains_key(value));
        // The boundaries of its pieces are unknown, so it is rewritten with its next change.
        self.note_change(StoredParts::all_changed);
        self.note_change(StoredParts::notes_changed);
    }
}

fn encode_texts(texts: &BTreeMap<Digest, Box<[u8]>>) -> Vec<u8> {
    let mut out = vec![VERSION];
    for (value, text) in texts {
        out.extend_from_slice(&value.0);
        put_bytes(&mut out, text);
    }
    out
}

fn decode_texts(bytes: &[u8]) -> Option<BTreeMap<Digest, Box<[u8]>>> {
    let mut reader = EntryDecoder::new(bytes)?;
    let mut texts = BTreeMap::new();
    while !reader.is_at_end() {
        let value = Digest(reader.array()?);
        let text = reader.bytes().filter(|text| text.len() <= MAX_VALUE_BYTES)?;
        texts.insert(value, text.into());
    }
    (texts.len() <= MAX_VALUES).then_some(texts)
}

fn encode_notes(notes: &BTreeMap<i64, Box<[u8]>>) -> Vec<u8> {
    let mut out = vec![VERSION];
    for (time, note) in notes {
        out.extend_from_slice(&time.to_le_bytes());
        put_bytes(&mut out, note);
    }
    out
}

fn decode_notes(bytes: &[u8]) -> Option<BTreeMap<i64, Box<[u8]>>> {
    let mut reader = EntryDecoder::new(bytes)?;
    let mut notes = BTreeMap::new();
    while !reader.is_at_end() {
        let time = i64::from_le_bytes(reader.array()?);
        let note = reader.bytes().filter(|note| note.len() <= MAX_NOTE_BYTES)?;
        notes.insert(time, note.into());
    }
    (notes.len() <= MAX_NOTES).then_some(notes)
}

/// Encodes, for each entry, the time since the previous one and the source, followed by the alert and the value unless
/// they are implied by the previous entry or the kind of correlation.
fn encode_entries<'e>(spec: &GroupSpec, entries: impl Iterator<Item = &'e Entry>) -> Vec<u8> {
    let mut out = vec![VERSION];
    let mut before: Option<&Entry> = None;
    for entry in entries {
        match before {
            Some(before) => put_number(&mut out, entry.time.abs_diff(before.time)),
            None => out.extend_from_slice(&entry.time.to_le_bytes()),
        }
        let is_same = before.is_some_and(|before| before.id == entry.id);
        put_number(&mut out, u64::from(entry.source) << 1 | u64::from(is_same));
        if !is_same {
            out.extend_from_slice(&entry.id);
        }
        if spec.kind == CorrelationKind::ValueCount {
            out.extend_from_slice(&entry.value.0);
        }
        before = Some(entry);
    }
    out
}

fn decode_entries(spec: &GroupSpec, bytes: &[u8]) -> Option<Vec<Entry>> {
    let mut reader = EntryDecoder::new(bytes)?;
    let mut entries: Vec<Entry> = Vec::new();
    while !reader.is_at_end() {
        let before = entries.last();
        let time = match before {
            Some(before) => before.time.checked_add_unsigned(reader.number()?)?,
            None => i64::from_le_bytes(reader.array()?),
        };
        let source = reader.number()?;
        let id = match before {
            Some(before) if source & 1 == 1 => before.id,
            _ => reader.array()?,
        };
        let source = u32::try_from(source >> 1).ok()?;
        let value = match spec.kind {
            CorrelationKind::EventCount => Digest::default(),
            CorrelationKind::ValueCount => Digest(reader.array()?),
            CorrelationKind::Temporal | CorrelationKind::TemporalOrdered => Digest::number(source),
        };
        entries.push(Entry { time, value, id, source });
    }
    (entries.len() <= MAX_PIECE_ENTRIES).then_some(entries)
}
