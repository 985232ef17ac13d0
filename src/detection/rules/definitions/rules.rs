//! Reads the definitions of rules.

use super::{Change, DefinitionReader, Parsed, RULE_KEYS, RuleDefinition, SOURCE};
use crate::detection::alert::Priority;
use crate::text::diagnostics::Diagnostic;
use crate::text::suggest::did_you_mean;
use crate::text::yaml::Node;

impl DefinitionReader<'_, '_> {
    /// Reads a rule: either a definition, or a change to one.
    pub(super) fn rule(&mut self, item: &Node) -> Parsed<()> {
        self.unknown_keys(item, &RULE_KEYS);
        let (name, span) = self.name(item, "rule")?;
        let keys = [
            ("condition", true),
            ("output", true),
            ("desc", true),
            ("tags", true),
            ("exceptions", true),
            ("priority", false),
            ("enabled", false),
            ("warn_evttypes", false),
            ("capture", false),
            ("capture_duration", false),
            ("skip-if-unknown-filter", false),
            ("throttle", false),
            ("alert", false),
            ("show", true),
        ];
        let (change, overrides) = self.change(item, "rule", &keys)?;
        let tags = self.tags(item)?;
        let exceptions = self.exceptions(item)?;
        let enabled = self.boolean(item, "enabled")?;
        let skip_if_unknown = self.boolean(item, "skip-if-unknown-filter")?;
        let throttle = self.throttle(item)?;
        let makes_alerts = self.boolean(item, "alert")?;
        let show = self.show(item)?;
        self.boolean(item, "warn_evttypes")?;
        self.capture_duration(item)?;
        // An invalid priority was reported; continue, to report further errors of the rule.
        let priority = self.priority(item).unwrap_or(Some(Priority::Debug));
        let known = self.definitions.rule_index.get(name).copied();

        if change == Change::Define {
            let only_enabled = enabled.is_some()
                && ["condition", "output", "desc", "priority"].iter().all(|key| item.get(key).is_none());
            if let (true, Some(enabled)) = (only_enabled, enabled) {
                return match known {
                    Some(index) => {
                        self.definitions.rules[index].enabled = enabled;
                        Ok(())
                    }
                    None => {
                        let known: Vec<String> = self.definitions.rule_index.keys().cloned().collect();
                        self.undefined("rule", name, span, &known)
                    }
                };
            }
            let condition = self.required(item, "condition", "rule", &span);
            let output = self.required(item, "output", "rule", &span);
            let desc = self.required(item, "desc", "rule", &span);
            if priority.is_none() {
                // Reported like a missing `desc`; the rule is checked nevertheless.
                let _ = self.required(item, "priority", "rule", &span);
            }
            let source = self.scalar(item, "source")?.filter(|node| !node.is_null());
            let source = source.and_then(|node| node.text()).filter(|source| !source.is_empty());
            let rule = RuleDefinition {
                name: name.to_owned(),
                span: span.clone(),
                desc: desc.ok().and_then(|node| node.text()).unwrap_or_default().to_owned(),
                condition: self.located(condition?),
                output: self.located(output?),
                priority: priority.unwrap_or(Priority::Debug),
                tags,
                enabled: enabled.unwrap_or(true),
                source: source.unwrap_or(SOURCE).to_owned(),
                has_source: source.is_some(),
                exceptions,
                skip_if_unknown: skip_if_unknown.unwrap_or(false),
                throttle,
                makes_alerts: makes_alerts.unwrap_or(true),
                show: show.unwrap_or_default(),
            };
            return self.define_rule(rule, known);
        }

        let Some(index) = known else {
            let known: Vec<String> = self.definitions.rule_index.keys().cloned().collect();
            return self.undefined("rule", name, span, &known);
        };
        if change == Change::Append && item.get("condition").is_none() && item.get("exceptions").is_none() {
            return self.fail(
                "missing-key",
                "there is nothing to append",
                span,
                "add `condition:` or `exceptions:`",
            );
        }
        let condition = self.scalar(item, "condition")?.map(|node| self.located(node));
        let output = self.scalar(item, "output")?.map(|node| self.located(node));
        let desc = self.scalar(item, "desc")?.and_then(|node| node.text());
        let appends = |key: &str| *overrides.get(key).unwrap_or(&true);
        let rule = &mut self.definitions.rules[index];
        for (key, own, new) in
            [("condition", &mut rule.condition, condition), ("output", &mut rule.output, output)]
        {
            match new {
                Some(new) if appends(key) => own.append(&new),
                Some(new) => *own = new,
                None => {}
            }
        }
        match desc {
            Some(desc) if appends("desc") => rule.desc = format!("{} {desc}", rule.desc),
            Some(desc) => desc.clone_into(&mut rule.desc),
            None => {}
        }
        if item.get("tags").is_some() {
            if !appends("tags") {
                rule.tags.clear();
            }
            rule.tags.extend(tags);
        }
        rule.priority = priority.unwrap_or(rule.priority);
        rule.enabled = enabled.unwrap_or(rule.enabled);
        rule.makes_alerts = makes_alerts.unwrap_or(rule.makes_alerts);
        rule.skip_if_unknown = skip_if_unknown.unwrap_or(rule.skip_if_unknown);
        if item.get("throttle").is_some() {
            rule.throttle = throttle;
        }
        if let Some(show) = show {
            if !appends("show") {
                rule.show.clear();
            }
            rule.show.extend(show);
        }
        if item.get("exceptions").is_some() {
            if !appends("exceptions") {
                rule.exceptions.clear();
            }
            return self.append_exceptions(index, exceptions);
        }
        Ok(())
    }

    fn define_rule(&mut self, rule: RuleDefinition, known: Option<usize>) -> Parsed<()> {
        for exception in &rule.exceptions {
            if exception.fields.is_empty() {
                let (span, message) =
                    (exception.span.clone(), format!("exception `{}` has no `fields`", exception.name));
                return self.fail("missing-key", message, span, "add `fields: [ka.user.name]` and the like");
            }
        }
        if rule.source != SOURCE {
            let message = format!("rule `{}` has the source `{}`; it is skipped", rule.name, rule.source);
            self.report(
                Diagnostic::warning("other-source", message, rule.span.clone())
                    .label(format!("pullwatch evaluates rules of the source `{SOURCE}`"))
                    .maybe_help(did_you_mean(&rule.source, [SOURCE])),
            );
        }
        let definitions = &mut *self.definitions;
        match known {
            Some(index) if definitions.rules[index].source != rule.source => {
                let first = definitions.rules[index].span.clone();
                self.report(
                    Diagnostic::error(
                        "other-source",
                        format!("rule `{}` is redefined for another source", rule.name),
                        rule.span,
                    )
                    .label("use another name")
                    .other(first, "first defined here"),
                );
                Err(())
            }
            Some(index) => {
                definitions.rules[index] = rule;
                Ok(())
            }
            None => {
                definitions.rule_index.insert(rule.name.clone(), definitions.rules.len());
                definitions.rules.push(rule);
                Ok(())
            }
        }
    }
}
