//! Resolution of correlations and throttles: names, conditions and cycles.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Reported, Resolver};
use crate::detection::rules::ast::{Bounds, Correlation, CorrelationKind, Feed, Location, Operand, Throttle};
use crate::detection::rules::definitions::{
    CorrelationDefinition, RuleDefinition, SOURCE, ThrottleDefinition,
};
use crate::detection::rules::fields;
use crate::detection::rules::parse;
use crate::text::diagnostics::{Diagnostic, Span};
use crate::text::located::Located;
use crate::text::suggest::did_you_mean;

/// Maximum number of correlations, which share the memory for windows.
const MAX_CORRELATIONS: usize = 256;

/// Maximum number of rules of a correlation: a window has one bit for each.
const MAX_FEEDS: usize = 32;

/// Maximum number of fields of `group-by` or of a throttle.
const MAX_FIELDS: usize = 16;

/// Outcome of loading a rule that a correlation may refer to.
#[derive(Clone, Copy, Debug)]
pub enum RuleState {
    Valid {
        /// Index in the rule set.
        index: usize,
        enabled: bool,
    },
    /// Invalid; the error was reported.
    Failed,
    /// Skipped by `skip-if-unknown-filter`.
    Skipped,
}

/// The target of a name in `rules`.
enum Reference {
    Rule(RuleState),
    Correlation(usize),
    /// Unknown; the error was reported.
    Failed,
}

/// State of a correlation.
#[derive(Clone, Copy)]
enum Resolution {
    Done { index: usize, live: bool },
    Failed,
    Skipped,
}

impl<'d> Resolver<'d> {
    /// Resolves the throttle of a rule or correlation that is defined at `span`.
    ///
    /// # Errors
    /// If a field is invalid.
    pub fn throttle(
        &mut self,
        throttle: Option<&'d ThrottleDefinition>,
        span: &Span,
    ) -> Result<Option<Throttle>, Reported> {
        let Some(throttle) = throttle else { return Ok(None) };
        let per = self.fields(&throttle.per, "per", span)?;
        Ok(Some(Throttle { per, every: throttle.every }))
    }

    /// Resolves all correlations; returns the valid ones, each after those that feed it.
    pub fn correlations(
        &mut self,
        rules: &HashMap<&'d str, RuleState>,
        location: impl Fn(&Span) -> Location,
    ) -> Vec<Correlation> {
        let definitions = &self.definitions.correlations;
        if let Some(first) = definitions.get(MAX_CORRELATIONS) {
            let message = format!("there are more than {MAX_CORRELATIONS} correlations");
            self.report(Diagnostic::error("too-large", message, first.span.clone()).label("one too many"));
            return Vec::new();
        }
        let mut parts: Vec<Option<Correlation>> = Vec::new();
        let mut references: Vec<Vec<Reference>> = Vec::new();
        for definition in definitions {
            // Resolve both before returning, to report all errors at once.
            let own = self.correlation(definition, &location);
            references.push(self.references(definition, rules));
            parts.push(own.ok());
        }

        let mut outcomes: Vec<Option<Resolution>> = vec![None; definitions.len()];
        let mut resolved = Vec::new();
        loop {
            let mut is_stuck = true;
            for at in 0..definitions.len() {
                if outcomes[at].is_some() {
                    continue;
                }
                let feeds: Option<Vec<Resolution>> = references[at]
                    .iter()
                    .map(|reference| match reference {
                        Reference::Rule(RuleState::Valid { index, enabled }) => {
                            Some(Resolution::Done { index: *index, live: *enabled })
                        }
                        Reference::Rule(RuleState::Failed) | Reference::Failed => Some(Resolution::Failed),
                        Reference::Rule(RuleState::Skipped) => Some(Resolution::Skipped),
                        Reference::Correlation(other) => outcomes[*other],
                    })
                    .collect();
                let Some(feeds) = feeds else { continue };
                is_stuck = false;
                outcomes[at] = Some(self.append_resolved(
                    &definitions[at],
                    parts[at].take(),
                    &references[at],
                    &feeds,
                    &mut resolved,
                ));
            }
            if is_stuck {
                match outcomes.iter().position(Option::is_none) {
                    Some(open) => self.report_cycle(open, &references, &mut outcomes),
                    None => return resolved,
                }
            }
        }
    }

    /// Appends a correlation whose feeds are resolved.
    fn append_resolved(
        &mut self,
        definition: &CorrelationDefinition,
        own: Option<Correlation>,
        references: &[Reference],
        feeds: &[Resolution],
        resolved: &mut Vec<Correlation>,
    ) -> Resolution {
        let name = &definition.name;
        let Some(mut own) = own else { return Resolution::Failed };
        if feeds.iter().any(|feed| matches!(feed, Resolution::Failed)) {
            return Resolution::Failed;
        }
        let mut lives = Vec::new();
        for (reference, feed) in references.iter().zip(feeds) {
            let Resolution::Done { index, live } = *feed else {
                let message = format!("correlation `{name}` uses a rule that is skipped; it is skipped too");
                self.report(
                    Diagnostic::warning("skipped", message, definition.span.clone()).label("skipped"),
                );
                return Resolution::Skipped;
            };
            lives.push(live);
            own.feeds.push(match reference {
                Reference::Correlation(_) => Feed::Correlation(index),
                _ => Feed::Rule(index),
            });
        }
        let needs_all = matches!(own.kind, CorrelationKind::Temporal | CorrelationKind::TemporalOrdered);
        let can_fire = if needs_all { lives.iter().all(|live| *live) } else { lives.contains(&true) };
        if own.enabled && !can_fire {
            let which = if lives.contains(&true) { "one of its rules is" } else { "all its rules are" };
            let message = format!("correlation `{name}` never fires: {which} disabled");
            self.report(
                Diagnostic::warning("correlates-disabled", message, definition.span.clone())
                    .label("never fires")
                    .help("enable the rules, or disable the correlation too"),
            );
        }
        let live = own.enabled && can_fire;
        resolved.push(own);
        Resolution::Done { index: resolved.len() - 1, live }
    }

    /// Reports cycles among the correlations whose feeds cannot be resolved.
    fn report_cycle(
        &mut self,
        open: usize,
        references: &[Vec<Reference>],
        outcomes: &mut [Option<Resolution>],
    ) {
        let mut way = vec![open];
        loop {
            let at = way[way.len() - 1];
            let next = references[at].iter().enumerate().find_map(|(which, reference)| match reference {
                Reference::Correlation(other) if outcomes[*other].is_none() => Some((which, *other)),
                _ => None,
            });
            // There is one, otherwise it would have been resolved.
            let Some((which, next)) = next else {
                outcomes[at] = Some(Resolution::Failed);
                return;
            };
            let Some(start) = way.iter().position(|seen| *seen == next) else {
                way.push(next);
                continue;
            };
            let definitions = &self.definitions.correlations;
            let names: Vec<&str> =
                way[start..].iter().chain([&next]).map(|at| definitions[*at].name.as_str()).collect();
            let message = format!("correlation `{}` feeds itself: {}", names[0], names.join(" ← "));
            let span = definitions[at].rules[which].whole();
            self.report(
                Diagnostic::error("correlation-circle", message, span).label("the cycle closes here"),
            );
            for at in &way[start..] {
                outcomes[*at] = Some(Resolution::Failed);
            }
            return;
        }
    }

    /// Looks up the names in `rules`.
    fn references(
        &mut self,
        definition: &'d CorrelationDefinition,
        rules: &HashMap<&'d str, RuleState>,
    ) -> Vec<Reference> {
        let definitions = self.definitions;
        let mut references = Vec::new();
        let names = definition.rules.iter().take(MAX_FEEDS + 1);
        for (at, name) in names.enumerate() {
            let is = |other: &CorrelationDefinition| other.name == name.text();
            let fail = |code, message: String, label: &str| {
                Diagnostic::error(code, message, name.whole()).label(label)
            };
            let said = if at == MAX_FEEDS {
                fail("too-large", format!("a correlation has at most {MAX_FEEDS} rules"), "one too many")
            } else if definition.rules[..at].iter().any(|other| other.text() == name.text()) {
                fail("correlation", format!("`{}` is named twice", name.text()), "leave it out")
            } else if let Some(state) = rules.get(name.text()) {
                references.push(Reference::Rule(*state));
                continue;
            } else if let Some(other) = definitions.correlations.iter().position(is) {
                references.push(Reference::Correlation(other));
                continue;
            } else if let Some(rule) = definitions.rules.iter().find(|rule| rule.name == name.text()) {
                let message = format!("rule `{}` has the source `{}`", rule.name, rule.source);
                fail("other-source", message, "it is skipped")
                    .other(rule.span.clone(), "defined here")
                    .help(format!("pullwatch reads `{SOURCE}`"))
            } else {
                let known = rules.keys().copied();
                let known = known.chain(definitions.correlations.iter().map(|other| other.name.as_str()));
                fail("unknown-rule", format!("unknown rule `{}`", name.text()), "unknown rule")
                    .maybe_help(did_you_mean(name.text(), known))
            };
            self.report(said);
            references.push(Reference::Failed);
        }
        references
    }

    /// Resolves everything of a correlation except its feeds.
    fn correlation(
        &mut self,
        definition: &'d CorrelationDefinition,
        location: impl Fn(&Span) -> Location,
    ) -> Result<Correlation, Reported> {
        let (kind, span) = (definition.kind, &definition.span);
        let named = self.unambiguous(definition);
        let enough = self.check_rule_count(definition);
        let group_by = self.fields(&definition.group_by, "group-by", span);
        let show = self.show(&definition.show);
        let condition = self.correlation_condition(definition);
        self.in_correlation = true;
        let output = self.output(&definition.output);
        let throttle = self.throttle(definition.throttle.as_ref(), span);
        self.in_correlation = false;
        let ((), (), (field, bounds)) = (named?, enough?, condition?);
        let mut tags = definition.tags.clone();
        tags.sort_unstable();
        tags.dedup();
        Ok(Correlation {
            name: Arc::from(definition.name.as_str()),
            desc: definition.desc.trim().to_owned(),
            kind,
            feeds: Vec::new(),
            group_by: group_by?,
            show: show?,
            timespan: definition.timespan,
            field,
            bounds,
            min_alerts: definition.condition.as_ref().and_then(|condition| condition.min_alerts).unwrap_or(1),
            output: output?,
            throttle: throttle?,
            priority: definition.priority,
            tags,
            enabled: definition.enabled,
            location: location(span),
        })
    }

    fn unambiguous(&mut self, definition: &CorrelationDefinition) -> Result<(), Reported> {
        // A rule of another source is skipped and cannot be referred to.
        let is = |rule: &&RuleDefinition| rule.name == definition.name && rule.source == SOURCE;
        let Some(rule) = self.definitions.rules.iter().find(is) else { return Ok(()) };
        let message = format!("`{}` is a rule and a correlation", definition.name);
        self.report(
            Diagnostic::error("ambiguous-name", message, definition.span.clone())
                .label("use another name")
                .other(rule.span.clone(), "this is the rule"),
        );
        Err(Reported)
    }

    fn check_rule_count(&mut self, definition: &CorrelationDefinition) -> Result<(), Reported> {
        let (message, label) = match (definition.kind, definition.rules.len()) {
            (_, 0) => ("this correlation has no rules".to_owned(), "expected `rules: […]`"),
            (CorrelationKind::Temporal | CorrelationKind::TemporalOrdered, 1) => {
                (format!("`{}` needs at least two rules", definition.kind), "one rule is not enough")
            }
            _ => return Ok(()),
        };
        let span = definition.rules.first().map_or(definition.span.clone(), Located::whole);
        self.report(Diagnostic::error("correlation", message, span).label(label));
        Err(Reported)
    }

    /// Resolves the counted field and the range of the condition.
    fn correlation_condition(
        &mut self,
        definition: &'d CorrelationDefinition,
    ) -> Result<(Option<Operand>, Bounds), Reported> {
        let kind = definition.kind;
        let wants_field = kind == CorrelationKind::ValueCount;
        let example = if wants_field { "{field: registry.secrets, gte: 5}" } else { "{gte: 5}" };
        let mut fail = |message: String, span: &Span, label: String| {
            self.report(Diagnostic::error("correlation", message, span.clone()).label(label));
            Err(Reported)
        };
        let counts = !matches!(kind, CorrelationKind::Temporal | CorrelationKind::TemporalOrdered);
        let Some(condition) = &definition.condition else {
            if !counts {
                return Ok((None, Bounds::default()));
            }
            return fail(
                format!("`{kind}` needs a condition"),
                &definition.span,
                format!("add `condition: {example}`"),
            );
        };
        if !counts {
            let message = format!("`{kind}` has no condition: each of its rules must match");
            return fail(message, &condition.span, "leave it out".to_owned());
        }
        let Some(bounds) = condition.bounds else {
            return fail(
                "this condition has no number".to_owned(),
                &condition.span,
                format!("expected {example}"),
            );
        };
        let largest = kind.largest();
        if bounds.at_least > largest || bounds.at_most.is_some_and(|most| most > largest) {
            let message = format!("`{kind}` counts to {largest}");
            return fail(message, &condition.span, "number too large".to_owned());
        }
        let field = match (&condition.field, wants_field) {
            (None, false) => None,
            (Some(field), true) => Some(field),
            (None, true) => {
                let message = "`value_count` needs the field whose values it counts".to_owned();
                return fail(message, &condition.span, format!("expected {example}"));
            }
            (Some(field), false) => {
                let message = format!("`{kind}` counts alerts, not the values of a field");
                return fail(message, &field.whole(), "leave it out, or count with `value_count`".to_owned());
            }
        };
        if condition.min_alerts.is_some() && (!wants_field || bounds.at_most.is_some()) {
            let message = "`min_alerts` is for `value_count` without an upper bound".to_owned();
            return fail(message, &condition.span, "leave it out".to_owned());
        }
        // A window starts with an alert, so its count is at least one.
        if bounds.at_most.is_some_and(|most| most < bounds.at_least.max(1)) {
            self.report(
                Diagnostic::warning("never-true", "no window satisfies this", condition.span.clone())
                    .label("never true"),
            );
        }
        let field = field.map(|field| self.whole_field(field)).transpose()?;
        Ok((field, bounds))
    }

    /// Resolves a list of fields.
    fn fields(&mut self, written: &'d [Located], key: &str, whole: &Span) -> Result<Vec<Operand>, Reported> {
        if written.len() > MAX_FIELDS {
            let message = format!("`{key}` has more than {MAX_FIELDS} fields");
            self.report(Diagnostic::error("too-large", message, whole.clone()).label("too many"));
            return Err(Reported);
        }
        let fields: Vec<_> = written.iter().map(|field| self.whole_field(field)).collect();
        fields.into_iter().collect()
    }

    /// Resolves a field or transformer; nothing may follow it.
    fn whole_field(&mut self, text: &Located) -> Result<Operand, Reported> {
        match parse::operand(text.text(), 0) {
            Ok((operand, end)) if end == text.text().len() => self.operand(&operand, text),
            _ => {
                let message = format!("`{}` is not a field", text.text());
                self.report(
                    Diagnostic::error("unknown-field", message, text.whole()).label("expected a field"),
                );
                Err(Reported)
            }
        }
    }
}

/// Returns advice for an unknown field that resembles a correlation field.
pub(super) fn field_help(name: &str, in_correlation: bool) -> Option<String> {
    if !name.starts_with("correlation.") {
        return None;
    }
    if !in_correlation {
        return Some(
            "`correlation.*` fields are only available in outputs and throttles of correlations".to_owned(),
        );
    }
    let known: Vec<&str> = fields::of_correlations().map(|field| field.name).collect();
    did_you_mean(name, known.iter().copied()).or_else(|| Some(format!("there are {}", known.join(", "))))
}

#[cfg(test)]
mod tests;
