//! Values of fields.
//!
//! A [`Value`] is what a condition sees and may be a secret; a [`Redacted`] value is what an output may contain.

use std::borrow::Cow;
use std::fmt;

use crate::detection::shorten;

/// Bytes that are borrowed from an event or derived from it.
pub type Text<'a> = Cow<'a, [u8]>;

/// The value of a field, or the result of a transformer.
///
/// It may be a secret, so it has no `Display`, and its `Debug` prints nothing but a length. Outputs take a [`Redacted`] value.
#[derive(Clone, PartialEq, Eq)]
pub enum Value<'a> {
    /// Missing: every comparison is false.
    Missing,
    /// One string; not necessarily UTF-8.
    Text(Text<'a>),
    /// Strings, at least one.
    List(Vec<Text<'a>>),
    Number(i64),
}

/// A value without secrets.
///
/// Only the evaluator creates one, from the redacted view of a field (see
/// [`Redactor::show`](crate::detection::audit::redact::Redactor::show)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redacted<'a>(Value<'a>);

impl<'a> Redacted<'a> {
    /// Wraps a value that the caller read through the redacted view.
    pub(super) fn trusted(value: Value<'a>) -> Self {
        Redacted(value)
    }

    pub fn value(&self) -> &Value<'a> {
        &self.0
    }

    /// Limits the length of each string.
    pub fn shortened(self, max_string: usize) -> Self {
        if self.0.texts().iter().all(|text| text.len() <= max_string) {
            return self;
        }
        Redacted(self.0.map_texts(|text| match shorten::text(&text, max_string) {
            Cow::Borrowed(_) => text,
            Cow::Owned(short) => Cow::Owned(short),
        }))
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Missing => f.write_str("Missing"),
            Value::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Value::List(texts) => write!(f, "List({} texts)", texts.len()),
            Value::Number(number) => write!(f, "Number({number})"),
        }
    }
}

impl<'a> Value<'a> {
    /// Creates a list; an empty one is missing.
    pub fn list(texts: Vec<Text<'a>>) -> Self {
        if texts.is_empty() { Value::Missing } else { Value::List(texts) }
    }

    /// Creates a string, or a missing value.
    pub fn text(text: Option<Text<'a>>) -> Self {
        text.map_or(Value::Missing, Value::Text)
    }

    /// Replaces each string.
    pub fn map_texts(self, map: impl Fn(Text<'a>) -> Text<'a>) -> Self {
        match self {
            Value::Text(text) => Value::Text(map(text)),
            Value::List(texts) => Value::List(texts.into_iter().map(map).collect()),
            other => other,
        }
    }

    /// Returns the strings of the value: none, one, or those of the list.
    pub fn texts(&self) -> &[Text<'a>] {
        match self {
            Value::Missing | Value::Number(_) => &[],
            Value::Text(text) => std::slice::from_ref(text),
            Value::List(texts) => texts,
        }
    }
}
