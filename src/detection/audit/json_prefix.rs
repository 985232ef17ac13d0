//! The parser state after a prefix of a JSON text: in a string, before a value, or after one.
//!
//! Takes a record piece by piece; returns where its outermost container closes, and whether other text can continue it. This distinguishes
//! an event that a client nested into a body from one that a writer started after an interruption: the former is at a position where the
//! grammar allows a value, the latter is not. Each byte is read once.

use super::steps;

/// Deeper containers are treated as arrays, in which a value can follow every comma.
const MAX_TRACKED_DEPTH: u32 = 128;

/// The state after a prefix of one JSON value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct JsonPrefix {
    in_string: bool,
    /// The next byte of the string is escaped.
    is_escaped: bool,
    depth: u32,
    /// Bit i is set if the container at depth i + 1 is an object.
    objects: u128,
    /// The last byte outside of strings that is not whitespace; a quote after a string. 0 before the first.
    last: u8,
}

impl JsonPrefix {
    /// Reads more text. Returns the index after the bracket that closes the outermost container, if it is in `bytes`.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Option<usize> {
        steps::add(bytes.len());
        let mut at = 0;
        while at < bytes.len() {
            if self.in_string {
                if std::mem::take(&mut self.is_escaped) {
                    at += 1;
                    continue;
                }
                let found = memchr::memchr2(b'"', b'\\', &bytes[at..])?;
                at += found + 1;
                if bytes[at - 1] == b'"' {
                    (self.in_string, self.last) = (false, b'"');
                } else {
                    self.is_escaped = true;
                }
                continue;
            }
            let byte = bytes[at];
            at += 1;
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => continue,
                b'"' => self.in_string = true,
                b'{' | b'[' => self.open(byte == b'{'),
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        self.last = byte;
                        return Some(at);
                    }
                }
                _ => {}
            }
            self.last = byte;
        }
        None
    }

    fn open(&mut self, is_object: bool) {
        if self.depth < MAX_TRACKED_DEPTH {
            let bit = 1 << self.depth;
            self.objects = if is_object { self.objects | bit } else { self.objects & !bit };
        }
        self.depth = self.depth.saturating_add(1);
    }

    fn is_in_object(&self) -> bool {
        self.depth > 0 && self.depth <= MAX_TRACKED_DEPTH && self.objects >> (self.depth - 1) & 1 == 1
    }

    /// Whether the grammar allows an object or array at this point.
    pub(crate) fn expects_value(&self) -> bool {
        !self.in_string
            && match self.last {
                b':' | b'[' => true,
                b',' => !self.is_in_object(),
                _ => false,
            }
    }

    /// Whether `next` can be the continuation of this value rather than the start of a separate record. It cannot if the grammar excludes
    /// it within the first characters.
    pub(crate) fn can_continue_with(&self, next: &[u8]) -> bool {
        let next = if self.in_string { next } else { next.trim_ascii_start() };
        match next {
            [b'{' | b'[', rest @ ..] if self.in_string => {
                // In a string the brackets are content, and the quote of a first key would end it.
                let Some((b'"', rest)) = rest.split_first() else { return true };
                !self.is_escaped
                    && matches!(rest.trim_ascii_start().first(), None | Some(b',' | b':' | b'}' | b']'))
            }
            [b'{' | b'[', ..] => self.expects_value(),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EVENT: &[u8] = br#"{"kind":"Event","apiVersion":"audit.k8s.io/v1"}"#;

    #[test]
    fn tells_nested_events_from_events_after_an_interruption() {
        for (prefix, is_nested) in [
            (r#"{"requestObject":[{"value":"#, true),
            (r#"{"requestObject":["#, true),
            (r#"{"requestObject":[1,"#, true),
            (r#"{"verb":"get","#, false),
            (r#"{"verb":"#, true),
            (r#"{"verb""#, false),
            (r#"{"verb":"ge"#, false),
            (r#"{"verb":"ge\"#, false),
            (r#"{"verb":"get"#, false),
            (r#"{"verb":"get""#, false),
            (r#"{"code":20"#, false),
            ("{", false),
            (r#"{"user":{}"#, false),
        ] {
            let mut state = JsonPrefix::default();
            assert_eq!(state.push(prefix.as_bytes()), None, "{prefix}");
            assert_eq!(state.can_continue_with(EVENT), is_nested, "{prefix}");
        }
        let mut state = JsonPrefix::default();
        state.push(br#"{"a":"x"#);
        assert!(state.can_continue_with(br#"{" , "b":1}"#) && state.can_continue_with(b"{x"));
    }

    proptest! {
        /// Any prefix of a JSON text can be continued with the rest, wherever it is split.
        #[test]
        fn accepts_every_real_continuation(text in ".{0,20}", first in 0_usize..200, second in 0_usize..200) {
            let event = serde_json::json!({"kind": "Event", "x": text});
            let nested = serde_json::json!({"a": [event.clone(), {"value": event}, text], text.clone(): 1}).to_string();
            let (first, second) = (first % nested.len(), second % nested.len());
            let (first, second) = (first.min(second), first.max(second));
            let mut state = JsonPrefix::default();
            let parts = [&nested.as_bytes()[..first], &nested.as_bytes()[first..second], &nested.as_bytes()[second..]];
            for part in &parts[..2] {
                prop_assert!(state.can_continue_with(part) || state == JsonPrefix::default());
                prop_assert_eq!(state.push(part), None);
            }
            prop_assert!(state.can_continue_with(parts[2]) || state == JsonPrefix::default());
            prop_assert_eq!(state.push(parts[2]), Some(parts[2].len()));
        }
    }
}
