//! Abstract values: what is known of a field before the event exists.

use crate::detection::engine::value::Value;

/// What is known of a value before the event is.
#[derive(Clone, Debug, PartialEq)]
pub enum AbstractValue {
    /// It is not there.
    Missing,
    /// It is this.
    Known(Value<'static>),
    /// It is one of these.
    OneOf(Vec<Value<'static>>),
    /// It is there, and is none of the texts that a rule or a policy names.
    Other,
    /// It starts so.
    StartsWith(String),
    /// A list that holds at least these.
    Has(Vec<String>),
    /// It is there.
    There,
    /// It may be there.
    Unknown,
}

impl AbstractValue {
    /// A text that is known.
    pub fn text(text: &str) -> Self {
        AbstractValue::Known(Value::Text(text.as_bytes().to_vec().into()))
    }

    /// One of several texts.
    pub fn one_of(texts: &[&str]) -> Self {
        AbstractValue::OneOf(texts.iter().map(|text| Value::Text(text.as_bytes().to_vec().into())).collect())
    }
}
