//! Any bytes as a log: nothing panics, every alert is JSON, under a rule that asks for much and under the shipped rules with
//! all that they learn.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pullwatch::detection::detector::{Detector, Options};
use pullwatch::detection::rules::{self, SourceFile};

static DETECTOR: LazyLock<Detector> = LazyLock::new(|| {
    let text = "- rule: all\n  desc: d\n  condition: ka.auditid exists or not ka.verb = x\n  output: '%jevt.obj %ka.user.groups %ka.uri.param[a] %ka.req.pod.containers.image %evt.time.iso8601'\n  priority: INFO\n";
    let file = SourceFile { name: "r.yaml".into(), text: text.to_owned() };
    Detector::new(&rules::load(&[file], &rules::Options::default()).rules, Options::default())
});

static SHIPPED: LazyLock<Detector> = LazyLock::new(|| {
    let loaded = rules::load(&pullwatch::shipped::files(), &rules::Options::default());
    Detector::new(&loaded.rules, Options::default())
});

fuzz_target!(|bytes: &[u8]| {
    for detector in [&*DETECTOR, &*SHIPPED] {
        let mut session = detector.session();
        let mut json = Vec::new();
        let mut on_alert = |alert: &pullwatch::Alert<'_>| {
            json.clear();
            alert.write_json(&mut json);
            let alert: serde_json::Value = serde_json::from_slice(&json).expect("an alert is JSON");
            assert!(alert["event"].is_object());
        };
        session.chunk(bytes, &mut on_alert);
        session.head(bytes, &mut on_alert);
        session.finish(&mut on_alert);
    }
});
