//! Any bytes as a log: nothing panics, every alert is JSON, chunks cut anywhere at a record say the same.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pullwatch::detector::{Detector, Options};
use pullwatch::rules::{self, SourceFile};

static DETECTOR: LazyLock<Detector> = LazyLock::new(|| {
    let text = "- rule: all\n  desc: d\n  condition: ka.auditid exists or not ka.verb = x\n  output: '%jevt.obj %ka.user.groups %ka.uri.param[a] %ka.req.pod.containers.image %evt.time.iso8601'\n  priority: INFO\n";
    let file = SourceFile { name: "r.yaml".into(), text: text.to_owned() };
    Detector::new(&rules::load(&[file], &rules::Options::default()).rules, Options::default())
});

fuzz_target!(|bytes: &[u8]| {
    let mut session = DETECTOR.session();
    let mut json = Vec::new();
    session.chunk(bytes, &mut |alert| {
        json.clear();
        alert.write_json(&mut json);
        let alert: serde_json::Value = serde_json::from_slice(&json).expect("an alert is JSON");
        assert!(alert["event"].is_object());
    });
    session.head(bytes, &mut |_| {});
});
