//! Type checking of comparisons.

use super::{Reported, Resolver};
use crate::detection::rules::ast::{self, Operator, Right};
use crate::detection::rules::fields::Kind;
use crate::detection::rules::{number, posix};
use crate::text::diagnostics::{Diagnostic, Span};

impl Resolver<'_> {
    /// Checks the types of both sides of an operator.
    pub(super) fn types(
        &mut self,
        comparison: &ast::Comparison,
        operator_span: &Span,
        right_span: &Span,
    ) -> Result<(), Reported> {
        use Operator as O;
        let name = comparison.operator.name();
        let kind = comparison.left.kind();
        let takes = match kind {
            Kind::List => matches!(comparison.operator, O::Exists | O::In | O::Intersects),
            Kind::Number | Kind::Time => matches!(
                comparison.operator,
                O::Exists
                    | O::In
                    | O::Intersects
                    | O::Equal
                    | O::NotEqual
                    | O::Less
                    | O::LessOrEqual
                    | O::Greater
                    | O::GreaterOrEqual
            ),
            Kind::Text => true,
        };
        if !takes {
            let help = match kind {
                Kind::List => format!(
                    "`{}` is a list: use `in` (all of them), `intersects` (any of them), or join() it",
                    comparison.left
                ),
                _ => format!("`{}` is a number: use =, !=, <, <=, >, >= or in", comparison.left),
            };
            let message = format!("`{name}` does not take a {}", kind.name());
            self.report(
                Diagnostic::error("types", message, operator_span.clone())
                    .label(format!("not for a {}", kind.name()))
                    .help(help),
            );
            return Err(Reported);
        }
        match (&comparison.right, comparison.operator) {
            (Right::Operand(_), O::PMatch | O::Regex) => {
                let message = format!("`{name}` does not take a field on the right-hand side");
                self.report(
                    Diagnostic::error("types", message, right_span.clone()).label("expected a constant"),
                );
                return Err(Reported);
            }
            (Right::Text(_) | Right::List(_), O::Regex) => {
                for pattern in comparison.right.values() {
                    if let Err(why) = posix::compile(pattern) {
                        let message = format!("not a regular expression: {why}");
                        self.report(
                            Diagnostic::error("regex", message, right_span.clone())
                                .label("POSIX extended, over the whole value"),
                        );
                        return Err(Reported);
                    }
                }
            }
            (Right::Text(_) | Right::List(_), _) if matches!(kind, Kind::Number | Kind::Time) => {
                if let Some(wrong) = comparison.right.values().iter().find(|value| !number::is_number(value))
                {
                    let message = format!("`{}` is a number, but `{wrong}` is not", comparison.left);
                    self.report(
                        Diagnostic::error("types", message, right_span.clone()).label("expected a number"),
                    );
                    return Err(Reported);
                }
            }
            _ => {}
        }
        Ok(())
    }
}
