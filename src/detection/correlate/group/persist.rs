//! How a group is stored: as a head, the texts of its values, its notes, and its entries in pieces, so that one more
//! observation in a group of a hundred thousand costs no more than the piece it falls into.
//!
//! Entries are sorted, so a piece is all from its start up to the start of the next. What a group forgets because it is too old is
//! not told until a whole piece is gone: a restored group forgets the same by itself. What it forgets otherwise is told by
//! writing it anew, which is as rare as it is for a group to be full.
//!
//! An entry takes some 25 bytes, some 40 where values are counted; a piece at most 64 of them. A head takes some 60 bytes,
//! texts and notes what they are and 18 or 10 bytes each.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::super::{Digest, MAX_NOTE_BYTES, MAX_VALUE_BYTES, MAX_VALUES};
use super::sliding::MAX_SUPPRESSED_INTERVALS;
use super::tumbling::MAX_NOTES;
use super::{Entry, Group, Spec};
use crate::detection::rules::ast::CorrelationKind;
use crate::detection::state::{Reader, VERSION, decode, encode, put_bytes, put_number};

/// The number of the part that every group has.
pub const HEAD: u64 = 0;
const TEXTS: u64 = 1;
const NOTES: u64 = 2;
/// The pieces come behind.
const FIRST_PIECE: u64 = 3;

/// A piece has at most so many entries.
const MAX_PIECE_ENTRIES: usize = 64;

/// What is stored of a group, and what of it is not any more what is stored.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The numbers of the parts that are stored.
    stored: BTreeSet<u64>,
    /// Where pieces start, and their numbers. The first one also has what comes before its start.
    starts: BTreeMap<Entry, u64>,
    /// The starts of those that changed.
    changed: BTreeSet<Entry>,
    /// The number of the next piece.
    next: u64,
    /// The entries are in pieces as `starts` says.
    is_cut: bool,
    has_other_texts: bool,
    has_other_notes: bool,
}

impl Parts {
    /// Of a group of which nothing is stored as it is.
    fn new() -> Self {
        Parts {
            stored: BTreeSet::new(),
            starts: BTreeMap::new(),
            changed: BTreeSet::new(),
            next: FIRST_PIECE,
            is_cut: false,
            has_other_texts: true,
            has_other_notes: true,
        }
    }

    /// There is a new entry.
    pub fn has_new(&mut self, entry: &Entry) {
        let start = self.starts.range(..=entry).next_back().or_else(|| self.starts.first_key_value());
        match start {
            Some((&start, _)) => _ = self.changed.insert(start),
            None => self.is_cut = false,
        }
    }

    /// Other entries went than the first ones.
    pub fn all_changed(&mut self) {
        self.is_cut = false;
        self.has_other_texts = true;
    }

    pub fn texts_changed(&mut self) {
        self.has_other_texts = true;
    }

    pub fn notes_changed(&mut self) {
        self.has_other_notes = true;
    }
}

/// What is small and nearly always another.
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

/// A part that was read back.
#[derive(Debug)]
pub enum Part {
    /// The head, and when the group was used last.
    Head(u64, Head),
    /// Some values as text.
    Texts(BTreeMap<Digest, Box<[u8]>>),
    /// Notes by their time.
    Notes(BTreeMap<i64, Box<[u8]>>),
    /// A piece.
    Entries(Vec<Entry>),
}

impl Part {
    /// Reads a part by its number; nothing where it makes no sense.
    pub fn read(spec: &Spec, number: u64, value: &[u8]) -> Option<Self> {
        match number {
            HEAD => decode(value).map(|(used, head)| Part::Head(used, head)),
            TEXTS => decode_texts(value).map(Part::Texts),
            NOTES => decode_notes(value).map(Part::Notes),
            _ => decode_entries(spec, value).map(Part::Entries),
        }
    }
}

impl Group {
    /// The numbers of the parts that are stored.
    pub fn stored(&self) -> impl Iterator<Item = u64> + '_ {
        self.parts.iter().flat_map(|parts| parts.stored.iter().copied())
    }

    /// What changed since the last call, by the number of the part; nothing for one that is gone.
    pub fn changes(&mut self, spec: &Spec, used: u64) -> Vec<(u64, Option<Vec<u8>>)> {
        let mut parts = self.parts.take().unwrap_or_else(|| Box::new(Parts::new()));
        let suppressed = self.suppressed.iter().map(|(&from, &until)| (from, until)).collect();
        let (newest, closed, dropped) = (self.newest, self.closed_until, self.dropped_until);
        let mut changes = vec![(HEAD, Some(encode(used, &Head { newest, suppressed, closed, dropped })))];
        if std::mem::take(&mut parts.has_other_texts) {
            changes.push((TEXTS, (!self.texts.is_empty()).then(|| encode_texts(&self.texts))));
        }
        if std::mem::take(&mut parts.has_other_notes) {
            changes.push((NOTES, (!self.notes.is_empty()).then(|| encode_notes(&self.notes))));
        }
        if parts.is_cut {
            self.recut(spec, &mut parts, &mut changes);
        } else {
            let old: BTreeSet<u64> = parts.stored.range(FIRST_PIECE..).copied().collect();
            *parts = Parts {
                stored: parts.stored,
                has_other_texts: false,
                has_other_notes: false,
                ..Parts::new()
            };
            parts.is_cut = true;
            self.cut(spec, 0..self.entries.len(), None, &mut parts, &mut changes);
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

    /// The pieces that are gone or changed.
    fn recut(&self, spec: &Spec, parts: &mut Parts, changes: &mut Vec<(u64, Option<Vec<u8>>)>) {
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
            self.cut(spec, from..to, Some((start, number)), parts, changes);
        }
    }

    /// Cuts entries into pieces. The first may be one that is there.
    fn cut(
        &self,
        spec: &Spec,
        range: Range<usize>,
        mut first: Option<(Entry, u64)>,
        parts: &mut Parts,
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

    /// Takes back a part by its number. Parts may come in any order; then the group is to be [settled](Group::finish_restore).
    pub fn restore(&mut self, spec: &Spec, number: u64, part: Part) {
        self.parts.get_or_insert_with(|| Box::new(Parts::new())).stored.insert(number);
        match part {
            Part::Head(_, head) => {
                let suppressed = head.suppressed.into_iter().filter(|(from, until)| from <= until);
                self.suppressed = suppressed.take(MAX_SUPPRESSED_INTERVALS + 1).collect();
                self.newest = self.newest.max(head.newest);
                self.closed_until = head.closed;
                self.dropped_until = head.dropped;
            }
            Part::Texts(texts) => self.texts = texts,
            Part::Notes(notes) => self.notes = notes,
            Part::Entries(entries) => {
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

    /// Makes a group whose parts were read back what it was.
    pub fn finish_restore(&mut self, spec: &Spec) {
        self.newest = self.newest.max(self.entries.back().map(|last| last.time));
        if spec.is_tumbling() {
            if let Some(closed) = self.closed_until {
                self.drop_oldest(self.behind(closed));
                self.notes.retain(|time, _| *time > closed);
            }
        } else {
            self.age(spec);
        }
        let values = &self.values;
        self.texts.retain(|value, _| values.contains_key(value));
        // Where its pieces start is not known: it is written anew with its next change.
        self.say(Parts::all_changed);
        self.say(Parts::notes_changed);
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
    let mut reader = Reader::new(bytes)?;
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
    let mut reader = Reader::new(bytes)?;
    let mut notes = BTreeMap::new();
    while !reader.is_at_end() {
        let time = i64::from_le_bytes(reader.array()?);
        let note = reader.bytes().filter(|note| note.len() <= MAX_NOTE_BYTES)?;
        notes.insert(time, note.into());
    }
    (notes.len() <= MAX_NOTES).then_some(notes)
}

/// Of each entry the time since the one before, its source, and its alert and its value where they are not known from the
/// one before and the kind of correlation.
fn encode_entries<'e>(spec: &Spec, entries: impl Iterator<Item = &'e Entry>) -> Vec<u8> {
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

fn decode_entries(spec: &Spec, bytes: &[u8]) -> Option<Vec<Entry>> {
    let mut reader = Reader::new(bytes)?;
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
