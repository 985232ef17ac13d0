//! What holds for all sinks: nothing is lost, and nobody waits for another.

use std::sync::Arc;
use std::time::Duration;

use pullwatch::internals::daemon::sink::{File, Kind, SinkConfig, SinkError};
use pullwatch::internals::detection::alert::Priority;

use crate::http::to;
use crate::rig::{Memory, Rig, alert, alert_of, config, wait_until};
use crate::server::{Answer, Server};

fn bodies(server: &Server) -> Vec<String> {
    let seq = |text: &str| text.split("\"seq\":").nth(1).unwrap().trim_end_matches('}').to_owned();
    server.requests().iter().map(|request| seq(&request.text())).collect()
}

#[tokio::test]
async fn a_kill_between_delivery_and_cursor_repeats_an_alert_and_loses_none() {
    let server = Server::start([]).await;
    let memory = Memory::with([alert(1), alert(2), alert(3)]);
    memory.break_saving(true);
    let rig = Rig::start(config(Kind::Http(to(&server.url()))), &memory);
    wait_until(async || memory.failures() > 0).await;
    assert!(rig.count("failures_total", Some("store")) > 0);
    rig.kill().await;
    assert_eq!(memory.cursor(), 0);
    memory.break_saving(false);
    let rig = Rig::start(config(Kind::Http(to(&server.url()))), &memory);
    rig.reaches(3).await;
    assert_eq!(bodies(&server), ["1", "1", "2", "3"]);
    rig.stop().await.unwrap();
}

#[tokio::test]
async fn a_cursor_that_cannot_be_saved_repeats_nothing_while_the_sink_lives() {
    let server = Server::start([]).await;
    let memory = Memory::with([alert(1), alert(2)]);
    memory.break_saving(true);
    let rig = Rig::start(config(Kind::Http(to(&server.url()))), &memory);
    wait_until(async || memory.failures() > 3).await;
    memory.break_saving(false);
    rig.reaches(2).await;
    assert_eq!(bodies(&server), ["1", "2"]);
    rig.stop().await.unwrap();
}

#[tokio::test]
async fn a_dead_sink_holds_up_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("alerts.jsonl");
    let hanging = Server::start((0..100).map(|_| Answer::Hang)).await;
    let alerts: Vec<_> = (1..=1000).map(alert).collect();
    let (one, other) = (Memory::with(alerts.clone()), Memory::with(alerts));
    let dead = Rig::start(config(Kind::Http(to(&hanging.url()))), &one);
    let file = File { path: path.clone(), ..File::default() };
    let alive = Rig::start(config(Kind::File(file)), &other);
    alive.reaches(1000).await;
    assert_eq!(one.cursor(), 0);
    assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), 1000);
    wait_until(async || dead.count("backlog_alerts", None) > 0).await;
    alive.stop().await.unwrap();
    dead.kill().await;
}

#[tokio::test]
async fn what_is_in_flight_at_shutdown_is_finished() {
    let hold = Arc::new(tokio::sync::Notify::new());
    let server = Server::start([Answer::Hold(hold.clone())]).await;
    let memory = Memory::with([alert(1), alert(2)]);
    let rig = Rig::start(config(Kind::Http(to(&server.url()))), &memory);
    wait_until(async || !server.requests().is_empty()).await;
    rig.tell_to_stop();
    tokio::task::yield_now().await;
    assert_eq!(memory.cursor(), 0);
    hold.notify_one();
    rig.stop().await.unwrap();
    assert_eq!(memory.cursor(), 2, "what was stored before is delivered too");
    assert_eq!(bodies(&server), ["1", "2"]);
}

#[tokio::test]
async fn a_shutdown_waits_for_nobody_longer_than_the_grace() {
    let server = Server::start([Answer::Hang]).await;
    let memory = Memory::with([alert(1)]);
    let config = SinkConfig {
        grace: Duration::from_millis(50),
        timeout: Duration::from_secs(3600),
        ..config(Kind::Http(to(&server.url())))
    };
    let rig = Rig::start(config, &memory);
    wait_until(async || !server.requests().is_empty()).await;
    rig.stop().await.unwrap();
    assert_eq!(memory.cursor(), 0, "and then nothing counts as delivered");
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_the_next_attempt() {
    let server = Server::start((0..100).map(|_| Answer::Status(500))).await;
    let memory = Memory::with([alert(1)]);
    let mut config = config(Kind::Http(to(&server.url())));
    config.retry.initial = Duration::from_secs(1_000_000);
    config.retry.max = config.retry.initial;
    config.grace = config.retry.initial;
    let rig = Rig::start(config, &memory);
    wait_until(async || rig.count("failures_total", Some("server_error")) > 0).await;
    rig.stop().await.unwrap();
    assert_eq!(memory.cursor(), 0);
}

#[tokio::test]
async fn alerts_for_others_are_passed_over() {
    let server = Server::start([]).await;
    let memory = Memory::with([
        alert_of(1, "Registry Read", Priority::Critical, "x"),
        alert_of(2, "Registry Read", Priority::Notice, "x"),
        alert_of(3, "Registry Listed", Priority::Warning, "x"),
        alert_of(4, "Secret Read", Priority::Emergency, "x"),
        alert_of(5, "registry watched", Priority::Warning, "x"),
        alert_of(6, "Secret Read", Priority::Emergency, "x"),
    ]);
    let config = SinkConfig {
        min_priority: Priority::Warning,
        include: vec!["Registry *".into()],
        exclude: vec!["*Listed".into()],
        ..config(Kind::Http(to(&server.url())))
    };
    let rig = Rig::start(config, &memory);
    rig.reaches(6).await;
    assert_eq!(bodies(&server), ["1", "5"]);
    assert_eq!(rig.count("filtered_total", None), 4);
    rig.stop().await.unwrap();
}

#[tokio::test]
async fn a_feed_that_panics_ends_its_sink_with_an_error() {
    #[derive(Debug)]
    struct Panics;
    impl pullwatch::internals::daemon::sink::Feed for Panics {
        fn after(
            &mut self,
            _: i64,
            _: usize,
        ) -> Result<
            Vec<pullwatch::internals::detection::alert::StoredAlert>,
            pullwatch::internals::daemon::sink::FeedError,
        > {
            panic!("on purpose")
        }
        fn load(&mut self) -> Result<i64, pullwatch::internals::daemon::sink::FeedError> {
            Ok(0)
        }
        fn save(&mut self, _: i64) -> Result<(), pullwatch::internals::daemon::sink::FeedError> {
            Ok(())
        }
    }
    let (_wake, woken) = tokio::sync::watch::channel(0);
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let metrics = pullwatch::internals::daemon::metrics::Metrics::new(&[]).unwrap();
    let metrics = Arc::new(pullwatch::internals::daemon::sink::SinkMetrics::new(&metrics));
    let result =
        pullwatch::internals::daemon::sink::run(SinkConfig::default(), Panics, woken, stopped, metrics).await;
    assert!(matches!(result, Err(SinkError::Store { .. })));
}
