//! State of sources, sinks and rules, as the server shows it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use crate::daemon::config::{Config, SourceKind};
use crate::daemon::metrics::Metrics;
use crate::daemon::pipeline::{Rules, Status};
use crate::daemon::server::{LogError, RuleStatus, SinkStatus, SourceStatus, StatusSource};
use crate::daemon::sink::{Kind, SinkConfig};
use crate::daemon::store::{LazyReader, StoreReader};
use crate::detection::alert::Priority;
use crate::detection::history::is_per_reader;
use crate::detection::rules::ast::{Correlation, CorrelationKind, Expr, Rule, RuleSet};
use crate::text::timespan;

/// Maximum length of a condition in bytes; a longer one is truncated.
const MAX_CONDITION: usize = 4096;

/// The current rules, replaced by each reload.
#[derive(Clone, Default)]
pub(super) struct LoadedRules(Arc<RwLock<(String, Vec<RuleStatus>)>>);

impl LoadedRules {
    pub(super) fn set(&self, rules: &Rules) {
        let all = describe(&rules.set, rules.options.minimum);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = (rules.set.version.to_string(), all);
    }
}

/// The configured sinks, replaced by each reload.
#[derive(Clone, Default)]
pub(super) struct ConfiguredSinks(Arc<RwLock<Vec<(String, &'static str)>>>);

impl ConfiguredSinks {
    pub(super) fn set(&self, sinks: &[SinkConfig]) {
        let all = sinks.iter().map(|one| (one.name.clone(), sink_kind(&one.kind))).collect();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = all;
    }
}

/// Reads the state of the daemon's components.
pub(super) struct Overview {
    sources: Vec<(String, &'static str)>,
    sinks: ConfiguredSinks,
    metrics: Arc<Metrics>,
    status: Arc<Status>,
    reader: LazyReader,
    rules: LoadedRules,
}

impl Overview {
    pub(super) fn new(
        config: &Config,
        state_dir: PathBuf,
        metrics: Arc<Metrics>,
        status: Arc<Status>,
        rules: LoadedRules,
        sinks: ConfiguredSinks,
    ) -> Self {
        let source = |kind: &SourceKind| match kind {
            SourceKind::File(_) => "file",
            SourceKind::Webhook(_) => "webhook",
            SourceKind::Kafka(_) => "kafka",
            SourceKind::Stdin => "stdin",
        };
        Overview {
            sources: config.sources.iter().map(|one| (one.name.clone(), source(&one.kind))).collect(),
            sinks,
            metrics,
            status,
            reader: LazyReader::new(state_dir),
            rules,
        }
    }

    /// The rules for which `select` returns true, with the numbers of their alerts.
    fn with_counts(&self, select: impl Fn(&RuleStatus) -> bool) -> Vec<RuleStatus> {
        let all = self.metrics.instruments();
        let (alerts, throttled) = (sums(&all.alerts, "rule"), sums(&all.throttled, "rule"));
        let rules = self.rules.0.read().unwrap_or_else(PoisonError::into_inner);
        let counted = |rule: &RuleStatus| RuleStatus {
            alerts: of(&alerts, &rule.name),
            throttled: of(&throttled, &rule.name),
            ..rule.clone()
        };
        rules.1.iter().filter(|rule| select(rule)).map(counted).collect()
    }
}

fn sink_kind(kind: &Kind) -> &'static str {
    match kind {
        Kind::Stdout(_) => "stdout",
        Kind::File(_) => "file",
        Kind::Http(_) => "http",
        Kind::Syslog(_) => "syslog",
        Kind::Alertmanager(_) => "alertmanager",
        Kind::Loki(_) => "loki",
        Kind::Kafka(_) => "kafka",
    }
}

/// Sums of a counter's series, by the value of a label. Creates no series, unlike a lookup by labels.
fn sums(counter: &prometheus::IntCounterVec, label: &str) -> HashMap<String, u64> {
    use prometheus::core::Collector as _;
    let mut sums = HashMap::new();
    for family in counter.collect() {
        for metric in family.get_metric() {
            let value = metric.get_label().iter().find(|pair| pair.name() == label);
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // A count.
            let count = metric.get_counter().get_value() as u64;
            *sums.entry(value.map_or_else(String::new, |pair| pair.value().to_owned())).or_default() += count;
        }
    }
    sums
}

/// The problem of a component, from those of all components as `name: problem`. If one name is another one followed by a colon, the result
/// may be the problem of the other component.
fn problem_of(name: &str, problems: &[String]) -> Option<String> {
    let of_this = |problem: &String| Some(problem.strip_prefix(name)?.strip_prefix(": ")?.to_owned());
    problems.iter().find_map(of_this)
}

fn of(sums: &HashMap<String, u64>, name: &str) -> u64 {
    sums.get(name).copied().unwrap_or(0)
}

impl StatusSource for Overview {
    fn sources(&self) -> Vec<SourceStatus> {
        let all = self.metrics.instruments();
        let mut problems = self.status.source_problems();
        problems.extend(self.status.degradations());
        let malformed = sums(&all.malformed, "source");
        let one = |(name, kind): &(String, &'static str)| {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // At least 0.
            let lag_seconds = all.lag_seconds.with_label_values(&[name.as_str()]).get() as u64;
            SourceStatus {
                name: name.clone(),
                kind,
                problem: problem_of(name, &problems),
                events: all.events.with_label_values(&[name.as_str()]).get(),
                malformed: of(&malformed, name),
                lag_seconds,
            }
        };
        self.sources.iter().map(one).collect()
    }

    fn sinks(&self) -> Result<Vec<SinkStatus>, LogError> {
        let all = self.metrics.instruments();
        let stats = self.reader.with(StoreReader::stats).map_err(|error| LogError(error.to_string()))?;
        let problems = self.status.sink_problems();
        let (delivered, failures, dropped) = (
            sums(&all.sink_deliveries, "sink"),
            sums(&all.sink_failures, "sink"),
            sums(&all.sink_dropped, "sink"),
        );
        let one = |(name, kind): &(String, &'static str)| {
            let known = stats.sinks.iter().find(|sink| sink.name == *name);
            let last_success = all
                .sink_last_success
                .get_metric_with_label_values(&[name.as_str()])
                .map_or(0.0, |gauge| gauge.get());
            #[allow(clippy::cast_possible_truncation)] // A date.
            let last_success = (last_success > 0.0).then_some((last_success * 1e9) as i64);
            SinkStatus {
                name: name.clone(),
                kind,
                problem: problem_of(name, &problems),
                backlog: known.map_or(0, |sink| sink.backlog),
                delivered: of(&delivered, name),
                failures: of(&failures, name),
                dropped: of(&dropped, name),
                last_success,
            }
        };
        let sinks = self.sinks.0.read().unwrap_or_else(PoisonError::into_inner);
        Ok(sinks.iter().map(one).collect())
    }

    fn rules(&self) -> Vec<RuleStatus> {
        self.with_counts(|_| true)
    }

    fn rule(&self, name: &str) -> Option<RuleStatus> {
        self.with_counts(|rule| rule.name == name).pop()
    }

    fn rule_set(&self) -> String {
        self.rules.0.read().unwrap_or_else(PoisonError::into_inner).0.clone()
    }
}

/// All rules, then all correlations.
fn describe(set: &RuleSet, minimum: Priority) -> Vec<RuleStatus> {
    let state = |is_enabled: bool, priority: Priority| {
        if !is_enabled {
            "disabled"
        } else if priority > minimum {
            "below_minimum_priority"
        } else {
            "enabled"
        }
    };
    let rule = |rule: &Rule| {
        let mut condition = String::new();
        write_condition(&rule.condition, false, &mut condition);
        RuleStatus {
            name: rule.name.to_string(),
            priority: rule.priority.name(),
            is_correlation: false,
            state: state(rule.enabled, rule.priority),
            description: rule.desc.trim().to_owned(),
            condition: clipped(condition),
            tags: rule.tags.clone(),
            location: format!("{}:{}", rule.location.file, rule.location.line),
            is_per_reader: is_per_reader(rule),
            ..RuleStatus::default()
        }
    };
    let correlation = |one: &Correlation| RuleStatus {
        name: one.name.to_string(),
        priority: one.priority.name(),
        is_correlation: true,
        state: state(one.enabled, one.priority),
        description: one.desc.trim().to_owned(),
        condition: clipped(window(set, one)),
        tags: one.tags.clone(),
        location: format!("{}:{}", one.location.file, one.location.line),
        is_per_reader: true,
        ..RuleStatus::default()
    };
    set.rules.iter().map(rule).chain(set.correlations.iter().map(correlation)).collect()
}

fn clipped(mut text: String) -> String {
    if text.len() > MAX_CONDITION {
        let end = (0..=MAX_CONDITION).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Appends a condition, with macros and exceptions by name. The loader bounds the recursion depth.
fn write_condition(condition: &Expr, is_nested: bool, out: &mut String) {
    let list = |parts: &[Expr], operator: &str, out: &mut String| {
        if is_nested {
            out.push('(');
        }
        for (at, part) in parts.iter().enumerate() {
            if at > 0 {
                out.push_str(operator);
            }
            write_condition(part, true, out);
        }
        if is_nested {
            out.push(')');
        }
    };
    match condition {
        Expr::And(parts) => list(parts, " and ", out),
        Expr::Or(parts) => list(parts, " or ", out),
        Expr::Not(part) => {
            out.push_str("not ");
            write_condition(part, true, out);
        }
        // Writing to a String does not fail.
        Expr::Comparison(comparison) => {
            let _ = write!(out, "{comparison}");
        }
        Expr::Macro { name, .. } | Expr::Exception { name, .. } => out.push_str(name),
    }
}

/// What a correlation counts.
fn window(set: &RuleSet, one: &Correlation) -> String {
    let feeds: Vec<&str> = one.feeds.iter().filter_map(|&feed| set.name_of(feed)).collect();
    let groups: Vec<String> = one.group_by.iter().map(ToString::to_string).collect();
    let mut text = format!("{} of {}", one.kind, feeds.join(", "));
    let is_temporal = matches!(one.kind, CorrelationKind::Temporal | CorrelationKind::TemporalOrdered);
    if !is_temporal {
        if let Some(field) = &one.field {
            let _ = write!(text, ", distinct {field}");
        }
        let _ = match one.bounds.at_most {
            None => write!(text, ", at least {}", one.bounds.at_least),
            Some(most) => write!(text, ", {} to {most}", one.bounds.at_least),
        };
    }
    let _ = write!(text, " within {}", timespan::format(one.timespan));
    if !groups.is_empty() {
        let _ = write!(text, ", per {}", groups.join(", "));
    }
    text
}
