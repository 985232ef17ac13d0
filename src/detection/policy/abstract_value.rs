//! Abstract values: what is known about a field of an event that does not exist yet.

use crate::detection::engine::value::Value;

#[derive(Clone, Debug, PartialEq)]
pub enum AbstractValue {
    /// The field is missing.
    Missing,
    Known(Value<'static>),
    OneOf(Vec<Value<'static>>),
    /// The field exists, with a value that no rule or policy names.
    Other,
    StartsWith(String),
    /// A list with at least these members.
    Has(Vec<String>),
    /// The field exists, with any value.
    There,
    /// The field may exist, with any value.
    Unknown,
}

impl AbstractValue {
    pub fn text(text: &str) -> Self {
        AbstractValue::Known(Value::Text(text.as_bytes().to_vec().into()))
    }

    pub fn one_of(texts: &[&str]) -> Self {
        AbstractValue::OneOf(texts.iter().map(|text| Value::Text(text.as_bytes().to_vec().into())).collect())
    }
}
