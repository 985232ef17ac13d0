//! Explanation of an evaluation: the condition as a tree, with the result of each part and the values compared.
//!
//! Takes a condition and an event, returns an [`Explanation`]. All values in it are redacted.

use super::evaluator::{EvalCache, EvalContext};
use super::extract::InputContext;
use super::plan::Plan;
use super::value::{Redacted, Value};
use crate::detection::audit::event::Event;
use crate::detection::audit::redact::ShowList;
use crate::detection::registry::{ClusterState, OrderDependency};
use crate::detection::rules::ast::{Comparison, Expr};
use crate::text::name_patterns::NamePatterns;

/// A part of a condition and its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    pub part: ExplainedNode,
    pub holds: bool,
}

/// A node of an evaluated condition: a logical operator, a macro, an exception or a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExplainedNode {
    And(Vec<Explanation>),
    Or(Vec<Explanation>),
    Not(Box<Explanation>),
    Macro(String, Box<Explanation>),
    /// An exception: if it holds, the rule does not match.
    Exception(String, Box<Explanation>),
    Comparison {
        /// The comparison as written, with lists and macros expanded.
        comparison: String,
        /// The redacted value of the left-hand side; `None` if the event has none.
        left: Option<String>,
        /// The redacted value of the right-hand side, if that is a field.
        right: Option<String>,
    },
}

/// The inputs of an explanation other than the condition and the event.
#[derive(Clone, Copy)]
pub struct ExplainContext<'b> {
    /// Name patterns of registry credentials.
    pub names: &'b NamePatterns,
    /// State learned from earlier events.
    pub cluster_state: &'b ClusterState,
    pub input: InputContext<'b>,
}

/// Explains the evaluation of a condition. The loader bounds the recursion depth.
pub fn explain(condition: &Expr, event: &mut Event<'_>, context: ExplainContext<'_>) -> Explanation {
    let all = |parts: &[Expr], event: &mut Event<'_>| -> Vec<Explanation> {
        parts.iter().map(|part| explain(part, event, context)).collect()
    };
    let boxed = |part: &Expr, event: &mut Event<'_>| Box::new(explain(part, event, context));
    let (part, holds) = match condition {
        Expr::And(parts) => {
            let parts = all(parts, event);
            let holds = parts.iter().all(|part| part.holds);
            (ExplainedNode::And(parts), holds)
        }
        Expr::Or(parts) => {
            let parts = all(parts, event);
            let holds = parts.iter().any(|part| part.holds);
            (ExplainedNode::Or(parts), holds)
        }
        Expr::Not(inner) => {
            let inner = boxed(inner, event);
            let holds = !inner.holds;
            (ExplainedNode::Not(inner), holds)
        }
        Expr::Macro { name, body } => {
            let body = boxed(body, event);
            let holds = body.holds;
            (ExplainedNode::Macro(name.to_string(), body), holds)
        }
        Expr::Exception { name, body } => {
            let body = boxed(body, event);
            let holds = body.holds;
            (ExplainedNode::Exception(name.to_string(), body), holds)
        }
        Expr::Comparison(comparison) => self::comparison(comparison, event, context),
    };
    Explanation { part, holds }
}

/// Evaluates one comparison with its own plan, so that an explanation shows what the engine does.
fn comparison(
    comparison: &Comparison,
    event: &mut Event<'_>,
    context: ExplainContext<'_>,
) -> (ExplainedNode, bool) {
    let plan = Plan::for_comparison(comparison, context.names);
    let mut cache = EvalCache::new(&plan);
    // Each comparison evaluates the event again, so it updates a copy of the state.
    let mut cluster_state = context.cluster_state.clone();
    let cluster_state = OrderDependency::of(event).applies_to(event).then_some(&mut cluster_state);
    let mut eval = EvalContext {
        plan: &plan,
        cache: &mut cache,
        event,
        input: context.input,
        cluster_state,
        window: None,
    };
    eval.exposure();
    let holds = eval.passes(0);
    let (left, right) = plan.operands_in(0);
    let saw = text(&eval.redacted(left, &ShowList::EMPTY));
    let against = right.and_then(|right| text(&eval.redacted(right, &ShowList::EMPTY)));
    (ExplainedNode::Comparison { comparison: comparison.to_string(), left: saw, right: against }, holds)
}

fn text(value: &Redacted<'_>) -> Option<String> {
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
