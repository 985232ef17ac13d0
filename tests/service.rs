//! What a service manager and a new user meet first: notifications of systemd, `pullwatch health`, `pullwatch demo`.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Stdio};

use regex::Regex;

use common::{free_port, project, pullwatch, said, wait_for};

fn free_address() -> String {
    format!("127.0.0.1:{}", free_port())
}

fn terminate(daemon: &mut Child) {
    rustix::process::kill_process(rustix::process::Pid::from_child(daemon), rustix::process::Signal::TERM)
        .unwrap();
    assert!(daemon.wait().unwrap().success());
}

/// Asserts the exit status of a health check and a part of its answer.
fn check_health(command: &mut std::process::Command, status: i32, answer: &str) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.code() == Some(status) && text.contains(answer),
        "{:?}: {text}{}",
        output.status,
        said(&output)
    );
}

#[test]
fn the_daemon_reports_ready_and_stopping_to_systemd_and_its_health_to_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let socket_path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&socket_path).unwrap();
    socket.set_read_timeout(Some(common::WAIT_TIMEOUT)).unwrap();
    let address = free_address();
    let config = folder.path().join("pullwatch.yaml");
    let token = folder.path().join("token");
    fs::write(&token, "a-token-of-32-characters-or-more").unwrap();
    let text = format!(
        "sources: [{{type: file, name: audit, paths: [{0}/audit.log]}}]\nsinks: []\nserver: {{listen: \"{address}\", token_file: {1}}}\n",
        folder.path().display(),
        token.display()
    );
    fs::write(&config, text).unwrap();
    fs::write(folder.path().join("audit.log"), "").unwrap();

    let mut health = pullwatch();
    health.args(["health", "--config"]).arg(&config);
    check_health(&mut health, 1, "no answer from");

    let mut daemon = pullwatch()
        .args(["run", "--config"])
        .arg(&config)
        .arg("--state-dir")
        .arg(folder.path().join("state"))
        .env("NOTIFY_SOCKET", &socket_path)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut message = [0; 256];
    let length = socket.recv(&mut message).unwrap();
    assert!(String::from_utf8_lossy(&message[..length]).contains("READY=1"));

    // At once: the server listens before the daemon reports that it is ready.
    check_health(&mut health, 0, r#""ok":true"#);
    let mut ready = pullwatch();
    ready.args(["health", "--ready", "--config"]).arg(&config);
    wait_for("the source to be ready", || ready.output().unwrap().status.success());

    terminate(&mut daemon);
    let length = socket.recv(&mut message).unwrap();
    assert!(String::from_utf8_lossy(&message[..length]).contains("STOPPING=1"));
}

#[test]
fn an_address_beyond_loopback_from_the_environment_requires_a_token() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("audit.log"), "").unwrap();
    let mut run = pullwatch();
    run.arg("run").arg(folder.path().join("audit.log")).arg("--state-dir").arg(folder.path().join("state"));
    let output = run.env("PULLWATCH_LISTEN", "0.0.0.0:0").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("set `server.token_file` in the configuration"), "{}", said(&output));
}

#[test]
fn health_names_what_is_wrong_with_its_arguments() {
    let output = pullwatch().args(["health", "ftp://127.0.0.1/"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("expected http://host:port or https://host:port"), "{}", said(&output));

    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("pullwatch.yaml");
    fs::write(&config, "server: false\n").unwrap();
    let output = pullwatch().args(["health", "--config"]).arg(&config).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("disables the HTTP server"), "{}", said(&output));
}

#[test]
fn the_demonstration_needs_no_file_and_leaves_none() {
    let folder = tempfile::tempdir().unwrap();
    let output = pullwatch()
        .args(["demo", "--no-serve"])
        .env("TMPDIR", folder.path())
        .current_dir("/")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [
        "$ pullwatch scan",
        "Registry Credentials Harvested",
        "$ pullwatch report",
        "ghcr.io",
        "As a SIEM forwarder",
    ] {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn manual_pages_carry_the_version_and_the_date_of_the_source() {
    let folder = tempfile::tempdir().unwrap();
    let status =
        pullwatch().arg("man").arg(folder.path()).env("SOURCE_DATE_EPOCH", "1700000000").status().unwrap();
    assert!(status.success());
    let page = fs::read_to_string(folder.path().join("pullwatch-rules-check.1")).unwrap();
    let title = page.lines().find(|line| line.starts_with(".TH")).unwrap();
    assert!(title.contains("2023-11-14"), "{title}");
    let main = fs::read_to_string(folder.path().join("pullwatch.1")).unwrap();
    assert!(
        main.lines().any(|line| line.starts_with(".TH") && line.contains(env!("CARGO_PKG_VERSION"))),
        "{main}"
    );

    let output = pullwatch().arg("man").env("SOURCE_DATE_EPOCH", "yesterday").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("invalid SOURCE_DATE_EPOCH `yesterday`"), "{}", said(&output));
}

#[test]
fn copies_of_alerting_rules_and_dashboards_in_deploy_are_current() {
    let update = std::env::var_os("PULLWATCH_UPDATE_DOCS").is_some();
    let alerts = fs::read_to_string(project("samples/compose/alerts.yml")).unwrap();
    let indented: String = alerts
        .lines()
        .map(|line| if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") })
        .collect();
    let rule = format!(
        "apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: pullwatch\nspec:\n{indented}"
    );
    let mut copies = vec![
        ("deploy/kubernetes/monitoring/prometheus-rule.yaml".to_owned(), rule),
        ("deploy/helm/pullwatch/files/alerts.yml".to_owned(), alerts),
    ];
    for entry in fs::read_dir(project("samples/grafana/dashboards")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let text = fs::read_to_string(entry.path()).unwrap();
        copies.push((format!("deploy/kubernetes/monitoring/dashboards/{name}"), text.clone()));
        copies.push((format!("deploy/helm/pullwatch/files/dashboards/{name}"), text));
        let component =
            fs::read_to_string(project("deploy/kubernetes/monitoring/kustomization.yaml")).unwrap();
        assert!(
            component.contains(&format!("dashboards/{name}")),
            "deploy/kubernetes/monitoring/kustomization.yaml lacks {name}"
        );
    }
    for (path, text) in copies {
        if update {
            fs::write(project(&path), &text).unwrap();
        }
        let found = fs::read_to_string(project(&path)).unwrap_or_default();
        assert!(found == text, "{path} is stale: PULLWATCH_UPDATE_DOCS=1 cargo test --test service");
    }
}

/// The conditions of Grafana's alert rules about exposures and alerts are those of Prometheus.
#[test]
fn alert_rules_of_grafana_have_the_conditions_of_the_alerting_rules() {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let alerts = words(&fs::read_to_string(project("samples/compose/alerts.yml")).unwrap());
    let rules = fs::read_to_string(project("samples/grafana/provisioning/alerting/rules.yaml")).unwrap();
    let rule = Regex::new(r"(?s)expr: >-\n(.*?)\n +- refId: C").unwrap();
    let conditions: Vec<_> = rule.captures_iter(&rules).map(|found| words(&found[1])).collect();
    let shared: Vec<_> = conditions.iter().filter(|condition| condition.contains("increase(")).collect();
    assert_eq!(shared.len(), 3, "{conditions:?}");
    for condition in shared {
        assert!(alerts.contains(&format!("expr: > {condition} labels:")), "{condition}");
    }
}
