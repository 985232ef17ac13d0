//! Compilation of a rule set: operands, comparisons and the order in which they are evaluated.
//!
//! Takes a checked rule set, returns a [`Plan`]. Equal operands and equal comparisons of all rules are shared, so that each is
//! evaluated once per event. The cheapest operands of a conjunction or disjunction come first. A plan depends on no event.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::compare::{Compare, TextTest, Texts};
use super::extract::FieldReader;
use crate::detection::alert::Priority;
use crate::detection::audit::redact::{RedactionKey, ShowList};
use crate::detection::rules::ast::{
    Bounds, Comparison, CorrelationKind, Expr, Feed, FieldRef, Operand, Operator, Piece, Right, Rule,
    RuleSet, Template, Throttle, Transformer,
};
use crate::detection::rules::fields::{
    ClientNodeField, Correlation, ExposureField, Field, Kind, ReaderField, Registry, Source,
};
use crate::detection::rules::number;
use crate::detection::shorten::Limits;
use crate::text::name_patterns::NamePatterns;

/// Index of an operand in its plan.
pub type OperandId = usize;
/// Index of a comparison in its plan.
pub type ComparisonId = usize;

/// How to obtain a value.
#[derive(Debug)]
pub enum OperandPlan {
    /// From the event.
    Field(FieldReader),
    /// From the registry credentials that the event exposed.
    Exposure(ExposureField),
    /// A property of an event about registry credentials, other than what it exposed.
    Registry(Registry),
    /// From the profile of the identity that reads secrets.
    Reader(ReaderField),
    /// From the addresses of nodes.
    ClientNode(ClientNodeField),
    /// From the window of a correlation.
    Correlation(Correlation),
    /// A constant.
    Text(Box<[u8]>),
    /// The result of a transformer: its arguments, and its option (of `getopt`).
    Call(Transformer, Box<[OperandId]>, Option<String>),
}

/// A compiled comparison.
#[derive(Debug)]
pub struct ComparisonPlan {
    pub left: OperandId,
    pub right: RightPlan,
    pub basis: Basis,
}

/// The part of an event that decides a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// Its stage, or its anomalies.
    Stage,
    /// Another member of [`HEAD`].
    Head,
    /// The credentials that it exposed: none before the response.
    Exposure,
    /// Anything.
    Event,
}

/// The right-hand side of a comparison.
#[derive(Debug)]
pub enum RightPlan {
    /// Constants.
    Constant(Compare),
    /// Another value.
    Operand(Operator, OperandId),
}

/// A condition over comparisons.
#[derive(Clone, Debug, PartialEq)]
pub enum ConditionPlan {
    Constant(bool),
    Comparison(ComparisonId),
    Not(Box<ConditionPlan>),
    All(Box<[ConditionPlan]>),
    Any(Box<[ConditionPlan]>),
}

/// A piece of an output template.
#[derive(Debug)]
pub enum OutputPiece {
    /// Literal text.
    Text(Box<str>),
    /// The value of [`RulePlan::output_fields`] at this index, padded or truncated to a width.
    Value(usize, Option<usize>),
}

/// A field of a rule's output.
#[derive(Debug)]
pub struct OutputField {
    /// Key in `output_fields`.
    pub spelling: String,
    pub operand: OperandId,
    /// Whether it is a number in JSON.
    pub is_number: bool,
    /// Whether it is the time of the event, which is formatted in text and in nanoseconds in JSON.
    pub is_time: bool,
}

/// A compiled rule.
#[derive(Debug)]
pub struct RulePlan {
    /// Index in the rule set.
    pub index: usize,
    pub name: Arc<str>,
    /// Version of the rule set.
    pub rule_set: Arc<str>,
    pub priority: Priority,
    pub condition: ConditionPlan,
    pub output: Box<[OutputPiece]>,
    /// The fields of the output by spelling, each once.
    pub output_fields: Box<[OutputField]>,
    /// Paths that the output exempts from redaction.
    pub show: ShowList,
    /// Sorted.
    pub tags: Vec<String>,
    pub throttle: Option<ThrottlePlan>,
    /// The correlations that its matches feed.
    pub feeds: Vec<FeedPlan>,
    /// Whether its alerts contain the event, redacted.
    pub includes_event: bool,
    /// Whether matches only feed correlations and make no alert, because the rule says so or its priority is below the minimum.
    pub correlation_only: bool,
    /// Whether its throttle limits what it feeds to correlations, since it exists for them alone (`alert: false`).
    pub throttles_feeds: bool,
}

impl Plan {
    /// Selects rules and correlations, by name, whose alerts contain the event.
    pub fn include_events(&mut self, names: &NamePatterns) {
        for rule in self.rules.iter_mut().chain(self.correlations.iter_mut().map(|one| &mut one.alert)) {
            rule.includes_event = names.matches(&rule.name);
        }
    }
}

impl RulePlan {
    /// Whether matches have to be processed in the order of the input.
    pub fn needs_ordered_pass(&self) -> bool {
        self.throttle.is_some() || !self.feeds.is_empty()
    }
}

/// Limit on the alerts of a rule or correlation.
#[derive(Debug)]
pub struct ThrottlePlan {
    /// Alerts with equal values of these operands share one throttle.
    pub per: Box<[OperandId]>,
    /// Minimum time between two alerts of equal values, in nanoseconds.
    pub every: i64,
}

/// A correlation that takes the matches of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedPlan {
    /// Index of the correlation in the plan.
    pub correlation: usize,
    /// Index of the rule among the rules of the correlation.
    pub source: usize,
}

/// A compiled correlation.
#[derive(Debug)]
pub struct CorrelationPlan {
    /// Its alert, in the form of a rule that no event matches. Its index follows those of the rules.
    pub alert: RulePlan,
    pub kind: CorrelationKind,
    /// Length of the window, in nanoseconds.
    pub timespan: i64,
    pub bounds: Bounds,
    /// Matches with equal values of these operands form a group.
    pub group_by: Box<[OperandId]>,
    /// The operand whose distinct values are counted.
    pub field: Option<OperandId>,
    /// Names of its rules.
    pub sources: Box<[Arc<str>]>,
}

/// Members that decide which rules an event can match at all: they are at the start of an event, have few distinct values, and nearly every
/// rule compares them.
pub const HEAD: [&[&str]; 4] =
    [&["stage"], &["verb"], &["objectRef", "resource"], &["objectRef", "subresource"]];

/// A compiled rule set.
#[derive(Debug, Default)]
pub struct Plan {
    /// All operands without duplicates. The arguments of a function call precede the call.
    pub operands: Vec<OperandPlan>,
    /// All comparisons without duplicates.
    pub comparisons: Vec<ComparisonPlan>,
    /// In load order.
    pub rules: Vec<RulePlan>,
    /// Each correlation after those that feed it.
    pub correlations: Vec<CorrelationPlan>,
    /// Whether a rule uses the position of an event in the input.
    pub needs_positions: bool,
    /// Whether a rule uses learned state: then events that update it must be evaluated in the order of the input.
    pub needs_cluster_state: bool,
    /// Name patterns of registry credentials.
    pub names: NamePatterns,
    /// Key of the hashes of redacted values.
    pub redaction_key: RedactionKey,
    /// Static labels of all alerts, as names and values.
    pub labels: Vec<(String, String)>,
    /// Whether `output_fields` repeats the fields that every alert has.
    pub repeats_fields: bool,
    /// Limits of what alerts show.
    pub limits: Limits,
    /// Version of the rule set.
    version: Arc<str>,
    costs: Vec<u32>,
}

/// The rules and correlations to compile.
struct Selection {
    /// Indices of rules.
    rules: Vec<usize>,
    /// Indices of correlations.
    correlations: Vec<usize>,
}

impl Selection {
    /// Selects what is enabled and has at least the priority `minimum`, and whatever feeds that.
    fn of(rules: &RuleSet, minimum: Priority) -> Self {
        let mut is_fed: HashSet<Feed> = HashSet::new();
        let mut correlations = Vec::new();
        // In reverse: each correlation comes after those that feed it.
        for (index, correlation) in rules.correlations.iter().enumerate().rev() {
            let is_wanted = correlation.priority <= minimum || is_fed.contains(&Feed::Correlation(index));
            if correlation.enabled && is_wanted {
                is_fed.extend(&correlation.feeds);
                correlations.push(index);
            }
        }
        correlations.reverse();
        let is_wanted = |(index, rule): &(usize, &Rule)| {
            rule.enabled && (rule.priority <= minimum || is_fed.contains(&Feed::Rule(*index)))
        };
        let rules = rules.rules.iter().enumerate().filter(is_wanted).map(|(index, _)| index).collect();
        Selection { rules, correlations }
    }
}

/// Ids of the operands and comparisons that are compiled already.
#[derive(Default)]
struct Interned<'a> {
    operands: HashMap<&'a Operand, OperandId>,
    comparisons: HashMap<&'a Comparison, ComparisonId>,
}

impl Plan {
    /// Compiles the enabled rules of priority `minimum` or higher.
    pub fn new(rules: &RuleSet, minimum: Priority) -> Self {
        let names = rules.credential_names.clone();
        let mut plan = Plan { names, version: rules.version.clone(), ..Plan::default() };
        let mut interned = Interned::default();
        let wanted = Selection::of(rules, minimum);
        // The index that each correlation will have in the plan.
        let mut feeds: HashMap<Feed, Vec<FeedPlan>> = HashMap::new();
        for (at, &index) in wanted.correlations.iter().enumerate() {
            for (source, &feed) in rules.correlations[index].feeds.iter().enumerate() {
                feeds.entry(feed).or_default().push(FeedPlan { correlation: at, source });
            }
        }
        for &index in &wanted.rules {
            let rule = &rules.rules[index];
            let mut planned = plan.rule(index, rule, &mut interned);
            planned.feeds = feeds.remove(&Feed::Rule(index)).unwrap_or_default();
            planned.correlation_only = rule.priority > minimum || !rule.makes_alerts;
            planned.throttles_feeds = !rule.makes_alerts;
            plan.rules.push(planned);
        }
        for &index in &wanted.correlations {
            let correlation = &rules.correlations[index];
            let mut planned = plan.correlation(rules, index, &mut interned);
            planned.alert.feeds = feeds.remove(&Feed::Correlation(index)).unwrap_or_default();
            planned.alert.correlation_only = correlation.priority > minimum;
            plan.correlations.push(planned);
        }
        plan
    }

    /// Compiles a single comparison; its id is 0.
    pub fn for_comparison(comparison: &Comparison, names: &NamePatterns) -> Self {
        let mut plan = Plan { names: names.clone(), ..Plan::default() };
        plan.comparison(comparison, &mut Interned::default());
        plan
    }

    /// Returns the operands of a comparison.
    pub fn operands_in(&self, comparison: ComparisonId) -> (OperandId, Option<OperandId>) {
        let comparison = &self.comparisons[comparison];
        match comparison.right {
            RightPlan::Constant(_) => (comparison.left, None),
            RightPlan::Operand(_, right) => (comparison.left, Some(right)),
        }
    }

    fn rule<'a>(&mut self, index: usize, rule: &'a Rule, interned: &mut Interned<'a>) -> RulePlan {
        let condition = self.node(&rule.condition, interned);
        let (output, output_fields) = self.output(&rule.output, interned);
        let throttle = rule.throttle.as_ref().map(|throttle| self.throttle(throttle, interned));
        RulePlan {
            index,
            name: rule.name.clone(),
            rule_set: self.version.clone(),
            priority: rule.priority,
            condition,
            output,
            output_fields,
            show: rule.show.clone(),
            tags: rule.tags.clone(),
            throttle,
            feeds: Vec::new(),
            includes_event: false,
            correlation_only: false,
            throttles_feeds: false,
        }
    }

    fn throttle<'a>(&mut self, throttle: &'a Throttle, interned: &mut Interned<'a>) -> ThrottlePlan {
        ThrottlePlan {
            per: throttle.per.iter().map(|operand| self.operand(operand, interned)).collect(),
            every: throttle.every,
        }
    }

    fn correlation<'a>(
        &mut self,
        rules: &'a RuleSet,
        index: usize,
        interned: &mut Interned<'a>,
    ) -> CorrelationPlan {
        let correlation = &rules.correlations[index];
        let (output, output_fields) = self.output(&correlation.output, interned);
        let throttle = correlation.throttle.as_ref().map(|throttle| self.throttle(throttle, interned));
        let name = |feed: &Feed| match *feed {
            Feed::Rule(index) => rules.rules[index].name.clone(),
            Feed::Correlation(index) => rules.correlations[index].name.clone(),
        };
        CorrelationPlan {
            alert: RulePlan {
                index: rules.rules.len() + index,
                name: correlation.name.clone(),
                rule_set: self.version.clone(),
                priority: correlation.priority,
                condition: ConditionPlan::Constant(false),
                output,
                output_fields,
                show: correlation.show.clone(),
                tags: correlation.tags.clone(),
                throttle,
                feeds: Vec::new(),
                includes_event: false,
                correlation_only: false,
                throttles_feeds: false,
            },
            kind: correlation.kind,
            timespan: correlation.timespan,
            bounds: correlation.bounds,
            group_by: correlation.group_by.iter().map(|operand| self.operand(operand, interned)).collect(),
            field: correlation.field.as_ref().map(|operand| self.operand(operand, interned)),
            sources: correlation.feeds.iter().map(name).collect(),
        }
    }

    /// Compiles a condition. The loader bounds the recursion depth.
    fn node<'a>(&mut self, expr: &'a Expr, interned: &mut Interned<'a>) -> ConditionPlan {
        match expr {
            Expr::Comparison(comparison) => ConditionPlan::Comparison(self.comparison(comparison, interned)),
            Expr::Not(inner) => ConditionPlan::Not(Box::new(self.node(inner, interned))),
            Expr::And(children) | Expr::Or(children) => {
                let is_and = matches!(expr, Expr::And(_));
                let mut nodes: Vec<ConditionPlan> = Vec::new();
                for child in children {
                    match self.node(child, interned) {
                        // Flatten nested conjunctions and disjunctions.
                        ConditionPlan::All(inner) if is_and => nodes.extend(inner),
                        ConditionPlan::Any(inner) if !is_and => nodes.extend(inner),
                        node => nodes.push(node),
                    }
                }
                nodes.sort_by_key(|node| self.cost(node));
                if is_and { ConditionPlan::All(nodes.into()) } else { ConditionPlan::Any(nodes.into()) }
            }
            Expr::Macro { body, .. } | Expr::Exception { body, .. } => self.node(body, interned),
        }
    }

    fn cost(&self, node: &ConditionPlan) -> u32 {
        match node {
            ConditionPlan::Constant(_) => 0,
            ConditionPlan::Comparison(comparison) => self.costs[*comparison],
            ConditionPlan::Not(inner) => self.cost(inner),
            ConditionPlan::All(nodes) | ConditionPlan::Any(nodes) => {
                nodes.iter().map(|node| self.cost(node)).max().unwrap_or(0)
            }
        }
    }

    fn comparison<'a>(&mut self, comparison: &'a Comparison, interned: &mut Interned<'a>) -> ComparisonId {
        if let Some(&id) = interned.comparisons.get(comparison) {
            return id;
        }
        let left = self.operand(&comparison.left, interned);
        let right = match &comparison.right {
            Right::Operand(operand) => {
                RightPlan::Operand(comparison.operator, self.operand(operand, interned))
            }
            Right::Nothing => RightPlan::Constant(Compare::Exists),
            Right::Text(text) => RightPlan::Constant(constant(comparison, std::slice::from_ref(text))),
            Right::List(texts) => RightPlan::Constant(constant(comparison, texts)),
        };
        let basis = match right {
            RightPlan::Constant(_) => self.basis(left),
            RightPlan::Operand(..) => Basis::Event,
        };
        let mut cost = self.operand_cost(left);
        if let RightPlan::Operand(_, right) = right {
            cost = cost.max(self.operand_cost(right));
        }
        self.comparisons.push(ComparisonPlan { left, right, basis });
        self.costs.push(cost);
        interned.comparisons.insert(comparison, self.comparisons.len() - 1);
        self.comparisons.len() - 1
    }

    fn operand<'a>(&mut self, operand: &'a Operand, interned: &mut Interned<'a>) -> OperandId {
        if let Some(&id) = interned.operands.get(operand) {
            return id;
        }
        let plan = match operand {
            Operand::Field(FieldRef { field: Field { source: Source::Registry(part), .. }, .. }) => {
                self.needs_cluster_state |= part.depends_on_cluster_state();
                OperandPlan::Registry(*part)
            }
            Operand::Field(FieldRef { field: Field { source: Source::Exposure(part), .. }, .. }) => {
                self.needs_cluster_state = true;
                OperandPlan::Exposure(*part)
            }
            Operand::Field(FieldRef { field: Field { source: Source::Reader(part), .. }, .. }) => {
                self.needs_cluster_state = true;
                OperandPlan::Reader(*part)
            }
            Operand::Field(FieldRef { field: Field { source: Source::ClientNode(part), .. }, .. }) => {
                self.needs_cluster_state = true;
                OperandPlan::ClientNode(*part)
            }
            Operand::Field(FieldRef { field: Field { source: Source::Correlation(part), .. }, .. }) => {
                OperandPlan::Correlation(*part)
            }
            Operand::Field(field) => {
                self.needs_positions |= field.field.source == Source::Position;
                OperandPlan::Field(FieldReader::new(field))
            }
            Operand::Text(text) => OperandPlan::Text(text.as_bytes().into()),
            Operand::Call { transformer, arguments, argument } => {
                let arguments = arguments.iter().map(|argument| self.operand(argument, interned)).collect();
                OperandPlan::Call(*transformer, arguments, argument.clone())
            }
        };
        self.operands.push(plan);
        interned.operands.insert(operand, self.operands.len() - 1);
        self.operands.len() - 1
    }

    /// Determines what decides the value of an operand.
    fn basis(&self, operand: OperandId) -> Basis {
        match &self.operands[operand] {
            OperandPlan::Exposure(ExposureField::Kind) => Basis::Exposure,
            OperandPlan::Field(access) if access.is_anomaly() => Basis::Stage,
            OperandPlan::Field(access) => match access.static_path().as_deref() {
                Some(["stage"]) => Basis::Stage,
                Some(path) if HEAD.contains(&path) => Basis::Head,
                _ => Basis::Event,
            },
            _ => Basis::Event,
        }
    }

    /// Estimates how far an event must be read for an operand.
    fn operand_cost(&self, operand: OperandId) -> u32 {
        match &self.operands[operand] {
            OperandPlan::Text(_) => 0,
            // These may read the request and response objects.
            OperandPlan::Registry(part) if part.reads_objects() => 7,
            OperandPlan::Correlation(_) => 7,
            // Determined once per event for all rules.
            OperandPlan::Exposure(_)
            | OperandPlan::Registry(_)
            | OperandPlan::Reader(_)
            | OperandPlan::ClientNode(_) => 5,
            OperandPlan::Call(_, arguments, _) => {
                arguments.iter().map(|&argument| self.operand_cost(argument)).max().unwrap_or(0) + 1
            }
            OperandPlan::Field(access) if access.is_user_derived() => 2,
            OperandPlan::Field(access) => match access.static_path().as_deref() {
                Some(path) if HEAD.contains(&path) => 0,
                Some([first, ..]) => match *first {
                    "kind" | "level" | "auditID" | "objectRef" => 1,
                    "requestURI" | "user" | "impersonatedUser" | "sourceIPs" | "userAgent" => 2,
                    "responseStatus" => 3,
                    "annotations" => 5,
                    _ => 6,
                },
                _ => 6,
            },
        }
    }

    fn output<'a>(
        &mut self,
        template: &'a Template,
        interned: &mut Interned<'a>,
    ) -> (Box<[OutputPiece]>, Box<[OutputField]>) {
        let mut fields: Vec<OutputField> = Vec::new();
        let mut pieces = Vec::new();
        for piece in &template.pieces {
            pieces.push(match piece {
                Piece::Text(text) => OutputPiece::Text(text.as_str().into()),
                Piece::Value { operand, spelling, width } => {
                    let index =
                        fields.iter().position(|one| one.spelling == *spelling).unwrap_or_else(|| {
                            let kind = operand.kind();
                            fields.push(OutputField {
                                spelling: spelling.clone(),
                                operand: self.operand(operand, interned),
                                is_number: matches!(kind, Kind::Number | Kind::Time),
                                is_time: kind == Kind::Time,
                            });
                            fields.len() - 1
                        });
                    OutputPiece::Value(index, *width)
                }
            });
        }
        // `output_fields` of an alert are in alphabetical order.
        let mut order: Vec<usize> = (0..fields.len()).collect();
        order.sort_by(|&a, &b| fields[a].spelling.cmp(&fields[b].spelling));
        for say in &mut pieces {
            if let OutputPiece::Value(index, _) = say {
                *index = order.iter().position(|at| at == index).unwrap_or(0);
            }
        }
        fields.sort_by(|a, b| a.spelling.cmp(&b.spelling));
        (pieces.into(), fields.into())
    }
}

fn constant(comparison: &Comparison, values: &[String]) -> Compare {
    let is_number = matches!(comparison.left.kind(), Kind::Number | Kind::Time);
    match (comparison.operator, comparison.quantifier) {
        (Operator::Exists, _) => Compare::Exists,
        (Operator::In | Operator::Intersects, _) if is_number => {
            Compare::NumberIn(values.iter().filter_map(|value| number::parse(value)).collect())
        }
        (Operator::In, _) => Compare::In(Texts::new(values.iter().map(String::as_str))),
        (Operator::Intersects, _) => Compare::Intersects(Texts::new(values.iter().map(String::as_str))),
        (Operator::PMatch, _) => Compare::Text(TextTest::paths(values.iter().map(String::as_str))),
        (operator, None) if is_number => match values.first().and_then(|value| number::parse(value)) {
            Some(number) => Compare::Number(operator, number),
            None => Compare::Never,
        },
        (operator, None) => match values.first() {
            Some(value) => Compare::Text(TextTest::new(operator, value)),
            None => Compare::Never,
        },
        (operator, Some(quantifier)) => Compare::Quantified(
            quantifier,
            values.iter().map(|value| TextTest::new(operator, value)).collect(),
        ),
    }
}
