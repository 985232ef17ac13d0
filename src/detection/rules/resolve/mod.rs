//! Name resolution and type checking: takes definitions, returns conditions with lists and macros expanded.

mod correlations;
mod exceptions;
mod types;

pub use correlations::RuleState;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::detection::audit::redact::ShowList;
use crate::detection::rules::ast::{
    self, Expr, FieldArgument, FieldRef, Operand, Operator, Right, Template, Transformer,
};
use crate::detection::rules::definitions::{Definitions, Macro, RuleDefinition};
use crate::detection::rules::syntax::{self, Syntax, Word};
use crate::detection::rules::{lint, parse, template};
use crate::text::diagnostics::{Diagnostic, Severity, Span};
use crate::text::located::Located;
use crate::text::suggest::did_you_mean;

use crate::detection::rules::fields::{self, Argument, Kind};
use crate::text::name_patterns::NamePatterns;

/// Maximum number of comparisons of a condition after macro expansion, which is exponential in nesting.
const MAX_COMPARISONS: u64 = 100_000;

/// Maximum depth of an expanded condition, so that it can be traversed recursively.
const MAX_DEPTH: usize = 120;

/// Maximum number of items of a list after expansion of lists in it.
const MAX_LIST_ITEMS: usize = 100_000;

/// List of name patterns of registry credentials, the weakest evidence about a secret.
const CREDENTIAL_NAMES: &str = "registry_credential_names";

/// Size of an expanded expression.
#[derive(Clone, Copy, Default)]
struct Size {
    nodes: u64,
    depth: usize,
}

impl Size {
    fn over(sizes: impl IntoIterator<Item = Size>) -> Self {
        let whole = sizes.into_iter().fold(Size::default(), |whole, size| Size {
            nodes: whole.nodes.saturating_add(size.nodes),
            depth: whole.depth.max(size.depth),
        });
        Size { nodes: whole.nodes.saturating_add(1), depth: whole.depth + 1 }
    }
}

/// State of a macro.
enum Resolved {
    /// Being resolved; a use of it now is a cycle.
    InProgress,
    /// Invalid; the error was reported.
    Failed,
    Done(Arc<Expr>, Size),
}

/// Marker for an error that was reported.
pub struct Reported;

/// Resolves names.
pub struct Resolver<'d> {
    definitions: &'d Definitions,
    macros: HashMap<&'d str, Resolved>,
    used_lists: HashSet<&'d str>,
    /// Lists whose names are not identifiers, for example because they contain spaces.
    unusual_lists: Vec<&'d str>,
    pub diagnostics: Vec<Diagnostic>,
    /// Whether the current rule uses unknown fields.
    pub unknown_fields: bool,
    /// Whether the fields `correlation.*` are allowed.
    in_correlation: bool,
    /// Depth of the current expression, including enclosing macros.
    depth: usize,
}

/// The scope of macro names.
#[derive(Clone, Copy)]
enum Scope<'d> {
    /// A rule can use all macros.
    Rule,
    /// A macro can use those defined before it.
    Macro(&'d str, &'d Macro),
}

impl<'d> Resolver<'d> {
    pub fn new(definitions: &'d Definitions) -> Self {
        Resolver {
            definitions,
            macros: HashMap::new(),
            used_lists: HashSet::new(),
            unusual_lists: definitions
                .lists
                .keys()
                .map(String::as_str)
                .filter(|name| !parse::is_unquoted_value(name))
                .collect(),
            diagnostics: Vec::new(),
            unknown_fields: false,
            in_correlation: false,
            depth: 0,
        }
    }

    /// Discards the diagnostics of a rule that is skipped, from the `start`-th. Macros that failed are resolved again for the
    /// next rule, so that it has diagnostics of its own.
    pub fn discard_since(&mut self, start: usize) {
        self.diagnostics.truncate(start);
        self.macros.retain(|_, resolved| !matches!(resolved, Resolved::Failed));
    }

    fn report(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    fn syntax_error(&mut self, text: &Located, error: parse::Error) -> Reported {
        self.report(
            Diagnostic::error("condition", error.message, text.span(&error.range))
                .label(error.label)
                .maybe_help(error.help),
        );
        Reported
    }

    /// Resolves the paths that an output exempts from redaction.
    ///
    /// # Errors
    ///
    /// If one of them is invalid.
    pub fn show(&mut self, items: &[Located]) -> Result<ShowList, Reported> {
        let mut show = ShowList::default();
        for item in items {
            if let Err(expected) = show.add(item.text()) {
                let message = format!("`{}` is not a path that can be shown", item.text());
                self.report(Diagnostic::error("show", message, item.whole()).label(expected));
                return Err(Reported);
            }
        }
        Ok(show)
    }

    /// Resolves the condition of a rule with its exceptions, and its output.
    ///
    /// # Errors
    /// If any of them is invalid.
    pub fn rule(&mut self, rule: &'d RuleDefinition) -> Result<(Expr, Template), Reported> {
        let condition = self.condition(&rule.condition, Scope::Rule);
        let exceptions: Vec<_> = rule.exceptions.iter().map(|exception| self.exception(exception)).collect();
        let output = self.output(&rule.output);
        let exceptions = exceptions.into_iter().collect::<Result<Vec<_>, Reported>>()?;
        let (condition, size) = condition?;
        self.check_size(size, &rule.span)?;
        let mut exceptions: Vec<Expr> = exceptions.into_iter().flatten().collect();
        let condition = match exceptions.len() {
            0 => condition,
            1 => Expr::And(vec![condition, Expr::Not(Box::new(exceptions.swap_remove(0)))]),
            _ => Expr::And(vec![condition, Expr::Not(Box::new(Expr::Or(exceptions)))]),
        };
        Ok((condition, output?))
    }

    fn check_size(&mut self, size: Size, span: &Span) -> Result<(), Reported> {
        if size.nodes <= MAX_COMPARISONS && size.depth <= MAX_DEPTH {
            return Ok(());
        }
        let message = if size.depth > MAX_DEPTH {
            format!("after macro expansion this is nested deeper than {MAX_DEPTH} levels")
        } else {
            format!("after macro expansion this has more than {MAX_COMPARISONS} parts")
        };
        self.report(Diagnostic::error("too-large", message, span.clone()).label("too large"));
        Err(Reported)
    }

    fn condition(&mut self, text: &'d Located, scope: Scope<'d>) -> Result<(Expr, Size), Reported> {
        let syntax = parse::condition_with_lists(text.text(), &self.unusual_lists)
            .map_err(|error| self.syntax_error(text, error))?;
        self.expression(&syntax, text, scope)
    }

    /// The parser bounds the depth of a single condition; this check bounds the depth across macros.
    fn expression(
        &mut self,
        syntax: &Syntax,
        text: &'d Located,
        scope: Scope<'d>,
    ) -> Result<(Expr, Size), Reported> {
        if self.depth >= MAX_DEPTH {
            self.check_size(Size { nodes: 0, depth: MAX_DEPTH + 1 }, &text.whole())?;
        }
        self.depth += 1;
        let resolved = self.part(syntax, text, scope);
        self.depth -= 1;
        resolved
    }

    fn part(
        &mut self,
        syntax: &Syntax,
        text: &'d Located,
        scope: Scope<'d>,
    ) -> Result<(Expr, Size), Reported> {
        match syntax {
            Syntax::And(parts) | Syntax::Or(parts) => {
                let is_and = matches!(syntax, Syntax::And(_));
                // Continue after an error, to report all errors at once.
                let resolved: Vec<_> = parts.iter().map(|part| self.expression(part, text, scope)).collect();
                let (exprs, sizes): (Vec<Expr>, Vec<Size>) =
                    resolved.into_iter().collect::<Result<Vec<_>, Reported>>()?.into_iter().unzip();
                if is_and {
                    self.diagnostics.extend(lint::conjunction(parts, &exprs, text));
                }
                Ok((if is_and { Expr::And(exprs) } else { Expr::Or(exprs) }, Size::over(sizes)))
            }
            Syntax::Not(inner) => {
                let (inner, size) = self.expression(inner, text, scope)?;
                Ok((Expr::Not(Box::new(inner)), Size::over([size])))
            }
            Syntax::Comparison(comparison) => {
                let comparison = self.comparison(comparison, text)?;
                Ok((Expr::Comparison(comparison), Size::over([])))
            }
            Syntax::Name(name) => self.name(name, text, scope),
        }
    }

    fn name(&mut self, name: &Word, text: &'d Located, scope: Scope<'d>) -> Result<(Expr, Size), Reported> {
        let span = text.span(&name.range);
        let definitions = self.definitions;
        if let Some((list_name, list)) = definitions.lists.get_key_value(&name.text) {
            self.used_lists.insert(list_name);
            self.report(
                Diagnostic::error(
                    "list-as-macro",
                    format!("`{}` is a list; a list of items is not a condition", name.text),
                    span,
                )
                .label("expected a macro")
                .other(list.span.clone(), "defined here")
                .help(format!("write `field in ({})`", name.text)),
            );
            return Err(Reported);
        }
        let visible = |known: &Macro| match scope {
            Scope::Rule => true,
            Scope::Macro(_, user) => known.index < user.sees,
        };
        let found = definitions.macros.get_key_value(&name.text);
        let Some((key, known)) = found.filter(|(key, known)| {
            visible(known)
                && !matches!(scope, Scope::Macro(own, user) if own == key.as_str() && known.sees == user.sees)
        }) else {
            let mut diagnostic =
                Diagnostic::error("unknown-macro", format!("unknown macro `{}`", name.text), span);
            match found {
                Some((_, later)) if matches!(scope, Scope::Macro(own, _) if own == name.text) => {
                    diagnostic =
                        diagnostic.label("a macro cannot use itself").other(later.span.clone(), "this is it");
                    "it is used before its definition".clone_into(&mut diagnostic.message);
                }
                Some((_, later)) => {
                    diagnostic = diagnostic
                        .label("not defined before")
                        .other(later.span.clone(), "defined here")
                        .help("a macro can only use macros defined before it: move that one up");
                }
                None => {
                    let known = definitions.macros.keys().map(String::as_str);
                    let field = fields::all()
                        .map(|field| field.name)
                        .find(|field| field.rsplit('.').next() == Some(&name.text));
                    let help = did_you_mean(&name.text, known)
                        .or_else(|| field.map(|field| format!("did you mean the field `{field}`?")));
                    diagnostic = diagnostic.label("expected a macro or a comparison").maybe_help(help);
                }
            }
            self.report(diagnostic);
            return Err(Reported);
        };
        self.resolve_macro(key, known, Some(&span))?;
        match self.macros.get(key.as_str()) {
            Some(Resolved::Done(body, size)) => {
                let size = Size::over([*size]);
                let expr = Expr::Macro { name: key.as_str().into(), body: body.clone() };
                // Check the size here, before the next macro multiplies it.
                self.check_size(size, &span)?;
                Ok((expr, size))
            }
            _ => Err(Reported),
        }
    }

    fn resolve_macro(
        &mut self,
        name: &'d str,
        known: &'d Macro,
        used_at: Option<&Span>,
    ) -> Result<(), Reported> {
        match self.macros.get(name) {
            Some(Resolved::Done(..)) => return Ok(()),
            Some(Resolved::Failed) => return Err(Reported),
            Some(Resolved::InProgress) => {
                let span = used_at.unwrap_or(&known.span).clone();
                self.report(
                    Diagnostic::error(
                        "macro-circle",
                        format!("macro `{name}` uses itself through other macros"),
                        span,
                    )
                    .label("the cycle closes here"),
                );
                return Err(Reported);
            }
            None => {}
        }
        self.macros.insert(name, Resolved::InProgress);
        let resolved = match self.condition(&known.condition, Scope::Macro(name, known)) {
            Ok((expr, size)) => Resolved::Done(Arc::new(expr), size),
            Err(Reported) => Resolved::Failed,
        };
        let failed = matches!(resolved, Resolved::Failed);
        self.macros.insert(name, resolved);
        if failed { Err(Reported) } else { Ok(()) }
    }

    /// Reports unused definitions, and errors in macros that no rule uses. Ignores files with rules of another source, since those rules
    /// may use the definitions.
    pub fn unused(&mut self, other_sources: &HashSet<usize>) {
        let definitions = self.definitions;
        let mut unused: Vec<_> = definitions
            .macros
            .iter()
            .filter(|(name, known)| {
                let is_own = !known.is_prelude && !other_sources.contains(&known.span.file);
                is_own && !self.macros.contains_key(name.as_str())
            })
            .collect();
        unused.sort_by_key(|(_, known)| known.index);
        for (name, known) in unused {
            let before = self.diagnostics.len();
            let was_unknown = self.unknown_fields;
            let _ = self.resolve_macro(name, known, None);
            self.unknown_fields = was_unknown;
            // As in the reference engine, a condition with a syntax error is an error even if it is unused, while an unknown name is not.
            for diagnostic in self.diagnostics[before..].iter_mut().filter(|one| one.code != "condition") {
                diagnostic.severity = Severity::Warning;
            }
            let message = format!("macro `{name}` is not used");
            self.report(
                Diagnostic::warning("unused-macro", message, known.span.clone()).label("no rule uses it"),
            );
        }
        // A list is used if a used list contains it.
        let mut open: Vec<&'d str> = self.used_lists.iter().copied().collect();
        while let Some(name) = open.pop() {
            for item in definitions.lists.get(name).into_iter().flat_map(|list| &list.items) {
                if let Some((inner, _)) = definitions.lists.get_key_value(item.text())
                    && self.used_lists.insert(inner)
                {
                    open.push(inner);
                }
            }
        }
        let mut unused: Vec<_> = definitions
            .lists
            .iter()
            .filter(|(name, list)| {
                let is_own = !list.is_prelude && !other_sources.contains(&list.span.file);
                is_own && !self.used_lists.contains(name.as_str())
            })
            .collect();
        unused.sort_by_key(|(_, list)| (list.span.file, list.span.range.start));
        for (name, list) in unused {
            let message = format!("list `{name}` is not used");
            self.report(
                Diagnostic::warning("unused-list", message, list.span.clone())
                    .label("no rule, macro or list uses it"),
            );
        }
    }

    fn comparison(
        &mut self,
        comparison: &syntax::Comparison,
        text: &'d Located,
    ) -> Result<ast::Comparison, Reported> {
        let left = self.operand(&comparison.left, text);
        let right = match &comparison.right {
            syntax::Right::Nothing => Ok((Right::Nothing, comparison.operator_range.clone())),
            syntax::Right::Operand(operand) => {
                self.operand(operand, text).map(|resolved| (Right::Operand(resolved), operand.range()))
            }
            syntax::Right::Word(word) => {
                let values = self.words(std::slice::from_ref(word), text)?;
                let [value] = &values[..] else {
                    let message = format!(
                        "`{}` is a list of {} items, but this operator takes one value",
                        word.text,
                        values.len()
                    );
                    self.report(
                        Diagnostic::error("list-as-value", message, text.span(&word.range))
                            .label("expected one value")
                            .help(format!("write `in ({})`", word.text)),
                    );
                    return Err(Reported);
                };
                Ok((Right::Text(value.clone()), word.range.clone()))
            }
            syntax::Right::List(words) => {
                let range = words.first().map_or(comparison.operator_range.clone(), |first| {
                    first.range.start..words.last().map_or(first.range.end, |last| last.range.end)
                });
                self.words(words, text).map(|values| (Right::List(values), range))
            }
            syntax::Right::ListName(word) => {
                if !self.definitions.lists.contains_key(&word.text) {
                    let known = self.definitions.lists.keys().map(String::as_str);
                    let help = did_you_mean(&word.text, known);
                    let message = format!("unknown list `{}`: read as a word", word.text);
                    self.report(
                        Diagnostic::warning("unknown-list", message, text.span(&word.range))
                            .label("no list")
                            .maybe_help(help),
                    );
                }
                self.words(std::slice::from_ref(word), text)
                    .map(|values| (Right::List(values), word.range.clone()))
            }
        };
        let (left, (right, right_range)) = (left?, right?);
        let resolved =
            ast::Comparison { left, operator: comparison.operator, quantifier: comparison.quantifier, right };
        self.types(&resolved, &text.span(&comparison.operator_range), &text.span(&right_range))?;
        self.diagnostics.extend(lint::comparison(comparison, &resolved, text));
        Ok(resolved)
    }

    /// Expands the names of lists among values.
    fn words(&mut self, words: &[Word], text: &'d Located) -> Result<Vec<String>, Reported> {
        let mut values = Vec::new();
        for word in words {
            if word.quoted || !self.expand(&word.text, &mut values, &mut Vec::new()) {
                if !word.quoted && word.text.contains('_') {
                    self.warn_about_similar_list(word, text);
                }
                values.push(word.text.clone());
            }
            if values.len() > MAX_LIST_ITEMS {
                let message = format!("after list expansion this has more than {MAX_LIST_ITEMS} values");
                self.report(
                    Diagnostic::error("too-large", message, text.span(&word.range)).label("too large"),
                );
                return Err(Reported);
            }
        }
        Ok(values)
    }

    fn warn_about_similar_list(&mut self, word: &Word, text: &Located) {
        let known = self.definitions.lists.keys().map(String::as_str);
        if let Some(help) = did_you_mean(&word.text, known) {
            let message = format!("unknown list `{}`: read as a word", word.text);
            self.report(
                Diagnostic::warning("unknown-list", message, text.span(&word.range))
                    .label("a word, not a list")
                    .help(help),
            );
        }
    }

    /// Appends the items of the named list, if there is one. A list that contains itself adds nothing.
    fn expand(&mut self, name: &str, values: &mut Vec<String>, open: &mut Vec<&'d str>) -> bool {
        let Some((name, list)) = self.definitions.lists.get_key_value(name) else { return false };
        self.used_lists.insert(name);
        if open.contains(&name.as_str()) || open.len() > 100 {
            return true;
        }
        open.push(name);
        for item in &list.items {
            if values.len() > MAX_LIST_ITEMS {
                break;
            }
            let item = item.text();
            if !self.expand(item, values, open) {
                values.push(unquoted(item).to_owned());
            }
        }
        open.pop();
        true
    }

    /// Compiles the patterns of the list [`CREDENTIAL_NAMES`].
    pub fn credential_names(&mut self) -> NamePatterns {
        let mut patterns = Vec::new();
        self.expand(CREDENTIAL_NAMES, &mut patterns, &mut Vec::new());
        let span = self.definitions.lists.get(CREDENTIAL_NAMES).map(|list| list.span.clone());
        match (NamePatterns::new(patterns.iter().map(String::as_str)), span) {
            (Ok(names), _) => names,
            (Err(error), Some(span)) => {
                self.report(
                    Diagnostic::error("pattern", error.to_string(), span)
                        .label("each item is a name pattern")
                        .help("`*` matches any text, `?` one character, `[ab]` one of these"),
                );
                NamePatterns::default()
            }
            (Err(_), None) => NamePatterns::default(),
        }
    }

    fn operand(&mut self, operand: &syntax::Operand, text: &Located) -> Result<Operand, Reported> {
        match operand {
            syntax::Operand::Field { name, argument } => {
                self.field(name, argument.as_ref(), text).map(Operand::Field)
            }
            syntax::Operand::Text(word) => Ok(Operand::Text(word.text.clone())),
            syntax::Operand::Call { transformer, arguments, argument, range } => {
                let resolved: Vec<_> =
                    arguments.iter().map(|argument| self.operand(argument, text)).collect();
                let arguments = resolved.into_iter().collect::<Result<Vec<_>, Reported>>()?;
                let takes_list = matches!(transformer, Transformer::Join | Transformer::GetOpt);
                let list_at = usize::from(*transformer == Transformer::Join);
                if takes_list && arguments[list_at].kind() != Kind::List {
                    let message = format!("`{}` takes a list field", transformer.name());
                    self.report(Diagnostic::error("types", message, text.span(range)).label("not a list"));
                    return Err(Reported);
                }
                let argument = argument.as_ref().map(|word| word.text.clone());
                Ok(Operand::Call { transformer: *transformer, arguments, argument })
            }
        }
    }

    fn field(&mut self, name: &Word, argument: Option<&Word>, text: &Located) -> Result<FieldRef, Reported> {
        let span = text.span(&name.range);
        let own = fields::of_correlations().find(|field| self.in_correlation && field.name == name.text);
        let Some(field) = fields::find(&name.text).or(own) else {
            self.unknown_fields = true;
            self.report(unknown_field(&name.text, span, self.in_correlation));
            return Err(Reported);
        };
        let wrong = |message: String, word: Option<&Word>, label: &str| {
            let span = word.map_or(span.clone(), |word| text.span(&word.range));
            Diagnostic::error("field-argument", message, span).label(label)
        };
        let argument = match (field.argument, argument) {
            (_, None) if field.argument != Argument::Key => None,
            (_, None) => {
                self.report(wrong(
                    format!("`{}` needs a key in brackets", field.name),
                    None,
                    "expected […] after it",
                ));
                return Err(Reported);
            }
            (Argument::None, Some(word)) => {
                self.report(wrong(
                    format!("`{}` takes no argument in brackets", field.name),
                    Some(word),
                    "leave this out",
                ));
                return Err(Reported);
            }
            (Argument::Key, Some(word)) => Some(FieldArgument::Key(word.text.clone())),
            (Argument::Index, Some(word)) => match word.text.parse() {
                Ok(index) => Some(FieldArgument::Index(index)),
                Err(_) => {
                    self.report(wrong(
                        format!("`{}` takes an index in brackets", field.name),
                        Some(word),
                        "expected a number, from 0",
                    ));
                    return Err(Reported);
                }
            },
        };
        Ok(FieldRef { field, argument })
    }

    fn output(&mut self, text: &Located) -> Result<Template, Reported> {
        let pieces = template::parse(text.text()).map_err(|error| self.syntax_error(text, error))?;
        let mut resolved = Vec::new();
        let mut failed = false;
        for piece in pieces {
            resolved.push(match piece {
                template::TemplatePiece::Text(text) => ast::Piece::Text(text),
                template::TemplatePiece::Value { operand, spelling, width } => {
                    match self.operand(&operand, text) {
                        Ok(operand) => ast::Piece::Value { operand, spelling, width },
                        Err(Reported) => {
                            failed = true;
                            continue;
                        }
                    }
                }
            });
        }
        if failed { Err(Reported) } else { Ok(Template { pieces: resolved }) }
    }
}

fn takes_list(operator: Operator) -> bool {
    matches!(operator, Operator::In | Operator::Intersects | Operator::PMatch)
}

/// Removes quotes inside an item, which conditions allow.
fn unquoted(item: &str) -> &str {
    ['"', '\''].into_iter().find_map(|quote| item.strip_prefix(quote)?.strip_suffix(quote)).unwrap_or(item)
}

fn unknown_field(name: &str, span: Span, in_correlation: bool) -> Diagnostic {
    let diagnostic =
        Diagnostic::error("unknown-field", format!("unknown field `{name}`"), span).label("unknown field");
    if let Some(help) = correlations::field_help(name, in_correlation) {
        return diagnostic.help(help);
    }
    let longer: Vec<&str> = fields::all()
        .map(|field| field.name)
        .filter(|known| known.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
        .take(4)
        .collect();
    if !longer.is_empty() {
        return diagnostic.help(format!("did you mean one of {}?", longer.join(", ")));
    }
    if let Some(help) = did_you_mean(name, fields::all().map(|field| field.name)) {
        return diagnostic.help(help);
    }
    let prefix = name.split('.').next().unwrap_or_default();
    match prefix {
        "ka" | "jevt" | "json" | "evt" => diagnostic.help("`pullwatch rules fields` lists all fields"),
        _ => diagnostic.help(format!(
            "`{prefix}.*` are fields of other event sources; here are ka.*, jevt.*, json.* and evt.*"
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use crate::detection::rules::{Options, SourceFile, load};

    fn errors(text: String) -> Vec<&'static str> {
        let loaded = load(&[SourceFile { name: "r.yaml".into(), text }], &Options::default());
        loaded
            .diagnostics
            .iter()
            .filter(|one| one.severity == crate::detection::rules::Severity::Error)
            .map(|one| one.code)
            .collect()
    }

    const RULE: &str = "- {rule: r, desc: d, priority: INFO, output: x, condition: m0}\n";

    #[test]
    fn macros_of_macros_do_not_exhaust_the_stack() {
        // Define each macro so that it sees the next one, then redefine it around the next one.
        for (links, depth) in [(95, 95), (400, 1), (50, 50)] {
            let mut text = String::new();
            for link in 0..=links {
                writeln!(text, "- {{macro: m{link}, condition: ka.verb exists}}").unwrap();
            }
            for link in 0..links {
                let (open, close) = ("not (".repeat(depth), ")".repeat(depth));
                writeln!(text, "- {{macro: m{link}, condition: '{open}m{}{close}'}}", link + 1).unwrap();
            }
            assert!(errors(text + RULE).contains(&"too-large"), "{links} links, {depth} deep");
        }
    }

    #[test]
    fn macros_of_macros_do_not_exhaust_memory() {
        let mut text = "- {macro: n0, condition: ka.verb exists}\n".to_owned();
        for link in 1..60 {
            writeln!(text, "- {{macro: n{link}, condition: n{0} or n{0} or n{0}}}", link - 1).unwrap();
        }
        text += "- {macro: m0, condition: n59}\n";
        assert_eq!(errors(text + RULE), ["too-large"]);
    }

    #[test]
    fn rejects_cyclic_macros_and_ignores_cyclic_lists() {
        let text = "- {macro: m0, condition: ka.verb exists}\n- {macro: m1, condition: m0}\n- {macro: m0, condition: m1}\n";
        assert_eq!(errors(text.to_owned() + RULE), ["macro-circle"]);
        let text = "- {list: a, items: [b, get]}\n- {list: b, items: [a, list]}\n- {macro: m0, condition: ka.verb in (a)}\n";
        assert!(errors(text.to_owned() + RULE).is_empty());
    }

    #[test]
    fn lists_of_lists_do_not_exhaust_memory() {
        let mut text = "- {list: l0, items: [a, b, c]}\n".to_owned();
        for link in 1..40 {
            writeln!(text, "- {{list: l{link}, items: [l{0}, l{0}, l{0}]}}", link - 1).unwrap();
        }
        text += "- {macro: m0, condition: ka.verb in (l39)}\n";
        assert_eq!(errors(text + RULE), ["too-large"]);
    }

    #[test]
    fn rejects_what_the_reference_rejects_and_nothing_else() {
        let rule = "\n- {rule: r, desc: d, condition: ka.verb = get, output: o, priority: INFO}\n";
        for (text, is_valid) in [
            ("- {list: l, items: [a, [b]]}", false),
            ("- {list: l, items: [a, {b: c}]}", false),
            ("- {list: l, items: {a: b}}", false),
            ("- {list: l, items: a}", false),
            ("- {list: l, items: [a, 1, true]}", true),
            // Conditions of unused macros are parsed, but their names are not looked up.
            ("- {macro: m, condition: ka.verb =}", false),
            ("- {macro: m, condition: ''}", false),
            ("- {macro: m, condition: ka.verb in (}", false),
            ("- {macro: m, condition: [a]}", false),
            ("- {macro: m, condition: nosuch and ka.nosuch = x}", true),
            ("- {macro: m, condition: ka.verb =}\n- {macro: m, condition: ka.verb = get}", true),
        ] {
            let text = format!("{text}{rule}");
            let file = SourceFile { name: "r.yaml".into(), text: text.clone() };
            let loaded = crate::detection::rules::load(&[file], &Options::default());
            assert_eq!(!loaded.has_errors(), is_valid, "{text}");
        }
    }

    #[test]
    fn reads_the_paths_that_a_rule_shows() {
        let rule = |show: &str| {
            let text = format!(
                "- {{rule: r, desc: d, condition: ka.verb = get, output: o, priority: INFO, show: {show}}}"
            );
            let file = SourceFile { name: "r.yaml".into(), text };
            crate::detection::rules::load(&[file], &Options::default())
        };
        assert!(!rule("[/requestObject/spec/*/x, 'ka.uri.param[command]']").has_errors());
        assert!(!rule("/requestObject").has_errors() && !rule("[]").has_errors());
        for wrong in ["[requestObject]", "[/]", "[ka.uri]", "[[a]]", "{a: b}"] {
            assert!(rule(wrong).has_errors(), "{wrong}");
        }
    }
}
