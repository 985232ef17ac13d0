//! Receivers that are dead, slow or choosy beside one that is well.

use std::fs;

use serde_json::Value;

use crate::common::wait_for;
use crate::receiver::{Mood, Receiver};
use crate::rig::{Ledger, Place, key, stop};
use crate::writer::Writer;

#[test]
fn nobody_holds_up_the_one_that_is_well_and_what_is_refused_is_a_dead_letter() {
    let place = Place::new();
    let (good, slow) = (Receiver::start(&[], 0), Receiver::start(&[Mood::Slow], 100));
    let (hanging, choosy) =
        (Receiver::start(&[Mood::Hang], 100), Receiver::start(&[Mood::RefuseSevens], 100));
    let dead = "{type: http, name: dead, url: \"http://127.0.0.1:9/\", retry: {initial: 20ms, max: 200ms}}";
    place.configure(
        &place.log(),
        &[
            dead.to_owned(),
            slow.sink("slow", ", batch: {alerts: 10, bytes: 1M}"),
            hanging.sink("hanging", ""),
            choosy.patient_sink("choosy", ", dead_letter: {path: dead.jsonl}"),
            good.patient_sink("good", ""),
        ],
    );
    let child = place.start();
    let mut writer = Writer::new(place.folder.path(), 31);
    let mut ledger = Ledger::default();
    for _ in 0..10 {
        writer.events(70);
    }
    ledger.wait(&place.state, writer.written);
    ledger.assert_exact(0..writer.written);
    good.assert_has(&ledger);
    let backlog = |sink: &str| place.metric(&format!("pullwatch_sink_backlog_alerts{{sink=\"{sink}\"}}"));
    assert!(backlog("slow") > Some(0.0), "the good one had to wait for the slow one");
    wait_for("a backlog of all", || backlog("dead") == Some(1400.0) && backlog("hanging") == Some(1400.0));

    let refused = writer.written.div_ceil(7) * 2;
    let rejected = "pullwatch_sink_dead_letters_total{reason=\"rejected\",sink=\"choosy\"}";
    wait_for(rejected, || place.metric(rejected) == Some(f64::from(u32::try_from(refused).unwrap())));
    wait_for("the rest", || choosy.count() == ledger.ids.len() - refused);
    for (sink, reason) in [("dead", "connection"), ("hanging", "timeout"), ("choosy", "rejected")] {
        let failures = format!("pullwatch_sink_failures_total{{reason=\"{reason}\",sink=\"{sink}\"}}");
        wait_for(&failures, || place.metric(&failures).is_some_and(|count| count > 0.0));
    }
    let letters = fs::read_to_string(place.state.join("dead.jsonl")).unwrap();
    let letters: Vec<Value> = letters.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(letters.len(), refused);
    for letter in &letters {
        assert_eq!(key(&letter["alert"]).0 % 7, 0);
        assert_eq!((letter["reason"].as_str(), letter["sink"].as_str()), (Some("rejected"), Some("choosy")));
    }
    hanging.come_to_senses();
    slow.come_to_senses();
    hanging.assert_has(&ledger);
    slow.assert_has(&ledger);
    assert_eq!(stop(child), Some(0));
    assert_eq!((good.repeated(), choosy.repeated()), (0, 0));
}

#[test]
fn told_to_stop_under_load_it_delivers_all_that_is_stored_and_exits_in_order() {
    let place = Place::new();
    let good = Receiver::start(&[], 0);
    place.configure(&place.log(), &[good.patient_sink("good", "")]);
    let (mut ledger, mut writer) = (Ledger::default(), Writer::new(place.folder.path(), 37));
    for _ in 0..4 {
        let child = place.start();
        writer.work(5, 100);
        assert_eq!(stop(child), Some(0));
        ledger.look(&place.state);
        good.assert_has(&ledger);
    }
    let child = place.start();
    ledger.wait(&place.state, writer.written);
    assert_eq!(stop(child), Some(0));
    ledger.assert_exact(0..writer.written);
    good.assert_has(&ledger);
    assert_eq!(good.repeated(), 0, "after an orderly end nothing is sent again");
}
