//! Warnings about valid conditions that are probably not what the author intended.

use super::ast::{self, Expr, Operand, Operator, Right, Rule, Transformer};
use super::syntax::{self, Syntax};
use crate::detection::rules::fields::{self, Source};
use crate::text::diagnostics::{Diagnostic, Span};
use crate::text::located::Located;

/// All stages of an audit event.
const STAGES: [&str; 4] = ["RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"];

fn never(why: impl Into<String>, span: Span) -> Diagnostic {
    Diagnostic::warning("never-true", why, span).label("never true")
}

/// Returns the member of the event that an operand reads, as a JSON pointer.
fn pointer(operand: &Operand) -> Option<String> {
    let Operand::Field(field) = operand else { return None };
    match (field.field.source, &field.argument) {
        (Source::Path(keys), _) => Some(format!("/{}", keys.join("/"))),
        (Source::Pointer, Some(ast::FieldArgument::Key(key))) => Some(key.clone()),
        _ => None,
    }
}

/// Returns warnings about a single comparison.
pub fn comparison(
    written: &syntax::Comparison,
    comparison: &ast::Comparison,
    text: &Located,
) -> Vec<Diagnostic> {
    let span = || text.span(&written.range);
    let mut found = Vec::new();
    let values = comparison.right.values();
    let is_equality = matches!(comparison.operator, Operator::Equal | Operator::In | Operator::Intersects);
    if matches!(&comparison.right, Right::List(values) if values.is_empty())
        && comparison.quantifier.is_none()
        && is_literally_empty(written)
    {
        found.push(never("a comparison with an empty list is always false", span()));
    }
    if is_equality && !values.is_empty() {
        let place = pointer(&comparison.left);
        let all = |wrong: &dyn Fn(&str) -> bool| values.iter().all(|value| wrong(value));
        match place.as_deref() {
            Some("/stage") if all(&|value| !STAGES.contains(&value)) => {
                found.push(
                    never("unknown stage", span()).help(format!("the stages are {}", STAGES.join(", "))),
                );
            }
            Some("/verb") if all(&|value| value.chars().any(|letter| letter.is_ascii_uppercase())) => {
                found.push(
                    never("verbs are in lower case", span())
                        .help("get, list, watch, create, update, patch, delete, deletecollection"),
                );
            }
            Some("/objectRef/resource")
                if all(&|value| value.chars().any(|letter| letter.is_ascii_uppercase())) =>
            {
                found.push(
                    never("resources are in lower case, in the plural", span())
                        .help("secrets, pods, configmaps …"),
                );
            }
            _ => {}
        }
        if let Operand::Call { transformer, .. } = &comparison.left {
            let wrong = match transformer {
                Transformer::ToLower => all(&|value| value.chars().any(|letter| letter.is_ascii_uppercase())),
                Transformer::ToUpper => all(&|value| value.chars().any(|letter| letter.is_ascii_lowercase())),
                _ => false,
            };
            if wrong {
                found.push(never(
                    format!(
                        "`{}` changes the case, and the value contains letters of the other case",
                        transformer.name()
                    ),
                    span(),
                ));
            }
        }
    }
    if let Operand::Call {
        transformer: Transformer::ToLower | Transformer::ToUpper | Transformer::Basename,
        arguments,
        ..
    } = &comparison.left
        && let Some(argument) = arguments.first()
        && argument.kind() == fields::Kind::List
    {
        found.push(
            never("this function takes a string, not a list", span())
                .help("compare the list itself, or join() it first"),
        );
    }
    if comparison.left.kind() == fields::Kind::Number
        && let [value] = values
        && let Some(number) = super::number::parse(value)
    {
        let impossible = match comparison.operator {
            Operator::Less => number <= 0.0,
            Operator::LessOrEqual | Operator::Equal => number < 0.0,
            _ => false,
        };
        if impossible {
            found.push(never("this number is never negative", span()));
        }
    }
    if let (syntax::Right::Word(word), Right::Text(value)) = (&written.right, &comparison.right)
        && !word.quoted
        && fields::find(value).is_some()
    {
        let message = format!("this compares with the string \"{value}\", not with the field");
        found.push(
            Diagnostic::warning("field-as-text", message, text.span(&word.range))
                .label("read as a string")
                .help(format!("for the field write `val({value})`; for the string put it in quotes")),
        );
    }
    if comparison.operator == Operator::Regex
        && comparison.quantifier.is_none()
        && let [pattern] = values
        && let Some(simpler) = simpler(pattern)
    {
        found.push(
            Diagnostic::warning("simple-regex", "a simpler operator does the same, and is faster", span())
                .label("no regular expression needed")
                .help(format!("write `{} {simpler}`", comparison.left)),
        );
    }
    found
}

/// Whether a list is an empty literal, as opposed to a named list that users can append to.
fn is_literally_empty(written: &syntax::Comparison) -> bool {
    matches!(&written.right, syntax::Right::List(words) if words.is_empty())
}

/// Returns the simpler operator that can replace an expression without special characters.
fn simpler(pattern: &str) -> Option<String> {
    let pattern = pattern.strip_prefix('^').unwrap_or(pattern);
    let pattern = pattern.strip_suffix('$').unwrap_or(pattern);
    let (open_start, pattern) = pattern.strip_prefix(".*").map_or((false, pattern), |rest| (true, rest));
    let (open_end, pattern) = pattern.strip_suffix(".*").map_or((false, pattern), |rest| (true, rest));
    if let Some(choices) = pattern.strip_prefix('(').and_then(|inner| inner.strip_suffix(')'))
        && !open_start
        && !open_end
        && choices.contains('|')
    {
        let values = choices.split('|').map(literal).collect::<Option<Vec<_>>>()?;
        let quoted: Vec<String> = values.iter().map(|value| format!("\"{value}\"")).collect();
        return Some(format!("in ({})", quoted.join(", ")));
    }
    let value = literal(pattern)?;
    if value.is_empty() {
        return None;
    }
    let operator = match (open_start, open_end) {
        (false, false) => "=",
        (true, true) => "contains",
        (false, true) => "startswith",
        (true, false) => "endswith",
    };
    Some(format!("{operator} \"{value}\""))
}

/// Returns the literal of a pattern without special characters.
fn literal(pattern: &str) -> Option<String> {
    let mut value = String::new();
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => value.push(letters.next()?),
            '.' | '*' | '+' | '?' | '[' | ']' | '(' | ')' | '{' | '}' | '|' | '^' | '$' | '"' => return None,
            _ => value.push(letter),
        }
    }
    Some(value)
}

/// Returns warnings about a conjunction.
pub fn conjunction(parts: &[Syntax], exprs: &[Expr], text: &Located) -> Vec<Diagnostic> {
    let mut known: Vec<(&Operand, &str)> = Vec::new();
    let mut found = Vec::new();
    for (part, expr) in parts.iter().zip(exprs) {
        let (Syntax::Comparison(written), Expr::Comparison(comparison)) = (part, expr) else { continue };
        let (Operator::Equal, Right::Text(value)) = (comparison.operator, &comparison.right) else {
            continue;
        };
        match known.iter().find(|(operand, _)| **operand == comparison.left) {
            Some((_, other)) if other != value => {
                let message = format!("`{}` cannot be both `{other}` and `{value}`", comparison.left);
                found.push(never(message, text.span(&written.range)).help("write `in (…)` for any of them"));
            }
            Some(_) => {}
            None => known.push((&comparison.left, value)),
        }
    }
    found
}

/// Returns warnings about rules that never match if only the first match counts, because an earlier rule matches
/// every event that they match.
pub fn shadowed(rules: &[(Rule, Span)]) -> Vec<Diagnostic> {
    // Quadratic, but bounded.
    if rules.len() > 1000 {
        return Vec::new();
    }
    let terms: Vec<Vec<&Expr>> = rules.iter().map(|(rule, _)| terms(&rule.condition)).collect();
    let mut found = Vec::new();
    for (later, (rule, span)) in rules.iter().enumerate().filter(|(_, (rule, _))| rule.enabled) {
        let shadow = (0..later).find(|&earlier| {
            rules[earlier].0.enabled && terms[earlier].iter().all(|term| terms[later].contains(term))
        });
        if let Some(earlier) = shadow {
            let (first, first_span) = &rules[earlier];
            let message = format!(
                "rule `{}` never fires: rule `{}` matches every event that it matches",
                rule.name, first.name
            );
            found.push(
                Diagnostic::warning("shadowed", message, span.clone())
                    .label("never fires under `first`")
                    .other(first_span.clone(), "this one matches first")
                    .help("move it before that rule, or match all rules"),
            );
        }
    }
    found
}

/// Returns the operands of a conjunction.
fn terms(expr: &Expr) -> Vec<&Expr> {
    match expr {
        Expr::And(parts) => parts.iter().flat_map(terms).collect(),
        Expr::Macro { body, .. } => terms(body),
        other => vec![other],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognizes_simple_expressions() {
        assert_eq!(simpler("^registry$").as_deref(), Some("= \"registry\""));
        assert_eq!(simpler(".*registry.*").as_deref(), Some("contains \"registry\""));
        assert_eq!(simpler("(get|list)").as_deref(), Some("in (\"get\", \"list\")"));
        assert_eq!(simpler(r"a\.b.*").as_deref(), Some("startswith \"a.b\""));
        assert_eq!(simpler("reg[a-z]+"), None);
    }
}
