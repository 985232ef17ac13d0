//! Reads the definitions of correlations and throttles: conditions over several alerts, and limits on repeated alerts.
//!
//! ```yaml
//! - correlation: Registry credentials harvested
//!   desc: One user read many credentials.      # optional
//!   type: value_count                          # event_count, value_count, temporal, temporal_ordered
//!   rules: [Registry Credential Read]          # names of rules, or of other correlations
//!   group-by: [ka.user.name]                   # optional: otherwise all alerts form one group
//!   timespan: 10m                              # s, m, h, d, and sums: 1h30m
//!   condition: {field: registry.secrets, gte: 5}
//!   output: "%ka.user.name read %correlation.value_count credentials in %correlation.timespan"
//!   priority: CRITICAL
//! ```
//!
//! The keywords are those of Sigma. `condition` compares with `gte`, `gt`, `lte`, `lt` or `eq`, or a range of them; `value_count` has the
//! `field` whose distinct values it counts, and may have `min_alerts`, the number of alerts that they have to come from, and the two
//! `temporal` types have no condition: each of their rules must match. An output may contain any field, read from the event that completed
//! the window, and `%correlation.…`; so may the `per` of a throttle, `throttle: {per: [audit.actor, correlation.values], every: 24h}`.
//!
//! A later definition of the same name replaces the earlier one and keeps its position; `override` works as for rules.

use super::{Change, DefinitionReader, Parsed};
use crate::detection::alert::Priority;
use crate::detection::rules::ast::{Bounds, CorrelationKind};
use crate::text::diagnostics::{Diagnostic, Span};
use crate::text::located::Located;
use crate::text::suggest::did_you_mean;
use crate::text::timespan;
use crate::text::yaml::Node;

#[derive(Debug)]
pub struct CorrelationDefinition {
    pub name: String,
    /// Location of the name.
    pub span: Span,
    pub desc: String,
    pub kind: CorrelationKind,
    /// Names of rules and correlations.
    pub rules: Vec<Located>,
    pub group_by: Vec<Located>,
    /// In nanoseconds.
    pub timespan: i64,
    pub condition: Option<ConditionDefinition>,
    pub output: Located,
    pub priority: Priority,
    /// Unsorted.
    pub tags: Vec<String>,
    pub enabled: bool,
    pub throttle: Option<ThrottleDefinition>,
    /// See [`RuleDefinition::show`](super::RuleDefinition::show).
    pub show: Vec<Located>,
}

/// The condition of a correlation.
#[derive(Debug)]
pub struct ConditionDefinition {
    pub span: Span,
    /// The field whose distinct values are counted.
    pub field: Option<Located>,
    /// The range that satisfies it, if there is one.
    pub bounds: Option<Bounds>,
    /// Minimum number of alerts whose values are counted.
    pub min_alerts: Option<u64>,
}

/// A limit on the alerts of a rule or correlation: `throttle: {per: [ka.user.name], every: 10m}`.
#[derive(Debug)]
pub struct ThrottleDefinition {
    pub per: Vec<Located>,
    /// In nanoseconds.
    pub every: i64,
}

const KEYS: [&str; 14] = [
    "correlation",
    "desc",
    "type",
    "rules",
    "group-by",
    "timespan",
    "condition",
    "output",
    "priority",
    "tags",
    "enabled",
    "throttle",
    "show",
    "override",
];

const OVERRIDES: [(&str, bool); 12] = [
    ("desc", true),
    ("type", false),
    ("rules", true),
    ("group-by", true),
    ("timespan", false),
    ("condition", false),
    ("output", true),
    ("priority", false),
    ("tags", true),
    ("enabled", false),
    ("throttle", false),
    ("show", true),
];

/// Keywords of comparisons.
const COMPARISONS: [&str; 5] = ["gte", "gt", "lte", "lt", "eq"];

/// The keys of an item that are present.
struct CorrelationKeys {
    desc: Option<String>,
    kind: Option<CorrelationKind>,
    rules: Option<Vec<Located>>,
    group_by: Option<Vec<Located>>,
    timespan: Option<i64>,
    condition: Option<ConditionDefinition>,
    output: Option<Located>,
    priority: Option<Priority>,
    tags: Vec<String>,
    enabled: Option<bool>,
    throttle: Option<ThrottleDefinition>,
    show: Option<Vec<Located>>,
}

impl DefinitionReader<'_, '_> {
    pub(super) fn correlation(&mut self, item: &Node) -> Parsed<()> {
        self.unknown_keys(item, &KEYS);
        let (name, span) = self.name(item, "correlation")?;
        let (change, overrides) = self.change(item, "correlation", &OVERRIDES)?;
        if change == Change::Append {
            return self.fail(
                "override",
                "a correlation has no `append`",
                span,
                "write `override: {rules: append}` and the like",
            );
        }
        let given = self.given(item)?;
        let known = self.definitions.correlation_index.get(name).copied();
        let only_enabled = change == Change::Define
            && KEYS[1..].iter().all(|key| item.get(key).is_some() == (*key == "enabled"));
        if change == Change::Override || only_enabled {
            let Some(index) = known else {
                let known: Vec<String> = self.definitions.correlation_index.keys().cloned().collect();
                return self.undefined("correlation", name, span, &known);
            };
            let appends = |key: &str| *overrides.get(key).unwrap_or(&true);
            self.definitions.correlations[index].change(given, item, appends);
            return Ok(());
        }
        let defined = self.defined(item, name, &span, given)?;
        let definitions = &mut *self.definitions;
        match known {
            Some(index) => definitions.correlations[index] = defined,
            None => {
                definitions.correlation_index.insert(name.to_owned(), definitions.correlations.len());
                definitions.correlations.push(defined);
            }
        }
        Ok(())
    }

    /// Reads all keys, and reports all errors.
    fn given(&mut self, item: &Node) -> Parsed<CorrelationKeys> {
        let desc = self.scalar(item, "desc");
        let kind = self.kind(item);
        let rules = self.names(item, "rules", "expected [Registry Credential Read] and the like");
        let group_by = self.names(item, "group-by", "expected [ka.user.name] and the like");
        let timespan = self.timespan(item, "timespan");
        let condition = self.correlation_condition(item);
        let output = self.scalar(item, "output");
        let priority = self.priority(item);
        let tags = self.tags(item);
        let enabled = self.boolean(item, "enabled");
        let throttle = self.throttle(item);
        let show = self.show(item);
        Ok(CorrelationKeys {
            desc: desc?.and_then(|node| node.text()).map(str::to_owned),
            kind: kind?,
            rules: rules?,
            group_by: group_by?,
            timespan: timespan?,
            condition: condition?,
            output: output?.map(|node| self.located(node)),
            priority: priority?,
            tags: tags?,
            enabled: enabled?,
            throttle: throttle?,
            show: show?,
        })
    }

    /// Returns a definition; reports missing keys.
    fn defined(
        &mut self,
        item: &Node,
        name: &str,
        span: &Span,
        given: CorrelationKeys,
    ) -> Parsed<CorrelationDefinition> {
        let mut missing = false;
        for key in ["type", "rules", "timespan", "output", "priority"] {
            if item.get(key).is_none_or(|node| node.is_null()) {
                self.report(
                    Diagnostic::error(
                        "missing-key",
                        format!("this correlation has no `{key}`"),
                        span.clone(),
                    )
                    .label(format!("add `{key}:`")),
                );
                missing = true;
            }
        }
        let (Some(kind), Some(rules), Some(timespan), Some(output), Some(priority), false) =
            (given.kind, given.rules, given.timespan, given.output, given.priority, missing)
        else {
            return Err(());
        };
        Ok(CorrelationDefinition {
            name: name.to_owned(),
            span: span.clone(),
            desc: given.desc.unwrap_or_default(),
            kind,
            rules,
            group_by: given.group_by.unwrap_or_default(),
            timespan,
            condition: given.condition,
            output,
            priority,
            tags: given.tags,
            enabled: given.enabled.unwrap_or(true),
            throttle: given.throttle,
            show: given.show.unwrap_or_default(),
        })
    }

    fn kind(&mut self, item: &Node) -> Parsed<Option<CorrelationKind>> {
        let Some(node) = self.scalar(item, "type")? else { return Ok(None) };
        let word = node.text().unwrap_or_default();
        if let Some(kind) = CorrelationKind::ALL.into_iter().find(|kind| kind.name() == word) {
            return Ok(Some(kind));
        }
        let span = self.span(node);
        let help = did_you_mean(word, CorrelationKind::ALL.map(CorrelationKind::name));
        self.report(
            Diagnostic::error("correlation", format!("`{word}` is not a correlation type"), span)
                .label("expected event_count, value_count, temporal or temporal_ordered")
                .maybe_help(help),
        );
        Err(())
    }

    /// Reads the paths that an output exempts from redaction.
    pub(super) fn show(&mut self, item: &Node) -> Parsed<Option<Vec<Located>>> {
        self.names(item, "show", "expected [/requestObject/spec/source] and the like")
    }

    /// Reads a sequence of strings, or a single string.
    fn names(&mut self, item: &Node, key: &str, expected: &str) -> Parsed<Option<Vec<Located>>> {
        let Some(node) = item.get(key) else { return Ok(None) };
        if node.is_null() {
            return Ok(Some(Vec::new()));
        }
        let nodes = match node.sequence() {
            Some(nodes) => nodes,
            None => std::slice::from_ref(node),
        };
        if nodes.iter().any(|node| node.text().is_none()) {
            let span = self.span(node);
            return self.fail("not-a-list", format!("`{key}` must be a sequence of strings"), span, expected);
        }
        Ok(Some(nodes.iter().map(|node| self.located(node)).collect()))
    }

    fn timespan(&mut self, item: &Node, key: &str) -> Parsed<Option<i64>> {
        let Some(node) = self.scalar(item, key)? else { return Ok(None) };
        let text = node.text().unwrap_or_default();
        match timespan::parse(text) {
            Ok(length) => Ok(Some(length)),
            Err(expected) => {
                let span = self.span(node);
                self.fail("timespan", format!("`{text}` is not a duration"), span, expected)
            }
        }
    }

    fn correlation_condition(&mut self, item: &Node) -> Parsed<Option<ConditionDefinition>> {
        let Some(node) = item.get("condition") else { return Ok(None) };
        if node.is_null() {
            return Ok(None);
        }
        let span = self.span(node);
        let Some(entries) = node.mapping() else {
            return self.fail(
                "correlation",
                "`condition` of a correlation must be a mapping",
                span,
                "expected {gte: 5} or {field: registry.secrets, gte: 5}",
            );
        };
        let field = self.scalar(node, "field")?.map(|node| self.located(node));
        let mut bounds: Option<Bounds> = None;
        let mut min_alerts = None;
        let mut wrong = false;
        for entry in entries.iter().filter(|entry| entry.key != "field") {
            let is_min_alerts = entry.key == "min_alerts";
            if !is_min_alerts && !COMPARISONS.contains(&&*entry.key) {
                let place = self.key_span(entry);
                let help = did_you_mean(&entry.key, COMPARISONS.into_iter().chain(["field", "min_alerts"]));
                let message = format!("`{}` is not a key of a correlation's condition", entry.key);
                self.report(
                    Diagnostic::error("correlation", message, place)
                        .label("expected field, gte, gt, lte, lt, eq or min_alerts")
                        .maybe_help(help),
                );
                wrong = true;
                continue;
            }
            let number = entry.value.text().and_then(|text| text.trim().parse::<u64>().ok());
            let Some(number) = number.filter(|number| *number <= CorrelationKind::EventCount.largest())
            else {
                let place = self.span(&entry.value);
                let message = format!("`{}` must be an integer", entry.key);
                let largest = CorrelationKind::EventCount.largest();
                self.report(
                    Diagnostic::error("correlation", message, place)
                        .label(format!("expected a number from 0 to {largest}")),
                );
                wrong = true;
                continue;
            };
            if is_min_alerts {
                min_alerts = Some(number);
                continue;
            }
            let bounds = bounds.get_or_insert_default();
            let (least, most) = match entry.key.as_str() {
                "gte" => (number, None),
                "gt" => (number + 1, None),
                "lte" => (0, Some(number)),
                // `lt: 0` gives an empty range.
                "lt" if number == 0 => (1, Some(0)),
                "lt" => (0, Some(number - 1)),
                _ => (number, Some(number)),
            };
            bounds.at_least = bounds.at_least.max(least);
            bounds.at_most = match (bounds.at_most, most) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
        }
        if wrong { Err(()) } else { Ok(Some(ConditionDefinition { span, field, bounds, min_alerts })) }
    }

    pub(super) fn throttle(&mut self, item: &Node) -> Parsed<Option<ThrottleDefinition>> {
        let Some(node) = item.get("throttle").filter(|node| !node.is_null()) else { return Ok(None) };
        let span = self.span(node);
        if node.mapping().is_none() {
            return self.fail(
                "throttle",
                "`throttle` takes a mapping",
                span,
                "expected {per: [ka.user.name], every: 10m}",
            );
        }
        self.unknown_keys(node, &["per", "every"]);
        let per = self.names(node, "per", "expected [ka.user.name] and the like");
        let Some(every) = self.timespan(node, "every")? else {
            return self.fail("missing-key", "this throttle has no `every`", span, "add `every: 10m`");
        };
        Ok(Some(ThrottleDefinition { per: per?.unwrap_or_default(), every }))
    }
}

impl CorrelationDefinition {
    /// Replaces the keys that an item contains.
    fn change(&mut self, given: CorrelationKeys, item: &Node, appends: impl Fn(&str) -> bool) {
        match given.desc {
            Some(desc) if appends("desc") => self.desc = format!("{} {desc}", self.desc),
            Some(desc) => self.desc = desc,
            None => {}
        }
        match given.output {
            Some(output) if appends("output") => self.output.append(&output),
            Some(output) => self.output = output,
            None => {}
        }
        for (key, own, new) in [
            ("rules", &mut self.rules, given.rules),
            ("group-by", &mut self.group_by, given.group_by),
            ("show", &mut self.show, given.show),
        ] {
            if let Some(new) = new {
                if !appends(key) {
                    own.clear();
                }
                own.extend(new);
            }
        }
        if item.get("tags").is_some() {
            if !appends("tags") {
                self.tags.clear();
            }
            self.tags.extend(given.tags);
        }
        if item.get("condition").is_some() {
            self.condition = given.condition;
        }
        if item.get("throttle").is_some() {
            self.throttle = given.throttle;
        }
        self.kind = given.kind.unwrap_or(self.kind);
        self.timespan = given.timespan.unwrap_or(self.timespan);
        self.priority = given.priority.unwrap_or(self.priority);
        self.enabled = given.enabled.unwrap_or(self.enabled);
    }
}
