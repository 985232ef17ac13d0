//! Alerts to an HTTP server.

use std::io::Read as _;
use std::time::Duration;

use pullwatch::internals::daemon::sink::{Body, DeadLetter, Http, Kind, Retry, Secret, SinkConfig};
use serde_json::Value;

use crate::rig::{HOSTILE, Memory, Rig, alert, alert_of, config, wait_until};
use crate::server::{Answer, Server};

pub fn to(url: &str) -> Http {
    Http { url: Secret::new(url), ..Http::default() }
}

fn http(http: Http) -> SinkConfig {
    config(Kind::Http(http))
}

fn seqs(text: &str) -> Vec<i64> {
    let values = serde_json::Deserializer::from_str(text).into_iter::<Value>().map(Result::unwrap);
    values
        .flat_map(|value| match value {
            Value::Array(values) => values,
            value => vec![value],
        })
        .map(|value| value["seq"].as_i64().unwrap())
        .collect()
}

fn all_seqs(server: &Server) -> Vec<i64> {
    server.requests().iter().flat_map(|request| seqs(&request.text())).collect()
}

#[tokio::test]
async fn each_alert_is_a_request_as_falcosidekick_takes_it() {
    let server = Server::start([]).await;
    let memory = Memory::with([alert(1), alert_of(2, "Secret Read", alert(1).priority, HOSTILE)]);
    let headers = vec![("X-Scope-OrgID".to_owned(), Secret::new("tenant"))];
    let rig = Rig::start(http(Http { headers, ..to(&server.url()) }), &memory);
    rig.reaches(2).await;
    rig.add(alert(3));
    rig.reaches(3).await;
    assert_eq!(all_seqs(&server), [1, 2, 3]);
    assert_eq!(server.connections(), 1, "the connection is kept");
    for request in server.requests() {
        assert!(request.head.starts_with("POST /in HTTP/1.1"));
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert_eq!(request.header("x-scope-orgid"), Some("tenant"));
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        for member in ["output", "priority", "rule", "time", "hostname", "source"] {
            assert!(!body[member].as_str().unwrap().is_empty());
        }
        assert!(!body["output_fields"].as_object().unwrap().is_empty());
    }
    assert_eq!(rig.count("deliveries_total", None), 3);
    // It is set after the cursor was saved.
    wait_until(async || rig.count("backlog_alerts", None) == 0).await;
    assert!(rig.metric("last_success_timestamp_seconds", None) > 1e9);
    rig.stop().await.unwrap();
}

#[tokio::test]
async fn what_may_pass_is_tried_again() {
    let answers = [
        Answer::Status(500),
        Answer::With(429, "retry-after: 100000\r\n"),
        Answer::With(503, "retry-after: Sun, 06 Nov 1994 08:49:37 GMT\r\n"),
        Answer::Cut,
        Answer::Status(408),
        Answer::With(302, "location: http://127.0.0.1:1/elsewhere\r\n"),
    ];
    let server = Server::start(answers).await;
    let rig = Rig::start(http(to(&server.url())), &Memory::with([alert(1), alert(2)]));
    rig.reaches(2).await;
    assert_eq!(all_seqs(&server), [1, 1, 1, 1, 1, 1, 1, 2]);
    assert_eq!(rig.count("retries_total", None), 6);
    for (reason, count) in
        [("server_error", 3), ("throttled", 1), ("connection", 1), ("unexpected_status", 1)]
    {
        assert_eq!(rig.count("failures_total", Some(reason)), count, "{reason}");
    }
    assert_eq!(rig.count("deliveries_total", None), 2);
    rig.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_hangs_is_left_at_the_timeout() {
    let server = Server::start([Answer::Hang]).await;
    let config = SinkConfig { timeout: Duration::from_millis(100), ..http(to(&server.url())) };
    let rig = Rig::start(config, &Memory::with([alert(1)]));
    rig.reaches(1).await;
    assert!(rig.count("failures_total", Some("timeout")) >= 1);
    rig.stop().await.unwrap();
}

#[tokio::test]
async fn an_answer_that_does_not_end_is_an_answer() {
    let server = Server::start([Answer::Trickle]).await;
    let rig = Rig::start(http(to(&server.url())), &Memory::with([alert(1), alert(2)]));
    rig.reaches(2).await;
    assert_eq!(all_seqs(&server), [1, 2]);
    assert_eq!(rig.count("retries_total", None), 0);
    rig.stop().await.unwrap();
}

#[tokio::test]
async fn what_is_refused_goes_to_the_dead_letter_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("dead.jsonl");
    let server = Server::start([Answer::Status(200), Answer::Status(400)]).await;
    let dead_letter = Some(DeadLetter { path: path.clone(), ..DeadLetter::default() });
    let config = SinkConfig { dead_letter, ..http(to(&server.url())) };
    let mut unencodable = alert(4);
    unencodable.json = b"{\"a\":1\n}".to_vec();
    let rig = Rig::start(config, &Memory::with([alert(1), alert(2), alert(3), unencodable]));
    rig.reaches(4).await;
    assert_eq!(all_seqs(&server), [1, 2, 3]);
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["reason"], "rejected");
    assert_eq!(lines[0]["detail"], "HTTP 400 Bad Request");
    assert_eq!(lines[0]["alert"]["seq"], 2);
    assert_eq!(lines[1]["reason"], "unencodable");
    assert_eq!(lines[1]["alert"], "{\"a\":1\n}");
    assert_eq!(rig.count("dead_letters_total", Some("rejected")), 1);
    assert_eq!(rig.count("dead_letters_total", Some("unencodable")), 1);
    assert_eq!(rig.count("dropped_total", Some("no_file")), 0);
    rig.stop().await.unwrap();
}

#[tokio::test]
async fn what_finds_no_room_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("dead.jsonl");
    let server = Server::start([Answer::RefuseBodiesWith("seq")]).await;
    let dead_letter = Some(DeadLetter { path: path.clone(), max_bytes: 900 });
    let config = SinkConfig { dead_letter, ..http(to(&server.url())) };
    let rig = Rig::start(config, &Memory::with((1..=9).map(alert)));
    rig.reaches(9).await;
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.len() <= 900);
    let kept = text.lines().count() as u64;
    assert!(kept > 0);
    assert_eq!(rig.count("dead_letters_total", Some("rejected")), 9);
    assert_eq!(rig.count("dropped_total", Some("full")), 9 - kept);
    rig.stop().await.unwrap();
}

#[tokio::test]
async fn what_waited_too_long_is_not_sent() {
    let server = Server::start([]).await;
    let retry = Retry { max_age: Some(Duration::from_secs(3600)), ..Retry::default() };
    let config = SinkConfig { retry, ..http(to(&server.url())) };
    let mut old = alert(1);
    old.stored = 1_000_000_000;
    let mut new = alert(2);
    new.stored = i64::MAX;
    let rig = Rig::start(config, &Memory::with([old, new]));
    rig.reaches(2).await;
    assert_eq!(all_seqs(&server), [2]);
    assert_eq!(rig.count("dead_letters_total", Some("too_old")), 1);
    assert_eq!(rig.count("dropped_total", Some("no_file")), 1);
    rig.stop().await.unwrap();
}

#[tokio::test]
async fn in_a_batch_only_the_alert_that_is_refused_is_given_up() {
    for body in [Body::Array { alerts: 20, bytes: 1 << 20 }, Body::Lines { alerts: 20, bytes: 1 << 20 }] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("dead.jsonl");
        let server = Server::start([Answer::RefuseBodiesWith("\"seq\":37")]).await;
        let config = SinkConfig {
            dead_letter: Some(DeadLetter { path: path.clone(), ..DeadLetter::default() }),
            ..http(Http { body, ..to(&server.url()) })
        };
        let rig = Rig::start(config, &Memory::with((1..=100).map(alert)));
        rig.reaches(100).await;
        let taken = server.requests().into_iter().filter(|request| !request.text().contains("\"seq\":37"));
        let taken: Vec<i64> = taken.flat_map(|request| seqs(&request.text())).collect();
        assert_eq!(taken, (1..=100).filter(|seq| *seq != 37).collect::<Vec<_>>());
        assert!(server.requests().len() < 25);
        let dead: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(dead["alert"]["seq"], 37);
        rig.stop().await.unwrap();
    }
}

#[tokio::test]
async fn bodies_are_compressed() {
    let server = Server::start([]).await;
    let body = Body::Lines { alerts: 10, bytes: 1 << 20 };
    let rig =
        Rig::start(http(Http { body, gzip: true, ..to(&server.url()) }), &Memory::with([alert(1), alert(2)]));
    rig.reaches(2).await;
    let request = server.requests().remove(0);
    assert_eq!(request.header("content-encoding"), Some("gzip"));
    assert_eq!(request.header("content-type"), Some("application/x-ndjson"));
    let mut text = String::new();
    flate2::read::GzDecoder::new(&*request.body).read_to_string(&mut text).unwrap();
    assert_eq!(seqs(&text), [1, 2]);
    rig.stop().await.unwrap();
}

#[tokio::test]
async fn the_token_is_read_each_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    let server = Server::start([]).await;
    let rig = Rig::start(
        http(Http { bearer_token_file: Some(path.clone()), ..to(&server.url()) }),
        &Memory::with([alert(1)]),
    );
    wait_until(async || rig.count("failures_total", Some("token")) > 0).await;
    assert!(server.requests().is_empty(), "nothing is sent without a token");
    std::fs::write(&path, "one\n").unwrap();
    rig.reaches(1).await;
    std::fs::write(&path, "two\n").unwrap();
    rig.add(alert(2));
    rig.reaches(2).await;
    let requests = server.requests();
    let tokens: Vec<_> = requests.iter().map(|request| request.header("authorization")).collect();
    // An empty token may have been seen, and was not sent.
    assert_eq!(tokens, [Some("Bearer one"), Some("Bearer two")]);
    rig.stop().await.unwrap();
}

#[tokio::test]
async fn no_secret_is_logged() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let writer = std::sync::Mutex::new(log.reopen().unwrap());
    let subscriber =
        tracing_subscriber::fmt().with_writer(writer).with_max_level(tracing::Level::TRACE).finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let server = Server::start([Answer::Cut, Answer::Status(500), Answer::Status(400), Answer::Hang]).await;
    let url = server.url().replace("127", "user:hunter2@127") + "?token=hunter2";
    let headers = vec![("Authorization".to_owned(), Secret::new("Splunk hunter2"))];
    // Only the request that gets no answer reaches it, also on a loaded machine.
    let config = SinkConfig { timeout: Duration::from_secs(3), ..http(Http { headers, ..to(&url) }) };
    let rig = Rig::start(config, &Memory::with([alert(1), alert(2)]));
    rig.reaches(2).await;
    rig.stop().await.unwrap();
    drop(guard);
    let text = std::fs::read_to_string(log.path()).unwrap();
    assert!(text.contains("retrying") && text.contains("alert dropped"));
    assert_eq!(text.lines().find(|line| line.contains("hunter2")), None);
}
