//! VictoriaLogs takes the protocols of Elasticsearch, Splunk and OpenTelemetry.

use crate::common::wait_for;
use crate::rig::{Daemon, VictoriaLogs};

#[test]
fn bulk_requests_events_and_log_records_say_who_read_which_credential() {
    let Some(server) = VictoriaLogs::start() else { return };
    let address = &server.address;
    let sinks = format!(
        "- {{type: otlp, url: 'http://{address}/insert/opentelemetry/v1/logs'}}\n\
         - {{type: elasticsearch, url: 'http://{address}/insert/elasticsearch'}}\n\
         - {{type: splunk_hec, url: 'http://{address}/insert/splunk/services/collector/event', token: t}}"
    );
    let daemon = Daemon::start(&sinks, "");
    daemon.read("a1", "mallory", "registry-1");
    daemon.read("a2", "eve", "registry-1");
    let query = |query: &str| server.query(query);
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
