//! What decides whether the daemon can be operated: reloads, checks, dead letters, health.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use common::{RULE, event, free_port, pullwatch, said, wait_for};

/// A directory with a log, a configuration and a daemon.
struct Place {
    folder: tempfile::TempDir,
    daemon: Option<Child>,
    port: u16,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("rule.yaml"), RULE).unwrap();
        let port = free_port();
        let place = Place { folder, daemon: None, port };
        place.append("");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn shown(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Writes the configuration with these sinks and further lines.
    fn configure(&self, sinks: &[String], more: &str) {
        let sinks: Vec<String> = sinks.iter().map(|sink| format!("- {sink}\n")).collect();
        let text = format!(
            "state_dir: {}\nrules: {}\nsources: [{{paths: {}, poll: 100ms}}]\nserver: {{listen: 127.0.0.1:{}}}\nsinks:\n{}{more}",
            self.shown("state"),
            self.shown("rule.yaml"),
            self.shown("audit.log"),
            self.port,
            sinks.concat()
        );
        fs::write(self.path("pullwatch.yaml"), text).unwrap();
    }

    fn file_sink(&self, name: &str) -> String {
        format!("{{type: file, name: {name}, path: {}}}", self.shown(&format!("{name}.jsonl")))
    }

    fn start(&mut self) {
        let daemon = pullwatch()
            .args(["run", "--config", &self.shown("pullwatch.yaml")])
            .stdout(Stdio::null())
            .stderr(fs::File::create(self.path("log")).unwrap())
            .spawn()
            .unwrap();
        self.daemon = Some(daemon);
        wait_for("the daemon runs", || self.get("/healthz").is_some());
    }

    /// Kills the daemon.
    fn stop_hard(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    fn hang_up(&self) {
        let id = self.daemon.as_ref().unwrap().id().to_string();
        assert!(std::process::Command::new("kill").args(["-HUP", &id]).status().unwrap().success());
    }

    fn append(&self, text: &str) {
        let mut log = OpenOptions::new().create(true).append(true).open(self.path("audit.log")).unwrap();
        log.write_all(text.as_bytes()).unwrap();
    }

    fn read_secret(&self, id: &str) {
        self.append(&format!("{}\n", event(id, "get", "registry")));
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    fn metric(&self, line: &str) -> bool {
        self.get("/metrics").is_some_and(|text| text.contains(&format!("\n{line}\n")))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    fn lines(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path(name)).unwrap_or_default();
        // The last line may still be written.
        let complete = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        complete.map(str::to_owned).collect()
    }

    #[allow(clippy::unused_self, reason = "reads like the other actions in this place")]
    fn run(&self, arguments: &[&str]) -> std::process::Output {
        pullwatch().args(arguments).output().unwrap()
    }
}

/// An HTTP receiver that answers with a status, which can be changed, and keeps what it accepted.
fn receiver(status: u16) -> (u16, Arc<AtomicU16>, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (status, accepted) = (Arc::new(AtomicU16::new(status)), Arc::new(Mutex::new(Vec::new())));
    let (answer, bodies) = (status.clone(), accepted.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            let body = loop {
                let length = stream.read(&mut buffer).unwrap_or(0);
                request.extend_from_slice(&buffer[..length]);
                let text = String::from_utf8_lossy(&request).into_owned();
                let Some((head, body)) = text.split_once("\r\n\r\n") else {
                    if length == 0 {
                        break None;
                    }
                    continue;
                };
                let head = head.to_ascii_lowercase();
                let expected: usize = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "))
                    .unwrap()
                    .parse()
                    .unwrap();
                if body.len() >= expected || length == 0 {
                    break Some(body.to_owned());
                }
            };
            let code = answer.load(Ordering::SeqCst);
            if let (Some(body), 200..300) = (body, code) {
                bodies.lock().unwrap().push(body);
            }
            let _ = write!(stream, "HTTP/1.1 {code} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    (port, status, accepted)
}

#[test]
fn a_hangup_applies_sinks_labels_and_limits_without_loss() {
    let mut place = Place::new();
    place.configure(&[place.file_sink("first")], "");
    place.start();
    wait_for("the configuration is in use", || place.metric("pullwatch_config_last_reload_successful 1"));
    place.read_secret("1");
    wait_for("one alert", || place.lines("first.jsonl").len() == 1);
    let group =
        format!("{{type: file, name: second, mode: \"0640\", path: {}}}", place.shown("second.jsonl"));
    place.configure(&[place.file_sink("first"), group], "labels: {cluster: blue}\nstore: {max_age: 7d}\n");
    place.hang_up();
    wait_for("the new sink has the first alert", || place.lines("second.jsonl").len() == 1);
    wait_for("it says what needs a restart", || place.log().contains("restart to apply changes of: store"));
    wait_for("rules have other settings", || place.log().contains("rules reloaded"));
    // The pipeline takes the settings up between two batches.
    let mut count = 1;
    wait_for("alerts have the label", || {
        count += 1;
        place.read_secret(&count.to_string());
        wait_for("it arrived", || place.lines("first.jsonl").len() == count);
        let lines = place.lines("first.jsonl");
        let last: serde_json::Value = serde_json::from_str(&lines[lines.len() - 1]).unwrap();
        last["cluster"] == "blue"
    });
    let both = |count: usize| {
        let names = ["first.jsonl", "second.jsonl"];
        wait_for("both have all", || names.iter().all(|name| place.lines(name).len() == count));
    };
    both(count);
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(place.path("second.jsonl")).unwrap());
    assert_eq!(mode & 0o777, 0o640);

    // A broken file changes nothing.
    let text = fs::read_to_string(place.path("pullwatch.yaml")).unwrap();
    fs::write(place.path("pullwatch.yaml"), format!("{text}\nnosuchkey: 1\n")).unwrap();
    place.hang_up();
    wait_for("it failed", || place.metric("pullwatch_config_last_reload_successful 0"));
    let mut ready = String::new();
    wait_for("readiness says so", || {
        ready = place.get("/readyz").unwrap();
        ready.contains("\"status\":\"degraded\"")
    });
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    place.read_secret("more");
    both(count + 1);

    // A sink that is removed leaves neither a backlog nor a time that only grows older; one that stays repeats nothing.
    place.configure(&[place.file_sink("first")], "");
    place.hang_up();
    wait_for("it succeeded", || place.metric("pullwatch_config_last_reload_successful 1"));
    place.read_secret("last");
    wait_for("the first has all", || place.lines("first.jsonl").len() == count + 2);
    assert_eq!(place.lines("second.jsonl").len(), count + 1);
    let metrics = place.get("/metrics").unwrap();
    for gauge in ["backlog_alerts", "paused", "last_success_timestamp_seconds"] {
        let of = |sink: &str| format!("pullwatch_sink_{gauge}{{sink=\"{sink}\"}}");
        assert!(metrics.contains(&of("first")) && !metrics.contains(&of("second")), "{gauge}: {metrics}");
    }
}

#[test]
fn a_receiver_that_refuses_everything_pauses_the_sink_and_dead_letters_are_sent_again() {
    let mut place = Place::new();
    let (port, status, accepted) = receiver(401);
    let sink = format!(
        "{{type: http, name: siem, url: 'http://127.0.0.1:{port}/', retry: {{initial: 20ms, max: 50ms, max_refusals: 3}}}}"
    );
    place.configure(&[sink], "");
    place.start();
    for number in 0..20 {
        place.read_secret(&number.to_string());
    }
    wait_for("it is paused", || place.metric("pullwatch_sink_paused{sink=\"siem\"} 1"));
    let dead_letters = || place.lines("state/dead-letters.jsonl").len();
    assert_eq!(dead_letters(), 3);
    let mut ready = String::new();
    wait_for("readiness says so", || {
        ready = place.get("/readyz").unwrap();
        ready.contains("siem: not delivering since") && ready.contains("17 waiting: paused")
    });
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    wait_for("it is logged", || place.log().contains("receiver refuses everything"));

    // The latest alert is sent ahead, to see whether the receiver refuses it as well. If that is when the receiver recovers, it comes again in its turn.
    let ids = || -> std::collections::BTreeSet<String> {
        let id = |body: &String| {
            serde_json::from_str::<serde_json::Value>(body).unwrap()["event"]["auditID"].to_string()
        };
        accepted.lock().unwrap().iter().map(id).collect()
    };
    let accepted_count = || accepted.lock().unwrap().len();
    status.store(200, Ordering::SeqCst);
    wait_for("the rest is delivered", || ids().len() == 17);
    wait_for("it is not paused", || place.metric("pullwatch_sink_paused{sink=\"siem\"} 0"));
    wait_for("nothing waits", || place.metric("pullwatch_sink_backlog_alerts{sink=\"siem\"} 0"));
    assert_eq!(dead_letters(), 3);
    wait_for("all is well", || place.get("/readyz").unwrap().contains("\"status\":\"ok\""));

    let config = place.shown("pullwatch.yaml");
    status.store(503, Ordering::SeqCst);
    let resend = ["alerts", "resend", "--config", &config, "--sink", "siem", "--dead-letters"];
    let output = place.run(&resend);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert_eq!(dead_letters(), 3);
    status.store(200, Ordering::SeqCst);
    let output = place.run(&resend);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!((dead_letters(), ids().len()), (0, 20));
    let before = accepted_count();
    assert!(before <= 21, "{before}");

    let output = place.run(&["alerts", "resend", "--config", &config, "--sink", "siem", "--since", "1h"]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!((accepted_count() - before, ids().len()), (20, 20));
}

#[test]
fn alerts_that_are_refused_one_by_one_do_not_stop_the_others() {
    // A receiver that refuses what a client can put into an alert.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let accepted = Arc::new(Mutex::new(0));
    let count = accepted.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut buffer = vec![0; 65_536];
            let mut text = String::new();
            while !text.contains("\r\n\r\n") || !text.ends_with('}') {
                let length = stream.read(&mut buffer).unwrap_or(0);
                if length == 0 {
                    break;
                }
                text.push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
            let code = if text.contains("poison") { 400 } else { 200 };
            if code == 200 {
                *count.lock().unwrap() += 1;
            }
            let _ = write!(stream, "HTTP/1.1 {code} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    let mut place = Place::new();
    let sink = format!(
        "{{type: http, name: siem, url: 'http://127.0.0.1:{port}/', retry: {{initial: 10ms, max: 20ms, max_refusals: 2}}}}"
    );
    place.configure(&[sink], "");
    place.start();
    for number in 0..10 {
        place.read_secret(&format!("poison-{number}"));
    }
    wait_for("it is paused", || place.metric("pullwatch_sink_paused{sink=\"siem\"} 1"));
    place.read_secret("good");
    wait_for("all others are dead letters", || place.lines("state/dead-letters.jsonl").len() == 10);
    wait_for("the good one arrived", || *accepted.lock().unwrap() >= 1);
}

#[test]
fn check_finds_what_run_refuses_or_regrets() {
    let place = Place::new();
    fs::write(place.path("short"), "abc").unwrap();
    fs::write(place.path("long"), "a-token-of-32-characters-or-more").unwrap();
    fs::create_dir_all(place.path("logs/pods")).unwrap();
    fs::write(place.path("logs/audit.log"), "").unwrap();
    std::os::unix::fs::symlink(place.path("logs/audit.log"), place.path("link")).unwrap();
    std::os::unix::fs::symlink(place.path("logs"), place.path("other-name")).unwrap();
    let folder = place.folder.path().display().to_string();
    let kafka = "type: kafka, brokers: ['a:9092'], topics: [audit]";
    let path = place.shown("pullwatch.yaml");
    let check = |text: &str, arguments: &[&str]| {
        fs::write(place.path("pullwatch.yaml"), text).unwrap();
        let mut all = vec!["config", "check"];
        all.extend(arguments);
        all.push(&path);
        let output = place.run(&all);
        (output.status.code().unwrap(), said(&output))
    };
    let log = place.shown("audit.log");
    for (text, code, expected) in [
        ("sources: []".to_owned(), 1, "nothing would be evaluated"),
        ("sinks: [{type: http, url: 'ftp://x'}]".to_owned(), 1, "invalid URL"),
        ("sinks: [{type: http, url: 'https://x', tls: {ca: /no/such}}]".to_owned(), 1, "/no/such"),
        ("sinks: [{type: file, path: /no/such/dir/alerts}]".to_owned(), 1, "/no/such/dir does not exist"),
        (
            "sinks: [{type: file, path: /tmp/a, group: nosuchgroup}]".to_owned(),
            1,
            "unknown group `nosuchgroup`",
        ),
        ("rules: /no/such/rules.yaml".to_owned(), 1, "/no/such/rules.yaml"),
        (format!("server: {{token_file: {}}}", place.shown("short")), 1, "at least 16 characters"),
        ("server: {tls: {certificate: /no/c, key: /no/k}}".to_owned(), 1, "`certificate`: cannot read /no/c"),
        (
            format!("sources: [{{type: webhook, token_file: {}}}]", place.shown("long")),
            0,
            "the apiserver sends its token over TLS only",
        ),
        ("sinks: [{type: stdout, rules: ['No Such Rule']}]".to_owned(), 0, "no rule has a name that matches"),
        (
            format!(
                "sources: [{{paths: '{}/*.log'}}]\nsinks: [{{type: file, path: {log}}}]",
                place.folder.path().display()
            ),
            1,
            "alerts would be read as events",
        ),
        (format!("sources: [{{paths: {log}}}, {{paths: {log}, name: b}}]"), 1, "evaluated twice"),
        // One log under two names: a pattern, a directory, a link, a rotated file of it.
        (
            format!(
                "sources: [{{paths: {folder}/logs/audit.log}}, {{paths: '{folder}/logs/*.log', name: b}}]"
            ),
            1,
            "evaluated twice",
        ),
        (
            format!("sources: [{{paths: {folder}/logs/audit.log}}, {{paths: {folder}/other-name, name: b}}]"),
            1,
            "evaluated twice",
        ),
        (
            format!("sources: [{{paths: {folder}/logs/audit.log}}, {{paths: {folder}/link, name: b}}]"),
            1,
            "evaluated twice",
        ),
        (
            format!("sources: [{{paths: {folder}/logs/audit.log}}, {{paths: {folder}/logs/pods, name: b}}]"),
            0,
            "",
        ),
        (
            format!(
                "sources: [{{paths: {folder}/logs}}]\nsinks: [{{type: file, path: {folder}/other-name/pods/alerts.jsonl}}]"
            ),
            1,
            "alerts would be read as events",
        ),
        (
            format!(
                "sources: [{{paths: {folder}/logs}}]\nsinks: [{{type: file, path: {folder}/logs/.hidden.jsonl}}]"
            ),
            0,
            "",
        ),
        (
            format!(
                "sources: [{{paths: {folder}/logs/audit.log}}]\nsinks: [{{type: file, path: {folder}/link}}]"
            ),
            1,
            "alerts would be read as events",
        ),
        (
            format!(
                "sources: [{{paths: {folder}/logs/audit.log}}]\nsinks: [{{type: file, path: {folder}/logs/audit.log.1}}]"
            ),
            1,
            "alerts would be read as events",
        ),
        (format!("sources: [{{{kafka}}}, {{{kafka}, name: b, group: other}}]"), 1, "evaluated twice"),
        (format!("sources: [{{{kafka}}}, {{{kafka}, name: b}}]"), 0, ""),
        (
            format!("sources: [{{{kafka}}}]\nsinks: [{{type: kafka, brokers: ['a:9092'], topic: audit}}]"),
            1,
            "alerts would be read as events",
        ),
        ("server: {listen: '0.0.0.0:9417'}".to_owned(), 0, "without TLS"),
        ("sources: [{type: webhook, listen: '127.0.0.1:9417'}]".to_owned(), 1, "is the address of"),
    ] {
        let (found, said) = check(&text, &[]);
        assert!(found == code && said.contains(expected), "{text}: {found} {said}");
    }
    let (code, said) = check(
        "sinks: [{type: http, url_file: /no/url, tls: {ca: /no/such}}]\nrules: /no/rules\nserver: {token_file: /no/token}",
        &["--offline"],
    );
    assert_eq!((code, said.as_str()), (0, ""));
    let example = place.run(&["config", "example"]);
    assert_eq!(example.stdout, fs::read(common::project("samples/pullwatch.yaml")).unwrap());
    let (code, said) = check(std::str::from_utf8(&example.stdout).unwrap(), &["--offline"]);
    assert_eq!(code, 0, "{said}");
}

#[test]
fn built_in_rules_are_available_by_name() {
    let place = Place::new();
    fs::write(
        place.path("mine.yaml"),
        "- list: unwatched_namespaces\n  items: []\n- rule: Mine\n  desc: Mine\n  condition: registry_credential_read_by_me\n  output: mine\n  priority: WARNING\n- macro: registry_credential_read_by_me\n  condition: kevt and ka.verb = get\n",
    )
    .unwrap();
    let mine = place.shown("mine.yaml");
    let listed = place.run(&["rules", "list", "builtin", &mine]);
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(
        listed.status.success() && text.contains("Mine") && text.contains("Secrets Listed"),
        "{text}{}",
        said(&listed)
    );
    let directory = place.shown("exported");
    assert!(place.run(&["rules", "export", &directory]).status.success());
    assert_eq!(
        fs::read(place.path("exported/10-reads.yaml")).unwrap(),
        fs::read(common::project("rules.d/10-reads.yaml")).unwrap()
    );
    assert_eq!(place.run(&["rules", "export", &directory]).status.code(), Some(2));
}

#[test]
fn incidents_are_resolved_after_their_last_alert_whether_or_not_it_was_restarted() {
    let mut place = Place::new();
    let (port, _, bodies) = receiver(202);
    let sink = format!(
        "{{type: http, name: pager, url: 'http://127.0.0.1:{port}/v2/enqueue', body: {{template: pagerduty, values: {{routing_key: R0}}, resolve_after: 8s}}}}"
    );
    place.configure(&[sink], "");
    place.start();
    let actions = |action: &str| -> Vec<serde_json::Value> {
        let bodies = bodies.lock().unwrap();
        let bodies = bodies.iter().map(|body| serde_json::from_str::<serde_json::Value>(body).unwrap());
        bodies.filter(|body| body["event_action"] == action).collect()
    };
    // Two reads of one credential are one incident, and so is one of another reader.
    let read = |id: &str, user: &str| event(id, "get", "registry").replace("mallory", user) + "\n";
    place.append(&[read("1", "mallory"), read("2", "mallory"), read("3", "eve")].concat());
    wait_for("three alerts open two incidents", || actions("trigger").len() == 3);
    wait_for("both are resolved", || actions("resolve").len() >= 2);
    let (opened, resolved) = (actions("trigger"), actions("resolve"));
    assert_eq!((opened.len(), resolved.len()), (3, 2));
    assert_eq!(opened[0]["dedup_key"], opened[1]["dedup_key"]);
    assert_ne!(opened[0]["dedup_key"], opened[2]["dedup_key"]);
    for (opened, resolved) in opened[1..].iter().zip(&resolved) {
        // What the Events API v2 requires of the end of an incident, and nothing else.
        assert_eq!(
            *resolved,
            serde_json::json!({"routing_key": "R0", "event_action": "resolve", "dedup_key": opened["dedup_key"]})
        );
    }
    // One that was opened before a kill is resolved after it, and none a second time.
    place.append(&read("4", "trent"));
    wait_for("another incident", || actions("trigger").len() == 4);
    place.stop_hard();
    place.start();
    wait_for("it is resolved", || actions("resolve").len() >= 3);
    let keys = |action: &str| -> std::collections::BTreeSet<String> {
        actions(action).iter().map(|body| body["dedup_key"].to_string()).collect()
    };
    assert_eq!((keys("resolve").len(), keys("resolve")), (3, keys("trigger")));
    // The kill may come before the answer of the receiver is stored; then the alert is sent again, into the same incident.
    assert!(actions("trigger")[4..].iter().all(|again| *again == actions("trigger")[3]));
    // Alerts that are not due are no backlog.
    wait_for("no backlog", || place.metric("pullwatch_sink_backlog_alerts{sink=\"pager/resolve\"} 0"));

    let sink = "{type: http, name: a, url: 'http://a', body: {template: slack, resolve_after: 1h}}";
    place.configure(&[sink.to_owned()], "");
    let output = place.run(&["config", "check", "--offline", &place.shown("pullwatch.yaml")]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("only incidents of PagerDuty"), "{}", said(&output));
}

#[test]
fn bodies_of_json_take_no_format_that_is_not() {
    let place = Place::new();
    for (sink, is_valid) in [
        ("{type: http, name: a, url: 'http://a', body: array, format: cef}", false),
        ("{type: elasticsearch, name: a, url: 'http://a', format: text}", false),
        ("{type: http, name: a, url: 'http://a', body: lines, format: cef}", true),
        ("{type: http, name: a, url: 'http://a', body: array, format: ocsf}", true),
    ] {
        place.configure(&[sink.to_owned()], "");
        let output = place.run(&["config", "check", "--offline", &place.shown("pullwatch.yaml")]);
        assert_eq!(output.status.success(), is_valid, "{sink}: {}", said(&output));
        assert!(is_valid || said(&output).contains("expected `format: falco`"), "{}", said(&output));
    }
}

#[test]
fn a_sink_takes_the_redacted_events_behind_alerts() {
    let mut place = Place::new();
    let events = format!(
        "{{type: file, name: events, path: {}, events: {{rules: ['Registry*']}}, max_message: 8K}}",
        place.shown("events.jsonl")
    );
    place.configure(&[place.file_sink("alerts"), events], "");
    place.start();
    place.read_secret("1");
    // A response that is far longer than what is forwarded.
    let item = |number: usize| {
        serde_json::json!({"metadata": {"name": format!("registry-{number}"), "namespace": "web"}, "type": "Opaque",
            "data": {"password": "S3cretOfAnApplication"}})
    };
    let mut large: serde_json::Value = serde_json::from_str(&event("2", "get", "registry")).unwrap();
    large["level"] = "RequestResponse".into();
    large["userAgent"] = "${jndi:ldap://x}\u{202e}\r\n".into();
    large["responseObject"] =
        serde_json::json!({"kind": "SecretList", "items": (0..5_000).map(item).collect::<Vec<_>>()});
    place.append(&format!("{large}\n"));
    wait_for("both sinks have both", || {
        place.lines("alerts.jsonl").len() == 2 && place.lines("events.jsonl").len() == 2
    });
    let parsed = |name: &str| -> Vec<serde_json::Value> {
        place.lines(name).iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let (alerts, events) = (parsed("alerts.jsonl"), parsed("events.jsonl"));
    for (alert, event) in alerts.iter().zip(&events) {
        assert!(alert.get("audit_event").is_none(), "{alert}");
        assert_eq!(
            (event["kind"].as_str(), event["apiVersion"].as_str()),
            (Some("Event"), Some("audit.k8s.io/v1"))
        );
        assert_eq!(event["auditID"], alert["event"]["auditID"]);
        assert_eq!(event["pullwatch"]["rule"], alert["rule"]);
        assert_eq!(event["pullwatch"]["alert_id"], alert["id"]);
    }
    let lines = place.lines("events.jsonl");
    assert!(lines.iter().all(|line| line.len() <= 8 << 10));
    assert!(!lines.concat().contains("S3cret") && !lines.concat().contains('\u{202e}'));
    // The start of the list is there, and how much is missing.
    let text = &lines[1];
    assert!(text.contains("registry-0") && text.contains(" more]"), "{text}");
    // The store keeps the event: alerts of the API and the page show it.
    assert!(place.get("/api/v1/alerts").unwrap().contains("audit_event"));

    for sink in [
        "{type: file, name: a, path: a, format: cef, events: {rules: '*'}}",
        "{type: file, name: a, path: a, events: {}}",
    ] {
        place.configure(&[sink.to_owned()], "");
        let output = place.run(&["config", "check", "--offline", &place.shown("pullwatch.yaml")]);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains("events"), "{}", said(&output));
    }
}
