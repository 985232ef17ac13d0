//! Throughput of evaluating a log in memory: decoding, matching and alerts, without I/O.
//!
//! `cargo bench --bench detect`

// A benchmark without its input is meaningless.
#![allow(clippy::expect_used)]

use std::io::Read as _;

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use pullwatch::internals::detection::detector::{Detector, Options};
use pullwatch::internals::detection::rules::{self, SourceFile};

fn main() {
    divan::main();
}

fn bench(bencher: Bencher, rules: &str) {
    bench_files(bencher, &[SourceFile { name: "rules".into(), text: rules.to_owned() }]);
}

fn bench_files(bencher: Bencher, files: &[SourceFile]) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/samples/audit/request-response.log.gz");
    let mut log = Vec::new();
    let file = std::fs::File::open(path).expect("the sample log");
    flate2::read::GzDecoder::new(file).read_to_end(&mut log).expect("gzip");
    let detector = Detector::new(&rules::load(files, &rules::Options::default()).rules, Options::default());
    let mut out = Vec::new();
    bencher.counter(BytesCount::new(log.len())).bench_local(|| {
        out.clear();
        detector.session().chunk(black_box(&log), &mut |alert| alert.write_json(&mut out));
        out.len()
    });
}

/// A rule with a rare literal: most lines are not parsed.
#[divan::bench]
fn rare_literal(bencher: Bencher) {
    bench(
        bencher,
        "- {rule: r, desc: d, priority: INFO, output: '%ka.user.name', condition: 'kevt and ka.target.resource=secrets and ka.target.name contains registry'}",
    );
}

/// A rule that is decided by the head of each event.
#[divan::bench]
fn head(bencher: Bencher) {
    bench(
        bencher,
        "- {rule: r, desc: d, priority: INFO, output: '%ka.user.name', condition: 'kevt and ka.verb=escalate'}",
    );
}

/// A rule that needs the last member of each event.
#[divan::bench]
fn last_member(bencher: Bencher) {
    bench(
        bencher,
        "- {rule: r, desc: d, priority: INFO, output: '%ka.user.name', condition: 'ka.auth.reason = nosuch'}",
    );
}

/// The shipped rules.
#[divan::bench]
fn shipped(bencher: Bencher) {
    bench_files(bencher, &pullwatch::internals::shipped::files());
}

/// An alert for every event.
#[divan::bench]
fn every_event_alerts(bencher: Bencher) {
    bench(
        bencher,
        "- {rule: r, desc: d, priority: INFO, output: '%ka.user.name %ka.verb %ka.uri', condition: 'ka.stage exists'}",
    );
}
