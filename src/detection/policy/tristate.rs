//! Three-valued evaluation of conditions over events that do not exist yet.
//!
//! Known values are compared by the engine itself, so that an operator means the same in both. Comparisons are evaluated
//! independently of each other, so the result is unknown more often than necessary, but never wrong: a condition that is
//! false here cannot hold for any such event.

use crate::detection::engine::compare::{self, Compare};
use crate::detection::engine::plan::{Plan, RightPlan};
use crate::detection::engine::transform;
use crate::detection::engine::value::Value;
use crate::detection::rules::ast::{Comparison, Expr, FieldRef, Operand, Operator, Right};

use super::abstract_value::AbstractValue;
use crate::text::name_patterns::NamePatterns;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tristate {
    True,
    False,
    /// It depends on the event.
    Unknown,
}

impl Tristate {
    pub fn can_hold(self) -> bool {
        self != Tristate::False
    }

    fn of(holds: bool) -> Self {
        if holds { Tristate::True } else { Tristate::False }
    }
}

/// The condition of a rule, compiled for three-valued evaluation.
#[derive(Debug)]
pub enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Not(Box<Condition>),
    Test(Box<Test>),
}

/// A comparison and its plan.
#[derive(Debug)]
pub struct Test {
    comparison: Comparison,
    plan: Plan,
}

impl Condition {
    /// Compiles a condition. The loader bounds its depth.
    pub fn new(expr: &Expr) -> Self {
        match expr {
            Expr::And(parts) => Condition::All(parts.iter().map(Condition::new).collect()),
            Expr::Or(parts) => Condition::Any(parts.iter().map(Condition::new).collect()),
            Expr::Not(inner) => Condition::Not(Box::new(Condition::new(inner))),
            Expr::Macro { body, .. } | Expr::Exception { body, .. } => Condition::new(body),
            Expr::Comparison(comparison) => Condition::Test(Box::new(Test {
                comparison: comparison.clone(),
                plan: Plan::for_comparison(comparison, &NamePatterns::default()),
            })),
        }
    }

    /// Evaluates the condition with the values that `value_of` gives for fields.
    pub fn evaluate(&self, value_of: &impl Fn(&FieldRef) -> AbstractValue) -> Tristate {
        match self {
            Condition::All(parts) => join(parts, Tristate::False, Tristate::True, value_of),
            Condition::Any(parts) => join(parts, Tristate::True, Tristate::False, value_of),
            Condition::Not(inner) => match inner.evaluate(value_of) {
                Tristate::True => Tristate::False,
                Tristate::False => Tristate::True,
                Tristate::Unknown => Tristate::Unknown,
            },
            Condition::Test(test) => test.evaluate(value_of),
        }
    }
}

fn join(
    parts: &[Condition],
    decisive: Tristate,
    other: Tristate,
    value_of: &impl Fn(&FieldRef) -> AbstractValue,
) -> Tristate {
    let mut truth = other;
    for part in parts {
        match part.evaluate(value_of) {
            one if one == decisive => return decisive,
            Tristate::Unknown => truth = Tristate::Unknown,
            _ => {}
        }
    }
    truth
}

impl Test {
    fn evaluate(&self, value_of: &impl Fn(&FieldRef) -> AbstractValue) -> Tristate {
        let left = operand(&self.comparison.left, value_of);
        match self.plan.comparisons.first().map(|comparison| &comparison.right) {
            Some(RightPlan::Constant(compare)) => self.with_constant(compare, &left),
            Some(RightPlan::Operand(operator, _)) => {
                let Right::Operand(right) = &self.comparison.right else {
                    return Tristate::Unknown;
                };
                match (&left, &operand(right, value_of)) {
                    (AbstractValue::Missing, _) | (_, AbstractValue::Missing) => Tristate::False,
                    (AbstractValue::Known(left), AbstractValue::Known(right)) => {
                        Tristate::of(compare::values(*operator, left, right))
                    }
                    _ => Tristate::Unknown,
                }
            }
            None => Tristate::Unknown,
        }
    }

    fn with_constant(&self, compare: &Compare, left: &AbstractValue) -> Tristate {
        let constants = self.comparison.right.values();
        let operator = self.comparison.operator;
        match left {
            AbstractValue::Missing => Tristate::False,
            AbstractValue::Known(value) => Tristate::of(compare.passes(value)),
            AbstractValue::OneOf(values) => {
                let passing = values.iter().filter(|value| compare.passes(value)).count();
                match passing {
                    0 => Tristate::False,
                    _ if passing == values.len() => Tristate::True,
                    _ => Tristate::Unknown,
                }
            }
            AbstractValue::Unknown => Tristate::Unknown,
            _ if operator == Operator::Exists => Tristate::True,
            _ if self.comparison.quantifier.is_some() => Tristate::Unknown,
            AbstractValue::Other => match operator {
                Operator::Equal | Operator::In | Operator::Intersects => Tristate::False,
                Operator::NotEqual => Tristate::True,
                _ => Tristate::Unknown,
            },
            AbstractValue::StartsWith(start) => {
                let can_be = |constant: &String| constant.starts_with(start.as_str());
                match operator {
                    Operator::Equal | Operator::In | Operator::Intersects
                        if !constants.iter().any(can_be) =>
                    {
                        Tristate::False
                    }
                    Operator::NotEqual if !constants.iter().any(can_be) => Tristate::True,
                    Operator::StartsWith => match constants.first() {
                        Some(wanted) if start.starts_with(wanted.as_str()) => Tristate::True,
                        Some(wanted) if wanted.starts_with(start.as_str()) => Tristate::Unknown,
                        _ => Tristate::False,
                    },
                    _ => Tristate::Unknown,
                }
            }
            AbstractValue::Has(members) => match operator {
                Operator::Intersects if members.iter().any(|member| constants.contains(member)) => {
                    Tristate::True
                }
                _ => Tristate::Unknown,
            },
            AbstractValue::There => Tristate::Unknown,
        }
    }
}

fn operand(operand: &Operand, value_of: &impl Fn(&FieldRef) -> AbstractValue) -> AbstractValue {
    match operand {
        Operand::Field(field) => value_of(field),
        Operand::Text(text) => AbstractValue::text(text),
        Operand::Call { transformer, arguments, argument } => {
            let guesses: Vec<AbstractValue> =
                arguments.iter().map(|operand| self::operand(operand, value_of)).collect();
            let apply =
                |values: &[&Value<'static>]| transform::apply(*transformer, values, argument.as_deref());
            if guesses.contains(&AbstractValue::Missing) {
                return AbstractValue::Missing;
            }
            if let [AbstractValue::OneOf(values)] = &*guesses {
                return AbstractValue::OneOf(values.iter().map(|value| apply(&[value])).collect());
            }
            let values: Option<Vec<&Value<'static>>> = guesses
                .iter()
                .map(|known| if let AbstractValue::Known(value) = known { Some(value) } else { None })
                .collect();
            values.map_or(AbstractValue::Unknown, |values| AbstractValue::Known(apply(&values)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detection::rules::{Options, SourceFile, load};

    /// Evaluates a condition in which one field has a known value and all others may have any.
    fn evaluate(condition: &str, name: &str, value: &AbstractValue) -> Tristate {
        let text = format!("- rule: r\n  desc: d\n  condition: {condition}\n  output: x\n  priority: INFO\n");
        let loaded = load(&[SourceFile { name: "r.yaml".into(), text }], &Options::default());
        let rule = &loaded.rules.rules[0];
        let is_it =
            |field: &FieldRef| if field.field.name == name { value.clone() } else { AbstractValue::Unknown };
        Condition::new(&rule.condition).evaluate(&is_it)
    }

    #[test]
    fn known_values_decide_and_others_are_unknown() {
        let verb = |condition: &str, value: AbstractValue| evaluate(condition, "ka.verb", &value);
        let get = || AbstractValue::text("get");
        assert_eq!(verb("ka.verb = get", get()), Tristate::True);
        assert_eq!(verb("ka.verb = get and ka.uri = x", get()), Tristate::Unknown);
        assert_eq!(verb("ka.verb = get or ka.uri = x", get()), Tristate::True);
        assert_eq!(verb("not ka.verb in (get, list) and ka.uri = x", get()), Tristate::False);
        assert_eq!(verb("toupper(ka.verb) = GET", get()), Tristate::True);
        assert_eq!(verb("ka.verb exists or ka.verb != x", AbstractValue::Missing), Tristate::False);
        assert_eq!(verb("not ka.verb = x", AbstractValue::Missing), Tristate::True);
        assert_eq!(verb("ka.verb = get", AbstractValue::Other), Tristate::False);
        assert_eq!(verb("ka.verb startswith g", AbstractValue::Other), Tristate::Unknown);
        assert_eq!(verb("ka.verb in (get, list)", AbstractValue::one_of(&["get", "list"])), Tristate::True);
        assert_eq!(verb("ka.verb = get", AbstractValue::one_of(&["get", "list"])), Tristate::Unknown);
        assert_eq!(verb("ka.verb = val(ka.uri)", AbstractValue::Missing), Tristate::False);
    }

    #[test]
    fn prefixes_and_members_decide_some_comparisons() {
        let user = |condition: &str| {
            evaluate(condition, "ka.user.name", &AbstractValue::StartsWith("system:node:".to_owned()))
        };
        assert_eq!(user("ka.user.name startswith system"), Tristate::True);
        assert_eq!(user("ka.user.name startswith system:node:a"), Tristate::Unknown);
        assert_eq!(user("ka.user.name startswith kube"), Tristate::False);
        assert_eq!(user("ka.user.name in (eve, adam)"), Tristate::False);
        assert_eq!(user("ka.user.name contains e"), Tristate::Unknown);
        let groups = |condition: &str| {
            evaluate(condition, "ka.user.groups", &AbstractValue::Has(vec!["system:nodes".to_owned()]))
        };
        assert_eq!(groups("ka.user.groups intersects (system:nodes)"), Tristate::True);
        assert_eq!(groups("ka.user.groups intersects (ops)"), Tristate::Unknown);
        assert_eq!(groups("ka.user.groups in (system:nodes)"), Tristate::Unknown);
    }
}
