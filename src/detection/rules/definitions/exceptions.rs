//! Reads the definitions of exceptions: fields, comparisons and rows of values.

use super::{Cell, DefinitionReader, Exception, Parsed};
use crate::text::diagnostics::Diagnostic;
use crate::text::located::Located;
use crate::text::yaml::Node;

impl DefinitionReader<'_, '_> {
    pub(super) fn exceptions(&mut self, item: &Node) -> Parsed<Vec<Exception>> {
        let Some(node) = item.get("exceptions") else { return Ok(Vec::new()) };
        if node.is_null() {
            return Ok(Vec::new());
        }
        let Some(nodes) = node.sequence() else {
            let span = self.span(node);
            return self.fail("not-a-list", "`exceptions` takes a sequence", span, "expected `- name: …`");
        };
        nodes.iter().map(|node| self.exception(node)).collect()
    }

    fn exception(&mut self, node: &Node) -> Parsed<Exception> {
        self.unknown_keys(node, &["name", "fields", "comps", "values"]);
        let whole = self.span(node);
        let name = self.required(node, "name", "exception", &whole)?.text().unwrap_or_default().to_owned();
        let mut exception = Exception {
            name,
            span: whole,
            fields: Vec::new(),
            comparisons: Vec::new(),
            is_scalar: false,
            rows: Vec::new(),
        };
        let fields = node.get("fields");
        let comparisons = node.get("comps");
        if let Some(fields) = fields {
            exception.is_scalar = fields.text().is_some();
            exception.fields = self.texts(fields, "fields")?;
        }
        if let Some(comparisons) = comparisons {
            exception.comparisons = self.texts(comparisons, "comps")?;
            if fields.is_some() && comparisons.text().is_some() != exception.is_scalar {
                let span = self.span(comparisons);
                return self.fail(
                    "exception",
                    "`fields` and `comps` must have the same form",
                    span,
                    "both a text, or both a list",
                );
            }
            if fields.is_some() && exception.comparisons.len() != exception.fields.len() {
                let span = self.span(comparisons);
                let message = format!(
                    "{} fields, but {} comparisons",
                    exception.fields.len(),
                    exception.comparisons.len()
                );
                return self.fail("exception", message, span, "one for each field");
            }
        }
        if let Some(values) = node.get("values").filter(|values| !values.is_null()) {
            let Some(rows) = values.sequence() else {
                let span = self.span(values);
                return self.fail("not-a-list", "`values` takes a sequence", span, "expected `- [a, b]`");
            };
            // Without `fields`, it appends to the exception of that name, which determines the form.
            if exception.is_scalar || (fields.is_none() && rows.iter().all(|row| row.text().is_some())) {
                exception.is_scalar = true;
                let cells = rows.iter().map(|row| self.scalar_cell(row)).collect::<Parsed<Vec<_>>>()?;
                exception.rows.push(cells);
            } else {
                for row in rows {
                    let Some(cells) = row.sequence() else {
                        let span = self.span(row);
                        return self.fail(
                            "exception",
                            "a row of values must be a sequence",
                            span,
                            "expected one value for each field",
                        );
                    };
                    let cells = cells.iter().map(|cell| self.cell(cell)).collect::<Parsed<Vec<_>>>()?;
                    if fields.is_some() && cells.len() != exception.fields.len() {
                        let span = self.span(row);
                        let message =
                            format!("{} fields, but {} values", exception.fields.len(), cells.len());
                        return self.fail("exception", message, span, "one for each field");
                    }
                    exception.rows.push(cells);
                }
            }
        }
        Ok(exception)
    }

    fn scalar_cell(&mut self, node: &Node) -> Parsed<Cell> {
        if node.text().is_some() {
            return Ok(Cell::One(self.located(node)));
        }
        let span = self.span(node);
        self.fail("exception", "if `fields` is a string, the values must be strings", span, "expected a text")
    }

    fn cell(&mut self, node: &Node) -> Parsed<Cell> {
        match node.sequence() {
            None => self.scalar_cell(node),
            Some(nodes) => {
                if let Some(wrong) = nodes.iter().find(|node| node.text().is_none()) {
                    let span = self.span(wrong);
                    return self.fail(
                        "exception",
                        "a value must be a string or a sequence of strings",
                        span,
                        "expected a text",
                    );
                }
                Ok(Cell::Many(nodes.iter().map(|node| self.located(node)).collect()))
            }
        }
    }

    fn texts(&mut self, node: &Node, key: &str) -> Parsed<Vec<Located>> {
        let nodes =
            node.sequence().map_or_else(|| vec![node], |nodes| nodes.iter().map(|node| &**node).collect());
        if nodes.is_empty() || nodes.iter().any(|node| node.text().is_none()) {
            let span = self.span(node);
            return self.fail(
                "exception",
                format!("`{key}` must be a string or a sequence of strings"),
                span,
                "expected a text",
            );
        }
        Ok(nodes.into_iter().map(|node| self.located(node)).collect())
    }

    pub(super) fn append_exceptions(&mut self, rule: usize, exceptions: Vec<Exception>) -> Parsed<()> {
        for new in exceptions {
            let rule = &mut self.definitions.rules[rule];
            let Some(own) = rule.exceptions.iter_mut().find(|own| own.name == new.name) else {
                if new.fields.is_empty() {
                    let known: Vec<String> = rule.exceptions.iter().map(|own| own.name.clone()).collect();
                    return self.undefined("exception", &new.name, new.span, &known);
                }
                rule.exceptions.push(new);
                continue;
            };
            let fits = new.fields.is_empty()
                || (new.is_scalar == own.is_scalar
                    && new.fields.iter().map(Located::text).eq(own.fields.iter().map(Located::text)));
            if !fits {
                let first = own.span.clone();
                self.report(
                    Diagnostic::error(
                        "exception",
                        format!("exception `{}` has different fields", new.name),
                        new.span,
                    )
                    .label("leave `fields` out to append values")
                    .other(first, "first defined here"),
                );
                return Err(());
            }
            let width = own.fields.len();
            if new.is_scalar != own.is_scalar
                || (!own.is_scalar && new.rows.iter().any(|row| row.len() != width))
            {
                let expected = if own.is_scalar {
                    "expected texts".to_owned()
                } else {
                    format!("expected rows of {width} values")
                };
                return self.fail(
                    "exception",
                    format!("the values do not match exception `{}`", new.name),
                    new.span,
                    &expected,
                );
            }
            if own.is_scalar && !own.rows.is_empty() {
                own.rows[0].extend(new.rows.into_iter().flatten());
            } else {
                own.rows.extend(new.rows);
            }
        }
        Ok(())
    }
}
