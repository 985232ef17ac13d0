//! The webhook on real sockets, with bodies that real apiservers sent.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod net;

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use net::{Authority, WAIT_TIMEOUT, client, http2_client, replace, tls_client, wait_until, write_tls};
use pullwatch::internals::daemon::metrics::{Metrics, WebhookMetrics};
use pullwatch::internals::daemon::source::webhook::{
    BatchOutcome, InvalidBody, Receiver, RecentEvents, Settings, WebhookBatch, split_events,
};
use pullwatch::internals::detection::detector::{Detector, Options};
use pullwatch::internals::detection::rules;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

fn body(number: u32) -> Vec<u8> {
    let path = format!("{}/tests/data/webhook/{number:05}.body.gz", env!("CARGO_MANIFEST_DIR"));
    let mut body = Vec::new();
    flate2::read::MultiGzDecoder::new(std::fs::File::open(path).unwrap()).read_to_end(&mut body).unwrap();
    body
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

fn settings() -> Settings {
    Settings {
        address: "127.0.0.1:0".parse().unwrap(),
        reload_interval: Duration::from_millis(30),
        ..Settings::default()
    }
}

struct Hook {
    receiver: Receiver,
    metrics: Arc<Metrics>,
}

fn start(settings: Settings) -> (Hook, mpsc::Receiver<WebhookBatch>) {
    let metrics = Metrics::new(&["hook".to_owned()]).unwrap();
    let observer = Arc::new(WebhookMetrics::new(metrics.clone(), "hook"));
    let (receiver, deliveries) = Receiver::start(settings, observer).unwrap();
    (Hook { receiver, metrics }, deliveries)
}

impl Hook {
    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.receiver.address())
    }

    fn secure(&self) -> String {
        format!("https://localhost:{}/", self.receiver.address().port())
    }

    fn counts(&self, code: u16) -> u64 {
        let start = format!("pullwatch_webhook_requests_total{{code=\"{code}\",source=\"hook\"}} ");
        let text = self.metrics.render();
        text.lines().find_map(|line| line.strip_prefix(&start)).unwrap().parse().unwrap()
    }
}

/// A pipeline on a thread of its own, as in the daemon.
fn pipeline(mut deliveries: mpsc::Receiver<WebhookBatch>) -> Arc<AtomicU64> {
    let stored = Arc::new(AtomicU64::new(0));
    let counter = stored.clone();
    std::thread::spawn(move || {
        while let Some(delivery) = deliveries.blocking_recv() {
            if delivery.is_head {
                counter.fetch_add(1, Ordering::SeqCst);
                let _ = delivery.done.send(BatchOutcome::Stored { events: 1 });
                continue;
            }
            let outcome = match split_events(&delivery.body) {
                Ok(events) => {
                    counter.fetch_add(events.len() as u64, Ordering::SeqCst);
                    BatchOutcome::Stored { events: events.len() as u64 }
                }
                Err(reason) => BatchOutcome::Invalid(reason),
            };
            let _ = delivery.done.send(outcome);
        }
    });
    stored
}

async fn post(hook: &Hook, body: impl Into<reqwest::Body>) -> reqwest::Response {
    client().post(hook.url("/")).header("content-type", "application/json").body(body).send().await.unwrap()
}

async fn error(response: reqwest::Response) -> (u16, String) {
    let code = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], "application/json");
    let body: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    (code, body["error"].as_str().unwrap().to_owned())
}

/// Sends raw bytes and returns the raw response, once the connection is closed.
async fn raw(hook: &Hook, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(hook.receiver.address()).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(WAIT_TIMEOUT, stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "the connection is still open");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn accepts_what_real_apiservers_sent() {
    let (hook, deliveries) = start(Settings { path: "/k8s-audit".to_owned(), ..settings() });
    let stored = pipeline(deliveries);
    let mut all = 0;
    for number in [1, 2] {
        let path = format!("{}/tests/data/webhook/{number:05}.headers", env!("CARGO_MANIFEST_DIR"));
        let head = std::fs::read_to_string(path).unwrap();
        // A newer apiserver adds its timeout to the query.
        let head = if number == 2 { head.replace("/k8s-audit ", "/k8s-audit?timeout=30s ") } else { head };
        let mut request = head.trim_end().replace("\r\n", "\n").replace('\n', "\r\n").into_bytes();
        request.extend_from_slice(b"\r\nConnection: close\r\n\r\n");
        let body = body(number);
        request.extend_from_slice(&body);
        let answer = raw(&hook, &request).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        let events = serde_json::from_slice::<Value>(&body).unwrap()["items"].as_array().unwrap().len();
        assert!(answer.ends_with(&format!("{{\"events\":{events}}}")), "{answer}");
        all += events as u64;
    }
    assert_eq!(stored.load(Ordering::SeqCst), all);
    assert_eq!(hook.counts(200), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn responds_only_when_the_batch_is_stored() {
    let (hook, mut deliveries) = start(settings());
    let asking = tokio::spawn(client().post(hook.url("/")).body(body(1)).send());
    let delivery = deliveries.recv().await.unwrap();
    assert_eq!(delivery.body, body(1));
    assert!(delivery.peer.ip().is_loopback());
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!asking.is_finished(), "answered before it was stored");
    delivery.done.send(BatchOutcome::Stored { events: 3 }).unwrap();
    assert_eq!(asking.await.unwrap().unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_outcome_has_a_response() {
    let (hook, mut deliveries) = start(settings());
    for (outcome, code, retry) in [
        (Some(BatchOutcome::Invalid(InvalidBody::NoEvents)), 400, None),
        (Some(BatchOutcome::Full), 503, Some("10")),
        (Some(BatchOutcome::Busy), 503, Some("5")),
        (None, 503, Some("5")),
    ] {
        let asking = tokio::spawn(client().post(hook.url("/")).body("{}").send());
        let delivery = deliveries.recv().await.unwrap();
        match outcome {
            Some(outcome) => delivery.done.send(outcome).unwrap(),
            None => drop(delivery),
        }
        let response = asking.await.unwrap().unwrap();
        assert_eq!(response.headers().get("retry-after").map(|value| value.to_str().unwrap()), retry);
        assert_eq!(error(response).await.0, code);
    }
    // The pipeline does not answer.
    let (hook, deliveries) = start(Settings { store_timeout: Duration::from_millis(300), ..settings() });
    let response = post(&hook, "{}").await;
    assert_eq!(error(response).await, (503, "the batch is queued, retry".to_owned()));
    // The pipeline has ended.
    drop(deliveries);
    assert_eq!(post(&hook, "{}").await.status(), 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_answered_429() {
    let (hook, mut deliveries) = start(Settings { queue: 1, ..settings() });
    let first = tokio::spawn(client().post(hook.url("/")).body("{\"a\":1}").send());
    wait_until(async || deliveries.len() == 1).await;
    let response = post(&hook, "{}").await;
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(error(response).await.0, 429);
    deliveries.recv().await.unwrap().done.send(BatchOutcome::Stored { events: 1 }).unwrap();
    assert_eq!(first.await.unwrap().unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_share_one_memory_budget() {
    let (hook, mut deliveries) = start(Settings { max_body: 1 << 20, memory: 3 << 20, ..settings() });
    let megabyte = vec![b' '; 1 << 20];
    let mut waiting = Vec::new();
    for count in 1..=3 {
        waiting.push(tokio::spawn(client().post(hook.url("/")).body(megabyte.clone()).send()));
        wait_until(async || deliveries.len() == count).await;
    }
    assert!(hook.metrics.render().contains("pullwatch_webhook_memory_bytes{source=\"hook\"} 3145728"));
    assert_eq!(error(post(&hook, megabyte.clone()).await).await.0, 429);
    // A batch counts until it is dropped.
    let delivery = deliveries.recv().await.unwrap();
    assert_eq!(error(post(&hook, megabyte.clone()).await).await.0, 429);
    delivery.done.send(BatchOutcome::Busy).unwrap();
    drop(delivery.reservation);
    waiting.push(tokio::spawn(client().post(hook.url("/")).body(megabyte).send()));
    wait_until(async || deliveries.len() == 3).await;
    drop(deliveries);
    for asked in waiting {
        assert_eq!(asked.await.unwrap().unwrap().status(), 503);
    }
    wait_until(async || hook.metrics.render().contains("pullwatch_webhook_memory_bytes{source=\"hook\"} 0"))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_bodies_are_answered_with_a_reason() {
    let (hook, deliveries) = start(settings());
    pipeline(deliveries);
    for (body, reason) in [
        ("", "the body is empty"),
        (" \n", "the body is empty"),
        ("hello", "the body is not JSON"),
        ("{\"kind\":\"EventList\",\"items\":[", "the JSON of the body is truncated"),
        ("{\"kind\":\"Pod\"}", "the body is not an audit.k8s.io EventList"),
        ("{}", "the body is not an audit.k8s.io EventList"),
        ("3", "the body is not an audit.k8s.io EventList"),
        ("[]", "the body contains no events"),
        ("{\"kind\":\"EventList\",\"items\":[]}", "the body contains no events"),
        ("{\"kind\":\"EventList\"}", "the body contains no events"),
    ] {
        let (code, said) = error(post(&hook, body).await).await;
        assert_eq!(code, 400, "{body}");
        assert!(said.starts_with(reason), "{body}: {said}");
    }
    assert_eq!(hook.counts(400), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn refuses_other_paths_methods_and_content_types() {
    let (hook, deliveries) = start(Settings { path: "/k8s-audit".to_owned(), ..settings() });
    pipeline(deliveries);
    let event = "{\"kind\":\"Event\",\"auditID\":\"a\"}";
    let post = |path: &str| client().post(hook.url(path)).body(event);
    assert_eq!(post("/k8s-audit").send().await.unwrap().status(), 200);
    assert_eq!(post("/k8s-audit/").send().await.unwrap().status(), 200);
    assert_eq!(error(post("/").send().await.unwrap()).await.0, 404);
    let response = client().get(hook.url("/k8s-audit")).send().await.unwrap();
    assert_eq!(response.headers()["allow"], "POST");
    assert_eq!(error(response).await.0, 405);
    let typed = |kind: &'static str| post("/k8s-audit").header("content-type", kind).send();
    assert_eq!(typed("application/json; charset=utf-8").await.unwrap().status(), 200);
    // What log shippers call one object per line.
    let lines = format!("{event}\n{}\n", event.replace("\"a\"", "\"b\""));
    let response =
        post("/k8s-audit").header("content-type", "application/x-ndjson").body(lines).send().await.unwrap();
    assert_eq!(response.status(), 200);
    for other in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""] {
        assert_eq!(error(typed(other).await.unwrap()).await.0, 415, "{other}");
    }
    // What a page in a browser can send to any site without asking it.
    let request = format!(
        "POST /k8s-audit HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n",
        event.len()
    );
    let answer = raw(&hook, format!("{request}\r\n{event}").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 415"), "{answer}");
    let json = "Content-Type: application/json\r\n";
    let answer =
        raw(&hook, format!("{request}{json}Origin: https://evil.example\r\n\r\n{event}").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("Origin"), "{answer}");
    assert_eq!((hook.counts(415), hook.counts(403)), (5, 1));
    let response = post("/k8s-audit").header("content-encoding", "br").send().await.unwrap();
    assert_eq!(response.headers()["accept-encoding"], "gzip");
    assert_eq!(error(response).await.0, 415);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_body_is_evaluated_in_parts_and_long_events_by_their_beginning() {
    let (hook, mut deliveries) = start(Settings { max_body: 1 << 20, ..settings() });
    let (sender, parts) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        while let Some(delivery) = deliveries.blocking_recv() {
            let events =
                if delivery.is_head { 1 } else { split_events(&delivery.body).unwrap().len() as u64 };
            sender.send((delivery.is_head, String::from_utf8(delivery.body).unwrap())).unwrap();
            let _ = delivery.done.send(BatchOutcome::Stored { events });
        }
    });
    let item = |id: &str, pad: usize| {
        format!(r#"{{"level":"Metadata","auditID":"{id}","x":"{}"}}"#, "x".repeat(pad))
    };
    let items = [item("small-1", 3), item("large", 5 << 20), item("small-2", 3)].join(",");
    let body =
        format!(r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{{}},"items":[{items}]}}"#);
    let requests = [
        client().post(hook.url("/")).body(body.clone()),
        client().post(hook.url("/")).header("content-encoding", "gzip").body(gzip(body.as_bytes())),
    ];
    for request in requests {
        let response = request.send().await.unwrap();
        assert_eq!(
            (response.status().as_u16(), response.text().await.unwrap()),
            (200, r#"{"events":3}"#.to_owned())
        );
        let parts: Vec<(bool, String)> = parts.try_iter().collect();
        assert_eq!(parts.iter().map(|(is_head, _)| *is_head).collect::<Vec<_>>(), [false, true, false]);
        assert!(parts[0].1.contains("small-1") && parts[2].1.contains("small-2"));
        let head = &parts[1].1;
        assert!(head.starts_with(
            r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"large""#
        ));
        assert!(head.len() < 1 << 20);
    }
    // Its brackets do not close: what was complete is stored.
    let broken = format!("[{},{}", item("a", 2 << 20), item("b", 1));
    let (code, said) = error(post(&hook, broken).await).await;
    assert_eq!((code, said.as_str()), (400, "the JSON of the body is truncated"));
    assert_eq!(parts.try_iter().count(), 2);
    assert!(!hook.metrics.render().contains("pullwatch_webhook_dropped_events_total{source=\"hook\"} 0"));
    wait_until(async || hook.metrics.render().contains("pullwatch_webhook_memory_bytes{source=\"hook\"} 0"))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_body_that_does_not_end_is_answered_and_counted() {
    let settings = Settings {
        max_body: 100_000,
        // What arrives of the body has to arrive within this time.
        read_timeout: Duration::from_secs(3),
        store_timeout: Duration::from_millis(500),
        ..settings()
    };
    let (hook, deliveries) = start(settings);
    let stored = pipeline(deliveries);
    let mut request =
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: 9000000\r\n\r\n".to_vec();
    request.extend_from_slice(br#"{"kind":"EventList","items":[{"auditID":"a"},{"auditID":"b","x":""#);
    request.extend(std::iter::repeat_n(b'x', 200_000));
    let answer = raw(&hook, &request).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    let metrics = hook.metrics.render();
    assert!(metrics.contains("pullwatch_webhook_dropped_events_total{source=\"hook\"} 2"), "{metrics}");
    assert!(metrics.contains("pullwatch_webhook_dropped_bytes_total{source=\"hook\"} 9000000"), "{metrics}");
    assert_eq!(stored.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn refuses_large_bodies_and_headers_before_reading_them() {
    let (hook, deliveries) = start(Settings { max_body: 100_000, ..settings() });
    pipeline(deliveries);
    let (code, said) = error(post(&hook, vec![b' '; 100_001]).await).await;
    assert_eq!(code, 413);
    assert!(said.contains("larger than 100000 bytes"), "{said}");
    // Chunked, without a length.
    let mut request =
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..30 {
        request.extend_from_slice(b"1000\r\n");
        request.extend_from_slice(&[b' '; 0x1000]);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    let answer = raw(&hook, &request).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    // An endless header.
    let mut request = b"POST / HTTP/1.1\r\nHost: a\r\nX: ".to_vec();
    request.extend(std::iter::repeat_n(b'x', 40 << 10));
    assert!(raw(&hook, &request).await.starts_with("HTTP/1.1 431"));
}

#[tokio::test(flavor = "multi_thread")]
async fn gzip_is_decompressed_within_the_limit() {
    let (hook, deliveries) = start(Settings { max_body: 4 << 20, read_timeout: WAIT_TIMEOUT, ..settings() });
    let stored = pipeline(deliveries);
    let packed =
        |body: Vec<u8>| client().post(hook.url("/")).header("content-encoding", "gzip").body(body).send();
    let real = body(1);
    // In two gzip members.
    let mut members = gzip(&real[..1000]);
    members.extend(gzip(&real[1000..]));
    assert_eq!(packed(members).await.unwrap().status(), 200);
    assert!(stored.load(Ordering::SeqCst) > 100);
    // A gigabyte compressed to a megabyte.
    let bomb = gzip(&vec![b' '; 8 << 20]);
    let bomb: Vec<u8> = std::iter::repeat_n(bomb, 128).flatten().collect();
    assert!(bomb.len() < 2 << 20);
    // It is answered at the limit: the rest of the body is not even sent.
    let mut start = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        bomb.len()
    )
    .into_bytes();
    start.extend_from_slice(&bomb[..bomb.len() / 16]);
    assert!(raw(&hook, &start).await.starts_with("HTTP/1.1 413"));
    assert_eq!(error(packed(bomb).await.unwrap()).await.0, 413);
    // Empty gzip members, longer than the limit.
    let empty: Vec<u8> = std::iter::repeat_n(gzip(b""), 250_000).flatten().collect();
    assert_eq!(error(packed(empty).await.unwrap()).await.0, 413);
    let half = gzip(&real);
    for broken in [b"no gzip at all, not in the least".to_vec(), half[..half.len() / 2].to_vec(), Vec::new()]
    {
        let (code, said) = error(packed(broken).await.unwrap()).await;
        assert_eq!(code, 400, "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requires_the_bearer_token() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "correct-horse-battery\n").unwrap();
    let (hook, deliveries) = start(Settings { token_file: Some(file.clone()), ..settings() });
    let stored = pipeline(deliveries);
    let post = async |token: &str| {
        let request = client().post(hook.url("/")).body("[{}]");
        let request = if token.is_empty() { request } else { request.header("authorization", token) };
        request.send().await.unwrap()
    };
    let response = post("").await;
    assert_eq!(response.headers()["www-authenticate"], "Bearer");
    assert_eq!(error(response).await.0, 401);
    assert_eq!(error(post("Basic abc").await).await.0, 401);
    assert_eq!(error(post("Bearer correct-horse-batterz").await).await.0, 403);
    assert_eq!(error(post("Bearer ").await).await.0, 401);
    assert_eq!(stored.load(Ordering::SeqCst), 0);
    assert_eq!(post("Bearer correct-horse-battery").await.status(), 200);
    assert_eq!(post("bearer correct-horse-battery").await.status(), 200);
    // A changed token is loaded, an empty file is not.
    replace(&file, "another-token-of-length");
    wait_until(async || post("Bearer another-token-of-length").await.status() == 200).await;
    assert_eq!(post("Bearer correct-horse-battery").await.status(), 403);
    replace(&file, "");
    let refused = "pullwatch_secret_file_reloads_total{listener=\"hook\",result=\"failure\"} 1";
    wait_until(async || hook.metrics.render().contains(refused)).await;
    assert_eq!(post("Bearer another-token-of-length").await.status(), 200);
    assert_eq!(post("Bearer ").await.status(), 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_with_client_certificates_and_both_protocols() {
    let folder = tempfile::tempdir().unwrap();
    let (servers, clients, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let tls = write_tls(folder.path(), &servers.sign(), Some(&clients));
    let (hook, deliveries) = start(Settings { tls: Some(tls), ..settings() });
    let stored = pipeline(deliveries);
    let apiserver = clients.sign();
    for (protocol, version) in [("http/1.1", reqwest::Version::HTTP_11), ("h2", reqwest::Version::HTTP_2)] {
        let client = tls_client(&servers, Some(&apiserver), protocol);
        let response = client.post(hook.secure()).body(body(2)).send().await.unwrap();
        assert_eq!((response.status().as_u16(), response.version()), (200, version));
    }
    let before = stored.load(Ordering::SeqCst);
    for identity in [None, Some(&strangers.sign())] {
        let client = tls_client(&servers, identity, "http/1.1");
        assert!(client.post(hook.secure()).body("[{}]").send().await.is_err());
    }
    // Plain HTTP gets no response.
    assert!(client().post(hook.url("/")).body("[{}]").send().await.is_err());
    assert_eq!(stored.load(Ordering::SeqCst), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_loaded_while_running() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (Authority::new(), Authority::new());
    let tls = write_tls(folder.path(), &old.sign(), None);
    let (hook, deliveries) = start(Settings { tls: Some(tls), ..settings() });
    pipeline(deliveries);
    let ask = async |authority: &Authority| {
        let asked = tls_client(authority, None, "http/1.1").post(hook.secure()).body("[{}]").send().await;
        asked.is_ok_and(|response| response.status() == 200)
    };
    assert!(ask(&old).await);
    assert!(!ask(&new).await);
    // Only the certificate is written: the old pair stays.
    let next = new.sign();
    replace(&folder.path().join("tls.crt"), &next.certificate);
    let refused = "pullwatch_secret_file_reloads_total{listener=\"hook\",result=\"failure\"} 1";
    wait_until(async || hook.metrics.render().contains(refused)).await;
    assert!(ask(&old).await);
    replace(&folder.path().join("tls.key"), &next.key);
    wait_until(async || ask(&new).await).await;
    assert!(!ask(&old).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_without_tls() {
    let (hook, deliveries) = start(settings());
    pipeline(deliveries);
    let client = http2_client();
    for number in [1, 2] {
        let response = client.post(hook.url("/")).body(body(number)).send().await.unwrap();
        assert_eq!((response.status().as_u16(), response.version()), (200, reqwest::Version::HTTP_2));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_are_disconnected() {
    // The headers have to arrive within the first of them.
    let mut settings = Settings { read_timeout: Duration::from_secs(1), ..settings() };
    settings.limits.first_request = Duration::from_secs(3);
    let (hook, deliveries) = start(settings);
    pipeline(deliveries);
    // An endless header.
    let answer = raw(&hook, b"POST / HTTP/1.1\r\nHost: a\r\n").await;
    assert_eq!(answer, "");
    // A body that does not arrive.
    let answer = raw(
        &hook,
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    // A body that breaks off releases its memory.
    let mut stream = TcpStream::connect(hook.receiver.address()).await.unwrap();
    stream
        .write_all(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{",
        )
        .await
        .unwrap();
    drop(stream);
    wait_until(async || hook.metrics.render().contains("pullwatch_webhook_memory_bytes{source=\"hook\"} 0"))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_do_not_lock_out_a_sender_at_the_same_address() {
    let mut settings = settings();
    settings.limits.connections_per_address = 3;
    let (hook, deliveries) = start(settings);
    pipeline(deliveries);
    // The honest sender has a connection.
    let request =
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\n[{}]";
    let mut kept = TcpStream::connect(hook.receiver.address()).await.unwrap();
    let mut answer = [0; 4096];
    for _ in 0..2 {
        kept.write_all(request).await.unwrap();
        let length = kept.read(&mut answer).await.unwrap();
        assert!(answer[..length].starts_with(b"HTTP/1.1 200"));
        // A flood from the same address: connections that send nothing, and halves of requests.
        let mut held = Vec::new();
        for number in 0..50 {
            let mut idle = TcpStream::connect(hook.receiver.address()).await.unwrap();
            if number % 2 == 0 {
                let _ = idle.write_all(b"POST / HTTP/1.1\r\n").await;
            }
            held.push(idle);
        }
        // Tasks of their own register the connections, in any order. Two places are left for idle ones.
        let is_closed = |stream: &TcpStream| {
            let read = stream.try_read(&mut [0; 16]);
            !matches!(read, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
        };
        wait_until(async || held.iter().filter(|stream| is_closed(stream)).count() >= 48).await;
        // A new connection of the sender works as well.
        assert_eq!(post(&hook, "[{}]").await.status(), 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_with_a_request_in_progress_are_not_replaced() {
    let mut settings = settings();
    settings.limits.connections_per_address = 3;
    let (hook, mut batches) = start(settings);
    let waiting: Vec<_> =
        (0..3).map(|_| tokio::spawn(client().post(hook.url("/")).body("[{}]").send())).collect();
    wait_until(async || batches.len() == 3).await;
    assert!(client().post(hook.url("/")).body("[{}]").send().await.is_err());
    while let Ok(batch) = batches.try_recv() {
        batch.done.send(BatchOutcome::Stored { events: 1 }).unwrap();
    }
    for one in waiting {
        assert_eq!(one.await.unwrap().unwrap().status(), 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pending_batches_are_answered_during_shutdown() {
    let (hook, mut deliveries) = start(settings());
    let url = hook.url("/");
    let asking = tokio::spawn(client().post(&url).body("[{}]").send());
    let delivery = deliveries.recv().await.unwrap();
    hook.receiver.drain();
    let response = post(&hook, "[{}]").await;
    assert_eq!(response.headers()["retry-after"], "5");
    assert_eq!(error(response).await, (503, "shutting down".to_owned()));
    let stopping = tokio::spawn(hook.receiver.stop(WAIT_TIMEOUT));
    tokio::time::sleep(Duration::from_millis(100)).await;
    delivery.done.send(BatchOutcome::Stored { events: 1 }).unwrap();
    assert_eq!(asking.await.unwrap().unwrap().status(), 200);
    stopping.await.unwrap();
    assert!(client().post(&url).body("[{}]").send().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_batches_are_all_answered() {
    let (hook, mut deliveries) = start(Settings { queue: 4, ..settings() });
    let most = Arc::new(AtomicUsize::new(0));
    let seen = most.clone();
    std::thread::spawn(move || {
        while let Some(delivery) = deliveries.blocking_recv() {
            seen.fetch_max(deliveries.len(), Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(5));
            let _ = delivery.done.send(BatchOutcome::Stored { events: 1 });
        }
    });
    let asked: Vec<_> =
        (0..40).map(|_| tokio::spawn(client().post(hook.url("/")).body("[{}]").send())).collect();
    let mut codes = std::collections::BTreeMap::new();
    for asked in asked {
        *codes.entry(asked.await.unwrap().unwrap().status().as_u16()).or_insert(0) += 1;
    }
    assert_eq!(codes.values().sum::<i32>(), 40);
    assert!(codes.keys().all(|code| matches!(code, 200 | 429)), "{codes:?}");
    assert!(most.load(Ordering::SeqCst) <= 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_events_are_recognized_by_content_not_by_audit_id() {
    let (hook, mut deliveries) = start(Settings { store_timeout: Duration::from_secs(3), ..settings() });
    let mut seen = RecentEvents::default();
    let mut take = |delivery: &WebhookBatch| {
        let events = split_events(&delivery.body).unwrap();
        let new: Vec<_> =
            events.iter().filter(|(digest, _)| !seen.contains(digest)).map(|(digest, _)| *digest).collect();
        seen.remember(new.iter().copied());
        (events.len(), new.len())
    };
    // Stored, but answered too late.
    let response = post(&hook, body(1)).await;
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(response.status(), 503);
    let first = deliveries.recv().await.unwrap();
    let (all, new) = take(&first);
    assert!(all > 100 && new == all);
    // The same batch with another event that reuses an audit id.
    let text = String::from_utf8(body(1)).unwrap();
    let asking = tokio::spawn(client().post(hook.url("/")).body(text.clone()).send());
    let again = deliveries.recv().await.unwrap();
    assert_eq!(take(&again), (all, 0));
    again.done.send(BatchOutcome::Stored { events: all as u64 }).unwrap();
    assert_eq!(asking.await.unwrap().unwrap().status(), 200);
    let changed = text.replacen("\"requestURI\":\"/readyz\"", "\"requestURI\":\"/api/v1/secrets\"", 1);
    assert_ne!(changed, text);
    let asking = tokio::spawn(client().post(hook.url("/")).body(changed).send());
    let third = deliveries.recv().await.unwrap();
    assert_eq!(take(&third), (all, 1));
    third.done.send(BatchOutcome::Stored { events: all as u64 }).unwrap();
    assert_eq!(asking.await.unwrap().unwrap().status(), 200);
}

/// A pipeline that drops duplicates evaluates event by event, with the same result as for the whole body.
#[test]
fn events_evaluated_one_by_one_cause_the_same_alerts() {
    let loaded = rules::load(&pullwatch::internals::shipped::files(), &rules::Options::default());
    let detector = Detector::new(&loaded.rules, Options::default());
    let mut found = [(Vec::new(), 0), (Vec::new(), 0)];
    for number in [1, 2] {
        let body = body(number);
        let mut whole = detector.session();
        whole.chunk(&body, &mut |alert| found[0].0.push(alert.id()));
        found[0].1 += whole.take_stats().events;
        let mut single = detector.session();
        for (_, at) in split_events(&body).unwrap() {
            single.chunk(&body[at], &mut |alert| found[1].0.push(alert.id()));
        }
        found[1].1 += single.take_stats().events;
    }
    assert_eq!(found[0], found[1]);
    assert_eq!(found[0].1, 800);
}
