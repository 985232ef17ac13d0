//! Splits a body that is too large to be stored into parts while it arrives.
//!
//! Takes the bytes of an `EventList`, an array or concatenated events in any pieces; returns arrays of whole items, and the beginnings of
//! items that are too long. This module only reads the structure: brackets, strings and the key `items` of the outermost object. What a
//! client nested into an event is never an item. Memory is bounded by a few times the maximum length of an item, time is linear.

use std::collections::VecDeque;

/// Maximum number of items per part, well below the limit of a body.
const MAX_PART_ITEMS: usize = 20_000;

/// A part of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BodyPart {
    /// An array of whole items.
    Items(Vec<u8>),
    /// The beginning of an item that exceeds the limit, with the `kind` that list items omit.
    Head(Vec<u8>),
}

/// The splitter's position in the structure of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Outside of every value.
    Outside,
    /// In an object that is not a list, or whose `items` follow later.
    Record,
    /// In the elements of an array.
    Elements,
}

/// State machine that finds the items in a body, byte by byte.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts about the text before this byte")]
pub(super) struct Splitter {
    /// Maximum length of an item, and of a part before the item that completes it.
    max_item: usize,
    place: Place,
    /// Open brackets.
    depth: usize,
    /// Open brackets around the elements.
    elements_depth: usize,
    in_string: bool,
    is_escaped: bool,
    /// The last string directly in the outermost object, with its quotes. It is a key if a colon follows.
    last_string: Vec<u8>,
    /// The next value is that of the key `items`.
    after_items_key: bool,
    /// The outermost object was a list.
    was_list: bool,
    item: Vec<u8>,
    /// Number of bytes of the item that were not stored.
    omitted: u64,
    /// Number of bytes since the last item that belong to no item.
    blanks: u64,
    part: Vec<u8>,
    part_items: usize,
    ready: VecDeque<BodyPart>,
}

/// Length of `"items"`.
const MAX_KEY_LEN: usize = 8;

impl Splitter {
    pub(super) fn new(max_item: usize) -> Self {
        Splitter {
            max_item,
            place: Place::Outside,
            depth: 0,
            elements_depth: 0,
            in_string: false,
            is_escaped: false,
            last_string: Vec::new(),
            after_items_key: false,
            was_list: false,
            item: Vec::new(),
            omitted: 0,
            blanks: 0,
            part: Vec::new(),
            part_items: 0,
            ready: VecDeque::new(),
        }
    }

    /// Maximum memory of a splitter and the parts of one piece of `piece_len` bytes.
    pub(super) fn memory(max_item: usize, piece_len: usize) -> usize {
        4 * max_item + 2 * piece_len
    }

    /// Reads the next piece of the body.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            // The content of a string, which makes up most of a large item, is consumed as a whole.
            if self.in_string && !self.is_escaped && !self.is_key_place() {
                let length = memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
                if length > 0 {
                    self.keep_text(&rest[..length]);
                    rest = &rest[length..];
                    continue;
                }
            }
            self.byte(byte);
            rest = after;
        }
    }

    /// Number of bytes since the last item that belong to no item.
    pub(super) fn blank_bytes(&self) -> u64 {
        self.blanks
    }

    /// Whether strings may be keys of the outermost object.
    fn is_key_place(&self) -> bool {
        self.depth == 1 && self.place == Place::Record
    }

    fn keep_text(&mut self, text: &[u8]) {
        if self.place == Place::Record && self.was_list {
            self.blanks += text.len() as u64;
            return;
        }
        let kept = text.len().min(self.max_item - self.item.len());
        self.item.extend_from_slice(&text[..kept]);
        self.omitted += (text.len() - kept) as u64;
    }

    /// Ends the body; adds the beginning of an incomplete item. Returns whether the body is complete.
    pub(super) fn finish(&mut self) -> bool {
        let is_inside = self.in_string || self.depth > self.elements_depth || self.place == Place::Record;
        if is_inside && self.item.first() == Some(&b'{') {
            self.omitted += 1;
        }
        self.end_item();
        self.flush();
        self.depth == 0 && !self.in_string
    }

    /// The next complete part.
    pub(super) fn next_part(&mut self) -> Option<BodyPart> {
        self.ready.pop_front()
    }

    /// Items that are not in a part yet, including the one that is being read.
    pub(super) fn pending_items(&self) -> u64 {
        self.part_items as u64 + u64::from(!self.item.is_empty())
    }

    fn byte(&mut self, byte: u8) {
        if self.in_string {
            self.keep(byte);
            if self.is_key_place() && self.last_string.len() <= MAX_KEY_LEN {
                self.last_string.push(byte);
            }
            if self.is_escaped {
                self.is_escaped = false;
            } else if byte == b'\\' {
                self.is_escaped = true;
            } else if byte == b'"' {
                self.in_string = false;
            }
            return;
        }
        match byte {
            b'{' | b'[' => self.open(byte),
            b'}' | b']' => self.close(byte),
            b',' if self.place == Place::Elements && self.depth == self.elements_depth => {
                // Commas alone are not items.
                let blanks = self.blanks + 1;
                let is_empty = self.item.is_empty();
                self.end_item();
                if is_empty {
                    self.blanks = blanks;
                }
            }
            _ => {
                if byte == b'"' {
                    self.in_string = true;
                    self.last_string.clear();
                    if self.is_key_place() {
                        self.last_string.push(byte);
                    }
                } else if byte == b':' && self.is_key_place() {
                    self.after_items_key = self.last_string == b"\"items\"";
                    self.keep(byte);
                    return;
                }
                if !byte.is_ascii_whitespace() {
                    self.after_items_key = false;
                }
                self.keep(byte);
            }
        }
    }

    fn open(&mut self, byte: u8) {
        self.depth = self.depth.saturating_add(1);
        match self.place {
            Place::Outside => {
                self.item.clear();
                self.was_list = false;
                self.place = if byte == b'[' { Place::Elements } else { Place::Record };
                self.elements_depth = self.depth;
                if self.place == Place::Record {
                    self.keep(byte);
                }
            }
            Place::Record if self.depth == 2 && byte == b'[' && std::mem::take(&mut self.after_items_key) => {
                // Members before the items belong to the list.
                self.item.clear();
                self.omitted = 0;
                self.was_list = true;
                self.place = Place::Elements;
                self.elements_depth = 2;
            }
            Place::Record | Place::Elements => {
                self.after_items_key = false;
                self.keep(byte);
            }
        }
    }

    fn close(&mut self, byte: u8) {
        let ends_elements = self.place == Place::Elements && self.depth == self.elements_depth;
        if ends_elements {
            self.end_item();
        } else {
            self.keep(byte);
        }
        self.depth = self.depth.saturating_sub(1);
        if ends_elements {
            self.place = if self.depth == 0 { Place::Outside } else { Place::Record };
        }
        if self.depth == 0 && self.place != Place::Outside {
            if self.was_list {
                self.item.clear();
                self.omitted = 0;
            } else {
                self.end_item();
            }
            self.place = Place::Outside;
        }
    }

    fn keep(&mut self, byte: u8) {
        let is_blank = self.item.is_empty() && byte.is_ascii_whitespace() && !self.in_string;
        if is_blank || (self.place == Place::Record && self.was_list) {
            self.blanks += 1;
            return;
        }
        if self.item.len() < self.max_item {
            self.item.push(byte);
        } else {
            self.omitted += 1;
        }
    }

    fn end_item(&mut self) {
        self.blanks = 0;
        let omitted = std::mem::take(&mut self.omitted);
        let item = std::mem::take(&mut self.item);
        if omitted > 0 {
            self.flush();
            self.ready.push_back(BodyPart::Head(with_kind(item)));
            return;
        }
        let item = item.trim_ascii_end();
        if item.is_empty() {
            return;
        }
        self.part.push(if self.part.is_empty() { b'[' } else { b',' });
        self.part.extend_from_slice(item);
        self.part_items += 1;
        if self.part.len() >= self.max_item || self.part_items >= MAX_PART_ITEMS {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.part.is_empty() {
            return;
        }
        let mut part = std::mem::take(&mut self.part);
        part.push(b']');
        self.part_items = 0;
        self.ready.push_back(BodyPart::Items(part));
    }
}

/// The beginning of an item of an `EventList`, as the beginning of an event in a log file.
fn with_kind(item: Vec<u8>) -> Vec<u8> {
    const KIND: &[u8] = br#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","#;
    let names_kind = item.starts_with(b"{\"kind\":") || item.starts_with(b"{\"apiVersion\":");
    match item.split_first() {
        Some((b'{', rest)) if !names_kind && rest.trim_ascii_start().starts_with(b"\"") => {
            [KIND, rest].concat()
        }
        _ => item,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::daemon::source::webhook::split_events;

    fn split(body: &[u8], max_item: usize, piece: usize) -> (Vec<String>, bool) {
        let mut splitter = Splitter::new(max_item);
        for piece in body.chunks(piece) {
            splitter.push(piece);
        }
        let is_complete = splitter.finish();
        let mut out = Vec::new();
        while let Some(part) = splitter.next_part() {
            out.push(match part {
                BodyPart::Items(items) => String::from_utf8(items).unwrap(),
                BodyPart::Head(head) => format!("head {}", String::from_utf8(head).unwrap()),
            });
        }
        (out, is_complete)
    }

    #[test]
    fn items_are_split_and_long_ones_kept_by_their_beginning() {
        let long = format!(r#"{{"auditID":"b","x":"{}"}}"#, "y".repeat(100));
        let head = format!("head {{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",{}", &long[1..40]);
        let (a, c) = (r#"{"auditID":"a]},[\"\\"}"#, r#"{"auditID":"c","o":{"items":[2]}}"#);
        for body in [
            format!(
                r#"{{"kind":"EventList","metadata":{{"items":[7]}},"items":[{a},{long} , {c}],"k":"v"}}"#
            ),
            format!("[{a},{long},{c}]"),
            format!("{a}\n{long}{c}\n"),
            format!(r#"{{"items" : [{a},{long},{c}],"items":3,"kind":"EventList"}}"#),
        ] {
            for piece in [1, 7, 1000] {
                let (parts, is_complete) = split(body.as_bytes(), 40, piece);
                let (first, last) = (format!("[{a}]"), format!("[{c}]"));
                assert!(is_complete);
                assert_eq!(parts, [first.as_str(), head.as_str(), last.as_str()], "{body}");
            }
        }
        // Whitespace between items is counted until the next one.
        let mut splitter = Splitter::new(40);
        splitter.push(&[b' '; 1000]);
        assert_eq!(splitter.blank_bytes(), 1000);
        splitter.push(b"[1,");
        assert_eq!(splitter.blank_bytes(), 0);
        assert!(!split(b"[{\"a\":1},{\"b", 40, 3).1, "it ends early");
    }

    #[test]
    fn parts_are_bounded() {
        let body = format!("[{}1]", "1,".repeat(100_000));
        let (parts, _) = split(body.as_bytes(), 1000, 4096);
        assert!(parts.iter().all(|part| part.len() <= 2002));
        let deep = "[".repeat(1_000_000);
        let mut splitter = Splitter::new(100);
        splitter.push(deep.as_bytes());
        assert!(splitter.item.len() <= 100);
    }

    proptest! {
        #[test]
        fn parts_hold_the_items_that_a_small_body_has(
            items in proptest::collection::vec(prop_oneof![
                Just("{}"), Just(r#"{"kind":"Event","auditID":"a","items":[{"kind":"Event"}]}"#), Just("3"), Just("null"),
                Just(r#""],[\"\\""#), Just(r#"{"a":{"b":[[{}]]}}"#), Just("[1,2]"),
            ], 1..20),
            piece in 1_usize..50,
            is_list: bool,
        ) {
            let array = format!("[{}]", items.join(" , "));
            let body = if is_list { format!(r#"{{"kind":"EventList","items":{array}}}"#) } else { array };
            let texts = |body: &str| -> Vec<String> {
                split_events(body.as_bytes()).unwrap().into_iter().map(|(_, range)| body[range].to_owned()).collect()
            };
            let (parts, is_complete) = split(body.as_bytes(), 100, piece);
            prop_assert!(is_complete);
            prop_assert_eq!(parts.iter().flat_map(|part| texts(part)).collect::<Vec<_>>(), texts(&body));
        }
    }
}
