//! Alerts in VictoriaLogs, which has Loki's push API.

use crate::common::wait_for;
use crate::rig::{Daemon, VictoriaLogs};

#[test]
fn entries_can_be_found_by_actor_and_by_credential() {
    let Some(server) = VictoriaLogs::start() else { return };
    let address = &server.address;
    let sinks = format!("- {{type: loki, url: 'http://{address}/insert/loki/api/v1/push'}}");
    let daemon = Daemon::start(&sinks, "");
    daemon.read("a1", "mallory", "registry-1");
    daemon.read("a2", "eve", "registry-1");
    daemon.read("a3", "eve", "registry-2");
    let query = |query: &str| server.query(query);
    wait_for("all entries are there", || query("{job=\"pullwatch\"}").len() == 3);
    let of_one = query("{job=\"pullwatch\"} actor:=\"mallory\"");
    assert_eq!(of_one.len(), 1, "{of_one:?}");
    let entry = &of_one[0];
    for (name, value) in [
        ("job", "pullwatch"),
        ("rule", "Registry Secret Access"),
        ("priority", "Warning"),
        ("cluster", "prod-eu"),
        ("credential", "prod/registry-1"),
        ("namespace", "prod"),
        ("exposure", "presumed"),
        ("verb", "get"),
        ("event_time", "2026-11-23T10:00:00.000100000Z"),
    ] {
        assert_eq!(entry[name], value, "{entry}");
    }
    assert_eq!(entry["alert_id"].as_str().unwrap().len(), 32);
    let line = entry["_msg"].as_str().unwrap();
    assert!(line.contains("WARNING") && line.contains("Registry secret accessed (id=a1)"), "{line}");
    assert!(entry["_stream"].as_str().unwrap().contains("job=\"pullwatch\""), "{entry}");
    assert!(!entry["_stream"].as_str().unwrap().contains("mallory"), "{entry}");
    // Who read which credential.
    let readers =
        query("{job=\"pullwatch\"} credential:=\"prod/registry-1\" | stats by (actor) count() reads");
    let mut names: Vec<_> = readers.iter().map(|reader| reader["actor"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["eve", "mallory"], "{readers:?}");
}
