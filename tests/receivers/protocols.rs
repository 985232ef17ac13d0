//! VictoriaLogs takes the protocols of Elasticsearch, Splunk and OpenTelemetry.

use std::process::Command;

use serde_json::Value;

use crate::common::wait_for;
use crate::rig::{Daemon, free_port, program, serve, try_get};

#[test]
fn bulk_requests_events_and_log_records_say_who_read_which_credential() {
    let Some(server) = program("victoria-logs") else { return };
    let dir = tempfile::tempdir().unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let _server = serve(
        Command::new(server)
            .arg(format!("-httpListenAddr={address}"))
            .arg("-retentionPeriod=100y")
            .arg(format!("-storageDataPath={}", dir.path().display())),
        &address,
        "/health",
    );
    let sinks = format!(
        "- {{type: otlp, url: 'http://{address}/insert/opentelemetry/v1/logs'}}\n\
         - {{type: elasticsearch, url: 'http://{address}/insert/elasticsearch'}}\n\
         - {{type: splunk_hec, url: 'http://{address}/insert/splunk/services/collector/event', token: t}}"
    );
    let daemon = Daemon::start(&sinks, "");
    daemon.read("a1", "mallory", "registry-1");
    daemon.read("a2", "eve", "registry-1");
    let query = |query: &str| -> Vec<Value> {
        let query = query
            .replace(' ', "%20")
            .replace('"', "%22")
            .replace('/', "%2F")
            .replace('|', "%7C")
            .replace('*', "%2A");
        let (_, body) = try_get(&address, &format!("/select/logsql/query?query={query}")).unwrap();
        // Chunks of the transfer coding are lines of their own.
        body.lines().filter_map(|line| serde_json::from_str(line).ok()).filter(Value::is_object).collect()
    };
    for (filter, actor) in [
        ("_time:100y service.name:pullwatch credential:=\"prod/registry-1\"", "actor"),
        ("_time:100y event.kind:alert pullwatch.credential:=\"prod/registry-1\"", "user.name"),
        ("_time:100y sourcetype:* event.credential:=\"prod/registry-1\"", "event.actor"),
    ] {
        let readers = || -> Vec<String> {
            let found = query(&format!("{filter} | stats by ({actor}) count() reads | sort by ({actor})"));
            found.iter().filter_map(|reader| reader[actor].as_str().map(str::to_owned)).collect()
        };
        wait_for(filter, || readers() == ["eve", "mallory"]);
    }
}
