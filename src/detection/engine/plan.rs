//! A rule set, compiled: what to read, what to compare, in which order.
//!
//! Equal operands and equal comparisons of all rules are one, so that each is judged once per event. In a
//! conjunction the comparison that is cheapest to know comes first.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::compare::{Compare, TextTest, Texts};
use super::extract::Access;
use crate::detection::alert::Priority;
use crate::detection::rules::ast::{
    Bounds, Check, CorrelationKind, Expr, Feed, FieldRef, Operand, Operator, Piece, Right, Rule, RuleSet,
    Template, Transformer,
};
use crate::detection::rules::fields::{Correlation, Field, Kind, Registry, Source};
use crate::detection::rules::number;
use crate::text::name_patterns::NamePatterns;

/// Index of an operand in its plan.
pub type OperandId = usize;
/// Index of a comparison in its plan.
pub type CheckId = usize;

/// How to get a value.
#[derive(Debug)]
pub enum OperandPlan {
    /// From the event.
    Field(Access),
    /// From what the event exposed.
    Registry(Registry),
    /// From what a correlation saw.
    Correlation(Correlation),
    /// A constant.
    Text(Box<[u8]>),
    /// From other values.
    Call(Transformer, Box<[OperandId]>, Option<String>),
}

/// How to judge a comparison.
#[derive(Debug)]
pub struct CheckPlan {
    /// What is compared.
    pub left: OperandId,
    /// With what.
    pub with: With,
    /// Known from the few members that decide which rules an event can match at all.
    pub is_head: bool,
}

/// The right-hand side of a comparison.
#[derive(Debug)]
pub enum With {
    /// Constants.
    Constant(Compare),
    /// Another value.
    Operand(Operator, OperandId),
}

/// A condition over comparisons.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// Always so.
    Known(bool),
    /// A comparison.
    Check(CheckId),
    /// The opposite.
    Not(Box<Node>),
    /// All of them.
    All(Box<[Node]>),
    /// Any of them.
    Any(Box<[Node]>),
}

/// A piece of an output.
#[derive(Debug)]
pub enum Say {
    /// As it is.
    Text(Box<str>),
    /// The value of [`RulePlan::shown`] at this index, padded or cut to a width.
    Value(usize, Option<usize>),
}

/// A value that a rule's alerts show.
#[derive(Debug)]
pub struct Shown {
    /// Its key in `output_fields`.
    pub spelling: String,
    /// How to get it.
    pub operand: OperandId,
    /// Whether JSON has it as a number.
    pub is_number: bool,
    /// Whether it is the event's time, which text prints as a clock and JSON as nanoseconds.
    pub is_time: bool,
}

/// One rule.
#[derive(Debug)]
pub struct RulePlan {
    /// Its index in the rule set.
    pub index: usize,
    /// Its name.
    pub name: Arc<str>,
    /// The version of its rule set.
    pub rule_set: Arc<str>,
    /// How bad a match is.
    pub priority: Priority,
    /// When it matches.
    pub condition: Node,
    /// What an alert says.
    pub output: Box<[Say]>,
    /// The values in it, by spelling, each once.
    pub shown: Box<[Shown]>,
    /// Its tags, sorted.
    pub tags: Vec<String>,
    /// How often it may alert.
    pub throttle: Option<ThrottlePlan>,
    /// The correlations that its matches feed.
    pub feeds: Vec<FeedPlan>,
    /// It only feeds correlations, since it is less bad than what is asked for.
    pub is_silent: bool,
}

impl RulePlan {
    /// Whether its matches have to be seen in the order of the input.
    pub fn is_in_order(&self) -> bool {
        self.throttle.is_some() || !self.feeds.is_empty()
    }
}

/// How often a rule may alert.
#[derive(Debug)]
pub struct ThrottlePlan {
    /// Whose values make a combination that is told once.
    pub per: Box<[OperandId]>,
    /// For how long it is not told again, in nanoseconds.
    pub every: i64,
}

/// Where matches go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedPlan {
    /// Index of the correlation in the plan.
    pub correlation: usize,
    /// Which of its rules they are matches of.
    pub source: usize,
}

/// One correlation.
#[derive(Debug)]
pub struct CorrelationPlan {
    /// Its alert, as that of a rule that no event matches. Its index follows those of the rules.
    pub alert: RulePlan,
    /// What it looks for.
    pub kind: CorrelationKind,
    /// How long a window is, in nanoseconds.
    pub timespan: i64,
    /// How many there must be.
    pub bounds: Bounds,
    /// Matches with equal values of these belong together.
    pub group_by: Box<[OperandId]>,
    /// Whose values are counted.
    pub field: Option<OperandId>,
    /// The names of its rules.
    pub sources: Box<[Arc<str>]>,
}

/// Members that decide which rules an event can match at all: they stand early, have few values, and nearly
/// every rule asks for them.
pub const HEAD: [&[&str]; 4] =
    [&["stage"], &["verb"], &["objectRef", "resource"], &["objectRef", "subresource"]];

/// A compiled rule set.
#[derive(Debug, Default)]
pub struct Plan {
    /// Every operand once. Those inside a call come before it.
    pub operands: Vec<OperandPlan>,
    /// Every comparison once.
    pub checks: Vec<CheckPlan>,
    /// The rules in load order.
    pub rules: Vec<RulePlan>,
    /// The correlations, each after those that feed it.
    pub correlations: Vec<CorrelationPlan>,
    /// Whether a rule asks for the event's position in the input.
    pub needs_positions: bool,
    /// Whether a rule asks for what is known of registry credentials: then events that teach it have to be judged in
    /// their order.
    pub needs_cluster_state: bool,
    /// Names that registry credentials go by.
    pub names: NamePatterns,
    /// The rule set's version.
    version: Arc<str>,
    costs: Vec<u32>,
}

/// What is needed for the alerts that are asked for.
struct Wanted {
    /// Indices of rules.
    rules: Vec<usize>,
    /// Indices of correlations.
    correlations: Vec<usize>,
}

impl Wanted {
    /// What is enabled and at least as bad as `minimum`, and what feeds that.
    fn of(rules: &RuleSet, minimum: Priority) -> Self {
        let mut is_fed: HashSet<Feed> = HashSet::new();
        let mut correlations = Vec::new();
        // Each comes after those that feed it.
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
        Wanted { rules, correlations }
    }
}

/// Finds what was compiled before.
#[derive(Default)]
struct Known<'a> {
    operands: HashMap<&'a Operand, OperandId>,
    checks: HashMap<&'a Check, CheckId>,
}

impl Plan {
    /// Compiles the rules that are enabled and at least as bad as `minimum`.
    pub fn new(rules: &RuleSet, minimum: Priority) -> Self {
        let names = rules.credential_names.clone();
        let mut plan = Plan { names, version: rules.version.clone(), ..Plan::default() };
        let mut known = Known::default();
        let wanted = Wanted::of(rules, minimum);
        // Where each correlation and each of its rules will stand.
        let mut feeds: HashMap<Feed, Vec<FeedPlan>> = HashMap::new();
        for (at, &index) in wanted.correlations.iter().enumerate() {
            for (source, &feed) in rules.correlations[index].feeds.iter().enumerate() {
                feeds.entry(feed).or_default().push(FeedPlan { correlation: at, source });
            }
        }
        for &index in &wanted.rules {
            let rule = &rules.rules[index];
            let mut planned = plan.rule(index, rule, &mut known);
            planned.feeds = feeds.remove(&Feed::Rule(index)).unwrap_or_default();
            planned.is_silent = rule.priority > minimum;
            plan.rules.push(planned);
        }
        for &index in &wanted.correlations {
            let correlation = &rules.correlations[index];
            let mut planned = plan.correlation(rules, index, &mut known);
            planned.alert.feeds = feeds.remove(&Feed::Correlation(index)).unwrap_or_default();
            planned.alert.is_silent = correlation.priority > minimum;
            plan.correlations.push(planned);
        }
        plan
    }

    /// Compiles one comparison, as number 0.
    pub fn of_check(check: &Check, names: &NamePatterns) -> Self {
        let mut plan = Plan { names: names.clone(), ..Plan::default() };
        plan.check(check, &mut Known::default());
        plan
    }

    /// What a comparison compares.
    pub fn operands_of(&self, check: CheckId) -> (OperandId, Option<OperandId>) {
        let check = &self.checks[check];
        match check.with {
            With::Constant(_) => (check.left, None),
            With::Operand(_, right) => (check.left, Some(right)),
        }
    }

    fn rule<'a>(&mut self, index: usize, rule: &'a Rule, known: &mut Known<'a>) -> RulePlan {
        let condition = self.node(&rule.condition, known);
        let (output, shown) = self.output(&rule.output, known);
        let throttle = rule.throttle.as_ref().map(|throttle| ThrottlePlan {
            per: throttle.per.iter().map(|operand| self.operand(operand, known)).collect(),
            every: throttle.every,
        });
        RulePlan {
            index,
            name: rule.name.clone(),
            rule_set: self.version.clone(),
            priority: rule.priority,
            condition,
            output,
            shown,
            tags: rule.tags.clone(),
            throttle,
            feeds: Vec::new(),
            is_silent: false,
        }
    }

    fn correlation<'a>(
        &mut self,
        rules: &'a RuleSet,
        index: usize,
        known: &mut Known<'a>,
    ) -> CorrelationPlan {
        let correlation = &rules.correlations[index];
        let (output, shown) = self.output(&correlation.output, known);
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
                condition: Node::Known(false),
                output,
                shown,
                tags: correlation.tags.clone(),
                throttle: None,
                feeds: Vec::new(),
                is_silent: false,
            },
            kind: correlation.kind,
            timespan: correlation.timespan,
            bounds: correlation.bounds,
            group_by: correlation.group_by.iter().map(|operand| self.operand(operand, known)).collect(),
            field: correlation.field.as_ref().map(|operand| self.operand(operand, known)),
            sources: correlation.feeds.iter().map(name).collect(),
        }
    }

    /// Compiles a condition. Its depth is bounded by the loader.
    fn node<'a>(&mut self, expr: &'a Expr, known: &mut Known<'a>) -> Node {
        match expr {
            Expr::Check(check) => Node::Check(self.check(check, known)),
            Expr::Not(inner) => Node::Not(Box::new(self.node(inner, known))),
            Expr::And(children) | Expr::Or(children) => {
                let is_and = matches!(expr, Expr::And(_));
                let mut nodes: Vec<Node> = Vec::new();
                for child in children {
                    match self.node(child, known) {
                        // A conjunction in a conjunction is one, and so with disjunctions.
                        Node::All(inner) if is_and => nodes.extend(inner),
                        Node::Any(inner) if !is_and => nodes.extend(inner),
                        node => nodes.push(node),
                    }
                }
                nodes.sort_by_key(|node| self.cost(node));
                if is_and { Node::All(nodes.into()) } else { Node::Any(nodes.into()) }
            }
            Expr::Macro { body, .. } | Expr::Exception { body, .. } => self.node(body, known),
        }
    }

    fn cost(&self, node: &Node) -> u32 {
        match node {
            Node::Known(_) => 0,
            Node::Check(check) => self.costs[*check],
            Node::Not(inner) => self.cost(inner),
            Node::All(nodes) | Node::Any(nodes) => {
                nodes.iter().map(|node| self.cost(node)).max().unwrap_or(0)
            }
        }
    }

    fn check<'a>(&mut self, check: &'a Check, known: &mut Known<'a>) -> CheckId {
        if let Some(&id) = known.checks.get(check) {
            return id;
        }
        let left = self.operand(&check.left, known);
        let with = match &check.right {
            Right::Operand(operand) => With::Operand(check.operator, self.operand(operand, known)),
            Right::Nothing => With::Constant(Compare::Exists),
            Right::Text(text) => With::Constant(constant(check, std::slice::from_ref(text))),
            Right::List(texts) => With::Constant(constant(check, texts)),
        };
        let is_head = matches!(with, With::Constant(_))
            && matches!(&self.operands[left], OperandPlan::Field(access)
                if access.plain_path().is_some_and(|path| HEAD.contains(&&*path)));
        let mut cost = self.operand_cost(left);
        if let With::Operand(_, right) = with {
            cost = cost.max(self.operand_cost(right));
        }
        self.checks.push(CheckPlan { left, with, is_head });
        self.costs.push(cost);
        known.checks.insert(check, self.checks.len() - 1);
        self.checks.len() - 1
    }

    fn operand<'a>(&mut self, operand: &'a Operand, known: &mut Known<'a>) -> OperandId {
        if let Some(&id) = known.operands.get(operand) {
            return id;
        }
        let plan = match operand {
            Operand::Field(FieldRef { field: Field { source: Source::Registry(part), .. }, .. }) => {
                self.needs_cluster_state |=
                    !matches!(part, Registry::ByType | Registry::Copied | Registry::ImageHosts);
                OperandPlan::Registry(*part)
            }
            Operand::Field(FieldRef { field: Field { source: Source::Correlation(part), .. }, .. }) => {
                OperandPlan::Correlation(*part)
            }
            Operand::Field(field) => {
                self.needs_positions |= field.field.source == Source::Position;
                OperandPlan::Field(Access::new(field))
            }
            Operand::Text(text) => OperandPlan::Text(text.as_bytes().into()),
            Operand::Call { transformer, arguments, argument } => {
                let arguments = arguments.iter().map(|argument| self.operand(argument, known)).collect();
                OperandPlan::Call(*transformer, arguments, argument.clone())
            }
        };
        self.operands.push(plan);
        known.operands.insert(operand, self.operands.len() - 1);
        self.operands.len() - 1
    }

    /// How far an event must be read to know an operand, roughly.
    fn operand_cost(&self, operand: OperandId) -> u32 {
        match &self.operands[operand] {
            OperandPlan::Text(_) => 0,
            // These may open the objects.
            OperandPlan::Registry(
                Registry::Copied
                | Registry::Referenced
                | Registry::Granted
                | Registry::ImageHosts
                | Registry::PodSecurity,
            )
            | OperandPlan::Correlation(_) => 7,
            // These are worked out once for all rules.
            OperandPlan::Registry(_) => 5,
            OperandPlan::Call(_, arguments, _) => {
                arguments.iter().map(|&argument| self.operand_cost(argument)).max().unwrap_or(0) + 1
            }
            OperandPlan::Field(access) if access.is_of_user() => 2,
            OperandPlan::Field(access) => match access.plain_path().as_deref() {
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

    fn output<'a>(&mut self, template: &'a Template, known: &mut Known<'a>) -> (Box<[Say]>, Box<[Shown]>) {
        let mut shown: Vec<Shown> = Vec::new();
        let mut says = Vec::new();
        for piece in &template.pieces {
            says.push(match piece {
                Piece::Text(text) => Say::Text(text.as_str().into()),
                Piece::Value { operand, spelling, width } => {
                    let index = shown.iter().position(|one| one.spelling == *spelling).unwrap_or_else(|| {
                        let kind = operand.kind();
                        shown.push(Shown {
                            spelling: spelling.clone(),
                            operand: self.operand(operand, known),
                            is_number: matches!(kind, Kind::Number | Kind::Time),
                            is_time: kind == Kind::Time,
                        });
                        shown.len() - 1
                    });
                    Say::Value(index, *width)
                }
            });
        }
        // `output_fields` are in alphabetical order.
        let mut order: Vec<usize> = (0..shown.len()).collect();
        order.sort_by(|&a, &b| shown[a].spelling.cmp(&shown[b].spelling));
        for say in &mut says {
            if let Say::Value(index, _) = say {
                *index = order.iter().position(|at| at == index).unwrap_or(0);
            }
        }
        shown.sort_by(|a, b| a.spelling.cmp(&b.spelling));
        (says.into(), shown.into())
    }
}

fn constant(check: &Check, values: &[String]) -> Compare {
    let is_number = matches!(check.left.kind(), Kind::Number | Kind::Time);
    match (check.operator, check.quantifier) {
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
