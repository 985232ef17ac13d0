//! The syntax tree of conditions: unresolved names, each with its location.

use std::ops::Range;

use super::ast::{Operator, Quantifier, Transformer};

#[derive(Clone, Debug, PartialEq)]
pub enum Syntax {
    /// `a and b`
    And(Vec<Syntax>),
    /// `a or b`
    Or(Vec<Syntax>),
    /// `not a`
    Not(Box<Syntax>),
    Comparison(Comparison),
    /// The name of a macro.
    Name(Word),
}

/// A word and its location in the condition.
#[derive(Clone, Debug, PartialEq)]
pub struct Word {
    /// Unquoted.
    pub text: String,
    /// In bytes of the condition.
    pub range: Range<usize>,
    /// A quoted word is never the name of a list.
    pub quoted: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    pub left: Operand,
    pub operator: Operator,
    pub operator_range: Range<usize>,
    /// `oneof`, `anyof`, `allof`.
    pub quantifier: Option<Quantifier>,
    pub right: Right,
    pub range: Range<usize>,
}

/// An expression with a value.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    Field {
        name: Word,
        /// The argument in brackets.
        argument: Option<Word>,
    },
    Call {
        transformer: Transformer,
        arguments: Vec<Operand>,
        /// The argument in brackets.
        argument: Option<Word>,
        range: Range<usize>,
    },
    /// A constant argument of a transformer.
    Text(Word),
}

impl Operand {
    /// Returns its location.
    pub fn range(&self) -> Range<usize> {
        match self {
            Operand::Field { name, argument } => {
                name.range.start..argument.as_ref().map_or(name.range.end, |argument| argument.range.end + 1)
            }
            Operand::Call { range, .. } => range.clone(),
            Operand::Text(word) => word.range.clone(),
        }
    }
}

/// The right-hand side.
#[derive(Clone, Debug, PartialEq)]
pub enum Right {
    Nothing,
    Word(Word),
    List(Vec<Word>),
    /// The name of a list without parentheses.
    ListName(Word),
    /// `val(field)` or a transformer.
    Operand(Operand),
}

/// All operators; a longer one precedes its prefixes.
pub const OPERATORS: [(&str, Operator); 18] = [
    ("exists", Operator::Exists),
    ("==", Operator::Equal),
    ("=", Operator::Equal),
    ("!=", Operator::NotEqual),
    ("<=", Operator::LessOrEqual),
    ("<", Operator::Less),
    (">=", Operator::GreaterOrEqual),
    (">", Operator::Greater),
    ("icontains", Operator::IContains),
    ("contains", Operator::Contains),
    ("startswith", Operator::StartsWith),
    ("endswith", Operator::EndsWith),
    ("iglob", Operator::IGlob),
    ("glob", Operator::Glob),
    ("regex", Operator::Regex),
    ("intersects", Operator::Intersects),
    ("in", Operator::In),
    ("pmatch", Operator::PMatch),
];

pub const TRANSFORMERS: [Transformer; 8] = [
    Transformer::ToLower,
    Transformer::ToUpper,
    Transformer::Base64,
    Transformer::Basename,
    Transformer::Len,
    Transformer::Join,
    Transformer::Concat,
    Transformer::GetOpt,
];
