//! `pullwatch rules test`: runs unit tests for rules, written in YAML.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anstyle::{AnsiColor, Style};
use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};

use super::super::{rule_files, visible};
use super::events;
use crate::detection::detector::{Detector, Options};
use crate::detection::engine::alert::Alert;
use crate::detection::networks::{Network, Networks};
use crate::detection::rules::ast::RuleSet;
use crate::detection::rules::{Matching, SourceFile};
use crate::text::yaml::{self, Node};

/// Run unit tests for rules: events in, expected alerts out
///
/// A test file names rule files and tests. A test lists events and exactly the alerts that they must produce. Missing
/// members of an event are filled in: kind, apiVersion, level, stage (ResponseComplete), auditID, user, sourceIPs,
/// responseStatus (200) and timestamps.
#[derive(Debug, Args)]
#[command(after_help = "\
Test file:
  rule_files: [../rules.d]         # relative to this file; default: ./rules.d or built-in
  rule_matching: all               # or first
  tests:
    - name: reports a list of all secrets
      events:
        - {verb: list, user: {username: mallory}, objectRef: {resource: secrets}}
      alerts:
        - rule: Secrets Listed
          priority: Warning        # optional, like all keys but rule
          fields: {ka.user.name: mallory}
          output: user=mallory     # substring of the output
    - name: ignores a controller
      file: controller.jsonl       # events from a file
      alerts: []
    - name: reports a token outside of the cluster
      networks: {pods: [10.244.0.0/16], nodes: [192.168.5.0/24]}
      file: stolen.jsonl
      alerts: [{rule: Service Account Token Used Outside The Cluster}]
    - name: ignores a reader of our list
      rules: |                     # additional rules for this test, loaded last
        - list: allowed_secret_readers
          items: [carol]
          override: {items: append}
      events: [{verb: list, user: {username: carol}, objectRef: {resource: secrets}}]
      alerts: []

Examples:
  pullwatch rules test tests/rules/reads.yaml
  pullwatch rules test tests/rules/*.yaml

Exit status: 0 all tests passed, 1 a test failed, 2 error.")]
pub struct Test {
    /// Test files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Rule file or directory of rule files to test instead of those that the test files name; repeatable
    #[arg(short, long = "rules", value_name = "PATH")]
    rules: Vec<PathBuf>,
}

impl Test {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let (mut passed, mut failed) = (0_u32, 0_u32);
        let mut out = anstream::stdout().lock();
        for path in &self.files {
            let context = || format!("in {}", path.display());
            let suite = Suite::read(path, &self.rules).with_context(context)?;
            for test in &suite.tests {
                let problems = suite
                    .run(test)
                    .with_context(|| format!("in {}, test `{}`", path.display(), visible(&test.name)))?;
                let (word, style) = if problems.is_empty() {
                    passed += 1;
                    ("ok", AnsiColor::Green.on_default())
                } else {
                    failed += 1;
                    ("FAILED", AnsiColor::Red.on_default().bold())
                };
                writeln!(out, "{style}{word:<6}{style:#}  {}: {}", path.display(), visible(&test.name))?;
                let dim = Style::new().dimmed();
                for problem in problems {
                    writeln!(out, "        {dim}{}{dim:#}", visible(&problem))?;
                }
            }
        }
        writeln!(out, "{passed} passed, {failed} failed")?;
        Ok(ExitCode::from(u8::from(failed > 0)))
    }
}

/// The tests of one file.
struct Suite {
    matching: Matching,
    tests: Vec<Case>,
}

struct Case {
    name: String,
    rules: Arc<RuleSet>,
    networks: Networks,
    events: Vec<u8>,
    expected: Vec<Expected>,
}

/// An expected alert.
struct Expected {
    rule: String,
    priority: Option<String>,
    output: Option<String>,
    fields: serde_json::Map<String, Value>,
}

fn text<'n>(node: &'n Node, key: &str) -> anyhow::Result<Option<&'n str>> {
    match node.get(key) {
        None => Ok(None),
        Some(value) => value.text().map(Some).with_context(|| format!("`{key}` must be a string")),
    }
}

fn known_keys(node: &Node, known: &[&str]) -> anyhow::Result<()> {
    for entry in node.mapping().unwrap_or_default() {
        if !known.contains(&&*entry.key) {
            bail!("unknown key `{}`: expected one of {}", visible(&entry.key), known.join(", "));
        }
    }
    Ok(())
}

impl Suite {
    fn read(path: &Path, rules: &[PathBuf]) -> anyhow::Result<Self> {
        let content = std::fs::read_to_string(path).context("cannot read the file")?;
        let documents = yaml::parse(&content).map_err(|error| {
            let line = content.get(..error.range.start).unwrap_or_default().matches('\n').count() + 1;
            anyhow::anyhow!("line {line}: not valid YAML: {}", error.message)
        })?;
        let root = documents.roots.first().context("the file is empty: expected `tests:`")?;
        known_keys(root, &["rule_files", "rule_matching", "tests"])?;
        let beside = path.parent().unwrap_or(Path::new(""));
        let named: Vec<PathBuf> = match root.get("rule_files") {
            None => Vec::new(),
            Some(node) => node
                .sequence()
                .context("`rule_files` must be a sequence of paths")?
                .iter()
                .map(|node| {
                    node.text()
                        .map(|name| beside.join(name))
                        .context("`rule_files` must be a sequence of paths")
                })
                .collect::<anyhow::Result<_>>()?,
        };
        let matching = match text(root, "rule_matching")? {
            None | Some("all") => Matching::All,
            Some("first") => Matching::First,
            Some(other) => bail!("invalid `rule_matching` `{}`: expected `all` or `first`", visible(other)),
        };
        let files = rule_files::read(if rules.is_empty() { &named } else { rules })?;
        let rules = Arc::new(rule_files::load_files(&files, matching)?.rules);
        let nodes = root
            .get("tests")
            .and_then(|node| node.sequence())
            .context("`tests` is missing or not a sequence")?;
        let tests = nodes
            .iter()
            .enumerate()
            .map(|(at, node)| {
                Case::read(node, beside, &files, &rules, matching).with_context(|| format!("test {}", at + 1))
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        for (test, expected) in tests.iter().flat_map(|test| test.expected.iter().map(move |e| (test, e))) {
            let rules = test.rules.rules.iter().map(|rule| &rule.name);
            let mut names = rules.chain(test.rules.correlations.iter().map(|correlation| &correlation.name));
            if !names.any(|name| **name == *expected.rule) {
                bail!("expected alert of unknown rule `{}`", visible(&expected.rule));
            }
        }
        Ok(Suite { matching, tests })
    }

    /// Runs a test and returns its failures; empty if it passes.
    fn run(&self, test: &Case) -> anyhow::Result<Vec<String>> {
        let detector = Detector::new(
            &test.rules,
            Options { matching: self.matching, networks: test.networks.clone(), ..Options::default() },
        );
        let mut session = detector.session();
        let mut alerts: Vec<Value> = Vec::new();
        let mut unreadable = None;
        let mut on_alert = |alert: &Alert<'_>| {
            let mut json = Vec::new();
            alert.write_json(&mut json);
            match serde_json::from_slice(&json) {
                Ok(alert) => alerts.push(alert),
                Err(error) => unreadable = Some(error),
            }
        };
        session.chunk(&test.events, &mut on_alert);
        session.finish(&mut on_alert);
        if let Some(error) = unreadable {
            return Err(error).context("an alert is not valid JSON");
        }
        let counts = session.take_stats();
        let mut problems: Vec<String> =
            counts.malformed.iter().map(|(reason, count)| format!("{count} malformed: {reason}")).collect();
        for expected in &test.expected {
            match alerts.iter().position(|alert| expected.fits(alert)) {
                Some(at) => drop(alerts.remove(at)),
                None => problems.push(expected.missing(&alerts)),
            }
        }
        for alert in &alerts {
            let text = |key: &str| alert[key].as_str().unwrap_or_default();
            problems.push(format!("unexpected: {}: {}", text("rule"), text("output")));
        }
        Ok(problems)
    }
}

impl Case {
    fn read(
        node: &Node,
        beside: &Path,
        files: &[SourceFile],
        rules: &Arc<RuleSet>,
        matching: Matching,
    ) -> anyhow::Result<Self> {
        known_keys(node, &["name", "rules", "networks", "events", "file", "alerts"])?;
        let name = text(node, "name")?.context("`name` is missing")?.to_owned();
        let rules = match text(node, "rules")? {
            None => rules.clone(),
            Some(more) => {
                let own =
                    SourceFile { name: format!("rules of test `{name}`").into(), text: more.to_owned() };
                let files: Vec<SourceFile> = files.iter().cloned().chain([own]).collect();
                Arc::new(rule_files::load_files(&files, matching)?.rules)
            }
        };
        let events = match (node.get("events"), text(node, "file")?) {
            (Some(events), None) => {
                let nodes = events.sequence().context("`events` must be a sequence of events")?;
                let mut lines = Vec::new();
                for (at, node) in nodes.iter().enumerate() {
                    let mut event = node.to_json();
                    fill_in(&mut event, at).with_context(|| format!("event {} is not a mapping", at + 1))?;
                    serde_json::to_writer(&mut lines, &event)?;
                    lines.push(b'\n');
                }
                lines
            }
            (None, Some(file)) => events::read(&beside.join(file).display().to_string())?,
            _ => bail!("test `{}`: expected either `events` or `file`", visible(&name)),
        };
        let expected = node
            .get("alerts")
            .and_then(|node| node.sequence())
            .with_context(|| format!("test `{}`: `alerts` is missing (use [] for none)", visible(&name)))?
            .iter()
            .map(|node| Expected::read(node))
            .collect::<anyhow::Result<_>>()?;
        Ok(Case { name, rules, networks: networks(node)?, events, expected })
    }
}

/// The networks of the cluster in a test.
fn networks(test: &Node) -> anyhow::Result<Networks> {
    let Some(node) = test.get("networks") else { return Ok(Networks::default()) };
    known_keys(node, &["pods", "nodes"])?;
    let list = |key: &str| -> anyhow::Result<Vec<Network>> {
        let nodes = node.get(key).map(|list| list.sequence().context("`networks` must hold sequences"));
        let nodes = nodes.transpose()?.unwrap_or_default();
        nodes.iter().map(|network| Ok(network.text().unwrap_or_default().parse()?)).collect()
    };
    Ok(Networks::new(list("pods")?, list("nodes")?)?)
}

/// Adds the members that nearly every event has and that few tests are about.
fn fill_in(event: &mut Value, number: usize) -> Option<()> {
    let event = event.as_object_mut()?;
    let verb = event.get("verb").and_then(Value::as_str).unwrap_or("get").to_owned();
    let defaults = [
        ("kind", json!("Event")),
        ("apiVersion", json!("audit.k8s.io/v1")),
        ("level", json!("Metadata")),
        ("auditID", json!(format!("00000000-0000-4000-8000-{number:012}"))),
        ("stage", json!(if verb == "watch" { "ResponseStarted" } else { "ResponseComplete" })),
        ("user", json!({"username": "alice"})),
        ("sourceIPs", json!(["192.0.2.1"])),
        ("responseStatus", json!({"metadata": {}, "code": 200})),
        ("requestReceivedTimestamp", json!("2026-01-01T00:00:00.000000Z")),
        ("stageTimestamp", json!("2026-01-01T00:00:00.000001Z")),
    ];
    for (key, value) in defaults {
        event.entry(key).or_insert(value);
    }
    Some(())
}

impl Expected {
    fn read(node: &Node) -> anyhow::Result<Self> {
        known_keys(node, &["rule", "priority", "output", "fields"])?;
        let fields = match node.get("fields").map(|fields| fields.to_json()) {
            None => serde_json::Map::new(),
            Some(Value::Object(fields)) => fields,
            Some(_) => bail!("`fields` must be a mapping"),
        };
        Ok(Expected {
            rule: text(node, "rule")?.context("expected alert: `rule` is missing")?.to_owned(),
            priority: text(node, "priority")?.map(str::to_owned),
            output: text(node, "output")?.map(str::to_owned),
            fields,
        })
    }

    fn fits(&self, alert: &Value) -> bool {
        let text = |key: &str| alert[key].as_str().unwrap_or_default();
        text("rule") == self.rule
            && self.priority.as_ref().is_none_or(|priority| text("priority").eq_ignore_ascii_case(priority))
            && self.output.as_ref().is_none_or(|output| text("output").contains(output))
            && self.fields.iter().all(|(field, value)| is_value(&alert["output_fields"][field], value))
    }

    fn missing(&self, alerts: &[Value]) -> String {
        let others: Vec<_> = alerts.iter().filter(|alert| alert["rule"] == *self.rule).collect();
        match others.first() {
            None => format!("missing: {}", self.rule),
            Some(other) => {
                format!(
                    "missing: {}; an alert with other values fired: {}",
                    self.rule, other["output_fields"]
                )
            }
        }
    }
}

/// Compares values. A number in YAML also equals its string form, which is how an alert may contain it.
fn is_value(actual: &Value, expected: &Value) -> bool {
    let text = expected.to_string();
    actual == expected || actual.as_str() == Some(text.as_str())
}
