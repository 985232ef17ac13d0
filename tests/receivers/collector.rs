//! A real OpenTelemetry collector takes the records. It is built by hand (see `collector/main.go`); without it the test does nothing.

use std::fs::{self, File};
use std::process::{Command, Stdio};

use crate::common::{free_port, project, wait_for};
use crate::rig::{Daemon, Process};

#[test]
fn a_collector_gets_who_read_which_credential() {
    let collector = project("target/tools/bin/otelcol");
    if !collector.is_file() {
        eprintln!("skipped, otelcol was not built");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (config, log) = (dir.path().join("otelcol.yaml"), dir.path().join("log"));
    let address = format!("127.0.0.1:{}", free_port());
    fs::write(
        &config,
        format!(
            "receivers: {{otlp: {{protocols: {{http: {{endpoint: '{address}'}}}}}}}}\n\
             exporters: {{debug: {{verbosity: detailed, sampling_initial: 100000}}}}\n\
             service: {{telemetry: {{metrics: {{level: none}}}}, pipelines: {{logs: {{receivers: [otlp], exporters: [debug]}}}}}}\n"
        ),
    )
    .unwrap();
    let mut command = Command::new(collector);
    command.arg(format!("--config=file:{}", config.display()));
    command.stdout(Stdio::null()).stderr(File::create(&log).unwrap());
    let _server = Process(command.spawn().unwrap());
    let printed = || fs::read_to_string(&log).unwrap();
    wait_for("the collector is ready", || printed().contains("Everything is ready"));

    let sink = format!("- {{type: otlp, url: 'http://{address}', gzip: true}}");
    let daemon = Daemon::start(&sink, "");
    daemon.read("a1", "mallory", "registry-1");
    daemon.read("a2", "eve", "registry-2");
    for (actor, credential) in [("mallory", "prod/registry-1"), ("eve", "prod/registry-2")] {
        let is_there = |record: &str| {
            record.contains(&format!("-> actor: Str({actor})"))
                && record.contains(&format!("-> credential: Str({credential})"))
                && record.contains("-> k8s.cluster.name: Str(prod-eu)")
                && record.contains("SeverityText: ")
        };
        wait_for(credential, || printed().split("LogRecord #").skip(1).any(is_there));
    }
    assert!(printed().contains("-> service.name: Str(pullwatch)"), "{}", printed());
}
