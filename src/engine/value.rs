//! What a field says of an event.

use std::borrow::Cow;

/// Bytes that an event holds, or that were made from them.
pub type Text<'a> = Cow<'a, [u8]>;

/// The value of a field or of a transformed field.
#[derive(Clone, Debug, PartialEq, Eq)]
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
