//! Alerts to Loki and to Alertmanager, as their documentation describes the requests, and what their refusals lead to.

use std::io::Read as _;

use pullwatch::internals::daemon::sink::{Alertmanager, Http, Kind, Loki, Secret};
use pullwatch::internals::detection::alert::StoredAlert;
use serde_json::Value;

use crate::rig::{Memory, Rig, alert, alert_of, config};
use crate::server::{Answer, Server};

/// An alert with the fields that every alert has.
fn full(seq: i64) -> StoredAlert {
    let stored = alert(seq);
    let json = String::from_utf8(stored.json.clone()).unwrap();
    let more = r#"{"actor":"alice","credential":"prod/regcred","namespace":"prod","registry_host":"ghcr.io","exposure":"payload","verb":"get","cluster":"prod-eu","team":"x","#;
    StoredAlert { json: json.replacen('{', more, 1).into_bytes(), ..stored }
}

fn loki(server: &Server, gzip: bool) -> Kind {
    let http = Http { url: Secret::new(server.url()), gzip, ..Http::default() };
    Kind::Loki(Loki { http, tenant: Some("security".to_owned()), ..Loki::default() })
}

fn unzipped(body: &[u8]) -> Value {
    let mut text = String::new();
    flate2::read::GzDecoder::new(body).read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[tokio::test]
async fn a_push_has_the_documented_form() {
    let server = Server::start([]).await;
    let other = StoredAlert { rule: "Other".to_owned(), ..full(3) };
    let rig = Rig::start(config(loki(&server, true)), &Memory::with([full(1), full(2), other]));
    rig.reaches(3).await;
    let requests = server.requests();
    // Of several streams in a request, Loki's answer is about the last one alone.
    assert_eq!(requests.len(), 2, "one request for each stream");
    assert_eq!(requests[0].header("content-type"), Some("application/json"));
    assert_eq!(requests[0].header("content-encoding"), Some("gzip"));
    assert_eq!(requests[0].header("x-scope-orgid"), Some("security"));
    for request in &requests {
        let body = unzipped(&request.body);
        let streams = body["streams"].as_array().unwrap();
        assert_eq!(streams.len(), 1, "one stream per rule: {body}");
        let stream = &streams[0];
        let labels = stream["stream"].as_object().unwrap();
        let mut names: Vec<_> = labels.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["cluster", "job", "priority", "rule", "team"]);
        for entry in stream["values"].as_array().unwrap() {
            assert!(entry[0].as_str().unwrap().parse::<i64>().unwrap() > 1_700_000_000_000_000_000);
            assert!(
                entry[1].as_str().unwrap().contains("Secret Read: alice read b") || labels["rule"] == "Other"
            );
            let metadata = entry[2].as_object().unwrap();
            assert!(metadata.values().all(Value::is_string));
            for (name, value) in [
                ("actor", "alice"),
                ("credential", "prod/regcred"),
                ("namespace", "prod"),
                ("registry", "ghcr.io"),
                ("exposure", "payload"),
                ("verb", "get"),
            ] {
                assert_eq!(metadata[name], value);
            }
            assert!(metadata.contains_key("alert_id") && metadata.contains_key("event_time"));
        }
    }
    rig.stop().await.unwrap();
}

#[tokio::test]
async fn a_rate_limit_is_waited_for_and_an_entry_that_is_too_old_gets_the_present_time() {
    // Loki answers 400 also where it kept a part of the entries.
    let server =
        Server::start([Answer::With(429, "Retry-After: 0"), Answer::Status(400), Answer::Status(400)]).await;
    let rig = Rig::start(config(loki(&server, false)), &Memory::with([full(1)]));
    rig.reaches(1).await;
    let times: Vec<String> = server
        .requests()
        .iter()
        .map(|request| serde_json::from_slice::<Value>(&request.body).unwrap())
        .map(|body| body["streams"][0]["values"][0][0].as_str().unwrap().to_owned())
        .collect();
    // 429; 400 twice for the first attempt, which is a refusal; the dead letters have it.
    assert_eq!(times.len(), 3, "{times:?}");
    assert_eq!(rig.count("failures_total", Some("throttled")), 1);
    assert_eq!(rig.count("dead_letters_total", Some("rejected")), 1);
    rig.stop().await.unwrap();

    let server = Server::start([Answer::Status(400)]).await;
    let rig = Rig::start(config(loki(&server, false)), &Memory::with([full(1)]));
    rig.reaches(1).await;
    assert_eq!((server.requests().len(), rig.count("deliveries_total", None)), (2, 1));
    rig.stop().await.unwrap();
}

/// The streams of the requests: the times and lines of each.
fn pushed(server: &Server) -> Vec<Vec<(i64, String)>> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    server
        .requests()
        .iter()
        .map(|request| serde_json::from_slice::<Value>(&request.body).unwrap())
        .map(|body| {
            let values = body["streams"][0]["values"].as_array().unwrap();
            values.iter().map(|entry| (text(&entry[0]).parse().unwrap(), text(&entry[1]))).collect()
        })
        .collect()
}

/// An alert about an event of some minutes ago, which was stored at once.
fn aged(seq: i64, minutes: i64) -> StoredAlert {
    let now = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap();
    let time = now - minutes * 60_000_000_000;
    StoredAlert { time, stored: now - 1_000_000_000, ..full(seq) }
}

const TOO_FAR_BEHIND: &str = "entry with timestamp 2026-11-27 21:17:03.949 +0000 UTC ignored, reason: 'entry too far behind, entry timestamp is: 2026-11-27T21:17:03Z, oldest acceptable timestamp is: 2026-11-27T21:47:03Z',\nuser 'fake', total ignored: 3 out of 3 for stream: {job=\"pullwatch\"}";

#[tokio::test]
async fn entries_get_a_later_time_once_loki_says_that_they_are_too_far_behind() {
    let server = Server::start([Answer::Text(400, TOO_FAR_BEHIND), Answer::Text(400, TOO_FAR_BEHIND)]).await;
    let alerts = [aged(1, 40), aged(2, 12), aged(3, 1)];
    let times = alerts.each_ref().map(|alert| alert.time);
    let stored = alerts.each_ref().map(|alert| alert.stored);
    let memory = Memory::with(alerts);
    let rig = Rig::start(config(loki(&server, false)), &memory);
    rig.reaches(3).await;
    let pushed = pushed(&server);
    let at = |request: usize| pushed[request].iter().map(|(at, _)| *at).collect::<Vec<_>>();
    // Half the age of the oldest, each time.
    assert_eq!(at(0), times);
    assert_eq!(at(1), [times[1], times[2], stored[0]]);
    assert_eq!(at(2), [times[2], stored[0], stored[1]]);
    assert_eq!(pushed.len(), 3);
    rig.ends_with_all_delivered(3).await;
}

#[tokio::test]
async fn an_old_event_has_the_same_time_each_time_that_it_is_sent() {
    let server = Server::start([Answer::Status(503)]).await;
    let old = aged(1, 600);
    let stored = old.stored;
    let rig = Rig::start(config(loki(&server, false)), &Memory::with([old]));
    rig.reaches(1).await;
    let times: Vec<i64> = pushed(&server).iter().map(|entries| entries[0].0).collect();
    assert_eq!(times, [stored, stored]);
    rig.stop().await.unwrap();
}

#[tokio::test]
async fn a_line_is_shortened_to_the_limit_that_loki_names() {
    let refusal = "max entry size '600' bytes exceeded for stream '{job=\"pullwatch\"}' while adding an entry with length '900' bytes";
    let server = Server::start([Answer::Text(400, refusal)]).await;
    let long = alert_of(2, "Secret Read", alert(1).priority, &"x".repeat(900));
    let rig = Rig::start(config(loki(&server, false)), &Memory::with([alert(1), long, alert(3)]));
    rig.reaches(3).await;
    let pushed = pushed(&server);
    assert_eq!(pushed.len(), 2, "{pushed:?}");
    assert!(pushed[0].iter().any(|(_, line)| line.len() > 600));
    assert!(pushed[1].iter().all(|(_, line)| line.len() <= 600));
    rig.ends_with_all_delivered(3).await;
}

#[tokio::test]
async fn a_setting_of_loki_that_concerns_every_alert_loses_none() {
    let refusal = "stream '{job=\"pullwatch\"}' includes structured metadata, but this feature is disallowed. Please see `limits_config.allow_structured_metadata`";
    let refused = std::iter::repeat_n(Answer::Text(400, refusal), 20);
    // A Loki that blocks ingestion answers with a status that looks like success.
    let server = Server::start(refused.chain([Answer::Status(260)])).await;
    let rig = Rig::start(config(loki(&server, false)), &Memory::with((1..=4).map(full)));
    rig.reaches(4).await;
    assert_eq!(server.requests().len(), 22);
    assert_eq!(rig.count("failures_total", Some("rejected")), 20);
    assert_eq!(rig.count("failures_total", Some("unexpected_status")), 1);
    rig.ends_with_all_delivered(4).await;
}

#[tokio::test]
async fn a_delivery_becomes_smaller_until_the_burst_of_a_rate_limit_allows_it() {
    let server = Server::start(std::iter::repeat_n(Answer::Status(429), 5)).await;
    let long = |seq| alert_of(seq, "Secret Read", alert(1).priority, &"x".repeat(2000));
    let rig = Rig::start(config(loki(&server, false)), &Memory::with((1..=64).map(long)));
    rig.reaches(64).await;
    let sizes: Vec<usize> = pushed(&server).iter().map(Vec::len).collect();
    assert_eq!(sizes[0], 64);
    assert!(sizes[..6].windows(2).all(|pair| pair[1] <= pair[0] / 2 + 1), "{sizes:?}");
    assert_eq!(sizes[5..].iter().sum::<usize>(), 64, "{sizes:?}");
    rig.stop().await.unwrap();
}

#[tokio::test]
async fn labels_beyond_lokis_limit_are_metadata() {
    let server = Server::start([]).await;
    let more: Vec<String> = (0..16).map(|i| format!(r#""label{i:02}":"value","#)).collect();
    let stored = full(1);
    let json =
        String::from_utf8(stored.json.clone()).unwrap().replacen('{', &format!("{{{}", more.concat()), 1);
    let rig = Rig::start(
        config(loki(&server, false)),
        &Memory::with([StoredAlert { json: json.into_bytes(), ..stored }]),
    );
    rig.reaches(1).await;
    let body: Value = serde_json::from_slice(&server.requests()[0].body).unwrap();
    let stream = &body["streams"][0];
    let labels = stream["stream"].as_object().unwrap();
    assert_eq!(labels.len(), 15, "{labels:?}");
    let metadata = stream["values"][0][2].as_object().unwrap();
    for name in ["job", "rule", "priority", "cluster"] {
        assert!(labels.contains_key(name), "{labels:?}");
    }
    for i in 0..16 {
        let name = format!("label{i:02}");
        assert!(labels.contains_key(&name) != metadata.contains_key(&name), "{name}");
    }
    rig.stop().await.unwrap();
}

#[tokio::test]
async fn one_refused_entry_does_not_hold_up_the_others() {
    let server = Server::start([Answer::RefuseBodiesWith("poison")]).await;
    let poison = alert_of(2, "Secret Read", alert(1).priority, "poison");
    let rig = Rig::start(config(loki(&server, false)), &Memory::with([full(1), poison, full(3), full(4)]));
    rig.reaches(4).await;
    assert_eq!(rig.count("deliveries_total", None), 3);
    assert_eq!(rig.count("dead_letters_total", Some("rejected")), 1);
    rig.stop().await.unwrap();
}

#[tokio::test]
async fn every_alertmanager_gets_each_alert_and_a_wrong_token_loses_none() {
    let first = Server::start([Answer::Status(401), Answer::Status(401)]).await;
    let second = Server::start([Answer::Status(401), Answer::Status(503)]).await;
    let urls = [&first, &second].map(|server| Secret::new(server.url().replace("/in", ""))).to_vec();
    let headers = vec![("Authorization".to_owned(), Secret::new("Basic dTpw"))];
    let kind = Kind::Alertmanager(Alertmanager {
        urls,
        http: Http { headers, ..Http::default() },
        ..Alertmanager::default()
    });
    let rig = Rig::start(config(kind), &Memory::with([full(1), full(2)]));
    rig.reaches(2).await;
    for server in [&first, &second] {
        let requests = server.requests();
        let last = requests.last().unwrap();
        assert!(last.head.starts_with("POST /api/v2/alerts HTTP/1.1"), "{}", last.head);
        assert_eq!(last.header("authorization"), Some("Basic dTpw"));
        let body: Value = serde_json::from_slice(&last.body).unwrap();
        assert_eq!(body.as_array().unwrap().len(), 2);
        assert_eq!(body[0]["labels"]["registry"], "ghcr.io");
    }
    assert_eq!(rig.count("dead_letters_total", Some("rejected")), 0);
    assert_eq!(rig.count("deliveries_total", None), 2);
    rig.stop().await.unwrap();
}
