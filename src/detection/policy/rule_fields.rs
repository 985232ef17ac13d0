//! What a rule reads: the fields of its condition and output, and the strings that it compares with the head of an event.

use super::abstract_event;
use super::requests::Literals;
use crate::detection::rules::ast::{Comparison, Expr, FieldRef, Operand, Operator, Piece, Right, Rule};

/// Calls `found` for every field of an operand.
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

fn comparisons_of<'r>(expr: &'r Expr, found: &mut impl FnMut(&'r Comparison)) {
    match expr {
        Expr::And(parts) | Expr::Or(parts) => parts.iter().for_each(|part| comparisons_of(part, found)),
        Expr::Not(inner) => comparisons_of(inner, found),
        Expr::Macro { body, .. } | Expr::Exception { body, .. } => comparisons_of(body, found),
        Expr::Comparison(comparison) => found(comparison),
    }
}

/// The distinct fields that a rule reads, with whether its condition is among the readers.
pub fn fields(rule: &Rule) -> Vec<(&FieldRef, bool)> {
    let mut fields: Vec<(&FieldRef, bool)> = Vec::new();
    let mut add = |field, in_condition| {
        if !fields.iter().any(|(known, _)| *known == field) {
            fields.push((field, in_condition));
        }
    };
    comparisons_of(&rule.condition, &mut |comparison| {
        fields_of(&comparison.left, &mut |field| add(field, true));
        if let Right::Operand(right) = &comparison.right {
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

/// The strings that a condition compares with parts of the head of an event.
pub fn literals(rule: &Rule) -> Literals {
    let mut literals = Literals::default();
    comparisons_of(&rule.condition, &mut |comparison| {
        let Operand::Field(field) = &comparison.left else { return };
        let Some(path) = abstract_event::path(field) else { return };
        let path: Vec<&str> = path.iter().map(|key| &**key).collect();
        if !matches!(comparison.operator, Operator::Equal | Operator::In | Operator::Intersects) {
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
        for value in comparison.right.values() {
            if !list.contains(value) {
                list.push(value.clone());
            }
        }
    });
    literals
}
