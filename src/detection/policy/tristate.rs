//! Conditions with three outcomes: an event of some kind makes a comparison true, makes it false, or it depends.
//!
//! What is known is compared by the engine itself, so that both mean the same by an operator. Comparisons are judged
//! apart from each other, so that «it depends» is said too often rather than too rarely: a rule that cannot hold here
//! cannot hold at all.

use crate::detection::engine::compare::{self, Compare};
use crate::detection::engine::plan::{Plan, With};
use crate::detection::engine::transform;
use crate::detection::engine::value::Value;
use crate::detection::rules::ast::{Check, Expr, FieldRef, Operand, Operator, Piece, Rule};

use super::requests::Literals;
use crate::text::name_patterns::NamePatterns;

/// Whether something holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// It does.
    Yes,
    /// It does not.
    No,
    /// It depends on the event.
    Maybe,
}

impl Truth {
    /// Whether it can hold.
    pub fn can_hold(self) -> bool {
        self != Truth::No
    }

    fn of(holds: bool) -> Self {
        if holds { Truth::Yes } else { Truth::No }
    }
}

/// What is known of a value before the event is.
#[derive(Clone, Debug, PartialEq)]
pub enum Guess {
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

impl Guess {
    /// A text that is known.
    pub fn text(text: &str) -> Self {
        Guess::Known(Value::Text(text.as_bytes().to_vec().into()))
    }

    /// One of several texts.
    pub fn one_of(texts: &[&str]) -> Self {
        Guess::OneOf(texts.iter().map(|text| Value::Text(text.as_bytes().to_vec().into())).collect())
    }
}

/// A condition, ready to be judged many times.
#[derive(Debug)]
pub enum Condition {
    /// All of them.
    All(Vec<Condition>),
    /// Any of them.
    Any(Vec<Condition>),
    /// The opposite.
    Not(Box<Condition>),
    /// One comparison.
    Test(Box<Test>),
}

/// A comparison and its plan.
#[derive(Debug)]
pub struct Test {
    check: Check,
    plan: Plan,
}

impl Condition {
    /// Compiles a condition. Its depth is bounded by the loader.
    pub fn new(expr: &Expr) -> Self {
        match expr {
            Expr::And(parts) => Condition::All(parts.iter().map(Condition::new).collect()),
            Expr::Or(parts) => Condition::Any(parts.iter().map(Condition::new).collect()),
            Expr::Not(inner) => Condition::Not(Box::new(Condition::new(inner))),
            Expr::Macro { body, .. } | Expr::Exception { body, .. } => Condition::new(body),
            Expr::Check(check) => Condition::Test(Box::new(Test {
                check: check.clone(),
                plan: Plan::of_check(check, &NamePatterns::default()),
            })),
        }
    }

    /// Whether it holds where fields are what `guess` says.
    pub fn judge(&self, guess: &impl Fn(&FieldRef) -> Guess) -> Truth {
        match self {
            Condition::All(parts) => join(parts, Truth::No, Truth::Yes, guess),
            Condition::Any(parts) => join(parts, Truth::Yes, Truth::No, guess),
            Condition::Not(inner) => match inner.judge(guess) {
                Truth::Yes => Truth::No,
                Truth::No => Truth::Yes,
                Truth::Maybe => Truth::Maybe,
            },
            Condition::Test(test) => test.judge(guess),
        }
    }
}

fn join(parts: &[Condition], decisive: Truth, other: Truth, guess: &impl Fn(&FieldRef) -> Guess) -> Truth {
    let mut truth = other;
    for part in parts {
        match part.judge(guess) {
            one if one == decisive => return decisive,
            Truth::Maybe => truth = Truth::Maybe,
            _ => {}
        }
    }
    truth
}

impl Test {
    fn judge(&self, guess: &impl Fn(&FieldRef) -> Guess) -> Truth {
        let left = operand(&self.check.left, guess);
        match self.plan.checks.first().map(|check| &check.with) {
            Some(With::Constant(compare)) => self.with_constant(compare, &left),
            Some(With::Operand(operator, _)) => {
                let crate::detection::rules::ast::Right::Operand(right) = &self.check.right else {
                    return Truth::Maybe;
                };
                match (&left, &operand(right, guess)) {
                    (Guess::Missing, _) | (_, Guess::Missing) => Truth::No,
                    (Guess::Known(left), Guess::Known(right)) => {
                        Truth::of(compare::values(*operator, left, right))
                    }
                    _ => Truth::Maybe,
                }
            }
            None => Truth::Maybe,
        }
    }

    fn with_constant(&self, compare: &Compare, left: &Guess) -> Truth {
        let constants = self.check.right.values();
        let operator = self.check.operator;
        match left {
            Guess::Missing => Truth::No,
            Guess::Known(value) => Truth::of(compare.passes(value)),
            Guess::OneOf(values) => {
                let passing = values.iter().filter(|value| compare.passes(value)).count();
                match passing {
                    0 => Truth::No,
                    _ if passing == values.len() => Truth::Yes,
                    _ => Truth::Maybe,
                }
            }
            Guess::Unknown => Truth::Maybe,
            _ if operator == Operator::Exists => Truth::Yes,
            _ if self.check.quantifier.is_some() => Truth::Maybe,
            Guess::Other => match operator {
                Operator::Equal | Operator::In | Operator::Intersects => Truth::No,
                Operator::NotEqual => Truth::Yes,
                _ => Truth::Maybe,
            },
            Guess::StartsWith(start) => {
                let can_be = |constant: &String| constant.starts_with(start.as_str());
                match operator {
                    Operator::Equal | Operator::In | Operator::Intersects
                        if !constants.iter().any(can_be) =>
                    {
                        Truth::No
                    }
                    Operator::NotEqual if !constants.iter().any(can_be) => Truth::Yes,
                    Operator::StartsWith => match constants.first() {
                        Some(wanted) if start.starts_with(wanted.as_str()) => Truth::Yes,
                        Some(wanted) if wanted.starts_with(start.as_str()) => Truth::Maybe,
                        _ => Truth::No,
                    },
                    _ => Truth::Maybe,
                }
            }
            Guess::Has(members) => match operator {
                Operator::Intersects if members.iter().any(|member| constants.contains(member)) => Truth::Yes,
                _ => Truth::Maybe,
            },
            Guess::There => Truth::Maybe,
        }
    }
}

fn operand(operand: &Operand, guess: &impl Fn(&FieldRef) -> Guess) -> Guess {
    match operand {
        Operand::Field(field) => guess(field),
        Operand::Text(text) => Guess::text(text),
        Operand::Call { transformer, arguments, argument } => {
            let guesses: Vec<Guess> = arguments.iter().map(|operand| self::operand(operand, guess)).collect();
            let apply =
                |values: &[&Value<'static>]| transform::apply(*transformer, values, argument.as_deref());
            if guesses.contains(&Guess::Missing) {
                return Guess::Missing;
            }
            if let [Guess::OneOf(values)] = &*guesses {
                return Guess::OneOf(values.iter().map(|value| apply(&[value])).collect());
            }
            let values: Option<Vec<&Value<'static>>> = guesses
                .iter()
                .map(|guess| if let Guess::Known(value) = guess { Some(value) } else { None })
                .collect();
            values.map_or(Guess::Unknown, |values| Guess::Known(apply(&values)))
        }
    }
}

/// Calls back for every field of an operand.
fn fields_of<'r>(operand: &'r Operand, found: &mut impl FnMut(&'r FieldRef)) {
    match operand {
        Operand::Field(field) => found(field),
        Operand::Text(_) => {}
        Operand::Call { arguments, .. } => {
            for argument in arguments {
                fields_of(argument, found);
            }
        }
    }
}

fn checks_of<'r>(expr: &'r Expr, found: &mut impl FnMut(&'r Check)) {
    match expr {
        Expr::And(parts) | Expr::Or(parts) => parts.iter().for_each(|part| checks_of(part, found)),
        Expr::Not(inner) => checks_of(inner, found),
        Expr::Macro { body, .. } | Expr::Exception { body, .. } => checks_of(body, found),
        Expr::Check(check) => found(check),
    }
}

/// The fields that a rule asks for, each once, and whether its condition is among those who ask.
pub fn fields(rule: &Rule) -> Vec<(&FieldRef, bool)> {
    let mut fields: Vec<(&FieldRef, bool)> = Vec::new();
    let mut add = |field, in_condition| {
        if !fields.iter().any(|(known, _)| *known == field) {
            fields.push((field, in_condition));
        }
    };
    checks_of(&rule.condition, &mut |check| {
        fields_of(&check.left, &mut |field| add(field, true));
        if let crate::detection::rules::ast::Right::Operand(right) = &check.right {
            fields_of(right, &mut |field| add(field, true));
        }
    });
    for piece in &rule.output.pieces {
        if let Piece::Value { operand, .. } = piece {
            fields_of(operand, &mut |field| add(field, false));
        }
    }
    fields
}

/// What a condition compares literally with parts of the head of an event.
pub fn literals(rule: &Rule) -> Literals {
    let mut literals = Literals::default();
    checks_of(&rule.condition, &mut |check| {
        let Operand::Field(field) = &check.left else { return };
        let Some(path) = super::abstract_event::path(field) else { return };
        let path: Vec<&str> = path.iter().map(|key| &**key).collect();
        if !matches!(check.operator, Operator::Equal | Operator::In | Operator::Intersects) {
            return;
        }
        let list = match &*path {
            ["objectRef", "resource"] => &mut literals.resources,
            ["objectRef", "subresource"] => &mut literals.subresources,
            ["objectRef", "apiGroup"] => &mut literals.groups,
            ["objectRef", "namespace"] => &mut literals.namespaces,
            ["objectRef", "name"] => &mut literals.names,
            ["verb"] => &mut literals.verbs,
            ["user", "username"] => &mut literals.users,
            ["user", "groups"] => &mut literals.user_groups,
            _ => return,
        };
        for value in check.right.values() {
            if !list.contains(value) {
                list.push(value.clone());
            }
        }
    });
    literals
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detection::rules::{Options, SourceFile, load};

    /// Judges a condition where a field is what `guess` says, and all others may be anything.
    fn judge(condition: &str, name: &str, guess: &Guess) -> Truth {
        let text = format!("- rule: r\n  desc: d\n  condition: {condition}\n  output: x\n  priority: INFO\n");
        let loaded = load(&[SourceFile { name: "r.yaml".into(), text }], &Options::default());
        let rule = &loaded.rules.rules[0];
        let is_it = |field: &FieldRef| if field.field.name == name { guess.clone() } else { Guess::Unknown };
        Condition::new(&rule.condition).judge(&is_it)
    }

    #[test]
    fn what_is_known_decides_and_the_rest_depends() {
        let verb = |condition: &str, guess: Guess| judge(condition, "ka.verb", &guess);
        let get = || Guess::text("get");
        assert_eq!(verb("ka.verb = get", get()), Truth::Yes);
        assert_eq!(verb("ka.verb = get and ka.uri = x", get()), Truth::Maybe);
        assert_eq!(verb("ka.verb = get or ka.uri = x", get()), Truth::Yes);
        assert_eq!(verb("not ka.verb in (get, list) and ka.uri = x", get()), Truth::No);
        assert_eq!(verb("toupper(ka.verb) = GET", get()), Truth::Yes);
        assert_eq!(verb("ka.verb exists or ka.verb != x", Guess::Missing), Truth::No);
        assert_eq!(verb("not ka.verb = x", Guess::Missing), Truth::Yes);
        assert_eq!(verb("ka.verb = get", Guess::Other), Truth::No);
        assert_eq!(verb("ka.verb startswith g", Guess::Other), Truth::Maybe);
        assert_eq!(verb("ka.verb in (get, list)", Guess::one_of(&["get", "list"])), Truth::Yes);
        assert_eq!(verb("ka.verb = get", Guess::one_of(&["get", "list"])), Truth::Maybe);
        assert_eq!(verb("ka.verb = val(ka.uri)", Guess::Missing), Truth::No);
    }

    #[test]
    fn beginnings_and_members_are_enough_for_some_answers() {
        let user =
            |condition: &str| judge(condition, "ka.user.name", &Guess::StartsWith("system:node:".to_owned()));
        assert_eq!(user("ka.user.name startswith system"), Truth::Yes);
        assert_eq!(user("ka.user.name startswith system:node:a"), Truth::Maybe);
        assert_eq!(user("ka.user.name startswith kube"), Truth::No);
        assert_eq!(user("ka.user.name in (eve, adam)"), Truth::No);
        assert_eq!(user("ka.user.name contains e"), Truth::Maybe);
        let groups = |condition: &str| {
            judge(condition, "ka.user.groups", &Guess::Has(vec!["system:nodes".to_owned()]))
        };
        assert_eq!(groups("ka.user.groups intersects (system:nodes)"), Truth::Yes);
        assert_eq!(groups("ka.user.groups intersects (ops)"), Truth::Maybe);
        assert_eq!(groups("ka.user.groups in (system:nodes)"), Truth::Maybe);
    }
}
