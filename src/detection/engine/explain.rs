//! Why a rule fires on an event, or does not: its condition as a tree, each comparison with the value it saw.

use super::evaluator::{Case, Sight};
use super::extract::Context;
use super::plan::Plan;
use super::value::{Shown, Value};
use crate::detection::audit::event::Event;
use crate::detection::registry::{ClusterState, OrderDependency};
use crate::detection::rules::ast::{Check, Expr};
use crate::text::name_patterns::NamePatterns;

/// A part of a condition and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What it is.
    pub part: Part,
    /// Whether it holds.
    pub holds: bool,
}

/// What a part of a condition is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of these.
    And(Vec<Explanation>),
    /// Any of these.
    Or(Vec<Explanation>),
    /// Not this.
    Not(Box<Explanation>),
    /// A macro.
    Macro(String, Box<Explanation>),
    /// An exception; where it holds the rule does not fire.
    Exception(String, Box<Explanation>),
    /// A comparison.
    Check {
        /// As it is written, with lists and constants in place.
        comparison: String,
        /// The value on its left side, with secrets hidden; nothing where the event has none.
        saw: Option<String>,
        /// The value on its right side, where that is a field.
        against: Option<String>,
    },
}

/// What an event is explained by.
#[derive(Clone, Copy)]
pub struct Background<'b> {
    /// Names that registry credentials go by.
    pub names: &'b NamePatterns,
    /// What the events before it taught.
    pub cluster_state: &'b ClusterState,
    /// What is known beside its text.
    pub context: Context<'b>,
}

/// Explains a condition. Recursion is bounded by the loader.
pub fn explain(condition: &Expr, event: &mut Event<'_>, background: Background<'_>) -> Explanation {
    let all = |parts: &[Expr], event: &mut Event<'_>| -> Vec<Explanation> {
        parts.iter().map(|part| explain(part, event, background)).collect()
    };
    let boxed = |part: &Expr, event: &mut Event<'_>| Box::new(explain(part, event, background));
    let (part, holds) = match condition {
        Expr::And(parts) => {
            let parts = all(parts, event);
            let holds = parts.iter().all(|part| part.holds);
            (Part::And(parts), holds)
        }
        Expr::Or(parts) => {
            let parts = all(parts, event);
            let holds = parts.iter().any(|part| part.holds);
            (Part::Or(parts), holds)
        }
        Expr::Not(inner) => {
            let inner = boxed(inner, event);
            let holds = !inner.holds;
            (Part::Not(inner), holds)
        }
        Expr::Macro { name, body } => {
            let body = boxed(body, event);
            let holds = body.holds;
            (Part::Macro(name.to_string(), body), holds)
        }
        Expr::Exception { name, body } => {
            let body = boxed(body, event);
            let holds = body.holds;
            (Part::Exception(name.to_string(), body), holds)
        }
        Expr::Check(check) => self::check(check, event, background),
    };
    Explanation { part, holds }
}

/// Judges one comparison by a plan of its own, so that an explanation says what the engine does.
fn check(check: &Check, event: &mut Event<'_>, background: Background<'_>) -> (Part, bool) {
    let plan = Plan::of_check(check, background.names);
    let mut sight = Sight::new(&plan);
    // Each comparison sees the event for the first time, and what it teaches stays with it.
    let mut cluster_state = background.cluster_state.clone();
    let cluster_state = OrderDependency::of(event).applies_to(event).then_some(&mut cluster_state);
    let mut case = Case {
        plan: &plan,
        sight: &mut sight,
        event,
        context: background.context,
        cluster_state,
        window: None,
    };
    case.exposure();
    let holds = case.passes(0);
    let (left, right) = plan.operands_of(0);
    let saw = text(&case.shown(left));
    let against = right.and_then(|right| text(&case.shown(right)));
    (Part::Check { comparison: check.to_string(), saw, against }, holds)
}

fn text(value: &Shown<'_>) -> Option<String> {
    let quoted = |text: &[u8]| format!("{:?}", String::from_utf8_lossy(text));
    match value.value() {
        Value::Missing => None,
        Value::Number(number) => Some(number.to_string()),
        Value::Text(text) => Some(quoted(text)),
        Value::List(texts) => {
            Some(format!("({})", texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", ")))
        }
    }
}
