//! Active alerts that are sent again, seen by a stand-in for Alertmanager that accepts, refuses or hangs.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::{WAIT_TIMEOUT, free_port, pullwatch, wait_for};
use crate::rig::{Daemon, try_get};

/// Requests with the alerts of one Alertmanager.
#[derive(Clone)]
struct Receiver {
    port: u16,
    status: Arc<AtomicU16>,
    /// Alerts that were accepted before get no answer.
    holds_repeats: Arc<AtomicBool>,
    requests: Arc<Mutex<Vec<Vec<Value>>>>,
}

impl Receiver {
    fn start() -> Receiver {
        Self::start_on(free_port())
    }

    fn start_on(port: u16) -> Receiver {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let status = Arc::new(AtomicU16::new(200));
        let receiver = Receiver { port, status, holds_repeats: Arc::default(), requests: Arc::default() };
        let own = receiver.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let own = own.clone();
                std::thread::spawn(move || own.answer(stream.unwrap()));
            }
        });
        receiver
    }

    fn answer(&self, mut stream: TcpStream) -> Option<()> {
        let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
        let list: Vec<Value> = loop {
            let length = stream.read(&mut buffer).ok().filter(|length| *length > 0)?;
            request.extend_from_slice(&buffer[..length]);
            let text = String::from_utf8_lossy(&request);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                assert!(head.starts_with("POST /api/v2/alerts "), "{head}");
                if let Ok(list) = serde_json::from_str(body) {
                    break list;
                }
            }
        };
        let is_repeat = self.has(&list[0]);
        self.requests.lock().unwrap().push(list);
        if is_repeat && self.holds_repeats.load(Ordering::SeqCst) {
            let start = Instant::now();
            while self.holds_repeats.load(Ordering::SeqCst) && start.elapsed() < WAIT_TIMEOUT {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        let status = self.status.load(Ordering::SeqCst);
        write!(stream, "HTTP/1.1 {status} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").ok()
    }

    fn url(&self) -> String {
        format!("'http://127.0.0.1:{}'", self.port)
    }

    /// All requests, whatever was answered.
    fn requests(&self) -> Vec<Vec<Value>> {
        self.requests.lock().unwrap().clone()
    }

    fn has(&self, alert: &Value) -> bool {
        self.requests().iter().flatten().any(|other| other == alert)
    }

    /// The alerts of the event with this id, in the order of the requests.
    fn of(&self, id: &str) -> Vec<Value> {
        let requests = self.requests();
        let is_of = |alert: &&Value| {
            alert["annotations"]["description"].as_str().unwrap().contains(&format!("(id={id})"))
        };
        requests.iter().flatten().filter(is_of).cloned().collect()
    }

    fn forget(&self) {
        self.requests.lock().unwrap().clear();
    }
}

/// The value of a metric of the sink `am`.
fn metric(daemon: &Daemon, name: &str, labels: &str) -> Option<i64> {
    let (_, text) = try_get(&daemon.address, "/metrics")?;
    let line = format!("pullwatch_sink_{name}{{{labels}sink=\"am\"");
    let value = text.lines().find_map(|text| text.strip_prefix(&line)?.rsplit_once(' '))?.1;
    value.parse().ok()
}

#[test]
fn active_alerts_are_sent_again_to_each_alertmanager_without_a_change() {
    let (first, unasked, port) = (Receiver::start(), Receiver::start(), free_port());
    let sinks = format!(
        "- {{type: alertmanager, name: am, urls: [{}, 'http://127.0.0.1:{port}'], resend_interval: 1s}}\n- {{type: alertmanager, name: once, urls: [{}], resend_interval: false}}",
        first.url(),
        unasked.url()
    );
    let mut daemon = Daemon::start(&sinks, "");
    daemon.read("a1", "mallory", "registry-1");
    wait_for("it is sent again", || first.of("a1").len() > 3);
    let sent = first.of("a1");
    assert!(sent.iter().all(|alert| *alert == sent[0]), "{sent:?}");
    assert_eq!(sent[0]["startsAt"], "2026-11-23T10:00:00.000100000Z");

    // Another read renews the alert; another reader is another alert. What was renewed is not sent again.
    daemon.read("a2", "mallory", "registry-1");
    daemon.read("a3", "eve", "registry-1");
    wait_for("both are sent again, together", || {
        let requests = first.requests();
        let last = requests.last().unwrap();
        last.len() == 2 && first.of("a2").len() > 2 && last[0] == first.of("a2")[0]
    });
    assert_eq!(first.requests().last().unwrap()[1], first.of("a3")[0]);

    // The one that was down learns of them.
    let second = Receiver::start_on(port);
    wait_for("the second has both", || !second.of("a2").is_empty() && !second.of("a3").is_empty());
    assert_eq!((&second.of("a2")[0], &second.of("a3")[0]), (&first.of("a2")[0], &first.of("a3")[0]));
    assert!(second.of("a1").is_empty());

    // They are delivered once, and none waits.
    assert_eq!(metric(&daemon, "deliveries_total", ""), Some(3));
    wait_for("none waits", || metric(&daemon, "backlog_alerts", "") == Some(0));
    assert_eq!(metric(&daemon, "active_alerts", ""), Some(2));
    for result in ["success", "failure"] {
        let series = format!("result=\"{result}\",");
        wait_for(result, || metric(&daemon, "resends_total", &series) > Some(0));
    }
    let delivered_once = || unasked.requests().iter().flatten().count();
    wait_for("the other sink has all", || delivered_once() >= 3);
    assert_eq!(delivered_once(), 3);

    // After a kill they come from the store.
    let before = [first.of("a2")[0].clone(), first.of("a3")[0].clone()];
    daemon.kill();
    for receiver in [&first, &second] {
        receiver.forget();
    }
    daemon.restart();
    for receiver in [&first, &second] {
        wait_for("they are sent again", || receiver.requests().len() > 1);
        assert!(receiver.requests().iter().all(|alerts| *alerts == before), "{:?}", receiver.requests());
    }
    assert_eq!(metric(&daemon, "deliveries_total", ""), Some(0));
}

#[test]
fn an_alert_that_has_ended_is_not_sent_again() {
    let receiver = Receiver::start();
    let sink = format!(
        "- {{type: alertmanager, name: am, urls: [{}], resolve_after: 4s, resend_interval: 1s}}",
        receiver.url()
    );
    let daemon = Daemon::start(&sink, "");
    daemon.read("a1", "mallory", "registry-1");
    wait_for("it is delivered", || !receiver.of("a1").is_empty());
    let (mut reads, mut last_read) = (0, None);
    wait_for("only the one that is renewed is sent again", || {
        if last_read.is_none_or(|at: Instant| at.elapsed() > Duration::from_secs(1)) {
            reads += 1;
            last_read = Some(Instant::now());
            daemon.read(&format!("b{reads}"), "eve", "registry-1");
        }
        let requests = receiver.requests();
        let mut seen: Vec<&Vec<Value>> = Vec::new();
        requests.iter().any(|alerts| {
            let is_repeat = seen.iter().any(|before| before.contains(&alerts[0]));
            seen.push(alerts);
            is_repeat && alerts.iter().all(|alert| alert["labels"]["actor"] == "eve")
        })
    });
    wait_for("none is active at the end", || metric(&daemon, "active_alerts", "") == Some(0));
}

#[test]
fn nothing_is_sent_again_while_the_sink_fails_or_is_paused() {
    let receiver = Receiver::start();
    let sink = format!(
        "- {{type: alertmanager, name: am, urls: [{}], resend_interval: 1s, retry: {{initial: 20ms, max: 200ms, max_refusals: 1}}}}",
        receiver.url()
    );
    let daemon = Daemon::start(&sink, "");
    daemon.read("a1", "mallory", "registry-1");
    for (status, actor) in [(503, "eve"), (422, "trent")] {
        wait_for("mallory's alert is sent again", || receiver.of("a1").len() > 1);
        receiver.status.store(status, Ordering::SeqCst);
        let ids = ["1", "2", "3"].map(|number| format!("{actor}{number}"));
        for id in &ids {
            daemon.read(id, actor, &format!("registry-{id}"));
        }
        let attempts = || ids.iter().map(|id| receiver.of(id).len()).sum::<usize>();
        if status == 422 {
            wait_for("the sink is paused", || metric(&daemon, "paused", "") == Some(1));
        } else {
            wait_for("the sink fails", || metric(&daemon, "retries_total", "") > Some(0));
        }
        let (start, before, repeats) = (Instant::now(), attempts(), receiver.of("a1").len());
        wait_for("several intervals of retries", || {
            start.elapsed() > Duration::from_millis(3500) && attempts() > before + 5
        });
        // One may have been on its way.
        assert!(receiver.of("a1").len() <= repeats + 1, "{status}: {:?}", receiver.requests());
        receiver.status.store(200, Ordering::SeqCst);
        receiver.forget();
    }
    wait_for("all is sent again", || receiver.of("a1").len() > 1);
}

#[test]
fn an_alert_that_went_to_the_dead_letters_is_not_sent_again_and_stops_nothing() {
    let receiver = Receiver::start();
    // A period of deliveries with the same end is a second long.
    let sink = format!(
        "- {{type: alertmanager, name: am, urls: [{}], resolve_after: 4m, resend_interval: 1s, retry: {{initial: 20ms, max: 200ms, max_age: 8s}}}}",
        receiver.url()
    );
    let daemon = Daemon::start(&sink, "");
    daemon.read("a1", "mallory", "registry-1");
    wait_for("it is sent again, seconds later", || receiver.of("a1").len() > 3);
    receiver.status.store(503, Ordering::SeqCst);
    daemon.read("a2", "eve", "registry-1");
    wait_for("it is too old", || metric(&daemon, "dead_letters_total", "reason=\"too_old\",") == Some(1));
    receiver.forget();
    receiver.status.store(200, Ordering::SeqCst);
    wait_for("the first is sent again, although nothing was delivered since", || receiver.of("a1").len() > 2);
    assert!(receiver.of("a2").is_empty(), "{:?}", receiver.requests());
}

#[test]
fn a_receiver_that_hangs_on_what_is_sent_again_does_not_delay_new_alerts() {
    let receiver = Receiver::start();
    let sink = format!(
        "- {{type: alertmanager, name: am, urls: [{}], resend_interval: 1s, timeout: 10m}}",
        receiver.url()
    );
    let daemon = Daemon::start(&sink, "");
    receiver.holds_repeats.store(true, Ordering::SeqCst);
    daemon.read("a1", "mallory", "registry-1");
    wait_for("it is sent again", || receiver.of("a1").len() == 2);
    daemon.read("a2", "eve", "registry-1");
    wait_for("a new alert is delivered meanwhile", || metric(&daemon, "deliveries_total", "") == Some(2));
    assert_eq!((receiver.of("a1").len(), receiver.of("a2").len()), (2, 1));
    receiver.holds_repeats.store(false, Ordering::SeqCst);
    wait_for("both are sent again", || receiver.of("a2").len() > 1 && receiver.of("a1").len() > 2);
}

#[test]
fn one_that_is_refused_does_not_hold_up_the_others() {
    // A proxy that takes only short requests, in front of an Alertmanager.
    let receiver = Receiver::start();
    let sink = format!("- {{type: alertmanager, name: am, urls: [{}], resend_interval: 1s}}", receiver.url());
    let daemon = Daemon::start(&sink, "");
    for id in ["a1", "a2"] {
        daemon.read(id, "mallory", &format!("registry-{id}"));
    }
    wait_for("both are sent again", || receiver.of("a1").len() > 1 && receiver.of("a2").len() > 1);
    receiver.status.store(413, Ordering::SeqCst);
    wait_for("each is tried by itself", || {
        receiver.requests().iter().rev().take(2).all(|alerts| alerts.len() == 1)
    });
    receiver.status.store(200, Ordering::SeqCst);
    receiver.forget();
    wait_for("they are sent again", || receiver.requests().iter().any(|alerts| alerts.len() == 2));
}

#[test]
fn an_interval_is_a_second_or_more_or_false() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pullwatch.yaml");
    for (interval, is_valid) in [("1s", true), ("false", true), ("1ms", false), ("0", false), ("true", true)]
    {
        let sink = format!("{{type: alertmanager, urls: ['http://a:9093'], resend_interval: {interval}}}");
        std::fs::write(&path, format!("sinks: [{sink}]\n")).unwrap();
        let output = pullwatch().args(["config", "check", "--offline"]).arg(&path).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), is_valid, "{interval}: {said}");
        assert!(is_valid || said.contains("resend_interval"), "{said}");
    }
}
