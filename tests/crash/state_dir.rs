//! What can happen to the state directory and to the clock, beside kills and full disks.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use pullwatch::internals::daemon::store::StoreReader;

use crate::common::wait_for;
use crate::rig::{Ledger, Place, stop};
use crate::writer::Writer;

const DAY: i64 = 86_400_000_000_000;

fn place() -> Place {
    let place = Place::new();
    place.configure(&place.log(), &["{type: file, name: devnull, path: /dev/null}".to_owned()]);
    place
}

#[test]
fn a_removed_state_directory_is_reported_and_ends_the_process() {
    let place = place();
    let mut writer = Writer::new(place.folder.path(), 61);
    writer.events(10);
    let mut child = place.start();
    let mut ledger = Ledger::default();
    ledger.wait(&place.state, 10);
    wait_for("ready", || place.ask("/readyz").is_some_and(|(code, _)| code == 200));
    // Nothing is written meanwhile: it is noticed all the same.
    let errors = place.metric("pullwatch_store_errors_total").unwrap();
    fs::rename(&place.state, place.path("moved")).unwrap();
    wait_for("not ready", || {
        place.ask("/readyz").is_some_and(|(code, body)| code == 503 && body.contains("the store was removed"))
    });
    wait_for("it is counted", || place.metric("pullwatch_store_errors_total") > Some(errors));
    wait_for("it is logged", || place.said().contains("was removed or replaced while pullwatch was running"));
    // It was moved by mistake.
    fs::rename(place.path("moved"), &place.state).unwrap();
    wait_for("ready", || place.ask("/readyz").is_some_and(|(code, _)| code == 200));
    writer.events(10);
    ledger.wait(&place.state, 20);
    // It is gone for good.
    fs::remove_dir_all(&place.state).unwrap();
    writer.events(10);
    let mut code = None;
    wait_for("it ends", || {
        code = child.0.try_wait().unwrap();
        code.is_some()
    });
    assert_eq!(code.unwrap().code(), Some(2));
    // The next start has nothing, and reads everything that is there.
    let child = place.start();
    let mut anew = Ledger::default();
    anew.wait(&place.state, 30);
    anew.assert_exact(0..30);
    assert_eq!(stop(child), Some(0));
}

#[test]
fn an_empty_store_and_a_world_writable_directory_are_reported() {
    let place = place();
    fs::create_dir(&place.state).unwrap();
    fs::write(place.state.join("pullwatch.db"), "").unwrap();
    fs::set_permissions(&place.state, fs::Permissions::from_mode(0o777)).unwrap();
    let mut writer = Writer::new(place.folder.path(), 67);
    writer.events(1);
    let child = place.start();
    Ledger::default().wait(&place.state, 1);
    assert_eq!(stop(child), Some(0));
    let said = place.said();
    let line = |text: &str| said.lines().find(|line| line.contains(text)).map(str::to_owned);
    assert!(line("the store was an empty file").is_some_and(|line| line.contains("ERROR")), "{said}");
    assert!(
        line("any user can write to the state directory").is_some_and(|line| line.contains("777")),
        "{said}"
    );
}

/// Makes all stored times older, as if the clock had been set ahead.
fn age_alerts(place: &Place, days: i64, with_clock: bool) {
    let db = rusqlite::Connection::open(place.state.join("pullwatch.db")).unwrap();
    db.execute("UPDATE alerts SET stored = stored - ?1", [days * DAY]).unwrap();
    if with_clock {
        let clock: Vec<u8> = db
            .query_row("SELECT value FROM state WHERE kind = 'retention_clock'", (), |row| row.get(0))
            .unwrap();
        let believed = i64::from_be_bytes(clock[..8].try_into().unwrap()) - days * DAY;
        let clock = [&believed.to_be_bytes()[..], &clock[8..]].concat();
        db.execute("UPDATE state SET value = ?1 WHERE kind = 'retention_clock'", [clock]).unwrap();
    }
}

#[test]
fn a_clock_that_jumps_ahead_deletes_no_alerts() {
    let place = place();
    let mut writer = Writer::new(place.folder.path(), 73);
    writer.events(50);
    let child = place.start();
    Ledger::default().wait(&place.state, 50);
    let delivered = "pullwatch_sink_backlog_alerts{sink=\"devnull\"}";
    wait_for("delivered", || place.metric(delivered) == Some(0.0));
    assert_eq!(stop(child), Some(0));
    // Seen from the store, the clock is 400 days ahead of the last run.
    age_alerts(&place, 400, true);
    let alerts = || StoreReader::open(&place.state).unwrap().stats().unwrap().alerts;
    let child = place.start();
    writer.events(1);
    wait_for("one more", || alerts() == 102);
    wait_for("logged", || place.said().contains("the clock jumped"));
    assert_eq!(stop(child), Some(0));
    assert_eq!(alerts(), 102);
    // Alerts that are old by a clock that did not jump are deleted. The two of the last run are in the future then.
    age_alerts(&place, -400, true);
    age_alerts(&place, 40, false);
    let child = place.start();
    wait_for("deleted", || alerts() == 2);
    assert_eq!(stop(child), Some(0));
}
