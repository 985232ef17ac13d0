//! Translation of the exceptions of a rule to conditions.

use std::sync::Arc;

use super::{Reported, Resolver, takes_list, unquoted};
use crate::detection::rules::ast::{self, Expr, Operand, Operator, Quantifier, Right};
use crate::detection::rules::definitions::{Cell, Exception};
use crate::detection::rules::parse;
use crate::detection::rules::syntax::OPERATORS;
use crate::text::diagnostics::{Diagnostic, Span};
use crate::text::located::Located;
use crate::text::suggest::did_you_mean;

/// A comparison of an exception: an operator, and `oneof`, `anyof` or `allof`.
type OperatorAndModifier = (Operator, Option<Quantifier>);

fn compares_with_list((operator, modifier): OperatorAndModifier) -> bool {
    takes_list(operator) || modifier.is_some()
}

/// Parses `in`, `startswith`, `startswith oneof` and the like. Only operators on strings take a modifier.
fn operator_and_modifier(text: &str) -> Option<OperatorAndModifier> {
    let mut words = text.split_ascii_whitespace();
    let word = words.next()?;
    let (_, operator) = OPERATORS.into_iter().find(|(name, _)| *name == word)?;
    let modifier = match words.next() {
        None => None,
        Some(word) => Some(Quantifier::ALL.into_iter().find(|modifier| modifier.name() == word)?),
    };
    let takes_modifier = matches!(
        operator,
        Operator::Equal
            | Operator::NotEqual
            | Operator::Contains
            | Operator::IContains
            | Operator::StartsWith
            | Operator::EndsWith
            | Operator::Glob
            | Operator::IGlob
            | Operator::Regex
    );
    let is_valid =
        words.next().is_none() && operator != Operator::Exists && (modifier.is_none() || takes_modifier);
    is_valid.then_some((operator, modifier))
}

impl<'d> Resolver<'d> {
    /// Returns the condition of an exception; `None` if it has no values.
    pub(super) fn exception(&mut self, exception: &'d Exception) -> Result<Option<Expr>, Reported> {
        let mut failed = false;
        let mut lefts = Vec::new();
        for field in &exception.fields {
            match self.exception_field(field) {
                Ok(left) => lefts.push(left),
                Err(Reported) => failed = true,
            }
        }
        let default = (if exception.is_scalar { Operator::In } else { Operator::Equal }, None);
        let mut operators = Vec::new();
        for comparison in &exception.comparisons {
            match operator_and_modifier(comparison.text()) {
                Some(operator) => operators.push(operator),
                None => {
                    let words = OPERATORS.iter().map(|(word, _)| *word);
                    let help = did_you_mean(comparison.text(), words);
                    let message = format!("`{}` is not an operator", comparison.text());
                    self.report(
                        Diagnostic::error("exception", message, comparison.whole())
                            .label("expected =, in, startswith, startswith oneof …")
                            .maybe_help(help),
                    );
                    failed = true;
                }
            }
        }
        if failed {
            return Err(Reported);
        }
        let operator = |at: usize| operators.get(at).copied().unwrap_or(default);
        let mut rows = Vec::new();
        for row in &exception.rows {
            if exception.is_scalar {
                // One comparison with all values, or one per value if the operator takes a single value.
                let (Some(left), operator) = (lefts.first(), operator(0)) else { continue };
                if compares_with_list(operator) {
                    rows.push(self.exception_check(left, operator, row, &exception.span)?);
                } else {
                    for cell in row {
                        rows.push(self.exception_check(
                            left,
                            operator,
                            std::slice::from_ref(cell),
                            &exception.span,
                        )?);
                    }
                }
                continue;
            }
            let mut checks = Vec::new();
            for (at, (left, cell)) in lefts.iter().zip(row).enumerate() {
                checks.push(self.exception_check(
                    left,
                    operator(at),
                    std::slice::from_ref(cell),
                    &exception.span,
                )?);
            }
            rows.push(if checks.len() == 1 { checks.swap_remove(0) } else { Expr::And(checks) });
        }
        Ok(match rows.len() {
            0 => None,
            _ => {
                Some(Expr::Exception { name: exception.name.as_str().into(), body: Arc::new(Expr::Or(rows)) })
            }
        })
    }

    fn exception_field(&mut self, field: &Located) -> Result<Operand, Reported> {
        match parse::operand(field.text(), 0) {
            Ok((operand, end)) if end == field.text().len() => self.operand(&operand, field),
            _ => {
                self.report(
                    Diagnostic::error(
                        "exception",
                        format!("`{}` is not a field", field.text()),
                        field.whole(),
                    )
                    .label("expected a field"),
                );
                Err(Reported)
            }
        }
    }

    fn exception_check(
        &mut self,
        left: &Operand,
        operator: OperatorAndModifier,
        cells: &'d [Cell],
        whole: &Span,
    ) -> Result<Expr, Reported> {
        let mut values = Vec::new();
        let mut span = whole.clone();
        for cell in cells {
            let texts = match cell {
                Cell::One(text) => std::slice::from_ref(text),
                Cell::Many(texts) => texts,
            };
            for text in texts {
                span = text.whole();
                let value = text.text().trim();
                // The name of a list may be parenthesized, as in a condition.
                let bare = value
                    .strip_prefix('(')
                    .and_then(|inner| inner.strip_suffix(')'))
                    .map_or(value, str::trim);
                if bare != value && compares_with_list(operator) {
                    for part in bare.split(',').map(str::trim).filter(|part| !part.is_empty()) {
                        if !self.expand(part, &mut values, &mut Vec::new()) {
                            values.push(unquoted(part).to_owned());
                        }
                    }
                } else if !self.expand(value, &mut values, &mut Vec::new()) {
                    values.push(unquoted(text.text()).to_owned());
                }
            }
        }
        let (operator, quantifier) = operator;
        let right = if takes_list(operator) || quantifier.is_some() {
            Right::List(values)
        } else if values.len() == 1 {
            Right::Text(values.swap_remove(0))
        } else {
            let message = format!("`{}` takes one value, but this is {}", operator.name(), values.len());
            self.report(
                Diagnostic::error("exception", message, span)
                    .label("expected one value")
                    .help("several values require `in`"),
            );
            return Err(Reported);
        };
        let comparison = ast::Comparison { left: left.clone(), operator, quantifier, right };
        self.types(&comparison, &span, &span)?;
        Ok(Expr::Comparison(comparison))
    }
}
