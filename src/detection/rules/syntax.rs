//! Conditions as they are written: the syntax tree, with the place of each part, before any name is looked up.

use std::ops::Range;

use super::ast::{Operator, Quantifier, Transformer};

/// A condition.
#[derive(Clone, Debug, PartialEq)]
pub enum Syntax {
    /// `a and b`
    And(Vec<Syntax>),
    /// `a or b`
    Or(Vec<Syntax>),
    /// `not a`
    Not(Box<Syntax>),
    /// A comparison.
    Check(Check),
    /// A macro's name.
    Name(Word),
}

/// A word and its place in the condition.
#[derive(Clone, Debug, PartialEq)]
pub struct Word {
    /// What it says, unquoted.
    pub text: String,
    /// Bytes of the condition.
    pub range: Range<usize>,
    /// Whether it stood in quotes: then it is never the name of a list.
    pub quoted: bool,
}

/// A comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// What is compared.
    pub left: Operand,
    /// How.
    pub operator: Operator,
    /// Where the operator stands.
    pub operator_range: Range<usize>,
    /// `oneof`, `anyof`, `allof`.
    pub quantifier: Option<Quantifier>,
    /// With what.
    pub right: Right,
    /// All of it.
    pub range: Range<usize>,
}

/// What yields a value.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// A field.
    Field {
        /// Its name.
        name: Word,
        /// What stood in brackets.
        argument: Option<Word>,
    },
    /// A transformer.
    Call {
        /// Which.
        transformer: Transformer,
        /// Its arguments.
        arguments: Vec<Operand>,
        /// What stood in brackets behind it.
        argument: Option<Word>,
        /// All of it.
        range: Range<usize>,
    },
    /// A constant inside a transformer's arguments.
    Text(Word),
}

impl Operand {
    /// Where it stands.
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
    /// None.
    Nothing,
    /// One word.
    Word(Word),
    /// A list in parentheses.
    List(Vec<Word>),
    /// A list's name without parentheses.
    ListName(Word),
    /// A field or a transformed field.
    Operand(Operand),
}

/// All words for operators, longest first where one starts like another.
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

/// All transformers.
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
