//! Rotations in a row, under load, with no kill: here the daemon's own counts tell what was read twice.

use crate::common::wait_for;
use crate::receiver::Receiver;
use crate::rig::{Daemon, Ledger, Place, stop, times};
use crate::writer::Writer;

#[test]
fn a_storm_of_rotations_loses_and_doubles_nothing() {
    let place = Place::new();
    let receiver = Receiver::start(&[], 0);
    place.configure(&place.log(), &[receiver.sink("http", "")]);
    let rotations = times("PULLWATCH_ROTATIONS", 40);
    let child = Daemon::start(place.command().env("PULLWATCH_LOG", "info,pullwatch::daemon::source=debug"));
    wait_for("the port", || place.ask("/healthz").is_some());
    let mut writer = Writer::new(place.folder.path(), 9);
    let mut ledger = Ledger::default();
    while writer.rotations < rotations {
        // From 1 KB to 5 MB, most of them small.
        let largest = 1024 << writer.random.below(13);
        let size = 1024 + writer.random.count(largest.min(5 << 20));
        writer.bytes(size);
        if writer.rotations.is_multiple_of(10) {
            ledger.look(&place.state);
            writer.clean(&ledger);
        }
        writer.rotate_somehow();
    }
    ledger.wait(&place.state, writer.written);
    ledger.assert_exact(0..writer.written);
    wait_for("no lag", || place.metric("pullwatch_source_lag_bytes{source=\"log\"}") == Some(0.0));
    receiver.assert_has(&ledger);
    // What is still to come would be lines that were read twice.
    let read = place.metric("pullwatch_source_events_total{source=\"log\"}");
    let lines = u32::try_from(writer.lines).unwrap();
    let said = place.said();
    let bad: Vec<_> =
        said.lines().filter(|line| line.contains("ERROR") || line.contains("WARN")).take(5).collect();
    eprintln!(
        "{} rotations, {} bytes, {} events, {read:?} read; {bad:#?}",
        writer.rotations, writer.bytes, lines
    );
    assert_eq!(read, Some(f64::from(lines)), "read {read:?} of {lines}");
    assert_eq!(stop(child), Some(0));
}
