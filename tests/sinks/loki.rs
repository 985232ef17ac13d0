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
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].header("content-type"), Some("application/json"));
    assert_eq!(requests[0].header("content-encoding"), Some("gzip"));
    assert_eq!(requests[0].header("x-scope-orgid"), Some("security"));
    let body = unzipped(&requests[0].body);
    let streams = body["streams"].as_array().unwrap();
    assert_eq!(streams.len(), 2, "one stream per rule: {body}");
    for stream in streams {
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
