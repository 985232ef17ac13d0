//! Comparison operators of the rule language.
//!
//! Takes the value of an operand and a constant or another value, returns whether the comparison holds.

use std::collections::HashSet;

use foldhash::fast::RandomState;
use memchr::memmem;

use super::glob::Glob;
use super::value::Value;
use crate::detection::rules::ast::{Operator, Quantifier};

/// A comparison with constants.
#[derive(Debug)]
pub enum Compare {
    Exists,
    /// One string that passes the test.
    Text(TextTest),
    /// One string that passes any, exactly one or all of the tests.
    Quantified(Quantifier, Box<[TextTest]>),
    Number(Operator, f64),
    /// A number in the set.
    NumberIn(Box<[f64]>),
    /// All strings of the value are in the set.
    In(Texts),
    /// Any string of the value is in the set.
    Intersects(Texts),
    /// Always false.
    Never,
}

/// A test of one string.
#[derive(Debug)]
pub enum TextTest {
    /// `=`
    Equal(Box<[u8]>),
    /// `!=`
    NotEqual(Box<[u8]>),
    /// `<`, `<=`, `>`, `>=`, byte by byte.
    Order(Operator, Box<[u8]>),
    /// `contains`
    Contains(Box<memmem::Finder<'static>>),
    /// `icontains`, with the text in lowercase.
    IContains(Box<memmem::Finder<'static>>),
    /// `startswith`
    StartsWith(Box<[u8]>),
    /// `endswith`
    EndsWith(Box<[u8]>),
    /// `glob`, `iglob`
    Glob(Glob),
    /// `regex`, anchored at both ends.
    Regex(Box<regex::bytes::Regex>),
    /// `pmatch`: a prefix of the path, by whole components.
    PathPrefix(Box<[Box<[Glob]>]>),
    /// Always false: an expression that does not compile; the loader rejects those.
    Nothing,
}

impl TextTest {
    /// Creates the test of a string operator. Operators on lists give [`TextTest::Nothing`].
    pub fn new(operator: Operator, value: &str) -> Self {
        let bytes = || value.as_bytes().into();
        match operator {
            Operator::Equal => TextTest::Equal(bytes()),
            Operator::NotEqual => TextTest::NotEqual(bytes()),
            Operator::Less | Operator::LessOrEqual | Operator::Greater | Operator::GreaterOrEqual => {
                TextTest::Order(operator, bytes())
            }
            Operator::Contains => TextTest::Contains(Box::new(memmem::Finder::new(value).into_owned())),
            Operator::IContains => {
                TextTest::IContains(Box::new(memmem::Finder::new(&value.to_ascii_lowercase()).into_owned()))
            }
            Operator::StartsWith => TextTest::StartsWith(bytes()),
            Operator::EndsWith => TextTest::EndsWith(bytes()),
            Operator::Glob => TextTest::Glob(Glob::new(value.as_bytes(), false)),
            Operator::IGlob => TextTest::Glob(Glob::new(value.as_bytes(), true)),
            Operator::Regex => match crate::detection::rules::posix::compile(value) {
                Ok(regex) => TextTest::Regex(Box::new(regex)),
                Err(_) => TextTest::Nothing,
            },
            Operator::PMatch => TextTest::paths([value]),
            Operator::Exists | Operator::In | Operator::Intersects => TextTest::Nothing,
        }
    }

    /// Creates the test of `pmatch`.
    pub fn paths<'a>(paths: impl IntoIterator<Item = &'a str>) -> Self {
        // The empty path is a prefix of every path.
        let components = |path: &str| match path {
            "" => Box::default(),
            _ => {
                path.trim_end_matches('/').split('/').map(|part| Glob::new(part.as_bytes(), false)).collect()
            }
        };
        TextTest::PathPrefix(paths.into_iter().map(components).collect())
    }

    /// Tests a string.
    #[inline]
    pub fn passes(&self, text: &[u8]) -> bool {
        match self {
            TextTest::Equal(wanted) => *text == **wanted,
            TextTest::NotEqual(wanted) => *text != **wanted,
            TextTest::Order(operator, bound) => in_order(*operator, text.cmp(bound)),
            TextTest::Contains(needle) => needle.find(text).is_some(),
            TextTest::IContains(needle) => needle.find(&text.to_ascii_lowercase()).is_some(),
            TextTest::StartsWith(prefix) => text.starts_with(prefix),
            TextTest::EndsWith(suffix) => text.ends_with(suffix),
            TextTest::Glob(glob) => glob.matches(text),
            TextTest::Regex(regex) => regex.is_match(text),
            TextTest::PathPrefix(paths) => paths.iter().any(|path| {
                let mut parts = text.split(|&byte| byte == b'/');
                path.iter().all(|pattern| parts.next().is_some_and(|part| pattern.matches(part)))
            }),
            TextTest::Nothing => false,
        }
    }
}

fn in_order(operator: Operator, order: std::cmp::Ordering) -> bool {
    match operator {
        Operator::Equal => order.is_eq(),
        Operator::NotEqual => order.is_ne(),
        Operator::Less => order.is_lt(),
        Operator::LessOrEqual => order.is_le(),
        Operator::Greater => order.is_gt(),
        Operator::GreaterOrEqual => order.is_ge(),
        _ => false,
    }
}

/// A set of strings.
#[derive(Debug)]
pub enum Texts {
    /// Few strings, compared one by one.
    Few(Box<[Box<[u8]>]>),
    /// Many strings, hashed.
    Many(HashSet<Box<[u8]>, RandomState>),
}

impl Texts {
    /// Up to this size, comparing each string is faster than hashing.
    const MAX_UNHASHED: usize = 8;

    /// Creates a set.
    pub fn new<'a>(texts: impl ExactSizeIterator<Item = &'a str>) -> Self {
        let few = texts.len() <= Self::MAX_UNHASHED;
        let texts = texts.map(|text| text.as_bytes().into());
        if few { Texts::Few(texts.collect()) } else { Texts::Many(texts.collect()) }
    }

    fn contains(&self, text: &[u8]) -> bool {
        match self {
            Texts::Few(texts) => texts.iter().any(|one| **one == *text),
            Texts::Many(texts) => texts.contains(text),
        }
    }
}

#[allow(clippy::cast_precision_loss)]
fn float(number: i64) -> f64 {
    number as f64
}

impl Compare {
    /// Evaluates the comparison; false for a missing value.
    #[inline]
    pub fn passes(&self, value: &Value<'_>) -> bool {
        match (self, value) {
            (_, Value::Missing) | (Compare::Never, _) => false,
            (Compare::Exists, _) => true,
            (Compare::Text(test), Value::Text(value)) => test.passes(value),
            (Compare::Quantified(quantifier, tests), Value::Text(text)) => {
                let mut passing = tests.iter().filter(|test| test.passes(text));
                match quantifier {
                    Quantifier::AnyOf => passing.next().is_some(),
                    Quantifier::OneOf => passing.next().is_some() && passing.next().is_none(),
                    Quantifier::AllOf => passing.count() == tests.len(),
                }
            }
            (Compare::In(texts), value) => match value.texts() {
                [] => false,
                some => some.iter().all(|text| texts.contains(text)),
            },
            (Compare::Intersects(texts), value) => value.texts().iter().any(|text| texts.contains(text)),
            (Compare::Number(operator, bound), Value::Number(number)) => {
                float(*number).partial_cmp(bound).is_some_and(|order| in_order(*operator, order))
            }
            (Compare::NumberIn(numbers), Value::Number(number)) => numbers
                .iter()
                .any(|one| one.partial_cmp(&float(*number)).is_some_and(std::cmp::Ordering::is_eq)),
            _ => false,
        }
    }
}

/// Compares two values of an event: `ka.resp.name = val(ka.target.name)`.
pub fn values(operator: Operator, left: &Value<'_>, right: &Value<'_>) -> bool {
    if let (Value::Number(left), Value::Number(right)) = (left, right) {
        return in_order(operator, left.cmp(right));
    }
    let (left, right) = (left.texts(), right.texts());
    if left.is_empty() || right.is_empty() {
        return false;
    }
    match operator {
        Operator::In => left.iter().all(|text| right.contains(text)),
        Operator::Intersects => left.iter().any(|text| right.contains(text)),
        _ => {
            let ([left], [right]) = (left, right) else { return false };
            match operator {
                Operator::Contains => memmem::find(left, right).is_some(),
                Operator::IContains => {
                    memmem::find(&left.to_ascii_lowercase(), &right.to_ascii_lowercase()).is_some()
                }
                Operator::StartsWith => left.starts_with(right),
                Operator::EndsWith => left.ends_with(right),
                Operator::Glob => Glob::new(right, false).matches(left),
                Operator::IGlob => Glob::new(right, true).matches(left),
                _ => in_order(operator, left.as_ref().cmp(right.as_ref())),
            }
        }
    }
}
