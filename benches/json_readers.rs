//! What it costs to know an event's stage, verb, resource and name: our reader beside others.
//!
//! `cargo bench --bench json_readers`

// A benchmark that cannot read its input has nothing to say.
#![allow(clippy::expect_used)]

use std::io::Read as _;

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use pullwatch::internals::detection::audit::event::{Event, Member};

fn main() {
    divan::main();
}

fn log() -> Vec<u8> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/samples/audit/request-response.log.gz");
    let mut log = Vec::new();
    let file = std::fs::File::open(path).expect("the sample log");
    flate2::read::GzDecoder::new(file).read_to_end(&mut log).expect("gzip");
    log
}

fn bench(bencher: Bencher, read: impl Fn(&[u8]) -> bool + Sync) {
    let log = log();
    let lines: Vec<&[u8]> = log.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).collect();
    bencher
        .counter(BytesCount::new(log.len()))
        .bench(|| lines.iter().filter(|line| read(black_box(line))).count());
}

/// Only as far as the members stand.
#[divan::bench]
fn pullwatch_head(bencher: Bencher) {
    bench(bencher, |line| {
        let mut event = Event::new(line);
        let known = event.get(Member::Stage).is_some() && event.get(Member::Verb).is_some();
        let object = event.object();
        known && object.resource.is_some() && object.name.is_some()
    });
}

/// To the end of the event.
#[divan::bench]
fn pullwatch_whole(bencher: Bencher) {
    bench(bencher, |line| {
        let mut event = Event::new(line);
        let object = event.object();
        event.finish().is_ok() && object.resource.is_some() && object.name.is_some()
    });
}

#[derive(serde::Deserialize)]
struct Borrowed<'a> {
    #[serde(borrow)]
    stage: Option<&'a str>,
    verb: Option<&'a str>,
    #[serde(borrow, rename = "objectRef")]
    object: Option<BorrowedObject<'a>>,
}

#[derive(serde::Deserialize)]
struct BorrowedObject<'a> {
    resource: Option<&'a str>,
    name: Option<&'a str>,
}

impl Borrowed<'_> {
    fn is_known(&self) -> bool {
        let object = self.object.as_ref();
        self.stage.is_some()
            && self.verb.is_some()
            && object.is_some_and(|object| object.resource.is_some() && object.name.is_some())
    }
}

#[divan::bench]
fn sonic_rs_struct(bencher: Bencher) {
    bench(bencher, |line| sonic_rs::from_slice::<Borrowed>(line).is_ok_and(|event| event.is_known()));
}

#[divan::bench]
fn sonic_rs_lazy(bencher: Bencher) {
    bench(bencher, |line| {
        sonic_rs::get(line, ["stage"]).is_ok()
            && sonic_rs::get(line, ["verb"]).is_ok()
            && sonic_rs::get(line, ["objectRef", "resource"]).is_ok()
            && sonic_rs::get(line, ["objectRef", "name"]).is_ok()
    });
}

#[divan::bench]
fn simd_json_tape(bencher: Bencher) {
    bench(bencher, |line| {
        let mut copy = line.to_vec();
        simd_json::to_tape(&mut copy).is_ok_and(|tape| {
            let event = tape.as_value();
            let object = event.get("objectRef");
            event.get("stage").is_some()
                && event.get("verb").is_some()
                && object.is_some_and(|object| object.get("name").is_some())
        })
    });
}

#[divan::bench]
fn serde_json_struct(bencher: Bencher) {
    bench(bencher, |line| serde_json::from_slice::<Borrowed>(line).is_ok_and(|event| event.is_known()));
}

#[divan::bench]
fn serde_json_value(bencher: Bencher) {
    bench(bencher, |line| {
        serde_json::from_slice::<serde_json::Value>(line)
            .is_ok_and(|event| event["objectRef"]["name"].is_string())
    });
}
