//! Messages between replicas. Any client with write access to the topic may have sent them.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pullwatch::internals::detection::detector::repartition::{Settings, ReplayEnd};
use pullwatch::internals::detection::detector::{Detector, Options};
use pullwatch::internals::detection::rules::{self, SourceFile};

static DETECTOR: LazyLock<Detector> = LazyLock::new(|| {
    let text = "
- {rule: Read, desc: d, condition: ka.verb = get, output: r, priority: INFO}
- {correlation: Many, type: value_count, rules: [Read], group-by: [ka.user.name], timespan: 1m, condition: {field: ka.target.name, gte: 2}, output: '%ka.user.name %correlation.values', priority: INFO}
- {correlation: Few, type: event_count, rules: [Read], group-by: [ka.user.name], timespan: 1m, condition: {lte: 2}, output: '%ka.user.name', priority: INFO}
";
    let file = SourceFile { name: "r.yaml".into(), text: text.to_owned() };
    let repartition = Some(Settings { partitions: 2, allowed_lateness: 1_000_000_000 });
    Detector::new(&rules::load(&[file], &rules::Options::default()).rules, Options { repartition, ..Options::default() })
});

/// Real messages: a match of each correlation, and the outcome of a window.
static SEEDS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let mut session = DETECTOR.session();
    let mut sent = Vec::new();
    for number in 0..3 {
        let event = format!(
            r#"{{"kind":"Event","auditID":"{number}","stage":"ResponseComplete","verb":"get","user":{{"username":"eve"}},"objectRef":{{"resource":"secrets","name":"s{number}"}},"stageTimestamp":"2026-11-23T10:0{number}:00Z"}}"#
        );
        session.chunk(event.as_bytes(), &mut |_| {});
    }
    if let Some(repartition) = session.repartition() {
        sent = repartition.take_outbox();
        repartition.assign(0, 0);
    }
    for (offset, message) in (0..).zip(&sent) {
        session.on_remote_match(0, offset, &message.value, &mut |_| {});
    }
    sent.extend(session.repartition().map(|repartition| repartition.take_outbox()).unwrap_or_default());
    sent.into_iter().map(|message| message.value).collect()
});

fuzz_target!(|bytes: &[u8]| {
    let Some((&[which, at, length], with)) = bytes.split_first_chunk() else { return };
    // A real message with something else in its middle, and the bytes by themselves.
    let mut changed = SEEDS[usize::from(which) % SEEDS.len()].clone();
    let start = (usize::from(at) * 4).min(changed.len());
    let end = (start + usize::from(length)).min(changed.len());
    changed.splice(start..end, with.iter().copied());
    let mut session = DETECTOR.session();
    session.set_now(2_000_000_000_000_000_000);
    let mut json = Vec::new();
    let mut on_alert = |alert: &pullwatch::Alert<'_>| {
        json.clear();
        alert.write_json(&mut json);
        serde_json::from_slice::<serde_json::Value>(&json).expect("an alert is JSON");
    };
    if let Some(repartition) = session.repartition() {
        repartition.assign(0, 2);
        repartition.replay(0, 0, &changed, ReplayEnd { offset: 1, is_final: which > 127 });
    }
    let messages = SEEDS.iter().map(Vec::as_slice).chain([&changed[..], with, &changed[..]]);
    for (offset, message) in (2..).zip(messages) {
        session.on_remote_match(0, offset, message, &mut on_alert);
    }
    session.set_now(2_100_000_000_000_000_000);
    session.advance(2_100_000_000_000_000_000, &mut on_alert);
});
