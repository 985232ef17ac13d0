//! A rule set after loading: every macro and list is resolved, every field and type is checked.
//!
//! This is what the loader hands to the engine, and all that the engine needs. It holds no YAML.

use std::fmt;
use std::sync::Arc;

use crate::detection::alert::Priority;
use crate::detection::rules::fields::{Field, Kind};
use crate::text::name_patterns::NamePatterns;

/// A field with its argument, as a rule wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FieldRef {
    /// The entry of the catalogue.
    pub field: &'static Field,
    /// What stood in brackets.
    pub argument: Option<FieldArgument>,
}

/// The argument of a field.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FieldArgument {
    /// `[0]`
    Index(usize),
    /// `[/user/username]`, `["command"]`
    Key(String),
}

impl fmt::Display for FieldRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.argument {
            None => f.write_str(self.field.name),
            Some(FieldArgument::Index(index)) => write!(f, "{}[{index}]", self.field.name),
            Some(FieldArgument::Key(key)) => write!(f, "{}[{key}]", self.field.name),
        }
    }
}

/// A function over values. `val(field)` is not one of them: it only says that a field stands where a text
/// would be read, and is an [`Operand::Field`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transformer {
    /// ASCII lower case.
    ToLower,
    /// ASCII upper case.
    ToUpper,
    /// Decodes base64; invalid input is missing.
    Base64,
    /// What follows the last slash.
    Basename,
    /// Bytes of a text, or members of a list.
    Len,
    /// `join(separator, list)`
    Join,
    /// `concat(a, b, …)`
    Concat,
    /// `getopt(list, "opts")[x]`
    GetOpt,
}

impl Transformer {
    /// The word in rules.
    pub const fn name(self) -> &'static str {
        match self {
            Transformer::ToLower => "tolower",
            Transformer::ToUpper => "toupper",
            Transformer::Base64 => "b64",
            Transformer::Basename => "basename",
            Transformer::Len => "len",
            Transformer::Join => "join",
            Transformer::Concat => "concat",
            Transformer::GetOpt => "getopt",
        }
    }
}

/// What yields a value: a field, a transformed field, or a text inside a transformer's arguments.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Operand {
    /// A field.
    Field(FieldRef),
    /// A constant.
    Text(String),
    /// A transformer and its arguments; `argument` is what stood in brackets behind it (`getopt` only).
    Call {
        /// Which.
        transformer: Transformer,
        /// Its arguments.
        arguments: Vec<Operand>,
        /// What stood in brackets behind the call.
        argument: Option<String>,
    },
}

impl Operand {
    /// The type of its value.
    pub fn kind(&self) -> Kind {
        match self {
            Operand::Field(field) => field.field.kind,
            Operand::Text(_) => Kind::Text,
            Operand::Call { transformer, arguments, .. } => match transformer {
                Transformer::Len => Kind::Number,
                Transformer::ToLower | Transformer::ToUpper | Transformer::Basename | Transformer::Base64 => {
                    arguments.first().map_or(Kind::Text, Operand::kind)
                }
                Transformer::Join | Transformer::Concat | Transformer::GetOpt => Kind::Text,
            },
        }
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operand::Field(field) => field.fmt(f),
            Operand::Text(text) => write!(f, "{text:?}"),
            Operand::Call { transformer, arguments, argument } => {
                write!(f, "{}(", transformer.name())?;
                for (i, operand) in arguments.iter().enumerate() {
                    if i > 0 {
                        f.write_str(", ")?;
                    }
                    operand.fmt(f)?;
                }
                f.write_str(")")?;
                match argument {
                    Some(argument) => write!(f, "[{argument}]"),
                    None => Ok(()),
                }
            }
        }
    }
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Operator {
    Exists,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Contains,
    IContains,
    StartsWith,
    EndsWith,
    Glob,
    IGlob,
    Regex,
    In,
    Intersects,
    PMatch,
}

impl Operator {
    /// The word in rules; `==` is read as `=`.
    pub const fn name(self) -> &'static str {
        match self {
            Operator::Exists => "exists",
            Operator::Equal => "=",
            Operator::NotEqual => "!=",
            Operator::Less => "<",
            Operator::LessOrEqual => "<=",
            Operator::Greater => ">",
            Operator::GreaterOrEqual => ">=",
            Operator::Contains => "contains",
            Operator::IContains => "icontains",
            Operator::StartsWith => "startswith",
            Operator::EndsWith => "endswith",
            Operator::Glob => "glob",
            Operator::IGlob => "iglob",
            Operator::Regex => "regex",
            Operator::In => "in",
            Operator::Intersects => "intersects",
            Operator::PMatch => "pmatch",
        }
    }
}

/// `oneof`, `anyof`, `allof` behind a string operator: how many of the values must satisfy it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Quantifier {
    /// Exactly one.
    OneOf,
    /// At least one.
    AnyOf,
    /// All.
    AllOf,
}

impl Quantifier {
    /// The word in rules.
    pub const fn name(self) -> &'static str {
        match self {
            Quantifier::OneOf => "oneof",
            Quantifier::AnyOf => "anyof",
            Quantifier::AllOf => "allof",
        }
    }
}

/// The right-hand side of a comparison.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Right {
    /// None: `exists`.
    Nothing,
    /// One text or number, unquoted and unescaped. A number keeps its spelling.
    Text(String),
    /// A list with all list names resolved: `in`, `intersects`, `pmatch`, and every quantified operator.
    List(Vec<String>),
    /// A field or a transformed field: `= val(ka.resp.name)`, `= tolower(ka.verb)`.
    Operand(Operand),
}

impl Right {
    /// The constants that it compares with: none, one, or those of the list.
    pub fn values(&self) -> &[String] {
        match self {
            Right::Text(value) => std::slice::from_ref(value),
            Right::List(values) => values,
            Right::Nothing | Right::Operand(_) => &[],
        }
    }
}

/// One comparison, type-checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Check {
    /// What is compared.
    pub left: Operand,
    /// How.
    pub operator: Operator,
    /// Over how many values.
    pub quantifier: Option<Quantifier>,
    /// With what.
    pub right: Right,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.left, self.operator.name())?;
        if let Some(quantifier) = self.quantifier {
            write!(f, " {}", quantifier.name())?;
        }
        match &self.right {
            Right::Nothing => Ok(()),
            Right::Text(text) => write!(f, " {text:?}"),
            Right::Operand(operand @ Operand::Field(_)) => write!(f, " val({operand})"),
            Right::Operand(operand) => write!(f, " {operand}"),
            Right::List(values) => {
                f.write_str(" (")?;
                for (i, value) in values.iter().enumerate() {
                    if i > 0 {
                        f.write_str(", ")?;
                    }
                    write!(f, "{value:?}")?;
                }
                f.write_str(")")
            }
        }
    }
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// All of them.
    And(Vec<Expr>),
    /// Any of them.
    Or(Vec<Expr>),
    /// The opposite.
    Not(Box<Expr>),
    /// One comparison.
    Check(Check),
    /// A macro, shared by all its users; `explain` shows its name.
    Macro {
        /// The macro's name.
        name: Arc<str>,
        /// What it stands for.
        body: Arc<Expr>,
    },
    /// A rule's exception: true where the event is excepted. Shared and named like a macro.
    Exception {
        /// The exception's name.
        name: Arc<str>,
        /// What it stands for.
        body: Arc<Expr>,
    },
}

/// The output of a rule, taken apart.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Template {
    /// The pieces, in order.
    pub pieces: Vec<Piece>,
}

/// One piece of a rule's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// As it is.
    Text(String),
    /// A value.
    Value {
        /// What to print.
        operand: Operand,
        /// The spelling behind the `%` and the width: the key in `output_fields`.
        spelling: String,
        /// `%20field`: pad or cut to so many characters.
        width: Option<usize>,
    },
}

/// Where a definition stands, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file's name as given.
    pub file: Arc<str>,
    /// From 1.
    pub line: usize,
}

/// One rule, ready to compile.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its name, unique in the set.
    pub name: Arc<str>,
    /// What it detects.
    pub desc: String,
    /// The condition with the exceptions folded in: `condition and not (exception or …)`.
    pub condition: Expr,
    /// What an alert says.
    pub output: Template,
    /// How bad it is.
    pub priority: Priority,
    /// Sorted, without repeats.
    pub tags: Vec<String>,
    /// `enabled: false` keeps a rule loaded but silent.
    pub enabled: bool,
    /// How often it may alert.
    pub throttle: Option<Throttle>,
    /// Where it was first defined.
    pub place: Place,
}

/// One alert for each combination of values, then none for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Throttle {
    /// Whose values make a combination; none: all alerts of the rule are one.
    pub per: Vec<Operand>,
    /// How long, in nanoseconds. More than 0.
    pub every: i64,
}

/// What a correlation looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CorrelationKind {
    /// So many alerts.
    EventCount,
    /// So many different values of a field.
    ValueCount,
    /// Alerts of all its rules, in any order.
    Temporal,
    /// Alerts of all its rules, in the order in which they are named.
    TemporalOrdered,
}

impl CorrelationKind {
    /// All of them.
    pub const ALL: [CorrelationKind; 4] = [
        CorrelationKind::EventCount,
        CorrelationKind::ValueCount,
        CorrelationKind::Temporal,
        CorrelationKind::TemporalOrdered,
    ];

    /// The word in rule files.
    pub const fn name(self) -> &'static str {
        match self {
            CorrelationKind::EventCount => "event_count",
            CorrelationKind::ValueCount => "value_count",
            CorrelationKind::Temporal => "temporal",
            CorrelationKind::TemporalOrdered => "temporal_ordered",
        }
    }

    /// The largest number that its condition may name. A window must be able to hold as many.
    pub const fn largest(self) -> u64 {
        match self {
            CorrelationKind::EventCount => 100_000,
            _ => 10_000,
        }
    }
}

impl fmt::Display for CorrelationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Where the alerts that a correlation is about come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Feed {
    /// The rule at this index of [`RuleSet::rules`].
    Rule(usize),
    /// The correlation at this index of [`RuleSet::correlations`], which is lower than its own.
    Correlation(usize),
}

/// The numbers that satisfy a condition: `gte: 5`, or both ends of a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Bounds {
    /// Not less than this.
    pub at_least: u64,
    /// Not more than this.
    pub at_most: Option<u64>,
}

impl Bounds {
    /// Whether a number satisfies it.
    pub fn hold(self, number: u64) -> bool {
        number >= self.at_least && self.at_most.is_none_or(|most| number <= most)
    }
}

/// A correlation: what alerts say together.
#[derive(Clone, Debug)]
pub struct Correlation {
    /// Its name, which no rule has.
    pub name: Arc<str>,
    /// What it detects.
    pub desc: String,
    /// What it looks for.
    pub kind: CorrelationKind,
    /// Whose alerts, in the order in which they are named, without repeats.
    pub feeds: Vec<Feed>,
    /// Alerts with equal values of these belong together; none: all do.
    pub group_by: Vec<Operand>,
    /// How long a window is, in nanoseconds. More than 0.
    pub timespan: i64,
    /// Whose different values are counted ([`CorrelationKind::ValueCount`] alone).
    pub field: Option<Operand>,
    /// How many there must be. Without meaning where all rules must have matched.
    pub bounds: Bounds,
    /// What an alert says. Other than a rule's it may hold [`Source::Correlation`](crate::detection::rules::fields::Source).
    pub output: Template,
    /// How bad it is.
    pub priority: Priority,
    /// Sorted, without repeats.
    pub tags: Vec<String>,
    /// `enabled: false` keeps a correlation loaded but silent.
    pub enabled: bool,
    /// Where it was first defined.
    pub place: Place,
}

/// All rules of all files, in load order.
#[derive(Clone, Debug, Default)]
pub struct RuleSet {
    /// What tells it from another: twelve hex digits of a hash of its files' texts.
    pub version: Arc<str>,
    /// The rules, disabled ones included.
    pub rules: Vec<Rule>,
    /// Names that registry credentials go by: the list `registry_credential_names`.
    pub credential_names: NamePatterns,
    /// The correlations, disabled ones included, each after those that feed it.
    pub correlations: Vec<Correlation>,
}

impl RuleSet {
    /// The name of a rule or a correlation that feeds another.
    pub fn name_of(&self, feed: Feed) -> Option<&str> {
        match feed {
            Feed::Rule(at) => self.rules.get(at).map(|rule| &*rule.name),
            Feed::Correlation(at) => self.correlations.get(at).map(|correlation| &*correlation.name),
        }
    }
}
