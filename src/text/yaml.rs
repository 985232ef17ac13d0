//! YAML with positions.
//!
//! Takes the text of a file; returns a tree of nodes with their byte ranges. Supports the features that rule, policy and configuration
//! files need: several documents, anchors and aliases, merge keys. If a key is repeated, the first value counts. Aliased nodes are shared,
//! not copied, so that a small file cannot expand in memory.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use libyaml_safer::{Encoding, EventData, Parser, ScalarStyle};

/// Maximum nesting of a file, which bounds the recursion of all functions that walk the tree.
const MAX_DEPTH: usize = 64;

/// Maximum number of keys in one mapping. Each is compared with all others to find repeated keys.
const MAX_ENTRIES: usize = 1000;

/// A node of the tree.
#[derive(Debug)]
pub struct Node {
    pub value: Value,
    /// Byte range in the file.
    pub range: Range<usize>,
}

/// The content of a node.
#[derive(Debug)]
pub enum Value {
    /// Text, even if it looks like a number or a boolean.
    Scalar(Scalar),
    Sequence(Vec<Arc<Node>>),
    /// Entries in file order, without repeated keys.
    Mapping(Vec<Entry>),
}

/// The text of a scalar.
#[derive(Debug)]
pub struct Scalar {
    /// The text without quotes and escapes.
    pub text: String,
    style: ScalarStyle,
}

/// A key and its value.
#[derive(Clone, Debug)]
pub struct Entry {
    pub key: String,
    /// Byte range of the key in the file.
    pub key_range: Range<usize>,
    pub value: Arc<Node>,
}

/// A YAML error.
#[derive(Debug, PartialEq, Eq)]
pub struct Error {
    pub message: String,
    pub range: Range<usize>,
}

/// All documents of a file.
#[derive(Debug, Default)]
pub struct Documents {
    /// The root node of each document.
    pub roots: Vec<Arc<Node>>,
    /// Repeated keys, whose later values were ignored, and their ranges.
    pub repeated_keys: Vec<(String, Range<usize>)>,
}

impl Node {
    /// The text of a scalar.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(scalar) => Some(&scalar.text),
            _ => None,
        }
    }

    /// Whether it is an empty plain scalar or `null`: a key without a value.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(scalar)
            if scalar.style == ScalarStyle::Plain && matches!(&*scalar.text, "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The nodes of a sequence.
    pub fn sequence(&self) -> Option<&[Arc<Node>]> {
        match &self.value {
            Value::Sequence(items) => Some(items),
            _ => None,
        }
    }

    /// The entries of a mapping.
    pub fn mapping(&self) -> Option<&[Entry]> {
        match &self.value {
            Value::Mapping(entries) => Some(entries),
            _ => None,
        }
    }

    /// The value of a mapping's key.
    pub fn get(&self, key: &str) -> Option<&Arc<Node>> {
        self.mapping()?.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// Converts the node to JSON: plain scalars that look like numbers, booleans or null become such values.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Scalar(scalar) if scalar.style == ScalarStyle::Plain => match scalar.text.as_str() {
                "true" => true.into(),
                "false" => false.into(),
                "" | "~" | "null" => serde_json::Value::Null,
                text => text.parse::<serde_json::Number>().map_or_else(|_| text.into(), Into::into),
            },
            Value::Scalar(scalar) => scalar.text.as_str().into(),
            Value::Sequence(items) => items.iter().map(|item| item.to_json()).collect(),
            Value::Mapping(entries) => {
                entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect()
            }
        }
    }

    /// The position in the file of each byte of a scalar's text, and of its end.
    pub fn origins(&self, file: &str) -> Vec<usize> {
        match &self.value {
            Value::Scalar(scalar) => origins(scalar, file, &self.range),
            _ => vec![self.range.start],
        }
    }
}

/// Parses a file.
///
/// # Errors
/// If it is not YAML, or exceeds a limit.
pub fn parse(text: &str) -> Result<Documents, Error> {
    // The parser is known to panic on a tag followed by a comma, and on other malformed text.
    std::panic::catch_unwind(|| parse_events(text)).unwrap_or_else(|_| {
        let message = "malformed YAML that the parser cannot locate, such as a tag directly before a comma";
        Err(Error { message: message.to_owned(), range: 0..0 })
    })
}

fn parse_events(text: &str) -> Result<Documents, Error> {
    let content = text.strip_prefix('\u{feff}').unwrap_or(text);
    // The parser panics if a block scalar ends without a line break.
    let has_last_break = content.ends_with(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']);
    let terminated = if has_last_break { Cow::from(content) } else { Cow::from(format!("{content}\n")) };
    let skipped = text.len() - content.len();
    let byte =
        |index: u64| usize::try_from(index).map_or(text.len(), |index| (index + skipped).min(text.len()));
    let mut builder = Builder { documents: Documents::default(), anchors: HashMap::new(), stack: Vec::new() };
    let mut input = terminated.as_bytes();
    let mut parser = Parser::new();
    parser.set_encoding(Encoding::Utf8);
    parser.set_input_string(&mut input);
    for event in parser {
        match event {
            Ok(event) => {
                let range = byte(event.start_mark.index)..byte(event.end_mark.index);
                let mut data = event.data;
                if !has_last_break && event.end_mark.index >= content.len() as u64 {
                    remove_added_break(&mut data);
                }
                builder.event(data, range)?;
            }
            Err(error) => {
                // An error of the parser's reader has no mark; its cause is a character that YAML does not allow.
                let at =
                    error.problem_mark().map_or_else(|| forbidden_character(text), |mark| byte(mark.index));
                let message = match error.context() {
                    Some(context) if !context.is_empty() => format!("{context}, {}", error.problem()),
                    _ => error.problem().to_owned(),
                };
                return Err(Error { message, range: at..at });
            }
        }
    }
    Ok(builder.documents)
}

/// Removes the line break that was added after the last line of a file from the block scalar at its end.
fn remove_added_break(event: &mut EventData) {
    if let EventData::Scalar { value, style: ScalarStyle::Literal | ScalarStyle::Folded, .. } = event
        && value.ends_with('\n')
        && !value.trim_end_matches('\n').is_empty()
    {
        value.pop();
    }
}

/// The position of the first control character that YAML forbids.
fn forbidden_character(text: &str) -> usize {
    text.find(|letter: char| letter.is_control() && !matches!(letter, '\t' | '\n' | '\r' | '\u{85}'))
        .unwrap_or(0)
}

enum Open {
    Sequence(Vec<Arc<Node>>),
    Mapping(Mapping),
}

#[derive(Default)]
struct Mapping {
    entries: Vec<Entry>,
    /// Entries from merge keys. The mapping's own entries take precedence.
    merged: Vec<Entry>,
    /// The key whose value comes next.
    key: Option<Arc<Node>>,
}

struct Builder {
    documents: Documents,
    anchors: HashMap<String, Arc<Node>>,
    stack: Vec<(Open, Option<String>, usize)>,
}

impl Builder {
    fn event(&mut self, event: EventData, range: Range<usize>) -> Result<(), Error> {
        match event {
            EventData::Scalar { value, style, anchor, .. } => {
                let value = Value::Scalar(Scalar { text: value, style });
                self.complete(value, range, anchor)
            }
            EventData::Alias { anchor } => match self.anchors.get(&anchor).cloned() {
                Some(node) => self.push(node, range),
                None => Err(Error {
                    message: "unknown alias, or an alias of the node that contains it".to_owned(),
                    range,
                }),
            },
            EventData::SequenceStart { anchor, .. } => self.open(Open::Sequence(Vec::new()), anchor, &range),
            EventData::MappingStart { anchor, .. } => {
                self.open(Open::Mapping(Mapping::default()), anchor, &range)
            }
            EventData::SequenceEnd | EventData::MappingEnd => {
                let Some((open, anchor, start)) = self.stack.pop() else { return Ok(()) };
                let value = match open {
                    Open::Sequence(items) => Value::Sequence(items),
                    Open::Mapping(Mapping { mut entries, merged, .. }) => {
                        for entry in merged {
                            if !entries.iter().any(|own| own.key == entry.key) {
                                entries.push(entry);
                            }
                        }
                        Value::Mapping(entries)
                    }
                };
                self.complete(value, start..range.end.max(start), anchor)
            }
            EventData::DocumentEnd { .. } => {
                self.anchors.clear();
                Ok(())
            }
            EventData::StreamStart { .. } | EventData::StreamEnd | EventData::DocumentStart { .. } => Ok(()),
        }
    }

    fn open(&mut self, open: Open, anchor: Option<String>, range: &Range<usize>) -> Result<(), Error> {
        if self.stack.len() == MAX_DEPTH {
            return Err(Error {
                message: format!("nested deeper than {MAX_DEPTH} levels"),
                range: range.clone(),
            });
        }
        self.stack.push((open, anchor, range.start));
        Ok(())
    }

    fn complete(&mut self, value: Value, range: Range<usize>, anchor: Option<String>) -> Result<(), Error> {
        let node = Arc::new(Node { value, range: range.clone() });
        if let Some(anchor) = anchor {
            self.anchors.insert(anchor, node.clone());
        }
        self.push(node, range)
    }

    fn push(&mut self, node: Arc<Node>, range: Range<usize>) -> Result<(), Error> {
        match self.stack.last_mut() {
            None => self.documents.roots.push(node),
            Some((Open::Sequence(items), ..)) => items.push(node),
            Some((Open::Mapping(Mapping { entries, merged, key }), ..)) => match key.take() {
                None => *key = Some(node),
                Some(key_node) => {
                    let Some(text) = key_node.text() else {
                        return Err(Error {
                            message: "a key must be a scalar".to_owned(),
                            range: key_node.range.clone(),
                        });
                    };
                    if text == "<<" {
                        return merge(merged, &node, range);
                    }
                    if entries.iter().any(|entry| entry.key == text) {
                        self.documents.repeated_keys.push((text.to_owned(), key_node.range.clone()));
                        return Ok(());
                    }
                    if entries.len() >= MAX_ENTRIES {
                        return Err(Error {
                            message: format!("more than {MAX_ENTRIES} keys in one mapping"),
                            range,
                        });
                    }
                    let (key, key_range) = (text.to_owned(), key_node.range.clone());
                    entries.push(Entry { key, key_range, value: node });
                }
            },
        }
        Ok(())
    }
}

/// Adds the entries of a merge key: those of one mapping, or of several, the first of which takes precedence.
fn merge(entries: &mut Vec<Entry>, node: &Arc<Node>, range: Range<usize>) -> Result<(), Error> {
    let sources = node.sequence().unwrap_or(std::slice::from_ref(node));
    for source in sources {
        let Some(more) = source.mapping() else {
            return Err(Error {
                message: "invalid `<<`: expected a mapping or a sequence of mappings".to_owned(),
                range,
            });
        };
        for entry in more {
            if entries.len() >= MAX_ENTRIES {
                return Err(Error { message: format!("more than {MAX_ENTRIES} keys in one mapping"), range });
            }
            if !entries.iter().any(|own| own.key == entry.key) {
                entries.push(entry.clone());
            }
        }
    }
    Ok(())
}

/// Maps each byte of a scalar's text to its position in the file, by walking both in parallel and skipping folding, indentation and
/// escapes.
fn origins(scalar: &Scalar, file: &str, range: &Range<usize>) -> Vec<usize> {
    let source = file.as_bytes();
    let end = range.end.min(source.len());
    let mut at = range.start.min(end);
    match scalar.style {
        ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => at += 1,
        ScalarStyle::Literal | ScalarStyle::Folded => {
            // The range may start at the header or at the content.
            if matches!(source.get(at), Some(b'|' | b'>')) {
                at = memchr::memchr(b'\n', &source[at..end]).map_or(end, |found| at + found + 1);
            }
        }
        _ => {}
    }
    let blank = |at: usize| at < end && source[at].is_ascii_whitespace();
    let mut origins = Vec::with_capacity(scalar.text.len() + 1);
    for letter in scalar.text.chars() {
        let length = letter.len_utf8();
        if matches!(letter, ' ' | '\n') {
            origins.push(at.min(end));
            if source.get(at) == Some(&(letter as u8)) && letter == ' ' {
                at += 1;
            } else {
                while blank(at) {
                    at += 1;
                }
            }
            continue;
        }
        while blank(at) && !letter.is_whitespace() {
            at += 1;
        }
        let (step, matches) = match (scalar.style, source.get(at)) {
            (ScalarStyle::DoubleQuoted, Some(b'\\')) => (escape_length(&source[at..end]), true),
            (ScalarStyle::SingleQuoted, Some(b'\'')) => (2, true),
            _ => (length, file.get(at..).is_some_and(|rest| rest.starts_with(letter))),
        };
        for _ in 0..length {
            origins.push(at.min(end));
        }
        if matches {
            at += step;
        }
    }
    origins.push(at.min(end));
    origins
}

fn escape_length(source: &[u8]) -> usize {
    match source.get(1) {
        Some(b'x') => 4,
        Some(b'u') => 6,
        Some(b'U') => 10,
        _ => 2,
    }
}

/// Parses a YAML 1.1 boolean.
pub fn boolean(text: &str) -> Option<bool> {
    match &*Cow::from(text.to_ascii_lowercase()) {
        "true" | "yes" | "on" | "y" => Some(true),
        "false" | "no" | "off" | "n" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod suite;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_may_end_without_a_line_break() {
        for (text, expected) in [
            ("k: |\n  x", "x"),
            ("k: |+\n  x", "x"),
            ("k: |\n  x\n", "x\n"),
            ("k: >\n  x\n  y", "x y"),
            ("k: |", ""),
            ("k: x", "x"),
        ] {
            let documents = parse(text).unwrap();
            assert_eq!(documents.roots[0].get("k").unwrap().text(), Some(expected), "{text:?}");
        }
    }

    #[test]
    fn malformed_text_is_an_error_and_no_panic() {
        for text in ["k: [!a,b]", "k: !%ff x", "k: \"a\\", "k: 'a", "\u{feff}\u{1}", "%", "- !<a", "&"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn merge_keys_do_not_replace_own_entries() {
        let documents = parse("- &a {x: 1, y: 2}\n- &b {y: 3, z: 4}\n- <<: [*a, *b]\n  x: 5\n").unwrap();
        let items = documents.roots[0].sequence().unwrap();
        assert_eq!(items[2].to_json(), serde_json::json!({"x": 5, "y": 2, "z": 4}));
        assert!(documents.repeated_keys.is_empty());
    }

    #[test]
    fn positions_are_right_despite_folding_quoting_and_non_ascii() {
        let text = "\u{feff}# ä\n- k: >\n    one two\n    three\n- k: \"a\\\"b\\tc\"\n- k: 'it''s'\n- k: one\n    two\n- k: |\r\n    x\r\n    yä z\r\n";
        let documents = parse(text).unwrap();
        for item in documents.roots[0].sequence().unwrap() {
            let node = item.get("k").unwrap();
            let value = node.text().unwrap();
            let origins = node.origins(text);
            assert_eq!(origins.len(), value.len() + 1);
            for (at, letter) in value.char_indices().filter(|(_, letter)| letter.is_alphanumeric()) {
                assert!(text[origins[at]..].starts_with(letter), "{letter} of {value:?}");
            }
        }
    }

    #[test]
    fn flow_collections_and_quoted_text_may_continue_in_the_column_of_their_key() {
        let documents = parse("- list: a\n  items: [\n    x,\n    y\n  ]\n  desc: \"one\n  two\"\n").unwrap();
        let items = documents.roots[0].sequence().unwrap();
        assert_eq!(
            items[0].to_json(),
            serde_json::json!({"list": "a", "items": ["x", "y"], "desc": "one two"})
        );
        let documents = parse("outer:\n  inner: {\n  a: 1,\n}\n").unwrap();
        assert_eq!(documents.roots[0].to_json(), serde_json::json!({"outer": {"inner": {"a": 1}}}));
    }

    #[test]
    fn errors_have_a_position() {
        let error = parse("- a\n- b: [1\n").unwrap_err();
        assert!(error.range.start >= 8, "{error:?}");
        let error = parse("- ä\n- \u{1}\n").unwrap_err();
        assert_eq!(error.range.start, 7, "{error:?}");
    }

    #[test]
    fn aliases_and_nesting_are_bounded() {
        let mut bomb = "- &l0 [a, a]\n".to_owned();
        for level in 1..60 {
            bomb += &[
                "- &l",
                &level.to_string(),
                " [*l",
                &(level - 1).to_string(),
                ", *l",
                &(level - 1).to_string(),
                "]\n",
            ]
            .concat();
        }
        assert!(parse(&bomb).is_ok());
        assert!(parse(&"[".repeat(10_000)).is_err());
        assert!(parse("- &a [*a]\n").is_err());
    }
}
