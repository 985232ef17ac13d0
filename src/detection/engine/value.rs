//! What a field says of an event.

use std::borrow::Cow;
use std::fmt;

/// Bytes that an event holds, or that were made from them.
pub type Text<'a> = Cow<'a, [u8]>;

/// The value of a field or of a transformed field.
///
/// To conditions it may be a secret. So it has no `Display`, its `Debug` says how long it is and no more, and what leaves
/// pullwatch takes a [`Shown`] value.
#[derive(Clone, PartialEq, Eq)]
pub enum Value<'a> {
    /// Not there: every comparison is false.
    Missing,
    /// One text. Not always UTF-8.
    Text(Text<'a>),
    /// Some texts, at least one.
    List(Vec<Text<'a>>),
    /// A number.
    Number(i64),
}

/// A value with nothing in it that must not be said.
///
/// Only the judge makes one, from a field's shown view (see [`Place::show`](crate::detection::audit::redact::Place::show)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown<'a>(Value<'a>);

impl<'a> Shown<'a> {
    /// The caller vouches for it.
    pub(super) fn vouched(value: Value<'a>) -> Self {
        Shown(value)
    }

    /// What may be said.
    pub fn value(&self) -> &Value<'a> {
        &self.0
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
    /// A list; an empty one counts as missing.
    pub fn list(texts: Vec<Text<'a>>) -> Self {
        if texts.is_empty() { Value::Missing } else { Value::List(texts) }
    }

    /// A text, if there is one.
    pub fn text(text: Option<Text<'a>>) -> Self {
        text.map_or(Value::Missing, Value::Text)
    }

    /// The texts of the value: none, one, or those of the list.
    pub fn texts(&self) -> &[Text<'a>] {
        match self {
            Value::Missing | Value::Number(_) => &[],
            Value::Text(text) => std::slice::from_ref(text),
            Value::List(texts) => texts,
        }
    }
}
