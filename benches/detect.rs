//! What it costs to judge a log in memory: decode, match, alert, without reading and printing.
//!
//! `cargo bench --bench detect`

// A benchmark that cannot read its input has nothing to say.
#![allow(clippy::expect_used)]

use std::io::Read as _;

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use pullwatch::detection::detector::{Detector, Options};
use pullwatch::detection::rules::{self, SourceFile};

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

/// A rule with a literal that few lines have: most lines are not read at all.
#[divan::bench]
fn a_rare_literal(bencher: Bencher) {
    bench(
        bencher,
        "- {rule: r, desc: d, priority: INFO, output: '%ka.user.name', condition: 'kevt and ka.target.resource=secrets and ka.target.name contains registry'}",
    );
}

/// A rule that decides on the head of each event.
#[divan::bench]
fn the_head(bencher: Bencher) {
    bench(
        bencher,
        "- {rule: r, desc: d, priority: INFO, output: '%ka.user.name', condition: 'kevt and ka.verb=escalate'}",
    );
}

/// A rule that needs what stands at the end of each event.
#[divan::bench]
fn the_end(bencher: Bencher) {
    bench(
        bencher,
        "- {rule: r, desc: d, priority: INFO, output: '%ka.user.name', condition: 'ka.auth.reason = nosuch'}",
    );
}

/// The shipped rules.
#[divan::bench]
fn shipped(bencher: Bencher) {
    bench_files(bencher, &pullwatch::shipped::files());
}

/// An alert for every event.
#[divan::bench]
fn every_event_alerts(bencher: Bencher) {
    bench(
        bencher,
        "- {rule: r, desc: d, priority: INFO, output: '%ka.user.name %ka.verb %ka.uri', condition: 'ka.stage exists'}",
    );
}
