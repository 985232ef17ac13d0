//! Logs that are written and rotated while the daemon is killed, and a receiver that fails.

use std::sync::mpsc;

use crate::receiver::{FAILURES, Receiver};
use crate::rig::{Ledger, Place, Random, kill, stop, times};
use crate::writer::Writer;

#[test]
fn killed_at_any_moment_each_alert_is_stored_once_and_delivered() {
    let place = Place::new();
    let (moody, sound) = (Receiver::start(&FAILURES, 25), Receiver::start(&[], 0));
    place.configure(&place.log(), &[moody.sink("moody", ""), sound.sink("sound", "")]);
    let kills = times("PULLWATCH_KILLS", 15);
    let folder = place.folder.path().to_owned();
    // The writer does not wait for a reader.
    let (round, rounds) = mpsc::channel();
    let (done, is_done) = mpsc::channel();
    let writing = std::thread::spawn(move || {
        let mut writer = Writer::new(&folder, 3);
        for ledger in rounds {
            writer.clean(&ledger);
            let steps = writer.random.count(7);
            writer.work(steps, 60);
            let _ = done.send(ledger);
        }
        writer
    });
    let (mut random, mut ledger) = (Random(5), Ledger::default());
    for _ in 0..kills {
        round.send(ledger).unwrap();
        let child = place.start();
        random.sleep(900);
        kill(child);
        ledger = is_done.recv().unwrap();
        ledger.look(&place.state);
    }
    drop(round);
    let writer = writing.join().unwrap();
    let child = place.start();
    ledger.wait(&place.state, writer.written);
    ledger.assert_exact(0..writer.written);
    moody.come_to_senses();
    moody.assert_has(&ledger);
    sound.assert_has(&ledger);
    assert_eq!(stop(child), Some(0));
    eprintln!(
        "{kills} kills, {} rotations, {} events, {} alerts stored once; repeated at receivers: {} and {}",
        writer.rotations,
        writer.written,
        ledger.ids.len(),
        moody.repeated(),
        sound.repeated()
    );
    assert!(!place.said().contains("was truncated before it was read"), "{}", place.said());
}
