//! Alerts in a real Alertmanager, seen through amtool, its API and its notifications.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::common::{free_port, wait_for};
use crate::rig::{Daemon, Hook, Process, get_json, program, serve};

/// Starts an Alertmanager.
fn alertmanager(program: &Path, config: &Path, data: &Path, address: &str) -> Process {
    serve(
        Command::new(program)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.path={}", data.display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--cluster.listen-address="),
        address,
        "/-/ready",
    )
}

#[test]
fn readers_are_alerts_of_their_own_that_are_grouped_silenced_inhibited_and_resolved() {
    let (Some(server), Some(amtool)) = (program("prometheus-alertmanager"), program("amtool")) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let hook = Hook::start();
    let config = dir.path().join("alertmanager.yml");
    fs::write(
        &config,
        format!(
            "route: {{receiver: hook, group_by: [alertname, actor], group_wait: 100ms, group_interval: 1s, repeat_interval: 1h}}\ninhibit_rules:\n- source_matchers: [alertname=\"ClusterMaintenance\"]\n  target_matchers: [actor=~\"dave|nobody\"]\n  equal: [cluster]\nreceivers:\n- name: hook\n  webhook_configs: [{{url: '{}'}}]\n",
            hook.url
        ),
    )
    .unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let _server = alertmanager(&server, &config, &dir.path().join("data"), &address);
    let amtool = |arguments: &[&str]| {
        let url = format!("--alertmanager.url=http://{address}");
        let output = Command::new(&amtool).arg(url).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    // The second Alertmanager of the cluster is down, which must not hold up the first.
    let sinks = format!(
        "- {{type: alertmanager, urls: ['http://{address}', 'http://127.0.0.1:{}'], resolve_after: 1m, page_url: 'https://pullwatch.example', runbook_url: 'https://runbooks.example/{{rule}}', retry: {{initial: 50ms, max: 200ms}}}}",
        free_port()
    );
    let mut daemon = Daemon::start(&sinks, "");

    daemon.read("a1", "mallory", "registry-1");
    wait_for("a notification about mallory", || hook.has("firing", "mallory"));
    let alerts = hook.alerts();
    let labels = alerts[0]["labels"].as_object().unwrap();
    let names: Vec<&str> = labels.keys().map(String::as_str).collect();
    assert_eq!(names, ["actor", "alertname", "cluster", "credential", "namespace", "severity"], "{alerts:?}");
    assert_eq!(labels["alertname"], "Registry Secret Access");
    assert_eq!((&labels["severity"], &labels["cluster"]), (&"warning".into(), &"prod-eu".into()));
    assert_eq!((&labels["credential"], &labels["namespace"]), (&"prod/registry-1".into(), &"prod".into()));
    let annotations = &alerts[0]["annotations"];
    assert_eq!(annotations["summary"], "Registry Secret Access: mallory (prod/registry-1)");
    assert_eq!(annotations["description"], "Registry secret accessed (id=a1)");
    assert_eq!(annotations["runbook_url"], "https://runbooks.example/registry-secret-access");
    let id = annotations["alert_id"].as_str().unwrap();
    assert_eq!(alerts[0]["generatorURL"], format!("https://pullwatch.example/#/alerts/{id}"));

    // Another reader of the same credential, while the first alert fires.
    daemon.read("a2", "eve", "registry-1");
    wait_for("a notification about eve", || hook.has("firing", "eve"));
    // The same reader again renews the alert; another credential joins its group.
    daemon.read("a3", "eve", "registry-1");
    daemon.read("a4", "eve", "registry-2");
    wait_for("both credentials are in the group of eve", || {
        let groups = get_json(&address, "/api/v2/alerts/groups");
        let of_eve = groups.as_array().unwrap().iter().find(|group| group["labels"]["actor"] == "eve");
        of_eve.is_some_and(|group| group["alerts"].as_array().unwrap().len() == 2)
    });
    let queried: Value = serde_json::from_str(&amtool(&[
        "alert",
        "query",
        "-o",
        "json",
        "actor=eve",
        "credential=prod/registry-2",
    ]))
    .unwrap();
    assert_eq!(queried.as_array().unwrap().len(), 1, "{queried}");

    amtool(&["silence", "add", "--author=test", "--comment=known", "--duration=1h", "actor=carol"]);
    amtool(&["alert", "add", "alertname=ClusterMaintenance", "cluster=prod-eu"]);
    let status = |actor: &str| {
        let alerts = get_json(&address, "/api/v2/alerts");
        let found =
            alerts.as_array().unwrap().iter().find(|alert| alert["labels"]["actor"] == actor).cloned();
        found.map(|alert| alert["status"].clone()).unwrap_or_default()
    };
    let count = |actor: &str, list: &str| status(actor)[list].as_array().map_or(0, Vec::len);
    // Alertmanager reads what inhibits others a moment after it accepted it.
    amtool(&["alert", "add", "alertname=Probe", "cluster=prod-eu", "actor=nobody"]);
    wait_for("the maintenance inhibits", || count("nobody", "inhibitedBy") == 1);
    daemon.read("a5", "carol", "registry-1");
    daemon.read("a6", "dave", "registry-1");
    wait_for("carol is silenced and dave inhibited", || {
        count("carol", "silencedBy") == 1 && count("dave", "inhibitedBy") == 1
    });

    // Alerts are resolved also while pullwatch is down, and stay so after its restart.
    daemon.kill();
    wait_for("mallory's alert is resolved", || hook.has("resolved", "mallory"));
    wait_for("eve's alert is resolved", || hook.has("resolved", "eve"));
    daemon.restart();
    daemon.read("a7", "frank", "registry-1");
    wait_for("a notification about frank", || hook.has("firing", "frank"));
    let alerts = hook.alerts();
    let mut statuses: Vec<&str> = alerts
        .iter()
        .filter(|alert| alert["labels"]["actor"] == "mallory")
        .map(|alert| alert["status"].as_str().unwrap())
        .collect();
    // A notification whose answer is late is repeated.
    statuses.dedup();
    assert_eq!(statuses, ["firing", "resolved"], "{alerts:?}");
    assert!(!hook.has("firing", "carol") && !hook.has("firing", "dave"));
}

#[test]
fn an_alertmanager_that_lost_its_data_gets_active_alerts_again() {
    let Some(program) = program("prometheus-alertmanager") else { return };
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("alertmanager.yml");
    let hook = Hook::start();
    fs::write(
        &config,
        format!(
            "route: {{receiver: hook, group_by: [actor], group_wait: 100ms}}\nreceivers:\n- name: hook\n  webhook_configs: [{{url: '{}'}}]\n",
            hook.url
        ),
    )
    .unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let start = |data: &str| alertmanager(&program, &config, &dir.path().join(data), &address);
    let server = start("data");
    let sink = format!(
        "- {{type: alertmanager, urls: ['http://{address}'], resend_interval: 1s, page_url: 'https://pullwatch.example', retry: {{initial: 50ms, max: 200ms}}}}"
    );
    let mut daemon = Daemon::start(&sink, "");
    // What identifies an alert, what it says, and when it starts and ends.
    let alerts = || {
        let alerts = get_json(&address, "/api/v2/alerts");
        let mut alerts: Vec<Value> = alerts.as_array().unwrap().clone();
        for alert in &mut alerts {
            alert.as_object_mut().unwrap().retain(|name, _| name != "updatedAt" && name != "status");
        }
        alerts.sort_by_key(|alert| alert["labels"]["actor"].to_string());
        alerts
    };
    daemon.read("a1", "eve", "registry-1");
    daemon.read("a2", "mallory", "registry-1");
    // An Alertmanager may repeat a notification. One that is killed before it notified of an alert does not do so later.
    let notified = || {
        let count = |actor| hook.alerts().iter().filter(|alert| alert["labels"]["actor"] == actor).count();
        ["eve", "mallory"].map(count)
    };
    let wait_for_notifications = |before: [usize; 2]| {
        wait_for("a notification for each", || {
            notified().iter().zip(before).all(|(now, before)| *now > before)
        });
    };
    wait_for("both alerts are there", || alerts().len() == 2);
    wait_for_notifications([0, 0]);
    let before = alerts();
    drop(server);

    // It notifies again, since it lost what it had notified of.
    let seen = notified();
    let server = start("lost-once");
    wait_for("both alerts are there again", || alerts().len() == 2);
    assert_eq!(alerts(), before);
    wait_for_notifications(seen);
    drop(server);

    // Both restart.
    daemon.kill();
    let seen = notified();
    let _server = start("lost-twice");
    daemon.restart();
    wait_for("both alerts are there again", || alerts().len() == 2);
    assert_eq!(alerts(), before);
    wait_for_notifications(seen);
    assert!(!hook.has("resolved", "eve") && !hook.has("resolved", "mallory"));
}
