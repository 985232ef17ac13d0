//! A rule set after loading: every macro and list is resolved, every field and type is checked.
//!
//! The loader returns it to the engine, which needs nothing else. YAML must never enter.

use std::fmt;
use std::sync::Arc;

use crate::detection::alert::Priority;
use crate::detection::audit::redact::ShowList;
use crate::detection::rules::fields::{Field, Kind};
use crate::text::name_patterns::NamePatterns;

/// A field with its argument.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FieldRef {
    pub field: &'static Field,
    /// The argument in brackets.
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

/// A transformer. `val(field)` is not one of them: it marks a field where a constant
/// is expected, and becomes an [`Operand::Field`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transformer {
    ToLower,
    ToUpper,
    /// Decodes base64; invalid input is missing.
    Base64,
    /// The part after the last slash.
    Basename,
    /// The number of bytes of a string, or of elements of a list.
    Len,
    /// `join(separator, list)`
    Join,
    /// `concat(a, b, …)`
    Concat,
    /// `getopt(list, "opts")[x]`
    GetOpt,
    /// `(a, b, …)` as an argument of another transformer: a list of its arguments.
    List,
}

impl Transformer {
    /// Returns the keyword in rules.
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
            Transformer::List => "",
        }
    }
}

/// An expression with a value: a field, a transformer, or a constant argument of one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Operand {
    Field(FieldRef),
    Text(String),
    /// A transformer; only `getopt` has an `argument`.
    Call {
        transformer: Transformer,
        arguments: Vec<Operand>,
        /// The argument in brackets after the call.
        argument: Option<String>,
    },
}

impl Operand {
    /// Returns the type of the value.
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
                Transformer::List => Kind::List,
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
    /// Returns the keyword in rules; `==` parses as `=`.
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

/// The number of values that must satisfy a string operator: `oneof`, `anyof`, `allof`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Quantifier {
    OneOf,
    AnyOf,
    AllOf,
}

impl Quantifier {
    pub const ALL: [Quantifier; 3] = [Quantifier::OneOf, Quantifier::AnyOf, Quantifier::AllOf];

    /// Returns the keyword in rules.
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
    /// No right-hand side: `exists`.
    Nothing,
    /// A string or number, unquoted and unescaped. A number keeps its spelling.
    Text(String),
    /// A list with all list names expanded: `in`, `intersects`, `pmatch`, and every quantified operator.
    List(Vec<String>),
    /// A field or a transformed field: `= val(ka.resp.name)`, `= tolower(ka.verb)`.
    Operand(Operand),
}

impl Right {
    /// Returns the constants: none, one, or those of the list.
    pub fn values(&self) -> &[String] {
        match self {
            Right::Text(value) => std::slice::from_ref(value),
            Right::List(values) => values,
            Right::Nothing | Right::Operand(_) => &[],
        }
    }
}

/// A type-checked comparison.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Comparison {
    pub left: Operand,
    pub operator: Operator,
    pub quantifier: Option<Quantifier>,
    pub right: Right,
}

impl fmt::Display for Comparison {
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
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Not(Box<Expr>),
    Comparison(Comparison),
    /// A macro, shared by all conditions that use it. Its name is kept for `explain`.
    Macro {
        name: Arc<str>,
        body: Arc<Expr>,
    },
    /// An exception of a rule: true if the event is excepted.
    Exception {
        name: Arc<str>,
        body: Arc<Expr>,
    },
}

/// The parsed output of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Template {
    pub pieces: Vec<Piece>,
}

/// A piece of an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Literal text.
    Text(String),
    Value {
        operand: Operand,
        /// The text after `%` and the width, which is the key in `output_fields`.
        spelling: String,
        /// `%20field`: pad or truncate to this number of characters.
        width: Option<usize>,
    },
}

/// Source location of a definition, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// Name of the file, as given.
    pub file: Arc<str>,
    /// Starts at 1.
    pub line: usize,
}

/// A rule, ready to be compiled.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Unique in the rule set.
    pub name: Arc<str>,
    pub desc: String,
    /// The condition with the exceptions folded in: `condition and not (exception or …)`.
    pub condition: Expr,
    pub output: Template,
    pub priority: Priority,
    /// Sorted, without duplicates.
    pub tags: Vec<String>,
    /// A disabled rule is loaded and checked, but never evaluated.
    pub enabled: bool,
    pub throttle: Option<Throttle>,
    /// Whether matches make alerts; if not, they only feed correlations.
    pub makes_alerts: bool,
    /// Paths that the output exempts from redaction.
    pub show: ShowList,
    /// Location of the first definition.
    pub location: Location,
}

/// A limit of one alert per combination of values and period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Throttle {
    /// The fields of the combination; if empty, all alerts of the rule or correlation share one throttle.
    pub per: Vec<Operand>,
    /// The period, in nanoseconds; greater than 0.
    pub every: i64,
}

/// The type of a correlation, as in Sigma.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CorrelationKind {
    /// A number of alerts.
    EventCount,
    /// A number of distinct values of a field.
    ValueCount,
    /// Alerts of all its rules, in any order.
    Temporal,
    /// Alerts of all its rules, in the order of the list `rules`.
    TemporalOrdered,
}

impl CorrelationKind {
    pub const ALL: [CorrelationKind; 4] = [
        CorrelationKind::EventCount,
        CorrelationKind::ValueCount,
        CorrelationKind::Temporal,
        CorrelationKind::TemporalOrdered,
    ];

    /// Returns the keyword in rule files.
    pub const fn name(self) -> &'static str {
        match self {
            CorrelationKind::EventCount => "event_count",
            CorrelationKind::ValueCount => "value_count",
            CorrelationKind::Temporal => "temporal",
            CorrelationKind::TemporalOrdered => "temporal_ordered",
        }
    }

    /// Returns the largest number that a condition may contain: a window must be able to store that many observations.
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

/// A source of the alerts that a correlation observes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Feed {
    /// Index in [`RuleSet::rules`].
    Rule(usize),
    /// Index in [`RuleSet::correlations`], lower than that of the correlation itself.
    Correlation(usize),
}

/// The range of numbers that satisfies a condition, both ends inclusive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Bounds {
    pub at_least: u64,
    pub at_most: Option<u64>,
}

impl Bounds {
    /// Whether a number is in the range.
    pub fn contains(self, number: u64) -> bool {
        number >= self.at_least && self.at_most.is_none_or(|most| number <= most)
    }
}

/// A correlation: a condition over several alerts.
#[derive(Clone, Debug)]
pub struct Correlation {
    /// Unique among rules and correlations.
    pub name: Arc<str>,
    pub desc: String,
    pub kind: CorrelationKind,
    /// The observed rules and correlations in the order of the list `rules`, without duplicates.
    pub feeds: Vec<Feed>,
    /// Alerts with equal values of these fields form a group; if empty, all alerts form one group.
    pub group_by: Vec<Operand>,
    /// Length of the window, in nanoseconds; greater than 0.
    pub timespan: i64,
    /// The field whose distinct values are counted ([`CorrelationKind::ValueCount`] only).
    pub field: Option<Operand>,
    /// The condition. Ignored by the temporal types, where each rule must match.
    pub bounds: Bounds,
    /// Minimum number of alerts in a window whose values are counted.
    pub min_alerts: u64,
    /// Unlike those of a rule, its output and its throttle may contain [`Source::Correlation`](crate::detection::rules::fields::Source).
    pub output: Template,
    pub throttle: Option<Throttle>,
    pub priority: Priority,
    /// Sorted, without duplicates.
    pub tags: Vec<String>,
    /// A disabled correlation is loaded and checked, but never evaluated.
    pub enabled: bool,
    /// Paths that the output exempts from redaction.
    pub show: ShowList,
    /// Location of the first definition.
    pub location: Location,
}

/// All rules of all files, in load order.
#[derive(Clone, Debug, Default)]
pub struct RuleSet {
    /// Version of the rule set: twelve hexadecimal digits of a hash of the files.
    pub version: Arc<str>,
    /// Including disabled rules.
    pub rules: Vec<Rule>,
    /// Name patterns of registry credentials: the list `registry_credential_names`.
    pub credential_names: NamePatterns,
    /// Including disabled ones; each correlation after those that feed it.
    pub correlations: Vec<Correlation>,
}

impl RuleSet {
    /// Returns the names and throttles of all rules, followed by those of all correlations.
    pub fn throttles(&self) -> impl Iterator<Item = (&str, Option<&Throttle>)> {
        let rules = self.rules.iter().map(|rule| (&*rule.name, rule.throttle.as_ref()));
        rules.chain(self.correlations.iter().map(|one| (&*one.name, one.throttle.as_ref())))
    }

    /// Returns the name of a rule or correlation that feeds another.
    pub fn name_of(&self, feed: Feed) -> Option<&str> {
        match feed {
            Feed::Rule(at) => self.rules.get(at).map(|rule| &*rule.name),
            Feed::Correlation(at) => self.correlations.get(at).map(|correlation| &*correlation.name),
        }
    }
}
