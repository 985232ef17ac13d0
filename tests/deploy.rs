//! The deployment files: docker-compose.yml, Prometheus rules, dashboard. Runs no container; checks the files against the code, and with
//! Prometheus' own tools if they are installed (Debian: prometheus, prometheus-alertmanager).

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::process::{Command, Stdio};

use common::{project, pullwatch};
use pullwatch::internals::daemon::metrics::{Definition, TABLE};
use regex::Regex;
use serde_json::Value;

const DASHBOARDS: [&str; 2] =
    ["samples/grafana/dashboards/operations.json", "samples/grafana/dashboards/exposures.json"];
const ALERTS: &str = "samples/compose/alerts.yml";

fn text(path: &str) -> String {
    fs::read_to_string(project(path)).unwrap()
}

/// Collects every string under a key, at any depth.
fn all<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(text) if name == key => found.push(text),
                    _ => all(member, key, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| all(item, key, found)),
        _ => {}
    }
}

/// Returns the metric with this name, or the histogram with this series.
fn metric(name: &str) -> Option<&'static Definition> {
    let exact = TABLE.iter().find(|metric| metric.name == name);
    exact.or_else(|| {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end))?;
        TABLE.iter().find(|metric| metric.name == base && metric.kind == "histogram")
    })
}

/// Checks an expression against the table: its metrics exist and have the labels that it uses. Returns the metrics.
fn check_expression(expression: &str, wrong: &mut Vec<String>) -> BTreeSet<&'static str> {
    let name = Regex::new(r"\b((?:pullwatch|process)_\w+)(?:\{([^}]*)\})?").unwrap();
    let label = Regex::new(r#"(\w+)\s*(?:=~|!~|!=|=)\s*""#).unwrap();
    let grouped = Regex::new(r"\bby \(([^)]*)\)").unwrap();
    let mut used = BTreeSet::new();
    // Labels of the scrape, and the bound of a bucket.
    let mut there = BTreeSet::from(["cluster", "instance", "job", "le"]);
    for found in name.captures_iter(expression) {
        let Some(definition) = metric(&found[1]) else {
            wrong.push(format!("unknown metric {}, in {expression}", &found[1]));
            continue;
        };
        used.insert(definition.name);
        there.extend(definition.labels);
        let selector = found.get(2).map_or("", |labels| labels.as_str());
        for asked in label.captures_iter(selector) {
            if !there.contains(&asked[1]) {
                wrong.push(format!("{} has no label {}, in {expression}", definition.name, &asked[1]));
            }
        }
        let counts = definition.kind == "counter" || found[1] != *definition.name;
        let rated = Regex::new(&format!(r"(rate|increase)\({}\b", &found[1])).unwrap().is_match(expression);
        if rated && !counts {
            wrong.push(format!("{} is not a counter, in {expression}", definition.name));
        }
    }
    for list in grouped.captures_iter(expression) {
        for asked in list[1].split(',').map(str::trim).filter(|asked| !there.contains(asked)) {
            wrong.push(format!("unknown label {asked}, in {expression}"));
        }
    }
    used
}

#[test]
fn dashboard_and_alerting_rules_use_existing_metrics_and_labels() {
    let dashboards = DASHBOARDS.map(|path| serde_json::from_str::<Value>(&text(path)).unwrap());
    let mut expressions = Vec::new();
    for dashboard in &dashboards {
        all(dashboard, "expr", &mut expressions);
        all(dashboard, "definition", &mut expressions);
    }
    // LogQL is checked in tests/receivers/.
    expressions.retain(|expression| !expression.contains("$logjob"));
    assert!(expressions.len() > 30, "{}", expressions.len());
    let alerts = text(ALERTS);
    // The expression of each rule, possibly on several lines, up to the next key.
    let rule = Regex::new(r"(?s)\n +expr: (.*?)\n +(?:for|labels):").unwrap();
    let rules: Vec<_> = rule.captures_iter(&alerts).map(|found| found[1].to_owned()).collect();
    assert_eq!(rules.len(), alerts.matches("- alert: ").count());

    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for expression in expressions.into_iter().chain(rules.iter().map(String::as_str)) {
        used.extend(check_expression(expression, &mut wrong));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // Metrics of losses and failures must be used.
    for must in TABLE.iter().map(|metric| metric.name) {
        let loss =
            ["malformed", "truncated", "evictions", "dead_letters", "dropped", "errors", "full", "failures"];
        if loss.iter().any(|loss| must.contains(loss)) {
            assert!(used.contains(must), "{must} is used neither on the dashboard nor in an alerting rule");
        }
    }
}

#[test]
fn detects_unknown_metrics_and_labels() {
    let wrong = |expression| {
        let mut wrong = Vec::new();
        check_expression(expression, &mut wrong);
        wrong.len()
    };
    assert_eq!(wrong("sum by (rule) (rate(pullwatch_alerts_total{priority=\"Error\"}[5m]))"), 0);
    assert_eq!(
        wrong("histogram_quantile(0.9, sum by (le) (rate(pullwatch_alert_latency_seconds_bucket[5m])))"),
        0
    );
    assert_eq!(wrong("pullwatch_alert_total"), 1);
    assert_eq!(wrong("pullwatch_alerts_total_bucket"), 1);
    assert_eq!(wrong("pullwatch_alerts_total{prioritaet=\"Error\"}"), 1);
    assert_eq!(wrong("sum by (source) (pullwatch_alerts_total)"), 1);
    assert_eq!(wrong("rate(pullwatch_store_size_bytes[5m])"), 1);
}

/// Runs a tool of Prometheus; returns false if it is not installed.
fn tool(name: &str, arguments: &[&str]) -> bool {
    let Ok(output) = Command::new(name).args(arguments).current_dir(project("")).output() else {
        assert!(std::env::var_os("PULLWATCH_REQUIRE_RECEIVERS").is_none(), "{name} is not installed");
        eprintln!("skipped, {name} is not installed: {name} {}", arguments.join(" "));
        return false;
    };
    let says = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {}: {says}", arguments.join(" "));
    true
}

#[test]
fn prometheus_and_alertmanager_accept_their_configurations() {
    if tool("promtool", &["check", "config", "samples/compose/prometheus.yml"]) {
        tool("promtool", &["check", "rules", ALERTS]);
        tool("promtool", &["check", "rules", "samples/compose/recording.yml"]);
        tool(
            "promtool",
            &["test", "rules", "tests/deploy/alerts.test.yml", "tests/deploy/recording.test.yml"],
        );
    }
    tool("amtool", &["check-config", "samples/compose/alertmanager.yml"]);
}

#[test]
fn every_alerting_rule_has_a_case_in_which_it_fires() {
    let names = |path: &str, pattern: &str| -> BTreeSet<String> {
        let pattern = Regex::new(pattern).unwrap();
        pattern.captures_iter(&text(path)).map(|found| found[1].to_owned()).collect()
    };
    let rules = names(ALERTS, r"- alert: (\w+)");
    let cases =
        names("tests/deploy/alerts.test.yml", r"\n +alertname: (\w+)\n +exp_alerts:\n(?: +#.*\n)* +- ");
    assert!(rules.len() > 30);
    assert_eq!(rules.difference(&cases).collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn compose_images_are_pinned_ports_are_on_loopback_and_mounts_exist() {
    let compose = text("docker-compose.yml");
    let images = Regex::new(r"(?m)^\s*(?:image|x-kafka-image): (?:&[\w-]+ )?([^*\s]+)$").unwrap();
    let images: Vec<_> = images.captures_iter(&compose).map(|found| found[1].to_owned()).collect();
    assert_eq!(images.len(), 6, "{images:?}");
    let pinned = Regex::new(r"^[\w/]+:v?\d+\.\d+\.\d+$").unwrap();
    for image in &images {
        assert!(pinned.is_match(image), "{image} is not pinned");
    }
    // Tests and docker-compose.yml use the same Kafka.
    let pom = text("tests/kafka/pom.xml");
    let kafka =
        Regex::new("<kafka.version>(.+)</kafka.version>").unwrap().captures(&pom).unwrap()[1].to_owned();
    assert!(images.contains(&format!("apache/kafka:{kafka}")), "{images:?}");
    assert!(images.contains(&format!("pullwatch:{}", env!("CARGO_PKG_VERSION"))), "{images:?}");

    let ports = Regex::new(r"(?m)^\s*ports: (.*)$").unwrap();
    let ports: Vec<_> = ports.captures_iter(&compose).map(|found| found[1].to_owned()).collect();
    assert_eq!(ports.len(), 4);
    let loopback = Regex::new(r#"^\["127\.0\.0\.1:\d+:\d+"\]$"#).unwrap();
    assert!(ports.iter().all(|ports| loopback.is_match(ports)), "{ports:?}");

    let mounts = Regex::new(r"(?m)^\s*- \./([^:]+):[^:]+:ro$").unwrap();
    let mounts: Vec<_> = mounts.captures_iter(&compose).map(|found| found[1].to_owned()).collect();
    assert_eq!(mounts.len(), compose.matches("- ./").count(), "a mount that can be written");
    for mount in mounts {
        assert!(project(&mount).exists(), "{mount} is not there");
    }
}

#[test]
fn a_release_has_what_manifests_and_pages_name() {
    let version = env!("CARGO_PKG_VERSION");
    let image = Regex::new(r"ghcr\.io/pullwatch/pullwatch:([\w.-]+)").unwrap();
    let mut named = 0;
    for path in [
        "deploy/kubernetes/daemonset/daemonset.yaml",
        "deploy/kubernetes/kafka/statefulset.yaml",
        "deploy/kubernetes/static-pod/kube-apiserver+strategic.yaml",
        "deploy/kubernetes/webhook/statefulset.yaml",
        "docs/deploy/README.md",
        "docs/deploy/packages.md",
    ] {
        let tags: Vec<_> =
            image.captures_iter(&text(path)).map(|found| found[1].trim_end_matches('.').to_owned()).collect();
        assert!(!tags.is_empty() && tags.iter().all(|tag| tag == version), "{path}: {tags:?}");
        named += tags.len();
    }
    assert!(named >= 6, "{named}");

    // The tag of the repository starts with a v, that of the image does not.
    let workflow = text(".github/workflows/release.yml");
    assert!(workflow.contains("IMAGE: ghcr.io/${{ github.repository }}\n"));
    assert!(workflow.contains("tag=$IMAGE:${GITHUB_REF_NAME#v}\n"));
    // One image per architecture, each built where nothing has to be emulated.
    let images = Regex::new(r"\{runner: ubuntu-24\.04(-arm)?, architecture: (\w+)\}").unwrap();
    let images: Vec<_> =
        images.captures_iter(&workflow).map(|found| (found.get(1).is_some(), found[2].to_owned())).collect();
    assert_eq!(images, [(false, "amd64".to_owned()), (true, "arm64".to_owned())]);

    // Every binary that a page names is one of the build's, and the other way round.
    let built = Regex::new(r"(?m)^ +- \{runner: ubuntu-24\.04(-arm)?, name: ([\w-]+), ").unwrap();
    let built: BTreeSet<_> = built.captures_iter(&workflow).map(|found| found[2].to_owned()).collect();
    let page = text("docs/deploy/packages.md");
    let binary = Regex::new(r"`pullwatch-linux-([\w-]+)`").unwrap();
    let shown: BTreeSet<_> = binary.captures_iter(&page).map(|found| found[1].to_owned()).collect();
    assert_eq!(built, shown);
    assert_eq!(built.len(), 4);
}

#[test]
fn the_compose_rules_load() {
    let rules = ["rules", "check", "--strict", "rules.d", "samples/compose/rules.d"];
    let output = pullwatch().args(rules).current_dir(project("")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[cfg_attr(not(feature = "kafka"), ignore = "this build does not support Kafka")]
fn the_compose_configuration_is_valid() {
    // Its paths are those of the container.
    let config = ["config", "check", "--offline", "samples/compose/pullwatch.yaml"];
    let output = pullwatch().args(config).current_dir(project("")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[cfg(unix)]
fn the_generator_writes_new_events_with_current_times() {
    let mut generator = Command::new("sh")
        .arg(project("samples/compose/generate.sh"))
        .env("SAMPLES", project("samples/audit"))
        .env("RATE", "1000000")
        .env("TZ", "UTC")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // The four samples have 22,786 events and some 26 MB; this is into the second round.
    let mut log = Vec::new();
    generator.stdout.take().unwrap().take(40 << 20).read_to_end(&mut log).unwrap();
    let _ = generator.kill();
    generator.wait().unwrap();
    log.truncate(log.iter().rposition(|&byte| byte == b'\n').unwrap() + 1);

    let mut seen = BTreeSet::new();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let mut events = 0;
    for line in log.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let event: Value = serde_json::from_slice(line).unwrap();
        let key = (event["auditID"].to_string(), event["stage"].to_string());
        assert!(seen.insert(key.clone()), "{key:?} came twice");
        let time: jiff::Timestamp = event["stageTimestamp"].as_str().unwrap().parse().unwrap();
        assert!(now.abs_diff(u64::try_from(time.as_second()).unwrap()) < 600, "{time}");
        events += 1;
    }
    assert!(events > 22_786, "{events}");
}
