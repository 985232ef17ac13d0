//! Any bytes as a log: nothing panics, every alert is JSON, and the work is in proportion to the input; with a rule that reads
//! every member, and with the shipped rules and their cluster state.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pullwatch::internals::detection::audit::steps;
use pullwatch::internals::detection::detector::{Detector, Options};
use pullwatch::internals::detection::rules::{self, SourceFile};

static DETECTOR: LazyLock<Detector> = LazyLock::new(|| {
    let text = "- rule: all\n  desc: d\n  condition: ka.auditid exists or not ka.verb = x\n  output: '%jevt.obj %ka.user.groups %ka.uri.param[a] %ka.req.pod.containers.image %evt.time.iso8601'\n  priority: INFO\n";
    let file = SourceFile { name: "r.yaml".into(), text: text.to_owned() };
    Detector::new(&rules::load(&[file], &rules::Options::default()).rules, Options::default())
});

static SHIPPED: LazyLock<Detector> = LazyLock::new(|| {
    let loaded = rules::load(&pullwatch::internals::shipped::files(), &rules::Options::default());
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
    is_linear(bytes);
});

/// Repeats the input, as lines and without line breaks, and compares the steps for twice as much of it.
fn is_linear(bytes: &[u8]) {
    if bytes.is_empty() || bytes.len() > 512 {
        return;
    }
    for unit in [bytes.to_vec(), [bytes, b"\n"].concat()] {
        let repeats = 4096 / unit.len() + 8;
        let work = |repeats: usize| {
            let text = unit.repeat(repeats);
            steps::take();
            SHIPPED.session().chunk(&text, &mut |_| {});
            steps::take()
        };
        let (once, twice) = (work(repeats), work(repeats * 2));
        assert!(twice <= once * 5 / 2 + 50_000, "{once} steps, {twice} for twice the input");
    }
}
