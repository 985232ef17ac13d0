//! The daemon's HTTP server on real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod net;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use net::{Authority, WAIT_TIMEOUT, client, tls_client, wait_until, write_tls};
use pullwatch::internals::daemon::metrics::Metrics;
use pullwatch::internals::daemon::server::{
    Acknowledgement, AlertLog, AlertPage, AlertQuery, Backend, Health, HealthCheck, IdLookup, LogError,
    RuleStatus, ServedAlert, Server, Settings, SinkStatus, SourceStatus, StatusSource,
};
use pullwatch::internals::detection::alert::{AlertId, Priority, StoredAlert};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// A store in memory.
#[derive(Default)]
struct Log {
    alerts: Mutex<Vec<StoredAlert>>,
    acks: Mutex<HashMap<AlertId, Acknowledgement>>,
    is_broken: Mutex<bool>,
}

fn served(alert: &StoredAlert, acks: &HashMap<AlertId, Acknowledgement>) -> ServedAlert {
    ServedAlert { alert: alert.clone(), acknowledgement: acks.get(&alert.id).cloned() }
}

impl AlertLog for Log {
    fn list(&self, query: &AlertQuery) -> Result<AlertPage, LogError> {
        if *self.is_broken.lock().unwrap() {
            return Err(LogError("disk".to_owned()));
        }
        let (alerts, acks) = (self.alerts.lock().unwrap(), self.acks.lock().unwrap());
        let matching = || alerts.iter().rev().filter(|alert| query.matches(alert));
        let page: Vec<_> = matching().take(query.limit).map(|alert| served(alert, &acks)).collect();
        let next = (matching().count() > page.len()).then(|| page.last().map(|one| one.alert.seq)).flatten();
        Ok(AlertPage { alerts: page, next })
    }

    fn get(&self, id_prefix: &str) -> Result<IdLookup, LogError> {
        let (alerts, acks) = (self.alerts.lock().unwrap(), self.acks.lock().unwrap());
        let hex = |id: &AlertId| format!("{:032x}", u128::from_be_bytes(*id));
        let found: Vec<_> = alerts.iter().filter(|alert| hex(&alert.id).starts_with(id_prefix)).collect();
        Ok(match found[..] {
            [] => IdLookup::None,
            [one] => IdLookup::One(Box::new(served(one, &acks))),
            _ => IdLookup::Several,
        })
    }

    fn acknowledge(&self, id: &AlertId, acknowledgement: &Acknowledgement) -> Result<(), LogError> {
        self.acks.lock().unwrap().entry(*id).or_insert_with(|| acknowledgement.clone());
        Ok(())
    }

    fn after(&self, seq: i64, limit: usize) -> Result<Vec<StoredAlert>, LogError> {
        let alerts = self.alerts.lock().unwrap();
        Ok(alerts.iter().filter(|alert| alert.seq > seq).take(limit).cloned().collect())
    }
}

/// A rule, a source and a sink.
struct Parts;

impl StatusSource for Parts {
    fn sources(&self) -> Vec<SourceStatus> {
        vec![SourceStatus { name: "audit".to_owned(), kind: "file", ..SourceStatus::default() }]
    }

    fn sinks(&self) -> Result<Vec<SinkStatus>, LogError> {
        Ok(vec![SinkStatus { name: "siem".to_owned(), kind: "http", ..SinkStatus::default() }])
    }

    fn rules(&self) -> Vec<RuleStatus> {
        vec![RuleStatus { name: "Odd".to_owned(), state: "enabled", ..RuleStatus::default() }]
    }

    fn rule(&self, name: &str) -> Option<RuleStatus> {
        self.rules().into_iter().find(|rule| rule.name == name)
    }

    fn rule_set(&self) -> String {
        "0123456789ab".to_owned()
    }
}

struct Checks(Mutex<Vec<HealthCheck>>);

impl Health for Checks {
    fn checks(&self) -> Vec<HealthCheck> {
        self.0.lock().unwrap().clone()
    }
}

fn check(name: &str, ok: bool, is_liveness: bool) -> HealthCheck {
    HealthCheck { name: name.to_owned(), ok, reason: format!("about {name}"), is_liveness, is_critical: true }
}

struct World {
    server: Server,
    log: Arc<Log>,
    checks: Arc<Checks>,
    latest_seq: watch::Sender<i64>,
}

fn settings() -> Settings {
    Settings {
        address: "127.0.0.1:0".parse().unwrap(),
        reload_interval: Duration::from_millis(30),
        ..Settings::default()
    }
}

fn start(settings: Settings) -> World {
    let log = Arc::new(Log::default());
    let checks =
        Arc::new(Checks(Mutex::new(vec![check("pipeline", true, true), check("store", true, false)])));
    let (latest_seq, receiver) = watch::channel(0);
    let backend = Backend {
        metrics: Metrics::new(&[]).unwrap(),
        alerts: log.clone(),
        health: checks.clone(),
        status: Arc::new(Parts),
        latest_seq: receiver,
    };
    World { server: Server::start(settings, backend).unwrap(), log, checks, latest_seq }
}

impl World {
    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.address())
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let response = client().get(self.url(path)).send().await.unwrap();
        let code = response.status().as_u16();
        let body = response.bytes().await.unwrap();
        (code, serde_json::from_slice(&body).unwrap_or_else(|_| panic!("{path}: {body:?}")))
    }

    fn alert(&self, size: usize) {
        let mut alerts = self.log.alerts.lock().unwrap();
        let seq = i64::try_from(alerts.len()).unwrap() + 1;
        alerts.push(StoredAlert {
            seq,
            id: [u8::try_from(seq % 256).unwrap(); 16],
            time: seq * 1_000_000_000,
            stored: 0,
            rule: if seq % 2 == 0 { "Even" } else { "Odd" }.to_owned(),
            priority: if seq % 2 == 0 { Priority::Warning } else { Priority::Notice },
            actor: "eve".to_owned(),
            target: "secrets default/regcred".to_owned(),
            json: format!("{{\"n\":{seq},\"fill\":\"{}\"}}", "x".repeat(size)).into_bytes(),
            message: String::new(),
        });
        self.latest_seq.send_replace(seq);
    }
}

/// Reads a stream until it holds this text.
async fn read_until(response: &mut reqwest::Response, seen: &mut String, text: &str) {
    let reading = async {
        while !seen.contains(text) {
            let piece = response.chunk().await.unwrap().expect("the stream ended");
            seen.push_str(std::str::from_utf8(&piece).unwrap());
        }
    };
    tokio::time::timeout(WAIT_TIMEOUT, reading).await.unwrap_or_else(|_| panic!("no {text} in {seen}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn serves_metrics_and_the_page() {
    let world = start(settings());
    let response = client().get(world.url("/metrics")).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    let text = String::from_utf8(response.bytes().await.unwrap().to_vec()).unwrap();
    assert!(text.contains("# TYPE pullwatch_build_info gauge"));
    assert!(text.contains("pullwatch_http_requests_total{code=\"200\",path=\"/metrics\"} 0"));
    let page = client().get(world.url("/")).send().await.unwrap();
    assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    let page = String::from_utf8(page.bytes().await.unwrap().to_vec()).unwrap();
    // One request: nothing is loaded from elsewhere.
    assert!(!page.contains(" src=") && !page.contains("url(") && !page.contains("@import"));
    let compressed = client().get(world.url("/")).header("accept-encoding", "br, gzip").send().await.unwrap();
    assert_eq!(compressed.headers()["content-encoding"], "gzip");
    let etag = compressed.headers()["etag"].clone();
    let compressed = compressed.bytes().await.unwrap();
    assert!(compressed.len() < 60_000, "{}", compressed.len());
    let known = client().get(world.url("/")).header("if-none-match", etag).send().await.unwrap();
    assert_eq!(known.status(), 304);
    let text = client().get(world.url("/metrics")).send().await.unwrap().bytes().await.unwrap();
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains("pullwatch_http_requests_total{code=\"200\",path=\"/metrics\"} 1"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_a_reason() {
    let world = start(settings());
    let (code, body) = world.get("/nothing").await;
    assert_eq!((code, body["error"].as_str()), (404, Some("not found")));
    let response = client().post(world.url("/metrics")).body("x").send().await.unwrap();
    assert_eq!(response.status(), 405);
    assert_eq!(response.headers()["allow"], "GET,HEAD");
    let body: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    assert_eq!(body["error"], "method not allowed: use GET, or POST to acknowledge");
    assert_eq!(world.get("/api/v1/alerts?limit=x").await.0, 400);
    assert_eq!(world.get("/api/v1/alerts?usr=eve").await.0, 400);
    assert_eq!(world.get("/api/v1/alerts/stream?after=-1").await.0, 400);
    let text = client().get(world.url("/metrics")).send().await.unwrap().bytes().await.unwrap();
    assert!(String::from_utf8_lossy(&text).contains("{code=\"404\",path=\"other\"} 1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn health_checks_report_failures() {
    let world = start(settings());
    assert_eq!(world.get("/healthz").await.0, 200);
    assert_eq!(world.get("/readyz").await.0, 200);
    // A failing store must not cause a restart.
    world.checks.0.lock().unwrap()[1].ok = false;
    assert_eq!(world.get("/healthz").await.0, 200);
    let (code, body) = world.get("/readyz").await;
    assert_eq!(code, 503);
    assert_eq!(body["ok"], false);
    assert_eq!(body["checks"][1]["name"], "store");
    assert_eq!(body["checks"][1]["reason"], "about store");
    assert_eq!(body["status"], "unavailable");
    // What does not keep it from taking events is no reason to take it out of service.
    world.checks.0.lock().unwrap()[1].is_critical = false;
    let (code, body) = world.get("/readyz").await;
    assert_eq!((code, &body["ok"], &body["status"]), (200, &false.into(), &"degraded".into()));
    world.checks.0.lock().unwrap()[0].ok = false;
    assert_eq!(world.get("/healthz").await.0, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_alerts_in_pages() {
    let world = start(settings());
    for _ in 0..25 {
        world.alert(1);
    }
    let (mut seen, mut path) = (Vec::new(), "/api/v1/alerts?limit=10".to_owned());
    loop {
        let (code, page) = world.get(&path).await;
        assert_eq!(code, 200);
        seen.extend(
            page["alerts"].as_array().unwrap().iter().map(|alert| alert["alert"]["n"].as_i64().unwrap()),
        );
        let Some(next) = page["next"].as_i64() else { break };
        path = format!("/api/v1/alerts?limit=10&before={next}");
    }
    assert_eq!(seen, (1..=25).rev().collect::<Vec<_>>());
    let (_, page) = world.get("/api/v1/alerts?rule=Even&since=10&until=1970-01-01T00:00:15Z").await;
    let seqs: Vec<_> =
        page["alerts"].as_array().unwrap().iter().map(|alert| alert["seq"].as_i64().unwrap()).collect();
    assert_eq!(seqs, [14, 12, 10]);
    assert_eq!(page["alerts"][0]["id"], "0e".repeat(16));
    let (_, page) = world.get("/api/v1/alerts?priority=warning&actor=eve").await;
    assert_eq!(page["alerts"].as_array().unwrap().len(), 12);
    *world.log.is_broken.lock().unwrap() = true;
    assert_eq!(world.get("/api/v1/alerts").await.0, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_resumes_after_the_last_event() {
    let world = start(Settings { heartbeat: Duration::from_millis(100), ..settings() });
    for _ in 0..50 {
        world.alert(1);
    }
    // A new stream starts with new alerts only.
    let mut response = client().get(world.url("/api/v1/alerts/stream")).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut seen = String::new();
    read_until(&mut response, &mut seen, ": heartbeat\n\n").await;
    assert!(!seen.contains("data:"), "{seen}");
    world.alert(1);
    read_until(&mut response, &mut seen, "id: 51\nevent: alert\ndata: {\"n\":51,\"fill\":\"x\"}\n\n").await;
    drop(response);
    world.alert(1);
    // Reconnect: the missed alerts come once, in order.
    let request = client().get(world.url("/api/v1/alerts/stream?after=1")).header("last-event-id", "3");
    let mut response = request.send().await.unwrap();
    let mut seen = String::new();
    read_until(&mut response, &mut seen, "\"n\":52,").await;
    let ids: Vec<i64> = seen.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect();
    assert_eq!(ids, (4..=52).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_streams_and_closes_those_of_disconnected_clients() {
    let world = start(Settings { streams: 2, ..settings() });
    let open = async || client().get(world.url("/api/v1/alerts/stream")).send().await.unwrap();
    let held = [open().await, open().await];
    assert_eq!(open().await.status(), 503);
    drop(held);
    wait_until(async || open().await.status() == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn disconnects_a_stalled_client() {
    let mut settings = Settings { stalled: Duration::from_millis(300), streams: 1, ..settings() };
    settings.limits.stalled = Duration::from_millis(300);
    let world = start(settings);
    for _ in 0..200 {
        world.alert(200_000);
    }
    let mut stream = TcpStream::connect(world.server.address()).await.unwrap();
    stream.write_all(b"GET /api/v1/alerts/stream?after=0 HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    // It holds the only permit, reads nothing, and loses the permit.
    let shows = async |line: &str| {
        let text = client().get(world.url("/metrics")).send().await.unwrap().bytes().await.unwrap();
        String::from_utf8_lossy(&text).lines().any(|shown| shown == line)
    };
    wait_until(async || {
        shows("pullwatch_http_requests_total{code=\"200\",path=\"/api/v1/alerts/stream\"} 1").await
    })
    .await;
    wait_until(async || shows("pullwatch_http_alert_streams 0").await).await;
    // Its connection is closed before all alerts were sent.
    let mut rest = Vec::new();
    let read = tokio::time::timeout(WAIT_TIMEOUT, stream.read_to_end(&mut rest)).await;
    assert!(read.is_ok(), "the connection is still open");
    assert!(rest.len() < 30_000_000, "{}", rest.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_required_except_for_probes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "correct-horse-battery").unwrap();
    let world = start(Settings { token_file: Some(file), ..settings() });
    for path in [
        "/metrics",
        "/api/v1/status",
        "/api/v1/exposures",
        "/api/v1/openapi.json",
        "/api/v1/alerts",
        "/api/v1/alerts/stream",
        "/nothing",
    ] {
        assert_eq!(world.get(path).await.0, 401, "{path}");
        let response = client().get(world.url(path)).bearer_auth("wrong-horse-battery").send().await.unwrap();
        assert_eq!(response.status(), 403, "{path}");
    }
    // The page holds no data: it asks for the token.
    assert_eq!(client().get(world.url("/")).send().await.unwrap().status(), 200);
    let (code, body) = world.get("/readyz").await;
    assert_eq!((code, body.to_string()), (200, "{\"ok\":true,\"status\":\"ok\"}".to_owned()));
    let response =
        client().get(world.url("/readyz")).bearer_auth("correct-horse-battery").send().await.unwrap();
    assert!(String::from_utf8_lossy(&response.bytes().await.unwrap()).contains("about store"));
}

#[tokio::test(flavor = "multi_thread")]
async fn serves_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let tls = write_tls(folder.path(), &authority.sign(), None);
    let world = start(Settings { tls: Some(tls), ..settings() });
    let url = format!("https://localhost:{}/healthz", world.server.address().port());
    for protocol in ["http/1.1", "h2"] {
        let response = tls_client(&authority, None, protocol).get(&url).send().await.unwrap();
        assert_eq!(response.status(), 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_closes_streams_without_waiting_for_their_clients() {
    let world = start(settings());
    let mut response = client().get(world.url("/api/v1/alerts/stream")).send().await.unwrap();
    let stopping = world.server.stop(10 * WAIT_TIMEOUT);
    assert!(tokio::time::timeout(WAIT_TIMEOUT, stopping).await.is_ok(), "it waits for the client");
    while let Ok(Some(_)) = response.chunk().await {}
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_an_address_in_use() {
    let world = start(settings());
    let backend = Backend {
        metrics: Metrics::new(&[]).unwrap(),
        alerts: world.log.clone(),
        health: world.checks.clone(),
        status: Arc::new(Parts),
        latest_seq: world.latest_seq.subscribe(),
    };
    let error =
        Server::start(Settings { address: world.server.address(), ..settings() }, backend).unwrap_err();
    assert!(error.to_string().starts_with("cannot listen on 127.0.0.1:"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rejects_foreign_host_names() {
    let hosts = vec!["alerts.example.com".to_owned(), "*.security.svc".to_owned()];
    let world = start(Settings { hosts, ..settings() });
    let ask = async |path: &str, host: &str| {
        client().get(world.url(path)).header("host", host).send().await.unwrap().status().as_u16()
    };
    assert_eq!(ask("/api/v1/alerts", "rebound.example.com:9417").await, 403);
    assert_eq!(ask("/metrics", "rebound.example.com").await, 403);
    assert_eq!(ask("/healthz", "rebound.example.com").await, 200);
    for (host, code) in [
        ("127.0.0.1:9417", 200),
        ("localhost:9417", 200),
        ("pullwatch.security.svc:9417", 200),
        ("alerts.example.com", 200),
        // Anybody in the same network or cluster can own these.
        ("pullwatch", 403),
        ("printer.local", 403),
        ("pullwatch.security.svc.cluster.local", 403),
        ("evil.default.svc", 403),
        ("vm.internal", 403),
    ] {
        assert_eq!(ask("/api/v1/alerts", host).await, code, "{host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn closes_idle_connections() {
    let mut settings = settings();
    // The request has to arrive within this time too.
    settings.limits.idle = Duration::from_secs(2);
    let world = start(settings);
    let mut stream = TcpStream::connect(world.server.address()).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut all = Vec::new();
    let read = tokio::time::timeout(WAIT_TIMEOUT, stream.read_to_end(&mut all)).await;
    assert!(read.is_ok(), "the connection is still open");
    assert!(String::from_utf8_lossy(&all).starts_with("HTTP/1.1 200 OK"));
}
